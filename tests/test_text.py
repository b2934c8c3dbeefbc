"""Dumps: what is printed reads back as the same graph, bit for bit, and prints the same again."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers import leaf

import graphc as gc
from graphc import dims
from graphc.errors import Origin
from graphc.ir import Graph, Node, Op, Relation, Shared, Type, Var, apply, apply_all, make_node
from graphc.ops import OPS
from graphc.ops.core import constant
from graphc.ops.evaluate import evaluate
from graphc.text import FORMAT, print_graph
from graphc.text_parse import parse
from graphc.verify import verify

GOLDEN = Path(__file__).parent / "golden"


def round_trip(graph: Graph, **options) -> Graph:
    text = print_graph(graph, **options)
    again = parse(text)
    verify(again)
    assert print_graph(again, **options) == text
    return again


def graph_of(*lines: str) -> str:
    return "\n".join([FORMAT, "function f", *lines, ""])


def value_of(text: str, *arguments) -> np.ndarray:
    graph = parse(text)
    return evaluate(graph, arguments, {})[0]


# ---- the form ---------------------------------------------------------------------------------


def test_the_form_of_a_dump():
    n = gc.dim("n", min=1)
    x = gc.tensor("x", shape=(n, 3), dtype="float32")
    u = gc.tensor(None, shape=(None,), dtype="int64")
    w = gc.shared(np.array([[0.5], [-0.0], [math.inf]], "float32"), "w")
    h = x @ w
    h.name = "h"
    loss = (h * 0.1).sum()
    graph = Graph([x, u], [loss, u], [(w, w * loss)], name="step", relations=[(Relation("broadcast", n, u.type.shape[0]), Origin("a b.py", 3))])
    lines = [line.partition("  #")[0].rstrip() for line in print_graph(graph, "merge", header="7 nodes\n(was 9)").splitlines()]
    assert "\n".join(lines) == """\
graphc dump 1
stage merge
# 7 nodes
# (was 9)
function step
  dim n min=1
  input x : f32[n, 3]
  input input_1 : i64[?0]
  shared w : f32[3, 1] data 1
  h = matmul(x, w) : f32[n, 1]
  mul_1 = mul(h, 0.1:f32) : f32[n, 1]
  sum_1 = sum(mul_1; axis=(0, 1), keepdims=False) : f32[]
  mul_2 = mul(w, sum_1) : f32[3, 1]
  return sum_1, input_1
  update w = mul_2
  require n ~ ?0

