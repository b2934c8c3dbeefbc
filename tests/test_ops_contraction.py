"""matmul, einsum and what is made of them: values against NumPy, gradients against differences, messages."""

from __future__ import annotations

import numpy as np
import pytest
from small_grad import backward, check_gradient, check_second, leaf, run

from graphc import dims, dtypes
from graphc.errors import GraphcError, GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.functions import linalg
from graphc.functions.einstein import parse
from graphc.ir import Graph, Relation, Type, Var
from graphc.ops import contraction
from graphc.ops.core import constant

RNG = np.random.default_rng(11)


def values(shape, dtype="float64"):
    dtype = dtypes.as_dtype(dtype)
    if dtype.kind in "biu":
        return RNG.integers(0, 2 if dtype.kind == "b" else 9, shape).astype(dtype)
    x = RNG.normal(size=shape)
    return (x + 1j * RNG.normal(size=shape) if dtype.kind == "c" else x).astype(dtype)


def names(v):
    """The ops of an expression, operands first."""
    return [node.op.name for node in Graph([], [v]).nodes]


SHAPES = [((2, 3), (3, 4)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)),
          ((1, 2, 3), (5, 3, 4)), ((6, 1, 2, 3), (5, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((2, 0), (0, 4)), ((0, 3), (3, 4)),
          ((0, 2, 3), (3, 4)), ((0, 2, 3), (1, 3, 4)), ((1, 1), (1, 1))]


@pytest.mark.parametrize("a, b", SHAPES, ids=str)
def test_matmul(a, b):
    for dtype in ("float64", "float32", "complex128", "int64", "int8", "bool"):
        x, y = values(a, dtype), values(b, dtype)
        got, want = run(linalg.matmul, x, y, symbolic=dtype == "float64"), np.matmul(x, y)
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    check_gradient(linalg.matmul, values(a), values(b))
    check_gradient(linalg.matmul, values(a), values(b), symbolic=True)
    check_gradient(linalg.matmul, values(a, "complex128"), values(b, "complex128"))
    check_second(linalg.matmul, values(a), values(b), symbolic=True)


def test_half_precision_is_accumulated_in_float32():
    x, y = values((4, 300), "float16"), values((300, 5), "float16")
    exact = (x.astype(np.float64) @ y.astype(np.float64))
    for f in (linalg.matmul, lambda a, b: linalg.einsum("ij,jk->ik", a, b), lambda a, b: linalg.tensordot(a, b, 1)):
        got = run(f, x, y)
        assert got.dtype == np.float16
        np.testing.assert_allclose(got, exact, rtol=1e-3, atol=1e-3)  # one rounding; float16 sums are off by 1e-1
    bf = dtypes.bfloat16()
    got = run(linalg.matmul, np.full((1, 512), 1, bf), np.full((512, 1), 1, bf))
    assert got.dtype == bf and got.astype(float) == 512  # a bfloat16 sum of ones stops at 256


def test_small_integers_wrap_as_numpy_does():
    x = np.full((1, 200), 2, np.int8)
    for f, g in [(linalg.matmul, np.matmul), (lambda a, b: linalg.einsum("ij,jk->", a, b), lambda a, b: np.einsum("ij,jk->", a, b))]:
        assert run(f, x, x.T) == g(x, x.T)
        assert run(f, x, x.T).dtype == np.int8


def test_matmul_is_one_node_for_matrices():
    x, y = leaf(values((2, 3))), leaf(values((3, 4)))
    for product in (linalg.dot(x, y), linalg.matmul(x, y), linalg.einsum("ij,jk->ik", x, y), linalg.tensordot(x, y, 1)):
        assert names(product) == ["matmul"]
    cube = leaf(values((5, 2, 3)))
    assert names(linalg.einsum("bti,io->bto", cube, y)) == ["matmul"]
    assert names(linalg.einsum("bij,bjk->bik", cube, leaf(values((5, 3, 4))))) == ["matmul"]
    assert names(linalg.einsum("ij,ij->ij", x, x)) == ["mul"]
    assert names(linalg.einsum("ij,ij->", x, x)) == ["einsum"]
    assert names(linalg.einsum("ij->ji", x)) == ["transpose"]


def test_the_gradient_of_shared_weights_is_one_product():
    """The weights of a layer over (batch, time, features): no product per batch entry is kept."""
    x, w = leaf(values((5, 2, 3))), leaf(values((3, 4)))
    y = linalg.matmul(x, w)
    _, g = backward(y, [x, w], leaf(values((5, 2, 4))))
    assert names(g) == ["matmul", "einsum"] or names(g) == ["einsum"]


def test_types_and_relations():
    n, m = dims.dim("n"), dims.dim("m")
    x, y = Var(Type(np.dtype("float32"), (n, 3))), Var(Type(np.dtype("float32"), (m, 4)))
    product = linalg.matmul(x, y)
    assert str(product.type) == "f32[n, 4]"
    assert list(contraction.matmul_op.relations([x.type, y.type], {})) == [Relation("equal", 3, m)]
    z = linalg.einsum("abc,abd->cd", Var(Type(np.dtype("float32"), (n, 2, 3))), Var(Type(np.dtype("float32"), (m, 2, 4))))
    assert list(z.node.op.relations([v.type for v in z.node.inputs], z.node.attrs)) == [Relation("equal", n, m)]


# ---- dot, tensordot and their kin -------------------------------------------------------------


@pytest.mark.parametrize("a, b", [((), ()), ((), (3,)), ((2, 3), ()), ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)),
                                  ((5, 2, 3), (3,)), ((5, 2, 3), (3, 4)), ((5, 2, 3), (6, 3, 4)), ((2, 3), (6, 3, 4)), ((3,), (5, 3, 2))], ids=str)
