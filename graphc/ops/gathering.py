"""Ops that find positions and use them along one axis: nonzero, repeat and pad positions, take_along_axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.broadcasting import broadcast_shapes, broadcast_to
from graphc.ops.core import axis_of, is_door, shape_of, size_args, sized_shape, sized_value
from graphc.ops.example import Example
from graphc.ops.movement import shape_text, zeros_of

Attrs = Mapping[str, Any]
INT = dtypes.DTYPES["int64"]


class Positions(Op):
    """What the ops that make positions share: integers, no derivative."""

    kind = "indexing"

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None] * len(inputs)

    def connected(self, position: int, node: Node) -> bool:
        return False


class Nonzero(Positions):
    """``nonzero(x, *sizes; shape)``: where ``x`` is not 0: int64 [rank, count], positions in C order, one row per axis.

    ``shape`` is () or the shape that ``x`` must have, as the mask of an array of that shape.
    """

    name = "nonzero"
    sized = True
    examples = (
        Example([(7,)], {"shape": ()}, "bool", gradient=False, numpy=lambda x: np.array([[i for i, v in enumerate(x) if v]], dtype=np.int64)),
        Example([(3, 4)], {"shape": (3, 4)}, "int64", (-1, 2), gradient=False, numpy=lambda x: np.argwhere(x).T),
        Example([(0, 2)], {"shape": ()}, "float64", gradient=False, numpy=lambda x: np.zeros((2, 0), np.int64)),
    )

    def infer(self, x: Type, *sizes: Type, shape: Sequence[Size | None]) -> Type:  # type: ignore[override]
        if x.ndim == 0:
            raise GraphcValueError("a scalar has no positions; reshape it to (1,) first")
        if shape:
            self._check(x.shape, sized_shape(shape, sizes, self.name))
        return Type(INT, (x.ndim, dims.fresh("data")))

    def forward(self, x: Array, *sizes: Array, shape: Sequence[int | None]) -> Array:  # type: ignore[override]
        if shape:
            self._check(x.shape, sized_value(shape, sizes, self.name))
        found = np.nonzero(x.astype(np.float32) if x.dtype.kind == "V" else x)
        return np.stack(found).astype(np.int64, copy=False)

    @staticmethod
    def _check(mask: Sequence[Size], axes: Sequence[Size]) -> None:
        if len(mask) != len(axes) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(mask, axes, strict=True)):
            raise GraphcIndexError(f"a mask of shape {shape_text(mask)} for axes of shape {shape_text(axes)}; they must agree")

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        for a, b in zip(types[0].shape, attrs["shape"], strict=False):
            if b is not None and a != b and is_door(a):
                yield Relation("equal", a, b)


class RepeatIndex(Positions):
    """``repeat_index(counts)``: 0 ``counts[0]`` times, then 1 ``counts[1]`` times, ...: int64, its length known at run time."""

    name = "repeat_index"
    examples = (
        Example([(3,)], {}, "int64", (0, 4), gradient=False, numpy=lambda c: np.array([i for i, n in enumerate(c) for _ in range(n)], np.int64)),
    )

    def infer(self, counts: Type) -> Type:  # type: ignore[override]
        if counts.ndim != 1 or not dtypes.is_integer(counts.dtype):
            raise GraphcTypeError(f"a vector of integers expected; got {counts}")
        return Type(INT, (dims.fresh("data"),))

    def forward(self, counts: Array) -> Array:  # type: ignore[override]
        if np.any(counts < 0):
            raise GraphcValueError("repeat: counts are not negative")
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)


class PadIndex(Positions):
    """``pad_index(*size; shape, before, after, mode)``: which of n elements stand at the positions of the padded axis.

    int64 [before + n + after]; ``shape`` is (n,) or (None,).  Modes: edge, reflect, symmetric, wrap.
    """

    name = "pad_index"
    sized = True
    examples = (
        Example([], {"shape": (3,), "before": 1, "after": 2, "mode": "edge"}, gradient=False, numpy=lambda: np.array([0, 0, 1, 2, 2, 2])),
        Example([], {"shape": (3,), "before": 4, "after": 1, "mode": "reflect"}, gradient=False, numpy=lambda: np.array([0, 1, 2, 1, 0, 1, 2, 1])),
    )

    def infer(self, *sizes: Type, shape: Sequence[Size | None], before: int, after: int, mode: str) -> Type:  # type: ignore[override]
        n, = sized_shape(shape, sizes, self.name)
        return Type(INT, (n + (before + after),))

    def forward(self, *sizes: Array, shape: Sequence[int | None], before: int, after: int, mode: str) -> Array:  # type: ignore[override]
        n, = sized_value(shape, sizes, self.name)
        if n == 0 and before + after:
            raise GraphcValueError(f"pad: an axis of size 0 cannot be padded in mode {mode!r}")
        return np.pad(np.arange(n, dtype=np.int64), (before, after), mode=mode)  # type: ignore[call-overload,no-any-return]


# ---- one position per element, along one axis -------------------------------------------------


class AlongAxis(Op):
    """What the ops below share: positions of the rank of ``x``, equal to it in every axis but one."""

    kind = "indexing"
    linear = True
    flops = 0.0
    nvalues = 1

    def check(self, x: Type, positions: Type, axis: int) -> None:
        if not dtypes.is_integer(positions.dtype):
            raise GraphcTypeError(f"positions are integers; got {positions}")
        if positions.ndim != x.ndim or not 0 <= axis < x.ndim:
            raise GraphcIndexError(f"positions of rank {positions.ndim} along axis {axis} of a value of rank {x.ndim}: the ranks must agree")
        for i, (a, b) in enumerate(zip(x.shape, positions.shape, strict=True)):
            if i != axis and isinstance(a, int) and isinstance(b, int) and a != b:
                raise GraphcValueError(f"sizes {a} and {b} of axis {i} differ")

    def key(self, x: Array, positions: Array, axis: int) -> tuple[Array, ...]:
        for i, (a, b) in enumerate(zip(x.shape, positions.shape, strict=True)):
            if i != axis and a != b:
                raise GraphcValueError(f"{self.name}: sizes {a} and {b} of axis {i} differ")
        grids = np.ogrid[tuple(slice(n) for n in positions.shape)]
        return tuple(positions if i == axis else grid for i, grid in enumerate(grids))

    def connected(self, position: int, node: Node) -> bool:
        return position < self.nvalues and dtypes.is_inexact(node.inputs[0].type.dtype)

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        for i, (a, b) in enumerate(zip(types[0].shape, types[-1].shape, strict=True)):
            if i != attrs["axis"] and a != b and is_door(a) and is_door(b):
                yield Relation("equal", a, b)


def _along(x: Array, i: Array, *, axis: int) -> Array:
    return np.moveaxis(np.array([r[k] for r, k in zip(
        np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis]), np.moveaxis(i, axis, -1).reshape(-1, i.shape[axis]), strict=True)])
        .reshape(np.moveaxis(i, axis, -1).shape), -1, axis)


class TakeAlongAxis(AlongAxis):
    """``take_along_axis(x, positions; axis)``: element [i, j] is ``x[i, positions[i, j]]`` (for axis 1)."""

    name = "take_along_axis"
    examples: tuple[Example, ...] = (
        Example([(3, 4), (3, 2)], {"axis": 1}, ("float64", "int64"), ((-3.0, 3.0), (-4, 4)), numpy=lambda x, i: _along(x, i, axis=1)),
        Example([(4, 2), (5, 2)], {"axis": 0}, ("float64", "int64"), ((-3.0, 3.0), (-4, 4)), numpy=lambda x, i: _along(x, i, axis=0)),
    )

    def infer(self, x: Type, positions: Type, *, axis: int) -> Type:  # type: ignore[override]
        self.check(x, positions, axis)
        return x.with_shape(positions.shape)

    def forward(self, x: Array, positions: Array, *, axis: int) -> Array:  # type: ignore[override]
        return x[self.key(x, positions, axis)]

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axis: int) -> Any:  # type: ignore[override]
        return [apply(inc_along_axis_op, zeros_of(inputs[0]), cotangents[0], inputs[1], axis=axis), None]


class TakeWithin(TakeAlongAxis):
    """``take_within(x, positions; axis)``: ``take_along_axis`` at positions that ``within`` has checked.  Made by ``expand``.

    Along the other axes ``x`` may have size 1, and is broadcast to the positions.
    """

    name = "take_within"
    examples = (
        Example([(3, 4), (3, 2)], {"axis": 1}, ("float64", "int64"), ((-3.0, 3.0), (0, 4)), gradient=False, numpy=lambda x, i: _along(x, i, axis=1)),
        Example([(4, 2), (5, 2)], {"axis": 0}, ("float64", "int64"), ((-3.0, 3.0), (0, 4)), gradient=False, numpy=lambda x, i: _along(x, i, axis=0)),
        Example([(1, 4), (3, 2)], {"axis": 1}, ("float64", "int64"), ((-3.0, 3.0), (0, 4)), gradient=False,
                numpy=lambda x, i: _along(np.repeat(x, 3, 0), i, axis=1)),
    )

    def infer(self, x: Type, positions: Type, *, axis: int) -> Type:  # type: ignore[override]
        wide = positions.with_shape(tuple(1 if dims.is_one(a) and i != axis else b for i, (a, b) in enumerate(zip(x.shape, positions.shape, strict=True))))
        self.check(x, wide, axis)
        return x.with_shape(positions.shape)

    def forward(self, x: Array, positions: Array, *, axis: int) -> Array:  # type: ignore[override]
        shape = [n if i == axis else m for i, (n, m) in enumerate(zip(x.shape, positions.shape, strict=True))]
        return super().forward(np.broadcast_to(x, shape), positions, axis=axis)

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        for i, (a, b) in enumerate(zip(types[0].shape, types[1].shape, strict=True)):
            if i != attrs["axis"] and a != b and not dims.is_one(a) and is_door(a) and is_door(b):
                yield Relation("equal", a, b)

    def connected(self, position: int, node: Node) -> bool:
        return False


class Within(Positions):
    """``within(positions; size)``: the positions as numbers from 0 to size - 1; an IndexError where one is outside -size ... size - 1."""

    name = "within"
    examples = (
        Example([(3, 4)], {"size": 5}, "int64", (-5, 5), gradient=False, numpy=lambda p: p % 5),
        Example([(2,)], {"size": 300}, "uint8", (0, 9), gradient=False, numpy=lambda p: p.astype(np.int64)),
    )

    def infer(self, positions: Type, *, size: Size) -> Type:  # type: ignore[override]
        if not dtypes.is_integer(positions.dtype):
            raise GraphcTypeError(f"positions are integers; got {positions}")
        return positions.with_dtype(INT)

    def forward(self, positions: Array, *, size: int) -> Array:  # type: ignore[override]
        bad = np.asarray((positions < -size) | (positions >= size)) if positions.dtype.kind == "i" else np.asarray(positions >= size)
        if bool(bad.any()):
            raise GraphcIndexError(f"index {positions[bad].flat[0]} is out of range for an axis of size {size}")
        wide = positions.astype(np.int64)
        return np.asarray(np.where(wide < 0, wide + size, wide))


class AssignAlongAxis(AlongAxis):
    """``set_along_axis(x, y, positions; axis)``, ``inc_along_axis(...)``: what ``take_along_axis`` reads, replaced or increased.

    Where a position comes twice, increments add up and of values set the last stays; the
    gradient of ``set`` with respect to a value that was replaced is not 0 but that of its place.
    """

    nvalues = 2

    def __init__(self, name: str, increment: bool) -> None:
        self.name, self.increment = name, increment

        def write(x: Array, y: Array, i: Array) -> Array:
            result = x.copy()
            for row, column in np.ndindex(i.shape):
                result[row, i[row, column]] = y[row, column] + (result[row, i[row, column]] if increment else 0)
            return result

        domain = ((-3.0, 3.0), (-3.0, 3.0), (-4, 4))
        self.examples = (
            Example([(3, 4), (3, 1), (3, 1)], {"axis": 1}, ("float64", "float64", "int64"), domain, numpy=write),
            Example([(3, 4), (3, 6), (3, 6)], {"axis": 1}, ("float64", "float64", "int64"), domain, gradient=increment, numpy=write),
        )

    def infer(self, x: Type, y: Type, positions: Type, *, axis: int) -> Type:  # type: ignore[override]
        self.check(x, positions, axis)
        if y.dtype != x.dtype:
            raise GraphcTypeError(f"values of the dtype of the array expected; got {x} and {y}")
        if y.ndim != x.ndim or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(y.shape, positions.shape, strict=True)):
            raise GraphcValueError(f"values of shape {shape_text(y.shape)} for positions of shape {shape_text(positions.shape)}")
        return x

    def forward(self, x: Array, y: Array, positions: Array, *, axis: int) -> Array:  # type: ignore[override]
        key, result = self.key(x, positions, axis), x.copy()
        if y.shape != positions.shape:
            raise GraphcValueError(f"{self.name}: values of shape {y.shape} for positions of shape {positions.shape}")
        if not self.increment:
            result[key] = y
        elif x.dtype.kind == "V":  # bfloat16: NumPy has no add.at for it
            wide = x.astype(np.float32)
            np.add.at(wide, key, y.astype(np.float32))
            return wide.astype(x.dtype)
        else:
            np.add.at(result, key, y)
        return result

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        g, positions = cotangents[0], inputs[2]
        if position == 0:
            return g if self.increment else apply(self, g, zeros_of(inputs[1]), positions, **attrs)
        return apply(take_along_axis_op, g, positions, **attrs) if position == 1 else None

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        yield from super().relations(types, attrs)
        for a, b in zip(types[1].shape, types[2].shape, strict=True):
            if a != b and is_door(a) and is_door(b):
                yield Relation("equal", a, b)


nonzero_op, repeat_index_op, pad_index_op = Nonzero(), RepeatIndex(), PadIndex()
take_along_axis_op, take_within_op, within_op = TakeAlongAxis(), TakeWithin(), Within()
set_along_axis_op, inc_along_axis_op = AssignAlongAxis("set_along_axis", False), AssignAlongAxis("inc_along_axis", True)
OPS: tuple[Op, ...] = (
    nonzero_op, repeat_index_op, pad_index_op, take_along_axis_op, take_within_op, within_op, set_along_axis_op, inc_along_axis_op)


# ---- builders ---------------------------------------------------------------------------------


def nonzero(x: Var, shape: Sequence[Any] = ()) -> Var:
    """The positions where ``x`` is not 0, [rank, count]; ``shape`` is the shape that it must have."""
    static, operands = size_args(shape, "mask")
    return apply(nonzero_op, x, *operands, shape=static)


def take_along_axis(x: Var, positions: Var, axis: int) -> Var:
    """NumPy's: one position along ``axis`` for each element; the other axes broadcast."""
    if positions.type.ndim != x.type.ndim:
        raise GraphcIndexError(
            f"take_along_axis: positions of rank {positions.type.ndim} for a value of rank {x.type.ndim}: the ranks must agree")
    a = axis_of(axis, x.type.ndim, "take_along_axis")
    xs, ps = list(x.type.shape), list(positions.type.shape)
    n, m = xs[a], ps[a]
    xs[a] = ps[a] = 1
    if xs != ps:
        try:
            both = list(broadcast_shapes(xs, ps))
        except GraphcValueError as error:
            raise GraphcValueError(f"take_along_axis: {error.message}") from None
        x, positions = _stretch(x, both, a, n), _stretch(positions, both, a, m)
    return apply(take_along_axis_op, x, positions, axis=a)


def _stretch(v: Var, shape: Sequence[Size], axis: int, own: Size) -> Var:
    """``v`` broadcast to ``shape`` but for one axis; sizes that a node finds out stay its own."""
    target = [s if is_door(s) else here for s, here in zip(shape, shape_of(v), strict=True)]
    target[axis] = own if is_door(own) else shape_of(v)[axis]
    return broadcast_to(v, target)


__all__ = [
    "OPS", "inc_along_axis_op", "nonzero", "nonzero_op", "pad_index_op", "repeat_index_op", "take_along_axis", "take_along_axis_op",
    "take_within_op", "within_op",
]
