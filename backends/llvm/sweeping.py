"""Sweeps in the driver: a function of their own that does all steps for some blocks; each thread takes some matrices, or some blocks.

    void NAME(ptr sweep, i64 chunk)

``sweep`` holds the slabs, the table of sizes, the arena, the memory for sweeps, and for each chunk how many of its matrices or blocks are taken.  A chunk has memory of its own: the
slabs of one block, then scratch memory for its steps, then tables that all blocks share.  Where a product sums over the blocks of a matrix, these follow one another in one chunk.
Sizes that depend on the block are computed where it begins.  Bits do not depend on how blocks are shared out.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from graphc import dims
from graphc.backends.llvm import costs
from graphc.backends.llvm.contracting import Contracting
from graphc.backends.llvm.formulas import size_value
from graphc.backends.llvm.multiplying import most_chunks
from graphc.backends.llvm.values import Body, Value, select
from graphc.dims import Size, Symbol
from graphc.kernel import Launch, Seen, Sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Sweeping"]

#: the context of a chunk: four addresses, then numbers
SLOTS = ("slabs", "table", "arena", "memory", "units", "each", "chunks", "behind", "counters")


class Sweeping(Contracting):
    """A part of the driver's Writer."""

    entry: list[str]
    loaded: dict[Size, Value]
    slabs: dict[int, str]
    context_slots: int
    scratch_ref: str
    block: dict[Symbol, Value]  # of the block that the function being written is at
    at_block: list[str]  # lines where a block begins
    at_chunk: list[str]  # lines where a chunk begins
    most: dict[Symbol, Size]  # what sizes of blocks are at most
    tables: Size  # bytes of tables that are the same for all blocks
    mine: Size  # bytes of the slabs of one block; where scratch memory begins

    if TYPE_CHECKING:
        launch: Callable[[Launch], None]
        address: Callable[[int], str]

    def sweep(self, step: Sweep) -> None:
        name = f"@NAME_sweep{len(self.module.functions)}"
        scratch, tables = self.swept(step, name)
        f, most = self.f, most_chunks()
        behind = dims.floordiv(step.room + scratch + 63, 64) * 64
        each = behind + tables
        units: Size = step.matrices if step.adds else step.matrices * step.blocks
        self.scratch = dims.dim_max(self.scratch, dims.dim_min(dims.dim_max(units, 1), most) * each)
        threads, count = f.value("%threads", "i64").minimum(most), self.size(units)
        wide = threads.gt(1) & self.size(costs.work([step])).gt(self.serial * 1000)
        threads = select(wide, threads, threads.like(1))
        context = ["ptr %slabs", "ptr %table", "ptr %arena", f"ptr {self.scratch_address()}", f"i64 {count.ref}", f"i64 {self.size(each).ref}"]
        chunks = threads.minimum(count)
        self.fill([*context, f"i64 {chunks.maximum(1).ref}", f"i64 {self.size(behind).ref}", *["i64 0"] * most])
        self.module.declare("gc_parallel", "void (ptr, ptr, i64, i64)")
        f.either(chunks.gt(1), "sweep", lambda: f.line(f"call void @gc_parallel(ptr {name}, ptr %context, i64 {chunks.ref}, i64 {threads.ref})"),
                 lambda: f.line(f"call void {name}(ptr %context, i64 0)"))

    def swept(self, step: Sweep, name: str) -> tuple[Size, Size]:
        """Write the function; the scratch memory that its steps need, and that for tables which all blocks share."""
        outside = dict(self.__dict__)
        self.f = f = Body(self.module, name.removeprefix("@"), [("ptr", "sweep"), ("i64", "chunk")])
        f.linkage = "private "
        self.entry, self.loaded, self.slabs, self.at_block, self.block = [], {}, {}, [], {}
        self.most, self.tables, self.at_chunk = step.bounds, 0, []
        self.context_slots, self.scratch_ref, self.scratch, self.alone = 0, "", 0, True
        for n, word in enumerate(SLOTS):
            kind = "ptr" if n < 4 else "i64"
            self.entry += [f"  %{word}.p = getelementptr i64, ptr %sweep, i64 {n}", f"  %{word} = load {kind}, ptr %{word}.p"]
        self.entry += ["  %threads = add i64 1, 0", "  %offset = mul i64 %chunk, %each", "  %mine = getelementptr i8, ptr %memory, i64 %offset",
                       "  %tables = getelementptr i8, ptr %mine, i64 %behind"]
        self.mine = step.room
        units, one, zero = f.value("%units", "i64"), f.const(1, "i64"), f.const(0, "i64")
        blocks, first = self.size(step.blocks), len(f.lines)
        with f.taking("%counters.p", f.value("%chunk", "i64"), f.value("%chunks", "i64"), units) as unit:
            matrix = unit if step.adds else unit.udiv(blocks)
            begin = zero if step.adds else unit.urem(blocks)
            with f.loop(begin, blocks if step.adds else begin + 1, one, "block") as block:
                for symbol, size in reversed(step.lead):
                    self.block[symbol] = matrix.urem(self.size(size))
                    matrix = matrix.udiv(self.size(size))
                start = block.index * step.block
                self.block[step.start] = start
                for symbol in step.most:
                    self.block[symbol] = (self.size(step.rows) - start).minimum(step.block)
                again = self.seen(step.seen) if step.seen is not None else ""
                at = len(f.lines)
                for n, inner in enumerate(step.steps):
                    if isinstance(inner, Launch):
                        self.launch(inner)
                    else:
                        self.contraction(inner)
                    if step.seen is not None and n == step.seen.step:
                        self.anew(step.seen, again)
                f.lines[at:at] = self.at_block
        f.lines[first:first] = self.at_chunk
        self.close()
        found = dims.substitute(self.scratch, step.bounds), self.tables
        self.__dict__.update(outside)
        return found

    def seen(self, seen: Seen) -> str:
        """The columns of the block; the label where it begins anew."""
        f, again = self.f, ""
        some = {symbol: self.at(size) for symbol, size in seen.some.items()}
        if seen.step >= 0:
            self.entry.append("  %whole = alloca i1")
            again, = f.labels("again", "head")
            for text in ("store i1 false, ptr %whole", f"br label %{again}"):
                f.line(text)
            f.label(again)
            whole = f.value(f.op("load i1, ptr %whole"), "i1")
            some = {symbol: select(whole, self.at(size), some[symbol]) for symbol, size in seen.all.items()}
        self.block.update(some)
        return again

    def anew(self, seen: Seen, again: str) -> None:
        """Back to where the block begins, once, if its columns are not enough."""
        f = self.f
        on, = f.labels("again", "on")
        few, whole = f.value(f.op(f"load i8, ptr {self.address(seen.slab)}"), "i8"), f.value(f.op("load i1, ptr %whole"), "i1")
        more = few.ne(0) & ~whole
        f.line("store i1 true, ptr %whole")
        f.line(f"br i1 {more.ref}, label %{again}, label %{on}")
        f.label(on)

    def at(self, size: Size) -> Value:
        """A size of the block, computed here."""
        return size_value(self.f, size, {s: self.block[s] if s in self.block else self.size(dims.lone(s)) for s in dims.symbols(size)})

    def fixed(self, size: Size) -> Size:
        """The most that a size may be in any block."""
        return dims.substitute(size, self.most)

    @contextmanager
    def once(self, nbytes: Size) -> Iterator[str]:
        """Where a chunk begins: memory for what is the same for all of its blocks, and lines that write it."""
        place, self.tables = self.tables, self.tables + nbytes
        inside, self.f.lines = self.f.lines, self.at_chunk
        yield self.f.op(f"getelementptr i8, ptr %tables, i64 {self.size(place).ref}")
        self.f.lines = inside

    def block_size(self, size: Size) -> Value:
        """A size that depends on the block, computed where that begins."""
        known = self.loaded.get(size)
        if known is None:
            inside, self.f.lines = self.f.lines, self.at_block
            known = self.loaded[size] = self.at(size)
            self.f.lines = inside
        return known

    def close(self, result: str = "ret void") -> None:
        """End the function being written."""
        self.entry.insert(0, f"  %context = alloca [{max(self.context_slots, 1)} x i64], align 64")
        self.f.lines[0:0] = self.entry
        self.f.finish(result)
