"""The memory plan: reuse, in-place, views, what is returned; and the checker, which must catch planted errors."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from helpers import leaf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_graphs import arguments_for, draw_graph

from graphc import dims
from graphc.errors import VerificationError
from graphc.ir import Graph, Op, Type, Var, apply
from graphc.ops import OPS
from graphc.ops.contraction import matmul
from graphc.ops.core import constant
from graphc.ops.gathering import nonzero
from graphc.ops.movement import transpose
from graphc.ops.reduction import sum as sum_
from graphc.passes.context import Context
from graphc.passes.fuse import fuse
from graphc.passes.memory import memory
from graphc.plan import Buffer, MemoryPlan, Return
from graphc.verify_plan import verify_plan

add, mul, neg, exp, tanh, sqr, greater = (OPS[k] for k in ("add", "mul", "neg", "exp", "tanh", "sqr", "greater"))
N, M = dims.dim("n"), dims.dim("m")
X, Y = leaf("x", "float64", (N, M)), leaf("y", "float64", (N, M))
W = leaf("W", "float64", (M, M))


def plan_of(inputs: list[Var], outputs: list[Var]) -> MemoryPlan:
    graph = Graph(inputs, outputs)
    plan = memory(graph)
    verify_plan(graph, plan)
    return plan


def places(plan: MemoryPlan) -> dict[str, str]:
    """What each op's first result is placed in."""
    return {plan.values[s.outputs[0]].var.node.op.name: plan.values[s.outputs[0]].place for s in plan.steps}  # type: ignore[union-attr]


def test_a_chain_needs_one_buffer():
    plan = plan_of([X], [sum_(tanh(exp(mul(X, 2.0))))])
    assert len(plan.buffers) == 1 and plan.peak_bytes == 8 * N * M
    assert plan.unplanned_bytes == 24 * N * M
    assert plan.evaluate({N.symbol: 3, M.symbol: 5}) == 120
    assert [plan.values[s.outputs[0]].replaces >= 0 for s in plan.steps] == [False, True, True, False]


def test_buffers_are_shared_by_size_in_bytes_not_by_type():
    plan = plan_of([X], [sum_(greater(exp(X), 0.5).astype("int64"))])  # f64, then bool, then i64: the last takes the first's
    assert [b.nbytes for b in plan.buffers] == [8 * N * M, N * M]


def test_arguments_constants_and_what_is_returned_are_never_overwritten():
    c = constant(np.ones((2, 3)))
    x = leaf("x", "float64", (2, 3))
    y = neg(x)
    plan = plan_of([x], [y, tanh(y), exp(add(c, x))])
    assert places(plan) == {"neg": "output", "tanh": "output", "add": "arena", "exp": "output"}
    assert all(v.replaces < 0 for v in plan.values)
    assert [r.copy for r in plan.returns] == [False, False, False]


def test_an_operand_that_is_read_again_is_not_overwritten():
    y = exp(X)
    plan = plan_of([X], [sum_(add(neg(y), y))])
    by_name = {plan.values[s.outputs[0]].var.node.op.name: plan.values[s.outputs[0]] for s in plan.steps}  # type: ignore[union-attr]
    assert by_name["neg"].replaces == -1
    assert by_name["add"].replaces in (by_name["neg"].id, by_name["exp"].id)


def test_only_the_same_type_is_overwritten():
    plan = plan_of([X], [sum_(OPS["where"](greater(exp(X), 1.0), X, 0.0))])
    assert all(plan.values[v.replaces].type == v.type for v in plan.values if v.replaces >= 0)
    small = leaf("s", "float64", (M,))
    plan = plan_of([X, small], [sum_(mul(exp(small), X))])
    assert all(v.replaces < 0 for v in plan.values)


def test_a_view_keeps_its_memory_alive_and_is_not_overwritten():
    y = exp(W)
    t = transpose(y, (1, 0))
    plan = plan_of([W], [sum_(mul(add(neg(y), 1.0), t))])
    view = next(v for v in plan.values if v.place == "view")
    root = plan.values[view.root]
    assert root.last == view.last
    plan = plan_of([W], [sum_(mul(y, t))])  # y * y.T: overwriting y would change what its transpose shows
    assert all(v.replaces < 0 for v in plan.values)


def test_a_value_used_twice_by_the_step_may_be_overwritten():
    y = exp(X)
    plan = plan_of([X], [sum_(mul(y, y))])
    assert any(v.replaces >= 0 for v in plan.values)


def test_returned_views_and_repeats_are_copied():
    y = exp(X)
    plan = plan_of([X], [X, transpose(X, (1, 0)), y, y, transpose(y, (1, 0)), constant(1.0)])
    assert [r.copy for r in plan.returns] == [True, True, False, True, True, True]
    only = plan_of([X], [transpose(exp(X), (1, 0))])
    assert [r.copy for r in only.returns] == [False] and places(only)["exp"] == "output"
    part = plan_of([X], [apply(OPS["subtensor"], exp(X), index=(0, (None, None, 1)))])
    assert [r.copy for r in part.returns] == [True]  # a row would keep the whole alive


