"""Group 17: training steps of three models, each with momentum and with Adam: forward, backward, update of all parameters, loss returned.

A model is a function of its parameters and data that gives the loss and the gradients, worked out on paper; it keeps
the dtype of its arguments, so that NumPy takes part with the same lines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from attention_workloads import attention_gradients, attention_weights
from references import ADAM, DATA, EPS, HEADS, LEARNING_RATE, MOMENTUM, conv, conv_gradients, erf, normal_cdf, xent
from workload import Array, Arrays, Maker, Workload

STEPS = 5
BATCH, LENGTH, WIDTH, HIDDEN = 8, 64, 128, 512  # of the transformer block

Losses = tuple[Any, Arrays]


# ---- models ----------------------------------------------------------------------------------------------------------

def mlp(p: Arrays, x: Array, labels: Array) -> Losses:
    """Three dense layers."""
    return _classifier(p, x, labels)[:2]


def _classifier(p: Arrays, x: Array, labels: Array) -> tuple[Any, Arrays, Array]:
    """Loss, gradients of the parameters, gradient of x."""
    h1 = np.maximum(x @ p["w1"] + p["b1"], 0)
    h2 = np.maximum(h1 @ p["w2"] + p["b2"], 0)
    loss, d3 = xent(h2 @ p["w3"] + p["b3"], labels)
    d2 = (d3 @ p["w3"].T) * (h2 > 0)
    d1 = (d2 @ p["w2"].T) * (h1 > 0)
    grads = {"w1": x.T @ d1, "b1": d1.sum(0), "w2": h1.T @ d2, "b2": d2.sum(0), "w3": h2.T @ d3, "b3": d3.sum(0)}
    return loss, grads, d1 @ p["w1"].T


def lenet(p: Arrays, x: Array, labels: Array) -> Losses:
    """Two convolutions with relu and pooling, and the classifier."""
    h1 = np.maximum(conv(x, p["k1"], padding=2) + p["c1"][:, None, None], 0)
    m1 = _pooled(h1)
    h2 = np.maximum(conv(m1, p["k2"]) + p["c2"][:, None, None], 0)
    m2 = _pooled(h2)
    loss, grads, d = _classifier(p, m2.reshape(len(x), -1), labels)
    d2 = _pool_gradient(h2, m2, d.reshape(m2.shape)) * (h2 > 0)
    dm1, grads["k2"] = conv_gradients(m1, p["k2"], d2)
    d1 = _pool_gradient(h1, m1, dm1) * (h1 > 0)
    grads["k1"] = conv_gradients(x, p["k1"], d1, padding=2)[1]
    return loss, grads | {"c1": d1.sum((0, 2, 3)), "c2": d2.sum((0, 2, 3))}


def _pooled(x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def _pool_gradient(x: Array, largest: Array, g: Array) -> Array:
    """Ties occur at 0 only, where relu passes nothing on."""
    return (x == largest.repeat(2, 2).repeat(2, 3)) * g.repeat(2, 2).repeat(2, 3)


def transformer(p: Arrays, x: Array, target: Array, erf: Callable[[Array], Array] = erf) -> Losses:
    """x + attention of its layer norm; + the MLP of that one's layer norm; mean square distance from the target."""
    n1, _ = _normalised(x)
    y1 = n1 * p["g1"] + p["c1"]
    q, k, v = _heads(y1 @ p["wqkv"] + p["bqkv"])
    weights = attention_weights(q, k)
    mixed = (weights @ v).swapaxes(1, 2).reshape(x.shape)
    h = x + mixed @ p["wo"] + p["bo"]
    n2, size2 = _normalised(h)
    y2 = n2 * p["g2"] + p["c2"]
    u = y2 @ p["w1"] + p["b1"]
    part = normal_cdf(u, erf)
    error = h + (u * part) @ p["w2"] + p["b2"] - target
    d = error * (2 / error.size)
    grads = {"w2": _flat(u * part).T @ _flat(d), "b2": d.sum((0, 1))}
    du = (d @ p["w2"].T) * (part + u * np.exp(-0.5 * u * u) * (1 / math.sqrt(2 * math.pi)))
    dy2 = du @ p["w1"].T
    grads |= {"w1": _flat(y2).T @ _flat(du), "b1": du.sum((0, 1)), "g2": (dy2 * n2).sum((0, 1)), "c2": dy2.sum((0, 1))}
    dh = d + _normalised_gradient(n2, size2, dy2 * p["g2"])
    grads |= {"wo": _flat(mixed).T @ _flat(dh), "bo": dh.sum((0, 1))}
    back = (dh @ p["wo"].T).reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)
    dqkv = np.stack(attention_gradients(weights, q, k, v, back)).transpose(1, 3, 0, 2, 4).reshape(*x.shape[:2], -1)
    dy1 = dqkv @ p["wqkv"].T
    grads |= {"wqkv": _flat(y1).T @ _flat(dqkv), "bqkv": dqkv.sum((0, 1)), "g1": (dy1 * n1).sum((0, 1)), "c1": dy1.sum((0, 1))}
    return (error * error).mean(), grads


