"""Convolutions as what runs natively: a contraction over windows of an image, which are views, never a copy.

    conv(x, w)            y[l, o, p] = sum of w[o, (c, k)] * x[l, (c, k), p]     x at (c, stride p + dilation k)
    conv_weight(x, y)     w[o, (c, k)] = sum of y[o, (l, p)] * x[(l, p), (c, k)]
    conv_input(w, y)      x[l, c, h] = sum of w[c, (o, k)] * y[l, (o, k), h]     the kernel turned over, y with zeros between and around

``convolved`` (for ``expand``) lays zeros around x, or around and between y, so that no window sticks out; what computes x may
write it there.  ``contraction_views`` (for ``lower``) are the operands' views.  With one channel in each group and one
result of it (depthwise), a contraction would have one row: that is a sum of shifted images instead, which fuses with what is around.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_float, is_half
from graphc.ir import Node, Type, Var, apply
from graphc.kernel import View
from graphc.ops.arithmetic import add, mul
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.choosing import maximum, minimum
from graphc.ops.contraction import einsum_op, matmul, roles, split
from graphc.ops.convolution import conv_input_op, conv_op, conv_weight_op
from graphc.ops.core import cast, constant, is_door
from graphc.ops.indexing import subtensor
from graphc.ops.joining import concatenate
from graphc.ops.movement import expand_dims, flip, reshape, squeeze, transpose
from graphc.ops.reduction import sum as sum_
from graphc.ops.slicing import WHOLE
from graphc.ops.sliding import windows_op
from graphc.ops.windows import window_op

__all__ = ["CONVOLUTIONS", "PANELED", "contraction_views", "convolved", "einsum_views", "in_panels", "is_bare", "is_direct", "ordered", "overlapped", "pooled", "turned_over"]

CONVOLUTIONS = ("conv", "conv_input", "conv_weight")
#: elements of the window up to which a depthwise convolution is a sum of shifted images
MOST_SHIFTS = 32
#: multiplications for each that counts from which on the gradient of an image is a product whose parts are added up; rows of a tile
WASTE, TILE = 1.4, 6
#: x[a, (b, c)] times a matrix in panels [b, d, c, e] (passes/keep.py)
PANELED = "abc,bdce->ade"
#: results [a image, b group, c channel, places] times what windows see [a, b, d channel, places, window] (see _by_image)
KERNELS = {n: f"abc{p},abd{p}{k}->abcd{k}" for n, p, k in ((1, "p", "x"), (2, "pq", "xy"), (3, "pqr", "xyz"))}
#: what windows see of images [a image, c channel, places, window] times a kernel in panels [d, c, window, e] (passes/keep.py)
SEEN = {1: "acpx,dcxe->apde", 2: "acpqxy,dcxye->apqde", 3: "acpqrxyz,dcxyze->apqrde"}
DIRECT = frozenset({PANELED, *KERNELS.values(), *SEEN.values()})
#: positions in an image up to which images stand side by side
SMALL = 256

Windows = tuple[Sequence[int], Sequence[int]]  # strides and dilations


def is_bare(node: Node) -> bool:
    """Does no window stick out?  Then the node is a contraction of views."""
    attrs = node.attrs
    if node.op is conv_input_op:
        window = _window(node.inputs[0].type.shape)
        if len(window) != len(attrs["strides"]):
            return False
        reach = [d * (k - 1) for d, k in zip(attrs["dilations"], window, strict=True)]
        return all(s == 1 for s in attrs["strides"]) and all(tuple(p) == (r, r) for p, r in zip(attrs["padding"], reach, strict=True))
    return all(tuple(p) == (0, 0) for p in attrs["padding"])


def _window(shape: Sequence[Size]) -> list[int]:
    """The sizes of a kernel's window, which are numbers."""
    return [k for k in shape[2:] if isinstance(k, int)]


