"""gc.nn.attention against its formula in NumPy: masks, lengths, leading axes, dtypes, gradients, what it refuses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc as gc
from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError

Array = np.ndarray[Any, np.dtype[Any]]
BACKENDS = ("reference", "numpy", "llvm", "interpreter")
rng = np.random.default_rng(7)


def by_formula(q: Array, k: Array, v: Array, mask: Array | None = None, causal: bool = False) -> Array:
    """In float64; a row of nothing gives 0."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    s = q @ np.swapaxes(k, -1, -2) / math.sqrt(max(q.shape[-1], 1))
    allowed = np.ones(s.shape, bool) if mask is None else np.broadcast_to(mask, s.shape)
    if causal:
        allowed = allowed & (np.arange(s.shape[-2])[:, None] >= np.arange(s.shape[-1]))
    s = np.where(allowed, s, -np.inf)
    top = s.max(axis=-1, keepdims=True, initial=-1e300)
    e = np.where(allowed, np.exp(s - top), 0)
    total = e.sum(axis=-1, keepdims=True)
    return np.asarray(e / np.where(total == 0, 1, total) @ v)


def filled(*shapes: tuple[int, ...]) -> list[Array]:
    return [rng.normal(size=shape) for shape in shapes]


def leaves(arrays: list[Array], known: bool = False) -> list[Any]:
    return [gc.tensor(f"x{n}", shape=a.shape if known else (None,) * a.ndim, dtype=a.dtype) for n, a in enumerate(arrays)]


def called(arrays: list[Array], backend: str = "llvm", known: bool = False, **options: Any) -> Array:
    xs = leaves(arrays, known)
    with gc.config(verify=True):
        f = gc.function(xs, gc.nn.attention(*xs, **options), mode=gc.Mode(backend=backend))
    return np.asarray(f(*arrays))


def mask_of(*shape: int) -> Array:
    """Every row allows something."""
    mask = rng.random(shape) < 0.6
    mask[..., 0] = True
    return mask


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_values(backend: str, causal: bool) -> None:
    """T and S alike or not, with a mask for every query and key, for each key, for each query, for each matrix, or without one."""
    for t, s, masks in ((5, 5, [None, (5, 5)]), (7, 4, [(2, 1, 4), (7, 1)]), (3, 9, [(2, 3, 9)])):
        arrays = filled((2, t, 6), (2, s, 6), (2, s, 3))
        for shape in masks:
            given = arrays if shape is None else [*arrays, mask_of(*shape)]
            np.testing.assert_allclose(called(given, backend, causal=causal), by_formula(*given, causal=causal), rtol=1e-12, atol=1e-14, err_msg=f"{t}, {s}, {shape}")


