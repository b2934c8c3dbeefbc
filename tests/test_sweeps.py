"""Sweeps: attention and what is like it, block by block of rows: values, bits, memory, and what must not be swept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from graph_subjects import bits
from kernel_examples import sizes
from native_checks import cut_small, two_threads

import graphc as gc
from graphc import compiling, dims, dtypes
from graphc.backends.llvm import sweeping
from graphc.ir import Array, Var
from graphc.kernel import Product, Program, Sweep
from graphc.passes import recompute as recomputing
from graphc.passes import sweeps as swept

LLVM, INTERPRETER, REFERENCE = (gc.Mode(backend=name) for name in ("llvm", "interpreter", "reference"))
BLOCK = 16
rng = np.random.default_rng(0)

Build = Callable[..., Var]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of any size are swept, in blocks of few rows, and none is kept for the gradient."""
    for module, name, value in ((swept, "LEAST_BYTES", 1), (swept, "MOST_ROWS", BLOCK), (swept, "LEAST_ROWS", BLOCK), (recomputing, "KEPT_BYTES", 0), (recomputing, "KEPT_HALVES", 0),
                                (swept, "SHARED_BYTES", 1), (swept, "LEAST_BLOCKS", 1), (swept, "FEW_ROWS", BLOCK)):
        monkeypatch.setattr(module, name, value)


# ---- graphs ---------------------------------------------------------------------------------------


def plain(q: Var, k: Var, v: Var) -> Var:
    return gc.nn.softmax(q @ k.mT, axis=-1) @ v


def by_hand(q: Var, k: Var, v: Var) -> Var:
    s = (q @ k.mT) * 0.5
    e = gc.exp(s - gc.max(s, axis=-1, keepdims=True))
    return (e / gc.sum(e, axis=-1, keepdims=True)) @ v


def divided_later(q: Var, k: Var, v: Var) -> Var:
    """The sum is a second thing made of each row."""
    s = q @ k.mT / 2.0
    e = gc.exp(s - gc.max(s, axis=-1, keepdims=True))
    return (e @ v) / gc.sum(e, axis=-1, keepdims=True)


def causal(q: Var, k: Var, v: Var) -> Var:
    t, n = q.shape[-2], k.shape[-2]
    earlier = gc.expand_dims(gc.arange(t), 1) >= gc.arange(n)
    return gc.nn.softmax(gc.where(earlier, q @ k.mT * 0.5, -1e30), axis=-1) @ v


def masked(q: Var, k: Var, v: Var, m: Var) -> Var:
    """Floats that are added."""
    return gc.nn.softmax(q @ k.mT * 0.5 + m, axis=-1) @ v


def chosen(q: Var, k: Var, v: Var, m: Var) -> Var:
    return gc.nn.softmax(gc.where(m, q @ k.mT * 0.5, -1e30), axis=-1) @ v


def dropped(q: Var, k: Var, v: Var, m: Var) -> Var:
    """What dropout makes of weights."""
    return (gc.nn.softmax(q @ k.mT, axis=-1) * m) @ v


def heads(x: Var, w: Var, v: Var) -> Var:
    """Projections, split into two heads of four features, and joined."""
    def split(y: Var) -> Var:
        return gc.transpose(gc.reshape(y, (*y.shape[:-1], 2, 4)), (0, 2, 1, 3))

    q, k, values = (split(y) for y in (x @ w, x @ gc.tanh(w), x @ v))
    y = gc.transpose(gc.nn.softmax(q @ k.mT * 0.5, axis=-1) @ values, (0, 2, 1, 3))
    return gc.reshape(y, (*y.shape[:-2], 8))


def hidden(x: Var, w: Var, v: Var) -> Var:
    """Two dense layers with a wide one between."""
    return gc.tanh(x @ w) @ v


def contrasted(q: Var, k: Var) -> Var:
    """A number for each row."""
    s = q @ k.mT
    return gc.logsumexp(s, axis=-1) - gc.mean(s, axis=-1)


