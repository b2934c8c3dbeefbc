"""What a compiled function costs, known before it runs: FLOPs, bytes moved, memory.  Formulas of its dims, numbers where these are given.

What is counted, and for which backend, ``cost`` says; ``f.cost`` calls it.  ``step_work`` and ``node_work`` are also what
``f.profile`` divides by time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.dtypes import is_complex
from graphc.errors import GraphcValueError
from graphc.ir import Graph, Node, Var
from graphc.kernel import Index, Kernel, Launch, Ordered, Product, Program, Step, Sweep, View, value_ranges
from graphc.ops import OPS
from graphc.ops.convolution import Convolution
from graphc.variants import Variants

__all__ = ["Work", "cost", "node_flops", "node_work", "peak_bytes", "step_work"]


class Work(NamedTuple):
    """Scalar operations, and bytes between memory and processor if each array is read or written once."""

    flops: Size
    moved: Size


def cost(f: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """FLOPs, bytes moved and peak bytes of a call of a compiled function.

    Args:
        f: a compiled function.
        sizes: numbers for its named dims; or, by the name of an input or of state, its shape.  What is missing stays a
            symbol in the result.

    Returns:
        ``{"flops": ..., "bytes": ..., "peak_bytes": ...}``: ints where all dims are given, else formulas.

        ``flops``: a multiply-add is two; functions count as many as they cost in multiplications (``exp`` 10).
        ``bytes``: for each kernel every element that it reads and that it writes, once.
        ``peak_bytes``: the memory that a call takes at its peak beside its arguments, the state as it was, and constants (which
        were made when compiling): working memory (the arena, and the scratch memory of kernels), outputs, new
        values of state, and results of ops that run in Python.  Not in it, because no formula says it: what such an op
        uses while it runs; copies of arguments that are not contiguous (the size of the argument each).
        The working memory stays with the function for its next call.

        On the NumPy backend ``flops`` and ``bytes`` are those of the nodes, ``peak_bytes`` those of its buffers alone.

    >>> import graphc as gc
    >>> x = gc.tensor("x", shape=("n", "m"), dtype="float32")
    >>> gc.function([x], gc.exp(x)).cost({"n": 1000})["bytes"]
    Dim(8000*m)
    """
    graph: Graph = f._compiled.stages[0].graph  # as written: it has all dims
    variables = {p.name: p.var for p in f._compiled.door.parameters if p.name}
    known = _known([*graph.inputs, *graph.shared, *f.graph.inputs], variables, sizes)
    runner = _runner(f._compiled.runner, known)
    program = getattr(runner, "program", None)
    if isinstance(program, Program):
        works = [step_work(program, step) for step in program.steps]
        peak = peak_bytes(runner)
    else:
        plan = getattr(runner, "plan", None)
        works = [node_work(node) for node in (f.graph if plan is None else plan.graph).nodes]
        peak = 0 if plan is None else plan.peak_bytes
    found = {"flops": _sum(w.flops for w in works), "bytes": _sum(w.moved for w in works), "peak_bytes": peak}
    return {key: dims.substitute(size, known) for key, size in found.items()}


def peak_bytes(runner: Any) -> Size:
    """The bytes that a call of a program's runner takes; see ``cost``."""
    program: Program = runner.program
    native = getattr(runner, "native", None)
    return _sum([program.arena if native is None else native.nbytes, *(s.nbytes for s in program.slabs if s.place in ("output", "fresh"))])


def _sum(sizes: Any) -> Size:
    total: Size = 0
    for size in sizes:
        total = total + size
    return total


# ---- sizes that the user gives ------------------------------------------------------------------


def _known(leaves: Sequence[Var], parameters: Mapping[str, Var], sizes: Mapping[str, Any]) -> dict[Symbol, Size]:
    names = {s.name: s for v in leaves for size in v.type.shape for s in dims.symbols(size) if s.name}
    variables = {**{v.name: v for v in reversed(leaves) if v.name}, **parameters}
    known: dict[Symbol, int] = {}
    for name, value in sizes.items():
        if name in names and not isinstance(value, (tuple, list)):
            known[names[name]] = int(value)
        elif name in variables and isinstance(value, (tuple, list)):
            _solve(variables[name], value, known)
        else:
            raise GraphcValueError(f"cost: {name!r} = {value!r} is neither the size of a dim nor the shape of a variable; the dims are: "
                                   f"{', '.join(sorted(names)) or 'none'}; the variables are: {', '.join(sorted(variables)) or 'none'}")
    return dict(known)


def _solve(v: Var, shape: Sequence[int], known: dict[Symbol, int]) -> None:
    if len(shape) != len(v.type.shape):
        raise GraphcValueError(f"cost: {v.describe()} has rank {len(v.type.shape)}; got the shape {tuple(shape)}", v.origin)
    for size, have in zip(v.type.shape, shape, strict=True):
        found = dims.solve(size, int(have), known)
        if found is not None:
            known[found[0]] = found[1]
        elif dims.substitute(size, dict(known)) != have and not any(s not in known for s in dims.symbols(size)):
            raise GraphcValueError(f"cost: {v.describe()} cannot have the shape {tuple(shape)} here: {size} is {dims.substitute(size, dict(known))}", v.origin)


