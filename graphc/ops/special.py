"""Special functions: the error function, the gamma function, x log y."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Op, Type, Var, apply
from graphc.ops import numerics
from graphc.ops.arithmetic import div, mul, neg, sqr, where
from graphc.ops.broadcasting import sum_to
from graphc.ops.comparison import equal
from graphc.ops.elementwise_base import Elementwise, half_in_single
from graphc.ops.transcendental import exp, log

SLOPE = 2 / math.sqrt(math.pi)  # erf'(0)


@half_in_single
def _xlogy(x: Array, y: Array) -> Array:
    return np.where((x == 0) & ~np.isnan(y), np.zeros((), x.dtype), x * np.log(y))


erf = Elementwise(
    "erf", numerics.in_double(numerics.erf), (lambda g, y, a: mul(g, mul(exp(neg(sqr(a))), SLOPE)),),
    accepts="f", floating=True, monotone=True, flops=20.0, doc="the error function")
erfc = Elementwise(
    "erfc", numerics.in_double(numerics.erfc), (lambda g, y, a: neg(mul(g, mul(exp(neg(sqr(a))), SLOPE))),),
    accepts="f", floating=True, flops=20.0, doc="1 - erf(a), right also where it is tiny")
erfinv = Elementwise(
    "erfinv", numerics.in_double(numerics.erfinv), (lambda g, y, a: mul(g, mul(exp(sqr(y)), 1 / SLOPE)),),
    accepts="f", floating=True, domain=(-0.95, 0.95), flops=60.0,
    doc="the inverse of erf; infinite at -1 and 1, nan beyond")
gammaln = Elementwise(
    "gammaln", numerics.in_double(numerics.lgamma), (lambda g, y, a: mul(g, digamma(a)),),
    accepts="f", floating=True, domain=(0.3, 5.0), flops=40.0,
    doc="log |gamma(a)|; inf at 0 and the negative integers")
digamma: Elementwise = Elementwise(
    "digamma", numerics.in_double(numerics.digamma), (lambda g, y, a: mul(g, polygamma(a, order=1)),),
    accepts="f", floating=True, domain=(0.3, 5.0), flops=60.0,
    doc="the derivative of gammaln; nan at the negative integers")
xlogy = Elementwise(
    "xlogy", _xlogy,
    (lambda g, y, a, b: mul(g, log(b)), lambda g, y, a, b: mul(g, div(a, where(equal(a, 0), 1, b)))),
    accepts="f", floating=True, domain=((-3.0, 3.0), (0.2, 3.0)), flops=12.0,
    doc="a * log(b), 0 where a is 0 and b not nan; the gradient of b is 0 there, that of a is log(b)")


class Polygamma(Elementwise):
    """``polygamma(x; order)``: the ``order``-th derivative of digamma."""

    def __init__(self) -> None:
        super().__init__(
            "polygamma", numerics.in_double(numerics.polygamma), (None,),
            accepts="f", floating=True, domain=(0.5, 5.0), flops=100.0, doc="the order-th derivative of digamma")

    def __call__(self, *operands: Any, order: int = 1) -> Var:
        return apply(self, *self.promoted(operands), order=order)

    def infer(self, *types: Type, order: int = 1, **attrs: Any) -> Type:
        if not isinstance(order, int) or isinstance(order, bool):
            raise GraphcTypeError(f"order is an int; got {order!r}")
        if order < 1:
            raise GraphcValueError(f"order is at least 1; got {order} (order 0 is digamma)")
        return super().infer(*types)

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        return sum_to(mul(cotangents[0], polygamma(inputs[0], order=attrs["order"] + 1)), inputs[0])

    def connected(self, position: int, node: Any) -> bool:
        return True


polygamma: Polygamma = Polygamma()
OPS: tuple[Op, ...] = (erf, erfc, erfinv, gammaln, digamma, polygamma, xlogy)
__all__ = ["OPS", "digamma", "erf", "erfc", "erfinv", "gammaln", "polygamma", "xlogy"]
