"""Comparison, logic and bits as users call them.

Operands are variables, arrays, lists or Python numbers; shapes broadcast as NumPy's;
dtypes that differ are promoted.  No derivative flows through these functions.
"""

from __future__ import annotations

from typing import Any

from graphc.ir import Var
from graphc.ops import comparison as ops

# ---- comparison: bool results ----------------------------------------------------------------------


def equal(x1: Any, x2: Any) -> Var:
    """x1 == x2; nan equals nothing.

    >>> import graphc as gc
    >>> gc.equal([1, 2], 2).eval()
    array([False,  True])
    """
    return ops.equal(x1, x2)


def not_equal(x1: Any, x2: Any) -> Var:
    """x1 != x2; nan differs from everything.

    >>> import graphc as gc
    >>> gc.not_equal([1, 2], 2).eval()
    array([ True, False])
    """
    return ops.not_equal(x1, x2)


def less(x1: Any, x2: Any) -> Var:
    """x1 < x2; false where either is nan.  Complex operands raise GraphcTypeError, as for the next three.

    >>> import graphc as gc
    >>> gc.less([1, 2], 2).eval()
    array([ True, False])
    """
    return ops.less(x1, x2)


def less_equal(x1: Any, x2: Any) -> Var:
    """x1 <= x2; false where either is nan.

    >>> import graphc as gc
    >>> gc.less_equal([1, 2], 2).eval()
    array([ True,  True])
    """
    return ops.less_equal(x1, x2)


def greater(x1: Any, x2: Any) -> Var:
    """x1 > x2; false where either is nan.

    >>> import graphc as gc
    >>> gc.greater([3, 2], 2).eval()
    array([ True, False])
    """
    return ops.greater(x1, x2)


def greater_equal(x1: Any, x2: Any) -> Var:
    """x1 >= x2; false where either is nan.

    >>> import graphc as gc
    >>> gc.greater_equal([3, 2], 2).eval()
    array([ True,  True])
    """
    return ops.greater_equal(x1, x2)


# ---- logic: operands of any dtype are true where not zero (nan is true); bool results --------------


def logical_and(x1: Any, x2: Any) -> Var:
    """Both.

    >>> import graphc as gc
    >>> gc.logical_and([True, False], True).eval()
    array([ True, False])
    """
    return ops.logical_and(x1, x2)


def logical_or(x1: Any, x2: Any) -> Var:
    """One or both.

    >>> import graphc as gc
    >>> gc.logical_or([True, False], True).eval()
    array([ True,  True])
    """
    return ops.logical_or(x1, x2)


def logical_xor(x1: Any, x2: Any) -> Var:
    """Exactly one.

    >>> import graphc as gc
    >>> gc.logical_xor([True, False], True).eval()
    array([False,  True])
    """
    return ops.logical_xor(x1, x2)


def logical_not(x: Any) -> Var:
    """The opposite.

    >>> import graphc as gc
    >>> gc.logical_not([True, False]).eval()
    array([False,  True])
    """
    return ops.logical_not(x)


# ---- tests of floats: bool results -----------------------------------------------------------------


def isnan(x: Any) -> Var:
    """Not a number?  False for integers and bool.

    >>> import graphc as gc
    >>> gc.isnan([0.0, float('nan')]).eval()
    array([False,  True])
    """
    return ops.isnan(x)


def isinf(x: Any) -> Var:
    """inf or -inf?  False for integers and bool.

    >>> import graphc as gc
    >>> gc.isinf([0.0, float('-inf')]).eval()
    array([False,  True])
    """
    return ops.isinf(x)


def isfinite(x: Any) -> Var:
    """Neither nan nor infinite?

    >>> import graphc as gc
    >>> gc.isfinite([0.0, float('inf')]).eval()
    array([ True, False])
    """
    return ops.isfinite(x)


def signbit(x: Any) -> Var:
    """Is the sign bit set?  True for -0.0.  Real.

    >>> import graphc as gc
    >>> gc.signbit([0.0, -0.0]).eval()
    array([False,  True])
    """
    return ops.signbit(x)


# ---- bits: integers and bool; others raise GraphcTypeError -----------------------------------------


def bitwise_and(x1: Any, x2: Any) -> Var:
    """x1 & x2, bit by bit.

    >>> import graphc as gc
    >>> gc.bitwise_and([12, 5], 6).eval()
    array([4, 4])
    """
    return ops.bitwise_and(x1, x2)


def bitwise_or(x1: Any, x2: Any) -> Var:
    """x1 | x2, bit by bit.

    >>> import graphc as gc
    >>> gc.bitwise_or([12, 5], 6).eval()
    array([14,  7])
    """
    return ops.bitwise_or(x1, x2)


def bitwise_xor(x1: Any, x2: Any) -> Var:
    """x1 ^ x2, bit by bit.

    >>> import graphc as gc
    >>> gc.bitwise_xor([12, 5], 6).eval()
    array([10,  3])
    """
    return ops.bitwise_xor(x1, x2)


def bitwise_invert(x: Any) -> Var:
    """~x, bit by bit; on bool the opposite.

    >>> import graphc as gc
    >>> gc.bitwise_invert([0, 7]).eval()
    array([-1, -8])
    """
    return ops.invert(x)


def bitwise_left_shift(x1: Any, x2: Any) -> Var:
    """x1 << x2; 0 where x2 is negative or not less than the number of bits.

    >>> import graphc as gc
    >>> gc.bitwise_left_shift([1, 3], 4).eval()
    array([16, 48])
    """
    return ops.left_shift(x1, x2)


def bitwise_right_shift(x1: Any, x2: Any) -> Var:
    """x1 >> x2, keeping the sign; 0 or -1 where x2 is negative or not less than the number of bits.

    >>> import graphc as gc
    >>> gc.bitwise_right_shift([16, -16], 2).eval()
    array([ 4, -4])
    """
    return ops.right_shift(x1, x2)


eq = equal
neq = not_equal
lt = less
le = less_equal
gt = greater
ge = greater_equal
and_ = bitwise_and
or_ = bitwise_or
xor = bitwise_xor
invert = bitwise_invert
bitwise_not = bitwise_invert
left_shift = bitwise_left_shift
right_shift = bitwise_right_shift


__all__ = [
    "and_", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "eq", "equal", "ge", "greater", "greater_equal", "gt", "invert", "isfinite", "isinf", "isnan", "le", "left_shift", "less",
    "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "neq", "not_equal", "or_", "right_shift",
    "signbit", "xor",
]
