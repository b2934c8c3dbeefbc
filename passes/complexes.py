"""``complexes``: complex arithmetic as arithmetic of the parts, for backends that run kernels.

What it promises: the values of the ops' ``forward``, nan, inf and the signs of zeros where NumPy has them, but for the last bits.

    add, sub, neg, conj, ...       part by part, as ``where``, sums and everything that only moves elements
    mul, sqr, squares and cubes    (ac - bd) + i (ad + bc), each product and sum rounded
    div, reciprocal                Smith's algorithm, as NumPy does it
    abs                            hypot
    equal, isnan, ...              of both parts
    matmul, einsum of two          real products: see ``_product``
    conv, conv_input, conv_weight  four real ones

A complex value that is computed here is ``complex_of(re, im)``, and who computes with it reads ``re`` and ``im``: where nobody else
needs it, it is never put together.  Where it is, one kernel writes both parts.  Of any other complex value (an argument, what a call-out
gives) the parts are ``real`` and ``imag``, views of its memory.  Moves of such a value stay as they are: they are views too.

All other ops (exp, powers, sorting, transforms) stay call-outs on complex arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from graphc import dims
from graphc.dtypes import is_complex, real_of
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Var, apply, make_node, rebuild
from graphc.ops.arithmetic import abs as abs_
from graphc.ops.arithmetic import add, div, imag, mul, neg, real, sub, where
from graphc.ops.broadcasting import broadcast_to, broadcast_to_op
from graphc.ops.choosing import copysign
from graphc.ops.comparison import equal, greater_equal, isfinite, isinf, isnan, logical_and, logical_or, not_equal
from graphc.ops.complexes import complex_of_op, sifted_product_op, view_as_complex_op, view_as_real_op
from graphc.ops.contraction import label_sizes, matmul_op, roles, split, swapped
from graphc.ops.core import cast, constant, constant_value, is_door
from graphc.ops.indexing import subtensor
from graphc.ops.joining import concatenate
from graphc.ops.movement import expand_dims, reshape, squeeze, transpose, transpose_op
from graphc.ops.reduction import sum as sum_
from graphc.ops.slicing import WHOLE
from graphc.ops.transcendental import hypot
from graphc.passes.context import Context, Rewrite
from graphc.passes.merge import merge

__all__ = ["complexes"]

Pair = tuple[Var, Var]

#: ops that do the same to both parts of their complex operands
PARTWISE = frozenset({
    "add", "sub", "neg", "pos", "round", "where", "sum", "sum_to", "cumsum", "shift", "roll", "pad", "place_diagonal", "tril", "triu",
    "take_along_axis", "inc_along_axis", "set_along_axis", "set_subtensor", "inc_subtensor", "advanced_subtensor",
    "advanced_set_subtensor", "advanced_inc_subtensor", "windows", "overlap_add",
})
#: the same, and views of whatever lies in memory
VIEWS = frozenset({"reshape", "transpose", "expand_dims", "squeeze", "flip", "diagonal", "broadcast_to", "subtensor"})
#: views after which elements do not lie one after the other along the last axis
TURNS = frozenset({"transpose", "flip", "broadcast_to", "diagonal", "windows"})


def complexes(graph: Graph, context: Context) -> Graph:
    """Complex values as pairs of real ones; see the module's docstring."""
    if not context.native:
        return graph
    nodes = graph.nodes
    if not any(v.type.dtype.kind == "c" for node in nodes for v in node.outputs) and not any(is_complex(v.type.dtype) for v in graph.inputs + graph.shared):
        return graph
    if not all(is_door(size) for node in nodes for v in node.outputs for size in v.type.shape):
        return graph  # it will run node by node

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if len(node.outputs) != 1 or not any(is_complex(v.type.dtype) for v in (*inputs, *node.outputs)):
            return None
        out = node.outputs[0]
        with on_behalf_of(node.origin.by("complexes")):
            y = _rewritten(node, inputs)
        if y is None:
            return None
        if y.type.shape != out.type.shape:
            y = _full(y, out)
        assert y.type == out.type, (node.op.name, y.type, out.type)
        if y.name is None and y.node is not None:
            y.name = out.name
        context.log.append(Rewrite("complexes", out, y))
        return [y]

    return merge(graph.with_roots(rebuild(graph.roots, {}, visit=visit)), context)


