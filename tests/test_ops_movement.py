"""Shapes, axes, joining, splitting, padding, creation: values and sizes against NumPy, gradients, messages."""

from __future__ import annotations

import numpy as np
import pytest

from graphc import dims, dtypes
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.functions import creation as new
from graphc.functions import shaping as sh
from graphc.ir import Graph, Type, Var, apply
from graphc.ops.arithmetic import mul
from graphc.ops.comparison import greater
from graphc.ops.core import dim_op, size_of
from graphc.ops.evaluate import evaluate
from graphc.ops.gathering import nonzero as positions
from graphc.ops.indexing import index, take
from graphc.ops.movement import place_diagonal
from graphc.settings import config
from tests.small_grad import check_gradient, check_second, leaf, run

RNG = np.random.default_rng(5)
X = RNG.normal(size=(2, 3, 4))
M = RNG.normal(size=(3, 4))
V = RNG.normal(size=5)


def value(v):
    return evaluate(Graph([], [v]), [], {})[0]


def sized(*shape, dtype="float64", name="x"):
    return Var(Type(np.dtype(dtype), tuple(dims.as_size(s) for s in shape)), name=name)


#: name: (graphc, numpy, operands); every gradient is compared with differences, every size with NumPy's
CASES = {
    "reshape": (lambda x: sh.reshape(x, (4, 6)), lambda x: x.reshape(4, 6), X),
    "reshape -1": (lambda x: sh.reshape(x, (2, -1)), lambda x: x.reshape(2, -1), X),
    "reshape by sizes": (lambda x: sh.reshape(x, (size_of(x, 2), -1, 2)), lambda x: x.reshape(4, -1, 2), X),
    "reshape to int": (lambda x: sh.reshape(x, -1), lambda x: x.ravel(), X),
    "reshape vector shape": (lambda x: sh.reshape(x, new.asarray([3, 8])), lambda x: x.reshape(3, 8), X),
    "flatten": (sh.flatten, np.ravel, X),
    "flatten to 2": (lambda x: sh.flatten(x, 2), lambda x: x.reshape(2, -1), X),
    "ravel of scalar": (sh.ravel, np.ravel, np.array(3.0)),
    "transpose": (sh.transpose, np.transpose, X),
    "permute": (lambda x: sh.permute_dims(x, (1, -1, 0)), lambda x: x.transpose(1, 2, 0), X),
    "matrix_transpose": (sh.matrix_transpose, np.matrix_transpose, X),
    "swapaxes": (lambda x: sh.swapaxes(x, 0, -1), lambda x: x.swapaxes(0, -1), X),
    "moveaxis": (lambda x: sh.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1), X),
    "moveaxes": (lambda x: sh.moveaxis(x, (0, 2), (1, 0)), lambda x: np.moveaxis(x, (0, 2), (1, 0)), X),
    "dimshuffle": (lambda x: sh.dimshuffle(x, "x", 2, 0, "x", 1), lambda x: x.transpose(2, 0, 1)[None, :, :, None], X),
    "dimshuffle dropping": (lambda x: sh.dimshuffle(x, [1]), lambda x: x[0], V[None]),
    "expand_dims": (lambda x: sh.expand_dims(x, (0, -1)), lambda x: x[None, :, :, None], M),
    "squeeze": (lambda x: sh.squeeze(x, -1), lambda x: x[..., 0], M[..., None]),
    "squeeze 2": (lambda x: sh.squeeze(x, (0, 2)), lambda x: x[0, :, 0], V[None, :, None]),
    "flip": (sh.flip, np.flip, X),
    "flip 2": (lambda x: sh.flip(x, (0, -1)), lambda x: np.flip(x, (0, -1)), X),
    "roll": (lambda x: sh.roll(x, 5), lambda x: np.roll(x, 5), X),
    "roll axes": (lambda x: sh.roll(x, (1, -2), (0, 2)), lambda x: np.roll(x, (1, -2), (0, 2)), X),
    "roll one shift": (lambda x: sh.roll(x, 1, (0, 2)), lambda x: np.roll(x, 1, (0, 2)), X),
    "roll by size": (lambda x: sh.roll(x, size_of(x, 0), 1), lambda x: np.roll(x, 2, 1), X),
    "diagonal": (lambda x: sh.diagonal(x, 1), lambda x: np.diagonal(x, 1), M),
    "diagonal low": (lambda x: sh.diagonal(x, -2, 2, 0), lambda x: np.diagonal(x, -2, 2, 0), X),
    "tril": (lambda x: new.tril(x, 1), lambda x: np.tril(x, 1), X),
    "triu": (lambda x: new.triu(x, -1), lambda x: np.triu(x, -1), M),
    "diag of matrix": (lambda x: new.diag(x, -1), lambda x: np.diag(x, -1), M),
    "diag of vector": (lambda x: new.diag(x, 2), lambda x: np.diag(x, 2), V),
    "diag of vector low": (lambda x: new.diag(x, -1), lambda x: np.diag(x, -1), V),
    "broadcast_to": (lambda x: sh.broadcast_to(x, (2, 3, 4)), lambda x: np.broadcast_to(x, (2, 3, 4)), M),
    "concatenate": (lambda x, y: sh.concatenate([x, y, x], 1), lambda x, y: np.concatenate([x, y, x], 1), M, M[:, :2]),
    "concatenate flat": (lambda x, y: sh.concat([x, y], None), lambda x, y: np.concatenate([x, y], None), M, V),
    "join": (lambda x, y: sh.join(-1, x, y), lambda x, y: np.concatenate([x, y], -1), M, M),
    "stack": (lambda x, y: sh.stack([x, y], -1), lambda x, y: np.stack([x, y], -1), M, M + 1),
    "stack of scalars": (lambda x: sh.stack([index(x, 1), 2.0, index(x, 0)]), lambda x: np.array([x[1], 2.0, x[0]]), V),
    "vstack": (lambda x, y: sh.vstack([x, y]), lambda x, y: np.vstack([x, y]), M, M[0]),
    "hstack": (lambda x, y: sh.hstack([x, y]), lambda x, y: np.hstack([x, y]), M, M),
    "hstack vectors": (lambda x: sh.hstack([x, x]), lambda x: np.hstack([x, x]), V),
    "split": (lambda x: sh.split(x, 2, axis=1)[1], lambda x: np.split(x, 2, axis=1)[1], M),
    "split at": (lambda x: sh.split(x, [1, 3], axis=1)[1], lambda x: np.split(x, [1, 3], axis=1)[1], M),
    "split past": (lambda x: sh.split(x, [3, 9, 1])[2], lambda x: np.split(x, [3, 9, 1])[2], V),
    "array_split": (lambda x: sh.array_split(x, 3)[1], lambda x: np.array_split(x, 3)[1], V),
    "repeat": (lambda x: sh.repeat(x, 2, 1), lambda x: np.repeat(x, 2, 1), X),
    "repeat flat": (lambda x: sh.repeat(x, 3), lambda x: np.repeat(x, 3), M),
    "repeat counts": (lambda x: sh.repeat(x, [2, 0, 1], 0), lambda x: np.repeat(x, [2, 0, 1], 0), M),
    "repeat one count": (lambda x: sh.repeat(x, [2], 0), lambda x: np.repeat(x, [2], 0), M),
    "repeat by size": (lambda x: sh.repeat(x, size_of(x, 1), 0), lambda x: np.repeat(x, 4, 0), M),
    "repeat never": (lambda x: sh.repeat(x, 0, 0), lambda x: np.repeat(x, 0, 0), M),
    "tile": (lambda x: sh.tile(x, (2, 1, 2)), lambda x: np.tile(x, (2, 1, 2)), M),
    "tile int": (lambda x: sh.tile(x, 2), lambda x: np.tile(x, 2), M),
    "tile by size": (lambda x: sh.tile(x, (size_of(x, 0), 1)), lambda x: np.tile(x, (3, 1)), M),
    "pad": (lambda x: sh.pad(x, 1), lambda x: np.pad(x, 1), M),
    "pad value": (lambda x, v: sh.pad(x, (0, 2), constant_values=v), lambda x, v: np.pad(x, (0, 2), constant_values=v), M, np.array(0.3)),
    "pad values": (lambda x: sh.pad(x, ((1, 0), (2, 1)), constant_values=((1, 2), (3, 4))),
                   lambda x: np.pad(x, ((1, 0), (2, 1)), constant_values=((1, 2), (3, 4))), M),
    **{f"pad {mode}": (lambda x, m=mode: sh.pad(x, ((2, 0), (1, 5)), m), lambda x, m=mode: np.pad(x, ((2, 0), (1, 5)), m), M)
       for mode in ("edge", "reflect", "symmetric", "wrap")},
    "full_like": (lambda x: mul(x, new.full_like(x, 3)), lambda x: x * 3, M),
    "meshgrid": (lambda x, y: new.meshgrid(x, y)[0], lambda x, y: np.meshgrid(x, y)[0], V, V[:2]),
    "meshgrid ij": (lambda x, y: new.meshgrid(x, y, y, indexing="ij")[2], lambda x, y: np.meshgrid(x, y, y, indexing="ij")[2], V, V[:2]),
    "linspace": (lambda a, b: new.linspace(a, b, 5), lambda a, b: np.linspace(a, b, 5), np.array(0.5), np.array(2.0)),
    "linspace of rows": (lambda a, b: new.linspace(a, b, 3, endpoint=False), lambda a, b: np.linspace(a, b, 3, endpoint=False), V, V + 1),
    "asarray": (lambda x: new.asarray([[index(x, 0), 1], [2, index(x, 1)]]), lambda x: np.array([[x[0], 1], [2, x[1]]]), V),
}


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_sizes(name, symbolic):
    ours, numpys, *arrays = CASES[name]
    env = {}
    vs = [leaf(a, symbolic, env) for a in arrays]
    y = ours(*vs)
    got, want = evaluate(Graph(vs, [y]), [np.asarray(a) for a in arrays], env)[0], numpys(*arrays)
    assert got.dtype == want.dtype == y.type.dtype
    np.testing.assert_allclose(got, want, rtol=1e-15, atol=1e-15, strict=True)
    for size, n in zip(y.type.shape, got.shape, strict=True):
        if not any(s.kind == "data" for s in dims.symbols(size)):
            assert dims.evaluate(size, env) == n, y.type


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    ours, _, *arrays = CASES[name]
    check_gradient(ours, *arrays)
    check_gradient(ours, *arrays, symbolic=True)


