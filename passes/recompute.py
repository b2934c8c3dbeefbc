"""``recompute``: large products' results that the gradient needs again are computed again.

What it promises: the same values, bit for bit, by the same ops on the same operands.

``softmax(Q K')`` of T queries and T keys has T x T numbers, its operands and its product with V have T x d.  In a sweep (passes/sweeps.py)
it is never in memory as a whole, unless something reads it that can only be computed once the sweep is done: the gradient.  So what is made
from such a product row by row is computed a second time for those readers, from the same operands.  That costs one product more than keeping
it, and memory linear in T.  Masks that are compared or combined from less are computed by each that reads them.  Numbers of each row are
kept where others than wide arrays read them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_float
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Var, rebuild, with_inputs
from graphc.ops.broadcasting import broadcast_to
from graphc.ops.core import constant_op
from graphc.passes.bodies import is_counter, is_pointwise
from graphc.passes.context import Context, Rewrite

__all__ = ["recompute"]

Shape = tuple[Size, ...]
#: bytes of a product's result up to which it is rather kept: reading it again is faster than a product.  Where rows see only the first columns (the causal mask),
#: a product is half of one (passes/triangles.py), if nothing keeps its result
KEPT_BYTES, KEPT_HALVES = 16 << 20, 512 << 10
#: bytes of a product's result from which masks of its matrices are computed where they are read
MASKED_BYTES = 256 << 10
#: FLOPs of an op that is done once more
CHEAP = 2.0
COMPARISONS = frozenset({"less", "less_equal", "greater", "greater_equal"})
#: what shows the same elements under other axes
MOVES = frozenset({"transpose", "expand_dims", "squeeze", "reshape"})


def recompute(graph: Graph, context: Context) -> Graph:
    """See the module's docstring; for backends that run programs."""
    if not context.native:
        return graph
    graph = _with_masks_of_all(graph)
    nodes = graph.nodes
    halves = {node.outputs[0].type.shape[-2:] for node in nodes if node.op.name in COMPARISONS and all(_counts(v) for v in node.inputs)}
    seeds = [node for node in nodes if is_seed(node, KEPT_HALVES if node.outputs[0].type.shape[-2:] in halves else KEPT_BYTES)]
    if not seeds:
        return graph
    readers: dict[Var, list[Node]] = {}
    for node in nodes:
        for v in node.inputs:
            readers.setdefault(v, []).append(node)
    order = {node: n for n, node in enumerate(nodes)}
    roots = set(graph.roots)
    masks = _masks(nodes)
    instead: dict[Node, dict[Var, Var]] = {}  # for late readers: what they read now
    after: set[Node] = set()
    for seed in seeds:
        wide = _region(seed, readers, order)
        exits = [r for v in wide for r in readers.get(v, ()) if r.outputs[0] not in wide]
        late = _descendants(exits, readers)
        after |= late
        kept = _kept(seed.outputs[0], list(wide), late, readers)
        wide = {v: None for v in wide if v.node not in late and v not in kept}
        copies: dict[Var, Var] = {}
        for v in wide:
            if v in roots:
                continue
            for r in readers.get(v, ()):
                if r in late and r.outputs[0] not in wide:
                    instead.setdefault(r, {})[v] = _copied(v, wide, masks, roots, copies, order)
                    context.log.append(Rewrite("recompute", v, copies[v]))
    shapes = {seed.outputs[0].type.shape for seed in seeds}
    again: dict[Var, Var] = {}
    for v in masks:
        if v.type.shape in shapes and v not in roots:
            for r in readers.get(v, ()):
                if _of_rows(r, v):
                    instead.setdefault(r, {})[v] = _copied(v, {}, masks, roots, {}, order)
                elif r in after and v.type.dtype == np.bool_ and r.outputs[0] not in masks:  # by the kernels of the gradient
                    instead.setdefault(r, {})[v] = _copied(v, {}, masks, roots, again, order)

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        table = instead.get(node)
        if table is None:
            return None
        return with_inputs(node, tuple([table.get(old, new) for old, new in zip(node.inputs, inputs, strict=True)])).outputs

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit)) if instead else graph


def _with_masks_of_all(graph: Graph) -> Graph:
    """Masks that are counted for one matrix, or some, and read by those of large products' results: computed for all of these, by the kernels that read them.

    As an array the mask of T rows has T x T elements; and a kernel that compares columns with rows may leave out those that are hidden (passes/triangles.py).
    """
    nodes = graph.nodes
    shapes = {node.outputs[0].type.shape for node in nodes if len(node.outputs[0].type.shape) > 2 and is_seed(node, MASKED_BYTES)}
    if not shapes:
        return graph
    counted: dict[Var, None] = {}
    for node in nodes:
        if len(node.outputs) == 1 and is_pointwise(node) and not is_counter(node) and node.op.pure and node.op.flops <= CHEAP and any(
                x in counted or _counts(x) or _is_constant(x) for x in node.inputs) and all(x in counted or _is_constant(x) or _is_line(x) for x in node.inputs):
            counted[node.outputs[0]] = None
    whole = {shape[-2:] for shape in shapes}
    masks = {v for v in counted if v.type.shape[-2:] in whole and v.type.shape not in shapes}
    copies: dict[tuple[Var, Shape], Var] = {}

    def of_all(v: Var, shape: Shape) -> Var:
        """A mask, and what it is computed from, for all matrices."""
        todo = [v]
        while todo:
            x = todo[-1]
            inputs = _maker(x).inputs
            missing = [a for a in inputs if a in counted and (a, shape) not in copies]
            todo += missing
            if missing:
                continue
            todo.pop()
            made = [copies[a, shape] if a in counted else broadcast_to(a, (*shape[:-2], *a.type.shape)) if a.type.ndim == 2 and (_counts(a) or _is_constant(a)) else a for a in inputs]
            copies[x, shape] = with_inputs(_maker(x), tuple(made)).outputs[0]
        return copies[v, shape]

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        shape = node.outputs[0].type.shape
        if len(node.outputs) != 1 or shape not in shapes or not is_pointwise(node) or not any(v in masks for v in node.inputs):
            return None
        with on_behalf_of(node.origin):
            made = [of_all(old, shape) if old in masks else new for old, new in zip(node.inputs, inputs, strict=True)]
        return with_inputs(node, tuple(made)).outputs if all(v.type.shape == shape or old not in masks for v, old in zip(made, node.inputs, strict=True)) else None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit)) if masks else graph


