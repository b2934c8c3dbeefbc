"""Labels: which loop runs along which axis of which value of a kernel's body.

The results of the body get a range for each axis whose size is not 1; walking from consumers to producers,
each op says which ranges its operands' axes have:

    elementwise     those of the result, aligned from the right; none where the operand has size 1
    reduction       those of the result on the axes that are kept, new ranges on those that are reduced
    transpose, ...  those of the result, moved

A value inside the body is computed at one set of labels: where two consumers want it at different
ranges, the ranges become one (``Labels.same``), which is possible where they are equally long and no
value depends on both.  An operand of the body may be read at any number of places.

``grid_of`` says which ranges the outer loops of the nest run over, if there is such a nest at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.ir import Node, Var
from graphc.ops.core import size_of_op
from graphc.passes.bodies import MOVES, is_gather, is_move, is_pointwise, is_window, moves_inside, reduction_of

__all__ = ["Label", "Labels", "Reduced", "Stored", "Unlabelled", "along", "grid_of", "label_body", "ranges_of", "sources"]

#: for each axis the range that runs along it; -1 where the size is 1
Label = tuple[int, ...]

#: ops that are looked through on the way to the array that is read
MOST_SOURCES = 8


class Unlabelled(Exception):
    """The body is no loop nest: some value would be needed at two places at once."""


class Labels:
    """Ranges and labels of one body.

    ``extents``: the length of each range.  ``values``: the label of each value computed inside.  ``uses``: for each
    value that comes from outside, where it is read: (node, operand position) -> label.  ``over``: for each
    reduction the ranges that it reduces.
    """

    def __init__(self) -> None:
        self.extents: list[Size] = []
        self.parent: list[int] = []
        self.values: dict[Var, Label] = {}
        self.uses: dict[Var, dict[tuple[Node, int], Label]] = {}
        self.over: dict[Node, Label] = {}
        self.stored: set[Var] = set()  # values that must lie in memory, because they are read at positions that are data

    def copy(self) -> Labels:
        other = Labels()
        other.extents, other.parent = list(self.extents), list(self.parent)
        other.values, other.over = dict(self.values), dict(self.over)
        other.uses = {v: dict(places) for v, places in self.uses.items()}
        other.stored = set(self.stored)
        return other

    def fresh(self, extent: Size) -> int:
        self.extents.append(extent)
        self.parent.append(len(self.parent))
        return len(self.parent) - 1

    def find(self, r: int) -> int:
        while r >= 0 and self.parent[r] != r:
            r = self.parent[r]
        return r

    def label(self, label: Label) -> Label:
        return tuple([self.find(r) for r in label])

    @property
    def ranges(self) -> list[int]:
        return [r for r, p in enumerate(self.parent) if r == p]

    def same(self, a: int, b: int) -> bool:
        """Make two ranges one; False where that cannot be."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return True
        if a < 0 or b < 0 or self.extents[a] != self.extents[b] or self._meet(a, b):
            return False
        low, high = min(a, b), max(a, b)
        self.parent[high] = low
        return True

    def _meet(self, a: int, b: int) -> bool:
        """Does some value depend on both?"""
        for label in self.values.values():
            found = {self.find(r) for r in label}
            if a in found and b in found:
                return True
        return any(a in found and b in found
                   for places in self.uses.values() for label in places.values() for found in [{self.find(r) for r in label}])

    def result(self, v: Var) -> None:
        """``v`` is a result of the body: it gets ranges of its own."""
        self.values[v] = tuple([-1 if dims.is_one(s) else self.fresh(s) for s in v.type.shape])

    def join(self, node: Node) -> bool:
        """Take ``node``, whose consumers are in the body, into it; False (and a broken state) where that cannot be."""
        out = node.outputs[0]
        if out in self.stored:
            return False
        places = self.uses.pop(out, {})
        label = self.values.get(out)
        for want in places.values():
            if label is None:
                found = [r for r in self.label(want) if r >= 0]
                if len(set(found)) != len(found):
                    return False
                label = self.values[out] = want
            elif not all(a == b or self.same(a, b) for a, b in zip(self.label(label), self.label(want), strict=True)):
                return False
        if label is None:
            return False
        label = self.label(label)
        for position, v in enumerate(node.inputs):
            place = wanted(self, node, position, label)
            if place is None:
                return False
            if position == 0 and is_gather(node):
                if v in self.values:
                    return False
                self.stored.add(v)
            if v in self.values:
                have = self.label(self.values[v])
                if not all(a == b or self.same(a, b) for a, b in zip(have, self.label(place), strict=True)):
                    return False
            else:
                self.uses.setdefault(v, {})[node, position] = place
        return True

    def absorb(self, other: Labels) -> None:
        """Take over another body, with ranges of its own."""
        shift = len(self.parent)

        def moved(label: Label) -> Label:
            return tuple([r + shift if r >= 0 else r for r in label])

        self.extents += other.extents
        self.parent += [p + shift for p in other.parent]
        for v, label in other.values.items():
            have = self.values.setdefault(v, moved(label))
            if not all(self.find(a) == self.find(b) or self.same(a, b) for a, b in zip(have, moved(label), strict=True)):
                raise Unlabelled(f"{v.describe()} is needed at two places")
        self.over.update({n: moved(label) for n, label in other.over.items()})
        self.stored |= other.stored
        for v, places in other.uses.items():
            self.uses.setdefault(v, {}).update({k: moved(label) for k, label in places.items()})
        for v in [v for v in self.uses if v in self.values]:
            if v in self.stored:
                raise Unlabelled(f"{v.describe()} is read at positions that are data")
            for label in self.uses.pop(v).values():
                if not all(self.find(a) == self.find(b) or self.same(a, b) for a, b in zip(self.values[v], label, strict=True)):
                    raise Unlabelled(f"{v.describe()} is needed at two places")

    def unite(self) -> None:
        """Ranges that need not differ become one: first where the same operand is read along them, then by their place."""
        for places in self.uses.values():
            first, *rest = places.values()
            for other in rest:
                for a, b in zip(first, other, strict=True):
                    if a >= 0 and b >= 0:
                        self.same(a, b)
        labels = [*self.values.values(), *(label for places in self.uses.values() for label in places.values())]
        if labels and len(self.ranges) > max(len(label) for label in labels):
            full = max(labels, key=lambda label: sum(r >= 0 for r in label))
            for label in labels:
                for a, b in zip(reversed(full), reversed(label), strict=False):
                    if a >= 0 and b >= 0:
                        self.same(a, b)


