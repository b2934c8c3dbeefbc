"""Collapse: two nested loops that walk through memory as one loop would become one loop.

Ranges a (outer) and b (inner) are neighbours in every loop nest that has them, every access that has one has
both, with stride(a) = extent(b) * stride(b), every reduction reduces both or neither, and no loop
variable is itself read.  A dense elementwise kernel of any rank becomes one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from graphc.kernel import Instr, Kernel, Range, Stage

__all__ = ["collapse"]


def collapse(kernel: Kernel) -> Kernel:
    """The kernel with as few ranges as possible."""
    while True:
        pair = next(((a, b) for a, b in _neighbours(kernel) if _one_walk(kernel, a, b)), None)
        if pair is None:
            return kernel
        kernel = _merged(kernel, *pair)


def _nests(kernel: Kernel) -> list[tuple[int, ...]]:
    return [kernel.grid, *(s.loops for s in (*kernel.stages, *kernel.finish))]


def _neighbours(kernel: Kernel) -> list[tuple[int, int]]:
    """Pairs that stand side by side wherever one of them stands."""
    found: dict[tuple[int, int], None] = {}
    for loops in _nests(kernel):
        found.update(((a, b), None) for a, b in pairwise(loops))
    return [(a, b) for a, b in found
            if all((a in loops) == (b in loops) and (a not in loops or loops.index(b) == loops.index(a) + 1) for loops in _nests(kernel))]


def _one_walk(kernel: Kernel, a: int, b: int) -> bool:
    extent = kernel.ranges[b].extent
    for v in kernel.values:
        if v.op == "range" and v.over[0] in (a, b):
            return False
        if v.op == "reduce" and (a in v.over) != (b in v.over):
            return False
        if v.op == "reduce" and a in v.over and v.over.index(b) != v.over.index(a) + 1:
            return False  # argmax counts in this order
        if v.index is not None:
            strides = dict(v.index.terms)
            if strides.get(a, 0) != strides.get(b, 0) * extent:
                return False
    return True


def _merged(kernel: Kernel, a: int, b: int) -> Kernel:
    """``b`` runs over both; ``a`` is gone."""
    ranges = list(kernel.ranges)
    ranges[b] = Range(ranges[b].name, ranges[a].extent * ranges[b].extent)
    del ranges[a]

    def number(r: int) -> int:
        return r - 1 if r > a else r

    def loops(found: Sequence[int]) -> tuple[int, ...]:
        return tuple(number(r) for r in found if r != a)

    def instr(v: Instr) -> Instr:
        index = v.index
        if index is not None:
            index = index._replace(terms=tuple((number(r), s) for r, s in index.terms if r != a))
        return v._replace(index=index, over=loops(v.over))

    return replace(
        kernel, ranges=tuple(ranges), grid=loops(kernel.grid), values=tuple(instr(v) for v in kernel.values),
        stages=tuple(Stage(loops(s.loops), s.body) for s in kernel.stages),
        finish=tuple(Stage(loops(s.loops), s.body) for s in kernel.finish))
