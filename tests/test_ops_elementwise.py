"""Every elementwise op of the table: values against independent functions, gradients against numeric ones, facts.

The loops run over ``graphc.ops.OPS``: an op added to the table without a reference here fails a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import helpers
import mpmath
import numpy as np
import pytest
import scipy.special
from helpers import COMPLEX, FLOATS, INTEGERS, assert_close, draw, intervals, leaf, numeric_gradient, run, same_bits, special

from graphc import dtypes
from graphc.errors import GraphcTypeError
from graphc.ir import Array, leaves
from graphc.ops import OPS
from graphc.ops.elementwise_base import Elementwise

TABLE = {name: op for name, op in OPS.items() if isinstance(op, Elementwise)}
STEP = 1e-150
#: attributes that an op needs
ATTRS: dict[str, dict[str, Any]] = {"polygamma": {"order": 1}}


def each(fn: Callable[..., Any]) -> Callable[..., Array]:
    """A Python function of floats or ints, element by element; a division by zero is what IEEE 754 says."""
    def safe(*values: Any) -> Any:
        try:
            return fn(*(float(v) if isinstance(v, np.floating) else v for v in values))
        except ZeroDivisionError:
            return np.divide(*(np.float64(v) for v in values))
        except (OverflowError, ValueError):
            return math.nan
    return lambda *arrays: np.frompyfunc(safe, len(arrays), 1)(*arrays)


def precise(fn: Callable[..., Any]) -> Callable[..., Array]:
    """A function of mpmath, at 40 digits; its poles and overflows are left to ``fn``."""
    def at(*values: Any) -> Any:
        with mpmath.workdps(40):
            return float(fn(*(mpmath.mpf(float(v)) for v in values)))
    return lambda *arrays: np.frompyfunc(at, len(arrays), 1)(*arrays)


def _erfinv(x: Any) -> Any:
    if mpmath.isnan(x) or abs(x) > 1:
        return mpmath.nan
    return mpmath.sign(x) * mpmath.inf if abs(x) == 1 else mpmath.erfinv(x)


def _bounded(v: Any) -> Any:
    """Within +-100: beyond, an error function is its limit."""
    return min(max(v, -100), 100)


def _gammaln(v: Any) -> Any:
    """Its poles and both infinities give inf, as in C."""
    if mpmath.isinf(v) or (v <= 0 and v == mpmath.floor(v)):
        return mpmath.inf
    return v if mpmath.isnan(v) else mpmath.re(mpmath.loggamma(v))


def _unit(z: Array) -> Array:
    return np.where(z == 0, 0, z / np.where(z == 0, 1, np.hypot(z.real, z.imag)))


def _median(a: Array, lo: Array, hi: Array) -> Array:
    y = np.where(a < lo, lo, a)
    y = np.where(y > hi, hi, y)
    return np.where((a != a) | (lo != lo) | (hi != hi), np.nan, y)


#: float and complex meaning, on arrays of long doubles
WIDE: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a, "div": lambda a, b: a / b,
    "floordiv": each(lambda a, b: a // b),
    "mod": each(lambda a, b: a % b if b else math.nan),
    "pos": lambda a: a, "sqr": lambda a: a * a, "reciprocal": lambda a: 1 / a,
    "abs": lambda a: np.hypot(a.real, a.imag) if a.dtype.kind == "c" else np.where(np.signbit(a), -a, a),
    "sign": lambda a: _unit(a) if a.dtype.kind == "c" else np.where(a > 0, 1, np.where(a < 0, -1, np.where(a == 0, 0, a))),
    "conj": lambda a: a.real - 1j * a.imag, "real": lambda a: (a + a.conj()).real / 2, "imag": lambda a: (a * -1j).real,
    "where": lambda c, a, b: np.choose(c, (b, a)),
    "equal": lambda a, b: a == b, "not_equal": lambda a, b: ~(a == b), "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: b < a, "greater_equal": lambda a, b: b <= a,
    "isnan": lambda a: a != a,
    "isinf": lambda a: np.vectorize(lambda z: bool(abs(z) == np.inf), otypes=[bool])(a),
    "isfinite": lambda a: np.vectorize(lambda z: bool(abs(z) < np.inf), otypes=[bool])(a),
    "signbit": each(lambda a: math.copysign(1.0, a) < 0),
    "maximum": lambda a, b: np.where((a != a) | (b != b), np.nan, np.where(a > b, a, b)),
    "minimum": lambda a, b: np.where((a != a) | (b != b), np.nan, np.where(a < b, a, b)),
    "clip": _median, "relu": lambda a: np.where(a > 0, a, np.where(a != a, a, 0)),
    "copysign": each(math.copysign),
    "floor": each(lambda a: math.floor(a) if math.isfinite(a) else a), "ceil": each(lambda a: math.ceil(a) if math.isfinite(a) else a),
    "trunc": each(lambda a: math.trunc(a) if math.isfinite(a) else a),
    "round": lambda a: np.round(a, 0),
    "pow": np.power, "sqrt": np.sqrt, "hypot": each(math.hypot), "exp": np.exp, "exp2": lambda a: np.exp2(a), "expm1": np.expm1,
    "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "logaddexp": np.logaddexp,
    "log1mexp": lambda a: np.log(-np.expm1(a)) if np.all(a > -1e-9) else np.where(a > -1, np.log(-np.expm1(a)), np.log1p(-np.exp(a))),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)), "softplus": lambda a: np.logaddexp(a, np.longdouble(0)),
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "atan2": each(math.atan2),
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": precise(lambda v: mpmath.erf(_bounded(v))), "erfc": precise(lambda v: mpmath.erfc(_bounded(v))), "erfinv": precise(_erfinv),
    "gammaln": precise(_gammaln), "digamma": lambda a: scipy.special.digamma(a.astype(float)),
    "polygamma": lambda a: np.where(a == -np.inf, np.nan, scipy.special.polygamma(1, a.astype(float))),
    "xlogy": lambda a, b: np.where((a == 0) & (b == b), 0, a * np.log(b)),
}

#: integer and bool meaning, on arrays of Python ints
WHOLE: dict[str, Callable[..., Any]] = {
    **{n: WIDE[n] for n in ("add", "sub", "mul", "neg", "pos", "sqr", "equal", "less", "less_equal", "greater", "greater_equal")},
    "not_equal": lambda a, b: a != b,
    "floordiv": each(lambda a, b: a // b if b else 0), "mod": each(lambda a, b: a % b if b else 0),
    "abs": each(lambda a: -a if a < 0 else a), "sign": each(lambda a: (a > 0) - (a < 0)),
    "where": lambda c, a, b: np.choose(c.astype(int), (b, a)),
    "isnan": each(lambda a: False), "isinf": each(lambda a: False), "isfinite": each(lambda a: True),
    "logical_and": each(lambda a, b: bool(a and b)), "logical_or": each(lambda a, b: bool(a or b)),
    "logical_xor": each(lambda a, b: bool(a) != bool(b)), "logical_not": each(lambda a: not a),
    "bitwise_and": each(lambda a, b: a & b), "bitwise_or": each(lambda a, b: a | b), "bitwise_xor": each(lambda a, b: a ^ b),
    "maximum": each(lambda a, b: b if a < b else a), "minimum": each(lambda a, b: a if a < b else b),
    "clip": each(lambda a, lo, hi: sorted((a, lo, hi))[1] if lo <= hi else hi), "relu": each(lambda a: a if a > 0 else 0),
    "ipow": each(lambda a, b: pow(a, b, 1 << 64) if b >= 0 else {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)),
}


def _nextafter(a: Array, b: Array) -> Array:
    view = {2: np.int16, 4: np.int32, 8: np.int64}[a.dtype.itemsize]
    step = np.where(b > a, 1, -1) * np.where(np.signbit(a), -1, 1)
    moved = (a.view(view) + step.astype(view)).view(a.dtype)
    tiny = np.array([1], view).view(a.dtype)[0]
    moved = np.where(a == 0, np.where(b > 0, tiny, -tiny), moved)
    return np.where((a != a) | (b != b), np.asarray(np.nan, a.dtype), np.where(a == b, b, moved)).astype(a.dtype)


def _shift(left: bool) -> Callable[[Array, Array], Array]:
    def fn(a: Array, b: Array) -> Array:
        bits = 8 * a.dtype.itemsize

        def one(x: Any, n: Any) -> int:
            inside = 0 <= int(n) < bits
            if left:
                return int(x) << int(n) if inside else 0
            return int(x) >> (int(n) if inside else bits)
        return wrapped(np.frompyfunc(one, 2, 1)(a, b), a.dtype)
    return fn


def wrapped(whole: Array, dtype: np.dtype[Any]) -> Array:
    """Python ints as integers of a dtype, modulo 2**bits."""
    bits = 8 * dtype.itemsize
    low = (1 << bits - 1) if dtype.kind == "i" else 0
    fold = np.frompyfunc(lambda v: (int(v) + low) % (1 << bits) - low, 1, 1)
    return np.asarray(fold(whole)).astype(dtype)


#: meaning that depends on the dtype, on the arrays themselves
RAW: dict[str, Callable[..., Any]] = {
    "nextafter": _nextafter, "left_shift": _shift(True), "right_shift": _shift(False),
    "invert": lambda a: np.array(a == 0) if a.dtype.kind == "b" else wrapped(np.frompyfunc(lambda v: -1 - int(v), 1, 1)(a), a.dtype),
}

#: results without rounding; the others may be this many units of the last place off
WITHIN = {"erfc": 8, "erfinv": 8, "gammaln": 128, "digamma": 32, "polygamma": 16, "pow": 4, "log1mexp": 8, "softplus": 8, "log1p": 8}


def expected(name: str, operands: list[Array], dtype: np.dtype[Any]) -> Array:
    """The value by the reference, rounded to ``dtype``."""
    with np.errstate(all="ignore"):
        if name in RAW:
            return np.asarray(RAW[name](*operands))
        kind = operands[-1].dtype.kind
        if kind in "biu":
            whole = WHOLE[name](*(a.astype(object) + 0 if a.dtype.kind != "b" else np.frompyfunc(int, 1, 1)(a) for a in operands))
            whole = np.asarray(whole)
            return whole.astype(bool) if dtype.kind == "b" else wrapped(whole, dtype)
        to = np.clongdouble if kind == "c" else np.longdouble
        wide = np.asarray(WIDE[name](*(a if a.dtype.kind == "b" else a.astype(np.float64).astype(to) if kind != "c" else a.astype(to)
                                       for a in operands)))
        if dtypes.is_float(dtype):
            wide = (wide.real if wide.dtype.kind == "c" else wide).astype(np.longdouble)
            return wide.astype(np.float64).astype(dtype) if dtype.name == "bfloat16" else wide.astype(dtype)
        return wide.astype(dtype)


def cases(op: Elementwise, dtype: str, rng: np.random.Generator) -> list[list[Array]]:
    """Operands: random ones from the domain, and every combination of special values (not of complex ones)."""
    ranges = intervals(op.domain, op.nin)
    first = [draw(rng, (40,), dtype, *r) for r in ranges]
    if dtype in COMPLEX:
        result = [first]
    else:
        awkward = special(dtype)
        if op.nin == 3:
            awkward = awkward[:9]
        result = [first, [g.ravel() for g in np.meshgrid(*[awkward] * op.nin)]]
    if op.name == "where":
        result = [[rng.integers(0, 2, a.shape).astype(bool), a, b] for _, a, b in result]
    return result


def test_every_op_has_a_reference() -> None:
    for name, op in TABLE.items():
        whole, wide = set("biu") & set(op.accepts), set("fc") & set(op.accepts)
        assert name in RAW or ((name in WHOLE or not whole) and (name in WIDE or not wide)), f"{name}: give an independent meaning in WIDE (floats), WHOLE (integers) or RAW"
        assert op.__doc__, f"{name}: says nothing about itself"
        assert op.scalar


@pytest.mark.parametrize("name", TABLE)
def test_values(name: str) -> None:
    op, rng = TABLE[name], np.random.default_rng(7)
    tried = 0
    for dtype in (*FLOATS, *COMPLEX, *INTEGERS, "bool"):
        for arrays in cases(op, dtype, rng):
            xs = [leaf(f"x{i}", a.dtype, a.shape) for i, a in enumerate(arrays)]
            try:
                y = op(*xs)
            except GraphcTypeError as error:
                kind = "f" if dtypes.is_float(dtypes.as_dtype(dtype)) else np.dtype(dtype).kind
                assert kind not in op.accepts and "does not take" in str(error), f"{dtype}: {error}"
                continue
            (got,) = run(xs, [y], arrays)
            assert got.dtype == y.type.dtype
            if y.node is None or not isinstance(y.node.op, Elementwise):  # whole or real already: x itself, or zeros
                assert not got.any() if name == "imag" else y is xs[0]
                assert name in ("conj", "real", "imag", "floor", "ceil", "trunc", "round")
                continue
            operands = [a.astype(v.type.dtype) for a, v in zip(arrays, y.node.inputs, strict=True)]
            want = expected(y.node.op.name, operands, got.dtype)
            assert_close(got, want, WITHIN.get(name, 4), f"{name} {dtype}")
            tried += 1
    assert tried > 0


@pytest.mark.parametrize("name", [n for n, op in TABLE.items() if op.nin > 1])
def test_broadcasting(name: str) -> None:
    """Shapes known and unknown give the shapes and values of operands expanded beforehand."""
    op, rng = TABLE[name], np.random.default_rng(3)
    dtype = "float64" if "f" in op.accepts else "bool" if op.accepts == "b" else "int64"
    for pattern in helpers.BROADCASTS:
        shapes = (pattern[0], *pattern)[-op.nin:]
        arrays = [draw(rng, s, dtype, *r) for s, r in zip(shapes, intervals(op.domain, op.nin), strict=True)]
        if name == "where":
            arrays[0] = arrays[0] > 0
        expanded = [np.array(a) for a in np.broadcast_arrays(*arrays)]
        want = expected(name, expanded, run(*_applied(op, expanded), expanded)[0].dtype)
        for unknown in (False, True):
            xs, [y] = _applied(op, arrays, unknown)
            (got,) = run(xs, [y], arrays)
            assert_close(got, want, 8, f"{name} {shapes}")
            if not unknown:
                assert y.type.shape == got.shape


def _applied(op: Any, arrays: list[Array], unknown: bool = False) -> Any:
    xs, node = helpers.applied(op, arrays, ATTRS.get(op.name), unknown)
    return xs, list(node.outputs)


def backward(op: Elementwise, arrays: list[Array], position: int, cotangent: Array) -> Array:
    """The op's own gradient formula, evaluated."""
    xs, [y] = _applied(op, arrays)
    g = leaf("g", y.type.dtype, y.type.shape)
    d = op.bprop_at(position, xs, [y], [g], ATTRS.get(op.name, {}))
    assert d is not None and d.type == xs[position].type
    return run([*xs, g], [d], [*arrays, cotangent])[0]


