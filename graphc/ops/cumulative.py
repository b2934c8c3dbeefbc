"""Running sums and products along an axis, and the two small ops that make their derivatives exact.

    cumsum(x; axis, reverse)               y[i] = x[0] + ... + x[i]         (reverse: from the end)
    cumprod(x; axis, reverse, exclusive)   y[i] = x[0] * ... * x[i]         (exclusive: without x[i])
    shift(x; axis, reverse)                y[i] = x[i-1], y[0] = 0          (reverse: y[i] = x[i+1])
    recurrence(a, b; axis, reverse)        y[i] = b[i] + a[i] * y[i-1]      (reverse: y[i+1])

The derivative of a product leaves one factor out.  Dividing by that factor fails at
zeros; here the gradients are polynomials of the operands (exclusive products and a
linear recurrence), so they hold at zeros and for every order of derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.arithmetic import conj_or_same, mul
from graphc.ops.core import as_var, axis_of, promote
from graphc.ops.example import Example


def widened(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a sum or product: bool and small integers become 64 bits wide, as in the Array API."""
    if dtype.kind in "bi":
        return dtypes.DTYPES["int64"]
    return dtypes.DTYPES["uint64"] if dtype.kind == "u" else dtype


def accumulator(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which a sum or product of this result dtype is computed: half precisions use float32."""
    return dtypes.DTYPES["float32"] if dtype.name in ("float16", "bfloat16") else dtype


def check_axis(x: Type, axis: int) -> None:
    if not 0 <= axis < x.ndim:
        raise GraphcValueError(f"the attribute axis is {axis} for a value of rank {x.ndim}")


class Cumulative(Op):
    """What the ops of this file share: one axis, a direction, a result of the operand's shape."""

    kind = "custom"

    def infer(self, x: Type, *, axis: int, reverse: bool, **_: Any) -> Type:  # type: ignore[override]
        check_axis(x, axis)
        return x.with_dtype(widened(x.dtype))

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.inputs[position].type.dtype)


def _accumulate(ufunc: np.ufunc, x: Array, axis: int, reverse: bool, dtype: np.dtype[Any]) -> Array:
    wide = x.astype(accumulator(dtype), copy=False)
    if reverse:
        wide = np.flip(wide, axis)
    with np.errstate(all="ignore"):
        y = ufunc.accumulate(wide, axis=axis)
        return (np.flip(y, axis) if reverse else y).astype(dtype, copy=False)


class CumSum(Cumulative):
    """``cumsum(x; axis, reverse)``."""

    name = "cumsum"
    linear = True
    examples = (
        Example([(4, 3)], {"axis": 0, "reverse": False}, analytic=True, numpy=lambda x: np.cumsum(x, 0)),
        Example([(2, 4)], {"axis": 1, "reverse": True}, analytic=True, numpy=lambda x: np.cumsum(x[:, ::-1], 1)[:, ::-1]),
        Example([(0, 2)], {"axis": 0, "reverse": False}, numpy=lambda x: np.cumsum(x, 0)),
        Example([(3,)], {"axis": 0, "reverse": False}, "complex128", numpy=lambda x: np.cumsum(x, 0)),
    )

    def forward(self, x: Array, *, axis: int, reverse: bool) -> Array:  # type: ignore[override]
        return _accumulate(np.add, x, axis, reverse, widened(x.dtype))

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: int,  # type: ignore[override]
              reverse: bool) -> Any:
        return [apply(self, cotangents[0], axis=axis, reverse=not reverse)]


class Shift(Cumulative):
    """``shift(x; axis, reverse)``: one step along the axis; what enters is 0, what leaves is lost."""

    name = "shift"
    linear = True
    flops = 0.0
    examples = (
        Example([(4, 2)], {"axis": 0, "reverse": False}, analytic=True, numpy=lambda x: np.concatenate([0 * x[:1], x[:-1]])),
        Example([(2, 3)], {"axis": 1, "reverse": True}, analytic=True,
                numpy=lambda x: np.concatenate([x[:, 1:], 0 * x[:, :1]], 1)),
        Example([(0,)], {"axis": 0, "reverse": True}, numpy=lambda x: x),
    )

    def infer(self, x: Type, *, axis: int, reverse: bool, **_: Any) -> Type:  # type: ignore[override]
        check_axis(x, axis)
        return x

    def forward(self, x: Array, *, axis: int, reverse: bool) -> Array:  # type: ignore[override]
        y = np.zeros_like(x)
        keep, drop = _steps(x.ndim, axis, reverse)
        y[keep] = x[drop]
        return y

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: int,  # type: ignore[override]
              reverse: bool) -> Any:
        return [shift(cotangents[0], axis, not reverse)]


def _steps(ndim: int, axis: int, reverse: bool) -> tuple[Any, Any]:
    """Indices of all entries that have a predecessor, and of those predecessors."""
    before: list[Any] = [slice(None)] * ndim
    after: list[Any] = [slice(None)] * ndim
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return (tuple(before), tuple(after)) if reverse else (tuple(after), tuple(before))