def test_dot(a, b):
    x, y = values(a), values(b)
    for symbolic in (False, True):
        got = run(linalg.dot, x, y, symbolic=symbolic)
        np.testing.assert_allclose(got, np.dot(x, y), atol=1e-14)
        assert got.shape == np.dot(x, y).shape
    check_gradient(linalg.dot, x, y, symbolic=True)


@pytest.mark.parametrize("a, b, axes", [
    ((2, 3), (3, 4), 1), ((2, 3), (2, 3), 2), ((2, 3), (4,), 0), ((2, 3, 4), (4, 3, 5), ((1, 2), (1, 0))), ((2, 3, 4), (3, 4, 5), 2),
    ((2, 3, 4), (2, 5), (0, 0)), ((2, 3, 4), (4, 2), ((-1, 0), (0, 1))), ((2, 3), (3, 2), ([1, 0], [0, 1])), ((2, 0), (0, 3), 1)], ids=str)
def test_tensordot(a, b, axes):
    f = lambda x, y: linalg.tensordot(x, y, axes)
    for dtype in ("float64", "complex128", "int32"):
        x, y = values(a, dtype), values(b, dtype)
        got, want = run(f, x, y, symbolic=True), np.tensordot(x, y, axes)
        assert got.shape == want.shape and got.dtype == want.dtype
        np.testing.assert_allclose(got, want, atol=1e-13)
    check_gradient(f, values(a), values(b))
    check_gradient(f, values(a, "complex128"), values(b, "complex128"), symbolic=True)


@pytest.mark.parametrize("name, a, b", [("inner", (2, 3), (4, 3)), ("inner", (3,), (3,)), ("inner", (), (3,)), ("outer", (2,), (3,)),
                                        ("outer", (2, 2), (3,)), ("vdot", (2, 3), (6,)), ("kron", (2, 3), (2, 2)), ("kron", (2,), (3, 2)),
                                        ("vecdot", (2, 3), (2, 3)), ("vecdot", (4, 1, 3), (2, 3))], ids=str)
