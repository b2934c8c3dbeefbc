"""The NumPy backend: the bits of the reference for every op and for random graphs, memory of its own, threads, errors."""

from __future__ import annotations

import random
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from helpers import draw, intervals, leaf, same_bits, sizes_of, special
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import arguments_for, draw_graph

from graphc import backends, dims
from graphc.backends import Options
from graphc.backends import numpy_source as source_module
from graphc.backends.numpy_source import NumpyRunner
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError, NaNError, here
from graphc.ir import Array, Graph, Op, Type, Var, apply, leaves, make_node
from graphc.ops import OPS
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.contraction import matmul
from graphc.ops.core import cast, constant
from graphc.ops.elementwise_base import Elementwise
from graphc.ops.indexing import take
from graphc.ops.movement import reshape, transpose
from graphc.ops.reduction import sum as sum_
from graphc.passes.context import Context
from graphc.passes.fuse import fuse
from graphc.passes.memory import memory
from graphc.plan import is_foreign
from graphc.verify_plan import verify_plan

add, mul, neg, exp, div, log, tanh, cos = (OPS[k] for k in ("add", "mul", "neg", "exp", "div", "log", "tanh", "cos"))
N, M = dims.dim("n"), dims.dim("m")
X, B = leaf("x", "float64", (N, M)), leaf("b", "float64", (M,))
RNG = np.random.default_rng(2)


def compiled(graph: Graph, fused: bool = True, **options: Any) -> NumpyRunner:
    if fused:
        graph = fuse(graph, Context())
    plan = memory(graph)
    verify_plan(graph, plan)
    return backends.load("numpy").compile(graph, plan, Options(**options))  # type: ignore[return-value]


def reference(graph: Graph, arrays: Sequence[Array], env: Any) -> list[Array]:
    return backends.load("reference").compile(graph, None, Options())(arrays, env)


def agree(graph: Graph, arrays: Sequence[Array], env: Any, fused: bool = True) -> NumpyRunner:
    """Twice with the same buffers, against the reference; the arguments are read-only."""
    for a in arrays:
        a.setflags(write=False)
    runner = compiled(graph, fused)
    want = reference(graph, arrays, env)
    first = runner(arrays, env)
    kept = [a.copy() for a in first]
    second = runner(arrays, env)
    for w, f, k, s, root in zip(want, first, kept, second, graph.roots, strict=True):
        assert isinstance(f, np.ndarray) and f.dtype == root.type.dtype and f.ndim == root.type.ndim
        assert same_bits(w, f) and same_bits(w, s), (root.node, w, f)
        assert f.tobytes() == k.tobytes()  # the second call did not write into the first one's result
        assert f.flags.writeable and not any(np.may_share_memory(f, a) for a in (*arrays, *second))
    return runner


# ---- every op ---------------------------------------------------------------------------------


def operands(op: Op, shapes: Sequence[Any], names: Any, domain: Any) -> list[Array]:
    kinds = [names] * len(shapes) if isinstance(names, str) else list(names)
    return [draw(RNG, s, k, *d) for s, k, d in zip(shapes, kinds, intervals(domain, len(shapes)), strict=True)]


