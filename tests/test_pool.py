"""The thread pool: every chunk once, whoever calls and however often; forks, signals, exits, limits, idle workers.

The tasks are small LLVM functions, since a Python function would need the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

import graphc as gc
from graphc import processors
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.pool import Pool, pool, pool_module
from graphc.backends.llvm.target import host

ROOT = Path(__file__).resolve().parent.parent
Parallel = Callable[[int, int, int, int], None]
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the pool has threads on Linux only")
MANY_CPUS = len(os.sched_getaffinity(0)) > 1 if sys.platform.startswith("linux") else False

TASKS = {
    # context[chunk] += 1
    "count": """
        define void @count(ptr %context, i64 %chunk) {
          %at = getelementptr i64, ptr %context, i64 %chunk
          %old = load i64, ptr %at
          %new = add i64 %old, 1
          store i64 %new, ptr %at
          ret void
        }""",
    # context[1 + chunk] = the thread; then waits (not for ever) until context[0] chunks have begun
    "meet": """
        @begun = internal global i64 0
        declare i64 @pthread_self()
        declare i32 @sched_yield()
        define void @meet(ptr %context, i64 %chunk) {
        entry:
          %i = add i64 %chunk, 1
          %at = getelementptr i64, ptr %context, i64 %i
          %thread = call i64 @pthread_self()
          store i64 %thread, ptr %at
          %was = atomicrmw sub ptr %context, i64 1 seq_cst
          br label %wait
        wait:
          %n = phi i64 [ 0, %entry ], [ %n1, %wait ]
          %r = call i32 @sched_yield()
          %left = load atomic i64, ptr %context seq_cst, align 8
          %n1 = add i64 %n, 1
          %absent = icmp sgt i64 %left, 0
          %patient = icmp slt i64 %n1, 4000000
          %on = and i1 %absent, %patient
          br i1 %on, label %wait, label %done
        done:
          ret void
        }""",
    # context = gc_parallel, the task "count", counts: 10 counts for each chunk, counted by a region of their own
    "nest": """
        define void @nest(ptr %context, i64 %chunk) {
          %parallel = load ptr, ptr %context
          %task_at = getelementptr i64, ptr %context, i64 1
          %task = load ptr, ptr %task_at
          %ten = mul i64 %chunk, 10
          %i = add i64 %ten, 2
          %counts = getelementptr i64, ptr %context, i64 %i
          call void %parallel(ptr %task, ptr %counts, i64 10, i64 4)
          ret void
        }""",
    # context[1 + chunk] = how many chunks came before
    "order": """
        define void @order(ptr %context, i64 %chunk) {
          %i = add i64 %chunk, 1
          %at = getelementptr i64, ptr %context, i64 %i
          %n = load i64, ptr %context
          store i64 %n, ptr %at
          %n1 = add i64 %n, 1
          store i64 %n1, ptr %context
          ret void
        }""",
}


def task(name: str) -> int:
    return engine().load({name: textwrap.dedent(TASKS[name])}, host())[name]


def parallel_of(address: int) -> Parallel:
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return kind(address)


@pytest.fixture
def four() -> Iterator[Pool]:
    """The pool with up to four threads, also where there are fewer processors."""
    p = pool()
    p.set_limit(4)
    yield p
    p.set_limit(0)


def counts(parallel: Parallel, chunks: int, threads: int) -> np.ndarray:
    found = np.zeros(chunks + 1, np.int64)  # one more, which nobody may touch
    parallel(task("count"), found.ctypes.data, chunks, threads)
    return found


def meeting(parallel: Parallel, chunks: int, threads: int, expected: int) -> set[int]:
    """The threads that ran chunks of which each waits until ``expected`` have begun."""
    context = np.zeros(chunks + 1, np.int64)
    context[0] = expected
    parallel(task("meet"), context.ctypes.data, chunks, threads)
    return set(context[1:].tolist())


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a fork that does ``work``; a child that hangs is ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork of a process with threads
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def workers() -> list[Path]:
    """The folders of this process's workers in /proc."""
    found = []
    for folder in Path("/proc/self/task").iterdir():
        try:
            if (folder / "comm").read_text() == "graphc worker\n":
                found.append(folder)
        except OSError:  # a thread that ended
            pass
    return found


def status(folder: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)


# ---- chunks


def test_every_chunk_once(four: Pool) -> None:
    parallel = parallel_of(four.address)
    for chunks in (*range(-1, 20), 100, 3001):
        for threads in (-1, 0, 1, 2, 3, 4, 7, 1000):
            found = counts(parallel, max(chunks, 0), threads) if chunks >= 0 else None
            assert found is None or (np.all(found[:-1] == 1) and found[-1] == 0), (chunks, threads)


