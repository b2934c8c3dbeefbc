"""Pooling: one number for each window that slides over images, (batch, channels, *space) with 1, 2 or 3 spatial axes.

All of it is put together from windows and reductions, so that derivatives of any order come with it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.averaging import mean
from graphc.functions.creation import asarray
from graphc.ir import Var
from graphc.nn.convolution import padding_pairs, per_axis, spatial_axes
from graphc.ops import joining, reduction
from graphc.ops.arithmetic import div, sqr, where
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.comparison import equal
from graphc.ops.core import cast, constant, shape_of
from graphc.ops.cumulative import accumulator
from graphc.ops.sliding import windows
from graphc.ops.transcendental import pow, sqrt

__all__ = ["avg_pool", "lp_pool", "max_pool"]

Pairs = tuple[tuple[int, int], ...]


def max_pool(x: Any, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Var:
    """The largest value in each window; NaN where the window has one.

    ``y[n, c, p] = max over k of x[n, c, p * stride - low + k * dilation]`` along each spatial axis, where x is -inf outside.
    Values that tie share the gradient of their window equally, as those of ``gc.max`` do.

    Args:
        x: (batch, channels, *space); any real dtype.
        window: sizes of the window, an int >= 1 or one for each spatial axis.
        stride: steps between windows, likewise; the window's sizes by default, so that windows do not overlap.
        padding: places around x that never win (-inf; for integers their smallest value): an int, or for each spatial axis an int or a
            pair (low, high); at most half of what a window spans, ``dilation * (window - 1) + 1``.
        dilation: steps between the elements that a window sees.

    Returns:
        (batch, channels, *positions) of the dtype of x, ``(size + low + high - span) // stride + 1`` positions along each axis.

    Raises:
        GraphcTypeError: ranks, dtypes or options of another form.
        GraphcValueError: numbers out of range.

    >>> import graphc as gc
    >>> x = gc.tensor3("x")
    >>> gc.function([x], gc.nn.max_pool(x, 2))([[[1.0, 3.0, 2.0, 0.0]]])
    array([[[3., 2.]]])
    """
    v = asarray(x)
    if dtypes.is_complex(v.type.dtype):
        raise GraphcTypeError(f"max_pool: complex numbers have no order; got {v.describe()}")
    size, steps, pairs, spread = _options(v, window, stride, padding, dilation, "max_pool")
    return reduction.max(_windows(v, size, steps, pairs, spread, _smallest(v.type.dtype)), _last(size))


def avg_pool(x: Any, window: Any, stride: Any = None, padding: Any = 0, count_padding: bool = True) -> Var:
    """The mean of each window.

    ``y[n, c, p] = sum over k of x[n, c, p * stride - low + k] / count`` along each spatial axis, where x is 0 outside.

    Args:
        x: (batch, channels, *space); integers and bool give float64, half precisions are computed in float32.
        window: sizes of the window, an int >= 1 or one for each spatial axis.
        stride: steps between windows, likewise; the window's sizes by default.
        padding: zeros around x: an int, or for each spatial axis an int or a pair (low, high); at most half of the window.
        count_padding: True: ``count`` is the size of the window; False: how many of its places are in x.

    Returns:
        (batch, channels, *positions), ``(size + low + high - window) // stride + 1`` positions along each axis.

    Raises:
        GraphcTypeError: ranks or options of another form.
        GraphcValueError: numbers out of range.

    >>> import graphc as gc
    >>> x = gc.tensor3("x")
    >>> y = gc.nn.avg_pool(x, 2, padding=1), gc.nn.avg_pool(x, 2, padding=1, count_padding=False)
    >>> gc.function([x], y)([[[1.0, 3.0, 2.0, 0.0]]])
    [array([[[0.5, 2.5, 0. ]]]), array([[[1. , 2.5, 0. ]]])]
    """
    v = asarray(x)
    size, steps, pairs, spread = _options(v, window, stride, padding, 1, "avg_pool")
    if count_padding or not any(low or high for low, high in pairs):
        return mean(_windows(v, size, steps, pairs, spread, 0), _last(size))
    result = dtypes.inexact(v.type.dtype)
    wide = accumulator(result)
    total = reduction.sum(_windows(cast(v, wide), size, steps, pairs, spread, 0), _last(size))
    inside = broadcast_to(constant(1, wide), (1, 1, *shape_of(v)[2:]))
    count = reduction.sum(_windows(inside, size, steps, pairs, spread, 0), _last(size))
    return cast(div(total, count), result)


def lp_pool(x: Any, p: float, window: Any, stride: Any = None) -> Var:
    """``(sum over the window of x**p) ** (1/p)``: p = 1 is the sum, p = 2 a length, p = inf the largest value.

    It is x that is raised to p, not its absolute value (``lp_pool(abs(x), ...)`` is the norm): for an odd p, windows with a negative
    sum give NaN.  Where a sum is 0 the gradient is 0.

    Args:
        x: (batch, channels, *space); integers and bool give float64, half precisions are computed in float32.
        p: the exponent, a number > 0.
        window: sizes of the window, an int >= 1 or one for each spatial axis.
        stride: steps between windows, likewise; the window's sizes by default.

    Returns:
        (batch, channels, *positions), ``(size - window) // stride + 1`` positions along each axis.

    Raises:
        GraphcTypeError: ranks, dtypes or options of another form.
        GraphcValueError: numbers out of range.

    >>> import graphc as gc
    >>> x = gc.tensor3("x")
    >>> gc.function([x], gc.nn.lp_pool(x, 2, 2))([[[3.0, 4.0, -5.0, 12.0]]])
    array([[[ 5., 13.]]])
    """
    v = asarray(x)
    if isinstance(p, (bool, Var)) or not isinstance(p, (int, float, np.integer, np.floating)):
        raise GraphcTypeError(f"lp_pool: p is a number, known when the graph is built; got {p!r}")
    exponent = float(p)
    if not exponent > 0:
        raise GraphcValueError(f"lp_pool: p is greater than 0; got {p!r}")
    if dtypes.is_complex(v.type.dtype):
        raise GraphcTypeError(f"lp_pool: real numbers expected; got {v.describe()}")
    size, steps, pairs, spread = _options(v, window, stride, 0, 1, "lp_pool")
    result = dtypes.inexact(v.type.dtype)
    if math.isinf(exponent):
        return cast(max_pool(v, size, steps), result)
    v = cast(v, accumulator(result))
    powers = v if exponent == 1 else sqr(v) if exponent == 2 else pow(v, exponent)
    total = reduction.sum(_windows(powers, size, steps, pairs, spread, 0), _last(size))
    if exponent != 1:
        nothing = equal(total, 0)
        some = where(nothing, 1, total)
        total = where(nothing, 0, sqrt(some) if exponent == 2 else pow(some, 1 / exponent))
    return cast(total, result)


def _options(x: Var, window: Any, stride: Any, padding: Any, dilation: Any, what: str) -> tuple[tuple[int, ...], tuple[int, ...], Pairs, tuple[int, ...]]:
    """Window, strides, padding, dilations, one for each spatial axis."""
    rank = spatial_axes(x, what)
    size = per_axis(window, rank, f"{what}: window", 1)
    steps = size if stride is None else per_axis(stride, rank, f"{what}: stride", 1)
    spread = per_axis(dilation, rank, f"{what}: dilation", 1)
    pairs = padding_pairs(padding, rank, f"{what}: padding")
    for n, d, pair in zip(size, spread, pairs, strict=True):
        if max(pair) > (d * (n - 1) + 1) // 2:
            raise GraphcValueError(f"{what}: padding is at most half of what a window spans, {d * (n - 1) + 1}; got {padding!r}")
    return size, steps, pairs, spread


def _windows(x: Var, size: tuple[int, ...], steps: tuple[int, ...], pairs: Pairs, spread: tuple[int, ...], filler: Any) -> Var:
    """What each window sees, in axes at the end."""
    padded = joining.pad(x, [(0, 0), (0, 0), *pairs], "constant", filler)
    return windows(padded, size, steps, spread, tuple(range(2, x.type.ndim)))


def _last(size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(-len(size), 0))


def _smallest(dtype: np.dtype[Any]) -> Any:
    if dtypes.is_float(dtype):
        return -np.inf
    return False if dtype.kind == "b" else int(np.iinfo(dtype).min)
