"""Sizes: integers where known, ``Dim`` formulas of symbols where not.

A ``Dim`` is a polynomial with integer coefficients over atoms, in one canonical
form, so that equal formulas are equal objects by ``==``:

    atom     = Symbol | floordiv(dim, dim) | mod(dim, dim) | max(...) | min(...) | bcast(...)
    monomial = sorted tuple of atoms         (n*n*m -> (m, n, n))
    dim      = const + sum of coefficient * monomial

A dim that turns out to be a number *is* an ``int``.  ``bcast(a, b)`` is the size
that broadcasting gives: one of them, where they are equal or one of them is 1.

Symbols are of four kinds.  *named* ones are the same wherever the name stands in
one function; *unknown* ones belong to one axis of one leaf variable; both are
solved from the arguments when a call enters.  *data* symbols are sizes that a
node finds out while it runs (``nonzero``); they are never used without an operand
that depends on that node.  *block* symbols say where a program is in a loop over blocks; graphs have none.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from graphc.errors import GraphcTypeError, GraphcValueError

__all__ = [
    "Dim", "Size", "Symbol", "as_size", "bcast", "dim", "dim_max", "dim_min", "evaluate", "fresh", "is_one",
    "lone", "may_be_one", "product", "size_text", "solve", "substitute", "symbols",
]

_uids = itertools.count()


class Symbol:
    """A size that is not known before the call.  ``min`` is a promise about it, checked at the door."""

    __slots__ = ("kind", "label", "min", "name", "state", "uid")

    def __init__(self, name: str | None, kind: str, min: int = 0, label: str = "") -> None:
        self.name, self.kind, self.min, self.label = name, kind, min, label
        self.state: Any = None  # a weak reference to the shared variable that has this size, if one has
        self.uid = -1 if kind == "named" else next(_uids)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Symbol) and self.name is not None and self.name == other.name)

    def __hash__(self) -> int:
        return hash(self.name) if self.name is not None else hash(self.uid)

    @property
    def order(self) -> tuple[Any, ...]:
        return (0, self.name, 0) if self.name is not None else (1, "", self.uid)

    def __str__(self) -> str:
        return self.name if self.name is not None else f"?{self.uid}"

    def __repr__(self) -> str:
        return f"Symbol({self})"


class Call:
    """A non-polynomial function of dims, as an atom."""

    __slots__ = ("args", "fn")

    def __init__(self, fn: str, args: tuple[Size, ...]) -> None:
        self.fn, self.args = fn, args

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Call) and self.fn == other.fn and self.args == other.args

    def __hash__(self) -> int:
        return hash((self.fn, self.args))

    @property
    def order(self) -> tuple[Any, ...]:
        return (2, self.fn, tuple(_order(a) for a in self.args))


Atom: TypeAlias = Symbol | Call
Monomial: TypeAlias = tuple[Atom, ...]


class Dim:
    """A size formula; made by ``gc.dim`` and arithmetic, never directly."""

    __slots__ = ("_hash", "const", "terms")
    terms: tuple[tuple[Monomial, int], ...]
    const: int
    _hash: int

    def __init__(self, terms: tuple[tuple[Monomial, int], ...], const: int) -> None:
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "const", const)
        object.__setattr__(self, "_hash", hash((terms, const)))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Dim is immutable")

    def __reduce__(self) -> tuple[Any, ...]:
        return (Dim, (self.terms, self.const))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and (
            self is other or (self._hash == other._hash and self.const == other.const and self.terms == other.terms))

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Size) -> Size:
        return _sum((self, other)) if isinstance(other, (int, Dim)) else NotImplemented

    __radd__ = __add__

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: Size) -> Size:
        return self + other * -1 if isinstance(other, (int, Dim)) else NotImplemented

    def __rsub__(self, other: Size) -> Size:
        return self * -1 + other if isinstance(other, (int, Dim)) else NotImplemented

    def __mul__(self, other: Size) -> Size:
        if not isinstance(other, (int, Dim)):
            return NotImplemented
        left, right = _items(self), _items(other)
        return _collect((tuple(sorted((*a, *b), key=lambda s: s.order)), x * y) for a, x in left for b, y in right)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return floordiv(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rfloordiv__(self, other: Size) -> Size:
        return floordiv(other, self)

    def __mod__(self, other: Size) -> Size:
        return mod(self, other) if isinstance(other, (int, Dim)) else NotImplemented

    def __rmod__(self, other: Size) -> Size:
        return mod(other, self)

    def __bool__(self) -> bool:
        raise GraphcTypeError(f"the size {self} is not known before the call, so it has no truth value")

    def __index__(self) -> int:
        raise GraphcTypeError(f"the size {self} is not known before the call; write the size as an int if it is fixed")

    def __lt__(self, other: object) -> bool:
        raise GraphcTypeError(f"the size {self} is not known before the call, so it cannot be compared")

    __le__ = __gt__ = __ge__ = __lt__

    @property
    def symbol(self) -> Symbol | None:
        """The symbol, where the dim is nothing but one."""
        if self.const == 0 and len(self.terms) == 1:
            (monomial, coefficient), = self.terms
            if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Symbol):
                return monomial[0]
        return None

    def text(self, names: Mapping[Symbol, str] | None = None) -> str:
        """The formula as a Python expression; ``names`` renames symbols (dumps number the unknown ones)."""
        parts: list[str] = []
        shown = sorted(("*".join(_atom_text(a, names) for a in m), c) for m, c in self.terms)
        for body, c in shown:
            factor = body if abs(c) == 1 else f"{abs(c)}*{body}"
            parts.append((" - " if c < 0 else " + ") + factor if parts else ("-" if c < 0 else "") + factor)
        if self.const:
            parts.append(f" - {-self.const}" if self.const < 0 else f" + {self.const}")
        return "".join(parts)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Dim({self.text()})"


Size: TypeAlias = int | Dim


def _atom_text(atom: Atom, names: Mapping[Symbol, str] | None) -> str:
    if isinstance(atom, Symbol):
        return (names or {}).get(atom, str(atom))
    args = [size_text(a, names) for a in atom.args]
    return f"{atom.fn}({', '.join(args)})"


def size_text(size: Size, names: Mapping[Symbol, str] | None = None) -> str:
    return size.text(names) if isinstance(size, Dim) else str(size)


def _order(size: Size) -> tuple[Any, ...]:
    if isinstance(size, int):
        return (0, size, ())
    return (1, size.const, tuple((tuple(a.order for a in m), c) for m, c in size.terms))


def _items(size: Size) -> list[tuple[Monomial, int]]:
    if isinstance(size, int):
        return [((), size)]
    return [*size.terms, ((), size.const)]


def _collect(items: Iterable[tuple[Monomial, int]]) -> Size:
    total: dict[Monomial, int] = {}
    for monomial, c in items:
        total[monomial] = total.get(monomial, 0) + c
    const = total.pop((), 0)
    terms = tuple(sorted(((m, c) for m, c in total.items() if c), key=lambda t: tuple(a.order for a in t[0])))
    return Dim(terms, const) if terms else const


def _sum(sizes: Iterable[Size]) -> Size:
    return _collect(item for size in sizes for item in _items(size))


def _call(fn: str, args: tuple[Size, ...]) -> Size:
    return Dim((((Call(fn, args),), 1),), 0)


def floordiv(a: Size, b: Size) -> Size:
    if isinstance(b, int):
        if b == 0:
            raise GraphcValueError(f"the size {size_text(a)} is divided by 0")
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
        if all(c % b == 0 for _, c in a.terms):  # (6n + 5) // 3 is 2n + 1
            return _collect((m, c // b) for m, c in _items(a))
    elif a == b:
        return 1
    elif isinstance(a, Dim) and len(b.terms) == 1 and b.const == 0:  # exact division by one monomial: (n*m*2)//m
        (divisor, k), = b.terms
        quotient = [_divide(m, divisor) for m, _ in a.terms]
        if a.const == 0 and all(q is not None for q in quotient) and all(c % k == 0 for _, c in a.terms):
            return _collect((q, c // k) for q, (_, c) in zip(quotient, a.terms, strict=True) if q is not None)
    return _call("floordiv", (a, b))


def _divide(m: Monomial, by: Monomial) -> Monomial | None:
    rest = list(m)
    for atom in by:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def mod(a: Size, b: Size) -> Size:
    if isinstance(a, int) and isinstance(b, int) and b != 0:
        return a % b
    quotient = floordiv(a, b)
    if isinstance(quotient, int) or not any(isinstance(x, Call) and x.fn == "floordiv" for m, _ in quotient.terms for x in m):
        return a - quotient * b
    return _call("mod", (a, b))


def bounds(size: Size) -> tuple[int, int | None]:
    """A lower and (if known) an upper bound; every symbol is at least its ``min``.

    A formula on its way to a size may be negative (``3 - n`` inside ``max(0, 3 - n)``).
    """
    if isinstance(size, int):
        return size, size
    low = size.const
    for m, c in size.terms:
        least = [atom.min if isinstance(atom, Symbol) else _call_min(atom) for atom in m]
        if c < 0 or (len(least) > 1 and min(least) < 0):
            return _LOWEST, None  # a tighter bound is not needed anywhere
        for low_of_atom in least:
            c *= low_of_atom
        low += c
    return low, None


_LOWEST = -(1 << 62)


def _call_min(call: Call) -> int:
    lows = [bounds(a)[0] for a in call.args]
    if call.fn == "max":
        return max(lows)
    if call.fn == "floordiv":  # rounding down: -1 // 2 is -1
        return _LOWEST if lows[1] < 0 else lows[0] // call.args[1] if isinstance(call.args[1], int) else min(lows[0], 0)
    if call.fn == "mod":
        return _LOWEST if lows[1] < 0 else 0
    return min(lows)


def is_one(size: Size) -> bool:
    return isinstance(size, int) and size == 1


def may_be_one(size: Size) -> bool:
    """Could it be 1 at run time?  The bit that decides whether two dims can be told equal."""
    return size == 1 if isinstance(size, int) else bounds(size)[0] <= 1


def bcast(a: Size, b: Size) -> Size:
    """The size of an axis where ``a`` meets ``b``; ValueError where no call could ever fit."""
    if a == b:
        return a
    if is_one(a):
        return b
    if is_one(b):
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise GraphcValueError(f"sizes {a} and {b} do not broadcast: they differ and neither is 1")
    if isinstance(a, int) or not may_be_one(a):
        return a  # the other must be equal or 1: checked at the door
    if isinstance(b, int) or not may_be_one(b):
        return b
    flat: list[Size] = []
    for part in (a, b):
        call = _sole_call(part)
        flat += call.args if call is not None and call.fn == "bcast" else [part]
    unique = tuple(sorted(dict.fromkeys(flat), key=_order))
    return unique[0] if len(unique) == 1 else _call("bcast", unique)


def _sole_call(size: Size) -> Call | None:
    if isinstance(size, Dim) and size.const == 0 and len(size.terms) == 1:
        (m, c), = size.terms
        if c == 1 and len(m) == 1 and isinstance(m[0], Call):
            return m[0]
    return None


def dim_max(a: Size, b: Size) -> Size:
    if bounds(a - b)[0] >= 0:
        return a
    if bounds(b - a)[0] >= 0:
        return b
    return _call("max", tuple(sorted((a, b), key=_order)))


def dim_min(a: Size, b: Size) -> Size:
    if bounds(b - a)[0] >= 0:
        return a
    if bounds(a - b)[0] >= 0:
        return b
    return _call("min", tuple(sorted((a, b), key=_order)))


def product(sizes: Iterable[Size]) -> Size:
    total: Size = 1
    for size in sizes:
        total = total * size
    return total


_FUNCTIONS = {"floordiv": floordiv, "mod": mod, "bcast": bcast, "max": dim_max, "min": dim_min}


def call(fn: str, *args: Size) -> Size:
    """Rebuild an atom by name: what ``substitute`` and the dump reader use."""
    result = args[0]
    for arg in args[1:]:
        result = _FUNCTIONS[fn](result, arg)
    return result


def substitute(size: Size, values: Mapping[Symbol, Size]) -> Size:
    """The size with symbols replaced; symbols that ``values`` lacks stay."""
    if isinstance(size, int):
        return size
    symbol = size.symbol
    if symbol is not None:
        return values.get(symbol, size)
    total: Size = size.const
    for m, c in size.terms:
        part: Size = c
        for atom in m:
            if isinstance(atom, Symbol):
                part = part * values.get(atom, Dim((((atom,), 1),), 0))
            else:
                part = part * call(atom.fn, *(substitute(a, values) for a in atom.args))
        total = total + part
    return total


def evaluate(size: Size, env: Mapping[Symbol, int]) -> int:
    """The number, given those of its symbols.  KeyError(symbol) if one is missing."""
    if isinstance(size, int):
        return size
    total = size.const
    for m, c in size.terms:
        for atom in m:
            c *= env[atom] if isinstance(atom, Symbol) else _evaluate_call(atom, env)
        total += c
    return total


def _evaluate_call(atom: Call, env: Mapping[Symbol, int]) -> int:
    result = call(atom.fn, *(evaluate(a, env) for a in atom.args))
    assert isinstance(result, int)
    return result


def symbols(size: Size) -> Iterator[Symbol]:
    """The symbols of a size, in a fixed order, with repeats."""
    if isinstance(size, Dim):
        for m, _ in size.terms:
            for atom in m:
                if isinstance(atom, Symbol):
                    yield atom
                else:
                    for arg in atom.args:
                        yield from symbols(arg)


def solve(size: Size, value: int, env: Mapping[Symbol, int]) -> tuple[Symbol, int] | None:
    """Solve ``size == value`` for its only unbound symbol; None if it has none or several or is not linear in it.

    ValueError if the solution is no integer: 2*n == 5.
    """
    if isinstance(size, int):
        return None
    unbound: Symbol | None = None
    coefficient, rest = 0, size.const
    for m, c in size.terms:
        missing = [a for a in m if isinstance(a, Symbol) and a not in env]
        hidden = [s for a in m if isinstance(a, Call) for arg in a.args for s in symbols(arg) if s not in env]
        if hidden or len(missing) > 1 or (missing and unbound is not None and missing[0] != unbound):
            return None
        for atom in m:
            if not (missing and atom == missing[0]):
                c *= env[atom] if isinstance(atom, Symbol) else _evaluate_call(atom, env)
        if missing:
            unbound, coefficient = missing[0], coefficient + c
        else:
            rest += c
    if unbound is None or coefficient == 0:
        return None
    if (value - rest) % coefficient:
        raise GraphcValueError(f"{size_text(size)} = {value} has no whole solution for {unbound}")
    return unbound, (value - rest) // coefficient


_NAME = re.compile(r"[^\W\d]\w*\Z")


def dim(name: str, min: int = 0) -> Dim:
    """A named dim: the same size wherever the name stands in one compiled function.

    >>> n = dim("n", min=1)
    >>> 2*n + 1
    Dim(2*n + 1)
    """
    if not isinstance(name, str) or not _NAME.match(name):
        raise GraphcValueError(f"a dim's name is an identifier such as 'n'; got {name!r}")
    if isinstance(min, bool) or not isinstance(min, int) or min < 0:
        raise GraphcValueError(f"dim {name!r}: min is an integer >= 0; got {min!r}")
    return Dim((((Symbol(name, "named", min),), 1),), 0)


def lone(symbol: Symbol) -> Dim:
    """The size that a symbol is."""
    return Dim((((symbol,), 1),), 0)


def fresh(kind: str, label: str = "") -> Dim:
    """A new anonymous symbol: ``kind`` is "unknown" (an axis of a leaf), "data" (found out by a node) or "block" (a position in a loop of a program)."""
    return Dim((((Symbol(None, kind, 0, label),), 1),), 0)


def as_size(entry: Any, label: str = "") -> Size:
    """A shape entry as the user writes it: an int, a name, a Dim, or None for an unknown size."""
    if entry is None:
        return fresh("unknown", label)
    if isinstance(entry, Dim):
        return entry
    if isinstance(entry, str):
        return dim(entry)
    if isinstance(entry, bool) or not hasattr(entry, "__index__"):
        raise GraphcTypeError(f"a shape entry is an int, a name, a gc.dim or None; got {entry!r}")
    number = int(entry.__index__())
    if number < 0:
        raise GraphcValueError(f"a size is not negative; got {number}")
    return number
