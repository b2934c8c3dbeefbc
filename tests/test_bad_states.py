"""The LLVM backend where something is wrong around it: processors, the cache's folder, memory, signals, threads, forks.

What one part does then is tested with that part (test_caching.py, test_engine.py, test_pool.py, test_door_state.py); here whole
functions are compiled and called.  tests/battery.py has functions that use all of code generation.
"""

from __future__ import annotations

import _thread
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import battery
import numpy as np
import pytest
from children import in_child
from native_checks import two_threads

import graphc as gc
from graphc import caching
from graphc.backends.llvm import engine as engines
from graphc.backends.llvm.pool import pool

ROOT = Path(__file__).resolve().parent.parent
LLVM = gc.Mode(backend="llvm")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
SOME = ("chain", "softmax", "products", "gradient")


def battery_process(folder: Path, **environment: str) -> list[str]:
    """Facts that tests/battery.py prints."""
    done = subprocess.run([sys.executable, str(ROOT / "tests" / "battery.py")], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "GRAPHC_CACHE_DIR": str(folder), **environment})
    assert done.returncode == 0 and not done.stderr, done.stderr
    *problems, facts = done.stdout.splitlines()
    assert not problems, "\n".join(problems)
    return facts.split()


def fresh(folder: Path, work: Callable[[], object]) -> None:
    """Do it in a child that has no machine code yet, with this folder as cache."""
    def run() -> None:
        engines._engines.clear()
        caching._warned.clear()
        with gc.config(cache_dir=str(folder)):
            work()
    assert in_child(run, 100) == ""


def right() -> None:
    """Some functions compile and give what NumPy gives."""
    for name in SOME:
        assert battery.run(name)[1] is None


# ---- processors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("features", "bits"), [("-avx512f", 256), ("-avx2", 128)])
def test_without_wide_vectors(features: str, bits: int, tmp_path: Path) -> None:
    facts = battery_process(Path(os.environ["GRAPHC_CACHE_DIR"]), GRAPHC_CPU_FEATURES=features)
    assert int(facts[0]) <= bits


# ---- the cache --------------------------------------------------------------------------------------


def test_cold_and_warm_processes_give_the_same_bits(tmp_path: Path) -> None:
    cold, warm = battery_process(tmp_path), battery_process(tmp_path)
    assert int(cold[1]) > 50 and cold[2] == "0" and warm[1] == "0" and warm[2] == cold[1]
    found = [a for name in battery.BATTERY for a in battery.run(name)[0]] + [a for f, arguments in battery.uneven() for a in f(*arguments)]
    assert cold[3] == warm[3] == battery.digest(found)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.gco"))


