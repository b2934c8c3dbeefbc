"""The NumPy backend: a graph as readable Python source, one line a node, compiled once.

    def step(x, W, b, n, buf):
        buf0, = buf
        matmul_1 = np.matmul(x, W, out=buf0)              # f32[n, 10]  mlp.py:12
        add_1 = np.add(matmul_1, b, out=buf0)             # f32[n, 10]  mlp.py:12
        return [np.tanh(add_1)]

``out=`` follows the memory plan.  ``allocate(n)`` makes the buffers for given sizes; a runner keeps those
of recent calls and lends a set to one call at a time, so concurrent calls never share one.  A graph
of very many nodes becomes several functions, which hand over what crosses from one to the other.
An error in a line is told at the line where the user made the node.
"""

from __future__ import annotations

import builtins
import itertools
import linecache
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

from graphc import dims
from graphc.backends import Options, Runner, reraise
from graphc.backends.numpy_emit import Site, Words, broadcasts_itself, expression
from graphc.backends.reference import ReferenceRunner
from graphc.dims import Symbol
from graphc.errors import GraphcValueError, InternalError, Origin
from graphc.ir import Array, Graph, Type
from graphc.plan import MemoryPlan, Step, value_names

MISSING: dict[str, str] = {}
TAKES = "plan"

#: steps in one Python function; compiling one of many thousand lines takes more than linear time
PART = 1000
#: sets of buffers that a runner keeps: sizes, sets for one of them, bytes in all
MOST_SIZES, MOST_SETS, MOST_BYTES = 16, 8, 1 << 30

#: memory of fewer bytes is left to the end of the call rather than released by a ``del``
SMALL = 1 << 12

_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep
_numbers = itertools.count(1)


