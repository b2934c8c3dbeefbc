"""A window over something cheap becomes something cheap over windows: then no array is written only to be read some steps away.

    window(2 * (x - y), fill)    where(inside, 2 * (window(x, 0) - window(y, 0)), fill)

Only where nothing but windows reads the value, what it is computed from lies in memory anyway, and computing it again costs less
than writing and reading it.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc import dims
from graphc.ir import Graph, Node, Var, apply, make_node, rebuild
from graphc.ops.arithmetic import where
from graphc.ops.core import constant
from graphc.ops.windows import inside_op, window_op
from graphc.passes.bodies import is_broadcast, is_pointwise, is_window, moves_inside
from graphc.passes.native import is_native

__all__ = ["lifted"]

#: flops of a value that is computed again for each window that reads it, and how many those may be
MOST_FLOPS, MOST_READERS = 6.0, 2
DEPTH = 4


def lifted(graph: Graph) -> Graph:
    """The graph with windows over cheap values put closer to what lies in memory."""
    nodes = graph.nodes
    if not any(is_window(node) for node in nodes):
        return graph
    readers: dict[Var, list[Node]] = {}
    for node in nodes:
        for v in node.inputs:
            readers.setdefault(v, []).append(node)
    roots = set(graph.roots)

    def free(v: Var) -> bool:
        """Do only a few windows read it?"""
        return v not in roots and len(readers[v]) <= MOST_READERS and all(is_window(r) and r.inputs[0] is v for r in readers[v])

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if not is_window(node) or not free(node.inputs[0]):
            return None
        found = _Lift(node).value(node.inputs[0], inputs[0], DEPTH)
        if found is None:
            return None
        attrs = {"starts": node.attrs["starts"], "sizes": node.inputs[0].type.shape, "shape": node.attrs["shape"]}
        return [where(apply(inside_op, **attrs), found, inputs[1])]

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


class _Lift:
    def __init__(self, node: Node) -> None:
        self.attrs = node.attrs
        self.shape = node.inputs[0].type.shape
        #: the axes along which the operand does not fill the result
        self.moving = [a for a, (n, start, size) in enumerate(zip(self.shape, node.attrs["starts"], node.attrs["shape"], strict=True))
                       if start != 0 or n != size]
        self.flops = 0.0

    def value(self, old: Var, new: Var, depth: int) -> Var | None:
        """A cheap value, computed from windows over its operands; ``new`` is ``old`` in the graph that is being made."""
        node, made = old.node, new.node
        if node is None or made is None or depth == 0 or not (is_pointwise(node) and is_native(node)) or is_broadcast(node) or made.op is not node.op or not node.op.pure:
            return None
        self.flops += node.op.flops
        if self.flops > MOST_FLOPS:
            return None
        operands: list[Var] = []
        for v, w in zip(node.inputs, made.inputs, strict=True):
            missing = len(self.shape) - v.type.ndim
            if moves_inside(v.node) or all(a < missing or dims.is_one(v.type.shape[a - missing]) for a in self.moving):
                operands.append(w)
                continue
            if v.type.shape != self.shape:
                return None
            inner = apply(window_op, w, constant(0, w.type.dtype), **self.attrs) if in_memory(v) else self.value(v, w, depth - 1)
            if inner is None:
                return None
            operands.append(inner)
        return make_node(node.op, operands, node.attrs).outputs[0]


def in_memory(v: Var) -> bool:
    """Does it lie in memory whatever we do: an argument, a view of one, the result of something that is no part of a kernel?"""
    while v.node is not None and v.node.op.view:
        v = v.node.inputs[0]
    return v.node is None or not (is_native(v.node) or v.node.op.name in ("fused", "iota"))
