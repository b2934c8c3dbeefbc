"""Complaints of users of other compilers about values, each as a test that graphc does not share it.

Every test cites the thread; what it asserts is what the people there asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special

import graphc as gc

Array = np.ndarray[Any, np.dtype[Any]]


# ---- C5: silently wrong values ------------------------------------------------------------------


def test_integer_literals_do_not_lower_precision(mode: Any) -> None:
    """pymc-devs/pytensor#2244: log(x/2) lost nine digits because the literal 2 was an int8."""
    x = gc.dscalar("x")
    f = gc.function([x], [gc.log(x / 2), gc.log(x * 3), gc.exp(x + 1), x ** 2 / 7], mode=mode)
    v = 1.2345678901234567
    for have, want in zip(f(v), [np.log(v / 2), np.log(v * 3), np.exp(v + 1), v ** 2 / 7], strict=True):
        assert have.dtype == np.float64
        assert abs(float(have) - want) <= 4 * np.spacing(abs(want))


def test_literals_of_integers_make_float64(mode: Any) -> None:
    """pymc-devs/pytensor#2244: the same for integer tensors; int8 / 2 is float64."""
    n = gc.bscalar("n")
    f = gc.function([n], [n / 2, gc.log(n), gc.sqrt(n)], mode=mode)
    assert [r.dtype for r in f(3)] == [np.float64] * 3
    np.testing.assert_array_max_ulp(f(3)[1], np.log(3.0), 2)


def test_aliased_arguments(mode: Any) -> None:
    """pymc-devs/pytensor#1026: arguments that share memory gave wrong results and were overwritten."""
    x, y = gc.vectors("x", "y")
    f = gc.function([x, y], [gc.exp(x) * y - x, gc.cumsum(x + y), gc.set_subtensor(x[0], y.sum())], mode=mode)
    base = np.linspace(0.1, 1.2, 12)
    a, b = base[:8], base[4:]
    kept = base.copy()
    want = f(a.copy(), b.copy())
    have = f(a, b)
    assert base.tobytes() == kept.tobytes()
    for w, h in zip(want, have, strict=True):
        assert w.tobytes() == h.tobytes()
    same = f(a, a)
    for w, h in zip(f(a.copy(), a.copy()), same, strict=True):
        assert w.tobytes() == h.tobytes()


@pytest.mark.parametrize("option", [{"borrow": True}, {"mutable": True}])
def test_aliased_arguments_that_may_be_borrowed(option: dict[str, bool]) -> None:
    """pymc-devs/pytensor#1026: also where the caller permits borrowing."""
    x, y = gc.vectors("x", "y")
    f = gc.function([gc.In(x, **option), gc.In(y, **option)], [x + 1, y * 2, x * y])
    a = np.arange(4.0)
    assert [r.tolist() for r in f(a.copy(), a.copy())] == [r.tolist() for r in f(*[np.arange(4.0)] * 2)]


def test_updates_go_to_their_own_variables(mode: Any) -> None:
    """Theano/Theano#862: updates were stored in the wrong shared variable."""
    states = [gc.shared(float(i), f"s{i}") for i in range(5)]
    f = gc.function([], states, updates={s: states[(i + 1) % 5] * 10 for i, s in enumerate(states)}, mode=mode)
    assert [float(v) for v in f()] == [0, 1, 2, 3, 4]
    assert [float(s.get_value()) for s in states] == [10, 20, 30, 40, 0]


def test_updates_read_old_values(mode: Any) -> None:
    """Theano/Theano#862: a swap, and an output that reads what is updated."""
    a, b = gc.shared(np.arange(3.0), "a"), gc.shared(np.ones(3), "b")
    f = gc.function([], a + b, updates=[(a, b), (b, a)], mode=mode)
    for _ in range(3):
        assert f().tolist() == [1, 2, 3]
    assert (a.get_value().tolist(), b.get_value().tolist()) == ([1, 1, 1], [0, 1, 2])


def test_a_value_is_not_overwritten_while_it_is_needed(mode: Any) -> None:
    """Theano/Theano#796: in-place work and an early free computed a node twice, the second time from garbage."""
    x = gc.vector("x")
    e = gc.exp(x)
    f = gc.function([x], [e * 2, e + 1, gc.sqrt(e), e, e.sum() - e], mode=mode)
    v = np.array([0.0, 1.0, 2.0])
    want = np.exp(v)
    for _ in range(2):
        for have, w in zip(f(v), [want * 2, want + 1, np.sqrt(want), want, want.sum() - want], strict=True):
            np.testing.assert_allclose(have, w, rtol=1e-15)


