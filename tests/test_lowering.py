"""What ops become in a Program: no call-outs, and the same values from reference, interpreter and machine code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import leaf

import graphc as gc
from graphc.backends import Options
from graphc.backends.interpreter import compile_program
from graphc.backends.llvm.runner import LlvmRunner
from graphc.backends.llvm.target import host
from graphc.errors import GraphcIndexError, VerificationError
from graphc.ir import Array, Graph, Var
from graphc.kernel import CallOut, Launch, Ordered, Program
from graphc.kernel_parse import parse_kernel
from graphc.kernel_text import print_kernel, print_program
from graphc.passes.moving import MOST_WINDOWS
from graphc.verify_kernel import verify_kernel, verify_program

RNG = np.random.default_rng(0)
BF16 = "bfloat16"
#: every pass, and nothing assumed of sizes that meet
ALL = gc.Mode(backend="llvm", passes=[p.name for p in gc.passes.pipeline.PIPELINE])


def array(shape: Sequence[int], dtype: str = "float32") -> Array:
    if dtype == "bool":
        return RNG.integers(0, 2, shape).astype(np.bool_)
    return RNG.integers(-9, 9, shape).astype(gc.dtypes.as_dtype(dtype)) if dtype != "float32" else RNG.normal(size=shape).astype("float32")


def positions(*numbers: int, dtype: str = "int64") -> Array:
    return np.array(numbers, dtype)


class Compiled:
    """One function in three ways."""

    def __init__(self, inputs: Sequence[Var], outputs: Sequence[Var]) -> None:
        with gc.config(verify=True):
            self.reference = gc.function(list(inputs), list(outputs), mode=gc.Mode(backend="reference"), on_unused_input="ignore")
            self.native = gc.function(list(inputs), list(outputs), mode=gc.Mode(backend="llvm"), on_unused_input="ignore")
        program = self.native._compiled.program
        assert program is not None
        self.program: Program = program

    @property
    def calls(self) -> list[str]:
        return [step.node.op.name for step in self.program.steps if isinstance(step, CallOut)]

    def check(self, *arrays: Array, exact: bool = False) -> None:
        want = self.reference(*arrays)
        door = self.native._compiled.door
        interpreted = compile_program(self.program, Options())(arrays, door.solve(list(arrays)))
        for got in (interpreted, self.native(*arrays)):
            for w, g in zip(want, got, strict=True):
                assert w.dtype == g.dtype and w.shape == g.shape
                if exact:
                    assert w.tobytes() == np.ascontiguousarray(g).tobytes()
                elif w.dtype.kind in "bi":
                    np.testing.assert_array_equal(g, w)
                else:
                    np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=2e-2 if w.dtype.itemsize == 2 else 1e-4, atol=1e-4)


def gradient(y: Var, *wrt: Var) -> list[Var]:
    return [gc.grad(gc.sum(y ** 2), w) for w in wrt]


Build = Callable[..., Sequence[Var]]

#: name: what is built of the inputs, shapes of one call and of others (with sizes 0 and 1)
MOVES: dict[str, tuple[Build, list[tuple[tuple[int, ...], ...]]]] = {
    "concatenate along rows": (lambda x, y: [gc.concatenate([x, y], 0)], [((3, 5), (2, 5)), ((0, 5), (2, 5)), ((0, 0), (0, 0)), ((20, 33), (1, 33))]),
    "concatenate along columns": (lambda x, y: [gc.concatenate([x, y, x], 1)], [((3, 5), (3, 2)), ((3, 0), (3, 2)), ((0, 5), (0, 1)), ((2, 33), (2, 40))]),
    "concatenate, read by a kernel": (lambda x, y: [gc.where(gc.concatenate([x, y], 1) == 0, gc.concatenate([x, y], 1), 1)],
                                      [((3, 5), (3, 2)), ((3, 0), (3, 2)), ((2, 33), (2, 40))]),
    "many operands": (lambda x: [gc.concatenate([x[i] for i in range(MOST_WINDOWS + 2)] + [x[0, 1:]], 0) == 1], [((6, 5),), ((6, 1),)]),
    "stack": (lambda x, y: [gc.stack([x, y, x], 1), gc.stack([x[0], y[1]])], [((3, 5), (3, 5)), ((2, 0), (2, 0))]),
    "pad": (lambda x: [gc.pad(x, ((1, 2), (3, 0))), gc.pad(x, ((0, 0), (0, 1)), constant_values=True)], [((3, 5),), ((0, 5),), ((1, 40),)]),
    "roll": (lambda x: [gc.roll(x, (1, -3), (0, 1)), gc.where(gc.roll(x, 2, 1) == x, x, 0)], [((3, 5),), ((1, 1),), ((0, 5),), ((2, 40),)]),
    "triangles": (lambda x: [gc.tril(x, 1), gc.triu(x), gc.tril(x, -2)], [((3, 5),), ((5, 2),), ((0, 5),), ((40, 40),)]),
    "eye": (lambda x: [gc.eye(x.shape[0], x.shape[1], k=1, dtype=x.dtype)], [((3, 5),), ((5, 2),), ((0, 5),)]),
    "positions": (lambda x: [x[-1], x[:, 1], x[0, 1]], [((3, 5),), ((1, 2),)]),
    "set a part": (lambda x, y: [gc.set_subtensor(x[1:3, ::2], y), gc.set_subtensor(x[-1], y[0, 0]), gc.set_subtensor(x[::-2], True)], [((4, 4), (2, 2)), ((5, 3), (2, 2))]),
    "increase a part": (lambda x, y: [gc.inc_subtensor(x[1:, -2:], y), gc.inc_subtensor(x[1], y[0, 0])], [((3, 4), (2, 2)), ((3, 40), (2, 2))]),
    "running sums": (lambda x: [gc.cumsum(x, 0), gc.cumsum(x, 1), gc.cumprod(x[:, :2], 1)], [((3, 5),), ((0, 5),), ((3, 0),), ((4, 70),)]),
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("known", [True, False])
def test_moves(name: str, known: bool) -> None:
    build, calls = MOVES[name]
    inputs = [leaf(f"x{i}", "float32", shape if known else (None,) * len(shape)) for i, shape in enumerate(calls[0])]
    f = Compiled(inputs, build(*inputs))
    assert f.calls == []
    for shapes in calls[:1] if known else calls:
        f.check(*(array(s) for s in shapes))


@pytest.mark.parametrize("dtype", ["float64", "int64", "bool", BF16])
@pytest.mark.parametrize("name", ["concatenate along columns", "concatenate, read by a kernel", "pad", "roll", "triangles", "set a part", "running sums"])
def test_moves_of_other_dtypes(name: str, dtype: str) -> None:
    build, calls = MOVES[name]
    inputs = [leaf(f"x{i}", dtype, (None,) * len(shape)) for i, shape in enumerate(calls[0])]
    f = Compiled(inputs, build(*inputs))
    assert f.calls == []
    f.check(*(array(s, dtype) for s in calls[0]))


#: gradients of the same: what is built of x
GRADIENTS: dict[str, Callable[[Var], Var]] = {
    "neighbours": lambda x: (x[1:] - x[:-1]) * 2,
    "steps": lambda x: x[::2, ::-1] * 3,
    "a row": lambda x: x[-1] * x[:, 1][0],
    "parts": lambda x: gc.tanh(x[:, :2]) * gc.sigmoid(x[:, 2:4]),
    "joined": lambda x: gc.concatenate([x, gc.exp(x[:, :1]), x[:, 1:]], 1),
    "padded": lambda x: gc.pad(x, ((1, 1), (0, 2))),
    "rolled": lambda x: gc.roll(x, 1, 0) * x,
    "diagonal": lambda x: gc.diagonal(x, 1),
    "products": lambda x: gc.cumprod(x, 1) * x,
    "sums": lambda x: gc.cumsum(x, 0) * x,
    "triangle": lambda x: gc.tril(x @ x.T),
    "set": lambda x: gc.set_subtensor(x[1], x[0] * 2) * x,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    x = leaf("x", "float32", ("n", "m"))
    f = Compiled([x], gradient(GRADIENTS[name](x), x))
    assert f.calls == []
    for shape in ((3, 5), (2, 4), (4, 40)):
        f.check(array(shape))


def test_a_stencil_is_one_kernel() -> None:
    """The gradient of differences reads its array some steps away: nothing is stored in between."""
    x = leaf("x", "float32", ("n", "m"))
    f = Compiled([x], [gc.grad(gc.sum((x[:, 1:] - x[:, :-1]) ** 2) + gc.sum((x[1:] - x[:-1]) ** 2), x)])
    assert len(f.program.steps) == 1
    for shape in ((5, 40), (1, 1), (0, 3), (2, 17)):
        f.check(array(shape))


def test_zeros_keep_their_signs() -> None:
    """0.0 + -0.0 is 0.0 where a gradient is added to zeros; x + nothing is x where it is not."""
    x, y = leaf("x", "float32", ("n",)), leaf("y", "float32", ("m",))
    f = Compiled([x, y], [gc.inc_subtensor(x[1:3], y), gc.grad(gc.sum(x[1:3] * y), x), gc.tril(x[:, None] * gc.ones((1, 3))), gc.concatenate([x, y])])
    f.check(np.array([-0.0, -0.0, 0.0, -0.0, np.nan], "float32"), np.array([-0.0, -0.0], "float32"), exact=True)


# ---- positions


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_rows_at_positions(dtype: str) -> None:
    w, i = leaf("w", "float32", ("n", "d")), leaf("i", dtype, ("k",))
    f = Compiled([w, i], [w[i] * 2, *gradient(w[i], w)])
    assert f.calls == [] and any(isinstance(step, Ordered) for step in f.program.steps)
    last = [3, 4, 0, 3, 3] if dtype[0] == "u" else [3, -1, 0, 3, -2]
    for numbers in (last, [], [1]):
        for d in (5, 1, 0, 40):
            f.check(array((5, d)), positions(*numbers, dtype=dtype))


#: what is read of x [n, m], i [k] and j [p, q]
READS: dict[str, Callable[[Var, Var, Var], Var]] = {
    "positions of rank 2": lambda x, i, j: x[j],
    "along the other axis": lambda x, i, j: x[:, i],
    "a slice beside": lambda x, i, j: x[1:, i],
    "backwards": lambda x, i, j: x[::-1, i][:, None],
    "a position beside": lambda x, i, j: x[1, i],
    "two arrays": lambda x, i, j: x[i, i],
    "two that broadcast": lambda x, i, j: x[i[:, None], i],
    "apart": lambda x, i, j: gc.stack([x, x])[i, :, i],
    "before": lambda x, i, j: gc.stack([x, x])[0, :, i],
    "a new axis between": lambda x, i, j: x[i, None, 1:],
    "a position of the call": lambda x, i, j: x[i[0]],
    "two positions of the call": lambda x, i, j: x[i[0], i[1]] * x[1:, i[2]],
    "along an axis": lambda x, i, j: gc.take_along_axis(x, j, 1),
    "constant positions": lambda x, i, j: x[np.array([1, -1, 1])],
}


@pytest.mark.parametrize("name", READS)
def test_reads(name: str) -> None:
    x, i, j = leaf("x", "float32", ("n", "m")), leaf("i", "int64", ("k",)), leaf("j", "int64", ("n", "q"))
    y = READS[name](x, i, j)
    f = Compiled([x, i, j], [y, *gradient(y, x)])
    assert f.calls == []
    f.check(array((2, 3)), positions(1, 0, -1, 1), np.array([[0, -1, 1, 1], [1, 1, -2, 0]]))


def test_one_position_of_each_row() -> None:
    """What a cross-entropy reads, and its gradient, in kernels that never store a logarithm."""
    x, labels = leaf("x", "float32", ("n", "m")), leaf("labels", "int64", ("n",))
    rows = gc.arange(x.shape[0])
    loss = -gc.mean(gc.log_softmax(x, axis=1)[rows, labels])
    f = Compiled([x, labels], [loss, gc.grad(loss, x)])
    assert f.calls == [] and len(f.program.steps) == 2
    f.check(array((4, 7)), positions(0, -1, 3, 3))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool", "float16", BF16])
def test_setting_and_adding_at_positions(dtype: str) -> None:
    """Positions that come twice: the last one stays, increments are added one after the other."""
    x, y, i = leaf("x", dtype, ("n", "d")), leaf("y", dtype, ("k", "d")), leaf("i", "int64", ("k",))
    p = leaf("p", "int64", ("n", "q"))
    outputs = [gc.set_subtensor(x[i], y), gc.inc_subtensor(x[i], y), gc.take_along_axis(x, p, 1)]
    f = Compiled([x, y, i, p], outputs)
    assert f.calls == []
    for d in (3, 20):
        f.check(array((3, d), dtype), array((5, d), dtype), positions(0, 2, 0, -1, 0), np.array([[0, 1], [2, 2], [-1, 0]]), exact=dtype[0] != "b")


def test_sums_in_order_are_those_of_the_reference() -> None:
    """Bit for bit, also where rounding makes the order matter; with two threads as with one."""
    w, i, g = leaf("w", "float32", ("n", "d")), leaf("i", "int64", ("k",)), leaf("g", "float32", ("k", "d"))
    outputs = [gc.grad(gc.sum(w[i] * g), w), gc.cumsum(g, 0), gc.cumsum(g, 1)]
    f = Compiled([w, i, g], outputs)
    arrays = array((7, 300)), RNG.integers(0, 7, 900), array((900, 300))
    f.check(*arrays, exact=True)
    two = gc.function([w, i, g], outputs, mode=gc.Mode(backend="llvm"), threads=2)
    for a, b in zip(f.native(*arrays), two(*arrays), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("read", [
    lambda x, i: x[i], lambda x, i: x[:, i], lambda x, i: x[i[0]], lambda x, i: gc.take_along_axis(x, i[None] + 0 * gc.cast(x[:, :1], "int64"), 1),
    lambda x, i: gc.set_subtensor(x[i], 0), lambda x, i: gc.grad(gc.sum(x[:, i]), x),
])
def test_positions_outside(read: Callable[[Var, Var], Var]) -> None:
    x, i = leaf("x", "float32", ("n", "m")), leaf("i", "int64", ("k",))
    f = gc.function([x, i], read(x, i), mode=gc.Mode(backend="llvm"))
    f(array((3, 3)), positions(2, -3))
    for outside in (3, -4):
        with pytest.raises(GraphcIndexError, match=r"out of (range|bounds)") as found:
            f(array((3, 3)), positions(outside, 0))
        assert found.value.where is not None and found.value.where.file == __file__


def test_a_position_in_an_axis_that_is_too_short() -> None:
    x = leaf("x", "float32", ("n", "m"))
    f = Compiled([x], [x[2], x[:, -3], gc.grad(gc.sum(x[2]), x)])
    assert f.calls == [] and len(f.program.guards) == 2
    f.check(array((3, 3)))
    for shape in ((2, 3), (3, 2), (0, 3)):
        with pytest.raises(GraphcIndexError):
            f.native(array(shape))


# ---- sums whose axes the call decides


@pytest.mark.parametrize("shapes", [
    ((3, 4), (3, 4), (4,)), ((3, 4), (1, 4), (4,)), ((3, 4), (1, 1), (1,)), ((1, 4), (3, 1), (4,)), ((1, 1), (1, 1), (5,)), ((0, 4), (1, 4), (1,)),
    ((3, 1), (3, 0), (1,)), ((40, 33), (40, 1), (33,)),
])
def test_broadcasting_that_only_the_call_knows(shapes: Sequence[tuple[int, ...]]) -> None:
    x, y, v = leaf("x", "float32", (None, None)), leaf("y", "float32", (None, None)), leaf("v", "float32", (None,))
    outputs = gradient(x * y + v, x, y, v)
    f = gc.function([x, y, v], outputs, mode=ALL)  # nothing is assumed of the sizes
    program = f._compiled.program
    assert program is not None and not any(isinstance(step, CallOut) for step in program.steps)
    verify_program(program)
    arrays = [array(s) for s in shapes]
    want = gc.function([x, y, v], outputs, mode=gc.Mode(backend="reference"))(*arrays)
    door = f._compiled.door
    for got in (f(*arrays), compile_program(program, Options())(arrays, door.solve(arrays))):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def general(inputs: Sequence[Var], outputs: Sequence[Var], *calls: Sequence[Array]) -> None:
    """A program that assumes nothing of its sizes gives what the reference gives, errors too."""
    with gc.config(verify=True):
        f = gc.function(list(inputs), list(outputs), mode=ALL)
    reference = gc.function(list(inputs), list(outputs), mode=gc.Mode(backend="reference"))
    for arrays in calls:
        try:
            want = reference(*arrays)
        except ValueError:
            with pytest.raises(ValueError, match=r"broadcast|must be equal"):
                f(*arrays)
            continue
        for a, b in zip(f(*arrays), want, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_stands_beside_something_longer() -> None:
    """A value of size 1 in a kernel that runs over more: its windows, its positions, its counters stay where they are."""
    x, v, y, k = leaf("x", "float32", (None,)), leaf("v", "float32", (None,)), leaf("y", "float32", (2,)), leaf("k", "int64", (1,))
    rows = gc.stack([x, x + 1])
    general([x, v, y, k], [gc.where(rows > v, rows, 0), gc.arange(x.shape[0]) + v, gc.pad(x, ((1, 0),)), gc.take_along_axis(gc.exp(x[:1]) + y, k, 0)],
            *([array((n,)), array((m,)), array((2,)), positions(1)] for n, m in ((1, 4), (3, 1), (1, 1), (1, 2), (0, 1))))


def test_what_broadcasts_to_nothing_it_fits() -> None:
    """One element where the operand has none or several: the door cannot know, the guard does."""
    x, y = leaf("x", "float32", (None,)), leaf("y", "float32", ("n",))
    general([x, y], [gc.set_subtensor(y[:2:2], x) * 2], *([array((n,)), array((m,))] for n, m in ((1, 2), (0, 2), (2, 2), (1, 0))))


def test_what_an_empty_loop_would_have_kept() -> None:
    x, z, w = leaf("x", "float32", ("n", 1)), leaf("z", "float32", ("n", "m")), leaf("w", "float32", (3,))
    t = gc.tanh(gc.prod(w) * x)
    general([x, z, w], [z * t, 1 - t * t, gc.sum(w)], *([array((2, 1)), array((2, m)), array((3,))] for m in (0, 1, 4)))


# ---- products of any labels


@pytest.mark.parametrize("subscripts", ["bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "abc,cbd->ad", "ab,ac->cb", "abc,bc->a"])
def test_einsum(subscripts: str) -> None:
    sizes = dict(zip("abcdhqk", (2, 3, 4, 5, 3, 2, 4), strict=True))
    terms = subscripts.split("->")[0].split(",")
    a, b = (leaf(f"x{k}", "float32", tuple(term)) for k, term in enumerate(terms))
    y = gc.einsum(subscripts, a, b)
    f = Compiled([a, b], [y, *gradient(y, a, b)])
    assert f.calls == []
    f.check(*(array([sizes[c] for c in term]) for term in terms))


# ---- parts of one slab


def test_results_are_computed_where_they_are_joined() -> None:
    x, y = leaf("x", "float32", ("n", "m")), leaf("y", "float32", ("m", "m"))
    rows = [gc.tanh(x), x @ y, x[:1]]
    f = Compiled([x, y], [gc.concatenate([*rows, *(rows[0][k:k + 1] for k in range(MOST_WINDOWS))], 0)])
    assert f.calls == []
    f.check(array((5, 4)), array((4, 4)))
    f = Compiled([x, y], [gc.stack([gc.exp(x) * k for k in range(MOST_WINDOWS + 1)], 1)])
    joined = f.program.roots[0]
    assert all(joined in step.writes for step in f.program.steps) and len(f.program.steps) == 1
    f.check(array((5, 4)), array((4, 4)))
    f = Compiled([x, y], [gc.concatenate([x @ y, y], 0)])
    assert len(f.program.steps) == 2 and f.program.roots[0] in f.program.steps[0].writes
    f.check(array((5, 4)), array((4, 4)))


def test_what_others_need_too_is_copied() -> None:
    x = leaf("x", "float32", ("n", "m"))
    e = gc.exp(x)
    f = Compiled([x], [gc.concatenate([e, e, x], 0), e, gc.concatenate([gc.concatenate([x, x], 0), x], 0)])
    assert f.calls == []
    f.check(array((2, 3)))
    f.check(array((0, 3)))


# ---- other processors


@pytest.mark.parametrize("without", ["avx512f", "avx2"])
def test_narrow_vectors(without: str) -> None:
    x, i = leaf("x", "float32", ("n", "m")), leaf("i", "int64", ("k",))
    outputs = [gc.pad(x, ((1, 1), (2, 1))) + 1, gc.roll(x, 2, 1) * x, x[i] * 2, *gradient(x[i], x), gc.cumsum(x, 0), gc.flip(gc.pad(x, ((0, 1), (1, 0))), 1)]
    f = Compiled([x, i], outputs)
    arrays = [array((5, 21)), positions(0, 4, 0, 2)]
    env = f.native._compiled.door.solve(arrays)
    want = f.reference(*arrays)
    for a, b in zip(LlvmRunner(f.program, Options(), host().without(without))(arrays, env), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


# ---- text and verifier

SHIFTED = """\
kernel shifted(x: in f32[n], y: out f32[n])
  grid i < n vector
    do
      %0 = i64 range i
      %1 = i64 literal 1
      %2 = bool greater_equal %0, %1
      %3 = f32 load x[i - 1] where %2
      %4 = f32 store y[i], %3