def convolved(node: Node, xs: list[Var]) -> Var | None:
    """The node without a window that sticks out, or as a sum; None if that is the node itself."""
    if len(xs) > 2:  # sizes that only the call finds out
        return None
    attrs = dict(node.attrs)
    window = list(attrs["window"]) if node.op is conv_weight_op else _window((xs[1] if node.op is conv_op else xs[0]).type.shape)
    if len(window) != len(attrs["strides"]) or not all(isinstance(k, int) and k > 0 for k in window):
        return None
    bare = is_bare(node)
    if node.op is conv_input_op and _mostly_in_vain(xs[0], xs[1], attrs):
        return _spread(xs, node.outputs[0].type.shape, window, attrs)
    if not bare:
        if node.op is conv_input_op:
            xs, attrs = [xs[0], _among_zeros(xs[1], window, attrs)], attrs | _whole(window, attrs)
        else:
            x, other = xs
            sizes = [n + low + high for n, (low, high) in zip(x.type.shape[2:], attrs["padding"], strict=True)]
            xs = [_laid(x, [low for low, _ in attrs["padding"]], (1,) * len(window), sizes), other]
            attrs["padding"] = ((0, 0),) * len(window)
    shifts = _shifted(node, xs, window, attrs)
    if shifts is not None:
        return shifts
    divided = _by_image(xs, node.outputs[0].type, attrs) if node.op is conv_weight_op else _side_by_side(node, xs, attrs)
    return divided if divided is not None or bare else apply(node.op, *xs, **attrs)


def _side_by_side(node: Node, xs: Sequence[Var], attrs: dict[str, Any]) -> Var | None:
    """Small images as one: which image it is becomes an axis of space.  So the kernel is packed once, and vectors are full.  Sweeps may take some images at a time."""
    batch, _, *positions = node.outputs[0].type.shape
    if batch == 1 or not is_float(node.outputs[0].type.dtype) or not all(isinstance(n, int) for n in positions) or not 0 < dims.product(positions) <= SMALL:
        return None
    which = 0 if node.op is conv_op else 1
    image, kernel = xs[which], expand_dims(xs[1 - which], (2,))
    rank = image.type.ndim
    image = expand_dims(transpose(image, (1, 0, *range(2, rank))), (0,))
    more: dict[str, Any] = {"strides": (1,), "dilations": (1,), "padding": ((0, 0),)}
    if node.op is conv_input_op:
        more["sizes"] = (batch,)
    attrs = attrs | {k: (*v, *attrs[k]) for k, v in more.items()}
    together = apply(node.op, *((image, kernel) if which == 0 else (kernel, image)), **attrs)
    return transpose(squeeze(together, (0,)), (1, 0, *range(2, rank)))


def _by_image(xs: Sequence[Var], out: Type, attrs: dict[str, Any]) -> Var | None:
    """What each image gives to the kernel, then their sum: images are shared out among threads, and what is read stays near.

    Not where that is more than the images hold; and numbers of 16 bits would be rounded for each image.
    """
    x, y = xs
    batch, groups, elements, space = x.type.shape[0], attrs["groups"], dims.product(out.shape), len(attrs["strides"])
    held = dims.product(x.type.shape[1:]), dims.product(y.type.shape[1:])
    if dims.is_one(batch) or not is_float(out.dtype) or is_half(out.dtype) or not isinstance(elements, int):
        return None
    if not all(isinstance(n, int) for n in held) or elements > held[0] + held[1]:
        return None
    x, y = (reshape(v, (batch, groups, dims.floordiv(v.type.shape[1], groups), *v.type.shape[2:])) for v in xs)
    seen = apply(windows_op, x, window=tuple(attrs["window"]), strides=attrs["strides"], dilations=attrs["dilations"], axes=tuple(range(3, 3 + space)))
    each = apply(einsum_op, y, seen, subscripts=KERNELS[space])
    return sum_(reshape(each, (batch, *out.shape)), (0,))


