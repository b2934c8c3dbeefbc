"""Rules of algebra: facts of ops, signs, powers, choices, casts.

Level "exact": nan, inf, the sign of zero and subnormals as in the expression as written.
The notes say why, where it is not plain.  Level "fast" may reassociate and takes values
to be finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.ir import Array, Node, Op, Type, Var, apply
from graphc.ops.arithmetic import abs as abs_
from graphc.ops.arithmetic import add, conj, div, mul, neg, real, reciprocal, sqr, sub, where
from graphc.ops.choosing import ceil, floor, maximum, trunc
from graphc.ops.choosing import round as round_
from graphc.ops.comparison import (
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    equal,
    greater,
    greater_equal,
    invert,
    isfinite,
    isinf,
    isnan,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    not_equal,
)
from graphc.ops.core import cast, cast_op
from graphc.ops.reduction import prod_op, sum_op
from graphc.ops.transcendental import cos, cosh, exp, expm1, ipow, log, log1p, pow, sqrt
from graphc.passes.constants import uniform
from graphc.passes.pattern import Result, Rule, scalar_array

# ---- facts: one rule for each, whatever the op ---------------------------------------------------


def _fact(op: Op, node: Node, name: str) -> Array | None:
    """The identity or annihilator of ``op`` as a scalar of the operands' dtype; None if it has none there."""
    dtype = node.inputs[0].type.dtype
    if dtypes.is_complex(dtype) or any(v.type.dtype != dtype for v in node.inputs):
        return None  # (a + bi) * 1 is nan where b is inf
    value = getattr(op, name if dtypes.is_float(dtype) else f"{name}_int")
    return None if value is None else np.asarray(value).astype(dtype)


def _met(node: Node, name: str) -> int | None:
    """The position of an operand that is the identity or annihilator; the right one alone if the order matters."""
    wanted = _fact(node.op, node, name)
    if wanted is None or len(node.inputs) != 2:
        return None
    for position in (1, 0) if node.op.commutative else (1,):
        value = uniform(node.inputs[position])
        if value is not None and value.tobytes() == wanted.tobytes():
            return position
    return None


def _identity(node: Node) -> Result:
    position = _met(node, "identity")
    return None if position is None else node.inputs[1 - position]


def _annihilator(node: Node) -> Result:
    return None if _met(node, "annihilator") is None else _fact(node.op, node, "annihilator").item()  # type: ignore[union-attr]


def _involution(node: Node) -> Result:
    inner = node.inputs[0].node
    return inner.inputs[0] if inner is not None and inner.key == node.key else None


def _idempotent(node: Node) -> Result:
    if len(node.inputs) == 2:
        return node.inputs[0] if node.inputs[0] is node.inputs[1] else None
    inner = node.inputs[0].node
    return node.inputs[0] if inner is not None and inner.key == node.key else None


def _leaf(dtype: str = "float64", rank: int = 0) -> Var:
    """A leaf for the examples below."""
    return Var(Type(dtypes.DTYPES[dtype], (3,) * rank))


def _twice(op: Any, dtype: str = "float64") -> Any:
    return lambda: op(op(_leaf(dtype)))


FACTS = (
    Rule("identity", root=lambda op: op.identity is not None or op.identity_int is not None, over=("constant", "broadcast_to"),
         fn=_identity, kinds="biuf", note="op(x, e) = x for the identity e that the op states: x*1, x-0.0, x+(-0.0), x**1, max(x, -inf)",
         examples=(lambda: mul(_leaf(), 1.0), lambda: sub(_leaf(), 0.0), lambda: add(_leaf(), -0.0), lambda: div(_leaf(), 1.0),
                   lambda: add(_leaf("int8"), 0), lambda: bitwise_and(_leaf("uint8"), 255), lambda: logical_or(_leaf("bool"), False),
                   lambda: maximum(_leaf(), -np.inf), lambda: pow(_leaf(), 1.0), lambda: mul(1.0, _leaf()))),
    Rule("annihilator", root=lambda op: op.annihilator is not None or op.annihilator_int is not None, over=("constant", "broadcast_to"),
         fn=_annihilator, kinds="biuf", note="op(x, 0) = 0 for the annihilator that the op states; of floats * has none: inf*0 is nan",
         examples=(lambda: mul(_leaf("int8"), 0), lambda: logical_and(_leaf("bool"), False), lambda: bitwise_or(_leaf("uint8"), 255))),
    Rule("involution", root=lambda op: op.involution, over=("same",), fn=_involution,
         note="op(op(x)) = x: -(-x), not not c, flips", examples=(_twice(neg), _twice(neg, "int8"), _twice(logical_not, "bool"),
                                                                  _twice(invert, "uint8"), _twice(conj, "complex128"))),
    Rule("idempotent", root=lambda op: op.idempotent, fn=_idempotent,
         note="op(op(x)) = op(x), or op(x, x) = x: ||x||, max(x, x), floor(floor(x))",
         examples=(_twice(abs_), _twice(floor), lambda: (lambda x: maximum(x, x))(_leaf()),
                   lambda: (lambda x: logical_and(x, x))(_leaf("bool")))),
)

