"""Read the text of a dump back into a graph: the inverse of ``text.py``.

Lines are gathered into blocks (the function, its inner graphs, the data section);
inner graphs stand after what refers to them, so blocks are read from the last to
the first.  ``text_values.py`` reads what stands inside a line.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Dim
from graphc.errors import GraphcError, Origin
from graphc.ir import Array, Container, Graph, Node, Op, Relation, Shared, Type, Var, make_node
from graphc.ops.core import constant_op
from graphc.text import FORMAT, STATEMENTS, auto_base
from graphc.text_values import WORD, Line, Scope, user_name
from graphc.verify import agree

__all__ = ["parse"]


def parse(text: str, ops: Mapping[str, Op] | None = None, *, check: bool = True, shared: type[Shared] = Shared) -> Graph:
    """What ``gc.load_dump`` does; without ``check`` also graphs that the verifier rejects.  ``shared``: class of the state made."""
    return _Reader(text, ops or {}, check, shared).graph()


class _Block:
    """The lines of one function or inner graph."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.lines: list[tuple[int, str]] = []


class _Reader(Scope):
    """One dump being read."""

    def __init__(self, text: str, ops: Mapping[str, Op], check: bool, shared: type[Shared]) -> None:
        super().__init__(text)
        self.own_ops, self.check, self.shared_class = ops, check, shared
        self.containers: dict[str, Container] = {}
        self.op_table: dict[str, Op] = {}

    def graph(self) -> Graph:
        function, bodies = self.split()
        for block in reversed(bodies):
            self.bodies[block.name] = self.block(block, user_name(block.name[1:]))
        line = _Line(self, function.number, self.rows[function.number - 1])
        line.expect("function")
        return self.block(function, user_name(line.next()))

    def split(self) -> tuple[_Block, list[_Block]]:
        """The blocks; the data section, sizes' bounds are read on the way."""
        first = self.rows[0].strip() if self.rows else ""
        if first != FORMAT:
            self.fail(1, f"a dump begins with {FORMAT!r}")
        function: _Block | None = None
        current: _Block | None = None
        bodies: list[_Block] = []
        i = 1
        while i < len(self.rows):
            row = self.rows[i].strip()
            i += 1
            word = row.partition(" ")[0]
            if not row or row[0] == "#" or word == "stage":
                continue
            if word == "function":
                if function is not None:
                    self.fail(i, "a dump holds one function")
                current = function = _Block("", i)
            elif word == "body":
                line = _Line(self, i, row)
                line.expect("body")
                name = line.next()
                if name[0] != "@" or len(name) == 1:
                    line.fail("an inner graph has a name such as @body")
                current = _Block(name, i)
                bodies.append(current)
            elif word == "data":
                i = self.data(i)
            elif word == "dim":
                self.minimum(_Line(self, i, row))
            elif current is None:
                self.fail(i, "expected 'function NAME' before this")
            else:
                current.lines.append((i, row))
        if function is None:
            self.fail(len(self.rows), "no function in the dump")
        return function, bodies

    def minimum(self, line: _Line) -> None:
        line.expect("dim")
        name = line.next()
        for token in ("min", "="):
            line.expect(token)
        self.minima[name.strip("`")] = int(line.next())
        line.end()

    def data(self, number: int) -> int:
        """``data K = value : type``; of zlib data, the lines that follow.  Gives the number of the last line."""
        line = _Line(self, number, self.rows[number - 1])
        line.expect("data")
        key = line.next()
        line.expect("=")
        if line.peek() != "zlib":
            self.arrays[key] = line.array()
            line.end()
            return number
        line.next()
        line.expect(":")
        t = line.type()
        line.end()
        coded = []
        while number < len(self.rows) and self.rows[number].startswith("    ") and self.rows[number].strip():
            coded.append(self.rows[number].strip())
            number += 1
        shape = line.known_shape(t)
        try:
            bits = zlib.decompress(base64.b64decode("".join(coded), validate=True))
            stored = np.dtype(np.uint16) if t.dtype.kind == "V" else t.dtype
            flat = np.frombuffer(bits, stored.newbyteorder("<")).astype(stored)
            self.arrays[key] = flat.view(t.dtype).reshape(shape)
        except (ValueError, zlib.error) as error:
            line.fail(f"the data is damaged: {error}")
        return number

    # ---- blocks ---------------------------------------------------------------------------------

    def block(self, block: _Block, name: str) -> Graph:
        values: dict[str, Var] = {}
        inputs: list[Var] = []
        outputs: list[Var] | None = None
        updates: list[tuple[Shared, Var]] = []
        shared: list[Shared] = []
        relations: list[tuple[Relation, Origin]] = []
        for number, row in block.lines:
            line = _Line(self, number, row)
            word = line.peek()
            if word not in STATEMENTS:
                line.node(values)
                continue
            line.next()
            if word in ("input", "shared", "free"):
                v = line.leaf(word, values)
                if word == "input":
                    inputs.append(v)
                elif isinstance(v, Shared):
                    shared.append(v)
            elif word == "return":
                outputs = [line.use(values) for _ in line.separated("")]
            elif word == "update":
                state = line.use(values)
                line.expect("=")
                if not isinstance(state, Shared):
                    line.fail("only shared variables are updated")
                updates.append((state, line.use(values)))
            elif word == "require":
                a = line.size()
                sign = line.next()
                if sign not in ("==", "~"):
                    line.fail(f"expected == or ~, found {sign!r}")
                relations.append((Relation("equal" if sign == "==" else "broadcast", a, line.size()), line.origin))
            else:
                line.fail(f"{word!r} does not belong here")
            line.end()
        if outputs is None:
            self.fail(block.number, "this has no 'return': the text is cut off")
        return Graph(inputs, outputs, updates, name=name, relations=relations, shared=shared)

    def op(self, name: str, line: _Line) -> Op:
        found = self.own_ops.get(name)
        if found is None:
            if not self.op_table:
                from graphc.ops import OPS  # the table is large, and made only when something is read
                self.op_table = OPS
            found = self.op_table.get(name)
        if found is None:
            line.fail(f"there is no op {name!r}; one of your own is given as load_dump(text, ops={{{name!r}: op}})")
        return found


