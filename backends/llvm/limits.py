"""What this machine can do at most: memory bandwidth and arithmetic, measured once per process in some 0.2 s.

Measured with graphc's own code on the threads that graphc would use: a program of one kernel (``a = b + 3*c`` of arrays
that no cache holds) for the memory, a loop of independent multiply-adds in registers for arithmetic.  The best of a few
short runs counts: a limit is what the machine reaches when nobody disturbs it.

Bytes are counted as ``f.profile`` counts them, each array once.  A cache line that is written is read before, which
is not counted: a kernel that only reads can move up to a third more than the limit says, and arrays
that lie in a cache move much faster.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphc import dims
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.pool import pool
from graphc.backends.llvm.runner import Native
from graphc.backends.llvm.target import Target, host
from graphc.backends.llvm.values import BITS, Body, Module, fma
from graphc.ir import Array, Graph
from graphc.kernel import Launch, Program
from graphc.kernel_parse import parse_kernel

__all__ = ["Limits", "limits"]

#: bytes of the three arrays together, whatever the caches: less says nothing, more takes too long
LEAST, MOST = 48 << 20, 192 << 20
#: independent multiply-adds in flight, and rounds of them in one task
CHAINS, ROUNDS = 12, 20000
ARGUMENTS = ("b", "c")

TRIAD = """\
kernel triad(b: in f64[n], c: in f64[n], a: out f64[n])
  grid i < n vector
    do
      %0 = f64 load b[i]
      %1 = f64 load c[i]
      %2 = f64 literal 3
      %3 = f64 mul %1, %2
      %4 = f64 add %0, %3
      %5 = f64 store a[i], %4
"""


@dataclass(frozen=True)
class Limits:
    """The machine's limits, on one thread and on ``threads``: bytes per second; multiply-adds per second, counted as two operations.

    >>> Limits(2, (10.0, 15.0), {"f32": (4.0, 8.0)}).bandwidth(2)
    15.0
    """

    threads: int
    memory: tuple[float, float]
    arithmetic: dict[str, tuple[float, float]]

    def bandwidth(self, threads: int) -> float:
        """Bytes per second on so many threads."""
        return _between(self.memory, threads, self.threads)

    def flops(self, kind: str, threads: int) -> float:
        """Operations per second in "f32" or "f64"."""
        return _between(self.arithmetic[kind], threads, self.threads)


def _between(measured: tuple[float, float], threads: int, most: int) -> float:
    one, all_ = measured
    return all_ if threads >= most else min(one * max(threads, 1), all_)


@functools.cache
def limits() -> Limits:
    """Those of this machine, for as many threads as the process may use."""
    threads = pool().threads_for(0, None)
    target = host()
    return Limits(threads, _bandwidth(target, threads), {kind: _arithmetic(target, kind, threads) for kind in ("f32", "f64")})


def _best(work: Callable[[], object], times: int) -> float:
    """Seconds of the shortest run."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


# ---- memory -------------------------------------------------------------------------------------


def _bandwidth(target: Target, threads: int) -> tuple[float, float]:
    n = max(LEAST, min(MOST, 3 * _largest_cache())) // 24
    arrays = [np.ones(n) for _ in range(3)]  # written now, so that their pages exist
    run = triad(target, arrays)
    nbytes = 24.0 * n
    return nbytes / _best(lambda: run(1), 8), nbytes / _best(lambda: run(threads), 8)


def triad(target: Target, arrays: Sequence[Array]) -> Callable[[int], object]:
    """``a = b + 3*c`` of (b, c, a), which the caller keeps, as a program of one kernel: a function of the number of threads."""
    kernel = parse_kernel(TRIAD)
    f64, shape = np.dtype(np.float64), (dims.dim("n"),)
    program = Program(Graph([], []), "triad")
    program.arguments = tuple([program.slab(f64, shape, "argument", name) for name in ARGUMENTS])
    out = program.slab(f64, shape, "output", "a")
    program.steps, program.roots = [Launch(kernel, (*program.arguments, out))], (out,)
    native = Native(program, target)
    table, symbols = np.zeros(len(native.slot), np.int64), np.array([arrays[0].size], np.int64)
    native.sizes(symbols.ctypes.data, table.ctypes.data)
    slabs = np.array([a.ctypes.data for a in arrays], np.uintp)
    scratch = np.zeros(int(table[native.slot[native.nbytes]]) + 64, np.uint8)
    run, = native.stretches
    return lambda threads: run(slabs.ctypes.data, table.ctypes.data, scratch.ctypes.data, threads)


def _largest_cache() -> int:
    """Bytes of the last cache level; 0 if the system does not say."""
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = file.read_text().strip()
            sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]])
        except (OSError, ValueError, KeyError, IndexError):
            pass
    return max(sizes)


# ---- arithmetic ---------------------------------------------------------------------------------


def _arithmetic(target: Target, kind: str, threads: int) -> tuple[float, float]:
    task = engine().load({f"peak_{kind}": multiply_adds(target, kind)}, target)[f"peak_{kind}"]
    chunks = 4 * threads
    out = np.zeros(8 * chunks)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(task)
    parallel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(pool().address)
    flops = 2.0 * CHAINS * ROUNDS * (target.bits // BITS[kind])
    one = flops / _best(lambda: run(out.ctypes.data, 0), 30)
    return one, max(one, flops * chunks / _best(lambda: parallel(task, out.ctypes.data, chunks, threads), 100))


def multiply_adds(target: Target, kind: str) -> str:
    """``void peak_KIND(ptr context, i64 chunk)``: as many multiply-adds as the processor can start, nothing else."""
    module = Module(target)
    f = Body(module, f"peak_{kind}", [("ptr", "context"), ("i64", "chunk")])
    lanes = target.bits // BITS[kind]
    # x -> x/2 + 1 comes to 2: no overflow, no subnormal number
    half, one = f.const(0.5, kind, lanes), f.const(1.0, kind, lanes)
    contracted = not target.x86 or target.has("fma")
    with f.loop(f.const(0, "i64"), f.const(ROUNDS, "i64"), f.const(1, "i64")) as loop:
        chains = [loop.carry(f.const(float(n), kind, lanes)) for n in range(CHAINS)]
        for x in chains:
            loop.next(x, fma(x, half, one) if contracted else x * half + one)
    total = chains[0]
    for x in chains[1:]:
        total = total + x
    p = f.op(f"getelementptr [64 x i8], ptr %context, i64 {f.value('%chunk', 'i64').ref}")
    f.line(f"store {total.type} {total.ref}, ptr {p}, align 8")
    f.finish()
    return module.text()
