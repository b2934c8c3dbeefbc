"""Trigonometric and special functions of the LLVM backend: special values, and errors in ULP, for several processors and widths."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest
import scipy.special

from graphc.backends.llvm.target import Target, host
from graphc.backends.llvm.values import BITS, LLVM, Body, Module, type_text
from graphc.backends.llvm.vectormath import special, trigonometric

Array = np.ndarray[Any, Any]

FUNCTIONS = {**trigonometric.FUNCTIONS, **special.FUNCTIONS}
TWO_ARGUMENTS = ("atan2", "hypot")
TARGETS = {"host": (), "no avx512f": ("avx512f",), "no avx2": ("avx2",)}
DTYPES = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
NUMPY: dict[str, Callable[..., Any]] = {
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": np.arctan2, "hypot": np.hypot,
    "erf": scipy.special.erf, "erfc": scipy.special.erfc, "erfinv": scipy.special.erfinv, "gammaln": scipy.special.gammaln,
    "digamma": scipy.special.digamma}
#: what is promised, in ULP
PROMISED = {name: 4.0 if name in ("gammaln", "digamma") else 2.0 for name in FUNCTIONS}
#: exact answers for the functions that longdouble lacks
EXACT: dict[str, Callable[[Any], Any]] = {
    "erf": mpmath.erf, "erfc": lambda x: mpmath.erfc(min(x, 1000)), "erfinv": mpmath.erfinv, "digamma": mpmath.digamma,
    "gammaln": lambda x: mpmath.re(mpmath.loggamma(x))}
INF, NAN = float("inf"), float("nan")


def target_of(name: str) -> Target:
    return host().without(*TARGETS[name]) if TARGETS[name] else host()


@functools.cache
def compiled(name: str, kind: str, target_name: str, lanes: int) -> Callable[..., Array]:
    """The function over arrays whose size is a multiple of the lanes."""
    target = target_of(target_name)
    arguments = ["a", "b"][:2 if name in TWO_ARGUMENTS else 1]
    module = Module(target)
    body = Body(module, "kernel", [("ptr", a) for a in [*arguments, "out"]] + [("i64", "n")])
    vector = type_text(kind, lanes)
    with body.loop(body.const(0, "i64"), body.value("%n", "i64"), body.const(max(lanes, 1), "i64")) as loop:
        def place(array: str) -> str:
            return body.op(f"getelementptr {LLVM[kind]}, ptr %{array}, i64 {loop.index.ref}")
        values = [body.value(body.op(f"load {vector}, ptr {place(a)}, align {BITS[kind] // 8}"), kind, lanes) for a in arguments]
        result = FUNCTIONS[name](*values)
        assert (result.kind, result.lanes) == (kind, lanes)
        body.line(f"store {vector} {result.ref}, ptr {place('out')}, align {BITS[kind] // 8}")
    body.finish()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, features=target.feature_text, opt=2, jit=True)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    native = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(arguments) + 1), ctypes.c_int64)(engine.get_function_address("kernel"))

    def call(*arrays: Array) -> Array:
        size = arrays[0].size
        padded = [np.resize(a, -(-size // max(lanes, 1)) * max(lanes, 1)).astype(DTYPES[kind]) for a in arrays]
        out = np.empty_like(padded[0])
        native(*[a.ctypes.data for a in padded], out.ctypes.data, out.size)
        return out[:size]

    call.engine = engine  # type: ignore[attr-defined]  # the code lives as long as this
    return call


def points(name: str, kind: str, count: int) -> list[Array]:
    """Arguments over the whole range, more of them where the function does something."""
    draw = np.random.default_rng(7)
    dtype = DTYPES[kind]
    bits = np.dtype(f"i{dtype.itemsize}")
    some = count // 5

    def anything() -> Array:
        x = draw.integers(np.iinfo(bits).min, np.iinfo(bits).max, 2 * some, dtype=bits).view(dtype)
        return x[np.isfinite(x)][:some]

    def tiny() -> Array:
        return draw.integers(1, 1 << (23 if kind == "f32" else 52), some, dtype=bits).view(dtype)

    if name in TWO_ARGUMENTS:
        a = np.concatenate([anything(), tiny(), draw.normal(size=3 * some).astype(dtype)])[:4 * some]
        b = np.concatenate([draw.normal(size=some).astype(dtype), tiny(), draw.normal(size=2 * some).astype(dtype)])
        return [a[:b.size], b[:a.size]]
    spread = draw.normal(size=some)
    parts = [anything(), tiny(), spread, 2.0 ** draw.uniform(-20, 2, some)]
    if name in ("asin", "acos", "erfinv"):
        parts += [draw.uniform(-1, 1, some), np.nextafter(np.ones(1, dtype), dtype.type(0))]
        parts = [p[abs(p.astype(np.float64)) < 1] for p in parts]
    elif name in ("sin", "cos", "tan"):
        parts += [draw.uniform(-1e6, 1e6, some), np.arange(some) * (np.pi / 2), np.array([6381956970095103 * 2.0**66, 2.0**17, 2.0**20, 1e22])]
    elif name == "erfc":
        parts += [draw.uniform(0, 10.1 if kind == "f32" else 27.3, some), -10 * spread]
    elif name in ("gammaln", "digamma"):
        parts = [abs(p) for p in parts] + [draw.uniform(0, 40, some), 1 + spread * 1e-4, 2 + spread * 1e-4, 1.4616321449683622 + spread * 1e-4]
    else:
        parts += [5 * spread, 1000 * spread]
    with np.errstate(over="ignore"):
        x = np.concatenate([p.astype(dtype) for p in parts])
    return [x[np.isfinite(x)]]


def ulps(got: Array, exact: Array) -> float:
    """The largest error in units of the last place of the exact result; infinite where one is NaN or of another sign."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        exponent = np.frexp(np.where(np.isfinite(rounded), abs(exact), 1))[1]
        unit = np.ldexp(exact.dtype.type(1), np.maximum(exponent - (info.nmant + 1), info.minexp - info.nmant))
        error = abs(got.astype(exact.dtype) - exact) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(exact))
    error = np.where(np.isfinite(rounded) & np.isfinite(got), error, np.where(same, 0, np.inf))
    return float(np.where((np.signbit(got) == np.signbit(rounded)) | np.isnan(got), error, np.inf).max())


