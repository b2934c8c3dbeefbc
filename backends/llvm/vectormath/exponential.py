"""Exponentials and what is made of them: exp, exp2, expm1, sigmoid, softplus, tanh, sinh, cosh, log1mexp.

Two ways to e^x.  Both write x = n ln2 + r and scale by 2^n in the end.

*   Registers of 512 bits (``table_exp``): n counts sixteenths, 2^(n mod 16 / 16) comes out of a register by a permutation
    (with what its rounding lost in a second table), r is at most ln2/32 and a very short polynomial is enough.
*   Everywhere (``reduced``): n is whole, r is at most ln2/2, a longer polynomial p = e^r - 1.  This is also the form
    for functions that subtract: their 2^n - 1 and the like are exact.

Coefficients: minimax fits (Remez exchange in 200 bits, then rounded one after another with the rest fitted anew); each
comment has the interval and the largest error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from graphc.backends.llvm.values import Value, copysign, fma, select
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    clamp,
    exponent_bits,
    fast_two_sum,
    has_fma,
    integer_of,
    muladd,
    nearly_reciprocal,
    per_register,
    piecewise,
    polynomial,
    power_of_two,
    registers512,
    scale_by_power_of_two,
    tame,
    two_product,
    unmasked512,
)
from graphc.backends.llvm.vectormath.logarithm import log1p_of

__all__ = ["FUNCTIONS"]

LOG2E = 1.4426950408889634
#: ln2 as a sum whose first part times a whole number up to 2^8 (f32), 2^11 (f64) is exact
LN2 = {"f32": (0.693145751953125, 1.428606765330187e-06), "f64": (0.6931471805598903, 5.497923018708371e-14)}
#: (e^r - 1 - r) / r^2, |r| <= ln2/32; absolute error of the whole: f32 2^-29.2, f64 2^-56.2
SHORT = {"f32": (0.5000165104866028, 0.1666705310344696),
         "f64": (0.5000000000000006, 0.1666666666432602, 0.04166666665980033, 0.00833347472669791, 0.0013889125245066952)}
#: the same with an error relative to r: f32 2^-31.5, f64 2^-59.7
SHORT_RELATIVE = {"f32": (0.5, 0.16666997969150543, 0.0416676364839077),
                  "f64": (0.5000000000000003, 0.1666666666666666, 0.04166666666134824, 0.008333333336487565, 0.0013889103061313491,
                          0.00019840456949199925)}
#: (e^r - 1 - r) / r^2, |r| <= ln2/2; error relative to r: f32 2^-26.0, f64 2^-61.3
LONG = {"f32": (0.5, 0.16666539013385773, 0.04166639968752861, 0.008367033675312996, 0.0013946025865152478),
        "f64": (0.5, 0.16666666666666677, 0.04166666666666669, 0.008333333333321435, 0.001388888888886276, 0.00019841269887030773,
                2.48015873812533e-05, 2.7557242796600058e-06, 2.7557216906029573e-07, 2.510970221663498e-08, 2.0934397638219904e-09)}
#: (2^r - 1) / r, |r| <= 1/32; absolute error of the whole: f32 2^-29.2, f64 2^-56.9
SHORT2 = {"f32": (0.6931471824645996, 0.24023427069187164, 0.055503346025943756),
          "f64": (0.6931471805599468, 0.2402265069591011, 0.05550410865209481, 0.009618129104871925, 0.0013333819295130982, 0.00015403974034657988)}
#: (2^r - 1) / r, |r| <= 1/2; absolute error of the whole: f32 2^-28.2, f64 2^-58.9
LONG2 = {"f32": (0.6931471824645996, 0.24022650718688965, 0.05550357699394226, 0.00961806159466505, 0.001339187379926443, 0.00015467419871129096),
         "f64": (0.6931471805599453, 0.24022650695910072, 0.0555041086648231, 0.009618129107626643, 0.0013333558146134679, 0.00015403530398830565,
                 1.5252734045743411e-05, 1.321548108604464e-06, 1.0177990307410594e-07, 7.057361902567735e-09, 4.463686375677519e-10,
                 2.1994421760094293e-11)}

#: 2^(j/16), and what is missing from these numbers
SIXTEENTHS = (1.0, 1.0442737824274138, 1.0905077326652577, 1.1387886347566916, 1.189207115002721, 1.241857812073484, 1.2968395546510096,
              1.3542555469368927, 1.4142135623730951, 1.4768261459394993, 1.5422108254079407, 1.6104903319492543, 1.681792830507429,
              1.7562521603732995, 1.8340080864093424, 1.9152065613971474)
MISSING = (0.0, 8.551889705537965e-17, -3.046782079812471e-17, 8.912812676025408e-17, 3.982015231465646e-17, 4.658027591836937e-17,
           2.5382502794888315e-17, 7.70094837980299e-17, -9.667293313452913e-17, -3.483994556892796e-17, 7.949834809697621e-17,
           2.4707192569797888e-17, 8.199010020581497e-17, 2.960140695448873e-17, 3.283107224245627e-17, -1.0619946056195963e-16)
SHORT_SIXTEENTHS = tuple(struct.unpack("f", struct.pack("f", t))[0] for t in SIXTEENTHS)
SHORT_MISSING = tuple(t - h for t, h in zip(SIXTEENTHS, SHORT_SIXTEENTHS, strict=True))
#: by kind: those numbers, what is missing, and the latter divided by the former
TABLES = {"f32": (SHORT_SIXTEENTHS, SHORT_MISSING, tuple(m / h for m, h in zip(SHORT_MISSING, SIXTEENTHS, strict=True))),
          "f64": (SIXTEENTHS, MISSING, tuple(m / h for m, h in zip(MISSING, SIXTEENTHS, strict=True)))}
#: sign and exponent
EXPONENT_MASK = {"f32": -(1 << 23), "f64": -(1 << 52)}
#: below the first e^x is 0, above the last it is infinite; below the second e^x - 1 is -1
RANGE = {"f32": (-104.0, -18.0, 89.0), "f64": (-746.0, -39.0, 710.0)}
RANGE2 = {"f32": (-151.0, 129.0), "f64": (-1076.0, 1025.0)}
#: the bits of MAGIC
MAGIC_BITS = {"f32": 0x4B400000, "f64": 0x4338000000000000}


# -- e^x ------------------------------------------------------------------------------------------


def sixteenth(shifted: Value, which: int = 0) -> Value:
    """2^(j/16) (or what is missing from it, or that as a part of it) where j is n mod 16 and shifted = n/16 + MAGIC/16."""
    name = f"exp_{('sixteenths', 'missing', 'missing_part')[which]}_{shifted.kind}"
    return shifted.f.lookup(name, TABLES[shifted.kind][which], integer_of(shifted), shifted.kind)  # only the low four bits are read


def table_end(shifted: Value, n: Value, p: Value, precise: bool) -> Value:
    """(1 + p) 2^n in one 512-bit register; n counts in sixteenths and ``shifted`` is n + MAGIC/16."""
    high = sixteenth(shifted)
    total = fma(high, p, sixteenth(shifted, 1)) + high if precise else fma(high, p, high)
    # an n that is infinite or NaN does what it should: scalef gives 0, inf, NaN (it rounds n down, which drops the sixteenths)
    return unmasked512("scalef", total, n)


def in_sixteenths(x: Value) -> tuple[Value, Value, Value, Value]:
    """x = n ln2 + r where n counts in sixteenths: n + MAGIC/16, n, a first and the final r."""
    magic = MAGIC[x.kind] / 16
    shifted = fma(x, LOG2E, magic)
    n = shifted - magic
    high, low = LN2[x.kind]
    first = fma(n, -high, x)
    return shifted, n, first, fma(n, -low, first)


def table_exp(x: Value, precise: bool) -> Value:
    """e^x in one 512-bit register."""
    shifted, n, _, r = in_sixteenths(x)
    r = tame(r, 0.0625)
    return table_end(shifted, n, fma(r * r, polynomial(r, SHORT[x.kind]), r), precise)


def table_minus_one_scaled(x: Value) -> tuple[Value, Value, Callable[[], Value]]:
    """As ``minus_one_scaled``, in one 512-bit register: n counts in sixteenths."""
    shifted, n, first, r = in_sixteenths(x)
    kind, t, rest = x.kind, sixteenth(shifted), fma(n, -LN2[x.kind][1], first - r)
    # t p + t - 2^-n with n rounded down.  Small things first: what the table and r lack, then r^2 / 2 ...
    part = sixteenth(shifted, 2)
    p = fma(r * r, polynomial(r, SHORT_RELATIVE[kind]), fma(part, r, rest + part)) + r
    zero = MAGIC_BITS[kind] - (4 << (23 if kind == "f32" else 52))  # the bits of MAGIC/16
    down = exponent_bits(-(integer_of(shifted).minimum(zero + 1600).lshr(4)))
    whole = t - down
    total = fma(t, p, whole)
    return total, n, lambda: fma(t, p, whole - total) + (t - (whole + down))


def table_minus_one(x: Value) -> Value:
    """e^x - 1 for 0 <= x <= 40, in one 512-bit register."""
    shifted, n, first, r = in_sixteenths(x)
    k = integer_of(shifted)
    # 2^(n/16) from the table and n's whole part, which is put where an exponent's bits are
    power = (sixteenth(shifted).bitcast(k.kind) + ((k << 19 if x.kind == "f32" else k << 48) & EXPONENT_MASK[x.kind])).bitcast(x.kind)
    rest, part = fma(n, -LN2[x.kind][1], first - r), sixteenth(shifted, 2)
    p = fma(r * r, polynomial(r, SHORT_RELATIVE[x.kind]), fma(part, r, rest + part)) + r
    return fma(power, p, power - 1.0)


def reduced(x: Value) -> tuple[Value, Value, Value]:
    """x = n ln2 + r for an x within RANGE: r, the float n, and n + MAGIC's bits."""
    r, _, n, k = reduced_pair(x)
    return r, n, k


