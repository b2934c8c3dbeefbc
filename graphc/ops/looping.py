"""``each``: an inner graph run for i = 0 ... n-1, its results stacked.  What Jacobians are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import here
from graphc.ir import Array, BoundGraph, Graph, Node, Op, Type, Var, leaves, make_node, rebuild
from graphc.ops.core import sized_shape, sized_value
from graphc.ops.evaluate import evaluate_bound
from graphc.ops.indexing import index
from graphc.ops.placeholders import gradient_op
from graphc.ops.reduction import sum as sum_

INT64 = dtypes.DTYPES["int64"]


class Each(Op):
    """``each(*captured, *sizes; body, shape=(n,))``: results of ``body(i, *captured)`` stacked along a new axis 0."""

    name = "each"
    kind = "control"
    nout = -1
    sized = True

    def infer(self, *types: Type, body: Graph, shape: tuple[Size | None]) -> list[Type]:  # type: ignore[override]
        count = sum(s is None for s in shape)
        lead = sized_shape(shape, types[len(types) - count:], self.name)
        return [Type(v.type.dtype, (*lead, *v.type.shape)) for v in body.outputs]

    def forward(self, *arrays: Array, body: BoundGraph, shape: tuple[int | None]) -> list[Array]:  # type: ignore[override]
        captured = arrays[:len(body.graph.inputs) - 1]
        n, = sized_value(shape, arrays[len(captured):], self.name)
        results = [
            np.empty((n, *(dims.evaluate(s, body.env) for s in v.type.shape)), v.type.dtype) if n == 0 else None
            for v in body.graph.outputs]
        for i in range(n):
            for k, value in enumerate(evaluate_bound(body, [np.asarray(i, np.int64), *captured])):
                target = results[k]
                if target is None:
                    target = results[k] = np.empty((n, *value.shape), value.dtype)
                target[i] = value
        return results  # type: ignore[return-value]

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.inputs[position].type.dtype)

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var | None],  # type: ignore[override]
                 attrs: Mapping[str, Any]) -> Var | None:
        """sum over i of the body's own gradient: again an ``each``, whose body holds a gradient placeholder."""
        body: Graph = attrs["body"]
        if position >= len(body.inputs) - 1 or not dtypes.is_inexact(inputs[position].type.dtype):
            return None
        where = here()
        fed = [(v, c) for v, c in zip(body.outputs, cotangents, strict=True) if c is not None]
        inner = [Var(c.type, name="cotangent", scope=where) for _, c in fed]
        i = body.inputs[0]
        slices = [index(d, i) for d in inner]
        g = make_node(gradient_op, [*(v for v, _ in fed), *slices, body.inputs[1 + position]], {"seeds": len(fed)}).outputs[0]
        captured = inputs[:len(body.inputs) - 1]
        sizes = inputs[len(body.inputs) - 1:]
        backward = Graph([*body.inputs, *inner], [g], name=f"{body.name}_grad")
        stacked = make_node(self, [*captured, *(c for _, c in fed), *sizes], {"body": backward, "shape": attrs["shape"]}).outputs[0]
        return sum_(stacked, (0,))


each_op = Each()
OPS: tuple[Op, ...] = (each_op,)


def loop_variable() -> Var:
    """The counter of a loop body: an int64 scalar that means nothing outside."""
    return Var(Type(INT64, ()), name="i", origin=here(), scope=here())


def close(outputs: Sequence[Var], own: Sequence[Var], outside: Sequence[Var], name: str) -> tuple[Graph, list[Var]]:
    """A closed inner graph of ``outputs``: leaves of ``own`` first, then copies of the ``outside`` variables it uses."""
    copies = {v: Var(v.type, name=v.name, origin=v.origin, scope=here()) for v in outside}
    new = rebuild(outputs, copies)
    used = set(leaves(new))
    kept = [v for v in outside if copies[v] in used]
    return Graph([*own, *(copies[v] for v in kept)], new, name=name), kept


__all__ = ["OPS", "close", "each_op", "loop_variable"]
