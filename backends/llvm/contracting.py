"""Contractions in the driver: products over several axes (contracted.py), after axes that lie one behind the other have become one.

What is left with one axis of rows, of sums and of columns is an ordinary product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from graphc import dims
from graphc.backends.llvm import costs
from graphc.backends.llvm.blocked import Shape
from graphc.backends.llvm.contracted import CONTEXT, SLOTS, contracted_module, fill_module, group_size, runs_module
from graphc.backends.llvm.multiplying import LEAST_PART, MOST_PARTS, Multiplying, kind_of, most_chunks
from graphc.backends.llvm.paneled import panels as steps_of_panels
from graphc.backends.llvm.seen import seen_module
from graphc.backends.llvm.values import Value, select
from graphc.dims import Size
from graphc.kernel import Product, View

__all__ = ["Contracting", "Group", "collapsed"]

#: axes of a group at most
MOST_AXES = 4
#: elements from which on a stretch is worth whole vectors
LONG = 8
#: columns of a unit from which on packing A again costs little
LEAST_COLUMNS = 256

#: sizes of axes that belong together, and for each view its strides along them
Group = tuple[list[Size], list[list[Size]]]


def collapsed(views: Sequence[tuple[View, int]], count: int) -> Group:
    """``count`` axes of each view from a first one on, merged where every view allows it.  Axes of size 1 go."""
    sizes: list[Size] = []
    strides: list[list[Size]] = [[] for _ in views]
    for k in range(count):
        size = views[0][0].shape[views[0][1] + k]
        steps = [v.strides[first + k] for v, first in views]
        if dims.is_one(size):
            continue
        if sizes and all(line[-1] == step * size for line, step in zip(strides, steps, strict=True)):
            sizes[-1] = sizes[-1] * size
            for line, step in zip(strides, steps, strict=True):
                line[-1] = step
            continue
        sizes.append(size)
        for line, step in zip(strides, steps, strict=True):
            line.append(step)
    return sizes, strides


class Contracting(Multiplying):
    """A part of the driver's Writer."""

    if TYPE_CHECKING:
        fixed: Callable[[Size], Size]
        once: Callable[[Size], AbstractContextManager[str]]

    def contraction(self, step: Product) -> None:
        a, b, out = step.a, step.b, step.out
        rows, sums, columns = step.axes
        lead = len(out.shape) - rows - columns
        groups = [collapsed([(a, 0), (b, 0), (out, 0)], lead), collapsed([(a, lead), (out, lead)], rows),
                  collapsed([(a, lead + rows), (b, lead)], sums), collapsed([(b, lead + sums), (out, lead + rows)], columns)]
        if all(len(sizes) <= 1 for sizes, _ in groups[1:]):
            self.product(self._plain(step, groups))
            return
        if self._in_panels(step, groups):
            return
        for sizes, _ in groups:
            assert len(sizes) <= MOST_AXES, f"{len(sizes)} axes of an operand that do not become fewer"
        self._contracted(step, groups)

    def _in_panels(self, step: Product, groups: Sequence[Group]) -> bool:
        """A product with a matrix that lies in panels, if it is one."""
        (lead, _), (rows, (a_m, c_m)), (sums, (a_k, b_k)), (columns, (b_n, _c_n)) = groups
        f, dtype = self.f, self.program.slabs[step.out.slab].dtype
        kind = kind_of(dtype)
        if lead or len(rows) > 1 or kind not in ("f32", "f64"):
            return False
        shape = Shape(kind, self.target)
        steps = steps_of_panels(columns, sums, (b_n, b_k), shape.columns, shape.deep)
        if steps is None or (len(a_k) == 2 and a_k[0] != a_k[1] * sums[1]):
            return False
        _, m, k, n = step.sizes
        pointers = [f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {self.size(v.offset * dtype.itemsize).ref}") for v in (step.out, step.a, step.b)]
        numbers = [m, n, k, a_m[0] if a_m else 1, a_k[-1], *steps, c_m[0] if c_m else n]
        self._in_blocks(kind, dtype, pointers, [self.size(x).ref for x in numbers], m, n, k, paneled=True)
        return True

    def _plain(self, step: Product, groups: Sequence[Group]) -> Product:
        """With one axis of each kind: an ordinary product."""
        (heads, (a_lead, b_lead, c_lead)), *others = groups
        (m, (a_m, c_m)), (k, (a_k, b_k)), (n, (b_n, c_n)) = [(sizes or [1], [line or [1] for line in lines]) for sizes, lines in others]

        def view(v: View, shape: Sequence[Size], strides: Sequence[Size]) -> View:
            return View(v.slab, tuple(shape), tuple(strides), v.offset)

        return Product(view(step.a, [*heads, *m, *k], [*a_lead, *a_m, *a_k]), view(step.b, [*heads, *k, *n], [*b_lead, *b_k, *b_n]),
                       view(step.out, [*heads, *m, *n], [*c_lead, *c_m, *c_n]), (1, 1, 1), step.origin, step.adds)

    def _contracted(self, step: Product, groups: Sequence[Group]) -> None:
        f, dtype = self.f, self.program.slabs[step.out.slab].dtype
        kind = kind_of(dtype)
        shape = Shape(kind, self.target)
        panels = _in_whole_panels(groups, shape)
        name, fill, run = self.made(seen_module if panels else contracted_module, kind, self.target), self.made(fill_module, self.target), self.made(runs_module, kind, self.target)
        for function, parameters in ((name, "ptr, i64"), (fill, f"ptr{', i64' * 8}"), (run, "ptr, ptr, i64, i64")):
            self.module.declare(function, f"void ({parameters})")
        lead, m, k, n = step.sizes
        (_, (a_lead, b_lead, c_lead)), (_, (a_m, c_m)), (_, (a_k, b_k)), (_, (b_n, _c_n)) = groups
        (a_turned, a_apart), (b_turned, b_apart) = _lies(groups[2], 0, groups[1], 0), _lies(groups[3], 0, groups[2], 1)

        # tables, then scratch memory for each chunk
        at: Size = 0
        places: dict[str, Size] = {}
        words = {"lead_c": (0, c_lead, lead), "lead_a": (0, a_lead, lead), "lead_b": (0, b_lead, lead), "a_rows": (1, a_m, m), "a_sums": (2, a_k, k),
                 "b_sums": (2, b_k, k), "b_columns": (3, b_n, n)}
        if panels:  # it lies there as it is read
            words = {word: found for word, found in words.items() if word not in ("b_sums", "b_columns")}
        words = {word: (g, [self.fixed(x) for x in strides], self.fixed(count)) for word, (g, strides, count) in words.items()}
        table_sizes = [[self.fixed(x) for x in sizes] for sizes, _ in groups]
        for word, (_g, _s, count) in words.items():
            places[word], at = at, at + count
        w = group_size(shape.lanes)
        runs = {"a_runs": ("a_rows", m) if a_turned else ("a_sums", k), "b_runs": ("b_sums", k) if b_turned else ("b_columns", n)}
        runs = {} if panels else runs
        for word, (_table, count) in runs.items():
            places[word], at = at, at + dims.floordiv(count + (w - 1), w) * SLOTS
        nbytes = 64 if panels else (shape.scratch * shape.bytes + 63) // 64 * 64
        table_bytes = dims.floordiv(at * 8 + 63, 64) * 64
        once = self.alone and not any(s.kind == "block" for x in (at, *(x for g, strides, _ in words.values() for x in (*table_sizes[g], *strides))) for s in dims.symbols(x))
        begin = 0 if once else table_bytes  # tables that are the same for all blocks of a sweep have a place of their own
        most = most_chunks()
        count = most if panels else dims.dim_min(dims.dim_max(lead * dims.floordiv(n + (shape.lanes - 1), shape.lanes), 1), most)
        self.scratch = dims.dim_max(self.scratch, begin + count * nbytes)
        scratch = self.scratch_address()

        with self.once(table_bytes) if once else nullcontext(scratch) as memory:
            tables = {word: f.op(f"getelementptr i64, ptr {memory}, i64 {self.size(place).ref}") for word, place in places.items()}
            for word, (g, strides, _count) in words.items():
                sizes: list[Size] = [*[1] * (MOST_AXES - len(strides)), *table_sizes[g]]
                steps: list[Size] = [*[0] * (MOST_AXES - len(strides)), *strides]
                numbers = ", ".join(f"i64 {self.size(x).ref}" for x in (*sizes, *steps))
                f.line(f"call void @{fill}(ptr {tables[word]}, {numbers})")
            for word, (table, count) in runs.items():
                apart = a_apart if word == "a_runs" else b_apart
                f.line(f"call void @{run}(ptr {tables[word]}, ptr {tables[table]}, i64 {self.size(count).ref}, i64 {apart})")

        threads = f.value("%threads", "i64").minimum(most)
        heads, width = self.size(lead), self.size(n)
        work = (heads * self.size(m)) * (width * self.size(k))
        wide = work.gt(self.serial * costs.MULADDS) & threads.gt(1)
        threads = select(wide, threads, threads.like(1))
        # columns are shared out too where there are few products for each thread: as many as are worth packing A again, but some for each thread
        heads = heads.maximum(1)
        wanted = ((threads * MOST_PARTS + heads - 1).udiv(heads)).minimum(width.udiv(shape.columns if panels else LEAST_COLUMNS)).maximum((threads + heads - 1).udiv(heads))
        each = select(threads.eq(1), threads, wanted)
        part = (width + each - 1).udiv(each).maximum(1)
        grain = part.like(shape.lanes)
        rows = height = self.size(m)
        if panels:  # whole ones, or halves; or rows, where there are more
            grain = select(part.gt(shape.columns // 2), part.like(shape.columns), part.like(shape.columns // 2))
            tall = height.gt(width)
            part = select(tall, width.maximum(1), part)
            several = select(tall & threads.gt(1), (threads * MOST_PARTS).minimum(height.udiv(LEAST_PART)).maximum(threads), threads.like(1))
            rows = ((height + several - 1).udiv(several) + (shape.rows - 1)).udiv(shape.rows).maximum(1) * shape.rows
        part = (part + grain - 1).udiv(grain) * grain
        each = (width + part - 1).udiv(part)
        if panels:
            each = each * (height + rows - 1).udiv(rows)
        units = self.size(lead) * each
        chunks = threads.minimum(units)
        pointers = {}
        for word, v in (("c", step.out), ("a", step.a), ("b", step.b)):
            pointers[word] = f.op(f"getelementptr i8, ptr {self.address(v.slab)}, i64 {self.size(v.offset * dtype.itemsize).ref}")
        pointers["scratch"] = f.op(f"getelementptr i8, ptr {scratch}, i64 {self.size(begin).ref}")
        c_row = c_m[-1] if c_m else 0
        place = rows if panels else self.size(a_m[0] if _dense(groups[2], 0) and len(a_m) == 1 and not shape.rounded else 0)
        known: dict[str, Value] = {"m": self.size(m), "n": width, "k": self.size(k), "c_row": self.size(c_row), "a_turned": f.const(int(a_turned), "i64"),
                                   "b_turned": f.const(int(b_turned), "i64"),
                                   "a_apart": f.const(a_apart, "i64"), "b_apart": f.const(b_apart, "i64"), "a_place": place, "nbytes": f.const(nbytes, "i64"), "columns": part,
                                   "each": each, "units": units, "chunks": chunks.maximum(1)}
        self.fill([*(f"i64 {known[word].ref}" if word in known else f"ptr {pointers.get(word) or tables.get(word, 'null')}" for word in CONTEXT[:-1]), *["i64 0"] * most])
        self.module.declare("gc_parallel", "void (ptr, ptr, i64, i64)")
        f.either(chunks.gt(1), "contraction", lambda: f.line(f"call void @gc_parallel(ptr @{name}, ptr %context, i64 {chunks.ref}, i64 {threads.ref})"),
                 lambda: f.line(f"call void @{name}(ptr %context, i64 0)"))


def _dense(group: Group, view: int) -> bool:
    """Does one element after the other lie there?"""
    sizes, strides = group
    line = strides[view]
    return bool(line) and line[-1] == 1 and all(step == line[k + 1] * sizes[k + 1] for k, step in enumerate(line[:-1]))


def _in_whole_panels(groups: Sequence[Group], shape: Shape) -> bool:
    """Does the second operand lie in panels, [columns of a tile, k, tiles], as tiles read it?"""
    (sums, (_, b_k)), (columns, (b_n, _c)) = groups[2:]
    if shape.rounded or len(columns) not in (1, 2) or columns[-1] != shape.columns or b_n[-1] != 1 or not sums or b_k[-1] != shape.columns:
        return False
    return all(step == b_k[i + 1] * sums[i + 1] for i, step in enumerate(b_k[:-1])) and (len(columns) == 1 or b_n[0] == b_k[0] * sums[0])


def _lies(direct: Group, which: int, other: Group, view: int) -> tuple[bool, int]:
    """Are vectors read along the other group of axes, and how far apart are their elements?  Along that where elements follow one another for a while."""
    def long(group: Group, view: int, apart: int) -> bool:
        sizes, strides = group
        return bool(sizes) and strides[view][-1] == apart and not (isinstance(sizes[-1], int) and sizes[-1] < LONG)

    for apart in (1, 2):
        if long(direct, which, apart):
            return False, apart
        if long(other, view, apart):
            return True, apart
    return False, 1
