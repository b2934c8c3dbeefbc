"""``gc.optim``: optimisers as updates of shared variables.

    opt = gc.optim.adam(lr=1e-3)
    step = gc.function([x, t], cost, updates=opt.updates(cost, params))

``lr`` is a float, a shared scalar (change it with ``set_value``) or a schedule of
``gc.optim.schedule``.  Every optimiser takes ``weight_decay=`` and ``clip_norm=``.
Formulas: ``graphc/optim/rules.py``, in the letters of the *Deep Learning* book.
"""

from __future__ import annotations

from typing import Any

from graphc.optim import rules, schedule
from graphc.optim.base import Optimiser, clip_by_global_norm

__all__ = [
    "Optimiser", "adadelta", "adagrad", "adam", "adamw", "clip_by_global_norm", "momentum", "nesterov", "rmsprop", "schedule", "sgd",
]


def sgd(lr: Any = 0.01, **options: Any) -> Optimiser:
    """Gradient descent: theta <- theta - lr g."""
    return rules.SGD(lr, **options)


def momentum(lr: Any = 0.01, momentum: Any = 0.9, **options: Any) -> Optimiser:
    """v <- momentum v - lr g; theta <- theta + v."""
    return rules.Momentum(lr, momentum, **options)


def nesterov(lr: Any = 0.01, momentum: Any = 0.9, **options: Any) -> Optimiser:
    """Momentum with the gradient taken at theta + momentum v.

    The cost is evaluated there too: a function that also gives the cost at theta computes both.
    """
    return rules.Nesterov(lr, momentum, **options)


def adagrad(lr: Any = 0.01, delta: float = 1e-7, **options: Any) -> Optimiser:
    """r <- r + g²; theta <- theta - lr g / (delta + sqrt(r))."""
    return rules.AdaGrad(lr, delta, **options)


def adadelta(lr: Any = 1.0, rho: Any = 0.95, delta: float = 1e-6, **options: Any) -> Optimiser:
    """r <- rho r + (1 - rho) g²; d = -g sqrt(u + delta) / sqrt(r + delta); u <- rho u + (1 - rho) d²; theta <- theta + lr d."""
    return rules.AdaDelta(lr, rho, delta, **options)


def rmsprop(lr: Any = 1e-3, rho: Any = 0.9, delta: float = 1e-6, **options: Any) -> Optimiser:
    """r <- rho r + (1 - rho) g²; theta <- theta - lr g / sqrt(delta + r)."""
    return rules.RMSProp(lr, rho, delta, **options)


def adam(lr: Any = 1e-3, rho1: Any = 0.9, rho2: Any = 0.999, delta: float = 1e-8, **options: Any) -> Optimiser:
    """Means of g and g² with their bias corrected; theta <- theta - lr s / (sqrt(r) + delta).

    ``weight_decay`` is added to the gradient; ``adamw`` takes it from the parameter instead.
    """
    return rules.Adam(lr, rho1, rho2, delta, **options)


def adamw(lr: Any = 1e-3, rho1: Any = 0.9, rho2: Any = 0.999, delta: float = 1e-8, weight_decay: Any = 0.01, **options: Any) -> Optimiser:
    """Adam with decoupled weight decay: theta <- theta - lr (s / (sqrt(r) + delta) + weight_decay theta)."""
    return rules.Adam(lr, rho1, rho2, delta, weight_decay=weight_decay, decoupled=True, **options)
