"""Complex numbers as pairs of real ones, as kernels compute with them.  Made by the pass ``complexes`` for native backends.

    complex_of(re, im)      the complex numbers with these parts
    view_as_real(z)         the parts side by side, along one more axis of size 2: what is in memory
    view_as_complex(x)      the other way round
    sifted_product(y, ...)  y, which is an ordinary product, where ``sifted_matmul`` is one

The parts of a complex value are ``real`` and ``imag`` (arithmetic.py).  These ops come after the gradient, so they have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Array, Node, Op, Relation, Type, Var
from graphc.ops.broadcasting import broadcast_relations, broadcast_shapes
from graphc.ops.contraction import sifted_matmul_op
from graphc.ops.example import Example

__all__ = ["OPS", "complex_of_op", "sifted_product_op", "view_as_complex_op", "view_as_real_op"]


class _Made(Op):
    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [None] * len(inputs)

    def connected(self, position: int, node: Node) -> bool:
        return False


class ComplexOf(_Made):
    """``complex_of(re, im)``: re + i im, no part of which is computed with."""

    name = "complex_of"
    kind = "elementwise"
    flops = 0.0
    examples = (
        Example([(2, 3), (2, 3)], gradient=False, numpy=lambda a, b: a + 1j * b),
        Example([(2, 1), (3,)], {}, "float32", gradient=False, numpy=lambda a, b: (a + 1j * b).astype("c8")),
    )

    def infer(self, re: Type, im: Type) -> Type:  # type: ignore[override]
        if re.dtype != im.dtype:
            raise GraphcTypeError(f"parts of one dtype expected; got {re.dtype} and {im.dtype}")
        return Type(dtypes.complex_of(re.dtype), broadcast_shapes(re.shape, im.shape))

    def forward(self, re: Array, im: Array) -> Array:  # type: ignore[override]
        found = np.empty(np.broadcast_shapes(re.shape, im.shape), dtypes.complex_of(re.dtype))
        found.real, found.imag = re, im
        return found

    def relations(self, types: Sequence[Type], attrs: Any) -> Iterable[Relation]:
        return broadcast_relations([t.shape for t in types])


class ViewAsReal(_Made):
    """``view_as_real(z)``: real and imaginary part along a last axis of size 2."""

    name = "view_as_real"
    kind = "movement"
    view = True
    flops = 0.0
    examples = (
        Example([(2, 3)], {}, "complex128", gradient=False, numpy=lambda z: np.stack([z.real, z.imag], -1)),
        Example([()], {}, "complex64", gradient=False, numpy=lambda z: np.array([z.real, z.imag])),
    )

    def infer(self, z: Type) -> Type:  # type: ignore[override]
        if not dtypes.is_complex(z.dtype):
            raise GraphcTypeError(f"complex numbers expected; got {z.dtype}")
        return Type(dtypes.real_of(z.dtype), (*z.shape, 2))

    def forward(self, z: Array) -> Array:  # type: ignore[override]
        return np.stack([z.real, z.imag], -1)


class ViewAsComplex(_Made):
    """``view_as_complex(x)``: the last axis, of size 2, as the parts of complex numbers."""

    name = "view_as_complex"
    kind = "movement"
    view = True
    flops = 0.0
    examples = (
        Example([(3, 2)], gradient=False, numpy=lambda x: x[:, 0] + 1j * x[:, 1]),
        Example([(2,)], {}, "float32", gradient=False, numpy=lambda x: np.complex64(x[0] + 1j * x[1])),
    )

    def infer(self, x: Type) -> Type:  # type: ignore[override]
        if x.ndim == 0 or (isinstance(x.shape[-1], int) and x.shape[-1] != 2):
            raise GraphcTypeError(f"a last axis of size 2 expected; got {x}")
        return Type(dtypes.complex_of(x.dtype), x.shape[:-1])

    def forward(self, x: Array) -> Array:  # type: ignore[override]
        return complex_of_op.forward(x[..., 0], x[..., 1])


class SiftedProduct(_Made):
    """``sifted_product(y, a, b; zeros, conjugates)``: ``sifted_matmul`` of ``a`` and ``b`` or their conjugates, which is ``y`` if that is finite."""

    name = "sifted_product"
    kind = "contraction"
    view = True
    examples = (
        Example([(3, 2), (3, 4), (4, 2)], {"zeros": 0, "conjugates": (False, False)}, "complex128", gradient=False,
                numpy=lambda y, a, b: y),
    )

    def infer(self, y: Type, a: Type, b: Type, *, zeros: int, conjugates: tuple[bool, bool]) -> Type:  # type: ignore[override]
        return y

    def forward(self, y: Array, a: Array, b: Array, *, zeros: int, conjugates: tuple[bool, bool]) -> Array:  # type: ignore[override]
        if np.isfinite(y).all():
            return y
        a, b = (np.conj(x) if turned else x for x, turned in zip((a, b), conjugates, strict=True))
        return sifted_matmul_op.forward(a, b, zeros=zeros)


complex_of_op, view_as_real_op, view_as_complex_op, sifted_product_op = ComplexOf(), ViewAsReal(), ViewAsComplex(), SiftedProduct()
OPS: tuple[Op, ...] = (complex_of_op, view_as_real_op, view_as_complex_op, sifted_product_op)
