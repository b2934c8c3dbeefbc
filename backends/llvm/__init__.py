"""The LLVM backend: one native function for the whole graph.

    program    (passes/lower.py, passes/arena.py)   what is to be done
    kernels    a loop nest as LLVM IR; elements, access, reducing, vectormath: its parts
    products   matrix products
    driver     the function that runs the kernels in order
    engine     text -> machine code, kept in memory and on disk
    pool       threads
    runner     a call; profiled, clock: one that keeps times
    limits     what the machine can do at most, measured
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from graphc.backends import Options, Runner
from graphc.backends.llvm.amx import on_tiles, with_tiles
from graphc.backends.llvm.blocked import Shape
from graphc.backends.llvm.clock import clock_id
from graphc.backends.llvm.multiplying import kind_of
from graphc.backends.llvm.profiled import ProfiledRunner
from graphc.backends.llvm.runner import LlvmRunner
from graphc.backends.llvm.target import host
from graphc.ir import Graph
from graphc.kernel import Program

MISSING: dict[str, str] = {}
TAKES = "program"


def panels(dtype: np.dtype[Any], options: Options) -> tuple[int, int] | None:
    """How products of this dtype read their right operand from panels: k of a block at most, and columns; None if they do not."""
    target = with_tiles(host(), options)
    if dtype.name not in ("float32", "float64") or on_tiles(kind_of(dtype), target):
        return None
    shape = Shape(kind_of(dtype), target)
    return shape.deep, shape.columns


def compile(graph: Graph, program: Program, options: Options) -> Runner:
    """A runner of native code."""
    if options.profile:
        if clock_id() is not None:
            return ProfiledRunner(program, options)
        options = replace(options, profile=False)
    return LlvmRunner(program, options)


__all__ = ["MISSING", "TAKES", "compile", "panels"]
