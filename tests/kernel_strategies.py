"""Random small kernels, sound by construction, and the plainest way to run one: point by point."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.ir import Array
from graphc.kernel import Index, Instr, Kernel, Operand, Range, Stage, value_ranges
from graphc.ops import OPS
from graphc.ops.core import cast_op

DType = np.dtype[Any]
F64, I64, BOOL = np.dtype("float64"), np.dtype("int64"), np.dtype("bool")
#: what operands may be where they need not be float64
OTHERS = tuple(np.dtype(d) for d in ("float64", "float32", "int32", "int8", "bool", "int64", "uint16", "float16", ml_dtypes.bfloat16))
RANGE_NAMES = ("i", "j", "k", "max", "two words", "n", "i")


class _Maker:
    """Puts a kernel together, drawing what it needs."""

    def __init__(self, draw: Any, symbols: Sequence[Size], mixed: bool = False, rowwise: bool = False) -> None:
        self.draw, self.symbols, self.mixed, self.rowwise = draw, symbols, mixed, rowwise
        n, m, p = symbols
        sizes: list[Size] = [1, 2, 3, n, m, p, n + 1, 2 * m]
        count = draw(st.integers(1, 4))
        self.ranges = [Range(draw(st.sampled_from(RANGE_NAMES)), draw(st.sampled_from(sizes))) for _ in range(count)]
        order = draw(st.permutations(range(count)))
        cut = draw(st.integers(0, count - 1)) if draw(st.booleans()) else draw(st.integers(0, count))
        self.grid, self.inner = tuple(order[:cut]), order[cut:]
        if rowwise:
            self.ranges = [*self.ranges[:2], Range("row", draw(st.sampled_from([m, p, *range(1, 40)])))]
            self.grid, self.inner = tuple(range(len(self.ranges) - 1)), [len(self.ranges) - 1]
        self.operands: list[Operand] = []
        self.values: list[Instr] = []
        self.ranges_of: list[frozenset[int]] = []
        self.kept: list[int] = []  # values of the grid's point, which later stages may read
        self.crossing: list[int] = []  # reductions over the grid
        self.temps: list[tuple[int, Index, tuple[int, ...]]] = []

    def add(self, v: Instr, ranges: Sequence[int] | frozenset[int] = ()) -> int:
        self.values.append(v)
        self.ranges_of.append(frozenset(ranges))
        return len(self.values) - 1

    def dense(self, ranges: Sequence[int], flips: bool = False) -> tuple[Index, Size]:
        """A layout of these ranges in some order, perhaps with a gap or backwards; and how many elements it takes."""
        if self.rowwise:
            ranges, flips = sorted(ranges), flips and self.draw(st.integers(0, 7)) == 0
        offset: Size = self.draw(st.integers(0, 2)) if flips else 0
        step: Size = 1 if not flips else self.draw(st.integers(1, 2))
        terms = []
        for r in reversed(ranges):
            extent = self.ranges[r].extent
            if flips and self.draw(st.booleans()):
                terms.append((r, step * -1))
                offset = offset + step * (extent - 1)
            else:
                terms.append((r, step))
            step = step * extent
        return Index(offset, tuple(sorted(terms))), step + (2 if flips else 0)

    def some(self, things: Sequence[int]) -> list[int]:
        chosen = self.draw(st.permutations(things)) if things else []
        return chosen[self.draw(st.integers(0, len(chosen))):]

    def body(self, around: Sequence[int], known: Sequence[int], temps: Sequence[tuple[int, Index, tuple[int, ...]]]) -> list[int]:
        """Loads and arithmetic: at least one value."""
        first = len(self.values)
        for _ in range(self.draw(st.integers(1, 2))):
            ranges = self.some(around)
            index, size = self.dense(ranges, flips=not self.mixed or self.draw(st.booleans()))
            dtype = self.draw(st.sampled_from(OTHERS)) if self.mixed else F64
            self.operands.append(Operand(self.draw(st.sampled_from(("x", "y", "a b"))), dtype, "in", size))
            element = self.add(Instr("load", dtype, operand=len(self.operands) - 1, index=index), ranges)
            if dtype != F64:
                self.add(Instr("cast", F64, (element,)), ranges)
        for operand, index, loops in temps:
            self.add(Instr("load", F64, operand=operand, index=index), {*self.grid, *loops})
        for a in known:
            if self.values[a].dtype == I64:  # a position
                self.add(Instr("cast", F64, (a,)), self.ranges_of[a])
        kind = self.draw(st.integers(0, 4))
        if kind == 1:
            self.add(Instr("literal", F64, data=self.draw(st.sampled_from((0.5, -0.0, 2, float("inf"))))))
        elif kind == 2:
            size = self.add(Instr("size", I64, data=self.symbols[0] + 1))
            self.add(Instr("cast", F64, (size,)))
        elif kind == 3 and around:
            r = self.draw(st.sampled_from(around))
            at = self.add(Instr("range", I64, over=(r,)), {r})
            self.add(Instr("cast", F64, (at,)), {r})
            self.operands.append(Operand("table", F64, "in", self.ranges[r].extent * 2))
            self.add(Instr("load", F64, operand=len(self.operands) - 1, index=Index(1, (), ((at, 2),))), {r})
        for _ in range(self.draw(st.integers(0, 3))):
            args = [self.draw(st.sampled_from(self.numbers(first, known))) for _ in range(2)]
            ranges_ = self.ranges_of[args[0]] | self.ranges_of[args[1]]
            if self.draw(st.booleans()):
                test = self.add(Instr("apply", BOOL, tuple(args), word="less"), ranges_)
                self.add(Instr("apply", F64, (test, *args), word="where"), ranges_)
            else:
                self.add(Instr("apply", F64, tuple(args), word=self.draw(st.sampled_from(("add", "sub", "maximum")))), ranges_)
        return self.numbers(first, known)

    def numbers(self, first: int, known: Sequence[int]) -> list[int]:
        return [i for i in (*known, *range(first, len(self.values))) if self.values[i].dtype == F64]

    def differing(self, value: int, loops: Sequence[int]) -> int:
        """A value that depends on all these ranges."""
        for r in loops:
            if r not in self.ranges_of[value]:
                at = self.add(Instr("range", I64, over=(r,)), {r})
                at = self.add(Instr("cast", F64, (at,)), {r})
                value = self.add(Instr("apply", F64, (value, at), word="add"), self.ranges_of[value] | {r})
        return value

    def store(self, value: int, around: Sequence[int], mode: str = "out") -> None:
        # where a loop may be empty, what is stored depends on it
        value = self.differing(value, [r for r in around if not isinstance(self.ranges[r].extent, int)])
        ranges = sorted(self.ranges_of[value] - (set(self.grid) if mode == "temp" else set()))
        index, size = self.dense(self.draw(st.permutations(ranges)) if ranges else [])
        dtype = self.draw(st.sampled_from(OTHERS[:5])) if self.mixed and mode == "out" else F64
        if dtype != F64:
            value = self.add(Instr("cast", dtype, (value,)), self.ranges_of[value])
        self.operands.append(Operand("z", dtype, mode, size))
        self.add(Instr("store", dtype, (value,), len(self.operands) - 1, index))
        if mode == "temp":
            self.temps.append((len(self.operands) - 1, index, tuple(ranges)))

    def moving(self) -> Kernel:
        """One stage at each point of a grid of all ranges: arrays whose axes stand in different orders."""
        count = self.draw(st.sampled_from((2, 3)))
        sizes = self.draw(st.permutations([*self.symbols, self.draw(st.integers(1, 20)), self.draw(st.integers(1, 3))]))
        self.ranges = [Range("ijk"[n], size) for n, size in enumerate(sizes[:count])]
        self.grid, self.inner = tuple(self.draw(st.permutations(range(count)))), []
        results = []
        for _ in range(self.draw(st.sampled_from((1, 1, 2, 3)))):
            index, size = self.dense(self.draw(st.permutations(range(count))), flips=self.draw(st.integers(0, 3)) == 0)
            dtype = self.draw(st.sampled_from(OTHERS)) if self.mixed else F64
            self.operands.append(Operand("x", dtype, "in", size))
            loaded = self.add(Instr("load", dtype, operand=len(self.operands) - 1, index=index), range(count))
            results.append(loaded if dtype == F64 else self.add(Instr("cast", F64, (loaded,)), range(count)))
        for n, value in enumerate(results[1:]):
            results.append(self.add(Instr("apply", F64, (results[n], value), word=self.draw(st.sampled_from(("add", "maximum")))), range(count)))
        for value in results[-self.draw(st.sampled_from((1, 1, 2))):]:
            self.store(value, range(count))
        body = tuple(range(len(self.values)))
        return Kernel("move", tuple(self.ranges), self.grid, tuple(self.operands), tuple(self.values), (Stage((), body),), (), self.draw(st.sampled_from(self.grid)))

    def kernel(self) -> Kernel:
        stages, finish = [], []
        for _ in range(self.draw(st.sampled_from((2, 3, 1)))):
            loops = stages[-1].loops if stages and self.draw(st.booleans()) else tuple(self.inner if self.rowwise else self.some(self.inner))
            first = len(self.values)
            found = self.body([*self.grid, *loops], self.kept, [t for t in self.temps if set(t[2]) <= set(loops)])
            kept = []
            for _ in range(self.draw(st.integers(1, 2))):
                value = self.draw(st.sampled_from(found))
                what = self.draw(st.sampled_from(("temp", "reduce", "grid", "store")))
                word = self.draw(st.sampled_from(("sum", "max", "min", "argmax")))
                dtype = I64 if word == "argmax" else F64
                if what == "temp" and value >= first and self.ranges_of[value] - set(self.grid):
                    self.store(value, loops, "temp")
                elif what == "reduce" and loops:
                    got = self.add(Instr("reduce", dtype, (value,), over=loops, word=word), self.ranges_of[value] - set(loops))
                    kept.append(got)
                elif what == "grid" and self.grid:
                    value = self.differing(value, loops)
                    got = self.add(Instr("reduce", dtype, (value,), over=self.grid, word=word), self.ranges_of[value] - set(self.grid))
                    self.crossing.append(got)
                else:
                    self.store(value, (*self.grid, *loops))
            stages.append(Stage(loops, tuple(range(first, len(self.values)))))
            self.kept += [v for v in kept if self.ranges_of[v] <= set(self.grid)]
        for value in self.crossing:
            first = len(self.values)
            loops = tuple(sorted(self.ranges_of[value]))
            self.store(self.draw(st.sampled_from(self.body(loops, [value], ()))), loops)
            finish.append(Stage(loops, tuple(range(first, len(self.values)))))
        used = [r for r in range(len(self.ranges)) if r in self.grid or any(r in s.loops for s in (*stages, *finish))]
        vector = self.inner[0] if self.rowwise else self.draw(st.sampled_from([-1, *used]))
        name = self.draw(st.sampled_from(("f", "softmax_2", "odd name", "")))
        return Kernel(name, tuple(self.ranges), self.grid, tuple(self.operands), tuple(self.values), tuple(stages), tuple(finish), vector)


@st.composite
def kernels(draw: Any, unknown: bool = False, mixed: bool = False) -> Kernel:
    """A sound kernel over the symbols n, m (at least 1), p; with ``unknown`` these have no names.

    ``mixed``: operands of many dtypes, which are computed with as float64.
    """
    symbols = [dims.fresh("unknown"), dims.fresh("data"), dims.fresh("unknown")] if unknown else [dims.dim("n"), dims.dim("m", 1), dims.dim("i")]
    return _Maker(draw, symbols, mixed).kernel()


@st.composite
def movers(draw: Any) -> Kernel:
    """A sound kernel that may have to transpose."""
    return _Maker(draw, [dims.dim("n"), dims.dim("m", 1), dims.dim("i")], mixed=draw(st.booleans())).moving()


@st.composite
def rows(draw: Any) -> Kernel:
    """A sound kernel whose stages run along rows: perhaps with a row in each lane."""
    return _Maker(draw, [dims.dim("n"), dims.dim("m", 1), dims.dim("i")], mixed=draw(st.booleans()), rowwise=True).kernel()


def renamed(kernel: Kernel, symbols: Mapping[Symbol, Size] | Mapping[Symbol, int], suffix: str) -> Kernel:
    """The same kernel in other names."""
    def new(size: Size) -> Size:
        return dims.substitute(size, symbols)

    def index(x: Index | None) -> Index | None:
        return x and Index(new(x.offset), tuple((r, new(s)) for r, s in x.terms), tuple((a, new(s)) for a, s in x.gathers))

    return replace(
        kernel, name=kernel.name + suffix,
        ranges=tuple(Range(suffix + r.name, new(r.extent)) for r in kernel.ranges),
        operands=tuple(o._replace(name=o.name + suffix, size=new(o.size)) for o in kernel.operands),
        values=tuple(v._replace(index=index(v.index), data=new(v.data) if v.op == "size" else v.data) for v in kernel.values))


def specialised(kernel: Kernel, values: Mapping[Symbol, int]) -> Kernel:
    """The kernel in which these sizes are numbers."""
    kernel = renamed(kernel, values, "")
    return replace(kernel, values=tuple(
        v if v.index is None else v._replace(index=v.index._replace(terms=tuple((r, s) for r, s in v.index.terms if s != 0))) for v in kernel.values))


def retyped(kernel: Kernel, dtype: DType) -> Kernel:
    """The same kernel computing in ``dtype`` instead of float64."""
    def new(old: DType) -> DType:
        return dtype if old == F64 else old

    return replace(kernel, operands=tuple(o._replace(dtype=new(o.dtype)) for o in kernel.operands),
                   values=tuple(v._replace(dtype=new(v.dtype)) for v in kernel.values))


def run_slowly(kernel: Kernel, arrays: Sequence[Array | None], env: Mapping[Symbol, int]) -> None:
    """The loop nest as it stands: point by point, instruction by instruction.  Reductions in order."""
    extents = [dims.evaluate(r.extent, env) for r in kernel.ranges]
    depends = value_ranges(kernel)
    over_grid: dict[Any, list[Any]] = {}

    def stage(s: Stage, point: dict[int, int], kept: dict[Any, Any], memory: list[Any]) -> dict[Any, Any]:
        results: dict[Any, list[Any]] = {}
        for counts in itertools.product(*(range(extents[r]) for r in s.loops)):
            here = {**point, **dict(zip(s.loops, counts, strict=True))}
            known: dict[int, Any] = {}

            def value(a: int, here: dict[int, int] = here, known: dict[int, Any] = known) -> Any:
                return known[a] if a in known else kept[a, tuple(here[r] for r in sorted(depends[a]))]

            def place(v: Instr, here: dict[int, int] = here) -> int:
                assert v.index is not None
                at = dims.evaluate(v.index.offset, env)
                at += sum(here[r] * dims.evaluate(t, env) for r, t in v.index.terms)
                at += sum(int(value(a)) * dims.evaluate(t, env) for a, t in v.index.gathers)
                assert 0 <= at < memory[v.operand].size
                return at

            for i in s.body:
                v = kernel.values[i]
                if v.op == "load":
                    known[i] = memory[v.operand][place(v)]
                elif v.op == "store":
                    memory[v.operand][place(v)] = value(v.args[0])
                elif v.op == "reduce":
                    key = i, tuple(here[r] for r in sorted(depends[i] & set(here)))
                    found = over_grid if set(kernel.grid) & set(v.over) else results
                    at = 0
                    for r in v.over:
                        at = at * extents[r] + here[r]
                    found.setdefault(key, []).append((value(v.args[0]), at))
                elif v.op == "range":
                    known[i] = np.int64(here[v.over[0]])
                elif v.op in ("size", "literal"):
                    known[i] = np.asarray(dims.evaluate(v.data, env) if v.op == "size" else v.data).astype(v.dtype)
                elif v.op == "cast":
                    known[i] = cast_op.forward(np.asarray(value(v.args[0])), dtype=v.dtype)
                else:
                    known[i] = OPS[v.word].forward(*(np.asarray(value(a)) for a in v.args))
                if v.op not in ("reduce", "store"):
                    kept[i, tuple(here[r] for r in sorted(depends[i]))] = known[i]
        return {key: _joined(kernel.values[key[0]], {at: x for x, at in pairs}) for key, pairs in results.items()}

    for counts in itertools.product(*(range(extents[r]) for r in kernel.grid)):
        point = dict(zip(kernel.grid, counts, strict=True))
        memory = [np.full(dims.evaluate(o.size, env), np.nan) if a is None else a for o, a in zip(kernel.operands, arrays, strict=True)]
        kept: dict[Any, Any] = {}
        for s in kernel.stages:
            kept.update(stage(s, point, kept, memory))
    kept = {key: _joined(kernel.values[key[0]], {at: x for x, at in pairs}) for key, pairs in over_grid.items()}
    for s in kernel.finish:
        kept.update(stage(s, {}, kept, list(arrays)))


def _joined(v: Instr, parts: Mapping[int, Any]) -> Any:
    """A reduction of the elements at these positions."""
    ordered = np.array([parts[at] for at in sorted(parts)])
    if v.word in ("argmax", "argmin"):
        return sorted(parts)[int(getattr(np, v.word)(ordered))]
    return getattr(np, v.word)(ordered)