@pytest.mark.parametrize("f", [
    lambda x: sh.reshape(sh.transpose(mul(x, x)), -1), lambda x: sh.concatenate([mul(x, x), x]), lambda x: sh.pad(mul(x, x), 1, "edge"),
    lambda x: mul(new.tril(x), x), lambda x: sh.diagonal(mul(x, x)), lambda x: sh.roll(mul(x, x), 1, 0), lambda x: mul(sh.flip(x), x),
    lambda x: sh.tile(mul(x, x), 2), lambda x: place_diagonal(mul(sh.diagonal(x), sh.diagonal(x)), (3, 4)),
])
def test_second_derivatives(f):
    check_second(f, M)


@pytest.mark.parametrize("dtype", [d for d in dtypes.SHORT if d != "bfloat16"])
def test_every_dtype_moves(dtype):
    x = RNG.integers(0, 2, (2, 3)).astype(dtype)
    for f, g in [(sh.transpose, np.transpose), (lambda v: sh.pad(v, 1), lambda v: np.pad(v, 1)), (sh.flip, np.flip),
                 (lambda v: sh.concatenate([v, v]), lambda v: np.concatenate([v, v])), (lambda v: sh.tile(v, 2), lambda v: np.tile(v, 2)),
                 (new.triu, np.triu), (lambda v: sh.roll(v, 1), lambda v: np.roll(v, 1)), (new.zeros_like, np.zeros_like)]:
        got = run(f, x)
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, g(x))


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_empty_and_small_axes_of_unknown_size(n):
    x = np.arange(2.0 * n).reshape(n, 2)
    for f, g in [
        (lambda v: sh.reshape(v, (2, size_of(v, 0))), lambda v: v.reshape(2, n)), (lambda v: sh.repeat(v, 2, 0), lambda v: np.repeat(v, 2, 0)),
        (lambda v: sh.tile(v, (3, 1)), lambda v: np.tile(v, (3, 1))), (lambda v: sh.concatenate([v, v, v]), lambda v: np.concatenate([v] * 3)),
        (lambda v: sh.roll(v, 3, 0), lambda v: np.roll(v, 3, 0)), (lambda v: sh.roll(v, size_of(v, 1), 0), lambda v: np.roll(v, 2, 0)),
        (lambda v: sh.diagonal(v, -1), lambda v: np.diagonal(v, -1)), (lambda v: sh.pad(v, ((1, 0), (0, 2))), lambda v: np.pad(v, ((1, 0), (0, 2)))),
        (new.tril, np.tril), *[(lambda v, i=i: sh.array_split(v, 3)[i], lambda v, i=i: np.array_split(v, 3)[i]) for i in range(3)],
    ]:
        np.testing.assert_array_equal(run(f, x, symbolic=True), g(x))


