"""Rules of stability: expressions that lose digits or overflow become named ops that do not.

Each holds at every level and in every mode.  Their left sides are what users write, and
the canonical forms of that; operands are rewritten before, so that ``log(1 - sigmoid(x))``
needs no rule of its own: ``1 - sigmoid(x)`` is ``sigmoid(-x)`` by then.  For each rule
the right side is nearer to the true value than the left, or as near up to 4 units in the
last place; the notes name where the left side fails.
"""

from __future__ import annotations

from typing import Any

from graphc.ir import Var
from graphc.ops.arithmetic import abs as abs_
from graphc.ops.arithmetic import add, div, mul, neg, reciprocal, sqr, sub
from graphc.ops.special import erf, erfc
from graphc.ops.transcendental import exp, expm1, log, log1mexp, log1p, logaddexp, sigmoid, softplus, sqrt
from graphc.passes.pattern import Axes, Rule, scalar_array


def _stable(name: str, lhs: Any, rhs: Any, note: str, when: Any = None, scale: str = "result", holds: Any = None) -> Rule:
    return Rule(name, lhs, rhs, when, note=note, phase="stable", kinds="f", bits=False, scale=scale, holds=holds)


def _same_axes(axes: Axes) -> bool | str:
    return axes.broadcasts_back or "the reduced value does not meet its operand axis by axis"


def _positive(k: Var) -> bool | str:
    value = float(scalar_array(k))
    return 0 < value < float("inf") or "the constant is not positive and finite"


LOGARITHMS = (
    _stable("log_softmax", lambda x, axes: log(axes.softmax(x)), lambda x, axes: axes.log_softmax(x),
            "softmax underflows to 0, its logarithm does not", scale="operands"),
    _stable("logsumexp", lambda x, axes: log(axes.sum(exp(x))), lambda x, axes: axes.logsumexp(x),
            "exp overflows beyond 709 (float32: 88) and underflows below -745 (-103)", scale="operands"),
    _stable("logsumexp_div", lambda x, axes, k: log(div(axes.sum(exp(x)), k)), lambda x, axes, k: sub(axes.logsumexp(x), log(k)),
            "log(sum(exp(x)) / k), the logarithm of a mean", _positive, scale="operands"),
    _stable("logsumexp_mul", lambda x, axes, k: log(mul(axes.sum(exp(x)), k)), lambda x, axes, k: add(axes.logsumexp(x), log(k)),
            "log(k sum(exp(x)))", _positive, scale="operands"),
    _stable("logaddexp", lambda a, b: log(add(exp(a), exp(b))), lambda a, b: logaddexp(a, b), "as logsumexp, of two", scale="operands"),
    _stable("log_sigmoid", lambda x: log(sigmoid(x)), lambda x: neg(softplus(neg(x))), "sigmoid underflows to 0, its logarithm is x then"),
    _stable("softplus", (lambda x: log(add(1, exp(x))), lambda x: log1p(exp(x))), lambda x: softplus(x),
            "exp overflows; log(1 + exp(x)) loses exp(x) where it is small"),
    _stable("log1mexp", (lambda x: log(sub(1, exp(x))), lambda x: log1p(neg(exp(x))), lambda x: log(neg(expm1(x)))), lambda x: log1mexp(x),
            "one form is right near 0, the other far from it"),
    _stable("log_exp", lambda x: log(exp(x)), lambda x: x, "exp overflows and underflows"),
    _stable("log1p_expm1", lambda x: log1p(expm1(x)), lambda x: x, "expm1 overflows, and rounds to -1"),
    _stable("log1p", lambda x: log(add(1, x)), lambda x: log1p(x), "1 + x loses the digits of a small x"),
    _stable("log1p_neg", lambda x: log(sub(1, x)), lambda x: log1p(neg(x)), "1 - x loses the digits of a small x"),
)

DIFFERENCES = (
    _stable("one_minus_sigmoid", lambda x: sub(1, sigmoid(x)), lambda x: sigmoid(neg(x)), "1 - y loses all digits where y is near 1"),
    _stable("one_minus_erf", lambda x: sub(1, erf(x)), lambda x: erfc(x), "1 - y loses all digits where y is near 1"),
    _stable("one_minus_erfc", lambda x: sub(1, erfc(x)), lambda x: erf(x), "1 - y loses all digits where y is near 1"),
    _stable("one_plus_erf", lambda x: add(1, erf(x)), lambda x: erfc(neg(x)), "1 + y loses all digits where y is near -1"),
    _stable("expm1", (lambda x: sub(exp(x), 1), lambda x: add(exp(x), -1)), lambda x: expm1(x), "exp(x) loses the digits of a small x"),
    _stable("one_minus_exp", lambda x: sub(1, exp(x)), lambda x: neg(expm1(x)), "exp(x) loses the digits of a small x"),
    _stable("log_softmax_sub", (lambda x, axes: sub(x, axes.logsumexp(x)), lambda x, axes: sub(x, axes.restored(axes.logsumexp(x)))),
            lambda x, axes: axes.log_softmax(x), "x - y where y is nearly x: one shift for both", _same_axes, "operands"),
)

QUOTIENTS = (
    _stable("softmax", (lambda x, axes: div(exp(x), axes.sum(exp(x))), lambda x, axes: div(exp(x), axes.restored(axes.sum(exp(x))))),
            lambda x, axes: axes.softmax(x), "inf / inf, 0 / 0", _same_axes),
    _stable("exp_log_softmax", lambda x, axes: exp(axes.log_softmax(x)), lambda x, axes: axes.softmax(x), "one op less"),
    _stable("sigmoid", (lambda x: reciprocal(add(1, exp(neg(x)))), lambda x: div(1, add(1, exp(neg(x)))), lambda x: div(exp(x), add(1, exp(x)))),
            lambda x: sigmoid(x), "exp overflows; inf / inf"),
    _stable("sigmoid_neg", (lambda x: reciprocal(add(1, exp(x))), lambda x: div(1, add(1, exp(x)))), lambda x: sigmoid(neg(x)),
            "exp overflows before the quotient underflows"),
    _stable("mul_sigmoid", lambda x, y: div(y, add(1, exp(neg(x)))), lambda x, y: mul(y, sigmoid(x)), "exp overflows before the quotient underflows"),
    _stable("mul_sigmoid_neg", lambda x, y: div(y, add(1, exp(x))), lambda x, y: mul(y, sigmoid(neg(x))),
            "exp overflows before the quotient underflows"),
    _stable("div_exp", lambda x, y: div(x, exp(y)), lambda x, y: mul(x, exp(neg(y))), "exp(y)**2 in the derivative overflows; between -745 and -700 exp(y) is subnormal, and exp(-y) infinite",
            holds=lambda x, y: not -745 < y < -700 and not -104 < y < -87),
    _stable("one_div_exp", lambda y: reciprocal(exp(y)), lambda y: exp(neg(y)), "exp(y)**2 in the derivative overflows"),
    _stable("sqrt_sqr", (lambda x: sqrt(sqr(x)), lambda x: sqrt(mul(x, x))), lambda x: abs_(x),
            "x*x overflows and underflows; the derivative at 0 is 0, not nan"),
)

RULES: tuple[Rule, ...] = (*LOGARITHMS, *DIFFERENCES, *QUOTIENTS)
__all__ = ["RULES"]
