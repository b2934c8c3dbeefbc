"""Contractions that pack nothing: what windows see times a matrix in panels, the kernel of a convolution (passes/keep.py).

    void NAME(ptr context, i64 chunk)        the context of contracted.py; tables of A's rows and sums only, and the rows of a unit in place of ``a_place``

A tile reads A element by element, so that any element may lie anywhere: it has its rows' addresses in registers, and one table says how far behind these
the elements of a k are.  B is ``[columns / width, k, width]``: its panels, each from its first k to its last.
"""

from __future__ import annotations

from graphc.backends.llvm.contracted import ContractionWriter
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Value

__all__ = ["seen_module"]

#: what tiles are given as A: the operand, the tables of its rows and (from the block's first k on) of its sums, the number of its last row
OPERAND, ROWS, SUMS, LAST = range(4)


def seen_module(kind: str, target: Target) -> tuple[str, str]:
    """(NAME, the text of a module) for float32 and float64."""
    return target.named("seen", _Writer(kind, target).write())


class _Writer(ContractionWriter):
    """Writes the functions."""

    def write(self) -> str:
        self.tiles_of()
        self.edge()
        self.contraction()
        return self.module.text()

    def word(self, kind: str, which: int) -> str:
        """What tiles are given."""
        return self.f.op(f"load {kind}, ptr {self.at('%a', self.i64(which), 'i64')}")

    def sources(self, height: int, a_row: Value) -> list[str]:
        """``a_row`` is the number of the first one here; those behind the last are that again."""
        operand, rows, self.sums = (self.word("ptr", which) for which in (OPERAND, ROWS, SUMS))
        last = self.f.value(self.word("i64", LAST), "i64")
        return [self.at(operand, self.number(rows, (a_row + n).minimum(last)), self.storage) for n in range(height)]

    def along(self, p: Value) -> Value:
        return self.number(self.sums, p)

    def rows_at(self, rows_of: tuple[str, Value], r: Value) -> tuple[str, Value]:
        given, first = rows_of
        return given, first + r

    def part(self, c: str, a: str, b: str, part: Value, columns: Value, n: Value, scratch: str) -> None:
        """Some rows and some columns."""
        f = self.f
        m, k, c_row, rows = (f.value("%" + word, "i64") for word in ("m", "k", "c_row", "a_place"))
        self.right = b, k
        across = (n + columns - 1).udiv(columns)
        low, start = part.udiv(across) * rows, part.urem(across) * columns

        def given(block: str, row: Value, at_k: Value, high: Value, deep: Value) -> tuple[str, Value]:
            words = (f"ptr {a}", "ptr %a_rows", f"ptr {self.at('%a_sums', at_k, 'i64')}", f"i64 {(m - 1).ref}")
            for which, word in enumerate(words):
                f.line(f"store {word}, ptr {self.at(block, self.i64(which), 'i64')}")
            return block, row

        self.blocks(c, c_row, (low, (low + rows).minimum(m)), (start, (start + columns).minimum(n)), k, scratch, given, None)

    def panel(self, panels: str, j: Value, deep: Value, column: Value, at_k: Value) -> str:
        (b, k), width = self.right, self.shape.columns
        within = column & (width - 1)  # a unit may begin in the middle of a panel
        return self.at(b, (column - within) * k + at_k * width + within, self.storage)
