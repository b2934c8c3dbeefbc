"""The first call in fresh processes: building, compiling and calling once, with an empty cache and with a filled one."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environments import HERE, python_of, settings
from workload import Workload

PARTS = ("first_call", "second_call", "import", "started")


def one(name: str, workload: Workload, inputs: Path, threads: int, cache: Path, chosen: dict[str, str], timeout: float) -> dict[str, float]:
    """Seconds of one fresh process, and of the whole of it."""
    command = [python_of(name, chosen), str(HERE / "worker.py"), name, str(threads), "first", workload.kind, json.dumps(workload.params), str(inputs)]
    started = time.perf_counter()
    done = subprocess.run(command, env=settings(threads, cache, first_call=True), capture_output=True, text=True, timeout=timeout)
    taken = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return {**json.loads(done.stdout.splitlines()[-1]), "process": taken}


def measure(names: Sequence[str], workload: Workload, threads: int, rounds: int, chosen: dict[str, str], timeout: float = 600.0) -> dict[str, Any]:
    """name -> {"cold": medians, "warm": medians}; in every round every contestant runs twice, in a cache folder of its own."""
    runs: dict[str, dict[str, list[dict[str, float]]]] = {name: {"cold": [], "warm": []} for name in names}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="peers_") as folder:
        inputs = Path(folder) / "inputs.npz"
        np.savez(inputs, **workload.make_inputs())  # type: ignore[arg-type]
        for k in range(rounds + 1):  # round 0: files come into the system's cache, bytecode is written
            for name in names:
                if name in failed:
                    continue
                cache = Path(folder) / f"{name}_{k}"
                cache.mkdir()
                try:
                    for state in ("cold", "warm") if k else ("cold",):
                        result = one(name, workload, inputs, threads, cache, chosen, timeout)
                        if k:
                            runs[name][state].append(result)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[name] = str(error)
    medians: dict[str, Any] = {}
    for name in names:
        if name in failed:
            medians[name] = {"error": failed[name]}
        else:
            medians[name] = {state: {part: statistics.median(r[part] for r in results) for part in (*PARTS, "process")} for state, results in runs[name].items()}
            medians[name]["runs"] = {state: [r["first_call"] for r in results] for state, results in runs[name].items()}
    return medians
