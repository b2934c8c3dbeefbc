"""Native matrix products against NumPy: sizes about the edges of tiles, strides, kinds, chunks of rows, processors."""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
from dataclasses import replace
from typing import Any

import llvmlite.binding as llvm
import ml_dtypes
import numpy as np
import pytest

from graphc.backends.llvm.product_numbers import KINDS
from graphc.backends.llvm.products import Product, product_module, row_grain, scratch_elements
from graphc.backends.llvm.target import Target, host

HOST = host()
TARGETS = {"host": HOST, "no avx512": HOST.without("avx512f"), "no avx2": HOST.without("avx2"), "host, 256 bit": replace(HOST, bits=min(HOST.bits, 256))}
DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "bool": np.bool_,
                          "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
LAYOUTS = [("col", "col"), ("row", "col"), ("col", "row"), ("row", "row"), (None, None)]
rng = np.random.default_rng(0)


def loaded(name: str, text: str, target: Target) -> tuple[Any, Any]:
    """(the product, what must stay alive) of a module."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, features=target.feature_text, opt=2, jit=True)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return ctypes.CFUNCTYPE(None, *[pointer] * 3, *[number] * 8, pointer, number, number)(engine.get_function_address(name)), engine


@functools.cache
def compiled(spec: Product, target: Target) -> tuple[Any, Any, Any]:
    """(the product, the packing or None, what must stay alive)."""
    name, text = product_module(spec, target)
    main, engine = loaded(name, text, target)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    pack = None
    if spec.packed:
        pack = ctypes.CFUNCTYPE(None, *[pointer] * 2, *[number] * 4)(engine.get_function_address(name + "_pack"))
    return main, pack, engine


def strides(x: np.ndarray) -> tuple[int, ...]:
    return tuple(s // x.itemsize for s in x.strides)


def product(spec: Product, target: Target, a: np.ndarray, b: np.ndarray, c: np.ndarray | None = None, chunks: Any = None) -> np.ndarray:
    """``a @ b`` by the compiled function; checks that nothing beside the result is written."""
    (m, k), n = a.shape, b.shape[1]
    whole = np.full((m + 2) * (n + 3), 77, dtype=a.dtype).reshape(m + 2, n + 3)
    if c is None:
        c = whole[1:m + 1, 1:n + 1] if spec.c_step is None else np.zeros((m, n), a.dtype)
    main, pack, _ = compiled(spec, target)
    (a_row, a_col), (b_row, b_col), at = strides(a), strides(b), b.ctypes.data
    scratch = np.full(scratch_elements(spec)(m, n, k) + 1, 77, a.dtype)
    if pack is not None:
        pack(scratch.ctypes.data, at, n, k, b_row, b_col)
        assert scratch[-1] == np.array(77).astype(a.dtype)
        at, b_row, b_col = scratch.ctypes.data, n, 1
    for lo, hi in chunks or [(0, m)]:
        main(c.ctypes.data, a.ctypes.data, at, m, n, k, a_row, a_col, b_row, b_col, strides(c)[0], scratch.ctypes.data, lo, hi)
    if spec.c_step is None:
        frame = whole.copy()
        frame[1:m + 1, 1:n + 1] = 77
        assert (frame == np.array(77).astype(a.dtype)).all(), "written outside of the result"
    return c.copy()


def numbers(kind: str, *shape: int) -> np.ndarray:
    """Small whole numbers: every sum is exact, so results must be equal in every bit."""
    if kind == "bool":
        return rng.random(shape) < 0.2
    return rng.integers(-9, 10, shape).astype(DTYPES[kind])


def laid(x: np.ndarray, unit: str | None) -> np.ndarray:
    """The same numbers in memory where this stride is 1 and the other larger than it need be (None: neither)."""
    rows, cols = x.shape
    if unit == "col":
        out: np.ndarray = np.zeros((rows, cols + 3), x.dtype)[:, 1:cols + 1]
    elif unit == "row":
        out = np.zeros((cols, rows + 3), x.dtype)[:, 1:rows + 1].T
    else:
        out = np.zeros((2 * rows + 1, 3 * cols + 1), x.dtype)[1::2, 1::3]
    out[...] = x
    return out


def expected(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind in "biu":
        return np.asarray(a @ b)  # wraps
    with np.errstate(over="ignore"):
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(a.dtype)


def check(spec: Product, target: Target, m: int, n: int, k: int) -> None:
    a, b = laid(numbers(spec.kind, m, k), spec.a_unit), laid(numbers(spec.kind, k, n), spec.b_unit)
    got = product(spec, target, a, b)
    assert got.dtype == a.dtype and np.array_equal(got, expected(a, b)), (spec, m, n, k)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize(("a_unit", "b_unit"), LAYOUTS)
def test_open_sizes(target: Target, a_unit: str | None, b_unit: str | None) -> None:
    spec = Product("f32", a_unit=a_unit, b_unit=b_unit)
    for m, n, k in itertools.product((0, 1, 4, 7, 20), (0, 1, 3, 16, 17, 63, 67), (0, 1, 5, 33)):
        check(spec, target, m, n, k)
    for n, k in ((129, 64), (31, 300), (1, 131), (1, 64)):
        check(spec, target, 9, n, k)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_known_sizes(target: Target) -> None:
    """Some sizes known, or all, and steps."""
    for kind, n in (("i8", 1), ("bf16", 33)):  # one column in the last vector
        check(Product(kind, True, 3, n, 4), target, 3, n, 4)
    sizes = [(1, 1, 1), (1, 130, 9), (13, 1, 40), (5, 10, 7), (6, 16, 4), (32, 10, 16), (8, 31, 20), (23, 33, 5), (7, 145, 3), (3, 0, 2), (0, 4, 2), (2, 3, 0)]
    for number, (m, n, k) in enumerate(sizes):
        a_unit, b_unit = LAYOUTS[number % 5]
        a, b = laid(numbers("f32", m, k), a_unit), laid(numbers("f32", k, n), b_unit)
        steps = [None if unit is None else max(strides(x)) for unit, x in ((a_unit, a), (b_unit, b))]
        specs = [Product("f32", True, m, n, k, a_unit, b_unit, *steps, n),
                 Product("f32", True, *[None if i == number % 3 else size for i, size in enumerate((m, n, k))], a_unit, b_unit)]
        for spec in specs:
            assert np.array_equal(product(spec, target, a, b), expected(a, b)), spec


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", list(TARGETS.values())[:3], ids=list(TARGETS)[:3])
def test_kinds(kind: str, target: Target) -> None:
    for a_unit, b_unit in (("col", "col"), ("row", "row")):
        spec = Product(kind, a_unit=a_unit, b_unit=b_unit)
        for m, n, k in ((7, 37, 9), (6, 1, 70), (1, 70, 3), (13, 5, 35), (3, 19, 17), (4, 130, 2)):
            check(spec, target, m, n, k)
    check(Product(kind, True, 5, 10, 16), target, 5, 10, 16)


def test_unsigned_integers_are_the_same_function() -> None:
    for kind in ("i8", "i32"):
        assert product_module(Product(kind, True), HOST) == product_module(Product(kind, False), HOST)
    a, b = rng.integers(0, 256, (6, 9)).astype(np.uint8), rng.integers(0, 256, (9, 20)).astype(np.uint8)
    assert np.array_equal(product(Product("i8", False, a_unit="col", b_unit="col"), HOST, a, b), a @ b)
    big = rng.integers(-2**63, 2**63 - 1, (5, 18))
    assert np.array_equal(product(Product("i64", a_unit="col", b_unit="row"), HOST, big, big.T), big @ big.T)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_strides_of_every_sign(target: Target) -> None:
    a, b = numbers("f32", 12, 10), numbers("f32", 10, 34)
    as_is, open_ = Product("f32"), Product("f32", a_unit="col", b_unit="col")
    for x in (a, a[::-1], a[:, ::-1], a[::-1, ::-1], np.broadcast_to(a[0], (12, 10)), np.broadcast_to(a[:, :1], (12, 10)), np.broadcast_to(a[0, 0], (12, 10))):
        for y in (b, b[:, ::-1], np.broadcast_to(b[:, :1], (10, 34)), b.T[:10, ::-2], np.asfortranarray(b)):
            assert np.array_equal(product(as_is, target, x, y), expected(x, y))
    for x in (a[::-1], a[::3], np.broadcast_to(a[0], (12, 10))):
        for y in (b[::-1], np.broadcast_to(b[0], (10, 34))):
            assert np.array_equal(product(open_, target, x, y), expected(x, y))


@pytest.mark.parametrize("kind", ["f32", "f64", "f16"])
@pytest.mark.parametrize("target", list(TARGETS.values())[:3], ids=list(TARGETS)[:3])
def test_chunks_and_known_sizes_change_no_bit(kind: str, target: Target) -> None:
    for (a_unit, b_unit), (m, n, k) in itertools.product(LAYOUTS[:3], ((29, 70, 13), (29, 1, 150), (10, 9, 33))):
        a, b = laid(rng.standard_normal((m, k)).astype(DTYPES[kind]), a_unit), laid(rng.standard_normal((k, n)).astype(DTYPES[kind]), b_unit)
        if n == 1:
            b = np.ascontiguousarray(b)
        spec = Product(kind, a_unit=a_unit, b_unit=b_unit)
        whole = product(spec, target, a, b)
        eps = np.finfo(DTYPES[kind]).eps
        bound = abs(a).astype(np.float64) @ abs(b).astype(np.float64)
        assert (abs(whole.astype(np.float64) - a.astype(np.float64) @ b.astype(np.float64)) <= bound * eps * (k if kind != "f16" else 1)).all()
        known = Product(kind, True, m, n, k, a_unit, "row" if n == 1 else b_unit)
        for one in (spec, known):
            for step in (1, 4, 7, 11):
                got = product(one, target, a, b, chunks=[(lo, min(lo + step, m)) for lo in reversed(range(0, m, step))])
                assert got.tobytes() == whole.tobytes(), (one, step)


@pytest.mark.parametrize("target", [*TARGETS.values(), HOST.without("avx")], ids=[*TARGETS, "no avx"])
@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
def test_nan_inf_and_rounding(kind: str, target: Target) -> None:
    spec = Product(kind, a_unit="col", b_unit="col")
    a, b = np.ones((9, 5), DTYPES[kind]), np.ones((5, 21), DTYPES[kind])
    a[1, 2], a[3, 0], a[4, :2], a[5, 3], b[3, 7] = np.nan, np.inf, (np.inf, -np.inf), np.inf, 0
    b[0, 11] = -np.inf
    with np.errstate(invalid="ignore"):
        want = (a[:, :, None].astype(np.float64) * b[None].astype(np.float64)).sum(1)
    assert np.array_equal(product(spec, target, a, b).astype(np.float64), want, equal_nan=True)
    if kind == "f32":
        return
    # rounded once, to nearest even; subnormal results are kept; overflow gives infinity
    info = ml_dtypes.finfo(DTYPES[kind])
    scale = np.float32(info.tiny) * 4.0 ** (np.arange(40) % 20 - 6) if kind == "f16" else np.float32(info.tiny) ** 0.5 * 2.0 ** -(np.arange(40) % 20)
    c = (rng.standard_normal((40, 1)) * (1 if kind == "f16" else np.float32(info.tiny) ** 0.5)).astype(DTYPES[kind])
    d = (rng.standard_normal((1, 40)) * scale).astype(DTYPES[kind])
    with np.errstate(over="ignore"):
        want = (c.astype(np.float32) * d.astype(np.float32)).astype(DTYPES[kind])
        assert np.array_equal(product(spec, target, c, d), want)
        huge = np.full((2, 3), info.max, DTYPES[kind])
        assert np.isinf(product(spec, target, huge, huge.T.copy()).astype(np.float32)).all()


def test_one_row_transposed() -> None:
    for a_unit, b_unit in LAYOUTS:
        spec = Product("f32", True, 1, 50, 20, a_unit, b_unit)
        a, b = laid(numbers("f32", 1, 20), a_unit), laid(numbers("f32", 20, 50), b_unit)
        assert not (b_unit == "row" and a_unit == "col" and spec.transposed().packed)
        assert np.array_equal(product(spec.transposed(), HOST, b.T, a.T, np.zeros((50, 1), np.float32)).T, expected(a, b))


def guarded(x: np.ndarray, high: bool) -> np.ndarray:
    """A copy that ends (begins) where pages begin (end) that no one may touch."""
    page = mmap.PAGESIZE
    room = -(-max(x.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for start in (0, page + room):
        assert protect(whole.ctypes.data + start, page, 0) == 0
    start = page + (room - x.nbytes if high else 0)
    out = whole[start:start + x.nbytes].view(x.dtype).reshape(x.shape)
    out[...] = x
    return out


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nothing_is_touched_outside_of_the_arrays(target: Target) -> None:
    """A wrong read or write ends the process here."""
    for (a_unit, b_unit), kind in ((("col", "col"), "f32"), (("row", "row"), "f32"), (("col", "row"), "f16"), (("row", "col"), "i8")):
        spec = Product(kind, a_unit=a_unit, b_unit=b_unit, c_step=None)
        main, pack, _ = compiled(spec, target)
        for (m, n, k), high in itertools.product(((7, 21, 5), (5, 1, 19), (1, 70, 3), (9, 5, 37), (3, 50, 18)), (True, False)):
            x, y = numbers(kind, m, k), numbers(kind, k, n)
            a = guarded(x, high) if a_unit == "col" else guarded(x.T, high).T
            b = guarded(y, high) if b_unit == "col" else guarded(y.T, high).T
            c = guarded(np.zeros((m, n), x.dtype), high)
            (b_row, b_col), at, scratch = strides(b), b.ctypes.data, guarded(np.zeros(n * k, x.dtype), high)
            if pack is not None:
                pack(scratch.ctypes.data, at, n, k, b_row, b_col)
                at, b_row, b_col = scratch.ctypes.data, n, 1
            main(c.ctypes.data, a.ctypes.data, at, m, n, k, *strides(a), b_row, b_col, n, None, 0, m)
            assert np.array_equal(c, expected(x, y))


# ---- products that add ----------------------------------------------------------------------------

ADDING = ("f32", "f64", "i32")
#: rows, columns and sums about the edges of tiles, and none
EDGES = [(0, 5, 3), (5, 0, 3), (5, 7, 0), (1, 1, 1), (1, 70, 5), (7, 1, 9), (8, 8, 8), (9, 15, 4), (13, 16, 3), (14, 17, 6), (17, 31, 5), (3, 33, 2), (15, 63, 7), (6, 64, 3), (29, 65, 4), (2, 131, 3)]


def added(spec: Product, target: Target, a: np.ndarray, b: np.ndarray, c: np.ndarray, chunks: Any = None) -> np.ndarray:
    """``c + a @ b`` by the compiled function, in the middle of memory that must stay as it is."""
    m, n = c.shape
    gap = 0 if spec.c_step is not None else 5
    frame = np.full((m + 2, n + gap), 77, c.dtype)
    inside = frame[1:m + 1, gap // 2:gap // 2 + n]
    inside[...] = c
    product(spec, target, a, b, inside, chunks)
    found = inside.copy()
    inside[...] = 77
    assert (frame == 77).all(), (spec, m, n)
    return found


@pytest.mark.parametrize("kind", ADDING)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_adding(kind: str, target: Target) -> None:
    """C + A @ B in whole numbers: an element that two tiles wrote, or none, would be another."""
    for a_unit, b_unit in (("col", "col"), ("row", "row"), (None, None)):
        spec = Product(kind, a_unit=a_unit, b_unit=b_unit, adds=True)
        for m, n, k in EDGES:
            a, b, c = laid(numbers(kind, m, k), a_unit), laid(numbers(kind, k, n), b_unit), numbers(kind, m, n)
            want = c + expected(a, b)
            assert np.array_equal(added(spec, target, a, b, c), want), (spec, m, n, k)
            if m > 7:  # in chunks of rows, the last one first
                assert np.array_equal(added(spec, target, a, b, c, [(lo, min(lo + 5, m)) for lo in reversed(range(0, m, 5))]), want), (spec, m, n, k)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_adding_with_known_sizes(target: Target) -> None:
    """Rows, columns or all of it known: tiles are cut otherwise."""
    for number, (m, n, k) in enumerate([(13, 17, 5), (5, 3, 4), (1, 40, 3), (9, 65, 2), (8, 1, 6), (15, 31, 7), (7, 130, 3)]):
        kind = ADDING[number % 3]
        a_unit, b_unit = LAYOUTS[number % 5]
        a, b, c = laid(numbers(kind, m, k), a_unit), laid(numbers(kind, k, n), b_unit), numbers(kind, m, n)
        for spec in (Product(kind, True, m, n, k, a_unit, b_unit, c_step=n, adds=True),
                     Product(kind, True, *[None if i == number % 3 else size for i, size in enumerate((m, n, k))], a_unit, b_unit, adds=True)):
            assert np.array_equal(added(spec, target, a, b, c), c + expected(a, b)), spec


@pytest.mark.parametrize("kind", ADDING)
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_adding_goes_on_where_a_product_ended(kind: str, target: Target) -> None:
    """A sum in two parts has the bits of one: what sweeps (passes/sweeps.py) promise."""
    for a_unit, b_unit in (("col", "col"), ("row", "row")):
        first = Product(kind, a_unit=a_unit, b_unit=b_unit)
        for (m, n, k), at in itertools.product(((13, 37, 12), (16, 64, 21), (3, 17, 9)), (1, 7)):
            x, y = (rng.integers(-9, 9, s) if kind == "i32" else rng.standard_normal(s) for s in ((m, k), (k, n)))
            a, b = laid(x.astype(DTYPES[kind]), a_unit), laid(y.astype(DTYPES[kind]), b_unit)
            begun = product(first, target, a[:, :at], b[:at])
            assert np.array_equal(added(replace(first, adds=True), target, a[:, at:], b[at:], begun), product(first, target, a, b)), (first, m, n, k)


@pytest.mark.parametrize("kind", ["f16", "bf16"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_sums_of_16_bits_go_on_in_float32(kind: str, target: Target) -> None:
    """C holds what is computed in: nothing is rounded where one part ends, and the whole has the bits of one product."""
    for a_unit, b_unit in (("col", "col"), ("row", "row"), (None, None)):
        spec = Product(kind, a_unit=a_unit, b_unit=b_unit, wide=True)
        for m, n, k in EDGES:
            a, b, c = laid(numbers(kind, m, k), a_unit), laid(numbers(kind, k, n), b_unit), rng.standard_normal((m, n)).astype(np.float32)
            want = a.astype(np.float32) @ b.astype(np.float32)
            assert np.array_equal(added(spec, target, a, b, c), want), (spec, m, n, k)
            c = rng.integers(-5000, 5000, (m, n)).astype(np.float32)
            assert np.array_equal(added(replace(spec, adds=True), target, a, b, c), c + want), (spec, m, n, k)
        for (m, n, k), at in itertools.product(((13, 37, 12), (16, 64, 21), (3, 17, 9)), (1, 7)):
            a, b = (laid(rng.standard_normal(s).astype(DTYPES[kind]), unit) for s, unit in (((m, k), a_unit), ((k, n), b_unit)))
            begun = added(spec, target, a[:, :at], b[:at], np.zeros((m, n), np.float32))
            found = added(replace(spec, adds=True), target, a[:, at:], b[at:], begun)
            assert np.array_equal(found.astype(DTYPES[kind]), product(replace(spec, wide=False), target, a, b)), (spec, m, n, k)
    for m, n, k in ((13, 17, 5), (15, 1, 7), (7, 130, 3)):  # known sizes
        a, b = numbers(kind, m, k), numbers(kind, k, n)
        spec = Product(kind, True, m, n, k, "col", "col", c_step=n, wide=True)
        assert np.array_equal(added(spec, target, a, b, np.zeros((m, n), np.float32)), a.astype(np.float32) @ b.astype(np.float32)), spec


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_nan_and_inf_where_it_adds(target: Target) -> None:
    """They stay in their rows and columns, and come from what was there, too."""
    for kind in ("f32", "f64"):
        a, b, c = np.ones((9, 5), DTYPES[kind]), np.ones((5, 21), DTYPES[kind]), np.ones((9, 21), DTYPES[kind])
        a[1, 2], a[3, 0], b[3, 7], b[0, 11] = np.nan, np.inf, 0, -np.inf
        c[0, 20], c[8, 0], c[3, 2], c[6, 11], c[7, 16] = np.nan, np.inf, -np.inf, np.inf, -np.inf
        with np.errstate(invalid="ignore"):
            want = c + (a[:, :, None] * b[None]).sum(1)
        got = added(Product(kind, a_unit="col", b_unit="col", adds=True), target, a, b, c)
        assert np.array_equal(got, want, equal_nan=True) and np.isnan(got).sum() == 24


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_adding_touches_nothing_outside(target: Target) -> None:
    """A wrong read or write ends the process here."""
    for kind in ADDING:
        spec = Product(kind, a_unit="col", b_unit="col", adds=True)
        main, _, _ = compiled(spec, target)
        for (m, n, k), high in itertools.product(((7, 21, 5), (5, 1, 19), (1, 70, 3), (9, 5, 37), (3, 50, 18)), (True, False)):
            x, y, z = numbers(kind, m, k), numbers(kind, k, n), numbers(kind, m, n)
            a, b, c = (guarded(v, high) for v in (x, y, z))
            main(c.ctypes.data, a.ctypes.data, b.ctypes.data, m, n, k, *strides(a), *strides(b), n, None, 0, m)
            assert np.array_equal(c, z + expected(x, y))


def test_what_is_written_is_the_same_every_time() -> None:
    spec = Product("f32", True, 32, 10, 32, "col", "row")
    assert product_module(spec, HOST) == product_module(replace(spec), HOST)
    name, text = product_module(spec, HOST)
    assert f"@{name}(" in text and f"@{name}_pack(" in text and "NAME" not in text
    assert name != product_module(replace(spec, n=11), HOST)[0] != product_module(spec, HOST.without("avx512f"))[0]
    assert scratch_elements(spec)(32, 10, 32) == 320 and scratch_elements(replace(spec, b_unit="col"))(32, 10, 32) == 0
    assert all(row_grain(replace(spec, n=n), HOST) >= 1 for n in (0, 1, 64)) and row_grain(Product("f32"), HOST) > 1
    for wrong in (Product("f8"), Product("f32", a_unit="rows")):
        with pytest.raises(ValueError, match="not a product"):
            product_module(wrong, HOST)
