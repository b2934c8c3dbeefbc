"""Ops that move elements without computing: reshape, transpose, axes, flip, roll, diagonals, triangles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Dim, Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.core import axes_of, axis_of, constant, is_door, shape_of, size_args, sized_shape, sized_value
from graphc.ops.example import Example

Attrs = Mapping[str, Any]


class Movement(Op):
    """What the ops of this file share: operand 0 is moved, any other operand is a size."""

    kind = "movement"
    linear = True
    flops = 0.0

    def connected(self, position: int, node: Node) -> bool:
        return position == 0


def shape_text(shape: Iterable[Any]) -> str:
    """A shape for a message: ``(n, 3)``."""
    parts = ["?" if s is None else dims.size_text(s) for s in shape]
    return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"


# ---- reshape ----------------------------------------------------------------------------------


class Reshape(Movement):
    """``reshape(x, *sizes; shape)``: the same elements in C order under another shape.

    One entry of ``shape`` may be -1, "what is left", where no formula of door dims gives it.
    """

    name = "reshape"
    sized = True
    view = True
    examples = (
        Example([(2, 6)], {"shape": (3, 4)}, dtypes="float64", numpy=lambda x: x.reshape(3, 4)),
        Example([(2, 3)], {"shape": (-1,)}, numpy=lambda x: x.ravel()),
        Example([(1,)], {"shape": ()}, numpy=lambda x: x[0]),
        Example([(2, 0)], {"shape": (0, 5)}, numpy=lambda x: np.zeros((0, 5))),
        Example([(6,)], {"shape": (2, 3)}, dtypes="int64", domain=(-9, 9), gradient=False, numpy=lambda x: np.stack([x[:3], x[3:]])),
    )

    def infer(self, x: Type, *sizes: Type, shape: Sequence[Size | None]) -> Type:  # type: ignore[override]
        full = list(sized_shape(shape, sizes, self.name))
        if -1 in shape:
            full[shape.index(-1)] = left_over(x.shape, shape, full)
        have, want = dims.product(x.shape), dims.product(full)
        if isinstance(have, int) and isinstance(want, int) and have != want:
            raise GraphcValueError(f"{have} elements of shape {shape_text(x.shape)} do not fit the shape {shape_text(shape)}, which has {want}")
        return x.with_shape(tuple(full))

    def forward(self, x: Array, *sizes: Array, shape: Sequence[int | None]) -> Array:  # type: ignore[override]
        hole = shape.index(-1) if -1 in shape else None
        target = list(sized_value([1 if s == -1 else s for s in shape], sizes, self.name))
        if hole is not None:
            others = int(np.prod(target, dtype=np.int64))
            target[hole] = x.size // others if others else 0
        if int(np.prod(target, dtype=np.int64)) != x.size:
            raise GraphcValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit the shape {tuple(target)}")
        return x.reshape(target)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [reshape(cotangents[0], shape_of(inputs[0])), *[None] * (len(inputs) - 1)]

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        shape = attrs["shape"]
        if None not in shape and -1 not in shape:
            have, want = dims.product(types[0].shape), dims.product(shape)
            if have != want and is_door(have) and is_door(want):
                yield Relation("equal", have, want)


def left_over(have: Sequence[Size], shape: Sequence[Size | None], full: Sequence[Size]) -> Size:
    """The size that -1 stands for in ``shape``; ``full`` is ``shape`` with symbols for None."""
    rest = [s for s, given in zip(full, shape, strict=True) if given != -1]
    total = dims.product(have)
    others = dims.product(rest)
    if others == 0:
        raise GraphcValueError(f"-1 in the shape {shape_text(shape)} beside a size 0 could be anything; write the size out")
    if isinstance(total, int) and isinstance(others, int) and total % others:
        raise GraphcValueError(f"{total} elements of shape {shape_text(have)} do not fit the shape {shape_text(shape)}")
    # sizes common to both sides cancel, so that (n + 1, 6) -> (n + 1, 2, -1) has no division by n + 1
    left = list(have)
    for size in list(rest):
        if size in left:
            left.remove(size)
            rest.remove(size)
    return dims.floordiv(dims.product(left), dims.product(rest))


def reshape(x: Var, shape: Sequence[Any]) -> Var:
    """``x`` with another shape; one entry may be -1.  ``x`` itself where the type already has that shape."""
    entries = list(shape)
    holes = [i for i, s in enumerate(entries) if not isinstance(s, (Var, Dim, str)) and s is not None and s == -1]
    if len(holes) > 1:
        raise GraphcValueError(f"reshape: only one size may be -1; got {tuple(entries)}")
    if holes:
        entries[holes[0]] = 1
    static, operands = size_args(entries, "reshape")
    if holes:
        static = tuple(-1 if i == holes[0] else s for i, s in enumerate(static))
        if not operands:
            size = left_over(x.type.shape, static, [0 if s is None else s for s in static])
            if is_door(size):
                static = tuple(size if s == -1 else s for s in static)
    if x.type.shape == static:
        return x
    return apply(reshape_op, x, *operands, shape=static)


# ---- the order and number of axes -------------------------------------------------------------


class Transpose(Movement):
    """``transpose(x; axes)``: axis i of the result is axis ``axes[i]`` of ``x``."""

    name = "transpose"
    view = True
    examples = (
        Example([(2, 3)], {"axes": (1, 0)}, numpy=lambda x: np.array([[x[i, j] for i in range(2)] for j in range(3)])),
        Example([(2, 3, 4)], {"axes": (2, 0, 1)}, numpy=lambda x: np.moveaxis(x, 2, 0)),
        Example([(2, 0, 3)], {"axes": (1, 2, 0)}, gradient=False, numpy=lambda x: np.zeros((0, 3, 2))),
    )

    def infer(self, x: Type, *, axes: tuple[int, ...]) -> Type:  # type: ignore[override]
        if sorted(axes) != list(range(x.ndim)):
            raise GraphcValueError(f"axes {axes} do not name each of the {x.ndim} axes once")
        return x.with_shape(tuple(x.shape[a] for a in axes))

    def forward(self, x: Array, *, axes: tuple[int, ...]) -> Array:  # type: ignore[override]
        return np.transpose(x, axes)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axes: tuple[int, ...]) -> Any:  # type: ignore[override]
        return [transpose(cotangents[0], inverse(axes))]


def inverse(axes: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes ``axes``."""
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


