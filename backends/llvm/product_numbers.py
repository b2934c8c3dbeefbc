"""The numbers of a matrix product: what is stored, what is computed in, how one becomes the other."""

from __future__ import annotations

from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Value, fma, select, shuffle

__all__ = ["KINDS", "Numbers"]

#: kind: (as stored, as computed in).  Eight-bit integers are multiplied in 16 bits (no processor does it in 8): the low bits are the same
KINDS = {"f32": ("f32", "f32"), "f64": ("f64", "f64"), "f16": ("f16", "f32"), "bf16": ("bf16", "f32"), "bool": ("i8", "i8"),
         "i8": ("i8", "i16"), "i16": ("i16", "i16"), "i32": ("i32", "i32"), "i64": ("i64", "i64")}


class Numbers:
    """How numbers of one kind are loaded, multiplied, added and stored."""

    def __init__(self, kind: str, target: Target) -> None:
        self.kind, self.target = kind, target
        self.storage, self.work = KINDS[kind]
        self.by_hand = kind == "bf16" or (kind == "f16" and target.x86 and not target.has("f16c"))  # else halves become calls of a library
        if self.by_hand:
            self.storage = "i16"
        self.fused = target.has("fma") or target.has("avx512f") or target.has("neon")

    def widen(self, x: Value) -> Value:
        """From the kind stored to the kind computed in."""
        if not self.by_hand:
            return x.to(self.work)
        bits = x.to("i32", signed=False)
        if self.kind == "bf16":
            return (bits << 16).bitcast("f32")
        size = (bits & 0x7FFF) << 13  # float32's fields, its exponent 112 too small
        finite = (size.bitcast("f32") * 2.0**112).bitcast("i32")
        return (select(size.ge(0x7C00 << 13), size | 0x7F800000, finite) | ((bits & 0x8000) << 16)).bitcast("f32")

    def narrow(self, x: Value) -> Value:
        """Back, rounded once (to nearest even)."""
        if not self.by_hand:
            return x.to(self.storage)
        bits = x.bitcast("i32")
        if self.kind == "bf16":  # by hand everywhere: the processor's own instruction takes subnormal numbers for zero
            rounded = bits + ((bits.lshr(16) & 1) + 0x7FFF)
            return select(x.isnan(), bits | 0x400000, rounded).lshr(16).to("i16")
        size = bits & 0x7FFFFFFF
        normal = (size - (112 << 23) + ((size.lshr(13) & 1) + 0xFFF)).lshr(13)
        small = (size.bitcast("f32") + 0.5).bitcast("i32") - 0x3F000000  # the last bit of 0.5 is worth float16's least number: the addition rounds
        special = select(x.isnan(), size.lshr(13) & 0x3FF | 0x7E00, x.f.const(0x7C00, "i32", x.lanes))
        out = select(size.lt(0x38800000), small, select(size.ge(0x47800000), special, normal))
        return (out | (bits.lshr(16) & 0x8000)).to("i16")

    def zero(self, f: Body, lanes: int) -> Value:
        return f.const(0, self.work, lanes)

    def add(self, x: Value, y: Value) -> Value:
        return x | y if self.kind == "bool" else x + y

    def madd(self, a: Value, b: Value, total: Value) -> Value:
        """``a * b + total``."""
        if self.kind == "bool":
            return (a & b) | total
        if total.float and self.fused:
            return fma(a, b, total)
        return a * b + total

    def across(self, x: Value) -> Value:
        """The sum of all lanes, in halves."""
        while x.lanes > 1:
            half = x.lanes // 2
            x = self.add(shuffle(x, x, range(half)), shuffle(x, x, range(half, 2 * half)))
        return x.lane(0)
