"""Loads and stores of an element or a vector, all of it or where a mask is true."""

from __future__ import annotations

from graphc.backends.llvm.values import Body, Value, suffix

__all__ = ["fence", "load", "store"]


def load(p: str, shape: Value, mask: Value | None = None) -> Value:
    """What is at an address, as a value like ``shape``; 0 where the mask is false, and nothing is read there."""
    f, align = shape.f, shape.bits // 8
    if mask is None:
        return f.value(f.op(f"load {shape.type}, ptr {p}, align {align}"), shape.kind, shape.lanes)
    name = f"llvm.masked.load.{suffix(shape.kind, shape.lanes)}.p0"
    f.module.declare(name, f"{shape.type} (ptr, {mask.type}, {shape.type})")
    text = f"call {shape.type} @{name}(ptr align {align} {p}, {mask.type} {mask.ref}, {shape.type} zeroinitializer)"
    return f.value(f.op(text), shape.kind, shape.lanes)


def store(p: str, x: Value, mask: Value | None = None, how: str = "") -> None:
    """Store a value, or its elements where the mask is true.  ``how``: alignment and more, for a whole one; that of an element by default."""
    f, align = x.f, x.bits // 8
    if mask is None:
        f.line(f"store {x.type} {x.ref}, ptr {p}, {how or f'align {align}'}")
        return
    lane = _only_lane(mask)
    if lane < 0:
        name = f"llvm.masked.store.{suffix(x.kind, x.lanes)}.p0"
        f.module.declare(name, f"void ({x.type}, ptr, {mask.type})")
        f.line(f"call void @{name}({x.type} {x.ref}, ptr align {align} {p}, {mask.type} {mask.ref})")
        return
    one = x.lane(lane)
    store(f.op(f"getelementptr {one.type}, ptr {p}, i64 {lane}"), one)


def _only_lane(mask: Value) -> int:
    """The lane of a constant mask that has one; -1 for other masks.

    LLVM 22 stores as many bytes as the number had before it was cut, where a vector of cut integers is stored under such a mask
    (AVX-512): 4 bytes for a bfloat16.
    """
    lanes = mask.ref.strip("<>").split(", ") if mask.ref.startswith("<") else []
    return lanes.index("i1 true") if lanes.count("i1 true") == 1 else -1


def fence(f: Body) -> None:
    """Stores past the cache are in order with others from here on."""
    f.module.declare("llvm.x86.sse.sfence", "void ()")
    f.line("call void @llvm.x86.sse.sfence()")
