"""erf, erfc and erfinv, for f32 and f64 lanes.

erf is a polynomial on each of 32 (f32) or 8 (f64) intervals, whose coefficients come out of registers (``Body.lookup``);
f32 without such registers but with an FMA has a way without tables.  erfc(x) for x > 0 is exp(-x^2) times a function that
falls slowly, so that results are right relative to themselves down to the smallest subnormal; erfc(-x) = 2 - erfc(x).
Registers of 512 bits have the logarithm of that function in pieces, which joins the exponent before it is rounded
(``erfc_pieces``).  erfinv is a polynomial in x^2 in the middle and one in log(1 - |x|) outside.  Without 512-bit registers
the f32 forms of erfc and erfinv are computed in f64 with shorter polynomials.

A table of as many numbers as a register has lanes is one permutation; twice as many take an instruction that cannot run
beside an FMA on some processors, so 16 (f32) and 8 (f64) pieces with a longer polynomial are faster.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value, copysign, fma, select
from graphc.backends.llvm.vectormath.common import (
    MAGIC,
    by_registers,
    exponent_bits,
    fast_two_sum,
    has_fma,
    integer_of,
    muladd,
    per_register,
    piecewise,
    polynomial,
    power_of_two,
    registers512,
    round_to_float,
    scale_by_power_of_two,
    two_product,
    unmasked512,
)
from graphc.backends.llvm.vectormath.errortables import (
    ERF_F32,
    ERF_F32_STEP,
    ERF_F64,
    ERF_F64_CENTRE,
    ERF_F64_INVERSE,
    ERFC_F32,
    ERFC_F32_CENTRE,
    ERFC_F64,
    ERFC_F64_CENTRE,
    ERFCX,
    ERFCX_CENTER,
    ERFINV,
    ERFINV_CENTER,
    ERFINV_F32,
    ERFINV_F32_CENTRE,
)
from graphc.backends.llvm.vectormath.exponential import sixteenth
from graphc.backends.llvm.vectormath.logarithm import log

__all__ = ["FUNCTIONS", "erf", "erfc", "erfinv"]

LOG2E = 1.4426950408889634
#: ln 2 as a sum; the first has 42 bits, so that its product with a whole number below 2^11 is exact
LN2 = (0.6931471805598903, 5.497923018708371e-14)
#: (e^r - 1 - r) / r^2, |r| <= ln2/2; error relative to e^r 2^-28.3 and 2^-57.9
EXPONENTIAL = {
    "f32": (0.4999999345039847, 0.16666520669233675, 0.04166838733134403, 0.008368712142503558, 0.0013814629505463653),
    "f64": (0.5000000000000011, 0.16666666666666438, 0.04166666666652577, 0.008333333333473626, 0.0013888888944873265,
            0.0001984126956100288, 2.480149172797643e-05, 2.7557529664262505e-06, 2.7630764097738775e-07, 2.5020516877514163e-08)}
#: erf in f32 without tables: erf(x) / x - 1 in x^2, x <= 0.95, error 2^-30.0; log2 erfc(x) in x, 0.95 <= x <= 3.97, error relative
#: to erf 2^-27.9; (2^r - 1) / r, |r| <= 1/2, error relative to 2^r 2^-23.3, which counts at most a fifth
ERF_LOW = (0.12837916612625122, -0.3761262893676758, 0.11283625662326813, -0.026855740696191788, 0.0051924604922533035, -0.0008050805772654712,
           8.002787217264995e-05)
ERF_HIGH = (-0.0003531973925419152, -1.6266019344329834, -0.9197438359260559, -0.14952021837234497, 0.03186512738466263,
            -0.004340238869190216, 0.0002775943139567971)
EXP2 = (0.6931470036506653, 0.2402222454547882, 0.05550651624798775, 0.009672464802861214, 0.0013298885896801949)
#: exp(x^2) erfc(x) (x + 3) in t = (x - 3) / (x + 3), 0 <= x <= 10.6; error 2^-28.6
SCALED_F32 = (1.0740069080683432, -0.883394491813447, 0.590228271621195, -0.31046585770365065, 0.11952950202524935, -0.026840744122804534,
              -0.0012289206899427087, 0.003081245647554248, -0.0004785138608660359, -0.0003228972346506924)
#: erfinv(x) / x - 1 in x^2, |x| <= 1/2; error relative to erfinv(x) / x 2^-30.3 and 2^-57.9
INVERSE_MIDDLE = {
    "f32": (-0.1137730738606877, 0.23201340335668347, 0.12757254912376678, 0.08617318705962197, 0.06907412687700783, 0.029484207161999603,
            0.09797773019419838),
    "f64": (-0.11377307454724199, 0.2320136665346596, 0.12755617530429492, 0.08655212937228518, 0.06495961090839726, 0.05173149582639776,
            0.04283239823421804, 0.036525002854711754, 0.031129763948137375, 0.03167532232906323, 0.008151456251158335, 0.074135499314306,
            -0.07700544710779522, 0.11370398772364866)}


def low_bits(x: Value, integer: Value, n: int) -> Value:
    """``integer % n`` as an index into a table for ``x``; a permutation of registers reads no other bits, so there nothing is needed."""
    return integer if registers512(x) else integer & (n - 1)


def erf_without_tables(a: Value) -> Value:
    """erf a of f32 lanes, 0 <= a <= 3.97, where gathering coefficients from memory would cost more than computing."""
    low = muladd(a, polynomial(a * a, ERF_LOW), a)
    y = polynomial(a, ERF_HIGH)
    shifted = y + MAGIC["f32"]
    r = y - (shifted - MAGIC["f32"])
    power = exponent_bits(integer_of(shifted))  # its high bits are shifted out
    high = 1.0 - muladd(r * polynomial(r, EXP2), power, power)
    return select(a.gt(0.95), high, low)


def erf_pieces(a: Value) -> Value:
    """erf a of f64 lanes, 0 <= a <= 5.93."""
    f = a.f
    index = low_bits(a, integer_of(muladd(a, ERF_F64_INVERSE, MAGIC["f64"])), 8)
    d = a - f.lookup("erf_f64_centre", ERF_F64_CENTRE, index, "f64")
    start, slope, *c = [f.lookup(f"erf_f64_{k}", row, index, "f64") for k, row in enumerate(ERF_F64)]
    # the sum with the slope counts most near 0 and so comes last, not in one of two chains
    return muladd(d, muladd(d, polynomial(d, c, 2), slope), start)


@per_register
def erf(x: Value) -> Value:
    """erf x.  Each interval's constant term is rounded and so is the sum: hardly more than 1 ULP."""
    a = x.abs()
    a = a.like(3.97 if x.kind == "f32" else 5.93).minimum(a)  # from here on erf is 1; NaN stays
    if x.kind == "f64":
        return copysign(erf_pieces(a), x)
    if not registers512(x) and has_fma(x.f):
        return copysign(erf_without_tables(a), x)
    shifted = muladd(a, 1.0 / ERF_F32_STEP, MAGIC["f32"])
    n = shifted - MAGIC["f32"]
    index = low_bits(x, integer_of(shifted), len(ERF_F32[0]))
    d = muladd(n, -ERF_F32_STEP, a)
    tail = piecewise(index, "erf_f32_", ERF_F32[1:], d)
    # the first interval has erf d - d: near 0 the sum's rounding is then the only one that counts
    start = select(n.eq(0.0), a, x.f.lookup("erf_f32_start", ERF_F32[0], index, "f32"))
    return copysign(muladd(d, tail, start), x)


