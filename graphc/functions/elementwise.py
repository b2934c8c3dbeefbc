"""Elementwise functions as users call them: arithmetic, choice, rounding, complex numbers, casts; and those of
``mathematics.py`` and ``logic.py``.

Operands are variables, arrays, lists or Python numbers; shapes broadcast as NumPy's;
dtypes that differ are promoted, Python numbers are weak.  Integers wrap around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.functions import logic, mathematics
from graphc.functions.logic import *  # noqa: F403
from graphc.functions.mathematics import *  # noqa: F403
from graphc.ir import Var
from graphc.ops import arithmetic as ops
from graphc.ops import choosing, core

# ---- arithmetic ------------------------------------------------------------------------------------


def add(x1: Any, x2: Any) -> Var:
    """x1 + x2; on bool the logical or.

    >>> import graphc as gc
    >>> gc.add([1, 2], 0.5).eval()
    array([1.5, 2.5])
    """
    return ops.add(x1, x2)


def subtract(x1: Any, x2: Any) -> Var:
    """x1 - x2; bool raises GraphcTypeError.

    >>> import graphc as gc
    >>> gc.subtract([1, 2], 0.5).eval()
    array([0.5, 1.5])
    """
    return ops.sub(x1, x2)


def multiply(x1: Any, x2: Any) -> Var:
    """x1 * x2; on bool the logical and.

    >>> import graphc as gc
    >>> gc.multiply([1, 2], 0.5).eval()
    array([0.5, 1. ])
    """
    return ops.mul(x1, x2)


def divide(x1: Any, x2: Any) -> Var:
    """x1 / x2, floating: integers and bool become float64; x / 0 is inf or nan.

    >>> import graphc as gc
    >>> gc.divide([1, 2], 4).eval()
    array([0.25, 0.5 ])
    """
    return ops.div(x1, x2)


def floor_divide(x1: Any, x2: Any) -> Var:
    """floor(x1 / x2) in the operands' dtype, real; for integers n // 0 is 0 and min // -1 wraps.  Gradient zero.

    >>> import graphc as gc
    >>> gc.floor_divide([7, -7, 1], [2, 2, 0]).eval()
    array([ 3, -4,  0])
    """
    return ops.floordiv(x1, x2)


def remainder(x1: Any, x2: Any) -> Var:
    """x1 - floor(x1 / x2) * x2, with the sign of x2, real; for integers n % 0 is 0.

    Derivatives 1 and -floor(x1 / x2).

    >>> import graphc as gc
    >>> gc.remainder([7, -7, 1], [2, 2, 0]).eval()
    array([1, 1, 0])
    """
    return ops.mod(x1, x2)


def negative(x: Any) -> Var:
    """-x; bool raises GraphcTypeError.

    >>> import graphc as gc
    >>> gc.negative([1, -2]).eval()
    array([-1,  2])
    """
    return ops.neg(x)


def positive(x: Any) -> Var:
    """+x; bool raises GraphcTypeError.

    >>> import graphc as gc
    >>> gc.positive([1, -2]).eval()
    array([ 1, -2])
    """
    return ops.pos(x)


def abs(x: Any) -> Var:
    """|x|, real for complex x; derivative 0 at 0.

    >>> import graphc as gc
    >>> gc.abs([-3.0, 4.0]).eval()
    array([3., 4.])
    """
    return ops.abs(x)


def sign(x: Any) -> Var:
    """-1, 0 or 1; x / |x| for complex x.  Derivative 0 for real x, also at 0.

    >>> import graphc as gc
    >>> gc.sign([-3.0, 0.0, 4.0]).eval()
    array([-1.,  0.,  1.])
    """
    return ops.sign(x)


def square(x: Any) -> Var:
    """x * x.

    >>> import graphc as gc
    >>> gc.square([2, 3]).eval()
    array([4, 9])
    """
    return ops.sqr(x)


def reciprocal(x: Any) -> Var:
    """1 / x, floating: integers and bool become float64.

    >>> import graphc as gc
    >>> gc.reciprocal([2, 4]).eval()
    array([0.5 , 0.25])
    """
    return ops.reciprocal(x)


# ---- choice ----------------------------------------------------------------------------------------


def maximum(x1: Any, x2: Any) -> Var:
    """The larger one, real; nan if either is nan.  Equal operands share the gradient.

    >>> import graphc as gc
    >>> gc.maximum([1, 5], 3).eval()
    array([3, 5])
    """
    return choosing.maximum(x1, x2)


def minimum(x1: Any, x2: Any) -> Var:
    """The smaller one, real; nan if either is nan.  Equal operands share the gradient.

    >>> import graphc as gc
    >>> gc.minimum([1, 5], 3).eval()
    array([1, 3])
    """
    return choosing.minimum(x1, x2)


def relu(x: Any) -> Var:
    """x where x > 0, else 0, real; nan stays nan.  Derivative 0 at 0.

    >>> import graphc as gc
    >>> gc.relu([-1.0, 2.0]).eval()
    array([0., 2.])
    """
    return choosing.relu(x)


def clip(x: Any, min: Any = None, max: Any = None) -> Var:
    """min(max(x, ``min``), ``max``), real; None leaves a side open; ``max`` where ``min > max``; nan stays nan.

    Derivative 1 where x lies within the bounds, its ends included, else 0 (1 for the bound that holds).

    >>> import graphc as gc
    >>> gc.clip([1, 5, 9], 3, 7).eval()
    array([3, 5, 7])
    """
    if min is None and max is None:
        return core.as_var(x)
    operands = [v for v in (x, min, max) if v is not None]
    dtype = core.promote(*operands)[0].type.dtype
    low, high = _bounds(dtype)
    return choosing.clip(*core.promote(x, low if min is None else min, high if max is None else max))


def _bounds(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Values that bound nothing."""
    if dtypes.is_integer(dtype):
        return np.asarray(np.iinfo(dtype).min, dtype), np.asarray(np.iinfo(dtype).max, dtype)
    return (False, True) if dtypes.is_bool(dtype) else (-np.inf, np.inf)


