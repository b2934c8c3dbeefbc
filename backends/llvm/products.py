"""Matrix products as native functions: ``C = A @ B`` over any strides, for a block of rows.

How to read it: ``Product`` says what is multiplied and what is known when compiling; ``product_module`` is the entry;
``Numbers`` (product_numbers.py) knows the kinds (what is stored, what is computed in); ``_Writer`` writes the functions.  A result is
computed in tiles of some rows times some vectors that stay in registers while k runs.  The columns of C are cut into
``_Group``s (tiles of 4 or 2 vectors and narrower ones, with masks or, where the processor has none, with a last vector that overlaps
the one before), the rows of each into tiles of two neighbouring heights, so that no row is computed in vain.  With one
column the product is a dot product per row (A's rows contiguous) or a sum of columns (A's columns contiguous).

Every element is summed in an order that its sizes, layout and target fix: over k from the first to the last (the dot
form: in lanes, then a tree).  Where a chunk of rows begins or ends changes no bit, and neither do overlapping tiles:
they write the same numbers twice.  A product that adds goes on from what C holds, so its tiles do not overlap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from graphc.backends.llvm import memory
from graphc.backends.llvm.product_numbers import KINDS, Numbers
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import BITS, LLVM, Body, Module, Value, select, shuffle, suffix

__all__ = ["Product", "product_module", "row_grain", "scratch_elements"]

Int = int | Value  # a number known when compiling, or an i64 of the function

#: columns of a matrix that are read side by side where they lie so many bytes apart or more
STREAMS, FAR_BYTES = 8, 4096
FLIP = {"row": "col", "col": "row", None: None}


@dataclass(frozen=True)
class Product:
    """A product ``C[m, n] = A[m, k] @ B[k, n]`` and what is known of it when compiling (None: not known).

    Args:
        kind: of the operands and the result: f32 f64 f16 bf16 i8 i16 i32 i64 or bool (bytes 0 and 1: or of ands).
        signed: are the integers signed?  The bits of the result are the same either way.
        m, n, k: sizes.
        a_unit, b_unit: which stride is known to be 1: "row" (from row to row: columns are contiguous) or "col" (rows are contiguous).
        a_step, b_step: the other stride of an operand with a unit stride, where it is known.
        c_step: the stride from row to row of C, where it is known.
        adds: is the product added to what C holds?
        wide: does C hold what is computed in: float32 where operands have 16 bits?
    """

    kind: str
    signed: bool = True
    m: int | None = None
    n: int | None = None
    k: int | None = None
    a_unit: str | None = None
    b_unit: str | None = None
    a_step: int | None = None
    b_step: int | None = None
    c_step: int | None = None
    adds: bool = False
    wide: bool = False

    @property
    def packed(self) -> bool:
        """Must the caller lay B out as rows first (``NAME_pack``) and pass ``b = scratch, b_row = n, b_col = 1``?"""
        if self.n == 1 and not self.adds and not self.wide:
            return self.a_unit == "col" and self.b_unit != "row"
        return self.b_unit != "col"

    def transposed(self) -> Product:
        """``C' = B' A'``, for a product with one row (m = 1, C contiguous): its columns become rows, which can be shared out, and B need not be packed.

        Call it with a and b exchanged and each one's two strides exchanged; c_row is 1.
        """
        return Product(self.kind, self.signed, self.n, self.m, self.k, FLIP[self.b_unit], FLIP[self.a_unit], self.b_step, self.a_step, 1)


def scratch_elements(spec: Product) -> Callable[[int, int, int], int]:
    """How many elements of scratch the product needs, as a function of (m, n, k)."""
    return (lambda m, n, k: n * k) if spec.packed else (lambda m, n, k: 0)


def row_grain(spec: Product, target: Target) -> int:
    """Chunks of rows (lo ... hi) are best multiples of this; any others are right too."""
    if spec.n == 1 and spec.a_unit == "col":
        return 4
    writer = _Writer(spec, target)
    widest = writer.widest()
    return writer.heights(widest if spec.n is None else max(1, min(widest, -(-spec.n // writer.lanes))))[-1]


def product_module(spec: Product, target: Target) -> tuple[str, str]:
    """(NAME, the text of a module).  NAME comes from the content; the module exports

        void NAME(ptr c, ptr a, ptr b, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, i64 c_row, ptr scratch, i64 lo, i64 hi)
        void NAME_pack(ptr scratch, ptr b, i64 n, i64 k, i64 b_row, i64 b_col)           only if ``spec.packed``

    The first computes rows lo ... hi-1 of C; strides count elements, C's columns are contiguous.  Sizes and strides that the
    spec states must be passed too (or anything else: they are not read).
    """
    if spec.kind not in KINDS or spec.a_unit not in FLIP or spec.b_unit not in FLIP:
        raise ValueError(f"not a product: {spec}")
    writer = _Writer(spec, target)
    writer.product()
    if spec.packed:
        writer.pack()
    return target.named("product", writer.module.text())


@dataclass(frozen=True)
class _Slot:
    """One vector of a tile: its first column (from the tile's own), its lanes, and which of them are there (None: all)."""

    column: Int
    lanes: int
    mask: Value | None = None


@dataclass(frozen=True)
class _Group:
    """Tiles of the same form: first columns start, start + step ... below stop."""

    start: Value
    stop: Value
    step: int
    count: int
    slots: Callable[[Value], Sequence[_Slot]]


class _Writer:
    """Writes the functions of one product."""

    def __init__(self, spec: Product, target: Target) -> None:
        self.spec, self.target = spec, target
        self.numbers = Numbers(spec.kind, target)
        self.storage, self.work = self.numbers.storage, self.numbers.work
        self.result = self.work if spec.wide else self.storage
        self.module = Module(target)
        self.registers = 32 if target.has("avx512f") or target.has("neon") else 16
        self.lanes = target.bits // BITS[self.work]
        #: has the processor masked loads and stores for what is stored?
        self.masks = target.has("avx512bw") or (target.has("avx512f") and BITS[self.storage] >= 32)

    # -- small words ------------------------------------------------------------------------------

    def i64(self, x: Int) -> Value:
        return x if isinstance(x, Value) else self.f.const(x, "i64")

    def mul(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if isinstance(x, int):
            x, y = y, x
        assert isinstance(x, Value)
        return x if y == 1 else 0 if y == 0 else x * y

    def add(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if isinstance(x, int):
            x, y = y, x
        assert isinstance(x, Value)
        return x if isinstance(y, int) and y == 0 else x + y

    def smaller(self, x: Value, y: Value) -> Value:
        return x.minimum(y)

    def at(self, pointer: str, offset: Int, kind: str = "") -> str:
        """The address of an element."""
        if isinstance(offset, int) and offset == 0:
            return pointer
        return self.f.op(f"getelementptr {LLVM[kind or self.storage]}, ptr {pointer}, i64 {offset.ref if isinstance(offset, Value) else offset}")

    def load(self, pointer: str, lanes: int = 0, mask: Value | None = None, kind: str = "") -> Value:
        """Elements as they are stored; 0 where the mask is false."""
        return memory.load(pointer, Value(self.f, "", kind or self.storage, lanes), mask)

    def store(self, x: Value, pointer: str, mask: Value | None = None) -> None:
        memory.store(pointer, x, mask)

    def below(self, count: Value, lanes: int) -> Value:
        """The mask of the lanes whose number is less than ``count`` (which is small or negative)."""
        return self.f.vector(range(lanes), "i32").lt(self.f.splat(count.to("i32"), lanes))

    def done_when(self, condition: Value, write: Callable[[], None]) -> None:
        """``if condition { write(); return; }``."""
        yes, no = self.f.labels("case", "yes", "no")
        self.f.line(f"br i1 {condition.ref}, label %{yes}, label %{no}")
        self.f.label(yes)
        write()
        self.f.line("ret void")
        self.f.label(no)

    # -- the function -----------------------------------------------------------------------------

    def product(self) -> None:
        spec = self.spec
        names = ["m", "n", "k", "a_row", "a_col", "b_row", "b_col", "c_row"]
        reads = spec.adds or (spec.n in (None, 1) and spec.a_unit == "row")  # streamed() goes on from C
        parameters = [(f"ptr noalias{'' if reads else ' writeonly'}", "c"), ("ptr readonly", "a"), ("ptr readonly", "b"), *[("i64", n) for n in names],
                      ("ptr", "scratch"), ("i64", "lo"), ("i64", "hi")]
        self.f = f = Body(self.module, "NAME", parameters)
        n, k, a_row, a_col, b_row, b_col, c_row = (f.value("%" + name, "i64") for name in names[1:])
        self.lo, self.hi = f.value("%lo", "i64"), f.value("%hi", "i64")
        self.n: Int = n if spec.n is None else spec.n
        self.k: Int = k if spec.k is None else spec.k
        self.a_row, self.a_col = _known(a_row, a_col, spec.a_unit, spec.a_step)
        if spec.packed:
            self.b_row: Int = self.n
        else:
            self.b_row = _known(b_row, b_col, spec.b_unit, spec.b_step)[0]
        self.c_row: Int = c_row if spec.c_step is None else spec.c_step
        self.c, self.a, self.b = "%c", "%a", "%b"
        if spec.adds or spec.wide:  # the forms of one column know neither
            for group in self.groups(self.i64(0), self.n, self.widest()):
                self.rows(group)
        elif spec.n == 1 and spec.a_unit == "col":
            self.dots()
        elif self.few_columns():
            self.upright()
        else:
            one = self.i64(self.n).eq(1)
            if spec.n is None and spec.a_unit == "col":
                self.done_when(one & self.i64(self.b_row).eq(1), self.dots)
            elif spec.n in (None, 1) and spec.a_unit == "row":
                self.done_when(one & self.i64(self.c_row).eq(1), self.columns)
            if spec.m is None and self.registers == 16:
                self.done_when((self.hi - self.lo).eq(1), self.single)
            for group in self.groups(self.i64(0), self.n, self.widest()):
                self.rows(group)
        f.finish()

    def widest(self) -> int:
        """Vectors of a wide tile."""
        if self.spec.m == 1:
            return 8
        return 4 if self.registers == 32 else 2

    def heights(self, count: int) -> tuple[int, ...]:
        """How many rows the tiles with ``count`` vectors have: (small,) or (small, small + 1).

        What fits into the registers, beside a row of B and an element of A, divided so that the rows of a known m come out even.
        """
        most = 1 if count >= 8 else min(14, (self.registers - count - 2 + (count == 4)) // count)
        m = self.spec.m
        if m is None:
            return (8,) if most >= 8 else (most - 1, most) if most > 1 else (1,)
        m = max(m, 1)
        for even in range(most, (most - 1) // 2, -1) if m <= 64 else ():  # a second form is dear to compile: rather a lower one alone
            if m % even == 0:
                return (even,)
        small = m // -(-m // most)
        return (small, small + 1)

    # -- the columns, cut into tiles ----------------------------------------------------------------

    def groups(self, start: Value, end: Int, widest: int) -> list[_Group]:
        """The columns start ... end-1 as tiles."""
        if isinstance(end, Value):
            return self.open_groups(start, end, widest)
        lanes, wide = self.lanes, self.lanes * widest
        if not self.masks and end < lanes:
            lanes = 1 << max(end.bit_length() - 1, 0)
            wide = lanes * widest
        full, rest = divmod(end, wide)
        groups = []
        if full:
            groups.append(_Group(start, self.i64(full * wide), wide, widest, lambda j: [_Slot(v * lanes, lanes) for v in range(widest)]))
        if rest:
            slots = [_Slot(v * lanes, lanes) for v in range(-(-rest // lanes))]
            over = rest % lanes
            if over == 1:  # no mask: LLVM 22 gets a masked, narrowing store of one known lane wrong (it writes the wide element)
                slots[-1] = _Slot(rest - 1, 1)
            elif over and self.masks:
                slots[-1] = _Slot(slots[-1].column, lanes, self.f.vector([i < over for i in range(lanes)], "i1"))
            elif over and self.spec.adds:
                slots[-1:] = [_Slot(rest - over + i, 1) for i in range(over)]
            elif over:
                slots[-1] = _Slot(rest - lanes, lanes)
            groups.append(_Group(self.i64(full * wide), self.i64(end), wide, len(slots), lambda j: slots))
        return groups

    def open_groups(self, start: Value, end: Value, widest: int, apart: bool = False) -> list[_Group]:
        """The same for an end that is known when running: wide tiles while more than half of one is left, then narrower ones; none over another if ``apart``."""
        lanes, groups, stop = self.lanes, [], end
        apart = apart or self.spec.adds
        if not self.masks:
            stop = select((end - start).ge(lanes), end, start)  # fewer columns than lanes: one by one, below
            if apart:
                stop = start + ((end - start) & -lanes)

        def slots(count: int) -> Callable[[Value], Sequence[_Slot]]:
            def cut(j: Value) -> Sequence[_Slot]:
                if self.masks:
                    left = self.smaller(end - j, self.i64(count * lanes))
                    return [_Slot(v * lanes, lanes, self.below(left - v * lanes, lanes)) for v in range(count)]
                last = stop - lanes - j
                return [_Slot(self.smaller(last, self.i64(v * lanes)), lanes) for v in range(count)]
            return cut

        while widest and apart and not self.masks:
            # whole tiles only, ever narrower ones
            span = lanes * widest
            rounds = (stop - start).udiv(span) * span
            side_by_side = [_Slot(v * lanes, lanes) for v in range(widest)]
            groups.append(_Group(start, start + rounds, span, widest, functools.partial(_same, side_by_side)))
            start, widest = start + rounds, widest // 2
        while widest:
            narrow = 1 if widest <= 4 else widest // 2
            # narrower tiles do for what they do as fast: one vector by up to 14 rows is nearly as fast as any other form
            left = 0 if widest == 1 else lanes * (widest - 1 if narrow == 1 else narrow)
            limit = stop - left
            groups.append(_Group(start, limit, lanes * widest, widest, slots(widest)))
            # where the loop ends: start if it never ran, else rounded up
            rounds = (self.f.intrinsic("smax", limit - start, self.i64(0)) + (lanes * widest - 1)).udiv(lanes * widest)
            start = start + rounds * (lanes * widest)
            widest = narrow if widest > 1 else 0
        if not self.masks:
            groups.append(_Group(stop if apart else start, end, 1, 1, lambda j: [_Slot(0, 1)]))
        return groups

    def rows(self, group: _Group) -> None:
        """All rows of C for the columns of a group."""
        f, lo, hi = self.f, self.lo, self.hi
        small, big = self.heights(group.count)[0], self.heights(group.count)[-1]
        count = hi - lo
        middle = lo
        if big > small:  # as many tiles as of the bigger alone, and as few of the bigger as these need
            tiles = (count + (big - 1)).udiv(big)
            middle = lo + f.intrinsic("smax", count - tiles * small, self.i64(0)) * big
        enough = count.ge(small)
        stop, single = select(enough, hi, lo), select(enough, hi, lo)
        with f.loop(group.start, group.stop, self.i64(group.step), "columns") as columns:
            j = columns.index
            slots = group.slots(j)
            if big > small:
                with f.loop(lo, middle, self.i64(big), "rows") as rows:
                    self.tile(rows.index, big, j, slots)
            if self.spec.adds:  # no tile over another
                rest = self.i64(0) if small == 1 else (hi - middle).maximum(0).urem(small)
                stop = single = (hi - rest).maximum(lo)
            with f.loop(middle, stop, self.i64(small), "rows") as rows:
                self.tile(rows.index if self.spec.adds else self.smaller(rows.index, hi - small), small, j, slots)
            if small > 1:
                with f.loop(single, hi, self.i64(1), "single") as rows:
                    self.tile(rows.index, 1, j, slots)

    def single(self) -> None:
        """One row of C, in wider tiles than those for many rows."""
        for group in self.groups(self.i64(0), self.n, 4):
            with self.f.loop(group.start, group.stop, self.i64(group.step), "columns") as columns:
                self.tile(self.lo, 1, columns.index, group.slots(columns.index))

    # -- a tile -----------------------------------------------------------------------------------

    def tile(self, i: Value, rows: int, j: Value, slots: Sequence[_Slot]) -> None:
        """Rows i, i+1 ... of C and the columns of the slots, counted from j."""
        if isinstance(self.a_row, int):
            base, r_step = self.at(self.a, self.mul(i, self.a_row)), self.a_row
            a = [(base, r * r_step) for r in range(rows)]
        else:
            a = [(self.at(self.a, self.mul(i + r, self.a_row)), 0) for r in range(rows)]
        wide, kind = self.spec.wide, self.result
        lines = [self.at(self.at(self.c, self.mul(i + r, self.c_row), kind), j, kind) for r in range(rows)]
        begun = None
        if self.spec.adds:
            begun = [[self.load(self.at(line, slot.column, kind), slot.lanes, slot.mask, kind) for slot in slots] for line in lines]
            begun = begun if wide else [[self.numbers.widen(x) for x in line] for line in begun]
        totals = self.sums(a, self.a_col, self.at(self.b, j), self.b_row, slots, begun)
        for line, found in zip(lines, totals, strict=True):
            for slot, total in zip(slots, found, strict=True):
                self.store(total if wide else self.numbers.narrow(total), self.at(line, slot.column, kind), slot.mask)

    def sums(self, a: Sequence[tuple[str, int]], a_step: Int, b: str, b_step: Int, slots: Sequence[_Slot],
             begun: list[list[Value]] | None = None) -> list[list[Value]]:
        """Over p < k: (A's element at each (pointer, offset) + p * a_step) times (B's vectors at b + p * b_step), and what was there before."""
        f, numbers = self.f, self.numbers
        zeros = begun or [[numbers.zero(f, slot.lanes) for slot in slots] for _ in a]
        with f.loop(self.i64(0), self.i64(self.k), self.i64(1), "k") as loop:
            totals = [[loop.carry(z) for z in line] for line in zeros]
            a_at = loop.index if a_step == 1 and isinstance(a_step, int) else loop.carry(self.i64(0))
            b_at = loop.carry(self.i64(0))
            line = self.at(b, b_at)
            vectors = [numbers.widen(self.load(self.at(line, slot.column), slot.lanes, slot.mask)) for slot in slots]
            for (pointer, offset), row in zip(a, totals, strict=True):
                x = numbers.widen(self.load(self.at(self.at(pointer, a_at), offset)))
                for slot, vector, total in zip(slots, vectors, row, strict=True):
                    loop.next(total, numbers.madd(f.splat(x, slot.lanes), vector, total))
            if a_at is not loop.index:
                loop.next(a_at, a_at + a_step)
            loop.next(b_at, b_at + b_step)
        return totals

    # -- one column -------------------------------------------------------------------------------

    def columns(self) -> None:
        """``C = A @ b`` where the columns of A are contiguous, and C: rows are what columns are elsewhere."""
        if self.storage == self.work:
            far = self.i64(self.k).ge(STREAMS) & self.i64(self.a_col).ge(FAR_BYTES // (BITS[self.storage] // 8)) & (self.hi - self.lo).ge(4 * self.lanes)
            self.done_when(far, self.streamed)
        for group in self.groups_of_rows():
            with self.f.loop(group.start, group.stop, self.i64(group.step), "columns") as loop:
                slots = group.slots(loop.index)
                totals = self.sums([(self.b, 0)], self.b_row, self.at(self.a, loop.index), self.a_col, slots)
                line = self.at(self.c, loop.index)
                for slot, total in zip(slots, totals[0], strict=True):
                    self.store(self.numbers.narrow(total), self.at(line, slot.column), slot.mask)

    def streamed(self) -> None:
        """The same where the columns of A lie far apart: some of them from one end to the other, sums in C; else each vector would lie in a page of its own."""
        f, numbers, k = self.f, self.numbers, self.i64(self.k)
        lanes, self.lanes = self.lanes, self.target.streaming_bits // BITS[self.work]

        def some(p: Value, count: int, first: bool) -> None:
            xs = [numbers.widen(self.load(self.at(self.b, self.mul(p + q, self.b_row)))) for q in range(count)]
            lines = [self.at(self.a, self.mul(p + q, self.a_col)) for q in range(count)]
            for group in self.open_groups(self.lo, self.hi, 4, apart=True):
                with f.loop(group.start, group.stop, self.i64(group.step), "columns") as loop:
                    here = [self.at(line, loop.index) for line in (self.c, *lines)]
                    for slot in group.slots(loop.index):
                        c, *sources = [self.at(line, slot.column) for line in here]
                        total = numbers.zero(f, slot.lanes) if first else numbers.widen(self.load(c, slot.lanes, slot.mask))
                        for x, source in zip(xs, sources, strict=True):
                            total = numbers.madd(numbers.widen(self.load(source, slot.lanes, slot.mask)), f.splat(x, slot.lanes), total)
                        self.store(numbers.narrow(total), c, slot.mask)

        some(self.i64(0), STREAMS, True)
        whole = k - k.urem(STREAMS)
        for start, stop, count in ((self.i64(STREAMS), whole, STREAMS), (whole, k, 1)):
            with f.loop(start, stop, self.i64(count), "k") as p:
                some(p.index, count, False)
        self.lanes = lanes

    def few_columns(self) -> bool:
        """Do the columns fill vectors so badly that these are better filled with rows, which A has side by side?"""
        spec = self.spec
        return (self.masks and self.storage == self.work and self.storage in ("f32", "f64") and spec.a_unit == "row" and spec.n is not None
                and 1 < spec.n <= 3 * self.lanes and 4 * spec.n <= 3 * -(-spec.n // self.lanes) * self.lanes and (spec.m is None or spec.m >= 4 * self.lanes))

    def upright(self) -> None:
        """Tiles of vectors of rows by some columns; each vector is scattered into C, which takes an element from each row."""
        f, n = self.f, self.spec.n
        assert n is not None
        parts = -(-n // 6)
        starts = [n * part // parts for part in range(parts + 1)]
        far = f.vector(range(self.lanes), "i64") * f.splat(self.i64(self.c_row), self.lanes)
        name = f"llvm.masked.scatter.{suffix(self.storage, self.lanes)}.v{self.lanes}p0"
        for group in self.open_groups(self.lo, self.hi, 4):
            with f.loop(group.start, group.stop, self.i64(group.step), "rows") as loop:
                slots = group.slots(loop.index)
                for first, last in pairwise(starts):
                    columns = [(self.at(self.b, j), 0) for j in range(first, last)]
                    totals = self.sums(columns, self.b_row, self.at(self.a, loop.index), self.a_col, slots)
                    for j, line in zip(range(first, last), totals, strict=True):
                        for slot, total in zip(slots, line, strict=True):
                            base = self.at(self.at(self.c, self.mul(self.add(loop.index, slot.column), self.c_row)), j)
                            places = f.op(f"getelementptr {LLVM[self.storage]}, ptr {base}, {far.type} {far.ref}")
                            mask = slot.mask if slot.mask is not None else f.splat(f.const(1, "i1"), self.lanes)
                            f.module.declare(name, f"void ({total.type}, <{self.lanes} x ptr>, {mask.type})")
                            f.line(f"call void @{name}({total.type} {total.ref}, <{self.lanes} x ptr> align {BITS[self.storage] // 8} {places}, {mask.type} {mask.ref})")

    def groups_of_rows(self) -> list[_Group]:
        return self.open_groups(self.lo, self.hi, 8)

    def dots(self) -> None:
        """``C = A @ b`` where the rows of A are contiguous, and b: four rows at a time."""
        f = self.f
        with f.loop(self.lo, self.hi, self.i64(4), "rows") as loop:
            rows = [self.smaller(loop.index + r, self.hi - 1) for r in range(4)]  # at the end the last one again
            for row, total in zip(rows, self.dot([self.at(self.a, self.mul(row, self.a_row)) for row in rows]), strict=True):
                self.store(self.numbers.narrow(total), self.at(self.c, self.mul(row, self.c_row)))

    def dot(self, lines: Sequence[str]) -> list[Value]:
        """The dot product of each line with b: 4 (2) vectors of sums, which are added in a tree; what is left of k goes into the first."""
        f, numbers = self.f, self.numbers
        count = 4 if self.registers == 32 else 2

        def over(totals: list[list[Value]], start: Value, stop: Value, lanes: int, masked: bool = False) -> list[list[Value]]:
            """Adds to each line's vectors what is in p = start ... stop-1."""
            width = len(totals[0])
            with f.loop(start, stop, self.i64(width * max(lanes, 1)), "k") as k:
                carried = [[k.carry(x) for x in row] for row in totals]
                mask = self.below(self.smaller(stop - k.index, self.i64(lanes)), lanes) if masked else None
                at = self.at(self.b, k.index)
                vectors = [numbers.widen(self.load(self.at(at, v * lanes), lanes, mask)) for v in range(width)]
                for line, row in zip(lines, carried, strict=True):
                    at = self.at(line, k.index)
                    for v, total in enumerate(row):
                        k.next(total, numbers.madd(numbers.widen(self.load(self.at(at, v * lanes), lanes, mask)), vectors[v], total))
            return carried

        wide, step = self.lanes * count, self.lanes
        rest = self.k % wide if isinstance(self.k, int) else self.k.urem(wide)
        whole = self.add(self.k, self.mul(-1, rest))
        totals = over([[numbers.zero(f, self.lanes)] * count for _ in lines], self.i64(0), self.i64(whole), self.lanes)
        end = self.k
        if not self.masks:
            end = self.add(self.k, self.mul(-1, self.k % step if isinstance(self.k, int) else self.k.urem(step)))
        if not isinstance(end, int) or end != whole:
            first = over([row[:1] for row in totals], self.i64(whole), self.i64(end), self.lanes, self.masks)
            totals = [[*one, *row[1:]] for one, row in zip(first, totals, strict=True)]
        sums = []
        for row in totals:
            while len(row) > 1:
                row = [numbers.add(x, y) for x, y in zip(row[::2], row[1::2], strict=True)]
            sums.append(numbers.across(row[0]))
        if (isinstance(end, int) and end == self.k) or end is self.k:
            return sums
        return [row[0] for row in over([[x] for x in sums], self.i64(end), self.i64(self.k), 0)]

    # -- B as rows --------------------------------------------------------------------------------

    def pack(self) -> None:
        """The second function: B as a dense matrix of k rows."""
        spec = self.spec
        parameters = [("ptr noalias writeonly", "out"), ("ptr readonly", "b"), *[("i64", n) for n in ("n", "k", "b_row", "b_col")]]
        self.f = f = Body(self.module, "NAME_pack", parameters)
        self.storage = f"i{BITS[self.storage]}"  # bits are moved, whatever they mean
        n, k, b_row, b_col = (f.value("%" + name, "i64") for name in ("n", "k", "b_row", "b_col"))
        self.n, self.k = n if spec.n is None else spec.n, k if spec.k is None else spec.k
        self.b_row = b_row
        self.b_col = b_col if spec.b_step is None or spec.b_unit != "row" else spec.b_step
        wide = min(16, self.target.bits // BITS[self.storage])
        for size in dict.fromkeys((wide, min(4, wide))):
            if all(isinstance(x, Value) or x >= size for x in (self.n, self.k)) and size > 1:
                fits = self.i64(self.n).ge(size) & self.i64(self.k).ge(size)
                if spec.b_unit is None:
                    fits = fits & b_row.eq(1)
                self.done_when(fits, lambda size=size: self.turn(size))  # type: ignore[misc]
        with f.loop(self.i64(0), self.i64(self.k), self.i64(1), "rows") as rows:
            source, out = self.at("%b", rows.index * self.b_row), self.at("%out", self.mul(rows.index, self.n))
            with f.loop(self.i64(0), self.i64(self.n), self.i64(1), "columns") as columns:
                self.store(self.load(self.at(source, self.mul(columns.index, self.b_col))), self.at(out, columns.index))
        f.finish()

    def turn(self, size: int) -> None:
        """B, whose columns are contiguous, in blocks of size x size; the last ones overlap those before."""
        f, step = self.f, self.i64(size)
        with f.loop(self.i64(0), self.i64(self.k), step, "rows") as rows:
            p = self.smaller(rows.index, self.i64(self.k) - size)
            with f.loop(self.i64(0), self.i64(self.n), step, "columns") as columns:
                j = self.smaller(columns.index, self.i64(self.n) - size)
                block = [self.load(self.at(self.at("%b", self.mul(j + c, self.b_col)), p), size) for c in range(size)]
                for r, line in enumerate(_transpose(block, 128 // BITS[self.storage])):
                    self.store(line, self.at(self.at("%out", self.mul(p + r, self.n)), j))


def _same(slots: Sequence[_Slot], j: Value) -> Sequence[_Slot]:
    return slots


def _known(row: Value, col: Value, unit: str | None, step: int | None) -> tuple[Int, Int]:
    """A matrix's two strides: numbers where they are known."""
    if unit is None:
        return row, col
    other: Int = step if step is not None else col if unit == "row" else row
    return (1, other) if unit == "row" else (other, 1)


def _transpose(block: Sequence[Value], group: int) -> list[Value]:
    """A square block of vectors turned over; ``group`` elements make 128 bits, within which shuffles are cheap."""
    size = len(block)
    group = min(group, size)
    out = list(block)
    # within 128 bits: interleaving the first half of the vectors with the second, log2(group) times over, transposes them
    distance = 1
    while distance < group:
        halves = [[q + t // 2 + h * group // 2 + t % 2 * size for q in range(0, size, group) for t in range(group)] for h in (0, 1)]
        after = []
        for g in range(0, size, group):
            for i in range(g, g + group // 2):
                after += [shuffle(out[i], out[i + group // 2], mask) for mask in halves]
        out, distance = after, 2 * distance
    # then pieces of 128, 256 bits change places between vectors
    while distance < size:
        low = [lane if not lane & distance else lane - distance + size for lane in range(size)]
        high = [lane + distance if not lane & distance else lane + size for lane in range(size)]
        for i in range(size):
            if not i & distance:
                out[i], out[i + distance] = shuffle(out[i], out[i + distance], low), shuffle(out[i], out[i + distance], high)
        distance *= 2
    return out
