"""Read the text of a dump back into a graph: the inverse of ``text.py``.

Lines are gathered into blocks (the function, its inner graphs, the data section);
inner graphs stand after what refers to them, so blocks are read from the last to
the first.  A small recursive parser reads one line; its depth is that of the
brackets in the line, never that of the graph.
"""

from __future__ import annotations

import ast
import base64
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size, Symbol
from graphc.dtypes import ABBREVIATION
from graphc.errors import UNKNOWN, GraphcError, GraphcValueError, Origin
from graphc.ir import Array, Container, Graph, Node, Op, Relation, Shared, Type, Var, make_node
from graphc.ops.core import constant_op
from graphc.text import DIM_FUNCTIONS, FORMAT, RESERVED_DIMS, STATEMENTS, auto_base
from graphc.verify import agree

__all__ = ["load_dump", "parse"]

_TOKEN = re.compile(r"""
    (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:~\d+)?    # string, or a name that needs quotes
  | [^\W\d][\w.]*(?:~\d+)?                              # name; the k-th of that name
  | `[^`]*`                                             # a dim whose name means something else
  | \d+(?:\.\d*)?(?:[eE][+-]?\d+)?                      # number
  | [?!]\d+                                             # unknown size; size found out by a node
  | @(?:[^\W\d]\w*|'(?:[^'\\]|\\.)*'_\d+|"(?:[^"\\]|\\.)*"_\d+)  # inner graph
  | \.\.\. | == | \#.* | \S
""", re.VERBOSE)
_COMMENT = re.compile(r"#\s*(?:(\S+):(\d+))?\s*(?:by (.+?))?\s*\Z")
_WORD = re.compile(r"[^\W\d]")
_VALUES: dict[str, Any] = {"None": None, "True": True, "False": False, "inf": float("inf"), "nan": float("nan")}


def load_dump(text: str, ops: Mapping[str, Op] | None = None) -> Graph:
    """The graph that a dump shows; it compiles and gives the same values.

    Args:
        text: what ``f.dump(stage)`` gave, for the stages that are graphs.
        ops: the user's own ops by name, where the graph has some.

    Raises:
        ValueError: text that is no dump; the message has the line and its number.

    >>> import graphc as gc
    >>> graph = gc.load_dump('''graphc dump 1
    ... function f
    ...   input x : f64[n]
    ...   y = mul(x, 2.0) : f64[n]
    ...   return y
    ... ''')
    >>> graph.outputs[0].type
    Type(f64[n])
    """
    return parse(text, ops)


def parse(text: str, ops: Mapping[str, Op] | None = None, *, check: bool = True, shared: type[Shared] = Shared) -> Graph:
    """As ``load_dump``; without ``check`` also graphs that the verifier rejects.  ``shared``: class of the state made."""
    return _Reader(text, ops or {}, check, shared).graph()


