"""``broadcast_to`` and its adjoint ``sum_to``: how cotangents find back to the shapes of operands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.errors import GraphcValueError
from graphc.ir import Array, Op, Relation, Type, Var, apply
from graphc.ops.core import shape_of, size_args, sized_shape, sized_value

Shape = Sequence[Size | None]


def broadcast_shapes(*shapes: Sequence[Size]) -> tuple[Size, ...]:
    """The shape that NumPy's broadcasting gives; unknown sizes stay formulas."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = [1] * rank
    for shape in shapes:
        for i, size in enumerate(shape, rank - len(shape)):
            try:
                result[i] = dims.bcast(result[i], size)
            except GraphcValueError as error:
                raise GraphcValueError(f"{error.message} (axis {i - rank} of shapes {_texts(shapes)})") from None
    return tuple(result)


def _texts(shapes: Iterable[Sequence[Size]]) -> str:
    return " and ".join("(" + ", ".join(map(dims.size_text, s)) + ("," if len(s) == 1 else "") + ")" for s in shapes)


def broadcast_relations(shapes: Sequence[Sequence[Size]]) -> Iterable[Relation]:
    """Pairs of sizes that meet on an axis and are not known to fit."""
    rank = max((len(s) for s in shapes), default=0)
    for axis in range(-rank, 0):
        met = dict.fromkeys(s[axis] for s in shapes if len(s) >= -axis and not dims.is_one(s[axis]))
        sizes = list(met)
        for i, a in enumerate(sizes):
            for b in sizes[i + 1:]:
                yield Relation("broadcast", a, b)


class BroadcastTo(Op):
    """``broadcast_to(x, *sizes; shape)``: ``x`` repeated along new and length-1 axes."""

    name = "broadcast_to"
    kind = "movement"
    sized = True
    linear = True
    view = True
    flops = 0.0

    def infer(self, x: Type, *sizes: Type, shape: Shape) -> Type:  # type: ignore[override]
        full = sized_shape(shape, sizes, self.name)
        if len(full) < x.ndim:
            raise GraphcValueError(f"a value of rank {x.ndim} does not broadcast to rank {len(full)}")
        for have, want in zip(reversed(x.shape), reversed(full), strict=False):
            if isinstance(have, int) and isinstance(want, int) and have not in (1, want):
                raise GraphcValueError(f"shape {_texts([x.shape])} does not broadcast to {_texts([full])}: {have} is neither 1 nor {want}")
        return x.with_shape(full)

    def forward(self, x: Array, *sizes: Array, shape: Sequence[int | None]) -> Array:  # type: ignore[override]
        try:
            return np.broadcast_to(x, sized_value(shape, sizes, self.name))
        except ValueError as error:
            raise GraphcValueError(f"broadcast_to: {error}") from None

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [sum_to(cotangents[0], inputs[0]), *[None] * (len(inputs) - 1)]

    def connected(self, position: int, node: Any) -> bool:
        return position == 0

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        for have, want in zip(reversed(types[0].shape), reversed(attrs["shape"]), strict=False):
            if want is not None and have != want and not dims.is_one(have):
                yield Relation("equal" if not dims.may_be_one(have) or dims.is_one(want) else "broadcast", have, want)


class SumTo(Op):
    """``sum_to(x, *sizes; shape)``: the adjoint of ``broadcast_to``: sums what broadcasting repeated.

    Leading axes beyond the rank of ``shape`` are summed away; an axis whose target size is
    1 while that of ``x`` is not is summed and kept.  Which axes those are may be known only
    at the call.
    """

    name = "sum_to"
    kind = "reduction"
    sized = True
    linear = True
    view = True  # where there is nothing to sum

    def infer(self, x: Type, *sizes: Type, shape: Shape) -> Type:  # type: ignore[override]
        full = sized_shape(shape, sizes, self.name)
        if len(full) > x.ndim:
            raise GraphcValueError(f"a value of rank {x.ndim} cannot be summed to rank {len(full)}")
        return x.with_shape(full)

    def forward(self, x: Array, *sizes: Array, shape: Sequence[int | None]) -> Array:  # type: ignore[override]
        target = sized_value(shape, sizes, self.name)
        lead = x.ndim - len(target)
        axes = tuple(range(lead)) + tuple(
            lead + i for i, want in enumerate(target) if want == 1 and x.shape[lead + i] != 1)
        if axes:
            # contiguous: the order of the sum must not depend on how x lies in memory
            with np.errstate(all="ignore"):
                x = np.add.reduce(np.asarray(x, order="C"), axis=axes, keepdims=True, dtype=x.dtype)
        if x.shape[lead:] != target:
            raise GraphcValueError(f"sum_to: shape {x.shape} cannot be summed to {target}")
        return x.reshape(target)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [broadcast_to(cotangents[0], shape_of(inputs[0])), *[None] * (len(inputs) - 1)]

    def connected(self, position: int, node: Any) -> bool:
        return position == 0


broadcast_to_op, sum_to_op = BroadcastTo(), SumTo()
OPS: tuple[Op, ...] = (broadcast_to_op, sum_to_op)


def broadcast_to(x: Var, shape: Sequence[Any]) -> Var:
    """``x`` broadcast to ``shape``; ``x`` itself where the types already agree."""
    static, operands = size_args(shape, "broadcast_to")
    if x.type.shape == static:
        return x
    return apply(broadcast_to_op, x, *operands, shape=static)


def sum_to(x: Var, like: Var) -> Var:
    """``x`` summed to the shape of ``like``, which broadcasts to that of ``x``."""
    if x.type.shape == like.type.shape:
        return x
    if x.type.dtype.kind == "b":
        raise AssertionError("a cotangent is never bool")
    static, operands = size_args(shape_of(like), "sum_to")
    return apply(sum_to_op, x, *operands, shape=static)


def same_shape(v: Var, like: Var) -> Var:
    """``v`` broadcast to the shape of ``like`` where its type does not say it has it already."""
    if v.type.shape == like.type.shape:
        return v
    return broadcast_to(v, shape_of(like))


__all__ = ["OPS", "broadcast_relations", "broadcast_shapes", "broadcast_to", "same_shape", "sum_to"]
