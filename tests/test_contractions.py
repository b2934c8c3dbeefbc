"""Convolutions as contractions of views: forms of the program, values on every processor, edges of memory, threads."""

from __future__ import annotations

import itertools
import re
from typing import Any
from unittest import mock

import numpy as np
import pytest
from test_products import DTYPES

import graphc as gc
from graphc.backends.llvm import blocked, costs
from graphc.ops.convolution import conv, conv_input, conv_weight

REFERENCE = gc.Mode(backend="reference")
PROGRAM = gc.Mode(backend="interpreter")
SMALL = {"PANEL_BYTES": 4096, "BLOCK_BYTES": 16 << 10, "SLICE_BYTES": 32 << 10}  # several blocks of each kind
rng = np.random.default_rng(0)

#: batch, channels, out, groups, space, window, strides, padding, dilations
CASES: list[tuple[int, int, int, int, tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]] = [
    (2, 3, 5, 1, (9, 11), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (2, 3, 5, 1, (9, 11), (3, 2), (1, 1), ((1, 1), (2, 0)), (1, 1)),
    (1, 4, 6, 2, (10, 9), (3, 3), (2, 3), ((1, 1), (0, 1)), (1, 2)),
    (3, 8, 7, 1, (6, 6), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (3, 8, 7, 1, (7, 6), (1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    (2, 6, 6, 6, (8, 9), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)),
    (2, 6, 6, 6, (8, 9), (3, 2), (2, 1), ((1, 0), (1, 1)), (1, 2)),
    (2, 3, 4, 1, (40,), (5,), (1,), ((4, 0),), (1,)),
    (2, 3, 4, 1, (40,), (5,), (3,), ((2, 2),), (2,)),
    (2, 2, 3, 1, (5, 6, 7), (2, 3, 2), (1, 2, 1), ((1, 0), (1, 1), (0, 1)), (1, 1, 2)),
    (1, 20, 33, 1, (12, 21), (5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1)),
    (0, 3, 5, 1, (9, 11), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (2, 3, 5, 1, (2, 11), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    (2, 3, 5, 1, (3, 3), (3, 3), (5, 5), ((0, 0), (0, 0)), (1, 1)),
]


def functions(case: Any, dtype: str, known: str, mode: Any) -> tuple[Any, Any, Any]:
    """The convolution and its two gradients; ``known``: "all" sizes, all but the number of "images", "nothing"."""
    n, c, o, groups, space, window, strides, padding, dilations = case
    images = n if known == "all" else None
    inner = (c, *space) if known != "nothing" else (None,) * (1 + len(space))
    x = gc.tensor("x", dtype=dtype, shape=(images, *inner))
    w = gc.tensor("w", dtype=dtype, shape=(*((o, c // groups) if known != "nothing" else (None, None)), *window))
    geometry: Any = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
    y = conv(x, w, geometry)
    g = gc.tensor("g", dtype=dtype, shape=(images, *(y.type.shape[1:] if known != "nothing" else (None,) * (y.type.ndim - 1))))
    return (gc.function([x, w], y, mode=mode), gc.function([w, g], conv_input(w, g, space, geometry), mode=mode),
            gc.function([x, g], conv_weight(x, g, window, geometry), mode=mode))


def arrays(case: Any, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    n, c, o, groups, space, window = case[:6]
    return tuple(rng.integers(-4, 5, shape).astype(DTYPES.get(dtype, dtype)) for shape in ((n, c, *space), (o, c // groups, *window)))  # type: ignore[return-value]


def compare(case: Any, dtype: str, known: str, mode: Any, threads: int = 1) -> None:
    x, w = arrays(case, dtype)
    with gc.config(threads=threads):
        fs, oracle = functions(case, dtype, known, mode), functions(case, dtype, known, REFERENCE)
        y = oracle[0](x, w)
        np.testing.assert_array_equal(fs[0](x, w), y)
        g = rng.integers(-3, 4, y.shape).astype(y.dtype)
        np.testing.assert_array_equal(fs[1](w, g), oracle[1](w, g))
        np.testing.assert_array_equal(fs[2](x, g), oracle[2](x, g))


@pytest.mark.parametrize("known", ["all", "images", "nothing"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Any, known: str) -> None:
    compare(case, "float32", known, None)
    compare(case, "float64", known, PROGRAM)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int8"])
def test_kinds(dtype: str) -> None:
    for case in CASES[1:4]:
        compare(case, dtype, "all", None)


def test_blocks_and_threads_change_no_bit() -> None:
    case = CASES[10]
    x, w = (rng.normal(size=a.shape).astype("float32") for a in arrays(case, "float32"))
    found: list[Any] = []
    for small, threads in itertools.product((False, True), (1, 2, 3)):
        with mock.patch.multiple(blocked, **(SMALL if small else {"AHEAD": blocked.AHEAD})), mock.patch.object(costs, "SERIAL_NS", 0), gc.config(threads=threads, cache_size=0):
            fs = functions(case, "float32", "all", None)
            y = fs[0](x, w)
            found.append((y, fs[1](w, y), fs[2](x, y)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_becomes_of_them() -> None:
    """A 1x1 convolution is an ordinary product, a depthwise one a loop, others contractions; none is a call-out."""
    for case, want in ((CASES[10], " axes"), (CASES[3], "product"), (CASES[5], "kernel")):
        for f in functions(case, "float32", "all", None):
            text = f.dump("kernels")
            assert want in text and "call" not in text, text


@pytest.mark.parametrize("known", ["all", "images"])
def test_gradients_of_kernels_go_image_by_image(known: str) -> None:
    """The product has an axis over the images, in front of what it sums over, and the sum over images is a kernel."""
    case = (6, 3, 5, 1, (20, 11), (3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    text = functions(case, "float32", known, None)[2].dump("kernels")
    images = "6" if known == "all" else r"[?\w]+"
    assert re.search(rf"einsum\[{images}, 1, 5, 3, 3, 3\] = product g\[{images}, 1, 5, 18, 9\] @ x\[{images}, 1, 18, 9, 3, 3, 3; .* over 1, 2, 3 axes", text), text
    assert re.search(r"for m < ([?]0|6)", text), text


def test_one_function_for_any_number_of_images() -> None:
    case = (0, 3, 5, 1, (20, 11), (3, 3), (2, 1), ((1, 0), (0, 1)), (1, 2))
    f, oracle = (functions(case, "float32", "images", mode)[2] for mode in (None, REFERENCE))
    for n in (0, 1, 2, 7):
        x, g = (rng.integers(-4, 5, (n, *shape)).astype("float32") for shape in ((3, 20, 11), (5, 10, 8)))
        np.testing.assert_array_equal(f(x, g), oracle(x, g))
