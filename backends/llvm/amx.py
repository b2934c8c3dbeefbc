"""Large products on tiles (Intel AMX): bfloat16, and float32 as six products of bfloat16 parts.

``tdpbf16ps`` multiplies 16 rows of 32 bfloat16 by 32 rows of 16 and adds the result to 16 x 16 float32.  A product of two numbers
of 8 bits has 16, so it is exact; the instruction sums those of even and of odd k, each from zero, in float32, adds the two sums, and adds that
to what the tile has (Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2, TDPBF16PS).  That is another order than in
the other forms, so the bits are others: only what asks for tiles gets them (``with_tiles``).

float32 (G. Henry, P. Tang, A. Heinecke, Leveraging the bfloat16 artificial intelligence datatype for higher-precision computations, 2019): packing writes
a = a1 + a2 + a3 exactly, 8 bits each, each rounded to nearest: |a2| <= 2**-8 |a|, |a3| <= 2**-17 |a|.  Of the nine products of parts
the three smallest are left out, 2**-24 |a b| together and hardly more; parts that are cut instead would leave out eight times as much, always of one sign.
For a block of k a tile sums the five smaller products, then a1 b1 on top: those are added to small sums, and lose nothing.

The instruction takes subnormal numbers for zero, and parts of inf and nan are no numbers.  For 32 rows of A and a panel of B at a time it is known
what the least and the largest number is that they hold (``LEAST`` and so on below).  Where that says that something could be lost, these rows and
this panel are multiplied as in blocked.py, by its tile.  What is where in such a grid depends on the sizes alone, so threads and chunks
(which begin at multiples of ``Shape.rows`` and ``Shape.columns``) change no bit.

Everything is as in blocked.py otherwise.  ``Target.emulated`` writes what the instructions do in plain code: for tests on other processors.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace

from graphc.backends import Options
from graphc.backends.llvm import memory
from graphc.backends.llvm.blocked import BlockWriter
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Value, fma, select

__all__ = ["LEAST_SIZES", "Shape", "on_tiles", "tiled_module", "with_tiles"]

#: rows of a tile, and its columns as float32; k of one instruction
SIDE, PAIRS, STEP = 16, 16, 32
#: elements of a tile in memory, as 32 bits
TILE = SIDE * PAIRS
#: rows, columns and k of C = A B from which tiles are used: below, they are mostly empty, and the error bound needs the k (docs/amx.md)
LEAST_SIZES = (64, 64, 64)
#: parts of a number
PARTS = {"f32": 3, "bf16": 1}
#: k, rows and columns of a block, and rows that are summed before they are rounded
BLOCKS = {"f32": (256, 128, 512, 0), "bf16": (1024, 64, 512, 512)}
#: the parts' products in an order in which one operand changes at a time; the last one, the largest, has a round of its own
SMALLER, LARGEST = ((2, 0), (1, 0), (1, 1), (0, 1), (0, 2)), (0, 0)
#: exponents as float32 has them, 127 too large.  All numbers but 0 lie between ``LEAST``, for which three parts are normal numbers, and ``MOST``, which can be rounded.
LEAST, MOST = 127 - 100, 253
#: the sum of the least exponents of A and B, from which products of parts and thus all sums are multiples of 2**-126: never subnormal
LEAST_SUM = {"f32": 254 - 80, "bf16": 254 - 112}
#: the sum of the largest: so many products stay below 2**102, which no other sum below the largest float32 can be moved beyond it by
MOST_SUM = 254 + 88
#: what is said of numbers outside of LEAST ... MOST: no sum is enough then
UNSAFE = -1000


def on_tiles(kind: str, target: Target) -> bool:
    return kind in target.tiles


def with_tiles(target: Target, options: Options) -> Target:
    """The target with the kinds that a function's products shall take tiles for; as it is where the processor, or the system, has none.

    ``gc.config.matmul = "bf16x6"`` asks for float32 and bfloat16, level "fast" for bfloat16.
    """
    kinds = frozenset({"f32", "bf16"} if options.matmul == "bf16x6" else {"bf16"} if options.level == "fast" else ())
    if not kinds or not (target.emulated or (target.has("amx-tile") and target.has("amx-bf16") and _permitted())):
        return target
    return replace(target, tiles=kinds)


@functools.cache
def _permitted() -> bool:
    """Linux lets a process use tiles once it has asked, for all its threads and the children that it forks."""
    if not sys.platform.startswith("linux"):
        return False
    arch_prctl, request, tiles = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(ctypes.c_long(arch_prctl), ctypes.c_long(request), ctypes.c_long(tiles)) == 0)


def tiled_module(kind: str, target: Target) -> tuple[str, str]:
    """(NAME, the text of a module): the interface of ``blocked_module``, for "f32" and "bf16"."""
    return target.named("tiled", _Writer(kind, target).write())


class Shape:
    """The sizes of blocks: ``rows`` of A and ``columns`` of a panel of B that one decision is made for; ``deep``, ``high``, ``wide``: k, rows
    and columns of a block; ``span``: rows that are summed beside C before they are rounded; ``scratch``: floats of scratch memory."""

    rows, columns, bytes = 2 * SIDE, 4 * SIDE, 4

    def __init__(self, kind: str, target: Target) -> None:
        self.parts, self.rounded = PARTS[kind], kind == "bf16"
        self.deep, self.high, self.wide, self.span = BLOCKS[kind]
        sizes = (
            (self.high + SIDE) * self.deep,  # A as numbers; the last tile of blocked.py may read rows that are not there
            self.columns * self.deep,  # a panel of B as numbers
            self.high * self.deep * self.parts // 2,  # both as parts
            self.wide * self.deep * self.parts // 2,
            4 * self.high // self.rows, 4 * self.wide // self.columns,  # what is known of their numbers, as pairs of i64
            max(self.span, self.rows) * self.wide if self.rounded else 0)  # sums
        self.starts = [sum(sizes[:n]) for n in range(len(sizes))]
        self.scratch = sum(sizes)


class _Writer(BlockWriter):
    """Writes the functions."""

    def __init__(self, kind: str, target: Target) -> None:
        super().__init__(kind, target)
        self.sizes = Shape(kind, target)
        self.shape.deep = self.sizes.deep  # how far apart rows of A lie
        self.kind = kind
        assert self.sizes.columns % self.shape.columns == 0

    def write(self) -> str:
        self.lay()
        self.tiles_of()
        self.edge()
        self.split(along_k=True)
        self.split(along_k=False)
        if self.target.emulated:
            _emulate(self)
        else:
            self.module.globals["NAME_shapes"] = f"@NAME_shapes = private unnamed_addr constant [64 x i8] [{_bytes(_shapes())}], align 64"
        self.square()
        if self.sizes.rounded:
            self.round()
        self.product()
        return self.module.text()

    # -- packing ----------------------------------------------------------------------------------

    def halves(self, x: Value) -> list[Value]:
        """The parts of float32 numbers, as i32 whose lower halves are 0."""
        bits = x.bitcast("i32")
        if self.sizes.parts == 1:
            return [bits]
        first = (bits + 0x8000) & -65536
        rest = x - first.bitcast("f32")
        second = (rest.bitcast("i32") + 0x8000) & -65536
        return [first, second, (rest - second.bitcast("f32")).bitcast("i32")]

    def split(self, along_k: bool) -> None:
        """``NAME_split_a``: 32 rows of numbers, ``deep`` apart, of ``chunks`` times 32, to tiles of parts [part][chunk][rows / 16][row][k];
        ``NAME_split_b``: a panel of 32 ``chunks`` rows of 64 numbers, to [columns / 32][part][chunk][columns / 16][pair of k][column][k of the pair].

        What is known of the numbers goes to ``found``: the exponents of the least that is not 0 and of the largest, or ``UNSAFE``.
        """
        rows, chunks = self.begin("NAME_split_" + ("a" if along_k else "b"), "p:out p:numbers p:found rows chunks")
        f, sizes, zero, one = self.f, self.sizes, self.i64(0), self.i64(1)
        part, many = chunks * (2 * TILE), self.i64(sizes.parts)
        none, all_bits = f.const(0, "i32", SIDE), f.const(-1, "i32", SIDE)
        like = Value(f, "", "f32", SIDE)

        def seen(x: Value, least: Value, most: Value) -> tuple[Value, Value]:
            size = x.bitcast("i32") & 0x7FFFFFFF
            return f.intrinsic("umin", least, size - 1), f.intrinsic("umax", most, size)  # 0 becomes the largest number

        outer_stop = rows if along_k else chunks * PAIRS
        with f.loop(zero, outer_stop, one, "line") as line:
            least, most = line.carry(all_bits), line.carry(none)
            r = line.index
            with f.loop(zero, chunks if along_k else self.i64(sizes.columns // SIDE), one, "part") as inner:
                low, high, j = inner.carry(least), inner.carry(most), inner.index
                if along_k:
                    source = self.at("%numbers", r * sizes.deep + j * STEP, "f32")
                    target = (j * 2 + r.udiv(SIDE)) * TILE + r.urem(SIDE) * PAIRS
                    other = SIDE
                else:
                    source = self.at("%numbers", r * (2 * sizes.columns) + j * SIDE, "f32")
                    target = j.udiv(2) * many * part + (r.udiv(PAIRS) * 2 + j.urem(2)) * TILE + r.urem(PAIRS) * SIDE
                    other = sizes.columns
                x, y = (memory.load(self.at(source, self.i64(n), "f32"), like) for n in (0, other))
                for n, (a, b) in enumerate(zip(self.halves(x), self.halves(y), strict=True)):
                    to = target + part * n
                    if along_k:  # neighbours side by side
                        for v, half in enumerate((a, b)):
                            memory.store(self.at(self.at("%out", to, "i32"), self.i64(v * SIDE), "i16"), half.lshr(16).to("i16"))
                    else:
                        memory.store(self.at("%out", to, "i32"), a.lshr(16) | b)
                next_low, next_high = seen(y, *seen(x, low, high))
                inner.next(low, next_low)
                inner.next(high, next_high)
            line.next(least, low)
            line.next(most, high)
        lowest, highest = (f.call(f"llvm.vector.reduce.{word}.v16i32", ("i32", 0), x).lshr(23).to("i64") for word, x in (("umin", least), ("umax", most)))
        safe = lowest.ge(LEAST) & highest.le(MOST)
        memory.store("%found", select(safe, lowest, UNSAFE), how="align 4")
        memory.store(self.at("%found", one, "i64"), highest, how="align 4")
        f.finish()

    # -- 2 x 2 tiles ------------------------------------------------------------------------------

    def square(self) -> None:
        """``NAME_square``: 32 rows of A's parts times 32 columns of B's, stored (``first``) or added to rows and columns of ``c``."""
        c_row, chunks, first, rows, columns = self.begin("NAME_square", "p:c p:a p:b c_row chunks first rows columns")
        f, zero, one = self.f, self.i64(0), self.i64(1)
        f.line(f"%square = alloca [{4 * TILE} x i32], align 64")
        machine = _Emulated(f) if self.target.emulated else _Machine(f)
        part = chunks * (2 * TILE)
        for n in range(4):
            machine.zero(n)

        def load(operand: int, number: int, chunk: Value) -> None:
            """A's or B's part of this number, two tiles, into tiles 4 and 5 or 6 and 7."""
            for n in range(2):
                machine.load(4 + 2 * operand + n, self.at("%b" if operand else "%a", part * number + (chunk * 2 + n) * TILE, "i32"), 4 * PAIRS)

        def multiply(pairs: Sequence[tuple[int, int]]) -> None:
            with f.loop(zero, chunks, one, "chunk") as chunk:
                there = [-1, -1]
                for pair in pairs:
                    for operand in range(2):
                        if there[operand] != pair[operand]:
                            load(operand, pair[operand], chunk.index)
                            there[operand] = pair[operand]
                    for n in range(4):
                        machine.multiply(n, 4 + n // 2, 6 + n % 2)

        if self.sizes.parts > 1:
            multiply(SMALLER)
        multiply([LARGEST])
        for n in range(4):
            machine.store(n, self.at("%square", self.i64(n // 2 * 2 * TILE + n % 2 * SIDE), "i32"), 8 * SIDE)

        def out(add: bool) -> None:
            with f.loop(zero, rows, one, "row") as row:
                for v in range(2):
                    mask, like = self.below(columns - v * SIDE, SIDE), Value(f, "", "f32", SIDE)
                    x = memory.load(self.at("%square", row.index * (2 * SIDE) + v * SIDE, "f32"), like)
                    place = self.at("%c", row.index * c_row + v * SIDE, "f32")
                    memory.store(place, memory.load(place, like, mask) + x if add else x, mask)

        f.either(first.ne(0), "first", lambda: out(False), lambda: out(True))
        f.finish()

    def round(self) -> None:
        """``NAME_round``: rows of sums, rounded into C."""
        step, c_row, rows, columns = self.begin("NAME_round", "p:c p:sums step c_row rows columns")
        f, w = self.f, SIDE
        with f.loop(self.i64(0), rows, self.i64(1), "row") as row:
            line, to = self.at("%sums", row.index * step, "f32"), self.at("%c", row.index * c_row, self.storage)
            whole = columns & -w
            for start, stop, lanes in ((self.i64(0), whole, w), (whole, columns, 0)):
                with f.loop(start, stop, self.i64(max(lanes, 1)), "column") as j:
                    x = memory.load(self.at(line, j.index, "f32"), Value(f, "", "f32", lanes))
                    memory.store(self.at(to, j.index, self.storage), self.numbers.narrow(x))
        f.finish()

    # -- the product ------------------------------------------------------------------------------

    def product(self) -> None:
        _, n, k, a_row, a_col, b_row, b_col, c_row, lo, hi = self.begin(
            "NAME", "p:c p:a p:b m n k a_row a_col b_row b_col c_row p:scratch lo hi", internal=False)
        f, sizes, zero = self.f, self.sizes, self.i64(0)
        plain_a, plain_b, parts_a, parts_b, found_a, found_b, sums = (self.at("%scratch", self.i64(start), "f32") for start in sizes.starts)
        if not self.target.emulated:
            f.module.declare("llvm.x86.ldtilecfg", "void (ptr)")
            f.line("call void @llvm.x86.ldtilecfg(ptr @NAME_shapes)")
        blocks = (k + (sizes.deep - 1)).udiv(sizes.deep).maximum(1)
        step_k = (((k + blocks - 1).udiv(blocks) + (STEP - 1)) & -STEP).maximum(STEP)
        span, one_block = (hi - lo).maximum(1), blocks.eq(1)
        if sizes.rounded:
            span = select(one_block, span, sizes.span)
        with f.loop(lo, hi, span, "span") as at, f.loop(zero, n, self.i64(sizes.wide), "wide") as column:
            end, wide = (at.index + span).minimum(hi), (n - column.index).minimum(sizes.wide)
            with f.loop(zero, k.maximum(1), step_k, "deep") as at_k:
                deep, first = (k - at_k.index).minimum(step_k), at_k.index.eq(0).to("i64", signed=False)
                chunks = (deep + (STEP - 1)).udiv(STEP)

                def lay_b(start: Value, count: Value, width: int) -> None:
                    source = self.at("%b", (column.index + start) * b_col + at_k.index * b_row, self.storage)
                    self.call_lay(plain_b, source, count, b_col, b_row, deep, width, width)

                def split_b(j: Value, count: Value) -> None:
                    lay_b(j, count, sizes.columns)
                    with f.loop(deep * sizes.columns, chunks * (STEP * sizes.columns), self.i64(SIDE), "none") as rest:
                        memory.store(self.at(plain_b, rest.index, "f32"), f.const(0.0, "f32", SIDE))
                    self.call("split_b", place_b(j), plain_b, found(found_b, j, sizes.columns), deep, chunks)

                def place_b(j: Value) -> str:
                    return self.at(parts_b, j * chunks * (STEP // 2 * sizes.parts), "i32")

                def place_a(r: Value) -> str:
                    return self.at(parts_a, r * chunks * (STEP // 2 * sizes.parts), "i32")

                def found(table: str, index: Value, each: int) -> str:
                    return self.at(table, index.udiv(each) * 2, "i64")

                with f.loop(at.index, end, self.i64(sizes.high), "high") as row:
                    high = (end - row.index).minimum(sizes.high)
                    source = self.at("%a", row.index * a_row + at_k.index * a_col, self.storage)
                    self.call_lay(plain_a, source, deep, a_col, a_row, high, sizes.deep, chunks * STEP)
                    with f.loop(zero, high, self.i64(sizes.rows), "part") as r:
                        rows = (high - r.index).minimum(sizes.rows)
                        self.call("split_a", place_a(r.index), self.at(plain_a, r.index * sizes.deep, "f32"), found(found_a, r.index, sizes.rows), rows, chunks)
                    with f.loop(zero, wide, self.i64(sizes.columns), "panel") as panel:
                        j = panel.index
                        count = (wide - j).minimum(sizes.columns)
                        with f.when(row.index.eq(at.index), "begins"):
                            split_b(j, count)
                        with f.loop(zero, high, self.i64(sizes.rows), "rows") as r:
                            rows = (high - r.index).minimum(sizes.rows)
                            place = row.index + r.index
                            c = self.at("%c", place * c_row + column.index + j, self.storage)
                            to, step = c, c_row
                            if sizes.rounded:  # sums of one block are rounded at once
                                behind = select(one_block, zero, (place - at.index) * sizes.wide + j)
                                to, step = self.at(sums, behind, "f32"), self.i64(sizes.wide)

                            def squares() -> None:
                                with f.loop(zero, count, self.i64(2 * SIDE), "square") as s:
                                    side = (count - s.index).minimum(2 * SIDE)
                                    b = self.at(place_b(j), s.index * chunks * (STEP // 2 * sizes.parts), "i32")
                                    self.call("square", self.at(to, s.index, "f32"), place_a(r.index), b, step, chunks, first, rows, side)

                            def numbers() -> None:
                                with f.loop(zero, count, self.i64(self.shape.columns), "columns") as s:
                                    side = (count - s.index).minimum(self.shape.columns)
                                    lay_b(j + s.index, side, self.shape.columns)
                                    a = self.at(plain_a, r.index * sizes.deep, "f32"), self.i64(sizes.deep)
                                    self.tiles(self.at(to, s.index, "f32"), step, a, plain_b, side, rows, deep, first, "@NAME_tiles")

                            safe = self.safe(found(found_a, r.index, sizes.rows), found(found_b, j, sizes.columns))
                            f.either(safe, "safe", squares, numbers)
                            if sizes.rounded:
                                with f.when(one_block, "round"):
                                    self.call("round", c, to, step, c_row, rows, count)
            if sizes.rounded:
                with f.when(~one_block, "round"):
                    self.call("round", self.at("%c", at.index * c_row + column.index, self.storage), sums, self.i64(sizes.wide), c_row, end - at.index, wide)
        if not self.target.emulated:
            f.module.declare("llvm.x86.tilerelease", "void ()")
            f.line("call void @llvm.x86.tilerelease()")
        f.finish()

    def safe(self, a: str, b: str) -> Value:
        """Do the numbers of these rows and this panel make nothing that tiles would lose?"""
        f = self.f

        def total(n: int) -> Value:
            x, y = (f.value(f.op(f"load i64, ptr {self.at(p, self.i64(n), 'i64')}, align 4"), "i64") for p in (a, b))
            return x + y

        return total(0).ge(LEAST_SUM[self.kind]) & total(1).le(MOST_SUM)

    def call(self, name: str, *arguments: str | Value) -> None:
        text = ", ".join(f"i64 {x.ref}" if isinstance(x, Value) else f"ptr {x}" for x in arguments)
        self.f.line(f"call void @NAME_{name}({text})")


# -- the instructions ---------------------------------------------------------------------------------


def _shapes() -> list[int]:
    """What ``ldtilecfg`` reads: palette 1, then bytes of a row of each tile (16 bits), then rows."""
    out = [0] * 64
    out[0] = 1
    for tile in range(8):
        out[16 + 2 * tile] = 4 * PAIRS
        out[48 + tile] = SIDE
    return out


def _bytes(numbers: Sequence[int]) -> str:
    return ", ".join(f"i8 {n}" for n in numbers)


class _Machine:
    """Tiles 0 to 7 of the processor."""

    def __init__(self, f: Body) -> None:
        self.f = f

    def _instruction(self, name: str, *arguments: str) -> None:
        types = ", ".join(a.split()[0] for a in arguments)
        self.f.module.declare(f"llvm.x86.{name}", f"void ({types})")
        self.f.line(f"call void @llvm.x86.{name}({', '.join(arguments)})")

    def zero(self, tile: int) -> None:
        self._instruction("tilezero", f"i8 {tile}")

    def load(self, tile: int, place: str, step: int) -> None:
        """16 rows, ``step`` bytes apart."""
        self._instruction("tileloadd64", f"i8 {tile}", f"ptr {place}", f"i64 {step}")

    def store(self, tile: int, place: str, step: int) -> None:
        self._instruction("tilestored64", f"i8 {tile}", f"ptr {place}", f"i64 {step}")

    def multiply(self, c: int, a: int, b: int) -> None:
        self._instruction("tdpbf16ps", f"i8 {c}", f"i8 {a}", f"i8 {b}")


class _Emulated(_Machine):
    """The same, in memory."""

    def __init__(self, f: Body) -> None:
        super().__init__(f)
        f.line(f"%emulated = alloca [{8 * TILE} x i32], align 64")

    def _tile(self, n: int) -> str:
        return self.f.op(f"getelementptr i32, ptr %emulated, i64 {n * TILE}")

    def zero(self, tile: int) -> None:
        self.f.line(f"store [{TILE} x i32] zeroinitializer, ptr {self._tile(tile)}")

    def load(self, tile: int, place: str, step: int) -> None:
        self.f.line(f"call void @NAME_emulated_move(ptr {self._tile(tile)}, i64 {4 * PAIRS}, ptr {place}, i64 {step})")

    def store(self, tile: int, place: str, step: int) -> None:
        self.f.line(f"call void @NAME_emulated_move(ptr {place}, i64 {step}, ptr {self._tile(tile)}, i64 {4 * PAIRS})")

    def multiply(self, c: int, a: int, b: int) -> None:
        self.f.line(f"call void @NAME_emulated_multiply(ptr {self._tile(c)}, ptr {self._tile(a)}, ptr {self._tile(b)})")


def _emulate(writer: BlockWriter) -> None:
    """What the processor's manual says that the instructions do."""
    to_step, from_step = writer.begin("NAME_emulated_move", "p:to to_step p:from from_step")
    f = writer.f
    with f.loop(writer.i64(0), writer.i64(SIDE), writer.i64(1), "row") as row:
        x = memory.load(f.op(f"getelementptr i8, ptr %from, i64 {(row.index * from_step).ref}"), Value(f, "", "i32", SIDE))
        memory.store(f.op(f"getelementptr i8, ptr %to, i64 {(row.index * to_step).ref}"), x)
    f.finish()

    writer.begin("NAME_emulated_multiply", "p:c p:a p:b")
    f = writer.f

    def normal(x: Value) -> Value:
        """Subnormal numbers are 0, of the same sign."""
        return select((x.bitcast("i32") & 0x7F800000).eq(0), (x.bitcast("i32") & -(1 << 31)).bitcast("f32"), x)

    nothing = f.const(0.0, "f32", SIDE)
    with f.loop(writer.i64(0), writer.i64(SIDE), writer.i64(1), "row") as row:
        with f.loop(writer.i64(0), writer.i64(PAIRS), writer.i64(1), "pair") as p:
            totals = [p.carry(nothing), p.carry(nothing)]
            x = f.splat(memory.load(writer.at("%a", row.index * PAIRS + p.index, "i32"), Value(f, "", "i32")), SIDE)
            y = memory.load(writer.at("%b", p.index * SIDE, "i32"), Value(f, "", "i32", SIDE))
            for total, (u, v) in zip(totals, ((x << 16, y << 16), (x & -65536, y & -65536)), strict=True):
                p.next(total, normal(fma(normal(u.bitcast("f32")), normal(v.bitcast("f32")), total)))
        place = writer.at("%c", row.index * SIDE, "f32")
        before = memory.load(place, Value(f, "", "f32", SIDE))
        memory.store(place, normal(normal(before) + normal(totals[0] + totals[1])))
    f.finish()

