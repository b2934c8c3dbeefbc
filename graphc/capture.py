"""From what the user hands to ``gc.function`` to a ``Graph``: checks, givens, the relations of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Dim, Symbol
from graphc.errors import GraphcTypeError, GraphcValueError, Origin, UnusedInputError, warn
from graphc.ir import Graph, Relation, Shared, Type, Var, leaves, toposort
from graphc.ops.core import as_var, is_door
from graphc.substituting import replace


def pairs(given: Any, what: str) -> list[tuple[Any, Any]]:
    """``updates`` and ``givens`` come as a dict or as pairs."""
    if given is None:
        return []
    try:
        items = list(given.items()) if isinstance(given, Mapping) else [(a, b) for a, b in given]
    except (TypeError, ValueError):
        raise GraphcTypeError(f"{what}: expected a dict or a list of pairs; got {type(given).__name__}") from None
    return items


def check_updates(updates: Any) -> list[tuple[Shared, Var]]:
    """The updates as pairs (shared, expression of its type)."""
    result: list[tuple[Shared, Var]] = []
    seen: set[Var] = set()
    for target, value in pairs(updates, "updates"):
        if not isinstance(target, Shared):
            shown = target.describe() if isinstance(target, Var) else repr(target)
            raise GraphcTypeError(f"updates: only shared variables have a state to update; got {shown}")
        if target in seen:
            raise GraphcValueError(f"updates: two updates of one shared variable, {target.describe()}")
        seen.add(target)
        weak = dtypes.weak_kind(value)  # a Python number has no dtype of its own
        fits = weak is not None and dtypes.with_weak(target.type.dtype, weak) == target.type.dtype
        if fits:
            dtypes.check_weak(value, target.type.dtype)
        expression = as_var(value, target.type.dtype) if fits else as_var(value)
        kind = dims_conflict(target.type, expression.type)
        if kind is not None:
            advice = ""
            if target.type.dtype != expression.type.dtype:
                advice = (f"; cast it with gc.cast(expression, {str(target.type.dtype)!r}), or give the shared value the dtype "
                          f"{expression.type.dtype}: a shared variable has the dtype of its first value")
            raise GraphcTypeError(f"updates: {target.describe()} cannot hold {expression.describe()}: {kind}{advice}")
        result.append((target, expression))
    return result


def dims_conflict(want: Type, have: Type) -> str | None:
    """Why a value of type ``have`` can never stand for one of type ``want``; None if it can."""
    if want.dtype != have.dtype:
        return f"the dtype is {have.dtype}, expected {want.dtype}"
    if want.ndim != have.ndim:
        return f"the rank is {have.ndim}, expected {want.ndim}"
    for axis, (a, b) in enumerate(zip(want.shape, have.shape, strict=True)):
        if isinstance(a, int) and isinstance(b, int) and a != b:
            return f"the size of axis {axis} is {b}, expected {a}"
    return None


# ---- givens -------------------------------------------------------------------------------------


def ordered_givens(givens: Any) -> list[tuple[Var, Var]]:
    """The substitutions, checked and in an order in which none speaks of one that came before."""
    table: dict[Var, Var] = {}
    for old, new in pairs(givens, "givens"):
        if not isinstance(old, Var):
            raise GraphcTypeError(f"givens: a key is a variable of the graph; got {old!r}")
        if old in table:
            raise GraphcValueError(f"givens: two values for one variable, {old.describe()}")
        value = as_var(new)
        if not isinstance(new, Var) and value.type.dtype != old.type.dtype:
            value = as_var(new, old.type.dtype)
        conflict = dims_conflict(old.type, value.type)
        if conflict is not None:
            raise GraphcTypeError(f"givens: {old.describe()} cannot be replaced by {value.describe()}: {conflict}")
        table[old] = value
    # topological order over "the value of one key mentions another key"
    mentions: dict[Var, list[Var]] = {}
    for old, value in table.items():
        found = [v for v in _ancestors(value) if v in table]
        mentions[old] = found
    order: list[Var] = []
    state: dict[Var, int] = {}
    for start in table:
        stack = [start]
        while stack:
            v = stack[-1]
            if state.get(v) == 2:
                stack.pop()
                continue
            state[v] = 1
            waiting = [m for m in mentions[v] if state.get(m) != 2]
            cyclic = [m for m in waiting if state.get(m) == 1]
            if cyclic:
                raise GraphcValueError(f"givens: cyclic: the value of {v.describe()} depends on {cyclic[0].describe()}, which is replaced itself")
            if waiting:
                stack.extend(waiting)
            else:
                state[v] = 2
                order.append(stack.pop())
    return [(v, table[v]) for v in order]


def _ancestors(v: Var) -> list[Var]:
    found: dict[Var, None] = {v: None}
    for node in toposort([v]):
        for x in node.inputs:
            found[x] = None
    return list(found)


# ---- the graph ----------------------------------------------------------------------------------


def capture(inputs: Sequence[Var], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]], givens: Any,
            name: str, on_unused: str) -> Graph:
    """The graph of a function, checked: every free variable is an input, every input is used."""
    roots = [*outputs, *(v for _, v in updates)]
    ordered = ordered_givens(givens)
    roots, relations = replace(roots, ordered, inputs) if ordered else (roots, [])
    k = len(outputs)
    graph = Graph(inputs, roots[:k], [(s, v) for (s, _), v in zip(updates, roots[k:], strict=True)], name=name)
    bound, used = bound_symbols(graph), used_symbols(graph)
    for s in sorted(used, key=lambda s: s.order):  # state of which only the size is needed
        state = s.state() if s.state is not None and s not in bound else None
        if state is not None and not any(state is v for v in graph.shared):
            graph.shared = (*graph.shared, state)
    check_free(graph, {old for old, _ in ordered})
    check_used(graph, used, {old for old, _ in ordered}, on_unused)
    graph.relations = (*collect_relations(graph), *relations)
    check_sizes(graph)
    return graph


def check_free(graph: Graph, replaced: set[Var]) -> None:
    allowed = {*graph.inputs, *graph.shared}
    for v in leaves(graph.roots):
        if v in allowed:
            continue
        if v.scope is not None:
            raise GraphcValueError(
                f"{v.describe()} belongs to the loop or inner graph made at {v.scope}; it has no value outside it: "
                "return from the body what is needed outside")
        raise GraphcTypeError(f"missing input: the function depends on {v.describe()}, which is not among its inputs "
                              f"({', '.join(x.name or 'unnamed' for x in graph.inputs) or 'none'})")


def used_symbols(graph: Graph) -> set[Symbol]:
    found: set[Symbol] = set()
    for node in graph.nodes:
        for value in node.attrs.values():
            _symbols_in(value, found)
    return found


def _symbols_in(value: Any, found: set[Symbol]) -> None:
    if isinstance(value, Dim):
        found.update(dims.symbols(value))
    elif isinstance(value, tuple):
        for v in value:
            _symbols_in(v, found)
    elif isinstance(value, Graph):
        found.update(used_symbols(value))


def bound_symbols(graph: Graph) -> set[Symbol]:
    """The sizes that a call knows."""
    return {s for v in (*graph.inputs, *graph.shared) for size in v.type.shape for s in dims.symbols(size)}


def check_used(graph: Graph, symbols: set[Symbol], replaced: set[Var], on_unused: str) -> None:
    if on_unused not in ("raise", "warn", "ignore"):
        raise GraphcValueError(f"on_unused_input={on_unused!r}: expected 'raise', 'warn' or 'ignore'")
    used = set(leaves(graph.roots))
    for v in graph.inputs:
        by_size = any(s in symbols for size in v.type.shape for s in dims.symbols(size))
        if v in used or by_size or on_unused == "ignore":
            continue
        why = " (givens replaced it)" if v in replaced else ""
        message = f"unused input: no output and no update depends on {v.describe()}{why}; remove it or pass on_unused_input='ignore'"
        if on_unused == "raise":
            raise UnusedInputError(message)
        warn(message)


def collect_relations(graph: Graph) -> list[tuple[Relation, Origin]]:
    """What the sizes must satisfy, each relation once, from the ops of the graph as written."""
    found: dict[Relation, Origin] = {}
    nodes, bound = graph.nodes, bound_symbols(graph)
    outside = len(nodes)
    for k, node in enumerate(nodes):  # which grows by the nodes of inner graphs
        for value in node.attrs.values():
            if isinstance(value, Graph):
                nodes.extend(value.nodes)
        if len(node.inputs) > 1 or node.op.kind in ("movement", "custom"):
            for relation in node.op.relations([v.type for v in node.inputs], node.attrs):
                if relation.a != relation.b and is_door(relation.a) and is_door(relation.b) and (
                        k < outside or bound.issuperset((*dims.symbols(relation.a), *dims.symbols(relation.b)))):
                    found.setdefault(relation, node.origin)
    for shared, value in graph.updates:
        for a, b in zip(shared.type.shape, value.type.shape, strict=True):
            symbol = a.symbol if isinstance(a, Dim) else None
            left_open = symbol is not None and symbol.kind == "unknown"
            if a != b and not left_open and is_door(a) and is_door(b):
                found.setdefault(Relation("equal", b, a), value.origin)
    return list(found.items())


def check_sizes(graph: Graph) -> None:
    """Every door symbol that the graph computes with is the size of some leaf."""
    bound = bound_symbols(graph)
    for node in graph.nodes:
        found: set[Symbol] = set()
        for value in node.attrs.values():
            _symbols_in(value, found)
        for s in sorted(found, key=lambda s: s.order):
            if s.kind != "data" and s not in bound:
                label = f"dim {s.name!r}" if s.name else f"the size {s.label}"
                raise GraphcValueError(
                    f"{node.op.name} needs {label}, but no input or shared variable of the function has it in its shape", node.origin)


__all__ = ["capture", "check_updates", "collect_relations", "dims_conflict", "ordered_givens", "pairs"]