def turned_over(node: Node, kernel: Var, y: Var) -> Var | None:
    """``conv_input`` as the convolution that it is, of ``y`` among zeros: the same products in the same order.  None where it is rather a sum.

    The kernel is a view then, of which keep makes an array.
    """
    attrs, window = node.attrs, _window(kernel.type.shape)
    groups: int = attrs["groups"]
    out, channels = kernel.type.shape[:2]
    if len(node.inputs) > 2 or len(window) != len(attrs["strides"]) or math.prod(window) < 2 or _mostly_in_vain(kernel, y, attrs) or (out == groups and channels == 1):
        return None
    image = y if is_bare(node) else _among_zeros(y, window, attrs)
    space = range(3, 3 + len(window))
    turned = flip(reshape(kernel, (groups, dims.floordiv(out, groups), channels, *window)), tuple(space))
    turned = reshape(transpose(turned, (0, 2, 1, *space)), (groups * channels, dims.floordiv(out, groups), *window))
    plain = {"strides": (1,) * len(window), "padding": ((0, 0),) * len(window)}
    return apply(conv_op, image, turned, **{**plain, "dilations": attrs["dilations"], "groups": groups})


def in_panels(node: Node, x: Var, panels: Var) -> Var:
    """The convolution as windows of the image times the kernel in panels: rows are places in the image, columns channels."""
    space = len(node.attrs["strides"])
    if not is_bare(node):
        sizes = [n + low + high for n, (low, high) in zip(x.type.shape[2:], node.attrs["padding"], strict=True)]
        x = _laid(x, [low for low, _ in node.attrs["padding"]], (1,) * space, sizes)
    seen = apply(windows_op, x, window=tuple(panels.type.shape[2:-1]), strides=node.attrs["strides"], dilations=node.attrs["dilations"], axes=tuple(range(2, 2 + space)))
    found = apply(einsum_op, seen, panels, subscripts=SEEN[space])
    found = reshape(found, (*found.type.shape[:-2], panels.type.shape[0] * panels.type.shape[-1]))
    return transpose(found, (0, 1 + space, *range(1, 1 + space)))


