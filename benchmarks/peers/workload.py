"""What a row is: a ``kind`` that every contestant has a builder for, the kind's ``params``, a maker of inputs and a
reference.  The reference is plain NumPy in float64 whatever the dtype of the row; a contestant whose values are
further from it than ``tolerance`` is reported as wrong and not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Maker = Callable[[np.random.Generator], Arrays]

#: kind of a dtype -> that in which the answers are computed
WIDE = {"f": np.float64, "c": np.complex128}


@dataclass(frozen=True)
class Workload:
    """One row of the tables."""

    name: str
    group: int
    kind: str
    inputs: Callable[[np.random.Generator], Arrays]
    reference: Callable[..., Sequence[Any]]
    dtype: str = "float32"  # of every output
    tolerance: float = 1e-5  # relative to the value plus the mean size of the values
    params: dict[str, Any] = field(default_factory=dict)
    memory_bound: bool = False  # its limit is the memory: GB/s are told
    ulp: bool = False  # the error in units of the last place is told
    parts: int = 1  # equal parts of a call: the time of one is told
    steps: int = 1  # calls before the values are compared; more than one where there is state
    only: tuple[str, ...] = ()  # contestants; () = all
    not_counted: tuple[str, ...] = ()  # shown, but no peer: nothing is compiled and nothing called where the answer is written out by hand

    def make_inputs(self) -> Arrays:
        return self.inputs(np.random.default_rng(7))

    def expected(self, inputs: Arrays) -> list[Array]:
        """The answers in float64 (complex128)."""
        wide = {k: v.astype(WIDE.get(v.dtype.kind, v.dtype)) for k, v in inputs.items()}
        return [np.asarray(v) for v in self.reference(**wide, **self.params)]

    def traffic(self, inputs: Arrays, outputs: Sequence[Array]) -> tuple[int, int]:
        """Bytes that must be read and written at least."""
        return sum(v.nbytes for v in inputs.values()), sum(v.size for v in outputs) * np.dtype(self.dtype).itemsize


def normal(dtype: str = "float32", **shapes: tuple[int, ...]) -> Maker:
    def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        re = rng.normal(size=shape)
        return np.asarray(re + 1j * rng.normal(size=shape) if dtype.startswith("complex") else re, dtype)
    return lambda rng: {k: draw(rng, s) for k, s in shapes.items()}


def uniform(low: float, high: float, dtype: str = "float32", **shapes: tuple[int, ...]) -> Maker:
    return lambda rng: {k: rng.uniform(low, high, size=s).astype(dtype) for k, s in shapes.items()}


def error_of(workload: Workload, expected: Sequence[Array], got: Sequence[Array]) -> tuple[str | None, float, float | None]:
    """(what is wrong or None, largest error relative to the allowed scale, the same in units of the last place)."""
    if len(got) != len(expected):
        return f"{len(got)} results, expected {len(expected)}", math.inf, None
    worst, ulps = 0.0, None
    for i, (right, value) in enumerate(zip(expected, got, strict=True)):
        if value.shape != right.shape or str(value.dtype) != workload.dtype:
            return f"result {i} is {value.dtype}{list(value.shape)}, expected {workload.dtype}{list(right.shape)}", math.inf, None
        if not np.isfinite(value).all():
            return f"result {i} is not finite", math.inf, None
        distance = np.abs(value.astype(WIDE.get(value.dtype.kind, np.float64)) - right)
        scale = np.abs(right) + np.abs(right).mean()
        worst = max(worst, float((distance / np.maximum(scale, 1e-300)).max(initial=0.0)))
        if workload.ulp:
            ulps = float((distance / np.spacing(np.abs(right).astype(workload.dtype)).astype(np.float64)).max(initial=0.0))
    wrong = f"relative error {worst:.1e} > {workload.tolerance:.0e}" if worst > workload.tolerance else None
    return wrong, worst, ulps
