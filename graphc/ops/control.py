"""``fused``: nodes that one kernel computes, as a closed inner graph.  Made by ``passes/fuse.py``."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.errors import GraphcTypeError
from graphc.ir import Array, BoundGraph, Graph, Op, Type, Var, rebuild
from graphc.ops.evaluate import evaluate_bound


class Fused(Op):
    """``fused(*operands; body, kind)``: the results of ``body``, computed in one go.

    ``kind`` is "elementwise" (every value of the body lies in one iteration space or is broadcast into
    it) or "reduction" (elementwise prologue, reductions of one operand shape along the same axes,
    elementwise epilogue on the reduced shape).  The kernel's name is that of the body.
    """

    name = "fused"
    kind = "control"
    nout = -1

    def infer(self, *types: Type, body: Graph, kind: str) -> list[Type]:  # type: ignore[override]
        if kind not in ("elementwise", "reduction"):
            raise GraphcTypeError(f"a fused kernel is 'elementwise' or 'reduction'; got {kind!r}")
        if len(types) != len(body.inputs):
            raise GraphcTypeError(f"the body {body.name} takes {len(body.inputs)} operand(s); got {len(types)}")
        for have, want in zip(types, body.inputs, strict=True):
            if not _fits(have, want.type):
                raise GraphcTypeError(f"an operand of type {have} where the body {body.name} has {want.type}")
        return [v.type for v in body.outputs]

    def forward(self, *arrays: Array, body: BoundGraph, kind: str) -> list[Array]:  # type: ignore[override]
        return evaluate_bound(body, arrays)


def _fits(have: Type, want: Type) -> bool:
    """Sizes are compared where both are numbers: formulas may be spelled differently inside and outside."""
    return have == want or (have.dtype == want.dtype and have.ndim == want.ndim and all(
        a == b for a, b in zip(have.shape, want.shape, strict=True) if isinstance(a, int) and isinstance(b, int)))


def inline(body: Graph, operands: Sequence[Var]) -> list[Var]:
    """The outputs of ``body`` as expressions of the operands: a fused node taken apart again."""
    return rebuild(body.outputs, dict(zip(body.inputs, operands, strict=True)))


fused_op = Fused()
OPS: tuple[Op, ...] = (fused_op,)

__all__ = ["OPS", "Fused", "fused_op", "inline"]