def value(op: Elementwise, arrays: list[Array]) -> Array:
    return op.forward(*arrays, **ATTRS.get(op.name, {}))


def operands_of(op: Elementwise, shapes: Any, dtype: str, rng: np.random.Generator) -> list[Array]:
    arrays = [draw(rng, s, dtype, *r) for s, r in zip(shapes, intervals(op.domain, op.nin), strict=True)]
    if op.name == "where":
        arrays[0] = draw(rng, shapes[0], "bool", 0, 2)
    return arrays


def sloped(op: Elementwise, dtype: str) -> list[int]:
    """The positions that a derivative flows to."""
    d = dtypes.as_dtype(dtype)
    if not op.differentiable() or ("f" if dtypes.is_float(d) else d.kind) not in op.accepts:
        return []
    if op.name == "where":
        return [1, 2]
    node = helpers.applied(op, [np.ones((), d)] * op.nin, ATTRS.get(op.name))[1]
    return [i for i in range(op.nin) if op.connected(i, node)]


@pytest.mark.parametrize("name", [n for n, op in TABLE.items() if sloped(op, "float64") or sloped(op, "complex128")])
def test_gradient_is_the_numeric_one(name: str) -> None:
    """Central differences in float64 and complex128, with broadcasting; every dtype keeps itself."""
    op, rng = TABLE[name], np.random.default_rng(11)
    for dtype in ("float64", "complex128"):
        for position in sloped(op, dtype):
            for pattern in (((2, 3), (3,)), ((2, 1), (1, 3)), ((0, 3), (3,))) if op.nin > 1 else (((4,),),):
                arrays = operands_of(op, (pattern[0], *pattern)[-op.nin:], dtype, rng)
                y = value(op, arrays)
                w = draw(rng, y.shape, y.dtype, -1, 1)

                def cost(values: list[Array], w: Array = w) -> float:
                    return float(np.sum(np.conj(w) * value(op, values)).real)

                want = numeric_gradient(cost, arrays, position)
                got = backward(op, arrays, position, w)
                np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7 * (1 + np.max(np.abs(want), initial=0)),
                                           err_msg=f"{name} {dtype} operand {position} {pattern}")
    for dtype in ("float16", "bfloat16", "float32", "complex64"):
        for position in sloped(op, dtype):
            arrays = operands_of(op, ((3,),) * op.nin, dtype, rng)
            got = backward(op, arrays, position, np.ones(3, value(op, arrays).dtype))
            close = backward(op, [a.astype(np.float64 if dtype != "complex64" else np.complex128) if a.dtype.kind != "b" else a
                                  for a in arrays], position, np.ones(3, np.complex128 if value(op, arrays).dtype.kind == "c" else float))
            tolerance = {"float16": 2e-2, "bfloat16": 0.15}.get(dtype, 1e-4)
            np.testing.assert_allclose(got.astype(close.dtype), close, rtol=tolerance, atol=tolerance, err_msg=f"{name} {dtype}")


