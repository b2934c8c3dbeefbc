"""What is made of unchanged state is made once per change (passes/keep.py, graphc/kept.py): the values of the function as written, whoever changes the state."""

from __future__ import annotations

import gc as garbage
import pickle
import threading
import weakref
from unittest import mock

import numpy as np
import pytest

import graphc as gc
from graphc.ir import Container
from graphc.kept import KeptRunner, KeptState

REFERENCE = gc.Mode(backend="reference")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, shape).astype("float32")


def layer(rows: object = "n") -> tuple[gc.Function, gc.tensor, np.ndarray]:
    """x @ w.T, and numbers whose products are exact."""
    w, x = gc.shared(numbers(150, 70), "w"), gc.tensor("x", shape=(rows, 70), dtype="float32")
    return gc.function([x], x @ w.T), w, numbers(9, 70, seed=1)


def kept(f: gc.Function) -> list[KeptState]:
    return [s for s in f.graph.shared if isinstance(s, KeptState)]


def builds(f: gc.Function) -> list[int]:
    """A list that grows with each time the kept values are made."""
    runner, made = f._compiled.runner, []
    assert isinstance(runner, KeptRunner)
    inner = runner.recipes
    runner.recipes = lambda state, env: (made.append(1), inner(state, env))[1]
    return made


def test_a_weight_is_laid_out_once_for_each_change() -> None:
    f, w, x = layer()
    made = builds(f)
    assert [s.name for s in kept(f)] == ["w_kept"] and f.shared == (w,)
    for k in range(4):
        for _ in range(5):
            np.testing.assert_array_equal(f(x), x @ w.get_value().T)
        assert len(made) == k
        w.set_value(numbers(150, 70, seed=k + 5))


def test_another_function_changes_the_weight() -> None:
    f, w, x = layer()
    step, made = gc.function([], None, updates={w: w + 1}), builds(f)
    for k in range(6):
        for _ in range(3):
            np.testing.assert_array_equal(f(x), x @ w.get_value().T)
        assert len(made) == k
        step()


def test_an_array_that_the_user_holds_may_change_in_place() -> None:
    f, w, x = layer()
    for _ in range(3):
        f(x)
    held = w.get_value(borrow=True)
    for _ in range(3):
        held += 1
        np.testing.assert_array_equal(f(x), x @ held.T)
    gc.function([], None, updates={w: w * 2})()  # the state is another array now, which the user does not have
    made = builds(f)
    for _ in range(3):
        np.testing.assert_array_equal(f(x), x @ w.get_value().T)
        held += 1
    assert len(made) == 1
    mine = numbers(150, 70, seed=3)
    other = gc.shared(mine, "other", borrow=True)
    g = f.copy(swap={w: other})
    for _ in range(3):
        mine -= 2
        np.testing.assert_array_equal(g(x), x @ mine.T)
    w.set_value(mine, borrow=True)
    for _ in range(3):
        mine *= -1
        np.testing.assert_array_equal(f(x), x @ mine.T)


def test_get_value_with_borrow_is_the_storage() -> None:
    w = gc.shared(numbers(4, 4))
    a, b = w.get_value(borrow=True), w.get_value(borrow=True)
    a[0, 0] = 100
    assert b[0, 0] == 100 == w.get_value()[0, 0]


@pytest.mark.parametrize("make", [
    lambda w, u: gc.exp(w * 0.01), lambda w, u: w @ u, lambda w, u: gc.cast(gc.maximum(w, 0), "float32"), lambda w, u: w / (1 + gc.max(gc.abs(w))),
    lambda w, u: gc.concatenate([w, u], 1)[:, 30:110], lambda w, u: gc.reshape(gc.transpose(gc.sqrt(gc.abs(w))), (100, 100))])
def test_expressions_of_state(make: object) -> None:
    """Computed once; the same bits as in the function that computes them in each call."""
    w, u, b = gc.shared(numbers(100, 100), "w"), gc.shared(numbers(100, 100, seed=2) / 7, "u"), gc.tensor("b", shape=("n", 100), dtype="float32")
    out = gc.tanh(b @ make(w, u)) + 1  # type: ignore[operator]
    x = numbers(12, 100, seed=4) / 100
    with gc.config(verify=True):
        f = gc.function([b], out)
    assert len(kept(f)) == 1 and not kept(gc.function([b], out, mode=gc.Mode(exclude=["keep"])))
    for k in range(3):
        for _ in range(3):
            np.testing.assert_array_equal(f(x), gc.function([b], out, mode=gc.Mode(exclude=["keep"]))(x))
        np.testing.assert_allclose(f(x), gc.function([b], out, mode=REFERENCE)(x), rtol=2e-5, atol=2e-6)
        (w, u)[k % 2].set_value(numbers(100, 100, seed=9 + k) / 3)