#: the graph, shapes of its inputs (the letters are sizes), dtypes other than floats
CASES: dict[str, tuple[Build, tuple[tuple[Any, ...], ...], dict[int, str]]] = {
    "plain": (plain, (("T", 4), ("S", 4), ("S", 3)), {}),
    "by hand": (by_hand, (("B", "T", 4), ("B", "S", 4), ("B", "S", 3)), {}),
    "divided later": (divided_later, (("B", "T", 4), ("B", "T", 4), ("B", "T", 4)), {}),
    "causal": (causal, (("B", "H", "T", 4), ("B", "H", "T", 4), ("B", "H", "T", 4)), {}),
    "added": (masked, (("B", "T", 4), ("B", "S", 4), ("B", "S", 3), ("T", "S")), {}),
    "chosen": (chosen, (("B", "H", "T", 4), ("B", "H", "S", 4), ("B", "H", "S", 3), ("B", 1, 1, "S")), {3: "bool"}),
    "dropped": (dropped, (("B", "T", 4), ("B", "S", 4), ("B", "S", 3), ("B", "T", "S")), {}),
    "shared keys": (by_hand, (("B", "H", "T", 4), ("B", 1, "S", 4), ("S", 3)), {}),
    "one key for all": (by_hand, (("B", "H", "T", 4), ("S", 4), ("S", 3)), {}),
    "one query for all": (by_hand, (("T", 4), ("B", "S", 4), ("B", "S", 3)), {}),
    "one query for all heads": (by_hand, (("H", "T", 4), ("B", "H", "S", 4), ("B", "H", "S", 3)), {}),
    "causal, one key for all": (causal, (("H", "T", 4), ("T", 4), ("T", 4)), {}),
    "heads": (heads, (("B", "T", 6), (6, 8), (6, 8)), {}),
    "attention": (lambda q, k, v, m: gc.nn.attention(q, k, v, m, causal=True), (("B", "T", 4), ("B", "S", 4), ("B", "S", 3), ("B", 1, "S")), {3: "bool"}),
    "hidden": (hidden, (("T", 4), (4, "S"), ("S", 3)), {}),
    "contrasted": (contrasted, (("B", "T", 4), ("S", 4)), {}),
}


def functions(case: str, dtype: str, known: dict[str, int] | None = None) -> tuple[list[Var], list[Var]]:
    """The inputs, and the value with the gradients of all floats; the loss depends on the value."""
    build, shapes, others = CASES[case]
    inputs = [gc.tensor(f"x{i}", shape=tuple(known.get(n, n) if known else n for n in shape), dtype=others.get(i, dtype)) for i, shape in enumerate(shapes)]
    y = build(*inputs)
    weights = gc.cos(gc.astype(gc.reshape(gc.arange(y.size), y.shape), dtype))  # others for every element
    return inputs, [y, *gc.grad(gc.sum(y * y * weights), [v for v in inputs if dtypes.is_float(v.dtype)])]


def arguments(case: str, dtype: str, known: dict[str, int]) -> list[Array]:
    _, shapes, others = CASES[case]
    found = []
    for i, shape in enumerate(shapes):
        x = rng.uniform(-1, 1, [known.get(n, n) for n in shape])
        found.append(x > -0.5 if others.get(i) == "bool" else x.astype(dtypes.as_dtype(dtype)))
    return found


def compiled(inputs: Sequence[Var], outputs: Sequence[Var], mode: gc.Mode) -> gc.Function:
    with gc.config(verify=True):
        return gc.function(list(inputs), list(outputs), mode=mode, on_unused_input="ignore")


def compare(have: Sequence[Array], want: Sequence[Array], terms: int, what: Any = "") -> None:
    """Within the error that so many terms of this size may have, against values in wider floats."""
    for n, (a, b) in enumerate(zip(have, want, strict=True)):
        assert a.shape == b.shape, (what, n)
        eps = {2: 2.0 ** -7 if a.dtype.name == "bfloat16" else 2.0 ** -10, 4: 2.0 ** -23, 8: 2.0 ** -52}[a.dtype.itemsize]
        bound = 4 * terms * eps * (1 + abs(b).max(initial=0))
        error = abs(a.astype(np.longdouble) - b).max(initial=0)
        assert error <= bound, f"{what}: result {n} is {float(error)} away, {float(bound)} allowed"


def is_swept(f: gc.Function) -> bool:
    return " sweep " in f.dump("kernels")


def held(program: Program) -> list[str]:
    """Names of what is there for one block only."""
    return [s.name for s in program.slabs if s.place == "block"]


