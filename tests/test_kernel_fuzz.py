"""Random kernels as machine code, against the interpreter: every target, width, cut and alignment, with nothing mapped beside the arrays.

``python tests/fuzz_long.py --kernels --minutes 10`` goes on for longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_checks import check_kernel, compare
from kernel_running import SIZES, TARGETS, Compiled, Setting, guarded
from kernel_strategies import kernels, movers, rows

from graphc.kernel_text import parse_kernel

KERNELS = settings(max_examples=40, derandomize=True, deadline=None, database=None, report_multiple_bugs=False,
                   suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
KINDS = {"one dtype": kernels(), "many dtypes": kernels(mixed=True), "movement": movers(), "rows": rows()}



@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_random_kernels(target: str, kind: str) -> None:
    @KERNELS
    @given(KINDS[kind], st.data())
    def run(kernel: Any, data: Any) -> None:
        check_kernel(kernel, data.draw, target)

    guarded(run)


COPY = """\
kernel copy(x: in {have}[{n}], y: out {want}[{n}])
  grid
    for i < {n} vector
      %0 = {have} load x[i]
      %1 = {want} cast %0
      %2 = {want} store y[i], %1
"""


@pytest.mark.parametrize("target", TARGETS)
def test_tails_of_known_length(target: str) -> None:
    """Masks that are constants, of numbers that are cut to fewer bytes: LLVM 22 has written more bytes than there are."""
    sizes = {s.symbol: 1 for s in SIZES}

    def run() -> None:
        for have, want in (("i64", "i32"), ("i64", "i8"), ("f32", "bf16"), ("f32", "f16"), ("i32", "bool"), ("f64", "f32")):
            setting = Setting(target, unroll=1)
            lanes = setting.machine().bits // (64 if "64" in have else 32)
            for n in (1, 2, lanes - 1, lanes + 1, lanes + 2, 5 * lanes + 1):
                kernel = parse_kernel(COPY.format(have=have, want=want, n=n))
                for at_end in (True, False):
                    compare(kernel, Compiled(kernel, Setting(target, unroll=1, at_end=at_end)), sizes, np.random.default_rng(n), 0.0)

    guarded(run)
