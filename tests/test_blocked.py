"""Products in blocks and how products are shared out: the same bits as in one piece."""

from __future__ import annotations

import functools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from test_products import DTYPES, HOST, KINDS, TARGETS, expected, guarded, laid, loaded, numbers, strides

import graphc as gc
from graphc.backends.llvm import blocked, costs, multiplying
from graphc.backends.llvm.blocked import Shape, blocked_module
from graphc.backends.llvm.paired import has_pairs, paired_module
from graphc.backends.llvm.target import Target

WORK = {"f16": np.float32, "bf16": np.float32, "pairs": np.float32, "i8": np.int16}
SMALL = {"PANEL_BYTES": 4096, "BLOCK_BYTES": 16 << 10, "SLICE_BYTES": 32 << 10}  # so that small matrices have several blocks of each kind


@functools.cache
def compiled(kind: str, target: Target, wide: bool = False, adds: bool = False) -> tuple[Any, Shape, Any]:
    """(the product, the sizes of its blocks, what must stay alive)."""
    with mock.patch.multiple(blocked, **SMALL):
        make, numbers_ = (paired_module, "bf16") if kind == "pairs" else (blocked_module, kind)
        (name, text), shape = make(numbers_, target, wide, adds), Shape(numbers_, target)
    main, engine = loaded(name, text, target)
    return main, shape, engine


def product(kind: str, target: Target, a: np.ndarray, b: np.ndarray, chunks: Any = None) -> np.ndarray:
    main, shape, _ = compiled(kind, target)
    return framed(main, a, b, np.full(shape.scratch + 1, 77, WORK.get(kind, a.dtype)), chunks)


def framed(main: Any, a: np.ndarray, b: np.ndarray, scratch: np.ndarray, chunks: Any) -> np.ndarray:
    """``a @ b`` by a function with the interface of ``blocked_module``; checks that nothing beside the result and the scratch memory is written."""
    (m, k), n = a.shape, b.shape[1]
    whole = np.full((m + 2) * (n + 3), 77).astype(a.dtype).reshape(m + 2, n + 3)
    c = whole[1:m + 1, 1:n + 1]
    for lo, hi in chunks or [(0, m)]:
        main(c.ctypes.data, a.ctypes.data, b.ctypes.data, m, n, k, *strides(a), *strides(b), strides(c)[0], scratch.ctypes.data, lo, hi)
    assert scratch[-1] == 77, "more scratch memory than was said"
    frame = whole.copy()
    frame[1:m + 1, 1:n + 1] = 77
    assert (frame == np.array(77).astype(a.dtype)).all(), "written outside of the result"
    return c.copy()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("a_unit", ["col", "row", None])
@pytest.mark.parametrize("b_unit", ["col", "row", None])
def test_edges_of_tiles_and_blocks(target: Target, a_unit: str | None, b_unit: str | None) -> None:
    shape = compiled("f32", target)[1]
    around = [(m, n, k) for m in (1, shape.rows, shape.high + 1) for n in (1, shape.columns + 1, 2 * shape.wide + 3) for k in (0, 1, shape.deep, 2 * shape.deep + 17)]
    for m, n, k in [*around, (2 * shape.high - 1, shape.wide, 33), (shape.rows + 1, shape.wide - 1, shape.deep + 1)]:
        a, b = laid(numbers("f32", m, k), a_unit), laid(numbers("f32", k, n), b_unit)
        assert np.array_equal(product("f32", target, a, b), expected(a, b)), (m, n, k)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "bool"])
