"""Two forms of the same kernels, alternating in one process: the figures behind two choices of the LLVM backend.

    python benchmarks/kernel_forms.py [--rounds 15]

Short rows: lanes along the row against a row in each lane (backends/llvm/staging.py), nanoseconds for a row of float32.
Streaming: whole registers against half ones (``Target.streaming_bits``; the same where the processor gains nothing by it),
microseconds of a call.  Values are compared before any time is taken; medians, one thread.
"""

from __future__ import annotations

import argparse
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
from graphc.backends.llvm import choices, staging

Case = tuple[list[Any], Any, list[Any]]  # inputs, output, arguments


def variables(*arrays: Any) -> list[Any]:
    return [gc.tensor(f"x{n}", dtype=a.dtype.name, shape=a.shape) for n, a in enumerate(arrays)]


def normalised(x: Any) -> Any:
    centred = x - gc.mean(x, axis=1, keepdims=True)
    return centred / gc.sqrt(gc.mean(centred * centred, axis=1, keepdims=True) + 1e-5)


ROWS: dict[str, Callable[[Any], Any]] = {
    "softmax": lambda x: gc.nn.softmax(x, axis=1), "layer norm": normalised,
    "variance": lambda x: gc.var(x, axis=1), "argmax": lambda x: gc.argmax(x, axis=1)}


def compared(case: Case, one: Any, other: Any, rounds: int) -> tuple[float, float]:
    """Seconds of a call compiled under each of two patches."""
    functions = []
    for patch in (one, other):
        with patch:
            functions.append(gc.function(case[0], case[1]))
    results = [f(*case[2]) for f in functions for _ in range(3)]
    np.testing.assert_allclose(results[0], results[-1], rtol=1e-4, atol=1e-5)
    del results
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for f, found in zip(functions, times, strict=True):
            f(*case[2])
            start = time.perf_counter()
            f(*case[2])
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    with gc.config(threads=1, cache_size=0):
        print("| length | " + " | ".join(ROWS) + " |\n|---|" + "---|" * len(ROWS))
        for n in (8, 16, 31, 64, 128):
            array = rng.normal(size=((1 << 20) // n, n)).astype(np.float32)
            cells = []
            for function in ROWS.values():
                x, = variables(array)
                found = compared(([x], function(x), [array]), mock.patch.object(staging, "_longest", lambda *_: 0),
                                 mock.patch.object(staging, "_longest", lambda *_: staging.LONGEST), rounds)
                cells.append(" / ".join(f"{1e9 * t / len(array):.1f}" for t in found))
            print(f"| {n} | " + " | ".join(cells) + " |")
        print("\n| streaming | whole | half |\n|---|---|---|")
        for size in (1 << 20, 1 << 24):
            arrays = [rng.normal(size=size).astype(np.float32) for _ in range(2)]
            x, y = variables(*arrays)
            for name, case in {"x + y": ([x, y], x + y, arrays), "sum(x)": ([x], gc.sum(x), arrays[:1]), "max(x)": ([x], gc.max(x), arrays[:1])}.items():
                found = compared(case, mock.patch.object(choices, "STREAMING", 0.0), mock.patch.object(choices, "STREAMING", choices.STREAMING), rounds)
                print(f"| {name}, {size >> 20}M float32 | " + " | ".join(f"{1e6 * t:.0f} us" for t in found) + " |")


if __name__ == "__main__":
    main()
