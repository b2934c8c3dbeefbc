"""Numerics of special functions that NumPy lacks, in float64 on whole arrays.

``erf``, ``erfc`` and ``lgamma`` come from Python's ``math``; digamma, polygamma
and the inverse error function are computed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.ir import Array

#: Bernoulli numbers B_2, B_4, ...
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798, -174611 / 330, 854513 / 138, -236364091 / 2730)
#: the positive zero of digamma, as a sum of two floats, and the Taylor coefficients there
ROOT = (1.4616321449683622, 9.549995429965697e-17)
AT_ROOT = (
    0.9676722454476212, -0.4427631689835921, 0.258499760955651, -0.16394270544240652, 0.10782405069126237,
    -0.07219956125645471, 0.04880428816414311, -0.03316112647484736, 0.022597648232218104, -0.01542476590494896,
    0.010538791616612175, -0.007204534386356869, 0.004926781395729853, -0.003369801655439328, 0.002305126326734928,
    -0.0015769367714301972, 0.0010788252019162967, -0.0007380709389960052, 0.000504953265834602, -0.0003454680251063077,
    0.00023635601564027053, -0.00016170622091974803, 0.0001106337276874741)

#: Taylor coefficients of lgamma(2 + t), from t**1 on
LGAMMA_AT_2 = (
    0.42278433509846713, 0.3224670334241132, -0.0673523010531981, 0.020580808427784546, -0.007385551028673986,
    0.0028905103307415234, -0.001192753911703261, 0.0005096695247430425, -0.00022315475845357939,
    9.945751278180853e-05, -4.492623673813314e-05, 2.050721277567069e-05, -9.439488275268397e-06,
    4.374866789907488e-06, -2.039215753801366e-06, 9.55141213040742e-07, -4.492469198764566e-07,
    2.1207184805554665e-07, -1.0043224823968099e-07, 4.7698101693639804e-08, -2.2711094608943164e-08,
    1.0838659214896955e-08, -5.183475041970047e-09, 2.4836745438024785e-09, -1.1921401405860912e-09,
    5.731367241678862e-10, -2.7595228851242334e-10)


def in_double(fn: Callable[..., Array]) -> Callable[..., Array]:
    """``fn`` on float64, its result in the dtype of the first operand."""
    def wrapped(*arrays: Array, **options: Any) -> Array:
        return fn(*(np.asarray(a).astype(np.float64) for a in arrays), **options).astype(arrays[0].dtype)
    return wrapped


def by_element(fn: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of one Python float, for arrays."""
    ufunc = np.frompyfunc(fn, 1, 1)
    return lambda x: np.asarray(ufunc(x)).astype(np.float64)


def _lgamma(x: float) -> float:
    try:
        return math.lgamma(x)
    except (ValueError, OverflowError):  # a pole; too large
        return math.inf


erf = by_element(math.erf)
erfc = by_element(math.erfc)
_lgamma_far = by_element(_lgamma)


def lgamma(x: Array) -> Array:
    """log |gamma(x)|.  From 0.5 to 2.5, about its zeros 1 and 2, by Taylor's series: ``math.lgamma`` has an absolute error there."""
    near = (x >= 0.5) & (x <= 2.5)
    t = np.where(near, np.where(x < 1.5, x - 1, x - 2), 0.0)
    series = np.zeros_like(x)
    for c in reversed(LGAMMA_AT_2):
        series = (series + c) * t
    return np.where(near, np.where(x < 1.5, series - np.log1p(t), series), _lgamma_far(np.where(near, 1.0, x)))


def digamma(x: Array) -> Array:
    """The derivative of ``lgamma``; nan at the negative integers."""
    low = x < 0.5
    result = _digamma_right(np.where(low, 1 - x, x))
    with np.errstate(all="ignore"):
        reflected = result - np.pi / np.tan(np.pi * _from_whole(x))
    result = np.where(low, reflected, result)
    result = np.where(x == 0, -np.copysign(np.inf, x), result)
    return np.where((x < 0) & (x == np.floor(x)), np.nan, result)


