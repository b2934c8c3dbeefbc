"""What work costs, roughly: where a launch is cut into chunks, and which are worth several threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from graphc import dims
from graphc.backends.llvm.partials import MOST_CHUNKS
from graphc.dims import Size
from graphc.kernel import Instr, Kernel, Launch, Product, Step, Sweep
from graphc.ops import OPS

__all__ = ["CHUNK_NS", "LET_GO_PS", "MULADDS", "SERIAL_NS", "Cut", "cut", "cut_at", "kernel_cost", "serial_ns", "thinness", "work"]

#: estimated nanoseconds of work in one chunk at most, where there are so many chunks for each launch; and in one at least, as a part of that
CHUNK_NS, PARTS, LEAST_PART = 8000, 4, 8
#: below which a launch stays on one thread; it must be twice as much in a brief program, whose threads may sleep when it is called
SERIAL_NS, BRIEF_NS = 5000, 20000
#: multiplications with additions in a nanosecond, roughly
MULADDS = 40
#: what a launch or a product costs beside its elements, and one multiplication and addition of a product
LAUNCH_PS, PRODUCT_PS = 20_000, 1000 // MULADDS
#: from how much estimated work on other Python threads may run meanwhile; a step that is no kernel is taken for as much
LET_GO_PS = 5_000_000


def kernel_cost(kernel: Kernel) -> float:
    """Estimated nanoseconds for one iteration of the innermost loop, on one core."""
    return 0.02 + sum(_cost(v) for v in kernel.values)


def _cost(v: Instr) -> float:
    """Estimated nanoseconds of one instruction for one element: float64 takes twice as long."""
    return 0.015 * (OPS[v.word].flops if v.op == "apply" else 1.0) * max(1, v.dtype.itemsize // 4)


def thinness(*sizes: Size) -> int:
    """How much longer a multiplication takes in a product with few rows or columns: that is reading the other matrix."""
    return max([8 // n for n in sizes if isinstance(n, int) and 0 < n < 8], default=1)


class Cut(NamedTuple):
    """How a launch is cut: iterations of the first loop in a chunk, chunks, and 1 where it is work for several threads, else 0."""

    rows: Size
    chunks: Size
    wide: Size


def cut(kernel: Kernel, block: int, serial: int) -> Cut:
    """From sizes alone: the bits of a reduction over the grid depend on it."""
    extent = kernel.ranges[kernel.grid[0]].extent
    points = dims.product(kernel.ranges[r].extent for r in kernel.grid[1:])
    each: Size = 0  # picoseconds at one point of the grid
    for stage in kernel.stages:
        cost = max(1, round(1000 * sum(_cost(kernel.values[i]) for i in stage.body)))
        each = each + dims.product(kernel.ranges[r].extent for r in stage.loops) * cost
    return cut_at(extent, points * each, block, serial)


def cut_at(extent: Size, each: Size, block: int, serial: int) -> Cut:
    """``extent`` iterations of so many picoseconds; ``serial``: nanoseconds up to which one thread does all.  Rows do not depend on it."""
    work = dims.dim_max(each, 1)
    usual, least = (dims.floordiv(ns * 1000, work) + 1 for ns in (CHUNK_NS, CHUNK_NS // LEAST_PART))
    few = dims.dim_max(dims.dim_min(usual, dims.floordiv(extent + (PARTS - 1), PARTS)), least)
    rows = dims.dim_max(few, dims.floordiv(extent + (MOST_CHUNKS - 1), MOST_CHUNKS))
    rows = dims.floordiv(rows + (block - 1), block) * block
    wide = dims.dim_min(dims.dim_max(extent * work - serial * 1000, 0), 1)
    return Cut(rows, dims.floordiv(extent + rows - 1, rows), wide)


def serial_ns(steps: Iterable[Step]) -> int:
    """Up to how many nanoseconds of work a step of a program with these steps stays on one thread."""
    total = work(steps)
    return SERIAL_NS if isinstance(total, int) and total >= BRIEF_NS * 1000 else 2 * SERIAL_NS


def work(steps: Iterable[Step]) -> Size:
    """Estimated picoseconds of steps, one after the other on one core."""
    total: Size = 0
    for step in steps:
        if isinstance(step, Sweep):
            total = total + step.total(work(step.steps))
        elif isinstance(step, Launch):
            kernel = step.kernel
            total = total + LAUNCH_PS
            for grid, stages in ((kernel.grid, kernel.stages), ((), kernel.finish)):
                for stage in stages:
                    points = dims.product(kernel.ranges[r].extent for r in (*grid, *stage.loops))
                    body = replace(kernel, values=tuple([kernel.values[i] for i in stage.body]))
                    total = total + points * max(1, round(1000 * kernel_cost(body)))
        elif isinstance(step, Product):
            lead, m, k, n = step.sizes
            total = total + lead * m * n * k * thinness(m, n) * PRODUCT_PS + LAUNCH_PS
        else:
            total = total + LET_GO_PS
    return total
