"""Programs: text, verifier, interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers import leaf
from kernel_examples import RNG, sizes

import graphc as gc
from graphc import dims
from graphc.backends import Options
from graphc.backends.interpreter import Interpreter, compile, compile_program
from graphc.errors import GraphcIndexError, GraphcValueError, Origin, VerificationError
from graphc.ir import Array, Graph, Node, Var
from graphc.kernel import CallOut, Launch, Product, Program, View, contiguous
from graphc.kernel_text import parse_kernel, print_program
from graphc.ops.evaluate import evaluate
from graphc.verify_kernel import verify_program

EXP = """\
kernel exp(x: in f32[3*n], y: out f32[3*n] alias x)
  grid i < 3*n vector
    do
      %0 = f32 load x[i]
      %1 = f32 exp %0
      %2 = f32 store y[i], %1
"""
ADD = """\
kernel add(x: in f32[3*n], c: in f32[3], y: out f32[3*n])
  grid i < n, j < 3 vector
    do
      %0 = f32 load x[i*3 + j]
      %1 = f32 load c[j]
      %2 = f32 add %0, %1
      %3 = f32 store y[i*3 + j], %2
"""


def program() -> Program:
    """y = exp(x @ w) + c and the running sums of exp(x @ w).T: a product, two kernels, a call-out."""
    x, w = leaf("x", "float32", ("n", "m")), leaf("w", "float32", ("m", 3))
    e = gc.exp(x @ w)
    c = np.array([1, 2, 3], np.float32)
    y, sums = e + c, gc.cumsum(e.T, axis=0)
    graph = Graph([x, w], [y, sums], name="f")
    p = Program(graph, "f")
    n, m = x.type.shape
    f32 = np.dtype("float32")
    xs, ws = p.slab(f32, x.type.shape, "argument", "x", x), p.slab(f32, w.type.shape, "argument", "w", w)
    cs = p.slab(f32, (3,), "constant", "c", data=c)
    h, es = p.slab(f32, (n, 3), "arena", "h"), p.slab(f32, (n, 3), "arena", "e")
    ys, ss = p.slab(f32, (n, 3), "output", "y"), p.slab(f32, (3, n), "fresh", "sums")
    p.arguments, p.roots, p.arena = (xs, ws), (ys, ss), n * 12 + 4
    p.slabs[es].inplace = h
    p.slabs[h].offset = p.slabs[es].offset = 4
    assert sums.node is not None
    p.steps = [
        Product(View(xs, (n, m), contiguous((n, m))), View(ws, (m, 3), (3, 1)), View(h, (n, 3), (3, 1)), origin=Origin("model.py", 3)),
        Launch(parse_kernel(EXP), (h, es), Origin("model.py", 4)),
        Launch(parse_kernel(ADD), (es, cs, ys), Origin("model.py", 5)),
        CallOut(sums.node, (View(es, (3, n), (1, 3)),), (ss,)),
    ]
    return p


def counted() -> Program:
    """The positions of what is not 0, doubled: a size that a step finds out."""
    x = leaf("x", "float32", ("n",))
    at, = gc.nonzero(x)
    node = at.node
    while node is not None and node.op.name != "nonzero":
        node = node.inputs[0].node
    assert node is not None
    found = node.outputs[0]
    graph = Graph([x], [gc.add(found, found)], name="g")
    p = Program(graph, "g")
    i64 = np.dtype("int64")
    count = next(s for s in found.type.shape if not isinstance(s, int))
    assert count.symbol is not None
    xs = p.slab(np.dtype("float32"), x.type.shape, "argument", "x", x)
    found_slab = p.slab(i64, found.type.shape, "fresh", "at")
    out = p.slab(i64, found.type.shape, "output", "twice")
    p.arguments, p.roots = (xs,), (out,)
    kernel = parse_kernel("kernel double(x: in i64[!0], y: out i64[!0])\n  grid i < !0\n    do\n      %0 = i64 load x[i]\n      %1 = i64 add %0, %0\n"
                          "      %2 = i64 store y[i], %1\n", {"!0": count.symbol})
    axis = found.type.shape.index(count)
    p.steps = [CallOut(node, (View(xs, x.type.shape, (1,)),), (found_slab,), ((count.symbol, 0, axis),)), Launch(kernel, (found_slab, out))]
    return p


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("planned", [True, False])
def test_a_program_runs(n: int, planned: bool) -> None:
    p = program()
    if not planned:
        p.arena, p.slabs[3].offset, p.slabs[4].offset = 0, 0, 0
    verify_program(p, planned=planned)
    x, w = RNG(n).normal(size=(n, 2)).astype(np.float32), RNG(1).normal(size=(2, 3)).astype(np.float32)
    x.setflags(write=False)
    f = compile_program(p, Options())
    got = f([x, w[::-1]], sizes(n=n, m=2))
    want = evaluate(p.graph, [x, w[::-1]], sizes(n=n, m=2))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.flags.writeable
        np.testing.assert_allclose(a, b, rtol=1e-5)
    again = f([x, w[::-1]], sizes(n=n, m=2))
    assert not any(np.may_share_memory(a, b) for a in got for b in (*again, x))


def test_sizes_that_a_step_finds_out() -> None:
    p = counted()
    verify_program(p)
    for x in (np.array([0, 2, 0, 3], np.float32), np.zeros(3, np.float32)):
        got, = Interpreter(p)([x], sizes(n=len(x)))
        np.testing.assert_array_equal(got.ravel(), 2 * np.flatnonzero(x))


def test_products_of_any_dtype_and_layout() -> None:
    for dtype in (np.dtype("float64"), np.dtype("float16"), np.dtype(ml_dtypes.bfloat16), np.dtype("int8"), np.dtype("bool"), np.dtype("complex64")):
        a, b = leaf("a", dtype, (2, 3, 4)), leaf("b", dtype, (5, 4))
        graph = Graph([a, b], [a @ b.T])
        p = Program(graph, "f")
        slabs = [p.slab(dtype, v.type.shape, "argument", "x", v) for v in (a, b)]
        out = p.slab(dtype, (2, 3, 5), "output")
        p.arguments, p.roots = tuple(slabs), (out,)
        p.steps = [Product(View(slabs[0], (2, 3, 4), (12, 4, 1)), View(slabs[1], (2, 4, 5), (0, 1, 4)), View(out, (2, 3, 5), (15, 5, 1)))]
        verify_program(p)
        x, y = (RNG(0).integers(0, 9, s).astype(dtype) for s in ((2, 3, 4), (5, 4)))
        got, = Interpreter(p)([x, y], {})
        want = x @ y.T if dtype.kind in "ibc" else x.astype(np.float32) @ y.T.astype(np.float32)
        np.testing.assert_array_equal(got.astype(want.dtype), want)


class Fails(gc.Op):
    name = "fails"

    def infer(self, x: Any) -> Any:
        return x

    def forward(self, x: Array) -> Any:
        if x.sum() > 0:
            raise ValueError("too much")
        return x[:1]


def test_errors_of_call_outs_name_the_op() -> None:
    x = leaf("x", "float32", (3,))
    y = Fails()(x)
    assert isinstance(y, Var) and isinstance(y.node, Node)
    p = Program(Graph([x], [y]), "f")
    p.arguments, p.roots = (p.slab(np.dtype("float32"), (3,), "argument", "x", x),), (p.slab(np.dtype("float32"), (3,), "fresh"),)
    p.steps = [CallOut(y.node, (View(0, (3,), (1,)),), (1,))]
    verify_program(p)
    for value, message in ((1, r"fails of float32\[3\]: too much"), (0, r"gave shape \[1\] where infer says \[3\]")):
        with pytest.raises(GraphcValueError, match=message) as found:
            Interpreter(p)([np.full(3, value, np.float32)], {})
        assert found.value.where is not None and found.value.where.file == __file__


def test_programs_as_text() -> None:
    p = program()
    p.steps.append(Launch(parse_kernel(EXP), (3, 4)))
    text = print_program(p)
    assert text.startswith("program f\n  slab x: argument f32[n, m]\n  slab w: argument f32[m, 3]\n  slab c: constant f32[3] = [1.0, 2.0, 3.0]\n"
                           "  slab h: arena f32[n, 3] at 4\n  slab e: arena f32[n, 3] at 4, in place of h\n")
    assert "  arena 12*n + 4 bytes\n" in text
    assert "  0: h[n, 3] = product x[n, m] @ w[m, 3]" in text and "# model.py:3\n" in text
    assert "  1: exp(h, e)" in text and text.count("%1 = f32 exp %0") == 1 and "  4: exp(h, e)\n" in text
    assert "  3: sums = call cumsum(e[3, n; strides 1, 3]; axis=0, reverse=False)" in text and text.endswith("\n  return y, sums\n")
    assert Interpreter(p).source == text
    shown = print_program(counted())
    assert "0: at = call nonzero(x[n]; shape=()), !0 = at.shape[1]" in shown and "kernel double(x: in i64[!0], y: out i64[!0])" in shown


def with_step(p: Program, i: int, **fields: Any) -> None:
    p.steps[i] = p.steps[i]._replace(**fields)  # type: ignore[call-arg]


def with_slab(p: Program, i: int, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(p.slabs[i], name, value)


N, F64 = dims.dim("n"), np.dtype("float64")


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_slab(p, 3, id=4), "slab 3 says that it is 4"),
    (lambda p: with_slab(p, 3, place="heap"), "in place 'heap'"),
    (lambda p: with_slab(p, 2, data=None), "slab 2 .c: .*constants have data"),
    (lambda p: with_slab(p, 2, data=np.zeros(6, np.float32)[::2]), r"slab 2 .c: .*its data is float32\[3\]; it lies dense"),
    (lambda p: with_slab(p, 2, data=np.zeros(3)), r"its data is float64\[3\]"),
    (lambda p: setattr(p, "arguments", (0,)), "1 arguments; the graph has 2"),
    (lambda p: setattr(p, "arguments", (1, 0)), "is no place for the argument x"),
    (lambda p: p.slab(F64, (), "argument"), "is no argument of the graph"),
    (lambda p: p.steps.insert(0, p.steps.pop(1)), r"step 0 \(exp\): it reads slab 3 .h: .*, which is not written yet\n  at model.py:4"),
    (lambda p: with_step(p, 1, slabs=(3, 99)), "there is no slab 99"),
    (lambda p: with_step(p, 1, slabs=(3, 0)), r"step 1 \(exp\): it writes to slab 0 \(x"),
    (lambda p: with_step(p, 1, slabs=(3, 6)), "it writes to slab 6"),
    (lambda p: with_step(p, 3, outputs=(5,)), "it may write to fresh slabs"),
    (lambda p: with_step(p, 1, slabs=(3,)), "1 slabs for 2 operands"),
    (lambda p: with_step(p, 2, slabs=(4, -1, 5)), "it reads no slab"),
    (lambda p: with_step(p, 2, slabs=(4, 2, 4)), "it reads and writes slab 4"),
    (lambda p: with_slab(p, 4, dtype=F64), "operand y is float32; slab 4 .* is not"),
    (lambda p: with_slab(p, 3, shape=(N, 4)), r"operand x has \d+ elements, slab 3 .* has \d+ \(where|element \d+ of slab 3 .* is read before"),
    (lambda p: with_step(p, 2, kernel=parse_kernel(ADD.replace("[j]", "[j + 1]"))), r"kernel add, %1 \(load\): it touches"),
    (lambda p: with_step(p, 0, a=View(0, (N, 3), (3, 1))), "view of the elements|columns meet"),
    (lambda p: with_step(p, 0, a=View(0, (N,), (1,))), "views of ranks 1, 2 and 2"),
    (lambda p: with_step(p, 0, out=View(3, (N, 3), (0, 1))), "two elements of the result lie in one place"),
    (lambda p: with_step(p, 0, axes=(1, 2, 1)), "views of ranks 2, 2 and 2 for 1 axes of rows, 2 of sums and 1 of columns"),
    (lambda p: with_step(p, 3, inputs=(View(4, (3, N), (1, 4)),)), "operand 0 is a view of the elements 0 to"),
    (lambda p: with_step(p, 3, inputs=(View(4, (3, N), (1,)),)), "operand 0 has 2 axes and 1 strides"),
    (lambda p: with_step(p, 3, inputs=()), "0 operands, 1 results; the node"),
    (lambda p: with_step(p, 3, found=((N.symbol, 0, 0),)), "it finds out n as axis 0 of result 0"),
    (lambda p: setattr(p, "roots", (5,)), "1 slabs are given back; the graph has 2 roots"),
    (lambda p: setattr(p, "roots", (5, 5)), "it needs memory of its own"),
    (lambda p: setattr(p, "roots", (4, 6)), "root 0 is slab 4 .*it needs memory of its own"),
    (lambda p: with_step(p, 2, kernel=parse_kernel(ADD.replace("j < 3", "j < 2"))), "element 2 of slab 5 .* is read before any step has written it"),
    (lambda p: with_slab(p, 4, inplace=-1), "slab 3 .* and slab 4 .* are needed at one time and lie in one place"),
    (lambda p: with_slab(p, 4, inplace=5), "and its kernel is not made for that|needs memory of its own"),
    (lambda p: with_step(p, 1, kernel=parse_kernel(EXP.replace(" alias x", ""))), "step 1 writes slab 4 .* over slab 3 .*, and its kernel is not made"),
    (lambda p: with_step(p, 2, slabs=(3, 2, 5)), "slab 3 .* is needed after step 1, which overwrites it"),
    (lambda p: with_slab(p, 4, offset=0), "slab 4 .* does not lie in the place of slab 3"),
    (lambda p: setattr(p, "arena", N * 12), "lies at bytes 4 to .* of an arena of"),
    (lambda p: (with_slab(p, 3, offset=2), with_slab(p, 4, offset=2)), "lies at bytes 2 to"),
    (lambda p: setattr(p, "arena", dims.fresh("data")), "the arena needs the size"),
])
def test_unsound_programs_are_refused(change: Callable[[Program], Any], message: str) -> None:
    p = program()
    verify_program(p)
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_step(p, 0, found=()), "it needs the size .*, which no step has found out by then"),
    (lambda p: p.steps.insert(1, p.steps[0]), "which was known before|is written"),
    (lambda p: with_slab(p, 1, place="arena"), "it writes to slab 1"),
])
def test_unsound_sizes_are_refused(change: Callable[[Program], Any], message: str) -> None:
    p = counted()
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


def guarded() -> Program:
    """The largest of x at each of some positions: not for calls without elements, nor for positions that are outside."""
    x, at = leaf("x", "float32", ("n",)), leaf("at", "int64", ("m",))
    y = gc.take(x, at) + gc.max(x)
    p = Program(Graph([x, at], [y]), "h")
    n, m = x.type.shape[0], at.type.shape[0]
    p.arguments = p.slab(np.dtype("float32"), (n,), "argument", "x", x), p.slab(np.dtype("int64"), (m,), "argument", "at", at)
    bad, out = p.slab(np.dtype("bool"), (), "arena", "bad"), p.slab(np.dtype("float32"), (m,), "output", "y")
    p.roots, p.checks, p.guards, p.arena = (out,), (bad,), (1 - dims.dim_min(n, 1),), 64
    within = """\
