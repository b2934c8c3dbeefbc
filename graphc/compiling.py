"""The road, from top to bottom: graph as written -> passes -> memory plan -> backend -> executable.

    capture     (graphc/capture.py)      inputs, givens, updates -> Graph, checked
    passes      (passes/pipeline.py)     Graph -> Graph, a stage for each pass
    memory      (passes/memory.py)       Graph -> MemoryPlan, proved by graphc/verify_plan.py (backends that run nodes)
    program     (passes/lower.py)        Graph -> Program, then arena (passes/arena.py), proved by graphc/verify_kernel.py (those that run kernels)
    backend     (backends/)              plan or program -> runner
    door        (graphc/binding.py)      arguments -> runner -> results, state

This file is that picture as code: the first one to open.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import gc as garbage
import importlib.util
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from graphc import backends
from graphc.backends import Options
from graphc.binding import Door, Parameter
from graphc.capture import capture
from graphc.checking import checked_runner
from graphc.dims import Size, Symbol
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Graph, Shared, Var
from graphc.kept import KeptRunner, KeptState
from graphc.kernel import Program
from graphc.ops.core import is_door
from graphc.passes import pipeline
from graphc.passes.arena import arena
from graphc.passes.assume import assume_where_sound, assumptions, equalities
from graphc.passes.context import Context
from graphc.passes.lower import lower
from graphc.passes.memory import memory
from graphc.passes.pipeline import FAST_COMPILE, PIPELINE, Pass, Stage
from graphc.passes.rules import BY_NAME
from graphc.passes.stacking import stacked
from graphc.passes.sweeps import sweeps
from graphc.plan import MemoryPlan
from graphc.settings import config
from graphc.variants import Variants
from graphc.verify import verify
from graphc.verify_kernel import verify_program
from graphc.verify_plan import verify_plan


@dataclass(frozen=True)
class Mode:
    """How a function is compiled.

    Args:
        backend: "llvm", "numpy", "reference" or "interpreter" (the last two are for finding errors); None: ``gc.config.backend``.
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
        if self.backend is not None and self.backend not in ("auto", "llvm", "numpy", "reference", "interpreter"):
            raise GraphcValueError(f"Mode(backend={self.backend!r}): expected 'llvm', 'numpy', 'reference' or 'interpreter'")
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
    program: Program | None
    runner: Any
    backend: str
    mode: Mode
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.stages[-1].graph


def compile_function(parameters: Sequence[Parameter], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]], *,
                     givens: Any, mode: Mode, name: str, on_unused: str, downcast: bool | None,
                     profile: bool = False, threads: int | None = None) -> Compiled:
    """Compile once: the road."""
    options = Options(check_nan=mode.check_nan, level=mode.level, name=name, profile=profile, threads=threads, matmul=config.matmul)
    with _collector_paused():
        return _road(parameters, outputs, updates, givens, mode, options, on_unused, downcast)


def _road(parameters: Sequence[Parameter], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]], givens: Any,
          mode: Mode, options: Options, on_unused: str, downcast: bool | None) -> Compiled:
    started = time.perf_counter()
    graph = capture([p.var for p in parameters], outputs, updates, givens, options.name, on_unused)
    captured = time.perf_counter()

    # sizes that meet are taken to be equal; calls in which they are not run a second program
    backend = backend_name(mode)
    known, specific = graph, graph
    same: Mapping[Symbol, Size] = {}
    if backend in ("llvm", "interpreter") and mode.passes is None and not mode.debug:
        known, _ = assume_where_sound(graph, equalities(graph))
        specific, same = assume_where_sound(known, assumptions(known))
    usual = _built(specific, backend, mode, options)
    runner: Any = usual.runner
    if known is not graph or same:
        usual.stages[0].name = "assume"
        usual.stages.insert(0, Stage("input", graph, nodes_after=len(graph)))
    if same:
        runner = Variants(same, runner, functools.partial(_general, known, backend, mode, options))
    run = checked_runner(usual.stages, runner) if mode.debug else runner
    return replace(usual, door=Door(graph, parameters, run, options.name, downcast), runner=runner, seconds={"capture": captured - started, **usual.seconds})


