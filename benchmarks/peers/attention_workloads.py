"""Group 18: attention, softmax(q k' / sqrt(d)) v, forward and with the gradients of all three; arrays are (batch * heads, length, d)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from references import softmax
from workload import Array, Workload, normal

SHAPES = ((32, 64, 16), (16, 128, 64), (8, 512, 64), (4, 1024, 64), (2, 2048, 64))
CAUSAL = (8, 512, 64)


def attention_weights(q: Array, k: Array, causal: bool = False) -> Array:
    """What each place takes of each, (..., length, length)."""
    scores = q @ k.swapaxes(-1, -2)
    scores *= q.shape[-1] ** -0.5
    if causal:
        scores[..., ~np.tri(q.shape[-2], dtype=bool)] = -math.inf
    return softmax(scores)[0]


def attention_gradients(weights: Array, q: Array, k: Array, v: Array, g: Array) -> list[Array]:
    """Of q, k and v, given that of the result."""
    back = g @ v.swapaxes(-1, -2)
    back -= (back * weights).sum(-1, keepdims=True)
    back *= weights
    back *= q.shape[-1] ** -0.5
    return [back @ k, back.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ g]


def attention(q: Array, k: Array, v: Array, causal: bool) -> list[Array]:
    return [attention_weights(q, k, causal) @ v]


def attention_step(q: Array, k: Array, v: Array, g: Array, causal: bool) -> list[Array]:
    """The result, and the gradients of its product with ``g``."""
    weights = attention_weights(q, k, causal)
    return [weights @ v, *attention_gradients(weights, q, k, v, g)]


def rows() -> list[Workload]:
    found = []
    for shape, causal in (*((s, False) for s in SHAPES), (CAUSAL, True)):
        name = f"attention/{'x'.join(map(str, shape))}" + "/causal" * causal
        forward = Workload(name, 18, "attention", normal(q=shape, k=shape, v=shape), attention, tolerance=2e-5, params={"causal": causal})
        found += [forward, replace(forward, name=f"{name}/gradients", kind="attention_step", inputs=normal(q=shape, k=shape, v=shape, g=shape),
                                   reference=attention_step)]
    return found
