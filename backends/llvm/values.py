"""The words in which code is written: ``Value``, a scalar or vector of one LLVM function in the making.

    x = f.argument(...)                    a Value
    y = fma(x, x, x * 2.0)                 operators write instructions and give Values; numbers become constants
    z = select(y.lt(0.0), -y, y)

A vector Value has ``lanes`` elements of one ``kind`` (f16 bf16 f32 f64 i1 i8 i16 i32 i64); a scalar has
``lanes`` 0.  Everything here is independent of the width: the same code gives AVX-512, AVX2, NEON and
scalar code.  No fast-math flag is ever written; a multiplication and an addition are contracted only
where the author writes ``fma``.  Nothing is optimised later: no LLVM pass runs over this code, so
what is written here is what runs.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from graphc.backends.llvm.target import Target

__all__ = ["BITS", "Body", "Module", "Value", "copysign", "fma", "select", "shuffle"]

LLVM = {"f16": "half", "bf16": "bfloat", "f32": "float", "f64": "double", "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64"}
BITS = {"f16": 16, "bf16": 16, "f32": 32, "f64": 64, "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64}


#: what functions refer to: nothing (of loads of what does not change), and the mark of stores past the cache
METADATA = "!0 = !{}\n!1 = !{i32 1}\n"


def type_text(kind: str, lanes: int) -> str:
    """``f32, 16`` -> ``<16 x float>``."""
    return f"<{lanes} x {LLVM[kind]}>" if lanes else LLVM[kind]


def suffix(kind: str, lanes: int) -> str:
    """How an intrinsic's name ends: ``v16f32``."""
    return f"v{lanes}{kind}" if lanes else kind


def literal(number: float | int | bool, kind: str) -> str:
    """A constant of ``kind`` as LLVM writes it."""
    if kind[0] == "i":
        if kind == "i1":
            return "true" if number else "false"
        bits = BITS[kind]
        n = int(number) & ((1 << bits) - 1)
        return str(n - (1 << bits) if n >> (bits - 1) else n)
    x = float(number)
    if kind == "f32" and math.isfinite(x):
        x = struct.unpack("f", struct.pack("f", x))[0]  # LLVM wants a double that is exactly a float
    if kind in ("f16", "bf16"):
        bits = struct.unpack("I", struct.pack("f", x))[0]
        if kind == "bf16":
            return f"0xR{(bits + 0x7FFF + ((bits >> 16) & 1)) >> 16:04X}" if math.isfinite(x) else f"0xR{bits >> 16:04X}"
        return f"0xH{struct.unpack('H', struct.pack('e', x))[0]:04X}"
    return f"0x{struct.unpack('Q', struct.pack('d', x))[0]:016X}"


