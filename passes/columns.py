"""Products that share their left operand as one product: where the columns of each fill vectors badly, and those of all fill them better.

    x @ a, x @ b, x @ c  ->  y = x @ concatenate(a, b, c), and the columns of y

Promise: each element stays the same sum, in the same order.  For weights that are joined once per change (passes/keep.py); slices of one
array that follow one another need no joining (passes/contract.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from graphc import dims
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Shared, Var, apply, rebuild
from graphc.ops.contraction import matmul_op
from graphc.ops.indexing import subtensor
from graphc.ops.joining import concatenate
from graphc.ops.slicing import WHOLE, slice_entry
from graphc.passes.context import Context, Rewrite

__all__ = ["fewer_vectors", "joined"]

#: bytes of a vector where it is longest
VECTOR = 64
#: rows from which on a tenth of the vectors is enough; with fewer a quarter
MANY_ROWS = 16


def fewer_vectors(widths: Collection[int], part: int = 10) -> bool:
    """Does at least one in ``part`` of the vectors fall away where rows of so many bytes become one?"""
    apart = sum(-(-n // VECTOR) for n in widths)
    return len(widths) > 1 and part * (apart + sum(widths) // -VECTOR) >= apart


def joined(graph: Graph, fixed: Mapping[Var, Collection[Shared]], context: Context) -> tuple[Graph, set[Var]]:
    """The graph with such products of ``fixed`` matrices joined, each of which depends on some state; and the joined matrices."""
    roots = set(graph.roots)
    groups: dict[tuple[Var, Any], dict[Var, Node]] = {}
    for node in graph.nodes:
        if node.op is matmul_op and _narrow(*node.inputs) and fixed.get(node.inputs[1]) and node.inputs[0] not in fixed:
            groups.setdefault((node.inputs[0], node.inputs[1].type.dtype), {}).setdefault(node.inputs[1], node)
    places: dict[Node, tuple[list[Node], int]] = {}
    for group in groups.values():
        members = list(group.values())
        many = dims.bounds(members[0].inputs[0].type.shape[-2])[0] >= MANY_ROWS and not any(node.outputs[0] in roots for node in members)
        if fewer_vectors([_row_bytes(node.inputs[1]) for node in members], 10 if many else 4) and _affordable(members, fixed):
            first = 0
            for node in members:
                places[node] = members, first
                first += _columns(node.inputs[1])
    products: dict[Node, Var] = {}  # by the first of each group
    made: set[Var] = set()

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if node not in places:
            return None
        members, first = places[node]
        with on_behalf_of(node.origin.by("keep")):
            if members[0] not in products:
                matrix = concatenate([one.inputs[1] for one in members], axis=1)
                made.add(matrix)
                products[members[0]] = apply(matmul_op, inputs[0], matrix)
            whole = products[members[0]]
            columns = slice_entry(whole.type.shape[-1], first, first + _columns(node.inputs[1]), 1)
            part = subtensor(whole, (*[WHOLE] * (whole.type.ndim - 1), columns))
        part.name = node.outputs[0].name
        context.log.append(Rewrite("keep", node.outputs[0], part))
        return (part,)

    return (graph.with_roots(rebuild(graph.roots, {}, visit=visit)) if places else graph), made


def _narrow(x: Var, w: Var) -> bool:
    """Could the product gain?  One of one row, of one column or of one number to add up is a loop that fuses with what is around it."""
    if w.type.ndim != 2 or x.type.ndim < 2 or x.type.shape[-2] == 1 or not all(isinstance(n, int) and n > 1 for n in w.type.shape):
        return False
    return _row_bytes(w) % VECTOR != 0


def _affordable(members: Sequence[Node], fixed: Mapping[Var, Collection[Shared]]) -> bool:
    """Do the matrices take no more memory than the state that they are made of?"""
    state = {s: None for node in members for s in fixed[node.inputs[1]]}
    have = [dims.product(s.type.shape) * s.type.dtype.itemsize for s in state]
    need = [dims.product(node.inputs[1].type.shape) * node.inputs[1].type.dtype.itemsize for node in members]
    return sum(n for n in need if isinstance(n, int)) <= sum(n for n in have if isinstance(n, int))


def _columns(w: Var) -> int:
    n = w.type.shape[-1]
    assert isinstance(n, int)
    return n


def _row_bytes(w: Var) -> int:
    return _columns(w) * w.type.dtype.itemsize
