"""One element of each op: how ``apply`` and ``cast`` instructions become code.

A number lives in a register as a kind of its own: bool as i1, half precisions as f32 (rounded after every op, as
NumPy does), everything else as itself; ``kind_of`` says which.  ``APPLY[name](dtype, *values)`` writes the op for
operands of ``dtype``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.backends.llvm import vectormath
from graphc.backends.llvm.values import BITS, Value, copysign, select
from graphc.backends.llvm.vectormath import roots
from graphc.dtypes import is_bfloat16, is_half

__all__ = ["APPLY", "apply", "convert", "kind_of", "memory_kind", "rounded"]

DType = np.dtype[Any]


@functools.cache
def kind_of(dtype: DType) -> str:
    """The kind of a value of this dtype in a register."""
    if dtype.kind == "b":
        return "i1"
    if is_half(dtype):
        return "f32"
    return f"{'f' if dtype.kind == 'f' else 'i'}{8 * dtype.itemsize}"


@functools.cache
def memory_kind(dtype: DType) -> str:
    """The kind of an element in memory."""
    if dtype.kind == "b":
        return "i8"
    if is_bfloat16(dtype):
        return "i16"
    if is_half(dtype):
        return "f16"
    return kind_of(dtype)


def unsigned(dtype: DType) -> bool:
    return dtype.kind == "u"


def loaded(x: Value, dtype: DType) -> Value:
    """An element as it came from memory, in its register kind."""
    if dtype.kind == "b":
        return x.ne(0)
    if is_bfloat16(dtype):
        return (x.to("i32", signed=False) << 16).bitcast("f32")
    if is_half(dtype):
        return x.to("f32")
    return x


def stored(x: Value, dtype: DType) -> Value:
    """A value as it goes to memory; half precisions are rounded by now."""
    if dtype.kind == "b":
        return x.to("i8", signed=False)
    if is_bfloat16(dtype):
        return x.bitcast("i32").lshr(16).to("i16")
    if is_half(dtype):
        return x.to("f16")
    return x


def rounded(x: Value, dtype: DType) -> Value:
    """A float32 result as the nearest number of a half precision."""
    if is_bfloat16(dtype):
        bits = x.bitcast("i32")
        near = (bits + 0x7FFF + (bits.lshr(16) & 1)) & -65536
        nan = (bits | 0x400000) & -65536
        return select(x.isnan(), nan, near).bitcast("f32")
    return x.to("f16").to("f32") if is_half(dtype) else x


def apply(name: str, operand: DType, result: DType, args: list[Value]) -> Value:
    """The value of an elementwise op."""
    x = APPLY[name](operand, *args)
    return rounded(x, result) if is_half(result) else x


def convert(x: Value, have: DType, want: DType) -> Value:
    """NumPy's ``astype``."""
    if want.kind == "b":
        return x if have.kind == "b" else x.ne(0.0 if x.float else 0)
    kind = kind_of(want)
    if have.kind == "b":
        if kind[0] == "f":
            one = x.f.const(1.0, kind, x.lanes)
            return select(x, one, 0.0)
        return x.to(kind, signed=False)
    if x.float and kind[0] == "i":
        return _to_integer(x, want)
    if x.float:
        return rounded(_odd(x) if x.kind == "f64" and want.name == "float16" else x.to(kind), want)
    return rounded(x.to(kind, signed=not unsigned(have)), want)


def _odd(x: Value) -> Value:
    """float64 to float32, where it does not fit to the neighbour whose last bit is 1: then rounding again, to fewer bits, is rounding once."""
    near = x.to("f32")
    back, bits = near.to("f64"), near.bitcast("i32")
    inexact = back.lt(x) | back.gt(x)
    further = back.abs().gt(x.abs())
    other = select(further, bits - 1, bits + 1)
    return select(inexact & (bits & 1).eq(0), other, bits).bitcast("f32")


def _to_integer(x: Value, want: DType) -> Value:
    """Cut towards zero.  Out of range: what x86 and NumPy give, the smallest int32 or int64, cut to the width."""
    wide = x if x.kind == "f64" else x.to("f64")
    bits = BITS[kind_of(want)]
    if want.kind == "u" and bits == 64:
        half = 9223372036854775808.0
        big = wide.ge(half)
        low = _cut(select(big, wide - half, wide), "i64", half)
        return select(big, low ^ -(1 << 63), low)
    if bits == 64 or (want.kind == "u" and bits == 32):
        return _cut(wide, "i64", 9223372036854775808.0).to(kind_of(want))
    return _cut(wide, "i32", 2147483648.0).to(kind_of(want))


