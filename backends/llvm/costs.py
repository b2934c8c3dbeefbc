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

__all__ = ["CHUNK_NS", "LET_GO_PS", "MULADDS", "SERIAL_NS", "Cut", "cut", "cut_at", "kernel_cost", "thinness", "work"]

#: estimated nanoseconds of work in one chunk, and below which a launch stays on one thread
CHUNK_NS, SERIAL_NS = 8000, 10000
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


def cut(kernel: Kernel, block: int) -> Cut:
    """From sizes alone: the bits of a reduction over the grid depend on it."""
    extent = kernel.ranges[kernel.grid[0]].extent
    points = dims.product(kernel.ranges[r].extent for r in kernel.grid[1:])
    each: Size = 0  # picoseconds at one point of the grid
    for stage in kernel.stages:
        cost = max(1, round(1000 * sum(_cost(kernel.values[i]) for i in stage.body)))
        each = each + dims.product(kernel.ranges[r].extent for r in stage.loops) * cost
    return cut_at(extent, points * each, block)


def cut_at(extent: Size, each: Size, block: int) -> Cut:
    """``extent`` iterations of so many picoseconds."""
    work = dims.dim_max(each, 1)
    rows = dims.dim_max(dims.floordiv(CHUNK_NS * 1000, work) + 1, dims.floordiv(extent + (MOST_CHUNKS - 1), MOST_CHUNKS))
    rows = dims.floordiv(rows + (block - 1), block) * block
    wide = dims.dim_min(dims.dim_max(extent * work - SERIAL_NS * 1000, 0), 1)
    return Cut(rows, dims.floordiv(extent + rows - 1, rows), wide)


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
