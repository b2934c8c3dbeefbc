"""Products on tiles (docs/amx.md), the instructions written out in plain code: bits, bounds, numbers that tiles cannot hold, and who gets them."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import replace
from typing import Any
from unittest import mock

import ml_dtypes
import numpy as np
import pytest
from native_checks import two_threads
from test_blocked import framed
from test_blocked import product as in_blocks
from test_products import HOST, laid, loaded

import graphc as gc
from graphc.backends import Options
from graphc.backends.llvm import amx, costs, multiplying
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.runner import LlvmRunner
from graphc.backends.llvm.target import Target
from graphc.errors import GraphcValueError
from graphc.settings import Config
from graphc.variants import Variants

EMULATED = replace(HOST, emulated=True)
SMALL = {"f32": (64, 64, 128, 0), "bf16": (64, 64, 128, 64)}  # so that small matrices have several blocks of each kind
FEATURES = """64bit cmov cx8 fxsr mmx sse sse2 sse3 ssse3 sse4.1 sse4.2 popcnt lzcnt avx avx2 fma f16c bmi bmi2 avx512f avx512cd avx512bw avx512dq avx512vl amx-tile amx-bf16"""
SAPPHIRE_RAPIDS = Target("x86_64-unknown-linux-gnu", "sapphirerapids", frozenset(FEATURES.split()), 512)
DTYPES: dict[str, Any] = {"f32": np.float32, "bf16": ml_dtypes.bfloat16}
UNIT = 2.0**-24
rng = np.random.default_rng(5)


@functools.cache
def compiled(kind: str, target: Target, small: bool) -> tuple[Any, Any, int]:
    """(the product, what must stay alive, floats of scratch memory)."""
    with mock.patch.object(amx, "BLOCKS", SMALL if small else amx.BLOCKS):
        name, text = amx.tiled_module(kind, target)
        return (*loaded(name, text, target), amx.Shape(kind, target).scratch)


def product(kind: str, a: np.ndarray, b: np.ndarray, chunks: Any = None, small: bool = True, target: Target = EMULATED) -> np.ndarray:
    """``a @ b`` on tiles."""
    main, _, size = compiled(kind, target, small)
    return framed(main, a, b, np.full(size + 1, 77, np.float32), chunks)


def bits(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.view(f"u{x.itemsize}"))


def same(x: np.ndarray, y: np.ndarray) -> bool:
    """In every bit, but for those of NaN."""
    nan = np.isnan(x.astype(np.float32))
    return bool((np.isnan(y.astype(np.float32)) == nan).all() and (bits(x) == bits(y))[~nan].all())


# -- the bits, by another hand ------------------------------------------------------------------------


def parts(x: np.ndarray) -> list[np.ndarray]:
    """A float32 matrix as three of at most 8 bits each."""
    out, rest = [], x
    for _ in range(3):
        out.append(((rest.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32))
        rest = rest - out[-1]
    assert not rest.any()
    return out


def normal(x: np.ndarray) -> np.ndarray:
    """Subnormal numbers are 0, of the same sign."""
    return np.where(abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def instruction(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``c`` after tdpbf16ps with A of 32 columns and B of 32 rows.

    float64 holds the product of two parts, and its sum with a float32 but for one rounding more where they are 2**29 apart: too far to change the float32.
    """
    a, b, c = normal(a).astype(np.float64), normal(b).astype(np.float64), normal(c)
    totals = np.zeros((2, *c.shape), np.float32)
    for p in range(a.shape[1]):
        totals[p % 2] = normal((totals[p % 2].astype(np.float64) + np.multiply.outer(a[:, p], b[p])).astype(np.float32))
    return normal(c + normal(totals[0] + totals[1]))


def model(a: np.ndarray, b: np.ndarray, deep: int) -> np.ndarray:
    """What tiles give for float32, in blocks of ``deep``."""
    (m, k), n = a.shape, b.shape[1]
    out = np.zeros((m, n), np.float32)
    blocks = math.ceil(k / deep)
    step = math.ceil(math.ceil(k / blocks) / 32) * 32
    for at in range(0, k, step):
        x, y = parts(a[:, at:at + step]), parts(b[at:at + step])
        total = np.zeros((m, n), np.float32)
        for pairs in ([(2, 0), (1, 0), (1, 1), (0, 1), (0, 2)], [(0, 0)]):
            for p in range(0, x[0].shape[1], 32):
                for i, j in pairs:
                    total = instruction(total, x[i][:, p:p + 32], y[j][p:p + 32])
        out = out + total
    return out


