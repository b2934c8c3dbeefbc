"""``f.profile``: where the time of a function's calls goes, kernel by kernel.

    f = gc.function([x], y, profile=True)
    f(...); f(...)
    print(f.profile)             a table, kernels that took longest first
    f.profile.rows               the same as data: one Row per kernel
    f.profile.reset()            from zero again

Native code reads the clock between its kernels (backends/llvm/clock.py), so a profiled function runs the same kernels in the same
way.  Functions of the other backends are evaluated node by node, each by its NumPy ``forward``; that is not how the NumPy
backend runs them without a profile.  ``docs/profile.md`` explains the columns.
"""

from __future__ import annotations

import functools
import importlib.util
import linecache
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from graphc import dims
from graphc.backends import reraise
from graphc.backends.reference import check_nan, own
from graphc.checking import Checked
from graphc.costing import node_flops, step_work
from graphc.dims import Size, Symbol
from graphc.errors import UNKNOWN, GraphcValueError, Origin
from graphc.ir import Array, Graph, Node, Var
from graphc.kernel import Launch, Ordered, Product, Program, Step, Sweep
from graphc.ops.evaluate import run_node
from graphc.variants import Variants

__all__ = ["Profile", "Row", "machine_limits"]

MOST_ROWS = 40  #: of the printed table
SOURCE_WIDTH = 60  #: characters of the user's line in it


class Row(NamedTuple):
    """One kernel in all calls since the last ``reset``.

    Args:
        name: the kernel's; " (general)" follows where it belongs to the program for calls whose sizes are not as usual.
        kind: "kernel"; "product"; "sweep" (products and kernels, block by block); "call" (an op run by Python); "node" (backends without kernels); "careful" (calls
            evaluated node by node, because something was wrong with them).
        calls: of the program that it belongs to.
        seconds: that it took in all of them.
        share: of the time of all calls of the function, 0 to 1.
        sizes: of its loops; formulas where they were not always the same.
        moved, flops: bytes and scalar operations in all calls, as ``f.cost`` counts them.
        of_bandwidth, of_peak: bytes and operations per second as a part of what the machine can do; None where that is not known.
        origin: the user's line.
    """

    name: str
    kind: str
    calls: int
    seconds: float
    share: float
    sizes: str
    moved: float
    flops: float
    of_bandwidth: float | None
    of_peak: float | None
    origin: Origin

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.moved / self.seconds if self.seconds else 0.0

    @property
    def speed(self) -> float:
        """Scalar operations per second."""
        return self.flops / self.seconds if self.seconds else 0.0