def _full(y: Var, like: Var) -> Var:
    """Parts that broadcast, in the shape of the result."""
    if is_made(y):
        assert y.node is not None
        return _complex(*(broadcast_to(part, like.type.shape) for part in y.node.inputs))
    return broadcast_to(y, like.type.shape)


def is_made(v: Var) -> bool:
    """Is it put together from parts?"""
    return v.node is not None and v.node.op is complex_of_op


def is_split(v: Var) -> bool:
    """Are its parts there without reading it?"""
    return is_made(v) or constant_value(v) is not None


def parts(v: Var) -> Pair:
    """Real and imaginary part, each in the shape of ``v``; those of a real value."""
    if not is_complex(v.type.dtype):
        return v, constant(0, v.type.dtype)
    value = constant_value(v)
    if value is not None:
        return constant(value.real), constant(value.imag)
    if v.node is not None and is_made(v):
        re, im = (x if x.type.shape == v.type.shape else broadcast_to(x, v.type.shape) for x in v.node.inputs)
        return re, im
    return real(v), imag(v)


def _complex(re: Var, im: Var) -> Var:
    return apply(complex_of_op, re, im)


def _rewritten(node: Node, inputs: tuple[Var, ...]) -> Var | None:
    name = node.op.name
    rule = RULES.get(name)
    if rule is not None:
        return rule(node, inputs)
    if name in PARTWISE:
        return _part_by_part(node, inputs)
    if name in VIEWS and is_split(inputs[0]):
        base, turned = _conjugate(inputs[0])
        if not turned:
            return _part_by_part(node, inputs)
        # of what lies in memory, so that it is found again
        return _conjugated(make_node(node.op, [base, *inputs[1:]], node.attrs).outputs[0], True)
    return None


def _part_by_part(node: Node, inputs: Sequence[Var]) -> Var:
    found = []
    for k in (0, 1):
        operands = [parts(v)[k] if is_complex(v.type.dtype) else v for v in inputs]
        found.append(make_node(node.op, operands, node.attrs).outputs[0])
    return _complex(*found)


# ---- elementwise --------------------------------------------------------------------------------


def _times(a: Pair, b: Pair) -> Pair:
    return sub(mul(a[0], b[0]), mul(a[1], b[1])), add(mul(a[0], b[1]), mul(a[1], b[0]))


def _mul(node: Node, inputs: Sequence[Var]) -> Var:
    return _complex(*_times(parts(inputs[0]), parts(inputs[1])))


def _sqr(node: Node, inputs: Sequence[Var]) -> Var:
    a = parts(inputs[0])
    return _complex(*_times(a, a))


def _pow(node: Node, inputs: Sequence[Var]) -> Var | None:
    """Squares and cubes; 0 has no sign in its powers."""
    exponent = inputs[1]
    while exponent.node is not None and exponent.node.op is broadcast_to_op:
        exponent = exponent.node.inputs[0]
    n = constant_value(exponent)
    if n is None or n.size != 1 or n.item() not in (2, 3):
        return None
    a = parts(inputs[0])
    y = _times(a, a) if n.item() == 2 else _times(a, _times(a, a))
    zero = logical_and(equal(a[0], 0), equal(a[1], 0))
    return _complex(*(where(zero, constant(0, part.type.dtype), part) for part in y))


def _eye(node: Node, inputs: Sequence[Var]) -> Var:
    y = make_node(node.op, inputs, {**node.attrs, "dtype": real_of(node.attrs["dtype"])}).outputs[0]
    return _complex(y, constant(0, y.type.dtype))


def _bilinear(node: Node, inputs: Sequence[Var]) -> Var:
    """Four real ones."""
    def real_one(x: Var, y: Var) -> Var:
        return make_node(node.op, [x, y, *inputs[2:]], node.attrs).outputs[0]

    (a, b), (c, d) = parts(inputs[0]), parts(inputs[1])
    return _complex(sub(real_one(a, c), real_one(b, d)), add(real_one(a, d), real_one(b, c)))


