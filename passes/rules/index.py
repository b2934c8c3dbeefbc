"""Rules of indexing: parts of parts, parts of what was joined or written, positions known by now.

Indices are those of graphc/ops/slicing.py.  All rules are exact.
"""

from __future__ import annotations

from typing import Any

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcError
from graphc.ir import Node, Type, Var, apply
from graphc.ops.arithmetic import add
from graphc.ops.core import constant, dim_of, is_door
from graphc.ops.indexing import inc_subtensor_op, set_subtensor_op, subtensor
from graphc.ops.joining import concatenate
from graphc.ops.movement import expand_dims
from graphc.ops.slicing import NEW, SCALAR, WHOLE, Index, is_advanced, slice_entry
from graphc.passes.pattern import Result, Rule


def _leaf(*shape: Any, dtype: str = "float64") -> Var:
    return Var(Type(dtypes.DTYPES[dtype], tuple(dims.as_size(s) for s in shape)))


def _inner(node: Node, name: str) -> Node | None:
    """What made operand 0; None if it is another op of that name that a position comes from."""
    inner = node.inputs[0].node
    return inner if inner is not None and inner.op.name == name else None


ANOTHER = "a position is what was found"


def _takes_all(entry: Any, size: Size) -> bool:
    """Does a slice select its whole axis, in order?"""
    return isinstance(entry, tuple) and entry[2] == 1 and (entry[0] is None or entry[0] == 0) and (entry[1] is None or entry[1] == size)


def _plain(x: Var, index: Index) -> Index:
    """The index with slices of whole axes written as such."""
    sizes = iter(x.type.shape)
    result = []
    for entry in index:
        size = 0 if entry == NEW else next(sizes)
        result.append(WHOLE if _takes_all(entry, size) else entry)
    return tuple(result)


def _all_of_it(node: Node) -> Result:
    x = node.inputs[0]
    index = _plain(x, node.attrs["index"])
    if all(entry == WHOLE for entry in index):
        return x
    if all(entry in (WHOLE, NEW) for entry in index):
        return expand_dims(x, tuple(i for i, entry in enumerate(index) if entry == NEW))
    return None


def _write_all(node: Node) -> Result:
    x, y = node.inputs[:2]
    if not all(entry == WHOLE for entry in _plain(x, node.attrs["index"])) or x.type.shape != y.type.shape:
        return None
    return add(x, y) if node.op is inc_subtensor_op else y


def _read_written(node: Node) -> Result:
    """set_subtensor(x, y, i)[i] = y."""
    inner = _inner(node, "set_subtensor")
    if inner is None:
        return ANOTHER
    same = inner.attrs["index"] == node.attrs["index"] and all(a is b for a, b in zip(inner.inputs[2:], node.inputs[1:], strict=False))
    return inner.inputs[1] if same and len(inner.inputs) == len(node.inputs) + 1 else "another part is read than was written"


def _part_of_part(node: Node) -> Result:
    """x[inner][outer] where each axis has at most one of them, or both are known in numbers."""
    inner = _inner(node, "subtensor")
    if inner is None:
        return ANOTHER
    x = inner.inputs[0]
    first, second = inner.attrs["index"], list(node.attrs["index"])
    if len(inner.inputs) > 1 or NEW in first or NEW in second or is_advanced(tuple(second)):
        return "new axes or positions known at the call"
    result: list[Any] = []
    rest = iter(second)
    for entry, size in zip(first, x.type.shape, strict=True):
        if not isinstance(entry, tuple):
            result.append(entry)
            continue
        outer = next(rest)
        if entry == WHOLE:
            result.append(outer)
        elif outer == WHOLE:
            result.append(entry)
        else:
            composed = _composed(entry, outer, size)
            if composed is None:
                return "bounds known at the call"
            result.append(composed)
    return subtensor(x, tuple(result), *node.inputs[1:])


def _composed(inner: Any, outer: Any, size: Size) -> Any:
    if not isinstance(size, int) or not all(b is None or isinstance(b, int) for b in inner):
        return None
    places = range(size)[slice(*inner)]
    if isinstance(outer, int):
        return places[outer] if -len(places) <= outer < len(places) else None
    if not isinstance(outer, tuple) or not all(b is None or isinstance(b, int) for b in outer):
        return None
    left = places[slice(*outer)]
    return slice_entry(size, left.start, None if left.stop < 0 else left.stop, left.step) if len(left) else (0, 0, 1)


