"""Every op of the table, by its examples: types agree with values, operands stay unchanged, gradients are the numeric ones."""

from __future__ import annotations

from typing import Any

import helpers
import numpy as np
import pytest
from helpers import COMPLEX, applied, draw, intervals, leaf, numeric_gradient, run, sizes_of

from graphc import dims, dtypes
from graphc.dims import Dim
from graphc.errors import GraphcError
from graphc.ir import Array, Graph, Op, apply, make_node, normal
from graphc.ops import OPS
from graphc.ops.elementwise_base import Elementwise
from graphc.ops.evaluate import evaluate, run_node
from graphc.ops.example import Example

#: ops without examples of their own: why
WITHOUT = {
    "constant": "its value is its attribute; every test uses it",
    "fused": "made by the pass fuse, and tested with it",
    "each": "a loop made by derivatives of vectors, and tested with them",
    "gradient": "a placeholder that the pass gradient replaces", "tangent": "a placeholder that the pass gradient replaces",
    "mark": "a placeholder that the pass gradient replaces",
    "disconnected_grad": "its gradient is not that of its value: test_gradient.py",
    "zero_grad": "its gradient is not that of its value: test_gradient.py",
    "grad_clip": "its gradient is not that of its value: test_gradient.py",
    "grad_scale": "its gradient is not that of its value: test_gradient.py",
}
#: examples of ops in the files on which Example stands
MORE: dict[str, tuple[Example, ...]] = {
    "cast": (
        Example([(3, 2)], {"dtype": np.dtype("float32")}, gradient=False, numpy=lambda x: x.astype("f4")),
        Example([(3,)], {"dtype": np.dtype("float64")}, "float32", gradient=False, numpy=lambda x: x.astype("f8")),
        Example([(3,)], {"dtype": np.dtype("int8")}, gradient=False, numpy=lambda x: np.trunc(x).astype("i1")),
        Example([(3,)], {"dtype": np.dtype("complex128")}, numpy=lambda x: x + 0j),
        Example([(3,)], {"dtype": np.dtype("float64")}, "complex128", numpy=lambda x: x.real)),
    "size_of": (Example([(3, 2)], {"axis": 1}, gradient=False, numpy=lambda x: np.asarray(2)),),
    "dim": (Example([], {"size": 5}, gradient=False, numpy=lambda: np.asarray(5)),),
    "broadcast_to": (
        Example([(3, 1)], {"shape": (2, 3, 4)}, analytic=True, numpy=lambda x: x + np.zeros((2, 3, 4))),
        Example([(3,), ()], {"shape": (None, 3)}, ("float64", "int64"), ((-3, 3), (2, 3)), numpy=lambda x, n: np.tile(x, (int(n), 1)))),
    "sum_to": (
        Example([(2, 3, 4)], {"shape": (3, 1)}, analytic=True, numpy=lambda x: x.sum((0, 2))[:, None]),
        Example([(2, 3), ()], {"shape": (None,)}, ("float64", "int64"), ((-3, 3), (3, 4)), numpy=lambda x, n: x.sum(0))),
}
EXAMPLES = [(op, e) for op in OPS.values() for e in (*op.examples, *MORE.get(op.name, ()))]
IDS = [f"{op.name}-{i}" for i, (op, _) in enumerate(EXAMPLES)]


def arrays_of(example: Example, rng: np.random.Generator, swap: dict[str, str] | None = None) -> list[Array]:
    """Random operands of an example; ``swap`` gives another dtype for one of its dtypes."""
    count = len(example.shapes)
    kinds = [example.dtypes] * count if isinstance(example.dtypes, str) else list(example.dtypes)
    kinds = [(swap or {}).get(k, k) for k in kinds]
    return [draw(rng, s, k, *r) for s, k, r in zip(example.shapes, kinds, intervals(example.domain, count), strict=True)]


