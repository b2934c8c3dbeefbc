"""``sweeps``: products whose results are large and only looked at row by row are not written out.

What it promises: the same values, the same bits for any number of threads (a kernel of few rows may add up in another order than one of many); every slab that it takes out of memory is written by one step and read by steps of the same sweep.

Attention is the case that matters: ``softmax(Q K') V`` makes arrays of T x T numbers between arrays of T x d.  Here the product, what a
kernel makes of its rows, the product that takes these rows and the sums over them (the gradients of K and V) become one ``Sweep``:
block by block of rows, with memory for one block.  Sums that cannot go on in their result, since it has 16 bits or is one for many matrices,
have a slab of their own and a kernel after the sweep.  Nothing is looked for but that: steps that go along the rows of one product
(passes/restrict.py), so masks, scales, dropout and softmaxes written by hand are found too.

A sweep begins with a *seed*: a product with more columns than sums, whose result is wide.  The slabs around it join while all of their
writers and readers go along the same rows and no step outside stands between two inside.

A product with few sums whose result only kernels read is a seed too: what follows it (bias, activation, its derivative, a residual, the update of
the weight whose gradient it is) finds its rows in the cache, and the result itself is never written out.

Of products of many matrices with one first operand (a convolution of many images) the rows are the matrices: some images in turn, with all that kernels do before and
after, pooling included, and the gradients of kernels that read it.  What is needed whole elsewhere is written, and read from the cache.  Small images stand side by
side in the columns of one product (passes/convolving.py): the rows are some of these columns.

Last, what kernels make for the left side of products alone (rows gathered from a table, an activation, a mask) is made block by block before these use it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from graphc import dims
from graphc.dims import Size
from graphc.dtypes import is_float
from graphc.errors import on_behalf_of
from graphc.ir import Graph, Type, Var
from graphc.kernel import CallOut, Launch, Product, Program, Step, Sweep, View, contiguous
from graphc.ops.core import cast
from graphc.ops.cumulative import accumulator
from graphc.ops.reduction import sum as sum_
from graphc.passes.dividing import Divided, divided
from graphc.passes.launching import launched
from graphc.passes.lower import same
from graphc.passes.restrict import Block, Rows, Widths, beside, one_by_one, restricted, symbols_of
from graphc.passes.stages import Source
from graphc.passes.triangles import Narrowing

__all__ = ["sweeps"]

#: bytes of a product's result from which it is not written out; what an unknown size is taken for
LEAST_BYTES, UNKNOWN = 256 << 10, 512
#: rows of a block, bytes that its slabs should stay below, and bytes of one image, which may be more
MOST_ROWS, LEAST_ROWS, BLOCK_BYTES, IMAGE_BYTES = 64, 16, 1536 << 10, 6 << 20
#: parts in which images are divided, if there are enough: as many threads can share them
PARTS = 8
#: columns of a block of images side by side: so many, or as many as there are sums, since each block lays out the kernel anew; bytes of a vector
COLUMNS, LINE = 512, 64
#: before kernels: sums at most (with more, a pass over the result is nothing beside the product), those of contractions, bytes of B that every
#: block reads again, multiplications for a block of images
FEW_SUMS, FEW_TAPS, SMALL_BYTES, MUCH_WORK = 512, 1024, 512 << 10, 1 << 19
#: before products: bytes of a row of their left operand at most (longer ones stay in no cache next to B's columns), bytes of an operand that several
#: products read, blocks at least, so that threads have enough to share, and rows of a block where there would be fewer
ROW_BYTES, SHARED_BYTES, LEAST_BLOCKS, FEW_ROWS = 2048, 2 << 20, 8, 32
#: blocks of a matrix up to which each lays out an operand for itself: before the sweep another thread may do so, from whose cache it must come
FEW_BLOCKS = 2


class _Found(NamedTuple):
    """A sweep in the making: its rows, the slabs that it holds with their elements per row, and its steps by number."""

    rows: Rows
    held: Widths
    members: frozenset[int]
    simple: bool = False  # does a product begin it that only kernels read?
    seed: int = -1
    images: int = 0  # if its rows are images: how many a block should have
    most: int = 0  # rows of a block at most, if it has a limit of its own


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
        self.narrowing = Narrowing(program, {s: len(steps) for s, steps in enumerate(self.writers)})
        self.parts: dict[tuple[int, Rows], Divided | None] = {}
        self.lines: dict[Size, tuple[tuple[int, Size], ...]] = {}  # for a number of images the results in which they stand side by side, and columns of each
        for step in self.steps:
            if isinstance(step, Product) and (count := beside(step, self.slabs)) is not None:
                self.lines[count] = (*self.lines.get(count, ()), (step.out.slab, step.out.strides[-step.axes[2]]))

    def run(self) -> Program:
        found: list[_Found] = []
        kinds: tuple[Callable[[int], _Found | None], ...] = (lambda i: self.seed(i) or self.simple_seed(i), self.operand_seed)
        for seed_at in kinds:
            for i in range(len(self.steps)):
                seed = seed_at(i)
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
        images = self.images(step) if k <= FEW_TAPS else None
        if images is None:
            return None
        alone = _Found(images[0], {}, frozenset([i]), True, i, images[1])
        found = self.having(alone, slab.id)
        for j in self.readers[slab.id] if found is None else ():  # the gradient wants the result: what is next reads it from the cache nevertheless
            found = self.with_kernel(found or alone, j) or found
        return found

    def images(self, step: Product) -> tuple[Rows, int] | None:
        """Of a product with images its rows, which are these, and how many a block should have."""
        out, (matrices, m, k, n) = step.out, [_guess(size) for size in step.sizes]
        count, nbytes = beside(step, self.slabs), self.slabs[out.slab].dtype.itemsize
        if count is None:
            if out.shape[0] == 1 or len(out.shape) == step.axes[0] + step.axes[2] or step.a.strides[0] != 0 or not all(isinstance(size, int) for size in step.sizes[1:]):
                return None
            return (Rows((), out.shape[0], self.lines.get(out.shape[0], ())), max(MUCH_WORK // max(m * n * k, 1), 1)) if m * n * nbytes <= IMAGE_BYTES else None
        each = out.strides[-step.axes[2]]
        if not isinstance(each, int) or not all(isinstance(size, int) for size in step.sizes[:3]) or (isinstance(count, int) and count * each < PARTS * COLUMNS):
            return None
        most, even = -(-max(COLUMNS, k) // each), LINE // nbytes // math.gcd(each, LINE // nbytes)
        most = max(MUCH_WORK // max(matrices * m * each * k, 1), most if even > most else -(-most // even) * even)  # in whole vectors
        return (Rows((), count, self.lines[count]), most) if most * matrices * m * each * nbytes <= BLOCK_BYTES else None

    def operand_seed(self, i: int) -> _Found | None:
        """A product whose left operand a kernel makes for it alone, or for several products."""
        step = self.steps[i]
        if not isinstance(step, Product) or step.axes != (1, 1, 1) or i in self.taken:
            return None
        a, slab = step.a, self.slabs[step.a.slab]
        products = [p for j in self.readers[slab.id] if isinstance(p := self.steps[j], Product) and p.axes == (1, 1, 1) and p.a == a and p.b.slab != slab.id]
        if len(products) < len(self.readers[slab.id]) or not all(isinstance(self.steps[j], Launch) for j in self.writers[slab.id]):
            return None
        if a.shape != slab.shape or a.offset != 0 or a.strides != contiguous(a.shape) or not is_float(slab.dtype) or slab.dtype.itemsize < 4:
            return None  # half floats have products in pairs, which are faster than what sweeps have
        if not all(isinstance(n, int) for p in products for n in p.b.shape[-2:]):
            return None
        least, each = dims.bounds(dims.product(a.shape[:-1]))[0], _guess(a.shape[-1]) * slab.dtype.itemsize
        if dims.bounds(a.shape[-2])[0] < LEAST_ROWS or least < LEAST_BLOCKS * FEW_ROWS or least * each < (SHARED_BYTES if len(products) > 1 else LEAST_BYTES):
            return None
        if each > ROW_BYTES or sum(each * _guess(p.b.shape[-1]) for p in products) > SMALL_BYTES:
            return None
        most = min(max(least // LEAST_BLOCKS // 16 * 16, FEW_ROWS), MOST_ROWS)
        found = self.having(_Found(Rows(a.shape[:-2], a.shape[-2]), {}, frozenset(), True, most=most), slab.id)
        if found is None:
            return None
        for p in products:
            found = self.having(found, p.out.slab) or found
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
            if isinstance(step, Product):
                if found.simple and i not in found.members and (found.images or len(grown.held) > 1) and not (found.images and _of_each(step)):
                    return None
                step = one_by_one(step, rows)
                if not found.images and (step.axes != (1, 1, 1) or step.out.shape[:-2] != rows.lead):
                    return None  # images are rows only where it begins with them
            if not isinstance(step, Launch | Product) or restricted(step, rows, block, grown.held, passed) is None:
                return None
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
        """The sweep, after the copies that it needs and before what makes sums of its sums."""
        rows, held, passed = found.rows, found.held, self.passed(found)
        assert passed is not None
        block, lead, count = self.block(found)
        start = dims.fresh("block", "row").symbol
        assert start is not None
        at = Block(tuple([dims.lone(symbol) for symbol, _ in lead]), dims.lone(start), count, block)
        copies: dict[View, Launch] = {}
        steps: list[Launch | Product] = []
        after: list[Launch] = []
        for i in sorted(found.members):
            step, parts = self.along(i, rows), self.divided(i, rows)
            assert isinstance(step, Launch | Product)
            if isinstance(step, Launch) and parts is not None:
                given = {-2 - n: self.program.slab(dtype, shape, "arena", step.kernel.name) for n, (dtype, shape) in enumerate(parts.given)}
                step, last = (part._replace(slabs=tuple([given.get(s, s) for s in part.slabs])) for part in (step, parts.joined))
                after.append(last)
            if isinstance(step, Product) and step.axes == (1, 1, 1) and not found.images and step.b.slab not in held and self.laid_out(step.b, rows, count):
                view, launch = self.dense(step.b, step)
                step = step._replace(b=view)
                if launch is not None:
                    copies[view] = launch
            each = one_by_one(step, rows) if isinstance(step, Product) else step
            part = restricted(each, rows, at, held, passed)
            if isinstance(step, Product) and isinstance(each, Product) and isinstance(part, Product) and part.adds != 0:
                each, launch = self.summed(step, each)
                if launch is not None:
                    after.append(launch)
                    part = restricted(each, rows, at, held, passed)
            assert part is not None
            steps.append(part)
        narrowed = self.narrowing.narrowed(steps, rows, at, held)
        steps, own = narrowed.steps, {*held, *narrowed.held}
        for s, width in held.items():
            self.slabs[s].place, self.slabs[s].shape = "block", (block, *([width] if width != 1 else []))
        reads = [s for step in steps for s in step.reads if s not in own and s not in passed]
        writes = [s for step in steps for s in step.writes if s not in own]
        sweep = Sweep(tuple(steps), lead, rows.rows, start, count, block, tuple(dict.fromkeys(reads)), tuple(dict.fromkeys(writes)), 0, narrowed.seen, steps[0].origin)
        return [*copies.values(), *narrowed.before, sweep, *after]

    def summed(self, step: Product, each: Product) -> tuple[Product, Launch | None]:
        """A sum over rows (``each``: for each matrix) whose blocks cannot go on in its result, into a slab of its own, and what makes the result of that.

        Numbers of 16 bits would be rounded after every block; what several matrices sum up, only one thread could compute.
        """
        out, source = step.out, self.slabs[step.out.slab]
        wide, lead = accumulator(source.dtype), len(each.out.shape) - len(out.shape)
        if wide == source.dtype and dims.is_one(dims.product(each.out.shape[:lead])):
            return each, None
        slab = self.program.slab(wide, each.out.shape, "arena", f"{source.name}_sums" if source.name else "sums")
        view = View(slab, each.out.shape, contiguous(each.out.shape))
        inner = Var(Type(wide, view.shape), name=source.name)
        with on_behalf_of(step.origin):
            total = cast(sum_(inner, tuple(range(lead))) if lead else inner, source.dtype)
        parts = {0: Source(out.slab, source.elements, out.shape, out.strides, out.offset)}
        body, sources = Graph([inner], [total], name="summed"), {inner: Source(slab, dims.product(view.shape), *view[1:])}
        return each._replace(out=view), launched(body, sources, [out.slab], step.origin, places=parts)

    def block(self, found: _Found) -> tuple[int, tuple[tuple[dims.Symbol, Size], ...], Size]:
        """Rows of a block, the symbols of its matrix, and how many rows it has."""
        rows = found.rows.rows
        nbytes = sum(_guess(width) * self.slabs[s].dtype.itemsize for s, width in found.held.items())
        most = min(max(BLOCK_BYTES // max(nbytes, 1) // 16 * 16, LEAST_ROWS), found.most or MOST_ROWS)
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

    def laid_out(self, b: View, rows: Rows, count: Size) -> bool:
        """Is it better laid out before the sweep than in each block?"""
        few = isinstance(rows.rows, int) and isinstance(count, int) and rows.rows <= FEW_BLOCKS * count and 0 not in b.strides[:-2]
        return b.strides[-1] != 1 and not few

    def dense(self, v: View, step: Product) -> tuple[View, Launch | None]:
        """A copy of an operand whose rows are dense: products would make one for every block."""
        if v in self.copies:
            return self.copies[v][0], None
        source = self.slabs[v.slab]
        shared = [stride == 0 for stride in v.strides[:-2]]  # by matrices that need no copy each
        once = (*(1 if own else n for n, own in zip(v.shape, shared, strict=False)), *v.shape[-2:])
        inner = Var(Type(source.dtype, once), name=source.name)
        body = Graph([inner], [same(inner, step.origin)], name="turned")
        slab = self.program.slab(source.dtype, once, "arena", f"{source.name}_turned" if source.name else "turned")
        self.narrowing.copied[slab] = v.slab
        strides = contiguous(once)
        view = View(slab, v.shape, (*(0 if own else stride for stride, own in zip(strides, shared, strict=False)), *strides[-2:]))
        sources = {inner: Source(v.slab, source.elements, once, v.strides, v.offset)}
        self.copies[v] = view, launched(body, sources, [slab], step.origin)
        return self.copies[v]


def _of_each(step: Product) -> bool:
    """Many products, of which each has operands of its own: gradients of a kernel, image by image."""
    return len(step.out.shape) > step.axes[0] + step.axes[2] and 0 not in (step.a.strides[0], step.b.strides[0])


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
