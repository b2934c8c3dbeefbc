"""Looking at compiled functions: ``f.profile``, ``f.cost``, the limits of the machine."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import profiling
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.limits import CHAINS, Limits, limits, multiply_adds, triad
from graphc.backends.llvm.target import host
from graphc.backends.llvm.values import BITS
from graphc.cli import main
from graphc.errors import GraphcIndexError, GraphcTypeError, GraphcValueError, NaNError
from graphc.profiling import Profile, Row

ROOT = Path(__file__).resolve().parent.parent
RNG = np.random.default_rng(5)
X = RNG.standard_normal((50, 8)).astype("float32")
N, M = gc.dim("n"), gc.dim("m")


def matrix(name: str = "x") -> Any:
    return gc.tensor(name, shape=(N, M), dtype="float32")


def names(profile: Profile) -> list[str]:
    return [row.name for row in profile.rows]


def by_kind(profile: Profile, kind: str) -> Row:
    row, = (row for row in profile.rows if row.kind == kind)
    return row


def layer(profile: bool) -> Any:
    """A product, kernels, an op that runs in Python, state."""
    x, w = matrix(), gc.shared(np.ones((8, 4), "float32"), "w")
    h = gc.tanh(x @ w)
    return gc.function([x], [h.sum(axis=0), gc.nextafter(h, h)], updates={w: w * 2}, profile=profile)


# ---- profiles


def test_a_profile_says_what_each_kernel_took() -> None:
    f, plain = layer(True), layer(False)
    for _ in range(3):
        for a, b in zip(f(X), plain(X), strict=True):
            np.testing.assert_array_equal(a, b)
    profile = f.profile
    rows = profile.rows
    assert profile.calls == 3 and plain.profile is None
    assert {row.kind for row in rows} == {"kernel", "product", "call"} and all(row.calls == 3 and row.seconds > 0 for row in rows)
    assert [row.seconds for row in rows] == sorted((row.seconds for row in rows), reverse=True)
    assert sum(row.share for row in rows) + profile.overhead / profile.seconds == pytest.approx(1.0)
    product = by_kind(profile, "product")
    assert (product.sizes, product.flops, product.moved) == ("50 x 8 x 4", 3 * 2 * 50 * 8 * 4, 3 * 4 * (50 * 8 + 8 * 4 + 50 * 4))
    assert product.speed == product.flops / product.seconds and product.bandwidth == product.moved / product.seconds
    assert product.of_peak is not None and product.of_peak > 0 and product.of_bandwidth is not None and product.of_bandwidth > 0
    assert by_kind(profile, "call").name == "nextafter"


def test_the_table() -> None:
    f = layer(True)
    assert str(f.profile) == "no calls"
    f(X)
    lines = str(f.profile).splitlines()
    assert lines[0].startswith("1 call, ") and "outside of kernels" in lines[0] and "limits of this machine" in lines[1]
    assert lines[3].split()[:4] == ["share", "per", "call", "calls"]
    row, = (line for line in lines if "matmul" in line)
    assert "50 x 8 x 4" in row and "test_cost_profile.py:" in row and row.endswith("h = gc.tanh(x @ w)")
    assert "nextafter (Python)" in str(f.profile) and "1 calls" in repr(f.profile)
    f.profile.reset()
    assert str(f.profile) == "no calls" and f.profile.rows == []


def test_without_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where llvmlite is missing."""
    monkeypatch.setattr(profiling, "machine_limits", lambda: None)
    x = gc.vector("x")
    f = gc.function([x], gc.exp(x), mode="FAST_COMPILE", profile=True)
    f([1.0, 2.0])
    assert "limits" not in str(f.profile) and "exp" in str(f.profile) and all(row.of_peak is None for row in f.profile.rows)


def test_many_rows_are_cut() -> None:
    x = gc.vector("x")
    y = x
    for _ in range(45):
        y = gc.cumsum(y)
    f = gc.function([x], y, profile=True)
    f([1.0, 2.0])
    assert len(f.profile.rows) >= 45 and str(f.profile).splitlines()[-1].startswith(f"and {len(f.profile.rows) - 40} more, ")


def test_only_the_driver_differs() -> None:
    f, plain = layer(True), layer(False)
    timed, native = f._compiled.runner.native, plain._compiled.runner.native
    assert "clock_gettime" in timed.texts[timed.name] and "clock" not in native.texts[native.name]
    assert set(timed.texts) - {timed.name} == set(native.texts) - {native.name}


