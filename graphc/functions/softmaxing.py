"""Sums of exponentials and what learning makes of them: ``logsumexp``, ``softmax``, ``log_softmax``, cross entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.averaging import Axis, mean
from graphc.ir import Var
from graphc.ops import reduction as reductions
from graphc.ops import softmaxes as stable
from graphc.ops.arithmetic import mul, neg, where
from graphc.ops.comparison import equal, less
from graphc.ops.core import as_var, axis_of, shape_of, size_of
from graphc.ops.gathering import take_along_axis
from graphc.ops.movement import expand_dims, reshape, squeeze
from graphc.ops.reduction import reduced_shape


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Var:
    """``log(sum(exp(x)))`` along ``axis``, without overflow; integers become float64.

    Where all values are -inf the result is -inf and the gradient 0; a +inf gives +inf.

    >>> import graphc as gc
    >>> gc.logsumexp([1000.0, 1000.0]).eval()
    array(1000.69314718)
    """
    return stable.logsumexp(x, axis, keepdims)


def softmax(x: Any, axis: Axis = -1) -> Var:
    """``exp(x) / sum(exp(x))`` along ``axis``, without overflow; the shape of ``x``; integers become float64.

    NaN where all values along the axis are -inf, or one is +inf.

    >>> import graphc as gc
    >>> gc.softmax([0.0, 0.0, -float("inf")]).eval()
    array([0.5, 0.5, 0. ])
    """
    return stable.softmax(x, axis)


def log_softmax(x: Any, axis: Axis = -1) -> Var:
    """``x - logsumexp(x)`` along ``axis``: the logarithm of ``softmax``, exact where that is tiny.

    >>> import graphc as gc
    >>> gc.log_softmax([0.0, -1000.0]).eval()
    array([    0., -1000.])
    """
    return stable.log_softmax(x, axis)


def cross_entropy(logits: Any, labels: Any, *, axis: int = -1, reduction: str = "mean") -> Var:
    """The cross entropy of ``softmax(logits)`` against labels: ``-log_softmax(logits)[label]``.

    Args:
        logits: float, any shape with the classes along ``axis``: (batch, classes).
        labels: integers, the shape of ``logits`` without ``axis``: the number of the class, (batch,);
            or floats of the shape of ``logits``: the probabilities of the classes.
        axis: where the classes are.
        reduction: "mean" over all entries (the batch), "sum", or "none" for one loss per entry.

    Raises:
        GraphcTypeError: labels of another rank or dtype.
        IndexError: at the call: a label below 0, or not below the number of classes.

    A class of probability 0 adds nothing, even where its logit is -inf.

    >>> import graphc as gc
    >>> gc.nn.cross_entropy([[0.0, 0.0], [1.0, 3.0]], [0, 1], reduction="none").eval()
    array([0.69314718, 0.12692801])
    """
    if reduction not in ("mean", "sum", "none"):
        raise GraphcValueError(f"cross_entropy: reduction is 'mean', 'sum' or 'none'; got {reduction!r}")
    x, y = as_var(logits), as_var(labels)
    place = axis_of(axis, x.type.ndim, "cross_entropy")
    logp = stable.log_softmax(x, place)
    if dtypes.is_integer(y.type.dtype):
        _check_labels(x, y, reduced_shape(x.type.shape, (place,), False), f"class numbers have the shape of the logits without axis {place}")
        y = _of_sizes(y, [s for i, s in enumerate(shape_of(x)) if i != place])
        if y.type.dtype.kind == "i":  # a negative index would count from the end: send it out of range
            y = as_var(y, "int64")
            y = where(less(y, 0), size_of(logp, place), y)
        losses = neg(squeeze(take_along_axis(logp, expand_dims(y, (place,)), place), (place,)))
    elif dtypes.is_float(y.type.dtype):
        _check_labels(x, y, x.type.shape, "probabilities have the shape of the logits")
        y = _of_sizes(y, shape_of(x))
        # selected before the product: 0 * -inf is NaN
        losses = neg(reductions.sum(mul(y, where(equal(y, 0), 0, logp)), place))
    else:
        raise GraphcTypeError(f"cross_entropy: labels are class numbers (integers) or probabilities (floats); got {y.describe()}")
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else reductions.sum(losses)


def _of_sizes(labels: Var, shape: Sequence[Any]) -> Var:
    """Labels whose unknown size is that of the logits: as a reshape, which the door checks."""
    differ = sum(isinstance(b, Var) or a != b for a, b in zip(labels.type.shape, shape, strict=True))
    return reshape(labels, shape) if differ == 1 else labels


def _check_labels(logits: Var, labels: Var, shape: tuple[Size, ...], rule: str) -> None:
    """Labels do not broadcast: a loss over a batch of 1 against many labels is a mistake."""
    got = labels.type.shape
    if len(got) != len(shape):
        raise GraphcTypeError(f"cross_entropy: {rule}; got labels {labels.describe()} for logits {logits.describe()}")
    if any(isinstance(s, int) and isinstance(t, int) and s != t for s, t in zip(shape, got, strict=True)):
        raise GraphcValueError(f"cross_entropy: {rule}; got labels {labels.describe()} for logits {logits.describe()}")


__all__ = ["cross_entropy", "log_softmax", "logsumexp", "softmax"]
