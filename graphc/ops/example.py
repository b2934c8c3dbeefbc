"""Example applications of an op, as data: from them the tests of values, types and gradients are generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """One application of an op.

    Args:
        shapes: one shape per operand.
        attrs: the attributes, as the node holds them.
        dtypes: one dtype name for all operands, or one per operand; float operands are also tried in other
            precisions where the op takes them.
        domain: interval of random real operands (integers: half-open range), for all or one pair per operand.
        gradient: compare the gradient with central differences?
        analytic: also by the complex step?
        numpy: the value written independently with NumPy, ``lambda *arrays: ...``; None where a test has its own.
    """

    shapes: Sequence[tuple[int, ...]]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    dtypes: str | Sequence[str] = "float64"
    domain: Any = (-3.0, 3.0)
    gradient: bool = True
    analytic: bool = False
    numpy: Any = None
