"""How each op is written in NumPy: one expression a node.

``EMIT`` holds, by op name, functions that give an expression; what it lacks is a call of the op's own
``forward`` under the op's name, so every op works.  What is written here must give the bits of
``forward``: an idiom that differs in any case leaves that case to ``forward`` (it returns None).
"""

from __future__ import annotations

import builtins
import functools
import keyword
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.backends.numpy_runtime import Foreign, select
from graphc.dims import Dim, Size, Symbol
from graphc.ir import Array, BoundGraph, Graph, Node, Type
from graphc.ops.cumulative import accumulator
from graphc.ops.elementwise_base import Elementwise
from graphc.ops.reduction import Extremum, Logical, Prod, Sum
from graphc.ops.slicing import NEW, SCALAR, is_advanced
from graphc.plan import is_foreign

#: words that generated code must not give another meaning
PYTHON = frozenset((*dir(builtins), *keyword.kwlist, "np", "buf", "env", "v", "step", "allocate", "floordiv", "mod", "bcast"))


class Words:
    """The names of one generated module: sizes, bound objects, and expressions made of them."""

    def __init__(self) -> None:
        self.used = set(PYTHON)
        self.namespace: dict[str, Any] = {"np": np}
        self.symbols: dict[Symbol, str] = {}
        self.needed: dict[Symbol, None] = {}  # the symbols that stand in some expression
        self.needs_env = False
        self._bound: dict[Any, str] = {}

    def fresh(self, stem: str) -> str:
        name, k = stem, 1
        while name in self.used:
            k += 1
            name = f"{stem}_{k}"
        self.used.add(name)
        return name

    def symbol(self, symbol: Symbol) -> str:
        name = self.symbols.get(symbol)
        if name is None:
            stem = symbol.name if symbol.name is not None and symbol.name.isascii() else f"d{len(self.symbols)}"
            name = self.symbols[symbol] = self.fresh(stem)
        return name

    def bind(self, stem: str, value: Any, key: Any = None) -> str:
        """A global name for an object of the compiler; one name for one object."""
        key = ("id", id(value)) if key is None else key
        name = self._bound.get(key)
        if name is None:
            stem = stem if stem.isidentifier() and stem.isascii() else "value"
            name = self._bound[key] = self.fresh(f"{stem}_" if stem in PYTHON else stem)
            self.namespace[name] = value
        return name

    def size(self, size: Size) -> str:
        if not isinstance(size, Dim):
            return str(int(size))
        names = {s: self.symbol(s) for s in dims.symbols(size)}
        self.needed.update(dict.fromkeys(names))
        for fn in ("floordiv", "mod", "bcast"):
            self.namespace.setdefault(fn, functools.partial(dims.call, fn))  # of two sizes or more
        return size.text(names)

    def sizes(self, sizes: Sequence[Size]) -> str:
        return "(" + ", ".join(map(self.size, sizes)) + ("," if len(sizes) == 1 else "") + ")"

    def dtype(self, dtype: np.dtype[Any]) -> str:
        if dtype.name == "bfloat16":
            return self.bind("bfloat16", dtype.type)
        return "np.bool_" if dtype.name == "bool" else f"np.{dtype.name}"

    def literal(self, value: Any) -> str:
        """An attribute as an expression; what has none becomes a bound object."""
        if isinstance(value, Dim):
            return self.size(value)
        if value is None or value is Ellipsis or isinstance(value, (bool, str, int)):
            return repr(value)
        if isinstance(value, float) and math.isfinite(value):
            return repr(value)
        if isinstance(value, np.dtype):
            return f"np.dtype({self.dtype(value)})"
        if isinstance(value, tuple) and type(value) is tuple:
            return "(" + ", ".join(map(self.literal, value)) + ("," if len(value) == 1 else "") + ")"
        if isinstance(value, Graph):
            self.needs_env = True
            return f"{self.bind('BoundGraph', BoundGraph)}({self.bind(value.name, value)}, env)"
        return self.bind("attribute", value)

    def constant(self, value: Array) -> str:
        """The right side of ``c0 = ...`` for a scalar whose text is exact, "" for anything else."""
        if value.ndim or value.dtype.kind not in "biuf":
            return ""
        number = value.item()
        text = repr(number) if not isinstance(number, float) or math.isfinite(number) else {"inf": "np.inf", "-inf": "-np.inf"}.get(repr(number), "")
        return f"np.array({text}, {self.dtype(value.dtype)})" if text else ""


