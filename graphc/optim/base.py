"""What all optimisers share: gradients, clipping, weight decay, learning rates, the state that they keep."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.derivatives import grad
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.elementwise import abs as modulus
from graphc.functions.elementwise import cast, maximum, sqrt
from graphc.functions.reducing import sum as sum_of
from graphc.ir import Shared, Var, rebuild
from graphc.optim.schedule import Schedule
from graphc.variables import SharedVariable, shared

__all__ = ["Memory", "Optimiser", "clip_by_global_norm"]


class Memory:
    """What an optimiser keeps for one parameter, and what one call of ``updates`` does to it."""

    def __init__(self, owner: str, p: Shared, count: Var | None) -> None:
        self.p, self.updates = p, dict[Shared, Var]()
        self._label, self._count = f"{owner}.{{}}.{p.name or 'parameter'}", count
        self._states: dict[str, SharedVariable] = {}

    @property
    def count(self) -> Var:
        """How many updates were done before this one, in float64."""
        assert self._count is not None, "the optimiser does not say that it counts"
        return cast(self._count, dtypes.DTYPES["float64"])

    def state(self, name: str, real: bool = False) -> SharedVariable:
        """State of the parameter's type (or of its real part's), 0 at first."""
        if name not in self._states:
            dtype = dtypes.real_of(self.p.type.dtype) if real else self.p.type.dtype
            zeros = np.zeros(self.p.container.value.shape, dtype)
            self._states[name] = shared(zeros, self._label.format(name), shape=self.p.type.shape)
        return self._states[name]

    def set(self, state: Shared, value: Any) -> Var:
        """State gets a new value at the end of the call; gives that value."""
        self.updates[state] = cast(value, state.type.dtype)
        return self.updates[state]

    def mean(self, state: Shared, rho: Any, value: Any) -> Var:
        """The running mean: state <- rho state + (1 - rho) value; gives the new one."""
        keep = self.like(rho)
        return self.set(state, keep * state + (1.0 - keep) * value)

    def like(self, value: Any) -> Any:
        """A real scalar as an operand that does not widen the parameter's dtype."""
        return cast(value, dtypes.real_of(self.p.type.dtype)) if isinstance(value, Var) else value


