"""gc.function: structures, updates, givens, calls, sizes, state, copies, pickles."""

from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

import graphc as gc

MODES = ["FAST_RUN", "FAST_COMPILE", "DEBUG", gc.Mode(backend="reference"), gc.Mode(backend="numpy", passes="none")]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_structures_of_outputs(mode: object) -> None:
    x, y = gc.scalars("x", "y")
    assert float(gc.function([x, y], x + y, mode=mode)(1, 2)) == 3
    assert [float(v) for v in gc.function([x, y], [x, x * y], mode=mode)(2, 3)] == [2, 6]
    assert gc.function([x, y], {"s": x + y, "p": x * y}, mode=mode)(2, y=3) == {"s": 5, "p": 6}
    assert gc.function([x], gc.Out(x * 2, borrow=True), mode=mode)(4) == 8
    assert gc.function([], None, mode=mode)() is None
    assert gc.function([], gc.constant([1, 2]), mode=mode)().tolist() == [1, 2]
    assert gc.function([x], [], on_unused_input="ignore", mode=mode)(1) == []


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_updates_read_old_values_and_swap(mode: object) -> None:
    a, b = gc.shared(1.0, "a"), gc.shared(2.0, "b")
    f = gc.function([], [a, b], updates={a: b, b: a + b}, mode=mode)
    assert [float(v) for v in f()] == [1, 2]
    assert (float(a.get_value()), float(b.get_value())) == (2, 3)
    f()
    assert (float(a.get_value()), float(b.get_value())) == (3, 5)


def test_outputs_never_alias_state_or_arguments() -> None:
    w = gc.shared(np.arange(3.0), "w")
    x = gc.vector("x")
    f = gc.function([x], [x, w, x.reshape((1, -1)), w[1:]], updates={w: x})
    given = np.array([7.0, 8.0, 9.0])
    results = f(given)
    for r in results:
        r[...] = -1
    assert given.tolist() == [7, 8, 9]
    given[...] = 0
    assert w.get_value().tolist() == [7, 8, 9]
    inside = w.get_value()
    inside[...] = 5
    assert w.get_value().tolist() == [7, 8, 9]


def test_givens_substitute_before_anything_else() -> None:
    x, y, z = gc.scalars("x", "y", "z")
    assert float(gc.function([y], x * 2, givens={x: y + 1})(3)) == 8
    assert float(gc.function([z], x + y, givens=[(x, y * 2), (y, z)])(5)) == 15
    data = gc.shared(np.arange(10.0), "data")
    i = gc.lscalar("i")
    v = gc.vector("v")
    f = gc.function([i], v.sum(), givens={v: data[i * 2:i * 2 + 2]})
    assert [float(f(k)) for k in range(3)] == [1, 5, 9]


def test_givens_carry_sizes_along() -> None:
    x, y = gc.vectors("x", "y")
    f = gc.function([y], gc.zeros((x.shape[0],)) + x.shape[0], givens={x: y[1:]})
    assert f([1, 2, 3]).tolist() == [2, 2]
    mask = gc.tensor("mask", shape=("k",), dtype="bool")
    g = gc.function([y, mask], gc.ones((x.shape[0],)) * x.sum(), givens={x: y[mask]})
    assert g([1, 2, 3, 4], [True, False, True, True]).tolist() == [8, 8, 8]


def test_defaults_names_and_in() -> None:
    x, y = gc.scalars("x", "y")
    f = gc.function([gc.In(x, value=2.0), gc.In(y, name="why", value=3)], x * 10 + y)
    assert float(f()) == 23
    assert float(f(1)) == 13
    assert float(f(why=5)) == 25


def test_arguments_convert_without_loss() -> None:
    b = gc.bvector("b")
    f = gc.function([b], b)
    assert f([1, -2]).dtype == np.int8
    with pytest.raises(TypeError, match=r"argument 'b'.*300.*int8"):
        f([300])
    s = gc.fscalar("s")
    g = gc.function([s], s)
    assert g(0.1) == np.float32(0.1)
    with pytest.raises(TypeError, match=r"float64.*float32.*allow_input_downcast"):
        g(np.float64(0.1))
    assert gc.function([s], s, allow_input_downcast=True)(np.float64(0.1)) == np.float32(0.1)
    with pytest.raises(TypeError):
        gc.function([s], s, allow_input_downcast=False)(0.1)
    d = gc.dvector("d")
    assert gc.function([d], d)(np.arange(3)).tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="int64"):
        gc.function([gc.lvector("l")], gc.constant(0), on_unused_input="ignore")(np.array([0.5]))


def test_one_compile_serves_all_sizes() -> None:
    x = gc.tensor("x", shape=("n", "m"))
    y = gc.tensor("y", shape=("m",))
    f = gc.function([x, y], (x * y).sum(axis=1))
    for n, m in [(0, 3), (1, 1), (2, 5), (7, 0)]:
        assert f(np.ones((n, m)), np.full(m, 2.0)).tolist() == [2.0 * m] * n


