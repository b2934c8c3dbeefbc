"""The LLVM backend as a whole: what becomes one kernel, one compile for any size, constants as data, errors, dumps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.llvm.engine import engine
from graphc.kernel import CallOut, Launch, Product

LLVM, REFERENCE = gc.Mode(backend="llvm"), gc.Mode(backend="reference")


def compiled(inputs: list[Any], outputs: Any, **options: Any) -> Any:
    return gc.function(inputs, outputs, mode=LLVM, **options)


def steps(f: Any, kind: type) -> list[Any]:
    return [step for step in f._compiled.program.steps if isinstance(step, kind)]


def agree(f: Any, inputs: list[Any], outputs: list[Any], *arguments: Any, rtol: float = 1e-10) -> None:
    want = gc.function(inputs, outputs, mode=REFERENCE)(*arguments)
    for have, value in zip(f(*arguments), want, strict=True):
        assert have.dtype == value.dtype and have.shape == value.shape
        np.testing.assert_allclose(have, value, rtol=rtol, atol=rtol)


def rows(n: int = 7, m: int = 19, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, m))


# ---- fusion --------------------------------------------------------------------------------------


def test_cross_entropy_and_its_gradient_are_one_kernel_beside_the_check_of_the_labels() -> None:
    x, labels = gc.matrix("x"), gc.ivector("labels")
    loss = gc.nn.cross_entropy(x, labels)
    outputs = [loss, gc.grad(loss, x)]
    f = compiled([x, labels], outputs)
    launches = steps(f, Launch)
    assert not steps(f, CallOut)
    readers = [step for step in launches if f._compiled.program.arguments[0] in step.reads]
    assert len(readers) == 1 and len(readers[0].kernel.stages) == 4
    agree(f, [x, labels], outputs, rows(), np.arange(7, dtype="int32") % 19)
    with pytest.raises(IndexError, match="test_llvm_backend"):
        f(rows(), np.full(7, 19, "int32"))


@pytest.mark.parametrize("axis", [0, 1])
def test_layer_norm_with_all_gradients_is_one_kernel_or_two(axis: int) -> None:
    x, w, b, g = gc.matrix("x"), gc.vector("w"), gc.vector("b"), gc.matrix("g")
    mean = x.mean(axis=axis, keepdims=True)
    centred = x - mean
    y = centred / gc.sqrt((centred * centred).mean(axis=axis, keepdims=True) + 1e-5)
    y = y * w + b if axis == 1 else (y.T * w + b).T
    outputs = [y, *gc.grad((y * g).sum(), [x, w, b])]
    f = compiled([x, w, b, g], outputs)
    assert not steps(f, CallOut) and len(steps(f, Launch)) <= 2
    n = 19 if axis == 1 else 7
    agree(f, [x, w, b, g], outputs, rows(), rows(1, n)[0], rows(1, n, 1)[0], rows(seed=2), rtol=1e-9)


def test_distances_of_all_pairs_are_never_an_array_of_rank_three() -> None:
    a, b = gc.tensor("a", shape=("n", "k")), gc.tensor("b", shape=("m", "k"))
    f = compiled([a, b], [((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1)])
    assert all(len(s.shape) <= 2 for s in f._compiled.program.slabs)
    np.testing.assert_allclose(f(rows(5, 3), rows(4, 3, 1))[0], ((rows(5, 3)[:, None] - rows(4, 3, 1)) ** 2).sum(-1))


def test_updates_of_parameters_of_all_sizes_share_their_code() -> None:
    parameters = [gc.shared(np.ones(n, "float32"), f"p{n}") for n in (70, 100, 1000)]
    x = gc.scalar("x", dtype="float32")
    f = compiled([x], None, updates=[(p, p * 0.9 - x * p) for p in parameters])
    names = {step.kernel for step in steps(f, Launch)}
    assert len(steps(f, Launch)) == 3 and len(f._compiled.runner.native.texts) == 2, names  # one kernel and the driver


# ---- sizes and constants ---------------------------------------------------------------------------


def test_constants_are_data() -> None:
    v = gc.dvector("v")
    compiled([v], [gc.exp(v * 3.25) + 7.5])
    before = engine().statistics
    f = compiled([v], [gc.exp(v * 4.125) + 9.75])
    spent = engine().statistics - before
    assert spent.compiled == 0
    np.testing.assert_allclose(f([1.0])[0], np.exp([4.125]) + 9.75)


def test_sizes_that_broadcast_run_a_second_program() -> None:
    x, y = gc.dmatrices("x", "y")
    cost = ((x * y) ** 2).sum()
    outputs = [cost, *gc.grad(cost, [x, y])]
    f = compiled([x, y], outputs)
    assert f.dump("assume") and not steps(f, CallOut)
    runner = f._compiled.runner
    agree(f, [x, y], outputs, rows(), rows(seed=1))
    assert runner.general is None
    for a, b in (((7, 1), (7, 19)), ((1, 19), (7, 1)), ((1, 1), (7, 19)), ((0, 3), (0, 1)), ((1, 1), (1, 1))):
        agree(f, [x, y], outputs, rows(*a), rows(*b, 1))
    assert runner.general is not None
    with pytest.raises(ValueError, match="must be equal, or one of them 1"):
        f(rows(7, 2), rows(7, 3))


def test_sizes_that_must_be_equal_are_one() -> None:
    x, w = gc.dmatrix("x"), gc.shared(rows(19, 4), "w")
    f = compiled([x], [gc.tanh(x @ w)])
    product, = steps(f, Product)
    assert product.a.shape[1] == 19
    assert f.graph.inputs[0].type.shape[1] == 19
    with pytest.raises(ValueError, match="must be equal"):
        f(rows(3, 18))


@pytest.mark.parametrize("n", [0, 1, 3, 15, 16, 17, 63, 64, 65, 1000, 5000])
def test_one_compile_serves_all_sizes(n: int) -> None:
    v = gc.tensor("v", shape=("n",), dtype="float32")
    outputs = [v * 2 + 1, v.sum(), (v * v).mean(), v[::-1], gc.cumsum(v) * 2, (v > 0).all(), (v > 1).any()]
    f = SIZES.setdefault("f", compiled([v], outputs))
    agree(f, [v], outputs, np.random.default_rng(n).normal(size=n).astype("float32"), rtol=1e-4 if n else 0.0)


SIZES: dict[str, Any] = {}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8"])
def test_rows_of_unknown_length_begin_with_a_masked_group(dtype: str) -> None:
    """Their first group sets the accumulators, and a mean over a power of two is a product with the same bits."""
    x = gc.matrix("x", dtype=dtype)
    outputs = [gc.sum(x, axis=1), gc.prod(x if dtype == "int8" else 1 + x / 100, axis=1), gc.any(x > 1, axis=1), gc.mean(x, axis=1), x - gc.mean(x, axis=1, keepdims=True)]
    nonempty = [gc.max(x, axis=1), gc.argmin(x, axis=1), gc.var(x, axis=1)]
    f, g = (gc.function([x], o) for o in (outputs, nonempty))
    rng = np.random.default_rng(0)
    for n in (0, 1, 2, 8, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129, 200, 256, 1000):
        array = (rng.normal(size=(37, n)) * 3).astype(dtype)
        oracle = gc.function([x], outputs + nonempty * (n > 0), mode=gc.Mode(backend="reference"))(array)
        found = f(array) + (g(array) if n else [])
        for a, b in zip(found, oracle, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=2e-4 if dtype == "float32" else 1e-10, atol=1e-5 if dtype == "float32" else 1e-12, err_msg=str(n))
        whole = np.full((3, n), 3, dtype)
        np.testing.assert_array_equal(f(whole)[3], np.mean(whole, axis=1) if n else np.full(3, np.nan))
    zeros = np.full((2, 33), -0.0).astype(dtype)
    assert np.signbit(f(zeros)[0]).all() == (dtype != "int8")
    assert not np.signbit(f(zeros[:, :0])[0]).any()


@pytest.mark.parametrize("rows", [5, 9, 16, 17, 33, 40])
def test_short_rows_in_lanes_of_an_inner_loop(rows: int) -> None:
    """A known number of rows that leaves a part of a vector, below another loop: each is written once, and nothing else."""
    rng = np.random.default_rng(rows)
    for dtype, n in (("float32", 1), ("float32", 6), ("float64", 5)):
        a, b = rng.normal(size=(3, rows, n)).astype(dtype), rng.normal(size=(rows, n)).astype(dtype)
        for known in (n, None):
            x, y = gc.tensor("x", dtype=dtype, shape=(3, rows, known)), gc.tensor("y", dtype=dtype, shape=(rows, known))
            f = gc.function([x, y], gc.exp(x - gc.max(x, axis=-1, keepdims=True)) + gc.sum(x, axis=-1, keepdims=True) * y)
            want = np.exp(a - a.max(-1, keepdims=True)) + a.sum(-1, keepdims=True) * b
            np.testing.assert_allclose(f(a, b), want, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
def test_lanes_that_do_not_count_leave_no_trace(known: bool) -> None:
    """Beyond the end of a row 0 / 0 is computed: its NaN is none of the row's."""
    for n in (1, 5, 12, 13, 40, 100, 257):
        rng = np.random.default_rng(n)
        a, b = rng.normal(size=(7, n)), rng.normal(size=(7, n))
        x, y = (gc.tensor(name, dtype="float64", shape=a.shape if known else (None, None)) for name in "xy")
        u, v = (gc.tensor(name, dtype="float64", shape=(n,) if known else (None,)) for name in "uv")
        outputs = [gc.max(x / y, axis=1), gc.min(x / y, axis=1), gc.sum(x / y, axis=1), gc.prod(x / y, axis=1), gc.argmax(x / y, axis=1), gc.any(x / y != x / y, axis=1)]
        quotient = a / b
        want = [quotient.max(1), quotient.min(1), quotient.sum(1), quotient.prod(1), quotient.argmax(1), np.zeros(7, bool)]
        for got, good in zip(gc.function([x, y], outputs)(a, b), want, strict=True):
            np.testing.assert_allclose(got, good, rtol=1e-12)
        np.testing.assert_allclose(gc.function([u, v], gc.softmax(u / v, axis=0))(a[0], b[0]).sum(), 1.0, rtol=1e-12)
        np.testing.assert_allclose(gc.function([u, v], gc.max(u / v))(a[0], b[0]), quotient[0].max(), rtol=1e-12)