def _flat(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _heads(qkv: Array) -> Array:
    """(batch, length, 3 * width) -> (3, batch, heads, length, d)."""
    return qkv.reshape(*qkv.shape[:2], 3, HEADS, -1).transpose(2, 0, 3, 1, 4)


def _normalised(x: Array) -> tuple[Array, Array]:
    """x of mean 0 and variance 1 along its rows, and what it was divided by."""
    size = np.sqrt(x.var(-1, keepdims=True) + EPS)
    return (x - x.mean(-1, keepdims=True)) / size, size


def _normalised_gradient(n: Array, size: Array, g: Array) -> Array:
    return (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True)) / size


MODELS: dict[str, Callable[..., Losses]] = {"mlp": mlp, "lenet": lenet, "transformer": transformer}


# ---- updates ---------------------------------------------------------------------------------------------------------

def momentum(p: Arrays, grads: Arrays, state: Arrays, step: int) -> None:
    for k in p:
        v = state.setdefault(k, np.zeros_like(p[k]))
        v *= MOMENTUM
        v -= LEARNING_RATE * grads[k]
        p[k] += v


def adam(p: Arrays, grads: Arrays, state: Arrays, step: int) -> None:
    for k in p:
        s, r = state.setdefault(k, np.zeros((2, *p[k].shape), p[k].dtype))
        s *= ADAM.mean
        s += (1 - ADAM.mean) * grads[k]
        r *= ADAM.square
        r += (1 - ADAM.square) * np.square(grads[k])
        root = np.sqrt(r / (1 - ADAM.square**step))
        root += ADAM.delta
        p[k] -= (ADAM.rate / (1 - ADAM.mean**step)) * s / root


UPDATES = {"momentum": momentum, "adam": adam}


def training(model: str, update: str, **inputs: Array) -> list[Array]:
    """The losses of the first steps, and the parameters after them."""
    p = {k: v.copy() for k, v in inputs.items() if k not in DATA}
    data = [inputs[k] for k in DATA if k in inputs]
    state: Arrays = {}
    losses = []
    for step in range(1, STEPS + 1):
        loss, grads = MODELS[model](p, *data)
        UPDATES[update](p, grads, state, step)
        losses.append(loss)
    return [np.array(losses), *p.values()]


# ---- inputs ----------------------------------------------------------------------------------------------------------

def _drawn(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return (rng.normal(size=shape) * scale).astype("float32")


def _dense(rng: np.random.Generator, *sizes: int) -> Arrays:
    found = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes), 1):
        found |= {f"w{i}": _drawn(rng, n, m, scale=math.sqrt(2 / n)), f"b{i}": _drawn(rng, m, scale=0.1)}
    return found


def _mlp_inputs(rng: np.random.Generator) -> Arrays:
    return {"x": _drawn(rng, 128, 784), "labels": rng.integers(0, 10, 128), **_dense(rng, 784, 512, 512, 10)}


def _lenet_inputs(rng: np.random.Generator) -> Arrays:
    return {"x": _drawn(rng, 64, 1, 28, 28), "labels": rng.integers(0, 10, 64),
            "k1": _drawn(rng, 6, 1, 5, 5, scale=math.sqrt(2 / 25)), "c1": _drawn(rng, 6, scale=0.1),
            "k2": _drawn(rng, 16, 6, 5, 5, scale=math.sqrt(2 / 150)), "c2": _drawn(rng, 16, scale=0.1), **_dense(rng, 400, 120, 84, 10)}


def _transformer_inputs(rng: np.random.Generator) -> Arrays:
    def layer(n: int, m: int, name: str) -> Arrays:
        return {f"w{name}": _drawn(rng, n, m, scale=n**-0.5), f"b{name}": _drawn(rng, m, scale=0.1)}

    def norm(name: str) -> Arrays:
        return {f"g{name}": 1 + _drawn(rng, WIDTH, scale=0.1), f"c{name}": _drawn(rng, WIDTH, scale=0.1)}
    return {"x": _drawn(rng, BATCH, LENGTH, WIDTH), "target": _drawn(rng, BATCH, LENGTH, WIDTH), **norm("1"), **layer(WIDTH, 3 * WIDTH, "qkv"),
            **layer(WIDTH, WIDTH, "o"), **norm("2"), **layer(WIDTH, HIDDEN, "1"), **layer(HIDDEN, WIDTH, "2")}


# ---- rows ------------------------------------------------------------------------------------------------------------

def rows() -> list[Workload]:
    inputs: dict[str, Maker] = {"mlp": _mlp_inputs, "lenet": _lenet_inputs, "transformer": _transformer_inputs}
    with_conv = ("graphc", "jax", "jax_sync", "torch", "torch_compile")  # PyTensor has no convolution over channels, NumPy none at all
    return [Workload(f"train/{model}/{update}", 17, "training", inputs[model], training, tolerance=2e-5, params={"model": model, "update": update}, steps=STEPS,
                     only=with_conv if model == "lenet" else ()) for model in MODELS for update in UPDATES]
