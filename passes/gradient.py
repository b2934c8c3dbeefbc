"""Pass ``gradient``: every derivative placeholder becomes the subgraph that computes it.

Reverse mode is the *Deep Learning* book's (Goodfellow, Bengio, Courville, section
6.5.6), with its names: Algorithm 6.5 is ``back_propagation``, Algorithm 6.6 is
``build_grad``, and the subroutines ``get_operation``, ``get_consumers``,
``get_inputs`` and ``op.bprop(inputs, X, D)`` are those that the book asks for.
What differs: ``build_grad`` keeps its own stack, so that a chain of 50 000 nodes
is differentiated without recursion, and an operation may have several results.

Promise: afterwards no placeholder is left, also not in inner graphs; values are
those of the graph before.  It runs after ``stabilise``, so that log(sum(exp(x)))
has a softmax for a gradient.  Placeholders nest: they are replaced operands first,
hence innermost first.  A chain of n nodes gets O(n) nodes of gradient: one call of
``bprop`` for each edge, one cotangent for each variable.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import GradientError, on_behalf_of
from graphc.ir import Graph, Node, Var, make_node, rebuild, toposort
from graphc.ops.arithmetic import add
from graphc.ops.core import cast
from graphc.ops.placeholders import gradient_op, tangent_op, unexpanded, zeros_of
from graphc.passes.context import Context, Rewrite
from graphc.passes.gradient_safety import carries, guarded_bprop, starts_taint
from graphc.passes.tangent import push_forward

#: cotangent of each variable; None: nothing flows into it
GradTable = dict[Var, Var | None]


def gradient(graph: Graph, context: Context) -> Graph:
    """The graph with derivative placeholders expanded and marks removed."""
    roots = _expand(graph.roots, context)
    roots = rebuild(roots, {}, visit=_without_marks)
    return graph.with_roots(_expand_inner(roots, context))


def _expand(roots: Sequence[Var], context: Context) -> list[Var]:
    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if node.op is gradient_op:
            k = node.attrs["seeds"]
            with on_behalf_of(node.origin):
                results = back_propagation(inputs[2 * k:], _added(inputs[:k], inputs[k:2 * k]))
        elif node.op is tangent_op:
            k = node.attrs["results"]
            n = (len(inputs) - k) // 2
            with on_behalf_of(node.origin):
                results = push_forward(inputs[:k], _added(inputs[k:k + n], inputs[k + n:]), back_propagation)
        else:
            return None
        for old, new in zip(node.outputs, results, strict=True):
            context.log.append(Rewrite("build_grad", old, new))
        return results

    return rebuild(roots, {}, visit=visit)


def _added(variables: Sequence[Var], values: Sequence[Var]) -> dict[Var, Var]:
    """The value of each variable; those of one that stands there twice (or has become another) add up."""
    table: dict[Var, Var] = {}
    for v, value in zip(variables, values, strict=True):
        table[v] = add(table[v], value) if v in table else value
    return table


def _without_marks(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
    return inputs if node.op.placeholder else None


def _expand_inner(roots: Sequence[Var], context: Context) -> list[Var]:
    """Expand the placeholders inside inner graphs (nesting is as deep as the user wrote it)."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        bodies = {k: g for k, g in node.attrs.items() if isinstance(g, Graph)}
        if not any(unexpanded(g.roots) for g in bodies.values()):
            return None
        attrs = {**node.attrs, **{k: gradient(g, context) for k, g in bodies.items()}}
        return make_node(node.op, inputs, attrs, node.origin.by("build_grad")).outputs

    return rebuild(roots, {}, visit=visit)


# ---- Algorithm 6.5 ----------------------------------------------------------------------------


def back_propagation(targets: Sequence[Var], seeds: dict[Var, Var]) -> list[Var]:
    """Algorithm 6.5: the outermost skeleton of the back-propagation algorithm.

    Args:
        targets: T, the variables whose gradients are wanted.
        seeds: z and its own gradient (1 for a cost); several where cotangents are given.

    Returns:
        grad_table restricted to T; zeros where nothing flows.
    """
    g_prime = Pruned(seeds, targets)
    grad_table: GradTable = dict(seeds)
    g = Insertions()
    for v in targets:
        build_grad(v, g, g_prime, grad_table)
    return [_of_type(grad_table[v], v) for v in targets]


def _of_type(gradient: Var | None, v: Var) -> Var:
    return zeros_of(v) if gradient is None else gradient


class Insertions:
    """G, as far as the algorithm modifies it: nodes are immutable, so inserting is naming and remembering."""

    def __init__(self) -> None:
        self.inserted: list[tuple[Var, Var]] = []

    def insert(self, v: Var, gradient: Var) -> None:
        """Insert the gradient of ``v`` and the operations that create it."""
        if gradient.node is not None and gradient.name is None and v.name is not None:
            gradient.name = f"d_{v.name}"
        self.inserted.append((v, gradient))