class Site:
    """One step about to be written: its node, the names of its operands, the buffer for its result (or None)."""

    __slots__ = ("args", "contiguous", "node", "out", "used_out", "words")

    def __init__(self, node: Node, args: Sequence[str], out: str | None, contiguous: Sequence[bool], words: Words) -> None:
        self.node, self.args, self.out, self.contiguous, self.words = node, list(args), out, list(contiguous), words
        self.used_out = False

    @property
    def type(self) -> Type:
        return self.node.outputs[0].type

    def call(self, function: str, args: Sequence[str], *, out: bool = False) -> str:
        """``function(args, out=buffer)``, as an array where it would give a NumPy scalar."""
        parts = list(args)
        if out and self.out is not None:
            self.used_out = True
            return f"{function}({', '.join([*parts, f'out={self.out}'])})"
        text = f"{function}({', '.join(parts)})"
        return f"np.asarray({text})" if self.type.ndim == 0 else text


def expression(site: Site) -> str:
    """The right side of the line for one step."""
    op = site.node.op
    special = EMIT.get(op.name) if not is_foreign(op) else None
    found = special(site) if special is not None else None
    if found is None and isinstance(op, Elementwise) and type(op).forward is Elementwise.forward:
        found = _elementwise(site, op)
    return found if found is not None else _forward(site)


def _elementwise(site: Site, op: Elementwise) -> str:
    name = getattr(op.fn, "__name__", "")
    attrs = _attrs(site)
    if isinstance(op.fn, np.ufunc):
        known = getattr(np, name, None) is op.fn
        return site.call(f"np.{name}" if known else site.words.bind(name, op.fn), [*site.args, *attrs], out=True)
    if op.fn is np.where:
        return f"np.where({', '.join(site.args)})"
    return site.call(site.words.bind(op.name, op.fn), [*site.args, *attrs])


def broadcasts_itself(node: Node) -> bool:
    """Is it a ufunc, which broadcasts its operands to each other and to its ``out``?"""
    op = node.op
    return isinstance(op, Elementwise) and type(op).forward is Elementwise.forward and isinstance(op.fn, np.ufunc)


def _forward(site: Site) -> str:
    """A call of the op itself."""
    op = site.node.op
    if is_foreign(op):
        function = site.words.bind(op.name, Foreign(site.node), ("foreign", site.node))
    else:
        function = site.words.bind(op.name, op.forward, ("forward", id(op)))
    text = f"{function}({', '.join([*site.args, *_attrs(site)])})"
    return f"np.asarray({text})" if len(site.node.outputs) == 1 and site.type.ndim == 0 else text


def _attrs(site: Site) -> list[str]:
    return [f"{k}={site.words.literal(v)}" for k, v in site.node.attrs.items()]


# ---- the table --------------------------------------------------------------------------------


def _cast(site: Site) -> str | None:
    dtype = site.type.dtype
    x, = site.args
    if site.node.inputs[0].type.dtype.kind == "c" and dtype.kind not in "cb":
        x += ".real"
    if site.out is not None:
        site.used_out = True
        return f"np.copyto({site.out}, {x}, casting='unsafe')"
    return f"{x}.astype({site.words.dtype(dtype)})"


def _reshape(site: Site) -> str | None:
    shape = site.node.attrs["shape"]
    if len(site.args) > 1 or any(isinstance(s, int) and s < 0 for s in shape):
        return None
    return f"{site.args[0]}.reshape({site.words.sizes(shape)})"


def _transpose(site: Site) -> str:
    return f"{site.args[0]}.transpose({site.node.attrs['axes']})"


def _expand_dims(site: Site) -> str:
    entries = ["None" if i in site.node.attrs["axes"] else ":" for i in range(site.type.ndim)]
    while entries and entries[-1] == ":":
        entries.pop()
    return f"{site.args[0]}[{', '.join(entries) or '...'}]"


def _squeeze(site: Site) -> str:
    return f"{site.args[0]}.squeeze({site.node.attrs['axes']})"


def _broadcast_to(site: Site) -> str | None:
    return f"np.broadcast_to({site.args[0]}, {site.words.sizes(site.node.attrs['shape'])})" if len(site.args) == 1 else None


def _subtensor(site: Site) -> str | None:
    index, words = site.node.attrs["index"], site.words
    if is_advanced(index):
        return None
    rest = iter(site.args[1:])

    def bound(b: Any) -> str:
        return f"int({next(rest)})" if isinstance(b, str) and b == SCALAR else words.size(b)

    parts = []
    for entry in index:
        if isinstance(entry, tuple):
            start, stop, step = ("" if b is None else bound(b) for b in entry)
            parts.append(f"{start}:{stop}" + (f":{step}" if step != "1" else ""))
        else:
            parts.append("None" if isinstance(entry, str) and entry == NEW else bound(entry))
    return f"{site.args[0]}[{', '.join([*parts, '...'])}]"


