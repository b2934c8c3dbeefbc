"""What the kernels' fuzzer asserts: machine code gives what the interpreter gives, and touches nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from kernel_running import SIZES, Compiled, Setting
from kernel_strategies import F64, renamed, retyped

from graphc import dims
from graphc.backends.interpreter import run_kernel
from graphc.ir import Array
from graphc.kernel import Kernel
from graphc.kernel_text import print_kernel
from graphc.verify_kernel import verify_kernel

__all__ = ["check_kernel"]

#: points of a kernel at most
MOST_POINTS = 60_000


def check_kernel(kernel: Kernel, draw: Callable[[Any], Any], target: str) -> None:
    """Compile a kernel in a way that is drawn, and run it with sizes that are drawn."""
    setting = Setting(target, draw(st.sampled_from((0, 0, 1))), draw(st.sampled_from((None, 1, 2, 4))), draw(st.booleans()),
                      draw(st.sampled_from((1, 1, 2))), draw(st.booleans()))
    dtype = draw(st.sampled_from((np.dtype(np.float32), F64)))
    kernel = retyped(kernel, dtype)
    lanes = setting.machine().bits // (8 * dtype.itemsize)
    edges = [0, 1, 2, 3, lanes - 1, lanes, lanes + 1, 2 * lanes, 2 * lanes * (setting.unroll or 2) + 3]
    env = {size.symbol: max(draw(st.sampled_from(edges)), size.symbol.min) for size in SIZES if size.symbol is not None}
    while math.prod(dims.evaluate(r.extent, env) for r in kernel.ranges) > MOST_POINTS:
        largest = max(env, key=lambda s: env[s])
        env[largest] = max(env[largest] // 2, 1)
    if draw(st.booleans()):  # sizes that are known when compiling
        known = {s: env[s] for s in env if draw(st.booleans())}
        kernel = renamed(kernel, known, "")
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    try:
        compare(kernel, Compiled(kernel, setting), env, rng)
    except BaseException as error:
        error.add_note(f"{setting}\n{ {s.name: n for s, n in env.items()} }\n{print_kernel(kernel)}")
        raise


def compare(kernel: Kernel, compiled: Compiled, env: Any, rng: np.random.Generator) -> None:
    """One call."""
    verify_kernel(kernel)
    want = arrays(kernel, env, rng)
    have = compiled.run(want, env)
    run_kernel(kernel, want, env)
    for o, a, b in zip(kernel.operands, have, want, strict=True):
        if a is not None and b is not None:
            np.testing.assert_array_equal(a.astype(F64), b.astype(F64), err_msg=f"operand {o.name} ({o.mode})")


def arrays(kernel: Kernel, env: Any, rng: np.random.Generator) -> list[Array | None]:
    """Small whole numbers, of which sums in any order are the same."""
    found: list[Array | None] = []
    for o in kernel.operands:
        n = dims.evaluate(o.size, env)
        if o.mode == "temp":
            found.append(None)
        elif o.mode == "in":
            found.append(rng.integers(0 if o.dtype.kind in "bu" else -3, 4, n).astype(o.dtype))
        else:
            found.append(np.full(n * o.dtype.itemsize, 0x5A, np.uint8).view(o.dtype))
    return found