def test_what_is_not_kept() -> None:
    """State that the function changes, what is small, what would take more memory than the state, what only outputs are."""
    w, v, x = gc.shared(numbers(150, 70), "w"), gc.shared(numbers(150), "v"), gc.tensor("x", shape=("n", 70), dtype="float32")
    b = gc.tensor("b", shape=(150, 150), dtype="float32")
    assert not kept(gc.function([x], x @ w.T, updates={w: w * 2}))
    assert not kept(gc.function([b], b * gc.exp(v)))
    assert not kept(gc.function([b], b * gc.exp(v[:, None] + v)))
    assert not kept(gc.function([], gc.exp(w)))
    assert not kept(layer(1)[0])
    assert not kept(gc.function([x], gc.grad(gc.sum((x @ w.T) ** 2), w), updates={w: w + 1}))


def test_one_of_two_weights_changes() -> None:
    w, u = gc.shared(numbers(90, 70), "w"), gc.shared(numbers(90, 70, seed=2), "u")
    x = gc.tensor("x", shape=("n", 70), dtype="float32")
    f = gc.function([x], gc.sum((x @ w.T) * (x @ u.T)), updates={w: w - 1})
    g = gc.function([x], gc.sum((x @ w.T) * (x @ u.T)))
    assert [s.name for s in kept(f)] == ["u_kept"] and len(kept(g)) == 2
    data = numbers(5, 70, seed=3)
    for k in range(12):
        a, b = w.get_value(), u.get_value()
        want = np.sum((data @ a.T).astype("float64") * (data @ b.T))
        for h in (g, f):
            np.testing.assert_allclose(h(data), want, rtol=1e-5)
        if k % 4 == 3:
            u.set_value(numbers(90, 70, seed=k))


def test_functions_and_their_memory_go() -> None:
    f, w, x = layer()
    for _ in range(4):
        f(x)
    seen = weakref.ref(f._compiled.runner)
    garbage.collect()
    garbage.disable()
    try:
        del f
        assert seen() is None
    finally:
        garbage.enable()
    w.set_value(numbers(150, 70, seed=3))


def test_pickles_and_copies_have_their_own() -> None:
    f, w, x = layer()
    f(x)
    g = pickle.loads(pickle.dumps(f))
    w.set_value(w.get_value() + 1)
    for _ in range(3):
        np.testing.assert_array_equal(g(x), x @ (w.get_value() - 1).T)
        np.testing.assert_array_equal(f(x), x @ w.get_value().T)
    h = f.copy(swap={w: gc.shared(numbers(150, 70, seed=8), "other")})
    np.testing.assert_array_equal(h(x), x @ numbers(150, 70, seed=8).T)


def test_unequal_sizes_that_were_taken_to_be_equal() -> None:
    """The second program, for calls that do not fit the first, keeps its own."""
    w = gc.shared(numbers(150, 70), "w")
    x, y = gc.tensor("x", shape=("n", 70), dtype="float32"), gc.tensor("y", shape=("m", 70), dtype="float32")
    f = gc.function([x, y], (x + y) @ w.T)
    a, b = numbers(6, 70, seed=1), numbers(1, 70, seed=2)
    for _ in range(3):
        np.testing.assert_array_equal(f(a, a), (a + a) @ w.get_value().T)
        np.testing.assert_array_equal(f(a, b), (a + b) @ w.get_value().T)
        w.set_value(w.get_value() - 1)


def test_several_threads_while_the_weight_changes() -> None:
    """Every result belongs to one of the weight's values, never to a mixture."""
    f, w, x = layer()
    values = [numbers(150, 70, seed=k) for k in range(4)]
    wanted = [x @ a.T for a in values]
    w.set_value(values[0])
    wrong: list[np.ndarray] = []

    def calls() -> None:
        for _ in range(300):
            got = f(x)
            if not any(np.array_equal(got, want) for want in wanted):
                wrong.append(got)

    threads = [threading.Thread(target=calls) for _ in range(3)]
    for t in threads:
        t.start()
    k = 0
    while any(t.is_alive() for t in threads):
        w.set_value(values[k % 4])
        k += 1
    for t in threads:
        t.join()
    assert not wrong
    np.testing.assert_array_equal(f(x), x @ w.get_value().T)


def test_the_dump_of_a_function_that_keeps_parses() -> None:
    f, w, _ = layer()
    g = gc.load_dump(f.dump("final"))
    assert [s.name for s in g.shared] == ["w", "w_kept"]
    np.testing.assert_array_equal(g.shared[1].get_value(), w.get_value().T)


# ---- panels -----------------------------------------------------------------------------------------


def paneled(f: gc.Function) -> bool:
    return any(s.recipe.type.ndim == 4 for s in kept(f))


