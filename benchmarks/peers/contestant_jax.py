"""JAX: ``jax.jit`` of everything, arguments as JAX arrays, results waited for.

Variant ``sync``: the same with asynchronous dispatch switched off, which suits callers that wait for every result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from references import ADAM, DATA, EPS, HEADS, LEARNING_RATE, MOMENTUM, PARAMETERS, UPDATE_RATE, A, B, C, D
from worker import Arrays, Builders, Built, quickest

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


def attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    scores = q @ k.swapaxes(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        scores = jnp.where(jnp.tri(q.shape[-2], dtype=bool), scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1) @ v


def library_attention(q: Any, k: Any, v: Any, causal: bool = False) -> Any:
    """JAX's own, whose arrays are (batch, length, heads, d)."""
    return jax.nn.dot_product_attention(*(a[:, :, None] for a in (q, k, v)), is_causal=causal)[:, :, 0]


def dense(x: Any, w: Any, b: Any) -> Any:
    return jax.nn.relu(x @ w + b)


def product_chain(x: Any, w: Any, links: int) -> Any:
    for _ in range(links):
        x = x @ w
    return x


def with_gradients(f: Callable[..., Any]) -> Callable[..., Any]:
    """The value of a function of all inputs but the last, and the gradients of its product with that one."""
    def step(*args: Any) -> Any:
        y, back = jax.vjp(f, *args[:-1])
        return (y, *back(args[-1]))
    return step


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
    "dense": dense,
    "layer": lambda x, w, b: dense(x, w.T, b),
    "dense_step": with_gradients(dense),
    "dense_gelu": lambda x, w, b, residual: jax.nn.gelu(x @ w + b, approximate=False) + residual,
    "product_chain": product_chain,
}


def on_arrays(f: Callable[..., Any], inputs: Arrays, pair: bool = False) -> Built:
    """A function of JAX arrays; ``pair``: of small results, two, which are waited for one by one because that is quicker."""
    args = [jnp.asarray(v) for v in inputs.values()]
    jax.block_until_ready(args)
    if pair:
        def call(*args: Any) -> Any:
            a, b = f(*args)
            a.block_until_ready()
            b.block_until_ready()
            return a, b
    else:
        def call(*args: Any) -> Any:
            return jax.block_until_ready(f(*args))
    return Built(call, args, lambda r: [np.asarray(v) for v in (r if isinstance(r, tuple) else (r,))])


@BUILDERS.row(*FORMULAS, "unary")
def formula(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    f = jax.jit(FUNCTIONS[params["function"]] if kind == "unary" else functools.partial(FORMULAS[kind], **params))
    return on_arrays(f, inputs, kind in ("scalar_grad", "xent", "logistic"))


@BUILDERS.row("attention", "attention_step")
def attentions(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    forms = {"composed": attention, "jax.nn.dot_product_attention": library_attention}

    def make(f: Callable[..., Any]) -> Built:
        f = functools.partial(f, **params)
        return on_arrays(jax.jit(with_gradients(f) if kind == "attention_step" else f), inputs)
    return quickest({name: functools.partial(make, f) for name, f in forms.items()})


@BUILDERS.row("matmul_bfloat16")
def matmul_bfloat16(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    built = on_arrays(jax.jit(jnp.matmul), {k: v.astype(jnp.bfloat16) for k, v in inputs.items()})
    return replace(built, fetch=lambda r: [np.asarray(r).astype("float32")])


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


def classifier(p: Any, x: Any, labels: Any) -> Any:
    h = dense(dense(x, p["w1"], p["b1"]), p["w2"], p["b2"])
    return cross_entropy(h @ p["w3"] + p["b3"], labels)


def lenet(p: Any, x: Any, labels: Any) -> Any:
    def layer(h: Any, k: Any, c: Any, padding: int) -> Any:
        h = jax.nn.relu(jax.lax.conv_general_dilated(h, k, (1, 1), [(padding, padding)] * 2) + c[:, None, None])
        return jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    h = layer(layer(x, p["k1"], p["c1"], 2), p["k2"], p["c2"], 0)
    return classifier(p, h.reshape(len(x), -1), labels)


def transformer(p: Any, x: Any, target: Any) -> Any:
    qkv = (layernorm(x, p["g1"], p["c1"]) @ p["wqkv"] + p["bqkv"]).reshape(*x.shape[:2], 3, HEADS, -1)
    mixed = attention(*(qkv[:, :, i].swapaxes(1, 2) for i in range(3)))
    h = x + mixed.swapaxes(1, 2).reshape(x.shape) @ p["wo"] + p["bo"]
    h = h + jax.nn.gelu(layernorm(h, p["g2"], p["c2"]) @ p["w1"] + p["b1"], approximate=False) @ p["w2"] + p["b2"]
    return jnp.square(h - target).mean()


MODELS = {"mlp": classifier, "lenet": lenet, "transformer": transformer}


def momentum(p: Any, grads: Any, state: Any) -> Any:
    velocity = {k: MOMENTUM * state[k] - LEARNING_RATE * grads[k] for k in p}
    return {k: p[k] + velocity[k] for k in p}, velocity


def adam(p: Any, grads: Any, state: Any) -> Any:
    t = state["t"] + 1
    one, two = ((1 - rho**t).astype(jnp.float32) for rho in (ADAM.mean, ADAM.square))
    s = {k: ADAM.mean * state["s"][k] + (1 - ADAM.mean) * grads[k] for k in p}
    r = {k: ADAM.square * state["r"][k] + (1 - ADAM.square) * jnp.square(grads[k]) for k in p}
    new = {k: p[k] - ADAM.rate * (s[k] / one) / (jnp.sqrt(r[k] / two) + ADAM.delta) for k in p}
    return new, {"s": s, "r": r, "t": t}


def zeros(p: Any) -> Any:
    return {k: jnp.zeros_like(v) for k, v in p.items()}


#: update -> the rule and its first state
UPDATES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "momentum": (momentum, zeros), "adam": (adam, lambda p: {"s": zeros(p), "r": zeros(p), "t": jnp.zeros((), jnp.float64)})}


@BUILDERS.row("training")
def training(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    rule, first = UPDATES[params["update"]]

    def step(state: Any, *data: Any) -> Any:
        p, kept = state
        loss, grads = jax.value_and_grad(MODELS[params["model"]])(p, *data)
        return rule(p, grads, kept), loss

    compiled = jax.jit(step, donate_argnums=0)
    p = {k: jnp.array(v) for k, v in inputs.items() if k not in DATA}
    names, held = list(p), [(p, first(p))]

    def call(*data: Any) -> Any:
        held[0], loss = compiled(held[0], *data)
        return loss.block_until_ready()

    args = tuple(jnp.asarray(v) for k, v in inputs.items() if k in DATA)
    return Built(call, args, lambda r: [np.asarray(r)], lambda: [np.array(held[0][0][k]) for k in names])


@BUILDERS.row("product_update")
def product_update(kind: str, inputs: Arrays, params: dict[str, Any]) -> Built:
    def step(state: Any, x: Any, g: Any) -> Any:
        w, v = state
        v = MOMENTUM * v + x.T @ g
        return w - UPDATE_RATE * v, v

    compiled = jax.jit(step, donate_argnums=0)
    w = jnp.array(inputs["w"])
    held = [(w, jnp.zeros_like(w))]

    def call(x: Any, g: Any) -> None:
        held[0] = jax.block_until_ready(compiled(held[0], x, g))

    args = (jnp.asarray(inputs["x"]), jnp.asarray(inputs["g"]))
    return Built(call, args, lambda r: [], lambda: [np.array(held[0][0])])
