"""``fuse``: nodes become kernels.

What it promises: the same values, bit for bit; every node computed by the same op on the same
operands, some of them more than once; a graph of unfused nodes and ``fused`` nodes whose bodies are
closed; time linear in the graph.

A kernel is a loop nest (passes/labels.py): elementwise ops, reductions along any axes, and what moves axes, all in
one iteration space.  Softmax, layer norm and their gradients are one kernel each: the outer loops run over what
all their reductions keep.  Nodes are visited consumers first.  A node joins the kernel of its consumers where

    the loops agree    each of its values is needed at one place, and there is a grid that suits all reductions
    so does memory     a kernel has lanes along one range, so its large arrays should run along that one: A @ (B @ v) is two kernels
    no cycle arises    nothing that the kernel needs is computed from what it gives
    it costs less      see below

and several kernels that need one value become one kernel under the same conditions.  At the end kernels
that read the same large operand along the same loops are joined too, unless one needs the other.

Joining, copying and keeping apart are decided by one cost, in bytes moved.  One element of arithmetic
counts as ``BYTES_PER_FLOP`` bytes, a size that is not known as ``UNKNOWN_SIZE``:

    join     where the value has the kernel's shape: always, it is neither written nor read again;
             where it is smaller: if computing it once per element of the kernel costs less than
             writing and reading it (a value of one element is computed once per kernel, before the loop)
    copy     into each of the (at most ``MOST_COPIES``) kernels that need it and cannot be one, where that costs less than
             a kernel of its own, which writes it once and is read by each: cheap values are recomputed
    apart    everything else; a reduction to one number whose result all elements need, unless the operand has
             at most ``ONE_CORE`` elements (its loops could not be shared out among threads)

Constants of one element and size formulas are moved into the bodies.  A kernel of one node stays that node, and
a kernel holds at most ``MOST_NODES``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from graphc import dims
from graphc.ir import Graph, Node, Type, Var, make_node, with_inputs
from graphc.ops.control import fused_op
from graphc.passes.bodies import Shape, is_counter, is_gather, is_move, is_pointwise, moves_inside, reduction_of
from graphc.passes.context import Context, Rewrite
from graphc.passes.labels import Label, Labels, Reduced, Stored, Unlabelled, along, grid_of, ranges_of, sources
from graphc.passes.native import is_native

BYTES_PER_FLOP = 2.0
UNKNOWN_SIZE = 128
MOST_COPIES = 4
#: a value of one element is computed again wherever it is needed if it costs no more FLOPs than this
CHEAP_NUMBER = 4.0
#: a value of so many times the elements of its operands (two vectors compared, each with each) is computed again for so many FLOPs: reading takes as long
MUCH, CHEAP_OUTER = 16, 2.0
MOST_NODES = 120
ONE_CORE = 1 << 14
#: units looked at before a cycle is assumed
MOST_STEPS = 100
#: bytes of an operand for whose sake kernels are joined
SHARED_BYTES = 1 << 12
#: elements of an array that may as well be read one by one
FEW_ELEMENTS = 1 << 9


class _Kernel:
    """A group in the making: positions in the node list, consumers first, and the loops."""

    __slots__ = ("labels", "members", "reductions")

    def __init__(self) -> None:
        self.labels = Labels()
        self.members: list[int] = []
        self.reductions: list[int] = []


class _Spans:
    """From where the nodes up to a position can still be reached: from a later one only through a kernel that has members on both sides."""

    def __init__(self, count: int) -> None:
        self.largest = [-1] * (count + 1)  # a Fenwick tree: the last members of kernels, by their first ones

    def note(self, members: Sequence[int]) -> None:
        """A kernel has these members, the last one first."""
        at, last = members[-1] + 1, members[0]
        while at < len(self.largest):
            self.largest[at] = max(self.largest[at], last)
            at += at & -at

    def last(self, position: int) -> int:
        """The last node from which a path may lead to one at or before ``position``."""
        while True:
            at, found = position + 1, position
            while at:
                found = max(found, self.largest[at])
                at &= at - 1
            if found == position:
                return position
            position = found


class _Grouping:
    """For each node the kernels that compute it: none (it stays a node), one, or several (it is copied)."""

    def __init__(self, nodes: Sequence[Node], roots: Iterable[Var]) -> None:
        self.nodes = nodes
        self.returned = {v.node for v in roots}
        index = {node: i for i, node in enumerate(nodes)}
        self.consumers: list[list[int]] = [[] for _ in nodes]
        for i, node in enumerate(nodes):
            for v in node.inputs:
                if v.node is not None:
                    self.consumers[index[v.node]].append(i)
        self.kernels: list[tuple[_Kernel, ...]] = [()] * len(nodes)
        self.estimates: dict[Shape, float] = {}
        self.spans = _Spans(len(nodes))

    def run(self) -> list[tuple[_Kernel, ...]]:
        for i in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[i]
            reduces = reduction_of(node) is not None
            if (reduces or is_pointwise(node) or is_move(node) or is_gather(node) or is_counter(node)) and is_native(node):
                self.visit(i, node, reduces)
        self.siblings()
        return self.kernels

    def visit(self, i: int, node: Node, reduces: bool) -> None:
        users = dict.fromkeys(self.consumers[i])
        found = list(dict.fromkeys(k for u in users for k in self.kernels[u]))
        stored = node in self.returned or any(not self.kernels[u] for u in users)
        if found and any(len(self.kernels[u]) > 1 for u in users):
            # a copied reader: the value is copied with it, or stored
            if not stored and not reduces and len(found) <= MOST_COPIES and self._copy(i, node, found):
                return
        elif found:
            if len(found) == 1 and self._join(i, node, found[0], stored):
                return
            if len(found) > 1:
                joined = self._joined(found)
                if joined is not None and self._join(i, node, joined, stored, commit=found):
                    return
                if not stored and not reduces and len(found) <= MOST_COPIES and self._copy(i, node, found):
                    return
                if any(self._join(i, node, k, True) for k in found[:MOST_COPIES]):
                    return  # stored by one of them, read by the others
        if is_move(node) or is_counter(node):
            return  # alone it moves nothing
        own = _Kernel()
        own.labels.result(node.outputs[0])
        if own.labels.join(node):
            own.members.append(i)
            if reduces:
                own.reductions.append(i)
            self.kernels[i] = (own,)

    # -- joining one kernel -------------------------------------------------------------------

    def _join(self, i: int, node: Node, kernel: _Kernel, stored: bool, commit: Sequence[_Kernel] = ()) -> bool:
        """Take node ``i`` into ``kernel`` (which stands for the kernels in ``commit``)."""
        if len(kernel.members) >= MOST_NODES or (stored and is_move(node)):
            return False
        reduces = reduction_of(node) is not None
        v = node.outputs[0]
        plain = self._same_space(kernel, v) and not reduces and not kernel.reductions and not commit
        labels = kernel.labels if plain else kernel.labels.copy()
        if plain:
            want = [labels.label(label) for label in labels.uses[v].values()]
            if any(w != want[0] for w in want) or is_move(node):
                plain, labels = False, labels.copy()
        if stored and self._cycle(i, kernel, commit):
            return False
        if not plain and not self._affordable(node, labels, kernel):
            return False
        if not labels.join(node):
            return False
        reductions = [*kernel.reductions, i] if reduces else kernel.reductions
        if not plain and not self._nest(labels, [*kernel.members, i], reductions, stored and v):
            return False
        if (reduces or commit) and not self._one_way(i, labels, kernel, commit or (kernel,)):
            return False
        kernel.labels, kernel.reductions = labels, list(reductions)
        kernel.members.append(i)
        kernel.members.sort(reverse=True)
        self.spans.note(kernel.members)
        for k in kernel.members if commit else (i,):
            self.kernels[k] = tuple(dict.fromkeys(kernel if q in commit else q for q in self.kernels[k])) or (kernel,)
        return True

    def _same_space(self, kernel: _Kernel, v: Var) -> bool:
        """Has the value the shape of what the kernel computes?"""
        return self.nodes[kernel.members[0]].outputs[0].type.shape == v.type.shape

    def _affordable(self, node: Node, labels: Labels, kernel: _Kernel) -> bool:
        """Is a value smaller than the kernel's space cheap enough to be computed for every element?"""
        v = node.outputs[0]
        if reduction_of(node) is not None or node.op.flops == 0:
            return True
        again = 1.0
        for (reader, _), place in labels.uses.get(v, {}).items():
            own = {labels.find(r) for r in place if r >= 0}
            for label in self._around(labels, reader, kernel):
                loops = [labels.find(r) for r in label if r >= 0]
                inner = max((i for i, r in enumerate(loops) if r in own), default=-1)
                times = 1.0  # loops outside the innermost one that it depends on
                for r in loops[:max(inner, 0)]:
                    times *= 1.0 if r in own else self._size(labels.extents[r])
                again = max(again, times)
        if again <= 1.0:
            return True
        elements = self.elements(v.type.shape)
        if node.op.flops <= CHEAP_OUTER and elements >= MUCH * sum(self.elements(x.type.shape) for x in node.inputs):
            return True
        return BYTES_PER_FLOP * node.op.flops * elements * (again - 1) <= 2 * self.bytes(v.type)

    def _around(self, labels: Labels, reader: Node, kernel: _Kernel) -> Iterator[Label]:
        """The loops around what a node reads, outermost first; a node that only moves axes runs in those of its own readers, which follow memory."""
        if not is_move(reader):
            yield labels.values.get(reader.outputs[0], ())
            return
        nodes = {reader}
        for i in reversed(kernel.members):  # operands first
            node = self.nodes[i]
            if nodes.isdisjoint([v.node for v in node.inputs]):
                continue
            if is_move(node):
                nodes.add(node)
            elif node not in labels.over:
                *_, (_, label) = sources(labels, node.outputs[0], labels.values[node.outputs[0]])
                yield label

    def _nest(self, labels: Labels, members: Sequence[int], reductions: Sequence[int], stored: Any, copied: int = -1) -> bool:
        """Is there a loop nest for these members, and does it store each of its results once?  ``copied``: a member that is no result."""
        labels.unite()
        needed, below = self._needed(labels, members, reductions)
        found = []
        for i in reductions:
            node = self.nodes[i]
            over, kept = ranges_of(labels, labels.over[node]), ranges_of(labels, labels.values[node.outputs[0]])
            if over & kept:
                return False
            if i in needed and not kept and self.elements(node.inputs[0].type.shape) > ONE_CORE:
                return False
            found.append(Reduced(over, kept, i in needed))
        inside = set(members)
        number = {i: n for n, i in enumerate(reductions)}
        results = []
        for i in members:
            v = self.nodes[i].outputs[0]
            if i == copied or len(self.kernels[i]) > 1:
                continue  # each kernel that needs it has its own
            if v is stored or self.nodes[i] in self.returned or any(u not in inside for u in self.consumers[i]):
                reads = below.get(i, set()) | ({i} if i in number else set())
                results.append(Stored(ranges_of(labels, labels.values[v]), frozenset(number[r] for r in reads)))
        return grid_of(found, results, labels.ranges) is not None

    def _needed(self, labels: Labels, members: Sequence[int], reductions: Sequence[int]) -> tuple[set[int], dict[int, set[int]]]:
        """The reductions whose results are read where more ranges run than they keep, or by another reduction; for each member those below it."""
        if not reductions:
            return set(), {}
        below: dict[int, set[int]] = {}  # position -> the reductions that it depends on
        index = {self.nodes[i]: i for i in members}
        is_reduction = set(reductions)
        kept = {i: ranges_of(labels, labels.values[self.nodes[i].outputs[0]]) for i in reductions}
        needed: set[int] = set()
        for i in sorted(members):
            node = self.nodes[i]
            own: set[int] = set()
            for v in node.inputs:
                p = index.get(v.node) if v.node is not None else None
                if p is not None:
                    own |= below[p] | ({p} if p in is_reduction else set())
            below[i] = own
            if not own:
                continue
            ranges = ranges_of(labels, labels.values[node.outputs[0]])
            needed |= own if i in is_reduction else {r for r in own if not ranges <= kept[r]}
        return needed, below

    # -- the lanes ----------------------------------------------------------------------------

    def _one_way(self, i: int | None, labels: Labels, kernel: _Kernel, parts: Sequence[_Kernel]) -> bool:
        """Do large arrays run through memory along one range, once the kernel computes node ``i`` (if any) too?

        Those that run along another than the lanes are read element by element.  So ``parts`` of the kernel, or what a reduction reads
        and the rest, that have no range in common are better apart, unless they read one array together.
        """
        node = self.nodes[i] if i is not None else None
        kept = ranges_of(labels, labels.values[node.outputs[0]]) if node is not None else frozenset()
        inside = set(kernel.members)
        lanes: set[int] = set()
        read: dict[Var, list[Label]] = {}
        for part in parts:
            found = self._lanes(labels, part.members, inside, kept, read)
            if lanes and found and not lanes & found:
                return False
            lanes |= found
        if lanes and lanes <= kept and len({self._ranges(labels, part) for part in parts}) > 1:
            return False  # the lanes would be those of the outer loop, which goes through all arrays in narrow strips
        if i is None or node is None or node not in labels.over or not lanes or self.elements(node.inputs[0].type.shape) <= FEW_ELEMENTS:
            return True
        over, x, lane = ranges_of(labels, labels.over[node]), node.inputs[0], -1
        for v, label in sources(labels, x, labels.uses[x][node, 0]):
            lane = along(label)
            if any(all(a == b or (b in over and a not in kept) for a, b in zip(other, label, strict=True)) for other in read.get(v, ())):
                return True  # the reduction reads what the kernel reads already
        if lane in kept and i in self._needed(labels, [*kernel.members, i], [*kernel.reductions, i])[0]:
            return False  # narrow strips again
        return lane in lanes

    def _lanes(self, labels: Labels, members: Sequence[int], inside: set[int], kept: frozenset[int], read: dict[Var, list[Label]]) -> set[int]:
        """The ranges along which operands and results of these members run in memory; what they read and where is noted in ``read``."""
        lanes: set[int] = set()
        nodes = {self.nodes[k] for k in members}
        for v, places in labels.uses.items():
            for (reader, _), place in places.items():
                if reader not in nodes or not ranges_of(labels, place) >= ranges_of(labels, labels.values[reader.outputs[0]]):
                    continue  # what is read again for each round of another loop stays in the cache
                label = place
                for w, label in sources(labels, v, place):
                    read.setdefault(w, []).append(label)
                if self._large(labels, v, place, kept):
                    lanes.add(along(label))
        for k in members:
            v = self.nodes[k].outputs[0]
            if self.nodes[k] in self.returned or any(u not in inside for u in self.consumers[k]):
                label = labels.label(labels.values[v])
                if self._large(labels, v, label, kept):
                    lanes.add(along(label))
        return lanes

    def _large(self, labels: Labels, v: Var, label: Label, kept: frozenset[int]) -> bool:
        """Does a loop run along the array, other than the outer ones?"""
        ranges = ranges_of(labels, label)
        return len(ranges) > 1 and not ranges <= kept and self.elements(v.type.shape) > FEW_ELEMENTS

    # -- several kernels ----------------------------------------------------------------------

    def _joined(self, found: Sequence[_Kernel]) -> _Kernel | None:
        """One kernel in place of several, not yet theirs; None where they need each other or are too large."""
        if sum(len(k.members) for k in found) >= MOST_NODES:
            return None
        if any(self._path(k, found) for k in found):
            return None
        joined = _Kernel()
        joined.labels = found[0].labels.copy()
        try:
            for k in found[1:]:
                joined.labels.absorb(k.labels)
        except Unlabelled:
            return None
        joined.members = sorted({i for k in found for i in k.members}, reverse=True)
        joined.reductions = sorted({i for k in found for i in k.reductions}, reverse=True)
        return joined

    def _copy(self, i: int, node: Node, found: Sequence[_Kernel]) -> bool:
        """Compute a cheap value in each kernel that needs it."""
        result = node.outputs[0].type
        once = sum(self.bytes(v.type) for v in node.inputs if not moves_inside(v.node)) + BYTES_PER_FLOP * node.op.flops * self.elements(result.shape)
        copies = len(found)
        cheap = node.op.flops <= CHEAP_NUMBER and self.elements(result.shape) == 1
        if not cheap and not copies * once < once + (1 + copies) * self.bytes(result):
            return False
        trials = []
        for k in found:
            labels = k.labels.copy()
            if len(k.members) >= MOST_NODES or not self._affordable(node, labels, k) or not labels.join(node) \
                    or not self._nest(labels, [*k.members, i], k.reductions, None, copied=i):
                return False
            trials.append(labels)
        for k, labels in zip(found, trials, strict=True):
            k.labels = labels
            k.members.append(i)
            k.members.sort(reverse=True)
            self.spans.note(k.members)
        self.kernels[i] = tuple(found)
        return True

    def siblings(self) -> None:
        """Join kernels that read the same large operand along the same loops."""
        readers: dict[Var, dict[_Kernel, None]] = {}
        for i in range(len(self.nodes)):
            for k in self.kernels[i]:
                for v in self.nodes[i].inputs:
                    if not moves_inside(v.node) and v in k.labels.uses and self.bytes(v.type) >= SHARED_BYTES:
                        readers.setdefault(v, {})[k] = None
        gone: dict[_Kernel, _Kernel] = {}
        for kernels in readers.values():
            groups: list[_Kernel] = []
            for k in kernels:
                while k in gone:
                    k = gone[k]
                if k in groups:
                    continue
                for n, other in enumerate(groups):
                    new = self._siblings(other, k)
                    if new is not None:
                        gone[other] = gone[k] = groups[n] = new
                        break
                else:
                    if len(groups) < MOST_COPIES:
                        groups.append(k)

    def _siblings(self, a: _Kernel, b: _Kernel) -> _Kernel | None:
        if not self._alike(a, b):
            return None
        joined = self._joined((a, b))
        if joined is None:
            return None
        joined.labels.unite()
        spaces = [self._ranges(joined.labels, k) for k in (a, b)]
        if not (spaces[0] <= spaces[1] or spaces[1] <= spaces[0]):
            return None
        if not self._nest(joined.labels, joined.members, joined.reductions, None) or not self._one_way(None, joined.labels, joined, (a, b)):
            return None
        self.spans.note(joined.members)
        for i in joined.members:
            self.kernels[i] = tuple(dict.fromkeys(joined if q in (a, b) else q for q in self.kernels[i]))
        return joined

    def _alike(self, a: _Kernel, b: _Kernel) -> bool:
        """Worth a try: some value of one has the shape of some value of the other."""
        shapes = [{v.type.shape for i in k.members for v in (*self.nodes[i].inputs, *self.nodes[i].outputs) if v.type.ndim} for k in (a, b)]
        largest = [max(s, key=self.elements) for s in shapes if s]
        return len(largest) == 2 and (largest[0] in shapes[1] or largest[1] in shapes[0])

    def _ranges(self, labels: Labels, kernel: _Kernel) -> frozenset[int]:
        found: frozenset[int] = frozenset()
        for i in kernel.members:
            node = self.nodes[i]
            found |= ranges_of(labels, labels.values[node.outputs[0]]) | ranges_of(labels, labels.over.get(node, ()))
        return found

    # -- cycles -------------------------------------------------------------------------------

    def _cycle(self, i: int, kernel: _Kernel, commit: Sequence[_Kernel]) -> bool:
        """Would the kernel, once it computes node ``i``, need what is computed from it elsewhere?"""
        targets = set(commit or (kernel,))
        return self._reaches([u for u in self.consumers[i] if not targets & set(self.kernels[u])], targets)

    def _path(self, kernel: _Kernel, among: Sequence[_Kernel]) -> bool:
        """Does a path lead from ``kernel`` through other units into one of ``among``?"""
        targets = set(among)
        start = [u for i in kernel.members for u in self.consumers[i] if not targets & set(self.kernels[u])]
        return self._reaches(start, targets)

    def _reaches(self, start: Sequence[int], targets: set[_Kernel]) -> bool:
        last = self.spans.last(max(i for k in targets for i in k.members))
        stack, seen, steps = list(start), set(start), 0
        while stack:
            i = stack.pop()
            if i > last:
                continue  # nothing after it is needed by the targets
            steps += 1
            if steps > MOST_STEPS:
                return True
            unit = [m for k in self.kernels[i] for m in k.members] or [i]
            for m in unit:
                for u in self.consumers[m]:
                    if targets & set(self.kernels[u]):
                        return True
                    if u not in seen:
                        seen.add(u)
                        stack.append(u)
            seen.update(unit)
        return False

    # -- sizes --------------------------------------------------------------------------------

    def elements(self, shape: Shape) -> float:
        found = self.estimates.get(shape)
        if found is None:
            found = 1.0
            for size in shape:
                found *= self._size(size)
            self.estimates[shape] = found
        return found

    def _size(self, size: dims.Size) -> float:
        if isinstance(size, int):
            return float(size)
        try:
            return float(max(0, dims.evaluate(size, {s: max(s.min, UNKNOWN_SIZE) for s in dims.symbols(size)})))
        except (ArithmeticError, ValueError):
            return float(UNKNOWN_SIZE)

    def bytes(self, type: Type) -> float:
        return type.dtype.itemsize * self.elements(type.shape)


