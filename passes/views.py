"""Movement as strides: the result of an op that only moves elements, as a view of its operand."""

from __future__ import annotations

from collections.abc import Sequence

from graphc import dims
from graphc.dims import Dim, Size
from graphc.dtypes import is_complex
from graphc.ir import Node, Type
from graphc.kernel import View, contiguous

__all__ = ["dense", "from_front", "is_dense", "numbers", "outside", "slice_start", "view_guard", "view_of"]

#: ops that give back their operand
IDENTITIES = ("mark", "disconnected_grad", "zero_grad", "grad_clip", "grad_scale")


def numbers(type: Type) -> int:
    """How many real numbers an element is."""
    return 2 if is_complex(type.dtype) else 1


def dense(slab: int, type: Type) -> View:
    """A whole slab."""
    each = numbers(type)
    return View(slab, type.shape, tuple([stride * each for stride in contiguous(type.shape)]))


def is_dense(view: View, each: int = 1) -> bool:
    """Do the elements, of so many numbers, lie one after the other, in C order, without gaps?"""
    want: Size = each
    for size, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if dims.is_one(size):
            continue
        if stride != want:
            return False
        want = want * (size if size != 0 else 1)
    return True


def view_of(node: Node, x: View) -> View | None:
    """The result of ``node`` as a view of where its operand 0 lies; None if strides cannot say it."""
    name, attrs = node.op.name, node.attrs
    shape = node.outputs[0].type.shape
    if name in IDENTITIES:
        return x
    if name == "real" or name == "imag":
        return View(x.slab, x.shape, x.strides, x.offset + int(name == "imag"))
    if name == "view_as_real":
        return x.parts
    if name == "view_as_complex":
        return View(x.slab, shape, x.strides[:-1], x.offset) if x.strides[-1] == 1 else None
    if name == "transpose":
        axes = attrs["axes"]
        return View(x.slab, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes), x.offset)
    if name == "expand_dims":
        shapes, strides = iter(x.shape), iter(x.strides)
        new = [(1, 0) if i in attrs["axes"] else (next(shapes), next(strides)) for i in range(len(shape))]
        return View(x.slab, tuple(s for s, _ in new), tuple(t for _, t in new), x.offset)
    if name == "squeeze":
        kept = [i for i in range(len(x.shape)) if i not in attrs["axes"]]
        return View(x.slab, tuple(x.shape[i] for i in kept), tuple(x.strides[i] for i in kept), x.offset)
    if name == "broadcast_to" and len(node.inputs) == 1:
        lead = len(shape) - len(x.shape)
        strides_: list[Size] = [0] * lead
        for size, want, stride in zip(x.shape, shape[lead:], x.strides, strict=True):
            strides_.append(0 if dims.is_one(size) else stride if size == want else stride * dims.dim_min(1, size - 1))
        return View(x.slab, shape, tuple(strides_), x.offset)
    if name == "sum_to" and len(node.inputs) == 1 and x.shape == shape:
        return x
    if name == "flip":
        offset, turned = x.offset, list(x.strides)
        for a in attrs["axes"]:
            offset = offset + (x.shape[a] - 1) * turned[a]
            turned[a] = turned[a] * -1
        return View(x.slab, x.shape, tuple(turned), offset)
    if name == "diagonal":
        first, second, k = attrs["axis1"], attrs["axis2"], attrs["offset"]
        offset = x.offset + (x.strides[second] * k if k > 0 else x.strides[first] * -k)
        kept = [i for i in range(len(x.shape)) if i not in (first, second)]
        return View(x.slab, shape, (*(x.strides[i] for i in kept), x.strides[first] + x.strides[second]), offset)
    if name == "windows":
        along, within = list(x.strides), []
        for a, step, dilation in zip(attrs["axes"], attrs["strides"], attrs["dilations"], strict=True):
            within.append(along[a] * dilation)
            along[a] = along[a] * step
        return View(x.slab, shape, (*along, *within), x.offset)
    if name == "reshape" and len(node.inputs) == 1:
        return reshaped(x, shape, numbers(node.inputs[0].type))  # for -1 see view_guard
    if name == "subtensor" and len(node.inputs) == 1:
        return _sliced(node, x)
    return None


