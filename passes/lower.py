"""``lower``: Graph -> Program.

What it promises: the same values; every fused node is one kernel (or several, where its body is no single loop
nest); what only moves elements is a view and costs nothing; what no kernel can compute is a call-out to the
op's own ``forward``; every root lies in memory of its own.

    view      transpose, reshape, slices, broadcasting, flip: strides and offsets; copied only where strides cannot say it
    kernel    elementwise ops, reductions, fused nodes: passes/labels.py and passes/stages.py
    product   matmul
    call-out  everything else
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import DTYPES, is_complex
from graphc.errors import Origin, on_behalf_of
from graphc.ir import Graph, Node, Var, apply, make_node, with_inputs
from graphc.kernel import CallOut, Launch, Product, Program, View, contiguous
from graphc.ops.arithmetic import add, pos, where
from graphc.ops.comparison import greater_equal, less, logical_or
from graphc.ops.control import fused_op
from graphc.ops.core import cast, cast_op, constant, constant_op, dim_op, is_door, size_of_op
from graphc.ops.reduction import any as any_
from graphc.passes.bodies import is_counter, is_gather, is_pointwise, moves_inside, reduction_of
from graphc.passes.labels import Unlabelled
from graphc.passes.native import is_native
from graphc.passes.stages import Source, build_kernel
from graphc.passes.views import is_dense, view_of
from graphc.plan import is_foreign

__all__ = ["lower"]

INT = DTYPES["int64"]


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.program = Program(graph, graph.name)
        self.views: dict[Var, View] = {}
        self.names: dict[str, int] = {}
        self.constants: dict[Any, int] = {}
        self.new: dict[int, bool] = {}  # results of call-outs: is their memory surely new?

    # -- places -------------------------------------------------------------------------------

    def place(self, v: Var, place: str, name: str = "") -> int:
        slab = self.program.slab(v.type.dtype, v.type.shape, place, name or v.name or (v.node.op.name if v.node is not None else "x"), v)
        self.views[v] = View(slab, v.type.shape, contiguous(v.type.shape))
        return slab

    def constant(self, data: Any) -> int:
        key = (data.dtype.name, data.shape, data.tobytes()) if data.nbytes <= 4096 else id(data)
        found = self.constants.get(key)
        if found is None:
            found = self.constants[key] = self.program.slab(data.dtype, data.shape, "constant", "c", None, np.ascontiguousarray(data).reshape(data.shape))
        return found

    def view(self, v: Var) -> View:
        """Where a value lies; constants and sizes get a place when they are first asked for."""
        known = self.views.get(v)
        if known is not None:
            return known
        node = v.node
        assert node is not None, f"{v.describe()} has no place"
        if node.op is constant_op:
            slab = self.constant(node.attrs["value"])
            known = self.views[v] = View(slab, v.type.shape, contiguous(v.type.shape))
            return known
        self.kernel_of([node], [], node.outputs, node.origin, node.op.name)
        return self.views[v]

    def source(self, v: Var) -> Source:
        view = self.view(v)
        return Source(view.slab, self.program.slabs[view.slab].elements, view.shape, view.strides, view.offset)

    # -- nodes --------------------------------------------------------------------------------

    def run(self) -> Program:
        program, graph = self.program, self.graph
        program.arguments = tuple([self.place(v, "argument") for v in (*graph.inputs, *graph.shared)])
        for node in graph.nodes:
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
        elif op.name == "matmul" and native_product(node):
            self.product(node)
        elif op.name == "within":
            self.checked(node)
        elif is_native(node) and (is_pointwise(node) or is_gather(node) or is_counter(node) or reduction_of(node) is not None):
            self.kernel_of([node], node.inputs, node.outputs, node.origin, op.name)
        else:
            self.call_out(node)

    def moved(self, node: Node) -> View | None:
        """The result as a view of its operand, after a copy where strides alone cannot say it."""
        if not node.inputs or len(node.outputs) != 1:
            return None
        source = self.view(node.inputs[0])
        if node.op.name == "reshape" and len(node.inputs) == 1 and not is_dense(source):
            found = view_of(node, source)
            if found is not None:
                return found
            if not all(is_door(s) for s in node.outputs[0].type.shape):
                return None
            source = self.copied(node.inputs[0], node.origin)
        return view_of(node, source)

    def copied(self, v: Var, origin: Origin, place: str = "arena") -> View:
        """``v`` as a dense array of its own."""
        if is_complex(v.type.dtype):
            return self.called(make_node(pos, [v], {}, origin))
        inner = Var(v.type, name=v.name)
        identity = make_node(cast_op, [inner], {"dtype": v.type.dtype}, origin) if v.type.dtype.kind == "b" else make_node(pos, [inner], {}, origin)
        body = Graph([inner], identity.outputs, name=self.name("copy"))
        slab = self.program.slab(v.type.dtype, v.type.shape, place, "copy", v)
        self.launch(body, {inner: self.source(v)}, [slab], origin)
        return View(slab, v.type.shape, contiguous(v.type.shape))

    def name(self, stem: str) -> str:
        self.names[stem] = count = self.names.get(stem, 0) + 1
        return stem if count == 1 else f"{stem}_{count}"

    def fused(self, node: Node) -> None:
        body: Graph = node.attrs["body"]
        if all(is_native(part) or moves_inside(part) for part in body.nodes):
            slabs = [self.program.slab(v.type.dtype, v.type.shape, "arena", v.name or body.name, v) for v in node.outputs]
            try:
                self.launch(body, {b: self.source(v) for b, v in zip(body.inputs, node.inputs, strict=True)}, slabs, node.origin)
            except Unlabelled:
                del self.program.slabs[-len(slabs):]
            else:
                for v, slab in zip(node.outputs, slabs, strict=True):
                    self.views[v] = View(slab, v.type.shape, contiguous(v.type.shape))
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
        slabs = [self.program.slab(v.type.dtype, v.type.shape, "arena", v.name or name, v) for v in outputs]
        self.launch(body, {b: self.source(v) for v, b in inner.items()}, slabs, origin)
        for v, slab in zip(outputs, slabs, strict=True):
            self.views[v] = View(slab, v.type.shape, contiguous(v.type.shape))

    def checked(self, node: Node) -> None:
        """Positions counted from the front, and a check that none is outside."""
        v, size = node.inputs[0], node.attrs["size"]
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
            if node.op.name not in ("max", "min", "argmax", "argmin"):
                continue
            along = dims.product(node.inputs[0].type.shape[a] for a in node.attrs["axis"])
            if dims.bounds(along)[0] > 0:
                continue
            results = dims.product(node.outputs[0].type.shape)
            guard = dims.dim_min(results, 1) * (1 - dims.dim_min(along, 1))
            if guard not in self.program.guards:
                self.program.guards = (*self.program.guards, guard)

    def launch(self, body: Graph, sources: dict[Var, Source], outputs: Sequence[int], origin: Origin) -> None:
        kernel, operands, data = build_kernel(body, sources)
        self.guard(body)
        slabs = []
        for kind, what in operands:
            if kind == "in":
                slabs.append(what)
            elif kind == "out":
                slabs.append(outputs[what])
            elif kind == "data":
                slabs.append(self.constant(data[what]))
            else:
                slabs.append(-1)
        self.program.steps.append(Launch(kernel, tuple(slabs), origin))

    def product(self, node: Node) -> None:
        out = node.outputs[0]
        lead = out.type.shape[:-2]
        a, b = (self.broadcast(self.view(v), lead) for v in node.inputs)
        self.place(out, "arena")
        self.program.steps.append(Product(a, b, self.views[out], -1, node.origin))

    def broadcast(self, view: View, lead: Sequence[Size]) -> View:
        """Leading axes as those of a product: stride 0 where the operand has one element."""
        have = len(view.shape) - 2
        strides: list[Size] = [0] * (len(lead) - have)
        for size, want, stride in zip(view.shape[:have], lead[len(lead) - have:], view.strides[:have], strict=True):
            strides.append(stride if size == want else stride * dims.dim_min(1, size - 1))
        return View(view.slab, (*lead, *view.shape[have:]), (*strides, *view.strides[have:]), view.offset)

    def called(self, node: Node) -> View:
        self.call_out(node)
        return self.views[node.outputs[0]]

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
            view = self.view(v)
            slab = program.slabs[view.slab]
            own = slab.place == "arena" or (slab.place == "fresh" and self.new[view.slab])
            if not own or view.slab in given or view.offset != 0 or slab.shape != view.shape or not is_dense(view):
                view = self.copied(v, v.origin, "output")
                slab = program.slabs[view.slab]
            if slab.place == "arena":
                slab.place = "output"
            given.add(view.slab)
            roots.append(view.slab)
        program.roots = tuple(roots)


def native_product(node: Node) -> bool:
    return node.outputs[0].type.dtype.kind in "biuf" or node.outputs[0].type.dtype.name == "bfloat16"


def lower(graph: Graph) -> Program:
    """The program of a graph, without places in the arena: see passes/arena.py."""
    return _Lowering(graph).run()
