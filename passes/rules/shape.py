"""Rules of shape: reshapes, transpositions, axes, broadcasting, sizes.

All are exact: elements move or stay, none is computed.  A size is "known" if its formula is:
that of a size operand is found by ``dim_of``, also where a node finds it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcError, GraphcValueError
from graphc.ir import Node, Type, Var, apply
from graphc.ops.arithmetic import add, mul, neg
from graphc.ops.broadcasting import broadcast_shapes, broadcast_to, broadcast_to_op, sum_to_op
from graphc.ops.core import cast, constant, dim_of, dim_op, is_door, size_of_op
from graphc.ops.creation import eye_op, iota_op
from graphc.ops.joining import concatenate_op
from graphc.ops.movement import expand_dims, expand_dims_op, reshape_op, squeeze, transpose, transpose_op
from graphc.ops.reduction import sum as sum_
from graphc.ops.transcendental import exp
from graphc.passes.constants import uniform
from graphc.passes.pattern import Result, Rule


def _leaf(*shape: Any, dtype: str = "float64") -> Var:
    """A leaf for the examples below; a str is a named size, None one that a node finds out."""
    return Var(Type(dtypes.DTYPES[dtype], tuple(dims.fresh("data") if s is None else dims.as_size(s) for s in shape)))


def _inner(node: Node) -> Node:
    inner = node.inputs[0].node
    assert inner is not None
    return inner


def target_shape(node: Node) -> list[Size | None]:
    """The shape that a sized node makes, with the formulas of its size operands; None where there is no formula."""
    rest = iter(node.inputs[len(node.inputs) - sum(s is None for s in node.attrs["shape"]):])
    return [dim_of(next(rest)) if s is None else s for s in node.attrs["shape"]]


# ---- reshape, transpose, axes of size 1 ----------------------------------------------------------


def _reshape_reshape(node: Node) -> Result:
    x, result = _inner(node).inputs[0], node.outputs[0].type.shape
    shape = tuple(size if given is not None and is_door(size) else given for size, given in zip(result, node.attrs["shape"], strict=True))
    return apply(reshape_op, x, *node.inputs[1:], shape=shape)


def _reshape_same(node: Node) -> Result:
    x = node.inputs[0]
    if -1 in node.attrs["shape"]:
        return x if x.type.shape == node.outputs[0].type.shape else None
    return x if list(x.type.shape) == target_shape(node) else None


def _reshape_ones(node: Node) -> Result:
    have, want = node.inputs[0].type.shape, node.outputs[0].type.shape
    if [s for s in have if not dims.is_one(s)] != [s for s in want if not dims.is_one(s)]:
        return None
    if not any(map(dims.is_one, have)):
        return expand_dims(node.inputs[0], tuple(i for i, s in enumerate(want) if dims.is_one(s)))
    if not any(map(dims.is_one, want)):
        return squeeze(node.inputs[0], tuple(i for i, s in enumerate(have) if dims.is_one(s)))
    return "axes of size 1 come and go"


def _transpose_transpose(node: Node) -> Result:
    inner = _inner(node)
    return transpose(inner.inputs[0], tuple(inner.attrs["axes"][a] for a in node.attrs["axes"]))


def _squeeze_expand(node: Node) -> Result:
    inner = _inner(node)
    made, gone = inner.attrs["axes"], node.attrs["axes"]
    if not set(gone) <= set(made):
        return "it removes axes that were there before"
    kept = tuple(a - sum(b < a for b in gone) for a in made if a not in gone)
    return expand_dims(inner.inputs[0], kept) if kept else inner.inputs[0]


def _expand_squeeze(node: Node) -> Result:
    x = _inner(node).inputs[0]
    return x if x.type.shape == node.outputs[0].type.shape else None


def _expand_expand(node: Node) -> Result:
    inner = _inner(node)
    outer = set(node.attrs["axes"])
    places = [i for i in range(node.outputs[0].type.ndim) if i not in outer]  # where the axes of the inner result go
    return expand_dims(inner.inputs[0], tuple(sorted(outer | {places[a] for a in inner.attrs["axes"]})))


def _squeeze_squeeze(node: Node) -> Result:
    inner = _inner(node)
    kept = [i for i in range(inner.inputs[0].type.ndim) if i not in inner.attrs["axes"]]
    return squeeze(inner.inputs[0], tuple(sorted((*inner.attrs["axes"], *(kept[a] for a in node.attrs["axes"])))))


def _concatenate_one(node: Node) -> Result:
    return node.inputs[0] if len(node.inputs) == 1 else None


VIEWS = (
    Rule("reshape_same", root=("reshape",), fn=_reshape_same, same_sizes=True, note="a reshape to the shape that it has",
         examples=(lambda: apply(reshape_op, _leaf("n", 2), shape=(dims.dim("n"), 2)),)),
    Rule("reshape_reshape", root=("reshape",), over=("reshape",), fn=_reshape_reshape, same_sizes=True, note="only the last shape counts",
         examples=(lambda: apply(reshape_op, apply(reshape_op, _leaf(2, 6), shape=(12,)), shape=(3, 4)),
                   lambda: apply(reshape_op, apply(reshape_op, _leaf("n", 4), shape=(dims.dim("n") * 4,)), shape=(2, -1)))),
    Rule("reshape_ones", root=("reshape",), fn=_reshape_ones, same_sizes=True, note="a reshape that only adds or removes axes of size 1 says so",
         examples=(lambda: apply(reshape_op, _leaf("n"), shape=(dims.dim("n"), 1)), lambda: apply(reshape_op, _leaf(1, 3, 1), shape=(3,)))),
    Rule("transpose_same", root=("transpose",), fn=lambda n: n.inputs[0] if n.attrs["axes"] == tuple(range(n.inputs[0].type.ndim)) else None,
         note="axes in the order that they have", examples=(lambda: apply(transpose_op, _leaf(2, 3), axes=(0, 1)),)),
    Rule("transpose_transpose", root=("transpose",), over=("transpose",), fn=_transpose_transpose, note="one permutation after another is one",
         examples=(lambda: transpose(transpose(_leaf(2, 3, 4), (1, 2, 0)), (1, 0, 2)), lambda: transpose(transpose(_leaf(2, 3))))),
    Rule("squeeze_expand_dims", root=("squeeze",), over=("expand_dims",), fn=_squeeze_expand, note="axes made and removed",
         examples=(lambda: squeeze(expand_dims(_leaf(2), (1,)), (1,)), lambda: squeeze(expand_dims(_leaf(2), (0, 2)), (0,)))),
    Rule("expand_dims_squeeze", root=("expand_dims",), over=("squeeze",), fn=_expand_squeeze, note="axes removed and made again",
         examples=(lambda: expand_dims(squeeze(_leaf(2, 1), (1,)), (1,)),)),
    Rule("expand_dims_expand_dims", root=("expand_dims",), over=("expand_dims",), fn=_expand_expand, note="all new axes at once",
         examples=(lambda: expand_dims(expand_dims(_leaf(2, 3), (1,)), (0, 3)),)),
    Rule("squeeze_squeeze", root=("squeeze",), over=("squeeze",), fn=_squeeze_squeeze, note="all axes that go at once",
         examples=(lambda: squeeze(squeeze(_leaf(1, 2, 1, 1), (2,)), (0, 2)),)),
    Rule("concatenate_one", root=("concatenate",), fn=_concatenate_one, note="nothing is joined",
         examples=(lambda: apply(concatenate_op, _leaf(3), axis=0),)),
)

# ---- broadcasting --------------------------------------------------------------------------------


def _broadcast_same(node: Node) -> Result:
    return node.inputs[0] if list(node.inputs[0].type.shape) == target_shape(node) else None


def _broadcast_through(node: Node) -> Result:
    """A broadcast of a broadcast, or of a value with new leading axes: broadcasting makes those itself."""
    inner = _inner(node)
    if inner.op is expand_dims_op and inner.attrs["axes"] != tuple(range(len(inner.attrs["axes"]))):
        return "the new axes are not the first ones"
    return apply(broadcast_to_op, inner.inputs[0], *node.inputs[1:], **node.attrs)


def _drop_broadcast(node: Node) -> Result:
    """x + broadcast_to(y, shape of x) = x + y: elementwise ops broadcast their operands anyway."""
    if len(node.inputs) < 2:
        return None
    shapes: list[Sequence[Size]] = []
    places: list[int] = []
    for i, v in enumerate(node.inputs):
        shape: Sequence[Size | None] = v.type.shape
        if v.node is not None and v.node.op is broadcast_to_op:
            shape = target_shape(v.node)
            places.append(i)
        if any(s is None for s in shape):
            shapes.append(v.type.shape)
            places = [p for p in places if p != i]
        else:
            shapes.append([s for s in shape if s is not None])
    operands = list(node.inputs)
    full = _broadcast(shapes)
    for place in places:
        maker = operands[place].node
        assert maker is not None
        bare = [*shapes]
        bare[place] = maker.inputs[0].type.shape
        if full is not None and _broadcast(bare) == full:
            shapes, operands[place] = bare, maker.inputs[0]
    if all(a is b for a, b in zip(operands, node.inputs, strict=True)):
        return "the shape of the result needs it"
    return apply(node.op, *operands, **node.attrs)


def _broadcast(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...] | None:
    try:
        return broadcast_shapes(*shapes)
    except GraphcValueError:
        return None


def _lift_broadcast(node: Node) -> Result:
    """f(broadcast_to(x)) = broadcast_to(f(x)): compute each value once.  Needs every operand to be repeated or scalar."""
    operands = []
    for v in node.inputs:
        if v.node is not None and v.node.op is broadcast_to_op:
            operands.append(v.node.inputs[0])
        elif v.type.ndim == 0:
            operands.append(v)
        else:
            return "an operand is not repeated"
    small = apply(node.op, *operands, **node.attrs)
    if len(node.inputs) == 1:
        maker = _inner(node)
        return apply(broadcast_to_op, small, *maker.inputs[1:], **maker.attrs)
    if not all(map(is_door, node.outputs[0].type.shape)):
        return "its sizes are found out by nodes"
    return broadcast_to(small, node.outputs[0].type.shape)


def _sum_to_sum(node: Node) -> Result:
    """sum_to where types tell which axes it sums."""
    x, want = node.inputs[0], target_shape(node)
    lead = x.type.ndim - len(want)
    axes = list(range(lead))
    for i, (have, size) in enumerate(zip(x.type.shape[lead:], want, strict=True)):
        if size is None or (have != size and not dims.is_one(size)):
            return f"whether axis {i + lead} is summed is known at the call"
        if dims.is_one(size) and not dims.is_one(have):
            axes.append(i + lead)
    if not axes:
        return x
    ones = tuple(a - lead for a in axes[lead:])
    return cast(expand_dims(sum_(x, tuple(axes)), ones) if ones else sum_(x, tuple(axes)), x.type.dtype)


def _sum_of_constant(node: Node) -> Result:
    """The sum of a repeated constant, where no partial sum rounds."""
    value = uniform(node.inputs[0])
    dtype = node.outputs[0].type.dtype
    if value is None or dtypes.is_bool(dtype):
        return None
    if not value and not np.signbit(np.asarray(value, np.complex128).real) and not dtypes.is_complex(dtype):
        return 0
    sizes = [node.inputs[0].type.shape[a] for a in node.attrs["axis"]] if node.op is not sum_to_op else [None]
    count = dims.product([s for s in sizes if s is not None])
    if None in sizes or not isinstance(count, int) or not dtypes.is_float(dtype):
        return "how many there are is known at the call"
    number = float(value)
    if not number.is_integer() or abs(number) * count > {"float64": 2.0**53, "float32": 2.0**24}.get(dtype.name, 0) or not number * count:
        return "it might round"
    return number * count


BROADCASTS = (
    Rule("broadcast_same", root=("broadcast_to",), fn=_broadcast_same, same_sizes=True, note="a broadcast to the shape that it has",
         examples=(lambda: apply(broadcast_to_op, _leaf("n", 2), shape=(dims.dim("n"), 2)),
                   lambda: (lambda x: apply(broadcast_to_op, x, apply(size_of_op, x, axis=0), shape=(None,)))(_leaf(None)))),
    Rule("broadcast_through", root=("broadcast_to",), over=("broadcast_to", "expand_dims"), fn=_broadcast_through, same_sizes=True,
         note="only the last shape counts; new first axes come by themselves",
         examples=(lambda: broadcast_to(broadcast_to(_leaf(1), (3,)), (2, 3)), lambda: broadcast_to(expand_dims(_leaf(3), (0,)), (2, 3)))),
    Rule("drop_broadcast", root=lambda op: op.kind == "elementwise", over=("broadcast_to",), fn=_drop_broadcast, same_sizes=True,
         note="elementwise ops broadcast by themselves",
         examples=(lambda: add(_leaf("n"), broadcast_to(_leaf(), ("n",))), lambda: mul(broadcast_to(_leaf(1), (3,)), _leaf(2, 3)),
                   lambda: (lambda x: add(x, apply(broadcast_to_op, _leaf(), apply(size_of_op, x, axis=0), shape=(None,))))(_leaf(None)))),
    Rule("lift_broadcast", root=lambda op: op.kind == "elementwise", over=("broadcast_to",), fn=_lift_broadcast, same_sizes=True,
         note="f(repeated x) = repeated f(x)",
         examples=(lambda: exp(broadcast_to(_leaf(), ("n",))), lambda: neg(broadcast_to(_leaf(1, 3), (2, 3))),
                   lambda: add(broadcast_to(_leaf(), (3,)), broadcast_to(_leaf(), (3,))))),
    Rule("sum_to_sum", root=("sum_to",), fn=_sum_to_sum, kinds="iufc", same_sizes=True, bits=False, note="a sum along known axes",
         examples=(lambda: apply(sum_to_op, _leaf(2, "n"), shape=(dims.dim("n"),)), lambda: apply(sum_to_op, _leaf(2, 3, 4), shape=(1, 4)),
                   lambda: apply(sum_to_op, _leaf("n"), shape=(dims.dim("n"),)))),
    Rule("sum_of_constant", root=("sum", "sum_to"), over=("constant", "broadcast_to"), fn=_sum_of_constant, kinds="biuf",
         note="0 + ... + 0 = 0; k + ... + k = nk where it fits the digits",
         examples=(lambda: sum_(broadcast_to(constant(0.0), ("n",))), lambda: sum_(broadcast_to(constant(1.0), (4, 5)), (0,)))),
)

# ---- sizes ---------------------------------------------------------------------------------------


def _dim(size: Size) -> Var:
    return constant(np.asarray(size, np.int64)) if isinstance(size, int) else apply(dim_op, size=size)


#: ops whose attribute ``shape`` is the shape of the result
_MADE_TO_SIZE = (broadcast_to_op, sum_to_op, reshape_op, iota_op, eye_op)


def _size_of(node: Node) -> Result:
    x, axis = node.inputs[0], node.attrs["axis"]
    size = x.type.shape[axis]
    if is_door(size):
        return _dim(size)
    if x.node is not None and x.node.op in _MADE_TO_SIZE and x.node.attrs["shape"][axis] is None:
        after = sum(s is None for s in x.node.attrs["shape"][axis:])
        return x.node.inputs[len(x.node.inputs) - after]
    if x.node is not None and len(x.node.outputs) == 1:
        for v in x.node.inputs:
            for i, s in enumerate(v.type.shape):
                if s == size:
                    return apply(size_of_op, v, axis=i)
    return "a node finds it out"


def _size_arithmetic(node: Node) -> Result:
    v = node.outputs[0]
    if v.type.ndim or v.type.dtype != dtypes.DTYPES["int64"] or any(i.type.ndim or i.type.dtype != v.type.dtype for i in node.inputs):
        return None
    size = dim_of(v)
    return _dim(size) if size is not None and is_door(size) else None


def _size_operand(node: Node) -> Result:
    """A size operand that is known by now becomes part of the attribute ``shape``."""
    count = sum(s is None for s in node.attrs["shape"])
    first = len(node.inputs) - count
    rest = iter(node.inputs[first:])
    shape: list[Size | None] = []
    operands: list[Var] = []
    for given in node.attrs["shape"]:
        operand = next(rest) if given is None else None
        size = given if operand is None else dim_of(operand)
        if operand is not None and (size is None or not is_door(size) or (isinstance(size, int) and size < 0)):
            operands.append(operand)
            size = None
        shape.append(size)
    if len(operands) == count:
        return None
    try:
        return apply(node.op, *node.inputs[:first], *operands, **{**node.attrs, "shape": tuple(shape)})
    except GraphcError as error:  # sizes that never fit: the call will say so
        return error.message


SIZES = (
    Rule("size_of_known", root=("size_of",), fn=_size_of, note="a size that the type tells, or an operand of what made the value",
         examples=(lambda: apply(size_of_op, _leaf(3), axis=0), lambda: apply(size_of_op, _leaf("n"), axis=0),
                   lambda: apply(size_of_op, exp(_leaf(None)), axis=0),
                   lambda: apply(size_of_op, apply(eye_op, cast(_leaf(dtype="uint8"), dtypes.DTYPES["int64"]), shape=(3, None), k=0, dtype=dtypes.DTYPES["bool"]), axis=1))),
    Rule("dim_known", root=("dim",), fn=lambda node: node.attrs["size"] if isinstance(node.attrs["size"], int) else None, note="a size that is a number",
         examples=(lambda: apply(dim_op, size=3),)),
    Rule("size_arithmetic", root=("add", "sub", "mul", "floordiv", "mod", "maximum", "minimum", "neg"), over=("dim",), fn=_size_arithmetic, kinds="i",
         note="arithmetic on sizes is done with the formulas",
         examples=(lambda: mul(apply(dim_op, size=dims.dim("n")), 2),)),
    Rule("size_operand", root=lambda op: op.sized and op.nout == 1, over=("constant", "dim"), fn=_size_operand, same_sizes=True,
         note="a size known by now is no operand", examples=(
             lambda: apply(broadcast_to_op, _leaf(), apply(dim_op, size=dims.dim("n")), shape=(None,)),
             lambda: apply(iota_op, constant(4), shape=(None,), dtype=dtypes.DTYPES["int64"]))),
)

RULES: tuple[Rule, ...] = (*VIEWS, *BROADCASTS, *SIZES)
__all__ = ["RULES", "target_shape"]