def _matmul(site: Site) -> str | None:
    a, b = (v.type for v in site.node.inputs)
    if site.type.dtype.kind not in "fc" or accumulator(site.type.dtype) != site.type.dtype or (a.ndim > 2 and b.ndim == 2):
        return None
    return site.call("np.matmul", site.args, out=True)


def _concatenate(site: Site) -> str:
    return site.call("np.concatenate", [f"({', '.join(site.args)},)", f"axis={site.node.attrs['axis']}"], out=True)


def _reduction(site: Site) -> str | None:
    op = site.node.op
    source, wide = site.node.inputs[0].type, site.type.dtype
    if type(op) not in (Sum, Prod, Extremum, Logical) or accumulator(wide) != wide:
        return None
    assert isinstance(op, (Sum, Prod, Extremum, Logical))
    x, = site.args
    if op.rounds and dtypes.is_inexact(wide) and not site.contiguous[0]:
        x = f"np.asarray({x}, order='C')"
    parts = [x, f"axis={site.node.attrs['axis']}"]
    if source.dtype != wide:
        parts.append(f"dtype={site.words.dtype(wide)}")
    if site.node.attrs["keepdims"]:
        parts.append("keepdims=True")
    text = site.call(f"np.{op.ufunc.__name__}.reduce", parts, out=True)
    if isinstance(op, Extremum) and not all(isinstance(s, int) and s > 0 for s in source.shape):
        if site.used_out:  # what an empty array gives does not lie in the buffer: that of an empty result needs no place
            text = f"{text} if {site.args[0]}.size else {_forward(site)}"
        else:
            text = f"({text} if {site.args[0]}.size else {_forward(site)})"
    return text


def _sum_to(site: Site) -> str | None:
    """One reduction, where the types say which axes are summed."""
    source, result = site.node.inputs[0].type, site.type
    lead = source.ndim - result.ndim
    inner = [lead + i for i, (have, want) in enumerate(zip(source.shape[lead:], result.shape, strict=True)) if have != want]
    if len(site.args) > 1 or any(result.shape[i - lead] != 1 for i in inner) or (lead and inner) or not (lead or inner):
        return None
    x, = site.args
    if not site.contiguous[0]:
        x = f"np.asarray({x}, order='C')"
    parts = [x, f"axis={tuple(inner) if inner else tuple(range(lead))}", f"dtype={site.words.dtype(source.dtype)}"]
    return site.call("np.add.reduce", [*parts, "keepdims=True"] if inner else parts, out=True)


def _relu(site: Site) -> str | None:
    """``max(x, 0)``, and 0.0 for the -0.0 that it may give."""
    dtype = site.type.dtype
    if site.out is None or dtype.name not in ("float32", "float64"):
        return None
    site.used_out = True
    zero = site.words.bind("zero", np.zeros((), dtype), ("zero", dtype))
    return f"np.add(np.maximum({site.args[0]}, {zero}, out={site.out}), {zero}, out={site.out})"


def _where(site: Site) -> str | None:
    """Without branches, where there is a buffer to do it in."""
    if site.out is None or site.type.dtype.kind not in "fiu" or site.type.ndim == 0:
        return None
    site.used_out = True
    return f"{site.words.bind('select', select)}({', '.join(site.args)}, out={site.out})"


def _size_of(site: Site) -> str:
    return f"np.array({site.args[0]}.shape[{site.node.attrs['axis']}], np.int64)"


def _dim(site: Site) -> str:
    return f"np.array({site.words.size(site.node.attrs['size'])}, np.int64)"


#: op name -> its expression, or None to call ``forward``
EMIT: dict[str, Callable[[Site], str | None]] = {
    "all": _reduction, "any": _reduction, "broadcast_to": _broadcast_to, "cast": _cast, "concatenate": _concatenate, "dim": _dim,
    "expand_dims": _expand_dims, "matmul": _matmul, "max": _reduction, "min": _reduction, "prod": _reduction, "relu": _relu,
    "reshape": _reshape, "size_of": _size_of, "squeeze": _squeeze, "subtensor": _subtensor, "sum": _reduction, "sum_to": _sum_to,
    "transpose": _transpose, "where": _where,
}

__all__ = ["EMIT", "PYTHON", "Site", "Words", "broadcasts_itself", "expression"]
