"""Convolution, bias, activation and pooling image by image: values and gradients, bits, memory; kernels divided by images, axes merged after them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import pytest
from graph_subjects import bits
from hypothesis import event, given, settings
from hypothesis import strategies as st
from native_checks import cut_small, two_threads
from test_sweep_programs import last_sweep, with_and_without, with_inner, with_sweep
from test_sweeps import compare, compiled, held, is_swept

import graphc as gc
from graphc import compiling
from graphc.errors import VerificationError
from graphc.ir import Array, Graph, Var
from graphc.kernel import Launch, Product, Program, Sweep
from graphc.ops.evaluate import evaluate
from graphc.passes import convolving, dividing, stages
from graphc.passes import sweeps as swept
from graphc.passes.sinking import sunk
from graphc.verify import verify
from graphc.verify_kernel import verify_program

LLVM, INTERPRETER = (gc.Mode(backend=name) for name in ("llvm", "interpreter"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of any size are swept, two by two, and do not stand side by side; arrays are walked through in the order of memory, as large ones are."""
    for module, name, value in ((swept, "LEAST_BYTES", 1), (swept, "MUCH_WORK", 2 << 10), (swept, "PARTS", 3), (convolving, "SMALL", 0), (stages, "CACHED", 0)):
        monkeypatch.setattr(module, name, value)


max_pool, avg_pool = gc.nn.max_pool, gc.nn.avg_pool
ACTIVATIONS: dict[str, Callable[[Var], Var]] = {"relu": gc.relu, "tanh": gc.tanh, "silu": lambda x: x * gc.sigmoid(x), "none": lambda x: x}
#: image, kernel, options of the convolution, activation, pooling
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], str, Callable[[Var], Var]]] = {
    "LeNet": ((7, 2, 13, 14), (5, 2, 3, 3), {}, "relu", lambda h: max_pool(h, 2)),
    "stem": ((7, 2, 15, 12), (4, 2, 3, 3), {"padding": 1}, "relu", lambda h: max_pool(h, 3, stride=2, padding=1)),
    "mean": ((7, 2, 9, 11), (3, 2, 3, 3), {"stride": 2, "padding": 1}, "tanh", lambda h: avg_pool(h, 2)),
    "mean, padded": ((5, 2, 9, 9), (3, 2, 3, 3), {"padding": 1}, "silu", lambda h: avg_pool(h, 2, padding=1, count_padding=False)),
    "overlapping": ((5, 2, 12, 9), (3, 2, 2, 3), {}, "tanh", lambda h: max_pool(h, 3, stride=1)),
    "dilated": ((5, 2, 12, 13), (3, 2, 3, 3), {"dilation": 2}, "relu", lambda h: max_pool(h, 2, stride=3, dilation=2)),
    "line": ((7, 3, 40), (4, 3, 5), {"padding": 2}, "relu", lambda h: max_pool(h, 2)),
    "space": ((4, 2, 5, 6, 7), (3, 2, 2, 3, 3), {"padding": 1}, "relu", lambda h: max_pool(h, 2)),
    "no activation": ((6, 2, 10, 10), (3, 2, 3, 3), {}, "none", lambda h: max_pool(h, (2, 3))),
    "groups": ((6, 4, 10, 10), (6, 2, 3, 3), {"groups": 2}, "relu", lambda h: max_pool(h, 2)),
    "pooled twice": ((5, 2, 18, 18), (3, 2, 3, 3), {}, "tanh", lambda h: max_pool(max_pool(h, 2), 2)),
}


def graph(case: str, known: bool = True, dtype: str = "float32") -> tuple[list[Var], list[Var], list[tuple[int, ...]]]:
    """The value, and the gradients of x, w and b."""
    image, kernel, options, activation, pooling = CASES[case]
    shapes = [image, kernel, kernel[:1]]
    x, w, b = (gc.tensor(name, shape=shape if known or name != "x" else (None, *shape[1:]), dtype=dtype) for name, shape in zip("xwb", shapes, strict=True))
    h = pooling(ACTIVATIONS[activation](gc.nn.conv(x, w, **options) + gc.reshape(b, (1, -1, *[1] * (len(image) - 2)))))
    return [x, w, b], [h, *gc.grad(gc.sum(h * gc.sin(h)), [x, w, b])], shapes


