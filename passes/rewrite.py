"""The one engine that applies rules: a bottom-up sweep with value numbering.

Nodes are visited operands first, each once, on operands that are already in their
final form.  A rule that fires gives new nodes; these are visited in the same way,
from an explicit stack, before the sweep goes on.  So no node is visited twice, and no
fixpoint over the whole graph is ever restarted: time is linear in the nodes plus the
firings.  What keeps rules from running for ever:

- an expression that is being simplified comes up again while it is: two rules undo each other;
- more than ``BUDGET`` firings follow from one node of the graph as it came.

Both are errors that name the rules.  The engine, not the author of a rule, carries the
name, the line and the history of a value to what replaces it, and gives a result that
lost its shape (``x * ones((3, 1))`` -> ``x``) its shape back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.errors import InternalError, Origin
from graphc.ir import Graph, Node, Var, apply, with_inputs
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.core import is_door, size_of_op
from graphc.passes.constants import folded, literal
from graphc.passes.context import Context, Rewrite
from graphc.passes.numbering import Numbering
from graphc.passes.pattern import Alternative, Index, Rule, replacement, root_fits

#: firings that may follow from one node
BUDGET = 64


def rewrite(graph: Graph, rules: Sequence[Rule], context: Context, fold: bool = False) -> Graph:
    """The graph with ``rules`` applied wherever they fit, in the order of the sequence where several do.

    Rules of level "fast" are used if ``context.level`` is "fast"; ``context.exclude`` names rules
    to leave out; each firing is written to ``context.log``.  ``fold`` evaluates nodes of constants on
    the way.  Dtypes and shapes of the roots stay.

    Raises:
        InternalError: rules undo each other, grow without end, or change a dtype; it names them.
    """
    chosen = tuple(r for r in rules if r.name not in context.exclude and (r.level == "exact" or context.level == "fast"))
    return Sweep(chosen, context, fold).graph(graph)


@functools.lru_cache(maxsize=64)
def _index(rules: tuple[Rule, ...]) -> Index:
    return Index(rules)


class Sweep:
    """One run over one graph.  ``visits`` counts nodes looked at."""

    def __init__(self, rules: tuple[Rule, ...], context: Context, fold: bool = False) -> None:
        self.index, self.context, self.fold = _index(rules), context, fold
        self.numbering = Numbering()
        self.final: dict[Var, Var] = {}  # every value met so far -> what stands for it
        self.waiting: dict[Node, tuple[Node, Var]] = {}  # node -> its numbered form and what it was rewritten to
        self.fresh: set[Node] = set()  # nodes that rules made: they may still be given a name
        self.bodies: dict[Graph, Graph] = {}
        self.fired: list[str] = []  # since the sweep began to settle a node of the graph as it came
        self.visits = 0
        self.on_merge: Callable[[Var, Var], None] | None = None

    def graph(self, graph: Graph) -> Graph:
        """The graph with its roots replaced by their final forms."""
        for node in graph.nodes:
            self.fired.clear()
            self._settle(node)
        final = self.final
        return graph.with_roots([final.get(v, v) for v in graph.roots])

    # ---- the sweep ------------------------------------------------------------------------------

    def _settle(self, start: Node) -> None:
        """Bring one node, whose operands are final, to its final form."""
        final, waiting = self.final, self.waiting
        stack = [start]
        while stack:
            node = stack[-1]
            if node in waiting:  # what it was rewritten to has been settled
                numbered, given = waiting.pop(node)
                waiting.pop(numbered, None)
                self._conclude(node, numbered, (final.get(given, given),))
                stack.pop()
                continue
            pending = [v.node for v in node.inputs if v.node is not None and v not in final]
            if pending:
                for operand in pending:
                    if operand in waiting:
                        raise self._endless(operand, "come round to the expression that they began with")
                pending.reverse()
                stack.extend(pending)
                continue
            if node.outputs[0] in final:
                stack.pop()
                continue
            target = self._visit(node)
            if target is None:
                stack.pop()
            else:
                assert target.node is not None
                if target.node in waiting:
                    raise self._endless(target.node, "come round to the expression that they began with")
                stack.append(target.node)

    def _visit(self, node: Node) -> Var | None:
        """Number the node and try to fold and rewrite it.  A value that must be settled first, or None if all is done."""
        self.visits += 1
        final = self.final
        inputs = tuple([final.get(v, v) for v in node.inputs])
        current = self._with_inner_graphs(node)
        numbered = self.numbering.intern(current, inputs)
        if numbered is not node:
            if numbered.outputs[0] in final:
                if self.on_merge is not None and numbered.op is node.op:
                    self.on_merge(node.outputs[0], numbered.outputs[0])
                self._conclude(node, numbered, [final[v] for v in numbered.outputs])
                return None
            if numbered in self.waiting:
                raise self._endless(numbered, "come round to the expression that they began with")
            if node in self.fresh:
                self.fresh.add(numbered)
        if self.fold:
            constants = folded(numbered, self.context.fold_limit)
            if constants is not None:
                self._conclude(node, numbered, [self._numbered_constant(numbered, v) for v in constants])
                return None
        if len(numbered.outputs) == 1:
            for alternative in self.index.candidates(numbered):
                target = self._fire(alternative, numbered)
                if target is None:
                    continue
                if target in final or target.node is None:
                    self._conclude(node, numbered, (final.get(target, target),))
                    return None
                self.waiting[node] = self.waiting[numbered] = (numbered, target)
                return target
        for old, v in zip(node.outputs, numbered.outputs, strict=True):
            final[old] = final[v] = v
        return None

    def _conclude(self, node: Node, numbered: Node, results: Sequence[Var]) -> None:
        """``results`` are the final forms of what ``node``, alias ``numbered``, computes."""
        final = self.final
        for old, alias, v in zip(node.outputs, numbered.outputs, results, strict=True):
            final[old] = final[alias] = final[v] = v
            name = old.name or alias.name
            if name is not None and v.name is None and v.node is not None and v.node in self.fresh and v.node.inputs:
                v.name = name

    def _numbered_constant(self, node: Node, v: Var) -> Var:
        assert v.node is not None
        v.node.origin = node.origin.by("fold")
        numbered = self.numbering.intern(v.node, ()).outputs[0]
        self.context.log.append(Rewrite("fold", node.outputs[0], numbered))
        return numbered

    def _with_inner_graphs(self, node: Node) -> Node:
        """The node with its inner graphs swept too: nesting is as deep as the user wrote it."""
        if not any(isinstance(value, Graph) for value in node.attrs.values()):
            return node
        attrs = {k: self._body(value) if isinstance(value, Graph) else value for k, value in node.attrs.items()}
        same = all(attrs[k] is value for k, value in node.attrs.items())
        return node if same else with_inputs(node, node.inputs, attrs)

    def _body(self, body: Graph) -> Graph:
        found = self.bodies.get(body)
        if found is None:
            inner = Sweep(self.index.rules, self.context, self.fold)
            inner.on_merge = self.on_merge
            found = inner.graph(body)
            self.visits += inner.visits
            if all(a is b for a, b in zip(found.roots, body.roots, strict=True)):
                found = body
            self.bodies[body] = found
        return found

    # ---- one firing -----------------------------------------------------------------------------

    def _fire(self, alternative: Alternative, node: Node) -> Var | None:
        """What the rule puts in place of ``node``'s result, of the same dtype and shape; None where it does not apply."""
        rule, old = alternative.rule, node.outputs[0]
        result = replacement(alternative, node)
        if result is None:
            return None
        new = result if isinstance(result, Var) else literal(result, old.type, node)
        if new.type.dtype != old.type.dtype:
            raise InternalError(f"rule {rule.name} makes {new.type} out of {old.type}", node.origin)
        fitted = in_shape_of(new, old, rule.same_sizes)
        if fitted is None:
            return None
        if fitted is old:
            raise InternalError(f"rule {rule.name} gives back what it was given", node.origin)
        self.fired.append(rule.name)
        if len(self.fired) > BUDGET:
            raise self._endless(node, f"fire more than {BUDGET} times for one node")
        self._adopt(fitted, node.origin.by(rule.name))
        self.context.log.append(Rewrite(rule.name, old, fitted))
        return fitted

    def _adopt(self, new: Var, origin: Origin) -> None:
        """Nodes that a rule has just made stand where the node stood that it rewrote."""
        stack = [new]
        while stack:
            v = stack.pop()
            node = v.node
            if node is None or v in self.final or node in self.fresh or node in self.waiting:
                continue
            node.origin = origin
            self.fresh.add(node)
            stack.extend(node.inputs)

    def _endless(self, node: Node, what: str) -> InternalError:
        names = ", ".join(dict.fromkeys(self.fired[-8:]))
        return InternalError(f"these rewrite rules {what}: {names} (at {node.outputs[0].describe()})", node.origin)


