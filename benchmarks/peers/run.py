"""graphc side by side with NumPy, JAX, PyTorch (eager and compiled) and PyTensor.

    python benchmarks/peers/run.py [--rows NAME ...] [--contestants NAME ...] [--threads 1 2] [--rounds 15] [--json FILE] [--markdown FILE]

Every contestant lives in a process of its own and only one of them computes at a time.  A row: all build it and their
values are compared with the float64 reference; those that are right are timed in rounds (A, B, C, A, B, C, ...), each
time for as many calls as take 20 ms; the figure is the median over the rounds of the ratio to graphc within a round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import first_call
import numpy as np
import report
from environments import CONTESTANTS, DEFAULT, FOLDER, HERE, python_of, settings
from processes import Gone, Process, busy_elsewhere, total_cpu
from rich.console import Console
from workload import Workload, error_of
from workloads import GROUPS, WORKLOADS, select

Record = dict[str, Any]
console = Console(stderr=True, highlight=False)


class Race:
    """The contestants at one number of threads."""

    def __init__(self, names: Sequence[str], threads: int, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self.threads, self.options, self.folder = threads, options, folder
        self.processes: dict[str, Process] = {}
        self.facts: dict[str, Record] = {}
        for name in names:
            # graphc compiles from scratch in every run; the peers' caches only shorten the preparation, which is not timed here
            cache = folder / "cache" if name.startswith("graphc") else FOLDER / "cache"
            cache.mkdir(parents=True, exist_ok=True)
            try:
                self.processes[name] = process = Process(name, threads, options.python, cache, folder)
            except Gone as error:
                raise SystemExit(f"{name} does not start: {error}") from None
            stack.callback(process.close)
            self.facts[name] = process.greeting["facts"]

    def row(self, workload: Workload) -> Record:
        """Everything measured of one row."""
        inputs = workload.make_inputs()
        expected = workload.expected(inputs)
        path = self.folder / "inputs.npz"
        np.savez(path, **inputs)  # type: ignore[arg-type]
        names = [n for n in self.processes if (n in workload.only if workload.only else n != "graphc_any" or "graphc_any" in self.options.contestants)]
        results = {name: self._prepare(name, workload, path, expected) for name in names}
        ready = [name for name in names if results[name]["status"] == "ok"]
        for name in ready:
            self._calibrate(name, results[name])
        ready = [name for name in ready if results[name]["status"] == "ok"]
        for _ in range(self.options.rounds):
            for name in list(ready):
                if not self._time(name, results[name]):
                    ready.remove(name)
        for name in names:
            self._ask(name, results[name], "drop")
        read, written = workload.traffic(inputs, expected)
        return {"row": workload.name, "group": workload.group, "threads": self.threads, "read": read, "written": written,
                "memory_bound": workload.memory_bound, "not_counted": workload.not_counted, "parts": workload.parts,
                "contestants": {name: _summary(result, results, workload.parts) for name, result in results.items()}}

    def _ask(self, name: str, result: Record, command: str, **fields: Any) -> Record:
        """A request; what goes wrong is written into the result and comes back as an empty answer."""
        try:
            answer = self.processes[name].ask(command, self.options.timeout, **fields)
        except Gone as error:
            answer = {"error": f"process {error}"}
        for status in ("error", "missing"):
            if status in answer:
                result.update(status=status, detail=answer[status])
                return {}
        return answer

    def _prepare(self, name: str, workload: Workload, inputs: Path, expected: list[Any]) -> Record:
        result: Record = {"status": "ok", "times": [], "idle": []}
        outputs = self.folder / f"{name}.npz"
        answer = self._ask(name, result, "prepare", kind=workload.kind, params=workload.params, inputs=str(inputs), outputs=str(outputs), steps=workload.steps)
        if not answer:
            return result
        with np.load(outputs) as file:
            wrong, error, ulps = error_of(workload, expected, list(file.values()))
        outputs.unlink()
        result.update(answer, error_size=error, ulps=ulps)
        if wrong:
            result.update(status="wrong", detail=wrong)
        return result

    def _calibrate(self, name: str, result: Record) -> None:
        answer = self._ask(name, result, "calibrate", least=self.options.least)
        result["n"] = answer.get("n", 0)
        self.processes[name].settle()

    def _time(self, name: str, result: Record) -> bool:
        process = self.processes[name]
        others = [p for p in self.processes.values() if p is not process]
        before = total_cpu(others)
        answer = self._ask(name, result, "time", n=result["n"])
        if not answer:
            return False
        result["times"].append(answer["seconds"])
        result["idle"].append((total_cpu(others) - before) / max(answer["total"], 1e-9))
        result["cpu"], result["faults"] = answer["cpu"] / answer["total"], answer["faults"]
        if not process.settle():
            result["note"] = (result.get("note", "") + "; never sleeps").strip("; ")
        return True


def _summary(result: Record, results: dict[str, Record], parts: int) -> Record:
    """Median time of one part of a call, and median ratio to graphc over the rounds that both have."""
    times, base = result["times"], results.get("graphc", {}).get("times", [])
    if times:
        result["seconds"] = statistics.median(times) / parts
        result["idle_others"] = statistics.median(result.pop("idle"))
        if base and len(base) == len(times):
            result["ratio"] = statistics.median(t / b for t, b in zip(times, base, strict=True))
    return result


def _line(record: Record) -> str:
    cells = []
    for name, r in record["contestants"].items():
        cells.append(f"{name} {report.duration(r['seconds'])}" + (f" ({r['ratio']:.2f}x)" if "ratio" in r and name != "graphc" else "") if "seconds" in r
                     else f"{name} {r['status']}: {r.get('detail', '')[:60]}")
    return f"[bold]{record['row']}[/] " + " · ".join(cells)


def machine() -> Record:
    """Where this was measured."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            processor = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), processor)
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": processor, "cores": usable, "python": platform.python_version(), "system": f"{platform.system()} {platform.release()}",
            "date": datetime.date.today().isoformat()}


