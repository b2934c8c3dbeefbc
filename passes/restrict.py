"""``restrict``: a launch or a product of a Program, for one block of the rows of one of many matrices.

``Rows`` are what several arrays have in common: they are dense and of the shape (*lead, rows, ...).  A step goes *along* the rows if it can be
done for some of them alone: a product whose result has these rows, or that sums over them; many products, of which the rows are the first leading
axis (images); one product whose first axis of columns they are (images side by side); a kernel whose grid runs over all of them, and each of whose points stays in its row, whatever it reads and writes there (windows that are padded: under their condition).
Arrays that are ``held`` exist only for the rows of one block; there row 0 is the block's first one.  Arrays that are ``passed`` are whole, but
steps of the block read what others of it have written, so they too must be seen row by row.  In most slabs one row follows the other; where rows are
``beside`` each other a slab consists of lines, each a part of the first row, of the second one, and so on.  Held, its lines are as long as a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.kernel import Index, Instr, Kernel, Launch, Product, Slab, Stage, View, contiguous

__all__ = ["Block", "Rows", "Widths", "beside", "one_by_one", "restricted", "symbols_of"]

#: slabs, and their elements per row
Widths = Mapping[int, Size]


class Rows(NamedTuple):
    """Rows of matrices: the matrices' own axes, and how many rows each has."""

    lead: tuple[Size, ...]
    rows: Size
    beside: tuple[tuple[int, Size], ...] = ()  # slabs in which the rows stand side by side, [others, rows, each]: how much each is

    @property
    def axes(self) -> tuple[Size, ...]:
        return (*self.lead, self.rows)

    def width(self, slab: Slab) -> Size | None:
        """Elements of a slab in each row; None if it has other rows."""
        if any(slab.id == s for s, _ in self.beside):
            return dims.floordiv(slab.elements, self.rows)
        n = len(self.axes)
        return dims.product(slab.shape[n:]) if slab.shape[:n] == self.axes else None

    def each(self, slab: int) -> Size | None:
        """What a row is of each line, if rows of this slab stand side by side."""
        return next((each for s, each in self.beside if s == slab), None)

    def step(self, axis: int) -> Size:
        """Rows from one index along an axis to the next."""
        return dims.product(self.axes[axis + 1:])


@dataclass(frozen=True)
class Block:
    """One block: which matrix, the first row, how many rows, at most how many."""

    lead: tuple[Size, ...]
    start: Size
    count: Size
    most: int

    @property
    def index(self) -> tuple[Size, ...]:
        return (*self.lead, self.start)


def restricted(step: Launch | Product, rows: Rows, block: Block, held: Widths, passed: Widths) -> Launch | Product | None:
    """The step for the rows of the block; None if it does not go along the rows."""
    if isinstance(step, Launch):
        return _launch(step, rows, block, held, {**held, **passed})
    return _product(step, rows, block, held, {**held, **passed})


# -- products -----------------------------------------------------------------------------------------


def _product(step: Product, rows: Rows, block: Block, held: Widths, seen: Widths) -> Product | None:
    a, b, out = step.a, step.b, step.out
    if step.adds != 0:
        return None
    if any(rows.each(v.slab) is not None for v in (a, b, out)):
        return _beside(step, rows, block, held, seen)
    if not rows.lead and len(out.shape) > step.axes[0] + step.axes[2]:
        return _many(step, rows, block, held, seen)
    if step.axes != (1, 1, 1) or out.shape[:-2] != rows.lead:
        return None
    along_a, along_b, along_out = (_along(v, rows, seen) for v in (a, b, out))
    if None in (along_a, along_b, along_out):
        return None
    if along_b == "rows" or along_a == "columns":  # a sum over the rows
        if out.slab in seen or along_b == "columns" or along_a == "rows" or a.shape[-1] != rows.rows:
            return None
        if any(n == 1 for n in out.shape[-2:]):
            return None  # these have forms of their own, which do not add to what is there
        return Product(_part(a, 1, rows, block, held), _part(b, 0, rows, block, held), _part(out, None, rows, block, held), step.axes, step.origin, block.start)
    if along_b == "columns" or along_out == "columns" or out.shape[-2] != rows.rows:
        return None
    return Product(_part(a, 0, rows, block, held), _part(b, None, rows, block, held), _part(out, 0, rows, block, held), step.axes, step.origin)


