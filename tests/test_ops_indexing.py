"""Indexing: values and sizes against NumPy for a battery of keys, setting and adding, gradients, messages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphc import dims
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.functions.creation import asarray
from graphc.functions.indexing import (
    argwhere,
    flatnonzero,
    getitem,
    inc_subtensor,
    nonzero,
    one_hot,
    set_subtensor,
    take,
    take_along_axis,
)
from graphc.functions.shaping import reshape, transpose
from graphc.ir import Graph, apply
from graphc.ops import indexing
from graphc.ops.arithmetic import add, mul
from graphc.ops.comparison import greater
from graphc.ops.core import dim_op, size_of
from graphc.ops.evaluate import evaluate
from graphc.ops.slicing import slice_entry, slice_size
from tests.small_grad import check_gradient, check_second, leaf, run

S = slice
MASK = np.array([[True, False, True, True], [False] * 4, [True, True, False, False]])
BASIC = [
    0, -1, (1, 2), (1, 2, 3), (-3, -4, -5), (), ..., S(None), S(1, None), S(None, -1), S(None, None, -1), S(None, None, -2),
    S(2, 0, -1), S(-2, None), S(5, 9), S(2, 1), S(0, 0), S(-9, 9), S(9, -9, -3), (S(None), 1), (..., 1), (1, ...), (0, ..., -1),
    (S(1, None), S(None, None, 2), S(3, 0, -2)), None, (None, 0), (0, None, 1), (..., None), (S(None), None, 2, ..., None), np.int32(1),
    (np.uint8(2), S(np.int64(1), None)), (S(None), S(None), S(None)), (None, ..., None),
]
ADVANCED = [
    [0, 2], [[0, 1], [2, -1]], np.array([], int), [], ([0, 1], [1, 3]), ([0, 1], S(None), [1, 3]), ([[0], [2]], [1, 3]),
    (S(None), [0, 0, 1]), (S(None), [0, 3], [1, -5]), (0, S(None), [1, 2]), (0, [1, 2]), ([1, 2], 0), (S(None), 0, [4, 4]),
    (S(1, None), [0, 2], S(None, None, -2)), (None, [0, 1]), ([0, 1], None, [1, 2]), ([0, 1], None, S(1, 3)), (..., [0, 1]), ([0, 1], ...),
    np.array([2, 0], np.uint8), (np.array(1), [0, 1]), (S(None), None, [0, 1], S(None), None), (np.zeros((2, 0), int), S(0, 2)),
    ([0], [1], [2]), ([[1]], ..., [[0, 3]]), (S(0, 0), [1, 1]), (1, None, [0, 1]),
]
MASKS = [
    MASK, np.zeros(3, bool), [True, False, True], (S(None), np.array([True, False, True, False])), (MASK, S(1, 3)), (MASK, 0),
    ([True, False, True], S(None), [0, 1]), (S(None), [True, True, False, False], [1, 0]), (None, np.ones(3, bool)),
    np.ones((3, 4, 5), bool), (..., np.array([True, False, False, True, True])), np.zeros((3, 4, 5), bool), True, False, np.bool_(True),
]
X = np.arange(60.0).reshape(3, 4, 5)


def checked(f, x, symbolic):
    """The value of ``f(x)``, whose type must say the right sizes."""
    env = {}
    v = leaf(x, symbolic, env)
    y = f(v)
    got = evaluate(Graph([v], [y]), [x], env)[0]
    assert got.ndim == y.type.ndim and got.dtype == y.type.dtype
    for size, n in zip(y.type.shape, got.shape, strict=True):
        if not any(s.kind == "data" for s in dims.symbols(size)):
            assert dims.evaluate(size, env) == n, (y.type, got.shape)
    return got


# ---- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("key", [*BASIC, *ADVANCED, *MASKS], ids=repr)
def test_values(key, symbolic):
    got = checked(lambda v: getitem(v, key), X, symbolic)
    want = X[[] if isinstance(key, list) and not key else key]
    assert got.shape == want.shape
    np.testing.assert_array_equal(got, want)


BOUNDS = [None, 0, 1, 2, 6, -1, -2, -6]
STEPS = [None, 2, 3, -1, -2]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_slices_of_known_and_unknown_axes(n):
    x = np.arange(float(n))
    env = {}
    unknown = leaf(x, True, env)
    known = leaf(x)
    keys = list(itertools.product(BOUNDS, BOUNDS, STEPS))
    outs = [getitem(v, slice(*k)) for v in (known, unknown) for k in keys]
    values = evaluate(Graph([known, unknown], outs), [x, x], env)
    for out, got, k in zip(outs, values, keys * 2, strict=True):
        np.testing.assert_array_equal(got, x[slice(*k)], err_msg=str(k))
        assert dims.evaluate(out.type.shape[0], env) == got.shape[0], (k, n, out.type)


def test_sizes_with_dims_as_bounds():
    n, m = dims.dim("n"), dims.dim("m")
    bounds = [None, 1, -2, n, n - 1, n - 2, n - 3, n // 2, m, m - 2, 2 * n, -n, 1 - n, m - n]
    for start, stop, step in itertools.product(bounds, bounds, (1, 2, -1, -2)):
        size = slice_size(n, *slice_entry(n, start, stop, step))
        for a, b in itertools.product((0, 1, 2, 5), (0, 1, 3, 8)):
            env = {n.symbol: a, m.symbol: b}
            key = slice(*(None if v is None else dims.evaluate(v, env) for v in (start, stop, step)))
            assert dims.evaluate(size, env) == len(range(*key.indices(a))), (start, stop, step, a, b)


def test_sizes_that_mean_the_same_are_written_the_same():
    n = dims.dim("n")
    x = leaf(np.zeros(3))
    x.type = x.type.with_shape((n,))
    assert getitem(x, S(1, None)).type == getitem(x, S(None, -1)).type == getitem(x, S(None, apply(dim_op, size=n - 1))).type
    assert str(getitem(x, S(1, None)).type.shape[0]) == "max(0, n - 1)"
    assert str(getitem(x, S(None, 3)).type.shape[0]) == str(getitem(x, S(-3, None)).type.shape[0]) == "min(3, n)"
    assert getitem(x, S(None, None, -1)).type.shape == (n,)
    promised = x.type.with_shape((dims.dim("k", min=4),))
    x = leaf(np.zeros(4))
    x.type = promised
    assert str(getitem(x, S(1, -2)).type.shape[0]) == "k - 3"
    assert getitem(x, S(None, 3)).type.shape == (3,)


def test_variables_in_keys():
    i, j = np.int64(1), np.int32(-1)
    for f, key in [
        (lambda x, i, j: getitem(x, i), (1,)),
        (lambda x, i, j: getitem(x, (S(i, None), j)), (S(1, None), -1)),
        (lambda x, i, j: getitem(x, (S(None, j), i, S(j, None, j))), (S(None, -1), 1, S(-1, None, -1))),
        (lambda x, i, j: getitem(x, (i, ..., j)), (1, ..., -1)),
        (lambda x, i, j: getitem(x, [0, i, j]), ([0, 1, -1],)),
        (lambda x, i, j: getitem(x, (i, S(None), [0, 2])), (1, S(None), [0, 2])),
        (lambda x, i, j: getitem(x, (S(None), i, [0, 2])), (S(None), 1, [0, 2])),
        (lambda x, i, j: getitem(x, (S(None, i), [[0], [i]], S(i, None, i))), (S(None, 1), [[0], [1]], S(1, None, 1))),
        (lambda x, i, j: getitem(x, S(None, add(size_of(x, 0), j))), (S(None, 2),)),
        (lambda x, i, j: getitem(x, greater(x, 20.0)), (X > 20,)),
    ]:
        for symbolic in (False, True):
            np.testing.assert_array_equal(run(f, X, i, j, symbolic=symbolic), X[key])


def test_masks_given_as_arguments():
    x = np.arange(6.0)
    for mask in (x > 2, np.zeros(6, bool), np.ones(6, bool)):
        np.testing.assert_array_equal(run(getitem, x, mask, symbolic=True), x[mask])
        np.testing.assert_array_equal(run(lambda v, m: getitem(v, (None, m)), x, mask), x[None, mask])
    for condition in (True, False):
        np.testing.assert_array_equal(run(getitem, x, np.array(condition)), x[np.array(condition)])
    np.testing.assert_array_equal(run(lambda v, m: getitem(getitem(v, m), S(1, None)), x, x > 1, symbolic=True), x[x > 1][1:])


def test_whole_and_new_axes_are_no_gather():
    x = leaf(X)
    assert getitem(x, (S(None), None)).node.op.name == "expand_dims"
    assert getitem(x, (0, S(None))).node.op.name == "subtensor"
    assert getitem(x, [0, 1]).node.op.name == "advanced_subtensor"
    assert getitem(x, S(3, None, -1)).node.attrs["index"][0] == (2, None, -1)


def test_result_is_a_view_of_the_operand():
    value = np.arange(4.0)
    assert np.shares_memory(indexing.subtensor_op.forward(value, index=(1,)), value)
    assert indexing.subtensor_op.view and not indexing.advanced_subtensor_op.view


# ---- out of range and other errors -------------------------------------------------------------


@pytest.mark.parametrize("key,error,words", [
    (3, GraphcIndexError, "index 3 is out of range for axis 0, whose size is 3"),
    ((0, -5), GraphcIndexError, "index -5 is out of range for axis 1"),
    (([0, 3],), GraphcIndexError, "index 3 is out of range"),
    ((0, [1, 9]), GraphcIndexError, "index 9 is out of range for axis 1"),
    ((0, 0, 0, 0), GraphcIndexError, "too many indices: 4"),
    ((..., ...), GraphcIndexError, "at most one ellipsis"),
    (1.0, GraphcTypeError, r"got 1.0 \(float\)"),
    (np.float64(1), GraphcTypeError, "float64"),
    ("a", GraphcTypeError, "got 'a'"),
    ([0.5], GraphcTypeError, "integers or bools"),
    (S(0.5, None), GraphcTypeError, "slice has integers as bounds; got 0.5"),
    (S(None, None, 0), GraphcValueError, "step of a slice is not 0"),
    (([0, 1], [0, 1, 2]), GraphcIndexError, "do not broadcast"),
    (np.ones(4, bool), GraphcIndexError, r"mask of shape \(4,\) for axes of shape \(3,\)"),
    (np.ones((3, 4, 5, 1), bool), GraphcIndexError, "too many indices"),
    ((True, 0), GraphcIndexError, "bool scalar stands alone"),
], ids=repr)
def test_errors_when_the_graph_is_built(key, error, words):
    with pytest.raises(error, match=words) as caught:
        getitem(leaf(X), key)
    assert caught.value.where.file == __file__


@pytest.mark.parametrize("key", [3, -4, [0, 3], (0, [[-5]])], ids=repr)
def test_positions_out_of_range_at_run_time(key):
    with pytest.raises(IndexError):
        run(lambda v: getitem(v, key), X, symbolic=True)
    with pytest.raises(IndexError):
        run(lambda v: set_subtensor(getitem(v, key), 0), X, symbolic=True)


def test_mask_of_another_size_at_run_time():
    env = {}
    x, mask = np.arange(4.0), np.array([True, False, True])
    vs = [leaf(a, True, env) for a in (x, mask)]
    out = getitem(*vs)
    with pytest.raises(IndexError, match="mask of shape"):
        evaluate(Graph(vs, [out]), [x, mask], env)
    relations = [r for n in Graph(vs, [out]).nodes for r in n.op.relations([v.type for v in n.inputs], n.attrs)]
    assert [(r.kind, {r.a, r.b}) for r in relations] == [("equal", {vs[0].type.shape[0], vs[1].type.shape[0]})]


# ---- setting and adding ------------------------------------------------------------------------


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("key", [*BASIC, *ADVANCED, *MASKS[:-3]], ids=repr)
def test_set_and_inc(key, symbolic):
    where = [] if isinstance(key, list) and not key else key
    y = 100.0 + np.arange(X[where].size, dtype=float).reshape(X[where].shape)
    for f, add_at in ((set_subtensor, False), (inc_subtensor, True)):
        for values in (y, np.array(7.0)):
            want = X.copy()
            if add_at:
                np.add.at(want, where, values)
            else:
                want[where] = values
            got = run(lambda v, w, f=f: f(getitem(v, key), w), X, values, symbolic=symbolic)
            np.testing.assert_array_equal(got, want)


def test_repeated_positions():
    x = np.zeros(4)
    np.testing.assert_array_equal(run(lambda v: inc_subtensor(getitem(v, [1, 1, -3, 2]), [1.0, 2, 4, 8]), x), [0, 7, 8, 0])
    np.testing.assert_array_equal(run(lambda v: set_subtensor(getitem(v, [1, 1, -3, 2]), [1.0, 2, 4, 8]), x), [0, 4, 8, 0])


def test_operands_are_not_written_to():
    x = np.zeros(3)
    run(lambda v: inc_subtensor(getitem(v, 0), 1), x)
    assert not x.any()


def test_set_through_take_and_take_along_axis():
    x = np.arange(6.0).reshape(2, 3)
    want = x.copy()
    want[:, [2, 0]] = -1
    np.testing.assert_array_equal(run(lambda v: set_subtensor(take(v, [2, 0], axis=1), -1), x), want)
    want = x.copy()
    np.put_along_axis(want, np.array([[1], [2]]), 9.0, 1)
    np.testing.assert_array_equal(run(lambda v: set_subtensor(take_along_axis(v, [[1], [2]], 1), 9), x, symbolic=True), want)
    np.testing.assert_array_equal(run(lambda v: inc_subtensor(take_along_axis(v, [[1, 1], [2, 0]], 1), 1), x),
                                  x + np.array([[0, 2, 0], [1, 0, 1]]))


def test_what_is_set_is_the_array_of_the_whole_index():
    x = np.arange(12.0).reshape(3, 4)
    got = run(lambda v: set_subtensor(getitem(v, (S(1, None), [0, 2])), 0), x)
    assert got.shape == (3, 4) and got[1, 2] == 0 and got[0, 0] == 0 and got[1, 1] == 5
    got = run(lambda v: set_subtensor(getitem(getitem(v, S(1, None)), (S(None), [0, 2])), 0), x)
    assert got.shape == (2, 4)
    got = run(lambda v: set_subtensor(getitem(getitem(v, 1), ...), 0), x)
    np.testing.assert_array_equal(got, np.zeros(4))
    got = run(lambda v: set_subtensor(getitem(getitem(v, 1), None), [[1, 2, 3, 4.0]]), x)
    np.testing.assert_array_equal(got, [1, 2, 3, 4])


@pytest.mark.parametrize("dtype,y,fits", [
    ("int64", 1, True), ("int64", 1.5, False), ("int64", np.float32(1), False), ("int8", np.int64(3), True), ("int8", 300, None),
    ("float32", 1j, False), ("float32", np.float64(1), True), ("bool", 1, False), ("bool", True, True), ("uint8", True, True),
    ("complex64", 1.5, True),
])
def test_kinds_of_number_that_are_set(dtype, y, fits):
    x = getitem(leaf(np.zeros(3, dtype)), 0)
    if fits:
        assert set_subtensor(x, y).type.dtype == dtype
    else:
        with pytest.raises(GraphcValueError if fits is None else GraphcTypeError):
            set_subtensor(x, y)


def test_errors_of_set_subtensor():
    x = leaf(X)
    for wrong in (x, add(x, 1.0), 5, transpose(x)):
        with pytest.raises(GraphcTypeError, match="first argument is an indexing"):
            set_subtensor(wrong, 0)
    with pytest.raises(GraphcValueError, match="broadcast"):
        inc_subtensor(getitem(x, 0), np.zeros(3))
    with pytest.raises(GraphcTypeError, match="first argument is an indexing"):
        set_subtensor(getitem(x, True), 0)  # its result would have one axis more
    with pytest.raises(ValueError, match="shape"):
        run(lambda v, w: set_subtensor(getitem(v, S(1, None)), w), X, np.zeros((3, 4, 5)), symbolic=True)


# ---- gradients ---------------------------------------------------------------------------------

SMALL = np.random.default_rng(0).normal(size=(3, 4, 2))
KEYS = [1, (S(None), -1), S(None, None, -2), (None, S(1, None), ..., 0), [0, 2, 2], (S(None), [1, 1], [0, 1]), (0, S(None), [1, 1, 0]),
        SMALL[:, :, 0] > 0, (S(0, 0),), [], (..., None)]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_gradients(key):
    check_gradient(lambda v: getitem(v, key), SMALL)
    y = np.random.default_rng(1).normal(size=SMALL[[] if isinstance(key, list) and not key else key].shape)
    for f in (set_subtensor, inc_subtensor):
        check_gradient(lambda v, w, f=f: f(getitem(v, key), w), SMALL, y, symbolic=f is inc_subtensor)
        check_gradient(lambda v, w, f=f: f(getitem(v, key), w), SMALL, np.array(0.5))
    check_second(lambda v: mul(getitem(v, key), getitem(v, key)), SMALL)


def test_gradient_of_values_that_later_ones_replace():
    check_gradient(lambda v, w: set_subtensor(getitem(v, [1, 0, 1, -3]), w), np.ones(3), np.arange(4.0))
    check_second(lambda v, w: set_subtensor(getitem(mul(v, v), [1, 0, 1]), mul(w, w)), np.ones(3), np.arange(3.0))


@pytest.mark.parametrize("f", [
    lambda v: take(v, [[2, 0], [0, 0]], axis=0),
    lambda v: take(v, [5, -1]),
    lambda v: take(v, [-9, 7, 1], axis=1, mode="clip"),
    lambda v: take_along_axis(v, np.array([[[0], [1], [1], [0]]]), 2),
    lambda v: take_along_axis(v, np.argsort(SMALL, 1), 1),
    lambda v: inc_subtensor(take_along_axis(v, np.zeros((3, 4, 3), int), 2), v_part(v)),
])
def test_gradients_of_takes(f):
    check_gradient(f, SMALL)
    check_gradient(f, SMALL, symbolic=True)


def v_part(v):
    return getitem(v, (S(None), S(None), [0, 1, 1]))


def test_gradient_of_complex_values():
    z = SMALL[0] + 1j * SMALL[1]
    check_gradient(lambda v: getitem(v, ([0, 0], S(None, None, -1))), z)
    check_gradient(lambda v, w: inc_subtensor(getitem(v, S(1, 3)), w), z, z[:2])


# ---- take, nonzero, one_hot --------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("mode", ["raise", "clip", "wrap"])
def test_take(axis, mode):
    where = np.array([[0, 2], [1, 1]]) if mode == "raise" else np.array([[-7, 2], [99, 1]])
    for symbolic in (False, True):
        got = run(lambda v, i: take(v, i, axis, mode), X, where, symbolic=symbolic)
        np.testing.assert_array_equal(got, np.take(X, where, axis, mode=mode))
    assert run(lambda v: take(v, 1, axis), X).shape == np.take(X, 1, axis).shape


def test_take_along_axis_broadcasts():
    for xs, ps, axis in [((3, 4), (3, 2), 1), ((3, 4), (1, 2), 1), ((1, 4), (3, 2), 1), ((3, 4), (5, 4), 0), ((3, 4), (5, 1), -2)]:
        x, where = np.random.default_rng(2).normal(size=xs), np.random.default_rng(3).integers(-xs[axis], xs[axis], ps)
        want = np.take_along_axis(x, where, axis)
        np.testing.assert_array_equal(run(lambda v, i, a=axis: take_along_axis(v, i, a), x, where), want)
        np.testing.assert_array_equal(run(lambda v, i, a=axis: take_along_axis(v, i, a), x, where, symbolic=True), want)
    with pytest.raises(GraphcIndexError, match="ranks must agree"):
        take_along_axis(leaf(X), [0], 0)
    with pytest.raises(GraphcTypeError, match="indices are integers"):
        take_along_axis(leaf(X), X, 0)
    with pytest.raises(IndexError):
        run(lambda v: take_along_axis(v, [[9]], 1), np.zeros((1, 2)))


def test_nonzero():
    for x in (MASK, X - 30, np.zeros((2, 0)), np.array([0j, 1j])):
        for symbolic in (False, True):
            for k, want in enumerate(np.nonzero(x)):
                np.testing.assert_array_equal(run(lambda v, k=k: nonzero(v)[k], x, symbolic=symbolic), want)
            np.testing.assert_array_equal(run(argwhere, x, symbolic=symbolic), np.argwhere(x))
            np.testing.assert_array_equal(run(flatnonzero, x, symbolic=symbolic), np.flatnonzero(x))
    rows, columns = nonzero(leaf(MASK))
    assert rows.type == columns.type, "the positions of one nonzero share their unknown size"
    with pytest.raises(GraphcValueError, match="scalar has no positions"):
        nonzero(leaf(np.array(1.0)))


def test_sizes_found_at_run_time_go_on():
    """What depends on the length of x[mask] works: reshape, further indexing, setting."""
    x = np.arange(8.0)
    mask = x % 3 == 1

    def f(v, m):
        part = getitem(v, m)
        column = reshape(part, (-1, 1))
        return add(column, getitem(part, S(None, None, -1)))

    want = x[mask][:, None] + x[mask][::-1]
    np.testing.assert_array_equal(run(f, x, mask, symbolic=True), want)
    check_gradient(lambda v: f(v, asarray(mask)), x)
    check_gradient(lambda v: set_subtensor(getitem(getitem(v, greater(v, 2.5)), S(1, None)), 0.0), x)


def test_one_hot():
    i = np.array([[0, 2], [3, -1]])
    want = (i[..., None] == np.arange(3)).astype(float)
    np.testing.assert_array_equal(run(lambda v: one_hot(v, 3), i, symbolic=True), want)
    np.testing.assert_array_equal(run(lambda v: one_hot(v, 3, axis=0), i), np.moveaxis(want, -1, 0))
    np.testing.assert_array_equal(run(lambda v, n: one_hot(v, n, "int8", 1), i, np.array(3)), np.moveaxis(want, -1, 1))
    assert run(lambda v, n: one_hot(v, n, "int8", 1), i, np.array(3)).dtype == np.int8
    with pytest.raises(GraphcTypeError, match="integers"):
        one_hot([0.5], 2)
