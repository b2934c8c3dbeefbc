"""Reading and replacing parts of arrays: ``x[i]``, take, set_subtensor, inc_subtensor, nonzero, one_hot."""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Var
from graphc.ops import indexing
from graphc.ops.arithmetic import mod, sub
from graphc.ops.choosing import clip
from graphc.ops.comparison import equal
from graphc.ops.core import as_var, axis_of, cast, size_of
from graphc.ops.creation import iota
from graphc.ops.gathering import nonzero as positions
from graphc.ops.joining import stack
from graphc.ops.movement import expand_dims, reshape, transpose
from graphc.settings import config

__all__ = [
    "argwhere", "flatnonzero", "getitem", "inc_subtensor", "nonzero", "one_hot", "set_subtensor", "take", "take_along_axis",
]


def getitem(x: Any, key: Any) -> Var:
    """``x[key]``: NumPy's basic and advanced indexing.

    Args:
        x: any shape and dtype.
        key: one part or a tuple of parts: an int or integer scalar variable (the axis goes); a slice whose
            bounds are ints, dims or integer scalars; ``None`` (a new axis); ``...``; an array, list or
            variable of integers (positions, negative ones from the end) or of bools (a mask).

    Returns:
        The part.  A mask makes its size depend on the data.  Arrays of positions broadcast together; their axes
        stand where they stood in the key, or first where a slice separates them.

    Raises:
        GraphcIndexError: too many parts, or a position outside its axis, known when the graph is built.
            At run time: IndexError.
        GraphcTypeError: a part that is no index, such as a float.

    >>> import graphc as gc
    >>> x = gc.asarray([[1, 2, 3], [4, 5, 6]])
    >>> x[0, ::-1].eval()
    array([3, 2, 1])
    >>> x[:, [0, 0, 2]].eval()
    array([[1, 1, 3],
           [4, 4, 6]])
    >>> x[x > 3].eval()
    array([4, 5, 6])
    """
    parts = tuple(_with_variables(k) for k in key) if isinstance(key, tuple) else _with_variables(key)
    return indexing.index(as_var(x), parts)


def _with_variables(part: Any) -> Any:
    """A list that holds variables as one variable: ``x[[0, i, 2]]``."""
    if isinstance(part, (list, tuple)):
        inner = [_with_variables(p) for p in part]
        if any(isinstance(p, Var) for p in inner):
            return stack(inner)
    return part