def test_sizes_that_change() -> None:
    x = matrix()
    f = gc.function([x], gc.exp(x) * 2, profile=True)
    f(X)
    assert f.profile.rows[0].sizes in ("400", "50 x 8")
    f(X[:7])
    row, = f.profile.rows
    assert "n" in row.sizes and row.calls == 2 and row.moved == 8 * (400 + 56) and row.flops == 11 * (400 + 56)


def test_sizes_that_are_not_as_assumed() -> None:
    x, y = gc.matrix("x"), gc.matrix("y")
    f = gc.function([x, y], gc.exp(x + y).sum(), profile=True)
    f(np.ones((3, 4)), np.ones((3, 4)))
    assert not any("general" in name for name in names(f.profile))
    f(np.ones((3, 4)), np.ones((1, 4)))
    f(np.ones((3, 4)), np.ones((1, 4)))
    calls = {"(general)" in row.name: row.calls for row in f.profile.rows}
    assert calls == {False: 1, True: 2} and f.profile.calls == 3
    assert f.profile.rows[0].moved > 0 and "(general)" in str(f.profile)
    f.profile.reset()
    assert f.profile.rows == []


def test_several_threads_at_once() -> None:
    x = matrix()
    f = gc.function([x], [gc.exp(x).sum(axis=1), gc.cumsum(x, axis=0)], profile=True)
    want = f(X)
    wrong = []

    def work() -> None:
        for _ in range(50):
            if any(not np.array_equal(a, b) for a, b in zip(f(X), want, strict=True)):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong and f.profile.calls == 201
    assert all(row.calls == 201 and 0 < row.seconds < f.profile.seconds for row in f.profile.rows)


def test_calls_with_wrong_data() -> None:
    x, i = gc.vector("x"), gc.tensor("i", shape=("k",), dtype="int64")
    f = gc.function([x, i], x[i] + 1, profile=True)
    f([1.0, 2.0], [1, 0])
    with pytest.raises(GraphcIndexError):
        f([1.0, 2.0], [5])
    with pytest.raises(GraphcTypeError):
        f([[1.0]], [0])
    assert f.profile.calls == 3 and max(row.calls for row in f.profile.rows) == 1
    assert all(row.seconds >= 0 for row in f.profile.rows)


def test_a_careful_call_has_a_row() -> None:
    x = matrix()
    f = gc.function([x], x.max(axis=0), profile=True)
    f(X)
    with pytest.raises(GraphcValueError):
        f(X[:0])
    row = by_kind(f.profile, "careful")
    assert row.calls == 1 and row.seconds > 0 and row.name in str(f.profile)
    assert {r.calls for r in f.profile.rows} == {1} and by_kind(f.profile, "kernel").moved == 4 * (400 + 8)


@pytest.mark.parametrize("mode", ["FAST_COMPILE", gc.Mode(backend="numpy"), gc.Mode(backend="reference"), "DEBUG", gc.Mode(backend="numpy", debug=True)])
def test_other_backends(mode: Any) -> None:
    x, y = gc.tensor("x", shape=("n", 8), dtype="float32"), gc.vector("y", dtype="float32")
    f = gc.function([x, y], gc.exp(x + y).sum(axis=1), profile=True, mode=mode)
    want = np.exp(X + X[0]).sum(axis=1)
    for _ in range(2):
        np.testing.assert_allclose(f(X, X[0]), want, rtol=1e-5)
    profile = f.profile
    assert profile.calls == 2 and profile.rows and all(row.calls == 2 for row in profile.rows)
    assert sum(row.share for row in profile.rows) + profile.overhead / profile.seconds == pytest.approx(1.0)
    assert any(row.flops >= 2 * 10 * 400 and row.moved > 0 for row in profile.rows) and "per call" in str(profile)
    profile.reset()
    assert profile.rows == []


def test_sizes_that_a_node_finds_out() -> None:
    x = gc.vector("x")
    f = gc.function([x], gc.exp(x[x > 0]).sum(), profile=True)
    assert f([1.0, -1.0]) == pytest.approx(np.e)
    f([1.0, 1.0, 1.0])
    assert len(f.profile.rows) > 1 and "per call" in str(f.profile)


