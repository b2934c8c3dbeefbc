"""Products in two versions that take turns, so that a noisy machine disturbs both alike: medians of ratios.

    python benchmarks/products_in_turn.py [--rounds 21]

Weights that stay (``x @ w.T`` and ``x @ w``, w a shared variable; kernels of convolutions) laid out once per change against once per call (without the pass ``keep``);
narrow ones that multiply the same rows, each for itself against joined; rows of a table, gathered before the product against block by block
(passes/sweeps.py); causal attention with all columns and with those that are seen (passes/triangles.py); convolutions of small images with bias, relu and
pooling, whole against some images at a time.  float32, one thread, microseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import operator
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import graphc as gc
from graphc.passes import sweeps, triangles

#: matrices and their rows
CAUSAL = [(16, 128), (8, 512), (4, 1024), (2, 2048)]
#: what else hides columns, matrices and their rows: a window of so many columns, keys that do not count at the end or at the beginning of the rows
HIDDEN = [("window of 64", 4, 1024), ("window of 256", 4, 1024), ("window of 256", 2, 4096), ("last keys", 8, 512), ("last keys", 2, 2048), ("first keys", 8, 512), ("first keys", 2, 2048),
          ("first half", 4, 1024), ("all keys", 4, 1024)]
#: rows, sums and columns; is the second operand transposed in memory
KEPT = [(1, 512, 784, True), (8, 512, 784, True), (32, 1024, 1024, True), (32, 1024, 4096, True), (128, 512, 784, True), (4, 1024, 4096, False),
        (32, 1024, 4096, False), (128, 4096, 1024, False)]

#: images, channels, places along each axis, channels of the result, window, stride; is it transposed
KERNELS = [(1, 64, 56, 64, 3, 1, False), (1, 128, 28, 128, 3, 1, False), (1, 256, 14, 256, 3, 1, False), (1, 512, 7, 512, 3, 1, False), (8, 512, 7, 512, 3, 1, False),
           (1, 128, 28, 256, 3, 2, False), (1, 64, 7, 64, 3, 1, False), (1, 64, 2, 64, 3, 1, False), (1, 256, 14, 128, 3, 1, True), (1, 512, 7, 512, 3, 1, True)]

#: products, rows, sums and columns of each
JOINED = [(3, 32, 64, 10), (3, 1024, 256, 10), (4, 32, 64, 4), (4, 128, 256, 24), (2, 1024, 256, 24), (4, 3, 128, 24)]
#: rows, sums and columns, the table has 10,000 rows
GATHERED = [(256, 512, 64), (1024, 512, 64), (4096, 512, 64), (1024, 128, 512), (4096, 128, 512), (4096, 300, 128), (1024, 512, 10)]

#: images, channels and side; results and side of the kernel, which may stick out; is the maximum of 2 x 2 taken; gradients
LAYERS = [(64, 6, 14, 16, 5, False, True, False), (256, 6, 14, 16, 5, False, True, False), (256, 6, 14, 16, 5, False, True, True), (64, 1, 16, 8, 3, False, True, False),
          (64, 3, 16, 16, 3, True, True, False), (64, 16, 16, 32, 3, True, True, False), (64, 16, 16, 32, 3, True, True, True), (64, 32, 8, 64, 3, True, True, False),
          (64, 32, 8, 64, 3, True, True, True), (64, 64, 12, 64, 3, True, True, False), (64, 64, 12, 64, 3, True, True, True), (32, 64, 14, 64, 3, True, False, False),
          (32, 64, 14, 64, 3, True, False, True)]

Call = Callable[[], Any]


def product(m: int, k: int, n: int, turned: bool, **options: Any) -> Call:
    """A call of ``x @ w`` whose rows are unknown when compiling, its values checked."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(n, k) if turned else (k, n)).astype("float32"), gc.tensor("x", shape=("m", k), dtype="float32")
    w, data = gc.shared(weight, "w"), rng.normal(size=(m, k)).astype("float32")
    f = gc.function([x], x @ (w.T if turned else w), **options)
    for _ in range(2):
        np.testing.assert_allclose(f(data), data @ (weight.T if turned else weight), rtol=1e-3, atol=1e-3)
    return lambda: f(data)