def test_one_thread_goes_in_order(four: Pool) -> None:
    parallel, found = parallel_of(four.address), np.zeros(51, np.int64)
    parallel(task("order"), found.ctypes.data, 50, 1)
    assert found[1:].tolist() == list(range(50))


def test_many_small_regions(four: Pool) -> None:
    parallel, found, count = parallel_of(four.address), np.zeros(8, np.int64), task("count")
    for i in range(20_000):
        parallel(count, found.ctypes.data, 2 + i % 7, 2 + i % 3)
    assert found.tolist() == [sum(k < 2 + i % 7 for i in range(20_000)) for k in range(8)]


@on_linux
def test_threads_work_at_the_same_time(four: Pool) -> None:
    parallel = parallel_of(four.address)
    assert len(meeting(parallel, 2, 2, 2)) == 2
    assert len(meeting(parallel, 4, 4, 4)) == 4
    assert four.workers >= 3


def test_nested_regions_run_serially(four: Pool) -> None:
    parallel = parallel_of(four.address)
    for chunks in (1, 2, 9):
        context = np.zeros(2 + 10 * chunks + 1, np.int64)
        context[:2] = four.address, task("count")
        parallel(task("nest"), context.ctypes.data, chunks, 4)
        assert np.all(context[2:-1] == 1) and context[-1] == 0


def test_several_threads_call(four: Pool) -> None:
    parallel, wrong = parallel_of(four.address), []

    def call(seed: int) -> None:
        for i in range(400):
            found = counts(parallel, (seed * i) % 50, 2 + i % 4)
            if not (np.all(found[:-1] == 1) and found[-1] == 0):
                wrong.append((seed, i))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in (1, 3, 7, 11)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert np.all(counts(parallel, 30, 4)[:-1] == 1)


# ---- how many


def test_threads_for(four: Pool) -> None:
    with gc.config(threads=0):
        assert four.threads_for(None, None) == 4
        assert four.threads_for(3, None) == 3
        assert four.threads_for(3, 2) == 2
        assert four.threads_for(3, 0) == 4  # as many as usable
        assert four.threads_for(None, 99) == 4
    with gc.config(threads=2):
        assert four.threads_for(None, None) == 2
        assert four.threads_for(1, None) == 1
    four.set_limit(0)
    assert four.threads_for(None, 10_000) == four.usable == processors.usable_cpus()


@on_linux
def test_limit(four: Pool) -> None:
    parallel = parallel_of(four.address)
    assert len(meeting(parallel, 40, 40, 4)) <= 4
    four.set_limit(2)
    assert len(meeting(parallel, 40, 40, 2)) == 2
    four.set_limit(1)
    assert len(meeting(parallel, 40, 40, 1)) == 1


@on_linux
def test_workers_are_as_many_as_asked_for(four: Pool) -> None:
    parallel = parallel_of(four.address)

    def work() -> None:
        assert four.workers == 0
        counts(parallel, 1, 4)
        counts(parallel, 9, 1)
        assert four.workers == 0
        counts(parallel, 2, 9)
        assert four.workers == 1
        counts(parallel, 9, 9)
        assert four.workers == 3
    assert in_child(work) == 0


@on_linux
def test_affinity_mask_is_kept(four: Pool) -> None:
    parallel = parallel_of(four.address)
    mine = os.sched_getaffinity(0)

    def work() -> None:
        assert len(meeting(parallel, 4, 4, 4)) == 4
        for folder in workers():
            assert os.sched_getaffinity(int(folder.name)) <= mine
        four.set_limit(0)
        os.sched_setaffinity(0, {min(mine)})
        assert four.usable == 1
        four.set_limit(0)  # also: look at the mask now
        assert len(meeting(parallel, 4, 4, 1)) == 1
        if MANY_CPUS:
            os.sched_setaffinity(0, mine)
            four.set_limit(0)
            assert len(meeting(parallel, 4, 2, 2)) == 2
    assert in_child(work) == 0


