"""Pooling and sliding windows against loops in Python: values, derivatives, ties, NaN, dtypes, sizes, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import graphc as gc
from graphc.ops.sliding import overlap_add, windows

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(6)
BACKENDS = ("reference", "numpy", "llvm")


def each(value: Any, rank: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * rank


def by_loops(x: Array, combine: Any, window: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1) -> Array:
    """``combine(what a window sees of x, how many places it has)`` for each window."""
    rank = x.ndim - 2
    size, spread = each(window, rank), each(dilation, rank)
    steps = size if stride is None else each(stride, rank)
    pairs = [(p, p) if isinstance(p, int) else p for p in each(padding, rank)]
    counts = [max(0, (n + low + high - d * (k - 1) - 1) // s + 1)
              for n, (low, high), k, s, d in zip(x.shape[2:], pairs, size, steps, spread, strict=True)]
    result = np.zeros((*x.shape[:2], *counts))
    for index in np.ndindex(result.shape):
        seen = []
        for k in np.ndindex(*size):
            at = [p * s - low + j * d for p, j, s, d, (low, _) in zip(index[2:], k, steps, spread, pairs, strict=True)]
            if all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
                seen.append(x[(*index[:2], *at)])
        result[index] = combine(np.array(seen), int(np.prod(size)))
    return result


def compiled(inputs: Any, outputs: Any, backend: str = "numpy") -> Any:
    return gc.function(inputs, outputs, mode=gc.Mode(backend=backend))


def leaf(x: Array, known: bool = False) -> Any:
    return gc.tensor("x", shape=x.shape if known else (None,) * x.ndim, dtype=x.dtype)


#: shape, window, options
CASES: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 8), 2, {}),
    ((1, 2, 7), 3, {"stride": 2, "padding": 1}),
    ((1, 1, 9), 2, {"stride": 4}),
    ((2, 1, 5, 6), (2, 3), {}),
    ((1, 2, 7, 6), 3, {"stride": (2, 1), "padding": ((1, 0), 1)}),
    ((1, 1, 5, 4), (1, 4), {"stride": 1}),
    ((1, 2, 4, 3, 5), (2, 2, 3), {"stride": (2, 1, 2), "padding": (1, 0, 1)}),
    ((0, 2, 4), 2, {}), ((2, 2, 2), 3, {"stride": 1}),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Any, backend: str) -> None:
    shape, window, options = case
    x = RNG.permutation(int(np.prod(shape))).reshape(shape) / 7.0 - 2.0
    for known in (False, True):
        v = leaf(x, known)
        outputs = [gc.nn.max_pool(v, window, **options), gc.nn.avg_pool(v, window, **options),
                   gc.nn.avg_pool(v, window, count_padding=False, **options)]
        f = compiled([v], [*outputs, *(gc.grad((y * y).sum() / 2, v) for y in outputs)], backend)
        got = f(x)
        for y, combine in zip(got, (lambda s, n: s.max(), lambda s, n: s.sum() / n, lambda s, n: s.mean()), strict=False):
            want = by_loops(x, combine, window, **options)
            assert y.shape == want.shape
            np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-12)
        for y, g in zip(got[:3], got[3:], strict=True):  # each y is homogeneous: x dy/dx = y
            assert g.shape == shape
            np.testing.assert_allclose((x * g).sum(), (y * y).sum(), rtol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dilated_maximum(backend: str) -> None:
    x = RNG.normal(size=(1, 2, 7, 6))
    v = leaf(x)
    options: dict[str, Any] = {"stride": 1, "dilation": (2, 1), "padding": (1, 0)}
    got = compiled([v], gc.nn.max_pool(v, (3, 2), **options), backend)(x)
    np.testing.assert_array_equal(got, by_loops(x, lambda s, n: s.max(), (3, 2), **options))


@pytest.mark.parametrize("backend", BACKENDS)
def test_powers(backend: str) -> None:
    x = np.abs(RNG.normal(size=(1, 2, 6, 5)))
    v = leaf(x)
    for p in (1, 2, 3, 2.5, np.inf):
        got = compiled([v], gc.nn.lp_pool(v, p, (2, 3), (1, 2)), backend)(x)
        combine = (lambda s, n: s.max()) if p == np.inf else (lambda s, n, p=p: (s ** p).sum() ** (1 / p))
        np.testing.assert_allclose(got, by_loops(x, combine, (2, 3), (1, 2)), rtol=1e-12)
    with np.errstate(all="ignore"):
        odd, even, total = compiled([v], [gc.nn.lp_pool(v, 3, (6, 5)), gc.nn.lp_pool(v, 2, (6, 5)), gc.nn.lp_pool(v, 1, (6, 5))], backend)(-x)
    assert np.isnan(odd).all()
    np.testing.assert_allclose(even[0, 0, 0, 0], np.linalg.norm(x[0, 0]), rtol=1e-12)
    np.testing.assert_allclose(total[0, 0, 0, 0], -x[0, 0].sum(), rtol=1e-12)
    g = compiled([v], gc.grad(sum(gc.nn.lp_pool(v, p, 2).sum() for p in (2, 3)), v), backend)(np.zeros((1, 1, 2, 2)))
    np.testing.assert_array_equal(g, np.zeros((1, 1, 2, 2)))


def test_gradients_by_differences() -> None:
    x = RNG.permutation(24).reshape(1, 1, 4, 6) / 3.0 + 0.2
    gc.verify_grad(lambda v: gc.sin(gc.nn.max_pool(v, 3, 2, 1)), [x])
    gc.verify_grad(lambda v: gc.sin(gc.nn.max_pool(v, 2, 1, dilation=2)), [x])
    gc.verify_grad(lambda v: gc.sin(gc.nn.avg_pool(v, 3, 2, 1)), [x])
    gc.verify_grad(lambda v: gc.sin(gc.nn.avg_pool(v, 3, 2, 1, count_padding=False)), [x])
    gc.verify_grad(lambda v: gc.nn.lp_pool(v, 3, (2, 3), 1), [x])


def test_second_derivatives() -> None:
    x = RNG.permutation(12).reshape(1, 1, 12) / 3.0 + 0.2
    for pool in (lambda v: gc.nn.max_pool(v, 3, 2, 1), lambda v: gc.nn.avg_pool(v, 3, 2, 1, count_padding=False), lambda v: gc.nn.lp_pool(v, 2, 3, 2)):
        gc.verify_grad(lambda v, pool=pool: gc.grad(gc.sin(pool(v)).sum(), v), [x])
        v, t = leaf(x), gc.tensor("t", shape=(None,) * 3)
        forward = compiled([v, t], gc.jvp(gc.sum(gc.sin(pool(v))), v, t))
        gradient = compiled([v], gc.grad(gc.sum(gc.sin(pool(v))), v))
        np.testing.assert_allclose(forward(x, 2 * x), (2 * x * gradient(x)).sum(), rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_share_the_gradient_and_nan_wins(backend: str) -> None:
    v = gc.tensor("x", shape=(1, 1, None))
    y = gc.nn.max_pool(v, 3)
    f = compiled([v], [y, gc.grad(y.sum(), v)], backend)
    _, g = f([[[1.0, 2.0, 2.0, 5.0, 4.0, 3.0]]])
    np.testing.assert_array_equal(g, [[[0, 0.5, 0.5, 1, 0, 0]]])
    values, _ = f([[[1.0, np.nan, 2.0, -np.inf, -np.inf, -np.inf]]])
    np.testing.assert_array_equal(values, [[[np.nan, -np.inf]]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int8", "uint16", "int64", "bool"])
def test_dtypes(dtype: str, backend: str) -> None:
    v = gc.tensor("x", shape=(None,) * 3, dtype=dtype)
    x = RNG.integers(0 if dtype in ("uint16", "bool") else -8, 2 if dtype == "bool" else 9, (2, 2, 7)).astype(v.dtype)
    y, z = gc.nn.max_pool(v, 3, 2, 1), gc.nn.avg_pool(v, 2, 1)
    top, mean = compiled([v], [y, z], backend)(x)
    floating = dtype in ("float16", "bfloat16", "float32")
    assert top.dtype == x.dtype and mean.dtype == (x.dtype if floating else np.float64)
    np.testing.assert_array_equal(top.astype(float), by_loops(x.astype(float), lambda s, n: s.max(), 3, 2, 1))
    np.testing.assert_array_equal(mean.astype(float), by_loops(x.astype(float), lambda s, n: s.sum() / n, 2, 1))


def test_half_precisions_are_computed_in_float32() -> None:
    x = np.full((1, 1, 64), 3000.0, np.float16)
    v = leaf(x)
    f = compiled([v], [gc.nn.avg_pool(v, 64), gc.nn.avg_pool(v, 64, padding=((1, 0),), count_padding=False), gc.nn.lp_pool(v, 2, 64)])
    mean, counted, length = f(x)
    assert mean.item() == 3000.0 and counted.item() == 3000.0 and length.item() == 24000.0 and length.dtype == np.float16


def test_one_function_for_all_sizes() -> None:
    v = gc.tensor("x", shape=(None,) * 4)
    for backend in BACKENDS:
        f = compiled([v], [gc.nn.max_pool(v, 2, 1, 1), gc.grad(gc.nn.avg_pool(v, 3, 2, 1).sum(), v)], backend)
        for shape in ((1, 2, 3, 4), (2, 1, 1, 2), (1, 1, 6, 5)):
            x = RNG.normal(size=shape)
            y, g = f(x)
            np.testing.assert_array_equal(y, by_loops(x, lambda s, n: s.max(), 2, 1, 1))
            np.testing.assert_allclose((x * g).sum(), by_loops(x, lambda s, n: s.sum() / n, 3, 2, 1).sum(), rtol=1e-10)


# ---- windows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_windows_and_their_transpose(backend: str) -> None:
    x = RNG.normal(size=(4, 5, 6))
    v = leaf(x)
    f = compiled([v], windows(v, (2, 3), (1, 1), (1, 1), (0, 2)), backend)
    np.testing.assert_array_equal(f(x), sliding_window_view(x, (2, 3), (0, 2)))
    y = windows(v, (2,), (1,), (2,), (1,))
    u = gc.tensor("u", shape=y.type.shape)
    np.testing.assert_array_equal(compiled([v], y, backend)(x), np.stack([x[:, :3], x[:, 2:]], -1))
    g = RNG.normal(size=(4, 3, 6, 2))
    back = compiled([v, u], overlap_add(u, (v.type.shape[1],), (2,), (1,), (2,), (1,)) + 0 * v, backend)(x, g)
    want = np.zeros((4, 5, 6))
    want[:, :3] += g[..., 0]
    want[:, 2:] += g[..., 1]
    np.testing.assert_allclose(back, want, rtol=1e-12)


def test_windows_that_cover_their_operand_are_no_view_of_it() -> None:
    x = np.arange(6.0)
    v = leaf(x)
    for backend in BACKENDS:
        exp, seen = compiled([v], [gc.exp(v), windows(gc.exp(v), (3,), (2,), (1,), (0,))], backend)(x)
        seen += 1
        np.testing.assert_allclose(exp, np.exp(x), rtol=1e-12)
        np.testing.assert_allclose(seen, np.exp(x)[[[0, 1, 2], [2, 3, 4]]] + 1, rtol=1e-12)


def test_sizes_that_data_tell() -> None:
    v = gc.tensor("x", shape=(None,))
    part = v[v > 0]
    y = gc.nn.avg_pool(gc.reshape(part, (1, 1, part.shape[0])), 2, 1)
    x = np.array([1.0, -1.0, 2.0, 4.0])
    for backend in BACKENDS:
        value, g = compiled([v], [y, gc.grad(y.sum(), v)], backend)(x)
        np.testing.assert_array_equal(value, [[[1.5, 3.0]]])
        np.testing.assert_array_equal(g, [0.5, 0.0, 1.0, 0.5])


# ---- messages -------------------------------------------------------------------------------------


X = gc.tensor("x", shape=("n", 4, "h", "w"))


@pytest.mark.parametrize("build, message", [
    (lambda: gc.nn.max_pool(gc.matrix("x"), 2), r"max_pool: x is \(batch, channels, \*space\).*rank 3 to 5"),
    (lambda: gc.nn.max_pool(X, 0), "max_pool: window is at least 1; got 0"),
    (lambda: gc.nn.max_pool(X, (2,)), r"max_pool: window is one int, or one for each of 2 spatial axes; got \(2,\)"),
    (lambda: gc.nn.max_pool(X, 2, 0), "max_pool: stride is at least 1; got 0"),
    (lambda: gc.nn.max_pool(X, 2, padding=2), "max_pool: padding is at most half of what a window spans, 2; got 2"),
    (lambda: gc.nn.max_pool(X, 2, dilation="1"), "max_pool: dilation: ints, known when the graph is built, expected; got '1'"),
    (lambda: gc.nn.max_pool(gc.ctensor3("x"), 2), "max_pool: complex numbers have no order"),
    (lambda: gc.nn.avg_pool(X, 2, padding=-1), "avg_pool: padding is not negative; got -1"),
    (lambda: gc.nn.avg_pool(X, gc.lscalar("k")), "avg_pool: window: ints, known when the graph is built"),
    (lambda: gc.nn.lp_pool(X, 0, 2), "lp_pool: p is greater than 0; got 0"),
    (lambda: gc.nn.lp_pool(X, "2", 2), "lp_pool: p is a number, known when the graph is built; got '2'"),
    (lambda: gc.nn.lp_pool(gc.ctensor3("x"), 2, 2), "lp_pool: real numbers expected"),
    (lambda: windows(X, (2,), (1,), (1,), (4,)), r"windows: the attribute axes is \(4,\) for a value of rank 4"),
    (lambda: windows(X, (0,), (1,), (1,), (2,)), "windows: 1 windows, strides and dilations >= 1 expected"),
    (lambda: overlap_add(gc.tensor("u", shape=(3, 2)), (5,), (2,), (1,), (1,), (0,)), r"windows of \(2,\) in axes .* have size 4 on axis 0"),
])
def test_messages(build: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match="(?s)" + message):
        build()
