"""Large matrix products: both operands packed, in blocks that fit the caches.

    void NAME(ptr c, ptr a, ptr b, i64 m, i64 n, i64 k, i64 a_row, i64 a_col, i64 b_row, i64 b_col, i64 c_row, ptr scratch, i64 lo, i64 hi)

computes rows lo ... hi-1 of ``C = A @ B``, with ``Shape.scratch`` elements of scratch memory.  B's part for a block of k and a
block of columns is laid out in panels: the columns of a tile side by side; A's part for a block of k and of rows as dense rows.
Then the tiles run: each stays in registers while k runs through the block.  A panel is read again for each tile of the block of
rows, A's part for each panel: one comes from the first two caches, the other from the second
(K. Goto, R. van de Geijn, Anatomy of high-performance matrix multiplication, 2008).

A tile goes on from what the block of k before has left in C, so every element is summed from the first to the last k: the
same bits as in products.py, whatever the blocks and chunks.  Numbers that are computed with more bits than they are
stored with go on in scratch memory and are rounded once.

There is one module for a kind of numbers and a processor: all sizes and strides are arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from graphc.backends.llvm import memory
from graphc.backends.llvm.product_numbers import Numbers
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transposing import transposed
from graphc.backends.llvm.values import BITS, LLVM, Body, Module, Value, select

__all__ = ["BlockWriter", "Shape", "blocked_module"]

#: bytes of a panel's part of B for one block of k, of A's part for one block of rows, and of B's for one block of columns
PANEL_BYTES, BLOCK_BYTES, SLICE_BYTES = 64 << 10, 256 << 10, 1 << 20
#: rows from what is packed to what is fetched
AHEAD = 8
#: rows of a tile: a block of rows is divided so that as few as can be are computed in vain
HEIGHTS = (3, 4, 5, 6)


#: writes the packing of a part of an operand: where to, its row or column and its k in the operand, how many of the former and of k
Pack = Callable[[str, Value, Value, Value, Value], None]
#: the same for rows of A; where they lie then, and how far apart
Rows = Callable[[str, Value, Value, Value, Value], tuple[str, Value]]


class Shape:
    """The sizes of tiles and blocks for a kind of numbers on a processor.

    ``rows`` and ``columns`` of a tile; ``deep``, ``high`` and ``wide``: k, rows and columns of a block; ``scratch``: elements of
    scratch memory, of ``bytes`` each.
    """

    def __init__(self, kind: str, target: Target) -> None:
        numbers = Numbers(kind, target)
        self.bytes = BITS[numbers.work] // 8
        self.lanes = target.bits // BITS[numbers.work]
        many = target.has("avx512f") or target.has("neon")  # 32 registers
        self.rows, self.vectors = HEIGHTS[-1], 4 if many else 2
        self.columns = self.vectors * self.lanes
        self.deep = PANEL_BYTES // (self.columns * self.bytes)
        self.high = max(BLOCK_BYTES // (self.deep * self.bytes) // 48, 1) * 48  # whole tiles, and whole vectors
        self.wide = SLICE_BYTES // (self.deep * self.bytes) // self.columns * self.columns
        self.rounded = numbers.storage != numbers.work
        # the last tile may read rows of the block that are not there, and packing goes by whole vectors
        self.block = (self.high + 16) * self.deep
        self.scratch = self.block + (self.wide + self.columns) * self.deep + (self.high * self.wide if self.rounded else 0)


def blocked_module(kind: str, target: Target, wide: bool = False, adds: bool = False) -> tuple[str, str]:
    """(NAME, the text of a module) for numbers of this kind (products.Product.kind, but bool).  ``wide``, ``adds``: as there."""
    return target.named("blocked", BlockWriter(kind, target, wide, adds).write())


class BlockWriter:
    """Writes the functions."""

    packs_b = True
    steps: tuple[Value, Value]  # of B, in ``product``

    def __init__(self, kind: str, target: Target, wide: bool = False, adds: bool = False) -> None:
        self.target, self.numbers, self.shape, self.adds = target, Numbers(kind, target), Shape(kind, target), adds
        self.shape.rounded = self.shape.rounded and not wide  # C holds what is computed in
        self.storage, self.work = self.numbers.storage, self.numbers.work
        self.module = Module(target)
        self.masks = target.has("avx512bw") or (target.has("avx512f") and BITS[self.storage] >= 32)

    def write(self) -> str:
        self.lay()
        self.tiles_of()
        self.edge()
        self.product()
        return self.module.text()

    # -- small words ------------------------------------------------------------------------------

    def begin(self, name: str, parameters: str, internal: bool = True) -> list[Value]:
        """A function with parameters ``p:name`` (pointers) and ``name`` (i64); the values of the latter."""
        words = parameters.split()
        self.f = Body(self.module, name, [("ptr", w[2:]) if w.startswith("p:") else ("i64", w) for w in words])
        self.f.linkage = "internal " if internal else ""
        return [self.f.value("%" + w, "i64") for w in words if not w.startswith("p:")]

    def i64(self, x: int) -> Value:
        return self.f.const(x, "i64")

    def at(self, pointer: str, offset: Value, kind: str) -> str:
        return self.f.op(f"getelementptr {LLVM[kind]}, ptr {pointer}, i64 {offset.ref}")

    def stored(self, pointer: str, lanes: int = 0, mask: Value | None = None) -> Value:
        """Elements of an operand, as they are computed with."""
        return self.numbers.widen(memory.load(pointer, Value(self.f, "", self.storage, lanes), mask))

    def below(self, count: Value, lanes: int) -> Value:
        return self.f.vector(range(lanes), "i32").lt(self.f.splat(count.to("i32"), lanes))

    # -- packing ----------------------------------------------------------------------------------

    def lay(self) -> None:
        """``out[p * step + r] = source[r * across + p * along]`` for r < count and p < deep; 0 for r from count to width."""
        count, across, along, deep, step, width = self.begin("NAME_lay", "p:out p:source count across along deep step width")
        f, w, zero, one = self.f, min(self.shape.lanes, 16), self.i64(0), self.i64(1)

        def moved(p: Value, r: Value, lanes: int = 0, mask: Value | None = None) -> None:
            x = self.stored(self.at("%source", r * across + p * along, self.storage), lanes, mask)
            memory.store(self.at("%out", p * step + r, self.work), x, mask)

        def side_by_side() -> None:
            """Whole vectors are moved; rows that come later are fetched, since the processor does not guess them."""
            whole = count & -w
            with f.loop(zero, deep, one, "p") as p:
                with f.loop(zero, whole, self.i64(w), "r") as r:
                    self.fetch(self.at("%source", (p.index + AHEAD) * along + r.index, self.storage), 0)
                    moved(p.index, r.index, w)
                if self.masks:
                    with f.when(whole.lt(count), "rest"):
                        moved(p.index, whole, w, self.below(count - whole, w))
                else:
                    with f.loop(whole, count, one, "rest") as r:
                        moved(p.index, r.index)

        def turned() -> None:
            """Squares of w x w, turned in registers; the last ones overlap those before."""
            with f.loop(zero, count, self.i64(w), "r") as rows:
                first = rows.index.minimum(count - w)
                with f.loop(zero, deep, self.i64(w), "p") as p:
                    start = p.index.minimum(deep - w)
                    lines = [self.at("%source", (first + n) * across + start, self.storage) for n in range(w)]
                    for line in lines:
                        self.fetch(self.at(line, self.i64(AHEAD * 16), self.storage), 0)
                    for n, x in enumerate(transposed(self.stored(line, w) for line in lines)):
                        memory.store(self.at("%out", (start + n) * step + first, self.work), x)

        def one_by_one() -> None:
            with f.loop(zero, deep, one, "p") as p, f.loop(zero, count, one, "r") as r:
                moved(p.index, r.index)

        square = along.eq(1) & count.ge(w) & deep.ge(w)
        f.either(across.eq(1), "lie", side_by_side, lambda: f.either(square, "turn", turned, one_by_one))
        with f.loop(count, width, one, "none") as r, f.loop(zero, deep, one, "p") as p:
            memory.store(self.at("%out", p.index * step + r.index, self.work), self.numbers.zero(f, 0))
        f.finish()

    def fetch(self, pointer: str, write: int) -> None:
        self.f.module.declare("llvm.prefetch.p0", "void (ptr, i32, i32, i32)")
        self.f.line(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 {write}, i32 3, i32 1)")

    def call_lay(self, out: str, source: str, *numbers: Value | int) -> None:
        args = ", ".join(f"i64 {x.ref if isinstance(x, Value) else x}" for x in numbers)
        self.f.line(f"call void @NAME_lay(ptr {out}, ptr {source}, {args})")

    # -- a tile -----------------------------------------------------------------------------------

    def tiles_of(self, name: str = "NAME_tile") -> None:
        """The tiles of all heights and of one vector to all of a panel, and the table of them."""
        names = []
        for height in HEIGHTS:
            for vectors in range(1, self.shape.vectors + 1):
                names.append(f"{name}_{height}x{vectors}")
                self.tile(name, names[-1], height, vectors)
        pointers = ", ".join(f"ptr @{n}" for n in names)
        self.module.globals[f"{name}s"] = f"@{name}s = internal constant [{len(names)} x ptr] [{pointers}]"

    def tile(self, name: str, full_name: str, height: int, width: int) -> None:
        """A tile: ``c[r, :] = (c[r, :] unless first) + sum over p < deep of a[r, p] * b[p, :]``, in registers."""
        a_row, c_row, deep, first = self.begin(full_name, "p:c p:a p:b a_row c_row deep first")
        f, numbers, shape, w = self.f, self.numbers, self.shape, self.shape.lanes
        vector, one = Value(f, "", self.work, w), Value(f, "", self.work)
        lines, sources = ["%c"], self.sources(height, a_row)
        for _ in range(height - 1):
            lines.append(self.at(lines[-1], c_row, self.work))
        places = [[self.at(line, self.i64(v * w), self.work) for v in range(width)] for line in lines]
        before = f.block
        go_on, start = f.labels("tile", "go_on", "start")
        f.line(f"br i1 {first.ne(0).ref}, label %{start}, label %{go_on}")
        f.label(go_on)
        old = [[memory.load(p, vector) for p in line] for line in places]
        f.line(f"br label %{start}")
        f.label(start)
        nothing = numbers.zero(f, w)
        begun = [[f.phi(x, (nothing, before), (x, go_on)) for x in line] for line in old]
        line = lines[-1]
        for _ in range(height):  # the tile below: on its way while this one computes
            line = self.at(line, c_row, self.work)
            for v in range(0, width * w, 64 // shape.bytes):
                self.fetch(self.at(line, self.i64(v), self.work), 1)
        with f.loop(self.i64(0), deep, self.i64(1), "p") as p:
            totals = [[p.carry(x) for x in line] for line in begun]
            b = self.at("%b", p.index * shape.columns, self.work)
            vectors = [memory.load(self.at(b, self.i64(v * w), self.work), vector) for v in range(width)]
            along = self.along(p.index)
            for source, row in zip(sources, totals, strict=True):
                x = f.splat(memory.load(self.at(source, along, self.work), one), w)
                for total, y in zip(row, vectors, strict=True):
                    p.next(total, self.madd(x, y, total, name))
        for row, places_of in zip(totals, places, strict=True):
            for x, place in zip(row, places_of, strict=True):
                memory.store(place, x)
        f.finish()

    def sources(self, height: int, a_row: Value) -> list[str]:
        """Where a tile's rows of A begin."""
        found = ["%a"]
        for _ in range(height - 1):
            found.append(self.at(found[-1], a_row, self.work))
        return found

    def along(self, p: Value) -> Value:
        """How far behind that their elements are."""
        return p

    def madd(self, x: Value, y: Value, total: Value, name: str) -> Value:
        """What a tile of this name does with two packed elements."""
        return self.numbers.madd(x, y, total)

    def edge(self) -> None:
        """A tile of which only some rows and columns are part of C: on the stack, with A's last row again and again."""
        a_row, c_row, deep, first, rows, columns = self.begin("NAME_edge", "p:c p:a p:b a_row c_row deep first rows columns p:tile")
        f, shape, w, one = self.f, self.shape, self.shape.lanes, self.i64(1)
        f.line(f"%buffer = alloca [{shape.rows * shape.columns} x {LLVM[self.work]}], align 64")

        def moved(out: bool) -> None:
            with f.loop(self.i64(0), rows, one, "row") as r:
                line, kept = self.at("%c", r.index * c_row, self.work), self.at("%buffer", r.index * shape.columns, self.work)
                a, b = (kept, line) if out else (line, kept)
                if self.masks and BITS[self.work] >= 32:
                    for v in range(shape.vectors):
                        mask, at = self.below(columns - v * w, w), self.i64(v * w)
                        x = memory.load(self.at(a, at, self.work), Value(f, "", self.work, w), mask)
                        memory.store(self.at(b, at, self.work), x, mask)
                    return
                with f.loop(self.i64(0), columns, one, "column") as c:
                    memory.store(self.at(b, c.index, self.work), memory.load(self.at(a, c.index, self.work), Value(f, "", self.work)))

        with f.when(first.eq(0), "go_on"):
            moved(False)
        numbers = ", ".join(f"i64 {x.ref}" for x in (a_row, self.i64(shape.columns), deep, first))
        f.line(f"call void %tile(ptr %buffer, ptr %a, ptr %b, {numbers})")
        moved(True)
        f.finish()

    # -- the product ------------------------------------------------------------------------------

    def product(self) -> None:
        _, n, k, a_row, a_col, b_row, b_col, c_row, lo, hi = self.begin(
            "NAME", "p:c p:a p:b m n k a_row a_col b_row b_col c_row p:scratch lo hi", internal=False)
        def pack_a(block: str, row: Value, at_k: Value, high: Value, deep: Value) -> tuple[str, Value]:
            source = self.at("%a", row * a_row + at_k * a_col, self.storage)
            self.call_lay(block, source, deep, a_col, a_row, high, self.shape.deep, deep)
            return block, self.i64(self.shape.deep)

        def pack_b(panel: str, column: Value, at_k: Value, count: Value, deep: Value) -> None:
            source = self.at("%b", column * b_col + at_k * b_row, self.storage)
            self.call_lay(panel, source, count, b_col, b_row, deep, self.shape.columns, self.shape.columns)

        self.steps = b_row, b_col
        self.blocks("%c", c_row, (lo, hi), (self.i64(0), n), k, "%scratch", pack_a, pack_b if self.packs_b else None)
        self.f.finish()

    def blocks(self, c: str, c_row: Value, rows: tuple[Value, Value], columns: tuple[Value, Value], k: Value, scratch: str, pack_a: Rows, pack_b: Pack | None) -> None:
        """These rows and columns of C.  With the first block of rows each panel is packed just before it is used."""
        f, shape = self.f, self.shape
        panels = self.at(scratch, self.i64(shape.block), self.work)
        rounded = self.at(panels, self.i64((shape.wide + shape.columns) * shape.deep), self.work)
        (lo, hi), (start, stop), step_k = rows, columns, self.even(k)
        span = self.i64(shape.high) if shape.rounded else (hi - lo).maximum(1)
        with f.loop(lo, hi, span, "span") as at:
            end = (at.index + span).minimum(hi)
            with f.loop(start, stop, self.i64(shape.wide), "wide") as column:
                wide = (stop - column.index).minimum(shape.wide)
                with f.loop(self.i64(0), k.maximum(1), step_k, "deep") as at_k:
                    deep = (k - at_k.index).minimum(step_k)
                    first = self.i64(0) if self.adds else at_k.index.eq(0).to("i64", signed=False)
                    with f.loop(at.index, end, self.i64(shape.high), "high") as row:
                        high = (end - row.index).minimum(shape.high)
                        a = pack_a(scratch, row.index, at_k.index, high, deep)
                        care = self.careful(scratch, high * shape.deep)
                        if shape.rounded:
                            to, step = self.at(rounded, (row.index - at.index) * shape.wide, self.work), self.i64(shape.wide)
                        else:
                            to, step = self.at(c, row.index * c_row + column.index, self.work), c_row
                        with f.loop(self.i64(0), wide, self.i64(shape.columns), "panel") as j:
                            count = (wide - j.index).minimum(shape.columns)
                            panel = self.panel(panels, j.index, deep, column.index + j.index, at_k.index)
                            if pack_b is not None:
                                with f.when(row.index.eq(at.index), "begins"):
                                    pack_b(panel, column.index + j.index, at_k.index, count, deep)
                            corner = self.at(to, j.index, self.work)
                            form = self.form(care, panel, deep * shape.columns, corner, step, select(first.ne(0), first.like(0), high), count)
                            self.tiles(corner, step, a, panel, count, high, deep, first, form)
                if shape.rounded:
                    self.narrowed(rounded, self.at(c, column.index, self.storage), wide, c_row, at.index, end)

    def panel(self, panels: str, j: Value, deep: Value, column: Value, at_k: Value) -> str:
        """Where a panel is: the ``j``-th columns of its slice, or ``column`` of B."""
        return self.at(panels, j * deep, self.work)

    def careful(self, packed: str, count: Value) -> Value | None:
        """Does what is packed need another form of the tile?  None: there is no other."""
        return None

    def form(self, care: Value | None, panel: str, count: Value, c: str, c_row: Value, rows: Value, columns: Value) -> str:
        """The table of tiles, for a block of rows and a panel, which go on from what so many rows and columns of C hold."""
        return "@NAME_tiles"

    def tiles(self, c: str, c_row: Value, rows_of: tuple[str, Value], panel: str, columns: Value, high: Value, deep: Value, first: Value, form: str) -> None:
        """A block of rows times a panel, in tiles of two neighbouring heights.  ``rows_of``: where A's rows lie, and how far apart."""
        f, shape = self.f, self.shape
        least, most, one = HEIGHTS[0], HEIGHTS[-1], self.i64(1)
        count = (high + (most - 1)).udiv(most)
        low, taller = high.udiv(count), high.urem(count)
        vectors = (columns + (shape.lanes - 1)).udiv(shape.lanes)
        full = columns.eq(vectors * shape.lanes)
        with f.loop(self.i64(0), count, one, "tile") as t:
            r = t.index * low + t.index.minimum(taller)
            rows = low + t.index.lt(taller).to("i64", signed=False)
            place = (rows.maximum(least) - least) * shape.vectors + vectors - 1
            where = f.op(f"getelementptr ptr, ptr {form}, i64 {place.ref}")
            tile = f.op(f"load ptr, ptr {where}")
            to, (a, step) = self.at(c, r * c_row, self.work), self.rows_at(rows_of, r)
            args = f"ptr {to}, ptr {a}, ptr {panel}, i64 {step.ref}, i64 {c_row.ref}, i64 {deep.ref}, i64 {first.ref}"
            f.either(full & rows.ge(least), "tile", partial(f.line, f"call void {tile}({args})"),
                     partial(f.line, f"call void @NAME_edge({args}, i64 {rows.ref}, i64 {columns.ref}, ptr {tile})"))

    def rows_at(self, rows_of: tuple[str, Value], r: Value) -> tuple[str, Value]:
        """The same for those from the ``r``-th on."""
        block, a_row = rows_of
        return self.at(block, r * a_row, self.work), a_row

    def even(self, k: Value) -> Value:
        """How much of k a block takes: as few blocks as can be, of one size, in whole vectors."""
        blocks = (k + (self.shape.deep - 1)).udiv(self.shape.deep).maximum(1)
        return (((k + blocks - 1).udiv(blocks) + 15) & -16).maximum(16)

    def narrowed(self, source: str, c: str, wide: Value, c_row: Value, lo: Value, hi: Value) -> None:
        """Rows lo ... hi-1 of a block, rounded into C."""
        f, w = self.f, self.shape.lanes
        whole = wide & -w
        with f.loop(lo, hi, self.i64(1), "row") as row:
            line, to = self.at(source, (row.index - lo) * self.shape.wide, self.work), self.at(c, row.index * c_row, self.storage)
            for start, stop, lanes in ((self.i64(0), whole, w), (whole, wide, 0)):
                with f.loop(start, stop, self.i64(max(lanes, 1)), "column") as j:
                    x = memory.load(self.at(line, j.index, self.work), Value(f, "", self.work, lanes))
                    memory.store(self.at(to, j.index, self.storage), self.numbers.narrow(x))