def test_other_products(name, a, b):
    f, g = getattr(linalg, name), getattr(np, name)
    for dtype in ("float64", "complex128", "int32"):
        x, y = values(a, dtype), values(b, dtype)
        for symbolic in (False, True):
            got, want = run(f, x, y, symbolic=symbolic), g(x, y)
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, atol=1e-13)
    check_gradient(f, values(a), values(b), symbolic=True)
    check_gradient(f, values(a, "complex128"), values(b, "complex128"))


def test_vecdot_axis():
    x, y = values((3, 2)), values((3, 2))
    np.testing.assert_allclose(run(lambda a, b: linalg.vecdot(a, b, axis=0), x, y), (x * y).sum(0))


def test_trace():
    x = values((3, 4, 2))
    for k in (-1, 0, 2, 9):
        np.testing.assert_allclose(run(lambda v, k=k: linalg.trace(v, k), x), np.trace(x, k))
    np.testing.assert_allclose(run(lambda v: linalg.trace(v, axis1=2, axis2=-2), x), np.trace(x, axis1=2, axis2=1))
    assert run(linalg.trace, values((2, 2), "int8")).dtype == np.int64
    check_gradient(linalg.trace, x)


def test_norm():
    x = values((3, 4))
    for order, axis in [(None, None), (None, 0), (2, 1), (1, 0), (np.inf, -1), (-np.inf, 0), (0, 1), ("fro", (0, 1)), (None, (0, 1))]:
        f = lambda v, o=order, a=axis: linalg.norm(v, o, a)
        np.testing.assert_allclose(run(f, x), np.linalg.norm(x, order, axis))
        check_gradient(f, x)
    z = values((3, 4), "complex128")
    np.testing.assert_allclose(run(linalg.norm, z), np.linalg.norm(z))
    check_gradient(linalg.norm, z)
    zero = leaf(np.zeros(3))
    g, = backward(linalg.norm(zero), [zero], constant(1.0))
    np.testing.assert_array_equal(_value(zero, g, np.zeros(3)), np.zeros(3))
    with pytest.raises(GraphcValueError, match="matrix"):
        linalg.norm(leaf(x), 1)


def _value(v, y, array):
    from graphc.ops.evaluate import evaluate
    return evaluate(Graph([v], [y]), [array], {})[0]


# ---- einsum -----------------------------------------------------------------------------------

BATTERY = [
    ("ij,jk->ik", (2, 3), (3, 4)), ("ij,jk->ki", (2, 3), (3, 4)), ("ij,jk", (2, 3), (3, 4)), ("ba", (2, 3)), ("ij->", (2, 3)),
    ("ij->j", (2, 3)), ("ijk->ki", (2, 3, 4)), ("ij,ij->", (2, 3), (2, 3)), ("ij,ij->ij", (2, 3), (2, 3)), ("ij,ji->ij", (2, 3), (3, 2)),
    ("i,j->ij", (2,), (3,)), ("i,j->ji", (2,), (3,)), ("i,i->", (3,), (3,)), ("i,i", (3,), (3,)), ("ij,j->i", (2, 3), (3,)),
    ("i,ij->j", (2,), (2, 3)), ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)), ("bij,bkj->bik", (5, 2, 3), (5, 4, 3)),
    ("bij,kj->kbi", (5, 2, 3), (4, 3)), ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)), ("bhqk,bkhd->bqhd", (2, 2, 3, 4), (2, 4, 2, 3)),
    ("ijk,jk->i", (2, 3, 4), (3, 4)), ("ijkl,klm->mij", (2, 2, 3, 2), (3, 2, 4)), ("ij,kl->ijkl", (2, 3), (2, 2)), ("ij,kl->", (2, 3), (2, 2)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)), ("i,j,ij->", (2,), (3,), (2, 3)), ("ij,ik,il->jkl", (2, 3), (2, 2), (2, 4)),
    ("bi,bj,bk->ijk", (2, 3), (2, 2), (2, 3)), ("a,ab,b,c->c", (2,), (2, 3), (3,), (2,)), ("i,i,i->i", (3,), (3,), (3,)), ("i,i,i->", (3,), (3,), (3,)),
    ("ii->i", (3, 3)), ("ii->", (3, 3)), ("ii", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->ij", (3, 2, 3)), ("iii->i", (2, 2, 2)),
    ("iijj->ij", (2, 2, 3, 3)), ("ii,ij->j", (3, 3), (3, 2)), ("ii,jj->ij", (2, 2), (3, 3)), ("ii,ii->", (3, 3), (3, 3)),
    ("...ij,...jk->...ik", (5, 2, 3), (5, 3, 4)), ("...ij,...jk->...ik", (2, 3), (5, 3, 4)), ("...ij,jk", (6, 5, 2, 3), (3, 4)),
    ("...i,...i->...", (4, 1, 3), (2, 3)), ("i...,i...->...", (3, 2), (3, 1)), ("...,...", (2, 3), (3,)), ("...ii->...i", (2, 3, 3)),
    ("i...->...", (2, 3, 4)), ("...->...", (2, 3)), ("a...b->b...a", (2, 3, 4)), ("...,i->...i", (), (3,)),
    ("ij,jk", (2, 1), (3, 4)), ("bij,bjk->bik", (1, 2, 3), (5, 3, 4)), (",ij->ij", (), (2, 3)), ("->", ()), (",->", (), ()), ("i,->i", (3,), ()),
    ("ij,jk->ik", (2, 0), (0, 3)), ("ij,jk->ik", (0, 2), (2, 3)), ("ijk,jk->i", (2, 0, 3), (0, 3)), ("i,j->ij", (0,), (3,)),
    ("aB,Bc->ca", (2, 3), (3, 2)), ("Ab", (2, 3)),
]


