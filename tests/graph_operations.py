"""The operations that the fuzzer puts into random graphs: one table, each entry a small function of the builder.

An entry gives a variable, a list of them, or None where the pool has nothing that fits.
``exact`` says that the result carries no rounding if the operands do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import graphc as gc
from graphc.errors import GraphcError
from graphc.ir import Var
from graphc.passes.pattern import AXES, CONSTANTS, Axes, parameters
from graphc.passes.rules import RULES

if TYPE_CHECKING:
    from graph_strategies import Builder, Value

Build = Callable[["Builder"], Any]


@dataclass(frozen=True)
class Operation:
    """How often (``weight``), how (``build``), and whether results are exact."""

    name: str
    weight: int
    build: Build
    exact: bool = False


OPERATIONS: list[Operation] = []


def number(x: Var) -> Var:
    """1 in the place of NaN: the sign of a NaN that is a result means nothing."""
    return gc.where(gc.isnan(x), 1, x)


def operation(weight: int, exact: bool = False) -> Callable[[Build], Build]:
    def enter(build: Build) -> Build:
        OPERATIONS.append(Operation(build.__name__, weight, build, exact))
        return build
    return enter


SCALARS = (1.0, 2.0, 0.0, -1.0, 0.5, 3.0, -2.0, 1, 2, -1, 0)


def _second(b: Builder, a: Value) -> Any:
    """The other operand of an arithmetic operation: a value, a Python scalar, or a constant."""
    way = b.source.below(10)
    if way < 7:
        other = b.partner(a, "fc" if way < 5 else "biufc")
        if other is not None:
            return other.var
    if way == 9:
        return np.asarray(b.pick(SCALARS), a.array.dtype)
    return b.pick(SCALARS)


# ---- elementwise --------------------------------------------------------------------------------


@operation(16)
def arithmetic(b: Builder) -> Any:
    a = b.value("fc")
    if a is None:
        return None
    other = _second(b, a)
    x, y = (a.var, other) if b.chance(70) else (other, a.var)
    way = b.source.below(8)
    if way < 2:
        return x * y
    if way < 4:
        return x + y
    if way == 4:
        return x - y
    if way == 5:
        return x / (gc.abs(y) + 0.5) if b.chance(70) else x / y
    if way == 6:
        return gc.square(a.var)
    return -a.var


@operation(6)
def unary(b: Builder) -> Any:
    a = b.value("f")
    if a is None:
        return None
    fn = b.pick([gc.tanh, gc.sigmoid, gc.exp, gc.softplus, gc.sin, gc.cos, gc.log1p, gc.expm1, gc.erf, gc.sqrt, gc.log, gc.arctan,
                 gc.sinh, gc.reciprocal, gc.log2, gc.exp2, gc.arcsinh, gc.tan, gc.log10, gc.erfc, gc.cosh, gc.arcsin, gc.arccos, gc.arctanh,
                 gc.arccosh, gc.gammaln, gc.digamma, gc.log1mexp, gc.erfinv])
    x = a.var
    if fn in (gc.arcsin, gc.arccos, gc.arctanh, gc.erfinv):
        x = gc.tanh(x) * 0.9
    elif fn is gc.arccosh:
        x = gc.abs(x) + 1.5
    elif fn is gc.log1mexp:
        x = -gc.abs(x) - 0.25
    elif fn in (gc.gammaln, gc.digamma):
        x = gc.abs(x) + 0.5
    if fn in (gc.log, gc.sqrt, gc.log1p, gc.reciprocal, gc.log2, gc.log10):
        if not b.special or b.chance(50):
            x = gc.abs(x) + 0.5 if b.chance(70) else gc.square(x) + 1.0
    elif fn is gc.tan:
        x = gc.tanh(x)
    return fn(x)


@operation(3, exact=True)
def unary_exact(b: Builder) -> Any:
    a = b.value("f", exact=True)
    if a is None:
        return None
    fn = b.pick([gc.abs, gc.sign, gc.floor, gc.ceil, gc.trunc, gc.round, gc.relu, gc.negative, gc.positive])
    return fn(a.var)


@operation(2)
def binary_function(b: Builder) -> Any:
    found = b.two("f")
    if found is None:
        return None
    a, c = found
    fn = b.pick([gc.hypot, gc.arctan2, gc.logaddexp, lambda x, y: gc.power(gc.abs(x) + 0.5, y), lambda x, y: gc.xlogy(x, gc.abs(y) + 0.5), lambda x, y: gc.copysign(x, number(y))])
    return fn(a.var, c.var)


@operation(2)
def powers(b: Builder) -> Any:
    a = b.value("f")
    if a is None:
        return None
    exponent = b.pick([2, 3, 1, 0, 0.5, -1, 2.0, 1.5, -0.5, -2])
    base = a.var if isinstance(exponent, int) and exponent >= 0 else gc.abs(a.var) + 0.5
    return base ** exponent


@operation(4, exact=True)
def choose_largest(b: Builder) -> Any:
    a = b.value("iuf")
    if a is None:
        return None
    c = b.partner(a, "iuf") if b.chance(60) else None
    other = c.var if c is not None else b.pick(SCALARS[:8])
    way = b.source.below(4)
    if way == 0:
        return gc.maximum(a.var, other)
    if way == 1:
        return gc.minimum(other, a.var)
    if way == 2:
        return gc.clip(a.var, -1, 2)
    return gc.clip(a.var, None, 1) if b.chance(50) else gc.clip(a.var, -1, None)


@operation(5, exact=True)
def compare(b: Builder) -> Any:
    a = b.value("biuf", exact=True)
    if a is None:
        return None
    c = b.partner(a, "biuf", exact=True) if b.chance(60) else None
    other = c.var if c is not None else b.pick([0, 1, 0.5, -1, 1.0]) if a.kind != "b" else True
    way = b.source.below(6)
    x = a.var
    return [lambda: x > other, lambda: x < other, lambda: x >= other, lambda: x <= other, lambda: x == other, lambda: x != other][way]()


@operation(2, exact=True)
def classify(b: Builder) -> Any:
    a = b.value("f")
    return None if a is None else b.pick([gc.isnan, gc.isfinite, gc.isinf, lambda x: gc.signbit(number(x))])(a.var)


@operation(3, exact=True)
def logic(b: Builder) -> Any:
    a = b.value("b")
    if a is None:
        return None
    c = b.partner(a, "b")
    if c is None or b.chance(25):
        return b.pick([gc.logical_not(a.var), ~a.var])
    return b.pick([gc.logical_and, gc.logical_or, gc.logical_xor, lambda x, y: x & y, lambda x, y: x | y])(a.var, c.var)


@operation(5, exact=True)
def select(b: Builder) -> Any:
    c = b.value("b")
    x = b.partner(c, "biufc") if c is not None else None
    if c is None or x is None:
        return None
    y = b.partner(x, "biufc") if b.chance(60) else None
    other = y.var if y is not None else b.pick([0.0, 1.0, 0, np.nan]) if x.kind in "fc" else 0
    if y is not None:
        try:
            np.broadcast_shapes(c.shape, x.shape, y.shape)
        except ValueError:
            return None
    return gc.where(c.var, x.var, other) if b.chance(60) else gc.where(c.var, other, x.var)


@operation(5, exact=True)
def integers(b: Builder) -> Any:
    a = b.value("iu")
    if a is None:
        return None
    c = b.partner(a, "iu") if b.chance(60) else None
    y = c.var if c is not None else b.pick([1, 2, -1, 0, 3])
    x = a.var
    way = b.source.below(11)
    if way >= 8:
        return [lambda: gc.abs(x), lambda: -x, lambda: x << 1 if b.chance(50) else x >> 1][way - 8]()
    return [lambda: x + y, lambda: x * y, lambda: x - y, lambda: x // y, lambda: x % y, lambda: x & y, lambda: x | y, lambda: x ^ y][way]()


@operation(1)
def modulo(b: Builder) -> Any:
    a = b.value("f", exact=True)
    if a is None:
        return None
    return a.var % b.pick([2.0, 3.0, -1.5]) if b.chance(50) else a.var // b.pick([2.0, 4.0, -1.0])


@operation(4, exact=True)
def cast(b: Builder) -> Any:
    def safe(v: Value) -> bool:
        return v.kind in "biu" or bool(np.isfinite(v.array).all() and (np.abs(v.array) < 100).all())
    to = b.pick(["float64", "float32", "int64", "bool", "int32", "int8", "complex128"])
    if np.dtype(to).kind in "bi":
        a = b.value("biuf", safe, exact=True)
    else:
        a = b.value("biufc" if to == "complex128" else "biuf")
    return None if a is None else gc.cast(a.var, to)


@operation(2)
def complex_parts(b: Builder) -> Any:
    a = b.value("c")
    if a is None:
        return None
    return b.pick([gc.real, gc.imag, gc.conj, gc.abs, lambda z: z * gc.conj(z), lambda z: gc.exp(z * 0.1), gc.sin])(a.var)


# ---- the shapes that rewrite rules look for -------------------------------------------------------


@operation(12)
def pattern(b: Builder) -> Any:
    """Expressions as people write them, for which the passes have rules."""
    found = b.two("f")
    if found is None:
        return None
    a, c = found
    x, y = a.var, c.var
    one = b.pick([1, 1.0, 1.0])
    return b.pick([
        lambda: gc.log(one + gc.exp(x)), lambda: gc.log(gc.exp(x) + one), lambda: gc.exp(x) - one, lambda: one - gc.exp(x),
        lambda: gc.log(one - gc.exp(-gc.abs(x) - 0.1)), lambda: gc.log(one + gc.abs(x)), lambda: gc.log(gc.abs(x) + one),
        lambda: x / gc.exp(y), lambda: gc.exp(x) * gc.exp(y), lambda: gc.exp(x) / gc.exp(y), lambda: gc.exp(x) / (one + gc.exp(x)),
        lambda: one / (one + gc.exp(-x)), lambda: gc.log(gc.sigmoid(x)), lambda: gc.log(one - gc.sigmoid(x)), lambda: one - gc.sigmoid(x),
        lambda: gc.log(gc.exp(x) + gc.exp(y)), lambda: gc.log(gc.exp(x)), lambda: gc.exp(gc.log(gc.abs(x) + 0.5)),
        lambda: gc.sqrt(gc.square(x)), lambda: gc.square(gc.sqrt(gc.abs(x))), lambda: gc.sqrt(x * x), lambda: gc.abs(gc.abs(x)),
        lambda: x + 0, lambda: 0.0 + x, lambda: x - 0.0, lambda: x * 1, lambda: x * 0, lambda: x / 1, lambda: x * -1, lambda: gc.negative(-x),
        lambda: x - x, lambda: x / (gc.square(x) + 1) * (gc.square(x) + 1), lambda: (x + y) - y, lambda: x + x, lambda: x * 2 / 2,
        lambda: x * 2 * 3, lambda: x + 2 + 3, lambda: x / 2 / 4, lambda: x * y + x * y, lambda: x * y + x, lambda: (-x) * (-y),
        lambda: x - (-y), lambda: (-x) - y, lambda: -(x - y), lambda: (x * -1.0) + y, lambda: x ** 2 * x, lambda: (x ** 2) ** 2,
        lambda: gc.maximum(x, x), lambda: gc.maximum(x, 0), lambda: gc.minimum(gc.maximum(x, -1.0), 1.0), lambda: gc.maximum(0.0, -x),
        lambda: gc.where(x > 0, x, 0), lambda: gc.where(x > 0, x, x), lambda: gc.where(x < y, x, y), lambda: x * (x > 0),
        lambda: gc.where(x > 0, gc.log(gc.where(x > 0, x, 1.0)), 0.0), lambda: gc.where(x > 0, gc.sqrt(x), 0.0) if b.special else gc.abs(x),
        lambda: gc.log(gc.softmax(x, axis=-1)) if a.shape and a.shape[-1] else -x, lambda: gc.tanh(-x), lambda: gc.cos(-x), lambda: gc.sin(-x),
        lambda: gc.log(gc.sum(gc.exp(x))) if a.array.size else x, lambda: gc.log(gc.mean(gc.exp(x))) if a.array.size else x,
        lambda: gc.sum(x * 2.0), lambda: gc.sum(-x), lambda: gc.sum(x + x), lambda: gc.sum(x / 2.0), lambda: gc.mean(gc.square(x - gc.mean(x))) if a.array.size else x,
        lambda: gc.sum(gc.ones_like(x) * 3.0), lambda: gc.zeros_like(x) + y, lambda: gc.ones_like(y) * x, lambda: gc.full_like(x, 2.0) * x,
        lambda: gc.sign(x) * gc.abs(x), lambda: gc.abs(x * y), lambda: gc.abs(-x), lambda: gc.relu(gc.relu(x)), lambda: gc.exp(-x) * gc.exp(x),
        lambda: gc.sigmoid(x) * gc.exp(-x), lambda: 1 - (1 - x), lambda: gc.expm1(gc.log1p(gc.abs(x))), lambda: gc.log1p(-gc.sigmoid(x)),
        lambda: x * gc.reciprocal(gc.abs(y) + 0.5), lambda: gc.exp(x) - gc.exp(y), lambda: (gc.exp(x) - gc.exp(-x)) / (gc.exp(x) + gc.exp(-x)),
        lambda: gc.cast(gc.cast(x, "float64"), "float32"), lambda: gc.cast(gc.cast(x, "float32"), "float64"), lambda: gc.cast(x > 0, "float64") * x,
    ])()


PATTERNS = tuple(r for r in RULES if r.fn is None)


@operation(12)
def rule_pattern(b: Builder) -> Any:
    """The left side of a rewrite rule, on values of the graph."""
    rule = b.pick(PATTERNS)
    form = b.pick(rule.forms)
    names = parameters(form)
    anchor = b.value("".join(k for k in "iufc" if k in rule.kinds) or "b", lambda v: AXES not in names or (v.array.ndim > 0 and v.array.size > 0))
    if anchor is None:
        return None
    given: dict[str, Any] = {}
    shape = anchor.shape
    for name in names:
        if name == AXES:
            n = anchor.array.ndim
            given[name] = Axes((b.between(0, n - 1),) if b.chance(70) else tuple(range(n)), b.chance(50), n)
        elif name in CONSTANTS:
            given[name] = gc.constant(np.asarray(b.pick([2, 3, -1, 1, 0.5, -2]), anchor.array.dtype))
        elif not any(isinstance(v, Var) for v in given.values()):
            given[name] = anchor.var
        else:
            found = b.partner(anchor, "b" if name in ("c", "d") else anchor.kind)
            found = anchor if found is None else found
            try:
                shape = np.broadcast_shapes(shape, found.shape)
            except ValueError:  # it fits the first operand, but not the second
                found = anchor
            given[name] = found.var
        wanted = "bool" if name in ("c", "d") else "complex128" if name == "z" else anchor.array.dtype
        if isinstance(given[name], Var) and given[name].dtype != wanted:
            given[name] = given[name] != 0 if wanted == "bool" else gc.cast(given[name], wanted)
    try:
        result = form(**given)
        b.evaluate(result)
    except (GraphcError, ValueError):
        return None  # an op that does not take the dtype; a reduced value that does not meet its operand
    return result


@operation(2, exact=True)
def bool_pattern(b: Builder) -> Any:
    a = b.value("iuf", exact=True)
    if a is None:
        return None
    x = a.var
    return b.pick([lambda: x == x, lambda: x != x, lambda: x < x, lambda: ~(x < 1), lambda: gc.logical_not(x >= 0), lambda: (x > 0) & (x > 0),
                   lambda: (x > 0) | True, lambda: (x > 0) & False, lambda: gc.logical_not(gc.logical_not(x > 0)), lambda: gc.cast(x, "bool"),
                   lambda: gc.cast(gc.cast(x > 0, "int64"), "bool"), lambda: gc.abs(x) >= 0, lambda: gc.isnan(x * 0) if a.kind == "f" else x > 1])()


# ---- reductions and products ----------------------------------------------------------------------


def _axes(b: Builder, v: Value) -> Any:
    n = v.array.ndim
    way = b.source.below(4)
    if way == 0 or n == 0:
        return None
    if way < 3 or n == 1:
        return b.between(-n, n - 1)
    return (0, n - 1)


def _reduced_size(v: Value, axis: Any) -> int:
    axes = range(v.array.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return int(np.prod([v.shape[i] for i in axes], dtype=int))


@operation(8)
def reduce_float(b: Builder) -> Any:
    a = b.value("fc")
    if a is None:
        return None
    axis = _axes(b, a)
    keepdims = b.chance(35)
    way = b.source.below(8)
    if way < 4:
        return gc.sum(a.var, axis=axis, keepdims=keepdims)
    if not _reduced_size(a, axis):
        return None
    if way < 6:
        return gc.mean(a.var, axis=axis, keepdims=keepdims)
    if way == 6 and a.kind == "f":
        return gc.var(a.var, axis=axis, keepdims=keepdims)
    return gc.prod(gc.tanh(a.var) if a.kind == "f" else a.var, axis=axis, keepdims=keepdims)


@operation(4, exact=True)
def reduce_exact(b: Builder) -> Any:
    a = b.value("biuf", exact=True)
    if a is None:
        return None
    axis = _axes(b, a)
    keepdims = b.chance(35)
    if a.kind == "b":
        return b.pick([gc.any, gc.all])(a.var, axis=axis, keepdims=keepdims)
    if a.kind in "iu" and b.chance(50):
        return gc.sum(a.var, axis=axis, keepdims=keepdims)
    if not _reduced_size(a, axis):
        return None
    if not isinstance(axis, tuple) and b.chance(30):
        return b.pick([gc.argmax, gc.argmin])(a.var, axis=axis, keepdims=keepdims)
    return b.pick([gc.max, gc.min])(a.var, axis=axis, keepdims=keepdims)


@operation(4)
def softmaxes(b: Builder) -> Any:
    a = b.value("f", lambda v: v.array.ndim > 0)
    if a is None:
        return None
    axis = b.between(-a.array.ndim, a.array.ndim - 1)
    if not a.shape[axis]:
        return None
    way = b.source.below(4)
    if way == 0:
        return gc.softmax(a.var, axis=axis)
    if way == 1:
        return gc.log_softmax(a.var, axis=axis)
    if way == 2:
        return gc.logsumexp(a.var, axis=axis, keepdims=b.chance(50))
    e = gc.exp(a.var - gc.max(a.var, axis=axis, keepdims=True)) if b.chance(50) else gc.exp(a.var)
    return e / gc.sum(e, axis=axis, keepdims=True)


@operation(2)
def cumulative(b: Builder) -> Any:
    a = b.value("fi", lambda v: v.array.ndim > 0)
    if a is None:
        return None
    axis = b.between(0, a.array.ndim - 1)
    if a.kind == "f" and b.chance(30):
        return gc.cumprod(gc.tanh(a.var), axis=axis)
    return gc.cumsum(a.var, axis=axis)


@operation(6)
def products(b: Builder) -> Any:
    a = b.value("fc", lambda v: v.array.ndim >= 1)
    if a is None:
        return None
    k = a.shape[-1]
    way = b.source.below(6)

    def inner(v: Value) -> bool:
        if v.array.ndim == 1:
            return v.shape[0] == k
        return v.array.ndim == 2 and v.shape[0] == k
    if way < 3:
        c = b.value("fc", inner)
        return None if c is None else a.var @ c.var
    if way == 3:
        if a.array.ndim != 2:
            return None
        return a.var @ a.var.T if b.chance(60) else a.var.T @ a.var
    if way == 4:
        c = b.value("f", lambda v: v.array.ndim >= 1 and v.shape[0] == k)
        return None if c is None else gc.tensordot(a.var, c.var, axes=1)
    if a.array.ndim == 2:
        c = b.value("f", lambda v: v.array.ndim == 2 and v.shape[1] == k)
        if c is not None:
            return gc.einsum(b.pick(["ij,kj->ik", "ij,kj->ki", "ij,kj->i", "ij,kj->"]), a.var, c.var)
        return gc.einsum(b.pick(["ij->ji", "ij->i", "ij->"]), a.var)
    c = b.value("f", lambda v: v.array.ndim == 1)
    return None if c is None or a.array.ndim != 1 else gc.outer(a.var, c.var)