def reduced_pair(x: Value) -> tuple[Value, Callable[[], Value], Value, Value]:
    """As ``reduced``, with a way to what r's rounding lost in second place."""
    shifted = muladd(x, LOG2E, MAGIC[x.kind])
    n = shifted - MAGIC[x.kind]
    high, low = LN2[x.kind]
    first = muladd(n, -high, x)
    r = muladd(n, -low, first)
    return r, lambda: muladd(n, -low, first - r), n, integer_of(shifted)


def minus_one(r: Value) -> Value:
    """e^r - 1 for |r| <= ln2/2."""
    return muladd(r * r, polynomial(r, LONG[r.kind]), r)


@per_register
def exp(x: Value) -> Value:
    return exponential(x, False)


def exponential(x: Value, precise: bool) -> Value:
    """e^x, at most one register; ``precise``: 0.6 ULP rather than 1.1 where that has a price."""
    if registers512(x):
        return table_exp(x, precise)
    r, n, _ = reduced(clamp(x, RANGE[x.kind][0], RANGE[x.kind][2]))
    return scale_by_power_of_two(minus_one(r) + 1.0, n)


@per_register
def exp2(x: Value) -> Value:
    if registers512(x):
        magic = MAGIC[x.kind] / 16
        shifted = x + magic
        n = shifted - magic
        r = tame(x - n, 0.0625)
        return table_end(shifted, n, r * polynomial(r, SHORT2[x.kind]), False)
    x = clamp(x, *RANGE2[x.kind])
    n = (x + MAGIC[x.kind]) - MAGIC[x.kind]
    r = x - n
    return scale_by_power_of_two(muladd(r, polynomial(r, LONG2[x.kind]), 1.0), n)


