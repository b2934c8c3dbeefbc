"""Constants, casts, sizes, conversion of operands: what every other op file stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError, here
from graphc.ir import Array, Node, Op, Type, Var, apply


class Constant(Op):
    """A value known when the graph is built.  ``attrs["value"]`` is an array that nobody writes to."""

    name = "constant"
    kind = "creation"
    flops = 0.0

    def infer(self, *types: Type, value: Array, **_: Any) -> Type:  # type: ignore[override]
        return Type(dtypes.as_dtype(value.dtype), value.shape)

    def forward(self, *arrays: Array, value: Array, **_: Any) -> Array:  # type: ignore[override]
        return value

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return []


class SizeOf(Op):
    """``size_of(x; axis)``: the length of an axis, an int64 scalar.  Needs no value of ``x``, only its shape."""

    name = "size_of"
    kind = "creation"
    flops = 0.0

    def infer(self, x: Type, *, axis: int) -> Type:  # type: ignore[override]
        return Type(dtypes.DTYPES["int64"], ())

    def forward(self, x: Array, *, axis: int) -> Array:  # type: ignore[override]
        return np.asarray(x.shape[axis], np.int64)

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return [None]

    def connected(self, position: int, node: Node) -> bool:
        return False


class DimValue(Op):
    """``dim(; size)``: a size formula of door symbols as an int64 scalar."""

    name = "dim"
    kind = "creation"
    flops = 0.0

    def infer(self, *, size: Size) -> Type:  # type: ignore[override]
        return Type(dtypes.DTYPES["int64"], ())

    def forward(self, *, size: int) -> Array:  # type: ignore[override]
        return np.asarray(size, np.int64)

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        return []


class Cast(Op):
    """``cast(x; dtype)``: NumPy's ``astype``; float to integer truncates, complex to real drops the imaginary part."""

    name = "cast"
    kind = "elementwise"

    def infer(self, x: Type, *, dtype: np.dtype[Any]) -> Type:  # type: ignore[override]
        return x.with_dtype(dtype)

    def forward(self, x: Array, *, dtype: np.dtype[Any]) -> Array:  # type: ignore[override]
        with np.errstate(all="ignore"):
            if x.dtype.kind == "c" and dtype.kind not in "cb":
                x = x.real
            return x.astype(dtype)

    def bprop(self, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var], **_: Any) -> Any:
        return [cast(cotangents[0], inputs[0].type.dtype)]

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.inputs[0].type.dtype) and dtypes.is_inexact(node.outputs[0].type.dtype)


constant_op, size_of_op, dim_op, cast_op = Constant(), SizeOf(), DimValue(), Cast()
OPS: tuple[Op, ...] = (constant_op, size_of_op, dim_op, cast_op)


def constant(value: Any, dtype: Any = None) -> Var:
    """A constant variable of an array-like; Python scalars become bool, int64, float64, complex128."""
    array = to_array(value, dtype)
    array.setflags(write=False)
    return Node(constant_op, (), {"value": array}, (Type(array.dtype, array.shape),), here()).outputs[0]


def to_array(value: Any, dtype: Any = None) -> Array:
    """A fresh array of a dtype that graphc has, or GraphcTypeError for objects, strings and ragged lists."""
    wanted = None if dtype is None else dtypes.as_dtype(dtype)
    try:
        array = np.array(value)
    except ValueError as error:
        raise GraphcTypeError(f"cannot make an array of {_brief(value)}: {error}") from None
    if array.dtype.kind in "OSUMmV" and not dtypes.is_bfloat16(array.dtype):
        raise GraphcTypeError(
            f"cannot make a numeric array of {_brief(value)}: NumPy gives it dtype {array.dtype}; "
            "expected numbers or bools of one shape")
    native = dtypes.as_dtype(array.dtype)
    with np.errstate(all="ignore"):
        return array.astype(wanted if wanted is not None else native, order="C", copy=False)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def constant_value(v: Var) -> Array | None:
    """The array of a constant, None for anything else."""
    node = v.node
    return node.attrs["value"] if node is not None and node.op is constant_op else None


def as_var(value: Any, dtype: Any = None) -> Var:
    """A variable for a variable, array-like or scalar; ``dtype`` casts."""
    if isinstance(value, Var):
        return value if dtype is None else cast(value, dtypes.as_dtype(dtype))
    if isinstance(value, (list, tuple)) and any(isinstance(v, Var) for v in value):
        raise GraphcTypeError("a list that contains variables is no array: join them with gc.stack or gc.concatenate")
    return constant(value, dtype)


def cast(x: Var, dtype: np.dtype[Any]) -> Var:
    """``x`` as ``dtype``; ``x`` itself if it is so already; constants are cast at once."""
    if x.type.dtype == dtype:
        return x
    value = constant_value(x)
    if value is not None and value.size <= 64:
        return constant(cast_op.forward(value, dtype=dtype))
    return apply(cast_op, x, dtype=dtype)


def promote(*operands: Any, least: np.dtype[Any] | None = None) -> list[Var]:
    """Operands as variables of one common dtype; Python scalars are weak; ``least`` joins as one more dtype."""
    kinds = [dtypes.weak_kind(v) for v in operands]
    strong = [v if isinstance(v, Var) else as_var(v) for v, kind in zip(operands, kinds, strict=True) if kind is None]
    weak = [k for k in kinds if k is not None]
    if strong:
        common = dtypes.promote(*(v.type.dtype for v in strong))
        for weak_one in weak:
            common = dtypes.with_weak(common, weak_one)
    else:
        common = dtypes.promote(*(np.asarray(v).dtype for v in operands))
    if least is not None:
        common = dtypes.promote(common, least)
    result, rest = [], iter(strong)
    for value, kind in zip(operands, kinds, strict=True):
        if kind is None:
            result.append(cast(next(rest), common))
        else:
            dtypes.check_weak(value, common)
            result.append(constant(value, common))
    return result


