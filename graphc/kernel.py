"""The program: what a graph becomes before it is code.  One page.

    Program     arrays, steps, roots: what one call does
    Slab        a place in memory: an argument, a constant, a part of the arena, a result
    View        how a value lies in a slab: offset, shape and strides, in elements
    Launch      a kernel run on slabs
    Product     a matrix product of two views
    Ordered     a loop whose rounds follow one another: running sums, and additions at positions that are data
    Sweep       products and launches that are done for one block of rows after the other
    CallOut     an op that is run by its own NumPy ``forward``
    Kernel      a loop nest: ranges, operands, instructions, stages

A kernel computes for every point of its ``grid``, one after the other or on several threads, its
``stages``; each stage is a loop nest of its own around a list of instructions:

    kernel softmax(x: in f32[n*m], y: out f32[n*m])
      grid i < n
        for j < m
          %0 = f32 load x[i*m + j]
          %1 = f32 reduce max %0 over j
        for j < m
          %2 = f32 load x[i*m + j]
          %3 = f32 sub %2, %1
          ...

A value depends on some of the ranges.  What a stage reduces over all of its loops is a value of the
grid's point: later stages read it.  What is reduced over ranges of the grid is known after the grid, in the
stages of ``finish``.  An access is affine in the ranges: views (transposition, slices, broadcasting)
are strides, and cost nothing.  All sizes and strides are formulas of the dims (graphc/dims.py).

Memory holds real numbers: a complex array is a slab of its parts, two by two (``Slab.pairs``).

Order of a reduction: see ``Kernel.tree``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.dtypes import complex_of
from graphc.errors import UNKNOWN, Origin
from graphc.ir import Graph, Node, Type, Var

__all__ = [
    "ORDERED", "PLACES", "REDUCTIONS", "CallOut", "Index", "Instr", "Kernel", "Launch", "Operand", "Ordered", "Product", "Program", "Range",
    "Seen", "Slab", "Stage", "Sweep", "View", "contiguous", "element_count", "value_ranges",
]

DType = np.dtype[Any]

#: what a reduction may be: the value of an empty one is its identity (max and min have none for integers but the ends of the dtype)
REDUCTIONS = ("sum", "prod", "max", "min", "all", "any", "argmax", "argmin")


class Range(NamedTuple):
    """A loop variable that runs from 0 to ``extent`` - 1."""

    name: str
    extent: Size


class Operand(NamedTuple):
    """An array that a kernel reads or writes: dense, ``size`` elements.

    ``mode``: "in"; "out"; "temp": scratch memory of one point of the grid, which a later stage reads.
    An "out" operand may be the same memory as an "in" operand only if ``alias`` names that one, and then each
    element is read, for the last time, at the point and stage where it is written.
    """

    name: str
    dtype: DType
    mode: str
    size: Size
    alias: int = -1


class Index(NamedTuple):
    """Where in an operand: ``offset`` + sum of stride * range + sum of stride * value, in elements."""

    offset: Size
    terms: tuple[tuple[int, Size], ...]  # (range, stride), in the order of the ranges; no stride is 0
    gathers: tuple[tuple[int, Size], ...] = ()  # (value, stride): positions read from an integer value


class Instr(NamedTuple):
    """One instruction; it is named by its position in ``Kernel.values``.

    load      operand, index                 the element there, in the operand's dtype
              args[0], if it is there        a bool: where it is False, nothing is read and the value is 0
    store     operand, index, args[0]        no value
    reduce    args[0], over, word            ``word`` of REDUCTIONS along the ranges ``over``
    range     over[0]                        the loop variable itself, int64
    size      data (a Size)                  int64
    literal   data (a number)                in ``dtype``
    cast      args[0]                        to ``dtype``
    apply     args, word                     an elementwise op by its name in graphc.ops
    """

    op: str
    dtype: DType
    args: tuple[int, ...] = ()
    operand: int = -1
    index: Index | None = None  # type: ignore[assignment]  # not tuple.index
    over: tuple[int, ...] = ()
    word: str = ""
    data: Any = None


class Stage(NamedTuple):
    """A loop nest: ``loops`` are ranges, outermost first; ``body`` are positions of instructions, in order."""

    loops: tuple[int, ...]
    body: tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """A loop nest.

    Args:
        name: for people; not part of what the kernel is.
        ranges: all loop variables.
        grid: the ranges of the outer loops, outermost first; the first one is cut into chunks for threads.
        operands: arrays, in the order in which a Launch gives them.
        values: all instructions.
        stages: what is done at each point of the grid, in order.
        finish: what is done once after the grid, with the reductions over the grid.
        vector: the range whose elements lie side by side in a vector register; -1: none.

    The tree of a reduction.  Along the vector range, lane l of a vector of w lanes takes elements l, l + w, ... of
    ``unroll`` vectors in turn; vectors are joined in halves, then lanes in halves.  Along other ranges: in order.
    Over the grid: chunk by chunk, then the chunks in order.  Widths and chunks depend on sizes and the
    target only, never on the number of threads.
    """

    name: str
    ranges: tuple[Range, ...]
    grid: tuple[int, ...]
    operands: tuple[Operand, ...]
    values: tuple[Instr, ...]
    stages: tuple[Stage, ...]
    finish: tuple[Stage, ...] = ()
    vector: int = -1

    def sizes(self) -> Iterator[Size]:
        """Every size and stride in it, in a fixed order, with repeats."""
        for r in self.ranges:
            yield r.extent
        for o in self.operands:
            yield o.size
        for v in self.values:
            if v.index is not None:
                yield v.index.offset
                for _, stride in (*v.index.terms, *v.index.gathers):
                    yield stride
            if v.op == "size":
                yield v.data


def value_ranges(kernel: Kernel) -> list[frozenset[int]]:
    """For each instruction the ranges that its value depends on."""
    found: list[frozenset[int]] = []
    for v in kernel.values:
        own: set[int] = set()
        for a in v.args:
            own |= found[a]
        if v.index is not None:
            own.update(r for r, _ in v.index.terms)
            for a, _ in v.index.gathers:
                own |= found[a]
            if kernel.operands[v.operand].mode == "temp":
                own.update(kernel.grid)  # each point of the grid has its own
        if v.op == "range":
            own.add(v.over[0])
        elif v.op == "reduce":
            own.difference_update(v.over)
        found.append(frozenset(own))
    return found


# ---- programs -----------------------------------------------------------------------------------

PLACES = ("argument", "constant", "arena", "output", "fresh", "block")


class Slab:
    """A dense array of the program, C order.

    Args:
        id: its position in ``Program.slabs``.
        dtype, shape: what it holds; ``shape`` may name symbols that a CallOut finds out.
        place: "argument": the caller's or a shared variable's, never written; "constant": the program's, never
            written; "arena": part of the arena at ``offset``; "output": memory of its own, given away at the end;
            "fresh": made by a CallOut; "block": what a Sweep needs for one block of rows, at ``offset`` in its memory.
        name: for people.
        var: the variable of the graph whose value it is, if there is one.
        data: the array of a constant.
        first, last: the steps that write it first and read it last; -1 for what is there when the call begins.
        offset: where in the arena it begins, in bytes, as a formula.
        inplace: the id of the slab whose memory it takes over, -1 if none.
        pairs: are there complex numbers, whose parts lie side by side along its last axis?
    """

    __slots__ = ("data", "dtype", "first", "id", "inplace", "last", "name", "offset", "pairs", "place", "shape", "var")

    def __init__(self, id: int, dtype: DType, shape: tuple[Size, ...], place: str, name: str = "", var: Var | None = None,
                 data: Any = None) -> None:
        self.id, self.dtype, self.shape, self.place, self.name, self.var, self.data = id, dtype, shape, place, name, var, data
        self.first = self.last = -1
        self.offset: Size = 0
        self.inplace = -1
        self.pairs = False

    @property
    def elements(self) -> Size:
        return dims.product(self.shape)

    @property
    def nbytes(self) -> Size:
        return self.elements * self.dtype.itemsize

    @property
    def array(self) -> Type:
        """What callers and call-outs see."""
        return Type(complex_of(self.dtype), self.shape[:-1]) if self.pairs else Type(self.dtype, self.shape)


class View(NamedTuple):
    """A value as it lies in a slab: element (i, j, ...) at ``offset + i*strides[0] + j*strides[1] + ...``, in elements of the slab.

    The view of a complex value says where the real parts are; each imaginary part is the next element.
    """

    slab: int
    shape: tuple[Size, ...]
    strides: tuple[Size, ...]
    offset: Size = 0

    @property
    def parts(self) -> View:
        """Complex numbers as real ones, along one more axis."""
        return View(self.slab, (*self.shape, 2), (*self.strides, 1), self.offset)


class Launch(NamedTuple):
    """``kernel`` run on ``slabs``, one for each of its operands (-1 for a "temp")."""

    kernel: Kernel
    slabs: tuple[int, ...]
    origin: Origin = UNKNOWN

    @property
    def reads(self) -> tuple[int, ...]:
        return tuple(s for s, o in zip(self.slabs, self.kernel.operands, strict=True) if o.mode == "in")

    @property
    def writes(self) -> tuple[int, ...]:
        return tuple(s for s, o in zip(self.slabs, self.kernel.operands, strict=True) if o.mode == "out")


class Product(NamedTuple):
    """``out[..., i, j] = sum over k of a[..., i, k] * b[..., k, j]``; leading axes are equal (stride 0 where broadcast).

    ``axes``: over how many axes each of i, k and j runs.  Operands may see an element in several places: the windows of an image.
    Where one of these is more than 1, the axes of i in ``out`` are dense among themselves, and those of j dense altogether.
    ``adds``: where this is not 0, what ``out`` holds is added to.  In a sweep ``out`` may be float32 where operands have 16 bits.
    """

    a: View
    b: View
    out: View
    axes: tuple[int, int, int] = (1, 1, 1)
    origin: Origin = UNKNOWN
    adds: Size = 0

    @property
    def reads(self) -> tuple[int, ...]:
        return (self.a.slab, self.b.slab)

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.out.slab,)

    @property
    def sizes(self) -> tuple[Size, Size, Size, Size]:
        """How many products, and their rows, sums and columns."""
        rows, sums, columns = self.axes
        lead = len(self.out.shape) - rows - columns
        return (dims.product(self.out.shape[:lead]), dims.product(self.out.shape[lead:lead + rows]),
                dims.product(self.b.shape[lead:lead + sums]), dims.product(self.out.shape[lead + rows:]))


#: what an Ordered may do, and how many operands it has
ORDERED = {"set": 2, "add": 2, "sum": 1, "prod": 1, "recurrence": 2}


class Ordered(NamedTuple):
    """One loop along ``axis``, i = 0, 1, ..., at each point of the other axes:

        set          operands y, p    out[p[i]] = y[i]
        add          y, p             out[p[i]] = out[p[i]] + y[i]
        sum, prod    x                out[i] = out[i - 1] + x[i], out[i - 1] * x[i]
        recurrence   a, b             out[i] = b[i] + a[i] * out[i - 1]

    Operands and ``out`` have the same sizes, but for that of ``out`` along ``axis`` in "set" and "add", into which the
    positions ``p`` (integers that are surely inside) lead.  They read and change what was there before.
    """

    word: str
    operands: tuple[View, ...]
    out: View
    axis: int
    origin: Origin = UNKNOWN

    @property
    def reads(self) -> tuple[int, ...]:
        return (*(v.slab for v in self.operands), *((self.out.slab,) if self.word in ("set", "add") else ()))

    @property
    def writes(self) -> tuple[int, ...]:
        return (self.out.slab,)


class Seen(NamedTuple):
    """The columns that the rows of a block see: ``many`` from ``first`` on, which are ``begin`` ... ``end`` - 1 of ``width``.

    Where ``slab``, one bool, is True after the block's step ``step``, the block begins anew with all columns.  So steps up to there add to nothing and write over what
    they have written.  ``step`` is -1 where that is never so.
    """

    first: Symbol
    many: Symbol
    begin: Size
    end: Size
    width: Size
    step: int = -1
    slab: int = -1

    @property
    def some(self) -> dict[Symbol, Size]:
        """What the symbols are."""
        return {self.first: self.begin, self.many: self.end - self.begin}

    @property
    def all(self) -> dict[Symbol, Size]:
        """What they are in a block that has begun anew."""
        return {self.first: 0, self.many: self.width}


class Sweep(NamedTuple):
    """``steps`` in turn for each block of rows of each of many matrices: what is read and written in between stays in the cache.

    For each value of the ``lead`` symbols (below their sizes), in order, and for ``start`` = 0, ``block``, ... below ``rows``, the steps run
    with ``height`` rows: ``block``, or fewer at the end.  There is one block at least, of no rows if there are none.  Slabs of the place
    "block" belong to one block.  Products that add (``Product.adds``) sum over the blocks of a matrix, from the first to the last.
    """

    steps: tuple[Launch | Product, ...]
    lead: tuple[tuple[Symbol, Size], ...]
    rows: Size
    start: Symbol
    height: Size  # the symbol alone, or ``block``
    block: int
    reads: tuple[int, ...]  # slabs that are not of one block
    writes: tuple[int, ...]
    room: Size = 0  # bytes of memory for the slabs of one block
    seen: Seen | None = None  # where blocks leave out columns
    origin: Origin = UNKNOWN

    @property
    def matrices(self) -> Size:
        return dims.product(size for _, size in self.lead)

    @property
    def blocks(self) -> Size:
        """Blocks of one matrix."""
        return dims.dim_max(dims.floordiv(self.rows + (self.block - 1), self.block), 1)

    @property
    def adds(self) -> bool:
        """Must the blocks of a matrix follow one another?"""
        return any(isinstance(step, Product) and step.adds != 0 for step in self.steps)

    @property
    def most(self) -> dict[Symbol, Size]:
        """The symbol of ``height``, if there is one, with the largest number that it is."""
        return {} if isinstance(self.height, int) else dict.fromkeys(dims.symbols(self.height), self.block)

    @property
    def bounds(self) -> dict[Symbol, Size]:
        """For the symbols of its sizes what they are at most."""
        columns = dict.fromkeys((self.seen.first, self.seen.many), self.seen.width) if self.seen is not None else {}
        return {**self.most, self.start: self.rows, **columns}

    def total(self, each: Size) -> Size:
        """What all blocks take if one takes ``each``, a multiple of ``height``; about that much if blocks differ in more than their height."""
        if self.seen is not None:
            each = dims.substitute(each, self.seen.some)
        if self.start in dims.symbols(each):
            middle = {**self.most, self.start: dims.floordiv(self.rows, 2)}
            return dims.substitute(each, middle) * self.matrices * self.blocks
        if isinstance(self.height, int):
            return each * self.matrices * self.blocks
        return dims.substitute(each, dict.fromkeys(self.most, self.rows)) * self.matrices

    def envs(self, env: Mapping[Symbol, int]) -> Iterator[dict[Symbol, int]]:
        """``env`` with the symbols of each block, in order."""
        rows = dims.evaluate(self.rows, env)
        for index in np.ndindex(*(dims.evaluate(size, env) for _, size in self.lead)):
            own = {**env, **{symbol: n for (symbol, _), n in zip(self.lead, index, strict=True)}}
            for start in range(0, max(rows, 1), self.block):
                at = {**own, self.start: start, **dict.fromkeys(self.most, min(self.block, rows - start))}
                yield at if self.seen is None else {**at, **{symbol: dims.evaluate(size, at) for symbol, size in self.seen.some.items()}}

    def anew(self, env: Mapping[Symbol, int]) -> dict[Symbol, int]:
        """The symbols of a block that begins anew."""
        assert self.seen is not None
        return {**env, **{symbol: dims.evaluate(size, env) for symbol, size in self.seen.all.items()}}


class CallOut(NamedTuple):
    """``node`` run by its NumPy ``forward``; its results are "fresh" slabs.

    ``found``: (symbol, result, axis) for the sizes that are known only once it has run.
    """

    node: Node
    inputs: tuple[View, ...]
    outputs: tuple[int, ...]
    found: tuple[tuple[Symbol, int, int], ...] = ()

    @property
    def reads(self) -> tuple[int, ...]:
        return tuple(v.slab for v in self.inputs)

    @property
    def writes(self) -> tuple[int, ...]:
        return self.outputs

    @property
    def origin(self) -> Origin:
        return self.node.origin


Step = Launch | Product | Ordered | Sweep | CallOut


@dataclass
class Program:
    """What one call does: ``steps`` in order; ``roots`` are the slabs of the graph's outputs, then of its new state.

    ``arguments`` are the slabs of the graph's inputs, then of its shared variables.  Several steps may write parts of one
    slab, or write over it; nothing reads it before all of it is written.  Every root is an "output" or "fresh" slab of its own.  ``arena`` is the size of the arena in bytes.  ``guards`` are formulas that are 0 in
    every call whose sizes the program is for; ``checks`` are slabs of one bool that are False after every run that
    met no wrong data (and, for ``doubts``, no nan or inf).  Where one is not, the careful evaluation of the graph says what is wrong.
    """

    graph: Graph
    name: str
    slabs: list[Slab] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    arguments: tuple[int, ...] = ()
    roots: tuple[int, ...] = ()
    arena: Size = 0
    guards: tuple[Size, ...] = ()
    checks: tuple[int, ...] = ()
    doubts: frozenset[int] = frozenset()  # checks that only say that values may be wrong: what follows may run

    def slab(self, dtype: DType, shape: Sequence[Size], place: str, name: str = "", var: Var | None = None, data: Any = None) -> int:
        """A new slab: its id."""
        self.slabs.append(Slab(len(self.slabs), dtype, tuple(shape), place, name, var, data))
        return len(self.slabs) - 1


def contiguous(shape: Sequence[Size]) -> tuple[Size, ...]:
    """The strides of a dense array in C order, in elements."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * (size if size != 0 else 1)  # an empty array has strides too: they say which loops run along it
    return tuple(reversed(strides))


def element_count(shape: Sequence[Size]) -> Size:
    return dims.product(shape)
