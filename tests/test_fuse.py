"""Fusion: what is grouped, what is not, that values keep their bits, that no cycle arises, that time is linear."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import leaf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import arguments_for, draw_graph

import graphc as gc
from graphc import dims
from graphc.errors import GraphcTypeError
from graphc.ir import Graph, Node, Op, Type, Var, apply, make_node
from graphc.kernel import Kernel, Launch
from graphc.ops import OPS
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.contraction import matmul
from graphc.ops.control import fused_op, inline
from graphc.ops.core import cast, constant
from graphc.ops.evaluate import evaluate
from graphc.ops.reduction import max as max_
from graphc.ops.reduction import sum as sum_
from graphc.passes.context import Context
from graphc.passes.fuse import _Spans, fuse

add, mul, neg, exp, div, sqr, tanh, sub = (OPS[k] for k in ("add", "mul", "neg", "exp", "div", "sqr", "tanh", "sub"))


def fused(inputs: list[Var], outputs: list[Var]) -> tuple[Graph, Context]:
    context = Context()
    return fuse(Graph(inputs, outputs), context), context


def kernels(graph: Graph) -> list[tuple[str, str, list[str]]]:
    """name, kind and ops of each kernel."""
    return [(n.attrs["body"].name, n.attrs["kind"], [k.op.name for k in n.attrs["body"].nodes]) for n in graph.nodes if n.op is fused_op]


def names(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes]


X = leaf("x", "float64", (dims.dim("n"), dims.dim("m")))
B = leaf("b", "float64", (dims.dim("m"),))
S = leaf("s", "float64", ())


def test_a_chain_is_one_kernel_with_its_constants_inside():
    graph, context = fused([X, B], [tanh(add(mul(X, 2.0), B))])
    assert kernels(graph) == [("mul_add_tanh", "elementwise", ["constant", "mul", "add", "tanh"])]
    node, = graph.nodes
    assert [v.name for v in node.inputs] == ["x", "b"]
    assert [r.rule for r in context.log] == ["fuse"]


def test_a_diamond_is_one_kernel():
    y = exp(X)
    graph, _ = fused([X], [mul(neg(y), tanh(y))])
    assert [k[1:] for k in kernels(graph)] == [("elementwise", ["exp", "neg", "tanh", "mul"])]
    assert len(graph) == 1


def test_one_node_stays_a_node():
    graph, context = fused([X], [exp(X)])
    assert names(graph) == ["exp"] and context.log == []


def test_what_a_product_needs_is_one_more_result_of_the_kernel_that_computes_it():
    h = exp(mul(X, 2.0))
    w = leaf("W", "float64", (dims.dim("m"), 3))
    y = matmul(h, w)
    graph, _ = fused([X, w], [y, mul(h, neg(h))])
    assert sorted(names(graph)) == ["fused", "matmul"]
    kernel, = [n for n in graph.nodes if n.op is fused_op]
    assert len(kernel.outputs) == 2


def test_no_kernel_needs_what_is_computed_from_it():
    h = exp(mul(X, 2.0))
    w = leaf("W", "float64", (dims.dim("m"), dims.dim("m")))
    graph, _ = fused([X, w], [mul(h, matmul(tanh(h), w))])
    assert names(graph) == ["fused", "matmul", "mul"] and len(graph.nodes[0].outputs) == 2


def test_a_root_of_the_kernels_shape_becomes_one_more_result():
    y = exp(X)
    graph, _ = fused([X], [y, tanh(y)])
    node, = graph.nodes
    assert len(node.outputs) == 2 and [v.index for v in graph.outputs] == [0, 1]


def test_a_cheap_value_is_computed_again_an_expensive_one_is_stored():
    def two_kernels(shared: Var) -> Graph:
        w = leaf("W", "float64", (dims.dim("m"), 3))
        first = matmul(tanh(sqr(shared)), w)  # one kernel for sure, the other cannot join it through the product
        return fused([X, w], [first, exp(sqr(mul(shared, sum_(first))))])[0]

    cheap = two_kernels(neg(X))
    assert sum(k[2].count("neg") for k in kernels(cheap)) == 2 and "neg" not in names(cheap)
    dear = two_kernels(exp(X))
    assert sum(k[2].count("exp") for k in kernels(dear)) + names(dear).count("exp") == 2  # itself once, and the other one


def test_a_smaller_value_is_stored_rather_than_computed_per_element():
    graph, _ = fused([X, B], [mul(X, exp(tanh(B)))])
    assert names(graph) == ["fused", "mul"]  # exp(tanh(b)) has m elements, the product n*m


def test_a_scalar_is_computed_within_the_kernel():
    graph, _ = fused([X, S], [mul(X, exp(neg(S)))])
    assert names(graph) == ["fused"]


def test_scalar_chains_are_kernels():
    graph, _ = fused([S], [div(exp(S), add(S, 1.0))])
    assert [k[1] for k in kernels(graph)] == ["elementwise"] and len(graph) == 1


def test_a_reduction_takes_its_prologue_and_its_epilogue():
    graph, _ = fused([X], [div(sum_(sqr(sub(X, 1.0)), (1,)), 3.0)])
    assert kernels(graph) == [("sub_sqr_sum_div", "reduction", ["constant", "sub", "sqr", "sum", "constant", "div"])]


def test_reductions_of_one_operand_along_the_same_axes_share_a_kernel():
    y = exp(X)
    graph, _ = fused([X], [div(sum_(mul(y, X), (1,)), sum_(y, (1,)))])
    assert len(graph) == 1 and kernels(graph)[0][2].count("sum") == 2


def test_reductions_that_keep_different_loops_do_not():
    w = leaf("w", "float64", (4, 5))
    graph, _ = fused([w], [tanh(sub(w, sum_(w, (0,)))), sub(w, sum_(w, (1,), keepdims=True))])
    assert all(k[2].count("sum") <= 1 for k in kernels(graph)) and sum(k[2].count("sum") for k in kernels(graph)) + names(graph).count("sum") == 2


def test_softmax_is_one_kernel():
    shifted = exp(sub(X, max_(X, (1,), keepdims=True)))
    graph, _ = fused([X], [div(shifted, sum_(shifted, (1,), keepdims=True))])
    assert [k[1:] for k in kernels(graph)] == [("reduction", ["max", "sub", "exp", "sum", "div"])] and len(graph) == 1


def test_a_large_sum_that_all_elements_need_stays_apart():
    big = leaf("w", "float64", (1000, 1000))
    graph, _ = fused([big], [sub(big, sum_(big, (0, 1)))])
    assert names(graph) == ["sum", "sub"]
    small = leaf("w", "float64", (10, 10))
    graph, _ = fused([small], [sub(small, sum_(small, (0, 1)))])
    assert names(graph) == ["fused"]


def test_readers_of_one_operand_share_a_kernel():
    graph, _ = fused([X], [sum_(X, (0,)), sum_(sqr(X), (1,))])
    assert len(graph) == 1 and len(graph.outputs) == 2


def test_broadcast_to_is_an_access_pattern():
    graph, _ = fused([X, B], [mul(exp(X), broadcast_to(B, X.type.shape))])
    assert kernels(graph) == [("exp_mul", "elementwise", ["exp", "broadcast_to", "mul"])]
    alone, _ = fused([X, B], [matmul(X, broadcast_to(B, (dims.dim("m"), dims.dim("m"))))])
    assert names(alone) == ["broadcast_to", "matmul"]


class Effect(Op):
    name, kind, pure = "effect", "elementwise", False

    def infer(self, x: Type) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override, type-arg]
        return x


def test_effects_stay_outside():
    graph, _ = fused([X], [neg(apply(Effect(), exp(X)))])
    assert names(graph) == ["exp", "effect", "neg"]


def test_names_and_origins_are_kept():
    y = add(exp(X), B)
    y.name = "logits"
    graph, _ = fused([X, B], [y])
    node, = graph.nodes
    assert graph.outputs[0].name == "logits"
    assert node.origin.file == __file__ and node.origin.rules == ("fuse",)
    assert all(part.origin.file == __file__ and part.origin.rules == () for part in node.attrs["body"].nodes)


def test_the_bodys_types_are_checked():
    graph, _ = fused([X, B], [tanh(add(X, B))])
    attrs = graph.nodes[0].attrs
    with pytest.raises(GraphcTypeError, match="takes 2 operand"):
        make_node(fused_op, [X], attrs)
    with pytest.raises(GraphcTypeError, match="f32"):
        make_node(fused_op, [cast(X, np.dtype("float32")), B], attrs)
    with pytest.raises(GraphcTypeError, match="'elementwise'"):
        make_node(fused_op, [X, B], {**attrs, "kind": "gather"})


def test_inline_takes_a_kernel_apart():
    graph, _ = fused([X, B], [tanh(add(X, B))])
    node: Node = graph.nodes[0]
    y, = inline(node.attrs["body"], node.inputs)
    assert [k.op.name for k in Graph([X, B], [y]).nodes] == ["add", "tanh"]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**9), n=st.sampled_from([1, 2, 5]), m=st.sampled_from([1, 3]))
def test_random_graphs_keep_their_bits(seed, n, m):
    graph = draw_graph(random.Random(seed), 25)
    after = fuse(graph, Context())
    arrays, env = arguments_for(graph, np.random.default_rng(seed), n, m)
    for want, have in zip(evaluate(graph, arrays, env), evaluate(after, arrays, env), strict=True):
        assert want.dtype == have.dtype and want.tobytes() == have.tobytes()
    for node in after.nodes:
        if node.op is fused_op:
            body = node.attrs["body"]
            assert len(body.nodes) >= 2 and len(body.inputs) == len(set(body.inputs))
            assert set(Graph([], body.outputs).shared) == set()


def test_thirty_thousand_nodes_do_not_recurse():
    y, z = X, X
    for i in range(15_000):
        y = neg(y) if i % 50 else exp(y)
        z = add(z, constant(1.0)) if i % 7 else mul(z, y)
    graph, _ = fused([X], [add(y, z)])
    assert 1 <= len(graph) < 30_000


def test_from_where_earlier_nodes_are_reached() -> None:
    """Through kernels that have members on both sides, one after the other."""
    spans = _Spans(20)
    assert spans.last(4) == 4
    for members in ([9, 3], [15, 12, 8], [17, 16], [6, 5]):
        spans.note(members)
    assert [spans.last(n) for n in (0, 2, 3, 5, 11, 16, 19)] == [0, 2, 15, 15, 15, 17, 19]


# ---- one way through memory ---------------------------------------------------------------------


def loops(g: Callable[..., Any], shapes: tuple[str, ...], **sizes: int | None) -> list[Kernel]:
    """The kernels of ``g`` for operands of these axes, whose results are those of the reference; a size is known or not."""
    pytest.importorskip("llvmlite")
    axes = {letter: sizes.get(letter) or gc.dim(letter) for letter in sorted(set("".join(shapes)))}
    xs = [gc.tensor(name, shape=tuple(axes[r] for r in letters), dtype="float32") for name, letters in zip("xyzuvw", shapes, strict=False)]
    y = g(*xs)
    f = gc.function(xs, y, mode=gc.Mode(backend="llvm"), threads=1)
    rng = np.random.default_rng(0)
    arrays = [(rng.normal(size=[sizes.get(r) or 30 + ord(r) % 7 for r in letters]) / 5).astype("float32") for letters in shapes]
    found, want = f(*arrays), gc.function(xs, y, mode=gc.Mode(backend="reference"))(*arrays)
    for a, b in zip(found if isinstance(found, list) else [found], want if isinstance(want, list) else [want], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    program = f._compiled.program
    assert program is not None
    return [step.kernel for step in program.steps if isinstance(step, Launch)]


def across(kernel: Kernel) -> list[str]:
    """The matrices that are read or written otherwise than along the vector's range."""
    return [kernel.operands[v.operand].name for v in kernel.values
            if v.index is not None and len(v.index.terms) > 1 and dict(v.index.terms).get(kernel.vector) != 1]


