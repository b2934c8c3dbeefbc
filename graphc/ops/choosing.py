"""Ops that choose or round: maximum, clip, relu, floor, copysign.  Their derivatives are selected or zero."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.ir import Array, Op, Var, apply
from graphc.ops.arithmetic import flat, mul, sign, where
from graphc.ops.comparison import equal, greater, less, less_equal, logical_and
from graphc.ops.elementwise_base import Elementwise


def _relu(a: Array) -> Array:
    zero = np.zeros((), a.dtype)
    return np.asarray(np.add(np.maximum(a, zero), zero))  # -0.0 + 0.0 is 0.0


# np.maximum does not say which zero max(0.0, -0.0) is; graphc does not either
maximum = Elementwise(
    "maximum", np.maximum,
    (lambda g, y, a, b: where(greater(a, b), g, where(equal(a, b), mul(g, 0.5), 0)),
     lambda g, y, a, b: where(less(a, b), g, where(equal(a, b), mul(g, 0.5), 0))),
    accepts="biuf", commutative=True, associative=True, idempotent=True, identity=-np.inf, ufunc="np.maximum",
    doc="the larger one; nan if either is nan (gradient 0 there); equal operands share the gradient")
minimum = Elementwise(
    "minimum", np.minimum,
    (lambda g, y, a, b: where(less(a, b), g, where(equal(a, b), mul(g, 0.5), 0)),
     lambda g, y, a, b: where(greater(a, b), g, where(equal(a, b), mul(g, 0.5), 0))),
    accepts="biuf", commutative=True, associative=True, idempotent=True, identity=np.inf, ufunc="np.minimum",
    doc="the smaller one; nan if either is nan (gradient 0 there); equal operands share the gradient")
clip = Elementwise(
    "clip", lambda a, lo, hi: np.minimum(np.maximum(a, lo), hi),
    (lambda g, y, a, lo, hi: where(logical_and(less_equal(lo, a), less_equal(a, hi)), g, 0),
     lambda g, y, a, lo, hi: where(logical_and(less(a, lo), less_equal(lo, hi)), g, 0),
     lambda g, y, a, lo, hi: where(less(hi, maximum(a, lo)), g, 0)),
    accepts="iuf", counting=True, domain=((-3.0, 3.0), (-2.0, -1.0), (1.0, 2.0)), flops=2.0,
    doc="min(max(a, lo), hi), so hi where lo > hi; gradient 1 on [lo, hi], its ends included; otherwise it goes to the bound that holds")
relu = Elementwise(
    "relu", _relu, (lambda g, y, a: where(greater(y, 0), g, 0),),  # of y, which is in memory anyhow where others read it
    accepts="iuf", idempotent=True, monotone=True,
    doc="a where a > 0, else 0 (never -0.0); nan stays nan; relu'(0) = 0")
copysign: Elementwise = Elementwise(
    "copysign", np.copysign, (lambda g, y, a, b: mul(g, mul(sign(a), copysign(1.0, b))), flat),
    accepts="f", floating=True, ufunc="np.copysign",
    doc="|a| with the sign bit of b; in floats: integers and bool become float64; derivative 0 at a = 0")
nextafter = Elementwise(
    "nextafter", np.nextafter, (), nin=2, accepts="f", floating=True, ufunc="np.nextafter",
    doc="the float next to a in the direction of b; no derivative")


class Rounding(Elementwise):
    """A step function to whole numbers; integers and bool are whole and returned as they are."""

    def __init__(self, name: str, fn: Any, ufunc: str, doc: str, accepts: str = "f") -> None:
        super().__init__(name, fn, (flat,), accepts=accepts, idempotent=True, ufunc=ufunc, doc=doc, monotone=True)

    def __call__(self, *operands: Any) -> Var:
        (x,) = self.promoted(operands)
        return apply(self, x) if dtypes.is_inexact(x.type.dtype) else x


floor = Rounding("floor", np.floor, "np.floor", "the largest whole number <= a; gradient zero")
ceil = Rounding("ceil", np.ceil, "np.ceil", "the smallest whole number >= a; gradient zero")
trunc = Rounding("trunc", np.trunc, "np.trunc", "the nearest whole number towards zero; gradient zero")
round = Rounding("round", np.rint, "np.rint", "the nearest whole number, halves to even; complex: each part; gradient zero", accepts="fc")

OPS: tuple[Op, ...] = (maximum, minimum, clip, relu, copysign, nextafter, floor, ceil, trunc, round)
__all__ = ["OPS", "ceil", "clip", "copysign", "floor", "maximum", "minimum", "nextafter", "relu", "round", "trunc"]
