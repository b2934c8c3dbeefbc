"""Words for code that handles Python's objects, and the memory of results.

``Code`` adds to ``Body`` pointers, fields of structures, and calls.  ``LAYOUTS`` are the structures: those of CPython and
NumPy (door.py checks them before any of this code runs), those of the native door (door_text.py), and the pool of a result, which is
written here.

A pool is what NumPy calls a memory handler: an array whose memory it gave gives the memory back when NumPy frees it, so nothing is
ever handed out that anybody can still see.  A few blocks are kept for the next call, which then writes into pages that are mapped and warm.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from graphc.backends.llvm.values import Body, Loop, Module, Value, select

__all__ = ["LAYOUTS", "SIZES", "Code", "layout", "memory_functions"]

#: structure -> field -> (type, byte offset); CPython's and NumPy's first
LAYOUTS: dict[str, dict[str, tuple[str, int]]] = {
    "object": {"count": ("i64", 0), "type": ("ptr", 8), "value": ("ptr", 16)},
    "array": {"data": ("ptr", 16), "rank": ("i32", 24), "dims": ("ptr", 32), "strides": ("ptr", 40), "base": ("ptr", 48), "descr": ("ptr", 56),
              "flags": ("i32", 64), "weak": ("ptr", 72), "handler": ("ptr", 88)},
    "list": {"length": ("i64", 16)},
    # a pool: NumPy's PyDataMem_Handler (a name of 127 bytes, a version, functions), then the blocks that it keeps
    "memory": {"version": ("i8", 127), "context": ("ptr", 128), "malloc": ("ptr", 136), "calloc": ("ptr", 144), "realloc": ("ptr", 152),
               "free": ("ptr", 160), "count": ("i64", 168), "bytes": ("i64", 176), "blocks": ("ptr", 184)},
}
#: bytes of the structures that are counted in words
SIZES: dict[str, int] = {}

#: blocks that a pool keeps, and above how many bytes together no more than one
MOST_BLOCKS, MOST_BYTES = 4, 64 << 20
#: from here on memory is asked for in huge pages
HUGE, HUGE_PAGE = 4 << 20, 2 << 20
#: flags of an array: C contiguous, aligned, writeable; owner of its memory; Fortran contiguous (so is every vector)
DENSE, WRITEABLE, OWNER, FORTRAN = 0x101, 0x400, 0x4, 0x2
#: NumPy's domain in tracemalloc
DOMAIN = 389047
_MEMORY_BYTES = 256
_HEADER = 64

Pointer = str
Operand = Value | Pointer | int


def layout(name: str, fields: str) -> None:
    """A structure of 64-bit words; a star marks a pointer."""
    words = fields.split()
    LAYOUTS[name] = {word.lstrip("*"): ("ptr" if word[0] == "*" else "i64", 8 * n) for n, word in enumerate(words)}
    SIZES[name] = 8 * len(words)


class Code(Body):
    """An internal function; ``head`` is ``"i1 fit(ptr rec, i64 n)"``.  A pointer is the text of its name, a number is a Value.

    A ``rare`` function is not run by most calls: it is compiled in half the time, to code that is not as good.
    """

    def __init__(self, module: Module, head: str, rare: bool = False) -> None:
        match = re.fullmatch(r"(\w+) (\w+)\((.*)\)", head)
        assert match is not None, head
        words = [part.split() for part in match[3].split(", ")] if match[3] else []
        super().__init__(module, match[2], [(kind, name) for kind, name in words], match[1])
        self.attributes = "nounwind noinline optnone" if rare else "nounwind"
        self.pointers = [f"%{name}" for kind, name in words if kind == "ptr"]
        self.numbers = [Value(self, f"%{name}", kind) for kind, name in words if kind != "ptr"]

    # -- memory -------------------------------------------------------------------------------

    def get(self, base: Pointer, where: str) -> Value:
        """A number in a structure: ``f.get(rec, "rec.parameters")``."""
        kind, at = self._field(base, where)
        return Value(self, self.op(f"load {kind}, ptr {at}"), kind)

    def to(self, base: Pointer, where: str) -> Pointer:
        """A pointer in a structure."""
        kind, at = self._field(base, where)
        assert kind == "ptr", where
        return self.op(f"load ptr, ptr {at}")

    def put(self, base: Pointer, where: str, value: Operand) -> None:
        kind, at = self._field(base, where)
        text = value.ref if isinstance(value, Value) else value
        self.line(f"store {kind} {text}, ptr {at}")

    def _field(self, base: Pointer, where: str) -> tuple[str, Pointer]:
        struct, field = where.split(".")
        kind, offset = LAYOUTS[struct][field]
        return kind, self.step(base, offset)

    def step(self, base: Pointer, offset: Value | int) -> Pointer:
        """So many bytes on."""
        text = offset.ref if isinstance(offset, Value) else str(offset)
        return self.op(f"getelementptr i8, ptr {base}, i64 {text}")

    def item(self, base: Pointer, index: Value | int, struct: str = "") -> Pointer:
        """The place of an element in a row of words, or of structures."""
        offset = index * SIZES[struct] if struct else index * 8
        return self.step(base, offset)

    def word(self, at: Pointer) -> Value:
        return Value(self, self.op(f"load i64, ptr {at}"), "i64")

    def pointer(self, at: Pointer) -> Pointer:
        return self.op(f"load ptr, ptr {at}")

    def store(self, value: Operand, at: Pointer) -> None:
        self.line(f"store {_typed(value)}, ptr {at}")

    # -- control ------------------------------------------------------------------------------

    def same(self, a: Pointer, b: Pointer) -> Value:
        return Value(self, self.op(f"icmp eq ptr {a}, {b}"), "i1")

    def there(self, a: Pointer) -> Value:
        return Value(self, self.op(f"icmp ne ptr {a}, null"), "i1")

    def branch(self, condition: Value, yes: str, no: str) -> None:
        self.line(f"br i1 {condition.ref}, label %{yes}, label %{no}")

    def jump(self, label: str) -> None:
        self.line(f"br label %{label}")

    def need(self, condition: Value, other: str = "bad") -> None:
        """Go on if it holds, else at the label."""
        on, = self.labels("go", "on")
        self.branch(condition, on, other)
        self.label(on)

    def switch(self, value: Value, other: str, *labels: tuple[int, str]) -> None:
        cases = " ".join(f"i64 {n}, label %{label}" for n, label in labels)
        self.line(f"switch i64 {value.ref}, label %{other} [ {cases} ]")

    @contextmanager
    def each(self, count: Value, start: Value | None = None) -> Iterator[Loop]:
        with self.loop(start if start is not None else self.const(0, "i64"), count, self.const(1, "i64"), "each") as loop:
            yield loop

    # -- calls --------------------------------------------------------------------------------

    def _call(self, callee: str, result: str, args: tuple[Operand, ...]) -> str:
        text = f"call {result} {callee}({', '.join(_typed(a) for a in args)})"
        if result == "void":
            self.line(text)
            return ""
        return self.op(text)

    def run(self, name: str, *args: Operand) -> Pointer:
        """A function of this module, or one behind a pointer, that gives a pointer."""
        return self._call(name if name[0] == "%" else f"@{name}", "ptr", args)

    def ask(self, name: str, *args: Operand, kind: str = "i1") -> Value:
        """One that gives a number."""
        return Value(self, self._call(name if name[0] == "%" else f"@{name}", kind, args), kind)

    def do(self, name: str, *args: Operand) -> None:
        self._call(name if name[0] == "%" else f"@{name}", "void", args)

    def api(self, name: str, result: str, *args: Operand) -> str:
        """A function from outside of the module: CPython's, the C library's, LLVM's."""
        types = ", ".join(_typed(a).split(" ")[0] for a in args)
        self.module.declare(name, f"{result} ({types})")
        return self._call(f"@{name}", result, args)

    def api_number(self, name: str, kind: str, *args: Operand) -> Value:
        return Value(self, self.api(name, kind, *args), kind)

    def ret(self, value: Operand | bool | None = None) -> None:
        if value is None:
            self.line("ret void")
        elif isinstance(value, bool):
            self.line(f"ret i1 {str(value).lower()}")
        else:
            self.line(f"ret {_typed(value)}")

    def refuse(self) -> None:
        """The label "bad": false."""
        self.label("bad")
        self.ret(False)

    def end(self) -> None:
        """Hand the function to the module; the last block has been closed by then."""
        head = ", ".join(f"{kind} %{name}" for kind, name in self.parameters)
        self.module.functions.append("\n".join([f"define internal {self.result} @{self.name}({head}) {self.attributes} {{", "entry:", *self.lines, "}"]))


