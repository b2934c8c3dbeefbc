"""Narrow products with one left operand are one product with joined weights (passes/columns.py): the same bits, the state's values, and where not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from graph_subjects import bits
from helpers import leaf
from hypothesis import event, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.ir import Graph, Shared, Var
from graphc.kept import KeptState
from graphc.passes.columns import fewer_vectors
from graphc.passes.context import Context
from graphc.passes.keep import keep
from graphc.verify import verify

REFERENCE, APART = gc.Mode(backend="reference"), gc.Mode(exclude=["keep"])
rng = np.random.default_rng(0)


def weights(k: int, widths: Sequence[int], dtype: str = "float32") -> list[Shared]:
    return [gc.shared(rng.normal(size=(k, n)).astype(dtype), f"w{i}") for i, n in enumerate(widths)]


def compiled(x: Var, outputs: Sequence[Var], mode: gc.Mode | None = None, **options: Any) -> gc.Function:
    with gc.config(verify=True):
        return gc.function([x], list(outputs), mode=mode or gc.Mode(), **options)


def products(f: gc.Function) -> list[int]:
    """Columns of the products."""
    return [node.outputs[0].type.shape[-1] for node in f.graph.nodes if node.op.name == "matmul"]


def test_joined_products_have_the_same_bits() -> None:
    """Any widths, sizes and readers; of one call after the other with other state."""
    found = []

    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        k, dtype = data.draw(st.sampled_from([2, 3, 17, 64, 130])), data.draw(st.sampled_from(["float32", "float64", "float16"]))
        widths = data.draw(st.lists(st.sampled_from([4, 10, 2, 24, 3, 8, 16, 40, 1]), min_size=2, max_size=5))
        m, known, lead = data.draw(st.sampled_from([5, 33, 16, 1, 2, 0, 70])), data.draw(st.booleans()), data.draw(st.sampled_from([(), (), (2,)]))
        x, ws = gc.tensor("x", shape=(*lead, m if known else "m", k), dtype=dtype), weights(k, widths, dtype)
        how = data.draw(st.sampled_from(["read", "given away", "some"]))
        seen = [w * 0.5 if data.draw(st.integers(0, 5)) == 0 else w for w in ws]
        ys = [x @ w for w in seen]
        outputs = [gc.tanh(y) * 0.5 if how == "read" or (how == "some" and i) else y for i, y in enumerate(ys)]
        f, g = compiled(x, outputs), compiled(x, outputs, APART)
        found.append(len(products(f)) < len(products(g)))
        event(f"joined: {found[-1]}")
        array = rng.normal(size=(*lead, m, k)).astype(dtype)
        for _ in range(2):
            assert bits(f(array)) == bits(g(array)), f.dump("kernels")
            ws[0].set_value(rng.normal(size=(k, widths[0])).astype(dtype))

    test()
    assert sum(found) > len(found) // 3  # else it looks at nothing


@pytest.mark.parametrize(("widths", "rows", "away", "joined"), [
    ((10, 10, 10), "m", False, True), ((10, 10, 10), "m", True, True),  # 3 vectors of 64 bytes, 2 joined
    ((24, 24, 24), "m", False, False), ((24, 24, 24), 32, False, True), ((24, 24, 24), 32, True, False), ((24, 24, 24), 15, False, False),  # 6 and 5
    ((24, 24), "m", False, True), ((10, 10), 32, False, False), ((10, 64, 10, 10), "m", False, True), ((16, 16, 16), 32, False, False),
    ((4, 1), 32, False, False), ((4, 4), 1, False, False), ((100, 100, 100), 32, False, False)])
def test_where_vectors_fall_away(widths: tuple[int, ...], rows: Any, away: bool, joined: bool) -> None:
    x, ws = gc.tensor("x", shape=(rows, 30), dtype="float32"), weights(30, widths)
    ys = [x @ w for w in ws]
    f = compiled(x, ys if away else [gc.tanh(y) for y in ys])
    narrow = [n for n in widths if n % 16]
    assert (sum(narrow) in products(f)) == joined
    array = rng.normal(size=(33 if rows == "m" else rows, 30)).astype("float32")
    for y, w in zip(f(array), ws, strict=True):
        want = array @ w.get_value()
        np.testing.assert_allclose(y, want if away else np.tanh(want), rtol=1e-4, atol=1e-5)
    if joined:
        assert [s.type.shape for s in f.graph.shared if isinstance(s, KeptState)] == [(30, sum(narrow))]


def test_a_tenth_of_the_vectors() -> None:
    assert fewer_vectors([160] * 3) and not fewer_vectors([176] * 3) and not fewer_vectors([96] * 3, 4) and fewer_vectors([96] * 2, 4)
    assert not fewer_vectors([40]) and not fewer_vectors([])


def test_state_that_changes_or_that_the_user_holds() -> None:
    x, ws = gc.tensor("x", shape=("m", 30), dtype="float32"), weights(30, (4, 4, 7))
    out = sum(gc.sum(gc.tanh(x @ w), axis=1) for w in ws)
    f, g = compiled(x, [out]), gc.function([x], [out], mode=REFERENCE)
    assert products(f) == [15]
    array, step = rng.normal(size=(9, 30)).astype("float32"), gc.function([], None, updates={ws[1]: ws[1] * 0.5})
    for k in range(4):
        np.testing.assert_allclose(f(array), g(array), rtol=1e-4, atol=1e-5)
        ws[k % 3].set_value(ws[k % 3].get_value() - 1)
        np.testing.assert_allclose(f(array), g(array), rtol=1e-4, atol=1e-5)
        step()
    mine = rng.normal(size=(30, 4)).astype("float32")
    ws[0].set_value(mine, borrow=True)
    for _ in range(3):
        np.testing.assert_allclose(f(array), g(array), rtol=1e-4, atol=1e-5)
        mine -= 1.5


def test_infinite_weights_stay_in_their_columns() -> None:
    x, ws = gc.tensor("x", shape=("m", 6), dtype="float64"), weights(6, (2, 3), "float64")
    value = ws[0].get_value()
    value[3, 1] = np.inf
    ws[0].set_value(value)
    f = compiled(x, [gc.abs(x @ w) for w in ws])
    assert products(f) == [5]
    array = rng.normal(size=(4, 6))
    array[2, 3] = 0.0
    a, b = f(array)
    assert np.isnan(a[2, 1]) and np.isposinf(a[[0, 1, 3], 1]).all() and np.isfinite(a[:, 0]).all() and np.isfinite(b).all()


def test_expressions_and_transposes_of_state_are_joined_too() -> None:
    x, w, v = gc.tensor("x", shape=("m", 30), dtype="float32"), *weights(30, (4, 9))
    u = gc.shared(rng.normal(size=(3, 30)).astype("float32"), "u")
    outputs = [gc.tanh(x @ gc.exp(w)), gc.tanh(x @ u.T), gc.tanh(x @ v[:, 2:7])]
    f = compiled(x, outputs)
    assert products(f) == [12]
    array = rng.normal(size=(20, 30)).astype("float32")
    assert bits(f(array)) == bits(compiled(x, outputs, APART)(array))


def test_what_is_not_joined() -> None:
    x, z = (gc.tensor(name, shape=("m", 30), dtype="float32") for name in "xz")
    w, v = weights(30, (4, 4))
    given_ = gc.tensor("given", shape=(30, 4), dtype="float32")
    some = lambda *ys: [gc.tanh(y) for y in ys]

    def columns(outputs: Sequence[Var], **options: Any) -> list[int]:
        return products(gc.function([x, z, given_], outputs, on_unused_input="ignore", **options))

    assert columns(some(x @ w, x @ v)) == [8]
    assert columns(some(x @ w, z @ v)) == [4, 4]
    assert columns(some(x @ w, x @ given_)) == [4, 4]
    assert columns(some(x @ w, x @ v), updates={v: v * 2}) == [4, 4]
    assert columns(some(x @ w[:, :3], x @ w[:, 1:])) == [3, 3]  # more memory than the state
    assert columns(some(x @ w, (x @ w) @ v[:4])) == [4, 4]
    assert columns(some(x @ w, x @ v), mode=gc.Mode(backend="numpy")) == [4, 4]


def test_batches_share_weights() -> None:
    """Slices of the result, in graphs that the verifier sees; the second time nothing is left to join."""
    x, *ws = (leaf("x", "float64", (2, "m", 5)), *weights(5, (3, 2), "float64"))
    graph = Graph([x], [gc.exp(x @ w) for w in ws])
    context = Context(native=True)
    after = keep(graph, context)
    verify(after, "keep", before=graph)
    assert sum(node.op.name == "matmul" for node in after.nodes) == 1 and {r.rule for r in context.log} == {"keep"}
    assert keep(after, Context(native=True)) is after and keep(graph, Context(native=False)) is graph