@pytest.mark.parametrize(("groups", "files", "cpus"), [
    ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000", "cpu.max": "400000 100000"}, 2.5),
    ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
    ("0::/not/seen/here\n", {"cpu.max": "300000 100000"}, 3.0),
    ("0::/../other\n", {"cpu.max": "300000 100000", "other/cpu.max": "100000 100000"}, 3.0),
    ("0::/a\n", {"b/cpu.max": "100000 100000"}, None),
    ("0::/a\n", {"unified/a/cpu.max": "100000 100000"}, 1.0),
    ("3:cpuset:/q\n2:cpu,cpuacct:/a/b\n0::/\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
                                                "cpu,cpuacct/q/cpu.cfs_quota_us": "100000", "cpu,cpuacct/q/cpu.cfs_period_us": "100000"}, 2.0),
    ("nonsense\n::\n", {"cpu.max": "lots"}, None),
])
def test_quota_of_nested_groups(groups: str, files: dict[str, str], cpus: float | None, tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "root"
    own.write_text(groups)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    assert processors.cgroup_cpus(root, own) == cpus
    assert processors.cgroup_cpus(root / "missing", tmp_path / "missing") is None


# ---- workers


@on_linux
def test_idle_workers_sleep(four: Pool) -> None:
    counts(parallel_of(four.address), 8, 4)
    before: list[str] = []
    for _ in range(200):
        now = [(folder / "stat").read_text().rpartition(")")[2] for folder in workers()]
        if now and now == before and all(text.split()[0] == "S" for text in now):  # the same processor time too
            return
        before = now
        time.sleep(0.02)
    pytest.fail(f"still awake: {before}")


@on_linux
def test_workers_block_signals_but_for_faults(four: Pool) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    counts(parallel_of(four.address), 8, 4)
    for folder in workers():
        blocked = int(status(folder)["SigBlk"], 16)
        assert all(blocked >> (s - 1) & 1 for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGALRM, signal.SIGPROF))
        assert not any(blocked >> (s - 1) & 1 for s in (signal.SIGSEGV, signal.SIGFPE, signal.SIGBUS, signal.SIGILL))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask  # the caller's is as it was


# ---- forks, exits, Ctrl-C


@on_linux
def test_fork(four: Pool) -> None:
    parallel = parallel_of(four.address)
    meeting(parallel, 4, 4, 4)

    def grandchild() -> None:
        assert len(meeting(parallel, 4, 4, 4)) == 4

    def work() -> None:
        assert four.workers == 0
        for _ in range(50):
            assert np.all(counts(parallel, 9, 4)[:-1] == 1)
        assert len(meeting(parallel, 4, 4, 4)) == 4
        assert len(workers()) == four.workers == 3
        assert in_child(grandchild) == 0
        assert len(meeting(parallel, 4, 4, 4)) == 4

    assert in_child(work) == 0
    assert len(meeting(parallel, 4, 4, 4)) == 4  # the parent's workers are there as before


@on_linux
def test_fork_while_others_are_in_regions(four: Pool) -> None:
    parallel, stop = parallel_of(four.address), threading.Event()

    def call() -> None:
        while not stop.is_set():
            counts(parallel, 9, 4)

    def work() -> None:
        assert len(meeting(parallel, 4, 4, 4)) == 4

    threads = [threading.Thread(target=call) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        assert [in_child(work) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for t in threads:
            t.join()


EXITS = """
import ctypes, os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
from test_pool import counts, parallel_of, pool
p = pool()
p.set_limit(4)
parallel = parallel_of(p.address)
counts(parallel, 9, 4)

def forever():
    while True:
        counts(parallel, 9, 4)

def interrupted():
    threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        forever()
    except KeyboardInterrupt:
        assert counts(parallel, 9, 4).sum() == 9
        sys.exit(7)

def daemon():
    threading.Thread(target=forever, daemon=True).start()
    counts(parallel, 9, 4)

ways = {{"end": lambda: None, "_exit": lambda: os._exit(0), "exit": sys.exit, "daemon": daemon, "interrupted": interrupted}}
results = {{}}
me = os.getpid()
for name, way in ways.items():
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        counts(parallel, 9, 4)
        way()
        break
    results[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if os.getpid() == me:
    print(results)
"""


@on_linux
def test_exits_with_a_live_pool() -> None:
    code = EXITS.format(tests=str(ROOT / "tests"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-X", "dev", "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120, env=env)
    assert run.returncode == 0, run.stderr
    assert run.stdout == f"{ {'end': 0, '_exit': 0, 'exit': 0, 'daemon': 0, 'interrupted': 7} }\n", run.stderr
    assert run.stderr == ""


# ---- other systems


def test_without_threads_all_runs_serially() -> None:
    text = pool_module(dataclasses.replace(host(), triple="arm64-apple-darwin23.0.0"))
    assert "pthread" not in text
    table = engine().load({"gc_pool": text.replace("arm64-apple-darwin23.0.0", host().triple)}, host())["gc_pool"]
    address, limits, _, number = (ctypes.c_size_t * 4).from_address(table)
    ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_int32)(limits)(0, 4)
    parallel = parallel_of(address)
    assert np.all(counts(parallel, 20, 4)[:-1] == 1)
    found = np.zeros(51, np.int64)
    parallel(task("order"), found.ctypes.data, 50, 4)
    assert found[1:].tolist() == list(range(50))
    assert ctypes.CFUNCTYPE(ctypes.c_int32)(number)() == 0


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin", "riscv64-unknown-linux-gnu"])
def test_text_is_good(triple: str) -> None:
    text = pool_module(dataclasses.replace(host(), triple=triple))
    assert text == pool_module(dataclasses.replace(host(), triple=triple))
    llvm.parse_assembly(text).verify()
