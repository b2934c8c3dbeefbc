"""``lower``: Graph -> Program.

What it promises: the same values; every fused node is one kernel (or several, where its body is no single loop
nest); what only moves elements is a view and costs nothing; what no kernel can compute is a call-out to the
op's own ``forward``; every root lies in memory of its own.

    view      transpose, reshape, slices, broadcasting, flip: strides and offsets; copied only where strides cannot say it
    kernel    elementwise ops, reductions, fused nodes: passes/labels.py and passes/stages.py
    parts     operands that are joined, and windows with steps: kernels that write parts of one slab.  What computes an operand
              of a join, and nothing else reads, writes it where it belongs
    product   matmul, convolutions
    ordered   running sums and products; setting and adding at positions
    call-out  everything else
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import DTYPES, is_complex, is_float, real_of
from graphc.errors import Origin, on_behalf_of
from graphc.ir import Graph, Node, Type, Var, apply, make_node, with_inputs
from graphc.kernel import CallOut, Ordered, Product, Program, View, contiguous
from graphc.ops.arithmetic import add, pos, where
from graphc.ops.broadcasting import broadcast_to_op
from graphc.ops.comparison import greater_equal, isfinite, less, logical_not, logical_or
from graphc.ops.complexes import complex_of_op, sifted_product_op
from graphc.ops.control import fused_op
from graphc.ops.core import cast, cast_op, constant, constant_op, dim_of, dim_op, is_door, size_of_op
from graphc.ops.cumulative import accumulator
from graphc.ops.reduction import any as any_
from graphc.ops.reduction import sum as sum_
from graphc.passes.bodies import is_counter, is_gather, is_pointwise, moves_inside, reduction_of
from graphc.passes.convolving import CONVOLUTIONS, contraction_views, einsum_views, is_bare, is_direct, ordered
from graphc.passes.labels import Unlabelled
from graphc.passes.launching import launched
from graphc.passes.native import is_native
from graphc.passes.stages import Source
from graphc.passes.views import dense, from_front, is_dense, numbers, outside, view_guard, view_of
from graphc.plan import is_foreign

__all__ = ["lower"]

INT = DTYPES["int64"]
#: the words of Ordered for the ops that are such loops
ORDERED = {"set_within": "set", "inc_within": "add", "cumsum": "sum", "cumprod": "prod", "recurrence": "recurrence"}


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program = Program(graph, graph.name)
        self.views: dict[Var, View] = {}
        self.names: dict[str, int] = {}
        self.constants: dict[Any, int] = {}
        self.new: dict[int, bool] = {}  # results of call-outs: is their memory surely new?
        self.parts: dict[Var, View] = {}  # values that are computed where they belong: in a part of a slab

    # -- places -------------------------------------------------------------------------------

    def slab(self, v: Var, place: str, name: str) -> int:
        pairs = is_complex(v.type.dtype)
        slab = self.program.slab(real_of(v.type.dtype), (*v.type.shape, 2) if pairs else v.type.shape, place, name, v)
        self.program.slabs[slab].pairs = pairs
        return slab

    def place(self, v: Var, place: str, name: str = "") -> int:
        slab = self.slab(v, place, name or v.name or (v.node.op.name if v.node is not None else "x"))
        self.views[v] = dense(slab, v.type)
        return slab

    def constant(self, data: Any) -> int:
        key = (data.dtype.name, data.shape, data.tobytes()) if data.nbytes <= 4096 else id(data)
        found = self.constants.get(key)
        if found is None:
            kept, shape = np.ascontiguousarray(data), data.shape
            if is_complex(data.dtype):
                kept, shape = kept.view(real_of(data.dtype)), (*shape, 2)
            found = self.constants[key] = self.program.slab(kept.dtype, shape, "constant", "c", None, kept.reshape(shape))
            self.program.slabs[found].pairs = is_complex(data.dtype)
        return found

    def view(self, v: Var) -> View:
        """Where a value lies; constants and sizes get a place when they are first asked for."""
        known = self.views.get(v)
        if known is not None:
            return known
        node = v.node
        assert node is not None, f"{v.describe()} has no place"
        if node.op is size_of_op:  # of its operand only the type is needed
            size = node.inputs[0].type.shape[node.attrs["axis"]]
            node = Node(dim_op, (), {"size": size}, [v.type], node.origin)
            self.kernel_of([node], [], node.outputs, node.origin, "size_of")
            known = self.views[v] = self.views[node.outputs[0]]
            return known
        if node.op is constant_op:
            slab = self.constant(node.attrs["value"])
            known = self.views[v] = dense(slab, v.type)
            return known
        self.kernel_of([node], [], node.outputs, node.origin, node.op.name)
        return self.views[v]

    def source(self, v: Var) -> Source:
        return self.region(self.view(v))

    # -- nodes --------------------------------------------------------------------------------

    def run(self) -> Program:
        program, graph = self.program, self.graph
        program.arguments = tuple([self.place(v, "argument") for v in (*graph.inputs, *graph.shared)])
        nodes = graph.nodes
        self.joins(nodes)
        for node in nodes:
            self.node(node)
        self.roots()
        return program

    def node(self, node: Node) -> None:
        op = node.op
        if op is constant_op or op in (dim_op, size_of_op):
            return  # made where they are read
        if op is fused_op:
            self.fused(node)
        elif (view := self.moved(node)) is not None:
            self.views[node.outputs[0]] = view
        elif op.name in ("matmul", "sifted_matmul") and native_product(node):
            self.product(node)
            if op.name == "sifted_matmul":
                self.doubted(node)
        elif op is sifted_product_op:
            self.views[node.outputs[0]] = self.view(node.inputs[0])
            self.doubted(node)
        elif op.name == "einsum" and is_direct(node):
            self.einsum(node)
        elif op.name in CONVOLUTIONS and len(node.inputs) == 2 and is_plain(node) and native_product(node) and is_bare(node):
            self.contraction(node)
        elif op.name == "within":
            self.checked(node)
        elif op.name == "concatenate" and is_sized(node):
            self.joined(node)
        elif op.name == "window" and is_plain(node) and not is_gather(node) and is_whole(node):
            self.laid(node)
        elif op.name == "roll" and is_plain(node):
            self.rolled(node)
        elif op.name == "sum_to" and reduction_of(node) is None and is_plain(node) and is_sum_of_stretches(node):
            self.summed(node)
        elif is_ordered(node):
            self.ordered(node)
        elif is_native(node) and (is_pointwise(node) or is_gather(node) or is_counter(node) or reduction_of(node) is not None):
            self.kernel_of([node], node.inputs, node.outputs, node.origin, op.name)
        else:
            self.call_out(node)

    def moved(self, node: Node) -> View | None:
        """The result as a view of its operand, after a copy where strides alone cannot say it."""
        if not node.inputs or len(node.outputs) != 1:
            return None
        source = self.view(node.inputs[0])
        apart = node.op.name == "view_as_complex" and source.strides[-1] != 1
        if apart or (node.op.name == "reshape" and len(node.inputs) == 1 and not is_dense(source, numbers(node.inputs[0].type))):
            found = view_of(node, source)
            if found is not None:
                self.guarded(view_guard(node))
                return found
            if not all(is_door(s) for s in node.outputs[0].type.shape):
                return None
            source = self.copied(node.inputs[0], node.origin)
        found = view_of(node, source)
        if found is not None:
            self.guarded(view_guard(node))
        return found

    def copied(self, v: Var, origin: Origin, place: str = "arena") -> View:
        """``v`` as a dense array of its own."""
        slab = self.slab(v, place, "copy")
        self.copy(v.type, self.view(v), dense(slab, v.type), origin, "copy")
        return dense(slab, v.type)

    def copy(self, type: Type, source: View, target: View, origin: Origin, name: str) -> None:
        """Elements of a type written elsewhere, over all of the slab or into a part of it; they broadcast."""
        type = type.with_shape(source.shape)
        sources = self.numbers(type, source)
        inner = list(sources)
        moved = [v if source.shape == target.shape else apply(broadcast_to_op, v, shape=target.shape) for v in inner]
        y = make_node(complex_of_op, moved, {}, origin).outputs[0] if len(inner) > 1 else same(moved[0], origin)
        whole = dims.product(target.shape) * numbers(type) == self.program.slabs[target.slab].elements and is_dense(target, numbers(type))
        self.launch(Graph(inner, [y], name=self.name(name)), sources, [target.slab], origin, [] if whole else [target])

    def numbers(self, type: Type, view: View) -> dict[Var, Source]:
        """A value as what kernels read: itself, or its two parts."""
        real = type.with_dtype(real_of(type.dtype))
        return {Var(real): self.region(view._replace(offset=view.offset + k)) for k in range(numbers(type))}

    def name(self, stem: str) -> str:
        self.names[stem] = count = self.names.get(stem, 0) + 1
        return stem if count == 1 else f"{stem}_{count}"

    def fused(self, node: Node) -> None:
        body: Graph = node.attrs["body"]
        if all(is_native(part) or moves_inside(part) for part in body.nodes):
            sources = {b: self.source(v) for b, v in zip(body.inputs, node.inputs, strict=True)}
            count = len(self.program.slabs)
            try:
                self.results(body, sources, node.outputs, node.origin, body.name)
            except Unlabelled:
                del self.program.slabs[count:]
            else:
                return
        # node by node
        inner: dict[Var, Var] = dict(zip(body.inputs, node.inputs, strict=True))
        for part in body.nodes:
            copy = with_inputs(part, tuple([inner.get(v, v) for v in part.inputs]))
            inner.update(zip(part.outputs, copy.outputs, strict=True))
            self.node(copy)
        for outer, v in zip(node.outputs, body.outputs, strict=True):
            self.views[outer] = self.view(inner[v])

    def kernel_of(self, nodes: Sequence[Node], inputs: Sequence[Var], outputs: Sequence[Var], origin: Origin, name: str) -> None:
        """A kernel of one node."""
        node, = nodes
        inner = {v: Var(v.type, name=v.name) for v in inputs if not moves_inside(v.node)}
        if not inner and not node.inputs:  # a size
            cast = Node(cast_op, (outputs[0],), {"dtype": outputs[0].type.dtype}, [outputs[0].type], origin)
            body = Graph([], cast.outputs, name=self.name(name))
        else:
            copy = Node(node.op, tuple([inner.get(v, v) for v in node.inputs]), node.attrs, [v.type for v in node.outputs], origin)
            body = Graph(list(inner.values()), copy.outputs, name=self.name(name))
        self.results(body, {b: self.source(v) for v, b in inner.items()}, outputs, origin, name)

    def results(self, body: Graph, sources: dict[Var, Source], outputs: Sequence[Var], origin: Origin, name: str) -> None:
        """A kernel and places for its results."""
        slabs: list[int] = []
        parts: list[View | None] = []
        for v in outputs:
            part = self.parts.get(v)
            parts.append(part)
            slabs.append(part.slab if part is not None else self.slab(v, "arena", v.name or name))
        self.launch(body, sources, slabs, origin, parts)
        for v, slab, part in zip(outputs, slabs, parts, strict=True):
            self.views[v] = part if part is not None else dense(slab, v.type)

    # -- parts of a slab ------------------------------------------------------------------------

    def region(self, view: View) -> Source:
        return Source(view.slab, self.program.slabs[view.slab].elements, view.shape, view.strides, view.offset)

    def joins(self, nodes: Sequence[Node]) -> None:
        """Slabs for the results of joins; what one join alone reads is computed in its part."""
        readers: dict[Var, int] = dict.fromkeys(self.graph.roots, 2)
        for node in nodes:
            for v in node.inputs:
                readers[v] = readers.get(v, 0) + 1
        for node in reversed(nodes):
            if node.op.name != "concatenate" or not is_sized(node):
                continue
            v = node.outputs[0]
            out = self.views[v] = self.parts.get(v) or self.fresh(v, "joined")
            for v, part in zip(node.inputs, parts_of(node, out), strict=True):
                while readers[v] == 1 and v.type.shape == part.shape:
                    self.parts[v] = part
                    if v.node is None or v.node.op.name != "expand_dims":
                        break
                    kept = [a for a in range(len(part.shape)) if a not in v.node.attrs["axes"]]
                    v = v.node.inputs[0]
                    part = View(part.slab, tuple([part.shape[a] for a in kept]), tuple([part.strides[a] for a in kept]), part.offset)

    def fresh(self, v: Var, name: str) -> View:
        return dense(self.slab(v, "arena", v.name or name), v.type)

    def joined(self, node: Node) -> None:
        """What is not in its part yet is copied there."""
        out = node.outputs[0]
        if out not in self.views:  # inside of a fused node that is no loop nest
            self.views[out] = self.fresh(out, "joined")
        for v, part in zip(node.inputs, parts_of(node, self.views[out]), strict=True):
            if not alike(self.views.get(v), part):
                self.copy(v.type, self.view(v), part, node.origin, "join")

    def laid(self, node: Node) -> None:
        """A window with steps: what stands around it everywhere, then the elements over that."""
        x, fill = node.inputs
        out = self.fresh(node.outputs[0], "window")
        self.copy(fill.type, self.view(fill), out, node.origin, "around")
        starts, steps = node.attrs["starts"], node.attrs["steps"]
        offset: Size = out.offset
        for start, stride in zip(starts, out.strides, strict=True):
            offset = offset + start * stride
        part = View(out.slab, x.type.shape, tuple([t * s for t, s in zip(out.strides, steps, strict=True)]), offset)
        self.copy(x.type, self.view(x), part, node.origin, "window")
        self.views[node.outputs[0]] = out

    def rolled(self, node: Node) -> None:
        """Along each axis two pieces change places."""
        x, out = node.inputs[0], self.fresh(node.outputs[0], "roll")
        pieces = [(self.view(x), out)]
        for axis, by in zip(node.attrs["axes"], node.attrs["shifts"], strict=True):
            n = x.type.shape[axis]
            k = dims.mod(by, dims.dim_max(n, 1))
            pieces = [(piece(a, axis, first, size), piece(b, axis, where_, size))
                      for a, b in pieces for first, where_, size in ((0, k, n - k), (n - k, 0, k))]
        for a, b in pieces:
            self.copy(x.type, a, b, node.origin, "part")
        self.views[node.outputs[0]] = out

    def summed(self, node: Node) -> None:
        """``sum_to`` where only the call says which axes are summed: axis by axis, a copy that moves nothing or a sum over nothing."""
        v = node.outputs[0]
        view = self.view(node.inputs[0])
        for axis, want in enumerate(v.type.shape):
            have = view.shape[axis]
            if have == want:
                continue
            shape = (*view.shape[:axis], want, *view.shape[axis + 1:])
            slab = self.program.slab(v.type.dtype, shape, "arena", v.name or "sum", v)
            out = View(slab, shape, contiguous(shape))
            differ = dims.dim_min(dims.dim_max(have - want, want - have), 1)
            self.guarded(differ * dims.dim_max(want - 1, 1 - want))
            self.copy(v.type, piece(view, axis, 0, want * (1 - differ)), piece(out, axis, 0, want * (1 - differ)), node.origin, "part")
            source, target, along = view, piece(out, axis, 0, 1), axis
            if len(shape) == 1:  # no other axis that could be empty
                source = View(source.slab, (1, *source.shape), (0, *source.strides), source.offset)
                target, along = View(target.slab, (1, *target.shape), (1, *target.strides), target.offset), 1
            other = 1 if along == 0 else 0
            source, target = piece(source, other, 0, source.shape[other] * differ), piece(target, other, 0, target.shape[other] * differ)
            inner = Var(v.type.with_shape(source.shape), name=v.name)
            with on_behalf_of(node.origin):
                total = sum_(inner, (along,), keepdims=True)
            self.launch(Graph([inner], [total], name=self.name("sum_to")), {inner: self.region(source)}, [slab], node.origin, [target])
            view = out
        self.views[v] = view

    # -- one after the other --------------------------------------------------------------------

    def ordered(self, node: Node) -> None:
        word = ORDERED[node.op.name]
        operands = node.inputs
        if word in ("set", "add"):
            out = self.copied(operands[0], node.origin)
            operands = operands[1:]
        else:
            out = self.fresh(node.outputs[0], node.op.name)
        views = [self.view(v) for v in operands]
        if node.attrs.get("reverse"):
            views = [turned(view, node.attrs["axis"]) for view in views]
        target = turned(out, node.attrs["axis"]) if node.attrs.get("reverse") else out
        self.program.steps.append(Ordered(word, tuple(views), target, node.attrs["axis"], node.origin))
        self.views[node.outputs[0]] = out

    def checked(self, node: Node) -> None:
        """Positions counted from the front, and a check that none is outside."""
        v, size = node.inputs[0], node.attrs["size"]
        known = dim_of(v)
        if known is not None and is_door(known):  # the sizes say whether it is inside
            self.guarded(outside(known, size))
            value = from_front(known, size)
            where_ = constant(value, INT) if isinstance(value, int) else apply(dim_op, size=value)
            self.views[node.outputs[0]] = self.view(where_)
            return
        inner = Var(v.type, name=v.name)
        with on_behalf_of(node.origin):
            n = constant(size, INT) if isinstance(size, int) else apply(dim_op, size=size)
            wide = cast(inner, INT)
            wrapped = where(less(wide, 0), add(wide, n), wide)
            bad = any_(logical_or(less(wrapped, 0), greater_equal(wrapped, n)))
        body = Graph([inner], [wrapped, bad], name=self.name("within"))
        slabs = [self.program.slab(INT, v.type.shape, "arena", "within", node.outputs[0]), self.program.slab(bad.type.dtype, (), "arena", "outside")]
        self.program.checks = (*self.program.checks, slabs[1])
        self.launch(body, {inner: self.source(v)}, slabs, node.origin)
        self.views[node.outputs[0]] = View(slabs[0], v.type.shape, contiguous(v.type.shape))

    def guard(self, body: Graph) -> None:
        """Sizes for which some op of the body is an error: no largest value along an axis of length 0."""
        for node in body.nodes:
            if node.op.name == "broadcast_to":
                self.guarded(view_guard(node))
            if node.op.name not in ("max", "min", "argmax", "argmin"):
                continue
            along = dims.product(node.inputs[0].type.shape[a] for a in node.attrs["axis"])
            if dims.bounds(along)[0] > 0:
                continue
            results = dims.product(node.outputs[0].type.shape)
            self.guarded(dims.dim_min(results, 1) * (1 - dims.dim_min(along, 1)))

    def guarded(self, guard: Size) -> None:
        if guard != 0 and guard not in self.program.guards:
            self.program.guards = (*self.program.guards, guard)

    def launch(self, body: Graph, sources: dict[Var, Source], outputs: Sequence[int], origin: Origin, parts: Sequence[View | None] = ()) -> None:
        """Run a body.  ``parts``: for each result where in its slab it goes, if it does not fill it."""
        places = {k: self.region(view) for k, view in enumerate(parts) if view is not None}
        self.guard(body)
        self.program.steps.append(launched(body, sources, outputs, origin, self.constant, places))

    def product(self, node: Node) -> None:
        out = node.outputs[0]
        lead = out.type.shape[:-2]
        a, b = (self.broadcast(self.view(v), lead) for v in node.inputs)
        part = self.parts.get(out)
        if part is not None and part.strides[-1] == 1:
            self.views[out] = part
        else:
            self.place(out, "arena")
        self.program.steps.append(Product(a, b, self.views[out], (1, 1, 1), node.origin))

    def doubted(self, node: Node) -> None:
        """A product in which zeros meet nothing is an ordinary one if that is finite, which the careful evaluation need not be asked then."""
        v = node.outputs[0]
        sources = self.numbers(v.type, self.view(v))
        inner = list(sources)
        with on_behalf_of(node.origin):
            bad = any_(functools.reduce(logical_or, [logical_not(isfinite(part)) for part in inner]))
        slab = self.program.slab(bad.type.dtype, (), "arena", "doubt")
        self.program.checks = (*self.program.checks, slab)
        self.program.doubts |= {slab}
        self.launch(Graph(inner, [bad], name=self.name("doubt")), sources, [slab], node.origin)

    def contraction(self, node: Node) -> None:
        self.place(node.outputs[0], "arena")
        first, second = (self.view(v) for v in node.inputs)
        a, b, out, axes = contraction_views(node, first, second, self.views[node.outputs[0]])
        self.program.steps.append(Product(a, b, out, axes, node.origin))

    def einsum(self, node: Node) -> None:
        """A contraction as its operands stand, in the order that the result of one has."""
        v = node.outputs[0]
        first, second = (self.view(x) for x in node.inputs)
        a, b, shape, axes, order = einsum_views(node, first, second)
        slab = self.program.slab(v.type.dtype, shape, "arena", v.name or "einsum", v)
        out = View(slab, shape, contiguous(shape))
        self.program.steps.append(Product(a, b, out, axes, node.origin))
        self.views[v] = ordered(out, order)

    def broadcast(self, view: View, lead: Sequence[Size]) -> View:
        """Leading axes as those of a product: stride 0 where the operand has one element."""
        have = len(view.shape) - 2
        strides: list[Size] = [0] * (len(lead) - have)
        for size, want, stride in zip(view.shape[:have], lead[len(lead) - have:], view.strides[:have], strict=True):
            strides.append(stride if size == want else stride * dims.dim_min(1, size - 1))
        return View(view.slab, (*lead, *view.shape[have:]), (*strides, *view.strides[have:]), view.offset)

    def call_out(self, node: Node) -> None:
        inputs = tuple([self.view(v) for v in node.inputs])
        slabs = tuple([self.place(v, "fresh") for v in node.outputs])
        found = []
        known = {s for v in node.inputs for size in v.type.shape for s in dims.symbols(size)}
        for k, v in enumerate(node.outputs):
            for axis, size in enumerate(v.type.shape):
                symbol = size.symbol if not isinstance(size, int) else None
                if symbol is not None and symbol.kind == "data" and symbol not in known:
                    known.add(symbol)
                    found.append((symbol, k, axis))
        self.program.steps.append(CallOut(node, inputs, slabs, tuple(found)))
        self.new.update(dict.fromkeys(slabs, not is_foreign(node.op) and not node.op.view))

    # -- roots --------------------------------------------------------------------------------

    def roots(self) -> None:
        """Each root in memory of its own."""
        program = self.program
        given: set[int] = set()
        roots = []
        for v in self.graph.roots:
            view, each = self.view(v), numbers(v.type)
            view = view.parts if each > 1 else view
            slab = program.slabs[view.slab]
            own = slab.place == "arena" or (slab.place == "fresh" and self.new[view.slab])
            if slab.place == "arena" and view.slab not in given and view.offset == 0 and is_dense(view) and slab.elements == dims.product(view.shape):
                slab.shape, slab.pairs = view.shape, each > 1  # the same elements under other axes
            if not own or slab.pairs != (each > 1) or view.slab in given or view.offset != 0 or slab.shape != view.shape or not is_dense(view):
                view = self.copied(v, v.origin, "output")
                slab = program.slabs[view.slab]
            if slab.place == "arena":
                slab.place = "output"
            given.add(view.slab)
            roots.append(view.slab)
        program.roots = tuple(roots)


def same(x: Var, origin: Origin) -> Var:
    """``x`` itself, as a node."""
    node = make_node(cast_op, [x], {"dtype": x.type.dtype}, origin) if x.type.dtype.kind == "b" else make_node(pos, [x], {}, origin)
    return node.outputs[0]


def is_sum_of_stretches(node: Node) -> bool:
    return len(node.inputs) == 1 and node.inputs[0].type.ndim == node.outputs[0].type.ndim and is_float(node.outputs[0].type.dtype)


def is_whole(node: Node) -> bool:
    """Does all of a window with steps lie inside?  Where formulas say where, it does: passes/moving.py makes no others."""
    attrs = node.attrs
    known = [(n, start, step, size) for n, start, step, size in zip(node.inputs[0].type.shape, attrs["starts"], attrs["steps"], attrs["shape"], strict=True)
             if isinstance(n, int) and isinstance(start, int) and isinstance(size, int)]
    return all(n == 0 or 0 <= start <= start + (n - 1) * step < size for n, start, step, size in known) and not any(
        isinstance(start, int) and start < 0 for start in attrs["starts"])


def piece(view: View, axis: int, first: Size, size: Size) -> View:
    """``size`` elements along an axis from ``first`` on."""
    return View(view.slab, (*view.shape[:axis], size, *view.shape[axis + 1:]), view.strides, view.offset + first * view.strides[axis])


def alike(a: View | None, b: View) -> bool:
    """Do both see the same elements?  Strides of axes of size 1 say nothing."""
    return a is not None and (a.slab, a.shape, a.offset) == (b.slab, b.shape, b.offset) and all(
        s == t or dims.is_one(n) for n, s, t in zip(a.shape, a.strides, b.strides, strict=True))


def is_plain(node: Node) -> bool:
    """Numbers that kernels have, and sizes that are known when a call begins."""
    return not any(is_complex(v.type.dtype) for v in (*node.inputs, *node.outputs)) and is_sized(node)


def is_sized(node: Node) -> bool:
    """Are all sizes known when a call begins?"""
    return all(is_door(size) for v in (*node.inputs, *node.outputs) for size in v.type.shape)


def is_ordered(node: Node) -> bool:
    """A loop whose rounds follow one another, in the dtype of its result."""
    if node.op.name not in ORDERED or not is_plain(node) or node.attrs.get("exclusive"):
        return False
    dtype = node.outputs[0].type.dtype
    if ORDERED[node.op.name] in ("set", "add"):
        return True
    return accumulator(dtype) == dtype and all(v.type.dtype == dtype for v in node.inputs)


def parts_of(node: Node, out: View) -> list[View]:
    """Where the operands of a join lie in its result."""
    axis, offset, found = node.attrs["axis"], out.offset, []
    for v in node.inputs:
        n = v.type.shape[axis]
        found.append(View(out.slab, (*out.shape[:axis], n, *out.shape[axis + 1:]), out.strides, offset))
        offset = offset + n * out.strides[axis]
    return found


def turned(view: View, axis: int) -> View:
    """The same elements from the end of an axis to its beginning."""
    strides = list(view.strides)
    strides[axis] = strides[axis] * -1
    return View(view.slab, view.shape, tuple(strides), view.offset + (view.shape[axis] - 1) * view.strides[axis])


def native_product(node: Node) -> bool:
    return node.outputs[0].type.dtype.kind in "biu" or is_float(node.outputs[0].type.dtype)


def lower(graph: Graph) -> Program:
    """The program of a graph, without places in the arena: see passes/arena.py."""
    return _Lowering(graph).run()
