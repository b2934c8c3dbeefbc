"""conv and conv_transpose against loops in Python and SciPy, their derivatives of both modes and two orders, sizes, dtypes, messages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate
from small_grad import check_gradient

import graphc as gc
from graphc.ir import Relation
from graphc.ops.convolution import conv_input_op, conv_weight_op, positions

Array = np.ndarray[Any, np.dtype[Any]]
RNG = np.random.default_rng(5)
BACKENDS = ("reference", "numpy", "llvm")


def values(shape: Any, dtype: Any = "float64") -> Array:
    if np.dtype(dtype).kind in "iu":
        return RNG.integers(-9, 9, shape).astype(dtype)
    x = RNG.normal(size=shape)
    return np.asarray(x + 1j * RNG.normal(size=shape) if np.dtype(dtype).kind == "c" else x).astype(dtype)


def pairs_of(padding: Any, rank: int) -> list[tuple[int, int]]:
    each = padding if isinstance(padding, tuple) else (padding,) * rank
    return [(p, p) if isinstance(p, int) else p for p in each]


def by_loops(x: Array, w: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Array:
    """The definition, term by term."""
    rank = x.ndim - 2
    strides, dilations = (v if isinstance(v, tuple) else (v,) * rank for v in (stride, dilation))
    pairs = pairs_of(padding, rank)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, w.shape[2:], strict=True)]
    counts = [max(0, (n + low + high - span) // s + 1) for n, (low, high), span, s in zip(x.shape[2:], pairs, spans, strides, strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *counts), x.dtype)
    for n, o, *p in np.ndindex(y.shape):
        group = o // (w.shape[0] // groups)
        for c, *k in np.ndindex(w.shape[1:]):
            i = [a * s - low + b * d for a, b, s, (low, _), d in zip(p, k, strides, pairs, dilations, strict=True)]
            if all(0 <= a < size for a, size in zip(i, x.shape[2:], strict=True)):
                y[(n, o, *p)] += x[(n, group * w.shape[1] + c, *i)] * w[(o, c, *k)]
    return y


def compiled(inputs: Any, outputs: Any, backend: str = "numpy") -> Any:
    return gc.function(inputs, outputs, mode=gc.Mode(backend=backend))


def leaves(*arrays: Array, known: bool = False) -> list[Any]:
    return [gc.tensor(f"x{i}", shape=a.shape if known else (None,) * a.ndim, dtype=a.dtype) for i, a in enumerate(arrays)]


#: shapes of images and kernels, options
CASES: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 7), (4, 3, 3), {}),
    ((1, 1, 5), (1, 1, 1), {}),
    ((2, 1, 8), (3, 1, 4), {"stride": 2, "padding": 3}),
    ((1, 2, 9), (2, 2, 2), {"stride": 4, "padding": ((0, 3),)}),
    ((2, 4, 6), (6, 2, 3), {"groups": 2, "padding": 1, "dilation": 2}),
    ((2, 3, 5, 6), (4, 3, 3, 2), {}),
    ((1, 2, 7, 5), (3, 2, 3, 3), {"stride": 2, "padding": 1}),
    ((2, 2, 6, 7), (2, 2, 2, 3), {"stride": (1, 3), "padding": ((2, 0), 1), "dilation": (2, 1)}),
    ((1, 4, 5, 5), (4, 1, 3, 3), {"groups": 4, "padding": 1}),
    ((1, 3, 4, 5), (6, 1, 2, 3), {"groups": 3, "stride": (3, 2), "padding": ((0, 1), (1, 2))}),
    ((1, 2, 4, 3, 5), (2, 2, 2, 3, 2), {"stride": (2, 1, 1), "padding": (1, 0, (1, 0))}),
    ((1, 2, 3, 3, 3), (2, 1, 2, 2, 2), {"groups": 2, "dilation": (1, 2, 1), "padding": 1}),
]
#: nothing to compute, or nothing to add up
EMPTY: list[tuple[Any, Any, dict[str, Any]]] = [
    ((0, 2, 5), (3, 2, 3), {}), ((2, 2, 2), (3, 2, 3), {}), ((2, 2, 2), (3, 2, 3), {"stride": 5}), ((2, 2, 0), (3, 2, 3), {"padding": 2}),
    ((2, 0, 5), (3, 0, 3), {}), ((2, 2, 5), (0, 2, 3), {}), ((1, 2, 0, 4), (2, 2, 1, 2), {}), ((1, 2, 4, 4), (2, 2, 5, 2), {"padding": (0, 1)}),
]
IDS = [f"{x}-{w}-{o}".replace(" ", "") for x, w, o in CASES]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_values_and_gradients(case: Any, backend: str) -> None:
    """The value against loops; that the gradients are the transposes: <conv(a, w), g> = <a, dx(w, g)> = <w, dw(a, g)>."""
    x_shape, w_shape, options = case
    x, w = values(x_shape), values(w_shape)
    want = by_loops(x, w, **options)
    g = values(want.shape)
    for known in (False, True):
        a, b, c = leaves(x, w, g, known=known)
        y = gc.nn.conv(a, b, **options)
        f = compiled([a, b, c], [y, *gc.grad((y * c).sum(), [a, b])], backend)
        got, dx, dw = f(x, w, g)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
        assert got.shape == want.shape and dx.shape == x.shape and dw.shape == w.shape
        other_x, other_w = values(x_shape), values(w_shape)
        np.testing.assert_allclose((other_x * dx).sum(), (by_loops(other_x, w, **options) * g).sum(), rtol=1e-10)
        np.testing.assert_allclose((other_w * dw).sum(), (by_loops(x, other_w, **options) * g).sum(), rtol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", EMPTY, ids=str)
def test_nothing_to_do(case: Any, backend: str) -> None:
    x_shape, w_shape, options = case
    x, w = values(x_shape), values(w_shape)
    for known in (False, True):
        a, b = leaves(x, w, known=known)
        y = gc.nn.conv(a, b, **options)
        got, dx, dw = compiled([a, b], [y, *gc.grad((y * y).sum(), [a, b])], backend)(x, w)
        want = by_loops(x, w, **options)
        assert got.shape == want.shape
        np.testing.assert_array_equal(got, want)
        np.testing.assert_array_equal(dx, np.zeros(x_shape))
        np.testing.assert_array_equal(dw, np.zeros(w_shape))


@pytest.mark.parametrize("case", [c for c in CASES if np.prod(c[0]) < 60], ids=str)
def test_gradients_by_differences(case: Any) -> None:
    x_shape, w_shape, options = case
    gc.verify_grad(lambda x, w: gc.tanh(gc.nn.conv(x, w, **options)), [values(x_shape), values(w_shape)])


@pytest.mark.parametrize("options", [{"stride": 2, "padding": ((1, 0),)}, {"groups": 2, "dilation": 2, "padding": 2}])
def test_second_derivatives(options: dict[str, Any]) -> None:
    x, w = values((1, 2, 5)), values((2, 2 // options.get("groups", 1), 2))

    def first(which: int) -> Any:
        return lambda a, b: gc.grad(gc.sum(gc.sin(gc.nn.conv(a, b, **options))), [a, b])[which]

    gc.verify_grad(first(0), [x, w])
    gc.verify_grad(first(1), [x, w])


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_mode_and_curvature(backend: str) -> None:
    """jvp is bilinear; a Hessian times a vector is the derivative of the gradient."""
    x, w, t, u = values((2, 2, 6)), values((3, 2, 3)), values((2, 2, 6)), values((3, 2, 3))
    a, b, s, r = leaves(x, w, t, u)
    y = gc.nn.conv(a, b, padding=1)
    f = compiled([a, b, s, r], gc.jvp(y, [a, b], [s, r]), backend)
    np.testing.assert_allclose(f(x, w, t, u), by_loops(t, w, padding=1) + by_loops(x, u, padding=1), rtol=1e-12)
    loss = (y ** 2).sum() / 2
    h = compiled([a, b, s], gc.hessian_vector_product(loss, a, s), backend)
    d = compiled([a, b], gc.grad(loss, a), backend)
    np.testing.assert_allclose(h(x, w, t), d(t, w), rtol=1e-10)  # the loss is quadratic in x


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("groups", [1, 2])
def test_derivatives_below_a_where(groups: int, backend: str) -> None:
    """Images and kernels that are not finite, where a ``where`` lets nothing of them through, leave the derivatives of the others finite."""
    x, w, t = values((2, 2, 7)), values((4, 2 // groups, 2)), values((4, 2 // groups, 2))
    x[0, 1, 3] = np.inf
    w[0, 0, 1] = np.nan
    good = np.isfinite(by_loops(x, w, groups=groups))
    a, b, s, u = leaves(x, w, t, x)
    y = gc.where(gc.isfinite(gc.nn.conv(a, b, groups=groups)), gc.nn.conv(a, b, groups=groups), 0.0)
    dx, dw, moved, curved = compiled([a, b, s, u], [*gc.grad(y.sum(), [a, b]), gc.jvp(y, b, s), gc.jvp(gc.grad((y ** 2).sum(), b), a, u)], backend)(
        x, w, t, np.ones_like(x))
    safe_x, safe_w = np.where(np.isfinite(x), x, 0), np.where(np.isfinite(w), w, 0)
    c, d, g = leaves(safe_x, safe_w, good.astype(float))
    z = gc.nn.conv(c, d, groups=groups) * g
    want_x, want_w = compiled([c, d, g], gc.grad(z.sum(), [c, d]))(safe_x, safe_w, good.astype(float))
    np.testing.assert_allclose(dx, want_x, rtol=1e-12)
    np.testing.assert_allclose(dw, want_w, rtol=1e-12)
    np.testing.assert_allclose(moved, by_loops(safe_x, t, groups=groups) * good, rtol=1e-12)
    assert np.isfinite(curved).all()


def test_flops() -> None:
    x, w = gc.tensor("x", shape=("n", 4, 8)), gc.tensor("w", shape=(6, 2, 3))
    y = gc.nn.conv(x, w, groups=2)
    f = compiled([x, w], [y, *gc.grad(y.sum(), [x, w])])
    assert f.cost({"n": 5})["flops"] >= 3 * (2 * 5 * 6 * 6 * 2 * 3)


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("space, window", [((8,), (3,)), ((6, 7), (3, 5)), ((4, 5, 6), (3, 1, 3))])
def test_scipy(mode: str, space: Any, window: Any) -> None:
    x, w = values((1, 2, *space)), values((3, 2, *window))
    got = gc.nn.conv(gc.constant(x), gc.constant(w), padding=mode).eval()
    for o in range(3):
        want = sum(correlate(x[0, c], w[o, c], mode, "direct") for c in range(2))
        np.testing.assert_allclose(got[0, o], want, rtol=1e-10, atol=1e-12)


def test_paddings_in_words() -> None:
    x = gc.constant(values((1, 1, 10)))

    def length(window: int, **options: Any) -> Any:
        return gc.nn.conv(x, gc.constant(values((1, 1, window))), **options).type.shape[2]

    assert [length(k, padding="valid") for k in (1, 2, 3, 10)] == [10, 9, 8, 1]
    assert [length(k, padding="same", dilation=d) for k in (1, 2, 3, 6) for d in (1, 2)] == [10] * 8
    assert [length(k, padding="half") for k in (1, 2, 3, 4)] == [10, 11, 10, 11]  # Theano's "half"
    assert [length(k, padding="full", dilation=2) for k in (1, 2, 3)] == [10, 12, 14]
    even = gc.nn.conv(gc.constant([[[1.0, 2.0]]]), gc.constant([[[1.0, 10.0]]]), padding="same").eval()
    np.testing.assert_array_equal(even, [[[21.0, 2.0]]])  # the odd zero stands at the end


def test_flipped_kernels_are_convolution() -> None:
    x, w = values((1, 1, 6)), values((1, 1, 3))
    got = gc.nn.conv(gc.constant(x), gc.constant(w), padding="full", flip_kernel=True).eval()
    np.testing.assert_allclose(got[0, 0], np.convolve(x[0, 0], w[0, 0]), rtol=1e-12)
    x, w = values((1, 1, 4, 5)), values((1, 1, 2, 3))
    got = gc.nn.conv(gc.constant(x), gc.constant(w), flip_kernel=True).eval()
    np.testing.assert_allclose(got, by_loops(x, w[:, :, ::-1, ::-1]), rtol=1e-12)


# ---- the transpose --------------------------------------------------------------------------------


def transpose_by_loops(x: Array, w: Array, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Array:
    """PyTorch's definition: every element adds a kernel to the result."""
    rank = x.ndim - 2
    strides, dilations, more = (v if isinstance(v, tuple) else (v,) * rank for v in (stride, dilation, output_padding))
    pairs = pairs_of(padding, rank)
    size = [(n - 1) * s - low - high + d * (k - 1) + 1 + e
            for n, s, (low, high), d, k, e in zip(x.shape[2:], strides, pairs, dilations, w.shape[2:], more, strict=True)]
    y = np.zeros((x.shape[0], w.shape[1] * groups, *size))
    for n, o, *p in np.ndindex(x.shape):
        for c, *k in np.ndindex(w.shape[1:]):
            i = [a * s - low + b * d for a, b, s, (low, _), d in zip(p, k, strides, pairs, dilations, strict=True)]
            if all(0 <= a < m for a, m in zip(i, size, strict=True)):
                y[(n, o // (x.shape[1] // groups) * w.shape[1] + c, *i)] += x[(n, o, *p)] * w[(o, c, *k)]
    return y


@pytest.mark.parametrize("x, w, options", [
    ((2, 3, 4), (3, 2, 3), {}),
    ((1, 2, 4), (2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 2, 4), (2, 3, 2), {"stride": 3, "output_padding": 2}),
    ((1, 1, 3), (1, 1, 2), {"dilation": 4, "output_padding": 3}),
    ((1, 1, 3), (1, 1, 2), {"dilation": 4, "padding": ((0, 2),), "output_padding": 3}),
    ((1, 1, 3), (1, 1, 3), {"dilation": 3, "stride": 2, "padding": 2, "output_padding": 2}),
    ((1, 4, 3, 2), (4, 2, 2, 3), {"groups": 2, "stride": (2, 1), "padding": ((0, 1), 1), "output_padding": (1, 0)}),
    ((1, 2, 2, 3, 2), (2, 1, 2, 2, 3), {"stride": (1, 2, 3), "padding": (0, 1, 1), "output_padding": (0, 1, 2)}),
])
def test_transpose(x: Any, w: Any, options: dict[str, Any]) -> None:
    a, b = values(x), values(w)
    want = transpose_by_loops(a, b, **options)
    for backend, known in itertools.product(BACKENDS, (False, True)):
        u, v = leaves(a, b, known=known)
        got = compiled([u, v], gc.nn.conv_transpose(u, v, **options), backend)(a, b)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    gc.verify_grad(lambda p, q: gc.tanh(gc.nn.conv_transpose(p, q, **options)), [a, b])


def test_transpose_is_the_gradient() -> None:
    x, w = values((2, 3, 9)), values((4, 3, 3))
    a, b = leaves(x, w, known=True)
    y = gc.nn.conv(a, b, stride=2, padding=1)
    g = values(y.type.shape)
    np.testing.assert_allclose(compiled([a, b], gc.grad((y * g).sum(), a), "numpy")(x, w),
                               gc.nn.conv_transpose(gc.constant(g), gc.constant(w), stride=2, padding=1).eval(), rtol=1e-12)


# ---- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_precisions_are_added_up_in_float32(backend: str) -> None:
    for dtype in ("float16", "bfloat16"):
        x, w = gc.tensor("x", shape=(1, 512, None), dtype=dtype), gc.tensor("w", shape=(1, 512, None), dtype=dtype)
        y = gc.nn.conv(x, w)
        f = compiled([x, w], [y, *gc.grad(gc.cast(y, "float64").sum(), [x, w])], backend)
        ones = np.ones((1, 512, 600))
        got, dx, dw = f(ones.astype(x.dtype), ones[:, :, :1].astype(x.dtype))
        assert got.dtype == dx.dtype == dw.dtype == x.dtype
        assert float(got[0, 0, 0]) == 512 and float(dw[0, 0, 0]) == (600 if dtype == "float16" else 600 // 4 * 4)
    a, b = values((1, 8, 6, 6), "float16"), values((4, 8, 3, 3), "float16")
    u, v = leaves(a, b)
    exact = by_loops(a.astype("float64"), b.astype("float64"))
    np.testing.assert_allclose(compiled([u, v], gc.nn.conv(u, v), backend)(a, b), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "int64", "int8", "uint8", "complex128"])
def test_other_dtypes(dtype: str, backend: str) -> None:
    x, w = (np.abs(values(s, "int64")).astype(dtype) if dtype == "uint8" else values(s, dtype) for s in ((2, 2, 6), (2, 2, 3)))
    a, b = leaves(x, w)
    got = compiled([a, b], gc.nn.conv(a, b, padding=1), backend)(x, w)
    assert got.dtype == dtype
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, by_loops(x, w, padding=1), rtol=1e-5, atol=1e-6)


def test_complex_gradients() -> None:
    x, w = values((1, 2, 5), "complex128"), values((2, 2, 3), "complex128")
    check_gradient(lambda a, b: gc.nn.conv(a, b, stride=2, padding=1), x, w)
    check_gradient(lambda a, b: gc.nn.conv_transpose(a, b, stride=2), values((1, 2, 3), "complex128"), w, symbolic=True)


def test_operands_are_promoted() -> None:
    assert gc.nn.conv(np.ones((1, 1, 3), "float32"), np.ones((1, 1, 2), "int8")).dtype == "float32"
    assert gc.nn.conv([[[1, 2, 3]]], [[[0.5, 0.5]]]).eval().tolist() == [[[1.5, 2.5]]]


# ---- sizes ----------------------------------------------------------------------------------------


def test_types() -> None:
    x, w = gc.tensor("x", shape=("n", 3, "h", "w"), dtype="float32"), gc.tensor("k", shape=(8, 3, 3, 3), dtype="float32")
    assert str(gc.nn.conv(x, w, padding=1).type) == "f32[n, 8, h, w]"
    assert str(gc.nn.conv_transpose(x, gc.tensor("k", shape=(3, 8, 2, 2), dtype="float32"), stride=2).type) == "f32[n, 8, 2*h, 2*w]"
    h = gc.dim("h", min=1)
    assert positions(2 * h, 3, 2, (1, 1), 1) == h and positions(5, 3, 2, (0, 0), 1) == 2 and positions(1, 3, 2, (0, 0), 1) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_function_for_all_sizes(backend: str) -> None:
    x, w = gc.tensor("x", shape=(None,) * 4), gc.tensor("w", shape=(None,) * 4)
    y = gc.nn.conv(x, w, stride=2, padding=1, groups=2)
    f = compiled([x, w], [y, *gc.grad((y ** 2).sum(), [x, w])], backend)
    for a_shape, b_shape in [((1, 2, 3, 4), (2, 1, 3, 3)), ((2, 4, 6, 1), (4, 2, 1, 2)), ((1, 4, 2, 2), (2, 2, 4, 4))]:
        a, b = values(a_shape), values(b_shape)
        want = by_loops(a, b, stride=2, padding=1, groups=2)
        got, dx, dw = f(a, b)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose((a * dx).sum(), 2 * (want ** 2).sum(), rtol=1e-10)
        np.testing.assert_allclose((b * dw).sum(), 2 * (want ** 2).sum(), rtol=1e-10)
    with pytest.raises(ValueError, match=r"x.shape\[1\] = 4 .*2\*w.shape\[1\] = 2 .* must be equal"):
        f(values((1, 4, 3, 3)), values((2, 1, 3, 3)))
    with pytest.raises(ValueError, match=r"mod\(w.shape\[0\], 2\) = 1 .*and 0 must be equal"):
        f(values((1, 2, 3, 3)), values((3, 1, 3, 3)))


def test_sizes_that_data_tell() -> None:
    """Spatial sizes that no call knows when it begins are operands of the gradients."""
    x, w, m = gc.tensor("x", shape=(None,) * 3), gc.tensor("w", shape=(None,) * 3), gc.tensor("m", shape=(None,), dtype="bool")
    picked = gc.transpose(gc.transpose(x, (2, 0, 1))[m], (1, 2, 0))
    y = gc.nn.conv(picked, w, padding=1)
    loss = (y ** 2).sum()
    a, b, keep = values((2, 2, 7)), values((3, 2, 3)), np.array([True, True, False, True, False, True, True])
    want = by_loops(a[:, :, keep], b, padding=1)
    for backend in BACKENDS:
        got, dx, dw = compiled([x, w, m], [y, *gc.grad(loss, [x, w])], backend)(a, b, keep)
        np.testing.assert_allclose(got, want, rtol=1e-12)
        np.testing.assert_allclose((a * dx).sum(), 2 * (want ** 2).sum(), rtol=1e-10)
        np.testing.assert_allclose((b * dw).sum(), 2 * (want ** 2).sum(), rtol=1e-10)
        np.testing.assert_array_equal(dx[:, :, ~keep], 0)


def test_relations() -> None:
    n, c, h, k = (gc.dim(name) for name in "nchk")
    attrs = {"strides": (1,), "padding": ((0, 0),), "dilations": (1,), "groups": 1}
    w, y = gc.Type("float32", (4, 3, k)), gc.Type("float32", (n, c, h))
    assert list(conv_input_op.relations([w, y], {"sizes": (10,), **attrs})) == [Relation("equal", c, 4), Relation("equal", h, positions(10, k, 1, (0, 0), 1))]
    x = gc.Type("float32", (n, 3, h))
    assert list(conv_weight_op.relations([x, y], {"window": (2,), **attrs})) == [Relation("equal", h, positions(h, 2, 1, (0, 0), 1))]


# ---- messages -------------------------------------------------------------------------------------


X, W = gc.tensor("x", shape=("n", 4, "h", "w")), gc.tensor("k", shape=(6, 4, 3, 3))
Y = gc.tensor("y", shape=("n", 6, "h", "w"))


@pytest.mark.parametrize("build, message", [
    (lambda: gc.nn.conv(gc.matrix("x"), W), r"conv: x is \(batch, channels, \*space\).*rank 3 to 5; got x: f64"),
    (lambda: gc.nn.conv(X, gc.tensor3("w")), r"conv: w is \(out, in/groups, \*window\), of the rank of x; got x: f64\[n, 4, h, w\] and w"),
    (lambda: gc.nn.conv(X, gc.tensor("k", shape=(6, 3, 3, 3))), r"conv: x has 4 channels \(axis 1\), but w takes 3 .*groups=1"),
    (lambda: gc.nn.conv(X, W, groups=2), r"conv: x has 4 channels \(axis 1\), but w takes 8 \(axis 1 of w, 4, times groups=2\)"),
    (lambda: gc.nn.conv(X, gc.tensor("k", shape=(5, 2, 3, 3)), groups=2), r"conv: axis 0 of w is a multiple of groups; got .*5.*groups=2"),
    (lambda: gc.nn.conv(X, W, groups=0), "groups is at least 1; got 0"),
    (lambda: gc.nn.conv(X, W, groups=1.0), "groups is an int; got 1.0"),
    (lambda: gc.nn.conv(X, W, stride=0), "conv: stride is at least 1; got 0"),
    (lambda: gc.nn.conv(X, W, stride=(1, 1, 1)), r"stride is one int, or one for each of 2 spatial axes; got \(1, 1, 1\)"),
    (lambda: gc.nn.conv(X, W, dilation=1.5), "conv: dilation: ints, known when the graph is built, expected; got 1.5"),
    (lambda: gc.nn.conv(X, W, stride=X.shape[2]), "conv: stride: ints, known when the graph is built"),
    (lambda: gc.nn.conv(X, W, padding=-1), "conv: padding is not negative; got -1"),
    (lambda: gc.nn.conv(X, W, padding=((1, 2, 3), 0)), r"conv: padding: an int or a pair \(low, high\) for each spatial axis"),
    (lambda: gc.nn.conv(X, W, padding=(1,)), r"a pair \(low, high\) for each of 2 spatial axes; got \(1,\)"),
    (lambda: gc.nn.conv(X, W, padding="SAME"), "one of 'valid', 'same', 'half', 'full'; got 'SAME'"),
    (lambda: gc.nn.conv(X, W, padding="same", stride=2), r"padding='same' goes with stride 1; got stride \(2, 2\)"),
    (lambda: gc.nn.conv(X, gc.tensor4("k"), padding="full"), "padding='full' needs the size of the window, and axis 2 of w has size"),
    (lambda: gc.nn.conv_transpose(X, W), r"conv_transpose: x has 4 channels \(axis 1\), but w takes 6 \(axis 0\)"),
    (lambda: gc.nn.conv_transpose(Y, W, groups=4), "axis 0 of w is a multiple of groups"),
    (lambda: gc.nn.conv_transpose(Y, W, stride=2, output_padding=2), "output_padding is less than the stride or the dilation; got 2 with stride 2"),
    (lambda: gc.nn.conv_transpose(np.ones((1, 1, 1)), np.ones((1, 1, 1)), padding=1), r"padding \(1, 1\) cuts off more than the result has"),
    (lambda: gc.nn.conv_transpose(Y, gc.tensor3("w")), r"conv_transpose: w is \(in, out/groups, \*window\)"),
])
def test_messages(build: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match="(?s)" + message):
        build()


def test_messages_of_the_ops() -> None:
    from graphc.ir import apply
    geometry: dict[str, Any] = {"strides": (1,), "padding": ((0, 0),), "dilations": (1,), "groups": 1}
    x, y = gc.tensor("x", shape=(1, 2, 5)), gc.tensor("y", shape=(1, 4, 3))
    with pytest.raises(ValueError, match=r"conv_weight: axis 2 of the result must be as long as a window of 2 has places in 5; got 3 and 4"):
        apply(conv_weight_op, x, y, window=(2,), **geometry)
    with pytest.raises(ValueError, match="1 strides, pairs of padding and dilations expected"):
        apply(conv_weight_op, x, y, window=(3,), **{**geometry, "strides": (1, 1)})
    with pytest.raises(ValueError, match=r"padding >= 0 expected; got .*-1"):
        apply(conv_weight_op, x, y, window=(3,), **{**geometry, "padding": ((-1, 0),)})
    with pytest.raises(TypeError, match="operands of one dtype and one rank expected"):
        apply(conv_weight_op, x, gc.cast(y, "float32"), window=(3,), **geometry)
