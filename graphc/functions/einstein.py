"""``einsum``: reads the subscripts and puts the operands in order, then leaves the products to ``ops/contraction.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc import dims
from graphc.dims import Size
from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Var
from graphc.ops.broadcasting import broadcast_shapes, broadcast_to
from graphc.ops.contraction import LETTERS, contract, roles
from graphc.ops.core import cast, is_door, promote, shape_of
from graphc.ops.cumulative import accumulator
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
        Products of two factors at a time, as ``mul``, ``matmul`` or ``einsum`` nodes, in the order that takes
        the fewest multiplications (of up to 8 operands; more of them two at a time, the smallest results first).

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
    return in_pairs(_stretched(terms), out)


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


# ---- the order of products ----------------------------------------------------------------------

#: operands of which all orders are compared
MOST_COMPARED = 8
#: what a size that only the call tells counts as, at least
USUAL_SIZE = 64


def in_pairs(terms: Sequence[Term], out: str) -> Var:
    """The product of labelled operands, summed over the labels that ``out`` lacks, two operands at a time in the cheapest order.

    Half precisions are multiplied in float32 on the way, as within one product.
    """
    if len(terms) <= 2:
        return contract(terms, out)
    dtype = terms[0][0].type.dtype
    wide = [(cast(x, accumulator(dtype)), labels) for x, labels in terms]
    if len(terms) > MOST_COMPARED:
        return cast(contract(wide, out), dtype)
    n = len(wide)
    values: dict[int, Term] = {1 << (n - 1 - i): term for i, term in enumerate(wide)}
    for subset, (one, other), labels in _cheapest(wide, out):
        first, second = values[one], values[other]
        if subset == (1 << n) - 1:
            labels = out
        else:
            r = roles(first[1], second[1], labels)
            labels = r.batch + r.left + r.right  # as the product gives them
        values[subset] = (contract([first, second], labels), labels)
    return cast(values[(1 << n) - 1][0], dtype)


Step = tuple[int, tuple[int, int], str]


def _cheapest(terms: Sequence[Term], out: str) -> list[Step]:
    """The products to make, in order: a set of operands, the two sets that it is the product of, the labels that it keeps.

    A set is an int with a bit for each operand, the first operand's the highest.  The best way to make a set follows from those to
    make its parts.  What counts are multiplications, then elements written, then the order from left to right.
    """
    letters = list(dict.fromkeys("".join(labels for _, labels in terms)))
    sizes = [1] * len(letters)
    for x, labels in terms:
        for c, size in zip(labels, x.type.shape, strict=True):
            k = letters.index(c)
            sizes[k] = max(sizes[k], _usual(size))
    counts: dict[int, int] = {}

    def mask(labels: str) -> int:
        return sum(1 << letters.index(c) for c in set(labels))

    def count(labels: int) -> int:
        found = counts.get(labels)
        if found is None:
            found = counts[labels] = math.prod(s for k, s in enumerate(sizes) if labels >> k & 1)
        return found

    n = len(terms)
    full = (1 << n) - 1
    union = [0] * (full + 1)
    for i, (_, labels) in enumerate(terms):
        own = mask(labels)
        for subset in range(full + 1):
            if subset >> (n - 1 - i) & 1:
                union[subset] |= own
    kept = [union[s] & (mask(out) | union[full ^ s]) for s in range(full + 1)]
    best: dict[int, tuple[int, int]] = {1 << i: (0, 0) for i in range(n)}
    parts: dict[int, tuple[int, int]] = {}
    for subset in range(1, full + 1):
        if subset in best:
            continue
        lowest: tuple[float, float] = (math.inf, math.inf)
        highest_bit = 1 << (subset.bit_length() - 1)
        one = (subset - 1) & subset  # all but the last operand
        while one:
            if one & highest_bit:
                other = subset ^ one
                work = best[one][0] + best[other][0] + count(kept[one] | kept[other])
                written = best[one][1] + best[other][1] + count(kept[subset])
                if (work, written) < lowest:
                    best[subset] = lowest = (work, written)
                    parts[subset] = (one, other)
            one = (one - 1) & subset
    steps: list[Step] = []
    pending = [full]
    while pending:
        subset = pending.pop()
        if subset in parts:
            steps.append((subset, parts[subset], "".join(c for k, c in enumerate(letters) if kept[subset] >> k & 1)))
            pending += parts[subset]
    return steps[::-1]  # parts before what is made of them


def _usual(size: Size) -> int:
    """A number for a size.  An order that is the cheaper one for all sizes is so for these too."""
    if isinstance(size, int):
        return max(size, 1)
    try:
        return max(dims.evaluate(size, {s: max(s.min, USUAL_SIZE) for s in dims.symbols(size)}), 1)
    except (ArithmeticError, ValueError):  # a division by 0 in the formula
        return USUAL_SIZE


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


__all__ = ["einsum", "in_pairs", "parse"]
