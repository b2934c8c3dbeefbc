"""The dtypes: names, kinds, promotion, weak Python scalars.

A dtype is a ``numpy.dtype`` everywhere (``v.dtype == "float32"`` holds), never a
string.  Promotion is the Array API's table and NumPy 2's where that is silent.
Python scalars are weak: they take the dtype of the tensor that they meet, unless
their kind is higher (``int32_tensor * 0.5`` is float64).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.errors import GraphcTypeError, GraphcValueError

__all__ = [
    "ABBREVIATION", "DTYPES", "SHORT", "as_dtype", "bfloat16", "check_weak", "complex_of", "inexact", "is_bool", "is_complex",
    "is_float", "is_inexact", "is_integer", "promote", "real_of", "weak_kind",
]

SHORT: dict[str, str] = {
    "bool": "bool", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
    "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64",
    "complex64": "c64", "complex128": "c128",
}
ABBREVIATION = {short: name for name, short in SHORT.items()}
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in SHORT if name != "bfloat16"}


def bfloat16() -> np.dtype[Any]:
    """NumPy has no bfloat16: the package ml_dtypes brings it, and is needed only by those who use it."""
    found = DTYPES.get("bfloat16")
    if found is None:
        try:
            import ml_dtypes
        except ImportError:
            raise GraphcTypeError("dtype bfloat16 needs the package ml_dtypes: pip install 'graphc[bfloat16]'") from None
        found = DTYPES["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
    return found


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """The ``numpy.dtype`` for a name, a NumPy dtype or a Python type; TypeError if graphc has no such dtype."""
    if isinstance(dtype, str):
        dtype = ABBREVIATION.get(dtype, dtype)
        if dtype == "bfloat16":
            return bfloat16()
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.name not in SHORT:
        raise GraphcTypeError(f"dtype {dtype!r} is not one that graphc computes with; it has: {', '.join(SHORT)}")
    if found.name == "bfloat16":
        return bfloat16()
    return DTYPES[found.name]  # native byte order


def is_bool(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "b"


def is_integer(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu"


def is_float(dtype: np.dtype[Any]) -> bool:
    """Real floating point (bfloat16's NumPy kind is 'V', hence the name)."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Asked in a way that costs little: a dtype makes its name anew each time."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def is_half(dtype: np.dtype[Any]) -> bool:
    """float16 or bfloat16."""
    return dtype.itemsize == 2 and is_float(dtype)


def is_complex(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "c"


def is_inexact(dtype: np.dtype[Any]) -> bool:
    return is_float(dtype) or is_complex(dtype)


def real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of the real part: float64 for complex128; others unchanged."""
    if dtype.kind == "c":
        return DTYPES["float32" if dtype.name == "complex64" else "float64"]
    return dtype


def complex_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of complex numbers whose parts are of this one: float32 or float64."""
    if dtype.name not in ("float32", "float64"):
        raise GraphcTypeError(f"parts of complex numbers are float32 or float64; got {dtype}")
    return DTYPES["complex64" if dtype.name == "float32" else "complex128"]


def inexact(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What a function with float results (exp, /) makes of a dtype: integers and bool become float64."""
    return dtype if is_inexact(dtype) else DTYPES["float64"]


def promote(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    """The common dtype of strong operands.

    >>> promote(np.dtype("int64"), np.dtype("float32")).name
    'float64'
    """
    first = dtypes[0]
    if all(d == first for d in dtypes):
        return first
    names = {d.name for d in dtypes}
    if "bfloat16" in names and "float16" in names:  # neither holds the other
        dtypes = (*(d for d in dtypes if d.name not in ("bfloat16", "float16")), DTYPES["float32"])
    if "bfloat16" in names and any(d.kind in "iu" and d.itemsize >= 2 for d in dtypes):  # as float16 would do
        dtypes = tuple(DTYPES["float16"] if d.name == "bfloat16" else d for d in dtypes)
    return as_dtype(np.result_type(*dtypes))


_WEAK_ORDER = {"b": 0, "i": 1, "f": 2, "c": 3}


def weak_kind(value: Any) -> str | None:
    """'b', 'i', 'f' or 'c' for a Python scalar, None for anything else (NumPy scalars are strong)."""
    if isinstance(value, np.generic):
        return None
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int):
        return "i"
    if isinstance(value, float):
        return "f"
    if isinstance(value, complex):
        return "c"
    return None


def with_weak(dtype: np.dtype[Any], kind: str) -> np.dtype[Any]:
    """The dtype when a strong operand of ``dtype`` meets a Python scalar of ``kind``."""
    have = 0 if is_bool(dtype) else 1 if is_integer(dtype) else 2 if is_float(dtype) else 3
    want = _WEAK_ORDER[kind]
    if want <= have:
        return dtype
    if want == 1:
        return DTYPES["int64"]
    if want == 2:
        return DTYPES["float64"]
    return DTYPES["complex64" if dtype.name in ("float16", "bfloat16", "float32") else "complex128"]


def check_weak(value: Any, dtype: np.dtype[Any]) -> None:
    """ValueError if a Python int does not fit the integer dtype that it takes."""
    if is_integer(dtype) and isinstance(value, int) and not isinstance(value, bool):
        info = np.iinfo(dtype)
        if not info.min <= value <= info.max:
            raise GraphcValueError(
                f"the Python integer {value} does not fit {dtype.name} ({info.min}..{info.max}); "
                f"write gc.constant({value}) for a wider result")