@pytest.mark.parametrize("case", BATTERY, ids=lambda c: f"{c[0]} {c[1:]}")
def test_einsum(case):
    subscripts, *shapes = case
    f = lambda *vs: linalg.einsum(subscripts, *vs)
    for dtype in ("float64", "complex128", "int32", "bool"):
        arrays = [values(s, dtype) for s in shapes]
        want = np.einsum(subscripts, *arrays)
        static = run(f, *arrays)
        assert static.shape == want.shape and static.dtype == want.dtype
        np.testing.assert_allclose(static, want, atol=1e-12)
        if case[0] not in ("ij,jk",) or case[1] != (2, 1):  # a 1 that is known at the call only stands for no other size
            np.testing.assert_allclose(run(f, *arrays, symbolic=True), want, atol=1e-12)
    check_gradient(f, *[values(s) for s in shapes])
    check_gradient(f, *[values(s, "complex128") for s in shapes])
    check_second(f, *[values(s) for s in shapes])


@pytest.mark.parametrize("case", [c for c in BATTERY if c[1] != (2, 1)], ids=lambda c: f"{c[0]} {c[1:]}")
def test_einsum_gradients_with_unknown_sizes(case):
    subscripts, *shapes = case
    check_gradient(lambda *vs: linalg.einsum(subscripts, *vs), *[values(s) for s in shapes], symbolic=True)


def test_einsum_op_of_three_operands():
    f = lambda a, b, c: contraction.apply(contraction.einsum_op, a, b, c, subscripts="ij,jk,i->ik")
    shapes = [(2, 3), (3, 4), (2,)]
    check_gradient(f, *[values(s) for s in shapes])
    check_second(f, *[values(s) for s in shapes])


def test_einsum_with_lists():
    x, y = values((2, 3)), values((3, 4))
    np.testing.assert_allclose(run(lambda a, b: linalg.einsum(a, [0, 1], b, [1, 2], [2, 0]), x, y), (x @ y).T)
    np.testing.assert_allclose(run(lambda a, b: linalg.einsum(a, [0, 1], b, [1, 2]), x, y), x @ y)
    np.testing.assert_allclose(run(lambda a: linalg.einsum(a, [Ellipsis, 0], [0, Ellipsis]), x), x.T)


