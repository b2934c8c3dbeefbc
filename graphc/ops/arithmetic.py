"""Arithmetic and choice: the elementwise ops that the other files build their gradients from.

How to read a record: name, NumPy meaning, one gradient per operand in terms of
the cotangent ``g``, the result ``y`` and the operands; then facts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Op, Type, Var, apply
from graphc.ops.broadcasting import broadcast_shapes, broadcast_to
from graphc.ops.comparison import equal
from graphc.ops.core import as_var, cast, constant, promote, shape_of
from graphc.ops.elementwise_base import Elementwise


def conj_or_same(x: Var) -> Var:
    """The conjugate; a real value is its own."""
    return conj(x) if dtypes.is_complex(x.type.dtype) else x


def scaled(g: Var, derivative: Any) -> Var:
    """``g * conj(derivative)``: how a cotangent passes a function that is differentiable in the complex sense."""
    return mul(g, conj_or_same(derivative))


def zeros_like(v: Var) -> Var:
    """Zeros in the shape and dtype of ``v``, whose values are not read (0 * nan is no zero)."""
    return broadcast_to(constant(0, v.type.dtype), shape_of(v))


def flat(g: Var, y: Var, *operands: Var) -> Var:
    """The gradient of a function made of steps: zero."""
    return zeros_like(g)


class OnComplex(Elementwise):
    """An op on complex operands only; ``real_case`` says what it makes of a real one."""

    def __init__(self, name: str, fn: Callable[..., Any], grads: Any, real_case: Callable[[Var], Var], **rest: Any) -> None:
        super().__init__(name, fn, grads, accepts="c", **rest)
        self.real_case = real_case

    def __call__(self, *operands: Any) -> Var:
        (x,) = self.promoted(operands)
        return apply(self, x) if dtypes.is_complex(x.type.dtype) else self.real_case(x)


# ---- the four operations ---------------------------------------------------------------------

# numpy's bool + bool is bool "or"; bool - bool is an error there and here
add = Elementwise(
    "add", np.add, (lambda g, y, a, b: g, lambda g, y, a, b: g),
    commutative=True, associative=True, identity=-0.0, identity_int=0, linear=True, analytic=True, ufunc="np.add",
    doc="a + b; on bool the logical or; integers wrap")
sub = Elementwise(
    "sub", np.subtract, (lambda g, y, a, b: g, lambda g, y, a, b: neg(g)),
    accepts="iufc", identity=0.0, identity_int=0, linear=True, analytic=True, ufunc="np.subtract",
    doc="a - b; integers wrap; bool is refused")
mul = Elementwise(
    "mul", np.multiply, (lambda g, y, a, b: scaled(g, b), lambda g, y, a, b: scaled(g, a)),
    commutative=True, associative=True, identity=1.0, identity_int=1, annihilator_int=0, analytic=True, ufunc="np.multiply",
    doc="a * b; on bool the logical and; integers wrap")
neg: Elementwise = Elementwise(
    "neg", np.negative, (lambda g, y, a: neg(g),),
    accepts="iufc", linear=True, involution=True, analytic=True, ufunc="np.negative",
    doc="-a; integers wrap, also unsigned ones; bool is refused")
div: Elementwise = Elementwise(
    "div", np.true_divide,
    (lambda g, y, a, b: div(g, conj_or_same(b)),
     lambda g, y, a, b: neg(div(scaled(g, y), conj_or_same(b)))),
    accepts="fc", floating=True, identity=1.0, domain=((-3.0, 3.0), (0.5, 3.0)), analytic=True, ufunc="np.true_divide", flops=4.0,
    doc="a / b in floats: integers and bool become float64; x/0 is inf or nan")

# ---- division with a whole quotient -----------------------------------------------------------

floordiv = Elementwise(
    "floordiv", np.floor_divide, (flat, flat),
    accepts="iuf", counting=True, identity_int=1, domain=((-3.0, 3.0), (0.5, 3.0)), ufunc="np.floor_divide", flops=4.0,
    doc="floor(a / b); integers: n // 0 is 0 and min // -1 wraps to min; gradient zero")
mod = Elementwise(
    "mod", np.remainder, (lambda g, y, a, b: g, lambda g, y, a, b: neg(mul(g, floordiv(a, b)))),
    accepts="iuf", counting=True, domain=((-3.0, 3.0), (0.5, 3.0)), ufunc="np.remainder", flops=4.0,
    doc="a - floor(a / b) * b: the sign of b, as Python's %; integers: n % 0 is 0")

# ---- one operand ------------------------------------------------------------------------------

pos = Elementwise(
    "pos", np.positive, (lambda g, y, a: g,),
    accepts="iufc", linear=True, involution=True, idempotent=True, monotone=True, analytic=True, ufunc="np.positive", flops=0.0,
    doc="+a; bool is refused")
sqr = Elementwise(
    "sqr", np.square, (lambda g, y, a: scaled(g, mul(a, 2)),),
    accepts="iufc", counting=True, analytic=True, ufunc="np.square",
    doc="a * a")
reciprocal = Elementwise(
    "reciprocal", np.reciprocal, (lambda g, y, a: neg(scaled(g, sqr(y))),),
    accepts="fc", floating=True, domain=(0.5, 3.0), analytic=True, ufunc="np.reciprocal", flops=4.0,
    doc="1 / a in floats: integers and bool become float64")
abs = Elementwise(
    "abs", np.abs, (lambda g, y, a: mul(cast(g, a.type.dtype), sign(a)),),
    result="real", idempotent=True, ufunc="np.abs",
    doc="|a|, a real number for complex a; the most negative integer wraps to itself; abs'(0) = 0")


def _sign_grad(g: Var, y: Var, a: Var) -> Var:
    """Zero for reals.  A complex sign turns with its operand: the part of g across y, divided by |a|; 0 at 0."""
    if not dtypes.is_complex(a.type.dtype):
        return zeros_like(g)
    along = mul(y, cast(real(scaled(g, y)), g.type.dtype))
    radius = abs(a)
    return where(equal(radius, 0), 0, div(sub(g, along), radius))


sign: Elementwise = Elementwise(
    "sign", np.sign, (_sign_grad,),
    accepts="iufc", idempotent=True, monotone=True, ufunc="np.sign",
    doc="-1, 0 or 1; a / |a| for complex a, 0 at 0; sign'(0) = 0; bool is refused")

# ---- complex numbers --------------------------------------------------------------------------

conj: OnComplex = OnComplex(
    "conj", np.conjugate, (lambda g, y, a: conj(g),), lambda x: x,
    involution=True, linear=True, ufunc="np.conjugate", flops=0.5,
    doc="the complex conjugate; a real operand is returned as it is")
real = OnComplex(
    "real", lambda a: a.real.copy(), (lambda g, y, a: cast(g, a.type.dtype),), lambda x: x,
    result="real", linear=True, flops=0.0,
    doc="the real part; a real operand is returned as it is")
imag = OnComplex(
    "imag", lambda a: a.imag.copy(), (lambda g, y, a: mul(cast(g, a.type.dtype), 1j),), zeros_like,
    result="real", linear=True, flops=0.0,
    doc="the imaginary part; zeros for a real operand")

# ---- choice -----------------------------------------------------------------------------------


class Where(Elementwise):
    """``where(condition, a, b)``: the condition is bool, a and b share a dtype.  Gradients are selected, never multiplied."""

    def __init__(self) -> None:
        super().__init__(
            "where", np.where,
            (None,
             lambda g, y, c, a, b: where(c, g, 0),
             lambda g, y, c, a, b: where(c, 0, g)), analytic=True, ufunc="np.where",
            doc="a where the condition holds, else b; the gradient goes to the chosen one only")

    def __call__(self, *operands: Any) -> Var:
        if len(operands) != 3:
            raise GraphcTypeError(f"where takes a condition and two values; got {len(operands)} operand(s)")
        condition, *branches = operands
        c = as_var(condition)
        if c.type.dtype.kind != "b":
            c = cast(c, dtypes.DTYPES["bool"])
        return apply(self, c, *promote(*branches))

    def infer(self, *types: Type, **attrs: Any) -> Type:
        if len(types) != 3:
            raise GraphcTypeError(f"takes a condition and two values; got {len(types)} operands")
        if types[0].dtype.kind != "b":
            raise GraphcTypeError(f"the condition is bool; got {types[0].dtype}")
        return Type(self.operand_dtype(types[1:]), broadcast_shapes(*(t.shape for t in types)))


where = Where()
OPS: tuple[Op, ...] = (
    add, sub, mul, neg, div, floordiv, mod, pos, sqr, reciprocal, abs, sign, conj, real, imag, where)
__all__ = [
    "OPS", "OnComplex", "abs", "add", "conj", "conj_or_same", "div", "flat", "floordiv", "imag", "mod", "mul",
    "neg", "pos", "real", "reciprocal", "scaled", "sign", "sqr", "sub", "where", "zeros_like",
]