class _Writer:
    """The source of one graph being written."""

    def __init__(self, plan: MemoryPlan, name: str) -> None:
        self.plan, self.name = plan, name
        self.words = Words()
        self.text: list[str] = []
        self.about: dict[int, Step] = {}  # line number -> the step that it computes
        self.views: dict[tuple[int, Type], str] = {}  # buffers seen as arrays: their names
        self.seen: dict[int, int] = {}  # buffer -> how many views of it have names
        self.in_buffer: set[int] = set()  # values that really lie in the buffer that the plan gives them
        self.implicit = implicit_broadcasts(plan)
        self._comments: dict[Any, str] = {}
        words = self.words
        for v in (*plan.graph.inputs, *plan.graph.shared):  # sizes keep their names, whatever else wants them
            for size in v.type.shape:
                for symbol in dims.symbols(size):
                    words.symbol(symbol)
        ops = {step.node.op.name for step in plan.steps}
        self.names = value_names(plan.values, words.used | ops | {f"buf{b.id}" for b in plan.buffers})
        words.used.update(self.names)
        words.used.update(f"buf{b.id}" for b in plan.buffers)
        self.shown = dict(words.symbols)  # symbols as comments show them
        for value in plan.values:
            for size in value.type.shape:
                for symbol in dims.symbols(size):
                    if symbol.name is None and symbol not in self.shown:
                        self.shown[symbol] = f"?{len(self.shown)}"

    # -- one step -----------------------------------------------------------------------------

    def line(self, step: Step) -> str:
        """``add_1 = np.add(x, b, out=buf0)  # f32[n, 10]  mlp.py:12``"""
        names = self.names
        first = self.plan.values[step.outputs[0]]
        key = (first.buffer, first.type)
        out = None
        if first.place == "arena" and len(step.outputs) == 1:
            out = self.views.get(key)
            if out is None:
                count = self.seen.get(first.buffer, 0)
                out = f"buf{first.buffer}" + (f"_{count + 1}" if count else "")
        site = Site(step.node, [names[k] for k in step.inputs], out, [k in self.in_buffer for k in step.inputs], self.words)
        text = names[step.inputs[0]] if first.id in self.implicit else expression(site)
        targets = ", ".join([names[k] for k in step.outputs])
        if site.used_out:
            assert out is not None
            if key not in self.views:
                self.views[key] = out
                self.seen[first.buffer] = self.seen.get(first.buffer, 0) + 1
            self.in_buffer.add(first.id)
        line = f"{text}; {targets} = {out}" if text.startswith("np.copyto(") else f"{targets} = {text}"
        return line + self.comment(first.type if len(step.outputs) == 1 else None, step.node.origin)

    def comment(self, type: Type | None, origin: Origin) -> str:
        key = (type, origin)
        found = self._comments.get(key)
        if found is None:
            where = f"  {os.path.basename(origin.file)}:{origin.line}" if origin.line else ""
            found = self._comments[key] = f"  # {type.text(self.shown) if type is not None else ''}{where}"
        return found

    def dropped(self) -> list[list[int]]:
        """For each step the values whose memory is new in each call and is read there for the last time."""
        values = self.plan.values
        sizes: dict[Type, bool] = {}
        ends: list[list[int]] = [[] for _ in self.plan.steps]
        for v in values:
            root = values[v.root]
            if root.place not in ("arena", "fresh") or root.last >= len(self.plan.steps):
                continue
            small = sizes.get(root.type)
            if small is None:
                small = sizes[root.type] = isinstance(root.nbytes, int) and root.nbytes < SMALL
            if not small:
                ends[root.last].append(v.id)
        return ends

    # -- functions ----------------------------------------------------------------------------

    def write(self) -> None:
        """All of the source, in ``text``."""
        plan, words = self.plan, self.words
        constants = self.constants()
        body: list[tuple[str, Step | None]] = []
        starts = [0]  # where in ``body`` each part begins
        parts = [range(i, min(i + PART, len(plan.steps))) for i in range(0, len(plan.steps), PART)]
        slots = self.slots(parts) if len(parts) > 1 else {}
        ends = self.dropped()
        kernel = -1
        for part in parts:
            for i in part:
                step = plan.steps[i]
                if step.kernel != kernel:
                    kernel = step.kernel
                    body.append(("", None))
                    if kernel >= 0:
                        body.append((f"# kernel {plan.kernels[kernel]}", None))
                body.append((self.line(step), step))
                body.extend((f"v[{slots[k]}] = {self.names[k]}", None) for k in step.outputs if k in slots)
                gone = [k for k in ends[i] if plan.values[k].root not in self.in_buffer]
                if gone and not slots:
                    body.append((f"del {', '.join(self.names[k] for k in gone)}", None))
                body.extend((f"v[{slots[k]}] = None", None) for k in gone if k in slots)
            starts.append(len(body))
        sizes = [words.symbol(s) for s in words.needed]
        self.symbols = tuple(words.needed)
        self.extra = [*sizes, *(["buf"] if self.views else []), *(["env"] if words.needs_env else [])]
        self.text.append(f"# {self.name}: {len(plan.steps)} step(s), {len(plan.kernels)} kernel(s); "
                         f"{dims.size_text(plan.peak_bytes, self.shown)} bytes of buffers")
        self.text += constants
        self.allocate()
        inputs = [self.names[k] for k in plan.arguments]
        results = [self.names[r.value] + (".copy()" if r.copy else "") for r in plan.returns]
        if len(parts) <= 1:
            self.define("step", [*inputs, *self.extra])
            if self.views:
                self.text.append(f"    {', '.join(self.views.values())}, = buf")
            self.lines(body)
        else:
            for p, part in enumerate(parts):
                self.define(f"part_{p}", ["v", *self.extra])
                self.load(part, slots)
                self.lines(body[starts[p]:starts[p + 1]])
            self.define("step", [*inputs, *self.extra])
            self.text.append(f"    v = [None] * {len(slots)}")
            self.text += [f"    v[{slots[k]}] = {self.names[k]}" for k in plan.arguments if k in slots]
            self.text += [f"    part_{p}({', '.join(['v', *self.extra])})" for p in range(len(parts))]
            self.text += [f"    {self.names[k]} = v[{slots[k]}]" for k in dict.fromkeys(r.value for r in plan.returns) if k in slots]
        if len(results) > 8:
            self.text += ["    return [", *(f"        {r}," for r in results), "    ]"]
        else:
            self.text.append(f"    return [{', '.join(results)}]")

    def constants(self) -> list[str]:
        lines: list[str] = []
        for v in self.plan.values:
            if v.place != "constant":
                continue
            assert v.var.node is not None
            value, name = v.var.node.attrs["value"], self.names[v.id]
            text = self.words.constant(value)
            if text:
                lines.append(f"{name} = {text}")
            else:
                self.words.namespace[name] = value
                lines.append(f"# {name}: a constant {v.type}")
        return lines

    def allocate(self) -> None:
        """The function that makes the buffers, if there are any."""
        if not self.views:
            self.buffer_symbols: tuple[Symbol, ...] = ()
            return
        needed, self.words.needed = self.words.needed, {}
        used = dict.fromkeys(buffer for buffer, _ in self.views)
        lines = [f"    memory{b} = np.empty({self.words.size(self.plan.buffers[b].nbytes)}, np.uint8)" for b in used]
        lines.append("    return (")
        for (buffer, type), name in self.views.items():
            lines.append(f"        np.ndarray({self.words.sizes(type.shape)}, {self.words.dtype(type.dtype)}, memory{buffer}),  # {name}")
        self.buffer_symbols = tuple(self.words.needed)
        self.define("allocate", [self.words.symbol(s) for s in self.buffer_symbols])
        self.text += [*lines, "    )"]
        self.words.needed = needed

    def define(self, name: str, parameters: Sequence[str]) -> None:
        self.text += ["", "", f"def {name}({', '.join(parameters)}):"]

    def lines(self, body: Sequence[tuple[str, Step | None]]) -> None:
        for line, step in body:
            self.text.append(f"    {line}" if line else "")
            if step is not None:
                self.about[len(self.text)] = step
        if not body:
            self.text.append("    pass")

    # -- several parts ------------------------------------------------------------------------

    def slots(self, parts: Sequence[range]) -> dict[int, int]:
        """Places in the list ``v`` for the values that one part makes and another reads, and for what is returned."""
        home = {k: p for p, part in enumerate(parts) for i in part for k in self.plan.steps[i].outputs}
        crossing: dict[int, None] = {}
        for p, part in enumerate(parts):
            for i in part:
                for k in self.plan.steps[i].inputs:
                    if self.plan.values[k].place != "constant" and home.get(k) != p:
                        crossing[k] = None
        crossing.update((r.value, None) for r in self.plan.returns if r.value in home)
        return {k: n for n, k in enumerate(crossing)}

    def load(self, part: range, slots: Mapping[int, int]) -> None:
        """The first lines of a part: what it reads, and its buffers."""
        own: set[int] = set()
        read: dict[int, None] = {}
        for i in part:
            step = self.plan.steps[i]
            read.update((k, None) for k in step.inputs if k in slots and k not in own)
            own.update(step.outputs)
        self.text += [f"    {self.names[k]} = v[{slots[k]}]" for k in read]
        wanted = {(self.plan.values[k].buffer, self.plan.values[k].type) for k in own if k in self.in_buffer}
        self.text += [f"    {name} = buf[{n}]" for n, (key, name) in enumerate(self.views.items()) if key in wanted]


