"""Ops that move elements, set parts or read at positions, as what kernels compute: used by ``expand`` for native backends.

    concatenate, pad, roll, shift      windows (graphc/ops/windows.py)
    set_subtensor, inc_subtensor       the same; a position read from a variable: where(iota == position, y, x)
    tril, triu, eye, place_diagonal    comparisons of iotas
    subtensor, advanced_subtensor      take_within at checked positions; several arrays of positions become one
    advanced_set, advanced_inc         set_within, inc_within: see Ordered in graphc/kernel.py
    cumsum, cumprod, recurrence        in the dtype in which they are accumulated; ``exclusive`` begins with a 1
    sum_to                             sums along the axes that the types know; what is left is known when the call begins
    einsum of two operands             their axes brought together, one product; or one for each index along some, and their sum
    conv, conv_input, conv_weight      no window that sticks out: passes/convolving.py

``moved`` gives None for what stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.ir import Node, Var, apply
from graphc.ops.arithmetic import add, mul, where
from graphc.ops.broadcasting import broadcast_to, sum_to_op
from graphc.ops.comparison import equal, greater_equal, less_equal, logical_and
from graphc.ops.contraction import Roles, label_sizes, matmul_op, roles, split
from graphc.ops.core import cast, constant, constant_value, dim_op, is_door
from graphc.ops.creation import iota_op
from graphc.ops.cumulative import accumulator
from graphc.ops.gathering import take_within_op, within_op
from graphc.ops.indexing import subtensor
from graphc.ops.movement import diagonal_size, expand_dims, flip, reshape, squeeze, transpose
from graphc.ops.reduction import sum as sum_
from graphc.ops.slicing import ARRAY, NEW, SCALAR, WHOLE, Index
from graphc.ops.windows import inc_within_op, set_within_op, window_op
from graphc.passes.bodies import is_broadcast, is_move
from graphc.passes.convolving import CONVOLUTIONS, convolved, is_direct, overlapped, pooled
from graphc.passes.views import slice_start

__all__ = ["MOST_WINDOWS", "MOVED", "is_zeros", "moved", "no_negative_zero", "one_of_each_row", "positions_within"]

INT = dtypes.DTYPES["int64"]
#: operands of a concatenate that one kernel reads; more are copied one after the other
MOST_WINDOWS = 4
#: rows for each column of a result, from which on products of 16 bits are made one by one (in float32)
MANY_ROWS = 8


def moved(node: Node, inputs: Sequence[Var], joins: bool) -> Var | None:
    """What computes the node's result in kernels; None if that is the node itself.

    ``joins``: is the result read by nodes that may be joined with it in one kernel?
    """
    change = _CHANGES.get(node.op.name)
    values = (*node.inputs, *node.outputs)
    if change is None or len(node.outputs) != 1 or any(dtypes.is_complex(v.type.dtype) or not all(map(is_door, v.type.shape)) for v in values):
        return None
    if (node.op.name == "concatenate" and (not joins or len(inputs) > MOST_WINDOWS)) or (node.op.name == "roll" and not joins):
        return None
    return change(node, list(inputs))


# ---- windows ------------------------------------------------------------------------------------


def window(x: Var, fill: Var, shape: Sequence[Size], starts: Sequence[Size], steps: Sequence[int] | None = None) -> Var:
    return apply(window_op, x, fill, starts=tuple(starts), steps=tuple(steps) if steps is not None else (1,) * len(shape), shape=tuple(shape))


def along(axis: int, start: Size, rank: int) -> list[Size]:
    starts: list[Size] = [0] * rank
    starts[axis] = start
    return starts


def zero(like: Var) -> Var:
    return constant(0, like.type.dtype)


def nothing(like: Var) -> Var:
    """What changes no value that it is added to, not even -0.0."""
    return constant(-0.0 if dtypes.is_float(like.type.dtype) else 0, like.type.dtype)


def is_zeros(x: Var) -> bool:
    """Is it a 0 broadcast?"""
    value = constant_value(x.node.inputs[0]) if x.node is not None and is_broadcast(x.node) else constant_value(x)
    return value is not None and value.size == 1 and value.item() == 0 and not bool(np.signbit(value).any() if value.dtype.kind == "f" else False)


def no_negative_zero(y: Var) -> Var:
    """``y + 0.0``, which is what adding to an array of zeros gives; a constant is looked at."""
    v = y
    while v.node is not None and is_move(v.node):
        v = v.node.inputs[0]
    value = constant_value(v)
    if not dtypes.is_float(y.type.dtype) or (
            value is not None and not bool((np.signbit(value) & (value == 0)).any() if value.dtype.kind == "f" else False)):
        return y
    return add(y, constant(0, y.type.dtype))


def counted(size: Size, axis: int, rank: int) -> Var:
    """0, 1, ... along an axis of a value of that rank."""
    places = apply(iota_op, shape=(size,), dtype=INT)
    behind = rank - axis - 1
    return expand_dims(places, tuple(range(1, 1 + behind))) if behind else places


def _concatenate(node: Node, xs: list[Var]) -> Var:
    axis, shape = node.attrs["axis"], node.outputs[0].type.shape
    result, end = zero(xs[0]), shape[axis]
    for x in reversed(xs):
        end = end - x.type.shape[axis]
        result = window(x, result, shape, along(axis, end, len(shape)))
    return result


def _pad(node: Node, xs: list[Var]) -> Var:
    return window(xs[0], xs[1], node.outputs[0].type.shape, [before for before, _ in node.attrs["widths"]])


def _roll(node: Node, xs: list[Var]) -> Var:
    """Along each axis what moves on, and what comes back at the beginning."""
    x, shape = xs[0], xs[0].type.shape
    pairs = list(zip(node.attrs["axes"], node.attrs["shifts"], strict=True))
    while pairs:
        part, pairs = pairs[:2], pairs[2:]
        places: list[list[Size]] = [[0] * len(shape)]
        for axis, by in part:
            k = dims.mod(by, dims.dim_max(shape[axis], 1))
            places = [[*p[:axis], start, *p[axis + 1:]] for p in places for start in (k, k - shape[axis])]
        result = zero(x)
        for starts in reversed(places):
            result = window(x, result, shape, starts)
        x = result
    return x


def _shift(node: Node, xs: list[Var]) -> Var:
    x, shape = xs[0], xs[0].type.shape
    return window(x, zero(x), shape, along(node.attrs["axis"], -1 if node.attrs["reverse"] else 1, len(shape)))


# ---- triangles and diagonals --------------------------------------------------------------------


def _triangle(node: Node, xs: list[Var]) -> Var:
    x, k = xs[0], node.attrs["k"]
    rows, columns = x.type.shape[-2:]
    test = less_equal if node.op.name == "tril" else greater_equal
    return where(test(counted(columns, 1, 2), add(counted(rows, 0, 2), k)), x, zero(x))


def _eye(node: Node, xs: list[Var]) -> Var | None:
    rows, columns = node.outputs[0].type.shape
    return None if xs else cast(equal(counted(columns, 1, 2), add(counted(rows, 0, 2), node.attrs["k"])), node.attrs["dtype"])


def _place_diagonal(node: Node, xs: list[Var]) -> Var | None:
    d, shape = xs[0], node.outputs[0].type.shape
    k, i, j = node.attrs["offset"], node.attrs["axis1"], node.attrs["axis2"]
    if len(xs) > 1 or d.type.shape[-1] != diagonal_size(shape[i], shape[j], k):
        return None
    rank = len(shape)
    order = list(range(rank - 2))
    order.insert(i - (j < i), rank - 2)
    rows = expand_dims(transpose(d, order), (j,))
    rows = broadcast_to(rows, [d.type.shape[-1] if a == i else n for a, n in enumerate(shape)])
    on = equal(counted(shape[j], j, rank), add(counted(shape[i], i, rank), k))
    return where(on, window(rows, zero(d), shape, along(i, max(-k, 0), rank)), zero(d))


# ---- parts of an array --------------------------------------------------------------------------


class _Part:
    """The part of an array that a basic index means: where ``y`` of its shape lies in the array."""

    def __init__(self, x: Var, y: Var, index: Index, operands: Sequence[Var]) -> None:
        """``y`` becomes of the array's rank."""
        self.x, self.good = x, True
        shape = x.type.shape
        y = squeeze(y, new) if (new := _places(index, NEW)) else y
        entries = [e for e in index if e != NEW]
        gone = tuple(a for a, e in enumerate(entries) if not isinstance(e, tuple))
        y = expand_dims(y, gone) if gone else y
        rest = iter(operands)
        self.starts: list[Size] = []
        self.steps: list[int] = []
        self.at: list[tuple[int, Var]] = []  # axes with a position of their own that only the call knows
        turned = []
        for axis, (entry, n) in enumerate(zip(entries, shape, strict=True)):
            start: Size = 0
            step = 1
            if isinstance(entry, tuple):
                step = entry[2] if isinstance(entry[2], int) else 0
                first = slice_start(n, entry[0], step) if step and SCALAR not in entry else None
                if first is None:
                    self.good = False
                    return
                start = first
                if step < 0:
                    start, step = start + (y.type.shape[axis] - 1) * step, -step
                    turned.append(axis)
            elif isinstance(entry, int) and isinstance(n, int):
                start = entry if entry >= 0 else entry + n
            else:
                position = next(rest) if entry == SCALAR else apply(dim_op, size=entry) if not isinstance(entry, int) else constant(entry, INT)
                self.at.append((axis, positions_within(position, n)))
            self.starts.append(start)
            self.steps.append(step)
        self.y = flip(y, turned) if turned else y

    def plain(self) -> bool:
        """Does ``y`` fill the array but for the axes in ``at``?"""
        mine = {axis for axis, _ in self.at}
        return all(axis in mine or (start == 0 and step == 1 and n == m) for axis, (start, step, n, m) in enumerate(
            zip(self.starts, self.steps, self.x.type.shape, self.y.type.shape, strict=True)))

    def there(self) -> Var | None:
        """Where the positions that the call knows are met; None where there are none."""
        found: Var | None = None
        for axis, position in self.at:
            met = equal(counted(self.x.type.shape[axis], axis, self.x.type.ndim), position)
            found = met if found is None else logical_and(found, met)
        return found

    def laid(self, fill: Var) -> Var:
        """``y`` as wide as the array, ``fill`` around it; along the axes in ``at`` everywhere the same."""
        if self.plain():
            return self.y
        y, shape = self.y, list(self.y.type.shape)
        for axis, _ in self.at:
            shape[axis] = self.x.type.shape[axis]
        return window(broadcast_to(y, shape) if self.at else y, fill, self.x.type.shape, self.starts, self.steps)