def _conj(node: Node, inputs: Sequence[Var]) -> Var:
    re, im = parts(inputs[0])
    return _complex(re, neg(im))


def _div(node: Node, inputs: Sequence[Var]) -> Var:
    (a, b), (c, d) = parts(inputs[0]), parts(inputs[1])
    mc, md = abs_(c), abs_(d)
    steep = greater_equal(mc, md)  # the real part of the divisor is the larger one; not where one is nan
    large, small = where(steep, c, d), where(steep, d, c)
    ratio = div(small, large)
    scale = div(constant(1, c.type.dtype), add(large, mul(small, ratio)))
    x, y = where(steep, a, b), where(steep, b, a)
    re = mul(add(x, mul(y, ratio)), scale)
    across = mul(x, ratio)
    im = mul(where(steep, sub(y, across), sub(across, y)), scale)
    zero = logical_and(equal(mc, 0), equal(md, 0))
    return _complex(where(zero, div(a, mc), re), where(zero, div(b, mc), im))


def _reciprocal(node: Node, inputs: Sequence[Var]) -> Var:
    c, d = parts(inputs[0])
    one = constant(1, c.type.dtype)
    steep = greater_equal(abs_(c), abs_(d))
    large, small = where(steep, c, d), where(steep, d, c)
    ratio = div(small, large)
    below = add(large, mul(small, ratio))
    return _complex(div(where(steep, one, ratio), below), div(neg(where(steep, ratio, one)), below))


def _abs(node: Node, inputs: Sequence[Var]) -> Var:
    return hypot(*parts(inputs[0]))


def _sign(node: Node, inputs: Sequence[Var]) -> Var:
    """On the unit circle, or 0.  One infinite part counts as the only one that is not 0."""
    re, im = parts(inputs[0])
    size, zero, one = hypot(re, im), constant(0, re.type.dtype), constant(1, re.type.dtype)
    far = isinf(size)

    def part(own: Var, other: Var) -> Var:
        axis = where(isinf(own), where(isinf(other), constant(np.nan, own.type.dtype), copysign(one, own)), zero)
        return where(far, axis, where(equal(size, zero), zero, div(own, size)))

    return _complex(part(re, im), part(im, re))


def _real(node: Node, inputs: Sequence[Var]) -> Var | None:
    return parts(inputs[0])[int(node.op is imag)] if is_split(inputs[0]) else None


def _cast(node: Node, inputs: Sequence[Var]) -> Var:
    dtype = node.attrs["dtype"]
    if dtype.kind == "b":
        re, im = parts(inputs[0])
        return logical_or(not_equal(re, 0), not_equal(im, 0))
    if not is_complex(dtype):
        return cast(parts(inputs[0])[0], dtype)
    if not is_complex(inputs[0].type.dtype):
        return _complex(cast(inputs[0], real_of(dtype)), constant(0, real_of(dtype)))
    return _complex(*(cast(part, real_of(dtype)) for part in parts(inputs[0])))


def _both(op: Callable[..., Var], join: Callable[[Var, Var], Var]) -> Callable[[Node, Sequence[Var]], Var]:
    """Of all operands, part by part, and then of both."""
    def rule(node: Node, inputs: Sequence[Var]) -> Var:
        re, im = zip(*(parts(v) for v in inputs), strict=True)
        return join(op(*re), op(*im))
    return rule


# ---- products -----------------------------------------------------------------------------------


def _matmul(node: Node, inputs: Sequence[Var]) -> Var:
    a, b = inputs
    return _product(a, b)


def _sifted(node: Node, inputs: Sequence[Var]) -> Var:
    """An ordinary product, if that is finite."""
    y = _matmul(node, inputs)
    (a, turned_a), (b, turned_b) = map(_conjugate, inputs)
    return apply(sifted_product_op, y, a, b, zeros=node.attrs["zeros"], conjugates=(turned_a, turned_b))


