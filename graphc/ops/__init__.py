"""What is known of every op: one record per op, in the files of this folder.

``OPS`` is the table of all of them by name: text is parsed with it, tests and the
tables of the manual are generated from it.  A new op stands in the tuple ``OPS``
of its file, and a new file in the list below.
"""

from __future__ import annotations

from graphc.ir import Op
from graphc.ops import (
    arithmetic,
    broadcasting,
    choosing,
    comparison,
    complexes,
    contraction,
    control,
    convolution,
    core,
    creation,
    indexing,
    joining,
    looping,
    movement,
    placeholders,
    reduction,
    sliding,
    softmaxes,
    special,
    transcendental,
    windows,
)

_FILES = (
    core, broadcasting, arithmetic, comparison, choosing, transcendental, special, reduction, softmaxes, contraction,
    movement, joining, creation, indexing, control, looping, placeholders, windows, convolution, sliding, complexes,
)


def _table() -> dict[str, Op]:
    table: dict[str, Op] = {}
    for file in _FILES:
        for op in file.OPS:
            if op.name in table:
                raise AssertionError(f"two ops are called {op.name!r}; the second stands in {file.__name__}")
            table[op.name] = op
    return table


#: every built-in op by name
OPS: dict[str, Op] = _table()
__all__ = ["OPS"]
