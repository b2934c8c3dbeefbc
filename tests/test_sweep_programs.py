"""Sweeps that are unsound, which the verifier refuses; and sweeps of any program, which change no value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from test_sweeps import BLOCK, INTERPRETER, compiled, functions, is_swept, small  # noqa: F401  # the fixture

import graphc as gc
from graphc import compiling, dims
from graphc.errors import VerificationError
from graphc.ir import Var
from graphc.kernel import Launch, Product, Program, Sweep, View
from graphc.verify_kernel import verify_program

# ---- programs that are unsound --------------------------------------------------------------------


def attention_program(known: int | None = 53) -> Program:
    """The value and the gradients of attention: its last sweep has products that add, several blocks, and a last one of fewer rows."""
    inputs, outputs = functions("by hand", "float32", None if known is None else {"B": 2, "T": known, "S": 33})
    program: Program = compiled(inputs, outputs, INTERPRETER)._compiled.program
    return program


def last_sweep(p: Program) -> tuple[int, Sweep]:
    return next((i, step) for i, step in reversed(list(enumerate(p.steps))) if isinstance(step, Sweep))


def with_sweep(p: Program, **fields: Any) -> None:
    i, sweep = last_sweep(p)
    p.steps[i] = sweep._replace(**fields)


def with_inner(p: Program, wanted: Callable[[Any], bool], change: Callable[[Any], Any]) -> None:
    """The first of the last sweep's steps that is wanted, changed; None leaves it out."""
    _, sweep = last_sweep(p)
    at = next(n for n, inner in enumerate(sweep.steps) if wanted(inner))
    new = change(sweep.steps[at])
    with_sweep(p, steps=(*sweep.steps[:at], *([] if new is None else [new]), *sweep.steps[at + 1:]))


def is_first(p: Program) -> Callable[[Any], bool]:
    """A product into a slab of one block."""
    return lambda step: isinstance(step, Product) and p.slabs[step.out.slab].place == "block"


def is_along(step: Any) -> bool:
    """A product whose result has the block's rows, not those of one block only."""
    return isinstance(step, Product) and step.adds == 0 and step.out.offset != 0


def is_kernel(step: Any) -> bool:
    return isinstance(step, Launch)


def adds(step: Any) -> bool:
    return isinstance(step, Product) and step.adds != 0


def without_start(p: Program, v: View) -> View:
    """Every block where the first one is."""
    return v._replace(offset=dims.substitute(v.offset, {last_sweep(p)[1].start: 0}))


def overlap(p: Program) -> None:
    _, sweep = last_sweep(p)
    one, other = [s for s in p.slabs if s.place == "block" and any(s.id in step.writes for step in sweep.steps) and s.inplace < 0][:2]
    other.offset = one.offset


def exchanged(p: Program) -> None:
    """Its first kernel before all products."""
    _, sweep = last_sweep(p)
    at = next(n for n, step in enumerate(sweep.steps) if is_kernel(step))
    with_sweep(p, steps=(sweep.steps[at], *sweep.steps[:at], *sweep.steps[at + 1:]))


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_inner(p, is_first(p), lambda s: s._replace(a=s.a._replace(offset=s.a.offset + 1))), "step 0 of it: operand 0 is a view of the elements"),
    (lambda p: with_inner(p, is_first(p), lambda s: s._replace(b=s.b._replace(offset=s.b.offset + 1))), "operand 1 is a view of the elements"),
    (lambda p: with_inner(p, is_first(p), lambda s: s._replace(out=s.out._replace(offset=1))), "the result is a view of the elements 1 to|element 0 of slab .* is read before"),
    (lambda p: with_inner(p, is_along, lambda s: s._replace(out=s.out._replace(offset=0))), "element .* is read before any step has written it|it writes over what blocks before"),
    (lambda p: with_inner(p, is_along, lambda s: s._replace(out=s.out._replace(offset=s.out.offset - 4))), "the result is a view of the elements -4 to"),
    (lambda p: with_inner(p, is_along, lambda s: s._replace(out=without_start(p, s.out))), "element .* is read before any step has written it|it writes over what blocks before"),
    (lambda p: with_inner(p, is_first(p), lambda s: None), r"it reads slab .* block\), which is not written yet|it reads or writes other slabs than it says"),
    (lambda p: with_inner(p, is_kernel, lambda s: None), r"it reads slab .* block\), which is not written yet|it reads or writes other slabs than it says"),
    (lambda p: with_inner(p, adds, lambda s: None), "it reads or writes other slabs than it says"),
    (exchanged, r"step 0 of it: it reads slab .* block\), which is not written yet"),
    (overlap, "are needed at one time and lie in one place"),
    (lambda p: with_sweep(p, block=2 * BLOCK), "view of the elements"),
    (lambda p: with_sweep(p, block=0), "it reads or writes other slabs than it says"),
    (lambda p: with_sweep(p, height=BLOCK), "not all blocks have 16 rows"),
    (lambda p: with_sweep(p, room=64), "of memory of 64"),
    (lambda p: with_sweep(p, rows=last_sweep(p)[1].rows - 1), "read before any step has written it"),
    (lambda p: with_sweep(p, rows=last_sweep(p)[1].rows + 1), "is a view of the elements|it writes over what blocks before"),
    (lambda p: with_sweep(p, reads=last_sweep(p)[1].reads[1:]), "it reads or writes other slabs than it says"),
    (lambda p: with_sweep(p, writes=last_sweep(p)[1].writes[1:]), "it reads or writes other slabs than it says"),
    (lambda p: with_inner(p, adds, lambda s: s._replace(adds=1)), "it adds to element .*, which no step has written"),
    (lambda p: with_inner(p, adds, lambda s: s._replace(adds=0)), "it writes over what blocks before have added up"),
])
def test_unsound_sweeps_are_refused(change: Callable[[Program], Any], message: str) -> None:
    p = attention_program()
    verify_program(p)
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_inner(p, is_along, lambda s: s._replace(out=without_start(p, s.out))), "is read before any step has written it|it writes over what blocks before"),
    (lambda p: with_sweep(p, block=2 * BLOCK), "view of the elements"),
])
def test_more_than_one_block_is_looked_at(change: Callable[[Program], Any], message: str) -> None:
    """Where sizes are unknown, too, of which the verifier tries small ones."""
    p = attention_program(None)
    verify_program(p)
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