def test_sizes_that_nodes_find_out_and_foreign_ops_are_not_planned():
    v = leaf("v", "float64", (N,))
    found = nonzero(greater(v, 0.0))[0]
    plan = plan_of([v], [sum_(mul(found, 2))])
    assert places(plan)["nonzero"] == "fresh" and places(plan)["mul"] == "fresh" and places(plan)["greater"] == "arena"

    plan = plan_of([X], [sum_(apply(Mine(), exp(X)))])
    assert places(plan)["mine"] == "fresh" and places(plan)["exp"] == "arena"
    plan = plan_of([X], [apply(Mine(), exp(X))])
    assert plan.returns[0].copy


class Mine(Op):
    name = "mine"

    def infer(self, x: Type) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override, type-arg]
        return x


def test_kernels_are_taken_apart_and_what_two_of_them_compute_alike_is_one_value():
    w = leaf("W", "float64", (M, 3))
    shared = neg(X)
    first = matmul(tanh(sqr(shared)), w)
    graph = fuse(Graph([X, w], [first, exp(sqr(mul(shared, sum_(first))))]), Context())
    plan = memory(graph)
    verify_plan(graph, plan)
    assert sum(s.node.op.name == "neg" for s in plan.steps) == 1
    assert len(plan.kernels) == 2 and plan.kernels[0].endswith(": elementwise")
    assert {s.kernel for s in plan.steps} >= {-1, 0, 1}


def test_the_text_is_a_table():
    y = exp(mul(X, 2.0))
    y.name = "scaled"
    plan = plan_of([X], [sum_(tanh(y), (1,)), transpose(X, (1, 0))])
    assert plan.text() == """\
value       type      place    steps
x           f64[n, m] argument start..end
mul_1       f64[n, m] b0       0..1
scaled      f64[n, m] b0       1..2       in place of mul_1
tanh_1      f64[n, m] b0       2..3       in place of scaled
sum_1       f64[n]    output   3..end
transpose_1 f64[m, n] view     4..end     view of x

b0: 8*m*n bytes
arena: 8*m*n bytes in 1 buffer(s); without reuse 24*m*n bytes
copied when returned: transpose_1
"""


def test_unknown_sizes_are_numbered_by_appearance():
    x = leaf("x", "float64", (None, None))
    assert "f64[?0, ?1]" in plan_of([x], [sum_(exp(x))]).text()


# ---- planted errors ---------------------------------------------------------------------------


def _example() -> tuple[Graph, MemoryPlan]:
    y = exp(X)
    t = transpose(tanh(y), (1, 0))
    z = matmul(t, mul(y, Y))
    w = sum_(add(z, 1.0), (0,))
    graph = Graph([X, Y], [w, neg(w), transpose(Y, (1, 0))])
    return graph, memory(graph)


def step(plan: MemoryPlan, name: str) -> int:
    return next(i for i, s in enumerate(plan.steps) if s.node.op.name == name)


def value(plan: MemoryPlan, name: str) -> int:
    return plan.steps[step(plan, name)].outputs[0]


def _same_buffer(plan: MemoryPlan) -> None:
    plan.values[value(plan, "tanh")].buffer = plan.values[value(plan, "exp")].buffer


def _in_place_by_product(plan: MemoryPlan) -> None:
    k = plan.steps[step(plan, "matmul")].inputs[1]
    v = plan.values[value(plan, "matmul")]
    v.var = Var(plan.values[k].type, v.var.node)
    v.buffer = plan.values[k].buffer


def _overwrite_argument(plan: MemoryPlan) -> None:
    v = plan.values[value(plan, "exp")]
    v.place, v.root = "argument", v.id


def _view_that_is_none(plan: MemoryPlan) -> None:
    v = plan.values[value(plan, "tanh")]
    v.place, v.root = "view", plan.values[value(plan, "exp")].root


def _copy_of_a_view(plan: MemoryPlan) -> None:
    v = plan.values[value(plan, "transpose")]
    v.place, v.root = "output", v.id


def _root_in_the_arena(plan: MemoryPlan) -> None:
    v = plan.values[plan.returns[0].value]
    v.place, v.buffer = "arena", len(plan.buffers)
    plan.buffers.append(Buffer(v.buffer, v.nbytes))


def _argument_given_away(plan: MemoryPlan) -> None:
    plan.returns[2] = Return(plan.returns[2].value, False)


def _two_roots_in_one(plan: MemoryPlan) -> None:
    plan.returns[1] = Return(plan.returns[0].value, False)


def _wrong_size(plan: MemoryPlan) -> None:
    plan.buffers[0] = Buffer(0, 8)


def _wrong_order(plan: MemoryPlan) -> None:
    i = step(plan, "tanh")
    plan.steps[i - 1], plan.steps[i] = plan.steps[i], plan.steps[i - 1]