@functools.cache
def answers(name: str, kind: str) -> tuple[list[Array], Array]:
    """Arguments and exact results: float64 for f32, longdouble for f64."""
    if kind == "f32":
        x = points(name, kind, 10_000)
        with np.errstate(all="ignore"):
            return x, np.asarray(NUMPY[name](*[a.astype(np.float64) for a in x]))
    if name not in EXACT:
        x = points(name, kind, 10_000)
        with np.errstate(all="ignore"):
            return x, np.asarray(NUMPY[name](*[a.astype(np.longdouble) for a in x]))
    (x64,) = points(name, kind, 120 if name == "erfinv" else 250)
    with mpmath.workprec(150):
        values = [EXACT[name](mpmath.mpf(float(v))) for v in x64]
        parts = [(float(v), float(v - mpmath.mpf(float(v))) if mpmath.isfinite(v) and np.isfinite(float(v)) else 0.0) for v in values]
    high, low = np.array(parts).astype(np.longdouble).T
    return [x64], high + low


@pytest.mark.parametrize("lanes", [0, 1, 4, 16])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_accuracy(name: str, kind: str, target: str, lanes: int) -> None:
    arguments, exact = answers(name, kind)
    assert ulps(compiled(name, kind, target, lanes)(*arguments), exact) <= PROMISED[name]


def test_longdouble_is_wider() -> None:
    """Else the answers for f64 would be no better than what is tested."""
    assert np.finfo(np.longdouble).nmant >= 63


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
    "acos": [(1.0, 0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (INF, np.pi / 2), (-INF, -np.pi / 2)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (7.0, 1.0), (-7.0, -1.0)],
    "erfc": [(0.0, 1.0), (-0.0, 1.0), (INF, 0.0), (-INF, 2.0), (28.0, 0.0), (-28.0, 2.0)],
    "erfinv": [(0.0, 0.0), (-0.0, -0.0), (1.0, INF), (-1.0, -INF), (1.5, NAN), (-INF, NAN)],
    "gammaln": [(0.0, INF), (-0.0, INF), (1.0, 0.0), (2.0, 0.0), (-1.0, INF), (-7.0, INF), (-1e30, INF), (INF, INF), (-INF, INF)],
    "digamma": [(0.0, -INF), (-0.0, INF), (-1.0, NAN), (-7.0, NAN), (-1e30, NAN), (INF, INF), (-INF, NAN)]}


@pytest.mark.parametrize("lanes", [0, 1, 4, 16])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", sorted(SPECIAL))
def test_special_values(name: str, kind: str, target: str, lanes: int) -> None:
    x, want = np.array([*SPECIAL[name], (NAN, NAN)]).astype(DTYPES[kind]).T
    got = compiled(name, kind, target, lanes)(np.ascontiguousarray(x))
    assert np.array_equal(got, want, equal_nan=True), (x, got)
    assert np.array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(want[~np.isnan(want)]))


@pytest.mark.parametrize("lanes", [0, 1, 4, 16])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", TWO_ARGUMENTS)
def test_special_pairs(name: str, kind: str, target: str, lanes: int) -> None:
    """All pairs of special numbers, against NumPy: signs of zeros and infinities count, an infinity beats a NaN in hypot."""
    info = np.finfo(DTYPES[kind])
    numbers = np.array([0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, float(info.tiny), -float(info.smallest_subnormal), float(info.max)])
    a, b = (v.ravel().astype(DTYPES[kind]) for v in np.meshgrid(numbers, numbers))
    with np.errstate(all="ignore"):
        want = NUMPY[name](a, b)
    assert ulps(compiled(name, kind, target, lanes)(a, b), want) <= 2


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["gammaln", "digamma"])
@pytest.mark.parametrize("kind", ["f32", "f64"])
def test_negative_arguments(name: str, kind: str, target: str) -> None:
    """Reflection: the result is a difference that cancels near the roots between the poles."""
    x = -np.random.default_rng(3).uniform(0, 30, 200).astype(DTYPES[kind])
    with mpmath.workprec(150):
        values = [EXACT[name](mpmath.mpf(float(v))) for v in x]
        high, low = np.array([(float(v), float(v - mpmath.mpf(float(v)))) for v in values]).astype(np.longdouble).T
    assert ulps(compiled(name, kind, target, 4)(x), high + low) <= PROMISED[name]


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", ["sin", "cos", "erf"])
def test_never_beyond_one(name: str, kind: str) -> None:
    x = np.linspace(-8, 8, 20_001).astype(DTYPES[kind])
    assert abs(compiled(name, kind, "host", 16)(x)).max() <= 1
