"""The native door: what it gives is what the careful path gives, and whatever is unusual goes the careful way."""

from __future__ import annotations

import copy
import ctypes
import gc as garbage
import pickle
import sys
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
from door_watch import LLVM, Watch, in_threads, is_native, outcome, same_as_careful, square

import graphc as gc

pytest.importorskip("llvmlite")

from graphc.backends.llvm import door

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bfloat16"]

pytestmark = pytest.mark.skipif(door.machine() is None, reason="no native door on this Python")


# ---- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_rank(dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    for rank in range(4):
        x = gc.tensor("x", shape=(None,) * rank, dtype=dtype)
        f = gc.function([x], gc.where(x > x, x, x), mode=LLVM)
        assert is_native(f)
        watch = Watch(f)
        for shape in [(), (3,), (2, 3), (4, 1, 2), (0,), (5, 0), (1, 0, 2)]:
            if len(shape) == rank:
                value = (np.arange(np.prod(shape, dtype=int)) % 2).astype(x.dtype).reshape(shape)
                assert not watch.careful(value)
                same_as_careful(f, value)
                assert f(value).flags.num == np.empty(shape, x.dtype).flags.num


def test_every_structure() -> None:
    x = gc.dvector("x")
    s = gc.shared(np.zeros(3), "s")
    a = np.array([1.0, 2.0, 3.0])
    for outputs in (x + 1, [x + 1], [x + 1, x * 2], [], None, {"p": x + 1, "q": x * 2}, {}):
        f = gc.function([x], outputs, mode=LLVM, on_unused_input="ignore")
        same_as_careful(f, a)
        g = gc.function([x], outputs, updates={s: s + x}, mode=LLVM)
        watch = Watch(g)
        assert not watch.careful(a)
        assert outcome(g, a) == outcome(f, a)
    assert s.get_value().tolist() == [14, 28, 42]


def test_sizes_of_all_kinds() -> None:
    n, m = gc.dim("n", min=2), gc.dim("m")
    x, y = gc.tensor("x", shape=(n, m, 3), dtype="float64"), gc.tensor("y", shape=(2 * n + 1, m), dtype="float64")
    f = gc.function([x, y], [x.sum(axis=2) * 2, y.reshape((m, 2 * n + 1)), y[1:]], mode=LLVM)
    watch = Watch(f)
    for a, b in [(2, 3), (4, 1), (3, 0), (2, 3), (50, 40), (2, 3)]:
        args = np.random.default_rng(0).normal(size=(a, b, 3)), np.ones((2 * a + 1, b))
        assert not watch.careful(*args)
        same_as_careful(f, *args)
    for shapes in [((2, 3, 3), (5, 4)), ((2, 3, 3), (6, 3)), ((2, 3, 4), (5, 3)), ((1, 3, 3), (3, 3)), ((2, 3), (5, 3))]:
        kind, text = same_as_careful(f, *map(np.ones, shapes))
        assert kind in ("GraphcValueError", "GraphcTypeError"), text
    assert not watch.careful(np.ones((2, 3, 3)), np.ones((5, 3)))  # a call that fails leaves nothing behind


def test_broadcast_sizes() -> None:
    x, y = gc.matrices("x", "y")
    f = gc.function([x, y], x * y, mode=LLVM)
    a, b = np.arange(6.0).reshape(2, 3), np.ones((1, 3))
    for u, v in [(a, a), (a, b), (b, a), (a[:, :1].copy(), b), (a, np.ones((4, 3))), (a, a)]:
        same_as_careful(f, u, v)


# ---- arguments ----------------------------------------------------------------------------------


class Sub(np.ndarray):
    pass


def unusual_arrays() -> dict[str, Any]:
    a = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    bytes_ = np.zeros(a.nbytes + 1, np.uint8)[1:].view(np.uint8)
    misaligned = np.frombuffer(bytes_.data, np.float32, 12).reshape(3, 4)
    return {
        "strided": np.repeat(a, 2, axis=1)[:, ::2], "Fortran order": np.asfortranarray(a), "byte order": a.astype(">f4"), "float64": a.astype(np.float64),
        "float16": a.astype(np.float16), "int": a.astype(np.int64), "subclass": a.view(Sub), "list": a.tolist(), "misaligned": misaligned, "rank": a.ravel(),
        "rank 3": a[None], "size": a[:, :3].copy(), "None": None, "text": "abc", "variable": gc.matrix("m"), "masked": np.ma.masked_array(a, a > 3),
        "number": 2.0, "object": a.astype(object), "memory": memoryview(a), "structured": np.zeros((3, 4), [("a", "f4")]),
        "metadata": a.astype(np.dtype("float32", metadata={"a": 1})), "negative": a[::-1], "broadcast": np.broadcast_to(a[:1], (3, 4)),
    }


