"""The engine: text in, addresses out, each module compiled once per process and once per machine."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

import graphc as gc
from graphc import caching
from graphc.backends.llvm import engine as engine_module
from graphc.backends.llvm.engine import Engine, Statistics, engine
from graphc.backends.llvm.target import Target, host
from graphc.errors import InternalError

ROOT = Path(__file__).resolve().parent.parent
HOST = host()
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def scale(symbol: str, factor: float) -> str:
    """double symbol(double x): x * factor"""
    return f"define double @{symbol}(double %x) {{\n  %y = fmul double %x, {factor!r}\n  ret double %y\n}}\n"


def calls(symbol: str, other: str) -> str:
    """double symbol(double x): other(x) + 1"""
    return (f"declare double @{other}(double)\ndefine double @{symbol}(double %x) {{\n  %a = call double @{other}(double %x)\n"
            "  %y = fadd double %a, 1.0\n  ret double %y\n}\n")


def at(address: int) -> Callable[[float], float]:
    return ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)


def did(e: Engine) -> tuple[float, ...]:
    return tuple(e.statistics[:3])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(gc.config._values, "cache_dir", str(tmp_path / "cache"))  # `with gc.config(...)` is not seen by other threads
    return tmp_path / "cache"


def test_compiled_once_per_process_and_once_per_machine() -> None:
    one = Engine()
    texts = {"k_a": scale("k_a", 2.0), "k_b": scale("k_b", 3.0)}
    first = one.load(texts, HOST)
    assert at(first["k_a"])(1.5) == 3.0 and at(first["k_b"])(1.5) == 4.5
    assert did(one) == (2, 0, 0)
    assert one.load(texts, HOST) == first
    assert did(one) == (2, 0, 2)
    before = one.statistics
    one.load({**texts, "k_c": scale("k_c", 5.0)}, HOST)
    assert (one.statistics - before)[:3] == (1, 0, 2)
    assert one.statistics.seconds > before.seconds > 0
    other = Engine()  # as another process
    assert at(other.load(texts, HOST)["k_b"])(1.5) == 4.5
    assert did(other) == (0, 2, 0)
    assert one.load({}, HOST) == {}


def test_equal_names_of_different_modules_do_not_clash() -> None:
    e = Engine()
    two, three = e.load({"k": scale("k", 2.0)}, HOST)["k"], e.load({"k": scale("k", 3.0)}, HOST)["k"]
    assert (at(two)(1.0), at(three)(1.0)) == (2.0, 3.0)
    assert e.load({"k": scale("k", 2.0)}, HOST)["k"] == two


def test_helpers_of_equal_names_do_not_clash() -> None:
    def module(kind: str, symbol: str, factor: float) -> str:
        return scale("helper", factor).replace("define", f"define {kind}") + calls(symbol, "helper").partition("\n")[2]

    for kind in ("internal", ""):  # the second one cannot be loaded at once
        e = Engine()
        found = e.load({"k_a": module(kind, "k_a", 2.0), "k_b": module(kind, "k_b", 3.0)}, HOST)
        assert (at(found["k_a"])(1.0), at(found["k_b"])(1.0)) == (3.0, 4.0)


def test_constants_and_the_c_library_are_in_reach() -> None:
    text = """