@pytest.mark.parametrize("a_unit", ["col", "row", None])
@pytest.mark.parametrize("b_unit", ["col", "row", None])
def test_float32_has_the_bits_of_the_manual(a_unit: str | None, b_unit: str | None) -> None:
    for m, n, k in ((1, 1, 1), (16, 17, 31), (33, 65, 33), (31, 64, 150), (70, 140, 64)):
        a, b = laid(rng.normal(size=(m, k)).astype(np.float32), a_unit), laid(rng.normal(size=(k, n)).astype(np.float32), b_unit)
        assert same(product("f32", a, b), model(a, b, SMALL["f32"][0])), (m, n, k)


def test_the_emulated_instruction_takes_subnormal_numbers_for_zero() -> None:
    """And makes zero of them: operands, products, sums and results of all sizes about the least normal number."""
    writer = amx._Writer("bf16", EMULATED)
    amx._emulate(writer)
    text = writer.module.text().replace("internal void @NAME_emulated_multiply", "void @NAME_emulated_multiply").replace("@NAME", "@e")
    multiply, engine = loaded("e_emulated_multiply", text, EMULATED)
    multiply = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(ctypes.cast(multiply, ctypes.c_void_p).value)
    for low, high in ((-5, 5), (-70, -56), (-64, -61), (-133, -120)):
        a, b = (rng.normal(size=(16, 32)) * 2.0**rng.integers(low, high, (16, 32)) for _ in range(2))
        if low < -100:
            b = rng.normal(size=(16, 32))
        a, b = ((v.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32) for v in (a, b))
        c = (rng.normal(size=(16, 16)) * 2.0**(rng.integers(2 * low, 2 * high, (16, 16)))).astype(np.float32)
        want, got = instruction(c, a, b.T), c.copy()
        x, y = a.view(np.uint32) >> 16, b.view(np.uint32) >> 16
        left, right = (np.ascontiguousarray(v[:, 0::2] | v[:, 1::2] << 16) for v in (x, y))
        pairs = np.ascontiguousarray(right.T)
        multiply(got.ctypes.data, left.ctypes.data, pairs.ctypes.data)
        assert (bits(got) == bits(want)).all(), (low, high)
    del engine