def _typed(value: Operand) -> str:
    if isinstance(value, Value):
        return f"{value.type} {value.ref}"
    return f"ptr {value}" if isinstance(value, str) else f"i64 {value}"


# ---- the memory of one result -------------------------------------------------------------------
# A block is 64 bytes, of which the first 8 say how many follow, then those, aligned to 64 bytes.  NumPy calls malloc, calloc, realloc
# and free of the handler with the interpreter's lock held, and so does the door: no other lock is needed.


def memory_functions(m: Module) -> None:
    m.globals["capsule_name"] = '@capsule_name = private unnamed_addr constant [12 x i8] c"mem_handler\\00"'
    m.globals["pool_name"] = '@pool_name = private unnamed_addr constant [7 x i8] c"graphc\\00"'
    _allocate(m)
    _take(m)
    _remove(m)
    _give(m)
    _zeroed_and_resized(m)
    _new_pool(m)
    _end_pool(m)
    _make(m)


def _allocate(m: Module) -> None:
    """So many bytes and 64 more, aligned to 64 bytes; null if there are none."""
    f = Code(m, "ptr allocate(i64 bytes)", rare=True)
    bytes_, = f.numbers
    f.need(bytes_.ult(1 << 62))
    total = (bytes_ + (_HEADER + 63)) & -64
    linux = "linux" in m.target.triple
    # a block that begins a huge page lies in as few of them as it can
    block = f.api("aligned_alloc", "ptr", select(total.uge(HUGE), f.const(HUGE_PAGE, "i64"), f.const(64, "i64")) if linux else 64, total)
    f.need(f.there(block))
    if linux:
        f.need(total.uge(HUGE), "done")
        address = Value(f, f.op(f"ptrtoint ptr {block} to i64"), "i64")
        page = (address + 4095) & -4096
        at = f.op(f"inttoptr i64 {page.ref} to ptr")
        f.api("madvise", "i32", at, total - (page - address), f.const(14, "i32"))
        f.jump("done")
        f.label("done")
    f.ret(block)
    f.label("bad")
    f.ret("null")
    f.end()


