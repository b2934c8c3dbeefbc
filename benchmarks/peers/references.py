"""The right answers, as plain NumPy, and the constants that both sides of a comparison import.

The names of a reference's arguments are the names of the row's inputs and params.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from workload import Array

A, B, C, D = 1.5, 0.5, -0.7, 0.3  # of the chain tanh(A x + B) sigmoid(C x) + D x²
EPS = 1e-5  # of layer norm
LEARNING_RATE, MOMENTUM = 0.01, 0.9  # of the training step: v <- MOMENTUM v - LEARNING_RATE g; p <- p + v
PARAMETERS = ("w1", "b1", "w2", "b2")  # its state
DATA = ("x", "labels", "target")  # inputs of the larger training steps; all others are parameters
HEADS = 4  # of the transformer block
UPDATE_RATE = 0.001  # of the product in an update: v <- MOMENTUM v + x.T @ g; w <- w - UPDATE_RATE v


class Adam(NamedTuple):
    """s and r are running means of g and g²; theta <- theta - rate s / (sqrt(r) + delta), both with their bias corrected."""

    rate: float = 1e-3
    mean: float = 0.9
    square: float = 0.999
    delta: float = 1e-4  # not 1e-8: else rounding noise decides the sign of the step wherever a gradient is nearly 0, and no values could be compared


ADAM = Adam()


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array, **_: Any) -> list[Array]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return [e / e.sum(-1, keepdims=True)]


def scalar_grad(x: Array, y: Array) -> list[Array]:
    return [x / 10, 2 * y]  # of x²/20 + y²


def chain(x: Array) -> list[Array]:
    return [np.tanh(A * x + B) * sigmoid(C * x) + D * x * x]


def chain_grad(x: Array) -> list[Array]:
    t, s = np.tanh(A * x + B), sigmoid(C * x)
    return [A * (1 - t * t) * s + C * t * s * (1 - s) + 2 * D * x]


def xent(z: Array, labels: Array) -> list[Array]:
    p = softmax(z)[0]
    rows = np.arange(len(z))
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    return [loss, p / len(z)]


def layernorm(x: Array, w: Array, b: Array, **_: Any) -> list[Array]:
    return [(x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS) * w + b]


def layernorm_gelu(x: Array, w: Array, b: Array) -> list[Array]:
    h = layernorm(x, w, b)[0]
    return [0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))]


def logistic(beta: Array, x: Array, y: Array) -> list[Array]:
    eta = x @ beta
    return [(y * eta - np.logaddexp(0, eta)).sum() - 0.5 * (beta * beta).sum(), (y - sigmoid(eta)) @ x - beta]


MLP_STEPS = 5


def mlp_step(x: Array, labels: Array, **state: Array) -> list[Array]:
    p = {k: v.copy() for k, v in state.items()}
    velocity = {k: np.zeros_like(v) for k, v in state.items()}
    losses = []
    for _ in range(MLP_STEPS):
        h = np.maximum(x @ p["w1"] + p["b1"], 0)
        loss, dz = xent(h @ p["w2"] + p["b2"], labels)
        dh = (dz @ p["w2"].T) * (h > 0)
        grads = {"w1": x.T @ dh, "b1": dh.sum(0), "w2": h.T @ dz, "b2": dz.sum(0)}
        for k in PARAMETERS:
            velocity[k] = MOMENTUM * velocity[k] - LEARNING_RATE * grads[k]
            p[k] = p[k] + velocity[k]
        losses.append(loss)
    return [np.array(losses), *(p[k] for k in PARAMETERS)]


def variance(x: Array, **_: Any) -> list[Array]:
    return [x.var(-1)]


def erf(x: Array) -> Array:
    return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64)


def normal_cdf(x: Array, erf: Callable[[Array], Array] = erf) -> Array:
    """x times this is GELU."""
    return 0.5 * (1 + erf(x * math.sqrt(0.5)))


def matmul(a: Array, b: Array, form: str) -> list[Array]:
    return [(a.swapaxes(-1, -2) if form == "atb" else a) @ (b.swapaxes(-1, -2) if form == "abt" else b)]


def conv_step(x: Array, w: Array, g: Array, stride: int, padding: int, groups: int) -> list[Array]:
    """The result, and the gradients of its product with ``g``."""
    return [conv(x, w, stride, padding, groups), *conv_gradients(x, w, g, stride, padding, groups)]


def _windows(x: Array, w: Array, stride: int, padding: int, groups: int) -> tuple[Array, tuple[int, ...]]:
    """What each place of the result sees, (n, groups, channels, places, window), and the places along each axis."""
    space = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * space])
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], tuple(range(2, x.ndim)))
    windows = windows[(slice(None), slice(None), *[slice(None, None, stride)] * space)]
    places = windows.shape[2:2 + space]
    return windows.reshape(len(x), groups, w.shape[1], math.prod(places), -1), places


def conv(x: Array, w: Array, stride: int = 1, padding: int = 0, groups: int = 1) -> Array:
    seen, places = _windows(x, w, stride, padding, groups)
    kernels = w.reshape(groups, len(w) // groups, w.shape[1], -1)
    return np.einsum("ngcpk,gock->ngop", seen, kernels, optimize=True).reshape(len(x), len(w), *places)


def conv_gradients(x: Array, w: Array, g: Array, stride: int = 1, padding: int = 0, groups: int = 1) -> list[Array]:
    """Of x and w, given that of the result."""
    n, (o, c) = len(x), w.shape[:2]
    seen, places = _windows(x, w, stride, padding, groups)
    kernels, back = w.reshape(groups, o // groups, c, -1), g.reshape(n, groups, o // groups, -1)
    dw = np.einsum("ngcpk,ngop->gock", seen, back, optimize=True).reshape(w.shape)
    given = np.einsum("gock,ngop->ngcpk", kernels, back, optimize=True).reshape(n, groups * c, *places, *w.shape[2:])
    dx = np.zeros((*x.shape[:2], *(m + 2 * padding for m in x.shape[2:])), x.dtype)
    for k in np.ndindex(*w.shape[2:]):
        at = tuple([slice(i, i + stride * (p - 1) + 1, stride) for i, p in zip(k, places, strict=True)])
        dx[(slice(None), slice(None), *at)] += given[(..., *k)]
    return [dx[(slice(None), slice(None), *[slice(padding, padding + m) for m in x.shape[2:]])], dw]


UNARY: dict[str, Callable[[Array], Array]] = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": sigmoid, "erf": erf, "sin": np.sin, "sqrt": np.sqrt}


def unary(x: Array, function: str) -> list[Array]:
    return [UNARY[function](x)]


def pairwise(a: Array, b: Array) -> list[Array]:
    return [((a[:, None] - b[None]) ** 2).sum(-1)]
