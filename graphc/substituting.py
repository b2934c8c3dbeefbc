"""Variables replaced in expressions, and their sizes with them: what ``givens`` and ``clone_replace`` do.

A size of a replaced leaf may stand in attributes anywhere: shapes, slices, inner graphs.
It becomes the size of what replaces the leaf: a formula where a call knows it at the
door, else an operand that a ``size_of`` computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graphc import dims, dtypes
from graphc.dims import Call, Dim, Size, Symbol
from graphc.errors import Origin, here, on_behalf_of
from graphc.ir import Graph, Node, Relation, Type, Var, leaves, make_node, rebuild, toposort
from graphc.ops.arithmetic import add, floordiv, mod, mul, where
from graphc.ops.choosing import maximum, minimum
from graphc.ops.comparison import equal
from graphc.ops.core import constant, dim_op, is_door, size_of_op
from graphc.ops.looping import each_op
from graphc.ops.slicing import ARRAY, SCALAR

INT64 = dtypes.DTYPES["int64"]
_CALLS: dict[str, Callable[..., Var]] = {"floordiv": floordiv, "mod": mod, "max": maximum, "min": minimum, "bcast": lambda a, b: where(equal(a, 1), b, a)}


def replace(roots: Sequence[Var], givens: Sequence[tuple[Var, Var]], inputs: Sequence[Var] = ()) -> tuple[list[Var], list[tuple[Relation, Origin]]]:
    """The roots with variables replaced, sizes included, and what the new sizes must satisfy.

    ``givens``: in an order in which no value speaks of a key that comes later.  A dim that
    some remaining leaf or one of ``inputs`` has keeps its meaning; any other is the size of what replaces its leaf.
    """
    table: dict[Var, Var] = {}
    for old, value in givens:
        table[old] = rebuild([value], table)[0]
    remaining = {s for v in (*inputs, *_remaining(roots, table)) if v not in table for size in v.type.shape for s in dims.symbols(size)}
    sizes: dict[Symbol, Size] = {}
    sources: dict[Symbol, Var] = {}
    unsettled: list[tuple[Size, Size, Origin]] = []
    for old, value in table.items():
        for axis, (a, b) in enumerate(zip(old.type.shape, value.type.shape, strict=True)):
            symbol = a.symbol if isinstance(a, Dim) else None
            if symbol is None or symbol.kind == "data" or old.node is not None or symbol in remaining or symbol in sizes:
                unsettled.append((a, b, value.origin))
            elif a != b:
                sizes[symbol] = b
                if not is_door(b):
                    sources[symbol] = make_node(size_of_op, [value], {"axis": axis}).outputs[0]
    relations = [(Relation("equal", dims.substitute(a, sizes), b), origin) for a, b, origin in unsettled]
    substitution = _Substitution(sizes, sources)
    return (rebuild(roots, table, visit=substitution.visit),
            [(r, origin) for r, origin in relations if r.a != r.b and is_door(r.a) and is_door(r.b)])


def _remaining(roots: Sequence[Var], table: Mapping[Var, Var]) -> list[Var]:
    """The leaves that the roots need once everything is replaced."""
    found: dict[Var, None] = {}
    seen: set[Var] = set()
    stack = list(roots)
    while stack:
        v = stack.pop()
        if v in seen:
            continue
        seen.add(v)
        if v in table:
            found.update(dict.fromkeys(leaves([table[v]])))
        elif v.node is None:
            found[v] = None
        else:
            stack.extend(v.node.inputs)
    return list(found)


class _Substitution:
    """``sizes``: what each symbol becomes; ``sources``: a variable with the number of those that no call knows at the door."""

    def __init__(self, sizes: Mapping[Symbol, Size], sources: Mapping[Symbol, Var]) -> None:
        self.sizes, self.sources = sizes, sources

    def visit(self, node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        """The results of the node with its sizes replaced; None if it speaks of none of them."""
        if not node.attrs or not any(s in self.sizes for s in _symbols_of(node.attrs.values())):
            return None
        with on_behalf_of(node.origin):
            if node.op is dim_op:
                return [self.value(node.attrs["size"])]
            operands, attrs = list(inputs), dict(node.attrs)
            tail: list[Var] = []
            if node.op.sized:
                split = len(operands) - sum(s is None for s in attrs["shape"])
                operands, tail = operands[:split], operands[split:]
                attrs["shape"], tail = self.shape(attrs["shape"], tail)
            if "index" in attrs:
                split = len(operands) - sum(map(_operands_of, attrs["index"]))
                attrs["index"], picked = self.index(attrs["index"], operands[split:])
                operands = operands[:split] + picked
            if node.op is each_op:
                attrs["body"], extra = self.body(attrs["body"])
                operands += extra
            attrs = {k: v if k in ("shape", "index") and (node.op.sized or k == "index") else self.door(v) for k, v in attrs.items()}
            return make_node(node.op, [*operands, *tail], attrs, node.origin).outputs

    def door(self, value: Any) -> Any:
        """An attribute of any other kind: formulas for symbols."""
        if isinstance(value, tuple):
            return tuple(self.door(v) for v in value)
        return dims.substitute(value, self.sizes) if isinstance(value, Dim) else value

    def entry(self, size: Any) -> Any:
        """A size as a formula, or as a variable where no call knows it at the door."""
        if not isinstance(size, Dim):
            return size
        return self.value(size) if any(s in self.sources for s in dims.symbols(size)) else dims.substitute(size, self.sizes)

    def shape(self, shape: Sequence[Size | None], operands: Sequence[Var]) -> tuple[tuple[Size | None, ...], list[Var]]:
        rest, entries, found = iter(operands), [], []
        for size in shape:
            e = next(rest) if size is None else self.entry(size)
            entries.append(None if isinstance(e, Var) else e)
            found += [e] if isinstance(e, Var) else []
        return tuple(entries), found

    def index(self, index: Sequence[Any], operands: Sequence[Var]) -> tuple[tuple[Any, ...], list[Var]]:
        rest, entries = iter(operands), []
        found: list[Var] = []

        def one(part: Any) -> Any:
            if isinstance(part, tuple):
                return tuple([one(p) for p in part])
            e = next(rest) if part in (SCALAR, ARRAY) else self.entry(part)
            if not isinstance(e, Var):
                return e
            found.append(e)
            return part if part in (SCALAR, ARRAY) else SCALAR

        for part in index:
            entries.append(one(part))
        return tuple(entries), found

    def body(self, body: Graph) -> tuple[Graph, list[Var]]:
        """An inner graph with its sizes replaced, and the sizes that it must now be handed, as its last inputs."""
        used = dict.fromkeys(s for s in _symbols_of([body]) if s in self.sources)
        handed = {s: Var(Type(INT64, ()), name="size", origin=here(), scope=here()) for s in used}
        table = {v: Var(self.type(v.type), name=v.name, origin=v.origin, scope=v.scope) for v in body.inputs}
        inner = _Substitution(self.sizes, handed)
        outputs = rebuild(body.outputs, table, visit=inner.visit)
        return Graph([*table.values(), *handed.values()], outputs, name=body.name), [self.sources[s] for s in used]

    def type(self, type: Type) -> Type:
        return type.with_shape(tuple(dims.substitute(s, self.sizes) for s in type.shape))

    def value(self, size: Size) -> Var:
        """A formula as an int64 scalar."""
        if isinstance(size, int) or not any(s in self.sources for s in dims.symbols(size)):
            new = dims.substitute(size, self.sizes)
            return constant(new, INT64) if isinstance(new, int) else make_node(dim_op, [], {"size": new}).outputs[0]
        total: Var | None = None if size.const == 0 else constant(size.const, INT64)
        for monomial, coefficient in size.terms:
            part: Var | None = None if coefficient == 1 else constant(coefficient, INT64)
            for atom in monomial:
                factor = self.call(atom) if isinstance(atom, Call) else self.sources.get(atom)
                if factor is None:
                    factor = self.value(Dim((((atom,), 1),), 0))
                part = factor if part is None else mul(part, factor)
            assert part is not None
            total = part if total is None else add(total, part)
        assert total is not None
        return total

    def call(self, atom: Call) -> Var:
        result = self.value(atom.args[0])
        for arg in atom.args[1:]:
            result = _CALLS[atom.fn](result, self.value(arg))
        return result


def _operands_of(entry: Any) -> int:
    return sum(b == SCALAR for b in entry) if isinstance(entry, tuple) else int(isinstance(entry, str) and entry in (SCALAR, ARRAY))


def _symbols_of(values: Iterable[Any]) -> list[Symbol]:
    """The symbols in attributes, those of inner graphs included."""
    found: list[Symbol] = []
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, Dim):
            found.extend(dims.symbols(value))
        elif isinstance(value, tuple):
            stack.extend(value)
        elif isinstance(value, Graph):
            found.extend(s for v in value.inputs for size in v.type.shape for s in dims.symbols(size))
            stack.extend(a for node in toposort(value.outputs) for a in node.attrs.values())
    return found


__all__ = ["replace"]
