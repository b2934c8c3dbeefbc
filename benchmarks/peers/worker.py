"""The side of a contestant: a process that builds rows, gives their values and times them when asked.

    python worker.py CONTESTANT THREADS           # started by run.py; one JSON object per line in, one out
    python worker.py CONTESTANT THREADS first KIND PARAMS INPUTS.npz   # one first call in a fresh process

Between two requests the process is blocked in a read.  Nothing heavy is imported before the processors are chosen.
"""

from __future__ import annotations

import gc as garbage
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

Arrays = dict[str, Any]


@dataclass
class Built:
    """A row made ready: ``call(*args)`` computes it, with the result complete on return."""

    call: Callable[..., Any]
    args: Sequence[Any]
    fetch: Callable[[Any], list[Any]]  # result of a call -> NumPy arrays
    state: Callable[[], list[Any]] | None = None  # what the calls changed, as NumPy arrays
    note: str = ""
    any_order: bool = False  # may the axes of a result lie in any order?


class Builders(dict[str, Callable[[str, Arrays, dict[str, Any]], Built]]):
    """kind -> builder, called with (kind, inputs, params); filled by a contestant's module."""

    def row(self, *kinds: str) -> Callable[[Any], Any]:
        def register(builder: Any) -> Any:
            self.update(dict.fromkeys(kinds, builder))
            return builder
        return register


def restrict_to(threads: int) -> None:
    """As many processors as threads, the same ones for every contestant."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))


class Contestant:
    """A contestant's module, started."""

    def __init__(self, name: str, threads: int) -> None:
        module, _, variant = name.partition("_")
        restrict_to(threads)
        started = time.perf_counter()
        self.module = importlib.import_module(f"contestant_{module}")
        self.imported = time.perf_counter() - started
        self.facts: dict[str, str] = self.module.start(variant, threads)
        self.started = time.perf_counter() - started  # importing and bringing up the device

    def build(self, kind: str, params: dict[str, Any], inputs: Arrays) -> Built:
        if kind not in self.module.BUILDERS:
            raise NotImplementedError(f"no {kind}")
        built: Built = self.module.BUILDERS[kind](kind, inputs, params)
        return built


def values(built: Built, first: Any, steps: int, inputs: Arrays) -> list[Any]:
    """The values to compare, after ``steps`` calls; raises where a result is a view or the argument itself."""
    import numpy as np
    results = [built.fetch(first)]
    for array in results[0]:
        order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis]) if built.any_order else range(array.ndim)
        if not array.transpose(order).flags.c_contiguous:
            raise ValueError(f"result not materialised: strides {array.strides} of {array.shape}")
        if any(np.may_share_memory(array, given) for given in inputs.values()):
            raise ValueError("result not materialised: it shares memory with an argument")
    for _ in range(steps - 1):
        results.append(built.fetch(built.call(*built.args)))
    if built.state is None:
        return results[0]
    losses = [np.array([r[0] for r in results])] if results[0] else []  # a step may return nothing
    return [*losses, *built.state()]


def seconds(call: Callable[..., Any], args: Sequence[Any], n: int) -> float:
    """The time of n calls, results thrown away one by one as they come."""
    times = repeat(None, n)
    started = time.perf_counter()
    for _ in times:
        call(*args)
    return time.perf_counter() - started


def calibrate(built: Built, least: float) -> int:
    """Calls that take at least so many seconds; warm after it."""
    n, taken = 1, 0.0
    while True:
        taken = seconds(built.call, built.args, n)
        if taken >= least:
            return n
        n = max(n + 1, min(n * 16, int(n * 1.3 * least / max(taken, 1e-9))))


def quickest(forms: dict[str, Callable[[], Built]]) -> Built:
    """The form that takes least time here and now, its name as the note: for what a library offers several ways to say."""
    found: dict[str, tuple[float, Built]] = {}
    for name, make in forms.items():
        built = make()
        built.call(*built.args)  # compiles
        n = calibrate(built, 0.01)
        found[name] = min(seconds(built.call, built.args, n) / n for _ in range(3)), built
    name = min(found, key=lambda k: found[k][0])
    return replace(found[name][1], note=name)


class Server:
    """Answers requests until the pipe closes."""

    def __init__(self, contestant: Contestant) -> None:
        self.contestant = contestant
        self.built: Built | None = None

    def prepare(self, kind: str, params: dict[str, Any], inputs: str, outputs: str, steps: int, **_: Any) -> dict[str, Any]:
        import numpy as np
        with np.load(inputs) as file:
            arrays = dict(file)
        started = time.perf_counter()
        built = self.contestant.build(kind, params, arrays)
        ready = time.perf_counter()
        first = built.call(*built.args)
        called = time.perf_counter()
        got = values(built, first, steps, arrays)
        np.savez(outputs, *got)
        self.built = built
        return {"build_s": ready - started, "first_s": called - ready, "note": built.note}

    def calibrate(self, least: float, **_: Any) -> dict[str, Any]:
        assert self.built is not None
        calibrate(self.built, 2 * least)
        return {"n": calibrate(self.built, least)}

    def time(self, n: int, **_: Any) -> dict[str, Any]:
        assert self.built is not None
        seconds(self.built.call, self.built.args, max(1, n // 20))  # caches, and threads that fell asleep
        garbage.disable()
        before = resource.getrusage(resource.RUSAGE_SELF)
        taken = seconds(self.built.call, self.built.args, n)
        after = resource.getrusage(resource.RUSAGE_SELF)
        garbage.enable()
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"seconds": taken / n, "total": taken, "cpu": cpu, "faults": (after.ru_minflt - before.ru_minflt) / n}

    def drop(self, **_: Any) -> dict[str, Any]:
        self.built = None
        garbage.collect()
        return {}

    def serve(self, requests: Any, answers: Any) -> None:
        for line in requests:
            request = json.loads(line)
            try:
                answer = getattr(self, request.pop("command"))(**request)
            except NotImplementedError as error:
                answer = {"missing": str(error)}
            except Exception as error:  # told to the runner, which goes on with the other rows
                answer = {"error": f"{type(error).__name__}: {error}"[:2000]}
            print(json.dumps(answer), file=answers, flush=True)


def first_call(contestant: Contestant, kind: str, params: dict[str, Any], inputs: str) -> dict[str, Any]:
    """Seconds from the start of building to the first complete result."""
    import numpy as np
    with np.load(inputs) as file:
        arrays = dict(file)
    started = time.perf_counter()
    built = contestant.build(kind, params, arrays)
    result = built.call(*built.args)
    taken = time.perf_counter() - started
    built.fetch(result)
    again = seconds(built.call, built.args, 1)
    return {"first_call": taken, "second_call": again, "import": contestant.imported, "started": contestant.started}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like; the answers have a descriptor of their own
    name, threads = sys.argv[1], int(sys.argv[2])
    contestant = Contestant(name, threads)
    if sys.argv[3:4] == ["first"]:
        kind, params, inputs = sys.argv[4:7]
        print(json.dumps(first_call(contestant, kind, json.loads(params), inputs)), file=answers, flush=True)
        return
    print(json.dumps({"facts": contestant.facts, "import": contestant.imported, "started": contestant.started}), file=answers, flush=True)
    Server(contestant).serve(sys.stdin, answers)


if __name__ == "__main__":
    sys.modules["worker"] = sys.modules["__main__"]  # the contestants import Built from here
    main()
