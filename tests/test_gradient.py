"""The gradient pass: the book's algorithm, its cost, stability, placeholders within placeholders, safe `where`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir import Graph
from graphc.passes import gradient as book
from graphc.passes.context import Context

MODES = ["FAST_RUN", "FAST_COMPILE", gc.Mode(backend="reference")]


def run(inputs: list[Any], outputs: Any, *values: Any, mode: Any = None) -> Any:
    return gc.function(inputs, outputs, on_unused_input="ignore", mode=mode)(*values)


def expanded(outputs: list[Any]) -> Graph:
    """The graph with derivatives put in and nothing else done."""
    inputs = [v for v in gc.graph_inputs(outputs) if v.owner is None]
    return book.gradient(Graph(inputs, outputs), Context())


def test_the_subroutines_of_the_book_are_there() -> None:
    x, d = gc.tensor("x", shape=("n",)), gc.tensor("d", shape=("n",))
    y = gc.exp(x)
    z = (y * y).sum()
    g_prime = book.Pruned({z: gc.ones_like(z)}, [x])
    consumers = book.get_consumers(y, g_prime)
    assert [c.op.name for c in consumers] == ["mul"]  # once, though it stands there twice
    assert all(v is y for v in book.get_inputs(consumers[0], g_prime))
    operation = book.get_operation(consumers[0], g_prime)
    for position in (0, 1):  # bprop pretends that its inputs are distinct
        g = operation.bprop(book.get_inputs(consumers[0], g_prime), position, [d])
        assert g.owner.op.name == "mul"
        assert {v.name or v.owner.op.name for v in g.owner.inputs} == {"d", "exp"}
    grad_table: dict[Any, Any] = {z: gc.ones_like(z)}
    book.build_grad(x, book.Insertions(), g_prime, grad_table)
    assert y in grad_table
    assert np.allclose(run([x], grad_table[x], [1.0, 2.0]), 2 * np.exp([2.0, 4.0]))


def test_same_variable_twice_counts_once_per_position() -> None:
    x = gc.scalar("x")
    assert float(run([x], gc.grad(x * x, x), 3.0)) == 6
    assert float(run([x], gc.grad(x * x * x, x), 3.0)) == 27
    assert float(run([x], gc.grad(x + x, x), 3.0)) == 2
    assert float(run([x], gc.grad(x ** x, x), 2.0)) == pytest.approx(4 * (1 + np.log(2)))


def test_pruned_to_ancestors_of_the_cost_that_descend_from_the_targets() -> None:
    x, data = gc.vector("x"), gc.vector("data")
    deep = data
    for _ in range(50):
        deep = gc.tanh(deep)
    g = expanded([gc.grad((x * deep).sum(), x)])
    assert sum(n.op.name == "tanh" for n in g.nodes) == 50  # the forward ones; none for the data's own gradient
    assert len(g) < 60


def test_doubling_chain_is_linear() -> None:
    counts = []
    for depth in (30, 60):
        x = gc.scalar("x")
        y = x
        for _ in range(depth):
            y = y + y
        counts.append(len(expanded([gc.grad(y, x)])))
        assert float(run([x], gc.grad(y, x), 1.0)) == 2.0 ** depth
    assert counts[1] <= 2 * counts[0]


def test_gradient_of_a_chain_adds_a_node_per_edge() -> None:
    sizes = []
    for n in (100, 200, 400):
        x = gc.scalar("x")
        y = x
        for _ in range(n):
            y = gc.sin(y)
        sizes.append(len(expanded([gc.grad(y, x)])))
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])
    assert sizes[2] <= 4 * 400


def test_a_chain_of_50_000_nodes_differentiates() -> None:
    x = gc.scalar("x")
    y = x
    for _ in range(50_000):
        y = gc.sin(y)
    g = expanded([gc.grad(y, x)])
    assert len(g) > 100_000


def test_log_sum_exp_has_a_softmax_for_gradient() -> None:
    x = gc.vector("x")
    cost = gc.log(gc.sum(gc.exp(x)))
    for mode in MODES[:2]:
        f = gc.function([x], [cost, gc.grad(cost, x)], mode=mode)
        value, g = f([1000.0, 1000.0, 0.0])
        assert value == pytest.approx(1000 + np.log(2))
        assert g.tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_log_softmax_cross_entropy_is_stable_from_logs_and_softmax() -> None:
    x = gc.matrix("x")
    t = gc.lvector("t")
    cost = -gc.mean(gc.log(gc.softmax(x, axis=1))[gc.arange(t.shape[0]), t])
    f = gc.function([x, t], [cost, gc.grad(cost, x)])
    value, g = f([[1000.0, 0.0], [0.0, -1000.0]], [1, 0])
    assert value == pytest.approx(500)
    assert g.tolist() == [[0.5, -0.5], [0.0, 0.0]]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_second_and_third_derivatives(mode: Any) -> None:
    x = gc.scalar("x")
    y = gc.exp(x) * gc.sin(x)
    d = y
    for _ in range(3):
        d = gc.grad(d, x)
    assert float(run([x], d, 0.7, mode=mode)) == pytest.approx(2 * np.exp(0.7) * (np.cos(0.7) - np.sin(0.7)))


def test_gradient_with_respect_to_computed_variables() -> None:
    x = gc.vector("x")
    p = gc.softmax(x)
    cost = -gc.log(p)[0]
    f = gc.function([x], [gc.grad(cost, p), gc.grad(cost, x)])
    gp, gx = f([0.0, 0.0])
    assert gp.tolist() == [-2, 0]
    assert gx.tolist() == [-0.5, 0.5]
    h = gc.tanh(x)
    k = h * 2
    c = (k * h).sum()
    gh, gk = run([x], gc.grad(c, [h, k]), [0.3])
    assert gk == pytest.approx(np.tanh(0.3))
    assert gh == pytest.approx(4 * np.tanh(0.3))


def test_known_grads_and_consider_constant() -> None:
    x = gc.vector("x")
    h = x * 3
    assert run([x], gc.grad(None, x, known_grads={h: h}), [1.0, 2.0]).tolist() == [9, 18]
    cost = (h * h).sum()
    assert run([x], gc.grad(cost, x, known_grads={h: gc.ones_like(h)}), [1.0]).tolist() == [3]
    assert run([x], gc.grad((x * h).sum(), x, consider_constant=[h]), [2.0]).tolist() == [6]
    assert run([x], gc.grad((x * gc.disconnected_grad(x)).sum(), x), [2.0]).tolist() == [2]
    assert run([x], gc.grad((gc.zero_grad(x) * 5).sum(), x), [2.0]).tolist() == [0]
    assert run([x], gc.grad((gc.grad_clip(x, -1, 2) * 5).sum(), x), [2.0]).tolist() == [2]
    assert run([x], gc.grad((gc.grad_scale(x, 0.5) * 5).sum(), x), [2.0]).tolist() == [2.5]


def test_kinks_and_ties() -> None:
    x, y = gc.scalars("x", "y")
    assert float(run([x], gc.grad(gc.relu(x), x), 0.0)) == 0
    assert float(run([x], gc.grad(abs(x), x), 0.0)) == 0
    assert float(run([x], gc.grad(gc.sign(x) + x, x), 0.0)) == 1
    assert [float(v) for v in run([x, y], gc.grad(gc.maximum(x, y), [x, y]), 1.0, 1.0)] == [0.5, 0.5]
    v = gc.vector("v")
    assert run([v], gc.grad(gc.max(v), v), [3.0, 1.0, 3.0]).tolist() == [0.5, 0, 0.5]


# ---- where ------------------------------------------------------------------------------------


def _double(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: gc.where(x > 0, f(x), x * 0.5)


WHERE: list[tuple[str, Callable[[Any], Any]]] = [
    ("sqrt", _double(gc.sqrt)), ("log", _double(gc.log)), ("reciprocal", _double(lambda x: 1 / x)),
    ("x log x", _double(lambda x: x * gc.log(x))), ("power", _double(lambda x: x ** 0.5)),
    ("deep", _double(lambda x: gc.exp(gc.sqrt(gc.sin(gc.log(x)) ** 2 + 1e-300)))),
    ("division of two", _double(lambda x: gc.log(x) / gc.sqrt(x))),
    ("overflow", lambda x: gc.where(x < 500, x, gc.exp(x * x))),
    ("overflow not chosen", lambda x: gc.where(x < 1, x, gc.exp(-x * 1e10))),
    ("nested", lambda x: gc.where(x > 1, gc.log(x), gc.where(x > 0, gc.sqrt(x), -x))),
    ("through a sum", lambda x: gc.where(gc.min(x) > 0, gc.sum(gc.sqrt(x)), gc.sum(x))),
    ("through a product", lambda x: gc.where(x > 0, gc.matmul(gc.eye(4), gc.reshape(gc.sqrt(x), (4, 1)))[:, 0], x)),
    ("through a softmax", lambda x: gc.where(gc.all(x > 0), gc.softmax(gc.log(x)), x)),
    ("norm", lambda x: gc.where(gc.sum(x * x) > 1e6, gc.sqrt(gc.sum((x - x) * x)), gc.sum(x))),
    ("arcsin", lambda x: gc.where(abs(x) < 1, gc.asin(x), x)),
]


@pytest.mark.parametrize("mode", MODES, ids=str)
@pytest.mark.parametrize(("name", "f"), WHERE, ids=[n for n, _ in WHERE])
def test_where_takes_nothing_from_the_branch_not_chosen(name: str, f: Callable[[Any], Any], mode: Any) -> None:
    x = gc.dvector("x")
    cost = f(x).sum()
    first = gc.grad(cost, x)
    second = gc.grad(first.sum(), x, disconnected_inputs="ignore")
    third = gc.grad(second.sum(), x, disconnected_inputs="ignore")
    forward = gc.jvp(cost, x, gc.ones_like(x))
    values = run([x], [first, second, third, forward], [0.0, -1.0, 0.0, -2.0], mode=mode)
    for order, v in enumerate(values, 1):
        assert np.all(np.isfinite(v)), (name, order, v)


def test_where_guards_change_no_regular_value() -> None:
    x = gc.dvector("x")
    y = gc.where(x > 0, 0.5 * gc.sin(x) ** 2 + gc.sqrt(x + 1), x)
    h = gc.hessian(y.sum(), x)
    at = np.array([0.5, 1.0, np.pi, 2.0])
    expected = np.cos(2 * at) - 0.25 * (at + 1) ** -1.5
    assert np.allclose(np.diag(run([x], h, at)), expected, rtol=1e-12)


def test_where_with_nan_rows_in_a_product() -> None:
    x, w = gc.dmatrix("x"), gc.dmatrix("w")
    ok = gc.isfinite(x).all(axis=1, keepdims=True)
    cost = gc.where(ok, x @ w, 0).sum()
    data = np.array([[1.0, 2.0], [np.nan, 3.0], [4.0, np.inf]])
    g = run([x, w], gc.grad(cost, w), data, np.ones((2, 3)))
    assert np.array_equal(g, np.array([[1.0] * 3, [2.0] * 3]))


def test_where_with_nan_rows_in_an_einsum() -> None:
    x, w = gc.dtensor3("x"), gc.dtensor3("w")
    y = gc.einsum("abc,bcd->da", x, w)
    ok = gc.isfinite(x).all(axis=(1, 2))
    data = np.ones((3, 2, 2))
    data[1, 0, 1] = np.nan
    g = run([x, w], gc.grad(gc.where(ok, y, 0).sum(), w), data, np.ones((2, 2, 4)))
    assert np.array_equal(g, np.full((2, 2, 4), 2.0))


# ---- forward mode, Jacobians, Hessians ----------------------------------------------------------


FUNCTIONS: list[tuple[str, Callable[[Any], Any]]] = [
    ("elementwise", lambda x: gc.exp(x) * gc.tanh(x) + x ** 3),
    ("reduction", lambda x: gc.softmax(x) * gc.logsumexp(x) + gc.max(x) * gc.prod(x)),
    ("movement", lambda x: gc.concatenate([x[::-1], gc.reshape(x, (2, 2)).T.ravel() * x])),
    ("product", lambda x: gc.reshape(x, (2, 2)) @ gc.reshape(x * x, (2, 2))),
    ("indexing", lambda x: gc.set_subtensor(x[1:3], x[:2] ** 2)[gc.constant([0, 2, 2])]),
    ("scan of sums", lambda x: gc.cumsum(gc.sin(x)) * gc.mean(x) + gc.var(x)),
    ("where", lambda x: gc.where(x > 0.5, gc.sqrt(x), x * x)),
]
AT = np.array([0.3, 1.2, -0.4, 0.9]) + 0.5


@pytest.mark.parametrize(("name", "f"), FUNCTIONS, ids=[n for n, _ in FUNCTIONS])
def test_forward_and_reverse_agree(name: str, f: Callable[[Any], Any]) -> None:
    x, t = gc.dvector("x"), gc.dvector("t")
    y = f(x)
    u = gc.tensor("u", shape=(None,) * y.ndim, dtype="float64")
    rng = np.random.default_rng(0)
    tangent = rng.normal(size=4)
    push = run([x, t], gc.jvp(y, x, t), AT, tangent)
    cotangent = rng.normal(size=push.shape)
    pull = run([x, u], gc.vjp(y, x, u), AT, cotangent)
    assert np.vdot(cotangent, push) == pytest.approx(np.vdot(pull, tangent), rel=1e-10)
    j = run([x], gc.jacobian(y, x), AT)
    assert j.shape == (*push.shape, 4)
    assert np.allclose(j @ tangent, push, rtol=1e-10)
    step = 1e-6
    value = gc.function([x], y)
    numeric = (value(AT + step * tangent) - value(AT - step * tangent)) / (2 * step)
    assert np.allclose(push, numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "f"), FUNCTIONS, ids=[n for n, _ in FUNCTIONS])
def test_hessians(name: str, f: Callable[[Any], Any]) -> None:
    x, v = gc.dvector("x"), gc.dvector("v")
    cost = (f(x) ** 2).sum()
    h, hv = run([x, v], [gc.hessian(cost, x), gc.hessian_vector_product(cost, x, v)], AT, np.arange(4.0))
    assert np.allclose(h, h.T, rtol=1e-9, atol=1e-9)
    assert np.allclose(h @ np.arange(4.0), hv, rtol=1e-9, atol=1e-9)
    gradient = gc.function([x], gc.grad(cost, x))
    step = 1e-5
    numeric = np.stack([(gradient(AT + step * e) - gradient(AT - step * e)) / (2 * step) for e in np.eye(4)])
    assert np.allclose(h, numeric, rtol=1e-4, atol=1e-4)


def test_gradient_of_a_jacobian_penalty() -> None:
    x, w = gc.dvector("x"), gc.dmatrix("w")
    j = gc.jacobian(gc.tanh(x @ w), x)
    cost = (j ** 2).sum()
    gw = gc.function([x, w], gc.grad(cost, w))
    value = gc.function([x, w], cost)
    a, b = np.array([0.1, 0.4]), np.array([[0.3, -0.2, 0.5], [0.7, 0.1, -0.6]])
    numeric = np.zeros_like(b)
    for i in np.ndindex(b.shape):
        d = np.zeros_like(b)
        d[i] = 1e-6
        numeric[i] = (value(a, b + d) - value(a, b - d)) / 2e-6
    assert np.allclose(gw(a, b), numeric, rtol=1e-6)


def test_jacobian_of_unknown_sizes_computes_the_forward_part_once() -> None:
    x = gc.dvector("x")
    f = gc.function([x], gc.jacobian(gc.tanh(x) ** 2, x))
    for n in (0, 1, 3):
        at = np.linspace(0.1, 1, n)
        assert np.allclose(f(at), np.diag(2 * np.tanh(at) * (1 - np.tanh(at) ** 2)))
    body = next(n for n in f.graph.nodes if n.op.name == "each").attrs["body"]
    names = [inner.op.name for n in body.nodes for inner in (n.attrs["body"].nodes if n.op.name == "fused" else [n])]
    assert "tanh" not in names


def test_complex_gradient_is_dre_plus_i_dim() -> None:
    z = gc.zvector("z")
    cost = gc.sum(gc.real(z * gc.conj(z)))
    at = np.array([1 + 2j, -0.5j])
    assert np.allclose(run([z], gc.grad(cost, z), at), 2 * at)
    f = gc.function([z], gc.real(gc.sum(gc.exp(z) * gc.sin(z))))
    g = run([z], gc.grad(gc.real(gc.sum(gc.exp(z) * gc.sin(z))), z), at)
    for k in range(2):
        d = np.zeros(2, complex)
        d[k] = 1e-6
        re, im = (f(at + d) - f(at - d)) / 2e-6, (f(at + 1j * d) - f(at - 1j * d)) / 2e-6
        assert g[k] == pytest.approx(re + 1j * im, rel=1e-6)


def test_verify_grad_accepts_right_and_rejects_wrong_gradients() -> None:
    gc.verify_grad(lambda a, b: gc.tanh(a) @ b, [np.ones((2, 3)) * 0.3, np.ones((3, 2))])

    class Wrong(gc.Op):
        def infer(self, x: Any) -> Any:
            return x

        def forward(self, x: np.ndarray) -> np.ndarray:
            return x ** 2

        def bprop(self, inputs: Any, outputs: Any, cotangents: Any) -> Any:
            return [cotangents[0] * inputs[0]]

    with pytest.raises(gc.errors.GradientError, match="symbolic"):
        gc.verify_grad(lambda x: Wrong()(x), [[1.0, 2.0]])


def test_dtypes_of_gradients_follow_their_variables() -> None:
    x, w = gc.fvector("x"), gc.dvector("w")
    gx, gw = gc.grad((x * w).sum(), [x, w])
    assert (gx.dtype, gw.dtype) == ("float32", "float64")
    a, b = run([x, w], [gx, gw], np.ones(2, "float32"), [2.0, 3.0])
    assert a.dtype == "float32"
    assert b.dtype == "float64"
