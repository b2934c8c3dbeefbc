"""gammaln and digamma of negative arguments in float64, at most 3 ULP or so, also next to the roots between the negative whole numbers.

Gamma(x) Gamma(-x) = -pi / (x sin(pi x)) gives both as differences that cancel near the roots, so all is summed with more bits.

*   gammaln has roots that differ from whole numbers -n by about 1/n!; those that floats can tell from -n are in a table.  Very near to one
    of them the result is a polynomial in the distance from it; elsewhere 2^-59 is small enough an error of the difference.
*   digamma has a root in each interval.  The first 20 are in a table likewise; beyond, the difference itself is good to about 2^-102, which
    leaves enough bits of the smallest results that there are: a float x is rarely nearer to a root than 2^-54.

Stirling's series begins at 10; smaller z are moved there by 9.  The functions are for z = -x > 0, in at most one register; what they
give for NaN, infinities and whole numbers is of no use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from graphc.backends.llvm.values import Value, select
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    fast_two_sum,
    integer_of,
    muladd,
    per_register,
    polynomial,
    two_product,
    two_sum,
    where,
)
from graphc.backends.llvm.vectormath.doubled import Constant, Pair, added, divided, doubled_log, halves, multiplied, series
from graphc.backends.llvm.vectormath.power import precise_log
from graphc.backends.llvm.vectormath.reflectiontables import COTANGENTS, DIGAMMA_NEAR, DIGAMMA_ROOTS, GAMMALN_NEAR, GAMMALN_ROOTS

__all__ = ["digamma_reflected", "gammaln_reflected"]

#: from here on Stirling's series; how far smaller numbers are moved
LARGE, SHIFT = 10.0, 9.0
#: the first LEADING terms of series for digamma are sums of two numbers
LEADING = 4
#: sin(pi r) / (pi r) in r^2, |r| <= 1/2: Taylor's, the first terms as sums of two numbers
SINE_LEADING: tuple[Constant, ...] = ((1.0, 0.0), (-1.6449340668482264, -3.040672350398476e-17), (0.8117424252833536, 3.561384032141524e-17))
SINE = (-0.19075182412208422, 0.0261478478176548, -0.0023460810354558235, 0.000148428793031071, -6.975873661656381e-06,
        2.5312174041370274e-07, -7.304711822217775e-09, 1.7165384749821432e-10)
#: log(2 pi) / 2 and pi^2
HALF_LOG_2PI: Constant = (0.9189385332046728, -3.8782941580672414e-17)
PI_SQUARED: Constant = (9.869604401089358, 6.265295508739711e-16)
#: tan(pi d) / (pi d) in d^2, |d| <= 1/128: likewise
TANGENT_LEADING: tuple[Constant, ...] = ((1.0, 0.0), (3.289868133696453, 6.081344700796952e-17), (12.987878804533658, 5.698214451426438e-16),
                                         (51.884496161206904, 1.9064971777907897e-15))
TANGENT = (207.5093202809085, 830.0247016959868, 3320.093240290012, 13280.370490966548, 53121.48086660377, 212485.92297883853)
#: (pi cot(pi r) - 1/r) / r in r^2, the first terms
COTANGENT = (-3.289868133696453, -2.1646464674222763, -2.0346861239688984)


def bernoulli(count: int) -> list[Fraction]:
    """B(2), B(4), ..., by their recurrence."""
    found = [Fraction(1)]
    for n in range(1, 2 * count + 1):
        found.append(-sum((math.comb(n + 1, k) * b for k, b in enumerate(found)), Fraction(0)) / (n + 1))
    return found[2::2]


#: (log z - 1 / (2 z) - digamma z) z^2 and (log gamma(z) - (z - 1/2) log z + z - log(2 pi) / 2) z in 1/z^2: Stirling's series.  For the
#: latter 2^-60 will do; the former is good to 2^-104 from 20 on
SLOPE = [b / (2 * k) for k, b in enumerate(bernoulli(15), 1)]
STIRLING = [float(b / (2 * k * (2 * k - 1))) for k, b in enumerate(bernoulli(10), 1)]


def near_root(z: Value, index: Value, name: str, roots: Sequence[Sequence[float]], table: Sequence[Sequence[float]]) -> Value:
    """The function at -z near root ``index``, a whole number that is taken for the nearest in range."""
    f = z.f
    i = integer_of(index.maximum(0.0).minimum(float(len(roots[0]) - 1)) + MAGIC["f64"]) & 31
    size = 32  # nothing is read outside of the table
    high, low = (f.lookup(f"{name}_root{k}", _padded(row, size), i, "f64") for k, row in enumerate(roots))
    d = (z - high) - low
    total = f.lookup(f"{name}_near{len(table) - 1}", _padded(table[-1], size), i, "f64")
    for k in range(len(table) - 2, -1, -1):
        total = muladd(total, d, f.lookup(f"{name}_near{k}", _padded(table[k], size), i, "f64"))
    return d * total


def _padded(row: Sequence[float], size: int) -> list[float]:
    return [*row, *[0.0] * (size - len(row))]


def shift(z: Value) -> tuple[Value, Pair, Pair, Pair]:
    """Is z < LARGE, z + SHIFT there and else z, and of (z + 1) ... (z + 9) = y u the part u and y^2 with y = z + 5."""
    small = z.lt(LARGE)
    moved, lost = two_sum(z, z.like(SHIFT))
    y = two_sum(z, z.like(5.0))
    v = multiplied(y, y)
    # (y - 4) ... (y - 1) (y + 1) ... (y + 4)
    a, b, c, d = (_less(v, float(j * j)) for j in range(1, 5))
    return small, (select(small, moved, z), where(~small, 0.0, lost)), multiplied(multiplied(a, b), multiplied(c, d)), v


def _less(a: Pair, number: float) -> Pair:
    """a - number for a >= number."""
    total, lost = fast_two_sum(a[0], a[0].like(-number))
    return total, lost + a[1]


@per_register
def gammaln_reflected(z: Value) -> Value:
    """log |gamma(-z)|, z > 1/2, as -log(gamma(z + 1) |sin(pi z)| / pi)."""
    small, (moved, moved_low), factors, _ = shift(z)
    whole = multiplied(two_sum(z, z.like(5.0)), factors)
    under = where(~small, 1.0, whole[0]), where(~small, 0.0, whole[1])
    # sin(pi z) / pi divided by (z + 1) ... (z + 9), and its logarithm
    r = (z - z.rint()).abs()
    square = two_product(r, r)
    sine = multiplied((r, r.like(0.0)), series(square, SINE_LEADING, polynomial(square[0], SINE)))
    quotient, quotient_low = divided(sine, under)
    high, low = precise_log(quotient)
    # (moved + 1/2) log moved - moved + ...
    log_high, log_low = precise_log(moved)
    log_low = log_low + moved_low / moved
    factor, lost = two_sum(moved, moved.like(0.5))
    product, product_low = two_product(factor, log_high)
    product_low = product_low + muladd(factor, log_low, (lost + moved_low) * log_high)
    inverse = 1.0 / moved
    rest = muladd(inverse, polynomial(inverse * inverse, STIRLING), (quotient_low / quotient + low) + (product_low + HALF_LOG_2PI[1]))
    total, lost = two_sum(product, -moved)
    rest = rest + (lost - moved_low)
    for more in (high, high.like(HALF_LOG_2PI[0])):
        total, lost = two_sum(total, more)
        rest = rest + lost
    usual = -(total + rest)
    index = (z + z).floor() - 4.0
    near = usual.abs().lt(2.0**-6) & index.ge(0.0) & index.lt(float(len(GAMMALN_ROOTS[0])))
    return z.f.rare(near, usual, lambda: near_root(z, index, "gammaln", GAMMALN_ROOTS, GAMMALN_NEAR))


@per_register
def digamma_reflected(z: Value) -> Value:
    """digamma(-z), z > 0, as digamma(z) + 1/z + pi cot(pi z)."""
    small, moved, u, v = shift(z)
    # 1/(z+1) + ... + 1/(z+9) = (u + 2 v u') / (y u), u' by v; the numerator as a polynomial in v by Horner's rule
    top = v[0].like(9.0), v[0].like(0.0)
    for c in (-210.0, 1365.0, -2460.0, 576.0):
        top = added(multiplied(top, v), (v[0].like(c), v[0].like(0.0)))
    fraction = divided(top, multiplied(two_sum(z, z.like(5.0)), u))
    inverse = divided((z.like(1.0), z.like(0.0)), moved)
    w = multiplied(inverse, inverse)
    stirling = multiplied(w, series(w, [halves(c) for c in SLOPE[:LEADING]], polynomial(w[0], [float(c) for c in SLOPE[LEADING:]])))
    above = added(doubled_log(moved), added((inverse[0] * 0.5, inverse[1] * 0.5), (-stirling[0], -stirling[1])))
    above = added(above, (where(~small, 0.0, -fraction[0]), where(~small, 0.0, -fraction[1])))
    # with the sign of t = z - rint z taken out of all: |t| = j/64 + d, k = pi cot(pi j/64), q = tan(pi d) / pi
    t = z - z.rint()
    high, low = (select(t.lt(0.0), -part, part) for part in above)
    magnitude = t.abs().maximum(0.0).minimum(0.5)
    shifted = magnitude + MAGIC["f64"] / 64
    j = integer_of(shifted) & 63
    d = magnitude - (shifted - MAGIC["f64"] / 64)
    k = z.f.lookup("cotangents", _padded(COTANGENTS[0], 64), j, "f64"), z.f.lookup("cotangents_low", _padded(COTANGENTS[1], 64), j, "f64")
    square = two_product(d, d)
    q = multiplied((d, d.like(0.0)), series(square, TANGENT_LEADING, polynomial(square[0], TANGENT)))
    # a + (k - pi^2 q) / (1 + k q) = (a + k + q (a k - pi^2)) / (1 + k q)
    minus_square = z.like(-PI_SQUARED[0]), z.like(-PI_SQUARED[1])
    slope = added(multiplied((high, low), k), minus_square)
    total = added(added((high, low), k), multiplied(q, slope))
    usual = (total[0] + total[1]) / muladd(k[0], q[0], 1.0)
    # near the poles k is infinite
    pole = high + muladd(magnitude, polynomial(magnitude * magnitude, COTANGENT), 1.0 / magnitude)
    usual = select(magnitude.le(1 / 128), pole, usual)
    usual = select(t.lt(0.0), -usual, usual)
    near = usual.abs().lt(2.0**-8) & z.lt(float(len(DIGAMMA_ROOTS[0])))
    return z.f.rare(near, usual, lambda: near_root(z, z.floor(), "digamma", DIGAMMA_ROOTS, DIGAMMA_NEAR))