def arguments(shapes: Sequence[tuple[int, ...]], dtype: str = "float32", images: int | None = None) -> list[Array]:
    rng = np.random.default_rng(0)
    sizes = [shapes[0] if images is None else (images, *shapes[0][1:]), *shapes[1:]]
    return [rng.standard_normal(s).astype(dtype) for s in sizes]


def program(f: gc.Function) -> Program:
    found: Program = f._compiled.program
    return found


def sweeps_of(f: gc.Function) -> list[Sweep]:
    return [step for step in program(f).steps if isinstance(step, Sweep)]


# ---- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str) -> None:
    """Of numbers of images about a block, too; a NaN makes its windows NaN, and is looked for by none."""
    inputs, outputs, shapes = graph(case)
    reference = compiled(inputs, outputs, gc.Mode(backend="reference"))
    given = arguments(shapes)
    for mode in (LLVM, INTERPRETER):
        f = compiled(inputs, outputs, mode)
        assert any(any(isinstance(inner, Launch) for inner in s.steps) for s in sweeps_of(f)), f.dump("kernels")
        compare(f(*given), reference(*given), 400, (case, f.backend))
    f = compiled(inputs, outputs, LLVM)
    given[0][0, 1].flat[17] = np.nan
    for a, b in zip(f(*given), reference(*given), strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


@pytest.mark.parametrize("case", ["LeNet", "stem", "mean, padded", "line", "space"])
def test_any_number_of_images(case: str) -> None:
    inputs, outputs, shapes = graph(case, known=False)
    reference, f = (compiled(inputs, outputs, mode) for mode in (gc.Mode(backend="reference"), LLVM))
    assert is_swept(f)
    for images in (3, 1, 2, 8, 0):
        given = arguments(shapes, images=images)
        compare(f(*given), reference(*given), 400, (case, images))


@pytest.mark.parametrize("case", ["LeNet", "overlapping", "space"])
def test_threads_and_blocks_change_no_bit(case: str) -> None:
    for known in (True, False):
        inputs, outputs, shapes = graph(case, known, "float64")
        given, found = arguments(shapes, "float64"), []
        for block in (1, 1 << 22):
            with cut_small(), two_threads(), mock.patch.multiple(swept, MUCH_WORK=block, PARTS=1 if block > 1 else 3), mock.patch.object(convolving, "SMALL", 0):
                f = compiled(inputs, outputs, LLVM)
                for threads in (1, 2):
                    with gc.config(threads=threads):
                        found.append(bits(f(*given)))
        assert len({tuple(b) for b in found}) == 1


# ---- memory ---------------------------------------------------------------------------------------


def largest(f: gc.Function) -> int:
    """Bytes of the largest array of the arena."""
    return max([s.nbytes for s in program(f).slabs if s.place == "arena" and isinstance(s.nbytes, int)], default=0)


@pytest.mark.parametrize("case", [c for c in CASES if c != "groups"])
def test_the_activation_is_never_whole(case: str) -> None:
    inputs, (value, *_), shapes = graph(case)
    f = compiled(inputs, [value], LLVM)
    options = CASES[case][2]
    positions = gc.function(inputs[:2], gc.nn.conv(*inputs[:2], **options))(*arguments(shapes)[:2]).nbytes
    assert is_swept(f) and largest(f) < positions / 2, f.dump("memory")
    assert {"conv"} <= set(held(program(f)))


def test_the_gradient_keeps_one_array_of_the_activation() -> None:
    """The result of relu, which its derivative is taken from; pooling reads it where it has just been written."""
    inputs, outputs, _ = graph("LeNet")
    f = compiled(inputs, outputs[2:], LLVM)
    first, *_ = sweeps_of(f)
    names = [s.kernel.name for s in first.steps if isinstance(s, Launch)]
    assert names[0] == "add_relu" and names[1].startswith("maximum")
    activations = [s for s in program(f).slabs if s.place == "arena" and s.elements == 7 * 5 * 11 * 12]
    assert len(activations) == 1, f.dump("memory")


@pytest.mark.parametrize("least", [1, 16 << 10], ids=["rows", "images"])
def test_dense_layers_behind_the_images_stay_what_they_are(least: int) -> None:
    """Some rows of a dense layer at a time are slow products, and their sums over images would be one thread's."""
    shapes = {"x": (6, 1, 20, 20), "w": (4, 1, 3, 3), "v": (5, 4, 3, 3), "d": (245, 30), "e": (30, 5)}
    x, w, v, d, e = inputs = [gc.tensor(name, shape=shape, dtype="float32") for name, shape in shapes.items()]
    h = gc.relu(gc.nn.conv(max_pool(gc.relu(gc.nn.conv(x, w)), 2), v))
    outputs = gc.grad(gc.sum(gc.sin(gc.relu(gc.reshape(h, (6, 245)) @ d) @ e)), [w, v, d, e])
    with mock.patch.object(swept, "LEAST_BYTES", least):  # the first convolution's result has more than 16 KiB, those of the dense layers less
        f = compiled(inputs, outputs, LLVM)
    found = [[step.axes == (1, 1, 1) and len(step.out.shape) == 2 for step in sweep.steps if isinstance(step, Product)] for sweep in sweeps_of(f)]
    assert all(len(set(dense)) == 1 for dense in found) and (least == 1 or found == [[False], [False] * 3]), f.dump("kernels")
    given = arguments(list(shapes.values()))
    compare(f(*given), compiled(inputs, outputs, gc.Mode(backend="reference"))(*given), 5000)


def test_the_gradient_of_pooling_and_bias_goes_with_that_of_the_kernel() -> None:
    x, w, v, b = (gc.tensor(name, shape=shape, dtype="float32") for name, shape in (("x", (6, 1, 20, 20)), ("w", (4, 1, 3, 3)), ("v", (5, 4, 3, 3)), ("b", (4, 1, 1))))
    h = max_pool(gc.relu(gc.nn.conv(x, w) + b), 2)
    loss = gc.sum(gc.square(gc.nn.conv(h, v)))
    outputs = gc.grad(loss, [w, v, b])
    f = compiled([x, w, v, b], outputs, LLVM)
    *_, last = sweeps_of(f)
    products = [step for step in last.steps if isinstance(step, Product)]
    assert len(products) >= 2, f.dump("kernels")
    assert "_joined" in f.dump("kernels") and "copy" not in f.dump("kernels")
    given = arguments([(6, 1, 20, 20), (4, 1, 3, 3), (5, 4, 3, 3), (4, 1, 1)])
    compare(f(*given), compiled([x, w, v, b], outputs, gc.Mode(backend="reference"))(*given), 5000)


# ---- any program ----------------------------------------------------------------------------------


class Layers:
    """Convolutions of whole numbers, each with what may follow it: no order of sums shows."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw, self.inputs, self.shapes = draw, list[Var](), list[tuple[int, ...]]()
        space, images = draw(st.integers(1, 2)), draw(st.sampled_from([2, 3, 5]))
        sides = tuple(draw(st.integers(7, 12)) for _ in range(space))
        x = self.leaf((images, draw(st.integers(1, 2)), *sides), draw(st.booleans()))
        weights, h = [], x
        for _ in range(draw(st.integers(1, 2))):
            shape = gc.function(self.inputs, h, mode=gc.Mode(backend="reference"))(*self.given()).shape
            if min(shape[2:]) < 3:
                break
            w = self.leaf((draw(st.integers(1, 3)), shape[1], *[draw(st.integers(1, 3))] * space))
            weights.append(w)
            h = gc.nn.conv(h, w, draw(st.integers(1, 2)), draw(st.integers(0, 1)))
            h = self.followed(h, self.shapes[-1][0], space)
        self.outputs = [h]
        if draw(st.booleans()):
            self.outputs += gc.grad(gc.sum(h * h), weights)

    def leaf(self, shape: tuple[int, ...], unknown: bool = False) -> Var:
        v = gc.tensor(f"x{len(self.inputs)}", shape=(None, *shape[1:]) if unknown else shape, dtype="float64")
        self.inputs.append(v)
        self.shapes.append(shape)
        return v

    def given(self) -> list[Array]:
        return [np.random.default_rng(n).integers(-2, 3, shape).astype("float64") for n, shape in enumerate(self.shapes)]

    def followed(self, h: Var, channels: int, space: int) -> Var:
        for way in self.draw(st.lists(st.sampled_from("bpraswm"), max_size=4)):
            if way == "b":
                h = h + gc.reshape(self.leaf((channels,)), (1, channels, *[1] * space))
            elif way == "r":
                h = gc.relu(h)
            elif way == "a":
                h = gc.abs(h) * 2.0
            elif way == "s":
                h = h - gc.sum(h, axis=tuple(range(2, 2 + space)), keepdims=True)
            elif way == "w":  # read whole by others
                h = h + gc.sum(h, axis=0, keepdims=True)
            elif way in "pm" and all(isinstance(n, int) and n >= 4 for n in h.type.shape[2:]):
                window = self.draw(st.integers(2, 3))
                h = max_pool(h, window, self.draw(st.integers(1, 3)), self.draw(st.integers(0, 1))) if way == "p" else avg_pool(h, window) * float(window ** space)
        return h


def same_layers(data: st.DataObject) -> gc.Function:
    """Layers that are drawn, whose values are those without sweeps; their function."""
    layers = Layers(data.draw)
    f, g = with_and_without(layers.inputs, layers.outputs)
    given = layers.given()
    for a, b in zip(f(*given), g(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9, err_msg=f.dump("kernels"))  # ties share a gradient: thirds
    return f


def test_any_layers_give_the_same_values() -> None:
    found = []

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        found.append(is_swept(same_layers(data)))
        event(f"swept: {found[-1]}")

    test()
    assert sum(found) > len(found) // 3


# ---- what is unsound --------------------------------------------------------------------------------


def is_kernel(step: Any) -> bool:
    return isinstance(step, Launch)


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_inner(p, lambda s: isinstance(s, Product), lambda s: s._replace(b=s.b._replace(offset=s.b.offset + 4000))), "operand 1 is a view of the elements"),
    (lambda p: with_inner(p, is_kernel, lambda s: None), "which is not written yet|it reads or writes other slabs than it says"),
    (lambda p: with_sweep(p, block=2 * last_sweep(p)[1].block), "view of the elements|read before any step|not all blocks have"),
    (lambda p: with_sweep(p, rows=last_sweep(p)[1].rows + 2), "is a view of the elements|outside|not all blocks"),
    (lambda p: with_sweep(p, rows=last_sweep(p)[1].rows - 2), "is read before any step has written it|not all blocks"),
    (lambda p: with_sweep(p, room=64), "of memory of 64"),
])
def test_unsound_sweeps_are_refused(change: Callable[[Program], Any], message: str) -> None:
    x, w = gc.tensor("x", shape=(6, 1, 10, 10)), gc.tensor("w", shape=(3, 1, 3, 3))
    p = program(compiled([x, w], [max_pool(gc.relu(gc.nn.conv(x, w)), 2)], INTERPRETER))
    verify_program(p)
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)


# ---- kernels divided by images ----------------------------------------------------------------------


def launches(inputs: Sequence[Var], outputs: Sequence[Var]) -> list[Launch]:
    with mock.patch.object(compiling, "sweeps", lambda program: program):
        return [step for step in program(compiled(inputs, outputs, INTERPRETER)).steps if isinstance(step, Launch)]


@pytest.mark.parametrize("word", ["sum", "max", "min"])
@pytest.mark.parametrize("finished", [True, False])
def test_divided_kernels_give_the_same(word: str, finished: bool) -> None:
    """As programs of their own: each image's part, then the parts together."""
    x, y, c = gc.tensor("x", shape=(5, 3, 4, 6)), gc.tensor("y", shape=(5, 3, 4, 6)), gc.tensor("c", shape=(3,))
    masked = gc.where(x > 0, y, -1.0)
    total = getattr(gc, word)(masked, axis=(0, 2, 3))
    [step] = [s for s in launches([x, y, c], [masked, c - 0.5 * total if finished else total]) if s.kernel.finish]
    parts = dividing.divided(step, 5)
    assert parts is not None and not parts.each.kernel.finish and not parts.joined.kernel.finish
    assert [shape for _, shape in parts.given] == [(5, 3)]
    assert dividing.divided(step, 4) is None
    given = [np.random.default_rng(n).integers(-3, 4, shape).astype("float64") for n, shape in enumerate([(5, 3, 4, 6), (5, 3, 4, 6), (3,)])]
    want = np.where(given[0] > 0, given[1], -1.0)
    sums = getattr(want, word)(axis=(0, 2, 3))
    with mock.patch.object(swept, "LEAST_BYTES", 1):
        f = compiled([x, y, c], [masked, c - 0.5 * total if finished else total], LLVM)
    for a, b in zip(f(*given), [want, given[2] - 0.5 * sums if finished else sums], strict=True):
        np.testing.assert_array_equal(a, b)


# ---- axes that become one ---------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_axes_merge_after_elementwise_nodes(known: bool) -> None:
    n = 3 if known else gc.dim("n")
    y, m, b = gc.tensor("y", shape=(n, 4, 5, 2, 3)), gc.tensor("m", shape=(n, 8, 15)), gc.tensor("b", shape=(15,))
    image = gc.reshape(gc.transpose(y, (0, 1, 3, 2, 4)), (y.shape[0], 8, 15))
    shared_ = gc.exp(m)
    cases = [gc.where(m > 0, image, 0.0), image * gc.tanh(m) + b, image + shared_ * 2.0 + gc.sum(shared_), gc.reshape(b, (1, 1, 15)) - image * gc.expand_dims(m[:, :, 0], 2),
             gc.sum(gc.relu(image) * m, axis=(0, 2))]
    given = [np.random.default_rng(k).standard_normal(s) for k, s in enumerate([(3, 4, 5, 2, 3), (3, 8, 15), (15,)])]
    moved = 0
    for output in cases:
        before = Graph([y, m, b], [output])
        after = sunk(before)
        verify(after, "sunk", before=before)
        moved += after is not before and any(node.op.name == "reshape" and not (node.inputs[0].node is not None and node.inputs[0].node.op.name == "transpose")
                                              for node in after.nodes)
        env = {} if known else {n.symbol: 3}
        want = evaluate(before, given, env)
        for mode in (LLVM, INTERPRETER):
            compare(compiled([y, m, b], [output], mode)(*given), want, 200)
        for a, c in zip(evaluate(after, given, env), want, strict=True):
            np.testing.assert_array_equal(a, c)
    assert moved == len(cases)


def test_what_is_stored_in_windows_is_written_as_an_image() -> None:
    """The gradient of a pooling and the derivative under it: one kernel."""
    x = gc.tensor("x", shape=(4, 3, 12, 12))
    f = compiled([x], gc.grad(gc.sum(gc.square(max_pool(gc.tanh(x), 2))), [x]), LLVM)
    assert len(re.findall(r"^  \d+: ", f.dump("kernels"), re.M)) <= 3, f.dump("kernels")
    given = np.random.default_rng(0).standard_normal((4, 3, 12, 12))
    windows = np.tanh(given).reshape(4, 3, 6, 2, 6, 2)
    top = windows.max(axis=(3, 5), keepdims=True)
    want = (np.where(windows == top, 2 * top, 0.0) * (1 - windows ** 2)).reshape(given.shape)
    compare(f(given), [want], 20)


def test_few_ties_are_counted_as_before() -> None:
    """In float16 too, where a number of ties is a small one."""
    for dtype, n in itertools.product(("float16", "bfloat16", "float32"), (255, 256, 257)):
        x = gc.tensor("x", shape=(2, n), dtype=dtype)
        f = compiled([x], gc.grad(gc.sum(gc.max(x, axis=1)), [x]), LLVM)
        want = np.full((2, n), 1 / n)
        compare(f(np.zeros((2, n), dtype if dtype != "bfloat16" else gc.dtypes.DTYPES[dtype])), [want], 4)
