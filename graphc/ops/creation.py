"""Ops that make values out of sizes: iota, eye, and the length of a range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Type, Var, apply
from graphc.ops.arithmetic import add, mul, sub
from graphc.ops.core import cast, constant, constant_value, dim_of, dim_op, is_door, size_args, sized_shape, sized_value
from graphc.ops.example import Example

INT = dtypes.DTYPES["int64"]


class Creation(Op):
    """What the ops of this file share: their operands are sizes and bounds, no derivative flows."""

    kind = "creation"
    flops = 0.0

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None] * len(inputs)

    def connected(self, position: int, node: Node) -> bool:
        return False


class Iota(Creation):
    """``iota(*size; shape, dtype)``: 0, 1, ..., n - 1; ``shape`` is (n,) or (None,)."""

    name = "iota"
    sized = True
    examples = (
        Example([], {"shape": (4,), "dtype": INT}, gradient=False, numpy=lambda: np.array([0, 1, 2, 3])),
        Example([], {"shape": (3,), "dtype": np.dtype("float32")}, gradient=False, numpy=lambda: np.array([0, 1, 2], np.float32)),
        Example([], {"shape": (0,), "dtype": INT}, gradient=False, numpy=lambda: np.array([], np.int64)),
    )

    def infer(self, *sizes: Type, shape: Sequence[Size | None], dtype: np.dtype[Any]) -> Type:  # type: ignore[override]
        if len(shape) != 1:
            raise GraphcTypeError(f"one size expected; got {tuple(shape)}")
        return Type(dtype, sized_shape(shape, sizes, self.name))

    def forward(self, *sizes: Array, shape: Sequence[int | None], dtype: np.dtype[Any]) -> Array:  # type: ignore[override]
        return np.arange(sized_value(shape, sizes, self.name)[0]).astype(dtype, copy=False)


class Eye(Creation):
    """``eye(*sizes; shape, k, dtype)``: 1 on the k-th diagonal, 0 elsewhere."""

    name = "eye"
    sized = True
    examples = (
        Example([], {"shape": (2, 3), "k": 1, "dtype": np.dtype("float64")}, gradient=False, numpy=lambda: np.array([[0., 1, 0], [0, 0, 1]])),
        Example([], {"shape": (3, 2), "k": -2, "dtype": np.dtype("bool")}, gradient=False, numpy=lambda: np.arange(6).reshape(3, 2) == 4),
    )

    def infer(self, *sizes: Type, shape: Sequence[Size | None], k: int, dtype: np.dtype[Any]) -> Type:  # type: ignore[override]
        if len(shape) != 2:
            raise GraphcTypeError(f"two sizes expected; got {tuple(shape)}")
        return Type(dtype, sized_shape(shape, sizes, self.name))

    def forward(self, *sizes: Array, shape: Sequence[int | None], k: int, dtype: np.dtype[Any]) -> Array:  # type: ignore[override]
        rows, columns = sized_value(shape, sizes, self.name)
        return np.eye(rows, columns, k).astype(dtype, copy=False)


class RangeLength(Creation):
    """``range_length(start, stop, step)``: how many numbers NumPy's arange(start, stop, step) gives; an int64 scalar."""

    name = "range_length"
    examples = (
        Example([(), (), ()], {}, "int64", ((-5, 5), (-5, 9), (1, 4)), gradient=False, numpy=lambda a, b, c: np.int64(len(range(a, b, c)))),
        Example([(), (), ()], {}, "float64", ((-5., 5.), (-5., 9.), (0.5, 4.)), gradient=False,
                numpy=lambda a, b, c: np.int64(len(np.arange(a, b, c)))),
    )

    def infer(self, start: Type, stop: Type, step: Type) -> Type:  # type: ignore[override]
        if any(t.ndim or t.dtype != start.dtype or t.dtype.kind == "c" for t in (start, stop, step)):
            raise GraphcTypeError(f"three real scalars of one dtype expected; got {start}, {stop}, {step}")
        return Type(INT, ())

    def forward(self, start: Array, stop: Array, step: Array) -> Array:  # type: ignore[override]
        return np.asarray(range_length(start.item(), stop.item(), step.item()), np.int64)