class _Line(Line):
    """The statements: what a line of a function or an inner graph can be."""

    def __init__(self, reader: _Reader, number: int, row: str) -> None:
        super().__init__(reader, number, row)
        self.reader = reader

    def use(self, values: Mapping[str, Var]) -> Var:
        token = self.name()
        if token not in values:
            self.fail(f"{token} is not defined above this line")
        return values[token]

    def define(self, values: dict[str, Var], token: str, v: Var) -> None:
        if token in values:
            self.fail(f"{token} is defined twice")
        values[token] = v

    def leaf(self, kind: str, values: dict[str, Var]) -> Var:
        token = self.name()
        self.expect(":")
        t = self.type()
        name = None if _is_auto(token, kind) else user_name(token)
        for i, size in enumerate(t.shape):
            symbol = size.symbol if isinstance(size, Dim) else None
            if symbol is not None and symbol.kind == "unknown" and not symbol.label:
                symbol.label = f"{name or 'x'}.shape[{i}]"
        v: Var
        if kind == "shared":
            v = self.reader.shared_class(t, self.container(t), name, self.origin)
        else:
            v = Var(t, name=name, origin=self.origin)
        self.define(values, token, v)
        return v

    def container(self, t: Type) -> Container:
        if not self.accept("data"):
            return Container(np.zeros([s if isinstance(s, int) else 1 for s in t.shape], t.dtype))
        key = self.next()
        if key not in self.reader.containers:
            self.reader.containers[key] = Container(self.stored(key, t).copy())
        return self.reader.containers[key]

    def node(self, values: dict[str, Var]) -> None:
        """``name, ... = op(operands; attributes) : types``, or ``name = value : type``."""
        left = [self.name()]
        while self.accept(","):
            left.append(self.name())
        self.expect("=")
        token = self.peek()
        is_op = (WORD.match(token) or token[:1] in ("'", '"')) and self.tokens[self.at + 1:self.at + 2] == ["("] \
            and token not in ("complex", "full")
        if is_op:
            node = self.application(values)
        else:
            array = self.array()
            node = self.constant(array)
        self.end()
        if len(left) != len(node.outputs):
            self.fail(f"{node.op.name} gives {len(node.outputs)} result(s); {len(left)} are named")
        base = auto_base(node.op.name)
        for name, v in zip(left, node.outputs, strict=True):
            self.define(values, name, v)
            if not _is_auto(name, base):
                v.name = user_name(name)

    def constant(self, array: Array) -> Node:
        array.setflags(write=False)  # no copy: data that stands in several places stays one object
        return Node(constant_op, (), {"value": array}, (Type(array.dtype, array.shape),), self.origin)

    def application(self, values: Mapping[str, Var]) -> Node:
        token = self.next()
        base, _, number = token.rpartition("~") if token[-1].isdigit() and "~" in token else (token, "", "")
        op = self.reader.op(user_name(base) + (f"~{number}" if number else ""), self)
        self.expect("(")
        inputs: list[Var] = []
        attrs: dict[str, Any] = {}
        if self.peek() not in (";", ")"):
            inputs.append(self.operand(values))
            while self.accept(","):
                inputs.append(self.operand(values))
        if self.accept(";"):
            for _ in self.separated(")"):
                key = self.name()
                self.expect("=")
                attrs[key] = self.value()
        else:
            self.expect(")")
        types: list[Type] = []
        if self.accept(":"):
            types.append(self.type())
            while self.accept(","):
                types.append(self.type())
        if types and not self.reader.check:
            return Node(op, tuple(inputs), attrs, types, self.origin)
        return self.checked(op, inputs, attrs, types)

    def checked(self, op: Op, inputs: Sequence[Var], attrs: Mapping[str, Any], types: Sequence[Type]) -> Node:
        """The node; what it says of its types must be what the op says."""
        try:
            node = make_node(op, inputs, attrs, self.origin)
        except GraphcError as error:
            self.fail(error.message)
        except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
            self.fail(f"{op.name} does not take these operands and attributes: {error}")
        if not types:
            return node
        if len(types) != len(node.outputs) or not all(agree(t, v.type) for t, v in zip(types, node.outputs, strict=True)):
            gives = ", ".join(str(v.type) for v in node.outputs)
            self.fail(f"{op.name} gives {gives}, the line says {', '.join(map(str, types))}")
        for t, v in zip(types, node.outputs, strict=True):
            v.type = t  # the same symbols for sizes found out by the node as in the rest of the dump
        return node

    def operand(self, values: Mapping[str, Var]) -> Var:
        token = self.peek()
        found = values.get(token)
        if found is not None:
            self.at += 1
            return found
        if token[:1].isdigit() or token == "-" or token in ("True", "False", "inf", "nan", "complex"):
            value = self.value()
            dtype = dtypes.as_dtype(self.short()) if self.accept(":") else None
            return self.constant(self.cast(value, dtype)).outputs[0]
        return self.use(values)


def _is_auto(token: str, base: str) -> bool:
    """Was the name made by the printer, for lack of the user's?"""
    if not token.startswith(base + "_"):
        return False
    return re.fullmatch(r"\d+(\.\d+)?", token[len(base) + 1:]) is not None