def test_impossible_broadcast_is_an_error(mode: Any) -> None:
    """pymc-devs/pytensor#152: an invalid broadcast_to crashed the process."""
    x = gc.vector("x")
    f = gc.function([x], gc.broadcast_to(x, (4, 3)), mode=mode)
    assert f([1.0, 2.0, 3.0]).shape == (4, 3)
    assert f([1.0]).shape == (4, 3)
    with pytest.raises(ValueError):
        f([1.0, 2.0])
    with pytest.raises(ValueError):
        gc.broadcast_to(gc.constant([1.0, 2.0]), (4, 3))


def test_many_calls_give_the_same_bits(mode: Any) -> None:
    """openxla/xla#8471: 2 % of runs were wrong."""
    rng = np.random.default_rng(0)
    x, w = gc.matrices("x", "w")
    cost = gc.sum(gc.softmax(gc.tanh(x @ w)) ** 2)
    f = gc.function([x, w], [cost, *gc.grad(cost, [x, w])], mode=mode)
    a, b = rng.normal(size=(7, 5)), rng.normal(size=(5, 3))
    first = [r.tobytes() for r in f(a, b)]
    for k in range(20):
        f(a[:1 + k % 5], b)  # other sizes between, so that buffers are made anew
        assert [r.tobytes() for r in f(a, b)] == first


def test_compiled_gradient_equals_uncompiled(stable: Any) -> None:
    """pytorch/pytorch#136662: compiling a gradient changed it silently."""
    x = gc.matrix("x")
    y = gc.log_softmax(x * 2.0)[:, 0].sum() + gc.maximum(x, 0.5).sum() + (x.T @ x).mean()
    g = gc.grad(y, x)
    v = np.random.default_rng(1).normal(size=(4, 3))
    want = gc.function([x], g, mode=gc.Mode(backend="reference"))(v)
    np.testing.assert_allclose(gc.function([x], g, mode=stable)(v), want, rtol=1e-12)


# ---- C4: sizes and broadcasting -----------------------------------------------------------------


def test_a_size_of_one_found_at_run_time_broadcasts(mode: Any) -> None:
    """pymc-devs/pytensor#372, #408, #345: an axis that turns out to have length 1 was an error."""
    x, y = gc.matrix("x"), gc.matrix("y")
    cost = (x * y).sum()
    f = gc.function([x, y], [x * y, *gc.grad(cost, [x, y])], mode=mode)
    rng = np.random.default_rng(2)
    for s, t in [((3, 4), (3, 4)), ((3, 4), (1, 4)), ((1, 4), (3, 1)), ((3, 1), (3, 4)), ((1, 1), (2, 5)), ((0, 4), (1, 4))]:
        a, b = rng.normal(size=s), rng.normal(size=t)
        value, ga, gb = f(a, b)
        np.testing.assert_allclose(value, a * b)
        assert ga.shape == s and gb.shape == t
        full = np.broadcast_shapes(s, t)
        np.testing.assert_allclose(ga, _sum_to(np.broadcast_to(b, full), s))
        np.testing.assert_allclose(gb, _sum_to(np.broadcast_to(a, full), t))
    with pytest.raises(ValueError, match="x"):
        f(np.ones((3, 4)), np.ones((2, 4)))


def _sum_to(a: Array, shape: tuple[int, ...]) -> Array:
    for axis, n in enumerate(shape):
        if n == 1 and a.shape[axis] != 1:
            a = a.sum(axis=axis, keepdims=True)
    return a


def test_named_dims_that_differ_may_meet(mode: Any) -> None:
    """pymc-devs/pytensor#330: n with m: equal, or one of them 1, decided per call; gradients follow."""
    x = gc.tensor("x", shape=("n",))
    y = gc.tensor("y", shape=("m",))
    f = gc.function([x, y], [x + y, *gc.grad(gc.sum(gc.exp(x) * y), [x, y])], mode=mode)
    for n, m in [(3, 3), (3, 1), (1, 3), (1, 1)]:
        a, b = np.linspace(0, 1, n), np.linspace(1, 2, m)
        total, ga, gb = f(a, b)
        np.testing.assert_allclose(total, a + b)
        np.testing.assert_allclose(ga, _sum_to(np.broadcast_to(np.exp(a) * b, (max(n, m),)), (n,)))
        np.testing.assert_allclose(gb, _sum_to(np.broadcast_to(np.exp(a), (max(n, m),)), (m,)))
    with pytest.raises(ValueError, match=r"(?s)'x'.*'y'|'y'.*'x'"):
        f(np.ones(3), np.ones(2))


