"""A runner that keeps times: see ``Meter``.  The kernels are those of the plain runner, its driver reads the clock between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.backends import Options
from graphc.backends.llvm.runner import LlvmRunner
from graphc.backends.llvm.target import Target
from graphc.dims import Symbol
from graphc.ir import Array
from graphc.kernel import CallOut, Program

__all__ = ["Meter", "ProfiledRunner"]


class Meter:
    """What was measured of one program since the last ``reset``.

    Args:
        times: nanoseconds of each step; native code adds to it.
        calls: the values of ``symbols`` -> how many calls had them, careful ones not counted.
        seconds: of all calls, from the runner's entry to its exit.
        careful: calls that were evaluated node by node because something was wrong with them, and their seconds.
        threads: that the last call could have.
    """

    def __init__(self, program: Program, symbols: Sequence[Symbol]) -> None:
        self.program, self.symbols = program, tuple(symbols)
        self.times = np.zeros(max(len(program.steps), 1), np.int64)
        self.lock = threading.Lock()
        self.threads = 1
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.times[:] = 0
            self.calls: dict[tuple[int, ...], int] = {}
            self.seconds = 0.0
            self.careful: tuple[int, float] = (0, 0.0)

    def called(self, env: Mapping[Symbol, int], seconds: float, threads: int) -> None:
        with self.lock:
            self._count(env, 1)
            self.seconds += seconds
            self.threads = threads

    def step(self, number: int, seconds: float) -> None:
        with self.lock:
            self.times[number] += round(seconds * 1e9)

    def careful_call(self, env: Mapping[Symbol, int], seconds: float) -> None:
        """A part of a call: ``called`` comes later and counts it too."""
        with self.lock:
            self._count(env, -1)
            self.careful = (self.careful[0] + 1, self.careful[1] + seconds)

    def _count(self, env: Mapping[Symbol, int], n: int) -> None:
        key = tuple([env.get(s, 0) for s in self.symbols])
        self.calls[key] = self.calls.get(key, 0) + n


class ProfiledRunner(LlvmRunner):
    """The runner of a function compiled with ``profile=True``; ``meter`` has what it measured."""

    def __init__(self, program: Program, options: Options, target: Target | None = None) -> None:
        super().__init__(program, options, target)
        self.meter = Meter(program, self.native.symbols)
        self.clock = self.meter.times.ctypes.data
        self._numbers = {id(step): n for n, step in enumerate(program.steps)}

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        started = time.perf_counter()
        try:
            return super().__call__(arguments, env)
        finally:
            seconds = time.perf_counter() - started
            self.meter.called(env, seconds, self.native.pool.threads_for(self.threads, None))

    def careful(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        started = time.perf_counter()
        try:
            return super().careful(arguments, env)
        finally:
            self.meter.careful_call(env, time.perf_counter() - started)

    def _call_out(self, step: CallOut, *rest: Any) -> None:
        started = time.perf_counter()
        try:
            super()._call_out(step, *rest)
        finally:
            self.meter.step(self._numbers[id(step)], time.perf_counter() - started)
