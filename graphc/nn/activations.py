"""Activations, elementwise but for the softmax family.  At kinks the derivative is that of the left side."""

from __future__ import annotations

from typing import Any

from graphc.functions.elementwise import expm1, relu, sigmoid, softplus, where
from graphc.functions.softmaxing import log_softmax, softmax
from graphc.ir import Var

__all__ = ["elu", "leaky_relu", "log_softmax", "relu", "sigmoid", "softmax", "softplus"]


def leaky_relu(x: Any, alpha: Any = 0.01) -> Var:
    """x where x > 0, alpha x elsewhere.  ``alpha`` may be a variable: then it is learned (parametric ReLU).

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> gc.function([x], gc.nn.leaky_relu(x, 0.1))([-2.0, 3.0])
    array([-0.2,  3. ])
    """
    return where(x > 0, x, alpha * x)


def elu(x: Any, alpha: Any = 1.0) -> Var:
    """x where x > 0, alpha (exp(x) - 1) elsewhere.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> gc.function([x], gc.nn.elu(x))([-800.0, 0.0, 3.0])
    array([-1.,  0.,  3.])
    """
    return where(x > 0, x, alpha * expm1(x))
