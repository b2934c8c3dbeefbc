"""New arrays: zeros, ones, full, arange, linspace, eye, diag, triangles, meshgrid, constants.

A shape is a tuple whose entries are ints, names or ``gc.dim``s, and integer scalar
variables; one size alone is a shape of rank 1.  Where no dtype is given, arrays of
floats have ``gc.config.floatX`` (float64, unless set).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Dim
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Var, apply
from graphc.ops import core, creation, movement
from graphc.ops.arithmetic import add, div, mul, sub
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.choosing import floor
from graphc.ops.core import as_var, cast, constant_value, dim_op, promote, shape_of
from graphc.ops.indexing import index, set_part
from graphc.ops.joining import stack
from graphc.settings import config

__all__ = [
    "alloc", "arange", "asarray", "constant", "diag", "empty", "empty_like", "eye", "full", "full_like", "identity", "linspace",
    "meshgrid", "ones", "ones_like", "tri", "tril", "triu", "zeros", "zeros_like",
]


def _default(dtype: Any) -> np.dtype[Any]:
    return dtypes.as_dtype(config.floatX if dtype is None else dtype)


def _of_scalar(value: Any) -> np.dtype[Any]:
    """The dtype of an array filled with a Python scalar: bool, int64, floatX, or floatX's complex partner."""
    kind = dtypes.weak_kind(value)
    if kind == "f":
        return dtypes.as_dtype(config.floatX)
    if kind == "c":
        return dtypes.DTYPES["complex128" if config.floatX == "float64" else "complex64"]
    return dtypes.DTYPES["int64" if kind == "i" else "bool"]


def constant(value: Any, dtype: Any = None) -> Var:
    """A constant: an array or number that the compiler knows.  It is copied.

    A Python float becomes float64 and an int int64: unlike a bare number, a constant is not weak, so that
    ``float32_tensor * gc.constant(2.0)`` is float64.

    Raises:
        GraphcTypeError: strings, objects, ragged lists; a variable that is no constant.

    >>> import graphc as gc
    >>> gc.constant([1, 2, 3]).eval()
    array([1, 2, 3])
    """
    if isinstance(value, Var):
        if constant_value(value) is None:
            raise GraphcTypeError(f"constant: a value is expected, not a variable: {value.describe()}")
        return as_var(value, dtype)
    return core.constant(value, dtype)


def asarray(value: Any, dtype: Any = None) -> Var:
    """A variable for anything array-like: a variable (itself), an array, a number, a dim, a list of them (stacked).

    >>> import graphc as gc
    >>> x = gc.asarray([1.0, 2.0])
    >>> gc.asarray([x[0], 5, x[1]]).eval()
    array([1., 5., 2.])
    """
    if isinstance(value, Dim):
        value = apply(dim_op, size=value)
    if isinstance(value, (list, tuple)) and _holds_variables(value):
        value = stack([v if dtypes.weak_kind(v) else asarray(v) for v in value])
    return as_var(value, dtype)


def _holds_variables(value: Any) -> bool:
    return any(isinstance(v, (Var, Dim)) or (isinstance(v, (list, tuple)) and _holds_variables(v)) for v in value)


# ---- filled -----------------------------------------------------------------------------------


def full(shape: Any, fill_value: Any, dtype: Any = None) -> Var:
    """An array of this shape that repeats one value.

    Args:
        shape: see the top of this page.
        fill_value: a number or a scalar variable (an array that broadcasts to the shape, too).
        dtype: that of the value by default; floatX for a Python float.

    >>> import graphc as gc
    >>> gc.full((2, 3), 7).eval()
    array([[7, 7, 7],
           [7, 7, 7]])
    """
    if dtypes.weak_kind(fill_value):
        value = core.constant(fill_value, _of_scalar(fill_value) if dtype is None else dtype)
    else:
        value = asarray(fill_value, dtype)
    return broadcast_to(value, creation.shape_entries(shape, "full"))


def zeros(shape: Any, dtype: Any = None) -> Var:
    """An array of zeros; dtype floatX by default.

    >>> import graphc as gc
    >>> gc.zeros(3).eval()
    array([0., 0., 0.])
    """
    return full(shape, 0, _default(dtype))


def ones(shape: Any, dtype: Any = None) -> Var:
    """An array of ones; dtype floatX by default.

    >>> import graphc as gc
    >>> gc.ones((1, 2), dtype="int32").eval()
    array([[1, 1]], dtype=int32)
    """
    return full(shape, 1, _default(dtype))


