"""``fuse``: nodes become kernels.

What it promises: the same values, bit for bit; every node computed by the same op on the same
operands, some of them more than once; a graph of unfused nodes and ``fused`` nodes whose bodies are
closed; time linear in the graph.

Nodes are visited consumers first.  A node joins the kernel of its consumers where ALL of them are in
that one kernel, so no path can leave a kernel and come back, and no cycle can arise.  A kernel is

    elementwise   values in one iteration space, or broadcast into it
    reduction     an elementwise prologue, reductions of one operand shape along the same axes, an
                  elementwise epilogue on the reduced shape; nothing before a reduction depends on one

Joining, copying and keeping apart are decided by one cost, in bytes moved.  One element of arithmetic
counts as ``BYTES_PER_FLOP`` bytes, a size that is not known as ``UNKNOWN_SIZE``:

    join     where the value has the kernel's shape: always, it is neither written nor read again;
             where it is smaller: if computing it once per element of the kernel costs less than
             writing and reading it (a value of one element is computed once per kernel, before the loop)
    copy     into each of the (at most ``MOST_COPIES``) kernels that need it, where that costs less than
             a kernel of its own, which writes it once and is read by each: cheap values are recomputed
    apart    everything else, and every value that the function returns and that has another shape

Constants of one element and size formulas are moved into the bodies.  A kernel of one node stays that node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphc import dims
from graphc.dims import Size
from graphc.ir import Graph, Node, Type, Var, make_node, with_inputs
from graphc.ops.control import fused_op
from graphc.ops.core import constant_op, dim_op
from graphc.passes.context import Context, Rewrite

BYTES_PER_FLOP = 2.0
UNKNOWN_SIZE = 128
MOST_COPIES = 4

#: where in its kernel a node stands
PROLOGUE, REDUCE, EPILOGUE = "prologue", "reduce", "epilogue"

Shape = tuple[Size, ...]


class _Kernel:
    """A group in the making.  ``space`` is the shape of its results, ``reduced`` the operand shape and axes of its reductions."""

    __slots__ = ("members", "reduced", "role", "space")

    def __init__(self, space: Shape) -> None:
        self.space = space
        self.reduced: tuple[Shape, tuple[int, ...]] | None = None
        self.members: list[int] = []  # positions in the node list, consumers first
        self.role: dict[int, str] = {}

    def take(self, position: int, role: str, reduced: tuple[Shape, tuple[int, ...]] | None) -> None:
        self.members.append(position)
        self.role[position] = role
        if role == REDUCE:
            self.reduced = reduced


def fuse(graph: Graph, context: Context) -> Graph:
    """Group the nodes of ``graph`` into kernels; see the module's docstring for what is grouped and why."""
    nodes = graph.nodes
    return _rebuilt(graph, nodes, _grouped(nodes, graph.roots), context)


# ---- the decision -----------------------------------------------------------------------------


def _grouped(nodes: Sequence[Node], roots: Iterable[Var]) -> list[tuple[_Kernel, ...]]:
    """For each node the kernels that compute it: none (it stays a node), one, or several (it is copied)."""
    index = {node: i for i, node in enumerate(nodes)}
    consumers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        for v in node.inputs:
            if v.node is not None:
                consumers[index[v.node]].append(i)
    returned = {v.node for v in roots}
    kernels: list[tuple[_Kernel, ...]] = [()] * len(nodes)
    estimates: dict[Shape, float] = {}
    for i in range(len(nodes) - 1, -1, -1):
        node = nodes[i]
        reduced = reduction_of(node)
        if reduced is None and not is_pointwise(node):
            continue
        users = dict.fromkeys(consumers[i])
        apart = any(not kernels[u] for u in users)  # some user is no part of a kernel: the value must be stored
        found = dict.fromkeys(k for u in users for k in kernels[u])
        if found and not apart and len(found) <= (1 if node in returned else MOST_COPIES):
            roles = [_role(k, node, reduced, users, node in returned, len(found), estimates) for k in found]
            if all(roles) and (len(found) == 1 or _cheaper_copied(node, len(found), estimates)):
                kernels[i] = tuple(found)
                for k, role in zip(found, roles, strict=True):
                    assert role is not None
                    k.take(i, role, reduced)
                continue
        if is_broadcast(node):
            continue  # alone it moves nothing
        own = _Kernel(node.outputs[0].type.shape)
        own.take(i, EPILOGUE if reduced is None else REDUCE, reduced)
        kernels[i] = (own,)
    return kernels