def _places(index: Index, what: Any) -> tuple[int, ...]:
    """Which axes of the part ``what`` makes."""
    axis, found = 0, []
    for entry in index:
        if not isinstance(entry, tuple) and entry == what:
            found.append(axis)
        axis += isinstance(entry, tuple) or entry == NEW
    return tuple(found)


def _assigned(node: Node, xs: list[Var]) -> Var | None:
    return assigned(xs[0], xs[1], node.attrs["index"], xs[2:], node.op.name == "inc_subtensor")


def assigned(x: Var, y: Var, index: Index, operands: Sequence[Var], increment: bool) -> Var | None:
    """``x`` with a part replaced by ``y``, or increased by it; the index is basic."""
    part = _Part(x, y, index, operands)
    if not part.good:
        return None
    there = part.there()
    if not increment:
        if there is None:
            return x if x.type == part.y.type and x is part.y else part.laid(x)
        return where(there, part.laid(x), x)
    if there is None and is_zeros(x):
        return no_negative_zero(part.laid(zero(x)))
    if there is None:
        return add(x, part.laid(nothing(x)))
    if part.plain():
        return where(there, add(x, part.y), x)
    return add(x, where(there, part.laid(nothing(x)), nothing(x)))


# ---- positions ----------------------------------------------------------------------------------