class Module:
    """The text of one LLVM module: declarations, constants, functions."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.declared: dict[str, str] = {}
        self.globals: dict[str, str] = {}
        self.functions: list[str] = []

    def declare(self, name: str, signature: str) -> str:
        """``declare("llvm.fma.f32", "float (float, float, float)")``; the name with its @."""
        if name not in self.declared:
            result, _, rest = signature.partition(" (")
            self.declared[name] = f"declare {result} @{name}({rest}"
        return "@" + name

    def table(self, name: str, kind: str, values: Sequence[float | int]) -> str:
        """A private constant array; the name with its @."""
        if name not in self.globals:
            items = ", ".join(f"{LLVM[kind]} {literal(v, kind)}" for v in values)
            self.globals[name] = f"@{name} = private unnamed_addr constant [{len(values)} x {LLVM[kind]}] [{items}], align 64"
        return "@" + name

    def text(self) -> str:
        return "\n".join([f'target triple = "{self.target.triple}"', *self.globals.values(), *self.declared.values(), *self.functions, METADATA])


class Body:
    """One function being written, line by line.

    Args:
        module: where declarations and constants go.
        name: of the function.
        parameters: (LLVM type with attributes, name) of each.
        result: LLVM type of the result.
    """

    def __init__(self, module: Module, name: str, parameters: Sequence[tuple[str, str]], result: str = "void") -> None:
        self.module, self.target, self.name = module, module.target, name
        self.parameters, self.result = list(parameters), result
        self.linkage = ""
        self.lines: list[str] = []
        self.count = 0
        self.roots = 0  # square roots written so far (vectormath/roots.py)
        self.block = "entry"
        self.splats: list[dict[Any, Value]] = [{}]

    # -- lines --------------------------------------------------------------------------------

    def fresh(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def op(self, text: str) -> str:
        """A line with a result: its name."""
        name = self.fresh()
        self.lines.append(f"  {name} = {text}")
        return name

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def labels(self, stem: str, *parts: str) -> list[str]:
        """Fresh block names with a common number: ``j12.head``, ``j12.body``."""
        self.count += 1
        return [f"{stem}{self.count}.{part}" for part in parts]

    def finish(self, ret: str = "ret void") -> None:
        """Close the function and hand it to the module."""
        self.line(ret)
        target = self.target
        attributes = f'nounwind "target-cpu"="{target.cpu}" "prefer-vector-width"="{target.bits}" "min-legal-vector-width"="{target.bits}"'
        head = ", ".join(f"{t} %{n}" for t, n in self.parameters)
        self.module.functions.append("\n".join([f"define {self.linkage}{self.result} @{self.name}({head}) {attributes} {{", "entry:", *self.lines, "}"]))

    # -- values -------------------------------------------------------------------------------

    def value(self, ref: str, kind: str, lanes: int = 0) -> Value:
        return Value(self, ref, kind, lanes)

    def const(self, number: float | int | bool, kind: str, lanes: int = 0) -> Value:
        text = literal(number, kind)
        return Value(self, f"splat ({LLVM[kind]} {text})" if lanes else text, kind, lanes)

    def vector(self, numbers: Sequence[float | int | bool], kind: str) -> Value:
        """A constant vector with these elements."""
        return Value(self, "<" + ", ".join(f"{LLVM[kind]} {literal(n, kind)}" for n in numbers) + ">", kind, len(numbers))

    def splat(self, x: Value, lanes: int) -> Value:
        """A scalar in every lane; a vector as it is."""
        if not lanes or x.lanes:
            return x
        t = LLVM[x.kind]
        one = self.op(f"insertelement <{lanes} x {t}> poison, {t} {x.ref}, i64 0")
        ref = self.op(f"shufflevector <{lanes} x {t}> {one}, <{lanes} x {t}> poison, <{lanes} x i32> zeroinitializer")
        return Value(self, ref, x.kind, lanes)

    def call(self, name: str, result: tuple[str, int], *args: Value) -> Value:
        """An intrinsic or declared function; types are taken from the arguments."""
        types = ", ".join(a.type for a in args)
        out = type_text(*result)
        self.module.declare(name, f"{out} ({types})")
        return Value(self, self.op(f"call {out} @{name}({', '.join(f'{a.type} {a.ref}' for a in args)})"), *result)

    def intrinsic(self, name: str, *args: Value) -> Value:
        """``llvm.<name>.<type>`` of the first argument's type, which is the result's too."""
        a = args[0]
        return self.call(f"llvm.{name}.{suffix(a.kind, a.lanes)}", (a.kind, a.lanes), *args)

    def phi(self, like: Value, *edges: tuple[Value, str]) -> Value:
        text = ", ".join(f"[ {v.ref}, %{block} ]" for v, block in edges)
        return Value(self, self.op(f"phi {like.type} {text}"), like.kind, like.lanes)

    # -- branches ---------------------------------------------------------------------------------

    @contextmanager
    def when(self, condition: Value, stem: str) -> Iterator[None]:
        """``if condition { ... }``."""
        yes, done = self.labels(stem, "yes", "done")
        self.line(f"br i1 {condition.ref}, label %{yes}, label %{done}")
        self.label(yes)
        yield
        self.line(f"br label %{done}")
        self.label(done)

    def either(self, condition: Value, stem: str, yes: Callable[[], None], no: Callable[[], None]) -> None:
        """``if condition { yes() } else { no() }``."""
        first, second, done = self.labels(stem, "yes", "no", "done")
        self.line(f"br i1 {condition.ref}, label %{first}, label %{second}")
        for label, write in ((first, yes), (second, no)):
            self.label(label)
            write()
            self.line(f"br label %{done}")
        self.label(done)

    # -- rare lanes ---------------------------------------------------------------------------

    def any(self, mask: Value) -> Value:
        """Is any lane of an i1 vector true?  An i1 scalar."""
        if not mask.lanes:
            return mask
        return self.call(f"llvm.vector.reduce.or.v{mask.lanes}i1", ("i1", 0), mask)

    def rare(self, mask: Value, usual: Value, slow: Callable[[], Value]) -> Value:
        """``select(mask, slow(), usual)``, where the slow code runs only if some lane needs it."""
        some = self.any(mask)
        go, done = self.labels("rare", "slow", "done")
        before = self.block
        self.line(f"br i1 {some.ref}, label %{go}, label %{done}")
        self.label(go)
        other = select(mask, slow(), usual)
        after = self.block
        self.line(f"br label %{done}")
        self.label(done)
        return self.phi(usual, (usual, before), (other, after))

    # -- memory -------------------------------------------------------------------------------

    def gather(self, table: str, index: Value, kind: str) -> Value:
        """``table[index]`` of a constant array (``Module.table``), i32 or i64 index."""
        t = LLVM[kind]
        if not index.lanes:
            wide = index.to("i64")
            p = self.op(f"getelementptr {t}, ptr {table}, i64 {wide.ref}")
            return Value(self, self.op(f"load {t}, ptr {p}"), kind)
        p = self.op(f"getelementptr {t}, ptr {table}, {index.type} {index.ref}")
        n, bits = index.lanes, BITS[kind]
        out = type_text(kind, n)
        name = f"llvm.masked.gather.{suffix(kind, n)}.v{n}p0"
        self.module.declare(name, f"{out} (<{n} x ptr>, <{n} x i1>, {out})")
        text = f"call {out} @{name}(<{n} x ptr> align {bits // 8} {p}, <{n} x i1> splat (i1 true), {out} poison)"
        return Value(self, self.op(text), kind, n)

    def lookup(self, name: str, values: Sequence[float | int], index: Value, kind: str) -> Value:
        """``values[index]``: through a register's permutation where the processor has one and the table fits, else a gather.

        ``index`` (i32 lanes for 32-bit kinds, i64 for 64-bit ones) must be in range.
        """
        n, lanes = len(values), index.lanes
        per = 512 // BITS[kind]
        if self.target.has("avx512f") and lanes == per and n <= 2 * per:
            short = {"f32": "ps", "f64": "pd"}.get(kind)
            if short is not None:
                padded = [*values, *[0.0] * (2 * per - n)]
                lo, hi = self.vector(padded[:per], kind), self.vector(padded[per:], kind)
                if n <= per:
                    what = {"f32": "sf", "f64": "df"}[kind]
                    return self.call(f"llvm.x86.avx512.permvar.{what}.512", (kind, lanes), lo, index)
                return self.call(f"llvm.x86.avx512.vpermi2var.{short}.512", (kind, lanes), lo, index, hi)
        return self.gather(self.module.table(name, kind, values), index, kind)

    @contextmanager
    def loop(self, start: Value, stop: Value, step: Value, stem: str = "loop") -> Iterator[Loop]:
        """``for (i = start; i < stop; i += step)``; see ``Loop.carry`` for values that go from round to round."""
        loop = Loop(self, start, stop, step, stem)
        yield loop
        loop.close()

    @contextmanager
    def taking(self, counters: str, chunk: Value, chunks: Value, count: Value) -> Iterator[Value]:
        """The numbers below ``count``, shared out among chunks: each has a stretch of its own, so that in one launch after the other a thread meets what
        it has in its cache; then it takes what is left of the others'.  ``counters``: an i64 for each chunk, 0 at first."""
        head, body, done = self.labels("unit", "head", "body", "done")
        with self.loop(chunk, chunk + chunks, self.const(1, "i64"), "stretch") as stretch:
            mine = stretch.index.urem(chunks)
            first, stop = (mine * count).udiv(chunks), ((mine + 1) * count).udiv(chunks)
            counter = self.op(f"getelementptr i64, ptr {counters}, i64 {mine.ref}")
            self.line(f"br label %{head}")
            self.label(head)
            taken = first + self.value(self.op(f"atomicrmw add ptr {counter}, i64 1 monotonic"), "i64")
            self.line(f"br i1 {taken.lt(stop).ref}, label %{body}, label %{done}")
            self.label(body)
            yield taken
            self.line(f"br label %{head}")
            self.label(done)