class ExpandDims(Movement):
    """``expand_dims(x; axes)``: new axes of size 1 at these (sorted) positions of the result."""

    name = "expand_dims"
    view = True
    examples = (
        Example([(2, 3)], {"axes": (1,)}, numpy=lambda x: x[:, None, :]),
        Example([(3,)], {"axes": (0, 2)}, numpy=lambda x: x[None, :, None]),
        Example([()], {"axes": (0,)}, numpy=lambda x: np.array([x])),
    )

    def infer(self, x: Type, *, axes: tuple[int, ...]) -> Type:  # type: ignore[override]
        rank = x.ndim + len(axes)
        if list(axes) != sorted(set(axes)) or (axes and not 0 <= axes[0] <= axes[-1] < rank):
            raise GraphcValueError(f"axes {axes} are not sorted positions in a result of rank {rank}")
        rest = iter(x.shape)
        return x.with_shape(tuple(1 if i in axes else next(rest) for i in range(rank)))

    def forward(self, x: Array, *, axes: tuple[int, ...]) -> Array:  # type: ignore[override]
        return np.expand_dims(x, axes)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axes: tuple[int, ...]) -> Any:  # type: ignore[override]
        return [squeeze(cotangents[0], axes)]


class Squeeze(Movement):
    """``squeeze(x; axes)``: without these axes, whose size must be 1."""

    name = "squeeze"
    view = True
    examples = (
        Example([(2, 1, 3)], {"axes": (1,)}, numpy=lambda x: x[:, 0, :]),
        Example([(1, 3, 1)], {"axes": (0, 2)}, numpy=lambda x: x[0, :, 0]),
        Example([(1,)], {"axes": (0,)}, numpy=lambda x: x[0]),
    )

    def infer(self, x: Type, *, axes: tuple[int, ...]) -> Type:  # type: ignore[override]
        for a in axes:
            size = x.shape[a]
            if not dims.may_be_one(size):
                raise GraphcValueError(f"only an axis of size 1 can be removed; axis {a} has size {dims.size_text(size)}")
        return x.with_shape(tuple(s for i, s in enumerate(x.shape) if i not in axes))

    def forward(self, x: Array, *, axes: tuple[int, ...]) -> Array:  # type: ignore[override]
        for a in axes:
            if x.shape[a] != 1:
                raise GraphcValueError(f"squeeze: only an axis of size 1 can be removed; axis {a} has size {x.shape[a]}")
        return np.squeeze(x, axis=axes)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axes: tuple[int, ...]) -> Any:  # type: ignore[override]
        return [expand_dims(cotangents[0], axes)]

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        for a in attrs["axes"]:
            size = types[0].shape[a]
            if not isinstance(size, int) and is_door(size):
                yield Relation("equal", size, 1)


