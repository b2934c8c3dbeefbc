"""Print a graph as text that ``text_parse.py`` reads back.  The format is described in docs/dump_format.md.

One line is one leaf, node, root or relation.  Names are the user's where there are
any and ``op_k`` elsewhere, k counting per op, so that a node that disappears renumbers
only later ones of its op.  The text depends on the graph alone (unknown sizes are
numbered as they appear), so that two graphs are equal up to names of objects if their
texts are, and printing what was read gives the same text again.
"""

from __future__ import annotations

import base64
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Call, Dim, Size, Symbol
from graphc.dtypes import SHORT
from graphc.errors import UNKNOWN, Origin
from graphc.ir import Array, Graph, Node, Op, Relation, Shared, Type, Var
from graphc.ops.core import constant_op

__all__ = ["FORMAT", "Printer", "array_text", "auto_base", "inner_graphs", "print_graph", "scalar_text", "variable_names"]

FORMAT = "graphc dump 1"
INLINE_SIZE = 16  # arrays up to this many elements are written out
COMMENT_COLUMN = 72
STATEMENTS = ("body", "data", "dim", "free", "function", "graphc", "input", "require", "return", "shared", "stage", "update")
LITERALS = ("None", "True", "False", "inf", "nan", "complex", "full", "zlib", "array", "slice")
DIM_FUNCTIONS = ("floordiv", "mod", "max", "min", "bcast")
RESERVED_NAMES = frozenset([*STATEMENTS, *LITERALS])
RESERVED_DIMS = frozenset([*LITERALS, *DIM_FUNCTIONS, *SHORT.values()])

_PLAIN = re.compile(r"[^\W\d][\w.]*\Z")
_NUMBERED = re.compile(r"(.+)_\d+(?:\.\d+)?\Z")


def print_graph(graph: Graph, stage: str = "", header: str | Sequence[str] = (), data: bool = True) -> str:
    """The graph as text.

    Args:
        graph: any graph; also one that the verifier would reject.
        stage: which pass it comes from; a word in the second line.
        header: lines to put at the top as comments.
        data: write the values of shared variables; without them the text reads back with zeros.
    """
    lines, _ = Printer(data).lines(graph)
    top = [FORMAT] + ([f"stage {stage}"] if stage else [])
    notes = [header] if isinstance(header, str) else header
    top += [f"# {line}".rstrip() for note in notes for line in note.splitlines()]
    return "\n".join([*top, *lines, ""])