def test_an_empty_axis_has_no_maximum_whatever_the_backend() -> None:
    x = gc.dmatrix("x")
    f = compiled([x], [x.max(axis=1), x + 1])
    assert f(np.zeros((0, 0)))[0].shape == (0,)
    with pytest.raises(ValueError, match=r"no value along an axis of length 0[^\n]*\n.*test_llvm_backend"):
        f(np.zeros((2, 0)))
    assert f([[1.0, 3.0]])[0].tolist() == [3.0]


# ---- results ----------------------------------------------------------------------------------------


def test_nan_wins_in_max_and_min_at_every_place() -> None:
    x = gc.tensor("x", shape=("n", "m"), dtype="float32")
    f = compiled([x], [x.max(), x.max(axis=0), x.max(axis=1), x.min(axis=1), gc.argmax(x, axis=1), gc.argmin(x)])
    for n, m in ((3, 5), (4, 70), (70, 4)):
        for place in range(0, n * m, 7):
            a = rows(n, m).astype("float32")
            a.flat[place] = np.nan
            want = [a.max(), a.max(0), a.max(1), a.min(1), a.argmax(1), a.argmin()]
            for have, value in zip(f(a), want, strict=True):
                np.testing.assert_array_equal(have, value)


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    x = gc.tensor("x", shape=("n", "m"), dtype="float32")
    f = compiled([x], [x.sum(), x.sum(axis=0), x.sum(axis=1), gc.softmax(x, axis=1), (x * x).mean(axis=0), gc.exp(x) @ gc.tanh(x.T)])
    a = rows(301, 1003).astype("float32")
    runs = []
    for threads in (1, 2, 3):
        with gc.config(threads=threads):
            runs.append([r.tobytes() for r in f(a)])
    assert runs[0] == runs[1] == runs[2]


