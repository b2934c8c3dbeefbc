"""What an index expression means: its entries, their normal form, the shape that they select.

An indexing op holds ``attrs["index"]``: one entry per axis of its operand, and one more
for each new axis:

    (start, stop, step)     a slice; start and stop: None | int | Dim | "?"; step: int | "?"
    int | Dim | "?"         one position; the axis goes
    "new"                   a new axis of size 1
    "[]"                    an array of positions (advanced indexing)

A "?" or "[]" stands for the next of the op's index operands, from left to right: an int64
scalar or an int64 array.  Negative numbers count from the end, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.ir import Array, Type
from graphc.ops.broadcasting import broadcast_shapes

__all__ = [
    "ARRAY", "NEW", "SCALAR", "WHOLE", "Index", "check_position", "constant_in_range", "index_key", "is_advanced", "operand_count",
    "region", "slice_entry", "slice_size",
]

Entry: TypeAlias = Any
Index: TypeAlias = tuple[Entry, ...]

SCALAR, NEW, ARRAY = "?", "new", "[]"
WHOLE: Entry = (None, None, 1)


def is_advanced(index: Index) -> bool:
    return ARRAY in index


def operand_count(index: Index) -> int:
    """How many index operands the op has."""
    return sum(sum(b == SCALAR for b in e) if isinstance(e, tuple) else e in (SCALAR, ARRAY) for e in index)


def index_key(index: Sequence[Any], operands: Sequence[Array]) -> tuple[Any, ...]:
    """The key to index an array with, in numbers (for ``forward``)."""
    rest = iter(operands)
    key: list[Any] = []
    for entry in index:
        if isinstance(entry, tuple):
            key.append(slice(*(int(next(rest)) if b == SCALAR else b for b in entry)))
        elif entry == SCALAR:
            key.append(int(next(rest)))
        elif entry == ARRAY:
            key.append(next(rest))
        else:
            key.append(None if entry == NEW else entry)
    return (*key, ...)  # the ellipsis makes the result an array, never a NumPy scalar


def region(x: Type, operands: Sequence[Type], index: Index) -> tuple[Size, ...]:
    """The shape of ``x[index]``, or an error for a position that is out of range whatever the call."""
    axes = sum(e != NEW for e in index)
    if axes != x.ndim:
        raise GraphcIndexError(f"{axes} indices for a value of rank {x.ndim}")
    if operand_count(index) != len(operands):
        raise GraphcTypeError(f"{len(operands)} index operands; the index {index} takes {operand_count(index)}")
    if any(not dtypes.is_integer(t.dtype) for t in operands):
        raise GraphcTypeError(f"index operands are integers; got {', '.join(map(str, operands))}")
    advanced = is_advanced(index)
    result: list[Size] = []
    arrays: list[tuple[Size, ...]] = []
    met: list[int] = []  # places in the index of what broadcasts together
    place = 0  # where the broadcast axes go if those places are adjacent
    rest, sizes = iter(operands), iter(x.shape)
    for i, entry in enumerate(index):
        if entry == NEW:
            result.append(1)
            continue
        n = next(sizes)
        if isinstance(entry, tuple):
            for bound in entry:
                if bound == SCALAR:
                    next(rest)
            result.append(slice_size(n, *entry))
            continue
        if isinstance(entry, int):
            check_position(entry, n, i)
        if not advanced:
            continue
        if not met:
            place = len(result)
        met.append(i)
        if entry == ARRAY:
            arrays.append(next(rest).shape)
        elif entry == SCALAR:
            next(rest)
    if not advanced:
        return tuple(result)
    try:
        shape = broadcast_shapes(*arrays)
    except GraphcValueError as error:
        raise GraphcIndexError(f"the index arrays do not broadcast: {error.message}") from None
    if met != list(range(met[0], met[0] + len(met))):
        place = 0  # NumPy: indices that a slice separates put their axes first
    return (*result[:place], *shape, *result[place:])


def check_position(position: int, n: Size, axis: int) -> None:
    if isinstance(n, int) and not -n <= position < n:
        raise GraphcIndexError(f"index {position} is out of range for axis {axis}, whose size is {n}")


def slice_entry(n: Size, start: Any, stop: Any, step: Any) -> Entry:
    """A slice of an axis of size ``n`` in normal form: what means the same is written the same where that is easy."""
    step = 1 if step is None else step
    if isinstance(step, int) and step == 0:
        raise GraphcValueError("the step of a slice is not 0")
    if isinstance(n, int) and all(b is None or isinstance(b, int) for b in (start, stop, step)):
        first, last, step = slice(start, stop, step).indices(n)
        count = len(range(first, last, step))
        if count == 0:
            return (0, 0, 1)
        if count == n and step == 1:
            return WHOLE
        return (first, None if last < 0 else last, step)
    if isinstance(step, int) and step > 0:
        start = None if start == 0 else start
        stop = None if stop == n else stop
    return (start, stop, step)


def slice_size(n: Size, start: Any, stop: Any, step: Any) -> Size:
    """How many elements a slice of an axis of size ``n`` selects; a size of its own where no formula says it."""
    if SCALAR in (start, stop, step) or not isinstance(step, int):
        return dims.fresh("data")
    if isinstance(n, int) and not isinstance(start, Dim) and not isinstance(stop, Dim):
        return len(range(*slice(start, stop, step).indices(n)))
    # The places that the slice runs over are those of a forward slice low:high with clipped ends
    if step > 0:
        low = (0, 0) if start is None else _position(n, start, 0)
        high = (1, 0) if stop is None else _position(n, stop, 0)
    else:
        low = (0, 0) if stop is None else _position(n, stop, 1)
        high = (1, 0) if start is None else _position(n, start, 1)
    count = _forward_size(n, low, high)
    return dims.floordiv(count + (abs(step) - 1), abs(step))


_Place: TypeAlias = tuple[int, Size]  # (0, p): p from the front; (1, k): n - k; both before clipping to 0..n


def _position(n: Size, bound: Size, shift: int) -> _Place:
    """Where a bound lies, plus ``shift`` (1 where the end of a backward slice becomes a forward start)."""
    if isinstance(bound, int):
        return (0, bound + shift) if bound >= 0 else (1, -bound - shift)
    behind = n - bound
    if isinstance(behind, int) and behind >= 0 and (dims.bounds(n)[0] >= behind or behind + shift <= 2):
        return (1, behind - shift)  # n - 1: for n = 0 it is -1, which counts from the end, where it is clipped to 0 too
    if dims.bounds(bound)[0] >= 0:
        return (0, bound + shift)
    negative = dims.dim_min(dims.dim_max(bound * -1, 0), 1)
    return (0, dims.dim_max(bound + negative * n + shift, 0))


def _forward_size(n: Size, low: _Place, high: _Place) -> Size:
    (low_back, a), (high_back, b) = low, high
    if high_back and not low_back:
        return dims.dim_max(n - dims.dim_max(b, 0) - a, 0)
    if not high_back and not low_back:
        return dims.dim_max(dims.dim_min(b, n) - a, 0)
    if high_back:
        b = dims.dim_max(b, 0)
        return dims.dim_max(dims.dim_min(n, a) - dims.dim_min(n, b), 0)
    start = dims.dim_max(n - a, 0)
    return dims.dim_max(dims.dim_min(b, n) - start, 0)


def constant_in_range(value: Array, n: Size, axis: int) -> None:
    """GraphcIndexError if a constant array of positions leaves an axis of known size."""
    if isinstance(n, int) and value.size:
        for position in (int(np.min(value)), int(np.max(value))):
            check_position(position, n, axis)
