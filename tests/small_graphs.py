"""Random graphs of ops for the tests of fusion, memory plans and backends: built with the ops, no language around them.

Every value is finite and of moderate size where the leaves are; sizes are dims ``n`` and ``m``, both
or neither of which may be 1 at the call.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from helpers import leaf

from graphc import dims
from graphc.ir import Array, Graph, Var
from graphc.ops import OPS
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.contraction import matmul
from graphc.ops.core import cast, constant
from graphc.ops.movement import expand_dims, reshape, transpose
from graphc.ops.reduction import max as max_
from graphc.ops.reduction import sum as sum_

N, M = dims.dim("n"), dims.dim("m")
SHAPES = ((N, M), (N, M), (M,), (N, 1), ())
UNARY = ("neg", "tanh", "relu", "sqr", "abs", "sin")
BINARY = ("add", "sub", "mul", "maximum", "minimum")


def draw_graph(rng: random.Random, nodes: int) -> Graph:
    """A graph of about so many nodes, with shared values, several outputs, views, reductions and products."""
    leaves = [leaf(f"x{i}", "float64", shape) for i, shape in enumerate(SHAPES)]
    pool: list[Var] = [*leaves, constant(np.array(0.5)), constant(np.array([[2.0]]))]
    for _ in range(nodes):
        pool.append(_node(rng, pool))
    count = rng.randint(1, 4)
    outputs = [rng.choice(pool[-6:]) for _ in range(count)]
    return Graph(leaves, [*outputs, pool[-1]])


def _node(rng: random.Random, pool: Sequence[Var]) -> Var:
    x = rng.choice(pool[-8:]) if rng.random() < 0.8 else rng.choice(pool)
    kind = rng.random()
    if kind < 0.35:
        op: Any = OPS[rng.choice(UNARY)]
        return op(x)  # type: ignore[no-any-return]
    if kind < 0.65:
        others = [v for v in pool if v.type.shape == x.type.shape or v.type.ndim < x.type.ndim or v.type.ndim == 0]
        fitting = [v for v in others if _broadcasts(v, x)]
        y = rng.choice(fitting[-6:] or [x])
        op = OPS[rng.choice(BINARY)]
        return op(*((x, y) if rng.random() < 0.5 else (y, x)))  # type: ignore[no-any-return]
    if kind < 0.72:
        return OPS["where"](OPS["greater"](x, 0.25), x, 1.0)  # type: ignore[operator, no-any-return]
    if kind < 0.78:
        return cast(cast(x, np.dtype("float32")), np.dtype("float64"))
    if kind < 0.88 and x.type.ndim:
        axis = tuple(sorted(rng.sample(range(x.type.ndim), rng.randint(1, x.type.ndim))))
        return (sum_ if rng.random() < 0.6 else max_)(x, axis, keepdims=rng.random() < 0.5)
    if x.type.ndim == 2:
        which = rng.randrange(4)
        if which == 0:
            return transpose(transpose(x, (1, 0)), (1, 0))
        if which == 1:
            return reshape(reshape(x, (-1,)), x.type.shape)
        if which == 2:
            return OPS["tanh"](matmul(matmul(x, transpose(x, (1, 0))), x))  # type: ignore[operator, no-any-return]
    if x.type.ndim == 1:
        return expand_dims(x, (0,))
    return broadcast_to(x, (N, M)) if x.type.ndim == 0 else OPS["neg"](x)  # type: ignore[operator, no-any-return]


def _broadcasts(v: Var, x: Var) -> bool:
    """Does ``v`` broadcast into ``x`` whatever the sizes are?"""
    return v.type.ndim <= x.type.ndim and all(
        a == 1 or a == b for a, b in zip(reversed(v.type.shape), reversed(x.type.shape), strict=False))


def arguments_for(graph: Graph, rng: np.random.Generator, n: int, m: int) -> tuple[list[Array], dict[Any, int]]:
    """Read-only arguments of these sizes, and what the door would say of the dims."""
    env = {s: k for d, k in ((N, n), (M, m)) for s in dims.symbols(d)}
    arrays = []
    for v in (*graph.inputs, *graph.shared):
        a = np.asarray(rng.uniform(-2, 2, [dims.evaluate(s, env) for s in v.type.shape])).astype(v.type.dtype)
        a.setflags(write=False)
        arrays.append(a)
    return arrays, env