class Profile:
    """Time per kernel of a function compiled with ``profile=True``; see the module's docstring.

    ``calls`` and ``seconds``: of the whole function, from the door to the results, calls that raised included.
    """

    def __init__(self) -> None:
        self.calls, self.seconds = 0, 0.0
        self._sources: list[_Program | _Nodes] = []
        self._lock = threading.Lock()

    @staticmethod
    def attach(compiled: Any) -> Profile:
        """Let the function's calls go through a profile."""
        profile, door, runner = Profile(), compiled.door, compiled.runner
        if isinstance(runner, Variants):
            runner.usual = profile._timed(runner.usual)
            runner.make = functools.partial(_made, profile, runner.make)
        elif isinstance(door.runner, Checked):
            door.runner.runner = profile._timed(runner)
        else:
            door.runner = profile._timed(runner)
        door.call = functools.partial(profile._call, door.call)
        return profile

    def _timed(self, runner: Any) -> Any:
        """The runner if it keeps times, else one in its place that does."""
        source: _Program | _Nodes = _Program(runner) if hasattr(runner, "meter") else _Nodes(runner)
        with self._lock:
            self._sources.append(source)
        return runner if isinstance(source, _Program) else source

    def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*args)
        finally:
            seconds = time.perf_counter() - started
            with self._lock:
                self.calls += 1
                self.seconds += seconds

    def reset(self) -> None:
        """Forget what was measured so far."""
        with self._lock:
            self.calls, self.seconds = 0, 0.0
            for source in self._sources:
                source.reset()

    @property
    def rows(self) -> list[Row]:
        """What each kernel took, longest first."""
        rows = [row for k, source in enumerate(self._sources) for row in self._rows(source, " (general)" if k else "")]
        return sorted(rows, key=lambda row: -row.seconds)

    @property
    def overhead(self) -> float:
        """Seconds of all calls outside of kernels: arguments, sizes, memory, results, state."""
        return max(0.0, self.seconds - sum(row.seconds for row in self.rows))

    @property
    def threads(self) -> int:
        """How many threads the last call could have."""
        return max((source.threads for source in self._sources), default=1)

    def _rows(self, source: _Program | _Nodes, note: str) -> list[Row]:
        limits, rows = machine_limits(), []
        for part in source.parts():
            of_bandwidth = of_peak = None
            if limits is not None and part.seconds and part.kind != "careful":
                of_bandwidth = part.moved / part.seconds / limits.bandwidth(source.threads)
                of_peak = part.flops / part.seconds / limits.flops(part.number, source.threads)
            share = part.seconds / self.seconds if self.seconds else 0.0
            rows.append(Row(part.name + note, part.kind, part.calls, part.seconds, share, part.sizes, part.moved, part.flops,
                            of_bandwidth, of_peak, part.origin))
        return rows

    def __str__(self) -> str:
        return "\n".join(_table(self))

    def __repr__(self) -> str:
        return f"<profile of {self.calls} calls, {_time(self.seconds)}; print it>"


def _made(profile: Profile, make: Callable[[], Any]) -> Any:
    return profile._timed(make())


@functools.cache
def machine_limits() -> Any:
    """What the machine can do at most (backends/llvm/limits.py), measured when first asked for; None where there is no native code."""
    if importlib.util.find_spec("llvmlite") is None:
        return None
    from graphc.backends.llvm.limits import limits
    return limits()


# ---- what was measured --------------------------------------------------------------------------


class _Part(NamedTuple):
    """A row but for its share.  ``number``: "f32" or "f64", what it computes with."""

    name: str
    kind: str
    calls: int
    seconds: float
    sizes: str
    moved: float
    flops: float
    number: str
    origin: Origin


class _Program:
    """The times of a program: those of its runner's ``meter`` (backends/llvm/profiled.py)."""

    def __init__(self, runner: Any) -> None:
        self.meter = runner.meter
        self.program: Program = runner.program

    @property
    def threads(self) -> int:
        return int(self.meter.threads)

    def reset(self) -> None:
        self.meter.reset()

    def parts(self) -> list[_Part]:
        meter, program = self.meter, self.program
        with meter.lock:
            times, seen, careful = [int(t) for t in meter.times], dict(meter.calls), meter.careful
        envs = [(dict(zip(meter.symbols, key, strict=True)), count) for key, count in seen.items() if count > 0]
        calls = sum(count for _, count in envs)

        def total(size: Size) -> float:
            return float(sum(_evaluated(size, env) * count for env, count in envs))

        parts = []
        for step, ns in zip(program.steps if calls else (), times, strict=False):
            name, kind, sizes, number = _about(program, step)
            work = step_work(program, step)
            known = envs[0][0] if len(envs) == 1 else {}
            parts.append(_Part(name, kind, calls, ns * 1e-9, _sizes_text(sizes, known), total(work.moved), total(work.flops), number, step.origin))
        if careful[0]:
            count, seconds = careful
            parts.append(_Part("node by node, with care", "careful", count, seconds, "", 0.0, 0.0, "f64", UNKNOWN))
        return parts


