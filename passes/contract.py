"""Pass ``contract``: which products are made, and in which order.

    einsum(a, b, c, ...)                   products of two at a time, in the cheapest order
    (A @ B) @ v                            A @ (B @ v): a chain in the order that takes the fewest multiplications
    X[:, :p] @ W[:p] + X[:, p:] @ W[p:]    X @ W
    X @ W[:, :5], X @ W[:, 5:]             X @ W once, and parts of it: for backends that run kernels, where the parts are narrow

Promise: integers and bool keep every bit.  Floats are added up in another order only where the expression as written does not say
one (an einsum of several operands) or at level "fast": another order may overflow where the one as written does not, and the
other way round.  So chains and sums of products are left alone at "exact"; parts of one product are not, since each element
stays the same sum.  What others read too is not taken apart.  docs/products.md has the reasons.

Sizes known at the call only: a chain changes where the other order is proved to take no more multiplications for all sizes,
axes of unknown size taken to have 2 elements at least.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.errors import on_behalf_of
from graphc.functions.einstein import in_pairs
from graphc.ir import Graph, Node, Var, apply, rebuild, with_inputs
from graphc.ops.arithmetic import add
from graphc.ops.contraction import einsum_op, matmul_op, split, swapped
from graphc.ops.core import is_door
from graphc.ops.indexing import subtensor, subtensor_op
from graphc.ops.movement import transpose_op
from graphc.ops.slicing import WHOLE, slice_entry
from graphc.passes.columns import fewer_vectors
from graphc.passes.context import Context, Rewrite
from graphc.passes.merge import merge

__all__ = ["contract"]

#: factors of a chain that are looked at together, and orders of some of them that are kept where none is the cheapest for all sizes
MOST_FACTORS, MOST_ORDERS = 24, 8


def contract(graph: Graph, context: Context) -> Graph:
    """Products in the cheapest order; see the module's docstring.

    >>> import graphc as gc
    >>> a, b, v = gc.lmatrix("a"), gc.lmatrix("b"), gc.lvector("v")
    >>> f = gc.function([a, b, v], (a @ b) @ v, mode=gc.Mode(backend="numpy", passes=["contract"]))
    >>> [str(node.outputs[0].type.ndim) for node in f.graph.nodes if node.op.name == "matmul"]
    ['2', '2']
    """
    changed = _contracted(graph, context)
    return graph if changed is graph else merge(changed, context)


def _contracted(graph: Graph, context: Context) -> Graph:
    graph = _bodies(graph, context)
    if any(node.op is einsum_op and len(node.inputs) > 2 for node in graph.nodes):
        graph = _einsums(graph, context)
    if sum(node.op is matmul_op for node in graph.nodes) < 2:
        return graph
    for step in (_chains, _sums, _columns):
        graph = step(graph, context)
    return graph


def _bodies(graph: Graph, context: Context) -> Graph:
    """The graph with its inner graphs contracted: nesting is as deep as the user wrote it."""
    bodies = {node: {k: _contracted(v, context) for k, v in node.attrs.items() if isinstance(v, Graph)}
              for node in graph.nodes if any(isinstance(v, Graph) for v in node.attrs.values())}
    changed = {node: new for node, new in bodies.items() if any(node.attrs[k] is not v for k, v in new.items())}
    if not changed:
        return graph

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        return with_inputs(node, inputs, {**node.attrs, **changed[node]}).outputs if node in changed else None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


# ---- what all of them need ------------------------------------------------------------------------

#: an old value -> what stands for it
At = Callable[[Var], Var]


def _readers(graph: Graph) -> dict[Var, int]:
    """How often each value is read; being a root counts."""
    count: dict[Var, int] = {}
    for v in (*graph.roots, *(v for node in graph.nodes for v in node.inputs)):
        count[v] = count.get(v, 0) + 1
    return count


def _replaced(graph: Graph, rule: str, plans: Mapping[Node, Callable[[At], Var]], context: Context) -> Graph:
    """The graph with nodes of one result made by their plans.  A plan may ask for what stands for any value that its node depends on."""
    if not plans:
        return graph
    new: dict[Var, Var] = {}

    def at(v: Var) -> Var:
        return new.get(v, v)

    for node in graph.nodes:
        plan = plans.get(node)
        if plan is not None:
            with on_behalf_of(node.origin.by(rule)):
                y = plan(at)
            if y.type == node.outputs[0].type:
                new[node.outputs[0]] = _in_place_of(node.outputs[0], y, rule, context)
                continue
        inputs = tuple([at(v) for v in node.inputs])
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            new.update(zip(node.outputs, with_inputs(node, inputs).outputs, strict=True))
    return graph.with_roots([at(v) for v in graph.roots])


def _in_place_of(old: Var, new: Var, rule: str, context: Context) -> Var:
    if new.name is None and new.node is not None:
        new.name = old.name
    context.log.append(Rewrite(rule, old, new))
    return new


def _may_reorder(v: Var, context: Context) -> bool:
    """May sums be added up in another order?"""
    return v.type.dtype.kind in "biu" or context.level == "fast"


def _unswapped(v: Var) -> Var | None:
    """What ``v`` is with its last two axes exchanged; None if it is no such transpose."""
    node = v.node
    if node is None or node.op is not transpose_op:
        return None
    n = v.type.ndim
    return node.inputs[0] if n >= 2 and node.attrs["axes"] == (*range(n - 2), n - 1, n - 2) else None


def _swapped(v: Var) -> Var:
    inner = _unswapped(v)
    return swapped(v) if inner is None else inner


# ---- einsum -----------------------------------------------------------------------------------------


def _einsums(graph: Graph, context: Context) -> Graph:
    """Einsums of three operands and more as products of two.  (``gc.einsum`` makes none; dumps and ``apply`` do.)"""
    def plan(node: Node) -> Callable[[At], Var]:
        terms, out = split(node.attrs["subscripts"])
        return lambda at: in_pairs([(at(v), term) for v, term in zip(node.inputs, terms, strict=True)], out)

    plans = {node: plan(node) for node in graph.nodes if node.op is einsum_op and len(node.inputs) > 2}
    return _replaced(graph, "pairwise", plans, context)


# ---- chains -----------------------------------------------------------------------------------------


class _Factor(NamedTuple):
    value: Var
    turned: bool  # is it the transpose that is multiplied?


#: a product as its factors' numbers: an int, or the pair of its two sides
Tree = int | tuple["Tree", "Tree"]


class _Order(NamedTuple):
    cost: Size  # multiplications
    tree: Tree


class _Chain(NamedTuple):
    factors: list[_Factor]  # from left to right
    links: list[Node]  # the products
    joins: list[tuple[int, int, int]]  # as written: the first factor of the left side, of the right side, and the first one after it


def _chains(graph: Graph, context: Context) -> Graph:
    """Products of three factors and more in the order that takes the fewest multiplications."""
    products = [node for node in graph.nodes if node.op is matmul_op and _may_reorder(node.outputs[0], context)]
    if len(products) < 2:
        return graph
    readers = _readers(graph)
    inside: set[Node] = set()
    plans: dict[Node, Callable[[At], Var]] = {}
    for node in reversed(products):
        if node in inside:
            continue
        chain = _chain(node, readers)
        inside.update(chain.links)
        best = _cheapest(chain) if len(chain.factors) > 2 else None
        if best is not None:
            plans[node] = _product_plan(chain.factors, best)
    return _replaced(graph, "reassociate", plans, context)


def _product_plan(factors: Sequence[_Factor], tree: Tree) -> Callable[[At], Var]:
    def build(at: At) -> Var:
        values = [_swapped(at(f.value)) if f.turned else at(f.value) for f in factors]
        results: list[Var] = []
        pending: list[tuple[Tree, bool]] = [(tree, False)]
        while pending:  # operands before what is made of them
            part, ready = pending.pop()
            if isinstance(part, int):
                results.append(values[part])
            elif ready:
                b, a = results.pop(), results.pop()
                results.append(apply(matmul_op, a, b))
            else:
                pending += [(part, True), (part[1], False), (part[0], False)]
        return results[0]

    return build


def _chain(root: Node, readers: Mapping[Var, int]) -> _Chain:
    """The factors of a product, through products that it alone reads."""
    lead = root.outputs[0].type.shape[:-2]
    chain = _Chain([], [], [])
    firsts: list[int] = []  # of each finished side: its first factor
    pending: list[tuple[Var, bool] | None] = [(root.outputs[0], False)]
    while pending:
        part = pending.pop()
        if part is None:  # both sides of a product are there
            right = firsts.pop()
            chain.joins.append((firsts[-1], right, len(chain.factors)))
            continue
        v, turned = part
        link, turns = (root, False) if not chain.links else _link(v, readers)
        if link is None or len(chain.links) >= MOST_FACTORS - 1 or any(x.type.shape[:-2] != lead for x in link.inputs):
            firsts.append(len(chain.factors))
            while (inner := _unswapped(v)) is not None:
                v, turned = inner, not turned
            chain.factors.append(_Factor(v, turned))
            continue
        chain.links.append(link)
        turned = turned != turns
        a, b = link.inputs
        pending += [None, (a, turned), (b, turned)] if turned else [None, (b, turned), (a, turned)]
    return chain


def _link(v: Var, readers: Mapping[Var, int]) -> tuple[Node | None, bool]:
    """The product that ``v`` is, if nothing else reads it; and whether ``v`` is that product's transpose."""
    turned = False
    while readers[v] == 1 and (inner := _unswapped(v)) is not None:
        v, turned = inner, not turned
    found = v.node is not None and v.node.op is matmul_op and readers[v] == 1
    return (v.node if found else None), turned


