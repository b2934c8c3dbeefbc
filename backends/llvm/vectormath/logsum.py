"""logaddexp: log(e^a + e^b), right relative to itself also where the result is near 0.

Usually it is m + log(1 + e^-|a - b|) with m the greater of the two.  Where m is negative and these cancel, e^a - 1 + e^b is
summed with about 70 bits, in code that runs only if some lane needs it.  float32 is done in float64.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value
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
from graphc.backends.llvm.vectormath.exponential import LN2, LOG2E, TABLES, exponential
from graphc.backends.llvm.vectormath.logarithm import log1p_of, log1p_pair

__all__ = ["FUNCTIONS"]

#: (e^r - 1 - r - r^2 / 2) / r^3, |r| <= ln2/32; error relative to r 2^-68.1
THIRD = (0.16666666666666666, 0.041666666666666706, 0.00833333333302614, 0.0013888888885267233, 0.00019841467326697654, 2.480236691610177e-05)


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


def cancelling(higher: Value, lower: Value) -> Value:
    """log(e^higher + e^lower) where that is small and lower > -700, as log(1 + (e^higher - 1) + e^lower); anything elsewhere."""
    s, p, q = pieces(higher)
    total, low = two_sum(s, s.like(-1.0))
    total, low2 = two_sum(total, p)
    s, p, q2 = pieces(lower.like(-700.0).maximum(lower))
    s, low3 = fast_two_sum(s, p)
    total, low4 = two_sum(total, s)
    total, rest = fast_two_sum(total, (low + low2) + (low3 + low4) + (q + q2))
    v = total + 1.0
    return log1p_of(v, (total - (v - 1.0)) + rest, careful=True)


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
    return a.f.rare(cancels & lower.gt(-690.0), result, lambda: cancelling(higher, lower))


@per_register
def for_double(a: Value, b: Value) -> Value:
    return in_double(a, b, True)


@per_register
def for_single(a: Value, b: Value) -> Value:
    return in_double(a, b, False)


def logaddexp(a: Value, b: Value) -> Value:
    return for_single(a.to("f64"), b.to("f64")).to("f32") if a.kind == "f32" else for_double(a, b)


FUNCTIONS: dict[str, Callable[..., Value]] = {"logaddexp": logaddexp}
