"""The runner's side of a contestant's process: ask and wait, and see to it that whoever is not asked does not compute."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from environments import HERE, python_of, settings


class Gone(Exception):
    """The process died, or took too long and was ended."""


class Process:
    """A contestant, started and waiting at its pipe."""

    def __init__(self, name: str, threads: int, chosen: dict[str, str], cache: Path, logs: Path) -> None:
        self.name, self._threads, self._chosen, self._cache = name, threads, chosen, cache
        self.log = logs / f"{name}.log"
        self._start()

    def _start(self) -> None:
        command = [python_of(self.name, self._chosen), str(HERE / "worker.py"), self.name, str(self._threads)]
        with open(self.log, "ab") as log:  # a session of its own: what a contestant starts ends with it
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=settings(self._threads, self._cache),
                                             start_new_session=True)
        self._buffer = b""
        self.greeting = self._answer(300)

    def ask(self, command: str, timeout: float = 600.0, **fields: Any) -> dict[str, Any]:
        """The answer to one request; after ``Gone`` the next request goes to a new process."""
        if self._process.poll() is not None:
            self._start()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **fields}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Gone(self._last_words()) from None
        return self._answer(timeout)

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.close()
                    raise Gone(f"no answer in {timeout:.0f} s")
                data = os.read(self._process.stdout.fileno(), 1 << 16)
                if not data:
                    self._process.wait()
                    raise Gone(self._last_words())
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"ended with {self._process.poll()}: {lines[-1] if lines else 'no message'}"

    def cpu_seconds(self) -> float | None:
        """Processor time of all its threads, to the nanosecond; None where the system does not tell."""
        total = 0
        try:
            for task in os.scandir(f"/proc/{self._process.pid}/task"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"{task.path}/schedstat") as file:
                    total += int(file.read().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return total / 1e9

    def _runnable(self) -> bool:
        """Does one of its threads want a processor?  On a busy machine it may wait for one without its time moving."""
        try:
            for task in os.scandir(f"/proc/{self._process.pid}/task"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError), open(f"{task.path}/stat") as file:
                    if file.read().rpartition(")")[2].split()[0] == "R":
                        return True
        except (OSError, IndexError):
            pass
        return False

    def settle(self, quiet: float = 0.005, patience: float = 1.0) -> bool:
        """Wait until its threads sleep; False if they do not."""
        deadline = time.monotonic() + patience
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(quiet)  # longer than a tick of the scheduler, which is when the counters of running threads move
            after = self.cpu_seconds()
            if before is None or after is None or (after - before < 0.02 * quiet and not self._runnable()):
                return True
            before = after
        return False

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def total_cpu(processes: Iterable[Process]) -> float:
    return sum(p.cpu_seconds() or 0.0 for p in processes)


def busy_elsewhere(seconds: float = 1.0) -> float:
    """Processors kept busy now, by whatever runs; nan where the system does not tell."""
    def jiffies() -> int:
        with open("/proc/stat") as file:
            user, nice, system, _idle, _wait, irq, soft, steal = map(int, file.readline().split()[1:9])
        return user + nice + system + irq + soft + steal
    try:
        before = jiffies()
        time.sleep(seconds)
        return (jiffies() - before) / os.sysconf("SC_CLK_TCK") / seconds
    except (OSError, ValueError):
        return float("nan")
