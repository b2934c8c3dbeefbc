"""Products of matrices and tensors as users call them.  ``einsum`` reads its subscripts in ``functions/einstein.py``."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

from graphc import dtypes
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.functions.averaging import safe_sqrt
from graphc.functions.einstein import einsum
from graphc.ir import Var
from graphc.ops import contraction, reduction
from graphc.ops.arithmetic import abs as abs_
from graphc.ops.arithmetic import conj_or_same, mul, real, sqr
from graphc.ops.comparison import not_equal
from graphc.ops.contraction import LETTERS, contract
from graphc.ops.core import as_var, axes_of, axis_of, cast, promote, shape_of
from graphc.ops.movement import diagonal, expand_dims, reshape, squeeze, transpose


def matmul(a: Any, b: Any) -> Var:
    """The matrix product ``a @ b`` with NumPy's rules.

    Args:
        a: shape (..., m, k), or (k,), which counts as one row.
        b: shape (..., k, n), or (k,), which counts as one column; leading axes broadcast.

    Returns:
        Shape (..., m, n), without the axes that a vector was given; the promoted dtype.
        float16 and bfloat16 are accumulated in float32.

    Raises:
        GraphcTypeError: an operand is a scalar.
        GraphcValueError: the sizes k differ (at the call where they are not known before), or leading axes do not broadcast.

    >>> import graphc as gc
    >>> gc.matmul([[1, 2], [3, 4]], [1, 1]).eval()
    array([3, 7])
    """
    x, y = promote(a, b)
    if not x.type.ndim or not y.type.ndim:
        raise GraphcTypeError(f"matmul: a scalar is no matrix, use a * b; got {x.describe()} and {y.describe()}")
    row, column = x.type.ndim == 1, y.type.ndim == 1
    product = contraction.matmul(expand_dims(x, (0,)) if row else x, expand_dims(y, (1,)) if column else y)
    if column:
        product = squeeze(product, (product.type.ndim - 1,))
    if row:
        product = squeeze(product, (product.type.ndim - (1 if column else 2),))
    return product


def dot(a: Any, b: Any) -> Var:
    """NumPy's ``dot``: matrices multiply, vectors give the inner product, scalars scale.

    For higher ranks: the sum over the last axis of ``a`` and the last but one of ``b``
    (the only one of a vector); the result has the other axes of ``a``, then those of ``b``.

    >>> import graphc as gc
    >>> gc.dot([1, 2, 3], [4, 5, 6]).eval()
    array(32)
    """
    x, y = promote(a, b)
    n, m = x.type.ndim, y.type.ndim
    if not n or not m:
        return mul(x, y)
    if n <= 2 and m <= 2:
        return matmul(x, y)
    return tensordot(x, y, ((n - 1,), (builtins.max(m - 2, 0),)))


def tensordot(a: Any, b: Any, axes: Any = 2) -> Var:
    """The sum over pairs of axes of ``a`` and ``b``.

    Args:
        axes: an int k: the last k axes of ``a`` with the first k of ``b``; or a pair of axes
            or of sequences of axes: those of ``a`` and, in the same order, those of ``b``.

    Returns:
        The other axes of ``a``, then those of ``b``; the promoted dtype.

    Raises:
        GraphcValueError: paired axes have different sizes, or not as many axes on both sides.

    >>> import graphc as gc
    >>> gc.tensordot([[1, 2], [3, 4]], [[1, 0], [0, 1]], axes=2).eval()
    array(5)
    """
    x, y = promote(a, b)
    left, right = _axis_pairs(axes, x.type.ndim, y.type.ndim)
    for i, j in zip(left, right, strict=True):
        s, t = x.type.shape[i], y.type.shape[j]
        if isinstance(s, int) and isinstance(t, int) and s != t:
            raise GraphcValueError(f"tensordot: axis {i} of {x.describe()} has size {s}, axis {j} of {y.describe()} has size {t}: they must be equal")
    labels = iter(LETTERS)
    first = [next(labels) for _ in range(x.type.ndim)]
    second = [first[left[right.index(j)]] if j in right else next(labels) for j in range(y.type.ndim)]
    out = [c for i, c in enumerate(first) if i not in left] + [c for j, c in enumerate(second) if j not in right]
    return contract([(x, "".join(first)), (y, "".join(second))], "".join(out))


def _axis_pairs(axes: Any, n: int, m: int) -> tuple[list[int], list[int]]:
    if isinstance(axes, (tuple, list)):
        if len(axes) != 2:
            raise GraphcValueError(f"tensordot: axes is an int or a pair; got {axes!r}")
        sides = [list(side) if isinstance(side, (tuple, list)) else [side] for side in axes]
        left = [axis_of(i, n, "tensordot: first operand") for i in sides[0]]
        right = [axis_of(j, m, "tensordot: second operand") for j in sides[1]]
        if len(left) != len(right) or len(set(left)) != len(left) or len(set(right)) != len(right):
            raise GraphcValueError(f"tensordot: axes pairs distinct axes of both operands; got {axes!r}")
        return left, right
    if isinstance(axes, bool) or not hasattr(axes, "__index__"):
        raise GraphcTypeError(f"tensordot: axes is an int or a pair; got {axes!r}")
    k = int(axes)
    if not 0 <= k <= builtins.min(n, m):
        raise GraphcValueError(f"tensordot: axes={k} for operands of rank {n} and {m}")
    return list(range(n - k, n)), list(range(k))


def inner(a: Any, b: Any) -> Var:
    """The sum over the last axes of both: (..., k) and (___, k) give (..., ___); scalars multiply.

    >>> import graphc as gc
    >>> gc.inner([[1, 2], [3, 4]], [1, 1]).eval()
    array([3, 7])
    """
    x, y = promote(a, b)
    if not x.type.ndim or not y.type.ndim:
        return mul(x, y)
    return tensordot(x, y, ((-1,), (-1,)))


def outer(a: Any, b: Any) -> Var:
    """All products: ``y[i, j] = a[i] * b[j]``; operands of other ranks are flattened.

    >>> import graphc as gc
    >>> gc.outer([1, 2], [3, 4]).eval()
    array([[3, 4],
           [6, 8]])
    """
    x, y = promote(a, b)
    return contract([(reshape(x, (-1,)), "a"), (reshape(y, (-1,)), "b")], "ab")


def vecdot(a: Any, b: Any, axis: int = -1) -> Var:
    """The inner product along an axis, ``sum(conj(a) * b)``; the other axes broadcast.

    >>> import graphc as gc
    >>> gc.vecdot([[1, 2], [3, 4]], [1, 1]).eval()
    array([3, 7])
    """
    x, y = promote(a, b)
    if not x.type.ndim or not y.type.ndim:
        raise GraphcTypeError(f"vecdot: a scalar is no vector; got {x.describe()} and {y.describe()}")
    x, y = (_last(v, axis_of(axis, v.type.ndim, "vecdot")) for v in (x, y))
    product = contraction.matmul(expand_dims(conj_or_same(x), (x.type.ndim - 1,)), expand_dims(y, (y.type.ndim,)))
    return squeeze(product, (product.type.ndim - 2, product.type.ndim - 1))


def _last(x: Var, axis: int) -> Var:
    """``x`` with that axis moved to the end."""
    return x if axis == x.type.ndim - 1 else transpose(x, [i for i in range(x.type.ndim) if i != axis] + [axis])


def vdot(a: Any, b: Any) -> Var:
    """The inner product of the flattened operands, ``sum(conj(a) * b)``.

    >>> import graphc as gc
    >>> gc.vdot([1j, 2], [1j, 1]).eval()
    array(3.+0.j)
    """
    x, y = promote(a, b)
    return vecdot(reshape(x, (-1,)), reshape(y, (-1,)))


def kron(a: Any, b: Any) -> Var:
    """The Kronecker product: ``b`` scaled by every element of ``a``; the lower rank gets leading axes.

    >>> import graphc as gc
    >>> gc.kron([1, 10], [1, 2]).eval()
    array([ 1,  2, 10, 20])
    """
    x, y = promote(a, b)
    n = builtins.max(x.type.ndim, y.type.ndim)
    x, y = (expand_dims(v, tuple(range(n - v.type.ndim))) for v in (x, y))
    product = mul(expand_dims(x, tuple(range(1, 2 * n, 2))), expand_dims(y, tuple(range(0, 2 * n, 2))))
    sizes = zip(shape_of(x), shape_of(y), strict=True)
    return reshape(product, [mul(s, t) if isinstance(s, Var) or isinstance(t, Var) else s * t for s, t in sizes])


def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None) -> Var:
    """The sum of a diagonal, ``sum(x[i, i + offset])``, over two axes; bool and small integers become 64 bits wide.

    >>> import graphc as gc
    >>> gc.trace([[1, 2], [3, 4]]).eval()
    array(5)
    """
    v = as_var(x)
    if v.type.ndim < 2:
        raise GraphcTypeError(f"trace: rank >= 2 expected; got {v.describe()}")
    d = diagonal(v if dtype is None else cast(v, dtypes.as_dtype(dtype)), offset, axis1, axis2)
    total = reduction.sum(d, -1)
    return total if dtype is None else cast(total, dtypes.as_dtype(dtype))


def norm(x: Any, ord: Any = None, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Var:
    """The length of vectors: by default the root of the sum of squares over ``axis`` (None: all axes).

    Args:
        ord: None or 2 or "fro": Euclidean (Frobenius); 1: sum of absolute values; inf, -inf: the largest,
            the smallest of them; 0: how many are not 0.
        axis: None, an int or a tuple: the axes over which the values are taken as one vector.
        keepdims: leave the reduced axes, with length 1.

    Returns:
        A real value; integers give float64.  The gradient of the Euclidean norm at 0 is 0.

    >>> import graphc as gc
    >>> gc.norm([[3.0, 4.0], [0.0, 0.0]], axis=1).eval()
    array([5., 0.])
    """
    v = as_var(x)
    v = cast(v, dtypes.inexact(v.type.dtype))
    axes = axes_of(list(axis) if isinstance(axis, (tuple, list)) else axis, v.type.ndim, "norm")
    if ord not in (None, "fro") and (v.type.ndim if axis is None else len(axes)) == 2 and not isinstance(axis, int):
        raise GraphcValueError(f"norm: of a matrix, ord is None or 'fro'; got {ord!r}")  # NumPy's other ones are matrix norms
    if ord in (None, 2, "fro"):
        squares = real(mul(v, conj_or_same(v))) if dtypes.is_complex(v.type.dtype) else sqr(v)
        return safe_sqrt(reduction.sum(squares, axes, keepdims))
    if ord == 0:
        return cast(reduction.sum(not_equal(v, 0), axes, keepdims), dtypes.real_of(v.type.dtype))
    size = abs_(v)
    if ord == 1:
        return reduction.sum(size, axes, keepdims)
    if ord in (float("inf"), -float("inf")):
        return (reduction.max if ord > 0 else reduction.min)(size, axes, keepdims)
    raise GraphcValueError(f"norm: ord is None, 2, 'fro', 1, inf, -inf or 0; got {ord!r}")


__all__ = ["dot", "einsum", "inner", "kron", "matmul", "norm", "outer", "tensordot", "trace", "vdot", "vecdot"]
