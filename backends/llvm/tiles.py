"""Kernels whose accesses are contiguous along different ranges: square tiles, transposed in registers.

    y[i, j] = f(x[j, i], z[i, j])      lanes along j; x is contiguous along i

``suits`` finds the two ranges: ``v``, the vector range, and ``u``, along which the *crossing* accesses are contiguous.
A tile is w points of u times w points of v, w being the lanes of a vector.  Crossing loads read w vectors along u, which
are transposed by shuffles (transposing.py); then the body is written once for each point of u, as anywhere else.
Crossing stores are collected and transposed back.

The nest (``b`` is the one of u and v along which stores are contiguous, ``a`` the other):

    for the ranges of the grid before u and v
      for panels of b                  so narrow that what is prefetched along a stays in the second cache
        for a by w
          for the ranges of the grid between or after u and v
            for b by w                 long runs of stores: what memory likes best
              a full tile
      for what is left over at both ends of u and v, by w
        a tile with masks, through a buffer on the stack

A range that is known to be shorter than w has one tile, in which rows are left out and lanes masked (``Tiles.n``).
A full tile of up to 16 lanes is written out; one of more lanes is loops, for its rows are more than there are registers.

Where large arrays allow it, tiles begin at cache lines (``Edges``), loads are prefetched, and stores that fill whole lines
of arrays larger than the cache go past it: then no line is fetched only to be overwritten.

Where an operand is written in place no element is computed twice; elsewhere the last full tile may overlap the one before.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from graphc.backends.llvm.elements import loaded, memory_kind, stored
from graphc.backends.llvm.memory import fence, load, store
from graphc.backends.llvm.transposing import first_rounds, group, last_rounds, transposed
from graphc.backends.llvm.values import BITS, Body, Value, select, shuffle
from graphc.dims import Size
from graphc.kernel import Index, Instr, Kernel
from graphc.ops import OPS

if TYPE_CHECKING:
    from graphc.backends.llvm.kernels import Code, Emitter

__all__ = ["Crossing", "Tiles", "emit", "first_lanes", "plain", "stride", "suits"]

#: tiles side by side of which a chunk has a whole number
BLOCK = 4
#: lanes up to which, or points of a known range up to which, the transposition is written out
STRAIGHT, SHORT = 16, 4
#: flops of a full tile whose body is written out for each point of u
WRITTEN_OUT = 128.0
#: points of b that are worked on before a moves on
PANEL = 512
#: bytes of a cache line
LINE = 64
#: bytes from a load to what is prefetched along a
AHEAD = 128
#: bytes of all operands from which loads are prefetched and tiles begin at lines
LARGE = 1 << 19
#: bytes of an array from which stores go past the cache
PAST_CACHE = 8 << 20


class Crossing(NamedTuple):
    """Which range the tiles have besides the vector range, and the loads and stores that are contiguous along it."""

    u: int
    loads: tuple[int, ...]
    stores: tuple[int, ...]


def suits(kernel: Kernel) -> Crossing | None:
    """How to write a kernel in tiles; None where that is not called for."""
    v = kernel.vector
    if any(x.op == "load" and x.args for x in kernel.values):
        return None  # loads under a condition: tiles read whole vectors
    if v not in kernel.grid or len(kernel.grid) < 2 or len(kernel.stages) != 1 or kernel.finish or kernel.stages[0].loops:
        return None
    body = kernel.stages[0].body
    if any(kernel.values[i].op == "reduce" for i in body) or any(o.mode == "temp" for o in kernel.operands):
        return None
    best: Crossing | None = None
    for u in kernel.grid:
        if u == v:
            continue
        found = [i for i in body if _crosses(kernel.values[i], u, v)]
        if len(found) > (len(best.loads) + len(best.stores) if best is not None else 0):
            best = Crossing(u, tuple(i for i in found if kernel.values[i].op == "load"), tuple(i for i in found if kernel.values[i].op == "store"))
    return best


def _crosses(x: Instr, u: int, v: int) -> bool:
    """Not a load with a condition: rows along u are read whole."""
    index = x.index
    plain = x.op == "store" or (x.op == "load" and not x.args)
    return plain and index is not None and not index.gathers and stride(index, u) in (1, -1) and stride(index, v) not in (0, 1, -1)


def stride(index: Index, r: int) -> Size:
    return next((s for q, s in index.terms if q == r), 0)


def emit(e: Emitter, crossing: Crossing) -> Code:
    """The code of a kernel that suits."""
    from graphc.backends.llvm.kernels import Code

    e.begin(e.name)
    tiles = Tiles(e, crossing)
    tiles.write()
    e.end()
    return Code(e.name, e.module.text(), tuple(e.sizes), 0, tiles.block, False, "", e.kernel)


class Edges(NamedTuple):
    """Along one range: tiles with masks from ``low`` and from ``last`` on, full tiles from ``first`` to ``last``.

    Where ``last`` is ``high`` and the rest is no whole tile, the last tile begins earlier, and computes some elements again.
    """

    low: Value
    first: Value
    last: Value
    high: Value


class Tiles:
    """Writes the chunk function of one kernel."""

    def __init__(self, e: Emitter, crossing: Crossing) -> None:
        self.e, self.crossing = e, crossing
        self.u, self.v, self.w = crossing.u, e.vector, e.lanes
        grid = e.kernel.grid
        first = min(grid.index(self.u), grid.index(self.v))
        self.outside = grid[:first]
        self.inside = tuple(r for r in grid[first:] if r not in (self.u, self.v))
        self.others = frozenset((*self.outside, *self.inside))
        #: points of a full tile along u and v
        self.n = {r: self._count(e.kernel.ranges[r].extent) for r in (self.u, self.v)}
        self.body = e.kernel.stages[0].body
        self.straight = tuple(i for i in self.body if self.instr(i).op == "store" and self.along(i) == self.v)
        self.a, self.b = (self.u, self.v) if self.straight else (self.v, self.u)
        extent = e.kernel.ranges[e.outer].extent
        few = isinstance(extent, int) and extent < 16 * BLOCK * self.w
        self.block = (1 if few else BLOCK) * self.w if e.outer in (self.u, self.v) else 1
        flops = sum(OPS[self.instr(i).word].flops for i in self.body if self.instr(i).op == "apply")
        self.looped = self.w > STRAIGHT and all(n == self.w for n in self.n.values())
        self.written_out = len(crossing.loads) + len(crossing.stores) == 1 and flops * self.n[self.u] <= WRITTEN_OUT
        self.past_cache: dict[int, Value] = {}  # for stores that may go past the cache: do they?
        self.fetched: dict[int, Value] = {}  # for stores: are their lines fetched early?
        self.skipped: dict[int, Value] = {}  # for u and v: elements before the first tile that begins at a line
        self.buffers: dict[int, str] = {}

    def _count(self, extent: Size) -> int:
        short = isinstance(extent, int) and extent < (self.w if self.w <= STRAIGHT else SHORT + 1)
        return max(1, extent) if short and isinstance(extent, int) else self.w

    def write(self) -> None:
        e, f = self.e, self.e.f
        for i in (*self.crossing.loads, *self.crossing.stores):
            self.buffers[i] = name = f"%tile{i}"
            e.entry.append(f"  {name} = alloca [{self.w} x {self.shape(i).type}], align 64")
        rows = f.value(f.op(f"load i64, ptr {f.op(f'getelementptr i64, ptr %context, i64 {len(e.kernel.operands) + 1}')}"), "i64")
        self.low = e.chunk * rows
        extent = self.extent(e.outer)
        self.high = least(self.low + rows, extent)
        self.choose()
        with e.grouped(1), self.loops(self.outside, ()):
            self.tiles()
        if self.past_cache:
            with self.when(functools.reduce(operator.or_, self.past_cache.values())):
                fence(f)

    @contextmanager
    def loops(self, ranges: Sequence[int], done: Sequence[int]) -> Iterator[None]:
        """Loops over other ranges, inside those over ``done``."""
        e = self.e
        e.prepare(frozenset(done), e.kernel.stages)
        if not ranges:
            yield
            return
        r = ranges[0]
        low, high = (self.low, self.high) if r == e.outer else (e.f.const(0, "i64"), self.extent(r))
        with e.looped(low, high, 1, "o", []) as loop, e.scope(), e.at(r, loop.index), self.loops(ranges[1:], [*done, r]):
            yield

    def tiles(self) -> None:
        """All tiles: the full ones, then four strips around them."""
        f, w = self.e.f, self.w
        zero, step = f.const(0, "i64"), f.const(w, "i64")
        edges = {r: self.edges(r) for r in (self.u, self.v)}
        a, b = edges[self.a], edges[self.b]
        with f.loop(b.first, b.last, f.const(PANEL, "i64"), "panel") as panel:
            stop = least(panel.index + PANEL, b.last)
            with f.loop(a.first, a.last, step, "a") as outer, self.loops(self.inside, self.outside), f.loop(panel.index, stop, step, "b") as inner:
                at = {r: least(n.index, edges[r].high - w) if self.n[r] == w else n.index for r, n in ((self.a, outer), (self.b, inner))}
                self.full(at[self.u], at[self.v])
        if all(self.n[r] < w for r in (self.u, self.v)):
            return
        u, v = edges[self.u], edges[self.v]
        strips = ((u.low, u.first, v.low, v.high), (u.last, u.high, v.low, v.high), (u.first, u.last, v.low, v.first), (u.first, u.last, v.last, v.high))
        with f.loop(zero, f.const(4, "i64"), f.const(1, "i64"), "strip") as strip:
            bounds = list(strips[0])
            for n in (1, 2, 3):
                this = strip.index.eq(n)
                bounds = [select(this, new, old) for new, old in zip(strips[n], bounds, strict=True)]
            with f.loop(bounds[0], bounds[1], step, "u") as i, f.loop(bounds[2], bounds[3], step, "v") as j, self.loops(self.inside, self.outside):
                self.edge(i.index, j.index, least(bounds[1] - i.index, step), least(bounds[3] - j.index, step))

    def extent(self, r: int) -> Value:
        return self.e.size(self.e.kernel.ranges[r].extent)

    # -- choices made at run time -------------------------------------------------------------

    def choose(self) -> None:
        """Where tiles begin, whether loads are prefetched, which stores go past the cache."""
        e, f = self.e, self.e.f
        total: Size = 0
        for o in e.kernel.operands:
            total = total + o.size * o.dtype.itemsize
        self.large = e.size(total).gt(LARGE)
        for r in (self.u, self.v):
            found = [i for i in self.body if self.instr(i).op in ("load", "store") and self.along(i) == r]
            found.sort(key=lambda i: (self.instr(i).op == "load", -self.instr(i).dtype.itemsize))
            if found and self.n[r] == self.w:
                nbytes = self.instr(found[0]).dtype.itemsize
                line = min(LINE, self.w * nbytes)
                regular = self.regular(found[0], r, line)
                if regular is not None:
                    n = (-self.start(found[0]) & (line - 1)).lshr(nbytes.bit_length() - 1)
                    good = regular & self.extent(r).ge(16 * self.w) & self.large
                    self.skipped[r] = select(good, n, f.const(0, "i64"))
        for i in (*self.straight, *self.crossing.stores):
            r, nbytes = self.along(i), self.instr(i).dtype.itemsize
            self.fetched[i] = e.size(e.kernel.operands[self.instr(i).operand].size * nbytes).ge(PAST_CACHE)
            regular = self.regular(i, r, LINE)
            if e.target.x86 and regular is not None and self.n[r] == self.w and self.w * nbytes % LINE == 0 and not self.flipped(i):
                at = self.start(i) + self.skipped[r] * nbytes if r in self.skipped else self.start(i)
                self.past_cache[i] = self.fetched[i] & regular & (at & (LINE - 1)).eq(0)
                self.fetched[i] = self.fetched[i] & ~self.past_cache[i]

    def start(self, i: int) -> Value:
        """The address of an access where all ranges are at 0, as a number."""
        e, f = self.e, self.e.f
        p = e.access.scalar_pointer(self.instr(i).operand, self.index(i), frozenset())
        return f.value(f.op(f"ptrtoint ptr {p.ref} to i64"), "i64")

    def regular(self, i: int, r: int, line: int) -> Value | None:
        """Does a step of any range but r lead to the same place in another line?  None: certainly not."""
        f = self.e.f
        found = f.const(0, "i64")
        for q, s in self.index(i).terms:
            nbytes = s * self.instr(i).dtype.itemsize
            if q != r and isinstance(nbytes, int) and nbytes % line:
                return None
            if q != r and not isinstance(nbytes, int):
                found = found | self.e.size(nbytes)
        return (found & (line - 1)).eq(0)

    def edges(self, r: int) -> Edges:
        """The first ``skipped`` elements of a range come before the full tiles; chunks of it begin and end so much later."""
        f = self.e.f
        low, high, extent = f.const(0, "i64"), self.extent(r), self.extent(r)
        if self.n[r] < self.w:
            return Edges(low, low, high, high)
        skipped = self.skipped.get(r, f.const(0, "i64"))
        first = least(skipped, high) if r in self.skipped else low
        if r == self.e.outer:
            start = self.low.eq(0)
            low = select(start, self.low, least(self.low + skipped, extent))
            high = select(self.high.lt(extent), least(self.high + skipped, extent), extent)
            first = select(start, least(skipped, high), low)
        last = first + ((high - first) & -self.w)
        if all(o.alias < 0 for o in self.e.kernel.operands):
            again = (high - first).ge(self.w)
            for i, past in self.past_cache.items():
                if self.along(i) == r:
                    again = again & ~past  # such stores must begin at lines
            last = select(again, high, last)
        return Edges(low, first, last, high)

    @contextmanager
    def when(self, condition: Value | None) -> Iterator[None]:
        """What is written in the block runs only if the condition holds; None: always."""
        if condition is None:
            yield
            return
        with self.e.f.when(condition, "if"):
            yield

    # -- a full tile --------------------------------------------------------------------------

    def full(self, u0: Value, v0: Value) -> None:
        """A tile of ``n`` points, known numbers."""
        e, f, w = self.e, self.e.f, self.w
        nu, nv = self.n[self.u], self.n[self.v]
        with self.when(self.large):
            self.prefetch({self.u: u0, self.v: v0})
        mask = self.lanes(nv)
        with e.scope(), e.at(self.v, v0, [] if mask is None else [mask]):
            e.prepare(self.others | {self.v}, e.kernel.stages)
            if self.looped:
                self.full_looped(u0, v0)
                return
            rows = {i: transposed(self.row_loads(i, u0, v0, w)) for i in self.crossing.loads}
            if not self.written_out:
                for i in rows:
                    self.put(i, rows[i])
                self.rows_looped(u0, v0, nu)
                for i in self.crossing.stores:
                    self.store_rows(i, self.corner(i, u0, v0), transposed(self.buffer_load(i, f.const(n, "i64")) for n in range(w))[:nv])
                return
            kept: dict[int, list[Value]] = {i: [] for i in (*self.crossing.stores, *self.straight)}
            for n in range(nu):
                point = self.point(u0 + n, {i: rows[i][w - 1 - n if self.flipped(i) else n] for i in rows}, tuple(kept))
                for i, x in point.items():
                    kept[i].append(x)
            for i in self.straight:
                self.store_rows(i, self.corner(i, u0, v0), kept[i])
            for i in self.crossing.stores:
                kept[i] += [f.value("poison", kept[i][0].kind, w)] * (w - nu)
                self.store_rows(i, self.corner(i, u0, v0), transposed(kept[i][::-1 if self.flipped(i) else 1])[:nv])

    def full_looped(self, u0: Value, v0: Value) -> None:
        """The same with loops over rows."""
        f, w = self.e.f, self.w
        zero, one, all_ = f.const(0, "i64"), f.const(1, "i64"), f.const(w, "i64")
        for i in self.crossing.loads:
            inside = group(self.shape(i).bits, w)
            with f.loop(zero, all_, f.const(inside, "i64"), "in") as loop:
                self.put(i, first_rounds(list(self.row_loads(i, u0, v0 + loop.index, inside))), loop.index)
        if len(self.crossing.loads) == 1 and not self.crossing.stores:
            i, = self.crossing.loads
            inside = group(self.shape(i).bits, w)
            with f.loop(zero, f.const(inside, "i64"), one, "row") as loop:
                columns = last_rounds([self.buffer_load(i, loop.index + n) for n in range(0, w, inside)])
                for n, x in enumerate(columns):
                    at = u0 + (w - 1 - n * inside - loop.index if self.flipped(i) else loop.index + n * inside)
                    for k, y in self.point(at, {i: x}, self.straight).items():
                        self.store_rows(k, self.corner(k, at, v0), [y])
            return
        for i in self.crossing.loads:
            self.turn(i, first=False)
        self.rows_looped(u0, v0, w)
        for i in self.crossing.stores:
            self.turn(i)
            with f.loop(zero, all_, one, "out") as loop:
                self.store_rows(i, self.corner(i, u0, v0 + loop.index), [self.buffer_load(i, loop.index)])

    def rows_looped(self, u0: Value, v0: Value, nu: int) -> None:
        """The body for each point of u, between the buffers."""
        f = self.e.f
        with f.loop(f.const(0, "i64"), f.const(nu, "i64"), f.const(1, "i64"), "row") as loop:
            for i, x in self.buffered_point(u0, loop.index, self.straight).items():
                if i in self.straight:
                    self.store_rows(i, self.corner(i, u0 + loop.index, v0), [x])

    def lanes(self, n: int, flipped: bool = False) -> Value | None:
        """The mask of the first ``n`` lanes, or the last; None for all."""
        mask = [lane < n for lane in range(self.w)]
        return self.e.f.vector(mask[::-1] if flipped else mask, "i1") if n < self.w else None

    def store_rows(self, i: int, p: str, rows: Sequence[Value]) -> None:
        """Vectors, one step of the other range apart."""
        f = self.e.f
        mask = self.lanes(self.n[self.along(i)], self.flipped(i))

        def stores(p: str, how: str) -> None:
            for n, x in enumerate(rows):
                p = self.next_row(i, p) if n else p
                store(p, x, mask, how)

        usual = f"align {rows[0].bits // 8}"
        if i not in self.past_cache:
            stores(p, usual)
            return
        past, through, done = f.labels("store", "past", "through", "done")
        f.line(f"br i1 {self.past_cache[i].ref}, label %{past}, label %{through}")
        for label, how in ((past, f"align {LINE}, !nontemporal !1"), (through, usual)):
            f.label(label)
            stores(p, how)
            f.line(f"br label %{done}")
        f.label(done)

    def row_loads(self, i: int, u0: Value, v0: Value, n: int) -> Iterator[Value]:
        """Vectors along u, one point of v after the other; what is beyond a short range is left open."""
        f, x = self.e.f, self.shape(i)
        p = self.corner(i, u0, v0)
        mask = self.lanes(self.n[self.u], self.flipped(i))
        for k in range(n):
            p = self.next_row(i, p) if k else p
            if k >= self.n[self.v]:
                yield f.value("poison", x.kind, x.lanes)
            else:
                yield load(p, x, mask)

    def prefetch(self, at: dict[int, Value]) -> None:
        """Into the second cache: what tiles that come soon will touch.

        That is the next point of the innermost range between a and b, or, without one, of a: of what is contiguous along a
        the lines after the next.
        """
        f = self.e.f
        f.module.declare("llvm.prefetch.p0", "void (ptr, i32, i32, i32)")
        for i in self.body:
            if self.instr(i).op not in ("load", "store") or self.along(i) < 0:
                continue
            r, soon = self.along(i), dict(at)
            if not self.inside:
                soon[self.a] = at[self.a] + (AHEAD // self.instr(i).dtype.itemsize if r == self.a else self.w)
            with self.when(self.fetched.get(i)):
                p = self.corner(i, soon[self.u], soon[self.v])
                if self.inside:
                    p = f.op(f"getelementptr {self.element(i)}, ptr {p}, i64 {self.e.size(stride(self.index(i), self.inside[-1])).ref}")
                rows = self.n[self.v if r == self.u else self.u]
                with f.loop(f.const(0, "i64"), f.const(rows // STRAIGHT if self.looped else 1, "i64"), f.const(1, "i64"), "fetch") as loop:
                    p = self.moved(i, p, loop.index * STRAIGHT)
                    for n in range(STRAIGHT if self.looped else rows):
                        p = self.next_row(i, p) if n else p
                        f.line(f"call void @llvm.prefetch.p0(ptr {p}, i32 0, i32 2, i32 1)")

    # -- a tile with masks --------------------------------------------------------------------

    def edge(self, u0: Value, v0: Value, nu: Value, nv: Value) -> None:
        """A tile of ``nu`` points of u and ``nv`` points of v."""
        e, f, w = self.e, self.e.f, self.w
        zero, one, all_ = f.const(0, "i64"), f.const(1, "i64"), f.const(w, "i64")
        u_mask, v_mask = first_lanes(f, nu, w), first_lanes(f, nv, w)
        u_last = shuffle(u_mask, u_mask, range(w - 1, -1, -1)) if any(self.flipped(i) for i in self.buffers) else u_mask
        with e.scope(), e.at(self.v, v0, [v_mask]):
            e.prepare(self.others | {self.v}, e.kernel.stages)
            for i in self.crossing.loads:
                corner = self.corner(i, u0, v0)
                with f.loop(zero, nv, one, "in") as loop:
                    p = self.moved(i, corner, loop.index)
                    self.buffer_store(i, loop.index, load(p, self.shape(i), u_last if self.flipped(i) else u_mask))
                with f.loop(nv, all_, one, "none") as loop:
                    self.buffer_store(i, loop.index, f.const(0, self.shape(i).kind, w))
                self.turn(i)
            with f.loop(zero, nu, one, "row") as loop:
                self.buffered_point(u0, loop.index, ())
            for i in self.crossing.stores:
                corner = self.corner(i, u0, v0)
                self.turn(i)
                with f.loop(zero, nv, one, "out") as loop:
                    p = self.moved(i, corner, loop.index)
                    store(p, self.buffer_load(i, loop.index), u_last if self.flipped(i) else u_mask)

    # -- the body -----------------------------------------------------------------------------

    def buffered_point(self, u0: Value, n: Value, own: Sequence[int]) -> dict[int, Value]:
        """Point ``u0 + n`` of u, between the buffers."""
        rows = {i: self.buffer_load(i, self.w - 1 - n if self.flipped(i) else n) for i in self.crossing.loads}
        found = self.point(u0 + n, rows, (*self.crossing.stores, *own))
        for i in self.crossing.stores:
            self.buffer_store(i, self.w - 1 - n if self.flipped(i) else n, found[i])
        return found

    def point(self, at: Value, rows: dict[int, Value], own: Sequence[int]) -> dict[int, Value]:
        """The body at one point of u, a vector along v; what the stores ``own`` would write, as it is in memory."""
        e = self.e
        found: dict[int, Value] = {}
        with e.scope(), e.at(self.u, at):
            for i, x in rows.items():
                dtype = self.instr(i).dtype
                e.scopes[-1].values[i] = [loaded(x.bitcast(memory_kind(dtype)), dtype)]
            for i in self.body:
                v = self.instr(i)
                if i in own:
                    x = e.f.splat(stored(e.value(v.args[0])[0], v.dtype), self.w)
                    found[i] = x.bitcast(plain(x.kind))
                elif v.op == "store":
                    e.access.store(v, e.value(v.args[0]))
                elif not e.known(i):
                    e.instruction(i, v)
        return found

    # -- accesses -----------------------------------------------------------------------------

    def instr(self, i: int) -> Instr:
        return self.e.kernel.values[i]

    def index(self, i: int) -> Index:
        index = self.instr(i).index
        assert index is not None
        return index

    def along(self, i: int) -> int:
        """The range of the tile along which an access is contiguous, stepping in the other one; -1 if there is none."""
        index = self.index(i)
        if index.gathers:
            return -1
        if i in self.crossing.loads or i in self.crossing.stores:
            return self.u
        return self.v if stride(index, self.v) == 1 and stride(index, self.u) != 0 else -1

    def flipped(self, i: int) -> bool:
        """Does it run backwards along u?  Then its vectors do so too, and their transposed rows come last first."""
        return self.along(i) == self.u and stride(self.index(i), self.u) == -1

    def shape(self, i: int) -> Value:
        """What a vector of it is in memory: numbers of its size."""
        return self.e.f.value("", plain(memory_kind(self.instr(i).dtype)), self.w)

    def element(self, i: int) -> str:
        return self.e.f.value("", self.shape(i).kind).type

    def corner(self, i: int, u0: Value, v0: Value) -> str:
        """The address of an access's first vector in a tile."""
        e, f, index = self.e, self.e.f, self.index(i)
        base = e.access.scalar_pointer(self.instr(i).operand, index, self.others)
        along, step = (u0, v0 * self.step(i)) if self.along(i) == self.u else (v0, u0 * self.step(i))
        at = step - along - (self.w - 1) if self.flipped(i) else step + along
        return f.op(f"getelementptr {self.element(i)}, ptr {base.ref}, i64 {at.ref}")

    def step(self, i: int) -> Value:
        """The stride along the other range."""
        return self.e.size(stride(self.index(i), self.v if self.along(i) == self.u else self.u))

    def moved(self, i: int, p: str, n: Value) -> str:
        """``n`` rows further."""
        at = n * self.step(i)
        return self.e.f.op(f"getelementptr {self.element(i)}, ptr {p}, i64 {at.ref}")

    def next_row(self, i: int, p: str) -> str:
        return self.e.f.op(f"getelementptr {self.element(i)}, ptr {p}, i64 {self.step(i).ref}")

    # -- buffers ------------------------------------------------------------------------------

    def buffer_at(self, i: int, n: Value) -> str:
        return self.e.f.op(f"getelementptr {self.shape(i).type}, ptr {self.buffers[i]}, i64 {n.ref}")

    def buffer_load(self, i: int, n: Value) -> Value:
        x = self.shape(i)
        return self.e.f.value(self.e.f.op(f"load {x.type}, ptr {self.buffer_at(i, n)}"), x.kind, x.lanes)

    def buffer_store(self, i: int, n: Value, x: Value) -> None:
        self.e.f.line(f"store {x.type} {x.ref}, ptr {self.buffer_at(i, n)}")

    def put(self, i: int, rows: Sequence[Value], at: Value | int = 0) -> None:
        for n, x in enumerate(rows):
            self.buffer_store(i, n + at if isinstance(at, Value) else self.e.f.const(n, "i64"), x)

    def turn(self, i: int, first: bool = True) -> None:
        """Transpose a buffer where it is; ``first``: the first phase too."""
        f, w = self.e.f, self.w
        inside = group(self.shape(i).bits, w)
        zero, one = f.const(0, "i64"), f.const(1, "i64")
        if first:
            with f.loop(zero, f.const(w, "i64"), f.const(inside, "i64"), "turn") as loop:
                self.put(i, first_rounds([self.buffer_load(i, loop.index + n) for n in range(inside)]), loop.index)
        if inside < w:
            with f.loop(zero, f.const(inside, "i64"), one, "turn") as loop:
                for n, x in enumerate(last_rounds([self.buffer_load(i, loop.index + n) for n in range(0, w, inside)])):
                    self.buffer_store(i, loop.index + n * inside, x)


def first_lanes(f: Body, n: Value, w: int) -> Value:
    """The mask of the first ``n`` of w lanes; n > 0."""
    kind = "i32" if w <= 16 else "i8"
    return f.vector(range(w), kind).lt(f.splat(n.to(kind), w))


def least(a: Value, b: Value) -> Value:
    return select(a.lt(b), a, b)


def plain(kind: str) -> str:
    """Half precisions travel as integers."""
    return "i16" if BITS[kind] == 16 else kind
