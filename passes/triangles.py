"""``triangles``: blocks of a sweep whose rows see only the first columns leave out the others.

What it promises: the same values, for any number of threads the same bits (a row's weights may be summed in another order than with all columns); where an operand is
not finite or larger than ``LARGEST``, the careful evaluation takes the call.

In causal attention row i of the scores sees the columns 0 ... i: the weights of the others are exactly 0, so their products add nothing.  A block of rows that
begins at ``start`` needs no column from ``start + count`` on: its scores are not computed, the softmax does not look at them, and the products of
the weights with V and of the gradients with Q and K are that much shorter.  All in all that is half of the work.  With a window (row i sees the columns i - back ... i)
it needs none before ``start - back`` either.

Nothing is looked for but this: a kernel compares the number of a column with that of the row (passes/spans.py), and for columns that are not
seen

- what a kernel reduces along the columns is the same without them (they add 0, or are smaller than what is seen);
- what a product multiplies is exactly 0 there, and what it is multiplied by is finite.

That needs bounds of what the products read, which only the call knows.  So a kernel looks at each of these arrays once, and doubts the
call where a number is too large, infinite or NaN.

With a second mask a row may see columns of which none counts; what is hidden counts then as much as they do.  The kernel that looks for the largest value of a row says for which rows
it is too small, and a block with such rows begins anew, with all columns (``Seen`` in graphc/kernel.py).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.errors import Origin, on_behalf_of
from graphc.ir import Graph, Type, Var
from graphc.kernel import Index, Instr, Kernel, Launch, Operand, Product, Program, Range, Seen, Slab, Stage, View, contiguous
from graphc.ops.arithmetic import abs as abs_
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.comparison import less_equal, logical_not
from graphc.ops.core import constant
from graphc.ops.reduction import any as any_
from graphc.passes.launching import launched
from graphc.passes.restrict import Block, Rows, Widths
from graphc.passes.spans import ANYTHING, NOTHING, Known, Line, Mask, Span, Spans, Spread, always_in
from graphc.passes.stages import Source

__all__ = ["LARGEST", "Lines", "Narrowing", "lines_of"]

#: what the numbers that products read may be, and how many of them are summed if that is unknown
LARGEST, MANY = 2.0**30, 2**30
#: slabs of integers that count: the first one
Lines = Mapping[int, Size]
#: instructions of kernels that count
COUNTING = frozenset({"range", "literal", "size", "cast", "apply", "store"})
Part = Launch | Product


class _Cut(NamedTuple):
    """Which axes of a product's operands end with the columns that are seen."""

    a: int | None
    b: int | None
    out: int | None


class Columns(NamedTuple):
    first: Size
    many: Size


class Narrowed(NamedTuple):
    """A sweep's steps, what comes before it, its slabs of one block that are new, and which columns its blocks see."""

    steps: list[Part]
    before: Sequence[Launch] = ()
    held: frozenset[int] = frozenset()
    seen: Seen | None = None


