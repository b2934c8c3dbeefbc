"""Loads and stores of a kernel: addresses built up loop by loop, vectors by the kind of stride.

    stride 0      one element, in every lane
    stride 1      a vector; masked at the end of a range
    stride -1     a vector, reversed
    stride 2      with that of the next element, which is the other part of a complex number: two vectors, taken apart or put together
    stride 2..4   as many vectors with masks, of which every so many lanes are used, where the processor has masks
    other         gathered or scattered, element by element
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard

from graphc.backends.llvm.elements import loaded, memory_kind, stored
from graphc.backends.llvm.memory import load, store
from graphc.backends.llvm.values import BITS, Value, shuffle
from graphc.dims import Size
from graphc.kernel import Index, Instr, Kernel

if TYPE_CHECKING:
    from graphc.backends.llvm.kernels import Emitter

#: bytes of all operands from which stores go past the cache: a part of the last one, which others use too
PAST_CACHE = 20 << 20

#: elements from one to the next up to which vectors with masks are read rather than elements
MOST_SPACED = 4

__all__ = ["Access"]


class Access:
    """The memory operations of one kernel being written."""

    def __init__(self, emitter: Emitter) -> None:
        self.e = emitter
        self.pairs = _pairs(emitter.kernel)
        self.waiting: dict[Instr, Sequence[Value]] = {}  # what one store of a pair has left for the other

    # -- addresses ----------------------------------------------------------------------------

    def prepare(self, operand: int, index: Index, ranges: frozenset[int]) -> None:
        """Write the parts of an address that depend on these ranges alone."""
        if not index.gathers and not self.staged(operand, index) and not self.private(operand):
            self.scalar_pointer(operand, index, ranges)

    def staged(self, operand: int, index: Index) -> bool:
        """Does it go through a buffer on the stack?"""
        return self.e.staging is not None and (operand, index) in self.e.staging.names

    def private(self, operand: int) -> bool:
        """Is it a temp of which each lane has its own?"""
        e = self.e
        return e.kernel.operands[operand].mode == "temp" and e.vector in e.grid_set

    def private_pointer(self, v: Instr, n: int) -> str:
        """A temp's vector at the current indices, where lanes are points of the grid."""
        e, f = self.e, self.e.f
        assert v.index is not None
        at = f.const(0, "i64")
        for r, stride in v.index.terms:
            at = at + e.index[r] * e.size(stride)
        at = at * (e.lanes * e.unroll) + n * e.lanes
        element = Value(f, "", memory_kind(v.dtype)).type
        return f.op(f"getelementptr {element}, ptr {e.pointer(v.operand).ref}, i64 {at.ref}")

    def scalar_pointer(self, operand: int, index: Index, ranges: frozenset[int]) -> Value:
        """The address at the current indices of ``ranges`` (but for the vector range)."""
        e = self.e
        terms = tuple((r, s) for r, s in index.terms if r in ranges and r != e.vector and r in e.index)
        return self._pointer(operand, index.offset, terms)

    def _pointer(self, operand: int, offset: Size, terms: Sequence[tuple[int, Size]]) -> Value:
        e, f = self.e, self.e.f
        key = (operand, offset, tuple(terms), tuple(e.index[r].ref for r, _ in terms))
        for scope in reversed(e.scopes):
            found = scope.pointers.get(key)
            if found is not None:
                return found
        element = Value(f, "", memory_kind(e.kernel.operands[operand].dtype)).type
        if not terms:
            base = e.pointer(operand)
            if offset == 0:
                return base
            ref = f.op(f"getelementptr {element}, ptr {base.ref}, i64 {e.size(offset).ref}")
        else:
            # outer loops first, so that what they give is found again
            order = sorted(terms, key=lambda t: self._depth(t[0]))
            inner = order[-1]
            base = self._pointer(operand, offset, tuple(t for t in terms if t is not inner))
            r, stride = inner
            step = e.index[r] if stride == 1 else e.index[r] * e.size(stride)
            ref = f.op(f"getelementptr {element}, ptr {base.ref}, i64 {step.ref}")
        pointer = Value(f, ref, "i64")
        e.scopes[-1].pointers[key] = pointer
        return pointer

    def _depth(self, r: int) -> int:
        return list(self.e.index).index(r)

    def _stride(self, index: Index) -> Size:
        return next((s for r, s in index.terms if r == self.e.vector), 0)

    # -- loads --------------------------------------------------------------------------------

    def load(self, v: Instr, wide: bool) -> list[Value]:
        e, f = self.e, self.e.f
        assert v.index is not None
        kind = memory_kind(v.dtype)
        if e.staging is not None and self.staged(v.operand, v.index):
            return e.staging.load(v)
        if v.index.gathers:
            return self._gathered(v, kind)
        if self.private(v.operand):
            shape = Value(f, "", kind, e.lanes)
            return [loaded(load(self.private_pointer(v, n), shape), v.dtype) for n in range(e.group)]
        base = self.scalar_pointer(v.operand, v.index, frozenset(e.index))
        if v.args:
            return self._where(v, base, kind, wide)
        if not wide:
            return [loaded(load(base.ref, Value(f, "", kind)), v.dtype)]
        stride = self._stride(v.index)
        if self._paired(v, stride):
            return self._part(v, kind)
        return [loaded(self._vector_load(base, kind, stride, n, e.mask(n)), v.dtype) for n in range(e.group)]

    # -- pairs --------------------------------------------------------------------------------

    def _paired(self, v: Instr, stride: Size) -> bool:
        """Does it go with another access to the elements in between?"""
        return v in self.pairs and stride == 2 and self.e.staging is None and (self.e.masked or not self.e.masks)

    def _part(self, v: Instr, kind: str) -> list[Value]:
        """Every other element of vectors that are read once for both."""
        e, f, w = self.e, self.e.f, self.e.lanes
        first, part = self.pairs[v]
        assert first.index is not None
        found = e.scopes[-1].pairs.get(first)
        if found is None:
            base = self.scalar_pointer(v.operand, first.index, frozenset(e.index))
            shape, found = Value(f, "", kind, w), []
            for n in range(e.group):
                low, high = (load(self._half(base, kind, n, k), shape, self._half_mask(n, k)) for k in range(2))
                found.append((low, high))
            e.scopes[-1].pairs[first] = found
        return [loaded(shuffle(low, high, range(part, 2 * w, 2)), v.dtype) for low, high in found]

    def _half(self, base: Value, kind: str, n: int, k: int) -> str:
        """The address of one of the two vectors that the n-th pair of vectors lies in."""
        e, f = self.e, self.e.f
        at = e.index[e.vector] * 2
        if n or k:
            at = at + (2 * n + k) * e.lanes
        return f.op(f"getelementptr {Value(f, '', kind).type}, ptr {base.ref}, i64 {at.ref}")

    def _half_mask(self, n: int, k: int) -> Value | None:
        mask, w = self.e.mask(n), self.e.lanes
        return None if mask is None else shuffle(mask, mask, [(k * w + lane) // 2 for lane in range(w)])

    def _store_pair(self, v: Instr, xs: Sequence[Value], kind: str) -> None:
        """Both parts at once, when the second one comes."""
        e, w = self.e, self.e.lanes
        first, part = self.pairs[v]
        other = self.waiting.pop(first, None)
        if other is None:
            self.waiting[first] = xs
            return
        assert first.index is not None
        base = self.scalar_pointer(v.operand, first.index, frozenset(e.index))
        orders = [[(k * w + lane) // 2 + (lane % 2) * w for lane in range(w)] for k in range(2)]
        both = [(a, b) if part else (b, a) for a, b in zip(other, xs, strict=True)]
        halves = [shuffle(a, b, order) for a, b in both for order in orders]

        def write(how: str) -> None:
            for n, x in enumerate(halves):
                store(self._half(base, kind, n // 2, n % 2), x, self._half_mask(n // 2, n % 2), how)

        self._written(v, base, xs[0], 2, write)

    # -- more loads ---------------------------------------------------------------------------

    def _where(self, v: Instr, base: Value, kind: str, wide: bool) -> list[Value]:
        """A load under a condition: zeros are read where it is False, by a mask or from another place."""
        e, f, w = self.e, self.e.f, self.e.lanes
        assert v.index is not None
        conditions, stride = e.value(v.args[0]), self._stride(v.index)
        found = []
        for n in range(e.group if wide else 1):
            condition, before = conditions[n] if len(conditions) > 1 else conditions[0], e.mask(n)
            if wide and stride != 1:
                mask = f.splat(condition, w)
                found.append(loaded(self._vector_load(base, kind, stride, n, mask if before is None else before & mask), v.dtype))
                continue
            # the place of a mask without any lane may be in no page: processors mask that at the cost of an exception
            f.module.globals["zeros"] = "@zeros = private unnamed_addr constant [512 x i8] zeroinitializer, align 64"
            shape = Value(f, "", kind, w if wide else 0)
            place = base.ref
            if wide:
                place = f.op(f"getelementptr {Value(f, '', kind).type}, ptr {base.ref}, i64 {(e.index[e.vector] + n * w).ref}")
            some = f.any(condition) if condition.lanes else condition
            place = f.op(f"select i1 {some.ref}, ptr {place}, ptr @zeros")
            if not wide or (before is None and not condition.lanes):
                found.append(loaded(load(place, shape), v.dtype))
                continue
            mask = f.splat(condition, w) if before is None else before & f.splat(condition, w)
            found.append(loaded(load(place, shape, mask), v.dtype))
        return found

    def _vector_load(self, base: Value, kind: str, stride: Size, n: int, mask: Value | None) -> Value:
        e, f, w = self.e, self.e.f, self.e.lanes
        shape = Value(f, "", kind, w)
        element = Value(f, "", kind).type
        if stride in (1, -1):
            at = e.index[e.vector]
            if n:
                at = at + n * w
            if stride == -1:
                at = 0 - at - (w - 1)
            p = f.op(f"getelementptr {element}, ptr {base.ref}, i64 {at.ref}")
            if mask is not None and stride == -1:
                mask = shuffle(mask, mask, range(w - 1, -1, -1))
            x = load(p, shape, mask)
            return shuffle(x, x, range(w - 1, -1, -1)) if stride == -1 else x
        if self._spaced(stride):
            return self._spaced_load(base, shape, stride, n, mask)
        offsets = self._offsets(stride, n)
        return self._gather(base, offsets, kind, mask)

    def _spaced(self, stride: Size) -> TypeGuard[int]:
        return isinstance(stride, int) and 2 <= stride <= MOST_SPACED and self.e.masked

    def _spaced_load(self, base: Value, shape: Value, stride: int, n: int, mask: Value | None) -> Value:
        """Every ``stride``-th element of as many vectors; the others are not read."""
        w = shape.lanes
        first, *others = [load(p, shape, some) for p, some in self._spaced_parts(base, shape, stride, n, mask)]
        found = shuffle(first, first, [lane * stride % w for lane in range(w)])  # later lanes are set by the other parts
        for part, x in enumerate(others, 1):
            found = shuffle(found, x, [w + lane * stride % w if lane * stride // w == part else lane for lane in range(w)])
        return found

    def _spaced_parts(self, base: Value, shape: Value, stride: int, n: int, mask: Value | None) -> Iterator[tuple[str, Value]]:
        """The address of each of ``stride`` vectors, and a mask of its lanes that count."""
        e, f, w = self.e, self.e.f, shape.lanes
        at = e.index[e.vector] * stride
        for part in range(stride):
            first = part * w
            lanes = [(first + lane) // stride if (first + lane) % stride == 0 else -1 for lane in range(w)]
            if mask is None:
                some = f.vector([lane >= 0 for lane in lanes], "i1")
            else:
                some = shuffle(mask, f.const(False, "i1", w), [lane if lane >= 0 else w for lane in lanes])
            place = at + (n * w * stride + first) if n or part else at
            yield f.op(f"getelementptr {Value(f, '', shape.kind).type}, ptr {base.ref}, i64 {place.ref}"), some

    def _offsets(self, stride: Size, n: int) -> Value:
        """Element offsets of the lanes."""
        e, f, w = self.e, self.e.f, self.e.lanes
        positions = f.splat(e.index[e.vector], w) + f.vector([n * w + lane for lane in range(w)], "i64")
        return positions * f.splat(e.size(stride), w)

    def _gather(self, base: Value, offsets: Value, kind: str, mask: Value | None) -> Value:
        f, w = self.e.f, offsets.lanes
        element, shape = Value(f, "", kind).type, Value(f, "", kind, w)
        p = f.op(f"getelementptr {element}, ptr {base.ref}, {offsets.type} {offsets.ref}")
        name = f"llvm.masked.gather.v{w}{kind}.v{w}p0"
        f.module.declare(name, f"{shape.type} (<{w} x ptr>, <{w} x i1>, {shape.type})")
        text = f"call {shape.type} @{name}(<{w} x ptr> align {BITS[kind] // 8} {p}, <{w} x i1> {_lanes(mask)}, {shape.type} zeroinitializer)"
        return Value(f, f.op(text), kind, w)

    def _gathered(self, v: Instr, kind: str) -> list[Value]:
        """A load whose position is read from other values."""
        e, f = self.e, self.e.f
        assert v.index is not None
        base = self.scalar_pointer(v.operand, v.index._replace(gathers=()), frozenset(e.index))
        stride = self._stride(v.index)
        parts = [(e.value(a), s) for a, s in v.index.gathers]
        if stride in (1, -1) and not any(x.lanes for xs, _ in parts for x in xs):  # one place for all lanes: vectors from there
            element = Value(f, "", kind).type
            for xs, s in parts:
                step = xs[0].to("i64")
                base = Value(f, f.op(f"getelementptr {element}, ptr {base.ref}, i64 {(step * e.size(s) if s != 1 else step).ref}"), "i64")
            return [loaded(self._vector_load(base, kind, stride, n, e.mask(n)), v.dtype) for n in range(e.group)]
        count = max([e.group if stride != 0 else 1, *(len(xs) for xs, _ in parts)])
        found = []
        for n in range(count):
            total: Value | None = self._offsets(stride, n) if stride != 0 else None
            for xs, s in parts:
                x = (xs[n] if len(xs) > 1 else xs[0]).to("i64")
                x = x * e.size(s) if s != 1 else x
                total = x if total is None else total + x if total.lanes or not x.lanes else x + total
            assert total is not None
            if total.lanes:
                found.append(loaded(self._gather(base, total, kind, e.mask(n)), v.dtype))
            else:
                one = Value(f, "", kind)
                p = f.op(f"getelementptr {one.type}, ptr {base.ref}, i64 {total.ref}")
                found.append(loaded(load(p, one), v.dtype))
        return found

    # -- stores -------------------------------------------------------------------------------

    def store(self, v: Instr, values: Sequence[Value]) -> None:
        e, f = self.e, self.e.f
        assert v.index is not None
        kind = memory_kind(v.dtype)
        if e.staging is not None and self.staged(v.operand, v.index):
            e.staging.store(v, values)
            return
        if self.private(v.operand):
            for n in range(e.group):
                x = f.splat(stored(values[n] if len(values) > 1 else values[0], v.dtype), e.lanes)
                store(self.private_pointer(v, n), x)
            return
        base = self.scalar_pointer(v.operand, v.index, frozenset(e.index))
        stride = self._stride(v.index)
        if stride == 0:
            x = stored(values[0], v.dtype)
            store(base.ref, x.lane(0) if x.lanes else x)
            return
        xs = [f.splat(stored(values[n] if len(values) > 1 else values[0], v.dtype), e.lanes) for n in range(e.group)]
        if self._paired(v, stride):
            self._store_pair(v, xs, kind)
            return

        def write(how: str) -> None:
            for n, x in enumerate(xs):
                self._vector_store(base, x, kind, stride, n, how)

        self._written(v, base, xs[0], 1, write)

    def _written(self, v: Instr, base: Value, x: Value, each: int, write: Callable[[str], None]) -> None:
        """``write`` vectors like ``x``, ``each`` for a vector of elements, into the cache or past it."""
        f = self.e.f
        past = self._goes_past_cache(v, base, x, each)
        if past is None:
            write("")
            return
        around, through, done = f.labels("store", "around", "through", "done")
        f.line(f"br i1 {past.ref}, label %{around}, label %{through}")
        for label, how in ((around, f"align {x.bits * x.lanes // 8}, !nontemporal !1"), (through, "")):
            f.label(label)
            write(how)
            f.line(f"br label %{done}")
        f.label(done)

    def _goes_past_cache(self, v: Instr, base: Value, x: Value, each: int) -> Value | None:
        """Whether the vectors of a store shall not be kept in the cache: where they are aligned and the kernel moves more than the cache holds; None: never."""
        e, f = self.e, self.e.f
        operand, nbytes = e.kernel.operands[v.operand], x.bits * x.lanes // 8
        assert v.index is not None
        if not e.streams or not e.target.x86 or e.masks or self._stride(v.index) != each or operand.alias >= 0 or nbytes < 16:
            return None
        moved: Size = 0
        for o in e.kernel.operands:
            moved = moved + o.size * o.dtype.itemsize
        if isinstance(moved, int) and moved < PAST_CACHE:
            return None
        at = f.value(f.op(f"ptrtoint ptr {base.ref} to i64"), "i64") + e.index[e.vector] * (each * v.dtype.itemsize)
        e.past_cache = True
        return (at & (nbytes - 1)).eq(0) & e.size(moved).ge(PAST_CACHE)

    def _vector_store(self, base: Value, x: Value, kind: str, stride: Size, n: int, how: str = "") -> None:
        e, f, w = self.e, self.e.f, self.e.lanes
        element = Value(f, "", kind).type
        if stride == 1:
            at = e.index[e.vector]
            if n:
                at = at + n * w
            p = f.op(f"getelementptr {element}, ptr {base.ref}, i64 {at.ref}")
            store(p, x, e.mask(n), how)
            return
        if self._spaced(stride) and e.target.has("avx512f"):  # AMD's AVX2 stores with masks are slow
            for part, (p, some) in enumerate(self._spaced_parts(base, x, stride, n, e.mask(n))):
                store(p, shuffle(x, x, [(part * w + lane) // stride for lane in range(w)]), some)
            return
        offsets = self._offsets(stride, n)
        p = f.op(f"getelementptr {element}, ptr {base.ref}, {offsets.type} {offsets.ref}")
        name = f"llvm.masked.scatter.v{w}{kind}.v{w}p0"
        f.module.declare(name, f"void ({x.type}, <{w} x ptr>, <{w} x i1>)")
        f.line(f"call void @{name}({x.type} {x.ref}, <{w} x ptr> align {BITS[kind] // 8} {p}, <{w} x i1> {_lanes(e.mask(n))})")


def _pairs(kernel: Kernel) -> dict[Instr, tuple[Instr, int]]:
    """The accesses that go two by two, elements side by side: the first of the two, and which of them it is.  Stores of one stage."""
    found: dict[Instr, tuple[Instr, int]] = {}
    groups: dict[tuple[int, int, object], dict[int, Instr]] = {}
    bases: dict[tuple[int, int, object], Size] = {}
    for number, stage in enumerate((*kernel.stages, *kernel.finish)):
        for i in stage.body:
            v = kernel.values[i]
            if v.index is None or (kernel.vector, 2) not in v.index.terms or v.index.gathers or (v.op == "load" and v.args):
                continue
            key = (v.operand, -1 if v.op == "load" else number, v.index.terms)
            away = v.index.offset - bases.setdefault(key, v.index.offset)
            if isinstance(away, int):
                groups.setdefault(key, {})[away] = v
    for group in groups.values():
        for away in sorted(group):
            first, second = group[away], group.get(away + 1)
            if second is not None and first not in found:
                found[first], found[second] = (first, 0), (first, 1)
    return found


def _lanes(mask: Value | None) -> str:
    return "splat (i1 true)" if mask is None else mask.ref