def forward(op: Op, arrays: list[Array], attrs: Any) -> tuple[Array, ...]:
    frozen = [np.array(a) for a in arrays]
    for a in frozen:
        a.setflags(write=False)
    return tuple(np.asarray(r) for r in normal(op.forward(*frozen, **attrs)))


def test_every_op_has_examples() -> None:
    for name, op in OPS.items():
        stated = bool(op.examples) or name in MORE or isinstance(op, Elementwise) or name in WITHOUT
        assert stated, f"{name}: give the op examples (graphc/ops/example.py), or a reason in WITHOUT"
    stale = [n for n in (*WITHOUT, *MORE) if n not in OPS or OPS[n].examples]
    assert not stale, f"{stale} need no mention here any more"


def test_the_table_is_sound() -> None:
    """Names are keys, records are shared, facts have meaning, kinds are the known ones."""
    kinds = {"elementwise", "reduction", "movement", "indexing", "contraction", "creation", "control", "custom"}
    for name, op in OPS.items():
        assert op.name == name and name.isidentifier()
        assert op.kind in kinds or op.placeholder, f"{name}: kind {op.kind!r}"
        assert op.differentiable() or name in ("nextafter", *WITHOUT) or op.kind in ("creation", "control"), f"{name} has no gradient"


@pytest.mark.parametrize(("op", "example"), EXAMPLES, ids=IDS)
def test_value_and_types(op: Op, example: Example) -> None:
    """The value is that of the independent formula; infer says dtype and shape, with sizes known and unknown."""
    arrays = arrays_of(example, np.random.default_rng(1))
    values = forward(op, arrays, example.attrs)
    shared = [i for i, a in enumerate(arrays) for r in normal(op.forward(*arrays, **example.attrs)) if np.shares_memory(r, a)]
    assert not shared or (op.view and set(shared) == {0}), f"{op.name}: its result is a view of operand {shared}, and it does not say so"
    assert example.numpy is not None, f"{op.name}: the example has no independent value"
    with np.errstate(all="ignore"):
        for got, want in zip(values, normal(example.numpy(*arrays)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
            assert got.shape == np.shape(want)
    for unknown in (False, True):
        xs, node = applied(op, arrays, dict(example.attrs), unknown)
        env = sizes_of(xs, arrays)
        for got, v in zip(values, node.outputs, strict=True):
            assert got.dtype == v.type.dtype and got.ndim == v.type.ndim, f"{v.type} is not {got.dtype}{got.shape}"
            for n, size in zip(got.shape, v.type.shape, strict=True):
                if isinstance(size, int) or all(s.kind != "data" for s in dims.symbols(size)):
                    assert dims.evaluate(size, env) == n, f"{v.type} is not {got.shape} (unknown={unknown})"
        assert all(helpers.same_bits(a, b) for a, b in zip(run_node(node, arrays, env), values, strict=True))
    assert all(r.kind in ("equal", "broadcast") for r in op.relations([x.type for x in xs], example.attrs))


@pytest.mark.parametrize(("op", "example"), EXAMPLES, ids=IDS)
def test_other_dtypes(op: Op, example: Example) -> None:
    """Where infer takes another dtype, forward gives what infer said, near the value in float64."""
    if "float64" not in ([example.dtypes] if isinstance(example.dtypes, str) else example.dtypes):
        return
    for dtype, tolerance in (("float16", 3e-2), ("bfloat16", 0.25), ("float32", 1e-4), ("complex64", 1e-4), ("int32", None), ("bool", None)):
        arrays = arrays_of(example, np.random.default_rng(1), {"float64": dtype})
        try:
            _, node = applied(op, arrays, dict(example.attrs))
        except GraphcError:
            continue
        got = run_node(node, arrays, {})
        if tolerance is not None and dtype not in COMPLEX:
            wide = forward(op, [a.astype(np.float64) if dtypes.is_float(a.dtype) else a for a in arrays], example.attrs)
            for a, b in zip(got, wide, strict=True):
                if b.dtype.kind == "f":
                    scale = 1 + np.max(np.abs(b), initial=0, where=np.isfinite(b))
                    np.testing.assert_allclose(a.astype(np.float64), b, rtol=tolerance, atol=tolerance * scale, err_msg=f"{op.name} {dtype}")


def _emptied(example: Example) -> list[list[tuple[int, ...]]]:
    """The shapes with each size, wherever it stands, made 0 in turn."""
    sizes = sorted({n for s in example.shapes for n in s if n > 0})
    return [[tuple(0 if m == n else m for m in s) for s in example.shapes] for n in sizes]


def _emptied_attrs(value: Any, n: int) -> Any:
    return tuple(_emptied_attrs(v, n) for v in value) if isinstance(value, tuple) else 0 if type(value) is int and value == n else value


@pytest.mark.parametrize(("op", "example"), EXAMPLES, ids=IDS)
def test_zero_sizes(op: Op, example: Example) -> None:
    """With a size made 0: infer and forward agree, or one of them refuses (a position in an empty axis is an IndexError)."""
    rng = np.random.default_rng(2)
    sizes = sorted({n for s in example.shapes for n in s if n > 0})
    for n, shapes in zip(sizes, _emptied(example), strict=True):
        for attrs in (dict(example.attrs), {k: _emptied_attrs(v, n) if k == "shape" else v for k, v in example.attrs.items()}):
            arrays = arrays_of(Example(shapes, attrs, example.dtypes, example.domain), rng)
            try:
                _, node = applied(op, arrays, attrs)
                values = run_node(node, arrays, {})
            except (GraphcError, IndexError):
                continue
            for got, v in zip(values, node.outputs, strict=True):
                assert all(s == m for s, m in zip(v.type.shape, got.shape, strict=True) if isinstance(s, int)), f"{shapes}: {v.type} is not {got.shape}"


def sloped(op: Op, example: Example) -> list[int]:
    arrays = arrays_of(example, np.random.default_rng(1))
    node = applied(op, arrays, dict(example.attrs))[1]
    return [i for i, a in enumerate(arrays) if a.dtype.kind in "fc" and op.connected(i, node)]


@pytest.mark.parametrize(("op", "example"), [p for p in EXAMPLES if p[1].gradient],
                         ids=[i for i, p in zip(IDS, EXAMPLES, strict=True) if p[1].gradient])
def test_gradient(op: Op, example: Example) -> None:
    """Against central differences, and the complex step where the op is analytic; with sizes known and unknown."""
    rng = np.random.default_rng(4)
    arrays = arrays_of(example, rng)
    attrs = dict(example.attrs)
    base = forward(op, arrays, attrs)
    weights = [draw(rng, y.shape, y.dtype, -1, 1) if y.dtype.kind in "fc" else np.zeros(y.shape) for y in base]

    def cost(values: list[Array]) -> float:
        return float(sum(np.sum(np.conj(w) * y).real for w, y in zip(weights, forward(op, values, attrs), strict=True)))

    positions = sloped(op, example)
    assert positions, f"{op.name}: nothing to differentiate; say gradient=False"
    for position in positions:
        want = numeric_gradient(cost, arrays, position)
        for unknown in (False, True):
            got = backward(op, arrays, attrs, position, weights, unknown)
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7 * (1 + np.max(np.abs(want), initial=0)),
                                       err_msg=f"{op.name} operand {position} unknown={unknown}")
        if example.analytic:
            exact = complex_step(op, arrays, attrs, position, weights)
            np.testing.assert_allclose(got, exact, rtol=1e-11, atol=1e-12, err_msg=f"{op.name} operand {position} by the complex step")


def complex_step(op: Op, arrays: list[Array], attrs: dict[str, Any], position: int, weights: list[Array], step: float = 1e-150) -> Array:
    result = np.zeros(arrays[position].shape)
    for index in np.ndindex(result.shape):
        moved = [a.astype(np.complex128) if a.dtype.kind == "f" else a for a in arrays]
        moved[position][index] += 1j * step
        result[index] = sum(float(np.sum(w * np.imag(y))) for w, y in zip(weights, forward(op, moved, attrs), strict=True)) / step
    return result


def backward(op: Op, arrays: list[Array], attrs: dict[str, Any], position: int, weights: list[Array], unknown: bool = False) -> Array:
    """The gradient by the op's own formula."""
    xs, node = applied(op, arrays, attrs, unknown)
    gs = [leaf(f"g{i}", w.dtype, w.shape) for i, w in enumerate(weights)]
    if unknown:  # cotangents have the types of the results
        gs = [v if _closed(v.type.shape) else g for v, g in
              zip([leaf(f"g{i}", v.type.dtype, v.type.shape) for i, v in enumerate(node.outputs)], gs, strict=True)]
    d = op.bprop_at(position, xs, node.outputs, gs, node.attrs)
    assert d is not None and d.type.dtype == arrays[position].dtype
    assert d.type.ndim == arrays[position].ndim
    value = evaluate(Graph([*xs, *gs], [d]), [*arrays, *weights], sizes_of(xs, arrays))[0]
    assert value.shape == arrays[position].shape
    return value


def _closed(shape: Any) -> bool:
    return all(not isinstance(s, Dim) or all(x.kind != "data" for x in dims.symbols(s)) for s in shape)


def test_cotangents_that_do_not_come() -> None:
    """Ops with several results take None where nothing flows into a result."""
    for op, example in EXAMPLES:
        if op.nout > 1 and example.gradient:
            arrays = arrays_of(example, np.random.default_rng(1))
            xs, node = applied(op, arrays, dict(example.attrs))
            for k, y in enumerate(node.outputs):
                if y.type.dtype.kind not in "fc":
                    continue
                gs: list[Any] = [None] * op.nout
                gs[k] = leaf("g", y.type.dtype, y.type.shape)
                for position in sloped(op, example):
                    d = op.bprop_at(position, xs, node.outputs, gs, node.attrs)
                    assert d is None or run([*xs, gs[k]], [d], [*arrays, np.ones(y.type.shape, y.type.dtype)])[0].shape == arrays[position].shape  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.commutative and not isinstance(op, Elementwise)] or [None])
