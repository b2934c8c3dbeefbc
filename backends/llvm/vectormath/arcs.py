"""asin, acos, atan, atan2 and hypot, for f32 and f64 lanes.

Each inverse is one odd polynomial on a short interval; the rest of the range is folded into it by an
identity (square root or reciprocal), with pi/2 as a sum of two numbers where the result is a difference.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value, copysign, select
from graphc.backends.llvm.vectormath.common import (
    BIAS,
    INTEGER,
    MANTISSA,
    muladd,
    per_register,
    polynomial,
    registers512,
    sign_of,
    unmasked512,
)

__all__ = ["FUNCTIONS", "acos", "asin", "atan", "atan2", "hypot"]

#: pi/2 as a sum of two numbers
HALF_PI = {"f32": (1.5707963705062866, -4.371139000186241e-08), "f64": (1.5707963267948966, 6.123233995736766e-17)}
#: (asin s - s) / s^3 in z = s^2, z <= 1/4; error relative to asin s 2^-27.6 and 2^-59.7.
#: Remez' algorithm in 45 digits, each coefficient rounded in turn and the rest fitted anew; as below.
ARCSINE = {
    "f32": (0.16666752099990845, 0.074953094124794, 0.04546915367245674, 0.02418472431600094, 0.04215846583247185),
    "f64": (0.1666666666666676, 0.07499999999970863, 0.04464285717458078, 0.03038194270806581, 0.022372215001840907,
            0.017351611542315928, 0.013980827314526382, 0.011398855593162395, 0.010780546784313708, 0.003705476346075048,
            0.02170909112697009, -0.021000249120594512, 0.032628496519321724)}
#: (atan t - t) / t^3 in z = t^2, t <= 1; 2^-25.8 and 2^-57.4
ARCTANGENT = {
    "f32": (-0.33333152532577515, 0.19993767142295837, -0.14211012423038483, 0.10665856301784515, -0.07551939785480499,
            0.04320906475186348, -0.01636645570397377, 0.00292038032785058),
    "f64": (-0.3333333333333307, 0.1999999999995175, -0.14285714282584525, 0.11111111007100644, -0.09090907001105705,
            0.07692279785849475, -0.06666403417900921, 0.0588052311689277, -0.05253494971506007, 0.0472223707767134,
            -0.04218951635519793, 0.03663735598450331, -0.0298969729727198, 0.021977026653831576, -0.013893954646071181,
            0.007192466764741071, -0.0028832104906706653, 0.0008308603455673125, -0.000152093402562174, 1.322170566928851e-05)}


def folded(a: Value) -> tuple[Value, Value, Value]:
    """For 0 <= a <= 1: (a > 1/2, s, t) where asin s = s + t is asin a, or for a > 1/2 its half: asin a = pi/2 - 2 asin s."""
    big = a.gt(0.5)
    z = select(big, (1.0 - a) * 0.5, a * a)  # the difference is exact
    s = select(big, z.sqrt(), a)
    return big, s, s * z * polynomial(z, ARCSINE[a.kind])


def asin(x: Value) -> Value:
    """asin x; nan beyond 1."""
    high, low = HALF_PI[x.kind]
    big, s, t = folded(x.abs())
    return copysign(select(big, high - (2.0 * s - muladd(t, -2.0, low)), s + t), x)


def acos(x: Value) -> Value:
    """acos x; nan beyond 1."""
    high, low = HALF_PI[x.kind]
    big, s, t = folded(x.abs())
    s, t = copysign(s, x), copysign(t, x)
    twice = 2.0 * (s + t)
    far = select(x.lt(0.0), 2.0 * high + (2.0 * low + twice), twice)  # pi - 2 asin s, or 2 asin s
    return select(big, far, high - (s - (low - t)))


def arctangent(t: Value) -> Value:
    """atan t - t for 0 <= t <= 1."""
    z = t * t
    return t * z * polynomial(z, ARCTANGENT[t.kind])


def atan(x: Value) -> Value:
    """atan x."""
    high, low = HALF_PI[x.kind]
    a = x.abs()
    big = a.gt(1.0)
    t = select(big, -1.0 / a, a)
    rest = arctangent(t)
    return copysign(select(big, high + (t + (rest + low)), t + rest), x)


def atan2(y: Value, x: Value) -> Value:
    """The angle of the point (x, y), from -pi to pi; signs of zeros count, as in C."""
    high, low = HALF_PI[x.kind]
    a, b = y.abs(), x.abs()
    steep = a.gt(b)
    top, bottom = select(steep, b, a), select(steep, a, b)
    # 0/0 counts as 0 and inf/inf as 1; a NaN in either stays one
    same = a.eq(b)
    t = select(same, select(a.eq(0.0), a, a.like(1.0)), top / bottom)
    rest = arctangent(t)
    left = sign_of(x).ne(0)
    # angle = base + sign * (t + rest): base 0 (right) or pi (left), or pi/2 where steep
    turn = select(steep, ~left, left)
    t, rest = select(turn, -t, t), select(turn, -rest, rest)
    base = select(steep, t.like(high), select(left, t.like(2.0 * high), t.like(0.0)))
    base_low = select(steep, t.like(low), select(left, t.like(2.0 * low), t.like(0.0)))
    return copysign(base + (t + (rest + base_low)), y)


@per_register
def hypot(x: Value, y: Value) -> Value:
    """sqrt(x^2 + y^2) without overflow or underflow on the way; an infinity wins over NaN."""
    infinity = x.like(float("inf"))
    if registers512(x) and x.f.target.has("avx512dq"):
        top = unmasked512("range", x, y, "i32 11")  # the larger magnitude; of a number and a NaN the number
        infinite = top.eq(infinity)
    else:
        a, b = x.abs(), y.abs()
        top = a.maximum(b)
        infinite = a.eq(infinity) | b.eq(infinity)
    # a power of two not far from the larger one and its reciprocal: the exponent's upper three bits, the next one set, zeros
    low = x.bits - 4
    down = (top.bitcast(INTEGER[x.kind]) & (7 << low)) | (1 << (low - 1))
    up = ((2 * BIAS[x.kind] << MANTISSA[x.kind]) - down).bitcast(x.kind)
    x_scaled, y_scaled = x * up, y * up
    length = muladd(x_scaled, x_scaled, y_scaled * y_scaled).sqrt() * down.bitcast(x.kind)
    return select(infinite, infinity, length)


FUNCTIONS: dict[str, Callable[..., Value]] = {"asin": asin, "acos": acos, "atan": atan, "atan2": atan2, "hypot": hypot}
