"""``expand``: ops that are several loops become those loops, so that ``fuse`` can join them with what is around.

What it promises: the same values as the ops' ``forward``, computed in the same way:

    logsumexp(x)               log(sum(exp(x - top))) + top       top: the maximum, moved into the finite numbers
    softmax(x)                 e / sum(e)                         e = exp(x - top)
    log_softmax(x)             d - log(sum(exp(d)))               d = x - top
    take_along_axis(x, p)      take_within(x, within(p))          the check apart from the reading; one position of an
                                                                  elementwise result is computed from those of its operands
    matmul(a, b)               sum(a * b^T), sum(a^T * b), a * b  where b is one column, a one row, or each has one number to add up
    inc_along_axis(0, y, p)    where(iota == within(p), y, 0)     where p has one position along the axis; its sum along it is y

Half precisions are computed in float32 and rounded once.  For backends that run kernels, what moves elements, sets parts or
reads at positions is put into other words too: passes/moving.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Var, apply, make_node, rebuild
from graphc.ops.arithmetic import add, div, mul, sub, where
from graphc.ops.choosing import clip
from graphc.ops.comparison import equal
from graphc.ops.contraction import swapped
from graphc.ops.core import cast, constant, is_door
from graphc.ops.creation import iota_op
from graphc.ops.cumulative import accumulator
from graphc.ops.gathering import take_within_op
from graphc.ops.movement import expand_dims, squeeze
from graphc.ops.reduction import sum as sum_
from graphc.ops.softmaxes import peak_op
from graphc.ops.transcendental import exp, log
from graphc.passes.bodies import is_broadcast, is_pointwise
from graphc.passes.context import Context, Rewrite
from graphc.passes.lifting import lifted
from graphc.passes.merge import merge
from graphc.passes.moving import MOVED, is_zeros, moved, no_negative_zero, one_of_each_row, positions_within
from graphc.passes.native import is_native
from graphc.passes.sinking import sunk

__all__ = ["expand"]

SOFTMAXES = ("logsumexp", "softmax", "log_softmax")
POSITIONS = ("take_along_axis", "inc_along_axis")
#: elementwise results above an operand through which a reading of one position goes
DEPTH = 4
#: bytes of a vector that stays in the first cache beside what is read
FIRST_CACHE = 1 << 14
#: bytes of a page, and of a matrix that no cache holds
PAGE, LAST_CACHE = 4096, 8 << 20


def expand(graph: Graph, context: Context) -> Graph:
    """Softmaxes and positions as loops; see the module's docstring."""
    names = {*SOFTMAXES, *POSITIONS, *((*MOVED, "matmul") if context.native else ())}
    if not any(node.op.name in names for node in graph.nodes):
        return graph

    joining = {v for node in graph.nodes if is_native(node) for v in node.inputs} if context.native else set()
    single: dict[Var, tuple[Var, int]] = {}  # arrays with one value in each row: the values, and along which axis

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        y: Var | None = None
        with on_behalf_of(node.origin.by("expand")):
            if node.op.name in SOFTMAXES:
                y = cast(_expanded(node, inputs[0]), node.outputs[0].type.dtype)
            elif node.op.name == "take_along_axis":
                y = _taken(inputs[0], inputs[1], node.attrs["axis"])
            elif node.op.name == "inc_along_axis":
                y = _one_hot(inputs[0], inputs[1], inputs[2], node.attrs["axis"])
                if y is not None:
                    single[y] = (inputs[1], node.attrs["axis"])
            elif node.op.name == "matmul" and context.native:
                y = _thin(*inputs)
            elif node.op.name == "sum" and inputs[0] in single and node.attrs["axis"] == (single[inputs[0]][1],):
                value, axis = single[inputs[0]]
                y = no_negative_zero(value)
                y = y if node.attrs["keepdims"] else squeeze(y, (axis,))
            elif context.native and (rows := one_of_each_row(node, inputs)) is not None:  # x[arange(n), p]
                if node.op.name == "advanced_subtensor":
                    taken = _taken(inputs[0], rows, 1)
                    y = squeeze(taken, (1,)) if taken is not None else None
                else:
                    value = expand_dims(inputs[1], (1,))
                    y = _one_hot(inputs[0], value, rows, 1)
                    if y is not None:
                        single[y] = (value, 1)
            if y is None and context.native:
                y = moved(node, inputs, any(v in joining for v in node.outputs))
        if y is None or y.type != node.outputs[0].type:
            return None
        context.log.append(Rewrite("expand", node.outputs[0], y))
        return [y]

    graph = graph.with_roots(rebuild(graph.roots, {}, visit=visit))
    return merge(lifted(sunk(graph)) if context.native else graph, context)


def _taken(x: Var, p: Var, axis: int) -> Var | None:
    n = x.type.shape[axis]
    if not is_door(n) or p.type.ndim == 0:
        return None
    positions = positions_within(p, n)
    if dims.is_one(p.type.shape[axis]):
        lifted = _lifted(x, positions, axis, DEPTH)
        if lifted is not None:
            return lifted
    return apply(take_within_op, x, positions, axis=axis)


