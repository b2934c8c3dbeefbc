"""Reverse mode in thirty lines, for tests of ops that must not depend on the gradient pass; and central differences."""

from __future__ import annotations

import numpy as np

from graphc import dims, dtypes
from graphc.ir import Graph, Type, Var, toposort
from graphc.ops.arithmetic import add, mul
from graphc.ops.core import constant
from graphc.ops.evaluate import evaluate


def leaf(array, symbolic=False, env=None):
    """An input of the array's type; ``symbolic``: each size is an unknown, whose value goes into ``env``."""
    array = np.asarray(array)
    shape = array.shape
    if symbolic:
        shape = tuple(dims.fresh("unknown") for _ in shape)
        env.update({d.symbol: n for d, n in zip(shape, array.shape, strict=True)})
    return Var(Type(dtypes.as_dtype(array.dtype), shape))


def run(f, *arrays, symbolic=False):
    """The value of ``f`` of inputs that hold the arrays."""
    env = {}
    arrays = [np.asarray(a) for a in arrays]
    vs = [leaf(a, symbolic, env) for a in arrays]
    return evaluate(Graph(vs, [f(*vs)]), arrays, env)[0]


def backward(y, wrt, seed):
    """The cotangents of ``wrt`` when ``y`` has cotangent ``seed``; None where nothing flows."""
    table = {y: seed}
    for node in reversed(toposort([y])):
        g = table.get(node.outputs[0])
        if g is None:
            continue
        for i, v in enumerate(node.inputs):
            if not dtypes.is_inexact(v.type.dtype) or not node.op.connected(i, node):
                continue
            part = node.op.bprop_at(i, node.inputs, node.outputs, [g], node.attrs)
            if part is not None:
                assert part.type.dtype == v.type.dtype and part.type.ndim == v.type.ndim, (node, i, part.type, v.type)
                table[v] = add(table[v], part) if v in table else part
    return [table.get(v) for v in wrt]


def gradient_of(f, x, seed, orders=1):
    """The gradient of sum(seed * f(x)), and of the sum of that gradient, by ``bprop``."""
    v = leaf(x)
    results, y, g = [], f(v), constant(np.asarray(seed))
    for _ in range(orders):
        y, = backward(y, [v], g)
        g = constant(np.ones(np.shape(x), np.asarray(x).dtype))
        if y is None:
            results.append(np.zeros_like(x))
            break
        results.append(evaluate(Graph([v], [y]), [np.asarray(x)], {})[0])
    return results


def _built(f, arrays, symbolic):
    env = {}
    vs = [leaf(a, symbolic, env) for a in arrays]
    y = f(*vs)
    shape = evaluate(Graph(vs, [y]), arrays, env)[0].shape
    rng = np.random.default_rng(3)
    weights = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtypes.is_complex(y.type.dtype) else 0)
    return env, vs, y, weights


def _differences(scalar, arrays, h=1e-5):
    """Central differences; for complex entries d/dRe + i d/dIm."""
    results = []
    for k, a in enumerate(arrays):
        g = np.zeros_like(a)
        for i in np.ndindex(a.shape):
            for step in ((h, 1j * h) if a.dtype.kind == "c" else (h,)):
                up, down = [b.copy() for b in arrays], [b.copy() for b in arrays]
                up[k][i] += step
                down[k][i] -= step
                g[i] += (scalar(up) - scalar(down)) / (2 * h) * (step / h)
        results.append(g)
    return results


def check_gradient(f, *arrays, symbolic=False, rtol=1e-6, atol=1e-7):
    """``bprop`` of a weighted sum of ``f`` against central differences, for each array."""
    arrays = [np.array(a) for a in arrays]
    env, vs, y, weights = _built(f, arrays, symbolic)
    grads = backward(y, vs, constant(weights.astype(y.type.dtype)))
    value = Graph(vs, [y])
    want = _differences(lambda xs: float((np.conj(weights) * evaluate(value, xs, env)[0]).sum().real), arrays)
    for v, g, w, a in zip(vs, grads, want, arrays, strict=True):
        got = np.zeros_like(a) if g is None else evaluate(Graph(vs, [g]), arrays, env)[0]
        assert got.shape == a.shape and got.dtype == v.type.dtype
        np.testing.assert_allclose(got, w, rtol=rtol, atol=atol)


def check_second(f, *arrays, symbolic=False):
    """The gradient of a weighted gradient likewise, for real arrays: second derivatives, those of ``bprop``'s own formulas."""
    arrays = [np.array(a) for a in arrays]
    env, vs, y, weights = _built(f, arrays, symbolic)
    for k, first in enumerate(backward(y, vs, constant(weights.astype(y.type.dtype)))):
        if first is None:
            continue
        w = np.random.default_rng(4).normal(size=arrays[k].shape)
        graph = Graph(vs, [mul(first, w)])
        want = _differences(lambda xs, graph=graph: float(evaluate(graph, xs, env)[0].sum()), arrays)
        grads = backward(first, vs, constant(w))
        for g, expected, a in zip(grads, want, arrays, strict=True):
            got = np.zeros_like(a) if g is None else evaluate(Graph(vs, [g]), arrays, env)[0]
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
