"""``logsumexp``, ``softmax``, ``log_softmax``: named ops, because their stable form must not depend on a rewrite.

    logsumexp(x; axis, keepdims)   log(sum(exp(x)))
    softmax(x; axis)               exp(x) / sum(exp(x))
    log_softmax(x; axis)           x - logsumexp(x)
    peak(x; axis, keepdims)        max(x), -inf where there is nothing: a part of the expanded forms

All shift by the maximum, so that nothing overflows.  Rows that hold only -inf have
no probability to share: logsumexp gives -inf (and a gradient of 0), the others NaN.
A +inf makes logsumexp +inf; in its row of the others it is NaN, the rest 0 and -inf.  Half precisions are
computed in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Array, Node, Op, Type, Var, apply
from graphc.ops.arithmetic import mul, sub, where
from graphc.ops.comparison import equal
from graphc.ops.core import as_var, axes_of, cast
from graphc.ops.cumulative import accumulator
from graphc.ops.example import Example
from graphc.ops.reduction import Axes, Reduction, restored
from graphc.ops.reduction import sum as sum_
from graphc.ops.transcendental import exp


def _wide_and_top(x: Array, axis: Axes) -> tuple[Array, Array]:
    """``x`` in the dtype of the computation, and its maximum, the largest number for inf: inf - inf would be NaN."""
    wide = np.asarray(x, accumulator(x.dtype), order="C")
    top = np.maximum.reduce(wide, axis=axis, keepdims=True, initial=-np.inf)
    largest = np.finfo(wide.dtype).max
    return wide, np.clip(top, -largest, largest)


class LogSumExp(Reduction):
    """``logsumexp(x; axis, keepdims)``; over an empty axis -inf."""

    name = "logsumexp"
    takes = "f"
    flops = 10.0
    examples = (
        Example([(3, 4)], {"axis": (1,), "keepdims": False}, numpy=lambda x: np.log(np.sum(np.exp(x), 1))),
        Example([(2, 3, 2)], {"axis": (0, 2), "keepdims": True}, numpy=lambda x: np.log(np.sum(np.exp(x), (0, 2), keepdims=True))),
        Example([(2, 0)], {"axis": (1,), "keepdims": False}, numpy=lambda x: np.full(2, -np.inf)),
    )

    def forward(self, x: Array, *, axis: Axes, keepdims: bool) -> Array:  # type: ignore[override]
        with np.errstate(all="ignore"):
            wide, top = _wide_and_top(x, axis)
            y = np.log(np.add.reduce(np.exp(wide - top), axis=axis, keepdims=True)) + top
            return (y if keepdims else np.squeeze(y, axis)).astype(x.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes,  # type: ignore[override]
              keepdims: bool) -> Any:
        g, y = restored(cotangents[0], axis, keepdims), restored(outputs[0], axis, keepdims)
        # in a row of -inf, exp(x - y) would be exp(-inf + inf): with 0 in place of y it is 0, in every derivative
        return [mul(g, exp(sub(inputs[0], where(equal(y, -np.inf), 0, y))))]


class Peak(Reduction):
    """``peak(x; axis, keepdims)``: the maximum, -inf over an empty axis: what ``expand`` shifts by.  Made after the gradient."""

    name = "peak"
    takes = "f"
    ufunc = np.maximum
    examples = (
        Example([(3, 4)], {"axis": (1,), "keepdims": True}, gradient=False, numpy=lambda x: np.max(x, 1, keepdims=True)),
        Example([(2, 0)], {"axis": (1,), "keepdims": False}, gradient=False, numpy=lambda x: np.full(2, -np.inf)),
    )

    def forward(self, x: Array, *, axis: Axes, keepdims: bool) -> Array:  # type: ignore[override]
        with np.errstate(all="ignore"):
            top = np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf)
            return np.asarray(top if keepdims else np.squeeze(top, axis)).astype(x.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None]

    def connected(self, position: int, node: Node) -> bool:
        return False


class Normalising(Op):
    """What ``softmax`` and ``log_softmax`` share: a float result of the operand's shape."""

    kind = "custom"
    flops = 12.0

    def infer(self, x: Type, *, axis: Axes) -> Type:  # type: ignore[override]
        Reduction.infer(_checker, x, axis=axis, keepdims=True)
        return x


