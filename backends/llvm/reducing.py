"""Reductions as code: what an accumulator starts as, how it takes a value, how lanes become one.

An accumulator is one Value, or two: for argmax and argmin the best value and its position, for max and min of floats the
best number and whether a NaN was seen (which costs less than to let NaN win every comparison).  ``combine`` joins two
accumulators; its tree over lanes is halves: lane l with lane l + w/2, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.backends.llvm.elements import kind_of
from graphc.backends.llvm.values import Body, Value, select, shuffle
from graphc.dtypes import is_float

__all__ = ["Accumulator", "combine", "contributions", "horizontal", "identity", "kinds", "result"]

DType = np.dtype[Any]
Accumulator = tuple[Value, ...]
LAST = (1 << 63) - 1


def kinds(word: str, dtype: DType) -> tuple[str, ...]:
    """The register kinds of an accumulator for operands of ``dtype``."""
    if word in ("argmax", "argmin"):
        kind = kind_of(dtype)
        return ("i8" if kind == "i1" else kind, "i64")
    return (kind_of(dtype), "i1") if flagged(word, dtype) else (kind_of(dtype),)


def flagged(word: str, dtype: DType) -> bool:
    """Does the accumulator have a flag for NaN?"""
    return word in ("max", "min") and is_float(dtype)


def identity(f: Body, word: str, dtype: DType, lanes: int) -> Accumulator:
    """What changes nothing."""
    kind = kinds(word, dtype)[0]
    if word in ("max", "argmax"):
        low = -float("inf") if is_float(dtype) else 0 if dtype.kind in "bu" else -(1 << (8 * dtype.itemsize - 1))
        first = f.const(low, kind, lanes)
    elif word in ("min", "argmin"):
        high = float("inf") if is_float(dtype) else 1 if dtype.kind == "b" else (1 << (8 * dtype.itemsize - (0 if dtype.kind == "u" else 1))) - 1
        first = f.const(high, kind, lanes)
    elif word == "sum":
        # -0.0 + x is x in every bit, 0.0 + -0.0 is 0.0: NumPy's sum of -0.0 alone is -0.0 too, and that of nothing is 0.0
        first = f.const(-0.0 if is_float(dtype) else 0, kind, lanes)
    elif word == "any":
        first = f.const(False, kind, lanes)
    else:  # prod, all
        first = f.const(1.0 if is_float(dtype) else 1, kind, lanes)
    if flagged(word, dtype):
        return (first, f.const(False, "i1", lanes))
    return (first, f.const(LAST, "i64", lanes)) if word in ("argmax", "argmin") else (first,)


def combine(word: str, dtype: DType, a: Accumulator, b: Accumulator) -> Accumulator:
    """Two accumulators as one; ``b`` holds what comes later."""
    x, y = a[0], b[0]
    if word == "sum":
        return ((x | y) if x.kind == "i1" else x + y,)
    if word == "prod":
        return ((x & y) if x.kind == "i1" else x * y,)
    if word == "all":
        return (x & y,)
    if word == "any":
        return (x | y,)
    if word in ("max", "min"):
        if x.kind == "i1":
            return ((x | y) if word == "max" else (x & y),)
        if flagged(word, dtype):
            return (select(x.gt(y) if word == "max" else x.lt(y), x, y), a[1] | b[1])
        return (select(_better(word, dtype, y, x), y, x),)
    take = _better(word, dtype, y, x)
    same = y.eq(x)
    if y.float:
        same = same | (y.isnan() & x.isnan())
        take = take & ~x.isnan()
    take = take | (same & b[1].lt(a[1]))
    return (select(take, y, x), select(take, b[1], a[1]))


def _better(word: str, dtype: DType, y: Value, x: Value) -> Value:
    """Does y win over x?  A NaN wins over every number."""
    up = word in ("max", "argmax")
    if y.float:
        return (y.gt(x) if up else y.lt(x)) | y.isnan()
    if dtype.kind in "bu":
        return y.ugt(x) if up else y.ult(x)
    return y.gt(x) if up else y.lt(x)


def horizontal(word: str, dtype: DType, a: Accumulator) -> Accumulator:
    """The lanes of an accumulator as one scalar accumulator."""
    lanes = a[0].lanes
    if not lanes:
        return a
    while lanes > 1:
        half = lanes // 2
        low = tuple(shuffle(v, v, range(half)) for v in a)
        high = tuple(shuffle(v, v, range(half, lanes)) for v in a)
        a, lanes = combine(word, dtype, low, high), half
    return tuple(v.lane(0) for v in a)


def contributions(word: str, dtype: DType, xs: Sequence[Value], joined: bool) -> list[Accumulator]:
    """Values as accumulators of one element each.  ``joined``: they will become one: then one comparison looks for NaN in two vectors."""
    if not flagged(word, dtype):
        return [(x,) for x in xs]
    if not joined:
        return [(x, x.isnan()) for x in xs]
    found: list[Accumulator] = []
    for n in range(0, len(xs), 2):
        pair = xs[n:n + 2]
        found.append((pair[0], pair[0].unordered(pair[-1])))
        if len(pair) == 2:
            found.append((pair[1], pair[1].f.const(False, "i1", pair[1].lanes)))
    return found


def result(word: str, dtype: DType, a: Accumulator) -> Value:
    """The value of the reduction."""
    if flagged(word, dtype):
        return select(a[1], a[0].f.const(float("nan"), a[0].kind, a[0].lanes), a[0])
    if word in ("argmax", "argmin"):
        return select(a[1].eq(LAST), a[1].like(0), a[1])  # of nothing: a position that does not lead out of any array
    return a[0]
