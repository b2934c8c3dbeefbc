"""``x[index]`` and its adjoints, as ops: read a part, replace a part, add to a part.

Each comes as a basic op (slices and positions) and as an advanced one (arrays of
positions among them); graphc/ops/slicing.py says what ``attrs["index"]`` holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.arithmetic import mul, sub, where
from graphc.ops.broadcasting import broadcast_relations, broadcast_to
from graphc.ops.core import as_var, cast, constant, constant_value, dim_of, is_door, shape_of
from graphc.ops.creation import iota
from graphc.ops.example import Example
from graphc.ops.gathering import OPS as GATHERING
from graphc.ops.gathering import inc_along_axis_op as inc_along_axis_op
from graphc.ops.gathering import nonzero, nonzero_op, set_along_axis_op, take_along_axis, take_along_axis_op
from graphc.ops.movement import expand_dims, expand_dims_op, reshape, shape_text, squeeze, transpose_op, zeros_of
from graphc.ops.slicing import (
    ARRAY,
    NEW,
    SCALAR,
    WHOLE,
    Index,
    constant_in_range,
    index_key,
    is_advanced,
    operand_count,
    region,
    slice_entry,
)

Attrs = Mapping[str, Any]


def array_operands(index: Index, operands: Sequence[Any]) -> list[Any]:
    """Those of the index operands that are arrays."""
    rest = iter(operands)
    found = []
    for entry in index:
        for _ in range(sum(b == SCALAR for b in entry) if isinstance(entry, tuple) else entry == SCALAR):
            next(rest)
        if not isinstance(entry, tuple) and entry == ARRAY:
            found.append(next(rest))
    return found


class Indexing(Op):
    """What the ops of this file share."""

    kind = "indexing"
    linear = True  # in x and y; the index operands are no numbers that a derivative flows to
    flops = 0.0
    nvalues = 1  # operands before those of the index

    def __init__(self, name: str, advanced: bool, examples: Sequence[Example]) -> None:
        self.name, self.advanced, self.examples = name, advanced, tuple(examples)

    def connected(self, position: int, node: Node) -> bool:
        return position < self.nvalues and dtypes.is_inexact(node.inputs[0].type.dtype)

    def region_of(self, x: Type, operands: Sequence[Type], index: Index) -> tuple[Size, ...]:
        if is_advanced(index) != self.advanced:
            raise GraphcTypeError(f"the index {index} is {'' if self.advanced else 'not '}basic")
        return region(x, operands, index)

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        arrays = [t.shape for t in array_operands(attrs["index"], types[self.nvalues:])]
        return broadcast_relations([s for s in arrays if all(is_door(n) for n in s)])


class Subtensor(Indexing):
    """``subtensor(x, *positions; index)``, ``advanced_subtensor(...)``: ``x[index]``."""

    def __init__(self, name: str, advanced: bool, examples: Sequence[Example]) -> None:
        super().__init__(name, advanced, examples)
        self.view = not advanced

    def infer(self, x: Type, *operands: Type, index: Index) -> Type:  # type: ignore[override]
        return x.with_shape(self.region_of(x, operands, index))

    def forward(self, x: Array, *operands: Array, index: Index) -> Array:  # type: ignore[override]
        return np.asarray(x[index_key(index, operands)])

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        if position > 0:
            return None
        op = advanced_inc_subtensor_op if self.advanced else inc_subtensor_op
        return apply(op, zeros_of(inputs[0]), cotangents[0], *inputs[1:], **attrs)


class Assign(Indexing):
    """``set_subtensor(x, y, *positions; index)``: ``x`` with ``x[index] = y``; ``inc_...``: with ``x[index] += y``.

    ``y`` has the shape of ``x[index]``.  Positions that come twice: their increments add up;
    of values set, the last in C order stays.
    """

    nvalues = 2

    def __init__(self, name: str, advanced: bool, increment: bool, examples: Sequence[Example]) -> None:
        super().__init__(name, advanced, examples)
        self.increment = increment
        self.flops = 1.0 if increment else 0.0

    def infer(self, x: Type, y: Type, *operands: Type, index: Index) -> Type:  # type: ignore[override]
        part = self.region_of(x, operands, index)
        if y.dtype != x.dtype:
            raise GraphcTypeError(f"values of the dtype of the array expected; got {x} and {y}")
        if y.ndim != len(part) or any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(part, y.shape, strict=True)):
            raise GraphcValueError(f"values of shape {shape_text(y.shape)} for a part of shape {shape_text(part)}")
        return x

    def forward(self, x: Array, y: Array, *operands: Array, index: Index) -> Array:  # type: ignore[override]
        key = index_key(index, operands)
        result = x.copy()
        part = result[key].shape
        if part != y.shape:
            raise GraphcValueError(f"{self.name}: values of shape {y.shape} for a part of shape {part}")
        if not self.increment:
            result[key] = y
        elif not self.advanced:
            with np.errstate(all="ignore"):
                result[key] += y
        elif x.dtype.kind == "V":  # bfloat16: NumPy has no add.at for it
            wide = x.astype(np.float32)
            np.add.at(wide, key, y.astype(np.float32))
            return wide.astype(x.dtype)
        else:
            with np.errstate(all="ignore"):
                np.add.at(result, key, y)
        return result

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], attrs: Attrs) -> Var | None:
        g, operands = cotangents[0], inputs[2:]
        read = advanced_subtensor_op if self.advanced else subtensor_op
        if position == 0:
            return g if self.increment else apply(self, g, zeros_of(inputs[1]), *operands, **attrs)
        if position > 1:
            return None
        part = apply(read, g, *operands, **attrs)
        if self.increment or not self.advanced or surely_distinct(attrs["index"], operands):
            return part
        return where(overwritten(inputs[0], inputs[1], operands, attrs), 0, part)

    def relations(self, types: Sequence[Type], attrs: Attrs) -> Iterable[Relation]:
        yield from super().relations(types, attrs)
        try:
            part = region(types[0], types[2:], attrs["index"])
        except GraphcIndexError:
            return
        for a, b in zip(part, types[1].shape, strict=True):
            if a != b and is_door(a) and is_door(b):
                yield Relation("equal", a, b)


def surely_distinct(index: Index, operands: Sequence[Var]) -> bool:
    """Can no position come twice?  So it is with masks, and with one constant array."""
    arrays = array_operands(index, operands)
    if all(a.node is not None and a.node.op is subtensor_op and a.node.inputs[0].node is not None
           and a.node.inputs[0].node.op is nonzero_op and a.node.inputs[0] is arrays[0].node.inputs[0] for a in arrays):
        return True
    value = constant_value(arrays[0])
    if len(arrays) > 1 or value is None or (np.any(value >= 0) and np.any(value < 0)):
        return False
    return len(np.unique(value)) == value.size


def overwritten(x: Var, y: Var, operands: Sequence[Var], attrs: Attrs) -> Var:
    """Which values of ``y`` does a later one replace?  Each writes its number; who reads another one lost."""
    count: Any = 1
    for size in shape_of(y):
        count = mul(count, size) if isinstance(size, Var) or isinstance(count, Var) else count * size
    number = reshape(iota(count), shape_of(y))
    board = broadcast_to(constant(0, "int64"), shape_of(x))
    stays = apply(advanced_subtensor_op, apply(advanced_set_subtensor_op, board, number, *operands, **attrs), *operands, **attrs)
    return cast(sub(stays, number), dtypes.DTYPES["bool"])


_A = np.array
_BASIC = (
    ([(4, 5)], {"index": ((1, 3, 1), 2)}, lambda x: x[1:3, 2]),
    ([(5,)], {"index": ((None, None, -2),)}, lambda x: x[::-2]),
    ([(2, 3)], {"index": (NEW, -1, WHOLE)}, lambda x: x[None, 1]),
    ([(3,)], {"index": ((2, 2, 1),)}, lambda x: x[:0]),
)
_ADVANCED = (
    ([(4, 2), (3,)], {"index": (ARRAY, WHOLE)}, lambda x, i: np.stack([x[k] for k in i])),
    ([(4, 4, 2), (2, 1), (3,)], {"index": (ARRAY, ARRAY, (0, 1, 1))}, lambda x, i, j: np.stack([x[i[k, 0], j, :1] for k in range(2)])),
    ([(4, 2, 4), (3,)], {"index": (1, WHOLE, ARRAY)}, lambda x, i: x[1].T[i]),
)


def _examples(cases: Sequence[Any], how: str) -> list[Example]:
    """The same cases for reading, setting and incrementing; the increments are counted element by element."""
    result = []
    for shapes, attrs, read in cases:
        nindex = len(shapes) - 1
        kinds, domains = ["float64"] + ["int64"] * nindex, [(-3.0, 3.0)] + [(-2, 4)] * nindex
        if how == "read":
            result.append(Example(shapes, attrs, tuple(kinds), tuple(domains), numpy=read))
            continue
        part = read(np.zeros(shapes[0]), *(np.zeros(s, np.int64) for s in shapes[1:])).shape

        def write(x: Array, y: Array, *positions: Array, read: Any = read) -> Array:
            where = read(np.arange(x.size).reshape(x.shape), *positions)
            flat = x.ravel().copy()
            for k, value in zip(where.ravel(), y.ravel(), strict=True):
                flat[k] = value if how == "set" else flat[k] + value
            return flat.reshape(x.shape)

        result.append(Example([shapes[0], part, *shapes[1:]], attrs, ("float64", *kinds), ((-3.0, 3.0), *domains), numpy=write))
    return result


subtensor_op = Subtensor("subtensor", False, _examples(_BASIC, "read"))
set_subtensor_op = Assign("set_subtensor", False, False, _examples(_BASIC, "set"))
inc_subtensor_op = Assign("inc_subtensor", False, True, _examples(_BASIC, "inc"))
advanced_subtensor_op = Subtensor("advanced_subtensor", True, _examples(_ADVANCED, "read"))
advanced_set_subtensor_op = Assign("advanced_set_subtensor", True, False, _examples(_ADVANCED, "set"))
advanced_inc_subtensor_op = Assign("advanced_inc_subtensor", True, True, _examples(_ADVANCED, "inc"))
OPS: tuple[Op, ...] = (
    subtensor_op, set_subtensor_op, inc_subtensor_op, advanced_subtensor_op, advanced_set_subtensor_op, advanced_inc_subtensor_op, *GATHERING)


# ---- builders ---------------------------------------------------------------------------------


def subtensor(x: Var, index: Index, *operands: Var) -> Var:
    """``x[index]`` for an index in the form of graphc/ops/slicing.py."""
    return apply(advanced_subtensor_op if is_advanced(index) else subtensor_op, x, *operands, index=index)


def take(x: Var, indices: Var, axis: int) -> Var:
    """The parts of ``x`` at these positions of an axis; the axes of ``indices`` stand in its place."""
    index = [WHOLE] * x.type.ndim
    index[axis] = ARRAY if indices.type.ndim else SCALAR
    return subtensor(x, tuple(index), indices)


def set_part(part: Var, y: Any, increment: bool) -> Var:
    """The array that ``part`` was read from, with that part replaced by ``y`` or increased by it."""
    what = "inc_subtensor" if increment else "set_subtensor"
    node = part.node if isinstance(part, Var) else None
    if node is None or (not isinstance(node.op, Subtensor) and node.op not in (take_along_axis_op, expand_dims_op)):
        came = part.describe() if isinstance(part, Var) else repr(part)
        raise GraphcTypeError(f"{what}: the first argument is an indexing such as x[i], take(x, i, 0) or take_along_axis(x, i, 0); got {came}")
    x = node.inputs[0]
    values = _assignable(y, part, what)
    if node.op is expand_dims_op:  # x[None]: all of x
        values = squeeze(values, node.attrs["axes"])
        return apply(inc_subtensor_op if increment else set_subtensor_op, x, values, index=(WHOLE,) * x.type.ndim)
    if node.op is take_along_axis_op:
        return apply(inc_along_axis_op if increment else set_along_axis_op, x, values, *node.inputs[1:], **node.attrs)
    advanced = is_advanced(node.attrs["index"])
    if increment:
        op = advanced_inc_subtensor_op if advanced else inc_subtensor_op
    else:
        op = advanced_set_subtensor_op if advanced else set_subtensor_op
    return apply(op, x, values, *node.inputs[1:], **node.attrs)


_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2, "V": 2, "c": 3}  # V: bfloat16


def loses_kind(value: Any, dtype: np.dtype[Any]) -> bool:
    """Would a cast to ``dtype`` lose fractions, an imaginary part, or numbers beyond true and false?"""
    have = dtypes.weak_kind(value) or (value.type.dtype.kind if isinstance(value, Var) else np.asarray(value).dtype.kind)
    return _ORDER[have] > _ORDER[dtype.kind]


def _assignable(y: Any, part: Var, what: str) -> Var:
    """``y`` with the dtype and shape of the part; an error where its kind of number would be lost."""
    dtype = part.type.dtype
    if not isinstance(y, Var) and dtypes.weak_kind(y) is None:
        y = as_var(y)
    if loses_kind(y, dtype):
        raise GraphcTypeError(f"{what}: {y.describe() if isinstance(y, Var) else repr(y)} does not go into an array of {dtype} "
                              f"without loss; cast it (.astype({dtype.name!r})) or the array")
    dtypes.check_weak(y, dtype)
    values = cast(y, dtype) if isinstance(y, Var) else constant(y, dtype)
    extra = values.type.ndim - part.type.ndim
    if extra > 0 and all(dims.is_one(s) for s in values.type.shape[:extra]):  # NumPy drops leading ones
        values = squeeze(values, tuple(range(extra)))
    if values.type.shape == part.type.shape:
        return values
    return broadcast_to(values, shape_of(part))


# ---- from a Python key to an index ------------------------------------------------------------


def index(x: Var, key: Any) -> Var:
    """``x[key]`` for a key as NumPy takes it, with variables and dims among its parts."""
    parts = [_part(k) for k in (key if isinstance(key, tuple) else (key,))]
    used = sum(_axes_used(p) for p in parts)
    if sum(p is Ellipsis for p in parts) > 1:
        raise GraphcIndexError("an index has at most one ellipsis (...)")
    if used > x.type.ndim:
        raise GraphcIndexError(f"too many indices: {used} for {x.describe()}, whose rank is {x.type.ndim}")
    if any(isinstance(p, Var) and p.type.dtype.kind == "b" and p.type.ndim == 0 for p in parts):
        return _bool_scalar(x, parts)
    gap = [slice(None)] * (x.type.ndim - used)
    at = next((i for i, p in enumerate(parts) if p is Ellipsis), None)
    parts = [*parts, *gap] if at is None else [*parts[:at], *gap, *parts[at + 1:]]
    entries: list[Any] = []
    operands: list[Var] = []
    axis = 0
    for p in parts:
        entry, found = _entries(x, axis, p)
        entries += entry
        operands += found
        axis += sum(e != NEW for e in entry)
    if NEW in entries and all(e in (NEW, WHOLE) for e in entries):
        return expand_dims(x, tuple(i for i, e in enumerate(entries) if e == NEW))
    return subtensor(x, tuple(entries), *operands)


def _part(k: Any) -> Any:
    """One part of a key: None, Ellipsis, a slice, an int, a Dim, or a variable of integers or bools."""
    if k is None or k is Ellipsis or isinstance(k, (slice, Dim)):
        return k
    if isinstance(k, (bool, np.bool_)):
        return constant(bool(k))
    if not isinstance(k, Var):
        if not isinstance(k, np.ndarray) and hasattr(k, "__index__"):
            return int(k.__index__())
        if not isinstance(k, (list, tuple, np.ndarray)):
            raise GraphcTypeError(f"an index is an int, a slice, None, ..., or an array of integers or bools; got {k!r} ({type(k).__name__})")
        k = as_var(k, "int64") if not isinstance(k, np.ndarray) and np.size(np.asarray(k, object)) == 0 else as_var(k)
    if not dtypes.is_integer(k.type.dtype) and k.type.dtype.kind != "b":
        raise GraphcTypeError(f"an index array is of integers or bools; got {k.describe()}")
    if k.type.ndim == 0 and k.type.dtype.kind != "b":
        return _scalar(k)
    return k


def _scalar(v: Any) -> Any:
    """A bound or position as an int or a door Dim where one says it, else as an int64 scalar."""
    if v is None or isinstance(v, Dim):
        return v
    if not isinstance(v, Var):
        if not hasattr(v, "__index__"):
            raise GraphcTypeError(f"a slice has integers as bounds; got {v!r}")
        return int(v.__index__())
    if v.type.ndim or not dtypes.is_integer(v.type.dtype):
        raise GraphcTypeError(f"a slice has integer scalars as bounds; got {v.describe()}")
    size = dim_of(v)
    return size if size is not None and is_door(size) else cast(v, dtypes.DTYPES["int64"])


def _axes_used(p: Any) -> int:
    if p is None or p is Ellipsis:
        return 0
    return p.type.ndim if isinstance(p, Var) and p.type.dtype.kind == "b" else 1


def _entries(x: Var, axis: int, p: Any) -> tuple[list[Any], list[Var]]:
    """The entries and operands for one part of a key, which begins at this axis."""
    if p is None:
        return [NEW], []
    n = x.type.shape[axis] if axis < x.type.ndim else 0
    if isinstance(p, slice):
        bounds = [_scalar(b) for b in (p.start, p.stop, p.step)]
        entry = slice_entry(n, *(SCALAR if isinstance(b, Var) else b for b in bounds))
        return [entry], [b for b in bounds if isinstance(b, Var)]
    if isinstance(p, int):
        return [p + n if p < 0 and isinstance(n, int) and p >= -n else p], []
    if isinstance(p, Dim):
        return [p], []
    if p.type.dtype.kind == "b":
        return _mask(x, axis, p)
    value = constant_value(p)
    if value is not None:
        constant_in_range(value, n, axis)
    return [ARRAY if p.type.ndim else SCALAR], [cast(p, dtypes.DTYPES["int64"])]


def _mask(x: Var, axis: int, mask: Var) -> tuple[list[Any], list[Var]]:
    """A mask as the positions where it is true, one array per axis."""
    rank = mask.type.ndim
    axes = x.type.shape[axis:axis + rank]
    value = constant_value(mask)
    if value is not None and value.shape == axes:
        found = [constant(i.astype(np.int64)) for i in np.nonzero(value)]
    else:
        positions = nonzero(mask, shape_of(x)[axis:axis + rank] if mask.type.shape != axes else ())
        found = [subtensor(positions, (i, WHOLE)) for i in range(rank)]
    return [ARRAY] * rank, found


def _bool_scalar(x: Var, parts: Sequence[Any]) -> Var:
    """``x[condition]``: a new first axis of size 1 or 0.  Not an indexing that can be set."""
    rest = [p for p in parts if p is not Ellipsis]
    if len(rest) > 1:
        raise GraphcIndexError("a bool scalar stands alone in an index; write x[condition] first, then index the result")
    wide = expand_dims(x, (0,))
    taken = take(wide, subtensor(nonzero(reshape(rest[0], (1,))), (0, WHOLE)), 0)
    return apply(transpose_op, taken, axes=tuple(range(taken.type.ndim)))


__all__ = [
    "OPS", "Assign", "Subtensor", "array_operands", "index", "loses_kind", "operand_count", "set_part", "subtensor", "take", "take_along_axis",
]