# ---- sizes ----------------------------------------------------------------------------------


def size_of(x: Var, axis: int) -> int | Var:
    """The length of an axis: an int where known, else an int64 scalar variable."""
    size = x.type.shape[axis]
    return size if isinstance(size, int) else apply(size_of_op, x, axis=axis)


def shape_of(x: Var) -> tuple[Any, ...]:
    """The shape of ``x`` as arguments for a sized op: ints, door dims, and variables for sizes found by nodes."""
    return tuple(s if is_door(s) else apply(size_of_op, x, axis=i) for i, s in enumerate(x.type.shape))


def is_door(size: Size) -> bool:
    """Is the size known when a call enters?"""
    return isinstance(size, int) or all(s.kind != "data" for s in dims.symbols(size))


def size_args(shape: Iterable[Any], what: str) -> tuple[tuple[Size | None, ...], list[Var]]:
    """A shape as the user gives it -> the attribute ``shape`` and the operands for its None entries.

    Entries: ints, names and ``gc.dim``s, integer scalar variables.  A variable whose value
    is a formula of door dims (``x.shape[0] * 2``) becomes that formula.
    """
    entries: list[Size | None] = []
    operands: list[Var] = []
    for entry in shape:
        if isinstance(entry, Var):
            if entry.type.ndim != 0 or not dtypes.is_integer(entry.type.dtype):
                raise GraphcTypeError(f"{what}: a size is an integer scalar; got {entry.describe()}")
            size = dim_of(entry)
            if size is not None and is_door(size):
                if isinstance(size, int) and size < 0:
                    raise GraphcValueError(f"{what}: a size is not negative; got {size}")
                entries.append(size)
            else:
                entries.append(None)
                operands.append(cast(entry, dtypes.DTYPES["int64"]))
        elif entry is None:
            raise GraphcTypeError(f"{what}: None is no size; give an int, a dim or an integer variable")
        else:
            entries.append(dims.as_size(entry))
    return tuple(entries), operands


def sized_shape(shape: Sequence[Size | None], operands: Sequence[Type], what: str) -> tuple[Size, ...]:
    """The shape in the type: None entries become sizes that the node finds out (for ``infer``)."""
    if sum(s is None for s in shape) != len(operands):
        raise GraphcTypeError(f"{what}: {len(operands)} size operands for the shape {shape}")
    return tuple(dims.fresh("data") if s is None else s for s in shape)


def sized_value(shape: Sequence[int | None], operands: Sequence[Array], what: str) -> tuple[int, ...]:
    """The shape in numbers (for ``forward``)."""
    rest = iter(operands)
    result = tuple(int(next(rest)) if s is None else int(s) for s in shape)
    if any(s < 0 for s in result):
        raise GraphcValueError(f"{what}: a size is not negative; got {result}")
    return result


def dim_of(v: Var) -> Size | None:
    """The size formula that an integer scalar variable computes, None if it is not one."""
    done: dict[Var, Size | None] = {}
    stack = [v]
    while stack:
        x = stack[-1]
        if x in done:
            stack.pop()
            continue
        node = x.node
        if node is None or x.type.ndim or len(done) > 1000:
            done[x] = None
        elif node.op is constant_op:
            done[x] = int(node.attrs["value"]) if dtypes.is_integer(x.type.dtype) else None
        elif node.op is size_of_op:
            done[x] = node.inputs[0].type.shape[node.attrs["axis"]]
        elif node.op is dim_op:
            done[x] = node.attrs["size"]
        elif node.op.name in _SIZE_ARITHMETIC or (node.op is cast_op and dtypes.is_integer(x.type.dtype)):
            missing = [i for i in node.inputs if i not in done]
            if missing:
                stack.extend(missing)
                continue
            done[x] = _size_result(node, [done[i] for i in node.inputs])
        else:
            done[x] = None
        stack.pop()
    return done[v]


_SIZE_ARITHMETIC = {"add", "sub", "mul", "floordiv", "mod", "maximum", "minimum"}


def _size_result(node: Node, args: Sequence[Size | None]) -> Size | None:
    sizes = [a for a in args if a is not None]
    if len(sizes) != len(args):
        return None
    if node.op is cast_op:
        return sizes[0]
    a, b = sizes
    name = node.op.name
    if name in ("floordiv", "mod") and not (isinstance(b, Dim) or b > 0):
        return None
    if name == "add":
        return a + b
    if name == "sub":
        return a - b
    if name == "mul":
        return a * b
    fn = {"floordiv": dims.floordiv, "mod": dims.mod, "maximum": dims.dim_max, "minimum": dims.dim_min}[name]
    return fn(a, b)


def axis_of(axis: Any, ndim: int, what: str) -> int:
    """A non-negative axis, or an error that names the rank."""
    if isinstance(axis, bool) or not hasattr(axis, "__index__"):
        raise GraphcTypeError(f"{what}: an axis is an int; got {axis!r}")
    number = int(axis.__index__())
    if not -ndim <= number < ndim:
        raise GraphcIndexError(f"{what}: axis {number} is outside an array of rank {ndim}")
    return number % ndim


def axes_of(axis: Any, ndim: int, what: str) -> tuple[int, ...]:
    """``axis`` as NumPy takes it (None, an int, a tuple) -> sorted axes without repeats."""
    if axis is None:
        return tuple(range(ndim))
    given = [axis_of(a, ndim, what) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    if len(set(given)) != len(given):
        raise GraphcValueError(f"{what}: axis {axis} repeats an axis")
    return tuple(sorted(given))