# ---- signs ---------------------------------------------------------------------------------------


def _negative(x: Var, k: Var) -> bool | str:
    value = scalar_array(k)
    if value.dtype.kind == "i" and value == np.iinfo(value.dtype).min:
        return "the most negative integer has no opposite"
    return bool(value < 0) or "the constant is not negative"


SIGNS = (
    Rule("sub_neg", lambda a, b: sub(a, neg(b)), lambda a, b: add(a, b), note="a - (-b) = a + b, the same operation in IEEE 754"),
    Rule("add_neg", lambda a, b: add(a, neg(b)), lambda a, b: sub(a, b), note="a + (-b) = a - b, the same operation in IEEE 754"),
    Rule("mul_neg_neg", lambda a, b: mul(neg(a), neg(b)), lambda a, b: mul(a, b), kinds="iuf", note="(-a)(-b) = ab: rounding is symmetric"),
    Rule("div_neg_neg", lambda a, b: div(neg(a), neg(b)), lambda a, b: div(a, b), kinds="f", note="(-a)/(-b) = a/b: rounding is symmetric"),
    Rule("mul_minus_one", lambda x: mul(x, -1), lambda x: neg(x), kinds="if", note="x * -1 = -x"),
    Rule("div_minus_one", lambda x: div(x, -1), lambda x: neg(x), kinds="f", note="x / -1 = -x"),
    Rule("minus_zero_sub", lambda x: sub(-0.0, x), lambda x: neg(x), kinds="iuf",
         note="-0.0 - x = -x, of zeros too; of integers 0 - x"),
    Rule("neg_sub", lambda a, b: neg(sub(a, b)), lambda a, b: sub(b, a), kinds="iu", note="-(a - b) = b - a; of floats a - a has +0 on either side"),
    Rule("neg_mul_constant", lambda x, k: neg(mul(x, k)), lambda x, k: mul(x, neg(k)), kinds="iuf", note="-(kx) = (-k)x"),
    Rule("mul_neg_constant", lambda x, k: mul(neg(x), k), lambda x, k: mul(x, neg(k)), kinds="iuf", note="(-x)k = x(-k)"),
    Rule("neg_div_constant", lambda x, k: neg(div(x, k)), lambda x, k: div(x, neg(k)), kinds="f", note="-(x/k) = x/(-k)"),
    Rule("div_neg_constant", lambda x, k: div(neg(x), k), lambda x, k: div(x, neg(k)), kinds="f", note="(-x)/k = x/(-k)"),
    Rule("add_negative", lambda x, k: add(x, k), lambda x, k: sub(x, neg(k)), _negative, kinds="if", note="x + (-2) = x - 2"),
    Rule("sub_negative", lambda x, k: sub(x, k), lambda x, k: add(x, neg(k)), _negative, kinds="if", note="x - (-2) = x + 2"),
    Rule("abs_neg", lambda x: abs_(neg(x)), lambda x: abs_(x), kinds="ifc", note="|-x| = |x|; of unsigned ones -x wraps"),
    Rule("abs_unsigned", lambda x: abs_(x), lambda x: x, kinds="bu", note="|x| = x where no value is negative"),
    Rule("abs_sqr", lambda x: abs_(sqr(x)), lambda x: sqr(x), kinds="f", note="|x*x| = x*x; integers may wrap below 0"),
    Rule("abs_exp", lambda x: abs_(exp(x)), lambda x: exp(x), kinds="f", note="exp(x) >= +0"),
    Rule("sqr_neg", lambda x: sqr(neg(x)), lambda x: sqr(x), kinds="iuf", note="(-x)(-x) = x*x"),
    Rule("sqr_abs", lambda x: sqr(abs_(x)), lambda x: sqr(x), lambda x: not dtypes.is_complex(x.type.dtype) or "x is complex",
         kinds="iuf", note="|x||x| = x*x"),
    Rule("cos_neg", lambda x: cos(neg(x)), lambda x: cos(x), kinds="f", bits=False, note="cos is even"),
    Rule("cosh_neg", lambda x: cosh(neg(x)), lambda x: cosh(x), kinds="f", bits=False, note="cosh is even"),
    Rule("abs_conj", lambda z: abs_(conj(z)), lambda z: abs_(z), note="|conj z| = |z|"),
    Rule("real_conj", lambda z: real(conj(z)), lambda z: real(z), note="Re conj z = Re z"),
)

