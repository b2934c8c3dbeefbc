"""Convolutions in one, two and three dimensions.

Images are (batch, channels, *space), kernels (out, in/groups, *window); what is computed is cross-correlation, which neural networks
call convolution.  An option that is one value for each spatial axis may be given as one value for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dims
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.creation import asarray
from graphc.ir import Var
from graphc.ops import convolution, joining
from graphc.ops.core import dim_of, is_door, promote
from graphc.ops.movement import flip

__all__ = ["conv", "conv_transpose", "padding_pairs", "per_axis", "spatial_axes"]

#: words for a padding: zeros on both sides together, for a window that spans so many places
WORDS = ("valid", "same", "half", "full")


def conv(x: Any, w: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, flip_kernel: bool = False) -> Var:
    """The cross-correlation of images with kernels, in 1, 2 or 3 dimensions.

    ``y[n, o, p] = sum over c, k of x[n, c, p * stride - low + k * dilation] * w[o, c, k]`` along each spatial axis, where x is 0 outside.

    Args:
        x: (batch, channels, *space); any dtype.
        w: (out, channels/groups, *window); operands of two dtypes are promoted.  Integers wrap around, half precisions are added up in float32.
        stride: steps between windows, an int >= 1 or one for each spatial axis.
        padding: zeros around x: an int >= 0; one for each spatial axis, each an int or a pair (low, high); or a word:
            "valid" none; "same" a result as large as x (stride 1 only; of an odd number of zeros the last side gets one more);
            "half" ``span // 2`` on each side; "full" ``span - 1``, every place where x and kernel overlap.  ``span`` is ``dilation * (window - 1) + 1``.
        dilation: steps between the elements that a window sees, an int >= 1 or one for each spatial axis.
        groups: x and the kernels fall into so many groups, each a convolution of its own; ``groups=channels`` is called depthwise.
        flip_kernel: True for convolution in the sense of mathematics: kernels turned round along all spatial axes.

    Returns:
        (batch, out, *positions), ``(size + low + high - span) // stride + 1`` positions along each axis, none where that is negative.

    Raises:
        GraphcTypeError: ranks or options of another form.
        GraphcValueError: channels or groups that do not fit, negative numbers, a word for a padding that needs sizes not known here.
            Sizes known only at the call are checked there.

    >>> import graphc as gc
    >>> x, w = gc.tensor3("x"), gc.tensor3("w")
    >>> f = gc.function([x, w], gc.nn.conv(x, w, stride=2, padding=1))
    >>> f([[[1.0, 2.0, 3.0, 4.0]]], [[[1.0, 10.0, 100.0]]])
    array([[[210., 432.]]])
    """
    image, kernel = _operands(x, w, "conv")
    rank = spatial_axes(image, "conv")
    geometry = _geometry(kernel, rank, stride, padding, dilation, groups, "conv")
    _divides(kernel, geometry["groups"], "conv")
    channels, seen = image.type.shape[1], kernel.type.shape[1] * geometry["groups"]
    if isinstance(channels, int) and isinstance(seen, int) and channels != seen:
        raise GraphcValueError(f"conv: x has {channels} channels (axis 1), but w takes {seen} "
                               f"(axis 1 of w, {kernel.type.shape[1]}, times groups={geometry['groups']}); got x: {image.type} and w: {kernel.type}")
    if flip_kernel:
        kernel = flip(kernel, tuple(range(2, 2 + rank)))
    return convolution.conv(image, kernel, geometry)


def conv_transpose(x: Any, w: Any, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Var:
    """The transpose of a convolution: the gradient of ``conv`` with respect to its images, as a layer that enlarges images.

    Each element of x adds the kernel, times it, to the result at ``p * stride - padding``:
    ``y[n, c, i] = sum of x[n, o, p] * w[o, c, k]`` over all o, p, k with ``p * stride - low + k * dilation = i``.

    Args:
        x: (batch, channels, *space); any dtype.
        w: (channels, out/groups, *window).
        stride, dilation, groups: those of the convolution whose transpose this is.
        padding: likewise: what is cut off the result on both sides; see ``conv``.
        output_padding: so much longer is the result at its end, an int or one for each spatial axis: a convolution with a stride
            gives the same size for images of several.  Less than the stride or the dilation.

    Returns:
        (batch, out, *sizes), along each axis ``(size - 1) * stride - low - high + dilation * (window - 1) + 1 + output_padding``.

    Raises:
        GraphcTypeError: ranks or options of another form.
        GraphcValueError: channels or groups that do not fit, numbers out of range, a result of negative size.

    >>> import graphc as gc
    >>> x, w = gc.tensor3("x"), gc.tensor3("w")
    >>> f = gc.function([x, w], gc.nn.conv_transpose(x, w, stride=2))
    >>> f([[[1.0, 2.0]]], [[[1.0, 10.0, 100.0]]])
    array([[[  1.,  10., 102.,  20., 200.]]])
    """
    image, kernel = _operands(x, w, "conv_transpose")
    rank = spatial_axes(image, "conv_transpose")
    geometry = _geometry(kernel, rank, stride, padding, dilation, groups, "conv_transpose")
    longer = per_axis(output_padding, rank, "conv_transpose: output_padding", 0)
    _divides(kernel, geometry["groups"], "conv_transpose")
    channels, seen = image.type.shape[1], kernel.type.shape[0]
    if isinstance(channels, int) and isinstance(seen, int) and channels != seen:
        raise GraphcValueError(f"conv_transpose: x has {channels} channels (axis 1), but w takes {seen} (axis 0); got x: {image.type} and w: {kernel.type}")
    pairs, sizes, tail = [], [], []
    for axis, more in enumerate(longer):
        step, spread, (low, high) = geometry["strides"][axis], geometry["dilations"][axis], geometry["padding"][axis]
        if more >= max(step, spread):
            raise GraphcValueError(f"conv_transpose: output_padding is less than the stride or the dilation; got {more} with stride {step} "
                                   f"and dilation {spread} on spatial axis {axis}")
        # the image of a convolution with these windows is longer by less than a stride; what is more than that was cut off, or is 0
        inside = min(more, step - 1)
        kept = min(more - inside, high)
        size = _enlarged(image.type.shape[2 + axis], kernel.type.shape[2 + axis], step, (low, high - kept), spread)
        sizes.append(size + inside)
        pairs.append((low, high - kept))
        tail.append((0, more - inside - kept))
    y = convolution.conv_input(kernel, image, sizes, {**geometry, "padding": tuple(pairs)})
    return joining.pad(y, [(0, 0), (0, 0), *tail], "constant", 0)


def _enlarged(size: Size, window: Size, stride: int, padding: tuple[int, int], dilation: int) -> Size:
    if not is_door(size) or not is_door(window):
        raise GraphcValueError("conv_transpose: the spatial sizes of x and w are known when a call begins; got one that only data tells")
    long = (size - 1) * stride + (window - 1) * dilation + 1 - padding[0] - padding[1]
    if isinstance(long, int) and long < 0:
        raise GraphcValueError(f"conv_transpose: padding {padding} cuts off more than the result has: {size} elements, window {window}, stride {stride}, "
                               f"dilation {dilation} give {long + padding[0] + padding[1]}")
    return dims.dim_max(long, 0)


# ---- operands and options, also of pooling ------------------------------------------------------


def spatial_axes(x: Var, what: str) -> int:
    """How many spatial axes images have."""
    if not 3 <= x.type.ndim <= 5:
        raise GraphcTypeError(f"{what}: x is (batch, channels, *space) with 1, 2 or 3 spatial axes, of rank 3 to 5; got {x.describe()}")
    return x.type.ndim - 2


def _operands(x: Any, w: Any, what: str) -> tuple[Var, Var]:
    image, kernel = promote(asarray(x), asarray(w))
    spatial_axes(image, what)
    if kernel.type.ndim != image.type.ndim:
        form = "(out, in/groups, *window)" if what == "conv" else "(in, out/groups, *window)"
        raise GraphcTypeError(f"{what}: w is {form}, of the rank of x; got x: {image.type} and w: {kernel.type}")
    return image, kernel


def _geometry(kernel: Var, rank: int, stride: Any, padding: Any, dilation: Any, groups: Any, what: str) -> dict[str, Any]:
    """The attributes of the ops, from options as users write them."""
    strides = per_axis(stride, rank, f"{what}: stride", 1)
    dilations = per_axis(dilation, rank, f"{what}: dilation", 1)
    if isinstance(groups, (bool, Var)) or not hasattr(groups, "__index__"):
        raise GraphcTypeError(f"{what}: groups is an int; got {groups!r}")
    if groups.__index__() < 1:
        raise GraphcValueError(f"{what}: groups is at least 1; got {groups}")
    if isinstance(padding, str):
        pairs = _in_words(padding, kernel.type.shape[2:], strides, dilations, what)
    else:
        pairs = padding_pairs(padding, rank, f"{what}: padding")
    return {"strides": strides, "padding": pairs, "dilations": dilations, "groups": int(groups.__index__())}


def _divides(kernel: Var, groups: int, what: str) -> None:
    size = kernel.type.shape[0]
    if isinstance(size, int) and size % groups:
        raise GraphcValueError(f"{what}: axis 0 of w is a multiple of groups; got w: {kernel.type} and groups={groups}")


def _in_words(word: str, window: Sequence[Size], strides: Sequence[int], dilations: Sequence[int], what: str) -> tuple[tuple[int, int], ...]:
    if word not in WORDS:
        raise GraphcValueError(f"{what}: padding is a number, one for each spatial axis, or one of {', '.join(map(repr, WORDS))}; got {word!r}")
    if word == "valid":
        return ((0, 0),) * len(window)
    if word == "same" and any(s != 1 for s in strides):
        raise GraphcValueError(f"{what}: padding='same' goes with stride 1; got stride {tuple(strides)}: give the padding in numbers")
    pairs = []
    for axis, (size, dilation) in enumerate(zip(window, dilations, strict=True)):
        if not isinstance(size, int):
            raise GraphcValueError(f"{what}: padding={word!r} needs the size of the window, and axis {axis + 2} of w has size {size}; "
                                   "give the sizes in its type, or the padding in numbers")
        span = dilation * (size - 1) + 1
        low = {"same": (span - 1) // 2, "half": span // 2, "full": span - 1}[word]
        pairs.append((max(low, 0), max(span - 1 - low if word == "same" else low, 0)))
    return tuple(pairs)


def per_axis(value: Any, rank: int, what: str, least: int) -> tuple[int, ...]:
    """An int, or one for each of ``rank`` spatial axes, each at least ``least``."""
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(entries) != rank:
        raise GraphcValueError(f"{what} is one int, or one for each of {rank} spatial axes; got {value!r}")
    numbers = [_number(n, value, what) for n in entries]
    if any(n < least for n in numbers):
        raise GraphcValueError(f"{what} is at least {least}; got {value!r}")
    return tuple(numbers)


def padding_pairs(value: Any, rank: int, what: str) -> tuple[tuple[int, int], ...]:
    """An int, or one for each of ``rank`` spatial axes, each an int or a pair (low, high)."""
    entries = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    if len(entries) != rank:
        raise GraphcValueError(f"{what} is one int, or an int or a pair (low, high) for each of {rank} spatial axes; got {value!r}")
    pairs = []
    for entry in entries:
        sides = tuple(entry) if isinstance(entry, (tuple, list)) else (entry, entry)
        if len(sides) != 2:
            raise GraphcValueError(f"{what}: an int or a pair (low, high) for each spatial axis; got {value!r}")
        low, high = (_number(side, value, what) for side in sides)
        if low < 0 or high < 0:
            raise GraphcValueError(f"{what} is not negative; got {value!r}")
        pairs.append((low, high))
    return tuple(pairs)


def _number(n: Any, value: Any, what: str) -> int:
    size: Any = dim_of(n) if isinstance(n, Var) else n
    if isinstance(size, (bool, dims.Dim)) or not hasattr(size, "__index__"):
        raise GraphcTypeError(f"{what}: ints, known when the graph is built, expected; got {value!r}")
    return int(size.__index__())
