"""Pass ``loops``: what an inner graph computes the same way in every step moves outside it.

A Jacobian's rows are an ``each`` whose body holds the whole forward computation;
only what depends on the row stays inside.  Promise: values are those of the graph
before; a body never grows; pure nodes only are moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir import Graph, Node, Var, make_node, rebuild
from graphc.ops.looping import close, each_op
from graphc.passes.context import Context, Rewrite


def loops(graph: Graph, context: Context) -> Graph:
    """Hoist loop-invariant nodes out of the bodies of ``each``, innermost loops first."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if node.op is not each_op:
            return None
        body: Graph = loops(node.attrs["body"], context)
        results = _hoist(node, body, inputs)
        if results is not None:
            for old, new in zip(node.outputs, results, strict=True):
                new.name = old.name
                context.log.append(Rewrite("hoist", old, new))
        return results

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def _hoist(node: Node, body: Graph, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    own = body.inputs[0]
    captured = inputs[:len(body.inputs) - 1]
    sizes = inputs[len(body.inputs) - 1:]
    outer: dict[Var, Var] = dict(zip(body.inputs[1:], captured, strict=True))  # inner value -> the same value outside
    stays: set[Var] = {own}
    moved = False
    for inner in body.nodes:
        if not inner.op.pure or any(v in stays for v in inner.inputs):
            stays.update(inner.outputs)
            continue
        origin = inner.origin.by("hoist") if inner.inputs else inner.origin
        copy = Node(inner.op, tuple(outer[v] for v in inner.inputs), inner.attrs, [v.type for v in inner.outputs], origin)
        for old, new in zip(inner.outputs, copy.outputs, strict=True):
            new.name = old.name
            outer[old] = new
        moved = moved or bool(inner.inputs)  # a constant alone gains nothing
    if not moved:
        return None if body is node.attrs["body"] else make_node(each_op, inputs, {**node.attrs, "body": body}, node.origin).outputs
    # the frontier: invariant values that something inside still reads
    read = [v for inner in body.nodes if any(y in stays for y in inner.outputs) for v in inner.inputs]
    frontier = [v for v in dict.fromkeys([*read, *body.outputs]) if v in outer and not _is_constant(v)]
    inner_graph, kept = close(body.outputs, [own], frontier, body.name)
    return make_node(each_op, [*(outer[v] for v in kept), *sizes], {**node.attrs, "body": inner_graph}, node.origin.by("hoist")).outputs


def _is_constant(v: Var) -> bool:
    return v.node is not None and not v.node.inputs
