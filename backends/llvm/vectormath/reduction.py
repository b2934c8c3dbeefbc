"""Angles brought near zero, for sin, cos and tan: what is left of x after whole multiples of pi or pi/2.

Usual arguments lose n multiples by products that come out exact (``near_f32``, ``near_f64``).  Huge ones
(``far``) are multiplied by a window of the bits of 1/(2 pi) in integers (Payne and Hanek's method): the
part of the angle that is whole turns is never formed, so the fraction is right for every finite number.
The angle left is a sum ``high + low``: one rounding more would cost an ULP where the function is steep.
"""

from __future__ import annotations

from graphc.backends.llvm.values import Value, fma
from graphc.backends.llvm.vectormath.common import fast_two_sum, has_fma, two_product, two_sum

__all__ = ["LIMIT", "far", "near_f32", "near_f32_short", "near_f64"]

#: up to here the usual way is right
LIMIT = {"f32": 2.0**17, "f64": 2.0**20}

#: pi as a sum of three float32, for processors with an FMA
PI_F32 = (3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15)
#: pi as a sum of float64; products of numbers of 20 bits with those of 33 bits are exact
PI_F64 = (3.1415926534682512, 1.2154201013012384e-10, 7.0431197303664e-27)
PI_F64_PARTS = (3.1415926534682512, 1.2154201012607932e-10, 4.044532497422333e-21, 1.69568553207378e-31)
#: pi as a sum of two float64, the first of 33 bits
PI_SHORT = (3.1415926534682512, 1.2154201013012384e-10)
#: 2 pi as a sum of two float64
TURN = (6.283185307179586, 2.4492935982947064e-16)

#: the bits of 1/(2 pi) in words of 32, after two words of zeros that stand for what is left of the point
TURNS = (
    0x00000000, 0x00000000,
    0x28BE60DB, 0x9391054A, 0x7F09D5F4, 0x7D4D3770, 0x36D8A566, 0x4F10E410, 0x7F9458EA, 0xF7AEF158,
    0x6DC91B8E, 0x909374B8, 0x01924BBA, 0x82746487, 0x3F877AC7, 0x2C4A69CF, 0xBA208D7D, 0x4BAED121,
    0x3A671C09, 0xAD17DF90, 0x4E64758E, 0x60D4CE7D, 0x272117E2, 0xEF7E4A0E, 0xC7FE25FF, 0xF7816603,
    0xFBCBC462, 0xD6829B47, 0xDB4D9FB3, 0xC9F2C26D, 0xD3D18FD9, 0xA797FA8B, 0x5D49EEB1, 0xFAF97C5E,
    0xCF41CE7D, 0xE294A4BA, 0x9AFED7EC, 0x47E35742, 0x1580CC11)

LOW32 = 0xFFFFFFFF


def near_f32(a: Value, n: Value, step: float) -> tuple[Value, Value]:
    """``a - n * step * pi`` for f32 lanes, as high + low.

    Args:
        a: from 0 to ``LIMIT``.
        n: a multiple of 1/2 near a / (step * pi).
        step: 1 or 1/2.

    With an FMA: the first product with 24 bits of pi leaves a difference that a float holds exactly (both
    terms are multiples of 2^-24, the difference is below 2).  Without: in float64, where products of n
    with 33 bits are exact.
    """
    if has_fma(a.f):
        one, two, three = (-p * step for p in PI_F32)
        product = n * two
        high, error = fast_two_sum(fma(n, one, a), product)
        return high, fma(n, three, error + fma(n, two, -product))
    rest = near_wide(a, n, step)
    high = rest.to("f32")
    return high, (rest - high.to("f64")).to("f32")


def near_f32_short(a: Value, n: Value, step: float) -> Value:
    """``near_f32`` as one number, right to 1 ULP (two roundings count)."""
    if has_fma(a.f):
        one, two, three = (-p * step for p in PI_F32)
        return fma(n, three, fma(n, two, fma(n, one, a)))
    return near_wide(a, n, step).to("f32")


def near_wide(a: Value, n: Value, step: float) -> Value:
    wide, m = a.to("f64"), n.to("f64")
    return (wide - m * (PI_SHORT[0] * step)) - m * (PI_SHORT[1] * step)


def near_f64(a: Value, n: Value, step: float) -> tuple[Value, Value]:
    """``a - n * step * pi`` as high + low, for f64 lanes; the arguments are those of ``near_f32``.

    Where it nearly vanishes (2^-60 can be left) all of pi's first 139 bits count.
    """
    if has_fma(a.f):
        one, two, three = (-p * step for p in PI_F64)
        product, miss = two_product(n, two)
        high, error = fast_two_sum(fma(n, one, a), product)
        return high, fma(n, three, error + miss)
    one, two, three, four = (-p * step for p in PI_F64_PARTS)
    high, error = fast_two_sum(a + n * one, n * two)
    high, more = two_sum(high, n * three)
    return high, n * four + (error + more)


def far(a: Value, half: bool, quarter: bool) -> tuple[Value, Value, Value]:
    """Huge arguments: (high, low, odd), where a = high + low + n * pi (or pi/2) modulo a whole turn.

    Args:
        a: f64, not negative; what is below 1 gives rubbish, infinities and NaN give NaN.
        half: n counts half turns; else quarter turns.
        quarter: add a quarter turn first.

    ``odd`` (i64, 0 or 1) is the last bit of n; |high| is at most half of what n counts.
    """
    safe = a.maximum(1.0)
    bits = safe.bitcast("i64")
    place = bits.lshr(52) - (1075 - 64)  # a = mantissa * 2^(place - 64)
    mantissa = (bits & ((1 << 52) - 1)) | (1 << 52)
    table = a.f.module.table("turns", "i64", TURNS)
    first, shift = place.lshr(5), place & 31
    raw = [a.f.gather(table, first + i, "i64") for i in range(7)]
    window = [(((raw[i] << 32) | raw[i + 1]) << shift).lshr(32) for i in range(6)]
    # mantissa * 0.window, modulo 1, in columns of 32 bits; the sixth column and what it would carry are left out
    low, high = mantissa & LOW32, mantissa.lshr(32)
    by_low, by_high = [low * w for w in window], [high * w for w in window]
    columns = []
    for c in range(5):
        column = (by_low[c] & LOW32) + by_low[c + 1].lshr(32) + (by_high[c + 1] & LOW32)
        columns.append(column + by_high[c + 2].lshr(32) if c < 4 else column)
    for c in range(4, 0, -1):
        columns[c - 1] = columns[c - 1] + columns[c].lshr(32)
        columns[c] = columns[c] & LOW32
    top = columns[0] + (1 << 30) if quarter else columns[0]
    kept = 31 if half else 30  # of 32 bits of a turn
    signed = (top << (64 - kept)) >> (64 - kept)
    odd = (top - signed).lshr(kept) & 1
    # the fraction of a turn as high + low, in units of 2^-32 turn
    tail = columns[2].to("f64") * 2.0**-64 + columns[3].to("f64") * 2.0**-96
    total, error = two_sum(signed.to("f64"), columns[1].to("f64") * 2.0**-32)
    total, error = fast_two_sum(total, error + tail)
    unit = 2.0**-32
    product, miss = two_product(total, TURN[0] * unit)
    more = miss + (total * (TURN[1] * unit) + error * (TURN[0] * unit))
    high_angle, low_angle = fast_two_sum(product, more)
    return high_angle + (a - a), low_angle, odd
