"""Products in two versions that take turns, so that a noisy machine disturbs both alike: medians of ratios.

    python benchmarks/products_in_turn.py [--rounds 21]

Weights that stay (``x @ w.T`` and ``x @ w``, w a shared variable) laid out once per change against once per call (without the pass ``keep``).
float32, one thread, microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import graphc as gc

#: rows, sums and columns; is the second operand transposed in memory
KEPT = [(1, 512, 784, True), (8, 512, 784, True), (32, 1024, 1024, True), (32, 1024, 4096, True), (128, 512, 784, True), (4, 1024, 4096, False),
        (32, 1024, 4096, False), (128, 4096, 1024, False)]

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


if __name__ == "__main__":
    main()