def test_one_compile_serves_all_sizes(mode: Any) -> None:
    """jax-ml/jax#5144: each new shape compiled again."""
    x = gc.tensor("x", shape=("n", "k"))
    f = gc.function([x], gc.softmax(x, axis=0).sum(axis=1), mode=mode)
    source = f.report
    for n, k in [(1, 1), (5, 2), (3, 7), (0, 4), (100, 1)]:
        np.testing.assert_allclose(f(np.ones((n, k))), np.full(n, k / max(n, 1)))
    assert f.report is source


def test_broadcast_gradient_has_the_right_shape(mode: Any) -> None:
    """pymc-devs/pytensor#379: a broadcast at run time gave its operand a gradient of the wrong shape."""
    x = gc.matrix("x")
    y = gc.broadcast_to(x, (4, 3))
    f = gc.function([x], gc.grad((y * y).sum(), x), mode=mode)
    for shape in [(4, 3), (1, 3), (4, 1), (1, 1)]:
        v = np.ones(shape)
        np.testing.assert_allclose(f(v), np.full(shape, 2 * 12 / v.size))


def test_zero_sizes(mode: Any) -> None:
    """numpy semantics of empty arrays everywhere: sums are 0, products 1, gradients empty."""
    x = gc.matrix("x")
    cost = (gc.exp(x) @ gc.exp(x).T).sum()
    f = gc.function([x], [x.sum(), x.prod(axis=0), cost, gc.grad(cost, x), gc.concatenate([x, x]), x[1:]], mode=mode)
    for shape in [(0, 3), (3, 0), (0, 0)]:
        total, product, c, g, joined, rest = f(np.ones(shape))
        assert float(total) == 0 and product.tolist() == [1.0] * shape[1]
        assert float(c) == 0 and g.shape == shape and joined.shape == (2 * shape[0], shape[1]) and rest.shape == (max(shape[0] - 1, 0), shape[1])


# ---- C6: numerics -------------------------------------------------------------------------------


def test_logsumexp_is_stable_in_every_mode(mode: Any) -> None:
    """pymc-devs/pytensor#2288: -inf in FAST_COMPILE, right in FAST_RUN."""
    x = gc.vector("x")
    f = gc.function([x], [gc.logsumexp(x), gc.grad(gc.logsumexp(x), x), gc.log_softmax(x), gc.softmax(x)], mode=mode)
    for v in ([-1000.0, -1001.0], [1000.0, 1001.0], [0.0, 1e5], [-np.inf, 0.0]):
        a = np.array(v)
        value, g, ls, s = f(a)
        np.testing.assert_allclose(value, special.logsumexp(a), rtol=1e-14)
        np.testing.assert_allclose(g, special.softmax(a), rtol=1e-13)
        np.testing.assert_allclose(ls, special.log_softmax(a), rtol=1e-13)
        np.testing.assert_allclose(s, special.softmax(a), rtol=1e-13)


def test_hand_written_logsumexp_is_stable(stable: Any) -> None:
    """pymc-devs/pytensor#2288: the formula as people write it, and its gradient, wherever passes run."""
    x = gc.matrix("x")
    y = gc.log(gc.sum(gc.exp(x), axis=1))
    f = gc.function([x], [y, gc.grad(y.sum(), x)], mode=stable)
    a = np.array([[1000.0, 1001.0], [-2000.0, -2003.0], [0.0, 1.0]])
    value, g = f(a)
    np.testing.assert_allclose(value, special.logsumexp(a, axis=1), rtol=1e-14)
    np.testing.assert_allclose(g, special.softmax(a, axis=1), rtol=1e-13)


