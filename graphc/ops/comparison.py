"""Comparison, logic and bits: results without derivative."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Op, Var
from graphc.ops.core import as_var, cast, constant
from graphc.ops.elementwise_base import Elementwise


class Comparison(Elementwise):
    """Two operands of one dtype -> bool.  A Python int that does not fit the other's dtype widens the comparison."""

    def __init__(self, name: str, fn: Any, *, accepts: str = "biuf", commutative: bool = False, doc: str = "") -> None:
        super().__init__(name, fn, (None, None), accepts=accepts, result="bool", ufunc=f"np.{name}", commutative=commutative, doc=doc)

    def promoted(self, operands: Sequence[Any]) -> list[Var]:
        try:
            return super().promoted(operands)
        except GraphcValueError:  # uint8_tensor < 300 holds everywhere; it is no error
            return super().promoted([v if dtypes.weak_kind(v) is None else constant(v) for v in operands])


class Logical(Elementwise):
    """Operands are made bool first (nan and everything but zero is True)."""

    def __init__(self, name: str, fn: Any, nin: int, doc: str, **facts: Any) -> None:
        super().__init__(name, fn, (None,) * nin, accepts="b", result="bool", ufunc=f"np.{name}", doc=doc, **facts)

    def promoted(self, operands: Sequence[Any]) -> list[Var]:
        if len(operands) != self.nin:
            raise GraphcTypeError(f"{self.name} takes {self.nin} operand(s); got {len(operands)}")
        return [cast(as_var(v), dtypes.DTYPES["bool"]) for v in operands]


equal = Comparison("equal", np.equal, accepts="biufc", commutative=True, doc="a == b; nan equals nothing")
not_equal = Comparison("not_equal", np.not_equal, accepts="biufc", commutative=True, doc="a != b; nan differs from everything")
less = Comparison("less", np.less, doc="a < b; false where either is nan")
less_equal = Comparison("less_equal", np.less_equal, doc="a <= b; false where either is nan")
greater = Comparison("greater", np.greater, doc="a > b; false where either is nan")
greater_equal = Comparison("greater_equal", np.greater_equal, doc="a >= b; false where either is nan")

logical_and = Logical(
    "logical_and", np.logical_and, 2, "both",
    commutative=True, associative=True, idempotent=True, identity_int=1, annihilator_int=0)
logical_or = Logical(
    "logical_or", np.logical_or, 2, "one or both",
    commutative=True, associative=True, idempotent=True, identity_int=0, annihilator_int=1)
logical_xor = Logical("logical_xor", np.logical_xor, 2, "exactly one", commutative=True, associative=True, identity_int=0)
logical_not = Logical("logical_not", np.logical_not, 1, "the opposite", involution=True)

isnan = Elementwise("isnan", np.isnan, (None,), result="bool", ufunc="np.isnan", doc="not a number? integers and bool: False")
isinf = Elementwise("isinf", np.isinf, (None,), result="bool", ufunc="np.isinf", doc="inf or -inf? integers and bool: False")
isfinite = Elementwise("isfinite", np.isfinite, (None,), result="bool", ufunc="np.isfinite", doc="neither nan nor infinite?")
signbit = Elementwise(
    "signbit", np.signbit, (None,), accepts="f", floating=True, result="bool", ufunc="np.signbit",
    doc="is the sign bit set? true for -0.0; integers and bool become float64")

bitwise_and = Elementwise(
    "bitwise_and", np.bitwise_and, (None, None), accepts="biu", ufunc="np.bitwise_and", doc="a & b, bit by bit",
    commutative=True, associative=True, idempotent=True, identity_int=-1, annihilator_int=0)
bitwise_or = Elementwise(
    "bitwise_or", np.bitwise_or, (None, None), accepts="biu", ufunc="np.bitwise_or", doc="a | b, bit by bit",
    commutative=True, associative=True, idempotent=True, identity_int=0, annihilator_int=-1)
bitwise_xor = Elementwise(
    "bitwise_xor", np.bitwise_xor, (None, None), accepts="biu", ufunc="np.bitwise_xor", doc="a ^ b, bit by bit",
    commutative=True, associative=True, identity_int=0)
invert = Elementwise(
    "invert", np.invert, (None,), accepts="biu", ufunc="np.invert", doc="~a, bit by bit; on bool the opposite", involution=True)
left_shift = Elementwise(
    "left_shift", np.left_shift, (None, None), accepts="iu", counting=True, identity_int=0, ufunc="np.left_shift",
    doc="a << b; 0 where b is negative or not less than the number of bits")
right_shift = Elementwise(
    "right_shift", np.right_shift, (None, None), accepts="iu", counting=True, identity_int=0, ufunc="np.right_shift",
    doc="a >> b, with the sign; 0 or -1 where b is negative or not less than the number of bits")

OPS: tuple[Op, ...] = (
    equal, not_equal, less, less_equal, greater, greater_equal, logical_and, logical_or, logical_xor, logical_not,
    isnan, isinf, isfinite, signbit, bitwise_and, bitwise_or, bitwise_xor, invert, left_shift, right_shift)
__all__ = [
    "OPS", "bitwise_and", "bitwise_or", "bitwise_xor", "equal", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan",
    "left_shift", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "not_equal", "right_shift",
    "signbit",
]
