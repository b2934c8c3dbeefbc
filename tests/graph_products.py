"""The third part of the fuzzer's table: convolutions, pooling, batched products and what stands around them.

``OPERATIONS`` is the whole of the table.  Operands that the pool does not have become new leaves.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from graph_moves import OPERATIONS
from graph_operations import operation

import graphc as gc
from graphc.ir import Var
from graphc.ops import sliding
from graphc.ops.convolution import positions
from graphc.ops.core import shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graph_strategies import Builder, Value

__all__ = ["OPERATIONS"]

Shape = tuple[int, ...]

# ---- operands -------------------------------------------------------------------------------------


def _given(b: Builder, shape: Shape) -> Var:
    """Floats of this shape: of the pool, a new leaf, elements of a value, or a constant."""
    way = b.source.below(10)
    if way < 3:
        found = b.value("f", lambda v: v.shape == shape)
        if found is not None:
            return found.var
    if way < 8:
        found = b.operand(shape)
        if found is not None:
            return found.var
    if way == 8:
        found = b.value("f", lambda v: v.array.size > 0)
        if found is not None:
            return _elements(b, found, shape)
    return gc.constant(b.array(b.floatx, shape, -2, 2))


def _elements(b: Builder, found: Value, shape: Shape) -> Var:
    """Elements of a value, as an array whose sizes are known."""
    at = np.arange(math.prod(shape)) * b.between(1, 3) % found.array.size
    return gc.reshape(gc.take(gc.flatten(found.var), at), shape)


def _finite(b: Builder, x: Var) -> Var:
    """A kernel without inf and nan: whether those meet the zeros around an image is not defined."""
    return gc.where(gc.isfinite(x), x, 1) if b.special else x


def _images(b: Builder, space: int, exact: bool = False) -> Var:
    """(batch, channels, *space): a value with axes of size 1 where it has too few, a new leaf, or small images, which stand side by side in products."""
    found = b.value("f", lambda v: v.array.size > 0, exact) if b.chance(20) else None
    if found is not None:
        return _elements(b, found, (b.pick([3, 2, 5]), b.pick([1, 2]), *(b.pick([4, 3]) for _ in range(space))))
    found = b.value("f", lambda v: 1 <= v.array.ndim <= space + 2, exact)
    if found is None or b.chance(30):
        leaf = b.operand((b.pick([1, 2, b.sizes["a"]]), b.pick([2, 1, 4, 3, b.sizes["b"]]), *(b.pick([b.sizes["a"], b.sizes["b"], 4, 5]) for _ in range(space))))
        found = leaf or found
    if found is None:
        return gc.constant(b.array(b.floatx, (2, 2, *[4] * space), -2, 2))
    x = found.var
    while x.type.ndim < space + 2:
        x = gc.expand_dims(x, b.pick([0, 0, 1, x.type.ndim]))
    return x


def _each(b: Builder, rank: int, options: Sequence[int]) -> Any:
    """One for all axes, or one for each."""
    return b.pick(options) if b.chance(50) else tuple(b.pick(options) for _ in range(rank))


def _tuple(value: Any, rank: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * rank


def _padding(b: Builder, most: Sequence[int]) -> Any:
    """An int, or one or a pair for each axis, up to so many zeros."""
    if b.chance(50):
        return b.between(0, min(most))
    return tuple((b.between(0, n), b.between(0, n)) if b.chance(40) else b.between(0, n) for n in most)


def _groups(b: Builder, channels: int) -> int:
    return b.pick([n for n in (1, 1, 2, channels) if n and channels % n == 0])  # type: ignore[no-any-return]


def _window(b: Builder, space: int, options: Sequence[int]) -> Shape:
    """Sizes of a window of few elements: each is a slice of its own in the gradients."""
    window = [b.pick(options) for _ in range(space)]
    while math.prod(window) > 6:
        window[window.index(max(window))] -= 1
    return tuple(window)


def _small(shape: Sequence[int]) -> bool:
    """Worth computing?  The builder drops what is larger anyway."""
    return math.prod(shape) <= 400


# ---- convolutions ---------------------------------------------------------------------------------


@operation(6)
def convolution(b: Builder) -> Any:
    space = b.pick([1, 2, 2, 1, 3])
    x = _images(b, space)
    have = b.evaluate(x).shape
    groups = _groups(b, have[1])
    window = _window(b, space, [2, 3, 1, 2])
    out = groups * b.pick([1, 2, 1, 3])
    stride, dilation = _each(b, space, [1, 1, 2, 3]), _each(b, space, [1, 1, 2])
    padding: Any = _padding(b, [b.pick([0, 1, 2])] * space) if b.chance(60) else 0
    if not _small((have[0], out, *(n + 4 for n in have[2:]))):
        return None
    w = _given(b, (out, have[1] // groups, *window))
    if b.chance(20) and all(isinstance(n, int) for n in w.type.shape[2:]):
        padding = b.pick(["half", "full", "valid", "same"] if stride in (1, (1,) * space) else ["half", "full", "valid"])
    y = gc.nn.conv(x, _finite(b, w), stride, padding, dilation, groups, flip_kernel=b.chance(15))
    return _finished(b, y, (1, out, *[1] * space), pools=True)


@operation(3)
def transposed_convolution(b: Builder) -> Any:
    space = b.pick([1, 2, 1, 2, 3])
    x = _images(b, space)
    have = b.evaluate(x).shape
    groups = _groups(b, have[1])
    window = _window(b, space, [2, 3, 1, 2])
    out = groups * b.pick([1, 2, 1])
    stride, dilation = _each(b, space, [1, 2, 1, 3]), _each(b, space, [1, 1, 2])
    spans = [d * (k - 1) + 1 for d, k in zip(_tuple(dilation, space), window, strict=True)]
    padding = _padding(b, [min(2, span - 1) for span in spans]) if b.chance(60) else 0
    longer = tuple(b.between(0, max(s, d) - 1) for s, d in zip(_tuple(stride, space), _tuple(dilation, space), strict=True)) if b.chance(40) else 0
    long = []
    for n, s, span, pad in zip(have[2:], _tuple(stride, space), spans, _tuple(padding, space), strict=True):
        long.append((n - 1) * s + span - sum(_tuple(pad, 2)))
    if min(long) < 0 or not _small((have[0], out, *(n + 2 for n in long))):
        return None
    w = _given(b, (have[1], out // groups, *window))
    y = gc.nn.conv_transpose(x, _finite(b, w), stride, padding, longer, dilation, groups)
    return _finished(b, y, (1, out, *[1] * space))


@operation(3)
def kernel_in_use(b: Builder) -> Any:
    """A convolution or a transposed one whose kernel stays; often with few places, and channels of whole panels."""
    space = b.pick([1, 2, 2, 3])
    x = _images(b, space)
    have = b.evaluate(x).shape
    window, groups = _window(b, space, [2, 3, 1, 2]), _groups(b, have[1])
    turned, stride, dilation, padding = b.chance(35), b.pick([1, 1, 2]), b.pick([1, 1, 2]), b.pick([0, 1])
    spans = [dilation * (k - 1) + 1 for k in window]
    if turned:
        places = [(n - 1) * stride + span - 2 * padding for n, span in zip(have[2:], spans, strict=True)]
    else:
        places = [(n + 2 * padding - span) // stride + 1 for n, span in zip(have[2:], spans, strict=True)]
    if min(places) < 1 or (turned and padding >= min(spans)):
        return None
    out = groups * (64 // groups if have[0] * math.prod(places) <= 6 and b.chance(70) else b.pick([3, 1, 2]))
    if not _small((have[0], out, *places)) or have[1] * out * math.prod(window) > 4000:
        return None
    w = b.weight((have[1], out // groups, *window) if turned else (out, have[1] // groups, *window))
    if w is None:
        return None
    how = gc.nn.conv_transpose(x, _finite(b, w.var), stride, padding, 0, dilation, groups) if turned else gc.nn.conv(x, _finite(b, w.var), stride, padding, dilation, groups)
    return _finished(b, how, (1, out, *[1] * space))


ACTIVATIONS: tuple[Callable[[Var], Var], ...] = (gc.relu, gc.tanh, gc.sigmoid, gc.nn.elu, gc.nn.leaky_relu, lambda x: x * gc.sigmoid(x), gc.softplus, gc.square)


def _finished(b: Builder, y: Var, bias: Shape, pools: bool = False) -> Any:
    """What follows a product: perhaps a bias, an activation, a pooling, and a reduction; the bias has so many elements along each axis."""
    results = [y] if b.chance(15) else []
    if b.chance(40):
        long = [k for k, n in enumerate(bias) if n != 1]
        v = _given(b, tuple(bias[k] for k in long))
        y = y + gc.expand_dims(v, tuple(k for k in range(len(bias)) if k not in long))
    if b.chance(40):
        y = b.pick(ACTIVATIONS)(y)
    if pools and b.chance(30) and all(n > 3 for n in b.evaluate(y).shape[2:]):
        window, stride, padding, dilation = _pool(b, len(bias) - 2)
        y = gc.nn.max_pool(y, window, stride, padding, dilation) if b.chance(60) else gc.nn.avg_pool(y, window, stride)
    shape = b.evaluate(y).shape
    if b.chance(35) and all(shape):
        axis = b.pick([-1, None, 0, tuple(range(1, len(shape))), (0, *range(2, len(shape))), 1])
        if isinstance(axis, int) and axis >= len(shape):
            return [*results, y]
        fn = b.pick([gc.sum, gc.mean, gc.max, gc.sum, gc.min, gc.var, gc.logsumexp])
        results.append(fn(y, axis=axis, keepdims=b.chance(40)))
    elif b.chance(15) and len(shape) > 1 and shape[-1]:
        results.append(_normal(y, b.chance(50)))
    else:
        results.append(y)
    return results


def _normal(y: Var, soft: bool) -> Var:
    """Row by row: softmax, or mean 0 and variance 1."""
    return gc.softmax(y, axis=-1) if soft else (y - gc.mean(y, axis=-1, keepdims=True)) / gc.sqrt(gc.var(y, axis=-1, keepdims=True) + 0.1)


# ---- pooling and windows --------------------------------------------------------------------------


def _pool(b: Builder, space: int) -> tuple[Any, Any, Any, Any]:
    """Window, stride, padding and dilation."""
    window: Any = _window(b, space, [2, 3, 2, 1])
    dilation = _each(b, space, [1, 1, 1, 2])
    spans = [d * (k - 1) + 1 for d, k in zip(_tuple(dilation, space), window, strict=True)]
    padding = _padding(b, [span // 2 for span in spans]) if b.chance(40) else 0
    if window == window[:1] * space and b.chance(50):
        window = window[0]
    return window, _each(b, space, [1, 2, 3]) if b.chance(50) else None, padding, dilation


@operation(3, exact=True)
def max_pool(b: Builder) -> Any:
    space = b.pick([1, 2, 2, 1, 3])
    return gc.nn.max_pool(_images(b, space, exact=True), *_pool(b, space))


@operation(3)
def mean_pools(b: Builder) -> Any:
    space = b.pick([1, 2, 2, 1, 3])
    x = _images(b, space)
    window, stride, _, _ = _pool(b, space)
    if b.chance(60):
        padding = _padding(b, [k // 2 for k in _tuple(window, space)]) if b.chance(50) else 0
        return gc.nn.avg_pool(x, window, stride, padding, count_padding=b.chance(50))
    p = b.pick([2, 1, 3, 1.5, np.inf, 0.5])
    return gc.nn.lp_pool(x if p in (1, 2, np.inf) else gc.abs(x) + 0.25, p, window, stride)


@operation(4)
def slide(b: Builder) -> Any:
    """``windows`` and what is made of them; ``overlap_add`` of them or of any value."""
    a = b.value("fci", lambda v: 1 <= v.array.ndim <= 3)
    if a is None:
        return None
    n = a.array.ndim
    axes = tuple(sorted({b.between(0, n - 1) for _ in range(b.pick([1, 1, 2]))}))
    ints = lambda options: tuple(b.pick(options) for _ in axes)
    window, strides, dilations = ints([2, 3, 1, 2]), ints([1, 2, 1, 3]), ints([1, 1, 2])
    if b.chance(25):
        return _overlap(b, a)
    seen = sliding.windows(a.var, window, strides, dilations, axes)
    way = b.source.below(6)
    if way < 2:
        scaled = seen * _given(b, window) if a.kind == "f" and b.chance(50) else seen
        shape = shape_of(a.var)
        return sliding.overlap_add(scaled, [shape[k] for k in axes], window, strides, dilations, axes)
    if way == 2 and a.kind == "f":
        return gc.softmax(seen, axis=-1)
    if way == 3 and a.kind == "f":
        return seen @ _given(b, (window[-1], b.between(1, 3)))
    return seen if way == 4 else gc.sum(seen if a.kind == "i" or b.chance(50) else seen * seen, axis=tuple(range(-len(axes), 0)))


def _overlap(b: Builder, a: Value) -> Any:
    """Any value taken for windows along one axis, as many as it has, of the size of its last axis."""
    if a.array.ndim < 2 or not a.shape[-1]:
        return None
    axis, window, stride, dilation = b.between(0, a.array.ndim - 2), a.shape[-1], b.pick([1, 2, 3]), b.pick([1, 1, 2])
    extra = b.between(0, stride - 1)
    count = shape_of(a.var)[axis] if a.shape[axis] and b.chance(50) else a.shape[axis]
    size = (count - 1) * stride + dilation * (window - 1) + 1 + extra if a.shape[axis] else 0
    assert not isinstance(size, int) or positions(size, window, stride, (0, 0), dilation) == a.shape[axis]
    return sliding.overlap_add(a.var, (size,), (window,), (stride,), (dilation,), (axis,))


# ---- products -------------------------------------------------------------------------------------


def _matrices(b: Builder) -> Var | None:
    """Some matrices, as they lie in memory or seen otherwise."""
    a = b.value("f", lambda v: v.array.ndim >= 1)
    if a is None:
        return None
    x = a.var
    if a.array.ndim == 1:
        x = gc.expand_dims(x, b.between(0, 1))
    way = b.source.below(9)
    if way == 0:
        return gc.swapaxes(x, -1, -2)
    if way == 1:
        return x[..., ::2, :] if b.chance(50) else x[..., 1:]
    if way == 2:
        return x[..., ::-1] if b.chance(50) else gc.flip(x, axis=-2)
    if way == 3 and x.type.ndim < 4:
        return gc.broadcast_to(x, (b.between(1, 3), *shape_of(x)))
    if way == 4 and x.type.ndim == 3:
        return gc.transpose(x, (1, 0, 2))  # heads
    if way == 5 and a.array.ndim == 2 and a.shape[1] % 2 == 0 and a.array.size:
        return gc.transpose(gc.reshape(x, (x.shape[0], 2, a.shape[1] // 2)), (1, 0, 2))
    return gc.expand_dims(x, 0) if way == 6 and x.type.ndim < 4 else x


def _met(b: Builder, shape: Shape, turned: bool = False) -> Var:
    """Matrices to multiply others of this shape with from the right, (..., k, n); ``turned``: (..., n, k)."""
    k, lead = shape[-1], shape[:-2]

    def fits(v: Value) -> bool:
        try:
            return v.array.ndim >= 2 and k in v.shape[-2:] and len(np.broadcast_shapes(lead, v.shape[:-2])) <= 3
        except ValueError:
            return False
    found = b.value("f", fits) if b.chance(55) else None
    if found is None:
        n = b.pick([b.sizes["a"], b.sizes["b"], 2, 4, 1, 3])
        front = b.pick([(), lead, lead[-1:], (1,) * len(lead[:1])])
        x = _given(b, (*front, n, k))
        across = True
    else:
        x, across = found.var, found.shape[-1] == k and (found.shape[-2] != k or b.chance(50))
    return x if across == turned else gc.swapaxes(x, -1, -2)


@operation(4)
def batched(b: Builder) -> Any:
    a = _matrices(b)
    if a is None:
        return None
    have = b.evaluate(a).shape
    c = _met(b, have)
    if b.chance(15):  # one of the operands computed right here
        c = b.pick([gc.tanh, lambda x: x * 2.0, lambda x: -x])(c)
    y = a @ c if b.chance(80) else gc.swapaxes(gc.swapaxes(c, -1, -2) @ gc.swapaxes(a, -1, -2), -1, -2)
    if b.chance(20):
        y = gc.swapaxes(y, 0, -1)
    return y


@operation(5)
def layer(b: Builder) -> Any:
    """A product with a bias, an activation, a reduction or a normalisation behind it."""
    a = _matrices(b)
    if a is None:
        return None
    have = b.evaluate(a).shape
    if have[-1] and b.chance(15):
        a = _normal(a, False)
    y = a @ _met(b, have)
    shape = b.evaluate(y).shape
    if not _small(shape):
        return None
    if b.chance(15) and shape[-1] % 2 == 0:  # gates
        y = y[..., :shape[-1] // 2] * gc.sigmoid(y[..., shape[-1] // 2:])
    elif b.chance(15) and shape == have:
        y = y + a
    return _finished(b, y, (b.evaluate(y).shape[-1],))


@operation(5)
def heads(b: Builder) -> Any:
    """Products of rows of a table, or of what a kernel makes, with weights that stay."""
    a = _matrices(b)
    if a is None:
        return None
    have = b.evaluate(a).shape
    if have[-2] and b.chance(60):
        a = gc.take(a, b.positions(have[-2], (b.between(4, 9),)), axis=-2)
        have = b.evaluate(a).shape
    elif b.chance(60):
        a = b.pick(ACTIVATIONS)(a)
    if not _small(have):
        return None
    found = []
    for _ in range(b.pick([2, 1, 3])):
        w = b.weight((have[-1], b.pick([2, 3, 4, 1]))) if b.chance(90) else None
        y = a @ (_met(b, have) if w is None else w.var)
        found.append(b.pick(ACTIVATIONS)(y) if b.chance(70) else y)
    together = len({b.evaluate(y).shape[:-1] for y in found}) == 1 and b.chance(70)
    return gc.concatenate(found, axis=-1) if together else found


@operation(5)
def attend(b: Builder) -> Any:
    """Rows of weights from products, and means with them: attention, and variants of it."""
    q = _matrices(b)
    if q is None:
        return None
    have = b.evaluate(q).shape
    if b.chance(25):
        k = q
    else:
        k = _met(b, have, turned=True)
    if len(have) > 2 and b.chance(15):  # queries that all matrices share
        q = q[(0,) * (len(have) - 2)] if min(have[:-2]) else q
        have = b.evaluate(q).shape
    half = b.pick(["float16", "bfloat16"]) if not b.special and b.chance(15) else ""
    if half:
        k = gc.cast(k, half)
        q = gc.cast(q, half)
    scores = q @ gc.swapaxes(k, -1, -2)
    shape = b.evaluate(scores).shape
    if not shape[-1] or not _small(shape):
        return None
    scores = b.pick([lambda: scores, lambda: scores * 0.5, lambda: scores / math.sqrt(max(have[-1], 1)), lambda: scores / gc.sqrt(gc.cast(q.shape[-1], scores.dtype) + 0.5)])()
    scores = _masked(b, scores, shape)
    way = b.source.below(6)
    if way < 3:
        weights = gc.softmax(scores, axis=-1)
    elif way == 3:
        e = gc.exp(scores - gc.max(scores, axis=-1, keepdims=True))
        weights = e / gc.sum(e, axis=-1, keepdims=True)
    elif way == 4:
        weights = gc.exp(gc.log_softmax(scores, axis=-1)) if b.chance(50) else gc.softmax(scores, axis=-2 if shape[-2] else -1)
    else:
        weights = gc.relu(scores) / (gc.sum(gc.relu(scores), axis=-1, keepdims=True) + 1.0)
    if b.chance(15):
        return weights
    values = k if b.chance(25) else gc.cast(_met(b, shape), half) if half else _met(b, shape)
    if way == 3 and b.chance(60):
        out = (e @ values) / gc.sum(e, axis=-1, keepdims=True)
        return gc.cast(out, b.floatx) if half else out
    out = weights @ values
    if half:
        return gc.cast(out, b.floatx)
    if b.chance(20):
        return [weights, out]
    return gc.swapaxes(out, 0, -2) if b.chance(15) else out


def _masked(b: Builder, scores: Var, shape: Shape) -> Var:
    """Scores of which some do not count."""
    way = b.source.below(11)
    if way in (0, 8, 9):  # causal; a window; with a second mask
        size = shape_of(scores)
        i, j = gc.expand_dims(gc.arange(size[-2]), 1), gc.arange(size[-1])
        seen = b.pick([lambda: i >= j, lambda: gc.logical_and(i >= j, j > i - b.between(1, 5)), lambda: gc.abs(i - j) < b.between(1, 4), lambda: j >= i - b.between(0, 3)])() if way else i >= j
        low = b.pick([-np.inf, -1e9, -1e30])
        if way == 9:
            kept = b.value("b", lambda v: _broadcasts(v.shape, shape))
            seen = seen if kept is None else gc.logical_and(seen, kept.var)
        return gc.where(seen, scores, low) if b.chance(70) else scores + gc.where(seen, gc.cast(0.0, scores.dtype), gc.cast(low, scores.dtype))
    if way == 10:  # what is added for each key
        bias = b.value("f", lambda v: v.array.ndim == 1 and v.shape == shape[-1:])
        size = shape_of(scores)
        return gc.where(gc.expand_dims(gc.arange(size[-2]), 1) >= gc.arange(size[-1]), scores if bias is None else scores + bias.var, -np.inf)
    if way == 1:
        lower = gc.tril(gc.ones_like(scores)) > 0
        return gc.where(lower, scores, b.pick([-np.inf, -1e9]))
    if way == 2:
        kept = b.value("b", lambda v: _broadcasts(v.shape, shape) and bool(np.broadcast_to(v.array, shape).any(-1).all()))
        return scores if kept is None else gc.where(kept.var, scores, -np.inf)
    if way == 3:
        return gc.where(scores > 1.0, scores, -1e9 if b.chance(50) else 0.0)
    if way == 4:
        bias = b.value("f", lambda v: _broadcasts(v.shape, shape))
        return scores if bias is None else scores + bias.var
    return scores


def _broadcasts(shape: Shape, to: Shape) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False
