"""Axes that become one after they were put into another order: that is a copy, so it is done after what reads it element by element.

    where(m, reshape(transpose(y)), 0)    reshape(where(reshape(m), transpose(y), 0))

The gradient of a pooling whose windows stand side by side has the window's places as axes of their own.  As one image it is a copy; with the derivative of the
activation under it, the kernel that computes it writes the image itself.  Axes can be taken apart without a copy, so other operands are seen that way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphc import dims
from graphc.dims import Size
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Var, make_node, rebuild
from graphc.ops.movement import expand_dims, reshape
from graphc.passes.bodies import is_broadcast, is_pointwise, moves_inside
from graphc.passes.native import is_native

__all__ = ["sunk"]

#: elementwise results above an operand through which axes are taken apart
DEPTH = 4


def sunk(graph: Graph) -> Graph:
    """The graph with such merges of axes after elementwise nodes."""
    nodes = graph.nodes
    if not any(node.op.name == "reshape" and _is_turned(node.inputs[0]) for node in nodes):
        return graph
    readers: dict[Var, int] = dict.fromkeys(graph.roots, 1)
    for node in nodes:
        for v in node.inputs:
            readers[v] = readers.get(v, 0) + 1
    made: set[Var] = set()

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if not _moves(node):
            return None
        for x in inputs:
            merge = x.node
            if merge is None or merge.op.name != "reshape" or x.type.shape != node.outputs[0].type.shape or not (merge.inputs[0] in made or _is_turned(merge.inputs[0])):
                continue
            groups = _groups(merge.inputs[0].type.shape, x.type.shape)
            with on_behalf_of(node.origin):
                apart = None if groups is None else [_apart(old, new, groups, readers, DEPTH) for old, new in zip(node.inputs, inputs, strict=True)]
                if apart is not None and all(v is not None for v in apart):
                    out = make_node(node.op, [v for v in apart if v is not None], node.attrs).outputs[0]
                    made.add(out)
                    return [reshape(out, x.type.shape)]
        return None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def _moves(node: Node) -> bool:
    return is_pointwise(node) and is_native(node) and not is_broadcast(node) and node.op.pure


def _is_turned(v: Var) -> bool:
    return v.node is not None and v.node.op.name == "transpose"


def _groups(parts: Sequence[Size], whole: Sequence[Size]) -> list[tuple[Size, ...]] | None:
    """For each axis of the second shape the axes of the first one that it is made of."""
    groups: list[tuple[Size, ...]] = []
    at = 0
    for size in whole:
        first, have = at, parts[at] if at < len(parts) else 0
        while have != size and at + 1 < len(parts):
            at += 1
            have = have * parts[at]
        if have != size:
            return None
        groups.append(tuple(parts[first:at + 1]))
        at += 1
    return groups if at == len(parts) else None


def _apart(old: Var, new: Var, groups: Sequence[tuple[Size, ...]], readers: Mapping[Var, int], depth: int) -> Var | None:
    """``new``, which is ``old`` in the graph that is being made, with these axes for each axis; None where that would write or compute more than before."""
    node = new.node
    if moves_inside(node):
        return new
    own = groups[len(groups) - new.type.ndim:]
    shape = [n for group in own for n in group]
    if node is not None and node.op.name == "reshape" and tuple(node.inputs[0].type.shape) == tuple(shape):
        return node.inputs[0]
    if all(dims.is_one(size) for size, group in zip(new.type.shape, own, strict=True) if len(group) > 1):
        at = 0
        more: list[int] = []
        for group in own:
            more += range(at + 1, at + len(group))
            at += len(group)
        return expand_dims(new, tuple(more)) if more else new
    if any(size != dims.product(group) for size, group in zip(new.type.shape, own, strict=True) if not dims.is_one(size) or len(group) > 1):
        return None
    before = old.node
    if node is None or readers.get(old, 0) > 1 or not is_native(node):
        sizes = [n for size, group in zip(new.type.shape, own, strict=True) for n in (group if len(group) > 1 else (size,))]
        return reshape(new, sizes)
    if before is None or before.op is not node.op or depth == 0 or not _moves(node):
        return None
    operands = [_apart(v, w, groups, readers, depth - 1) for v, w in zip(before.inputs, node.inputs, strict=True)]
    if any(v is None for v in operands):
        return None
    return make_node(node.op, [v for v in operands if v is not None], node.attrs).outputs[0]
