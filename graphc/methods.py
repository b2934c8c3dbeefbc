"""Operators, methods and properties of variables: one table, installed once.

This is how ``x + y`` finds ``add`` without ``graphc/ir.py`` importing any op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.functions import elementwise, indexing, linalg, reducing, shaping
from graphc.functions.indexing import getitem
from graphc.ir import Array, Graph, Var, leaves
from graphc.ops.core import dim_of, size_of
from graphc.ops.evaluate import evaluate

_CONVERTIBLE = (Var, bool, int, float, complex, np.ndarray, np.generic, list, tuple)


def _binary(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Var, other: Any) -> Any:
        return function(self, other) if isinstance(other, _CONVERTIBLE) else NotImplemented
    return operator


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    def operator(self: Var, other: Any) -> Any:
        return function(other, self) if isinstance(other, _CONVERTIBLE) else NotImplemented
    return operator


def constant_of(v: Var, wanted: str, instead: str) -> Array:
    """The value of a variable that depends on constants only; TypeError with advice for any other."""
    free = leaves([v])
    if free or (dim_of(v) is None and any(n.op.placeholder or not n.op.pure for n in Graph([], [v]).nodes)):
        names = ", ".join(x.describe() for x in free[:3])
        raise GraphcTypeError(
            f"{wanted} of a symbolic value: {v.describe()} has no value before the function is called"
            + (f" (it depends on {names})" if names else "") + f"; use {instead}")
    return evaluate(Graph([], [v]), [], {})[0]


def _bool(self: Var) -> bool:
    return bool(constant_of(self, "the truth value", "gc.where (element by element), gc.ifelse (one branch), or gc.scan with gc.until"))


def _float(self: Var) -> float:
    return float(constant_of(self, "float()", "gc.cast, or evaluate it with v.eval({x: ...})"))


def _int(self: Var) -> int:
    return int(constant_of(self, "int()", "gc.cast, or evaluate it with v.eval({x: ...})"))


def _complex(self: Var) -> complex:
    return complex(constant_of(self, "complex()", "gc.cast, or evaluate it with v.eval({x: ...})"))


def _index(self: Var) -> int:
    if not dtypes.is_integer(self.type.dtype) or self.type.ndim:
        raise GraphcTypeError(f"only an integer scalar can be an index; got {self.describe()}")
    return int(constant_of(self, "the use as a Python integer", "gc.arange, gc.scan or symbolic indexing x[i]"))


def _array(self: Var, dtype: Any = None, copy: bool | None = None) -> Array:
    value = constant_of(self, "np.asarray", "the functions of graphc, or evaluate it with v.eval({x: ...})")
    return np.array(value, dtype=dtype)


def _iter(self: Var) -> Iterator[Var]:
    if not self.type.ndim:
        raise GraphcTypeError(f"a scalar cannot be iterated over: {self.describe()}")
    n = self.type.shape[0]
    if not isinstance(n, int):
        raise GraphcTypeError(f"iteration over an axis of unknown length {n}: {self.describe()}; use gc.scan, or fix the size when declaring it")
    return iter([getitem(self, i) for i in range(n)])


def _len(self: Var) -> int:
    n = self.type.shape[0] if self.type.ndim else None
    if not isinstance(n, int):
        raise GraphcTypeError(f"len() is not known before the call: {self.describe()}; use v.shape[0], an int64 variable")
    return n


def _contains(self: Var, value: Any) -> bool:
    raise GraphcTypeError("`in` needs a truth value, which a symbolic variable has not; use gc.any(x == value)")


def _setitem(self: Var, key: Any, value: Any) -> None:
    raise GraphcTypeError("variables are immutable: write y = gc.set_subtensor(x[i], value) instead of x[i] = value")


def _shape(self: Var) -> tuple[Any, ...]:
    """A tuple of ints where known and int64 scalar variables where not."""
    return tuple(size_of(self, axis) for axis in range(self.type.ndim))


def _size(self: Var) -> Any:
    """The number of elements: an int where known."""
    total: Any = 1
    for entry in _shape(self):
        total = entry * total if isinstance(entry, Var) else total * entry
    return total


def _reshape(self: Var, *shape: Any) -> Var:
    """``x.reshape((2, 3))`` or ``x.reshape(2, 3)``; one entry may be -1."""
    return shaping.reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape)


def _transpose(self: Var, *axes: Any) -> Var:
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        return shaping.transpose(self, axes[0])
    return shaping.transpose(self, axes or None)


def _repr(self: Var) -> str:
    label = self.name or (self.node.op.name if self.node is not None else "input")
    return f"<{label}: {self.type}>"


PROPERTIES: dict[str, Callable[[Var], Any]] = {
    "dtype": lambda self: self.type.dtype,
    "ndim": lambda self: self.type.ndim,
    "shape": _shape,
    "size": _size,
    "T": lambda self: shaping.transpose(self),
    "mT": lambda self: shaping.matrix_transpose(self),
    "owner": lambda self: self.node,
    "real": lambda self: elementwise.real(self),
    "imag": lambda self: elementwise.imag(self),
}

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": elementwise.add, "sub": elementwise.subtract, "mul": elementwise.multiply, "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide, "mod": elementwise.remainder, "pow": elementwise.power,
    "and": elementwise.bitwise_and, "or": elementwise.bitwise_or, "xor": elementwise.bitwise_xor,
    "lshift": elementwise.bitwise_left_shift, "rshift": elementwise.bitwise_right_shift, "matmul": linalg.matmul,
}

METHODS: dict[str, Any] = {
    **{f"__{name}__": _binary(f) for name, f in _ARITHMETIC.items()},
    **{f"__r{name}__": _reflected(f) for name, f in _ARITHMETIC.items()},
    "__divmod__": lambda self, other: (elementwise.floor_divide(self, other), elementwise.remainder(self, other)),
    "__rdivmod__": lambda self, other: (elementwise.floor_divide(other, self), elementwise.remainder(other, self)),
    "__eq__": _binary(elementwise.equal), "__ne__": _binary(elementwise.not_equal),
    "__lt__": _binary(elementwise.less), "__le__": _binary(elementwise.less_equal),
    "__gt__": _binary(elementwise.greater), "__ge__": _binary(elementwise.greater_equal),
    "__neg__": lambda self: elementwise.negative(self), "__pos__": lambda self: elementwise.positive(self),
    "__abs__": lambda self: elementwise.abs(self), "__invert__": lambda self: elementwise.bitwise_invert(self),
    "__round__": lambda self, ndigits=None: elementwise.round(self, ndigits or 0),
    "__getitem__": getitem, "__setitem__": _setitem, "__iter__": _iter, "__len__": _len, "__contains__": _contains,
    "__bool__": _bool, "__float__": _float, "__int__": _int, "__complex__": _complex, "__index__": _index,
    "__array__": _array, "__array_ufunc__": None, "__repr__": _repr, "__hash__": object.__hash__,
    "astype": lambda self, dtype: elementwise.cast(self, dtype),
    "reshape": _reshape, "transpose": _transpose,
    "copy": lambda self: elementwise.positive(self) if self.type.dtype.kind != "b" else elementwise.logical_or(self, False),
}

#: methods that are functions of the variable under their own name
SAME_NAME: dict[str, Any] = {
    **dict.fromkeys(("sum", "prod", "mean", "var", "std", "max", "min", "argmax", "argmin", "all", "any", "cumsum", "cumprod"), reducing),
    **dict.fromkeys(("flatten", "ravel", "squeeze", "swapaxes", "dimshuffle", "repeat"), shaping),
    "dot": linalg, "trace": linalg, "clip": elementwise, "conj": elementwise, "diagonal": shaping, "take": indexing,
}


def install() -> None:
    """Put the table onto ``Var``."""
    for name, method in METHODS.items():
        setattr(Var, name, method)
    for name, getter in PROPERTIES.items():
        setattr(Var, name, property(getter, doc=getter.__doc__))
    for name, module in SAME_NAME.items():
        setattr(Var, name, getattr(module, name))


__all__ = ["METHODS", "PROPERTIES", "SAME_NAME", "constant_of", "install"]
