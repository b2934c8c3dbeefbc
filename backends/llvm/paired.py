"""Large products of bfloat16 on processors that multiply pairs of them (avx512bf16): twice as many in each instruction.

``vdpbf16ps`` adds, to each float32, the product of the high halves of two pairs, then that of the low halves, each rounded once: a fused
multiply-add after the other.  So with k and k + 1 packed as high and low half of 32 bits the bits are those of the other forms, which widen first.

But for subnormal numbers, which the instruction takes for zero, and makes zero.  A product of two numbers of 8 bits of at least 2**-56 is a multiple of
2**-126, and so is every sum of such products: none is subnormal.  Where a block of A or a panel of B has a smaller number that is not 0, or
a sum that goes on is subnormal, its tiles widen the pairs and multiply one after the other.

Everything else is as in blocked.py, with a pair for an element: both operands are packed, k in pairs, an odd last one with a zero.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm import memory
from graphc.backends.llvm.blocked import BlockWriter
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.transposing import transposed
from graphc.backends.llvm.values import Value

__all__ = ["has_pairs", "paired_module"]

#: the bits of 2**-56; numbers between 0 and it are small
LEAST = (127 - 56) << 7


def has_pairs(kind: str, target: Target) -> bool:
    return kind == "bf16" and target.bits == 512 and target.has("avx512bf16") and target.has("avx512bw")


def paired_module(kind: str, target: Target, wide: bool = False, adds: bool = False) -> tuple[str, str]:
    """(NAME, the text of a module): the interface of ``blocked_module``.  ``wide``, ``adds``: as those of products.Product."""
    return target.named("paired", _Writer(kind, target, wide, adds).write())


class _Writer(BlockWriter):
    """Writes the functions.  Packed are i32, stored in places for float32."""

    def write(self) -> str:
        self.pack("NAME_lay_a", along_k=True)
        self.pack("NAME_lay_b", along_k=False)
        self.small()
        self.begun()
        self.tiles_of()
        self.tiles_of("NAME_widened")
        self.edge()
        self.product()
        return self.module.text()

    # -- packing ----------------------------------------------------------------------------------

    def pack(self, name: str, along_k: bool) -> None:
        """The pairs (j, p) of ``source[j * across + k * along]`` for j < count and k < left, k = 2p in the high half.

        ``along_k``: to ``out[j * step + p]``, else to ``out[p * step + j]`` with 0 for j from count to width.
        """
        count, across, along, left, step, width = self.begin(name, "p:out p:source count across along left step width")
        f, w, zero, one = self.f, self.shape.lanes, self.i64(0), self.i64(1)
        full = left.udiv(2)
        odd = left.urem(2).ne(0)

        def source(j: Value, p: Value) -> str:
            return self.at("%source", j * across + p * 2 * along, "i16")

        def out(j: Value, p: Value) -> str:
            return self.at("%out", j * step + p if along_k else p * step + j, "i32")

        def half(pointer: str, lanes: int, mask: Value | None) -> Value:
            return memory.load(pointer, Value(f, "", "i16", lanes), mask).to("i32", signed=False)

        def of_columns(j: Value, p: Value, lanes: int = 0, mask: Value | None = None, second: bool = True) -> Value:
            """Pairs of neighbouring j, which lie side by side (or one pair)."""
            pair = half(source(j, p), lanes, mask) << 16
            if not second:  # -0 times 0 changes no sum, a -0 neither
                return pair | (0x8000 if along_k else 0)
            return pair | half(self.at(source(j, p), along, "i16"), lanes, mask)

        def of_sums(j: Value, p: Value, lanes: int, mask: Value | None = None) -> Value:
            """Neighbouring pairs of one j, which lie side by side: the halves change places."""
            x = memory.load(source(j, p), Value(f, "", "i32", lanes), mask)
            return (x << 16) | x.lshr(16)

        def lines(first: Value, last: Value, write: Callable[[Value, int, Value | None], None]) -> None:
            """Whole vectors, then the rest under a mask."""
            whole = first + ((last - first) & -w)
            with f.loop(first, whole, self.i64(w), "line") as at:
                write(at.index, w, None)
            with f.when(whole.lt(last), "rest"):
                write(whole, w, self.below(last - whole, w))

        def straight() -> None:
            """Vectors as they lie are vectors of what is packed."""
            if along_k:
                with f.loop(zero, count, one, "j") as j:
                    lines(zero, full, lambda p, n, mask: memory.store(out(j.index, p), of_sums(j.index, p, n, mask), mask))
            else:
                with f.loop(zero, full, one, "p") as p:
                    lines(zero, count, lambda j, n, mask: memory.store(out(j, p.index), of_columns(j, p.index, n, mask), mask))

        def turned() -> None:
            """Squares, turned in registers; the last ones overlap those before."""
            with f.loop(zero, count, self.i64(w), "j") as js:
                j = js.index.minimum(count - w)
                with f.loop(zero, full, self.i64(w), "p") as ps:
                    p = ps.index.minimum(full - w)
                    square = [of_columns(j, p + n, w) if along_k else of_sums(j + n, p, w) for n in range(w)]
                    for n, x in enumerate(transposed(square)):
                        memory.store(out(j + n, p) if along_k else out(j, p + n), x)

        def one_by_one() -> None:
            with f.loop(zero, count, one, "j") as j, f.loop(zero, full, one, "p") as p:
                memory.store(out(j.index, p.index), of_columns(j.index, p.index))

        lies, other = (along, across) if along_k else (across, along)
        square = other.eq(1) & count.ge(w) & full.ge(w)
        f.either(lies.eq(1), "lie", straight, lambda: f.either(square, "turn", turned, one_by_one))
        with f.when(odd, "odd"), f.loop(zero, count, one, "j") as j:
            memory.store(out(j.index, full), of_columns(j.index, full, second=False))
        if not along_k:
            nothing = f.const(0, "i32")
            with f.loop(count, width, one, "none") as j, f.loop(zero, (left + 1).udiv(2), one, "p") as p:
                memory.store(out(j.index, p.index), nothing)
        f.finish()

    def product(self) -> None:
        _, n, k, a_row, a_col, b_row, b_col, c_row, lo, hi = self.begin(
            "NAME", "p:c p:a p:b m n k a_row a_col b_row b_col c_row p:scratch lo hi", internal=False)

        def left(at_k: Value, deep: Value) -> Value:
            """Numbers in so many pairs from one on."""
            return (k - at_k * 2).minimum(deep * 2)

        def pack_a(block: str, row: Value, at_k: Value, high: Value, deep: Value) -> tuple[str, Value]:
            self.lay_pairs("a", block, self.at("%a", row * a_row + at_k * 2 * a_col, "i16"), high, a_row, a_col, left(at_k, deep), self.shape.deep, 0)
            return block, self.i64(self.shape.deep)

        def pack_b(panel: str, column: Value, at_k: Value, count: Value, deep: Value) -> None:
            columns = self.shape.columns
            self.lay_pairs("b", panel, self.at("%b", column * b_col + at_k * 2 * b_row, "i16"), count, b_col, b_row, left(at_k, deep), columns, columns)

        self.blocks("%c", c_row, (lo, hi), (self.i64(0), n), (k + 1).udiv(2), "%scratch", pack_a, pack_b)
        self.f.finish()

    def lay_pairs(self, operand: str, out: str, source: str, *numbers: Value | int) -> None:
        args = ", ".join(f"i64 {x.ref if isinstance(x, Value) else x}" for x in numbers)
        self.f.line(f"call void @NAME_lay_{operand}(ptr {out}, ptr {source}, {args})")

    # -- small numbers ----------------------------------------------------------------------------

    def small(self) -> None:
        """``i64 NAME_small(packed, count)``: is there a small number that is not 0?  ``count`` is a multiple of the lanes."""
        self.begin("NAME_small", "p:packed count")
        f, w = self.f, self.shape.lanes
        f.result = "i64"
        count = f.value("%count", "i64")
        with f.loop(self.i64(0), count, self.i64(w), "vector") as at:
            least = at.carry(f.const(-1, "i32", w))
            x = memory.load(self.at("%packed", at.index, "i32"), Value(f, "", "i32", w))
            low, high = (x & 0x7FFF) - 1, (x.lshr(16) & 0x7FFF) - 1  # 0 becomes the largest number
            at.next(least, f.intrinsic("umin", least, f.intrinsic("umin", low, high)))
        found = f.any(least.ult(f.const(LEAST - 1, "i32", w)))
        f.finish(f"ret i64 {found.to('i64', signed=False).ref}")

    def careful(self, packed: str, count: Value) -> Value | None:
        return self.f.value(self.f.op(f"call i64 @NAME_small(ptr {packed}, i64 {count.ref})"), "i64").ne(0)

    def begun(self) -> None:
        """``i64 NAME_begun(c, c_row, rows, columns)``: is a sum subnormal that goes on?"""
        c_row, rows, columns = self.begin("NAME_begun", "p:c c_row rows columns")
        f, w, zero = self.f, self.shape.lanes, self.i64(0)
        f.result = "i64"
        whole, count = columns & -w, f.const(-1, "i32", w)

        def least(before: Value, row: Value, column: Value, mask: Value | None) -> Value:
            x = memory.load(self.at("%c", row * c_row + column, "i32"), Value(f, "", "i32", w), mask)
            return f.intrinsic("umin", before, (x << 1) - 1)  # without the sign; 0 becomes the largest number

        with f.loop(zero, rows, self.i64(1), "row") as row:
            total = row.carry(count)
            with f.loop(zero, whole, self.i64(w), "vector") as at:
                inner = at.carry(total)
                at.next(inner, least(inner, row.index, at.index, None))
            row.next(total, least(inner, row.index, whole, self.below(columns - whole, w)))
        found = f.any(total.ult(f.const((1 << 24) - 1, "i32", w)))
        f.finish(f"ret i64 {found.to('i64', signed=False).ref}")

    def form(self, care: Value | None, panel: str, count: Value, c: str, c_row: Value, rows: Value, columns: Value) -> str:
        other = self.careful(panel, count)
        args = ", ".join(f"i64 {x.ref}" for x in (c_row, rows, columns))
        begun = self.f.value(self.f.op(f"call i64 @NAME_begun(ptr {c}, {args})"), "i64").ne(0)
        assert care is not None and other is not None
        return self.f.op(f"select i1 {(care | other | begun).ref}, ptr @NAME_wideneds, ptr @NAME_tiles")

    # -- a tile -----------------------------------------------------------------------------------

    def madd(self, x: Value, y: Value, total: Value, name: str) -> Value:
        f, w = self.f, total.lanes
        if name == "NAME_widened":
            a, b = x.bitcast("i32"), y.bitcast("i32")
            total = self.numbers.madd((a & -65536).bitcast("f32"), (b & -65536).bitcast("f32"), total)
            return self.numbers.madd((a << 16).bitcast("f32"), (b << 16).bitcast("f32"), total)
        pairs = f"<{2 * w} x bfloat>"
        multiply = f.module.declare("llvm.x86.avx512bf16.dpbf16ps.512", f"{total.type} ({total.type}, {pairs}, {pairs})")
        first, second = (f.op(f"bitcast {v.type} {v.ref} to {pairs}") for v in (x, y))
        return Value(f, f.op(f"call {total.type} {multiply}({total.type} {total.ref}, {pairs} {first}, {pairs} {second})"), "f32", w)