def fuse(graph: Graph, context: Context) -> Graph:
    """Group the nodes of ``graph`` into kernels; see the module's docstring for what is grouped and why."""
    nodes = graph.nodes
    return _rebuilt(graph, nodes, _Grouping(nodes, graph.roots).run(), context)


# ---- the new graph ----------------------------------------------------------------------------


class _Plan:
    """A kernel about to be built: its nodes, operands first, what it takes and what it gives."""

    __slots__ = ("inputs", "kernel", "nodes", "outputs")

    def __init__(self, kernel: _Kernel, nodes: Sequence[Node]) -> None:
        self.kernel = kernel
        self.nodes = [nodes[i] for i in sorted(kernel.members)]
        self.outputs: dict[Var, None] = {}
        inside = set(self.nodes)
        self.inputs = list(dict.fromkeys(
            v for node in self.nodes for v in node.inputs if v.node not in inside and not moves_inside(v.node)))


def _rebuilt(graph: Graph, nodes: Sequence[Node], kernels: Sequence[tuple[_Kernel, ...]], context: Context) -> Graph:
    roots = graph.roots
    plans: dict[_Kernel, _Plan] = {}
    owner: dict[Node, _Plan] = {}  # of the nodes that exist in one kernel only
    for node, places in zip(nodes, kernels, strict=True):
        for kernel in places:
            if len(kernel.members) > 1 and kernel not in plans:
                plans[kernel] = _Plan(kernel, nodes)
        if len(places) == 1 and places[0] in plans:
            owner[node] = plans[places[0]]
    for v in roots:
        _give(v, owner, None)
    for node, places in zip(nodes, kernels, strict=True):
        for v in node.inputs:
            if not any(kernel in plans for kernel in places):
                _give(v, owner, None)
            for kernel in places:
                _give(v, owner, plans.get(kernel))
    new: dict[Var, Var] = {}
    names: dict[str, int] = {}
    stack: list[Node | _Plan] = [_unit(v.node, owner) for v in reversed(roots) if v.node is not None]
    done: set[Node | _Plan] = set()
    while stack:
        unit = stack[-1]
        if unit in done:
            stack.pop()
            continue
        pending = [_unit(v.node, owner) for v in reversed(unit.inputs) if v.node is not None]
        pending = [u for u in pending if u not in done]
        if pending:
            stack.extend(pending)
            continue
        stack.pop()
        done.add(unit)
        if isinstance(unit, _Plan):
            _build(unit, new, names, context)
            continue
        inputs = tuple([new.get(v, v) for v in unit.inputs])
        if any(a is not b for a, b in zip(inputs, unit.inputs, strict=True)):
            new.update(zip(unit.outputs, with_inputs(unit, inputs).outputs, strict=True))
    return graph.with_roots([new.get(v, v) for v in roots])


