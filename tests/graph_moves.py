"""The second part of the fuzzer's table: movement and indexing.  graph_products.py has the third."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from graph_operations import OPERATIONS, operation

import graphc as gc

if TYPE_CHECKING:
    from graph_strategies import Builder, Value

__all__ = ["OPERATIONS"]

# ---- movement -------------------------------------------------------------------------------------


ANY = "biufc"


@operation(7, exact=True)
def move(b: Builder) -> Any:
    a = b.value(ANY)
    if a is None:
        return None
    n, x = a.array.ndim, a.var
    way = b.source.below(9)
    if way == 0:
        return x.T
    if way == 1:
        order = list(range(n))
        for i in range(n - 1, 0, -1):
            j = b.between(0, i)
            order[i], order[j] = order[j], order[i]
        return gc.transpose(x, tuple(order))
    if way == 2:
        return gc.expand_dims(x, b.between(0, n))
    if way == 3:
        return x.reshape((-1,)) if a.array.size else gc.flatten(x)
    if way == 4 and n >= 1:
        return gc.flip(x, axis=b.between(0, n - 1)) if b.chance(50) else gc.roll(x, b.between(-2, 3), axis=b.between(0, n - 1))
    if way == 5 and n >= 2:
        return gc.swapaxes(x, 0, n - 1) if b.chance(50) else gc.reshape(x, (*x.shape[1:], x.shape[0]))
    if way == 6:
        return gc.broadcast_to(x, (b.between(1, 3), *x.shape))
    if way == 7 and n >= 2:
        return gc.reshape(x, (x.shape[0], -1)) if a.shape[0] else None
    return gc.squeeze(gc.expand_dims(x, 0), 0) if n == 0 else gc.tile(x, 2) if n == 1 else gc.repeat(x, 2, axis=0)


@operation(4, exact=True)
def join(b: Builder) -> Any:
    a = b.value(ANY)
    if a is None:
        return None
    n = a.array.ndim
    if b.chance(50):
        c = b.value(ANY, lambda v: v.shape == a.shape)
        return None if c is None else gc.stack([a.var, c.var], axis=b.between(0, n))
    if not n:
        return None
    axis = b.between(0, n - 1)
    c = b.value(ANY, lambda v: v.array.ndim == n and all(s == t for i, (s, t) in enumerate(zip(v.shape, a.shape, strict=True)) if i != axis))
    return None if c is None else gc.concatenate([a.var, c.var, a.var] if b.chance(20) else [a.var, c.var], axis=axis)


@operation(2, exact=True)
def cut(b: Builder) -> Any:
    def known(v: Value) -> bool:
        return v.array.ndim > 0 and v.shape[0] >= 2
    a = b.value(ANY, known)
    return None if a is None else list(gc.split(a.var, [b.between(0, a.shape[0])], axis=0))


@operation(2, exact=True)
def fill(b: Builder) -> Any:
    """Arrays made from sizes, and parts of matrices."""
    way = b.source.below(6)
    a = b.value("fi", lambda v: v.array.ndim == 2)
    if way == 0:
        c = b.value(ANY, lambda v: v.array.ndim > 0)
        return None if c is None else gc.arange(c.var.shape[0])
    if a is None:
        return None
    if way == 1:
        return gc.eye(a.var.shape[0], a.var.shape[1], dtype=a.array.dtype)
    if way == 2:
        return gc.diag(a.var)
    if way == 3:
        return gc.zeros(a.var.shape, dtype=a.array.dtype)
    return (gc.tril if b.chance(50) else gc.triu)(a.var, b.between(-1, 1))


@operation(1, exact=True)
def pad(b: Builder) -> Any:
    a = b.value("fi", lambda v: v.array.ndim > 0 and v.array.size > 0)
    return None if a is None else gc.pad(a.var, b.between(0, 2), mode=b.pick(["constant", "edge"]))


# ---- indexing -------------------------------------------------------------------------------------


def _key(b: Builder, v: Value) -> Any:
    """A key of basic parts for a value of rank >= 1."""
    parts: list[Any] = []
    for size in v.shape[:b.between(1, v.array.ndim)]:
        way = b.source.below(7)
        if way == 0 and size:
            parts.append(b.between(-size, size - 1))
        elif way == 1:
            parts.append(slice(1, None))
        elif way == 2:
            parts.append(slice(None, None, -1))
        elif way == 3:
            parts.append(slice(b.between(-3, 2), b.between(-1, 4)))
        elif way == 4:
            parts.append(slice(None, None, 2))
        elif way == 5:
            parts.append(slice(b.between(-3, 3), None, b.pick([1, -1, 2, -2])))
        else:
            parts.append(slice(None))
    if b.chance(20):
        parts.insert(b.between(0, len(parts)), None)
    if b.chance(20) and len(parts) == v.array.ndim and None not in parts:
        parts.insert(0, Ellipsis)
    return tuple(parts)


@operation(7, exact=True)
def index(b: Builder) -> Any:
    a = b.value(ANY, lambda v: v.array.ndim > 0)
    if a is None:
        return None
    way = b.source.below(5)
    if way < 2:
        return a.var[_key(b, a)]
    axis = b.between(0, a.array.ndim - 1)
    size = a.shape[axis]
    if not size:
        return None
    if way == 2:
        return gc.take(a.var, b.positions(size, (b.between(0, 4),)), axis=axis)
    if way == 3 and a.array.ndim >= 2 and a.shape[0] and a.shape[1]:
        count = b.between(1, 3)
        return a.var[b.positions(a.shape[0], (count,)), b.positions(a.shape[1], (count,))]
    if b.chance(40):
        mask = b.value("b", lambda v: v.shape == a.shape[:1])
        if mask is not None:
            return a.var[mask.var]
    return a.var[b.positions(a.shape[0], (2, 2))] if a.shape[0] and b.chance(50) else a.var[b.positions(size, (3,))] if axis == 0 else None


@operation(2, exact=True)
def along_axis(b: Builder) -> Any:
    a = b.value(ANY, lambda v: v.array.ndim > 0 and v.array.size > 0)
    if a is None:
        return None
    axis = b.between(0, a.array.ndim - 1)
    shape = list(a.shape)
    shape[axis] = b.between(1, 3)
    return gc.take_along_axis(a.var, b.positions(a.shape[axis], tuple(shape)), axis)


@operation(1)
def assign_along_axis(b: Builder) -> Any:
    a = b.value("f", lambda v: v.array.ndim > 0 and v.array.size > 0)
    if a is None:
        return None
    axis = b.between(0, a.array.ndim - 1)
    shape = list(a.shape)
    shape[axis] = b.between(1, 3)
    part = gc.take_along_axis(a.var, b.positions(a.shape[axis], tuple(shape)), axis)
    value = part * 2.0 if b.chance(50) else 1.0
    return gc.set_subtensor(part, value) if b.chance(50) else gc.inc_subtensor(part, value)


@operation(5)
def assign(b: Builder) -> Any:
    a = b.value("fci", lambda v: v.array.ndim > 0)
    if a is None:
        return None
    if b.chance(50):
        part = a.var[_key(b, a)]
    elif a.shape[0]:
        part = a.var[b.positions(a.shape[0], (b.between(1, 4),))]
    else:
        return None
    value = b.evaluate(part)
    kinds = {"f": "iuf", "c": "iufc", "i": "i"}[a.kind]

    def fits(v: Value) -> bool:
        if a.kind == "i" and v.array.dtype.itemsize > a.array.dtype.itemsize:
            return False
        try:
            return bool(np.broadcast_shapes(v.shape, value.shape) == value.shape)
        except ValueError:
            return False
    y = b.value(kinds, fits)
    filled: Any = y.var if y is not None and b.chance(80) else b.pick([0, 1, 2])
    return gc.set_subtensor(part, filled) if b.chance(50) else gc.inc_subtensor(part, filled)