class Narrowing:
    """What the sweeps of a program share: which slabs are known to be small."""

    def __init__(self, program: Program, written: Mapping[int, int]) -> None:
        self.program, self.written = program, written
        self.checked: set[tuple[int, bool]] = set()
        self.copied: dict[int, int] = {}  # slabs that are copies, of which
        self.constants: dict[bytes, int] = {}
        self.masks: dict[int, Mask | None] = {}

    @functools.cached_property
    def lines(self) -> Lines:
        return lines_of(self.program)

    def narrowed(self, steps: Sequence[Part], rows: Rows, block: Block, held: Widths) -> Narrowed:
        """The steps with the columns that the rows of a block see."""
        if not isinstance(block.count, int) or not isinstance(rows.rows, int) or rows.rows >= 2 * block.count:
            for width in dict.fromkeys(w for w in held.values() if w != 1):
                found = _Sweep(self, steps, rows, block, held, width)
                if found.look():
                    return found.narrowed()
        return Narrowed(list(steps))

    def check(self, slab: int, origin: Origin, both: bool = True) -> Launch | None:
        """A kernel that doubts the call where a number of the slab is large; ``both``: or much less than 0."""
        if (slab, True) in self.checked or (slab, both) in self.checked:
            return None
        self.checked.add((slab, both))
        program, known = self.program, self.program.slabs[slab]
        x = Var(Type(known.dtype, known.shape), name=known.name)
        with on_behalf_of(origin):
            bad = any_(logical_not(less_equal(abs_(x) if both else x, constant(LARGEST, known.dtype))))
        doubt = program.slab(bad.type.dtype, (), "arena", "large")
        program.checks, program.doubts = (*program.checks, doubt), program.doubts | {doubt}
        sources = {x: Source(slab, known.elements, known.shape, contiguous(known.shape))}
        return launched(Graph([x], [bad], name="large"), sources, [doubt], origin, self.constant)

    def zeros(self, slab: int, origin: Origin) -> Launch:
        """A kernel that fills the slab with zeros, to which blocks add."""
        known = self.program.slabs[slab]
        with on_behalf_of(origin):
            nothing = broadcast_to(constant(0, known.dtype), known.shape)
        return launched(Graph([], [nothing], name="zeros"), {}, [slab], origin, self.constant)

    def mask(self, slab: Slab, width: Size) -> Mask | None:
        """A constant matrix that has one number where row - back <= column <= row + reach, and another elsewhere."""
        if slab.id not in self.masks:
            assert isinstance(width, int)
            data = slab.data.reshape(-1, width)
            seen, last = data[0, 0], len(data) - 1
            reach, back = int((data[0] == seen).sum()) - 1, last - int(np.argmax(data[-1] == seen))
            apart = np.arange(width) - np.arange(len(data))[:, None]
            inside = (apart <= reach) & (apart >= -back)
            hidden = data[0, -1] if reach < width - 1 else data[-1, 0]
            same = seen == seen and hidden == hidden and seen != hidden and np.array_equal(data, np.where(inside, seen, hidden))
            self.masks[slab.id] = Mask(reach if reach < width - 1 else None, back if back < last else None, float(seen), float(hidden)) if same else None
        return self.masks[slab.id]

    def constant(self, data: Any) -> int:
        key = data.tobytes()
        if key not in self.constants:
            self.constants[key] = self.program.slab(data.dtype, data.shape, "constant", "c", None, data)
        return self.constants[key]


