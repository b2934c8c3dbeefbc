"""Evaluate a graph node by node with ``op.forward``: the oracle, the folder, the inner graphs of ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.dims import Symbol
from graphc.errors import GraphcError, GraphcTypeError, InternalError
from graphc.ir import Array, BoundGraph, Graph, Node, Var, concrete, normal

#: called after each node with the node, its operands and its results
Watch = Callable[[Node, Sequence[Array], Sequence[Array]], None]


def run_node(node: Node, operands: Sequence[Array], env: Mapping[Symbol, int]) -> tuple[Array, ...]:
    """The values of a node's results; an error names the op and the user's line."""
    try:
        results = normal(node.op.forward(*operands, **concrete(node.attrs, env)))
    except GraphcError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{np.asarray(a).dtype}{list(np.shape(a))}" for a in operands)
        error.add_note(f"in {node.op.name}({shapes}), made at {node.origin}")
        raise
    if len(results) != len(node.outputs):
        raise InternalError(f"{node.op.name}.forward gave {len(results)} results; its types say {len(node.outputs)}", node.origin)
    values = tuple(np.asarray(r) for r in results)
    for value, v in zip(values, node.outputs, strict=True):
        if value.dtype != v.type.dtype or value.ndim != v.type.ndim:
            kind = GraphcTypeError if node.op.kind == "custom" else InternalError
            raise kind(f"{node.op.name}.forward gave {value.dtype}{list(value.shape)} where infer says {v.type}", node.origin)
    return values


def evaluate(graph: Graph, arguments: Sequence[Array], env: Mapping[Symbol, int], watch: Watch | None = None) -> list[Array]:
    """The values of ``graph.roots``.  ``arguments``: one array per input, then one per shared variable."""
    values: dict[Var, Array] = dict(zip((*graph.inputs, *graph.shared), arguments, strict=True))
    for node in graph.nodes:
        operands = [values[v] for v in node.inputs]
        results = run_node(node, operands, env)
        if watch is not None:
            watch(node, operands, results)
        values.update(zip(node.outputs, results, strict=True))
    return [values[v] for v in graph.roots]


def evaluate_bound(body: BoundGraph, arguments: Sequence[Array]) -> list[Array]:
    """The outputs of an inner graph, as a ``forward`` gets it."""
    return evaluate(body.graph, arguments, body.env)