def empty(shape: Any, dtype: Any = None) -> Var:
    """An array whose values do not matter; here they are zeros.

    >>> import graphc as gc
    >>> gc.empty((2, 2)).eval().shape
    (2, 2)
    """
    return zeros(shape, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Var:
    """An array of the shape of ``x``, and of its dtype unless another is given, that repeats one value.

    >>> import graphc as gc
    >>> gc.full_like([1.5, 2.5], 9).eval()
    array([9., 9.])
    """
    v = asarray(x)
    return broadcast_to(asarray(fill_value, v.type.dtype if dtype is None else dtype), shape_of(v))


def zeros_like(x: Any, dtype: Any = None) -> Var:
    """Zeros of the shape and dtype of ``x``, whose value is not used.

    >>> import graphc as gc
    >>> gc.zeros_like([1, 2]).eval()
    array([0, 0])
    """
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Var:
    """Ones of the shape and dtype of ``x``, whose value is not used.

    >>> import graphc as gc
    >>> gc.ones_like([1.5, 2.5]).eval()
    array([1., 1.])
    """
    return full_like(x, 1, dtype)


def empty_like(x: Any, dtype: Any = None) -> Var:
    """An array of the shape and dtype of ``x`` whose values do not matter; here they are zeros.

    >>> import graphc as gc
    >>> gc.empty_like([[1], [2]]).eval().shape
    (2, 1)
    """
    return full_like(x, 0, dtype)


def alloc(value: Any, *shape: Any) -> Var:
    """``value`` broadcast to a shape given as separate sizes.

    >>> import graphc as gc
    >>> gc.alloc(2.5, 2, 2).eval()
    array([[2.5, 2.5],
           [2.5, 2.5]])
    """
    return full(shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape, value)


# ---- ranges -----------------------------------------------------------------------------------


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Var:
    """``start, start + step, ...`` as long as it is before ``stop``; ``arange(n)`` counts from 0.

    Args:
        start, stop, step: numbers, dims, or scalar variables.  The size is known before the call where they are
            ints and dims (sizes of arrays among them); else the call finds it out.
        dtype: by default int64 for integers, floatX for Python floats, else the common dtype of the operands.

    Raises:
        GraphcValueError: a step of 0.

    >>> import graphc as gc
    >>> gc.arange(4).eval()
    array([0, 1, 2, 3])
    >>> gc.arange(5, 0, -2).eval()
    array([5, 3, 1])
    >>> gc.arange(0, 1, 0.25).eval()
    array([0.  , 0.25, 0.5 , 0.75])
    """
    if stop is None:
        start, stop = 0, start
    bounds = []
    for b in (start, stop, step):
        if isinstance(b, (np.ndarray, list)):
            b = as_var(b)
        if (isinstance(b, Var) and b.type.ndim) or not (isinstance(b, (Var, Dim, np.generic)) or dtypes.weak_kind(b) in ("i", "f")):
            raise GraphcTypeError(f"arange: numbers and scalar variables expected; got {b.describe() if isinstance(b, Var) else repr(b)}")
        bounds.append(b)
    first, last, delta = bounds
    return creation.arange(first, last, delta, _range_dtype(bounds) if dtype is None else dtypes.as_dtype(dtype))


def _range_dtype(bounds: list[Any]) -> np.dtype[Any]:
    strong = [b.type.dtype if isinstance(b, Var) else dtypes.as_dtype(b.dtype) for b in bounds if isinstance(b, (Var, np.generic))]
    is_float = any(isinstance(b, float) and not isinstance(b, np.generic) for b in bounds)
    if any(not dtypes.is_integer(d) for d in strong):
        return dtypes.promote(*strong)
    return dtypes.as_dtype(config.floatX) if is_float else dtypes.DTYPES["int64"]


def linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None) -> Var:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, which is the last of them if ``endpoint``.

    Args:
        start, stop: numbers or variables; arrays broadcast, and the new axis is the first.
        num: an int, known when the graph is built.
        dtype: floatX by default (the dtype of the operands, if they are variables of floats).  Integers are rounded down.

    Formula: ``start + i * (stop - start) / (num - 1)``, over ``num`` without endpoint.

    >>> import graphc as gc
    >>> gc.linspace(0, 1, 5).eval()
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    if isinstance(num, (bool, Var)) or not hasattr(num, "__index__"):
        raise GraphcTypeError(f"linspace: num is an int, known when the graph is built; got {num!r}")
    count = int(num.__index__())
    if count < 0:
        raise GraphcValueError(f"linspace: num is not negative; got {count}")
    weak = [dtypes.weak_kind(v) for v in (start, stop)]
    operands = [asarray(v) for v in (start, stop)]
    if all(weak):
        natural = _of_scalar(complex(start) if "c" in weak else float(start))
    else:
        natural = dtypes.inexact(promote(start, stop)[0].type.dtype)
    wanted = natural if dtype is None else dtypes.as_dtype(dtype)
    work = dtypes.promote(natural, *([wanted] if dtypes.is_inexact(wanted) else []))
    a, b = promote(*(cast(v, work) for v in operands))
    steps = count - 1 if endpoint else count
    rank = max(a.type.ndim, b.type.ndim)
    line = creation.iota(count, dtypes.DTYPES["int64"])
    line = cast(movement.expand_dims(line, tuple(range(1, rank + 1))) if rank else line, work)
    values = add(mul(line, div(sub(b, a), max(steps, 1))), a)
    if endpoint and count > 1:
        values = set_part(index(values, -1), b, increment=False)
    return cast(values if dtypes.is_inexact(wanted) else floor(values), wanted)