#: sizes about a block, and none
SIZES = [{"B": b, "H": h, "T": t, "S": s} for b, h, t, s in (
    (2, 3, 15, 33), (1, 2, 16, 16), (2, 1, 17, 65), (1, 1, 63, 64), (2, 2, 64, 5), (1, 2, 65, 17), (1, 1, 130, 130), (2, 2, 1, 9), (2, 2, 9, 1),
    (2, 3, 0, 5), (2, 0, 17, 3), (0, 2, 20, 20), (1, 1, 1, 1))]
#: compiled for the interpreter alone: their machine code is like that of others
SLOW = ("divided later", "added", "shared keys", "causal, one key for all", "one query for all heads")
NO_KEYS = {"B": 2, "H": 2, "T": 18, "S": 0}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str) -> None:
    """All sizes, of one function; without keys there is nothing to be the greatest, whatever computes it."""
    inputs, outputs = functions(case, "float32")
    fs = [compiled(inputs, outputs, mode) for mode in (LLVM, INTERPRETER)[case in SLOW:]]
    oracle = gc.function(*functions(case, "float64"), mode=REFERENCE)
    assert all(is_swept(f) for f in fs)
    for n, known in enumerate(SIZES):
        given = arguments(case, "float32", known)
        want = oracle(*[a.astype("float64") if a.dtype == np.float32 else a for a in given])
        for f in fs[:1 if n % 3 and n < 9 and len(fs) == 2 else 2]:  # the interpreter is slow
            compare(f(*given), want, 16 + known["T"] + known["S"], (f.backend, known))


@pytest.mark.parametrize("case", ["plain", "added", "dropped", "hidden", "attention"])
def test_no_keys(case: str) -> None:
    inputs, outputs = functions(case, "float32")
    given = arguments(case, "float32", NO_KEYS)
    want = gc.function(inputs, outputs, mode=REFERENCE)(*given)
    for a, b in zip(compiled(inputs, outputs, INTERPRETER)(*given), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("case", "dtype", "mode", "known"), [
    ("added", "float64", LLVM, {"B": 3, "T": 17, "S": 33}),
    ("causal", "float16", LLVM, {"B": 1, "H": 2, "T": 33}),
    ("chosen", "bfloat16", LLVM, {"B": 2, "H": 1, "T": 20, "S": 64}),
    *[(case, dtype, INTERPRETER, {"B": 2, "H": 3, "T": t, "S": s})
      for n, case in enumerate(CASES) for dtype, t, s in ((("float64", 32, 33), ("float32", 31, 64), ("float16", 17, 15))[n % 3],)],
    ("attention", "bfloat16", INTERPRETER, {"B": 2, "T": 33, "S": 20}),
    ("one key for all", "float16", LLVM, {"B": 2, "H": 3, "T": 40, "S": 70}),
    ("divided later", "bfloat16", LLVM, {"B": 2, "T": 70}),
    ("one query for all", "bfloat16", LLVM, {"B": 3, "T": 40, "S": 33}),
    ("one query for all", "float16", INTERPRETER, {"B": 3, "T": 20, "S": 33}),
    ("one key for all", "float32", INTERPRETER, {"B": 1, "H": 1, "T": 17, "S": 20}),
    *[("by hand", "float32", INTERPRETER, {"B": b, "T": t, "S": s}) for b, t, s in ((0, 17, 20), (1, 1, 40), (2, 17, 17), (17, 17, 17))],
])
def test_known_sizes_and_dtypes(case: str, dtype: str, mode: gc.Mode, known: dict[str, int]) -> None:
    inputs, outputs = functions(case, dtype, known)
    f = compiled(inputs, outputs, mode)
    assert is_swept(f) or known["T"] == 1 or known["B"] == 0
    given = arguments(case, dtype, known)
    oracle = gc.function(*functions(case, "float64", known), mode=REFERENCE)
    want = oracle(*[a if a.dtype == np.bool_ else a.astype("float64") for a in given])
    compare(f(*given), want, 16 + known["T"] + known.get("S", known["T"]))


def same_bits(case: str, dtype: str, lengths: Sequence[tuple[int, int]]) -> None:
    """Whole, and block by block on one thread and on two."""
    inputs, outputs = functions(case, dtype)
    given = [arguments(case, dtype, {"B": 3, "H": 2, "T": t, "S": s}) for t, s in lengths]
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        whole = compiled(inputs, outputs, LLVM)
    assert not is_swept(whole)
    want = [bits(whole(*a)) for a in given]
    with cut_small(), two_threads(), mock.patch.object(sweeping, "most_chunks", lambda: 4):
        f = compiled(inputs, outputs, LLVM)
        assert is_swept(f)
        found = []
        for threads in (1, 2):
            with gc.config(threads=threads):
                found.append([bits(f(*a)) for a in given])
    assert found[0] == found[1], "two threads give other bits than one"
    for size, a, b in zip(lengths, want, found[0], strict=True):
        assert [x == y for x, y in zip(a, b, strict=True)] == [True] * len(a), size