def _runner(runner: Any, known: dict[Symbol, Size]) -> Any:
    """The runner of calls with these sizes: sizes that are assumed to be equal follow from each other."""
    if not isinstance(runner, Variants):
        return runner
    for symbol, size in runner.same.items():
        target = size.symbol if not isinstance(size, int) else None
        if symbol in known and target is not None and target not in known:
            known[target] = known[symbol]
    for symbol, size in runner.same.items():
        have, want = known.get(symbol), dims.substitute(size, known)
        if isinstance(have, int) and isinstance(want, int) and have != want:
            return runner.other()
    return runner.usual


# ---- steps of a program -------------------------------------------------------------------------


def step_work(program: Program, step: Step) -> Work:
    """The work of one step of one call."""
    if isinstance(step, Launch):
        return Work(_kernel_flops(step.kernel), _kernel_bytes(step.kernel))
    if isinstance(step, Product):
        flops = 2 * dims.product(step.sizes)
        return Work(flops, _sum(_view_bytes(program, v) for v in (step.a, step.b, step.out)))
    if isinstance(step, Sweep):
        flops = _sum(step_work(program, inner).flops for inner in step.steps)
        moved = _sum(program.slabs[s].nbytes for s in (*step.reads, *step.writes))
        return Work(step.total(flops), moved)
    if isinstance(step, Ordered):
        each = 0 if step.word == "set" else 2 if step.word == "recurrence" else 1
        values = step.operands[0]
        changed = [values, values] if step.word == "add" else [values] if step.word == "set" else [step.out]
        return Work(dims.product(values.shape) * each, _sum(_view_bytes(program, v) for v in (*step.operands, *changed)))
    taken = [_view_bytes(program, view) * (2 if is_complex(v.type.dtype) else 1) for view, v in zip(step.inputs, step.node.inputs, strict=True)]
    moved = _sum([*taken, *(program.slabs[k].nbytes for k in step.outputs)])
    return Work(node_flops(step.node), moved)


def _view_bytes(program: Program, view: View) -> Size:
    """An axis with stride 0 is one element, however often it is read."""
    return dims.product(n for n, stride in zip(view.shape, view.strides, strict=True) if stride != 0) * program.slabs[view.slab].dtype.itemsize


def _kernel_flops(kernel: Kernel) -> Size:
    depends = value_ranges(kernel)
    total: Size = 0
    for k, stage in enumerate((*kernel.stages, *kernel.finish)):
        nest = (*kernel.grid, *stage.loops) if k < len(kernel.stages) else stage.loops
        for i in stage.body:
            v = kernel.values[i]
            if v.op == "apply":
                each, ranges = OPS[v.word].flops, depends[i]
            elif v.op == "reduce":
                each, ranges = 1.0, depends[v.args[0]] | set(v.over)
            else:
                continue
            # code stands at the depth of the innermost loop that its value depends on
            depth = max((nest.index(r) + 1 for r in ranges if r in nest), default=0)
            total = total + dims.product(kernel.ranges[r].extent for r in nest[:depth]) * round(each)
    return total


def _kernel_bytes(kernel: Kernel) -> Size:
    """Each element that is touched, once: no more than the array has, and no more than the loops reach."""
    depends = value_ranges(kernel)
    reached: dict[int, dict[Index, Size]] = {}
    for v in kernel.values:
        if v.index is not None and kernel.operands[v.operand].mode != "temp":
            ranges = {r for r, _ in v.index.terms}.union(*(depends[a] for a, _ in v.index.gathers))
            reached.setdefault(v.operand, {})[v.index] = dims.product(kernel.ranges[r].extent for r in sorted(ranges))
    return _sum(dims.dim_min(_sum(points.values()), kernel.operands[n].size) * kernel.operands[n].dtype.itemsize for n, points in sorted(reached.items()))


# ---- nodes of a graph ---------------------------------------------------------------------------


def node_work(node: Node) -> Work:
    """The work of one node, run on its own."""
    if node.op.view or not node.inputs:
        return Work(node_flops(node), 0)
    return Work(node_flops(node), _sum(_bytes(v) for v in (*node.inputs, *node.outputs)))


def node_flops(node: Node) -> Size:
    """Scalar operations of one node; products count multiply and add."""
    body = node.attrs.get("body")
    if isinstance(body, Graph):
        total = _sum(node_flops(inner) for inner in body.nodes)
        return total * (node.outputs[0].type.shape[0] if node.op.name == "each" else 1)
    if node.op.name in ("matmul", "sifted_matmul"):
        return 2 * dims.product(node.outputs[0].type.shape) * node.inputs[0].type.shape[-1]
    if isinstance(node.op, Convolution):
        shapes = dict(zip(node.op.factors, (v.type.shape for v in (*node.inputs[:2], *node.outputs)), strict=True))
        return 2 * dims.product(shapes["y"]) * dims.product(shapes["w"][1:])
    if node.op.kind == "reduction" and node.inputs:
        return dims.product(node.inputs[0].type.shape) * max(1, int(node.op.flops))
    if node.op.kind in ("elementwise", "contraction"):
        return dims.product(node.outputs[0].type.shape) * max(1, int(node.op.flops))
    return 0


def _bytes(v: Var) -> Size:
    return dims.product(v.type.shape) * v.type.dtype.itemsize
