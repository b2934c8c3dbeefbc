"""What the kernels' fuzzer asserts: machine code gives what the interpreter gives, and touches nothing else."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from kernel_running import SIZES, Compiled, Setting
from kernel_strategies import F64, retyped, specialised

from graphc import dims
from graphc.backends.interpreter import run_kernel
from graphc.dtypes import is_float
from graphc.errors import VerificationError
from graphc.ir import Array
from graphc.kernel import Kernel
from graphc.kernel_text import print_kernel
from graphc.passes.arena import _overwrites as overwrites
from graphc.verify_kernel import verify_kernel

__all__ = ["check_kernel"]

#: what kernels compute in
COMPUTED = (np.dtype(np.float32), F64, np.dtype(np.float32), np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
#: points of a kernel at most
MOST_POINTS = 60_000


def check_kernel(kernel: Kernel, draw: Callable[[Any], Any], target: str) -> None:
    """Compile a kernel in a way that is drawn, and run it with sizes that are drawn."""
    setting = Setting(target, draw(st.sampled_from((0, 0, 1))), draw(st.sampled_from((None, 1, 2, 4))), draw(st.booleans()),
                      draw(st.sampled_from((1, 1, 2))), draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
    dtype = draw(st.sampled_from(COMPUTED))
    kernel = retyped(kernel, dtype)
    lanes = setting.machine().bits // (8 * max(dtype.itemsize, 4))
    edges = [0, 1, 2, 3, lanes - 1, lanes, lanes + 1, 2 * lanes, 2 * lanes * (setting.unroll or 2) + 3, 17 * lanes + 5]
    env = {size.symbol: max(draw(st.sampled_from(edges)), size.symbol.min) for size in SIZES if size.symbol is not None}
    while math.prod(dims.evaluate(r.extent, env) for r in kernel.ranges) > MOST_POINTS:
        largest = max(env, key=lambda s: env[s])
        env[largest] = max(env[largest] // 2, 1)
    if draw(st.booleans()):  # sizes that are known when compiling
        special = specialised(kernel, {s: env[s] for s in env if draw(st.booleans())})
        with contextlib.suppress(VerificationError):
            verify_kernel(special)
            kernel = special
    kernel = in_place(kernel)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    special = draw(st.sampled_from((0.0, 0.0, 0.1)))
    try:
        compare(kernel, Compiled(kernel, setting), env, rng, special)
    except BaseException as error:
        error.add_note(f"{setting}\n{ {s.name: n for s, n in env.items()} }\n{print_kernel(kernel)}")
        raise


def in_place(kernel: Kernel) -> Kernel:
    """The kernel with results in the memory of operands, as passes/arena.py would have it; the verifier must agree."""
    taken: set[int] = set()
    for k, out in enumerate(kernel.operands):
        for j, operand in enumerate(kernel.operands):
            if out.mode == "out" and operand.mode == "in" and j not in taken and (out.dtype, out.size) == (operand.dtype, operand.size) and overwrites(kernel, k, j):
                operands = list(kernel.operands)
                operands[k] = out._replace(alias=j)
                kernel = replace(kernel, operands=tuple(operands))
                taken.add(j)
                break
    return kernel


def compare(kernel: Kernel, compiled: Compiled, env: Any, rng: np.random.Generator, special: float) -> None:
    """One call."""
    verify_kernel(kernel)
    want = arrays(kernel, env, rng, special)
    have = compiled.run(want, env)
    run_kernel(kernel, want, env)
    for o, a, b in zip(kernel.operands, have, want, strict=True):
        if a is not None and b is not None:
            np.testing.assert_array_equal(a.astype(F64), b.astype(F64), err_msg=f"operand {o.name} ({o.mode})")


def arrays(kernel: Kernel, env: Any, rng: np.random.Generator, special: float) -> list[Array | None]:
    """Small whole numbers, of which sums in any order are the same; some of them nan or infinite."""
    found: list[Array | None] = []
    for o in kernel.operands:
        n = dims.evaluate(o.size, env)
        if o.mode == "temp":
            found.append(None)
        elif o.alias >= 0:
            found.append(found[o.alias])
        elif o.mode == "in":
            a = rng.integers(0 if o.dtype.kind in "bu" else -3, 4, n).astype(o.dtype)
            if is_float(o.dtype) and o.name != "table":
                a[rng.random(n) < special] = rng.choice((np.nan, np.inf, -np.inf))
            found.append(a)
        else:
            found.append(np.full(n * o.dtype.itemsize, 0x5A, np.uint8).view(o.dtype))
    return found
