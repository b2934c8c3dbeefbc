"""``verify_kernel``: is a kernel sound?  ``verify_program``: is a program?

Of a kernel (kernel_form.py, kernel_accesses.py):

    form        every instruction is what graphc/kernel.py says, in dtypes that fit; what it reads was computed before, in
                the same stage or at the same point of the grid; stages loop over ranges that the grid does not have
    reductions  run over all loops of their stage that their operand depends on, or over the whole grid; their results
                are read in later stages, those over the grid in ``finish`` alone
    accesses    stay inside their operands; no two points write different values to one element; no loop around a store is
                empty while the element is there; two stores of an operand write different elements; a temp is read
                where it was written; memory that an output shares with an input is read, for the last time, at
                the point where it is written

Of a program:

    steps       read what is there already, write neither arguments nor constants, and use no size before it is found out
    operands    are as large as their slabs, views stay inside theirs, products and ordered loops fit
    parts       a slab is wholly written before it is read or given back (looked at in slabs of up to MOST elements)
    checks      are single bools, and guards are known when a call begins
    memory      of two arena slabs that are needed at one time is never the same, but where a kernel overwrites one with
                the other (``Slab.inplace``)
    roots       are output or fresh slabs of their own

Accesses, sizes and places in the arena are checked in numbers: see kernel_numbers.py.  A position that is gathered
is known where it is computed from ranges, sizes and literals; else it is the program's business, and what reads
by it is trusted.  Nothing may be stored at a gathered position: two points might write one element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NoReturn

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Size, Symbol
from graphc.errors import UNKNOWN, Origin, VerificationError
from graphc.ir import Array, Relation
from graphc.kernel import ORDERED, PLACES, CallOut, Kernel, Launch, Ordered, Product, Program, Slab, Step, Sweep, View
from graphc.kernel_accesses import Accesses, reached
from graphc.kernel_form import Form
from graphc.kernel_numbers import Env, Numbers, samples, sound

__all__ = ["verify_kernel", "verify_program"]


#: elements of a slab up to which each is followed
MOST = 1 << 12
#: blocks of a sweep that are looked at: the first and the last ones
BLOCKS = 64


def verify_kernel(kernel: Kernel, relations: Sequence[Relation] = (), where: Origin = UNKNOWN, envs: Sequence[Env] | None = None) -> None:
    """Raise VerificationError if the kernel is not sound.

    Args:
        relations: what the symbols satisfy, without which sizes may seem to disagree.
        where: the user's line, for the message.
        envs: the choices of symbols to check at, if they are known already.
    """
    form = Form(kernel, where)
    form.check()
    if envs is None:
        envs = samples(kernel.sizes(), [*(r.extent for r in kernel.ranges), *(o.size for o in kernel.operands)], relations)
    for env in envs:
        Accesses(form, env).check()


def verify_program(program: Program, planned: bool = True) -> None:
    """Raise VerificationError, naming the step and the user's line, if the program is not sound.

    ``planned``: do slabs have their places in the arena already?
    """
    _Program(program).check(planned)


class _Program:
    def __init__(self, program: Program) -> None:
        self.program, self.slabs = program, program.slabs
        self.where, self.label = UNKNOWN, f"program {program.name}"
        self.writers: list[list[int]] = [[] for _ in program.slabs]
        self.readers: list[list[int]] = [[] for _ in program.slabs]
        self.known: set[Symbol] = set()  # data symbols that a step has found out
        self.written: dict[int, list[Array | None]] = {}  # of slabs: for each env which elements are there
        self.block = False  # inside of a sweep?
        self.followed: frozenset[int] | None = None  # inside of a sweep whose blocks were all looked at so far: what it writes that nothing wrote before
        self.passed: frozenset[int] = frozenset()  # slabs that a sweep writes and reads row by row: never whole in between
        relations = [*(r for r, _ in program.graph.relations), *(Relation("equal", guard, 0) for guard in program.guards)]
        counts = [size for s in self.slabs for size in s.shape]
        rest = [*(s.offset for s in self.slabs), program.arena]
        for step in program.steps:
            if isinstance(step, Launch):
                counts += [*(r.extent for r in step.kernel.ranges), *(o.size for o in step.kernel.operands)]
            if isinstance(step, Sweep):
                counts += [step.rows, *(size for _, size in step.lead)]
            else:
                rest += self.sizes(step)
        self.envs = samples(rest, counts, relations)
        self.envs += _longer(program, self.envs, counts, relations)

    def fail(self, message: str) -> NoReturn:
        raise VerificationError(f"{self.label}: {message}", self.where)

    def check(self, planned: bool) -> None:
        for k, slab in enumerate(self.slabs):
            self.slab(k, slab)
        self.arguments()
        checked: set[int] = set()
        for i, step in enumerate(self.program.steps):
            what = step.kernel.name if isinstance(step, Launch) else step.node.op.name if isinstance(step, CallOut) else \
                "product" if isinstance(step, Product) else "sweep" if isinstance(step, Sweep) else f"ordered {step.word}"
            self.label, self.where = f"program {self.program.name}, step {i} ({what})", step.origin
            self.step(i, step)
            if isinstance(step, Launch):
                if id(step.kernel) not in checked:
                    verify_kernel(step.kernel, where=step.origin, envs=self.envs)
                    checked.add(id(step.kernel))
                self.launch(step)
            elif isinstance(step, Product):
                self.product(step)
            elif isinstance(step, Ordered):
                self.ordered(step)
            elif isinstance(step, Sweep):
                self.sweep(i, step, planned)
            else:
                self.call_out(step)
            self.note(i, step)
        self.label, self.where = f"program {self.program.name}", UNKNOWN
        self.roots()
        self.checks()
        self.taken_over(self.program.steps, [s for s in self.slabs if s.place != "block"])
        if planned:
            self.memory("arena", self.program.arena)

    # -- slabs --------------------------------------------------------------------------------

    def text(self, slab: int) -> str:
        s = self.slabs[slab]
        return f"slab {s.id} ({s.name or 'nameless'}: {s.dtype}[{', '.join(map(dims.size_text, s.shape))}], {s.place})"

    def slab(self, k: int, s: Slab) -> None:
        if s.id != k or s.place not in PLACES:
            self.fail(f"slab {k} says that it is {s.id}, in place {s.place!r}")
        if (s.place == "constant") != (s.data is not None):
            self.fail(f"{self.text(k)}: constants have data, others have none")
        if s.pairs and (not s.shape or s.shape[-1] != 2 or s.dtype.name not in ("float32", "float64")):
            self.fail(f"{self.text(k)}: complex numbers are float32 or float64 along a last axis of size 2")
        if s.data is not None and (s.data.dtype != s.dtype or s.data.size != s.elements or not s.data.flags.c_contiguous):
            self.fail(f"{self.text(k)}: its data is {s.data.dtype}{list(s.data.shape)}; it lies dense and is of the slab's dtype and size")

    def arguments(self) -> None:
        graph, given = self.program.graph, self.program.arguments
        leaves = (*graph.inputs, *graph.shared)
        if len(given) != len(leaves) or len(set(given)) != len(given):
            self.fail(f"{len(set(given))} arguments; the graph has {len(leaves)}")
        for a, v in zip(given, leaves, strict=True):
            if not 0 <= a < len(self.slabs):
                self.fail(f"there is no slab {a}")
            s = self.slabs[a]
            if s.place != "argument" or s.array != v.type:
                self.fail(f"{self.text(a)} is no place for the argument {v.describe()}")
        for s in self.slabs:
            if s.place == "argument" and s.id not in given:
                self.fail(f"{self.text(s.id)} is no argument of the graph")

    # -- steps --------------------------------------------------------------------------------

    def sizes(self, step: Step) -> Iterator[Size]:
        if isinstance(step, Launch):
            yield from step.kernel.sizes()
        for v in step.inputs if isinstance(step, CallOut) else (step.a, step.b, step.out) if isinstance(step, Product) else \
                (*step.operands, step.out) if isinstance(step, Ordered) else ():  # those of a sweep are looked at block by block
            yield from (v.offset, *v.shape, *v.strides)

    def step(self, i: int, step: Step) -> None:
        """What steps of any kind must not do."""
        found = {s for s, _, _ in step.found} if isinstance(step, CallOut) else set()
        if isinstance(step, Launch) and len(step.slabs) != len(step.kernel.operands):
            self.fail(f"{len(step.slabs)} slabs for {len(step.kernel.operands)} operands")
        slabs = step.slabs if isinstance(step, Launch) else (*step.reads, *step.writes)
        for s in slabs:
            if not -1 <= s < len(self.slabs):
                self.fail(f"there is no slab {s}")
        for s in step.reads:
            if s < 0 or (not self.writers[s] and self.slabs[s].place not in ("argument", "constant")):
                self.fail(f"it reads {self.text(s) if s >= 0 else 'no slab'}, which is not written yet")
            if self.slabs[s].place == "block":
                self.there(s, step)
            elif s not in self.passed:
                self.whole(s)
        places = ("fresh",) if isinstance(step, CallOut) else ("arena", "output", "block") if self.block else ("arena", "output")
        for s in step.writes:
            if s < 0 or self.slabs[s].place not in places:
                self.fail(f"it writes to {self.text(s) if s >= 0 else 'no slab'}; it may write to {' and '.join(places)} slabs")
        if len(set(step.writes)) != len(step.writes) and not isinstance(step, Launch):
            self.fail("it writes to one slab twice")
        for size in (*self.sizes(step), *(size for s in slabs if s >= 0 for size in self.slabs[s].shape)):
            for symbol in dims.symbols(size):
                if symbol.kind == "data" and symbol not in self.known | found:
                    self.fail(f"it needs the size {symbol}, which no step has found out by then")

    def note(self, i: int, step: Step) -> None:
        for s in step.reads:
            self.readers[s].append(i)
        for s in step.writes:
            self.writers[s].append(i)
            if not isinstance(step, Sweep):
                self.part(s, step)
        if isinstance(step, CallOut):
            self.known |= {s for s, _, _ in step.found}

    def launch(self, step: Launch) -> None:
        for s, o in zip(step.slabs, step.kernel.operands, strict=True):
            if (s < 0) != (o.mode == "temp"):
                self.fail(f"operand {o.name} is {o.mode}: a slab belongs to each operand that is no temp")
            if s < 0:
                continue
            if self.slabs[s].dtype != o.dtype:
                self.fail(f"operand {o.name} is {o.dtype}; {self.text(s)} is not")
            self.agree(o.size, self.slabs[s].elements, f"operand {o.name} has {{}} elements, {self.text(s)} has {{}}")
            if o.mode == "out" and s in step.reads and step.reads.count(s) != sum(
                    step.slabs[k] == s for k in (o.alias,) if k >= 0):
                self.fail(f"it reads and writes {self.text(s)}, and operand {o.name} does not say so")

    def product(self, step: Product) -> None:
        a, b, out = step.a, step.b, step.out
        rows, sums, columns = step.axes
        lead = len(out.shape) - rows - columns
        if min(step.axes) < 1 or lead < 0 or len(a.shape) != lead + rows + sums or len(b.shape) != lead + sums + columns:
            self.fail(f"views of ranks {len(a.shape)}, {len(b.shape)} and {len(out.shape)} for {rows} axes of rows, {sums} of sums and {columns} of columns")
        one, other, result = (self.slabs[v.slab].dtype for v in (a, b, out))
        if one != other or (result != one and not (self.block and result == np.float32 and dtypes.is_float(one) and one.itemsize == 2)):
            self.fail("operands and result are of one dtype, but for sums of 16 bits that go on in float32 in a sweep")
        for v, what in ((a, "operand 0"), (b, "operand 1"), (out, "the result")):
            self.view(v, what)
            for k, size in enumerate(out.shape[:lead]):
                self.agree(v.shape[k], size, f"axis {k} of {what} has size {{}}, of the result {{}}")
        for k in range(rows):
            self.agree(a.shape[lead + k], out.shape[lead + k], "{} rows times something give {} rows")
        for k in range(sums):
            self.agree(a.shape[lead + rows + k], b.shape[lead + k], "{} columns meet {} rows")
        for k in range(columns):
            self.agree(b.shape[lead + sums + k], out.shape[lead + rows + k], "something times {} columns gives {} columns")
        if set(step.reads) & set(step.writes):
            self.fail("it writes to what it reads")
        self.added(step)
        if step.axes != (1, 1, 1) and not _dense_groups(out, lead, rows):
            self.fail("the axes of the result's rows and those of its columns are not dense")
        for env in self.envs:
            if not _distinct(out, env):
                self.fail("two elements of the result lie in one place")

    def added(self, step: Product) -> None:
        """Does it add to what is there, and write where nothing is?"""
        if step.adds != 0 and not self.block:
            self.fail("it adds, outside of a sweep")
        s = step.out.slab
        for n, env in enumerate(self.envs if self.followed is not None and s in self.followed else ()):
            size, mark = self.number(self.slabs[s].elements, env), (self.written.get(s) or [None] * len(self.envs))[n]
            if size > MOST:
                continue
            at = _elements(step.out, env)
            there = np.zeros(at.shape, np.bool_) if mark is None else mark[at]
            if self.number(step.adds, env):
                if not there.all():
                    self.fail(f"it adds to element {int(at[np.argmin(there)])} of {self.text(s)}, which no step has written{_at(env)}")
            elif there.any():
                self.fail(f"it writes over what blocks before have added up, in element {int(at[np.argmax(there)])} of {self.text(s)}{_at(env)}")

    def ordered(self, step: Ordered) -> None:
        out, axis = step.out, step.axis
        if len(step.operands) != ORDERED.get(step.word) or not 0 <= axis < len(out.shape):
            self.fail(f"{len(step.operands)} operands along axis {axis} of {len(out.shape)}: the word {step.word!r} does not take them")
        scatters = step.word in ("set", "add")
        for n, v in enumerate((*step.operands, out)):
            what = f"operand {n}" if n < len(step.operands) else "the result"
            self.view(v, what)
            if len(v.shape) != len(out.shape):
                self.fail(f"{what} has rank {len(v.shape)}, the result {len(out.shape)}")
            for k, size in enumerate(v.shape):
                if not (scatters and v is out and k == axis):
                    self.agree(size, step.operands[0].shape[k], f"axis {k} of {what} has size {{}}, of operand 0 {{}}")
            dtype = self.slabs[v.slab].dtype
            if not (dtypes.is_integer(dtype) if scatters and n == 1 else dtype == self.slabs[out.slab].dtype):
                self.fail(f"{what} is {dtype}")
        if out.slab in [v.slab for v in step.operands]:
            self.fail("it writes to what it reads")
        for env in self.envs:
            if not _distinct(out, env):
                self.fail("two elements of the result lie in one place")

    def sweep(self, i: int, step: Sweep, planned: bool) -> None:
        """Its steps, block by block."""
        label, outer = self.label, (self.envs, self.written, self.writers, self.readers)
        held = sorted({s for inner in step.steps for s in inner.writes if self.slabs[s].place == "block"})
        writes = {s for inner in step.steps for s in inner.writes if s not in held}
        if {s for inner in step.steps for s in inner.reads if s not in held} - writes != set(step.reads) or writes != set(step.writes) or step.block < 1:
            self.fail("it reads or writes other slabs than it says")
        if step.height == step.block and any(self.number(step.rows, env) % step.block or not self.number(step.rows, env) for env in self.envs):
            self.fail(f"not all blocks have {step.block} rows")
        self.block, self.passed = True, frozenset(writes)
        for n, env in enumerate(outer[0]):
            blocks = list(step.envs(env))
            some = blocks if len(blocks) <= BLOCKS else [*blocks[:BLOCKS // 2], *blocks[-BLOCKS // 2:]]
            self.written = {s: [marks[n]] for s, marks in outer[1].items()}
            self.writers, self.readers = [list(x) for x in outer[2]], [list(x) for x in outer[3]]
            for at, own in enumerate(some):
                self.followed = frozenset(s for s in writes if not outer[2][s]) if at < BLOCKS // 2 or len(some) == len(blocks) else None
                anew, before = self.begins_anew(step, held), self.written
                for columns in (own, step.anew(own)) if anew else (own,):
                    self.envs, once = [columns], self.written
                    if anew:
                        self.written = {s: [None if mark is None else mark.copy() for mark in marks] for s, marks in before.items()}
                    self.block_of(step, held, label, at in (0, len(some) - 1))
                    if planned:
                        self.memory("block", step.room)
                for s, marks in self.written.items() if anew else ():  # what is there in any case
                    other = (once.get(s) or [None])[0]
                    marks[0] = None if other is None or marks[0] is None else other & marks[0]
            for s in step.writes:
                mark = self.written[s][0] if s in self.written else None
                if mark is not None and len(some) < len(blocks):
                    mark[:] = True
                outer[1].setdefault(s, [None] * len(outer[0]))[n] = mark
        self.block, self.passed, self.label, self.followed = False, frozenset(), label, None
        self.envs, self.written, self.writers, self.readers = outer

    def block_of(self, step: Sweep, held: Sequence[int], label: str, look: bool) -> None:
        """The steps, in one block.  ``look``: into kernels, too."""
        for s in held:
            self.writers[s], self.readers[s] = [], []
            self.written[s] = [None]
        for k, inner in enumerate(step.steps):
            self.label, self.where = f"{label}, step {k} of it", inner.origin
            self.step(k, inner)
            if isinstance(inner, Launch):
                if look:
                    verify_kernel(inner.kernel, where=inner.origin, envs=self.envs)
                self.launch(inner)
            else:
                self.product(inner)
            self.note(k, inner)
        self.taken_over(step.steps, [self.slabs[s] for s in held])

    def begins_anew(self, step: Sweep, held: Sequence[int]) -> bool:
        """May its blocks begin anew?  Then what they have done until then must change nothing that they read."""
        if step.seen is None or step.seen.step < 0:
            return False
        first, s = step.steps[:step.seen.step + 1], step.seen.slab
        if not first or s not in first[-1].writes or s not in held or self.slabs[s].dtype != np.bool_ or self.slabs[s].shape:
            self.fail("it begins anew where a bool of the block says so, which no step has written by then")
        changed = {s for inner in first for s in inner.writes if s not in held}
        if any(isinstance(inner, Product) and inner.adds != 0 for inner in first) or changed & {s for inner in first for s in inner.reads}:
            self.fail("blocks that begin anew have added to what is there")
        return True

    # -- what is there ------------------------------------------------------------------------

    def part(self, s: int, step: Step) -> None:
        """Note what ``step`` writes of the slab."""
        marks = self.written.setdefault(s, [None] * len(self.envs))
        for n, env in enumerate(self.envs):
            size = self.number(self.slabs[s].elements, env)
            if size > MOST:
                continue
            mark = marks[n]
            if mark is None:
                mark = marks[n] = np.zeros(size, np.bool_)
            if isinstance(step, CallOut):
                mark[:] = True
            elif isinstance(step, Launch):
                numbers = Numbers(step.kernel, env)
                found: dict[int, Array] = {}
                for v in step.kernel.values:
                    if v.op == "store" and step.slabs[v.operand] == s and v.index is not None:
                        places = numbers.places(v.index, {r: numbers.extents[r] for r, _ in v.index.terms}).ravel()
                        if any(k != v.operand and np.intersect1d(places, other).size for k, other in found.items()):
                            self.fail(f"two of its operands write one element of {self.text(s)}{_at(env)}")
                        found[v.operand] = np.concatenate([found.get(v.operand, places), places])
                        mark[places] = True
            elif not isinstance(step, Sweep) and not (isinstance(step, Ordered) and step.word in ("set", "add")):
                mark[_elements(step.out, env)] = True

    def there(self, s: int, step: Step) -> None:
        """All that a step of a sweep reads of a slab is there: it need not look at the whole."""
        for mark, env in zip(self.written.get(s, ()), self.envs, strict=False):
            if mark is None:
                continue
            at: list[Array] = []
            if isinstance(step, Launch):
                numbers = Numbers(step.kernel, env)
                for k, v in enumerate(step.kernel.values):
                    if v.op == "load" and step.slabs[v.operand] == s and v.index is not None:
                        if v.index.gathers:
                            return self.whole(s)
                        if v.args:
                            at.append(reached(step, env, k))
                        else:
                            at.append(numbers.places(v.index, {r: numbers.extents[r] for r, _ in v.index.terms}).ravel())
            elif isinstance(step, Product):
                at += [_elements(v, env) for v in (step.a, step.b) if v.slab == s]
            for places in at:
                missing = places[(places >= 0) & (places < mark.size)]  # others are refused elsewhere
                missing = missing[~mark[missing]]
                if missing.size:
                    self.fail(f"element {int(missing[0])} of {self.text(s)} is read before any step has written it{_at(env)}")
        return None

    def whole(self, s: int) -> None:
        """Everything of a slab is there."""
        for mark, env in zip(self.written.get(s, ()), self.envs, strict=False):
            if mark is not None and not mark.all():
                self.fail(f"element {int(np.argmin(mark))} of {self.text(s)} is read before any step has written it{_at(env)}")

    def call_out(self, step: CallOut) -> None:
        node = step.node
        if len(step.inputs) != len(node.inputs) or len(step.outputs) != len(node.outputs):
            self.fail(f"{len(step.inputs)} operands, {len(step.outputs)} results; the node {node!r} has others")
        for k, (view, v) in enumerate(zip(step.inputs, node.inputs, strict=True)):
            self.view(view.parts if dtypes.is_complex(v.type.dtype) else view, f"operand {k}")
            if self.slabs[view.slab].dtype != dtypes.real_of(v.type.dtype) or len(view.shape) != v.type.ndim:
                self.fail(f"operand {k} is {self.slabs[view.slab].dtype} of rank {len(view.shape)}; the node takes {v.type}")
        for s, v in zip(step.outputs, node.outputs, strict=True):
            if self.slabs[s].array.dtype != v.type.dtype or self.slabs[s].array.ndim != v.type.ndim:
                self.fail(f"{self.text(s)} is no place for {v.type}")
        for symbol, k, axis in step.found:
            shape = self.slabs[step.outputs[k]].shape if 0 <= k < len(step.outputs) else ()
            if not 0 <= axis < len(shape) or not _is_symbol(shape[axis], symbol):
                self.fail(f"it finds out {symbol} as axis {axis} of result {k}, which has another size")
            if symbol in self.known:
                self.fail(f"it finds out {symbol}, which was known before")

    def view(self, v: View, what: str) -> None:
        if len(v.strides) != len(v.shape):
            self.fail(f"{what} has {len(v.shape)} axes and {len(v.strides)} strides")
        for env in self.envs:
            shape = [self.number(s, env) for s in v.shape]
            if 0 in shape:
                continue
            low = high = self.number(v.offset, env)
            for n, stride in zip(shape, v.strides, strict=True):
                reach = (n - 1) * self.number(stride, env)
                low, high = low + min(reach, 0), high + max(reach, 0)
            size = self.number(self.slabs[v.slab].elements, env)
            if low < 0 or high >= size:
                self.fail(f"{what} is a view of the elements {low} to {high} of {self.text(v.slab)}, which has {size}{_at(env)}")

    def agree(self, a: Size, b: Size, message: str) -> None:
        if a == b:
            return
        for env in self.envs:
            x, y = self.number(a, env), self.number(b, env)
            if x != y:
                self.fail(message.format(x, y) + _at(env))

    def number(self, size: Size, env: Env) -> int:
        return size if isinstance(size, int) else dims.evaluate(size, env)

    # -- the whole ----------------------------------------------------------------------------

    def roots(self) -> None:
        roots, wanted = self.program.roots, self.program.graph.roots
        if len(roots) != len(wanted):
            self.fail(f"{len(roots)} slabs are given back; the graph has {len(wanted)} roots")
        for k, (r, v) in enumerate(zip(roots, wanted, strict=True)):
            if not 0 <= r < len(self.slabs):
                self.fail(f"there is no slab {r}")
            s = self.slabs[r]
            self.where = v.origin
            if s.place not in ("output", "fresh") or r in roots[:k] or any(t.inplace == r for t in self.slabs):
                self.fail(f"root {k} is {self.text(r)}: it needs memory of its own to give away")
            if s.array.dtype != v.type.dtype or s.array.ndim != v.type.ndim:
                self.fail(f"root {k} is {self.text(r)}; the graph has {v.type}")
            for size, want in zip(s.array.shape, v.type.shape, strict=True):
                self.agree(size, want, f"root {k} is {self.text(r)} of size {{}} where the graph has {{}}")
            if not self.writers[r]:
                self.fail(f"root {k}, {self.text(r)}, is written by no step")
            self.whole(r)
        self.where = UNKNOWN

    def checks(self) -> None:
        for c in self.program.checks:
            if not 0 <= c < len(self.slabs):
                self.fail(f"there is no slab {c}")
            if self.slabs[c].dtype != np.bool_ or self.slabs[c].elements != 1 or len(self.writers[c]) != 1:
                self.fail(f"{self.text(c)} is no check: one bool, written by one step")
        for guard in self.program.guards:
            if any(symbol.kind == "data" for symbol in dims.symbols(guard)):
                self.fail(f"the guard {dims.size_text(guard)} is not known when a call begins")

    def taken_over(self, steps: Sequence[Step], slabs: Sequence[Slab]) -> None:
        """A slab that takes over the memory of another: at its first step, by an operand that says so; the other is not read after that."""
        for s in slabs:
            if s.inplace == -1 or not self.writers[s.id]:
                continue
            first = self.writers[s.id][0]
            step = steps[first]
            if not 0 <= s.inplace < len(self.slabs):
                self.fail(f"{self.text(s.id)} lies in the place of slab {s.inplace}, which does not exist")
            other = self.slabs[s.inplace]
            self.where = step.origin
            told = isinstance(step, Launch) and any(
                own == s.id and o.mode == "out" and o.alias >= 0 and step.slabs[o.alias] == other.id
                for own, o in zip(step.slabs, step.kernel.operands, strict=True))
            if not told or other.place != s.place or step.reads.count(other.id) != 1:
                self.fail(f"step {first} writes {self.text(s.id)} over {self.text(other.id)}, and its kernel is not made for that")
            self.agree(s.nbytes, other.nbytes, f"{self.text(s.id)} of {{}} bytes lies in the place of {self.text(other.id)} of {{}}")
            if any(i > first for i in (*self.readers[other.id], *self.writers[other.id])):
                self.fail(f"{self.text(other.id)} is needed after step {first}, which overwrites it with {self.text(s.id)}")
            if any(t.inplace == other.id and t.id != s.id for t in slabs):
                self.fail(f"two slabs lie in the place of {self.text(other.id)}")
        self.where = UNKNOWN

    def memory(self, place: str, room: Size) -> None:
        """The arena, or the memory of a sweep: every slab inside it, and no two that are needed at one time in one place."""
        held = [s for s in self.slabs if s.place == place and self.writers[s.id]]
        for size in (room, *(size for s in held for size in (s.offset, *s.shape))):
            if any(symbol.kind == "data" for symbol in dims.symbols(size)):
                self.fail(f"the arena needs the size {dims.size_text(size)}, which is not known when a call begins")
        first = np.array([self.writers[s.id][0] for s in held])
        last = np.array([max(*self.writers[s.id], *self.readers[s.id]) if self.readers[s.id] else self.writers[s.id][-1] for s in held])
        for env in self.envs:
            arena = self.number(room, env)
            begin = np.array([self.number(s.offset, env) for s in held], np.int64)
            end = begin + np.array([self.number(s.nbytes, env) for s in held], np.int64)
            for k, s in enumerate(held):
                if begin[k] < 0 or end[k] > arena or begin[k] % s.dtype.itemsize:
                    self.fail(f"{self.text(s.id)} lies at bytes {begin[k]} to {end[k]} of {'an arena' if place == 'arena' else 'memory'} of {arena}{_at(env)}")
                # those after it in the list that are needed at one time with it, in one place
                j = slice(k + 1, None)
                clash = (begin[k] < end[j]) & (begin[j] < end[k]) & (first[k] <= last[j]) & (first[j] <= last[k])
                for t in (held[k + 1 + int(n)] for n in np.flatnonzero(clash)):
                    if t.inplace != s.id and s.inplace != t.id:
                        self.fail(f"{self.text(s.id)} and {self.text(t.id)} are needed at one time and lie in one place{_at(env)}")
                if s.inplace >= 0 and begin[k] != self.number(self.slabs[s.inplace].offset, env):
                    self.fail(f"{self.text(s.id)} does not lie in the place of {self.text(s.inplace)}{_at(env)}")


def _longer(program: Program, envs: Sequence[Env], counts: Sequence[Size], relations: Sequence[Relation]) -> list[dict[Symbol, int]]:
    """Choices with which the sweeps have more than one block, the last one of fewer rows."""
    found: list[dict[Symbol, int]] = []
    for step in program.steps:
        if not isinstance(step, Sweep) or isinstance(step.rows, int):
            continue
        for env in envs:
            more = {**env, **dict.fromkeys(dims.symbols(step.rows), step.block + 1)}
            if all(env.values()) and sound(more, [s for s in counts if not isinstance(s, int)], [s for s in counts if not isinstance(s, int)], relations):
                if more not in found:
                    found.append(more)
                break
    return found


def _dense_groups(out: View, lead: int, rows: int) -> bool:
    """Is the step along each axis of the rows, and of the columns, that over all axes after it?"""
    if any(size == 0 for size in out.shape):
        return True
    step: Size = 1
    for k in reversed(range(lead, len(out.shape))):
        if k == lead + rows - 1:
            step = out.strides[k]  # from row to row: any
        if out.strides[k] != step and not dims.is_one(out.shape[k]):
            return False
        step = step * out.shape[k]
    return True


def _distinct(v: View, env: Env) -> bool:
    """Does every element of a view have a place of its own?"""
    axes = [(abs(dims.evaluate(t, env)), dims.evaluate(s, env)) for s, t in zip(v.shape, v.strides, strict=True)]
    reach = 0
    for stride, n in sorted(axes):
        if n > 1:
            if stride <= reach:
                return any(m == 0 for _, m in axes)  # of no elements, all do
            reach += stride * (n - 1)
    return True


def _elements(v: View, env: Env) -> Array:
    """The elements of its slab that a view sees."""
    total = np.full([1] * len(v.shape), dims.evaluate(v.offset, env), np.int64)
    for k, (n, stride) in enumerate(zip(v.shape, v.strides, strict=True)):
        steps = np.arange(dims.evaluate(n, env), dtype=np.int64) * dims.evaluate(stride, env)
        total = total + steps.reshape([-1 if a == k else 1 for a in range(len(v.shape))])
    return total.ravel()


def _is_symbol(size: Size, symbol: Symbol) -> bool:
    return not isinstance(size, int) and size.symbol == symbol


def _at(env: Env) -> str:
    return f" (where {', '.join(f'{s} = {n}' for s, n in env.items())})" if env else ""
