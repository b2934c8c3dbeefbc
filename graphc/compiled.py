"""``gc.function``: a graph compiled once, called a million times."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.binding import Door, Parameter, convert
from graphc.capture import check_updates, dims_conflict
from graphc.compiling import Compiled, Mode, as_mode, compile_function
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Graph, Shared, Var, leaves, rebuild
from graphc.kernel_text import print_program
from graphc.memory_text import print_memory
from graphc.ops import OPS
from graphc.ops.core import as_var
from graphc.passes.pipeline import Stage
from graphc.settings import config
from graphc.text import print_graph
from graphc.text_parse import parse
from graphc.variables import SharedVariable

#: called with every Function after it is compiled: how ``graphc run --dump`` sees the functions of a script
observers: list[Callable[[Function], None]] = []


class In:
    """An input with options.

    Args:
        variable: a free variable.
        name: for calls by name; the variable's own by default.
        value: the default where a call leaves the argument out.
        borrow: the compiled code may keep views of the array for the length of the call.
        mutable: the compiled code may overwrite the array.
    """

    def __init__(self, variable: Var, name: str | None = None, value: Any = None, borrow: bool = False, mutable: bool = False) -> None:
        self.variable, self.name, self.value, self.borrow, self.mutable = variable, name, value, borrow, mutable


class Out:
    """An output with options; ``borrow=True`` lets the array be storage that the next call overwrites."""

    def __init__(self, variable: Any, borrow: bool = False) -> None:
        self.variable, self.borrow = variable, borrow


class Function:
    """A compiled function; made by ``gc.function``."""

    # what a call enters is a value, not a method: native code where the backend has some (docs/door.md), without a frame of Python's before it
    __slots__ = ("__call__", "__dict__", "__weakref__")
    if TYPE_CHECKING:
        def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...

    def __init__(self, compiled: Compiled, structure: Any, options: dict[str, Any]) -> None:
        self._compiled, self._structure, self._options = compiled, structure, options
        self.name: str = options["name"]
        self.profile: Any = None
        self.__call__ = _entry(self, compiled, structure)  # type: ignore[method-assign]

    @property
    def graph(self) -> Graph:
        """The optimised graph."""
        return self._compiled.graph

    @property
    def report(self) -> list[Stage]:
        """One record per pass: name, nodes_before, nodes_after, seconds, fired (rule -> count)."""
        return self._compiled.stages

    @property
    def compile_seconds(self) -> dict[str, float]:
        """How long each part of the road took: capture, passes, memory, backend (writing code), machine code (LLVM, or finding its work)."""
        return self._compiled.seconds

    @property
    def machine_code(self) -> dict[str, int]:
        """How many pieces of native code the function needed: compiled now, found on disk, already in this process's memory."""
        done = getattr(self._compiled.runner, "loaded", None)
        return {} if done is None else {"compiled": done.compiled, "from disk": done.from_disk, "from memory": done.from_memory}

    @property
    def backend(self) -> str:
        return self._compiled.backend

    @property
    def shared(self) -> tuple[Shared, ...]:
        """The state that the function reads or writes."""
        return self._compiled.stages[0].graph.shared

    def dump(self, stage: str = "final", file: Any = None, *, data: bool = True) -> str:
        """The text of a stage: "input", a pass by name, "final", or another form: "kernels", "llvm", "asm", "source", "memory".

        ``file`` (a path or an open file) gets it too.  ``data=False`` leaves out the values of state.
        """
        text = self._dump(stage, data)
        if file is not None:
            if hasattr(file, "write"):
                file.write(text)
            else:
                with open(file, "w", encoding="utf-8") as f:
                    f.write(text)
        return text

    def _dump(self, stage: str, data: bool) -> str:
        compiled = self._compiled
        if stage == "source":
            source = getattr(compiled.runner, "source", "")
            if not source:
                raise GraphcValueError(f"dump('source'): the backend {compiled.backend!r} makes no source; compile with gc.Mode(backend='numpy')")
            return str(source)
        if stage == "memory":
            if compiled.plan is not None:
                return compiled.plan.text()
            if compiled.program is not None:
                return print_memory(compiled.program)
            raise GraphcValueError(f"dump('memory'): the backend {compiled.backend!r} runs without a memory plan")
        if stage in ("kernels", "llvm", "asm"):
            if compiled.program is None:
                raise GraphcValueError(f"dump({stage!r}): the backend {compiled.backend!r} runs no kernels; compile with gc.Mode(backend='llvm')")
            if stage == "kernels":
                return print_program(compiled.program)
            text = getattr(compiled.runner, stage, None)
            if text is None:
                raise GraphcValueError(f"dump({stage!r}): the backend {compiled.backend!r} makes no machine code; compile with gc.Mode(backend='llvm')")
            return str(text())
        names = [s.name for s in compiled.stages]
        if stage == "final":
            record = compiled.stages[-1]
        elif stage in names:
            record = compiled.stages[names.index(stage)]
        else:
            raise GraphcValueError(f"dump({stage!r}): the stages are {', '.join([*names, 'final', *FORMS])}")
        return print_graph(record.graph, stage, data=data)

    def cost(self, sizes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """FLOPs, bytes moved and peak memory of a call: ``{"flops": ..., "bytes": ..., "peak_bytes": ...}`` (graphc/costing.py says what counts).

        ``sizes``: numbers for named dims, shapes for inputs by name; with what is missing the result is a formula.
        """
        from graphc.costing import cost
        return cost(self, dict(sizes or {}))

    def copy(self, swap: Mapping[Shared, Shared] | None = None, name: str | None = None) -> Function:
        """The same function on other state: ``{old shared: new shared}``."""
        table: dict[Var, Var] = {}
        for old, new in (swap or {}).items():
            if not isinstance(old, Shared) or not isinstance(new, Shared):
                raise GraphcTypeError("copy: swap maps shared variables to shared variables")
            if not any(old is s for s in self.shared):
                raise GraphcValueError(f"copy: {old.describe()} is no state of this function ({', '.join(s.describe() for s in self.shared) or 'it has none'})")
            conflict = dims_conflict(old.type, new.type)
            if conflict is not None:
                raise GraphcTypeError(f"copy: {old.describe()} cannot become {new.describe()}: {conflict}")
            table[old] = new
        options = dict(self._options)
        options["outputs"] = rebuild(options["outputs"], table)
        values = rebuild([v for _, v in options["updates"]], table)
        targets = [table.get(s, s) for s, _ in options["updates"]]
        options["updates"] = list(zip(targets, values, strict=True))
        options["givens"] = [(a, rebuild([b], table)[0]) for a, b in options["givens"]]
        options["name"] = name or self.name
        return _build(options, self._structure)

    def __getstate__(self) -> dict[str, Any]:
        return pickled(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        other = unpickled(state)
        self.__dict__.update(other.__dict__)
        self.__call__ = _entry(self, self._compiled, self._structure)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<graphc function {self.name}: {len(self._compiled.door.parameters)} inputs, {len(self.graph)} nodes, backend {self.backend}>"


def _entry(f: Function, compiled: Compiled, structure: Any) -> Callable[..., Any]:
    """What calls enter.  It knows the door, not the Function: no circle, and a function's memory goes with its last reference."""
    careful = functools.partial(_careful, compiled.door, structure)
    return _Early(f, compiled.door, structure, careful) if hasattr(compiled.door.runner, "entry") else careful


class _Early:
    """What the first calls enter.  The first one goes through Python; the second one has a way in made that does not (docs/door.md).

    Many functions are called once, and the way in takes longer to make than most calls: 0.3 ms, and 50 ms once per machine.
    """

    __slots__ = ("called", "careful", "door", "entry", "function", "lock", "structure")

    def __init__(self, f: Function, door: Door, structure: Any, careful: Callable[..., Any]) -> None:
        self.function, self.door, self.structure, self.careful = weakref.ref(f), door, structure, careful
        self.called, self.lock = False, threading.Lock()
        self.entry: Callable[..., Any] | None = None

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if self.entry is None:
            if not self.called:
                self.called = True
                return self.careful(*args, **kwargs)
            self.make()
        return self.entry(*args, **kwargs)  # type: ignore[misc]

    def make(self) -> None:
        """Have all calls from now on enter what the backend says."""
        with self.lock:
            if self.entry is None:
                runner: Any = self.door.runner  # one that has an entry: see _entry
                self.entry = runner.entry(self.door, self.structure, self.careful) or self.careful
                f = self.function()
                if f is not None and f.__call__ is self:
                    f.__call__ = self.entry  # type: ignore[method-assign]


def _careful(door: Door, structure: Any, /, *args: Any, **kwargs: Any) -> Any:
    """A call through Python: checks and converts everything."""
    results = door.call(args, kwargs)
    if structure == _ONE:  # not "is": it may come from a pickle
        return results[0]
    if structure is None:
        return None
    return dict(zip(structure, results, strict=True)) if isinstance(structure, tuple) else results


_ONE = "one"

#: what dump shows beside the graph after each pass
FORMS = ("kernels", "llvm", "asm", "source", "memory")


def function(inputs: Any, outputs: Any = None, *, updates: Any = None, givens: Any = None, mode: Any = None,
             name: str | None = None, on_unused_input: str = "raise", allow_input_downcast: bool | None = None,
             profile: bool = False, threads: int | None = None) -> Function:
    """Compile a graph.

    Args:
        inputs: list of free variables or ``gc.In``.
        outputs: a variable, a list, a dict with string keys, ``gc.Out``, or None; a call returns the same structure.
        updates: ``{shared: expression}`` or pairs; all right-hand sides read the old values, and so do outputs.
        givens: ``{variable: expression}`` or pairs, substituted before anything else.
        mode: "FAST_RUN", "FAST_COMPILE", "DEBUG" or a ``gc.Mode``.
        name: in messages and dumps.
        on_unused_input: "raise", "warn" or "ignore".
        allow_input_downcast: True casts float64 arguments to float32 and the like; None takes Python floats only.
        profile: keep times per kernel in ``f.profile`` (docs/profile.md).
        threads: of a call at most; None: ``gc.config.threads``; 0: as many as the process may use.

    Returns:
        A ``Function``.

    Raises:
        TypeError, ValueError: with the user's line; nothing is compiled or changed.

    >>> import graphc as gc
    >>> x, y = gc.scalars("x", "y")
    >>> f = gc.function([x, y], x * y + 1)
    >>> float(f(2.0, 3.0))
    7.0
    """
    if isinstance(inputs, (Var, In)):
        raise GraphcTypeError(f"function: inputs is a list; write [{inputs.name or 'x'}] for one input")
    try:
        given = list(inputs)
    except TypeError:
        raise GraphcTypeError(f"function: inputs is a list of variables; got {inputs!r}") from None
    flat, structure = _outputs(outputs)
    options: dict[str, Any] = {
        "inputs": [_input(x, i) for i, x in enumerate(given)],
        "outputs": flat,
        "updates": check_updates(updates),
        "givens": list(givens.items()) if isinstance(givens, Mapping) else list(givens or ()),
        "mode": as_mode(mode), "name": name or "f", "on_unused": on_unused_input, "downcast": allow_input_downcast,
        "profile": bool(profile or config.profile), "threads": threads,
    }
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 0):
        raise GraphcValueError(f"function: threads is None or an integer >= 0 (0: as many as the process may use); got {threads!r}")
    _check_inputs(options["inputs"])
    f = _build(options, structure)
    for observer in observers:
        observer(f)
    return f


def _build(options: dict[str, Any], structure: Any) -> Function:
    compiled = compile_function(
        options["inputs"], options["outputs"], options["updates"], givens=options["givens"], mode=options["mode"],
        name=options["name"], on_unused=options["on_unused"], downcast=options["downcast"],
        profile=options["profile"], threads=options["threads"])
    f = Function(compiled, structure, options)
    if options["profile"]:
        from graphc.profiling import Profile
        f.profile = Profile.attach(compiled)
    return f


def _input(given: Any, position: int) -> Parameter:
    if isinstance(given, Var):
        given = In(given)
    if not isinstance(given, In):
        raise GraphcTypeError(f"function: input {position} is {given!r}; expected a variable or gc.In")
    v = given.variable
    if isinstance(v, Shared):
        raise GraphcTypeError(f"function: input {position} is the shared variable {v.describe()}: its value is state, not an argument; "
                              "use givens={shared: variable} to replace it")
    if not isinstance(v, Var) or v.node is not None:
        shown = v.describe() if isinstance(v, Var) else repr(v)
        raise GraphcTypeError(f"function: input {position} is {shown}, the result of a computation; an input is a free variable "
                              "(to cut the graph there use givens={expression: variable})")
    name = given.name or v.name
    p = Parameter(v, name, None, given.borrow)
    if given.value is None:
        return p
    default = convert(given.value, p, position, None)
    return Parameter(v, name, default.copy() if default is given.value else default, given.borrow)


def _check_inputs(parameters: Sequence[Parameter]) -> None:
    seen: set[Var] = set()
    for i, p in enumerate(parameters):
        if p.var in seen:
            raise GraphcValueError(f"function: input {i}, {p.var.describe()}, stands in the list twice")
        seen.add(p.var)


def _outputs(outputs: Any) -> tuple[list[Var], Any]:
    """The output variables in a row, and the structure that a call returns."""
    if outputs is None:
        return [], None
    if isinstance(outputs, Mapping):
        bad = [k for k in outputs if not isinstance(k, str)]
        if bad:
            raise GraphcTypeError(f"function: the keys of an outputs dict are strings; got {bad[0]!r}")
        return [_output(v) for v in outputs.values()], tuple(outputs)
    if isinstance(outputs, (list, tuple)):
        return [_output(v) for v in outputs], "list"
    return [_output(outputs)], _ONE


def _output(value: Any) -> Var:
    return as_var(value.variable if isinstance(value, Out) else value)


# ---- pickling -----------------------------------------------------------------------------------


def pickled(f: Function) -> dict[str, Any]:
    """What a pickle holds: the graph as written (text) with a copy of its state, and the options."""
    o = f._options
    graph = f._compiled.stages[0].graph
    if any(OPS.get(n.op.name) is not n.op for n in graph.nodes):
        raise GraphcTypeError("a function with custom ops does not pickle: its dump cannot name the Python class; rebuild it from the script")
    return {
        "text": print_graph(graph, "input"), "structure": f._structure, "names": [p.name for p in o["inputs"]],
        "defaults": [p.default for p in o["inputs"]], "borrow": [p.borrow for p in o["inputs"]], "mode": o["mode"],
        "name": o["name"], "downcast": o["downcast"], "profile": o["profile"], "threads": o["threads"],
    }


def unpickled(state: dict[str, Any]) -> Function:
    graph = parse(state["text"], shared=SharedVariable)
    parameters = [Parameter(v, n, d, b) for v, n, d, b in zip(graph.inputs, state["names"], state["defaults"], state["borrow"], strict=True)]
    options: dict[str, Any] = {"inputs": parameters, "outputs": list(graph.outputs), "updates": list(graph.updates), "givens": [], "on_unused": "ignore",
               **{k: state[k] for k in ("mode", "name", "downcast", "profile", "threads")}}
    return _build(options, state["structure"])


# ---- small uses of a compiled function ----------------------------------------------------------


def evaluate_var(v: Var, values: Mapping[Var, Any] | None = None, /, **named: Any) -> Array:
    """``v.eval({x: 3.0})``: compile, call once, forget.  Inputs by variable or by name."""
    given: dict[Any, Any] = {**(values or {}), **named}
    free = [x for x in leaves([v]) if not isinstance(x, Shared)]
    arguments: dict[Var, Any] = {}
    for key, value in given.items():
        if isinstance(key, Var):
            if key.node is not None:
                raise GraphcTypeError(f"eval: {key.describe()} is computed, not an input; replace it first: gc.clone_replace(v, {{it: value}}).eval()")
            arguments[key] = value
        else:
            match = [x for x in free if x.name == key]
            if not match:
                raise GraphcValueError(f"eval: there is no input named {key!r}; the inputs are: {', '.join(x.describe() for x in free) or 'none'}")
            arguments[match[0]] = value
    missing = [x for x in free if x not in arguments]
    if missing:
        raise GraphcTypeError(f"eval: no value for {', '.join(x.describe() for x in missing)}")
    f = function(list(arguments), v, on_unused_input="ignore", mode=Mode(backend=None), name="eval")
    result = f(*arguments.values())
    return result  # type: ignore[no-any-return]


__all__ = ["Function", "In", "Mode", "Out", "evaluate_var", "function", "observers"]