def test_products_of_many_factors_go_the_cheap_way():
    a, b, v = leaf(values((50, 50))), leaf(values((50, 50))), leaf(values((50,)))
    y = linalg.einsum("ij,jk,k->i", a, b, v)  # matrix times vector, twice
    for node in Graph([], [y]).nodes:
        assert node.outputs[0].type.shape != (50, 50)


def test_parse():
    assert parse("...ij,...jk->...ik", [3, 2]) == (["αij", "jk"], "αik")
    assert parse("a...", [4]) == (["aγβα"], "γβαa")


@pytest.mark.parametrize("bad, shapes, message", [
    ("ij,jk->ik", [(2, 3)], r"2 group\(s\) for 1 operand"),
    ("ij->i", [(2, 3), (3,)], r"1 group\(s\) for 2 operand"),
    ("ij,jk->ik", [(2, 3), (4, 5)], "'j' stands for sizes 3 and 4"),
    ("ij,j1->i", [(2, 3), (3, 4)], "'1' is no letter"),
    ("ijk->i", [(2, 3)], "3 letter.*rank 2"),
    ("i->i", [(2, 3)], "1 letter.*rank 2"),
    ("ij->ii", [(2, 3)], "'i' twice"),
    ("ij->ik", [(2, 3)], "'k', which no operand has"),
    ("...ij->ij", [(4, 2, 3)], r"lacks the '\.\.\.'"),
    ("ii->i", [(2, 3)], "'i' stands for sizes 2 and 3"),
    ("...i,...i->...", [(2, 3), (4, 3)], r"'\.\.\.' stands for sizes 2 and 4"),
    ("ij,jk->i.k", [(2, 3), (3, 4)], "'.' is no letter"),
])
def test_einsum_errors(bad, shapes, message):
    with pytest.raises(GraphcValueError, match=message):
        linalg.einsum(bad, *[leaf(values(s)) for s in shapes])


@pytest.mark.parametrize("f, shapes", [
    (linalg.matmul, [(2, 3), (4, 5)]), (linalg.matmul, [(2, 2, 3), (3, 3, 4)]), (lambda a, b: linalg.einsum("ij,jk->ik", a, b), [(2, 3), (4, 5)]),
    (lambda a, b: linalg.einsum("ijk,jk->i", a, b), [(2, 3, 4), (3, 1)]), (lambda a: linalg.einsum("ii->i", a), [(2, 3)]),
    (linalg.vecdot, [(2, 3), (2, 1)])])
def test_sizes_that_differ_at_the_call(f, shapes):
    with pytest.raises(ValueError):
        run(f, *[values(s) for s in shapes], symbolic=True)


def test_errors():
    x = leaf(values((2, 3)))
    with pytest.raises(GraphcValueError, match=r"(?s)matmul: the last axis of operand 0 has size 3, .* operand 1 has size 2.*operand 1: .*f64\[2, 3\]"):
        linalg.matmul(x, x)
    with pytest.raises(GraphcValueError, match="2 and 4 do not broadcast"):
        linalg.matmul(leaf(values((2, 1, 3))), leaf(values((4, 3, 1))))
    with pytest.raises(GraphcTypeError, match="a scalar is no matrix"):
        linalg.matmul(x, 2.0)
    with pytest.raises(GraphcValueError, match=r"size 3.*size 2"):
        linalg.tensordot(x, x, 1)
    with pytest.raises(GraphcValueError, match="axes=3"):
        linalg.tensordot(x, x, 3)
    with pytest.raises(GraphcIndexError, match="axis 5"):
        linalg.tensordot(x, x, (5, 0))
    with pytest.raises(GraphcValueError, match="distinct axes"):
        linalg.tensordot(x, x, ((0, 1), (0,)))
    with pytest.raises(GraphcTypeError, match="an int or a pair"):
        linalg.tensordot(x, x, 1.5)
    for bad in ("ab,cb->ad", "ab,bb->a", "abc,bc->a", "ab->ba"):
        with pytest.raises(GraphcError):
            contraction.apply(contraction.einsum_op, x, x, subscripts=bad)
