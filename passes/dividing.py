"""``dividing``: a kernel that reduces over many rows, as one that does so for each row and one that joins what the rows have given.

A bias' gradient is a sum over images and positions, in the kernel that makes the gradient of each element.  As two kernels, of which the first leaves one number for each
image and channel, the first can be done image by image (passes/sweeps.py).  The sum has another order then, which depends on sizes only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_half
from graphc.kernel import DType, Index, Instr, Kernel, Launch, Operand, Range, Stage, contiguous, value_ranges

__all__ = ["Divided", "divided"]


class Divided(NamedTuple):
    """``each``: the kernel for the rows; ``joined``: for what they have given, which lies in new slabs, numbered -2, -3, ... here."""

    each: Launch
    joined: Launch
    given: tuple[tuple[DType, tuple[Size, ...]], ...]  # of the new slabs


def divided(step: Launch, rows: Size) -> Divided | None:
    """None if the kernel does not reduce over that many rows, along with something else."""
    kernel = step.kernel
    if not kernel.finish or len(kernel.stages) != 1 or any(o.alias >= 0 or o.mode == "temp" for o in kernel.operands):
        return None
    inside, after = kernel.stages[0].body, [i for stage in kernel.finish for i in stage.body]
    sums = [i for i in inside if kernel.values[i].op == "reduce"]
    depends, nest = value_ranges(kernel), (*kernel.grid, *kernel.stages[0].loops)
    kept = [r for r in nest if r in depends[sums[0]]]
    if any(depends[i] != set(kept) or is_half(kernel.values[i].dtype) or kernel.values[i].word.startswith("arg") for i in sums):
        return None
    if any(set(stage.loops) != set(kept) for stage in kernel.finish) or any(kernel.values[i].op == "reduce" for i in after):
        return None
    for row in kernel.grid:
        others = tuple([r for r in nest if r != row and r not in kept])
        if row != kernel.vector and kernel.ranges[row].extent == rows and others and all({row, *others} == set(kernel.values[i].over) for i in sums):
            return Divided(_each(step, row, kept, others, sums), _joined(step, row, kept, sums, after),
                           tuple([(kernel.values[i].dtype, tuple([kernel.ranges[r].extent for r in (row, *kept)])) for i in sums]))
    return None


def _index(kernel: Kernel, ranges: Sequence[int], numbers: dict[int, int]) -> Index:
    """A dense array along these ranges."""
    strides = contiguous([kernel.ranges[r].extent for r in ranges])
    return Index(0, tuple(sorted((numbers[r], stride) for r, stride in zip(ranges, strides, strict=True))))


def _each(step: Launch, row: int, kept: Sequence[int], others: tuple[int, ...], sums: Sequence[int]) -> Launch:
    kernel = step.kernel
    body = kernel.stages[0].body
    numbers = {i: n for n, i in enumerate(sorted(body))}
    used = _used(kernel, body)
    operands, slabs = [kernel.operands[k] for k in used], [step.slabs[k] for k in used]
    values = []
    for i in sorted(body):
        v = _renumbered(kernel.values[i], numbers, used)
        values.append(v._replace(over=tuple([r for r in v.over if r != row])) if i in sums else v)
    stores = []
    for n, i in enumerate(sums):
        stores.append(len(values))
        values.append(Instr("store", kernel.values[i].dtype, (numbers[i],), len(operands), _index(kernel, (row, *kept), {r: r for r in (row, *kept)})))
        operands.append(Operand(f"s{n}", kernel.values[i].dtype, "out", dims.product(kernel.ranges[r].extent for r in (row, *kept))))
        slabs.append(-2 - n)
    stages = (Stage(others, tuple([numbers[i] for i in body])), Stage((), tuple(stores)))
    return Launch(Kernel(kernel.name, kernel.ranges, (row, *kept), tuple(operands), tuple(values), stages, (), kernel.vector), tuple(slabs), step.origin)


def _joined(step: Launch, row: int, kept: Sequence[int], sums: Sequence[int], after: Sequence[int]) -> Launch:
    kernel = step.kernel
    used = _used(kernel, after)
    operands, slabs = [kernel.operands[k] for k in used], [step.slabs[k] for k in used]
    ranges = [*(kernel.ranges[r] for r in kept), Range(kernel.ranges[row].name, kernel.ranges[row].extent)]
    places = {r: n for n, r in enumerate((*kept, row))}
    values: list[Instr] = []
    numbers: dict[int, int] = {}
    for n, i in enumerate(sums):
        dtype = kernel.values[i].dtype
        values.append(Instr("load", dtype, (), len(operands), _index(kernel, (row, *kept), places)))
        numbers[i] = len(values)
        values.append(Instr("reduce", dtype, (len(values) - 1,), over=(places[row],), word=kernel.values[i].word))
        operands.append(Operand(f"s{n}", dtype, "in", dims.product(kernel.ranges[r].extent for r in (row, *kept))))
        slabs.append(-2 - n)
    first = len(values)
    for i in sorted(set(after)):
        numbers[i] = len(values)
        v = _renumbered(kernel.values[i], numbers, used)
        if v.index is not None:
            v = v._replace(index=v.index._replace(terms=tuple(sorted((places[r], stride) for r, stride in v.index.terms))))
        values.append(v._replace(over=tuple([places[r] for r in v.over])))
    stages = (Stage((places[row],), tuple(range(first))), Stage((), tuple([numbers[i] for i in dict.fromkeys(after)])))
    vector = len(kept) - 1 if kept else places[row]
    return Launch(Kernel(f"{kernel.name}_joined", tuple(ranges), tuple(range(len(kept))), tuple(operands), tuple(values), stages, (), vector), tuple(slabs), step.origin)


def _used(kernel: Kernel, body: Iterable[int]) -> list[int]:
    """The operands that these instructions name."""
    return sorted({kernel.values[i].operand for i in body if kernel.values[i].index is not None})


def _renumbered(v: Instr, numbers: dict[int, int], used: Sequence[int]) -> Instr:
    args = tuple([numbers[a] for a in v.args])
    if v.index is None:
        return v._replace(args=args)
    return v._replace(args=args, operand=used.index(v.operand), index=v.index._replace(gathers=tuple([(numbers[a], stride) for a, stride in v.index.gathers])))
