"""Random kernels as machine code, against the interpreter: every target, width, cut and alignment, with nothing mapped beside the arrays.

``python tests/fuzz_long.py --kernels --minutes 10`` goes on for longer.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_checks import check_kernel
from kernel_running import TARGETS
from kernel_strategies import kernels

KERNELS = settings(max_examples=45, derandomize=True, deadline=None, database=None,
                   suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


@pytest.mark.parametrize("target", TARGETS)
@KERNELS
@given(kernels(), st.data())
def test_kernels_of_one_dtype(target: str, kernel: Any, data: Any) -> None:
    check_kernel(kernel, data.draw, target)


@pytest.mark.parametrize("target", TARGETS)
@KERNELS
@given(kernels(mixed=True), st.data())
def test_kernels_of_many_dtypes(target: str, kernel: Any, data: Any) -> None:
    check_kernel(kernel, data.draw, target)
