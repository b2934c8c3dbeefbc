"""The fuzzer for as long as one likes.

    python tests/fuzz_long.py --minutes 10     random functions from random seeds; exit code 1 if one fails
    python tests/fuzz_long.py --seed 12345     one function again, with a reproducer and the guilty pass and rule
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import Counter

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from graph_checks import bisect, check, check_determinism, input_text, reproducer
from graph_strategies import Case, Seeded, build


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--start", type=int, default=None, help="first seed; the clock by default")
    parser.add_argument("--seed", type=int, default=None, help="this one only, with its reproducer")
    parser.add_argument("--keep-going", action="store_true", help="count failures by kind instead of stopping at the first")
    options = parser.parse_args()
    if options.seed is not None:
        case, failure = run_seed(options.seed)
        print(failure or "nothing wrong")
        if case is not None and failure:
            try:
                print(reproducer(case))
                print(bisect(input_text(case), case.arguments, case.derivatives))
            except Exception:
                traceback.print_exc()
        return int(failure is not None)

    seed = int(time.time()) * 1000 % 1_000_000_000 if options.start is None else options.start
    until = time.monotonic() + 60 * options.minutes
    kinds: Counter[str] = Counter()
    examples: dict[str, int] = {}
    ran = 0
    while time.monotonic() < until:
        _, failure = run_seed(seed)
        ran += 1
        if failure is not None:
            kind = " ".join(failure.split("\n")[0].split()[:14])
            if kind not in examples:
                examples[kind] = seed
                print(f"python tests/fuzz_long.py --seed {seed}   # {failure}", flush=True)
            kinds[kind] += 1
            if not options.keep_going:
                break
        seed += 1
    print(f"{ran} functions, {sum(kinds.values())} failures")
    for kind, count in kinds.most_common():
        print(f"  {count} x (first: --seed {examples[kind]}) {kind}")
    return int(bool(kinds))


if __name__ == "__main__":
    sys.exit(main())