def test_corrupt_entries(tmp_path: Path) -> None:
    fresh(tmp_path, right)
    files = entries(tmp_path)
    assert len(files) > 5
    for k, file in enumerate(files):
        data = bytearray(file.read_bytes())
        if k % 3 == 0:
            data[len(data) // 2] ^= 1
        file.write_bytes(data[:len(data) // 2] if k % 3 == 1 else b"" if k % 3 == 2 else data)
    fresh(tmp_path, right)
    assert entries(tmp_path) == files

    def warm() -> None:
        right()
        assert engines.engine().statistics.compiled == 0
    fresh(tmp_path, warm)


def full() -> None:
    """No file of this process may have a byte."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_full_disk(tmp_path: Path) -> None:
    fresh(tmp_path, lambda: (full(), right()))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.parametrize("state", ["read-only", "foreign", "a file", "nowhere"])
def test_a_folder_that_cannot_be_used(state: str, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    if state == "a file":
        folder.write_text("")
    elif state == "nowhere":
        folder = Path(os.devnull, "cache")
    else:
        folder.mkdir(0o700)
        folder.chmod(0o500 if state == "read-only" else 0o777)

    def work() -> None:
        if state == "read-only":
            right()
        else:
            with pytest.warns(UserWarning, match="the compile cache is off") as seen:
                right()
            assert len(seen) == 1
    fresh(folder, work)
    if state == "foreign":
        assert not entries(folder)


def test_a_process_that_is_killed_while_it_writes(tmp_path: Path) -> None:
    def killed() -> None:
        def write(fd: int, content: bytes) -> None:
            os.write(fd, content[:len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        caching._write = write
        right()

    engines_before = list(engines._engines)

    def run() -> None:
        engines._engines.clear()
        with gc.config(cache_dir=str(tmp_path)):
            killed()
    assert "SIGKILL" in in_child(run, 100)
    assert engines._engines == engines_before and not entries(tmp_path)
    fresh(tmp_path, right)
    assert len(entries(tmp_path)) > 5


# ---- threads and processes ------------------------------------------------------------------------


@pytest.fixture
def three() -> Iterator[None]:
    """Three threads may work at once, whatever the machine has."""
    before = pool().limit
    pool().set_limit(3)
    yield
    pool().set_limit(before)


def test_the_same_bits_on_any_number_of_threads(three: None) -> None:
    for f, arguments in battery.uneven():
        found = set()
        for threads in (1, 2, 3, 1, 3):
            with gc.config(threads=threads):
                found.add(battery.digest(f(*arguments)))
        assert len(found) == 1


def test_fork_after_threads_started() -> None:
    f, (a,) = battery.uneven()[0]
    with two_threads(), gc.config(threads=2):
        want = battery.digest(f(a))
        assert pool().workers >= 1

        def child() -> None:
            for _ in range(3):
                assert battery.digest(f(a)) == want
            assert pool().workers == 1  # its own
            right()
        assert in_child(child, 60) == ""
        assert battery.digest(f(a)) == want


def test_many_threads_in_one_function() -> None:
    """Usual calls, calls that go through Python, and calls whose sizes are not as assumed, whose program is compiled meanwhile."""
    x, y = gc.matrices("x", "y")
    f = gc.function([x, y], gc.sum(gc.tanh(x) * y, axis=0), mode=LLVM)
    barrier, wrong = threading.Barrier(4), []

    def work(n: int) -> None:
        rng = np.random.default_rng(n)
        barrier.wait()
        for k in range(60):
            rows = 300 if k % 20 == 0 else 1 + (k + n) % 17
            a = rng.normal(size=(rows, 40))
            b = rng.normal(size=(1 if k % 3 == 0 else rows, 40))
            a = a[::-1] if k % 4 == 0 else a
            if not np.allclose(f(a, b), (np.tanh(a) * b).sum(0), rtol=1e-11, atol=1e-12):
                wrong.append((n, k))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- memory -----------------------------------------------------------------------------------------


def test_no_memory_for_a_result() -> None:
    s = gc.shared(np.zeros(3), "s")
    x, y = gc.vectors("x", "y")
    f = gc.function([x, y], gc.exp(x)[:, None] * y, updates={s: s + 1.0}, mode=LLVM)
    huge = np.zeros(1 << 23)
    for a, b in ((huge, huge), (np.broadcast_to(0.0, (1 << 45,)), huge), (huge[::2], huge[::2])):
        with pytest.raises(MemoryError):
            f(a, b)
        assert s.get_value().tolist() == [0, 0, 0]
    assert f([0.0], [2.0, 3.0]).tolist() == [[2, 3]] and s.get_value().tolist() == [1, 1, 1]


def test_no_memory_to_work_in() -> None:
    def child() -> None:
        s = gc.shared(0.0, "s")
        x, y = gc.vectors("x", "y")
        f = gc.function([x, y], (x[:, None] @ y[None, :]) @ gc.stack([y, y], axis=1), updates={s: s + 1.0}, mode=LLVM)
        assert f([1.0, 2.0], [3.0]).tolist() == [[9.0, 9.0], [18.0, 18.0]]
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20), resource.RLIM_INFINITY))
        n = 20_000
        for _ in range(3):  # 3.2 GB between the products
            for arguments in ((np.ones(n), np.ones(n)), (np.ones(2 * n)[::2], np.ones(n))):
                try:
                    f(*arguments)
                except MemoryError:
                    continue
                raise AssertionError("no MemoryError")
        assert float(s.get_value()) == 1.0
        assert f([1.0, 2.0], [3.0]).tolist() == [[9.0, 9.0], [18.0, 18.0]] and float(s.get_value()) == 2.0
        assert f(np.ones(1000), np.ones(1000)).tolist() == [[1000.0, 1000.0]] * 1000
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("no /proc here")
    assert in_child(child, 60) == ""


# ---- Ctrl-C -----------------------------------------------------------------------------------------


def interrupt_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next module that is compiled is one during which Ctrl-C is pressed."""
    honest: Any = engines._compiled

    def pressed(*args: Any) -> Any:
        monkeypatch.setattr(engines, "_compiled", honest)
        _thread.interrupt_main()
        return honest(*args)
    monkeypatch.setattr(engines, "_compiled", pressed)


def test_ctrl_c_while_a_function_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gc.vector("x")
    y = gc.sum(gc.tanh(x * 3.25) - gc.exp(x) * gc.sin(x))
    with gc.config(cache_size=0):
        monkeypatch.setattr(engines, "_engines", [engines.Engine()])
        interrupt_compiling(monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            gc.function([x], y, mode=LLVM)
        f = gc.function([x], y, mode=LLVM)
    assert np.isclose(f([0.5]), np.tanh(0.5 * 3.25) - np.exp(0.5) * np.sin(0.5))


def test_ctrl_c_while_a_call_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second program of a function is made by the first call that needs it."""
    x, y = gc.matrices("x", "y")
    s = gc.shared(np.zeros(2), "s")
    with gc.config(cache_size=0):
        monkeypatch.setattr(engines, "_engines", [engines.Engine()])
        f = gc.function([x, y], gc.sum(gc.cosh(x * 1.125) + y, axis=1), updates={s: s + 1.0}, mode=LLVM)
        a, b = np.ones((2, 3)), np.ones((2, 1))
        f(a, a)
        interrupt_compiling(monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            f(a, b)
        assert s.get_value().tolist() == [1, 1]
        assert np.allclose(f(a, b), 3 * np.cosh(1.125) + 3) and s.get_value().tolist() == [2, 2]


def test_ctrl_c_during_long_calls() -> None:
    """It is seen after the work; state is as before the call or as after it, all of it."""
    a = np.random.default_rng(0).normal(size=(400, 400))
    x = gc.matrix("x")
    s, t = gc.shared(0.0, "s"), gc.shared(np.zeros(5), "t")
    f = gc.function([x], gc.sum(gc.tanh(x @ x) @ x), updates={s: s + 1.0, t: t + 1.0}, mode=LLVM)
    want, seen = f(a), 0
    for arguments in 4 * [(a,), (np.asfortranarray(a),)]:
        begin, calls = threading.Event(), float(s.get_value())

        def press(begin: threading.Event = begin) -> None:
            begin.wait()  # then this thread goes on when the other one lets go of the interpreter's lock: in the call
            os.kill(os.getpid(), signal.SIGINT)
        other = threading.Thread(target=press)
        other.start()
        try:
            begin.set()
            f(*arguments)
            other.join()
            for _ in range(1000):
                pass
        except KeyboardInterrupt:
            seen += 1
        other.join()
        assert float(s.get_value()) in (calls, calls + 1) and set(t.get_value()) == {float(s.get_value())}
    assert seen == 8 and f(a) == want


# ---- the end ----------------------------------------------------------------------------------------

ENDING = """
import sys, threading
import numpy as np
import graphc as gc
from graphc.backends.llvm.pool import pool
pool().set_limit(2)
x, y = gc.matrix("x"), gc.vector("y")
s = gc.shared(0.0, "s")
f = gc.function([x], gc.sum(gc.exp(x), axis=0), updates={s: s + 1.0}, threads=2)
a = np.ones((1000, 1001))

def call(argument):
    while True:
        f(argument)

def compile():
    k = 0
    with gc.config(cache_size=0):
        while True:
            k += 1
            gc.function([y], gc.tanh(y[:k]) + y[k])

def start(target, *arguments):
    threading.Thread(target=target, args=arguments, daemon=True).start()

f(a)
for argument in (a, a[:, ::2], np.asfortranarray(a)):
    start(call, argument)
start(compile)
before = float(s.get_value())
while float(s.get_value()) < before + 6:
    f(a)
sys.exit(7)
"""


def test_the_end_of_the_process_while_others_call_and_compile() -> None:
    done = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, cwd=ROOT, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert (done.returncode, done.stderr) == (7, "")