def minus_one_scaled(x: Value) -> tuple[Value, Value, Callable[[], Value]]:
    """e^x - 1 = m 2^n for x within RANGE (from the second number on): m, n, and what m's rounding lost.

    n is to be rounded down (scalef does).
    """
    if registers512(x):
        return table_minus_one_scaled(x)
    r, rest, n, k = reduced_pair(x)
    # (2^n - 1) + 2^n (e^r - 1), divided by 2^n so that nothing overflows; from n = 100 on 2^-n does not matter
    whole = 1.0 - exponent_bits(-k.minimum(MAGIC_BITS[x.kind] + 100))
    high, low = fast_two_sum(whole, r)
    small = muladd(r * r, polynomial(r, LONG[x.kind]), low + rest())
    total = high + small
    return total, n, lambda: small - (total - high)


@per_register
def expm1(x: Value) -> Value:
    m, n, _ = minus_one_scaled(clamp(x, RANGE[x.kind][1], RANGE[x.kind][2]))
    return copysign(scale_by_power_of_two(m, n), x)  # the sign of -0.0


# -- functions of e^x -----------------------------------------------------------------------------

#: from here on 1 - sigmoid(x) and 1 - tanh(x) are less than half an ULP
FLAT = {"f32": (18.0, 9.25), "f64": (38.0, 19.25)}