#: attributes of the elementwise ops that have some
ATTRS: dict[str, dict[str, Any]] = {"polygamma": {"order": 2}}
ELEMENTWISE = [op for op in OPS.values() if isinstance(op, Elementwise)]
OTHERS = [(op, i) for op in OPS.values() for i in range(len(op.examples))]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_elementwise_ops(op):
    for dtype in ("float32", "complex128", "int32", "bool", "float16"):
        kind = np.dtype(dtype).kind
        names = ["bool", dtype, dtype] if op.name == "where" else [dtype] * op.nin
        if kind not in op.accepts:
            continue
        for shapes in ([(3, 2)] * op.nin, [(3, 1), (2,), ()][:op.nin], [()] * op.nin, [(0, 2)] * op.nin):
            xs = [leaf(f"x{i}", k, (None,) * len(s)) for i, (s, k) in enumerate(zip(shapes, names, strict=True))]
            y = make_node(op, xs, ATTRS.get(op.name)).outputs[0]
            outputs = [y, _after(y)]  # once returned, once in the arena and on
            arrays = operands(op, shapes, tuple(names), op.domain)
            agree(Graph(xs, outputs), arrays, sizes_of(xs, arrays))
        with np.errstate(all="ignore"):
            awkward = [special(k)[:: 1 + 6 * (len(special(k)) > 64)] for k in names]
        if op.nin == 2 and op.name not in ("left_shift", "right_shift"):
            awkward = [awkward[0][:, None], awkward[1][None, :]]
        elif op.nin > 1:
            continue
        xs = [leaf(f"x{i}", k, (None,) * a.ndim) for i, (a, k) in enumerate(zip(awkward, names, strict=True))]
        y = make_node(op, xs, ATTRS.get(op.name)).outputs[0]
        agree(Graph(xs, [y]), awkward, sizes_of(xs, awkward))
        agree(Graph(xs, [reshape(y, (-1,))]), awkward, sizes_of(xs, awkward))


def _after(y: Var) -> Var:
    """Something computed from ``y`` alone that does not return it."""
    return OPS["logical_not"](y) if y.type.dtype.kind == "b" else add(y, y)  # type: ignore[operator, no-any-return]


@pytest.mark.parametrize("op, i", OTHERS, ids=[f"{op.name}-{i}" for op, i in OTHERS])
def test_other_ops_by_their_examples(op, i):
    example = op.examples[i]
    arrays = operands(op, example.shapes, example.dtypes, example.domain)
    for unknown in (False, True):
        xs = [leaf(f"x{k}", a.dtype, (None,) * a.ndim if unknown else a.shape) for k, a in enumerate(arrays)]
        results = make_node(op, xs, example.attrs).outputs
        agree(Graph(xs, [*results, *map(_after, results)]), arrays, sizes_of(xs, arrays))
    turned = [np.array(a, order="F") for a in arrays]  # other strides
    xs = [leaf(f"x{k}", a.dtype, a.shape) for k, a in enumerate(turned)]
    agree(Graph(xs, make_node(op, xs, example.attrs).outputs), turned, {})


def test_results_share_memory_with_operands_only_where_the_op_says_so():
    """What the plan believes of ``Op.view``: a result that is the operand in disguise would be overwritten."""
    for op, i in OTHERS:
        example = op.examples[i]
        arrays = operands(op, example.shapes, example.dtypes, example.domain)
        results = op.forward(*arrays, **example.attrs)
        shares = any(np.may_share_memory(r, a) for r in ir_normal(results) for a in arrays)
        assert not shares or op.view or is_foreign(op), op.name
    for op in ELEMENTWISE:
        names = ["bool", "float64", "float64"] if op.name == "where" else [{"f": "float64", "c": "complex128", "i": "int64", "b": "bool"}[
            next(k for k in "ficb" if k in op.accepts)]] * op.nin
        arrays = operands(op, [(3,)] * op.nin, tuple(names), op.domain)
        result = op.forward(*arrays, **ATTRS.get(op.name, {}))
        assert not any(np.may_share_memory(result, a) for a in arrays), op.name


def ir_normal(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, (list, tuple)) else (results,)


# ---- random graphs ----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9), n=st.sampled_from([1, 2, 5]), m=st.sampled_from([1, 3]), fused=st.booleans())
def test_random_graphs_give_the_bits_of_the_reference(seed, n, m, fused):
    graph = draw_graph(random.Random(seed), 25)
    arrays, env = arguments_for(graph, np.random.default_rng(seed), n, m)
    agree(graph, arrays, env, fused)


def test_a_graph_of_many_nodes_becomes_several_functions(monkeypatch):
    monkeypatch.setattr(source_module, "PART", 7)
    parts = 0
    for seed in range(12):
        graph = draw_graph(random.Random(seed), 40)
        arrays, env = arguments_for(graph, np.random.default_rng(seed), 3, 2)
        parts += agree(graph, arrays, env).source.count("def part_")
    assert parts > 20