# -- shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_edges_strides_and_blocks(kind: str) -> None:
    """Whole numbers, so that every sum is exact and results are equal."""
    shapes = [(1, 1, 1), (70, 70, 70), (16, 16, 0), (63, 129, 65), (200, 300, 150), (64, 128, 64), *(tuple(rng.integers(1, 71, 3)) for _ in range(25))]
    for t, (m, n, k) in enumerate(shapes):
        units = ("col", "row", None)
        a, b = (laid(rng.integers(-9, 10, s).astype(DTYPES[kind]), unit) for s, unit in (((m, k), units[t % 3]), ((k, n), units[t // 3 % 3])))
        want = (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)
        half = m // 2 & -32
        for chunks in ([(0, m)], [(0, half), (half, m)]):
            assert same(product(kind, a, b, chunks), want), (m, n, k, chunks)
    if kind == "f32":  # sums that need all 24 bits, and parts of their own
        a, b = (rng.integers(-2**11, 2**11, s).astype(np.float32) for s in ((70, 3), (3, 70)))
        assert same(product(kind, a, b), (a.astype(np.float64) @ b.astype(np.float64)).astype(np.float32))


@pytest.mark.parametrize("without", ["avx512f", "avx2"])
def test_narrower_vectors(without: str) -> None:
    target = replace(HOST.without(without), emulated=True)
    a, b = rng.normal(size=(70, 130)).astype(np.float32), rng.normal(size=(130, 90)).astype(np.float32)
    a[3, 4] = np.inf
    if target.has("fma"):
        assert same(product("f32", a, b, target=target), product("f32", a, b))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(product("f32", a, b, target=target), a @ b, rtol=1e-3, atol=1e-4)


def test_bfloat16_is_rounded_once() -> None:
    for m, n, k in ((64, 64, 64), (70, 130, 200)):  # one block of k and several
        a, b = rng.normal(size=(m, k)).astype(ml_dtypes.bfloat16), rng.normal(size=(k, n)).astype(ml_dtypes.bfloat16)
        want, size = (x @ y for x, y in ((a.astype(np.float64), b.astype(np.float64)), (abs(a.astype(np.float64)), abs(b.astype(np.float64)))))
        got = product("bf16", a, b).astype(np.float64)
        assert (abs(got - want) <= abs(want) * 2.0**-8 * 0.51 * 2 + 40 * UNIT * size).all()
        assert (got == want.astype(ml_dtypes.bfloat16)).mean() > 0.99


# -- errors -------------------------------------------------------------------------------------------


def data(name: str, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
    if name == "positive":
        a, b = abs(a), abs(b)
    elif name == "scaled":
        a, b = a * 2.0**rng.integers(-15, 16, a.shape), b * 2.0**rng.integers(-15, 16, b.shape)
    elif name == "cancelling":
        half = k // 2
        a[:, half:2 * half], b[half:2 * half] = a[:, :half], -b[:half] * (1 + 1e-6 * rng.normal(size=(half, n)))
    elif name == "largest parts":  # first parts near 1, so that the others are as large as can be
        a, b = 1 + rng.random(a.shape) * 2.0**-7, 1 + rng.random(b.shape) * 2.0**-7
    elif name == "least":  # just safe: nothing may be lost
        a, b = (a / abs(a)) * (1 + rng.random(a.shape)) * 2.0**-39, (b / abs(b)) * (1 + rng.random(b.shape)) * 2.0**-40
    return a.astype(np.float32), b.astype(np.float32)


@pytest.mark.parametrize("name", ["normal", "positive", "scaled", "cancelling", "largest parts", "least"])
@pytest.mark.parametrize("k", [64, 200, 1000])
def test_the_error_is_no_larger_than_that_of_float32(name: str, k: int) -> None:
    """Relative to |A| |B|: below the bound of docs/amx.md, which is below that of fused multiply-adds; and below what those make of the same numbers."""
    a, b = data(name, 96, 96, k)
    want, size = a.astype(np.float64) @ b.astype(np.float64), abs(a.astype(np.float64)) @ abs(b.astype(np.float64))
    tiles, plain = product("f32", a, b, small=False), in_blocks("f32", HOST, a, b)
    error, usual = (abs(x - want) / size / UNIT for x in (tiles, plain))
    assert not same(tiles, plain), "tiles were not used"
    assert error.max() <= 26 + -(-k // 256) < k
    assert np.sqrt((error**2).mean()) <= np.sqrt((usual**2).mean()) and error.max() <= usual.max()


# -- numbers that tiles cannot hold -------------------------------------------------------------------


def places() -> list[tuple[str, list[tuple[str, int, int, float]]]]:
    tiny, huge = 1e-39, 3e38
    return [("inf", [("a", 3, 5, np.inf)]), ("nan", [("b", 6, 7, np.nan)]), ("0 * inf", [("a", 40, 70, -np.inf), ("b", 70, 1, 0.0)]),
            ("inf - inf", [("a", 2, 3, np.inf), ("a", 2, 4, -np.inf)]), ("subnormal", [("a", 0, 0, tiny), ("b", 0, 69, tiny)]),
            ("subnormal times huge", [("a", 33, 9, tiny), ("b", 9, 0, 2.0**100)]), ("overflow", [("a", 1, 1, huge), ("b", 1, 1, huge)]),
            ("huge times zero", [("a", 1, 1, huge), ("a", 60, 80, -huge)]), ("many", [("a", 1, 1, np.nan), ("a", 50, 140, np.inf), ("b", 100, 60, -np.inf), ("b", 3, 3, 1e38)])]


@pytest.mark.parametrize("kind", ["f32", "bf16"])
@pytest.mark.parametrize("name, there", places())
def test_special_numbers_are_where_the_usual_product_has_them(kind: str, name: str, there: list[tuple[str, int, int, float]]) -> None:
    m, n, k = 70, 130, 150
    a, b = (rng.normal(size=s).astype(DTYPES[kind]) for s in ((m, k), (k, n)))
    for operand, i, j, x in there:
        (a if operand == "a" else b)[i, j] = x
    got = product(kind, a, b, [(0, 64), (64, m)])
    want = in_blocks(kind, HOST, a, b)
    plain, tiles = want.astype(np.float64), got.astype(np.float64)
    nan, inf = np.isnan(plain), np.isinf(plain)
    assert (np.isnan(tiles) == nan).all() and (tiles == plain)[inf].all() and (np.isinf(tiles) == inf).all()
    good = np.isfinite(plain)
    with np.errstate(all="ignore"):
        size = abs(a.astype(np.float64)) @ abs(b.astype(np.float64))
        near = abs(tiles - plain) <= 2 * k * UNIT * size + abs(plain) * (2.0**-7 if kind == "bf16" else 0) + 2.0**-149
    assert near[good].all()


LIMITS = {"f32": [(-40, -40, True), (-40, -41, False), (-41, -40, False), (-100, 20, True), (-101, 60, False), (60, -101, False),
                  (44, 44, True), (44, 45, False), (126, -60, True), (127, -60, False), (-60, 127, False), (-140, 60, False)],
          "bf16": [(-56, -56, True), (-56, -57, False), (-100, 20, True), (-101, 60, False), (44, 44, True), (45, 44, False), (127, -60, False)]}


@pytest.mark.parametrize("kind, least_or_most, other, fits", [(kind, *case) for kind, cases in LIMITS.items() for case in cases])
def test_the_limits_of_what_tiles_hold(kind: str, least_or_most: int, other: int, fits: bool) -> None:
    """Which of the two forms it was shows: the second half of k takes away what the first half adds, so that only roundings are left."""
    def some(exponent: int, shape: tuple[int, int]) -> np.ndarray:
        sign = -1 if least_or_most + other > 60 else 1
        spread = rng.integers(0, 20, shape)
        spread.flat[::7] = 0
        x = (1.05 + 0.9 * rng.random(shape)) * rng.choice([-1, 1], shape) * 2.0**(exponent + sign * spread)
        return x.astype(DTYPES[kind])

    x, y = some(least_or_most, (32, 32)), some(other, (32, 64))
    a, b = np.hstack([x, x]), np.vstack([y, -y])
    got, want = product(kind, a, b), in_blocks(kind, HOST, a, b)
    assert want.astype(np.float64).any()
    assert same(got, want) != fits
    if fits:
        assert same(got, model(a, b, 64)) if kind == "f32" else not got.astype(np.float32).any()


def test_zeros_are_positive() -> None:
    a, b = np.full((64, 64), -0.0, np.float32), np.ones((64, 64), np.float32)
    assert not bits(product("f32", a, b)).any()


# -- who gets them ------------------------------------------------------------------------------------


def run(dtype: str, options: Options, arrays: list[np.ndarray], target: Target = EMULATED, known: bool = False) -> tuple[np.ndarray, LlvmRunner]:
    """``x @ y`` as a function compiled with these options gives it, and the runner."""
    x, y = (gc.tensor(name, dtype=dtype, shape=a.shape if known else (None,) * a.ndim) for name, a in zip("xy", arrays, strict=True))
    f = gc.function([x, y], gc.matmul(x, y))
    usual = f._compiled.runner
    runner = LlvmRunner((usual.usual if isinstance(usual, Variants) else usual).program, options, target)
    result, = runner(arrays, f._compiled.door.solve(arrays))
    return result, runner


def on_tiles(runner: LlvmRunner) -> bool:
    return any(name.startswith("tiled_") for name in runner.native.texts)


@pytest.mark.parametrize("known", [False, True])
def test_who_gets_tiles(known: bool) -> None:
    """float32 where it is asked for, bfloat16 in "fast" too; nothing in "exact" unasked, and nothing small."""
    asked, fast = Options(matmul="bf16x6"), Options(level="fast")
    for dtype, options, expected in (("float32", Options(), False), ("float32", fast, False), ("float32", asked, True), ("bfloat16", Options(), False),
                                     ("bfloat16", fast, True), ("bfloat16", asked, True), ("float64", asked, False), ("float16", asked, False)):
        arrays = [rng.normal(size=s).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype) for s in ((70, 80), (80, 90))]
        found, runner = run(dtype, options, arrays, known=known)
        assert on_tiles(runner) == expected, (dtype, options)
        plain, _ = run(dtype, Options(), arrays, HOST, known)
        assert (same(found, plain) != expected) or dtype == "bfloat16"
        np.testing.assert_allclose(found.astype(float), plain.astype(float), rtol=0.02, atol=0.1)
        small = [a[:63, :63].copy() for a in arrays]
        assert same(run(dtype, options, small, known=known)[0], run(dtype, Options(), small, HOST, known)[0])


def test_no_tiles_nothing_changes() -> None:
    without = replace(HOST, features=HOST.features - {"amx-tile", "amx-bf16"})
    arrays = [rng.normal(size=s).astype(np.float32) for s in ((70, 80), (80, 90))]
    (found, runner), (plain, other) = (run("float32", options, arrays, without) for options in (Options(matmul="bf16x6", level="fast"), Options(level="fast")))
    assert runner.native.texts == other.native.texts and runner.native.target == without and same(found, plain)


def test_the_system_must_permit_it() -> None:
    asked = Options(matmul="bf16x6")
    for permitted in (False, True):
        with mock.patch.object(amx, "_permitted", lambda: permitted):
            assert amx.with_tiles(SAPPHIRE_RAPIDS, asked).tiles == ({"f32", "bf16"} if permitted else frozenset())
            assert amx.with_tiles(SAPPHIRE_RAPIDS, Options(level="fast")).tiles == ({"bf16"} if permitted else frozenset())
            assert amx.with_tiles(SAPPHIRE_RAPIDS, Options()) == SAPPHIRE_RAPIDS
    if HOST.x86 and not HOST.has("amx-tile"):
        assert not amx._permitted()


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAPHC_MATMUL", raising=False)
    assert Config().matmul == "auto"
    monkeypatch.setenv("GRAPHC_MATMUL", "bf16x6")
    assert Config().matmul == "bf16x6"
    monkeypatch.setenv("GRAPHC_MATMUL", "bf16x9")
    with pytest.raises(GraphcValueError, match="matmul = 'bf16x9': expected one of 'auto', 'bf16x6'"):
        Config()
    with pytest.raises(ValueError, match="'auto', 'bf16x6'"):
        gc.config.matmul = "tf32"
    x = gc.matrix("x", dtype="float32")
    for value in ("auto", "bf16x6"):
        with gc.config(matmul=value):
            f = gc.function([x], x @ x.T)
        assert f._compiled.runner.options.matmul == value  # also for what is compiled of it later


def test_keys_differ() -> None:
    """Object code on disk is found by the target's key and the text."""
    keys = [t.key for t in (HOST, EMULATED, replace(EMULATED, tiles=frozenset({"bf16"})), replace(EMULATED, tiles=frozenset({"bf16", "f32"})), replace(HOST, tiles=frozenset({"f32"})))]
    assert len(set(keys)) == len(keys)


# -- threads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shapes", [((330, 140), (140, 100)), ((70, 90), (90, 400)), ((9, 70, 80), (9, 80, 90))])
def test_threads_change_no_bit(dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    """Also where some rows and columns cannot have tiles, on both sides of where chunks begin."""
    arrays = [rng.normal(size=s).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype) for s in shapes]
    m, n = shapes[0][-2], shapes[1][-1]
    for place in (33, 170, 300):
        arrays[0][..., place % m, 5] = 1e-38
    for place in (3, 215, 350):
        arrays[1][..., 70, place % n] = 1e-38
    arrays[1][..., 71, n - 1] = np.inf
    with two_threads(), mock.patch.object(amx, "BLOCKS", SMALL), mock.patch.object(costs, "SERIAL_NS", 0), mock.patch.multiple(multiplying, LEAST_CHUNK=32, most_chunks=lambda: 64):
        for known in (False, True):
            found = [run(dtype, Options(matmul="bf16x6", threads=threads), arrays, known=known) for threads in (1, 2)]
            assert all(on_tiles(runner) for _, runner in found)
            assert same(found[0][0], found[1][0])


# -- the instructions ---------------------------------------------------------------------------------


@pytest.mark.skipif(not HOST.x86, reason="the target's features are those of x86")
@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_the_processor_s_instructions(kind: str) -> None:
    """24 multiplications, or 4, in rounds over k; no call of the emulation."""
    _, text = amx.tiled_module(kind, SAPPHIRE_RAPIDS)
    assert "emulated" not in text
    lines = [line.split("#")[0].split() for line in engine().assembly(text, SAPPHIRE_RAPIDS).splitlines()]
    words = [line[0] for line in lines if line]
    count = {word: words.count(word) for word in ("tdpbf16ps", "tileloadd", "tilestored", "tilezero", "ldtilecfg", "tilerelease")}
    loads = 16 if kind == "f32" else 4
    assert count == {"tdpbf16ps": 24 if kind == "f32" else 4, "tileloadd": loads, "tilestored": 4, "tilezero": 4, "ldtilecfg": 1, "tilerelease": 1}
    used = {tuple(line[1:]) for line in lines if line and line[0] == "tdpbf16ps"}
    assert used == {(f"%tmm{6 + n % 2},", f"%tmm{4 + n // 2},", f"%tmm{n}") for n in range(4)}
    assert amx._shapes()[0] == 1 and amx._shapes()[16:32] == [64, 0] * 8 and amx._shapes()[48:56] == [16] * 8
