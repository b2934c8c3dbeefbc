"""Logarithms and what is made of them: log, log2, log10, log1p, asinh, acosh, atanh, xlogy.

All of them take their argument apart into m 2^e and have two ways from there.

*   Registers of 512 bits (``table_pair``): m in [0.75, 1.5).  Its upper four mantissa bits choose a c near 1/m and log(1/c) from
    registers by permutations; r = m c - 1 is small and log(1 + r) a short polynomial.  c is 1 on both sides of m = 1, where the
    logarithm is small; elsewhere it was chosen so that log(1/c) is almost exactly a number of its kind.
    The instructions that take a number apart know subnormals, 0, infinities, NaN and negative numbers: nothing is left to do.
*   Everywhere (``series_pair``): m in [sqrt(1/2), sqrt(2)), s = (m - 1) / (m + 1), log m = 2 atanh s as a polynomial in s^2.

Both give the result as a sum of a larger and a smaller part, and both can add a rounding error ``rest`` of the argument, so
that log(1 + x) is right for small x.  Coefficients: minimax fits as in exponential.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from graphc.backends.llvm.values import Value, copysign, fma, select
from graphc.backends.llvm.vectormath.common import (
    BIAS,
    INTEGER,
    MANTISSA,
    fast_two_sum,
    muladd,
    nearly_reciprocal,
    per_register,
    polynomial,
    registers512,
    split,
    tame,
    two_product,
    two_sum,
    unmasked512,
    where,
)

__all__ = ["FUNCTIONS"]

#: c for m in sixteenths of [1, 2), those from 1.5 on halved; and the logarithms of 1/c (to base e, 2, 10), good to 2^-34 (f32), 2^-63 (f64).
#: Where that does no harm those of the upper eight are more by log 2: so x = 2^e (m / 2) needs no look at whether m was halved (``STEPPED``)
RECIPROCALS = {
    ("log", "f32"): (1.0, 0.9153560996055603, 0.8645483255386353, 0.8195194602012634, 0.7811892032623291, 0.7449498176574707, 0.7113068103790283,
         0.6804101467132568, 1.307958722114563, 1.25661301612854, 1.2071480751037598, 1.165094256401062, 1.1219419240951538,
         1.0863487720489502, 1.0471848249435425, 1.0),
    ("log", "f64"): (1.0, 0.9139268854779057, 0.8634925761625082, 0.8194486975640357, 0.7801998355455725, 0.7455153405924522, 0.712490971014471,
         0.6811831421729629, 1.3063332508820085, 1.2525652079833425, 1.2054034897369434, 1.161891136510956, 1.1244802085199808,
         1.0850246946359807, 1.0488491259324977, 1.0),
    ("log2", "f32"): (1.0, 0.9140030741691589, 0.8635326027870178, 0.8209807872772217, 0.7798535227775574, 0.745373010635376, 0.7108597159385681,
         0.6815676093101501, 1.306103229522705, 1.2534070014953613, 1.2060558795928955, 1.163947582244873, 1.1242250204086304,
         1.084496259689331, 1.0483119487762451, 1.0),
    ("log2", "f64"): (1.0, 0.9156321729167384, 0.8663430509899672, 0.8213641979470905, 0.7796188635395076, 0.7431893860609714, 0.7116418803536533,
         0.6816728581035238, 1.3035940084314117, 1.2524877869407403, 1.2096526249256787, 1.1616943909367425, 1.1226938562944928,
         1.0827380115452148, 1.0498155735577783, 1.0),
    ("log10", "f32"): (1.0, 0.9127525091171265, 0.8643432259559631, 0.8217463493347168, 0.778933048248291, 0.7429952621459961, 0.7111039757728577,
         0.68080073595047, 1.3062422275543213, 1.2524267435073853, 1.2075159549713135, 1.1658376455307007, 1.1224102973937988,
         1.0838916301727295, 1.0497517585754395, 1.0),
    ("log10", "f64"): (1.0, 0.9145367033837197, 0.8660591692830245, 0.8199223744873435, 0.7816896360779038, 0.74464641876925, 0.7120946281611631,
         0.6805453017626322, 1.305988850701106, 1.25633928093307, 1.2083712225437628, 1.1633270580576673, 1.123436295512586,
         1.0835234261437834, 1.0485749061763663, 1.0),
}
LOGS = {
    ("log", "f32"): (0.0, 0.0884421095252037, 0.14554807543754578, 0.19903713464736938, 0.24693790078163147, 0.2944384217262268,
         0.34065142273902893, 0.38505950570106506, 0.4246794879436493, 0.46472716331481934, 0.5048865675926208, 0.5403451919555664,
         0.5780861377716064, 0.6103248596191406, 0.6470417380332947, 0.6931471824645996),
    ("log", "f64"): (0.0, 0.09000470473434598, 0.1467699788122014, 0.19912348487616835, 0.24820519269456534, 0.29367956740025725,
         0.3389880391800168, 0.3839240777503169, -0.2672241674327778, -0.22519361488383996, -0.18681435714884742, -0.1500489677336166,
         -0.11732089201333046, -0.0816027467665792, -0.04769349250434863, 0.0),
    ("log2", "f32"): (0.0, 0.12972907721996307, 0.2116774469614029, 0.28457963466644287, 0.3587249219417572, 0.4239655137062073,
         0.49236321449279785, 0.5530713200569153, 0.6147310733795166, 0.6741450428962708, 0.7297032475471497, 0.7809739112854004,
         0.8310691714286804, 0.8829749226570129, 0.9319319128990173, 1.0),
    ("log2", "f64"): (0.0, 0.1271599385774711, 0.2069896842987998, 0.2839060311470615, 0.3591590966393511, 0.4281981970238271, 0.49077667871651365,
         0.5528485539140078, 0.6175053736993128, 0.6752034642888441, 0.7254071907220404, 0.7837694137611732, 0.833035422412249,
         0.8853158015312707, 0.9298640954259988, 1.0),
    ("log10", "f32"): (0.0, 0.03964696452021599, 0.06331376731395721, 0.08526221662759781, 0.10849986970424652, 0.12901395559310913,
         0.14806689321994781, 0.16697998344898224, -0.1160237193107605, -0.09775233268737793, -0.08189287781715393,
         -0.06663807481527328, -0.05015164241194725, -0.03498586267232895, -0.021086610853672028, 0.0),
    ("log10", "f64"): (0.0, 0.03879886016334523, 0.06245243590957245, 0.08622726216213167, 0.10696564603701669, 0.12804989480713277,
         0.14746229041158593, 0.16714295987917882, 0.1850905263050603, 0.20192305694812826, 0.2188296216970192, 0.2353281661106626,
         0.2504815448917054, 0.266191690312717, 0.2804305354195365, 0.3010299956639812),
}
#: (log(1 + r) - r) / r^2 (times log2 e, log10 e) for r in [-0.0319, 0.0625]; error of r^2 times that relative to r: f32 2^-27.8, f64 2^-55.9
SHORT = {
    ("log", "f32"): (-0.5, 0.33334460854530334, -0.25008702278137207, 0.18880920112133026),
    ("log", "f64"): (-0.5000000000000001, 0.33333333333348597, -0.2500000000000613, 0.19999999925818943, -0.1666666582710893,
                     0.14285816867262438, -0.1250206305406475, 0.11075864891787117, -0.08771922110120492),
    ("log2", "f32"): (-0.7213475108146667, 0.48091474175453186, -0.3608193099498749, 0.2726489007472992),
    ("log2", "f64"): (-0.7213475204444819, 0.4808983469632067, -0.36067376022182496, 0.28853900710616925, -0.24044916221581664,
                      0.2061007817734794, -0.18036630317442676, 0.15978419920259353, -0.12652449017523495),
    ("log10", "f32"): (-0.21714724600315094, 0.14476998150348663, -0.10860283672809601, 0.0817684531211853),
    ("log10", "f64"): (-0.21714724095162596, 0.1447648273011501, -0.10857362047582314, 0.08685889606066888, -0.0723824100212756,
                       0.06204251136330111, -0.05429575239538063, 0.04810322254507933, -0.03811136259243785),
}
#: (log m - 2 s) / s^3 in s^2, m in [sqrt(1/2), sqrt(2)]; error relative to s: f32 2^-30.2, f64 2^-59.4
SERIES = {"f32": (0.6666677594184875, 0.39977553486824036, 0.29872146248817444),
          "f64": (0.6666666666666735, 0.3999999999940876, 0.28571428743979943, 0.22222198383399308, 0.18183575436552601,
                  0.15313737225673696, 0.14799351586331885)}
#: ln 2, log10 2 as a number, and what is missing from it if that matters (not negative: a sum of infinities must not be NaN)
LN2 = {"f32": (0.6931471824645996, 0.0), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
LG2 = {"f32": (0.3010299801826477, 1.5481333548450493e-08), "f64": (0.3010299956639812, 0.0)}
LOG2E, LG_E = 1.4426950408889634, 0.4342944819032518
#: ln 2 and log10 2 so that the first part times an exponent is exact; log2 e and log10 e with a first part of half the bits
LN2_SHORT = {"f32": (0.693145751953125, 1.428606765330187e-06), "f64": (0.6931471805598903, 5.497923018708371e-14)}
LG2_SHORT = {"f32": (0.301025390625, 4.605039066518657e-06), "f64": (0.30102999566395283, 2.8363394551044964e-14)}
LOG2E_HALF = {"f32": (1.4423828125, 0.00031222839606925845), "f64": (1.4426950216293335, 1.9259629911266175e-08)}
LG_E_HALF = {"f32": (0.4342041015625, 9.038033749675378e-05), "f64": (0.4342944771051407, 4.798111141615973e-09)}
STEPPED = {("log", "f32"), ("log2", "f32"), ("log2", "f64"), ("log10", "f64")}
#: chains of the polynomial
CHAINS = {"f32": 1, "f64": 2}
#: a rounding error divided by what was rounded is less than this
REST = {"f32": 2.0**-20, "f64": 2.0**-48}
#: the bits of 1.0 and of sqrt(1/2), the smallest normal number
ONE_BITS = {"f32": 0x3F800000, "f64": 0x3FF0000000000000}
ROOT_BITS = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}
TINY = {"f32": 2.0**-126, "f64": 2.0**-1022}


# -- the two ways ---------------------------------------------------------------------------------


def take_apart(v: Value, stepped: bool = False) -> tuple[Value, Value, Value]:
    """v = m 2^e, m in [0.75, 1.5), in one 512-bit register: e, m, and an integer whose low four bits are m's piece.

    ``stepped``: e is one less where m < 1.
    """
    e = unmasked512("getexp", v)
    m = unmasked512("getmant", v, "i32 11")  # the interval [0.75, 1.5); NaN for negative numbers
    if not stepped:
        e = select(m.lt(1.0), e + 1.0, e)
    return e, m, m.bitcast(INTEGER[v.kind]).lshr(MANTISSA[v.kind] - 4)


def scaled_rest(rest: Value, v_bits: Value, m_bits: Value) -> Value:
    """``rest`` / 2^e; where that goes wrong (v is infinite or nearly) something small."""
    return tame(rest * (m_bits - v_bits + ONE_BITS[rest.kind]).bitcast(rest.kind), REST[rest.kind])


def table_pair(v: Value, base: str, rest: Value | None = None, doubled: Value | None = None, careful: bool = False) -> tuple[Value, Value]:
    """log(v + rest) as two parts, in one 512-bit register; log(2 (v + rest)) where ``doubled``.  ``careful``: half an ULP better near 1."""
    f, kind = v.f, v.kind
    e, m, j = take_apart(v, (base, kind) in STEPPED)
    if doubled is not None:
        e = select(doubled, e + 1.0, e)
    c = f.lookup(f"log_reciprocals_{base}_{kind}", RECIPROCALS[base, kind], j, kind)
    t = f.lookup(f"log_logs_{base}_{kind}", LOGS[base, kind], j, kind)
    r = first = fma(m, c, -1.0)
    if rest is not None:
        integer = INTEGER[kind]
        rest = scaled_rest(rest, v.bitcast(integer), m.bitcast(integer))
        r = fma(rest, c, first)
    q = polynomial(r, SHORT[base, kind], CHAINS[kind])
    if base == "log":
        missing = LN2[kind][1]
        if rest is not None and careful:  # add what r's rounding lost
            lost = fma(rest, c, first - r)
            return fma(e, LN2[kind][0], t), fma(r * r, q, fma(e, missing, lost) if missing else lost) + r
        return fma(e, LN2[kind][0], t), fma(r * r, q, fma(e, missing, r) if missing else r)
    if base == "log2":
        return e + t, r * fma(r, q, LOG2E)
    small = fma(r, q, LG_E)
    return fma(e, LG2[kind][0], t), fma(r, small, e * LG2[kind][1]) if LG2[kind][1] else r * small


def series_parts(v: Value, subnormals: bool, lowest: int = 0) -> tuple[Value, Value, Value]:
    """v = m 2^e, m in [sqrt(1/2), sqrt(2)): e as a float, m - 1, the bits of m.  For finite v > 0.  ``lowest``: the bits of another lowest m."""
    kind = v.kind
    lowest = lowest or ROOT_BITS[kind]
    bias: float = BIAS[kind]
    if subnormals:
        small = v.lt(TINY[kind])
        lift = MANTISSA[kind] + 2
        v = select(small, v * 2.0**lift, v)
    bits = v.bitcast(INTEGER[kind])
    e = (bits + (ONE_BITS[kind] - lowest)).lshr(MANTISSA[kind])  # biased
    m_bits = bits - (e << MANTISSA[kind]) + ONE_BITS[kind]
    # an integer below 2^MANTISSA becomes a float if its bits are put into those of 2^MANTISSA
    as_float = (e | (BIAS[kind] + MANTISSA[kind] << MANTISSA[kind])).bitcast(kind) - (2.0 ** MANTISSA[kind] + bias)
    if subnormals:
        as_float = select(small, as_float - float(lift), as_float)
    return as_float, m_bits.bitcast(kind) - 1.0, m_bits


def series_pair(v: Value, rest: Value | None = None, doubled: Value | None = None, subnormals: bool = True) -> tuple[Value, Value]:
    """log(v + rest) as two parts for finite v > 0; log(2 (v + rest)) where ``doubled``."""
    e, x, m_bits = series_parts(v, subnormals)
    if doubled is not None:
        e = select(doubled, e + 1.0, e)
    s = x / (x + 2.0)
    square = s * s
    half = 0.5 * x * x
    # log(1 + x) = x - (x^2/2 - s (x^2/2 + R)): the large term x is exact
    high, low = LN2_SHORT[v.kind]
    small = e * low
    if rest is not None:
        # 1/m = (1 - s) / (1 + s), roughly
        small = small + scaled_rest(rest, v.bitcast(m_bits.kind), m_bits) * muladd(s, muladd(s, 2.0, -2.0), 1.0)
    return e * high, x - (half - muladd(s, half + square * polynomial(square, SERIES[v.kind]), small))


def finish(v: Value, result: Value) -> Value:
    """The result for finite v > 0, or what the logarithm of another v is."""
    special = select(v.gt(0.0), v, where(v.eq(0.0), -math.inf, v.like(math.nan)))
    return select(v.gt(0.0) & v.lt(math.inf), result, special)


def log1p_pair(v: Value, rest: Value) -> tuple[Value, Value]:
    """log(v + rest) as two parts, v at least 2^-24 (2^-53) or 0, with a rest that matters where v is 1."""
    if registers512(v):
        return table_pair(v, "log", rest, None, True)
    high, low = series_pair(v, rest, None, False)
    return finish(v, high), low


def log1p_of(v: Value, rest: Value, doubled: Value | None = None, subnormals: bool = False, careful: bool = False) -> Value:
    """The sum of those; v may be smaller with ``subnormals``."""
    if registers512(v):
        high, low = table_pair(v, "log", rest, doubled, careful)
        return high + low
    high, low = series_pair(v, rest, doubled, subnormals)
    return finish(v, high + low)


def log_pair(v: Value) -> tuple[Value, Value]:
    """log v as two parts."""
    if registers512(v):
        return table_pair(v, "log")
    high, low = series_pair(v)
    return finish(v, high), low


# -- the functions --------------------------------------------------------------------------------


@per_register
def log(x: Value) -> Value:
    if registers512(x):
        high, low = table_pair(x, "log")
        return high + low
    high, low = series_pair(x)
    return finish(x, high + low)


def other_base(x: Value, base: str, of_e: tuple[float, float], of_2: tuple[float, float]) -> Value:
    """A logarithm to another base; ``of_e`` and ``of_2`` are that of e (half the bits and the rest) and of 2."""
    if registers512(x):
        high, low = table_pair(x, base)
        return high + low
    e, m, _ = series_parts(x, True)
    s = m / (m + 2.0)
    square = s * s
    half = 0.5 * m * m
    upper, _ = split(m - half)
    lower = ((m - upper) - half) + s * (half + square * polynomial(square, SERIES[x.kind]))
    # (upper + lower) (of_e[0] + of_e[1]) + e of_2: upper * of_e[0] and e * of_2[0] are exact
    product = upper * of_e[0]
    whole = e * of_2[0]
    total, lost = two_sum(whole, product)
    return finish(x, total + (lost + (lower * of_e[0] + ((upper + lower) * of_e[1] + e * of_2[1]))))


@per_register
def log2(x: Value) -> Value:
    return other_base(x, "log2", LOG2E_HALF[x.kind], (1.0, 0.0))


@per_register
def log10(x: Value) -> Value:
    return other_base(x, "log10", LG_E_HALF[x.kind], LG2_SHORT[x.kind])


@per_register
def log1p(x: Value) -> Value:
    v = x + 1.0
    return copysign(log1p_of(v, x - (v - 1.0)), x)  # the sign of -0.0


#: above, sqrt(x^2 + 1) and sqrt(x^2 - 1) are x
LARGE = {"f32": 2.0**13, "f64": 2.0**28}


@per_register
def asinh(x: Value) -> Value:
    y = x.abs()
    large = y.gt(LARGE[x.kind])
    square = y * y
    # asinh y = log(1 + t), t = y + (sqrt(1 + y^2) - 1), and that is y^2 / (1 + sqrt(1 + y^2))
    t, lost = fast_two_sum(y, square / ((square + 1.0).sqrt() + 1.0))
    v = t + 1.0
    rest = (t - (v - 1.0)) + lost
    return copysign(log1p_of(select(large, y, v), where(large, 0.0, rest), large), x)


@per_register
def acosh(x: Value) -> Value:
    large = x.gt(LARGE[x.kind])
    d = x - 1.0
    # acosh x = log(1 + t), t = d + sqrt(x^2 - 1), and x^2 - 1 = d^2 + 2 d
    t, lost = fast_two_sum(muladd(d, d, d + d).sqrt(), d)
    v = t + 1.0
    rest = (t - (v - 1.0)) + lost
    result = log1p_of(select(large, x, v), where(large, 0.0, rest), large, careful=True)
    return select(x.ge(1.0), result, x.like(math.nan))


@per_register
def atanh(x: Value) -> Value:
    y = x.abs()
    # atanh y = log(1 + t) / 2, t = 2 y / (1 - y) with what its rounding and that of 1 - y lost
    below = 1.0 - y
    lost = (1.0 - below) - y
    twice = y + y
    t = twice / below
    high, low = two_product(t, below)
    missing = (((twice - high) - low) - t * lost) * nearly_reciprocal(below)
    v = t + 1.0
    return copysign(0.5 * log1p_of(v, (t - (v - 1.0)) + missing), x)


@per_register
def xlogy(x: Value, y: Value) -> Value:
    high, low = fast_two_sum(*log_pair(y))
    rough = x * high
    product = select((rough * 0.5).ne(rough), muladd(x, high, x * low), rough)  # a product that is 0 or infinite is right as it is
    return where(x.eq(0.0) & y.eq(y), 0.0, product)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "log": log, "log2": log2, "log10": log10, "log1p": log1p, "asinh": asinh, "acosh": acosh, "atanh": atanh, "xlogy": xlogy,
}
