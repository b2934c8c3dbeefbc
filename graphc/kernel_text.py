"""Kernels and programs as text.

    print_kernel(kernel)    a loop nest to read; ``parse_kernel`` (graphc/kernel_parse.py) reads it back
    key(kernel)             the same text with canonical names: what a cache is keyed by
    print_program(program)  slabs and steps; each kernel in full where it is launched first

The form, all of it:

    kernel softmax(x: in f32[n*m], y: out f32[n*m], t: temp f32[m])
      dim n min=1
      grid i < n
        for j < m vector
          %0 = f32 load x[i*m + j]
          %1 = f32 reduce max %0 over j
          %2 = f32 store t[j], %0
        do                                (a stage without loops)
          %3 = i64 range i
          %4 = f32 literal 0.5
          %5 = f32 load x[%3*m + 3]
          %6 = f32 mul %4, %5             (any word but these is an op of graphc.ops)
          %7 = f32 load x[i - 1] where %8 (0 where %8 is false)
      finish                              (the stages after the grid, if there are any)
        for j < m vector
          ...

An operand that may lie in the memory of another says so: ``y: out f32[n] alias x``.  ``operand ...`` lines
take the place of the brackets where these get too long.  A line ``ranges j < m, i < n`` stands before the
grid where the ranges are not numbered in the order in which they appear.  ``unused`` lists instructions
that no stage runs.  Names are as in the dump of a graph (graphc/text.py): ``name~2`` is the second of a name,
names that are no words are quoted, unknown sizes are ``?0``, ``?1``, those that a step finds out ``!0``; a size
that is called like a range or like a function stands in backquotes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from graphc import dims
from graphc.dims import Call, Dim, Size, Symbol, lone
from graphc.dtypes import SHORT
from graphc.errors import UNKNOWN, Origin
from graphc.kernel import CallOut, Index, Instr, Kernel, Launch, Operand, Ordered, Product, Program, Slab, Stage, Sweep, View, contiguous
from graphc.kernel_parse import parse_kernel
from graphc.text import COMMENT_COLUMN, DIM_FUNCTIONS, Printer, array_text, name_text, scalar_text

__all__ = ["key", "parse_kernel", "print_kernel", "print_program", "size_formula", "symbol_names"]

HEADER_WIDTH = 120
#: the words of Instr.op; an elementwise op of that name is written "apply word"
WORDS = frozenset({"load", "store", "reduce", "range", "size", "literal", "cast", "apply"})


# ---- sizes --------------------------------------------------------------------------------------


def size_formula(size: Size, names: Mapping[Symbol, str]) -> str:
    """The formula in these names; it depends on nothing else (not on the order in which symbols were made)."""
    if isinstance(size, int):
        return str(size)
    terms = sorted(("*".join(sorted(_atom(a, names) for a in m)), c) for m, c in size.terms)
    text = ""
    for body, c in terms:
        factor = body if abs(c) == 1 else f"{abs(c)}*{body}"
        text += (" - " if c < 0 else " + ") + factor if text else ("-" if c < 0 else "") + factor
    if size.const:
        text += f" - {-size.const}" if size.const < 0 else f" + {size.const}"
    return text


def _atom(atom: Symbol | Call, names: Mapping[Symbol, str]) -> str:
    if isinstance(atom, Symbol):
        return names[atom]
    args = [size_formula(a, names) for a in atom.args]
    return f"{atom.fn}({', '.join(args if atom.fn in ('floordiv', 'mod') else sorted(args))})"


def _sizes(kernel: Kernel) -> Iterator[Size]:
    """The sizes in the order in which they stand in the text: operands first."""
    for o in kernel.operands:
        yield o.size
    for r in kernel.ranges:
        yield r.extent
    yield from kernel.sizes()


def symbol_names(kernel: Kernel) -> dict[Symbol, str]:
    """What ``print_kernel`` calls the symbols of a kernel: unknown ones are numbered in order of appearance."""
    return _named(_sizes(kernel), Printer(data=False))


def _named(sizes: Iterable[Size], printer: Printer) -> dict[Symbol, str]:
    names: dict[Symbol, str] = {}
    for size in sizes:
        if isinstance(size, Dim):
            for s in sorted(set(dims.symbols(size)), key=lambda s: s.order):
                if s not in names:
                    names[s] = printer.size_text(lone(s))
    return names


def _unique(names: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """The names as words, the k-th of a name as ``name~k``."""
    counts: dict[str, int] = {}
    found = []
    for name in names:
        text = name_text(name, reserved)
        k = counts[text] = counts.get(text, 0) + 1
        found.append(text if k == 1 else f"{text}~{k}")
    return found


# ---- one kernel ---------------------------------------------------------------------------------


class _Text:
    """The lines of one kernel, in given names."""

    def __init__(self, kernel: Kernel, name: str, operands: Sequence[str], ranges: Sequence[str], symbols: Mapping[Symbol, str]) -> None:
        self.kernel, self.name, self.operands, self.ranges, self.symbols = kernel, name, operands, ranges, symbols

    def lines(self) -> Iterator[str]:
        k = self.kernel
        described = [f"{name}: {self.operand(o)}" for name, o in zip(self.operands, k.operands, strict=True)]
        head = f"kernel {self.name}({', '.join(described)})"
        if len(head) <= HEADER_WIDTH:
            yield head
        else:
            yield f"kernel {self.name}"
            yield from (f"  operand {text}" for text in described)
        minima = sorted((name, s.min) for s, name in self.symbols.items() if s.min)
        yield from (f"  dim {name} min={low}" for name, low in minima)
        shown = [*k.grid, *(r for stage in (*k.stages, *k.finish) for r in stage.loops)]
        if list(dict.fromkeys(shown)) != list(range(len(k.ranges))):
            yield f"  ranges {', '.join(self.range(r) for r in range(len(k.ranges)))}"
        yield "  grid" + (" " + ", ".join(self.range(r) for r in k.grid) if k.grid else "")
        done: set[int] = set()
        for stage in k.stages:
            yield from self.stage(stage, done)
        if k.finish:
            yield "  finish"
        for stage in k.finish:
            yield from self.stage(stage, done)
        unused = [i for i in range(len(k.values)) if i not in done]
        if unused:
            yield "  unused"
            yield from (f"    %{i} = {self.instr(k.values[i])}" for i in unused)

    def stage(self, stage: Stage, done: set[int]) -> Iterator[str]:
        yield f"    for {', '.join(self.range(r) for r in stage.loops)}" if stage.loops else "    do"
        for i in stage.body:
            done.add(i)
            yield f"      %{i} = {self.instr(self.kernel.values[i])}"

    def operand(self, o: Operand) -> str:
        alias = f" alias {self.operand_name(o.alias)}" if o.alias != -1 else ""
        return f"{o.mode} {SHORT[o.dtype.name]}[{self.size(o.size)}]{alias}"

    def operand_name(self, number: int) -> str:
        return self.operands[number] if 0 <= number < len(self.operands) else f"<operand {number}>"

    def range_name(self, number: int) -> str:
        return self.ranges[number] if 0 <= number < len(self.ranges) else f"<range {number}>"

    def range(self, number: int) -> str:
        if not 0 <= number < len(self.ranges):
            return self.range_name(number)
        vector = " vector" if number == self.kernel.vector else ""
        return f"{self.ranges[number]} < {self.size(self.kernel.ranges[number].extent)}{vector}"

    def size(self, size: Size) -> str:
        return size_formula(size, self.symbols)

    def index(self, index: Index) -> str:
        text = ""
        terms = [(self.range_name(r), stride) for r, stride in index.terms] + [(f"%{a}", stride) for a, stride in index.gathers]
        for what, stride in terms:
            negative = stride < 0 if isinstance(stride, int) else stride.const == 0 and len(stride.terms) == 1 and stride.terms[0][1] < 0
            shown = -stride if negative else stride
            factor = self.size(shown)
            if isinstance(shown, Dim) and (len(shown.terms) > 1 or shown.const):
                factor = f"({factor})"
            part = what if factor == "1" else f"{what}*{factor}"
            text += (" - " if negative else " + ") + part if text else ("-" if negative else "") + part
        if not text:
            return self.size(index.offset)
        if isinstance(index.offset, int) and index.offset == 0:
            return text
        offset = self.size(index.offset)
        return f"{text} - {offset[1:]}" if offset[0] == "-" else f"{text} + {offset}"

    def access(self, v: Instr) -> str:
        return f"{self.operand_name(v.operand)}[{self.index(v.index) if v.index is not None else '<no index>'}]"

    def instr(self, v: Instr) -> str:
        args = ", ".join(f"%{a}" for a in v.args)
        if v.op == "load":
            text = f"load {self.access(v)}" + (f" where {args}" if v.args else "")
        elif v.op == "store":
            text = f"store {self.access(v)}, {args}"
        elif v.op == "reduce":
            text = f"reduce {v.word} {args} over {', '.join(self.range_name(r) for r in v.over)}"
        elif v.op == "range":
            text = f"range {', '.join(self.range_name(r) for r in v.over)}"
        elif v.op == "size":
            text = f"size {self.size(v.data)}"
        elif v.op == "literal":
            text = f"literal {literal_text(v)}"
        elif v.op == "apply":
            word = name_text(v.word)
            text = f"{'apply ' if word in WORDS else ''}{word} {args}".rstrip()
        else:
            text = f"{v.op} {args}"
        return f"{SHORT[v.dtype.name]} {text}"


def literal_text(v: Instr) -> str:
    """The shortest digits that give the number in the literal's dtype."""
    with np.errstate(all="ignore"):
        text = scalar_text(np.asarray(v.data).astype(v.dtype)[()])
    return "nan" if text is None else text.partition(":")[0]