def in_shape_of(new: Var, old: Var, same_sizes: bool = False) -> Var | None:
    """``new`` broadcast to the shape of ``old``, without reading ``old``; None where its sizes cannot be had.

    ``same_sizes``: sizes found out by nodes agree, though the types cannot say so.
    """
    have, want = new.type.shape, old.type.shape
    if have == want:
        return new
    if same_sizes and len(have) == len(want) and all(a == b or not is_door(b) for a, b in zip(have, want, strict=True)):
        return new
    assert old.node is not None
    sizes: list[dims.Size | Var] = []
    for i, size in enumerate(want):
        found = size if is_door(size) else _found_in(old.node.inputs, size, len(want) - i)
        if found is None:
            return None
        sizes.append(found)
    return broadcast_to(new, sizes)


def _found_in(operands: Sequence[Var], size: dims.Size, from_end: int) -> Var | None:
    """A size found out by a node, read from an operand that has it on the axis that is met by broadcasting."""
    for v in operands:
        if v.type.ndim >= from_end and v.type.shape[-from_end] == size:
            return apply(size_of_op, v, axis=v.type.ndim - from_end)
    return None


# ---- explanations -------------------------------------------------------------------------------


class Site(NamedTuple):
    """A node at which a rule might have fired.  ``reason``: why it does not; None where it does."""

    value: Var
    reason: str | None