def share(a: Value, whole: float) -> Value:
    """``a / (a + whole)`` for 0 <= a < 2^60.

    An estimate of the divisor's reciprocal, and what is missing from a by Newton's rule: with a and not with the divisor, whose rounding
    so does no harm.
    """
    guess = nearly_reciprocal(a + whole)
    if registers512(a) and a.kind == "f64":
        guess = fma(guess, fma(-(a + whole), guess, 1.0), guess)
    q = a * guess
    most = muladd(q, -whole, a) if whole != 1.0 else a - q
    if has_fma(a.f):
        return fma(fma(-q, a, most), guess, q)
    high, low = two_product(q, a)
    return ((most - high) - low) * guess + q


@per_register
def sigmoid(x: Value) -> Value:
    return share(exponential(x.like(FLAT[x.kind][0]).minimum(x), True), 1.0)


#: tanh in 14 pieces [a, b] of |x|; the pieces' index is the exponent and two mantissa bits of |x| + 1, so that pieces are narrow near 0.
#: ``CENTRES`` are points near the middles where tanh is almost exactly a float32 (the polynomials' constants: TANH[0]), ``TANH[k]`` the
#: coefficients of (|x| - centre)^k.  Relative error 2^-26.2 or less.  The first piece has tanh(x)/x -> 1; from |x| = 9 on it is 1.
CENTRES = (1.2497118711471558, 1.7497650384902954, 2.249577283859253, 2.7495229244232178, 3.50058650970459, 4.500294208526611, 5.498580455780029,
     6.498971939086914, 7.998569488525391, 9.0, 9.0, 9.0, 0.0, 0.37508606910705566, 0.6251066327095032, 0.875141978263855)
TANH = (
    (0.8482028245925903, 0.9413487911224365, 0.9780077338218689, 0.9918519854545593, 0.9981800317764282, 0.9997533559799194, 0.9999665021896362,
     0.9999954700469971, 0.9999997615814209, 1.0, 1.0, 1.0, 0.0, 0.358432412147522, 0.5546735525131226, 0.7039772272109985),
    (0.28055185079574585, 0.11386239528656006, 0.0435008704662323, 0.016229642555117607, 0.0036367024295032024, 0.0004932393785566092,
     6.699611549265683e-05, 9.060104275704361e-06, 4.51991837735477e-07, 0.0, 0.0, 0.0, 1.0, 0.8715262413024902, 0.6923372745513916,
     0.5044160485267639),
    (-0.23796498775482178, -0.1071842834353447, -0.04254418984055519, -0.01609739474952221, -0.0036300078500062227, -0.0004931038711220026,
     -6.699232471873984e-05, -9.059865988092497e-06, -2.2524361042997043e-07, 0.0, 0.0, 0.0, -1.0974787301165634e-06, -0.31238314509391785,
     -0.384021133184433, -0.3550974428653717),
    (0.10834052413702011, 0.06295070052146912, 0.027108538895845413, 0.010555949993431568, 0.002408771077170968, 0.00032820127671584487,
     4.4608383177546784e-05, 6.033081263012718e-06, 2.9700410664190713e-07, 0.0, 0.0, 0.0, -0.33327019214630127, -0.17855064570903778,
     -0.01778235286474228, 0.08184399455785751),
    (-0.012557277455925941, -0.023525508120656013, -0.012331160716712475, -0.00510490033775568, -0.0011965943267568946, -0.00016411280375905335,
     -2.232069346064236e-05, -3.0188425625965465e-06, -7.514036042266525e-07, 0.0, 0.0, 0.0, -0.0011836991179734468, 0.16808994114398956,
     0.1378549188375473, 0.06075839325785637),
    (-0.01971658505499363, 0.00347525323741138, 0.003979855217039585, 0.0019170328741893172, 0.0004903951194137335, 6.837395631009713e-05,
     9.316149771620985e-06, 1.2601358321262524e-06, 6.846109101843467e-08, 0.0, 0.0, 0.0, 0.14308403432369232, 0.0193355493247509,
     -0.054176896810531616, -0.058758147060871124),
    (0.015099995769560337, 0.002063432242721319, -0.0007200473337434232, -0.0005406335112638772, -0.0001553912297822535,
     -2.2170923330122605e-05, -3.0062117275519995e-06, -4.1366624259353557e-07, 3.7817667930539756e-07, 0.0, 0.0, 0.0, -0.036976560950279236,
     -0.06738878041505814, -0.023302864283323288, 0.012734358198940754),
)


