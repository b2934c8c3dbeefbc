"""sqrt is NumPy's in every bit, whichever of the two ways of vectormath/roots.py a lane takes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir import Array

pytest.importorskip("llvmlite")


def roots(values: Array) -> Array:
    x = gc.tensor("x", shape=(None,), dtype=values.dtype.name)
    return gc.function([x], gc.sqrt(x), mode=gc.Mode(backend="llvm"))(values)


def check(values: Array) -> None:
    with np.errstate(invalid="ignore"):
        want = np.sqrt(values)
    for shift in (0, 16):  # so that each value takes each way
        have = roots(np.roll(values, shift))
        np.testing.assert_array_equal(np.roll(have, -shift), want)
        assert (np.signbit(np.roll(have, -shift)) == np.signbit(want))[values == 0].all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_exponents_and_what_is_no_number(dtype: str) -> None:
    """Both ends of each binade, random places in it; zeros, subnormals, infinities, NaN, negative numbers."""
    kind, mantissa, exponents = (np.uint32, 23, 256) if dtype == "float32" else (np.uint64, 52, 2048)
    rng = np.random.default_rng(0)
    starts = np.repeat(np.arange(2 * exponents, dtype=kind) << kind(mantissa), 64)
    low = rng.integers(0, 1 << mantissa, starts.size, dtype=kind)
    low[::64], low[1::64], low[2::64] = 0, 1, (1 << mantissa) - 1
    check((starts | low).view(dtype))


def test_float32_of_two_binades() -> None:
    """Every mantissa of an even and of an odd exponent: the others are these, scaled."""
    for low in range(0x3F800000, 0x40800000, 1 << 22):
        check(np.arange(low, low + (1 << 22), dtype=np.uint32).view(np.float32))


def test_float64_beside_points_between_two_numbers() -> None:
    """Squares of numbers half-way between two neighbours, rounded, and their neighbours: the hardest to round."""
    rng = np.random.default_rng(1)
    halves = [2 * int(m) + 1 for m in rng.integers(1 << 52, 1 << 53, 20_000)]
    squares = np.array([float(h * h) / 4 for h in halves])
    check(np.concatenate([squares, np.nextafter(squares, 0), np.nextafter(squares, np.inf), np.ldexp(squares, 1)]))
