"""The verifier of kernels: every rule refuses something, and what only looks wrong is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kernel_examples import ARGMAX, CHAIN, COLUMNS, GATHER, IN_PLACE, SOFTMAX, TURNED, run

from graphc import dims
from graphc.errors import Origin, VerificationError
from graphc.ir import Relation
from graphc.kernel import Kernel, Range
from graphc.kernel_numbers import samples
from graphc.kernel_text import parse_kernel
from graphc.verify_kernel import verify_kernel

#: (kernel, what is replaced, by what, what the verifier says)
BROKEN = [
    # form
    (CHAIN, "%6 = bool less", "%6 = f32 less", r"kernel chain, %6 \(apply less\): it is of dtype float32; its operands make bool"),
    (CHAIN, "%3 = f32 mul %0, %2", "%3 = f32 mul %0, %6", "%3 .apply mul.: it reads %6, which is not computed yet"),
    (CHAIN, "mul %0, %2", "mul %0", "takes 2 operand"),
    (CHAIN, "mul %0, %2", "multiply %0, %2", "no such elementwise op"),
    (CHAIN, "mul %0, %2", "apply cast %0", "no such elementwise op"),
    (CHAIN, "mul %0, %2", "sum %0, %2", "no such elementwise op"),
    (CHAIN, "store w[i], %6", "store w[i], %5", "it reads %5, which is a store"),
    (CHAIN, "%0 = f32 load x[i]", "%0 = f64 load x[i]", "%0 .load.: it is of dtype float64; its operands make float32"),
    (CHAIN, "store w[i], %6", "store w[i], %4", "%4 is float32, operand w holds bool"),
    (CHAIN, "store z[i], %4", "store x[i], %4", "operand x is in: it is not written"),
    (CHAIN, "load x[i]", "load z[i]", "operand z is out: it is not read"),
    (CHAIN, "%7 = bool store w[i], %6", "%7 = bool invert %6", "nothing is stored to the out operand w"),
    (CHAIN, "z: out f32[n]", "z: out f32[n] alias w", "operand z says that it lies in the memory of operand 3"),
    (CHAIN, "w: out bool[n]", "w: out bool[n] alias x", "which has another dtype"),
    (CHAIN, "    do", "    for i < n", "stage 0 loops over i, which the grid does"),
    (CHAIN, "grid i < n", "grid i < n, i < n", r"the grid loops over the ranges \[0, 0\]"),
    (CHAIN, "  grid i < n vector", "  ranges i < n, j < n vector\n  grid i < n", "the vector range is 1, over which nothing loops"),
    (CHAIN, "  grid i < n vector", "  ranges i < n, j < n\n  grid j < n", "it depends on i, over which nothing loops around stage 0"),
    (CHAIN, "load x[i]", "load x[i*0]", "a stride of 0"),
    (TURNED, "x[-j + i*m", "x[i*m - j", r"its index names the ranges \[1, 0\]"),
    (CHAIN, "      %7", "  unused\n      %7", "%7 .store.: no stage runs it"),
    (CHAIN, "      %7 =", "    do\n      %5 = f32 store z[i], %4\n      %7 =", "stages 0 and 1 both run it"),
    (GATHER, "i64[n], y", "f32[n], y", "it is of dtype int64; its operands make float32"),
    (GATHER.replace("%0 = i64", "%0 = f32"), "at: in i64", "at: in f32", "its index is gathered from %0, which is float32"),
    (GATHER, "store y[i*p + j]", "store y[j + %0*p]", "it writes at a gathered position"),
    # what is known where
    (SOFTMAX, "    for j < m vector\n      %2 =", "      %2 =", "the reduction %1 in the stage that computes it"),
    (SOFTMAX, "div %7, %6", "div %4, %6", "%8 .apply div.: it reads %4 of an earlier stage, which depends on j"),
    (COLUMNS, "  finish\n    for j < m vector", "    for j < m vector", "%1, a reduction over the grid, which is known in finish only"),
    (COLUMNS, "store y[j], %1", "store y[j], %0", "it reads %0 of a point of the grid after the grid"),
    (COLUMNS, "finish\n    for j < m vector\n      %2 = f64 store y[j]", "finish\n    do\n      %2 = f64 store y[0]",
     "%1 of a point of the grid after the grid"),
    (COLUMNS, "store y[j], %1", "store y[i], %1", "depends on i, over which nothing loops around stage 1"),
    (SOFTMAX, "temp f32[m]", "temp f32[m*n]", "belongs to one point of the grid, its index depends on i", ("t[j]", "t[i*m + j]")),
    (SOFTMAX, "%7 = f32 load t[j]", "%7 = f32 load u[j]", "nothing was stored to u in an earlier stage", ("temp f32[m]", "temp f32[m], u: temp f32[m]")),
    (COLUMNS, "y: out f64[m])", "y: out f64[m], t: temp f64[m])", "finish does not have it", ("store y", "store t")),
    # reductions
    (SOFTMAX, "reduce max %0 over j", "reduce max %0 over i", "%1, a reduction over the grid"),
    (SOFTMAX, "reduce max", "reduce norm", r"kernel softmax, %1 \(reduce norm\): there is no such reduction"),
    (SOFTMAX, "reduce max", "reduce any", "it takes bool; %0 is float32"),
    (ARGMAX, "argmax %0 over j, l", "argmax %0 over j", "it depends on the loop l of its stage, which it does not run over"),
    (ARGMAX, "argmax %0 over j, l", "argmax %0 over j, l, j", "each once"),
    (ARGMAX, "%1 = i64 reduce argmax", "%1 = f32 reduce argmax", "of dtype float32; its operands make int64"),
    (ARGMAX, "grid i < n\n    for j < m, l", "grid i < n, j < m\n    for l", "it runs over a part of the grid: j without i"),
    # accesses
    (CHAIN, "load x[i]", "load x[i + 1]", r"%0 .load.: it touches the elements 1 to \d+ of operand x, which has \d+ \(where n = \d"),
    (CHAIN, "load x[i]", "load x[-i]", "it touches the elements -"),
    (CHAIN, "x: in f32[n]", "x: in f32[n - 1]", "which has"),
    (SOFTMAX, "load x[i*m", "load x[i*n", "it touches the elements"),
    (SOFTMAX, "store y[i*m + j]", "store y[j]", "the points that differ in i write different values to one element of y"),
    (SOFTMAX, "store y[i*m + j]", "store y[i + j]", "two points write different values to one element"),
    (CHAIN, "w: out bool[n]", "w: out bool[n + 1]", "it writes elements that %7 writes too",
     ("w[i], %6\n", "w[i], %6\n      %8 = bool store w[i + 1], %6\n")),
    (SOFTMAX.replace("temp f32[m]", "temp f32[m + 1]"), "load t[j]", "load t[j + 1]", "it reads elements of t that no earlier stage stored"),
    (SOFTMAX, "store t[j]", "store t[0]", "the points that differ in j write different values to one element of t"),
    ("kernel f(y: out f32[1])\n  grid i < n\n    do\n      %0 = f32 literal 2.0\n      %1 = f32 store y[0], %0\n", "", "",
     r"it stores nothing where the range i is empty, and y has 1 element\(s\) \(where n = 0\)"),
    # memory that is shared
    (IN_PLACE, "store y[i*m + j]", "store y[-i*m - j + m*n - 1]", "at other points than %3 writes them"),
    (IN_PLACE, "      %3 = f32 store y[i*m + j], %2\n", "      %3 = f32 store y[i*m + j], %2\n      %4 = f32 load x[i*m + j]\n", "after %3 wrote them"),
    (IN_PLACE, "y: out f32[m*n]", "y: out f32[m*n + 1]", "which has another size"),
    (CHAIN.replace("f32[n], w", "f32[n] alias y, w"), "y: in f32[n]", "y: in f32[n + 1]", "another size"),
    (GATHER.replace("f32[n*p]", "f32[n*p] alias table").replace("[m*p]", "[n*p]"), "chain", "chain", "it reads at a gathered position from memory"),
    ("kernel f(x: in f32[n], y: out f32[n] alias x)\n  grid i < n\n    for j < m\n      %0 = f32 load x[i]\n      %1 = f32 store y[i], %0\n",
     "", "", "at other points than %1 writes them"),
]


@pytest.mark.parametrize("case", BROKEN, ids=range(len(BROKEN)))
def test_unsound_kernels_are_refused(case: tuple[Any, ...]) -> None:
    text, old, new, message, *more = case
    assert not old or old in text or old == new
    text = text.replace(old, new)
    if more:
        text = text.replace(*more[0])
    with pytest.raises(VerificationError, match=message) as found:
        verify_kernel(parse_kernel(text), where=Origin("model.py", 12))
    assert found.value.where == ("model.py", 12, ())


def changed(kernel: Kernel, at: int, **fields: Any) -> Kernel:
    values = list(kernel.values)
    values[at] = values[at]._replace(**fields)
    return replace(kernel, values=tuple(values))


@pytest.mark.parametrize(("change", "message"), [
    (lambda k: replace(k, operands=(k.operands[0]._replace(mode="inout"), *k.operands[1:])), "operand x has the mode 'inout'"),
    (lambda k: replace(k, operands=(k.operands[0]._replace(size=-1), *k.operands[1:])), "operand x has -1 elements"),
    (lambda k: replace(k, ranges=(Range("i", -3),)), "range i has the extent -3"),
    (lambda k: replace(k, grid=(4,)), r"the grid loops over the ranges \[4\]"),
    (lambda k: replace(k, stages=(k.stages[0]._replace(body=(0, 99)),)), "stage 0 runs %99, which does not exist"),
    (lambda k: changed(k, 0, op="fetch"), "there is no instruction 'fetch'"),
    (lambda k: changed(k, 0, args=(0, 0)), r"it has 2 operand\(s\); 0 expected"),
    (lambda k: changed(k, 0, args=(0,)), "it reads %0, which is not computed yet"),
    (lambda k: changed(k, 0, operand=9), "it names operand 9; there are 4"),
    (lambda k: changed(k, 0, index=None), "it has no index"),
    (lambda k: changed(k, 3, operand=0), "only load and store have an operand"),
    (lambda k: changed(k, 3, over=(0,)), "only reduce and range run over ranges"),
    (lambda k: changed(k, 3, args=(0, 77)), "it reads %77, which does not exist"),
    (lambda k: changed(k, 2, op="size", dtype=np.dtype("int64"), data=1.5), "1.5 is no size"),
    (lambda k: changed(k, 2, data=0.1), "0.1 is no value of float32"),
    (lambda k: changed(k, 2, data=1j), "1j is no value of float32"),
    (lambda k: changed(k, 2, op="range", over=(), dtype=np.dtype("int64")), r"it runs over the ranges \[\]"),
    (lambda k: changed(k, 2, dtype=np.dtype("U3")), "it is of dtype <U3"),
])
def test_unsound_objects_are_refused(change: Callable[[Kernel], Kernel], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verify_kernel(change(parse_kernel(CHAIN)))


def test_what_only_looks_unsound() -> None:
    verify_kernel(parse_kernel(SOFTMAX.replace("store t[j]", "store t[-j + m - 1]")))  # a temp may lie backwards
    # a gather whose position is computed from ranges and sizes: it stays inside
    mirror = "kernel mirror(x: in f32[n], y: out f32[n])\n  grid i < n\n    do\n      %0 = i64 range i\n      %1 = i64 size n - 1\n" \
        "      %2 = i64 sub %1, %0\n      %3 = f32 load x[%2]\n      %4 = f32 store y[i], %3\n"
    verify_kernel(parse_kernel(mirror))
    np.testing.assert_array_equal(run(mirror, {"n": 3}, [1, 2, 3])[0], [3, 2, 1])
    with pytest.raises(VerificationError, match=r"%3 \(load\): it touches the elements"):
        verify_kernel(parse_kernel(mirror.replace("n - 1", "n")))
    # one value at several places of the nest may be stored by each of them
    verify_kernel(parse_kernel("kernel f(y: out f32[1])\n  dim n min=1\n  grid i < n\n    do\n      %0 = f32 literal 2.0\n      %1 = f32 store y[0], %0\n"))
    # two halves of one operand
    verify_kernel(parse_kernel("kernel f(x: in f32[n], y: out f32[2*n])\n  grid i < n\n    do\n      %0 = f32 load x[i]\n"
                               "      %1 = f32 store y[2*i], %0\n      %2 = f32 store y[2*i + 1], %0\n".replace("2*i", "i*2")))
    # fixed sizes that are too many to count
    big = parse_kernel("kernel f(x: in f32[12000000], y: out f32[12000000] alias x)\n  grid i < 3000, j < 4000\n    do\n"
                       "      %0 = f32 load x[i*4000 + j]\n      %1 = f32 store y[i*4000 + j], %0\n")
    verify_kernel(big)


def test_relations_make_sizes_agree() -> None:
    text = "kernel f(x: in f32[n], y: out f32[n])\n  grid i < k, j < m\n    do\n      %0 = f32 load x[i*m + j]\n      %1 = f32 store y[i*m + j], %0\n"
    with pytest.raises(VerificationError, match="touches"):
        verify_kernel(parse_kernel(text))
    n, m, k = dims.dim("n"), dims.dim("m"), dims.dim("k")
    verify_kernel(parse_kernel(text), [Relation("equal", n, m * k)])
    for env in samples([n, m, k], [n, m, k], [Relation("equal", n, m * k), Relation("broadcast", m, k)]):
        a, b, c = (dims.evaluate(s, env) for s in (n, m, k))
        assert a == b * c and (b == c or 1 in (b, c))
    assert len(samples([n, m], [n, m])) == 5 and samples([3], [4]) == [{}]
    assert all(dims.evaluate(n - 40, env) >= 0 for env in samples([], [n - 40])) and samples([], [n - 40])