def _role(kernel: _Kernel, node: Node, reduced: tuple[Shape, tuple[int, ...]] | None, users: Iterable[int],
          returned: bool, copies: int, estimates: dict[Shape, float]) -> str | None:
    """The role in which ``node`` can join ``kernel``, None where it cannot."""
    roles = {kernel.role[u] for u in users if u in kernel.role}
    below = roles != {EPILOGUE}  # some user comes before a reduction, or is one
    shape = node.outputs[0].type.shape
    if reduced is not None:
        fits = copies == 1 and not below and shape == kernel.space and kernel.reduced in (None, reduced)
        return REDUCE if fits else None
    space = kernel.space
    if below:
        assert kernel.reduced is not None
        space = kernel.reduced[0]
        if EPILOGUE in roles and not _one_element(shape):
            return None
    if shape != space:
        if returned:
            return None
        again = 0.0 if _one_element(shape) else max(0.0, _elements(space, estimates) - _elements(shape, estimates))
        if BYTES_PER_FLOP * node.op.flops * again > 2 * _bytes(node.outputs[0].type, estimates):
            return None
    return PROLOGUE if below else EPILOGUE


def _cheaper_copied(node: Node, copies: int, estimates: dict[Shape, float]) -> bool:
    result = node.outputs[0].type
    once = sum(_bytes(v.type, estimates) for v in node.inputs) + BYTES_PER_FLOP * node.op.flops * _elements(result.shape, estimates)
    return copies * once < once + (1 + copies) * _bytes(result, estimates)


def is_pointwise(node: Node) -> bool:
    """Does each element of the result need only the elements of the operands that broadcasting puts beside it?"""
    op = node.op
    return (op.kind == "elementwise" and op.pure and len(node.outputs) == 1) or is_broadcast(node)


def is_broadcast(node: Node) -> bool:
    """``broadcast_to`` a shape known at the door: no work, an access pattern of the kernel that reads it."""
    return node.op.name == "broadcast_to" and len(node.inputs) == 1


def reduction_of(node: Node) -> tuple[Shape, tuple[int, ...]] | None:
    """The operand shape and the axes of a reduction that a kernel can hold; None for anything else."""
    if node.op.kind != "reduction" or len(node.inputs) != 1 or len(node.outputs) != 1:
        return None
    source, result = node.inputs[0].type.shape, node.outputs[0].type.shape
    axes = node.attrs.get("axis", node.attrs.get("axes"))
    if isinstance(axes, int):
        axes = (axes,)
    if axes is None and node.op.name == "sum_to":
        axes = _summed_axes(source, result)
    if not isinstance(axes, tuple) or not all(isinstance(a, int) and 0 <= a < len(source) for a in axes):
        return None
    dropped = tuple(s for i, s in enumerate(source) if i not in axes)
    kept = tuple(1 if i in axes else s for i, s in enumerate(source))
    return (source, axes) if result in (dropped, kept) else None


def _summed_axes(source: Shape, result: Shape) -> tuple[int, ...] | None:
    """The axes that ``sum_to`` sums, where the types say so."""
    lead = len(source) - len(result)
    axes = list(range(lead))
    for i, (have, want) in enumerate(zip(source[lead:], result, strict=True)):
        if dims.is_one(want) and have != want:
            axes.append(lead + i)
        elif have != want:
            return None
    if lead and len(axes) != lead:
        return None  # some axes dropped, others kept: not one reduction of NumPy's
    return tuple(axes)


def _one_element(shape: Shape) -> bool:
    return all(dims.is_one(s) for s in shape)


def _elements(shape: Shape, estimates: dict[Shape, float]) -> float:
    found = estimates.get(shape)
    if found is None:
        found = 1.0
        for size in shape:
            if not isinstance(size, int):
                size = _estimate(size)
            found *= size
        estimates[shape] = found
    return found


def _estimate(size: dims.Dim) -> int:
    try:
        return max(0, dims.evaluate(size, {s: max(s.min, UNKNOWN_SIZE) for s in dims.symbols(size)}))
    except (ArithmeticError, ValueError):
        return UNKNOWN_SIZE


def _bytes(type: Type, estimates: dict[Shape, float]) -> float:
    return type.dtype.itemsize * _elements(type.shape, estimates)


# ---- the new graph ----------------------------------------------------------------------------


def moves_inside(node: Node | None) -> bool:
    """Constants of one element and size formulas are no operands of a kernel: its body holds them."""
    return node is not None and (node.op is dim_op or (node.op is constant_op and node.attrs["value"].size == 1))