def test_sizes_found_at_run_time():
    """Shapes that depend on data: x[mask] repeated, tiled, joined, padded, split, rolled."""
    x = np.array([3.0, -1.0, 2.0, 5.0, -2.0])
    part = x[x > 0]

    def chosen(v):
        return take(v, index(positions(greater(v, 0)), 0), 0)

    for f, g in [
        (lambda v: sh.repeat(v, 2, 0), lambda v: np.repeat(v, 2)), (lambda v: sh.tile(v, (2, 2)), lambda v: np.tile(v, (2, 2))),
        (lambda v: sh.concatenate([v, [1.0], v]), lambda v: np.concatenate([v, [1.0], v])), (lambda v: sh.pad(v, 1), lambda v: np.pad(v, 1)),
        (lambda v: sh.pad(v, 1, "wrap"), lambda v: np.pad(v, 1, "wrap")), (lambda v: sh.split(v, 3)[1], lambda v: np.split(v, 3)[1]),
        (lambda v: sh.array_split(v, 2)[0], lambda v: np.array_split(v, 2)[0]), (lambda v: sh.roll(v, 1), lambda v: np.roll(v, 1)),
        (lambda v: new.diag(v, 1), lambda v: np.diag(v, 1)), (lambda v: mul(v, new.ones_like(v)), lambda v: v),
        (lambda v: sh.broadcast_arrays(v, [[1.0], [2.0]])[0], lambda v: np.stack([v, v])),
        (lambda v: mul(v, new.arange(size_of(v, 0))), lambda v: v * np.arange(3)),
    ]:
        np.testing.assert_allclose(run(lambda v, f=f: f(chosen(v)), x, symbolic=True), g(part))
        check_gradient(lambda v, f=f: f(chosen(v)), x)