# ---- powers and quotients ------------------------------------------------------------------------

_TINY = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


def _power_of_two(x: Var, k: Var) -> bool | str:
    """Is 1/k a normal number without rounding?"""
    value = scalar_array(k)
    number = float(value)
    if not np.isfinite(number) or number == 0 or abs(np.frexp(number)[0]) != 0.5:
        return f"{number} is no power of two"
    inverse = 1 / number
    holds = abs(inverse) >= _TINY[value.dtype.name] and np.isfinite(inverse) and float(np.asarray(inverse).astype(value.dtype)) == inverse
    return bool(holds) or f"1/{number} is not a normal {value.dtype}"


POWERS = (
    Rule("mul_self", lambda x: mul(x, x), lambda x: sqr(x), kinds="iuf", note="x*x is the square"),
    Rule("pow_zero", (lambda x: pow(x, 0.0), lambda x: pow(x, -0.0)), lambda x: 1.0, kinds="f", note="x**0 = 1, of nan too (IEEE 754)"),
    Rule("pow_two", lambda x: pow(x, 2.0), lambda x: sqr(x), kinds="f", bits=False, note="x**2 = x*x, rounded once"),
    Rule("pow_three", lambda x: pow(x, 3.0), lambda x: mul(sqr(x), x), kinds="f", bits=False, note="x**3 = (x*x)x: overflows where x**3 does"),
    Rule("pow_four", lambda x: pow(x, 4.0), lambda x: sqr(sqr(x)), kinds="f", bits=False, note="x**4 = (x*x)**2: overflows where x**4 does"),
    Rule("pow_minus_one", lambda x: pow(x, -1.0), lambda x: reciprocal(x), kinds="f", bits=False, note="x**-1 = 1/x, rounded once"),
    Rule("one_div", lambda x: div(1, x), lambda x: reciprocal(x), kinds="f", note="1/x, one name for it"),
    Rule("ipow_zero", lambda i: ipow(i, 0), lambda i: 1, note="n**0 = 1"),
    Rule("ipow_two", lambda i: ipow(i, 2), lambda i: sqr(i), note="n**2 = n*n, wrapping"),
    Rule("ipow_three", lambda i: ipow(i, 3), lambda i: mul(sqr(i), i), note="n**3 = (n*n)n, wrapping"),
    Rule("div_power_of_two", lambda x, k: div(x, k), lambda x, k: mul(x, 1 / float(scalar_array(k))), _power_of_two, kinds="f",
         note="x / 2**n = x * 2**-n: both round the same real number"),
)

# ---- choices and logic ---------------------------------------------------------------------------


def _ordered(a: Var, b: Var) -> bool | str:
    return not dtypes.is_inexact(a.type.dtype) or "of floats nan makes both comparisons false"


#: not (a p b) is a q b, where neither is nan
OPPOSITES = ((less, greater_equal), (less_equal, greater), (greater, less_equal), (greater_equal, less))


def _opposite(p: Any, q: Any, prefix: str = "", level: str = "exact") -> Rule:
    return Rule(f"{prefix}not_{p.name}", lambda a, b: logical_not(p(a, b)), lambda a, b: q(a, b), _ordered if level == "exact" else None,
                note=f"not a {p.name} b is a {q.name} b where there is no nan", level=level)