def _general(graph: Graph, backend: str, mode: Mode, options: Options) -> Any:
    """The runner for calls whose sizes are not as assumed."""
    with _collector_paused():
        return _built(graph, backend, mode, options).runner


def _built(graph: Graph, backend: str, mode: Mode, options: Options) -> Compiled:
    """Passes, memory or program, backend; the door is still missing."""
    started = time.perf_counter()

    # passes: a stage for each; the reference backend walks the graph as written (only derivatives are put in)
    wanted = "none" if backend == "reference" and mode.passes is None else mode.passes
    passes = pipeline.select(wanted, mode.exclude if backend == "llvm" and not mode.debug else [*mode.exclude, "keep"])
    _check_exclude(mode.exclude, passes)
    checked = mode.debug or config.verify
    native = backend in ("llvm", "interpreter")
    if native and mode.check_nan:
        backend, native = "numpy", False  # node by node: to look at each node's result
    context = Context(mode.level, frozenset(mode.exclude), config.fold_limit, native=native)
    panels: Any = getattr(backends.load(backend), "panels", None)
    if panels is not None:
        context.panels = functools.partial(panels, options=options)
    stages = pipeline.run(graph, passes, context, check=checked)
    final = stages[-1].graph
    verify(final, "final")
    if native and _sizes_from_data(final):
        return _built(graph, "numpy", mode, options)  # node by node: sizes are found out on the way
    optimised = time.perf_counter()

    # memory, or program: decided by the plan, proved by a checker that shares no code with it
    form = backends.load(backend)
    plan = program = None
    if form.TAKES == "program":
        program = lower(final)
        if any(p.name == "fuse" for p in passes):  # a sweep joins steps as fuse joins nodes, and goes with it
            program = stacked(sweeps(program))
        program = arena(program)
        if checked:
            verify_program(program)
    elif form.TAKES == "plan":
        plan = memory(final)
        if checked:
            verify_plan(final, plan)
    planned = time.perf_counter()

    # backend
    runner = form.compile(final, program or plan, options)
    if any(isinstance(s, KeptState) for s in final.shared):
        recipes = replace(mode, exclude=[*mode.exclude, "keep"])
        runner = KeptRunner(final, runner, lambda graph: _built(graph, backend, recipes, replace(options, profile=False)).runner)
    emitted = time.perf_counter()
    seconds = {"passes": optimised - started, "memory": planned - optimised, "backend": emitted - planned}
    if hasattr(runner, "loaded"):
        seconds["machine code"] = runner.loaded.seconds
        seconds["backend"] = max(0.0, seconds["backend"] - runner.loaded.seconds)
    return Compiled(None, stages, plan, program, runner, backend, mode, seconds)  # type: ignore[arg-type]


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


def _sizes_from_data(graph: Graph) -> bool:
    return any(not is_door(size) for node in graph.nodes for v in node.outputs for size in v.type.shape)


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
    if name == "llvm" and importlib.util.find_spec("llvmlite") is None:
        raise GraphcValueError("the backend 'llvm' needs llvmlite, which is not installed: pip install llvmlite, or leave the backend to 'auto'")
    return str(name)


def preload() -> None:
    """Import the default backend: done when graphc is imported, so that the first function need not (40 ms, most of it llvmlite's)."""
    if config.backend in ("auto", "llvm") and importlib.util.find_spec("llvmlite") is not None:
        with contextlib.suppress(Exception):  # the first function that needs it says what is wrong
            backends.load("llvm")


@functools.cache
def _llvmlite_is_there() -> bool:
    """Without llvmlite everything works, on the NumPy backend; that is said once."""
    if importlib.util.find_spec("llvmlite") is not None:
        return True
    warnings.warn("llvmlite is not installed: functions run on the NumPy backend (pip install llvmlite for native code)", stacklevel=2)
    return False


__all__ = ["MODES", "Compiled", "Mode", "as_mode", "backend_name", "compile_function", "preload"]