@pytest.mark.parametrize("kind", unusual_arrays())
def test_unusual_arrays_go_the_careful_way(kind: str) -> None:
    x = gc.tensor("x", shape=(None, 4), dtype="float32")
    f = gc.function([x], x * 2, mode=LLVM)
    same_as_careful(f, unusual_arrays()[kind])
    watch = Watch(f)
    outcome(f, unusual_arrays()[kind])
    assert watch.calls == 1
    assert not watch.careful(np.ones((3, 4), np.float32))


def test_wrong_number_of_arguments_names_and_defaults() -> None:
    x, y = gc.scalars("x", "y")
    f = gc.function([x, gc.In(y, value=3.0)], x * 10 + y, mode=LLVM)
    one = np.array(1.0)
    for args, kwargs in [((), {}), ((one,), {}), ((one, one, one), {}), ((one,), {"y": one}), ((), {"x": one}), ((one,), {"x": one}), ((one,), {"z": one})]:
        same_as_careful(f, *args, **kwargs)
    assert not Watch(f).careful(one, one)


def test_read_only_arguments_are_usual() -> None:
    f, a = square(), np.ones(3, np.float32)
    a.flags.writeable = False
    assert not Watch(f).careful(a)


@pytest.mark.parametrize("dtype", [*DTYPES, "complex64", "complex128"])
@pytest.mark.parametrize("downcast", [None, True, False])
def test_numbers_convert_as_on_the_careful_way(dtype: str, downcast: bool | None) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    x = gc.tensor("x", shape=(), dtype=dtype)
    f = gc.function([x], [x, x.reshape((1,))], mode=LLVM, allow_input_downcast=downcast)
    assert is_native(f) or x.dtype.kind == "c"
    numbers: list[Any] = [0.5, -0.0, 1e300, float("nan"), float("inf"), 0.1, 0, 1, 2, -1, 127, 128, -129, 255, 256, 65535, 1 << 16, 1 << 24, (1 << 24) + 1,
                          -(1 << 24) - 1, (1 << 53) + 1, (1 << 31), -(1 << 31), (1 << 32) - 1, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), -(1 << 64), True,
                          1j, np.float64(0.1), np.float32(0.1), np.float16(0.5), np.int8(-3), np.uint8(200), np.int64(5), np.uint64(1 << 63), np.bool_(True),
                          np.complex64(1 + 2j), np.complex128(1 + 2j), np.longlong(4)]
    for number in numbers:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            same_as_careful(f, number)


def test_floats_are_usual() -> None:
    x, y = gc.dscalar("x"), gc.fscalar("y")
    f = gc.function([x, y], x * y, mode=LLVM)
    watch = Watch(f)
    assert not any([watch.careful(2.0, 3.0), watch.careful(2, 3), watch.careful(np.float64(2.0), np.float32(3.0)), watch.careful(np.array(2.0), 3)])
    assert watch.careful(True, 3.0)


# ---- memory -------------------------------------------------------------------------------------


def test_results_that_are_held_are_distinct() -> None:
    f, a = square(), np.arange(100, dtype=np.float32)
    kept = [f(a) for _ in range(20)]
    assert len({r.ctypes.data for r in kept}) == 20
    for n, r in enumerate(kept):
        r[:] = n
    assert all((r == n).all() for n, r in enumerate(kept))
    assert np.array_equal(f(a), a * a)


def test_memory_is_used_again() -> None:
    f, a = square(), np.arange(100_000, dtype=np.float32)
    assert len({f(a).ctypes.data for _ in range(10)}) <= 2
    assert f(a).ctypes.data % 64 == 0


