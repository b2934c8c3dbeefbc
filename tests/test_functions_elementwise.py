"""What the elementwise functions promise beyond NumPy: kinks, ties, division by zero, weak numbers, no cancellation."""

from __future__ import annotations

import doctest
from typing import Any

import mpmath
import numpy as np
import pytest

import graphc as gc
from graphc.functions import elementwise, logic, mathematics

PLAIN = gc.Mode(backend="reference", passes="none")
NAN, INF = float("nan"), float("inf")


def slope(fn: Any, *points: Any, wrt: int = 0, dtype: str = "float64") -> Any:
    """The derivative of fn at the points, element by element."""
    arrays = [np.asarray(p, dtype) for p in points]
    xs = [gc.tensor(f"x{i}", shape=a.shape, dtype=dtype) for i, a in enumerate(arrays)]
    g = gc.grad(gc.sum(gc.real(fn(*xs))), xs[wrt], disconnected_inputs="ignore")
    return gc.function(xs, g, mode=PLAIN, on_unused_input="ignore")(*arrays)


@pytest.mark.parametrize(("fn", "points", "wrt", "want"), [
    (gc.relu, [[-1.0, 0.0, -0.0, 2.0, NAN]], 0, [0, 0, 0, 1, 0]),
    (gc.abs, [[-2.0, 0.0, -0.0, 3.0]], 0, [-1, 0, 0, 1]),
    (gc.sign, [[-2.0, 0.0, 3.0]], 0, [0, 0, 0]),
    (gc.maximum, [[1.0, 2.0, 3.0, 0.0], [2.0, 2.0, 2.0, -0.0]], 0, [0, 0.5, 1, 0.5]),
    (gc.maximum, [[1.0, 2.0, 3.0, NAN], [2.0, 2.0, 2.0, 1.0]], 1, [1, 0.5, 0, 0]),
    (gc.minimum, [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], 0, [1, 0.5, 0]),
    (lambda x: gc.clip(x, -1, 1), [[-2.0, -1.0, 0.0, 1.0, 2.0]], 0, [0, 1, 1, 1, 0]),
    (lambda x: gc.clip(x, min=0), [[-2.0, 0.0, 5.0]], 0, [0, 1, 1]),
    (gc.clip, [[0.0, 2.0, 5.0], [1.0, 1.0, 6.0], [3.0, 3.0, 4.0]], 1, [1, 0, 0]),
    (gc.clip, [[0.0, 2.0, 5.0], [1.0, 1.0, 6.0], [3.0, 1.5, 4.0]], 2, [0, 1, 1]),
    (gc.hypot, [[0.0, 3.0], [0.0, 4.0]], 0, [0, 0.6]),
    (gc.hypot, [[1e200, 0.0], [1e200, 1e-200]], 1, [np.sqrt(0.5), 1]),
    (gc.atan2, [[0.0, 1e-200], [0.0, 0.0]], 1, [0, -1e200]),
    (gc.logaddexp, [[-INF, INF, 1000.0], [-INF, 0.0, 1000.0]], 0, [0.5, 1, 0.5]),
    (gc.xlogy, [[0.0, 2.0], [0.0, 4.0]], 1, [0, 0.5]),
    (gc.copysign, [[2.0, -2.0, 0.0], [-1.0, -1.0, -1.0]], 0, [-1, 1, 0]),
    (gc.copysign, [[2.0], [3.0]], 1, [0]),
    (gc.pow, [[0.0, 0.0, 0.0, -2.0], [0.0, 1.0, 2.0, 3.0]], 0, [0, 1, 0, 12]),
    (gc.pow, [[0.0, 0.0, 2.0], [0.0, 2.0, 3.0]], 1, [0, 0, 8 * np.log(2)]),
    (lambda x: x ** 0, [[0.0, NAN]], 0, [0, 0]),
    (lambda x: x ** 1, [[0.0, 5.0]], 0, [1, 1]),
    (lambda x: x ** 3, [[0.0, -2.0]], 0, [0, 12]),
    (gc.floor, [[0.5]], 0, [0]),
    (gc.floor_divide, [[5.0], [2.0]], 1, [0]),
    (gc.remainder, [[5.0], [2.0]], 1, [-2]),
    (gc.sigmoid, [[-800.0, 800.0]], 0, [0, 0]),
    (gc.softplus, [[-800.0, 0.0, 800.0]], 0, [0, 0.5, 1]),
    (gc.log1mexp, [[-1e-300, -800.0]], 0, [-1e300, 0]),
    (gc.asinh, [[1e300]], 0, [1e-300]),
    (gc.tanh, [[1000.0]], 0, [0]),
])
def test_derivatives_at_kinks_and_extremes(fn: Any, points: Any, wrt: int, want: Any) -> None:
    np.testing.assert_allclose(slope(fn, *points, wrt=wrt), want, rtol=1e-14)


