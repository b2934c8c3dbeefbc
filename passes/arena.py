"""``arena``: places for the values of a Program.

What it promises: two values that are alive at the same step never share memory, but for an elementwise
result that takes over an operand read there for the last time; offsets are formulas of the dims, multiples of 64 bytes; time
linear in the program.

A slab takes, in this order: the memory of an operand that its kernel reads for the last time, where every
element is read only at the point and stage that overwrites it; a free block of the same number of bytes, as a formula;
new memory at the end.  What a sweep holds for one block lies in memory of its own, by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphc import dims
from graphc.dims import Size
from graphc.kernel import Kernel, Launch, Program, Slab, Step, Sweep, value_ranges

__all__ = ["ALIGNMENT", "aligned", "arena"]

ALIGNMENT = 64


def aligned(nbytes: Size) -> Size:
    """Rounded up to a multiple of the alignment."""
    if isinstance(nbytes, int):
        return (nbytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    return dims.floordiv(nbytes + (ALIGNMENT - 1), ALIGNMENT) * ALIGNMENT


def arena(program: Program) -> Program:
    """Fill in lifetimes, offsets, in-place results and the sizes of the arena and of what sweeps hold."""
    for i, step in enumerate(program.steps):
        if isinstance(step, Sweep):
            inner: list[Step] = list(step.steps)
            lifetimes(inner, [s for s in program.slabs if s.place == "block"])
            room = _placed(inner, program.slabs, "block")
            program.steps[i] = step._replace(steps=tuple(inner), room=room)  # type: ignore[arg-type]  # the kinds of steps stay
    lifetimes(program.steps, [s for s in program.slabs if s.place != "block"], (*program.roots, *program.checks))
    program.arena = _placed(program.steps, program.slabs, "arena")
    return program


def _placed(steps: list[Step], slabs: Sequence[Slab], place: str) -> Size:
    """Offsets for the slabs of a place that these steps write first; the memory that they take."""
    free: dict[Size, list[Size]] = {}
    ends: list[list[Slab]] = [[] for _ in steps]
    for k in dict.fromkeys(k for step in steps for k in step.writes):
        s = slabs[k]
        if s.place == place and s.last < len(steps):
            ends[s.last].append(s)
    total: Size = 0
    sizes: dict[Size, Size] = {}
    for i, step in enumerate(steps):
        taken: set[int] = set()
        if isinstance(step, Launch):
            steps[i] = step = _in_place(step, slabs, i, place)
            for slab, operand in zip(step.slabs, step.kernel.operands, strict=True):
                if operand.mode == "out" and operand.alias >= 0:
                    old = slabs[step.slabs[operand.alias]]
                    slabs[slab].inplace, slabs[slab].offset = old.id, old.offset
                    taken.add(old.id)
        for k in dict.fromkeys(step.writes):
            s = slabs[k]
            if s.place != place or s.first != i or s.inplace >= 0:
                continue
            nbytes = sizes.get(s.nbytes)
            if nbytes is None:
                nbytes = sizes[s.nbytes] = aligned(s.nbytes)
            stock = free.get(nbytes)
            if stock:
                s.offset = stock.pop()
            else:
                s.offset = total
                total = total + nbytes
        for s in ends[i]:
            if s.id not in taken:
                free.setdefault(sizes.get(s.nbytes, aligned(s.nbytes)), []).append(s.offset)
    return total


def lifetimes(steps: Sequence[Step], slabs: Sequence[Slab], kept: Sequence[int] = ()) -> None:
    """The steps that write each slab first and read (or write) it last; those that are ``kept`` live to the end."""
    by_id = {s.id: s for s in slabs}
    for i, step in enumerate(steps):
        for k in step.writes:
            s = by_id.get(k)
            if s is None:
                continue
            if s.first < 0:
                s.first = i
            s.last = max(s.last, i)
        for k in step.reads:
            if k in by_id:
                by_id[k].last = max(by_id[k].last, i)
    for k in kept:
        by_id[k].last = len(steps)


def _in_place(step: Launch, slabs: Sequence[Slab], at: int, place: str) -> Launch:
    """The launch with results that take over the memory of dying operands."""
    kernel = step.kernel
    operands = list(kernel.operands)
    used: set[int] = set()
    changed = False
    for k, operand in enumerate(operands):
        if operand.mode != "out" or slabs[step.slabs[k]].place != place or slabs[step.slabs[k]].first != at or step.slabs.count(step.slabs[k]) > 1:
            continue
        for j, other in enumerate(kernel.operands):
            if other.mode != "in" or j in used or other.dtype != operand.dtype or other.size != operand.size:
                continue
            old = slabs[step.slabs[j]]
            if old.place == place and old.last == at and old.first < at and step.slabs.count(old.id) == 1 and _overwrites(kernel, k, j):
                operands[k] = operand._replace(alias=j)
                used.add(j)
                changed = True
                break
    return step._replace(kernel=replace(kernel, operands=tuple(operands))) if changed else step


def _overwrites(kernel: Kernel, out: int, operand: int) -> bool:
    """Is each element of ``operand`` read only where, and in the stage in which, that element of ``out`` is written, or before at the same point?"""
    if kernel.finish:
        return False
    stores = [(s, i) for s, stage in enumerate(kernel.stages) for i in stage.body if kernel.values[i].op == "store" and kernel.values[i].operand == out]
    if len(stores) != 1:
        return False
    where, store = stores[0]
    index = kernel.values[store].index
    ranges = value_ranges(kernel)[store]
    assert index is not None
    around = {*kernel.grid, *kernel.stages[where].loops}
    if index.gathers or not around <= {r for r, _ in index.terms} or not ranges <= {r for r, _ in index.terms}:
        return False  # an element may be written twice, and read in between
    for s, stage in enumerate(kernel.stages):
        for i in stage.body:
            v = kernel.values[i]
            if v.op == "load" and v.operand == operand and (v.index != index or s > where):
                return False
    return True
