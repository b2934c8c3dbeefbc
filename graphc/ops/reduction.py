"""Reductions: one value out of all along some axes.

    sum prod max min all any    (x; axis, keepdims)    axis: sorted tuple of axes >= 0
    argmax argmin               (x; axis, keepdims)    the index, row-major where axis has several entries

A sum or product of bool or small integers is 64 bits wide (Array API); half
precisions are accumulated in float32 and rounded once.  The order of a sum depends
on sizes only: NumPy's pairwise order over a contiguous operand.

The builders carry the names of the functions that users know, hence shadow Python's.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Type, Var, apply
from graphc.ops import cumulative
from graphc.ops.arithmetic import conj_or_same, div, mul, where
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.comparison import equal
from graphc.ops.core import as_var, axes_of, cast, shape_of
from graphc.ops.cumulative import accumulator, cumprod, widened
from graphc.ops.example import Example
from graphc.ops.movement import expand_dims

Axes = tuple[int, ...]

#: values up to which how many are equal is a number of every float: adding them up as such is faster
FEW = 256


def reduced_shape(shape: Sequence[Size], axis: Axes, keepdims: bool) -> tuple[Size, ...]:
    """The shape without the axes, or with 1 in their place."""
    if keepdims:
        return tuple(1 if i in axis else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axis)


def restored(y: Var, axis: Axes, keepdims: bool) -> Var:
    """A reduced value with its axes back, of length 1, so that it broadcasts to the operand."""
    return y if keepdims or not axis else expand_dims(y, axis)


class Reduction(Op):
    """What the reductions share.  ``ufunc`` is NumPy's; ``takes`` the kinds of dtype."""

    kind = "reduction"
    ufunc: np.ufunc
    takes = "biufc"
    rounds = False  # does the order of the operands show in the last bit?

    def infer(self, x: Type, *, axis: Axes, keepdims: bool) -> Type:  # type: ignore[override]
        if list(axis) != sorted(set(axis)) or builtins.any(not 0 <= a < x.ndim for a in axis):
            raise GraphcValueError(f"the attribute axis is {axis} for a value of rank {x.ndim}: sorted axes >= 0 without repeats expected")
        if ("f" if dtypes.is_float(x.dtype) else x.dtype.kind) not in self.takes:
            raise GraphcTypeError(f"does not take {x.dtype}")
        return Type(self.result_dtype(x.dtype), reduced_shape(x.shape, axis, keepdims))

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype

    def forward(self, x: Array, *, axis: Axes, keepdims: bool) -> Array:  # type: ignore[override]
        dtype = self.result_dtype(x.dtype)
        wide = accumulator(dtype)
        # contiguous: the order of a sum, hence its last bit, must not depend on how x lies in memory
        x = np.asarray(x, accumulator(x.dtype), order="C" if self.rounds else None)
        with np.errstate(all="ignore"):
            return np.asarray(self.ufunc.reduce(x, axis=axis, dtype=wide, keepdims=keepdims)).astype(dtype, copy=False)

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.inputs[0].type.dtype) and dtypes.is_inexact(node.outputs[0].type.dtype)


class Sum(Reduction):
    """``sum(x; axis, keepdims)``; an empty sum is 0."""

    name = "sum"
    linear = True
    ufunc = np.add
    rounds = True
    examples = (
        Example([(3, 4)], {"axis": (0, 1), "keepdims": False}, analytic=True, numpy=lambda x: np.sum(x)),
        Example([(2, 3, 4)], {"axis": (0, 2), "keepdims": True}, analytic=True, numpy=lambda x: np.sum(x, (0, 2), keepdims=True)),
        Example([(2, 3)], {"axis": (1,), "keepdims": False}, "complex128", numpy=lambda x: np.sum(x, 1)),
        Example([(2, 0)], {"axis": (1,), "keepdims": False}, numpy=lambda x: np.sum(x, 1)),
        Example([(2, 3)], {"axis": (0,), "keepdims": False}, "int8", (-9, 9), gradient=False, numpy=lambda x: np.sum(x, 0)),
        Example([(2, 3)], {"axis": (0,), "keepdims": False}, "bool", gradient=False, numpy=lambda x: np.sum(x, 0)),
    )

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return widened(dtype)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes,  # type: ignore[override]
              keepdims: bool) -> Any:
        return [broadcast_to(restored(cotangents[0], axis, keepdims), shape_of(inputs[0]))]