KNOWN = {"a": 64, "b": 48, "c": 80, "d": 56}
LAYOUTS: dict[str, tuple[Callable[..., Any], tuple[str, ...], int]] = {
    "two products": (lambda x, y, z: x @ (y @ z), ("ab", "bc", "c"), 2),
    "one matrix twice": (lambda x, y: x @ (x @ y), ("aa", "a"), 2),
    "three products": (lambda x, y, z, u: x @ (y @ (z @ u)), ("ab", "bc", "cd", "d"), 3),
    "in a row": (lambda x, y, z: (x @ y) @ z, ("c", "cb", "ba"), 2),
    "by columns": (lambda x, y, z: x @ (y.T @ z), ("ab", "cb", "c"), 2),
    "both turned": (lambda x, y, z: x.T @ (y.T @ z), ("ba", "cb", "c"), 2),
    "layers": (lambda x, y, z: gc.tanh(x @ gc.tanh(y @ z)), ("ab", "bc", "c"), 2),
    "cheap layers": (lambda x, y, z: gc.nn.relu(x @ gc.nn.relu(y @ z)), ("ab", "bc", "c"), 2),
    "two sums": (lambda x, y, z, u: gc.tanh(x @ y + z @ u), ("ab", "b", "ac", "c"), 2),
    "two sums of one length": (lambda x, y, z, u: gc.tanh(x @ y + z @ u), ("ab", "b", "ab", "b"), 1),
    "rows and columns": (lambda x, y, z, u: x @ y + z.T @ u, ("ab", "b", "ca", "c"), 2),
    "outer product": (lambda x, y, z: x[:, None] * (y @ z), ("a", "bc", "c"), 2),
    "rows of another": (lambda x, y: x / gc.sum(y, axis=1), ("ab", "bc"), 2),
    "heads": (lambda x, y, z, u: [gc.tanh(x @ gc.tanh(z @ u)), gc.tanh(y @ gc.tanh(z @ u))], ("ab", "cb", "bd", "d"), 3),
}