def where(condition: Any, x1: Any, x2: Any) -> Var:
    """x1 where the condition holds, else x2.  A condition that is not bool is true where not zero.

    The derivative goes to the chosen operand; nan and inf of the other one never enter it.

    >>> import graphc as gc
    >>> gc.where([True, False], [1, 2], 0.5).eval()
    array([1. , 0.5])
    """
    return ops.where(condition, x1, x2)


def switch(condition: Any, x1: Any, x2: Any) -> Var:
    """Theano's name of ``where``."""
    return where(condition, x1, x2)


def copysign(x1: Any, x2: Any) -> Var:
    """|x1| with the sign of x2, floating, real.  Derivative 0 at x1 = 0.

    >>> import graphc as gc
    >>> gc.copysign([1.0, 2.0], [-1.0, -0.0]).eval()
    array([-1., -2.])
    """
    return choosing.copysign(x1, x2)


def nextafter(x1: Any, x2: Any) -> Var:
    """The float next to x1 in the direction of x2, floating, real.  It has no derivative.

    >>> import graphc as gc
    >>> gc.nextafter(1.0, 2.0).eval()
    array(1.)
    """
    return choosing.nextafter(x1, x2)


# ---- rounding: integers and bool are returned as they are; gradients are zero ----------------------


def floor(x: Any) -> Var:
    """The largest whole number not above x, real.

    >>> import graphc as gc
    >>> gc.floor([1.5, -1.5]).eval()
    array([ 1., -2.])
    """
    return choosing.floor(x)


def ceil(x: Any) -> Var:
    """The smallest whole number not below x, real.

    >>> import graphc as gc
    >>> gc.ceil([1.5, -1.5]).eval()
    array([ 2., -1.])
    """
    return choosing.ceil(x)


def trunc(x: Any) -> Var:
    """The nearest whole number towards zero, real.

    >>> import graphc as gc
    >>> gc.trunc([1.5, -1.5]).eval()
    array([ 1., -1.])
    """
    return choosing.trunc(x)


def round(x: Any, decimals: int = 0) -> Var:
    """The nearest number with so many decimals, halves to even; complex: each part.

    >>> import graphc as gc
    >>> gc.round([0.5, 1.5, -2.7]).eval()
    array([ 0.,  2., -3.])
    """
    if decimals == 0:
        return choosing.round(x)
    v = core.as_var(x)
    if not dtypes.is_inexact(v.type.dtype):
        if decimals > 0:
            return v
        raise GraphcTypeError(f"round: decimals={decimals} of {v.type.dtype} values; cast them to a float dtype first")
    scale = 10.0 ** decimals
    return ops.div(choosing.round(ops.mul(v, scale)), scale)


# ---- complex numbers -------------------------------------------------------------------------------


def conj(x: Any) -> Var:
    """The complex conjugate; a real operand is returned as it is.

    >>> import graphc as gc
    >>> gc.conj([1 + 2j]).eval()
    array([1.-2.j])
    """
    return ops.conj(x)


def real(x: Any) -> Var:
    """The real part; a real operand is returned as it is.

    >>> import graphc as gc
    >>> gc.real([1 + 2j]).eval()
    array([1.])
    """
    return ops.real(x)


def imag(x: Any) -> Var:
    """The imaginary part; zeros for a real operand.

    >>> import graphc as gc
    >>> gc.imag([1 + 2j]).eval()
    array([2.])
    """
    return ops.imag(x)


def angle(x: Any) -> Var:
    """The argument of a complex number, in [-pi, pi].

    >>> import graphc as gc
    >>> gc.angle([1j]).eval()
    array([1.57079633])
    """
    v = core.as_var(x)
    return mathematics.atan2(imag(v), real(v))


# ---- dtypes ----------------------------------------------------------------------------------------


def cast(x: Any, dtype: Any) -> Var:
    """``x`` in another dtype: floats to integers cut towards zero, complex to real drops the imaginary part.

    The derivative passes between floating dtypes and stops at integers and bool.

    >>> import graphc as gc
    >>> gc.cast([1.7, -1.7], "int64").eval()
    array([ 1, -1])
    """
    return core.cast(core.as_var(x), dtypes.as_dtype(dtype))


def astype(x: Any, dtype: Any, *, copy: bool = True, device: Any = None) -> Var:
    """The Array API's name of ``cast``; values are immutable, so ``copy`` changes nothing.

    Raises:
        GraphcTypeError: ``device`` is not None or "cpu".
    """
    if device not in (None, "cpu"):
        raise GraphcTypeError(f"astype: device {device!r}; graphc computes on 'cpu'")
    return cast(x, dtype)


sub = subtract
mul = multiply
true_divide = divide
true_div = divide
int_div = floor_divide
floor_div = floor_divide
mod = remainder
neg = negative
absolute = abs
sgn = sign
sqr = square


__all__ = [
    "abs", "absolute", "add", "angle", "astype", "cast", "ceil", "clip", "conj", "copysign", "divide", "floor", "floor_div",
    "floor_divide", "imag", "int_div", "maximum", "minimum", "mod", "mul", "multiply", "neg", "negative", "nextafter",
    "positive", "real", "reciprocal", "relu", "remainder", "round", "sgn", "sign", "sqr", "square", "sub", "subtract", "switch",
    "true_div", "true_divide", "trunc", "where",
]
__all__ += logic.__all__
__all__ += mathematics.__all__
