"""How long compiling takes: seconds and nodes per second of every pass, on graphs of 1k, 10k and 100k nodes.

    python benchmarks/compile_time.py [--sizes 1000,10000,100000] [--graphs chain,mlp,lattice] [--skip-checks]

Prints Markdown tables, then checks what the project promises and exits with 1 if a promise is broken:
cost per node grows by at most 1.5x from the smallest graph to the largest; 100k nodes go through all
passes in under 60 s on one core; ``import graphc`` takes under 0.25 s.
"""

import argparse
import gc as garbage
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

GROWTH, LARGEST_SECONDS, IMPORT_SECONDS = 1.5, 60.0, 0.25


def chain(n):
    """n elementwise nodes, each on the one before."""
    import graphc as gc
    x = gc.vector("x")
    y = x
    for _ in range(n // 4):
        y = gc.sin(gc.tanh(y) * x + y)
    return [x], y, None


def mlp(n):
    """A training step of a deep network: n nodes at its largest, after the gradient."""
    import numpy as np

    import graphc as gc
    rng = np.random.default_rng(0)
    x, t = gc.matrix("x"), gc.lvector("t")
    h, params = x, []
    for i in range(n // 16):  # 4 nodes forward, some 12 for the gradient and the updates
        w, b = gc.shared(rng.normal(size=(4, 4)), f"w{i}"), gc.shared(np.zeros(4), f"b{i}")
        h = gc.nn.relu(h @ w + b)
        params += [w, b]
    loss = gc.nn.cross_entropy(h, t)
    updates = [(p, p - 0.1 * g) for p, g in zip(params, gc.grad(loss, params), strict=True)]
    return [x, t], loss, updates


def lattice(n, width=32):
    """Layers of 32 nodes, each of two neighbours below: every value is used twice, paths grow exponentially."""
    import graphc as gc
    xs = [gc.scalar(f"x{i}") for i in range(width)]
    row = xs
    for _ in range(n // (2 * width)):
        row = [row[i] + gc.sin(row[(i + 1) % width]) for i in range(width)]
    return xs, row, None


GRAPHS = {"chain": chain, "mlp": mlp, "lattice": lattice}


def measure(make, n, repeats):
    """The stages and seconds of the fastest of several compilations, and the seconds to build the graph."""
    import graphc as gc
    best = None
    for _ in range(repeats):
        garbage.collect()
        started = time.perf_counter()
        inputs, outputs, updates = make(n)
        built = time.perf_counter() - started
        f = gc.function(inputs, outputs, updates=updates, name=f"{make.__name__}_{n}")
        stages = [(s.name, max(s.nodes_before, s.nodes_after), s.seconds) for s in f.report if s.name != "input"]
        other = {name: seconds for name, seconds in f.compile_seconds.items() if name != "passes"}
        result = {"build": built, "stages": stages, "other": other, "nodes": max(k for _, k, _ in stages),
                  "input": f.report[0].nodes_after, "passes": sum(s for _, _, s in stages)}
        if best is None or result["passes"] < best["passes"]:
            best = result
        del f, inputs, outputs, updates
    return best


def table(name, sizes, results):
    """One Markdown table: a line per pass, a pair of columns per size."""
    print(f"\n### {name}\n")
    print("| pass | " + " | ".join(f"{n:,} nodes: s | nodes/s" for n in sizes) + " |")
    print("|---|" + "---:|---:|" * len(sizes))
    print("| build the graph | " + " | ".join(f"{r['build']:.3f} | {r['input'] / max(r['build'], 1e-9):,.0f}" for r in results) + " |")
    for i, (stage, _, _) in enumerate(results[0]["stages"]):
        cells = [r["stages"][i] for r in results]
        print(f"| {stage} | " + " | ".join(f"{s:.3f} | {k / max(s, 1e-9):,.0f}" for _, k, s in cells) + " |")
    print("| **all passes** | " + " | ".join(f"**{r['passes']:.3f}** | **{r['nodes'] / r['passes']:,.0f}**" for r in results) + " |")
    for part in results[0]["other"]:
        print(f"| {part} | " + " | ".join(f"{r['other'][part]:.3f} | {r['nodes'] / max(r['other'][part], 1e-9):,.0f}" for r in results) + " |")
    print("\nnodes as written / at most: " + ", ".join(f"{r['input']:,} / {r['nodes']:,}" for r in results))


def import_seconds(module="graphc"):
    """The median of five fresh processes that find compiled bytecode, as any but the very first does."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "PYTHONDONTWRITEBYTECODE": ""}
        runs = [float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=env).stdout)
                for _ in range(6)]
    return statistics.median(runs[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1000,10000,100000")
    parser.add_argument("--graphs", default=",".join(GRAPHS))
    parser.add_argument("--skip-checks", action="store_true")
    options = parser.parse_args()
    sizes = [int(n) for n in options.sizes.split(",")]

    imported, numpy_alone = import_seconds(), import_seconds("numpy")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, as promised
    print(f"# Compile time\n\n{platform.machine()}, Python {platform.python_version()}, one core")
    print(f"\n`import graphc`: {imported:.3f} s (of which NumPy {numpy_alone:.3f} s)")

    promises = [(f"import graphc {imported:.3f} s < {IMPORT_SECONDS} s", imported < IMPORT_SECONDS)]
    for name in options.graphs.split(","):
        results = [measure(GRAPHS[name], n, repeats=5 if n <= 1000 else 3 if n <= 10_000 else 1) for n in sizes]
        table(name, sizes, results)
        growth = (results[-1]["passes"] / results[-1]["nodes"]) / (results[0]["passes"] / results[0]["nodes"])
        promises.append((f"{name}: cost per node grows {growth:.2f}x <= {GROWTH}x from {sizes[0]:,} to {sizes[-1]:,} nodes", growth <= GROWTH))
        promises.append((f"{name}: all passes over {sizes[-1]:,} nodes in {results[-1]['passes']:.1f} s < {LARGEST_SECONDS:.0f} s",
                         results[-1]["passes"] < LARGEST_SECONDS))
    print("\n### Promises\n")
    for text, kept in promises:
        print(f"- {'kept' if kept else '**BROKEN**'}: {text}")
    return 0 if options.skip_checks or all(kept for _, kept in promises) else 1


if __name__ == "__main__":
    sys.exit(main())