def _cut(x: Value, kind: str, limit: float) -> Value:
    """Conversion with a defined result everywhere: the smallest integer where the number does not fit."""
    inside = (x.gt(-limit - 1.0) if kind == "i32" else x.ge(-limit)) & x.lt(limit)
    safe = select(inside, x, 0.0)
    n = safe.to(kind)
    return select(inside, n, -(1 << (BITS[kind] - 1)))


# ---- the ops ------------------------------------------------------------------------------------

Emit = Callable[..., Value]


def _add(t: DType, a: Value, b: Value) -> Value:
    return a | b if a.kind == "i1" else a + b


def _mul(t: DType, a: Value, b: Value) -> Value:
    return a & b if a.kind == "i1" else a * b


def _abs(t: DType, a: Value) -> Value:
    return a if a.kind == "i1" or unsigned(t) else a.abs()


def _sign(t: DType, a: Value) -> Value:
    if a.float:
        one = a.f.const(1.0, a.kind, a.lanes)
        steps = select(a.gt(0.0), one, select(a.lt(0.0), -one, 0.0))
        return select(a.isnan(), a, steps)
    if unsigned(t):
        return a.ne(0).to(a.kind, signed=False)
    return a.gt(0).to(a.kind, signed=False) - a.lt(0).to(a.kind, signed=False)


def _divisor(t: DType, a: Value, b: Value) -> tuple[Value, Value]:
    """A divisor that does not trap, and where it stands for 0."""
    zero = b.eq(0)
    safe = select(zero, b.like(1), b)
    if not unsigned(t):  # min // -1 overflows, and traps: the negative is computed in its place
        safe = select(b.eq(-1), b.like(1), safe)
    return safe, zero


def _floordiv(t: DType, a: Value, b: Value) -> Value:
    if a.float:
        return _float_divmod(a, b)[0]
    safe, zero = _divisor(t, a, b)
    if unsigned(t):
        return select(zero, b.like(0), a.udiv(safe))
    q = a / safe
    r = a - q * safe
    q = select(r.ne(0) & ((r ^ safe).lt(0)), q - 1, q)
    q = select(b.eq(-1), -a, q)
    return select(zero, b.like(0), q)


def _mod(t: DType, a: Value, b: Value) -> Value:
    if a.float:
        return _float_divmod(a, b)[1]
    safe, zero = _divisor(t, a, b)
    if unsigned(t):
        return select(zero, b.like(0), a.urem(safe))
    r = a.rem(safe)
    r = select(r.ne(0) & ((r ^ safe).lt(0)), r + safe, r)
    return select(zero | b.eq(-1), b.like(0), r)


def _float_divmod(a: Value, b: Value) -> tuple[Value, Value]:
    """Python's divmod of floats, as NumPy computes it."""
    r = fmod(a, b)
    q = (a - r) / b
    wrong = r.ne(0.0) & (b.lt(0.0) ^ r.lt(0.0)) & ~r.isnan()
    m = select(wrong, r + b, r)
    q = select(wrong, q - 1.0, q)
    m = select(r.eq(0.0), copysign(a.like(0.0), b), m)
    whole = q.floor()
    whole = select((q - whole).gt(0.5), whole + 1.0, whole)
    whole = select(q.eq(0.0), copysign(a.like(0.0), a / b), whole)
    by_zero = b.eq(0.0)
    return select(by_zero, a / b, whole), m


def fmod(a: Value, b: Value) -> Value:
    """C's fmod, exact: lane by lane through ``frem``, which calls the C library."""
    return a.rem(b)


def _maximum(t: DType, a: Value, b: Value) -> Value:
    if a.kind == "i1":
        return a | b
    if a.float:
        return select(a.gt(b) | a.isnan(), a, b)
    return select(a.ugt(b) if unsigned(t) else a.gt(b), a, b)


def _minimum(t: DType, a: Value, b: Value) -> Value:
    if a.kind == "i1":
        return a & b
    if a.float:
        return select(a.lt(b) | a.isnan(), a, b)
    return select(a.ult(b) if unsigned(t) else a.lt(b), a, b)


def _clip(t: DType, a: Value, lo: Value, hi: Value) -> Value:
    return _minimum(t, _maximum(t, a, lo), hi)


def _relu(t: DType, a: Value) -> Value:
    if a.float:
        return select(a.gt(0.0) | a.isnan(), a, 0.0)
    return a if unsigned(t) else select(a.gt(0), a, 0)


