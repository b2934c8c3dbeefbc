"""Sizes as code: formulas of the dims (graphc/dims.py) computed in 64-bit integers.

``TRUE`` to what dims.evaluate gives wherever that gives a number; a bcast of sizes that do not fit is one of
them (the door has checked them by then).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from graphc.backends.llvm.values import Body, Value, select
from graphc.dims import Call, Size, Symbol

__all__ = ["SMALL", "ContextSizes", "size_value"]

T = TypeVar("T")

#: sizes up to this one stand in the code as numbers
SMALL = 64


class ContextSizes:
    """A part of what writes a function whose ``%context`` holds sizes, from slot ``first_size`` on.

    ``sizes``: which formula is where; ``loaded``: those that the function being written has loaded; ``entry``: lines at its top;
    ``invariants``: what else has been written there.
    """

    f: Body
    sizes: dict[Size, int]
    loaded: dict[Size, Value]
    entry: list[str]
    first_size: int
    invariants: dict[Any, Any]

    def invariant(self, key: Any, write: Callable[[], T]) -> T:
        """What follows from sizes alone, written once at the top of the function."""
        if key not in self.invariants:
            inside, self.f.lines = self.f.lines, self.entry
            self.invariants[key] = write()
            self.f.lines = inside
        found: T = self.invariants[key]
        return found

    def size(self, size: Size) -> Value:
        """A size as an i64: a number, or what the context says."""
        if isinstance(size, int) and -SMALL <= size <= SMALL:
            return self.f.const(size, "i64")
        known = self.loaded.get(size)
        if known is None:
            slot = self.sizes.setdefault(size, len(self.sizes))
            ref = f"%size{slot}"
            self.entry += [f"  {ref}.p = getelementptr i64, ptr %context, i64 {self.first_size + slot}",
                           f"  {ref} = load i64, ptr {ref}.p, !invariant.load !0"]
            known = self.loaded[size] = Value(self.f, ref, "i64")
        return known


def size_value(f: Body, size: Size, symbols: Mapping[Symbol, Value]) -> Value:
    """The value of a size, an i64."""
    if isinstance(size, int):
        return f.const(size, "i64")
    total: Value | None = f.const(size.const, "i64") if size.const else None
    for monomial, coefficient in size.terms:
        part: Value | None = f.const(coefficient, "i64") if coefficient != 1 else None
        for atom in monomial:
            x = symbols[atom] if isinstance(atom, Symbol) else _call(f, atom, symbols)
            part = x if part is None else part * x
        assert part is not None
        total = part if total is None else total + part
    assert total is not None
    return total


def _call(f: Body, call: Call, symbols: Mapping[Symbol, Value]) -> Value:
    args = [size_value(f, a, symbols) for a in call.args]
    result = args[0]
    for b in args[1:]:
        a = result
        if call.fn == "floordiv":
            result = _floordiv(a, b)
        elif call.fn == "mod":
            result = a - _floordiv(a, b) * b
        elif call.fn == "max":
            result = select(a.gt(b), a, b)
        elif call.fn == "min":
            result = select(a.lt(b), a, b)
        else:  # bcast
            result = select(a.eq(1), b, a)
    return result


def _floordiv(a: Value, b: Value) -> Value:
    """Rounded down; a divisor of 0 gives 0 rather than a trap."""
    safe = select(b.eq(0), b.like(1), b)
    q = a / safe
    r = a - q * safe
    q = select(r.ne(0) & (r ^ safe).lt(0), q - 1, q)
    return select(b.eq(0), b.like(0), q)
