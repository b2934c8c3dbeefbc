"""A stopwatch in the driver: nanoseconds per step, for functions compiled with ``profile=True``.

The table of slabs has one entry more than the program has slabs: the address of an array with an i64 for each step.  The
clock is read once before the first step of a stretch and once after each step; what has passed is added to the
step's number, atomically, because several threads may be in the function.
"""

from __future__ import annotations

import time

from graphc.backends.llvm.values import Body, Module
from graphc.kernel import Program, Step

__all__ = ["Clock", "clock_id"]


def clock_id() -> int | None:
    """The system's number of the clock that only goes forward; None where there is no ``clock_gettime``."""
    return getattr(time, "CLOCK_MONOTONIC", None)


class Clock:
    """Writes the readings into the stretches of one driver."""

    def __init__(self, program: Program) -> None:
        self.slot = len(program.slabs)
        self.numbers = {id(step): n for n, step in enumerate(program.steps)}

    def start(self, f: Body, entry: list[str]) -> None:
        """The first reading of a stretch; ``entry`` gets the lines that find the array."""
        entry += [f"  %times.p = getelementptr ptr, ptr %slabs, i64 {self.slot}", "  %times = load ptr, ptr %times.p"]
        self.f = f
        self._define(f.module)
        self.last = self._now()

    def stop(self, step: Step) -> None:
        """The time since the last reading belongs to ``step``."""
        f = self.f
        now = self._now()
        passed = f.op(f"sub i64 {now}, {self.last}")
        p = f.op(f"getelementptr i64, ptr %times, i64 {self.numbers[id(step)]}")
        f.op(f"atomicrmw add ptr {p}, i64 {passed} monotonic")
        self.last = now

    def _now(self) -> str:
        return self.f.op("call i64 @now()")

    @staticmethod
    def _define(module: Module) -> None:
        if "clock_gettime" in module.declared:
            return
        module.declare("clock_gettime", "i32 (i32, ptr)")
        module.functions.append("\n".join([
            "define internal i64 @now() nounwind {",
            "  %time = alloca [2 x i64], align 8",  # seconds, nanoseconds
            f"  %failed = call i32 @clock_gettime(i32 {clock_id()}, ptr %time)",
            "  %seconds = load i64, ptr %time",
            "  %rest.p = getelementptr i64, ptr %time, i64 1",
            "  %rest = load i64, ptr %rest.p",
            "  %whole = mul i64 %seconds, 1000000000",
            "  %sum = add i64 %whole, %rest",
            "  ret i64 %sum",
            "}"]))