def _shift(t: DType, a: Value, b: Value, left: bool) -> Value:
    bits = BITS[a.kind]
    outside = b.uge(bits)  # negative ones too
    by = select(outside, b.like(0), b)
    if left:
        return select(outside, a.like(0), a << by)
    if unsigned(t):
        return select(outside, a.like(0), a.lshr(by))
    return select(outside, a >> (bits - 1), a >> by)


def _ipow(t: DType, a: Value, b: Value) -> Value:
    """Squaring, for all bits of the exponent; a negative exponent gives the reciprocal cut to a whole number."""
    f, bits = a.f, BITS[a.kind]
    one = a.like(1)
    result, base = one, a
    for k in range(bits):
        bit = (b.lshr(k) & 1).ne(0)
        result = select(bit, result * base, result)
        if k + 1 < bits:
            base = base * base
    del f
    if unsigned(t):
        return result
    odd = (b & 1).ne(0)
    negative = select(a.eq(1), one, select(a.eq(-1), select(odd, -one, one), 0))
    return select(b.lt(0), negative, result)


def _equal(t: DType, a: Value, b: Value) -> Value:
    return a.eq(b)


def _compare(ordered: str, without_sign: str) -> Emit:
    def emit(t: DType, a: Value, b: Value) -> Value:
        if a.kind == "i1":
            a, b = a.to("i8", signed=False), b.to("i8", signed=False)
        method = without_sign if unsigned(t) else ordered
        result: Value = getattr(a, method)(b)
        return result
    return emit


def _false(x: Value) -> Value:
    return x.f.const(False, "i1", x.lanes)


def _isnan(t: DType, a: Value) -> Value:
    return a.isnan() if a.float else _false(a)


def _isinf(t: DType, a: Value) -> Value:
    return a.abs().eq(float("inf")) if a.float else _false(a)


def _isfinite(t: DType, a: Value) -> Value:
    return a.abs().lt(float("inf")) if a.float else ~_false(a)


def _signbit(t: DType, a: Value) -> Value:
    return a.bitcast("i32" if a.kind == "f32" else "i64").lt(0)


def _invert(t: DType, a: Value) -> Value:
    return ~a


def _where(t: DType, c: Value, a: Value, b: Value) -> Value:
    return select(c, a, b)


def _math(name: str) -> Emit:
    def emit(t: DType, *args: Value) -> Value:
        function: Callable[..., Value] = vectormath.FUNCTIONS[name]
        return function(*args)
    return emit


APPLY: dict[str, Emit] = {
    "add": _add, "mul": _mul,
    "sub": lambda t, a, b: a - b,
    "neg": lambda t, a: -a,
    "div": lambda t, a, b: a / b,
    "floordiv": _floordiv, "mod": _mod,
    "pos": lambda t, a: a,
    "sqr": lambda t, a: a * a,
    "reciprocal": lambda t, a: 1.0 / a,
    "abs": _abs, "sign": _sign, "where": _where,
    "equal": _equal, "not_equal": lambda t, a, b: a.ne(b),
    "less": _compare("lt", "ult"), "less_equal": _compare("le", "ule"),
    "greater": _compare("gt", "ugt"), "greater_equal": _compare("ge", "uge"),
    "logical_and": lambda t, a, b: a & b, "logical_or": lambda t, a, b: a | b,
    "logical_xor": lambda t, a, b: a ^ b, "logical_not": _invert,
    "isnan": _isnan, "isinf": _isinf, "isfinite": _isfinite, "signbit": _signbit,
    "bitwise_and": lambda t, a, b: a & b, "bitwise_or": lambda t, a, b: a | b,
    "bitwise_xor": lambda t, a, b: a ^ b, "invert": _invert,
    "left_shift": lambda t, a, b: _shift(t, a, b, True), "right_shift": lambda t, a, b: _shift(t, a, b, False),
    "maximum": _maximum, "minimum": _minimum, "clip": _clip, "relu": _relu,
    "copysign": lambda t, a, b: copysign(a, b),
    "floor": lambda t, a: a.floor(), "ceil": lambda t, a: a.ceil(), "trunc": lambda t, a: a.trunc(), "round": lambda t, a: a.rint(),
    "ipow": _ipow,
    "sqrt": lambda t, a: roots.sqrt(a),
    **{name: _math(name) for name in (
        "pow", "hypot", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logaddexp", "log1mexp", "sigmoid", "softplus",
        "sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
        "erf", "erfc", "erfinv", "gammaln", "digamma", "xlogy")},
}