def _about(program: Program, step: Step) -> tuple[str, str, Sequence[Size], str]:
    """Name, kind and sizes of a step, and what it computes with."""
    if isinstance(step, Launch):
        kernel = step.kernel
        nest = dict.fromkeys([*kernel.grid, *(r for stage in (*kernel.stages, *kernel.finish) for r in stage.loops)])
        number = _number([v.dtype for v in kernel.values if v.op in ("load", "apply", "reduce")])
        return kernel.name, "kernel", [kernel.ranges[r].extent for r in nest], number
    if isinstance(step, Product):
        lead = len(step.out.shape) - step.axes[0] - step.axes[2]
        return "matmul", "product", (*step.out.shape[:lead], *step.sizes[1:]), _number([program.slabs[step.out.slab].dtype])
    if isinstance(step, Sweep):
        products = [inner for inner in step.steps if isinstance(inner, Product)]
        return "sweep", "sweep", (step.matrices, step.rows, *products[0].sizes[2:]), _number([program.slabs[s.out.slab].dtype for s in products])
    if isinstance(step, Ordered):
        return f"ordered {step.word}", "kernel", step.operands[0].shape, _number([program.slabs[step.out.slab].dtype])
    result = program.slabs[step.outputs[0]]
    return step.node.op.name, "call", result.shape, _number([result.dtype])


def _number(dtypes: Sequence[Any]) -> str:
    return "f64" if any(d.kind in "fc" and d.itemsize >= 8 for d in dtypes) else "f32"


def _sizes_text(sizes: Sequence[Size], known: Mapping[Symbol, int]) -> str:
    shown = [dims.substitute(size, dict(known)) for size in sizes]
    names: dict[Symbol, str] = {}
    for s in (s for size in shown for s in dims.symbols(size)):
        if s.name is None:
            names.setdefault(s, f"?{len(names)}")
    return " x ".join(dims.size_text(size, names) for size in shown)


class _Nodes:
    """A runner that evaluates the graph node by node and keeps the times: for backends whose runners keep none."""

    def __init__(self, runner: Any) -> None:
        self.plan = plan = getattr(runner, "plan", None)
        self.graph: Graph = runner.graph if plan is None else plan.graph
        self.check_nan = bool(getattr(runner, "check_nan", False))
        self.source = getattr(runner, "source", "")
        self.threads, self.lock = 1, threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self.lock:
            self.calls = 0
            self.seconds: dict[Node, float] = dict.fromkeys(self.graph.nodes, 0.0)
            self.moved: dict[Node, int] = dict.fromkeys(self.graph.nodes, 0)
            self.flops: dict[Node, int] = dict.fromkeys(self.graph.nodes, 0)
            self.shapes: dict[Node, tuple[int, ...] | None] = {}

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        graph = self.graph
        values: dict[Var, Array] = dict(zip((*graph.inputs, *graph.shared), arguments, strict=True))
        taken: list[tuple[Node, float, list[Array], Sequence[Array]]] = []
        last = time.perf_counter()
        for node in graph.nodes:
            operands = [values[v] for v in node.inputs]
            try:
                results = run_node(node, operands, env)
            except Exception as error:
                reraise(error, node, operands)
            now = time.perf_counter()
            taken.append((node, now - last, operands, results))
            if self.check_nan:
                check_nan(node, operands, results)
            values.update(zip(node.outputs, results, strict=True))
            last = time.perf_counter()
        with self.lock:
            self.calls += 1
            for node, seconds, operands, found in taken:
                self.seconds[node] += seconds
                self.flops[node] += _evaluated(node_flops(node), env)
                if node.inputs and not node.op.view:
                    self.moved[node] += sum(a.nbytes for a in (*operands, *found))
                shape = found[0].shape
                self.shapes[node] = shape if self.shapes.setdefault(node, shape) == shape else None
        return own([values[v] for v in graph.roots], values, graph)

    def parts(self) -> list[_Part]:
        with self.lock:
            parts = []
            for node, seconds in self.seconds.items() if self.calls else ():
                result, shape, body = node.outputs[0].type, self.shapes.get(node), node.attrs.get("body")
                name = body.name if isinstance(body, Graph) and node.op.name == "fused" else node.op.name
                sizes = _sizes_text(result.shape if shape is None else shape, {})
                parts.append(_Part(name, "node", self.calls, seconds, sizes, float(self.moved[node]), float(self.flops[node]),
                                   _number([result.dtype]), node.origin))
        return parts


