"""Products that sum over shared axes: ``matmul`` and ``einsum``.

    matmul(a, b)                          ranks >= 2, leading axes broadcast
    sifted_matmul(a, b; zeros)            the same, but that 0 of operand ``zeros`` times nan or inf is 0
    einsum(a, b, ...; subscripts)         "bqhd,bkhd->bhqk"

In the subscripts of an ``einsum`` node no label stands twice in one term, and every
label stands in at least two terms (the result is one).  So an operand and the
result may change places, which is what the gradient does: it is an einsum again.
Diagonals and sums over the axes of one operand alone are nodes of their own.

``contract`` turns a product of any number of labelled operands into nodes, the
plainest that will do: ``mul`` where nothing is summed, ``matmul`` where each side
has one row of axes, else ``einsum``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Array, Node, Op, Relation, Type, Var, apply
from graphc.ops.arithmetic import conj_or_same, mul
from graphc.ops.broadcasting import broadcast_relations, broadcast_shapes, sum_to
from graphc.ops.core import cast, is_door, promote
from graphc.ops.cumulative import accumulator
from graphc.ops.example import Example
from graphc.ops.movement import expand_dims, reshape, squeeze, transpose
from graphc.ops.reduction import sum as sum_

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def swapped(x: Var) -> Var:
    """``x`` with its last two axes exchanged."""
    n = x.type.ndim
    return transpose(x, (*range(n - 2), n - 1, n - 2))


class Contraction(Op):
    """What both ops share: operands of one dtype, half precisions accumulated in float32."""

    kind = "contraction"

    def connected(self, position: int, node: Node) -> bool:
        return dtypes.is_inexact(node.outputs[0].type.dtype)


def _one_dtype(types: Sequence[Type]) -> np.dtype[Any]:
    if any(t.dtype != types[0].dtype for t in types):
        raise GraphcTypeError(f"operands of one dtype expected; got {', '.join(str(t.dtype) for t in types)}")
    return types[0].dtype


class MatMul(Contraction):
    """``matmul(a, b)``: products of matrices, which are the last two axes; the others broadcast."""

    name = "matmul"
    flops = 2.0
    examples: tuple[Example, ...] = (
        Example([(3, 4), (4, 2)], analytic=True, numpy=lambda a, b: np.einsum("ij,jk->ik", a, b)),
        Example([(2, 3, 4), (4, 2)], analytic=True, numpy=lambda a, b: np.einsum("bij,jk->bik", a, b)),
        Example([(3, 4), (2, 4, 2)], numpy=lambda a, b: np.einsum("ij,bjk->bik", a, b)),
        Example([(2, 1, 2, 3), (4, 3, 1)], analytic=True, numpy=lambda a, b: np.einsum("xij,yjk->xyik", a[:, 0], b)),
        Example([(2, 3), (3, 2)], {}, "complex128", numpy=lambda a, b: np.einsum("ij,jk->ik", a, b)),
        Example([(2, 0), (0, 3)], numpy=lambda a, b: np.zeros((2, 3))),
        Example([(2, 3), (3, 2)], {}, "int32", (-9, 9), gradient=False, numpy=lambda a, b: np.einsum("ij,jk->ik", a, b)),
        Example([(2, 3), (3, 2)], {}, "bool", gradient=False, numpy=lambda a, b: (a[:, :, None] & b).any(1)),
    )

    def infer(self, a: Type, b: Type) -> Type:  # type: ignore[override]
        dtype = _one_dtype((a, b))
        if a.ndim < 2 or b.ndim < 2:
            raise GraphcTypeError(f"operands of rank >= 2 expected; got {a} and {b}")
        inner, other = a.shape[-1], b.shape[-2]
        if isinstance(inner, int) and isinstance(other, int) and inner != other:
            raise GraphcValueError(
                f"the last axis of operand 0 has size {inner}, the last but one of operand 1 has size {other}: they must be equal ({a} @ {b})")
        return Type(dtype, (*broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1]))

    def forward(self, a: Array, b: Array) -> Array:  # type: ignore[override]
        if a.shape[-1] != b.shape[-2]:
            raise GraphcValueError(f"matmul: sizes {a.shape[-1]} and {b.shape[-2]} to be summed over must be equal (shapes {a.shape}, {b.shape})")
        dtype, wide = a.dtype, accumulator(a.dtype)
        a, b = a.astype(wide, copy=False), b.astype(wide, copy=False)
        with np.errstate(all="ignore"):
            if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous:  # one product instead of one per leading index
                rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
                return np.asarray(np.matmul(rows, b).reshape(*a.shape[:-1], b.shape[-1]).astype(dtype, copy=False))
            return np.asarray(np.matmul(a, b).astype(dtype, copy=False))

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        a, b = inputs
        g = cotangents[0]
        lead = LETTERS[:g.type.ndim - 2]
        if position == 0:
            if a.type.ndim == 2 and b.type.ndim > 2:  # sum over the leading axes within the product
                return contract([(g, lead + "YZ"), (conj_or_same(b), lead + "XZ")], "YX")
            return sum_to(matmul(g, swapped(conj_or_same(b))), a)
        if b.type.ndim == 2 and a.type.ndim > 2:
            return contract([(conj_or_same(a), lead + "YX"), (g, lead + "YZ")], "XZ")
        return sum_to(matmul(swapped(conj_or_same(a)), g), b)

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        a, b = types
        if a.shape[-1] != b.shape[-2]:
            yield Relation("equal", a.shape[-1], b.shape[-2])
        yield from broadcast_relations([a.shape[:-2], b.shape[:-2]])


class SiftedMatMul(MatMul):
    """``sifted_matmul(a, b; zeros)``: as ``matmul``, but a 0 of operand ``zeros`` makes its term 0, whatever the other factor is.

    What the gradient of a product is where a cotangent is exactly 0 because a ``where`` has not chosen it (passes/gradient_safety.py).
    """

    name = "sifted_matmul"
    examples = (
        Example([(3, 4), (4, 2)], {"zeros": 0}, analytic=True, numpy=lambda a, b: np.einsum("ij,jk->ik", a, b)),
        Example([(2, 3, 4), (4, 2)], {"zeros": 1}, analytic=True, numpy=lambda a, b: np.einsum("bij,jk->bik", a, b)),
        Example([(2, 3), (3, 2)], {"zeros": 1}, "complex128", numpy=lambda a, b: np.einsum("ij,jk->ik", a, b)),
        Example([(2, 0), (0, 3)], {"zeros": 0}, numpy=lambda a, b: np.zeros((2, 3))),
    )

    def infer(self, a: Type, b: Type, *, zeros: int) -> Type:  # type: ignore[override]
        return super().infer(a, b)

    def forward(self, a: Array, b: Array, *, zeros: int) -> Array:  # type: ignore[override]
        found = super().forward(a, b)
        other = a if zeros else b
        if np.isfinite(found).all() or np.isfinite(other).all():
            return found
        wide = accumulator(a.dtype)
        x, y = a.astype(wide), b.astype(wide)
        bad = x if zeros else y  # a copy: what is finite is multiplied at once, the rest term by term
        wrong = ~np.isfinite(bad)
        rest = np.where(wrong, bad, 0)
        bad[wrong] = 0
        with np.errstate(all="ignore"):
            total = np.asarray(np.matmul(x, y))
            some = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != wrong.ndim - (1 if zeros else 2))))
            for k in some:
                first, second = (rest if zeros else x)[..., :, k, None], (y if zeros else rest)[..., k, None, :]
                total = total + np.where((second if zeros else first) == 0, 0, first * second)
        return total.astype(a.dtype, copy=False)


class Einsum(Contraction):
    """``einsum(*operands; subscripts)``."""

    name = "einsum"
    flops = 2.0
    examples = (
        Example([(2, 3, 4), (4, 3, 5)], {"subscripts": "abc,cbd->ad"}, analytic=True, numpy=lambda a, b: np.einsum("abc,cbd->ad", a, b)),
        Example([(2, 3, 2, 4), (2, 2, 3)], {"subscripts": "bqhd,bhq->hbd"}, analytic=True,
                numpy=lambda a, b: np.einsum("bqhd,bhq->hbd", a, b)),
        Example([(2, 3), (3, 2), (2,)], {"subscripts": "ij,jk,i->ik"}, numpy=lambda a, b, c: np.diag(c) @ a @ b),
        Example([(2, 3, 2), (3, 2, 2)], {"subscripts": "abc,bcd->da"}, "complex128", numpy=lambda a, b: np.tensordot(a, b, 2).T),
        Example([(2, 0, 3), (0, 3)], {"subscripts": "abc,bc->a"}, numpy=lambda a, b: np.zeros(2)),
        Example([(2, 2, 3), (2, 3)], {"subscripts": "abc,bc->a"}, "int8", (-9, 9), gradient=False,
                numpy=lambda a, b: np.einsum("abc,bc->a", a, b)),
        Example([(2, 2, 3), (2, 3)], {"subscripts": "abc,bc->a"}, "bool", gradient=False, numpy=lambda a, b: (a & b).any((1, 2))),
    )

    def infer(self, *types: Type, subscripts: str) -> Type:  # type: ignore[override]
        dtype = _one_dtype(types)
        terms, out = split(subscripts)
        if len(terms) != len(types) or len(types) < 2:
            raise GraphcValueError(f"subscripts {subscripts!r} for {len(types)} operands")
        for term, t in zip(terms, types, strict=True):
            if len(term) != t.ndim:
                raise GraphcValueError(f"subscripts {term!r} for a value of rank {t.ndim}")
        everything = [*terms, out]
        if any(len(set(term)) != len(term) for term in everything):
            raise GraphcValueError(f"a label is repeated within one term of {subscripts!r}")
        for label in dict.fromkeys("".join(everything)):
            if sum(label in term for term in everything) < 2:
                raise GraphcValueError(f"label {label!r} stands in one term of {subscripts!r} only")
        sizes = label_sizes(zip(terms, (t.shape for t in types), strict=True))
        return Type(dtype, tuple(sizes[label] for label in out))

    def forward(self, *arrays: Array, subscripts: str) -> Array:  # type: ignore[override]
        terms, out = split(subscripts)
        label_sizes(zip(terms, (a.shape for a in arrays), strict=True))
        dtype, wide = arrays[0].dtype, accumulator(arrays[0].dtype)
        operands = [a.astype(wide, copy=False) for a in arrays]
        with np.errstate(all="ignore"):
            if len(operands) == 2:
                return _pair_value(operands[0], terms[0], operands[1], terms[1], out).astype(dtype, copy=False)
            return np.asarray(np.einsum(subscripts, *operands)).astype(dtype, copy=False)

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        terms, out = split(attrs["subscripts"])
        others = [(conj_or_same(v), term) for i, (v, term) in enumerate(zip(inputs, terms, strict=True)) if i != position]
        # the cotangent in the operand's place: operands before it stay before it, so that products keep their sides
        return contract([*others[:position], (cotangents[0], out), *others[position:]], terms[position])

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        first: dict[str, Size] = {}
        for term, t in zip(split(attrs["subscripts"])[0], types, strict=True):
            for label, size in zip(term, t.shape, strict=True):
                if first.setdefault(label, size) != size:
                    yield Relation("equal", first[label], size)


matmul_op, sifted_matmul_op, einsum_op = MatMul(), SiftedMatMul(), Einsum()
OPS: tuple[Op, ...] = (matmul_op, sifted_matmul_op, einsum_op)


def split(subscripts: str) -> tuple[list[str], str]:
    """``"ab,bc->ac"`` -> (["ab", "bc"], "ac")."""
    operands, _, out = subscripts.partition("->")
    return operands.split(","), out


def label_sizes(terms: Iterable[tuple[str, Sequence[Size]]]) -> dict[str, Size]:
    """The size of each label, an int where one of its axes says so; GraphcValueError where two differ."""
    sizes: dict[str, Size] = {}
    for term, shape in terms:
        for label, size in zip(term, shape, strict=True):
            have = sizes.setdefault(label, size)
            if isinstance(have, int) and isinstance(size, int) and have != size:
                raise GraphcValueError(f"label {label!r} stands for sizes {have} and {size}: axes of one label are equally long")
            if isinstance(size, int):
                sizes[label] = size
    return sizes


class Roles(NamedTuple):
    """The labels of two factors by what becomes of them."""

    batch: str  # in both and in the result
    summed: str  # in both, not in the result
    left: str  # in the first and in the result
    right: str


def roles(a: str, b: str, out: str) -> Roles:
    return Roles("".join(c for c in out if c in a and c in b), "".join(c for c in a if c in b and c not in out),
                 "".join(c for c in out if c in a and c not in b), "".join(c for c in out if c in b and c not in a))


def _pair_value(a: Array, la: str, b: Array, lb: str, out: str) -> Array:
    """Two factors as one (batched) matrix product."""
    r = roles(la, lb, out)
    sizes = dict(zip(la + lb, a.shape + b.shape, strict=True))

    def shape(labels: str) -> list[int]:
        return [sizes[c] for c in labels]

    def count(labels: str) -> int:
        return math.prod(shape(labels))

    a = a.transpose([la.index(c) for c in r.batch + r.left + r.summed]).reshape(*shape(r.batch), count(r.left), count(r.summed))
    b = b.transpose([lb.index(c) for c in r.batch + r.summed + r.right]).reshape(*shape(r.batch), count(r.summed), count(r.right))
    have = r.batch + r.left + r.right
    return np.asarray(np.matmul(a, b).reshape(shape(have)).transpose([have.index(c) for c in out]))


# ---- builders -------------------------------------------------------------------------------------


def sifted_grad(position: int, inputs: Sequence[Var], g: Var) -> Var:
    """The gradient of a product for one operand, in which a zero of the cotangent ``g`` meets nothing."""
    a, b = inputs
    if position == 0:
        return sum_to(apply(sifted_matmul_op, g, swapped(conj_or_same(b)), zeros=0), a)
    if b.type.ndim == 2 and a.type.ndim > 2:  # the sum over the leading axes is part of the product
        rows = dims.product(a.type.shape[:-1])
        if is_door(rows):
            a, g = reshape(a, (rows, a.type.shape[-1])), reshape(g, (rows, g.type.shape[-1]))
    return sum_to(apply(sifted_matmul_op, swapped(conj_or_same(a)), g, zeros=1), b)


def matmul(a: Any, b: Any) -> Var:
    """The product of matrices; operands of rank >= 2, promoted to one dtype."""
    return apply(matmul_op, *promote(a, b))


Term = tuple[Var, str]


def contract(terms: Sequence[Term], out: str) -> Var:
    """The product of labelled operands, summed over the labels that ``out`` lacks.

    Operands have one dtype and no label twice.  More than two are multiplied two at
    a time: always the pair whose product is smallest against its factors.
    """
    rest = list(terms)
    while len(rest) > 1:
        i, j = _next_pair(rest, out)
        (a, la), (b, lb) = rest[i], rest[j]
        others = [t for k, t in enumerate(rest) if k not in (i, j)]
        needed = out + "".join(labels for _, labels in others)
        result = out
        if others:
            r = roles(la, lb, "".join(c for c in dict.fromkeys(la + lb) if c in needed))
            result = r.batch + r.left + r.right
        others.insert(i, (_pair(_summed(a, la, lb + needed), _summed(b, lb, la + needed), result), result))
        rest = others
    x, labels = _summed(*rest[0], out)
    return _ordered(x, labels, out)


def _summed(x: Var, labels: str, needed: str) -> Term:
    """The operand without the axes that nobody else has."""
    lone = tuple(i for i, c in enumerate(labels) if c not in needed)
    if not lone:
        return x, labels
    # cast: a sum of small integers is wide, the product of the same numbers is not
    return cast(sum_(x, lone), x.type.dtype), "".join(c for c in labels if c in needed)


def _next_pair(terms: Sequence[Term], out: str) -> tuple[int, int]:
    if len(terms) == 2:
        return 0, 1
    sizes: dict[str, int] = {}
    for x, labels in terms:
        for c, s in zip(labels, x.type.shape, strict=True):
            sizes[c] = s if isinstance(s, int) else max(sizes.get(c, 0), dims.bounds(s)[0], 64)  # a guess

    def count(labels: str) -> int:
        return math.prod(sizes[c] for c in labels)

    best: tuple[float, float] = (math.inf, math.inf)
    choice = (0, 1)
    for i, (_, la) in enumerate(terms):
        for j in range(i + 1, len(terms)):
            lb = terms[j][1]
            needed = out + "".join(labels for k, (_, labels) in enumerate(terms) if k not in (i, j))
            both = "".join(dict.fromkeys(la + lb))
            cost = (count("".join(c for c in both if c in needed)) - count(la) - count(lb), count(both))  # memory, then work
            if cost < best:
                best, choice = cost, (i, j)
    return choice


def _pair(first: Term, second: Term, out: str) -> Var:
    """The product of two operands whose labels all stand in the other or in ``out``."""
    (a, la), (b, lb) = first, second
    r = roles(la, lb, out)
    if not r.summed:
        return mul(_aligned(a, la, out), _aligned(b, lb, out))
    if len(r.summed) > 1 or (r.batch and max(len(r.left), len(r.right)) > 1) or min(len(r.left), len(r.right)) > 1:
        return apply(einsum_op, a, b, subscripts=f"{la},{lb}->{out}")
    if len(r.right) > 1 or (r.left and r.right and out.index(r.right) < out.index(r.left[0]) and len(r.left) == 1):
        (a, la), (b, lb) = (b, lb), (a, la)  # so that the result needs no transposition
        r = roles(la, lb, out)
    x = _ordered(a, la, r.batch + r.left + r.summed)
    y = _ordered(b, lb, r.batch + r.summed + r.right)
    lead = len(r.batch)
    if not r.left:
        x = expand_dims(x, (lead,))
    if not r.right:
        y = expand_dims(y, (lead + 1,))
    product = apply(matmul_op, x, y)
    if not r.right:
        product = squeeze(product, (product.type.ndim - 1,))
    if not r.left:
        product = squeeze(product, (lead,))
    return _ordered(product, r.batch + r.left + r.right, out)


def _ordered(x: Var, have: str, want: str) -> Var:
    return x if have == want else transpose(x, [have.index(c) for c in want])


def _aligned(x: Var, labels: str, out: str) -> Var:
    """The operand with its axes in the order of ``out`` and length 1 for the labels it lacks."""
    missing = tuple(i for i, c in enumerate(out) if c not in labels)
    x = _ordered(x, labels, "".join(c for c in out if c in labels))
    return expand_dims(x, missing) if missing else x


__all__ = ["LETTERS", "OPS", "MatMul", "Roles", "contract", "einsum_op", "label_sizes", "matmul", "matmul_op", "roles", "sifted_grad", "sifted_matmul_op", "split", "swapped"]