def convolved(batch: int, channels: int, places: int, out: int, window: int, stride: int, turned: bool, **options: Any) -> Call:
    """A call of a convolution whose kernel stays, its values checked."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(channels, out, window, window) if turned else (out, channels, window, window)).astype("float32")
    w, x, data = gc.shared(weight, "w"), gc.tensor("x", shape=(batch, channels, places, places), dtype="float32"), rng.normal(size=(batch, channels, places, places)).astype("float32")
    y = (gc.nn.conv_transpose if turned else gc.nn.conv)(x, w, stride, window // 2)
    f = gc.function([x], y, **options)
    np.testing.assert_allclose(f(data), gc.function([x], y, mode=gc.Mode(backend="numpy"))(data), rtol=1e-3, atol=1e-2)
    return lambda: f(data)


def gates(count: int, m: int, k: int, n: int, **options: Any) -> Call:
    """A call of products with the same rows, their number unknown when compiling, that one kernel reads."""
    rng = np.random.default_rng(0)
    x, ws = gc.tensor("x", shape=("m", k), dtype="float32"), [gc.shared(rng.normal(size=(k, n)).astype("float32"), f"w{i}") for i in range(count)]
    f = gc.function([x], functools.reduce(operator.mul, [gc.sigmoid(x @ w) for w in ws]), threads=1, **options)
    data = rng.normal(size=(m, k)).astype("float32")
    want = np.prod([1 / (1 + np.exp(-(data @ w.get_value()).astype("float64"))) for w in ws], axis=0)
    np.testing.assert_allclose(f(data), want, rtol=1e-2, atol=1e-4)
    return lambda: f(data)


def gathered(m: int, k: int, n: int, blocks: int, **options: Any) -> Call:
    """A call of ``table[at] @ w``, its values checked.  ``blocks``: how many there must be for the sweep."""
    rng = np.random.default_rng(0)
    table, at, w = gc.tensor("table", shape=(10_000, k), dtype="float32"), gc.tensor("at", shape=(m,), dtype="int64"), gc.tensor("w", shape=(k, n), dtype="float32")
    with mock.patch.object(sweeps, "LEAST_BLOCKS", blocks):
        f = gc.function([table, at, w], table[at] @ w, threads=1, **options)
    rows, positions, weight = rng.normal(size=(10_000, k)).astype("float32"), rng.integers(-10_000, 10_000, m), rng.normal(size=(k, n)).astype("float32")
    np.testing.assert_allclose(f(rows, positions, weight), rows[positions] @ weight, rtol=1e-3, atol=1e-3)
    return lambda: f(rows, positions, weight)


def causal(heads: int, length: int, cut: bool, what: str = "") -> Call:
    """A call of causal attention with its gradients, its values checked.  ``cut``: are columns that no row of a block sees left out?  ``what`` is hidden besides."""
    rng = np.random.default_rng(0)
    given: list[Any] = [rng.normal(size=(heads, length, 64)).astype("float32") for _ in range(3)]
    q, k, v = inputs = [gc.tensor(name, shape=x.shape, dtype="float32") for name, x in zip("qkv", given, strict=True)]
    seen, at = np.tri(length, dtype=bool), np.arange(length)
    if what.startswith("window"):
        width = int(what.split()[-1])
        i = gc.expand_dims(gc.arange(length), 1)
        y = gc.nn.softmax(gc.where(gc.logical_and(gc.arange(length) <= i, gc.arange(length) > i - width), q @ k.mT / 8, -1e30), axis=-1) @ v
        seen = seen & (at > at[:, None] - width)
    elif what:
        keys = {"last keys": at < length * 3 // 4, "first keys": at >= length // 4, "first half": at >= length // 2, "all keys": at < 0}[what]
        inputs, given, seen = [*inputs, gc.tensor("keys", shape=(length,), dtype="bool")], [*given, keys], seen & keys
        y = gc.nn.attention(q, k, v, inputs[-1], causal=True)
    else:
        y = gc.nn.attention(q, k, v, causal=True)
    whole = mock.patch.object(triangles.Narrowing, "narrowed", lambda self, steps, *_: triangles.Narrowed(list(steps)))
    with contextlib.nullcontext() if cut else whole:
        f = gc.function(inputs, [y, *gc.grad(gc.sum(y), [q, k, v])], threads=1)
    scores = np.where(seen, given[0] @ given[1].swapaxes(1, 2) / 8, -1e30)
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * seen
    np.testing.assert_allclose(f(*given)[0], weights @ given[2] / np.maximum(weights.sum(-1, keepdims=True), 1e-30), rtol=1e-3, atol=1e-4)
    return lambda: f(*given)


def layer(images: int, channels: int, side: int, results: int, window: int, padded: bool, pooled: bool, gradients: bool, whole: bool) -> Call:
    """A call of a convolution with what follows it.  ``whole``: is it one product of all images?"""
    rng = np.random.default_rng(0)
    shapes = {"x": (images, channels, side, side), "w": (results, channels, window, window), "b": (results, 1, 1)}
    given = [rng.normal(size=shape).astype("float32") for shape in shapes.values()]
    x, w, b = inputs = [gc.tensor(name, shape=shape, dtype="float32") for name, shape in shapes.items()]
    y = gc.relu(gc.nn.conv(x, w, padding=window // 2 if padded else 0) + b)
    y = gc.nn.max_pool(y, 2) if pooled else y
    outputs = [y, *(gc.grad(gc.sum(gc.square(y)), inputs) if gradients else [])]
    with mock.patch.object(sweeps, "COLUMNS", sys.maxsize if whole else sweeps.COLUMNS):
        f = gc.function(inputs, outputs, threads=1)
    for have, want in zip(f(*given), gc.function(inputs, outputs, mode=gc.Mode(exclude=["fuse"]), threads=1)(*given), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-2, atol=1e-3 * abs(want).max())
    return lambda: f(*given)


def in_turn(first: Call, second: Call, rounds: int) -> tuple[float, float, float]:
    """Microseconds of both, and the median of first / second."""
    def timed(call: Call, times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times * 1e6

    times = max(1, int(10_000 / timed(first, 1)))
    pairs = [(timed(first, times), timed(second, times)) for _ in range(rounds)]
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    print("| product | laid out in each call | kept | ratio |\n|---|---:|---:|---:|")
    for m, k, n, turned in KEPT:
        a, b, ratio = in_turn(product(m, k, n, turned, mode=gc.Mode(exclude=["keep"]), threads=1), product(m, k, n, turned, threads=1), rounds)
        print(f"| {m} x {k} x {n}{', w.T' if turned else ''} | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| convolution | laid out in each call | kept | ratio |\n|---|---:|---:|---:|")
    for case in KERNELS:
        batch, channels, places, out, window, stride, transposed = case
        a, b, ratio = in_turn(convolved(*case, mode=gc.Mode(exclude=["keep"]), threads=1), convolved(*case, threads=1), rounds)
        print(f"| {batch} x {channels} x {places} x {places}, {out} of {window} x {window}{f', stride {stride}' if stride > 1 else ''}"
              f"{', transposed' if transposed else ''} | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| products | each for itself | joined | ratio |\n|---|---:|---:|---:|")
    for count, m, k, n in JOINED:
        a, b, ratio = in_turn(gates(count, m, k, n, mode=gc.Mode(exclude=["keep"])), gates(count, m, k, n), rounds)
        print(f"| {count} of {m} x {k} x {n} | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| rows of a table | gathered before | block by block | ratio |\n|---|---:|---:|---:|")
    for m, k, n in GATHERED:
        a, b, ratio = in_turn(gathered(m, k, n, sys.maxsize), gathered(m, k, n, sweeps.LEAST_BLOCKS), rounds)
        print(f"| {m} x {k} x {n} | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| causal attention with gradients | all columns | those that are seen | ratio |\n|---|---:|---:|---:|")
    for heads, length in CAUSAL:
        a, b, ratio = in_turn(causal(heads, length, False), causal(heads, length, True), rounds)
        print(f"| {heads} x {length} x 64 | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| convolution, bias, relu | whole | some images at a time | ratio |\n|---|---:|---:|---:|")
    for images, channels, side, results, window, padded, pooled, gradients in LAYERS:
        call = functools.partial(layer, images, channels, side, results, window, padded, pooled, gradients)
        a, b, ratio = in_turn(call(True), call(False), rounds)
        words = f"{', pooling' if pooled else ''}{', gradients' if gradients else ''}"
        print(f"| {images} x {channels} x {side} x {side}, {results} of {window} x {window}{words} | {a:.1f} | {b:.1f} | {ratio:.2f}x |")
    print("\n| causal attention with gradients, and hidden besides | all columns | those that are seen | ratio |\n|---|---:|---:|---:|")
    for what, heads, length in HIDDEN:
        a, b, ratio = in_turn(causal(heads, length, False, what), causal(heads, length, True, what), rounds)
        print(f"| {what}, {heads} x {length} x 64 | {a:.1f} | {b:.1f} | {ratio:.2f}x |")


if __name__ == "__main__":
    main()