# ---- the order of elements along axes ---------------------------------------------------------


class Flip(Movement):
    """``flip(x; axes)``: the elements along these axes in reverse order."""

    name = "flip"
    view = True
    involution = True
    examples = (
        Example([(4,)], {"axes": (0,)}, numpy=lambda x: x[::-1]),
        Example([(2, 3)], {"axes": (0, 1)}, numpy=lambda x: x[::-1, ::-1]),
    )

    def infer(self, x: Type, *, axes: tuple[int, ...]) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: Array, *, axes: tuple[int, ...]) -> Array:  # type: ignore[override]
        return np.flip(x, axes)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, axes: tuple[int, ...]) -> Any:  # type: ignore[override]
        return [flip(cotangents[0], axes)]


class Roll(Movement):
    """``roll(x; shifts, axes)``: element i goes to position (i + shift) mod n along each axis."""

    name = "roll"
    examples = (
        Example([(5,)], {"shifts": (2,), "axes": (0,)}, numpy=lambda x: np.concatenate([x[3:], x[:3]])),
        Example([(3, 4)], {"shifts": (-1, 9), "axes": (0, 1)}, numpy=lambda x: np.roll(x, (-1, 9), (0, 1))),
        Example([(0, 2)], {"shifts": (1,), "axes": (0,)}, gradient=False, numpy=lambda x: x),
    )

    def infer(self, x: Type, *, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: Array, *, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Array:  # type: ignore[override]
        return np.roll(x, shifts, axes)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, shifts: tuple[int, ...],  # type: ignore[override]
              axes: tuple[int, ...]) -> Any:
        return [roll(cotangents[0], tuple(-s for s in shifts), axes)]


# ---- diagonals and triangles ------------------------------------------------------------------


class Diagonal(Movement):
    """``diagonal(x; offset, axis1, axis2)``: elements [..., i, i + offset] as a new last axis."""

    name = "diagonal"
    view = True
    examples = (
        Example([(3, 4)], {"offset": 1, "axis1": 0, "axis2": 1}, numpy=lambda x: np.array([x[i, i + 1] for i in range(3)])),
        Example([(4, 2, 3)], {"offset": -1, "axis1": 0, "axis2": 2}, numpy=lambda x: np.stack([x[i + 1, :, i] for i in range(3)], -1)),
        Example([(2, 2)], {"offset": 5, "axis1": 0, "axis2": 1}, gradient=False, numpy=lambda x: x[0, :0]),
    )

    def infer(self, x: Type, *, offset: int, axis1: int, axis2: int) -> Type:  # type: ignore[override]
        if x.ndim < 2 or axis1 == axis2:
            raise GraphcValueError(f"a diagonal runs along two axes; got axes {axis1} and {axis2} of a value of rank {x.ndim}")
        rows, columns = x.shape[axis1], x.shape[axis2]
        kept = tuple(s for i, s in enumerate(x.shape) if i not in (axis1, axis2))
        return x.with_shape((*kept, diagonal_size(rows, columns, offset)))

    def forward(self, x: Array, *, offset: int, axis1: int, axis2: int) -> Array:  # type: ignore[override]
        return np.diagonal(x, offset, axis1, axis2)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, offset: int, axis1: int,  # type: ignore[override]
              axis2: int) -> Any:
        return [place_diagonal(cotangents[0], shape_of(inputs[0]), offset, axis1, axis2)]


