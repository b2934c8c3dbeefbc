"""The kernel IR: text, key and interpreter, each against hand-written and against random kernels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_examples import ARGMAX, CHAIN, COLUMNS, GATHER, IN_PLACE, NORM, RNG, SOFTMAX, TURNED, WRITTEN, run, sizes
from kernel_strategies import kernels, renamed, run_slowly

from graphc import dims
from graphc.backends.interpreter import run_kernel
from graphc.errors import GraphcIndexError, GraphcValueError, InternalError
from graphc.ir import Array
from graphc.kernel import Instr, Kernel, Range
from graphc.kernel_text import key, parse_kernel, print_kernel, symbol_names
from graphc.ops import OPS
from graphc.verify_kernel import verify_kernel

SHAPES = [(1, 1), (3, 5), (7, 2), (0, 4), (4, 1)]


# ---- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN)
def test_hand_written_kernels_are_sound_and_read_back(name: str) -> None:
    kernel = parse_kernel(WRITTEN[name])
    assert print_kernel(kernel) == WRITTEN[name]
    assert parse_kernel(key(kernel)) == replace(parse_kernel(key(kernel)), name="k")
    verify_kernel(kernel)


@settings(max_examples=60, deadline=None)
@given(kernels())
def test_what_is_printed_reads_back(kernel: Kernel) -> None:
    assert parse_kernel(print_kernel(kernel)) == kernel


@settings(max_examples=30, deadline=None)
@given(kernels(unknown=True))
def test_unknown_sizes_are_numbered(kernel: Kernel) -> None:
    text = print_kernel(kernel)
    assert parse_kernel(text, {name: s for s, name in symbol_names(kernel).items()}) == kernel
    assert print_kernel(parse_kernel(text)) == text
    assert key(parse_kernel(text)) == key(kernel)


@settings(max_examples=60, deadline=None)
@given(kernels(), st.permutations(["a", "z", "q"]))
def test_the_key_knows_no_names(kernel: Kernel, names: list[str]) -> None:
    others = {s.symbol: dims.dim(new, s.symbol.min) for s, new in zip((dims.dim("n"), dims.dim("m", 1), dims.dim("i")), names, strict=True) if s.symbol}
    assert key(renamed(kernel, others, "_x")) == key(kernel)
    assert key(parse_kernel(key(kernel))) == key(kernel)


def test_the_key_tells_symbols_apart_by_their_place() -> None:
    one = "kernel f(x: in f32[n*m + n], y: out f32[n*m + n])\n  grid i < m*n + n\n    do\n      %0 = f32 load x[i]\n      %1 = f32 store y[i], %0\n"
    two = one.replace("n*m + n", "n*m + m").replace("m*n + n", "m*n + m")
    three = one.replace("i < m*n + n", "i < m*n + m")
    assert key(parse_kernel(one)) == key(parse_kernel(two)) != key(parse_kernel(three))
    # nothing tells a from b: each is tried as the first
    four = one.replace("n*m + n", "a + b").replace("m*n + n", "b + a")
    assert key(parse_kernel(four)) == key(parse_kernel(four.replace("a + b", "y + x").replace("b + a", "x + y")))
    # a minimum is a promise that code may rely on
    assert key(parse_kernel(one.replace("  grid", "  dim n min=1\n  grid"))) != key(parse_kernel(one))


@pytest.mark.parametrize("change", [
    ("f32[n], y", "f32[2*n], y"), ("i < n", "i < n + 1"), ("less", "greater"), ("0.1", "0.2"), (" vector", ""), ("load x[i]", "load x[i + 1]"),
    ("%3, %1", "%1, %3"), ("z: out f32[n]", "z: out f32[n] alias x"), ("f32", "f64"),
])
def test_the_key_sees_everything_else(change: tuple[str, str]) -> None:
    assert key(parse_kernel(CHAIN.replace(*change))) != key(parse_kernel(CHAIN))
    assert parse_kernel(CHAIN.replace(*change)) != parse_kernel(CHAIN)


def test_literals_read_back_as_the_number_that_the_dtype_holds() -> None:
    for dtype, data, text in (("float32", float(np.float32(0.1)), "0.1"), ("float64", -0.0, "-0.0"), ("float16", math.inf, "inf"), ("int64", -7, "-7"),
                              ("bool", True, "True"), ("float64", math.nan, "nan"), ("uint64", 2 ** 64 - 1, str(2 ** 64 - 1)),
                              ("complex128", complex(1, -2), "complex(1.0, -2.0)"), ("float64", 1e-300, "1e-300")):
        kernel = Kernel("f", (), (), (), (Instr("literal", np.dtype(dtype), data=data),), ())
        assert f"literal {text}\n" in print_kernel(kernel)
        back = parse_kernel(print_kernel(kernel))
        assert back == kernel and math.copysign(1, back.values[0].data.real) == math.copysign(1, data.real)


def test_names_that_mean_something_else() -> None:
    n, i = dims.dim("n"), dims.dim("i")
    kernel = Kernel("odd name", (Range("i", n), Range("i", i), Range("max", dims.dim("f32"))), (2, 0), (), (
        Instr("apply", np.dtype("int64"), word="load"), Instr("size", np.dtype("int64"), data=dims.dim_max(i, n) * 2 - 1)), ())
    text = print_kernel(kernel)
    assert text.splitlines()[:3] == ["kernel 'odd name'()", "  ranges i < n, i~2 < `i`, 'max' < `f32`", "  grid 'max' < `f32`, i < n"]
    assert "apply load" in text and "size 2*max(`i`, n) - 1" in text
    assert parse_kernel(text) == kernel


def test_long_headers_take_a_line_for_each_operand() -> None:
    kernel = parse_kernel(CHAIN)
    many = replace(kernel, operands=(*kernel.operands, *(kernel.operands[0]._replace(name=f"momentum_{k}") for k in range(9))))
    text = print_kernel(many)
    assert text.startswith("kernel chain\n  operand x: in f32[n]\n") and parse_kernel(text) == many


@pytest.mark.parametrize(("text", "message"), [
    ("grid i < n", "begins with 'kernel"),
    (CHAIN.replace("load x[i]", "load q[i]"), "line 4 of the dump: there is no operand q"),
    (CHAIN.replace("%7 =", "%9 ="), "numbered 0 to 7"),
    (CHAIN.replace("[i], %4", "[i, %4"), r"expected \+, - or \]"),
    (CHAIN.replace("    do\n", ""), "stands in a stage"),
    (CHAIN.replace("do", "while"), "'while' does not belong here"),
    (SOFTMAX.replace("%2 = f32 load x[i*m", "%0 = f32 load x[j*m"), "%0 is two instructions"),
    (SOFTMAX.replace("for j < m vector\n      %7", "for j < n vector\n      %7"), "j has two extents"),
])
def test_bad_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(GraphcValueError, match=message):
        parse_kernel(text)


# ---- the interpreter ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("block", [2, 1 << 22])
def test_elementwise(n: int, block: int) -> None:
    x, y = RNG(n).normal(size=(2, n)).astype(np.float32)
    z, w = run(CHAIN, {"n": n}, x, y, block=block)
    np.testing.assert_array_equal(z, np.maximum(x * np.float32(0.1), y))
    np.testing.assert_array_equal(w, x < y)


@pytest.mark.parametrize(("n", "m"), SHAPES)
@pytest.mark.parametrize("block", [1, 11, 1 << 22])
def test_rows_and_columns(n: int, m: int, block: int) -> None:
    x, g = RNG(n).normal(size=(n, m)), RNG(m).normal(size=m)
    e = np.exp(x - x.max(1, keepdims=True, initial=-np.inf))
    np.testing.assert_allclose(run(SOFTMAX, {"n": n, "m": m}, x, block=block)[0].reshape(n, m), e / e.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(run(COLUMNS, {"n": n, "m": m}, x, block=block)[0], x.sum(0), rtol=1e-12)
    with np.errstate(all="ignore"):
        y = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True) * g
    got, sums, total = run(NORM, {"n": n, "m": m}, x, g, block=block)
    np.testing.assert_allclose(got.reshape(n, m), y, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sums, -y.sum(0), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(total[0], y.max(initial=-np.inf), rtol=1e-12)
    np.testing.assert_array_equal(run(TURNED, {"n": n, "m": m}, np.arange(n * m), block=block)[0].reshape(m, n), np.arange(n * m).reshape(n, m)[:, ::-1].T)


def test_no_columns() -> None:
    """Where the inner loop is empty, sums are 0; where there is nothing to store, nothing is."""
    assert run(COLUMNS, {"n": 3, "m": 0}, [])[0].shape == (0,)
    assert run(SOFTMAX.replace("  dim m min=1\n", ""), {"n": 3, "m": 0}, [])[0].shape == (0,)
    sums = CHAIN[:0] + "kernel f(x: in f32[m*n], y: out f32[n])\n  grid i < n\n    for j < m\n      %0 = f32 load x[i*m + j]\n" \
        "      %1 = f32 reduce sum %0 over j\n    do\n      %2 = f32 store y[i], %1\n"
    np.testing.assert_array_equal(run(sums, {"n": 3, "m": 0}, [])[0], [0, 0, 0])


@pytest.mark.parametrize(("word", "dtype", "empty"), [
    ("sum", "f32", 0), ("prod", "bf16", 1), ("max", "f64", -np.inf), ("min", "f16", np.inf), ("max", "i8", -128), ("min", "u16", 65535),
    ("max", "bool", False), ("min", "bool", True), ("all", "bool", True), ("any", "bool", False), ("prod", "i64", 1), ("sum", "c64", 0),
    ("argmax", "f32", 0), ("argmin", "i32", 0),
])
@pytest.mark.parametrize("block", [3, 1 << 22])
def test_every_reduction(word: str, dtype: str, empty: Any, block: int) -> None:
    """In the stage and over the grid, of something and of nothing."""
    result = "i64" if word.startswith("arg") else dtype
    inner = f"kernel f(x: in {dtype}[n], y: out {result}[1])\n  grid\n    for j < n\n      %0 = {dtype} load x[j]\n" \
        f"      %1 = {result} reduce {word} %0 over j\n    do\n      %2 = {result} store y[0], %1\n"
    grid = f"kernel f(x: in {dtype}[n], y: out {result}[1])\n  grid j < n\n    do\n      %0 = {dtype} load x[j]\n" \
        f"      %1 = {result} reduce {word} %0 over j\n  finish\n    do\n      %2 = {result} store y[0], %1\n"
    numpy_dtype = parse_kernel(inner).operands[0].dtype
    x = np.array([3, 1, 0, 2, 3, 1, 0, 1]).astype(numpy_dtype)
    wide = x.astype(np.float32) if dtype in ("bf16", "f16") else x
    for text in (inner, grid):
        assert run(text, {"n": 0}, x[:0], block=block)[0] == np.asarray(empty).astype(run(text, {"n": 0}, x[:0])[0].dtype)
        assert run(text, {"n": 8}, x, block=block)[0] == getattr(np, word)(wide)


def test_nan_and_ties() -> None:
    for text in (ARGMAX, ARGMAX.replace("i, j, l", "l, i, j")):
        for x in (np.array([[1, 5, 5], [7, 7, 0]]), np.array([[1, np.nan, 5], [np.nan, 0, np.nan]]), np.array([[np.inf, -np.inf, 1], [2, -np.inf, 3]])):
            for block in (1, 100):
                rows, least = run(text, {"n": 2, "m": 3, "k": 1}, x, block=block)
                np.testing.assert_array_equal(rows, np.argmax(x, 1))
                assert least[0] == np.argmin(x)
    assert np.isnan(run(COLUMNS.replace("sum", "max"), {"n": 3, "m": 1}, [np.nan, 1, 2], block=1)[0]).all()
    # positions count through the ranges in the order in which they stand
    swapped = ARGMAX.replace("argmax %0 over j, l", "argmax %0 over l, j")
    assert run(swapped, {"n": 1, "m": 2, "k": 3}, [0, 0, 9, 0, 0, 0])[0] == [4]


def test_half_precisions_are_summed_in_single() -> None:
    for dtype in (np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)):
        text = COLUMNS.replace("f64", "f16" if dtype.kind == "f" else "bf16")
        for block in (1, 1 << 20):
            assert run(text, {"n": 4000, "m": 1}, np.ones(4000, dtype), block=block)[0][0] == np.float32(4000).astype(dtype)


def test_gathers() -> None:
    table, at = RNG(0).normal(size=(4, 3)).astype(np.float32), np.array([3, 0, 3, 1, 2])
    np.testing.assert_array_equal(run(GATHER, {"m": 4, "p": 3, "n": 5}, table, at)[0].reshape(5, 3), table[at])
    assert run(GATHER, {"m": 0, "p": 3, "n": 0}, [], [])[0].size == 0
    for bad in (4, -1):
        with pytest.raises(GraphcIndexError, match=r"kernel rows, %1: position .* of operand table, which has 12 elements"):
            run(GATHER, {"m": 4, "p": 3, "n": 1}, table, [bad])


def test_in_place() -> None:
    x = RNG(0).uniform(1, 2, size=(6, 4)).astype(np.float32)
    for block in (1, 1000):
        np.testing.assert_allclose(run(IN_PLACE, {"n": 6, "m": 4}, x, block=block)[0].reshape(6, 4), x / x.sum(1, keepdims=True), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(kernels(), st.integers(0, 99))
def test_random_kernels_run_as_their_loops_say(kernel: Kernel, seed: int) -> None:
    verify_kernel(kernel)
    rng = RNG(seed)
    env = {s.symbol: int(rng.integers(1, 4)) for s in (dims.dim("n"), dims.dim("m"), dims.dim("i"))}
    given_ = [rng.integers(-3, 4, dims.evaluate(o.size, env)).astype(o.dtype) if o.mode == "in" else None for o in kernel.operands]

    def arrays(env: Any) -> list[Array | None]:
        return [None if o.mode == "temp" else np.full(dims.evaluate(o.size, env), -77.0) if a is None else a
                for o, a in zip(kernel.operands, given_, strict=True)]

    fast, slow, blocks = arrays(env), arrays(env), arrays(env)
    run_kernel(kernel, fast, env)
    run_slowly(kernel, slow, env)
    run_kernel(kernel, blocks, env, block=3)
    for a, b, c in zip(fast, slow, blocks, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    none = {s: max(s.min, 0) for s in symbol_names(kernel)}  # nothing but that it runs
    run_kernel(kernel, [None if o.mode == "temp" else np.zeros(dims.evaluate(o.size, none)) for o in kernel.operands], none)


def test_operands_must_fit() -> None:
    with pytest.raises(InternalError, match=r"operand y is float32\[5\]; it is given float64\[5\]"):
        run_kernel(parse_kernel(CHAIN), [np.zeros(5, np.float32), np.zeros(5), np.zeros(5, np.float32), np.zeros(5, bool)], sizes(n=5))


def test_every_elementwise_op_runs_in_a_kernel() -> None:
    """The words of ``apply`` are the elementwise ops, but for the cast and what has attributes."""
    for op in OPS.values():
        if op.kind != "elementwise" or op.name in ("cast", "polygamma", "real", "imag", "conj", "complex_of"):
            continue
        takes = getattr(op, "accepts", "f")
        dtype = "f32" if "f" in takes else "bool" if takes == "b" else "i64"
        args = ["bool" if op.name == "where" and k == 0 else dtype for k in range(op.nin)]  # type: ignore[attr-defined]
        x = [np.array([0, 1, 1, 0, 1]) for _ in args]
        result = "bool" if getattr(op, "result", "") == "bool" else dtype
        header = ", ".join(f"x{k}: in {d}[n]" for k, d in enumerate(args))
        loads = "".join(f"      %{k} = {d} load x{k}[i]\n" for k, d in enumerate(args))
        n = len(args)
        text = f"kernel f({header}, y: out {result}[n])\n  grid i < n\n    do\n{loads}      %{n} = {result} {op.name} " \
            f"{', '.join(f'%{k}' for k in range(n))}\n      %{n + 1} = {result} store y[i], %{n}\n"
        got, = run(text, {"n": 5}, *x)
        want = op.forward(*(a.astype(parse_kernel(text).operands[k].dtype) for k, a in enumerate(x)))
        np.testing.assert_array_equal(got, want)
