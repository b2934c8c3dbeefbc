"""Arrays made larger by repeating their elements or putting others around them: repeat, tile, pad."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.creation import asarray
from graphc.ir import Var
from graphc.ops import joining, movement
from graphc.ops.core import axis_of, constant, constant_value, dim_of, is_door
from graphc.ops.creation import shape_entries
from graphc.ops.indexing import loses_kind
from graphc.ops.indexing import take as take_at

__all__ = ["pad", "repeat", "tile"]


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Var:
    """Each element along an axis ``repeats`` times, next to each other.

    Args:
        x: any shape and dtype.
        repeats: one size (an int, a dim or an integer scalar), or a vector with a count for each position.
        axis: None repeats the elements of the flattened array.

    >>> import graphc as gc
    >>> gc.repeat([1, 2], 3).eval()
    array([1, 1, 1, 2, 2, 2])
    >>> gc.repeat([[1], [2]], [2, 1], axis=0).eval()
    array([[1],
           [1],
           [2]])
    """
    v = asarray(x)
    if axis is None:
        v, axis = movement.reshape(v, (-1,)), 0
    a = axis_of(axis, v.type.ndim, "repeat")
    counts = repeats if isinstance(repeats, Dim) else asarray(repeats)
    if isinstance(counts, Var) and (counts.type.ndim > 1 or not dtypes.is_integer(counts.type.dtype)):
        raise GraphcTypeError(f"repeat: an integer or a vector of integers expected; got {counts.describe()}")
    fixed = constant_value(counts) if isinstance(counts, Var) else None
    if fixed is None:
        return joining.repeat(v, counts if isinstance(counts, Var) and counts.type.ndim else _size(counts, "repeat"), a)
    if np.any(fixed < 0):
        raise GraphcValueError(f"repeat: counts are not negative; got {repeats}")
    if fixed.size == 1:
        return joining.repeat(v, int(fixed.item()), a)
    if fixed.size != v.type.shape[a]:
        return joining.repeat(v, counts, a)
    return take_at(v, constant(np.repeat(np.arange(fixed.size), fixed)), a)


def tile(x: Any, reps: Any) -> Var:
    """``reps[i]`` copies of ``x`` side by side along axis i; counts belong to the last axes, further ones make new axes.

    >>> import graphc as gc
    >>> gc.tile([1, 2], (2, 2)).eval()
    array([[1, 2, 1, 2],
           [1, 2, 1, 2]])
    """
    counts = [_size(c, "tile") for c in shape_entries(reps, "tile")]
    return joining.tile(asarray(x), counts)


def _size(c: Any, what: str) -> Any:
    """One size: an int, a dim, or a variable that is neither."""
    if isinstance(c, Var):
        known = dim_of(c)
        return c if known is None or not is_door(known) else known
    return dims.as_size(c)


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Var:
    """``x`` with more elements around it, as ``numpy.pad``.

    Args:
        x: any shape and dtype.
        pad_width: ints: one for all sides; (before, after) for all axes; or one such pair per axis.
        mode: "constant", "edge" (the last value), "reflect" (mirrored, without the edge), "symmetric" (with it), "wrap".
        constant_values: what "constant" puts there: a scalar, or numbers in the form of ``pad_width``.

    Raises:
        GraphcValueError: negative widths, another mode.

    >>> import graphc as gc
    >>> gc.pad([1, 2, 3], (1, 2)).eval()
    array([0, 1, 2, 3, 0, 0])
    >>> gc.pad([1, 2, 3], 2, mode="reflect").eval()
    array([3, 2, 1, 2, 3, 2, 1])
    """
    v = asarray(x)
    rank = v.type.ndim
    modes = ("constant", "edge", "reflect", "symmetric", "wrap")
    if mode not in modes:
        raise GraphcValueError(f"pad: mode is one of {', '.join(modes)}; got {mode!r}")
    try:
        given = np.asarray(pad_width)
        widths = np.broadcast_to(given, (rank, 2)).tolist()
    except (ValueError, TypeError) as error:
        raise GraphcTypeError(f"pad: widths are ints: one, a pair, or a pair for each of {rank} axes; got {pad_width!r}") from error
    if given.size and given.dtype.kind not in "iu":
        raise GraphcTypeError(f"pad: widths are ints, known when the graph is built; got {pad_width!r}")
    if np.any(given < 0):
        raise GraphcValueError(f"pad: widths are not negative; got {pad_width!r}")
    pairs = [(before, after) for before, after in widths]
    if isinstance(constant_values, Var) or np.ndim(constant_values) == 0:
        return joining.pad(v, pairs, mode, _filler(constant_values, v))
    values = np.broadcast_to(np.asarray(constant_values), (rank, 2)).tolist()
    for axis, (pair, ends) in enumerate(zip(pairs, values, strict=True)):
        for side in (0, 1):
            one = [(0, 0)] * rank
            one[axis] = (pair[0], 0) if side == 0 else (0, pair[1])
            v = joining.pad(v, one, mode, _filler(ends[side], v))
    return v


def _filler(value: Any, v: Var) -> Any:
    """The value to pad with; an error where its kind of number would be lost."""
    if isinstance(value, Var) and value.type.ndim:
        raise GraphcTypeError(f"pad: a scalar expected to pad with; got {value.describe()}")
    if loses_kind(value, v.type.dtype) and (isinstance(value, Var) or value != 0):
        raise GraphcTypeError(f"pad: {value!r} does not go into an array of {v.type.dtype} without loss; cast the array")
    return value
