"""Pass ``contract``: values within rounding of the reference, no more multiplications than needed, and what it leaves alone."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from helpers import leaf, run
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import dims, dtypes
from graphc.dims import Size
from graphc.functions.einstein import MOST_COMPARED, in_pairs
from graphc.ir import Array, Graph, Var, apply, make_node
from graphc.ops.arithmetic import add, mul
from graphc.ops.contraction import einsum_op, label_sizes, matmul, matmul_op, split, swapped
from graphc.ops.core import cast
from graphc.ops.looping import close, each_op, loop_variable
from graphc.ops.movement import expand_dims, squeeze
from graphc.ops.transcendental import exp
from graphc.passes.context import Context
from graphc.passes.contract import MOST_FACTORS, contract
from graphc.verify import verify

REFERENCE = gc.Mode(backend="reference", passes="none")
DTYPES = ("float32", "float64", "complex64", "int8", "int32", "uint8", "bool")
#: whole numbers of another dtype give the same bits in any order
EXACT = ("int8", "int32", "uint8", "bool")
quick = settings(max_examples=120, deadline=None, derandomize=True, database=None)


def contracted(inputs: Sequence[Var], outputs: Sequence[Var], level: str = "fast", native: bool = True) -> tuple[Graph, Context]:
    """The graph after the pass, verified, and what the pass did."""
    before, context = Graph(inputs, outputs), Context(level=level, native=native)
    verify(before, "input")
    after = contract(before, context)
    verify(after, "contract", before=before)
    return after, context


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes]


def rules(context: Context) -> set[str]:
    return {r.rule for r in context.log} - {"merge"}


def multiplications(graph: Graph) -> Size:
    """Those of products: what the pass counts."""
    total: Size = 0
    for node in graph.nodes:
        if node.op is matmul_op:
            total = total + dims.product(node.outputs[0].type.shape) * node.inputs[0].type.shape[-1]
        elif node.op is mul:
            total = total + dims.product(node.outputs[0].type.shape)
        elif node.op is einsum_op:
            total = total + dims.product(label_sizes(zip(split(node.attrs["subscripts"])[0], [v.type.shape for v in node.inputs], strict=True)).values())
    return total


def numbers(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> Array:
    if dtype in EXACT:
        return rng.integers(0 if dtype in ("uint8", "bool") else -9, 2 if dtype == "bool" else 10, shape).astype(dtype)
    x = rng.normal(size=shape)
    return np.asarray(x + 1j * rng.normal(size=shape) if dtype.startswith("complex") else x).astype(dtype)


def same(inputs: Sequence[Var], outputs: Sequence[Var], arrays: Sequence[Array], bounds: Sequence[Array], level: str = "fast",
         backend: str = "numpy") -> None:
    """As the reference has it: integers in every bit, floats each within the bound of a sum of products, given for rounding unit 1."""
    mode = gc.Mode(backend=backend, passes=["merge", "cleanup", "contract"], level=level)
    with gc.config(verify=True):
        f = gc.function(list(inputs), list(outputs), mode=mode, on_unused_input="ignore")
    g = gc.function(list(inputs), list(outputs), mode=REFERENCE, on_unused_input="ignore")
    for have, want, bound in zip(f(*arrays), g(*arrays), bounds, strict=True):
        assert have.dtype == want.dtype and have.shape == want.shape
        if have.dtype.kind in "biu":
            np.testing.assert_array_equal(have, want)
        else:
            assert (abs(have.astype(np.complex128) - want.astype(np.complex128)) <= 4 * bound * np.finfo(have.dtype).eps).all()


def wide(x: Array) -> Array:
    return abs(x).astype(np.float64)


# ---- chains ---------------------------------------------------------------------------------------


class Chain:
    """A product of matrices as someone wrote it: any association, transposes between, some sizes named."""

    def __init__(self, draw: Callable[..., Any], most: int = 6, named: bool = True) -> None:
        self.draw = draw
        self.sizes = draw(st.lists(st.integers(0, 6), min_size=3, max_size=most))
        self.lead = draw(st.sampled_from([(), (), (2,), (0,), (1, 3)]))
        self.dtype = draw(st.sampled_from(DTYPES))
        named_sizes = draw(st.sets(st.integers(0, len(self.sizes) - 1))) if named else set()
        self.ends: list[Size] = [dims.dim(f"n{i}") if i in named_sizes else s for i, s in enumerate(self.sizes)]
        self.leaves: list[Var] = []
        self.turned: list[bool] = []
        self.output = self.stretch(0, len(self.sizes) - 1)

    def stretch(self, i: int, j: int) -> Var:
        turned = self.draw(st.booleans())
        if j == i + 1:
            shape = (self.ends[j], self.ends[i]) if turned else (self.ends[i], self.ends[j])
            v = leaf(f"x{i}", self.dtype, (*self.lead, *shape))
            self.leaves.append(v)
            self.turned.append(turned)
            return swapped(v) if turned else v
        k = self.draw(st.integers(i + 1, j - 1))
        a, b = self.stretch(i, k), self.stretch(k, j)
        return swapped(matmul(swapped(b), swapped(a))) if turned else matmul(a, b)

    def arrays(self, rng: np.random.Generator) -> list[Array]:
        found = []
        for i, turned in enumerate(self.turned):
            shape = self.sizes[i:i + 2]
            found.append(numbers(rng, (*self.lead, *(shape[::-1] if turned else shape)), self.dtype))
        return found

    def bound(self, arrays: Sequence[Array]) -> Array:
        """The product of the absolute values, times the number of additions on the way."""
        parts = [wide(np.swapaxes(x, -1, -2) if turned else x) for x, turned in zip(arrays, self.turned, strict=True)]
        return np.asarray(functools.reduce(np.matmul, parts)) * (2 * sum(self.sizes) + 8)


def fewest(sizes: Sequence[int]) -> int:
    """By trying every order."""
    if len(sizes) == 2:
        return 0
    return min(sizes[0] * sizes[k] * sizes[-1] + fewest(sizes[:k + 1]) + fewest(sizes[k:]) for k in range(1, len(sizes) - 1))


@quick
@given(st.data())
def test_chains_have_the_values_of_the_reference(data: st.DataObject) -> None:
    chain = Chain(data.draw)
    arrays = chain.arrays(np.random.default_rng(0))
    level = data.draw(st.sampled_from(["fast", "exact"]))
    same(chain.leaves, [chain.output], arrays, [chain.bound(arrays)], level)


@quick
@given(st.data())
def test_known_sizes_give_the_cheapest_order(data: st.DataObject) -> None:
    chain = Chain(data.draw, named=False)
    level = "exact" if chain.dtype in EXACT else "fast"
    after, context = contracted(chain.leaves, [chain.output], level)
    cost = fewest(chain.sizes) * math.prod(chain.lead)
    assert multiplications(after) == cost
    assert ("reassociate" in rules(context)) <= (multiplications(Graph(chain.leaves, [chain.output])) > cost or cost == 0)
    if "reassociate" in rules(context):
        assert ops(after).count("transpose") <= len(chain.leaves) + 1  # nothing is turned twice


@quick
@given(st.data())
def test_unknown_sizes_give_an_order_that_is_never_dearer(data: st.DataObject) -> None:
    chain = Chain(data.draw)
    assume(any(isinstance(end, dims.Dim) for end in chain.ends))
    before = Graph(chain.leaves, [chain.output])
    after, _ = contracted(chain.leaves, [chain.output])
    symbols = sorted({s for end in chain.ends for s in dims.symbols(end)}, key=str)
    for values in itertools.islice(itertools.product((2, 3, 7, 100), repeat=len(symbols)), 300):
        env = dict(zip(symbols, values, strict=True))
        assert dims.evaluate(multiplications(after), env) <= dims.evaluate(multiplications(before), env)


def matrices(*shapes: Sequence[Any], dtype: str = "float64") -> list[Var]:
    return [leaf("abcdefgh"[i], dtype, shape) for i, shape in enumerate(shapes)]


def test_a_vector_goes_first_whatever_the_sizes() -> None:
    a, b, v, u = matrices(("n", "k"), ("k", "m"), ("m",), ("n",))
    for y, cost in ((a @ b @ v, "k*m + k*n"), (swapped(a @ b) @ u, "k*m + k*n"), ((u @ a) @ b, "k*m + k*n"), (u @ (a @ b), "k*m + k*n")):
        after, _ = contracted([a, b, v, u], [y])
        assert str(multiplications(after)) == cost and ops(after).count("matmul") == 2


def test_what_no_comparison_decides_stays() -> None:
    a, b, c = matrices(("n", "k"), ("k", "m"), ("m", "j"))
    after, context = contracted([a, b, c], [(a @ b) @ c])
    assert not context.log and after.outputs[0].node is not None and after.outputs[0].node.inputs[1] is c
    square = matrices(("n", "n"), ("n", "n"), ("n", "n"))
    assert not contracted(square, [(square[0] @ square[1]) @ square[2]])[1].log  # no order is better


def test_some_of_several_unknown_orders() -> None:
    """The best order of all is not decided, but one that is better than the one as written."""
    a, b, c, v = matrices(("n", "k"), ("k", "m"), ("m", "j"), ("j", 1))
    after, _ = contracted([a, b, c, v], [((a @ b) @ c) @ v])
    assert str(multiplications(after)) == "j*m + k*m + k*n"
    x, y = matrices((1, "p"), ("p", "n"))
    after, _ = contracted([x, y, a, b, c], [x @ ((y @ (a @ b)) @ c)])
    assert str(multiplications(after)) == "j*m + k*m + k*n + n*p"


def test_what_others_read_is_not_taken_apart() -> None:
    a, b, v = matrices((9, 9), (9, 9), (9, 1))
    p = a @ b
    for roots in ([p @ v, p], [p @ v, exp(p)], [p @ v, swapped(p) @ v], [p @ p]):
        after, context = contracted([a, b, v], roots)
        assert not context.log and len(after) == len(Graph([], roots))
    turned = swapped(p)
    assert not contracted([a, b, v], [turned @ v, exp(turned)])[1].log


def test_other_leading_axes_stay() -> None:
    x, w, v, z = leaf("x", "int32", (5, 3, 9)), leaf("w", "int32", (9, 9)), leaf("v", "int32", (9, 1)), leaf("z", "int32", (5, 9, 9))
    for y in ((x @ w) @ v, (x @ z) @ v, x @ (w @ v)):
        assert not contracted([x, w, v, z], [y])[1].log
    y = (x @ z) @ leaf("t", "int32", (5, 9, 1))
    assert rules(contracted([*(v for v in (x, z)), Graph([], [y]).nodes[-1].inputs[1]], [y])[1]) == {"reassociate"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_reorders_whole_numbers_only(dtype: str) -> None:
    a, b, v = matrices((9, 9), (9, 9), (9, 1), dtype=dtype)
    assert rules(contracted([a, b, v], [(a @ b) @ v], "exact")[1]) == ({"reassociate"} if dtype in EXACT else set())
    assert rules(contracted([a, b, v], [(a @ b) @ v], "fast")[1]) == {"reassociate"}


def test_overflow_in_exact_is_as_written() -> None:
    a, b, v = matrices((3, 3), (3, 3), (3,))
    big, small = np.full((3, 3), 1e200), np.full((3, 3), 1e-200)
    for first, second, third, overflows in ((big, big, small[0], True), (small, big, np.full(3, 1e200), False)):
        f = gc.function([a, b, v], (a @ b) @ v, mode=gc.Mode(backend="numpy"))
        assert np.isinf(f(first, second, third)).all() == overflows


def test_a_long_product_is_looked_at_in_pieces() -> None:
    """Neither recursion nor a cube of its length."""
    x, w = leaf("x", "int32", (4, 4)), leaf("w", "int32", (4, 4))
    y = x
    for _ in range(3000):
        y = matmul(y, w)
    v = leaf("v", "int32", (4, 1))
    after, _ = contracted([x, w, v], [y @ v])
    saved = 64 * 3001 - 64 + 16 - int(multiplications(after))  # type: ignore[arg-type]
    assert saved == (MOST_FACTORS - 2) * 48


def test_names_and_lines_are_kept() -> None:
    a, b, v = matrices((9, 9), (9, 9), (9, 1), dtype="int64")
    y = (a @ b) @ v
    y.name = "y"
    after, _ = contracted([a, b, v], [y])
    assert after.outputs[0].name == "y" and after.outputs[0].origin[:2] == y.origin[:2]
    assert [n.origin.rules for n in after.nodes] == [("reassociate",)] * 2


def test_inner_graphs() -> None:
    a, b, v = matrices((5, 5), (5, 5), (5, 1), dtype="int64")
    i = loop_variable()
    body, captured = close([mul((a @ add(b, i)) @ v, i)], [i], [a, b, v], "body")
    y = make_node(each_op, captured, {"body": body, "shape": (3,)}).outputs[0]
    after, context = contracted([a, b, v], [y], "exact")
    assert rules(context) == {"reassociate"}
    inner: Graph = after.nodes[-1].attrs["body"]
    assert max(node.outputs[0].type.shape for node in inner.nodes if node.op is matmul_op) == (5, 1)
    arrays = [numbers(np.random.default_rng(0), x.type.shape, "int64") for x in (a, b, v)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(run(after.inputs, after.outputs, arrays)[0], run([a, b, v], [y], arrays)[0])


def test_error_messages_are_those_of_the_graph_as_written() -> None:
    a, b, v = gc.tensor("a", shape=("n", None)), gc.tensor("b", shape=(None, None)), gc.tensor("v", shape=(None,))
    messages = []
    for mode in (gc.Mode(level="fast", backend="numpy"), REFERENCE):
        f = gc.function([a, b, v], (a @ b) @ v, mode=mode)
        for shapes in (((2, 3), (4, 5), (5,)), ((2, 3), (3, 5), (4,))):
            with pytest.raises(ValueError) as error:
                f(*[np.zeros(s) for s in shapes])
            messages.append(str(error.value))
    assert messages[:2] == messages[2:]


# ---- einsum ---------------------------------------------------------------------------------------


def subscripts(data: st.DataObject, most: int) -> tuple[list[str], str]:
    terms = data.draw(st.lists(st.lists(st.sampled_from("abcde"), max_size=3, unique=True).map("".join), min_size=3, max_size=most))
    labels = sorted(set("".join(terms)))
    return terms, "".join(data.draw(st.permutations(labels))[:data.draw(st.integers(0, len(labels)))])


@quick
@given(st.data())
def test_einsums_have_the_values_of_the_reference(data: st.DataObject) -> None:
    """Of three operands and more; each sum is checked against the sum of the absolute values."""
    terms, out = subscripts(data, 5)
    sizes = {c: data.draw(st.integers(0, 4)) for c in "abcde"}
    named = data.draw(st.booleans())
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(0)
    arrays = [numbers(rng, [sizes[c] for c in term], dtype) for term in terms]
    leaves = [leaf(f"x{i}", dtype, [c if named else sizes[c] for c in term]) for i, term in enumerate(terms)]
    text = f"{','.join(terms)}->{out}"
    y = gc.einsum(text, *leaves)
    bound = np.einsum(text, *map(wide, arrays)) * (2 * math.prod(sizes[c] + 1 for c in set("".join(terms)) - set(out)) + 8)
    same(leaves, [y], arrays, [bound], "exact", data.draw(st.sampled_from(["numpy", "interpreter"])))
    want = np.einsum(text, *[a.astype(np.complex128) if a.dtype.kind in "fc" else a for a in arrays])
    have, = run(leaves, [y], arrays)
    assert have.dtype == np.dtype(dtype) and (abs(have - want) <= 4 * bound * np.finfo(dtype).eps if dtype not in EXACT else have == want).all()


@quick
@given(st.data())
def test_einsums_that_sum_over_axes_in_front(data: st.DataObject) -> None:
    """Of two operands: one product, or one for each index along an axis and their sum; whole numbers, of which any order gives the same sum."""
    terms, out = data.draw(st.sampled_from([(["abc", "acd"], "bd"), (["acd", "abc"], "bd"), (["ahbc", "ahcd"], "hbd"), (["abc", "acd"], "db"), (["eabc", "eacd"], "bd"),
                                            (["aebc", "aecd"], "edb"), (["abc", "ac"], "b"), (["abec", "acd"], "bed")]))
    sizes = {c: data.draw(st.integers(0, 5)) for c in "abdeh"} | {"c": data.draw(st.sampled_from([12, 1, 2, 0]))}
    dtype, unknown = data.draw(st.sampled_from(["float32", "float64", "float16", "bfloat16", "int8", "bool"])), data.draw(st.sets(st.sampled_from("abcdeh")))
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-1, 2, [sizes[c] for c in term]).astype(dtypes.as_dtype(dtype)) for term in terms]
    leaves = [leaf(f"x{i}", dtype, [c if c in unknown else sizes[c] for c in term]) for i, term in enumerate(terms)]
    text = f"{','.join(terms)}->{out}"
    f = gc.function(leaves, gc.einsum(text, *leaves), mode=gc.Mode(backend="interpreter"))
    np.testing.assert_array_equal(f(*arrays), np.einsum(text, *[a.astype("bool" if dtype == "bool" else "float64") for a in arrays]).astype(dtypes.as_dtype(dtype)))


def cheapest(terms: Sequence[str], out: str, sizes: dict[str, int]) -> int:
    """By trying every pair first."""
    def count(labels: Any) -> int:
        return math.prod(max(sizes[c], 1) for c in labels)

    if len(terms) == 1:
        return 0
    best = []
    for i, j in itertools.combinations(range(len(terms)), 2):
        rest = [t for k, t in enumerate(terms) if k not in (i, j)]
        needed = set(out).union(*rest)
        a, b = ({c for c in terms[p] if c in needed or c in terms[q]} for p, q in ((i, j), (j, i)))
        best.append(count(a | b) + cheapest([*rest, "".join(sorted((a | b) & needed))], out, sizes))
    return min(best)


@quick
@given(st.data())
def test_einsums_take_the_fewest_multiplications(data: st.DataObject) -> None:
    terms, out = subscripts(data, 5)
    sizes = {c: data.draw(st.integers(1, 9)) for c in "abcde"}
    named = data.draw(st.booleans())
    if named:
        sizes = dict.fromkeys(sizes, 64)  # what a size that is not known counts as
    leaves = [leaf(f"x{i}", "float64", [c if named else sizes[c] for c in term]) for i, term in enumerate(terms)]
    y = gc.einsum(f"{','.join(terms)}->{out}", *leaves)
    total = dims.substitute(multiplications(Graph(leaves, [y])), {s: 64 for v in leaves for d in v.type.shape for s in dims.symbols(d)})
    assert total == cheapest(terms, out, sizes)


def test_an_order_that_is_better_for_all_sizes_is_found() -> None:
    a, b, v = matrices(("n", "k"), ("k", "m"), ("m",))
    y = gc.einsum("ij,jk,k->i", a, b, v)
    assert str(multiplications(Graph([], [y]))) == "k*m + k*n"
    q, k, w = matrices(("b", "q", 8), ("b", "k", 8), ("b", "k", 8))
    y = gc.einsum("bqd,bkd,bkv->bqv", q, k, w)  # attention without softmax: linear in q and k
    assert str(multiplications(Graph([], [y]))) == "64*b*k + 64*b*q"


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int8", "bool", "complex128"])
def test_nodes_of_several_operands(dtype: str) -> None:
    """They come from dumps and from ``apply``."""
    shapes, text = [(4, 5), (5, 6), (6, 4), (4,)], "ij,jk,kl,i->li"
    xs = [leaf(f"x{i}", dtype, s) for i, s in enumerate(shapes)]
    y = apply(einsum_op, *xs, subscripts=text)
    after, context = contracted(xs, [y], "exact")
    assert rules(context) == {"pairwise"} and not any(n.op is einsum_op and len(n.inputs) > 2 for n in after.nodes)
    arrays = [numbers(np.random.default_rng(0), s, dtype) for s in shapes]
    (have,), (want,) = run(after.inputs, after.outputs, arrays), run(xs, [y], arrays)
    assert have.dtype == want.dtype
    np.testing.assert_allclose(have.astype(np.complex128), want.astype(np.complex128), rtol=2e-3 if dtype == "float16" else 1e-4, atol=1e-6)


def test_half_precisions_are_rounded_at_the_end() -> None:
    x = leaf("x", "float16", (3,))
    for y in (gc.einsum("i,i,i,i->", x, x, x, x), apply(einsum_op, x, x, x, x, subscripts="i,i,i,i->")):
        after, _ = contracted([x], [y], "exact")
        value, = run(after.inputs, after.outputs, [np.full(3, 300, np.float16) * np.array([1, 1, 0], np.float16)])
        assert np.isinf(value)  # 2 * 300**4
        small = np.full(3, 2.0**-5, np.float16)
        assert run(after.inputs, after.outputs, [small])[0] == np.float16(3 * 2.0**-20)
    z = gc.einsum("i,i,i->", x, x, x)
    values = np.array([300, 300, 2.0**-9], np.float16)
    assert run([x, y2 := leaf("y", "float16", (3,))], [gc.einsum("i,i,i->", x, x, y2)], [values, np.array([2.0**-9, 2.0**-9, 0], np.float16)])[0] == 351.5
    assert z.type.dtype == np.float16


def test_many_operands_are_taken_as_they_come_cheap() -> None:
    n = MOST_COMPARED + 4
    labels = "abcdefghijklmnop"
    xs = [leaf(f"x{i}", "int64", (3, 3)) for i in range(n)]
    y = in_pairs([(x, labels[i:i + 2]) for i, x in enumerate(xs)], labels[0] + labels[n])
    arrays = [numbers(np.random.default_rng(i), (3, 3), "int64") for i in range(n)]
    np.testing.assert_array_equal(run(xs, [y], arrays)[0], functools.reduce(np.matmul, arrays))
    assert ops(Graph(xs, [y])).count("matmul") == n - 1


def test_no_numpy_is_called() -> None:
    """Everything about an einsum of several real operands, its gradient too, runs in kernels and products."""
    for dtype in ("float32", "float64", "int32"):
        a, b, c = matrices((4, 5, 6), (6, 7), (4, 7), dtype=dtype)
        y = gc.einsum("xij,jk,xk->ik", a, b, c)
        direct = apply(einsum_op, a, b, c, subscripts="xij,jk,xk->ik")
        outs = [y, direct, *([] if dtype == "int32" else gc.grad(gc.sum(direct), [a, b, c]))]
        f = gc.function([a, b, c], outs, mode=gc.Mode(backend="interpreter"))
        assert "call" not in f.dump("kernels")
        arrays = [numbers(np.random.default_rng(0), x.type.shape, dtype) for x in (a, b, c)]  # type: ignore[arg-type]
        for have, want in zip(f(*arrays), gc.function([a, b, c], outs, mode=REFERENCE)(*arrays), strict=True):
            np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


# ---- sums of products -----------------------------------------------------------------------------


@quick
@given(st.data())
def test_sums_of_parts_have_the_values_of_the_reference(data: st.DataObject) -> None:
    """X[:, cuts] @ W[cuts], added up in some order; X and W may be transposes, and larger than what is used."""
    cuts = sorted(data.draw(st.lists(st.integers(0, 9), min_size=2, max_size=4)))
    dtype = data.draw(st.sampled_from(DTYPES))
    m, n = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
    turned = data.draw(st.booleans()), data.draw(st.booleans())
    x, w = leaf("x", dtype, (9, "m") if turned[0] else ("m", 9)), leaf("w", dtype, (n, 9) if turned[1] else (9, n))

    def part(v: Var, turned: bool, first: int, end: int, columns: bool) -> Var:
        if turned:
            return swapped(v[first:end] if columns else v[:, first:end])
        return v[:, first:end] if columns else v[first:end]

    products = [part(x, turned[0], i, j, True) @ part(w, turned[1], i, j, False) for i, j in itertools.pairwise(cuts)]
    products = data.draw(st.permutations(products))
    y = products[0]
    for p in products[1:]:
        y = y + p if data.draw(st.booleans()) else p + y
    arrays = [numbers(np.random.default_rng(0), (9, m) if turned[0] else (m, 9), dtype),
              numbers(np.random.default_rng(1), (n, 9) if turned[1] else (9, n), dtype)]
    bound = (wide(arrays[0]).T if turned[0] else wide(arrays[0])) @ (wide(arrays[1]).T if turned[1] else wide(arrays[1])) * 32
    same([x, w], [y], arrays, [bound], data.draw(st.sampled_from(["fast", "exact"])))


def test_a_sum_of_parts_is_one_product() -> None:
    d = dims.dim("d")
    x, w = leaf("x", "float64", ("n", 3 * d)), leaf("w", "float64", (3 * d, 4))
    a, b, c = x[:, :d] @ w[:d], x[:, d:2 * d] @ w[d:2 * d], x[:, 2 * d:] @ w[2 * d:]
    for y in ((a + b) + c, c + (b + a), a + (b + c)):
        after, context = contracted([x, w], [y])
        assert ops(after) == ["matmul"] and rules(context) == {"join_sums"}
    assert ops(contracted([x, w], [a + b])[0]) == ["subtensor", "subtensor", "matmul"]
    assert ops(contracted([x, w], [a + c])[0]).count("matmul") == 2  # a gap between
    assert not contracted([x, w], [a + b], "exact")[1].log
    assert not contracted([x, w], [a + b, exp(a)])[1].log
    z = leaf("z", "float64", (3 * d, 4))
    assert not contracted([x, w, z], [a + x[:, d:2 * d] @ z[d:2 * d]])[1].log  # parts of two arrays


# ---- columns --------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_columns_have_the_values_of_the_reference(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(DTYPES[:2] + EXACT))
    cuts = sorted(data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=5)))
    m, k = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    turned, named = data.draw(st.booleans()), data.draw(st.booleans())
    x, w = leaf("x", dtype, ("m", "k") if named else (m, k)), leaf("w", dtype, (40, k) if turned else (k, 40))
    products = [x @ (swapped(w[i:j]) if turned else w[:, i:j]) for i, j in itertools.pairwise(cuts)]
    arrays = [numbers(np.random.default_rng(0), (m, k), dtype), numbers(np.random.default_rng(1), (40, k) if turned else (k, 40), dtype)]
    bounds = [wide(arrays[0]) @ (wide(arrays[1]).T if turned else wide(arrays[1]))[:, i:j] * (k + 4) for i, j in itertools.pairwise(cuts)]
    same([x, w], products, arrays, bounds, "exact", "interpreter")


def columns(m: Any, width: Any, count: int, turned: bool = False, dtype: str = "float32") -> tuple[list[Var], list[Var]]:
    x, w = leaf("x", dtype, (m, 7)), leaf("w", dtype, (count * width, 7) if turned else (7, count * width))
    parts = [(i * width, (i + 1) * width) for i in range(count)]
    return [x, w], [x @ (swapped(w[i:j]) if turned else w[:, i:j]) for i, j in parts]


def test_narrow_columns_are_one_product() -> None:
    for m, width, turned in (("n", 4, False), (8, 10, True), (64, 24, False)):
        leaves, outs = columns(m, width, 3, turned)
        after, context = contracted(leaves, outs, "exact")
        assert ops(after).count("matmul") == 1 and rules(context) == {"join_columns"}
    leaves, outs = columns(8, 4, 3)
    x, w = leaves
    some = [outs[2], outs[1], x @ w[:, :3]]  # what does not follow on stays for itself
    after, _ = contracted(leaves, some, "exact")
    assert ops(after).count("matmul") == 2


def test_columns_that_gain_nothing_stay() -> None:
    for args in (("n", 16, 3), (8, 512, 4), (8, 100, 3), (1, 4, 3), (8, 1, 3), (8, dims.dim("d"), 3)):
        leaves, outs = columns(*args)  # type: ignore[arg-type]
        assert not contracted(leaves, outs, "exact")[1].log, args
    leaves, outs = columns(8, 4, 3)
    assert not contracted(leaves, outs, native=False)[1].log
    assert not contracted(leaves, [outs[0], outs[2]])[1].log
    other = leaf("z", "float32", (8, 7))
    assert not contracted([*leaves, other], [outs[0], other @ leaves[1][:, 4:8]])[1].log


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_columns_change_no_bit(dtype: str) -> None:
    for width in (3, 5, 10):
        leaves, outs = columns(33, width, 3, dtype=dtype)
        arrays = [numbers(np.random.default_rng(0), v.type.shape, dtype) for v in leaves]  # type: ignore[arg-type]
        f, g = (gc.function(leaves, outs, mode=gc.Mode(exclude=ex)) for ex in ([], ["contract"]))
        assert f.dump("contract").count("matmul(") == 1 and g.dump("cleanup").count("matmul(") == 3
        for have, want in zip(f(*arrays), g(*arrays), strict=True):
            np.testing.assert_array_equal(have, want)


# ---- all together ---------------------------------------------------------------------------------


def test_a_graph_without_products_is_not_touched() -> None:
    x = leaf("x", "float64", (3, 3))
    for y in (exp(x), x @ x, squeeze(expand_dims(cast(x, np.dtype("int64")), (0,)), (0,))):
        graph = Graph([x], [y])
        assert contract(graph, Context(level="fast", native=True)) is graph


def test_twice_is_once() -> None:
    a, b, v = matrices((9, 9), (9, 9), (9, 1))
    leaves, outs = columns(8, 4, 3)
    once, _ = contracted([a, b, v, *leaves], [(a @ b) @ v, gc.einsum("ij,jk,kl->il", a, b, v), *outs])
    context = Context(level="fast", native=True)
    assert contract(once, context) is once and not context.log


def test_compiled_functions_take_part() -> None:
    """From the graph as written to machine code: fewer FLOPs, the same values."""
    n = 60
    a, b = gc.tensor("a", shape=(n, n)), gc.tensor("b", shape=(n, n))
    v = gc.tensor("v", shape=(n,))
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(n, n)), rng.normal(size=(n, n)), rng.normal(size=n)
    cost = gc.sum(gc.tanh((a @ b) @ v))
    f, g = (gc.function([a, b, v], cost, mode=gc.Mode(level="fast", exclude=ex)) for ex in ([], ["contract"]))
    assert 10 * f.cost({})["flops"] < g.cost({})["flops"]
    np.testing.assert_allclose(f(*arrays), g(*arrays), rtol=1e-9)
    outs = [cost, *gc.grad(cost, [a, b, v])]  # here the product of the matrices is needed more than once
    f = gc.function([a, b, v], outs, mode=gc.Mode(level="fast"))
    for have, want in zip(f(*arrays), gc.function([a, b, v], outs, mode=REFERENCE)(*arrays), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-9)
    with gc.config(verify=True):
        debug = gc.function([a, b, v], outs, mode=gc.Mode(debug=True, level="fast", backend="numpy"))
    debug(*arrays)
