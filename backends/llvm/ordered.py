"""Code generation for ``Ordered`` (graphc/kernel.py): running sums, and setting or adding at positions.

    void NAME(ptr context, i64 chunk)

``context`` is an array of 8-byte slots: the addresses of the operands and of the result, the iterations in a chunk, then the
sizes (``Code.sizes``).  A chunk is a part of one of the other axes, on which rounds do not depend.

    for the other axes                    the first is cut into chunks
      for i along the axis, in order
        for v                             an axis along which all accesses are contiguous, if there is one: by vectors
          ...

Without such an axis, what goes from round to round stays in a register.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from graphc import dims
from graphc.backends.llvm.elements import apply, convert, kind_of, loaded, memory_kind, stored
from graphc.backends.llvm.formulas import ContextSizes
from graphc.backends.llvm.memory import load, store
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import BITS, Body, Module, Value, select
from graphc.dims import Size
from graphc.kernel import Ordered, Program, View

__all__ = ["Code", "ordered_module"]

#: an axis known to be shorter is not worth vectors
SHORT = 4
INT = np.dtype(np.int64)
WORDS = {"sum": "add", "prod": "mul", "add": "add"}


class Code(NamedTuple):
    """``sizes``: formulas whose values follow in the context.  ``chunked``: the extent that is cut; ``block``: a chunk is a multiple of it.

    ``rest``: how many elements one iteration of it computes; ``cost``: estimated picoseconds for each.
    """

    text: str
    sizes: tuple[Size, ...]
    chunked: Size
    block: int
    rest: Size
    cost: int


class _Axis(NamedTuple):
    """One loop; ``strides`` of the operands, then of the result."""

    extent: Size
    strides: tuple[Size, ...]


def ordered_module(step: Ordered, program: Program, target: Target, name: str) -> Code:
    """The code of a step, as the function ``name``."""
    return _Writer(step, program, target, name).write()


class _Writer(ContextSizes):
    def __init__(self, step: Ordered, program: Program, target: Target, name: str) -> None:
        self.step, self.target = step, target
        self.views: tuple[View, ...] = (*step.operands, step.out)
        self.dtypes = [program.slabs[v.slab].dtype for v in self.views]
        self.module = Module(target)
        self.f = Body(self.module, name, [("ptr noalias readonly", "context"), ("i64", "chunk")])
        self.sizes: dict[Size, int] = {}
        self.first_size = len(self.views) + 1
        self.loaded: dict[Size, Value] = {}
        self.entry: list[str] = []
        self.scatters = step.word in ("set", "add")
        self.axis = _Axis(self.views[0].shape[step.axis], tuple(v.strides[step.axis] for v in self.views))
        others = _joined([_Axis(n, tuple(v.strides[k] for v in self.views)) for k, n in enumerate(self.views[0].shape)
                          if k != step.axis and not dims.is_one(n)])
        fit = [a for a in others if self.contiguous(a)]
        self.vector = fit[-1] if fit else None
        self.others = [a for a in others if a is not self.vector]
        self.lanes = target.bits // max(BITS[memory_kind(self.dtypes[-1])], 32)

    def contiguous(self, axis: _Axis) -> bool:
        *strides, out = axis.strides
        free = strides[:1] if self.scatters else strides
        return out == 1 and all(s in (0, 1) for s in free) and (not self.scatters or strides[1] == 0) and not (
            isinstance(axis.extent, int) and axis.extent < SHORT)

    # -- the nest -----------------------------------------------------------------------------

    def write(self) -> Code:
        f = self.f
        for n in range(len(self.views)):
            self.entry += [f"  %base{n}.p = getelementptr ptr, ptr %context, i64 {n}", f"  %base{n} = load ptr, ptr %base{n}.p"]
        self.entry += [f"  %rows.p = getelementptr i64, ptr %context, i64 {len(self.views)}", "  %rows = load i64, ptr %rows.p"]
        cut = self.others[0] if self.others else self.vector
        zero = [f.const(0, "i64") for _ in self.views]
        if cut is None:
            self.rounds(zero, f.const(0, "i64"), f.const(1, "i64"))
        else:
            extent = self.size(cut.extent)
            low = f.value("%chunk", "i64") * f.value("%rows", "i64")
            high = low + f.value("%rows", "i64")
            high = select(high.lt(extent), high, extent)
            if self.others:
                self.nest(0, zero, low, high)
            else:
                self.rounds(zero, low, high)
        f.lines[0:0] = self.entry
        f.finish()
        rest = dims.product([self.axis.extent, *(a.extent for a in (*self.others, *((self.vector,) if self.vector else ())) if a is not cut)])
        block = self.lanes if cut is not None and cut is self.vector else 1
        return Code(self.module.text(), tuple(self.sizes), cut.extent if cut is not None else 1, block, rest, 150 if self.vector else 1200)

    def nest(self, depth: int, offsets: Sequence[Value], low: Value, high: Value) -> None:
        f = self.f
        if depth == len(self.others):
            zero = f.const(0, "i64")
            self.rounds(offsets, zero, self.size(self.vector.extent) if self.vector is not None else zero)
            return
        with f.loop(low, high, f.const(1, "i64"), "other") as loop:
            inner = self.others[depth + 1].extent if depth + 1 < len(self.others) else 0
            self.nest(depth + 1, self.moved(offsets, self.others[depth], loop.index), f.const(0, "i64"), self.size(inner))

    def moved(self, offsets: Sequence[Value], axis: _Axis, index: Value) -> list[Value]:
        return [o + (index if s == 1 else index * self.size(s)) if s != 0 else o for o, s in zip(offsets, axis.strides, strict=True)]

    def rounds(self, offsets: Sequence[Value], low: Value, high: Value) -> None:
        """The loop along the axis; ``low`` and ``high`` bound the vector axis."""
        f, count = self.f, self.size(self.axis.extent)
        zero, one = f.const(0, "i64"), f.const(1, "i64")
        if self.scatters:
            with f.loop(zero, count, one, "round") as loop:
                at = self.moved(offsets, self.axis, loop.index)
                p = convert(self.element(1, at[1], 0), self.dtypes[1], INT)
                at[2] = offsets[2] + p * self.size(self.axis.strides[2])
                self.elements(at, low, high, self.change)
        elif self.vector is not None:
            more = select(count.gt(0), one, zero)
            with f.loop(zero, more, one, "first"):
                self.elements(offsets, low, high, self.first)
            with f.loop(one, count, one, "round") as loop:
                self.elements(self.moved(offsets, self.axis, loop.index), low, high, self.following)
        else:
            kind = kind_of(self.dtypes[-1])
            with f.loop(zero, count, one, "round") as loop:
                start = f.const(1 if self.step.word == "prod" else 0, kind)
                before = loop.carry(start)
                at = self.moved(offsets, self.axis, loop.index)
                y = self.next_one(at, before, 0)
                y = select(loop.index.eq(0), self.element(len(self.step.operands) - 1, at[-2], 0), y)
                self.put(at[-1], y)
                loop.next(before, y)

    def elements(self, at: Sequence[Value], low: Value, high: Value, body: Callable[[Sequence[Value], int], None]) -> None:
        """All elements of one round: vectors, then one by one."""
        f = self.f
        if self.vector is None:
            body(at, 0)
            return
        middle = low + ((high - low) & -self.lanes)
        with f.loop(low, middle, f.const(self.lanes, "i64"), "vec") as loop:
            body(self.moved(at, self.vector, loop.index), self.lanes)
        with f.loop(middle, high, f.const(1, "i64"), "tail") as loop:
            body(self.moved(at, self.vector, loop.index), 0)

    # -- one element, or a vector of them -----------------------------------------------------

    def change(self, at: Sequence[Value], lanes: int) -> None:
        if self.step.word == "set":
            self.put_raw(at[2], self.raw(0, at[0], lanes))
        else:
            dtype = self.dtypes[2]
            self.put(at[2], apply("add", dtype, dtype, [self.element(2, at[2], lanes), self.element(0, at[0], lanes)]))

    def first(self, at: Sequence[Value], lanes: int) -> None:
        last = len(self.step.operands) - 1
        self.put_raw(at[-1], self.raw(last, at[last], lanes))

    def following(self, at: Sequence[Value], lanes: int) -> None:
        before = at[-1] - self.size(self.axis.strides[-1])
        self.put(at[-1], self.next_one(at, self.element(len(self.views) - 1, before, lanes), lanes))

    def next_one(self, at: Sequence[Value], before: Value, lanes: int) -> Value:
        dtype = self.dtypes[-1]
        if self.step.word == "recurrence":
            product = apply("mul", dtype, dtype, [self.element(0, at[0], lanes), before])
            return apply("add", dtype, dtype, [self.element(1, at[1], lanes), product])
        return apply(WORDS[self.step.word], dtype, dtype, [before, self.element(0, at[0], lanes)])

    def element(self, n: int, offset: Value, lanes: int) -> Value:
        return loaded(self.raw(n, offset, lanes), self.dtypes[n])

    def raw(self, n: int, offset: Value, lanes: int) -> Value:
        """What memory holds: one element in every lane, or the vector that begins there."""
        f, kind = self.f, memory_kind(self.dtypes[n])
        same = lanes and self.vector is not None and self.vector.strides[n] == 0
        shape = Value(f, "", kind, 0 if same else lanes)
        return f.splat(load(self.place(n, offset), shape), lanes)

    def put(self, offset: Value, x: Value) -> None:
        self.put_raw(offset, stored(x, self.dtypes[-1]))

    def put_raw(self, offset: Value, x: Value) -> None:
        store(self.place(len(self.views) - 1, offset), x)

    def place(self, n: int, offset: Value) -> str:
        element = Value(self.f, "", memory_kind(self.dtypes[n])).type
        return self.f.op(f"getelementptr {element}, ptr %base{n}, i64 {offset.ref}")


def _joined(axes: Sequence[_Axis]) -> list[_Axis]:
    """Neighbours that every view walks through as through one axis become one."""
    found: list[_Axis] = []
    for axis in axes:
        if found and all(s == t * axis.extent for s, t in zip(found[-1].strides, axis.strides, strict=True)):
            found[-1] = _Axis(found[-1].extent * axis.extent, axis.strides)
        else:
            found.append(axis)
    return found
