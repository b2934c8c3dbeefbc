"""Large products whose right operand lies in panels already: a weight that is laid out once per change (passes/keep.py).

    NAME(...)     the interface of blocked.py; ``b_row`` and ``b_col`` are the steps from k to k and from column to column in the order of
                  memory: (columns, padded to whole panels) and (k of a block)

``B[k, n]`` is an array ``[k / deep, n / columns, deep, columns]``: for each block of k, panel after panel as the tiles read them.  Nothing of B is
copied, so that few rows (a batch of 8 or 32) cost no more than reading it once, from one end to the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.backends.llvm.blocked import BlockWriter
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Value
from graphc.dims import Size

__all__ = ["paneled_module", "panels"]


def paneled_module(kind: str, target: Target) -> tuple[str, str]:
    """(NAME, the text of a module) for float32 and float64."""
    return target.named("paneled", _Writer(kind, target).write())


def panels(columns: Sequence[Size], sums: Sequence[Size], steps: tuple[Sequence[Size], Sequence[Size]], width: int, most: int) -> tuple[Size, Size] | None:
    """(b_row, b_col) if an operand lies in panels.

    Args:
        columns, sums: sizes of its axes of columns and of k, merged where they lie one behind the other.
        steps: its strides along the former and along the latter.
        width, most: columns of a tile; k of a block at most.
    """
    along, down = steps
    if list(columns[1:]) != [width] or along[-1] != 1 or not sums or down[-1] != width:
        return None
    deep = sums[-1]
    if not isinstance(deep, int) or deep > most or along[0] != deep * width:
        return None
    whole = columns[0] * width
    if len(sums) > 2 or (len(sums) == 2 and down[0] != whole * deep):
        return None
    return whole, deep


class _Writer(BlockWriter):
    """Writes the functions; tiles are those of its base."""

    packs_b = False

    def even(self, k: Value) -> Value:
        return self.steps[1]

    def panel(self, panels: str, j: Value, deep: Value, column: Value, at_k: Value) -> str:
        b_row, b_col = self.steps
        return self.at("%b", at_k * b_row + column * b_col, self.storage)
