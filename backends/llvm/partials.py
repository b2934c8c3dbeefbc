"""Reductions over the grid: each chunk leaves its part in scratch memory, the parts are joined in order afterwards.

A reduction that keeps no range leaves one number for each chunk; one that keeps inner ranges (the column sums of a
matrix that is walked through row by row) leaves an array, into which each point of the grid adds.
The vector range is the last axis of such an array.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc import dims
from graphc.backends.llvm import reducing
from graphc.backends.llvm.elements import memory_kind
from graphc.backends.llvm.memory import load, store
from graphc.backends.llvm.reducing import Accumulator
from graphc.backends.llvm.values import Value, select
from graphc.dims import Size
from graphc.kernel import Instr

if TYPE_CHECKING:
    from graphc.backends.llvm.kernels import Emitter

__all__ = ["MOST_CHUNKS", "Partials", "aligned"]

#: chunks of one launch at most: partial results are kept for each
MOST_CHUNKS = 64


def aligned(nbytes: Size) -> Size:
    """Rounded up to whole cache lines."""
    return (nbytes + 63) // 64 * 64 if isinstance(nbytes, int) else dims.floordiv(nbytes + 63, 64) * 64


class Partials:
    """The partial results of one kernel being written.  ``places``: reduction -> offset, bytes for a chunk, kept ranges."""

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter
        self.places: dict[int, tuple[Size, Size, tuple[int, ...]]] = {}
        self.base: dict[int, str] = {}

    def layout(self, at: Size) -> Size:
        """Places in scratch memory from ``at`` on; where they end."""
        k = self.e.kernel
        for i in self.e.grid_reductions:
            kept = tuple(sorted(self.e.depends[i], key=lambda r: (r == self.e.vector, self._inner_order(r))))
            elements = dims.product(k.ranges[r].extent for r in kept)
            words = reducing.kinds(k.values[i].word, k.values[k.values[i].args[0]].dtype)
            nbytes = aligned(elements * (8 * len(words)))
            self.places[i] = (at, nbytes, kept)
            at = at + nbytes * MOST_CHUNKS
        return at

    def _inner_order(self, r: int) -> int:
        for s in (*self.e.kernel.finish, *self.e.kernel.stages):
            if r in s.loops:
                return s.loops.index(r)
        return r

    def zero(self, i: int) -> None:
        """Set this chunk's partial array to the identity."""
        f, v, dtype = self.e.f, self.e.kernel.values[i], self.e.operand_dtype(i)
        offset, nbytes, kept = self.places[i]
        base = self.e.scratch_at(offset, nbytes)
        elements = self.e.size(dims.product(self.e.kernel.ranges[r].extent for r in kept))
        first = reducing.identity(f, v.word, dtype, 0)
        with f.loop(f.const(0, "i64"), elements, f.const(1, "i64"), "zero") as loop:
            for part, x in enumerate(first):
                self._store(base, loop.index, elements, part, x)
        self.base[i] = base

    def _store(self, base: str, at: Value, elements: Value, part: int, x: Value, mask: Value | None = None) -> None:
        kind = memory_kind(np.dtype(bool)) if x.kind == "i1" else x.kind
        y = x.to("i8", signed=False) if x.kind == "i1" else x
        p = self._pointer(base, at, elements, part, kind)
        store(p, y, mask)

    def _pointer(self, base: str, at: Value, elements: Value, part: int, kind: str) -> str:
        f = self.e.f
        if part:
            base = f.op(f"getelementptr i64, ptr {base}, i64 {elements.ref}")
        t = Value(f, "", kind).type
        return f.op(f"getelementptr {t}, ptr {base}, i64 {at.ref}")

    def _load(self, base: str, at: Value, elements: Value, part: int, kind: str, lanes: int = 0, mask: Value | None = None) -> Value:
        f = self.e.f
        memory = "i8" if kind == "i1" else kind
        p = self._pointer(base, at, elements, part, memory)
        x = load(p, Value(f, "", memory, lanes), mask)
        return x.ne(0) if kind == "i1" else x

    def kept_index(self, kept: Sequence[int]) -> tuple[Value, Value]:
        """Position within a partial array at the current indices, and its length."""
        f = self.e.f
        at, total = f.const(0, "i64"), f.const(1, "i64")
        for r in reversed(kept):
            at = at + self.e.index[r] * total
            total = total * self.e.size(self.e.kernel.ranges[r].extent)
        return at, total

    def take(self, i: int, v: Instr, dtype: np.dtype[Any], news: Sequence[Accumulator]) -> None:
        _, _, kept = self.places[i]
        at, elements = self.kept_index(kept)
        base = self.base[i]
        words = reducing.kinds(v.word, dtype)
        for n, new in enumerate(news):
            mask = self.e.mask(n)
            if new[0].lanes and self.e.vector not in kept:
                if mask is not None:
                    none = reducing.identity(self.e.f, v.word, dtype, new[0].lanes)
                    new = tuple(select(mask, x, y) for x, y in zip(new, none, strict=True))
                new, mask = reducing.horizontal(v.word, dtype, new), None
            lanes = new[0].lanes
            here, mask = (at + n * self.e.lanes, mask) if lanes else (at, None)
            old = tuple(self._load(base, here, elements, part, kind, lanes, mask) for part, kind in enumerate(words))
            for part, x in enumerate(reducing.combine(v.word, dtype, old, new)):
                self._store(base, here, elements, part, x, mask)

    def put(self, i: int, at: Value, elements: Value, acc: Accumulator) -> None:
        """One element of this chunk's array."""
        offset, nbytes, _ = self.places[i]
        base = self.base.setdefault(i, "")
        if not base:
            base = self.base[i] = self.e.scratch_at(offset, nbytes)
        for part, x in enumerate(acc):
            self._store(base, at, elements, part, x)

    def save(self, i: int) -> None:
        """A scalar reduction over the grid: this chunk's part of it."""
        v, dtype = self.e.kernel.values[i], self.e.operand_dtype(i)
        offset, nbytes, _ = self.places[i]
        accs = [self.e._load_home(i, n) for n in range(len(self.e.homes[i]))]
        while len(accs) > 1:
            half = len(accs) // 2
            accs = [reducing.combine(v.word, dtype, a, b) for a, b in zip(accs[:half], accs[half:], strict=True)]
        acc = reducing.horizontal(v.word, dtype, accs[0])
        base = self.e.scratch_at(offset, nbytes)
        zero, one = self.e.f.const(0, "i64"), self.e.f.const(1, "i64")
        for part, x in enumerate(acc):
            self._store(base, zero, one, part, x)

    def joined(self, i: int) -> list[Value]:
        """The parts of all chunks, in order, as the reduction's value at the current indices."""
        f, v, dtype = self.e.f, self.e.kernel.values[i], self.e.operand_dtype(i)
        offset, nbytes, kept = self.places[i]
        at, elements = self.kept_index(kept)
        wide = self.e.vector in kept
        lanes = self.e.lanes if wide else 0
        group = self.e.group if wide else 1
        words = reducing.kinds(v.word, dtype)
        base = self.e.pointer(len(self.e.kernel.operands))
        step, start = self.e.size(nbytes), self.e.size(offset)
        zero = f.const(0, "i64")
        first = [self.e.first(i, lanes)] * group
        with f.loop(zero, self.e.chunk, f.const(1, "i64"), "chunks") as loop:
            accs = [tuple(loop.carry(x) for x in acc) for acc in first]
            here = start + loop.index * step
            part_base = f.op(f"getelementptr i8, ptr {base.ref}, i64 {here.ref}")
            for n in range(group):
                place = at + n * self.e.lanes if wide else at
                new = tuple(self._load(part_base, place, elements, part, kind, lanes, self.e.mask(n) if wide else None) for part, kind in enumerate(words))
                for p, x in zip(accs[n], reducing.combine(v.word, dtype, accs[n], new), strict=True):
                    loop.next(p, x)
        return [self.e.finished(i, acc) for acc in accs]
