"""What a kernel's body is made of: which nodes may stand in one, and which kind each is."""

from __future__ import annotations

from graphc import dims
from graphc.dims import Size
from graphc.ir import Node
from graphc.ops.core import constant_op, dim_op

__all__ = ["MOVES", "Shape", "is_broadcast", "is_counter", "is_gather", "is_move", "is_pointwise", "is_window", "moves_inside", "reduction_of"]

Shape = tuple[Size, ...]

#: ops that only say along which axes the loops run
MOVES = ("transpose", "expand_dims", "squeeze")


def is_gather(node: Node) -> bool:
    """One element of operand 0, which lies in memory: at a position read from operand 1, or a fixed number of steps away."""
    return node.op.name == "take_within" or is_window(node)


def is_window(node: Node) -> bool:
    """Operand 0 laid into something larger, its elements side by side as they were; operand 1 stands around it."""
    return node.op.name == "window" and all(step == 1 for step in node.attrs["steps"])


def is_counter(node: Node) -> bool:
    """What follows from the loop variables alone: ``iota`` of a size known at the door, ``inside``."""
    return (node.op.name == "iota" and not node.inputs) or node.op.name == "inside"


def is_move(node: Node) -> bool:
    """No work: an access pattern of the kernel that reads the result."""
    return node.op.name in MOVES or is_broadcast(node)


def is_pointwise(node: Node) -> bool:
    """Does each element of the result need only the elements of the operands that broadcasting puts beside it?"""
    op = node.op
    return (op.kind == "elementwise" and op.pure and len(node.outputs) == 1) or is_broadcast(node)


def is_broadcast(node: Node) -> bool:
    """``broadcast_to`` a shape known at the door: no work, an access pattern of the kernel that reads it."""
    return node.op.name == "broadcast_to" and len(node.inputs) == 1


def reduction_of(node: Node) -> tuple[Shape, tuple[int, ...]] | None:
    """The operand shape and the axes of a reduction that a kernel can hold; None for anything else."""
    if node.op.kind != "reduction" or len(node.inputs) != 1 or len(node.outputs) != 1:
        return None
    source, result = node.inputs[0].type.shape, node.outputs[0].type.shape
    axes = node.attrs.get("axis", node.attrs.get("axes"))
    if isinstance(axes, int):
        axes = (axes,)
    if axes is None and node.op.name == "sum_to":
        axes = _summed_axes(source, result)
    if not isinstance(axes, tuple) or not all(isinstance(a, int) and 0 <= a < len(source) for a in axes):
        return None
    dropped = tuple(s for i, s in enumerate(source) if i not in axes)
    kept = tuple(1 if i in axes else s for i, s in enumerate(source))
    return (source, axes) if result in (dropped, kept) else None


def _summed_axes(source: Shape, result: Shape) -> tuple[int, ...] | None:
    """The axes that ``sum_to`` sums, where the types say so."""
    lead = len(source) - len(result)
    axes = list(range(lead))
    for i, (have, want) in enumerate(zip(source[lead:], result, strict=True)):
        if dims.is_one(want) and have != want:
            axes.append(lead + i)
        elif have != want:
            return None
    if lead and len(axes) != lead:
        return None  # some axes dropped, others kept: not one reduction of NumPy's
    return tuple(axes)


def moves_inside(node: Node | None) -> bool:
    """Constants of one element and size formulas are no operands of a kernel: its body holds them."""
    return node is not None and (node.op is dim_op or (node.op is constant_op and node.attrs["value"].size == 1))