@pytest.mark.parametrize("target", list(TARGETS.values())[:3], ids=list(TARGETS)[:3])
def test_kinds(kind: str, target: Target) -> None:
    shape = compiled(kind, target)[1]
    for m, n, k in ((shape.high + 5, shape.wide + 7, 2 * shape.deep + 3), (7, 5, 40)):
        for a_unit, b_unit in (("col", "col"), ("row", "row")):
            a, b = laid(numbers(kind, m, k), a_unit), laid(numbers(kind, k, n), b_unit)
            got = product(kind, target, a, b, [(0, m // 2), (m // 2, m)])
            if DTYPES[kind] is np.float16:
                np.testing.assert_array_equal(got, expected(a, b))
            else:
                assert np.array_equal(got, expected(a, b)), (m, n, k)


@pytest.mark.skipif(not has_pairs("bf16", HOST), reason="this processor has no instruction for pairs of bfloat16")
@pytest.mark.parametrize("a_unit", ["col", "row", None])
@pytest.mark.parametrize("b_unit", ["col", "row", None])
def test_pairs_have_the_bits_of_numbers_one_by_one(a_unit: str | None, b_unit: str | None) -> None:
    """Also where the instruction alone would make zeros of subnormal numbers, and with an odd number of sums."""
    shape = compiled("pairs", HOST)[1]
    for m, n, k in [(1, 1, 1), (7, shape.columns + 1, 0), (shape.high + 1, 2 * shape.wide + 3, 4 * shape.deep + 17), (17, 16, 2 * shape.deep), (16, 65, 35)]:
        plain = numbers("bf16", m, k), numbers("bf16", k, n)
        cases = [plain]
        if m and k > 2 * shape.deep:
            begun = [x.copy() for x in plain]  # subnormal sums go on over zeros
            begun[0][:, :8], begun[0][:, 8:], begun[1][:8] = 1e-25, 0, 1e-15
            begun[0][0, -1] = 1
            cases.append((begun[0], begun[1]))
        if m and k > 16:
            small, special = [x.copy() for x in plain], [x.copy() for x in plain]
            small[0][m // 2] *= DTYPES["bf16"](1e-30)
            small[1][:, n // 2] *= DTYPES["bf16"](3e-39)
            special[0][0, 1], special[1][3, 0], special[1][4, n - 1] = np.inf, -np.inf, np.nan
            cases += [(small[0], small[1]), (special[0], special[1])]
        for a, b in cases:
            x, y = laid(a, a_unit), laid(b, b_unit)
            got, want = product("pairs", HOST, x, y, [(0, m // 2), (m // 2, m)]), product("bf16", HOST, x, y)
            nan = np.isnan(want.astype(np.float32))
            assert (np.isnan(got.astype(np.float32)) == nan).all()
            assert (got.view(np.uint16) == want.view(np.uint16))[~nan].all(), (m, n, k)


@pytest.mark.parametrize("kind", ["f16", "bf16", "pairs"])
@pytest.mark.parametrize("target", list(TARGETS.values())[:2], ids=list(TARGETS)[:2])
def test_sums_that_go_on_in_float32(kind: str, target: Target) -> None:
    """Numbers of 16 bits, in two parts: the bits of one product, of subnormal sums too; nothing beside C is written."""
    if kind == "pairs" and not has_pairs("bf16", target):
        pytest.skip("this processor has no instruction for pairs of bfloat16")
    dtype, rng = DTYPES["bf16" if kind == "pairs" else kind], np.random.default_rng(3)
    shape = compiled(kind, target)[1]
    for (m, n, k), at in (((64, 65, 90), 64), ((shape.high + 3, shape.wide + 5, 2 * shape.deep + 7), shape.deep + 3), ((3, 17, 5), 0), ((25, 48, 33), 33)):
        a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        tiny = dtype(2.0 ** (-12 if dtype is np.float16 else -65))
        small = a * tiny, b * tiny
        small[0][:, at:], small[1][at:] = 0, b[at:]
        for x, y in ((a, b), small):
            frame = np.full((m + 2, n + 3), 77, np.float32)
            c = frame[1:m + 1, 2:n + 2]
            for adds, first, last in ((False, 0, at), (True, at, k)):
                main, sizes, _ = compiled(kind, target, True, adds)
                u, v, scratch = np.ascontiguousarray(x[:, first:last]), np.ascontiguousarray(y[first:last]), np.full(sizes.scratch + 1, 77, np.float32)
                main(c.ctypes.data, u.ctypes.data, v.ctypes.data, m, n, last - first, *strides(u), *strides(v), n + 3, scratch.ctypes.data, 0, m)
                assert scratch[-1] == 77
            want = product("f16" if dtype is np.float16 else "bf16", target, x, y)
            assert np.array_equal(c.astype(dtype).view(np.uint16), want.view(np.uint16)), (m, n, k)
            c[...] = 77
            assert (frame == 77).all()


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_is_read_outside_of_the_operands(target: Target) -> None:
    shape = compiled("f32", target)[1]
    for m, n, k in ((shape.rows + 1, shape.columns + 3, shape.deep + 5), (3, 17, 18)):
        for high in (False, True):
            for transposed in (False, True):
                a, b = guarded(numbers("f32", *((k, m) if transposed else (m, k))), high), guarded(numbers("f32", *((n, k) if transposed else (k, n))), high)
                x, y = (a.T, b.T) if transposed else (a, b)
                assert np.array_equal(product("f32", target, x, y), expected(x, y))


def test_the_bits_are_those_of_the_product_in_one_piece() -> None:
    """Whatever the blocks, chunks and threads: 0 * inf is NaN where it should be, too."""
    rng = np.random.default_rng(1)
    for dtype in ("float32", "float64", "float16"):
        a, b = (rng.normal(size=s).astype(dtype) for s in ((300, 520), (520, 310)))
        a[3, 5], b[6, 7] = np.inf, np.nan
        b[5] = 0
        x, y = gc.matrix("x", dtype=dtype), gc.matrix("y", dtype=dtype)
        found = []
        for large in (1 << 62, 0):
            with mock.patch.multiple(multiplying, LARGE=large, LEAST_CHUNK=64, FAR=1 << 40, most_chunks=lambda: 64):
                for form in (x @ y, x.T.T @ y.T.T):
                    f = gc.function([x, y], form)
                    found += [f(a, b), f(np.asfortranarray(a), np.asfortranarray(b))]
                    for threads in (1, 2, 3):
                        with gc.config(threads=threads):
                            found.append(f(a, b))
        for other in found:
            np.testing.assert_array_equal(found[0].view(f"u{found[0].itemsize}"), other.view(f"u{other.itemsize}"))
        assert np.isnan(found[0][3]).all() and np.isnan(found[0][:, 7]).all() and np.isfinite(found[0]).sum() == 299 * 309


@pytest.mark.parametrize("form", ["ab", "abt", "atb"])
def test_many_products_are_shared_out(form: str) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(3, 5, 9, 7)).astype("float32"), rng.normal(size=(5, 7, 11)).astype("float32")
    if form == "abt":
        b = np.ascontiguousarray(b.swapaxes(1, 2))
    if form == "atb":
        a = np.ascontiguousarray(a.swapaxes(2, 3))
    x, y = gc.tensor("x", dtype="float32", shape=(None,) * 4), gc.tensor("y", dtype="float32", shape=(None,) * 3)
    left, right = (x.swapaxes(2, 3) if form == "atb" else x), (y.swapaxes(1, 2) if form == "abt" else y)
    u, v = (a.swapaxes(2, 3) if form == "atb" else a), (b.swapaxes(1, 2) if form == "abt" else b)
    with mock.patch.object(costs, "SERIAL_NS", 0):
        f = gc.function([x, y], gc.matmul(left, right))
        for threads in (1, 2, 3):
            with gc.config(threads=threads):
                np.testing.assert_allclose(f(a, b), np.matmul(u, v), rtol=1e-5, atol=1e-5)
                assert f(a[:0], b).shape == (0, 5, 9, 11)