def _cheapest(chain: _Chain) -> Tree | None:
    """The tree of the products that is cheaper than the one as written; None where there is none for sure.

    For each stretch of factors the orders none of which is beaten for all sizes by another one: a single one where sizes are known.
    """
    n = len(chain.factors)
    shapes = [f.value.type.shape[:-3:-1] if f.turned else f.value.type.shape[-2:] for f in chain.factors]
    ends = _above_two([shapes[0][0], *(b if isinstance(b, int) else a for (_, a), (b, _) in pairwise(shapes)), shapes[-1][1]])
    table: dict[tuple[int, int], list[_Order]] = {(i, i + 1): [_Order(0, i)] for i in range(n)}
    for width in range(2, n + 1):
        for i in range(n - width + 1):
            j = i + width
            found: list[_Order] = []
            for k in range(j - 1, i, -1):  # from left to right comes first
                own = ends[i] * ends[k] * ends[j]
                for left in table[i, k]:
                    for right in table[k, j]:
                        _keep(found, _Order(left.cost + right.cost + own, (left.tree, right.tree)))
            table[i, j] = found
    written: Size = 0
    for i, k, j in chain.joins:
        written = written + ends[i] * ends[k] * ends[j]
    better = [order for order in table[0, n] if order.cost != written and _at_most(order.cost, written)]
    return better[0].tree if better else None


