"""logaddexp: log(e^a + e^b), right relative to itself also where the result is near 0.

Usually it is m + log(1 + e^-|a - b|) with m the greater of the two.  Where m is negative and these cancel, e^a - 1 + e^b is
summed with about 70 bits, in code that runs only if some lane needs it; where in float64 that sum is less than 2^-14, with 107.
float32 is done in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from graphc.backends.llvm.values import Value, select
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    fast_two_sum,
    integer_of,
    muladd,
    per_register,
    polynomial,
    power_of_two,
    registers512,
    tame,
    two_product,
    two_sum,
    where,
)
from graphc.backends.llvm.vectormath.doubled import LN2_LAST, Pair, added, halves, multiplied, series
from graphc.backends.llvm.vectormath.exponential import LN2, LOG2E, TABLES, exponential
from graphc.backends.llvm.vectormath.logarithm import log1p_of, log1p_pair

__all__ = ["FUNCTIONS"]

#: (e^r - 1 - r - r^2 / 2) / r^3, |r| <= ln2/32; error relative to r 2^-68.1
THIRD = (0.16666666666666666, 0.041666666666666706, 0.00833333333302614, 0.0013888888885267233, 0.00019841467326697654, 2.480236691610177e-05)


#: 2^(j/16) less the numbers and what is missing from them in exponential.py
SIXTEENTHS_LAST = (0.0, -4.330791080574723e-33, 2.0170548784884862e-33, -2.0074146328324945e-33, 1.1419596568854534e-33, -2.31439910378786e-33,
                   1.686782464618325e-34, -2.2407483643739503e-33, 4.1386753086994136e-33, -1.2115770452309058e-34, -9.159956374100367e-34,
                   1.069684778889359e-33, 5.103515194728093e-33, 1.2334822744893002e-33, -6.4250893479530425e-34, -3.0577697567913255e-33)
#: (e^r - 1 - r) / r^2: as many of the first terms are sums of two numbers
EXPONENTIAL, LEADING = [Fraction(1, math.factorial(k)) for k in range(2, 15)], 6
#: below, e^x and what is lost in products with it are multiplied by 2^LIFT: they would be subnormal
DEEP, LIFT = -600.0, 300


def pieces(x: Value) -> tuple[Value, Value, Value]:
    """e^x = s + p + q for -700 <= x <= 0, good to about 2^-68: s a power of 2^(1/16), rounded, the others ever smaller."""
    magic = MAGIC["f64"] / 16
    shifted = muladd(x, LOG2E, magic)
    n = shifted - magic
    part, part_low = two_product(n, LN2["f64"][0])  # has more bits than a number for x < -40
    first = (x - part) - part_low
    r = muladd(n, -LN2["f64"][1], first)
    rest = muladd(n, -LN2["f64"][1], first - r)
    j = integer_of(shifted)
    if not registers512(x):
        j = j & 15
    table, missing = (x.f.lookup(f"exp_{name}_f64", TABLES["f64"][i], j, "f64") for i, name in ((0, "sixteenths"), (2, "missing_part")))
    s = table * power_of_two(n.floor())
    square, square_low = two_product(r, r * 0.5)
    high, low = fast_two_sum(r, square)
    low = low + (square_low + muladd(r * r * r, polynomial(r, THIRD), muladd(high, rest + missing, rest + missing)))
    p, p_low = two_product(s, high)
    return s, p, muladd(s, low, p_low)


def long_pieces(x: Value, lift: Value) -> tuple[Value, Pair]:
    """e^x = s + p for -746 <= x <= 0, good to about 2^-107 of e^x - 1 or 2^-111 of s: s a power of 2^(1/16), rounded.  2^lift times that."""
    f = x.f
    magic = MAGIC["f64"] / 16
    shifted = muladd(x, LOG2E, magic)
    n = shifted - magic
    part, part_low = two_product(n, LN2["f64"][0])
    middle, middle_low = two_product(n, LN2["f64"][1])
    r, lost = two_sum(x - part, -part_low)
    r, lost2 = two_sum(r, -middle)
    whole = fast_two_sum(r, (lost + lost2) - muladd(n, LN2_LAST, middle_low))
    # e^r - 1 = r + r^2 (1/2 + r/6 + ...)
    rest = series(whole, [halves(c) for c in EXPONENTIAL[:LEADING]], polynomial(whole[0], [float(c) for c in EXPONENTIAL[LEADING:]]))
    less = added(whole, multiplied(multiplied(whole, whole), rest))
    j = integer_of(shifted) & 15
    scale = power_of_two(n.floor() + lift)
    s, low, last = (f.lookup(name, table, j, "f64") * scale for name, table in (
        ("exp_sixteenths_f64", TABLES["f64"][0]), ("exp_missing_f64", TABLES["f64"][1]), ("exp_last_f64", SIXTEENTHS_LAST)))
    return s, added(multiplied((s, low), less), (low, last))


def cancelled(higher: Value, lower: Value) -> Value:
    """As ``cancelling``, for all lower > -746 and good to about 2^-107 of the terms: 2 ULP if no more than 56 bits of them cancel."""
    deep = lower.lt(DEEP)  # then higher is almost 0
    lift = where(deep, float(LIFT), lower.like(0.0))
    s, p = long_pieces(higher, lift)
    one = where(deep, -(2.0**LIFT), s.like(-1.0))
    t, q = long_pieces(lower.like(-746.0).maximum(lower), lift)
    total, low = two_sum(s, one)
    total, low2 = two_sum(total, t)
    # the larger ones first: once they have cancelled, little is lost
    total, rest = two_sum(total, p[0])
    for more in (q[0], low, low2, p[1], q[1]):
        total, lost = two_sum(total, more)
        rest = rest + lost
    total, rest = two_sum(total, rest)
    v = total + 1.0
    return select(deep, (total + rest) * 2.0**-LIFT, log1p_of(v, (total - (v - 1.0)) + rest, careful=True))


def cancelling(higher: Value, lower: Value, precise: bool) -> Value:
    """log(e^higher + e^lower) where that is small, as log(1 + (e^higher - 1) + e^lower); anything elsewhere.  Not ``precise``: for lower > -700."""
    s, p, q = pieces(higher)
    total, low = two_sum(s, s.like(-1.0))
    total, low2 = two_sum(total, p)
    s, p, q2 = pieces(lower.like(-700.0).maximum(lower))
    s, low3 = fast_two_sum(s, p)
    total, low4 = two_sum(total, s)
    total, rest = fast_two_sum(total, (low + low2) + (low3 + low4) + (q + q2))
    v = total + 1.0
    result = log1p_of(v, (total - (v - 1.0)) + rest, careful=True)
    if not precise:
        return result
    return higher.f.rare(total.abs().lt(2.0**-14) | lower.lt(-690.0), result, lambda: cancelled(higher, lower))


def in_double(a: Value, b: Value, precise: bool) -> Value:
    """The result in one register of float64; not ``precise``: for float32."""
    higher, lower = a.maximum(b), b.minimum(a)
    same = a.eq(b)  # also infinities
    difference, lost = two_sum(lower, -higher)
    difference, lost = where(same, 0.0, difference), where(same, 0.0, tame(lost, 1.0))
    e = exponential(difference, True)
    v = e + 1.0
    high, low = log1p_pair(v, muladd(e, lost, e - (v - 1.0)))
    total, rest = two_sum(higher, high)
    result = total + (where(rest.isnan(), 0.0, rest) + low)
    # where m > 0 nothing cancels
    cancels = higher.lt(0.0) & result.gt(-(high + low)) if precise else result.abs().lt(2.0**-20 * (high + low))
    return a.f.rare(cancels & lower.gt(-746.0 if precise else -690.0), result, lambda: cancelling(higher, lower, precise))


@per_register
def for_double(a: Value, b: Value) -> Value:
    return in_double(a, b, True)


@per_register
def for_single(a: Value, b: Value) -> Value:
    return in_double(a, b, False)


def logaddexp(a: Value, b: Value) -> Value:
    return for_single(a.to("f64"), b.to("f64")).to("f32") if a.kind == "f32" else for_double(a, b)


FUNCTIONS: dict[str, Callable[..., Value]] = {"logaddexp": logaddexp}