class Optimiser:
    """A rule that moves parameters against the gradient of a cost.  Made by ``gc.optim.sgd`` and its like.

    Args:
        lr: a float, a shared scalar, or a schedule (``gc.optim.schedule``).
        weight_decay: adds ``weight_decay * p`` to each gradient (for ``adamw``: shrinks p itself).
        clip_norm: gradients whose joint norm is larger are scaled down to it, before weight decay.
    """

    counts = False  # does the rule itself need the number of updates?

    def __init__(self, lr: Any, *, weight_decay: float = 0.0, clip_norm: float | None = None, decoupled: bool = False) -> None:
        self.name = type(self).__name__.lower()
        self.lr = _rate(lr)
        self.weight_decay = weight_decay
        if not isinstance(weight_decay, Var) and not float(weight_decay) >= 0.0:
            raise GraphcValueError(f"{self.name}: weight_decay is >= 0; got {weight_decay!r}")
        self.clip_norm = None if clip_norm is None else self.positive("clip_norm", clip_norm)
        self.decoupled = decoupled

    def updates(self, cost: Var, params: Sequence[Shared] | Shared, *, grads: Sequence[Var] | None = None) -> dict[Shared, Var]:
        """``{shared: new value}`` for ``gc.function(updates=...)``: the parameters and the optimiser's own state.

        Args:
            cost: a real scalar.
            params: shared variables of a float or complex dtype.
            grads: gradients to use instead of ``gc.grad(cost, params)``, one per parameter.

        The state is made anew at every call of this method.

        >>> import graphc as gc
        >>> w = gc.shared([3.0, 4.0], "w")
        >>> opt = gc.optim.sgd(lr=0.5)
        >>> step = gc.function([], gc.sum(w ** 2), updates=opt.updates(gc.sum(w ** 2), [w]))
        >>> float(step())
        25.0
        >>> w.get_value()
        array([0., 0.])
        """
        chosen = self._checked(params)
        schedule = isinstance(self.lr, Schedule)
        counter = shared(np.zeros((), np.int64), f"{self.name}.t") if schedule or self.counts else None
        memories = [Memory(self.name, p, counter) for p in chosen]
        gradients = self._gradients(cost, chosen, memories, grads)
        result: dict[Shared, Var] = {}
        for p, g, memory in zip(chosen, gradients, memories, strict=True):
            eps = memory.like(self.lr(counter) if isinstance(self.lr, Schedule) else self.lr)
            decay = memory.like(self.weight_decay)
            decays = isinstance(decay, Var) or decay != 0.0
            if decays and not self.decoupled:
                g = g + decay * p
            moved = p + self.step(p, g, eps, memory)
            if decays and self.decoupled:
                moved = moved - eps * decay * p
            result[p] = cast(moved, p.type.dtype)
            result.update(memory.updates)
        if counter is not None:
            result[counter] = counter + 1
        return result

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        """The change of one parameter, given its gradient and the learning rate."""
        raise NotImplementedError

    def ahead(self, p: Shared, memory: Memory) -> Any:
        """Where the gradient is taken; None: at the parameter itself."""
        return None

    def _gradients(self, cost: Var, params: list[Shared], memories: list[Memory], grads: Sequence[Var] | None) -> list[Var]:
        places: dict[Var, Var] = {p: to for p, memory in zip(params, memories, strict=True) if (to := self.ahead(p, memory)) is not None}
        if grads is not None:
            if len(grads) != len(params):
                raise GraphcValueError(f"{self.name}: {len(params)} parameters but {len(grads)} gradients")
            found = rebuild(grads, places)
        else:
            # d cost(p + alpha v) / d p is the gradient of the cost at p + alpha v
            found = list(grad(rebuild([cost], places)[0], params))
        return found if self.clip_norm is None else clip_by_global_norm(found, self.clip_norm)

    def _checked(self, params: Sequence[Shared] | Shared) -> list[Shared]:
        chosen = [params] if isinstance(params, Var) else list(params)
        for p in chosen:
            if not isinstance(p, Shared):
                given = p.describe() if isinstance(p, Var) else repr(p)
                raise GraphcTypeError(f"{self.name}: a parameter is a shared variable (gc.shared); got {given}")
            if not dtypes.is_inexact(p.type.dtype):
                raise GraphcTypeError(f"{self.name}: a parameter has a float dtype; got {p.describe()}")
        if len(set(chosen)) != len(chosen):
            doubled = next(p for i, p in enumerate(chosen) if p in set(chosen[:i]))
            raise GraphcValueError(f"{self.name}: a parameter stands twice in the list: {doubled.describe()}")
        return chosen

    def positive(self, name: str, value: Any) -> float:
        if isinstance(value, (bool, Var)) or not hasattr(value, "__float__") or not float(value) > 0.0:
            raise GraphcValueError(f"{self.name}: {name} is a number > 0; got {value!r}")
        return float(value)

    def fraction(self, name: str, value: Any) -> Any:
        """A number in [0, 1), or a shared scalar, so that it may change while training."""
        if isinstance(value, Shared):
            return value
        if isinstance(value, (bool, Var)) or not hasattr(value, "__float__") or not 0.0 <= float(value) < 1.0:
            raise GraphcValueError(f"{self.name}: {name} is a number in [0, 1); got {value!r}")
        return float(value)

    def __repr__(self) -> str:
        return f"{self.name}(lr={self.lr!r})"


def clip_by_global_norm(grads: Sequence[Var], max_norm: Any) -> list[Var]:
    """The gradients times min(1, max_norm / norm), norm = sqrt(sum of |g|² over all elements of all of them).

    The norm is taken in float32 at least.  A norm of 0 changes nothing; a NaN spreads to all.

    >>> import graphc as gc
    >>> g = gc.vector("g")
    >>> gc.function([g], gc.optim.clip_by_global_norm([g], 1.0)[0])([3.0, 4.0])
    array([0.6, 0.8])
    """
    if not grads:
        return []
    squares = []
    for g in grads:
        wide = cast(g, dtypes.DTYPES["float32"]) if g.type.dtype.name in ("float16", "bfloat16") else g
        size = modulus(wide) if dtypes.is_complex(g.type.dtype) else wide
        squares.append(sum_of(size * size))
    norm = sqrt(functools.reduce(operator.add, squares))
    factor = max_norm / maximum(norm, max_norm)  # 1 where the norm is small enough; never a division by 0
    return [g * cast(factor, dtypes.real_of(g.type.dtype)) for g in grads]


def _rate(lr: Any) -> Any:
    """A float, a scalar variable or a schedule."""
    if isinstance(lr, Schedule):
        return lr
    if isinstance(lr, Var):
        if lr.type.ndim or not dtypes.is_float(lr.type.dtype):
            raise GraphcTypeError(f"a learning rate is a float scalar; got {lr.describe()}")
        return lr
    if isinstance(lr, bool) or not hasattr(lr, "__float__"):
        raise GraphcTypeError(f"a learning rate is a float, a shared scalar or a schedule; got {lr!r}")
    return float(lr)