"""


def test_loads_under_a_condition_as_text() -> None:
    kernel = parse_kernel(SHIFTED)
    assert print_kernel(kernel) == SHIFTED
    verify_kernel(kernel)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("x[i - 1]", "x[i - 2]", r"%3 \(load\): it touches the elements -1 to"),
    ("x[i - 1]", "x[i + 1]", "it touches the elements 2 to"),
    ("literal 1", "literal 0", "it touches the elements -1 to"),
    ("where %2", "where %1", "that is a bool"),
    ("%2 = bool greater_equal %0, %1", "%2 = bool greater_equal %0, %0", "it touches the elements -1 to"),
    ("%0 = i64 range i", "%0 = i64 load z[i]", "depends on %0, a load"),
])
def test_unsound_loads_under_a_condition(old: str, new: str, message: str) -> None:
    text = SHIFTED.replace(old, new)
    if "z[" in text:
        text = text.replace("x: in", "z: in i64[n], x: in")
    with pytest.raises(VerificationError, match=message):
        verify_kernel(parse_kernel(text))


def running() -> Program:
    w, i = leaf("w", "float32", ("n", 3)), leaf("i", "int64", ("k",))
    return Compiled([w, i], [gc.grad(gc.sum(w[i] ** 2), w), gc.cumsum(w, 0)]).program


def test_ordered_steps_as_text() -> None:
    text = print_program(running())
    assert "= ordered sum(w[n, 3]; axis=0)" in text and "; strides 1, 0]; axis=0)" in text and "ordered add(" in text


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s._replace(word="max"), "the word 'max' does not take them"),
    (lambda s: s._replace(axis=2), "operands along axis 2 of 2"),
    (lambda s: s._replace(operands=s.operands[:1]), "1 operands along axis"),
    (lambda s: s._replace(operands=s.operands[::-1]), "is (int64|float32)"),
    (lambda s: s._replace(out=s.out._replace(strides=(0, 1))), "two elements of the result lie in one place"),
    (lambda s: s._replace(out=s.out._replace(offset=1)), "the result is a view of the elements"),
    (lambda s: s._replace(out=s.operands[0], operands=(s.operands[0], s.operands[1])), "it (writes to|reads)"),
])
def test_unsound_ordered_steps(change: Callable[[Ordered], Any], message: str) -> None:
    p = running()
    k = next(k for k, step in enumerate(p.steps) if isinstance(step, Ordered) and step.word == "add")
    p.steps[k] = change(p.steps[k])  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


def test_a_slab_is_written_before_it_is_read() -> None:
    p = running()
    k = next(k for k, step in enumerate(p.steps) if isinstance(step, Ordered) and step.word == "add")
    zeros = next(n for n, step in enumerate(p.steps) if isinstance(step, Launch) and p.steps[k].writes[0] in step.writes)
    del p.steps[zeros]
    with pytest.raises(VerificationError, match="which is not written yet"):
        verify_program(p)
    x = leaf("x", "float32", ("n", 4))
    p = Compiled([x], [gc.concatenate([x, x], 0)]).program
    step = p.steps[1]
    assert isinstance(step, Launch)
    values = tuple([v if v.op != "store" or v.index is None else v._replace(index=v.index._replace(offset=0)) for v in step.kernel.values])
    p.steps[1] = step._replace(kernel=replace(step.kernel, values=values))
    with pytest.raises(VerificationError, match=r"element \d+ of slab 1 .* is read before any step has written it"):
        verify_program(p)


def test_sizes_that_a_step_finds_out_run_elsewhere() -> None:
    """The graph is made anew for the backend that runs it."""
    x = leaf("x", "float32", ("n",))
    f = gc.function([x], gc.concatenate([x[x > 0], x])[::-1] * 2, mode=gc.Mode(backend="llvm"))
    assert f._compiled.backend == "numpy" and not any(node.op.name == "window" for node in f.graph.nodes)
    np.testing.assert_array_equal(f(np.array([-1, 2], "float32")), [4, -2, 4])


def test_graphs_for_other_backends_stay_as_they_are() -> None:
    x = leaf("x", "float32", ("n",))
    f = gc.function([x], gc.concatenate([x, x]) * 2, mode=gc.Mode(backend="numpy"))
    assert [node.op.name for node in f.graph.nodes if node.op.name in ("concatenate", "window")] == ["concatenate"]
    assert isinstance(f.graph, Graph)


# ---- products with vectors, and rows in lanes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 20), (40, 17), (100, 3), (33, 128), (9, 200)])
def test_products_with_vectors_are_loops(n: int, k: int, dtype: str) -> None:
    """Value and gradient of a regression: the data are read once, whatever the form of the loops."""
    for known in (True, False):
        x, w, t = (leaf(name, dtype, tuple(s if known else None for s in shape)) for name, shape in (("x", (n, k)), ("w", (k,)), ("t", (n,))))
        z = x @ w
        loss = gc.mean(gc.softplus(z) - t * z)
        arrays = [RNG.normal(size=shape).astype(dtype) for shape in ((n, k), (k,), (n,))]
        Compiled([x, w, t], [loss, gc.grad(loss, w), w @ x.T, gc.outer(t, w)]).check(*arrays)


def test_a_regression_is_one_kernel() -> None:
    x, w, t = leaf("x", "float64", (1000, 20)), leaf("w", "float64", (20,)), leaf("t", "float64", (1000,))
    z = x @ w
    loss = gc.sum(gc.softplus(z) - t * z)
    f = gc.function([x, w, t], [loss, gc.grad(loss, w)], mode=gc.Mode(backend="llvm"))
    assert [type(step) for step in f._compiled.program.steps] == [Launch]
