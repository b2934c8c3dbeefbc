"""``debugprint``, ``pretty``, ``to_networkx``, ``to_dot``: what they show, on graphs of any depth and shape."""

import io

import numpy as np
import pytest

import graphc as gc
from graphc.ir import Graph


def shown(obj) -> str:
    return gc.debugprint(obj, file="str")


def deep(n: int):
    x = gc.scalar("x")
    v = x
    for _ in range(n):
        v = v - 1.0
    return v


# ---- debugprint -------------------------------------------------------------------------------


def test_debugprint_writes_a_tree_with_ids_types_and_repeats():
    x = gc.tensor("x", shape=("n",))
    shared_part = gc.exp(x)
    shared_part.name = "e"
    out = io.StringIO()
    assert gc.debugprint(shared_part * shared_part + 2, file=out) is None
    assert out.getvalue() == """\
add [id A] f64[n]
 ├─ mul [id B] f64[n]
 │   ├─ exp [id C] f64[n] 'e'
 │   │   └─ x [id D] f64[n]
 │   └─ exp [id C] f64[n] 'e' ···
 └─ 2.0 [id E] f64[]
"""


def test_debugprint_goes_to_stdout_by_default(capsys):
    gc.debugprint(gc.scalar("x"))
    assert capsys.readouterr().out == "x [id A] f64[]\n"


def test_debugprint_of_several_roots_repeats_nothing():
    x = gc.vector("x")
    y = gc.exp(x)
    text = shown([y, y + x])
    assert text.count("exp") == 2 and text.count("···") == 1


def test_debugprint_of_a_function_shows_updates_and_kernels():
    w = gc.shared(np.ones(3), "w")
    x = gc.vector("x")
    f = gc.function([x], [(w * x).sum()], updates={w: w - gc.exp(x) * 0.1})
    text = shown(f)
    assert "update of w" in text
    assert text == shown(f.graph)
    if any(node.op.name == "fused" for node in f.graph.nodes):
        assert "inner graph @" in text


def test_debugprint_shows_names_of_state_and_nameless_leaves():
    assert shown(gc.shared(1.0) + gc.scalar()).count("<") == 2


def test_debugprint_of_a_deep_chain_goes_on_at_the_margin():
    text = shown(deep(20_000))
    lines = text.splitlines()
    assert sum("sub [id" in line and "below" not in line for line in lines) == 20_000
    assert max(map(len, lines)) < 400


def test_debugprint_of_a_lattice_is_linear():
    x = gc.scalar("x")
    for _ in range(60):
        x = x + x
    assert len(shown(x).splitlines()) < 300


@pytest.mark.parametrize("bad", [3, "x", [1], None])
def test_what_is_no_graph_is_refused(bad):
    with pytest.raises(TypeError, match="debugprint takes"):
        gc.debugprint(bad, file="str")


def test_file_is_checked():
    with pytest.raises(TypeError, match="file"):
        gc.debugprint(gc.scalar("x"), file="out.txt")


# ---- pretty -----------------------------------------------------------------------------------

a, b, c = gc.dmatrices("a", "b", "c")
v, w = gc.dvectors("v", "w")
k = gc.lscalar("k")


@pytest.mark.parametrize(("expression", "text"), [
    (lambda: a * b + c, "a*b + c"),
    (lambda: a * (b + c), "a*(b + c)"),
    (lambda: a - (b - c), "a - (b - c)"),
    (lambda: (a - b) - c, "a - b - c"),
    (lambda: a / (b / c), "a/(b/c)"),
    (lambda: a / b * c, "a/b*c"),
    (lambda: -(a + b), "-(a + b)"),
    (lambda: -a * b, "-a*b"),
    (lambda: a ** b ** c, "a**b**c"),
    (lambda: (a ** b) ** c, "(a**b)**c"),
    (lambda: (-a) ** b, "(-a)**b"),
    (lambda: a ** -b, "a**-b"),
    (lambda: (a + b) @ c, "(a + b) @ c"),
    (lambda: a @ b @ c, "a @ b @ c"),
    (lambda: (a < b) == (b < c), "(a < b) == (b < c)"),
    (lambda: gc.exp(-(a * a)), "exp(-(a*a))"),
    (lambda: (a * b + c).sum(axis=0), "sum(a*b + c, axis=0)"),
    (lambda: (a * b).sum(), "sum(a*b)"),
    (lambda: gc.max(a, axis=1, keepdims=True), "max(a, axis=1, keepdims=True)"),
    (lambda: a.T, "a.T"),
    (lambda: (a + b).T, "(a + b).T"),
    (lambda: a[1:, 0], "a[1:, 0]"),
    (lambda: v[k], "v[k]"),
    (lambda: v[::2], "v[::2]"),
    (lambda: gc.where(a > 0, a, b), "where(a > 0, a, b)"),
    (lambda: a * 2 + 1, "a*2 + 1"),
    (lambda: v.shape[0] + k, "v.shape[0] + k"),
    (lambda: gc.cast(k, "float32"), "f32(k)"),
])
def test_pretty(expression, text):
    assert gc.pretty(expression()) == text