def test_unknown_dims_broadcast_at_run_time_with_gradients() -> None:
    x, y = gc.matrices("x", "y")
    cost = (x * y).sum()
    f = gc.function([x, y], [cost, gc.grad(cost, x), gc.grad(cost, y)])
    a, b = np.arange(6.0).reshape(2, 3), np.arange(3.0).reshape(1, 3)
    for u, v in [(a, a), (a, b), (b, a), (b, b), (a[:, :1], b)]:
        value, gu, gv = f(u, v)
        assert value == (u * v).sum()
        ones = np.ones(np.broadcast_shapes(u.shape, v.shape))

        def back(g: np.ndarray, like: np.ndarray) -> np.ndarray:
            axes = tuple(i for i in range(2) if like.shape[i] == 1 and g.shape[i] != 1)
            return g.sum(axis=axes, keepdims=True)
        assert np.array_equal(gu, back(ones * v, u))
        assert np.array_equal(gv, back(ones * u, v))
    with pytest.raises(ValueError, match="must be equal, or one of them 1"):
        f(np.ones((2, 3)), np.ones((4, 3)))


def test_derived_dims_are_solved_and_checked() -> None:
    n = gc.dim("n", min=1)
    x = gc.tensor("x", shape=(2 * n + 1,))
    y = gc.tensor("y", shape=(n,))
    f = gc.function([x, y], x.sum() + y.sum())
    assert float(f(np.ones(5), np.ones(2))) == 7
    with pytest.raises(ValueError, match="'x'"):
        f(np.ones(4), np.ones(2))
    g = gc.function([x], x.sum())
    assert float(g(np.ones(7))) == 7
    with pytest.raises(ValueError, match="whole"):
        g(np.ones(4))
    with pytest.raises(ValueError, match="at least 1"):
        g(np.ones(1))


def test_shared_with_open_sizes_grows() -> None:
    w = gc.shared(np.zeros(2), "w", shape=(None,))
    x = gc.vector("x")
    f = gc.function([x], None, updates={w: gc.concatenate([w, x])})
    f([1.0])
    f([2.0, 3.0])
    assert w.get_value().tolist() == [0, 0, 1, 2, 3]


def test_copy_swaps_state() -> None:
    a, b = gc.shared(1.0, "a"), gc.shared(10.0, "b")
    x = gc.scalar("x")
    f = gc.function([x], a, updates={a: a + x})
    g = f.copy(swap={a: b})
    assert float(g(5)) == 10
    assert (float(a.get_value()), float(b.get_value())) == (1, 15)


def test_pickle_keeps_a_copy_of_state() -> None:
    w = gc.shared(np.arange(3.0), "w")
    x = gc.vector("x")
    f = gc.function([x], {"y": w * x}, updates={w: w + x}, name="step")
    g = pickle.loads(pickle.dumps(f))
    assert g.name == "step"
    assert g([1, 1, 1])["y"].tolist() == [0, 1, 2]
    assert g([1, 1, 1])["y"].tolist() == [1, 2, 3]
    assert w.get_value().tolist() == [0, 1, 2]


def test_threads_take_turns_on_shared_state() -> None:
    w = gc.shared(np.int64(0), "w")
    f = gc.function([], w, updates={w: w + 1})
    seen: list[int] = []

    def work() -> None:
        seen.extend(int(f()) for _ in range(200))
    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for t in workers:
        t.join()
    assert sorted(seen) == list(range(800))
    assert int(w.get_value()) == 800


def test_check_nan_names_the_node_and_line() -> None:
    x = gc.vector("x")
    f = gc.function([x], gc.log(x).sum(), mode=gc.Mode(check_nan=True))
    assert float(f([1.0])) == 0
    assert np.isnan(f([np.nan]))  # a NaN that came in is not made here
    with pytest.raises(gc.errors.NaNError, match=r"log") as error:
        f([1.0, -1.0])
    assert "test_function.py" in str(error.value)
    assert isinstance(error.value, FloatingPointError)


def test_nothing_is_updated_by_a_call_that_fails() -> None:
    a, b = gc.shared(np.zeros(2), "a"), gc.shared(np.zeros(3), "b")
    x = gc.lvector("x")
    f = gc.function([x], None, updates={a: a + 1, b: b[x]})
    with pytest.raises(IndexError):
        f([0, 1, 9])
    with pytest.raises(ValueError):
        f([0, 1])  # the update of b would have another size
    assert a.get_value().tolist() == [0, 0]
    f([0, 1, 2])
    assert a.get_value().tolist() == [1, 1]


def test_eval_and_python_conversions_of_constants() -> None:
    x = gc.scalar("x")
    assert float((x + 1).eval({x: 2.0})) == 3
    assert float((x + 1).eval(x=2.0)) == 3
    assert float(gc.constant(2) * 3) == 6
    assert bool(gc.constant(1) > 0)
    assert np.asarray(gc.arange(3) + 1).tolist() == [1, 2, 3]
    assert [int(v) for v in gc.arange(3)] == [0, 1, 2]


def test_config_floatx_and_modes() -> None:
    with gc.config(floatX="float32"):
        assert gc.matrix("x").dtype == "float32"
    assert gc.matrix("x").dtype == "float64"
    with pytest.raises(ValueError, match="expected one of"):
        gc.config.floatX = "int8"
    with pytest.raises(TypeError, match="no setting"):
        gc.config.floatx = "float32"