def test_where_takes_nothing_from_the_branch_not_chosen() -> None:
    x = [-1.0, 0.0, 4.0]
    np.testing.assert_array_equal(slope(lambda v: gc.where(v > 0, v * 2, 5.0), x), [0, 0, 2])
    cotangent = slope(lambda v: gc.where(v > 0, gc.constant(np.array([NAN, INF, 3.0])), v), x)
    np.testing.assert_array_equal(cotangent, [1, 1, 0])


def test_complex_gradients_follow_the_convention() -> None:
    """dC/dRe + i dC/dIm: of |z| it is z/|z| (0 at 0), of Re(z*z) it is 2 conj(z)."""
    z = np.array([3 + 4j, 0j])
    np.testing.assert_allclose(slope(gc.abs, z, dtype="complex128"), [0.6 + 0.8j, 0])
    np.testing.assert_allclose(slope(lambda v: v * v, z, dtype="complex128"), 2 * np.conj(z))
    np.testing.assert_allclose(slope(gc.imag, z, dtype="complex128"), [1j, 1j])
    np.testing.assert_allclose(slope(gc.sign, np.array([0j]), dtype="complex128"), [0])


def value(v: gc.Variable) -> Any:
    return gc.function([], v, mode=PLAIN)()


def test_integer_division_by_zero_gives_zero_and_min_wraps() -> None:
    for dtype in ("int8", "int64", "uint16"):
        a = gc.constant(np.array([5, 0, 7], dtype))
        zero = gc.constant(np.array([0, 0, 2], dtype))
        np.testing.assert_array_equal(value(a // zero), [0, 0, 3])
        np.testing.assert_array_equal(value(a % zero), [0, 0, 1])
    least = gc.constant(np.array([-128], np.int8))
    minus = gc.constant(np.array([-1], np.int8))
    assert value(least // minus) == -128 and value(least % minus) == 0 and value(-least) == -128 and value(gc.abs(least)) == -128
    np.testing.assert_array_equal(value(gc.floor_divide([7, -7, 7, -7], [2, 2, -2, -2])), [3, -4, -4, 3])
    np.testing.assert_array_equal(value(gc.remainder([7, -7, 7, -7], [2, 2, -2, -2])), [1, 1, -1, -1])


def test_powers_of_integers() -> None:
    a, b = gc.constant(np.array([2, -1, -1, 1, 0, 3])), gc.tensor("b", shape=(6,), dtype="int64")
    f = gc.function([b], a ** b, mode=PLAIN)
    np.testing.assert_array_equal(f(np.array([-1, -3, -2, -9, -1, 4])), [0, -1, 1, 1, 0, 81])
    np.testing.assert_array_equal(value(gc.constant(np.array([2], np.int8)) ** 9), [0])
    assert (a ** 2).dtype == "int64" and (a ** 0.5).dtype == "float64"
    with pytest.raises(ValueError, match="negative power"):
        a ** -1


@pytest.mark.parametrize(("expression", "dtype"), [
    (lambda x: gc.exp(x("int8")), "float64"), (lambda x: gc.exp(x("bool")), "float64"), (lambda x: gc.exp(x("float16")), "float16"),
    (lambda x: x("float32") * 0.5, "float32"), (lambda x: x("int32") * 0.5, "float64"), (lambda x: x("uint8") + 1, "uint8"),
    (lambda x: x("bool") + 1, "int64"), (lambda x: x("float32") + 1j, "complex64"), (lambda x: x("bfloat16") * 2.5, "bfloat16"),
    (lambda x: x("float32") * x("int64"), "float64"), (lambda x: x("float32") * x("float64"), "float64"),
    (lambda x: x("int8") / x("int8"), "float64"), (lambda x: x("bool") // x("bool"), "int8"), (lambda x: x("bool") + x("bool"), "bool"),
    (lambda x: gc.abs(x("complex64")), "float32"), (lambda x: gc.where(x("bool"), x("int8"), 1.5), "float64"),
    (lambda x: x("int8") == x("float32"), "bool"), (lambda x: gc.floor(x("int16")), "int16"), (lambda x: gc.reciprocal(x("int16")), "float64"),
    (lambda x: gc.real(x("float32")), "float32"), (lambda x: gc.imag(x("int8")), "int8"), (lambda x: gc.clip(x("uint8"), 3, None), "uint8"),
    (lambda x: gc.bitwise_left_shift(x("bool"), 1), "int64"), (lambda x: gc.cast(x("int8"), "float16"), "float16"),
    (lambda x: x("float16") + x("bfloat16"), "float32"),
])
def test_result_dtypes(expression: Any, dtype: str) -> None:
    got = expression(lambda d: gc.asarray(np.ones(2), dtype=d))
    assert got.dtype == dtype and value(got).dtype == got.dtype


@pytest.mark.parametrize(("expression", "message"), [
    (lambda: gc.constant([True]) - gc.constant([True]), "does not take bool"), (lambda: -gc.constant([True]), "does not take bool"),
    (lambda: gc.less(1j, 2), "does not take complex"), (lambda: gc.maximum(1j, 2), "does not take complex"),
    (lambda: gc.bitwise_and(1.5, 2), "does not take float64"), (lambda: gc.floor([1j]), "does not take complex"),
    (lambda: gc.exp("x"), "cannot make a numeric array"), (lambda: gc.add([1, 2], [1, 2, 3]), "do not broadcast|broadcast"),
    (lambda: gc.asarray([1, 2], dtype="uint8") + 300, "does not fit uint8"), (lambda: gc.round([15], -1), "decimals"),
    (lambda: gc.astype([1], "int8", device="gpu"), "device"), (lambda: gc.polygamma(-1, 1.0), "order"),
])
def test_refusals_say_why(expression: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        expression()
    assert isinstance(caught.value, gc.errors.GraphcError)


def test_a_comparison_with_a_python_int_beyond_the_dtype_holds_or_not() -> None:
    x = gc.asarray([1, 255], dtype="uint8")
    assert value(x < 300).all() and not value(x == -1).any() and value(x > -1).all()


def test_no_cancellation() -> None:
    """log1mexp near 0 and far away, the tail of sigmoid and of erfc, erfinv close to 1: within rounding of 40 digits."""
    points = np.array([-1e-300, -1e-10, -0.5, -0.6931, -0.7, -5.0, -40.0, -700.0])
    with mpmath.workdps(400):
        want = [float(mpmath.log(1 - mpmath.exp(mpmath.mpf(float(p))))) for p in points]
    np.testing.assert_allclose(value(gc.log1mexp(points)), want, rtol=1e-15)
    far = np.array([-740.0, -700.0, -40.0, 40.0, 740.0])
    with mpmath.workdps(40):
        tail = [float(1 / (1 + mpmath.exp(-mpmath.mpf(float(p))))) for p in far]
        inverse = [float(mpmath.erfinv(mpmath.mpf(float(p)))) for p in 1 - np.array([1e-3, 1e-9, 2e-16])]
    np.testing.assert_allclose(value(gc.sigmoid(far)), tail, rtol=1e-13)
    np.testing.assert_allclose(value(gc.softplus(far[:3])), tail[:3], rtol=1e-13)
    np.testing.assert_allclose(value(gc.erfinv(1 - np.array([1e-3, 1e-9, 2e-16]))), inverse, rtol=1e-14)


def test_clip_and_round() -> None:
    np.testing.assert_array_equal(value(gc.clip([1.0, NAN, 9.0], None, 4.0)), [1, NAN, 4])
    np.testing.assert_array_equal(value(gc.clip([1, 5], 9, 4)), [4, 4])
    np.testing.assert_array_equal(value(gc.clip(gc.asarray([1, 200], dtype="uint8"), min=7)), [7, 200])
    np.testing.assert_array_equal(value(gc.clip([1, 5])), [1, 5])
    np.testing.assert_allclose(value(gc.round([1.25, -2.567], 1)), [1.2, -2.6])
    np.testing.assert_array_equal(value(gc.round([3], 2)), [3])


def test_relu_and_nan() -> None:
    y = value(gc.relu([-0.0, NAN, -INF, INF]))
    np.testing.assert_array_equal(y, [0, NAN, 0, INF])
    assert not np.signbit(y[0])


def test_names_and_their_aliases_are_public() -> None:
    for name in elementwise.__all__:
        assert getattr(gc, name) is getattr(elementwise, name), name
    standard = """abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or
        bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal exp expm1 floor floor_divide greater
        greater_equal hypot imag isfinite isinf isnan less less_equal log log1p log2 log10 logaddexp logical_and logical_not
        logical_or logical_xor maximum minimum multiply negative nextafter not_equal positive pow real reciprocal remainder
        round sign signbit sin sinh square sqrt subtract tan tanh trunc"""
    assert set(standard.split()) <= set(elementwise.__all__)


@pytest.mark.parametrize("module", [elementwise, logic, mathematics])
def test_examples_in_docstrings_run(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 20 and result.failed == 0
    for name in module.__all__:
        assert getattr(module, name).__doc__, name