def _keep(orders: list[_Order], new: _Order) -> None:
    """One more order, and no longer those that it beats."""
    if any(_at_most(old.cost, new.cost) for old in orders):
        return
    orders[:] = [old for old in orders if not _at_most(new.cost, old.cost)]
    if len(orders) < MOST_ORDERS:
        orders.append(new)


def _at_most(a: Size, b: Size) -> bool:
    """Is it ``a <= b`` whatever the sizes?  Yes where the difference has no negative term."""
    return dims.bounds(b - a)[0] >= 0


def _above_two(sizes: Sequence[Size]) -> list[Size]:
    """The sizes as polynomials of what each unknown one has above 2."""
    symbols = dict.fromkeys(s for size in sizes for s in dims.symbols(size))
    above = {s: dims.fresh("unknown") + max(2, s.min) for s in symbols}
    return [dims.substitute(size, above) for size in sizes]


# ---- parts of one product ---------------------------------------------------------------------------


class _Part(NamedTuple):
    """A stretch along one of the last two axes of an array, or the transpose of one."""

    whole: Var
    turned: bool
    first: Size
    end: Size


def _part(v: Var, axis: int) -> _Part | None:
    """Which part of an array ``v`` is along its last axis (-1) or the one before (-2); None if it is none, or sizes do not say which."""
    inner = _unswapped(v)
    turned = inner is not None
    node = v.node if inner is None else inner.node
    if turned:
        axis = -3 - axis
    if node is None or node.op is not subtensor_op or len(node.inputs) > 1:
        return None
    whole, index = node.inputs[0], node.attrs["index"]
    at = whole.type.ndim + axis
    if len(index) != whole.type.ndim or at < 0 or any(entry != WHOLE for i, entry in enumerate(index) if i != at):
        return None
    entry = index[at]
    if not isinstance(entry, tuple) or entry[2] != 1:
        return None
    first, end = 0 if entry[0] is None else entry[0], whole.type.shape[at] if entry[1] is None else entry[1]
    if any(not is_door(s) or dims.bounds(s)[0] < 0 for s in (first, end)) or node.outputs[0].type.shape[at] != end - first or end == first:
        return None
    return _Part(whole, turned, first, end)


def _taken(whole: Var, turned: bool, first: Size, end: Size, axis: int) -> Var:
    """The part from ``first`` to ``end``."""
    at = whole.type.ndim + (-3 - axis if turned else axis)
    entry = slice_entry(whole.type.shape[at], first, end, 1)
    part = whole if entry == WHOLE else subtensor(whole, tuple(entry if i == at else WHOLE for i in range(whole.type.ndim)))
    return _swapped(part) if turned else part


