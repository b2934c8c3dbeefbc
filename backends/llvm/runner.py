"""The runner: a Program compiled, and the memory that its calls work in.

A call goes: sizes (formulas of the symbols, computed natively, kept for the sizes of the last calls), arena (one for each
concurrent call, kept warm), results (kept and handed out again once nobody holds them), then
the stretches of native code with the call-outs between them.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.backends import Options, reraise
from graphc.backends.llvm import door as native_door
from graphc.backends.llvm.amx import with_tiles
from graphc.backends.llvm.driver import Writer
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.pool import pool
from graphc.backends.llvm.target import Target, host
from graphc.backends.reference import ReferenceRunner
from graphc.dims import Size, Symbol
from graphc.errors import GraphcValueError, InternalError
from graphc.ir import Array
from graphc.kernel import CallOut, Launch, Ordered, Product, Program, Sweep, View
from graphc.ops.evaluate import run_node
from graphc.plan import is_foreign

__all__ = ["LlvmRunner", "Native"]

#: sets of sizes whose formulas a runner keeps; arenas that it keeps for calls that run at once
MOST_SIZES, MOST_ARENAS = 64, 8


class Native:
    """The machine code of a program.

    ``sizes(symbols, table)`` computes the formulas; ``stretches[n](slabs, table, arena, threads)`` runs the n-th
    stretch of native steps.  ``slot`` says where in the table a formula's value is.
    """

    def __init__(self, program: Program, target: Target, profile: bool = False) -> None:
        self.program, self.target = program, target
        self.symbols = _symbols(program)
        self.parts = _parts(program)
        writer = Writer(program, target, self.symbols, profile)
        natives = [part for part in self.parts if isinstance(part, list)]
        for n, part in enumerate(natives):
            writer.stretch(f"NAME_{n}", part)
        self.nbytes = program.arena + writer.scratch
        for size in (self.nbytes, *program.guards, *(n for k in program.roots for n in program.slabs[k].array.shape)):
            writer.slot(size)
        self.work = native_door.work_formula(program)
        for size in (self.work, *native_door.door_sizes(program, writer.formulas)):
            writer.slot(size)
        self.bound = native_door.Bound(writer.formulas, self.symbols)
        writer.sizes_function("NAME")
        table = ", ".join(["ptr @NAME_sizes", *(f"ptr @NAME_{n}" for n in range(len(natives)))])
        writer.module.globals["NAME"] = f"@NAME = constant [{len(natives) + 1} x ptr] [{table}]"
        text = writer.module.text()
        digest = hashlib.sha256((target.key + "\n" + text).encode()).hexdigest()[:20]
        self.name = f"d_{digest}"
        self.slot = writer.formulas
        self.texts = {**writer.kernels, self.name: text.replace("@NAME", "@" + self.name)}
        self.kernels = {form.name: form.kernel for code in writer.codes.values() for form in (code, *(code.short or ())[:1])}
        self.pool = pool()
        before = engine().statistics
        threaded = any("@gc_parallel(" in text for text in self.texts.values())
        found = engine().load(self.texts, target, {"gc_parallel": self.pool.address} if threaded else None)
        self.loaded = engine().statistics - before
        self.addresses = list((ctypes.c_size_t * (len(natives) + 1)).from_address(found[self.name]))
        self.sizes = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(self.addresses[0])
        entry = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        self.stretches = [entry(a) for a in self.addresses[1:]]


class _Sizes:
    """What the sizes of one call come to."""

    __slots__ = ("address", "good", "nbytes", "shapes", "table")

    def __init__(self, native: Native, values: Sequence[int]) -> None:
        program, slot = native.program, native.slot
        native.bound.check(values)
        self.table = np.zeros(len(slot), np.int64)
        self.address = self.table.ctypes.data
        symbols = np.array([*values, 0], np.int64)
        native.sizes(symbols.ctypes.data, self.address)
        self.nbytes = int(self.table[slot[native.nbytes]])
        self.shapes = [tuple([int(self.table[slot[n]]) for n in program.slabs[k].array.shape]) for k in program.roots]
        self.good = all(self.table[slot[g]] == 0 for g in program.guards)


class LlvmRunner:
    """See the module's docstring; ``source`` is the text of the program."""

    def __init__(self, program: Program, options: Options, target: Target | None = None) -> None:
        self.program, self.name, self.options = program, options.name, options
        self.native = Native(program, with_tiles(target or host(), options), options.profile)
        self.known: dict[tuple[int, ...], _Sizes] = {}
        self.arenas: list[Array] = []
        self.lock = threading.Lock()
        self.threads = options.threads
        self.loaded = self.native.loaded
        self.clock = 0  # where a profiled driver adds up its times
        self.constants = [(s.id, s.data.ctypes.data) for s in program.slabs if s.place == "constant"]
        self.results = [program.slabs[k].array.dtype for k in program.roots]
        self.make = native_door.Results(self.results)
        self._careful: ReferenceRunner | None = None

    source = ""  # f.dump("source") is for backends that write Python

    def llvm(self) -> str:
        """The LLVM modules: the driver, then its kernels."""
        texts = dict(self.native.texts)
        driver = texts.pop(self.native.name)
        return "\n".join([driver, *(f"; {self.titles.get(name, name)}\n{text}" for name, text in texts.items())])

    def asm(self) -> str:
        """The same in the target's assembly language."""
        found = engine()
        texts = dict(self.native.texts)
        driver = texts.pop(self.native.name)
        return "\n".join([found.assembly(driver, self.native.target),
                          *(f"# {self.titles.get(name, name)}\n{found.assembly(text, self.native.target)}" for name, text in texts.items())])

    @property
    def titles(self) -> dict[str, str]:
        """The kernels' own names by their symbols."""
        return {symbol: f"kernel {kernel.name}: {symbol}" for symbol, kernel in self.native.kernels.items()}

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        program, native = self.program, self.native
        sizes = self.sizes(env)
        if not sizes.good:
            return self.careful(arguments, env)
        slabs = np.zeros(len(program.slabs) + 1, np.uintp)
        slabs[-1] = self.clock
        held: list[Any] = [slabs]
        for k, a in zip(program.arguments, arguments, strict=True):
            if not (a.flags.c_contiguous and a.flags.aligned):
                a = np.array(a, order="C")  # ascontiguousarray leaves what is misaligned where it is
                held.append(a)
            slabs[k] = a.ctypes.data
        for k, address in self.constants:
            slabs[k] = address
        results: dict[int, Array] = {}
        for n, (k, shape) in enumerate(zip(program.roots, sizes.shapes, strict=True)):
            if program.slabs[k].place == "output":
                results[k] = a = self.make(n, shape)
                slabs[k] = a.ctypes.data
        arena = self._arena(sizes.nbytes)
        base = arena.ctypes.data
        base += -base % 64
        threads = native.pool.threads_for(self.threads, None)
        stretches = iter(native.stretches)
        for part in native.parts:
            if isinstance(part, list):
                if next(stretches)(slabs.ctypes.data, sizes.address, base, threads):
                    return self.careful(arguments, env)
            else:
                self._call_out(part, slabs, base, env, results)
        if len(self.arenas) < MOST_ARENAS:
            self.arenas.append(arena)
        return [results[k] for k in program.roots]

    def entry(self, door: Any, structure: Any, careful: Callable[..., Any], kept: Any = None) -> Callable[..., Any] | None:
        """The C function that calls enter (docs/door.md), or None; ``kept``: a KeptRunner before this one."""
        return None if self.options.profile else native_door.entry(self, door, structure, careful, kept)

    def careful(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        """Node by node, for a call that something is wrong with: the error names the op and the user's line."""
        with self.lock:
            if self._careful is None:
                self._careful = ReferenceRunner(self.program.graph, self.options)
        return self._careful(arguments, env)

    # -- sizes and memory ---------------------------------------------------------------------

    def sizes(self, env: Mapping[Symbol, int]) -> _Sizes:
        try:
            key = tuple([env[s] for s in self.native.symbols])
        except KeyError as missing:
            raise GraphcValueError(f"{self.name}: no input of the function has the dim {missing.args[0]}, whose size is needed") from None
        sizes = self.known.get(key)
        if sizes is None:
            sizes = _Sizes(self.native, key)
            with self.lock:
                if len(self.known) >= MOST_SIZES:
                    self.known.pop(next(iter(self.known)))
                self.known[key] = sizes
        return sizes

    def _arena(self, nbytes: int) -> Array:
        try:
            arena = self.arenas.pop()
            if arena.size >= nbytes + 64:
                return arena
        except IndexError:
            pass
        return np.empty(nbytes + 64, np.uint8)

    # -- call-outs ----------------------------------------------------------------------------

    def _call_out(self, step: CallOut, slabs: Array, arena: int, env: Mapping[Symbol, int], made: dict[int, Array]) -> None:
        operands = [self._operand(view, v.type.dtype, slabs, arena, env) for view, v in zip(step.inputs, step.node.inputs, strict=True)]
        try:
            results = run_node(step.node, operands, env)
        except Exception as error:
            reraise(error, step.node, operands)
        for k, value in zip(step.outputs, results, strict=True):
            # a view of an operand would see the arena change; a user's op may keep what it gives
            value = np.array(value, order="C") if step.node.op.view or is_foreign(step.node.op) else np.asarray(value, order="C")
            want = tuple([dims.evaluate(n, env) for n in self.program.slabs[k].array.shape])
            if value.shape != want:
                raise InternalError(f"{step.node.op.name}.forward gave the shape {value.shape} where infer says {want}", step.node.origin)
            made[k] = value
            slabs[k] = value.ctypes.data

    def _operand(self, view: View, dtype: np.dtype[Any], slabs: Array, arena: int, env: Mapping[Symbol, int]) -> Array:
        """The array that a view describes."""
        s = self.program.slabs[view.slab]

        def number(size: Size) -> int:
            return dims.evaluate(size, env)

        shape = tuple([number(n) for n in view.shape])
        strides = tuple([number(n) * s.dtype.itemsize for n in view.strides])
        if 0 in shape:
            return np.zeros(shape, dtype)
        base = arena + number(s.offset) if s.place == "arena" else int(slabs[view.slab])
        address = base + number(view.offset) * s.dtype.itemsize
        low = sum((n - 1) * t for n, t in zip(shape, strides, strict=True) if t < 0)
        high = sum((n - 1) * t for n, t in zip(shape, strides, strict=True) if t > 0) + dtype.itemsize
        memory: Any = (ctypes.c_char * (high - low)).from_address(address + low)
        found: Array = np.ndarray(shape, dtype, memory, -low, strides)
        found.flags.writeable = False
        return found


def _symbols(program: Program) -> tuple[Symbol, ...]:
    """The symbols that the call's arguments say."""
    return tuple(dict.fromkeys(s for k in program.arguments for size in program.slabs[k].shape for s in dims.symbols(size)))


def _parts(program: Program) -> list[list[Launch | Product | Ordered | Sweep] | CallOut]:
    """The steps as stretches of native ones and call-outs."""
    parts: list[list[Launch | Product | Ordered | Sweep] | CallOut] = []
    for step in program.steps:
        if isinstance(step, CallOut):
            parts.append(step)
        elif parts and isinstance(parts[-1], list):
            parts[-1].append(step)
        else:
            parts.append([step])
    return parts
