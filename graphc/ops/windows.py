"""Ops that only move elements, in the form in which a kernel computes them.  Made by the pass ``expand`` for native backends.

    window(x, fill; starts, steps, shape)    x laid into something larger: what joins, pads, rolls and sets parts is made of
    inside(; starts, sizes, shape)           where a window of that size stands
    set_within, inc_within                   ``set_along_axis`` and ``inc_along_axis`` at positions that ``within`` has checked

They come after the gradient, so they have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var
from graphc.ops.broadcasting import broadcast_relations
from graphc.ops.example import Example
from graphc.ops.gathering import AssignAlongAxis

__all__ = ["OPS", "inc_within_op", "inside_op", "set_within_op", "window_op"]

Attrs = Mapping[str, Any]


class _Made(Op):
    """What the pass ``expand`` makes has no derivative: it comes after the gradient."""

    kind = "movement"
    flops = 0.0

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None] * len(inputs)

    def connected(self, position: int, node: Node) -> bool:
        return False


class Window(_Made):
    """``window(x, fill; starts, steps, shape)``: element j of ``x`` stands at position start + step * j along each axis.

    What falls outside of ``shape`` is left out; where nothing falls stands ``fill``, which broadcasts to ``shape``.
    Steps are at least 1.
    """

    name = "window"
    examples = (
        Example([(3,), ()], {"starts": (1,), "steps": (1,), "shape": (6,)}, gradient=False, numpy=lambda x, v: np.array([v, *x, v, v])),
        Example([(3,), ()], {"starts": (-1,), "steps": (1,), "shape": (3,)}, gradient=False, numpy=lambda x, v: np.array([*x[1:], v])),
        Example([(2, 3), (3, 4)], {"starts": (2, 0), "steps": (1, 1), "shape": (3, 4)}, gradient=False,
                numpy=lambda x, v: np.array([v[0], v[1], [*x[0], v[2, 3]]])),
        Example([(3,), (4,)], {"starts": (-1,), "steps": (2,), "shape": (4,)}, gradient=False, numpy=lambda x, v: np.array([v[0], x[1], v[2], x[2]])),
    )

    def infer(self, x: Type, fill: Type, *, starts: tuple[Size, ...], steps: tuple[int, ...], shape: tuple[Size, ...]) -> Type:  # type: ignore[override]
        if fill.dtype != x.dtype:
            raise GraphcTypeError(f"what stands around is of the dtype of the array; got {x} and {fill}")
        if not len(starts) == len(steps) == len(shape) == x.ndim or fill.ndim > x.ndim or any(s < 1 for s in steps):
            raise GraphcValueError(f"{x.ndim} starts, steps and sizes expected; got {starts}, {steps} and {shape}")
        for have, want in zip(reversed(fill.shape), reversed(shape), strict=False):
            if isinstance(have, int) and isinstance(want, int) and have not in (1, want):
                raise GraphcValueError(f"{fill} does not broadcast to the shape {shape}")
        return x.with_shape(shape)

    def forward(self, x: Array, fill: Array, *, starts: tuple[int, ...], steps: tuple[int, ...], shape: tuple[int, ...]) -> Array:  # type: ignore[override]
        result = np.empty(shape, x.dtype)
        result[...] = fill
        source, target = [], []
        for n, start, step, size in zip(x.shape, starts, steps, shape, strict=True):
            low = max(0, -(start // step))
            high = max(low, min(n, -((start - size) // step)))
            source.append(slice(low, high))
            target.append(slice(start + low * step, max(start + high * step, 0), step) if high > low else slice(0, 0))
        result[tuple(target)] = x[tuple(source)]
        return result

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        return broadcast_relations([types[1].shape, attrs["shape"]])


class Inside(_Made):
    """``inside(; starts, sizes, shape)``: True where start <= i < start + size along every axis."""

    name = "inside"
    kind = "creation"
    examples = (
        Example([], {"starts": (1,), "sizes": (2,), "shape": (4,)}, gradient=False, numpy=lambda: np.array([False, True, True, False])),
        Example([], {"starts": (0, -1), "sizes": (1, 2), "shape": (2, 2)}, gradient=False, numpy=lambda: np.array([[True, False], [False, False]])),
    )

    def infer(self, *, starts: tuple[Size, ...], sizes: tuple[Size, ...], shape: tuple[Size, ...]) -> Type:  # type: ignore[override]
        if not len(starts) == len(sizes) == len(shape):
            raise GraphcValueError(f"{len(shape)} starts and sizes expected; got {starts} and {sizes}")
        return Type(np.dtype(np.bool_), shape)

    def forward(self, *, starts: tuple[int, ...], sizes: tuple[int, ...], shape: tuple[int, ...]) -> Array:  # type: ignore[override]
        result = np.zeros(shape, np.bool_)
        result[tuple(slice(max(start, 0), max(start + n, 0)) for start, n in zip(starts, sizes, strict=True))] = True
        return result


class AssignWithin(AssignAlongAxis):
    """``set_within(x, y, positions; axis)``, ``inc_within(...)``: positions count from the front, and none is outside."""

    def __init__(self, name: str, increment: bool) -> None:
        super().__init__(name, increment)
        old = self.examples
        self.examples = tuple(Example(e.shapes, e.attrs, e.dtypes, ((-3.0, 3.0), (-3.0, 3.0), (0, 4)), gradient=False, numpy=e.numpy) for e in old)

    def connected(self, position: int, node: Node) -> bool:
        return False


window_op, inside_op = Window(), Inside()
set_within_op, inc_within_op = AssignWithin("set_within", False), AssignWithin("inc_within", True)
OPS: tuple[Op, ...] = (window_op, inside_op, set_within_op, inc_within_op)
