"""The driver: one native function that runs a stretch of a Program from its first kernel to its last.

    i64 NAME(ptr slabs, ptr table, ptr arena, i64 threads)

``slabs`` holds the address of every slab that is not in the arena, ``table`` the values of the formulas
in ``Writer.formulas`` (computed by ``NAME_sizes`` from the values of the symbols), ``arena`` the working memory, aligned to
64 bytes: the program's arena, then scratch memory for kernels.  The result is 0, or 1 if a check of the program failed: then some
value is not to be used, and the careful evaluation will say what is wrong.  A launch fills a context on the stack and calls the kernel
once for each chunk, or hands the chunks to the pool.  How the grid is cut depends on sizes alone for kernels that
reduce over it; for others on the number of threads too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from graphc import dims
from graphc.backends.llvm.clock import Clock
from graphc.backends.llvm.costs import Cut, cut, cut_at, serial_ns
from graphc.backends.llvm.formulas import size_value
from graphc.backends.llvm.kernels import Code, emit_kernel
from graphc.backends.llvm.ordered import ordered_module
from graphc.backends.llvm.sweeping import Sweeping
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Module, Value
from graphc.dims import Size, Symbol
from graphc.kernel import Kernel, Launch, Ordered, Product, Program, Sweep

__all__ = ["Writer"]


class Writer(Sweeping):
    """Writes the driver of one program: a function for each stretch of steps between call-outs."""

    def __init__(self, program: Program, target: Target, symbols: Sequence[Symbol], profile: bool = False) -> None:
        self.program, self.target, self.symbols = program, target, tuple(symbols)
        self.clock = Clock(program) if profile else None
        self.formulas: dict[Size, int] = {}
        self.kernels: dict[str, str] = {}
        self.modules: dict[Any, str] = {}
        self.codes: dict[Kernel, Code] = {}
        self.scratch: Size = 0
        self.serial = serial_ns(program.steps)
        self.module = Module(target)
        self.alone = False  # is one thread of many written, which shares out nothing?
        self.block: dict[Symbol, Value] = {}
        self.most: dict[Symbol, Size] = {}

    # -- sizes --------------------------------------------------------------------------------

    def slot(self, size: Size) -> int:
        return self.formulas.setdefault(size, len(self.formulas))

    def size(self, size: Size) -> Value:
        f = self.f
        if isinstance(size, int):
            return f.const(size, "i64")
        if self.block and any(s.kind == "block" for s in dims.symbols(size)):
            return self.block_size(size)
        known = self.loaded.get(size)
        if known is None:
            ref = f"%size{self.slot(size)}"
            self.entry += [f"  {ref}.p = getelementptr i64, ptr %table, i64 {self.slot(size)}", f"  {ref} = load i64, ptr {ref}.p"]
            known = self.loaded[size] = Value(f, ref, "i64")
        return known

    def sizes_function(self, name: str) -> None:
        """``void NAME_sizes(ptr symbols, ptr table)``: all formulas."""
        f = Body(self.module, name + "_sizes", [("ptr", "symbols"), ("ptr", "table")])
        values: dict[Symbol, Value] = {}
        for n, symbol in enumerate(self.symbols):
            p = f.op(f"getelementptr i64, ptr %symbols, i64 {n}")
            values[symbol] = f.value(f.op(f"load i64, ptr {p}"), "i64")
        for size, n in self.formulas.items():
            x = size_value(f, size, values)
            p = f.op(f"getelementptr i64, ptr %table, i64 {n}")
            f.line(f"store i64 {x.ref}, ptr {p}")
        f.finish()

    # -- a stretch ----------------------------------------------------------------------------

    def stretch(self, name: str, steps: Sequence[Launch | Product | Ordered | Sweep]) -> None:
        self.f = Body(self.module, name, [("ptr", "slabs"), ("ptr", "table"), ("ptr", "arena"), ("i64", "threads")], "i64")
        self.entry: list[str] = []
        self.loaded: dict[Size, Value] = {}
        self.slabs: dict[int, str] = {}
        self.context_slots = 0
        self.scratch_ref = ""
        self.failed = False
        if self.clock:
            self.clock.start(self.f, self.entry)
        for step in steps:
            if isinstance(step, Launch):
                self.launch(step)
            elif isinstance(step, Product):
                self.contraction(step)
            elif isinstance(step, Sweep):
                self.sweep(step)
            else:
                self.ordered(step)
            if self.clock:
                self.clock.stop(step)
            if isinstance(step, Launch):
                self.check(step)
        if self.failed:
            self.f.line("ret i64 0")
            self.f.label("failed")
        self.close(f"ret i64 {int(self.failed)}")

    def check(self, step: Launch) -> None:
        """Leave if a check that the launch has written failed: what follows would read outside of arrays."""
        f = self.f
        for k in step.writes:
            if k in self.program.checks:
                bad = f.value(f.op(f"load i8, ptr {self.address(k)}"), "i8").ne(0)
                good, = f.labels("check", "good")
                f.line(f"br i1 {bad.ref}, label %failed, label %{good}")
                f.label(good)
                self.failed = True

    def address(self, slab: int) -> str:
        known = self.slabs.get(slab)
        if known is None:
            known = self.slabs[slab] = f"%slab{slab}"
            s = self.program.slabs[slab]
            if s.place in ("arena", "block"):
                offset = self.size(s.offset).ref
                self.entry.append(f"  {known} = getelementptr i8, ptr {'%arena' if s.place == 'arena' else '%mine'}, i64 {offset}")
                return known
            self.entry += [f"  {known}.p = getelementptr ptr, ptr %slabs, i64 {slab}", f"  {known} = load ptr, ptr {known}.p"]
        return known

    def scratch_address(self) -> str:
        if not self.scratch_ref:
            self.scratch_ref = "%scratch"
            base, begin = ("%mine", self.mine) if self.alone else ("%arena", self.program.arena)
            self.entry.append(f"  %scratch = getelementptr i8, ptr {base}, i64 {self.size(begin).ref}")
        return self.scratch_ref

    def fill(self, slots: Sequence[str]) -> None:
        """Write the context."""
        self.context_slots = max(self.context_slots, len(slots))
        for n, text in enumerate(slots):
            p = self.f.op(f"getelementptr i64, ptr %context, i64 {n}") if n else "%context"
            self.f.line(f"store {text}, ptr {p}")

    # -- kernels ------------------------------------------------------------------------------

    def code(self, kernel: Kernel) -> Code:
        code = self.codes.get(kernel)
        if code is None:
            code = self.codes[kernel] = self.kept(emit_kernel(kernel, self.target, "NAME"))
        return code

    def kept(self, code: Code) -> Code:
        """The code under a name that says what it is."""
        if code.short is not None:
            code = replace(code, short=(self.kept(code.short[0]), code.short[1]))
        digest = hashlib.sha256((self.target.key + "\n" + code.text + code.finish_text).encode()).hexdigest()[:20]
        name = f"k_{digest}"
        self.kernels[name] = code.text.replace("@NAME", "@" + name)
        if code.finish_text:
            self.kernels[name + "_finish"] = code.finish_text.replace("@NAME", "@" + name)
        return code.named(name)

    def launch(self, step: Launch) -> None:
        f, code = self.f, self.code(step.kernel)
        if code.short is None:
            self.run(step, code)
            return
        short, when = code.short
        f.either(self.size(when).ne(0), "short", lambda: self.run(step, short), lambda: self.run(step, code))

    def run(self, step: Launch, code: Code) -> None:
        """One form of a kernel."""
        f, kernel = self.f, code.kernel
        self.scratch = dims.dim_max(self.scratch, code.scratch)
        self.module.declare(code.name, "void (ptr, i64)")
        operands = [f"ptr {self.address(s)}" if s >= 0 else "ptr null" for s in step.slabs]
        scratch = f"ptr {self.scratch_address()}" if code.scratch != 0 else "ptr null"
        sizes = [f"i64 {self.size(s).ref}" for s in code.sizes]
        if not kernel.grid:
            self.fill([*operands, scratch, "i64 0", *sizes])
            f.line(f"call void @{code.name}(ptr %context, i64 0)")
            return
        parts = cut(kernel, code.block, self.serial)
        self.chunks(code.name, [*operands, scratch], sizes, parts, kernel.ranges[kernel.grid[0]].extent, code.split)
        if code.finish_text:
            self.module.declare(code.name + "_finish", "void (ptr, i64)")
            f.line(f"call void @{code.name}_finish(ptr %context, i64 {self.size(parts.chunks).ref})")

    def chunks(self, name: str, context: Sequence[str], sizes: Sequence[str], cut: Cut, extent: Size, split: bool) -> None:
        """Call a kernel for all its chunks, on several threads where that pays.  ``split``: do results depend on how it is cut?"""
        f = self.f
        whole = extent if not split else cut.rows
        shared = cut.wide != 0 and not self.alone
        if shared:
            parallel, serial, done = f.labels("launch", "parallel", "serial", "done")
            threads = f.value("%threads", "i64")
            wide = threads.gt(1) if cut.wide == 1 else threads.gt(1) & self.size(cut.wide).ne(0)
            f.line(f"br i1 {wide.ref}, label %{parallel}, label %{serial}")
            f.label(parallel)
            self.fill([*context, f"i64 {self.size(cut.rows).ref}", *sizes])
            self.module.declare("gc_parallel", "void (ptr, ptr, i64, i64)")
            f.line(f"call void @gc_parallel(ptr @{name}, ptr %context, i64 {self.size(cut.chunks).ref}, i64 {threads.ref})")
            f.line(f"br label %{done}")
            f.label(serial)
        self.fill([*context, f"i64 {self.size(whole).ref}", *sizes])
        if split and cut.chunks != 1:
            with f.loop(f.const(0, "i64"), self.size(cut.chunks), f.const(1, "i64"), "chunk") as loop:
                f.line(f"call void @{name}(ptr %context, i64 {loop.index.ref})")
        else:
            f.line(f"call void @{name}(ptr %context, i64 0)")
        if shared:
            f.line(f"br label %{done}")
            f.label(done)

    def ordered(self, step: Ordered) -> None:
        """A loop whose rounds follow one another; chunks are parts of another axis."""
        f = self.f
        code = ordered_module(step, self.program, self.target, "NAME")
        name = "o_" + hashlib.sha256((self.target.key + "\n" + code.text).encode()).hexdigest()[:20]
        self.kernels[name] = code.text.replace("@NAME", "@" + name)
        self.module.declare(name, "void (ptr, i64)")
        pointers = []
        for v in (*step.operands, step.out):
            at = self.size(v.offset * self.program.slabs[v.slab].dtype.itemsize)
            pointers.append("ptr " + f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {at.ref}"))
        sizes = [f"i64 {self.size(s).ref}" for s in code.sizes]
        self.chunks(name, pointers, sizes, cut_at(code.chunked, code.rest * code.cost, code.block, self.serial), code.chunked, False)