CHOICES = (
    Rule("where_true", lambda x, y: where(True, x, y), lambda x, y: x, note="where(True, x, y) = x"),
    Rule("where_false", lambda x, y: where(False, x, y), lambda x, y: y, note="where(False, x, y) = y"),
    Rule("where_bool", lambda c: where(c, True, False), lambda c: c, note="where(c, True, False) = c"),
    Rule("where_not_bool", lambda c: where(c, False, True), lambda c: logical_not(c), note="where(c, False, True) = not c"),
    Rule("where_same", lambda c, x: where(c, x, x), lambda c, x: x, note="where(c, x, x) = x"),
    Rule("where_not", lambda c, x, y: where(logical_not(c), x, y), lambda c, x, y: where(c, y, x), note="where(not c, x, y) = where(c, y, x)"),
    Rule("where_where_then", lambda c, x, y, b: where(c, where(c, x, y), b), lambda c, x, b: where(c, x, b), note="inside c holds"),
    Rule("where_where_else", lambda c, x, y, b: where(c, b, where(c, x, y)), lambda c, y, b: where(c, b, y), note="inside c does not hold"),
    Rule("not_equal", lambda a, b: logical_not(equal(a, b)), lambda a, b: not_equal(a, b), note="not a == b is a != b, of nan too"),
    Rule("not_not_equal", lambda a, b: logical_not(not_equal(a, b)), lambda a, b: equal(a, b), note="not a != b is a == b, of nan too"),
    *(_opposite(p, q) for p, q in OPPOSITES),
    Rule("less_self", (lambda x: less(x, x), lambda x: greater(x, x)), lambda x: False, note="x < x is false, of nan too"),
    Rule("equal_self", (lambda x: equal(x, x), lambda x: less_equal(x, x), lambda x: greater_equal(x, x)), lambda x: True, kinds="biu",
         note="x == x, but not of nan"),
    Rule("not_equal_self", lambda x: not_equal(x, x), lambda x: False, kinds="biu", note="x != x is false, but not of nan"),
    Rule("and_not", lambda c: logical_and(c, logical_not(c)), lambda c: False, note="c and not c"),
    Rule("or_not", lambda c: logical_or(c, logical_not(c)), lambda c: True, note="c or not c"),
    Rule("xor_self", lambda c: logical_xor(c, c), lambda c: False, note="c xor c"),
    Rule("xor_true", lambda c: logical_xor(c, True), lambda c: logical_not(c), note="c xor True = not c"),
    Rule("bool_invert", lambda c: invert(c), lambda c: logical_not(c), kinds="b", note="bits of bool are logic"),
    Rule("bool_and", lambda c, d: bitwise_and(c, d), lambda c, d: logical_and(c, d), kinds="b", note="bits of bool are logic"),
    Rule("bool_or", lambda c, d: bitwise_or(c, d), lambda c, d: logical_or(c, d), kinds="b", note="bits of bool are logic"),
    Rule("bool_xor", lambda c, d: bitwise_xor(c, d), lambda c, d: logical_xor(c, d), kinds="b", note="bits of bool are logic"),
    Rule("isnan_whole", (lambda i: isnan(i), lambda i: isinf(i)), lambda i: False, kinds="biu", note="integers are finite"),
    Rule("isfinite_whole", lambda i: isfinite(i), lambda i: True, kinds="biu", note="integers are finite"),
)

# ---- integers ------------------------------------------------------------------------------------

INTEGERS = (
    Rule("int_sub_self", lambda x: sub(x, x), lambda x: 0, kinds="iu", note="n - n = 0"),
    Rule("int_xor_self", lambda i: bitwise_xor(i, i), lambda i: 0, kinds="iu", note="n ^ n = 0"),
    Rule("int_add_add", lambda x, k, m: add(add(x, k), m), lambda x, k, m: add(x, add(k, m)), kinds="iu", note="(n + k) + m = n + (k + m), wrapping"),
    Rule("int_sub_sub", lambda x, k, m: sub(sub(x, k), m), lambda x, k, m: sub(x, add(k, m)), kinds="iu", note="(n - k) - m = n - (k + m), wrapping"),
    Rule("int_add_sub", lambda x, k, m: sub(add(x, k), m), lambda x, k, m: add(x, sub(k, m)), kinds="iu", note="(n + k) - m = n + (k - m), wrapping"),
    Rule("int_sub_add", lambda x, k, m: add(sub(x, k), m), lambda x, k, m: add(x, sub(m, k)), kinds="iu", note="(n - k) + m = n + (m - k), wrapping"),
    Rule("int_mul_mul", lambda x, k, m: mul(mul(x, k), m), lambda x, k, m: mul(x, mul(k, m)), kinds="iu", note="(nk)m = n(km), wrapping"),
    Rule("int_add_take_back", lambda a, b: sub(add(a, b), b), lambda a, b: a, kinds="iu", note="(a + b) - b = a, wrapping"),
    Rule("int_sub_take_back", lambda a, b: add(sub(a, b), b), lambda a, b: a, kinds="iu", note="(a - b) + b = a, wrapping"),
)

