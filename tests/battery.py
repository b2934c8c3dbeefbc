"""A handful of functions that together use all of code generation, with what NumPy says of them.

    python tests/battery.py        runs them; a line for each one that is wrong, then one of facts:
                                   vector bits, compiled, from disk, digest of all results' bits
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import graphc as gc

__all__ = ["BATTERY", "digest", "run", "uneven"]

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(0)
F32, F64 = np.float32, np.float64
X = RNG.normal(size=(67, 45)).astype(F32)
Y = RNG.normal(size=(67, 45))
N = RNG.integers(-50, 50, size=(33, 19))
P = RNG.uniform(0.1, 4.0, size=131)
_erf, _gamma = np.vectorize(math.erf), np.vectorize(math.lgamma)


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def _norm(x: Any) -> Any:
    c = x - x.mean(axis=1, keepdims=True)
    return c / gc.sqrt((c * c).mean(axis=1, keepdims=True) + 1e-3)


def _norm_numpy(x: Array) -> Array:
    c = x - x.mean(1, keepdims=True)
    return np.asarray(c / np.sqrt((c * c).mean(1, keepdims=True) + 1e-3))


def _trained(x: Any, w: Any) -> Any:
    """The gradient of a small network's loss."""
    return gc.grad(gc.sum(gc.tanh(x @ w) ** 2), w)


def _trained_numpy(x: Array, w: Array) -> Array:
    h = np.tanh(x @ w)
    return np.asarray(x.T @ (2 * h * (1 - h * h)))