def view_guard(node: Node) -> Size:
    """A formula that is 0 where ``node`` is no error: positions are inside, sizes broadcast, one that follows from the others is whole."""
    total: Size = 0
    if node.op.name == "broadcast_to":
        for have, want in zip(reversed(node.inputs[0].type.shape), reversed(node.outputs[0].type.shape), strict=False):
            if dims.bcast(have, want) != want:  # the door lets a call in where ``want`` is 1
                total = total + _differ(have, want) * _differ(have, 1)
        return total
    if node.op.name == "reshape" and -1 in node.attrs["shape"]:
        return dims.product(node.inputs[0].type.shape) - dims.product(node.outputs[0].type.shape)
    if node.op.name != "subtensor":
        return total
    axis = 0
    for entry in node.attrs["index"]:
        if entry == "new":
            continue
        n = node.inputs[0].type.shape[axis]
        axis += 1
        if not isinstance(entry, tuple) and entry != "?" and not (isinstance(entry, int) and isinstance(n, int)):
            total = total + outside(entry, n)
    return total


def _differ(a: Size, b: Size) -> Size:
    """0 where two sizes are equal, else 1."""
    return dims.dim_min(dims.dim_max(a - b, b - a), 1)


def outside(position: Size, n: Size) -> Size:
    """A formula that is 0 where a position is one of -n ... n - 1."""
    if isinstance(position, int):
        return dims.dim_max((position + 1 if position >= 0 else -position) - n, 0)
    return dims.dim_max(position + 1 - n, 0) + dims.dim_max(position * -1 - n, 0)


def from_front(position: Size, n: Size) -> Size:
    """A position that may count from the end, counted from the front."""
    if isinstance(position, int):
        return position if position >= 0 else n + position
    if dims.bounds(position)[0] >= 0:
        return position
    return position + dims.dim_min(dims.dim_max(position * -1, 0), 1) * n


def reshaped(x: View, shape: Sequence[Size], each: int = 1) -> View | None:
    """The same elements in C order under another shape, where groups of axes split and join without moving anything."""
    if is_dense(x, each):
        return View(x.slab, tuple(shape), tuple([stride * each for stride in contiguous(shape)]), x.offset)
    have = [(s, t) for s, t in zip(x.shape, x.strides, strict=True) if not dims.is_one(s)]
    strides: list[Size] = []
    rest = [s for s in shape if not dims.is_one(s)]
    found: list[Size] = []
    while rest:
        size = rest.pop(0)
        if not have:
            return None
        group, t = have.pop(0)
        new = [size]
        total = size
        while total != group:
            ratio = dims.floordiv(group, total) if group != 0 and total != 0 else group
            if rest and ratio * total == group:  # one axis becomes several
                size = rest.pop(0)
                new.append(size)
                total = total * size
                continue
            if not have or have[0][1] * have[0][0] != t:  # several axes become one, if they lie one in the other
                return None
            inner, t = have.pop(0)
            group = group * inner
        step = t
        part: list[Size] = []
        for s in reversed(new):
            part.insert(0, step)
            step = step * s
        found += part
    if have:
        return None
    rest_strides = iter(found)
    for s in shape:
        strides.append(0 if dims.is_one(s) else next(rest_strides))
    return View(x.slab, tuple(shape), tuple(strides), x.offset)


def _sliced(node: Node, x: View) -> View | None:
    """``x[index]`` for an index of slices and positions known at the door."""
    offset = x.offset
    strides: list[Size] = []
    axis = 0
    for entry in node.attrs["index"]:
        if entry == "new":
            strides.append(0)
            continue
        n, stride = x.shape[axis], x.strides[axis]
        axis += 1
        if isinstance(entry, tuple):
            start, _, step = entry
            if not isinstance(step, int):
                return None
            first = slice_start(n, start, step)
            if first is None:
                return None
            offset = offset + first * stride
            strides.append(stride * step)
            continue
        if entry == "?":
            return None
        offset = offset + from_front(entry, n) * stride  # see view_guard
    return View(x.slab, node.outputs[0].type.shape, tuple(strides), offset)


def slice_start(n: Size, start: Size | None, step: int) -> Size | None:
    """Where a slice begins, if it is not empty."""
    if start is None:
        return 0 if step > 0 else n - 1
    if isinstance(start, Dim):
        if dims.bounds(start)[0] < 0:
            return None
        return start if step > 0 else dims.dim_min(start, n - 1)
    if start >= 0:
        return start if step > 0 else dims.dim_min(start, n - 1)
    return dims.dim_max(n + start, 0) if step > 0 else n + start
