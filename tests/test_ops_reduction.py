"""Reductions, running sums, softmax and its family: values against NumPy and SciPy, gradients against differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.special
from small_grad import check_gradient, check_second, gradient_of, leaf, run

from graphc import dims, dtypes
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.functions import reducing as red
from graphc.functions.averaging import safe_sqrt
from graphc.functions.softmaxing import cross_entropy
from graphc.ir import Type, Var
from graphc.ops import cumulative, reduction
from graphc.ops.comparison import greater
from graphc.ops.gathering import nonzero
from graphc.ops.movement import squeeze

RNG = np.random.default_rng(7)
AXES = [None, 0, -1, (0, 2), (0, 1, 2), ()]


def values(shape, dtype="float64"):
    dtype = dtypes.as_dtype(dtype)
    if dtype.kind == "b":
        return RNG.random(shape) < 0.5
    if dtype.kind == "u":
        return RNG.integers(0, 9, shape).astype(dtype)
    if dtype.kind == "i":
        return RNG.integers(-9, 9, shape).astype(dtype)
    x = RNG.normal(size=shape)
    return (x + 1j * RNG.normal(size=shape) if dtype.kind == "c" else x).astype(dtype)


# ---- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "var", "std", "all", "any", "ptp"])
@pytest.mark.parametrize("symbolic", [False, True])
def test_values_over_axes(name, symbolic):
    x = values((2, 3, 4))
    if name in ("all", "any"):
        x = np.where(x > -1, x, 0)
    for axis, keepdims in itertools.product(AXES, [False, True]):
        if name == "ptp" and axis == ():
            continue  # numpy's ptp does not take it
        got = run(lambda v, axis=axis, k=keepdims: getattr(red, name)(v, axis=axis, keepdims=k), x, symbolic=symbolic)
        want = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("name", ["sum", "prod", "cumsum", "cumprod"])
@pytest.mark.parametrize("dtype", [d for d in dtypes.SHORT if d != "bfloat16"])
def test_dtypes_of_sums(name, dtype):
    x = values((3, 4), dtype)
    got, want = run(lambda v: getattr(red, name)(v, axis=0), x), getattr(np, name)(x, axis=0)
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "float32", "complex64", "float16"])
def test_dtype_argument(dtype):
    x = values((3, 4), "float64") * 20
    x = abs(x) if dtype == "uint8" else x
    cast = x.astype(dtype)
    for name in ("sum", "prod", "cumsum"):
        got = run(lambda v, name=name: getattr(red, name)(v, axis=1, dtype=dtype), x)
        with np.errstate(all="ignore"):
            want = getattr(np, name)(cast, axis=1, dtype=dtype)
        assert got.dtype == np.dtype(dtype)
        np.testing.assert_allclose(got, want, rtol=5e-3, atol=0.1 if dtype == "float16" else 0)  # sums of numbers up to 60, some nearly 0


def test_float16_is_accumulated_in_float32():
    x = np.full(4096, 1.001, np.float16)
    assert run(red.sum, x) == np.float16(x.astype(np.float64).sum())
    big = np.full(300, 1000.0, np.float16)  # the sum overflows float16, the mean does not
    assert run(red.mean, big) == 1000 and run(red.sum, big) == np.inf
    assert run(lambda v: red.var(v, correction=1), np.array([1000.0, 2000.0], np.float16)) == np.inf  # 500 000
    assert run(red.std, np.array([1000.0, 2000.0], np.float16)) == 500


def test_bfloat16():
    bf = dtypes.bfloat16()
    x = np.array([[1.5, -2.0, np.nan], [3.0, 0.25, 8.0]], bf)
    for name in ("sum", "prod", "max", "min", "mean", "cumsum", "cumprod", "softmax", "logsumexp"):
        got = run(lambda v, name=name: getattr(red, name)(v, axis=1), x)
        assert got.dtype == bf, name
    assert run(lambda v: red.max(v, axis=1), x).astype(float)[1] == 8 and np.isnan(run(red.max, x).astype(float))
    assert run(lambda v: red.argmax(v, axis=1), x).tolist() == [2, 2]


def test_layout_in_memory_does_not_change_a_bit():
    x = RNG.normal(size=(257, 129)) * 10.0 ** RNG.integers(-8, 8, (257, 129))
    for axis in (None, 0, 1):
        a = run(lambda v, axis=axis: red.sum(v, axis=axis), x)
        assert (a == run(lambda v, axis=axis: red.sum(v, axis=axis), np.asfortranarray(x))).all()


@pytest.mark.parametrize("name, empty", [("sum", 0.0), ("prod", 1.0), ("mean", np.nan), ("logsumexp", -np.inf), ("all", True), ("any", False)])
def test_nothing_to_reduce(name, empty):
    got = run(lambda v: getattr(red, name)(v, axis=1), np.zeros((2, 0)))
    np.testing.assert_array_equal(got, np.full(2, empty))
    assert run(lambda v: getattr(red, name)(v, axis=0), np.zeros((2, 0))).shape == (0,)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_no_extreme_of_nothing(name):
    f = getattr(red, name)
    with pytest.raises(GraphcValueError, match=rf"{name}.*length 0"):
        f(leaf(np.zeros((2, 0))), axis=1)
    with pytest.raises(GraphcValueError, match=rf"{name}.*length 0"):
        run(lambda v: f(v, axis=1), np.zeros((2, 0)), symbolic=True)
    assert run(lambda v: f(v, axis=0, keepdims=True), np.zeros((2, 0)), symbolic=True).shape == (1, 0)
    assert run(lambda v: f(v, axis=0), np.zeros((0, 0)), symbolic=True).shape == (0,)


def test_extremes_of_special_values():
    x = np.array([[1.0, np.nan, 3.0], [-np.inf, -np.inf, -np.inf], [np.inf, 0.0, -1.0]])
    for name in ("max", "min", "argmax", "argmin"):
        np.testing.assert_array_equal(run(lambda v, n=name: getattr(red, n)(v, axis=1), x), getattr(np, name)(x, axis=1))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_argmax(name):
    x = values((3, 4), "int32") % 3
    for axis, keepdims in itertools.product([None, 0, -1], [False, True]):
        got = run(lambda v, a=axis, k=keepdims: getattr(red, name)(v, axis=a, keepdims=k), x)
        want = getattr(np, name)(x, axis=axis, keepdims=keepdims)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want)
    cube = values((2, 3, 4))
    got = run(lambda v: getattr(reduction, name)(v, (0, 2)), cube)
    np.testing.assert_array_equal(got, getattr(np, name)(cube.transpose(1, 0, 2).reshape(3, 8), axis=1))
    assert run(getattr(red, name), np.float64(3.0)) == 0


def test_mean_and_variance():
    x = values((3, 4), "int16")
    assert run(red.mean, x).dtype == np.float64
    np.testing.assert_allclose(run(red.mean, x), x.mean())
    z = values((3, 4), "complex64")
    v = run(lambda t: red.var(t, axis=0), z)
    assert v.dtype == np.float32
    np.testing.assert_allclose(v, z.var(axis=0), rtol=1e-5)
    for symbolic, k in itertools.product([False, True], [0, 1, 1.5, 9]):
        y = values((2, 4))
        with np.errstate(all="ignore"):
            want = ((y - y.mean(1, keepdims=True)) ** 2).sum(1) / max(4 - k, 0)
        np.testing.assert_allclose(run(lambda t, k=k: red.var(t, axis=1, correction=k), y, symbolic=symbolic), want)
        np.testing.assert_allclose(run(lambda t, k=k: red.std(t, axis=1, ddof=k), y, symbolic=symbolic), np.sqrt(want))
    far = 1e8 + np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(run(red.var, far), 2 / 3, rtol=1e-7)
    with pytest.raises(GraphcTypeError, match="dtype is float"):
        red.mean(leaf(x), dtype="int32")


def test_running_sums():
    x = values((2, 3, 4))
    for axis, name in itertools.product([None, 0, 1, -1], ["cumsum", "cumprod"]):
        np.testing.assert_allclose(run(lambda v, a=axis, n=name: getattr(red, n)(v, axis=a), x), getattr(np, name)(x, axis=axis))
    for axis, name in itertools.product([0, -1], ["cumulative_sum", "cumulative_prod"]):
        f = getattr(red, name)
        np.testing.assert_allclose(run(lambda v, f=f, a=axis: f(v, axis=a, include_initial=True), x),
                                   getattr(np, name)(x, axis=axis, include_initial=True))
    assert run(lambda v: red.cumulative_sum(v, include_initial=True), np.zeros(0), symbolic=True).tolist() == [0.0]
    with pytest.raises(GraphcValueError, match="vector only"):
        red.cumulative_sum(leaf(x))


def test_count_nonzero():
    x = np.array([[0.0, np.nan, -0.0], [1.0, 2.0, 0.0]])
    np.testing.assert_array_equal(run(lambda v: red.count_nonzero(v, axis=1), x), [1, 2])


# ---- softmax and its family -------------------------------------------------------------------

ROWS = np.array([[1.0, 2.0, 3.0], [1000.0, 999.0, -1000.0], [-np.inf, 0.0, 1.0], [-1e300, -1e300, -np.inf], [5e-324, 0.0, -0.0]])


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_softmax_family_against_scipy(name):
    f, g = getattr(red, name), getattr(scipy.special, name)
    with np.errstate(all="ignore"):
        for x, axis in [(ROWS, 1), (ROWS[:2], 0), (values((2, 3, 4)), (0, 2)), (values((2, 3)), (0, 1))]:
            np.testing.assert_allclose(run(lambda v, a=axis: f(v, axis=a), x), g(x, axis=axis), rtol=1e-14)
            x32 = np.clip(x, -1e30, 1e30).astype(np.float32)
            got = run(lambda v, a=axis: f(v, axis=a), x32)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, g(x32.astype(float), axis=axis), rtol=1e-5, atol=1e-37)
    assert run(lambda v: f(v, axis=0), np.array([1, 2, 3])).dtype == np.float64
    with pytest.raises(GraphcTypeError, match="real"):
        f(leaf(values((3,), "complex128")), axis=0)


def test_rows_without_a_finite_value():
    x = np.array([[-np.inf, -np.inf], [np.inf, 1.0], [np.inf, -np.inf], [np.nan, 1.0], [np.inf, np.nan]])
    np.testing.assert_array_equal(run(lambda v: red.logsumexp(v, axis=1), x), [-np.inf, np.inf, np.inf, np.nan, np.nan])
    # as exp(x) / sum(exp(x)) and x - logsumexp(x) would give: inf / inf is nan, 1 / inf is 0
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run(lambda v: red.softmax(v, axis=1), x), np.exp(x) / np.exp(x).sum(1, keepdims=True))
        np.testing.assert_array_equal(run(lambda v: red.log_softmax(v, axis=1), x), x - np.log(np.exp(x).sum(1, keepdims=True)))


def test_gradient_of_logsumexp_in_rows_of_minus_infinity():
    x = np.array([[-np.inf, -np.inf, -np.inf], [-np.inf, 0.0, 0.0]])
    want = [[0, 0, 0], [0, 0.5, 0.5]]
    first, second = gradient_of(lambda v: red.logsumexp(v, axis=1), x, np.ones(2), orders=2)
    np.testing.assert_allclose(first, want)
    assert np.isfinite(second).all()
    # a masked entry gets no gradient from softmax either, in any order
    for f in (red.softmax, red.log_softmax):
        for g in gradient_of(lambda v, f=f: f(v, axis=1), x[1:], np.array([[0.0, 2.0, 3.0]]), orders=2):
            assert np.isfinite(g).all() and g[0, 0] == 0


# ---- gradients --------------------------------------------------------------------------------

SMOOTH = {
    "sum": lambda v, **k: red.sum(v, **k),
    "prod": lambda v, **k: red.prod(v, **k),
    "mean": lambda v, **k: red.mean(v, **k),
    "var": lambda v, **k: red.var(v, correction=1, **k),
    "std": lambda v, **k: red.std(v, **k),
    "logsumexp": lambda v, **k: red.logsumexp(v, **k),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("symbolic", [False, True])
def test_gradients_of_reductions(name, symbolic):
    x = values((2, 3, 2))
    for axis, keepdims in [(None, False), (1, True), ((0, 2), False), (-1, False)]:
        f = lambda v, a=axis, k=keepdims: SMOOTH[name](v, axis=a, keepdims=k)
        check_gradient(f, x, symbolic=symbolic)
        check_second(f, x, symbolic=symbolic)


@pytest.mark.parametrize("f", [
    lambda v: red.softmax(v, axis=1), lambda v: red.log_softmax(v, axis=0), lambda v: red.softmax(v, axis=(0, 1)),
    lambda v: red.cumsum(v, axis=0), lambda v: red.cumsum(v), lambda v: cumulative.cumsum(v, 1, reverse=True),
    lambda v: red.cumprod(v, axis=0), lambda v: red.cumprod(v, axis=1),
    lambda v: red.cumulative_prod(v, axis=1, include_initial=True),
    lambda v: cumulative.cumprod(v, 1, reverse=True), lambda v: cumulative.cumprod(v, 0, exclusive=True),
    lambda v: cumulative.cumprod(v, 1, reverse=True, exclusive=True), lambda v: cumulative.shift(v, 1, reverse=True),
])
def test_gradients_along_an_axis(f):
    for symbolic in (False, True):
        check_gradient(f, values((3, 4)), symbolic=symbolic)
        check_second(f, values((3, 4)), symbolic=symbolic)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_gradients_of_recurrence(axis, reverse):
    f = lambda a, b: cumulative.recurrence(a, b, axis, reverse)
    check_gradient(f, values((3, 4)), values((3, 4)))
    check_second(f, values((3, 4)), values((3, 4)))
    check_gradient(f, values((3, 4), "complex128"), values((3, 4), "complex128"))


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "cumsum", "cumprod"])
def test_gradients_of_complex_values(name):
    check_gradient(lambda v: getattr(red, name)(v, axis=1), values((2, 3), "complex128"))


def test_gradient_of_complex_variance():
    check_gradient(lambda v: red.var(v, axis=1), values((2, 3), "complex128"))


@pytest.mark.parametrize("zeros", [1, 2, 3])
@pytest.mark.parametrize("f", [
    lambda v: red.prod(v, axis=1), lambda v: red.prod(v), lambda v: red.cumprod(v, axis=1),
    lambda v: cumulative.cumprod(v, 1, reverse=True, exclusive=True)], ids=["prod", "all", "cumprod", "exclusive"])
def test_gradients_of_products_with_zeros(f, zeros):
    x = values((2, 4))
    x[0, :zeros] = 0
    check_gradient(f, x)
    check_second(f, x)


def test_gradient_of_a_product_of_nothing_and_of_one():
    assert gradient_of(lambda v: red.prod(v, axis=1), np.zeros((2, 0)), np.ones(2))[0].shape == (2, 0)
    np.testing.assert_array_equal(gradient_of(lambda v: red.prod(v, axis=1), np.zeros((2, 1)), np.ones(2))[0], np.ones((2, 1)))


@pytest.mark.parametrize("name, sign", [("max", 1), ("min", -1)])
def test_gradient_of_extremes(name, sign):
    f = getattr(red, name)
    for axis in (None, 0, (0, 1), -1):
        check_gradient(lambda v, a=axis: f(v, axis=a), RNG.permutation(12).reshape(3, 4) * 1.0)
    x = sign * np.array([[1.0, 3.0, 3.0], [np.inf, np.inf, 0.0], [np.nan, 1.0, 2.0], [-np.inf, -np.inf, -np.inf]])
    first, second = gradient_of(lambda v: f(v, axis=1), x, np.array([2.0, 1.0, 1.0, 3.0]), orders=2)
    np.testing.assert_allclose(first, [[0, 1, 1], [0.5, 0.5, 0], [0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(second, np.zeros((4, 3)))


def test_gradient_of_std_where_all_values_are_equal():
    x = np.array([[2.0, 2.0, 2.0], [1.0, 2.0, 3.0]])
    g = gradient_of(lambda v: red.std(v, axis=1), x, np.ones(2), orders=2)
    assert all(np.isfinite(part).all() for part in g)
    np.testing.assert_array_equal(g[0][0], np.zeros(3))
    assert np.isnan(run(safe_sqrt, np.array(np.nan))) and np.isnan(run(safe_sqrt, np.array(-1.0)))


@pytest.mark.parametrize("op", [reduction.argmax_op, reduction.argmin_op, reduction.all_op, reduction.any_op, reduction.sum_op])
def test_integers_and_bools_are_not_connected(op):
    x = leaf(np.ones(3, bool) if op.name in ("all", "any") else np.arange(3))
    y = getattr(reduction, op.name)(x)
    assert not op.connected(0, y.node)


# ---- cross entropy ----------------------------------------------------------------------------


def test_cross_entropy():
    x, k = values((5, 3)), np.array([0, 2, 1, 1, 0])
    logp = scipy.special.log_softmax(x, axis=1)
    want = -logp[np.arange(5), k]
    for labels in (k, k.astype(np.uint8), k.astype(np.int32), np.eye(3)[k]):
        for symbolic in (False, True):
            got = [run(lambda v, t, r=r: cross_entropy(v, t, reduction=r), x, labels, symbolic=symbolic) for r in ("none", "mean", "sum")]
            np.testing.assert_allclose(got[0], want)
            np.testing.assert_allclose(got[1:], [want.mean(), want.sum()])
    first = run(lambda v, t: cross_entropy(v, t, axis=0, reduction="none"), x.T, k)
    np.testing.assert_allclose(first, want)
    image, pixels = values((2, 3, 4)), RNG.integers(0, 3, (2, 4))
    got = run(lambda v, t: cross_entropy(v, t, axis=1), image, pixels)
    np.testing.assert_allclose(got, -np.take_along_axis(scipy.special.log_softmax(image, axis=1), pixels[:, None], 1).mean())
    check_gradient(lambda v: cross_entropy(v, np.eye(3)[k]), x)
    check_gradient(lambda v: cross_entropy(v, k), x)


def test_cross_entropy_of_masked_classes():
    x = np.array([[0.0, 0.0, -np.inf]])
    t = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(run(cross_entropy, x, t), math.log(2))
    g, = gradient_of(lambda v: cross_entropy(v, t), x, np.array(1.0))
    np.testing.assert_allclose(g, [[-0.5, 0.5, 0.0]])


@pytest.mark.parametrize("bad", [[0, 3], [-1, 0]])
def test_labels_out_of_range(bad):
    with pytest.raises(IndexError):
        run(cross_entropy, values((2, 3)), np.array(bad))


def test_wrong_labels():
    x = leaf(values((2, 3)))
    with pytest.raises(GraphcTypeError, match="class numbers"):
        cross_entropy(x, np.zeros((2, 3), int))
    with pytest.raises(GraphcTypeError, match="probabilities"):
        cross_entropy(x, np.zeros(2))
    with pytest.raises(GraphcTypeError, match="labels are"):
        cross_entropy(x, np.zeros(2, bool))
    with pytest.raises(GraphcValueError, match="reduction"):
        cross_entropy(x, np.zeros(2, int), reduction="avg")
    for labels in (np.zeros(4, int), np.zeros(1, int), np.zeros((1, 3)), np.zeros((2, 1))):
        with pytest.raises(GraphcValueError, match="shape of the logits"):
            cross_entropy(x, labels)


# ---- errors -----------------------------------------------------------------------------------


def test_errors():
    x = leaf(values((2, 3)))
    with pytest.raises(GraphcIndexError, match=r"axis 2 .* rank 2"):
        red.sum(x, axis=2)
    with pytest.raises(GraphcValueError, match="repeats"):
        red.sum(x, axis=(0, -2))
    with pytest.raises(GraphcTypeError, match="an axis is an int"):
        red.max(x, axis=1.0)
    with pytest.raises(GraphcTypeError, match=r"max.*complex"):
        red.max(leaf(values((2, 3), "complex128")))
    with pytest.raises(GraphcTypeError, match="argmax: axis"):
        red.argmax(x, axis=(0, 1))
    with pytest.raises(GraphcTypeError, match="correction"):
        red.var(x, correction="1")


def test_sizes_found_out_by_a_node():
    """The mean of as many values as a mask lets through: how many, only the node knows."""
    def f(v):
        found = squeeze(nonzero(greater(v, 0)), (0,))  # the positions, int64 [?]
        return red.mean(found), red.var(found, correction=1), red.prod(found), red.logsumexp(found)

    x = np.array([1.0, -1.0, 2.0, 3.0, -5.0, 4.0])
    want = np.flatnonzero(x > 0)
    for i, expected in enumerate([want.mean(), want.var(ddof=1), want.prod(), scipy.special.logsumexp(want)]):
        np.testing.assert_allclose(run(lambda v, i=i: f(v)[i], x, symbolic=True), expected)


def test_sizes_stay_formulas():
    n = dims.dim("n")
    x = Var(Type(np.dtype("float32"), (n, 3)))
    assert str(red.sum(x, axis=1).type) == "f32[n]"
    assert str(red.max(x, axis=0, keepdims=True).type) == "f32[1, 3]"
    assert str(red.softmax(x).type) == "f32[n, 3]"
    assert str(red.mean(x).type) == "f32[]"