def implicit_broadcasts(plan: MemoryPlan) -> set[int]:
    """The results of ``broadcast_to`` that need not be made: all who read them broadcast by themselves."""
    values = plan.values
    found = {s.outputs[0] for s in plan.steps if s.node.op.name == "broadcast_to" and len(s.inputs) == 1}
    found.difference_update(r.value for r in plan.returns)
    for step in plan.steps:
        mine = [k for k in step.inputs if k in found]
        if not mine:
            continue
        result = values[step.outputs[0]]
        told = result.place == "arena" or any(k not in found and values[k].type.shape == result.type.shape for k in step.inputs)
        if not (told and broadcasts_itself(step.node)):
            found.difference_update(mine)
    return found


class NumpyRunner:
    """The compiled source, and the buffers that it works in."""

    def __init__(self, plan: MemoryPlan, options: Options) -> None:
        writer = _Writer(plan, options.name)
        writer.write()
        self.source = "\n".join(writer.text) + "\n"
        self.plan, self.name = plan, options.name
        self.names, self.about = writer.names, writer.about
        self.symbols, self.buffer_symbols = writer.symbols, writer.buffer_symbols
        self.needs_env, self.needs_buffers = writer.words.needs_env, bool(writer.views)
        self.file = f"{_FOLDER}<source of {options.name} {next(_numbers)}>"
        namespace = writer.words.namespace
        exec(builtins.compile(self.source, self.file, "exec"), namespace)
        for v in plan.values:
            if v.place == "constant":
                namespace[self.names[v.id]].setflags(write=False)
        self.step, self.allocate = namespace["step"], namespace.get("allocate")
        linecache.cache[self.file] = (len(self.source), None, self.source.splitlines(True), self.file)  # for tracebacks
        weakref.finalize(self, linecache.cache.pop, self.file, None)
        self.sets: dict[tuple[int, ...], list[Any]] = {}
        self.held = 0
        self.lock = threading.Lock()

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        try:
            extra: list[Any] = [env[s] for s in self.symbols]
            sizes = tuple([env[s] for s in self.buffer_symbols])
        except KeyError as missing:
            raise GraphcValueError(f"{self.name}: no input of the function has the dim {missing.args[0]}, whose size is needed") from None
        buffers = None
        if self.needs_buffers:
            try:
                buffers = self.sets[sizes].pop()
            except (KeyError, IndexError):
                buffers = self._new_set(sizes)
            extra.append(buffers)
        if self.needs_env:
            extra.append(env)
        try:
            with np.errstate(all="ignore"):
                return self.step(*arguments, *extra)  # type: ignore[no-any-return]
        except Exception as error:
            self._explain(error)
            raise
        finally:
            if buffers is not None:
                kept = self.sets.get(sizes)
                if kept is not None and len(kept) < MOST_SETS:
                    kept.append(buffers)

    def _new_set(self, sizes: tuple[int, ...]) -> Any:
        assert self.allocate is not None
        try:
            buffers = self.allocate(*sizes)
        except ValueError as error:  # a derived size such as n - 5 may come out negative
            shown = ", ".join(f"{s} = {n}" for s, n in zip(self.buffer_symbols, sizes, strict=True))
            raise GraphcValueError(f"{self.name}: with {shown} some value has no possible shape: {error}") from error
        nbytes = sum({id(b.base): b.base.nbytes for b in buffers}.values())  # not every buffer of the plan is used
        with self.lock:
            if len(self.sets) >= MOST_SIZES or self.held + nbytes > MOST_BYTES:
                self.sets, self.held = {}, 0
            self.sets.setdefault(sizes, [])
            self.held += nbytes
        return buffers

    def _explain(self, error: Exception) -> None:
        """Raise the error as one of the node whose line failed."""
        found: TracebackType | None = None
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self.file:
                found = trace
            trace = trace.tb_next
        step = self.about.get(found.tb_lineno) if found is not None else None
        if found is not None and step is not None:
            values = found.tb_frame.f_locals
            operands = [values.get(self.names[k], found.tb_frame.f_globals.get(self.names[k])) for k in step.inputs]
            reraise(error, step.node, operands)


class NaNChecked(ReferenceRunner):
    """``check_nan``: the graph node by node, each value looked at; the source is shown, not run."""

    def __init__(self, graph: Graph, plan: MemoryPlan, options: Options) -> None:
        super().__init__(graph, options)
        writer = _Writer(plan, options.name)
        writer.write()
        self.source = "# check_nan: the nodes are evaluated one by one; without it, this would run:\n" + "\n".join(writer.text) + "\n"


def compile(graph: Graph, plan: MemoryPlan | None, options: Options) -> Runner:
    """A runner for an optimised graph and its plan."""
    if plan is None:
        raise InternalError("the NumPy backend needs a memory plan")
    return NaNChecked(graph, plan, options) if options.check_nan else NumpyRunner(plan, options)
