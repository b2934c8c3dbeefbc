"""Losses and penalties."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

from graphc.errors import GraphcValueError
from graphc.functions.elementwise import abs as modulus
from graphc.functions.elementwise import maximum, softplus, square
from graphc.functions.reducing import mean
from graphc.functions.reducing import sum as sum_of
from graphc.functions.softmaxing import cross_entropy
from graphc.ir import Var

__all__ = ["binary_cross_entropy", "cross_entropy", "hinge", "l1", "l2", "mse"]


def binary_cross_entropy(logits: Any, targets: Any, *, reduction: str = "mean") -> Var:
    """-(t log p + (1 - t) log(1 - p)) with p = sigmoid(logits), as t softplus(-z) + (1 - t) softplus(z).

    Finite for all finite logits, and accurate where it is nearly 0: softplus(z) - t z would cancel there.

    ``targets``: in [0, 1], of a shape that broadcasts with ``logits``.

    >>> import graphc as gc
    >>> z, t = gc.vectors("z", "t")
    >>> float(gc.function([z, t], gc.nn.binary_cross_entropy(z, t))([0.0, 1000.0], [1.0, 1.0]))  # doctest: +ELLIPSIS
    0.34657...
    """
    return _reduced(targets * softplus(-logits) + (1 - targets) * softplus(logits), reduction)


def mse(prediction: Any, target: Any, *, reduction: str = "mean") -> Var:
    """(prediction - target)², its mean over all elements by default.

    >>> import graphc as gc
    >>> y, t = gc.matrices("y", "t")
    >>> float(gc.function([y, t], gc.nn.mse(y, t))([[1.0, 2.0]], [[0.0, 4.0]]))
    2.5
    """
    return _reduced(square(prediction - target), reduction)


def l1(x: Any, target: Any = None, *, reduction: str | None = None) -> Var:
    """With a target: |x - target|, its mean by default.  Without: the penalty sum |x| of a variable or of all in a list.

    >>> import graphc as gc
    >>> w = gc.shared([3.0, -4.0])
    >>> float(gc.nn.l1(w).eval())
    7.0
    """
    if target is not None:
        return _reduced(modulus(x - target), reduction or "mean")
    return _penalty(modulus, x, reduction)


def l2(x: Any, target: Any = None, *, reduction: str | None = None) -> Var:
    """With a target: (x - target)², its mean by default.  Without: the penalty sum x² of a variable or of all in a list.

    >>> import graphc as gc
    >>> w = gc.shared([3.0, -4.0])
    >>> float(gc.nn.l2(w).eval())
    25.0
    """
    if target is not None:
        return _reduced(square(x - target), reduction or "mean")
    return _penalty(square, x, reduction)


def hinge(scores: Any, targets: Any, *, margin: float = 1.0, reduction: str = "mean") -> Var:
    """max(0, margin - t y) for targets t of -1 or 1.

    >>> import graphc as gc
    >>> y, t = gc.vectors("y", "t")
    >>> float(gc.function([y, t], gc.nn.hinge(y, t))([0.5, -3.0], [1.0, -1.0]))
    0.25
    """
    return _reduced(maximum(margin - targets * scores, 0.0), reduction)


def _penalty(size: Any, x: Any, reduction: str | None) -> Var:
    parts = list(x) if isinstance(x, Sequence) else [x]
    return functools.reduce(operator.add, [_reduced(size(part), reduction or "sum") for part in parts])


def _reduced(values: Any, reduction: str) -> Var:
    if reduction == "mean":
        return mean(values)
    if reduction == "sum":
        return sum_of(values)
    if reduction != "none":
        raise GraphcValueError(f"reduction={reduction!r}: expected 'mean', 'sum' or 'none'")
    result: Var = values
    return result
