"""``assume``: sizes that broadcast against each other are taken to be equal.

``x + y`` of two matrices of unknown sizes means: equal, or one of them is 1, axis by axis.  Nearly every call has
equal ones.  The graph that this gives is right for those calls: its kernels walk through dense arrays, and the sums that
gradients would need for a broadcast operand are gone.  A call whose sizes differ runs a second program, made for the
graph as it was when the first such call comes; which one runs is decided by the sizes alone (graphc/variants.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from graphc import dims
from graphc.dims import Dim, Size, Symbol
from graphc.errors import GraphcError
from graphc.ir import Graph, Shared, Type, Var, rebuild

__all__ = ["assume", "assume_where_sound", "assumptions", "equalities"]


def equalities(graph: Graph) -> dict[Symbol, Size]:
    """What each symbol of an input must be, because the door lets no other call in: a number, or another symbol."""
    return _same(graph, "equal")


def assumptions(graph: Graph) -> dict[Symbol, Size]:
    """What each symbol of an input is taken to be where it meets another size: a number, or another symbol."""
    return _same(graph, "broadcast")


def _same(graph: Graph, kind: str) -> dict[Symbol, Size]:
    """Sizes of state keep their symbols, and so do those of which something else cannot be."""
    if any(isinstance(value, Graph) for node in graph.nodes for value in node.attrs.values()):
        return {}  # inner graphs share the sizes of the outside
    fixed = {s for v in graph.shared for size in v.type.shape for s in dims.symbols(size)}
    while True:
        same = _found(graph, kind, fixed)
        wrong = _contradicted(graph, same)
        if not wrong & same.keys():
            return same
        fixed |= wrong


def _contradicted(graph: Graph, same: Mapping[Symbol, Size]) -> set[Symbol]:
    """The symbols of relations that do not hold then: a size that meets 4 and meets 2 can only be 1."""
    wrong: set[Symbol] = set()
    for relation, _ in graph.relations:
        try:
            a, b = dims.substitute(relation.a, same), dims.substitute(relation.b, same)
        except GraphcError:  # sizes within one of them do not broadcast
            a, b = 0, 2
        if isinstance(a, int) and isinstance(b, int) and a != b and (relation.kind == "equal" or 1 not in (a, b)):
            wrong.update(dims.symbols(relation.a), dims.symbols(relation.b))
    return wrong


def _found(graph: Graph, kind: str, fixed: Collection[Symbol]) -> dict[Symbol, Size]:
    same: dict[Symbol, Size] = {}

    def find(size: Size) -> Size:
        while any(s in same for s in dims.symbols(size)):
            size = dims.substitute(size, same)
        return size

    for relation, _ in graph.relations:
        if relation.kind != kind:
            continue
        try:
            a, b = find(relation.a), find(relation.b)
        except GraphcError:
            continue  # contradicted
        if a == b:
            continue
        for one, other in ((b, a), (a, b)):  # the later one gives way, a number never
            symbol = one.symbol if isinstance(one, Dim) else None
            whole = isinstance(other, int) or other.symbol is not None
            if symbol is None or symbol.name is not None or symbol in fixed or not whole:
                continue  # a named dim stays what the user calls it
            if kind == "equal" or (symbol.min <= 1 and other != 1):
                same[symbol] = other
                break
    return {s: find(size) for s, size in same.items()}


def assume_where_sound(graph: Graph, same: Mapping[Symbol, Size]) -> tuple[Graph, Mapping[Symbol, Size]]:
    """The graph for these sizes, and them; the graph itself and none where some op is an error for them: the call will say so."""
    try:
        return assume(graph, same), same
    except GraphcError:
        return graph, {}


def assume(graph: Graph, same: Mapping[Symbol, Size]) -> Graph:
    """The graph for calls in which each symbol has that size."""
    if not same:
        return graph
    new: dict[Var, Var] = {}
    for v in graph.inputs:
        shape = tuple([dims.substitute(size, same) for size in v.type.shape])
        new[v] = v if shape == v.type.shape or isinstance(v, Shared) else Var(Type(v.type.dtype, shape), name=v.name, origin=v.origin)
    roots = rebuild(graph.roots, new, sizes=same)
    k = len(graph.outputs)
    updates = [(s, v) for (s, _), v in zip(graph.updates, roots[k:], strict=True)]
    relations = []
    for relation, origin in graph.relations:
        a, b = dims.substitute(relation.a, same), dims.substitute(relation.b, same)
        if a != b:
            relations.append((relation._replace(a=a, b=b), origin))
    return Graph([new[v] for v in graph.inputs], roots[:k], updates, name=graph.name, relations=relations, shared=graph.shared)
