"""Square transpositions in vector registers.

    columns = transposed([lambda: load(0), lambda: load(1), ...])      w vectors of w lanes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backends.llvm.values import Value, shuffle

__all__ = ["transposed"]


def transposed(rows: Sequence[Callable[[], Value]]) -> list[Value]:
    """w vectors of w lanes each, transposed; ``rows`` write the loads.

    Round t joins registers whose numbers differ in bit t.  The first rounds interleave units of 1, 2, 4, ... elements
    within 16 bytes (unpack instructions), the others put blocks of 16 bytes side by side, the even ones of both
    operands and the odd ones of both (vperm2i128, vshufi32x4): one instruction each.  What stands where is followed on the side: row and column
    of every lane.
    """
    w = len(rows)
    regs: list[Value] = []
    inside = 1
    for n in range(w):
        regs.append(rows[n]())
        if n == 0:
            inside = min(max(128 // regs[0].bits, 1), w)
        if (n + 1) % inside == 0:
            _rounds(regs, range(n + 1 - inside, n + 1), 1, inside, inside)
    for low in range(inside):
        _rounds(regs, range(low, w, inside), inside, w, inside)
    columns = _columns(w, inside)
    found: list[Value] = list(regs)
    for position, column in enumerate(columns):
        found[column] = regs[position]
    return found


def _rounds(regs: list[Value], positions: Sequence[int], first: int, last: int, inside: int) -> None:
    """The rounds that join registers ``first``, 2 ``first``, ... (below ``last``) apart, among these positions."""
    step = first
    while step < last:
        low, high = _masks(regs[0].lanes, step, inside)
        for p in positions:
            if not p & step:
                a, b = regs[p], regs[p + step]
                regs[p], regs[p + step] = shuffle(a, b, low), shuffle(a, b, high)
        step *= 2


def _masks(w: int, step: int, inside: int) -> tuple[list[int], list[int]]:
    """The two shuffles of the round of registers ``step`` apart."""
    if step < inside:
        low: list[int] = []
        high: list[int] = []
        for start in range(0, w, inside):
            for unit in range(0, inside // 2, step):
                for found, at in ((low, start + unit), (high, start + inside // 2 + unit)):
                    found += [*range(at, at + step), *range(w + at, w + at + step)]
        return low, high
    even = [lane for lane in range(2 * w) if not lane // inside % 2]
    return even, [lane + inside for lane in even]


def _columns(w: int, inside: int) -> list[int]:
    """For each register after all rounds: which column it holds."""
    state = [[(row, column) for column in range(w)] for row in range(w)]
    step = 1
    while step < w:
        low, high = _masks(w, step, inside)
        for p in range(w):
            if not p & step:
                both = state[p] + state[p + step]
                state[p], state[p + step] = [both[i] for i in low], [both[i] for i in high]
        step *= 2
    for lanes in state:
        assert [row for row, _ in lanes] == list(range(w))
    return [lanes[0][1] for lanes in state]
