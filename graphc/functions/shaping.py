"""The shape of arrays: reshape, axes, broadcasting, joining, splitting, repeating, padding.

Sizes may be ints, dims (``gc.dim``), or integer scalar variables such as ``x.shape[0]``.
All of these give new variables; elements keep their dtype unless arrays of several are joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.creation import asarray
from graphc.functions.repeating import pad, repeat, tile
from graphc.ir import Var
from graphc.ops import broadcasting, joining, movement
from graphc.ops.arithmetic import add, floordiv, mod, mul, sub
from graphc.ops.choosing import minimum
from graphc.ops.core import as_var, axes_of, axis_of, constant, constant_value, is_door, shape_of, size_of
from graphc.ops.creation import iota, shape_entries
from graphc.ops.indexing import index
from graphc.ops.indexing import take as take_at

__all__ = [
    "array_split", "broadcast_arrays", "broadcast_to", "concat", "concatenate", "diagonal", "dimshuffle", "expand_dims", "flatten",
    "flip", "hstack", "join", "matrix_transpose", "moveaxis", "ndim", "pad", "permute_dims", "ravel", "repeat", "reshape", "roll",
    "shape", "size", "split", "squeeze", "stack", "swapaxes", "tile", "transpose", "unstack", "vstack",
]


# ---- sizes ------------------------------------------------------------------------------------


def shape(x: Any) -> tuple[Any, ...]:
    """The sizes of ``x``: ints where known, int64 scalar variables where not.

    >>> import graphc as gc
    >>> gc.shape([[1, 2, 3]])
    (1, 3)
    """
    v = asarray(x)
    return tuple(size_of(v, axis) for axis in range(v.type.ndim))


def ndim(x: Any) -> int:
    """The number of axes.

    >>> import graphc as gc
    >>> gc.ndim([[1, 2, 3]])
    2
    """
    return asarray(x).type.ndim


def size(x: Any, axis: int | None = None) -> Any:
    """The number of elements, or the size of one axis: an int where known, else an int64 scalar variable.

    >>> import graphc as gc
    >>> gc.size([[1, 2, 3]])
    3
    """
    sizes = shape(x)
    if axis is not None:
        return sizes[axis_of(axis, len(sizes), "size")]
    total: Any = 1
    for s in sizes:
        total = joining.times(total, s)
    return total


# ---- shape and axes ---------------------------------------------------------------------------


def reshape(x: Any, shape: Any) -> Var:
    """The same elements, in C order, under another shape.

    Args:
        x: any shape and dtype.
        shape: sizes; one of them may be -1, "what is left".

    Raises:
        GraphcValueError: the number of elements differs; where sizes are unknown, the call checks it.

    >>> import graphc as gc
    >>> gc.reshape([1, 2, 3, 4, 5, 6], (2, -1)).eval()
    array([[1, 2, 3],
           [4, 5, 6]])
    """
    return movement.reshape(asarray(x), shape_entries(shape, "reshape"))


def flatten(x: Any, ndim: int = 1) -> Var:
    """``x`` with its last axes joined into one, so that ``ndim`` axes are left.

    >>> import graphc as gc
    >>> gc.flatten([[1, 2], [3, 4]]).eval()
    array([1, 2, 3, 4])
    """
    v = asarray(x)
    if not 1 <= ndim <= max(v.type.ndim, 1):
        raise GraphcValueError(f"flatten: ndim is between 1 and the rank {v.type.ndim}; got {ndim}")
    return movement.reshape(v, (*shape_of(v)[:ndim - 1], -1))


def ravel(x: Any) -> Var:
    """``x`` as a vector, in C order.

    >>> import graphc as gc
    >>> gc.ravel([[1, 2], [3, 4]]).eval()
    array([1, 2, 3, 4])
    """
    return flatten(x)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Var:
    """Axis i of the result is axis ``axes[i]`` of ``x``; by default the axes in reverse order.

    >>> import graphc as gc
    >>> gc.transpose([[1, 2, 3]]).eval()
    array([[1],
           [2],
           [3]])
    """
    return movement.transpose(asarray(x), axes)


def permute_dims(x: Any, axes: Sequence[int]) -> Var:
    """The Array API's name for ``transpose`` with axes.

    >>> import graphc as gc
    >>> gc.permute_dims(gc.zeros((2, 3, 4)), (2, 0, 1)).eval().shape
    (4, 2, 3)
    """
    return movement.transpose(asarray(x), axes)


def matrix_transpose(x: Any) -> Var:
    """The last two axes swapped.

    >>> import graphc as gc
    >>> gc.matrix_transpose(gc.zeros((2, 3, 4))).eval().shape
    (2, 4, 3)
    """
    v = asarray(x)
    if v.type.ndim < 2:
        raise GraphcValueError(f"matrix_transpose: rank at least 2 expected; got {v.describe()}")
    return swapaxes(v, -1, -2)


def swapaxes(x: Any, axis1: int, axis2: int) -> Var:
    """Two axes swapped.

    >>> import graphc as gc
    >>> gc.swapaxes(gc.zeros((2, 3, 4)), 0, 2).eval().shape
    (4, 3, 2)
    """
    v = asarray(x)
    a, b = (axis_of(i, v.type.ndim, "swapaxes") for i in (axis1, axis2))
    order = list(range(v.type.ndim))
    order[a], order[b] = b, a
    return movement.transpose(v, order)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Var:
    """Axes ``source`` moved to the positions ``destination``; the others keep their order.

    >>> import graphc as gc
    >>> gc.moveaxis(gc.zeros((2, 3, 4)), 0, -1).eval().shape
    (3, 4, 2)
    """
    v = asarray(x)
    rank = v.type.ndim
    origin = [axis_of(a, rank, "moveaxis") for a in (source if isinstance(source, (tuple, list)) else (source,))]  # type: ignore[list-item]
    target = [axis_of(a, rank, "moveaxis") for a in (destination if isinstance(destination, (tuple, list)) else (destination,))]  # type: ignore[list-item]
    if len(origin) != len(target) or len(set(origin)) != len(origin) or len(set(target)) != len(target):
        raise GraphcValueError(f"moveaxis: as many sources as destinations expected, none twice; got {source} and {destination}")
    order = [a for a in range(rank) if a not in origin]
    for to, a in sorted(zip(target, origin, strict=True)):
        order.insert(to, a)
    return movement.transpose(v, order)


def dimshuffle(x: Any, *pattern: Any) -> Var:
    """Axes in another order, new ones ('x') among them; an axis that the pattern lacks must have size 1.

    >>> import graphc as gc
    >>> gc.dimshuffle([[1, 2, 3]], 1, 'x', 0).eval().shape
    (3, 1, 1)
    """
    v = asarray(x)
    entries = tuple(pattern[0]) if len(pattern) == 1 and isinstance(pattern[0], (tuple, list)) else pattern
    kept = [axis_of(p, v.type.ndim, "dimshuffle") for p in entries if not isinstance(p, str)]
    if any(isinstance(p, str) and p != "x" for p in entries) or len(set(kept)) != len(kept):
        raise GraphcValueError(f"dimshuffle: a pattern has each axis at most once, and 'x' for new axes; got {entries}")
    dropped = tuple(a for a in range(v.type.ndim) if a not in kept)
    if dropped:
        v = movement.squeeze(v, dropped)
    order = sorted(kept)
    v = movement.transpose(v, [order.index(a) for a in kept])
    return movement.expand_dims(v, tuple(i for i, p in enumerate(entries) if isinstance(p, str)))


def expand_dims(x: Any, axis: int | Sequence[int] = 0) -> Var:
    """New axes of size 1 at these positions of the result.

    >>> import graphc as gc
    >>> gc.expand_dims([1, 2, 3], 1).eval().shape
    (3, 1)
    """
    return movement.expand_dims(asarray(x), axis)


def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Var:
    """Without these axes of size 1; by default without all whose size is known to be 1 when the graph is built.

    Raises:
        GraphcValueError: an axis of another size; where it is unknown, the call checks it.

    >>> import graphc as gc
    >>> gc.squeeze([[[1, 2, 3]]]).eval()
    array([1, 2, 3])
    """
    v = asarray(x)
    if axis is None:
        axis = tuple(a for a, s in enumerate(v.type.shape) if dims.is_one(s))
    return movement.squeeze(v, axis)


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Var:
    """The elements in reverse order along these axes (all by default).

    >>> import graphc as gc
    >>> gc.flip([[1, 2], [3, 4]], axis=1).eval()
    array([[2, 1],
           [4, 3]])
    """
    v = asarray(x)
    return movement.flip(v, axes_of(axis, v.type.ndim, "flip"))


def roll(x: Any, shift: Any, axis: int | Sequence[int] | None = None) -> Var:
    """Element i moves to position i + shift, those that leave at the end come back at the beginning.

    Args:
        x: any shape and dtype.
        shift: an int, or several for several axes; or an integer scalar variable for one axis.
        axis: None rolls the flattened array.

    >>> import graphc as gc
    >>> gc.roll([1, 2, 3, 4], 1).eval()
    array([4, 1, 2, 3])
    """
    v = asarray(x)
    if axis is None:
        return movement.reshape(roll(movement.reshape(v, (-1,)), shift, 0), shape_of(v))
    if isinstance(shift, Var) and constant_value(shift) is None:
        a = axis_of(axis, v.type.ndim, "roll")
        n = size_of(v, a)
        return take_at(v, mod(sub(iota(n), as_var(shift, "int64")), n), a)
    shifts = np.atleast_1d(np.asarray(constant_value(shift) if isinstance(shift, Var) else shift))
    if shifts.dtype.kind not in "iu" or shifts.ndim > 1:
        raise GraphcTypeError(f"roll: a shift is an int; got {shift!r}")
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    if len(shifts) != len(axes) and 1 not in (len(shifts), len(axes)):
        raise GraphcValueError(f"roll: {len(shifts)} shifts for {len(axes)} axes")
    count = max(len(shifts), len(axes))
    return movement.roll(v, np.broadcast_to(shifts, count).tolist(), axes * (count // len(axes)))


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Var:
    """The elements [..., i, i + offset] of two axes, as a new last axis.

    >>> import graphc as gc
    >>> gc.diagonal([[1, 2, 3], [4, 5, 6]], 1).eval()
    array([2, 6])
    """
    return movement.diagonal(asarray(x), offset, axis1, axis2)


# ---- broadcasting -----------------------------------------------------------------------------


def broadcast_to(x: Any, shape: Any) -> Var:
    """``x`` repeated along new leading axes and axes of size 1 until it has this shape.

    Raises:
        GraphcValueError: a size that is neither 1 nor the one wanted; where it is unknown, the call checks it.

    >>> import graphc as gc
    >>> gc.broadcast_to([1, 2], (2, 2)).eval()
    array([[1, 2],
           [1, 2]])
    """
    return broadcasting.broadcast_to(asarray(x), shape_entries(shape, "broadcast_to"))


def broadcast_arrays(*xs: Any) -> list[Var]:
    """The operands, each broadcast to their common shape.

    >>> import graphc as gc
    >>> a, b = gc.broadcast_arrays([1, 2], [[3], [4]])
    >>> a.eval()
    array([[1, 2],
           [1, 2]])
    """
    vs = [asarray(x) for x in xs]
    common = broadcasting.broadcast_shapes(*(v.type.shape for v in vs))
    if all(is_door(s) for s in common):
        return [broadcasting.broadcast_to(v, common) for v in vs]
    # the sum of zeros of all shapes has the common one, sizes found at run time included
    total = movement.filled_of(vs[0], 0) if len(vs) == 1 else _sum_of_zeros(vs)
    return [broadcasting.broadcast_to(v, shape_of(total)) for v in vs]


def _sum_of_zeros(vs: Sequence[Var]) -> Var:
    total = broadcasting.broadcast_to(constant(0), shape_of(vs[0]))
    for v in vs[1:]:
        total = add(total, broadcasting.broadcast_to(constant(0), shape_of(v)))
    return total


# ---- joining ----------------------------------------------------------------------------------


def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Var:
    """Arrays one after the other along an axis (None: all flattened first), promoted to one dtype.

    Args:
        arrays: a sequence of at least one array of rank at least 1; the sizes of other axes agree.
        axis: where their sizes add up.

    Raises:
        GraphcValueError: ranks or sizes differ; where sizes are unknown, the call checks them.

    >>> import graphc as gc
    >>> gc.concatenate([[1, 2], [3]]).eval()
    array([1, 2, 3])
    """
    vs = _several(arrays, "concatenate")
    if axis is None:
        return joining.concatenate([ravel(v) for v in vs], 0)
    return joining.concatenate(vs, axis)


def concat(arrays: Sequence[Any], axis: int | None = 0) -> Var:
    """The Array API's name for ``concatenate``.

    >>> import graphc as gc
    >>> gc.concat([[[1], [2]], [[3], [4]]], axis=1).eval()
    array([[1, 3],
           [2, 4]])
    """
    return concatenate(arrays, axis)


def join(axis: int, *arrays: Any) -> Var:
    """Theano's form of ``concatenate``: the axis first.

    >>> import graphc as gc
    >>> gc.join(0, [1, 2], [3]).eval()
    array([1, 2, 3])
    """
    return concatenate(arrays, axis)


def stack(arrays: Sequence[Any], axis: int = 0) -> Var:
    """Arrays of one shape along a new axis, promoted to one dtype.

    >>> import graphc as gc
    >>> gc.stack([[1, 2], [3, 4]], axis=1).eval()
    array([[1, 3],
           [2, 4]])
    """
    return joining.stack(_several(arrays, "stack"), axis)


def vstack(arrays: Sequence[Any]) -> Var:
    """Arrays below each other; vectors count as rows.

    >>> import graphc as gc
    >>> gc.vstack([[1, 2], [[3, 4], [5, 6]]]).eval()
    array([[1, 2],
           [3, 4],
           [5, 6]])
    """
    vs = [asarray(v) for v in _several(arrays, "vstack")]
    return joining.concatenate([movement.reshape(v, (1, -1)) if v.type.ndim < 2 else v for v in vs], 0)


def hstack(arrays: Sequence[Any]) -> Var:
    """Arrays beside each other: along axis 1, or axis 0 if they are vectors.

    >>> import graphc as gc
    >>> gc.hstack([[1, 2], [3]]).eval()
    array([1, 2, 3])
    """
    vs = [asarray(v) for v in _several(arrays, "hstack")]
    vs = [movement.reshape(v, (1,)) if v.type.ndim == 0 else v for v in vs]
    return joining.concatenate(vs, 0 if vs and vs[0].type.ndim == 1 else 1)


def _several(arrays: Any, what: str) -> list[Any]:
    """The operands of a join; one array is the sequence of its rows."""
    if isinstance(arrays, Var):
        return list(unstack(arrays))
    if not isinstance(arrays, (tuple, list, np.ndarray)):
        raise GraphcTypeError(f"{what}: a list or tuple of arrays expected; got {arrays!r}")
    return [v if dtypes.weak_kind(v) else asarray(v) for v in arrays]


# ---- splitting --------------------------------------------------------------------------------


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Var]:
    """``x`` cut into parts along an axis, as ``numpy.split`` does.

    Args:
        x: rank at least 1.
        indices_or_sections: an int: so many equal parts; a list of positions (ints or variables): cut there.
        axis: the axis to cut.

    Raises:
        GraphcValueError: the size is not a multiple of the number of parts; where it is unknown, the call checks it.

    >>> import graphc as gc
    >>> [p.eval().tolist() for p in gc.split([1, 2, 3, 4], 2)]
    [[1, 2], [3, 4]]
    >>> [p.eval().tolist() for p in gc.split([1, 2, 3, 4], [1, 1])]
    [[1], [], [2, 3, 4]]
    """
    v = asarray(x)
    a = axis_of(axis, v.type.ndim, "split")
    if isinstance(indices_or_sections, (list, tuple, np.ndarray)):
        return _cut(v, list(indices_or_sections), a)
    k = _parts(indices_or_sections, "split")
    n = v.type.shape[a]
    if isinstance(n, int):
        if n % k:
            raise GraphcValueError(f"split: an axis of size {n} has no {k} equal parts; gc.array_split gives unequal ones")
        return _cut(v, [n // k * i for i in range(1, k)], a)
    sizes = shape_of(v)
    part = sizes[a] // k if not isinstance(sizes[a], Var) else floordiv(sizes[a], k)
    folded = movement.reshape(v, (*sizes[:a], k, part, *sizes[a + 1:]))  # checks that nothing is left over
    return [index(folded, (*[slice(None)] * a, i)) for i in range(k)]


def array_split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Var]:
    """Like ``split``, but parts may differ by one in size: the first ones are longer.

    >>> import graphc as gc
    >>> [p.eval().tolist() for p in gc.array_split([1, 2, 3], 2)]
    [[1, 2], [3]]
    """
    v = asarray(x)
    a = axis_of(axis, v.type.ndim, "array_split")
    if isinstance(indices_or_sections, (list, tuple, np.ndarray)):
        return _cut(v, list(indices_or_sections), a)
    k = _parts(indices_or_sections, "array_split")
    n = size_of(v, a)
    if isinstance(n, int):
        return _cut(v, [n // k * i + min(i, n % k) for i in range(1, k)], a)
    return _cut(v, [add(mul(floordiv(n, k), i), minimum(mod(n, k), i)) for i in range(1, k)], a)


def _parts(k: Any, what: str) -> int:
    count = movement.integer(k, f"{what}: the number of parts")
    if count < 1:
        raise GraphcValueError(f"{what}: the number of parts is at least 1; got {count}")
    return count


def _cut(v: Var, places: list[Any], axis: int) -> list[Var]:
    edges = [0, *places, None]
    return [index(v, (*[slice(None)] * axis, slice(a, b))) for a, b in itertools.pairwise(edges)]


def unstack(x: Any, axis: int = 0) -> tuple[Var, ...]:
    """The parts of ``x`` along an axis of known size, without that axis.

    >>> import graphc as gc
    >>> [v.eval().tolist() for v in gc.unstack([[1, 2], [3, 4]], axis=1)]
    [[1, 3], [2, 4]]
    """
    v = asarray(x)
    a = axis_of(axis, v.type.ndim, "unstack")
    n = v.type.shape[a]
    if not isinstance(n, int):
        raise GraphcTypeError(f"unstack: axis {a} has no known size: {v.describe()}; use gc.scan, or fix the size when declaring it")
    return tuple(index(v, (*[slice(None)] * a, i)) for i in range(n))
