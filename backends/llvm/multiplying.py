"""Matrix products in the driver: which form each takes, and how it is shared out among threads.

    matrices of one product (batch)     shared out where there are several for each thread, or one is too small for all
    rows of a matrix, or columns        where one matrix is large enough
    blocks (blocked.py)                 large matrices: the rows or the columns of the result, whichever are more

The bits of a result are the same in each form and for any number of threads: every element is summed from the first to the last k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc import dims
from graphc.backends.llvm import amx, costs
from graphc.backends.llvm.blocked import Shape, blocked_module
from graphc.backends.llvm.costs import thinness
from graphc.backends.llvm.paired import has_pairs, paired_module
from graphc.backends.llvm.paneled import paneled_module
from graphc.backends.llvm.products import Product as Spec
from graphc.backends.llvm.products import product_module, row_grain
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Body, Module, Value, select
from graphc.dims import Size
from graphc.kernel import Product, Program, View
from graphc.processors import usable_cpus

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LEAST_PART", "MOST_PARTS", "Multiplying", "kind_of", "most_chunks"]

#: bytes of B from which blocks pay, and rows and columns of C below which they never do
LARGE, LEAST_ROWS, LEAST_COLUMNS = 8 << 20, 24, 48
#: rows of A this far apart share few places of a cache: blocks pay from so many of them, and so many rows of C, on
PAGE, FAR, FAR_ROWS = 4096, 256, 96
#: sums from which pairs pay
PAIRED = 32
#: rows or columns of C in a chunk of a blocked product at least, and chunks at most (each has scratch memory of its own)
LEAST_CHUNK, MOST_CHUNKS = 128, 64
#: parts for each thread at most, since one may be held up: of a product's rows, of a contraction's columns; and rows of a part at least, in the mean
MOST_PARTS, LEAST_PART = 4, 12
#: rows of C up to which several threads take columns, so that each reads a part of B only
FEW_ROWS = 64

_PRODUCT = "void (ptr, ptr, ptr, i64, i64, i64, i64, i64, i64, i64, i64, ptr, i64, i64)"
_NAMES = ("c", "a", "b", "m", "n", "k", "s0", "s1", "s2", "s3", "s4")


class _Matrices(NamedTuple):
    """One product of two matrices: its function, the addresses of C, A and B, then m, n, k, and the strides of A, B, C (rows)."""

    name: str
    pointers: Sequence[str]
    numbers: Sequence[str]

    def args(self, scratch: str, lo: str, hi: str) -> str:
        return ", ".join([*(f"ptr {p}" for p in self.pointers), *(f"i64 {x}" for x in self.numbers), f"ptr {scratch}", f"i64 {lo}", f"i64 {hi}"])

    def slots(self) -> list[str]:
        return [f"ptr @{self.name}", *(f"ptr {p}" for p in self.pointers), *(f"i64 {x}" for x in self.numbers)]


def most_chunks() -> int:
    """Chunks of a blocked product at most."""
    return min(MOST_CHUNKS, usable_cpus())


class Multiplying:
    """A part of the driver's Writer."""

    program: Program
    target: Target
    module: Module
    f: Body
    kernels: dict[str, str]
    modules: dict[Any, str]
    scratch: Size
    serial: int  # nanoseconds of work up to which a step stays on one thread
    alone: bool

    if TYPE_CHECKING:
        address: Callable[[int], str]
        size: Callable[[Size], Value]
        scratch_address: Callable[[], str]
        fill: Callable[[Sequence[str]], None]

    def product(self, step: Product) -> None:
        """A product of matrices, or of many."""
        a, b, out = step.a, step.b, step.out
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        dtype = self.program.slabs[a.slab].dtype
        strides = [a.strides[-2], a.strides[-1], b.strides[-2], b.strides[-1], out.strides[-2]]
        if m == 1 and n != 1 and step.adds == 0:  # C' = B'A': the columns become rows, which can be shared out, and B need not be packed
            a, b = b, a
            m, n, strides = n, m, [strides[3], strides[2], strides[1], strides[0], 1]
        spec = _spec(dtype, m, n, k, strides)
        views = (out, a, b)
        bytes_ = [self.program.slabs[v.slab].dtype.itemsize for v in views]
        starts = [self.size(v.offset * n) for v, n in zip(views, bytes_, strict=True)]
        lead = out.shape[:-2]
        steps = [[v.strides[axis] * n for v, n in zip(views, bytes_, strict=True)] for axis in range(len(lead))]

        def each(axis: int, offsets: Sequence[Value], matrix: Callable[[Sequence[Value]], None]) -> None:
            """One matrix after the other."""
            if axis == len(lead):
                matrix(offsets)
                return
            with self.f.loop(self.f.const(0, "i64"), self.size(lead[axis]), self.f.const(1, "i64"), "batch") as loop:
                each(axis + 1, [o + loop.index * self.size(s) for o, s in zip(offsets, steps[axis], strict=True)], matrix)

        if self.alone:  # blocks of a sweep are small, and fit the cache
            spec = replace(spec, wide=self.program.slabs[out.slab].dtype != dtype)
            each(0, starts, lambda offsets: self._alone(step, spec, dtype, views, offsets, (m, n, k, *strides)))
            return
        large = self._large(spec, dtype, m, n, k, strides)
        tiles = self._on_tiles(spec.kind, m, n, k)

        def matrix(offsets: Sequence[Value]) -> None:
            pointers = [self.f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {o.ref}") for v, o in zip(views, offsets, strict=True)]
            numbers = [self.size(x).ref for x in (m, n, k, *strides)]

            def usual() -> None:
                if large is True:
                    self._in_blocks(spec.kind, dtype, pointers, numbers, m, n, k)
                elif large is False:
                    self._in_rows(spec, dtype, pointers, numbers, m, n, k)
                else:
                    self.f.either(large, "large", lambda: self._in_blocks(spec.kind, dtype, pointers, numbers, m, n, k),
                                  lambda: self._in_rows(spec, dtype, pointers, numbers, m, n, k))

            if tiles is False:
                usual()
            elif tiles is True:
                self._in_blocks(spec.kind, dtype, pointers, numbers, m, n, k, tiles=True)
            else:
                self.f.either(tiles, "tiles", lambda: self._in_blocks(spec.kind, dtype, pointers, numbers, m, n, k, tiles=True), usual)

        if not lead or large is True or tiles is True or dims.product(lead) == 1:
            each(0, starts, matrix)
            return
        many = self._many(dims.product(lead), m * n * k * thinness(m, n))
        if tiles is not False:  # they have other bits, so the number of threads must not decide
            many = many & ~tiles
        self.f.either(many, "batch",
                      lambda: self._matrices(spec, dtype, [self.address(v.slab) for v in views], starts, lead, steps, (m, n, k, *strides)),
                      lambda: each(0, starts, matrix))

    def _alone(self, step: Product, spec: Spec, dtype: np.dtype[Any], views: Sequence[View], offsets: Sequence[Value], numbers: Sequence[Size]) -> None:
        """A matrix of a product in a sweep, on this thread.  Numbers of 16 bits in blocks, where each is widened (or paired) once and not for each tile."""
        pointers = [self.f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {o.ref}") for v, o in zip(views, offsets, strict=True)]
        refs, (m, n, k) = [self.size(x).ref for x in numbers], numbers[:3]
        packed: bool | Value = spec.kind in ("f16", "bf16")
        for size, least in zip((m, n, k), (LEAST_ROWS, LEAST_COLUMNS, PAIRED), strict=True) if packed else ():
            packed = _and(packed, self._compare(size, least))

        def in_rows(adds: bool) -> None:
            self._rows(replace(spec, adds=adds), dtype, pointers, refs, m, n, k, True)

        def in_blocks(adds: bool) -> None:
            shape = Shape(spec.kind, self.target)
            name = self.made(paired_module if has_pairs(spec.kind, self.target) else blocked_module, spec.kind, self.target, spec.wide, adds)
            self.module.declare(name, _PRODUCT)
            self.scratch = dims.dim_max(self.scratch, (shape.scratch * shape.bytes + 63) // 64 * 64)
            self.f.line(f"call void @{name}({_Matrices(name, pointers, refs).args(self.scratch_address(), '0', self.size(m).ref)})")

        def rows(adds: bool) -> None:
            if isinstance(packed, bool):
                (in_blocks if packed else in_rows)(adds)
            else:
                self.f.either(packed, "packed", lambda: in_blocks(adds), lambda: in_rows(adds))

        if isinstance(step.adds, int):
            rows(step.adds != 0)
        else:
            self.f.either(self.size(step.adds).eq(0), "begins", lambda: rows(False), lambda: rows(True))

    # -- which form -------------------------------------------------------------------------------

    def _large(self, spec: Spec, dtype: np.dtype[Any], m: Size, n: Size, k: Size, strides: Sequence[Size]) -> bool | Value:
        """Do blocks pay?  Figures are in docs/products.md."""
        if spec.kind == "bool":
            return False
        far: Size | None = None
        if spec.a_unit == "row":
            far = strides[1] * dtype.itemsize
        elif spec.a_unit is None:
            far = PAGE  # at every element, perhaps
        enough = _and(self._compare(m, LEAST_ROWS), self._compare(n, LEAST_COLUMNS))
        if enough is False:
            return False
        if has_pairs(spec.kind, self.target):
            return _and(enough, self._compare(k, PAIRED))
        big: bool | Value = self._compare(k * n * dtype.itemsize, LARGE)
        if far is not None:
            apart = self._apart(far)
            deep = self._compare(k, FAR if dtype.itemsize < 8 else FAR // 4)
            big = _or(big, _and(_and(apart, deep), self._compare(m, FAR_ROWS)))
        return _and(enough, big)

    def _on_tiles(self, kind: str, *sizes: Size) -> bool | Value:
        """Are tiles asked for, and is the product large enough?"""
        found: bool | Value = amx.on_tiles(kind, self.target)
        for size, least in zip(sizes, amx.LEAST_SIZES, strict=True):
            found = _and(found, self._compare(size, least)) if found is not False else False
        return found

    def _compare(self, size: Size, least: int) -> bool | Value:
        return size >= least if isinstance(size, int) else self.size(size).ge(least)

    def _apart(self, step: Size) -> bool | Value:
        """Is it a multiple of a page?"""
        if isinstance(step, int):
            return step % PAGE == 0 and step != 0
        x = self.size(step)
        return (x & (PAGE - 1)).eq(0) & x.ne(0)

    def _many(self, count: Size, work: Size) -> Value:
        """Are matrices to be shared out, rather than each one's rows?"""
        f = self.f
        threads, matrices, each = f.value("%threads", "i64"), self.size(count), self.size(work)
        enough = (matrices * each).gt(self.serial * costs.MULADDS) & threads.gt(1) & matrices.gt(1)
        return enough & (matrices.ge(threads * 4) | each.le(self.serial * costs.MULADDS))

    # -- the forms --------------------------------------------------------------------------------

    def made(self, make: Callable[..., tuple[str, str]], *args: Any) -> str:
        """The name of the function that ``make`` gives; it is written once for a program."""
        known = self.modules.get((make, args))
        if known is None:
            known, text = make(*args)
            self.kernels[known] = text
            self.modules[make, args] = known
        return known

    def _module(self, spec: Spec) -> tuple[str, str]:
        """The function of a product, and that which packs B, or ""."""
        name = self.made(product_module, spec, self.target)
        text = self.kernels[name]
        self.module.declare(name, _PRODUCT)
        if not spec.packed:
            return name, ""
        pack = name + "p_pack"
        self.kernels[pack] = text.replace("@" + name, "@" + name + "p")
        self.module.declare(pack, "void (ptr, ptr, i64, i64, i64, i64)")
        return name, pack

    def _in_rows(self, spec: Spec, dtype: np.dtype[Any], pointers: Sequence[str], numbers: Sequence[str], m: Size, n: Size, k: Size) -> None:
        """One product, its rows in chunks where it is large."""
        f = self.f
        work = n * k * thinness(n)
        limit = self.serial * costs.MULADDS
        small = isinstance(m, int) and isinstance(work, int) and m * work <= limit
        if not small and spec.packed and spec.kind != "bool" and m != 1 and not (isinstance(n, int) and n < LEAST_COLUMNS):
            count, each, threads = self.size(m), self.size(work), f.value("%threads", "i64")
            # one column is summed in another order (products.py)
            self.f.either((count * each).gt(limit) & threads.gt(1) & self.size(n).gt(1), "product", lambda: self._in_blocks(spec.kind, dtype, pointers, numbers, m, n, k),
                          lambda: self._rows(spec, dtype, pointers, numbers, m, n, k, True))
            return
        self._rows(spec, dtype, pointers, numbers, m, n, k, small)

    def _rows(self, spec: Spec, dtype: np.dtype[Any], pointers: Sequence[str], numbers: Sequence[str], m: Size, n: Size, k: Size, serial: bool) -> None:
        f, work = self.f, n * k * thinness(n)
        name, pack = self._module(spec)
        pointers, numbers = list(pointers), list(numbers)
        if pack:
            self.scratch = dims.dim_max(self.scratch, k * n * dtype.itemsize + 64)
            scratch = self.scratch_address()
            f.line(f"call void @{pack}(ptr {scratch}, ptr {pointers[2]}, i64 {numbers[1]}, i64 {numbers[2]}, i64 {numbers[5]}, i64 {numbers[6]})")
            pointers[2], numbers[5], numbers[6] = scratch, numbers[1], "1"
        what = _Matrices(name, pointers, numbers)
        count, each = self.size(m), self.size(work)
        if serial:
            f.line(f"call void @{name}({what.args('null', '0', count.ref)})")
            return
        threads = f.value("%threads", "i64")

        def parallel() -> None:
            if _few(m, n) and not pack:
                self._in_columns(spec, dtype, pointers, numbers, n)
                return
            parts = threads.minimum((count * each).udiv(max(costs.CHUNK_NS * costs.MULADDS // costs.LEAST_PART, 1)).maximum(1))
            if spec.n != 1:  # even parts, several for each thread: one of them may be held up
                whole = (count * each).udiv(threads * max(costs.CHUNK_NS * costs.MULADDS, 1)).minimum(count.udiv(threads * LEAST_PART))
                parts = parts.maximum(threads * whole.minimum(MOST_PARTS))
            per = (count + parts - 1).udiv(parts)
            if spec.n == 1:
                grain = row_grain(spec, self.target)
                per = (per + (grain - 1)).udiv(grain) * grain
            self._share("rows", [*what.slots(), f"i64 {per.ref}"], (count + per - 1).udiv(per))

        self.f.either((count * each).gt(self.serial * costs.MULADDS) & threads.gt(1), "product", parallel,
                      lambda: f.line(f"call void @{name}({what.args('null', '0', count.ref)})"))

    def _in_columns(self, spec: Spec, dtype: np.dtype[Any], pointers: Sequence[str], numbers: Sequence[str], n: Size) -> None:
        """One product with few rows: each thread takes columns."""
        f = self.f
        name, _ = self._module(replace(spec, n=None))
        count, threads = self.size(n), f.value("%threads", "i64")
        per = (count + threads - 1).udiv(threads).maximum(LEAST_CHUNK // 2)
        per = (per + 15).udiv(16) * 16
        slots = [*_Matrices(name, pointers, numbers).slots(), f"i64 {per.ref}", "ptr null", "i64 0", "i64 1", f"i64 {dtype.itemsize}"]
        self._share("blocks", slots, (count + per - 1).udiv(per))

    def _in_blocks(self, kind: str, dtype: np.dtype[Any], pointers: Sequence[str], numbers: Sequence[str], m: Size, n: Size, k: Size,
                   tiles: bool = False, paneled: bool = False) -> None:
        """A large product: the longer side of C is shared out, and each chunk packs what it needs."""
        f, shape = self.f, amx.Shape(kind, self.target) if tiles else Shape(kind, self.target)
        blocked = paneled_module if paneled else paired_module if has_pairs(kind, self.target) else blocked_module
        name = self.made(amx.tiled_module if tiles else blocked, kind, self.target)
        self.module.declare(name, _PRODUCT)
        nbytes = (shape.scratch * shape.bytes + 63) // 64 * 64
        most = most_chunks()
        chunks = dims.dim_min(dims.floordiv(dims.dim_max(m, n) + (LEAST_CHUNK - 1), LEAST_CHUNK), most)
        self.scratch = dims.dim_max(self.scratch, dims.dim_max(chunks, 1) * nbytes)
        scratch, what = self.scratch_address(), _Matrices(name, pointers, numbers)
        rows, columns, threads = self.size(m), self.size(n), f.value("%threads", "i64")
        wide = columns.gt(rows)
        count = select(wide, columns, rows)

        def parallel() -> None:
            per = (count + threads - 1).udiv(threads).maximum((count + (most - 1)).udiv(most)).maximum(LEAST_CHUNK)
            across, down = (shape.columns, shape.rows) if isinstance(shape, amx.Shape) else (shape.columns if paneled else shape.lanes, 1)
            per = select(wide, (per + (across - 1)).udiv(across) * across, (per + (down - 1)).udiv(down) * down)
            more = [f"i64 {per.ref}", f"ptr {scratch}", f"i64 {nbytes}", f"i64 {wide.to('i64', signed=False).ref}", f"i64 {dtype.itemsize}"]
            self._share("blocks", [*what.slots(), *more], (count + per - 1).udiv(per))

        self.f.either(threads.gt(1) & count.gt(LEAST_CHUNK), "blocks", parallel, lambda: f.line(f"call void @{name}({what.args(scratch, '0', rows.ref)})"))

    def _matrices(self, spec: Spec, dtype: np.dtype[Any], bases: Sequence[str], starts: Sequence[Value], lead: Sequence[Size],
                  steps: Sequence[Sequence[Size]], numbers: Sequence[Size]) -> None:
        """Many products of small matrices: each thread takes some."""
        f = self.f
        name, pack = self._module(spec)
        pointers = [f.op(f"getelementptr i8, ptr {base}, i64 {o.ref}") for base, o in zip(bases, starts, strict=True)]
        what = _Matrices(name, pointers, [self.size(x).ref for x in numbers])
        count, threads = self.size(dims.product(lead)), f.value("%threads", "i64")
        most = dims.dim_min(dims.product(lead), MOST_CHUNKS)
        per = (count + threads * 4 - 1).udiv(threads * 4).maximum((count + (MOST_CHUNKS - 1)).udiv(MOST_CHUNKS)).maximum(1)
        slots, nbytes = [*what.slots(), f"i64 {per.ref}", f"i64 {count.ref}"], f.const(0, "i64")
        if pack:
            each = numbers[1] * numbers[2] * dtype.itemsize + 64
            self.scratch = dims.dim_max(self.scratch, dims.dim_max(most, 1) * each)
            nbytes = self.size(each)
        slots += [f"ptr @{pack}" if pack else "ptr null", f"ptr {self.scratch_address()}" if pack else "ptr null", f"i64 {nbytes.ref}"]
        for axis in reversed(range(len(lead))):
            slots += [f"i64 {self.size(x).ref}" for x in (lead[axis], *steps[axis])]
        self._share(f"matrices{len(lead)}", slots, (count + per - 1).udiv(per))

    def _share(self, task: str, slots: Sequence[str], chunks: Value) -> None:
        """Hand the chunks of a task to the pool."""
        self.fill(slots)
        self.module.declare("gc_parallel", "void (ptr, ptr, i64, i64)")
        text = _task(task)
        if text not in self.module.functions:
            self.module.functions.insert(0, text)
        self.f.line(f"call void @gc_parallel(ptr @{task}, ptr %context, i64 {chunks.ref}, i64 %threads)")


# -- what one thread does with a chunk ----------------------------------------------------------------


class _Task:
    """A private function ``void NAME(ptr context, i64 chunk)``, line by line; the context begins with a function and its arguments."""

    def __init__(self, name: str) -> None:
        self.lines = [f"define private void @{name}(ptr %context, i64 %chunk) nounwind {{"]
        self.slot = 0
        for n, word in enumerate(("f", *_NAMES)):
            self.take(word, "ptr" if n < 4 else "i64")

    def take(self, word: str, kind: str = "i64") -> None:
        """The next slot of the context."""
        self.add(f"%{word}.p = getelementptr i64, ptr %context, i64 {self.slot}", f"%{word} = load {kind}, ptr %{word}.p")
        self.slot += 1

    def add(self, *lines: str) -> None:
        self.lines += ["  " + line for line in lines]

    def least(self, name: str, a: str, b: str) -> None:
        self.add(f"%{name}.less = icmp slt i64 {a}, {b}", f"%{name} = select i1 %{name}.less, i64 {a}, i64 {b}")

    def call(self, c: str, a: str, b: str, n: str, scratch: str, lo: str, hi: str, b_row: str = "%s2", b_col: str = "%s3") -> None:
        self.add(f"call void %f(ptr {c}, ptr {a}, ptr {b}, i64 %m, i64 {n}, i64 %k, i64 %s0, i64 %s1, i64 {b_row}, i64 {b_col}, i64 %s4, "
                 f"ptr {scratch}, i64 {lo}, i64 {hi})")

    def text(self) -> str:
        return "\n".join([*self.lines, "  ret void", "}"])


def _task(name: str) -> str:
    task = _Task(name)
    if name == "rows":
        _rows(task)
    elif name == "blocks":
        _blocks(task)
    else:
        _some(task, int(name.removeprefix("matrices")))
    return task.text()


def _rows(t: _Task) -> None:
    """Some rows of C."""
    t.take("per")
    t.add("%lo = mul i64 %chunk, %per", "%end = add i64 %lo, %per")
    t.least("hi", "%end", "%m")
    t.call("%c", "%a", "%b", "%n", "null", "%lo", "%hi")


def _blocks(t: _Task) -> None:
    """Some rows of C, or all rows of some columns, with scratch memory of its own."""
    for word in ("per", "scratch", "nbytes", "wide", "itemsize"):
        t.take(word, "ptr" if word == "scratch" else "i64")
    t.add("%lo = mul i64 %chunk, %per", "%end = add i64 %lo, %per", "%isw = icmp ne i64 %wide, 0", "%all = select i1 %isw, i64 %n, i64 %m")
    t.least("hi", "%end", "%all")
    t.add("%off = mul i64 %chunk, %nbytes", "%mine = getelementptr i8, ptr %scratch, i64 %off", "br i1 %isw, label %columns, label %rows", "")
    t.lines.append("rows:")
    t.call("%c", "%a", "%b", "%n", "%mine", "%lo", "%hi")
    t.add("ret void")
    t.lines.append("columns:")
    t.add("%count = sub i64 %hi, %lo", "%cb = mul i64 %lo, %itemsize", "%c2 = getelementptr i8, ptr %c, i64 %cb",
          "%bb = mul i64 %cb, %s3", "%b2 = getelementptr i8, ptr %b, i64 %bb")
    t.call("%c2", "%a", "%b2", "%count", "%mine", "0", "%m")


def _some(t: _Task, axes: int) -> None:
    """Some of many products; the number of each leads through ``axes`` sizes, the last one first, to its matrices."""
    for word in ("per", "count", "pack", "scratch", "nbytes"):
        t.take(word, "ptr" if word in ("pack", "scratch") else "i64")
    for axis in range(axes):
        for word in ("size", "cs", "as", "bs"):
            t.take(f"{word}{axis}")
    t.add("%lo = mul i64 %chunk, %per", "%end = add i64 %lo, %per")
    t.least("hi", "%end", "%count")
    t.add("%off = mul i64 %chunk, %nbytes", "%mine = getelementptr i8, ptr %scratch, i64 %off", "%packs = icmp ne ptr %pack, null", "br label %head")
    t.lines.append("head:")
    t.add("%i = phi i64 [ %lo, %0 ], [ %next, %done ]".replace("%0", "%entry"), "%more = icmp slt i64 %i, %hi", "br i1 %more, label %body, label %out")
    t.lines.append("body:")
    left, at = "%i", {"c": "%c", "a": "%a", "b": "%b"}
    for axis in range(axes):
        t.add(f"%at{axis} = urem i64 {left}, %size{axis}", f"%left{axis} = udiv i64 {left}, %size{axis}")
        left = f"%left{axis}"
        for word in at:
            t.add(f"%{word}m{axis} = mul i64 %at{axis}, %{word}s{axis}", f"%{word}{axis}x = getelementptr i8, ptr {at[word]}, i64 %{word}m{axis}")
            at[word] = f"%{word}{axis}x"
    t.add("br i1 %packs, label %packed, label %plain")
    t.lines.append("packed:")
    t.add(f"call void %pack(ptr %mine, ptr {at['b']}, i64 %n, i64 %k, i64 %s2, i64 %s3)")
    t.call(at["c"], at["a"], "%mine", "%n", "null", "0", "%m", "%n", "1")
    t.add("br label %done")
    t.lines.append("plain:")
    t.call(at["c"], at["a"], at["b"], "%n", "null", "0", "%m")
    t.add("br label %done")
    t.lines.append("done:")
    t.add("%next = add i64 %i, 1", "br label %head")
    t.lines.append("out:")
    t.lines[0:1] = [t.lines[0], "entry:"]


def kind_of(dtype: np.dtype[Any]) -> str:
    """The kind of numbers that products know it by."""
    if dtype.name == "bfloat16":
        return "bf16"
    return {"b": "bool", "f": f"f{8 * dtype.itemsize}"}.get(dtype.kind, f"i{8 * dtype.itemsize}")


def _spec(dtype: np.dtype[Any], m: Size, n: Size, k: Size, steps: Sequence[Size]) -> Spec:
    """What is known of a product when compiling."""
    kind = kind_of(dtype)

    def known(size: Size) -> int | None:
        return size if isinstance(size, int) else None

    def unit(row: Size, col: Size, columns: Size) -> tuple[str | None, int | None]:
        if row == 1 and (columns == 1 or col != 1):
            return "row", known(col)
        return ("col", known(row)) if col == 1 else (None, None)

    a_unit, a_step = unit(steps[0], steps[1], k)
    b_unit, b_step = unit(steps[2], steps[3], n)
    return Spec(kind, dtype.kind != "u", known(m), known(n), known(k), a_unit, b_unit, a_step, b_step, known(steps[4]))


def _few(m: Size, n: Size) -> bool:
    """Are there few rows, and columns enough to share out?"""
    return isinstance(m, int) and 1 < m <= FEW_ROWS and not (isinstance(n, int) and n < 2 * LEAST_CHUNK)


def _and(a: bool | Value, b: bool | Value) -> bool | Value:
    if isinstance(a, bool):
        return b if a else False
    if isinstance(b, bool):
        return a if b else False
    return a & b


def _or(a: bool | Value, b: bool | Value) -> bool | Value:
    if isinstance(a, bool):
        return True if a else b
    if isinstance(b, bool):
        return True if b else a
    return a | b
