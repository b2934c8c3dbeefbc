"""Complaints of users of other compilers about compile time, threads, messages and habits, each as a test.

Every test cites the thread; what it asserts is what the people there asked for.
"""

from __future__ import annotations

import inspect
import pickle
import sys
import threading
from typing import Any

import numpy as np
import pytest

import graphc as gc


def line() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


# ---- C1: compile time ---------------------------------------------------------------------------


@pytest.mark.long
def test_a_chain_of_50000_nodes() -> None:
    """Theano/Theano#3341: 49 k nodes: recursion limit, hours, a segmentation fault."""
    x = gc.scalar("x")
    y = x
    for k in range(25_000):
        y = y * (1.0 + 1.0 / (k + 2) ** 2) + 0.001
    depth = sys.getrecursionlimit()
    f = gc.function([x], [y, gc.grad(y, x)], mode="FAST_COMPILE")
    assert sys.getrecursionlimit() == depth
    scale = float(np.prod([1 + 1 / (k + 2) ** 2 for k in range(25_000)]))
    assert float(f(0.0)[1]) == pytest.approx(scale, rel=1e-9)
    assert float(f(1.0)[0]) - float(f(0.0)[0]) == pytest.approx(scale, rel=1e-6)


@pytest.mark.long
def test_a_chain_of_20000_nodes_with_all_passes() -> None:
    """Theano/Theano#3341: with every pass; tanh and sin so that nothing folds away."""
    x = gc.scalar("x")
    y = x
    for _ in range(5000):
        y = gc.sin(y) * 0.5 + gc.tanh(y)
    f = gc.function([x], [y, gc.grad(y, x)])
    value, g = 0.3, 1.0
    for _ in range(5000):
        value, g = np.sin(value) * 0.5 + np.tanh(value), g * (np.cos(value) * 0.5 + 1 / np.cosh(value) ** 2)
    np.testing.assert_allclose(f(0.3), [value, g], rtol=1e-6, atol=1e-300)


def test_doubling_60_times_stays_linear() -> None:
    """jax-ml/jax#2777, Theano/Theano#1386: exponential growth of what is really a chain."""
    x = gc.scalar("x")
    y = x
    for _ in range(60):
        y = y + y
    f = gc.function([x], [y, gc.grad(y, x)])
    assert all(s.nodes_after <= 400 for s in f.report)
    assert [float(v) for v in f(1.5)] == [1.5 * 2.0 ** 60, 2.0 ** 60]


def test_no_distribution_of_products() -> None:
    """Theano/Theano#4797: one rule multiplied products out into 7 M nodes."""
    x = gc.scalar("x")
    y = gc.constant(1.0)
    for k in range(40):
        y = y * (x + float(k + 1) * gc.sin(x))
    f = gc.function([x], [y, gc.grad(y, x)])
    assert all(s.nodes_after < 2500 for s in f.report)


def test_node_counts_grow_linearly() -> None:
    """Theano/Theano#1386, casadi/casadi#3490: twice the layers, about twice the nodes, at every stage."""
    def counts(layers: int) -> dict[str, int]:
        x = gc.matrix("x")
        weights = [gc.matrix(f"w{k}") for k in range(layers)]
        h = x
        for w in weights:
            h = gc.softplus(h @ w) + gc.log(1 + gc.exp(h))
        cost = gc.mean(h)
        f = gc.function([x, *weights], [cost, *gc.grad(cost, weights)])
        return {s.name: s.nodes_after for s in f.report}

    small, large = counts(8), counts(32)
    for stage in small:
        assert large[stage] <= 4.6 * small[stage] + 20, stage


def test_folding_makes_no_large_constants() -> None:
    """jax-ml/jax#5162: 90 s for log(zeros): a large array was folded element by element."""
    x = gc.scalar("x")
    big = gc.log(gc.zeros((3000, 3000)) + 1.0)
    f = gc.function([x], big.sum() * x)
    for stage in f.report:
        for node in stage.graph.nodes:
            value = node.attrs.get("value")
            assert value is None or value.nbytes <= 1 << 16
    assert len(f.dump("final")) < 100_000
    assert float(f(2.0)) == 0.0


def test_small_constants_do_fold() -> None:
    """jax-ml/jax#5162, the other side: what is small is computed once."""
    x = gc.scalar("x")
    f = gc.function([x], x * (gc.constant(2.0) * 3.0 + gc.sqrt(gc.constant(16.0))))
    assert float(f(1.5)) == 15.0
    assert not any(n.op.name == "sqrt" for n in f.graph.nodes)


# ---- C8: threads --------------------------------------------------------------------------------


