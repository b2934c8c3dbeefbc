"""``sweeps``: products whose results are large and only looked at row by row are not written out.

What it promises: the same values, the same bits for any number of threads (a kernel of few rows may add up in another order than one of many); every slab that it takes out of memory is written by one step and read by steps of the same sweep.

Attention is the case that matters: ``softmax(Q K') V`` makes arrays of T x T numbers between arrays of T x d.  Here the product, what a
kernel makes of its rows, the product that takes these rows and the sums over them (the gradients of K and V) become one ``Sweep``:
block by block of rows, with memory for one block.  Nothing is looked for but that: steps that go along the rows of one product
(passes/restrict.py), so masks, scales, dropout and softmaxes written by hand are found too.

A sweep begins with a *seed*: a product with more columns than sums, whose result is wide.  The slabs around it join while all of their
writers and readers go along the same rows and no step outside stands between two inside.

A product with few sums whose result only kernels read is a seed too: what follows it (bias, activation, its derivative, a residual, the update of
the weight whose gradient it is) finds its rows in the cache, and the result itself is never written out.

Of products of many matrices with one first operand (a convolution of many images) the rows are the matrices: some images in turn, with all that kernels do before and
after, pooling included, and the gradients of kernels that read it.  What is needed whole elsewhere is written, and read from the cache.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_float
from graphc.ir import Graph, Type, Var
from graphc.kernel import CallOut, Launch, Product, Program, Step, Sweep, View, contiguous
from graphc.passes.dividing import Divided, divided
from graphc.passes.lower import same
from graphc.passes.restrict import Block, Rows, Widths, restricted, symbols_of
from graphc.passes.stages import Source, build_kernel

__all__ = ["sweeps"]

#: bytes of a product's result from which it is not written out; what an unknown size is taken for
LEAST_BYTES, UNKNOWN = 256 << 10, 512
#: rows of a block, bytes that its slabs should stay below, and bytes of one image, which may be more
MOST_ROWS, LEAST_ROWS, BLOCK_BYTES, IMAGE_BYTES = 64, 16, 1536 << 10, 6 << 20
#: parts in which images are divided, if there are enough: as many threads can share them
PARTS = 8
#: before kernels: sums at most (with more, a pass over the result is nothing beside the product), those of contractions, bytes of B that every
#: block reads again, multiplications for a block of images
FEW_SUMS, FEW_TAPS, SMALL_BYTES, MUCH_WORK = 512, 1024, 512 << 10, 1 << 19


class _Found(NamedTuple):
    """A sweep in the making: its rows, the slabs that it holds with their elements per row, and its steps by number."""

    rows: Rows
    held: Widths
    members: frozenset[int]
    simple: bool = False  # does a product begin it that only kernels read?
    seed: int = -1
    images: int = 0  # if its rows are images: how many a block should have


class _Sweeping:
    def __init__(self, program: Program) -> None:
        self.program, self.slabs, self.steps = program, program.slabs, program.steps
        self.writers: list[list[int]] = [[] for _ in self.slabs]
        self.readers: list[list[int]] = [[] for _ in self.slabs]
        for i, step in enumerate(self.steps):
            for s in step.writes:
                self.writers[s].append(i)
            for s in dict.fromkeys(step.reads):
                self.readers[s].append(i)
        self.after = _dependents(program)
        self.taken: set[int] = set()  # steps of sweeps
        self.copies: dict[View, tuple[View, Launch]] = {}
        self.parts: dict[tuple[int, Rows], Divided | None] = {}

    def run(self) -> Program:
        found: list[_Found] = []
        for i in range(len(self.steps)):
            seed = self.seed(i) or self.simple_seed(i)
            if seed is not None and (grown := self.grown(seed)) is not None and not self.cycle([*found, grown]):
                found.append(grown)
                self.taken |= grown.members
        if found:
            self.replace(found)
        return self.program

    # -- what joins -------------------------------------------------------------------------------

    def seed(self, i: int) -> _Found | None:
        step = self.steps[i]
        if not isinstance(step, Product) or step.axes != (1, 1, 1) or i in self.taken or not is_float(self.slabs[step.out.slab].dtype):
            return None
        out, slab = step.out, self.slabs[step.out.slab]
        if out.shape != slab.shape or out.offset != 0 or out.strides != contiguous(out.shape):
            return None
        k, n = (_guess(size) for size in (step.a.shape[-1], out.shape[-1]))
        if (n < 2 * k and not (n >= k and k <= 64)) or _guess(slab.elements) * slab.dtype.itemsize < LEAST_BYTES:
            return None
        return self.having(_Found(Rows(out.shape[:-2], out.shape[-2]), {}, frozenset()), slab.id)

    def simple_seed(self, i: int) -> _Found | None:
        """A product that only kernels read; of products of many matrices, some of these."""
        step = self.steps[i]
        if not isinstance(step, Product) or step.axes[0] != 1 or i in self.taken:
            return None
        out, slab = step.out, self.slabs[step.out.slab]
        if out.shape != slab.shape and out.shape[0] != (*slab.shape, 1)[0]:
            return None
        if slab.elements != dims.product(out.shape) or out.offset != 0 or out.strides != contiguous(out.shape):
            return None
        matrices, m, k, n = (_guess(size) for size in step.sizes)
        nbytes = m * n * slab.dtype.itemsize
        if matrices * nbytes < LEAST_BYTES or not all(isinstance(self.steps[j], Launch) for j in self.readers[slab.id]):
            return None
        if step.axes == (1, 1, 1) and k <= FEW_SUMS and m >= 2 * MOST_ROWS and k * n * slab.dtype.itemsize <= SMALL_BYTES and all(isinstance(size, int) for size in out.shape):
            found = self.having(_Found(Rows(out.shape[:-2], out.shape[-2]), {}, frozenset(), True, i), slab.id)
            if found is not None:
                return found
        if out.shape[0] == 1 or len(out.shape) == step.axes[0] + step.axes[2] or step.a.strides[0] != 0 or not all(isinstance(size, int) for size in step.sizes[1:]):
            return None
        if k > FEW_TAPS or nbytes > IMAGE_BYTES:
            return None
        alone = _Found(Rows((), out.shape[0]), {}, frozenset([i]), True, i, max(MUCH_WORK // max(m * n * k, 1), 1))
        found = self.having(alone, slab.id)
        for j in self.readers[slab.id] if found is None else ():  # the gradient wants the result: what is next reads it from the cache nevertheless
            found = self.with_kernel(found or alone, j) or found
        return found

    def having(self, found: _Found, slab: int) -> _Found | None:
        """With one slab more, if that can be."""
        s = self.slabs[slab]
        width = found.rows.width(s)
        if s.place != "arena" or width is None or len(self.writers[slab]) != 1 or slab in self.program.checks or slab in self.program.roots:
            return None
        if not self.readers[slab] or slab not in self.along(self.writers[slab][0], found.rows).writes:
            return None
        return self.sound(found, found._replace(held={**found.held, slab: width}, members=found.members | {self.writers[slab][0], *self.readers[slab]}))

    def with_kernel(self, found: _Found, i: int) -> _Found | None:
        """With a kernel more, which reads or writes slabs that others need whole."""
        return self.sound(found, found._replace(members=found.members | {i}))

    def sound(self, found: _Found, grown: _Found) -> _Found | None:
        """``grown``, if all of it can be done block by block."""
        rows, passed = found.rows, self.passed(grown)
        if grown.members & self.taken or passed is None:
            return None
        block = Block((0,) * len(rows.lead), LEAST_ROWS, LEAST_ROWS, LEAST_ROWS)  # not the first one: that adds to nothing
        for i in grown.members:
            step = self.along(i, rows)
            if found.simple and isinstance(step, Product) and i != found.seed and not (found.images and rows.width(self.slabs[step.out.slab]) is None):
                return None  # but the gradient of a kernel, image by image, ends a sweep
            if not isinstance(step, Launch | Product) or (part := restricted(step, rows, block, grown.held, passed)) is None:
                return None
            if isinstance(part, Product) and part.adds != 0 and self.slabs[part.out.slab].dtype.itemsize < 4:
                return None  # it would be rounded after every block
        return None if self.between(grown.members) else grown

    def passed(self, found: _Found) -> Widths | None:
        """Slabs that it writes and reads, and that others read too; None if one does not have the rows."""
        passed: dict[int, Size] = {}
        for i in sorted(found.members):
            along = self.along(i, found.rows).writes
            for s in self.steps[i].writes:
                if s not in found.held and any(j in found.members for j in self.readers[s]):
                    width = found.rows.width(self.slabs[s])
                    if width is None or len(self.writers[s]) != 1 or s not in along:
                        return None
                    passed[s] = width
        return passed

    def along(self, i: int, rows: Rows) -> Step:
        """The step, or what each row gives to its sums, if it sums over the rows."""
        step = self.divided(i, rows)
        return self.steps[i] if step is None else step.each

    def divided(self, i: int, rows: Rows) -> Divided | None:
        """A step that sums over images, as two."""
        step = self.steps[i]
        if rows.lead or not isinstance(step, Launch) or not step.kernel.finish or any(s in self.program.checks for s in step.writes):
            return None  # of checks, the next steps must know
        if (i, rows) not in self.parts:
            self.parts[i, rows] = divided(step, rows.rows)
        return self.parts[i, rows]

    def grown(self, found: _Found) -> _Found | None:
        """With all that can join: results and operands of its steps that are as wide, and what only its steps read."""
        widest = max([_guess(width) for width in found.held.values()], default=0)
        tried = set(found.held)
        while True:
            around = [s for i in sorted(found.members) for s in (*self.steps[i].writes, *self.steps[i].reads) if s not in tried]
            if not around:
                return found
            for s in around:
                tried.add(s)
                width = found.rows.width(self.slabs[s])
                if width is None or s in found.held:
                    continue
                near = {*self.writers[s], *self.readers[s]}
                if found.images or 2 * _guess(width) > widest or near <= found.members:
                    found = self.having(found, s) or found
                if found.images and s not in found.held:
                    for i in sorted(near - found.members):
                        found = self.with_kernel(found, i) or found

    def between(self, members: Iterable[int]) -> bool:
        """Is there a step outside that needs one inside, and that one inside needs?"""
        inside = set(members)
        last, seen = max(inside), set[int]()
        todo = [j for i in inside for j in self.after[i] if j not in inside]
        while todo:
            i = todo.pop()
            if i in inside:
                return True
            if i not in seen and i <= last:
                seen.add(i)
                todo += self.after[i]
        return False

    def cycle(self, found: Sequence[_Found]) -> bool:
        """Does one sweep need another that needs it?"""
        return len(self.order(found)) < len(self.units(found))

    # -- putting them in --------------------------------------------------------------------------

    def units(self, found: Sequence[_Found]) -> dict[int, list[int]]:
        """Steps that are done together, by the number of the last one."""
        units = {i: [i] for i in range(len(self.steps))}
        for f in found:
            for i in f.members:
                del units[i]
            units[max(f.members)] = sorted(f.members)
        return units

    def order(self, found: Sequence[_Found]) -> list[int]:
        """The units in an order in which each follows what it needs, as near to the old one as can be; fewer than all if there is a cycle."""
        units = self.units(found)
        unit = {i: u for u, members in units.items() for i in members}
        waits = dict.fromkeys(units, 0)
        edges = sorted({(unit[i], unit[j]) for i, after in enumerate(self.after) for j in after if unit[i] != unit[j]})
        after: dict[int, list[int]] = {u: [] for u in units}
        for a, b in edges:
            waits[b] += 1
            after[a].append(b)
        ready = [u for u, n in waits.items() if n == 0]
        heapq.heapify(ready)
        done = []
        while ready:
            u = heapq.heappop(ready)
            done.append(u)
            for b in after[u]:
                waits[b] -= 1
                if waits[b] == 0:
                    heapq.heappush(ready, b)
        return done

    def replace(self, found: Sequence[_Found]) -> None:
        by_last = {max(f.members): f for f in found}
        steps: list[Step] = []
        for u in self.order(found):
            if u in by_last:
                steps += self.sweep(by_last[u])
            else:
                steps.append(self.steps[u])
        self.program.steps[:] = steps

    def sweep(self, found: _Found) -> list[Step]:
        """The sweep, after the copies that it needs."""
        rows, held, passed = found.rows, found.held, self.passed(found)
        assert passed is not None
        block, lead, count = self.block(found)
        start = dims.fresh("block", "row").symbol
        assert start is not None
        at = Block(tuple([dims.lone(symbol) for symbol, _ in lead]), dims.lone(start), count, block)
        copies: dict[View, Launch] = {}
        steps: list[Launch | Product] = []
        joined: list[Launch] = []
        for i in sorted(found.members):
            step, parts = self.along(i, rows), self.divided(i, rows)
            assert isinstance(step, Launch | Product)
            if isinstance(step, Launch) and parts is not None:
                given = {-2 - n: self.program.slab(dtype, shape, "arena", step.kernel.name) for n, (dtype, shape) in enumerate(parts.given)}
                step, last = (part._replace(slabs=tuple([given.get(s, s) for s in part.slabs])) for part in (step, parts.joined))
                joined.append(last)
            if isinstance(step, Product) and step.axes == (1, 1, 1) and not found.images and step.b.slab not in held and step.b.strides[-1] != 1:
                view, launch = self.dense(step.b, step)
                step = step._replace(b=view)
                if launch is not None:
                    copies[view] = launch
            part = restricted(step, rows, at, held, passed)
            assert part is not None
            steps.append(part)
        for s, width in held.items():
            self.slabs[s].place, self.slabs[s].shape = "block", (block, *([width] if width != 1 else []))
        reads = [s for step in steps for s in step.reads if s not in held and s not in passed]
        writes = [s for step in steps for s in step.writes if s not in held]
        sweep = Sweep(tuple(steps), lead, rows.rows, start, count, block, tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(writes)), 0, steps[0].origin)
        return [*copies.values(), sweep, *joined]

    def block(self, found: _Found) -> tuple[int, tuple[tuple[dims.Symbol, Size], ...], Size]:
        """Rows of a block, the symbols of its matrix, and how many rows it has."""
        rows = found.rows.rows
        nbytes = sum(_guess(width) * self.slabs[s].dtype.itemsize for s, width in found.held.items())
        most = min(max(BLOCK_BYTES // max(nbytes, 1) // 16 * 16, LEAST_ROWS), MOST_ROWS)
        if found.images:
            most = min(found.images, BLOCK_BYTES // max(nbytes, 1))
        if isinstance(rows, int) and self.takes_images(found):
            most = min(most, rows // PARTS)
        most = max(most, 1)
        count: Size | None = None
        if isinstance(rows, int) and rows:
            least, matrices = -(-rows // most), _guess(dims.product(found.rows.lead))
            even = [n for n in range(least, 2 * least + 1) if rows % n == 0]
            if even:  # as many as threads can share
                most = rows // min(even, key=lambda n: (matrices * n % 2 != 0, n))
                count = most
        lead = symbols_of(found.rows.lead)
        return most, lead, count if count is not None else dims.fresh("block", "rows")

    def takes_images(self, found: _Found) -> bool:
        """Is a row much work: one product of many, and not a row of one?"""
        steps = [self.steps[i] for i in sorted(found.members)]
        return not found.rows.lead and any(isinstance(step, Product) and len(step.out.shape) > step.axes[0] + step.axes[2] for step in steps)

    def dense(self, v: View, step: Product) -> tuple[View, Launch | None]:
        """A copy of an operand whose rows are dense: products would make one for every block."""
        if v in self.copies:
            return self.copies[v][0], None
        source = self.slabs[v.slab]
        inner = Var(Type(source.dtype, v.shape), name=source.name)
        body = Graph([inner], [same(inner, step.origin)], name="turned")
        kernel, _, _ = build_kernel(body, {inner: Source(v.slab, source.elements, v.shape, v.strides, v.offset)}, {})
        slab = self.program.slab(source.dtype, v.shape, "arena", f"{source.name}_turned" if source.name else "turned")
        view = View(slab, v.shape, contiguous(v.shape))
        self.copies[v] = view, Launch(kernel, (v.slab, slab), step.origin)
        return self.copies[v]


def _guess(size: Size) -> int:
    """A number for a size."""
    if isinstance(size, int):
        return size
    try:
        return max(dims.evaluate(size, {s: max(UNKNOWN, s.min) for s in dims.symbols(size)}), 1)
    except (ArithmeticError, ValueError):  # sizes that never meet so
        return UNKNOWN


def _dependents(program: Program) -> list[list[int]]:
    """For each step those later ones that must stay after it, directly."""
    after: list[set[int]] = [set() for _ in program.steps]
    wrote: dict[int, list[int]] = {}
    read: dict[int, list[int]] = {}
    barriers: list[int] = []  # call-outs find out sizes and have effects; checks say whether what follows may run
    for i, step in enumerate(program.steps):
        for s in step.reads:
            for j in wrote.get(s, ()):
                after[j].add(i)
        for s in step.writes:
            for j in (*wrote.get(s, ()), *read.get(s, ())):
                after[j].add(i)
        for j in barriers:
            after[j].add(i)
        for s in step.reads:
            read.setdefault(s, []).append(i)
        for s in step.writes:
            wrote.setdefault(s, []).append(i)
        if isinstance(step, CallOut) or any(s in program.checks and s not in program.doubts for s in step.writes):
            for j in range(i):
                after[j].add(i)
            barriers = [i]
    return [sorted(x - {i}) for i, x in enumerate(after)]


def sweeps(program: Program) -> Program:
    """Put in the sweeps; before the arena is planned."""
    if any(isinstance(step, Product) for step in program.steps):
        _Sweeping(program).run()
    return program
