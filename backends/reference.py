"""The reference: node by node, in plain NumPy, by ``op.forward``.  Slow, simple, and what every other backend is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.backends import Options, reraise
from graphc.dims import Symbol
from graphc.errors import NaNError
from graphc.ir import Array, Graph, Node, Var, rebuild
from graphc.ops.control import fused_op, inline
from graphc.ops.evaluate import run_node
from graphc.plan import MemoryPlan, is_foreign

MISSING: dict[str, str] = {}
TAKES = "graph"


class ReferenceRunner:
    """Walks the graph.  With ``check_nan`` each result is looked at, within fused kernels too."""

    def __init__(self, graph: Graph, options: Options) -> None:
        if options.check_nan:
            graph = unfused(graph)
        self.graph, self.check_nan = graph, options.check_nan
        self.nodes = graph.nodes
        self.source = f"# {options.name}: the reference evaluator walks {len(self.nodes)} nodes, one NumPy call each; no source is generated\n"

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        graph = self.graph
        values: dict[Var, Array] = dict(zip((*graph.inputs, *graph.shared), arguments, strict=True))
        for node in self.nodes:
            operands = [values[v] for v in node.inputs]
            try:
                results = run_node(node, operands, env)
            except Exception as error:
                reraise(error, node, operands)
            if self.check_nan:
                check_nan(node, operands, results)
            values.update(zip(node.outputs, results, strict=True))
        return own([values[v] for v in graph.roots], values, graph)


def own(results: Sequence[Array], values: Mapping[Var, Array], graph: Graph) -> list[Array]:
    """The results in memory that nobody else has: copied where an argument, a constant or another result may share it."""
    held = {id(values[v]) for v in (*graph.inputs, *graph.shared)}
    given: list[Array] = []
    for v, result in zip(graph.roots, results, strict=True):
        foreign = v.node is not None and is_foreign(v.node.op)
        if foreign or result.base is not None or not result.flags.writeable or id(result) in held:
            result = result.copy()
        held.add(id(result))
        given.append(result)
    return given


def unfused(graph: Graph) -> Graph:
    """The graph with fused kernels taken apart."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        return inline(node.attrs["body"], inputs) if node.op is fused_op else None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def check_nan(node: Node, operands: Sequence[Array], results: Sequence[Array]) -> None:
    """NaNError if a result has a NaN and no operand has; it shows the operands at the first one."""
    for k, result in enumerate(results):
        bad = _nan(result)
        if bad is None or any(_nan(a) is not None for a in operands):
            continue
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        which = f"result {k} " if len(results) > 1 else ""
        raise NaNError(f"{node.op.name} made a NaN at index {index} of its {which or 'result '}({node.outputs[k].type}, shape {result.shape}) "
                       f"out of operands without NaN: {'; '.join(_at(a, index, result.ndim) for a in operands) or 'none'}", node.origin)


def _nan(a: Array) -> Array | None:
    """Where the NaNs are; None if there are none."""
    if a.dtype.kind not in "fc" and a.dtype.name != "bfloat16":
        return None
    with np.errstate(all="ignore"):
        bad = np.asarray(a != a)
    return bad if bool(bad.any()) else None


def _at(a: Array, index: tuple[int, ...], rank: int) -> str:
    """The operand's element that broadcasting puts at the index, where that makes sense; else its shape."""
    if a.ndim <= rank:
        place = tuple(0 if n == 1 else i for i, n in zip(index[rank - a.ndim:], a.shape, strict=True))
        if all(i < n for i, n in zip(place, a.shape, strict=True)):
            return f"{a[place]!r}"
    return f"an array of shape {a.shape}"


def compile(graph: Graph, plan: MemoryPlan | None, options: Options) -> ReferenceRunner:
    """A runner for the graph as it is; the plan is not needed."""
    return ReferenceRunner(graph, options)
