"""graphc: everything through ``gc.function``.  Variant ``any``: sizes unknown when compiling; else as given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from worker import Arrays, Builders, Built
from workloads import EPS, LEARNING_RATE, MOMENTUM, PARAMETERS, A, B, C, D

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
}


@BUILDERS.row(*FORMULAS)
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    v = variables(inputs)
    return compiled(inputs, v, FORMULAS[kind](**v, **params))


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
