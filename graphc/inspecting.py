"""Look at graphs: ``debugprint``, ``pretty``, ``to_networkx``, ``to_dot``.

Each takes an expression, a list of them, a ``Graph`` or a compiled function.
"""

from __future__ import annotations

import sys
from typing import Any

from graphc.errors import GraphcTypeError
from graphc.ir import Array, Graph, Node, Shared, Var, leaves
from graphc.ops.core import constant_op
from graphc.prettifying import pretty
from graphc.text import Printer, array_text, inner_graphs, variable_names

__all__ = ["debugprint", "pretty", "to_dot", "to_networkx"]

DEPTH = 40  # levels of indentation; what is deeper is printed below, at the margin


def as_graph(obj: Any, what: str) -> Graph:
    """What can be looked at, as one graph."""
    graph = getattr(obj, "graph", obj)
    if isinstance(graph, Graph):
        return graph
    roots = [obj] if isinstance(obj, Var) else list(obj.values()) if isinstance(obj, dict) else obj
    if not isinstance(roots, (list, tuple)) or not all(isinstance(v, Var) for v in roots):
        raise GraphcTypeError(f"{what} takes an expression, a list of them, a Graph or a compiled function; got {type(obj).__name__}")
    return Graph([v for v in leaves(roots) if not isinstance(v, Shared)], roots, name="expression")


class _Brief(Printer):
    """Attributes and types as in dumps; large arrays by their type alone."""

    def _value(self, array: Array) -> str:
        text = array_text(array)
        return text if text is not None and len(text) <= 60 else "..."

    def attributes(self, node: Node) -> str:
        if node.op is constant_op:
            return ""
        return ", ".join(f"{k}={self.attr_text(node.attrs[k])}" for k in sorted(node.attrs))


# ---- debugprint -------------------------------------------------------------------------------


def debugprint(obj: Any, file: Any = None) -> str | None:
    """Print expressions as trees.

    One line per variable: its op or name, ``[id ...]``, the type, the user's name for it.  What
    stands in the tree a second time is not repeated: ``···`` refers to the id.  Very deep
    expressions go on at the margin.  Inner graphs (bodies of loops, kernels) follow.

    Args:
        obj: an expression, a list of them, a Graph or a compiled function.
        file: where to write, sys.stdout by default; "str" to get the text.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> gc.debugprint((gc.exp(x) + 1).sum())
    sum {axis=(0,), keepdims=False} [id A] f64[]
     └─ add [id B] f64[?0]
         ├─ exp [id C] f64[?0]
         │   └─ x [id D] f64[?0]
         └─ 1.0 [id E] f64[]
    """
    text = _Tree(as_graph(obj, "debugprint")).text()
    if isinstance(file, str):
        if file != "str":
            raise GraphcTypeError(f"debugprint: file is an open file, None or 'str'; got {file!r}")
        return text
    (sys.stdout if file is None else file).write(text)
    return None


class _Tree:
    def __init__(self, graph: Graph) -> None:
        self.graphs = inner_graphs(graph)
        self.printer = _Brief()
        self.ids: dict[Node | Var, str] = {}
        self.lines: list[str] = []
        self.done: set[Node] = set()  # printed with its operands
        self.deferred: set[Node] = set()
        for v in (*graph.inputs, *graph.shared):
            self.printer.type_text(v.type)  # unknown sizes are numbered in the order of the inputs

    def text(self) -> str:
        for i, graph in enumerate(self.graphs):
            if i:
                inputs = ", ".join(self.label(v) for v in graph.inputs)
                self.lines += ["", f"inner graph {self.printer.body_name(graph)}({inputs})"]
            for v in graph.outputs:
                self.tree(v, "")
            for s, v in graph.updates:
                self.tree(v, f"update of {self.label(s)}: ")
        return "".join(line + "\n" for line in self.lines)

    def tree(self, root: Var, heading: str) -> None:
        margin = [(root, heading)]  # what begins at the margin; grows while it is gone through
        for start, head in margin:
            stack: list[tuple[Var, str, str, int]] = [(start, head, "", 0)]  # variable, begin of its line, of its operands' lines
            while stack:
                v, first, rest, depth = stack.pop()
                node = v.node
                line = first + self.label(v)
                if node is None or not node.inputs:
                    self.lines.append(line)
                elif node in self.done:
                    self.lines.append(line + " ···")
                elif depth >= DEPTH:
                    self.lines.append(line + " ··· (below)")
                    if node not in self.deferred:
                        self.deferred.add(node)
                        margin.append((v, ""))
                else:
                    self.done.add(node)
                    self.lines.append(line)
                    last = len(node.inputs) - 1
                    for i in range(last, -1, -1):
                        stem, bar = (" └─ ", "    ") if i == last else (" ├─ ", " │  ")
                        stack.append((node.inputs[i], rest + stem, rest + bar, depth + 1))

    def label(self, v: Var) -> str:
        node = v.node
        key: Node | Var = v if node is None else node
        ident = self.ids.get(key)
        if ident is None:
            ident = self.ids[key] = _letters(len(self.ids))
        type_text = self.printer.type_text(v.type)
        if node is None:
            return f"{v.name or ('<shared>' if isinstance(v, Shared) else '<input>')} [id {ident}] {type_text}"
        attributes = self.printer.attributes(node)
        what = self.printer._value(node.attrs["value"]) if node.op is constant_op else node.op.name
        parts = [
            what + (f".{v.index}" if len(node.outputs) > 1 else ""), "{" + attributes + "}" if attributes else "",
            f"[id {ident}]", type_text, repr(v.name) if v.name else ""]
        return " ".join(p for p in parts if p)