class Pruned:
    """G': G pruned to the ancestors of z that are descendants of T, with each variable's consumers."""

    def __init__(self, seeds: dict[Var, Var], targets: Sequence[Var]) -> None:
        self.taint: dict[Var, int] = {}  # of cotangents: see gradient_safety
        for z, g in seeds.items():
            if g.node is not None and starts_taint(g.node):
                self.taint[z] = starts_taint(g.node)
        self.consumers: dict[Var, list[Node]] = {}
        inside = set(targets)
        for node in toposort(seeds):
            used = [v for i, v in enumerate(node.inputs) if v in inside and node.op.connected(i, node)]
            if used:
                inside.update(node.outputs)
                for v in dict.fromkeys(used):
                    self.consumers.setdefault(v, []).append(node)


def get_consumers(v: Var, g_prime: Pruned) -> list[Node]:
    """The operations that V is an operand of in G' (one entry for an operation that uses it twice)."""
    return g_prime.consumers.get(v, [])


def get_inputs(c: Node, g_prime: Pruned) -> tuple[Var, ...]:
    """The operands of the operation that computes C."""
    return c.inputs


class Operation:
    """An op at a node, with the book's ``bprop``.  D holds a cotangent for each result."""

    __slots__ = ("node", "taint")

    def __init__(self, node: Node, taint: int) -> None:
        self.node, self.taint = node, taint

    def bprop(self, inputs: Sequence[Var], x: int, d: Sequence[Var | None]) -> Var | None:
        """(6.54): sum_i (grad_X op.f(inputs)_i) D_i, for X the operand at position ``x``.

        Positions, not variables: the inputs are taken to be distinct even where they are
        not, so mul(x, x) gives x for each of the two and ``build_grad`` adds them up.
        """
        node = self.node
        if not node.op.differentiable():
            raise GradientError(f"op {node.op.name} has no gradient", node.origin)
        with on_behalf_of(node.origin.by("build_grad")):
            return guarded_bprop(node, x, inputs, d, self.taint)


def get_operation(c: Node, g_prime: Pruned) -> Operation:
    """The operation that computes C; guarded where its cotangent comes through a ``where``."""
    return Operation(c, max(g_prime.taint.get(v, 0) for v in c.outputs))


# ---- Algorithm 6.6 ----------------------------------------------------------------------------


def build_grad(v: Var, g: Insertions, g_prime: Pruned, grad_table: GradTable) -> Var | None:
    """Algorithm 6.6: the inner loop subroutine ``build_grad(V, G, G', grad_table)``.

    Args:
        v: V, the variable whose gradient should be added to G and grad_table.
        g: G, the graph to modify.
        g_prime: G', the restriction of G to nodes that participate in the gradient.
        grad_table: maps variables to their gradients.

    The book's recursive call build_grad(C) is an entry of ``stack``: a variable is taken
    up again when all its consumers' results have their cotangents.
    """
    stack = [v]
    while stack:
        v = stack[-1]
        if v in grad_table:
            stack.pop()
            continue
        waiting = [c for node in get_consumers(v, g_prime) for c in node.outputs if c not in grad_table]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        stack.pop()
        total: Var | None = None
        for c in get_consumers(v, g_prime):
            d = [grad_table[y] for y in c.outputs]
            if all(di is None for di in d):
                continue
            op = get_operation(c, g_prime)
            inputs = get_inputs(c, g_prime)
            for i, x in enumerate(inputs):
                if x is not v or not c.op.connected(i, c):
                    continue
                gi = op.bprop(inputs, i, d)
                if gi is None:
                    continue
                with on_behalf_of(c.origin.by("build_grad")):
                    gi = _fit(gi, v, c)
                    total = gi if total is None else add(total, gi)  # G <- sum_i G^(i)
                taint = carries(c, op.taint)
                if taint:
                    g_prime.taint[v] = max(taint, g_prime.taint.get(v, 0))
        if total is not None:
            g.insert(v, total)
        grad_table[v] = total
    return grad_table[v]


def _fit(g: Var, v: Var, consumer: Node) -> Var:
    """A gradient has the dtype and the rank of its variable, or the op's bprop is wrong."""
    if g.type.dtype != v.type.dtype:
        g = cast(g, v.type.dtype)  # complex -> real drops what a real variable cannot follow
    if g.type.ndim != v.type.ndim:
        raise GradientError(f"bprop of {consumer.op.name} gave {g.type} as the gradient of an operand of type {v.type}: "
                            "a gradient has the shape of its operand", consumer.origin)
    return g


__all__ = ["Insertions", "Operation", "Pruned", "back_propagation", "build_grad", "get_consumers", "get_inputs", "get_operation", "gradient"]
