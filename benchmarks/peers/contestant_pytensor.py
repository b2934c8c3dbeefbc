"""PyTensor: ``pytensor.function`` in mode FAST_RUN with the default linker (numba); variant ``c``: with the C linker.

Sizes are given when compiling and ``trust_input`` is set, as PyMC does: both can only help it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode, get_mode
from pytensor.tensor.special import log_softmax, softmax
from references import ADAM, DATA, EPS, HEADS, LEARNING_RATE, MOMENTUM, PARAMETERS, UPDATE_RATE, A, B, C, D
from worker import Arrays, Builders, Built

BUILDERS = Builders()
OPTIONS: dict[str, Any] = {"mode": "FAST_RUN"}


def start(variant: str, threads: int) -> dict[str, str]:
    if variant == "c":
        OPTIONS["mode"] = Mode(linker="cvm", optimizer="fast_run")
    linker = type(get_mode(OPTIONS["mode"]).linker).__name__
    return {"pytensor": pytensor.__version__, "linker": linker}


def variables(inputs: Arrays) -> dict[str, Any]:
    return {k: pt.tensor(k, shape=v.shape, dtype=str(v.dtype)) for k, v in inputs.items()}


def function(inputs: list[Any], outputs: Any, updates: Any = None) -> Any:
    f = pytensor.function(inputs, outputs, updates=updates, mode=OPTIONS["mode"])
    f.trust_input = True
    return f


def chain(x: Any) -> Any:
    return pt.tanh(A * x + B) * pt.sigmoid(C * x) + D * x * x


def layernorm(x: Any, w: Any, b: Any) -> Any:
    return (x - pt.mean(x, axis=-1, keepdims=True)) / pt.sqrt(pt.var(x, axis=-1, keepdims=True) + EPS) * w + b


def gelu(h: Any) -> Any:
    return 0.5 * h * (1 + pt.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def cross_entropy(z: Any, labels: Any) -> Any:
    return -log_softmax(z, axis=-1)[pt.arange(z.shape[0]), labels].mean()


def xent(z: Any, labels: Any) -> Any:
    loss = cross_entropy(z, labels)
    return [loss, pytensor.grad(loss, z)]


def logistic(beta: Any, x: Any, y: Any) -> Any:
    eta = x @ beta
    density = (y * eta - pt.softplus(eta)).sum() - 0.5 * (beta * beta).sum()
    return [density, pytensor.grad(density, beta)]


def gelu_erf(h: Any) -> Any:
    return 0.5 * h * (1 + pt.erf(h * math.sqrt(0.5)))


def attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    scores = pt.matmul(q, pt.swapaxes(k, -1, -2)) * q.type.shape[-1] ** -0.5
    if causal:
        scores = pt.where(np.tri(q.type.shape[-2], dtype=bool), scores, np.float32(-np.inf))
    return pt.matmul(softmax(scores, axis=-1), v)


def attention_step(q: Any, k: Any, v: Any, g: Any, causal: bool) -> Any:
    y = attention(q, k, v, causal)
    return [y, *pytensor.grad((y * g).sum(), [q, k, v])]


def dense(x: Any, w: Any, b: Any) -> Any:
    return pt.maximum(x @ w + b, 0)


def dense_step(x: Any, w: Any, b: Any, g: Any) -> Any:
    y = dense(x, w, b)
    return [y, *pytensor.grad((y * g).sum(), [x, w, b])]


def product_chain(x: Any, w: Any, links: int) -> Any:
    for _ in range(links):
        x = x @ w
    return x


#: kind -> the expression of its inputs
FORMULAS: dict[str, Callable[..., Any]] = {
    "scalar_grad": lambda x, y: pytensor.grad(x * x / 20 + y * y, [x, y]),
    "chain": chain,
    "chain_grad": lambda x: pytensor.grad(chain(x).sum(), x),
    "xent": xent,
    "layernorm_gelu": lambda x, w, b: gelu(layernorm(x, w, b)),
    "logistic": logistic,
    "softmax": lambda x: softmax(x, axis=-1),
    "layernorm": layernorm,
    "variance": lambda x: pt.var(x, axis=-1),
    "unary": lambda x, function: getattr(pt, function)(x),
    "add": lambda x, y: x + y,
    "copy": lambda x: x,
    "transpose": lambda x: x.T,
    "reverse": lambda x: x[::-1],
    "concat0": lambda x, y: pt.concatenate([x, y], axis=0),
    "concat1": lambda x, y: pt.concatenate([x, y], axis=1),
    "pairwise": lambda a, b: ((a[:, None] - b[None]) ** 2).sum(-1),
    "colsum": lambda x: x.sum(0),
    "colmean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(),
    "max": lambda x: x.max(),
    "matmul": lambda a, b, form: pt.matmul(pt.swapaxes(a, -1, -2) if form == "atb" else a, pt.swapaxes(b, -1, -2) if form == "abt" else b),
    "attention": attention,
    "attention_step": attention_step,
    "dense": dense,
    "dense_step": dense_step,
    "dense_gelu": lambda x, w, b, residual: gelu_erf(x @ w + b) + residual,
    "product_chain": product_chain,
}


def fetch(result: Any) -> list[Any]:
    return [np.asarray(v) for v in (result if isinstance(result, list) else [result])]


@BUILDERS.row(*FORMULAS)
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    v = variables(inputs)
    narrow = all(a.dtype != "float64" for a in inputs.values())
    with pytensor.config.change_flags(floatX="float32" if narrow else "float64"):  # else a literal like 0.3 makes float64 of float32
        outputs = FORMULAS[kind](**v, **params)
    f = function(list(v.values()), outputs)
    args = tuple(inputs.values())
    if kind in ("transpose", "reverse") and not f(*args).flags.c_contiguous:  # no op makes an array contiguous: its user calls NumPy
        return Built(lambda x: np.ascontiguousarray(f(x)), args, fetch, note="np.ascontiguousarray outside")
    return Built(f, args, fetch)


@BUILDERS.row("layer")
def layer(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    """The weights are state."""
    x = variables({"x": inputs["x"]})
    w, b = (pytensor.shared(inputs[k], k, shape=inputs[k].shape) for k in ("w", "b"))
    return Built(function(list(x.values()), dense(x["x"], w.T, b)), (inputs["x"],), fetch)


@BUILDERS.row("mlp")
def mlp(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: inputs[k] for k in ("x", "labels")}
    v = variables(data)
    p = [pytensor.shared(inputs[k], k, shape=inputs[k].shape) for k in PARAMETERS]
    velocity = [pytensor.shared(np.zeros_like(inputs[k]), f"v_{k}", shape=inputs[k].shape) for k in PARAMETERS]
    w1, b1, w2, b2 = p
    updates = []
    loss = cross_entropy(pt.maximum(v["x"] @ w1 + b1, 0) @ w2 + b2, v["labels"])
    for a, u, g in zip(p, velocity, pytensor.grad(loss, p), strict=True):
        new = np.float32(MOMENTUM) * u - np.float32(LEARNING_RATE) * g
        updates += [(u, new), (a, a + new)]
    f = function(list(v.values()), loss, updates)
    return Built(f, tuple(data.values()), fetch, lambda: [a.get_value() for a in p])


def classifier(p: Any, x: Any, labels: Any) -> Any:
    h = dense(dense(x, p["w1"], p["b1"]), p["w2"], p["b2"])
    return cross_entropy(h @ p["w3"] + p["b3"], labels)


def transformer(p: Any, x: Any, target: Any) -> Any:
    batch, length, width = x.type.shape

    def linear(h: Any, name: str) -> Any:  # of two axes: a product of three is done in batches
        return h @ p[f"w{name}"] + p[f"b{name}"]

    flat = x.reshape((batch * length, width))
    qkv = linear(layernorm(flat, p["g1"], p["c1"]), "qkv").reshape((batch, length, 3, HEADS, width // HEADS)).transpose(2, 0, 3, 1, 4)
    mixed = attention(qkv[0], qkv[1], qkv[2])
    h = flat + linear(mixed.transpose(0, 2, 1, 3).reshape((batch * length, width)), "o")
    h = h + linear(gelu_erf(linear(layernorm(h, p["g2"], p["c2"]), "1")), "2")
    return pt.sqr(h - target.reshape(flat.shape)).mean()


MODELS = {"mlp": classifier, "transformer": transformer}


def zeros(a: Any) -> Any:
    return pytensor.shared(np.zeros_like(a.get_value()), shape=a.type.shape)


def momentum(p: list[Any], grads: list[Any]) -> list[tuple[Any, Any]]:
    updates = []
    for a, g in zip(p, grads, strict=True):
        v = zeros(a)
        new = MOMENTUM * v - LEARNING_RATE * g
        updates += [(v, new), (a, a + new)]
    return updates


def adam(p: list[Any], grads: list[Any]) -> list[tuple[Any, Any]]:
    count = pytensor.shared(0.0)
    one, two = (pt.cast(1 - np.float64(rho) ** (count + 1), "float32") for rho in (ADAM.mean, ADAM.square))
    updates = [(count, count + 1)]
    for a, g in zip(p, grads, strict=True):
        s, r = zeros(a), zeros(a)
        mean, square = ADAM.mean * s + (1 - ADAM.mean) * g, ADAM.square * r + (1 - ADAM.square) * pt.sqr(g)
        updates += [(s, mean), (r, square), (a, a - ADAM.rate * (mean / one) / (pt.sqrt(square / two) + ADAM.delta))]
    return updates


UPDATES = {"momentum": momentum, "adam": adam}


@BUILDERS.row("training")
def training(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: v for k, v in inputs.items() if k in DATA}
    v = variables(data)
    p = {k: pytensor.shared(a, k, shape=a.shape) for k, a in inputs.items() if k not in DATA}
    with pytensor.config.change_flags(floatX="float32"):
        loss = MODELS[params["model"]](p, *v.values())
        updates = UPDATES[params["update"]](list(p.values()), pytensor.grad(loss, list(p.values())))
    f = function(list(v.values()), loss, updates)
    return Built(f, tuple(data.values()), fetch, lambda: [a.get_value() for a in p.values()])


@BUILDERS.row("product_update")
def product_update(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    data = {k: inputs[k] for k in ("x", "g")}
    v = variables(data)
    w = pytensor.shared(inputs["w"], "w", shape=inputs["w"].shape)
    velocity = zeros(w)
    with pytensor.config.change_flags(floatX="float32"):
        new = MOMENTUM * velocity + v["x"].T @ v["g"]
        f = function(list(v.values()), [], [(velocity, new), (w, w - UPDATE_RATE * new)])
    return Built(f, tuple(data.values()), lambda r: [], lambda: [w.get_value()])
