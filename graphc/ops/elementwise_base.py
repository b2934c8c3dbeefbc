"""``Elementwise``: an op that works on one element of each operand at a time, and its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.broadcasting import broadcast_relations, broadcast_shapes, sum_to
from graphc.ops.core import promote

#: gradient of one operand: (cotangent, result, *operands) -> expression of the result's shape; None: not connected
Grad = Callable[..., Any] | None

_KINDS = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "float", "c": "complex"}


class Elementwise(Op):
    """One record of the table in ``ops/elementwise*.py``; calling it builds a node.

    Args:
        name: the op's name in dumps.
        fn: NumPy meaning: (*arrays of one dtype) -> array.  Called with warnings off.
        grads: per operand, ``lambda g, y, *xs: ...`` in the words of the user's language; None where
            no derivative flows.  Cotangents are conjugate-linear: for complex operands use ``conj``.
        accepts: kinds of dtype ("biufc") that the op takes after promotion.
        result: "same" (as the operands), "bool", or "real" (the real part's dtype).
        floating: integers and bools are converted to float64 first (exp, divide).
        counting: bools are converted to int8 first, as NumPy does (floor division, powers, shifts).
        domain: an interval from which tests draw real operands; one pair or one per operand.
        analytic: may be tested by the complex step.
        scalar: how a backend computes one element: the LLVM backend's key; the op's name by default.
        ufunc: the NumPy expression that the source backend prints (it takes ``out=`` where it is a ufunc); None: it
            calls ``forward``.
        nin: the number of operands, where there are no ``grads`` to count.
        doc: what the op computes, for the tables of the manual.
        facts: see ``Op``.
    """

    kind = "elementwise"

    def __init__(self, name: str, fn: Callable[..., Any], grads: Sequence[Grad] = (), *, accepts: str = "biufc",
                 result: str = "same", floating: bool = False, counting: bool = False, domain: Any = (-3.0, 3.0), analytic: bool = False,
                 ufunc: str | None = None, scalar: str | None = None, nin: int | None = None, flops: float = 1.0, doc: str = "",
                 **facts: Any) -> None:
        self.name, self.fn, self.grads, self.accepts, self.result = name, fn, tuple(grads), accepts, result
        self.nin = len(self.grads) if nin is None else nin
        self.floating, self.counting, self.domain, self.analytic = floating, counting, domain, analytic
        self.ufunc, self.scalar, self.flops = ufunc, scalar or name, flops
        self.__doc__ = doc
        for fact, value in facts.items():
            if not hasattr(Op, fact):
                raise AssertionError(f"op {name}: unknown fact {fact!r}")
            setattr(self, fact, value)

    def __call__(self, *operands: Any) -> Var:
        vs = self.promoted(operands)
        return apply(self, *vs)

    def promoted(self, operands: Sequence[Any]) -> list[Var]:
        """Operands of one dtype that the op accepts."""
        if len(operands) != self.nin:
            raise GraphcTypeError(f"{self.name} takes {self.nin} operand(s); got {len(operands)}")
        vs = promote(*operands)
        common = vs[0].type.dtype
        if self.floating and not dtypes.is_inexact(common):
            vs = promote(*operands, least=dtypes.DTYPES["float64"])
        elif self.counting and dtypes.is_bool(common):
            vs = promote(*operands, least=dtypes.DTYPES["int8"])
        return vs

    def infer(self, *types: Type, **attrs: Any) -> Type:
        if len(types) != self.nin:
            raise GraphcTypeError(f"takes {self.nin} operand(s); got {len(types)}")
        dtype = self.operand_dtype(types)
        if self.result == "bool":
            dtype = dtypes.DTYPES["bool"]
        elif self.result == "real":
            dtype = dtypes.real_of(dtype)
        shape = types[0].shape if len(types) == 1 else broadcast_shapes(*(t.shape for t in types))
        return Type(dtype, shape)

    def operand_dtype(self, types: Sequence[Type]) -> np.dtype[Any]:
        """The one dtype of the operands; GraphcTypeError if they differ or the op does not take it."""
        dtype = types[0].dtype
        if any(t.dtype != dtype for t in types):
            raise GraphcTypeError(f"operands of one dtype expected; got {', '.join(str(t.dtype) for t in types)}")
        kind = "f" if dtypes.is_float(dtype) else dtype.kind
        if kind not in self.accepts:
            takes = ", ".join(_KINDS[k] for k in self.accepts)
            raise GraphcTypeError(f"does not take {dtype} (it takes {takes})")
        return dtype

    def forward(self, *arrays: Array, **attrs: Any) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self.fn(*arrays, **attrs))

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        grad = self.grads[position] if self.grads else None
        if grad is None:
            return None
        full = grad(cotangents[0], outputs[0], *inputs)
        return None if full is None else sum_to(full, inputs[position])

    def differentiable(self) -> bool:
        return bool(self.grads)

    def connected(self, position: int, node: Node) -> bool:
        return (bool(self.grads) and self.grads[position] is not None and dtypes.is_inexact(node.inputs[position].type.dtype)
                and dtypes.is_inexact(node.outputs[0].type.dtype))

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        return broadcast_relations([t.shape for t in types]) if len(types) > 1 else ()


def half_in_single(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` of several steps, for float16 and bfloat16 computed in float32 and rounded once."""
    def wrapped(*arrays: Array) -> Any:
        dtype = arrays[0].dtype
        if dtype.itemsize == 2 and dtypes.is_float(dtype):
            return np.asarray(fn(*(a.astype(np.float32) for a in arrays))).astype(dtype)
        return fn(*arrays)
    return wrapped
