"""Optimisers against the book's formulas in NumPy, schedules, clipping, decay, first values."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

A = np.array([[3.0, 1.0], [1.0, 0.5]])
START = np.array([1.0, -2.0])


def gradient(p: np.ndarray) -> np.ndarray:
    return A @ p


def cost_of(p: Any) -> Any:
    return 0.5 * gc.sum(p * (gc.constant(A) @ p))


def by_hand(rule: Callable[[np.ndarray, np.ndarray, dict[str, Any], int], np.ndarray], steps: int, places: Any = None) -> np.ndarray:
    p, state = START.copy(), {k: np.zeros(2) for k in "vrsu"}
    for t in range(1, steps + 1):
        p = rule(p, gradient(p if places is None else places(p, state)), state, t)
    return p


def sgd(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    return p - 0.1 * g


def momentum(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    m["v"] = 0.9 * m["v"] - 0.1 * g
    return p + m["v"]


def adagrad(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    m["r"] = m["r"] + g * g
    return p - 0.1 / (1e-7 + np.sqrt(m["r"])) * g


def adadelta(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    m["r"] = 0.95 * m["r"] + 0.05 * g * g
    d = -np.sqrt(m["u"] + 1e-6) / np.sqrt(m["r"] + 1e-6) * g
    m["u"] = 0.95 * m["u"] + 0.05 * d * d
    return p + d


def rmsprop(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    m["r"] = 0.9 * m["r"] + 0.1 * g * g
    return p - 0.1 / np.sqrt(1e-6 + m["r"]) * g


def adam(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    m["s"] = 0.9 * m["s"] + 0.1 * g
    m["r"] = 0.999 * m["r"] + 0.001 * g * g
    return p - 0.1 * (m["s"] / (1 - 0.9 ** t)) / (np.sqrt(m["r"] / (1 - 0.999 ** t)) + 1e-8)


def adamw(p: Any, g: Any, m: dict[str, Any], t: int) -> Any:
    return adam(p, g, m, t) - 0.1 * 0.01 * p


CASES = [
    (lambda: gc.optim.sgd(0.1), sgd, None),
    (lambda: gc.optim.momentum(0.1), momentum, None),
    (lambda: gc.optim.nesterov(0.1), momentum, lambda p, m: p + 0.9 * m["v"]),
    (lambda: gc.optim.adagrad(0.1), adagrad, None),
    (lambda: gc.optim.adadelta(), adadelta, None),
    (lambda: gc.optim.rmsprop(0.1), rmsprop, None),
    (lambda: gc.optim.adam(0.1), adam, None),
    (lambda: gc.optim.adamw(0.1), adamw, None),
]


def trained(make: Callable[[], Any], steps: int, dtype: str = "float64") -> Any:
    p = gc.shared(START.astype(dtype), "p")
    cost = cost_of(p)
    f = gc.function([], cost, updates=make().updates(cost, [p]))
    for _ in range(steps):
        f()
    return p


@pytest.mark.parametrize(("make", "rule", "places"), CASES, ids=[rule.__name__ if places is None else "nesterov" for _, rule, places in CASES])
def test_steps_are_those_of_the_book(make: Any, rule: Any, places: Any) -> None:
    for steps in (1, 7):
        np.testing.assert_allclose(trained(make, steps).get_value(), by_hand(rule, steps, places), rtol=1e-12)


@pytest.mark.parametrize("make", [case[0] for case in CASES])
def test_float32_parameters_stay_float32(make: Any) -> None:
    with gc.config(floatX="float32"):
        p = gc.shared(START.astype("float32"), "p")
        updates = make().updates(gc.sum(p ** 2), [p])
    assert {v.dtype.name for v in updates.values()} <= {"float32", "int64"}
    gc.function([], updates=updates)()
    assert p.get_value().dtype == "float32"


def test_rates_may_be_shared_or_scheduled() -> None:
    rate = gc.shared(0.1, "rate")
    p = gc.shared(START.astype("float32"), "p")
    f = gc.function([], updates=gc.optim.sgd(rate).updates(gc.sum(p), [p]))
    f()
    rate.set_value(0.5)
    f()
    np.testing.assert_allclose(p.get_value(), START - 0.6, rtol=1e-6)

    q = gc.shared(START, "q")
    g = gc.function([], updates=gc.optim.sgd(gc.optim.schedule.step(0.1, 0.1, 2)).updates(gc.sum(q), [q]))
    for _ in range(5):
        g()
    np.testing.assert_allclose(q.get_value(), START - (0.1 + 0.1 + 0.01 + 0.01 + 0.001), rtol=1e-12)


SCHEDULES = {
    "constant": (gc.optim.schedule.constant(0.3), lambda t: 0.3),
    "linear": (gc.optim.schedule.linear(1.0, 0.1, 10), lambda t: 1.0 - 0.09 * t if t < 10 else 0.1),
    "inverse_time": (gc.optim.schedule.inverse_time(1.0, 0.5), lambda t: 1.0 / (1.0 + 0.5 * t)),
    "exponential": (gc.optim.schedule.exponential(2.0, 0.5, 4), lambda t: 2.0 * 0.5 ** (t / 4)),
    "cosine": (gc.optim.schedule.cosine(1.0, 8, 0.2), lambda t: 0.2 + 0.4 * (1 + math.cos(math.pi * min(t / 8, 1)))),
    "step": (gc.optim.schedule.step(1.0, 0.5, 5), lambda t: 0.5 ** (t // 5)),
    "step_at": (gc.optim.schedule.step(1.0, 0.5, [3, 10]), lambda t: 0.5 ** ((t >= 3) + (t >= 10))),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_as_numbers_and_as_expressions(name: str) -> None:
    rate, formula = SCHEDULES[name]
    t = gc.lscalar("t")
    f = gc.function([t], rate(t), on_unused_input="ignore")
    for k in (0, 1, 3, 5, 8, 9, 10, 23):
        assert rate(k) == pytest.approx(formula(k), rel=1e-12)
        assert float(f(k)) == pytest.approx(formula(k), rel=1e-12)


def test_weight_decay_and_clipping() -> None:
    p = gc.shared(START, "p")
    gc.function([], updates=gc.optim.sgd(0.1, weight_decay=0.5).updates(gc.sum(3.0 * p), [p]))()
    np.testing.assert_allclose(p.get_value(), START - 0.1 * (3.0 + 0.5 * START))
    q, r = gc.shared(3.0, "q"), gc.shared([4.0], "r")
    cost = 0.5 * q ** 2 + 0.5 * gc.sum(r ** 2)
    gc.function([], updates=gc.optim.sgd(1.0, clip_norm=1.0).updates(cost, [q, r]))()
    assert float(q.get_value()) == pytest.approx(2.4) and r.get_value() == pytest.approx([3.2])


@pytest.mark.parametrize(("given", "clipped"), [([0.3, 0.4], [0.3, 0.4]), ([0.0, 0.0], [0.0, 0.0]), ([30.0, 40.0], [0.6, 0.8]), ([math.nan, 1.0], [math.nan] * 2)])
def test_clip_by_global_norm(given: list[float], clipped: list[float]) -> None:
    x, y = gc.scalars("x", "y")
    f = gc.function([x, y], gc.optim.clip_by_global_norm([x, y], 1.0))
    np.testing.assert_allclose(f(*given), clipped, rtol=1e-15)


def test_gradients_of_ones_own() -> None:
    p = gc.shared(START, "p")
    gc.function([], updates=gc.optim.sgd(0.1).updates(gc.sum(p), [p], grads=[gc.sgn(p)]))()
    np.testing.assert_allclose(p.get_value(), START - 0.1 * np.sign(START))
    with pytest.raises(ValueError, match="1 parameters but 2 gradients"):
        gc.optim.sgd(0.1).updates(gc.sum(p), p, grads=[p, p])


def test_complex_parameters() -> None:
    z = gc.shared(np.array([1.0 + 1.0j]), "z")
    target = 2.0 - 3.0j
    cost = gc.sum(gc.abs(z - target) ** 2)
    f = gc.function([], cost, updates=gc.optim.adam(0.3).updates(cost, z))
    for _ in range(200):
        f()
    np.testing.assert_allclose(z.get_value(), target, atol=1e-2)


def test_what_is_refused() -> None:
    x, p, k = gc.vector("x"), gc.shared(START, "p"), gc.shared([1, 2], "k")
    opt = gc.optim.sgd(0.1)
    with pytest.raises(TypeError, match=r"shared variable.*got x"):
        opt.updates(gc.sum(x), [x])
    with pytest.raises(TypeError, match="float dtype"):
        opt.updates(gc.sum(p), [k])
    with pytest.raises(ValueError, match="stands twice"):
        opt.updates(gc.sum(p), [p, p])
    with pytest.raises(gc.errors.GradientError):
        opt.updates(gc.sum(x), [p])
    with pytest.raises(TypeError, match="learning rate"):
        gc.optim.sgd("fast")
    with pytest.raises(ValueError, match="momentum is a number in"):
        gc.optim.momentum(0.1, 1.5)
    with pytest.raises(ValueError, match="int >= 1"):
        gc.optim.schedule.linear(1.0, 0.0, 0)


@pytest.mark.parametrize(("name", "variance"), [
    ("glorot_uniform", 2 / 300), ("glorot_normal", 2 / 300), ("he_normal", 2 / 200), ("he_uniform", 2 / 200),
])
def test_first_values(name: str, variance: float) -> None:
    draw = getattr(gc.init, name)
    w = draw((200, 100), np.random.default_rng(0), dtype="float32")
    assert w.shape == (200, 100) and w.dtype == "float32"
    assert np.var(w) == pytest.approx(variance, rel=0.05) and abs(np.mean(w)) < 0.01
    np.testing.assert_array_equal(w, draw((200, 100), np.random.default_rng(0), dtype="float32"))
    kernel = draw((10, 20, 3, 3), np.random.default_rng(0))  # (out, in, *window)
    assert np.var(kernel) == pytest.approx(2 / (270 if "glorot" in name else 180), rel=0.1)
    with pytest.raises(ValueError, match="at least 2 axes"):
        draw(5, np.random.default_rng(0))


def test_other_first_values() -> None:
    rng = np.random.default_rng(0)
    for shape in ((5, 3), (3, 5), (4, 2, 3)):
        w = gc.init.orthogonal(shape, rng, gain=2.0).reshape(shape[0], -1)
        gram = w @ w.T if w.shape[0] < w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, 4.0 * np.eye(len(gram)), atol=1e-12)
    assert gc.init.zeros(3).tolist() == [0.0] * 3 and gc.init.ones((1, 2), dtype="int32").tolist() == [[1, 1]]
    low_high = gc.init.uniform(1000, rng, low=1.0, high=2.0)
    assert 1.0 <= low_high.min() and low_high.max() < 2.0
    with pytest.raises(TypeError, match="Generator"):
        gc.init.normal(3, 0)
    with pytest.raises(ValueError, match="negative"):
        gc.init.zeros((-1, 2))
