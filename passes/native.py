"""Which nodes a kernel can compute: what ``fuse`` may take into one, and ``lower`` turn into one."""

from __future__ import annotations

from graphc import dtypes
from graphc.ir import Node
from graphc.ops.complexes import complex_of_op
from graphc.passes.bodies import is_counter, is_gather

__all__ = ["is_native"]

#: elementwise ops that have no native form
FOREIGN = frozenset({"polygamma", "nextafter", "conj", "real", "imag", "complex_of"})
REDUCTIONS = frozenset({"sum", "prod", "max", "min", "all", "any", "argmax", "argmin", "sum_to", "peak"})
MOVES = frozenset({"broadcast_to", "transpose", "expand_dims", "squeeze"})


def is_native(node: Node) -> bool:
    """Is there native code for the op and its dtypes?  (Complex numbers have none, but that their parts are put together.)"""
    op = node.op
    if op is complex_of_op:
        return True
    if any(dtypes.is_complex(v.type.dtype) for v in (*node.inputs, *node.outputs)):
        return False
    if op.kind == "elementwise":
        return op.pure and op.name not in FOREIGN and type(op).__module__.startswith("graphc.ops")
    if op.kind == "reduction":
        return op.name in REDUCTIONS
    return op.name in MOVES or is_gather(node) or is_counter(node)
