"""Products of many matrices with one matrix as one product, and how launches are cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.backends.llvm import costs
from graphc.dims import Size
from graphc.kernel import Product, Program, Sweep
from graphc.passes.stacking import stacked

REFERENCE, INTERPRETER, LLVM = (gc.Mode(backend=name) for name in ("reference", "interpreter", "llvm"))
rng = np.random.default_rng(0)


def products(f: gc.Function) -> list[Product]:
    program: Program = f._compiled.program
    return [s for step in program.steps for s in (step.steps if isinstance(step, Sweep) else [step]) if isinstance(s, Product)]


def checked(inputs: list[Any], output: Any, *arrays: np.ndarray) -> list[Product]:
    """The products of a function whose values are those of the reference, to the bit on both that run programs."""
    want = gc.function(inputs, output, mode=REFERENCE)(*arrays)
    f = gc.function(inputs, output, mode=INTERPRETER)
    for mode in (INTERPRETER, LLVM):
        np.testing.assert_array_equal(gc.function(inputs, output, mode=mode)(*arrays), want)
    return products(f)


def whole(*shape: int) -> np.ndarray:
    """Small whole numbers: sums are exact in any order."""
    return rng.integers(-4, 5, shape).astype("float32")


@pytest.mark.parametrize("lead", [(3,), (2, 3), (3, 1), (None,), (2, None)])
@pytest.mark.parametrize("turned", [False, True])
def test_rows_of_all_matrices(lead: tuple[Any, ...], turned: bool) -> None:
    x = gc.tensor("x", shape=(*lead, 5, 6), dtype="float32")
    w = gc.tensor("w", shape=(7, 6) if turned else (6, 7), dtype="float32")
    sizes = [3 if n is None else n for n in lead]
    found = checked([x, w], x @ (w.T if turned else w), whole(*sizes, 5, 6), whole(*w.type.shape))
    assert [len(p.out.shape) for p in found] == [2]


def test_what_is_left() -> None:
    """Each matrix has an operand of its own; rows do not follow one another; matrices without rows between them."""
    x, w = gc.tensor("x", shape=(3, 5, 6), dtype="float32"), gc.tensor("w", shape=(3, 6, 7), dtype="float32")
    assert [p.out.shape for p in checked([x, w], x @ w, whole(3, 5, 6), whole(3, 6, 7))] == [(3, 5, 7)]
    x, w = gc.tensor("x", shape=(5, 3, 6), dtype="float32"), gc.tensor("w", shape=(6, 7), dtype="float32")
    assert [p.out.shape for p in checked([x, w], gc.transpose(x, (1, 0, 2)) @ w, whole(5, 3, 6), whole(6, 7))] == [(3, 5, 7)]
    x = gc.tensor("x", shape=(2, 3, 5, 6), dtype="float32")
    assert [p.out.shape for p in checked([x, w], gc.transpose(x, (1, 0, 2, 3)) @ w, whole(2, 3, 5, 6), whole(6, 7))] == [(3, 2, 5, 7)]
    v = gc.tensor("v", shape=(2, 1, 6, 7), dtype="float32")
    assert [p.out.shape for p in checked([x, v], x @ v, whole(2, 3, 5, 6), whole(2, 1, 6, 7))] == [(2, 15, 7)]


def test_no_rows() -> None:
    x, w = gc.tensor("x", shape=(None, None, 6), dtype="float32"), gc.tensor("w", shape=(6, 7), dtype="float32")
    f = gc.function([x, w], x @ w, mode=LLVM)
    for shape in ((0, 5, 6), (3, 0, 6), (0, 0, 6), (1, 1, 6)):
        a, b = whole(*shape), whole(6, 7)
        np.testing.assert_array_equal(f(a, b), a @ b)


def test_twice_is_once() -> None:
    x, w = gc.tensor("x", shape=(2, 3, 5, 6), dtype="float32"), gc.tensor("w", shape=(6, 7), dtype="float32")
    program = gc.function([x, w], x @ w, mode=INTERPRETER)._compiled.program
    before = list(program.steps)
    assert stacked(program).steps == before


def test_complex_numbers_times_a_transpose_are_laid_out_once() -> None:
    """Both real products have the same right operand, so they are one; and what it takes is written where it belongs."""
    a, b = (gc.tensor(name, shape=(40, 40), dtype="complex64") for name in "ab")
    p, q = (whole(40, 40) + 1j * whole(40, 40) for _ in "pq")
    f = gc.function([a, b], a @ b.T, mode=INTERPRETER)
    assert [len(s.out.shape) for s in products(f)] == [2] and len(f._compiled.program.steps) == 3
    for mode in (INTERPRETER, LLVM):
        np.testing.assert_array_equal(gc.function([a, b], a @ b.T, mode=mode)(p.astype("complex64"), q.astype("complex64")), (p @ q.T).astype("complex64"))


# ---- how launches are cut -------------------------------------------------------------------------


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 24), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 1 << 15))
def test_chunks(extent: int, each: int, block: int, serial: int) -> None:
    found = costs.cut_at(extent, each, block, serial)
    rows, chunks = number(found.rows), number(found.chunks)
    assert rows % block == 0 and (chunks - 1) * rows < extent <= chunks * rows and chunks <= 64
    total = extent * each
    assert (found.wide == 1) == (total > serial * 1000)
    if total >= costs.SERIAL_NS * 1000 and extent >= costs.PARTS * block:
        assert chunks >= 2  # enough for two threads
    if chunks > 1:  # a chunk is worth its launch
        assert rows * each * costs.LEAST_PART >= costs.CHUNK_NS * 1000
    assert found[:2] == costs.cut_at(extent, each, block, 0)[:2]


def number(size: Size) -> int:
    assert isinstance(size, int)
    return size


def test_brief_programs_ask_for_more_work() -> None:
    """Threads may sleep when a program is called that does little else."""
    def program(n: int, times: int) -> Program:
        x = gc.tensor("x", shape=(n, 64), dtype="float32")
        y: Any = x
        for _ in range(times):
            y = gc.cumsum(gc.tanh(y), axis=0)
        found: Program = gc.function([x], y, mode=INTERPRETER)._compiled.program
        return found
    brief, long = program(4, 1), program(4096, 4)
    assert costs.serial_ns(brief.steps) == 2 * costs.SERIAL_NS and costs.serial_ns(long.steps) == costs.SERIAL_NS
    assert number(costs.work(brief.steps)) < costs.BRIEF_NS * 1000 < number(costs.work(long.steps))
