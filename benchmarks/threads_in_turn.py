"""Rows of the suite on one thread and on two, which take turns in one process: a noisy machine disturbs both alike.

    python benchmarks/threads_in_turn.py [--rows NAME ...] [--rounds 15]

Rows by name or group, as in benchmarks/peers/run.py; without any, groups 15 to 19.  Milliseconds, the median of the ratios, and the ratio of the least times.

Two virtual processors are at times two threads of one core, which no program can see, and which makes work that keeps a core's multipliers busy no faster on two than
on one.  So a round counts only if a probe before and after it, products that fit the first cache and share nothing, was PROBE times as fast on two threads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import contestant_graphc
from worker import calibrate, seconds
from workload import Workload
from workloads import select

import graphc as gc

#: seconds of a round, tries for each round that counts
ROUND, MOST = 0.01, 6
#: how many times as fast the probe must be on two threads
PROBE = 1.75


class Probe:
    """Does the machine have two cores to give now?"""

    def __init__(self) -> None:
        x = gc.tensor("x", shape=(256, 48, 48), dtype="float32")
        self.call, self.data = gc.function([gc.In(x, borrow=True)], gc.Out(x @ x, borrow=True)), np.ones((256, 48, 48), "float32")
        self.fine()

    def timed(self, threads: int) -> float:
        with gc.config(threads=threads):
            return seconds(self.call, (self.data,), 2)

    def fine(self) -> bool:
        ratios = [self.timed(1) / self.timed(2) for _ in range(3)]
        return statistics.median(ratios) >= PROBE


def measured(workload: Workload, rounds: int, probe: Probe) -> list[tuple[float, float]]:
    """Seconds of a call on one thread and on two, round by round; two functions, whose state goes its own way."""
    builts = [contestant_graphc.BUILDERS[workload.kind](workload.kind, workload.make_inputs(), workload.params) for _ in range(2)]

    def timed(threads: int, calls: int = 0) -> float:
        built = builts[threads - 1]
        with gc.config(threads=threads):  # what counts is the call
            return seconds(built.call, built.args, calls) / calls if calls else calibrate(built, ROUND)

    calls = [int(timed(threads)) for threads in (1, 2)]
    found: list[tuple[float, float]] = []
    before = probe.fine()
    for _ in range(MOST * rounds):
        pair, after = (timed(1, calls[0]), timed(2, calls[1])), probe.fine()
        if before and after:
            found.append(pair)
        before = after
        if len(found) == rounds:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=["15", "16", "17", "18", "19"])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    probe = Probe()
    print("| row | one thread | two threads | ratio | of the least | rounds |\n|---|---:|---:|---:|---:|---:|")
    for workload in select(options.rows):
        found = measured(workload, options.rounds, probe)
        if not found:
            print(f"| {workload.name} | | | | | 0 |", flush=True)
            continue
        one, two = zip(*found, strict=True)
        ratio = statistics.median(a / b for a, b in found)
        print(f"| {workload.name} | {statistics.median(one) * 1e3:.3f} | {statistics.median(two) * 1e3:.3f} | {ratio:.2f}x | {min(one) / min(two):.2f}x | "
              f"{len(found)} |", flush=True)


if __name__ == "__main__":
    main()