def print_kernel(kernel: Kernel, names: Mapping[Symbol, str] | None = None) -> str:
    """The kernel as text.  ``names``: what its symbols are called, where it is part of something larger."""
    ranges = _unique((r.name for r in kernel.ranges), DIM_FUNCTIONS)
    symbols = dict(symbol_names(kernel) if names is None else names)
    for s, name in symbols.items():
        if name in ranges:
            symbols[s] = f"`{name}`"
    text = _Text(kernel, name_text(kernel.name), _unique(o.name for o in kernel.operands), ranges, symbols)
    return "\n".join([*text.lines(), ""])


# ---- the key ------------------------------------------------------------------------------------


def key(kernel: Kernel) -> str:
    """A text that is equal for two kernels if and only if they are equal but for names."""
    order = _canonical_order(kernel)
    return _key_text(kernel, order)


def _key_text(kernel: Kernel, order: Sequence[Symbol]) -> str:
    text = _Text(kernel, "k", [f"o{i}" for i in range(len(kernel.operands))], [f"r{i}" for i in range(len(kernel.ranges))],
                 {s: f"s{i}" for i, s in enumerate(order)})
    return "\n".join([*text.lines(), ""])


def _canonical_order(kernel: Kernel) -> list[Symbol]:
    """The symbols in an order that does not depend on their names.

    As they appear, where no formula brings several at once.  Else by what can be said of each without its name
    (``_refined``); where that does not tell two apart, each is tried as the first, and the smallest text decides.
    """
    order: dict[Symbol, None] = {}
    formulas = [s for s in dict.fromkeys(kernel.sizes()) if isinstance(s, Dim)]  # extents first: most are one symbol
    for formula in formulas:
        new = {s for s in dims.symbols(formula) if s not in order}
        if len(new) > 1:
            break
        order.update(dict.fromkeys(new))
    else:
        return list(order)
    symbols = sorted({s for f in formulas for s in dims.symbols(f)}, key=lambda s: s.order)
    pending = [_refined(formulas, {s: s.min for s in symbols})]
    complete: list[list[Symbol]] = []
    while pending and len(complete) < 64:  # more would mean eight and more symbols that nothing tells apart
        rank = pending.pop()
        tied = _first_tie(rank)
        if not tied:
            complete.append(sorted(symbols, key=lambda s: rank[s]))
        for s in tied:
            pending.append(_refined(formulas, {t: 2 * r + (t in tied and t != s) for t, r in rank.items()}))
    return min(complete, key=lambda order: _key_text(kernel, order))


