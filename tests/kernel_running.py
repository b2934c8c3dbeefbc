"""Kernels run as machine code, in memory whose neighbours are unmapped: an access beyond an array ends the process.

    setting = Setting("sse2", lanes=2, unroll=4, ...)
    compiled = Compiled(kernel, setting)                the driver of a program of one launch
    results = compiled.run(arrays, env)                 in a child; CrashError if it died
    guarded(test)                                       many runs in one child; only if it dies, each in a child of its own

The unused rest of a page is filled and looked at afterwards.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
from children import FILL, CrashError, Pages, expendable, in_child

import graphc as gc
from graphc import dims
from graphc.backends.llvm import access, costs, kernels, staging, tiles
from graphc.backends.llvm.runner import Native
from graphc.backends.llvm.target import Target, host
from graphc.dims import Symbol
from graphc.ir import Array, Graph
from graphc.kernel import Kernel, Launch, Program

__all__ = ["SIZES", "TARGETS", "Compiled", "CrashError", "Setting", "guarded"]

#: the sizes of the kernels in kernel_strategies.py
SIZES = (dims.dim("n"), dims.dim("m", 1), dims.dim("i"))
#: name -> features that are taken away
TARGETS: dict[str, tuple[str, ...]] = {"host": (), "no avx512f": ("avx512f",), "no avx2": ("avx2",)}


@dataclass(frozen=True)
class Setting:
    """How a kernel is compiled and run.

    Args:
        target: a key of ``TARGETS``.
        narrower: how often the vectors are halved.
        unroll: None: as the emitter chooses.
        chunks: cut into as many chunks as there may be?
        threads: of the call.
        at_end: do arrays end at an unmapped page, or begin after one?
        large: are they treated as if they were too large for any cache?
        short: do all rows that fit into a buffer count as short?
    """

    target: str = "host"
    narrower: int = 0
    unroll: int | None = None
    chunks: bool = False
    threads: int = 1
    at_end: bool = True
    large: bool = False
    short: bool = False

    def machine(self) -> Target:
        target = _target(self.target)
        return replace(target, bits=max(target.bits >> self.narrower, 128))


@functools.cache
def _target(name: str) -> Target:
    return host().without(*TARGETS[name]) if TARGETS[name] else host()


class Compiled:
    """A kernel's machine code."""

    def __init__(self, kernel: Kernel, setting: Setting) -> None:
        self.kernel, self.setting = kernel, setting
        program = Program(Graph([], []), "test")
        slabs = []
        for o in kernel.operands:
            if o.mode == "temp":
                slabs.append(-1)
            else:
                slabs.append(program.slab(o.dtype, (o.size,), "argument" if o.mode == "in" else "output", o.name))
        program.arguments = (program.slab(np.dtype(np.int8), SIZES, "argument", "sizes"),)  # it says what the sizes are
        program.steps = [Launch(kernel, tuple(slabs))]
        self.slabs, self.count = slabs, len(program.slabs)
        with contextlib.ExitStack() as stack:
            stack.enter_context(gc.config(cache_size=0, verify=True))
            if setting.unroll is not None:
                stack.enter_context(mock.patch.object(kernels.Emitter, "_unroll", lambda e: setting.unroll))
            if setting.chunks:
                stack.enter_context(mock.patch.object(costs, "CHUNK_NS", 0))
                stack.enter_context(mock.patch.object(costs, "SERIAL_NS", 0))
            if setting.large:
                stack.enter_context(mock.patch.object(access, "PAST_CACHE", 0))
                for name, value in (("LARGE", 0), ("PAST_CACHE", 0), ("PANEL", 32)):
                    stack.enter_context(mock.patch.object(tiles, name, value))
            if setting.short:
                stack.enter_context(mock.patch.object(staging, "_longest", lambda *_: staging.LONGEST))
            self.native = Native(program, setting.machine())

    def run(self, arrays: Sequence[Array | None], env: Mapping[Symbol, int]) -> list[Array | None]:
        """The operands' elements afterwards; ``arrays`` says what is in them before."""
        native = self.native
        values = [env[s] for s in native.symbols]
        table = np.zeros(max(len(native.slot), 1), np.int64)
        native.sizes(np.array([*values, 0], np.int64).ctypes.data, table.ctypes.data)
        nbytes = int(table[native.slot[native.nbytes]])
        with contextlib.ExitStack() as stack:
            slabs = np.zeros(self.count + 1, np.uintp)
            held: list[Pages | None] = []
            for k, o, a in zip(self.slabs, self.kernel.operands, arrays, strict=True):
                if a is None:
                    held.append(None)
                elif o.alias >= 0:
                    held.append(held[o.alias])
                    slabs[k] = slabs[self.slabs[o.alias]]
                else:
                    pages = stack.enter_context(Pages.of(a.nbytes, self.setting.at_end))
                    pages.bytes[:] = a.reshape(-1).view(np.uint8)
                    slabs[k] = pages.address
                    held.append(pages)
            scratch = stack.enter_context(Pages.of(-(-nbytes // 64) * 64, self.setting.at_end))
            scratch.bytes[:] = 0xFF
            _run(lambda: native.stretches[0](slabs.ctypes.data, table.ctypes.data, scratch.address, self.setting.threads))
            for pages in (*held, scratch):
                if pages is not None and not (pages.rest == FILL).all():
                    raise CrashError("memory beside an array was written")
            return [None if p is None or a is None else p.bytes.copy().view(a.dtype) for p, a in zip(held, arrays, strict=True)]


def _run(work: Callable[[], object]) -> None:
    if expendable():
        work()
    elif problem := in_child(work, 20):
        raise CrashError(problem)


def guarded(test: Callable[[], None]) -> None:
    """Run a test of many calls: first in one child, which is fast; if that fails, here with a child for each call, which says more."""
    problem = in_child(test, 600, quiet=True)
    if problem:
        test()
        raise CrashError(f"{problem}; it does not happen again")
