"""x to the power y, with the special cases of C99 and IEEE 754.

float32: as 2^(y log2 |x|).  The logarithm needs 8 bits more than float32 has: in 512-bit registers it is a sum of two numbers, elsewhere float64.
float64: log |x| as a sum of two numbers, good to about 2^-63, times y likewise, and e to that power.
Signs and special cases are looked at only where a lane has a negative base or a result that is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.backends.llvm.values import Value, fma, select
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    clamp,
    fast_two_sum,
    has_fma,
    muladd,
    per_register,
    polynomial,
    power_of_two,
    registers512,
    scale_by_power_of_two,
    tame,
    two_product,
    two_sum,
    unmasked512,
    where,
)
from graphc.backends.llvm.vectormath.exponential import LONG2, RANGE, SHORT, SHORT2, in_sixteenths, minus_one, reduced, table_end
from graphc.backends.llvm.vectormath.logarithm import LN2_SHORT, LOG2E, LOGS, RECIPROCALS, finish, series_parts, take_apart

__all__ = ["FUNCTIONS"]

#: (log m - 2 s) / s^3 in s^2, m in [sqrt(1/2), sqrt(2)]; error relative to s 2^-44.9
LOG_SERIES = (0.6666666667589166, 0.39999995586730547, 0.28572113334677507, 0.2217599621958336, 0.19587166412442972)
#: (log(1 + r) - r + r^2 / 2) / r^3 for r in [-0.0319, 0.0625]; error relative to r 2^-64.0
LOG_SHORT = (0.3333333333333333, -0.25000000000000105, 0.2000000000001616, -0.16666666666334207, 0.14285714241047853, -0.12500000015456184,
             0.1111115958846087, -0.10000534457152284, 0.09073579480101925, -0.07926890516859722, 0.0483364495908791)
THREE_QUARTERS = 0x3FE8000000000000


#: c near 1/m with 6 bits for m in 32nds of [1, 2), those from 1.5 on halved: m c - 1 is exact in float32.  log2(1/c), plus 1 in the upper
#: half, as a number with 14 bits behind the point and what is missing from it
C = (1.0, 0.953125, 0.921875, 0.90625, 0.875, 0.859375, 0.828125, 0.8125, 0.796875, 0.765625, 0.75, 0.734375, 0.71875, 0.703125, 0.6875,
     0.671875, 1.3125, 1.28125, 1.28125, 1.25, 1.21875, 1.1875, 1.1875, 1.15625, 1.125, 1.125, 1.09375, 1.0625, 1.0625, 1.03125, 1.03125, 1.0)
LOG_C = (0.0, 0.06927490234375, 0.11737060546875, 0.14202880859375, 0.192626953125, 0.2186279296875, 0.2720947265625, 0.299560546875,
     0.32757568359375, 0.38531494140625, 0.4150390625, 0.4454345703125, 0.4764404296875, 0.50811767578125, 0.54058837890625, 0.57373046875,
     0.607666015625, 0.6424560546875, 0.6424560546875, 0.6781005859375, 0.714599609375, 0.7520751953125, 0.7520751953125, 0.79052734375,
     0.830078125, 0.830078125, 0.8707275390625, 0.91253662109375, 0.91253662109375, 0.95562744140625, 0.95562744140625, 1.0)
LOG_C_REST = (0.0, -1.2239906936883926e-05, -1.3654830581799615e-05, -9.803721695789136e-06, 1.8124817870557308e-05, 1.2356787919998169e-05,
     -1.5181125490926206e-05, -2.650160979555949e-07, -1.0255652114210534e-06, -2.4785522327874787e-05, -1.5632211898264359e-06,
     -2.3421989681082778e-05, -2.3857444375607884e-06, 2.9227889172034338e-05, -1.9997543859062716e-05, 4.776547939400189e-06,
     1.6561596567044035e-05, -8.059305400820449e-06, -8.059305400820449e-06, -2.8680824470939115e-05, -1.8282372593603213e-06,
     -2.7087560283689527e-06, -2.7087560283689527e-06, 1.9290620912215672e-05, -3.1264423796528718e-06, -3.1264423796528718e-06,
     -1.0556007509876508e-05, 5.376559215619636e-07, 5.376559215619636e-07, -2.156076516257599e-05, -2.156076516257599e-05, 0.0)
#: (log2(1 + r) - r log2 e) / r^2 for r in [-0.0205, 0.0316]; error relative to r 2^-31.5
QUADRATIC = (-0.7213475108146667, 0.48090165853500366, -0.360770046710968, 0.28027090430259705)
#: log2 e in float32 and what is missing from it
LOG2E_PAIR = (1.4426950216293335, 1.925963033500011e-08)


def table_power(x: Value, y: Value) -> Value:
    """x^y for x >= 0 in one 512-bit register of float32: log2 x and its product with y are sums of two numbers."""
    f = x.f
    e = unmasked512("getexp", x)
    m = unmasked512("getmant", x, "i32 11")  # the interval [0.75, 1.5); NaN for NaN
    j = m.bitcast("i32").lshr(18)  # the permutation reads the low five bits only
    r = fma(m, f.lookup("power_c", C, j, "f32"), -1.0)
    whole = e + f.lookup("power_log", LOG_C, j, "f32")
    product = r * LOG2E_PAIR[0]
    small = fma(r, LOG2E_PAIR[1], fma(r, LOG2E_PAIR[0], -product)) + f.lookup("power_log_rest", LOG_C_REST, j, "f32")
    total, lost = fast_two_sum(whole, product)
    small = fma(r * r, polynomial(r, QUADRATIC), small) + lost
    z = y * total
    z_low = tame(fma(y, small, fma(y, total, -z)), 4.0)  # NaN if z is infinite; at most |z| / 60
    magic = MAGIC["f32"] / 16
    shifted = (z + z_low) + magic
    n = shifted - magic
    r = tame((z - n) + z_low, 0.0625)
    return table_end(shifted, n, r * polynomial(r, SHORT2["f32"]), False)


def double_power(x: Value, y: Value) -> Value:
    """x^y for x >= 0 in float64 with an error of about 2^-28: enough for float32."""
    e, m, _ = series_parts(x, False)
    s = m / (m + 2.0)
    square = s * s
    logarithm = muladd(muladd(s * square, polynomial(square, LOG_SERIES), s + s), LOG2E, e)
    z = clamp(y * finish(x, logarithm), -200.0, 200.0)
    n = (z + MAGIC["f64"]) - MAGIC["f64"]
    r = z - n
    return muladd(r, polynomial(r, LONG2["f32"]), 1.0) * power_of_two(n)


def near_one(x: Value) -> tuple[Value, Value, Value, Value]:
    """x = 2^e (1 + r + r_low) / c in float64, at most one register, x >= 0: e, r, r_low, and c's index in RECIPROCALS."""
    if registers512(x):
        e, m, j = take_apart(x)
    else:
        e, less, m_bits = series_parts(x, True, THREE_QUARTERS)
        m, j = less + 1.0, m_bits.lshr(48) & 15
    product, product_low = two_product(m, x.f.lookup("log_reciprocals_log_f64", RECIPROCALS["log", "f64"], j, "f64"))
    return e, *fast_two_sum(product - 1.0, product_low), j