#: name -> (what to compute, the same in NumPy, arguments)
BATTERY: dict[str, tuple[Callable[..., Any], Callable[..., Any], Sequence[Array]]] = {
    "chain": (lambda x: gc.maximum(x * 2 - 1, 0) / (x * x + 1), lambda x: np.maximum(x * 2 - 1, 0) / (x * x + 1), [X]),
    "integers": (lambda i: gc.where(i % 3 > 0, i * i - 7, -i), lambda i: np.where(i % 3 > 0, i * i - 7, -i), [N]),
    "small integers": (lambda i: i // 2 + 3, lambda i: i // 2 + np.int8(3), [N.astype(np.int8)]),
    "halves": (lambda x: x + x * x, lambda x: x + x * x, [X.astype(np.float16)]),
    "casts": (lambda x: gc.cast(gc.cast(x * 30, "int8"), "float64"), lambda x: (x * 30).astype(np.int8).astype(F64), [Y]),
    "vector mathematics, float32": (lambda x: gc.exp(x) + gc.tanh(x) + gc.sin(x) * gc.log1p(x * x) + gc.erf(x),
                                    lambda x: np.exp(x) + np.tanh(x) + np.sin(x) * np.log1p(x * x) + _erf(x).astype(F32), [X]),
    "vector mathematics, float64": (lambda p: gc.log(p) + gc.gammaln(p) + gc.pow(p, 1.7) + gc.arctan2(p, 2.0),
                                    lambda p: np.log(p) + _gamma(p) + p ** 1.7 + np.arctan2(p, 2.0), [P]),
    "sums": (lambda x: [x.sum(), x.sum(axis=0), x.sum(axis=1), gc.prod(x * 0.01 + 1, axis=0)],
             lambda x: [x.sum(), x.sum(0), x.sum(1), np.prod(x * 0.01 + 1, axis=0)], [Y]),
    "largest": (lambda x: [x.max(axis=1), x.min(axis=0), gc.argmax(x, axis=1), gc.any(x > 3), gc.all(x < 9, axis=0)],
                lambda x: [x.max(1), x.min(0), x.argmax(1), (x > 3).any(), (x < 9).all(0)], [X]),
    "softmax": (lambda x: gc.softmax(x, axis=1), _softmax, [Y]),
    "layer norm": (_norm, _norm_numpy, [Y]),
    "columns": (lambda x: gc.logsumexp(x, axis=0) + x.T[:, ::3].sum(axis=1), lambda x: np.log(np.exp(x).sum(0)) + x.T[:, ::3].sum(1), [Y]),
    "transposed": (lambda x: x.T + 1, lambda x: np.ascontiguousarray(x.T) + 1, [X]),
    "products": (lambda x, y: [x @ y.T, x.T @ y, x[0] @ y[1]], lambda x, y: [x @ y.T, x.T @ y, x[0] @ y[1]], [Y, Y[:, ::-1]]),
    "products of float32": (lambda x: gc.stack([x, x]) @ x.T, lambda x: np.stack([x, x]) @ x.T, [X]),
    "products of integers": (lambda i: i @ i.T, lambda i: i @ i.T, [N]),
    "gathered": (lambda x, i: x[i] * 2, lambda x, i: x[i] * 2, [Y, np.array([3, -1, 0, 66])]),
    "scattered": (lambda x, i: gc.inc_subtensor(x[i], 1.0), lambda x, i: x + np.bincount(i, minlength=67)[:, None], [Y, np.array([3, 3, 0])]),
    "gradient": (_trained, _trained_numpy, [Y, RNG.normal(size=(45, 9))]),
}


def variables(arguments: Sequence[Array]) -> list[Any]:
    return [gc.tensor(f"x{k}", shape=(None,) * a.ndim, dtype=a.dtype) for k, a in enumerate(arguments)]


def function(name: str) -> gc.Function:
    build, _, arguments = BATTERY[name]
    inputs = variables(arguments)
    outputs = build(*inputs)
    return gc.function(inputs, outputs if isinstance(outputs, list) else [outputs], mode=gc.Mode(backend="llvm"))


def run(name: str) -> tuple[list[Array], str | None]:
    """The results, and what is wrong with them."""
    _, numpy, arguments = BATTERY[name]
    have = function(name)(*arguments)
    with np.errstate(all="ignore"):
        want = numpy(*arguments)
    for k, (h, w) in enumerate(zip(have, want if isinstance(want, list) else [want], strict=True)):
        w = np.asarray(w)
        single = max(h.dtype.itemsize, 2) < 8 and h.dtype.kind == "f"
        scale = float(np.max(np.abs(w), initial=1.0)) if h.dtype.kind == "f" else 0.0
        if h.shape != w.shape or not np.allclose(h.astype(F64), w.astype(F64), rtol=0, atol=scale * (5e-3 if h.itemsize == 2 else 1e-5 if single else 1e-12)):
            return have, f"{name}: result {k}: {h!r} instead of {w!r}"
    return have, None


def uneven() -> list[tuple[gc.Function, Sequence[Array]]]:
    """Reductions that are large enough for several threads, of sizes that cut unevenly."""
    rng = np.random.default_rng(1)
    x, v, w = gc.matrix("x"), gc.vector("v", dtype="float32"), gc.vector("w")
    a, b, c = rng.normal(size=(1003, 517)), rng.normal(size=100_003).astype(F32), rng.normal(size=200_017)
    mode = gc.Mode(backend="llvm")
    return [
        (gc.function([x], [x.sum(), x.sum(axis=0), x.sum(axis=1), gc.var(x, axis=0), gc.logsumexp(x, axis=1)], mode=mode), [a]),
        (gc.function([x], [gc.softmax(x, axis=1), gc.grad(gc.sum(gc.tanh(x) * gc.sum(x, axis=0)), x)], mode=mode), [a]),
        (gc.function([v], [v.sum(), gc.mean(v * v), gc.argmax(v), gc.prod(1 + v * 1e-3), v @ v], mode=mode), [b]),
        (gc.function([w], [gc.sqrt(gc.sum(w * w)), gc.sum(gc.exp(w)), gc.max(w), gc.cumsum(w)], mode=mode), [c]),
        (gc.function([x], [x.T @ x, (x @ x.T).sum(axis=0)], mode=mode), [a[:301, :129]]),
    ]


def digest(results: Sequence[Array]) -> str:
    return hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in results)).hexdigest()


def main() -> None:
    from graphc.backends.llvm.engine import engine
    from graphc.backends.llvm.target import host
    found: list[Array] = []
    for name in BATTERY:
        results, problem = run(name)
        found += results
        if problem:
            print(problem)
    for f, arguments in uneven():
        found += f(*arguments)
    done = engine().statistics
    print(host().bits, done.compiled, done.from_disk, digest(found))


if __name__ == "__main__":
    main()