def label_body(nodes: Sequence[Node], outputs: Iterable[Var]) -> Labels:
    """The labels of a body: ``nodes`` operands first; ``Unlabelled`` if it is no loop nest."""
    labels = Labels()
    for v in outputs:
        if v not in labels.values:
            labels.result(v)
    for node in reversed(nodes):
        if not moves_inside(node) and node.op is not size_of_op and not labels.join(node):
            raise Unlabelled(f"{node.op.name} ({node.outputs[0].type}) is needed at two places")
    labels.unite()
    return labels


def wanted(labels: Labels, node: Node, position: int, label: Label) -> Label | None:
    """The label at which a node reads an operand, given that of its result; None where no loop can say it."""
    v = node.inputs[position]
    shape, result = v.type.shape, node.outputs[0].type.shape
    name = node.op.name
    if name == "transpose":
        moved = [-1] * len(shape)
        for i, a in enumerate(node.attrs["axes"]):
            moved[a] = label[i]
        return tuple(moved)
    if name == "expand_dims":
        return tuple([r for i, r in enumerate(label) if i not in node.attrs["axes"]])
    if name == "squeeze":
        rest = iter(label)
        return tuple([-1 if i in node.attrs["axes"] else next(rest) for i in range(len(shape))])
    if is_window(node) and position == 0:
        return label  # the operand's own place is some steps away
    if is_gather(node) and position == 0:
        return tuple([-1 if i == node.attrs["axis"] or dims.is_one(s) else r for i, (s, r) in enumerate(zip(shape, label, strict=True))])
    if node.op.kind == "reduction":
        reduced = reduction_of(node)
        return None if reduced is None else _reduced(labels, node, shape, reduced[1], label, len(result) == len(shape))
    lead = len(result) - len(shape)
    return tuple([-1 if dims.is_one(s) else label[lead + i] for i, s in enumerate(shape)])


