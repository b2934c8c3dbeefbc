"""Sliding windows, of which pooling is made: ``windows`` and its transpose ``overlap_add``.

    windows(x; window, strides, dilations, axes)               y[..., p, ..., k] = x[..., p * stride + k * dilation, ...]
    overlap_add(y; sizes, window, strides, dilations, axes)    x[..., i, ...] = sum of the y[..., p, ..., k] that stand at i

``axes``: the axes of x that windows slide along.  In the result they count positions, max(0, (size - dilation*(window - 1) - 1)//stride + 1)
of them, and one axis for each, of size ``window``, is added at the end.  ``sizes``: the sizes of x along them; a None is one that only a
node finds out: it is an operand behind the other.  Half precisions are added up in float32 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Size, size_text
from graphc.errors import GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.convolution import positions
from graphc.ops.core import shape_of, size_args, sized_shape, sized_value
from graphc.ops.cumulative import accumulator
from graphc.ops.example import Example

__all__ = ["OPS", "overlap_add", "overlap_add_op", "windows", "windows_op"]

Attrs = Mapping[str, Any]
Ints = tuple[int, ...]


def _shape(x: Sequence[Size], window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> tuple[Size, ...]:
    """The shape of the windows of a value of shape ``x``."""
    shape = list(x)
    for axis, k, stride, dilation in zip(axes, window, strides, dilations, strict=True):
        shape[axis] = positions(shape[axis], k, stride, (0, 0), dilation)
    return (*shape, *window)


def _checked(rank: int, window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> None:
    """Errors for attributes that do not describe windows of a value of this rank."""
    if list(axes) != sorted(set(axes)) or any(not 0 <= a < rank for a in axes):
        raise GraphcValueError(f"the attribute axes is {axes} for a value of rank {rank}: sorted axes >= 0 without repeats expected")
    if not len(window) == len(strides) == len(dilations) == len(axes) or any(n < 1 for n in (*window, *strides, *dilations)):
        raise GraphcValueError(f"{len(axes)} windows, strides and dilations >= 1 expected; got {window}, {strides} and {dilations}")


def _places(window: Ints, strides: Ints, dilations: Ints, axes: Ints, counts: Sequence[int], rank: int) -> Iterable[tuple[Any, Any]]:
    """For each position in a window: it as an index, and which elements of x are there, window by window."""
    for k in np.ndindex(window):
        at: list[Any] = [slice(None)] * rank
        for axis, j, stride, dilation in zip(axes, k, strides, dilations, strict=True):
            at[axis] = slice(j * dilation, j * dilation + (counts[axis] - 1) * stride + 1, stride) if counts[axis] else slice(0, 0)
        yield k, tuple(at)


def _pooled(x: Array, attrs: Attrs) -> Array:
    """The windows of an array, written out (for the examples)."""
    shape: Any = _shape(x.shape, **attrs)
    result = np.zeros(shape, x.dtype)
    for index in np.ndindex(shape):
        at = list(index[:x.ndim])
        for axis, k, stride, dilation in zip(attrs["axes"], index[x.ndim:], attrs["strides"], attrs["dilations"], strict=True):
            at[axis] = at[axis] * stride + k * dilation
        result[index] = x[tuple(at)]
    return result


def _added(y: Array, sizes: Ints, attrs: Attrs) -> Array:
    """The transpose, by its definition (for the examples): one entry of x after the other."""
    shape = list(y.shape[:y.ndim - len(sizes)])
    for axis, n in zip(attrs["axes"], sizes, strict=True):
        shape[axis] = n
    result = np.zeros(shape, y.dtype)
    for index in np.ndindex(*shape):
        unit = np.zeros(shape, bool)
        unit[index] = True
        result[index] = y[_pooled(unit, attrs)].sum(dtype=y.dtype)
    return result


def _geometry(window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> dict[str, Any]:
    return {"window": window, "strides": strides, "dilations": dilations, "axes": axes}


#: (shape, attributes, dtype, integers?)
_CASES: tuple[tuple[Ints, dict[str, Any], str], ...] = (
    ((2, 5), _geometry((3,), (1,), (1,), (1,)), "float64"),
    ((2, 3, 7), _geometry((2, 3), (1, 2), (1, 2), (1, 2)), "float64"),
    ((5, 2, 4), _geometry((2, 2), (3, 2), (1, 1), (0, 2)), "float64"),
    ((2, 4), _geometry((2,), (1,), (1,), (1,)), "complex128"),
    ((2, 2), _geometry((3,), (1,), (1,), (1,)), "float64"),
    ((0, 4), _geometry((2,), (2,), (1,), (1,)), "float64"),
    ((2, 4), _geometry((3,), (1,), (1,), (1,)), "int8"),
)


def _more(dtype: str) -> dict[str, Any]:
    return {"domain": (-9, 9), "gradient": False} if dtype == "int8" else {}


class Windows(Op):
    """``windows(x; window, strides, dilations, axes)``."""

    name = "windows"
    kind = "movement"
    linear = True
    flops = 0.0
    examples = tuple(Example([shape], attrs, dtype, numpy=lambda x, attrs=attrs: _pooled(x, attrs), **_more(dtype)) for shape, attrs, dtype in _CASES)

    def infer(self, x: Type, *, window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Type:  # type: ignore[override]
        _checked(x.ndim, window, strides, dilations, axes)
        return x.with_shape(_shape(x.shape, window, strides, dilations, axes))

    def forward(self, x: Array, *, window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Array:  # type: ignore[override]
        shape: Any = _shape(x.shape, window, strides, dilations, axes)
        result = np.empty(shape, x.dtype)
        for k, at in _places(window, strides, dilations, axes, shape, x.ndim):
            result[(..., *k)] = x[at]
        return result

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, window: Ints, strides: Ints,  # type: ignore[override]
              dilations: Ints, axes: Ints) -> Any:
        shape = shape_of(inputs[0])
        return [overlap_add(cotangents[0], [shape[a] for a in axes], window, strides, dilations, axes)]


class OverlapAdd(Op):
    """``overlap_add(y, *sizes; sizes, window, strides, dilations, axes)``; what no window reaches is 0."""

    name = "overlap_add"
    kind = "custom"
    linear = True
    examples = tuple(
        Example([_shape(shape, **attrs)], {"sizes": tuple(shape[a] for a in attrs["axes"]), **attrs}, dtype,  # type: ignore[misc, list-item]
                numpy=lambda y, shape=shape, attrs=attrs: _added(y, tuple(shape[a] for a in attrs["axes"]), attrs), **_more(dtype))
        for shape, attrs, dtype in _CASES)

    def infer(self, y: Type, *more: Type, sizes: Sequence[Size | None], window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Type:  # type: ignore[override]
        rank = y.ndim - len(axes)
        _checked(rank, window, strides, dilations, axes)
        full = sized_shape(sizes, more, self.name)
        if len(full) != len(axes):
            raise GraphcValueError(f"{len(axes)} sizes expected; got {full}")
        shape = list(y.shape[:rank])
        for axis, size in zip(axes, full, strict=True):
            shape[axis] = size
        want = _shape(shape, window, strides, dilations, axes)
        for axis, (a, b) in enumerate(zip(y.shape, want, strict=True)):
            if isinstance(a, int) and isinstance(b, int) and a != b:
                raise GraphcValueError(f"windows of {window} in axes {axes} of sizes {tuple(map(size_text, full))} have size {b} on axis {axis}; got {y}")
        return y.with_shape(tuple(shape))

    def forward(self, y: Array, *more: Array, sizes: Sequence[int | None], window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Array:  # type: ignore[override]
        rank = y.ndim - len(axes)
        shape = list(y.shape[:rank])
        for axis, size in zip(axes, sized_value(sizes, more, self.name), strict=True):
            shape[axis] = size
        if y.shape != _shape(shape, window, strides, dilations, axes):
            raise GraphcValueError(f"overlap_add: windows of {window} in the shape {tuple(shape)} expected; got the shape {y.shape}")
        result = np.zeros(shape, accumulator(y.dtype))
        with np.errstate(all="ignore"):
            for k, at in _places(window, strides, dilations, axes, y.shape, rank):
                result[at] += y[(..., *k)]
            return result.astype(y.dtype, copy=False)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, window: Ints, strides: Ints,  # type: ignore[override]
              dilations: Ints, axes: Ints, **_: Any) -> Any:
        return [windows(cotangents[0], window, strides, dilations, axes), *[None] * (len(inputs) - 1)]

    def connected(self, position: int, node: Node) -> bool:
        return position == 0

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        rank = types[0].ndim - len(attrs["axes"])
        shape: list[Any] = list(types[0].shape[:rank])
        for axis, size in zip(attrs["axes"], sized_shape(attrs["sizes"], types[1:], self.name), strict=True):
            shape[axis] = size
        want = _shape(shape, *(attrs[k] for k in ("window", "strides", "dilations", "axes")))
        for a, b in zip(types[0].shape, want, strict=True):
            if a != b:
                yield Relation("equal", a, b)


windows_op, overlap_add_op = Windows(), OverlapAdd()
OPS: tuple[Op, ...] = (windows_op, overlap_add_op)


def windows(x: Var, window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Var:
    """What windows see that slide along ``axes``; all are tuples of ints, one for each axis."""
    return apply(windows_op, x, window=window, strides=strides, dilations=dilations, axes=axes)


def overlap_add(y: Var, sizes: Sequence[Any], window: Ints, strides: Ints, dilations: Ints, axes: Ints) -> Var:
    """What windows hold, added up where they stand in a value of these ``sizes`` (ints, dims, scalar variables) along ``axes``."""
    static, operands = size_args(sizes, "overlap_add")
    return apply(overlap_add_op, y, *operands, sizes=static, window=window, strides=strides, dilations=dilations, axes=axes)
