"""Small images, which stand side by side in the columns of one product: swept some at a time, with bias, activation and pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from graph_subjects import bits
from hypothesis import event, given, settings
from hypothesis import strategies as st
from native_checks import two_threads
from test_pooled_sweeps import CASES, arguments, graph, program, same_layers, sweeps_of
from test_sweep_programs import last_sweep, with_inner, with_sweep
from test_sweeps import compare, compiled, held, is_swept

import graphc as gc
from graphc.backends.llvm import costs
from graphc.errors import VerificationError
from graphc.kernel import Launch, Product, Program
from graphc.passes import stages
from graphc.passes import sweeps as swept
from graphc.verify_kernel import verify_program

LLVM, INTERPRETER, REFERENCE = (gc.Mode(backend=name) for name in ("llvm", "interpreter", "reference"))
max_pool = gc.nn.max_pool


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of any size are swept, in at least two blocks of few images."""
    for module, name, value in ((swept, "LEAST_BYTES", 1), (swept, "MUCH_WORK", 1), (swept, "PARTS", 2), (swept, "COLUMNS", 1), (swept, "LINE", 8), (stages, "CACHED", 0)):
        monkeypatch.setattr(module, name, value)


def is_beside(f: gc.Function) -> bool:
    """Is there a sweep with some columns of a product, and a kernel behind it?"""
    return any(any(_some_columns(p, step) for step in s.steps) and any(isinstance(step, Launch) for step in s.steps) for p in [program(f)] for s in sweeps_of(f))


def _some_columns(p: Program, step: Any) -> bool:
    return isinstance(step, Product) and step.axes[2] > 1 and step.out.shape[0] == 1 and step.b.strides[-step.axes[2]] == int(np.prod(p.slabs[step.b.slab].shape[1:]))


# ---- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(case: str) -> None:
    """A NaN makes its windows NaN, in its image alone."""
    inputs, outputs, shapes = graph(case)
    reference = compiled(inputs, outputs, REFERENCE)
    given = arguments(shapes)
    for mode in (LLVM, INTERPRETER):
        f = compiled(inputs, outputs, mode)
        assert is_beside(f), f.dump("kernels")
        compare(f(*given), reference(*given), 400, (case, f.backend))
    f = compiled(inputs, outputs, LLVM)
    given[0][0, 1].flat[17] = np.nan
    for a, b in zip(f(*given), reference(*given), strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))


@pytest.mark.parametrize("case", CASES)
def test_any_number_of_images(case: str) -> None:
    """Unknown, prime and one: the last block has fewer."""
    inputs, outputs, shapes = graph(case, known=False)
    reference, f = (compiled(inputs, outputs, mode) for mode in (REFERENCE, LLVM))
    assert is_beside(f), f.dump("kernels")
    for images in (3, 1, 2, 8, 0, 13):
        given = arguments(shapes, images=images)
        compare(f(*given), reference(*given), 400, (case, images))


@pytest.mark.parametrize("images", [1, 2, 3, 8, 11, 12])
def test_known_numbers_of_images(images: int) -> None:
    """One image stands beside none."""
    x, w, b = (gc.tensor(name, shape=shape, dtype="float32") for name, shape in (("x", (images, 2, 9, 9)), ("w", (5, 2, 3, 3)), ("b", (5, 1, 1))))
    h = max_pool(gc.relu(gc.nn.conv(x, w, padding=1) + b), 2)
    outputs = [h, *gc.grad(gc.sum(h * h), [x, w, b])]
    given = arguments([(images, 2, 9, 9), (5, 2, 3, 3), (5, 1, 1)])
    with mock.patch.object(swept, "MUCH_WORK", 20 << 10):  # some images
        f = compiled([x, w, b], outputs, LLVM)
    assert is_beside(f) == (images > 1)
    compare(f(*given), compiled([x, w, b], outputs, REFERENCE)(*given), 1000)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", ["LeNet", "mean", "line"])