class Loop:
    """A counted loop; ``index`` is the counter (i64 scalar).  It may run no round at all.

        with f.loop(zero, n, one) as loop:
            total = loop.carry(start)          # the value at the start of each round
            loop.next(total, total + x)        # what it is in the next round
        after = loop.result(total)
    """

    def __init__(self, body: Body, start: Value, stop: Value, step: Value, stem: str) -> None:
        self.f, self.stop, self.step = body, stop, step
        self.head, self.inside, self.latch, self.done = body.labels(stem, "head", "body", "latch", "done")
        before = body.block
        body.line(f"br label %{self.head}")
        body.label(self.head)
        self.before = before
        self.index = Value(body, body.fresh(), "i64")
        self._at = len(body.lines)  # where the phis go
        self.carried: list[tuple[Value, Value, Value | None]] = []
        self._by_ref: dict[str, int] = {}
        self.start = start
        more = body.op(f"icmp slt i64 {self.index.ref}, {stop.ref}")
        body.line(f"br i1 {more}, label %{self.inside}, label %{self.done}")
        body.label(self.inside)

    def carry(self, first: Value) -> Value:
        """A value that starts as ``first``; set its next one with ``next``."""
        v = Value(self.f, self.f.fresh(), first.kind, first.lanes)
        self._by_ref[v.ref] = len(self.carried)
        self.carried.append((v, first, None))
        return v

    def next(self, carried: Value, value: Value) -> None:
        i = self._by_ref[carried.ref]
        self.carried[i] = (carried, self.carried[i][1], value)

    def close(self) -> None:
        f = self.f
        f.line(f"br label %{self.latch}")
        f.label(self.latch)
        after = f.op(f"add nsw i64 {self.index.ref}, {self.step.ref}")
        f.line(f"br label %{self.head}")
        phis = [f"  {self.index.ref} = phi i64 [ {self.start.ref}, %{self.before} ], [ {after}, %{self.latch} ]"]
        for v, first, value in self.carried:
            assert value is not None, "a carried value without next()"
            phis.append(f"  {v.ref} = phi {v.type} [ {first.ref}, %{self.before} ], [ {value.ref}, %{self.latch} ]")
        f.lines[self._at:self._at] = phis
        f.label(self.done)

    def result(self, carried: Value) -> Value:
        """The value after the loop (the phi at its head)."""
        return carried