@pytest.mark.parametrize("case", ["by hand", "one key for all"])
def test_sums_go_on_in_what_products_add_up_in(case: str) -> None:
    """Numbers of 16 bits in float32, in a sweep, and in nothing else."""
    inputs, outputs = functions(case, "float16", {"B": 2, "H": 2, "T": 53, "S": 33})
    p: Program = compiled(inputs, outputs, INTERPRETER)._compiled.program
    product = next(step for step in last_sweep(p)[1].steps if adds(step))
    assert p.slabs[product.out.slab].dtype == np.float32
    verify_program(p)
    p.slabs[product.out.slab].dtype = np.dtype(np.float64)
    with pytest.raises(VerificationError, match="operands and result are of one dtype"):
        verify_program(p)
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        p = compiled(inputs, outputs, INTERPRETER)._compiled.program
    product = next(step for step in p.steps if isinstance(step, Product))
    p.slabs[product.out.slab].dtype = np.dtype(np.float32)
    with pytest.raises(VerificationError, match="operands and result are of one dtype"):
        verify_program(p)


def test_heights_must_be_those_of_all_blocks() -> None:
    p = attention_program(48)
    assert last_sweep(p)[1].height == last_sweep(p)[1].block
    with_sweep(p, rows=47)
    with pytest.raises(VerificationError, match="not all blocks have"):
        verify_program(p)


# ---- any program ----------------------------------------------------------------------------------