def test_other_floats(case: str, dtype: str) -> None:
    inputs, outputs, shapes = graph(case, dtype=dtype)
    given = [a.astype(gc.dtypes.DTYPES[dtype]) for a in arguments(shapes)]
    f = compiled(inputs, outputs[:1], LLVM)
    assert is_beside(f), f.dump("kernels")
    wide = graph(case, dtype="float64")
    compare(f(*given), compiled(wide[0], wide[1][:1], REFERENCE)(*[a.astype("float64") for a in given]), 20)


@pytest.mark.parametrize("case", ["LeNet", "overlapping", "space", "groups", "mean, padded"])
def test_threads_and_blocks_change_no_bit(case: str) -> None:
    """Sums of products go through all channels and windows, in whichever block; the images that share a kernel's gradient are added up in order."""
    for known in (True, False):
        inputs, outputs, shapes = graph(case, known)
        given, found = arguments(shapes), []
        for work in (1, 40 << 10, 1 << 22):
            with mock.patch.multiple(costs, CHUNK_NS=0, SERIAL_NS=0), mock.patch.multiple(swept, MUCH_WORK=work), two_threads():
                f = compiled(inputs, outputs, LLVM)
                assert is_beside(f)
                for threads in (1, 2):
                    with gc.config(threads=threads):
                        found.append(tuple(bits(f(*given))))
        assert len(set(found)) == 1
        value = compiled(inputs, outputs[:1], LLVM)
        with mock.patch.object(swept, "LEAST_BYTES", 1 << 40):
            whole = compiled(inputs, outputs[:1], LLVM)
        assert is_beside(value) and not is_swept(whole)
        assert bits(value(*given)) == bits(whole(*given))


def test_any_layers_give_the_same_values() -> None:
    found = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        with mock.patch.multiple(swept, PARTS=1, MUCH_WORK=data.draw(st.sampled_from([1, 1 << 12, 1 << 14]))):
            found.append(is_beside(same_layers(data)))
        event(f"side by side: {found[-1]}")

    test()
    assert sum(found) > len(found) // 3


# ---- what joins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if c != "mean, padded"])  # whose means are divided behind the sweep
def test_the_result_of_the_convolution_is_never_whole(case: str) -> None:
    inputs, (value, *_), _ = graph(case)
    f = compiled(inputs, [value], LLVM)
    assert "conv" in held(program(f)) and not any(isinstance(step, Product) for step in program(f).steps)
    assert {s.name for s in program(f).slabs if s.place == "arena"} <= {"window"}, f.dump("memory")


@pytest.mark.parametrize("images", [6, 11, None])
def test_what_the_gradient_reads_again_is_written(images: int | None) -> None:
    """The result of the convolution under x * sigmoid(x), below a dense layer: each block writes some columns of every line, and a sweep of the gradient reads them."""
    shapes = {"x": (images, 2, 8, 8), "w": (4, 2, 3, 3), "d": (36, 5)}
    x, w, d = inputs = [gc.tensor(name, shape=shape, dtype="float32") for name, shape in shapes.items()]
    y = gc.nn.conv(x, w)
    h = max_pool(y * gc.sigmoid(y), 2)
    outputs = gc.grad(gc.sum(gc.tanh(gc.reshape(h, (-1, 36)) @ d)), inputs)
    f = compiled(inputs, outputs, LLVM)
    p = program(f)
    [conv] = [s for s in p.slabs if s.name == "conv"]
    assert conv.place == "arena" and [conv.id in s.writes for s in sweeps_of(f)].count(True) == 1 and any(conv.id in s.reads for s in sweeps_of(f)), f.dump("kernels")
    given = arguments([(images or 7, 2, 8, 8), (4, 2, 3, 3), (36, 5)])
    compare(f(*given), compiled(inputs, outputs, REFERENCE)(*given), 4000)


def small_layer(images: int | None, channels: int, side: int, results: int) -> gc.Function:
    x, w = gc.tensor("x", shape=(images, channels, side, side), dtype="float32"), gc.tensor("w", shape=(results, channels, 3, 3), dtype="float32")
    return compiled([x, w], [gc.relu(gc.nn.conv(x, w, padding=1))], LLVM)


