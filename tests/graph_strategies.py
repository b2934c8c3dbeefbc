"""Random typed graphs for the fuzzer: one builder, driven by hypothesis or by a seed.

Every node is evaluated as it is added, so the builder knows shapes, magnitudes and
domains and can keep the graph meaningful: indices in range, no division by zero by
accident, values below ``LIMIT``.  Values marked ``exact`` carry no rounding (leaves,
and what only moves or selects them); comparisons, rounding and casts to integers
prefer those, because one ulp before a jump is a different answer after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from graph_complexes import OPERATIONS
from graph_operations import Operation
from hypothesis import strategies as st

import graphc as gc
from graphc import dims
from graphc.ir import Shared, Var, toposort
from graphc.ops.evaluate import run_node

Array = np.ndarray[Any, np.dtype[Any]]

LIMIT = 1e3  # magnitude of float intermediates
SPECIAL = (np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, -1e-310, 1e-40, 1.0, -1.0)
SIZES = (3, 2, 5, 1, 3, 2, 5, 1, 4, 0)
#: around the lanes of vectors, and of several vectors side by side
WIDE = (15, 16, 17, 7, 8, 9, 33, 67, 131)
MOST_ELEMENTS = 4000  # of an argument
MOST_LEAVES = 7  # with those that operations ask for


class Source(Protocol):
    """Where choices come from.  ``below(n)`` is one of 0 .. n-1; 0 is the plain choice."""

    def below(self, n: int) -> int: ...


class Seeded:
    """Choices from a seed; the same seed gives the same graph."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def below(self, n: int) -> int:
        return self.random.randrange(n)


class Drawn:
    """Choices that hypothesis makes, and shrinks; kept, so that the graph can be built twice."""

    def __init__(self, draw: Callable[[Any], int]) -> None:
        self.draw, self.taken = draw, list[int]()

    def below(self, n: int) -> int:
        k = self.draw(st.integers(0, n - 1))
        self.taken.append(k)
        return k


class Replayed:
    """Choices made before."""

    def __init__(self, taken: Sequence[int]) -> None:
        self.rest = iter(taken)

    def below(self, n: int) -> int:
        return next(self.rest)


@dataclass
class Value:
    """A variable of the graph under construction and what it evaluates to."""

    var: Var
    array: Array
    exact: bool
    leaf: bool = False

    @property
    def kind(self) -> str:
        return self.array.dtype.kind

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


@dataclass
class Leaf:
    """An input or a shared variable: which of the case's sizes stands on each axis, how values are drawn, and does it mostly stay as it is?"""

    var: Var
    slots: tuple[str, ...]
    low: int
    high: int
    stays: bool


class Derivatives(NamedTuple):
    """Which outputs are derivatives, of what kind; ``wild``: taken at nan or inf, where only shapes and dtypes are compared."""

    range: range
    kind: str
    wild: bool


NONE = Derivatives(range(0), "none", False)


@dataclass
class Case:
    """A function and arguments for it; ``others`` are arguments of other sizes, which the graph may reject."""

    inputs: list[Var]
    outputs: list[Var]  # values, then derivatives
    updates: list[tuple[Shared, Var]]
    arguments: list[Array]
    state: list[tuple[Shared, Array]]
    others: tuple[list[Array], list[Array]]
    special: str  # "none", "finite" (zeros, subnormal numbers) or "all" (nan and inf too)
    derivatives: Derivatives
    operations: list[str]