@pytest.mark.parametrize("dtype, k, n, turned", [
    ("float32", 512, 1024, False), ("float32", 784, 1024, True), ("float32", 300, 3072, False), ("float32", 4096, 1024, False), ("float64", 272, 512, True)])
def test_large_weights_lie_in_panels(dtype: str, k: int, n: int, turned: bool) -> None:
    """Whole numbers, so that every order of the sums gives the same; all heights of tiles; one and two threads."""
    w = gc.shared(numbers(*((n, k) if turned else (k, n))).astype(dtype), "w")
    x = gc.tensor("x", shape=("n", k), dtype=dtype)
    functions = [gc.function([x], gc.nn.relu(x @ (w.T if turned else w)), threads=t) for t in (1, 2)]
    assert all(paneled(f) for f in functions)
    for change in range(2):
        weight = w.get_value().T if turned else w.get_value()
        for rows in (0, 1, 2, 5, 7, 12, 61, 150):
            data = numbers(rows, k, seed=rows).astype(dtype)
            want = np.maximum(data @ weight, 0)
            for f in functions:
                np.testing.assert_array_equal(f(data), want)
        w.set_value(w.get_value() + (1 - change))


def test_panels_have_the_bits_of_other_products() -> None:
    w, x = gc.shared(np.random.default_rng(0).normal(size=(768, 1024)).astype("float32")), gc.tensor("x", shape=("n", 768), dtype="float32")
    f, g = (gc.function([x], x @ w, mode=gc.Mode(exclude=exclude)) for exclude in ([], ["keep"]))
    assert paneled(f)
    for rows in (2, 9, 130):
        data = np.random.default_rng(rows).normal(size=(rows, 768)).astype("float32")
        data[0, 3], data[-1, 700], data[1, 5] = np.inf, np.nan, -0.0
        np.testing.assert_array_equal(f(data), g(data))


def test_panels_for_operands_of_any_form() -> None:
    """More leading axes, a transposed operand, two products that share the panels, a view of the result."""
    w = gc.shared(numbers(512, 1024), "w")
    x, y = gc.tensor("x", shape=("a", "b", 512), dtype="float32"), gc.tensor("y", shape=(512, "b"), dtype="float32")
    f = gc.function([x, y], [x @ w, (y.T @ w).T, gc.sum(x @ w, axis=1)])
    assert paneled(f) and len(kept(f)) == 1
    a, b = numbers(3, 5, 512, seed=1), numbers(512, 5, seed=2)
    for _ in range(3):
        for got, want in zip(f(a, b), (a @ w.get_value(), (b.T @ w.get_value()).T, (a @ w.get_value()).sum(1)), strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("k, n, rows", [(512, 1000, "n"), (521, 1024, "n"), (512, 960, "n"), (512, 1024, 1)])
def test_what_does_not_lie_in_panels(k: int, n: int, rows: object) -> None:
    """Columns that fill no panels, sums that divide badly, rows of the weight that no cache minds, one row to multiply."""
    w, x = gc.shared(numbers(k, n), "w"), gc.tensor("x", shape=(rows, k), dtype="float32")
    f, data = gc.function([x], x @ w), numbers(1, k, seed=1)
    assert not kept(f)
    np.testing.assert_array_equal(f(data), data @ w.get_value())


def test_an_einsum_of_that_form() -> None:
    """It need not be in panels: any sizes, any strides."""
    x, p = gc.tensor("x", shape=("a", 3, 5), dtype="float32"), gc.tensor("p", shape=("d", 3, 7, 5), dtype="float32")
    f = gc.function([x, p], gc.einsum("abc,bdce->ade", x, gc.transpose(p, (1, 0, 3, 2))))
    for a, d in ((4, 2), (1, 1), (0, 3), (9, 6)):
        u, v = numbers(a, 3, 5, seed=a), numbers(d, 3, 7, 5, seed=d)
        np.testing.assert_array_equal(f(u, v), np.einsum("abc,bdce->ade", u, v.transpose(1, 0, 3, 2)))


def test_looking_at_state_loses_no_update() -> None:
    """``get_value(borrow=True)`` puts another array in the storage; a call that updates the state just then must not be undone."""
    s = gc.shared(np.zeros(3), "s")
    step = gc.function([], None, updates={s: s + 1})
    for _ in range(3):
        step()
    put, calls = Container.put, []

    def late(container: Container, *arguments: object) -> None:
        if not calls:
            calls.append(threading.Thread(target=step))
            calls[0].start()
            calls[0].join(0.2)  # it waits until the storage is free
        put(container, *arguments)

    with mock.patch.object(Container, "put", late):
        s.get_value(borrow=True)
    calls[0].join()
    np.testing.assert_array_equal(s.get_value(), 4)
