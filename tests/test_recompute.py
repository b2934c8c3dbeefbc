"""The pass ``recompute``: what is computed twice, what is kept, and that values stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import leaf
from test_sweeps import filled, plain

import graphc as gc
from graphc.ir import Graph
from graphc.ops.evaluate import evaluate
from graphc.passes import recompute as recomputing
from graphc.passes.context import Context
from graphc.passes.recompute import recompute
from graphc.verify import verify


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for the gradient."""
    monkeypatch.setattr(recomputing, "KEPT_BYTES", 0)
    monkeypatch.setattr(recomputing, "KEPT_HALVES", 0)


def backward(n: int = 40, weights: bool = False, scores: bool = False, lead: tuple[int, ...] = (), causal: bool = False) -> Graph:
    """Attention with its gradient, written out: the latter reads scores and weights once the value is known."""
    q, k, v = (leaf(name, "float64", (*lead, n, 4)) for name in "qkv")
    s = q @ k.mT
    if causal:
        s = gc.where(gc.expand_dims(gc.arange(n), 1) >= gc.arange(n), s, -np.inf)
    e = gc.exp(s - gc.max(s, axis=-1, keepdims=True))
    w = e / gc.sum(e, axis=-1, keepdims=True)
    y = w @ v
    d = (y + y) @ v.mT
    ds = w * (d - gc.sum(d * w, axis=-1, keepdims=True))
    return Graph([q, k, v], [y, ds @ k, ds.mT @ q, w.mT @ y, *([w] if weights else []), *([s] if scores else [])])


def recomputed(graph: Graph, native: bool = True) -> Graph:
    verify(graph, "input")
    after = recompute(graph, Context(native=native))
    verify(after, "recompute", before=graph)
    return after


def count(graph: Graph, name: str) -> int:
    return sum(node.op.name == name for node in graph.nodes)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_recomputed_values_are_the_same(lead: tuple[int, ...]) -> None:
    graph = backward(lead=lead)
    after = recomputed(graph)
    assert after.inputs == graph.inputs
    assert count(after, "matmul") == count(graph, "matmul") + 1 and count(after, "exp") == count(graph, "exp") + 1
    given = filled(*[(*lead, 40, 4)] * 3)
    for a, b in zip(evaluate(after, given, {}), evaluate(graph, given, {}), strict=True):
        assert a.tobytes() == b.tobytes()
    # once is enough: what is computed again is no longer read late
    assert count(recomputed(after), "matmul") == count(after, "matmul")


def test_numbers_of_each_row_are_kept_for_what_is_no_wide_array() -> None:
    """The division after the product reads the sum, and the exponential the maximum: both are there once. What only wide arrays read late is not kept."""
    q, k, v = (leaf(name, "float64", (40, 4)) for name in "qkv")
    s = q @ k.mT
    top = gc.max(s, axis=-1, keepdims=True)
    e = gc.exp(s - top)
    equal = gc.sum(gc.astype(gc.equal(s, top), "float64"), axis=-1, keepdims=True)
    z = gc.sum(e, axis=-1, keepdims=True)
    y = (e @ v) / z
    d = (y / z) @ v.mT
    graph = Graph([q, k, v], [y, (e * d / equal).mT @ q, e.mT @ y])
    after = recomputed(graph)
    names = ("matmul", "exp", "max", "sum", "equal")
    assert [count(after, name) - count(graph, name) for name in names] == [1, 1, 0, 0, 0]
    readers = [node.inputs for node in after.nodes if node.op.name == "equal"]
    assert all(a.node is not y.node for pair in readers for a in pair)
    given = filled(*[(40, 4)] * 3)
    for a, b in zip(evaluate(after, given, {}), evaluate(graph, given, {}), strict=True):
        assert a.tobytes() == b.tobytes()


def test_nothing_is_recomputed_that_is_small_or_not_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = backward()
    assert recomputed(graph, native=False) is graph
    monkeypatch.setattr(recomputing, "KEPT_BYTES", 40 * 40 * 8)
    assert recomputed(graph) is graph
    monkeypatch.setattr(recomputing, "KEPT_BYTES", 40 * 40 * 8 - 1)
    assert recomputed(graph) is not graph
    # where rows see only the first columns, less is kept
    halved = backward(causal=True)
    monkeypatch.setattr(recomputing, "KEPT_BYTES", 40 * 40 * 8)
    assert recomputed(halved) is not halved
    monkeypatch.setattr(recomputing, "KEPT_HALVES", 40 * 40 * 8)
    assert recomputed(halved) is halved
    # as many columns as sums: no more is read of the result than of the operands
    monkeypatch.setattr(recomputing, "KEPT_BYTES", 0)
    narrow = backward(n=4)
    assert recomputed(narrow) is narrow


def test_roots_are_kept() -> None:
    """What is given away is in memory, so it is read from there."""
    for weights, scores in ((True, False), (False, True), (True, True)):
        graph = backward(weights=weights, scores=scores)
        after = recomputed(graph)
        assert len(after.roots) == len(graph.roots)
        assert count(after, "matmul") == count(graph, "matmul")  # scores or weights are there: no product twice
        if weights:
            assert count(after, "exp") == count(graph, "exp")
        given = filled(*[(40, 4)] * 3)
        for a, b in zip(evaluate(after, given, {}), evaluate(graph, given, {}), strict=True):
            assert a.tobytes() == b.tobytes()


def test_what_only_follows_the_product_is_not_recomputed() -> None:
    """Without a gradient nothing reads it late."""
    q, k, v = (leaf(name, "float64", ("n", 4)) for name in "qkv")
    graph = Graph([q, k, v], [plain(q, k, v)])
    assert recomputed(graph) is graph
