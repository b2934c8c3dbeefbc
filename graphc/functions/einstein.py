"""``einsum``: reads the subscripts, then leaves the product to ``ops/contraction.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc import dims
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Var
from graphc.ops.broadcasting import broadcast_shapes, broadcast_to
from graphc.ops.contraction import LETTERS, contract
from graphc.ops.core import is_door, promote, shape_of
from graphc.ops.movement import diagonal, reshape, squeeze


def einsum(subscripts: Any, *operands: Any) -> Var:
    """A product of operands with labelled axes, summed over the labels that the result lacks.

    Args:
        subscripts: one group of letters per operand, as in ``"ij,jk->ik"``.  ``...`` stands for the axes
            that have no letter, which broadcast.  Without ``->`` the result has the axes of ``...``, then the
            letters that stand once, in alphabetical order.  A letter twice in a group takes the diagonal.
            NumPy's other form, ``einsum(a, [0, 1], b, [1, 2], [0, 2])``, is read too.
        operands: promoted to one dtype, which the result has.

    Returns:
        Products of two factors at a time, as ``mul``, ``matmul`` or ``einsum`` nodes.

    Raises:
        GraphcValueError: malformed subscripts, a rank that does not fit its group, or axes of one label with different
            sizes (at the call where they are not known before; an axis known to be 1 broadcasts).

    >>> import graphc as gc
    >>> gc.einsum("ij,j->i", [[1, 2], [3, 4]], [1, 10]).eval()
    array([21, 43])
    """
    if not isinstance(subscripts, str):
        subscripts, operands = _letters((subscripts, *operands))
    vs = promote(*operands) if operands else []
    groups, out = parse(subscripts, [v.type.ndim for v in vs])
    terms = [_without_repeats(v, g, subscripts) for v, g in zip(vs, groups, strict=True)]
    terms = _ones_dropped(terms, subscripts)
    return contract(_stretched(terms), out)


ELLIPSIS = "αβγδεζηθικλμνξοπρστυφχψωΓΔΘΛΞΠΣΦΨΩ"  # labels of the axes of "...", the last axis first


def parse(subscripts: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The labels of each operand and of the result, with ``...`` spelled out.

    >>> parse("...i,i", [2, 1])
    (['αi', 'i'], 'α')
    """
    def wrong(why: str) -> GraphcValueError:
        return GraphcValueError(f"einsum: {why} in {subscripts!r}")

    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    groups = left.split(",")
    if len(groups) != len(ranks):
        raise wrong(f"{len(groups)} group(s) for {len(ranks)} operand(s)")
    spelled, most = [], 0
    for i, (group, rank) in enumerate(zip(groups, ranks, strict=True)):
        letters = group.replace("...", "", 1)
        if bad := next((c for c in letters if c not in LETTERS), None):
            raise wrong(f"{bad!r} is no letter")
        spare = rank - len(letters)
        if spare < 0 or (spare and "..." not in group):
            raise wrong(f"group {group!r} has {len(letters)} letter(s), but operand {i} has rank {rank},")
        most = max(most, spare if "..." in group else 0)
        spelled.append(group.replace("...", ELLIPSIS[:spare][::-1]))
    ellipsis = ELLIPSIS[:most][::-1]
    everything = "".join(spelled)
    if not arrow:
        return spelled, ellipsis + "".join(c for c in sorted(set(everything) - set(ellipsis)) if everything.count(c) == 1)
    if bad := next((c for c in right.replace("...", "", 1) if c not in LETTERS), None):
        raise wrong(f"{bad!r} is no letter")
    if most and "..." not in right:
        raise wrong("the result lacks the '...' of the operands")
    out = right.replace("...", ellipsis)
    for c in out:
        if out.count(c) > 1:
            raise wrong(f"the result has label {c!r} twice")
        if c not in everything:
            raise wrong(f"the result has label {c!r}, which no operand has,")
    return spelled, out


def _letters(arguments: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The form with lists of numbers, as a string and operands."""
    def group(labels: Any) -> str:
        if not isinstance(labels, (list, tuple)):
            raise GraphcTypeError(f"einsum: a string of subscripts first, or lists of numbers after each operand; got {labels!r}")
        for k in labels:
            if k is not Ellipsis and not (isinstance(k, int) and 0 <= k < len(LETTERS)):
                raise GraphcValueError(f"einsum: a label is a number from 0 to {len(LETTERS) - 1} or ...; got {k!r}")
        return "".join("..." if k is Ellipsis else LETTERS[k] for k in labels)

    pairs, odd = len(arguments) // 2, len(arguments) % 2
    text = ",".join(group(arguments[2 * i + 1]) for i in range(pairs))
    return text + ("->" + group(arguments[-1]) if odd else ""), tuple(arguments[2 * i] for i in range(pairs))


Term = tuple[Var, str]


def _without_repeats(x: Var, labels: str, subscripts: str) -> Term:
    """The diagonals taken of labels that stand twice."""
    while len(set(labels)) < len(labels):
        c = next(c for c in labels if labels.count(c) > 1)
        i = labels.index(c)
        j = labels.index(c, i + 1)
        rows, columns = x.type.shape[i], x.type.shape[j]
        if rows != columns:
            if isinstance(rows, int) and isinstance(columns, int):
                raise GraphcValueError(f"einsum: label {c!r} stands for sizes {rows} and {columns} of {x.describe()} in {subscripts!r}")
            sizes = list(shape_of(x))
            sizes[j] = sizes[i]
            x = reshape(x, sizes)  # possible only if they are equal: checked at the call
        x = diagonal(x, 0, i, j)
        labels = labels[:i] + labels[i + 1:j] + labels[j + 1:] + c
    return x, labels


def _ones_dropped(terms: Sequence[Term], subscripts: str) -> list[Term]:
    """Axes known to have length 1 leave where another operand has the label with another size: NumPy's broadcasting."""
    longest: dict[str, Size] = {}
    for x, labels in terms:
        for c, size in zip(labels, x.type.shape, strict=True):
            have = longest.setdefault(c, size)
            if dims.is_one(have):
                longest[c] = size
            elif isinstance(have, int) and isinstance(size, int) and size not in (1, have):
                raise GraphcValueError(f"einsum: label {_shown(c)} stands for sizes {have} and {size} in {subscripts!r}")
    result = []
    for x, labels in terms:
        drop = tuple(i for i, (c, s) in enumerate(zip(labels, x.type.shape, strict=True)) if dims.is_one(s) and not dims.is_one(longest[c]))
        result.append((squeeze(x, drop), "".join(c for i, c in enumerate(labels) if i not in drop)) if drop else (x, labels))
    return result


def _shown(label: str) -> str:
    return "'...'" if label in ELLIPSIS else repr(label)


def _stretched(terms: Sequence[Term]) -> list[Term]:
    """Axes of ``...`` whose sizes are known at the call only, broadcast to their common size."""
    shapes: dict[str, Size] = {}
    for x, labels in terms:
        for c, size in zip(labels, x.type.shape, strict=True):
            if c in ELLIPSIS and is_door(size):
                shapes[c] = broadcast_shapes([shapes.get(c, 1)], [size])[0]
    result = []
    for x, labels in terms:
        shape = tuple(shapes.get(c, s) if is_door(x.type.shape[i]) else s
                      for i, (c, s) in enumerate(zip(labels, shape_of(x), strict=True)))
        result.append((broadcast_to(x, shape), labels))
    return result


__all__ = ["einsum", "parse"]
