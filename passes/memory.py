"""``memory``: Graph -> MemoryPlan.

What it promises: every value has a place; a buffer of the arena holds one live value at a time; a
step overwrites an operand only where nothing reads that operand again; what is returned lies in
memory of its own or is marked to be copied; time linear in the graph.  ``graphc/verify_plan.py``
proves it anew, from the definitions, without the code of this file.

The order of the steps is that of the graph.  Fused kernels are taken apart into the steps of their
bodies, and a value that two kernels compute alike, because ``fuse`` recomputes what is cheap, is one
value here: a backend that runs node by node does not pay for it.  One that runs kernels may.

Places are given in one walk.  A value takes, in this order:

    its operand's buffer   if the op is elementwise, the operand has its dtype and shape, lies in the
                           arena as itself (no view of it and no view), and is read here for the last time
    a free buffer          of the same number of bytes, as a formula
    a new buffer

A view (``plan.is_view``) lies in its operand's memory, which lives as long as the last of its views.
Roots, values whose size only their node finds out, and results of ops that are not graphc's own
(they may give back their operands, or an array that they keep) are not in the arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.dims import Size
from graphc.ir import Graph, Node, Type, Var
from graphc.ops.control import fused_op
from graphc.ops.core import constant_op, is_door
from graphc.plan import Buffer, MemoryPlan, Return, Step, Value, is_foreign, is_view


def memory(graph: Graph) -> MemoryPlan:
    """Plan the memory of a graph; see the module's docstring."""
    plan = MemoryPlan(graph, ())
    roots = _schedule(graph, plan)
    _lifetimes(plan, roots)
    _returns(plan, roots)
    _places(plan)
    return plan


# ---- steps ------------------------------------------------------------------------------------


class _Schedule:
    """Steps in the making; equal pure expressions within kernels get one value."""

    def __init__(self, plan: MemoryPlan) -> None:
        self.plan = plan
        self.known: dict[Any, tuple[int, ...]] = {}
        self.constants: dict[Any, int] = {}
        self.door: dict[Type, bool] = {}  # are the sizes of this type known when the call enters?

    def value(self, var: Var, place: str, first: int) -> int:
        self.plan.values.append(Value(len(self.plan.values), var, place, first))
        return len(self.plan.values) - 1

    def run(self, node: Node, inputs: tuple[int, ...], kernel: int) -> tuple[int, ...]:
        if node.op is constant_op:
            key = node.key
            if key not in self.constants:
                self.constants[key] = self.value(node.outputs[0], "constant", -1)
            return (self.constants[key],)
        if node.op.pure and kernel >= 0:
            key = (node.key, inputs)
            outputs = self.known.get(key)
            if outputs is None:
                outputs = self.known[key] = self.step(node, inputs, kernel)
            return outputs
        return self.step(node, inputs, kernel)

    def step(self, node: Node, inputs: tuple[int, ...], kernel: int) -> tuple[int, ...]:
        at = len(self.plan.steps)
        outputs = tuple([self.value(v, "arena", at) for v in node.outputs])
        self.plan.steps.append(Step(node, inputs, outputs, kernel))
        values = self.plan.values
        if is_view(node):
            for o in outputs:
                values[o].place, values[o].root = "view", values[inputs[0]].root
        else:
            foreign = is_foreign(node.op)
            for o in outputs:
                if foreign or not self.known_at_the_door(values[o].type):
                    values[o].place = "fresh"
        return outputs

    def known_at_the_door(self, type: Type) -> bool:
        found = self.door.get(type)
        if found is None:
            found = self.door[type] = all(is_door(s) for s in type.shape)
        return found