def _is_constant(v: Var) -> bool:
    """Is it a constant matrix?"""
    return v.node is not None and v.node.op is constant_op and v.type.ndim == 2


def _is_line(v: Var) -> bool:
    """Has it only numbers of rows, or of columns?"""
    return v.type.ndim < 2 or any(dims.is_one(n) for n in v.type.shape[-2:])


def is_seed(node: Node, kept: int) -> bool:
    """A product whose result is much larger than its operands, and larger than what is kept."""
    if node.op.name not in ("matmul", "sifted_matmul") or not is_float(node.outputs[0].type.dtype):
        return False
    out = node.outputs[0].type
    k, n, total = node.inputs[0].type.shape[-1], out.shape[-1], dims.product(out.shape)
    if not isinstance(total, int):
        return isinstance(k, int) and not isinstance(n, int) and not isinstance(out.shape[-2], int)
    return isinstance(k, int) and isinstance(n, int) and n >= 2 * k and total * out.dtype.itemsize > kept


def _counts(v: Var) -> bool:
    """Is it 0, 1, 2, ... along an axis?"""
    while v.node is not None and v.node.op.name in (*MOVES, "broadcast_to"):
        v = v.node.inputs[0]
    return v.node is not None and (is_counter(v.node) or (v.node.op is constant_op and v.type.dtype.kind == "i" and v.type.ndim > 0))


def _region(seed: Node, readers: dict[Var, list[Node]], order: dict[Node, int]) -> dict[Var, None]:
    """The seed's result, and what is made from it row by row: as many numbers, or one for each row."""
    shape = seed.outputs[0].type.shape
    sizes = (dims.product(shape), dims.product(shape[:-1]))
    found: dict[Var, None] = {seed.outputs[0]: None}
    todo = [seed.outputs[0]]
    while todo:
        v = todo.pop()
        for r in readers.get(v, ()):
            if len(r.outputs) == 1 and r.outputs[0] not in found and (_of_rows(r, v) or r.op.name in MOVES or (
                    is_pointwise(r) and r.outputs[0].type.shape[:-1] in (shape[:-1], shape[:-2]) and dims.product(r.outputs[0].type.shape) in sizes)):
                found[r.outputs[0]] = None
                todo.append(r.outputs[0])
    return dict.fromkeys(sorted(found, key=lambda v: order[_maker(v)]))


def _kept(seed: Var, region: Sequence[Var], late: set[Node], readers: dict[Var, list[Node]]) -> set[Var]:
    """What is not computed again: numbers of each row that others than the gradient's wide arrays read.

    The greatest number of each row, which the exponential reads; the sum, by which the value is divided after its product: what is divided by a
    sum that the sweep of the gradient computes cannot be an operand of that sweep.
    """
    every = dims.product(seed.type.shape)
    asked: set[Var] = set()  # of the numbers of each row, those that are wanted elsewhere
    for v in reversed(region):
        if dims.product(v.type.shape) != every:
            for r in readers.get(v, ()):
                out = r.outputs[0]
                if out in asked or (r not in late if dims.product(out.type.shape) == every else dims.product(out.type.shape) != dims.product(v.type.shape)):
                    asked.add(v)
    return {v for v in asked if _maker(v).op.kind == "reduction"}


def _of_rows(node: Node, v: Var) -> bool:
    """Does it make a number of each row?"""
    axis = node.attrs.get("axis")
    return node.op.kind == "reduction" and axis == (v.type.ndim - 1,)


def _descendants(nodes: Sequence[Node], readers: dict[Var, list[Node]]) -> set[Node]:
    """What is computed from the results of these nodes."""
    found: set[Node] = set()
    todo = [r for node in nodes for v in node.outputs for r in readers.get(v, ())]
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += [r for v in node.outputs for r in readers.get(v, ())]
    return found


def _copied(v: Var, wide: dict[Var, None], masks: dict[Var, None], roots: set[Var], copies: dict[Var, Var], order: dict[Node, int]) -> Var:
    """The same value once more, from operands that are not wide; masks and the like, as large and computed from less, too."""
    needed, todo = {v}, [v]
    while todo:
        for x in _maker(todo.pop()).inputs:
            if (x in wide or (x in masks and x.type.shape == v.type.shape)) and x not in roots and x not in needed:
                needed.add(x)
                todo.append(x)
    for x in sorted(needed, key=lambda x: order[_maker(x)]):
        if x not in copies:
            node = _maker(x)
            copies[x] = with_inputs(node, tuple([copies.get(a, a) for a in node.inputs])).outputs[0]
    return copies[v]


def _masks(nodes: Sequence[Node]) -> dict[Var, None]:
    """What is computed element by element from less: smaller operands, or others like it."""
    found: dict[Var, None] = {}
    for node in nodes:
        if len(node.outputs) == 1 and node.inputs and is_pointwise(node):
            shape = node.outputs[0].type.shape
            if all(x in found or x.type.shape != shape for x in node.inputs):
                found[node.outputs[0]] = None
    return found


def _maker(v: Var) -> Node:
    assert v.node is not None
    return v.node
