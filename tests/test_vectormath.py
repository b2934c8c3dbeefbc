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
    "gammaln": [((1.0,), 0.0), ((2.0,), 0.0), ((0.0,), inf), ((-1.0,), inf), ((inf,), inf), ((nan,), nan)],
    "digamma": [((-1.0,), nan), ((inf,), inf), ((nan,), nan)],
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
    if name in ("gammaln", "digamma"):  # between the negative whole numbers the promise is another one
        arguments = [np.abs(a) for a in arguments]
    if name == "digamma":
        arguments = [np.where(a == 0, np.ones_like(a), a) for a in arguments]
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


@pytest.mark.parametrize("name", ["tanh", "pow", "log", "gammaln", "sin"])
def test_neighbours_do_not_matter(name: str) -> None:
    """A lane that needs the slow path does not change the others."""
    arguments, _ = _points(name, "f32")
    run = accuracy.Compiled(name, "f32", host(), host().bits // 32)
    order = np.random.default_rng(3).permutation(arguments[0].size)
    straight, shuffled = run(*arguments), run(*[a[order] for a in arguments])
    np.testing.assert_array_equal(straight[order], shuffled)