class _Sweep:
    """One sweep, and what in it is as wide as ``width``."""

    def __init__(self, outer: Narrowing, steps: Sequence[Part], rows: Rows, block: Block, held: Widths, width: Size) -> None:
        self.outer, self.all, self.rows, self.block, self.held, self.width = outer, list(steps), rows, block, held, width
        self.slabs = outer.program.slabs
        self.wide = {s for s, w in held.items() if w == width}
        self.spreads: dict[int, Spread] = {}
        self.reach: int | None = None
        self.back: int | None = None
        self.after = self.before = True  # can columns after and before those that are seen be left out?
        self.floors: dict[int, tuple[int, dict[int, float]]] = {}  # of steps: their range over rows; largest values of rows, and what they must be at least
        self.cuts: list[_Cut | frozenset[int] | None] = []  # of each step
        self.small: dict[int, Origin] = {}  # slabs that must be bounded
        self.low: dict[int, Origin] = {}  # slabs that must have an upper bound
        self.filled: dict[int, Origin] = {}  # slabs that begin as zeros
        self.inside = {s for step in steps for s in step.writes}

    def look(self) -> bool:
        """Can the hidden columns be left out?"""
        for n, step in enumerate(self.all):
            ok = self.launch(n, step) if isinstance(step, Launch) else self.product(step)
            if not ok or not (self.after or self.before):
                return False
        self.after, self.before = self.after and self.reach is not None, self.before and self.back is not None
        return (self.after or self.before) and dims.bounds(self.reached)[1] != 0 and not (self.floors and (len(self.floors) > 1 or self.adds_before(max(self.floors))))

    @property
    def reached(self) -> Size:
        """1 if each row sees a column, else 0.  (The first one does, since neither end is negative.)"""
        return 1 if self.back is None else dims.dim_min(dims.dim_max(self.width + self.back - self.rows.rows + 1, 0), 1)

    def adds_before(self, n: int) -> bool:
        """Do steps up to there add to something?"""
        return any(isinstance(step, Product) and step.adds != 0 for step in self.all[:n])

    # -- kernels ------------------------------------------------------------------------------------

    def launch(self, n: int, step: Launch) -> bool:
        kernel, slabs = step.kernel, step.slabs
        found: set[int] = set()
        columns: set[int] = set()
        for v in kernel.values:
            if v.index is not None and slabs[v.operand] in self.wide:
                if len(v.index.terms) != 2 or v.index.offset != 0 or v.index.gathers:
                    return False
                by = {stride: r for r, stride in v.index.terms}
                if set(by) != {self.width, 1} or kernel.ranges[by[self.width]].extent != self.block.count or kernel.ranges[by[1]].extent != self.width:
                    return False
                found.add(by[self.width])
                columns.add(by[1])
        if not found:
            self.cuts.append(None)
            return not self.wide & {*step.reads, *step.writes}
        if len(found) > 1 or found & columns or not found <= set(kernel.grid) or kernel.finish:
            return False
        spans = Spans(kernel, found.pop(), frozenset(columns), self.block.start, self.width, _Loads(self, slabs, frozenset(columns), step.origin))
        if not spans.sound or any(new is not None and old not in (None, new) for old, new in ((self.reach, spans.reach), (self.back, spans.back))):
            return False
        self.reach, self.back = self.reach if spans.reach is None else spans.reach, self.back if spans.back is None else spans.back
        self.after, self.before = self.after and spans.after, self.before and spans.before
        if spans.floors:
            self.floors[n] = spans.row, spans.floors
        for i, v in enumerate(kernel.values):
            if v.op != "store" or kernel.operands[v.operand].mode == "temp":
                continue
            if slabs[v.operand] in self.wide:
                self.spreads[slabs[v.operand]] = ANYTHING if slabs[v.operand] in self.spreads else spans.spreads[i]
            elif spans.depends[i] & columns:
                return False
        self.cuts.append(frozenset(columns))
        return True

    # -- products -----------------------------------------------------------------------------------

    def product(self, step: Product) -> bool:
        inside = [v.slab in self.wide for v in (step.a, step.b, step.out)]
        if not any(inside):
            self.cuts.append(None)
            return True
        if sum(inside) > 1 or step.axes != (1, 1, 1) or self.slabs[step.out.slab].dtype.name not in ("float32", "float64"):
            return False
        cut = self.cut(step)
        others = [self.outer.copied.get(v.slab, v.slab) for v, is_wide in zip((step.a, step.b), inside, strict=False) if not is_wide]
        if cut is None or not all(self.is_outside(s) for s in others):
            return False
        if cut.out is not None and not inside[2]:
            out = self.slabs[step.out.slab]
            if step.adds == 0 or self.outer.written.get(out.id, 1) != 1 or dims.product(self.rows.lead) * dims.product(step.out.shape) != out.elements:
                return False
            self.filled[out.id] = step.origin
        self.small.update(dict.fromkeys(others, step.origin))
        self.cuts.append(cut)
        return True

    def cut(self, step: Product) -> _Cut | None:
        a, b, out = step.a, step.b, step.out
        across, down = ((self.block.count, self.width), (self.width, 1)), ((self.width, self.block.count), (1, self.width))
        if out.slab in self.wide:
            sums = step.a.shape[-1] if isinstance(step.a.shape[-1], int) else MANY
            size = LARGEST * LARGEST * max(sums, 1)
            known = out.slab in self.spreads or step.adds != 0 or (out.shape, out.strides) != across
            self.spreads[out.slab] = always_in(Span(-size, size))
            return None if known else _Cut(None, 1, 1)
        wide = a if a.slab in self.wide else b
        found = self.spreads.get(wide.slab, ANYTHING)
        self.after, self.before = self.after and found.after == NOTHING, self.before and found.before == NOTHING
        if wide is a:
            form = (a.shape, a.strides)
            return _Cut(1, 0, None) if form == across else _Cut(0, None, 0) if form == down else None
        return _Cut(None, 1, 1) if (b.shape, b.strides) == across else None

    def is_outside(self, s: int, least: float = -1.0) -> bool:
        """Is it there before the sweep, as a whole?  Of constants, are they bounded (``least``: from above)?"""
        slab = self.slabs[s]
        if s in self.held or s in self.inside or slab.pairs:
            return False
        if slab.place == "constant":
            return bool(np.all((slab.data <= LARGEST) & (slab.data * least <= LARGEST)))
        return slab.place == "argument" or self.outer.written.get(s, 1) == 1

    # -- without the hidden columns -----------------------------------------------------------------

    def narrowed(self) -> Narrowed:
        checks = [self.outer.check(s, origin, both) for found, both in ((self.small, True), (self.low, False)) for s, origin in found.items() if self.slabs[s].place != "constant"]
        before = [*(check for check in checks if check is not None), *(self.outer.zeros(s, origin) for s, origin in self.filled.items())]
        end, begin = self.width, 0  # type: tuple[Size, Size]
        if self.after and self.reach is not None:
            end = dims.dim_min(self.width, self.block.start + self.block.count + self.reach)
        if self.before and self.back is not None:
            begin = dims.dim_max(self.block.start - self.back, 0)
        begin, end = begin * self.reached, self.width - (self.width - end) * self.reached
        if begin == 0 and not self.floors:
            return Narrowed(self.steps(Columns(0, end)), before)
        first, many = (dims.fresh("block", name) for name in ("column", "columns"))
        assert first.symbol is not None and many.symbol is not None
        seen, columns = Seen(first.symbol, many.symbol, begin, end, self.width), Columns(first, many)
        if not self.floors:
            return Narrowed(self.steps(columns), before, frozenset(), seen)
        (n, (row, floors)), = self.floors.items()
        step = self.all[n]
        assert isinstance(step, Launch)
        low, few = (self.outer.program.slab(np.dtype(np.bool_), shape, "block", name) for shape, name in (((self.block.most,), "low"), ((), "few")))
        self.all[n] = _with_floors(step, floors, row, low, self.block.most)
        steps = self.steps(columns)
        steps.insert(n + 1, _some(step, low, few, self.block))
        return Narrowed(steps, before, frozenset([low, few]), seen._replace(step=n + 1, slab=few))

    def steps(self, columns: Columns) -> list[Part]:
        return [step if cut is None else _launch(step, cut, columns) if isinstance(step, Launch) else _product(step, cut, columns, self.filled)
                for step, cut in zip(self.all, self.cuts, strict=True)]


