"""Convolutions of images with kernels: ``conv``, and the two ops that are its derivatives.

    conv(x, w; geometry)                     y[n, o, p] = sum over c, k       of x[n, c, i] * w[o, c, k]
    conv_input(w, y; sizes, geometry)        x[n, c, i] = sum over o, p, k    of w[o, c, k] * y[n, o, p]
    conv_weight(x, y; window, geometry)      w[o, c, k] = sum over n, p       of x[n, c, i] * y[n, o, p]

where along each spatial axis ``i = p * stride - low + k * dilation`` is a position in x; what lies outside is 0.
One trilinear form, three ways to leave one of its factors open: so the derivatives of each op are the other two.

    x  (batch, channels, *space)     images
    w  (out, channels/groups, *window)     kernels, not flipped: this is cross-correlation
    y  (batch, out, *positions)      positions = max(0, (size + low + high - dilation*(window - 1) - 1)//stride + 1)

The geometry is four attributes: ``strides``, ``dilations`` (ints >= 1) and ``padding`` ((low, high), ints >= 0), one for each
spatial axis, and ``groups``: the channels of x and of y fall into so many equal runs, and each run of y sees its own run of x only.
``sizes`` and ``window`` are spatial sizes; a None is one that only a node finds out: it is an operand behind the others.

Where a kernel is not finite, a 0 that lies outside may make NaN of it (0 * inf) or not.  Half precisions are added up in float32
and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.arithmetic import conj_or_same, floordiv
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.comparison import greater
from graphc.ops.core import cast, constant, shape_of, size_args, sized_shape, sized_value
from graphc.ops.cumulative import accumulator
from graphc.ops.example import Example
from graphc.ops.movement import expand_dims, reshape
from graphc.ops.reduction import any as any_

__all__ = ["OPS", "Convolution", "conv", "conv_input", "conv_input_op", "conv_op", "conv_weight", "conv_weight_op", "met", "positions"]

Attrs = Mapping[str, Any]
Pairs = Sequence[tuple[int, int]]
Shapes = tuple[tuple[Size, ...], tuple[Size, ...], tuple[Size, ...]]
GEOMETRY = ("strides", "padding", "dilations", "groups")


def positions(size: Size, window: Size, stride: int, padding: tuple[int, int], dilation: int) -> Size:
    """How many windows stand in an axis of that size with so many zeros before and behind it."""
    spare = size + (padding[0] + padding[1]) - (window - 1) * dilation - 1
    return dims.dim_max(dims.floordiv(spare, stride) + 1, 0)


# ---- sizes that must fit ------------------------------------------------------------------------


def _geometry(rank: int, strides: Sequence[int], padding: Pairs, dilations: Sequence[int], groups: int) -> None:
    """Errors for attributes that do not describe a convolution of values of this rank."""
    if rank < 3:
        raise GraphcTypeError(f"values of rank >= 3 expected, (batch, channels, *space); got rank {rank}")
    if not len(strides) == len(padding) == len(dilations) == rank - 2:
        raise GraphcValueError(f"{rank - 2} strides, pairs of padding and dilations expected; got {strides}, {padding} and {dilations}")
    if any(s < 1 for s in (*strides, *dilations, groups)) or any(side < 0 for pair in padding for side in pair):
        raise GraphcValueError(f"strides, dilations and groups >= 1 and padding >= 0 expected; got {strides}, {dilations}, {groups} and {padding}")


def _dtype(a: Type, b: Type) -> np.dtype[Any]:
    if a.dtype != b.dtype or a.ndim != b.ndim:
        raise GraphcTypeError(f"operands of one dtype and one rank expected; got {a} and {b}")
    return a.dtype


#: (what must be, one size, the other)
Fit = tuple[str, Size, Size]


def _fits(x: Sequence[Size], w: Sequence[Size], y: Sequence[Size], attrs: Attrs) -> Iterator[Fit]:
    """The equations that the shapes of image, kernel and result satisfy."""
    groups: int = attrs["groups"]
    yield "the images and the results must be equally many", x[0], y[0]
    yield f"the channels of the image must be those of the kernel times groups={groups}", x[1], w[1] * groups
    yield "the channels of the result must be as many as the kernels", y[1], w[0]
    if groups > 1:
        yield f"the number of kernels must leave no rest when divided by groups={groups}", dims.mod(w[0], groups), 0
    for i, (stride, pair, dilation) in enumerate(zip(attrs["strides"], attrs["padding"], attrs["dilations"], strict=True), 2):
        what = f"axis {i} of the result must be as long as a window of {dims.size_text(w[i])} has places in {dims.size_text(x[i])}"
        yield what, y[i], positions(x[i], w[i], stride, pair, dilation)


def _check(x: Sequence[Size], w: Sequence[Size], y: Sequence[Size], attrs: Attrs) -> None:
    for what, a, b in _fits(x, w, y, attrs):
        if isinstance(a, int) and isinstance(b, int) and a != b:
            raise GraphcValueError(f"{what}; got {a} and {b}")


def _result(x: Sequence[Size], w: Sequence[Size], attrs: Attrs) -> tuple[Size, ...]:
    """The shape of y."""
    along = zip(x[2:], w[2:], attrs["strides"], attrs["padding"], attrs["dilations"], strict=True)
    return (x[0], w[0], *(positions(*axis) for axis in along))


class Convolution(Op):
    """What the three ops share: two operands of one dtype and rank, then sizes."""

    kind = "contraction"
    flops = 2.0
    factors: tuple[str, str, str]  # what the operands and the result are

    def infer(self, a: Type, b: Type, *more: Type, strides: Sequence[int], padding: Pairs, dilations: Sequence[int], groups: int,  # type: ignore[override]
              **found: Any) -> Type:
        dtype = _dtype(a, b)
        attrs = {"strides": strides, "padding": padding, "dilations": dilations, "groups": groups}
        _geometry(a.ndim, strides, padding, dilations, groups)
        given = [sized_shape(sizes, more, self.name) for sizes in found.values()]
        if any(len(sizes) != a.ndim - 2 for sizes in given):
            raise GraphcValueError(f"{a.ndim - 2} sizes expected; got {given[0]}")
        x, w, y = self.shapes(a.shape, b.shape, given[0] if given else (), attrs)
        _check(x, w, y, attrs)
        return Type(dtype, self.own(x, w, y))

    def shapes(self, a: Sequence[Size], b: Sequence[Size], given: Sequence[Size], attrs: Attrs) -> Shapes:
        """The shapes of x, w and y."""
        raise NotImplementedError

    def own(self, x: tuple[Size, ...], w: tuple[Size, ...], y: tuple[Size, ...]) -> tuple[Size, ...]:
        """That of the three which is the result's."""
        raise NotImplementedError

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        given = attrs.get("sizes", attrs.get("window", ()))
        sizes = sized_shape(given, types[2:], self.name)
        x, w, y = self.shapes(types[0].shape, types[1].shape, sizes, attrs)
        for _, a, b in _fits(x, w, y, attrs):
            if a != b:
                yield Relation("equal", a, b)

    def connected(self, position: int, node: Node) -> bool:
        return position < 2 and dtypes.is_inexact(node.outputs[0].type.dtype)