Number = float | int | bool


class Value:
    """A scalar or vector in a function being written.  Operators are those of its kind (float or signed integer)."""

    __slots__ = ("f", "kind", "lanes", "ref")

    def __init__(self, f: Body, ref: str, kind: str, lanes: int = 0) -> None:
        self.f, self.ref, self.kind, self.lanes = f, ref, kind, lanes

    @property
    def type(self) -> str:
        return type_text(self.kind, self.lanes)

    @property
    def float(self) -> bool:
        return self.kind[0] != "i"

    @property
    def bits(self) -> int:
        return BITS[self.kind]

    def like(self, other: Value | Number) -> Value:
        """A number as a constant of this type; a Value as it is (a scalar is put in every lane)."""
        if isinstance(other, Value):
            return self.f.splat(other, self.lanes) if self.lanes and not other.lanes else other
        return self.f.const(other, self.kind, self.lanes)

    def _binary(self, fop: str, iop: str, other: Value | Number, swap: bool = False) -> Value:
        a, b = self, self.like(other)
        if b.lanes and not a.lanes:
            a = self.f.splat(a, b.lanes)
        assert (a.kind, a.lanes) == (b.kind, b.lanes), f"{fop}/{iop} of {a.type} and {b.type}"
        if swap:
            a, b = b, a
        return Value(self.f, self.f.op(f"{fop if a.float else iop} {a.type} {a.ref}, {b.ref}"), a.kind, a.lanes)

    def __add__(self, other: Value | Number) -> Value:
        return self._binary("fadd", "add", other)

    def __radd__(self, other: Value | Number) -> Value:
        return self._binary("fadd", "add", other, True)

    def __sub__(self, other: Value | Number) -> Value:
        return self._binary("fsub", "sub", other)

    def __rsub__(self, other: Value | Number) -> Value:
        return self._binary("fsub", "sub", other, True)

    def __mul__(self, other: Value | Number) -> Value:
        return self._binary("fmul", "mul", other)

    def __rmul__(self, other: Value | Number) -> Value:
        return self._binary("fmul", "mul", other, True)

    def __truediv__(self, other: Value | Number) -> Value:
        return self._binary("fdiv", "sdiv", other)

    def __rtruediv__(self, other: Value | Number) -> Value:
        return self._binary("fdiv", "sdiv", other, True)

    def udiv(self, other: Value | Number) -> Value:
        return self._binary("", "udiv", other)

    def rem(self, other: Value | Number) -> Value:
        """The remainder of a division that rounds to zero."""
        return self._binary("frem", "srem", other)

    def urem(self, other: Value | Number) -> Value:
        return self._binary("", "urem", other)

    def __and__(self, other: Value | Number) -> Value:
        return self._binary("", "and", other)

    def __or__(self, other: Value | Number) -> Value:
        return self._binary("", "or", other)

    def __xor__(self, other: Value | Number) -> Value:
        return self._binary("", "xor", other)

    def __lshift__(self, other: Value | Number) -> Value:
        return self._binary("", "shl", other)

    def __rshift__(self, other: Value | Number) -> Value:
        """The arithmetic shift: copies of the sign come in."""
        return self._binary("", "ashr", other)

    def lshr(self, other: Value | Number) -> Value:
        return self._binary("", "lshr", other)

    def __neg__(self) -> Value:
        if self.float:
            return Value(self.f, self.f.op(f"fneg {self.type} {self.ref}"), self.kind, self.lanes)
        return 0 - self

    def __invert__(self) -> Value:
        return self ^ (True if self.kind == "i1" else -1)

    # -- comparison: i1.  Ordered ones are false for NaN; ``ne`` and those with u are true ---------

    def _compare(self, fop: str, iop: str, other: Value | Number) -> Value:
        a, b = self, self.like(other)
        if b.lanes and not a.lanes:
            a = self.f.splat(a, b.lanes)
        assert (a.kind, a.lanes) == (b.kind, b.lanes), f"comparison of {a.type} and {b.type}"
        word = f"fcmp {fop}" if a.float else f"icmp {iop}"
        return Value(self.f, self.f.op(f"{word} {a.type} {a.ref}, {b.ref}"), "i1", a.lanes)

    def lt(self, other: Value | Number) -> Value:
        return self._compare("olt", "slt", other)

    def le(self, other: Value | Number) -> Value:
        return self._compare("ole", "sle", other)

    def gt(self, other: Value | Number) -> Value:
        return self._compare("ogt", "sgt", other)

    def ge(self, other: Value | Number) -> Value:
        return self._compare("oge", "sge", other)

    def eq(self, other: Value | Number) -> Value:
        return self._compare("oeq", "eq", other)

    def ne(self, other: Value | Number) -> Value:
        return self._compare("une", "ne", other)

    def ult(self, other: Value | Number) -> Value:
        """Unsigned integers: less.  Floats: less or unordered (a NaN)."""
        return self._compare("ult", "ult", other)

    def ugt(self, other: Value | Number) -> Value:
        return self._compare("ugt", "ugt", other)

    def ule(self, other: Value | Number) -> Value:
        return self._compare("ule", "ule", other)

    def uge(self, other: Value | Number) -> Value:
        return self._compare("uge", "uge", other)

    def isnan(self) -> Value:
        return self._compare("uno", "", self)

    def unordered(self, other: Value) -> Value:
        """Is one of the two NaN?"""
        return self._compare("uno", "", other)

    # -- functions with an instruction of their own -----------------------------------------------

    def sqrt(self) -> Value:
        return self.f.intrinsic("sqrt", self)

    def abs(self) -> Value:
        if self.float:
            return self.f.intrinsic("fabs", self)
        return select(self.lt(0), -self, self)

    def floor(self) -> Value:
        return self.f.intrinsic("floor", self)

    def ceil(self) -> Value:
        return self.f.intrinsic("ceil", self)

    def trunc(self) -> Value:
        return self.f.intrinsic("trunc", self)

    def rint(self) -> Value:
        """To the nearest whole number, halves to even."""
        return self.f.intrinsic("rint", self)

    def popcount(self) -> Value:
        return self.f.intrinsic("ctpop", self)

    def maximum(self, other: Value | Number) -> Value:
        """x86's: the second operand where the two are unordered or equal.  ``a.maximum(b)``: b if either is NaN."""
        b = self.like(other)
        return select(self.gt(b), self, b)

    def minimum(self, other: Value | Number) -> Value:
        b = self.like(other)
        return select(self.lt(b), self, b)

    # -- other kinds ------------------------------------------------------------------------------

    def bitcast(self, kind: str) -> Value:
        """The same bits as a kind of the same width: f32 <-> i32, f64 <-> i64."""
        if kind == self.kind:
            return self
        assert BITS[kind] == BITS[self.kind]
        return Value(self.f, self.f.op(f"bitcast {self.type} {self.ref} to {type_text(kind, self.lanes)}"), kind, self.lanes)

    def to(self, kind: str, signed: bool = True) -> Value:
        """The same number as another kind.  Floats to integers are cut; out of range they are undefined, as in C."""
        if kind == self.kind:
            return self
        a, b = self.float, kind[0] != "i"
        if a and b:
            if {kind, self.kind} == {"f16", "bf16"}:
                return self.to("f32").to(kind)
            word = "fpext" if BITS[kind] > self.bits else "fptrunc"
        elif a:
            word = "fptosi" if signed else "fptoui"
        elif b:
            word = "sitofp" if signed and self.kind != "i1" else "uitofp"
        elif BITS[kind] > self.bits:
            word = "sext" if signed and self.kind != "i1" else "zext"
        else:
            word = "trunc"
        return Value(self.f, self.f.op(f"{word} {self.type} {self.ref} to {type_text(kind, self.lanes)}"), kind, self.lanes)

    def lane(self, i: int) -> Value:
        """One element as a scalar."""
        return Value(self.f, self.f.op(f"extractelement {self.type} {self.ref}, i64 {i}"), self.kind)

    def __repr__(self) -> str:
        return f"<{self.type} {self.ref}>"