def _from_whole(x: Array) -> Array:
    """What x is beyond the nearest whole number; the whole number itself gives a zero of x's sign."""
    rest = x - np.rint(x)
    return np.where(rest == 0, np.copysign(0.0, x), rest)


def _digamma_right(x: Array) -> Array:
    """For x >= 0.5: Taylor's series at the zero, elsewhere recurrence to x >= 10 and Stirling's series."""
    d = (x - ROOT[0]) - ROOT[1]
    taylor = np.zeros_like(x)
    near = np.abs(d) < 0.25
    dn = np.where(near, d, 0.0)
    for c in reversed(AT_ROOT):
        taylor = (taylor + c) * dn
    shift = np.zeros_like(x)
    z = x
    for _ in range(10):
        small = z < 10
        shift = np.where(small, shift - 1 / z, shift)
        z = np.where(small, z + 1, z)
    w = 1 / (z * z)
    series = np.zeros_like(x)
    for k in range(8, 0, -1):
        series = (series + BERNOULLI[k - 1] / (2 * k)) * w
    return np.where(near, taylor, shift + (np.log(z) - 0.5 / z - series))


def polygamma(x: Array, order: int) -> Array:
    """The ``order``-th derivative of digamma, ``order >= 1``; left of 0.5 by reflection."""
    low = x < 0.5
    result = _polygamma_right(np.where(low, 1 - x, x), order)
    sign = -1.0 if order % 2 else 1.0
    return np.where(low, sign * result - np.pi * _cot_derivative(x, order), result)


def _cot_derivative(x: Array, order: int) -> Array:
    """The ``order``-th derivative of cot(pi x): a polynomial in cot(pi x), since cot' = -1 - cot**2."""
    p = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(order):
        p = p.deriv() * np.polynomial.Polynomial([-np.pi, 0.0, -np.pi])
    c = 1 / np.tan(np.pi * _from_whole(x))
    value = np.full_like(c, p.coef[-1])  # not 0 * c: c is infinite at the whole numbers
    for coefficient in reversed(p.coef[:-1]):
        value = value * c + coefficient
    return value


def _polygamma_right(x: Array, order: int) -> Array:
    n, top = order, 12.0 + order
    total = np.zeros_like(x)
    z = x
    for _ in range(12 + n):
        small = z < top
        total = np.where(small, total + math.factorial(n) * z ** -(n + 1.0), total)
        z = np.where(small, z + 1, z)
    w = 1 / (z * z)
    series = np.zeros_like(x)
    for k in range(len(BERNOULLI), 0, -1):
        series = (series + BERNOULLI[k - 1] * (math.factorial(2 * k + n - 1) / math.factorial(2 * k))) * w
    stirling = z ** -float(n) * (math.factorial(n - 1) + 0.5 * math.factorial(n) / z + series)
    return (1.0 if n % 2 else -1.0) * (total + stirling)


def erfinv(x: Array) -> Array:
    """Winitzki's approximation, then three steps of Halley's method; the tail through erfc, without cancellation."""
    a = np.abs(x)
    lost = np.log((1 - a) * (1 + a))
    c = 2 / (np.pi * 0.147) + lost / 2
    w = np.where(a < 0.1, a * (math.sqrt(math.pi) / 2), np.sqrt(np.sqrt(c * c - lost / 0.147) - c))
    inside = a < 1
    w = np.where(inside, w, 0.0)
    for _ in range(3):
        miss = np.where(a > 0.5, (1 - a) - erfc(w), erf(w) - a)
        u = miss * (math.sqrt(math.pi) / 2) * np.exp(w * w)
        w = w - u / (1 + w * u)
    return np.copysign(np.where(inside, w, np.where(a == 1, np.inf, np.nan)), x)
