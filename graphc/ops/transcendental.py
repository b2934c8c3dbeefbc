"""Powers, exponentials, logarithms, trigonometric and hyperbolic functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcValueError
from graphc.ir import Array, Op, Var, apply
from graphc.ops.arithmetic import add, conj_or_same, div, mul, neg, scaled, sqr, sub, where, zeros_like
from graphc.ops.comparison import equal, isinf, logical_and
from graphc.ops.core import constant_value
from graphc.ops.elementwise_base import Elementwise, half_in_single

LN2, LN10 = math.log(2.0), math.log(10.0)

# ---- powers -----------------------------------------------------------------------------------


def _power_base_grad(g: Var, y: Var, a: Var, b: Var) -> Var:
    """g * b * a**(b-1), and 0 where b is 0, also at a = 0 where a**-1 is infinite."""
    value = constant_value(b)
    if value is not None and value.size == 1 and value.ndim == 0:
        exponent = value.item()
        if exponent == 0:
            return zeros_like(g)
        if exponent == 1:
            return g
        if exponent == 2:
            return scaled(g, mul(a, 2))
    slope = mul(b, pow(a, sub(b, 1)))
    if value is None or bool((value == 0).any()):
        slope = where(equal(b, 0), 0, slope)
    return scaled(g, slope)


def _power_exponent_grad(g: Var, y: Var, a: Var, b: Var) -> Var:
    """g * y * log(a), and 0 where a is 0."""
    return scaled(g, mul(y, log(where(equal(a, 0), 1, a))))


def _int_power(a: Array, b: Array) -> Array:
    """Powers of integers, wrapping.  A negative exponent gives the reciprocal cut to a whole number: 0, 1 or -1."""
    if a.dtype.kind == "u":
        return np.asarray(np.power(a, b))
    odd = np.bitwise_and(b, np.ones((), b.dtype)).astype(bool)
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0)).astype(a.dtype)
    return np.where(b < 0, inverse, np.power(a, np.maximum(b, np.zeros((), b.dtype))))


class Power(Elementwise):
    """Of floats; the builder gives powers of integers to ``ipow``."""

    def __call__(self, *operands: Any) -> Var:
        a, b = self.promoted(operands)
        if dtypes.is_inexact(a.type.dtype):
            return apply(self, a, b)
        exponent = constant_value(b)
        if exponent is not None and bool((exponent < 0).any()):
            raise GraphcValueError("pow: an integer to a constant negative power is no integer; write the exponent as a float")
        return apply(ipow, a, b)


pow = Power(
    "pow", np.power, (_power_base_grad, _power_exponent_grad),
    accepts="fc", counting=True, identity=1.0, domain=((0.2, 3.0), (-3.0, 3.0)), analytic=True, ufunc="np.power", flops=30.0,
    doc="a ** b; nan where a is negative and b no whole number; the gradient of b is 0 where a is 0")
ipow = Elementwise(
    "ipow", _int_power, (None, None), accepts="iu", counting=True, identity_int=1, domain=((-3.0, 4.0), (0.0, 4.0)), flops=8.0,
    doc="a ** b of integers, wrapping; for b < 0 the reciprocal cut to a whole number (0 for a = 0)")
sqrt = Elementwise(
    "sqrt", np.sqrt, (lambda g, y, a: div(mul(g, 0.5), conj_or_same(y)),),
    accepts="fc", floating=True, domain=(0.2, 3.0), analytic=True, ufunc="np.sqrt", flops=4.0,
    doc="the square root; nan for negative reals")
hypot = Elementwise(
    "hypot", np.hypot, (lambda g, y, a, b: mul(g, div(a, _not_zero(y))), lambda g, y, a, b: mul(g, div(b, _not_zero(y)))),
    accepts="f", floating=True, commutative=True, ufunc="np.hypot", flops=10.0,
    doc="sqrt(a*a + b*b) without overflow; gradient 0 at (0, 0)")


def _not_zero(x: Var) -> Var:
    return where(equal(x, 0), 1, x)


# ---- exponentials and logarithms --------------------------------------------------------------


@half_in_single
def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a.real) if a.dtype.kind != "c" else np.where(a.real < 0, a, -a))
    return np.asarray(np.where(a.real < 0, e, np.ones((), a.dtype)) / (1 + e))


@half_in_single
def _softplus(a: Array) -> Array:
    return np.maximum(a, np.zeros((), a.dtype)) + np.log1p(np.exp(-np.abs(a)))


@half_in_single
def _log1mexp(a: Array) -> Array:
    return np.where(a > -LN2, np.log(-np.expm1(a)), np.log1p(-np.exp(a)))


exp = Elementwise(
    "exp", np.exp, (lambda g, y, a: scaled(g, y),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.exp", flops=10.0, doc="e ** a")
exp2 = Elementwise(
    "exp2", np.exp2, (lambda g, y, a: scaled(g, mul(y, LN2)),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.exp2", flops=10.0, doc="2 ** a")
expm1 = Elementwise(
    "expm1", np.expm1, (lambda g, y, a: scaled(g, exp(a)),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.expm1", flops=12.0, doc="exp(a) - 1, right near 0")
log = Elementwise(
    "log", np.log, (lambda g, y, a: div(g, conj_or_same(a)),),
    accepts="fc", floating=True, domain=(0.2, 3.0), analytic=True, ufunc="np.log", flops=10.0,
    doc="the natural logarithm; -inf at 0, nan for negative reals")
log2 = Elementwise(
    "log2", np.log2, (lambda g, y, a: div(g, mul(conj_or_same(a), LN2)),),
    accepts="fc", floating=True, domain=(0.2, 3.0), analytic=True, ufunc="np.log2", flops=10.0, doc="the logarithm to base 2")
log10 = Elementwise(
    "log10", np.log10, (lambda g, y, a: div(g, mul(conj_or_same(a), LN10)),),
    accepts="fc", floating=True, domain=(0.2, 3.0), analytic=True, ufunc="np.log10", flops=10.0, doc="the logarithm to base 10")
log1p = Elementwise(
    "log1p", np.log1p, (lambda g, y, a: div(g, conj_or_same(add(a, 1))),),
    accepts="fc", floating=True, domain=(-0.7, 3.0), analytic=True, ufunc="np.log1p", flops=12.0, doc="log(1 + a), right near 0")
logaddexp = Elementwise(
    "logaddexp", np.logaddexp,
    (lambda g, y, a, b: mul(g, _share(a, b)), lambda g, y, a, b: mul(g, _share(b, a))),
    accepts="f", floating=True, commutative=True, ufunc="np.logaddexp", flops=24.0,
    doc="log(exp(a) + exp(b)) without overflow")
log1mexp = Elementwise(
    "log1mexp", _log1mexp, (lambda g, y, a: neg(div(g, expm1(neg(a)))),),
    accepts="f", floating=True, domain=(-3.0, -0.1), flops=24.0,
    doc="log(1 - exp(a)) for a < 0, right near 0 and far from it; -inf at 0, nan above")
sigmoid = Elementwise(
    "sigmoid", _sigmoid, (lambda g, y, a: scaled(g, mul(y, sub(1, y))),),
    accepts="fc", floating=True, analytic=True, monotone=True, flops=16.0, doc="1 / (1 + exp(-a)) without overflow")
softplus = Elementwise(
    "softplus", _softplus, (lambda g, y, a: mul(g, sigmoid(a)),),
    accepts="f", floating=True, monotone=True, flops=24.0, doc="log(1 + exp(a)) without overflow")


def _share(a: Var, b: Var) -> Var:
    """exp(a) / (exp(a) + exp(b)), one half also where both are the same infinity."""
    return sigmoid(where(logical_and(equal(a, b), isinf(a)), 0, sub(a, b)))  # at other ties the slope is needed too


# ---- trigonometric and hyperbolic functions ----------------------------------------------------

sin = Elementwise(
    "sin", np.sin, (lambda g, y, a: scaled(g, cos(a)),),
    accepts="fc", floating=True, analytic=True, ufunc="np.sin", flops=12.0, doc="the sine; nan at infinity")
cos: Elementwise = Elementwise(
    "cos", np.cos, (lambda g, y, a: neg(scaled(g, sin(a))),),
    accepts="fc", floating=True, analytic=True, ufunc="np.cos", flops=12.0, doc="the cosine; nan at infinity")
tan = Elementwise(
    "tan", np.tan, (lambda g, y, a: scaled(g, add(1, sqr(y))),),
    accepts="fc", floating=True, domain=(-1.2, 1.2), analytic=True, ufunc="np.tan", flops=16.0, doc="the tangent; nan at infinity")
asin = Elementwise(
    "asin", np.arcsin, (lambda g, y, a: div(g, conj_or_same(_across(a))),),
    accepts="fc", floating=True, domain=(-0.9, 0.9), analytic=True, ufunc="np.arcsin", flops=16.0,
    doc="the inverse sine, in [-pi/2, pi/2]; nan for reals outside [-1, 1]")
acos = Elementwise(
    "acos", np.arccos, (lambda g, y, a: neg(div(g, conj_or_same(_across(a)))),),
    accepts="fc", floating=True, domain=(-0.9, 0.9), analytic=True, ufunc="np.arccos", flops=16.0,
    doc="the inverse cosine, in [0, pi]; nan for reals outside [-1, 1]")
atan = Elementwise(
    "atan", np.arctan, (lambda g, y, a: div(g, conj_or_same(add(1, sqr(a)))),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.arctan", flops=16.0, doc="the inverse tangent, in [-pi/2, pi/2]")
atan2 = Elementwise(
    "atan2", np.arctan2,
    (lambda g, y, a, b: mul(g, _turn(b, a)), lambda g, y, a, b: neg(mul(g, _turn(a, b)))),
    accepts="f", floating=True, domain=((0.2, 3.0), (-3.0, 3.0)), ufunc="np.arctan2", flops=20.0,
    doc="the angle of the point (b, a), in [-pi, pi]; gradient 0 at (0, 0)")
sinh = Elementwise(
    "sinh", np.sinh, (lambda g, y, a: scaled(g, cosh(a)),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.sinh", flops=16.0, doc="the hyperbolic sine")
cosh: Elementwise = Elementwise(
    "cosh", np.cosh, (lambda g, y, a: scaled(g, sinh(a)),),
    accepts="fc", floating=True, analytic=True, ufunc="np.cosh", flops=16.0, doc="the hyperbolic cosine")
tanh = Elementwise(
    "tanh", np.tanh, (lambda g, y, a: scaled(g, sub(1, sqr(y))),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.tanh", flops=12.0, doc="the hyperbolic tangent")
asinh = Elementwise(
    "asinh", np.arcsinh, (lambda g, y, a: div(g, conj_or_same(_asinh_slope(a))),),
    accepts="fc", floating=True, analytic=True, monotone=True, ufunc="np.arcsinh", flops=16.0, doc="the inverse hyperbolic sine")
acosh = Elementwise(
    "acosh", np.arccosh, (lambda g, y, a: div(g, conj_or_same(mul(sqrt(sub(a, 1)), sqrt(add(a, 1))))),),
    accepts="fc", floating=True, domain=(1.2, 3.0), analytic=True, ufunc="np.arccosh", flops=16.0,
    doc="the inverse hyperbolic cosine; nan for reals below 1")
atanh = Elementwise(
    "atanh", np.arctanh, (lambda g, y, a: div(g, conj_or_same(mul(sub(1, a), add(1, a)))),),
    accepts="fc", floating=True, domain=(-0.9, 0.9), analytic=True, ufunc="np.arctanh", flops=16.0,
    doc="the inverse hyperbolic tangent; infinite at -1 and 1, nan for reals beyond")


def _across(a: Var) -> Var:
    """sqrt(1 - a*a), without cancellation near 1."""
    return sqrt(mul(sub(1, a), add(1, a)))


def _asinh_slope(a: Var) -> Var:
    """sqrt(1 + a*a); real ones without overflow."""
    return sqrt(add(1, sqr(a))) if dtypes.is_complex(a.type.dtype) else hypot(1, a)


def _turn(a: Var, b: Var) -> Var:
    """a / (a*a + b*b) without overflow or underflow, 0 at (0, 0)."""
    radius = _not_zero(hypot(a, b))
    return div(div(a, radius), radius)


OPS: tuple[Op, ...] = (
    pow, ipow, sqrt, hypot, exp, exp2, expm1, log, log2, log10, log1p, logaddexp, log1mexp, sigmoid, softplus,
    sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, tanh, asinh, acosh, atanh)
__all__ = [
    "OPS", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "exp", "exp2", "expm1", "hypot", "ipow", "log",
    "log1mexp", "log1p", "log2", "log10", "logaddexp", "pow", "sigmoid", "sin", "sinh", "softplus", "sqrt", "tan", "tanh",
]