def one_by_one(step: Product, rows: Rows) -> Product:
    """A sum over the rows of all matrices as a sum for each matrix, whose results lie in one place; any other product as it is."""
    a, b, out = step.a, step.b, step.out
    if step.axes != (1, 1, 1) or not rows.lead or len(out.shape) != 2 or a.shape[-1] != dims.product(rows.axes):
        return step
    along = [rows.step(k) for k in range(len(rows.lead))]
    return step._replace(
        a=View(a.slab, (*rows.lead, a.shape[0], rows.rows), (*(n * a.strides[1] for n in along), *a.strides), a.offset),
        b=View(b.slab, (*rows.lead, rows.rows, b.shape[1]), (*(n * b.strides[0] for n in along), *b.strides), b.offset),
        out=View(out.slab, (*rows.lead, *out.shape), (*([0] * len(along)), *out.strides), out.offset))


def _many(step: Product, rows: Rows, block: Block, held: Widths, seen: Widths) -> Product | None:
    """Some of many products: the rows are their first leading axis."""
    views = (step.a, step.b, step.out)
    if step.out.shape[0] != rows.rows:
        return None
    for v in views:
        if v.slab in seen and (v.strides[0] != seen[v.slab] or not _inside(v.offset, list(zip(v.shape[1:], v.strides[1:], strict=True)), seen[v.slab])):
            return None

    def some(v: View) -> View:
        offset = v.offset if v.slab in held else v.offset + block.start * v.strides[0]
        return View(v.slab, (block.count, *v.shape[1:]), v.strides, offset)

    a, b, out = (some(v) for v in views)
    return step._replace(a=a, b=b, out=out)


def beside(step: Product, slabs: Sequence[Slab]) -> Size | None:
    """How many images stand side by side in the result of a product: the first axis of its columns runs over the rows of its second operand's slab."""
    b, out, columns = step.b, step.out, step.axes[2]
    if columns < 2 or len(out.shape) == step.axes[0] + columns or not dims.is_one(out.shape[0]) or dims.is_one(out.shape[-columns]):
        return None
    return out.shape[-columns] if b.strides[-columns] == dims.product(slabs[b.slab].shape[1:]) else None


def _beside(step: Product, rows: Rows, block: Block, held: Widths, seen: Widths) -> Product | None:
    """Some columns of one product: the rows are the first axis of these, and stand side by side in the result alone."""
    a, b, out = step.a, step.b, step.out
    each, first, axis = rows.each(out.slab), len(out.shape) - step.axes[2], len(b.shape) - step.axes[2]
    if each is None or a.slab in seen or rows.each(b.slab) is not None or out.shape[first] != rows.rows or out.strides[first] != each:
        return None
    if out.offset != 0 or out.strides != contiguous(out.shape) or dims.product(out.shape) != rows.rows * seen.get(out.slab, 0):
        return None
    others = [(n, t) for k, (n, t) in enumerate(zip(b.shape, b.strides, strict=True)) if k != axis]
    if b.slab in seen and (b.strides[axis] != seen[b.slab] or not _inside(b.offset, others, seen[b.slab])):
        return None

    def some(v: View, axis: int) -> View:
        offset = v.offset if v.slab in held else v.offset + block.start * v.strides[axis]
        return View(v.slab, (*v.shape[:axis], block.count, *v.shape[axis + 1:]), v.strides, offset)

    to = some(out, first)
    if out.slab in held:  # lines are as long as a block's rows
        line = rows.rows * each
        to = to._replace(strides=(*(dims.floordiv(t, line) * (block.most * each) for t in to.strides[:first]), *to.strides[first:]))
    return step._replace(b=some(b, axis), out=to)


