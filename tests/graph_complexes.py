"""The last part of the fuzzer's table: arithmetic and products of complex numbers.

``OPERATIONS`` is the whole of the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from graph_operations import operation
from graph_products import OPERATIONS

import graphc as gc

if TYPE_CHECKING:
    from graph_strategies import Builder, Value

__all__ = ["OPERATIONS"]


def _complex(b: Builder, rank: int = 0) -> Value | None:
    return b.value("c", lambda v: v.array.ndim >= rank)


@operation(4)
def complex_numbers(b: Builder) -> Any:
    """Two real values as one."""
    found = b.two("f")
    if found is None:
        return None
    a, c = found
    dtype = b.pick(["complex128", "complex64"])
    return gc.cast(a.var, dtype) + gc.cast(c.var, dtype) * b.pick([1j, 1j, -2j])


@operation(6)
def complex_arithmetic(b: Builder) -> Any:
    a = _complex(b)
    c = b.partner(a, b.pick(["c", "c", "fc", "f"])) if a is not None else None
    if a is None or c is None:
        return None
    z, w = a.var, c.var
    fn = b.pick([
        lambda: z * w, lambda: z - w * 2.0, lambda: gc.conj(z) * w, lambda: w / (gc.abs(z) + 0.5), lambda: z + 1j, lambda: gc.square(z) - z,
        lambda: gc.where(gc.isfinite(z), z, w), lambda: gc.real(z) * gc.imag(z), lambda: gc.stack([z, z * 2.0], axis=0), lambda: gc.exp(z * 0.1) * w,
    ])
    return fn()


@operation(4)
def complex_reduction(b: Builder) -> Any:
    a = _complex(b, 1)
    if a is None or not a.array.size:
        return None
    z, axis = a.var, b.pick([-1, 0, None])
    return b.pick([lambda: gc.sum(z, axis=axis), lambda: gc.mean(z, axis=axis, keepdims=True), lambda: gc.sum(gc.abs(z), axis=axis), lambda: z - gc.mean(z, axis=-1, keepdims=True)])()


@operation(5)
def complex_product(b: Builder) -> Any:
    """With its own adjoint, or with what stands around it."""
    a = _complex(b, 2)
    if a is None or a.array.size > 100:
        return None
    z = a.var
    turned = gc.swapaxes(z, -1, -2)
    way = b.source.below(6)
    if way == 0:
        return z @ turned
    if way == 1:
        return gc.conj(turned) @ z
    if way == 2:
        return z @ gc.conj(turned)
    if way == 3:
        return gc.abs(z @ (turned * 2.0))
    if way == 4:
        other = b.value("fc", lambda v: v.array.ndim >= 2 and v.array.ndim == 2 and v.shape[0] == a.shape[-1])
        return None if other is None else z @ other.var
    n = a.shape[-1]
    vector = gc.constant(np.asarray(b.array("complex128", (n,), -2, 2)))
    return z @ vector