def erfc_f64(x: Value) -> Value:
    a = x.abs()
    a = a.like(28.0).minimum(a)  # erfc is 0 from 27.3 on; NaN stays
    index = low_bits(x, (a + 2.0).bitcast("i64").lshr(50), 16)
    d = a - a.f.lookup("erfcx_center", ERFCX_CENTER, index, "f64")
    start = a.f.lookup("erfcx_start", ERFCX[0], index, "f64")
    high, low = fast_two_sum(start, d * piecewise(index, "erfcx", ERFCX[1:], d))
    # e^-(square + miss) = 2^n (1 + r + q), r + rest the reduced argument
    square, miss = two_product(a, a)
    n = round_to_float(square * -LOG2E)
    first = muladd(n, -LN2[0], -square)  # exact
    more = muladd(n, -LN2[1], -miss)
    r = first + more
    rest = (first - r) + more
    q = muladd(r * r, polynomial(r, EXPONENTIAL["f64"]), rest)
    part, part_low = two_product(high, r)
    total, error = fast_two_sum(high, part)
    tail = error + (part_low + muladd(high, q, muladd(low, r, low)))
    right = scale_by_power_of_two(total + tail, n)
    # where x < 0 the result is 2 less this, which is a normal number there
    return select(x.lt(0.0), 2.0 - right, right)


#: how the pieces of ``erfc_pieces`` are found: factor and addend
ERFC_INDEX = {"f32": (1.53, MAGIC["f32"]), "f64": (1.0997, 2.0)}
#: ln 2 / LAMBDA: ln 2 rounded to 13 (38) bits, so that n of it, n in sixteenths (eighths), is exact
LN2_SHORT = {"f32": 0.693115234375, "f64": 0.6931471805582987}
#: (e^(LAMBDA r) - 1) / r; f32: -0.022 <= r <= 0.044, absolute error of the whole 2^-27.1; f64: |r| <= 0.0535, 2^-55.8
EXP_SHORT = {"f32": (1.0000452995300293, 0.5000580549240112, 0.1686038076877594),
             "f64": (1.0000000000023754, 0.5000000000024816, 0.16666666666808316, 0.041666666441459006, 0.00833333317650481,
                     0.0013890251058514035, 0.000198451971777334)}
#: 2^(j/8)
EIGHTHS = (1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096, 1.4142135623730951, 1.5422108254079407, 1.681792830507429,
           1.8340080864093424)


