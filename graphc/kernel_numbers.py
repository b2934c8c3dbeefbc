"""Kernels in numbers: sizes at a few fixed choices of the symbols, and which elements an access touches then.

The verifiers (verify_kernel.py, verify_program.py) ask here what they cannot see from the form: a
statement about polynomials that holds at several pseudo-random places is taken to hold.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Dim, Size, Symbol
from graphc.ir import Array, Relation
from graphc.kernel import Index, Kernel

__all__ = ["LIMIT", "Env", "Numbers", "samples"]

#: a loop nest of more points is looked at in a corner only, where its points must be counted one by one
LIMIT = 1 << 16
SAMPLES = 3
ATTEMPTS = 60

Env = Mapping[Symbol, int]


# ---- choosing the symbols ----------------------------------------------------------------------


def samples(sizes: Iterable[Size], counts: Iterable[Size] = (), relations: Sequence[Relation] = ()) -> list[dict[Symbol, int]]:
    """Choices of all symbols, always the same ones: three with sizes of 1 and more, and two with zeros, if there are such.

    At each of them the relations hold, every size has a value and no one of ``counts`` is negative.
    """
    counts = [s for s in dict.fromkeys(counts) if isinstance(s, Dim)]
    every = [*counts, *(s for s in dict.fromkeys(sizes) if isinstance(s, Dim))]
    symbols = list(dict.fromkeys(s for size in every for s in dims.symbols(size)))
    if not symbols:
        return [{}]
    symbols = list(dict.fromkeys([*symbols, *(s for r in relations for side in (r.a, r.b) for s in dims.symbols(side))]))
    found: list[dict[Symbol, int]] = []
    for least, wanted in ((1, SAMPLES), (0, SAMPLES + 2)):
        for attempt in range(ATTEMPTS):
            if len(found) == wanted:
                break
            if least == 0 and attempt % 3 == 1:
                continue  # all the same: all zeros say little
            env = _choice(symbols, relations, attempt, least)
            if env is not None and env not in found and sound(env, every, counts, relations):
                found.append(env)
    return found


def _choice(symbols: Sequence[Symbol], relations: Sequence[Relation], attempt: int, least: int) -> dict[Symbol, int] | None:
    """Symbol by symbol; what the relations say of the others is solved for in between."""
    rng = random.Random(attempt)
    top = 7 if attempt < ATTEMPTS // 2 else 7 << (attempt % 8)
    common = rng.randint(1, top)
    env: dict[Symbol, int] = {}
    for s in symbols:
        if s in env:
            continue
        # all different; all the same; the same or 1, as broadcasting wants it
        value = (rng.randint(1, top), common, rng.choice((1, common)))[attempt % 3]
        if least == 0 and rng.random() < 0.5:
            value = 0
        env[s] = max(value, s.min)
        if not _solved(relations, env):
            return None
    return env


def _solved(relations: Sequence[Relation], env: dict[Symbol, int]) -> bool:
    """Give values to symbols that have no choice any more; False if a relation cannot hold."""
    changed = True
    while changed:
        changed = False
        for r in relations:
            try:
                found = dims.solve(r.a - r.b, 0, env)
            except ValueError:
                return False
            if found is not None:
                symbol, value = found
                if value < symbol.min:
                    return False
                env[symbol] = value
                changed = True
    return True


def sound(env: Env, sizes: Sequence[Size], counts: Sequence[Size], relations: Sequence[Relation]) -> bool:
    try:
        for r in relations:
            a, b = dims.evaluate(r.a, env), dims.evaluate(r.b, env)
            if a != b and (r.kind == "equal" or 1 not in (a, b)):
                return False
        for size in sizes:
            dims.evaluate(size, env)
        return all(dims.evaluate(size, env) >= 0 for size in counts)
    except (ValueError, ArithmeticError):  # sizes that do not broadcast; a division by 0
        return False


# ---- a kernel at one choice --------------------------------------------------------------------


class Numbers:
    """A kernel's extents, operand sizes and accesses at one choice of its symbols."""

    def __init__(self, kernel: Kernel, env: Env) -> None:
        self.env = env
        self._known: dict[Size, int] = {}
        self.extents = [self.number(r.extent) for r in kernel.ranges]
        self.sizes = [self.number(o.size) for o in kernel.operands]

    def number(self, size: Size) -> int:
        if isinstance(size, int):
            return size
        found = self._known.get(size)
        if found is None:
            found = self._known[size] = dims.evaluate(size, self.env)
        return found

    def empty(self, ranges: Iterable[int]) -> bool:
        return any(self.extents[r] <= 0 for r in ranges)

    def moving(self, ranges: Iterable[int]) -> set[int]:
        """Those of the ranges that take more than one value."""
        return {r for r in ranges if self.extents[r] > 1}

    def span(self, index: Index) -> tuple[int, int]:
        """The first and the last element of an access, gathers left out."""
        low = high = self.number(index.offset)
        for r, stride in index.terms:
            reach = (self.extents[r] - 1) * self.number(stride)
            low, high = low + min(reach, 0), high + max(reach, 0)
        return low, high

    def spread(self, index: Index) -> bool:
        """Does each point of the index's ranges surely have an element of its own?  Each stride passes all that the smaller ones reach."""
        reach = 0
        for stride, extent in sorted((abs(self.number(stride)), self.extents[r]) for r, stride in index.terms):
            if extent > 1:
                if stride <= reach:
                    return False
                reach += stride * (extent - 1)
        return True

    def box(self, ranges: Iterable[int], limit: int = LIMIT) -> dict[int, int]:
        """The extents of these ranges, cut where there would be more than ``limit`` points."""
        full = {r: self.extents[r] for r in sorted(ranges)}
        most = max(full.values(), default=1)
        while _points({r: min(e, most) for r, e in full.items()}) > limit:
            most //= 2
        return {r: min(e, most) for r, e in full.items()}

    def ends(self, ranges: Iterable[int], limit: int = LIMIT) -> dict[int, Array]:
        """Values of these ranges, each along an axis of its own: all, or so many of the first and the last that there are at most ``limit`` points."""
        order = sorted(ranges)
        box = self.box(order, limit)
        found: dict[int, Array] = {}
        for i, r in enumerate(order):
            extent, count = self.extents[r], box[r]
            values = np.arange(extent) if count >= extent else np.concatenate([np.arange(count - count // 2), np.arange(extent - count // 2, extent)])
            found[r] = values.astype(np.int64).reshape([-1 if k == i else 1 for k in range(len(order))])
        return found

    def places(self, index: Index, box: Mapping[int, int]) -> Array:
        """The element at every point of the box, which has all ranges of the index; one axis for each range of the box."""
        total = np.full([1] * len(box), self.number(index.offset), np.int64)
        axis = {r: i for i, r in enumerate(box)}
        for r, stride in index.terms:
            total = total + self.steps(axis[r], len(box), box[r]) * self.number(stride)
        return np.broadcast_to(total, list(box.values()))

    def codes(self, ranges: Iterable[int], box: Mapping[int, int]) -> Array:
        """A number for each point of the box: equal where the points agree in ``ranges``."""
        total: Array = np.zeros([1] * len(box), np.int64)
        for i, r in enumerate(box):
            if r in ranges:
                total = total * box[r] + self.steps(i, len(box), box[r])
        return np.broadcast_to(total, list(box.values()))

    def steps(self, axis: int, rank: int, extent: int) -> Array:
        return np.arange(extent, dtype=np.int64).reshape([-1 if i == axis else 1 for i in range(rank)])


def _points(box: Mapping[Any, int]) -> int:
    total = 1
    for extent in box.values():
        total *= extent
    return total
