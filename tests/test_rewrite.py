"""The engine: value numbering, folding, one visit per node, budgets, what is carried over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import dims
from graphc.dtypes import DTYPES
from graphc.errors import InternalError
from graphc.ir import Graph, Op, Type, Var, apply, make_node
from graphc.ops.arithmetic import add, div, mul, neg, sub, where
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.comparison import less
from graphc.ops.core import cast, constant, constant_value, size_of_op
from graphc.ops.creation import iota
from graphc.ops.evaluate import evaluate
from graphc.ops.looping import close, each_op, loop_variable
from graphc.ops.reduction import sum as sum_
from graphc.ops.transcendental import exp, log, log1p, sigmoid, sqrt
from graphc.passes.context import Context
from graphc.passes.fold import fold
from graphc.passes.merge import merge
from graphc.passes.pattern import Rule
from graphc.passes.rewrite import BUDGET, Sweep, explain, in_shape_of, rewrite
from graphc.passes.rules import BY_NAME, CANONICAL, RULES
from graphc.passes.simplify import simplify
from graphc.passes.stabilise import stabilise


def leaf(*shape: Any, dtype: str = "float64", name: str | None = None) -> Var:
    return Var(Type(DTYPES[dtype], tuple(dims.fresh("data") if s is None else dims.as_size(s) for s in shape)), name=name)


def ops(graph: Graph) -> list[str]:
    return [n.op.name for n in graph.nodes if n.op.name != "constant"]


class Draw(Op):
    """An op with an effect: two draws are two draws."""

    name = "draw"
    pure = False

    def infer(self, *types: Type, **_: Any) -> Type:
        return Type(DTYPES["float64"], ())

    def forward(self, *arrays: Any, **_: Any) -> Any:
        return np.asarray(4.0)


# ---- merge --------------------------------------------------------------------------------------


def test_equal_expressions_become_one() -> None:
    x, y = leaf("n"), leaf("n")
    graph = merge(Graph([x, y], [add(exp(x), y), mul(exp(x), exp(x))]), Context())
    assert sorted(ops(graph)) == ["add", "exp", "mul"]


def test_commutative_operands_count_in_either_order_but_stand_as_written() -> None:
    x, y = leaf(), leaf()
    graph = merge(Graph([x, y], [sub(add(y, x), mul(add(x, y), sub(x, y))), sub(y, x)]), Context())
    assert sorted(ops(graph)) == ["add", "mul", "sub", "sub", "sub"]
    node = next(n for n in graph.nodes if n.op is add)
    assert node.inputs[0] is y and node.inputs[1] is x


def test_constants_are_merged_by_their_bits() -> None:
    x = leaf()
    values = [0.0, -0.0, 0.0, float("nan"), float("nan"), 1.0]
    big = np.arange(2000.0)
    roots = [add(x, constant(v)) for v in values] + [add(x, constant(big)), add(x, constant(big.copy())), add(x, constant(big + 1))]
    graph = merge(Graph([x], roots), Context())
    assert len([n for n in graph.nodes if n.op.name == "constant"]) == 4 + 2
    assert graph.outputs[0] is graph.outputs[2] and graph.outputs[0] is not graph.outputs[1]


def test_attributes_and_dtypes_keep_nodes_apart() -> None:
    x = leaf(3, 3)
    graph = merge(Graph([x], [sum_(x, (0,)), sum_(x, (1,)), cast(x, DTYPES["float32"]), cast(x, DTYPES["int8"]), sum_(x, (0,))]), Context())
    assert len(graph) == 4


def test_effects_never_merge_and_never_fold() -> None:
    draw = Draw()
    graph = Graph([], [add(apply(draw), apply(draw))])
    for run in (merge, fold, simplify, stabilise):
        assert ops(run(graph, Context())).count("draw") == 2, run.__name__


def test_what_no_root_needs_is_gone() -> None:
    x = leaf("n")
    part = where(True, x, exp(log(x)))
    assert len(simplify(Graph([x], [part]), Context())) == 0


def test_a_merge_is_logged_and_sizes_found_by_nodes_agree_afterwards() -> None:
    n = leaf(dtype="int64")
    graph = Graph([n], [add(iota(n), iota(n))])
    context = Context()
    merged = merge(graph, context)
    assert [r.rule for r in context.log] == ["merge"]
    assert ops(merged) == ["iota", "add"]
    assert merged.outputs[0].type == merged.nodes[0].outputs[0].type  # one size, where there were two


def test_inner_graphs_are_merged_and_simplified_too() -> None:
    x = leaf(3)
    i = loop_variable()
    body, captured = close([mul(add(exp(x), neg(neg(x))), exp(x))], [i], [x], "body")
    graph = Graph([x], [make_node(each_op, captured, {"body": body, "shape": (4,)}).outputs[0]])
    merged = merge(graph, Context())
    assert ops(merged.nodes[0].attrs["body"]).count("exp") == 1
    simple = simplify(graph, Context())
    assert "neg" not in ops(simple.nodes[0].attrs["body"])
    value = np.array([0.5, -1.0, 2.0])
    assert np.array_equal(evaluate(graph, [value], {})[0], evaluate(simple, [value], {})[0])


# ---- fold ---------------------------------------------------------------------------------------


def test_constants_are_folded_with_nan_and_without_warnings() -> None:
    x = leaf()
    bad = div(constant(0.0), constant(0.0))
    graph = fold(Graph([x], [add(x, bad), log(constant(-1.0)), exp(constant(1e9))]), Context())
    assert ops(graph) == ["add"]
    assert np.isnan(evaluate(graph, [np.asarray(1.0)], {})[0])
    value = constant_value(graph.outputs[2])
    assert value is not None and np.isinf(value) and not value.flags.writeable


def test_nothing_is_made_larger_than_what_it_replaces() -> None:
    big = broadcast_to(constant(0.0), (1000, 1000))
    assert ops(fold(Graph([], [exp(big)]), Context())) == ["broadcast_to", "exp"]
    assert ops(fold(Graph([], [iota(100)]), Context(fold_limit=799))) == ["iota"]
    assert ops(fold(Graph([], [iota(100)]), Context(fold_limit=800))) == []
    vector = constant(np.arange(1000.0))
    assert ops(fold(Graph([], [exp(vector)]), Context(fold_limit=0))) == []  # as large as before
    assert ops(fold(Graph([], [add(vector, constant(np.zeros((1000, 1))))]), Context())) == ["add"]
    assert ops(fold(Graph([], [broadcast_to(constant(1.0), (2,))]), Context())) == ["broadcast_to"]  # repeating gains nothing


def test_sizes_that_are_not_known_yet_are_not_folded() -> None:
    n = dims.dim("n")
    graph = fold(Graph([leaf("n")], [add(iota(n), 1), iota(4)]), Context())
    assert ops(graph) == ["iota", "add"]


def test_an_error_in_forward_belongs_to_the_call() -> None:
    class Fails(Op):
        name = "fails"

        def infer(self, *types: Type, **_: Any) -> Type:
            return types[0]

        def forward(self, *arrays: Any, **_: Any) -> Any:
            raise RuntimeError("not now")

    graph = fold(Graph([], [apply(Fails(), constant(1.0))]), Context())
    assert ops(graph) == ["fails"]
    with pytest.raises(RuntimeError, match="not now"):
        evaluate(graph, [], {})


def test_folding_goes_on_inside_one_sweep() -> None:
    x = leaf("n")
    graph = simplify(Graph([x], [add(x, sub(mul(constant(2.0), 3.0), 6.0 + 0.0))]), Context())
    assert ops(graph) == ["add"]  # x + 0.0 stays: x may be -0.0
    graph = simplify(Graph([x], [mul(x, sub(constant(3.0), 2.0))]), Context())
    assert ops(graph) == []


# ---- the sweep ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [(), CANONICAL, RULES], ids=["none", "canonical", "all"])
def test_a_long_chain_is_visited_once_per_node_and_without_recursion(rules: tuple[Rule, ...]) -> None:
    x, y = leaf("n"), leaf("n")
    v: Any = x
    for _ in range(50_000):
        v = add(mul(v, y), x)
    sweep = Sweep(rules, Context(), fold=True)
    graph = Graph([x, y], [v])
    assert sweep.graph(graph).outputs[0] is v  # nothing to do: not even a copy
    assert sweep.visits == 100_000


def test_visits_grow_with_firings_only() -> None:
    x = leaf()
    counts = []
    for n in (100, 1000):
        v: Any = x
        for _ in range(n):
            v = log(add(1.0, exp(neg(neg(v)))))
        sweep = Sweep(RULES, Context(), fold=True)
        graph = sweep.graph(Graph([x], [v]))
        assert ops(graph) == ["softplus"] * n
        counts.append(sweep.visits)
    assert counts[1] == 10 * counts[0]


def test_a_graph_shared_sixty_times_over_stays_linear() -> None:
    x = leaf()
    v: Any = x
    for _ in range(60):
        v = add(neg(neg(v)), v)
    context = Context()
    assert len(rewrite(Graph([x], [v]), CANONICAL, context)) == 60
    assert len(context.log) == 60


def test_rules_that_undo_each_other_are_named() -> None:
    there = Rule("there", lambda a, b: sub(a, b), lambda a, b: add(a, neg(b)), note="wrong way")
    x = leaf()
    with pytest.raises(InternalError, match="there, add_neg"):
        rewrite(Graph([x], [sub(exp(x), x)]), (there, BY_NAME["add_neg"]), Context())


def test_a_rule_that_grows_without_end_is_stopped() -> None:
    grow = Rule("grow", lambda x: exp(x), lambda x: exp(add(x, 1.0)), note="wrong")
    context = Context()
    with pytest.raises(InternalError, match=f"more than {BUDGET} times for one node: grow"):
        rewrite(Graph([x := leaf()], [exp(x)]), (grow,), context)
    assert len(context.log) == BUDGET


def test_a_rule_that_gives_back_what_it_got_is_refused() -> None:
    same = Rule("same", root=("exp",), fn=lambda node: node.outputs[0], note="wrong")
    with pytest.raises(InternalError, match="rule same gives back"):
        rewrite(Graph([x := leaf()], [exp(x)]), (same,), Context())


def test_a_rule_that_changes_the_dtype_is_refused() -> None:
    wide = Rule("wide", lambda x: exp(x), lambda x: cast(x, DTYPES["float64"]), note="wrong")
    with pytest.raises(InternalError, match=r"rule wide makes f64\[\] out of f32\[\]"):
        rewrite(Graph([x := leaf(dtype="float32")], [exp(x)]), (wide,), Context())


def test_level_exclude_and_order() -> None:
    x = leaf()
    graph = Graph([x], [exp(log(x))])
    assert ops(rewrite(graph, RULES, Context())) == ["log", "exp"]
    assert ops(rewrite(graph, RULES, Context(level="fast"))) == []
    assert ops(rewrite(graph, RULES, Context(level="fast", exclude=frozenset({"fast_exp_log"})))) == ["log", "exp"]
    first = Rule("first", lambda x: exp(x), lambda x: neg(x), note="")
    second = Rule("second", lambda x: exp(x), lambda x: sqrt(x), note="")
    assert ops(rewrite(Graph([x], [exp(x)]), (first, second), Context())) == ["neg"]
    assert ops(rewrite(Graph([x], [exp(x)]), (second, first), Context())) == ["sqrt"]


# ---- what is carried over -----------------------------------------------------------------------


def test_names_lines_and_history_are_carried() -> None:
    x = leaf("n", name="x")
    v = log(add(1.0, x))
    v.name = "loss"
    where_it_stood = v.origin
    graph = stabilise(Graph([x], [v]), Context())
    new = graph.outputs[0]
    assert new.node is not None and new.node.op is log1p
    assert new.name == "loss" and new.origin[:2] == where_it_stood[:2] and new.origin.rules == ("log1p",)
    again = rewrite(graph, (Rule("back", lambda x: log1p(x), lambda x: log(add(1.0, x)), note=""),), Context())
    assert again.outputs[0].origin.rules == ("log1p", "back")
    assert [n.origin[:2] for n in again.nodes] == [where_it_stood[:2]] * 3  # the constant too


def test_what_the_user_made_is_not_renamed() -> None:
    x = leaf(name="x")
    inner = exp(x)
    outer = neg(neg(inner))
    outer.name = "y"
    graph = simplify(Graph([x], [outer]), Context())
    assert graph.outputs[0] is inner and inner.name is None and x.name == "x"


def test_the_log_says_what_became_of_what() -> None:
    x = leaf()
    v = add(x, neg(exp(x)))
    context = Context()
    graph = simplify(Graph([x], [v]), context)
    assert [(r.rule, r.old) for r in context.log] == [("add_neg", v)]
    assert context.log[0].new.type == v.type and graph.outputs[0].node is not None and graph.outputs[0].node.op is sub


def test_updates_and_inputs_stay_where_they_are() -> None:
    x = leaf(name="x")
    w = gc.shared(1.0, "w")
    graph = Graph([x], [neg(neg(x))], [(w, mul(add(w, neg(x)), 1.0))], name="step")
    new = simplify(graph, Context())
    assert new.inputs == graph.inputs and new.outputs[0] is x and new.name == "step"
    assert new.updates[0][0] is w and ops(new) == ["sub"]


# ---- shapes -------------------------------------------------------------------------------------


def test_a_result_keeps_its_shape() -> None:
    x, n = leaf("n"), dims.dim("n")
    for v, shape in ((mul(x, constant(np.ones((3, 1)))), (3, n)), (sub(x, broadcast_to(constant(0.0), (2, 1))), (2, n))):
        graph = simplify(Graph([x], [v]), Context())
        assert ops(graph) == ["broadcast_to"] and graph.outputs[0].type.shape == shape == v.type.shape


def test_a_size_that_a_node_finds_out_is_read_from_an_operand() -> None:
    x, mask = leaf(), leaf(None)
    graph = simplify(Graph([x, mask], [where(less(mask, mask), x, x)]), Context())
    assert ops(graph) == ["size_of", "broadcast_to"]
    value, = evaluate(graph, [np.asarray(2.0), np.zeros(5)], {})
    assert value.shape == (5,) and np.all(value == 2.0)


def test_a_rule_is_not_applied_where_the_size_cannot_be_had() -> None:
    size = dims.fresh("data")
    old = exp(Var(Type(DTYPES["float64"], (size,))))
    assert old.node is not None
    new = in_shape_of(leaf(), old)
    assert new is not None and [n.op for n in Graph([], [new]).nodes[:1]] == [size_of_op]
    lost = make_node(sum_(leaf(3, 3), (0,)).node.op, [leaf(3, 3)], {"axis": (0,), "keepdims": False}).outputs[0]  # type: ignore[union-attr]
    lost.type = Type(DTYPES["float64"], (size,))
    assert in_shape_of(leaf(), lost) is None


def test_patterns_see_constants_of_any_shape_and_dtype() -> None:
    for dtype in ("float32", "float64", "float16"):
        x = leaf("n", dtype=dtype)
        ones = constant(np.ones((1,), dtype))
        spread = broadcast_to(constant(np.ones((), dtype)), (dims.dim("n"),))
        for one in (1, ones, spread):
            assert ops(stabilise(Graph([x], [log(add(x, one))]), Context())) == ["log1p"]
    assert ops(stabilise(Graph([x], [log(add(x, constant(np.array([1.0, 2.0]))))]), Context())) != ["log1p"]


# ---- stabilising what users write -----------------------------------------------------------------

WRITTEN = {
    "1 / (1 + exp(-x))": (lambda x: 1 / (1 + gc.exp(-x)), ["sigmoid"]),
    "1 / (1 + exp(-2x))": (lambda x: 1 / (1 + gc.exp(-(2 * x))), ["mul", "sigmoid"]),
    "log(1 - sigmoid(x))": (lambda x: gc.log(1 - gc.sigmoid(x)), ["softplus", "neg"]),
    "log(1 - 1 / (1 + exp(-x)))": (lambda x: gc.log(1 - 1 / (1 + gc.exp(-x))), ["softplus", "neg"]),
    "log(sigmoid(x))": (lambda x: gc.log(gc.sigmoid(x)), ["neg", "softplus", "neg"]),
    "-1 + exp(x)": (lambda x: -1 + gc.exp(x), ["expm1"]),
    "log(1 - exp(x))": (lambda x: gc.log(1 - gc.exp(x)), ["log1mexp"]),
    "log(exp(x) + 1)": (lambda x: gc.log(gc.exp(x) + 1.0), ["softplus"]),
    "exp(x) / (exp(x) + 1)": (lambda x: gc.exp(x) / (gc.exp(x) + 1), ["sigmoid"]),
    "softmax, restored by [:, None]": (lambda x: gc.exp(x) / gc.sum(gc.exp(x), axis=1)[:, None], ["softmax"]),
    "softmax, restored by reshape": (lambda x: gc.exp(x) / gc.sum(gc.exp(x), axis=1).reshape((-1, 1)), ["softmax"]),
    "softmax, keepdims": (lambda x: gc.exp(x) / gc.exp(x).sum(axis=1, keepdims=True), ["softmax"]),
    "log of that": (lambda x: gc.log(gc.exp(x) / gc.exp(x).sum(axis=1, keepdims=True)), ["log_softmax"]),
    "x - log(sum(exp(x)))": (lambda x: x - gc.log(gc.sum(gc.exp(x), axis=1, keepdims=True)), ["log_softmax"]),
    "log(sum(exp(x)))": (lambda x: gc.log(gc.sum(gc.exp(x), axis=(0, 1))), ["logsumexp"]),
    "log(softmax(x))[i, y]": (lambda x: gc.log(gc.softmax(x, axis=1))[0, 1], ["log_softmax", "subtensor"]),
    "sqrt(x ** 2)": (lambda x: gc.sqrt(x ** 2), ["abs"]),
    "(1 + erf(x)) / 2": (lambda x: (1 + gc.erf(x)) / 2, ["neg", "erfc", "mul"]),
    "x / exp(x)": (lambda x: x / gc.exp(x), ["neg", "exp", "mul"]),
    "0 - softmax over the wrong axis": (lambda x: gc.exp(x) / gc.sum(gc.exp(x), axis=1), ["exp", "sum", "div"]),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("before", [(), (fold, simplify)], ids=["alone", "after simplify"])
def test_what_users_write_is_recognised(written: str, before: Any) -> None:
    build, wanted = WRITTEN[written]
    for dtype in ("float32", "float64"):
        x = gc.tensor("x", shape=(3, 3), dtype=dtype)
        graph = Graph([x], [build(x)])
        for run in before:
            graph = run(graph, Context())
        found = stabilise(graph, Context())
        assert ops(found) == wanted and found.outputs[0].type == graph.outputs[0].type


# ---- explanations -------------------------------------------------------------------------------


def test_explain_says_where_a_rule_fires_and_why_it_does_not() -> None:
    x, y = leaf("n", name="x"), leaf("n", name="y")
    graph = Graph([x, y], [log(add(1.0, exp(x))), log(add(2.0, exp(x))), log(y), log(add(1.0, sqrt(y)))])
    sites = explain(graph, BY_NAME["softplus"])
    assert [s.reason for s in sites].count(None) == 1 and sites[0].reason is None
    assert "1.0 expected, got 2.0" in str(sites[1].reason)
    assert "made by other ops" in str(sites[2].reason)
    assert "exp expected, got the result of sqrt" in str(sites[3].reason)


def test_explain_knows_conditions_levels_and_procedures() -> None:
    x = leaf("n", dtype="float32")
    v = div(x, 3.0)
    assert explain(Graph([x], [v]), BY_NAME["div_power_of_two"])[0].reason == "3.0 is no power of two"
    assert "level" in str(explain(Graph([x], [v]), BY_NAME["fast_div_constant"])[0].reason)
    assert explain(Graph([x], [v]), BY_NAME["fast_div_constant"], Context(level="fast"))[0].reason is None
    assert "excluded" in str(explain(Graph([x], [v]), BY_NAME["fast_div_constant"], Context(exclude=frozenset({"fast_div_constant"})))[0].reason)
    twice = cast(cast(x, DTYPES["int8"]), DTYPES["float32"])
    assert "int8 does not hold all values of float32" in [str(s.reason) for s in explain(Graph([x], [twice]), BY_NAME["cast_cast"])]
    assert "not for" in str(explain(Graph([x], [sigmoid(x), sub(x, x)]), BY_NAME["int_sub_self"])[0].reason)