@table = private unnamed_addr constant [4 x double] [double 1.0, double 10.0, double 100.0, double 1000.0], align 64
declare double @cos(double)
define double @k(double %x) {
  %i = fptosi double %x to i64
  %p = getelementptr double, ptr @table, i64 %i
  %t = load double, ptr %p
  %c = call double @cos(double 0.0)
  %y = fadd double %t, %c
  ret double %y
}
"""
    k = at(Engine().load({"k": text}, HOST)["k"])
    assert [k(float(i)) for i in range(4)] == [2.0, 11.0, 101.0, 1001.0]


def test_modules_of_one_call_may_call_each_other() -> None:
    texts = {"k_outer": calls("k_outer", "k_middle"), "k_middle": calls("k_middle", "k_inner"), "k_inner": scale("k_inner", 10.0)}
    e = Engine()
    first = e.load(texts, HOST)
    assert at(first["k_outer"])(2.0) == 22.0
    assert e.load(texts, HOST) == first and did(e) == (3, 0, 3)
    e = Engine()
    e.load({"k_inner": texts["k_inner"]}, HOST)
    assert at(e.load(texts, HOST)["k_outer"])(2.0) == 22.0  # with one that was there before
    with pytest.raises(InternalError, match="in a circle: k_a, k_b"):
        e.load({"k_a": calls("k_a", "k_b"), "k_b": calls("k_b", "k_a")}, HOST)


def test_externals() -> None:
    kind = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
    half, twice = kind(lambda x: x / 2), kind(lambda x: x * 2)
    addresses = [ctypes.cast(f, ctypes.c_void_p).value or 0 for f in (half, twice)]
    e = Engine()
    text = {"k": calls("k", "outside"), "k_free": scale("k_free", 2.0)}
    with_half = e.load(text, HOST, {"outside": addresses[0], "unused": 1})
    with_twice = e.load(text, HOST, {"outside": addresses[1], "unused": 2})
    assert (at(with_half["k"])(4.0), at(with_twice["k"])(4.0)) == (3.0, 9.0)
    assert with_half["k_free"] == with_twice["k_free"]  # it declares nothing
    assert e.load(text, HOST, {"outside": addresses[0]}) == with_half
    assert did(e) == (2, 0, 4)  # the externals are no part of the code


def test_a_symbol_that_is_nowhere() -> None:
    e = Engine()
    texts = {"k_good": scale("k_good", 2.0), "k_bad": calls("k_bad", "nowhere_at_all")}
    with pytest.raises(InternalError, match=r"k_bad cannot be loaded[\s\S]*needs from outside: nowhere_at_all"):
        e.load(texts, HOST)
    assert at(e.load({"k_good": texts["k_good"]}, HOST)["k_good"])(1.0) == 2.0
    with pytest.raises(InternalError, match=r"k_other cannot be loaded: Symbols not found"):
        e.load({"k_other": scale("k_good", 2.0)}, HOST)


def test_text_that_is_none() -> None:
    e = Engine()
    bad = scale("k_bad", 2.0).replace("ret double %y", "ret double %z")
    with pytest.raises(InternalError, match=r"LLVM does not accept the code of k_bad[\s\S]*%z") as caught:
        e.load({"k_bad": bad, **{f"k_{i}": scale(f"k_{i}", float(i)) for i in range(8)}}, HOST)
    assert caught.value.where is not None and caught.value.where.file == __file__  # whatever thread found it
    with pytest.raises(InternalError, match="LLVM does not accept"):
        e.assembly(bad, HOST)
    with pytest.raises(InternalError):
        e.load({"k_bad": bad}, HOST)  # nothing of the first try is kept
    assert at(e.load({"k_1": scale("k_1", 1.0)}, HOST)["k_1"])(7.0) == 7.0


def test_verified_on_request() -> None:
    # two definitions of a value in blocks that do not see each other: the parser accepts it, the verifier does not
    bad = ("define double @k(double %x, i1 %c) {\nentry:\n  br i1 %c, label %a, label %b\na:\n  %y = fadd double %x, 1.0\n  br label %b\n"
           "b:\n  ret double %y\n}\n")
    with gc.config(verify=True), pytest.raises(InternalError, match="does not dominate"):
        Engine().load({"k": bad}, HOST)


def test_the_key_holds_all_that_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"k": scale("k", 2.0)}
    Engine().load(text, HOST)

    def compiled(target: Target = HOST) -> float:
        e = Engine()
        assert at(e.load(text, target)["k"])(1.0) == 2.0
        return e.statistics.compiled

    assert compiled() == 0
    lesser = HOST.without("avx512f", "avx2") if HOST.x86 else Target(HOST.triple, "generic", HOST.features, HOST.bits)
    assert compiled(lesser) == 1 and compiled(lesser) == 0 and compiled() == 0
    for module, name in ((engine_module, "_FORMAT"), (engine_module.llvmlite, "__version__")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, "another")
            assert compiled() == 1
    with monkeypatch.context() as patch:
        patch.setattr(engine_module.llvm, "llvm_version_info", (99, 0))
        assert compiled() == 1


def test_a_corrupt_entry_is_compiled_again(folder: Path) -> None:
    text = {"k": scale("k", 2.0)}
    Engine().load(text, HOST)
    (entry,) = folder.rglob("*.gco")
    entry.write_bytes(entry.read_bytes()[:-1])
    for expected in ((1, 0, 0), (0, 1, 0)):
        e = Engine()
        assert at(e.load(text, HOST)["k"])(1.0) == 2.0
        assert did(e) == expected


def test_a_whole_entry_that_is_no_object_is_compiled_again() -> None:
    text = {"k": scale("k", 2.0), "k_b": scale("k_b", 3.0)}
    key = engine_module._key(text["k"], engine_module._compiler(HOST))
    store = caching.current()
    assert store is not None
    for content in (b"no object", b"", b"\x7fELF" + bytes(2000)):
        store.put(key, content)
        assert at(Engine().load(text, HOST)["k"])(1.0) == 2.0
        assert store.get(key) not in (None, content)


def test_without_a_cache_on_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {"k": scale("k", 2.0)}
    with gc.config(cache_size=0):
        for _ in range(2):
            e = Engine()
            assert at(e.load(text, HOST)["k"])(1.0) == 2.0 and did(e) == (1, 0, 0)
    assert not folder.exists()
    tmp_path.joinpath("file").write_text("mine")
    monkeypatch.setattr(caching, "_warned", set())
    with gc.config(cache_dir=tmp_path / "file"), pytest.warns(UserWarning, match="is not a folder") as said:
        assert at(Engine().load(text, HOST)["k"])(1.0) == 2.0
        assert at(Engine().load({f"k_{i}": scale(f"k_{i}", float(i)) for i in range(6)}, HOST)["k_3"])(1.0) == 3.0
    assert [w.filename for w in said] == [__file__]


def test_llvmlite_with_another_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapper:  # no _cfn
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __call__(self, *args: Any) -> Any:
            return self.inner(*args)

    lib = engine_module.llvm.ffi.lib
    monkeypatch.setitem(lib._fntab, "LLVMPY_TargetMachineEmitToMemory", Wrapper(lib.LLVMPY_TargetMachineEmitToMemory))
    assert at(Engine().load({"k": scale("k", 4.0)}, HOST)["k"])(1.0) == 4.0


def test_several_workers_make_what_one_makes(folder: Path) -> None:
    texts = {f"k_{i}": scale(f"k_{i}", float(i)) for i in range(12)}
    made = []
    for threads in (1, 4):
        with gc.config(threads=threads, cache_dir=folder / str(threads)):
            e = Engine()
            found = e.load(texts, HOST)
            assert [at(found[f"k_{i}"])(1.0) for i in range(12)] == [float(i) for i in range(12)]
        made.append({f.name: f.read_bytes() for f in (folder / str(threads)).rglob("*.gco")})
    assert made[0] == made[1] and len(made[0]) == 12


def test_ctrl_c_between_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"k_{i}": scale(f"k_{i}", float(i)) for i in range(8)}
    real, done = engine_module._compiled, []

    def interrupted(job: Any, *rest: Any) -> bytes:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job.symbol)
        return real(job, *rest)

    e = Engine()
    with monkeypatch.context() as patch, gc.config(threads=1), pytest.raises(KeyboardInterrupt):
        patch.setattr(engine_module, "_compiled", interrupted)
        e.load(texts, HOST)
    assert done == ["k_0", "k_1"]
    found = e.load(texts, HOST)
    assert [at(found[f"k_{i}"])(1.0) for i in range(8)] == [float(i) for i in range(8)]
    assert did(e) == (6, 0, 2)
    other = Engine()
    other.load(texts, HOST)
    assert did(other) == (0, 8, 0)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signal.setitimer")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ctrl-C inside a callback of the collector
def test_ctrl_c_at_any_time() -> None:
    """In the end all is there and right, however often and wherever the work was stopped."""
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    random, stopped = Random(0), 0
    e = Engine()
    try:
        for n in range(20):
            texts = {f"k_{i}": scale(f"k_{i}", 100.0 * n + i) for i in range(4)}
            found: dict[str, int] = {}
            while not found:
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 0.02))
                    found = e.load(texts, HOST)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except KeyboardInterrupt:
                    stopped += 1
            assert [at(found[f"k_{i}"])(1.0) for i in range(4)] == [100.0 * n + i for i in range(4)]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert stopped


def test_threads_at_once() -> None:
    e = Engine()
    found: list[dict[str, int]] = []
    barrier = threading.Barrier(4)

    def work(start: int) -> None:
        barrier.wait()
        for i in range(10):
            n = (start + i) % 10
            found.append(e.load({f"k_{n}": scale(f"k_{n}", float(n))}, HOST))

    threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40 and len({address for f in found for address in f.values()}) == 10
    assert e.statistics.from_memory + e.statistics.from_disk + e.statistics.compiled == 40


def in_child(work: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 1)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@posix
def test_fork_then_load() -> None:
    e = Engine()
    old = e.load({"k_old": scale("k_old", 2.0)}, HOST)

    def child() -> bool:
        new = e.load({"k_new": scale("k_new", 3.0), "k_old": scale("k_old", 2.0)}, HOST)
        return new["k_old"] == old["k_old"] and at(new["k_old"])(1.0) == 2.0 and at(new["k_new"])(1.0) == 3.0

    assert in_child(child)
    assert at(e.load({"k_new": scale("k_new", 3.0)}, HOST)["k_new"])(1.0) == 3.0
    assert e.statistics.from_disk == 1  # the child's


@posix
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12: threads are there, which is the point
def test_fork_while_another_thread_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    e = Engine()
    inside = threading.Event()
    real = engine_module._compiled

    def announced(*args: Any) -> bytes:
        inside.set()
        return real(*args)

    monkeypatch.setattr(engine_module, "_compiled", announced)
    texts = {f"k_{i}": scale(f"k_{i}", float(i)) for i in range(20)}
    compiling = threading.Thread(target=e.load, args=(texts, HOST))
    compiling.start()
    assert inside.wait(20)
    assert in_child(lambda: at(e.load({"k_new": scale("k_new", 3.0)}, HOST)["k_new"])(1.0) == 3.0)
    compiling.join()
    assert at(e.load(texts, HOST)["k_7"])(1.0) == 7.0


SECOND = """if True:
    import sys
    import graphc as gc
    from graphc.backends.llvm.engine import _engines, engine
    assert not _engines, "import graphc starts LLVM"
    from graphc.backends.llvm.target import host
    e = engine()
    assert engine() is e
    address = e.load({"k": sys.argv[1], "k_b": sys.argv[2]}, host())
    import ctypes
    print(ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address["k"])(1.5), *e.statistics[:3])
"""


def test_a_second_process_starts_warm(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GRAPHC_CACHE_DIR": str(folder)}
    shown = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", SECOND, scale("k", 2.0), scale("k_b", 3.0)], env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        shown.append(run.stdout.split())
    assert shown == [["3.0", "2", "0", "0"], ["3.0", "0", "2", "0"]]


def test_one_engine_per_process() -> None:
    made: list[Engine] = []
    threads = [threading.Thread(target=lambda: made.append(engine())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(map(id, made)) == {id(engine())}
    assert Statistics() == Statistics(0, 0, 0, 0.0)


def test_assembly() -> None:
    e = Engine()
    shown = e.assembly(scale("k", 2.0), HOST)
    assert "k:" in shown and "ret" in shown
    arm = Target("aarch64-unknown-linux-gnu", "generic", frozenset({"neon"}), 128)
    triple = 'target triple = "aarch64-unknown-linux-gnu"\n'
    if HOST.x86:  # another processor's, which cannot be loaded here
        assert "fmul\td0" in e.assembly(triple + scale("k", 3.0), arm) or "fmul d0" in e.assembly(triple + scale("k", 3.0), arm)