class _Block:
    """The lines of one function or inner graph."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.lines: list[tuple[int, str]] = []


class _Reader:
    """One dump being read."""

    def __init__(self, text: str, ops: Mapping[str, Op], check: bool, shared: type[Shared]) -> None:
        self.text, self.own_ops, self.check, self.shared_class = text, ops, check, shared
        self.rows = text.split("\n")
        self.bodies: dict[str, Graph] = {}
        self.arrays: dict[str, Array] = {}
        self.containers: dict[str, Container] = {}
        self.minima: dict[str, int] = {}
        self.symbols: dict[str, Dim] = {}
        self.types: dict[tuple[str, ...], Type] = {}
        self.origins: dict[str, Origin] = {}
        self.op_table: dict[str, Op] = {}

    def graph(self) -> Graph:
        function, bodies = self.split()
        for block in reversed(bodies):
            self.bodies[block.name] = self.block(block, _body_name(block.name))
        line = _Line(self, function.number, self.rows[function.number - 1])
        line.expect("function")
        return self.block(function, _user_name(line.next()))

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
                current = _Block(line.next(), i)
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

    def dim(self, token: str) -> Dim:
        """The dim for a name, ``?k`` or ``!k``."""
        found = self.symbols.get(token)
        if found is None:
            name = token.strip("`")
            kind = {"?": "unknown", "!": "data"}.get(token[0], "named")
            symbol = Symbol(name if kind == "named" else None, kind, self.minima.get(name, 0))
            found = self.symbols[token] = Dim((((symbol,), 1),), 0)
        return found

    def fail(self, number: int, message: str) -> NoReturn:
        row = self.rows[number - 1].strip() if 0 < number <= len(self.rows) else ""
        raise GraphcValueError(f"line {number} of the dump: {message}" + (f"\n    {row[:200]}" if row else ""), UNKNOWN)


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, reader: _Reader, number: int, row: str) -> None:
        self.reader, self.number = reader, number
        self.tokens = _TOKEN.findall(row)
        self.at = 0
        self.origin = UNKNOWN
        if self.tokens and self.tokens[-1][0] == "#":
            self.origin = self._origin(self.tokens.pop())

    def fail(self, message: str) -> NoReturn:
        self.reader.fail(self.number, message)

    def _origin(self, comment: str) -> Origin:
        found = self.reader.origins.get(comment)
        if found is None:
            match = _COMMENT.match(comment)
            found = UNKNOWN
            if match and (match[1] or match[3]):
                file = re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), match[1]) if match[1] else UNKNOWN.file
                found = Origin(file, int(match[2] or 0), tuple(match[3].split(", ")) if match[3] else ())
            self.reader.origins[comment] = found
        return found

    # ---- tokens ---------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        if self.at >= len(self.tokens):
            self.fail("the line ends too early")
        self.at += 1
        return self.tokens[self.at - 1]  # type: ignore[no-any-return]

    def accept(self, token: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}, found {self.peek() or 'the end of the line'!r}")

    def end(self) -> None:
        if self.at < len(self.tokens):
            self.fail(f"did not expect {self.peek()!r}")

    def separated(self, end: str) -> Any:
        """Once for each thing of a list with commas; the bracket ``end`` is taken too."""
        while self.peek() != end:
            yield None
            if not self.accept(","):
                break
        if end:
            self.expect(end)

    # ---- statements -----------------------------------------------------------------------------

    def name(self) -> str:
        token = self.next()
        if not (_WORD.match(token) or token[0] in "'\""):
            self.fail(f"expected a name, found {token!r}")
        return token

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
        name = None if _is_auto(token, kind) else _user_name(token)
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

    def stored(self, key: str, t: Type) -> Array:
        array = self.reader.arrays.get(key)
        if array is None:
            self.fail(f"there is no data {key}")
        if array.dtype != t.dtype or array.ndim != t.ndim or any(
                isinstance(s, int) and s != have for s, have in zip(t.shape, array.shape, strict=True)):
            self.fail(f"data {key} is {array.dtype}{list(array.shape)}, not {t}")
        return array

    def node(self, values: dict[str, Var]) -> None:
        """``name, ... = op(operands; attributes) : types``, or ``name = value : type``."""
        left = [self.name()]
        while self.accept(","):
            left.append(self.name())
        self.expect("=")
        token = self.peek()
        is_op = (_WORD.match(token) or token[:1] in ("'", '"')) and self.tokens[self.at + 1:self.at + 2] == ["("] \
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
                v.name = _user_name(name)

    def constant(self, array: Array) -> Node:
        array = array.copy() if array.flags.writeable is False else array
        array.setflags(write=False)
        return Node(constant_op, (), {"value": array}, (Type(array.dtype, array.shape),), self.origin)

    def application(self, values: Mapping[str, Var]) -> Node:
        op = self.reader.op(_user_name(self.next()), self)
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

    # ---- values ---------------------------------------------------------------------------------

    def short(self) -> str:
        token = self.next()
        if token not in ABBREVIATION:
            self.fail(f"expected a dtype, found {token!r}")
        return token

    def type(self) -> Type:
        start = self.at
        try:
            stop = self.tokens.index("]", start) + 1
        except ValueError:
            self.fail("expected a type such as f32[n, 3]")
        key = tuple(self.tokens[start:stop])
        t = self.reader.types.get(key)
        if t is None:
            dtype = dtypes.as_dtype(self.short())
            self.expect("[")
            t = self.reader.types[key] = Type(dtype, tuple([self.size() for _ in self.separated("]")]))
        self.at = stop
        return t

    def size(self) -> Size:
        value = self.value()
        if isinstance(value, bool) or not isinstance(value, (int, Dim)):
            self.fail(f"expected a size, found {value!r}")
        return value

    def known_shape(self, t: Type) -> tuple[int, ...]:
        shape = tuple(s for s in t.shape if isinstance(s, int))
        if len(shape) != t.ndim:
            self.fail("the sizes of data are numbers")
        return shape

    def array(self) -> Array:
        """``value : type``, ``value:dtype`` or a plain value; ``full(v)``, ``[...]``, ``data K``."""
        if self.accept("data"):
            key = self.next()
            self.expect(":")
            return self.stored(key, self.type())
        full = self.accept("full")
        value = self.value(lists=True)
        t: Type | None = None
        dtype: np.dtype[Any] | None = None
        if self.accept(":"):
            if self.tokens[self.at + 1:self.at + 2] == ["["]:
                t = self.type()
                dtype = t.dtype
            else:
                dtype = dtypes.as_dtype(self.short())
        flat = self.cast(value, dtype)
        if t is None:
            return flat
        shape = self.known_shape(t)
        if full and flat.size == 1:
            return np.full(shape, flat.reshape(()), t.dtype)
        if flat.size != int(np.prod(shape)):
            self.fail(f"{flat.size} values for {t}")
        return flat.reshape(shape)

    def cast(self, value: Any, dtype: np.dtype[Any] | None) -> Array:
        try:
            with np.errstate(all="ignore"):
                array = np.array(value, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            self.fail(f"no value of dtype {dtype}: {error}")
        if array.dtype.name not in dtypes.SHORT:
            self.fail(f"{value!r} is no number")
        return array

    def value(self, lists: bool = False) -> Any:
        """An attribute: sums and products of numbers and dims, tuples, strings, dtypes, types, inner graphs, arrays."""
        try:
            total = self.term(lists)
            while self.peek() in ("+", "-"):
                sign = self.next()
                right = self.term(lists)
                total = total + right if sign == "+" else total - right
        except (TypeError, ArithmeticError) as error:
            self.fail(str(error))
        return total

    def term(self, lists: bool) -> Any:
        total = self.factor(lists)
        while self.accept("*"):
            total = total * self.factor(lists)
        return total

    def factor(self, lists: bool) -> Any:
        token = self.next()
        if token[0].isdigit():
            return int(token) if token.isdigit() else float(token)
        if token == "-":
            return -self.factor(lists)
        if token in _VALUES:
            return _VALUES[token]
        if token == "(":
            return self.tuple()
        if token == "[" and lists:
            return [self.value(lists) for _ in self.separated("]")]
        if token[0] in "?!`" and len(token) > 1:
            return self.reader.dim(token)
        if token[0] in "'\"":
            return ast.literal_eval(token)
        if token == "...":
            return ...
        if token[0] == "@":
            if token not in self.reader.bodies:
                self.fail(f"there is no inner graph {token} below")
            return self.reader.bodies[token]
        if _WORD.match(token):
            return self.word(token)
        self.fail(f"did not expect {token!r}")

    def tuple(self) -> Any:
        items = []
        comma = False
        while self.peek() != ")":
            items.append(self.value())
            comma = self.accept(",")
            if not comma:
                break
        self.expect(")")
        return tuple(items) if len(items) != 1 or comma else items[0]

    def word(self, token: str) -> Any:
        if token in ABBREVIATION:
            if self.peek() == "[":
                self.at -= 1
                return self.type()
            return dtypes.as_dtype(token)
        if token not in RESERVED_DIMS:
            return self.reader.dim(token)
        self.expect("(")
        if token == "array":
            t = self.type()
            self.expect(",")
            array = self.stored(self.next(), t) if self.accept("data") else self.cast(self.array_value(t), t.dtype)
            self.expect(")")
            array = array.reshape(self.known_shape(t))
            array.setflags(write=False)
            return array
        args = [self.value() for _ in self.separated(")")]
        if token in DIM_FUNCTIONS and len(args) >= 2 and all(isinstance(a, (int, Dim)) for a in args):
            return dims.call(token, *args)
        makers: dict[str, tuple[int, Callable[..., Any]]] = {"slice": (3, slice), "complex": (2, _complex), "full": (1, lambda v: v)}
        if token not in makers or len(args) != makers[token][0]:
            self.fail(f"did not expect {token}({', '.join(map(repr, args))})")
        return makers[token][1](*args)

    def array_value(self, t: Type) -> Any:
        if self.peek() == "full":
            return np.full(self.known_shape(t), self.value())
        return self.value(lists=True)


def _complex(real: float, imag: float) -> complex:
    return complex(real, imag)


def _user_name(token: str) -> str:
    """The name without quotes and without the number that makes it unique."""
    if token[0] in "'\"":
        quote = token.rindex(token[0]) + 1
        return str(ast.literal_eval(token[:quote]))
    return token.partition("~")[0]


def _body_name(token: str) -> str:
    base = token[1:].rpartition("_")[0]
    return _user_name(base) if base else token[1:]


def _is_auto(token: str, base: str) -> bool:
    """Was the name made by the printer, for lack of the user's?"""
    if not token.startswith(base + "_"):
        return False
    return re.fullmatch(r"\d+(\.\d+)?", token[len(base) + 1:]) is not None
