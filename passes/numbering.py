"""``Numbering``: the table of value numbering, on which every rewriting pass stands."""

from __future__ import annotations

import hashlib
from typing import Any

from graphc.ir import Node, Var, with_inputs
from graphc.ops.core import constant_op

#: constants up to this many bytes are compared by their bytes, larger ones by a digest of them
_SMALL = 4096


class Numbering:
    """The table of value numbering: one node for each op, attributes and operands."""

    def __init__(self) -> None:
        self.table: dict[Any, Node] = {}

    def intern(self, node: Node, inputs: tuple[Var, ...]) -> Node:
        """The first node that computes what ``node`` does on ``inputs``; nodes with effects are all different."""
        op = node.op
        if not op.pure:
            return _on(node, inputs)
        if op.commutative and len(inputs) == 2 and id(inputs[0]) > id(inputs[1]):
            key: Any = (node.key, (inputs[1], inputs[0]))  # in the key only: the node keeps the order as written
        elif op is constant_op and node.attrs["value"].nbytes > _SMALL:
            key = _large_constant(node)
        else:
            key = (node.key, inputs)
        found = self.table.get(key)
        if found is None:
            found = self.table[key] = _on(node, inputs)
        return found


def _on(node: Node, inputs: tuple[Var, ...]) -> Node:
    """The node on ``inputs``; compared by identity, since ``==`` of variables is a new expression."""
    same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
    return node if same else with_inputs(node, inputs)


def _large_constant(node: Node) -> Any:
    value = node.attrs["value"]
    return (value.dtype.name, value.shape, hashlib.blake2b(value.tobytes(), digest_size=32).digest())
