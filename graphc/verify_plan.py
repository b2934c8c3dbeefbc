"""``verify_plan``: is a memory plan right?  The question is answered by running it, symbolically.

The plan is executed on a memory of cells: each argument, each constant, each buffer of the arena and
each value with memory of its own is one cell, which holds the *name of an expression* instead of
numbers.  Equal names mean equal expressions, so the answer does not depend on how the plan was made:

1. every step finds in its operands' cells exactly the expressions that it is meant to read (nothing
   that is still needed was overwritten, views see the memory of what they look at, the order is right);
2. no step writes to an argument, to a constant, or to a cell that it reads, unless the op is
   elementwise and the operand has the result's dtype and shape and is no view;
3. a value in the arena has a size known at the door, which is that of its buffer;
4. at the end each root is its expression of the graph; the memory of what is returned without a copy
   was never anyone else's: no argument, constant or buffer, and no two roots share it;
5. effects (ops that are not pure) happen as often as in the graph.

Nothing here uses lifetimes, free lists or any code of ``passes/memory.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dims
from graphc.errors import Origin, VerificationError
from graphc.ir import Graph, Node, Var, toposort
from graphc.plan import PLACES, MemoryPlan, Step, Value, is_foreign, is_view

#: a cell of memory: ("arena", buffer) or ("value", id)
Cell = tuple[str, int]


class _Names:
    """Expressions by number: equal op, attributes and operands, equal number.  Effects are never equal."""

    def __init__(self) -> None:
        self.table: dict[Any, int] = {}

    def number(self, key: Any) -> int:
        return self.table.setdefault(key, len(self.table))

    def apply(self, node: Node, operands: tuple[int, ...], effects: dict[Any, int]) -> list[int]:
        key: tuple[Any, ...] = (node.key, operands)
        if not node.op.pure:  # the first, second, ... time that it happens
            effects[key] = effects.get(key, 0) + 1
            key = (*key, effects[key])
        return [self.number((key, k)) for k in range(len(node.outputs))]


def verify_plan(graph: Graph, plan: MemoryPlan) -> None:
    """Raise VerificationError, naming the step and the user's line, if the plan does not compute the graph."""
    names = _Names()
    leaves = (*graph.inputs, *graph.shared)
    if len(plan.arguments) != len(leaves):
        raise VerificationError(f"memory plan: {len(plan.arguments)} arguments; the graph has {len(leaves)}")
    wanted_effects: dict[Any, int] = {}
    wanted = _expressions(graph, names, wanted_effects)

    _check_values(plan)
    effects: dict[Any, int] = {}
    expected: list[int | None] = [None] * len(plan.values)  # the expression that each value is
    cells: dict[Cell, int] = {}  # what each cell holds
    for k, (leaf, a) in enumerate(zip(leaves, plan.arguments, strict=True)):
        expected[a] = cells["value", a] = names.number(("leaf", k))
        if plan.values[a].place != "argument" or plan.values[a].type != leaf.type:
            raise VerificationError(f"memory plan: argument {k} is {_text(plan.values[a])}; the graph has {leaf.describe()}")
    for v in plan.values:
        if v.place == "constant":
            node = v.var.node
            if node is None or node.inputs:
                raise VerificationError(f"memory plan: {_text(v)} is no constant")
            expected[v.id] = cells["value", v.id] = names.apply(node, (), effects)[0]
    for i, step in enumerate(plan.steps):
        _run(i, step, plan, names, effects, expected, cells)
    _check_roots(plan, [wanted[v] for v in graph.roots], expected, cells)
    if effects != wanted_effects:
        raise VerificationError("memory plan: an op with effects does not happen as often as in the graph")


def _expressions(graph: Graph, names: _Names, effects: dict[Any, int]) -> dict[Var, int]:
    """The number of the expression of each variable of the graph; kernels are what their bodies are."""
    found: dict[Var, int] = {v: names.number(("leaf", k)) for k, v in enumerate((*graph.inputs, *graph.shared))}
    for node in toposort(graph.roots):
        if node.op.name != "fused":
            found.update(zip(node.outputs, names.apply(node, tuple([found[v] for v in node.inputs]), effects), strict=True))
            continue
        body: Graph = node.attrs["body"]
        inner = {b: found[v] for b, v in zip(body.inputs, node.inputs, strict=True)}
        for part in toposort(body.outputs):
            inner.update(zip(part.outputs, names.apply(part, tuple([inner[v] for v in part.inputs]), effects), strict=True))
        found.update(zip(node.outputs, (inner[v] for v in body.outputs), strict=True))
    return found


def _check_values(plan: MemoryPlan) -> None:
    """What can be said of a value alone."""
    for k, v in enumerate(plan.values):
        if v.id != k or v.place not in PLACES:
            raise VerificationError(f"memory plan: value {k} says that it is {v.id}, in place {v.place!r}")
        if (v.place == "view") != (v.root != v.id):
            raise VerificationError(f"memory plan: {_text(v)} lies in the memory of value {v.root}")
        if v.place == "view" and plan.values[v.root].place == "view":
            raise VerificationError(f"memory plan: {_text(v)} names a view as the owner of its memory")
        if v.place != "arena":
            continue
        if not 0 <= v.buffer < len(plan.buffers):
            raise VerificationError(f"memory plan: {_text(v)} lies in buffer {v.buffer}, which does not exist", _where(v))
        if any(s.kind == "data" for size in v.type.shape for s in dims.symbols(size)):
            raise VerificationError(f"memory plan: the size of {_text(v)} is found out by a node: no buffer can be ready for it", _where(v))
        nbytes = v.type.dtype.itemsize * dims.product(v.type.shape)
        if plan.buffers[v.buffer].nbytes != nbytes:
            have = dims.size_text(plan.buffers[v.buffer].nbytes)
            raise VerificationError(f"memory plan: {_text(v)} takes {dims.size_text(nbytes)} bytes; its buffer has {have}", _where(v))


