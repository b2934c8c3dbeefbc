"""Square transpositions in vector registers.

    columns = transposed(load(n) for n in range(w))      w vectors of w lanes

In two phases, so that w need not fit into the registers (``first_rounds``, ``last_rounds``): ``inside`` rows at a time, ``inside``
being the elements of 16 bytes, then the registers of the same number of each of these groups.  A round joins pairs of
registers.  Those of the first phase interleave units of 1, 2, 4, ... elements within 16 bytes (punpckl, punpckh); those of the
second put blocks of 16 bytes side by side, the even ones of both operands and the odd ones of both (vperm2i128, vshufi64x2).
Each is one instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.backends.llvm.values import Value, shuffle

__all__ = ["first_rounds", "group", "last_rounds", "transposed"]


def group(bits: int, w: int) -> int:
    """How many rows the first phase takes at a time: ``inside``."""
    return min(max(128 // bits, 1), w)


def transposed(rows: Iterable[Value], parts: int = 1) -> list[Value]:
    """w vectors of w lanes each, transposed; a group is joined as soon as it is there.

    ``parts``: each vector holds the rows of so many smaller squares side by side, which are transposed where they are.
    """
    groups: list[list[Value]] = []
    pending: list[Value] = []
    for x in rows:
        pending.append(x)
        if len(pending) == group(x.bits, x.lanes):
            groups.append(first_rounds(pending))
            pending = []
    columns = [last_rounds(regs, parts) for regs in zip(*groups, strict=True)]
    return [regs[n] for n in range(len(groups)) for regs in columns]


def first_rounds(regs: Sequence[Value]) -> list[Value]:
    """Rows g to g + inside - 1 as registers 0 to inside - 1: in each of their blocks of 16 bytes, register c has column c of these rows."""
    w, inside = regs[0].lanes, len(regs)
    found = list(regs)
    step = 1
    while step < inside:
        low: list[int] = []
        high: list[int] = []
        for block in range(0, w, inside):
            for unit in range(block, block + inside // 2, step):
                for lanes, at in ((low, unit), (high, unit + inside // 2)):
                    lanes += [*range(at, at + step), *range(w + at, w + at + step)]
        found = _round(found, step, low, high)
        step *= 2
    # each round has put the highest bit of the column where a bit of the row was: they stand the other way round
    bits = inside.bit_length() - 1
    return [found[int(f"{c:0{bits}b}"[::-1], 2)] if bits else found[c] for c in range(inside)]


def last_rounds(regs: Sequence[Value], parts: int = 1) -> list[Value]:
    """Registers c of all groups, in order: columns c, c + inside, c + 2 inside, ..."""
    w = regs[0].lanes
    part = w // parts
    inside = part // len(regs)
    lanes = [lane for p in range(0, w, part) for lane in (*range(p, p + part), *range(w + p, w + p + part))]
    even = [lane for n, lane in enumerate(lanes) if not n // inside % 2]
    odd = [lane + inside for lane in even]
    found = list(regs)
    step = 1
    while step < len(regs):
        found = _round(found, step, even, odd)
        step *= 2
    return found


def _round(regs: Sequence[Value], step: int, low: Sequence[int], high: Sequence[int]) -> list[Value]:
    """Pairs of registers ``step`` apart, joined by these two shuffles."""
    found = list(regs)
    for p in range(len(regs)):
        if not p & step:
            found[p], found[p + step] = shuffle(regs[p], regs[p + step], low), shuffle(regs[p], regs[p + step], high)
    return found