# ---- casts and rounding --------------------------------------------------------------------------

_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53, "complex64": 24, "complex128": 53}


def holds_all(small: np.dtype[Any], large: np.dtype[Any]) -> bool:
    """Is every value of ``small`` one of ``large``?  NumPy calls int64 -> float64 safe; it is not."""
    if small == large or dtypes.is_bool(small):
        return True
    if dtypes.is_bool(large):
        return False
    if dtypes.is_integer(small):
        bits = small.itemsize * 8 - (small.kind == "i")
        return bool(np.can_cast(small, large, "safe")) if dtypes.is_integer(large) else _DIGITS[large.name] >= bits
    if not dtypes.is_inexact(large) or (dtypes.is_complex(small) and not dtypes.is_complex(large)):
        return False
    return _DIGITS[large.name] >= _DIGITS[small.name] and (small.name, large.name) != ("bfloat16", "float16")


def _cast_cast(node: Node) -> Result:
    inner = node.inputs[0].node
    assert inner is not None
    x, middle, final = inner.inputs[0], inner.outputs[0].type.dtype, node.outputs[0].type.dtype
    first = x.type.dtype
    if not holds_all(first, middle):
        return f"{middle} does not hold all values of {first}"
    if dtypes.is_inexact(first) and not dtypes.is_inexact(final) and not dtypes.is_bool(final) and first != final:
        return "what a float outside the integers becomes depends on its width"
    return cast(x, final)


def _round_round(node: Node) -> Result:
    inner = node.inputs[0].node
    assert inner is not None
    if inner.op is cast_op:
        return node.inputs[0] if dtypes.is_integer(inner.inputs[0].type.dtype) and not dtypes.is_complex(node.inputs[0].type.dtype) else None
    return node.inputs[0] if inner.op.name in ("floor", "ceil", "trunc", "round") else None


def _no_axes(node: Node) -> Result:
    axis = node.attrs.get("axis")
    x = node.inputs[0]
    if axis != ():
        return None
    if node.op is sum_op or node.op is prod_op:
        x = cast(x, node.outputs[0].type.dtype)
    if node.op is sum_op and dtypes.is_inexact(x.type.dtype):
        return add(x, 0.0)  # a sum begins with 0.0, so that of -0.0 is 0.0
    return x


CASTS = (
    Rule("cast_same", root=("cast",), fn=lambda node: node.inputs[0] if node.inputs[0].type == node.outputs[0].type else None,
         note="a cast to the dtype that it has",
         examples=(lambda: apply(cast_op, _leaf(), dtype=dtypes.DTYPES["float64"]),)),
    Rule("cast_cast", root=("cast",), over=("cast",), fn=_cast_cast, note="through a dtype that holds all values of the first, nothing happens",
         examples=(lambda: cast(cast(_leaf("float32"), dtypes.DTYPES["float64"]), dtypes.DTYPES["float32"]),
                   lambda: cast(cast(_leaf("int8"), dtypes.DTYPES["int64"]), dtypes.DTYPES["float32"]),
                   lambda: cast(cast(_leaf("bool"), dtypes.DTYPES["int8"]), dtypes.DTYPES["bool"]))),
    Rule("round_whole", root=("floor", "ceil", "trunc", "round"), over=("floor", "ceil", "trunc", "round", "cast"), fn=_round_round,
         note="a whole number is rounded already",
         examples=(lambda: floor(ceil(_leaf())), lambda: trunc(round_(_leaf())),
                   lambda: floor(cast(_leaf("int32"), dtypes.DTYPES["float64"])))),
    Rule("reduce_nothing", root=("sum", "prod", "max", "min", "all", "any", "logsumexp"), fn=_no_axes,
         note="along no axes: log(exp(x)) = x too; the sum of -0.0 is 0.0",
         examples=(lambda: apply(sum_op, _leaf(rank=1), axis=(), keepdims=False), lambda: apply(sum_op, _leaf("int8"), axis=(), keepdims=True))),
)

# ---- fast: finite values, any order, any zero ----------------------------------------------------


def _fast(name: str, lhs: Any, rhs: Any, note: str, kinds: str = "f", when: Any = None) -> Rule:
    return Rule(name, lhs, rhs, when, note=note, level="fast", kinds=kinds, bits=False)