def erfc_pieces(x: Value) -> Value:
    """erfc of one 512-bit register: 2^n e^(LAMBDA r) with r = log erfcx(a) (1/LAMBDA) - a^2 - n LN2_SHORT.

    a^2 is never rounded and the table's constants meet numbers of few bits, so r has one rounding.  LAMBDA is there so that LN2_SHORT
    needs no second part.  2^n may be subnormal: then three roundings count half an ULP each.
    """
    f, kind = x.f, x.kind
    short = kind == "f32"
    centres, table, end, per = (ERFC_F32_CENTRE, ERFC_F32, 10.1, 16) if short else (ERFC_F64_CENTRE, ERFC_F64, 27.27, 8)
    a = x.abs()
    a = a.like(end).minimum(a)  # erfc is 0 from there on; NaN stays
    index = integer_of(fma(a, *ERFC_INDEX[kind]))
    index = index if short else index.lshr(51)  # the permutations read the low bits only
    d = a - f.lookup(f"erfc_{kind}_centre", centres, index, kind)
    start, *c = [f.lookup(f"erfc_{kind}_{k}", row, index, kind) for k, row in enumerate(table)]
    # n comes from the first terms alone, so that it need not wait for the others
    magic = MAGIC[kind] / per
    shifted = fma(fma(d, c[0] if short else fma(d, c[1], c[0]), fma(-a, a, start)), LOG2E, magic)
    n = shifted - magic
    power = sixteenth(shifted) if short else f.lookup("erfc_eighths", EIGHTHS, integer_of(shifted), kind)
    power = unmasked512("scalef", power, n)
    first = fma(-a, a, fma(n, -LN2_SHORT[kind], start))
    r = fma(d, polynomial(d, c), first)
    right = fma(power * r, polynomial(r, EXP_SHORT[kind], 1 if short else 2), power)
    # where x < 0 the result is 2 less this
    return select(x.lt(0.0), 2.0 - right, right)


def erfc_f32(x: Value) -> Value:
    wide = x.to("f64")
    a = wide.abs()
    a = a.like(10.6).minimum(a)
    square = a * a
    n = round_to_float(square * -LOG2E)
    r = muladd(n, -(LN2[0] + LN2[1]), -square)
    e = muladd(r * r, polynomial(r, EXPONENTIAL["f32"]), r + 1.0)
    q = 1.0 / (a + 3.0)
    right = e * power_of_two(n) * (q * polynomial((a - 3.0) * q, SCALED_F32))
    return select(wide.lt(0.0), 2.0 - right, right).to("f32")


@per_register
def erfc(x: Value) -> Value:
    """1 - erf x, right relative to itself where it is tiny."""
    if registers512(x):
        return erfc_pieces(x)
    return erfc_f32(x) if x.kind == "f32" else erfc_f64(x)


def inverse(x: Value, form: str) -> Value:
    """erfinv of f64 lanes, with the polynomials for results in ``form``."""
    a = x.abs()
    middle = muladd(a, polynomial(a * a, INVERSE_MIDDLE[form]), a)
    w = -log(1.0 - a.like(0.5).maximum(a))  # the difference is exact; nan beyond 1
    index = w.bitcast("i64").lshr(51) - (0x3FE << 1)
    if not registers512(x):  # an infinite or NaN w must not read beyond the table
        index = index.like(13).minimum(index.like(0).maximum(index))
    d = w - x.f.lookup("erfinv_centre", ERFINV_CENTER, index, "f64")
    outside = piecewise(index, f"erfinv_{form}_", ERFINV[form], d)
    return copysign(select(a.eq(1.0), w, select(a.le(0.5), middle, outside)), x)


def inverse_pieces(x: Value) -> Value:
    """erfinv of one 512-bit register of f32: one polynomial, in x^2 for |x| up to 1/2 and in log(1 - |x|) for others."""
    f, a = x.f, x.abs()
    w = log(1.0 - a.like(0.44).maximum(a))  # the difference is exact where it matters; nan beyond 1; NaN stays
    y = fma(w, -0.9249, 0.609)
    middle = y.lt(1.25)
    index = y.bitcast("i32").lshr(21)  # the permutations read the low four bits only
    d = w - f.lookup("erfinv_f32_centre", ERFINV_F32_CENTRE, index, "f32")
    start = f.lookup("erfinv_f32_start", ERFINV_F32[0], index, "f32")
    tail = piecewise(index, "erfinv_f32_", ERFINV_F32[1:], select(middle, fma(a, a, -0.125), d))
    inside = fma(select(middle, a, d), tail, select(middle, a, start))
    return copysign(select(a.eq(1.0), w, inside), x)


@per_register
def erfinv_wide(x: Value) -> Value:
    return inverse(x, "f64")


@per_register
def erfinv_short(x: Value) -> Value:
    return inverse(x, "f32")


def erfinv(x: Value) -> Value:
    """The inverse of erf: infinite at -1 and 1, nan beyond."""
    if x.kind == "f64":
        return erfinv_wide(x)
    return by_registers(inverse_pieces, x) if registers512(x) else erfinv_short(x.to("f64")).to("f32")


FUNCTIONS: dict[str, Callable[..., Value]] = {"erf": erf, "erfc": erfc, "erfinv": erfinv}