@pytest.mark.parametrize("name", [n for n, op in TABLE.items() if op.analytic])
def test_gradient_is_the_complex_step(name: str) -> None:
    """imag f(x + ih) / h has no cancellation: the formulas hold to rounding."""
    op, rng = TABLE[name], np.random.default_rng(5)
    for position in sloped(op, "float64"):
        arrays = operands_of(op, ((50,),) * op.nin, "float64", rng)
        moved: list[Array] = [a if a.dtype.kind == "b" else a.astype(np.complex128) for a in arrays]
        moved[position] = moved[position] + 1j * STEP
        want = np.imag(op.forward(*moved)) / STEP
        np.testing.assert_allclose(backward(op, arrays, position, np.ones(50)), want, rtol=1e-12, atol=1e-13, err_msg=name)


def test_the_slope_of_polygamma_is_the_next_one() -> None:
    op, values = TABLE["polygamma"], np.array([0.7, 2.5, 11.0, -1.3])
    for order in (1, 2, 3):
        x, g = leaf("x", "float64", (4,)), leaf("g", "float64", (4,))
        y = op(x, order=order)  # type: ignore[call-arg]
        d = op.bprop_at(0, [x], [y], [g], {"order": order})
        assert d is not None
        got = run([x, g], [y, d], [values, np.ones(4)])
        for k in (0, 1):
            np.testing.assert_allclose(got[k], [float(mpmath.polygamma(order + k, v)) for v in values], rtol=1e-12)