def test_what_still_shows_a_result_keeps_its_memory() -> None:
    f, a = square(), np.arange(1000, dtype=np.float32)
    want = (a * a).tobytes()
    for look in (lambda r: r[10:], memoryview, lambda r: r.view(np.int32), lambda r: r.__dlpack__(), lambda r: r.reshape(10, 100),
                 lambda r: np.frombuffer(r, np.uint8)):
        result = f(a)
        address = result.ctypes.data
        seen = look(result)
        del result
        others = [f(a + 1) for _ in range(6)]
        assert address not in [r.ctypes.data for r in others]
        if isinstance(seen, np.ndarray):
            assert seen.tobytes() in want
    watched = f(a)
    gone: list[Any] = []
    weakref.finalize(watched, gone.append, 1)
    del watched
    assert gone


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # setting a shape
def test_results_are_ordinary_arrays() -> None:
    f, a = square(), np.arange(64, dtype=np.float32)
    r = f(a)
    like = np.empty(3)
    assert sys.getrefcount(r) == sys.getrefcount(like)
    r.resize((100,))  # in place: nobody else refers to it
    assert r.shape == (100,) and r[63] == 63 ** 2 and not r[64:].any()
    r.resize((8, 2))
    assert r[7, 1] == 225
    r = f(a)
    r.shape = (8, 8)
    r.flags.writeable = False
    del r
    again = f(a)
    assert again.shape == (64,) and again.flags.writeable
    assert pickle.loads(pickle.dumps(again)).tolist() == again.tolist() == copy.deepcopy(again).tolist()
    again.__setstate__(np.ones(3).__reduce__()[2])
    assert again.tolist() == [1, 1, 1]


def test_results_outlive_their_function() -> None:
    f, a = square(), np.arange(1000, dtype=np.float32)
    r = f(a)
    there = weakref.ref(f)
    del f
    assert there() is None, "a function is in no circle: its memory goes at once"
    assert np.array_equal(r, a * a)
    r.resize(5000)
    del r


def test_sizes_that_change_in_every_call() -> None:
    f = square()
    for n in [5, 100, 0, 3000, 1, 70_000, 64, 16, 1_100_000, 17] * 3:
        a = np.arange(n, dtype=np.float32)
        assert np.array_equal(f(a), a * a)