data 1 = [[0.5], [-0.0], [inf]] : f32[3, 1]"""
    again = round_trip(graph)
    assert again.relations[0][1] == Origin("a b.py", 3)
    assert again.name == "step" and [v.name for v in again.inputs] == ["x", None]
    assert next(s for s in dims.symbols(again.inputs[0].type.shape[0])).min == 1
    assert again.shared[0].container.value.tobytes() == w.container.value.tobytes()


def test_numbers_count_per_op():
    """A node that disappears renumbers later ones of its op only."""
    x = gc.vector("x")
    texts = [print_graph(Graph([x], [gc.exp(gc.log(gc.exp(v * 2)))])) for v in (x, x * 3)]
    assert "exp_2" in texts[0] and "exp_2" in texts[1] and "mul_2" in texts[1]


def test_origin_and_rules_come_back():
    x = gc.vector("x")
    y = gc.exp(x)
    node = y.node
    z = Node(node.op, node.inputs, node.attrs, [y.type], Origin("/some where/100%.py", 7).by("log1p").by("x - x")).outputs[0]
    again = round_trip(Graph([x], [z, y]))
    assert again.outputs[0].node.origin == Origin("/some where/100%.py", 7, ("log1p", "x - x"))
    assert again.outputs[1].node.origin.line == y.node.origin.line
    assert again.inputs[0].origin.line == x.origin.line


def test_files_below_the_current_folder_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = Var(Type(np.dtype("float64"), ()), name="x", origin=Origin(str(tmp_path / "sub" / "train.py"), 5))
    assert "# sub/train.py:5" in print_graph(Graph([x], [x]))


def test_any_other_comment_is_ignored():
    graph = parse(graph_of("  input x : f64[]  # the see-saw of line 3", "# nothing", "", "  return x # by hand, as the poet says"))
    assert graph.inputs[0].origin.line == 0


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [
    "x", "W:0", "my var", "it's", 'say "x"', "mul_1", "input_1", "return", "inf", "f32", "x.y", "ünï", "a#b", "back\\slash", "new\nline", "x~2", "1st", "@b"])
def test_any_name_comes_back(name):
    x = gc.vector(name)
    y = x * x
    y.name = name
    again = round_trip(Graph([x], [y, x * y]))
    assert again.inputs[0].name == name and again.outputs[0].name == name and again.outputs[1].name is None


def test_equal_names_are_told_apart():
    x, y = gc.vectors("x", "x")
    again = round_trip(Graph([x, y], [x - y]))
    assert [v.name for v in again.inputs] == ["x", "x"]
    assert all(a is b for a, b in zip(again.outputs[0].node.inputs, again.inputs, strict=True))


@pytest.mark.parametrize("name", ["n", "f32", "inf", "bcast", "None", "array", "x"])
def test_any_dim_name_comes_back(name):
    x = gc.tensor("x", shape=(name, 2))
    again = round_trip(Graph([x], [gc.reshape(x, (gc.dim(name) * 2,))]))
    assert again.outputs[0].type.shape == (gc.dim(name) * 2,)


# ---- sizes ------------------------------------------------------------------------------------


def test_formulas_come_back():
    n, m = gc.dim("n"), gc.dim("m")
    u, v = dims.fresh("unknown"), dims.fresh("unknown")
    shape = (
        n, 2 * n + 1, n * n - m, u * v, dims.bcast(dims.bcast(u, n), v), (n + 1) // 2, n % 3, dims.dim_max(n, m), dims.dim_min(u, 3),
        -n + m * 3, dims.dim_max(dims.dim_max(n, 2 * m), u), (n * m) // (u + 1), 0, 7)
    x = Var(Type(np.dtype("float64"), shape), name="x")
    leaves = [Var(Type(np.dtype("float64"), (s,)), name=f"v{i}") for i, s in enumerate((v, n, m, u))]
    again = round_trip(Graph([*leaves, x], [x]))
    symbols = {"n": 5, "m": 9}
    env = {s: symbols.get(s.name, 5) for size in shape for s in dims.symbols(size)}
    new = {s: symbols.get(s.name, 5) for v in again.inputs for size in v.type.shape for s in dims.symbols(size)}
    assert [dims.evaluate(a, env) for a in shape] == [dims.evaluate(a, new) for a in again.outputs[0].type.shape]


def test_text_does_not_depend_on_the_age_of_symbols():
    """Unknown sizes are numbered as they appear, and formulas are sorted by what is printed."""
    def text(swap: bool) -> str:
        u, v = (dims.fresh("unknown") for _ in range(2))
        u, v = (v, u) if swap else (u, v)
        a, b = (Var(Type(np.dtype("float64"), (s,)), name=n) for n, s in (("a", u), ("b", v)))
        return print_graph(Graph([a, b], [apply(gc.add(a, b).node.op, a, b), gc.outer(a, b).reshape((-1,))]))
    assert text(False) == text(True)


def test_sizes_found_out_at_run_time_come_back():
    x = gc.vector("x")
    (where,) = gc.nonzero(x)
    again = round_trip(Graph([x], [x[where] * 2]))
    symbol = next(dims.symbols(again.outputs[0].type.shape[0]))
    assert symbol.kind == "data"
    env = {next(dims.symbols(again.inputs[0].type.shape[0])): 3}
    assert evaluate(again, [np.array([1.0, 0.0, 2.0])], env)[0].tolist() == [2.0, 4.0]


# ---- values -----------------------------------------------------------------------------------


FLOATS = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("dtype", [*FLOATS, "complex64", "complex128", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_every_constant_keeps_its_bits(dtype):
    d = gc.asarray(0, dtype).dtype
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (2, 0), (0,), (2, 3), (7, 5), (1, 1, 1)):
        bits = rng.integers(0, 256, (*shape, d.itemsize), dtype=np.uint8)
        array = np.ascontiguousarray(bits).view(d).reshape(shape) if d.kind != "b" else rng.integers(0, 2, shape).astype(bool)
        v = constant(np.zeros(shape, d))
        v = Node(v.node.op, (), {"value": array}, [Type(d, shape)], v.node.origin).outputs[0]
        array.setflags(write=False)
        again = round_trip(Graph([], [v, v * v if d.kind != "b" else v]))
        found = again.outputs[0].node.attrs["value"]
        assert found.dtype == d and found.shape == shape and found.tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_special_floats_are_written_in_words(dtype):
    d = gc.asarray(0, dtype).dtype
    array = np.array([math.nan, math.inf, -math.inf, -0.0, 0.1, 1.0, 5e-324]).astype(d)
    text = print_graph(Graph([], [gc.constant(array)]))
    assert "[nan, inf, -inf, -0.0, 0.1" in text
    assert parse(text).outputs[0].node.attrs["value"].tobytes() == array.tobytes()


def test_nan_with_a_payload_keeps_it():
    array = np.array(0x7FF8000000000123, np.uint64).view(np.float64)
    again = round_trip(Graph([], [gc.constant(array), gc.exp(gc.constant(array))]))
    assert again.outputs[0].node.attrs["value"].view(np.uint64) == 0x7FF8000000000123


def test_large_uniform_constants_are_short():
    text = print_graph(Graph([], [gc.constant(np.full((1000, 1000), 2.5, "float32"))]))
    assert "full(2.5) : f32[1000, 1000]" in text and len(text) < 200


def test_large_constants_stand_in_the_data_section_once():
    array = np.random.default_rng(0).normal(size=100)
    v = gc.constant(array)
    text = print_graph(Graph([], [v, v * 2]))
    assert text.count("zlib") == 1 and max(map(len, text.splitlines())) <= 130
    assert parse(text).outputs[0].node.attrs["value"].tobytes() == array.tobytes()


def test_a_constant_with_two_users_is_one_node():
    x = gc.vector("x")
    two = gc.constant(2.0)
    again = round_trip(Graph([x], [x * two, x - two]))
    assert len(again) == 3
    assert len(round_trip(Graph([x], [x * 2.0, x - 2.0]))) == 4


def test_state_can_be_left_out_and_shared_storage_stays_shared():
    w = gc.shared(np.ones((2, 3)), "w")
    alias = Shared(w.type, w.container, "alias")
    graph = Graph([], [w + alias])
    assert "1.0" not in print_graph(graph, data=False)
    again = round_trip(graph)
    assert again.shared[0].container is again.shared[1].container
    empty = parse(print_graph(graph, data=False))
    assert empty.shared[0].container.value.tolist() == np.zeros((2, 3)).tolist()


# ---- attributes, several results, inner graphs, own ops ---------------------------------------


class Anything(Op):
    """Takes any attributes, gives two results."""

    name = "any thing"
    nout = 2

    def infer(self, *types, **attrs):
        return [types[0], types[0]]

    def forward(self, *arrays, **attrs):
        return [arrays[0], arrays[0]]


ATTRS = [
    None, True, False, 0, -5, 10**30, 1.5, -0.0, math.inf, -math.inf, 1e-300, "a # 'b' \"c\"; : )", "", (), (1,), (1, (2.0, "x"), None), slice(1, None, -2),
    ..., 2 + 3j, complex(-0.0, math.nan), np.dtype("float32"), Type(np.dtype("int8"), (2, gc.dim("n"))), gc.dim("n") * 2 - 1, (gc.dim("n"), 3),
]


@pytest.mark.parametrize("attr", ATTRS, ids=repr)
def test_every_kind_of_attribute_comes_back(attr):
    op = Anything()
    x = gc.tensor("x", shape=("n",))
    first, second = apply_all(op, x, some=attr)
    second.name = "second"
    text = print_graph(Graph([x], [first, second]))
    assert "any_thing_1.0, second = 'any thing'(x; some=" in text
    graph = gc.load_dump(text, ops={"any thing": op})
    found = graph.outputs[0].node.attrs["some"]
    assert repr(found) == repr(attr) and type(found) is type(attr)
    assert print_graph(graph) == text


def test_array_attributes_come_back():
    op = Anything()
    x = gc.vector("x")
    for array in (np.array([1, -2]), np.arange(100.0).reshape(10, 10), np.zeros((50, 3), "float32"), np.array(True)):
        text = print_graph(Graph([x], [apply_all(op, x, some=array)[0]]))
        found = gc.load_dump(text, ops={"any thing": op}).outputs[0].node.attrs["some"]
        assert found.dtype == array.dtype and found.tobytes() == array.tobytes() and found.shape == array.shape


def test_inner_graphs_come_back():
    op = Anything()
    x = gc.tensor("x", shape=("n",))

    def body(name, *inner):
        v = Var(x.type, name="v")
        out = gc.exp(v)
        for g in inner:
            out = apply_all(op, out, body=g)[0]
        return Graph([v], [out], name=name)

    deepest = body("step")
    middle = body("step", deepest)
    graph = Graph([x], [apply_all(op, x, body=middle)[0], apply_all(op, x, body=deepest)[0], apply_all(op, x, body=body("it's", middle))[0]])
    text = print_graph(graph)
    again = gc.load_dump(text, ops={"any thing": op})
    assert print_graph(again) == text
    bodies = [v.node.attrs["body"] for v in again.outputs]
    assert [b.name for b in bodies] == ["step", "step", "it's"]
    assert bodies[0].outputs[0].node.attrs["body"] is bodies[1]  # one graph stays one graph


def test_the_users_own_op_is_named_when_it_is_missing():
    @gc.op
    def twice(x):
        return 2 * x

    x = gc.vector("x")
    text = print_graph(Graph([x], [twice(x)]))
    with pytest.raises(ValueError, match=r"no op 'twice'.*ops="):
        gc.load_dump(text)
    graph = gc.load_dump(text, ops={"twice": twice})
    assert gc.function(graph.inputs, graph.outputs)([1.0])[0].tolist() == [2.0]


def test_a_loaded_graph_compiles_and_computes_the_same():
    x = gc.matrix("x")
    w = gc.shared(np.arange(6.0).reshape(3, 2), "w")
    loss = gc.log(1 + gc.exp(x @ w)).sum()
    f = gc.function([x], loss, updates={w: w - 0.1 * gc.grad(loss, w)})
    for stage in ("input", "gradient", "final"):
        graph = gc.load_dump(f.dump(stage))
        g = gc.function(graph.inputs, graph.outputs, updates=graph.updates)
        state = graph.updates[0][0].container
        g(np.ones((4, 3)))
        expected = gc.function([x], w - 0.1 * gc.grad(loss, w))(np.ones((4, 3)))
        np.testing.assert_allclose(state.value, expected, rtol=1e-12)


EXAMPLES = [(name, i) for name, op in OPS.items() for i in range(len(op.examples))]


@pytest.mark.parametrize(("name", "i"), EXAMPLES, ids=lambda v: str(v))
def test_every_op_of_the_table_comes_back(name, i):
    op = OPS[name]
    example = op.examples[i]
    kinds = [example.dtypes] * len(example.shapes) if isinstance(example.dtypes, str) else example.dtypes
    leaves = [leaf(f"x{k}", dtype, shape) for k, (dtype, shape) in enumerate(zip(kinds, example.shapes, strict=True))]
    node = make_node(op, leaves, example.attrs)
    again = round_trip(Graph(leaves, node.outputs))
    assert again.outputs[0].node.key == node.key


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lines", "message"), [
    (["  return y"], r"line 3 .*y is not defined above"),
    (["  input x : f64[]", "  input x : f64[]", "  return x"], "line 4 .*defined twice"),
    (["  input x : f64[]"], "line 2 .*no 'return'"),
    (["  input x : f65[]", "  return x"], "line 3 .*expected a dtype, found 'f65'"),
    (["  input x : f64[3", "  return x"], "line 3 .*expected a type"),
    (["  input x : f64[2.5]", "  return x"], "line 3 .*expected a size"),
    (["  input x : f64[]", "  y = expp(x)", "  return y"], "line 4 .*no op 'expp'"),
    (["  input x : f64[]", "  y = exp(x) : f32[]", "  return y"], "line 4 .*exp gives f64"),
    (["  input x : f64[]", "  y = exp(x, x)", "  return y"], "line 4 .*takes 1 operand"),
    (["  input x : f64[]", "  y, z = exp(x)", "  return y"], r"line 4 .*1 result\(s\); 2 are named"),
    (["  input x : f64[]", "  y = sum(x; axes=3)", "  return y"], "line 4 .*sum does not take"),
    (["  input x : f64[]", "  y = exp(x", "  return y"], "line 4 .*expected"),
    (["  input x : f64[]", "  y = exp(x) 3", "  return y"], "line 4 .*did not expect '3'"),
    (["  input x : f64[]", "  y = exp(@f)", "  return y"], "line 4 .*expected a name"),
    (["  input x : f64[]", "  y = sum(x; axis=@f, keepdims=False)", "  return y"], "line 4 .*no inner graph @f"),
    (["  y = [1, 2] : i64[3]", "  return y"], "line 3 .*2 values for"),
    (["  y = 300 : i8[]", "  return y"], "line 3 .*no value of dtype int8"),
    (["  y = data 7 : i8[3]", "  return y"], "line 3 .*no data 7"),
    (["  y = 'a' : f64[]", "  return y"], "line 3 .*no value"),
    (["  input x : f64[]", "  return x", "  update x = x"], "line 5 .*only shared"),
    (["  input n : f64[n]", "  return n", "  require n < 3"], "line 5 .*expected == or ~"),
    (["  input x : f64[]", "  return x", "data 1 = zlib : f64[3]", "    AAAA"], "line 5 .*damaged"),
    (["  input x : f64[]", "  return x", "function g"], "line 5 .*holds one function"),
    (["  input x : f64[n//]", "  return x"], "line 3"),
    (["  input x : f64['a' + 1]", "  return x"], "line 3"),
])
def test_bad_text_is_refused_with_the_line(lines, message):
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        gc.load_dump(graph_of(*lines))


@pytest.mark.parametrize("text", ["", "hello", "graphc dump 2\n", FORMAT, f"{FORMAT}\n  return\n"])
def test_what_is_no_dump_is_refused(text):
    with pytest.raises(ValueError, match=r"line [12] of the dump"):
        gc.load_dump(text)


def test_text_cut_anywhere_is_refused_or_read_but_never_crashes():
    x = gc.tensor("x", shape=("n",))
    w = gc.shared(np.random.default_rng(0).normal(size=30), "w")
    text = print_graph(Graph([x], [gc.exp(x[1:]) + 0.5], [(w, w * 2)]))
    for k in range(0, len(text), 7):
        try:
            gc.load_dump(text[:k])
        except ValueError as error:
            assert "of the dump" in str(error)


# ---- size -------------------------------------------------------------------------------------


def test_long_chains_print_and_read_without_recursion():
    x = gc.scalar("x")
    v = x
    for _ in range(5_000):
        v = gc.exp(v - 0.5)
    again = round_trip(Graph([x], [v]))
    assert len(again) == 15_000


def test_every_golden_graph_prints_what_was_read():
    from test_golden import CASES, printed, read
    for case in CASES:
        text = printed(read(case.given, check=not case.error))
        assert printed(read(text, check=not case.error)) == text


def test_the_example_of_the_documentation_is_a_dump():
    page = (Path(__file__).parent.parent / "docs" / "dump_format.md").read_text()
    text = page.split("```\n")[1]
    graph = gc.load_dump(text)
    verify(graph)
    again = print_graph(graph, "stabilise", header="9 nodes (was 12)")
    assert [line.split() for line in again.splitlines()] == [line.split() for line in text.splitlines()]
