"""sin, cos and tan over the whole range, for f32 and f64 lanes.

sin and cos take off multiples of pi and use one odd polynomial on [-pi/2, pi/2]; cos is the sine of an angle
that lies a quarter turn on.  tan takes off multiples of pi/2 and gives a quotient that is turned over in odd
quarters.  ``reduction`` says how; huge arguments go through ``Body.rare``.  Signs are put on last: all
is computed for |x|, so -0.0 stays -0.0.  ``FUNCTIONS`` has the inverse functions of ``arcs`` too.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value, fma, select
from graphc.backends.llvm.vectormath.arcs import FUNCTIONS as ARCS
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    by_registers,
    fast_two_sum,
    has_fma,
    integer_of,
    muladd,
    nearly_reciprocal,
    polynomial,
    registers512,
    sign_of,
    two_product,
)
from graphc.backends.llvm.vectormath.reduction import LIMIT, PI_F32, far, near_f32, near_f32_short, near_f64

__all__ = ["FUNCTIONS", "cos", "sin", "tan"]

PI = 3.141592653589793

#: (sin r - r) / r^3 as a polynomial in r^2 for |r| <= pi/2 (and 2^-8 of it more); error relative to sin r 2^-27.2 and 2^-61.5.
#: These and the other coefficients of this file: Remez' algorithm in 45 digits, each coefficient rounded in turn and the rest fitted anew.
SINE = {
    "f32": (-0.16666659712791443, 0.008333067409694195, -0.00019809554214589298, 2.605465624583303e-06),
    "f64": (-0.16666666666666666, 0.008333333333333207, -0.00019841269841212476, 2.755731921156858e-06,
            -2.50521069044636e-08, 1.6058941021104817e-10, -7.643020547844283e-13, 2.7214412312068934e-15)}
#: (tan r - r) / r^3 in r^2 for |r| <= pi/4 (and 2^-8 of it more in f32); 2^-25.7 and 2^-56.2
TANGENT = {
    "f32": (0.33333146572113037, 0.13339070975780487, 0.05338845029473305, 0.0245127622038126, 0.0029856262262910604, 0.009465889073908329),
    "f64": (0.3333333333333278, 0.13333333333414138, 0.05396825392688081, 0.02186948960416651, 0.008863219229805873, 0.0035922885047943226,
            0.001454761367535063, 0.0005950507398357664, 0.0002224204051117409, 0.00013644294715951477, -2.6270780043509976e-05,
            8.93469909922164e-05, -4.481997808043513e-05, 2.0849705966188506e-05)}

#: the same for |r| <= pi/32 (and 2^-6 of it more): 2^-28.8
TANGENT_SHORT = (0.33333101868629456, 0.1340840756893158)
#: numbers in proportion to sin h and cos h for h = 0, pi/16, ... 15 pi/16 (signs turned where that is nearer to 0): floats whose
#: quotient was found to be tan h to 2^-42
SINES = (0.0, 0.19602258503437042, 0.41132664680480957, 0.6681610345840454, 1.0, 0.9999736547470093, 0.9930303692817688, 0.9854720830917358,
         1.0, -0.9854720830917358, -0.9930303692817688, -0.9999736547470093, -1.0, -0.6681610345840454, -0.41132664680480957, -0.19602258503437042)
COSINES = (1.0, 0.9854720830917358, 0.9930303692817688, 0.9999736547470093, 1.0, 0.6681610345840454, 0.41132664680480957, 0.19602258503437042,
           0.0, 0.19602258503437042, 0.41132664680480957, 0.6681610345840454, 1.0, 0.9999736547470093, 0.9930303692817688, 0.9854720830917358)


def flip(x: Value, bits: Value) -> Value:
    """``x`` with the sign turned where the integer has its top bit."""
    return (x.bitcast(bits.kind) ^ bits).bitcast(x.kind)


def sine_near(high: Value, low: Value | None) -> Value:
    """sin(high + low), |high| <= pi/2 and a little more; never beyond 1."""
    z = high * high
    cubic = polynomial(z, SINE[high.kind])
    if low is None:
        raw = muladd(high * z, cubic, high)
    else:
        raw = high + muladd(high * z, cubic, low * muladd(z, -0.405, 1.0))  # low * cos(high), roughly
    return raw.like(-1.0).maximum(raw.like(1.0).minimum(raw))  # in this order NaN passes


def turned(x: Value, quarter: bool) -> Value:
    """sin of |x|, or of |x| plus a quarter turn."""
    a, kind = x.abs(), x.kind
    if quarter:  # n is a whole number less 1/2
        shifted = muladd(a, 1 / PI, 0.5) + MAGIC[kind]
        n = (shifted - MAGIC[kind]) - 0.5
    else:
        shifted = muladd(a, 1 / PI, MAGIC[kind])
        n = shifted - MAGIC[kind]
    whole = integer_of(shifted) << (x.bits - 1)
    if kind == "f32":
        usual = flip(sine_near(near_f32_short(a, n, 1.0), None), whole)
    else:
        usual = flip(sine_near(*near_f64(a, n, 1.0)), whole)

    def slow() -> Value:
        high, low, odd = far(a.to("f64"), True, quarter)
        if kind == "f64":
            return flip(sine_near(high, low), odd << 63)
        return flip(sine_near(high.to("f32"), None), odd.to("i32") << 31)

    return x.f.rare(a.gt(LIMIT[kind]), usual, slow)


def sin(x: Value) -> Value:
    """sin x; nan for infinities."""
    return flip(turned(x, False), sign_of(x))


def cos(x: Value) -> Value:
    """cos x; nan for infinities."""
    return turned(x, True)


def tangent_near(high: Value, low: Value, odd: Value) -> Value:
    """tan(high + low), |high| <= pi/4, or where ``odd`` (the low bit) its reciprocal with the sign turned."""
    z = high * high
    cubic = polynomial(z, TANGENT[high.kind])
    t, rest = fast_two_sum(high, muladd(high * z, cubic, muladd(low, z, low)))  # low * (1 + tan(high)^2), roughly
    # -1 / (t + rest) = r (1 + miss), where r = -1 / t roughly and miss = 1 + (t + rest) r
    r = -(nearly_reciprocal(t) if t.kind == "f32" else 1.0 / t)
    if has_fma(z.f):
        miss = fma(rest, r, fma(t, r, 1.0))
    else:
        product, error = two_product(t, r)
        miss = ((product + 1.0) + error) + rest * r
    return select((odd & 1).ne(0), muladd(r, miss, r), t)


def tangent_table(a: Value) -> Value:
    """tan a of one 512-bit register of f32, 0 <= a <= LIMIT: multiples of pi/16 are taken off, whose sines and cosines come from registers.

    tan(h + r) = (sin h + t cos h) / (cos h - t sin h), t = tan r.  A first quotient q is corrected by what is missing; there
    sin h - q cos h cancels first.
    """
    shifted = fma(a, 16 / PI, MAGIC["f32"])
    n, index = shifted - MAGIC["f32"], integer_of(shifted)  # the permutations read the low four bits only
    one, two, three = (-p / 16 for p in PI_F32)
    r = fma(n, two, fma(n, one, a))  # the inner sum is exact
    z = r * r
    rest = fma(r * z, polynomial(z, TANGENT_SHORT), n * three)
    t = r + rest
    sine, cosine = a.f.lookup("tan_sines", SINES, index, "f32"), a.f.lookup("tan_cosines", COSINES, index, "f32")
    top, bottom = fma(cosine, t, sine), fma(-sine, t, cosine)
    lost = fma(-sine, rest, fma(-sine, r, cosine - bottom))
    guess = nearly_reciprocal(bottom)
    q = top * guess
    return fma(fma(-q, lost, fma(-q, bottom, top)), guess, q)


def tan(x: Value) -> Value:
    """tan x; nan for infinities."""
    a, kind = x.abs(), x.kind
    if kind == "f32" and registers512(x):
        usual = by_registers(tangent_table, a)
    else:
        shifted = muladd(a, 2 / PI, MAGIC[kind])
        n, odd = shifted - MAGIC[kind], integer_of(shifted)
        usual = tangent_near(*(near_f32 if kind == "f32" else near_f64)(a, n, 0.5), odd)

    def slow() -> Value:
        high, low, odd = far(a.to("f64"), False, False)
        if kind == "f64":
            return tangent_near(high, low, odd)
        short = high.to("f32")
        return tangent_near(short, (high - short.to("f64")).to("f32"), odd.to("i32"))

    return flip(x.f.rare(a.gt(LIMIT[kind]), usual, slow), sign_of(x))


FUNCTIONS: dict[str, Callable[..., Value]] = {"sin": sin, "cos": cos, "tan": tan, **ARCS}