@pytest.mark.parametrize("sizes", [KNOWN, {}], ids=["known", "unknown"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_large_arrays_are_read_along_memory(name: str, sizes: dict[str, int]) -> None:
    g, shapes, count = LAYOUTS[name]
    found = loops(g, shapes, **sizes)
    assert [across(k) for k in found] == [[]] * count


@pytest.mark.parametrize("sizes", [KNOWN, {}], ids=["known", "unknown"])
def test_gradients_too(sizes: dict[str, int]) -> None:
    for g, shapes, largest in (
        (lambda x, y, z: gc.grad(gc.sum(gc.tanh(x @ (y @ z))), z), ("ab", "bc", "c"), 4),
        (lambda x, y, z: gc.grad(gc.sum(gc.tanh(x @ (y @ z))), [x, y, z]), ("ab", "bc", "c"), 6),
        (lambda x, y: gc.grad(y @ x @ y, y), ("aa", "a"), 3),
        (lambda x, y, z, u: gc.grad(gc.sum(gc.tanh(x @ y + z @ u)), [x, y, z, u]), ("ab", "b", "ac", "c"), 7),
    ):
        found = loops(g, shapes, **sizes)
        assert not any(map(across, found)) and len(found) <= largest


def test_small_matrices_stay_in_one_kernel() -> None:
    assert len(loops(lambda x, y, z: x @ (y @ z), ("ab", "bc", "c"), a=16, b=16, c=16)) == 1


@pytest.mark.parametrize("sizes", [{"a": 100, "b": 20}, {}], ids=["known", "unknown"])
def test_what_reads_one_array_shares_a_kernel(sizes: dict[str, int]) -> None:
    def regression(beta: Var, x: Var, y: Var) -> list[Var]:
        eta = x @ beta
        density = gc.sum(y * eta - gc.softplus(eta))
        return [density, gc.grad(density, beta)]

    found = loops(regression, ("b", "ab", "a"), **sizes)
    assert len(found) == 1 and not across(found[0])
    shared: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
        (lambda x, y: x.T @ (x @ y), ("ab", "b")),
        (lambda x, y, z: [x @ y, x.T @ z], ("ab", "b", "a")),
        (lambda x, y, z: x.T @ (gc.exp(x @ y) * (x @ z)), ("ab", "b", "b")),
        (lambda x: gc.nn.softmax(x), ("ab",)),
        (lambda x: gc.nn.softmax(x, axis=0), ("ab",)),
        (lambda x: gc.nn.softmax(x.T), ("ab",)),
    )
    for g, shapes in shared:
        assert len(loops(g, shapes, **sizes)) == 1
