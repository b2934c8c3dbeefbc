"""Gradients that never take NaN or inf from the branch of a ``where`` that was not chosen.

The cotangent of a branch is *selected* (``where(c, g, 0)``), which alone is not
enough: below it, an exact 0 meets a derivative that may be inf or NaN (sqrt at 0),
and 0 * inf is NaN.  So cotangents that came through a ``where`` are *tainted*,
taint follows the sweep, and a tainted contribution that is not finite although its
cotangent is exactly 0 is replaced by 0 (again by a selection, so that derivatives
of any order are safe too).  Where everything is finite no value changes by a bit.

Picking elements (``sqrt(x)[0]``) makes exact zeros too, for what was not picked.  Their taint is
*local*: it goes through elementwise and linear ops only, so that the loss of a classifier, which
picks one column of a row, costs its products nothing.

Linear ops need no guard.  Products mix good and bad terms in one sum: theirs become products in which a
zero of the cotangent meets nothing (``sifted_matmul``).  Convolutions and einsums have their *operand*
cleaned instead: entries that are not finite and that only meet zero cotangents become 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Node, Var
from graphc.ops import movement
from graphc.ops.arithmetic import where
from graphc.ops.broadcasting import sum_to
from graphc.ops.comparison import equal, isfinite, logical_and, logical_not, logical_or, not_equal
from graphc.ops.contraction import MatMul, sifted_grad
from graphc.ops.convolution import Convolution, met
from graphc.ops.core import constant_value
from graphc.ops.elementwise_base import Elementwise
from graphc.ops.reduction import all as all_
from graphc.ops.reduction import any as any_

#: taint of a cotangent: everywhere below a `where`; below picked elements, up to the next op that mixes elements
FULL, LOCAL = 2, 1
PICKING = frozenset({"subtensor", "advanced_subtensor", "take_along_axis", "diagonal", "max", "min"})

#: elementwise ops whose gradient only selects or passes on its cotangent: finite whatever the operands are
SELECTING = frozenset({"where", "maximum", "minimum", "relu", "clip", "cast", "conj", "real", "imag", "neg"})


def starts_taint(node: Node) -> int:
    """The taint of what flows back through this node even if nothing tainted flows into it."""
    return FULL if node.op.name in ("where", "sifted_matmul") else LOCAL if node.op.name in PICKING else 0


def carries(node: Node, taint: int) -> int:
    """The taint below a node whose cotangent has ``taint``."""
    if taint == LOCAL and not (node.op.linear or node.op.kind in ("elementwise", "movement", "indexing")):
        taint = 0
    return max(taint, starts_taint(node))


def guarded_bprop(node: Node, position: int, inputs: Sequence[Var], cotangents: Sequence[Var | None], taint: int) -> Var | None:
    """``op.bprop`` for one operand; where the cotangent is tainted, zero cotangents give zero gradients."""
    op = node.op
    if not taint or op.linear or op.name in SELECTING or op.kind in ("movement", "indexing"):
        return op.bprop_at(position, inputs, node.outputs, cotangents, node.attrs)  # type: ignore[arg-type]
    d = cotangents[0]
    if isinstance(op, Elementwise) and d is not None:
        grad = op.grads[position]
        if grad is None:
            return None
        if op.name == "mul" and _finite_constant(inputs[1 - position]):
            return op.bprop_at(position, inputs, node.outputs, [d], node.attrs)
        full = grad(d, node.outputs[0], *inputs)
        return None if full is None else sum_to(_cleaned(full, equal(d, 0)), inputs[position])
    if taint == FULL and isinstance(op, MatMul) and d is not None:
        return sifted_grad(position, inputs, d)
    if taint == FULL and op.kind == "contraction" and d is not None:
        cleaned = list(inputs)
        for k, (other, meets) in enumerate(zip(inputs, _meets(node, position, inputs, d), strict=True)):
            if meets is not None:
                cleaned[k] = where(logical_or(isfinite(other), meets), other, 0)
        result = op.bprop_at(position, cleaned, node.outputs, [d], node.attrs)
        return None if result is None else sum_to(result, inputs[position])
    result = op.bprop_at(position, inputs, node.outputs, cotangents, node.attrs)  # type: ignore[arg-type]
    if result is None or taint != FULL:
        return result
    return _cleaned(result, _no_flow(node, result, cotangents))


def _finite_constant(v: Var) -> bool:
    value = constant_value(v)
    return value is not None and bool((abs(value) < float("inf")).all())


def _cleaned(contribution: Var, no_flow: Var) -> Var:
    return where(logical_and(no_flow, logical_not(isfinite(contribution))), 0, contribution)


def _no_flow(node: Node, result: Var, cotangents: Sequence[Var | None]) -> Var:
    """Where all cotangents that an entry of ``result`` depends on are 0 (row-wise where the op works along axes)."""
    silent: Var | None = None
    axis = node.attrs.get("axis")
    axes = axis if isinstance(axis, tuple) else (axis,) if isinstance(axis, int) else None
    for d in cotangents:
        if d is None:
            continue
        zero = equal(d, 0)
        if axes is not None and d.type.ndim == result.type.ndim:
            zero = all_(zero, axes, True)
        elif axes is not None and d.type.ndim == result.type.ndim - len(axes):
            zero = movement.expand_dims(zero, axes)
        else:
            zero = all_(zero, tuple(range(d.type.ndim)), False)
        silent = zero if silent is None else logical_and(silent, zero)
    assert silent is not None
    return silent


def _meets(node: Node, position: int, inputs: Sequence[Var], d: Var) -> list[Var | None]:
    """For each other operand: which of its entries meet a cotangent that is not 0 (shaped to broadcast against it)."""
    flows = not_equal(d, 0)
    if isinstance(node.op, Convolution):
        return [met(node, flows, 2, k) if k == 1 - position else None for k in range(len(inputs))]
    terms, _, result = node.attrs["subscripts"].partition("->")
    found: list[Var | None] = []
    for k, labels in enumerate(terms.split(",")):
        if k == position:
            found.append(None)
            continue
        shared = [label for label in result if label in labels]
        some = any_(flows, tuple(i for i, label in enumerate(result) if label not in labels), False)
        ordered = movement.transpose(some, tuple(shared.index(label) for label in labels if label in shared))
        found.append(movement.expand_dims(ordered, tuple(i for i, label in enumerate(labels) if label not in shared)))
    return found