# ---- what the types say ------------------------------------------------------------------------


def test_formulas_of_sizes():
    n = dims.dim("n")
    x = sized("n", 6)
    assert sh.reshape(x, (-1, 3)).type.shape == (2 * n, 3)
    assert sh.reshape(x, (size_of(x, 0), -1)) is x
    assert sh.concatenate([x, x, new.zeros((1, 6))]).type.shape == (2 * n + 1, 6)
    assert sh.repeat(x, 2, 0).type.shape == (2 * n, 6)
    assert sh.tile(x, (3, 2)).type.shape == (3 * n, 12)
    assert sh.pad(x, ((1, 2), (0, 0))).type.shape == (n + 3, 6)
    assert sh.diagonal(sized("n", "n"), 1).type.shape == (dims.dim_max(n - 1, 0),)
    assert new.arange(size_of(x, 0)).type.shape == (n,)
    assert str(new.arange(1, size_of(x, 0), 2).type.shape[0]) == str(index(sized("n"), slice(1, None, 2)).type.shape[0])
    assert sh.shape(x)[1] == 6 and isinstance(sh.shape(x)[0], Var)
    assert sh.size(new.zeros((2, 3))) == 6 and sh.ndim(x) == 2
    assert sh.concatenate([sized(3, "n"), sized(3, 4)]).type.shape == (6, 4), "a known size says more"