def test_nothing_leaks() -> None:
    x, y = gc.dvector("x"), gc.dscalar("y")
    s, c = gc.shared(np.zeros(50), "s"), gc.shared(0, "c")
    f = gc.function([x, y], {"a": x + y, "b": x * 2}, updates={s: s + x, c: c + 1}, mode=LLVM)
    g = gc.function([x], [x + 1, s * 2], mode=LLVM)
    h = gc.function([], None, updates={c: c + 1}, mode=LLVM)
    a, b = np.ones(50), np.array(2.0)
    objects = [a, b, a.dtype, s.container, s.container.lock, None, np.ndarray, "a", NotImplemented, 2.0]

    def calls(count: int) -> None:
        for n in range(count):
            f(a, b)
            g(a)
            h()
            f(a, float(n))
            if n % 100 == 0:
                f(a.astype(np.float32), 1)  # careful
                outcome(f, a[:3], 1.0)
                outcome(f, a)

    calls(300)
    garbage.collect()  # what other tests have left, and lets go of None
    before = [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()
    calls(2500)
    garbage.collect()
    after = [sys.getrefcount(o) for o in objects], sys.getallocatedblocks()
    assert all(abs(p - q) < 20 for p, q in zip(before[0], after[0], strict=True)), (before, after)
    assert after[1] - before[1] < 200
    assert sys.getrefcount(s.container.value) <= 2 + 1


def test_memory_of_the_process_does_not_grow() -> None:
    resource = pytest.importorskip("resource")
    f, a = square(), np.ones(1 << 18, np.float32)
    for _ in range(5):
        f(a)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for n in range(200):
        f(a[: n * 1000 + 1])
        gc_free = square() if n % 50 == 0 else None
        if gc_free is not None:
            gc_free(a)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def test_native_memory_is_given_back() -> None:
    info = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if info is None:
        pytest.skip("not glibc")

    class Info(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keep"))
    info.restype = Info
    s = gc.shared(np.zeros(300), "s")
    x = gc.dvector("x")
    f = gc.function([x], [x + s, x * 2], updates={s: s + x}, mode=LLVM)
    a = np.ones(300)

    def round_() -> int:
        for n in range(200):
            g = f.copy() if n % 40 == 0 else f
            g(a)
            outcome(g, a[:n + 1])
        garbage.collect()
        return int(info().uordblks + info().hblkhd)
    round_()
    before = round_()
    assert round_() - before < 100_000


def test_tracemalloc_sees_results() -> None:
    import tracemalloc
    f, a = square(), np.ones(1 << 16, np.float32)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        r = f(a)
        assert tracemalloc.get_traced_memory()[0] - before >= r.nbytes
        del r
        assert tracemalloc.get_traced_memory()[0] - before < 1 << 16
    finally:
        tracemalloc.stop()


# ---- functions ----------------------------------------------------------------------------------


def test_copies_and_pickles_have_doors_of_their_own() -> None:
    s, t = gc.shared(1.0, "s"), gc.shared(10.0, "t")
    f = gc.function([], s * 1, updates={s: s + 1}, mode=LLVM)
    f()
    others = [pickle.loads(pickle.dumps(f)), copy.deepcopy(f), f.copy(swap={s: t})]
    assert all(is_native(g) for g in others)
    assert [float(g()) for g in others] == [2, 2, 10]
    assert [float(g()) for g in others] == [3, 3, 11]
    assert (s.get_value(), t.get_value()) == (2, 12)


def test_functions_that_are_checked_or_measured_have_none() -> None:
    x = gc.vector("x")
    for options in ({"mode": "DEBUG"}, {"mode": LLVM, "profile": True}, {"mode": gc.Mode(backend="numpy")}, {"mode": gc.Mode(backend="llvm", check_nan=True)}):
        f = gc.function([x], x + 1, **options)
        assert not is_native(f)
        assert f(np.ones(2)).tolist() == [2, 2]


def test_without_a_machine_the_careful_path_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "machine", lambda: None)
    s = gc.shared(np.zeros(2), "s")
    x = gc.vector("x")
    f = gc.function([x], x * 2, updates={s: s + x}, mode=LLVM)
    assert not is_native(f)
    assert f(np.ones(2)).tolist() == [2, 2] and s.get_value().tolist() == [1, 1]


def test_settings_of_threads_are_seen() -> None:
    f, a = square(), np.ones(400_000, np.float32)
    place = door.LAYOUTS["world"]["threads"][1] // 8
    world = door.machine().world

    def threads() -> int:
        f(a)
        return int(world[place])
    usual = threads()
    assert usual == door.pool().threads_for(None, None)
    before = gc.config.threads
    try:
        gc.config.threads = 1
        assert threads() == 1
        with gc.config(threads=usual), gc.config(floatX="float32"):
            assert threads() == usual
        with gc.config(floatX="float32"):
            assert threads() == 1
    finally:
        gc.config.threads = before
    assert threads() == usual
    g = square(threads=1)
    assert np.array_equal(g(a), f(a))


def test_the_second_call_makes_the_way_in() -> None:
    """Whoever holds ``f.__call__`` from before gets there too; so do two threads at once, and a function from a pickle."""
    f, a = square(), np.arange(5, dtype=np.float32)
    early = f.__call__
    assert np.array_equal(f(a), a * a) and f.__call__ is early
    results: list[Any] = [None] * 4

    def call(n: int) -> None:
        results[n] = f(a)
    in_threads(call)
    assert all(np.array_equal(r, a * a) for r in results)
    assert f.__call__ is not early and is_native(f) and np.array_equal(early(a), a * a)
    g = pickle.loads(pickle.dumps(f))
    assert np.array_equal(g(a), g(a))
    assert not isinstance(g.__call__, type(early))


def test_a_door_is_small_and_goes_with_its_function() -> None:
    functions = [square() for _ in range(3)]
    a = np.ones(10, np.float32)
    for f in functions:
        f(a)
        assert is_native(f)
    kept = [weakref.ref(f.__call__.__self__) for f in functions]
    garbage.disable()
    try:
        del functions, f
        assert [k() for k in kept] == [None] * 3
    finally:
        garbage.enable()


# ---- formulas -----------------------------------------------------------------------------------


def test_work_is_counted_stage_by_stage() -> None:
    x = gc.matrix("x")
    f = gc.function([x], gc.softmax(x, axis=1), mode=LLVM)
    work = door.work_formula(f._compiled.program)
    names = dict.fromkeys(gc.dims.symbols(work))
    small, large = (gc.dims.evaluate(work, dict.fromkeys(names, n)) for n in (10, 1000))
    assert 10_000 < small < 5_000_000 < large


def test_bound() -> None:
    n, m = gc.dim("n"), gc.dim("m")
    symbols = [n.symbol, m.symbol]
    bound = door.Bound([n * m * 8 + 5, gc.dims.dim_max(n, m) + 3, n * 2], symbols)
    bound.check([1 << 20, 1 << 20])
    bound.check([1 << 50, 0])
    with pytest.raises(MemoryError, match="n = "):
        bound.check([1 << 40, 1 << 40])
    assert bound.products == [(0, 1)]