@pytest.mark.parametrize(("name", "operands", "position"), [
    ("where", [np.array([False, True]), np.zeros(2), np.zeros(2)], 1), ("maximum", [np.array([0.0, 2.0]), np.ones(2)], 0),
    ("minimum", [np.array([2.0, 0.0]), np.ones(2)], 0), ("relu", [np.array([-1.0, 1.0])], 0),
    ("clip", [np.array([9.0, 0.5]), np.zeros(2), np.ones(2)], 0),
])
def test_cotangents_are_selected(name: str, operands: list[Array], position: int) -> None:
    """What was not chosen gets 0, whatever the cotangent is: nan * 0 would be nan."""
    for bad in (np.nan, np.inf):
        got = backward(TABLE[name], operands, position, np.array([bad, 1.0]))
        np.testing.assert_array_equal(got, [0.0, 1.0])


@pytest.mark.parametrize("name", TABLE)
def test_results_are_fresh(name: str) -> None:
    """A result never shares memory with an operand: a backend may overwrite one and keep the other."""
    op = TABLE[name]
    for dtype in (*_dtypes(op), *(COMPLEX if "c" in op.accepts else ())):
        arrays = operands_of(op, ((3,),) * op.nin, dtype, np.random.default_rng(0))
        assert not any(np.shares_memory(value(op, arrays), a) for a in arrays), f"{name} {dtype}"


