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
from worker import Arrays, Builders, Built
from workloads import EPS, LEARNING_RATE, MOMENTUM, PARAMETERS, A, B, C, D

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