def _take(m: Module) -> None:
    """Memory for so many bytes: a kept block, else a new one."""
    f = Code(m, "ptr take(ptr memory, i64 bytes)")
    memory, = f.pointers
    bytes_, = f.numbers
    f.need(bytes_.ult(1 << 62))
    blocks = f.step(memory, LAYOUTS["memory"]["blocks"][1])
    count = f.get(memory, "memory.count")
    most = bytes_ * 2 + 4096
    with f.each(count) as loop:
        has = f.word(f.pointer(f.item(blocks, loop.index)))
        found, = f.labels("block", "found")
        f.branch(has.uge(bytes_) & has.ule(most), found, loop.latch)
        f.label(found)
        f.ret(f.step(f.run("remove", memory, loop.index), _HEADER))
        f.label("other")
    f.branch(count.gt(0), "forget", "fresh")
    f.label("forget")  # sizes have changed: the oldest block makes room
    f.api("free", "void", f.run("remove", memory, 0))
    f.jump("fresh")
    f.label("fresh")
    room = (f.api_number("llvm.smax.i64", "i64", bytes_, 1) + 63) & -64
    block = f.run("allocate", room)
    f.need(f.there(block))
    f.store(room, block)
    f.ret(f.step(block, _HEADER))
    f.label("bad")
    f.ret("null")
    f.end()


def _remove(m: Module) -> None:
    """Block number i is no longer kept; those behind it move up."""
    f = Code(m, "ptr remove(ptr memory, i64 i)", rare=True)
    memory, = f.pointers
    i, = f.numbers
    blocks = f.step(memory, LAYOUTS["memory"]["blocks"][1])
    block = f.pointer(f.item(blocks, i))
    f.put(memory, "memory.bytes", f.get(memory, "memory.bytes") - f.word(block))
    count = f.get(memory, "memory.count") - 1
    f.put(memory, "memory.count", count)
    with f.each(count, i) as loop:
        f.store(f.pointer(f.item(blocks, loop.index + 1)), f.item(blocks, loop.index))
    f.ret(block)
    f.end()


def _give(m: Module) -> None:
    """NumPy's free(context, data, size)."""
    f = Code(m, "void give(ptr memory, ptr data, i64 size)")
    memory, data = f.pointers
    f.need(f.there(data), "done")
    block = f.step(data, -_HEADER)
    count, bytes_ = f.get(memory, "memory.count"), f.get(memory, "memory.bytes") + f.word(block)
    f.need(count.lt(MOST_BLOCKS), "drop")
    f.need(count.eq(0) | bytes_.le(MOST_BYTES), "drop")
    f.store(block, f.item(f.step(memory, LAYOUTS["memory"]["blocks"][1]), count))
    f.put(memory, "memory.bytes", bytes_)
    f.put(memory, "memory.count", count + 1)
    f.ret()
    f.label("drop")
    f.api("free", "void", block)
    f.jump("done")
    f.label("done")
    f.ret()
    f.end()