SPELLINGS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], float]] = {
    "log(1+x)": (lambda x: gc.log(1 + x), np.log1p, 1e-18),
    "log(x+1.0)": (lambda x: gc.log(x + 1.0), np.log1p, 1e-18),
    "log(1-(-x))": (lambda x: gc.log(1 - (-x)), np.log1p, 1e-18),
    "log(1-x)": (lambda x: gc.log(1 - x), lambda v: np.log1p(-v), 1e-18),
    "log(-x+1)": (lambda x: gc.log(-x + 1), lambda v: np.log1p(-v), 1e-18),
    "exp(x)-1": (lambda x: gc.exp(x) - 1, np.expm1, 1e-18),
    "-1+exp(x)": (lambda x: -1 + gc.exp(x), np.expm1, 1e-18),
    "1-exp(x)": (lambda x: 1 - gc.exp(x), lambda v: -np.expm1(v), 1e-18),
    "-(exp(x)-1)": (lambda x: -(gc.exp(x) - 1), lambda v: -np.expm1(v), 1e-18),
    "log(1+exp(x))": (lambda x: gc.log(1 + gc.exp(x)), lambda v: np.logaddexp(0, v), 800.0),
    "log(1.0+exp(x)) of -x": (lambda x: gc.log(gc.exp(-x) + 1.0), lambda v: np.logaddexp(0, -v), -800.0),
    "log(sigmoid(x))": (lambda x: gc.log(gc.sigmoid(x)), special.log_expit, -800.0),
    "log(1/(1+exp(-x)))": (lambda x: gc.log(1 / (1 + gc.exp(-x))), special.log_expit, -800.0),
    "log(1-sigmoid(x))": (lambda x: gc.log(1 - gc.sigmoid(x)), lambda v: special.log_expit(-v), 800.0),
    "log(1-exp(x))": (lambda x: gc.log(1 - gc.exp(x)), lambda v: np.log(-np.expm1(v)), -1e-18),
    "x/exp(y)": (lambda x: x / gc.exp(x), lambda v: v * np.exp(-v), 800.0),
    "1-tanh-like": (lambda x: gc.log(gc.exp(x)), lambda v: v, 800.0),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_stabilising_rules_fire_in_every_spelling(name: str, stable: Any) -> None:
    """pymc-devs/pytensor#1476, #1451: rules never fired, because canonicalisation had rewritten their pattern before."""
    build, exact, at = SPELLINGS[name]
    x = gc.dscalar("x")
    have = float(gc.function([x], build(x), mode=stable)(at))
    assert have == pytest.approx(float(exact(np.float64(at))), rel=1e-13, abs=0)


@pytest.mark.parametrize("name", SPELLINGS)
def test_gradients_of_stabilised_expressions_are_finite(name: str, stable: Any) -> None:
    """jax-ml/jax#939: the gradient of a compiled function was NaN where its value was fine."""
    build, exact, at = SPELLINGS[name]
    x = gc.dscalar("x")
    f = gc.function([x], gc.grad(build(x), x), mode=stable)
    assert np.isfinite(f(at)) or name == "log(1-exp(x))"
    for v in (-0.7, -0.3):
        numeric = (exact(v + 1e-6) - exact(v - 1e-6)) / 2e-6
        assert float(f(v)) == pytest.approx(numeric, rel=1e-6)


def test_nan_and_inf_are_kept(mode: Any) -> None:
    """jax-ml/jax#276, #545, #469, #972: fast math made isnan false, and NaN depended on the length of the array."""
    x = gc.vector("x")
    f = gc.function([x], [gc.isnan(x), x * 0, x - x, x == x, gc.maximum(x, 0.0), x / x, gc.exp(x), gc.isfinite(x * 1)], mode=mode)
    base = np.array([np.nan, np.inf, -np.inf, 1.0, 100.0, 0.0, -0.0])
    for n in (1, 3, 4, 7):
        for v in (base[:n], np.tile(base, 3)):
            with np.errstate(all="ignore"):
                want = [np.isnan(v), v * 0, v - v, v == v, np.maximum(v, 0.0), v / v, np.exp(v), np.isfinite(v)]
            for h, w in zip(f(v), want, strict=True):
                np.testing.assert_allclose(h, w, rtol=5e-16)  # exp: the last bit may differ from NumPy's
                if w.dtype.kind == "f":
                    np.testing.assert_array_equal(np.signbit(h[w == 0]), np.signbit(w[w == 0]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormal_numbers_are_numbers(dtype: str, mode: Any) -> None:
    """jax-ml/jax#37762, #4042, #38632: subnormals were flushed: log gave -inf, a product NaN."""
    tiny = np.finfo(dtype).smallest_subnormal
    x = gc.vector("x", dtype=dtype)
    f = gc.function([x], [gc.log(x), x * 2, x > 0, x * -np.inf, x + 0, gc.sqrt(x)], mode=mode)
    v = np.array([tiny, tiny * 3, np.finfo(dtype).tiny / 2], dtype)
    logs, doubled, positive, product, same, roots = f(v)
    assert np.isfinite(logs).all() and positive.all() and (product == -np.inf).all()
    np.testing.assert_array_equal(doubled, v * np.asarray(2, dtype))
    np.testing.assert_array_equal(same, v)
    np.testing.assert_array_equal(roots, np.sqrt(v))


def test_calls_leave_the_floating_point_state_alone() -> None:
    """pytorch/pytorch#126848: after one call the caller's subnormals were flushed to zero."""
    x = gc.vector("x")
    gc.function([x], gc.exp(x) / x)(np.zeros(3))
    assert np.float64(5e-324) / 2 * 2 == 0 and np.float64(5e-324) + 0 > 0
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        np.ones(1) / np.zeros(1)


WHERES: dict[str, tuple[Callable[[Any], Any], list[float], list[float]]] = {
    # expression, points, its derivative there
    "sqrt": (lambda x: gc.where(x > 0, gc.sqrt(x), 0.0), [-1.0, 0.0, 4.0], [0.0, 0.0, 0.25]),
    "log": (lambda x: gc.where(x > 0, gc.log(x), 0.0), [-1.0, 0.0, 2.0], [0.0, 0.0, 0.5]),
    "log of log": (lambda x: gc.where(x > 1, gc.log(gc.log(x)), x), [0.0, 1.0, np.e], [1.0, 1.0, 1 / np.e]),
    "division": (lambda x: gc.where(gc.not_equal(x, 0), 1 / x, 0.0), [0.0, 2.0], [0.0, -0.25]),
    "x/0": (lambda x: gc.where(x > 0, x / (x * 0 + gc.relu(x)), 3 * x), [-2.0, 4.0], [3.0, 0.0]),
    "power": (lambda x: gc.where(x > 0, x ** 0.5, -x), [-3.0, 0.0, 4.0], [-1.0, -1.0, 0.25]),
    "x**y": (lambda x: gc.where(x > 0, x ** x, 0.0), [-1.0, 0.0, 1.0], [0.0, 0.0, 1.0]),
    "arccos": (lambda x: gc.where(gc.abs(x) < 1, gc.arccos(x), 0.0), [-1.0, 0.0, 1.0, 2.0], [0.0, -1.0, 0.0, 0.0]),
    "deep": (lambda x: gc.where(x > 0, gc.exp(gc.sqrt(x) * 2) / gc.sqrt(x), 1.0), [-1.0, 0.0, 1.0], [0.0, 0.0, float(np.exp(2) / 2)]),
    "exp overflow": (lambda x: gc.where(x < 10, gc.exp(x), x), [1000.0, 0.0], [1.0, 1.0]),
    "both branches": (lambda x: gc.where(x > 0, gc.log(x), gc.log(-x)), [-2.0, 2.0], [-0.5, 0.5]),
    "hypot": (lambda x: gc.where(x > 0, gc.sqrt(x * x), 0.0), [0.0, 2.0], [0.0, 1.0]),
}


@pytest.mark.parametrize("name", WHERES)
def test_where_takes_no_nan_from_the_other_branch(name: str, mode: Any) -> None:
    """jax-ml/jax#347, #1052, #2630, #5798; pytorch/pytorch#23395, #156212; tinygrad/tinygrad#12409; tensorflow/tensorflow#2540."""
    build, points, derivatives = WHERES[name]
    x = gc.vector("x")
    f = gc.function([x], gc.grad(build(x).sum(), x), mode=mode)
    np.testing.assert_allclose(f(np.array(points)), derivatives, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", WHERES)
def test_where_takes_no_nan_in_second_derivatives(name: str, mode: Any) -> None:
    """jax-ml/jax#5798: and not in derivatives of derivatives."""
    build, points, _ = WHERES[name]
    x = gc.vector("x")
    g = gc.grad(build(x).sum(), x)
    second = gc.grad((g * g).sum(), x)
    assert np.isfinite(gc.function([x], second, mode=mode)(np.array(points))).all()


def test_masked_rows_of_a_product(mode: Any) -> None:
    """jax-ml/jax#1052: a masked row with NaN spoiled the gradient of the weights through the matrix product."""
    x, w = gc.matrices("x", "w")
    keep = gc.tensor("keep", shape=(None, 1), dtype="bool")
    y = gc.where(keep, x @ w, 0.0)
    f = gc.function([x, w, keep], gc.grad((y * y).sum(), [x, w]), mode=mode)
    a = np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 4.0]])
    b = np.array([[1.0, 0.5], [-1.0, 2.0]])
    rows = np.array([[True], [False], [True]])
    gx, gw = f(a, b, rows)
    clean = np.where(rows, a, 0)
    np.testing.assert_allclose(gw, clean.T @ (2 * clean @ b))
    np.testing.assert_allclose(gx, np.where(rows, 2 * clean @ b @ b.T, 0))


def test_element_of_sqrt_and_sqrt_of_element(mode: Any) -> None:
    """Theano/Theano#1996: sqrt(a)[0, 0] had a NaN gradient where sqrt(a[0, 0]) had none."""
    a = gc.matrix("a")
    g1, g2 = gc.grad(gc.sqrt(a)[0, 0], a), gc.grad(gc.sqrt(a[0, 0]), a)
    v = np.array([[4.0, 0.0], [0.0, 1.0]])
    one, two = gc.function([a], [g1, g2], mode=mode)(v)
    np.testing.assert_array_equal(two, [[0.25, 0], [0, 0]])
    np.testing.assert_array_equal(one, two)


def test_fast_compile_equals_fast_run() -> None:
    """pymc-devs/pytensor#2288: results depended on the mode."""
    rng = np.random.default_rng(3)
    x, w, t = gc.matrix("x"), gc.matrix("w"), gc.lvector("t")
    cost = gc.nn.cross_entropy(gc.relu(x @ w) @ w.T, t) + 0.01 * gc.sum(w ** 2)
    outputs = [cost, *gc.grad(cost, [w, x])]
    arguments = (rng.normal(size=(6, 5)) * 30, rng.normal(size=(5, 4)), rng.integers(0, 5, 6))
    results = [gc.function([x, w, t], outputs, mode=m)(*arguments) for m in ("FAST_RUN", "FAST_COMPILE", "DEBUG", gc.Mode(backend="reference"))]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


# ---- C7: gradients ------------------------------------------------------------------------------


def test_gradient_of_set_subtensor(mode: Any) -> None:
    """pymc-devs/pytensor#267: the gradient of set_subtensor was wrong."""
    x, y = gc.vectors("x", "y")
    z = gc.set_subtensor(x[1:3], y) ** 2
    f = gc.function([x, y], gc.grad(z.sum(), [x, y]), mode=mode)
    gx, gy = f([1.0, 2.0, 3.0, 4.0], [5.0, 6.0])
    assert gx.tolist() == [2, 0, 0, 8] and gy.tolist() == [10, 12]
    z = gc.set_subtensor(x[::-2], y) ** 2
    gx, gy = gc.function([x, y], gc.grad(z.sum(), [x, y]), mode=mode)([1.0, 2.0, 3.0, 4.0], [5.0, 6.0])
    assert gx.tolist() == [2, 0, 6, 0] and gy.tolist() == [10, 12]


def test_gradient_through_repeated_positions(mode: Any) -> None:
    """pymc-devs/pytensor#267: positions that repeat count once each."""
    x = gc.vector("x")
    i = gc.lvector("i")
    f = gc.function([x, i], [gc.grad((x[i] ** 2).sum(), x), gc.inc_subtensor(x[i], 1.0), gc.grad((gc.inc_subtensor(x[i], x[i]) ** 2).sum(), x)],
                    mode=mode)
    v, at = np.array([1.0, 2.0, 3.0]), np.array([0, 2, 0, -1])
    g, increased, g2 = f(v, at)
    assert g.tolist() == [4, 0, 12]
    assert increased.tolist() == [3, 2, 5]
    assert g2.tolist() == [2 * 9 * 1, 4, 2 * 9 * 3]


def test_a_variable_used_twice(mode: Any) -> None:
    """tensorflow/tensorflow#2540 and the book: mul(x, x) has the derivative 2x."""
    x = gc.scalar("x")
    f = gc.function([x], [gc.grad(x * x, x), gc.grad(gc.power(gc.abs(x), gc.abs(x)), x), gc.grad(gc.maximum(x, x), x)], mode=mode)
    values = [float(v) for v in f(3.0)]
    assert values == pytest.approx([6.0, 27 * (np.log(3.0) + 1), 1.0])