def test_nan_is_still_looked_for() -> None:
    x = gc.vector("x")
    f = gc.function([x], gc.log(x), profile=True, mode=gc.Mode(check_nan=True))
    with pytest.raises(NaNError):
        f([-1.0])
    assert f.profile.calls == 1


def test_copies_and_pickles_have_profiles_of_their_own() -> None:
    f = layer(True)
    f(X)
    for other in (f.copy(), pickle.loads(pickle.dumps(f))):
        assert other.profile.calls == 0
        other(X)
        assert other.profile.calls == 1 and f.profile.calls == 1


def test_the_setting() -> None:
    x = gc.vector("x")
    with gc.config(profile=True):
        f = gc.function([x], x + 1)
    f([1.0])
    assert f.profile.calls == 1


# ---- costs


def test_costs_are_formulas() -> None:
    x, y = matrix(), matrix("y")
    f = gc.function([x, y], x + y * 2)
    assert f.cost() == {"flops": 2 * N * M, "bytes": 12 * N * M, "peak_bytes": 4 * N * M}
    assert f.cost({"n": 10}) == {"flops": 20 * M, "bytes": 120 * M, "peak_bytes": 40 * M}
    assert f.cost({"n": 10, "m": 3}) == {"flops": 60, "bytes": 360, "peak_bytes": 120}
    assert f.cost({"y": (10, 3)}) == f.cost({"n": 10, "m": 3}) == f.cost({"n": 10, "x": (10, 3)})


@pytest.mark.parametrize(("build", "flops", "moved"), [
    (lambda x: x @ x.T, 2 * N * N * M, 8 * N * M + 4 * N * N),
    (lambda x: x.sum(axis=1), N * M, 4 * N * M + 4 * N),
    (lambda x: gc.exp(x) / 2, 10 * N * M + N * M, 8 * N * M),
    (lambda x: x.T + 1, N * M, 8 * N * M),
], ids=["product", "sum", "exp", "transposed"])
def test_what_is_counted(build: Any, flops: Any, moved: Any) -> None:
    x = matrix()
    found = gc.function([x], build(x)).cost({"n": 40, "m": 30})
    want = [gc.dims.evaluate(size, {N.symbol: 40, M.symbol: 30}) for size in (flops, moved)]
    assert found["flops"] == pytest.approx(want[0], rel=0.35)  # a division may count as 4, a product with 1/2 as 1
    assert found["bytes"] == pytest.approx(want[1], rel=0.05)


def test_a_part_of_an_array_is_not_all_of_it() -> None:
    x = matrix()
    assert gc.function([x], x[:10, :10] * 2).cost({"n": 1000, "m": 1000})["bytes"] == 800


def test_costs_of_calls_that_are_not_as_assumed() -> None:
    x, y = gc.matrix("x"), gc.matrix("y")
    f = gc.function([x, y], (x + y).sum(axis=0))
    assert f.cost({"x": (100, 10)})["bytes"] == f.cost({"x": (100, 10), "y": (100, 10)})["bytes"] == 8 * 2010
    assert f.cost({"x": (100, 10), "y": (1, 10)})["bytes"] == 8 * 1020


def test_costs_on_other_backends() -> None:
    x = matrix()
    f = gc.function([x], gc.exp(x) + 1, mode="FAST_COMPILE")
    assert f.cost({"n": 2})["flops"] == 22 * M
    assert gc.function([x], x + 1, mode=gc.Mode(backend="reference")).cost({"n": 2, "m": 3})["bytes"] > 0


@pytest.mark.parametrize(("sizes", "message"), [
    ({"k": 3}, "the dims are: m, n; the variables are: x"),
    ({"x": 3}, "neither the size of a dim nor the shape"),
    ({"x": (3,)}, "has rank 2"),
    ({"n": 4, "x": (3, 3)}, "cannot have the shape"),
])
def test_sizes_that_cannot_be(sizes: Any, message: str) -> None:
    x = matrix()
    with pytest.raises(GraphcValueError, match=message):
        gc.function([x], x + 1).cost(sizes)