# ---- matrices ---------------------------------------------------------------------------------


def eye(n: Any, m: Any = None, k: int = 0, dtype: Any = None) -> Var:
    """An n x m matrix (square by default) with ones on the k-th diagonal; dtype floatX by default.

    >>> import graphc as gc
    >>> gc.eye(2, 3, k=1).eval()
    array([[0., 1., 0.],
           [0., 0., 1.]])
    """
    return creation.eye(n, n if m is None else m, movement.integer(k, "eye: k"), _default(dtype))


def identity(n: Any, dtype: Any = None) -> Var:
    """The n x n identity matrix.

    >>> import graphc as gc
    >>> gc.identity(2).eval()
    array([[1., 0.],
           [0., 1.]])
    """
    return eye(n, dtype=dtype)


def tri(n: Any, m: Any = None, k: int = 0, dtype: Any = None) -> Var:
    """An n x m matrix with ones at and below the k-th diagonal.

    >>> import graphc as gc
    >>> gc.tri(2, 3).eval()
    array([[1., 0., 0.],
           [1., 1., 0.]])
    """
    return movement.tril(ones((n, n if m is None else m), dtype), k)


def tril(x: Any, k: int = 0) -> Var:
    """``x`` with zeros above the k-th diagonal of its last two axes (also where there was nan).

    >>> import graphc as gc
    >>> gc.tril([[1, 2], [3, 4]]).eval()
    array([[1, 0],
           [3, 4]])
    """
    return movement.tril(asarray(x), k)


def triu(x: Any, k: int = 0) -> Var:
    """``x`` with zeros below the k-th diagonal of its last two axes (also where there was nan).

    >>> import graphc as gc
    >>> gc.triu([[1, 2], [3, 4]]).eval()
    array([[1, 2],
           [0, 4]])
    """
    return movement.triu(asarray(x), k)


def diag(x: Any, k: int = 0) -> Var:
    """The k-th diagonal of a matrix; for a vector, the square matrix that has it there and zeros elsewhere.

    >>> import graphc as gc
    >>> gc.diag([[1, 2], [3, 4]]).eval()
    array([1, 4])
    >>> gc.diag([5, 6]).eval()
    array([[5, 0],
           [0, 6]])
    """
    v, k = asarray(x), movement.integer(k, "diag: k")
    if v.type.ndim == 2:
        return movement.diagonal(v, k)
    if v.type.ndim != 1:
        raise GraphcValueError(f"diag: a vector or a matrix expected; got {v.describe()}")
    n, = shape_of(v)
    side = n if k == 0 else add(n, abs(k)) if isinstance(n, Var) else n + abs(k)
    return movement.place_diagonal(v, (side, side), k)


def meshgrid(*xs: Any, indexing: str = "xy") -> list[Var]:
    """Coordinate arrays of the grid that vectors span: element [i, j] of the k-th is the k-th coordinate there.

    Args:
        xs: vectors (a scalar counts as one of length 1).
        indexing: "xy" (NumPy's default: the first vector runs along axis 1) or "ij".

    >>> import graphc as gc
    >>> x, y = gc.meshgrid([1, 2, 3], [10, 20])
    >>> x.eval()
    array([[1, 2, 3],
           [1, 2, 3]])
    """
    if indexing not in ("xy", "ij"):
        raise GraphcValueError(f"meshgrid: indexing is 'xy' or 'ij'; got {indexing!r}")
    vs = [asarray(x) for x in xs]
    vs = [movement.expand_dims(v, (0,)) if v.type.ndim == 0 else v for v in vs]
    if any(v.type.ndim != 1 for v in vs):
        raise GraphcValueError(f"meshgrid: vectors expected; got {', '.join(str(v.type) for v in vs)}")
    order = list(range(len(vs)))
    if indexing == "xy" and len(vs) > 1:
        order[:2] = [1, 0]
    shape = [shape_of(vs[k])[0] for k in order]
    return [broadcast_to(movement.expand_dims(v, tuple(a for a in range(len(vs)) if order[a] != k)), shape) for k, v in enumerate(vs)]