def _zeroed_and_resized(m: Module) -> None:
    """NumPy's calloc(context, count, size) and realloc(context, data, size)."""
    f = Code(m, "ptr take_zeroed(ptr memory, i64 count, i64 size)", rare=True)
    memory, = f.pointers
    count, size = f.numbers
    bytes_, over = product(f, count, size)
    f.need(~over)
    data = f.run("take", memory, bytes_)
    f.need(f.there(data))
    f.api("memset", "ptr", data, f.const(0, "i32"), bytes_)
    f.ret(data)
    f.label("bad")
    f.ret("null")
    f.end()
    f = Code(m, "ptr resize(ptr memory, ptr data, i64 bytes)", rare=True)
    memory, data = f.pointers
    bytes_, = f.numbers
    new = f.run("take", memory, bytes_)
    f.need(f.there(new) & f.there(data), "done")
    has = f.word(f.step(data, -_HEADER))
    f.api("memcpy", "ptr", new, data, f.api_number("llvm.umin.i64", "i64", has, bytes_))
    f.do("give", memory, data, has)
    f.jump("done")
    f.label("done")
    f.ret(new)
    f.end()


def product(f: Code, a: Value, b: Value) -> tuple[Value, Value]:
    """a * b, and whether that is more than 63 bits hold."""
    pair = f.api("llvm.smul.with.overflow.i64", "{ i64, i1 }", a, b)
    return Value(f, f.op(f"extractvalue {{ i64, i1 }} {pair}, 0"), "i64"), Value(f, f.op(f"extractvalue {{ i64, i1 }} {pair}, 1"), "i1")


def _new_pool(m: Module) -> None:
    """A pool as a capsule of the name that NumPy expects; every array with memory of it holds the capsule."""
    f = Code(m, "ptr new_pool()", rare=True)
    memory = f.api("aligned_alloc", "ptr", 64, _MEMORY_BYTES)
    f.need(f.there(memory))
    f.api("memset", "ptr", memory, f.const(0, "i32"), _MEMORY_BYTES)
    f.api("memcpy", "ptr", memory, "@pool_name", 7)
    f.put(memory, "memory.version", 1)
    for field, value in (("context", memory), ("malloc", "@take"), ("calloc", "@take_zeroed"), ("realloc", "@resize"), ("free", "@give")):
        f.put(memory, f"memory.{field}", value)
    capsule = f.api("PyCapsule_New", "ptr", memory, "@capsule_name", "@end_pool")
    f.need(f.there(capsule), "unmade")
    f.ret(capsule)
    f.label("unmade")
    f.api("free", "void", memory)
    f.ret("null")
    f.label("bad")
    f.ret(f.api("PyErr_NoMemory", "ptr"))
    f.end()


def _end_pool(m: Module) -> None:
    """The capsule's destructor: the function is gone, and the last array."""
    f = Code(m, "void end_pool(ptr capsule)", rare=True)
    capsule, = f.pointers
    memory = f.api("PyCapsule_GetPointer", "ptr", capsule, "@capsule_name")
    f.need(f.there(memory), "done")
    with f.each(f.get(memory, "memory.count")):
        f.api("free", "void", f.run("remove", memory, 0))
    f.api("free", "void", memory)
    f.jump("done")
    f.label("done")
    f.ret()
    f.end()


def _make(m: Module) -> None:
    """A new array in memory of a pool; null if there is none.  ``new_array`` is NumPy's PyArray_NewFromDescr."""
    f = Code(m, "ptr make(ptr new_array, ptr array_type, ptr pool, ptr descr, i64 rank, ptr dims, i64 bytes)")
    new_array, array_type, pool, descr, dims = f.pointers
    rank, bytes_ = f.numbers
    memory = f.to(pool, "object.value")
    data = f.run("take", memory, bytes_)
    f.need(f.there(data))
    f.api("Py_IncRef", "void", descr)  # the new array's own
    array = f.run(new_array, array_type, descr, rank.to("i32"), dims, "null", data, f.const(DENSE | WRITEABLE, "i32"), "null")
    f.need(f.there(array), "unmade")
    f.put(array, "array.flags", f.get(array, "array.flags") | OWNER)
    f.api("Py_IncRef", "void", pool)
    f.put(array, "array.handler", pool)
    address = Value(f, f.op(f"ptrtoint ptr {data} to i64"), "i64")
    f.api("PyTraceMalloc_Track", "i32", f.const(DOMAIN, "i32"), address, bytes_)
    f.ret(array)
    f.label("unmade")
    f.do("give", memory, data, bytes_)
    f.jump("bad")
    f.label("bad")
    f.ret("null")
    f.end()
