"""What is computed: the rows of the comparison, their inputs, and the right answers.

A row is a ``Workload``: a ``kind`` that every contestant has a builder for, the kind's ``params``, a maker of inputs and
a reference.  The reference is plain NumPy in float64 whatever the dtype of the row; a contestant whose values are
further from it than ``tolerance`` is reported as wrong and not timed.  Both sides of a comparison import the constants below.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

A, B, C, D = 1.5, 0.5, -0.7, 0.3  # of the chain tanh(A x + B) sigmoid(C x) + D x²
EPS = 1e-5  # of layer norm
LEARNING_RATE, MOMENTUM = 0.01, 0.9  # of the training step: v <- MOMENTUM v - LEARNING_RATE g; p <- p + v
PARAMETERS = ("w1", "b1", "w2", "b2")  # its state

ROW_LENGTHS = (8, 16, 31, 64, 100, 256, 1000, 1024, 4096, 8192)
FUNCTIONS = ("exp", "log", "tanh", "sigmoid", "erf", "sin", "sqrt", "add")
MILLION = 1 << 20
GROUPS = {
    1: "gradient of a scalar formula", 2: "fused chain", 3: "gradient of the chain", 4: "cross-entropy and its gradient", 5: "layer norm + GELU",
    6: "logistic log-density and gradient", 7: "MLP training step", 8: "rows of many lengths", 9: "single functions", 10: "copies and transposes",
    11: "pairwise distances", 12: "column and full reductions", 13: "unknown sizes against fixed ones", 14: "first call",
    15: "matrix products", 16: "convolutions with their gradients",
}
#: groups with tables of their own
APART = (13, 14)


@dataclass(frozen=True)
class Workload:
    """One row of the tables."""

    name: str
    group: int
    kind: str
    inputs: Callable[[np.random.Generator], Arrays]
    reference: Callable[..., Sequence[Any]]
    dtype: str = "float32"  # of every output
    tolerance: float = 1e-5  # relative to the value plus the mean size of the values
    params: dict[str, Any] = field(default_factory=dict)
    memory_bound: bool = False  # its limit is the memory: GB/s are told
    ulp: bool = False  # the error in units of the last place is told
    steps: int = 1  # calls before the values are compared; more than one where there is state
    only: tuple[str, ...] = ()  # contestants; () = all
    not_counted: tuple[str, ...] = ()  # shown, but no peer: nothing is compiled and nothing called where the answer is written out by hand

    def make_inputs(self) -> Arrays:
        return self.inputs(np.random.default_rng(7))

    def expected(self, inputs: Arrays) -> list[Array]:
        """The answers in float64."""
        wide = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}
        return [np.asarray(v) for v in self.reference(**wide, **self.params)]

    def traffic(self, inputs: Arrays, outputs: Sequence[Array]) -> tuple[int, int]:
        """Bytes that must be read and written at least."""
        return sum(v.nbytes for v in inputs.values()), sum(v.size for v in outputs) * np.dtype(self.dtype).itemsize


# ---- references: names of the arguments = names of the inputs and params --------------------------------------------

def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array, **_: Any) -> list[Array]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return [e / e.sum(-1, keepdims=True)]


def scalar_grad(x: Array, y: Array) -> list[Array]:
    return [x / 10, 2 * y]  # of x²/20 + y²


def chain(x: Array) -> list[Array]:
    return [np.tanh(A * x + B) * sigmoid(C * x) + D * x * x]


def chain_grad(x: Array) -> list[Array]:
    t, s = np.tanh(A * x + B), sigmoid(C * x)
    return [A * (1 - t * t) * s + C * t * s * (1 - s) + 2 * D * x]


def xent(z: Array, labels: Array) -> list[Array]:
    p = softmax(z)[0]
    rows = np.arange(len(z))
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    return [loss, p / len(z)]


def layernorm(x: Array, w: Array, b: Array, **_: Any) -> list[Array]:
    return [(x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS) * w + b]


def layernorm_gelu(x: Array, w: Array, b: Array) -> list[Array]:
    h = layernorm(x, w, b)[0]
    return [0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))]


def logistic(beta: Array, x: Array, y: Array) -> list[Array]:
    eta = x @ beta
    return [(y * eta - np.logaddexp(0, eta)).sum() - 0.5 * (beta * beta).sum(), (y - sigmoid(eta)) @ x - beta]


MLP_STEPS = 5


def mlp_step(x: Array, labels: Array, **state: Array) -> list[Array]:
    p = {k: v.copy() for k, v in state.items()}
    velocity = {k: np.zeros_like(v) for k, v in state.items()}
    losses = []
    for _ in range(MLP_STEPS):
        h = np.maximum(x @ p["w1"] + p["b1"], 0)
        loss, dz = xent(h @ p["w2"] + p["b2"], labels)
        dh = (dz @ p["w2"].T) * (h > 0)
        grads = {"w1": x.T @ dh, "b1": dh.sum(0), "w2": h.T @ dz, "b2": dz.sum(0)}
        for k in PARAMETERS:
            velocity[k] = MOMENTUM * velocity[k] - LEARNING_RATE * grads[k]
            p[k] = p[k] + velocity[k]
        losses.append(loss)
    return [np.array(losses), *(p[k] for k in PARAMETERS)]


def variance(x: Array, **_: Any) -> list[Array]:
    return [x.var(-1)]


def erf(x: Array) -> Array:
    return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64)


def matmul(a: Array, b: Array, form: str) -> list[Array]:
    return [(a.swapaxes(-1, -2) if form == "atb" else a) @ (b.swapaxes(-1, -2) if form == "abt" else b)]


def conv_step(x: Array, w: Array, g: Array, stride: int, padding: int, groups: int) -> list[Array]:
    """The result, and the gradients of its product with ``g``."""
    space = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * space])
    windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], tuple(range(2, x.ndim)))
    windows = windows[(slice(None), slice(None), *[slice(None, None, stride)] * space)]
    n, (o, c) = len(x), w.shape[:2]
    places = windows.shape[2:2 + space]
    seen = windows.reshape(n, groups, c, math.prod(places), -1)
    kernels, back = w.reshape(groups, o // groups, c, -1), g.reshape(n, groups, o // groups, -1)
    y = np.einsum("ngcpk,gock->ngop", seen, kernels, optimize=True).reshape(n, o, *places)
    dw = np.einsum("ngcpk,ngop->gock", seen, back, optimize=True).reshape(w.shape)
    given = np.einsum("gock,ngop->ngcpk", kernels, back, optimize=True).reshape(n, groups * c, *places, *w.shape[2:])
    dx = np.zeros_like(padded)
    for k in np.ndindex(*w.shape[2:]):
        at = tuple([slice(i, i + stride * (p - 1) + 1, stride) for i, p in zip(k, places, strict=True)])
        dx[(slice(None), slice(None), *at)] += given[(..., *k)]
    return [y, dx[(slice(None), slice(None), *[slice(padding, padding + m) for m in x.shape[2:]])], dw]


UNARY: dict[str, Callable[[Array], Array]] = {"exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": sigmoid, "erf": erf, "sin": np.sin, "sqrt": np.sqrt}


def unary(x: Array, function: str) -> list[Array]:
    return [UNARY[function](x)]


def pairwise(a: Array, b: Array) -> list[Array]:
    return [((a[:, None] - b[None]) ** 2).sum(-1)]


# ---- inputs --------------------------------------------------------------------------------------------------------

Maker = Callable[[np.random.Generator], Arrays]


def normal(dtype: str = "float32", **shapes: tuple[int, ...]) -> Maker:
    return lambda rng: {k: np.asarray(rng.normal(size=s), dtype) for k, s in shapes.items()}


def uniform(low: float, high: float, dtype: str = "float32", **shapes: tuple[int, ...]) -> Maker:
    return lambda rng: {k: rng.uniform(low, high, size=s).astype(dtype) for k, s in shapes.items()}


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


def _product(form: str, sizes: tuple[int, int, int], dtype: str, batch: tuple[int, ...] = ()) -> Workload:
    m, k, n = sizes
    shapes = {"a": (*batch, *((k, m) if form == "atb" else (m, k))), "b": (*batch, *((n, k) if form == "abt" else (k, n)))}
    name = f"matmul/{'x'.join(map(str, (*batch, *sizes)))}/{form}/{dtype}"
    return Workload(name, 15, "matmul", normal(dtype, **shapes), matmul, dtype, 1e-4 if dtype == "float32" else 1e-12, {"form": form})


def _products() -> list[Workload]:
    return [*[_product(form, sizes, "float32") for form, sizes in PRODUCTS], *[_product(form, sizes, "float32", (n,)) for form, n, sizes in BATCHES],
            *[_product(form, sizes, "float64") for form, sizes in DOUBLE]]


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
        *_reductions(), *_products(), *_convolutions(),
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


def error_of(workload: Workload, expected: Sequence[Array], got: Sequence[Array]) -> tuple[str | None, float, float | None]:
    """(what is wrong or None, largest error relative to the allowed scale, the same in units of the last place)."""
    if len(got) != len(expected):
        return f"{len(got)} results, expected {len(expected)}", math.inf, None
    worst, ulps = 0.0, None
    for i, (right, value) in enumerate(zip(expected, got, strict=True)):
        if value.shape != right.shape or str(value.dtype) != workload.dtype:
            return f"result {i} is {value.dtype}{list(value.shape)}, expected {workload.dtype}{list(right.shape)}", math.inf, None
        if not np.isfinite(value).all():
            return f"result {i} is not finite", math.inf, None
        distance = np.abs(value.astype(np.float64) - right)
        scale = np.abs(right) + np.abs(right).mean()
        worst = max(worst, float((distance / np.maximum(scale, 1e-300)).max(initial=0.0)))
        if workload.ulp:
            ulps = float((distance / np.spacing(np.abs(right).astype(workload.dtype)).astype(np.float64)).max(initial=0.0))
    wrong = f"relative error {worst:.1e} > {workload.tolerance:.0e}" if worst > workload.tolerance else None
    return wrong, worst, ulps