@pytest.mark.parametrize("shapes", [
    ((5, 4), (6, 4), (6, 2)),
    ((2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 2)),
    ((2, 3, 5, 4), (2, 1, 6, 4), (2, 1, 6, 2)),  # queries of several heads share keys
    ((2, 3, 5, 4), (6, 4), (6, 2)),
    ((5, 4), (3, 6, 4), (2, 1, 6, 2)),  # queries are shared
    ((2, 2, 3, 5, 4), (2, 1, 1, 6, 4), (1, 2, 3, 6, 2)),
    ((1, 4), (1, 4), (1, 1)), ((3, 0), (2, 0), (2, 2)), ((0, 4), (3, 4), (3, 2)), ((0, 3, 4), (0, 5, 4), (0, 5, 2)), ((3, 4), (5, 4), (5, 0)),
], ids=str)
def test_leading_axes_broadcast(shapes: Any) -> None:
    arrays = filled(*shapes)
    want = by_formula(*arrays)
    for known in (True, False):
        for causal in (False, True):
            got = called(arrays, "interpreter" if causal else "llvm", known, causal=causal)
            want = by_formula(*arrays, causal=causal)
            assert got.shape == want.shape
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_grouped_queries() -> None:
    """As many heads of queries as there are, two of keys: an axis of groups that the keys do not have."""
    q, k, v = filled((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 3))
    xs = leaves([q, k, v])
    grouped = gc.reshape(xs[0], (q.shape[0], 2, 3, 5, 4))
    y = gc.nn.attention(grouped, gc.expand_dims(xs[1], 2), gc.expand_dims(xs[2], 2))
    want = by_formula(q, np.repeat(k, 3, axis=1), np.repeat(v, 3, axis=1))
    np.testing.assert_allclose(gc.function(xs, y)(q, k, v).reshape(want.shape), want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_keys(backend: str) -> None:
    """Queries attend to nothing then: 0, with a mask or without."""
    arrays = filled((2, 3, 4), (2, 0, 4), (2, 0, 5))
    for options in ({}, {"causal": True}):
        np.testing.assert_array_equal(called(arrays, backend, **options), np.zeros((2, 3, 5)))
        np.testing.assert_array_equal(called([*arrays, np.ones((3, 0), bool)], backend, **options), np.zeros((2, 3, 5)))


@pytest.mark.parametrize(("backend", "dtype"), [("llvm", "float32"), *itertools.product(("reference", "numpy", "interpreter"), ("float64", "float16", "bfloat16"))])
def test_queries_that_attend_to_nothing(backend: str, dtype: str) -> None:
    """They give 0, and gradients are those of the other queries: exactly 0 for them, finite for all."""
    arrays = [a.astype(dtypes.as_dtype(dtype)) for a in filled((2, 4, 6), (2, 5, 6), (2, 5, 3))]
    mask = mask_of(2, 4, 5)
    mask[0, 1] = mask[1, 3] = False
    mask[:, 0, :2] = True  # two keys at least: with one, scores have no gradient
    mask[:, :, 2] = False  # and a key to which none attends
    xs = [*leaves(arrays), gc.tensor("mask", shape=(None, None, None), dtype="bool")]
    y = gc.nn.attention(*xs)
    loss = gc.sum(gc.cos(y))
    f = gc.function(xs, [y, *gc.grad(loss, xs[:3])], mode=gc.Mode(backend=backend))
    y, dq, dk, dv = (np.asarray(a, np.float64) for a in f(*arrays, mask))
    within = {"float64": 1e-12, "float32": 1e-5, "float16": 1e-2, "bfloat16": 0.2}[dtype]
    np.testing.assert_allclose(y, by_formula(*arrays, mask), rtol=within, atol=within)
    assert all(np.isfinite(a).all() for a in (dq, dk, dv))
    for a in (y, dq):
        assert (a[0, 1] == 0).all() and (a[1, 3] == 0).all() and (a[0, 0] != 0).any()
    assert (dk[:, 2] == 0).all() and (dv[:, 2] == 0).all() and (dk[:, 0] != 0).any()
    if dtype == "float64":  # what such queries hold is in nobody's gradient
        arrays[0][0, 1] = 5.0
        for a, b in zip(f(*arrays, mask), (y, dq, dk, dv), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)


def test_gradients() -> None:
    """Symbolic against numeric, of both orders of the leading axes, with masks."""
    q, k, v = filled((2, 3, 4), (2, 5, 4), (2, 5, 3))
    mask = mask_of(3, 5)
    mask[1] = False
    weights = rng.normal(size=(2, 3, 3))
    for options in ({}, {"causal": True}, {"mask": mask}, {"mask": mask, "causal": True}):
        gc.verify_grad(lambda q, k, v: gc.sum(gc.nn.attention(q, k, v, **options) * weights), [q, k, v])
    gc.verify_grad(lambda q, k, v: gc.sum(gc.nn.attention(q, k, v) * weights), [q, k[0], v[1]])
    gc.verify_grad(lambda q, k, v: gc.sum(gc.nn.attention(q, k, v, causal=True) ** 2), [q[:, None], k, v])
    gc.verify_grad(lambda x: gc.sum(gc.nn.attention(x, x, x, causal=True) ** 2), [q])


def test_second_derivatives() -> None:
    q, k, v = filled((2, 3), (4, 3), (4, 2))
    mask = np.array([[True, False, True, True], [False] * 4])

    def slope(q: Any, k: Any, v: Any) -> Any:
        return gc.sum(gc.sin(gc.grad(gc.sum(gc.nn.attention(q, k, v, mask) ** 2), k)))

    gc.verify_grad(slope, [q, k, v])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_floats(backend: str, dtype: str) -> None:
    arrays = [a.astype(dtypes.as_dtype(dtype)) for a in filled((2, 9, 8), (2, 11, 8), (2, 11, 4))]
    eps = float(ml_dtypes.finfo(arrays[0].dtype).eps)
    for given, causal in ((arrays, False), ([*arrays, mask_of(2, 9, 11)], True)):
        got = called(given, backend, causal=causal)
        assert got.dtype == arrays[0].dtype
        want = by_formula(*given, causal=causal)
        assert (abs(got.astype(np.float64) - want) <= 12 * eps * (1 + abs(want))).all()


def test_dtypes_are_promoted() -> None:
    q, k, v = filled((3, 4), (5, 4), (5, 2))
    for kinds, want in ((("float32", "float64", "float32"), "float64"), (("float16", "float16", "float32"), "float32")):
        got = called([a.astype(kind) for a, kind in zip((q, k, v), kinds, strict=True)])
        assert got.dtype == want
        np.testing.assert_allclose(got, by_formula(q, k, v), rtol=1e-2, atol=1e-2)


def test_sizes_that_only_the_call_tells() -> None:
    """One function for all, features among them: it is their number that the scores are divided by."""
    xs = [gc.tensor(name, shape=shape, dtype="float64") for name, shape in (("q", ("B", "T", "d")), ("k", ("B", "S", "d")), ("v", ("B", "S", "e")))]
    mask = gc.tensor("mask", shape=("T", "S"), dtype="bool")
    y = gc.nn.attention(*xs, mask, causal=True)
    gradients = gc.grad(gc.sum(y * y), xs)
    with gc.config(verify=True):
        f = gc.function([*xs, mask], [y, *gradients])
    g = gc.function([*xs, mask], [y, *gradients], mode=gc.Mode(backend="reference"))
    for b, t, s, d, e in ((2, 5, 7, 3, 4), (1, 1, 1, 1, 1), (3, 6, 6, 16, 2), (0, 3, 3, 3, 3), (2, 0, 4, 3, 2), (2, 70, 33, 8, 8), (2, 3, 4, 0, 2)):
        arrays = [*filled((b, t, d), (b, s, d), (b, s, e)), mask_of(t, s)]
        have = f(*arrays)
        np.testing.assert_allclose(have[0], by_formula(*arrays, causal=True), rtol=1e-12, atol=1e-14)
        for one, other in zip(have, g(*arrays), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_numbers_and_lists_are_constants() -> None:
    x = [[1.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(gc.nn.attention(x, x, x, mask=[[True, False], [True, True]]).eval(), by_formula(*[np.array(x)] * 3, causal=True))


@pytest.mark.parametrize(("shapes", "changed", "error", "message"), [
    (((3, 4), (5, 4), (5, 2)), {0: "int32"}, GraphcTypeError, r"attention: q is int32; expected a real float dtype"),
    (((3, 4), (5, 4), (5, 2)), {1: "int64"}, GraphcTypeError, r"attention: k is int64"),
    (((3, 4), (5, 4), (5, 2)), {2: "bool"}, GraphcTypeError, r"attention: v is bool"),
    (((3, 4), (5, 4), (5, 2)), {1: "complex64"}, GraphcTypeError, r"attention: k is complex64"),
    (((3, 4), (5, 4), (5, 2), (3, 5)), {3: "float32"}, GraphcTypeError, r"attention: the mask is float32; expected bool"),
    (((3, 4), (5, 4), (5, 2), (3, 5)), {3: "int8"}, GraphcTypeError, r"attention: the mask is int8"),
    (((4,), (5, 4), (5, 2)), {}, GraphcValueError, r"attention: q has shape f64\[4\]; expected \(\.\.\., length, features\)"),
    (((3, 4), (4,), (5, 2)), {}, GraphcValueError, r"attention: k has shape f64\[4\]; expected"),
    (((3, 4), (5, 4), ()), {}, GraphcValueError, r"attention: v has shape"),
    (((3, 4), (5, 3), (5, 2)), {}, GraphcValueError, r"\bq\b.*\bk\b|\bk\b.*\bq\b"),
    (((3, 4), (5, 4), (6, 2)), {}, GraphcValueError, r"\bv\b"),
    (((2, 3, 4), (3, 5, 4), (3, 5, 2)), {}, GraphcValueError, r"\bq\b.*\bk\b|\bk\b.*\bq\b"),
    (((3, 4), (5, 4), (5, 2), (3, 6)), {3: "bool"}, GraphcValueError, r"mask"),
    (((3, 4), (5, 4), (5, 2), (2, 5)), {3: "bool"}, GraphcValueError, r"mask"),
])
def test_what_is_refused(shapes: Any, changed: dict[int, str], error: type[Exception], message: str) -> None:
    """The message names the argument."""
    xs = [gc.tensor(f"x{n}", shape=shape, dtype=changed.get(n, "float64")) for n, shape in enumerate(shapes)]
    with pytest.raises(error, match=message):
        gc.nn.attention(*xs)


def test_a_mask_of_more_axes_than_the_scores() -> None:
    """It broadcasts, like everything: as many results as there are masks."""
    q, k, v = filled((3, 4), (5, 4), (5, 2))
    mask = mask_of(2, 3, 5)
    np.testing.assert_allclose(called([q, k, v, mask]), by_formula(*(np.stack([x] * 2) for x in (q, k, v)), mask), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(called([q, k, v, mask], causal=True), by_formula(*(np.stack([x] * 2) for x in (q, k, v)), mask, True), rtol=1e-12, atol=1e-14)
