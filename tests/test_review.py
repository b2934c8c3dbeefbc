"""Corners of the contract in which a second pair of eyes found mistakes: each test is one of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphc as gc


def check(have: Any, want: Any) -> None:
    for h, w in zip(have, want, strict=True):
        assert h.shape == np.shape(w)
        np.testing.assert_allclose(h, w, rtol=1e-12)


# ---- derivatives --------------------------------------------------------------------------------


def test_equal_variables_keep_gradients_of_their_own(mode: Any) -> None:
    """Two variables that merging finds equal were one to the gradient: each got the sum."""
    x = gc.vector("x")
    h, k = gc.exp(x), gc.exp(x)
    cost = (h * 3 + k * 5).sum()
    nested = gc.grad(gc.grad((h * k).sum(), h).sum(), k)
    forward = gc.jvp(h * 3 + k * 5, [h, k], [[1.0, 1.0], [2.0, 2.0]])
    check(gc.function([x], [*gc.grad(cost, [h, k]), nested, forward], mode=mode)([0.5, 1.0]), [[3, 3], [5, 5], [1, 1], [13, 13]])


def test_vjp_of_an_expression_and_of_what_is_made_of_it(mode: Any) -> None:
    """Cotangents of several expressions add up: one that lies behind another was cut off there."""
    x = gc.vector("x")
    v, ones = np.array([2.0, 3.0]), [1.0, 1.0]
    a = x * x
    b = a * x
    outputs = [gc.vjp([a, b], x, [ones, ones]), gc.vjp([a, a], x, [ones, [2.0, 2.0]]), gc.vjp([x * x, x * x], x, [ones, ones]),
               *gc.vjp([a, b], [a, x], [ones, ones])]
    check(gc.function([x], outputs, mode=mode)(v), [2 * v + 3 * v ** 2, 6 * v, 4 * v, 1 + v, 2 * v + 3 * v ** 2])


def test_seeds_and_tangents_of_one_variable_add_up(mode: Any) -> None:
    x = gc.vector("x")
    v = np.array([0.5, 1.0])
    h, k = gc.exp(x), gc.exp(x)
    known = gc.grad(None, x, known_grads=[(h, gc.ones_like(h)), (k, gc.ones_like(k))])
    check(gc.function([x], [known, gc.jvp(x * x, [x, x], [[1.0, 1.0], [2.0, 2.0]])], mode=mode)(v), [2 * np.exp(v), 6 * v])


def test_where_silences_infinite_tangents(mode: Any) -> None:
    """Forward over reverse: the second derivative of x**1.5 at 0, which was not chosen, is infinite."""
    x = gc.vector("x")
    cost = gc.where(x > 0, x ** 1.5, 0.0).sum()
    one = gc.ones_like(x)
    outputs = [gc.hessian_vector_product(cost, x, one), gc.jvp(gc.jvp(gc.grad(cost, x), x, one), x, one)]
    check(gc.function([x], outputs, mode=mode)([-1.0, 0.0, 4.0]), [[0, 0, 0.375], [0, 0, -0.375 / 8]])


@pytest.mark.parametrize("product", ["matmul", "einsum"])
def test_where_silences_infinite_tangents_in_products(product: str, mode: Any) -> None:
    """d/dx of a gradient in w: rows that were not chosen have an infinite tangent, and a factor of 0."""
    x, w = gc.vector("x"), gc.vector("w")
    outer = gc.sqrt(x)[:, None] @ w[None, :] if product == "matmul" else gc.einsum("i,j->ij", gc.sqrt(x), w)
    g = gc.grad(gc.where(x[:, None] > 0, outer, 0.0).sum(), w)
    outputs = [gc.jvp(g, x, gc.ones_like(x)), gc.jacobian(g, x).sum(axis=1)]
    check(gc.function([x, w], outputs, mode=mode)([0.0, 1.0, 4.0], [1.0, 1.0]), [[0.75, 0.75]] * 2)


def test_jacobians_in_debug_mode() -> None:
    """The placeholder inside the loop over rows reached the evaluator of DEBUG mode."""
    x = gc.vector("x")
    f = gc.function([x], [gc.jacobian(x ** 2, x), gc.hessian((x ** 3).sum(), x)], mode="DEBUG")
    check(f([1.0, 2.0]), [np.diag([2.0, 4.0]), np.diag([6.0, 12.0])])


def test_jacobian_with_respect_to_one_variable_twice(mode: Any) -> None:
    """A computed variable that stood in the list twice gave an inner graph with one input twice."""
    x = gc.vector("x")
    h = gc.exp(x)
    check(gc.function([x], gc.jacobian(h * h, [h, h]), mode=mode)([0.0, 1.0]), [np.diag([2.0, 2 * np.e])] * 2)


@pytest.mark.parametrize("what", ["jvp", "vjp", "known_grads"])
def test_tangents_and_cotangents_do_not_broadcast(what: str) -> None:
    """Unknown sizes that differ were summed or repeated in silence."""
    x, t = gc.vectors("x", "t")
    y = gc.jvp(x * x, x, t) if what == "jvp" else gc.vjp(x * x, x, t) if what == "vjp" else gc.grad(None, x, known_grads={x * x: t})
    f = gc.function([x, t], y)
    assert f([1.0, 2.0], [1.0, 3.0]).tolist() == [2, 12]
    for a, b in (([1.0, 2.0], [1.0]), ([1.0], [1.0, 2.0])):
        with pytest.raises(ValueError, match=r"'x'.*'t'.*must be equal"):
            f(a, b)


def test_complex_points_and_clips_are_refused_where_they_are_given() -> None:
    with pytest.raises(TypeError, match="argument 0 is complex"):
        gc.verify_grad(lambda x: gc.abs(x), [[1 + 2j]])
    with pytest.raises(TypeError, match=r"grad_clip.*test_review"):
        gc.grad_clip(gc.zscalar("z"), -1, 1)


# ---- givens -------------------------------------------------------------------------------------


def test_given_of_a_size_that_only_the_data_tell(mode: Any) -> None:
    """A minibatch cut out of shared data: its size stands in means, shapes, slices, Jacobians."""
    values = np.random.default_rng(0).normal(size=(10, 3))
    data, w, i, x = gc.shared(values), gc.shared(np.ones(3)), gc.lscalar("i"), gc.matrix("x")
    errors = gc.tanh(x @ w) ** 2
    n = x.shape[0]
    outputs = [errors.mean(), gc.jacobian(errors, w), gc.hessian(errors.mean(), w), gc.zeros((2 * n + 1,)), x[:n // 2], gc.arange(n), x.reshape((-1,))]
    f = gc.function([i], outputs, givens={x: data[i * 4:(i + 1) * 4]}, mode=mode)
    plain = gc.function([x], outputs, mode=mode)
    for k in (0, 2):
        check(f(k), plain(values[4 * k:4 * k + 4]))


def test_given_for_the_only_leaf_with_a_named_dim(mode: Any) -> None:
    """The dim n then is the size of what is given; with another leaf that has it, the two must agree."""
    n = gc.dim("n")
    x, other = gc.tensor("x", shape=(n,)), gc.tensor("other", shape=(n,))
    v, m = gc.vector("v"), gc.tensor("m", shape=(None,), dtype="bool")
    y = gc.concatenate([gc.zeros((n // 2 + 1,)), x])
    outputs = [y, gc.jacobian(y * y, x), x.shape[0] * x.sum()]
    want = gc.function([x], outputs)([1.0, 3.0])
    check(gc.function([v], outputs, givens={x: v}, mode=mode)([1.0, 3.0]), want)
    check(gc.function([v, m], outputs, givens={x: v[m]}, mode=mode)([1.0, 2.0, 3.0], [True, False, True]), want)
    check(gc.function([v], gc.clone_replace(outputs, {x: v}), mode=mode)([1.0, 3.0]), want)
    f = gc.function([v, other], x * other, givens={x: v}, mode=mode)
    assert f([1.0, 2.0], [3.0, 4.0]).tolist() == [3, 8]
    with pytest.raises(ValueError, match="must be equal"):
        f([1.0], [3.0, 4.0])


# ---- functions and variables --------------------------------------------------------------------


def test_a_python_number_as_an_update_is_weak() -> None:
    half, count = gc.shared(np.float32(1.5)), gc.shared(np.int8(3))
    gc.function([], None, updates={half: 0.5, count: 7})()
    assert (half.get_value().dtype, float(half.get_value())) == (np.float32, 0.5)
    assert (count.get_value().dtype, int(count.get_value())) == (np.int8, 7)
    with pytest.raises(ValueError, match="300"):
        gc.function([], None, updates={count: 300})
    with pytest.raises(TypeError, match="float64"):
        gc.function([], None, updates={count: 0.5})


def test_a_default_is_a_copy() -> None:
    x = gc.vector("x")
    given = np.ones(2)
    f = gc.function([gc.In(x, value=given)], x * 2)
    given[:] = 100
    assert f().tolist() == [2, 2]


def test_inputs_named_like_python_parameters() -> None:
    x, y = gc.scalars("self", "values")
    assert float(gc.function([x, y], x - y)(self=3.0, values=1.0)) == 2
    assert float((x - y).eval(self=3.0, values=1.0)) == 2


def test_modes_name_what_exists() -> None:
    x = gc.scalar("x")
    with pytest.raises(ValueError, match="did you mean 'log1p'"):
        gc.function([x], x, mode=gc.Mode(exclude=["log1pp"]))
    with pytest.raises(TypeError, match="name of a pass"):
        gc.function([x], x, mode=gc.Mode(passes=[3]))


def test_masked_entries_are_no_values() -> None:
    x = gc.vector("x")
    f = gc.function([x], x.sum())
    assert float(f(np.ma.array([1.0, 2.0]))) == 3
    with pytest.raises(TypeError, match="'x' is a masked array"):
        f(np.ma.array([1.0, 2.0], mask=[True, False]))


def test_round_to_decimals() -> None:
    x = gc.vector("x")
    assert round(x, 1).eval({x: [1.26, -0.44]}).tolist() == [1.3, -0.4]


@pytest.mark.parametrize("what", ["grad", "jacobian", "hessian", "unused"])
def test_warnings_point_at_the_users_line(what: str) -> None:
    x, y = gc.scalars("x", "y")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        if what == "grad":
            gc.grad(x * x, y, disconnected_inputs="warn")
        elif what == "jacobian":
            gc.jacobian(gc.stack([x, x]), y, disconnected_inputs="warn")
        elif what == "hessian":
            gc.hessian(x * x, y, disconnected_inputs="warn")
        else:
            gc.function([x, y], x, on_unused_input="warn")
    assert [w.filename for w in seen] == [__file__]


def test_two_ops_of_one_class_have_two_names_in_a_dump() -> None:
    class Power(gc.Op):
        def __init__(self, k: int) -> None:
            self.k = k

        def infer(self, x: Any) -> Any:
            return x

        def forward(self, x: Any) -> Any:
            return x ** self.k

    class exp(gc.Op):  # noqa: N801 - on purpose the name of a built-in op
        def infer(self, x: Any) -> Any:
            return x

        def forward(self, x: Any) -> Any:
            return x * 0 + 5

    x = gc.vector("x")
    square, cube, five = Power(2), Power(3), exp()
    f = gc.function([x], [square(x), cube(x), five(x), gc.exp(x) * 0])
    text = f.dump()
    graph = gc.load_dump(text, ops={"Power": square, "Power~2": cube, "exp~2": five})
    assert [float(v[0]) for v in gc.function(graph.inputs, graph.outputs)([2.0])] == [4, 8, 5, 0]
    with pytest.raises(ValueError, match="Power~2"):
        gc.load_dump(text, ops={"Power": square, "exp~2": five})


def test_eval_takes_inputs_only() -> None:
    x = gc.vector("x")
    y = x * 2
    with pytest.raises(TypeError, match="computed"):
        (y + 1).eval({y: [1.0]})


def test_the_second_part_of_joined_vectors_of_unknown_size(mode: Any) -> None:
    x, y = gc.vectors("x", "y")
    joined = gc.concatenate([x, y * 2])
    f = gc.function([x, y], [joined[x.shape[0]:], gc.grad((joined ** 2).sum(), y)], mode=mode)
    second, g = f([1.0, 2.0], [3.0])
    assert second.tolist() == [6]
    assert g.tolist() == [24]
