"""``spans``: between which numbers the values of a kernel lie, for the columns that a row sees and for those that it does not.

A kernel of a sweep (passes/sweeps.py) compares the number of a column with that of a row: ``row - back <= column <= row + reach`` says what the row *sees*,
as the causal mask of attention does (which has no ``back``), or a window.  ``Spans`` computes with intervals: every value is three of them, for columns that are seen,
for those after them and for those before them.  None is a value that may be anything.  What lies in an interval is a number of it, never NaN; ends may be infinite.

All that is used of a row: it sees at least one column.  So the largest value of a row is at least the least one that a seen column can have, and
``exp(x - max(x))`` is 1 somewhere: its sum is no zero.

With a second mask a row may see columns none of which counts.  What its largest value must be at least, so that the others are 0 beside it, is noted then (``floors``): that is
looked at for every block (passes/triangles.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphc.dims import Size
from graphc.kernel import Instr, Kernel, value_ranges

__all__ = ["ANYTHING", "NOTHING", "Known", "Line", "Mask", "Span", "Spans", "Spread", "always_in"]


class Span(NamedTuple):
    low: float
    high: float


class Spread(NamedTuple):
    """A value's spans for seen columns, for those after them and for those before; ``top``: a number that it is at least, in one of a row's seen columns."""

    seen: Span | None
    after: Span | None
    before: Span | None
    top: float | None = None


class Mask(NamedTuple):
    """``seen`` where row - ``back`` <= column <= row + ``reach``, else ``hidden``; None: no such end."""

    reach: int | None
    back: int | None
    seen: float
    hidden: float


class Line(NamedTuple):
    """An integer that is a loop variable, and so much more."""

    range: int
    more: Size


class Apart(NamedTuple):
    """An integer that is ``sign`` * (column - row), and so much more; ``either``: without its sign."""

    sign: int
    more: int
    either: bool = False


ANYTHING, NOTHING = Spread(None, None, None), Span(0.0, 0.0)
#: what the largest value of a row must be at least, where it may be -inf
LEAST = -1e30
#: a < b as b > a
TURNED = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}
TRUE, EITHER = Span(1.0, 1.0), Span(0.0, 1.0)
#: by how much of itself a result may be rounded; columns of a row at most
ROUNDING, MANY = 1e-3, 2.0**40
#: exponents below which exp is exactly 0
VANISHED = {4: -200.0, 8: -1000.0}


class Known:
    """What is known of loads: nothing, but for those who do."""

    def line(self, v: Instr) -> Line | None:
        """A line of integers."""

    def number(self, v: Instr) -> float | None:
        """One number, always the same."""

    def mask(self, v: Instr) -> Mask | None:
        """A constant matrix with one number where a column is seen, and another elsewhere."""

    def spread(self, v: Instr) -> Spread:
        """What an array of the sweep holds."""
        return ANYTHING


class Spans:
    """The spans of all values of a kernel.

    Args:
        kernel: as it stands in the sweep.
        row, columns: its range over the block's rows, its ranges over columns.
        start: the number of the block's first row.
        width: how many columns a row has.
        known: what loads are.

    ``reach`` is the largest column minus row that is seen, ``back`` the largest row minus column, None where nothing is compared.  ``sound`` is False where comparisons differ;
    ``after`` and ``before`` are where reductions along the columns would not be the same without those.  ``floors``: for the largest values of rows (by their numbers) what they must be at least.
    """

    def __init__(self, kernel: Kernel, row: int = -1, columns: frozenset[int] = frozenset(), start: Size = 0, width: Size = 0, known: Known | None = None) -> None:
        self.kernel, self.row, self.columns, self.start, self.known = kernel, row, columns, start, known or Known()
        self.many = float(width) if isinstance(width, int) else MANY
        self.depends = value_ranges(kernel)
        self.lines: dict[int, Line] = {}
        self.spreads: list[Spread] = []
        self.temps: dict[int, tuple[Instr, int]] = {}
        self.source: dict[int, int] = {}  # loads of scratch memory, and which value they are
        self.largest: dict[int, int] = {}  # values that are the largest of a row's, of which
        self.apart: dict[int, Apart] = {}
        self.floors: dict[int, float] = {}
        self.reach: int | None = None
        self.back: int | None = None
        self.sound = self.after = self.before = True
        for i, v in enumerate(kernel.values):
            self.spreads.append(self.spread(i, v))

    def spread(self, i: int, v: Instr) -> Spread:
        if v.op == "literal":
            return _always(float(v.data))
        if v.op == "range":
            self.lines[i] = Line(v.over[0], 0)
        elif v.op == "cast":
            return self.cast(i, v)
        elif v.op == "load":
            return self.load(i, v)
        elif v.op == "store":
            return self.store(v)
        elif v.op == "reduce":
            return self.reduce(i, v)
        elif v.op == "apply":
            return self.apply(i, v)
        return ANYTHING

    def load(self, i: int, v: Instr) -> Spread:
        if self.kernel.operands[v.operand].mode == "temp":
            store, value = self.temps.get(v.operand, (v, -1))
            if value < 0 or store.index != v.index:
                return ANYTHING
            self.source[i] = value
            return self.spreads[value]
        line = self.known.line(v)
        if line is not None:
            self.lines[i] = line
            return ANYTHING
        mask = self.known.mask(v)
        if mask is not None:
            seen, hidden = (Span(x, x) for x in (mask.seen, mask.hidden))
            self.reaches(mask.reach, mask.back)
            return Spread(seen, seen if mask.reach is None else hidden, seen if mask.back is None else hidden)
        if v.dtype == np.bool_:
            return always_in(EITHER)
        number = self.known.number(v)
        return _always(number) if number is not None else self.known.spread(v)

    def store(self, v: Instr) -> Spread:
        found = self.spreads[v.args[0]]
        if self.kernel.operands[v.operand].mode == "temp":
            self.temps[v.operand] = (v, v.args[0] if v.operand not in self.temps else -1)
        return found

    def cast(self, i: int, v: Instr) -> Spread:
        before, x = self.kernel.values[v.args[0]].dtype, v.args[0]
        if _is_whole(v.dtype):
            if x in self.lines:
                self.lines[i] = self.lines[x]
            if x in self.apart:
                self.apart[i] = self.apart[x]
        if _is_whole(v.dtype) and before == np.bool_:
            return self.spreads[x]
        if not _is_plain(v.dtype) or not (_is_plain(before) or _is_whole(before) or before == np.bool_):
            return ANYTHING
        return _everywhere(lambda span: _rounded(span, v.dtype), self.spreads[x])._replace(top=self.spreads[x].top)

    def reduce(self, i: int, v: Instr) -> Spread:
        """Along the columns: the same without those that are hidden?"""
        along = [r for r in v.over if r in self.columns]
        if not along:
            return ANYTHING
        x = self.spreads[v.args[0]]
        if x.seen is None or x.after is None or x.before is None or len(v.over) > 1 or not (_is_plain(v.dtype) or _is_whole(v.dtype)) or v.word not in ("max", "sum"):
            self.after = self.before = False
            return ANYTHING
        if v.word == "max":
            return self.maximum(i, v, x.seen, x.after, x.before, x.top)
        self.after, self.before = self.after and x.after == NOTHING, self.before and x.before == NOTHING
        low, high = min(0.0, *(span.low * self.many for span in x[:3] if span)), max(0.0, *(span.high * self.many for span in x[:3] if span))
        if x.top is not None and min(span.low for span in x[:3] if span) >= 0:
            low = max(low, x.top)
            high = max(high, low)  # no column is seen, then there is no such number either
        return always_in(_rounded(Span(low, high), v.dtype)) if _is_plain(v.dtype) or max(-low, high) < 2**31 else ANYTHING

    def maximum(self, i: int, v: Instr, seen: Span, after: Span, before: Span, top: float | None) -> Spread:
        """The largest value of a row: that of a seen column, if it is more than what the others can have, which is a question for the call where that is much less."""
        low = seen.low if top is None else max(seen.low, top)
        for hidden in (after, before):
            if _is_plain(v.dtype) and hidden.high <= 4 * VANISHED[v.dtype.itemsize]:
                floor = max(hidden.high / 2, LEAST)
                if low < floor and (math.isfinite(hidden.high) or low == -math.inf):
                    low = self.floors[i] = floor
        self.after, self.before = self.after and after.high <= low, self.before and before.high <= low
        self.largest[i] = self.source.get(v.args[0], v.args[0])
        return always_in(Span(low, max(low, seen.high, after.high, before.high)))

    # -- ops --------------------------------------------------------------------------------------

    def apply(self, i: int, v: Instr) -> Spread:
        word, args = v.word, [self.spreads[a] for a in v.args]
        if word in TURNED:
            return self.compared(word, *v.args)
        if word == "abs" and v.args[0] in self.apart and self.apart[v.args[0]].more == 0:
            self.apart[i] = Apart(1, 0, True)
            return ANYTHING
        if word in ("equal", "not_equal"):
            return _everywhere(lambda a, b: _same(word, a, b), *args)
        if word in _LOGIC:
            return _each(_LOGIC[word], *args)
        if word in ("add", "sub") and v.dtype.kind == "i":
            self.moved(i, v)
            return ANYTHING
        if word == "where":
            return _everywhere(_chosen, *args)
        if not _is_plain(v.dtype):
            return ANYTHING
        found = self.floating(i, v, args)
        return _everywhere(lambda span: _rounded(span, v.dtype), found)._replace(top=found.top)

    def floating(self, i: int, v: Instr, args: list[Spread]) -> Spread:
        word = v.word
        if word == "sub" and self.largest.get(v.args[1]) == self.source.get(v.args[0], v.args[0]):
            x, largest = args[0], args[1].seen
            if x.seen is None or x.after is None or x.before is None or largest is None or not (math.isfinite(largest.low) and math.isfinite(largest.high)):
                return ANYTHING
            seen, after, before = (Span(span.low - largest.high, min(0.0, span.high - largest.low)) for span in (x.seen, x.after, x.before))
            return Spread(seen, after, before, 0.0)
        if word == "clip":
            return self.clipped(i, v.args[0], *args)
        if word == "exp":
            gone, top = VANISHED[v.dtype.itemsize], args[0].top
            found = _each(lambda s: NOTHING if s.high <= gone else Span(0.0, math.exp(s.high) if s.high < 700 else math.inf), args[0])
            return found._replace(top=None if top is None or top < -80 else math.exp(top) * (1 - ROUNDING))
        rule = _RULES.get(word)
        return ANYTHING if rule is None else _each(rule, *args)

    def clipped(self, i: int, which: int, x: Spread, low: Spread, high: Spread) -> Spread:
        least, most = low.seen, high.seen
        if x.seen is None or least is None or most is None or len({*low[:3]}) > 1 or len({*high[:3]}) > 1:
            return ANYTHING
        if which in self.largest and least.high <= x.seen.low and x.seen.high <= most.low:
            self.largest[i] = self.largest[which]  # clipping changes nothing
        below, above = least.low, most.high
        return _each(lambda s: Span(max(s.low, below), max(min(s.high, above), least.high)), x)

    def compared(self, word: str, a: int, b: int) -> Spread:
        """Which columns are seen, if it is a column that is compared with the row; else what is known of two spans."""
        one, other = self.distance(a), self.distance(b)
        if isinstance(one, Apart) == isinstance(other, Apart):
            both = self.lines.get(a), self.lines.get(b)
            if both[0] is None or both[1] is None:
                return _everywhere(lambda x, y: _order(word, x, y), self.spreads[a], self.spreads[b])
            one, other = self.difference(both[0], both[1]), 0
        elif isinstance(other, Apart):
            one, other, word = other, one, TURNED[word]
        if not isinstance(one, Apart) or not isinstance(other, int):
            return always_in(EITHER)
        if one.either:
            if word not in ("less", "less_equal") or other < (word == "less"):
                return always_in(EITHER)
            far = other - (word == "less")
            self.reaches(far, None)
            self.reaches(None, far)
            return Spread(TRUE, NOTHING, NOTHING)
        most = other - one.more  # sign * (column - row) is compared with it
        if one.sign < 0:
            word, most = TURNED[word], -most
        if word in ("less", "greater_equal"):  # what is not greater or equal is less
            most -= 1
        less = word in ("less", "less_equal")  # column <= row + most
        if most < 0:  # column > row + most is what the row sees
            self.reaches(None, -most - 1)
            return Spread(NOTHING, NOTHING, TRUE) if less else Spread(TRUE, TRUE, NOTHING)
        self.reaches(most, None)
        return Spread(TRUE, NOTHING, TRUE) if less else Spread(NOTHING, TRUE, NOTHING)

    def distance(self, i: int) -> Apart | int | None:
        """Column - row, or a constant integer."""
        known = self.spreads[i].seen
        if known is not None and known == self.spreads[i].after == self.spreads[i].before and known.low == known.high and abs(known.low) < 2.0**53 and known.low == int(known.low):
            return int(known.low)
        return self.apart.get(i)

    def difference(self, one: Line, other: Line) -> Apart | None:
        """One line minus the other."""
        more = one.more - other.more
        if one.range in self.columns and other.range == self.row:  # the block's first row is its row 0
            more, sign = more + self.start, 1
        elif other.range in self.columns and one.range == self.row:
            more, sign = more - self.start, -1
        else:
            return None
        return Apart(sign, more) if isinstance(more, int) else None

    def reaches(self, reach: int | None, back: int | None) -> None:
        if (reach is not None and self.reach not in (None, reach)) or (back is not None and self.back not in (None, back)):
            self.sound = False
        self.reach, self.back = self.reach if reach is None else reach, self.back if back is None else back

    def moved(self, i: int, v: Instr) -> None:
        """A line or a distance, and an integer more or less; two lines, one less the other."""
        a, b = v.args
        if v.word == "sub" and a in self.lines and b in self.lines:
            apart = self.difference(self.lines[a], self.lines[b])
            if apart is not None:
                self.apart[i] = apart
            return
        if v.word == "add" and not (a in self.lines or a in self.apart):
            a, b = b, a
        by, known = self.kernel.values[b], self.distance(b)
        number = known if isinstance(known, int) else None
        way = 1 if v.word == "add" else -1
        if a in self.apart and number is not None and not self.apart[a].either:
            self.apart[i] = self.apart[a]._replace(more=self.apart[a].more + way * number)
        elif a in self.lines and (by.op == "size" or number is not None):
            more: Size = by.data if number is None else number
            self.lines[i] = self.lines[a]._replace(more=self.lines[a].more + more * way)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ("float32", "float64")  # others have fewer numbers than these rules take for granted


def _is_whole(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ("int32", "int64")


def _always(number: float) -> Spread:
    return ANYTHING if math.isnan(number) else always_in(Span(number, number))


def always_in(span: Span | None) -> Spread:
    return Spread(span, span, span)


def _everywhere(rule: Callable[..., Span | None], *xs: Spread) -> Spread:
    seen, after, before = (rule(*spans) for spans in zip(*[x[:3] for x in xs], strict=True))
    return Spread(seen, after, before)


def _each(rule: Callable[..., Span | None], *xs: Spread) -> Spread:
    """Where nothing is known of an operand, nothing is of the result."""
    return _everywhere(lambda *spans: None if None in spans else rule(*spans), *xs)


def _rounded(span: Span | None, dtype: np.dtype[Any]) -> Span | None:
    """With room for rounding; what may be larger than the dtype's numbers may be infinite, and what may be smaller 0 or a little larger."""
    if span is None:
        return None
    most = 1e300 if dtype.itemsize == 8 else 1e37

    def end(x: float, way: float) -> float:
        x = x if math.isinf(x) else x + way * abs(x) * ROUNDING
        if 0 < abs(x) < 1 / most:  # rounding may be more than a part of it
            return max(way, 0.0) / most if x > 0 else min(way, 0.0) / most
        return math.inf * way if x * way > most else x
    return Span(end(span.low, -1.0), end(span.high, 1.0))