def take(x: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Var:
    """The elements of ``x`` at ``indices`` along an axis: ``x[:, indices]`` for axis 1.

    Args:
        x: any dtype, rank at least 1.
        indices: integers of any shape; their axes stand in the place of ``axis``.
        axis: None takes from the flattened array.
        mode: "raise" (IndexError at run time for a position out of range), "clip" (to the ends) or "wrap".

    >>> import graphc as gc
    >>> gc.take([[1, 2], [3, 4]], [1, 0, 1], axis=0).eval()
    array([[3, 4],
           [1, 2],
           [3, 4]])
    """
    x, where = as_var(x), _integers(indices, "take")
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    a = axis_of(axis, x.type.ndim, "take")
    if mode not in ("raise", "clip", "wrap"):
        raise GraphcValueError(f"take: mode is 'raise', 'clip' or 'wrap'; got {mode!r}")
    if mode != "raise":
        n = size_of(x, a)
        where = cast(where, dtypes.DTYPES["int64"])
        where = mod(where, n) if mode == "wrap" else clip(where, 0, sub(n, 1) if isinstance(n, Var) else n - 1)
    return indexing.index(x, (*[slice(None)] * a, where))


def take_along_axis(x: Any, indices: Any, axis: int = -1) -> Var:
    """One position along ``axis`` for each element: what ``argsort`` and ``argmax`` give, applied.

    Args:
        x: any dtype.
        indices: integers of the rank of ``x``; the other axes broadcast.
        axis: where the positions count.

    Returns:
        The shape of ``indices`` (broadcast): element [i, j] is ``x[i, indices[i, j]]`` for axis 1.

    >>> import graphc as gc
    >>> gc.take_along_axis([[10, 20], [30, 40]], [[1], [0]], axis=1).eval()
    array([[20],
           [30]])
    """
    return indexing.take_along_axis(as_var(x), _integers(indices, "take_along_axis"), axis)


def _integers(indices: Any, what: str) -> Var:
    v = as_var(indices, "int64") if isinstance(indices, (list, tuple)) and len(indices) == 0 else as_var(_with_variables(indices))
    if not dtypes.is_integer(v.type.dtype):
        raise GraphcTypeError(f"{what}: indices are integers; got {v.describe()}")
    return v


def set_subtensor(x: Var, y: Any) -> Var:
    """The array ``a`` with the part ``x = a[i]`` replaced by ``y``; ``a`` itself does not change.

    Args:
        x: an indexing: ``a[...]`` of any kind, ``gc.take``, ``gc.take_along_axis``.
        y: what goes there: broadcasts to the shape of the part, and is cast to the dtype of ``a``
            if that loses no kind of number.

    Returns:
        Shape and dtype of ``a``.  Where a position comes twice, the last value stays (and only it has a gradient).

    Raises:
        GraphcTypeError: ``x`` is no indexing; or ``y`` is float where ``a`` is integer, complex where it is real.

    >>> import graphc as gc
    >>> a = gc.zeros((2, 3))
    >>> gc.set_subtensor(a[:, 1], [5, 6]).eval()
    array([[0., 5., 0.],
           [0., 6., 0.]])
    """
    return indexing.set_part(x, y, increment=False)


def inc_subtensor(x: Var, y: Any) -> Var:
    """The array ``a`` with ``y`` added to the part ``x = a[i]``; increments of a position that comes twice add up.

    Arguments and errors as for ``set_subtensor``.

    >>> import graphc as gc
    >>> a = gc.zeros(3)
    >>> gc.inc_subtensor(a[[0, 2, 2]], 1).eval()
    array([1., 0., 2.])
    """
    return indexing.set_part(x, y, increment=True)


def nonzero(x: Any) -> tuple[Var, ...]:
    """Where ``x`` is not zero: one int64 vector of positions per axis, in C order.

    Their length depends on the data; ``x[gc.nonzero(x)]`` are the nonzero elements.

    >>> import graphc as gc
    >>> rows, columns = gc.nonzero([[0, 7], [8, 9]])
    >>> columns.eval()
    array([1, 0, 1])
    """
    v = as_var(x)
    found = positions(v)
    return tuple(indexing.index(found, i) for i in range(v.type.ndim))


def argwhere(x: Any) -> Var:
    """Where ``x`` is not zero, one row of positions per element: int64 [count, rank].

    >>> import graphc as gc
    >>> gc.argwhere([[0, 7], [8, 9]]).eval()
    array([[0, 1],
           [1, 0],
           [1, 1]])
    """
    return transpose(positions(as_var(x)))


def flatnonzero(x: Any) -> Var:
    """Where the flattened ``x`` is not zero.

    >>> import graphc as gc
    >>> gc.flatnonzero([[0, 7], [8, 9]]).eval()
    array([1, 2, 3])
    """
    return nonzero(reshape(as_var(x), (-1,)))[0]


def one_hot(indices: Any, depth: Any, dtype: Any = None, axis: int = -1) -> Var:
    """Ones at ``indices`` of a new axis of size ``depth``, zeros elsewhere; all zeros for an index outside 0..depth-1.

    Args:
        indices: integers of any shape.
        depth: a size: an int, a dim or an integer scalar variable.
        dtype: ``gc.config.floatX`` by default.
        axis: where the new axis stands in the result.

    >>> import graphc as gc
    >>> gc.one_hot([0, 2], 3, dtype="int64").eval()
    array([[1, 0, 0],
           [0, 0, 1]])
    """
    where = cast(_integers(indices, "one_hot"), dtypes.DTYPES["int64"])
    a = axis_of(axis, where.type.ndim + 1, "one_hot")
    line = iota(depth)
    trailing = where.type.ndim - a
    if trailing:
        line = expand_dims(line, tuple(range(1, trailing + 1)))
    hot = equal(expand_dims(where, (a,)), line)
    return cast(hot, dtypes.as_dtype(config.floatX if dtype is None else dtype))


