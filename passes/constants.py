"""What the rewriting passes know of constants: which are uniform, and what a node of constants computes."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dims
from graphc.ir import Array, Graph, Node, Type, Var
from graphc.ops.broadcasting import broadcast_to_op
from graphc.ops.core import constant_op
from graphc.ops.evaluate import run_node

#: larger constants are not searched for being uniform
_SEARCH = 4096


def literal(value: Any, type: Type, node: Node) -> Var:
    """A scalar constant of ``type.dtype`` that stands where ``node`` stood."""
    return _constant(np.asarray(value).astype(type.dtype), node)


def _constant(value: Array, like: Node) -> Var:
    value = np.array(value, order="C")  # a copy of its own: a view may share memory that others write to
    value.setflags(write=False)
    return Node(constant_op, (), {"value": value}, (Type(value.dtype, value.shape),), like.origin).outputs[0]


def is_constant(v: Var) -> bool:
    return v.node is not None and v.node.op is constant_op


def uniform(v: Var) -> Array | None:
    """The scalar that every element of ``v`` is, bit for bit; None if there is none or it is not known.

    Seen through ``broadcast_to``, since a constant is never repeated in memory.
    """
    node = v.node
    while node is not None and node.op is broadcast_to_op:
        node = node.inputs[0].node
    if node is None or node.op is not constant_op:
        return None
    value: Array = node.attrs["value"]
    if value.size == 1:
        return value.reshape(())
    if not 1 < value.size <= _SEARCH:
        return None
    first = value.reshape(-1)[:1]
    return first.reshape(()) if first.tobytes() * value.size == value.tobytes() else None


def same_value(value: Array, wanted: Array) -> bool:
    """Is the uniform constant ``value`` the number that a pattern writes?  -0.0 is not 0.0."""
    if value.dtype.kind == "b" or wanted.dtype.kind == "b":
        return value.dtype.kind == wanted.dtype.kind and bool(value) == bool(wanted)
    if wanted.dtype.kind == "c" and value.dtype.kind != "c":
        return False
    with np.errstate(all="ignore"):
        here = wanted.astype(value.dtype)
        back = here.real if wanted.dtype.kind != "c" else here
        return here.tobytes() == value.tobytes() and bool(back.astype(wanted.dtype) == wanted)  # 0.5 is no integer


def folded(node: Node, limit: int) -> tuple[Var, ...] | None:
    """The results of a node of constants as constants; None where it must stay.

    It stays if it has effects or inner graphs, if its sizes are not known yet, if what it makes is
    larger than both ``limit`` bytes and its operands, or if it raises: errors belong to the call.
    """
    op = node.op
    if op is constant_op or not op.pure or op.placeholder or any(v.node is None or v.node.op is not constant_op for v in node.inputs):
        return None
    size = 0
    for v in node.outputs:
        count = dims.product(v.type.shape)
        if not isinstance(count, int):
            return None
        size += count * v.type.dtype.itemsize
    values: list[Array] = [v.node.attrs["value"] for v in node.inputs if v.node is not None]
    given = sum(value.nbytes for value in values)
    if size > given and (size > limit or op is broadcast_to_op):  # repeating in memory gains nothing, whatever the size
        return None
    if any(_unknown(value) for value in node.attrs.values()):
        return None
    try:
        with np.errstate(all="ignore"):
            results = run_node(node, values, {})
    except Exception:  # whatever a forward may raise
        return None
    if any(value.shape != v.type.shape for value, v in zip(results, node.outputs, strict=True)):
        return None
    return tuple([_constant(value, node) for value in results])


def _unknown(attr: Any) -> bool:
    """Does an attribute hold an inner graph or a size that is no number yet?"""
    if isinstance(attr, tuple):
        return any(_unknown(a) for a in attr)
    return isinstance(attr, (Graph, dims.Dim))


__all__ = ["folded", "is_constant", "literal", "same_value", "uniform"]