def _cell(v: Value, plan: MemoryPlan) -> Cell:
    root = plan.values[v.root]
    return ("arena", root.buffer) if root.place == "arena" else ("value", root.id)


def _run(i: int, step: Step, plan: MemoryPlan, names: _Names, effects: dict[Any, int], expected: list[int | None],
         cells: dict[Cell, int]) -> None:
    node, values = step.node, plan.values
    label = f"memory plan, step {i} ({node.op.name})"
    if len(step.inputs) != len(node.inputs) or len(step.outputs) != len(node.outputs):
        raise VerificationError(f"{label}: {len(step.inputs)} operands, {len(step.outputs)} results; the node {node!r} has others", node.origin)
    operands = []
    for k, v in zip(step.inputs, node.inputs, strict=True):
        value = values[k]
        if value.type != v.type and (value.type.dtype != v.type.dtype or value.type.ndim != v.type.ndim):
            raise VerificationError(f"{label}: operand {_text(value)} where the node takes {v.type}", node.origin)
        owner = expected[value.root]
        if expected[k] is None or owner is None:
            raise VerificationError(f"{label}: operand {_text(value)} is not computed yet", node.origin)
        if cells.get(_cell(value, plan)) != owner:
            raise VerificationError(f"{label}: operand {_text(value)} was overwritten: its memory holds another value by now", node.origin)
        operands.append(expected[k])
    results = names.apply(node, tuple(k for k in operands if k is not None), effects)
    written: set[Cell] = set()
    for k, number in zip(step.outputs, results, strict=True):
        value = values[k]
        expected[k] = number
        if value.place == "view":
            if not is_view(node) or value.root != values[step.inputs[0]].root:
                raise VerificationError(f"{label}: {_text(value)} is called a view, which {node.op.name} of that operand is not", node.origin)
            continue
        if is_view(node):
            raise VerificationError(f"{label}: {_text(value)} may share memory with its operand, and the plan does not say so", node.origin)
        cell = _cell(value, plan)
        if value.place not in ("arena", "output", "fresh") or cell in written:
            raise VerificationError(f"{label}: it writes to {_text(value)}", node.origin)
        if value.place != "arena" and cell in cells:
            raise VerificationError(f"{label}: {_text(value)} is written twice", node.origin)
        reads = [values[j] for j in step.inputs if _cell(values[j], plan) == cell]
        for operand in reads:
            _check_in_place(label, node, operand, value)
        written.add(cell)
    for k in step.outputs:
        if values[k].place != "view":
            number_of = expected[k]
            assert number_of is not None
            cells[_cell(values[k], plan)] = number_of


def _check_in_place(label: str, node: Node, operand: Value, result: Value) -> None:
    if node.op.kind != "elementwise":
        raise VerificationError(f"{label}: it overwrites {_text(operand)} while it reads it, and is not elementwise", node.origin)
    if operand.place == "view" or operand.type.dtype != result.type.dtype or operand.type.shape != result.type.shape:
        raise VerificationError(f"{label}: it overwrites {_text(operand)} with {_text(result)}: only a whole value of the same dtype "
                                "and shape may be overwritten element by element", node.origin)


def _check_roots(plan: MemoryPlan, wanted: Sequence[int], expected: Sequence[int | None], cells: dict[Cell, int]) -> None:
    if len(plan.returns) != len(wanted):
        raise VerificationError(f"memory plan: {len(plan.returns)} values are returned; the graph has {len(wanted)} roots")
    given: set[Cell] = set()
    for k, (returned, number) in enumerate(zip(plan.returns, wanted, strict=True)):
        v = plan.values[returned.value]
        cell = _cell(v, plan)
        if expected[v.id] != number:
            raise VerificationError(f"memory plan: root {k} is {_text(v)}, which is another expression than the graph's", _where(v))
        if cells.get(cell) != expected[v.root]:
            raise VerificationError(f"memory plan: root {k}, {_text(v)}, was overwritten before the end", _where(v))
        if returned.copy:
            continue
        root = plan.values[v.root]
        if root.place not in ("output", "fresh") or cell in given:
            raise VerificationError(f"memory plan: root {k}, {_text(v)}, is given away without a copy, but its memory is not its own", _where(v))
        if root.place == "fresh" and (root.var.node is None or is_foreign(root.var.node.op)):
            raise VerificationError(f"memory plan: root {k}, {_text(v)}: an op of the user's may keep that array; it must be copied", _where(v))
        given.add(cell)


def _text(v: Value) -> str:
    name = v.var.name or (v.var.node.op.name if v.var.node is not None else "input")
    return f"value {v.id} ({name}: {v.type}, {v.place}{f' b{v.buffer}' if v.place == 'arena' else ''})"


def _where(v: Value) -> Origin:
    return v.var.origin


__all__ = ["verify_plan"]