def _schedule(graph: Graph, plan: MemoryPlan) -> list[int]:
    """Fill in steps and values; the ids of the roots."""
    schedule = _Schedule(plan)
    ids: dict[Var, int] = {v: schedule.value(v, "argument", -1) for v in (*graph.inputs, *graph.shared)}
    plan.arguments = tuple(ids.values())
    for node in graph.nodes:
        inputs = tuple([ids[v] for v in node.inputs])
        if node.op is not fused_op:
            ids.update(zip(node.outputs, schedule.run(node, inputs, -1), strict=True))
            continue
        body: Graph = node.attrs["body"]
        plan.kernels.append(f"{body.name}: {node.attrs['kind']}")
        inner: dict[Var, int] = dict(zip(body.inputs, inputs, strict=True))
        for part in body.nodes:
            results = schedule.run(part, tuple([inner[v] for v in part.inputs]), len(plan.kernels) - 1)
            inner.update(zip(part.outputs, results, strict=True))
        for outer, v in zip(node.outputs, body.outputs, strict=True):
            ids[outer] = inner[v]
    return [ids[v] for v in graph.roots]


# ---- lifetimes --------------------------------------------------------------------------------


def _lifetimes(plan: MemoryPlan, roots: Sequence[int]) -> None:
    """``last`` of every value; that of a root of views covers its views."""
    values = plan.values
    for i, step in enumerate(plan.steps):
        for k in step.inputs:
            values[k].last = i
    for k in roots:
        values[k].last = len(plan.steps)
    for v in reversed(values):  # a view comes after what it looks at
        if v.root != v.id:
            root = values[v.root]
            root.last = max(root.last, v.last)


def _returns(plan: MemoryPlan, roots: Sequence[int]) -> None:
    """Who gives away its memory, and who is copied.  Two roots never share memory."""
    values = plan.values
    given: set[int] = set()
    for k in roots:
        root = values[values[k].root]
        own = root.place in ("arena", "output") or (root.place == "fresh" and _computed(root))
        same_size = root.id == k or values[k].nbytes == root.nbytes  # a small part would keep the whole alive
        copy = not own or root.id in given or not same_size
        if not copy:
            given.add(root.id)
            if root.place == "arena":
                root.place = "output"
        plan.returns.append(Return(k, copy))


def _computed(v: Value) -> bool:
    """Is the memory of a fresh value surely new?  A user's op may hand out an array that it keeps."""
    return v.var.node is not None and not is_foreign(v.var.node.op)


# ---- places -----------------------------------------------------------------------------------


def _places(plan: MemoryPlan) -> None:
    values = plan.values
    free: dict[Size, list[int]] = {}
    sizes: dict[tuple[Any, ...], Size] = {}
    ends: list[list[int]] = [[] for _ in plan.steps]  # arena values by the step that reads them last
    for v in values:
        if v.place == "arena" and v.last < len(plan.steps):
            ends[v.last].append(v.id)
    for i, step in enumerate(plan.steps):
        taken = -1
        for k in step.outputs:
            v = values[k]
            if v.place != "arena":
                continue
            key = (v.type.dtype.itemsize, v.type.shape)
            nbytes = sizes.get(key)
            if nbytes is None:
                nbytes = sizes[key] = v.nbytes
            v.replaces = _overwritten(step, v, values, i)
            if v.replaces >= 0:
                taken = v.replaces
                v.buffer = values[taken].buffer
                continue
            stock = free.get(nbytes)
            if stock:
                v.buffer = stock.pop()
            else:
                v.buffer = len(plan.buffers)
                plan.buffers.append(Buffer(v.buffer, nbytes))
        for k in ends[i]:
            if k != taken:
                free.setdefault(plan.buffers[values[k].buffer].nbytes, []).append(values[k].buffer)


def _overwritten(step: Step, result: Value, values: Sequence[Value], at: int) -> int:
    """The operand that the step may overwrite, -1 if there is none."""
    if step.node.op.kind != "elementwise":
        return -1
    for k in step.inputs:
        v = values[k]
        if (v.place == "arena" and v.last == at and v.type == result.type
                and all(j == k or values[j].root != k for j in step.inputs)):
            return k
    return -1


__all__ = ["memory"]