def _part_of_joined(node: Node) -> Result:
    """A part of concatenate(...) that lies in one operand."""
    inner = _inner(node, "concatenate")
    if inner is None:
        return ANOTHER
    axis = inner.attrs["axis"]
    index = list(node.attrs["index"])
    if NEW in index or SCALAR in index[axis:axis + 1]:
        return "new axes or positions known at the call"
    entry = index[axis]
    start: Size = 0
    for k, v in enumerate(inner.inputs):
        size = v.type.shape[axis]
        stop = start + size
        if isinstance(entry, int):
            if not isinstance(stop, int) or not isinstance(start, int) or entry < 0:
                return "sizes known at the call"
            if start <= entry < stop:
                return subtensor(v, (*index[:axis], entry - start, *index[axis + 1:]), *node.inputs[1:])
        elif isinstance(entry, tuple) and entry[2] == 1 and (0 if entry[0] is None else entry[0]) == start and (
                stop if entry[1] is None else entry[1]) == stop:
            if entry[1] is None and k < len(inner.inputs) - 1:
                return "several operands"
            return subtensor(v, (*index[:axis], WHOLE, *index[axis + 1:]), *node.inputs[1:])
        start = stop
    return "it lies in no single operand"


def _known_positions(node: Node) -> Result:
    """Scalar index operands that are numbers or formulas of sizes become part of the index."""
    first = 2 if node.op in (set_subtensor_op, inc_subtensor_op) else 1
    rest = iter(node.inputs[first:])
    left: list[Var] = []

    def known(bound: Any) -> Any:
        if bound != SCALAR:
            return bound
        operand = next(rest)
        size = dim_of(operand)
        if size is not None and is_door(size):
            return size
        left.append(operand)
        return SCALAR

    index = tuple(tuple(known(b) for b in entry) if isinstance(entry, tuple) else known(entry) for entry in node.attrs["index"])
    if len(left) == len(node.inputs) - first or any(isinstance(e, tuple) and (e[2] == 0 or isinstance(e[2], dims.Dim)) for e in index):
        return None
    try:
        return apply(node.op, *node.inputs[:first], *left, index=index)
    except GraphcError as error:  # out of range: the call will say so
        return error.message


_N = dims.dim("n")
RULES: tuple[Rule, ...] = (
    Rule("index_known", root=("subtensor", "set_subtensor", "inc_subtensor"), over=("constant", "dim"), fn=_known_positions, same_sizes=True,
         note="a position known by now is no operand",
         examples=(lambda: subtensor(_leaf(5), (SCALAR,), constant(2)), lambda: subtensor(_leaf(5), ((None, SCALAR, 1),), constant(2)))),
    Rule("index_all", root=("subtensor",), fn=_all_of_it, same_sizes=True, note="x[:] = x; x[:, None] only makes an axis",
         examples=(lambda: subtensor(_leaf("n", 2), (WHOLE, WHOLE)), lambda: subtensor(_leaf("n"), ((0, _N, 1),)),
                   lambda: subtensor(_leaf("n"), (WHOLE, NEW)))),
    Rule("index_write_all", root=("set_subtensor", "inc_subtensor"), fn=_write_all, note="x[:] = y is y; x[:] += y is x + y",
         examples=(lambda: apply(set_subtensor_op, _leaf(3), _leaf(3), index=(WHOLE,)),
                   lambda: apply(inc_subtensor_op, _leaf(3), _leaf(3), index=((0, 3, 1),)))),
    Rule("index_read_written", root=("subtensor",), over=("set_subtensor",), fn=_read_written, same_sizes=True, note="what was written there is read",
         examples=(lambda: subtensor(apply(set_subtensor_op, _leaf(3, 2), _leaf(2), index=(1, WHOLE)), (1, WHOLE)),)),
    Rule("index_index", root=("subtensor",), over=("subtensor",), fn=_part_of_part, same_sizes=True, note="a part of a part is a part",
         examples=(lambda: subtensor(subtensor(_leaf(9, 3), ((1, 8, 2), WHOLE)), ((1, 3, 1), 2)),
                   lambda: subtensor(subtensor(_leaf(9), ((None, None, -1),)), ((0, 4, 3),)),
                   lambda: subtensor(subtensor(_leaf("n", "m"), ((1, None, 1), WHOLE)), (WHOLE, 0)))),
    Rule("index_concatenate", root=("subtensor",), over=("concatenate",), fn=_part_of_joined, same_sizes=True, note="a part that lies in one operand",
         examples=(lambda: subtensor(concatenate([_leaf(2), _leaf(3)]), ((2, 5, 1),)), lambda: subtensor(concatenate([_leaf(2, 2), _leaf(3, 2)]), (4, 1)),
                   lambda: subtensor(concatenate([_leaf("n"), _leaf("m")]), ((0, _N, 1),)),
                   lambda: subtensor(concatenate([_leaf("n"), _leaf("m")]), ((_N, _N + dims.dim("m"), 1),)))),
)
__all__ = ["RULES"]