class Chain:
    """A product, and what is made of its rows: whole numbers, so that no order of sums shows."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        size = st.sampled_from([16, 17, 33, 40, 15, 32, 6, 21, 3, 1, 0])
        numbers = [*draw(st.lists(st.sampled_from([2, 3, 1, 17]), max_size=2)), draw(size), draw(size)]
        if draw(st.integers(0, 4)) == 4:  # sizes that are equal, and are told apart by strides alone
            numbers = [numbers[-2]] * len(numbers)
        self.known = draw(st.booleans())
        self.numbers = {f"n{i}": n for i, n in enumerate(numbers)}
        self.axes: list[Any] = numbers if self.known else [gc.dim(f"n{i}") for i in range(len(numbers))]
        self.inputs: list[Var] = []
        self.shapes: list[list[int]] = []
        lead, rows, columns = self.axes[:-2], self.axes[-2], self.axes[-1]
        d = draw(st.integers(1, 3))
        self.wide = [self.product((*lead, rows, d), (*lead, d, columns), True)]
        self.outputs: list[Var] = []
        for _ in range(draw(st.integers(1, 6))):
            self.step()
        last = self.pick()
        how = draw(st.integers(0, 3))
        if how != 3 or not self.outputs:
            self.outputs.append(gc.matmul(last, self.leaf((*lead, columns, draw(st.integers(2, 3))))))
        if how == 1:  # a sum over rows
            self.outputs.append(gc.matmul(self.pick().mT, self.leaf((*lead, rows, draw(st.integers(1, 3))))))
        if how == 0 and len(lead):  # over the rows of all matrices
            flat = [gc.reshape(x, (dims.product(x.type.shape[:-1]), x.type.shape[-1])) for x in (self.pick(), self.leaf((*lead, rows, 2)))]
            self.outputs.append(gc.matmul(flat[0].mT, flat[1]) if draw(st.booleans()) else gc.matmul(flat[1].mT, flat[0]))
        if how == 2:
            self.outputs.append(gc.matmul(gc.swapaxes(self.leaf((*lead, rows, 2)), -1, -2), self.pick()))

    def leaf(self, shape: Sequence[Any]) -> Var:
        v = gc.tensor(f"x{len(self.inputs)}", shape=tuple(shape), dtype="float64")
        self.inputs.append(v)
        self.shapes.append([n if isinstance(n, int) else self.numbers[dims.size_text(n)] for n in shape])
        return v

    def product(self, a: Sequence[Any], b: Sequence[Any], turned: bool) -> Var:
        if turned and self.draw(st.booleans()):
            return self.leaf(a) @ self.leaf((*b[:-2], b[-1], b[-2])).mT
        return self.leaf(a) @ self.leaf(b)

    def pick(self) -> Var:
        return self.draw(st.sampled_from(self.wide))

    def step(self) -> None:
        x, (lead, rows, columns) = self.pick(), (self.axes[:-2], self.axes[-2], self.axes[-1])
        way = self.draw(st.integers(0, 9))
        if way == 0:
            self.wide.append(x - gc.sum(x, axis=-1, keepdims=True))
        elif way == 1:
            self.wide.append(gc.maximum(x, self.leaf((columns,))))
        elif way == 2:
            self.wide.append(x + self.leaf((*lead, rows, 1)))
        elif way == 3:
            self.wide.append(gc.where(gc.expand_dims(gc.arange(rows), 1) >= gc.arange(columns), x, 3.0))
        elif way == 4:
            self.wide.append(x * gc.sign(self.pick()))
        elif way == 5:
            self.wide.append(gc.abs(x) + self.product((*lead, rows, 2), (*lead, 2, columns), True))
        elif way == 6:
            self.outputs.append(gc.sum(x, axis=-1))
        elif way == 7:
            self.wide.append(gc.where(x > gc.max(self.leaf((*lead, rows, columns)), axis=-1, keepdims=True), x, 0.0) if columns != 0 and self.known else -x)
        elif way == 8:  # what has no rows
            self.outputs.append(gc.sum(x, axis=self.draw(st.sampled_from([-2, tuple(range(len(self.axes)))]))))
        else:
            self.outputs.append(x + 1.0)


def with_and_without(inputs: Sequence[Var], outputs: Sequence[Var]) -> tuple[gc.Function, gc.Function]:
    """The function, and the same without sweeps."""
    swept = compiled(inputs, outputs, INTERPRETER)
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        return swept, compiled(inputs, outputs, INTERPRETER)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_any_program_gives_the_same_values() -> None:
    """A random chain of products and kernels, whole and in blocks."""
    found = []

    @settings(max_examples=90, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        chain = Chain(data.draw)
        f, g = with_and_without(chain.inputs, chain.outputs)
        found.append(is_swept(f))
        event(f"swept: {found[-1]}")
        given = [np.random.default_rng(n).integers(-3, 4, shape).astype("float64") for n, shape in enumerate(chain.shapes)]
        for a, b in zip(f(*given), g(*given), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{chain.numbers}\n{f.dump('kernels')}")

    test()
    assert sum(found) > len(found) // 4  # else it looks at nothing


def test_any_operand_gives_the_same_values() -> None:
    """What kernels make for the left side of products: rows of a table, a mask, a number of each row; whole, and in blocks."""
    found = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        draw = data.draw
        lead, rows, k = draw(st.sampled_from([(), (3,), (2, 1)])), draw(st.sampled_from([16, 17, 40, 64, 33, 15])), draw(st.sampled_from([3, 2, 17]))
        inputs = [gc.tensor("x", shape=(*lead, rows, k), dtype="float64"), gc.tensor("table", shape=(9, k), dtype="float64"),
                  gc.tensor("at", shape=(*lead, rows), dtype="int64")]
        x, table, at = inputs
        ways: list[Callable[[], Var]] = [
            lambda: table[at], lambda: table[at] * 2.0 + x, lambda: gc.relu(x), lambda: x - gc.max(x, axis=-1, keepdims=True),
            lambda: gc.where(gc.expand_dims(at, -1) >= 0, x, 1.0), lambda: gc.where(gc.arange(k) >= 1, gc.flip(x, axis=-1), x)]
        a = draw(st.sampled_from(ways))()
        outputs = []
        for n in range(draw(st.integers(1, 3))):
            turned, columns = draw(st.booleans()), draw(st.sampled_from([2, 5, 20]))
            w = gc.tensor(f"w{n}", shape=(columns, k) if turned else (k, columns), dtype="float64")
            inputs.append(w)
            y = a @ (w.T if turned else w)
            outputs.append(draw(st.sampled_from([y, gc.abs(y), gc.sum(y, axis=-1), gc.maximum(y, gc.sum(y, axis=-1, keepdims=True)), gc.cumsum(y, axis=0)])))
        if draw(st.integers(0, 3)) == 0:
            outputs.append(gc.sum(a, axis=0))
        f, g = with_and_without(inputs, outputs)
        found.append(is_swept(f))
        numbers = np.random.default_rng(rows)
        given_ = [numbers.integers(-9, 9, v.type.shape).astype(v.type.dtype) for v in inputs]
        for one, other in zip(f(*given_), g(*given_), strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f.dump("kernels"))

    test()
    assert sum(found) > len(found) // 2  # else it looks at nothing
