"""Means, variances, standard deviations: compositions of sums, so that their gradients come for free."""

from __future__ import annotations

from typing import Any

from graphc import dims, dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Var, apply
from graphc.ops import cumulative, reduction
from graphc.ops.arithmetic import conj, div, mul, real, sqr, sub, where
from graphc.ops.choosing import maximum
from graphc.ops.comparison import equal
from graphc.ops.core import as_var, axes_of, cast, constant, dim_op, is_door, shape_of
from graphc.ops.transcendental import sqrt

Axis = int | tuple[int, ...] | list[int] | None



def _count(x: Var, axes: tuple[int, ...]) -> int | Var:
    """How many values meet in one: an int where known, else an int64 scalar."""
    sizes = [x.type.shape[a] for a in axes]
    if all(is_door(s) for s in sizes):
        total = dims.product(sizes)
        return total if isinstance(total, int) else apply(dim_op, size=total)
    result: Var = constant(1)
    for entry in (shape_of(x)[a] for a in axes):
        result = mul(result, entry if isinstance(entry, (int, Var)) else apply(dim_op, size=entry))
    return result


def _as_float(count: int | Var, dtype: Any) -> Var:
    return cast(constant(count) if isinstance(count, int) else count, dtypes.real_of(dtype))


def _average_dtypes(x: Var, dtype: Any, what: str) -> tuple[Any, Any]:
    """The dtype of the computation and that of the result."""
    result = dtypes.inexact(x.type.dtype) if dtype is None else dtypes.as_dtype(dtype)
    if not dtypes.is_inexact(result):
        raise GraphcTypeError(f"{what}: dtype is float or complex; got {result}")
    return cumulative.accumulator(result), result


def _mean(x: Var, axes: tuple[int, ...], keepdims: bool) -> Var:
    total = reduction.sum(x, axes, keepdims)
    return div(total, cast(_as_float(_count(x, axes), x.type.dtype), x.type.dtype))


def mean(x: Any, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Var:
    """The arithmetic mean along ``axis``: ``sum(x) / n``; NaN where n = 0.

    Args:
        x: any shape; integers and bool give float64; float16 and bfloat16 are computed in float32.
        axis: None for all, an int, or a tuple of ints.
        dtype: a float or complex dtype to compute in and to give.
        keepdims: leave the reduced axes, with length 1.

    >>> import graphc as gc
    >>> gc.mean([[1, 2], [3, 5]], axis=0).eval()
    array([2. , 3.5])
    """
    v = as_var(x)
    wide, result = _average_dtypes(v, dtype, "mean")
    return cast(_mean(cast(v, wide), axes_of(axis, v.type.ndim, "mean"), keepdims), result)


def _variance(x: Any, axis: Axis, dtype: Any, correction: Any, keepdims: bool, what: str) -> tuple[Var, Any]:
    """In the dtype of the computation, and the dtype to give."""
    v = as_var(x)
    wide, result = _average_dtypes(v, dtype, what)
    if not isinstance(correction, (int, float)) or isinstance(correction, bool):
        raise GraphcTypeError(f"{what}: correction is a number; got {correction!r}")
    v = cast(v, wide)
    axes = axes_of(axis, v.type.ndim, what)
    d = sub(v, _mean(v, axes, True))  # two passes: the squares of small differences, not the difference of large squares
    squares = real(mul(d, conj(d))) if dtypes.is_complex(wide) else sqr(d)
    n = sub(_as_float(_count(v, axes), wide), float(correction)) if correction else _as_float(_count(v, axes), wide)
    n = maximum(n, 0) if correction else n
    return div(reduction.sum(squares, axes, keepdims), n), dtypes.real_of(result)


def var(x: Any, axis: Axis = None, dtype: Any = None, *, correction: float | None = None, ddof: float = 0,
        keepdims: bool = False) -> Var:
    """The variance along ``axis``: ``sum(|x - mean(x)|**2) / (n - correction)``, in two passes.

    Args:
        x: any shape; integers and bool give float64; complex values give a real variance.
        axis: None for all, an int, or a tuple of ints.
        dtype: a float or complex dtype to compute in.
        correction: what is taken off n (1: the unbiased estimate); ``ddof`` is NumPy's name for it.
        keepdims: leave the reduced axes, with length 1.

    >>> import graphc as gc
    >>> gc.var([1.0, 2.0, 3.0, 4.0]).eval()
    array(1.25)
    """
    value, result = _variance(x, axis, dtype, ddof if correction is None else correction, keepdims, "var")
    return cast(value, result)


def std(x: Any, axis: Axis = None, dtype: Any = None, *, correction: float | None = None, ddof: float = 0,
        keepdims: bool = False) -> Var:
    """The standard deviation along ``axis``: the square root of ``var``.

    Its gradient is 0, not NaN, where all values are equal.

    >>> import graphc as gc
    >>> gc.std([1.0, 3.0]).eval()
    array(1.)
    """
    value, result = _variance(x, axis, dtype, ddof if correction is None else correction, keepdims, "std")
    return cast(safe_sqrt(value), result)


def safe_sqrt(x: Var) -> Var:
    """The square root whose derivative at 0 is 0: for lengths, which have a kink there."""
    zero = equal(x, 0)
    return where(zero, 0, sqrt(where(zero, 1, x)))


__all__ = ["mean", "safe_sqrt", "std", "var"]
