"""Code generation: a Kernel (graphc/kernel.py) as LLVM IR.

    void NAME(ptr context, i64 chunk)            one chunk of the first range of the grid
    void NAME_finish(ptr context, i64 chunks)    what follows the grid, if something does

``context`` is an array of 8-byte slots, filled by the driver: the operands' addresses, then the address of
scratch memory, the number of iterations in a chunk, and the sizes (``Code.sizes``).  Sizes that are numbers and
small stand in the code; the others are data, so that kernels that differ by them alone are one.

Writing goes down the nest, outermost loop first.  Every instruction is written at the depth of the
innermost range that it depends on, every address likewise, so nothing is computed twice in a loop that
does not change it.  loops.py has the loops along the lanes.  An accumulator has a home in the stack frame; the innermost loop
carries it in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from graphc import dims
from graphc.backends.llvm import choices, reducing, tiles
from graphc.backends.llvm.access import Access
from graphc.backends.llvm.elements import apply, convert, kind_of
from graphc.backends.llvm.loops import Loops, Scope
from graphc.backends.llvm.memory import fence
from graphc.backends.llvm.partials import MOST_CHUNKS, Partials, aligned
from graphc.backends.llvm.reducing import Accumulator
from graphc.backends.llvm.staging import Short, Staging, side_by_side
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Module, Value, select
from graphc.dims import Size
from graphc.dtypes import is_float, is_half
from graphc.kernel import Instr, Kernel, Stage, value_ranges

__all__ = ["Code", "emit_kernel"]

#: points of the grid that are taken together where each adds to the same array
ROWS = 4


@dataclass(frozen=True)
class Code:
    """The text of a kernel's module and what the driver must know of it.

    ``sizes``: the formulas whose values follow in the context.  ``scratch``: bytes of scratch memory.  ``block``: a chunk
    is a multiple of so many iterations.  ``split``: do results depend on how the grid is cut into chunks?
    ``short``: another form of the kernel, and a formula that is 1 where that is the one to run, else 0 (staging.py).
    """

    name: str
    text: str
    sizes: tuple[Size, ...]
    scratch: Size
    block: int
    split: bool
    finish_text: str
    kernel: Kernel
    short: tuple[Code, Size] | None = None

    def named(self, name: str) -> Code:
        return replace(self, name=name)


class Emitter(Loops):
    """Writes one kernel."""

    def __init__(self, kernel: Kernel, target: Target, name: str, short: Short | None = None, streams: bool = False) -> None:
        self.kernel, self.target, self.name, self.streams = kernel, target, name, streams
        self.bits = target.streaming_bits if streams else target.bits
        self.module = Module(target)
        self.depends = value_ranges(kernel)
        self.lanes = choices.lanes(kernel, self.bits)
        self.vector = kernel.vector
        self.sizes: dict[Size, int] = {}
        self.first_size = len(kernel.operands) + 2
        self.outer = kernel.grid[0] if kernel.grid else -1
        self.access = Access(self)
        self.grid_set = frozenset(kernel.grid)
        self.grid_reductions = [i for i, v in enumerate(kernel.values) if v.op == "reduce" and self.grid_set & set(v.over)]
        self.unroll = self._unroll() if short is None else min(self._unroll(), 2)
        self.staging = None if short is None else Staging(self, short.row, short.longest)
        self.rows: tuple[int, list[tuple[Scope, Value]]] | None = None
        self.rest_apart = False
        self.blocked = choices.adds_to_arrays(kernel, self.depends)
        self._layout()

    # -- sizes and scratch --------------------------------------------------------------------

    def _layout(self) -> None:
        """Offsets in scratch memory: partial results of reductions over the grid, then temps, one for each chunk."""
        k = self.kernel
        at: Size = 0
        self.partials = Partials(self)
        at = self.partials.layout(at)
        self.temps: dict[int, tuple[Size, Size]] = {}
        for n, o in enumerate(k.operands):
            if o.mode == "temp":
                lanes = self.unroll * self.lanes if self.vector in self.grid_set else 1
                size = o.size if self.staging is None else dims.dim_min(o.size, self.staging.longest)
                nbytes = aligned(size * (o.dtype.itemsize * lanes))
                self.temps[n] = (at, nbytes)
                at = at + nbytes * MOST_CHUNKS
        self.scratch = at

    # -- functions ----------------------------------------------------------------------------

    def emit(self) -> Code:
        block = self.unroll * self.lanes if self.vector == self.outer and self.outer >= 0 else 1
        self.begin(self.name)
        self.chunk_function()
        self.end()
        if self.rest_apart:
            self.begin(self.name + "_rest", ("i64", "from"), ("i64", "to"))
            self.f.linkage = "internal "
            self.rest_function()
            self.end()
        text, finish = self.module.text(), ""
        if self.grid_reductions:
            self.module = Module(self.target)
            if self.staging is not None:  # after the grid lanes are along the row again
                self.vector, self.staging = self.staging.row, None
            self.begin(self.name + "_finish")
            self.finish_function()
            self.end()
            finish = self.module.text()
        return Code(self.name, text, tuple(self.sizes), self.scratch, block, bool(self.grid_reductions), finish, self.kernel)

    def begin(self, name: str, *more: tuple[str, str]) -> None:
        self.f = Body(self.module, name, [("ptr noalias readonly", "context"), ("i64", "chunk"), *more])
        self.entry: list[str] = []  # lines at the top of the function
        self.loaded: dict[Size, Value] = {}
        self.invariants: dict[Any, Any] = {}
        self.operand: dict[int, Value] = {}
        self.scopes: list[Scope] = [Scope()]
        self.row = self.scopes[0]
        self.index: dict[int, Value] = {}
        self.masks: Sequence[Value | None] = ()  # of each vector of the group; none: whole vectors
        self.past_cache = False  # may anything be stored past the cache?
        self.homes: dict[int, list[tuple[str, ...]]] = {}
        self.held: dict[int, list[Accumulator]] = {}
        self.fresh: set[int] = set()
        self.carried: dict[int, list[Accumulator]] = {}
        self.group = self.unroll
        self.chunk = self.f.value("%chunk", "i64")
        if self.staging is not None:
            self.staging.begin()

    def end(self) -> None:
        if self.past_cache:  # their order among other stores is loose until then
            fence(self.f)
        self.f.lines[0:0] = self.entry
        self.f.finish()

    def pointer(self, operand: int) -> Value:
        """The base address of an operand, as an i64-typed pointer value (kind i64, used as ``ptr``)."""
        known = self.operand.get(operand)
        if known is None:
            ref = f"%operand{operand}"
            self.entry += [f"  {ref}.p = getelementptr ptr, ptr %context, i64 {operand}", f"  {ref} = load ptr, ptr {ref}.p, !invariant.load !0"]
            known = self.operand[operand] = Value(self.f, ref, "i64")
        return known

    def scratch_at(self, offset: Size, nbytes: Size) -> str:
        """The address of this chunk's part of a piece of scratch memory."""
        f = self.f
        at = self.size(offset) + self.chunk * self.size(nbytes)
        base = self.pointer(len(self.kernel.operands))
        return f.op(f"getelementptr i8, ptr {base.ref}, i64 {at.ref}")

    # -- the chunk ----------------------------------------------------------------------------

    def chunk_function(self) -> None:
        f, k = self.f, self.kernel
        for i in self.grid_reductions:
            if self.depends[i] and self.staging is not None:
                self.staging.keep(i)
            elif self.depends[i]:
                self.partials.zero(i)
            else:
                self.make_home(i)
        self.place_temps()
        if self.outer < 0:
            self.point()
        else:
            rows_at = f.op(f"getelementptr i64, ptr %context, i64 {len(k.operands) + 1}")
            rows = f.value(f.op(f"load i64, ptr {rows_at}"), "i64")
            low = self.chunk * rows
            extent = self.size(k.ranges[self.outer].extent)
            high = low + rows
            high = select(high.lt(extent), high, extent)
            self.grid(0, low, high)
        for i in self.grid_reductions:
            if not self.depends[i]:
                self.partials.save(i)
            elif self.staging is not None:
                self.staging.give(i)

    def rest_function(self) -> None:
        """The rest of a chunk as a function of its own."""
        self.place_temps()
        self.prepare(frozenset(), self.kernel.stages)
        self.rest(self.outer, self.f.value("%from", "i64"), self.f.value("%to", "i64"), [], self.point)

    def place_temps(self) -> None:
        for n, (offset, nbytes) in self.temps.items():
            self.operand[n] = Value(self.f, self.scratch_at(offset, nbytes), "i64")

    def grid(self, depth: int, low: Value, high: Value) -> None:
        """The loops of the grid from ``depth`` on, then the point."""
        r = self.kernel.grid[depth]
        self.prepare(self.scope_ranges(depth), self.all_stages())
        if self.staging is not None:
            self.staging.fill(self.scope_ranges(depth))
        last = depth + 1 == len(self.kernel.grid)

        def inside() -> None:
            if last:
                self.point()
            else:
                self.grid(depth + 1, self.f.const(0, "i64"), self.size(self.kernel.ranges[self.kernel.grid[depth + 1]].extent))

        if r == self.vector:
            carried = self.grid_reductions if last and not any(s.loops for s in self.kernel.stages) else []
            self.vector_loop(r, low, high, [i for i in carried if not self.depends[i]], inside)
        elif last and self.blocked:
            middle = low + ((high - low) & -ROWS)
            with self.looped(low, middle, ROWS, "rows", []) as loop, self.scope():
                self.row_block(r, loop.index)
            self.plain_loop(r, middle, high, [], inside, known=False)
        else:
            self.plain_loop(r, low, high, [], inside)

    def row_block(self, r: int, base: Value) -> None:
        """Several points of the grid at once: what they add to one array of partial results is added up first."""
        k, self.row = self.kernel, self.scopes[-1]
        rows = []
        for q in range(ROWS):
            scope = Scope()
            index = base + q if q else base
            self.scopes.append(scope)
            with self.at(r, index):
                self.prepare(self.grid_set, k.stages)
            self.scopes.pop()
            rows.append((scope, index))
        self.rows = (r, rows)
        for stage in k.stages:
            self.stage(stage)
        self.rows = None

    def scope_ranges(self, depth: int) -> frozenset[int]:
        return frozenset(self.kernel.grid[:depth])

    def all_stages(self) -> Sequence[Stage]:
        return self.kernel.stages

    def point(self) -> None:
        """All stages at one point (or, where the vector range is in the grid, at a vector of points)."""
        self.prepare(self.grid_set, self.kernel.stages)
        if self.staging is not None:
            self.staging.fill(self.grid_set)
        self.row = self.scopes[-1]
        for stage in self.kernel.stages:
            self.stage(stage)
        if self.staging is not None:
            self.staging.flush()

    def stage(self, stage: Stage) -> None:
        k = self.kernel
        inner = [i for i in stage.body if k.values[i].op == "reduce" and not (self.grid_set & set(k.values[i].over))]
        crossing = [i for i in stage.body if k.values[i].op == "reduce" and self.grid_set & set(k.values[i].over) and not self.depends[i]]
        with self.scope():
            for i in inner:
                self.make_home(i, straight=len(stage.loops) == 1)
            self.loops(stage, 0, inner + crossing)
            found = {i: self.take_home(i) for i in inner}
        for i, values in found.items():
            self.scopes[-1].values[i] = values

    def loops(self, stage: Stage, depth: int, reductions: Sequence[int]) -> None:
        done = self.grid_set | frozenset(stage.loops[:depth])
        if depth == len(stage.loops):
            self.block(stage, done)
            return
        self.prepare(done, [stage])
        r = stage.loops[depth]
        last = depth + 1 == len(stage.loops)
        zero, extent = self.f.const(0, "i64"), self.size(self.kernel.ranges[r].extent)
        carried = reductions if last else []

        def inside() -> None:
            self.loops(stage, depth + 1, reductions)

        if r == self.vector:
            self.vector_loop(r, zero, extent, carried, inside)
        else:
            self.plain_loop(r, zero, extent, carried, inside)

    # -- instructions -------------------------------------------------------------------------

    def value(self, i: int) -> list[Value]:
        for scope in reversed(self.scopes):
            found = scope.values.get(i)
            if found is not None:
                return found
        raise AssertionError(f"%{i} of kernel {self.kernel.name} is not computed yet")

    def known(self, i: int) -> bool:
        return any(i in scope.values for scope in self.scopes)

    def prepare(self, ranges: frozenset[int], stages: Sequence[Stage]) -> None:
        """Write what depends on these ranges alone, before a deeper loop opens."""
        if self.rows is not None:
            ranges = ranges - {self.rows[0]}
        for stage in stages:
            for i in stage.body:
                v = self.kernel.values[i]
                if v.op in ("store", "reduce") or not self.depends[i] <= ranges or self.known(i):
                    continue
                if all(self.known(a) for a in v.args) and (v.index is None or all(self.known(a) for a, _ in v.index.gathers)):
                    self.instruction(i, v)
            for i in stage.body:
                index = self.kernel.values[i].index
                if index is not None:
                    self.access.prepare(self.kernel.values[i].operand, index, ranges)

    def block(self, stage: Stage, ranges: frozenset[int]) -> None:
        """The innermost body."""
        if self.rows is None:
            for i, found in self.round(stage).items():
                self.accumulate(i, found)
            return
        r, rows = self.rows
        self.rows = None
        parts: dict[int, list[list[Accumulator]]] = {}
        for scope, index in rows:
            self.scopes.append(scope)
            with self.scope(), self.at(r, index):
                for i, found in self.round(stage).items():
                    parts.setdefault(i, []).append(found)
            self.scopes.pop()
        self.rows = (r, rows)
        for i, several in parts.items():
            v, dtype = self.kernel.values[i], self.operand_dtype(i)
            while len(several) > 1:
                half = len(several) // 2
                several = [[reducing.combine(v.word, dtype, a, b) for a, b in zip(x, y, strict=True)]
                           for x, y in zip(several[:half], several[half:], strict=True)]
            self.accumulate(i, several[0])

    def round(self, stage: Stage) -> dict[int, list[Accumulator]]:
        """All instructions of a stage once; what each reduction takes."""
        taken = {}
        for i in stage.body:
            v = self.kernel.values[i]
            if v.op == "reduce":
                taken[i] = self.contributed(i, v)
            elif v.op == "store":
                self.access.store(v, self.value(v.args[0]))
            elif not self.known(i):
                self.instruction(i, v)
        return taken

    def copies(self, i: int) -> int:
        """How many vectors stand for a value: one, or ``group`` where it differs along the vector range."""
        return self.group if self.vector in self.depends[i] else 1

    def instruction(self, i: int, v: Instr) -> None:
        f = self.f
        wide = self.vector in self.depends[i]
        lanes = self.lanes if wide else 0
        if v.op == "load":
            values = self.access.load(v, wide)
        elif v.op == "literal":
            values = [f.const(v.data, kind_of(v.dtype))]
        elif v.op == "size":
            values = [self.size(v.data)]
        elif v.op == "range":
            values = self.positions(v.over[0])
        else:
            args = [self.value(a) for a in v.args]
            if v.word == "div" and self._by_size(i, v):
                self.scopes[-1].values[i] = [self._divided(v, x) for x in args[0]]
                return
            have = self.kernel.values[v.args[0]].dtype if v.word != "where" else self.kernel.values[v.args[1]].dtype
            values = []
            for n in range(self.copies(i)):
                xs = [a[n] if len(a) > 1 else a[0] for a in args]
                if lanes:
                    xs = [f.splat(x, lanes) if not x.lanes else x for x in xs]
                values.append(convert(xs[0], have, v.dtype) if v.op == "cast" else apply(v.word, have, v.dtype, xs))
        self.scopes[-1].values[i] = values

    def _by_size(self, i: int, v: Instr) -> bool:
        """Is it a division of floats by a size, once for a row: a mean?"""
        k, count = self.kernel, self.kernel.values[v.args[1]]
        return is_float(v.dtype) and not is_half(v.dtype) and count.op == "cast" and k.values[count.args[0]].op == "size" \
            and any(s.loops for s in k.stages) and not any(self.depends[i] & set(s.loops) for s in k.stages)

    def _divided(self, v: Instr, x: Value) -> Value:
        """By a power of two it is a product, with the same bits and a third of the time; which a known size would have been."""
        f, count = self.f, self.value(v.args[1])[0]
        size = self.size(self.kernel.values[self.kernel.values[v.args[1]].args[0]].data)

        def inverse() -> tuple[Value, Value]:
            c = size.to(count.kind)
            return (size & (size - 1)).eq(0) & size.ge(1), f.const(1.0, c.kind) / c

        exact, part = self.invariant(("inverse", size.ref, count.kind), inverse)
        product, quotient, done = f.labels("mean", "product", "quotient", "done")
        f.line(f"br i1 {exact.ref}, label %{product}, label %{quotient}")
        f.label(product)
        one = x * part
        f.line(f"br label %{done}")
        f.label(quotient)
        other = x / count
        f.line(f"br label %{done}")
        f.label(done)
        return f.phi(one, (one, product), (other, quotient))

    def positions(self, r: int) -> list[Value]:
        """A loop variable as a value."""
        f = self.f
        if r != self.vector:
            return [self.index[r]]
        lanes = f.vector(range(self.lanes), "i64")
        base = f.splat(self.index[r], self.lanes)
        return [base + lanes + n * self.lanes for n in range(self.group)]

    # -- accumulators -------------------------------------------------------------------------

    def contributed(self, i: int, v: Instr) -> list[Accumulator]:
        xs = self.value(v.args[0])
        if self.vector in v.over and not xs[0].lanes:  # the same at each point of the lanes: each of them counts
            xs = [self.f.splat(x, self.lanes) for x in xs] * self.group
        if v.word in ("argmax", "argmin"):
            return [self.placed(v, x, n) for n, x in enumerate(xs)]
        if self.masks:  # each vector has lanes of its own that count
            return [new for x in xs for new in reducing.contributions(v.word, self.operand_dtype(i), [x], self.vector in v.over)]
        return reducing.contributions(v.word, self.operand_dtype(i), xs, self.vector in v.over)

    def accumulate(self, i: int, news: Sequence[Accumulator]) -> None:
        """One round of a reduction."""
        v, dtype = self.kernel.values[i], self.operand_dtype(i)
        if i in self.grid_reductions and self.depends[i]:
            if self.staging is not None:
                self.staging.take(i, news)
            else:
                self.partials.take(i, v, dtype, news)
            return
        direct = i not in self.carried
        accs = [self._load_home(i, n) for n in range(len(news))] if direct else self.carried[i]
        for n, new in enumerate(news):
            mask = self.mask(n)
            joined = new if i in self.fresh else reducing.combine(v.word, dtype, accs[n], new)
            if mask is not None and new[0].lanes:
                joined = tuple(select(mask, x, y) for x, y in zip(joined, accs[n], strict=True))
            accs[n] = joined
            if direct:
                for x, name in zip(joined, self.homes[i][n], strict=True):
                    self.f.line(f"store {x.type} {x.ref}, ptr {name}")
        self.fresh.discard(i)

    def placed(self, v: Instr, x: Value, n: int) -> Accumulator:
        """A value with its position."""
        if x.kind == "i1":
            x = x.to("i8", signed=False)
        at: Value | None = None
        for r in v.over:  # the position within the ranges that are reduced, row-major
            p = self.positions(r)
            here = p[n] if len(p) > 1 else p[0]
            if at is not None:
                at = at * self.size(self.kernel.ranges[r].extent)
                at = (at.like(here) if at.lanes and not here.lanes else here) + at if here.lanes or at.lanes else at + here
            else:
                at = here
        assert at is not None
        if x.lanes and not at.lanes:
            at = self.f.splat(at, x.lanes)
        return (x, at)

    # -- after the grid -----------------------------------------------------------------------

    def finish_function(self) -> None:
        """After the grid: ``%chunk`` is the number of chunks."""
        with self.scope():
            self.prepare(frozenset(), self.kernel.finish)
            for stage in self.kernel.finish:
                with self.scope():
                    self.finish_loops(stage, 0)

    def finish_loops(self, stage: Stage, depth: int) -> None:
        done = frozenset(stage.loops[:depth])
        reductions = [i for i in self.grid_reductions if self._read_by(stage, i)]
        for i in reductions:
            if self.depends[i] <= done and not self.known(i):
                self.scopes[-1].values[i] = self.partials.joined(i)
        if depth == len(stage.loops):
            self.block(stage, done)
            return
        self.prepare(done, [stage])
        r = stage.loops[depth]
        zero, extent = self.f.const(0, "i64"), self.size(self.kernel.ranges[r].extent)

        def inside() -> None:
            self.finish_loops(stage, depth + 1)

        if r == self.vector:
            self.vector_loop(r, zero, extent, [], inside)
        else:
            self.plain_loop(r, zero, extent, [], inside)

    def _read_by(self, stage: Stage, i: int) -> bool:
        return any(i in self.kernel.values[k].args for k in stage.body)

    # -- choices ------------------------------------------------------------------------------

    def _unroll(self) -> int:
        return choices.unroll(self.kernel, self.depends, self.lanes, self.bits, self.target.bits)


def emit_kernel(kernel: Kernel, target: Target, name: str) -> Code:
    """The code of a kernel, as functions ``name`` and ``name_finish``."""
    depends = value_ranges(kernel)
    short = side_by_side(kernel, depends, choices.lanes(kernel, target.bits), target.bits)
    streams = choices.streams(kernel, depends)
    if short is not None:
        code = Emitter(short.kernel, target, name, short).emit()
        return code if short.when == 1 else replace(Emitter(kernel, target, name, streams=streams).emit(), short=(code, short.when))
    crossing = tiles.suits(kernel)
    if crossing is not None:
        return tiles.emit(Emitter(kernel, target, name), crossing)
    return Emitter(kernel, target, name, streams=streams).emit()