def explain(graph: Graph, rule: Rule, context: Context | None = None) -> list[Site]:
    """Where ``rule`` fires in ``graph`` as it stands, and where and why it does not, node by node.

    Only nodes with the rule's root op are listed.  Of several forms and orders of operands
    the reason given is that of the one that got furthest.
    """
    context = context or Context()
    if rule.name in context.exclude:
        return [Site(n.outputs[0], "the rule is excluded") for n in graph.nodes if root_fits(rule, n.op)]
    if rule.level == "fast" and context.level != "fast":
        return [Site(n.outputs[0], 'the rule is for level "fast"') for n in graph.nodes if root_fits(rule, n.op)]
    index = _index((rule,))
    sites: list[Site] = []
    for node in graph.nodes:
        if len(node.outputs) != 1 or not root_fits(rule, node.op):
            continue
        reasons: list[tuple[int, str]] = []
        for alternative in index.candidates(node):
            if replacement(alternative, node, reasons) is not None:
                sites.append(Site(node.outputs[0], None))
                break
            if rule.fn is not None and not reasons:
                reasons.append((0, "the procedure finds nothing to do"))
        else:
            sites.append(Site(node.outputs[0], max(reasons, key=lambda r: r[0])[1] if reasons else _operands_do_not_fit(node)))
    return sites


def _operands_do_not_fit(node: Node) -> str:
    made_by = ", ".join(v.node.op.name if v.node is not None else "a leaf" for v in node.inputs)
    return f"the operands are made by other ops than the rule asks for: {made_by}"


__all__ = ["BUDGET", "Site", "Sweep", "explain", "in_shape_of", "rewrite"]