def test_ten_thousand_nodes():
    y = X
    for i in range(5_000):
        y = tanh(add(y, B)) if i % 2 else mul(y, constant(0.5))
    graph = Graph([X, B], [sum_(y)])
    arrays, env = arguments_for(graph, RNG, 2, 2)
    agree(graph, arrays, env)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8"])
def test_choosing_without_branches(dtype):
    """Enough elements for ``select``: into a new buffer, over either operand, with a zero, over NaNs."""
    n = leaf("c", "bool", (N, M)), leaf("a", dtype, (N, M)), leaf("b", dtype, (N, M)), leaf("s", dtype, (M,))
    c, a, b, s = n
    where, twice = OPS["where"], lambda v: add(v, v)
    zero = constant(np.zeros((), dtype))
    graphs = [
        where(c, a, b), where(c, twice(a), b), where(c, a, twice(b)), where(c, twice(a), twice(b)), where(c, a, zero), where(c, twice(a), zero),
        where(c, zero, twice(b)), where(c, s, twice(b)), where(c, twice(a), s), where(c, twice(s), zero), where(c, twice(a), neg(twice(a)))]
    if dtype != "int8":
        graphs.append(where(c, a, constant(np.array(-0.0, dtype))))
    values = special(dtype)
    arrays = [RNG.random((40, 50)) < 0.5, RNG.choice(values, (40, 50)), RNG.choice(values, (40, 50)), RNG.choice(values, 50)]
    for y in graphs:
        agree(Graph(n, [reshape(y, (-1,))]), arrays, {N.symbol: 40, M.symbol: 50})
        agree(Graph(n, [twice(y)]), arrays, {N.symbol: 40, M.symbol: 50})


def test_sum_to_where_the_types_say_the_axes():
    three = leaf("x", "float64", (2, N, M))
    for x in (three, leaf("x", "float64", (2, 3, M))):
        for shape in [(N, M), (M,), (), (2, 1, M), (1, 1, M), (1, M), (N, 1), (1, 1, 1)]:
            if x.type.shape[1] == 3:
                shape = tuple(3 if s == N else s for s in shape)
            y = apply(OPS["sum_to"], x, shape=shape)
            for n, m in ((3, 2), (3, 1), (3, 0)):
                arrays = [RNG.normal(size=(2, n, m))]
                env = {N.symbol: n, M.symbol: m}
                agree(Graph([x], [y]), arrays, env)
                agree(Graph([x], [neg(neg(apply(OPS["sum_to"], exp(x), shape=shape)))]), arrays, env)


def test_broadcasts_that_need_not_be_made():
    wide = broadcast_to(B, (N, M))
    cases = [
        (neg(tanh(wide)), True), (mul(wide, X), True), (mul(wide, broadcast_to(leaf("s", "float64", ()), (N, M))), False), (wide, False),
        (sum_(wide), False), (OPS["where"](OPS["less"](wide, 0.0), X, X), True), (add(neg(mul(wide, wide)), sum_(wide)), False)]
    for y, implicit in cases:
        others = [v for v in leaves([y]) if v.name == "s"]
        graph = Graph([X, B, *others], [y])
        arrays, env = arguments_for(graph, RNG, 3, 2)
        runner = agree(graph, arrays, env, fused=False)
        assert ("broadcast_to_1 = b " in runner.source) == implicit, runner.source


# ---- memory -----------------------------------------------------------------------------------


def test_results_are_nobody_elses():
    y = exp(X)
    c = constant(np.ones(3))
    graph = Graph([X, B], [X, transpose(X, (1, 0)), y, y, transpose(y, (1, 0)), c, reshape(tanh(X), (-1,)), neg(B)])
    arrays, env = arguments_for(graph, RNG, 3, 2)
    runner = agree(graph, arrays, env)
    results = runner(arrays, env)
    assert not any(np.may_share_memory(a, b) for i, a in enumerate(results) for b in results[:i])
    results[5][:] = 7  # the constant of the graph is not touched
    assert runner(arrays, env)[5].tolist() == [1, 1, 1]