def diagonal_size(rows: Size, columns: Size, offset: int) -> Size:
    """How long the diagonal is."""
    rows, columns = rows + min(offset, 0), columns - max(offset, 0)
    return dims.dim_max(dims.dim_min(rows, columns), 0)


class PlaceDiagonal(Movement):
    """``place_diagonal(d, *sizes; shape, offset, axis1, axis2)``: zeros of ``shape`` but for that diagonal; adjoint of ``diagonal``."""

    name = "place_diagonal"
    sized = True
    examples = (
        Example([(3,)], {"shape": (3, 4), "offset": 1, "axis1": 0, "axis2": 1}, numpy=lambda d: np.diag(d, 1)[:3]),
        Example([(2, 3)], {"shape": (4, 2, 3), "offset": -1, "axis1": 0, "axis2": 2},
                numpy=lambda d: np.stack([np.diag(r, -1)[:, :3] for r in d], 1)),
    )

    def infer(self, d: Type, *sizes: Type, shape: Sequence[Size | None], offset: int, axis1: int, axis2: int) -> Type:  # type: ignore[override]
        full = sized_shape(shape, sizes, self.name)
        if len(full) != d.ndim + 1 or axis1 == axis2:
            raise GraphcValueError(f"the shape of a value with diagonals of rank {d.ndim} has {d.ndim + 1} entries; got {shape_text(shape)}")
        return d.with_shape(full)

    def forward(self, d: Array, *sizes: Array, shape: Sequence[int | None], offset: int, axis1: int, axis2: int) -> Array:  # type: ignore[override]
        full = np.zeros(sized_value(shape, sizes, self.name), d.dtype)
        view = np.moveaxis(full, (axis1, axis2), (-2, -1))
        i = np.arange(int(diagonal_size(view.shape[-2], view.shape[-1], offset)))
        region = view[..., i - min(offset, 0), i + max(offset, 0)]
        if region.shape != d.shape:
            raise GraphcValueError(f"place_diagonal: a diagonal of shape {d.shape} where the shape {full.shape} has one of {region.shape}")
        view[..., i - min(offset, 0), i + max(offset, 0)] = d
        return full

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, shape: Any, offset: int,  # type: ignore[override]
              axis1: int, axis2: int) -> Any:
        return [diagonal(cotangents[0], offset, axis1, axis2), *[None] * (len(inputs) - 1)]


class Triangle(Movement):
    """``tril(x; k)``, ``triu(x; k)``: zero above (below) the k-th diagonal of the last two axes; nan there becomes 0 too."""

    idempotent = True

    def __init__(self, name: str, lower: bool) -> None:
        self.name, self.lower = name, lower
        loop = np.array([[(j <= i) if lower else (j >= i) for j in range(4)] for i in range(3)])
        self.examples = (
            Example([(3, 4)], {"k": 0}, numpy=lambda x: np.where(loop, x, 0)),
            Example([(2, 3, 3)], {"k": 1}, numpy=lambda x: (np.tril if lower else np.triu)(x, 1)),
            Example([(3, 2)], {"k": -2}, numpy=lambda x: (np.tril if lower else np.triu)(x, -2)),
            Example([(2, 2)], {"k": 0}, dtypes="complex128", numpy=np.tril if lower else np.triu),
        )

    def infer(self, x: Type, *, k: int) -> Type:  # type: ignore[override]
        if x.ndim < 2:
            raise GraphcValueError(f"a triangle is taken of the last two axes; got a value of rank {x.ndim}")
        return x

    def forward(self, x: Array, *, k: int) -> Array:  # type: ignore[override]
        keep = np.tri(x.shape[-2], x.shape[-1], k if self.lower else k - 1, dtype=bool)
        return np.where(keep if self.lower else ~keep, x, np.zeros((), x.dtype))

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], *, k: int) -> Any:  # type: ignore[override]
        return [apply(self, cotangents[0], k=k)]


