"""Arithmetic on sums of two float64, a larger and a smaller part: about 100 bits, for small differences of large numbers.

A ``Pair``'s second part is at most a few ULP of the first.  Nothing here looks at infinities or NaN: callers choose another result
there.  Without an FMA instruction a product of pairs has three times as many instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from graphc.backends.llvm.values import Value
from graphc.backends.llvm.vectormath.common import fast_two_sum, muladd, polynomial, two_product, two_sum
from graphc.backends.llvm.vectormath.logarithm import LN2_SHORT, LOGS
from graphc.backends.llvm.vectormath.power import near_one
from graphc.backends.llvm.vectormath.reflectiontables import LOGS_LOW

__all__ = ["LN2_LAST", "Constant", "Pair", "added", "divided", "doubled_log", "halves", "multiplied", "series"]

Pair = tuple[Value, Value]
Constant = tuple[float, float]

#: what is missing from the sum LN2_SHORT["f64"]
LN2_LAST = 1.94704509238075e-31


def halves(number: Fraction) -> Constant:
    """A number as such a sum."""
    high = float(number)
    return high, float(number - Fraction(high))


def added(a: Pair, b: Pair) -> Pair:
    """a + b; the error is 2^-105 of the sum, or of the larger one if they cancel."""
    total, lost = two_sum(a[0], b[0])
    return fast_two_sum(total, lost + (a[1] + b[1]))


def multiplied(a: Pair, b: Pair) -> Pair:
    """a b; relative error about 2^-103."""
    product, lost = two_product(a[0], b[0])
    return product, muladd(a[0], b[1], muladd(a[1], b[0], lost))


def divided(a: Pair, b: Pair) -> Pair:
    """a / b; relative error about 2^-102."""
    inverse = 1.0 / b[0]
    quotient = a[0] * inverse
    product, lost = two_product(quotient, b[0])
    rest = ((a[0] - product) - lost) + (a[1] - quotient * b[1])
    return quotient, rest * inverse


def series(x: Pair, leading: Sequence[Constant], tail: Value) -> Pair:
    """c[0] + c[1] x + c[2] x^2 + ... + x^n tail for n coefficients; each term is less than the one before."""
    total = tail, tail.like(0.0)
    for high, low in reversed(leading):
        product, rest = multiplied(total, x)
        whole, lost = fast_two_sum(product.like(high), product)
        total = whole, lost + (rest + low)
    return total


#: atanh s = s + s^3 / 3 + s^5 / 5 + ..., |s| <= 1/32
ATANH = [Fraction(1, k) for k in range(3, 23, 2)]


def doubled_log(z: Pair) -> Pair:
    """log z for z > 1, at most one register; the error is 2^-103 or less of max(1, log z)."""
    e, r, r_low, j = near_one(z[0])
    c_log, c_low = (z[0].f.lookup(name, table, j, "f64") for name, table in (("log_logs_log_f64", LOGS["log", "f64"]), ("log_logs_low", LOGS_LOW)))
    # log(1 + r) = 2 atanh(r / (2 + r))
    under, lost = fast_two_sum(r.like(2.0), r)
    s = divided((r, r_low), (under, lost + r_low))
    w = multiplied(s, s)
    rest = multiplied(w, series(w, [halves(c) for c in ATANH[:4]], polynomial(w[0], [float(c) for c in ATANH[4:]])))
    logarithm = added(s, multiplied(s, rest))
    logarithm = logarithm[0] * 2.0, muladd(logarithm[1], 2.0, c_low + z[1] / z[0])
    part, part_low = two_product(e, LN2_SHORT["f64"][1])
    whole = two_sum(e * LN2_SHORT["f64"][0], c_log)
    return added(added(whole, (part, muladd(e, LN2_LAST, part_low))), logarithm)
