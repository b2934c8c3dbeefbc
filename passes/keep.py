"""``keep``: what depends only on state that the function does not change is computed once per change of the state.

What it promises: the same values, bit for bit, by the same ops on the same operands; no more memory than the state itself takes.

A weight of several megabytes is laid out in panels as the products of blocks read it, [k / deep, n / width, deep, width]: the product is an einsum
then, which lowers to a contraction.

Kept are expressions of such state (a weight cast, masked, normalised; two weights multiplied or joined), and the right operand of a
product where the product would lay it out anew in each call: ``x @ w.T``.  The graph gets a leaf in its place (graphc/kept.py).
Narrow weights of products with one left operand are joined (passes/columns.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Node, Shared, Var, apply, rebuild
from graphc.kept import KeptState
from graphc.ops.contraction import einsum_op
from graphc.ops.convolution import conv_input_op, conv_op
from graphc.ops.core import constant_op
from graphc.ops.movement import reshape, transpose
from graphc.ops.sliding import windows_op
from graphc.passes.columns import joined
from graphc.passes.context import Context, Rewrite
from graphc.passes.convolving import PANELED, SMALL, in_panels, turned_over

__all__ = ["keep"]

#: bytes from which on it is worth a leaf; rows of a product from which on it lays out its right operand
LEAST_BYTES, LEAST_ROWS = 1 << 14, 4
#: bytes of a weight from which on it is laid out in panels; or bytes that its rows lie apart, or a multiple of them, and how many rows
LARGE_BYTES, FAR_BYTES, FAR_ROWS = 8 << 20, 4096, 256
#: numbers that a place of a large image adds up from which on its result is worth turning, which has channels last
LEAST_SUMS = 256
#: ops that show their operand's elements, or parts of them, under other axes
VIEWS = frozenset({"transpose", "expand_dims", "squeeze", "reshape", "broadcast_to", "flip", "real", "imag", "view_as_real", "view_as_complex"})
#: those that change how far apart elements lie
TURNED = frozenset({"transpose", "broadcast_to", "flip", "real", "imag"})
#: ops that may be computed ahead
KINDS = frozenset({"elementwise", "reduction", "movement", "indexing", "contraction"})


class Panels(NamedTuple):
    """A weight in panels: its axes divided, then their order."""

    shape: tuple[Size, ...]
    axes: tuple[int, ...]


def keep(graph: Graph, context: Context) -> Graph:
    """See the module's docstring; for backends that run programs."""
    if not context.native:
        return graph
    graph = _turned(graph, _fixed(graph), context)
    graph, joints = joined(graph, _fixed(graph), context)
    fixed, nodes = _fixed(graph), graph.nodes
    table: dict[Var, Var] = {}
    pooled, products = _before_pooling(graph), dict[Node, Panels]()
    for node in nodes:
        if any(v in fixed for v in node.outputs):
            continue
        for position, v in enumerate(node.inputs):
            if fixed.get(v):
                form = _kernel_panels(v, node, position, node in pooled, context) if node.op is conv_op else _panels(v, node, position, context)
                if form is not None and _bytes(v) <= _given(v, fixed):
                    products[node] = form
                else:
                    _kept(v, node, position, fixed, table, joints)
    if not table and not products:
        return graph
    leaves: dict[tuple[Var, Panels], Var] = {}

    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        form = products.get(node)
        if form is None:
            return None
        w = node.inputs[1]
        if (w, form) not in leaves:
            leaves[w, form] = KeptState(transpose(reshape(w, form.shape), form.axes), _name(fixed[w], "panels"), w.origin)
        with on_behalf_of(node.origin):
            found = (in_panels if node.op is conv_op else _paneled)(node, inputs[0], leaves[w, form])
        context.log.append(Rewrite("keep", node.outputs[0], found))
        return (found,)

    for v, leaf in table.items():
        context.log.append(Rewrite("keep", v, leaf))
    return graph.with_roots(rebuild(graph.roots, table, visit=visit))


def _fixed(graph: Graph) -> dict[Var, dict[Shared, None]]:
    """What depends on constants and unchanged state only, and which state that is."""
    changed = {s.container for s, _ in graph.updates}
    still = [s for s in graph.shared if s.container not in changed and all(isinstance(n, int) for n in s.type.shape)]
    found: dict[Var, dict[Shared, None]] = {s: {s: None} for s in still}
    for node in graph.nodes:
        if node.op is constant_op:
            found[node.outputs[0]] = {}
        elif node.inputs and _plain(node) and all(v in found for v in node.inputs):
            sources = {s: None for v in node.inputs for s in found[v]}
            found.update(dict.fromkeys(node.outputs, sources))
    return found


