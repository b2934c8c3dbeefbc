"""Attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.creation import arange
from graphc.functions.linalg import matmul
from graphc.functions.shaping import swapaxes
from graphc.functions.softmaxing import softmax
from graphc.ir import Var, apply
from graphc.ops.arithmetic import where
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.choosing import maximum
from graphc.ops.comparison import greater, greater_equal, logical_and
from graphc.ops.core import as_var, cast, constant, shape_of, size_of
from graphc.ops.movement import expand_dims
from graphc.ops.softmaxes import peak_op
from graphc.ops.transcendental import sqrt

__all__ = ["attention"]


def attention(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Var:
    """``softmax(q @ k.mT / sqrt(d) + m) @ v``, where m is 0 for what is attended and -1e30 (float16: -3e4) for the rest (Vaswani and others, 2017).

    The compiler does this block by block of queries: no array of queries x keys is in memory, not for the gradient either
    (docs/sweeps.md).  The same formula written with ``gc.matmul`` and ``gc.softmax`` is compiled to the same.

    Args:
        q: (..., T, d), float: T queries.
        k: (..., S, d): S keys.
        v: (..., S, e): their values.  Leading axes broadcast (as of several heads that share keys), float dtypes are promoted.
        mask: bool, broadcasts against (..., T, S): True where a query attends to a key.
        causal: query i attends to keys 0 ... i only.  With ``mask``: to those that both allow.

    Returns:
        (..., T, e).  A query that attends to nothing gives 0, and so does its gradient (with a mask, float16 scores below -15000 count as nothing).

    Raises:
        GraphcTypeError: q, k, v are not real floats; a mask that is not bool.
        GraphcValueError: ranks below 2, sizes that do not fit.

    >>> import graphc as gc
    >>> x = [[1.0, 0.0], [0.0, 1.0]]
    >>> gc.nn.attention(x, x, x, causal=True).eval().round(4)
    array([[1.    , 0.    ],
           [0.3302, 0.6698]])
    """
    named = {"q": as_var(q), "k": as_var(k), "v": as_var(v)}
    for name, x in named.items():
        if not dtypes.is_float(x.type.dtype):
            raise GraphcTypeError(f"attention: {name} is {x.type.dtype}; expected a real float dtype")
        if x.type.ndim < 2:
            raise GraphcValueError(f"attention: {name} has shape {x.type.text()}; expected (..., length, features)")
    queries, keys, values = named.values()
    _fits(named)
    d = queries.type.shape[-1]
    scores = matmul(queries, swapaxes(keys, -1, -2))
    if isinstance(d, int):
        scores = scores * (1 / math.sqrt(max(d, 1)))
    else:
        scores = scores / sqrt(as_var(maximum(size_of(queries, queries.type.ndim - 1), 1), scores.type.dtype))
    allowed = _allowed(mask, causal, scores)
    if allowed is None:
        return matmul(softmax(scores, -1), values)
    # the mask is added, and none of its values has a gradient: no where stands between the scores and their derivative.
    # It is finite, so that a row of which nothing is attended is no row of -inf, which has no softmax
    low = -3e4 if scores.type.dtype.name == "float16" else -1e30
    scores = scores + where(allowed, constant(0.0, scores.type.dtype), constant(low, scores.type.dtype))
    weights = softmax(scores, -1)
    if mask is not None:
        top = apply(peak_op, scores, axis=(scores.type.ndim - 1,), keepdims=True)  # not max: there may be no keys
        weights = weights * cast(greater(top, constant(low / 2, scores.type.dtype)), weights.type.dtype)
    return matmul(weights, values)


def _fits(named: Mapping[str, Var]) -> None:
    """Sizes that are known."""
    q, k, v = (x.type.shape for x in named.values())
    for a, one, b, other, what in (("q", q[-1], "k", k[-1], "features"), ("k", k[-2], "v", v[-2], "keys")):
        if isinstance(one, int) and isinstance(other, int) and one != other:
            raise GraphcValueError(f"attention: {a} has {one} {what}, {b} has {other}: {named[a].type.text()} and {named[b].type.text()}")
    for a, b in (("q", "k"), ("q", "v"), ("k", "v")):
        _broadcasts(a, named[a].type.shape[:-2], b, named[b].type.shape[:-2])


def _broadcasts(a: str, one: Sequence[Size], b: str, other: Sequence[Size], what: str = "leading axes", both: bool = True) -> None:
    """``both``: may the other be stretched too?"""
    for m, n in zip(reversed(one), reversed(other), strict=False):
        if isinstance(m, int) and isinstance(n, int) and m not in (1, n) and not (both and n == 1):
            raise GraphcValueError(f"attention: the {what} of {a} and {b} do not broadcast: sizes {m} and {n}")


def _allowed(mask: Any, causal: bool, scores: Var) -> Var | None:
    """What is attended, or None for everything."""
    allowed = None
    if mask is not None:
        allowed = as_var(mask)
        if allowed.type.dtype != np.bool_:
            raise GraphcTypeError(f"attention: the mask is {allowed.type.dtype}; expected bool, True where a query attends to a key")
        _broadcasts("the mask", allowed.type.shape, "the scores", scores.type.shape, "shapes", both=False)
    if causal:
        *lead, rows, columns = shape_of(scores)
        i = broadcast_to(expand_dims(arange(rows), (1,)), (*lead, rows, 1))  # of all matrices: then it is part of their kernel
        earlier = greater_equal(i, arange(columns))
        allowed = earlier if allowed is None else logical_and(allowed, earlier)
    return allowed
