"""From the body of a kernel to its loop nest: which ranges are the grid, what runs in which stage.

    instructions   one for each node of the body, at the labels that passes/labels.py gives
    grid           where a reduction's result is needed again at the elements that it reduced (softmax), the
                   ranges that such reductions keep; else the ranges that all reductions keep, or that they all
                   reduce; else all ranges
    order          the ranges with the longest strides outermost
    stages         what depends on no reduction first; then, for each reduction, what needs its result
    kept values    what a later stage needs again is computed again if it is cheap, else kept in a "temp"
    vector         the range along which most accesses are contiguous
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_complex, is_float, real_of
from graphc.ir import Graph, Node, Var
from graphc.kernel import Index, Instr, Kernel, Operand, Range, Stage, value_ranges
from graphc.ops import OPS
from graphc.ops.complexes import complex_of_op
from graphc.ops.core import cast_op, constant_op, dim_op, size_of_op
from graphc.passes.bodies import is_counter, is_gather, is_move, is_window, moves_inside
from graphc.passes.collapse import collapse
from graphc.passes.labels import Label, Labels, Reduced, Stored, Unlabelled, grid_of, label_body
from graphc.passes.windows import counter_instr, inside_instr, window_instr

__all__ = ["KEEP_FLOPS", "UNKNOWN_SIZE", "Source", "build_kernel", "estimate"]

#: a value that costs at least this much is kept for the next stage rather than computed again
KEEP_FLOPS = 6.0
UNKNOWN_SIZE = 128
#: rounds of a loop up to which lanes go along the one around it
FEW = 4
#: points of the loops up to which the order in memory does not matter
CACHED = 1 << 16

#: reductions by another name
WORDS = {"sum_to": "sum", "peak": "max"}

#: numbers that are part of the code; every other constant is data, so that kernels do not differ by it
LITERALS = (0.0, 1.0, -1.0, 2.0, 0.5, -0.5)


class Source:
    """How an operand of the body lies in memory: a slab (any hashable key), its number of elements, offset and strides."""

    __slots__ = ("elements", "offset", "shape", "slab", "strides")

    def __init__(self, slab: int, elements: Size, shape: Sequence[Size], strides: Sequence[Size], offset: Size = 0) -> None:
        self.slab, self.elements, self.shape, self.strides, self.offset = slab, elements, tuple(shape), tuple(strides), offset


class _Builder:
    def __init__(self, body: Graph, sources: Mapping[Var, Source]) -> None:
        self.body, self.sources = body, sources
        self.labels = label_body(body.nodes, body.outputs)
        self.values: list[Instr] = []
        self.memo: dict[Any, int] = {}
        self.operands: list[Operand] = []
        self.slabs: list[Any] = []  # for each operand: ("in", slab), ("out", position in body.outputs), ("data", None), ("temp", None)
        self.by_slab: dict[Any, int] = {}
        self.position: dict[Var, int] = {}
        self.pairs: dict[Var, list[int]] = {}  # of complex results: their parts
        self.data: dict[np.dtype[Any], list[Any]] = {}

    def add(self, instr: Instr) -> int:
        key = instr
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = len(self.values)
            self.values.append(instr)
        return found

    # -- instructions -------------------------------------------------------------------------

    def build(self) -> list[tuple[int, int, int]]:
        """All instructions; (value, position in body.outputs, which part of a complex number) for the results."""
        labels = self.labels
        for node in self.body.nodes:
            if moves_inside(node) or node.op is size_of_op:
                continue
            if is_counter(node):
                label = labels.label(labels.values[node.outputs[0]])
                if node.op.name == "inside":
                    self.position[node.outputs[0]] = inside_instr(node, label, labels.extents, self.add)
                    continue
                r, = label
                counter = counter_instr(r, node.outputs[0].type.shape[0], labels.extents, self.add)
                self.position[node.outputs[0]] = self.cast(counter, node.outputs[0].type.dtype)
                continue
            if is_gather(node):
                self.position[node.outputs[0]] = self.window(node) if is_window(node) else self.gather(node)
                continue
            args = [self.operand(node, k, v) for k, v in enumerate(node.inputs)]
            if node.op is complex_of_op:
                self.pairs[node.outputs[0]] = args
            else:
                self.position[node.outputs[0]] = self.node(node, args, labels)
        return [(x, k, part) for k, v in enumerate(self.body.outputs) for part, x in enumerate(self.root(v))]

    def root(self, v: Var) -> list[int]:
        if v in self.pairs:
            return self.pairs[v]
        if v in self.position:
            return [self.position[v]]
        raise Unlabelled(f"{v.describe()} is not computed in the kernel")

    def operand(self, node: Node, k: int, v: Var) -> int:
        known = self.position.get(v)
        if known is not None:
            return known
        made = v.node
        if made is not None and v not in self.sources:
            if made.op is constant_op and made.attrs["value"].size == 1:
                return self.constant(made.attrs["value"].reshape(()))
            if made.op is dim_op:
                return self.add(Instr("size", np.dtype(np.int64), data=made.attrs["size"]))
            if made.op is size_of_op:
                return self.add(Instr("size", np.dtype(np.int64), data=made.inputs[0].type.shape[made.attrs["axis"]]))
        source = self.sources.get(v)
        if source is None:
            raise Unlabelled(f"{v.describe()} has no place")
        return self.load(source, v.type.dtype, self.labels.label(self.labels.uses[v][node, k]))

    def constant(self, value: Any) -> int:
        dtype = value.dtype
        if dtype.kind in "biu" or is_float(dtype):
            number = value.item()
            small = isinstance(number, bool) or (number in LITERALS and not (number == 0 and math.copysign(1.0, number) < 0))
            if small or (isinstance(number, int) and abs(number) <= 2):
                return self.add(Instr("literal", dtype, data=number))
        numbers = self.data.setdefault(dtype, [])
        bits = value.tobytes()
        at = next((i for i, x in enumerate(numbers) if x.tobytes() == bits), len(numbers))
        if at == len(numbers):
            numbers.append(value)
        return self.add(Instr("load", dtype, operand=self.array(("data", dtype.name), dtype, "in", 0), index=Index(at, ())))

    def load(self, source: Source, dtype: np.dtype[Any], label: Label) -> int:
        operand = self.array(("in", source.slab), dtype, "in", source.elements)
        return self.add(Instr("load", dtype, operand=operand, index=self.index(source, label)))

    def gather(self, node: Node) -> int:
        x, axis = node.inputs[0], node.attrs["axis"]
        position = self.operand(node, 1, node.inputs[1])
        source = self.sources[x]
        operand = self.array(("in", source.slab), x.type.dtype, "in", source.elements)
        index = self.index(source, self.labels.label(self.labels.uses[x][node, 0]))
        return self.add(Instr("load", x.type.dtype, operand=operand, index=index._replace(gathers=((position, source.strides[axis]),))))

    def window(self, node: Node) -> int:
        x = node.inputs[0]
        fill, source = self.operand(node, 1, node.inputs[1]), self.sources.get(x)
        label = self.labels.label(self.labels.values[node.outputs[0]])
        zero = self.values[fill].op == "literal" and not self.values[fill].data
        if source is None:  # a constant of one element
            return window_instr(node, label, self.labels.extents, (0,) * x.type.ndim, 0, -1, self.operand(node, 0, x), fill, zero, self.add)
        operand = self.array(("in", source.slab), x.type.dtype, "in", source.elements)
        return window_instr(node, label, self.labels.extents, source.strides, source.offset, operand, -1, fill, zero, self.add)

    def index(self, source: Source, label: Label) -> Index:
        """Strides along ranges; along an axis that may turn out to have size 1, the stride is 0 if it has.

        An array without elements is never touched: strides of it that are 0 are written as 1, so that the value depends on its ranges.
        """
        terms: dict[int, Size] = {}
        for r, size, stride in zip(label, source.shape, source.strides, strict=True):
            if r < 0:
                continue
            extent = self.labels.extents[r]
            if size != extent:
                stride = stride * dims.dim_min(1, size - 1)
            terms[r] = terms.get(r, 0) + (1 if source.elements == 0 and stride == 0 else stride)
        return Index(source.offset, tuple((r, s) for r, s in sorted(terms.items()) if s != 0))

    def array(self, key: Any, dtype: np.dtype[Any], mode: str, size: Size) -> int:
        found = self.by_slab.get(key)
        if found is None:
            found = self.by_slab[key] = len(self.operands)
            self.operands.append(Operand(f"{'xyt'[('in', 'out', 'temp').index(mode)]}{found}", dtype, mode, size))
            self.slabs.append(key)
        return found

    def node(self, node: Node, args: list[int], labels: Labels) -> int:
        op, dtype = node.op, node.outputs[0].type.dtype
        if is_move(node):
            return args[0]
        if op is cast_op:
            return self.cast(args[0], dtype)
        if op.kind == "reduction":
            word = WORDS.get(op.name, op.name)
            over = tuple([labels.find(r) for r in labels.over[node]])
            if not over:
                return self.add(Instr("literal", dtype, data=0)) if word in ("argmax", "argmin") else self.cast(args[0], dtype)
            x = args[0] if word in ("argmax", "argmin") else self.cast(args[0], dtype)
            return self.add(Instr("reduce", dtype, (x,), over=over, word=word))
        return self.add(Instr("apply", dtype, tuple(args), word=op.name))

    def cast(self, x: int, dtype: np.dtype[Any]) -> int:
        return x if self.values[x].dtype == dtype else self.add(Instr("cast", dtype, (x,)))


def build_kernel(body: Graph, sources: Mapping[Var, Source], places: Mapping[int, Source] | None = None) -> tuple[Kernel, list[Any], dict[str, Any]]:
    """The kernel of a body, what each of its operands is, and the constants that it reads.

    ``places``: where results (by position) go that do not fill their slab.

    An operand is ("in", slab), ("out", position in ``body.outputs``), ("data", dtype name) or ("temp", number).
    ``Unlabelled`` where the body is no single loop nest.
    """
    b = _Builder(body, sources)
    roots = b.build()
    for dtype, numbers in b.data.items():
        k = b.by_slab["data", dtype.name]
        b.operands[k] = b.operands[k]._replace(size=len(numbers))
    stores: list[int] = []
    for value, k, part in roots:
        v = body.outputs[k]
        label = b.labels.label(b.labels.values[v])
        each, dtype = 2 if is_complex(v.type.dtype) else 1, real_of(v.type.dtype)
        out = (places or {}).get(k) or Source(-1, dims.product(v.type.shape) * each, v.type.shape, [stride * each for stride in _dense(v.type.shape)])
        operand = b.array(("out", k), dtype, "out", out.elements)
        index = b.index(out, label)
        stores.append(b.add(Instr("store", dtype, (value,), operand=operand, index=index._replace(offset=index.offset + part))))
    kernel = _staged(body.name, b, stores)
    return kernel, b.slabs, {dtype.name: np.array(numbers, dtype) for dtype, numbers in b.data.items()}


def _dense(shape: Sequence[Size]) -> list[Size]:
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step = step * (size if size != 0 else 1)  # an empty array has strides too: they say which loops run along it
    return strides


# ---- the loop nest ------------------------------------------------------------------------------


def _staged(name: str, b: _Builder, stores: Sequence[int]) -> Kernel:
    live = sorted({b.labels.find(r) for r in range(len(b.labels.extents))})
    number = {r: i for i, r in enumerate(live)}
    values = [_renumbered(v, number) for v in b.values]
    ranges = tuple(Range("ijklmnopqrstuvw"[i] if i < 15 else f"i{i}", b.labels.extents[r]) for i, r in enumerate(live))
    kernel = Kernel(name, ranges, (), tuple(b.operands), tuple(values), ())
    depends = value_ranges(kernel)
    order = _order(kernel)
    grid_set = _grid(kernel, depends, order)
    grid = tuple(r for r in order if r in grid_set)
    inner = [r for r in order if r not in grid_set]
    kernel = replace(kernel, grid=grid)
    kernel = collapse(_stages(kernel, depends, stores, inner, b))
    return replace(kernel, vector=_vector(kernel))


def _renumbered(v: Instr, number: Mapping[int, int]) -> Instr:
    index = v.index
    if index is not None:
        index = index._replace(terms=tuple(sorted((number[r], s) for r, s in index.terms)))
    return v._replace(index=index, over=tuple(number[r] for r in v.over))


def estimate(size: Size, unknown: int = UNKNOWN_SIZE) -> float:
    """A number for a size that may not be known."""
    if isinstance(size, int):
        return float(size)
    try:
        return float(dims.evaluate(size, {s: max(s.min, unknown) for s in dims.symbols(size)}))
    except (ArithmeticError, ValueError):
        return float(unknown)


def _order(kernel: Kernel) -> list[int]:
    """The ranges, those with the longest strides first."""
    score = [0.0] * len(kernel.ranges)
    for v in kernel.values:
        if v.index is not None:
            weight = 1.5 if v.op == "store" else 1.0
            for r, stride in v.index.terms:
                score[r] += weight * math.log2(1 + abs(estimate(stride)))
    return sorted(range(len(kernel.ranges)), key=lambda r: (-score[r], r))


def _grid(kernel: Kernel, depends: Sequence[frozenset[int]], order: Sequence[int]) -> frozenset[int]:
    found = [i for i, v in enumerate(kernel.values) if v.op == "reduce"]
    number = {i: n for n, i in enumerate(found)}
    needed, below = _needed_again(kernel, depends)
    reductions = [Reduced(frozenset(kernel.values[i].over), depends[i], i in needed) for i in found]
    stored = [Stored(depends[i], frozenset(number[r] for r in below[i])) for i, v in enumerate(kernel.values) if v.op == "store"]
    large = math.prod(estimate(r.extent, 1024) for r in kernel.ranges) > CACHED
    grid = grid_of(reductions, stored, order, large)
    if grid is None:  # what is broadcast in the kernel depends on fewer ranges than its value has axes
        grid = grid_of(reductions, stored, order, large, again=True)
    if grid is None:
        raise Unlabelled("no grid suits all reductions and results")
    return grid


def _needed_again(kernel: Kernel, depends: Sequence[frozenset[int]]) -> tuple[set[int], list[frozenset[int]]]:
    """The reductions whose results are read where more ranges run than they keep, or by another reduction; for each value those below it."""
    below: list[frozenset[int]] = []
    needed: set[int] = set()
    for i, v in enumerate(kernel.values):
        own: set[int] = set()
        for a in v.args:
            own |= below[a] | ({a} if kernel.values[a].op == "reduce" else set())
        if v.op == "reduce":
            needed |= own
        elif v.op != "store":
            needed |= {r for r in own if not depends[i] <= depends[r]}
        below.append(frozenset(own))
    return needed, below


class _Plan:
    """For each value: does it follow the grid (finish), and after how many reductions does it come?"""

    def __init__(self, kernel: Kernel, depends: Sequence[frozenset[int]]) -> None:
        grid = frozenset(kernel.grid)
        self.after: list[bool] = []
        self.stage: list[int] = []
        self.grid_reduction: list[bool] = []
        for v in kernel.values:
            crossing = v.op == "reduce" and bool(grid) and bool(grid & frozenset(v.over))
            self.grid_reduction.append(crossing)
            after = any(self.after[a] or self.grid_reduction[a] for a in v.args)
            stage = 0
            for a in v.args:
                step = 1 if kernel.values[a].op == "reduce" and not self.grid_reduction[a] and not after else 0
                stage = max(stage, self.stage[a] + step)
            if after and v.op == "reduce":
                raise Unlabelled("a reduction of what is known after the grid")
            self.after.append(after)
            self.stage.append(0 if after else stage)


def _stages(kernel: Kernel, depends: Sequence[frozenset[int]], stores: Sequence[int], inner: Sequence[int], b: _Builder) -> Kernel:
    plan = _Plan(kernel, depends)
    grid = frozenset(kernel.grid)
    reachable = _reachable(kernel, stores)
    roots: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    finishing: dict[tuple[int, ...], list[int]] = {}
    for i in sorted(reachable):
        v = kernel.values[i]
        if v.op not in ("store", "reduce"):
            continue
        if plan.after[i]:
            loops = tuple(r for r in inner if r in depends[i])
            if depends[i] & grid:
                raise Unlabelled("a value of the grid's points together with one that follows the grid")
            finishing.setdefault(loops, []).append(i)
            continue
        at = depends[v.args[0]] if v.op == "reduce" else depends[i] | depends[v.args[0]]
        if v.op == "reduce":
            at = at | frozenset(v.over)
        loops = tuple(r for r in inner if r in at)
        roots.setdefault((plan.stage[i], loops), []).append(i)
    stages = []
    for (level, loops), found in sorted(roots.items(), key=lambda item: (item[0][0], -len(item[0][1]), item[0][1])):
        body = _body(kernel, plan, found, level, after=False)
        stages.append(Stage(loops, body))
    finish = [Stage(loops, _body(kernel, plan, found, 0, after=True)) for loops, found in finishing.items()]
    kernel = replace(kernel, stages=tuple(stages), finish=tuple(finish))
    return _kept(kernel, depends, b)


def _reachable(kernel: Kernel, stores: Iterable[int]) -> set[int]:
    found: set[int] = set()
    stack = list(stores)
    while stack:
        i = stack.pop()
        if i in found:
            continue
        found.add(i)
        v = kernel.values[i]
        stack += v.args
        if v.index is not None:
            stack += [a for a, _ in v.index.gathers]
    return found


def _body(kernel: Kernel, plan: _Plan, roots: Sequence[int], level: int, after: bool) -> tuple[int, ...]:
    """What a stage must compute for its roots; results of earlier reductions are there."""
    found: set[int] = set(roots)
    stack = [a for r in roots for a in _reads(kernel.values[r])]
    while stack:
        i = stack.pop()
        if i in found or (kernel.values[i].op == "reduce" and (after or plan.stage[i] < level)):
            continue
        if kernel.values[i].op == "reduce":
            continue  # a reduction of this stage whose result another stage reads
        found.add(i)
        stack += _reads(kernel.values[i])
    return tuple(sorted(found))


def _reads(v: Instr) -> list[int]:
    return [*v.args, *([a for a, _ in v.index.gathers] if v.index is not None else [])]


def _kept(kernel: Kernel, depends: Sequence[frozenset[int]], b: _Builder) -> Kernel:
    """Costly values of a stage that a later stage computes again are kept in a temp instead."""
    grid = frozenset(kernel.grid)
    values, operands, slabs = list(kernel.values), list(kernel.operands), b.slabs
    stages = [list(s.body) for s in kernel.stages]
    first: dict[int, int] = {}
    again: dict[int, list[int]] = {}
    for s, body in enumerate(stages):
        for i in body:
            if i in first:
                if values[i].op == "apply" and depends[i] - grid and OPS[values[i].word].flops >= KEEP_FLOPS:
                    again.setdefault(i, []).append(s)
            else:
                first[i] = s
    # only the last costly values: what only they need is not computed again either
    replaced: dict[int, dict[int, int]] = {}
    for i in sorted(again, reverse=True):
        inner = [r for r in kernel.stages[first[i]].loops if r in depends[i]]
        users = [s for s in again[i] if _needs(values, stages[s], i, replaced.get(s, {}))]
        if not users or any(set(inner) - set(kernel.stages[s].loops) for s in users):
            continue
        if any(r not in inner and dims.bounds(kernel.ranges[r].extent)[0] < 1 for r in kernel.stages[first[i]].loops):
            continue  # where that loop is empty nothing would be kept
        extents = [kernel.ranges[r].extent for r in inner]
        dtype = values[i].dtype
        operand = len(operands)
        operands.append(Operand(f"t{operand}", dtype, "temp", dims.product(extents)))
        slabs.append(("temp", operand))
        strides = _dense(extents)
        index = Index(0, tuple(sorted((r, s) for r, s in zip(inner, strides, strict=True))))
        values.append(Instr("store", dtype, (i,), operand=operand, index=index))
        stages[first[i]].append(len(values) - 1)
        values.append(Instr("load", dtype, operand=operand, index=index))
        for s in users:
            replaced.setdefault(s, {})[i] = len(values) - 1
    if not replaced:
        return _ordered(kernel)
    return _substituted(replace(kernel, operands=tuple(operands)), values, stages, replaced)


def _needs(values: Sequence[Instr], body: Sequence[int], i: int, replaced: Mapping[int, int]) -> bool:
    """Does a stage still compute ``i`` once the values in ``replaced`` are read instead?"""
    roots = [r for r in body if values[r].op in ("store", "reduce")]
    inside = set(body)
    found: set[int] = set()
    stack = [a for r in roots for a in _reads(values[r])]
    while stack:
        k = stack.pop()
        if k in found or k in replaced or k not in inside:
            continue
        found.add(k)
        if values[k].op != "reduce":
            stack += _reads(values[k])
    return i in found


def _substituted(kernel: Kernel, values: list[Instr], stages: Sequence[Sequence[int]], replaced: Mapping[int, Mapping[int, int]]) -> Kernel:
    """Stages in which some values are read from temps: instructions that depend on them are copied."""
    result = []
    for s, body in enumerate(stages):
        table = dict(replaced.get(s, {}))
        loads = set(table.values())
        new: list[int] = []
        if table:
            new += sorted(loads)
            for i in sorted(body):
                if i in table:
                    continue
                v = values[i]
                if any(a in table for a in v.args):
                    if v.op == "reduce":  # keep its number: other stages name it
                        values[i] = v._replace(args=tuple(table.get(a, a) for a in v.args))
                        new.append(i)
                        continue
                    values.append(v._replace(args=tuple(table.get(a, a) for a in v.args)))
                    table[i] = len(values) - 1
                    new.append(len(values) - 1)
                else:
                    new.append(i)
            new = _pruned(values, new)
        else:
            new = list(body)
        result.append(Stage(kernel.stages[s].loops, tuple(new)))
    return _ordered(replace(kernel, values=tuple(values), stages=tuple(result)))


def _pruned(values: Sequence[Instr], body: Sequence[int]) -> list[int]:
    """Without what no store and no reduction of the stage needs."""
    inside = set(body)
    needed: set[int] = set()
    stack = [i for i in body if values[i].op in ("store", "reduce")]
    while stack:
        i = stack.pop()
        if i in needed or i not in inside:
            continue
        needed.add(i)
        stack += _reads(values[i])
    return [i for i in body if i in needed]


def _ordered(kernel: Kernel) -> Kernel:
    """The same kernel with instructions numbered in the order in which they run, without those that nothing runs."""
    number: dict[int, int] = {}
    for stage in (*kernel.stages, *kernel.finish):
        pending = list(stage.body)
        while pending:  # a stage's list may name a copy before what it reads
            rest = []
            inside = set(pending)
            for i in pending:
                if any(a in inside and a not in number and a != i for a in _reads(kernel.values[i])):
                    rest.append(i)
                else:
                    number.setdefault(i, len(number))
            if len(rest) == len(pending):
                raise Unlabelled("instructions in a ring")
            pending = rest
    values: list[Any] = [None] * len(number)
    for old, new in number.items():
        v = kernel.values[old]
        index = v.index
        if index is not None and index.gathers:
            index = index._replace(gathers=tuple((number[a], s) for a, s in index.gathers))
        values[new] = v._replace(args=tuple(number[a] for a in v.args), index=index)

    def renumber(stages: Sequence[Stage]) -> tuple[Stage, ...]:
        return tuple(Stage(s.loops, tuple(sorted(number[i] for i in s.body))) for s in stages)

    return replace(kernel, values=tuple(values), stages=renumber(kernel.stages), finish=renumber(kernel.finish))


def _vector(kernel: Kernel) -> int:
    """The range for the lanes: the innermost of the grid or of the stages, or one outside of a few rounds, whichever has the better accesses."""
    inner = {s.loops[-1] for s in (*kernel.stages, *kernel.finish) if s.loops}
    candidates = [*sorted(inner), *kernel.grid[-1:]]
    if not inner:
        outer = list(kernel.grid)
        while len(outer) > 1 and _few(kernel, outer[-1]):  # the place in a window: lanes along the windows
            outer.pop()
            candidates.append(outer[-1])
    best, choice = math.inf, -1
    for r in candidates:
        cost = 0.0
        for v in kernel.values:
            if v.index is None:
                cost += 0.5 * (v.op == "apply")
                continue
            stride = next((s for q, s in v.index.terms if q == r), 0)
            if isinstance(stride, int) and 1 < stride <= 4:  # as many vectors, of which some lanes are used
                cost += stride if v.op == "load" else min(3.0 * stride, 8.0)
            else:
                cost += 0.5 if stride == 0 else 1.0 if stride == 1 else 2.0 if stride == -1 else 8.0
        if _few(kernel, r):  # most lanes would be idle
            cost *= 4.0
        if len(inner) > 1 and r in inner:
            cost += 2.0 * len(inner)
        if cost < best:
            best, choice = cost, r
    return choice


def _few(kernel: Kernel, r: int) -> bool:
    extent = kernel.ranges[r].extent
    return isinstance(extent, int) and extent <= FEW
