"""JAX: ``jax.jit`` of everything, arguments as JAX arrays, results waited for.

Variant ``sync``: the same with asynchronous dispatch switched off, which suits callers that wait for every result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from worker import Arrays, Builders, Built
from workloads import EPS, LEARNING_RATE, MOMENTUM, PARAMETERS, A, B, C, D

BUILDERS = Builders()


def start(variant: str, threads: int) -> dict[str, str]:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)  # float64 rows; float32 inputs stay float32
    if variant == "sync":
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.block_until_ready(jnp.asarray(np.zeros(1)))  # the device comes up with its first array
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__}


def chain(x: Any) -> Any:
    return jnp.tanh(A * x + B) * jax.nn.sigmoid(C * x) + D * x * x


def layernorm(x: Any, w: Any, b: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + EPS) * w + b


def cross_entropy(z: Any, labels: Any) -> Any:
    return -jnp.take_along_axis(jax.nn.log_softmax(z), labels[:, None], axis=-1).mean()


def density(beta: Any, x: Any, y: Any) -> Any:
    eta = x @ beta
    return (y * eta - jax.nn.softplus(eta)).sum() - 0.5 * (beta * beta).sum()


def conv_step(x: Any, w: Any, g: Any, stride: int, padding: int, groups: int) -> Any:
    space = x.ndim - 2

    def conv(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(x, w, (stride,) * space, [(padding, padding)] * space, feature_group_count=groups)
    y, back = jax.vjp(conv, x, w)
    return (y, *back(g))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": jnp.exp, "log": jnp.log, "tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "erf": jax.lax.erf, "sin": jnp.sin, "sqrt": jnp.sqrt}

#: kind -> the function of its inputs
FORMULAS: dict[str, Callable[..., Any]] = {
    "scalar_grad": jax.grad(lambda x, y: x * x / 20 + y * y, argnums=(0, 1)),
    "chain": chain,
    "chain_grad": jax.grad(lambda x: chain(x).sum()),
    "xent": jax.value_and_grad(cross_entropy),
    "layernorm_gelu": lambda x, w, b: jax.nn.gelu(layernorm(x, w, b), approximate=True),
    "logistic": jax.value_and_grad(density),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "layernorm": layernorm,
    "variance": lambda x: x.var(-1),
    "add": lambda x, y: x + y,
    "copy": jnp.copy,
    "transpose": lambda x: x.T,
    "reverse": lambda x: x[::-1],
    "concat0": lambda x, y: jnp.concatenate([x, y], 0),
    "concat1": lambda x, y: jnp.concatenate([x, y], 1),
    "pairwise": lambda a, b: ((a[:, None] - b[None]) ** 2).sum(-1),
    "colsum": lambda x: x.sum(0),
    "colmean": lambda x: x.mean(0),
    "sum": jnp.sum,
    "max": jnp.max,
    "matmul": lambda a, b, form: (a.swapaxes(-1, -2) if form == "atb" else a) @ (b.swapaxes(-1, -2) if form == "abt" else b),
    "conv_step": conv_step,
}


@BUILDERS.row(*FORMULAS, "unary")
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    f = jax.jit(FUNCTIONS[params["function"]] if kind == "unary" else functools.partial(FORMULAS[kind], **(params if kind in ("matmul", "conv_step") else {})))
    args = [jnp.asarray(v) for v in inputs.values()]
    jax.block_until_ready(args)
    if kind in ("scalar_grad", "xent", "logistic"):
        def call(*args: Any) -> Any:
            a, b = f(*args)
            a.block_until_ready()
            b.block_until_ready()
            return a, b
    else:
        def call(*args: Any) -> Any:
            return jax.block_until_ready(f(*args))
    return Built(call, args, lambda r: [np.asarray(v) for v in (r if isinstance(r, tuple) else (r,))])


@BUILDERS.row("mlp")
def mlp(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    def loss_of(p: Any, x: Any, labels: Any) -> Any:
        w1, b1, w2, b2 = p
        return cross_entropy(jax.nn.relu(x @ w1 + b1) @ w2 + b2, labels)

    def step(state: Any, x: Any, labels: Any) -> Any:
        p, velocity = state
        loss, grads = jax.value_and_grad(loss_of)(p, x, labels)
        velocity = [MOMENTUM * v - LEARNING_RATE * g for v, g in zip(velocity, grads, strict=True)]
        return ([a + v for a, v in zip(p, velocity, strict=True)], velocity), loss

    compiled = jax.jit(step, donate_argnums=0)
    p = [jnp.array(inputs[k]) for k in PARAMETERS]
    held = [(p, [jnp.zeros_like(a) for a in p])]

    def call(x: Any, labels: Any) -> Any:
        held[0], loss = compiled(held[0], x, labels)
        return loss.block_until_ready()

    args = (jnp.asarray(inputs["x"]), jnp.asarray(inputs["labels"]))
    return Built(call, args, lambda r: [np.asarray(r)], lambda: [np.array(a) for a in held[0][0]])
