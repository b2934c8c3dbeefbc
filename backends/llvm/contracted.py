"""Contractions: products of arrays whose rows, columns and sums run over several axes, through the tiles of blocked.py.

    c[l, i, j] = sum over p of a[l, i, p] * b[l, p, j]        l, i, p, j: several axes each, C's columns dense

    void FILL(ptr table, i64 s0, i64 s1, i64 s2, i64 s3, i64 t0, i64 t1, i64 t2, i64 t3)
    void RUNS(ptr runs, ptr table, i64 count, i64 apart)
    void NAME(ptr context, i64 chunk)

An element's place is a sum of what its row says and what its column says, so two tables of offsets say where each
operand's elements lie, whatever its axes are: overlapping windows of an image are a matrix that is never in memory.
``FILL`` writes the table of a group of up to four axes (sizes s, strides t).  Packing reads whole vectors where offsets are 1 or 2
``apart``: ``RUNS`` says for each vector of a table where its first stretch begins, where its last one would if it had all lanes, and after how many
lanes it comes (SLOTS numbers; -1 lanes if there are more than two stretches).
Where A's rows are dense, ``a_place`` apart, tiles read them as they lie; it is 0 where they are packed.

``CONTEXT`` names the slots of the context.  A unit is some columns of one l; ``counters``, the last slots, are one for each chunk: how many of its units are taken.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from graphc.backends.llvm import memory
from graphc.backends.llvm.blocked import AHEAD, HEIGHTS, BlockWriter
from graphc.backends.llvm.transposing import transposed
from graphc.backends.llvm.values import Value, select, shuffle

if TYPE_CHECKING:
    from graphc.backends.llvm.target import Target

__all__ = ["CONTEXT", "SLOTS", "ContractionWriter", "contracted_module", "fill_module", "group_size", "runs_module"]

#: the slots of the context: addresses (of tables, too), then numbers
CONTEXT = ("c", "a", "b", "lead_c", "lead_a", "lead_b", "a_rows", "a_sums", "a_runs", "b_sums", "b_columns", "b_runs", "scratch",
           "m", "n", "k", "c_row", "a_turned", "b_turned", "a_apart", "b_apart", "a_place", "nbytes", "columns", "each", "units", "chunks", "counters")
POINTERS = 13
#: numbers for each vector of a table
SLOTS = 3


def group_size(lanes: int) -> int:
    """Elements of a vector as it is packed."""
    return min(lanes, 16)


def contracted_module(kind: str, target: Target) -> tuple[str, str]:
    """(NAME, the text of a module) for numbers of this kind (products.Product.kind)."""
    return target.named("contracted", ContractionWriter(kind, target).write())


def fill_module(target: Target) -> tuple[str, str]:
    """(FILL, the text of its module)."""
    writer = ContractionWriter("f32", target)
    writer.fill()
    return target.named("fill", writer.module.text())


def runs_module(kind: str, target: Target) -> tuple[str, str]:
    """(RUNS, the text of its module) for vectors of this kind."""
    writer = ContractionWriter(kind, target)
    writer.runs()
    return target.named("runs", writer.module.text())


class _Run(NamedTuple):
    """A vector in two stretches: where they begin, whether there are no more, the lanes of the first; the elements of both, vector by vector, as masks."""

    first: Value
    last: Value
    simple: Value
    early: Value
    masks: list[tuple[Value, Value]]


class ContractionWriter(BlockWriter):
    """Writes the functions; tiles are those of its base."""

    def __init__(self, kind: str, target: Target) -> None:
        super().__init__(kind, target)
        self.w = group_size(self.shape.lanes)

    def write(self) -> str:
        self.gather()
        self.tiles_of()
        self.edge()
        self.contraction()
        return self.module.text()

    # -- tables -----------------------------------------------------------------------------------

    def number(self, table: str, index: Value) -> Value:
        return self.f.value(self.f.op(f"load i64, ptr {self.at(table, index, 'i64')}"), "i64")

    def put(self, table: str, index: Value, number: Value) -> None:
        self.f.line(f"store i64 {number.ref}, ptr {self.at(table, index, 'i64')}")

    def fill(self) -> None:
        s0, s1, s2, s3, t0, t1, t2, t3 = self.begin("NAME", "p:table s0 s1 s2 s3 t0 t1 t2 t3", internal=False)
        f, zero, one = self.f, self.i64(0), self.i64(1)
        with f.loop(zero, s0, one, "i0") as i0, f.loop(zero, s1, one, "i1") as i1, f.loop(zero, s2, one, "i2") as i2:
            base = i0.index * t0 + i1.index * t1 + i2.index * t2
            at = ((i0.index * s1 + i1.index) * s2 + i2.index) * s3
            with f.loop(zero, s3, one, "i3") as i3:
                self.put("%table", at + i3.index, base + i3.index * t3)
        f.finish()

    def runs(self) -> None:
        count, apart = self.begin("NAME", "p:runs p:table count apart", internal=False)
        f, w, one = self.f, self.w, self.i64(1)
        with f.loop(self.i64(0), count, self.i64(w), "group") as group:
            there = (count - group.index).minimum(w)
            first = self.number("%table", group.index)
            last = self.number("%table", group.index + there - 1) - (there - 1) * apart
            with f.loop(self.i64(0), there, one, "lane") as lane:  # lanes of the first stretch, then those that are in none
                cut, odd = lane.carry(self.i64(0)), lane.carry(self.i64(0))
                place = self.number("%table", group.index + lane.index) - lane.index * apart
                goes_on = place.eq(first) & cut.eq(lane.index)
                lane.next(cut, select(goes_on, cut + 1, cut))
                lane.next(odd, select(goes_on | place.eq(last), odd, odd + 1))
            at = group.index.udiv(w) * SLOTS
            for slot, x in enumerate((first, last, select(odd.eq(0), cut, cut.like(-1)))):
                self.put("%runs", at + slot, x)
        f.finish()

    # -- packing ----------------------------------------------------------------------------------

    def gather(self) -> None:
        """``out[p * step + r] = source[across[r] + along[p]]`` for r < count and p < deep, and anything up to the next whole vector.

        ``runs`` are those of ``across``, or if ``turned`` those of ``along``; their offsets are 1 or 2 ``apart``.
        """
        count, deep, step, turned, apart = self.begin("NAME_gather", "p:out p:source p:runs p:across p:along count deep step turned apart")
        f, zero = self.f, self.i64(0)

        def of(which: int) -> None:
            f.either(turned.ne(0), "gather", partial(self.turned, count, deep, step, which), partial(self.straight, count, deep, step, which))

        if self.masks:
            f.either(apart.eq(1), "apart", partial(of, 1), partial(of, 2))
        else:
            self.one_by_one(zero, count, zero, deep, step)
        f.finish()

    def one_by_one(self, r_from: Value, r_to: Value, p_from: Value, p_to: Value, step: Value) -> None:
        f, one = self.f, self.i64(1)
        with f.loop(p_from, p_to, one, "p") as p:
            along, out = self.number("%along", p.index), self.at("%out", p.index * step, self.work)
            with f.loop(r_from, r_to, one, "r") as r:
                x = self.stored(self.at("%source", along + self.number("%across", r.index), self.storage))
                memory.store(self.at(out, r.index, self.work), x)

    def run(self, group: Value, there: Value, apart: int) -> _Run:
        """The stretches of a vector."""
        f, at, w = self.f, group * SLOTS, self.w
        first, last, cut = (self.number("%runs", at + slot) for slot in range(SLOTS))
        lanes = f.vector(range(w), "i32")
        early = lanes.lt(f.splat(cut.to("i32"), w))
        begins, ends = (f.splat((x * apart).to("i32"), w) for x in (cut, there))
        masks = []
        for part in range(apart):  # of the elements from the first lane's to the last one's: none behind them, which need not be there
            element, more = f.vector(range(part * w, part * w + w), "i32"), f.splat(f.const(apart - 1, "i32"), w)
            masks.append(((element + more).lt(begins), ~element.lt(begins) & (element + more).lt(ends)))
        return _Run(first, last, cut.ge(0), early, masks)

    def both(self, source: str, run: _Run) -> Value:
        """A vector of two stretches."""
        f, w = self.f, self.w
        shape = Value(f, "", self.storage, w)
        found = []
        for which, start in enumerate((run.first, run.last)):
            parts = [memory.load(self.at(source, start + part * w, self.storage), shape, masks[which]) for part, masks in enumerate(run.masks)]
            found.append(parts[0] if len(parts) == 1 else shuffle(parts[0], parts[1], range(0, 2 * w, 2)))
        return self.numbers.widen(select(run.early, *found))

    def straight(self, count: Value, deep: Value, step: Value, apart: int) -> None:
        f, w, zero, one = self.f, self.w, self.i64(0), self.i64(1)
        with f.loop(zero, count, self.i64(w), "group") as r:
            there = (count - r.index).minimum(w)
            run = self.run(r.index.udiv(w), there, apart)

            def whole() -> None:
                with f.loop(zero, deep, one, "p") as p:
                    later = self.at("%source", self.number("%along", p.index + AHEAD) + run.first, self.storage)  # the table goes on, into others
                    self.fetch(later, 0)
                    source = self.at("%source", self.number("%along", p.index), self.storage)
                    memory.store(self.at("%out", p.index * step + r.index, self.work), self.both(source, run))

            f.either(run.simple, "simple", whole, lambda: self.one_by_one(r.index, r.index + there, zero, deep, step))

    def turned(self, count: Value, deep: Value, step: Value, apart: int) -> None:
        f, w, zero = self.f, self.w, self.i64(0)
        with f.loop(zero, deep, self.i64(w), "group") as p:
            there = (deep - p.index).minimum(w)
            run = self.run(p.index.udiv(w), there, apart)

            def squares() -> None:
                with f.loop(zero, count, self.i64(w), "square") as r:
                    places = [self.number("%across", (r.index + n).minimum(count - 1)) for n in range(w)]
                    rows = (self.both(self.at("%source", place, self.storage), run) for place in places)
                    for n, x in enumerate(transposed(rows)):
                        memory.store(self.at("%out", (p.index + n) * step + r.index, self.work), x)

            f.either(run.simple, "simple", squares, lambda: self.one_by_one(zero, count, p.index, p.index + there, step))

    def call_gather(self, out: str, source: str, tables: tuple[str, str, str], *numbers: Value | int) -> None:
        pointers = ", ".join(f"ptr {p}" for p in (out, source, *tables))
        args = ", ".join(f"i64 {x.ref if isinstance(x, Value) else x}" for x in numbers)
        self.f.line(f"call void @NAME_gather({pointers}, {args})")

    # -- the contraction --------------------------------------------------------------------------

    def contraction(self) -> None:
        chunk, = self.begin("NAME", "p:context chunk", internal=False)
        f = self.f
        for slot, word in enumerate(CONTEXT):
            kind = "ptr" if slot < POINTERS else "i64"
            f.line(f"%{word}.p = getelementptr i64, ptr %context, i64 {slot}")
            f.line(f"%{word} = load {kind}, ptr %{word}.p")
        n, columns, each, units, chunks, nbytes = (f.value("%" + word, "i64") for word in ("n", "columns", "each", "units", "chunks", "nbytes"))
        mine = f.op(f"getelementptr i8, ptr %scratch, i64 {(chunk * nbytes).ref}")
        with f.taking("%counters.p", chunk, chunks, units) as unit:
            lead, part = unit.udiv(each), unit.urem(each)
            c, a, b = (self.at(f"%{word}", self.number(f"%lead_{word}", lead), self.storage) for word in "cab")
            self.part(c, a, b, part, columns, n, mine)
        f.finish()

    def part(self, c: str, a: str, b: str, part: Value, columns: Value, n: Value, scratch: str) -> None:
        """One of the parts of a product: some columns."""
        start = part * columns
        self.unit(c, a, b, start, (start + columns).minimum(n), scratch)

    def unit(self, c: str, a: str, b: str, start: Value, stop: Value, scratch: str) -> None:
        """Columns start ... stop-1 of one product."""
        f = self.f
        m, k, c_row, a_turned, b_turned, a_apart, b_apart, a_place = (
            f.value("%" + word, "i64") for word in ("m", "k", "c_row", "a_turned", "b_turned", "a_apart", "b_apart", "a_place"))

        def pack_a(block: str, row: Value, at_k: Value, high: Value, deep: Value) -> tuple[str, Value]:
            """A's rows as they lie, where they may be read so; there must be a tile of them."""
            lie = a_place.ne(0) & high.ge(HEIGHTS[0])

            def gathered() -> None:
                tables = self.tables("%a_runs", select(a_turned.ne(0), row, at_k), "%a_sums", at_k, "%a_rows", row)
                self.call_gather(block, a, tables, deep, high, self.shape.deep, a_turned, a_apart)

            f.either(lie, "lie", lambda: None, gathered)
            place = self.at(a, row * a_place + at_k, self.storage)
            return f.op(f"select i1 {lie.ref}, ptr {place}, ptr {block}"), select(lie, a_place, a_place.like(self.shape.deep))

        def pack_b(panel: str, column: Value, at_k: Value, count: Value, deep: Value) -> None:
            tables = self.tables("%b_runs", select(b_turned.ne(0), at_k, column), "%b_columns", column, "%b_sums", at_k)
            self.call_gather(panel, b, tables, count, deep, self.shape.columns, b_turned, b_apart)

        self.blocks(c, c_row, (self.i64(0), m), (start, stop), k, scratch, pack_a, pack_b)

    def tables(self, runs: str, run: Value, across: str, r: Value, along: str, p: Value) -> tuple[str, str, str]:
        """Tables from certain elements on; runs begin at whole vectors."""
        return self.at(runs, run.udiv(self.w) * SLOTS, "i64"), self.at(across, r, "i64"), self.at(along, p, "i64")