def _chosen(c: Span | None, a: Span | None, b: Span | None) -> Span | None:
    if c == TRUE:
        return a
    if c == NOTHING:
        return b
    return None if a is None or b is None else Span(min(a.low, b.low), max(a.high, b.high))


def _order(word: str, a: Span | None, b: Span | None) -> Span:
    """Whether one number is less than, ... the other."""
    if word.startswith("greater"):
        a, b = b, a
    if a is None or b is None:
        return EITHER
    equal = word.endswith("equal")
    if a.high < b.low or (equal and a.high == b.low):
        return TRUE
    return NOTHING if a.low > b.high or (not equal and a.low == b.high) else EITHER


def _same(word: str, a: Span | None, b: Span | None) -> Span:
    """Whether two numbers are equal, or not."""
    if a is None or b is None or (a.low <= b.high and b.low <= a.high):
        return EITHER
    return TRUE if word == "not_equal" else NOTHING


def _add(a: Span, b: Span) -> Span | None:
    if math.inf in (a.high, b.high) and -math.inf in (a.low, b.low):
        return None  # perhaps inf - inf
    return Span(a.low + b.low, a.high + b.high)


def _sub(a: Span, b: Span) -> Span | None:
    return _add(a, Span(-b.high, -b.low))


def _mul(a: Span, b: Span) -> Span | None:
    for one, other in ((a, b), (b, a)):
        if one.low <= 0 <= one.high and not (math.isfinite(other.low) and math.isfinite(other.high)):
            return None  # perhaps 0 * inf
    found = [x * y for x in a for y in b]
    return Span(min(found), max(found))


