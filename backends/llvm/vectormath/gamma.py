"""gammaln and digamma, for f32 and f64 lanes; f32 is computed in f64 with shorter polynomials.

Arguments from -1/2 (gammaln) or 0 (digamma) to 10 are shifted by whole numbers to where one polynomial holds;
larger ones have Stirling's series, of which a minimax polynomial in 1/x^2 is left; negative ones are reflected,
in code that runs only if some lane needs it.

What is promised: 4 ULP (f32: 1), also at the roots: 1 and 2 of gammaln, 1.46... of digamma, and those between the negative whole numbers.
There f64 sums with more bits (reflection.py); for f32 the polynomials of f64 are enough.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value, select
from graphc.backends.llvm.vectormath.common import muladd, polynomial, two_product
from graphc.backends.llvm.vectormath.logarithm import log
from graphc.backends.llvm.vectormath.reflection import digamma_reflected, gammaln_reflected

__all__ = ["FUNCTIONS", "digamma", "gammaln"]

#: from here on Stirling's series
LARGE = 10.0
#: log gamma(2 + t) / t, -3/4 <= t <= 1/2; error relative to it 2^-29.7 and 2^-52.9 (2^-58.7 but for the rounding of the coefficients).
#: This and the others: Remez' algorithm in 45 digits, each coefficient rounded in turn and the rest fitted anew
AT_TWO = {
    "f32": (0.42278433512374497, 0.3224670252823533, -0.06735231211390293, 0.020581205291366318, -0.0073850030124340636,
            0.002885303145254787, -0.0012008907077023638, 0.0005343655186701099, -0.0001776269286594579, 6.591326522179539e-05,
            -0.0001319116860282204),
    "f64": (0.42278433509846713, 0.3224670334241132, -0.0673523010531978, 0.02058080842779049, -0.007385551028700647,
            0.002890510330358911, -0.0011927539108970496, 0.000509669536083729, -0.00022315476750664037, 9.945732984686886e-05,
            -4.4926247314150946e-05, 2.050893548451218e-05, -9.438302275273575e-06, 4.365305780616281e-06, -2.050950968496481e-06,
            9.844684118678061e-07, -3.9514325255190837e-07, 1.7488399920024324e-07, -2.2389053772963703e-07, 2.5327126827895303e-08,
            8.789739461260529e-08, 8.965458971447811e-08)}
#: (log gamma(z) - (z - 1/2) log z + z - log(2 pi) / 2) z in 1/z^2, z >= 10; absolute error, over z, 2^-40 and 2^-62.5
STIRLING = {
    "f32": (0.0833333332711736, -0.0027777273303787823, 0.0007834485559311615),
    "f64": (0.08333333333333331, -0.002777777777725485, 0.000793650751872513, -0.000595223812040409, 0.0008393679208483355,
            -0.0017240149910355924)}
#: log(2 pi) / 2 - 1/2
STIRLING_CONSTANT = 0.41893853320467274
#: sin(pi r) / (pi r) in r^2, |r| <= 1/2; 2^-61.3
SINE = (1.0, -1.6449340668482264, 0.8117424252833462, -0.19075182412167532, 0.026147847807942475, -0.002346080913285906,
        0.00014842791653614716, -6.97226717522409e-06, 2.45183118297091e-07)
#: the positive root of digamma as a sum, and digamma(y) / (y - root) in y - 3/2, 1 <= y <= 2; 2^-28.0 and 2^-53.6
ROOT = (1.4616321449683622, 9.549995429965697e-17)
AT_ROOT = {
    "f32": (0.9510558756353026, -0.42362749887562046, 0.24054261574409214, -0.1483987860287873, 0.09498207867952912,
            -0.06205707442584152, 0.04087938828458642, -0.02578101254775186, 0.016980202337067353, -0.016384108120266524,
            0.011118937123379868),
    "f64": (0.951055876031833, -0.4236274212814606, 0.24054248424077398, -0.1484049230538892, 0.09498872445497158,
            -0.06192213327476845, 0.04076083381083853, -0.026975796688490174, 0.017907252481216634, -0.01190821947702598,
            0.007926944014428044, -0.005279945536453861, 0.0035190122126527307, -0.002345426429485764, 0.0015565987276635145,
            -0.0010368141373209019, 0.0007234398592999331, -0.00048481557272710574, 0.00022701843150539207, -0.0001468321873861869,
            0.00025985773281746524, -0.00017666963071865752)}
#: (log z - 1 / (2 z) - digamma z) z^2 in 1/z^2, z >= 10; absolute error 2^-40.8 and 2^-62.5, over z^2
STIRLING_SLOPE = {
    "f32": (0.08333333281420872, -0.008332948561240573, 0.003894524394103804),
    "f64": (0.08333333333333318, -0.008333333332749543, 0.003968253468507302, -0.004166490860051039, 0.007545918566534495,
            -0.01863232757861572)}
#: (pi cot(pi r) - 1/r) / r in r^2, |r| <= 1/2; 2^-52.5
COTANGENT = (-3.2898681336964524, -2.1646464674230534, -2.034686123771274, -2.008154732144816, -2.0019881230822762, -2.000524072747481,
             -1.9994833492301283, -2.0086752898836626, -1.9191389951093203, -2.52712852827044, 0.3706647010679968, -9.114183719657914,
             11.188715854786565, -14.404026173818936)


def gammaln_of(x: Value, form: str) -> Value:
    """log |gamma(x)| of f64 lanes, with the polynomials for results in ``form``."""
    reflected = x.lt(-0.5)
    z = select(reflected, -x, x)
    usual = _gammaln_above(z, form)

    def slow() -> Value:
        r = (z - z.rint()).abs()
        if form == "f64":
            mirrored = gammaln_reflected(z)
        else:  # gamma(x) gamma(-x) = -pi / (x sin(pi x)), a difference of larger numbers: the long polynomials
            mirrored = -log(z * r * polynomial(r * r, SINE)) - _gammaln_above(z, "f64")
        # the whole numbers give an infinity
        return select(r.eq(0.0) | z.eq(float("inf")), z.like(float("inf")), mirrored)

    return x.f.rare(reflected, usual, slow)


def _gammaln_above(z: Value, form: str) -> Value:
    """For z >= -1/2."""
    large = z.gt(LARGE)
    # gamma(2 + t) times or by a product of z, z - 1, ... is gamma(z).  From 5/4 on there is none: on both sides of the
    # minimum at 1.46 the logarithm would be three times the result
    whole = z.rint()
    whole = select(z.gt(1.25), whole.maximum(2.0), whole)
    t = z - whole
    product = z.like(1.0)
    for j in range(1, int(LARGE) - 1):
        product = select(whole.gt(float(j + 1)), product * (z - float(j)), product)
    below = whole.lt(2.0)
    product = select(below, select(whole.lt(1.0), (z * (z + 1.0)).abs(), z), product)
    logarithm = log(select(large, z, product))
    near = muladd(t, polynomial(t, AT_TWO[form]), select(below, -logarithm, logarithm))
    inverse = 1.0 / z
    series = muladd(inverse, polynomial(inverse * inverse, STIRLING[form]), STIRLING_CONSTANT)
    return select(large, muladd(z - 0.5, logarithm - 1.0, series), near)


def gammaln(x: Value) -> Value:
    """log |gamma(x)|; an infinity at 0 and the negative whole numbers, and for both infinities."""
    return gammaln_of(x.to("f64"), "f32").to("f32") if x.kind == "f32" else gammaln_of(x, "f64")


def digamma_of(x: Value, form: str) -> Value:
    """digamma of f64 lanes, with the polynomials for results in ``form``."""
    reflected = x.lt(0.0)
    z = select(reflected, 1.0 - x, x)
    usual = _digamma_above(z, form)

    def slow() -> Value:
        r = x - x.rint()
        if form == "f64":
            mirrored = digamma_reflected(-x)
        else:
            mirrored = _digamma_above(z, "f64") - muladd(r, polynomial(r * r, COTANGENT), 1.0 / r)
        return select(r.abs().gt(0.0), mirrored, r.like(float("nan")))  # r is NaN for an infinity

    return x.f.rare(reflected, usual, slow)


def _digamma_above(z: Value, form: str) -> Value:
    """For z >= 0."""
    large = z.ge(LARGE)
    whole = z.floor()
    y = z - (whole - 1.0)
    # digamma(z) - digamma(y) = 1/(z-1) + 1/(z-2) + ... as one fraction, or -1/z
    top, under = z.like(0.0), z.like(1.0)
    for j in range(1, int(LARGE) - 1):
        more, factor = whole.gt(float(j)), z - float(j)
        top = select(more, muladd(top, factor, under), top)
        under = select(more, under * factor, under)
    tiny = whole.lt(1.0)
    top = select(tiny, top.like(-1.0), top)
    under = select(tiny, z, under)
    inverse = 1.0 / select(large, z, under)
    quotient = top * inverse
    slope = polynomial(y - 1.5, AT_ROOT[form])
    rest = slope * -ROOT[1]
    if form == "f64":  # above 2 the quotient is up to 1/0.42 of the result
        product, error = two_product(quotient, under)
        # not near 0, where the quotient is all (or infinite)
        rest = select(z.lt(0.25), rest, muladd((top - product) - error, inverse, rest))
    near = quotient + muladd(y - ROOT[0], slope, rest)
    w = inverse * inverse
    far = log(z) - muladd(w, polynomial(w, STIRLING_SLOPE[form]), inverse * 0.5)
    return select(large, far, near)


def digamma(x: Value) -> Value:
    """The derivative of gammaln: nan at the negative whole numbers, an infinity of the other sign at 0.0 and -0.0."""
    return digamma_of(x.to("f64"), "f32").to("f32") if x.kind == "f32" else digamma_of(x, "f64")


FUNCTIONS: dict[str, Callable[..., Value]] = {"gammaln": gammaln, "digamma": digamma}