@dataclass
class Builder:
    """The pool of values so far, and the ways to pick from it that ``graph_operations`` uses."""

    source: Source
    special: bool = False
    specials: tuple[float, ...] = SPECIAL
    floatx: str = "float64"
    pool: list[Value] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    known: dict[Var, Array] = field(default_factory=dict)
    env: dict[Any, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    operations: list[str] = field(default_factory=list)

    # -- choices ------------------------------------------------------------------------------

    def chance(self, percent: int) -> bool:
        return self.source.below(100) >= 100 - percent

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.source.below(len(options))]

    def between(self, low: int, high: int) -> int:
        return low + self.source.below(high - low + 1)

    def value(self, kinds: str = "fc", accept: Callable[[Value], bool] = lambda v: True, exact: bool = False) -> Value | None:
        """One of the pool: of these dtype kinds, preferring recent ones; mostly exact if so asked."""
        found = [v for v in self.pool if v.kind in kinds and accept(v)]
        if exact and not self.chance(4):
            found = [v for v in found if v.exact or v.kind in "biu"]
        if not found:
            return None
        if len(found) > 3 and self.chance(50):
            found = found[-3:]
        return self.pick(found)  # type: ignore[no-any-return]

    def partner(self, a: Value, kinds: str = "fc", exact: bool = False) -> Value | None:
        """A value whose shape broadcasts with that of ``a``."""
        def fits(v: Value) -> bool:
            try:
                return bool(np.prod(np.broadcast_shapes(a.shape, v.shape)) <= 200)
            except ValueError:
                return False
        return self.value(kinds, fits, exact)

    def two(self, kinds: str) -> tuple[Value, Value] | None:
        """Two values whose shapes broadcast."""
        a = self.value(kinds)
        c = self.partner(a, kinds) if a is not None else None
        return None if a is None or c is None else (a, c)

    def positions(self, size: int, shape: tuple[int, ...]) -> Any:
        """Integer positions on an axis of ``size``, some negative: a constant array, or one of the pool."""
        def fits(v: Value) -> bool:
            return v.shape == shape and v.array.size > 0 and int(v.array.min()) >= -size and int(v.array.max()) < size
        if self.chance(40):
            found = self.value("i", fits)
            if found is not None and found.array.dtype.itemsize >= 4:
                return found.var
        return np.array([self.between(-size, size - 1) for _ in range(int(np.prod(shape)))], np.int64).reshape(shape)

    @property
    def results(self) -> list[Value]:
        """What operations made."""
        return [v for v in self.pool if not v.leaf]

    # -- leaves -------------------------------------------------------------------------------

    def leaf(self) -> None:
        """Add an input or a shared variable to the pool."""
        dtype = self.pick([self.floatx] * 8 + ["float64", "float32", "int64", "int32", "int8", "bool", "complex128", "int64"])
        self._enter(dtype, tuple(self.pick(["a", "b", "a", "1", "b"]) for _ in range(self.pick([1, 2, 2, 0, 3, 1]))))

    def operand(self, shape: tuple[int, ...]) -> Value | None:
        """A new leaf of floats of this shape, for an operation that the pool has no operand for; None if there are enough."""
        if len(self.leaves) >= MOST_LEAVES:
            return None
        slots = []
        for size in shape:
            known = [s for s in "ab" if self.sizes[s] == size]
            slots.append(self.pick(known) if known and self.chance(70) else str(size))
            self.sizes.setdefault(slots[-1], size)
        return self._enter(self.pick([self.floatx] * 8 + ["float64", "float32"]), tuple(slots))

    def weight(self, shape: tuple[int, ...]) -> Value | None:
        """A new shared variable of floats, its sizes known; None if there are enough leaves, or none that could come first."""
        if not 0 < len(self.leaves) < MOST_LEAVES + 3:
            return None
        for size in shape:
            self.sizes.setdefault(str(size), size)
        return self._enter(self.floatx, tuple(map(str, shape)), state=True)

    def _enter(self, dtype: str, slots: tuple[str, ...], state: bool = False) -> Value:
        position = len(self.leaves)
        low, high = self.pick([(-3, 3), (-2, 2), (0, 2), (1, 4)])
        shape: list[Any] = []
        for slot in slots:
            size = self.sizes[slot]
            shape.append(size if state else self.pick([size, None, {"a": "n", "b": "m"}.get(slot, size), None]))
        name = f"x{position}"
        array = self.array(dtype, tuple(self.sizes[s] for s in slots), low, high)
        var: Var
        if state or (position and self.chance(20)):
            open_ = any(entry is None or isinstance(entry, str) for entry in shape)
            var = gc.shared(array, f"s{position}", shape=tuple(shape) if open_ else None)
        else:
            var = gc.tensor(name, shape=tuple(shape), dtype=dtype)
        self.leaves.append(Leaf(var, slots, low, high, state))
        self.known[var] = array
        for size, have in zip(var.type.shape, array.shape, strict=True):
            for symbol in dims.symbols(size):
                self.env[symbol] = have
        self.pool.append(Value(var, array, True, leaf=True))
        return self.pool[-1]

    def array(self, dtype: str, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Values in a range: on a grid, with ties, or anywhere; special ones among them if the case wants them."""
        rng = np.random.default_rng(self.source.below(1 << 16))
        kind = np.dtype(dtype).kind
        if kind == "b":
            return np.asarray(rng.integers(0, 2, shape) == 1)
        if kind in "iu":
            return np.asarray(rng.integers(low, high + 1, shape), dtype)
        grid = self.chance(30)

        def draw() -> Array:
            x = np.asarray(rng.uniform(low, high, shape))
            x = np.round(x * 2) / 2 if grid else x
            if self.special:
                x = np.where(rng.random(shape) < 0.3, rng.choice(np.array(self.specials), shape), x)
            return np.asarray(x)
        if kind == "c":
            parts = np.empty(shape, "complex128")  # draw() + 1j * draw() would mix special values
            parts.real, parts.imag = draw(), draw()
            return np.asarray(parts, dtype)
        with np.errstate(all="ignore"):
            return np.asarray(draw(), dtype)

    # -- nodes --------------------------------------------------------------------------------

    def evaluate(self, var: Var) -> Array:
        """The value of a new variable, by the reference evaluator."""
        for node in toposort([var]):
            if node.outputs[0] not in self.known:
                results = run_node(node, [self.known[v] for v in node.inputs], self.env)
                self.known.update(zip(node.outputs, results, strict=True))
        return self.known[var]

    def add(self, var: Var, operation: Operation) -> None:
        """Put a result into the pool, unless it is too large, or not finite where the case has finite values only."""
        array, exact = self.evaluate(var), operation.exact
        if array.size > 400 or array.ndim > 5:
            return
        if array.dtype.kind in "fc":
            with np.errstate(all="ignore"):
                finite = np.isfinite(array)
                if not self.special and not finite.all():
                    return
                if bool((np.abs(np.where(finite, array, 0)) > LIMIT).any()):
                    var, exact = gc.tanh(var * 0.01) if array.dtype.kind == "f" else var * 1e-3, False
                    array = self.evaluate(var)
                    if bool((np.abs(array) > LIMIT).any()):
                        return
        elif array.dtype.kind in "iu" and array.size and max(abs(int(array.max())), abs(int(array.min()))) > 10_000:
            return
        self.pool.append(Value(var, array, exact))
        self.operations.append(operation.name)

    def grow(self, count: int) -> None:
        """Apply ``count`` random operations."""
        names = [o for o in OPERATIONS for _ in range(o.weight)]
        for _ in range(3 * count):
            if len(self.operations) >= count:
                return
            operation = self.pick(names)
            with np.errstate(all="ignore"):
                result = operation.build(self)
                if result is not None:
                    for var in result if isinstance(result, list) else [result]:
                        self.add(var, operation)


# ---- whole functions ----------------------------------------------------------------------------


def build(source: Source) -> Case:
    """A random function with arguments."""
    b = Builder(source)
    b.special = b.chance(25)
    b.specials = b.pick([SPECIAL, SPECIAL[3:]])
    b.floatx = b.pick(["float64", "float32"])
    b.sizes = {"a": b.pick(SIZES), "b": b.pick(SIZES), "1": 1}
    for _ in range(b.between(2, 4)):
        b.leaf()
    b.grow(b.between(2, 24))
    results = [v.var for v in b.results] or [b.pool[0].var]
    outputs = [results[-1]]
    for _ in range(b.between(0, 2)):
        outputs.append(b.pick(results))
    kind = b.pick(["grad", "none", "second", "none", "jvp", "grad", "grad", "jacobian"])
    values = len(outputs)
    outputs += _derivatives(b, kind)
    updates = _updates(b)
    inputs = [leaf.var for leaf in b.leaves if not isinstance(leaf.var, Shared)]
    state = [leaf.var for leaf in b.leaves if isinstance(leaf.var, Shared)]
    others = _other_sizes(b)
    special = "none" if not b.special else "all" if b.specials is SPECIAL else "finite"
    derivatives = Derivatives(range(values, len(outputs)), kind, special == "all")
    return Case(inputs, outputs, updates, [b.known[v] for v in inputs], [(s, b.known[s]) for s in state],
                ([others[v] for v in inputs], [others[s] for s in state]), special, derivatives, b.operations)


def _cost(b: Builder) -> Var | None:
    """A real scalar made of some float results."""
    total: Var | None = None
    candidates = [v for v in b.results if v.kind in "fc" and v.array.dtype.itemsize >= 4]
    if not candidates:
        return None
    for _ in range(b.between(1, 3)):
        chosen = b.pick(candidates[-5:])
        v = gc.real(chosen.var) if chosen.kind == "c" else chosen.var
        if b.chance(30):
            v = v * v
        if b.chance(10):
            v = b.pick([lambda: gc.grad_scale(v, 0.5), lambda: gc.grad_clip(v, -0.5, 0.5), lambda: gc.zero_grad(v), lambda: gc.disconnected_grad(v) * v])()
        part = gc.sum(gc.tanh(v) if b.chance(40) else v)
        total = part if total is None else total + part
    return total


def _derivatives(b: Builder, kind: str) -> list[Var]:
    if kind == "none":
        return []
    wrt = [leaf.var for leaf in b.leaves if leaf.var.type.dtype.kind in "fc"]
    cost = _cost(b)
    if cost is None or not wrt:
        return []
    if b.chance(20):  # a computed variable
        inner = [v.var for v in b.results if v.kind == "f"]
        wrt = [*wrt, b.pick(inner)] if inner else wrt
    if kind == "jacobian":
        small = [v.var for v in b.results if v.kind == "f" and v.array.size <= 6] or [cost]
        return list(gc.jacobian(small[-1], wrt, disconnected_inputs="ignore"))
    if kind == "jvp":
        tangents = [gc.ones_like(w) * 0.5 for w in wrt]
        return [gc.jvp(cost, wrt, tangents)]
    gradients = gc.grad(cost, wrt, disconnected_inputs="ignore")
    if kind == "grad":
        return list(gradients)
    smooth = [gc.sum(gc.tanh(gc.real(g) if g.type.dtype.kind == "c" else g)) for g in gradients]
    total = smooth[0]
    for g in smooth[1:]:
        total = total + g
    return [gradients[0], *gc.grad(total, wrt, disconnected_inputs="ignore")]


def _updates(b: Builder) -> list[tuple[Shared, Var]]:
    updates: list[tuple[Shared, Var]] = []
    for leaf in b.leaves:
        if isinstance(leaf.var, Shared) and b.chance(15 if leaf.stays else 60):
            own = b.known[leaf.var]
            fits = [v.var for v in b.pool if v.array.dtype == own.dtype and v.shape == own.shape]
            if leaf.var.type.dtype.kind != "b":
                fits.append(leaf.var + leaf.var)
            new = b.pick(fits)
            if all(not isinstance(s, int) or s == t for s, t in zip(leaf.var.type.shape, new.type.shape, strict=True)):
                updates.append((leaf.var, new))
    return updates


def _other_sizes(b: Builder) -> dict[Var, Array]:
    """Values for the leaves with other sizes where their types leave them open."""
    sizes = {slot: b.pick(SIZES) if slot in "ab" or (b.chance(15) and slot != "1") else size for slot, size in b.sizes.items()}
    if b.chance(40):
        wide = {b.pick("ab"): b.pick(WIDE)}
        if b.chance(25):  # both: products of several tiles
            wide = {slot: b.pick((9, 17, 33)) for slot in "ab"} | wide
        if all(np.prod([wide.get(s, sizes[s]) for s in leaf.slots]) <= MOST_ELEMENTS for leaf in b.leaves):
            sizes |= wide
    result = {}
    for leaf in b.leaves:
        free = b.chance(30)  # an unknown axis may be 1 whatever it was
        shape = []
        for slot, entry in zip(leaf.slots, leaf.var.type.shape, strict=True):
            named = isinstance(entry, dims.Dim) and entry.symbol is not None and entry.symbol.kind == "named"
            shape.append(entry if isinstance(entry, int) else 1 if free and not named else sizes[slot])
        result[leaf.var] = b.array(leaf.var.type.dtype.name, tuple(shape), leaf.low, leaf.high)
    return result


@st.composite
def sources(draw: Callable[[Any], int]) -> Drawn:
    """A source of choices that hypothesis drives."""
    return Drawn(draw)
