"""Kernels written in tiles: the same bits as NumPy, over sizes around the number of lanes, dtypes, targets, layouts."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import dims
from graphc.backends.llvm import kernels, runner, tiles
from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.target import Target, host
from graphc.backends.llvm.transposing import transposed
from graphc.backends.llvm.values import Body, Module
from graphc.ir import Array
from graphc.kernel import Kernel

pytest.importorskip("llvmlite")

TARGETS = {"host": host(), "avx2": host().without("avx512f"), "sse2": host().without("avx2")}
LLVM = gc.Mode(backend="llvm")
RNG = np.random.default_rng(3)


@pytest.fixture(params=TARGETS)
def target(request: Any, monkeypatch: Any) -> Target:
    """Functions of the test are compiled for this one."""
    found = TARGETS[request.param]
    monkeypatch.setattr(runner, "host", lambda: found)
    return found


@pytest.fixture
def tiled(monkeypatch: Any) -> list[Kernel]:
    """The kernels that were written in tiles."""
    found: list[Kernel] = []
    emit = tiles.emit

    def seen(e: kernels.Emitter, crossing: tiles.Crossing) -> kernels.Code:
        found.append(e.kernel)
        return emit(e, crossing)

    monkeypatch.setattr(kernels.tiles, "emit", seen)
    return found


def data(shape: tuple[int, ...], dtype: str = "float32") -> Array:
    if dtype == "bool":
        return RNG.random(shape) < 0.5
    return (RNG.standard_normal(shape) * 50).astype(dtype)


def compiled(g: Callable[..., Any], *inputs: str, **known: int) -> gc.Function:
    """``g`` compiled for inputs such as "ab int8": axes and dtype; the sizes of some axes may be known."""
    axes = {letter: known.get(letter) or gc.dim(letter) for letter in "abcd"} | known
    xs = [gc.tensor(name, shape=tuple(axes[r] for r in letters), dtype=dtype)
          for name, (letters, dtype) in zip("xyz", map(str.split, inputs), strict=False)]
    return gc.function(xs, g(*xs), mode=LLVM, on_unused_input="ignore")


def same(found: Any, want: Any) -> None:
    found = np.asarray(found)
    assert found.dtype == want.dtype and found.shape == want.shape
    np.testing.assert_array_equal(found, want)


# ---- transposition in registers -----------------------------------------------------------------


@pytest.mark.parametrize(("w", "kind"), list(product((2, 4, 8, 16, 32), ("i8", "i16", "f32", "f64"))))
def test_shuffles_transpose(w: int, kind: str) -> None:
    """Each shuffle is followed by its text."""
    f = Body(Module(host()), "t", [])
    known = {f"%row{r}": [(r, c) for c in range(w)] for r in range(w)}
    columns = transposed(f.value(f"%row{r}", kind, w) for r in range(w))
    for line in f.lines:
        name, _, text = line.strip().partition(" = shufflevector ")
        a, b = (part.split("> ")[1] for part in text.split(", <")[:2])
        lanes = [int(i.removeprefix("i32 ")) for i in text[text.rindex("<") + 1:-1].split(", ")]
        known[name] = [(known[a] + known[b.split(",")[0]])[i] for i in lanes]
    assert [known[x.ref] for x in columns] == [[(r, c) for r in range(w)] for c in range(w)]


# ---- whole kernels ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "bool", "float16", "int16", "float32", "float64"])
def test_sizes_around_the_lanes(dtype: str, target: Target, tiled: list[Kernel]) -> None:
    f = compiled(lambda x: x.T, f"ab {dtype}")
    assert tiled
    w = target.bits // 8 // max(1, np.dtype(dtype).itemsize if dtype != "float16" else 4)
    sizes = (0, 1, w - 1, w, w + 1, 2 * w + 3)
    for shape in product(sizes, sizes):
        x = data(shape, dtype)
        same(f(x), x.T)


@pytest.mark.parametrize("shape", [(3, 5), (3, 40), (40, 3), (16, 32)])
def test_sizes_that_are_known(shape: tuple[int, int], target: Target) -> None:
    for dtype in ("int8", "float32"):
        x, z = data((2, *shape), dtype), data((2, *shape[::-1]), dtype)
        turned = x.transpose(0, 2, 1)
        f = compiled(lambda x, z: (x.transpose((0, 2, 1)) + z, x.transpose((0, 2, 1))), f"cab {dtype}", f"cba {dtype}", a=shape[0], b=shape[1])
        found = f(x, z)
        for a, b in zip(found, (turned + z, turned), strict=True):
            same(a, b)


def test_none() -> None:
    x = data((0, 4))
    same(compiled(lambda x: x.T * 2, "ab float32", a=0, b=4)(x), x.T * 2)


MIXED: dict[str, Callable[..., Any]] = {
    "two crossing": lambda x, y, z: x.T * 2 + y - z.T,
    "both stores": lambda x, y, z: (x.T + y, y.T * 2 + z),
    "crossing store alone": lambda x, y, z: x.T + z.T,
    "broadcast": lambda x, y, z: x.T + y[0] - y[:, :1],
    "other dtypes": lambda x, y, z: (x.T.astype("float64") + y.astype("float64"), x.T > y),
    "reversed": lambda x, y, z: x[:, ::-1].T + y,
    "reversed in rows": lambda x, y, z: x[::-1].T - y,
    "both reversed": lambda x, y, z: x[::-1, ::-1].T + y[::-1],
    "every other": lambda x, y, z: x[:, ::2].T + y[::2],
    "positions": lambda x, y, z: x.T + y * (y > 0) + (x.T > 1),
    "long body": lambda x, y, z: (x.T / (1 + y * y) + y / (1 + x.T * x.T)) / (2 + y * y) - z.T / (3 + y * y),
}


@pytest.mark.parametrize("name", MIXED)
def test_mixed_operands(name: str, target: Target, tiled: list[Kernel]) -> None:
    g = MIXED[name]
    f = compiled(g, "ab float32", "ba float32", "ab float32")
    assert bool(tiled) == (name != "every other")
    for m, n in ((1, 1), (5, 33), (16, 16), (21, 35), (40, 7)):
        x, y, z = data((m, n)), data((n, m)), data((m, n))
        found, want = f(x, y, z), g(x, y, z)
        for p, q in zip(found, want, strict=True) if isinstance(want, tuple) else ((found, want),):
            same(p, q)


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_axes(axes: tuple[int, int, int], target: Target) -> None:
    f = compiled(lambda x: x.transpose(axes) * 2, "abc float32")
    for shape in ((1, 1, 1), (3, 17, 20), (33, 18, 2), (0, 3, 4)):
        x = data(shape)
        same(f(x), x.transpose(axes) * 2)


def test_four_axes_and_bytes(target: Target) -> None:
    for dtype, orders in (("int8", ((0, 2, 3, 1), (3, 2, 1, 0))), ("float64", ((2, 3, 0, 1), (1, 3, 0, 2)))):
        x = data((2, 5, 3, 67), dtype)
        for axes in orders:
            same(compiled(lambda x, axes=axes: x.transpose(axes), f"abcd {dtype}")(x), x.transpose(axes))


@pytest.mark.parametrize(("dtype", "threads"), [("int8", 1), ("float32", 1), ("float32", 2), ("float64", 2)])
def test_large(dtype: str, threads: int, monkeypatch: Any) -> None:
    """With prefetching, tiles that begin at lines, and stores past the cache, on both sides of each decision."""
    monkeypatch.setattr(tiles, "PAST_CACHE", 1 << 19)
    item = np.dtype(dtype).itemsize
    with gc.config(threads=threads):
        f = compiled(lambda x, y: (x.T + y, x.T), f"ab {dtype}", f"ba {dtype}")
        h = compiled(lambda x: x.T, f"ab {dtype}")
        for m, n in ((1024, 1024), (1024 + 64 // item, 1000), (1030, 1024), (1031, 1037)):
            for at in (0, 1):
                x = data((m * n + at,), dtype)[at:].reshape(m, n)
                y = data((n, m), dtype)
                total, turned = f(x, y)
                same(total, x.T + y)
                same(turned, x.T)
                same(h(x), x.T)
        p = compiled(lambda x: x.transpose((2, 0, 1)) + 1, f"abc {dtype}")
        x = data((70, 66, 130), dtype)
        same(p(x), x.transpose(2, 0, 1) + np.ones((), dtype))


def test_chunks_give_the_same(target: Target) -> None:
    x, y = data((257, 700)), data((700, 257))
    found = []
    for threads in (1, 2):
        with gc.config(threads=threads):
            f = compiled(lambda x, y: (x.T * 3 + y, x + y.T), "ab float32", "ba float32")
            found.append(f(x, y))
    for a, b, want in zip(*found, (x.T * 3 + y, x + y.T), strict=True):
        same(a, want)
        same(b, want)


class Called:
    """The kernel of ``x.T * 2 + y``, called with addresses; ``in_place``: it writes y."""

    def __init__(self, target: Target, tiled: list[Kernel], in_place: bool) -> None:
        compiled(lambda x, y: x.T * 2 + y, "ab float32", "ba float32")
        kernel, = tiled
        x, y, out = (next(n for n, o in enumerate(kernel.operands) if o.name.startswith(name)) for name in ("x0", "x1", "y"))
        if in_place:
            kernel = replace(kernel, operands=tuple(o._replace(alias=y) if n == out else o for n, o in enumerate(kernel.operands)))
        self.order = [{x: 0, y: 1, out: 2}[n] for n in range(3)]
        self.code = kernels.emit_kernel(kernel, target, f"k_called_{in_place}")
        assert not self.code.scratch and not self.code.finish_text
        address = engine().load({self.code.name: self.code.text}, target)[self.code.name]
        self.run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
        self.symbols = [kernel.ranges[r].extent.symbol for r in kernel.grid]

    def __call__(self, shape: tuple[int, int], blocks: int, *addresses: int) -> None:
        env = dict(zip(self.symbols, shape, strict=True))
        rows = blocks * self.code.block
        context = np.array([*(addresses[n] for n in self.order), 0, rows, *(dims.evaluate(size, env) for size in self.code.sizes)], np.int64)
        for chunk in range(-(-shape[0] // rows)):
            self.run(context.ctypes.data, chunk)


@pytest.mark.parametrize("blocks", [1, 3, 1000])
def test_in_place_in_chunks(blocks: int, target: Target, tiled: list[Kernel]) -> None:
    """What is written where it was read is computed once, whatever the chunks."""
    call = Called(target, tiled, in_place=True)
    for shape in ((1, 1), (5, 40), (37, 21), (64, 64), (600, 530)):
        x, y = np.round(data(shape[::-1])), np.round(data(shape))
        want = x.T * 2 + y
        call(shape, blocks, x.ctypes.data, y.ctypes.data, y.ctypes.data)
        same(y, want)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mprotect as Linux has it")
def test_nothing_outside_is_touched(target: Target, tiled: list[Kernel]) -> None:
    """Arrays that begin or end where memory does."""
    call = Called(target, tiled, in_place=False)
    page, room = mmap.PAGESIZE, 8 * mmap.PAGESIZE
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    memory = np.frombuffer(mmap.mmap(-1, 4 * page + 3 * room), np.uint8)
    starts = [page + n * (room + page) for n in range(3)]
    for start in (0, *(start + room for start in starts)):
        assert protect(memory.ctypes.data + start, page, 0) == 0  # PROT_NONE
    for shape in ((1, 1), (5, 40), (16, 17), (40, 33), (37, 64)):
        for end in (False, True):
            x, y, out = (memory[(at := start + end * (room - 4 * shape[0] * shape[1])):at + 4 * shape[0] * shape[1]].view(np.float32) for start in starts)
            x[:], y[:] = data((x.size,)), data((x.size,))
            call(shape, 1, x.ctypes.data, y.ctypes.data, out.ctypes.data)
            same(out.reshape(shape), x.reshape(shape[::-1]).T * 2 + y.reshape(shape))


def test_suits_only_maps(tiled: list[Kernel]) -> None:
    x, y = data((30, 40)), data((40, 30))
    same(compiled(lambda x: x * 2, "ab float32")(x), x * 2)
    compiled(lambda x, y: (x.T * y).sum(axis=1), "ab float32", "ba float32")(x, y)
    assert not tiled