kernel within(at: in i64[m], bad: out bool[1])
  grid
    for i < m
      %0 = i64 load at[i]
      %1 = i64 size n
      %2 = bool greater_equal %0, %1
      %3 = bool reduce any %2 over i
    do
      %4 = bool store bad[0], %3
"""
    largest = """\
kernel largest(x: in f32[n], at: in i64[m], y: out f32[m])
  grid i < m
    for j < n
      %0 = f32 load x[j]
      %1 = f32 reduce max %0 over j
    do
      %2 = i64 load at[i]
      %3 = f32 load x[%2]
      %4 = f32 add %3, %1
      %5 = f32 store y[i], %4
"""
    p.steps = [Launch(parse_kernel(within), (1, bad)), Launch(parse_kernel(largest), (0, 1, out))]
    return p


def test_calls_that_the_program_is_not_for() -> None:
    p = guarded()
    verify_program(p)
    assert "  guard 1 - min(1, n) == 0\n" in print_program(p) or "  guard -min(1, n) + 1 == 0\n" in print_program(p)
    assert "\n  check bad\n  return y\n" in print_program(p)
    f = compile(p.graph, p, Options())
    x = np.array([1, 5, 2], np.float32)
    np.testing.assert_array_equal(f([x, np.array([2, 0])], sizes(n=3, m=2))[0], [7, 6])
    with pytest.raises(GraphcIndexError, match="take"):
        f([x, np.array([2, 3])], sizes(n=3, m=2))
    with pytest.raises(GraphcValueError, match="no value along an axis of length 0"):
        f([x[:0], np.array([], np.int64)], sizes(n=0, m=0))


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: setattr(p, "checks", (3,)), "slab 3 .* is no check: one bool"),
    (lambda p: setattr(p, "checks", (9,)), "there is no slab 9"),
    (lambda p: setattr(p, "guards", (dims.fresh("data"),)), "the guard .* is not known when a call begins"),
])
def test_unsound_checks_are_refused(change: Callable[[Program], Any], message: str) -> None:
    p = guarded()
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)