def test_two_threads_call_one_function(mode: Any) -> None:
    """Theano/Theano#4405, #3467: functions were not thread safe."""
    x = gc.matrix("x")
    f = gc.function([x], [gc.softmax(x * 2.0 + 1.0), (gc.exp(x) @ gc.tanh(x).T).sum(axis=0)], mode=mode)
    inputs = [np.random.default_rng(k).normal(size=(5 + k % 3, 4)) for k in range(6)]
    want = [[r.tobytes() for r in f(v)] for v in inputs]
    wrong: list[int] = []

    def work(start: int) -> None:
        for k in range(40):
            i = (start + k) % len(inputs)
            if [r.tobytes() for r in f(inputs[i])] != want[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_concurrent_updates_are_not_lost() -> None:
    """Theano/Theano#3467: calls that update shared state take turns."""
    n = gc.shared(np.zeros(3, "int64"), "n")
    f = gc.function([], n, updates={n: n + 1})
    seen: list[int] = []

    def work() -> None:
        for _ in range(50):
            value = f()
            assert len(set(value.tolist())) == 1
            seen.append(int(value[0]))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(seen) == list(range(150)) and n.get_value().tolist() == [150] * 3


# ---- C10: messages ------------------------------------------------------------------------------


def test_errors_while_building_name_the_line() -> None:
    """pymc-devs/pytensor#1330: users struggle to find the actual message."""
    x, w = gc.tensor("x", shape=(None, 3)), gc.tensor("w", shape=(4, 2))
    with pytest.raises(ValueError) as caught:
        x @ w
    text = str(caught.value)
    assert f"{__file__}:{line() - 2}" in text and "x" in text and "w" in text and "3" in text and "4" in text


def test_errors_in_calls_name_argument_and_line(mode: Any) -> None:
    """pymc-devs/pytensor#1330, jax-ml/jax#2956: what came, what was declared, which two disagree."""
    x = gc.tensor("images", shape=("batch", 3), dtype="float32")
    t = gc.tensor("labels", shape=("batch",), dtype="int64")
    f = gc.function([x, t], x.sum(axis=1) * t, mode=mode)
    with pytest.raises(ValueError, match=r"(?s)images.*labels|labels.*images") as caught:
        f(np.ones((2, 3), "float32"), np.ones(5, "int64"))
    assert "batch" in str(caught.value) and "2" in str(caught.value) and "5" in str(caught.value)
    with pytest.raises(TypeError, match="labels"):
        f(np.ones((2, 3), "float32"), np.ones((2, 1), "int64"))
    with pytest.raises(TypeError, match=r"(?s)images.*float64.*float32"):
        f(np.ones((2, 3)), np.ones(2, "int64"))


def test_errors_while_running_name_the_line(mode: Any) -> None:
    """pymc-devs/pytensor#1787: with the fast backend an error had no node and no line."""
    x = gc.vector("x")
    i = gc.lvector("i")
    made = line() + 1
    part = x[i]
    f = gc.function([x, i], part * 2, mode=mode)
    with pytest.raises(IndexError) as caught:
        f(np.ones(3), np.array([0, 7]))
    notes = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert f"{__file__}:{made}" in notes


def test_check_nan_names_the_node() -> None:
    """jax-ml/jax#475, #24955, #25299, #7935: the NaN guard lost the line."""
    x = gc.vector("x")
    made = line() + 1
    y = gc.log(x)
    f = gc.function([x], y * 2 + 1, mode=gc.Mode(check_nan=True))
    f([1.0, 2.0])
    with pytest.raises(gc.errors.NaNError, match="log") as caught:
        f([1.0, -1.0])
    assert f"{__file__}:{made}" in str(caught.value)
    assert isinstance(caught.value, FloatingPointError)
    assert np.isnan(gc.function([x], y, mode=gc.Mode(check_nan=True))([np.nan])).all()  # it came in as NaN


def test_a_failing_call_changes_no_state(mode: Any) -> None:
    """clab/dynet#233 and updates in general: after an error everything is as before."""
    s, n = gc.shared(np.arange(3.0), "s"), gc.shared(0, "n")
    i = gc.lscalar("i")
    f = gc.function([i], s[i], updates={s: s + 1, n: n + 1}, mode=mode)
    f(1)
    with pytest.raises(IndexError):
        f(9)
    assert s.get_value().tolist() == [1, 2, 3] and int(n.get_value()) == 1


# ---- vocabulary: dtypes, truth values, shapes of calls --------------------------------------------


def test_shared_has_the_dtype_of_its_value() -> None:
    """Theano's classic: np.float64 data and floatX=float32; the update says what to do."""
    with gc.config(floatX="float32"):
        w = gc.shared(np.zeros(3), "w")
        x = gc.vector("x")
        assert w.dtype == "float64" and x.dtype == "float32"
        v = gc.shared(np.zeros(3, "float32"), "v")
    with pytest.raises(TypeError, match=r"(?s)v.*float64.*cast"):
        gc.function([x], updates={v: v + w})
    assert gc.function([x], updates={w: w + x}) is not None


def test_python_scalars_are_weak() -> None:
    """pymc-devs/pytensor#2244: a literal has no dtype of its own."""
    x = gc.fvector("x")
    for y in (x * 0.5, 2 * x, x + 1, x ** 2, 1 / x, gc.maximum(x, 0.0), gc.where(x > 0, x, 0.0), gc.clip(x, -1, 1.0), x % 2):
        assert y.dtype == "float32"
    assert (x * gc.constant(2.0)).dtype == "float64"
    assert (gc.lvector("i") + x).dtype == "float64"
    assert (gc.bvector("b") * 2).dtype == "int8"
    with pytest.raises(ValueError, match="300"):
        gc.bvector("b") + 300


def test_truth_values_are_errors() -> None:
    """jax-ml/jax#2956: a branch on a symbolic value says what to use instead."""
    x = gc.scalar("x")
    for use in (lambda: bool(x > 0), lambda: 1 if x > 0 else 2, lambda: x in [1.0], lambda: float(x), lambda: [*gc.vector("v")], lambda: max(x, 1)):
        with pytest.raises(TypeError, match="gc\\."):
            use()
    assert bool(gc.constant(2.0) > 1.0) is True


def test_integer_division_by_zero(mode: Any) -> None:
    """Division of integers never raises: x // 0 = 0, and the smallest integer // -1 wraps."""
    x, y = gc.ivector("x"), gc.ivector("y")
    f = gc.function([x, y], [x // y, x % y], mode=mode)
    low = np.iinfo("int32").min
    quotient, rest = f(np.array([7, -7, 0, low, 7], "int32"), np.array([0, 0, 0, -1, -2], "int32"))
    assert quotient.tolist() == [0, 0, 0, low, -4] and rest.tolist() == [0, 0, 0, 0, -1]


def test_functions_without_inputs(mode: Any) -> None:
    """A function of state, or of nothing."""
    assert gc.function([], [gc.arange(3), gc.constant(2.0) + 1], mode=mode)()[0].tolist() == [0, 1, 2]
    s = gc.shared(2.0, "s")
    assert float(gc.function([], s * s, mode=mode)()) == 4.0


def test_results_are_arrays(mode: Any) -> None:
    """Scalars come back as 0-d arrays, writable, and never the memory of an argument or of state."""
    x = gc.scalar("x")
    v = gc.vector("v")
    s = gc.shared(np.ones(3), "s")
    f = gc.function([x, v], [x, x + 1, gc.cast(x, "int8"), v, v[:2], s, s.reshape((1, 3)), gc.broadcast_to(x, (2, 2))], mode=mode)
    given = np.arange(3.0)
    results = f(2.0, given)
    for r in results:
        assert isinstance(r, np.ndarray) and r.flags.writeable
        r[...] = 7
    assert given.tolist() == [0, 1, 2] and s.get_value().tolist() == [1, 1, 1]
    assert results[0].shape == () and results[2].dtype == np.int8
    assert f(2.0, given)[1] == 3.0


def test_functions_pickle() -> None:
    """pymc-devs/pytensor#2108, #1072; Theano/Theano#4305: pickled functions failed, or came back different."""
    w = gc.shared(np.array([1.0, 2.0]), "w")
    x = gc.vector("x")
    f = gc.function([gc.In(x, value=[1.0, 1.0])], {"y": gc.log(1 + gc.exp(x * w)), "w": w}, updates={w: w + x})
    f([1.0, 1.0])
    g = pickle.loads(pickle.dumps(f))
    before = w.get_value()
    a, b = f([0.5, 1.0]), g([0.5, 1.0])
    assert a["y"].tobytes() == b["y"].tobytes() and b["w"].tobytes() == before.tobytes()
    f([1.0, 1.0])
    assert g([0.0, 0.0])["w"].tolist() == [before[0] + 0.5, before[1] + 1.0]  # a copy of the state, not the state
    assert g()["w"] is not None


def test_reusing_a_function_at_other_sizes_keeps_old_results(mode: Any) -> None:
    """Theano/Theano#796: a result given out is not overwritten by the next call."""
    x = gc.vector("x")
    f = gc.function([x], gc.tanh(x) * 2, mode=mode)
    first = f(np.ones(4))
    kept = first.copy()
    f(np.zeros(4))
    f(np.zeros(9))
    assert first.tobytes() == kept.tobytes()


def test_same_script_same_dump() -> None:
    """jax-ml/jax#39741 and cache misses by object identity: nothing depends on addresses or the order of sets."""
    def script() -> str:
        x, w = gc.matrices("x", "w")
        cost = gc.nn.cross_entropy(gc.relu(x @ w), gc.argmax(x, axis=1)) + (w ** 2).mean()
        f = gc.function([x, w], [cost, *gc.grad(cost, [w, x])])
        return f.dump("final") + f.dump("memory") + f.dump("kernels") + f.dump("llvm")

    assert script() == script()
