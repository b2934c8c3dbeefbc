"""``spans``: between which numbers the values of a kernel lie, for the columns that a row sees and for those that it does not.

A kernel of a sweep (passes/sweeps.py) compares the number of a column with that of a row: ``column <= row + reach`` says what the row *sees*,
as the causal mask of attention does.  ``Spans`` computes with intervals: every value is two of them, for columns that are seen and for the
others.  None is a value that may be anything.  What lies in an interval is a number of it, never NaN; ends may be infinite.

All that is used of a row: it sees at least one column.  So the largest value of a row is at least the least one that a seen column can have, and
``exp(x - max(x))`` is 1 somewhere: its sum is no zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from graphc.dims import Size
from graphc.kernel import Instr, Kernel, value_ranges

__all__ = ["ANYTHING", "NOTHING", "Known", "Line", "Mask", "Pair", "Span", "Spans"]


class Span(NamedTuple):
    low: float
    high: float


class Pair(NamedTuple):
    """A value's spans for seen columns and for the others; ``top``: a number that it is at least, in one of a row's seen columns."""

    seen: Span | None
    hidden: Span | None
    top: float | None = None


class Mask(NamedTuple):
    """``seen`` where column <= row + ``reach``, else ``hidden``."""

    reach: int
    seen: float
    hidden: float


class Line(NamedTuple):
    """An integer that is a loop variable, and so much more."""

    range: int
    more: Size


ANYTHING, NOTHING = Pair(None, None), Span(0.0, 0.0)
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

    def pair(self, v: Instr) -> Pair:
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

    ``reach`` is the largest column minus row that is seen, None where nothing is compared.  ``sound`` is False where reductions along the columns would not be the
    same without the hidden ones, or where comparisons differ.
    """

    def __init__(self, kernel: Kernel, row: int = -1, columns: frozenset[int] = frozenset(), start: Size = 0, width: Size = 0, known: Known | None = None) -> None:
        self.kernel, self.row, self.columns, self.start, self.known = kernel, row, columns, start, known or Known()
        self.many = float(width) if isinstance(width, int) else MANY
        self.depends = value_ranges(kernel)
        self.lines: dict[int, Line] = {}
        self.pairs: list[Pair] = []
        self.temps: dict[int, tuple[Instr, int]] = {}
        self.source: dict[int, int] = {}  # loads of scratch memory, and which value they are
        self.largest: dict[int, int] = {}  # values that are the largest of a row's, of which
        self.reach: int | None = None
        self.sound = True
        for i, v in enumerate(kernel.values):
            self.pairs.append(self.pair(i, v))

    def pair(self, i: int, v: Instr) -> Pair:
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

    def load(self, i: int, v: Instr) -> Pair:
        if self.kernel.operands[v.operand].mode == "temp":
            store, value = self.temps.get(v.operand, (v, -1))
            if value < 0 or store.index != v.index:
                return ANYTHING
            self.source[i] = value
            return self.pairs[value]
        line = self.known.line(v)
        if line is not None:
            self.lines[i] = line
            return ANYTHING
        mask = self.known.mask(v)
        if mask is not None:
            self.reaches(mask.reach)
            return Pair(Span(mask.seen, mask.seen), Span(mask.hidden, mask.hidden))
        if v.dtype == np.bool_:
            return _both(EITHER)
        number = self.known.number(v)
        return _always(number) if number is not None else self.known.pair(v)

    def store(self, v: Instr) -> Pair:
        found = self.pairs[v.args[0]]
        if self.kernel.operands[v.operand].mode == "temp":
            self.temps[v.operand] = (v, v.args[0] if v.operand not in self.temps else -1)
        return found

    def cast(self, i: int, v: Instr) -> Pair:
        before, x = self.kernel.values[v.args[0]].dtype, v.args[0]
        if x in self.lines and _is_whole(v.dtype):
            self.lines[i] = self.lines[x]
        if _is_whole(v.dtype) and before == np.bool_:
            return self.pairs[x]
        if not _is_plain(v.dtype) or not (_is_plain(before) or _is_whole(before) or before == np.bool_):
            return ANYTHING
        return _pairwise(lambda span: _rounded(span, v.dtype), self.pairs[x])._replace(top=self.pairs[x].top)

    def reduce(self, i: int, v: Instr) -> Pair:
        """Along the columns: the same without those that are hidden?"""
        along = [r for r in v.over if r in self.columns]
        if not along:
            return ANYTHING
        x = self.pairs[v.args[0]]
        if x.seen is None or x.hidden is None or len(v.over) > 1 or not (_is_plain(v.dtype) or _is_whole(v.dtype)):
            self.sound = False
            return ANYTHING
        if v.word == "max" and x.hidden.high <= x.seen.low:
            self.largest[i] = self.source.get(v.args[0], v.args[0])
            return _both(Span(x.seen.low if x.top is None else max(x.seen.low, x.top), x.seen.high))
        if v.word == "sum" and x.hidden == NOTHING:
            low, high = min(0.0, x.seen.low * self.many), max(0.0, x.seen.high * self.many)
            if x.seen.low >= 0 and x.top is not None:
                low = max(low, x.top)
            return _both(_rounded(Span(low, high), v.dtype)) if _is_plain(v.dtype) or max(-low, high) < 2**31 else ANYTHING
        self.sound = False
        return ANYTHING

    # -- ops --------------------------------------------------------------------------------------

    def apply(self, i: int, v: Instr) -> Pair:
        word, args = v.word, [self.pairs[a] for a in v.args]
        if word in ("less", "less_equal", "greater", "greater_equal"):
            return self.compared(word, *v.args)
        if word in ("equal", "not_equal"):
            return _pairwise(lambda a, b: _same(word, a, b), *args)
        if word in _LOGIC:
            return _each(_LOGIC[word], *args)
        if word in ("add", "sub") and v.dtype.kind == "i":
            self.moved(i, v)
            return ANYTHING
        if word == "where":
            return _pairwise(_chosen, *args)
        if not _is_plain(v.dtype):
            return ANYTHING
        found = self.floating(i, v, args)
        return Pair(_rounded(found.seen, v.dtype), _rounded(found.hidden, v.dtype), found.top)

    def floating(self, i: int, v: Instr, args: list[Pair]) -> Pair:
        word = v.word
        if word == "sub" and self.largest.get(v.args[1]) == self.source.get(v.args[0], v.args[0]):
            (seen, hidden, _), (largest, _, _) = args
            if seen is None or hidden is None or largest is None or not math.isfinite(seen.low - seen.high):
                return ANYTHING
            return Pair(Span(seen.low - seen.high, 0.0), _sub(hidden, largest), 0.0)
        if word == "clip":
            return self.clipped(i, v.args[0], *args)
        if word == "exp":
            gone, top = VANISHED[v.dtype.itemsize], args[0].top
            found = _each(lambda s: NOTHING if s.high <= gone else Span(0.0, math.exp(s.high) if s.high < 700 else math.inf), args[0])
            return found._replace(top=None if top is None or top < -80 else math.exp(top) * (1 - ROUNDING))
        rule = _RULES.get(word)
        return ANYTHING if rule is None else _each(rule, *args)

    def clipped(self, i: int, which: int, x: Pair, low: Pair, high: Pair) -> Pair:
        least, most = low.seen, high.seen
        if x.seen is None or x.hidden is None or least is None or most is None or low.seen != low.hidden or high.seen != high.hidden:
            return ANYTHING
        if which in self.largest and least.high <= x.seen.low and x.seen.high <= most.low:
            self.largest[i] = self.largest[which]  # clipping changes nothing
        below, above = least.low, most.high
        return _each(lambda s: Span(max(s.low, below), max(min(s.high, above), least.high)), x)

    def compared(self, word: str, a: int, b: int) -> Pair:
        """Which columns are seen, if it is a column that is compared with the row; else what is known of two spans."""
        one, other = self.lines.get(a), self.lines.get(b)
        if one is None or other is None:
            return _pairwise(lambda x, y: _order(word, x, y), self.pairs[a], self.pairs[b])
        if one.range == self.row and other.range in self.columns:
            word = {"less": "greater", "less_equal": "greater_equal", "greater": "less", "greater_equal": "less_equal"}[word]
            one, other = other, one
        if one.range not in self.columns or other.range != self.row:
            return _both(EITHER)
        reach = other.more - self.start - one.more  # column <= row + reach, but for the word
        if not isinstance(reach, int):
            return _both(EITHER)
        if word in ("less", "greater_equal"):  # what is not greater or equal is less
            reach -= 1
        self.reaches(reach)
        return Pair(TRUE, NOTHING) if word in ("less", "less_equal") else Pair(NOTHING, TRUE)

    def reaches(self, reach: int) -> None:
        if self.reach not in (None, reach):
            self.sound = False
        self.reach = reach

    def moved(self, i: int, v: Instr) -> None:
        """A line, and an integer more or less."""
        a, b = v.args
        if v.word == "add" and b in self.lines and a not in self.lines:
            a, b = b, a
        by, known = self.kernel.values[b], self.pairs[b].seen
        if a in self.lines and (by.op == "size" or (known is not None and known.low == known.high and abs(known.low) < 2.0**53)):
            more: Size = by.data if known is None else int(known.low)
            line = self.lines[a]
            self.lines[i] = line._replace(more=line.more + more if v.word == "add" else line.more - more)


def _is_plain(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ("float32", "float64")  # others have fewer numbers than these rules take for granted


def _is_whole(dtype: np.dtype[Any]) -> bool:
    return dtype.name in ("int32", "int64")


def _always(number: float) -> Pair:
    return ANYTHING if math.isnan(number) else _both(Span(number, number))


def _both(span: Span | None) -> Pair:
    return Pair(span, span)


def _pairwise(rule: Callable[..., Span | None], *xs: Pair) -> Pair:
    return Pair(rule(*[x.seen for x in xs]), rule(*[x.hidden for x in xs]))


def _each(rule: Callable[..., Span | None], *xs: Pair) -> Pair:
    """Where nothing is known of an operand, nothing is of the result."""
    return _pairwise(lambda *spans: None if None in spans else rule(*spans), *xs)


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