class Printer:
    """Everything that has got a name in one dump: sizes, inner graphs, arrays."""

    def __init__(self, data: bool = True) -> None:
        self.data = data
        self._symbols: dict[Symbol, str] = {}
        self._counts = {"?": 0, "!": 0}
        self._minima: dict[str, int] = {}
        self._sizes: dict[Dim, str] = {}
        self._types: dict[Type, str] = {}
        self._bodies: dict[Graph, str] = {}
        self._body_counts: dict[str, int] = {}
        self._ops: dict[Op, str] = {}
        self._op_counts: dict[str, int] = {}
        self._arrays: dict[int, int] = {}  # id of a container or array -> its number in the data section
        self._data_lines: list[str] = []
        self._keep: list[Any] = []  # what the ids above belong to
        self._origins: dict[Origin, str] = {}
        self._here = os.getcwd() + os.sep

    def lines(self, graph: Graph) -> tuple[list[str], dict[Node, int]]:
        """The lines after the header, and which of them each node stands in."""
        order = inner_graphs(graph)
        for body in order[1:]:
            self.body_name(body)
        blocks: list[tuple[str, list[str], dict[Node, int]]] = []
        for g in order:
            head = f"function {name_text(g.name, RESERVED_NAMES)}" if g is graph else f"body {self.body_name(g)}"
            blocks.append((head, *self._block(g)))
        minima = [f"  dim {name} min={low}" for name, low in sorted(self._minima.items()) if low]
        lines: list[str] = []
        where: dict[Node, int] = {}
        for i, (head, block, nodes) in enumerate(blocks):
            lines += ["", head] if i else [head, *minima]
            where.update((node, len(lines) + at) for node, at in nodes.items())
            lines += block
        return [*lines, *self._data_lines], where

    def body_name(self, body: Graph) -> str:
        """``@name`` of an inner graph, ``@name~k`` for the k-th of a name."""
        name = self._bodies.get(body)
        if name is None:
            base = f"@{name_text(body.name)}"
            k = self._body_counts[base] = self._body_counts.get(base, 0) + 1
            name = self._bodies[body] = base if k == 1 else f"{base}~{k}"
        return name

    def op_name(self, op: Op) -> str:
        """``name``; ``name~k`` for the k-th op object of a name: two instances of a user's class are two ops."""
        name = self._ops.get(op)
        if name is None:
            from graphc.ops import OPS  # made when the first graph is; not needed to import this file
            name = base = name_text(op.name)
            if OPS.get(op.name) is not op:  # the user's own; the first of a built-in op's name is that one
                k = self._op_counts[base] = self._op_counts.get(base, int(op.name in OPS)) + 1
                name = base if k == 1 else f"{base}~{k}"
            self._ops[op] = name
        return name

    # ---- one block ------------------------------------------------------------------------------

    def _block(self, graph: Graph) -> tuple[list[str], dict[Node, int]]:
        nodes = graph.nodes
        free = _free(graph, nodes)
        inlined = _inlined(graph, nodes)
        names = _names(graph, nodes, free, inlined)
        lines = [self._line(f"input {names[v]} : {self.type_text(v.type)}", v.origin) for v in graph.inputs]
        lines += [self._line(f"shared {names[v]} : {self.type_text(v.type)} {self._shared_data(v)}", v.origin) for v in graph.shared]
        lines += [self._line(f"free {names[v]} : {self.type_text(v.type)}", v.origin) for v in free]
        where: dict[Node, int] = {}
        for node in nodes:
            if node.outputs[0] in inlined:
                continue
            where[node] = len(lines)
            left = ", ".join([names[v] for v in node.outputs])
            types = ", ".join([self.type_text(v.type) for v in node.outputs])
            lines.append(self._line(f"{left} = {self.application(node, names)} : {types}", node.origin))
        lines.append("  return " + ", ".join([names[v] for v in graph.outputs]) if graph.outputs else "  return")
        lines += [f"  update {names[s]} = {names[v]}" for s, v in graph.updates]
        lines += [self._line(f"require {self._relation(r)}", origin) for r, origin in graph.relations]
        return lines, where

    def application(self, node: Node, names: dict[Var, str]) -> str:
        """``op(operands; attributes)``; a constant is its value."""
        if node.op is constant_op:
            return self._value(node.attrs["value"])
        text = ", ".join([names[v] for v in node.inputs])
        if node.attrs:
            text += "; " + ", ".join([f"{k}={self.attr_text(node.attrs[k])}" for k in sorted(node.attrs)])
        return f"{self.op_name(node.op)}({text})"

    def _line(self, text: str, origin: Origin) -> str:
        comment = self._origins.get(origin)
        if comment is None:
            comment = self._origins[origin] = self._origin_text(origin)
        return f"  {text:<{COMMENT_COLUMN}}  # {comment}" if comment else f"  {text}"

    def _origin_text(self, origin: Origin) -> str:
        file, line, rules = origin
        parts = []
        if (file, line) != UNKNOWN[:2]:
            if file.startswith(self._here):
                file = file[len(self._here):].replace(os.sep, "/")
            file = re.sub(r"[%\s]", lambda m: f"%{ord(m[0]):02X}", file)
            parts.append(f"{file}:{line}")
        if rules:
            parts.append("by " + ", ".join(rules))
        return " ".join(parts)

    def _relation(self, relation: Relation) -> str:
        sign = "==" if relation.kind == "equal" else "~"
        return f"{self.size_text(relation.a)} {sign} {self.size_text(relation.b)}"

    # ---- sizes and types ------------------------------------------------------------------------

    def type_text(self, t: Type) -> str:
        text = self._types.get(t)
        if text is None:
            text = self._types[t] = f"{SHORT[t.dtype.name]}[{', '.join([self.size_text(s) for s in t.shape])}]"
        return text

    def size_text(self, size: Size) -> str:
        """A formula that does not depend on the order in which symbols were made."""
        if isinstance(size, int):
            return str(size)
        text = self._sizes.get(size)
        if text is None:
            fresh = dict.fromkeys(s for s in dims.symbols(size))
            for s in sorted(fresh, key=lambda s: s.order):
                self._name_symbol(s)
            text = self._sizes[size] = self._formula(size)
        return text

    def _name_symbol(self, s: Symbol) -> None:
        name = self._symbols.get(s)
        if name is None:
            if s.name is not None:
                name = f"`{s.name}`" if s.name in RESERVED_DIMS else s.name
            else:
                mark = "!" if s.kind == "data" else "?"
                name = f"{mark}{self._counts[mark]}"
                self._counts[mark] += 1
            self._symbols[s] = name
        self._minima[name] = max(self._minima.get(name, 0), s.min)

    def _formula(self, size: Dim) -> str:
        terms = sorted(("*".join(sorted(self._atom(a) for a in m)), c) for m, c in size.terms)
        text = ""
        for body, c in terms:
            factor = body if abs(c) == 1 else f"{abs(c)}*{body}"
            text += (" - " if c < 0 else " + ") + factor if text else ("-" if c < 0 else "") + factor
        if size.const:
            text += f" - {-size.const}" if size.const < 0 else f" + {size.const}"
        return text

    def _atom(self, atom: Symbol | Call) -> str:
        if isinstance(atom, Symbol):
            return self._symbols[atom]
        args = [self._formula(a) if isinstance(a, Dim) else str(a) for a in atom.args]
        return f"{atom.fn}({', '.join(args if atom.fn in ('floordiv', 'mod') else sorted(args))})"

    # ---- attributes and values ------------------------------------------------------------------

    def attr_text(self, value: Any) -> str:
        """An attribute; things of classes that the format does not know are shown as ``<Class>`` and do not read back."""
        if value is None or value is Ellipsis or isinstance(value, (bool, str)):
            return "..." if value is Ellipsis else repr(value)
        if isinstance(value, Dim):
            return self.size_text(value)
        if isinstance(value, tuple):
            items = [self.attr_text(v) for v in value]
            return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
        if isinstance(value, np.dtype):
            return SHORT.get(value.name, f"<{value.name}>")
        if isinstance(value, (int, np.integer)):
            return str(int(value))
        if isinstance(value, (float, complex)):
            return scalar_text(np.asarray(value)[()]) or f"<{value!r}>"
        if isinstance(value, slice):
            return f"slice({self.attr_text(value.start)}, {self.attr_text(value.stop)}, {self.attr_text(value.step)})"
        if isinstance(value, Graph):
            return self.body_name(value)
        if isinstance(value, Type):
            return self.type_text(value)
        if isinstance(value, (np.ndarray, np.generic)):
            array = np.asarray(value)
            return f"array({self.type_text(Type(array.dtype, array.shape))}, {self._value(array)})"
        return f"<{type(value).__name__}>"

    def _value(self, array: Array) -> str:
        text = array_text(array)
        return f"data {self._data(array, array)}" if text is None else text

    def _shared_data(self, v: Shared) -> str:
        return f"data {self._data(v.container, v.container.value if self.data else np.zeros_like(v.container.value))}"

    def _data(self, owner: Any, array: Array) -> int:
        """The number of an array in the data section, written there when it is first asked for."""
        number = self._arrays.get(id(owner))
        if number is None:
            number = self._arrays[id(owner)] = len(self._arrays) + 1
            self._keep.append(owner)
            concrete = f"{SHORT[array.dtype.name]}[{', '.join(map(str, array.shape))}]"
            text = array_text(array)
            if text is not None:
                self._data_lines += [""] * (number == 1) + [f"data {number} = {text} : {concrete}"]
            else:
                coded = base64.b64encode(zlib.compress(_little(array), 6)).decode()
                self._data_lines += [""] * (number == 1) + [f"data {number} = zlib : {concrete}"]
                self._data_lines += ["    " + coded[i:i + 100] for i in range(0, len(coded), 100)]
        return number