class _Loads(Known):
    """What a kernel of the sweep reads."""

    def __init__(self, sweep: _Sweep, slabs: Sequence[int], columns: frozenset[int], origin: Origin) -> None:
        self.sweep, self.slabs, self.all, self.columns, self.origin = sweep, slabs, sweep.slabs, columns, origin

    def line(self, v: Instr) -> Line | None:
        first = self.sweep.outer.lines.get(self.slabs[v.operand])
        if first is None or v.index is None or v.index.gathers or len(v.index.terms) != 1 or v.index.terms[0][1] != 1:
            return None
        return Line(v.index.terms[0][0], v.index.offset + first)

    def number(self, v: Instr) -> float | None:
        slab, index = self.all[self.slabs[v.operand]], v.index
        if slab.place != "constant" or index is None or index.terms or index.gathers or not isinstance(index.offset, int):
            return None
        number = slab.data.flat[index.offset]
        return float(number) if slab.data.dtype.kind == "f" or (slab.data.dtype.kind == "i" and abs(int(number)) < 2**53) else None

    def mask(self, v: Instr) -> Mask | None:
        sweep, slab, index = self.sweep, self.all[self.slabs[v.operand]], v.index
        if slab.place != "constant" or index is None or index.gathers or len(index.terms) != 2 or {t for _, t in index.terms} != {sweep.width, 1}:
            return None
        if index.offset != sweep.block.start * sweep.width or slab.elements != sweep.rows.rows * sweep.width:
            return None
        return sweep.outer.mask(slab, sweep.width)

    def spread(self, v: Instr) -> Spread:
        slab, index = self.all[self.slabs[v.operand]], v.index
        line = index is not None and not index.gathers and bool(index.terms) and {r for r, _ in index.terms} <= self.columns
        if line and slab.dtype.name in ("float32", "float64") and self.sweep.is_outside(slab.id, 1.0):  # what is added to scores, for each key
            self.sweep.low[slab.id] = self.origin
            return always_in(Span(-math.inf, LARGEST))
        return self.sweep.spreads.get(slab.id, ANYTHING)


