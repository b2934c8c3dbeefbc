"""What is computed: the rows of the comparison and their inputs.

Groups 17 to 19 have files of their own; the right answers are in ``references.py``.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace

import attention_workloads
import numpy as np
import product_workloads
import training_workloads
from references import (
    MLP_STEPS,
    chain,
    chain_grad,
    conv_step,
    layernorm,
    layernorm_gelu,
    logistic,
    matmul,
    mlp_step,
    pairwise,
    scalar_grad,
    sigmoid,
    softmax,
    unary,
    variance,
    xent,
)
from workload import Array, Arrays, Workload, normal, uniform

ROW_LENGTHS = (8, 16, 31, 64, 100, 256, 1000, 1024, 4096, 8192)
FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "sqrt", "add")
MILLION = 1 << 20
GROUPS = {
    1: "gradient of a scalar formula", 2: "fused chain", 3: "gradient of the chain", 4: "cross-entropy and its gradient", 5: "layer norm + GELU",
    6: "logistic log-density and gradient", 7: "MLP training step", 8: "rows of many lengths", 9: "single functions", 10: "copies and transposes",
    11: "pairwise distances", 12: "column and full reductions", 13: "unknown sizes against fixed ones", 14: "first call",
    15: "matrix products", 16: "convolutions with their gradients", 17: "training steps", 18: "attention", 19: "products with what surrounds them",
}
#: groups with tables of their own
APART = (13, 14)


# ---- inputs --------------------------------------------------------------------------------------------------------

def _scalars(rng: np.random.Generator) -> Arrays:
    return {"x": np.array(3.0), "y": np.array(-2.0)}


def _xent_inputs(rng: np.random.Generator) -> Arrays:
    return {"z": rng.normal(size=(1024, 1000)).astype("float32"), "labels": rng.integers(0, 1000, 1024)}


def _logistic_inputs(rng: np.random.Generator) -> Arrays:
    x = rng.normal(size=(10000, 20))
    return {"beta": rng.normal(size=20) * 0.3, "x": x, "y": (rng.uniform(size=10000) < sigmoid(x.sum(1))).astype("float64")}


def _mlp_inputs(rng: np.random.Generator) -> Arrays:
    def draw(*shape: int, scale: float = 1.0) -> Array:
        return (rng.normal(size=shape) * scale).astype("float32")
    return {"x": draw(32, 64), "labels": rng.integers(0, 10, 32), "w1": draw(64, 32, scale=0.18), "b1": draw(32, scale=0.1),
            "w2": draw(32, 10, scale=0.25), "b2": draw(10, scale=0.1)}


# ---- rows ----------------------------------------------------------------------------------------------------------

def _rows_of_lengths() -> list[Workload]:
    rows = []
    for n in ROW_LENGTHS:
        x, v = (MILLION // n, n), (n,)
        rows += [Workload(f"softmax/{n}", 8, "softmax", normal(x=x), softmax),
                 Workload(f"layernorm/{n}", 8, "layernorm", normal(x=x, w=v, b=v), layernorm, memory_bound=True),
                 Workload(f"variance/{n}", 8, "variance", normal(x=x), variance, memory_bound=True)]
    return sorted(rows, key=lambda w: w.kind != "softmax" if w.kind != "variance" else 2)


RANGES = {"exp": (-10.0, 10.0), "log": (0.001, 100.0), "tanh": (-4.0, 4.0), "sigmoid": (-8.0, 8.0), "erf": (-3.0, 3.0), "sin": (-10.0, 10.0), "sqrt": (0.0, 100.0)}


def _single_functions() -> list[Workload]:
    rows = []
    for function in FUNCTIONS:
        for dtype in ("float32", "float64"):
            name, tolerance = f"{function}/{dtype}", 2e-6 if dtype == "float32" else 1e-14
            if function == "add":
                rows.append(Workload(name, 9, "add", normal(dtype, x=(MILLION,), y=(MILLION,)), lambda x, y: [x + y], dtype, tolerance, memory_bound=True))
            else:
                rows.append(Workload(name, 9, "unary", uniform(*RANGES[function], dtype, x=(MILLION,)), unary, dtype, tolerance, {"function": function},
                                     memory_bound=function == "sqrt", ulp=dtype == "float32"))
    rows.append(Workload("add/16M", 9, "add", normal(x=(16 * MILLION,), y=(16 * MILLION,)), lambda x, y: [x + y], tolerance=2e-6, memory_bound=True))
    return rows


def _copies() -> list[Workload]:
    kinds: list[tuple[str, tuple[str, ...], Callable[..., list[Array]]]] = [
        ("copy", ("x",), lambda x: [x]), ("transpose", ("x",), lambda x: [x.T]), ("reverse", ("x",), lambda x: [x[::-1]]),
        ("concat0", ("x", "y"), lambda x, y: [np.concatenate([x, y], 0)]), ("concat1", ("x", "y"), lambda x, y: [np.concatenate([x, y], 1)])]
    return [Workload(f"{kind}/{shape[0]}x{shape[1]}", 10, kind, normal(**dict.fromkeys(names, shape)), reference, tolerance=0.0, memory_bound=True)
            for kind, names, reference in kinds for shape in ((1024, 1024), (4096, 1024))]


def _reductions() -> list[Workload]:
    wide = uniform(0, 1, x=(4096, 768))
    rows = [Workload("colsum", 12, "colsum", wide, lambda x: [x.sum(0)], memory_bound=True),
            Workload("colmean", 12, "colmean", wide, lambda x: [x.mean(0)], memory_bound=True)]
    for name, n in (("1M", MILLION), ("16M", 16 * MILLION)):
        flat = uniform(0, 1, x=(n,))
        rows += [Workload(f"sum/{name}", 12, "sum", flat, lambda x: [x.sum()], memory_bound=True),
                 Workload(f"max/{name}", 12, "max", flat, lambda x: [x.max()], memory_bound=True)]
    return rows


#: m, k, n
PRODUCTS = (("ab", (4, 4, 4)), ("ab", (16, 16, 16)), ("ab", (64, 64, 64)), ("ab", (256, 256, 256)), ("ab", (1024, 1024, 1024)), ("ab", (2048, 2048, 2048)),
            ("ab", (1, 784, 512)), ("ab", (1, 4096, 4096)), ("ab", (32, 256, 1024)), ("atb", (256, 32, 1024)), ("abt", (32, 1024, 256)),
            ("ab", (128, 784, 512)), ("atb", (784, 128, 512)), ("abt", (128, 512, 784)), ("ab", (128, 512, 10)), ("atb", (512, 128, 10)), ("abt", (128, 10, 512)),
            ("ab", (1024, 1024, 4096)), ("atb", (1024, 1024, 4096)), ("abt", (1024, 4096, 1024)))
BATCHES = (("abt", 64, (128, 64, 128)), ("ab", 64, (128, 128, 64)), ("ab", 512, (16, 16, 16)))
DOUBLE = (("ab", (16, 16, 16)), ("ab", (256, 256, 256)), ("ab", (1024, 1024, 1024)), ("ab", (128, 784, 512)), ("atb", (784, 128, 512)), ("abt", (128, 512, 784)))

COMPLEX = (("ab", (64, 64, 64)), ("ab", (256, 256, 256)), ("ab", (1024, 1024, 1024)), ("abt", (256, 256, 256)))


def _product(form: str, sizes: tuple[int, int, int], dtype: str, batch: tuple[int, ...] = ()) -> Workload:
    m, k, n = sizes
    shapes = {"a": (*batch, *((k, m) if form == "atb" else (m, k))), "b": (*batch, *((n, k) if form == "abt" else (k, n)))}
    name = f"matmul/{'x'.join(map(str, (*batch, *sizes)))}/{form}/{dtype}"
    return Workload(name, 15, "matmul", normal(dtype, **shapes), matmul, dtype, 1e-4 if dtype in ("float32", "complex64") else 1e-12, {"form": form})


def _products() -> list[Workload]:
    return [*[_product(form, sizes, "float32") for form, sizes in PRODUCTS], *[_product(form, sizes, "float32", (n,)) for form, n, sizes in BATCHES],
            *[_product(form, sizes, "float64") for form, sizes in DOUBLE],
            *[_product(form, sizes, dtype) for dtype in ("complex64", "complex128") for form, sizes in COMPLEX]]


def _convolutions() -> list[Workload]:
    rows = []
    for name, x, w, stride, padding, groups in (
            ("lenet1", (64, 1, 28, 28), (20, 1, 5, 5), 1, 0, 1), ("lenet2", (64, 20, 12, 12), (50, 20, 5, 5), 1, 0, 1), ("3x3", (8, 64, 56, 56), (64, 64, 3, 3), 1, 1, 1),
            ("3x3/2", (8, 64, 56, 56), (128, 64, 3, 3), 2, 1, 1), ("1x1", (8, 64, 56, 56), (256, 64, 1, 1), 1, 0, 1),
            ("depthwise", (8, 64, 56, 56), (64, 1, 3, 3), 1, 1, 64), ("1d", (8, 64, 1024), (64, 64, 3), 1, 1, 1)):
        y = (x[0], w[0], *((n + 2 * padding - k) // stride + 1 for n, k in zip(x[2:], w[2:], strict=True)))
        rows.append(Workload(f"conv/{name}", 16, "conv_step", normal(x=x, w=w, g=y), conv_step, tolerance=1e-4,
                             params={"stride": stride, "padding": padding, "groups": groups}, only=("graphc", "jax", "jax_sync", "torch", "torch_compile")))
    return rows


#: rows that graphc runs against itself, with sizes unknown when compiling
ANY_SIZE = ("chain", "chain_grad", "xent", "layernorm_gelu", "logistic", "mlp", "softmax/8", "softmax/100", "softmax/1024", "layernorm/31", "layernorm/1000",
            "variance/64", "variance/4096", "exp/float32", "exp/float64", "add/float32", "transpose/1024x1024", "concat1/1024x1024", "pairwise", "colsum", "sum/1M")
FIRST_CALL = ("mlp", "xent")


def _all() -> dict[str, Workload]:
    rows = [
        Workload("scalar_grad", 1, "scalar_grad", _scalars, scalar_grad, "float64", 1e-14, not_counted=("numpy",)),
        Workload("chain", 2, "chain", normal(x=(MILLION,)), chain),
        Workload("chain_grad", 3, "chain_grad", normal(x=(MILLION,)), chain_grad),
        Workload("xent", 4, "xent", _xent_inputs, xent),
        Workload("layernorm_gelu", 5, "layernorm_gelu", normal(x=(4096, 768), w=(768,), b=(768,)), layernorm_gelu),
        Workload("logistic", 6, "logistic", _logistic_inputs, logistic, "float64", 1e-11),
        Workload("mlp", 7, "mlp", _mlp_inputs, mlp_step, steps=MLP_STEPS, tolerance=2e-5),
        *_rows_of_lengths(), *_single_functions(), *_copies(),
        Workload("pairwise", 11, "pairwise", normal(a=(1000, 16), b=(1000, 16)), pairwise),
        *_reductions(), *_products(), *_convolutions(), *training_workloads.rows(), *attention_workloads.rows(), *product_workloads.rows(),
    ]
    by_name = {w.name: w for w in rows}
    for name in ANY_SIZE:
        by_name[f"sizes/{name}"] = replace(by_name[name], name=f"sizes/{name}", group=13, only=("graphc", "graphc_any"))
    for name in FIRST_CALL:
        by_name[f"first_call/{name}"] = replace(by_name[name], name=f"first_call/{name}", group=14)
    return by_name


WORKLOADS = _all()


def select(patterns: Sequence[str]) -> list[Workload]:
    """Rows by name, by shell pattern (``softmax/*``), by kind or by number of group; all of them for no pattern."""
    if not patterns:
        return list(WORKLOADS.values())
    chosen = []
    for pattern in patterns:
        found = [w for w in WORKLOADS.values() if fnmatch.fnmatchcase(w.name, pattern) or pattern == str(w.group) or (pattern == w.kind and w.group not in APART)]
        if not found:
            raise SystemExit(f"--rows {pattern}: no such row, kind or group; the rows are\n  " + " ".join(WORKLOADS))
        chosen += [w for w in found if w not in chosen]
    return [w for w in WORKLOADS.values() if w in chosen]
