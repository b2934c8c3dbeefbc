"""The native door and state: all or nothing, whoever else is at work, and however the process ends."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door_watch import LLVM, Watch, in_threads, square

import graphc as gc

pytest.importorskip("llvmlite")

from graphc.backends.llvm import door

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(door.machine() is None, reason="no native door on this Python")


# ---- state --------------------------------------------------------------------------------------


def test_state_that_is_looked_at_is_not_written() -> None:
    s = gc.shared(np.zeros(1000), "s")
    f = gc.function([], s * 1, updates={s: s + 1}, mode=LLVM)
    watch = Watch(f)
    looks = []
    for n in range(6):
        assert f()[0] == n
        looks.append((n + 1, s.get_value(borrow=True)))
    for n, value in looks:
        assert (value == n).all()
    views = s.get_value(borrow=True)[3:5]
    f()
    f()
    assert views.tolist() == [6, 6]
    assert watch.calls == 0


def test_training_takes_turns_between_two_arrays() -> None:
    s = gc.shared(np.zeros(1000), "s")
    f = gc.function([], None, updates={s: s + 1}, mode=LLVM)
    f()
    places = set()
    for _ in range(10):
        f()
        places.add(s.container.value.ctypes.data)
    assert len(places) == 2
    s.set_value(np.ones(1000))
    assert s.get_value()[0] == 1
    f()
    assert s.get_value()[0] == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_state_changed_by_its_owner_is_not_taken_back() -> None:
    s = gc.shared(np.zeros((4, 4)), "s")
    f = gc.function([], None, updates={s: s + 1}, mode=LLVM)
    for spoil in (lambda a: a.setflags(write=False), lambda a: setattr(a, "shape", (2, 8)), lambda a: weakref.finalize(a, print, end=""),
                  lambda a: a.resize(3, refcheck=False)):
        f()
        f()
        spoil(s.container.value)
        s.set_value(np.zeros((4, 4)))
        f()
        f()
        f()
        assert (s.get_value() == 3).all() and s.container.value.flags.writeable


def test_state_of_open_size_and_of_another_dtype() -> None:
    s = gc.shared(np.zeros(2), "s", shape=(None,))
    x = gc.vector("x")
    f = gc.function([x], None, updates={s: gc.concatenate([s, x])}, mode=LLVM)
    f(np.ones(1))
    f(np.ones(3))
    assert s.get_value().tolist() == [0, 0, 1, 1, 1, 1]
    s.container.value = np.asfortranarray(np.ones((3, 3)))[:, 0]
    f(np.zeros(1))
    assert s.get_value().tolist() == [1, 1, 1, 0]


def test_nothing_is_updated_by_a_call_that_fails() -> None:
    a, b = gc.shared(np.zeros(2), "a"), gc.shared(np.zeros(3), "b")
    x = gc.lvector("x")
    f = gc.function([x], a * 1, updates={a: a + 1, b: b[x] + 1}, mode=LLVM)
    old = a.container.value, b.container.value
    with pytest.raises(IndexError):
        f(np.array([0, 1, 9]))
    with pytest.raises(ValueError):
        f(np.array([0, 1]))
    assert a.container.value is old[0] and b.container.value is old[1]
    f(np.array([0, 1, 2]))
    assert a.get_value().tolist() == [1, 1] and b.get_value().tolist() == [1, 1, 1]


def with_a_stop(f: Any, stop: Callable[[], int]) -> Any:
    """The function's native door, whose work ends with a call of ``stop``, which may do anything and gives the status."""
    runner, careful = f._compiled.runner, functools.partial(gc.compiled._careful, f._compiled.door, f._structure)
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    work, addresses = kind(runner.native.addresses[1]), runner.native.addresses

    @kind
    def replaced(*args: int) -> int:
        return work(*args) or stop()
    runner.native.addresses = [addresses[0], ctypes.cast(replaced, ctypes.c_void_p).value]
    try:
        found = runner.entry(f._compiled.door, f._structure, careful)
    finally:
        runner.native.addresses = addresses
    found.__self__.kept.append(replaced)
    return found