def _little(array: Array) -> bytes:
    bits = array.view(np.uint16) if array.dtype.kind == "V" else array
    return np.ascontiguousarray(bits).astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()


# ---- names ------------------------------------------------------------------------------------


def name_text(name: str, reserved: Iterable[str] = (), quote: bool = False) -> str:
    """A name as it is, or as a string literal where it could be taken for something else."""
    plain = _PLAIN.match(name) and not quote and name not in reserved
    return name if plain else repr(name)


def auto_base(op_name: str) -> str:
    """What the names of an op's nameless results begin with."""
    base = re.sub(r"\W", "_", op_name)
    return base if base and not base[0].isdigit() else f"op_{base}"


def variable_names(graph: Graph) -> dict[Var, str]:
    """A name for every variable of a graph, as in its dump (where some constants need none)."""
    nodes = graph.nodes
    return _names(graph, nodes, _free(graph, nodes), {})


def _free(graph: Graph, nodes: Sequence[Node]) -> list[Var]:
    """Leaves that are neither inputs nor listed state: sound graphs have none."""
    known = {*graph.inputs, *graph.shared}
    met = [v for node in nodes for v in node.inputs if v.node is None and v not in known]
    return list(dict.fromkeys([*met, *(v for v in graph.roots if v.node is None and v not in known)]))


