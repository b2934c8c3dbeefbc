"""What the memory gives: bytes per second of reading, copying and adding float64 arrays, by size of the working set.

    python bandwidth.py THREADS     # prints JSON: [[bytes, read, mixed], ...]

STREAM's way of counting: every array once, what a store reads before it writes is not counted.  The loops are NumPy's,
each thread on arrays of its own, with no meeting of threads between repetitions; the best of several runs counts.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from worker import restrict_to

SIZES = (1 << 16, 1 << 18, 1 << 20, 1 << 21, 1 << 22, 1 << 23, 1 << 24, 1 << 25, 1 << 26, 3 << 26)
HEADLINE = 3 << 26  # three arrays of 64 MB
Vector = npt.NDArray[Any]


def best_rate(body: Callable[[list[Vector]], Any], arrays: int, total: int, threads: int) -> float:
    """Bytes per second over all threads: the best of seven runs of at least ten milliseconds."""
    length = max(1, total // (8 * arrays * threads))
    sets = [[np.ones(length) for _ in range(arrays)] for _ in range(threads)]
    repeats = max(1, int(1e8 / total))
    best = 0.0
    for _ in range(7):
        barrier = threading.Barrier(threads)
        marks: list[tuple[float, float]] = []

        def work(mine: list[Vector], barrier: threading.Barrier = barrier, marks: list[tuple[float, float]] = marks) -> None:
            body(mine)
            barrier.wait()
            started = time.perf_counter()
            for _ in range(repeats):
                body(mine)
            marks.append((started, time.perf_counter()))

        workers = [threading.Thread(target=work, args=(mine,)) for mine in sets[1:]]
        for w in workers:
            w.start()
        work(sets[0])
        for w in workers:
            w.join()
        taken = max(end for _, end in marks) - min(start for start, _ in marks)
        best = max(best, 8 * arrays * length * threads * repeats / taken)
    return best


def table(threads: int) -> list[tuple[int, float, float]]:
    """(bytes of the working set, rate of reading, rate of reading and writing), in bytes per second."""
    read: list[tuple[int, Callable[[list[Vector]], Any]]] = [(1, lambda v: v[0].max()), (1, lambda v: v[0].sum())]
    mixed: list[tuple[int, Callable[[list[Vector]], Any]]] = [
        (2, lambda v: np.copyto(v[1], v[0])), (3, lambda v: np.add(v[0], v[1], out=v[2])), (2, lambda v: np.multiply(v[0], 3.0, out=v[1]))]
    return [(size, max(best_rate(f, n, size, threads) for n, f in read), max(best_rate(f, n, size, threads) for n, f in mixed)) for size in SIZES]


def limit(rates: list[tuple[int, float, float]], read: int, written: int) -> float:
    """The measured rate for a kernel that reads and writes so many bytes: that of the nearest working set."""
    total = read + written
    _, reading, mixing = min(rates, key=lambda r: abs(np.log(r[0] / max(total, 1))))
    return reading if written < 0.05 * total else mixing


if __name__ == "__main__":
    restrict_to(int(sys.argv[1]))
    print(json.dumps(table(int(sys.argv[1]))))