def _first_tie(rank: Mapping[Symbol, int]) -> list[Symbol]:
    by_rank: dict[int, list[Symbol]] = {}
    for s, r in rank.items():
        by_rank.setdefault(r, []).append(s)
    return next((group for _, group in sorted(by_rank.items()) if len(group) > 1), [])


def _refined(formulas: Sequence[Dim], rank: Mapping[Symbol, int]) -> dict[Symbol, int]:
    """Symbols told apart by how they stand among the others in all formulas, again and again until nothing changes."""
    while True:
        marks = {s: (r, [size_formula(f, {**{t: f"s{q}" for t, q in rank.items()}, s: "*"}) for f in formulas]) for s, r in rank.items()}
        distinct = sorted({repr(m) for m in marks.values()}, key=lambda text: (int(text[1:text.index(",")]), text))
        number = {text: i for i, text in enumerate(distinct)}
        new = {s: number[repr(m)] for s, m in marks.items()}
        if len(distinct) == len(set(rank.values())):
            return new
        rank = new


# ---- programs -----------------------------------------------------------------------------------


def print_program(program: Program) -> str:
    """Slabs, then steps in order.  A kernel is printed where it is launched first, and named after that."""
    return "\n".join([*_ProgramText(program).lines(), ""])


class _ProgramText:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.printer = Printer(data=False)
        self.labels = _unique([s.name or f"s{s.id}" for s in program.slabs])
        self.kernels: dict[str, str] = {}  # text -> name
        self.counts: dict[str, int] = {}
        self.here = os.getcwd() + os.sep

    def lines(self) -> Iterator[str]:
        p = self.program
        yield f"program {name_text(p.name)}"
        yield from (f"  slab {self.slab(s)}" for s in p.slabs)
        if not isinstance(p.arena, int) or p.arena:
            yield f"  arena {self.size(p.arena)} bytes"
        yield from (f"  guard {self.size(g)} == 0" for g in p.guards)
        apart = True  # kernels stand apart
        for i, step in enumerate(p.steps):
            if isinstance(step, Launch):
                lines = list(self.launch(i, step))
                yield from [""] * (apart or len(lines) > 1)
                yield from lines
                apart = len(lines) > 1
                continue
            yield from [""] * apart
            apart = False
            if isinstance(step, Product):
                yield self.step(i, self.product(step), step.origin)
            elif isinstance(step, Ordered):
                operands = ", ".join(self.view(v) for v in step.operands)
                yield self.step(i, f"{self.view(step.out)} = ordered {step.word}({operands}; axis={step.axis})", step.origin)
            elif isinstance(step, Sweep):
                yield from self.sweep(i, step)
                apart = True
            else:
                yield self.step(i, self.call_out(step), step.origin)
        yield ""
        if p.checks:
            yield f"  check {', '.join(self.label(c) for c in p.checks)}"
        yield f"  return {', '.join(self.label(r) for r in p.roots)}".rstrip()

    def size(self, size: Size) -> str:
        return self.printer.size_text(size)

    def label(self, slab: int) -> str:
        return self.labels[slab] if 0 <= slab < len(self.labels) else f"<slab {slab}>"

    def shape(self, shape: Sequence[Size]) -> str:
        return f"[{', '.join(self.size(s) for s in shape)}]"

    def slab(self, s: Slab) -> str:
        text = f"{self.label(s.id)}: {s.place} {SHORT[s.array.dtype.name]}{self.shape(s.array.shape)}"
        if s.data is not None:
            shown = array_text(s.data.view(s.array.dtype)[..., 0] if s.pairs else np.asarray(s.data))
            text += f" = {shown}" if shown is not None else ""
        if s.place in ("arena", "block"):
            text += f" at {self.size(s.offset)}"
        if s.place != "block" and (s.first >= 0 or s.last >= 0):
            text += f", steps {'start' if s.first < 0 else s.first}..{'end' if s.last >= len(self.program.steps) else s.last}"
        return text + (f", in place of {self.label(s.inplace)}" if s.inplace >= 0 else "")

    def view(self, v: View) -> str:
        text = self.label(v.slab) + self.shape(v.shape)
        notes = []
        if tuple(v.strides) != contiguous(v.shape):
            notes.append(f"strides {', '.join(self.size(s) for s in v.strides)}")
        if not isinstance(v.offset, int) or v.offset:
            notes.append(f"offset {self.size(v.offset)}")
        return text if not notes else f"{text[:-1]}; {'; '.join(notes)}]"

    def step(self, i: int, text: str, origin: Origin) -> str:
        line = f"  {i}: {text}"
        where = self.origin(origin)
        return f"{line:<{COMMENT_COLUMN}}  # {where}" if where else line

    def origin(self, origin: Origin) -> str:
        file = origin.file
        if file.startswith(self.here):
            file = file[len(self.here):].replace(os.sep, "/")
        parts = [f"{file}:{origin.line}"] if (origin.file, origin.line) != UNKNOWN[:2] else []
        return " ".join([*parts, *(["by " + ", ".join(origin.rules)] if origin.rules else [])])

    def launch(self, i: int, step: Launch) -> Iterator[str]:
        names = _named(_sizes(step.kernel), self.printer)
        text = print_kernel(step.kernel, names)
        known = self.kernels.get(text)
        name = known if known is not None else self.kernel_name(step.kernel, text)
        slabs = ", ".join("temp" if s < 0 else self.label(s) for s in step.slabs)
        yield self.step(i, f"{name}({slabs})", step.origin)
        if known is None:
            yield from ("    " + line for line in text.splitlines())

    def sweep(self, i: int, step: Sweep) -> Iterator[str]:
        lead = ", ".join(f"{self.size(lone(symbol))} < {self.size(size)}" for symbol, size in step.lead)
        many = f", {self.size(step.height)}" if not isinstance(step.height, int) else ""
        rows = f"rows {self.size(lone(step.start))} < {self.size(step.rows)} by {step.block}{many}"
        yield self.step(i, f"sweep {lead + ', ' if lead else ''}{rows}{self.seen(step)}; {self.size(step.room)} bytes", step.origin)
        for n, inner in enumerate(step.steps):
            if isinstance(inner, Product):
                yield "  " + self.step(n, self.product(inner), inner.origin)
            else:
                yield from ("  " + line for line in self.launch(n, inner))

    def seen(self, step: Sweep) -> str:
        seen = step.seen
        if seen is None:
            return ""
        again = f" (all if {self.label(seen.slab)} says so after step {seen.step})" if seen.step >= 0 else ""
        return f", columns {self.size(lone(seen.first))} = {self.size(seen.begin)}, {self.size(lone(seen.many))} up to {self.size(seen.end)}{again}"

    def product(self, step: Product) -> str:
        axes = "" if step.axes == (1, 1, 1) else f" over {step.axes[0]}, {step.axes[1]}, {step.axes[2]} axes"
        unless = "" if isinstance(step.adds, int) else f" unless {self.size(step.adds)} is 0"
        adds = "" if step.adds == 0 else f", added to what is there{unless}"
        return f"{self.view(step.out)} = product {self.view(step.a)} @ {self.view(step.b)}{axes}{adds}"

    def kernel_name(self, kernel: Kernel, text: str) -> str:
        name = name_text(kernel.name)
        k = self.counts[name] = self.counts.get(name, 0) + 1
        self.kernels[text] = name if k == 1 else f"{name}~{k}"
        return self.kernels[text]

    def call_out(self, step: CallOut) -> str:
        args = ", ".join(self.view(v) for v in step.inputs)
        attrs = step.node.attrs
        if attrs:
            args += "; " + ", ".join(f"{k}={self.printer.attr_text(attrs[k])}" for k in sorted(attrs))
        text = f"{', '.join(self.label(s) for s in step.outputs)} = call {name_text(step.node.op.name)}({args})"
        for symbol, result, axis in step.found:
            text += f", {self.size(lone(symbol))} = {self.label(step.outputs[result])}.shape[{axis}]"
        return text