def _product(a: Var, b: Var, mirrored: bool = False) -> Var:
    """``a @ b`` as two real products in one node: the real parts of ``a``, and its imaginary parts, times all of ``b``.

    A row of ``b`` as it lies in memory is re, im, re, im, ...: twice as many columns.  So neither is copied: the products are

        t0    re a re b, re a im b, ...        whose differences and sums,  re t0 - im t1  and  im t0 + re t1, are the result;
        t1    im a re b, im a im b, ...        a conjugate changes signs there

    A product with a vector is a sum of complex products, which reads the matrix once.
    """
    n = b.type.shape[-1]
    if 1 in (a.type.shape[-2], a.type.shape[-1], n) and a.type.shape[:-2] == b.type.shape[:-2]:
        return _thin(a, b)
    (a, turned_a), (b, turned_b) = _conjugate(a), _conjugate(b)
    if _is_transpose(b) and not _is_turned(a) and not _few(n, a.type.shape[-2]):
        return _with_transpose(_conjugated(a, turned_a), _swapped(b), turned_b)
    if _is_turned(b) and (_is_turned(a) or _few(a.type.shape[-2], n)) and not mirrored:  # so that the smaller one is laid out anew, or none
        y = _product(_conjugated(_swapped(b), turned_b), _conjugated(_swapped(a), turned_a), mirrored=True)
        return _complex(*(swapped(part) for part in parts(y)))
    rank = a.type.ndim
    left = transpose(apply(view_as_real_op, a), (rank, *range(rank)))
    if b.type.ndim > rank:
        left = expand_dims(left, tuple(range(1, 1 + b.type.ndim - rank)))
    right = reshape(apply(view_as_real_op, _straight(b)), (*b.type.shape[:-1], 2 * n))
    t = apply(matmul_op, left, right)
    t = apply(view_as_complex_op, reshape(t, (*t.type.shape[:-1], n, 2)))
    t0, t1 = (subtensor(t, (part, *[WHOLE] * (t.type.ndim - 1))) for part in (0, 1))
    re = (add if turned_a != turned_b else sub)(real(t0), imag(t1))
    im = (sub if turned_a else add)(imag(t0), real(t1)) if not turned_b else (
        neg(add(imag(t0), real(t1))) if turned_a else sub(real(t1), imag(t0)))
    return _complex(re, im)


def _with_transpose(a: Var, b: Var, conjugate: bool) -> Var:
    """``a @ b.T``, or with the conjugate of ``b``: what lies along a row of ``b``, re, im, re, im, ..., is what is summed over.

        re    the sum of  re a, -im a, re a, -im a, ...  times it
        im                im a,  re a, im a,  re a, ...
    """
    re, im = parts(a)
    pairs = [(re, im), (im, neg(re))] if conjugate else [(re, neg(im)), (im, re)]
    k = a.type.shape[-1]
    left, rank = concatenate([expand_dims(_complex(*pair), (0,)) for pair in pairs], 0), a.type.ndim
    left = reshape(apply(view_as_real_op, left), (2, *a.type.shape[:-1], 2 * k))
    if b.type.ndim > rank:
        left = expand_dims(left, tuple(range(1, 1 + b.type.ndim - rank)))
    t = apply(matmul_op, left, swapped(reshape(apply(view_as_real_op, b), (*b.type.shape[:-1], 2 * k))))
    return _complex(*(squeeze(subtensor(t, ((part, part + 1, 1), *[WHOLE] * (t.type.ndim - 1))), (0,)) for part in (0, 1)))


def _is_transpose(v: Var) -> bool:
    """Is it the transpose of what lies in memory in order?"""
    n = v.type.ndim
    return v.node is not None and v.node.op is transpose_op and v.node.attrs["axes"] == (*range(n - 2), n - 1, n - 2) and not _is_turned(v.node.inputs[0])


