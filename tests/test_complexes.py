"""Complex arithmetic in kernels and products: the pass ``complexes``, pairs in memory, what stays outside."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kernel_checks import compare
from kernel_running import SIZES, TARGETS, Compiled, Setting, guarded

import graphc as gc
from graphc.errors import VerificationError
from graphc.ir import Graph, Var
from graphc.kernel import Launch, Product, Program
from graphc.kernel_text import parse_kernel, print_kernel
from graphc.passes.complexes import complexes
from graphc.passes.context import Context
from graphc.rewiring import load_dump
from graphc.verify_kernel import verify_program

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES = ("complex64", "complex128")
REAL = {"complex64": "float32", "complex128": "float64"}
EPSILON = {"complex64": 2.0 ** -23, "complex128": 2.0 ** -52}
SPECIAL = (0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 5e-324, 1e-45, -1e-310, 3.0)


def numbers(dtype: str, *shape: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)


def every_pair(dtype: str) -> tuple[Array, Array]:
    """Each combination of special parts with each other one."""
    with np.errstate(all="ignore"):
        base = np.array(SPECIAL, REAL[dtype])
    z = np.empty((len(base), len(base)), dtype)
    z.real, z.imag = base[:, None], base
    return np.repeat(z.ravel(), z.size), np.tile(z.ravel(), z.size)


def leaf(name: str, dtype: str, *shape: Any) -> Var:
    return gc.tensor(name, shape=shape, dtype=dtype)


def both(inputs: list[Var], outputs: Any, **options: Any) -> tuple[gc.Function, gc.Function]:
    """Native, with the program verified; and the reference."""
    with gc.config(verify=True):
        native = gc.function(inputs, outputs, mode=gc.Mode(backend="llvm"), on_unused_input="ignore", **options)
    return native, gc.function(inputs, outputs, mode=gc.Mode(backend="reference"), on_unused_input="ignore")


def is_native(f: gc.Function) -> bool:
    return " call " not in f.dump("kernels")


def parts(x: Array) -> list[Array]:
    return [x.real, x.imag] if x.dtype.kind == "c" else [x]


def check_alike(have: Array, want: Array, dtype: str, error: float = 4.0, signs: bool = True) -> None:
    """nan, inf and the signs of zeros at the same places; else a few units in the last place of each part."""
    assert have.dtype == want.dtype and have.shape == want.shape
    smallest = float(np.finfo(REAL[dtype]).smallest_subnormal)
    for a, b in zip(parts(have), parts(want), strict=True):
        if a.dtype.kind not in "f":
            np.testing.assert_array_equal(a, b)
            continue
        finite = np.isfinite(b)
        np.testing.assert_array_equal(np.where(finite, 0, b), np.where(np.isfinite(a), 0, a))
        if signs:
            zero = b == 0
            np.testing.assert_array_equal(np.signbit(a[zero]), np.signbit(b[zero]))
        with np.errstate(all="ignore"):
            assert (np.abs(a - b)[finite] <= error * (EPSILON[dtype] * np.abs(b[finite]) + smallest)).all()


# ---- one op at a time -----------------------------------------------------------------------------

UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": lambda z: -z, "conj": gc.conj, "reciprocal": gc.reciprocal, "abs": gc.abs, "sign": gc.sign,
    "isnan": gc.isnan, "isinf": gc.isinf, "isfinite": gc.isfinite, "real": lambda z: gc.real(z) + 1, "imag": lambda z: gc.imag(z) * 2,
    "bool": lambda z: gc.cast(z, "bool"), "narrow": lambda z: gc.cast(z, "complex64"), "wide": lambda z: gc.cast(z, "complex128"),
    "cast to real": lambda z: gc.cast(z, "float64"), "constant": lambda z: z + (2 - 3j), "real constant": lambda z: z - 2.0,
    "round": gc.round, "square": lambda z: z ** 2, "cube": lambda z: z ** 3,
    "where": lambda z: gc.where(gc.isnan(z), 1j, z), "copy": lambda z: z[::-1], "masked": lambda z: gc.where(gc.abs(z) > 2, z, 0),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda z, w: z + w, "sub": lambda z, w: z - w, "div": lambda z, w: z / w, "equal": gc.equal, "not_equal": gc.not_equal,
    "where": lambda z, w: gc.where(gc.isfinite(z), z, w), "real + complex": lambda z, w: gc.real(z) + w, "complex / real": lambda z, w: z / gc.real(w),
    "real / complex": lambda z, w: gc.real(z) / w, "choose": lambda z, w: gc.where(gc.equal(z, w), 0, z),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_special_values_are_those_of_numpy(dtype: str, name: str) -> None:
    a, b = every_pair(dtype)
    z, w = leaf("z", dtype, "n"), leaf("w", dtype, "n")
    native, reference = both([z, w], UNARY[name](z) if name in UNARY else BINARY[name](z, w))
    assert is_native(native)
    with np.errstate(all="ignore"):
        check_alike(native(a, b), reference(a, b), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_multiplication_is_the_formula_bit_by_bit(dtype: str) -> None:
    """NumPy's own may contract it to a fused multiply-add, from processor to processor."""
    a, b = every_pair(dtype)
    z, w = leaf("z", dtype, "n"), leaf("w", dtype, "n")
    with np.errstate(all="ignore"):
        re, im = a.real * b.real - a.imag * b.imag, a.real * b.imag + a.imag * b.real
        sq = a.real * a.real - a.imag * a.imag, a.real * a.imag + a.imag * a.real
    native, reference = both([z, w], [z * w, gc.square(z)])
    assert is_native(native)
    for found, (x, y) in zip(native(a, b), ((re, im), sq), strict=True):
        for have, want in ((found.real, x), (found.imag, y)):
            np.testing.assert_array_equal(have, want)
            zero = want == 0
            np.testing.assert_array_equal(np.signbit(have[zero]), np.signbit(want[zero]))
    # nor can it be told from NumPy's where nothing cancels
    plain = np.isin(np.abs(a.real), (0, 1, np.inf)) & np.isin(np.abs(b.real), (0, 1, 3, np.inf)) & (np.abs(a.imag) != 3) | np.isnan(a) | np.isnan(b)
    with np.errstate(all="ignore"):
        want = reference(a, b)[0]
    have = native(a, b)[0]
    for x, y in ((have.real, want.real), (have.imag, want.imag)):
        np.testing.assert_array_equal(np.isnan(x[plain]), np.isnan(y[plain]))
        np.testing.assert_array_equal(np.isinf(x[plain]), np.isinf(y[plain]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_real_operand_becomes_complex_first(dtype: str) -> None:
    """(x + 0i) * z has nan where 0 meets an infinity, as in NumPy."""
    a, b = every_pair(dtype)
    x, z = leaf("x", REAL[dtype], "n"), leaf("z", dtype, "n")
    native, _ = both([x, z], x * z)
    assert is_native(native)
    u, zero = a.real.copy(), np.zeros((), REAL[dtype])
    with np.errstate(all="ignore"):
        want = [u * b.real - zero * b.imag, u * b.imag + zero * b.real]
    have = native(u, b)
    np.testing.assert_array_equal(have.real, want[0])
    np.testing.assert_array_equal(have.imag, want[1])


LENGTHS = (0, 1, 2, 7, 15, 16, 17, 33, 64, 127, 1000)


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_lengths(dtype: str) -> None:
    """Tails, whole vectors, and nothing; the length known and not."""
    z, w = leaf("z", dtype, "n"), leaf("w", dtype, "n")
    outputs = [z * w, gc.abs(z + w), gc.sum(z * gc.conj(w)), z - 1, gc.real(z)]
    native, reference = both([z, w], outputs)
    for n in LENGTHS:
        a, b = numbers(dtype, n), numbers(dtype, n, seed=1)
        fixed, _ = both([u := leaf("u", dtype, n), v := leaf("v", dtype, n)], [u * v, gc.sum(u * v)])
        for have, want in zip(native(a, b), reference(a, b), strict=True):
            np.testing.assert_allclose(have, want, rtol=100 * EPSILON[dtype], atol=20 * (n + 1) ** 0.5 * EPSILON[dtype])
        for have, want in zip(fixed(a, b), (a * b, np.sum(a * b)), strict=True):
            np.testing.assert_allclose(have, want, rtol=100 * EPSILON[dtype], atol=20 * (n + 1) ** 0.5 * EPSILON[dtype])


REDUCED: dict[str, Callable[[Any], Any]] = {
    "sum": lambda z: gc.sum(z), "rows": lambda z: gc.sum(z * z, axis=0), "columns": lambda z: gc.sum(z, axis=1, keepdims=True),
    "mean": lambda z: gc.mean(z, axis=1), "centred": lambda z: z - gc.mean(z, axis=1, keepdims=True),
    "scaled": lambda z: z / gc.sqrt(gc.sum(gc.square(gc.abs(z)), axis=1, keepdims=True)),
    "norm": lambda z: gc.sqrt(gc.sum(gc.real(z * gc.conj(z)))), "cumsum": lambda z: gc.cumsum(z, axis=1),
}
MOVED: dict[str, Callable[[Any], Any]] = {
    "transpose": lambda z: z.T, "turned product": lambda z: z.T * 2j, "flip": lambda z: gc.flip(z * 1j, axis=1), "slice": lambda z: z[1:, ::2] * z[:-1, ::2],
    "reshape": lambda z: gc.reshape(z * 2, (-1,)), "reshape of a view": lambda z: gc.reshape(z.T, (-1,)), "row": lambda z: z[1] + z[-1],
    "broadcast": lambda z: gc.broadcast_to(z[:1], (4, 3, 6)) * z[:3], "expand": lambda z: z[:, None] * z[None], "pad": lambda z: gc.pad(z * z, ((1, 2), (0, 1))),
    "roll": lambda z: gc.roll(z, 2, axis=1), "rolled product": lambda z: gc.roll(z * z, 1, axis=0) + z, "set": lambda z: gc.set_subtensor(z[0, 1:], 3j),
    "added": lambda z: gc.inc_subtensor(z[:, 0], z[:, 1]), "take": lambda z: gc.take(z, np.array([2, 0, -1]), axis=0) * 2,
    "join": lambda z: gc.concatenate([z, z * z, gc.conj(z)], axis=1), "join of views": lambda z: gc.concatenate([z, z[::-1]], axis=0),
    "stack": lambda z: gc.stack([z, z + 1], axis=1), "diagonal": lambda z: gc.diagonal(z[:3, :3]) * 1j, "tril": lambda z: gc.tril(z * z),
    "zeros": lambda z: gc.zeros_like(z) + z, "ones": lambda z: gc.ones_like(z) - z, "scalar": lambda z: z[0, 0] * z, "nothing": lambda z: z[:, 3:3] * 2j,
    "one": lambda z: gc.reshape(z[1, 1], ()) / 3j, "identity": lambda z: gc.eye(4, 6, dtype=z.dtype) * z, "take along": lambda z: gc.take_along_axis(z, np.array([[2], [0], [1], [5]]), axis=1),
    "convolution": lambda z: gc.nn.conv(z[None], gc.reshape(z[:, :2], (1, 4, 2)), padding=1),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*REDUCED, *MOVED])
@pytest.mark.parametrize("known", [False, True])
def test_reductions_and_movement(dtype: str, name: str, known: bool) -> None:
    z = leaf("z", dtype, *((4, 6) if known else (None, None)))
    y = (REDUCED.get(name) or MOVED[name])(z)
    native, reference = both([z], y)
    assert is_native(native), native.dump("kernels")
    a = numbers(dtype, 4, 6)
    for array in (a, np.asfortranarray(a), np.repeat(a, 2, 0)[::2], a[::-1, ::-1]):
        have, want = native(array), reference(array)
        assert have.dtype == want.dtype and have.shape == want.shape and have.flags.c_contiguous
        np.testing.assert_allclose(have, want, rtol=50 * EPSILON[dtype], atol=50 * EPSILON[dtype])
    program = gc.function([z], y, mode=gc.Mode(backend="interpreter"))
    np.testing.assert_allclose(program(a), reference(a), rtol=50 * EPSILON[dtype], atol=50 * EPSILON[dtype])


def test_what_stays_outside_reads_and_writes_complex_arrays() -> None:
    z, w = leaf("z", "complex128", "n", "m"), leaf("w", "complex128", "n", "m")
    native, reference = both([z, w], [gc.exp(z * w).T * 2, gc.sin(z.T), gc.real(gc.exp(z[:, 1:])), gc.sqrt(z[1:]) + gc.sqrt(w[:-1]), gc.prod(z + w, axis=0)])
    a, b = numbers("complex128", 5, 3), numbers("complex128", 5, 3, seed=1)
    text = native.dump("kernels")
    assert text.count(" call ") == 6 and all(f" call {op}(" in text for op in ("exp", "sin", "sqrt", "prod"))
    for have, want in zip(native(a, b), reference(a, b), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-14, atol=1e-14)


def test_fewer_kernels_than_ops() -> None:
    """A chain is one kernel, which reads its operands once and writes one array."""
    z, w = leaf("z", "complex64", "n"), leaf("w", "complex64", "n")
    f, _ = both([z, w], (z * w + gc.conj(z)) / (w + 2))
    program = f._compiled.program
    assert program is not None and len(program.steps) == 1 and not [s for s in program.slabs if s.place == "arena"]
    launch, = program.steps
    assert isinstance(launch, Launch) and sorted(o.mode for o in launch.kernel.operands if o.size != 2) == ["in", "in", "out"]


# ---- products -------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[Any], Any]] = {
    "n": lambda z: z, "t": lambda z: z.swapaxes(-1, -2) if isinstance(z, np.ndarray) else gc.swapaxes(z, -1, -2),
    "c": lambda z: np.conj(z) if isinstance(z, np.ndarray) else gc.conj(z),
    "h": lambda z: np.conj(z.swapaxes(-1, -2)) if isinstance(z, np.ndarray) else gc.conj(gc.swapaxes(z, -1, -2)),
}


