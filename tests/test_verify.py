"""The verifier: graphs broken in ways that text cannot show (the others stand in golden/verify.gc), and its messages."""

import numpy as np
import pytest

import graphc as gc
from graphc import dims
from graphc.errors import Origin, VerificationError
from graphc.ir import Graph, Node, Op, Type, Var, make_node
from graphc.ops.placeholders import gradient_op
from graphc.verify import agree, verify

F64 = np.dtype("float64")
X = Type(F64, ())


def leaf(name: str = "x") -> Var:
    return Var(X, name=name)


def exp(x: Var) -> Node:
    return make_node(gc.exp(x).node.op, [x])


def rejected(graph: Graph, message: str, **options) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(graph, **options)
    assert message in str(caught.value)
    return str(caught.value)


def test_a_sound_graph_passes_at_every_level_and_stage():
    x = gc.tensor("x", shape=("n", None))
    w = gc.shared(np.ones(3), "w")
    loss = (gc.exp(x).sum() * w).sum()
    graph = Graph([x], [loss], [(w, w - gc.grad(loss, w))])
    for level in ("fast", "full"):
        verify(graph, level=level)
        verify(graph, "input", level=level, before=graph)


def test_the_message_shows_the_node_among_its_neighbours():
    x = leaf()
    v = x
    for _ in range(30):
        v = exp(v).outputs[0]
    middle = v.node
    middle.outputs[0].type = Type(np.dtype("float32"), ())
    for _ in range(30):
        v = Node(middle.op, (v,), {}, [X], Origin("user.py", 7)).outputs[0]
    text = rejected(Graph([x], [v]), "N4 is broken: exp gives f64[]; the node says f32[]", stage="fold")
    assert "after pass fold" in text
    shown = [line for line in text.splitlines() if " = exp(" in line and "f32" in line]
    assert len(shown) == 1 and shown[0].startswith(">")
    assert text.count(" = exp(") == 11
    assert __file__ in text or "test_verify.py" in text


def test_inputs_are_leaves_and_stand_there_once():
    x = leaf()
    y = exp(x).outputs[0]
    rejected(Graph([x, x], [y]), "V1 is broken: an input stands there twice: x")
    rejected(Graph([y], [y]), "V1 is broken: an input is no leaf")


def test_a_leaked_loop_variable_is_called_by_its_name():
    i = Var(X, name="i", scope=Origin("user.py", 12))
    text = rejected(Graph([], [exp(i).outputs[0]]), "V2 is broken")
    assert "i: f64[] belongs to the loop or inner function at user.py:12" in text


def test_a_cycle_is_found_and_does_not_hang():
    x = leaf()
    first = exp(x)
    second = exp(first.outputs[0])
    first.inputs = (second.outputs[0],)
    graph = Graph([], [])
    graph.outputs = (second.outputs[0],)
    rejected(graph, "V4 is broken: exp depends on its own result")


def test_operands_are_results_of_their_nodes():
    x = leaf()
    node = exp(x)
    stray = Var(X, node, 0)
    wrong = Var(X, node, 1)
    rejected(Graph([x], [exp(stray).outputs[0]]), "N2 is broken")
    rejected(Graph([x], [exp(wrong).outputs[0]]), "N2 is broken")
    rejected(Graph([x], [stray]), "N2 is broken")


def test_ops_operands_and_types_are_of_their_classes():
    x = leaf()
    node = exp(x)
    node.op = "exp"
    rejected(Graph([x], [node.outputs[0]]), "N1 is broken: its op is no Op")
    node = exp(x)
    node.outputs[0].type = "f64"
    rejected(Graph([x], [node.outputs[0]]), "N3 is broken")
    node = exp(x)
    node.outputs[0].type = Type(np.dtype("datetime64[s]"), ())
    rejected(Graph([x], [node.outputs[0]]), "N3 is broken")
    node = exp(x)
    node.outputs[0].type = Type(F64, (-1,))
    rejected(Graph([x], [node.outputs[0]]), "which is negative")


class Loose(Op):
    name = "loose"

    def infer(self, *types, **attrs):
        return types[0]