class CumProd(Cumulative):
    """``cumprod(x; axis, reverse, exclusive)``."""

    name = "cumprod"
    examples = (
        Example([(4, 3)], {"axis": 0, "reverse": False, "exclusive": False}, analytic=True, numpy=lambda x: np.cumprod(x, 0)),
        Example([(2, 4)], {"axis": 1, "reverse": True, "exclusive": True}, analytic=True,
                numpy=lambda x: np.stack([np.prod(x[:, i + 1:], 1) for i in range(4)], 1)),
        Example([(0, 2)], {"axis": 0, "reverse": False, "exclusive": True}, numpy=lambda x: x),
        Example([(3,)], {"axis": 0, "reverse": False, "exclusive": False}, "complex128", numpy=lambda x: np.cumprod(x, 0)),
    )

    def infer(self, x: Type, *, axis: int, reverse: bool, exclusive: bool) -> Type:  # type: ignore[override]
        return super().infer(x, axis=axis, reverse=reverse)

    def forward(self, x: Array, *, axis: int, reverse: bool, exclusive: bool) -> Array:  # type: ignore[override]
        dtype = widened(x.dtype)
        if not exclusive:
            return _accumulate(np.multiply, x, axis, reverse, dtype)
        y = np.ones(x.shape, dtype)
        keep, drop = _steps(x.ndim, axis, reverse)
        y[keep] = _accumulate(np.multiply, x[drop], axis, reverse, dtype)
        return y

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: int,  # type: ignore[override]
              reverse: bool, exclusive: bool) -> Any:
        # y[k] holds x[i] times the factors before i (exclusive) times those between i and k: a recurrence from the end
        g, x = cotangents[0], conj_or_same(inputs[0])
        before = cumprod(x, axis, reverse, exclusive=True)
        if exclusive:
            after = shift(recurrence(x, g, axis, not reverse), axis, not reverse)
        else:
            after = recurrence(shift(x, axis, not reverse), g, axis, not reverse)
        return [mul(before, after)]


class Recurrence(Cumulative):
    """``recurrence(a, b; axis, reverse)``: the first-order linear recurrence; ``a`` of the first step is not used."""

    name = "recurrence"
    flops = 2.0
    examples = (
        Example([(4, 2), (4, 2)], {"axis": 0, "reverse": False}, analytic=True, numpy=lambda a, b: _by_steps(a, b)),
        Example([(2, 3), (2, 3)], {"axis": 1, "reverse": True}, analytic=True,
                numpy=lambda a, b: _by_steps(a.T[::-1], b.T[::-1])[::-1].T),
        Example([(0,), (0,)], {"axis": 0, "reverse": False}, numpy=lambda a, b: b),
    )

    def infer(self, a: Type, b: Type, *, axis: int, reverse: bool) -> Type:  # type: ignore[override]
        check_axis(a, axis)
        if a.dtype != b.dtype or a.ndim != b.ndim:
            raise GraphcTypeError(f"two operands of one type expected; got {a} and {b}")
        if not dtypes.is_inexact(a.dtype):
            raise GraphcTypeError(f"float or complex operands expected; got {a.dtype}")
        if any(isinstance(s, int) and isinstance(t, int) and s != t for s, t in zip(a.shape, b.shape, strict=True)):
            raise GraphcValueError(f"operands of one shape expected; got {a} and {b}")
        return b

    def forward(self, a: Array, b: Array, *, axis: int, reverse: bool) -> Array:  # type: ignore[override]
        wide = accumulator(b.dtype)
        steps_a, steps_b = np.moveaxis(a.astype(wide, copy=False), axis, 0), np.moveaxis(b.astype(wide), axis, 0)
        if a.shape != b.shape:
            raise GraphcValueError(f"recurrence: operands of one shape expected; got {a.shape} and {b.shape}")
        if reverse:
            steps_a, steps_b = steps_a[::-1], steps_b[::-1]
        with np.errstate(all="ignore"):
            for i in range(1, len(steps_b)):  # steps_b is our own copy
                steps_b[i] += steps_a[i] * steps_b[i - 1]
            if reverse:
                steps_b = steps_b[::-1]
            return np.moveaxis(steps_b, 0, axis).astype(b.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: int,  # type: ignore[override]
              reverse: bool) -> Any:
        a = conj_or_same(inputs[0])
        back = recurrence(shift(a, axis, not reverse), cotangents[0], axis, not reverse)
        return [mul(back, conj_or_same(shift(outputs[0], axis, reverse))), back]

    def relations(self, types: Sequence[Type], attrs: Any) -> Iterable[Relation]:
        for s, t in zip(types[0].shape, types[1].shape, strict=True):
            if s != t:
                yield Relation("equal", s, t)


def _by_steps(a: Array, b: Array) -> Array:
    """The recurrence along axis 0 written out (for the examples)."""
    rows: list[Array] = []
    for i in range(len(b)):
        rows.append(b[i] + a[i] * rows[-1] if rows else b[i])
    return np.stack(rows)


cumsum_op, cumprod_op, shift_op, recurrence_op = CumSum(), CumProd(), Shift(), Recurrence()
OPS: tuple[Op, ...] = (cumsum_op, cumprod_op, shift_op, recurrence_op)


def cumsum(x: Any, axis: int, reverse: bool = False) -> Var:
    """The running sum along an axis."""
    v = as_var(x)
    return apply(cumsum_op, v, axis=axis_of(axis, v.type.ndim, "cumsum"), reverse=reverse)


def cumprod(x: Any, axis: int, reverse: bool = False, exclusive: bool = False) -> Var:
    """The running product along an axis."""
    v = as_var(x)
    return apply(cumprod_op, v, axis=axis_of(axis, v.type.ndim, "cumprod"), reverse=reverse, exclusive=exclusive)


def shift(x: Any, axis: int, reverse: bool = False) -> Var:
    """``x`` moved by one step along an axis, 0 entering."""
    v = as_var(x)
    return apply(shift_op, v, axis=axis_of(axis, v.type.ndim, "shift"), reverse=reverse)


def recurrence(a: Any, b: Any, axis: int, reverse: bool = False) -> Var:
    """``y[i] = b[i] + a[i] * y[i-1]`` along an axis of two operands of one shape."""
    va, vb = promote(a, b)
    return apply(recurrence_op, va, vb, axis=axis_of(axis, vb.type.ndim, "recurrence"), reverse=reverse)


__all__ = ["OPS", "accumulator", "cumprod", "cumsum", "recurrence", "shift", "widened"]