class Prod(Reduction):
    """``prod(x; axis, keepdims)``; an empty product is 1.  Its gradient is exact at zeros, in any order."""

    name = "prod"
    ufunc = np.multiply
    rounds = True
    examples = (
        Example([(3, 2)], {"axis": (0, 1), "keepdims": False}, analytic=True, numpy=lambda x: np.prod(x)),
        Example([(2, 3, 2)], {"axis": (1,), "keepdims": True}, analytic=True, numpy=lambda x: np.prod(x, 1, keepdims=True)),
        Example([(2, 3)], {"axis": (1,), "keepdims": False}, "complex128", numpy=lambda x: np.prod(x, 1)),
        Example([(2, 0)], {"axis": (1,), "keepdims": False}, numpy=lambda x: np.prod(x, 1)),
        Example([(2, 3)], {"axis": (0,), "keepdims": False}, "uint8", (0, 9), gradient=False, numpy=lambda x: np.prod(x, 0)),
    )

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return widened(dtype)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes,  # type: ignore[override]
              keepdims: bool) -> Any:
        # one axis after the other; along one axis, the product of all others = (those before) * (those after)
        g, x = restored(cotangents[0], axis, keepdims), conj_or_same(inputs[0])
        partial = [x]
        for a in axis[:-1]:
            partial.append(prod(partial[-1], (a,), keepdims=True))
        for a, part in zip(reversed(axis), reversed(partial), strict=False):
            others = mul(cumprod(part, a, exclusive=True), cumprod(part, a, reverse=True, exclusive=True))
            g = mul(g, others)
        return [g]


class Extremum(Reduction):
    """``max``, ``min``: NaN if any value is NaN; an error over an empty axis; ties share the gradient equally."""

    takes = "biuf"

    def __init__(self, name: str, ufunc: np.ufunc) -> None:
        self.name, self.ufunc = name, ufunc
        self.examples = (
            Example([(3, 4)], {"axis": (0, 1), "keepdims": False}, numpy=lambda x: ufunc.reduce(x, axis=None)),
            Example([(2, 3, 4)], {"axis": (0, 2), "keepdims": True}, numpy=lambda x: ufunc.reduce(x, axis=(0, 2), keepdims=True)),
            Example([(0, 3)], {"axis": (1,), "keepdims": False}, numpy=lambda x: np.zeros(0)),
            Example([(2, 3)], {"axis": (1,), "keepdims": False}, "int16", (-9, 9), gradient=False,
                    numpy=lambda x: ufunc.reduce(x, axis=1)),
            Example([(2, 3)], {"axis": (1,), "keepdims": False}, "bool", gradient=False, numpy=lambda x: ufunc.reduce(x, axis=1)),
        )

    def infer(self, x: Type, *, axis: Axes, keepdims: bool) -> Type:  # type: ignore[override]
        result = super().infer(x, axis=axis, keepdims=keepdims)
        check_not_empty(x, axis, result)
        return result

    def forward(self, x: Array, *, axis: Axes, keepdims: bool) -> Array:  # type: ignore[override]
        if x.size == 0:
            empty_result(self.name, x, axis)
            return np.zeros([1 if i in axis else s for i, s in enumerate(x.shape) if keepdims or i not in axis], x.dtype)
        return super().forward(x, axis=axis, keepdims=keepdims)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: Axes,  # type: ignore[override]
              keepdims: bool) -> Any:
        x = inputs[0]
        g, y = restored(cotangents[0], axis, keepdims), restored(outputs[0], axis, keepdims)
        chosen = equal(x, y)
        count = dims.product(x.type.shape[a] for a in axis)
        few = isinstance(count, int) and count <= FEW and dtypes.is_float(g.type.dtype)
        ties = sum(cast(chosen, g.type.dtype) if few else chosen, axis, keepdims=True)
        # a NaN equals nothing: without the 1 its row would divide by 0, and the next derivative would see 0/0
        share = div(g, cast(where(equal(ties, 0), 1, ties), g.type.dtype))
        return [where(chosen, share, 0)]


def check_not_empty(x: Type, axis: Axes, result: Type) -> None:
    """At build: an axis of length 0 has no largest value, unless there is no result at all."""
    if builtins.any(x.shape[a] == 0 for a in axis) and builtins.all(isinstance(s, int) and s != 0 for s in result.shape):
        raise GraphcValueError(f"no value along an axis of length 0 ({x}, axis {axis})")


def empty_result(name: str, x: Array, axis: Axes) -> None:
    """At run: the same for sizes known only now."""
    if builtins.all(s for i, s in enumerate(x.shape) if i not in axis):
        raise GraphcValueError(f"{name}: no value along an axis of length 0 (shape {x.shape}, axis {axis})")