@pytest.mark.parametrize(("case", "dtype"), [("by hand", "float32"), ("heads", "float32"), ("divided later", "float32")])
def test_blocks_and_threads_change_no_bit(case: str, dtype: str) -> None:
    same_bits(case, dtype, [(64, 33), (16, 70)])


@pytest.mark.parametrize("case", ["one key for all", "causal, one key for all"])
def test_sums_of_all_matrices_have_the_same_bits_for_all_threads(case: str) -> None:
    """A sum for each matrix, and these one after the other."""
    inputs, outputs = functions(case, "float32")
    given = arguments(case, "float32", {"B": 2, "H": 3, "T": 40, "S": 33})
    with cut_small(), two_threads(), mock.patch.object(sweeping, "most_chunks", lambda: 4):
        f = compiled(inputs, outputs, LLVM)
        found = []
        for threads in (1, 2, 2):
            with gc.config(threads=threads):
                found.append(bits(f(*given)))
    assert found[0] == found[1] == found[2]
    sums = [step for sweep in f._compiled.program.steps if isinstance(sweep, Sweep) for step in sweep.steps if isinstance(step, Product) and step.adds != 0]
    assert len(sums) == 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("t", "s"), [(130, 33), (64, 70)])
def test_half_floats_are_rounded_once(dtype: str, t: int, s: int) -> None:
    """Sums over the rows of all blocks, too: other bits, and more error with every block, would come of rounding in between."""
    q, k, v = (gc.tensor(name, shape=("H", n, 48), dtype=dtype) for name, n in (("q", "T"), ("k", "S"), ("v", "S")))
    y = plain(q, k, v)
    outputs = [y, *gc.grad(gc.sum(y * y), [q, k, v])]
    numbers = np.random.default_rng(t)  # of some numbers a row of a last block adds up to another bit, as kernels of few rows do
    given = [numbers.uniform(-1, 1, (2, n, 48)).astype(dtypes.as_dtype(dtype)) for n in (t, s, s)]
    f = compiled([q, k, v], outputs, LLVM)
    program = f._compiled.program
    sums = [step for sweep in program.steps if isinstance(sweep, Sweep) for step in sweep.steps if isinstance(step, Product) and step.adds != 0]
    assert [program.slabs[step.out.slab].dtype.name for step in sums] == ["float32", "float32"]
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        g = compiled([q, k, v], outputs, LLVM)
    for a, b in zip(f(*given), g(*given), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- memory ---------------------------------------------------------------------------------------


def arena_at(f: gc.Function, **values: int) -> int:
    arena = f._compiled.program.arena
    return arena if isinstance(arena, int) else dims.evaluate(arena, sizes(**values))


def linear(inputs: Sequence[Var], outputs: Sequence[Var]) -> None:
    f = compiled(inputs, outputs, INTERPRETER)
    once, twice = (arena_at(f, B=2, H=2, T=n, S=n) for n in (2048, 4096))
    assert twice <= 2.2 * once and twice < 4096 * 4096, (once, twice)
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        assert arena_at(compiled(inputs, outputs, INTERPRETER), B=2, H=2, T=4096, S=4096) > 4096 * 4096  # else this test says nothing


@pytest.mark.parametrize("case", ["by hand", "divided later", "causal", "shared keys", "heads", "attention"])
def test_memory_grows_with_the_length(case: str) -> None:
    """Not with its square."""
    inputs, outputs = functions(case, "float32")
    linear(inputs, outputs[:1])


@pytest.mark.parametrize(("case", "dtype"), [
    *[(case, "float32") for case in ("by hand", "divided later", "heads", "attention", "causal", "shared keys", "one key for all", "causal, one key for all", "one query for all", "one query for all heads")],
    ("by hand", "float16"), ("attention", "bfloat16"), ("one key for all", "bfloat16"), ("divided later", "float16")])
def test_memory_of_gradients_grows_with_the_length(case: str, dtype: str) -> None:
    linear(*functions(case, dtype))


@pytest.mark.parametrize("divided", [lambda y, z: y * (1 / z), lambda y, z: y / gc.where(z == 0, 1, z), lambda y, z: gc.exp(-gc.log(z)) * y, lambda y, z: y / (z + 1)])
@pytest.mark.parametrize("loss", [lambda y: gc.sum(y * y), lambda y: gc.sum(y * gc.cos(gc.arange(4)))])
def test_division_after_the_product(divided: Callable[[Var, Var], Var], loss: Callable[[Var], Var]) -> None:
    """In other words; and with a loss whose cotangent does not wait for the value."""
    q, k, v = (gc.tensor(name, shape=("B", "T", 4), dtype="float32") for name in "qkv")
    s = q @ k.mT * 0.5
    e = gc.exp(s - gc.max(s, axis=-1, keepdims=True))
    y = divided(e @ v, gc.sum(e, axis=-1, keepdims=True))
    outputs = [y, *gc.grad(loss(y), [q, k, v])]
    linear([q, k, v], outputs)
    both([q, k, v], outputs, [a.astype("float32") for a in filled(*[(2, 37, 4)] * 3)], modes=[INTERPRETER])


def test_numbers_of_16_bits_that_matrices_share_are_multiplied_one_by_one() -> None:
    """In float32, so that the sums over the matrices are rounded once; where the result has few columns beside its rows."""
    for rows, swept_ in ((64, True), (16, False)):
        q, k, v = (gc.tensor(name, shape=shape, dtype="float16") for name, shape in (("q", (rows, 4)), ("k", (6, 33, 4)), ("v", (6, 33, 4))))
        outputs = gc.grad(gc.sum(gc.sqr(plain(q, k, v))), [q])
        given = [a.astype("float16") for a in filled((rows, 4), (6, 33, 4), (6, 33, 4))]
        f = compiled([q, k, v], outputs, INTERPRETER)
        assert any(s.shape == (6, rows, 4) and s.dtype == np.float32 for s in f._compiled.program.slabs) == swept_
        assert not any(s.place == "arena" and s.shape == (rows, 6, 33) for s in f._compiled.program.slabs) or not swept_
        want = gc.function([q, k, v], outputs, mode=REFERENCE)(*given)
        compare(f(*given), [x.astype("float64") for x in want], 64)


def test_memory_where_heads_share_keys() -> None:
    """What attention promises, with leading axes that broadcast."""
    shapes = (("q", ("B", "H", "T", 4)), ("k", ("B", 1, "S", 4)), ("v", ("B", 1, "S", 4)))
    q, k, v = (gc.tensor(name, shape=shape, dtype="float32") for name, shape in shapes)
    y = gc.nn.attention(q, k, v)
    linear([q, k, v], [y, *gc.grad(gc.sum(y * y), [q, k, v])])


def test_what_matrices_share_is_laid_out_once() -> None:
    """The copy of K' is as large as K, however many queries' matrices read it."""
    q, k, v = (gc.tensor(name, shape=shape, dtype="float32") for name, shape in (("q", (8, 64, 4)), ("k", (64, 4)), ("v", (64, 4))))
    f = both([q, k, v], [plain(q, k, v)], [a.astype("float32") for a in filled((8, 64, 4), (64, 4), (64, 4))])
    copies = [s for s in f._compiled.program.slabs if s.name == "k_turned"]
    assert is_swept(f) and [s.elements for s in copies] == [64 * 4]


@pytest.mark.parametrize(("blocks", "before"), [(1, 0), (2, 0), (3, 1)])
def test_few_blocks_lay_out_for_themselves(blocks: int, before: int) -> None:
    """Another thread might have laid it out, from whose cache it would come."""
    rows = blocks * BLOCK
    q, k, v = (gc.tensor(name, shape=(4, rows, 8), dtype="float32") for name in "qkv")
    f = both([q, k, v], [plain(q, k, v)], [a.astype("float32") for a in filled(*[(4, rows, 8)] * 3)])
    assert is_swept(f) and len([s for s in f._compiled.program.slabs if s.name == "k_turned"]) == before


def both(inputs: Sequence[Var], outputs: Sequence[Var], given: Sequence[Array], terms: int = 200, modes: Sequence[gc.Mode] = (LLVM, INTERPRETER)) -> gc.Function:
    """As the reference has it, on machine code and in the interpreter; the latter's function."""
    want = gc.function(list(inputs), list(outputs), mode=REFERENCE, on_unused_input="ignore")(*given)
    for mode in modes:
        f = compiled(inputs, outputs, mode)
        compare(f(*given), want, terms, mode)
    return f


def three(dtype: str = "float64", *lead: Any) -> list[Var]:
    return [gc.tensor(name, shape=(*lead, n, 4), dtype=dtype) for name, n in (("q", "T"), ("k", "S"), ("v", "S"))]


def filled(*shapes: Sequence[int]) -> list[Array]:
    return [rng.uniform(-1, 1, shape) for shape in shapes]


def test_weights_that_are_a_result() -> None:
    """They are written out, and the value too; so are the scores where these are wanted."""
    q, k, v = three()
    s = q @ k.mT
    w = gc.nn.softmax(s, axis=-1)
    y = w @ v
    gradient = gc.grad(gc.sum(y * y), q)
    given = filled((35, 4), (40, 4), (40, 4))
    for outputs in ([w], [y, w], [y, w, s], [w, gradient], [y, s, gradient]):
        f = both([q, k, v], outputs, given, modes=[INTERPRETER])
        assert len(set(f._compiled.program.roots)) == len(outputs)


def test_other_readers_keep_the_array() -> None:
    """Softmaxes of columns, sums over the rows, rows in another order: none of these can be done with a block."""
    q, k, v = three("float64", "B")
    s = q @ k.mT
    given = filled((2, 35, 4), (2, 40, 4), (2, 40, 4))
    at = gc.asarray(np.array([3, 1, 33]))
    for outputs in ([gc.nn.softmax(s, axis=-2) @ v],
                    [gc.nn.softmax(s, axis=-1) @ v, gc.cumsum(s, axis=1)],
                    [gc.nn.softmax(s, axis=-1) @ v, gc.take(s, at, axis=1)],
                    [gc.nn.softmax(s - gc.max(s, axis=-2, keepdims=True), axis=-1) @ v],
                    [gc.nn.softmax(s + gc.flip(s, axis=1), axis=-1) @ v]):
        program = both([q, k, v], outputs, given, modes=[INTERPRETER])._compiled.program
        products = [step for step in program.steps if isinstance(step, Product)]
        assert products and program.slabs[products[0].out.slab].shape == s.type.shape, outputs


def test_what_is_read_inside_and_outside() -> None:
    """A number for each row, and sums over rows, that later steps read whole."""
    q, k, v = three("float64", "B")
    s = q @ k.mT
    top, total = gc.max(s, axis=-1, keepdims=True), gc.logsumexp(s, axis=-1)
    w = gc.nn.softmax(s, axis=-1)
    back = w.mT @ q
    f = both([q, k, v], [w @ v, total, gc.sum(top, axis=1), back @ gc.ones((4, 2)), gc.sum(back)], filled((2, 35, 4), (2, 40, 4), (2, 40, 4)))
    assert is_swept(f)


def test_keys_that_are_the_queries() -> None:
    """One slab in two roles: rows of it, and all of it."""
    x = gc.tensor("x", shape=("B", "T", 4), dtype="float64")
    y = x
    for _ in range(2):
        y = plain(y, y, y)
    f = both([x], [y, *gc.grad(gc.sum(gc.sin(y)), [x])], filled((3, 37, 4)))
    assert is_swept(f)


def test_two_layers() -> None:
    """With projections and a residual; each has a sweep for the value and one for the gradients."""
    x = gc.tensor("x", shape=("B", "T", 6), dtype="float64")
    ws = [gc.tensor(f"w{i}", shape=(6, 6), dtype="float64") for i in range(4)]
    y = x
    for a, b in (ws[:2], ws[2:]):
        y = y + gc.nn.attention(y @ a, y @ b, y, causal=True)
    f = both([x, *ws], [y, *gc.grad(gc.sum(y * y), [x, *ws])], filled((2, 35, 6), *[(6, 6)] * 4), 1000)
    assert sum(isinstance(step, Sweep) for step in f._compiled.program.steps) >= 4
    once, twice = (arena_at(f, B=1, T=n) for n in (2048, 4096))
    assert twice <= 2.2 * once


def test_second_derivatives() -> None:
    q, k, v = three()
    y = by_hand(q, k, v)
    first = gc.grad(gc.sum(y * y), [q, k])
    second = gc.grad(sum(gc.sum(g * g) for g in first), [q, k, v])
    product = gc.hessian_vector_product(gc.sum(y * y), q, gc.cos(q))
    assert is_swept(both([q, k, v], [*first, *second, product], filled((35, 4), (20, 4), (20, 4)), 4000, [INTERPRETER]))


def test_forward_mode() -> None:
    q, k, v = three("float64", "B")
    y = plain(q, k, v)
    assert is_swept(both([q, k, v], [y, gc.jvp(y, [q, k], [gc.cos(q), gc.sin(k)])], filled((2, 35, 4), (2, 20, 4), (2, 20, 4))))


@pytest.mark.parametrize("mode", [LLVM, INTERPRETER])
def test_shared_state_is_updated(mode: gc.Mode) -> None:
    """Steps of a descent, in which weights are read by sweeps and written over at the end of the call."""
    x, losses = gc.tensor("x", shape=("B", "T", 4), dtype="float64"), []
    start, data = filled((4, 4), (4, 4)), filled((2, 37, 4))[0]
    for one in (mode, REFERENCE):
        ws = [gc.shared(a, f"w{i}") for i, a in enumerate(start)]
        y = plain(x @ ws[0], x @ ws[1], x)
        loss = gc.mean((y - x) ** 2)
        updates = [(w, w - 0.5 * g) for w, g in zip(ws, gc.grad(loss, ws), strict=True)]
        with gc.config(verify=True):
            f = gc.function([x], loss, updates=updates, mode=one)
        assert one is REFERENCE or is_swept(f)
        losses.append([*(float(f(data)) for _ in range(5)), *(w.get_value() for w in ws)])
    for a, b in zip(*losses, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_what_follows_contractions_and_products_is_done_block_by_block() -> None:
    """A convolution, its bias and activation image by image; the update of a weight with its gradient; the same bits as one after the other."""
    x, w, b = gc.tensor("x", shape=(3, 8, 40, 40)), gc.tensor("w", shape=(16, 8, 3, 3)), gc.tensor("b", shape=(16, 1, 1))
    u, g, v = (gc.tensor(name, shape=shape) for name, shape in (("u", (40, 150)), ("g", (40, 70)), ("v", (150, 70))))
    cases = [([x, w, b], [gc.nn.relu(gc.nn.conv(x, w, stride=2, padding=1) + b)], [(3, 8, 40, 40), (16, 8, 3, 3), (16, 1, 1)]),
             ([u, g, v], [0.9 * v + u.T @ g], [(40, 150), (40, 70), (150, 70)])]
    for inputs, outputs, shapes in cases:
        with mock.patch.multiple(swept, MUCH_WORK=1):
            f = both(inputs, outputs, filled(*shapes))
        assert is_swept(f) and not any(s.place == "arena" and s.name in ("conv", "matmul") for s in f._compiled.program.slabs)
        with mock.patch.object(compiling, "sweeps", lambda program: program):
            plain_ = compiled(inputs, outputs, LLVM)
        given = filled(*shapes)
        np.testing.assert_array_equal(compiled(inputs, outputs, LLVM)(*given)[0], plain_(*given)[0])


# ---- what is made for products ---------------------------------------------------------------------


def table(shape: tuple[Any, ...], dtype: str = "float32", rows: int = 50, k: int = 6, columns: Sequence[int] = (5,)) -> tuple[list[Var], list[Var]]:
    """Rows gathered from a table, times a matrix or several."""
    x, at = gc.tensor("x", shape=(rows, k), dtype=dtype), gc.tensor("at", shape=shape, dtype="int32")
    ws = [gc.tensor(f"w{n}", shape=(k, n), dtype=dtype) for n in columns]
    return [x, at, *ws], [x[at] @ w for w in ws]


def gathered(f: gc.Function) -> list[str]:
    """Where gathered rows lie."""
    return [s.place for s in f._compiled.program.slabs if s.name.startswith("take")]


@pytest.mark.parametrize(("shape", "dtype", "columns"), [
    ((40,), "float32", (5,)), ((48,), "float64", (2, 7)), ((33,), "float32", (40, 3, 17)), ((3, 17), "float32", (5,)), ((2, 2, 16), "float64", (5, 4))])
def test_rows_of_a_table_are_gathered_block_by_block(shape: tuple[int, ...], dtype: str, columns: tuple[int, ...]) -> None:
    """With the bits of gathering all of them first, for any number of threads; positions may count from the end."""
    inputs, outputs = table(shape, dtype, columns=columns)
    given = [rng.normal(size=v.type.shape).astype(dtype) if v.dtype != np.int32 else rng.integers(-50, 50, shape, "int32") for v in inputs]
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        whole = compiled(inputs, outputs, LLVM)
    assert gathered(whole) == ["arena"]
    want = bits(whole(*given))
    with cut_small(), two_threads(), mock.patch.object(sweeping, "most_chunks", lambda: 4):
        f = compiled(inputs, outputs, LLVM)
        assert gathered(f) == ["block"]
        for threads in (1, 2):
            with gc.config(threads=threads):
                assert bits(f(*given)) == want, threads
    x, at = given[:2]
    for a, w in zip(compiled(inputs, outputs, INTERPRETER)(*given), given[2:], strict=True):
        np.testing.assert_allclose(a, x[at] @ w, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [LLVM, INTERPRETER])
def test_a_position_outside_of_the_table_changes_nothing(mode: gc.Mode) -> None:
    """The error is that of gathering, with the user's line, before state is touched."""
    (x, at, w), _ = table((40,))
    calls = gc.shared(np.zeros(3), "calls")
    y = x[at] @ w  # the line of the error
    with gc.config(verify=True):
        f = gc.function([x, at, w], y, updates=[(calls, calls + 1)], mode=mode)
    assert gathered(f) == ["block"]
    given = [rng.normal(size=(50, 6)).astype("float32"), rng.integers(-50, 50, 40, "int32"), rng.normal(size=(6, 5)).astype("float32")]
    for position, bad in ((0, 50), (39, -51), (17, 2 ** 31 - 1)):
        wrong = given[1].copy()
        wrong[position] = bad
        with pytest.raises(IndexError, match="test_sweeps"):
            f(given[0], wrong, given[2])
        np.testing.assert_array_equal(calls.get_value(), 0)
    np.testing.assert_allclose(f(*given), given[0][given[1]] @ given[2], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(calls.get_value(), 1)


def test_infinite_rows_stay_what_they_are() -> None:
    """0 * inf is nan, in a row that is gathered as in any other; other rows see nothing of it."""
    inputs, outputs = table((40,), "float64")
    given = [rng.normal(size=(50, 6)), rng.integers(-50, 50, 40, "int32"), rng.normal(size=(6, 5))]
    given[0][7, 2], given[2][2, 1], given[1][[3, 30]] = np.inf, 0.0, 7
    f, g = compiled(inputs, outputs, LLVM), gc.function(inputs, outputs, mode=REFERENCE)
    assert gathered(f) == ["block"]
    (have,), (want,) = f(*given), g(*given)
    assert np.isnan(have[3, 1]) and not np.isfinite(have[[3, 30]]).any()
    np.testing.assert_allclose(have, want, rtol=1e-12)


@pytest.mark.parametrize(("case", "swept_"), [("pointwise", True), ("normalised", True), ("several", True), ("result", False), ("summed over rows", False),
                                              ("read elsewhere", False), ("few rows", False), ("long rows", False), ("half floats", False), ("unknown", False)])
def test_which_operands_are_made_in_blocks(case: str, swept_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "few rows":
        monkeypatch.setattr(swept, "LEAST_BLOCKS", 3)
    if case == "long rows":
        monkeypatch.setattr(swept, "ROW_BYTES", 6 * 8 - 1)
    dtype = "float16" if case == "half floats" else "float64"
    x, w, v = (gc.tensor(name, shape=shape, dtype=dtype) for name, shape in (("x", ("n" if case == "unknown" else 40, 6)), ("w", (6, 5)), ("v", (6, 3))))
    a = (x - gc.mean(x, axis=-1, keepdims=True)) * gc.exp(x) if case == "normalised" else gc.tanh(x) + 1.0
    extra = {"several": [a @ v], "result": [a], "summed over rows": [a.T @ gc.cos(x)], "read elsewhere": [gc.cumsum(a, axis=0)]}
    inputs, outputs = [x, w, v], [a @ w, *extra.get(case, [])]
    given = [array.astype(dtype) for array in filled((40, 6), (6, 5), (6, 3))]
    f = compiled(inputs, outputs, LLVM)
    assert is_swept(f) == swept_
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        compare(f(*given), compiled(inputs, outputs, LLVM)(*given), 20, case)
    if swept_:
        both(inputs, outputs, given)
