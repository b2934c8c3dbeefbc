"""A window (graphc/ops/windows.py) within a kernel: a load that is shifted, under a condition that follows from the loops.

Along an axis that the operand fills, nothing is asked; along the others, only what the sizes do not say already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc import dims
from graphc.dims import Dim, Size
from graphc.ir import Node
from graphc.kernel import Index, Instr
from graphc.passes.labels import Label

__all__ = ["counter_instr", "inside_instr", "window_instr"]

INT, BOOL = np.dtype(np.int64), np.dtype(np.bool_)


def window_instr(node: Node, label: Label, extents: Sequence[Size], strides: Sequence[Size], offset: Size, operand: int, value: int, fill: int,
                 zero: bool, add: Callable[[Instr], int]) -> int:
    """The instructions of a window whose result has this label, and the number of the last one.

    Args:
        extents: of all ranges.
        strides, offset, operand: how operand 0 lies in memory.
        value: what it is, if it is a constant of one element, which has no place; else -1.
        fill: the value that stands around it.
        zero: is that the 0 of its dtype?
        add: takes an instruction and gives its number.
    """
    x, dtype, attrs = node.inputs[0], node.outputs[0].type.dtype, node.attrs
    condition = _condition(label, extents, attrs["starts"], x.type.shape, attrs["shape"], add)
    terms: dict[int, Size] = {}
    for r, start, size, stride in zip(label, attrs["starts"], attrs["shape"], strides, strict=True):
        offset = offset - start * stride
        if r >= 0:
            terms[r] = terms.get(r, 0) + (stride if extents[r] == size else stride * dims.dim_min(1, size - 1))
    if value < 0:
        index = Index(offset, tuple([(r, s) for r, s in sorted(terms.items()) if s != 0]))
        value = add(Instr("load", dtype, (condition,) if condition >= 0 else (), operand, index))
        if zero:
            return value
    return value if condition < 0 else add(Instr("apply", dtype, (condition, value, fill), word="where"))


def inside_instr(node: Node, label: Label, extents: Sequence[Size], add: Callable[[Instr], int]) -> int:
    """Where a window stands, as a bool: the op ``inside``."""
    condition = _condition(label, extents, node.attrs["starts"], node.attrs["sizes"], node.attrs["shape"], add)
    return condition if condition >= 0 else add(Instr("literal", BOOL, data=True))


def counter_instr(r: int, size: Size, extents: Sequence[Size], add: Callable[[Instr], int]) -> int:
    """The position along an axis of that size along which range ``r`` runs: always 0 where the axis has size 1 and the range more."""
    if r < 0:
        return add(Instr("literal", INT, data=0))
    i = add(Instr("range", INT, over=(r,)))
    return i if extents[r] == size else add(Instr("apply", INT, (i, _size(dims.dim_min(1, size - 1), add)), word="mul"))


def _condition(label: Label, extents: Sequence[Size], starts: Sequence[Size], sizes: Sequence[Size], shape: Sequence[Size],
               add: Callable[[Instr], int]) -> int:
    """The instruction that says where a window stands; -1 where that is everywhere."""
    condition = -1
    for r, n, start, size in zip(label, sizes, starts, shape, strict=True):
        if start == 0 and n == size:
            continue
        i = counter_instr(r, size, extents, add)
        for word, bound, distance in (("greater_equal", start, start * -1), ("less", start + n, start + n - size)):
            if not _sure(distance, size):
                test = add(Instr("apply", BOOL, (i, _size(bound, add)), word=word))
                condition = test if condition < 0 else add(Instr("apply", BOOL, (condition, test), word="logical_and"))
    return condition


def _sure(difference: Size, size: Size) -> bool:
    """Is it never negative, wherever there is something to compute: where ``size`` is 1 and more?"""
    symbol = size.symbol if isinstance(size, Dim) else None
    if symbol is not None and isinstance(size, Dim) and symbol.min == 0:
        difference = dims.substitute(difference, {symbol: size + 1})
    return dims.bounds(difference)[0] >= 0


def _size(size: Size, add: Callable[[Instr], int]) -> int:
    small = isinstance(size, int) and abs(size) <= 2
    return add(Instr("literal", INT, data=size) if small else Instr("size", INT, data=size))