def _names(graph: Graph, nodes: Sequence[Node], free: Sequence[Var], inlined: Mapping[Var, str]) -> dict[Var, str]:
    names: dict[Var, str] = dict(inlined)
    bases: dict[str, str] = {}
    for node in nodes:
        if node.op.name not in bases:
            bases[node.op.name] = auto_base(node.op.name)
    taken = {*bases.values(), "input", "shared", "free"}
    used: dict[str, int] = {}
    counts: dict[str, int] = {}

    def user(v: Var, name: str) -> None:
        numbered = _NUMBERED.match(name)
        text = name_text(name, RESERVED_NAMES, quote=numbered is not None and numbered[1] in taken)
        k = used[text] = used.get(text, 0) + 1
        names[v] = text if k == 1 else f"{text}~{k}"

    def auto(base: str) -> str:
        counts[base] = counts.get(base, 0) + 1
        return f"{base}_{counts[base]}"

    for kind, group in (("input", graph.inputs), ("shared", graph.shared), ("free", free)):
        for v in group:
            if v.name:
                user(v, v.name)
            else:
                names[v] = auto(kind)
    for node in nodes:
        outputs = node.outputs
        if len(outputs) == 1:
            v = outputs[0]
            if v in names:
                continue
            if v.name:
                user(v, v.name)
            else:
                names[v] = auto(bases[node.op.name])
            continue
        base = ""
        for i, v in enumerate(outputs):
            if v.name:
                user(v, v.name)
            else:
                base = base or auto(bases[node.op.name])
                names[v] = f"{base}.{i}"
    return names


def _inlined(graph: Graph, nodes: Sequence[Node]) -> dict[Var, str]:
    """Nameless scalar constants with one use stand in their operand's place."""
    uses: dict[Var, Node | None] = {}
    for node in nodes:
        for v in node.inputs:
            if v.node is not None and v.node.op is constant_op:
                uses[v] = None if v in uses else node
    for v in graph.roots:
        uses[v] = None
    found: dict[Var, str] = {}
    for v, user in uses.items():
        if user is None or v.node is None or v.type.ndim or v.name:
            continue
        rules = v.node.origin.rules
        if rules and rules != user.origin.rules:
            continue  # its history would be lost
        text = scalar_text(v.node.attrs["value"][()])
        if text is not None:
            found[v] = text
    return found


def inner_graphs(graph: Graph) -> list[Graph]:
    """The graph itself and all inner graphs, each after those that refer to it."""
    order: list[Graph] = []
    done: set[Graph] = set()
    stack = [(graph, _inner(graph))]
    done.add(graph)
    while stack:
        g, rest = stack[-1]
        if rest:
            inner = rest.pop()
            if inner not in done:
                done.add(inner)
                stack.append((inner, _inner(inner)))
        else:
            stack.pop()
            order.append(g)
    return order[::-1]


def _inner(graph: Graph) -> list[Graph]:
    return [value for node in graph.nodes if node.attrs for _, value in sorted(node.attrs.items()) if isinstance(value, Graph)]


# ---- numbers ----------------------------------------------------------------------------------


def scalar_text(value: Any) -> str | None:
    """A NumPy scalar exactly, ``2.0`` or ``2.0:f32``; None where only its bits would do (NaN with a payload)."""
    text = _element(value)
    if text is None:
        return None
    default = value.dtype.name in ("bool", "int64", "float64", "complex128")
    return text if default else f"{text}:{SHORT[value.dtype.name]}"


def array_text(array: Array) -> str | None:
    """A small or uniform array exactly, ``[[1.0, 2.0]]`` or ``full(0.0)``; None for others."""
    if array.size > INLINE_SIZE:
        flat = array.reshape(-1)[:1]
        text = _element(flat[0])
        same = text is not None and _little(array) == _little(flat) * array.size
        return f"full({text})" if same else None
    if not array.size:
        return "[]"
    texts = [_element(v) for v in array.reshape(-1)]
    if any(t is None for t in texts):
        return None
    return _nested([t for t in texts if t is not None], array.shape)


def _nested(texts: Sequence[str], shape: tuple[int, ...]) -> str:
    if not shape:
        return texts[0]
    step = len(texts) // shape[0] if shape[0] else 0
    return "[" + ", ".join(_nested(texts[i * step:(i + 1) * step], shape[1:]) for i in range(shape[0])) + "]"


def _element(value: Any) -> str | None:
    kind = value.dtype.kind
    if kind in "biu":
        return str(value)
    if kind == "c":
        parts = [_element(value.real), _element(value.imag)]
        return None if None in parts else f"complex({parts[0]}, {parts[1]})"
    for text in (str(value), repr(float(value))):  # the shortest digits; for half precisions these may need double rounding
        text = "-" + text.lstrip("-") if np.signbit(value) else text
        if np.asarray(float(text)).astype(value.dtype).tobytes() == value.tobytes():
            return text if re.search(r"[.en]", text) else text + ".0"
    return None