def bandwidth(threads: int, options: argparse.Namespace, folder: Path) -> list[tuple[int, float, float]]:
    done = subprocess.run([python_of("numpy", options.python), str(HERE / "bandwidth.py"), str(threads)], env=settings(threads, folder), check=True,
                          capture_output=True, text=True)
    return [(int(size), float(read), float(mixed)) for size, read, mixed in json.loads(done.stdout)]


def measure(options: argparse.Namespace) -> Record:
    """All that was asked for, as one record."""
    workloads = select(options.rows)
    steady = [w for w in workloads if w.group != 14]
    fresh = [w for w in workloads if w.group == 14]
    names = list(options.contestants)
    if any("graphc_any" in w.only for w in steady) and "graphc" in names and "graphc_any" not in names:
        names.insert(names.index("graphc") + 1, "graphc_any")
    busy = busy_elsewhere()
    if busy > 0.05:
        console.print(f"[yellow]the machine is not idle: {busy:.2f} processors are busy; do not trust the figures[/]")
    record: Record = {"machine": machine(), "busy": busy, "rounds": options.rounds, "facts": {}, "bandwidth": {}, "rows": [], "first_call": []}
    for threads in options.threads:
        with tempfile.TemporaryDirectory(prefix="peers_") as text, ExitStack() as stack:
            folder = Path(text)
            if steady:
                console.rule(f"{threads} thread{'s' * (threads > 1)}")
                if any(w.memory_bound for w in steady):
                    record["bandwidth"][str(threads)] = bandwidth(threads, options, folder)
                race = Race(names, threads, options, folder, stack)
                record["facts"] |= race.facts
            for workload in steady:
                record["rows"].append(race.row(workload))
                console.print(_line(record["rows"][-1]))
                _save(record, options)
        for workload in fresh:
            contestants = [n for n in options.contestants if not CONTESTANTS[n].variant]
            result = first_call.measure(contestants, workload, threads, options.first_rounds, options.python, options.timeout)
            record["first_call"].append({"row": workload.name, "threads": threads, "contestants": result})
            console.print(f"[bold]{workload.name}[/] " + " · ".join(
                f"{n} {r['error'][:60]}" if "error" in r else f"{n} cold {r['cold']['first_call']:.2f} s, warm {r['warm']['first_call']:.2f} s" for n, r in result.items()))
            _save(record, options)
    record["busy_after"] = busy_elsewhere()
    return record


def _save(record: Record, options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(record, indent=1, default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, epilog="groups: " + "; ".join(f"{k} {v}" for k, v in GROUPS.items()))
    parser.add_argument("--rows", nargs="+", default=[], metavar="NAME", help="names, shell patterns, kinds or numbers of groups (default: all)")
    parser.add_argument("--contestants", nargs="+", default=list(DEFAULT), choices=list(CONTESTANTS), metavar="NAME", help=" ".join(CONTESTANTS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--first-rounds", type=int, default=5, help="fresh processes per contestant and state of the cache, for the rows of the first call")
    parser.add_argument("--least", type=float, default=0.02, help="seconds of calls per contestant and round")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a contestant is ended")
    parser.add_argument("--python", nargs="+", default=[], metavar="NAME=PATH", help="another interpreter for a contestant or an environment")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--markdown", type=Path, help="write the tables as Markdown to this file")
    parser.add_argument("--list", action="store_true", help="print the rows and leave")
    options = parser.parse_args()
    options.python = dict(pair.split("=", 1) for pair in options.python)
    if options.list:
        for w in WORKLOADS.values():
            print(f"{w.group:2} {w.name}")
        return
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if max(options.threads) > usable:
        parser.error(f"--threads {max(options.threads)}: this process may use {usable} processors")
    record = measure(options)
    _save(record, options)
    report.show(record, Console(width=None if sys.stdout.isatty() else 200))
    if options.markdown:
        options.markdown.write_text(report.markdown(record))


if __name__ == "__main__":
    main()