def fma(a: Value, b: Value | Number, c: Value | Number) -> Value:
    """``a * b + c``, rounded once."""
    b, c = a.like(b), a.like(c)
    lanes = max(a.lanes, b.lanes, c.lanes)
    a, b, c = (a.f.splat(v, lanes) if lanes and not v.lanes else v for v in (a, b, c))
    return a.f.intrinsic("fma", a, b, c)


def select(condition: Value, yes: Value, no: Value | Number) -> Value:
    """``yes`` where the condition (i1) holds, else ``no``.  ``yes`` is a Value; write numbers with ``like``."""
    no = yes.like(no)
    lanes = max(yes.lanes, no.lanes, condition.lanes)
    if lanes:
        yes, no = (v.f.splat(v, lanes) if not v.lanes else v for v in (yes, no))
    text = f"select {condition.type} {condition.ref}, {yes.type} {yes.ref}, {no.type} {no.ref}"
    return Value(yes.f, yes.f.op(text), yes.kind, yes.lanes)


def copysign(magnitude: Value, sign: Value) -> Value:
    return magnitude.f.intrinsic("copysign", magnitude, magnitude.like(sign))


def shuffle(a: Value, b: Value, lanes: Sequence[int]) -> Value:
    """Elements of ``a`` (0 ...) and ``b`` (after those of ``a``) in a new order."""
    mask = ", ".join(f"i32 {i}" for i in lanes)
    text = f"shufflevector {a.type} {a.ref}, {b.type} {b.ref}, <{len(lanes)} x i32> <{mask}>"
    return Value(a.f, a.f.op(text), a.kind, len(lanes))
