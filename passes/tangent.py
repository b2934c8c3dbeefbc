"""Forward mode: tangents pushed from the variables to the results, over the same op records.

An elementwise op's derivative is diagonal, so its reverse formula with the tangent
for a cotangent is its forward formula; a linear op is applied to the tangents, and
a contraction to one tangent at a time; for the rest, the reverse formula is linear in
its cotangent u, and the transpose of a transpose is the thing itself: d<bprop(u), t>/du.

Tangents keep the promise of ``where`` too: a factor that a ``where`` made 0 silences a tangent
that is not finite (gradients of the branch not chosen are such factors).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from graphc import dtypes
from graphc.ir import Node, Var, make_node, rebuild, toposort
from graphc.ops import movement
from graphc.ops.arithmetic import add, where
from graphc.ops.broadcasting import same_shape
from graphc.ops.comparison import equal, isfinite, logical_and, logical_not, logical_or, not_equal
from graphc.ops.contraction import MatMul
from graphc.ops.convolution import Convolution, met
from graphc.ops.elementwise_base import Elementwise
from graphc.ops.placeholders import zeros_of
from graphc.ops.reduction import any as any_

#: the reverse sweep, handed in by the pass that owns both
Reverse = Callable[[Sequence[Var], dict[Var, Var]], list[Var]]


def push_forward(results: Sequence[Var], tangents: dict[Var, Var], reverse: Reverse) -> list[Var]:
    """The tangents of ``results`` when the keys of ``tangents`` move by its values; zeros where nothing arrives."""
    table = dict(tangents)
    selected: set[Var] = set()  # what a `where` has a part in
    for node in toposort(results):
        if node.op.name == "where" or any(v in selected for v in node.inputs):
            selected.update(node.outputs)
        moving = [i for i, v in enumerate(node.inputs) if v in table and node.op.connected(i, node)]
        if not moving:
            continue
        for y, t in zip(node.outputs, _tangents(node, moving, table, reverse, selected), strict=True):
            if t is not None and y not in tangents:
                table[y] = t
    return [_or_zeros(table.get(y), y) for y in results]


def _or_zeros(t: Var | None, v: Var) -> Var:
    return zeros_of(v) if t is None else t


def _tangents(node: Node, moving: list[int], table: dict[Var, Var], reverse: Reverse,
              selected: set[Var]) -> Sequence[Var | None]:
    op, y = node.op, node.outputs[0]
    if isinstance(op, Elementwise) and dtypes.is_float(node.inputs[moving[0]].type.dtype) and dtypes.is_float(y.type.dtype):
        total: Var | None = None
        for i in moving:
            grad = op.grads[i]
            t = None if grad is None else grad(same_shape(table[node.inputs[i]], y), y, *node.inputs)
            if t is not None and op.name == "mul" and node.inputs[1 - i] in selected:
                t = where(logical_and(equal(node.inputs[1 - i], 0), logical_not(isfinite(t))), 0, t)
            if t is not None:
                total = t if total is None else add(total, t)
        return [total]
    if op.linear:
        operands = [
            _or_zeros(table.get(v), v) if dtypes.is_inexact(v.type.dtype) else v for v in node.inputs]
        return make_node(op, operands, node.attrs, node.origin).outputs
    if op.kind == "contraction":  # linear in each operand
        parts = [make_node(op, [*node.inputs[:i], _silenced(node, i, table[node.inputs[i]], selected), *node.inputs[i + 1:]],
                           node.attrs, node.origin).outputs[0] for i in moving]
        return [functools.reduce(add, parts)]
    return _twice_reversed(node, moving, table, reverse)


def _silenced(node: Node, position: int, t: Var, selected: set[Var]) -> Var:
    """The tangent of an operand of a contraction, 0 where it is not finite and meets only zeros that a ``where`` chose."""
    for k, other in enumerate(node.inputs):
        if k != position and other in selected:
            t = where(logical_or(isfinite(t), _meets(node, position, k, not_equal(other, 0))), t, 0)
    return t


def _meets(node: Node, position: int, k: int, flows: Var) -> Var:
    """Which entries of operand ``position`` meet a True in ``flows``, which is shaped as operand ``k``."""
    if isinstance(node.op, MatMul):
        rank = flows.type.ndim
        some = any_(flows, (rank - 1 if position == 0 else rank - 2,), True)
        return movement.transpose(some, (*range(rank - 2), rank - 1, rank - 2))
    if isinstance(node.op, Convolution):
        return met(node, flows, k, position)
    terms = node.attrs["subscripts"].partition("->")[0].split(",")
    mine, other = terms[position], terms[k]
    shared = [label for label in other if label in mine]
    some = any_(flows, tuple(i for i, label in enumerate(other) if label not in mine), False)
    ordered = movement.transpose(some, tuple(shared.index(label) for label in mine if label in shared))
    return movement.expand_dims(ordered, tuple(i for i, label in enumerate(mine) if label not in shared))


def _twice_reversed(node: Node, moving: list[int], table: dict[Var, Var], reverse: Reverse) -> Sequence[Var | None]:
    result: list[Var | None] = []
    for k, y in enumerate(node.outputs):
        if not dtypes.is_inexact(y.type.dtype):
            result.append(None)
            continue
        u = Var(y.type, name="u")
        cotangents: list[Var | None] = [u if j == k else None for j in range(len(node.outputs))]
        pairs: list[tuple[Var, Var]] = []
        for i in moving:
            w = node.op.bprop_at(i, node.inputs, node.outputs, cotangents, node.attrs)  # type: ignore[arg-type]
            if w is not None:
                pairs.append((w, table[node.inputs[i]]))
        total: Var | None = None
        for w, t in pairs:
            part, = reverse([u], {w: t})
            total = part if total is None else add(total, part)
        if total is not None:
            total, = rebuild([total], {u: zeros_of(y)})  # linear in u: it is read nowhere that matters
        result.append(total)
    return result