def test_types_that_already_agree_need_no_node():
    x = leaf(X)
    assert sh.reshape(x, X.shape) is x and sh.transpose(x, (0, 1, 2)) is x and sh.roll(x, 0, 0) is x
    assert sh.pad(x, 0) is x and sh.tile(x, 1) is x and sh.broadcast_to(x, X.shape) is x


def relations(y):
    return [r for n in Graph([], [y]).nodes for r in n.op.relations([v.type for v in n.inputs], n.attrs)]


def test_relations_of_sizes():
    n, m = dims.dim("n"), dims.dim("m")
    assert relations(sh.reshape(sized("n", "m"), (6,))) == [("equal", n * m, 6)]
    assert relations(sh.reshape(sized("n"), (2, -1))) == [("equal", n, 2 * dims.floordiv(n, 2))]
    assert relations(sh.squeeze(sized("n"), 0)) == [("equal", n, 1)]
    assert relations(sh.concatenate([sized("n", 2), sized("m", 2)], 1)) == [("equal", n, m)]
    assert relations(sh.split(sized("n"), 3)[0])[0] == ("equal", n, 3 * dims.floordiv(n, 3))


# ---- creation ----------------------------------------------------------------------------------


def test_default_dtypes():
    assert new.zeros(2).type.dtype == new.ones(2).type.dtype == new.eye(2).type.dtype == "float64"
    with config(floatX="float32"):
        assert new.zeros(2).type.dtype == new.eye(2).type.dtype == new.tri(2).type.dtype == new.linspace(0, 1, 3).type.dtype == "float32"
        assert new.full(2, 1.5).type.dtype == new.arange(0, 1, 0.5).type.dtype == "float32"
        assert new.full(2, 1j).type.dtype == "complex64"
        assert new.constant(1.5).type.dtype == "float64"
    assert new.full(2, 1).type.dtype == new.arange(3).type.dtype == "int64"
    assert new.full(2, True).type.dtype == "bool" and new.full(2, np.float32(1)).type.dtype == "float32"
    assert new.zeros(2, "int8").type.dtype == new.full_like(np.zeros(2, "int8"), 3).type.dtype == "int8"
    assert new.arange(np.float32(3)).type.dtype == "float32"
    assert new.arange(sized(dtype="int32")).type.dtype == "int64"


@pytest.mark.parametrize("args", [
    (5,), (0,), (-3,), (2, 7), (7, 2), (7, 2, -1), (1, 10, 3), (0.0, 1, 0.1), (0.5,), (1, 0, -0.25), (0, 1, 2.0), (3, 3), (5, 0, -2),
    (np.int8(4),),
], ids=repr)
def test_arange(args):
    want = np.arange(*args)
    dtype = "int64" if want.dtype.kind in "iu" else want.dtype
    got = value(new.arange(*args))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, want)
    vs = [np.asarray(a) for a in args]
    np.testing.assert_array_equal(run(lambda *v: new.arange(*v), *vs, symbolic=True), want)
    np.testing.assert_array_equal(value(new.arange(*args, dtype="float32")), np.arange(*args, dtype="float32"))


def test_arange_of_sizes():
    for n in (0, 1, 4, 7):
        x = np.zeros(n)
        for f, g in [(lambda s: new.arange(s), lambda n: np.arange(n)), (lambda s: new.arange(2, s), lambda n: np.arange(2, n)),
                     (lambda s: new.arange(s, 2, -2), lambda n: np.arange(n, 2, -2)), (lambda s: new.arange(0, s, 3.0), lambda n: np.arange(0, n, 3.0))]:
            np.testing.assert_array_equal(run(lambda v, f=f: f(size_of(v, 0)), x, symbolic=True), g(n))


