"""The door: arguments checked and converted, sizes solved, state read and written.  Nothing changes if a call fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from graphc import dims, dtypes
from graphc.dims import Dim, Size, Symbol
from graphc.errors import GraphcTypeError, GraphcValueError, Origin
from graphc.ir import Array, Container, Graph, Relation, Shared, Type, Var, updating

Runner = Callable[[Sequence[Array], Mapping[Symbol, int]], list[Array]]


@dataclass(frozen=True)
class Parameter:
    """One argument of a compiled function."""

    var: Var
    name: str | None
    default: Array | None
    borrow: bool = False

    def label(self, position: int) -> str:
        return f"argument {self.name!r}" if self.name else f"argument {position}"


class Door:
    """Checks calls of one graph and runs them."""

    def __init__(self, graph: Graph, parameters: Sequence[Parameter], runner: Runner, name: str, downcast: bool | None) -> None:
        self.graph, self.parameters, self.runner, self.name, self.downcast = graph, tuple(parameters), runner, name, downcast
        self.names = {p.name: i for i, p in enumerate(parameters) if p.name is not None}
        doubled = [p.name for i, p in enumerate(parameters) if p.name is not None and self.names[p.name] != i]
        self.ambiguous = frozenset(doubled)
        self.shared = graph.shared
        self.updated = tuple(s for s, _ in graph.updates)
        # locks in one order everywhere, so that functions that share state cannot wait for each other in a ring
        self.locked: tuple[Shared, ...] = tuple(sorted(dict.fromkeys([*self.updated, *(self.shared if self.updated else ())]), key=lambda s: id(s.container)))
        self.leaves = (*graph.inputs, *graph.shared)
        self.sources = _sources(self.leaves)
        self.minima = _minima(graph)

    # -- arguments ----------------------------------------------------------------------------

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
        """One array per parameter, of its dtype, rank and known sizes."""
        parameters = self.parameters
        if len(args) > len(parameters):
            raise GraphcTypeError(f"{self.name}() takes {len(parameters)} argument(s) ({self._signature()}); {len(args)} were given")
        given: list[Any] = [*args, *([_MISSING] * (len(parameters) - len(args)))]
        for name, value in kwargs.items():
            position = self.names.get(name)
            if position is None:
                raise GraphcTypeError(f"{self.name}() has no argument {name!r}; its arguments are: {self._signature()}")
            if name in self.ambiguous:
                raise GraphcTypeError(f"{self.name}(): several arguments are named {name!r}; give them by position")
            if given[position] is not _MISSING:
                raise GraphcTypeError(f"{self.name}() got argument {name!r} twice: by position and by name")
            given[position] = value
        arrays = []
        for i, (p, value) in enumerate(zip(parameters, given, strict=True)):
            if value is _MISSING:
                if p.default is None:
                    missing = [q.label(k) for k, q in enumerate(parameters) if given[k] is _MISSING and q.default is None]
                    raise GraphcTypeError(f"{self.name}() is missing {', '.join(missing)} (it takes: {self._signature()})")
                arrays.append(p.default)
            elif type(value) is np.ndarray and value.dtype == p.var.type.dtype and value.ndim == len(p.var.type.shape):
                arrays.append(value)
            else:
                arrays.append(convert(value, p, i, self.downcast))
        return arrays

    def _signature(self) -> str:
        return ", ".join(f"{p.name or '_'}: {p.var.type}" for p in self.parameters) or "none"

    # -- sizes --------------------------------------------------------------------------------

    def solve(self, arrays: Sequence[Array]) -> dict[Symbol, int]:
        """The symbols from the shapes; GraphcValueError naming the two arguments that disagree."""
        leaves = self.leaves
        env: dict[Symbol, int] = {}
        later: list[tuple[int, int, Size]] = []
        for k, (v, a) in enumerate(zip(leaves, arrays, strict=True)):
            if a.shape == v.type.shape:
                continue
            for axis, (size, have) in enumerate(zip(v.type.shape, a.shape, strict=True)):
                if isinstance(size, int):
                    if size != have:
                        raise GraphcValueError(f"{self._leaf(k)} has size {have} on axis {axis} (shape {a.shape}); declared {v.type}", v.origin)
                    continue
                symbol = size.symbol
                if symbol is None:
                    later.append((k, axis, size))
                elif env.setdefault(symbol, have) != have:
                    self._disagree(symbol, k, axis, have, arrays)
        for _ in range(len(later)):  # 2*n+1 solves n where no argument has n itself
            for k, axis, size in later:
                try:
                    found = dims.solve(size, arrays[k].shape[axis], env)
                except GraphcValueError as error:
                    raise GraphcValueError(f"{self._leaf(k)}, axis {axis}: {error.message}", leaves[k].origin) from None
                if found is not None:
                    env[found[0]] = found[1]
        for k, axis, size in later:
            try:
                want = dims.evaluate(size, env)
            except KeyError as missing:
                raise GraphcValueError(f"{self._leaf(k)}: the size {size} does not say what {missing.args[0]} is; "
                                       "give some input that dim on its own", leaves[k].origin) from None
            if want != arrays[k].shape[axis]:
                values = ", ".join(f"{s} = {env[s]}" for s in dict.fromkeys(dims.symbols(size)))
                raise GraphcValueError(f"{self._leaf(k)} has size {arrays[k].shape[axis]} on axis {axis}; expected {size} = {want} ({values})", leaves[k].origin)
        for symbol, low in self.minima:
            if env[symbol] < low:
                k, axis = self.sources.get(symbol, (0, 0))
                raise GraphcValueError(f"{self._leaf(k)}: the dim {symbol} is {env[symbol]} on axis {axis}; declared at least {low}", leaves[k].origin)
        for relation, origin in self.graph.relations:
            self._check(relation, origin, env, arrays)
        return env

    def _leaf(self, k: int) -> str:
        n = len(self.parameters)
        if k < n:
            return f"{self.name}(): {self.parameters[k].label(k)}"
        s = self.shared[k - n]
        return f"{self.name}(): shared variable {s.name or ''}".rstrip()

    def _disagree(self, symbol: Symbol, k: int, axis: int, have: int, arrays: Sequence[Array]) -> None:
        j, other = self.sources[symbol]
        leaves = self.leaves
        first = self._leaf(j).split(": ", 1)[1]
        label = f"dim {symbol.name!r}" if symbol.name else "one size"
        raise GraphcValueError(
            f"{self._leaf(k)} and {first} disagree about {label}: axis {axis} of {leaves[k].name or 'it'} is {have} "
            f"(shape {arrays[k].shape}), axis {other} of {leaves[j].name or 'it'} is {arrays[j].shape[other]} (shape {arrays[j].shape})", leaves[k].origin)

    def _check(self, relation: Relation, origin: Origin, env: Mapping[Symbol, int], arrays: Sequence[Array]) -> None:
        try:
            a, b = dims.evaluate(relation.a, env), dims.evaluate(relation.b, env)
        except KeyError as missing:
            raise GraphcValueError(f"{self.name}(): the size {missing.args[0]} is needed, but no argument has it", origin) from None
        except GraphcValueError as error:
            raise GraphcValueError(f"{self.name}(): {error.message}", origin) from None
        if a == b or (relation.kind == "broadcast" and 1 in (a, b)):
            return
        parts = [str(size) if isinstance(size, int) else f"{dims.size_text(size, _labels(size))} = {value}{self._where_from(size, arrays)}"
                 for size, value in ((relation.a, a), (relation.b, b))]
        must = "must be equal" if relation.kind == "equal" else "must be equal, or one of them 1"
        raise GraphcValueError(f"{self.name}(): {parts[0]} and {parts[1]} {must}", origin)

    def _where_from(self, size: Size, arrays: Sequence[Array]) -> str:
        found = []
        for s in dict.fromkeys(dims.symbols(size)):
            if s in self.sources:
                k, axis = self.sources[s]
                found.append(f"axis {axis} of {self._leaf(k).split(': ', 1)[1]}, whose shape is {arrays[k].shape}")
        return f" ({'; '.join(found)})" if found else ""

    # -- the call -----------------------------------------------------------------------------

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Array]:
        """Run the graph; state is replaced after everything is computed, all of it or none."""
        arrays = self.arguments(args, kwargs)
        if not self.shared:
            return self.runner(arrays, self.solve(arrays))
        held = 0
        token = object()
        try:
            if self.locked:
                updating.append(token)
            for s in self.locked:
                s.container.lock.acquire()
                held += 1
            arrays += self._state()
            env = self.solve(arrays)
            try:
                results = self.runner(arrays, env)
            except MemoryError as error:
                error.add_note(f"in {self.name}(), with sizes {', '.join(f'{s}={n}' for s, n in env.items())}; no state was changed")
                raise
            k = len(results) - len(self.updated)
            for s, value in zip(self.updated, results[k:], strict=True):
                if value.shape != s.type.shape:
                    self._check_new(s, value)
            _store([s.container for s in self.updated], results[k:])
        finally:
            for s in self.locked[:held]:
                s.container.lock.release()
            if token in updating:
                updating.remove(token)
        return results[:k]

    def _state(self) -> list[Array]:
        """The state as of one moment: no other thread runs within one call of ``map`` with a C function."""
        return list(map(_VALUE, self.shared))

    def _check_new(self, s: Shared, value: Array) -> None:
        for axis, (size, have) in enumerate(zip(s.type.shape, value.shape, strict=True)):
            if isinstance(size, int) and size != have:
                raise GraphcValueError(f"{self.name}(): the update of {s.describe()} has shape {value.shape}: size {have} on axis {axis}, expected {size}")


_VALUE = attrgetter("container.value")
_PUT = Container.__dict__["value"].__set__


def _store(containers: Sequence[Container], values: Sequence[Array]) -> None:
    """All of them in one step, between which no other thread and no signal comes.  The old values go after it."""
    old = [c.value for c in containers]
    deque(map(_PUT, containers, values), maxlen=0)
    old.clear()


class _Missing:
    pass


_MISSING = _Missing()


def _labels(size: Size) -> dict[Symbol, str]:
    return {s: s.label for s in dims.symbols(size) if s.name is None and s.label}


def _sources(leaves: Sequence[Var]) -> dict[Symbol, tuple[int, int]]:
    """Which leaf and axis says what a symbol is."""
    found: dict[Symbol, tuple[int, int]] = {}
    for k, v in enumerate(leaves):
        for axis, size in enumerate(v.type.shape):
            if isinstance(size, Dim) and size.symbol is not None:
                found.setdefault(size.symbol, (k, axis))
    for k, v in enumerate(leaves):
        for axis, size in enumerate(v.type.shape):
            for s in dims.symbols(size):
                found.setdefault(s, (k, axis))
    return found


def _minima(graph: Graph) -> list[tuple[Symbol, int]]:
    """The promises of gc.dim(name, min=...); two dims of one name keep the stricter one."""
    found: dict[Symbol, int] = {}
    for v in (*graph.inputs, *graph.shared):
        for size in v.type.shape:
            for s in dims.symbols(size):
                found[s] = max(found.get(s, 0), s.min)
    return [(s, low) for s, low in found.items() if low > 0 or s.kind == "named"]


# ---- conversion ---------------------------------------------------------------------------------


def convert(value: Any, p: Parameter, position: int, downcast: bool | None) -> Array:
    """An argument as an array of the declared dtype and rank.

    NumPy arrays and scalars have a dtype: it must convert safely (integers: by their
    values).  Lists and Python numbers convert if no value is lost; a Python float fits
    any float dtype.  ``downcast=True`` allows any conversion within a kind.
    """
    type, label = p.var.type, p.label(position)
    if isinstance(value, Var):
        raise GraphcTypeError(f"{label} is a symbolic variable ({value.describe()}); a call takes values: arrays and numbers", p.var.origin)
    if value is None:
        raise GraphcTypeError(f"{label} is None; declared {type}", p.var.origin)
    if isinstance(value, np.ndarray) and np.ma.is_masked(value):  # type: ignore[no-untyped-call]
        raise GraphcTypeError(f"{label} is a masked array with masked entries, which have no value here; declared {type}; fill it first", p.var.origin)
    typed = isinstance(value, (np.ndarray, np.generic)) or (hasattr(value, "dtype") and hasattr(value, "__array__"))
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise GraphcTypeError(f"{label} does not convert to an array: {error}; declared {type}", p.var.origin) from None
    if array.dtype.kind in "OSUMm" or (array.dtype.kind == "V" and array.dtype.name != "bfloat16"):
        raise GraphcTypeError(f"{label} is an array of dtype {array.dtype}; declared {type}: numbers of one shape are expected", p.var.origin)
    if array.ndim != type.ndim:
        raise GraphcTypeError(f"{label} has rank {array.ndim} (shape {array.shape}); declared {type}, rank {type.ndim}", p.var.origin)
    if array.dtype != type.dtype:
        array = _cast(array, typed, type, label, downcast, p.var.origin)
    if not isinstance(value, np.ndarray) and array.base is not None:
        array = array.copy()
    return array


def _cast(array: Array, typed: bool, type: Type, label: str, downcast: bool | None, origin: Origin) -> Array:
    have, want = array.dtype, type.dtype
    with np.errstate(all="ignore"):
        cast = array.astype(want) if not (dtypes.is_complex(have) and not dtypes.is_complex(want)) else None
    if cast is not None:
        if array.size == 0 and not typed:
            return cast  # an empty list has no dtype of its own
        if have.newbyteorder("=") == want or np.can_cast(have, want):
            return cast
        if dtypes.is_integer(have) or dtypes.is_bool(have):
            if dtypes.is_bool(want):
                exact = False
            else:
                with np.errstate(all="ignore"):
                    exact = bool(np.array_equal(cast.astype(have), array)) and (want.kind != "u" or not bool((array < 0).any())) \
                        and (have.kind != "u" or want.kind not in "i" or not bool((cast < 0).any()))
            if exact or (downcast and not dtypes.is_bool(want)):
                return cast
            raise GraphcTypeError(f"{label}: values {_range(array)} of dtype {have} do not fit {want}; declared {type}", origin)
        floating = dtypes.is_float(have) and dtypes.is_inexact(want)
        if floating and (downcast or (not typed and downcast is not False)):
            return cast
        if floating and not typed and bool(np.array_equal(cast.astype(have), array, equal_nan=True)):
            return cast
        if dtypes.is_complex(have) and dtypes.is_complex(want) and (downcast or not typed):
            return cast
    advice = f"convert it yourself with .astype({str(want)!r})"
    if dtypes.is_float(have) and dtypes.is_float(want):
        advice += ", or compile with allow_input_downcast=True"
    raise GraphcTypeError(f"{label} has dtype {have}, which does not convert to {want} without loss; declared {type}; {advice}", origin)


def _range(array: Array) -> str:
    return f"from {array.min()} to {array.max()}" if array.size else "(none)"


__all__ = ["Door", "Parameter", "convert"]
