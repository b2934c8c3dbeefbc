"""Group 19: products with what surrounds them, as they stand in larger functions."""

from __future__ import annotations

import numpy as np
from references import MOMENTUM, UPDATE_RATE, matmul, normal_cdf
from workload import Array, Arrays, Maker, Workload, normal

SIZES = ((128, 784, 512), (1024, 512, 512), (1024, 1024, 1024), (32, 4096, 1024))  # m, k, n
STEPS = 3  # of the product in an update
LINKS = 64  # of a chain of products
LAYERS = ((1, 1024, 1024), (8, 1024, 1024), (32, 4096, 1024), (128, 784, 512))  # m, k, n of layers whose weights stay from call to call


# ---- references ------------------------------------------------------------------------------------------------------

def dense(x: Array, w: Array, b: Array) -> list[Array]:
    return [np.maximum(x @ w + b, 0)]


def dense_step(x: Array, w: Array, b: Array, g: Array) -> list[Array]:
    """The result, and the gradients of its product with ``g``."""
    y = dense(x, w, b)[0]
    back = g * (y > 0)
    return [y, back @ w.T, x.T @ back, back.sum(0)]


def dense_gelu(x: Array, w: Array, b: Array, residual: Array) -> list[Array]:
    h = x @ w + b
    return [h * normal_cdf(h) + residual]


def layer(x: Array, w: Array, b: Array) -> list[Array]:
    """The weight is (n_out, n_in), as PyTorch keeps it."""
    return [np.maximum(x @ w.T + b, 0)]


def product_update(x: Array, g: Array, w: Array) -> list[Array]:
    v = np.zeros_like(w)
    for _ in range(STEPS):
        v = MOMENTUM * v + x.T @ g
        w = w - UPDATE_RATE * v
    return [w]


def product_chain(x: Array, w: Array, links: int) -> list[Array]:
    for _ in range(links):
        x = x @ w
    return [x]


# ---- inputs ----------------------------------------------------------------------------------------------------------

def _exact(rng: np.random.Generator, *shape: int) -> Array:
    """Multiples of a quarter: sums of their products are exact in float32, so that all agree on which side of 0 they lie."""
    return (np.round(rng.normal(size=shape) * 4) / 4).astype("float32")


def _dense_inputs(m: int, k: int, n: int, gradients: bool) -> Maker:
    def draw(rng: np.random.Generator) -> Arrays:
        inputs = {"x": _exact(rng, m, k), "w": _exact(rng, k, n), "b": _exact(rng, n) + np.float32(1 / 32)}  # never 0, where relu has a kink
        return inputs | {"g": rng.normal(size=(m, n)).astype("float32")} if gradients else inputs
    return draw


def _rounded(rng: np.random.Generator, *shape: int) -> Array:
    """Values that bfloat16 holds, in float32: NumPy has no such dtype, each contestant makes its own arrays of them."""
    bits = rng.normal(size=shape).astype("float32").view("uint32")
    return ((bits + 0x8000) & 0xFFFF0000).astype("uint32").view("float32")


def _bfloat_inputs(rng: np.random.Generator) -> Arrays:
    return {"a": _rounded(rng, 512, 512), "b": _rounded(rng, 512, 512)}


def _chain_inputs(n: int) -> Maker:
    def draw(rng: np.random.Generator) -> Arrays:
        turn = np.linalg.qr(rng.normal(size=(n, n)))[0]  # keeps lengths: nothing grows or fades along the chain
        return {"x": rng.normal(size=(n, n)).astype("float32"), "w": turn.astype("float32")}
    return draw


# ---- rows ------------------------------------------------------------------------------------------------------------

def rows() -> list[Workload]:
    found = []
    for m, k, n in SIZES:
        name = f"dense/{m}x{k}x{n}"
        found += [Workload(name, 19, "dense", _dense_inputs(m, k, n, False), dense),
                  Workload(f"{name}/gradients", 19, "dense_step", _dense_inputs(m, k, n, True), dense_step, tolerance=2e-5)]
    found += [Workload(f"dense_gelu/{m}x{k}x{n}", 19, "dense_gelu", normal(x=(m, k), w=(k, n), b=(n,), residual=(m, n)), dense_gelu, tolerance=2e-5)
              for m, k, n in SIZES]
    found += [Workload(f"layer/{m}x{k}x{n}", 19, "layer", normal(x=(m, k), w=(n, k), b=(n,)), layer, tolerance=2e-5) for m, k, n in LAYERS]
    found += [Workload(f"product_update/{m}x{k}x{n}", 19, "product_update", normal(x=(m, k), g=(m, n), w=(k, n)), product_update, tolerance=2e-5, steps=STEPS)
              for m, k, n in SIZES]
    found.append(Workload("matmul/512x512x512/ab/bfloat16", 19, "matmul_bfloat16", _bfloat_inputs, matmul, tolerance=5e-3, params={"form": "ab"},
                          only=("graphc", "jax", "jax_sync", "torch", "torch_compile")))  # the results are rounded to bfloat16, by up to 2^-8
    found += [Workload(f"product_chain/{n}x{n}", 19, "product_chain", _chain_inputs(n), product_chain, tolerance=2e-5, params={"links": LINKS}, parts=LINKS)
              for n in (4, 16, 32)]
    return found
