"""Ops that put arrays together or enlarge them: concatenate, pad; stack, repeat and tile are made of other ops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Dim, Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Op, Relation, Type, Var, apply
from graphc.ops.arithmetic import add, mul, where
from graphc.ops.broadcasting import broadcast_to, sum_to
from graphc.ops.core import axis_of, cast, constant, dim_op, is_door, promote, shape_of, size_args
from graphc.ops.example import Example
from graphc.ops.gathering import pad_index_op, repeat_index_op
from graphc.ops.indexing import subtensor, take
from graphc.ops.movement import expand_dims, filled_of, reshape
from graphc.ops.slicing import SCALAR, WHOLE

Attrs = Mapping[str, Any]


class Concatenate(Op):
    """``concatenate(*xs; axis)``: operands of one dtype one after the other along an axis."""

    name = "concatenate"
    kind = "movement"
    linear = True
    flops = 0.0
    examples = (
        Example([(2, 3), (1, 3)], {"axis": 0}, numpy=lambda a, b: np.array([*a, *b])),
        Example([(2, 1), (2, 0), (2, 2)], {"axis": 1}, numpy=lambda a, b, c: np.array([[*p, *r] for p, r in zip(a, c, strict=True)])),
        Example([(3,)], {"axis": 0}, numpy=lambda a: a),
    )

    def infer(self, *types: Type, axis: int) -> Type:  # type: ignore[override]
        if not types:
            raise GraphcTypeError("nothing to join: at least one operand is needed")
        first = types[0]
        if any(t.dtype != first.dtype for t in types):
            raise GraphcTypeError(f"operands of one dtype expected; got {', '.join(map(str, types))}")
        if any(t.ndim != first.ndim for t in types) or not 0 <= axis < first.ndim:
            raise GraphcValueError(f"operands of one rank of at least {axis + 1} expected; got {', '.join(map(str, types))}")
        shape: list[Size] = list(first.shape)
        for t in types[1:]:
            for i, (a, b) in enumerate(zip(shape, t.shape, strict=True)):
                if i == axis:
                    continue
                if isinstance(a, int) and isinstance(b, int) and a != b:
                    raise GraphcValueError(f"sizes {a} and {b} of axis {i} differ, and only those of axis {axis} may")
                shape[i] = b if isinstance(b, int) else a  # a number says more than a symbol that must equal it
        shape[axis] = 0
        for t in types:
            shape[axis] = shape[axis] + t.shape[axis]
        return first.with_shape(tuple(shape))

    def forward(self, *arrays: Array, axis: int) -> Array:  # type: ignore[override]
        try:
            return np.concatenate(arrays, axis)
        except ValueError as error:
            raise GraphcValueError(f"concatenate: {error}") from None

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        axis = attrs["axis"]
        start: Any = 0
        for x in inputs[:position]:
            start = _plus(start, shape_of(x)[axis])
        return between(cotangents[0], axis, start, _plus(start, shape_of(inputs[position])[axis]))

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        for i in range(types[0].ndim):
            if i != attrs["axis"]:
                met = [s for s in dict.fromkeys(t.shape[i] for t in types) if is_door(s)]
                for size in met[1:]:
                    yield Relation("equal", met[0], size)


def _plus(a: Any, b: Any) -> Any:
    return add(size_var(a), size_var(b)) if isinstance(a, Var) or isinstance(b, Var) else a + b


def between(x: Var, axis: int, start: Any, stop: Any) -> Var:
    """``x[start:stop]`` along an axis, for bounds that are sizes: never negative."""
    operands = [b for b in (start, stop) if isinstance(b, Var)]
    index: list[Any] = [WHOLE] * x.type.ndim
    index[axis] = (SCALAR if isinstance(start, Var) else start, SCALAR if isinstance(stop, Var) else stop, 1)
    return subtensor(x, tuple(index), *operands)


class Pad(Op):
    """``pad(x, value; widths)``: ``value`` around ``x``: ``widths[i]`` is (before, after) along axis i."""

    name = "pad"
    kind = "movement"
    linear = True
    flops = 0.0
    examples = (
        Example([(3,), ()], {"widths": ((1, 2),)}, numpy=lambda x, v: np.array([v, *x, v, v])),
        Example([(2, 3), ()], {"widths": ((0, 0), (2, 0))}, numpy=lambda x, v: np.array([[v, v, *r] for r in x])),
        Example([(0, 1), ()], {"widths": ((1, 1), (1, 0))}, numpy=lambda x, v: np.full((2, 2), v)),
    )

    def infer(self, x: Type, value: Type, *, widths: Any) -> Type:  # type: ignore[override]
        if value.dtype != x.dtype or value.ndim:
            raise GraphcTypeError(f"the value is a scalar of the dtype of the array; got {x} and {value}")
        if len(widths) != x.ndim or any(b < 0 or a < 0 for b, a in widths):
            raise GraphcValueError(f"widths are {x.ndim} pairs of numbers >= 0; got {widths}")
        return x.with_shape(tuple(n + (before + after) for n, (before, after) in zip(x.shape, widths, strict=True)))

    def forward(self, x: Array, value: Array, *, widths: Any) -> Array:  # type: ignore[override]
        result = np.full([n + b + a for n, (b, a) in zip(x.shape, widths, strict=True)], value, x.dtype)
        result[tuple(slice(b, b + n) for n, (b, _) in zip(x.shape, widths, strict=True))] = x
        return result

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        widths, g = attrs["widths"], cotangents[0]
        if position == 1:  # what came from the border: everything but the middle
            border = apply(pad_op, filled_of(inputs[0], 0), constant(1, inputs[1].type.dtype), widths=widths)
            return sum_to(where(border, g, 0), inputs[1])
        for axis, ((before, _), size) in enumerate(zip(widths, shape_of(inputs[0]), strict=True)):
            g = between(g, axis, before, _plus(size, before))
        return g


concatenate_op, pad_op = Concatenate(), Pad()
OPS: tuple[Op, ...] = (concatenate_op, pad_op)


# ---- builders ---------------------------------------------------------------------------------


def concatenate(xs: Sequence[Any], axis: int = 0) -> Var:
    """Operands promoted to one dtype, one after the other along an axis."""
    if not xs:
        raise GraphcValueError("concatenate: nothing to join; the list is empty")
    vs = promote(*xs)
    if any(v.type.ndim == 0 for v in vs):
        raise GraphcValueError("concatenate: scalars have no axis to join along; gc.stack makes a vector of them")
    where_ = axis_of(axis, vs[0].type.ndim, "concatenate")
    return apply(concatenate_op, *vs, axis=where_)


def stack(xs: Sequence[Any], axis: int = 0) -> Var:
    """Operands of one shape, promoted to one dtype, along a new axis."""
    if not xs:
        raise GraphcValueError("stack: nothing to join; the list is empty")
    vs = promote(*xs)
    ranks = {v.type.ndim for v in vs}
    if len(ranks) > 1:
        raise GraphcValueError(f"stack: operands of one shape expected; got {', '.join(str(v.type) for v in vs)}")
    where_ = axis_of(axis, vs[0].type.ndim + 1, "stack")
    return apply(concatenate_op, *(expand_dims(v, (where_,)) for v in vs), axis=where_)


def pad(x: Var, widths: Sequence[tuple[int, int]], mode: str, value: Any) -> Var:
    """``x`` enlarged by ``widths[i] = (before, after)`` along axis i."""
    if all(w == (0, 0) for w in widths):
        return x
    if mode == "constant":
        filler = constant(value, x.type.dtype) if not isinstance(value, Var) else cast(value, x.type.dtype)
        return apply(pad_op, x, filler, widths=tuple(widths))
    for axis, (before, after) in enumerate(widths):
        if before or after:
            shape, operands = size_args((shape_of(x)[axis],), "pad")
            x = take(x, apply(pad_index_op, *operands, shape=shape, before=before, after=after, mode=mode), axis)
    return x


def repeat(x: Var, count: Any, axis: int) -> Var:
    """Each element ``count`` times (a size: int, Dim or scalar variable), or ``count[i]`` times (a vector)."""
    if isinstance(count, Var) and count.type.ndim == 1:
        size, have = x.type.shape[axis], count.type.shape[0]
        if isinstance(size, int) and isinstance(have, int) and size != have:
            raise GraphcValueError(f"repeat: {have} counts for an axis of size {size}")
        return take(x, apply(repeat_index_op, count), axis)
    shape = list(shape_of(x))
    wide = expand_dims(x, (axis + 1,))
    return reshape(broadcast_to(wide, [*shape[:axis + 1], count, *shape[axis + 1:]]),
                   [*shape[:axis], times(shape[axis], count), *shape[axis + 1:]])


def times(a: Any, b: Any) -> Any:
    """The product of two sizes."""
    return mul(size_var(a), size_var(b)) if isinstance(a, Var) or isinstance(b, Var) else a * b


def size_var(size: Any) -> Any:
    """A size that can be computed with beside variables: a Dim as a variable."""
    return apply(dim_op, size=size) if isinstance(size, Dim) else size


def tile(x: Var, counts: Sequence[Any]) -> Var:
    """``counts[i]`` copies of ``x`` along axis i; missing counts are 1, missing axes new."""
    lead = max(len(counts) - x.type.ndim, 0)
    counts = (1,) * (x.type.ndim - len(counts)) + tuple(counts)
    if lead:
        x = expand_dims(x, tuple(range(lead)))
    if all(isinstance(c, int) and c == 1 for c in counts):
        return x
    shape = shape_of(x)
    wide = expand_dims(x, tuple(range(0, 2 * len(shape), 2)))
    full = [s for pair in zip(counts, shape, strict=True) for s in pair]
    return reshape(broadcast_to(wide, full), [times(s, c) for c, s in zip(counts, shape, strict=True)])


__all__ = ["OPS", "between", "concatenate", "concatenate_op", "pad", "repeat", "size_var", "stack", "tile", "times"]
