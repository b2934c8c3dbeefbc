"""The memory plan: where each value of a graph lies, and from when to when.

    MemoryPlan   steps, values, buffers, returns
    Step         one op applied; fused kernels are taken apart into the steps of their bodies
    Value        what a step reads or writes, with the place where it lies
    Buffer       a piece of the arena; its size is a formula of the dims
    Return       a root of the graph, and whether it must be copied

A value lies in one of these places:

    argument   memory of the caller or of a shared variable: never written
    constant   memory of the graph: never written
    arena      a buffer, used by one value after the other within a call
    output     memory of its own, new in each call, given away at the end
    fresh      memory of its own, new in each call: a size that only the node finds out, a user's op
    view       the memory of another value: ``root`` says whose

Made by ``passes/memory.py``, proved by ``graphc/verify_plan.py``, obeyed by the backends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeGuard

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.ir import Graph, Node, Op, Type, Var

PLACES = ("argument", "constant", "arena", "output", "fresh", "view")


class Value:
    """One value of the plan.

    Args:
        id: its position in ``MemoryPlan.values``.
        var: the variable of the graph or of a kernel's body that it is (one of them, where several are equal).
        place: see the module's docstring.
        root: the id of the value whose memory it lies in: its own, but for views.
        buffer: the number of its buffer (arena only), else -1.
        first: the step that makes it; -1 for what is there when the call begins.
        last: the last step that reads its memory, views of it included; ``len(steps)`` for what is returned.
        replaces: the id of the operand whose memory the step overwrites with this value, else -1.
    """

    __slots__ = ("buffer", "first", "id", "last", "place", "replaces", "root", "var")

    def __init__(self, id: int, var: Var, place: str, first: int) -> None:
        self.id, self.var, self.place, self.root, self.first, self.last = id, var, place, id, first, first
        self.buffer = self.replaces = -1

    @property
    def type(self) -> Type:
        return self.var.type

    @property
    def nbytes(self) -> Size:
        return self.type.dtype.itemsize * dims.product(self.type.shape)


class Step(NamedTuple):
    """``node`` computed from values (ids) to values; ``kernel`` is the number of the fused kernel it belongs to, or -1."""

    node: Node
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: int


class Buffer(NamedTuple):
    id: int
    nbytes: Size


class Return(NamedTuple):
    """A root: the value, and whether it must be copied because its memory is not the call's to give away."""

    value: int
    copy: bool


@dataclass
class MemoryPlan:
    """The plan of one graph.  ``arguments`` are the ids of its inputs, then of its shared variables."""

    graph: Graph
    arguments: tuple[int, ...]
    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    returns: list[Return] = field(default_factory=list)
    kernels: list[str] = field(default_factory=list)  # names of the fused kernels, "name: kind"

    @property
    def peak_bytes(self) -> Size:
        """The size of the arena, as a formula of the dims.  Outputs and fresh values are not in it."""
        counts: dict[Size, int] = {}
        for buffer in self.buffers:
            counts[buffer.nbytes] = counts.get(buffer.nbytes, 0) + 1
        total: Size = 0
        for nbytes, count in counts.items():
            total = total + nbytes * count
        return total

    def evaluate(self, env: Mapping[Symbol, int]) -> int:
        """The bytes of the arena for these sizes."""
        return dims.evaluate(self.peak_bytes, env)

    @property
    def unplanned_bytes(self) -> Size:
        """What the arena would need if no two values shared memory: what the plan saves is the difference."""
        counts: dict[Type, int] = {}
        for v in self.values:
            if v.place == "arena":
                counts[v.type] = counts.get(v.type, 0) + 1
        total: Size = 0
        for type, count in counts.items():
            total = total + dims.product(type.shape) * (type.dtype.itemsize * count)
        return total

    def symbols(self) -> tuple[Symbol, ...]:
        """The symbols that the sizes of the buffers need."""
        return tuple(dict.fromkeys(s for b in self.buffers for s in dims.symbols(b.nbytes)))

    def text(self, names: Mapping[Symbol, str] | None = None) -> str:
        """The plan as a table, one value a line, in the order in which they come to be."""
        labels = value_names(self.values)
        shown = names if names is not None else _symbol_names(self.values)
        rows = [("value", "type", "place", "steps", "")]
        for v in self.values:
            if v.place == "constant" and v.type.ndim == 0:
                continue
            note = f"in place of {labels[v.replaces]}" if v.replaces >= 0 else f"view of {labels[v.root]}" if v.root != v.id else ""
            place = f"b{v.buffer}" if v.place == "arena" else v.place
            rows.append((labels[v.id], v.type.text(shown), place, f"{_time(v.first, self)}..{_time(v.last, self)}", note))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = [" ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
        lines.append("")
        lines += [f"b{b.id}: {dims.size_text(b.nbytes, shown)} bytes" for b in self.buffers]
        copied = [labels[r.value] for r in self.returns if r.copy]
        lines.append(f"arena: {dims.size_text(self.peak_bytes, shown)} bytes in {len(self.buffers)} buffer(s); "
                     f"without reuse {dims.size_text(self.unplanned_bytes, shown)} bytes")
        if copied:
            lines.append(f"copied when returned: {', '.join(copied)}")
        return "\n".join(lines) + "\n"


def _time(step: int, plan: MemoryPlan) -> str:
    return "start" if step < 0 else "end" if step >= len(plan.steps) else str(step)


def _symbol_names(values: Iterable[Value]) -> dict[Symbol, str]:
    """Unknown sizes numbered in the order in which they appear, so that the text does not depend on the process."""
    found: dict[Symbol, str] = {}
    for v in values:
        for size in v.type.shape:
            for s in dims.symbols(size):
                if s.name is None and s not in found:
                    found[s] = f"?{len(found)}"
    return found


def value_names(values: Iterable[Value], taken: Iterable[str] = ()) -> list[str]:
    """A Python identifier for each value: the user's name where there is one, else ``op_3``."""
    used = set(taken)
    counts: dict[str, int] = {}
    names: list[str] = []
    for v in values:
        node = v.var.node
        name = v.var.name
        if node is not None and node.op.name == "constant" and not name:
            stem, name = "c", None
        elif _is_word(name) and name not in used:
            used.add(name)
            names.append(name)
            continue
        else:
            stems = (name, node.op.name if node is not None else "x", "value")
            stem = next(s for s in stems if s is not None and _is_word(s))
        while True:
            counts[stem] = number = counts.get(stem, 0) + 1
            candidate = f"{stem}_{number}" if stem != "c" else f"c{number - 1}"
            if candidate not in used:
                break
        used.add(candidate)
        names.append(candidate)
    return names


def _is_word(name: str | None) -> TypeGuard[str]:
    return name is not None and name.isidentifier() and name.isascii() and not name.startswith("_")


def is_view(node: Node) -> bool:
    """May the results lie in the memory of operand 0?"""
    if node.op.name == "sum_to" and node.inputs[0].type.ndim > node.outputs[0].type.ndim:
        return False  # there is surely something to sum
    return node.op.view


def is_foreign(op: Op) -> bool:
    """Is it code that graphc did not write, or that runs such code?  It may give back its operands, or an array that it keeps."""
    return op.kind == "control" or not type(op).__module__.startswith("graphc.ops")


__all__ = ["PLACES", "Buffer", "MemoryPlan", "Return", "Step", "Value", "is_foreign", "is_view", "value_names"]