def _letters(k: int) -> str:
    """A ... Z, AA, AB ..."""
    text = ""
    k += 1
    while k:
        k, rest = divmod(k - 1, 26)
        text = chr(65 + rest) + text
    return text


# ---- other programs' forms --------------------------------------------------------------------


def to_networkx(obj: Any) -> Any:
    """The graph as a ``networkx.MultiDiGraph``.

    Nodes are variables (named as in dumps) and ops (``"op:"`` and the name of the first result).
    Their attributes: kind ("var" or "op"), op, name, type, role ("input", "shared", "constant",
    "output" or ""), origin ("file:line"), attrs (text).  Edges run from operand to op (``position``) and from
    op to result (``index``).

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> g = gc.to_networkx(x * x)
    >>> sorted(g.nodes)
    ['mul_1', 'op:mul_1', 'x']
    >>> g.number_of_edges("x", "op:mul_1")
    2
    """
    import networkx  # takes a while to import, and few scripts need it

    graph = as_graph(obj, "to_networkx")
    names, printer = variable_names(graph), _Brief()
    found = networkx.MultiDiGraph(name=graph.name)
    outputs = set(graph.outputs)

    def add(v: Var, role: str, op: str) -> None:
        found.add_node(names[v], kind="var", op=op, name=v.name or names[v], type=printer.type_text(v.type),
                       role="output" if v in outputs and role in ("", "constant") else role, origin=_where(v), attrs="")

    for v in (*graph.inputs, *graph.shared, *leaves(graph.roots)):
        add(v, "shared" if isinstance(v, Shared) else "input", "")
    for node in graph.nodes:
        is_constant = node.op is constant_op
        for v in node.outputs:
            add(v, "constant" if is_constant else "", node.op.name)
        if is_constant:
            found.nodes[names[node.outputs[0]]]["attrs"] = printer._value(node.attrs["value"])
            continue
        key = f"op:{names[node.outputs[0]]}"
        found.add_node(key, kind="op", op=node.op.name, name=node.op.name, type="", role="", origin=_where(node.outputs[0]),
                       attrs=printer.attributes(node))
        for i, v in enumerate(node.inputs):
            found.add_edge(names[v], key, position=i)
        for i, v in enumerate(node.outputs):
            found.add_edge(key, names[v], index=i)
    return found


def _where(v: Var) -> str:
    return str(v.origin) if v.origin.line else ""


_STYLES = {
    "input": 'shape=ellipse, style=filled, fillcolor="#cfe8cf"', "shared": 'shape=ellipse, style=filled, fillcolor="#f6e0b0"',
    "constant": 'shape=plaintext, fontcolor="#666666"', "output": 'shape=ellipse, style=filled, fillcolor="#cfdcf2"',
    "op": "shape=box",
}


def to_dot(obj: Any) -> str:
    """The graph in Graphviz' language: inputs green, state amber, outputs blue; inner graphs as frames.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> print(gc.to_dot(gc.exp(x)).splitlines()[0])
    digraph "expression" {
    """
    graph = as_graph(obj, "to_dot")
    printer = _Brief()
    lines = [f"digraph {_quoted(graph.name)} {{", "  node [fontname=monospace, fontsize=10];", "  edge [fontname=monospace, fontsize=8];"]
    for i, g in enumerate(inner_graphs(graph)):
        body = _dot_block(g, f"g{i}", printer)
        if i:
            body = [f"subgraph cluster_{i} {{", f"  label={_quoted(printer.body_name(g))};", *("  " + line for line in body), "}"]
        lines += ["  " + line for line in body]
    return "\n".join([*lines, "}", ""])


def _dot_block(graph: Graph, prefix: str, printer: _Brief) -> list[str]:
    names = variable_names(graph)
    keys: dict[Var | Node, str] = {}
    lines: list[str] = []

    def put(thing: Var | Node | None, style: str, *text: str) -> str:
        key = f"{prefix}_{len(lines)}"
        if thing is not None:
            keys[thing] = key
        label = "\n".join(t for t in text if t)
        lines.append(f"{key} [label={_quoted(label)}, {_STYLES[style]}];")
        return key

    def edge(v: Var, target: str, note: str = "") -> None:
        source = keys[v if v.node is None else v.node]
        lines.append(f"{source} -> {target} [label={_quoted(f'{printer.type_text(v.type)} {note}'.strip())}];")

    for v in dict.fromkeys((*graph.inputs, *graph.shared, *leaves(graph.roots))):
        put(v, "shared" if isinstance(v, Shared) else "input", v.name or names[v])
    for node in graph.nodes:
        named = ", ".join(v.name for v in node.outputs if v.name)
        if node.op is constant_op:
            put(node, "constant", printer._value(node.attrs["value"]), named)
            continue
        target = put(node, "op", node.op.name, printer.attributes(node), named)
        for i, v in enumerate(node.inputs):
            edge(v, target, str(i) if len(node.inputs) > 1 else "")
    for i, v in enumerate(graph.outputs):
        edge(v, put(None, "output", v.name or f"output {i}"))
    for s, v in graph.updates:
        edge(v, put(None, "shared", f"new {s.name or names[s]}"))
    return lines


def _quoted(text: str) -> str:
    """A string of the dot language: quotes and backslashes escaped, newlines as its own \\n."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