class Keeper(Op):
    """A user's op of the worst kind: it gives back its operand, or an array that it keeps."""

    name = "keeper"
    kept = np.zeros((2, 2))

    def infer(self, x: Type, *, keep: bool) -> Type:  # type: ignore[override]
        return x

    def forward(self, x: Array, *, keep: bool) -> Array:  # type: ignore[override]
        if keep:
            self.kept[...] = x
            return self.kept
        return x


@pytest.mark.parametrize("keep", [False, True])
def test_what_a_users_op_gives_back_is_not_written_to(keep):
    x = leaf("x", "float64", (2, 2))
    y = apply(Keeper(), exp(x), keep=keep)
    graph = Graph([x], [y, mul(neg(tanh(mul(x, 3.0))), neg(y)), add(y, 1.0)])
    agree(graph, [RNG.normal(size=(2, 2))], {})
    results = compiled(graph)([np.zeros((2, 2))], {})
    results[0][:] = 5
    assert (Keeper.kept != 5).all()


def test_sizes_change_from_call_to_call():
    graph = Graph([X, B], [sum_(tanh(add(exp(X), B)), (1,))])
    runner = compiled(graph)
    for n, m in [(2, 3), (5, 1), (0, 4), (3, 0), (2, 3), *((k, 2) for k in range(40))]:
        arrays, env = arguments_for(graph, np.random.default_rng(n), n, m)
        assert same_bits(runner(arrays, env)[0], reference(graph, arrays, env)[0])
    assert len(runner.sets) <= source_module.MOST_SIZES


def test_buffers_are_bounded_and_used_again(monkeypatch):
    monkeypatch.setattr(source_module, "MOST_BYTES", 1000)
    graph = Graph([X], [sum_(tanh(exp(X)))])
    runner = compiled(graph)
    for n in (3, 3, 3, 4, 5, 100, 3):
        arrays, env = arguments_for(graph, RNG, n, 10)
        runner(arrays, env)
        assert sum(len(s) for s in runner.sets.values()) <= 4
    before = runner.sets[(10, 3)] if (10, 3) in runner.sets else next(iter(runner.sets.values()))
    kept = before[0]
    runner(*arguments_for(graph, RNG, 3, 10))
    assert next(iter(runner.sets.values()))[0] is kept