def _sums(graph: Graph, context: Context) -> Graph:
    """X[:, :p] @ W[:p] + X[:, p:] @ W[p:] as X @ W."""
    def fits(node: Node) -> bool:
        return node.op is add and _may_reorder(node.outputs[0], context) and all(v.node is not None and v.node.op is matmul_op for v in node.inputs)

    if not any(fits(node) for node in graph.nodes):
        return graph
    readers = _readers(graph)

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if node.op is not add or not _may_reorder(node.outputs[0], context) or any(readers[v] > 1 for v in node.inputs):
            return None
        with on_behalf_of(node.origin.by("join_sums")):
            y = _one_sum(*inputs)
            if y is None:
                y = _one_sum(*reversed(inputs))
        return None if y is None or y.type != node.outputs[0].type else [_in_place_of(node.outputs[0], y, "join_sums", context)]

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def _one_sum(x: Var, y: Var) -> Var | None:
    """The product that ``x + y`` is, where ``y`` goes on where ``x`` ends."""
    if any(v.node is None or v.node.op is not matmul_op for v in (x, y)) or x.type.dtype.kind == "b":
        return None
    assert x.node is not None and y.node is not None
    sides = []
    for axis, a, b in zip((-1, -2), x.node.inputs, y.node.inputs, strict=True):
        p, q = _part(a, axis), _part(b, axis)
        if p is None or q is None or p.whole is not q.whole or p.turned != q.turned or p.end != q.first:
            return None
        sides.append(_taken(p.whole, p.turned, p.first, q.end, axis))
    return apply(matmul_op, *sides)


def _columns(graph: Graph, context: Context) -> Graph:
    """X @ W[:, :d] and X @ W[:, d:] as parts of X @ W, where that fills vectors which the parts alone would leave half empty.

    (Else it gains nothing, as measured: a native product reads its operands as they lie, X from the cache from the second time on.)
    """
    if not context.native:
        return graph
    groups: dict[tuple[Var, Var, bool], dict[Size, tuple[Node, Size]]] = {}
    for node in graph.nodes:
        if node.op is not matmul_op:
            continue
        x, b = node.inputs
        part = _part(b, -1)
        # a product with one row or one column is a loop that fuses with what is around it
        if part is None or x.type.shape[-2] == 1 or not isinstance(n := b.type.shape[-1], int) or n < 2:
            continue
        groups.setdefault((x, part.whole, part.turned), {}).setdefault(part.first, (node, part.end))
    plans: dict[Node, Callable[[At], Var]] = {}
    for (x, whole, turned), parts in groups.items():
        for run in _runs(parts):
            if fewer_vectors([_row_bytes(node.outputs[0]) for node, _, _ in run]):
                _Columns(x, whole, turned, run).put(plans)
    return _replaced(graph, "join_columns", plans, context)


def _row_bytes(v: Var) -> int:
    n = v.type.shape[-1]
    assert isinstance(n, int)
    return n * v.type.dtype.itemsize


def _runs(parts: Mapping[Size, tuple[Node, Size]]) -> list[list[tuple[Node, Size, Size]]]:
    """(product, from, to) of stretches that follow one another, two at least."""
    ends = {end for _, end in parts.values()}
    found = []
    rest = dict(parts)
    for first in [first for first in parts if first not in ends]:
        run = []
        while first in rest:
            node, end = rest.pop(first)
            run.append((node, first, end))
            first = end
        if len(run) > 1:
            found.append(run)
    return found


class _Columns:
    """One product in the place of several, made when the first of them is asked for."""

    def __init__(self, x: Var, whole: Var, turned: bool, run: Sequence[tuple[Node, Size, Size]]) -> None:
        self.x, self.whole, self.turned, self.run = x, whole, turned, run
        self.product: Var | None = None

    def put(self, plans: dict[Node, Callable[[At], Var]]) -> None:
        for node, first, end in self.run:
            plans[node] = lambda at, first=first, end=end: self.part(at, first, end)  # type: ignore[misc]

    def part(self, at: At, first: Size, end: Size) -> Var:
        start = self.run[0][1]
        if self.product is None:
            whole = _taken(at(self.whole), self.turned, start, self.run[-1][2], -1)
            self.product = apply(matmul_op, at(self.x), whole)
        return _taken(self.product, False, first - start, end - start, -1)
