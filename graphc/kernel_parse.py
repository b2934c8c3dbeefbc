"""Read the text of a kernel back: the inverse of ``print_kernel`` in ``kernel_text.py``, where the form is described."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Dim, Size, Symbol
from graphc.kernel import Index, Instr, Kernel, Operand, Range, Stage
from graphc.text_values import Line, Scope, user_name

__all__ = ["parse_kernel"]


def parse_kernel(text: str, symbols: Mapping[str, Symbol] | None = None) -> Kernel:
    """The kernel that ``print_kernel`` wrote.

    ``symbols``: what unknown sizes are, by the names of ``symbol_names``; those that it lacks become new symbols.
    A literal is read as the Python number that its dtype holds.
    """
    return _Reader(text, symbols or {}).kernel()


class _Reader(Scope):
    def __init__(self, text: str, symbols: Mapping[str, Symbol]) -> None:
        super().__init__(text)
        self.symbols.update((name, Dim((((s,), 1),), 0)) for name, s in symbols.items())
        self.operand_names: dict[str, int] = {}
        self.range_names: dict[str, int] = {}
        self.operands: list[Operand] = []
        self.ranges: list[Range] = []
        self.values: dict[int, Instr] = {}
        self.aliases: list[tuple[int, str, Line]] = []
        self.vector = -1

    def line(self, number: int) -> Line:
        return Line(self, number, self.rows[number - 1].strip())

    def kernel(self) -> Kernel:
        numbers = [i for i, row in enumerate(self.rows, 1) if row.strip() and row.strip()[0] != "#"]
        for i in numbers:  # before any size is read
            if self.rows[i - 1].strip().startswith("dim "):
                self.minimum(self.line(i))
        name: str | None = None
        grid: tuple[int, ...] = ()
        stages: list[tuple[tuple[int, ...], list[int]]] = []
        finish: list[tuple[tuple[int, ...], list[int]]] = []
        current = stages
        body: list[int] | None = None
        for i in numbers:
            line = self.line(i)
            word = line.peek()
            if word == "%":
                body = self.instruction(line, body)
            else:
                line.next()
                body = [] if word == "unused" else None
            if word == "kernel":
                name = user_name(line.name())
                if line.accept("("):
                    for _ in line.separated(")"):
                        self.operand(line)
            elif word == "operand":
                self.operand(line)
            elif word == "ranges":
                self.range_list(line)
            elif word == "grid":
                grid = self.range_list(line)
            elif word in ("for", "do"):
                body = []
                current.append((self.range_list(line), body))
            elif word == "finish":
                current = finish
            elif word not in ("%", "dim", "unused"):
                line.fail(f"{word!r} does not belong here")
            if word != "dim":
                line.end()
        if name is None:
            self.fail(1, "a kernel begins with 'kernel NAME('")
        for number, token, line in self.aliases:
            if token not in self.operand_names:
                line.fail(f"there is no operand {token}")
            self.operands[number] = self.operands[number]._replace(alias=self.operand_names[token])
        if sorted(self.values) != list(range(len(self.values))):
            self.fail(len(self.rows), f"instructions are numbered 0 to {len(self.values) - 1}; found {sorted(self.values)}")
        values = tuple([self.values[i] for i in range(len(self.values))])
        parts = [tuple([Stage(loops, tuple(body)) for loops, body in part]) for part in (stages, finish)]
        return Kernel(name, tuple(self.ranges), grid, tuple(self.operands), values, parts[0], parts[1], self.vector)

    def minimum(self, line: Line) -> None:
        line.expect("dim")
        name = line.next()
        for token in ("min", "="):
            line.expect(token)
        self.minima[name.strip("`")] = int(line.next())
        line.end()

    def operand(self, line: Line) -> None:
        token = line.name()
        line.expect(":")
        mode = line.next()
        t = line.type()
        if t.ndim != 1:
            line.fail("an operand has one size: its number of elements")
        if line.accept("alias"):
            self.aliases.append((len(self.operands), line.name(), line))  # it may stand further down
        if token in self.operand_names:
            line.fail(f"{token} is defined twice")
        self.operand_names[token] = len(self.operands)
        self.operands.append(Operand(user_name(token), t.dtype, mode, t.shape[0]))

    def range_list(self, line: Line) -> tuple[int, ...]:
        """``i < n, j < m vector``; a range that is known has the same extent."""
        found = []
        for _ in line.separated(""):
            token = line.name()
            line.expect("<")
            extent = line.size()
            number = self.range_names.setdefault(token, len(self.ranges))
            if number == len(self.ranges):
                self.ranges.append(Range(user_name(token), extent))
            elif self.ranges[number].extent != extent:
                line.fail(f"the range {token} has two extents")
            if line.accept("vector"):
                self.vector = number
            found.append(number)
        return tuple(found)

    def instruction(self, line: Line, body: list[int] | None) -> list[int]:
        if body is None:
            line.fail("an instruction stands in a stage: 'for ...' or 'do'")
        number = self.value(line)
        line.expect("=")
        v = self.described(line)
        if self.values.setdefault(number, v) != v:
            line.fail(f"%{number} is two instructions")
        body.append(number)
        return body

    def described(self, line: Line) -> Instr:
        dtype = dtypes.as_dtype(line.short())
        op = line.name()
        if op in ("load", "store"):
            operand = self.operand_named(line)
            index = self.index(line)
            args: tuple[int, ...] = ()
            if op == "store":
                line.expect(",")
                args = self.args(line)
            elif line.accept("where"):
                args = self.args(line)
            return Instr(op, dtype, args, operand, index)
        if op == "reduce":
            word = line.name()
            args = self.args(line)
            line.expect("over")
            return Instr(op, dtype, args, over=self.over(line), word=word)
        if op == "range":
            return Instr(op, dtype, over=self.over(line))
        if op == "size":
            return Instr(op, dtype, data=line.size())
        if op == "literal":
            return Instr(op, dtype, data=self.number(line, dtype))
        if op == "cast":
            return Instr(op, dtype, self.args(line))
        word = user_name(line.name() if op == "apply" else op)
        return Instr("apply", dtype, self.args(line), word=word)

    def value(self, line: Line) -> int:
        line.expect("%")
        token = line.next()
        if not token.isdigit():
            line.fail(f"expected the number of a value, found {token!r}")
        return int(token)

    def args(self, line: Line) -> tuple[int, ...]:
        found: list[int] = []
        while line.peek() == "%":
            found.append(self.value(line))
            if not line.accept(","):
                break
        return tuple(found)

    def over(self, line: Line) -> tuple[int, ...]:
        return tuple([self.range_named(line) for _ in line.separated("")])

    def operand_named(self, line: Line) -> int:
        token = line.name()
        if token not in self.operand_names:
            line.fail(f"there is no operand {token}")
        return self.operand_names[token]

    def range_named(self, line: Line) -> int:
        token = line.name()
        if token not in self.range_names:
            line.fail(f"there is no range {token}")
        return self.range_names[token]

    def index(self, line: Line) -> Index:
        """``[i*m + %3*2 - j + 1]``: a sum of ranges and values times strides, and of sizes."""
        line.expect("[")
        terms: list[tuple[int, Size]] = []
        gathers: list[tuple[int, Size]] = []
        offset: Size = 0
        sign = -1 if line.accept("-") else 1
        while True:
            if line.peek() == "%":
                gathers.append((self.value(line), self.product(line, sign)))
            elif line.peek() in self.range_names:
                terms.append((self.range_named(line), self.product(line, sign)))
            else:
                offset = offset + self.product(line, sign, self.factor(line))
            if line.accept("]"):
                return Index(offset, tuple(terms), tuple(gathers))
            if line.peek() not in ("+", "-"):
                line.fail(f"expected +, - or ], found {line.peek()!r}")
            sign = -1 if line.next() == "-" else 1

    def product(self, line: Line, sign: int, first: Size = 1) -> Size:
        total = first * sign
        while line.accept("*"):
            total = total * self.factor(line)
        return total

    def factor(self, line: Line) -> Size:
        found = line.factor(False)
        if isinstance(found, bool) or not isinstance(found, (int, Dim)):
            line.fail(f"expected a size, found {found!r}")
        return found

    def number(self, line: Line, dtype: np.dtype[Any]) -> Any:
        """The Python number that a literal's dtype holds; every NaN is ``math.nan``, so that kernels compare equal."""
        value = line.value()
        if isinstance(value, complex) and dtype.kind != "c":
            line.fail(f"{value} is no number of {dtype}")
        with np.errstate(all="ignore"):
            number = np.asarray(value).astype(dtype).item()
        return math.nan if isinstance(number, float) and math.isnan(number) and math.copysign(1.0, number) > 0 else number