def positions_within(p: Var, size: Size) -> Var:
    """Positions counted from the front, and a check where they might be outside."""
    value = constant_value(p)
    if value is not None and isinstance(size, int) and (value.size == 0 or (-size <= int(value.min()) and int(value.max()) < size)):
        value = value.astype(np.int64)
        return constant(np.where(value < 0, value + size, value))
    node = p.node
    if node is not None and node.op is iota_op and p.type.shape == (size,):
        return cast(p, INT)
    return apply(within_op, p, size=size)


class _Picks:
    """What an index with positions means: a basic index first, then one position along one axis.

    ``base``: the basic index; ``axes``: those axes of its part along which positions are read, ``positions`` those;
    ``place``: where the axes of the positions stand in the result.
    """

    def __init__(self, x: Var, index: Index, operands: Sequence[Var]) -> None:
        self.base: list[Any] = []
        self.axes: list[int] = []
        self.positions: list[Var] = []
        rest, axis, size, self.place = iter(operands), 0, 0, 0
        met: list[int] = []
        advanced = ARRAY in index
        for i, entry in enumerate(index):
            pick = not isinstance(entry, tuple) and entry in (ARRAY, SCALAR)
            if pick:
                self.axes.append(axis)
                self.positions.append(next(rest))
            if advanced and not isinstance(entry, tuple) and entry != NEW:
                if not met:
                    self.place = size
                met.append(i)
            else:
                size += isinstance(entry, tuple) or entry == NEW
            self.base.append(WHOLE if pick else entry)
            axis += pick or isinstance(entry, tuple) or entry == NEW
        if met and met != list(range(met[0], met[0] + len(met))):
            self.place = 0
        if not advanced:
            self.place = self.axes[0] if self.axes else 0
        self.whole = all(e == WHOLE for e in self.base)
        self.good = not any(isinstance(e, tuple) and (SCALAR in e or not isinstance(e[2], int)) for e in index)

    def part(self, x: Var) -> Var:
        return x if self.whole else subtensor(x, tuple(self.base))

    def position(self, part: Var) -> Var:
        """The positions along all the axes as one number."""
        sizes = [part.type.shape[a] for a in self.axes]
        total = positions_within(self.positions[0], sizes[0])
        for p, n in zip(self.positions[1:], sizes[1:], strict=True):
            total = add(mul(total, _size(n)), positions_within(p, n))
        return total

    def order(self, rank: int) -> list[int]:
        """The axes of the part with those of the positions side by side."""
        first = self.axes[0]
        return [*(a for a in range(first)), *self.axes, *(a for a in range(first, rank) if a not in self.axes)]

    def joined(self, part: Var) -> Var:
        """The part with one axis in place of those of the positions."""
        first, count = self.axes[0], len(self.axes)
        moved_ = transpose(part, self.order(part.type.ndim)) if count > 1 else part
        shape = moved_.type.shape
        return reshape(moved_, [*shape[:first], dims.product(shape[first:first + count]), *shape[first + count:]]) if count > 1 else part