def test_work_that_fails_is_done_again_the_careful_way() -> None:
    a, b = gc.shared(np.zeros(2), "a"), gc.shared(np.zeros(3), "b")
    f = gc.function([], {"a": a * 1}, updates={a: a + 1, b: b + 1}, mode=LLVM)
    watch, states = Watch(f), []
    g = with_a_stop(f, lambda: states.append((a.get_value()[0], b.get_value()[0])) or 1)
    for n in range(3):
        assert g()["a"].tolist() == [n, n]
    assert watch.calls == 3 and states == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("outputs", ["one", "list", "dict", None])
def test_a_call_that_comes_late_is_done_again(outputs: str | None) -> None:
    """Another updating call began, or the state was replaced, while this one ran."""
    s, t = gc.shared(np.zeros(3), "s"), gc.shared(np.zeros(3), "t")
    results = {"one": s * 1, "list": [s * 1, s + t], "dict": {"a": s * 1}, None: None}[outputs]
    f = gc.function([], results, updates={s: s + 1, t: t + s}, mode=LLVM)
    g = gc.function([], None, updates={t: t + 10}, mode=LLVM)
    watch = Watch(f)
    happens: list[Callable[[], Any]] = [lambda: s.set_value(np.full(3, 100.0)), g, lambda: gc.backends.updating.append(None), lambda: None]

    def stop() -> int:
        if happens:
            happens.pop(0)()
        return 0
    late = with_a_stop(f, stop)
    late()  # not with the state that it read, but with the one that it found
    assert (watch.calls, s.get_value()[0], t.get_value()[0]) == (1, 101, 100)
    late()
    assert (watch.calls, s.get_value()[0], t.get_value()[0]) == (2, 102, 211)
    late()
    gc.backends.updating.pop()
    assert (watch.calls, s.get_value()[0], t.get_value()[0]) == (3, 103, 313)
    late()
    assert (watch.calls, s.get_value()[0], t.get_value()[0]) == (3, 104, 416)


def test_a_call_among_others_takes_the_locks() -> None:
    s = gc.shared(np.zeros(3), "s")
    f = gc.function([], s * 1, updates={s: s + 1}, mode=LLVM)
    watch, free = Watch(f), []

    def stop() -> int:
        seen = threading.Thread(target=lambda: free.append(s.container.lock.acquire(blocking=False) and not s.container.lock.release()))
        seen.start()
        seen.join()
        return 0
    g = with_a_stop(f, stop)
    g()
    gc.backends.updating.append(None)
    g()
    gc.backends.updating.pop()
    g()
    assert free == [True, False, True] and watch.calls == 0 and s.get_value()[0] == 3


def test_out_of_memory_says_so_and_changes_nothing() -> None:
    s = gc.shared(0, "s")
    x, y = gc.matrices("x", "y")
    f = gc.function([x, y], x @ y, updates={s: s + 1}, mode=LLVM)
    for k in (22, 40):  # too much for the machine; too much for 64 bits
        with pytest.raises(MemoryError):
            f(np.zeros((1 << k, 0)), np.zeros((0, 1 << k)))
    assert s.get_value() == 0
    assert f(np.ones((2, 3)), np.ones((3, 2))).tolist() == [[3, 3], [3, 3]]
    assert s.get_value() == 1
    u, v = gc.vectors("u", "v")
    g = gc.function([u, v], u[:, None] * v[None, :], mode=LLVM)
    with pytest.raises(MemoryError):
        g(np.ones(1 << 22), np.ones(1 << 22))
    assert g(np.ones(2), np.ones(2)).tolist() == [[1, 1], [1, 1]]


