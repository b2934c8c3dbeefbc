"""The road, from top to bottom: graph as written -> passes -> memory plan -> backend -> executable.

    capture     (graphc/capture.py)      inputs, givens, updates -> Graph, checked
    passes      (passes/pipeline.py)     Graph -> Graph, a stage for each pass
    memory      (passes/memory.py)       Graph -> MemoryPlan, proved by graphc/verify_plan.py
    backend     (backends/*.py)          Graph, plan -> runner
    door        (graphc/binding.py)      arguments -> runner -> results, state

This file is that picture as code: the first one to open.
"""

from __future__ import annotations

import difflib
import functools
import gc as garbage
import importlib.util
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from graphc import backends
from graphc.backends import Options
from graphc.binding import Door, Parameter
from graphc.capture import capture
from graphc.checking import checked_runner
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Graph, Shared, Var
from graphc.passes import pipeline
from graphc.passes.context import Context
from graphc.passes.memory import memory
from graphc.passes.pipeline import FAST_COMPILE, PIPELINE, Pass, Stage
from graphc.passes.rules import BY_NAME
from graphc.plan import MemoryPlan
from graphc.settings import config
from graphc.verify import verify
from graphc.verify_plan import verify_plan


@dataclass(frozen=True)
class Mode:
    """How a function is compiled.

    Args:
        backend: "llvm", "numpy" or "reference"; None: ``gc.config.backend``.
        passes: None for all, "none", or a list of names (see ``graphc.passes.pipeline.PIPELINE``).
        exclude: names of passes and rewrite rules to leave out.
        check_nan: raise NaNError at the first node that makes NaN out of operands without NaN.
        level: "exact" keeps nan, inf, -0.0 and subnormals of the expression as written; "fast" may
            reassociate and assume finite values.
        debug: verify after every pass and compare every node's value with the reference evaluator.
    """

    backend: str | None = None
    passes: Any = None
    exclude: Sequence[str] = ()
    check_nan: bool = False
    level: str = "exact"
    debug: bool = False

    def __post_init__(self) -> None:
        if self.level not in ("exact", "fast"):
            raise GraphcValueError(f"Mode(level={self.level!r}): expected 'exact' or 'fast'")
        if self.backend is not None and self.backend not in ("auto", "llvm", "numpy", "reference"):
            raise GraphcValueError(f"Mode(backend={self.backend!r}): expected 'llvm', 'numpy' or 'reference'")
        if isinstance(self.exclude, str):
            raise GraphcTypeError(f"Mode(exclude={self.exclude!r}): expected a list of names")


MODES: dict[str, Mode] = {
    "FAST_RUN": Mode(),
    "FAST_COMPILE": Mode(backend="numpy", passes=FAST_COMPILE),
    "DEBUG": Mode(debug=True),
}


def as_mode(mode: Any) -> Mode:
    """The Mode for a name, a Mode, or None (``gc.config.mode``)."""
    if mode is None:
        mode = config.mode
    if isinstance(mode, str):
        if mode not in MODES:
            raise GraphcValueError(f"mode={mode!r}: expected one of {', '.join(map(repr, MODES))} or a gc.Mode")
        mode = MODES[mode]
    if not isinstance(mode, Mode):
        raise GraphcTypeError(f"mode: expected a name or a gc.Mode; got {mode!r}")
    return replace(mode, check_nan=mode.check_nan or config.check_nan)


@dataclass
class Compiled:
    """Everything that compiling leaves: what a Function calls, and what it shows."""

    door: Door
    stages: list[Stage]
    plan: MemoryPlan | None
    runner: Any
    backend: str
    mode: Mode
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.stages[-1].graph


def compile_function(parameters: Sequence[Parameter], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]], *,
                     givens: Any, mode: Mode, name: str, on_unused: str, downcast: bool | None) -> Compiled:
    """Compile once: the road."""
    with _collector_paused():
        return _road(parameters, outputs, updates, givens, mode, name, on_unused, downcast)


def _road(parameters: Sequence[Parameter], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]], givens: Any,
          mode: Mode, name: str, on_unused: str, downcast: bool | None) -> Compiled:
    started = time.perf_counter()
    graph = capture([p.var for p in parameters], outputs, updates, givens, name, on_unused)
    captured = time.perf_counter()

    # passes: a stage for each; the reference backend walks the graph as written (only derivatives are put in)
    backend = backend_name(mode)
    wanted = mode.passes
    if backend == "reference" and wanted is None:
        wanted = "none"
    passes = pipeline.select(wanted, mode.exclude)
    _check_exclude(mode.exclude, passes)
    context = Context(mode.level, frozenset(mode.exclude), config.fold_limit)
    stages = pipeline.run(graph, passes, context, check=mode.debug or config.verify)
    final = stages[-1].graph
    verify(final, "final")
    optimised = time.perf_counter()

    # memory: decided by the plan, proved by a checker that shares no code with it
    plan = memory(final) if backend != "reference" else None
    if plan is not None and (mode.debug or config.verify):
        verify_plan(final, plan)
    planned = time.perf_counter()

    # backend
    runner = backends.load(backend).compile(final, plan, Options(check_nan=mode.check_nan, level=mode.level, name=name))
    run = checked_runner(stages, runner) if mode.debug else runner
    emitted = time.perf_counter()

    seconds = {"capture": captured - started, "passes": optimised - captured, "memory": planned - optimised, "backend": emitted - planned}
    return Compiled(Door(final, parameters, run, name, downcast), stages, plan, runner, backend, mode, seconds)


def _check_exclude(exclude: Sequence[str], passes: Sequence[Pass]) -> None:
    """A name that nothing has would leave out nothing.  Passes of the user's own may have rules that only they know."""
    if any(p not in PIPELINE for p in passes):
        return
    known = {*(p.name for p in PIPELINE), *BY_NAME}
    for name in exclude:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), 3)
            raise GraphcValueError(f"Mode(exclude={list(exclude)!r}): there is no pass and no rule {name!r}"
                                   + (f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; the passes are: {', '.join(p.name for p in PIPELINE)}"))


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No cyclic garbage collection meanwhile: it walks all nodes again and again, and compile time would grow with their square."""
    was_on = garbage.isenabled()
    garbage.disable()
    try:
        yield
    finally:
        if was_on:
            garbage.enable()


def backend_name(mode: Mode) -> str:
    """The backend that a mode means; "auto" is the fastest one that is there."""
    name = mode.backend or config.backend
    if name == "auto":
        if not _llvmlite_is_there():
            return "numpy"
        return "llvm" if "llvm" in backends.BACKENDS else "numpy"
    if name not in backends.BACKENDS:
        raise GraphcValueError(f"the backend {name!r} is not available here; there are: {', '.join(sorted(backends.BACKENDS))}")
    return str(name)


@functools.cache
def _llvmlite_is_there() -> bool:
    """Without llvmlite everything works, on the NumPy backend; that is said once."""
    if importlib.util.find_spec("llvmlite") is not None:
        return True
    warnings.warn("llvmlite is not installed: functions run on the NumPy backend (pip install llvmlite for native code)", stacklevel=2)
    return False


__all__ = ["MODES", "Compiled", "Mode", "as_mode", "backend_name", "compile_function"]