def _evaluated(size: Size, env: Mapping[Symbol, int]) -> int:
    """The number; 0 where the sizes are known to a node alone, or make no sense."""
    try:
        return dims.evaluate(size, env)
    except (KeyError, GraphcValueError):
        return 0


# ---- text ---------------------------------------------------------------------------------------

HEADINGS = ("share", "per call", "calls", "kernel", "sizes", "moved", "GB/s", "", "GFLOP/s", "", "line")
LEFT = frozenset({"kernel", "sizes", "line"})


def _table(profile: Profile) -> list[str]:
    rows = profile.rows
    calls, seconds = profile.calls, profile.seconds
    if not calls:
        return ["no calls"]
    rest = max(0.0, seconds - sum(row.seconds for row in rows))
    lines = [f"{calls} call{'s' * (calls != 1)}, {_time(seconds)}, {_time(seconds / calls)} each; "
             f"outside of kernels {_time(rest / calls)} each, {100 * rest / seconds:.1f} %"]
    limits, threads = machine_limits(), profile.threads
    if limits is not None:
        f32, f64 = (limits.flops(kind, threads) / 1e9 for kind in ("f32", "f64"))
        lines.append(f"limits of this machine on {threads} thread{'s' * (threads != 1)}: {limits.bandwidth(threads) / 1e9:.1f} GB/s from memory, "
                     f"{f32:.0f} GFLOP/s in float32, {f64:.0f} in float64")
    cells = [HEADINGS, *(_cells(row) for row in rows[:MOST_ROWS])]
    widths = [max(len(line[k]) for line in cells) for k in range(len(HEADINGS))]
    lines.append("")
    for line in cells:
        lines.append("  ".join(cell.ljust(w) if h in LEFT else cell.rjust(w) for cell, w, h in zip(line, widths, HEADINGS, strict=True)).rstrip())
    if len(rows) > MOST_ROWS:
        left = sum(row.seconds for row in rows[MOST_ROWS:])
        lines.append(f"and {len(rows) - MOST_ROWS} more, {100 * left / seconds:.1f} % together")
    return lines


def _cells(row: Row) -> tuple[str, ...]:
    moved, flops = row.moved / max(row.calls, 1), row.flops
    name = row.name + {"call": " (Python)"}.get(row.kind, "")
    return (f"{100 * row.share:.1f} %", _time(row.seconds / max(row.calls, 1)), str(row.calls), name, row.sizes,
            _bytes(moved) if moved else "", _rate(row.bandwidth) if moved else "", _percent(row.of_bandwidth) if moved else "",
            _rate(row.speed) if flops else "", _percent(row.of_peak) if flops else "", _line(row.origin))


def _line(origin: Origin) -> str:
    """Where the user wrote it, and what."""
    if (origin.file, origin.line) == UNKNOWN[:2]:
        return ""
    here = os.getcwd() + os.sep
    file = origin.file[len(here):] if origin.file.startswith(here) else os.path.basename(origin.file)
    text = linecache.getline(origin.file, origin.line).strip()
    return f"{file}:{origin.line}  {text if len(text) <= SOURCE_WIDTH else text[:SOURCE_WIDTH - 3] + '...'}".rstrip()


def _percent(part: float | None) -> str:
    return "" if part is None else f"{100 * part:.0f} %"


def _rate(per_second: float) -> str:
    billions = per_second / 1e9
    return f"{billions:.1f}" if billions < 100 else f"{billions:.0f}"


def _time(seconds: float) -> str:
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds:.2f} s"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