def test_threads_never_share_buffers():
    """A user's op in the middle of the graph makes the calls meet there, each with its own values in its buffers."""
    meet = threading.Barrier(3, timeout=20)

    class Meeting(Op):
        name = "meeting"

        def infer(self, x: Type) -> Type:  # type: ignore[override]
            return x

        def forward(self, x: Array) -> Array:  # type: ignore[override]
            meet.wait()
            return x.copy()

    y = exp(X)
    graph = Graph([X], [sum_(mul(add(apply(Meeting(), neg(y)), y), y), (1,)), add(y, 1.0)])
    runner = compiled(graph)
    cases = [([np.full((4, 3), float(k))], {N.symbol: 4, M.symbol: 3}) for k in range(3)]
    results: dict[int, list[list[Array]]] = {0: [], 1: [], 2: []}
    threads = [threading.Thread(target=lambda k=k: [results[k].append(runner(*cases[k])) for _ in range(5)])
               for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k, (arrays, _) in enumerate(cases):
        e = np.exp(arrays[0])
        assert len(results[k]) == 5
        for r in results[k]:
            assert same_bits(r[0], np.add.reduce((-e + e) * e, axis=1)) and same_bits(r[1], e + 1.0)


def test_a_call_within_a_call():
    inner: list[Any] = []

    class Again(Op):
        name = "again"

        def infer(self, x: Type) -> Type:  # type: ignore[override]
            return x

        def forward(self, x: Array) -> Array:  # type: ignore[override]
            if x[0, 0] > 1:
                return inner[0]([x - 1], {N.symbol: 1, M.symbol: 1})[0]  # type: ignore[no-any-return]
            return x.copy()

    y = mul(X, 2.0)
    graph = Graph([X], [add(mul(apply(Again(), mul(y, 0.5)), y), 0.0)])
    inner.append(compiled(graph))
    assert inner[0]([np.array([[3.0]])], {N.symbol: 1, M.symbol: 1})[0].item() == 3 * 2 * 2 * 2 * 1 * 2


# ---- the source -------------------------------------------------------------------------------


def test_the_source_is_readable():
    w = leaf("W", "float32", (M, 10))
    x = leaf("x", "float32", (N, M))
    y = tanh(add(matmul(x, w), 0.5))
    graph = Graph([x, w], [sum_(y, (1,))])
    line = here().line - 2
    assert compiled(graph, name="layer").source == f"""\
# layer: 4 step(s), 1 kernel(s); 40*n bytes of buffers
c0 = np.array(0.5, np.float32)


def allocate(n):
    memory0 = np.empty(40*n, np.uint8)
    return (
        np.ndarray((n, 10), np.float32, memory0),  # buf0
    )


def step(x, W, buf):
    buf0, = buf
    matmul_1 = np.matmul(x, W, out=buf0)  # f32[n, 10]  test_numpy_backend.py:{line}

    # kernel add_tanh_sum: reduction
    add_1 = np.add(matmul_1, c0, out=buf0)  # f32[n, 10]  test_numpy_backend.py:{line}
    tanh_1 = np.tanh(add_1, out=buf0)  # f32[n, 10]  test_numpy_backend.py:{line}
    sum_1 = np.add.reduce(tanh_1, axis=(1,))  # f32[n]  test_numpy_backend.py:{line + 1}
    return [sum_1]
"""


def test_names_of_the_user_never_clash_with_those_of_the_source():
    bad = ["np", "buf", "env", "v", "step", "max", "lambda", "exp", "buf0", "c0", "n", "add_1", "allocate", "x", "x", "é", "_x", "a b"]
    leaves = [leaf(name, "float64", (N, M)) for name in bad]
    total: Var = constant(1.0)
    for v in leaves:
        total = add(OPS["relu"](exp(v)), total)  # type: ignore[operator]
        total.name = v.name
    graph = Graph(leaves, [sum_(total), make_node(OPS["max"], [total], {"axis": (0,), "keepdims": False}).outputs[0]])
    arrays, env = arguments_for(graph, RNG, 2, 3)
    agree(graph, arrays, env)


def test_constants_keep_their_bits():
    values = [np.array(v, t) for t in ("float64", "float32", "float16") for v in (0.1, -0.0, np.inf, -np.inf, np.nan, 1e-40, 1 / 3)]
    values += [np.array(True), np.array(2**63 - 1), np.array(2**64 - 1, np.uint64), np.array(complex(-0.0, np.inf)), np.array([1.5, -0.0])]
    graph = Graph([], [constant(v) for v in values])
    for want, have in zip(values, compiled(graph)([], {}), strict=True):
        assert want.dtype == have.dtype and want.tobytes() == have.tobytes()


def test_inner_graphs_as_attributes_run():
    i = leaf("i", "int64", ())
    body = Graph([i, B], [mul(B, cast(i, np.dtype("float64")))])
    y = make_node(OPS["each"], [B], {"body": Graph([body.inputs[0], body.inputs[1]], body.outputs), "shape": (N,)}).outputs[0]
    graph = Graph([X, B], [y])
    arrays, env = arguments_for(graph, RNG, 3, 2)
    agree(graph, arrays, env)


# ---- errors -----------------------------------------------------------------------------------


def test_an_error_is_told_at_the_users_line():
    i = leaf("i", "int64", (N,))
    graph = Graph([X, i], [take(exp(X), i, 0)])
    line = here().line - 1
    runner = compiled(graph, name="picker")
    with pytest.raises(GraphcIndexError, match="out of bounds") as caught:
        runner([np.zeros((2, 2)), np.array([5, 0])], {N.symbol: 2, M.symbol: 2})
    assert caught.value.where == (__file__, line, ())
    shown = "".join(traceback.format_exception(caught.value))
    assert "source of picker" in shown and "advanced_subtensor(" in shown  # the generated line is in the traceback
    with pytest.raises(IndexError) as same:
        reference(graph, [np.zeros((2, 2)), np.array([5, 0])], {N.symbol: 2, M.symbol: 2})
    assert isinstance(same.value, GraphcIndexError) and same.value.where == caught.value.where


def test_errors_of_users_ops_keep_their_kind():
    class Broken(Op):
        name = "broken"

        def __init__(self, error: Exception) -> None:
            self.error = error

        def infer(self, x: Type) -> Type:  # type: ignore[override]
            return x

        def forward(self, x: Array) -> Array:  # type: ignore[override]
            raise self.error

    for error, kind in ((ValueError("no"), GraphcValueError), (TypeError("no"), GraphcTypeError), (KeyError("no"), KeyError)):
        runner = compiled(Graph([X], [apply(Broken(error), X)]))
        with pytest.raises(kind) as caught:
            runner([np.zeros((1, 1))], {})
        assert "broken" in "".join(traceback.format_exception(caught.value))
        assert runner.sets == {}


def test_what_a_users_op_gives_is_checked():
    class Liar(Op):
        name = "liar"

        def __init__(self, result: Any) -> None:
            self.result = result

        def infer(self, x: Type) -> Type:  # type: ignore[override]
            return x

        def forward(self, x: Array) -> Any:  # type: ignore[override]
            return self.result

    for result, kind in ((np.zeros(2), TypeError), (np.zeros((1, 1), "f"), TypeError), (np.zeros((1, 2)), ValueError), ([np.zeros((1, 1))] * 2, TypeError)):
        with pytest.raises(kind, match="liar"):
            compiled(Graph([X], [apply(Liar(result), X)]))([np.zeros((1, 1))], {N.symbol: 1, M.symbol: 1})


def test_a_size_that_nobody_knows():
    k = dims.dim("k")
    graph = Graph([], [apply(OPS["broadcast_to"], constant(1.0), shape=(k,))])
    with pytest.raises(GraphcValueError, match="dim k"):
        compiled(graph)([], {})


def test_a_size_that_comes_out_negative():
    short = apply(OPS["broadcast_to"], constant(1.0), shape=(N - 5,))
    runner = compiled(Graph([X], [sum_(exp(neg(short))), sum_(X)]))
    assert runner([np.zeros((6, 1))], {N.symbol: 6, M.symbol: 1})[0] == np.exp(-1.0)
    with pytest.raises(GraphcValueError, match="n = 3"):
        runner([np.zeros((3, 1))], {N.symbol: 3, M.symbol: 1})


def test_check_nan_names_the_first_node():
    y = log(X)
    graph = Graph([X], [sum_(add(y, 1.0))])
    line = here().line - 2
    arrays = [np.array([[1.0, 2.0], [3.0, -4.0]])]
    env = {N.symbol: 2, M.symbol: 2}
    for fused in (True, False):
        runner = compiled(graph, fused, check_nan=True)
        with pytest.raises(NaNError, match=r"log made a NaN at index \(1, 1\).*-4\.0") as caught:
            runner(arrays, env)
        assert caught.value.where.line == line and isinstance(caught.value, FloatingPointError)
        assert "np.log(" in runner.source
    assert np.isnan(compiled(graph)(arrays, env)[0])
    passed = compiled(Graph([X], [cos(X)]), check_nan=True)([np.array([[np.nan]])], {N.symbol: 1, M.symbol: 1})
    assert np.isnan(passed[0]).all()  # it came in


def test_no_warnings_and_no_change_of_the_callers_error_state():
    runner = compiled(Graph([X], [log(div(X, 0.0))]))
    with np.errstate(all="raise"):
        runner([np.array([[-1.0, 0.0]])], {N.symbol: 1, M.symbol: 2})
        with pytest.raises(FloatingPointError):
            np.log(np.array(-1.0))


def test_backends_are_found_by_name():
    assert set(backends.BACKENDS) >= {"numpy", "reference"}
    for name in backends.BACKENDS:
        for op in backends.load(name).MISSING:
            assert op in OPS
    with pytest.raises(GraphcValueError, match="'nmpy'"):
        backends.load("nmpy")