def _wrong_operand(plan: MemoryPlan) -> None:
    i = step(plan, "mul")
    plan.steps[i] = plan.steps[i]._replace(inputs=plan.steps[i].inputs[::-1])


def _step_left_out(plan: MemoryPlan) -> None:
    del plan.steps[step(plan, "add")]


def _missing_buffer(plan: MemoryPlan) -> None:
    plan.values[value(plan, "exp")].buffer = 99


def _root_left_out(plan: MemoryPlan) -> None:
    plan.returns.pop()


def _argument_swapped(plan: MemoryPlan) -> None:
    plan.arguments = plan.arguments[::-1]


PLANTED: list[Callable[[MemoryPlan], None]] = [
    _same_buffer, _in_place_by_product, _overwrite_argument, _view_that_is_none, _copy_of_a_view, _root_in_the_arena, _argument_given_away,
    _two_roots_in_one, _wrong_size, _wrong_order, _wrong_operand, _step_left_out, _missing_buffer, _root_left_out, _argument_swapped]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda f: f.__name__[1:])
def test_the_checker_catches(plant):
    graph, plan = _example()
    verify_plan(graph, plan)
    plant(plan)
    with pytest.raises(VerificationError, match="memory plan"):
        verify_plan(graph, plan)


def test_the_checker_catches_overwriting_what_a_view_shows():
    y = exp(W)
    graph = Graph([W], [sum_(mul(y, transpose(y, (1, 0))))])
    plan = memory(graph)
    product = plan.values[value(plan, "mul")]
    product.buffer = plan.values[value(plan, "exp")].buffer
    with pytest.raises(VerificationError, match="overwrites"):
        verify_plan(graph, plan)


def test_the_checker_catches_an_arena_for_a_size_found_by_a_node():
    v = leaf("v", "float64", (N,))
    graph = Graph([v], [sum_(mul(nonzero(greater(v, 0.0))[0], 2))])
    plan = memory(graph)
    product = plan.values[value(plan, "mul")]
    product.place, product.buffer = "arena", len(plan.buffers)
    plan.buffers.append(Buffer(product.buffer, product.nbytes))
    with pytest.raises(VerificationError, match="found out by a node"):
        verify_plan(graph, plan)


def test_the_checker_catches_an_effect_that_happens_twice():
    class Effect(Mine):
        pure = False

    graph = Graph([X], [sum_(apply(Effect(), X))])
    plan = memory(graph)
    plan.steps.append(plan.steps[0]._replace(outputs=(len(plan.values),)))
    extra = type(plan.values[0])(len(plan.values), plan.steps[0].node.outputs[0], "fresh", 2)
    plan.values.append(extra)
    with pytest.raises(VerificationError, match="effects"):
        verify_plan(graph, plan)


# ---- random graphs ----------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**9), fused=st.booleans())
def test_random_plans_are_right(seed, fused):
    graph = draw_graph(random.Random(seed), 30)
    if fused:
        graph = fuse(graph, Context())
    plan = memory(graph)
    verify_plan(graph, plan)
    _, env = arguments_for(graph, np.random.default_rng(0), 3, 2)
    assert 0 <= plan.evaluate(env) <= dims.evaluate(plan.unplanned_bytes, env)


@settings(max_examples=60, deadline=None)
@example(seed=47936)
@given(seed=st.integers(0, 10**9))
def test_random_mistakes_are_caught_or_harmless(seed):
    """Two arena values of one size get one buffer: the checker says no unless they never live at the same time."""
    rng = random.Random(seed)
    graph = draw_graph(rng, 20)
    plan = memory(graph)
    arena = [v for v in plan.values if v.place == "arena"]
    pairs = [(a, b) for a in arena for b in arena if a.id < b.id and a.buffer != b.buffer and a.nbytes == b.nbytes]
    if not pairs:
        return
    a, b = rng.choice(pairs)
    made: dict[int, object] = {}  # the same for values that are the same expression, however deep
    known: dict[object, object] = {}
    for step in plan.steps:
        what = (step.node.key, tuple([made.get(k, k) for k in step.inputs]))
        for n, k in enumerate(step.outputs):
            made[k] = known.setdefault((what, n), (len(known), n, "made"))
    if made[a.id] == made[b.id]:
        return  # one buffer does no harm
    b.buffer = a.buffer
    overlap = b.first < a.last and any(plan.values[k].root == a.id for s in plan.steps[b.first + 1:] for k in s.inputs)
    if overlap:
        with pytest.raises(VerificationError):
            verify_plan(graph, plan)


def test_planning_is_linear_enough_for_thirty_thousand_nodes():
    y, z = X, X
    for i in range(15_000):
        y = neg(y)
        z = add(z, y) if i % 3 else exp(z)
    graph = Graph([X], [z])
    plan = memory(graph)
    verify_plan(graph, plan)
    assert len(plan.buffers) <= 4