def _size(n: Size) -> Var:
    return constant(n, INT) if isinstance(n, int) else apply(dim_op, size=n)


def taken(x: Var, p: Var, axis: int) -> Var:
    """The parts of ``x`` at checked positions of an axis; the axes of ``p`` stand in its place."""
    shape, wide = x.type.shape, p.type.shape
    result = [*shape[:axis], *wide, *shape[axis + 1:]]
    if not wide:
        at = broadcast_to(p, [1 if a == axis else n for a, n in enumerate(shape)])
        return squeeze(apply(take_within_op, x, at, axis=axis), (axis,))
    lead = len(wide) - 1
    if lead:
        x = broadcast_to(expand_dims(x, tuple(range(axis, axis + lead))), [*shape[:axis], *wide[:-1], *shape[axis:]])
    behind = len(shape) - axis - 1
    at = expand_dims(p, tuple(range(len(wide), len(wide) + behind))) if behind else p
    return apply(take_within_op, x, broadcast_to(at, result), axis=axis + lead)


def _read(node: Node, xs: list[Var]) -> Var | None:
    picks = _Picks(xs[0], node.attrs["index"], xs[1:])
    if not picks.axes or not picks.good:
        return None
    part = picks.part(xs[0])
    p = picks.position(part)
    y = taken(picks.joined(part), p, picks.axes[0])
    return _turned(y, picks.axes[0], picks.place, p.type.ndim)


def _turned(y: Var, have: int, want: int, count: int) -> Var:
    """``count`` axes of y from ``have`` on moved so that they begin at ``want``."""
    if have == want:
        return y
    others = [a for a in range(y.type.ndim) if not have <= a < have + count]
    return transpose(y, [*others[:want], *range(have, have + count), *others[want:]])


