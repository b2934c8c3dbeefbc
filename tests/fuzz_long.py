"""The fuzzer for as long as one likes.

    python tests/fuzz_long.py --minutes 10     random functions from random seeds; exit code 1 if one fails
    python tests/fuzz_long.py --seed 12345     one function again, with a reproducer and the guilty pass and rule
    python tests/fuzz_long.py --kernels        random kernels as machine code instead: 40 of each seed
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from typing import Any

import hypothesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from children import in_child
from graph_checks import bisect, check, check_determinism, input_text, reproducer
from graph_strategies import Case, Seeded, build
from kernel_checks import check_kernel
from kernel_running import TARGETS, guarded
from kernel_strategies import kernels, movers, rows

BLOCK = 20  # functions that one child does


def run_seed(seed: int) -> tuple[Case | None, str | None]:
    """One function; what went wrong with it, or None."""
    case = None
    try:
        source = Seeded(seed)
        case = build(source)
        check(case, source, thorough=seed % 4 == 0)
        if seed % 10 == 0:
            check_determinism(case, Seeded(seed))
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        return case, f"{type(error).__name__}: {error}\n  raised at {last.filename}:{last.lineno}"
    return case, None


def run_block(start: int, count: int) -> dict[int, str | None]:
    """Some functions in a child, which may die: machine code that reads beside an array ends it."""
    now = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile("w+") as file:
        def work() -> None:
            for seed in range(start, start + count):
                now[:] = seed.to_bytes(8, "little")
                file.write(json.dumps([seed, run_seed(seed)[1]]) + "\n")
                file.flush()

        problem = in_child(work, 600)
        file.seek(0)
        found: dict[int, str | None] = dict(json.loads(line) for line in file)
    if problem:
        found[int.from_bytes(now[:], "little")] = problem
    return found


def run_kernels(seed: int) -> str | None:
    """Some kernels; the smallest that goes wrong."""
    target = list(TARGETS)[seed % len(TARGETS)]

    @hypothesis.seed(seed)
    @settings(max_examples=40, deadline=None, database=None, report_multiple_bugs=False, suppress_health_check=list(HealthCheck))
    @given((kernels(), kernels(mixed=True), movers(), rows())[seed // len(TARGETS) % 4], st.data())
    def run(kernel: Any, data: Any) -> None:
        check_kernel(kernel, data.draw, target)

    try:
        guarded(run)
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])[:1]])
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--start", type=int, default=None, help="first seed; the clock by default")
    parser.add_argument("--seed", type=int, default=None, help="this one only, with its reproducer")
    parser.add_argument("--kernels", action="store_true", help="kernels, not functions")
    parser.add_argument("--keep-going", action="store_true", help="count failures by kind instead of stopping at the first")
    options = parser.parse_args()
    if options.kernels and options.seed is not None:
        failure = run_kernels(options.seed)
        print(failure or "nothing wrong")
        return int(failure is not None)
    if options.seed is not None:
        failure = run_block(options.seed, 1)[options.seed]
        print(failure or "nothing wrong")
        if failure:
            case = build(Seeded(options.seed))
            print(reproducer(case))
            print(in_child(lambda: print(bisect(input_text(case), case.arguments, case.derivatives), flush=True), 600))
        return int(failure is not None)

    seed = int(time.time()) * 1000 % 1_000_000_000 if options.start is None else options.start
    until = time.monotonic() + 60 * options.minutes
    kinds: Counter[str] = Counter()
    examples: dict[str, int] = {}
    ran = 0
    while time.monotonic() < until:
        results = {seed: run_kernels(seed)} if options.kernels else run_block(seed, BLOCK)
        ran += 40 if options.kernels else len(results)
        for number, failure in results.items():
            if failure is None:
                continue
            kind = " ".join(failure.split("\n")[0].split()[:14])
            if kind not in examples:
                examples[kind] = number
                print(f"python tests/fuzz_long.py {'--kernels ' if options.kernels else ''}--seed {number}   # {failure}", flush=True)
            kinds[kind] += 1
        if kinds and not options.keep_going:
            break
        seed = max(results) + 1
    print(f"{ran} {'kernels' if options.kernels else 'functions'}, {sum(kinds.values())} failures")
    for kind, count in kinds.most_common():
        print(f"  {count} x (first: --seed {examples[kind]}) {kind}")
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
