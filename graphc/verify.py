"""The verifier: what every graph satisfies, before and after each pass.

A graph:
  V1  inputs are variables without a node, none stands there twice.
  V2  Every leaf that the roots reach is an input or a shared variable.  (A loop's own variable outside its loop is
      the common way to break this.)
  V3  An update writes a shared variable; each is written once; the new value has its dtype, its rank, and no known
      size that differs.
  V4  The nodes form no cycle.
  V5  Sizes in types, attributes and relations are not negative and made of symbols that a leaf of the function has in
      its type: they can be solved when a call enters.  (Sizes that a node finds out, *data* symbols, stand in types
      only.)
A node:
  N1  op is an Op, the operands are variables, the results belong to the node.
  N2  Every operand is a leaf or one of the results of its node, at its index.
  N3  Types have a dtype that graphc computes with.
  N4  Types are what ``op.infer`` gives for the operands; sizes found out at run time are not compared.  (level "full")
  N5  Attributes have str keys and hashable values; an array among them cannot be written to.
  N6  After the pass ``gradient`` there is no placeholder.
An inner graph (an attribute: a loop's body, a branch, a fused kernel):
  I1  It satisfies all of this, and its leaves are its inputs: no state, no updates, nothing taken from outside but sizes.
A pass:
  P1  It keeps the inputs, the number, dtypes and ranks of the outputs and their known sizes, and which variables are updated.

Time is linear in the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from graphc import dims
from graphc.dims import Dim, Symbol
from graphc.dtypes import SHORT
from graphc.errors import UNKNOWN, GraphcError, Origin, VerificationError
from graphc.ir import Graph, Node, Op, Shared, Type, Var, normal
from graphc.text import Printer

__all__ = ["AFTER_GRADIENT", "agree", "verify"]

#: stages in which N6 holds
AFTER_GRADIENT = frozenset({"gradient", "loops", "cleanup", "contract", "complexes", "keep", "expand", "recompute", "fuse", "final", "memory"})
NEIGHBOURS = 5  # lines of the dump shown around a culprit


def verify(graph: Graph, stage: str | None = None, *, before: Graph | None = None, allow_placeholders: bool | None = None,
           level: str = "full") -> None:
    """Check a graph; VerificationError names the node, its lines of the dump and what is wrong.

    Args:
        graph: what to check.
        stage: the pass that made it, for the message.
        before: the graph that the pass was given: its inputs and outputs are compared.
        allow_placeholders: may derivatives be unexpanded?  By default as ``stage`` says.
        level: "full", or "fast": without calling ``infer`` again.
    """
    if allow_placeholders is None:
        allow_placeholders = stage not in AFTER_GRADIENT
    check = _Verifier(graph, stage, allow_placeholders, level == "full")
    check.function()
    if before is not None:
        check.interface(before)


def agree(a: Type, b: Type) -> bool:
    """Are the types the same, as far as sizes are known when a call enters?"""
    if a is b or a == b:
        return True
    return a.dtype == b.dtype and len(a.shape) == len(b.shape) and all(
        x == y or _is_data(x) or _is_data(y) for x, y in zip(a.shape, b.shape, strict=True))


def _is_data(size: object) -> bool:
    return isinstance(size, Dim) and any(s.kind == "data" for s in dims.symbols(size))


def compatible(have: Type, want: Type) -> bool:
    """Could a value of type ``have`` stand where ``want`` is declared?  Sizes are compared where both are numbers."""
    return have.dtype == want.dtype and len(have.shape) == len(want.shape) and all(
        x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in zip(have.shape, want.shape, strict=True))


class _Verifier:
    """One verification: what has been seen already, so that nothing is checked twice."""

    def __init__(self, graph: Graph, stage: str | None, allow_placeholders: bool, infer: bool) -> None:
        self.graph, self.stage, self.allow_placeholders, self.infer = graph, stage, allow_placeholders, infer
        self.bound: set[Symbol] = set()
        self.good_ops: set[Op] = set()
        self.good_types: set[Type] = set()
        self.good_bodies: set[Graph] = set()
        self.bodies: list[tuple[Graph, Node]] = []

    def function(self) -> None:
        graph = self.graph
        for v in (*graph.inputs, *graph.shared):
            if isinstance(v, Var) and isinstance(v.type, Type):
                self.bound.update(s for size in v.type.shape for s in dims.symbols(size))
        self.one(graph, None)
        self.updates(graph)
        for relation, origin in graph.relations:
            for size in (relation.a, relation.b):
                unbound = self.unbound(size, False)
                if unbound:
                    self.fail("V5", f"a relation of sizes needs {unbound}", origin=origin)
        while self.bodies:
            body, owner = self.bodies.pop()
            if body not in self.good_bodies:
                self.good_bodies.add(body)
                if body.updates or body.shared:
                    names = ", ".join(v.describe() for v in body.shared)
                    self.fail("I1", f"the inner graph {body.name} reads or writes state: {names}", owner)
                self.one(body, owner)

    def one(self, graph: Graph, owner: Node | None) -> None:
        """A function, or an inner graph of ``owner``."""
        where = f" of the inner graph {graph.name}" if owner is not None else ""
        self.inputs(graph, where, owner)
        known = {*graph.inputs, *graph.shared}
        for v in graph.roots:
            if not isinstance(v, Var):
                self.fail("N1", f"a root{where} is no variable: {v!r}", owner)
            if v.node is None:
                if v not in known:
                    self.free(v, where, owner)
                self.types(v.type, v, owner)
            else:
                self.operand(v, owner)
        for node in self.order(graph.roots):
            self.node(node, known, where, owner)

    def inputs(self, graph: Graph, where: str, owner: Node | None) -> None:
        for v in graph.inputs:
            if not isinstance(v, Var) or v.node is not None:
                self.fail("V1", f"an input{where} is no leaf: {v.describe() if isinstance(v, Var) else repr(v)}",
                          v.node if isinstance(v, Var) else owner)
            self.types(v.type, v, owner, binds=owner is not None)
        if len(set(graph.inputs)) != len(graph.inputs):
            twice = next(v for v in graph.inputs if sum(v is u for u in graph.inputs) > 1)
            self.fail("V1", f"an input{where} stands there twice: {twice.describe()}", owner, origin=twice.origin)

    def order(self, roots: Iterable[Var]) -> list[Node]:
        """``toposort``, which also notices a cycle."""
        order: list[Node] = []
        done: set[Node] = set()
        opened: set[Node] = set()
        stack = [v.node for v in roots if v.node is not None]
        while stack:
            node = stack[-1]
            if node in done:
                stack.pop()
                continue
            if node in opened:
                stack.pop()
                done.add(node)
                order.append(node)
                continue
            opened.add(node)
            for v in node.inputs:
                producer = getattr(v, "node", None)
                if producer is not None and producer not in done:
                    if producer in opened:
                        self.fail("V4", f"{producer.op.name} depends on its own result", origin=producer.origin, excerpt=False)
                    stack.append(producer)
        return order

    # ---- nodes ----------------------------------------------------------------------------------

    def node(self, node: Node, known: set[Var], where: str, owner: Node | None) -> None:
        op = node.op
        if op not in self.good_ops:
            self.op(op, node)
        for v in node.inputs:
            if not isinstance(v, Var):
                self.fail("N1", f"an operand is no variable: {v!r}", node)
            producer = v.node
            if producer is not None:
                if v.index >= len(producer.outputs) or producer.outputs[v.index] is not v:
                    self.operand(v, node)
            elif v not in known:
                self.free(v, where, node)
        if node.attrs:
            self.attrs(node)
        for i, v in enumerate(node.outputs):
            if v.node is not node or v.index != i:
                self.fail("N1", f"result {i} does not belong to its node", node)
            if v.type not in self.good_types:
                self.types(v.type, v, node)
        if self.infer:
            self.inferred(node)

    def op(self, op: Op, node: Node) -> None:
        if not isinstance(op, Op):
            self.fail("N1", f"its op is no Op: {op!r}", node)
        if op.placeholder and not self.allow_placeholders:
            self.fail("N6", f"the placeholder {op.name} is still there after stage {self.stage or 'gradient'}", node)
        self.good_ops.add(op)

    def operand(self, v: Var, user: Node | None) -> None:
        producer = v.node
        assert producer is not None
        if v.index >= len(producer.outputs) or producer.outputs[v.index] is not v:
            self.fail("N2", f"{v.describe()} is not result {v.index} of its node", user or producer)

    def free(self, v: Var, where: str, user: Node | None) -> NoReturn:
        if isinstance(v, Shared):
            self.fail("V2", f"the shared variable {v.describe()} is not listed among the function's", user)
        if v.scope is not None:
            self.fail("V2", f"{v.describe()} belongs to the loop or inner function at {v.scope}; it has no value outside of it", user)
        self.fail("V2", f"{v.describe()} is no input{where}", user)

    def attrs(self, node: Node) -> None:
        for key, value in node.attrs.items():
            if not isinstance(key, str):
                self.fail("N5", f"an attribute's key is no str: {key!r}", node)
            if value is None or isinstance(value, (int, float, str, np.dtype)):
                continue
            if isinstance(value, Graph):
                self.bodies.append((value, node))
            elif isinstance(value, np.ndarray):
                if value.flags.writeable:
                    self.fail("N5", f"the array {key} can be written to", node)
            else:
                try:
                    hash(value)
                except TypeError as error:
                    self.fail("N5", f"the attribute {key} cannot be hashed: {error}", node)
                for size in _sizes(value):
                    unbound = self.unbound(size, False)
                    if unbound:
                        self.fail("V5", f"the attribute {key} needs {unbound}", node)

    def inferred(self, node: Node) -> None:
        try:
            types = normal(node.op.infer(*[v.type for v in node.inputs], **node.attrs))
        except GraphcError as error:
            self.fail("N4", f"{node.op.name} does not take these operands: {error.message}", node)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            self.fail("N4", f"infer of {node.op.name} fails: {type(error).__name__}: {error}", node)
        outputs = node.outputs
        if len(types) != len(outputs):
            self.fail("N4", f"{node.op.name} gives {len(types)} result(s); the node has {len(outputs)}", node)
        for t, v in zip(types, outputs, strict=True):
            if t != v.type and not agree(t, v.type):
                self.fail("N4", f"{node.op.name} gives {t}; the node says {v.type}", node)

    # ---- sizes ----------------------------------------------------------------------------------

    def types(self, t: Any, v: Var, node: Node | None, binds: bool = False) -> None:
        """``binds``: the input of an inner graph, whose own sizes are known inside."""
        if t in self.good_types:
            return
        if not isinstance(t, Type) or t.dtype.name not in SHORT:
            self.fail("N3", f"{t.dtype if isinstance(t, Type) else repr(t)} is no type of a value", node, origin=v.origin)
        for size in t.shape:
            if binds:
                self.bound.update(dims.symbols(size))
            unbound = self.unbound(size, True)
            if unbound:
                self.fail("V5", f"the type of {v.describe()} needs {unbound}", node, origin=v.origin)
        self.good_types.add(t)

    def unbound(self, size: Any, data: bool) -> str:
        """What is wrong with a size, "" if nothing is."""
        if isinstance(size, int):
            return "" if size >= 0 or not data else f"the size {size}, which is negative"
        if not isinstance(size, Dim):
            return f"a size that is {size!r}"
        for s in dims.symbols(size):
            if s.kind == "data":
                if not data:
                    return f"{size}, which only a node finds out"
            elif s not in self.bound:
                return f"the size {s}{f' ({s.label})' if s.label else ''}, which no input or shared variable of the function has"
        return ""

    # ---- the outside ----------------------------------------------------------------------------

    def updates(self, graph: Graph) -> None:
        written: set[Var] = set()
        for s, v in graph.updates:
            if not isinstance(s, Shared):
                self.fail("V3", f"an update writes something that is no shared variable: {s!r}", v.node)
            if s in written:
                self.fail("V3", f"{s.describe()} is updated twice", v.node, origin=s.origin)
            written.add(s)
            if not compatible(v.type, s.type):
                self.fail("V3", f"the update of {s.describe()} has type {v.type}", v.node, origin=v.origin)

    def interface(self, before: Graph) -> None:
        graph = self.graph
        if not _same(graph.inputs, before.inputs):
            self.fail("P1", f"inputs were {_names(before.inputs)}, now {_names(graph.inputs)}")
        if len(graph.outputs) != len(before.outputs):
            self.fail("P1", f"there were {len(before.outputs)} outputs, now {len(graph.outputs)}")
        if not _same([s for s, _ in graph.updates], [s for s, _ in before.updates]):
            self.fail("P1", f"updates were of {_names(s for s, _ in before.updates)}, now {_names(s for s, _ in graph.updates)}")
        for i, (old, new) in enumerate(zip(before.roots, graph.roots, strict=True)):
            if not compatible(new.type, old.type):
                self.fail("P1", f"root {i} had type {old.type}, now {new.type}", new.node, origin=new.origin)

    def fail(self, rule: str, message: str, node: Node | None = None, *, origin: Origin | None = None, excerpt: bool = True) -> NoReturn:
        after = f"after pass {self.stage}: " if self.stage else ""
        shown = _excerpt(self.graph, node) if excerpt else ""
        raise VerificationError(f"{after}{rule} is broken: {message}{shown}", origin or (node.origin if node is not None else UNKNOWN))


def _sizes(value: Any) -> Iterable[Any]:
    """The dims in an attribute, tuples opened."""
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, Dim):
            yield value
        elif isinstance(value, tuple):
            stack.extend(value)


def _same(a: Sequence[Var], b: Sequence[Var]) -> bool:
    """Identity: ``==`` of two variables is a new expression."""
    return len(a) == len(b) and all(u is v for u, v in zip(a, b, strict=True))


def _names(variables: Iterable[Var]) -> str:
    return ", ".join(v.name or str(v.type) for v in variables) or "none"


def _excerpt(graph: Graph, node: Node | None) -> str:
    """The line of the dump where the node stands, marked, among its neighbours."""
    if node is None:
        return ""
    lines, where = _printed(graph)
    at = where.get(node)
    if at is None:
        return f"\n  in {getattr(node.op, 'name', node.op)}({', '.join(str(getattr(v, 'type', v)) for v in node.inputs)})"
    first, last = max(0, at - NEIGHBOURS), at + NEIGHBOURS + 1
    marked = [f"{'>' if first + i == at else ' '} {line}" for i, line in enumerate(lines[first:last])]
    return "\n  in\n" + "\n".join(marked)


def _printed(graph: Graph) -> tuple[Sequence[str], Mapping[Node, int]]:
    try:
        return Printer(data=False).lines(graph)
    except Exception as error:  # the graph is broken: whatever the printer trips over must not hide what was found
        return [f"(cannot be printed: {error!r})"], {}