def _written(node: Node, xs: list[Var]) -> Var | None:
    """Set or increase at positions: along one axis, in order."""
    x, y, index = xs[0], xs[1], node.attrs["index"]
    picks = _Picks(x, index, xs[2:])
    if not picks.axes or not picks.good:
        return None
    part = picks.part(x)
    p = picks.position(part)
    joined, first = picks.joined(part), picks.axes[0]
    y = _turned(y, picks.place, first, p.type.ndim)
    count = dims.product(p.type.shape)
    y = reshape(y, [*y.type.shape[:first], count, *y.type.shape[first + p.type.ndim:]])
    result = scattered(joined, y, reshape(p, [count]), first, node.op.name == "advanced_inc_subtensor")
    if len(picks.axes) > 1:
        order = picks.order(part.type.ndim)
        result = transpose(reshape(result, [part.type.shape[a] for a in order]), [order.index(a) for a in range(len(order))])
    return result if picks.whole else assigned(x, result, tuple(picks.base), (), increment=False)


def scattered(x: Var, y: Var, p: Var, axis: int, increment: bool) -> Var:
    """``x`` set or increased at checked positions; ``p`` of rank 1, or of that of ``x``."""
    dtype = x.type.dtype
    shape = [p.type.shape[0] if a == axis else n for a, n in enumerate(x.type.shape)] if p.type.ndim == 1 else p.type.shape
    if p.type.ndim == 1 and len(shape) > 1:
        p = expand_dims(p, tuple(range(1, len(shape) - axis))) if axis + 1 < len(shape) else p
        p = broadcast_to(p, shape)
    if increment and dtype.name == "bfloat16":  # added up in float32, rounded once
        wide = dtypes.DTYPES["float32"]
        return cast(apply(inc_within_op, cast(x, wide), cast(y, wide), p, axis=axis), dtype)
    return apply(inc_within_op if increment else set_within_op, x, y, p, axis=axis)


def one_of_each_row(node: Node, inputs: Sequence[Var]) -> Var | None:
    """The positions (as a column) where a node reads or increases ``x[arange(n), positions]`` of a matrix of n rows."""
    if node.op.name not in ("advanced_subtensor", "advanced_inc_subtensor") or node.attrs["index"] != (ARRAY, ARRAY):
        return None
    first, second = inputs[-2:]
    n = inputs[0].type.shape[0]
    if not is_door(n) or first.node is None or first.node.op is not iota_op or first.type.shape != (n,) or second.type.shape != (n,):
        return None
    return expand_dims(second, (1,))


def _along_axis(node: Node, xs: list[Var]) -> Var | None:
    axis = node.attrs["axis"]
    return scattered(xs[0], xs[1], positions_within(xs[2], xs[0].type.shape[axis]), axis, node.op.name == "inc_along_axis")


# ---- one after the other ------------------------------------------------------------------------


def _running(node: Node, xs: list[Var]) -> Var | None:
    x, axis, reverse = xs[0], node.attrs["axis"], node.attrs["reverse"]
    dtype = node.outputs[0].type.dtype
    wide = accumulator(dtype)
    if node.attrs.get("exclusive"):
        x = window(x, constant(1, x.type.dtype), x.type.shape, along(axis, -1 if reverse else 1, x.type.ndim))
    elif x.type.dtype == wide:
        return None
    attrs = {**node.attrs, "exclusive": False} if "exclusive" in node.attrs else dict(node.attrs)
    return cast(apply(node.op, cast(x, wide), **attrs), dtype)


def _recurrence(node: Node, xs: list[Var]) -> Var | None:
    dtype = node.outputs[0].type.dtype
    wide = accumulator(dtype)
    return None if dtype == wide else cast(apply(node.op, cast(xs[0], wide), cast(xs[1], wide), **node.attrs), dtype)


def _sum_to(node: Node, xs: list[Var]) -> Var | None:
    """First along the axes that the types say."""
    x, shape = xs[0], node.outputs[0].type.shape
    lead = x.type.ndim - len(shape)
    pairs = list(zip(x.type.shape[lead:], shape, strict=True))
    ones = tuple(k for k, (have, want) in enumerate(pairs) if have != want and dims.is_one(want))
    unknown = any(have != want and not dims.is_one(want) for have, want in pairs)
    if len(xs) > 1 or not dtypes.is_float(x.type.dtype) or not unknown or not (lead or ones):
        return None
    y = sum_(x, (*range(lead), *(lead + k for k in ones)))
    return apply(sum_to_op, expand_dims(y, ones) if ones else y, shape=shape)