def _inside(offset: Size, terms: Sequence[tuple[Size, Size]], width: Size) -> bool:
    """Does ``offset + sum of stride * (0 ... extent - 1)`` stay in a row of that width?"""
    if isinstance(offset, int) and isinstance(width, int) and all(isinstance(n, int) and isinstance(t, int) for n, t in terms):
        reaches = [(n - 1) * t for n, t in terms if isinstance(n, int) and isinstance(t, int)]
        return offset + sum(min(r, 0) for r in reaches) >= 0 and offset + sum(max(r, 0) for r in reaches) < width
    total: Size = 1
    for n, stride in terms:
        total = total + (n - 1) * stride
    return offset == 0 and total == width


def _along(v: View, rows: Rows, seen: Widths) -> str | None:
    """Which axis of a matrix the rows are: "rows", "columns"; "" if it is another slab; None if it is seen in another way."""
    width = seen.get(v.slab)
    if width is None:
        return ""
    if v.offset != 0 or width == 1:
        return None
    for k, size in enumerate(rows.lead):
        if v.strides[k] != rows.step(k) * width and size != 1:
            return None
    if v.shape[-2:] == (rows.rows, width) and v.strides[-2:] == (width, 1):
        return "rows"
    return "columns" if v.shape[-2:] == (width, rows.rows) and v.strides[-2:] == (1, width) else None


def _part(v: View, axis: int | None, rows: Rows, block: Block, held: Widths) -> View:
    """A matrix of a view, cut along its first or second axis."""
    shape, strides, offset = list(v.shape[-2:]), v.strides[-2:], v.offset
    if v.slab in held:
        offset = 0
    else:
        for index, stride in zip(block.lead, v.strides, strict=False):
            offset = offset + index * stride
        if axis is not None:
            offset = offset + block.start * strides[axis]
    if axis is not None:
        shape[axis] = block.count
    return View(v.slab, tuple(shape), strides, offset)


# -- kernels ------------------------------------------------------------------------------------------


class _Place(NamedTuple):
    """What a range of a grid runs over: axes ``first`` ... ``last``-1 of the rows, and ``each`` elements of every row."""

    first: int
    last: int
    each: Size


def _launch(step: Launch, rows: Rows, block: Block, held: Widths, seen: Widths) -> Launch | None:
    kernel = step.kernel
    if kernel.finish or not kernel.grid:
        return None
    places = _places(step, rows, seen)
    if places is None or (kernel.vector in places and places[kernel.vector].last != len(rows.axes)):
        return None
    for v in kernel.values:
        if v.index is not None and (s := step.slabs[v.operand]) in seen and not _goes_along(v, kernel, places, rows, seen[s], rows.each(s)):
            return None
        if v.op == "reduce" and any(r in places for r in v.over):
            return None
    return _Restriction(step, rows, block, held, places).launch()


def _places(step: Launch, rows: Rows, seen: Widths) -> dict[int, _Place] | None:
    """The ranges that run over the rows, as an access to one of the slabs shows."""
    kernel = step.kernel
    anchor = next((v for v in kernel.values if v.index is not None and step.slabs[v.operand] in seen), None)
    if anchor is None or anchor.index is None:
        return None
    slab, strides = step.slabs[anchor.operand], dict(anchor.index.terms)
    width = rows.each(slab) or seen[slab]  # from row to row
    axes, found, at = rows.axes, dict[int, _Place](), 0
    while at < len(axes):
        if at < len(axes) - 1 and axes[at] == 1:
            at += 1
            continue
        place = None
        for last in range(at + 1, len(axes) + 1):
            run, step_ = dims.product(axes[at:last]), dims.product(axes[last:]) * width
            for r in kernel.grid:
                if r in found:
                    continue
                each = _times(step_, strides.get(r, 0)) if last == len(axes) else 1
                if kernel.ranges[r].extent == run and strides.get(r) == step_:
                    place = (r, _Place(at, last, 1))
                elif each != 1 and kernel.ranges[r].extent == run * each:
                    place = (r, _Place(at, last, each))
        if place is None:
            return None
        found[place[0]] = place[1]
        at = place[1].last
    return found


