"""Reductions and running sums as users call them: sums, means, extremes, truth along axes.

``axis`` is None (all axes), an int or a tuple of ints, negative ones counting from
the end; ``keepdims=True`` leaves reduced axes with length 1.
"""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.averaging import Axis, mean, std, var
from graphc.functions.softmaxing import log_softmax, logsumexp, softmax
from graphc.ir import Var, apply
from graphc.ops import cumulative, reduction
from graphc.ops.arithmetic import sub
from graphc.ops.core import as_var, cast, constant
from graphc.ops.joining import pad_op
from graphc.ops.movement import reshape


def _in_dtype(op: Any, x: Any, dtype: Any, *args: Any) -> Var:
    """A sum or product of ``x`` as ``dtype``, which is also the dtype of the result."""
    if dtype is None:
        return op(as_var(x), *args)  # type: ignore[no-any-return]
    wanted = dtypes.as_dtype(dtype)
    return cast(op(cast(as_var(x), wanted), *args), wanted)  # sums of small integers are wide: back


def sum(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Var:
    """The sum along ``axis``; 0 where there is nothing to sum.

    Args:
        x: any shape and dtype.  bool and integers narrower than 64 bits give int64 (uint64 if unsigned);
            float16 and bfloat16 are accumulated in float32.
        axis: None for all, an int, or a tuple of ints.
        dtype: cast to this dtype first; the result has it.
        keepdims: leave the reduced axes, with length 1.

    Raises:
        GraphcIndexError: an axis outside the rank of ``x``.

    >>> import graphc as gc
    >>> gc.sum([[1, 2], [3, 4]], axis=0).eval()
    array([4, 6])
    """
    return _in_dtype(reduction.sum, x, dtype, axis, keepdims)


def prod(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Var:
    """The product along ``axis``; 1 where there is nothing to multiply.  Dtypes as for ``sum``.

    The gradient is the product of all other values: right where values are 0, in any order.

    >>> import graphc as gc
    >>> gc.prod([[1, 2], [3, 4]], axis=1).eval()
    array([ 2, 12])
    """
    return _in_dtype(reduction.prod, x, dtype, axis, keepdims)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """The largest value along ``axis``; NaN if one is NaN; real or bool, the dtype of ``x``.

    Equal largest values share the gradient equally.

    Raises:
        GraphcValueError: an axis of length 0 (when the graph is built, if it is known then).
        GraphcTypeError: ``x`` is complex.

    >>> import graphc as gc
    >>> gc.max([[1.0, 5.0], [7.0, 2.0]], axis=1).eval()
    array([5., 7.])
    """
    return reduction.max(x, axis, keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """The smallest value along ``axis``; NaN if one is NaN; real or bool, the dtype of ``x``.

    Equal smallest values share the gradient equally.  Errors as for ``max``.

    >>> import graphc as gc
    >>> gc.min([[1.0, 5.0], [7.0, 2.0]], axis=0).eval()
    array([1., 2.])
    """
    return reduction.min(x, axis, keepdims)


amax, amin = max, min


def ptp(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """Peak to peak: ``max(x) - min(x)`` along ``axis``.

    >>> import graphc as gc
    >>> gc.ptp([1.0, 4.0, 9.0]).eval()
    array(8.)
    """
    return sub(reduction.max(x, axis, keepdims), reduction.min(x, axis, keepdims))


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """Are all values along ``axis`` true (not 0; NaN is true)?  A bool; True where there are none.

    >>> import graphc as gc
    >>> gc.all([[True, False], [True, True]], axis=1).eval()
    array([False,  True])
    """
    return reduction.all(x, axis, keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """Is any value along ``axis`` true (not 0; NaN is true)?  A bool; False where there are none.

    >>> import graphc as gc
    >>> gc.any([[True, False], [False, False]], axis=1).eval()
    array([ True, False])
    """
    return reduction.any(x, axis, keepdims)


def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """How many values along ``axis`` are not 0; int64.

    >>> import graphc as gc
    >>> gc.count_nonzero([[0, 1], [2, 3]], axis=0).eval()
    array([1, 2])
    """
    return reduction.sum(cast(as_var(x), dtypes.DTYPES["bool"]), axis, keepdims)


def _one_or_all(axis: Any, what: str) -> Any:
    if isinstance(axis, (tuple, list)):
        raise GraphcTypeError(f"{what}: axis is an int or None; got {axis!r}")
    return axis


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Var:
    """The index of the largest value along ``axis``, the first if there are several or a NaN; int64.

    Args:
        x: real or bool, any shape.
        axis: an int, or None for the index into the flattened ``x``.
        keepdims: leave the reduced axes, with length 1.

    Raises:
        GraphcValueError: an axis of length 0.

    >>> import graphc as gc
    >>> gc.argmax([[1.0, 5.0], [7.0, 2.0]], axis=1).eval()
    array([1, 0])
    """
    return reduction.argmax(x, _one_or_all(axis, "argmax"), keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Var:
    """The index of the smallest value along ``axis``, the first if there are several or a NaN; int64.

    >>> import graphc as gc
    >>> gc.argmin([[1.0, 5.0], [7.0, 2.0]], axis=1).eval()
    array([0, 1])
    """
    return reduction.argmin(x, _one_or_all(axis, "argmin"), keepdims)


# ---- running sums -----------------------------------------------------------------------------


def _running(op: Any, x: Any, axis: int | None, dtype: Any) -> Var:
    v = as_var(x)
    if axis is None:
        v, axis = reshape(v, (-1,)), 0
    return _in_dtype(op, v, dtype, axis)


def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Var:
    """The running sum ``y[i] = x[0] + ... + x[i]`` along ``axis``; None flattens ``x`` first.  Dtypes as for ``sum``.

    >>> import graphc as gc
    >>> gc.cumsum([1, 2, 3]).eval()
    array([1, 3, 6])
    """
    return _running(cumulative.cumsum, x, axis, dtype)


def cumprod(x: Any, axis: int | None = None, dtype: Any = None) -> Var:
    """The running product ``y[i] = x[0] * ... * x[i]`` along ``axis``; None flattens ``x`` first.  Dtypes as for ``sum``.

    >>> import graphc as gc
    >>> gc.cumprod([1, 2, 3]).eval()
    array([1, 2, 6])
    """
    return _running(cumulative.cumprod, x, axis, dtype)


def _standard(op: Any, x: Any, axis: int | None, dtype: Any, initial: int | None, what: str) -> Var:
    v = as_var(x)
    if axis is None and v.type.ndim != 1:
        raise GraphcValueError(f"{what}: axis may be left out for a vector only; got rank {v.type.ndim}")
    y = _in_dtype(op, v, dtype, -1 if axis is None else axis)
    if initial is None:
        return y
    place = (-1 if axis is None else axis) % y.type.ndim
    widths = tuple((1, 0) if i == place else (0, 0) for i in range(y.type.ndim))
    return apply(pad_op, y, constant(initial, y.type.dtype), widths=widths)


def cumulative_sum(x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Var:
    """``cumsum`` as the Array API has it; ``include_initial`` puts the empty sum 0 in front.

    >>> import graphc as gc
    >>> gc.cumulative_sum([1, 2, 3], include_initial=True).eval()
    array([0, 1, 3, 6])
    """
    return _standard(cumulative.cumsum, x, axis, dtype, 0 if include_initial else None, "cumulative_sum")


def cumulative_prod(x: Any, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Var:
    """``cumprod`` as the Array API has it; ``include_initial`` puts the empty product 1 in front.

    >>> import graphc as gc
    >>> gc.cumulative_prod([1, 2, 3], include_initial=True).eval()
    array([1, 1, 2, 6])
    """
    return _standard(cumulative.cumprod, x, axis, dtype, 1 if include_initial else None, "cumulative_prod")


__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "cumprod", "cumsum", "cumulative_prod", "cumulative_sum",
    "log_softmax", "logsumexp", "max", "mean", "min", "prod", "ptp", "softmax", "std", "sum", "var",
]