def check_product(have: Array, a: Array, b: Array, dtype: str) -> None:
    """No farther from the product in twice the digits than so many roundings of what is added up."""
    wide = "clongdouble"
    want = np.matmul(a.astype(wide), b.astype(wide))
    bound = np.matmul(np.abs(a).astype("longdouble"), np.abs(b).astype("longdouble")) * (2 * a.shape[-1] + 2) * EPSILON[dtype]
    assert have.shape == want.shape and have.dtype == dtype
    assert (np.abs(have - want) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("left, right", list(itertools.product(FORMS, FORMS)))
def test_products_of_all_forms(dtype: str, left: str, right: str) -> None:
    for m, k, n in ((3, 4, 5), (17, 33, 20), (64, 64, 64)):
        x, y = (m, k) if left in "nc" else (k, m), (k, n) if right in "nc" else (n, k)
        z, w = leaf("z", dtype, *x), leaf("w", dtype, *y)
        f, _ = both([z, w], FORMS[left](z) @ FORMS[right](w))
        assert is_native(f)
        a, b = numbers(dtype, *x), numbers(dtype, *y, seed=1)
        check_product(f(a, b), FORMS[left](a), FORMS[right](b), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_all_sizes(dtype: str) -> None:
    """One program for unknown sizes, tiny and empty ones too; and one for each known size."""
    z, w = leaf("z", dtype, "m", "k"), leaf("w", dtype, "k", "n")
    f, _ = both([z, w], z @ w)
    assert is_native(f)
    for m, k, n in ((1, 1, 1), (1, 5, 3), (5, 1, 3), (5, 3, 1), (2, 2, 2), (0, 3, 2), (3, 0, 2), (3, 2, 0), (7, 31, 9), (100, 100, 100)):
        a, b = numbers(dtype, m, k), numbers(dtype, k, n, seed=1)
        check_product(f(a, b), a, b, dtype)
        fixed, _ = both([u := leaf("u", dtype, m, k), v := leaf("v", dtype, k, n)], u @ v)
        assert is_native(fixed)
        check_product(fixed(a, b), a, b, dtype)


BATCHES = [((2, 3), (2, 3)), ((4,), ()), ((), (4,)), ((2, 1), (3,)), ((0,), (0,)), ((3,), (1,))]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", BATCHES)
def test_batched_products(dtype: str, lead: Any) -> None:
    for m, k, n in ((4, 5, 6), (3, 4, 1), (1, 4, 3)):
        a, b = numbers(dtype, *lead[0], m, k), numbers(dtype, *lead[1], k, n, seed=1)
        z, w = leaf("z", dtype, *a.shape), leaf("w", dtype, *b.shape)
        f, _ = both([z, w], z @ w)
        assert is_native(f)
        check_product(f(a, b), a, b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("subscripts, x, y", [
    ("ij,jk->ki", (3, 4), (4, 5)), ("abc,cbd->ad", (2, 3, 4), (4, 3, 5)), ("bqhd,bkhd->bhqk", (2, 3, 2, 4), (2, 5, 2, 4)), ("i,i->", (7,), (7,)),
    ("ij,j->i", (3, 4), (4,)), ("i,j->ij", (3,), (4,)), ("ij,ij->i", (3, 4), (3, 4)), ("abc,bc->a", (2, 3, 4), (3, 4))])
def test_einsums(dtype: str, subscripts: str, x: Any, y: Any) -> None:
    a, b = numbers(dtype, *x), numbers(dtype, *y, seed=1)
    z, w = leaf("z", dtype, *x), leaf("w", dtype, *y)
    for first in (z, z * 1j):
        f, _ = both([z, w], gc.einsum(subscripts, first, w))
        assert is_native(f), f.dump("kernels")
        np.testing.assert_allclose(f(a, b), np.einsum(subscripts, a if first is z else a * 1j, b), rtol=200 * EPSILON[dtype], atol=100 * EPSILON[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_in_products(dtype: str) -> None:
    """Where they are is where complex products that are added up have them."""
    a, b = numbers(dtype, 9, 11), numbers(dtype, 11, 7, seed=1)
    a[1, 2], a[3, 4], b[5, 6], b[0, 1] = np.inf, complex(0, np.nan), complex(-np.inf, 2), complex(1, np.inf)
    z, w = leaf("z", dtype, "m", "k"), leaf("w", dtype, "k", "n")
    f, _ = both([z, w], z @ w)
    x, y = a[:, :, None], b[None]
    with np.errstate(all="ignore"):
        want = [(x.real * y.real - x.imag * y.imag).sum(1), (x.real * y.imag + x.imag * y.real).sum(1)]
    have = f(a, b)
    for part, expected in zip((have.real, have.imag), want, strict=True):
        np.testing.assert_array_equal(np.isnan(part), np.isnan(expected))
        np.testing.assert_array_equal(np.where(np.isinf(part), part, 0), np.where(np.isinf(expected), expected, 0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_among_arithmetic(dtype: str) -> None:
    z, w, b = leaf("z", dtype, "m", "k"), leaf("w", dtype, "k", "n"), leaf("b", dtype, "n")
    y = (z * 2j) @ (w + w * 1j) + b
    f, reference = both([z, w, b], [y, gc.abs(y), gc.sum(y, axis=0), gc.conj(y.T) @ y])
    assert is_native(f)
    arrays = numbers(dtype, 12, 17), numbers(dtype, 17, 10, seed=1), numbers(dtype, 10, seed=2)
    for have, want in zip(f(*arrays), reference(*arrays), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e3 * EPSILON[dtype], atol=2e3 * EPSILON[dtype])


def test_threads_change_no_bit() -> None:
    z, w = leaf("z", "complex64", "m", "k"), leaf("w", "complex64", "k", "n")
    outputs = [z @ w, gc.sum(z @ w, axis=0), gc.sum(z * gc.conj(z)), z * z + 1]
    a, b = numbers("complex64", 301, 257), numbers("complex64", 257, 283, seed=1)
    one, two = (gc.function([z, w], outputs, threads=n)(a, b) for n in (1, 2))
    assert [x.tobytes() for x in one] == [x.tobytes() for x in two]


# ---- state, gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_state(dtype: str) -> None:
    """z <- z*w + c, and a matrix that is multiplied by itself; results and state have memory of their own."""
    start, matrix = numbers(dtype, 6), numbers(dtype, 5, 5) / 5
    z, m = gc.shared(start, "z"), gc.shared(matrix, "m")
    w, c = leaf("w", dtype, "n"), gc.scalar("c", dtype=dtype)
    with gc.config(verify=True):
        f = gc.function([w, c], [z, gc.abs(z)], updates=[(z, z * w + c), (m, m @ m)])
    assert is_native(f)
    a, before, power = numbers(dtype, 6, seed=3), start.copy(), matrix.copy()
    for k in range(3):
        found, size = f(a, 0.5 - k * 1j)
        np.testing.assert_array_equal(found, before)
        np.testing.assert_allclose(size, np.abs(before), rtol=4 * EPSILON[dtype])
        before, power = before * a + np.asarray(0.5 - k * 1j, dtype), power @ power
        np.testing.assert_allclose(z.get_value(), before, rtol=100 * EPSILON[dtype])
        np.testing.assert_allclose(m.get_value(), power, rtol=1e3 * EPSILON[dtype], atol=1e3 * EPSILON[dtype])
        before = z.get_value()
        power = m.get_value()


COSTS: dict[str, Callable[[Any, Any], Any]] = {
    "squares": lambda z, w: gc.sum(gc.square(gc.abs(z * w))),
    "product": lambda z, w: gc.sum(gc.real(z @ w)), "norm of a product": lambda z, w: gc.sum(gc.abs(z @ gc.conj(w.T))),
    "quotient": lambda z, w: gc.sum(gc.imag(z / (w + 3))), "chain": lambda z, w: gc.sum(gc.abs(z @ w @ z)), "conj": lambda z, w: gc.real(gc.sum(z * gc.conj(z) * w)),
    "parts": lambda z, w: gc.sum(gc.real(z) * gc.imag(w)) + gc.sum(gc.sin(gc.real(w))), "masked": lambda z, w: gc.sum(gc.where(gc.real(z) > 0, gc.abs(z), 2 * gc.abs(w))),
    "mean": lambda z, w: gc.abs(gc.mean(z * w)), "joined": lambda z, w: gc.sum(gc.abs(gc.concatenate([z, w * z], axis=0)[1:])),
}


@pytest.mark.parametrize("name", COSTS)
def test_gradients(name: str) -> None:
    """dC/dRe + i dC/dIm, by central differences of each part."""
    z, w = leaf("z", "complex128", "n", "n"), leaf("w", "complex128", "n", "n")
    cost = COSTS[name](z, w)
    value, _ = both([z, w], cost)
    f, reference = both([z, w], gc.grad(cost, [z, w]))
    assert is_native(f), f.dump("kernels")
    arrays = [numbers("complex128", 3, 3), numbers("complex128", 3, 3, seed=1)]
    found = f(*arrays)
    for have, want in zip(found, reference(*arrays), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-12, atol=1e-12)
    step = 1e-6
    for k, gradient in enumerate(found):
        for at in np.ndindex(3, 3):
            numeric = 0j
            for unit in (1, 1j):
                ends = []
                for sign in (1, -1):
                    moved = [x.copy() for x in arrays]
                    moved[k][at] += sign * step * unit
                    ends.append(float(value(*moved)))
                numeric += unit * (ends[0] - ends[1]) / (2 * step)
            assert abs(gradient[at] - numeric) < 1e-6 * (1 + abs(numeric))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_convolutions(dtype: str) -> None:
    x, w = leaf("x", dtype, 2, 3, 9), leaf("w", dtype, 4, 3, 3)
    cost = gc.sum(gc.square(gc.abs(gc.nn.conv(x, w, padding=1))))
    f, reference = both([x, w], gc.grad(cost, [x, w]))
    assert is_native(f)
    arrays = numbers(dtype, 2, 3, 9), numbers(dtype, 4, 3, 3, seed=1)
    for have, want in zip(f(*arrays), reference(*arrays), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e3 * EPSILON[dtype], atol=1e3 * EPSILON[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_below_a_selection(dtype: str) -> None:
    """What a ``where`` has not chosen gives no gradient, whatever it is: the product that meets it is looked at, and done again if need be."""
    z, w, kept = leaf("z", dtype, "m", "k"), leaf("w", dtype, "k", "n"), gc.tensor("kept", shape=("m", "n"), dtype="bool")
    y = z @ gc.conj(w)
    cost = gc.sum(gc.square(gc.abs(gc.where(kept, y, 0))))
    f, reference = both([z, w, kept], gc.grad(cost, [z, w]))
    assert is_native(f), f.dump("kernels")
    a, b, mask = numbers(dtype, 5, 4), numbers(dtype, 4, 6, seed=1), np.random.default_rng(2).random((5, 6)) < 0.5
    for have, want in zip(f(a, b, mask), reference(a, b, mask), strict=True):
        np.testing.assert_allclose(have, want, rtol=100 * EPSILON[dtype], atol=100 * EPSILON[dtype])
    mask[2] = mask[:, 3] = False
    a[2, 1], b[0, 3] = complex(np.inf, 0), complex(1, np.nan)
    results = f(a, b, mask)
    for have, want in zip(results, reference(a, b, mask), strict=True):
        np.testing.assert_array_equal(np.isnan(have), np.isnan(want))
        np.testing.assert_allclose(have, want, rtol=100 * EPSILON[dtype], atol=100 * EPSILON[dtype])
    assert all(np.isfinite(g).all() for g in results)


# ---- what it looks like ---------------------------------------------------------------------------


def test_graphs_without_complex_numbers_stay_the_same_objects() -> None:
    x = gc.matrix("x")
    graph = Graph([x], [gc.exp(x) @ x])
    assert complexes(graph, Context(native=True)) is graph
    z = gc.matrix("z", dtype="complex128")
    graph = Graph([z], [z * z])
    assert complexes(graph, Context(native=False)) is graph
    assert complexes(graph, Context(native=True)) is not graph


def test_the_pass_may_be_left_out() -> None:
    z = leaf("z", "complex128", "n")
    f = gc.function([z], z * gc.conj(z), mode=gc.Mode(backend="llvm", exclude=["complexes"]))
    assert f.dump("kernels").count(" call ") == 2
    a = numbers("complex128", 9)
    np.testing.assert_array_equal(f(a), a * np.conj(a))


def test_dumps_parse_back() -> None:
    z, w = leaf("z", "complex64", "m", "k"), leaf("w", "complex64", "k", "n")
    f, _ = both([z, w], [z @ w * 2j, gc.abs(z)])
    text = f.dump("kernels")
    assert "call" not in text and " = product " in text and "z: argument c64[m, k]" in text
    program = f._compiled.program
    assert program is not None and any(isinstance(step, Product) for step in program.steps)
    for step in program.steps:
        if isinstance(step, Launch):
            again = parse_kernel(print_kernel(step.kernel))
            assert print_kernel(again) == print_kernel(step.kernel)
    graph = load_dump(f.dump("final"))
    loaded = gc.function(graph.inputs, graph.outputs, mode=gc.Mode(backend="reference"))
    a, b = numbers("complex64", 4, 5), numbers("complex64", 5, 6, seed=1)
    for have, want in zip(loaded(a, b), f(a, b), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)


def test_cost_counts_real_operations_and_all_bytes() -> None:
    z, w = leaf("z", "complex64", "n"), leaf("w", "complex64", "n")
    f, _ = both([z, w], z * w)
    cost = f.cost({"n": 1000})
    assert (cost["flops"], cost["bytes"]) == (6000, 3 * 8 * 1000)
    outside, _ = both([z], gc.exp(z))
    assert outside.cost({"n": 1000})["bytes"] == 2 * 8 * 1000


def test_the_verifier_knows_what_pairs_are() -> None:
    z = leaf("z", "complex64", "n")
    f, _ = both([z], gc.exp(z * 2))
    program = f._compiled.program
    assert isinstance(program, Program)
    verify_program(program)
    slab = program.slabs[program.arguments[0]]
    assert slab.pairs and slab.dtype == np.float32 and slab.array == z.type
    slab.pairs = False
    with pytest.raises(VerificationError, match="no place for the argument"):
        verify_program(program)
    slab.pairs = True
    made = next(s for s in program.slabs if s.place == "arena")
    made.pairs, made.shape = True, (*made.shape[:-1], 2, 1)
    with pytest.raises(VerificationError, match="along a last axis of size 2"):
        verify_program(program)


# ---- pairs in memory, as machine code --------------------------------------------------------------

PAIRS = {
    "product": """\
kernel product(x: in f32[2*n], y: in f32[2*n], z: out f32[2*n])
  grid i < n vector
    do
      %0 = f32 load x[i*2]
      %1 = f32 load x[i*2 + 1]
      %2 = f32 load y[i*2]
      %3 = f32 load y[i*2 + 1]
      %4 = f32 mul %0, %2
      %5 = f32 mul %1, %3
      %6 = f32 sub %4, %5
      %7 = f32 mul %0, %3
      %8 = f32 mul %1, %2
      %9 = f32 add %7, %8
      %10 = f32 store z[i*2], %6
      %11 = f32 store z[i*2 + 1], %9
""",
    "turned": """\
kernel turned(x: in f64[2*n + 3], y: out f64[2*n + 1], z: out f64[2*n])
  grid i < n vector
    do
      %0 = f64 load x[i*2 + 2]
      %1 = f64 load x[i*2 + 1]
      %2 = f64 load x[i*2]
      %3 = f64 neg %1
      %4 = f64 store z[i*2 + 1], %0
      %5 = f64 store z[i*2], %3
      %6 = f64 store y[i*2 + 1], %2
""",
    "rows": """\
kernel rows(x: in f64[2*m*n], y: out f64[2*m*n], s: out f64[2*n])
  dim m min=1
  grid i < n
    for j < m vector
      %0 = f64 load x[i*2*m + j*2]
      %1 = f64 load x[i*2*m + j*2 + 1]
      %2 = f64 reduce sum %0 over j
      %3 = f64 reduce sum %1 over j
    for j < m vector
      %4 = f64 load x[i*2*m + j*2]
      %5 = f64 load x[i*2*m + j*2 + 1]
      %6 = f64 sub %4, %2
      %7 = f64 sub %5, %3
      %8 = f64 store y[i*2*m + j*2], %6
      %9 = f64 store y[i*2*m + j*2 + 1], %7
    do
      %10 = f64 store s[i*2], %2
      %11 = f64 store s[i*2 + 1], %3
""",
    "one store each": """\
kernel apart(x: in f32[2*n], y: out f32[2*n], z: out f32[n])
  grid i < n vector
    do
      %0 = f32 load x[i*2]
      %1 = f32 load x[i*2 + 1]
      %2 = f32 store y[i*2], %1
      %3 = f32 store z[i], %0
      %4 = f32 store y[i*2 + 1], %0
""",
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_as_machine_code(target: str, name: str) -> None:
    """Every length of tail, in chunks, past the cache, with nothing mapped beside the arrays."""
    names = {str(s.symbol): s.symbol for s in SIZES}

    def run() -> None:
        kernel = parse_kernel(PAIRS[name])
        for unroll, large, chunks in ((None, False, False), (1, False, True), (2, True, False), (4, True, True)):
            for at_end in (True, False):
                compiled = Compiled(kernel, Setting(target, unroll=unroll, chunks=chunks, large=large, at_end=at_end))
                for n in (0, 1, 3, 8, 15, 16, 17, 31, 33, 64, 100):
                    sizes = {s: (n if text == "n" else max(1, n % 37) if text == "m" else 3) for text, s in names.items()}
                    compare(kernel, compiled, sizes, np.random.default_rng(n), 0.2)

    guarded(run)