def sources(labels: Labels, v: Var, label: Label) -> Iterator[tuple[Var, Label]]:
    """A value and, one after the other, what it is computed from element by element, as far as that is as large; with the label of each."""
    for _ in range(MOST_SOURCES):
        yield v, labels.label(label)
        node = v.node
        if node is None or not (is_pointwise(node) or is_move(node)):
            return
        moved = node.op.name in MOVES
        k = next((k for k, x in enumerate(node.inputs) if moved or x.type.shape == v.type.shape), -1)
        place = wanted(labels, node, k, label) if k >= 0 else None
        if place is None:
            return
        v, label = node.inputs[k], place


def along(label: Label) -> int:
    """The range along which memory runs in an array that is read there."""
    return next((r for r in reversed(label) if r >= 0), -1)


def _reduced(labels: Labels, node: Node, shape: Sequence[Size], axes: Sequence[int], label: Label, keep: bool) -> Label:
    rest = iter(label)
    found, over = [], []
    for i, size in enumerate(shape):
        if i in axes:
            if keep:
                next(rest)
            r = -1 if dims.is_one(size) else labels.fresh(size)
            over.append(r)
            found.append(r)
        else:
            found.append(next(rest))
    labels.over[node] = tuple([r for r in over if r >= 0])
    return tuple(found)


# ---- the grid -----------------------------------------------------------------------------------


class Reduced(NamedTuple):
    """A reduction: the ranges it reduces, those it keeps, and whether what reads it runs over more ranges or reduces again."""

    over: frozenset[int]
    kept: frozenset[int]
    needed: bool


class Stored(NamedTuple):
    """A result of the nest: its ranges, and the reductions (by position) that it is or depends on."""

    ranges: frozenset[int]
    reads: frozenset[int]


def grid_of(reductions: Sequence[Reduced], stored: Sequence[Stored], order: Sequence[int], large: bool = False, again: bool = False) -> frozenset[int] | None:
    """The ranges of the outer loops; None where no choice suits all reductions and results.

    A reduction runs within a point of the grid (it keeps exactly the grid), or over the whole grid (it reduces all of it,
    keeps none of it, and nothing in the nest reads it again).  A result is stored at each point of the grid, or after it.

    ``order``: all ranges, those with the longest strides first.  ``large``: the arrays do not fit a cache, so that the loops
    should run through memory in its order.  ``again``: may a reduction that is the same for several points be done at each of them?
    """
    if not reductions:
        whole = frozenset(order)
        return whole if all(s.ranges == whole for s in stored) else None
    kept = [r.kept for r in reductions if r.needed]
    candidates: list[frozenset[int]]
    if kept:
        candidates = [max(kept, key=lambda s: (len(s), sorted(s)))]
    else:
        candidates = [r.kept for r in reductions if r.kept]
        candidates += [r.over for r in reductions]
        streams = [frozenset(order[:k]) for k in range(1, len(order) + 1)]
        candidates = [*streams, *candidates] if large else [*candidates, *streams]
    for grid in candidates:
        if _suits(reductions, stored, grid, again):
            return grid
    return None


def _suits(reductions: Sequence[Reduced], stored: Sequence[Stored], grid: frozenset[int], again: bool) -> bool:
    crossing: set[int] = set()
    for i, r in enumerate(reductions):
        if not r.over & grid and (r.kept == grid or (again and r.kept < grid)):
            continue
        if r.needed or not grid or not r.over >= grid or r.kept & grid:
            return False
        crossing.add(i)
    if again and crossing:  # what follows the grid would read what belongs to its points
        return False
    return all(not (grid & s.ranges) if crossing & s.reads else grid <= s.ranges for s in stored)


def ranges_of(labels: Labels, label: Label) -> frozenset[int]:
    return frozenset([labels.find(r) for r in label if r >= 0])