def test_pretty_of_arithmetic_is_python_with_the_same_value():
    """Brackets are right: evaluating the text gives the value of the graph, for random expressions."""
    rng = np.random.default_rng(0)
    names = {n: gc.dscalar(n) for n in "pqr"}
    values = {"p": 1.25, "q": -0.75, "r": 2.0}
    signs = [lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x / y, lambda x, y: -x]
    for _ in range(50):
        pool = list(names.values())
        for _ in range(8):
            x, y = (pool[int(i)] for i in rng.integers(len(pool), size=2))
            pool.append(signs[int(rng.integers(len(signs)))](x, y))
        e = pool[-1]
        with np.errstate(all="ignore"):
            try:
                want = eval(gc.pretty(e), {}, values)
            except ZeroDivisionError:
                continue
        used = set(gc.graph_inputs([e]))
        have = e.eval({x: values[n] for n, x in names.items() if x in used})
        assert have == pytest.approx(want, nan_ok=True)


def test_pretty_cuts_long_formulas_and_survives_deep_ones():
    text = gc.pretty(deep(50_000))
    assert text.startswith("x - 1 - 1") and text.endswith("…") and len(text) == 10_001
    x = gc.scalar("x")
    for _ in range(60):
        x = x + x
    assert len(gc.pretty(x, limit=100)) == 101


def test_pretty_takes_one_expression():
    with pytest.raises(TypeError, match="one expression"):
        gc.pretty([a])


# ---- networkx, dot ----------------------------------------------------------------------------


def test_to_networkx_has_every_edge_with_its_place():
    x, y = gc.vectors("x", "y")
    s = gc.shared(2.0, "s")
    g = gc.to_networkx(s * (x - y) - x)
    assert g.nodes["x"]["role"] == "input" and g.nodes["s"]["role"] == "shared" and g.nodes["sub_2"]["role"] == "output"
    assert g.nodes["op:sub_1"]["kind"] == "op" and g.nodes["op:sub_1"]["op"] == "sub"
    assert [d["position"] for d in g.get_edge_data("x", "op:sub_2").values()] == [1]
    assert g.nodes["x"]["type"] == "f64[?0]" and g.nodes["x"]["origin"].startswith(__file__)
    import networkx
    assert networkx.is_directed_acyclic_graph(g)


def test_to_networkx_keeps_parallel_edges_and_constants():
    x = gc.scalar("x")
    g = gc.to_networkx(x * x + 3)
    assert g.number_of_edges("x", "op:mul_1") == 2
    assert g.nodes["constant_1"] == {
        "kind": "var", "op": "constant", "name": "constant_1", "type": "f64[]", "role": "constant", "attrs": "3.0",
        "origin": g.nodes["constant_1"]["origin"]}


def test_to_dot_escapes_and_colours():
    x = gc.vector('a "quoted"\\name')
    text = gc.to_dot(gc.exp(x))
    assert '\\"quoted\\"\\\\name' in text
    assert text.count("{") == text.count("}") and "fillcolor" in text
    assert text.splitlines()[0] == 'digraph "expression" {'


def test_to_dot_frames_inner_graphs():
    x = gc.vector("x")
    f = gc.function([x], gc.exp(x) * 2 + x)
    text = gc.to_dot(f)
    assert ("subgraph cluster_1" in text) == any(isinstance(a, Graph) for n in f.graph.nodes for a in n.attrs.values())


@pytest.mark.parametrize("look", [shown, gc.to_dot, gc.to_networkx])
def test_expression_list_graph_and_function_are_all_taken(look):
    x = gc.vector("x")
    y = gc.exp(x)
    f = gc.function([x], y)
    for obj in (y, [y], (y, x), Graph([x], [y]), f):
        assert look(obj)
