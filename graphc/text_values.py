"""One line of a dump: its tokens, and the values written in it.

A small recursive parser; its depth is that of the brackets in the line, never that
of the graph.  What a whole dump has in common (names of sizes, inner graphs, arrays)
is in ``Scope``; the statements are in ``text_parse.py``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size, Symbol
from graphc.dtypes import ABBREVIATION
from graphc.errors import UNKNOWN, GraphcValueError, Origin
from graphc.ir import Array, Graph, Type
from graphc.text import DIM_FUNCTIONS, RESERVED_DIMS

__all__ = ["WORD", "Line", "Scope", "user_name"]

_TOKEN = re.compile(r"""
    (?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:~\d+)?    # string, or a name that needs quotes
  | [^\W\d][\w.]*(?:~\d+)?                              # name; the k-th of that name
  | `[^`]*`                                             # a dim whose name means something else
  | \d+(?:\.\d*)?(?:[eE][+-]?\d+)?                      # number
  | [?!]\d+                                             # unknown size; size found out by a node
  | @(?:[^\W\d][\w.]*|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?:~\d+)?  # inner graph
  | \.\.\. | == | \#.* | \S
""", re.VERBOSE)
_COMMENT = re.compile(r"#\s*(?:(\S+):(\d+))?\s*(?:by (.+?))?\s*\Z")
WORD = re.compile(r"[^\W\d]")
_VALUES: dict[str, Any] = {"None": None, "True": True, "False": False, "inf": float("inf"), "nan": float("nan")}


class Scope:
    """What the lines of one dump refer to."""

    def __init__(self, text: str) -> None:
        self.rows = text.split("\n")
        self.bodies: dict[str, Graph] = {}
        self.arrays: dict[str, Array] = {}
        self.minima: dict[str, int] = {}
        self.symbols: dict[str, Dim] = {}
        self.types: dict[tuple[str, ...], Type] = {}
        self.origins: dict[str, Origin] = {}

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


class Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, scope: Scope, number: int, row: str) -> None:
        self.scope, self.number = scope, number
        self.tokens = _TOKEN.findall(row)
        self.at = 0
        self.origin = UNKNOWN
        if self.tokens and self.tokens[-1][0] == "#":
            self.origin = self._origin(self.tokens.pop())

    def fail(self, message: str) -> NoReturn:
        self.scope.fail(self.number, message)

    def _origin(self, comment: str) -> Origin:
        found = self.scope.origins.get(comment)
        if found is None:
            match = _COMMENT.match(comment)
            found = UNKNOWN
            if match and (match[1] or match[3]):
                file = re.sub("%([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), match[1]) if match[1] else UNKNOWN.file
                found = Origin(file, int(match[2] or 0), tuple(match[3].split(", ")) if match[3] else ())
            self.scope.origins[comment] = found
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

    def name(self) -> str:
        token = self.next()
        if not (WORD.match(token) or token[0] in "'\""):
            self.fail(f"expected a name, found {token!r}")
        return token

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
        t = self.scope.types.get(key)
        if t is None:
            dtype = dtypes.as_dtype(self.short())
            self.expect("[")
            t = self.scope.types[key] = Type(dtype, tuple([self.size() for _ in self.separated("]")]))
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

    def stored(self, key: str, t: Type) -> Array:
        array = self.scope.arrays.get(key)
        if array is None:
            self.fail(f"there is no data {key}")
        if array.dtype != t.dtype or array.ndim != t.ndim or any(
                isinstance(s, int) and s != have for s, have in zip(t.shape, array.shape, strict=True)):
            self.fail(f"data {key} is {array.dtype}{list(array.shape)}, not {t}")
        return array

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
            return self.scope.dim(token)
        if token[0] in "'\"":
            return ast.literal_eval(token)
        if token == "...":
            return ...
        if token[0] == "@":
            if token not in self.scope.bodies:
                self.fail(f"there is no inner graph {token} below")
            return self.scope.bodies[token]
        if WORD.match(token):
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
            return self.scope.dim(token)
        self.expect("(")
        if token == "array":
            t = self.type()
            self.expect(",")
            array = self.stored(self.next(), t) if self.accept("data") else self.cast(self.array_value(t), t.dtype)
            self.expect(")")
            shape = self.known_shape(t)
            if array.shape != shape:  # data that stands in several places stays one object
                array = array.reshape(shape)
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


def user_name(token: str) -> str:
    """The name without quotes and without the number that makes it unique."""
    if token[0] in "'\"":
        quote = token.rindex(token[0]) + 1
        return str(ast.literal_eval(token[:quote]))
    return token.partition("~")[0]