def range_length(start: Any, stop: Any, step: Any) -> int:
    """How many numbers a range gives; integers exactly, floats as NumPy counts them: ceil((stop - start) / step)."""
    if step == 0:
        raise GraphcValueError("arange: the step is not 0")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return len(range(start, stop, step))
    count = np.ceil((stop - start) / step)
    if not np.isfinite(count):
        raise GraphcValueError(f"arange: no finite number of steps of {step} leads from {start} to {stop}")
    return max(int(count), 0)


iota_op, eye_op, range_length_op = Iota(), Eye(), RangeLength()
OPS: tuple[Op, ...] = (iota_op, eye_op, range_length_op)


# ---- builders ---------------------------------------------------------------------------------


def shape_entries(shape: Any, what: str) -> tuple[Any, ...]:
    """A shape as users give it: a tuple or list of sizes, one size, or an int vector of known length."""
    if isinstance(shape, Var) and shape.type.ndim == 1:
        length = shape.type.shape[0]
        if not isinstance(length, int):
            raise GraphcTypeError(f"{what}: a shape has a known length; got {shape.describe()}")
        from graphc.ops.indexing import index
        return tuple(index(shape, i) for i in range(length))
    if isinstance(shape, np.ndarray) and shape.ndim == 1:
        return tuple(shape)
    return tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)


def iota(size: Any, dtype: np.dtype[Any] = INT) -> Var:
    """0, 1, ..., size - 1."""
    static, operands = size_args((size,), "iota")
    return apply(iota_op, *operands, shape=static, dtype=dtype)


def eye(rows: Any, columns: Any, k: int, dtype: np.dtype[Any]) -> Var:
    static, operands = size_args((rows, columns), "eye")
    return apply(eye_op, *operands, shape=static, k=k, dtype=dtype)


def arange(start: Any, stop: Any, step: Any, dtype: np.dtype[Any]) -> Var:
    """start + i * step for as long as it is before stop.  Bounds: numbers, Dims, scalar variables."""
    if dtypes.is_complex(dtype) or dtypes.is_bool(dtype):
        raise GraphcTypeError(f"arange: an integer or float dtype expected; got {dtype}")
    size: Any = _static_length(start, stop, step)
    first, delta = (_scalar(v, dtype) for v in (start, step))
    if size is None:
        bounds = [_scalar(v, _bound_dtype(start, stop, step)) for v in (start, stop, step)]
        size = apply(range_length_op, *bounds)
    counted = iota(size, dtype)
    if _constant(delta) != 1:
        if dtypes.is_float(dtype):
            delta = sub(add(first, delta), first)  # NumPy's: the rounded difference of the first two
        counted = mul(counted, delta)
    return counted if _constant(first) == 0 else add(counted, first)


def _constant(v: Var) -> Any:
    value = constant_value(v)
    return None if value is None else value.item() if value.dtype.kind != "V" else float(value)


def _bound_dtype(*bounds: Any) -> np.dtype[Any]:
    """Bounds are compared as integers if all are, else in float64."""
    whole = all(dtypes.is_integer(b.type.dtype) if isinstance(b, Var) else isinstance(b, (int, Dim, np.integer)) for b in bounds)
    return INT if whole else dtypes.DTYPES["float64"]


def _scalar(value: Any, dtype: np.dtype[Any]) -> Var:
    if isinstance(value, Dim):
        return cast(apply(dim_op, size=value), dtype)
    return cast(value, dtype) if isinstance(value, Var) else constant(value, dtype)


def _static_length(start: Any, stop: Any, step: Any) -> Size | None:
    """The length as an int or a formula of door dims, None where only the call can tell."""
    bounds: list[Any] = []
    for b in (start, stop, step):
        if isinstance(b, Var):
            value = _constant(b)
            b = dim_of(b) if value is None else value
        if b is None or (isinstance(b, Dim) and not is_door(b)):
            return None
        bounds.append(b.item() if isinstance(b, np.generic) else b)
    if not any(isinstance(b, Dim) for b in bounds):
        return range_length(*bounds)
    first, last, delta = bounds
    if not isinstance(delta, int) or delta == 0 or isinstance(first, float) or isinstance(last, float):
        return None
    distance = dims.dim_max(last - first if delta > 0 else first - last, 0)
    return dims.floordiv(distance + (abs(delta) - 1), abs(delta))


__all__ = ["OPS", "arange", "eye", "eye_op", "iota", "iota_op", "range_length_op", "shape_entries"]