def _conjugate(v: Var) -> tuple[Var, bool]:
    """``v``, or what lies in memory and has ``v`` for its conjugate, and which of the two it is."""
    if v.node is not None and is_made(v):
        re, im = (x.node for x in v.node.inputs)
        if re is not None and im is not None and re.op is real and im.op is neg:
            inner = im.inputs[0].node
            if inner is not None and inner.op is imag and inner.inputs[0] is re.inputs[0]:
                return re.inputs[0], True
    return v, False


def _straight(v: Var) -> Var:
    """The value with rows that lie in one piece."""
    return _complex(*parts(v)) if _is_turned(v) else v


def _is_turned(v: Var) -> bool:
    """Is it a view of what lies in memory in another order?"""
    while v.node is not None and v.node.op.name in VIEWS:
        if v.node.op.name in TURNS:
            return True
        v = v.node.inputs[0]
    return False


def _few(rows: dims.Size, columns: dims.Size) -> bool:
    return isinstance(rows, int) and isinstance(columns, int) and 4 * rows < columns


def _swapped(v: Var) -> Var:
    """The transpose; of a transpose what it is one of."""
    n = v.type.ndim
    back = v.node is not None and v.node.op is transpose_op and v.node.attrs["axes"] == (*range(n - 2), n - 1, n - 2)
    return v.node.inputs[0] if back and v.node is not None else swapped(v)


def _conjugated(v: Var, turned: bool) -> Var:
    return _complex(real(v), neg(imag(v))) if turned else v


def _thin(a: Var, b: Var) -> Var:
    """A product with one row or one column, or with nothing to add up."""
    (re, im), (c, d) = parts(a), parts(b)
    if a.type.shape[-1] == 1:
        return _complex(*_times((re, im), (c, d)))
    if b.type.shape[-1] == 1:
        found = _times((re, im), (swapped(c), swapped(d)))
        return _complex(*(sum_(part, -1, keepdims=True) for part in found))
    found = _times((swapped(re), swapped(im)), (c, d))
    return _complex(*(sum_(part, -2, keepdims=True) for part in found))


def _einsum(node: Node, inputs: Sequence[Var]) -> Var | None:
    """Two operands: their axes brought together, one product."""
    if len(inputs) != 2:
        return None
    (la, lb), out = split(node.attrs["subscripts"])
    r = roles(la, lb, out)
    sizes = label_sizes([(la, inputs[0].type.shape), (lb, inputs[1].type.shape)])

    def arranged(x: Var, have: str, want: str, shape: Sequence[str]) -> Var:
        x = _moved(x, [have.index(c) for c in want])
        return _reshaped(x, [*(sizes[c] for c in r.batch), *(dims.product(sizes[c] for c in labels) for labels in shape)])

    a = arranged(inputs[0], la, r.batch + r.left + r.summed, (r.left, r.summed))
    b = arranged(inputs[1], lb, r.batch + r.summed + r.right, (r.summed, r.right))
    have = r.batch + r.left + r.right
    y = _reshaped(_product(a, b), [sizes[c] for c in have])
    return _moved(y, [have.index(c) for c in out])


def _moved(x: Var, axes: Sequence[int]) -> Var:
    if list(axes) == list(range(len(axes))):
        return x
    return _complex(*(transpose(part, axes) for part in parts(x))) if is_split(x) else transpose(x, axes)


def _reshaped(x: Var, shape: Sequence[dims.Size]) -> Var:
    return _complex(*(reshape(part, shape) for part in parts(x))) if is_split(x) else reshape(x, shape)


RULES: dict[str, Callable[[Node, Sequence[Var]], Var | None]] = {
    "mul": _mul, "sqr": _sqr, "conj": _conj, "div": _div, "reciprocal": _reciprocal, "abs": _abs, "sign": _sign, "real": _real, "imag": _real, "cast": _cast,
    "equal": _both(equal, logical_and), "not_equal": _both(not_equal, logical_or),
    "isnan": _both(isnan, logical_or), "isinf": _both(isinf, logical_or), "isfinite": _both(isfinite, logical_and),
    "matmul": _matmul, "sifted_matmul": _sifted, "einsum": _einsum, "conv": _bilinear, "conv_input": _bilinear, "conv_weight": _bilinear, "pow": _pow, "eye": _eye,
}