def _times(size: Size, part: Size) -> Size:
    """How often a part goes into a size; 1 if that is not known, or not a whole number."""
    if isinstance(size, int) and isinstance(part, int):
        return size // part if part > 0 and size % part == 0 else 1
    return size if part == 1 else 1


def _goes_along(access: Instr, kernel: Kernel, places: Mapping[int, _Place], rows: Rows, width: Size, each: Size | None) -> bool:
    """Does an access stay in the row of the grid's point?  ``each``: where rows stand side by side, in lines."""
    index = access.index
    if index is None or index.gathers:
        return False
    if each is not None:
        lines = _lines(access, kernel, rows.rows * each)
        if lines is None or not _inside(lines[1].offset, [(kernel.ranges[r].extent, t) for r, t in lines[1].terms], dims.floordiv(width, each)):
            return False
        index, width = lines[0], each
    strides, terms, offset = dict(index.terms), list[tuple[Size, Size]](), index.offset
    for r, place in places.items():
        stride = strides.pop(r, 0)
        if stride * place.each != dims.product(rows.axes[place.last:]) * width:
            return False
        terms.append((place.each, stride))
    limits = _limits(kernel, access.args[0]) if access.op == "load" and access.args else {}
    for r, stride in strides.items():
        low, end = limits.get(r, (0, None))
        extent = kernel.ranges[r].extent
        if isinstance(extent, int):
            end = extent if end is None else min(end, extent)
            if end <= low:
                return True  # nothing is read
        elif low or end is not None:
            return False
        offset = offset + stride * low
        terms.append((extent if end is None else end - low, stride))
    return _inside(offset, [term for term in terms if term[0] != 1], width)


def _lines(access: Instr, kernel: Kernel, line: Size) -> tuple[Index, Index] | None:
    """Where an access is within lines of that length, and in which of them; None if a stride is neither within one nor from one to others."""
    assert access.index is not None
    offset, within, along = access.index.offset, list[tuple[int, Size]](), list[tuple[int, Size]]()
    for r, stride in access.index.terms:
        count = 1 if stride == line else _times(stride, line)
        if stride == line or count != 1:
            along.append((r, count))
        else:
            within.append((r, stride))
    if isinstance(offset, int) and isinstance(line, int):
        limits = _limits(kernel, access.args[0]) if access.op == "load" and access.args else {}
        begin: Size = (offset + sum(limits[r][0] * t for r, t in within if r in limits and isinstance(t, int))) // line
    else:
        begin = 0 if isinstance(offset, int) else dims.floordiv(offset - offset.const, line)
    rest = offset - begin * line
    return (Index(rest, tuple(within)), Index(begin, tuple(along))) if isinstance(begin, int) and isinstance(rest, int) else None


def _limits(kernel: Kernel, condition: int) -> dict[int, tuple[int, int | None]]:
    """Between which numbers loop variables are where a condition holds: the first one, and the one after the last."""
    found: dict[int, tuple[int, int | None]] = {}
    todo = [kernel.values[condition]]
    while todo:
        v = todo.pop()
        if v.op != "apply" or v.word not in ("logical_and", "greater_equal", "less"):
            continue
        one, two = (kernel.values[a] for a in v.args)
        if v.word == "logical_and":
            todo += [one, two]
        elif one.op == "range" and two.op in ("literal", "size") and isinstance(two.data, int):
            low, end = found.get(one.over[0], (0, None))
            found[one.over[0]] = (max(low, two.data), end) if v.word == "greater_equal" else (low, two.data if end is None else min(end, two.data))
    return found