def _einsum(node: Node, xs: list[Var]) -> Var | None:
    """Two factors as one (batched) matrix product."""
    terms, out = split(node.attrs["subscripts"])
    if len(terms) != 2 or is_direct(node):
        return None
    r = roles(terms[0], terms[1], out)
    sizes = label_sizes(zip(terms, (x.type.shape for x in xs), strict=True))

    def matrix(x: Var, term: str, *groups: str) -> Var:
        """The axes in this order, those of each group but the first as one."""
        own = dict(zip(term, x.type.shape, strict=True))
        if any(own[c] != sizes[c] for c in r.batch):  # equal in every call, but the types do not say so
            own.update((c, sizes[c]) for c in r.batch)
            x = broadcast_to(x, [own[c] for c in term])
        x = transpose(x, [term.index(c) for c in "".join(groups)])
        return reshape(x, [*(own[c] for c in groups[0]), *(dims.product(own[c] for c in group) for group in groups[1:])])

    each = _of_each(terms, r, sizes, dtypes.is_half(xs[0].type.dtype)) if dtypes.is_float(xs[0].type.dtype) else ""
    if each:
        r = r._replace(batch=each + r.batch, summed="".join(c for c in r.summed if c not in each))
        xs = [cast(x, accumulator(x.type.dtype)) for x in xs]
    have = r.batch + r.left + r.right
    y = apply(matmul_op, matrix(xs[0], terms[0], r.batch, r.left, r.summed), matrix(xs[1], terms[1], r.batch, r.summed, r.right))
    y = reshape(y, [sizes[c] for c in have])
    if each:
        have = have[len(each):]
        y = cast(sum_(y, tuple(range(len(each)))), node.outputs[0].type.dtype)
    return transpose(y, [have.index(c) for c in out])


def _of_each(terms: Sequence[str], r: Roles, sizes: Mapping[str, Size], half: bool) -> str:
    """The summed axes for which there is a product each, whose results are added: those in front, where to bring them to the others were to copy an operand with
    many more elements than the results have.

    The gradient of queries without the leading axes of keys: scores [a matrix, b query, c key] times keys [a, c, d].  One product over a and c wants the scores as [b, a c].
    Numbers of 16 bits are multiplied as float32, so that each product is not rounded: a copy of the other operand, which must be small beside this one.
    """
    for term, own, other in ((terms[0], r.left, r.right), (terms[1], r.right, r.left)):
        kept = dims.product(sizes[c] for c in own)
        first = min((term.index(c) for c in own), default=0)
        each = "".join(c for c in r.summed if term.index(c) < first and not dims.is_one(sizes[c]))
        rest, results = (dims.product(sizes[c] for c in labels) for labels in ([c for c in r.summed if c not in each], other))
        if not each or dims.is_one(rest) or dims.is_one(kept) or (half and not (isinstance(kept, int) and isinstance(results, int) and kept >= MANY_ROWS * results)):
            continue
        if isinstance(results, int) and (not isinstance(rest, int) or rest >= 2 * results):
            return each
    return ""


_CHANGES: dict[str, Callable[[Node, list[Var]], Var | None]] = {
    "concatenate": _concatenate, "pad": _pad, "roll": _roll, "shift": _shift, "tril": _triangle, "triu": _triangle, "eye": _eye,
    "place_diagonal": _place_diagonal, "set_subtensor": _assigned, "inc_subtensor": _assigned, "subtensor": _read, "advanced_subtensor": _read,
    "advanced_set_subtensor": _written, "advanced_inc_subtensor": _written, "set_along_axis": _along_axis, "inc_along_axis": _along_axis,
    "cumsum": _running, "cumprod": _running, "recurrence": _recurrence, "sum_to": _sum_to, "einsum": _einsum,
    **dict.fromkeys(CONVOLUTIONS, convolved), "overlap_add": overlapped,
    "max": pooled, "min": pooled,
}
#: the ops that are put into other words
MOVED = frozenset(_CHANGES)