def test_few_columns_and_many_sums_stay_one_product() -> None:
    """Eight blocks of 512 columns at least; 1024 sums at most."""
    real = {"LEAST_BYTES": 256 << 10, "MUCH_WORK": 1 << 19, "PARTS": 8, "COLUMNS": 512, "LINE": 64}
    with mock.patch.multiple(swept, **real):
        assert is_swept(small_layer(64, 16, 12, 16)) and is_swept(small_layer(None, 16, 12, 16))
        assert not is_swept(small_layer(64, 16, 12, 1))  # a small result
        assert not is_swept(small_layer(28, 16, 12, 64)) and is_swept(small_layer(32, 16, 12, 64))  # 4032 and 4608 columns
        assert not is_swept(small_layer(64, 128, 12, 64))  # 1152 sums
        blocks = [sweeps_of(small_layer(images, channels, side, 32))[0].block for images, channels, side in ((256, 16, 10), (None, 16, 10), (256, 64, 10), (64, 16, 12))]
    assert blocks == [8, 8, 8, 4]  # 100 columns each: 512 take six images, 576 as well, and eight fill vectors


def test_channels_are_not_taken_for_images() -> None:
    """The gradient of a kernel has columns for each channel, and here as many channels as images."""
    x, w = gc.tensor("x", shape=(6, 6, 7, 7)), gc.tensor("w", shape=(40, 6, 3, 3))
    y = gc.relu(gc.nn.conv(x, w))
    f = compiled([x, w], gc.grad(gc.sum(y * y), [w]), LLVM)
    found = [step for s in sweeps_of(f) for step in s.steps if isinstance(step, Product)]
    assert found and all(_some_columns(program(f), step) or step.out.shape[0] != 1 for step in found), f.dump("kernels")
    given = arguments([(6, 6, 7, 7), (40, 6, 3, 3)], "float64")
    compare(f(*given), compiled([x, w], gc.grad(gc.sum(y * y), [w]), REFERENCE)(*given), 4000)


# ---- what is unsound --------------------------------------------------------------------------------


def is_product(step: Any) -> bool:
    return isinstance(step, Product)


def shifted(step: Product, **offsets: int) -> Product:
    return step._replace(**{word: getattr(step, word)._replace(offset=getattr(step, word).offset + n) for word, n in offsets.items()})


def longer_lines(step: Product) -> Product:
    """Lines of the result that kernels do not expect."""
    return step._replace(out=step.out._replace(strides=(*step.out.strides[:2], step.out.strides[2] + 1, *step.out.strides[3:])))


@pytest.mark.parametrize(("change", "message"), [
    (lambda p: with_inner(p, is_product, lambda s: shifted(s, b=4000)), "operand 1 is a view of the elements"),
    (lambda p: with_inner(p, is_product, lambda s: shifted(s, out=1)), "the result is a view of the elements|read before any step"),
    (lambda p: with_inner(p, is_product, longer_lines), "the result is a view of the elements|read before any step|not dense"),
    (lambda p: with_inner(p, lambda s: isinstance(s, Launch), lambda s: None), "which is not written yet|it reads or writes other slabs than it says"),
    (lambda p: with_sweep(p, rows=last_sweep(p)[1].rows - 1), "is read before any step has written it|not all blocks"),
    (lambda p: with_sweep(p, block=2 * last_sweep(p)[1].block), "view of the elements|read before any step|not all blocks have"),
])
@pytest.mark.parametrize("images", [6, 11])
def test_unsound_sweeps_are_refused(change: Callable[[Program], Any], message: str, images: int) -> None:
    x, w = gc.tensor("x", shape=(images, 1, 7, 7)), gc.tensor("w", shape=(3, 1, 3, 3))
    with mock.patch.object(swept, "MUCH_WORK", 3 * 25 * 9 * 3):  # three images; of eleven two in the last block
        p = program(compiled([x, w], [max_pool(gc.relu(gc.nn.conv(x, w)), 2)], INTERPRETER))
    assert last_sweep(p)[1].block == 3
    verify_program(p)
    change(p)
    with pytest.raises(VerificationError, match=message):
        verify_program(p)

