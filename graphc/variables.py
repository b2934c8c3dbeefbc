"""How a script makes variables: ``tensor`` and its short forms, ``shared``, names of dims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError, here
from graphc.ir import Array, Container, Shared, Type, Var, updating
from graphc.ops.core import to_array
from graphc.settings import config


def tensor(name: str | None = None, *, shape: Sequence[Any], dtype: Any = None) -> Var:
    """A free input.

    Args:
        name: for calls by name, messages and dumps.
        shape: one entry per axis: an int; a str or ``gc.dim``, a named dim (the same name is the
            same size wherever it stands in one function); None, an unknown size of its own.
        dtype: of the elements; ``gc.config.floatX`` by default.

    Raises:
        TypeError, ValueError: a shape entry or dtype that is none.

    >>> import graphc as gc
    >>> gc.tensor("x", shape=("n", 784), dtype="float32").type
    Type(f32[n, 784])
    """
    if name is not None and not isinstance(name, str):
        raise GraphcTypeError(f"tensor: the name is a str or None; got {name!r} (the shape is given as shape=...)")
    if isinstance(shape, (str, dims.Dim)) or not isinstance(shape, Iterable):
        raise GraphcTypeError(f"tensor {name or ''}: shape is a tuple such as ('n', 3); got {shape!r}")
    label = name or "x"
    sizes = tuple(dims.as_size(entry, f"{label}.shape[{i}]") for i, entry in enumerate(shape))
    return Var(Type(dtypes.as_dtype(config.floatX if dtype is None else dtype), sizes), name=name, origin=here())


_RANKS: dict[str, tuple[Any, ...]] = {
    "scalar": (), "vector": (None,), "row": (1, None), "col": (None, 1), "matrix": (None, None),
    "tensor3": (None,) * 3, "tensor4": (None,) * 4, "tensor5": (None,) * 5,
}
_PLURALS = {"scalar": "scalars", "vector": "vectors", "row": "rows", "col": "cols", "matrix": "matrices",
            "tensor3": "tensor3s", "tensor4": "tensor4s", "tensor5": "tensor5s"}
_PREFIXES = {"b": "int8", "w": "int16", "i": "int32", "l": "int64", "f": "float32", "d": "float64",
             "c": "complex64", "z": "complex128"}


def _maker(public: str, shape: tuple[Any, ...], fixed: str | None) -> Callable[..., Var]:
    text = "(" + ", ".join("unknown" if s is None else str(s) for s in shape) + ")"
    if fixed is None:
        def make(name: str | None = None, dtype: Any = None) -> Var:
            return tensor(name, shape=shape, dtype=dtype)
        make.__doc__ = f"A free input of shape {text}; dtype ``gc.config.floatX`` by default."
    else:
        def make(name: str | None = None) -> Var:  # type: ignore[misc]
            return tensor(name, shape=shape, dtype=fixed)
        make.__doc__ = f"A free input of shape {text} and dtype {fixed}."
    make.__name__ = make.__qualname__ = public
    return make


def _plural(public: str, one: Callable[..., Var]) -> Callable[..., list[Var]]:
    def make(*names: str | int, **options: Any) -> list[Var]:
        if len(names) == 1 and isinstance(names[0], int):
            return [one(**options) for _ in range(names[0])]
        if len(names) == 1 and isinstance(names[0], str) and len(names[0]) > 1 and not names[0].isidentifier():
            raise GraphcValueError(f"{public}: one name per argument; got {names[0]!r}")
        return [one(name, **options) for name in names]
    make.__doc__ = f"Several variables as by ``{one.__name__}``: one per name, or as many as an int says."
    make.__name__ = make.__qualname__ = public
    return make


#: every short form by its public name: matrix, dmatrix, matrices, dmatrices, ...
SHORT_FORMS: dict[str, Callable[..., Any]] = {}
for _rank, _shape in _RANKS.items():
    for _prefix, _dtype in (("", None), *_PREFIXES.items()):
        _one = _maker(_prefix + _rank, _shape, _dtype)
        SHORT_FORMS[_prefix + _rank] = _one
        SHORT_FORMS[_prefix + _PLURALS[_rank]] = _plural(_prefix + _PLURALS[_rank], _one)


class SharedVariable(Shared):
    """State that outlives calls: read by every function that uses it, written by ``updates`` and ``set_value``."""

    __slots__ = ()

    def get_value(self, borrow: bool = False) -> Array:
        """The value: a copy, or with ``borrow=True`` the storage itself (do not write into it)."""
        container = self.container
        if not borrow:
            return container.value.copy()
        token = object()
        updating.append(token)
        try:
            with container.lock:
                if not container.lends(container.value):
                    container.put(container.value.view(), True)  # for whoever keeps what was made of it (graphc/kept.py), another array from now on
                return container.value
        finally:
            updating.remove(token)

    def set_value(self, value: Any, borrow: bool = False) -> None:
        """Replace the value.  TypeError/ValueError, and no change, if it does not fit the type."""
        new = fit_shared(value, self.type, self.describe(), borrow)
        with self.container.lock:
            self.container.put(new, borrow)


def fit_shared(value: Any, type: Type, what: str, borrow: bool = False) -> Array:
    """``value`` as an array of ``type``, without loss."""
    typed = isinstance(value, (np.ndarray, np.generic))
    given = np.asarray(value) if typed else to_array(value)
    if given.dtype != type.dtype:
        fits = np.can_cast(given.dtype, type.dtype) if typed else (
            given.dtype.kind in "biu" if dtypes.is_integer(type.dtype) else not dtypes.is_complex(given.dtype) or dtypes.is_complex(type.dtype))
        cast = given.astype(type.dtype) if fits else given
        if not fits or (dtypes.is_integer(type.dtype) and not np.array_equal(cast, given)):
            raise GraphcTypeError(f"set_value: {what} cannot hold a value of dtype {given.dtype}; cast it to {type.dtype} first")
        given = cast
    elif not borrow or not typed:
        given = given.copy()
    if given.ndim != type.ndim:
        raise GraphcTypeError(f"set_value: {what} has rank {type.ndim}; got a value of shape {given.shape}")
    for axis, (size, have) in enumerate(zip(type.shape, given.shape, strict=True)):
        if isinstance(size, int) and size != have:
            raise GraphcValueError(
                f"set_value: {what} has size {size} on axis {axis}; got a value of shape {given.shape} "
                "(declare gc.shared(..., shape=(None, ...)) to leave a size open)")
    return given


def shared(value: Any, name: str | None = None, *, shape: Sequence[Any] | None = None, borrow: bool = False) -> SharedVariable:
    """State with a first value.

    Args:
        value: array-like; its dtype is the dtype of the state.
        name: for messages and dumps.
        shape: sizes as in ``gc.tensor`` where they may change; by default those of ``value``.
        borrow: keep the array itself instead of a copy.

    >>> import graphc as gc
    >>> w = gc.shared([1.0, 2.0], "w")
    >>> w.get_value()
    array([1., 2.])
    """
    if isinstance(value, Var):
        raise GraphcTypeError("shared: the first value is an array, not a variable; evaluate it first with v.eval({...})")
    array = np.asarray(value) if isinstance(value, np.ndarray) and borrow else to_array(value)
    array = array if borrow else np.array(array)
    dtype = dtypes.as_dtype(array.dtype)
    if array.dtype != dtype:
        array = array.astype(dtype)
    sizes: tuple[Size, ...] = array.shape
    if shape is not None:
        if len(shape) != array.ndim:
            raise GraphcValueError(f"shared {name or ''}: shape {tuple(shape)} has {len(shape)} entries; the value has rank {array.ndim}")
        sizes = tuple(dims.as_size(s, f"{name or 'shared'}.shape[{i}]") for i, s in enumerate(shape))
        if any(isinstance(s, int) and s != have for s, have in zip(sizes, array.shape, strict=True)):
            raise GraphcValueError(f"shared {name or ''}: shape {tuple(shape)} does not fit the value's {array.shape}")
    return SharedVariable(Type(dtype, sizes), Container(array, borrow), name, here())


__all__ = ["SHORT_FORMS", "SharedVariable", "fit_shared", "shared", "tensor"]
