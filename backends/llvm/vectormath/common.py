"""Small words that the vector functions share: multiply-add, polynomials, exact sums and products, powers of two.

Everything takes and gives Values of kind f32 or f64 with any number of lanes.  What a processor lacks is
provided for here: without an FMA instruction ``muladd`` is a product and a sum, and ``two_product`` is
Dekker's; without AVX-512 (or where the lanes do not fill its registers) powers of two are made by integer
arithmetic on the exponent's bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from graphc.backends.llvm.values import Body, Value, copysign, fma, select, shuffle

__all__ = ["INTEGER", "MAGIC", "by_registers", "clamp", "exponent_bits", "fast_two_sum", "has_fma", "integer_of", "muladd",
           "nearly_reciprocal", "per_register", "piecewise", "polynomial", "power_of_two", "registers512", "round_to_float",
           "scale_by_power_of_two", "sign_of", "split", "tame", "two_product", "two_sum", "unmasked512", "where", "with_sign"]

#: the integer kind as wide as a float kind
INTEGER = {"f32": "i32", "f64": "i64"}
#: 1.5 * 2^(bits of the mantissa): x + MAGIC - MAGIC is x rounded to a whole number, and the sum's low bits are that number
MAGIC = {"f32": 1.5 * 2.0**23, "f64": 1.5 * 2.0**52}
#: bits of the stored mantissa, and the exponent's bias
MANTISSA = {"f32": 23, "f64": 52}
BIAS = {"f32": 127, "f64": 1023}


def has_fma(f: Body) -> bool:
    """Does the target multiply and add in one instruction?"""
    return any(f.target.has(name) for name in ("fma", "avx512f", "neon"))


def muladd(a: Value, b: Value | float, c: Value | float) -> Value:
    """``a * b + c``: rounded once where the processor can, else twice.  For sums that can bear either."""
    return fma(a, b, c) if has_fma(a.f) else a * b + c


def polynomial(x: Value, coefficients: Sequence[float | Value], chains: int = 1) -> Value:
    """``c[0] + c[1] x + c[2] x^2 + ...`` by Horner's rule.

    With ``chains`` 2 the even and odd powers are summed apart: one product more, half the waiting; with 4 by
    Estrin's rule in groups of 4.  Loops over arrays have other elements to work on while one waits, so 1 is
    usually fastest; long polynomials in long functions gain from 2.
    """
    n = len(coefficients)
    if chains == 1 or n <= 3:
        total: Value | float = coefficients[-1]
        for c in reversed(coefficients[:-1]):
            total = muladd(x if not isinstance(total, Value) else total, total if not isinstance(total, Value) else x, c)
        return total if isinstance(total, Value) else x.like(total)
    xx = x * x
    if chains == 2:
        return muladd(polynomial(xx, coefficients[1::2]), x, polynomial(xx, coefficients[0::2]))
    groups = [coefficients[i:i + 4] for i in range(0, n, 4)]
    parts = [polynomial(x, g) if len(g) < 3 else muladd(polynomial(x, g[2:]), xx, polynomial(x, g[:2])) for g in groups]
    return polynomial(xx * xx, parts)


def piecewise(index: Value, name: str, table: Sequence[Sequence[float]], x: Value) -> Value:
    """A polynomial whose coefficients depend on ``index``: ``table[k][i]`` is the coefficient of x^k in piece i."""
    f = x.f
    total = f.lookup(f"{name}{len(table) - 1}", table[-1], index, x.kind)
    for k in range(len(table) - 2, -1, -1):
        total = muladd(total, x, f.lookup(f"{name}{k}", table[k], index, x.kind))
    return total


# -- sums and products with their rounding errors -------------------------------------------------


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """The rounded sum and its exact error, whatever the magnitudes."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """The rounded sum and its exact error where |a| >= |b| (or a is 0)."""
    total = a + b
    return total, b - (total - a)


def split(a: Value) -> tuple[Value, Value]:
    """Two halves of at most 12 (f32) or 26 (f64) bits whose sum is ``a``: the low mantissa bits are cut off."""
    integer = INTEGER[a.kind]
    high = (a.bitcast(integer) & (-(1 << 12) if a.kind == "f32" else -(1 << 27))).bitcast(a.kind)
    return high, a - high


def two_product(a: Value, b: Value | float) -> tuple[Value, Value]:
    """The rounded product and its exact error (where the error does not underflow)."""
    b = a.like(b)
    total = a * b
    if has_fma(a.f):
        return total, fma(a, b, -total)
    a_hi, a_lo = split(a)
    b_hi, b_lo = split(b)
    return total, ((a_hi * b_hi - total) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo


# -- signs ----------------------------------------------------------------------------------------


def sign_of(x: Value) -> Value:
    """The sign bit alone, as an integer of the same width."""
    return x.bitcast(INTEGER[x.kind]) & (-(1 << (x.bits - 1)))


def with_sign(magnitude: Value, x: Value) -> Value:
    """``magnitude`` (not negative) with the sign of ``x``."""
    return copysign(magnitude, x)


# -- powers of two --------------------------------------------------------------------------------


def registers512(x: Value) -> int:
    """How many whole 512-bit registers ``x`` fills on a target that has them; 0 if it does not fill any."""
    if not x.f.target.has("avx512f") or x.lanes * x.bits % 512 or x.kind not in INTEGER:
        return 0
    return x.lanes * x.bits // 512


def by_registers(work: Callable[..., Value], *args: Value) -> Value:
    """``work`` on each 512-bit part of the arguments, joined again.  Splitting and joining cost nothing."""
    n = registers512(args[0])
    if n == 1:
        return work(*args)
    per = args[0].lanes // n
    parts = [work(*[shuffle(a, a, range(i * per, (i + 1) * per)) for a in args]) for i in range(n)]
    while len(parts) > 1:
        pairs = [shuffle(parts[i], parts[i + 1], range(2 * parts[i].lanes)) for i in range(0, len(parts) - 1, 2)]
        parts = pairs + ([parts[-1]] if len(parts) % 2 else [])
    return parts[0]


def per_register(function: Callable[..., Value]) -> Callable[..., Value]:
    """A function of Values that, where its arguments fill several 512-bit registers, is written once for each of them.

    So the code inside may use instructions of one whole register where ``registers512(x)`` is not 0.
    """

    @functools.wraps(function)
    def each(*args: Value) -> Value:
        return by_registers(function, *args) if registers512(args[0]) > 1 else function(*args)

    return each


def unmasked512(name: str, x: Value, *operands: Value | str) -> Value:
    """``llvm.x86.avx512.mask.<name>`` on one whole register, every lane on, current rounding; other operands are Values or "i32 3"."""
    f, lanes, t = x.f, x.lanes, x.type
    words = [f"{t} {x.ref}", *[f"{a.type} {a.ref}" if isinstance(a, Value) else a for a in operands]]
    types = [t, *[a.type if isinstance(a, Value) else a.split()[0] for a in operands]]
    full = f"llvm.x86.avx512.mask.{name}.{'ps' if x.kind == 'f32' else 'pd'}.512"
    f.module.declare(full, f"{t} ({', '.join([*types, t, f'i{lanes}', 'i32'])})")
    return Value(f, f.op(f"call {t} @{full}({', '.join([*words, f'{t} {x.ref}', f'i{lanes} -1', 'i32 4'])})"), x.kind, lanes)


def nearly_reciprocal(x: Value) -> Value:
    """1/x with an error of 2^-14 or less where the processor has that instruction, else divided; 1/0 is an infinity."""
    if not registers512(x):
        return 1.0 / x
    name = f"llvm.x86.avx512.rcp14.{'ps' if x.kind == 'f32' else 'pd'}.512"

    def one(a: Value) -> Value:
        a.f.module.declare(name, f"{a.type} ({a.type}, {a.type}, i{a.lanes})")
        return Value(a.f, a.f.op(f"call {a.type} @{name}({a.type} {a.ref}, {a.type} {a.ref}, i{a.lanes} -1)"), a.kind, a.lanes)

    return by_registers(one, x)


def tame(r: Value, bound: float) -> Value:
    """``r``, at most one register; outside of +-bound, and where it is NaN, some number within."""
    if registers512(r) and r.f.target.has("avx512dq"):
        return unmasked512("range", r, r.like(bound), "i32 2")  # the smaller of the magnitudes with the sign of r
    return r.minimum(bound).maximum(-bound)


def clamp(x: Value, low: float, high: float) -> Value:
    """``x`` held between two numbers; a NaN stays."""
    return x.like(high).minimum(x.like(low).maximum(x))


def integer_of(shifted: Value) -> Value:
    """The whole number in ``shifted = x + MAGIC`` as an integer in the low bits (the high bits are MAGIC's)."""
    return shifted.bitcast(INTEGER[shifted.kind])


def exponent_bits(n: Value) -> Value:
    """2^n from an integer n (its low bits; the result must be a normal number)."""
    kind = "f32" if n.kind == "i32" else "f64"
    return ((n + BIAS[kind]) << MANTISSA[kind]).bitcast(kind)


def power_of_two(n: Value) -> Value:
    """2^n for a float that holds a whole number, where that is a normal number."""
    return exponent_bits(integer_of(n + MAGIC[n.kind]))


def scale_by_power_of_two(x: Value, n: Value) -> Value:
    """``x * 2^n`` with one rounding; ``n`` is a float holding a whole number, |n| <= 250 (f32) or 2000 (f64).

    ``x`` should be about 1 (between 2^-20 and 2^20, or 0, infinite or NaN).  Overflow gives an infinity, underflow is gradual.
    """
    if registers512(x):
        return by_registers(lambda a, b: unmasked512("scalef", a, b), x, n)
    half = round_to_float(n * 0.5)  # in two steps: the first product is exact, the second rounds
    return x * power_of_two(half) * power_of_two(n - half)


def round_to_float(x: Value) -> Value:
    """``x`` (|x| < 2^22, 2^51) to the nearest whole number."""
    return (x + MAGIC[x.kind]) - MAGIC[x.kind]


def where(condition: Value, yes: Value | float, no: Value) -> Value:
    """``select`` that takes a number for ``yes``."""
    return select(condition, no.like(yes), no)
