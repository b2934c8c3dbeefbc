"""What several test files need: leaves, special values, distances in units of the last place, numeric derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.ir import Array, Graph, Node, Op, Type, Var, make_node
from graphc.ops.evaluate import evaluate

FLOATS = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
BROADCASTS: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((0, 3), (3,)), ((1, 4), (0, 1)), ((2, 3), (2, 3)))


def leaf(name: str, dtype: Any, shape: Sequence[Any]) -> Var:
    """A free input; a None in ``shape`` is a size that only the call tells."""
    return Var(Type(dtypes.as_dtype(dtype), tuple(dims.as_size(s) for s in shape)), name=name)


def sizes_of(leaves: Sequence[Var], arrays: Sequence[Array]) -> dict[Any, int]:
    """What the door would find out: the number for each unknown size of the leaves."""
    env: dict[Any, int] = {}
    for v, a in zip(leaves, arrays, strict=True):
        for size, n in zip(v.type.shape, a.shape, strict=True):
            if isinstance(size, dims.Dim):
                symbol = size.symbol
                assert symbol is not None
                env[symbol] = n
    return env


def run(inputs: Sequence[Var], outputs: Sequence[Var], arrays: Sequence[Array]) -> list[Array]:
    """The outputs for these arguments, node by node with NumPy; arguments are read-only."""
    frozen = [np.array(a) for a in arrays]
    for a in frozen:
        a.setflags(write=False)
    return evaluate(Graph(inputs, outputs), frozen, sizes_of(inputs, frozen))


def applied(op: Op, arrays: Sequence[Array], attrs: dict[str, Any] | None = None, unknown: bool = False) -> tuple[list[Var], Node]:
    """Leaves for the arrays, and the op applied to them; ``unknown`` hides all sizes but those of the attributes."""
    xs = [leaf(f"x{i}", a.dtype, (None,) * a.ndim if unknown else a.shape) for i, a in enumerate(arrays)]
    return xs, make_node(op, xs, attrs or {})


def special(dtype: Any) -> Array:
    """Every awkward value of a dtype, and a few plain ones."""
    d = dtypes.as_dtype(dtype)
    if d.kind == "b":
        return np.array([False, True])
    if d.kind in "iu":
        info = np.iinfo(d)
        return np.array([info.min, info.min + 1, 0, 1, 2, 3, 7, info.max - 1, info.max] + ([-1, -2, -3, -7] if d.kind == "i" else []), d)
    if d.kind == "c":
        real = special(dtypes.real_of(d))
        result = np.empty((len(real), len(real)), d)
        result.real, result.imag = real[:, None], real[None, :]
        return result.ravel()
    values = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, 1.5, -2.5, 10.0, -30.0, 100.0, -100.0])
    tiny, big = _limits(d)
    return np.concatenate([values.astype(d), tiny, -tiny, big, -big])


def _limits(d: np.dtype[Any]) -> tuple[Array, Array]:
    """Subnormals and the smallest normal; the largest finite and values about the square root of it."""
    if d.name == "bfloat16":
        import ml_dtypes
        info: Any = ml_dtypes.finfo(d)
    else:
        info = np.finfo(d)
    tiny = np.array([info.smallest_subnormal, info.tiny], d)
    return tiny, np.array([info.max, np.sqrt(float(info.max)) * 2], d)


def ordered(a: Array) -> Array:
    """Floats as integers in the same order, so that neighbours differ by 1."""
    bits = np.ascontiguousarray(a).view({2: np.int16, 4: np.int32, 8: np.int64}[a.dtype.itemsize]).astype(object)
    top = 1 << (8 * a.dtype.itemsize - 1)
    return np.where(bits < 0, -(bits + top), bits)


def ulps(a: Array, b: Array) -> Array:
    """How many floats lie between; nan and nan are 0 apart, nan and a number are not near."""
    assert a.dtype == b.dtype, (a.dtype, b.dtype)
    nan_a, nan_b = np.isnan(a), np.isnan(b)
    distance = np.abs(ordered(a) - ordered(b))
    return np.where(nan_a & nan_b, 0, np.where(nan_a | nan_b, 1 << 62, distance))


def assert_close(got: Array, want: Array, within: float, what: str = "") -> None:
    """Within so many units of the last place; for complex numbers, of the larger part of the number."""
    assert got.dtype == want.dtype and got.shape == want.shape, f"{what}: {got.dtype}{got.shape} is not {want.dtype}{want.shape}"
    if got.dtype.kind == "c":
        eps = np.finfo(got.dtype).eps
        finite = np.isfinite(got) & np.isfinite(want)
        far = np.abs(np.where(finite, got - want, 0)) > within * eps * np.abs(np.where(finite, want, 1)) + np.finfo(got.dtype).tiny
        far |= np.isfinite(got) != np.isfinite(want)
    elif dtypes.is_float(got.dtype):
        far = ulps(got, want).astype(object) > within
    else:
        far = got != want
    if np.any(far):
        i = tuple(np.argwhere(far)[0])
        raise AssertionError(f"{what} at {i}: {got[i]!r}, expected {want[i]!r}; {int(np.sum(far))} of {got.size} differ")


def same_bits(a: Array, b: Array) -> bool:
    """Equal in every bit, any nan standing for any other."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "c":
        return same_bits(a.real.copy(), b.real.copy()) and same_bits(a.imag.copy(), b.imag.copy())
    if not dtypes.is_float(a.dtype):
        return bool(np.array_equal(a, b))
    return bool(np.all((np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))))


def draw(rng: np.random.Generator, shape: Sequence[int], dtype: Any, low: float, high: float) -> Array:
    """Random values of a dtype from an interval (integers: half open)."""
    d = dtypes.as_dtype(dtype)
    if d.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(bool)
    if d.kind in "iu":
        least = max(int(low), 0) if d.kind == "u" else int(low)
        return np.asarray(rng.integers(least, max(int(high), least + 1), shape)).astype(d)
    if d.kind == "c":
        return np.asarray(rng.uniform(low, high, shape) + 1j * rng.uniform(-1, 1, shape)).astype(d)
    return np.asarray(rng.uniform(low, high, shape)).astype(d)


def intervals(domain: Any, count: int) -> list[tuple[float, float]]:
    """A record's ``domain`` as one interval per operand."""
    if isinstance(domain[0], (tuple, list)):
        pairs = [tuple(p) for p in domain]
        return pairs + [pairs[-1]] * (count - len(pairs))  # type: ignore[return-value]
    return [tuple(domain)] * count


def numeric_gradient(f: Callable[[list[Array]], float], arrays: Sequence[Array], position: int, step: float = 1e-6) -> Array:
    """Central differences of a real function; for a complex operand dC/dRe + i dC/dIm."""
    result = np.zeros(arrays[position].shape, arrays[position].dtype)
    directions = (1.0, 1j) if result.dtype.kind == "c" else (1.0,)
    for index in np.ndindex(result.shape):
        for direction in directions:
            sides = []
            for h in (step, -step):
                moved = [np.array(a) for a in arrays]
                moved[position][index] += h * direction
                sides.append(f(moved))
            result[index] += direction * (sides[0] - sides[1]) / (2 * step)
    return result