class Logical(Reduction):
    """``all``, ``any`` of a bool operand."""

    takes = "b"

    def __init__(self, name: str, ufunc: np.ufunc) -> None:
        self.name, self.ufunc = name, ufunc
        self.examples = (
            Example([(3, 4)], {"axis": (0, 1), "keepdims": False}, "bool", gradient=False, numpy=lambda x: ufunc.reduce(x, axis=None)),
            Example([(2, 3)], {"axis": (1,), "keepdims": True}, "bool", gradient=False,
                    numpy=lambda x: ufunc.reduce(x, axis=1, keepdims=True)),
            Example([(2, 0)], {"axis": (1,), "keepdims": False}, "bool", gradient=False, numpy=lambda x: ufunc.reduce(x, axis=1)),
        )

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None]

    def connected(self, position: int, node: Node) -> bool:
        return False


class ArgExtremum(Reduction):
    """``argmax``, ``argmin``: the first index of the largest (smallest) value, int64; a NaN counts as it."""

    takes = "biuf"

    def __init__(self, name: str, fn: Any) -> None:
        self.name, self.fn = name, fn
        self.examples = (
            Example([(3, 4)], {"axis": (0, 1), "keepdims": False}, gradient=False, numpy=lambda x: fn(x)),
            Example([(2, 3)], {"axis": (1,), "keepdims": True}, gradient=False, numpy=lambda x: fn(x, 1, keepdims=True)),
            Example([(2, 5)], {"axis": (1,), "keepdims": False}, "int32", (0, 3), gradient=False, numpy=lambda x: fn(x, 1)),
            Example([(2, 3, 2)], {"axis": (0, 2), "keepdims": False}, gradient=False,
                    numpy=lambda x: fn(x.transpose(1, 0, 2).reshape(3, 4), 1)),
        )

    def infer(self, x: Type, *, axis: Axes, keepdims: bool) -> Type:  # type: ignore[override]
        result = super().infer(x, axis=axis, keepdims=keepdims)
        check_not_empty(x, axis, result)
        return result

    def result_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtypes.DTYPES["int64"]

    def forward(self, x: Array, *, axis: Axes, keepdims: bool) -> Array:  # type: ignore[override]
        kept = [i for i in range(x.ndim) if i not in axis]
        shape = [1 if i in axis else s for i, s in enumerate(x.shape) if keepdims or i not in axis]
        if x.size == 0:
            empty_result(self.name, x, axis)
            return np.zeros(shape, np.int64)
        rows = x.transpose(*kept, *axis).reshape([x.shape[i] for i in kept] + [-1])
        if x.dtype.name == "bfloat16":
            rows = rows.astype(np.float32)
        return np.asarray(self.fn(rows, axis=-1), np.int64).reshape(shape)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None]

    def connected(self, position: int, node: Node) -> bool:
        return False


sum_op, prod_op = Sum(), Prod()
max_op, min_op = Extremum("max", np.maximum), Extremum("min", np.minimum)
all_op, any_op = Logical("all", np.logical_and), Logical("any", np.logical_or)
argmax_op, argmin_op = ArgExtremum("argmax", np.argmax), ArgExtremum("argmin", np.argmin)
OPS: tuple[Op, ...] = (sum_op, prod_op, max_op, min_op, all_op, any_op, argmax_op, argmin_op, *cumulative.OPS)


def _reduce(op: Reduction, x: Any, axis: Any, keepdims: bool) -> Var:
    v = as_var(x)
    return apply(op, v, axis=axes_of(axis, v.type.ndim, op.name), keepdims=bool(keepdims))


def sum(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The sum; bool and small integers become 64 bits wide."""
    return _reduce(sum_op, x, axis, keepdims)


def prod(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The product; bool and small integers become 64 bits wide."""
    return _reduce(prod_op, x, axis, keepdims)


def max(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The largest value, NaN if there is one."""
    return _reduce(max_op, x, axis, keepdims)


def min(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The smallest value, NaN if there is one."""
    return _reduce(min_op, x, axis, keepdims)


def all(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """Are all values true (not 0)?"""
    return _reduce(all_op, cast(as_var(x), dtypes.DTYPES["bool"]), axis, keepdims)


def any(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """Is any value true (not 0)?"""
    return _reduce(any_op, cast(as_var(x), dtypes.DTYPES["bool"]), axis, keepdims)


def argmax(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The first index of the largest value."""
    return _reduce(argmax_op, x, axis, keepdims)


def argmin(x: Any, axis: Any = None, keepdims: bool = False) -> Var:
    """The first index of the smallest value."""
    return _reduce(argmin_op, x, axis, keepdims)


__all__ = [
    "OPS", "Reduction", "all", "all_op", "any", "any_op", "argmax", "argmax_op", "argmin", "argmin_op", "max", "max_op", "min", "min_op",
    "prod", "prod_op", "reduced_shape", "restored", "sum", "sum_op",
]
