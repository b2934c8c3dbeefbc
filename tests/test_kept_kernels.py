"""Kernels of convolutions that stay: laid out once per change (passes/keep.py), and read as they lie (backends/llvm/contracted.py)."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from native_checks import paged
from test_contractions import SMALL
from test_products import DTYPES

import graphc as gc
from graphc import backends
from graphc.backends import Options
from graphc.backends.llvm import blocked, contracting, costs
from graphc.kept import KeptState
from graphc.ops.convolution import conv, conv_input
from graphc.passes import keep

REFERENCE, PLAIN = gc.Mode(backend="reference"), gc.Mode(exclude=["keep"])
FORMS: Any = backends.load("llvm")
WIDTH = {dtype: FORMS.panels(np.dtype(dtype), Options())[1] for dtype in ("float32", "float64")}


def numbers(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(DTYPES.get(dtype, dtype))


def kept(f: gc.Function) -> list[str | None]:
    return [s.name for s in f.graph.shared if isinstance(s, KeptState)]


def geometry(space: int, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1) -> Any:
    return {"strides": (stride,) * space, "padding": ((padding, padding),) * space, "dilations": (dilation,) * space, "groups": groups}


def in_use(x: Any, w: Any, turned: bool, sizes: tuple[int, ...], **how: Any) -> Any:
    """The convolution, or what gives the gradient of its image, of a kernel that stays."""
    g = geometry(x.type.ndim - 2, **how)
    return conv_input(w, x, sizes, g) if turned else conv(x, w, g)


# ---- values -----------------------------------------------------------------------------------------

#: batch, channels, out (0: a panel, -1: two), groups, space, window, stride, padding, dilation
CASES: list[tuple[int, int, int, int, tuple[int, ...], tuple[int, ...], int, int, int]] = [
    (1, 5, 0, 1, (5, 5), (3, 3), 1, 1, 1),
    (2, 3, -1, 1, (3, 4), (3, 2), 1, 0, 1),
    (3, 7, 0, 1, (2, 2), (3, 3), 1, 1, 1),
    (1, 6, 0, 1, (9, 7), (3, 3), 2, 1, 1),
    (1, 6, -1, 1, (9, 9), (3, 3), 1, 0, 2),
    (1, 4, 0, 1, (11,), (5,), 1, 2, 1),
    (2, 30, -1, 1, (9,), (3,), 2, 0, 1),
    (1, 3, 0, 1, (3, 3, 3), (2, 3, 2), 1, 1, 1),
    (1, 40, 33, 1, (7, 7), (3, 3), 1, 1, 1),
    (1, 40, 7, 1, (5, 5), (3, 3), 1, 1, 1),
    (1, 12, 64, 2, (5, 5), (3, 3), 1, 1, 1),
    (1, 8, 66, 1, (20, 21), (3, 3), 1, 1, 1),
    (4, 8, 66, 1, (20, 21), (3, 3), 2, 0, 1),
    (1, 40, 40, 40, (5, 5), (3, 3), 1, 1, 1),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int32"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values(case: Any, turned: bool, dtype: str) -> None:
    """Whole numbers, so that every order of the sums gives the same; before and after a change; in all blocks and pieces."""
    n, c, out, groups, space, window, stride, padding, dilation = case
    out = out if out > 0 else WIDTH.get(dtype, 64) * (1 - out)
    shape, (a, b) = (out, c // groups, *window), (c, out)
    how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    sizes = tuple((k - 1) * dilation + stride * (s - 1) + 1 - 2 * padding for s, k in zip(space, window, strict=True))
    w, x = gc.shared(numbers(*shape, dtype=dtype), "w"), gc.tensor("x", shape=(n, b if turned else a, *space), dtype=dtype)
    y = in_use(x, w, turned, sizes, **how)
    data = numbers(*x.type.shape, dtype=dtype, seed=1)
    with mock.patch.object(keep, "LEAST_BYTES", 1), gc.config(verify=True):
        fs = [gc.function([x], y)]
        with mock.patch.object(costs, "SERIAL_NS", 0), mock.patch.multiple(blocked, **SMALL), gc.config(cache_size=0):
            fs += [gc.function([x], y, threads=2)]
    oracle = gc.function([x], y, mode=REFERENCE)
    for change in range(2):
        for f in fs:
            np.testing.assert_array_equal(f(data), oracle(data))
        w.set_value(numbers(*shape, dtype=dtype, seed=change + 5))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("space", [(7, 7), (2, 2), (14, 13)])
def test_the_same_bits_as_without(space: tuple[int, ...], turned: bool, dtype: str) -> None:
    """And for any number of threads, units that are half a panel among them; inf and nan where they belong."""
    rng = np.random.default_rng(0)
    w = gc.shared(rng.normal(size=(WIDTH[dtype], WIDTH[dtype], 3, 3)).astype(dtype), "w")
    x = gc.tensor("x", shape=(1, WIDTH[dtype], *space), dtype=dtype)
    y, data = in_use(x, w, turned, space, padding=1), rng.normal(size=x.type.shape).astype(dtype)
    data[0, 3, 0, 1], data[0, 7, 1, 1], data[0, 1, 1, 0] = np.inf, np.nan, -0.0
    with mock.patch.object(costs, "SERIAL_NS", 0):
        want = gc.function([x], y, mode=PLAIN)(data)
        for threads in (1, 2, 3):
            f = gc.function([x], y, threads=threads)
            assert kept(f) == ["w_panels"]
            np.testing.assert_array_equal(f(data), want)


# ---- which are kept ---------------------------------------------------------------------------------


def made(space: Any = (5, 5), channels: int = 32, out: int = 0, window: tuple[int, ...] = (3, 3), batch: Any = 1, turned: bool = False, of: Any = lambda w: w,
         trained: bool = False, pooled: bool = False, **how: Any) -> list[str | None]:
    """What is kept of a function that convolves ``of`` a weight."""
    out = out or WIDTH["float32"]
    groups = how.get("groups", 1)
    w = gc.shared(numbers(out, channels // groups, *window), "w")
    x = gc.tensor("x", shape=(batch, out if turned else channels, *space), dtype="float32")
    y = in_use(x, of(w), turned, tuple(s * how.get("stride", 1) for s in space), **{"padding": window[0] // 2, **how})
    y = gc.nn.max_pool(gc.nn.relu(y + 1), 2) if pooled else y
    return kept(gc.function([x], y, updates={w: w * 0.5} if trained else {}))


def test_which_are_in_panels() -> None:
    assert made() == ["w_panels"] == made((2, 2)) == made((30, 30)) == made((1, 1), batch=3) == made((5,), window=(9,)) == made(stride=2, space=(10, 9))
    assert made(batch="n") == ["w_panels"] == made((30, 30), batch="n") == made((3, 3, 3), window=(2, 3, 1)) == made((30, 30), batch=2)
    assert made((30, 30), pooled=True) == ["w_panels"] == made((12, 12), batch=8, pooled=True)
    assert made(of=lambda w: w * gc.constant(np.float32(2))) == ["w_panels"]
    assert made(turned=True, channels=WIDTH["float32"]) == ["w_panels"]


def test_which_are_not_in_panels() -> None:
    """Channels that fill no panels; windows of one element; groups; one place; weights that change; few sums; what is swept with a pooling; few bytes."""
    assert not made(out=WIDTH["float32"] + 3) and not made(groups=2) and not made((1, 1)) and not made(trained=True) and not made(channels=2)
    assert not made((30, 30), channels=28) and made((15, 15), channels=28)
    assert not made((30, 30), batch=8, pooled=True) and not made((30, 30), batch="n", pooled=True)
    assert not made(channels=128, window=(1, 1)) and not made(of=lambda w: gc.constant(numbers(*w.type.shape)))


def test_kernels_that_are_turned_over() -> None:
    """Rows, where channels fill no panels."""
    many, flipped = {"space": (30, 30), "channels": 33, "turned": True}, {"out": 65, "space": (30, 30)}
    assert made(**many) == ["w_kept"] == made((30, 30), channels=32, turned=True, groups=2) == made((5, 5), channels=33, turned=True, batch="n")
    assert made(**flipped, of=lambda w: gc.flip(w, 1)) == ["w_kept"] == made(**flipped, of=lambda w: gc.transpose(gc.transpose(w, (2, 3, 1, 0)) * 2, (3, 2, 0, 1)))
    assert not made(**many, trained=True) and not made((30, 30), turned=True, channels=4)
    assert not made((30, 30), turned=True, window=(1, 1), channels=100) and not made(**flipped, of=lambda w: gc.flip(w, 1), window=(1, 1), channels=100)
    assert not made(**many, stride=2, window=(4, 4), padding=1)  # mostly zeros: products of places are added up
    assert not made((30, 30), turned=True, out=2048, groups=2048, channels=2048)  # depthwise: a loop


@pytest.mark.parametrize("out", [65, 0])
def test_a_folded_norm_is_computed_once(out: int) -> None:
    """w * scale of each channel, as rows and as panels."""
    out = out or WIDTH["float32"]
    w, s = gc.shared(numbers(out, 32, 3, 3), "w"), gc.shared(numbers(out, 1, 1, 1, seed=2), "s")
    x, data = gc.tensor("x", shape=("n", 32, 9, 9), dtype="float32"), numbers(2, 32, 9, 9, seed=1)
    y = gc.nn.conv(x, w * s, padding=1)
    f, g = gc.function([x], y), gc.function([x], y, mode=REFERENCE)
    assert kept(f) == ["w_s_kept" if out == 65 else "w_s_panels"]
    for change in range(3):
        for images in (2, 1, 0):
            np.testing.assert_array_equal(f(data[:images]), g(data[:images]))
        (w, s)[change % 2].set_value(numbers(*(w, s)[change % 2].type.shape, seed=change + 5))


# ---- state that changes ------------------------------------------------------------------------------


def layers(odd: int) -> tuple[gc.Function, gc.Function, Any, Any]:
    """A convolution and a transposed one with one kernel, and the same of the reference; ``odd``: channels that fill no panel."""
    width, n = WIDTH["float32"] + odd, 7
    w, x = gc.shared(numbers(width, width, 3, 3), "w"), gc.tensor("x", shape=(1, width, n, n), dtype="float32")
    y = [gc.nn.conv(x, w, padding=1), gc.nn.conv_transpose(x, w, padding=1)]
    return gc.function([x], y), gc.function([x], y, mode=REFERENCE), w, numbers(1, width, n, n, seed=1)


def same(f: gc.Function, g: gc.Function, x: Any) -> None:
    for a, b in zip(f(x), g(x), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("odd", [0, 1])
def test_every_change_is_seen(odd: int) -> None:
    f, g, w, x = layers(odd)
    assert kept(f) == (["w_kept"] if odd else ["w_panels", "w_panels"])
    step = gc.function([], None, updates={w: w + 1})
    for k in range(4):
        for _ in range(3):
            same(f, g, x)
        if k % 2:
            step()
        else:
            w.set_value(numbers(*w.type.shape, seed=k + 5))


@pytest.mark.parametrize("odd", [0, 1])
def test_a_kernel_that_the_user_holds_may_change_in_place(odd: int) -> None:
    f, g, w, x = layers(odd)
    same(f, g, x)
    held = w.get_value(borrow=True)
    for _ in range(3):
        held += 1
        same(f, g, x)
    mine = numbers(*w.type.shape, seed=3)
    w.set_value(mine, borrow=True)
    for _ in range(3):
        mine -= 2
        same(f, g, x)
    w.set_value(numbers(*w.type.shape, seed=4))
    for _ in range(2):
        mine *= 3
        same(f, g, x)


def test_two_functions_share_the_kernel() -> None:
    """One reads panels, one rows; they see each change.  Two convolutions of one kernel share its panels."""
    width = WIDTH["float32"]
    w = gc.shared(numbers(width, 32, 3, 3), "w")
    found = []
    for groups in (1, 2):
        x = gc.tensor("x", shape=(1, 32 * groups, 9, 9), dtype="float32")
        y = [gc.nn.conv(x, w, padding=1, groups=groups), gc.nn.conv(x * 2, w, groups=groups)]
        found.append((gc.function([x], y), gc.function([x], y, mode=REFERENCE), numbers(*x.type.shape, seed=groups)))
    assert [kept(f) for f, _, _ in found] == [["w_panels"], []]
    for change, (f, g, x) in itertools.product(range(3), found):
        same(f, g, x)
        w.set_value(numbers(*w.type.shape, seed=change + 5))
        same(f, g, x)


# ---- reading rows as they lie ------------------------------------------------------------------------


@pytest.mark.parametrize("out", [1, 2, 3, 4, 7, 8, 13, 25, 26])
def test_nothing_is_read_behind_the_kernel(out: int) -> None:
    """Blocks of 24 rows: tiles of all heights, and one or two rows that are no tile; the kernel ends where memory does."""
    x, w = (gc.tensor(name, shape=shape, dtype="float32") for name, shape in (("x", (2, 5, 19, 17)), ("w", (out, 5, 3, 3))))
    y = gc.nn.conv(x, w)
    with mock.patch.multiple(blocked, **(SMALL | {"BLOCK_BYTES": 1024})), gc.config(cache_size=0):
        f = gc.function([x, w], y)
    image, kernel = numbers(2, 5, 19, 17), numbers(out, 5, 3, 3, seed=1)
    for at_end in (False, True):
        with paged(kernel, at_end) as there:
            np.testing.assert_array_equal(f(image, there), gc.function([x, w], y, mode=REFERENCE)(image, kernel))


def test_which_rows_are_dense() -> None:
    dense = contracting._dense
    assert dense(([5, 3, 2], [[6, 2, 1], [9, 9, 9]]), 0) and not dense(([5, 3, 2], [[9, 9, 9], [7, 2, 1]]), 1)
    assert not dense(([5, 3], [[3, -1]]), 0) and not dense(([4], [[2]]), 0) and not dense(([], [[]]), 0) and dense(([4], [[1]]), 0)
