"""What the generated NumPy source calls that NumPy does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Dim, Symbol
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Type, normal

#: fewer elements are chosen by ``np.where``
FEW = 1024
_BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def select(condition: Array, a: Array, b: Array, out: Array) -> Array:
    """``np.where`` into ``out``, which may be ``a`` or ``b``.

    ``np.where`` branches at every element, which costs ten times as much as arithmetic where the
    condition is random.  Here the bits are chosen by arithmetic: ((a ^ b) * c) ^ b, exact for any value.
    """
    if out.size < FEW or a is b:
        np.copyto(out, np.where(condition, a, b))
        return out
    bits = _BITS[out.itemsize]
    x, y, result = a.view(bits), b.view(bits), out.view(bits)
    if np.may_share_memory(out, b):
        condition, x, y = np.logical_not(condition), y, x
    if y.ndim == 0 and y == 0:
        np.multiply(x, condition, out=result)
        return out
    np.bitwise_xor(x, y, out=result)
    np.multiply(result, condition, out=result)
    np.bitwise_xor(result, y, out=result)
    return out


class Foreign:
    """Calls code that graphc did not write, checks what it gives, and makes its results memory of their own."""

    def __init__(self, node: Node) -> None:
        self.node, self.op = node, node.op

    def __call__(self, *operands: Array, **attrs: Any) -> Any:
        node = self.node
        results = [np.asarray(r) for r in normal(self.op.forward(*operands, **attrs))]
        if len(results) != len(node.outputs):
            raise GraphcTypeError(f"{self.op.name}.forward gave {len(results)} result(s) where infer gives {len(node.outputs)}")
        env: dict[Symbol, int] = {}
        for a, v in zip(operands, node.inputs, strict=True):
            env.update((size.symbol, n) for size, n in zip(v.type.shape, a.shape, strict=True) if isinstance(size, Dim) and size.symbol)
        for k, (value, v) in enumerate(zip(results, node.outputs, strict=True)):
            if value.dtype != v.type.dtype or value.ndim != v.type.ndim:
                raise GraphcTypeError(f"{self.op.name}.forward gave {value.dtype}{list(value.shape)} where infer says {v.type}")
            _check_shape(self.op, value, v.type, env)
            if any(np.may_share_memory(value, a) for a in operands):
                results[k] = value.copy()
        return results[0] if len(results) == 1 else results


def _check_shape(op: Op, value: Array, type: Type, env: Mapping[Symbol, int]) -> None:
    for axis, (size, have) in enumerate(zip(type.shape, value.shape, strict=True)):
        if isinstance(size, Dim):
            if any(s not in env for s in dims.symbols(size)):
                continue
            size = dims.evaluate(size, env)
        if size != have:
            raise GraphcValueError(f"{op.name}.forward gave shape {value.shape} where infer says {type}: axis {axis} has size {have}, not {size}")


__all__ = ["FEW", "Foreign", "select"]