def test_linspace():
    for args in [(0, 1, 5), (1, -1, 4), (3, 3, 3), (0, 1, 1), (0, 1, 0), (0.1, 0.7, 11)]:
        for endpoint in (True, False):
            np.testing.assert_array_equal(value(new.linspace(*args, endpoint=endpoint)), np.linspace(*args, endpoint=endpoint))
    np.testing.assert_array_equal(value(new.linspace(0, 10, 4, dtype="int64")), np.linspace(0, 10, 4, dtype="int64"))
    np.testing.assert_array_equal(value(new.linspace(0, 1j, 3)), np.linspace(0, 1j, 3))
    assert value(new.linspace(0.1, 0.7, 11))[-1] == 0.7


def test_matrices_and_fills():
    for n, m, k in [(3, 4, 0), (3, 4, 2), (4, 2, -1), (0, 3, 0), (2, 2, 9)]:
        np.testing.assert_array_equal(value(new.eye(n, m, k)), np.eye(n, m, k))
        np.testing.assert_array_equal(value(new.tri(n, m, k)), np.tri(n, m, k))
    np.testing.assert_array_equal(value(new.identity(3, "int8")), np.identity(3, "int8"))
    np.testing.assert_array_equal(value(new.full((2, 2), [1, 2])), [[1, 2], [1, 2]])
    np.testing.assert_array_equal(value(new.alloc(new.constant([1, 2]), 3, 2)), [[1, 2]] * 3)
    assert value(new.zeros(())).shape == () and value(new.ones([2, 0])).shape == (2, 0)
    x = np.zeros((3, 2))
    np.testing.assert_array_equal(run(lambda v: new.ones((size_of(v, 1), 2)), x, symbolic=True), np.ones((2, 2)))
    np.testing.assert_array_equal(run(lambda n: new.zeros((n, 2)), np.array(3)), np.zeros((3, 2)))
    n = dims.dim("n")
    assert new.zeros(("n", n + 1)).type.shape == (n, n + 1)
    assert new.asarray(apply(dim_op, size=n)).type == new.asarray(n).type
    triangle = np.array([[1.0, np.nan], [2.0, 3.0]])
    np.testing.assert_array_equal(value(new.tril(triangle)), [[1, 0], [2, 3]])


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make,error,words", [
    (lambda x: sh.reshape(x, (5, 5)), GraphcValueError, r"24 elements of shape \(2, 3, 4\) do not fit the shape \(5, 5\)"),
    (lambda x: sh.reshape(x, (-1, -1)), GraphcValueError, "only one size may be -1"),
    (lambda x: sh.reshape(x, (7, -1)), GraphcValueError, "do not fit"),
    (lambda x: sh.reshape(x, (-2, 3)), GraphcValueError, "not negative"),
    (lambda x: sh.reshape(x, (None, 3)), GraphcTypeError, "None is no size"),
    (lambda x: sh.reshape(new.zeros((0,)), (0, -1)), GraphcValueError, "beside a size 0"),
    (lambda x: sh.transpose(x, (0, 1)), GraphcValueError, "do not name each"),
    (lambda x: sh.transpose(x, (0, 1, 5)), GraphcIndexError, "axis 5 is outside"),
    (lambda x: sh.squeeze(x, 0), GraphcValueError, "axis 0 has size 2"),
    (lambda x: sh.squeeze(index(x, 0), 3), GraphcIndexError, "axis 3"),
    (lambda x: sh.expand_dims(x, 5), GraphcIndexError, "axis 5"),
    (lambda x: sh.dimshuffle(x, 0, 1), GraphcValueError, "axis 2 has size 4"),
    (lambda x: sh.dimshuffle(x, 0, "y", 1, 2), GraphcValueError, "'x' for new axes"),
    (lambda x: sh.moveaxis(x, (0, 1), 0), GraphcValueError, "as many sources"),
    (lambda x: sh.matrix_transpose(index(x, (0, 0))), GraphcValueError, "rank at least 2"),
    (lambda x: sh.concatenate([x, index(x, 0)]), GraphcValueError, "one rank"),
    (lambda x: sh.concatenate([x, np.zeros((2, 4, 4))]), GraphcValueError, "sizes 3 and 4 of axis 1 differ"),
    (lambda x: sh.concatenate([]), GraphcValueError, "list is empty"),
    (lambda x: sh.concatenate([1, 2]), GraphcValueError, "gc.stack"),
    (lambda x: sh.concatenate(5), GraphcTypeError, "list or tuple"),
    (lambda x: sh.stack([x, 1]), GraphcValueError, "one shape"),
    (lambda x: sh.split(x, 2, axis=1), GraphcValueError, "size 3 has no 2 equal parts"),
    (lambda x: sh.split(x, 0), GraphcValueError, "at least 1"),
    (lambda x: sh.split(x, 1.5), GraphcTypeError, "number of parts is an int"),
    (lambda x: sh.unstack(sized("n")), GraphcTypeError, "no known size"),
    (lambda x: sh.repeat(x, -1), GraphcValueError, "not negative"),
    (lambda x: sh.repeat(x, 1.5), GraphcTypeError, "integer"),
    (lambda x: sh.repeat(x, [1, 2], 1), GraphcValueError, "2 counts for an axis of size 3"),
    (lambda x: sh.pad(x, -1), GraphcValueError, "not negative"),
    (lambda x: sh.pad(x, 0.5), GraphcTypeError, "ints"),
    (lambda x: sh.pad(x, ((1, 1), (2, 2))), GraphcTypeError, "a pair for each of 3 axes"),
    (lambda x: sh.pad(x, 1, "odd"), GraphcValueError, "mode is one of"),
    (lambda x: sh.pad(np.zeros(2, int), 1, constant_values=0.5), GraphcTypeError, "without loss"),
    (lambda x: sh.roll(x, 1.5, 0), GraphcTypeError, "shift is an int"),
    (lambda x: sh.broadcast_to(x, (3, 3, 4)), GraphcValueError, "neither 1 nor 3"),
    (lambda x: new.arange(0, 5, 0), GraphcValueError, "step is not 0"),
    (lambda x: new.arange(x), GraphcTypeError, "scalar"),
    (lambda x: new.arange("a"), GraphcTypeError, "got 'a'"),
    (lambda x: new.arange(0, float("inf")), GraphcValueError, "finite"),
    (lambda x: new.eye(2, k=0.5), GraphcTypeError, "k is an int"),
    (lambda x: new.zeros((2, -1)), GraphcValueError, "not negative"),
    (lambda x: new.zeros(2.5), GraphcTypeError, "shape entry"),
    (lambda x: new.diag(x), GraphcValueError, "vector or a matrix"),
    (lambda x: new.tril(new.zeros(3)), GraphcValueError, "last two axes"),
    (lambda x: new.linspace(0, 1, -1), GraphcValueError, "not negative"),
    (lambda x: new.meshgrid([1, 2], indexing="yx"), GraphcValueError, "'xy' or 'ij'"),
    (lambda x: new.constant(x), GraphcTypeError, "not a variable"),
])
def test_errors(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make(leaf(X))
    assert caught.value.where.file == __file__


@pytest.mark.parametrize("f", [
    lambda v: sh.reshape(v, (5, -1)), lambda v: sh.reshape(v, (5, 5)), lambda v: sh.squeeze(v, 0), lambda v: sh.split(v, 5, axis=1)[0],
    lambda v: sh.concatenate([v, np.zeros((1, 9))]), lambda v: sh.pad(index(v, slice(0, 0)), 1, "edge"), lambda v: new.zeros(mul(-1, size_of(v, 0))),
])
def test_errors_at_run_time(f):
    """Where the door cannot look (or nobody stands there), the op itself complains."""
    with pytest.raises(GraphcValueError):
        run(f, M, symbolic=True)