reshape_op, transpose_op, expand_dims_op, squeeze_op = Reshape(), Transpose(), ExpandDims(), Squeeze()
flip_op, roll_op, diagonal_op, place_diagonal_op = Flip(), Roll(), Diagonal(), PlaceDiagonal()
tril_op, triu_op = Triangle("tril", True), Triangle("triu", False)
OPS: tuple[Op, ...] = (
    reshape_op, transpose_op, expand_dims_op, squeeze_op, flip_op, roll_op, diagonal_op, place_diagonal_op, tril_op, triu_op)


# ---- builders ---------------------------------------------------------------------------------


def transpose(x: Var, axes: Sequence[int] | None = None) -> Var:
    """Axes in another order; reversed by default."""
    rank = x.type.ndim
    order = tuple(reversed(range(rank))) if axes is None else tuple(axis_of(a, rank, "transpose") for a in axes)
    if order == tuple(range(rank)):
        return x
    return apply(transpose_op, x, axes=order)


def expand_dims(x: Var, axes: Sequence[int] | int) -> Var:
    """New axes of size 1 at these positions of the result (negative ones count from its end)."""
    given = axes if isinstance(axes, (tuple, list)) else (axes,)
    where = axes_of(tuple(given), x.type.ndim + len(given), "expand_dims")
    return apply(expand_dims_op, x, axes=where) if where else x


def squeeze(x: Var, axes: Sequence[int] | int) -> Var:
    """Without these axes of size 1."""
    where = axes_of(tuple(axes) if isinstance(axes, (tuple, list)) else (axes,), x.type.ndim, "squeeze")
    return apply(squeeze_op, x, axes=where) if where else x


def flip(x: Var, axes: Sequence[int]) -> Var:
    where = axes_of(tuple(axes), x.type.ndim, "flip")
    return apply(flip_op, x, axes=where) if where else x


def roll(x: Var, shifts: Sequence[int], axes: Sequence[int]) -> Var:
    """Shifts along axes; several shifts of one axis add up."""
    total: dict[int, int] = {}
    for shift, axis in zip(shifts, axes, strict=True):
        a = axis_of(axis, x.type.ndim, "roll")
        total[a] = total.get(a, 0) + int(shift)
    moved = {a: s for a, s in sorted(total.items()) if s}
    if not moved:
        return x
    return apply(roll_op, x, shifts=tuple(moved.values()), axes=tuple(moved))


def diagonal(x: Var, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Var:
    rank = x.type.ndim
    return apply(diagonal_op, x, offset=integer(offset, "diagonal: offset"), axis1=axis_of(axis1, rank, "diagonal"),
                 axis2=axis_of(axis2, rank, "diagonal"))


def place_diagonal(d: Var, shape: Sequence[Any], offset: int = 0, axis1: int = 0, axis2: int = 1) -> Var:
    """Zeros of ``shape`` with ``d`` on the diagonal."""
    static, operands = size_args(shape, "place_diagonal")
    return apply(place_diagonal_op, d, *operands, shape=static, offset=integer(offset, "place_diagonal: offset"), axis1=axis1, axis2=axis2)


def tril(x: Var, k: int = 0) -> Var:
    return apply(tril_op, x, k=integer(k, "tril: k"))


def triu(x: Var, k: int = 0) -> Var:
    return apply(triu_op, x, k=integer(k, "triu: k"))


def integer(value: Any, what: str) -> int:
    if isinstance(value, (bool, Var)) or not hasattr(value, "__index__"):
        raise GraphcTypeError(f"{what} is an int, known when the graph is built; got {value!r}")
    return int(value.__index__())


def zeros_of(x: Var) -> Var:
    """Zeros of the dtype and shape of ``x``, whose value is not used."""
    return filled_of(x, 0)


def filled_of(x: Var, value: Any) -> Var:
    """A constant of the dtype and shape of ``x``."""
    return broadcast_to(constant(value, x.type.dtype), shape_of(x))


__all__ = [
    "OPS", "diagonal", "diagonal_size", "expand_dims", "filled_of", "flip", "integer", "inverse", "left_over", "place_diagonal", "reshape",
    "roll", "shape_text", "squeeze", "transpose", "tril", "triu", "zeros_of",
]