class _Plan:
    """A kernel about to be built: its nodes, operands first, what it takes and what it gives."""

    __slots__ = ("inputs", "kernel", "nodes", "outputs")

    def __init__(self, kernel: _Kernel, nodes: Sequence[Node]) -> None:
        self.kernel = kernel
        self.nodes = [nodes[i] for i in sorted(kernel.members)]
        self.outputs: dict[Var, None] = {}
        inside = set(self.nodes)
        self.inputs = list(dict.fromkeys(
            v for node in self.nodes for v in node.inputs if v.node not in inside and not moves_inside(v.node)))


def _rebuilt(graph: Graph, nodes: Sequence[Node], kernels: Sequence[tuple[_Kernel, ...]], context: Context) -> Graph:
    roots = graph.roots
    plans: dict[_Kernel, _Plan] = {}
    owner: dict[Node, _Plan] = {}  # of the nodes that exist in one kernel only
    for node, places in zip(nodes, kernels, strict=True):
        for kernel in places:
            if len(kernel.members) > 1 and kernel not in plans:
                plans[kernel] = _Plan(kernel, nodes)
        if len(places) == 1 and places[0] in plans:
            owner[node] = plans[places[0]]
    for v in roots:
        _give(v, owner, None)
    for node, places in zip(nodes, kernels, strict=True):
        for v in node.inputs:
            if not any(kernel in plans for kernel in places):
                _give(v, owner, None)
            for kernel in places:
                _give(v, owner, plans.get(kernel))
    new: dict[Var, Var] = {}
    names: dict[str, int] = {}
    stack: list[Node | _Plan] = [_unit(v.node, owner) for v in reversed(roots) if v.node is not None]
    done: set[Node | _Plan] = set()
    while stack:
        unit = stack[-1]
        if unit in done:
            stack.pop()
            continue
        pending = [_unit(v.node, owner) for v in reversed(unit.inputs) if v.node is not None]
        pending = [u for u in pending if u not in done]
        if pending:
            stack.extend(pending)
            continue
        stack.pop()
        done.add(unit)
        if isinstance(unit, _Plan):
            _build(unit, new, names, context)
            continue
        inputs = tuple([new.get(v, v) for v in unit.inputs])
        if any(a is not b for a, b in zip(inputs, unit.inputs, strict=True)):
            new.update(zip(unit.outputs, with_inputs(unit, inputs).outputs, strict=True))
    return graph.with_roots([new.get(v, v) for v in roots])


def _unit(node: Node, owner: Mapping[Node, _Plan]) -> Node | _Plan:
    return owner.get(node, node)


def _give(v: Var, owner: Mapping[Node, _Plan], reader: _Plan | None) -> None:
    """Note that ``v`` is read by ``reader``: if another kernel computes it, it is a result of that kernel."""
    if v.node is not None:
        plan = owner.get(v.node)
        if plan is not None and plan is not reader:
            plan.outputs[v] = None


def _build(plan: _Plan, new: dict[Var, Var], names: dict[str, int], context: Context) -> None:
    """The fused node of one kernel; its results are noted in ``new`` and in the log."""
    inner: dict[Var, Var] = {v: Var(v.type, name=v.name, origin=v.origin) for v in plan.inputs}
    takes = tuple(inner.values())
    for node in plan.nodes:
        for v in node.inputs:
            if v not in inner:  # a constant
                assert v.node is not None
                copy = Node(v.node.op, (), v.node.attrs, [v.type], v.node.origin)
                inner[v] = copy.outputs[0]
        inner.update(zip(node.outputs, with_inputs(node, tuple([inner[v] for v in node.inputs])).outputs, strict=True))
    body = Graph(takes, [inner[v] for v in plan.outputs], name=_kernel_name(plan.nodes, names))
    attrs: dict[str, Any] = {"body": body, "kind": "elementwise" if plan.kernel.reduced is None else "reduction"}
    fused = make_node(fused_op, [new.get(v, v) for v in plan.inputs], attrs, plan.nodes[-1].origin.by("fuse"))
    for old, v in zip(plan.outputs, fused.outputs, strict=True):
        v.name = old.name
        new[old] = v
        context.log.append(Rewrite("fuse", old, v))


def _kernel_name(nodes: Sequence[Node], names: dict[str, int]) -> str:
    """``sub_exp_sum``: what the kernel does, in order; a number where the name is taken."""
    words: list[str] = []
    for node in nodes:
        if not is_broadcast(node) and (not words or words[-1] != node.op.name):
            words.append(node.op.name)
    if len(words) > 5:
        words = [*words[:3], f"and{len(words) - 4}", words[-1]]
    name = "_".join(words) or nodes[0].op.name
    names[name] = count = names.get(name, 0) + 1
    return name if count == 1 else f"{name}_{count}"


__all__ = ["fuse", "is_pointwise", "moves_inside", "reduction_of"]