# ---- values -------------------------------------------------------------------------------------
#
# All three as one matrix product per group.  A row of ``_columns`` is what one window sees.


class _Numbers:
    """The sizes of one call, and arrays brought into the forms that products take."""

    def __init__(self, x: Sequence[int], w: Sequence[int], y: Sequence[int], dtype: np.dtype[Any], attrs: Attrs) -> None:
        _check(x, w, y, attrs)
        self.strides, self.padding, self.dilations, self.groups = (attrs[k] for k in GEOMETRY)
        self.batch, self.space, self.window, self.positions = x[0], tuple(x[2:]), tuple(w[2:]), tuple(y[2:])
        self.x, self.w, self.y = tuple(x), tuple(w), tuple(y)
        self.channels, self.kernels = w[1], w[0] // self.groups  # of one group
        self.dtype, self.wide = dtype, accumulator(dtype)
        self.padded = tuple([low + n + high for n, (low, high) in zip(self.space, self.padding, strict=True)])
        self.inner = tuple([slice(low, low + n) for n, (low, _) in zip(self.space, self.padding, strict=True)])
        self.rows = self.batch * math.prod(self.positions)
        self.seen = self.channels * math.prod(self.window)

    def columns(self, x: Array) -> Array:
        """(groups, rows, seen): the images, window by window."""
        rank = len(self.space)
        whole = np.zeros((*x.shape[:2], *self.padded), self.wide)
        whole[(slice(None), slice(None), *self.inner)] = x
        steps = whole.strides[2:]
        windows = np.lib.stride_tricks.as_strided(
            whole, (self.batch, self.groups, self.channels, *self.positions, *self.window),
            (whole.strides[0], whole.strides[1] * self.channels, whole.strides[1], *(b * s for b, s in zip(steps, self.strides, strict=True)),
             *(b * d for b, d in zip(steps, self.dilations, strict=True))), writeable=False)
        order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
        return windows.transpose(order).reshape(self.groups, self.rows, self.seen)

    def kernel(self, w: Array) -> Array:
        """(groups, kernels, seen)"""
        return np.ascontiguousarray(w, self.wide).reshape(self.groups, self.kernels, self.seen)

    def result(self, y: Array) -> Array:
        """(groups, rows, kernels)"""
        apart = y.astype(self.wide, copy=False).reshape(self.batch, self.groups, self.kernels, *self.positions)
        return np.moveaxis(np.moveaxis(apart, 1, 0), 2, -1).reshape(self.groups, self.rows, self.kernels)

    def product(self, a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(np.matmul(a, b))

    def rounded(self, value: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(value.astype(self.dtype, copy=False))

    def laid(self, columns: Array) -> Array:
        """The transpose of ``columns``: what windows hold is added up where they stand; what stands in the padding is dropped."""
        rank = len(self.space)
        parts = columns.reshape(self.groups, self.batch, *self.positions, self.channels, *self.window)
        whole = np.zeros((self.groups, self.batch, *self.padded, self.channels), self.wide)
        with np.errstate(all="ignore"):
            for k in np.ndindex(self.window) if columns.size else ():
                at = tuple([slice(j * d, j * d + (n - 1) * s + 1, s) for j, d, n, s in zip(k, self.dilations, self.positions, self.strides, strict=True)])
                whole[(slice(None), slice(None), *at)] += parts[(..., *k)]
        inner = whole[(slice(None), slice(None), *self.inner)]
        return inner.transpose(1, 0, 2 + rank, *range(2, 2 + rank)).reshape(self.x)


def _loop(x: Sequence[int], w: Sequence[int], y: Sequence[int], attrs: Attrs) -> Iterator[tuple[Any, Any, Any]]:
    """The positions in x, w and y that meet in one product, one after the other (for the examples)."""
    strides, padding, dilations, groups = (attrs[k] for k in GEOMETRY)
    for n, o, *p in np.ndindex(*y):
        for c, *k in np.ndindex(*w[1:]):
            i = [a * s - low + b * d for a, b, s, (low, _), d in zip(p, k, strides, padding, dilations, strict=True)]
            if all(0 <= a < size for a, size in zip(i, x[2:], strict=True)):
                yield (n, o // (w[0] // groups) * w[1] + c, *i), (o, c, *k), (n, o, *p)


def _examples(which: int) -> tuple[Example, ...]:
    """Examples of the op whose result is x (0), w (1) or y (2)."""
    plain = {"strides": (1,), "padding": ((0, 0),), "dilations": (1,), "groups": 1}
    sides = {"strides": (2, 1), "padding": ((1, 0), (0, 2)), "dilations": (1, 2), "groups": 1}
    depthwise = {"strides": (2,), "padding": ((1, 1),), "dilations": (1,), "groups": 2}
    sparse = {"strides": (3, 1, 1), "padding": ((0, 0), (1, 1), (0, 0)), "dilations": (1, 1, 1), "groups": 1}
    cases: list[tuple[Any, Any, Attrs, dict[str, Any]]] = [
        ((2, 3, 5), (4, 3, 3), plain, {"analytic": True}),
        ((2, 2, 5, 4), (3, 2, 2, 3), sides, {"analytic": True}),
        ((1, 4, 5), (4, 2, 3), depthwise, {}),
        ((1, 2, 4, 2, 3), (2, 2, 2, 3, 1), sparse, {}),
        ((2, 2, 4), (2, 2, 3), plain, {"dtypes": "complex128"}),
        ((0, 2, 4), (2, 2, 3), plain, {}),
        ((1, 2, 2), (2, 2, 3), plain, {}),
        ((2, 2, 4), (2, 2, 3), plain, {"dtypes": "int8", "domain": (-9, 9), "gradient": False}),
        ((1, 2, 4), (2, 1, 3), {**plain, "groups": 2}, {"dtypes": "bool", "gradient": False}),
    ]
    found = []
    for x, w, attrs, more in cases:
        y: Any = _result(x, w, attrs)
        shapes = (x, w, y)
        others = [k for k in range(3) if k != which]

        def value(a: Array, b: Array, shapes: Any = shapes, others: Any = others, attrs: Attrs = attrs) -> Array:
            total = np.zeros(shapes[which], a.dtype)
            for at in _loop(shapes[0], shapes[1], shapes[2], attrs):
                total[at[which]] += a[at[others[0]]] * b[at[others[1]]]
            return total

        size = ({"sizes": x[2:]}, {"window": w[2:]}, {})[which]
        found.append(Example([shapes[k] for k in others], {**size, **attrs}, numpy=value, **more))
    return tuple(found)


# ---- the ops ------------------------------------------------------------------------------------


class Conv(Convolution):
    """``conv(x, w; strides, padding, dilations, groups)``: the result y."""

    name = "conv"
    factors = ("x", "w", "y")
    examples = _examples(2)

    def shapes(self, a: Sequence[Size], b: Sequence[Size], given: Sequence[Size], attrs: Attrs) -> Shapes:
        return tuple(a), tuple(b), _result(a, b, attrs)

    def own(self, x: tuple[Size, ...], w: tuple[Size, ...], y: tuple[Size, ...]) -> tuple[Size, ...]:
        return y

    def forward(self, x: Array, w: Array, **attrs: Any) -> Array:  # type: ignore[override]
        shape: Any = _result(x.shape, w.shape, attrs)
        call = _Numbers(x.shape, w.shape, shape, x.dtype, attrs)
        rows = call.product(call.columns(x), call.kernel(w).transpose(0, 2, 1)).reshape(call.groups, call.batch, *call.positions, call.kernels)
        return call.rounded(np.moveaxis(np.moveaxis(rows, 0, 1), -1, 2).reshape(call.y))

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        x, w = inputs
        if position == 0:
            return conv_input(conj_or_same(w), cotangents[0], shape_of(x)[2:], attrs)
        return conv_weight(conj_or_same(x), cotangents[0], shape_of(w)[2:], attrs)


class ConvInput(Convolution):
    """``conv_input(w, y, *sizes; sizes, strides, padding, dilations, groups)``: the images x, of these spatial sizes."""

    name = "conv_input"
    factors = ("w", "y", "x")
    examples = _examples(0)

    def shapes(self, a: Sequence[Size], b: Sequence[Size], given: Sequence[Size], attrs: Attrs) -> Shapes:
        return (b[0], a[1] * attrs["groups"], *given), tuple(a), tuple(b)

    def own(self, x: tuple[Size, ...], w: tuple[Size, ...], y: tuple[Size, ...]) -> tuple[Size, ...]:
        return x

    def forward(self, w: Array, y: Array, *more: Array, sizes: Sequence[int | None], **attrs: Any) -> Array:  # type: ignore[override]
        space = sized_value(sizes, more, self.name)
        call = _Numbers((y.shape[0], w.shape[1] * attrs["groups"], *space), w.shape, y.shape, w.dtype, attrs)
        return call.rounded(call.laid(call.product(call.result(y), call.kernel(w))))

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        w, y = inputs[:2]
        if position == 0:
            return conv_weight(cotangents[0], conj_or_same(y), shape_of(w)[2:], attrs)
        return conv(cotangents[0], conj_or_same(w), attrs) if position == 1 else None


class ConvWeight(Convolution):
    """``conv_weight(x, y, *sizes; window, strides, padding, dilations, groups)``: the kernels w, of these spatial sizes."""

    name = "conv_weight"
    factors = ("x", "y", "w")
    examples = _examples(1)

    def shapes(self, a: Sequence[Size], b: Sequence[Size], given: Sequence[Size], attrs: Attrs) -> Shapes:
        return tuple(a), (b[1], dims.floordiv(a[1], attrs["groups"]), *given), tuple(b)

    def own(self, x: tuple[Size, ...], w: tuple[Size, ...], y: tuple[Size, ...]) -> tuple[Size, ...]:
        return w

    def forward(self, x: Array, y: Array, *more: Array, window: Sequence[int | None], **attrs: Any) -> Array:  # type: ignore[override]
        space = sized_value(window, more, self.name)
        call = _Numbers(x.shape, (y.shape[1], x.shape[1] // attrs["groups"], *space), y.shape, x.dtype, attrs)
        return call.rounded(call.product(call.result(y).transpose(0, 2, 1), call.columns(x)).reshape(call.w))

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        x, y = inputs[:2]
        if position == 0:
            return conv_input(cotangents[0], conj_or_same(y), shape_of(x)[2:], attrs)
        return conv(conj_or_same(x), cotangents[0], attrs) if position == 1 else None


conv_op, conv_input_op, conv_weight_op = Conv(), ConvInput(), ConvWeight()
OPS: tuple[Op, ...] = (conv_op, conv_input_op, conv_weight_op)


# ---- which elements meet ------------------------------------------------------------------------


def met(node: Node, flows: Var, source: int, target: int) -> Var:
    """Which elements of factor ``target`` of a convolution meet a True in ``flows``, which has the shape of factor ``source``.

    Factors: 0 and 1 are the node's operands, 2 is its result.  The answer broadcasts against the target.
    """
    assert isinstance(node.op, Convolution)
    factors = dict(zip(node.op.factors, (*node.inputs[:2], node.outputs[0]), strict=True))
    have, want = node.op.factors[source], node.op.factors[target]
    rank, groups = flows.type.ndim, node.attrs["groups"]
    space = tuple(range(2, rank))
    if have == "y" and want == "w":
        return expand_dims(any_(flows, (0, *space), False), tuple(range(1, rank)))
    if have == "w" and want == "y":
        return expand_dims(any_(flows, (1, *space), False), (0, *space))
    if have == "w":
        kept = any_(_by_group(flows, 0, groups), (1, *(a + 1 for a in space)), False)  # (groups, channels of one)
        return expand_dims(reshape(kept, (shape_of(factors["x"])[1],)), (0, *space))
    if want == "w":
        kept = any_(_by_group(flows, 1, groups), (0, *(a + 1 for a in space)), False)
        return expand_dims(_for_each(kept, 1, factors["w"], 0), space)
    # windows of x and places of y that see each other: a convolution with one channel in each group
    some = cast(any_(_by_group(flows, 1, groups), (2,), False), dtypes.DTYPES["float32"])
    ones = broadcast_to(constant(1, some.type.dtype), (groups, 1, *shape_of(factors["w"])[2:]))
    count = conv(some, ones, node.attrs) if have == "x" else conv_input(ones, some, shape_of(factors["x"])[2:], node.attrs)
    return _for_each(greater(count, 0), 2, factors[want], 1)


def _by_group(v: Var, axis: int, groups: int) -> Var:
    """An axis in two: groups, and what is in one."""
    shape = list(shape_of(v))
    shape[axis:axis + 1] = [groups, _divided(shape[axis], groups)]
    return reshape(v, shape)


def _for_each(v: Var, axis: int, like: Var, along: int) -> Var:
    """What is said of a group said of each of its members: the axis ``along`` of ``like``, which ``v`` has by groups before ``axis``."""
    size, groups = shape_of(like)[along], v.type.shape[axis - 1]
    wide, shape = expand_dims(v, (axis,)), list(shape_of(v))
    whole = broadcast_to(wide, [*shape[:axis], _divided(size, groups), *shape[axis:]])
    return reshape(whole, [*shape[:axis - 1], size, *shape[axis:]])


def _divided(size: Any, groups: Any) -> Any:
    return floordiv(size, groups) if isinstance(size, Var) else dims.floordiv(size, groups)


# ---- builders -----------------------------------------------------------------------------------


def _attrs(geometry: Attrs) -> dict[str, Any]:
    return {k: geometry[k] for k in GEOMETRY}


def conv(x: Var, w: Var, geometry: Attrs) -> Var:
    """The result of images and kernels of one dtype; ``geometry`` has strides, padding, dilations and groups."""
    return apply(conv_op, x, w, **_attrs(geometry))


def conv_input(w: Var, y: Var, sizes: Sequence[Any], geometry: Attrs) -> Var:
    """The images of spatial ``sizes`` (ints, dims, integer scalar variables) that kernels and results give."""
    static, operands = size_args(sizes, "conv_input")
    return apply(conv_input_op, w, y, *operands, sizes=static, **_attrs(geometry))


def conv_weight(x: Var, y: Var, window: Sequence[Any], geometry: Attrs) -> Var:
    """The kernels of spatial sizes ``window`` that images and results give."""
    static, operands = size_args(window, "conv_weight")
    return apply(conv_weight_op, x, y, *operands, window=static, **_attrs(geometry))
