"""What the fuzzer asks of machine code besides the right values.

    the same bits        when called again, on one thread and on two, cut into as many pieces as there may be
    arguments            strided, transposed, backwards, broadcast, misaligned, read-only, of the other byte order, beside unmapped memory
    results              are not changed by later calls
    working memory       is not read before it is written: it is filled with 0xFF between calls
    kernels              give in plain NumPy (backends/interpreter.py) what the reference gives
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import numpy as np
from children import Pages, expendable
from graph_strategies import Array, Case, Source
from graph_subjects import Difference, Subject, bits, compare

import graphc as gc
from graphc import dims
from graphc.backends import Options
from graphc.backends.llvm import costs
from graphc.backends.llvm.pool import pool
from graphc.backends.llvm.runner import LlvmRunner
from graphc.backends.llvm.target import Target, host
from graphc.judging import Judge
from graphc.kept import KeptRunner, KeptState
from graphc.passes import convolving, sweeps
from graphc.passes.pipeline import PIPELINE
from graphc.variants import Variants

__all__ = ["DISGUISES", "check_native", "cut_small", "two_threads"]

LLVM, INTERPRETER = gc.Mode(backend="llvm"), gc.Mode(backend="interpreter")
NAMES = tuple(p.name for p in PIPELINE)


def check_native(subject: Subject, case: Case, judge: Judge, want: Sequence[Array], other: tuple[list[Array], Judge] | None,
                 optimised: gc.Function, source: Source, thorough: bool) -> None:
    """Everything that must hold of machine code.  ``optimised``: the same function on the NumPy backend, with a report of its rewrites."""
    kinds = case.derivatives
    f = subject.compile(LLVM)
    have = subject.call(f, case.arguments)
    compare(judge, want, have, "all passes, llvm", kinds, optimised)
    first = bits(have)
    modes: list[tuple[str, gc.Mode]] = []
    if thorough or source.below(100) < 35:
        modes.append(("all passes, interpreter", INTERPRETER))
    for k in range(len(NAMES) + 1) if thorough else [source.below(len(NAMES) + 1)] if source.below(100) < 20 else []:
        modes.append((f"passes {NAMES[:k]}, llvm", gc.Mode(backend="llvm", passes=NAMES[:k])))
    for label, g in [("all passes, llvm", f), *((label, subject.compile(mode)) for label, mode in modes)]:
        if g is not f:
            compare(judge, want, subject.call(g, case.arguments), label, kinds, optimised)
        if other is None or not (g is f or thorough):
            continue
        try:
            others = subject.call(g, *case.others)
        except IndexError:
            if kinds.kind != "jacobian":  # the body of a loop over no rows: the pass loops hoists from it
                raise
            continue
        compare(other[1], other[0], others, f"{label}, other sizes", kinds, optimised)

    if f.backend == "llvm" and (thorough or source.below(100) < 30):
        cut_otherwise(subject, case, judge, want, other, optimised)
    if f.backend == "llvm" and (thorough or source.below(100) < 15):
        for missing in ((), ("avx512f",), ("avx2",)):
            found = elsewhere(f, subject, case, host().without(*missing) if missing else host())
            compare(judge, want, found, f"llvm without {missing}", kinds, optimised)
    if thorough and bits(subject.call(subject.compile(LLVM, profile=True), case.arguments)) != first:
        raise Difference("llvm: measured, the function gives other bits")
    same_bits(f, subject, case, first, source, thorough)
    if bits(have) != first:
        raise Difference("llvm: a later call changed the results of an earlier one")


def same_bits(f: gc.Function, subject: Subject, case: Case, first: list[bytes], source: Source, thorough: bool) -> None:
    """Other ways to call the same function give the same bits."""
    for kind, make in [*DISGUISES.items()] if thorough else [[*DISGUISES.items()][source.below(len(DISGUISES))] for _ in range(2)]:
        arguments = [make(a) for a in case.arguments]
        if bits(subject.call(f, arguments)) != first:
            raise Difference(f"llvm: {kind} arguments give other bits")
    if expendable():
        for at_end in (True, False):
            with ExitStack() as stack:
                arguments = [stack.enter_context(paged(a, at_end)) for a in case.arguments]
                found = subject.call(f, arguments)
                if bits(found) != first:
                    raise Difference("llvm: arguments beside unmapped memory give other bits")
                del arguments
    if f.backend == "llvm":
        poison(f)
    if bits(subject.call(f, case.arguments, careful=True)) != first:
        raise Difference("llvm: the careful way gives other bits")


def cut_otherwise(subject: Subject, case: Case, judge: Judge, want: Sequence[Array], other: tuple[list[Array], Judge] | None,
                  optimised: gc.Function) -> None:
    """Cut into many pieces the function gives right values, and the same bits on one thread and on two."""
    calls: list[tuple[Sequence[Array], Sequence[Array] | None, Sequence[Array], Judge]] = [(case.arguments, None, want, judge)]
    if other is not None and case.derivatives.kind != "jacobian":
        calls.append((*case.others, *other))
    with cut_small(), two_threads():
        f = subject.compile(LLVM)
        for arguments, state, values, referee in calls:
            found = []
            for threads in (1, 2):
                with gc.config(threads=threads):
                    found.append(subject.call(f, arguments, state, careful=True))
            compare(referee, values, found[0], "llvm, cut into many pieces", case.derivatives, optimised)
            if bits(found[0]) != bits(found[1]):
                raise Difference("llvm: two threads give other bits than one")


def elsewhere(f: gc.Function, subject: Subject, case: Case, target: Target) -> list[Array]:
    """The results of code for another processor, in memory beside which nothing is mapped if this process may die of it."""
    for s, value in subject.state:
        s.container.value = value
    arguments = [*case.arguments, *(s.container.value for s in f.graph.shared if not isinstance(s, KeptState))]
    env = f._compiled.door.solve(arguments)
    runner = f._compiled.runner
    if isinstance(runner, Variants):
        runner = runner.usual if all(env[s] == dims.evaluate(size, env) for s, size in runner.same.items()) else runner.other()
    if isinstance(runner, KeptRunner):
        arguments += runner.values([arguments[k] for k in runner.places])
    runner = LlvmRunner(runner.program, Options(), target)
    if not expendable():
        return list(runner(arguments, env))
    with ExitStack() as stack:
        def make(nbytes: int) -> Array:
            return stack.enter_context(Pages.of(nbytes, True)).bytes

        dtypes = runner.results
        runner.make = lambda n, shape: np.ndarray(shape, dtypes[n], make(math.prod(shape) * dtypes[n].itemsize))
        runner._arena = lambda nbytes: make(-(-nbytes // 64) * 64)  # type: ignore[method-assign]
        paged = [np.ndarray(a.shape, a.dtype, make(a.nbytes)) for a in arguments]
        for a, b in zip(paged, arguments, strict=True):
            a[...] = b
        results = [r.copy() for r in runner(paged, env)]
        runner.arenas.clear()
        del paged
    return results


def poison(f: gc.Function) -> None:
    """Fill the working memory that the next call will have."""
    for a in f._compiled.runner.arenas:
        a[...] = 0xFF


@contextmanager
def cut_small() -> Iterator[None]:
    """Functions that are compiled meanwhile cut their work into as many pieces as they may, and share out all of it; images are swept one by one."""
    with mock.patch.multiple(costs, CHUNK_NS=0, SERIAL_NS=0), mock.patch.multiple(sweeps, LEAST_BYTES=1, MUCH_WORK=1), mock.patch.object(convolving, "SMALL", 0):
        yield


@contextmanager
def two_threads() -> Iterator[None]:
    """Two threads may work at once, on a machine with one processor too."""
    before = pool().limit
    pool().set_limit(2)
    try:
        yield
    finally:
        pool().set_limit(before)


@contextmanager
def paged(a: Array, at_end: bool) -> Iterator[Array]:
    """The array in memory of its own: what is beside it cannot be read."""
    with Pages.of(a.nbytes, at_end) as pages:
        copy = np.ndarray(a.shape, a.dtype, pages.bytes)
        copy[...] = a
        yield copy
        del copy


# ---- arguments ------------------------------------------------------------------------------------


def _strided(a: Array) -> Array:
    wide = np.zeros([2 * n for n in a.shape], a.dtype)
    view = wide[(..., *(slice(None, None, 2) for _ in a.shape))]
    view[...] = a
    return view


def _backwards(a: Array) -> Array:
    every = (..., *(slice(None, None, -1) for _ in a.shape))
    return np.array(a[every])[every]


def _misaligned(a: Array) -> Array:
    moved = np.ndarray(a.shape, a.dtype, bytearray(a.nbytes + 1), 1)
    moved[...] = a
    return moved


def _read_only(a: Array) -> Array:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def _broadcast(a: Array) -> Array:
    """Stride 0 along all axes along which nothing changes."""
    key = tuple(slice(0, 1) if a.shape[k] and (a == a.take([0], k)).all() else slice(None) for k in range(a.ndim))
    return np.broadcast_to(a[key].copy(), a.shape)


def _other_byte_order(a: Array) -> Array:
    return a if a.dtype.kind == "V" else a.astype(a.dtype.newbyteorder())


#: the same values, lying in memory in an unusual way
DISGUISES: dict[str, Callable[[Array], Array]] = {
    "strided": _strided,
    "transposed": lambda a: np.array(a.T, order="C").T,
    "backwards": _backwards,
    "broadcast": _broadcast,
    "misaligned": _misaligned,
    "read-only": _read_only,
    "byte-swapped": _other_byte_order,
}