# ---- facts --------------------------------------------------------------------------------------


def _pairs(dtype: str, n: int) -> list[Array]:
    values = special(dtype)
    return [g.ravel() for g in np.meshgrid(*[values if len(values) < 30 or n < 3 else values[::2]] * n)]


def _dtypes(op: Elementwise) -> list[str]:
    return [d for d in (*FLOATS, "int8", "int64", "uint8", "uint32", "bool")
            if ("f" if dtypes.is_float(dtypes.as_dtype(d)) else np.dtype(d).kind) in op.accepts]


def _agree(op: Elementwise, a: Array, b: Array) -> bool:
    """The same bits; which zero a maximum of 0.0 and -0.0 is, nobody says."""
    if op.name in ("maximum", "minimum") and dtypes.is_float(a.dtype):
        zero = np.zeros((), a.dtype)
        return same_bits(np.where(a == 0, zero, a), np.where(b == 0, zero, b))
    return same_bits(a, b)


@pytest.mark.parametrize("name", TABLE)
def test_facts_hold_for_special_values(name: str) -> None:
    op = TABLE[name]
    for dtype in _dtypes(op):
        d, floating = dtypes.as_dtype(dtype), dtypes.is_float(dtypes.as_dtype(dtype))
        x = special(dtype)
        where = f"{name} {dtype}"
        if op.commutative:
            a, b = _pairs(dtype, 2)
            assert _agree(op, op.forward(a, b), op.forward(b, a)), f"{where} does not commute"
        if op.associative and not floating:
            a, b, c = _pairs(dtype, 3)
            assert same_bits(op.forward(op.forward(a, b), c), op.forward(a, op.forward(b, c))), f"{where} does not associate"
        for fact in ("identity", "annihilator"):
            value = getattr(op, fact if floating else fact + "_int")
            if value is None:
                continue
            other = np.asarray(value, np.float64 if floating else np.int64).astype(d)
            want = x if fact == "identity" else np.full_like(x, other)
            assert same_bits(op.forward(x, other), want), f"{where}: {value} is no {fact}"
            if op.commutative:
                assert same_bits(op.forward(other, x), want), f"{where}: {value} is no {fact} from the left"
        if op.involution:
            assert same_bits(op.forward(op.forward(x)), x), f"{where} undoes itself"
        if op.idempotent and op.nin == 1:
            assert same_bits(op.forward(op.forward(x)), op.forward(x)), f"{where} twice"
        if op.idempotent and op.nin == 2:
            assert same_bits(op.forward(x, x), x), f"{where} of x and x"
        if op.monotone:
            line = np.sort(x[~np.isnan(x)].astype(np.float64)).astype(d) if floating else np.sort(x)
            y = op.forward(line).astype(np.float64)
            assert not np.isnan(y).any() and np.all(y[:-1] <= y[1:]), f"{where} is not monotone everywhere"


@pytest.mark.parametrize("name", [n for n, op in TABLE.items() if op.linear])
def test_linear_ops_read_no_operand_in_their_gradient(name: str) -> None:
    op = TABLE[name]
    dtype = "float64" if "f" in op.accepts else "complex128"
    xs = [leaf(f"x{i}", dtype, (3,)) for i in range(op.nin)]
    y = op(*xs)
    for position in range(op.nin):
        d = op.bprop_at(position, xs, [y], [leaf("g", y.type.dtype, (3,))], {})
        assert d is not None
        assert not {v.name for v in leaves([d])} & {x.name for x in xs}
