"""The forms of matrix products against each other and NumPy: the figures behind the choices in backends/llvm/multiplying.py.

    python benchmarks/product_forms.py [--dtype float32] [--rounds 7] [--threads 1]

``rows`` is products.py, ``blocks`` blocked.py; AB' has its second operand transposed in memory, A'B the first.  GFLOP/s, medians; the
forms alternate within a round, their bits are compared, and NumPy's library has as many threads.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

SHAPES = [(32, 256, 1024), (32, 1024, 4096), (64, 1024, 1024), (128, 512, 784), (256, 256, 256), (512, 512, 512), (1024, 256, 1024), (1024, 1024, 1024),
          (128, 1024, 4096), (256, 2048, 2048), (2048, 512, 512), (4096, 128, 128), (2048, 64, 2048), (2048, 2048, 2048)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)  # before NumPy is imported
    import numpy as np

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import graphc as gc
    from graphc.backends.llvm import multiplying

    rng = np.random.default_rng(0)
    print("| m, n, k | form | rows | blocks | chosen | NumPy |\n|---|---|---:|---:|---|---:|")
    with gc.config(threads=options.threads, cache_size=0):
        for m, n, k in SHAPES:
            for form in ("AB", "AB'", "A'B"):
                a = rng.normal(size=(k, m) if form == "A'B" else (m, k)).astype(options.dtype)
                b = rng.normal(size=(n, k) if form == "AB'" else (k, n)).astype(options.dtype)
                x, y = (gc.tensor(name, dtype=options.dtype, shape=array.shape) for name, array in (("a", a), ("b", b)))
                left, right = (x.T if form == "A'B" else x), (y.T if form == "AB'" else y)
                functions: list[Any] = []
                for large in (False, True):
                    with mock.patch.object(multiplying.Multiplying, "_large", lambda *_, large=large: large):
                        functions.append(gc.function([x, y], left @ right))
                        functions[-1](a, b)
                chosen = gc.function([x, y], left @ right)
                blocks = "blocked_" in chosen.dump("llvm")
                functions.append(lambda a, b, form=form: np.matmul(a.T if form == "A'B" else a, b.T if form == "AB'" else b))
                results = [f(a, b) for f in functions]
                np.testing.assert_array_equal(results[0], results[1])
                times: list[list[float]] = [[] for _ in functions]
                for _ in range(options.rounds):
                    for f, found in zip(functions, times, strict=True):
                        start = time.perf_counter()
                        f(a, b)
                        found.append(time.perf_counter() - start)
                rows, blocked, library = (f"{2e-9 * m * n * k / statistics.median(t):.1f}" for t in times)
                print(f"| {m}, {n}, {k} | {form} | {rows} | {blocked} | {'blocks' if blocks else 'rows'} | {library} |", flush=True)


if __name__ == "__main__":
    main()
