"""Ops that exist until the pass ``gradient`` has run: placeholders of derivatives, and marks around values.

``gc.grad`` leaves one ``gradient`` node; the pass puts the subgraph of the *Deep
Learning* book's Algorithms 6.5 and 6.6 in its place.  Marks are identities that
no rewrite rule knows, so a variable that a derivative is taken with respect to
cannot be optimised away from under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import InternalError
from graphc.ir import Array, Graph, Node, Op, Relation, Type, Var, toposort
from graphc.ops.arithmetic import mul, where
from graphc.ops.broadcasting import broadcast_to, same_shape
from graphc.ops.comparison import greater, less
from graphc.ops.core import constant, shape_of


class Gradient(Op):
    """``gradient(seeds..., cotangents..., wrt...; seeds)``: one result per wrt, of its type.

    ``seeds`` says how many pairs (variable, its cotangent) start the reverse sweep.
    """

    name = "gradient"
    kind = "control"
    nout = -1
    placeholder = True

    def infer(self, *types: Type, seeds: int) -> list[Type]:  # type: ignore[override]
        return list(types[2 * seeds:])

    def forward(self, *arrays: Array, **_: Any) -> Any:
        raise InternalError("a gradient placeholder reached an evaluator: the pass `gradient` has not run")

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        raise InternalError("a gradient placeholder was differentiated before it was expanded")

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.inputs[position].type.dtype)

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        k = attrs["seeds"]
        return _same_sizes(types[:k], types[k:2 * k])


class Tangent(Gradient):
    """``tangent(results..., wrt..., tangents...; results)``: the forward-mode placeholder of ``gc.jvp``."""

    name = "tangent"

    def infer(self, *types: Type, results: int) -> list[Type]:  # type: ignore[override]
        return list(types[:results])

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        n = (len(types) - attrs["results"]) // 2
        return _same_sizes(types[-2 * n:-n], types[-n:])


class Identity(Op):
    """Gives its operand.  What its gradient is, subclasses say; the pass ``gradient`` then removes it."""

    kind = "control"
    placeholder = True
    view = True
    linear = False

    def infer(self, x: Type, **attrs: Any) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: Array, **attrs: Any) -> Array:  # type: ignore[override]
        return x


class Mark(Identity):
    """``mark(x; which)``: ``x``, kept apart as the variable of a derivative.

    ``which`` numbers the marks of a graph: two marked variables may turn out to be equal, and stay two.
    """

    name = "mark"

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return [cotangents[0]]


class DisconnectedGrad(Identity):
    """``disconnected_grad(x)``: ``x``, through which no derivative flows at all."""

    name = "disconnected_grad"

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return [None]

    def connected(self, position: int, node: Node) -> bool:
        return False


class ZeroGrad(Identity):
    """``zero_grad(x)``: ``x``, whose derivative counts as zero (connected, but zero)."""

    name = "zero_grad"

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return [zeros_of(inputs[0])]


class GradClip(Identity):
    """``grad_clip(x; lo, hi)``: ``x``, whose cotangent is clipped to [lo, hi]."""

    name = "grad_clip"
    pure = False  # two of one value are not one: each clips its own cotangent

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, *, lo: float, hi: float) -> Any:  # type: ignore[override]
        g = cotangents[0]
        return [where(less(g, lo), lo, where(greater(g, hi), hi, g))]


class GradScale(Identity):
    """``grad_scale(x; factor)``: ``x``, whose cotangent is multiplied by a factor."""

    name = "grad_scale"

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, *, factor: float) -> Any:  # type: ignore[override]
        return [mul(cotangents[0], factor)]


gradient_op, tangent_op = Gradient(), Tangent()
mark_op, disconnected_grad_op, zero_grad_op, grad_clip_op, grad_scale_op = Mark(), DisconnectedGrad(), ZeroGrad(), GradClip(), GradScale()
OPS: tuple[Op, ...] = (gradient_op, tangent_op, mark_op, disconnected_grad_op, zero_grad_op, grad_clip_op, grad_scale_op)


def _same_sizes(variables: Sequence[Type], directions: Sequence[Type]) -> Iterable[Relation]:
    """A tangent or cotangent has the shape of its variable; it does not broadcast."""
    for v, d in zip(variables, directions, strict=True):
        for a, b in zip(v.shape, d.shape, strict=True):
            yield Relation("equal", a, b)


def zeros_of(x: Var) -> Var:
    """Zeros of the type of ``x``: no memory until something writes to it."""
    return broadcast_to(constant(np.zeros((), x.type.dtype)), shape_of(x))


def ones_of(x: Var) -> Var:
    """Ones of the type of ``x``."""
    return same_shape(constant(np.ones((), x.type.dtype)), x)


def unexpanded(roots: Iterable[Var]) -> bool:
    """Does something below still wait for the pass ``gradient``, be it inside an inner graph?"""
    return any(
        n.op.placeholder or any(isinstance(g, Graph) and unexpanded(g.roots) for g in n.attrs.values())
        for n in toposort(roots))
