"""The accumulators of a kernel being written: a home in the stack frame, registers in the innermost loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.backends.llvm import reducing
from graphc.backends.llvm.elements import convert
from graphc.backends.llvm.formulas import ContextSizes
from graphc.backends.llvm.reducing import Accumulator
from graphc.backends.llvm.values import Loop, Value, select
from graphc.dtypes import is_half
from graphc.kernel import Kernel

__all__ = ["Accumulators"]


class Accumulators(ContextSizes):
    """A part of the Emitter (kernels.py): what it knows of reductions."""

    kernel: Kernel
    depends: list[frozenset[int]]
    lanes: int
    unroll: int
    group: int
    vector: int
    homes: dict[int, list[tuple[str, ...]]]
    held: dict[int, list[Accumulator]]
    fresh: set[int]
    carried: dict[int, list[Accumulator]]

    def operand_dtype(self, i: int) -> np.dtype[Any]:
        return self.kernel.values[self.kernel.values[i].args[0]].dtype

    def acc_lanes(self, i: int) -> int:
        """Do the accumulators have lanes?  Where the operand differs along the vector range, or that is reduced."""
        v = self.kernel.values[i]
        return self.lanes if self.vector in self.depends[v.args[0]] or self.vector in v.over else 0

    def acc_count(self, i: int) -> int:
        if not self.acc_lanes(i):
            return 1
        return self.unroll if self.vector in self.kernel.values[i].over else self.group

    def make_home(self, i: int, straight: bool = False) -> None:
        """A place for the accumulators of a reduction, set to the identity: stack memory, or, if the loops that add to it stand
        one after the other (``straight``), the registers themselves."""
        f, lanes = self.f, self.acc_lanes(i)
        first = self.first(i, lanes)
        if straight:
            self.held[i] = [first] * self.acc_count(i)
            self.fresh.add(i)
            return
        homes = []
        for n in range(self.acc_count(i)):
            names = []
            for part, x in enumerate(first):
                f.count += 1
                name = f"%home{i}.{n}.{part}.{f.count}"
                self.entry.append(f"  {name} = alloca {x.type}, align 64")
                f.line(f"store {x.type} {x.ref}, ptr {name}")
                names.append(name)
            homes.append(tuple(names))
        self.homes[i] = homes

    def _load_home(self, i: int, n: int) -> Accumulator:
        if i in self.held:
            return self.held[i][n]
        f, v = self.f, self.kernel.values[i]
        lanes = self.acc_lanes(i)
        found = []
        for name, kind in zip(self.homes[i][n], reducing.kinds(v.word, self.operand_dtype(i)), strict=True):
            x = Value(f, "", kind, lanes)
            found.append(Value(f, f.op(f"load {x.type}, ptr {name}"), kind, lanes))
        return tuple(found)

    def homes_loaded(self, carried: Sequence[int]) -> dict[int, list[Accumulator]]:
        return {i: self._all_home(i) for i in carried}

    def _all_home(self, i: int) -> list[Accumulator]:
        return list(self.held[i]) if i in self.held else [self._load_home(i, n) for n in range(len(self.homes[i]))]

    def homes_stored(self, accs: dict[int, list[Accumulator]]) -> None:
        for i, found in accs.items():
            if i in self.held:
                self.held[i] = list(found)
                continue
            for acc, names in zip(found, self.homes[i], strict=True):
                for x, name in zip(acc, names, strict=True):
                    self.f.line(f"store {x.type} {x.ref}, ptr {name}")

    @contextmanager
    def written_out(self, carried: Sequence[int]) -> Iterator[None]:
        """Rounds that are written one after the other: accumulators stay in registers."""
        self.carried.update(self.homes_loaded(carried))
        yield
        self.homes_stored({i: self.carried.pop(i) for i in carried})

    @contextmanager
    def looped(self, low: Value, high: Value, step: int, stem: str, carried: Sequence[int]) -> Iterator[Loop]:
        """A loop that carries accumulators in registers."""
        f = self.f
        firsts = self.homes_loaded(carried)
        self.fresh.difference_update(carried)
        with f.loop(low, high, f.const(step, "i64"), stem) as loop:
            phis = {i: [tuple([loop.carry(x) for x in acc]) for acc in accs] for i, accs in firsts.items()}
            self.carried.update({i: list(accs) for i, accs in phis.items()})
            yield loop
            for i, accs in phis.items():
                for phi, acc in zip(accs, self.carried.pop(i), strict=True):
                    for p, x in zip(phi, acc, strict=True):
                        loop.next(p, x)
        self.homes_stored(phis)

    def take_home(self, i: int) -> list[Value]:
        """The value of a reduction whose loops are done: one vector for each of the group, or a scalar."""
        v, dtype = self.kernel.values[i], self.operand_dtype(i)
        accs = self._all_home(i)
        self.held.pop(i, None)
        if self.vector in v.over:
            while len(accs) > 1:
                half = len(accs) // 2
                accs = [reducing.combine(v.word, dtype, a, b) for a, b in zip(accs[:half], accs[half:], strict=True)]
            accs = [reducing.horizontal(v.word, dtype, accs[0])]
        else:
            accs = accs[:self.group] if accs[0][0].lanes else accs
        return [self.finished(i, a) for a in accs]

    def first(self, i: int, lanes: int) -> Accumulator:
        """What a reduction starts from: what changes nothing, but for a sum of floats 0.0 where there is nothing to add."""
        f, v, dtype = self.f, self.kernel.values[i], self.operand_dtype(i)
        nothing = reducing.identity(f, v.word, dtype, lanes)
        unknown = [e for e in (self.kernel.ranges[r].extent for r in v.over) if not isinstance(e, int) or e == 0]
        if v.word != "sum" or not nothing[0].float or not unknown:
            return nothing

        def start() -> Value:
            empty = self.size(unknown[0]).eq(0)
            for e in unknown[1:]:
                empty = empty | self.size(e).eq(0)
            kind = nothing[0].kind
            return f.splat(select(empty, f.const(0.0, kind), f.const(-0.0, kind)), lanes)

        return (self.invariant(("first", v.over, nothing[0].kind, lanes), start),)

    def finished(self, i: int, acc: Accumulator) -> Value:
        """The result in its dtype."""
        v, dtype = self.kernel.values[i], self.operand_dtype(i)
        x = reducing.result(v.word, dtype, acc)
        return convert(x, np.dtype(np.float32), v.dtype) if is_half(v.dtype) else x