@pytest.mark.parametrize(("attrs", "message"), [
    ({"a": [1, 2]}, "N5 is broken: the attribute a cannot be hashed"),
    ({"a": {}}, "N5 is broken"),
    ({1: 2}, "N5 is broken: an attribute's key is no str: 1"),
    ({"a": np.zeros(3)}, "N5 is broken: the array a can be written to"),
    ({"a": (1, (None, gc.dim("q")))}, "V5 is broken: the attribute a needs the size q"),
    ({"a": ((dims.fresh("unknown", "y.shape[0]"),),)}, "(y.shape[0]), which no input"),
])
def test_attributes(attrs, message):
    x = leaf()
    node = Node(Loose(), (x,), attrs, [X], Origin("user.py", 1))
    rejected(Graph([x], node.outputs), message)


def test_updates_are_of_shared_variables():
    x = leaf()
    rejected(Graph([x], [], [(x, x)]), "V3 is broken: an update writes something that is no shared variable")


def test_state_that_is_read_is_listed():
    w = gc.shared(1.0, "w")
    graph = Graph([], [exp(w).outputs[0]])
    graph.shared = ()
    rejected(graph, "V2 is broken: the shared variable w: f64[]")


def test_a_pass_keeps_the_outside():
    x, y = leaf("x"), leaf("y")
    w, u = gc.shared(1.0, "w"), gc.shared(1.0, "u")
    before = Graph([x, y], [exp(x).outputs[0]], [(w, y)])
    ok = Graph([x, y], [exp(y).outputs[0]], [(w, x)])
    verify(ok, "fold", before=before)
    f32 = Var(Type(np.dtype("float32"), ()), name="z")
    for after, message in (
            (Graph([y, x], before.outputs, before.updates), "inputs were x, y, now y, x"),
            (Graph([x, y], [x, y], before.updates), "there were 1 outputs, now 2"),
            (Graph([x, y], before.outputs, []), "updates were of w, now none"),
            (Graph([x, y], before.outputs, [(u, y)]), "updates were of w, now u"),
            (Graph([x, y], [gc.cast(x, "float32")], before.updates), "root 0 had type f64[], now f32[]")):
        rejected(after, f"after pass fold: P1 is broken: {message}", stage="fold", before=before)
    assert f32.type != X


def test_placeholders_are_judged_by_the_stage():
    x = leaf()
    y = exp(x).outputs[0]
    g = make_node(gradient_op, [y, gc.constant(1.0), x], {"seeds": 1}).outputs[0]
    graph = Graph([x], [g])
    verify(graph)
    verify(graph, "stabilise")
    for stage in ("gradient", "loops", "cleanup", "fuse", "final"):
        rejected(graph, "N6 is broken", stage=stage)
    verify(graph, "final", allow_placeholders=True)
    rejected(graph, "N6 is broken", allow_placeholders=False)


def test_fast_does_not_infer_and_full_does():
    x = leaf()
    node = exp(x)
    node.outputs[0].type = Type(np.dtype("float32"), ())
    verify(Graph([x], node.outputs), level="fast")
    rejected(Graph([x], node.outputs), "N4", level="full")


def test_sizes_of_state_count_as_known():
    w = gc.shared(np.ones((2, 3)), "w", shape=(None, 3))
    verify(Graph([], [gc.exp(w), gc.zeros_like(w)]))
    x = gc.scalar("x")
    rejected(Graph([x], [gc.broadcast_to(x, (w.type.shape[0],))]), "V5 is broken")


def test_agree():
    n, data = gc.dim("n"), dims.fresh("data")
    assert agree(Type(F64, (n, 3)), Type(F64, (n, 3)))
    assert agree(Type(F64, (data,)), Type(F64, (dims.fresh("data"),)))
    assert not agree(Type(F64, (n,)), Type(F64, (3,)))
    assert not agree(Type(F64, ()), Type(F64, (1,)))
    assert not agree(Type(F64, ()), Type(np.dtype("float32"), ()))


def test_long_chains_are_verified_without_recursion():
    x = leaf()
    v = x
    op = gc.exp(x).node.op
    for _ in range(20_000):
        v = Node(op, (v,), {}, [X], Origin("u.py", 1)).outputs[0]
    verify(Graph([x], [v]))


def test_an_error_in_a_graph_that_cannot_be_printed_is_still_shown():
    x = leaf()
    node = exp(x)
    node.outputs[0].type = None
    rejected(Graph([x], [node.outputs[0]]), "N3 is broken: None is no type of a value")


