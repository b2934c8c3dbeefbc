"""Short rows: a row in each lane, transposed through a buffer on the stack.

    y[i, j] = f(x[i, j], reductions of x[i, :] over j)      few j, many i

With lanes along j a short row fills its vectors badly, and at its end every reduction costs as much as several vectors.
With lanes along i nothing is left to join, but x[i, j] steps over memory.  So blocks of rows are read as they lie, turned
in registers (transposing.py), and kept in a buffer whose vectors hold one column of as many rows as there are lanes; the
stages run along j over the buffer; what they store is collected in such a buffer and turned back.  A sum over the rows that leaves
an element for each column is added up in a vector for each column.

``side_by_side`` says of a kernel how it would look in this form: another vector range, and the ranges that no buffer
depends on moved inwards, so that a buffer is filled once and read many times (the distances of all pairs of points).  The
form is chosen by sizes alone, when compiling where they are known, else by the driver (``Short.when``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from graphc import dims
from graphc.backends.llvm import memory, reducing
from graphc.backends.llvm.choices import Ranges
from graphc.backends.llvm.elements import loaded, memory_kind, stored
from graphc.backends.llvm.reducing import Accumulator
from graphc.backends.llvm.tiles import first_lanes, plain, stride
from graphc.backends.llvm.transposing import transposed
from graphc.backends.llvm.values import Value, select, shuffle
from graphc.dims import Size
from graphc.kernel import Index, Instr, Kernel
from graphc.ops import OPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from graphc.backends.llvm.kernels import Emitter

__all__ = ["LONGEST", "Short", "Staging", "side_by_side"]

#: elements of the longest row that counts as short; a buffer has room for so many
LONGEST = 128
#: buffers of one kernel at most: they share the first cache
MOST_BUFFERS = 4
#: how much the end of a row costs for each reduction with lanes along it; turning a vector of it costs 0.5
ENDS = {"max": 2.0, "min": 2.0, "argmax": 8.0, "argmin": 8.0}
#: flops of an op from which on it is code of some length
FUNCTION = 8.0


class Short(NamedTuple):
    """``kernel``: the form with a row in each lane; ``row``: the range along a row; ``longest``: elements of the longest row
    for which it is meant; ``when``: 1 where it pays, else 0."""

    kernel: Kernel
    row: int
    longest: int
    when: Size


Place = tuple[int, Index]  # an operand and where in it


def side_by_side(kernel: Kernel, depends: Ranges, lanes: int, bits: int) -> Short | None:
    """The kernel with a row in each of so many lanes; None where that is no use."""
    k, row = kernel, kernel.vector
    if row < 0 or row in k.grid or not k.grid or any(s.loops not in ((), (row,)) for s in (*k.stages, *k.finish)):
        return None
    if not any(v.op == "reduce" for v in k.values):
        return None
    for r in reversed(k.grid):
        places = _places(k, depends, r, row, lanes, bits)
        if not places:
            continue
        needed = {q for _, index in places for q, _ in index.terms}
        grid = (*(q for q in k.grid if q in needed), *(q for q in k.grid if q not in needed))
        turned = sum(len({q for q, _ in index.terms} & set(k.grid)) == len(k.grid) for _, index in places)  # others are read many times
        longest = _longest(k, depends, turned, lanes)
        m, n = k.ranges[row].extent, k.ranges[r].extent
        when = dims.dim_min(dims.dim_max(longest + 1 - m, 0), 1) * dims.dim_min(dims.dim_max(n - (lanes - 1), 0), 1)
        return None if when == 0 else Short(replace(k, grid=grid, vector=r), row, longest, when)
    return None


def _longest(k: Kernel, depends: Ranges, turned: int, lanes: int) -> int:
    """For rows of how many elements to turn so many arrays costs less than to join lanes (docs/llvm_backend.md has figures)."""
    ends = sum(ENDS.get(v.word, 1.0) for v in k.values if v.op == "reduce" and k.vector in v.over)
    for v, ranges in zip(k.values, depends, strict=True):  # a function of one number for a row: one by one, else of many rows at once
        if v.op == "apply" and OPS[v.word].flops >= FUNCTION and ranges & set(k.grid) and k.vector not in ranges:
            ends += OPS[v.word].flops / 4
    if turned and ends <= 1.0:
        return 0
    return min(LONGEST, int(2 * lanes * ends) // turned - 1 if turned else LONGEST)


def _places(k: Kernel, depends: Ranges, r: int, row: int, lanes: int, bits: int) -> set[Place]:
    """What would be kept in buffers if lanes were along ``r``; nothing where some access would step from lane to lane at every element."""
    found: set[Place] = set()
    for i in dict.fromkeys(i for stage in k.stages for i in stage.body):
        v = k.values[i]
        if v.op == "reduce" and set(v.over) & set(k.grid) and not depends[i] <= {row}:
            return set()
        if v.index is None or k.operands[v.operand].mode == "temp":
            continue
        across, along = stride(v.index, r), stride(v.index, row)
        if (v.op == "load" and v.args) or (v.op == "store" and across == 0):
            return set()
        if v.index.gathers:
            if along != 0 or any(row in depends[a] for a, _ in v.index.gathers):
                return set()
        elif across not in (0, 1) and along != 0:
            if along != 1 or v.dtype.itemsize * 8 * lanes > bits:
                return set()
            found.add((v.operand, v.index))
    return found if len(found) <= MOST_BUFFERS else set()


class Staging:
    """The buffers of a kernel being written in that form."""

    def __init__(self, emitter: Emitter, row: int, longest: int) -> None:
        self.e, self.row, self.longest = emitter, row, longest
        k = emitter.kernel
        self.names: dict[Place, str] = {}
        for v in (k.values[i] for stage in k.stages for i in stage.body):
            if v.index is not None and v.op in ("load", "store") and k.operands[v.operand].mode != "temp" and not v.index.gathers \
                    and stride(v.index, row) == 1 and stride(v.index, k.vector) not in (0, 1):
                self.names.setdefault((v.operand, v.index), "")
        self.columns = self._columns()

    def _columns(self) -> int:
        """Columns that a buffer has room for: whole tiles."""
        m, w = self.e.kernel.ranges[self.row].extent, self.e.lanes
        return -(-(m if isinstance(m, int) else self.longest) // w) * w

    def begin(self) -> None:
        """Room in the stack frame of the function that begins."""
        e = self.e
        for n, place in enumerate(self.names):
            name = self.names[place] = f"%staged{n}"
            e.entry.append(f"  {name} = alloca [{self.columns * e.unroll} x {self._shape(place).type}], align 64")

    # -- reductions over the rows that leave an array, an element for each column --------------

    def keep(self, i: int) -> None:
        """Stack memory for the accumulators: a vector for each column, which this chunk's rows add to."""
        e, f = self.e, self.e.f
        first = reducing.identity(f, e.kernel.values[i].word, e.operand_dtype(i), e.lanes)
        for part, x in enumerate(first):
            e.entry.append(f"  %kept{i}.{part} = alloca [{self.columns} x {x.type}], align 64")
        with f.loop(f.const(0, "i64"), e.size(e.kernel.ranges[self.row].extent), f.const(1, "i64"), "keep") as loop:
            for part, x in enumerate(first):
                f.line(f"store {x.type} {x.ref}, ptr {self._kept(i, part, x, loop.index)}")

    def take(self, i: int, news: Sequence[Accumulator]) -> None:
        """What the current column of the current rows comes to."""
        e, f = self.e, self.e.f
        word, dtype, several = e.kernel.values[i].word, e.operand_dtype(i), list(news)
        while len(several) > 1:
            half = len(several) // 2
            several = [reducing.combine(word, dtype, a, b) for a, b in zip(several[:half], several[half:], strict=True)]
        old = self._load_kept(i, e.index[self.row])
        joined = reducing.combine(word, dtype, old, several[0])
        mask = e.mask(0)
        if mask is not None:
            joined = tuple(select(mask, x, y) for x, y in zip(joined, old, strict=True))
        for part, x in enumerate(joined):
            f.line(f"store {x.type} {x.ref}, ptr {self._kept(i, part, x, e.index[self.row])}")

    def give(self, i: int) -> None:
        """The lanes joined, as this chunk's part of the reduction."""
        e, f = self.e, self.e.f
        word, dtype, n = e.kernel.values[i].word, e.operand_dtype(i), e.size(e.kernel.ranges[self.row].extent)
        with f.loop(f.const(0, "i64"), n, f.const(1, "i64"), "give") as loop:
            e.partials.put(i, loop.index, n, reducing.horizontal(word, dtype, self._load_kept(i, loop.index)))

    def _load_kept(self, i: int, column: Value) -> Accumulator:
        e, f = self.e, self.e.f
        shapes = [Value(f, "", kind, e.lanes) for kind in reducing.kinds(e.kernel.values[i].word, e.operand_dtype(i))]
        return tuple([f.value(f.op(f"load {x.type}, ptr {self._kept(i, part, x, column)}"), x.kind, x.lanes) for part, x in enumerate(shapes)])

    def _kept(self, i: int, part: int, x: Value, column: Value) -> str:
        return self.e.f.op(f"getelementptr {x.type}, ptr %kept{i}.{part}, i64 {column.ref}")

    # -- what the stages see ------------------------------------------------------------------

    def load(self, v: Instr) -> list[Value]:
        e, f, place = self.e, self.e.f, self._place(v)
        shape, found = self._shape(place), []
        for n in range(e.group):
            p = self._vector(place, e.index[self.row], f.const(n, "i64"))
            x = f.value(f.op(f"load {shape.type}, ptr {p}"), shape.kind, e.lanes)
            found.append(loaded(x.bitcast(memory_kind(v.dtype)), v.dtype))
        return found

    def store(self, v: Instr, values: Sequence[Value]) -> None:
        e, f, place = self.e, self.e.f, self._place(v)
        for n in range(e.group):
            x = f.splat(stored(values[n] if len(values) > 1 else values[0], v.dtype), e.lanes)
            x = x.bitcast(plain(x.kind))
            f.line(f"store {x.type} {x.ref}, ptr {self._vector(place, e.index[self.row], f.const(n, 'i64'))}")

    def _place(self, v: Instr) -> Place:
        assert v.index is not None
        return v.operand, v.index

    def _shape(self, place: Place) -> Value:
        """What a vector of it is in memory: numbers of its size."""
        kind = plain(memory_kind(self.e.kernel.operands[place[0]].dtype))
        return Value(self.e.f, "", kind, self.e.lanes)

    def _vector(self, place: Place, column: Value, n: Value) -> str:
        """The address of the n-th vector of a column."""
        at = column * self.e.group + n
        return self.e.f.op(f"getelementptr {self._shape(place).type}, ptr {self.names[place]}, i64 {at.ref}")

    # -- between memory and buffers -----------------------------------------------------------

    def fill(self, ranges: frozenset[int]) -> None:
        """Read what depends on these ranges of the grid, the last one of which has just been opened."""
        e = self.e
        done = ranges - {max(ranges, key=e.kernel.grid.index)} if ranges else ranges
        for place in self.names:
            needs = {q for q, _ in place[1].terms if q != self.row}
            if e.kernel.operands[place[0]].mode == "in" and needs <= ranges and not needs <= done:
                self._move(place, False)

    def flush(self) -> None:
        """Write what the stages have stored."""
        for place in self.names:
            if self.e.kernel.operands[place[0]].mode == "out":
                self._move(place, True)

    def _move(self, place: Place, out: bool) -> None:
        """All columns of all rows at the current point, one tile after the other."""
        e, f, w = self.e, self.e.f, self.e.lanes
        extent = e.kernel.ranges[self.row].extent
        m, zero, one, step = e.size(extent), f.const(0, "i64"), f.const(1, "i64"), f.const(w, "i64")
        with e.scope(), f.loop(zero, f.const(e.group, "i64"), one, "rows") as rows, e.scope():
            corners = self._rows(place, rows.index)
            if not isinstance(extent, int):
                # tiles end where the row ends, also where that makes them overlap
                narrow, wide, done = f.labels("tile", "narrow", "wide", "done")
                f.line(f"br i1 {m.lt(w).ref}, label %{narrow}, label %{wide}")
                for label, columns in ((narrow, w // 2), (wide, w)):
                    f.label(label)
                    last = m - columns
                    there: int | Value = columns
                    if label == narrow:
                        there = select(last.lt(0), m, m.like(columns))
                        last = select(last.lt(0), m.like(0), last)
                    with f.loop(zero, m, f.const(columns, "i64"), "columns") as loop:
                        start = select(loop.index.lt(last), loop.index, last)
                        self._tile(place, corners, rows.index, start, there, columns, out)
                    f.line(f"br label %{done}")
                f.label(done)
                return
            whole, rest = divmod(extent, w)
            if whole == 1:
                self._tile(place, corners, rows.index, zero, w, w, out)
            elif whole:
                with f.loop(zero, f.const(whole * w, "i64"), step, "columns") as loop:
                    self._tile(place, corners, rows.index, loop.index, w, w, out)
            if rest and whole:  # the last columns once more
                self._tile(place, corners, rows.index, f.const(extent - w, "i64"), w, w, out)
            elif rest:
                self._tile(place, corners, rows.index, zero, rest, rest, out)

    def _rows(self, place: Place, n: Value) -> list[str]:
        """Where the rows of the n-th vector of rows begin; beyond the last row, the last one again."""
        e, f, w = self.e, self.e.f, self.e.lanes
        operand, index = place
        r = e.kernel.vector
        base = e.access.scalar_pointer(operand, index._replace(terms=tuple(t for t in index.terms if t[0] != self.row)), frozenset(e.index))
        element, step = f.value("", self._shape(place).kind).type, e.size(stride(index, r))
        first = e.index[r] + n * w
        if e.masks:
            last = e.size(e.kernel.ranges[r].extent) - 1
            at = [select((first + k).lt(last), first + k, last) * step for k in range(w)]
            return [f.op(f"getelementptr {element}, ptr {base.ref}, i64 {x.ref}") for x in at]
        found = [f.op(f"getelementptr {element}, ptr {base.ref}, i64 {(first * step).ref}")]
        for _ in range(w - 1):
            found.append(f.op(f"getelementptr {element}, ptr {found[-1]}, i64 {step.ref}"))
        return found

    def _tile(self, place: Place, corners: Sequence[str], n: Value, column: Value, there: int | Value, count: int, out: bool) -> None:
        """``count`` columns of w rows from ``column`` on, as far as they are ``there``.

        Where half a vector holds them, two rows share one: half as many vectors to turn.
        """
        e, f, w = self.e, self.e.f, self.e.lanes
        shape = self._shape(place)
        parts = 2 if count <= w // 2 and w // 2 * shape.bits >= 128 else 1
        width = w // parts
        part = Value(f, "", shape.kind, width)
        if isinstance(there, Value):
            mask: Value | None = first_lanes(f, there, width)
        else:
            mask = None if there >= width else f.vector([lane < there for lane in range(width)], "i1")
        element = f.value("", shape.kind).type
        at = [f.op(f"getelementptr {element}, ptr {p}, i64 {column.ref}") for p in corners]
        if not out:
            rows = [memory.load(p, part, mask) for p in at]
            if parts == 2:
                rows = [shuffle(x, y, range(w)) for x, y in zip(rows[:width], rows[width:], strict=True)]
            for t, x in enumerate(transposed(rows, parts)[:count]):
                f.line(f"store {x.type} {x.ref}, ptr {self._vector(place, column + t if t else column, n)}")
            return
        columns = []
        for t in range(width):
            if t >= count:
                columns.append(f.value("poison", shape.kind, w))
                continue
            p = self._vector(place, column + t if t else column, n)
            columns.append(f.value(f.op(f"load {shape.type}, ptr {p}"), shape.kind, w))
        rows = transposed(columns, parts)
        if parts == 2:
            rows = [shuffle(x, x, half) for half in (range(width), range(width, w)) for x in rows]
        for k, (p, x) in enumerate(zip(at, rows, strict=True)):
            rows_there = e.mask(0)
            if rows_there is not None:
                some = select(rows_there.lane(k), mask if mask is not None else f.const(True, "i1", width), f.const(False, "i1", width))
                memory.store(p, x, some)
            else:
                memory.store(p, x, mask)