MEASURE = textwrap.dedent("""
    import gc as garbage, os, sys
    import numpy as np
    import graphc as gc

    def status(key):
        with open("/proc/self/status") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

    def several(x):
        h = gc.exp(x - x.sum(axis=0))
        return [(h / h.sum(axis=0)) @ x[:8].T, h.sum()], None

    def called(x):
        return [gc.exp(gc.nextafter(gc.sin(x) * 2, x)).sum(axis=0)], None

    def stateful(x):
        w = gc.shared(np.ones((3, 4), "float32"), "w", shape=(None, None))
        return [x.T.mean()], w

    def measured(build, threads):
        x = gc.tensor("x", shape=("n", "m"), dtype="float32")
        outputs, w = build(x)
        f = gc.function([x], outputs, updates={w: w * 2 + x} if w is not None else None, threads=threads)
        f(np.ones((3, 4), "float32"))
        n, m = 1000, 9000
        a = np.ones((n, m), "float32")
        if w is not None:
            w.set_value(np.ones((n, m), "float32"))
        garbage.collect()
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")  # the peak begins again
        before = status("VmRSS")
        results = f(a)
        return status("VmHWM") - before, f.cost({"n": n, "m": m, **({"w": (n, m)} if w is not None else {})})["peak_bytes"]

    for build in (several, called, stateful):
        for threads in (1, 2):
            child = os.fork()  # so that no measurement finds the memory of the one before
            if child == 0:
                print(build.__name__, threads, *measured(build, threads), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
""")


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_peak_bytes_are_what_the_process_uses() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, env=env)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 6, done.stdout + done.stderr
    for name, threads, used, want in lines:
        assert int(want) > 30e6 and abs(int(used) - int(want)) < 0.02 * int(want) + 2e6, f"{name} on {threads} threads: {used} bytes used, {want} said"


# ---- the machine


def test_limits() -> None:
    found = limits()
    assert found is limits() and found.threads >= 1
    assert all(0 < v for v in (*found.memory, *found.arithmetic["f32"], *found.arithmetic["f64"]))


def test_limits_between_one_thread_and_all() -> None:
    found = Limits(4, (10.0, 25.0), {"f32": (1.0, 4.0)})
    assert [found.bandwidth(n) for n in (0, 1, 2, 3, 4, 8)] == [10, 10, 20, 25, 25, 25]
    assert [found.flops("f32", n) for n in (1, 2, 4)] == [1, 2, 4]


@pytest.mark.parametrize("removed", [(), ("avx512f",), ("avx2",)], ids=["host", "no avx512", "no avx2"])
def test_what_measures_the_limits_is_right(removed: tuple[str, ...]) -> None:
    target = host().without(*removed) if removed else host()
    b, c, a = RNG.standard_normal(1003), RNG.standard_normal(1003), np.zeros(1003)
    for threads in (1, 2):
        a[:] = 0
        triad(target, [b, c, a])(threads)
        np.testing.assert_array_equal(a, b + 3 * c)
    for kind, dtype in (("f32", np.float32), ("f64", np.float64)):
        out = np.zeros(32, dtype)
        task = engine().load({f"peak_{kind}": multiply_adds(target, kind)}, target)[f"peak_{kind}"]
        ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(task)(out.ctypes.data, 1)
        lanes, first = target.bits // BITS[kind], 64 // out.itemsize
        np.testing.assert_allclose(out[first:first + lanes], 2.0 * CHAINS)
        assert not out[:first].any() and not out[first + lanes:].any()


def test_doctor_measures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "GB/s" not in capsys.readouterr().out
    assert main(["doctor", "--measure"]) == 0
    shown = capsys.readouterr().out
    assert "GB/s on 1 thread" in shown and "arithmetic, float64" in shown


# ---- compiling


def test_threads_of_a_function() -> None:
    x = gc.vector("x")
    assert gc.function([x], x + 1, threads=1)._compiled.runner.threads == 1
    assert gc.function([x], x + 1)._compiled.runner.threads is None
    for bad in (-1, 1.5, True, "two"):
        with pytest.raises(GraphcValueError, match="threads"):
            gc.function([x], x + 1, threads=bad)  # type: ignore[arg-type]


def test_machine_code_is_counted() -> None:
    f, again = layer(False), layer(False)
    assert sum(f.machine_code.values()) == len(f._compiled.runner.native.texts)
    assert again.machine_code == {"compiled": 0, "from disk": 0, "from memory": sum(f.machine_code.values())}
    assert f.compile_seconds["machine code"] > 0 and f.compile_seconds["backend"] >= 0
    x = gc.vector("x")
    assert gc.function([x], x, mode="FAST_COMPILE").machine_code == {}