def precise_log(x: Value) -> tuple[Value, Value]:
    """log x in float64 as two numbers, at most one register, x >= 0."""
    e, r, r_low, j = near_one(x)
    t = x.f.lookup("log_logs_log_f64", LOGS["log", "f64"], j, "f64")
    # e ln2 + t + r - r^2 / 2 one after another, each with what its rounding loses
    high, low = LN2_SHORT["f64"]
    total, lost = two_sum(e * high, t)
    total, lost2 = fast_two_sum(total, r)
    square, square_low = two_product(r, r * 0.5)
    total, lost3 = fast_two_sum(total, -square)
    small = muladd(r * r * r, polynomial(r, LOG_SHORT, 2), muladd(e, low, (lost + lost2) + (lost3 - square_low)) + r_low * (1.0 - r))
    total, small = fast_two_sum(total, tame(small, 2.0**-10))  # the sum of infinities is NaN
    return (total if registers512(x) else finish(x, total)), small


@per_register
def precise_power(x: Value, y: Value) -> Value:
    """x^y for x >= 0 in float64."""
    high, low = precise_log(x)
    if has_fma(x.f):
        z = y * high
        z_low = fma(y, low, fma(y, high, -z))
    else:
        z, z_low = two_product(y, high)
        z_low = z_low + y * low
    if registers512(x):
        shifted, n, _, r = in_sixteenths(z)
        r = tame(r + z_low, 0.0625)
        return table_end(shifted, n, fma(r * r, polynomial(r, SHORT["f64"]), r), False)
    r, n, _ = reduced(clamp(z, RANGE["f64"][0], RANGE["f64"][2]))
    return scale_by_power_of_two(minus_one(r + tame(z_low, 2.0**-20)) + 1.0, n)


@per_register
def power(x: Value, y: Value) -> Value:
    """``pow``: see the module."""
    if x.kind == "f64":
        magnitude = precise_power(x.abs(), y)
    elif registers512(x):
        magnitude = table_power(x.abs(), y)
    else:
        magnitude = double_power(x.abs().to("f64"), y.to("f64")).to("f32")

    def special() -> Value:
        whole = y.rint().eq(y)
        half = y * 0.5
        odd = whole & half.rint().ne(half)
        result = select((x.bitcast("i32" if x.kind == "f32" else "i64").lt(0)) & odd, -magnitude, magnitude)
        result = select(x.lt(0.0) & x.gt(-math.inf) & ~whole, x.like(math.nan), result)
        one = y.eq(0.0) | x.eq(1.0) | (x.eq(-1.0) & y.abs().eq(math.inf))
        return where(one, 1.0, result)

    # the sign bit is set (also of -0.0), or something is not a number
    negative = x.bitcast("i32" if x.kind == "f32" else "i64").lt(0)
    return x.f.rare(negative | magnitude.isnan(), magnitude, special)


FUNCTIONS: dict[str, Callable[..., Value]] = {"pow": power}
