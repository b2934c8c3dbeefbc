"""NumPy (erf: SciPy): what a user writes by hand, gradients worked out on paper."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.special
from attention_workloads import attention, attention_step
from references import DATA, EPS, LEARNING_RATE, MOMENTUM, PARAMETERS, UPDATE_RATE, A, B, C, D
from training_workloads import UPDATES, transformer
from training_workloads import mlp as mlp_gradients
from worker import Arrays, Builders, Built

BUILDERS = Builders()


def start(variant: str, threads: int) -> dict[str, str]:
    return {"numpy": np.__version__, "scipy": scipy.__version__}


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def chain_grad(x: Any) -> Any:
    t, s = np.tanh(A * x + B), sigmoid(C * x)
    return s * (A * (1 - t * t) + C * t * (1 - s)) + 2 * D * x


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e


def xent(z: Any, labels: Any) -> Any:
    rows = np.arange(len(z))
    shifted = z - z.max(-1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(-1, keepdims=True)
    loss = (np.log(total[:, 0]) - shifted[rows, labels]).mean()
    p /= total
    p[rows, labels] -= 1
    p /= len(z)
    return [loss, p]


def layernorm(x: Any, w: Any, b: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    centred /= np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(EPS))
    centred *= w
    centred += b
    return centred


def gelu(h: Any) -> Any:
    return 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * (h * h * h))))


def logistic(beta: Any, x: Any, y: Any) -> Any:
    eta = x @ beta
    return [y @ eta - np.logaddexp(0, eta).sum() - 0.5 * (beta @ beta), (y - sigmoid(eta)) @ x - beta]


def dense(x: Any, w: Any, b: Any) -> Any:
    h = x @ w
    h += b
    return np.maximum(h, 0, out=h)


def dense_step(x: Any, w: Any, b: Any, g: Any) -> Any:
    y = dense(x, w, b)
    back = g * (y > 0)
    return [y, back @ w.T, x.T @ back, back.sum(0)]


def dense_gelu(x: Any, w: Any, b: Any, residual: Any) -> Any:
    h = x @ w
    h += b
    part = scipy.special.erf(h * math.sqrt(0.5))
    part += 1
    h *= part
    h *= 0.5
    h += residual
    return h


def product_chain(x: Any, w: Any, links: int) -> Any:
    for _ in range(links):
        x = x @ w
    return x


#: kind -> the function of its inputs
FORMULAS: dict[str, Callable[..., Any]] = {
    "scalar_grad": lambda x, y: [x / 10, 2 * y],
    "chain": lambda x: np.tanh(A * x + B) * sigmoid(C * x) + D * x * x,
    "chain_grad": chain_grad,
    "xent": xent,
    "layernorm_gelu": lambda x, w, b: gelu(layernorm(x, w, b)),
    "logistic": logistic,
    "softmax": softmax,
    "layernorm": layernorm,
    "variance": lambda x: x.var(-1),
    "add": np.add,
    "copy": np.copy,
    "transpose": lambda x: np.ascontiguousarray(x.T),
    "reverse": lambda x: np.ascontiguousarray(x[::-1]),
    "concat0": lambda x, y: np.concatenate([x, y], 0),
    "concat1": lambda x, y: np.concatenate([x, y], 1),
    "pairwise": lambda a, b: np.square(a[:, None] - b[None]).sum(-1),
    "colsum": lambda x: x.sum(0),
    "colmean": lambda x: x.mean(0),
    "sum": np.sum,
    "max": np.max,
    "matmul": lambda a, b, form: (a.swapaxes(-1, -2) if form == "atb" else a) @ (b.swapaxes(-1, -2) if form == "abt" else b),
    "attention": attention,
    "attention_step": attention_step,
    "dense": dense,
    "layer": lambda x, w, b: dense(x, w.T, b),
    "dense_step": dense_step,
    "dense_gelu": dense_gelu,
    "product_chain": product_chain,
}


@BUILDERS.row(*FORMULAS, "unary")
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    special = {"sigmoid": sigmoid, "erf": scipy.special.erf}
    f = functools.partial(FORMULAS[kind], **params) if kind != "unary" else special.get(params["function"]) or getattr(np, params["function"])
    args = [v[()] for v in inputs.values()]  # 0-d arrays become the scalars that a user of NumPy has
    return Built(f, args, lambda r: [np.asarray(v) for v in (r if isinstance(r, list) else [r])])


@BUILDERS.row("mlp")
def mlp(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    p = {k: inputs[k].copy() for k in PARAMETERS}
    velocity = {k: np.zeros_like(v) for k, v in p.items()}

    def step(x: Any, labels: Any) -> Any:
        h = x @ p["w1"]
        h += p["b1"]
        np.maximum(h, 0, out=h)
        loss, dz = xent(h @ p["w2"] + p["b2"], labels)
        dh = dz @ p["w2"].T
        dh *= h > 0
        for k, g in (("w1", x.T @ dh), ("b1", dh.sum(0)), ("w2", h.T @ dz), ("b2", dz.sum(0))):
            v = velocity[k]
            v *= MOMENTUM
            g *= LEARNING_RATE
            v -= g
            p[k] += v
        return loss

    return Built(step, (inputs["x"], inputs["labels"]), lambda r: [np.asarray(r)], lambda: list(p.values()))


MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp_gradients, "transformer": functools.partial(transformer, erf=scipy.special.erf)}


@BUILDERS.row("training")
def training(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    """The models of the reference, which keep the dtype."""
    p = {k: v.copy() for k, v in inputs.items() if k not in DATA}
    state: dict[str, Any] = {}
    steps = itertools.count(1)
    model, update = MODELS[params["model"]], UPDATES[params["update"]]

    def step(*data: Any) -> Any:
        loss, grads = model(p, *data)
        update(p, grads, state, next(steps))
        return loss

    return Built(step, [v for k, v in inputs.items() if k in DATA], lambda r: [np.asarray(r)], lambda: list(p.values()))


@BUILDERS.row("product_update")
def product_update(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    w = inputs["w"].copy()
    velocity = np.zeros_like(w)

    def step(x: Any, g: Any) -> None:
        np.multiply(velocity, MOMENTUM, out=velocity)
        np.add(velocity, x.T @ g, out=velocity)
        np.subtract(w, UPDATE_RATE * velocity, out=w)

    return Built(step, (inputs["x"], inputs["g"]), lambda r: [], lambda: [w])
