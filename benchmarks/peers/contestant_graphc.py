"""graphc: everything through ``gc.function``.  Variant ``any``: sizes unknown when compiling; else as given."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from references import ADAM, DATA, EPS, HEADS, LEARNING_RATE, MOMENTUM, PARAMETERS, UPDATE_RATE, A, B, C, D
from worker import Arrays, Builders, Built

import graphc as gc

BUILDERS = Builders()
OPTIONS = {"any": False}


def start(variant: str, threads: int) -> dict[str, str]:
    OPTIONS["any"] = variant == "any"
    gc.config.threads = threads
    return {"graphc": "checkout", "config.backend": str(gc.config.backend)}


def variables(inputs: Arrays) -> dict[str, Any]:
    """An input variable for every array."""
    if OPTIONS["any"]:
        return {k: gc.tensor(k, shape=(None,) * v.ndim, dtype=str(v.dtype)) for k, v in inputs.items()}
    return {k: gc.tensor(k, shape=v.shape, dtype=str(v.dtype)) for k, v in inputs.items()}


def compiled(inputs: Arrays, v: dict[str, Any], outputs: Any) -> Built:
    f = gc.function([v[k] for k in inputs], outputs)
    fetch = (lambda r: list(r)) if isinstance(outputs, list) else (lambda r: [r])
    return Built(f, tuple(inputs.values()), fetch, note=f.backend)


def chain(x: Any) -> Any:
    return gc.tanh(A * x + B) * gc.sigmoid(C * x) + D * x * x


def layernorm(x: Any, w: Any, b: Any) -> Any:
    return (x - gc.mean(x, axis=-1, keepdims=True)) / gc.sqrt(gc.var(x, axis=-1, keepdims=True) + EPS) * w + b


def gelu(h: Any) -> Any:
    return 0.5 * h * (1 + gc.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def scalar_grad(x: Any, y: Any) -> Any:
    return gc.grad(x * x / 20 + y * y, [x, y])


def xent(z: Any, labels: Any) -> Any:
    loss = gc.nn.cross_entropy(z, labels)
    return [loss, gc.grad(loss, z)]


def logistic(beta: Any, x: Any, y: Any) -> Any:
    eta = x @ beta
    density = gc.sum(y * eta - gc.softplus(eta)) - 0.5 * gc.sum(beta * beta)
    return [density, gc.grad(density, beta)]


def conv_step(x: Any, w: Any, g: Any, **options: int) -> Any:
    y = gc.nn.conv(x, w, **options)
    return [y, *gc.grad(gc.sum(y * g), [x, w])]


def gelu_erf(h: Any) -> Any:
    return 0.5 * h * (1 + gc.erf(h * math.sqrt(0.5)))


def attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    scores = q @ gc.swapaxes(k, -1, -2) * q.shape[-1] ** -0.5
    if causal:
        places = gc.arange(q.shape[-2])
        scores = gc.where(places[:, None] >= places, scores, -math.inf)
    return gc.nn.softmax(scores) @ v


def attention_step(q: Any, k: Any, v: Any, g: Any, causal: bool) -> Any:
    y = attention(q, k, v, causal)
    return [y, *gc.grad(gc.sum(y * g), [q, k, v])]


def dense(x: Any, w: Any, b: Any) -> Any:
    return gc.nn.relu(x @ w + b)


def dense_step(x: Any, w: Any, b: Any, g: Any) -> Any:
    y = dense(x, w, b)
    return [y, *gc.grad(gc.sum(y * g), [x, w, b])]


def product_chain(x: Any, w: Any, links: int) -> Any:
    for _ in range(links):
        x = x @ w
    return x


#: kind -> the expression of its inputs
FORMULAS: dict[str, Callable[..., Any]] = {
    "scalar_grad": scalar_grad,
    "chain": chain,
    "chain_grad": lambda x: gc.grad(gc.sum(chain(x)), x),
    "xent": xent,
    "layernorm_gelu": lambda x, w, b: gelu(layernorm(x, w, b)),
    "logistic": logistic,
    "softmax": lambda x: gc.nn.softmax(x),
    "layernorm": layernorm,
    "variance": lambda x: gc.var(x, axis=-1),
    "unary": lambda x, function: getattr(gc, function)(x),
    "add": lambda x, y: x + y,
    "copy": lambda x: x,
    "transpose": lambda x: x.T,
    "reverse": lambda x: x[::-1],
    "concat0": lambda x, y: gc.concatenate([x, y], axis=0),
    "concat1": lambda x, y: gc.concatenate([x, y], axis=1),
    "pairwise": lambda a, b: gc.sum((a[:, None] - b[None]) ** 2, axis=-1),
    "colsum": lambda x: gc.sum(x, axis=0),
    "colmean": lambda x: gc.mean(x, axis=0),
    "sum": lambda x: gc.sum(x),
    "max": lambda x: gc.max(x),
    "matmul": lambda a, b, form: (gc.swapaxes(a, -1, -2) if form == "atb" else a) @ (gc.swapaxes(b, -1, -2) if form == "abt" else b),
    "conv_step": conv_step,
    "attention": attention,
    "attention_step": attention_step,
    "dense": dense,
    "dense_step": dense_step,
    "dense_gelu": lambda x, w, b, residual: gelu_erf(x @ w + b) + residual,
    "product_chain": product_chain,
}


@BUILDERS.row("layer")
def layer(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    """The weights are state, which is what they are in a model."""
    x = variables({"x": inputs["x"]})
    return compiled({"x": inputs["x"]}, x, dense(x["x"], gc.shared(inputs["w"], "w").T, gc.shared(inputs["b"], "b")))


@BUILDERS.row(*FORMULAS)
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    v = variables(inputs)
    return compiled(inputs, v, FORMULAS[kind](**v, **params))


@BUILDERS.row("matmul_bfloat16")
def matmul_bfloat16(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    built = formula("matmul", {k: v.astype(gc.asarray(0, dtype="bfloat16").dtype) for k, v in inputs.items()}, params)
    return replace(built, fetch=lambda r: [r.astype("float32")])


@BUILDERS.row("mlp")
def mlp(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: v for k, v in inputs.items() if k not in PARAMETERS}
    v = variables(data)
    state = [gc.shared(inputs[k], k) for k in PARAMETERS]
    w1, b1, w2, b2 = state
    loss = gc.nn.cross_entropy(gc.nn.relu(v["x"] @ w1 + b1) @ w2 + b2, v["labels"])
    updates = gc.optim.momentum(lr=LEARNING_RATE, momentum=MOMENTUM).updates(loss, state)
    f = gc.function([v[k] for k in data], loss, updates=updates)
    return Built(f, tuple(data.values()), lambda r: [r], lambda: [s.get_value() for s in state], f.backend)


def classifier(p: dict[str, Any], x: Any, labels: Any) -> Any:
    h = dense(dense(x, p["w1"], p["b1"]), p["w2"], p["b2"])
    return gc.nn.cross_entropy(h @ p["w3"] + p["b3"], labels)


def lenet(p: dict[str, Any], x: Any, labels: Any) -> Any:
    h = gc.nn.max_pool(gc.nn.relu(gc.nn.conv(x, p["k1"], padding=2) + p["c1"][:, None, None]), 2)
    h = gc.nn.max_pool(gc.nn.relu(gc.nn.conv(h, p["k2"]) + p["c2"][:, None, None]), 2)
    return classifier(p, gc.reshape(h, (x.shape[0], -1)), labels)


def transformer(p: dict[str, Any], x: Any, target: Any) -> Any:
    batch, length, _ = x.shape
    qkv = gc.reshape(layernorm(x, p["g1"], p["c1"]) @ p["wqkv"] + p["bqkv"], (batch, length, 3, HEADS, -1))
    mixed = attention(*(gc.swapaxes(qkv[:, :, i], 1, 2) for i in range(3)))
    h = x + gc.reshape(gc.swapaxes(mixed, 1, 2), x.shape) @ p["wo"] + p["bo"]
    h = h + gelu_erf(layernorm(h, p["g2"], p["c2"]) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]
    return gc.nn.mse(h, target)


MODELS = {"mlp": classifier, "lenet": lenet, "transformer": transformer}
OPTIMISERS = {"momentum": lambda: gc.optim.momentum(lr=LEARNING_RATE, momentum=MOMENTUM),
              "adam": lambda: gc.optim.adam(lr=ADAM.rate, rho1=ADAM.mean, rho2=ADAM.square, delta=ADAM.delta)}


@BUILDERS.row("training")
def training(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: v for k, v in inputs.items() if k in DATA}
    v = variables(data)
    p = {k: gc.shared(v, k) for k, v in inputs.items() if k not in DATA}
    loss = MODELS[params["model"]](p, *v.values())
    updates = OPTIMISERS[params["update"]]().updates(loss, list(p.values()))
    f = gc.function(list(v.values()), loss, updates=updates)
    return Built(f, tuple(data.values()), lambda r: [r], lambda: [s.get_value() for s in p.values()], f.backend)


@BUILDERS.row("product_update")
def product_update(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: inputs[k] for k in ("x", "g")}
    v = variables(data)
    w, velocity = gc.shared(inputs["w"], "w"), gc.shared(np.zeros_like(inputs["w"]), "velocity")
    new = MOMENTUM * velocity + v["x"].T @ v["g"]
    f = gc.function(list(v.values()), updates={velocity: new, w: w - UPDATE_RATE * new})
    return Built(f, tuple(data.values()), lambda r: [], lambda: [w.get_value()], f.backend)