def _panels(v: Var, node: Node, position: int, context: Context) -> Panels | None:
    """Those of a matrix that a product reads: [k / deep, n / width, deep, width]."""
    form = context.panels(v.type.dtype)
    if form is None or node.op.name != "matmul" or position != 1 or v.type.ndim != 2:
        return None
    (k, n), rows, (most, width) = v.type.shape, node.inputs[0].type.shape[-2], form
    if not isinstance(k, int) or not isinstance(n, int) or (isinstance(rows, int) and rows < LEAST_ROWS) or n == 0 or n % width:
        return None
    apart, itemsize = n * v.type.dtype.itemsize, v.type.dtype.itemsize
    if k * apart < LARGE_BYTES and (apart % FAR_BYTES or k < FAR_ROWS * 4 // itemsize):
        return None
    deep = max(d for d in range(1, min(most, k) + 1) if k % d == 0)
    return Panels((k // deep, deep, n // width, width), (0, 2, 1, 3)) if 4 * deep >= most else None


def _before_pooling(graph: Graph) -> set[Node]:
    """Nodes of whose results windows are seen, with only elementwise ones between."""
    seen: set[Var] = set()
    found = set()
    for node in reversed(graph.nodes):
        if any(v in seen for v in node.outputs):
            found.add(node)
        if node.op is windows_op or (node in found and (node.op.kind == "elementwise" or node.op.name in VIEWS)):
            seen.update(node.inputs)
    return found


def _kernel_panels(v: Var, node: Node, position: int, pooled: bool, context: Context) -> Panels | None:
    """Those of the kernel of a convolution whose places are rows of a product then, not columns: [o / width, c, window, width].

    Not where turning the result costs as much as it saves, nor of many large images that are pooled: those are swept, image by image (passes/sweeps.py).
    """
    form = context.panels(v.type.dtype)
    if form is None or position != 1 or len(node.inputs) > 2 or node.attrs["groups"] != 1 or _bytes(v) < LEAST_BYTES:
        return None
    (_, width), (out, channels, *window) = form, v.type.shape
    batch, _, *places = node.outputs[0].type.shape
    count, sums = dims.product(places), dims.product((channels, *window))
    if not isinstance(sums, int) or not isinstance(count, int) or not isinstance(out, int) or out % width or dims.product(window) == 1 or batch * count in (0, 1):
        return None
    if count > SMALL and (sums < LEAST_SUMS or (pooled and batch != 1)):
        return None
    return Panels((out // width, width, channels, *window), (0, *range(2, 3 + len(window)), 1))


def _paneled(node: Node, x: Var, panels: Var) -> Var:
    """The product as an einsum."""
    blocks, count, deep, width = panels.type.shape
    rows = reshape(x, (dims.product(x.type.shape[:-1]), blocks, deep))
    found = apply(einsum_op, rows, panels, subscripts=PANELED)
    return reshape(found, (*x.type.shape[:-1], count * width))


def _name(sources: Iterable[Shared], what: str) -> str:
    return "_".join([*(s.name for s in sources if s.name), what])


def _plain(node: Node) -> bool:
    """Is it the same whenever it is computed, of known size, and cannot fail?"""
    return node.op.pure and not node.op.placeholder and node.op.kind in KINDS and node.op.name != "within" and all(
        isinstance(n, int) for v in node.outputs for n in v.type.shape)


def _kept(v: Var, node: Node, position: int, fixed: dict[Var, dict[Shared, None]], table: dict[Var, Var], joints: Collection[Var]) -> None:
    """Put a leaf for what ``node`` reads into the table, if that pays; joined matrices always do."""
    base = v
    while base.node is not None and base.node.op.name in VIEWS:
        base = base.node.inputs[0]
    if v is not base and _laid_out(v, node, position):
        base = v
    elif base.node is None or base.node.op is constant_op:
        return
    least = 0 if base in joints else LEAST_BYTES
    if base in table or not least <= _bytes(base) <= _given(base, fixed):
        return
    table[base] = KeptState(base, _name(fixed[base], "kept"), base.origin)


def _turned(graph: Graph, fixed: Mapping[Var, Collection[Shared]], context: Context) -> Graph:
    """The graph with convolutions of kernels turned over in place of ``conv_input``, where kernels stay: those that are laid out for it then."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Sequence[Var] | None:
        if node.op is not conv_input_op or not fixed.get(node.inputs[0]) or node.inputs[1] in fixed or _bytes(node.inputs[0]) < LEAST_BYTES:
            return None
        with on_behalf_of(node.origin.by("keep")):
            found = turned_over(node, *inputs)
        if found is None or found.type != node.outputs[0].type:
            return None
        found.name = node.outputs[0].name
        context.log.append(Rewrite("keep", node.outputs[0], found))
        return (found,)

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit)) if any(node.op is conv_input_op for node in graph.nodes) else graph


def _given(v: Var, fixed: Mapping[Var, Collection[Shared]]) -> int:
    """Bytes of the state that it is made of."""
    return sum(_bytes(s) for s in fixed[v])


def _bytes(v: Var) -> int:
    nbytes = dims.product(v.type.shape) * v.type.dtype.itemsize
    assert isinstance(nbytes, int)
    return nbytes


def _laid_out(v: Var, node: Node, position: int) -> bool:
    """Does a product read a matrix column by column, and so copies it first?  Or a kernel whose rows do not lie as tiles read them?"""
    if node.op is conv_op:
        while position == 1 and dims.product(v.type.shape[2:]) != 1 and v.node is not None and v.node.op.name in VIEWS:
            if v.node.op.name in TURNED:
                return True
            v = v.node.inputs[0]
        return False
    if node.op.name != "matmul" or position != 1 or v.type.ndim != 2 or v.node is None or v.node.op.name != "transpose":
        return False
    rows, columns = node.inputs[0].type.shape[-2], v.type.shape[-1]
    return not (isinstance(rows, int) and rows < LEAST_ROWS) and columns != 1
