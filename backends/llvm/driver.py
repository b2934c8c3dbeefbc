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
from typing import Any, NamedTuple

import numpy as np

from graphc import dims
from graphc.backends.llvm.clock import Clock
from graphc.backends.llvm.formulas import size_value
from graphc.backends.llvm.kernels import Code, emit_kernel
from graphc.backends.llvm.ordered import ordered_module
from graphc.backends.llvm.partials import MOST_CHUNKS
from graphc.backends.llvm.products import Product as Spec
from graphc.backends.llvm.products import product_module, row_grain
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Module, Value, select
from graphc.dims import Size, Symbol
from graphc.kernel import Instr, Kernel, Launch, Ordered, Product, Program
from graphc.ops import OPS

__all__ = ["Writer", "kernel_cost", "thinness"]

#: estimated nanoseconds of work in one chunk, and below which a launch stays on one thread
CHUNK_NS, SERIAL_NS = 8000, 10000
#: multiplications with additions in a nanosecond, roughly
MULADDS = 40


def kernel_cost(kernel: Kernel) -> float:
    """Estimated nanoseconds for one iteration of the innermost loop, on one core."""
    return 0.02 + sum(_cost(v) for v in kernel.values)


def _cost(v: Instr) -> float:
    """Estimated nanoseconds of one instruction for one element: float64 takes twice as long."""
    return 0.015 * (OPS[v.word].flops if v.op == "apply" else 1.0) * max(1, v.dtype.itemsize // 4)


def thinness(*sizes: Size) -> int:
    """How much longer a multiplication takes in a product with few rows or columns: that is reading the other matrix."""
    return max([8 // n for n in sizes if isinstance(n, int) and 0 < n < 8], default=1)


class _Cut(NamedTuple):
    """How a launch is cut: iterations of the first loop in a chunk, chunks, and 1 where it is work for several threads, else 0."""

    rows: Size
    chunks: Size
    wide: Size


def _cut(kernel: Kernel, block: int) -> _Cut:
    """From sizes alone: the bits of a reduction over the grid depend on it."""
    extent = kernel.ranges[kernel.grid[0]].extent
    points = dims.product(kernel.ranges[r].extent for r in kernel.grid[1:])
    each: Size = 0  # picoseconds at one point of the grid
    for stage in kernel.stages:
        cost = max(1, round(1000 * sum(_cost(kernel.values[i]) for i in stage.body)))
        each = each + dims.product(kernel.ranges[r].extent for r in stage.loops) * cost
    return _cut_at(extent, points * each, block)


def _cut_at(extent: Size, each: Size, block: int) -> _Cut:
    """``extent`` iterations of so many picoseconds."""
    work = dims.dim_max(each, 1)
    rows = dims.dim_max(dims.floordiv(CHUNK_NS * 1000, work) + 1, dims.floordiv(extent + (MOST_CHUNKS - 1), MOST_CHUNKS))
    rows = dims.floordiv(rows + (block - 1), block) * block
    wide = dims.dim_min(dims.dim_max(extent * work - SERIAL_NS * 1000, 0), 1)
    return _Cut(rows, dims.floordiv(extent + rows - 1, rows), wide)


class Writer:
    """Writes the driver of one program: a function for each stretch of steps between call-outs."""

    def __init__(self, program: Program, target: Target, symbols: Sequence[Symbol], profile: bool = False) -> None:
        self.program, self.target, self.symbols = program, target, tuple(symbols)
        self.clock = Clock(program) if profile else None
        self.formulas: dict[Size, int] = {}
        self.kernels: dict[str, str] = {}
        self.codes: dict[Kernel, Code] = {}
        self.scratch: Size = 0
        self.module = Module(target)

    # -- sizes --------------------------------------------------------------------------------

    def slot(self, size: Size) -> int:
        return self.formulas.setdefault(size, len(self.formulas))

    def size(self, size: Size) -> Value:
        f = self.f
        if isinstance(size, int):
            return f.const(size, "i64")
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

    def stretch(self, name: str, steps: Sequence[Launch | Product | Ordered]) -> None:
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
                self.product(step)
            else:
                self.ordered(step)
            if self.clock:
                self.clock.stop(step)
            if isinstance(step, Launch):
                self.check(step)
        self.entry.insert(0, f"  %context = alloca [{max(self.context_slots, 1)} x i64], align 64")
        self.f.lines[0:0] = self.entry
        if self.failed:
            self.f.line("ret i64 0")
            self.f.label("failed")
        self.f.finish(f"ret i64 {int(self.failed)}")

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
            if s.place == "arena":
                offset = self.size(s.offset).ref
                self.entry.append(f"  {known} = getelementptr i8, ptr %arena, i64 {offset}")
                return known
            self.entry += [f"  {known}.p = getelementptr ptr, ptr %slabs, i64 {slab}", f"  {known} = load ptr, ptr {known}.p"]
        return known

    def scratch_address(self) -> str:
        if not self.scratch_ref:
            self.scratch_ref = "%scratch"
            self.entry.append(f"  %scratch = getelementptr i8, ptr %arena, i64 {self.size(self.program.arena).ref}")
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
        self.scratch = dims.dim_max(self.scratch, code.scratch)
        return code.named(name)

    def launch(self, step: Launch) -> None:
        f, code = self.f, self.code(step.kernel)
        if code.short is None:
            self.run(step, code)
            return
        other, when = code.short
        short, long, done = f.labels("rows", "short", "long", "done")
        f.line(f"br i1 {self.size(when).ne(0).ref}, label %{short}, label %{long}")
        for label, form in ((short, other), (long, code)):
            f.label(label)
            self.run(step, form)
            f.line(f"br label %{done}")
        f.label(done)

    def run(self, step: Launch, code: Code) -> None:
        """One form of a kernel."""
        f, kernel = self.f, code.kernel
        self.module.declare(code.name, "void (ptr, i64)")
        operands = [f"ptr {self.address(s)}" if s >= 0 else "ptr null" for s in step.slabs]
        scratch = f"ptr {self.scratch_address()}" if code.scratch != 0 else "ptr null"
        sizes = [f"i64 {self.size(s).ref}" for s in code.sizes]
        if not kernel.grid:
            self.fill([*operands, scratch, "i64 0", *sizes])
            f.line(f"call void @{code.name}(ptr %context, i64 0)")
            return
        cut = _cut(kernel, code.block)
        self.chunks(code.name, [*operands, scratch], sizes, cut, kernel.ranges[kernel.grid[0]].extent, code.split)
        if code.finish_text:
            self.module.declare(code.name + "_finish", "void (ptr, i64)")
            f.line(f"call void @{code.name}_finish(ptr %context, i64 {self.size(cut.chunks).ref})")

    def chunks(self, name: str, context: Sequence[str], sizes: Sequence[str], cut: _Cut, extent: Size, split: bool) -> None:
        """Call a kernel for all its chunks, on several threads where that pays.  ``split``: do results depend on how it is cut?"""
        f = self.f
        whole = extent if not split else cut.rows
        if cut.wide != 0:
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
        if cut.wide != 0:
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
        self.chunks(name, pointers, sizes, _cut_at(code.chunked, code.rest * code.cost, code.block), code.chunked, False)

    # -- products -----------------------------------------------------------------------------

    def product(self, step: Product) -> None:
        """Loops over the leading axes around the product of two matrices."""
        f = self.f
        a, b, out = step.a, step.b, step.out
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        dtype = self.program.slabs[out.slab].dtype
        steps = [a.strides[-2], a.strides[-1], b.strides[-2], b.strides[-1], out.strides[-2]]
        if m == 1 and n != 1:  # C' = B'A': the columns become rows, which can be shared out, and B need not be packed
            a, b = b, a
            m, n, steps = n, m, [steps[3], steps[2], steps[1], steps[0], 1]
        spec = _spec(dtype, m, n, k, steps)
        name, text = product_module(spec, self.target)
        self.kernels[name] = text
        pack = name + "p_pack"
        if spec.packed:
            self.kernels[pack] = text.replace("@" + name, "@" + name + "p")
            self.module.declare(pack, "void (ptr, ptr, i64, i64, i64, i64)")
            self.scratch = dims.dim_max(self.scratch, k * n * dtype.itemsize + 64)
        self.module.declare(name, _PRODUCT)
        lead = out.shape[:-2]
        views = (out, a, b)
        grain = row_grain(spec, self.target)

        def matrix(offsets: Sequence[Value]) -> None:
            pc, pa, pb = (f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {o.ref}") for v, o in zip(views, offsets, strict=True))
            numbers = [self.size(x).ref for x in (m, n, k, *steps)]
            if spec.packed:
                scratch = self.scratch_address()
                f.line(f"call void @{pack}(ptr {scratch}, ptr {pb}, i64 {numbers[1]}, i64 {numbers[2]}, i64 {numbers[5]}, i64 {numbers[6]})")
                pb, numbers[5], numbers[6] = scratch, numbers[1], "1"
            self.rows(name, [pc, pa, pb], numbers, m, n * k * thinness(n), grain)

        def loops(axis: int, offsets: list[Value]) -> None:
            if axis == len(lead):
                matrix(offsets)
                return
            with f.loop(f.const(0, "i64"), self.size(lead[axis]), f.const(1, "i64"), "batch") as loop:
                loops(axis + 1, [o + loop.index * self.size(v.strides[axis] * dtype.itemsize) for o, v in zip(offsets, views, strict=True)])

        loops(0, [self.size(v.offset * dtype.itemsize) for v in views])

    def rows(self, name: str, pointers: Sequence[str], numbers: Sequence[str], m: Size, work: Size, grain: int) -> None:
        """The rows of one product, in chunks where it is large.  Each row's bits are the same however they are cut."""
        f = self.f
        args = ", ".join([*(f"ptr {p}" for p in pointers), *(f"i64 {x}" for x in numbers), "ptr null"])
        count, each = self.size(m), self.size(work)
        if isinstance(m, int) and isinstance(work, int) and m * work <= SERIAL_NS * MULADDS:
            f.line(f"call void @{name}({args}, i64 0, i64 {count.ref})")
            return
        threads = f.value("%threads", "i64")
        wide = (count * each).gt(SERIAL_NS * MULADDS) & threads.gt(1)
        parallel, serial, done = f.labels("product", "parallel", "serial", "done")
        f.line(f"br i1 {wide.ref}, label %{parallel}, label %{serial}")
        f.label(parallel)
        per = f.const(CHUNK_NS * MULADDS, "i64").udiv(select(each.lt(1), each.like(1), each)) + 1
        share = (count + threads - 1).udiv(threads)
        per = select(per.gt(share), share, per)
        per = (per + (grain - 1)).udiv(grain) * grain
        self.fill([f"ptr @{name}", *(f"ptr {p}" for p in pointers), *(f"i64 {x}" for x in numbers), f"i64 {per.ref}"])
        self.module.declare("gc_parallel", "void (ptr, ptr, i64, i64)")
        self.module.functions[:0] = [] if _TASK in self.module.functions else [_TASK]
        f.line(f"call void @gc_parallel(ptr @rows, ptr %context, i64 {(count + per - 1).udiv(per).ref}, i64 {threads.ref})")
        f.line(f"br label %{done}")
        f.label(serial)
        f.line(f"call void @{name}({args}, i64 0, i64 {count.ref})")
        f.line(f"br label %{done}")
        f.label(done)


_PRODUCT = "void (ptr, ptr, ptr, i64, i64, i64, i64, i64, i64, i64, i64, ptr, i64, i64)"


def _task() -> str:
    """A chunk of rows: the context holds the product's address, its arguments, and the rows of a chunk."""
    lines = ["define private void @rows(ptr %context, i64 %chunk) nounwind {"]
    names = ["f", "c", "a", "b", "m", "n", "k", "s0", "s1", "s2", "s3", "s4", "rows"]
    for i, name in enumerate(names):
        kind = "ptr" if i < 4 else "i64"
        lines += [f"  %{name}.p = getelementptr i64, ptr %context, i64 {i}", f"  %{name} = load {kind}, ptr %{name}.p"]
    lines += ["  %lo = mul i64 %chunk, %rows", "  %end = add i64 %lo, %rows", "  %more = icmp slt i64 %end, %m",
              "  %hi = select i1 %more, i64 %end, i64 %m",
              "  call void %f(ptr %c, ptr %a, ptr %b, i64 %m, i64 %n, i64 %k, i64 %s0, i64 %s1, i64 %s2, i64 %s3, i64 %s4, ptr null, i64 %lo, i64 %hi)",
              "  ret void", "}"]
    return "\n".join(lines)


_TASK = _task()


def _spec(dtype: np.dtype[Any], m: Size, n: Size, k: Size, steps: Sequence[Size]) -> Spec:
    """What is known of a product when compiling."""
    kind = {"b": "bool", "f": f"f{8 * dtype.itemsize}"}.get(dtype.kind, f"i{8 * dtype.itemsize}")
    if dtype.name == "bfloat16":
        kind = "bf16"

    def known(size: Size) -> int | None:
        return size if isinstance(size, int) else None

    def unit(row: Size, col: Size, columns: Size) -> tuple[str | None, int | None]:
        if row == 1 and (columns == 1 or col != 1):
            return "row", known(col)
        return ("col", known(row)) if col == 1 else (None, None)

    a_unit, a_step = unit(steps[0], steps[1], k)
    b_unit, b_step = unit(steps[2], steps[3], n)
    return Spec(kind, dtype.kind != "u", known(m), known(n), known(k), a_unit, b_unit, a_step, b_step, known(steps[4]))
