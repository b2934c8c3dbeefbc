"""``gc.init``: first values of parameters, ``(shape, rng) -> ndarray`` with a NumPy ``Generator``.

A dense weight has shape (n_in, n_out); a convolution kernel (out, in, *window).
Every function takes ``dtype`` (default ``gc.config.floatX``).  The numbers are drawn
in float64 and then converted, so that float32 and float64 start from the same point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dtypes import as_dtype
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array
from graphc.settings import config

__all__ = ["glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "normal", "ones", "orthogonal", "uniform", "zeros"]

Shape = int | Sequence[int]
Rng = np.random.Generator


def glorot_uniform(shape: Shape, rng: Rng, *, gain: float = 1.0, dtype: Any = None) -> Array:
    """U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out)): variance kept forward and backward (Glorot and Bengio, 2010).

    >>> import numpy as np, graphc as gc
    >>> gc.init.glorot_uniform((784, 128), np.random.default_rng(0)).shape
    (784, 128)
    """
    n_in, n_out = _fans(shape)
    return uniform(shape, rng, high=gain * math.sqrt(6.0 / (n_in + n_out)), dtype=dtype)


def glorot_normal(shape: Shape, rng: Rng, *, gain: float = 1.0, dtype: Any = None) -> Array:
    """N(0, s²) with s = gain * sqrt(2 / (fan_in + fan_out))."""
    n_in, n_out = _fans(shape)
    return normal(shape, rng, std=gain * math.sqrt(2.0 / (n_in + n_out)), dtype=dtype)


def he_normal(shape: Shape, rng: Rng, *, gain: float = math.sqrt(2.0), dtype: Any = None) -> Array:
    """N(0, s²) with s = gain / sqrt(fan_in); the default gain is ReLU's (He and others, 2015)."""
    return normal(shape, rng, std=gain / math.sqrt(_fans(shape)[0]), dtype=dtype)


def he_uniform(shape: Shape, rng: Rng, *, gain: float = math.sqrt(2.0), dtype: Any = None) -> Array:
    """U(-a, a) with a = gain * sqrt(3 / fan_in); the default gain is ReLU's."""
    return uniform(shape, rng, high=gain * math.sqrt(3.0 / _fans(shape)[0]), dtype=dtype)


def orthogonal(shape: Shape, rng: Rng, *, gain: float = 1.0, dtype: Any = None) -> Array:
    """``gain`` times a random matrix with orthonormal rows or columns, whichever are fewer (Saxe and others, 2014).

    A shape of more than two axes is a matrix of the first axis against the others.

    >>> import numpy as np, graphc as gc
    >>> w = gc.init.orthogonal((4, 3), np.random.default_rng(0))
    >>> bool(np.allclose(w.T @ w, np.eye(3)))
    True
    """
    sizes = _sizes(shape)
    if len(sizes) < 2:
        raise GraphcValueError(f"init.orthogonal needs at least 2 axes; got shape {sizes}")
    rows, columns = sizes[0], math.prod(sizes[1:])
    drawn = _generator(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(drawn)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)  # without the signs, q would not be uniform over all such matrices
    return _converted(gain * (q if rows >= columns else q.T).reshape(sizes), dtype)


def uniform(shape: Shape, rng: Rng, *, low: float | None = None, high: float = 0.05, dtype: Any = None) -> Array:
    """U(low, high); ``low`` is ``-high`` unless given."""
    return _converted(_generator(rng).uniform(-high if low is None else low, high, _sizes(shape)), dtype)


def normal(shape: Shape, rng: Rng, *, mean: float = 0.0, std: float = 0.05, dtype: Any = None) -> Array:
    """N(mean, std²)."""
    return _converted(_generator(rng).normal(mean, std, _sizes(shape)), dtype)


def zeros(shape: Shape, rng: Rng | None = None, *, dtype: Any = None) -> Array:
    """All 0: the usual first value of a bias."""
    return _converted(np.zeros(_sizes(shape)), dtype)


def ones(shape: Shape, rng: Rng | None = None, *, dtype: Any = None) -> Array:
    """All 1: the usual first value of a scale."""
    return _converted(np.ones(_sizes(shape)), dtype)


def _sizes(shape: Shape) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    for n in sizes:
        if isinstance(n, bool) or not hasattr(n, "__index__"):
            raise GraphcTypeError(f"init: a shape is an int or a tuple of ints; got {shape!r}")
        if n < 0:
            raise GraphcValueError(f"init: a size is not negative; got shape {shape!r}")
    return tuple(int(n) for n in sizes)


def _fans(shape: Shape) -> tuple[int, int]:
    """How many values one result is made of, and how many results one value goes into."""
    sizes = _sizes(shape)
    if len(sizes) < 2:
        raise GraphcValueError(f"init: the fan of a weight needs at least 2 axes; got shape {sizes}. Use gc.init.zeros or .normal for vectors")
    if len(sizes) == 2:
        n_in, n_out = sizes
    else:
        window = math.prod(sizes[2:])
        n_in, n_out = sizes[1] * window, sizes[0] * window
    return max(n_in, 1), max(n_out, 1)


def _generator(rng: Any) -> np.random.Generator:
    if not isinstance(rng, np.random.Generator):
        raise GraphcTypeError(f"init: rng is a numpy.random.Generator (np.random.default_rng(seed)); got {type(rng).__name__}")
    return rng


def _converted(value: Array, dtype: Any) -> Array:
    return np.asarray(value, dtype=as_dtype(config.floatX if dtype is None else dtype))