FAST = (
    _fast("fast_add_zero", lambda x: add(x, 0.0), lambda x: x, "x + 0 = x, but -0.0 + 0.0 is 0.0"),
    _fast("fast_sub_zero", lambda x: sub(x, -0.0), lambda x: x, "x - (-0.0) = x, but of -0.0"),
    _fast("fast_zero_sub", lambda x: sub(0.0, x), lambda x: neg(x), "0 - x = -x, but of 0"),
    _fast("fast_neg_sub", lambda a, b: neg(sub(a, b)), lambda a, b: sub(b, a), "-(a - b) = b - a, but of equal ones"),
    _fast("fast_mul_zero", (lambda x: mul(x, 0.0), lambda x: mul(x, -0.0)), lambda x: 0.0, "x * 0 = 0, but of inf and nan"),
    _fast("fast_sub_self", lambda x: sub(x, x), lambda x: 0.0, "x - x = 0, but of inf and nan"),
    _fast("fast_div_self", lambda x: div(x, x), lambda x: 1.0, "x / x = 1, but of 0, inf and nan"),
    _fast("fast_exp_log", lambda x: exp(log(x)), lambda x: x, "exp(log(x)) = x, but of x < 0"),
    _fast("fast_expm1_log1p", lambda x: expm1(log1p(x)), lambda x: x, "expm1(log1p(x)) = x, but of x < -1"),
    _fast("fast_pow_half", lambda x: pow(x, 0.5), lambda x: sqrt(x), "x**0.5 = sqrt(x), but of -0.0 and -inf"),
    _fast("fast_add_add", lambda x, k, m: add(add(x, k), m), lambda x, k, m: add(x, add(k, m)), "(x + k) + m = x + (k + m)"),
    _fast("fast_sub_sub", lambda x, k, m: sub(sub(x, k), m), lambda x, k, m: sub(x, add(k, m)), "(x - k) - m = x - (k + m)"),
    _fast("fast_add_sub", lambda x, k, m: sub(add(x, k), m), lambda x, k, m: add(x, sub(k, m)), "(x + k) - m = x + (k - m)"),
    _fast("fast_sub_add", lambda x, k, m: add(sub(x, k), m), lambda x, k, m: add(x, sub(m, k)), "(x - k) + m = x + (m - k)"),
    _fast("fast_mul_mul", lambda x, k, m: mul(mul(x, k), m), lambda x, k, m: mul(x, mul(k, m)), "(xk)m = x(km)"),
    _fast("fast_div_mul", lambda a, b: mul(div(a, b), b), lambda a, b: a, "(a/b)b = a"),
    _fast("fast_mul_div", lambda a, b: div(mul(a, b), b), lambda a, b: a, "(ab)/b = a"),
    _fast("fast_add_take_back", lambda a, b: sub(add(a, b), b), lambda a, b: a, "(a + b) - b = a"),
    _fast("fast_sub_take_back", lambda a, b: add(sub(a, b), b), lambda a, b: a, "(a - b) + b = a"),
    _fast("fast_mul_reciprocal", lambda a, b: mul(a, reciprocal(b)), lambda a, b: div(a, b), "a(1/b) = a/b"),
    _fast("fast_div_constant", lambda x, k: div(x, k), lambda x, k: mul(x, _inverse(k)), "x/k = x(1/k)",
          when=lambda k: bool(np.isfinite(_inverse(k)) and float(scalar_array(k)) != 0) or "1/k is not finite"),
    _fast("fast_div_div", lambda a, b, y: div(div(a, b), y), lambda a, b, y: div(a, mul(b, y)), "(a/b)/y = a/(by)"),
    _fast("fast_factor", lambda a, b, y: add(mul(a, y), mul(b, y)), lambda a, b, y: mul(add(a, b), y), "ay + by = (a + b)y"),
    _fast("fast_exp_exp", lambda a, b: mul(exp(a), exp(b)), lambda a, b: exp(add(a, b)), "exp(a)exp(b) = exp(a + b)"),
    *(_opposite(p, q, "fast_", "fast") for p, q in OPPOSITES),
)


def _inverse(k: Var) -> float:
    value = float(scalar_array(k))
    return 1 / value if value else np.inf


RULES: tuple[Rule, ...] = (*FACTS, *SIGNS, *POWERS, *CHOICES, *INTEGERS, *CASTS, *FAST)
__all__ = ["RULES", "holds_all"]