def _div(a: Span, b: Span) -> Span | None:
    if b.low <= 0 or (math.isinf(b.high) and not (math.isfinite(a.low) and math.isfinite(a.high))):
        return None
    found = [x / y for x in a for y in b]
    return Span(min(found), max(found))


_LOGIC: Mapping[str, Callable[..., Span]] = {
    "logical_not": lambda a: Span(1.0 - a.high, 1.0 - a.low),
    "logical_and": lambda a, b: Span(min(a.low, b.low), min(a.high, b.high)),
    "logical_or": lambda a, b: Span(max(a.low, b.low), max(a.high, b.high)),
}
_RULES: Mapping[str, Callable[..., Span | None]] = {
    "add": _add, "sub": _sub, "mul": _mul, "div": _div,
    "neg": lambda a: Span(-a.high, -a.low), "pos": lambda a: a,
    "abs": lambda a: Span(0.0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high)), max(abs(a.low), abs(a.high))),
    "maximum": lambda a, b: Span(max(a.low, b.low), max(a.high, b.high)),
    "minimum": lambda a, b: Span(min(a.low, b.low), min(a.high, b.high)),
    "tanh": lambda a: Span(-1.0, 1.0), "sigmoid": lambda a: Span(0.0, 1.0),
    "sqr": lambda a: Span(0.0, max(a.low * a.low, a.high * a.high)),
}