def test_sums_of_negative_zeros_keep_their_sign_and_empty_ones_are_positive() -> None:
    v = gc.dvector("v")
    f = compiled([v], v.sum())
    assert np.signbit(f([-0.0, -0.0])) and not np.signbit(f([])) and not np.signbit(f([-0.0, 0.0]))


def test_half_precisions_round_after_every_op() -> None:
    for dtype in ("float16", "bfloat16"):
        x, y = gc.tensor("x", shape=("n",), dtype=dtype), gc.tensor("y", shape=("n",), dtype=dtype)
        f, r = (gc.function([x, y], [x * y + x, (x + y) * y - x], mode=mode) for mode in (LLVM, REFERENCE))
        a, b = (np.random.default_rng(s).normal(size=99).astype(x.dtype) for s in (0, 1))
        for have, want in zip(f(a, b), r(a, b), strict=True):
            assert have.tobytes() == want.tobytes()


def test_strided_read_only_and_misaligned_arguments() -> None:
    x = gc.dmatrix("x")
    f = compiled([x], [x * 2, x.sum(axis=0)])
    base = rows(8, 12)
    raw = np.zeros(8 * 12 * 8 + 1, np.uint8)
    misaligned = raw[1:].view(np.float64).reshape(8, 12)
    misaligned[...] = base
    frozen = base.copy()
    frozen.setflags(write=False)
    for a in (base.T, base[::2, ::-3], np.asfortranarray(base), np.broadcast_to(base[0], (5, 12)), misaligned, frozen, base[3:3]):
        for have, want in zip(f(a), (a * 2, a.sum(axis=0)), strict=True):
            np.testing.assert_allclose(have, want, atol=1e-14)