def tanh_pieces(x: Value) -> Value:
    """tanh of one 512-bit register of f32: a polynomial of degree 6 whose coefficients come out of registers by permutations."""
    y = x.like(10.0).minimum(x.abs())  # a NaN stays
    index = (y + 1.0).bitcast("i32").lshr(21)  # the permutation reads the low four bits only
    d = y - x.f.lookup("tanh_centres", CENTRES, index, "f32")
    return copysign(piecewise(index, "tanh", TANH, d), x)


@per_register
def tanh(x: Value) -> Value:
    if registers512(x) and x.kind == "f32":
        return tanh_pieces(x)
    y = x.abs()
    y = y.like(2 * FLAT[x.kind][1]).minimum(y + y)
    if registers512(x):
        return copysign(share(table_minus_one(y), 2.0), x)
    m, n, _ = minus_one_scaled(y)
    return copysign(share(m * power_of_two(n), 2.0), x)


#: (cosh r - 1) / r^2 and (sinh r - r) / r^3 in r^2, |r| <= ln2/2; absolute error of the whole: f32 2^-33, f64 2^-57.9 and 2^-61.6
COSH = {"f32": (0.5, 0.041666459292173386, 0.0013935439055785537),
        "f64": (0.5, 0.041666666666666685, 0.0013888888888873283, 2.4801587349198546e-05, 2.7557251827734146e-07, 2.092176554332845e-09)}
SINH = {"f32": (0.1666666716337204, 0.00833317544311285, 0.0001997406652662903),
        "f64": (0.16666666666666677, 0.008333333333321384, 0.00019841269886826512, 2.7557243434505347e-06, 2.5109327893926655e-08)}
#: above, both are infinite
HYPERBOLIC_RANGE = {"f32": 90.0, "f64": 711.0}


def hyperbolic(y: Value, precise: bool) -> tuple[Value, Value, Value, Value]:
    """For y >= 0: cosh r - 1, sinh r (``precise``: half an ULP better), 2^-2n and n - 1, where y = n ln2 + r."""
    r, rest, n, k = reduced_pair(y.like(HYPERBOLIC_RANGE[y.kind]).minimum(y))
    rr = r * r
    c = rr * polynomial(rr, COSH[y.kind])
    cubic = polynomial(rr, SINH[y.kind])
    s = muladd(r * rr, cubic, rest()) + r if precise else muladd(r * rr, cubic, r)
    down = exponent_bits(-(k.minimum(MAGIC_BITS[y.kind] + 60) << 1))
    return c, s, down, n - 1.0


@per_register
def sinh(x: Value) -> Value:
    c, s, down, n = hyperbolic(x.abs(), True)
    high = 1.0 - down
    return copysign(scale_by_power_of_two(muladd(down + 1.0, s, high * c) + high, n), x)


@per_register
def cosh(x: Value) -> Value:
    c, s, down, n = hyperbolic(x.abs(), False)
    inner = muladd(s, 1.0 - down, muladd(down, c, c)) + down  # 1 + down might be rounded
    return scale_by_power_of_two(inner + 1.0, n)


# -- with logarithms ------------------------------------------------------------------------------


@per_register
def softplus(x: Value) -> Value:
    e = exponential(-x.abs(), True)
    v = e + 1.0
    return x.like(0.0).maximum(x) + log1p_of(v, e - (v - 1.0), careful=True)  # a NaN stays


#: above, log(1 - e^x) is the logarithm of -(e^x - 1), below, that of 1 plus something small
NEAR = -1.5


@per_register
def log1mexp(x: Value) -> Value:
    near = x.gt(NEAR)
    m, n, lost = minus_one_scaled(clamp(x, NEAR - 0.1, 1.0))  # above 0 the argument of the logarithm is negative: NaN
    above = 0.0 - scale_by_power_of_two(m, n)
    e = exponential(x, True)
    v = 1.0 - e
    rest = select(near, -scale_by_power_of_two(lost(), n), (1.0 - v) - e)
    return -log1p_of(select(near, above, v), rest, subnormals=True).abs()


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "sigmoid": sigmoid, "tanh": tanh, "sinh": sinh, "cosh": cosh,
    "softplus": softplus, "log1mexp": log1mexp,
}
