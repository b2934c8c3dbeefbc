"""What a compiled function costs: FLOPs, bytes, peak memory before it runs; time per kernel while it does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.errors import GraphcValueError
from graphc.ir import Array, Graph, Node, Var
from graphc.ops.evaluate import evaluate


def cost(f: Any, sizes: Mapping[str, int]) -> dict[str, Any]:
    """FLOPs, bytes moved and peak bytes of a compiled function.

    Args:
        f: a compiled function.
        sizes: numbers for its named dims; those that are missing stay symbols in the result.

    Returns:
        ``{"flops": ..., "bytes": ..., "peak_bytes": ...}``: ints where all dims are given, else formulas.
        ``bytes`` counts each kernel's operands and results once; ``peak_bytes`` is the memory plan's arena.
    """
    graph: Graph = f.graph
    known: dict[Symbol, Size] = {}
    names = {s.name: s for v in (*graph.inputs, *graph.shared) for size in v.type.shape for s in dims.symbols(size) if s.name}
    for name, value in sizes.items():
        if name not in names:
            raise GraphcValueError(f"cost: no dim is named {name!r}; the dims are: {', '.join(sorted(names)) or 'none'}")
        known[names[name]] = value
    flops: Size = 0
    moved: Size = 0
    for node in graph.nodes:
        flops = flops + node_flops(node)
        if not node.op.view and node.inputs:
            moved = moved + sum((_bytes(v) for v in (*node.inputs, *node.outputs)), start=0)
    plan = f._compiled.plan
    peak: Size = plan.peak_bytes if plan is not None else 0
    return {key: dims.substitute(size, known) for key, size in (("flops", flops), ("bytes", moved), ("peak_bytes", peak))}


def node_flops(node: Node) -> Size:
    """Scalar operations of one node; products count multiply and add."""
    body = node.attrs.get("body")
    if isinstance(body, Graph):
        total: Size = 0
        for inner in body.nodes:
            total = total + node_flops(inner)
        return total * (node.outputs[0].type.shape[0] if node.op.name == "each" else 1)
    if node.op.name == "matmul":
        return 2 * dims.product(node.outputs[0].type.shape) * node.inputs[0].type.shape[-1]
    if node.op.kind == "reduction" and node.inputs:
        return dims.product(node.inputs[0].type.shape) * max(1, int(node.op.flops))
    if node.op.kind in ("elementwise", "contraction"):
        return dims.product(node.outputs[0].type.shape) * max(1, int(node.op.flops))
    return 0


def _bytes(v: Var) -> Size:
    return dims.product(v.type.shape) * v.type.dtype.itemsize


class Profile:
    """Time per kernel: ``print(f.profile)``.  Profiled functions run kernel by kernel, so calls are slower."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.calls, self.seconds = graph, 0, 0.0
        self.nodes: dict[Node, float] = dict.fromkeys(graph.nodes, 0.0)

    @staticmethod
    def attach(compiled: Any) -> Profile:
        """Make the compiled function's door run through a profile."""
        profile = Profile(compiled.graph)
        compiled.door.runner = profile.run
        return profile

    def run(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        started = last = time.perf_counter()

        def watch(node: Node, operands: Sequence[Array], results: Sequence[Array]) -> None:
            nonlocal last
            now = time.perf_counter()
            self.nodes[node] += now - last
            last = now

        values = evaluate(self.graph, arguments, env, watch)
        self.calls += 1
        self.seconds += time.perf_counter() - started
        return [np.array(v) for v in values]

    def __str__(self) -> str:
        lines = [f"{self.calls} calls, {self.seconds:.6f} s"]
        for node, seconds in sorted(self.nodes.items(), key=lambda item: -item[1])[:40]:
            share = 100 * seconds / self.seconds if self.seconds else 0.0
            lines.append(f"{share:5.1f} % {seconds:10.6f} s  {node.op.name:<16} {node.outputs[0].type!s:<24} {node.origin}")
        return "\n".join(lines)