# ---- looking ----------------------------------------------------------------------------------------


def test_every_form_can_be_shown() -> None:
    x = gc.dmatrix("x")
    f = compiled([x], [gc.softmax(x, axis=1), x.T @ x])
    assert "grid i < " in f.dump("kernels") and "test_llvm_backend.py" in f.dump("kernels")
    assert "define i64 @" in f.dump("llvm") and "; kernel " in f.dump("llvm")
    assert "ret" in f.dump("asm")
    assert "arena" in f.dump("memory")
    with pytest.raises(ValueError, match="makes no source"):
        f.dump("source")


def test_sizes_found_by_data_and_check_nan_run_on_numpy() -> None:
    v = gc.dvector("v")
    assert compiled([v], [v[v > 0].sum()]).backend == "numpy"
    assert gc.function([v], gc.log(v), mode=gc.Mode(check_nan=True)).backend == "numpy"
    assert compiled([v], [gc.log(v)]).backend == "llvm"


def test_every_elementwise_op_has_a_native_form_or_is_named_as_foreign() -> None:
    from graphc.backends.llvm.elements import APPLY
    from graphc.ops import OPS
    from graphc.passes.native import FOREIGN
    names = {op.name for op in OPS.values() if op.kind == "elementwise"} - {"cast"}
    assert names - FOREIGN == set(APPLY) and FOREIGN <= names


def test_assumptions_that_contradict_each_other_are_left() -> None:
    """A size that meets 4 and twice itself can only be 1."""
    x = gc.tensor("x", shape=(None, 3))
    twice = gc.reshape(gc.broadcast_to(gc.expand_dims(x, 1), (x.shape[0], 2, 3)), (2 * x.shape[0], 3))
    chosen = gc.where(x > 0, twice, x)
    f = gc.function([x], [gc.broadcast_to(x, (4, 3)), gc.where(x > 0, chosen, x)])
    have = f(np.ones((1, 3)))
    assert [a.shape for a in have] == [(4, 3), (2, 3)] and all((a == 1).all() for a in have)