def _unit(node: Node, owner: Mapping[Node, _Plan]) -> Node | _Plan:
    return owner.get(node, node)


def _give(v: Var, owner: Mapping[Node, _Plan], reader: _Plan | None) -> None:
    """Note that ``v`` is read by ``reader``: if another kernel computes it, it is a result of that kernel."""
    if v.node is not None:
        plan = owner.get(v.node)
        if plan is not None and plan is not reader:
            plan.outputs[v] = None


def _build(plan: _Plan, new: dict[Var, Var], names: dict[str, int], context: Context) -> None:
    """The fused node of one kernel; its results are noted in ``new`` and in the log."""
    inner: dict[Var, Var] = {v: Var(v.type, name=v.name, origin=v.origin) for v in plan.inputs}
    takes = tuple(inner.values())
    for node in plan.nodes:
        for v in node.inputs:
            if v not in inner:  # a constant
                assert v.node is not None
                copy = Node(v.node.op, (), v.node.attrs, [v.type], v.node.origin)
                inner[v] = copy.outputs[0]
        inner.update(zip(node.outputs, with_inputs(node, tuple([inner[v] for v in node.inputs])).outputs, strict=True))
    body = Graph(takes, [inner[v] for v in plan.outputs], name=_kernel_name(plan.nodes, names))
    attrs: dict[str, Any] = {"body": body, "kind": "reduction" if plan.kernel.reductions else "elementwise"}
    fused = make_node(fused_op, [new.get(v, v) for v in plan.inputs], attrs, plan.nodes[-1].origin.by("fuse"))
    for old, v in zip(plan.outputs, fused.outputs, strict=True):
        v.name = old.name
        new[old] = v
        context.log.append(Rewrite("fuse", old, v))


def _kernel_name(nodes: Sequence[Node], names: dict[str, int]) -> str:
    """``sub_exp_sum``: what the kernel does, in order; a number where the name is taken."""
    words: list[str] = []
    for node in nodes:
        if not is_move(node) and (not words or words[-1] != node.op.name):
            words.append(node.op.name)
    if len(words) > 5:
        words = [*words[:3], f"and{len(words) - 4}", words[-1]]
    name = "_".join(words) or nodes[0].op.name
    names[name] = count = names.get(name, 0) + 1
    return name if count == 1 else f"{name}_{count}"


__all__ = ["fuse"]
