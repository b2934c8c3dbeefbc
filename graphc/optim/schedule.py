"""Learning rates that change with the number of updates done so far.

A schedule is a function of ``t``: an int (0 for the first update) gives a float,
a variable gives an expression.  Optimisers count the updates in a shared integer
and put the schedule into the graph, so a step costs no work in Python.

>>> import graphc as gc
>>> rate = gc.optim.schedule.linear(0.1, 0.001, 100)
>>> rate(0), rate(50), rate(1000)
(0.1, 0.0505, 0.001)
>>> opt = gc.optim.sgd(lr=rate)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.dtypes import DTYPES
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.elementwise import cast, cos, exp, floor, minimum, power, where
from graphc.ir import Var

__all__ = ["Schedule", "constant", "cosine", "exponential", "inverse_time", "linear", "step"]


class Schedule:
    """A learning rate as a function of the number of updates done; see the functions of this module."""

    def __init__(self, text: str, number: Callable[[float], float], expression: Callable[[Var], Any]) -> None:
        self._text, self._number, self._expression = text, number, expression

    def __call__(self, t: Any) -> Any:
        """The rate at update ``t``: a float for a number, a float64 expression for a variable."""
        if isinstance(t, Var):
            return self._expression(cast(t, DTYPES["float64"]))
        return float(self._number(float(t)))

    def __repr__(self) -> str:
        return self._text


def constant(rate: float) -> Schedule:
    """The same rate always: ``rate``."""
    r = _number("constant", "rate", rate)
    return Schedule(f"constant({r})", lambda t: r, lambda t: t * 0.0 + r)


def linear(start: float, end: float, steps: int) -> Schedule:
    """From ``start`` to ``end`` in ``steps`` updates, then ``end``: (1 - a) start + a end with a = min(t / steps, 1)."""
    r0, r1, n = _number("linear", "start", start), _number("linear", "end", end), _steps("linear", steps)

    def mix(a: Any) -> Any:
        return r0 * (1.0 - a) + r1 * a
    return Schedule(f"linear({r0}, {r1}, {steps})", lambda t: mix(min(t / n, 1.0)), lambda t: mix(minimum(t / n, 1.0)))


def inverse_time(rate: float, decay: float) -> Schedule:
    """rate / (1 + decay t): meets the convergence condition of stochastic gradient descent."""
    r, d = _number("inverse_time", "rate", rate), _number("inverse_time", "decay", decay)
    return Schedule(f"inverse_time({r}, {d})", lambda t: r / (1.0 + d * t), lambda t: r / (1.0 + d * t))


def exponential(rate: float, factor: float, steps: int = 1) -> Schedule:
    """rate factor^(t / steps): multiplied by ``factor`` every ``steps`` updates, smoothly."""
    r, k, n = _number("exponential", "rate", rate), _number("exponential", "factor", factor), _steps("exponential", steps)
    if k <= 0.0:
        raise GraphcValueError(f"schedule.exponential: factor is > 0; got {factor!r}")
    slope = math.log(k) / n
    return Schedule(f"exponential({r}, {k}, {steps})", lambda t: r * math.exp(slope * t), lambda t: r * exp(t * slope))


def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Half a period of the cosine from ``start`` to ``end`` in ``steps`` updates, then ``end``."""
    r0, r1, n = _number("cosine", "start", start), _number("cosine", "end", end), _steps("cosine", steps)

    def mix(c: Any) -> Any:
        return r1 + (r0 - r1) * (0.5 + 0.5 * c)
    return Schedule(f"cosine({r0}, {steps}, {r1})",
                    lambda t: mix(math.cos(math.pi * min(t / n, 1.0))), lambda t: mix(cos(minimum(t / n, 1.0) * math.pi)))


def step(rate: float, factor: float, every: int | Sequence[int]) -> Schedule:
    """Multiplied by ``factor`` every ``every`` updates, or at each update that a list names.

    >>> import graphc as gc
    >>> rate = gc.optim.schedule.step(1.0, 0.5, [10, 20])
    >>> rate(9), rate(10), rate(20)
    (1.0, 0.5, 0.25)
    """
    r, k = _number("step", "rate", rate), _number("step", "factor", factor)
    if isinstance(every, Sequence):
        marks = [_steps("step", m) for m in every]
        return Schedule(f"step({r}, {k}, {marks})", lambda t: r * k ** sum(t >= m for m in marks),
                        lambda t: r * power(k, sum((where(t >= m, 1.0, 0.0) for m in marks), t * 0.0)))
    n = _steps("step", every)
    return Schedule(f"step({r}, {k}, {n})", lambda t: r * k ** (t // n), lambda t: r * power(k, floor(t / n)))


def _number(schedule: str, name: str, value: Any) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, Var):
        raise GraphcTypeError(f"schedule.{schedule}: {name} is a number; got {value!r}")
    if not math.isfinite(float(value)):
        raise GraphcValueError(f"schedule.{schedule}: {name} is a finite number; got {value!r}")
    return float(value)


def _steps(schedule: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
        raise GraphcValueError(f"schedule.{schedule}: a number of updates is an int >= 1; got {value!r}")
    return int(value.__index__())