# ---- threads, processes, signals ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100_000])
def test_updates_from_many_threads(size: int) -> None:
    """With 1 element no other thread runs during the work; with 100 000 others do."""
    s, t = gc.shared(np.zeros(size), "s"), gc.shared(np.zeros(size), "t")
    f = gc.function([], s[0], updates={s: s + 1, t: s + 1}, mode=LLVM)
    g = gc.function([], [t.sum() - s.sum()], mode=LLVM)
    x = gc.dscalar("x")
    h = gc.function([x], None, updates={t: t + x * 0, s: s + x}, mode=LLVM)
    count = 300 if size == 1 else 40
    seen: list[float] = []

    def work(n: int) -> None:
        for k in range(count):
            if n == 0:
                seen.append(float(g()[0]))
            elif n == 1 and k % 3 == 0:
                h([1.0][0] if k % 2 else np.array(1, np.float32))  # the careful way, every other time
            else:
                f()
    in_threads(work)
    f()
    assert s.get_value()[0] == 3 * count + 1
    assert all(v <= 0 for v in seen)
    world = dict(zip(door.LAYOUTS["world"], door.machine().world.tolist(), strict=True))
    assert world["busy"] == world["flying"] == 0


def test_one_function_in_many_threads() -> None:
    f = square()

    def work(n: int) -> None:
        for k in range(60):
            a = np.full(50_000 if k % 2 else 10 + n, n + k, np.float32)
            r = f(a)
            assert (r == (n + k) ** 2).all()
    in_threads(work)


def test_set_value_while_a_function_runs() -> None:
    s = gc.shared(np.zeros(200_000), "s")
    f = gc.function([], s[0] - s[-1], updates={s: s + 1}, mode=LLVM)

    def work(n: int) -> None:
        for k in range(30):
            if n == 0:
                s.set_value(np.full(200_000, 1000.0 * k))
            else:
                assert f() == 0
    in_threads(work, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_fork() -> None:
    s = gc.shared(np.zeros(1000), "s")
    f, g, a = square(), gc.function([], None, updates={s: s + 1}, mode=LLVM), np.ones(100_000, np.float32)
    f(a)
    g()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        good = False
        try:
            for _ in range(10):
                g()
            good = (f(a * 3) == 9).all() and s.get_value()[0] == 11
        finally:
            os._exit(0 if good else 1)
    g()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert s.get_value()[0] == 2


def test_ctrl_c_while_waiting_for_a_lock() -> None:
    s = gc.shared(0, "s")
    f = gc.function([], None, updates={s: s + 1}, mode=LLVM)
    f()
    held, free = threading.Event(), threading.Event()
    world, place = door.machine().world, door.LAYOUTS["world"]["busy"][1] // 8

    def hold() -> None:
        with s.container.lock:
            held.set()
            while world[place] < 2:  # until the other one waits
                pass
            os.kill(os.getpid(), signal.SIGINT)
            free.wait(5)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    world[place] += 1  # another updating call is under way: this one takes locks
    try:
        with pytest.raises(KeyboardInterrupt):
            f()
    finally:
        world[place] -= 1
        free.set()
        holder.join()
    assert world[place] == 0 and s.get_value() == 1
    f()
    assert s.get_value() == 2


def test_end_of_the_process() -> None:
    """Arrays, functions and calls that are still there when Python ends."""
    script = textwrap.dedent("""
        import threading, sys
        import numpy as np
        import graphc as gc
        x = gc.tensor("x", shape=(None,), dtype="float32")
        s = gc.shared(np.zeros(3), "s")
        f = gc.function([x], x * x, updates={s: s + 1}, mode=gc.Mode(backend="llvm"))
        a = np.ones(3_000_000, np.float32)
        kept = [f(a) for _ in range(3)]
        sys.keep = [f(a), f]
        cycle = [f(a)]
        cycle.append(cycle)
        def run():
            while True:
                f(a)
        for _ in range(2):
            threading.Thread(target=run, daemon=True).start()
        f(a)
        print("done")
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