def _lifted(x: Var, positions: Var, axis: int, depth: int) -> Var | None:
    """One position of ``x`` along ``axis``, computed from its operands' at that position; None where that would read smaller operands."""
    if dims.is_one(x.type.shape[axis]):
        return x
    node = x.node
    if node is not None and depth and is_pointwise(node) and is_native(node) and not is_broadcast(node) and node.op.pure:
        operands: list[Var] = []
        for v in node.inputs:
            missing = x.type.ndim - v.type.ndim
            if axis < missing or dims.is_one(v.type.shape[axis - missing]):
                operands.append(v)
                continue
            if v.type.shape[axis - missing] != x.type.shape[axis]:
                return None  # it may have size 1 in a call, and no other position
            part = _lifted(expand_dims(v, tuple(range(missing))) if missing else v, positions, axis, depth - 1)
            if part is None:
                return None
            operands.append(part)
        return make_node(node.op, operands, node.attrs).outputs[0]
    rest = [(a, b) for i, (a, b) in enumerate(zip(x.type.shape, positions.type.shape, strict=True)) if i != axis]
    return apply(take_within_op, x, positions, axis=axis) if all(a == b or dims.is_one(a) for a, b in rest) else None


def _one_hot(x: Var, y: Var, p: Var, axis: int) -> Var | None:
    """Zeros but for one position of each row."""
    base = x.node
    n = x.type.shape[axis]
    if base is None or not is_broadcast(base) or not is_door(n) or not dims.is_one(p.type.shape[axis]) or x.type.dtype.kind == "b":
        return None
    if not is_zeros(x):
        return None
    if any(a != b for i, (a, b) in enumerate(zip(x.type.shape, p.type.shape, strict=True)) if i != axis):
        return None
    places = apply(iota_op, shape=(n,), dtype=np.dtype(np.int64))
    behind = x.type.ndim - axis - 1
    if behind:
        places = expand_dims(places, tuple(range(1, 1 + behind)))
    zero = constant(0, x.type.dtype)
    return where(equal(places, positions_within(p, n)), no_negative_zero(y), zero)


def _thin(a: Var, b: Var) -> Var | None:
    """A product with a vector as a loop: it reads the matrix once, with all that goes on around; None for others.  Not for dtypes that
    products add up in wider ones."""
    if a.type.dtype.name not in ("float32", "float64") or a.type.shape[:-2] != b.type.shape[:-2]:
        return None
    (m, k), n = a.type.shape[-2:], b.type.shape[-1]
    if k == 1:
        return mul(a, b)
    if n == 1 and (_tall(k, m) if _turned(a) else _near(k, a)):
        return sum_(mul(a, swapped(b)), -1, keepdims=True)
    if m == 1 and n != 1 and (_near(k, b) if _turned(b) else _tall(k, n) and not _far(k, n, b)):
        return sum_(mul(swapped(a), b), -2, keepdims=True)
    return None


def _turned(x: Var) -> bool:
    """Is it a matrix read the other way round?"""
    return x.node is not None and x.node.op.name == "transpose" and x.node.attrs["axes"][-2:] == (x.type.ndim - 1, x.type.ndim - 2)


def _near(k: Size, x: Var) -> bool:
    """Does a vector of so many stay in the first cache, whose rows are multiplied by it one by one?"""
    return not isinstance(k, int) or k * x.type.dtype.itemsize <= FIRST_CACHE


def _tall(rows: Size, columns: Size) -> bool:
    """Does a sum over rows fill vectors, and is there more to add up than to write?  (Else a product does better.)"""
    return not isinstance(columns, int) or (columns >= 16 and (not isinstance(rows, int) or 8 * rows >= columns))


def _far(rows: Size, columns: Size, x: Var) -> bool:
    """Does a matrix come from memory, each row from other pages?  Products read several rows side by side."""
    if not isinstance(rows, int) or not isinstance(columns, int):
        return False
    return columns * x.type.dtype.itemsize >= 4 * PAGE and rows * columns * x.type.dtype.itemsize > LAST_CACHE


def _expanded(node: Node, x: Var) -> Var:
    axis = node.attrs["axis"]
    x = cast(x, accumulator(x.type.dtype))
    largest = float(np.finfo(x.type.dtype).max)
    top = apply(peak_op, x, axis=axis, keepdims=True)
    top = clip(top, constant(-largest, x.type.dtype), constant(largest, x.type.dtype))
    d = sub(x, top)
    e = exp(d)
    total = sum_(e, axis, keepdims=True)
    if node.op.name == "softmax":
        return div(e, total)
    if node.op.name == "log_softmax":
        return sub(d, log(total))
    y = add(log(total), top)
    return y if node.attrs["keepdims"] else squeeze(y, axis)