class SoftMax(Normalising):
    """``softmax(x; axis)``."""

    name = "softmax"
    examples = (
        Example([(3, 4)], {"axis": (1,)}, numpy=lambda x: np.exp(x) / np.sum(np.exp(x), 1, keepdims=True)),
        Example([(2, 3, 2)], {"axis": (0, 2)}, numpy=lambda x: np.exp(x) / np.sum(np.exp(x), (0, 2), keepdims=True)),
        Example([(2, 0)], {"axis": (1,)}, numpy=lambda x: x),
    )

    def forward(self, x: Array, *, axis: Axes) -> Array:  # type: ignore[override]
        with np.errstate(all="ignore"):
            wide, top = _wide_and_top(x, axis)
            e = np.exp(wide - top)
            return np.asarray(e / np.add.reduce(e, axis=axis, keepdims=True)).astype(x.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes) -> Any:  # type: ignore[override]
        g, y = cotangents[0], outputs[0]
        return [mul(sub(g, sum_(mul(g, y), axis, keepdims=True)), y)]


class LogSoftMax(Normalising):
    """``log_softmax(x; axis)``."""

    name = "log_softmax"
    examples = (
        Example([(3, 4)], {"axis": (1,)}, numpy=lambda x: x - np.log(np.sum(np.exp(x), 1, keepdims=True))),
        Example([(2, 3, 2)], {"axis": (0, 2)}, numpy=lambda x: x - np.log(np.sum(np.exp(x), (0, 2), keepdims=True))),
        Example([(2, 0)], {"axis": (1,)}, numpy=lambda x: x),
    )

    def forward(self, x: Array, *, axis: Axes) -> Array:  # type: ignore[override]
        with np.errstate(all="ignore"):
            wide, top = _wide_and_top(x, axis)
            d = wide - top
            return np.asarray(d - np.log(np.add.reduce(np.exp(d), axis=axis, keepdims=True))).astype(x.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes) -> Any:  # type: ignore[override]
        g, y = cotangents[0], outputs[0]
        return [sub(g, mul(exp(y), sum_(g, axis, keepdims=True)))]


logsumexp_op, softmax_op, log_softmax_op, peak_op = LogSumExp(), SoftMax(), LogSoftMax(), Peak()
_checker = logsumexp_op  # takes the same operands
OPS: tuple[Op, ...] = (logsumexp_op, softmax_op, log_softmax_op, peak_op)


def _operand(x: Any, what: str) -> Var:
    v = as_var(x)
    if dtypes.is_complex(v.type.dtype):
        raise GraphcTypeError(f"{what} is for real values; got {v.describe()}")
    return cast(v, dtypes.inexact(v.type.dtype))


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """``log(sum(exp(x)))`` along ``axis``; integers become float64."""
    v = _operand(x, "logsumexp")
    return apply(logsumexp_op, v, axis=axes_of(axis, v.type.ndim, "logsumexp"), keepdims=bool(keepdims))


def softmax(x: Any, axis: Any = -1) -> Var:
    """``exp(x) / sum(exp(x))`` along ``axis``; integers become float64."""
    v = _operand(x, "softmax")
    return apply(softmax_op, v, axis=axes_of(axis, v.type.ndim, "softmax"))


def log_softmax(x: Any, axis: Any = -1) -> Var:
    """``x - logsumexp(x)`` along ``axis``; integers become float64."""
    v = _operand(x, "log_softmax")
    return apply(log_softmax_op, v, axis=axes_of(axis, v.type.ndim, "log_softmax"))


__all__ = ["OPS", "log_softmax", "log_softmax_op", "logsumexp", "logsumexp_op", "peak_op", "softmax", "softmax_op"]