def test_commutative_ops_elsewhere(name: str | None) -> None:
    if name is not None:
        op = OPS[name]
        for example in op.examples:
            a, b = arrays_of(example, np.random.default_rng(1))
            assert helpers.same_bits(*forward(op, [a, b], example.attrs), *forward(op, [b, a], example.attrs))


@pytest.mark.parametrize("name", [n for n, op in OPS.items() if op.linear and not isinstance(op, Elementwise) and op.examples])
def test_linear_ops_add_up(name: str) -> None:
    """f(a x + b y) = a f(x) + b f(y) in the float operands."""
    op = OPS[name]
    for example in op.examples:
        first = arrays_of(example, np.random.default_rng(1))
        if not any(a.dtype.kind in "fc" for a in first):
            continue
        second = [b if a.dtype.kind in "fc" else a for a, b in zip(first, arrays_of(example, np.random.default_rng(2)), strict=True)]
        mixed = [2 * a - 3 * b if a.dtype.kind in "fc" else a for a, b in zip(first, second, strict=True)]
        for y, u, v in zip(*(forward(op, z, example.attrs) for z in (mixed, first, second)), strict=True):
            np.testing.assert_allclose(y, 2 * u - 3 * v, rtol=1e-10, atol=1e-10)


def test_one_node_per_builder_call_is_immutable() -> None:
    """A node's key does not depend on the order in which attributes were given."""
    x = leaf("x", "float64", (2, 3))
    a = make_node(OPS["sum"], [x], {"axis": (0,), "keepdims": False})
    b = make_node(OPS["sum"], [x], {"keepdims": False, "axis": (0,)})
    assert a.key == b.key and apply(OPS["neg"], x).node.key == apply(OPS["neg"], x).node.key  # type: ignore[union-attr]
