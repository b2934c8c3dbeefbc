"""The interpreter: runs a ``Program`` (graphc/kernel.py) in plain NumPy.

It is the oracle between ``lower`` and the code generators: what a kernel means is what ``run_kernel`` does.
Every range of a kernel is an axis of the arrays, in the order of ``Kernel.ranges``; a value that does not
depend on a range has size 1 there.  So an instruction is one NumPy call for all points at once, and a stage is
done at all points of the grid before the next one begins, which no sound kernel can tell.

    load, store   by arrays of positions in the flat operand
    reduce        along axes; half precisions in float32, rounded once; of no elements it is the identity
    apply, cast   the ``forward`` of the op

Instructions are done once for each point of the ranges that they depend on, also where other loops of their
stage are empty; where the grid is empty, only ``finish`` is done.  Large kernels run in blocks of the first
range of the grid, whose parts of reductions over the grid are joined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc import dims, dtypes
from graphc.backends import Options, reraise
from graphc.backends.reference import ReferenceRunner
from graphc.dims import Size, Symbol
from graphc.errors import UNKNOWN, GraphcIndexError, GraphcValueError, InternalError, Origin
from graphc.ir import Array, Graph
from graphc.kernel import CallOut, Index, Instr, Kernel, Launch, Ordered, Product, Program, Slab, Stage, Sweep, View, value_ranges
from graphc.kernel_text import print_program
from graphc.ops import OPS
from graphc.ops.core import cast_op
from graphc.ops.cumulative import accumulator
from graphc.ops.evaluate import run_node

__all__ = ["BLOCK", "MISSING", "TAKES", "Interpreter", "compile", "compile_program", "run_kernel"]

MISSING: dict[str, str] = {}
TAKES = "program"
#: points of a kernel that are computed at once
BLOCK = 1 << 22
#: what memory is filled with before it is written: not a number, -1
POISON = 0xFF

Env = Mapping[Symbol, int]

_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "all": np.logical_and, "any": np.logical_or}


# ---- programs -----------------------------------------------------------------------------------


def compile(graph: Graph, program: Program, options: Options) -> Interpreter:
    """A runner for the program of a graph, as ``backends`` asks for it."""
    return compile_program(program, options)


def compile_program(program: Program, options: Options) -> Interpreter:
    """A runner for the program; the interpreter has no options."""
    return Interpreter(program)


class Interpreter:
    """Runs a program: a ``backends.Runner``.

    A call that the program is not for is computed node by node, which says what is wrong with it.
    Slabs lie in one arena as planned, so that a wrong plan shows; where nothing is planned (``program.arena`` is 0)
    each has memory of its own.
    """

    def __init__(self, program: Program) -> None:
        self.program = program

    @property
    def source(self) -> str:
        return print_program(self.program)

    def __call__(self, arguments: Sequence[Array], env: Env) -> list[Array]:
        results = _Call(self.program, arguments, env).run()
        return ReferenceRunner(self.program.graph, Options())(arguments, env) if results is None else results


class _Call:
    """One call: the memory of the slabs, flat, and the sizes found so far."""

    def __init__(self, program: Program, arguments: Sequence[Array], env: Env) -> None:
        self.program, self.env = program, dict(env)
        self.memory: dict[int, Array] = {}
        for slab, array in zip(program.arguments, arguments, strict=True):
            self.memory[slab] = np.ascontiguousarray(array).reshape(-1).view(program.slabs[slab].dtype)
        self.arena = np.full(self.number(program.arena), POISON, np.uint8)
        self.own_memory = isinstance(program.arena, int) and program.arena == 0

    def number(self, size: Size) -> int:
        return size if isinstance(size, int) else dims.evaluate(size, self.env)

    def run(self) -> list[Array] | None:
        """The roots; None where a guard or a check does not hold, so that the program is not for this call."""
        if any(self.number(guard) for guard in self.program.guards):
            return None
        for step in self.program.steps:
            if isinstance(step, Launch):
                self.launch(step)
                if any(bool(self.flat(s)[0]) for s in step.writes if s in self.program.checks):
                    return None
            elif isinstance(step, Product):
                self.product(step)
            elif isinstance(step, Ordered):
                self.ordered(step)
            elif isinstance(step, Sweep):
                self.sweep(step)
            else:
                self.call_out(step)
        return [self.flat(r).view(self.program.slabs[r].array.dtype).reshape(self.shape(self.program.slabs[r])) for r in self.program.roots]

    def shape(self, slab: Slab) -> list[int]:
        """Of what callers see."""
        return [self.number(s) for s in slab.array.shape]

    def flat(self, number: int) -> Array:
        """The elements of a slab; its memory comes to be when it is first asked for."""
        found = self.memory.get(number)
        if found is None:
            slab = self.program.slabs[number]
            if slab.place == "constant":
                found = np.ascontiguousarray(slab.data).reshape(-1)
            elif slab.inplace >= 0:
                found = self.flat(slab.inplace)
            elif slab.place == "arena" and not self.own_memory:
                begin = self.number(slab.offset)
                found = self.arena[begin:begin + self.number(slab.nbytes)].view(slab.dtype)
            else:
                found = np.full(self.number(slab.nbytes), POISON, np.uint8).view(slab.dtype)
            self.memory[number] = found
        return found

    def view(self, v: View, writeable: bool = False) -> Array:
        """What a view sees, strided; it must lie inside its slab."""
        flat = self.flat(v.slab)
        shape = [self.number(s) for s in v.shape]
        strides = [self.number(s) for s in v.strides]
        offset = self.number(v.offset)
        if 0 in shape:
            return np.zeros(shape, flat.dtype)
        low = offset + sum(min((n - 1) * t, 0) for n, t in zip(shape, strides, strict=True))
        high = offset + sum(max((n - 1) * t, 0) for n, t in zip(shape, strides, strict=True))
        if low < 0 or high >= flat.size:
            raise InternalError(f"a view of the elements {low} to {high} of slab {v.slab}, which has {flat.size}")
        return as_strided(flat[offset:], shape, [t * flat.itemsize for t in strides], writeable=writeable)

    def launch(self, step: Launch) -> None:
        arrays = [None if s < 0 else self.flat(s) for s in step.slabs]
        run_kernel(step.kernel, arrays, self.env, step.origin)

    def sweep(self, step: Sweep) -> None:
        """Block by block; a block finds nothing of the one before in its memory."""
        outside = self.env
        room = np.empty(self.number(step.room), np.uint8)
        held = sorted({s for inner in step.steps for s in (*inner.reads, *inner.writes) if self.program.slabs[s].place == "block"})
        for self.env in step.envs(outside):
            self.block(step, room, held)
        self.env = outside

    def block(self, step: Sweep, room: Array, held: Sequence[int]) -> None:
        """One block; once more where its columns are not enough."""
        for again in (False, True):
            room[:] = POISON
            for s in held:
                slab = self.program.slabs[s]
                if room.size:
                    begin = self.number(slab.offset)
                    self.memory[s] = room[begin:begin + self.number(slab.nbytes)].view(slab.dtype)
                else:
                    self.memory.pop(s, None)
            for n, inner in enumerate(step.steps):
                if isinstance(inner, Launch):
                    self.launch(inner)
                else:
                    self.product(inner)
                if step.seen is not None and n == step.seen.step and not again and bool(self.flat(step.seen.slab)[0]):
                    self.env = step.anew(self.env)
                    break
            else:
                return

    def product(self, step: Product) -> None:
        a, b, out = self.view(step.a), self.view(step.b), self.view(step.out, writeable=True)
        wide = accumulator(a.dtype)
        m, k, n = (self.number(x) for x in step.sizes[1:])
        heads = a.shape[:a.ndim - step.axes[0] - step.axes[1]]
        with np.errstate(all="ignore"):
            x, y = (v.astype(wide).reshape(*heads, *shape) for v, shape in ((a, (m, k)), (b, (k, n))))
            found = np.matmul(x, y).astype(out.dtype, copy=False).reshape(out.shape)
            out[...] = out + found if self.number(step.adds) else found

    def ordered(self, step: Ordered) -> None:
        """Round by round."""
        operands = [np.moveaxis(self.view(v), step.axis, 0) for v in step.operands]
        out = np.moveaxis(self.view(step.out, writeable=True), step.axis, 0)
        if step.word in ("set", "add"):
            y, p = operands
            if p.size and out.size and not 0 <= int(p.min()) <= int(p.max()) < len(out):
                raise InternalError(f"a position outside of an axis of size {len(out)}", step.origin)
        with np.errstate(all="ignore"):
            for i in range(len(operands[0])):
                if step.word in ("set", "add"):
                    at = (p[i].astype(np.int64), *np.ogrid[tuple(slice(n) for n in p.shape[1:])])
                    out[at] = y[i] if step.word == "set" else out[at] + y[i]
                elif step.word == "recurrence":
                    a, b = operands
                    out[i] = b[i] + a[i] * out[i - 1] if i else b[i]
                else:
                    out[i] = _UFUNCS[step.word](out[i - 1], operands[0][i]) if i else operands[0][i]

    def call_out(self, step: CallOut) -> None:
        node = step.node
        operands = [self.view(v) for v in step.inputs]
        for k, v in enumerate(node.inputs):
            if dtypes.is_complex(v.type.dtype):
                operands[k] = complexes(operands[k])
        try:
            results = run_node(node, operands, self.env)
        except Exception as error:
            reraise(error, node, operands)
        for symbol, k, axis in step.found:
            self.env[symbol] = results[k].shape[axis]
        for s, result in zip(step.outputs, results, strict=True):
            want = self.shape(self.program.slabs[s])
            if list(result.shape) != want:
                reraise(GraphcValueError(f"{node.op.name}.forward gave shape {list(result.shape)} where infer says {want}"), node, operands)
            found = np.array(result, order="C").reshape(-1)  # a copy: the op may keep its result, or give back an operand
            self.memory[s] = found.view(self.program.slabs[s].dtype)


def complexes(re: Array) -> Array:
    """The complex numbers in memory whose real parts are seen."""
    return as_strided(re[..., None], (*re.shape, 2), (*re.strides, re.itemsize)).view(dtypes.complex_of(re.dtype))[..., 0]


# ---- kernels ------------------------------------------------------------------------------------


def run_kernel(kernel: Kernel, arrays: Sequence[Array | None], env: Env, origin: Origin = UNKNOWN, block: int = BLOCK) -> None:
    """Run a kernel on flat arrays, one for each operand; None for a "temp".

    Args:
        env: its symbols.
        origin: the user's line, for errors.
        block: how many points are computed at once, about.
    """
    _Run(kernel, arrays, env, origin).run(block)


class _Run:
    """One launch.  ``values`` are those of the current block; ``parts`` are reductions over the grid so far."""

    def __init__(self, kernel: Kernel, arrays: Sequence[Array | None], env: Env, origin: Origin) -> None:
        self.kernel, self.arrays, self.env, self.origin = kernel, arrays, env, origin
        self.depends = value_ranges(kernel)
        self.grid = frozenset(kernel.grid)
        self.full = [self.number(r.extent) for r in kernel.ranges]
        self.first = kernel.grid[0] if kernel.grid else -1
        self.start = 0  # of the block, in the first range of the grid
        self.extents = list(self.full)  # in the block
        self.values: dict[int, Array] = {}
        self.parts: dict[int, tuple[Array, ...]] = {}
        self.temps: dict[int, Array] = {}
        for o, a in zip(kernel.operands, arrays, strict=True):
            if (a is None) != (o.mode == "temp") or (a is not None and (a.dtype != o.dtype or a.shape != (self.number(o.size),))):
                raise InternalError(f"kernel {kernel.name}: operand {o.name} is {o.dtype}[{self.number(o.size)}]; it is given "
                                    f"{'nothing' if a is None else f'{a.dtype}{list(a.shape)}'}")

    def number(self, size: Size) -> int:
        return size if isinstance(size, int) else dims.evaluate(size, self.env)

    def run(self, block: int) -> None:
        kernel = self.kernel
        empty = any(self.full[r] == 0 for r in kernel.grid)
        for start, count in self.blocks(block, empty):
            self.start, self.values, self.temps = start, {}, {}
            if self.first >= 0:
                self.extents[self.first] = count
            for stage in kernel.stages:
                self.stage(stage, empty)
        self.start, self.extents = 0, list(self.full)
        self.values = {i: part[-1].astype(kernel.values[i].dtype, copy=False) for i, part in self.parts.items()}
        for i, v in enumerate(kernel.values):  # constants of the grid's stages may be read
            if v.op in ("literal", "size"):
                self.values[i] = self.instr(i, v, False)
        for stage in kernel.finish:
            self.stage(stage, False)

    def blocks(self, block: int, empty: bool) -> list[tuple[int, int]]:
        """(start, count) in the first range of the grid."""
        if self.first < 0 or empty:
            return [(0, self.full[self.first] if self.first >= 0 else 0)]
        rest = math.prod(self.full[r] for r in self.kernel.grid[1:])
        rest *= max([math.prod(self.full[r] for r in s.loops) for s in self.kernel.stages], default=1)
        count = max(1, block // max(rest, 1))
        total = self.full[self.first]
        return [(start, min(count, total - start)) for start in range(0, total, count)]

    def stage(self, stage: Stage, empty: bool) -> None:
        """All instructions of a stage.  Where the grid is empty, values have the right shapes, and memory is left alone."""
        for i in stage.body:
            v = self.kernel.values[i]
            if v.op == "store":
                if not empty:
                    self.store(i, v)
            else:
                self.values[i] = self.instr(i, v, empty)
        for i in stage.body:  # what a later stage may not read
            if not self.depends[i] <= self.grid and i not in self.parts:
                self.values.pop(i, None)

    def instr(self, i: int, v: Instr, empty: bool) -> Array:
        args = [self.values[a] for a in v.args]
        if v.op == "load":
            return self.load(i, v, empty)
        if v.op == "reduce":
            return self.reduce(i, v, args[0])
        if v.op == "range":
            r = v.over[0]
            return self.steps(r)
        if v.op == "cast":
            return np.asarray(cast_op.forward(args[0], dtype=v.dtype))
        if v.op == "apply":
            return np.asarray(OPS[v.word].forward(*args))
        number = self.number(v.data) if v.op == "size" else v.data
        return np.full([1] * len(self.full), number, v.dtype)

    def steps(self, r: int) -> Array:
        """The values of a range, along its axis."""
        start = self.start if r == self.first else 0
        shape = [-1 if q == r else 1 for q in range(len(self.full))]
        return np.arange(start, start + self.extents[r], dtype=np.int64).reshape(shape)

    # -- memory -------------------------------------------------------------------------------

    def memory(self, operand: int) -> Array:
        """The flat elements; of a temp, those of all points of the grid in the block, one after the other."""
        found = self.arrays[operand]
        if found is None:
            found = self.temps.get(operand)
            if found is None:
                o = self.kernel.operands[operand]
                points = math.prod(self.extents[r] for r in self.kernel.grid)
                filled = np.full(points * self.number(o.size) * o.dtype.itemsize, POISON, np.uint8)
                found = self.temps[operand] = filled.view(o.dtype)
        return found

    def places(self, i: int, operand: int, index: Index, empty: bool, allowed: Array | None = None) -> Array | None:
        """The positions of an access in the flat memory; None if no point touches it.  Where not ``allowed``: any position, or one outside."""
        o = self.kernel.operands[operand]
        total = np.full([1] * len(self.full), self.number(index.offset), np.int64)
        for r, stride in index.terms:
            total = total + self.steps(r) * self.number(stride)
        for a, stride in index.gathers:
            total = total + self.values[a].astype(np.int64) * self.number(stride)
        size = self.number(o.size)
        loops = [s.loops for s in (*self.kernel.stages, *self.kernel.finish) if i in s.body]
        if allowed is not None:
            total = np.where(allowed, total, 0)
            if not allowed.any():
                return total
        if total.size and (int(total.min()) < 0 or int(total.max()) >= size):
            if empty or all(any(self.extents[r] == 0 for r in found) for found in loops):
                return None  # no point of the loop nest does it
            at = int(total.min()) if int(total.min()) < 0 else int(total.max())
            raise GraphcIndexError(f"kernel {self.kernel.name}, %{i}: position {at} of operand {o.name}, which has {size} elements", self.origin)
        if o.mode == "temp":
            point: Array = np.zeros([1] * len(self.full), np.int64)
            for r in self.kernel.grid:
                first = self.start if r == self.first else 0
                point = point * self.extents[r] + (self.steps(r) - first)
            total = total + point * size
        return total

    def load(self, i: int, v: Instr, empty: bool) -> Array:
        assert v.index is not None
        allowed = self.values[v.args[0]] if v.args else None
        places = self.places(i, v.operand, v.index, empty, allowed)
        if places is None or empty:
            return np.zeros([self.extents[r] if r in self.depends[i] else 1 for r in range(len(self.full))], v.dtype)
        if allowed is None:
            return self.memory(v.operand)[places]
        found = np.zeros(places.shape, v.dtype)
        allowed = np.broadcast_to(allowed, places.shape)
        found[allowed] = self.memory(v.operand)[places[allowed]]
        return found

    def store(self, i: int, v: Instr) -> None:
        assert v.index is not None
        places = self.places(i, v.operand, v.index, False)
        if places is not None:
            value = self.values[v.args[0]]
            shape = np.broadcast_shapes(places.shape, value.shape)
            self.memory(v.operand)[np.broadcast_to(places, shape)] = np.broadcast_to(value, shape)

    # -- reductions ---------------------------------------------------------------------------

    def reduce(self, i: int, v: Instr, x: Array) -> Array:
        """Along the axes ``over``; what is reduced over the grid is joined with the parts of earlier blocks."""
        x = np.broadcast_to(x, [self.extents[r] if r in v.over else n for r, n in enumerate(x.shape)])
        part: tuple[Array, ...] = self.position(v, x) if v.word in ("argmax", "argmin") else (_reduced(v.word, x, v.over, v.dtype),)
        if self.grid & set(v.over):
            before = self.parts.get(i)
            part = self.parts[i] = part if before is None else self.joined(v, before, part)
        with np.errstate(all="ignore"):  # a sum of float16 that is too large is infinite
            return part[-1].astype(v.dtype, copy=False)

    def joined(self, v: Instr, a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(a) == 1:
            with np.errstate(all="ignore"):
                return (np.asarray(_UFUNCS[v.word](a[0], b[0])),)
        (x, i), (y, j) = a, b
        with np.errstate(all="ignore"):
            better = y > x if v.word == "argmax" else y < x
            tie = (x == y) | (_nan(x) & _nan(y))
        take = (better & ~_nan(x)) | (_nan(y) & ~_nan(x)) | (tie & (j < i))
        return np.where(take, y, x), np.where(take, j, i)

    def position(self, v: Instr, x: Array) -> tuple[Array, Array]:
        """The largest (smallest) value and where it is first, counted through the ranges ``over`` in their order."""
        over = list(v.over)
        rest = [r for r in range(x.ndim) if r not in over]
        kept = [1 if r in over else x.shape[r] for r in range(x.ndim)]
        moved = _comparable(x).transpose(*rest, *over)
        rows = moved.reshape([*moved.shape[:len(rest)], math.prod(moved.shape[len(rest):])])
        if rows.shape[-1] == 0:  # of nothing: any value joins as the better one
            worst = _identity("max" if v.word == "argmax" else "min", rows.dtype)
            return np.full(kept, worst, rows.dtype), np.zeros(kept, np.int64)
        at = np.asarray((np.argmax if v.word == "argmax" else np.argmin)(rows, axis=-1))
        best = np.take_along_axis(rows, at[..., None], -1)
        place: Array = np.zeros(at.shape, np.int64)
        for r, k in zip(over, np.unravel_index(at, [self.extents[r] for r in over]), strict=True):
            place = place * self.full[r] + k + (self.start if r == self.first else 0)
        return best.reshape(kept), place.reshape(kept)


def _reduced(word: str, x: Array, over: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """In the dtype in which it is accumulated."""
    wide = accumulator(dtype)
    x = x.astype(wide, copy=False)
    axes = tuple(sorted(over))
    with np.errstate(all="ignore"):
        if word in ("max", "min"):
            return np.asarray(_UFUNCS[word].reduce(x, axis=axes, keepdims=True, initial=_identity(word, wide)))
        return np.asarray(_UFUNCS[word].reduce(x, axis=axes, keepdims=True, dtype=wide))


def _identity(word: str, dtype: np.dtype[Any]) -> Any:
    """What a largest or smallest value of nothing is."""
    largest = word == "max"
    if dtypes.is_bool(dtype):
        return not largest
    if dtypes.is_integer(dtype):
        info = np.iinfo(dtype)
        return info.min if largest else info.max
    return -np.inf if largest else np.inf


def _comparable(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.name == "bfloat16" else x


def _nan(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(x != x)