def _launch(step: Launch, along: Any, columns: Columns) -> Launch:
    """With ranges over some columns only."""
    kernel: Kernel = step.kernel
    ranges = tuple([r._replace(extent=columns.many) if i in along else r for i, r in enumerate(kernel.ranges)])
    if columns.first == 0:
        return step._replace(kernel=replace(kernel, ranges=ranges))
    values: list[Instr] = []
    renamed: dict[int, int] = {}
    inserted: dict[int, list[int]] = {}
    for i, v in enumerate(kernel.values):
        begin, index = len(values), v.index
        new = v._replace(args=tuple([renamed[a] for a in v.args]))
        if index is not None:
            offset = index.offset
            for r, stride in index.terms:
                if r in along:
                    offset = offset + columns.first * stride
            new = new._replace(index=Index(offset, index.terms, tuple([(renamed[a], stride) for a, stride in index.gathers])))
        values.append(new)
        if v.op == "range" and v.over[0] in along:
            values += [Instr("size", v.dtype, data=columns.first), Instr("apply", v.dtype, (begin, begin + 1), word="add")]
        renamed[i], inserted[i] = len(values) - 1, list(range(begin, len(values)))
    stages = tuple([Stage(s.loops, tuple([j for i in s.body for j in inserted[i]])) for s in kernel.stages])
    return step._replace(kernel=replace(kernel, ranges=ranges, values=tuple(values), stages=stages))


def _with_floors(step: Launch, floors: Mapping[int, float], row: int, low: int, most: Size) -> Launch:
    """The kernel that also says for which rows a value is less than it must be."""
    kernel, bool_ = step.kernel, np.dtype(np.bool_)
    values, body = list(kernel.values), list[int]()

    def put(v: Instr) -> int:
        values.append(v)
        body.append(len(values) - 1)
        return body[-1]

    enough = -1
    for i, floor in floors.items():
        dtype = kernel.values[i].dtype
        one = put(Instr("apply", bool_, (i, put(Instr("literal", dtype, data=dtype.type(floor)))), word="greater_equal"))
        enough = one if enough < 0 else put(Instr("apply", bool_, (enough, one), word="logical_and"))
    put(Instr("store", bool_, (put(Instr("apply", bool_, (enough,), word="logical_not")),), len(kernel.operands), Index(0, ((row, 1),))))
    operand = Operand(f"y{len(kernel.operands)}", bool_, "out", most)
    made = replace(kernel, values=tuple(values), operands=(*kernel.operands, operand), stages=(*kernel.stages, Stage((), tuple(body))))
    return step._replace(kernel=made, slabs=(*step.slabs, low))


def _some(step: Launch, low: int, few: int, block: Block) -> Launch:
    """A kernel that says whether any of the block's rows is so."""
    bool_ = np.dtype(np.bool_)
    values = (Instr("load", bool_, (), 0, Index(0, ((1, 1),))), Instr("reduce", bool_, (0,), over=(1,), word="any"), Instr("store", bool_, (1,), 1, Index(0, ())))
    operands = (Operand("x0", bool_, "in", block.most), Operand("y1", bool_, "out", 1))
    kernel = Kernel("few", (Range("i", 1), Range("j", block.count)), (0,), operands, values, (Stage((1,), (0, 1)), Stage((), (2,))), (), 1)
    return Launch(kernel, (low, few), step.origin)


def _product(step: Product, cut: Any, columns: Columns, filled: Mapping[int, Any]) -> Product:
    def part(v: View, axis: int | None) -> View:
        if axis is None:
            return v
        return v._replace(shape=tuple([columns.many if k == axis else n for k, n in enumerate(v.shape)]), offset=v.offset + columns.first * v.strides[axis])

    adds: Size = 1 if step.out.slab in filled else step.adds
    return step._replace(a=part(step.a, cut.a), b=part(step.b, cut.b), out=part(step.out, cut.out), adds=adds)


def lines_of(program: Program) -> Lines:
    """Slabs whose elements are n, n + 1, ...: constants, and what a kernel counts."""
    found: dict[int, Size] = {}
    for slab in program.slabs:
        if slab.place == "constant" and slab.data.dtype.kind == "i" and slab.data.size and (first := _counts(slab)) is not None:
            found[slab.id] = first
    for step in program.steps:
        if isinstance(step, Launch) and len(step.writes) == 1 and not step.kernel.finish and all(v.op in COUNTING for v in step.kernel.values):
            slab, store = program.slabs[step.writes[0]], step.kernel.values[-1]
            line = Spans(step.kernel).lines.get(store.args[0]) if store.args else None
            if line is not None and store.index == Index(0, ((line.range, 1),)) and step.kernel.ranges[line.range].extent == slab.elements:
                found[slab.id] = line.more
    return found


def _counts(slab: Slab) -> int | None:
    flat = slab.data.reshape(-1)
    first = int(flat[0])
    if slab.dtype.itemsize < 4 or int(flat[-1]) - first != flat.size - 1:
        return None
    return first if np.array_equal(flat, first + np.arange(flat.size, dtype=flat.dtype)) else None
