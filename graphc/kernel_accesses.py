"""The accesses of a kernel, checked in numbers.  Used by ``verify_kernel``, where the rules are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from graphc import dtypes
from graphc.ir import Array
from graphc.kernel import Index, Launch
from graphc.kernel_form import Checker, Form
from graphc.kernel_numbers import Env, Numbers
from graphc.ops import OPS

__all__ = ["Accesses", "reached"]


class Accesses(Checker):
    """The accesses of a kernel of sound form, at one choice of the symbols."""

    def __init__(self, form: Form, env: Env) -> None:
        super().__init__(form.kernel, form.where)
        self.form, self.numbers = form, Numbers(form.kernel, env)
        self.intervals: list[tuple[int, int] | None] = []
        self.at = ", ".join(f"{s} = {n}" for s, n in env.items())

    def check(self) -> None:
        numbers, kernel = self.numbers, self.kernel
        self.same_memory()
        for i, v in enumerate(kernel.values):
            if v.index is None:
                continue
            for stage in self.form.runs[i]:
                around = self.form.around(stage)
                if numbers.empty(around):
                    self.nothing(i, v.index, around)
                    continue
                self.inside(i, v.index)
                if v.op == "store":
                    self.one_writer(i, v.index)
                elif kernel.operands[v.operand].mode == "temp":
                    self.written(i, v.index, stage)
        for k in range(len(kernel.operands)):
            if kernel.operands[k].mode == "out":
                self.apart([i for i in self.form.stores(k) if not numbers.empty(self.form.around(self.form.runs[i][0]))])

    def refuse(self, message: str, at: int = -1) -> NoReturn:
        self.fail(message + (f" (where {self.at})" if self.at else ""), at)

    def nothing(self, i: int, index: Index, around: Sequence[int]) -> None:
        """No point of the nest stores anything: so there is nothing to store, or the operand would keep what was there."""
        v, numbers = self.kernel.values[i], self.numbers
        o = self.kernel.operands[v.operand]
        if v.op == "store" and o.mode == "out" and numbers.sizes[v.operand] > 0 and not numbers.empty(r for r, _ in index.terms):
            empty = self.form.names(r for r in around if numbers.extents[r] <= 0)
            self.refuse(f"it stores nothing where the range {empty} is empty, and {o.name} has {numbers.sizes[v.operand]} element(s)", i)

    def inside(self, i: int, index: Index) -> None:
        if self.kernel.values[i].op == "load" and self.kernel.values[i].args and not index.gathers:
            self.inside_where(i, index)
            return
        low, high = self.numbers.span(index)
        for a, stride in index.gathers:
            reach = self.interval(a)
            if reach is None:
                return  # known when it runs
            ends = [n * self.numbers.number(stride) for n in reach]
            low, high = low + min(ends), high + max(ends)
        o = self.kernel.operands[self.kernel.values[i].operand]
        size = self.numbers.sizes[self.kernel.values[i].operand]
        if low < 0 or high >= size:
            self.refuse(f"it touches the elements {low} to {high} of operand {o.name}, which has {size}", i)

    def inside_where(self, i: int, index: Index) -> None:
        """A load under a condition stays inside where that is true."""
        touched, v = self.reached(i, index), self.kernel.values[i]
        size = self.numbers.sizes[v.operand]
        if touched.size and (int(touched.min()) < 0 or int(touched.max()) >= size):
            o = self.kernel.operands[v.operand]
            self.refuse(f"it touches the elements {int(touched.min())} to {int(touched.max())} of operand {o.name}, which has {size}", i)

    def reached(self, i: int, index: Index) -> Array:
        """The elements that a load under a condition reads: looked at point by point, at both ends of each range."""
        numbers, v = self.numbers, self.kernel.values[i]
        ranges = self.form.depends[v.args[0]] | {r for r, _ in index.terms}
        steps = numbers.ends(ranges)
        found: dict[int, Array] = {}
        for k in self.below(v.args[0], i):
            found[k] = self.computed(k, found, steps)
        places = np.full([1] * len(steps), numbers.number(index.offset), np.int64)
        for r, stride in index.terms:
            places = places + steps[r] * numbers.number(stride)
        found[v.args[0]], places = np.broadcast_arrays(found[v.args[0]], places)
        return np.asarray(places[found[v.args[0]]])

    def below(self, a: int, i: int) -> list[int]:
        """The value ``a`` and all that it is computed from, operands first; no more than ranges, sizes and literals."""
        needed = {a}
        for k in range(a, -1, -1):
            if k in needed:
                v = self.kernel.values[k]
                if v.op not in ("range", "size", "literal", "cast", "apply"):
                    self.refuse(f"where it reads depends on %{k}, a {v.op}: that must follow from the loops and the sizes", i)
                needed.update(v.args)
        return sorted(needed)

    def computed(self, k: int, found: dict[int, Array], steps: dict[int, Array]) -> Array:
        v = self.kernel.values[k]
        if v.op == "range":
            return steps[v.over[0]]
        if v.op in ("size", "literal"):
            return np.full([1] * len(steps), self.numbers.number(v.data) if v.op == "size" else v.data, v.dtype)
        if v.op == "cast":
            return found[v.args[0]].astype(v.dtype)
        return np.asarray(OPS[v.word].forward(*[found[a] for a in v.args]))

    def interval(self, a: int) -> tuple[int, int] | None:
        """The least and the greatest value of an integer, where it is computed from what is known."""
        for i in range(len(self.intervals), a + 1):
            found = self._interval(i)
            v = self.kernel.values[i]
            if found is not None:
                info = np.iinfo(v.dtype)
                found = found if info.min <= found[0] and found[1] <= info.max else None
            self.intervals.append(found)
        return self.intervals[a]

    def _interval(self, i: int) -> tuple[int, int] | None:
        v = self.kernel.values[i]
        if not dtypes.is_integer(v.dtype):
            return None
        if v.op == "range":
            return 0, max(self.numbers.extents[v.over[0]] - 1, 0)
        if v.op in ("size", "literal"):
            n = self.numbers.number(v.data) if v.op == "size" else int(v.data)
            return n, n
        parts = [p for b in (v.args[1:] if v.word == "where" else v.args) if (p := self.intervals[b]) is not None]
        if v.op == "cast" and parts:
            return parts[0]
        if v.op == "apply" and len(parts) == 2 and v.word in _BOUNDS:
            return _BOUNDS[v.word](*parts[0], *parts[1])  # type: ignore[no-any-return]
        return None

    def one_writer(self, i: int, index: Index) -> None:
        """No two points write different values to one element."""
        v, numbers = self.kernel.values[i], self.numbers
        temp = self.kernel.operands[v.operand].mode == "temp"
        value = numbers.moving(self.form.depends[v.args[0]] - (self.form.grid if temp else frozenset()))
        mine = {r for r, _ in index.terms}
        if value - mine:
            name = self.kernel.operands[v.operand].name
            self.refuse(f"the points that differ in {self.form.names(value - mine)} write different values to one element of {name}", i)
        if numbers.spread(index) or not value:
            return
        box = numbers.box(mine)
        places, codes = numbers.places(index, box).ravel(), numbers.codes(value, box).ravel()
        if len(np.unique(np.stack([places, codes]), axis=1)[0]) != len(np.unique(places)):
            self.refuse("two points write different values to one element", i)

    def apart(self, stores: Sequence[int]) -> None:
        """Two stores of one operand write different elements."""
        numbers = self.numbers
        for n, i in enumerate(stores):
            for j in stores[:n]:
                a, b = self.kernel.values[i].index, self.kernel.values[j].index
                assert a is not None and b is not None
                (low, high), (least, most) = numbers.span(a), numbers.span(b)
                if (low <= most and least <= high) and np.intersect1d(self.touched(a), self.touched(b)).size:
                    self.refuse(f"it writes elements that %{j} writes too", i)

    def touched(self, index: Index) -> Array:
        return self.numbers.places(index, self.numbers.box({r for r, _ in index.terms})).ravel()

    def written(self, i: int, index: Index, stage: int) -> None:
        """What is read from a temp was stored by an earlier stage."""
        if index.gathers:
            return
        form, numbers = self.form, self.numbers
        operand = self.kernel.values[i].operand
        earlier = [w for w in form.stores(operand) if form.runs[w][0] < stage and not numbers.empty(form.around(form.runs[w][0]))]
        found = [x for w in earlier if (x := self.kernel.values[w].index) is not None]
        if index in found:
            return
        have = np.concatenate([self.touched(x) for x in found]) if found else np.zeros(0, np.int64)
        if not np.isin(self.touched(index), have).all():
            self.refuse(f"it reads elements of {self.kernel.operands[operand].name} that no earlier stage stored", i)

    # -- memory shared by two operands ----------------------------------------------------------

    def same_memory(self) -> None:
        kernel = self.kernel
        for k, o in enumerate(kernel.operands):
            if o.alias == -1:
                continue
            if self.numbers.sizes[k] != self.numbers.sizes[o.alias]:
                self.refuse(f"operand {o.name} lies in the memory of {kernel.operands[o.alias].name}, which has another size")
            loads = [(i, s) for i, v in enumerate(kernel.values) if v.op == "load" and v.operand == o.alias for s in self.form.runs[i]]
            for w in self.form.stores(k):
                for i, stage in loads:
                    self.read_before(i, stage, w)

    def read_before(self, load: int, stage: int, store: int) -> None:
        """Each element that is stored is read for the last time at the point where it is stored, and before that."""
        form, numbers = self.form, self.numbers
        a, b = self.kernel.values[load].index, self.kernel.values[store].index
        home = form.runs[store][0]
        assert a is not None and b is not None
        around, at_home = form.around(stage), form.around(home)
        if numbers.empty(around) or numbers.empty(at_home) or (form.finishing(home) and not form.finishing(stage)):
            return
        shared = self.kernel.operands[self.kernel.values[store].operand].name
        if a.gathers:
            self.refuse(f"it reads at a gathered position from memory that {shared} shares", load)
        after = stage > home or (stage == home and load > store)
        # what the two accesses must agree in where they touch one element
        same = set(around) if stage == home else set() if form.finishing(home) else set(form.grid)
        if not after and a == b and numbers.spread(a) and numbers.moving(same) <= {r for r, _ in a.terms}:
            return
        box = numbers.box({*around, *at_home})
        read, readers = self.visited(a, same, {r: n for r, n in box.items() if r in around})
        written, writers = self.visited(b, same, {r: n for r, n in box.items() if r in at_home})
        common = np.intersect1d(read, written)
        if after and common.size:
            self.refuse(f"it reads elements of memory that {shared} shares after %{store} wrote them", load)
        pairs = np.unique(np.concatenate([np.stack([read, readers]), np.stack([written, writers])], axis=1), axis=1)
        if np.isin(pairs[0], common).sum() != common.size:
            self.refuse(f"it reads elements of memory that {shared} shares at other points than %{store} writes them", load)

    def visited(self, index: Index, same: set[int], box: dict[int, int]) -> tuple[Array, Array]:
        """The element and the number of each point of the box."""
        return self.numbers.places(index, box).ravel(), self.numbers.codes(same, box).ravel()


def _product_bounds(a: int, b: int, c: int, d: int) -> tuple[int, int]:
    ends = (a * c, a * d, b * c, b * d)
    return min(ends), max(ends)


#: of two intervals a..b and c..d
_BOUNDS: dict[str, Any] = {
    "add": lambda a, b, c, d: (a + c, b + d),
    "sub": lambda a, b, c, d: (a - d, b - c),
    "mul": _product_bounds,
    "minimum": lambda a, b, c, d: (min(a, c), min(b, d)),
    "maximum": lambda a, b, c, d: (max(a, c), max(b, d)),
    "where": lambda a, b, c, d: (min(a, c), max(b, d)),
}


def reached(step: Launch, env: Env, at: int) -> Array:
    """The elements that a load under a condition reads."""
    form, index = Form(step.kernel, step.origin), step.kernel.values[at].index
    form.check()
    assert index is not None
    return Accesses(form, env).reached(at, index)