class _Restriction:
    """Writes the kernel anew: ranges over matrices become numbers, the range over rows begins at the block's first."""

    def __init__(self, step: Launch, rows: Rows, block: Block, held: Widths, places: Mapping[int, _Place]) -> None:
        self.step, self.kernel, self.rows, self.block, self.held = step, step.kernel, rows, block, held
        self.begins: dict[int, Size] = {}
        self.last = -1  # the range over rows
        for r, place in places.items():
            begin: Size = 0
            for k in range(place.first, place.last):
                begin = begin * rows.axes[k] + block.index[k]
            self.begins[r] = begin * place.each
            if place.last == len(rows.axes):
                self.last, self.each = r, place.each
        kept = [r for r in range(len(self.kernel.ranges)) if r == self.last or r not in places]
        self.numbers = {r: n for n, r in enumerate(kept)}

    def launch(self) -> Launch:
        kernel, numbers = self.kernel, self.numbers
        values: list[Instr] = []
        renamed: dict[int, int] = {}
        inserted: dict[int, list[int]] = {}
        for i, v in enumerate(kernel.values):
            new = self.instr(v._replace(args=tuple([renamed[a] for a in v.args])), renamed)
            inserted[i] = list(range(len(values), len(values) + len(new)))
            values += new
            if len(new) == 3:  # a range that begins elsewhere: the sum of the two before
                values[-1] = values[-1]._replace(args=(len(values) - 3, len(values) - 2))
            renamed[i] = len(values) - 1
        ranges = tuple([kernel.ranges[r]._replace(extent=self.block.count * self.each) if r == self.last else kernel.ranges[r] for r in numbers])
        stages = tuple([Stage(tuple([numbers[r] for r in s.loops]), tuple([j for i in s.body for j in inserted[i]])) for s in kernel.stages])
        operands = tuple([o._replace(size=self.held[s] * self.block.most) if s in self.held else o
                          for o, s in zip(kernel.operands, self.step.slabs, strict=True)])
        grid = tuple([numbers[r] for r in kernel.grid if r in numbers])
        made = replace(kernel, ranges=ranges, grid=grid, operands=operands, values=tuple(values), stages=stages, vector=numbers.get(kernel.vector, -1))
        return self.step._replace(kernel=made)

    def instr(self, v: Instr, renamed: Mapping[int, int]) -> list[Instr]:
        """One instruction, or the three of a loop variable that begins elsewhere; args are the new ones already."""
        if v.op == "range" and v.over[0] in self.begins:
            begin = Instr("size", np.dtype(np.int64), data=self.begins[v.over[0]])
            if v.over[0] != self.last:
                return [begin]
            return [v._replace(over=(self.numbers[v.over[0]],)), begin, Instr("apply", np.dtype(np.int64), word="add")]
        if v.index is not None:
            slab, index = self.step.slabs[v.operand], v.index
            offset, each = index.offset, self.rows.each(slab)
            if slab not in self.held:
                for r, stride in index.terms:
                    if r in self.begins:
                        offset = offset + self.begins[r] * stride
            elif each is not None and (lines := _lines(v, self.kernel, self.rows.rows * each)) is not None:  # lines are as long as a block's rows
                within, along = lines
                length = self.block.most * each
                offset = within.offset + along.offset * length
                index = Index(offset, tuple(sorted((*within.terms, *((r, n * length) for r, n in along.terms)), key=lambda term: term[0])), index.gathers)
            terms = tuple([(self.numbers[r], stride) for r, stride in index.terms if r in self.numbers])
            return [v._replace(index=Index(offset, terms, tuple([(renamed[a], stride) for a, stride in index.gathers])))]
        return [v._replace(over=tuple([self.numbers[r] for r in v.over]))]


def symbols_of(lead: Sequence[Size]) -> tuple[tuple[Symbol, Size], ...]:
    """A symbol for the index along each axis."""
    found = []
    for size in lead:
        symbol = dims.fresh("block", "matrix").symbol
        assert symbol is not None
        found.append((symbol, size))
    return tuple(found)