def _whole(window: Sequence[int], attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of ``conv_input`` that has ``y`` among zeros already."""
    return {"strides": (1,) * len(window), "padding": tuple((d * (k - 1),) * 2 for d, k in zip(attrs["dilations"], window, strict=True))}


def _among_zeros(y: Var, window: Sequence[int], attrs: Mapping[str, Any]) -> Var:
    """``y`` with zeros between and around, as ``conv_input`` sees it."""
    reach = [d * (k - 1) for d, k in zip(attrs["dilations"], window, strict=True)]
    starts = [r - low for r, (low, _) in zip(reach, attrs["padding"], strict=True)]
    return _laid(y, starts, attrs["strides"], [n + r for n, r in zip(attrs["sizes"], reach, strict=True)])


def _laid(x: Var, starts: Sequence[Size], steps: Sequence[int], sizes: Sequence[Size]) -> Var:
    """``x`` among zeros."""
    zero = constant(np.zeros((), x.type.dtype), x.type.dtype)
    return apply(window_op, x, zero, starts=(0, 0, *starts), steps=(1, 1, *steps), shape=(*x.type.shape[:2], *sizes))


def _mostly_in_vain(w: Var, y: Var, attrs: Mapping[str, Any]) -> bool:
    """Would a contraction over ``y`` among zeros multiply zeros for the most part, or for rows that there are not?"""
    sizes, have, channels = attrs["sizes"], y.type.shape[2:], w.type.shape[1]
    before, after = ([n for n in found if isinstance(n, int)] for found in (have, sizes))
    if not isinstance(channels, int) or len(before) + len(after) < 2 * len(sizes) or attrs["groups"] != 1:
        return False
    return channels > 0 and math.prod(after) * max(channels, TILE) / channels > WASTE * math.prod(before) > 0


def _spread(xs: Sequence[Var], shape: Sequence[Size], window: Sequence[int], attrs: dict[str, Any]) -> Var:
    """What each result gives to each element of its window, a product, then for each element the sum of what it gets."""
    w, y = xs
    positions = y.type.shape[2:]
    out, channels = w.type.shape[0], w.type.shape[1]
    wide = np.dtype(np.float32) if is_half(y.type.dtype) else y.type.dtype
    rows = transpose(reshape(cast(w, wide), [out, channels * math.prod(window)]), [1, 0])
    given = matmul(rows, reshape(cast(y, wide), [y.type.shape[0], out, dims.product(positions)]))
    given = reshape(given, [y.type.shape[0], channels, *window, *positions])
    space = len(window)
    given = transpose(given, [0, 1, *range(2 + space, 2 + 2 * space), *range(2, 2 + space)])
    lows = [0, 0, *(low for low, _ in attrs["padding"])]
    return cast(_placed(given, window, attrs["strides"], attrs["dilations"], range(2, 2 + space), lows, shape), y.type.dtype)


def overlapped(node: Node, xs: list[Var]) -> Var | None:
    """``overlap_add`` as a view where windows stand side by side, else as a sum over the places in a window."""
    if len(xs) > 1:
        return None
    attrs, y, out = node.attrs, xs[0], node.outputs[0].type
    window, strides, axes = attrs["window"], attrs["strides"], attrs["axes"]
    if strides == window and all(d == 1 for d in attrs["dilations"]):
        order = [b for a in range(out.ndim) for b in ((a, out.ndim + axes.index(a)) if a in axes else (a,))]
        sizes = [y.type.shape[a] * (window[axes.index(a)] if a in axes else 1) for a in range(out.ndim)]
        together = reshape(transpose(y, order), sizes)
        if tuple(sizes) == tuple(out.shape):
            return together
        zero = constant(np.zeros((), out.dtype), out.dtype)
        return apply(window_op, together, zero, starts=(0,) * out.ndim, steps=(1,) * out.ndim, shape=out.shape)
    if math.prod(window) > MOST_SHIFTS:
        return None
    wide = np.dtype(np.float32) if is_half(out.dtype) else out.dtype
    return cast(_placed(cast(y, wide), window, strides, attrs["dilations"], axes, [0] * out.ndim, out.shape), out.dtype)


def pooled(node: Node, xs: list[Var]) -> Var | None:
    """The largest or smallest number of each window, place by place: whole images are compared, not a few numbers of one."""
    seen, attrs = xs[0].node, node.attrs
    if seen is None or seen.op is not windows_op or len(xs) > 1 or attrs["keepdims"]:
        return None
    window, axes, x = seen.attrs["window"], seen.attrs["axes"], seen.inputs[0]
    rank = x.type.ndim
    if tuple(attrs["axis"]) != tuple(range(rank, rank + len(window))) or not 1 < math.prod(window) <= MOST_SHIFTS:
        return None
    choose = maximum if node.op.name == "max" else minimum
    total: Var | None = None
    for at in np.ndindex(*window):
        index = [WHOLE] * rank
        for axis, k, s, d in zip(axes, at, seen.attrs["strides"], seen.attrs["dilations"], strict=True):
            index[axis] = _seen_at(k * d, s, xs[0].type.shape[axis])
        piece = subtensor(x, tuple(index))
        total = piece if total is None else choose(total, piece)
    return total


def _seen_at(first: int, stride: int, count: Size) -> tuple[int, Size, int]:
    """The slice of what ``count`` windows see at one place."""
    return first, first + dims.dim_max(count - 1, 0) * stride + dims.dim_min(count, 1), stride


def _placed(y: Var, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int], axes: Sequence[int], lows: Sequence[int],
            shape: Sequence[Size]) -> Var:
    """What windows hold, the last axes of ``y``, added up where they stand; ``lows``: how far everything is moved down."""
    dtype, rank = y.type.dtype, len(shape)
    zero, inner = constant(np.zeros((), dtype), dtype), list(shape)
    for axis, stride in zip(axes, strides, strict=True):
        inner[axis] = dims.floordiv(inner[axis] + (stride - 1), stride)
    phases: dict[tuple[int, ...], Var] = {}  # elements that are as many steps past a multiple of the strides
    for at in np.ndindex(*window):
        starts: list[Size] = [-low for low in lows]
        phase = []
        for axis, k, d, stride in zip(axes, at, dilations, strides, strict=True):
            place = k * d - lows[axis]
            phase.append(place % stride)
            starts[axis] = place // stride
        part = squeeze(subtensor(y, (*[WHOLE] * rank, *((k, k + 1, 1) for k in at))), tuple(range(rank, rank + len(at))))
        part = apply(window_op, part, zero, starts=tuple(starts), steps=(1,) * rank, shape=tuple(inner))
        known = phases.get(tuple(phase))
        phases[tuple(phase)] = part if known is None else add(known, part)
    nothing = broadcast_to(zero, inner)
    return _interleaved({p: phases.get(p, nothing) for p in np.ndindex(*strides)}, axes, strides, shape)


def _interleaved(phases: dict[tuple[int, ...], Var], axes: Sequence[int], strides: Sequence[int], shape: Sequence[Size]) -> Var:
    """One array of those of all phases."""
    for n in reversed(range(len(axes))):  # the last axis first
        axis, stride = axes[n], strides[n]
        joined = {}
        for p in dict.fromkeys(p[:n] for p in phases):
            lines = [phases[*p, k] for k in range(stride)]
            x = lines[0]
            if stride > 1:
                x = concatenate([expand_dims(line, (axis + 1,)) for line in lines], axis + 1)
                sizes = list(lines[0].type.shape)
                sizes[axis] = sizes[axis] * stride
                x = reshape(x, sizes)
            joined[p] = x
        phases = joined
    whole = phases[()]
    if tuple(whole.type.shape) == tuple(shape):
        return whole
    return subtensor(whole, tuple([(0, n, 1) for n in shape]))


# -- one channel in, one out -------------------------------------------------------------------------


def _shifted(node: Node, xs: Sequence[Var], window: Sequence[int], attrs: dict[str, Any]) -> Var | None:
    """A depthwise convolution as a sum over the window, or for the kernel as a sum for each element of it."""
    groups, out = attrs["groups"], node.outputs[0].type
    image, kernel = _roles(node, xs)
    if image.type.shape[1] != groups or kernel != (groups, 1) or math.prod(window) > MOST_SHIFTS or not isinstance(groups, int):
        return None
    dilations, strides = attrs["dilations"], attrs["strides"]
    wide = np.dtype(np.float32) if is_half(out.dtype) else out.dtype
    image = cast(image, wide)
    points = list(np.ndindex(*window))

    def piece(at: Sequence[int], sizes: Sequence[Size]) -> Var:
        index = [WHOLE, WHOLE]
        for k, d, s, n in zip(at, dilations, strides, sizes, strict=True):
            index.append(_seen_at(k * d, s, n))
        return subtensor(image, tuple(index))

    if node.op is conv_weight_op:
        y = cast(xs[1], wide)
        axes = (0, *range(2, out.ndim))
        sums = [sum_(mul(piece(at, y.type.shape[2:]), y), axes) for at in points]
        together = concatenate([expand_dims(x, (1,)) for x in sums], 1) if len(sums) > 1 else expand_dims(sums[0], (1,))
        return cast(reshape(together, out.shape), out.dtype)
    kernel_ = xs[1] if node.op is conv_op else xs[0]
    if node.op is conv_input_op:
        kernel_ = flip(kernel_, tuple(range(2, out.ndim)))
    weights = reshape(cast(kernel_, wide), [groups, len(points)])
    total: Var | None = None
    for n, at in enumerate(points):
        weight = expand_dims(squeeze(subtensor(weights, (WHOLE, (n, n + 1, 1))), (1,)), tuple(range(1, out.ndim - 1)))
        term = mul(piece(at, out.shape[2:]), weight)
        total = term if total is None else add(total, term)
    assert total is not None
    return cast(total, out.dtype)


def _roles(node: Node, xs: Sequence[Var]) -> tuple[Var, tuple[Size, Size]]:
    """What is seen through windows; outputs and inputs of the kernel."""
    if node.op is conv_op:
        return xs[0], (xs[1].type.shape[0], xs[1].type.shape[1])
    if node.op is conv_weight_op:
        return xs[0], (node.outputs[0].type.shape[0], node.outputs[0].type.shape[1])
    return xs[1], (xs[0].type.shape[0], xs[0].type.shape[1])


# -- views -------------------------------------------------------------------------------------------


def contraction_views(node: Node, first: View, second: View, out: View) -> tuple[View, View, View, tuple[int, int, int]]:
    """Operands and result of the contraction, and over how many axes rows, sums and columns run (kernel.Product)."""
    attrs, space = node.attrs, len(node.attrs["strides"])
    groups: Size = attrs["groups"]
    if node.op is conv_op:  # x, w -> y
        x, w, y = first, second, out
        a = _grouped(w, 0, groups)                               # g, o, c, k...
        b = _seen(_grouped(x, 1, groups), node, y.shape[2:], w.shape[2:])  # l, g, c, k..., p...
        c = _grouped(y, 1, groups)                               # l, g, o, p...
        lead = x.shape[0]
        return _over(a, lead), b, c, (1, 1 + space, space)
    if node.op is conv_weight_op:  # x, y -> w
        x, y, w = first, second, out
        seen = _seen(_grouped(x, 1, groups), node, y.shape[2:], w.shape[2:])  # l, g, c, k..., p...
        positions = list(range(3 + space, 3 + 2 * space))
        b = ordered(seen, [1, 0, *positions, *range(2, 3 + space)])  # g, l, p..., c, k...
        split = _grouped(y, 1, groups)                           # l, g, o, p...
        a = ordered(split, [1, 2, 0, *range(3, 3 + space)])     # g, o, l, p...
        return a, b, _grouped(w, 0, groups), (1, 1 + space, 1 + space)
    w, y, x = first, second, out  # w, y -> x
    turned = _grouped(w, 0, groups)                              # g, o, c, k...
    for axis in range(3, 3 + space):
        strides = list(turned.strides)
        offset = turned.offset + (turned.shape[axis] - 1) * strides[axis]
        strides[axis] = strides[axis] * -1
        turned = View(turned.slab, turned.shape, tuple(strides), offset)
    a = ordered(turned, [0, 2, 1, *range(3, 3 + space)])        # g, c, o, k...
    b = _seen(_grouped(y, 1, groups), node, x.shape[2:], w.shape[2:])  # l, g, o, k..., h...
    return _over(a, y.shape[0]), b, _grouped(x, 1, groups), (1, 1 + space, space)


def is_direct(node: Node) -> bool:
    """Is an einsum a contraction of views as they are?  Others are products of matrices, after copies where axes do not merge."""
    return node.attrs["subscripts"] in DIRECT and node.outputs[0].type.dtype.name in ("float32", "float64") and all(
        is_door(n) for v in (*node.inputs, *node.outputs) for n in v.type.shape)


def einsum_views(node: Node, first: View, second: View) -> tuple[View, View, tuple[Size, ...], tuple[int, int, int], Sequence[int]]:
    """Operands, the shape of a dense result, over how many axes rows, sums and columns run, and where in it the result's axes are."""
    (one, two), out = split(node.attrs["subscripts"])
    r = roles(one, two, out)
    have = r.batch + r.left + r.right
    sizes = dict(zip(out, node.outputs[0].type.shape, strict=True))
    a = ordered(first, [one.index(c) for c in r.batch + r.left + r.summed])
    b = ordered(second, [two.index(c) for c in r.batch + r.summed + r.right])
    return a, b, tuple([sizes[c] for c in have]), (len(r.left), len(r.summed), len(r.right)), [have.index(c) for c in out]


def _grouped(v: View, axis: int, groups: Size) -> View:
    """An axis as two, the first one over the groups."""
    size = dims.floordiv(v.shape[axis], groups)
    shape = (*v.shape[:axis], groups, size, *v.shape[axis + 1:])
    return View(v.slab, shape, (*v.strides[:axis], v.strides[axis] * size, *v.strides[axis:]), v.offset)


def _seen(v: View, node: Node, positions: Sequence[Size], window: Sequence[Size]) -> View:
    """Its spatial axes, the last ones, as those of the window and of the window's positions."""
    space = len(window)
    strides = v.strides[-space:]
    within = [s * d for s, d in zip(strides, node.attrs["dilations"], strict=True)]
    between = [s * t for s, t in zip(strides, node.attrs["strides"], strict=True)]
    return View(v.slab, (*v.shape[:-space], *window, *positions), (*v.strides[:-space], *within, *between), v.offset)


def ordered(v: View, axes: Sequence[int]) -> View:
    return View(v.slab, tuple([v.shape[k] for k in axes]), tuple([v.strides[k] for k in axes]), v.offset)


def _over(v: View, size: Size) -> View:
    """The same for each of ``size``."""
    return View(v.slab, (size, *v.shape), (0, *v.strides), v.offset)
