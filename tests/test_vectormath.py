"""The vector functions of the LLVM backend: special values and the error in ULP, for every form of the code.

The references and the measure of an error are those of benchmarks/accuracy.py, which looks at many more points.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from graphc.backends.llvm.target import Target, host
from graphc.backends.llvm.vectormath import FUNCTIONS


def _load() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "accuracy.py"
    spec = importlib.util.spec_from_file_location("vector_accuracy", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


accuracy = _load()
inf, nan = math.inf, math.nan

#: arguments -> result, the same in both kinds
SPECIAL: dict[str, list[tuple[tuple[float, ...], float]]] = {
    "exp": [((0.0,), 1.0), ((-0.0,), 1.0), ((inf,), inf), ((-inf,), 0.0), ((1e30,), inf), ((-1e30,), 0.0), ((nan,), nan)],
    "exp2": [((0.0,), 1.0), ((-0.0,), 1.0), ((inf,), inf), ((-inf,), 0.0), ((1e30,), inf), ((-1e30,), 0.0), ((3.0,), 8.0), ((nan,), nan)],
    "expm1": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), inf), ((-inf,), -1.0), ((1e30,), inf), ((-1e30,), -1.0), ((nan,), nan)],
    "sigmoid": [((0.0,), 0.5), ((inf,), 1.0), ((-inf,), 0.0), ((1e30,), 1.0), ((-1e30,), 0.0), ((nan,), nan)],
    "softplus": [((inf,), inf), ((-inf,), 0.0), ((1e30,), 1e30), ((-1e30,), 0.0), ((nan,), nan)],
    "tanh": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), 1.0), ((-inf,), -1.0), ((1e30,), 1.0), ((-1e30,), -1.0), ((nan,), nan)],
    "sinh": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), inf), ((-inf,), -inf), ((1e30,), inf), ((-1e30,), -inf), ((nan,), nan)],
    "cosh": [((0.0,), 1.0), ((-0.0,), 1.0), ((inf,), inf), ((-inf,), inf), ((1e30,), inf), ((nan,), nan)],
    "log1mexp": [((0.0,), -inf), ((-0.0,), -inf), ((-inf,), -0.0), ((-1e30,), -0.0), ((1.0,), nan), ((1e30,), nan), ((inf,), nan), ((nan,), nan)],
    "logaddexp": [((inf, inf), inf), ((-inf, -inf), -inf), ((inf, -inf), inf), ((-inf, 3.0), 3.0), ((3.0, -inf), 3.0), ((inf, 1.0), inf),
                  ((nan, 1.0), nan), ((1.0, nan), nan), ((inf, nan), nan), ((1e30, -1e30), 1e30)],
    "log": [((0.0,), -inf), ((-0.0,), -inf), ((1.0,), 0.0), ((inf,), inf), ((-1.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "log2": [((0.0,), -inf), ((-0.0,), -inf), ((1.0,), 0.0), ((8.0,), 3.0), ((inf,), inf), ((-1.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "log10": [((0.0,), -inf), ((-0.0,), -inf), ((1.0,), 0.0), ((inf,), inf), ((-1.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "log1p": [((0.0,), 0.0), ((-0.0,), -0.0), ((-1.0,), -inf), ((inf,), inf), ((-2.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "asinh": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), inf), ((-inf,), -inf), ((nan,), nan)],
    "acosh": [((1.0,), 0.0), ((inf,), inf), ((0.5,), nan), ((-2.0,), nan), ((-1e30,), nan), ((-inf,), nan), ((nan,), nan)],
    "atanh": [((0.0,), 0.0), ((-0.0,), -0.0), ((1.0,), inf), ((-1.0,), -inf), ((2.0,), nan), ((-inf,), nan), ((inf,), nan), ((nan,), nan)],
    "xlogy": [((0.0, 0.0), 0.0), ((0.0, -1.0), 0.0), ((0.0, inf), 0.0), ((-0.0, 2.0), 0.0), ((0.0, nan), nan), ((nan, 1.0), nan), ((2.0, 0.0), -inf),
              ((-2.0, 0.0), inf), ((2.0, inf), inf), ((inf, 0.5), -inf), ((inf, 1.0), nan), ((1.0, -1.0), nan), ((-inf, 3.0), -inf)],
    "pow": [((nan, 0.0), 1.0), ((0.0, 0.0), 1.0), ((inf, -0.0), 1.0), ((1.0, nan), 1.0), ((1.0, inf), 1.0), ((-1.0, inf), 1.0), ((-1.0, -inf), 1.0),
            ((-2.0, 3.0), -8.0), ((-2.0, 4.0), 16.0), ((-2.0, 0.5), nan), ((-2.0, 1e30), inf), ((0.0, 3.0), 0.0), ((-0.0, 3.0), -0.0),
            ((-0.0, 2.0), 0.0), ((-0.0, 0.5), 0.0), ((0.0, -1.0), inf), ((-0.0, -1.0), -inf), ((-0.0, -2.0), inf), ((-0.0, -0.5), inf),
            ((inf, 2.0), inf), ((inf, -2.0), 0.0), ((-inf, 3.0), -inf), ((-inf, 2.0), inf), ((-inf, 0.5), inf), ((-inf, -3.0), -0.0),
            ((-inf, -2.0), 0.0), ((2.0, inf), inf), ((2.0, -inf), 0.0), ((0.5, inf), 0.0), ((0.5, -inf), inf), ((-0.5, -inf), inf),
            ((nan, 1.0), nan), ((2.0, nan), nan), ((-2.0, nan), nan), ((3.0, 1.0), 3.0), ((-1.0, 12345.0), -1.0), ((2.0, -1.0), 0.5)],
    "sin": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), nan), ((-inf,), nan), ((nan,), nan)],
    "cos": [((0.0,), 1.0), ((-0.0,), 1.0), ((inf,), nan), ((-inf,), nan), ((nan,), nan)],
    "tan": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), nan), ((-inf,), nan), ((nan,), nan)],
    "asin": [((0.0,), 0.0), ((-0.0,), -0.0), ((2.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "acos": [((1.0,), 0.0), ((2.0,), nan), ((-inf,), nan), ((nan,), nan)],
    "atan": [((0.0,), 0.0), ((-0.0,), -0.0), ((nan,), nan)],
    "atan2": [((0.0, 1.0), 0.0), ((-0.0, 1.0), -0.0), ((0.0, 0.0), 0.0), ((-0.0, 0.0), -0.0), ((1.0, inf), 0.0), ((-1.0, inf), -0.0),
              ((nan, 1.0), nan), ((1.0, nan), nan)],
    "hypot": [((3.0, 4.0), 5.0), ((0.0, -0.0), 0.0), ((inf, nan), inf), ((nan, -inf), inf), ((nan, 1.0), nan), ((-3.0, 0.0), 3.0)],
    "erf": [((0.0,), 0.0), ((-0.0,), -0.0), ((inf,), 1.0), ((-inf,), -1.0), ((nan,), nan)],
    "erfc": [((0.0,), 1.0), ((inf,), 0.0), ((-inf,), 2.0), ((nan,), nan)],
    "erfinv": [((0.0,), 0.0), ((-0.0,), -0.0), ((1.0,), inf), ((-1.0,), -inf), ((2.0,), nan), ((nan,), nan)],
    "gammaln": [((1.0,), 0.0), ((2.0,), 0.0), ((0.0,), inf), ((-0.0,), inf), ((-1.0,), inf), ((inf,), inf), ((-inf,), inf), ((nan,), nan)],
    "digamma": [((0.0,), -inf), ((-0.0,), inf), ((-1.0,), nan), ((inf,), inf), ((-inf,), nan), ((nan,), nan)],
}


def _forms(kind: str) -> list[tuple[Target, int]]:
    """(target, lanes): every form of the code, and lanes that do and do not fill a register."""
    whole = host().bits // (32 if kind == "f32" else 64)
    narrow, old = host().without("avx512f"), host().without("avx2")
    return [(host(), whole), (host(), 16), (host(), 4), (host(), 1), (host(), 0), (narrow, 8), (narrow, 16), (old, 4), (old, 0)]


@functools.cache
def _points(name: str, kind: str) -> tuple[list[Any], Any]:
    rng = np.random.default_rng(7)
    reference = accuracy.REFERENCES[name]
    slow = kind == "f64" and (reference.long is None or accuracy.LONG is None)
    arguments = accuracy.arguments(name, kind, 400 if slow else 20_000, rng)
    truth, _ = accuracy.truth(name, kind, arguments)
    return arguments, truth


def test_every_function_is_here() -> None:
    assert set(SPECIAL) == set(FUNCTIONS) == set(accuracy.REFERENCES)


@pytest.mark.parametrize("kind", ["f32", "f64"])
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_function(name: str, kind: str) -> None:
    dtype = accuracy.DTYPES[kind]
    cases = SPECIAL[name]
    columns = [np.array(c, dtype) for c in zip(*[arguments for arguments, _ in cases], strict=True)]
    expected = np.array([result for _, result in cases], dtype)
    arguments, truth = _points(name, kind)
    limit = accuracy.REFERENCES[name].limit
    for target, lanes in dict.fromkeys(_forms(kind)):
        run = accuracy.Compiled(name, kind, target, lanes)
        got = run(*columns)
        right = ((got == expected) & (np.signbit(got) == np.signbit(expected))) | (np.isnan(got) & np.isnan(expected))
        assert right.all(), (target.bits, lanes, [(c, g) for c, g, r in zip(cases, got, right, strict=True) if not r])
        errors = accuracy.ulps(run(*arguments), truth)
        worst = int(np.argmax(errors))
        assert errors[worst] <= limit, (target.bits, lanes, errors[worst], [float(a[worst]) for a in arguments])


def _right(name: str, arguments: list[Any], limit: float) -> None:
    """float64 in every form against mpmath."""
    truth = accuracy._by_mpmath(accuracy.REFERENCES[name], arguments)
    for target, lanes in dict.fromkeys(_forms("f64")):
        errors = accuracy.ulps(accuracy.Compiled(name, "f64", target, lanes)(*arguments), truth)
        worst = int(np.argmax(errors))
        assert errors[worst] <= limit, (target.bits, lanes, errors[worst], [float(a[worst]) for a in arguments])


def _steps(x: Any, steps: range) -> Any:
    """The floats that are so many steps away from those of ``x``, which are not 0."""
    return np.concatenate([(x.view(np.int64) + k).view(np.float64) for k in steps])


@pytest.mark.parametrize("name", ["gammaln", "digamma"])
def test_next_to_roots(name: str) -> None:
    """Between the negative whole numbers: the floats around each root, and all distances from it."""
    rng = np.random.default_rng(5)
    roots = np.array(accuracy.GAMMALN_ROOTS if name == "gammaln" else accuracy.DIGAMMA_ROOTS[:40] + accuracy.DIGAMMA_ROOTS[40::9])
    gap = np.abs(roots - np.rint(roots))
    away = [roots + rng.choice([-1.0, 1.0], roots.size) * gap * 10.0 ** rng.uniform(-12, -0.1, roots.size) for _ in range(8)]
    _right(name, [np.concatenate([_steps(roots, range(-3, 4)), *away])], 3.0)


@pytest.mark.parametrize("name", ["gammaln", "digamma"])
def test_negative_arguments(name: str) -> None:
    """Near the poles, where the pieces of the code meet, and anywhere."""
    rng = np.random.default_rng(6)
    n = np.concatenate([np.arange(1.0, 31.0), np.rint(10.0 ** rng.uniform(1.5, 14, 60))])
    at = [-n - part for part in (1 / 128, 0.25, 0.5, 63 / 64, 127 / 128)]
    poles = [_steps(-n, range(1, 3)), _steps(-n, range(-2, 0))]
    x = np.concatenate([*at, *poles, -rng.uniform(0, 30, 400), -(10.0 ** rng.uniform(-300, 15, 300)), np.nextafter([-0.5, -10.0, -20.0], 0.0)])
    _right(name, [x[x != np.rint(x)]], 4.0)


def test_logaddexp_near_zero() -> None:
    """Up to 46 bits of the terms cancel, for terms of all sizes; and in subnormal numbers."""
    rng = np.random.default_rng(8)
    a = -np.concatenate([10.0 ** rng.uniform(-300, 2.8, 1000), rng.uniform(0.5, 3, 500), 10.0 ** rng.uniform(-322, -300, 200)])
    with np.errstate(all="ignore"):
        b = np.where(a > -1e-16, np.log(-a), np.log(-np.expm1(a))) * (1 + rng.choice([-1.0, 1.0], a.size) * 10.0 ** rng.uniform(-14, 0, a.size))
    swapped = rng.integers(0, 2, a.size) > 0
    _right("logaddexp", [np.where(swapped, b, a), np.where(swapped, a, b)], 2.0)


@pytest.mark.parametrize("name", ["tanh", "pow", "log", "gammaln", "sin"])
def test_neighbours_do_not_matter(name: str) -> None:
    """A lane that needs the slow path does not change the others."""
    arguments, _ = _points(name, "f32")
    run = accuracy.Compiled(name, "f32", host(), host().bits // 32)
    order = np.random.default_rng(3).permutation(arguments[0].size)
    straight, shuffled = run(*arguments), run(*[a[order] for a in arguments])
    np.testing.assert_array_equal(straight[order], shuffled)
