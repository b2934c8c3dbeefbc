"""The loops of a kernel being written: what is open, the groups of vectors along the lanes, what a loop leaves for its end.

Along the vector range there are groups of ``unroll`` vectors.  Of the first range of the grid, of which a chunk takes a part, what
they leave is a loop of single vectors with masks, in a function of its own where that can be.  Other ranges begin with one group
for it (``_first_group``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graphc.backends.llvm.accumulators import Accumulators
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Value, select
from graphc.kernel import Instr

if TYPE_CHECKING:
    from graphc.backends.llvm.staging import Staging

__all__ = ["Loops", "Scope"]

#: iterations of the innermost loop that are written out, where their number is known
WRITTEN_OUT = 4


class Scope:
    """What is known at one depth of the nest: values of instructions, parts of addresses."""

    def __init__(self) -> None:
        self.values: dict[int, list[Value]] = {}
        self.pointers: dict[Any, Value] = {}
        self.pairs: dict[Instr, list[tuple[Value, Value]]] = {}  # vectors in which both parts of complex numbers lie
        self.begun: dict[int, list[Value]] = {}  # what the first group of this row's elements has loaded


class Loops(Accumulators):
    """A part of the Emitter (kernels.py).

    ``index``: the loops that are open, and their counters; ``masks``: where the vectors of the group are in range, none if all of
    each is; ``scopes``: what is known at each depth; ``row``: the scope of a point of the grid.
    """

    name: str
    target: Target
    staging: Staging | None
    outer: int
    chunk: Value
    grid_set: frozenset[int]
    grid_reductions: list[int]
    scopes: list[Scope]
    row: Scope
    index: dict[int, Value]
    masks: Sequence[Value | None]
    rest_apart: bool

    # -- one loop -----------------------------------------------------------------------------

    def plain_loop(self, r: int, low: Value, high: Value, carried: Sequence[int], inside: Callable[[], None], known: bool = True) -> None:
        extent = self.kernel.ranges[r].extent
        if known and isinstance(extent, int) and r != self.outer and extent <= WRITTEN_OUT:
            with self.written_out(carried):
                for n in range(extent):
                    with self.scope(), self.at(r, self.f.const(n, "i64")):
                        inside()
            return
        with self.looped(low, high, 1, "ijklmnopq"[r] if r < 9 else "r", carried) as loop, self.scope(), self.at(r, loop.index):
            inside()

    def vector_loop(self, r: int, low: Value, high: Value, carried: Sequence[int], inside: Callable[[], None]) -> None:
        """The loop along the lanes."""
        f, w, u = self.f, self.lanes, self.unroll
        extent = self.kernel.ranges[r].extent
        if r != self.outer and self.staging is None and (isinstance(extent, int) or self.masked):  # staging has one mask for all of a group
            self._first_group(r, carried, inside)
            return
        middle = low + ((high - low) & -(u * w))
        if not isinstance(extent, int) or extent >= u * w:
            self._groups(r, low, middle, carried, inside)
        if isinstance(extent, int) and extent % (u * w) == 0:  # and chunks are multiples of that: nothing is left
            return
        if self.kernel.grid == (r,) and not self.grid_reductions:
            self.rest_apart = True  # constants that two loops want are in the registers of neither
            f.line(f"call void @{self.name}_rest(ptr %context, i64 {self.chunk.ref}, i64 {middle.ref}, i64 {high.ref})")
            return
        self.rest(r, middle, high, carried, inside)

    @property
    def masked(self) -> bool:
        """Has the processor loads and stores with masks for all that this kernel moves?"""
        narrow = any(v.dtype.itemsize < 4 for v in self.kernel.values if v.op in ("load", "store"))
        return self.target.has("avx512bw") or (not narrow and self.target.has("avx2"))

    def _first_group(self, r: int, carried: Sequence[int], inside: Callable[[], None]) -> None:
        """One group of what whole ones would leave, then whole ones: no loop for a rest.

        It sets accumulators instead of adding to them, and what it has loaded serves the next stages.  Masks are the same for all
        rows.
        """
        extent, f, w, whole = self.kernel.ranges[r].extent, self.f, self.lanes, self.unroll * self.lanes
        if extent == 0:
            return
        if isinstance(extent, int):
            number = (extent - 1) % whole + 1
            first, count = f.const(number, "i64"), -(-number // w)
            masks: list[Value | None] = [None] * count
            if number % w:
                masks[-1] = f.vector([lane < number % w for lane in range(w)], "i1")
        else:
            count = self.unroll
            first, masks = self.invariant(("first", r), lambda: self._first_masks(self.size(extent)))
        with self.grouped(count), self.written_out(carried), self.scope(), self.at(r, f.const(0, "i64"), masks if any(masks) else ()):
            scope = self.scopes[-1]
            scope.values.update({i: x for i, x in self.row.begun.items() if self.depends[i] <= set(self.index)})
            inside()
            if r not in self.grid_set and set(self.index) <= self.grid_set | {r}:  # no other loop is around it
                self.row.begun.update({i: x for i, x in scope.values.items() if self.kernel.values[i].op == "load"})
        if not isinstance(extent, int) or extent > whole:
            self._groups(r, first, self.size(extent), carried, inside)

    def _first_masks(self, n: Value) -> tuple[Value, list[Value | None]]:
        """How many elements whole groups would leave, at least one; the masks of the vectors that hold them."""
        f, w = self.f, self.lanes
        last = (n - 1) & -(self.unroll * w)
        first = n - select(last.lt(0), last.like(0), last)
        lanes = f.splat(first.to("i32"), w)
        return first, [f.vector(range(k * w, (k + 1) * w), "i32").lt(lanes) for k in range(self.unroll)]

    def rest(self, r: int, low: Value, high: Value, carried: Sequence[int], inside: Callable[[], None]) -> None:
        """Single vectors with a mask."""
        lanes = self.f.vector(range(self.lanes), "i64")
        with self.grouped(1), self.looped(low, high, self.lanes, "tail", carried) as loop:
            mask = lanes.lt(high - loop.index)
            with self.scope(), self.at(r, loop.index, [mask]):
                inside()

    def _groups(self, r: int, low: Value, high: Value, carried: Sequence[int], inside: Callable[[], None]) -> None:
        with self.looped(low, high, self.unroll * self.lanes, "vec", carried) as loop, self.scope(), self.at(r, loop.index):
            inside()

    @contextmanager
    def at(self, r: int, index: Value, masks: Sequence[Value | None] = ()) -> Iterator[None]:
        before, self.index[r] = self.index.get(r), index
        old = self.masks
        if r == self.vector:
            self.masks = masks
        yield
        self.masks = old
        if before is None:
            del self.index[r]
        else:
            self.index[r] = before

    def mask(self, n: int) -> Value | None:
        """Where the n-th vector of the group is in range; None if all of it is."""
        return self.masks[n] if self.masks else None

    @contextmanager
    def grouped(self, group: int) -> Iterator[None]:
        before, self.group = self.group, group
        yield
        self.group = before

    @contextmanager
    def scope(self) -> Iterator[None]:
        self.scopes.append(Scope())
        yield
        self.scopes.pop()
