"""``f.dump("memory")`` of a program: where each value lies, and from when to when."""

from __future__ import annotations

from collections.abc import Iterable

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.kernel import Program

__all__ = ["print_memory"]


def print_memory(program: Program) -> str:
    """The slabs as a table, in the order in which they are filled, and the size of the arena as a formula."""
    slabs = [s for s in program.slabs if s.place != "constant" or s.array.shape]
    names = _names(size for s in slabs for size in (*s.shape, s.offset))
    rows = [("slab", "type", "place", "steps", "")]
    for s in slabs:
        place = f"{s.place} + {dims.size_text(s.offset, names)}" if s.place in ("arena", "block") else s.place
        steps = "of a sweep" if s.place == "block" else f"{_time(s.first, program)}..{_time(s.last, program)}"
        note = f"in place of s{s.inplace}" if s.inplace >= 0 else ""
        rows.append((f"s{s.id} {s.name}", s.array.text(names), place, steps, note))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [" ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]).rstrip() for row in rows]
    apart: Size = 0
    for s in slabs:
        if s.place == "arena":
            apart = apart + s.nbytes
    lines += ["", f"arena: {dims.size_text(program.arena, names)} bytes; without reuse {dims.size_text(apart, names)} bytes"]
    return "\n".join(lines) + "\n"


def _time(step: int, program: Program) -> str:
    return "start" if step < 0 else "end" if step >= len(program.steps) else str(step)


def _names(sizes: Iterable[Size]) -> dict[Symbol, str]:
    """Unknown sizes numbered in the order in which they appear."""
    found: dict[Symbol, str] = {}
    for size in sizes:
        for s in dims.symbols(size):
            if s.name is None and s not in found:
                found[s] = f"?{len(found)}"
    return found
