"""Causal sweeps without the columns that no row of a block sees: which graphs, which values, and the intervals that decide it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import expit
from test_sweep_programs import last_sweep, with_inner, with_sweep
from test_sweeps import small  # noqa: F401  # the fixture

import graphc as gc
from graphc.backends.llvm import costs
from graphc.errors import VerificationError
from graphc.ir import Graph, Var
from graphc.kernel import Launch, Product, Program, Sweep
from graphc.passes import recompute as recomputing
from graphc.passes import spans, triangles
from graphc.passes.spans import Span
from graphc.verify_kernel import verify_program

Array = Any
REFERENCE, INTERPRETER = gc.Mode(backend="reference"), gc.Mode(backend="interpreter")
T = 50  # three blocks and a part of one
rng = np.random.default_rng(0)


def rows_and_columns(s: Var) -> tuple[Var, Var]:
    return gc.expand_dims(gc.arange(s.shape[-2]), 1), gc.arange(s.shape[-1])


#: what a row sees
MASKS: dict[str, Callable[[Var], Any]] = {
    "column <= row": lambda s: rows_and_columns(s)[1] <= rows_and_columns(s)[0],
    "row >= column": lambda s: rows_and_columns(s)[0] >= rows_and_columns(s)[1],
    "column < row + 1": lambda s: rows_and_columns(s)[1] < rows_and_columns(s)[0] + 1,
    "not column > row": lambda s: gc.logical_not(rows_and_columns(s)[1] > rows_and_columns(s)[0]),
    "column <= row + 5": lambda s: rows_and_columns(s)[1] <= rows_and_columns(s)[0] + 5,
    "tril": lambda s: gc.tril(gc.ones_like(s)) > 0,
    "a window": lambda s: gc.logical_and(MASKS["column <= row"](s), rows_and_columns(s)[1] > rows_and_columns(s)[0] - 20),
    "a window of distances": lambda s: gc.logical_and(rows_and_columns(s)[0] - rows_and_columns(s)[1] >= 0, 20 > rows_and_columns(s)[0] - rows_and_columns(s)[1]),
    "near": lambda s: gc.abs(rows_and_columns(s)[1] - rows_and_columns(s)[0]) <= 7,
    "column >= row": lambda s: rows_and_columns(s)[1] >= rows_and_columns(s)[0],
    "row - column < 9": lambda s: gc.expand_dims(gc.arange(1, s.shape[-2] + 1), 1) - rows_and_columns(s)[1] < 10,
}
#: what leaves rows that see nothing, or is more than one comparison
OTHERS: dict[str, Callable[[Var], Any]] = {
    "column < row": lambda s: rows_and_columns(s)[1] < rows_and_columns(s)[0],
    "column > row": lambda s: rows_and_columns(s)[1] > rows_and_columns(s)[0],
    "two windows": lambda s: gc.logical_and(MASKS["column <= row"](s), gc.abs(rows_and_columns(s)[1] - rows_and_columns(s)[0] + 15) >= 7),
    "far": lambda s: gc.abs(rows_and_columns(s)[1] - rows_and_columns(s)[0]) >= 7,
    "any": lambda s: s > 0,
}
#: scores and what is seen -> scores of which softmax makes weights
FORMS: dict[str, Callable[[Var, Any], Var]] = {
    "where -inf": lambda s, m: gc.where(m, s, np.float32(-np.inf)),
    "where -1e30": lambda s, m: gc.where(m, s, np.float32(-1e30)),
    "added": lambda s, m: s + gc.where(m, np.float32(0), np.float32(-1e30)),
    "added -inf": lambda s, m: s + gc.where(m, np.float32(0), np.float32(-np.inf)),
    "where -1e9": lambda s, m: gc.where(m, s, np.float32(-1e9)),
}


def by_hand(s: Var) -> Var:
    e = gc.exp(s - gc.max(s, axis=-1, keepdims=True))
    return e / gc.sum(e, axis=-1, keepdims=True)


def attention(mask: Any, form: str = "where -inf", size: Any = T, softmax: Callable[[Var], Var] = gc.nn.softmax, dtype: str = "float32") -> tuple[list[Var], list[Var]]:
    q, k, v, g = (gc.tensor(name, dtype=dtype, shape=(2, size, 8)) for name in "qkvg")
    s = q @ k.mT * np.dtype(dtype).type(0.3)
    y = softmax(FORMS[form](s, mask(s))) @ v
    return [q, k, v, g], [y, *gc.grad(gc.sum(y * g), [q, k, v])]


def is_narrowed(f: gc.Function) -> bool:
    text = f.dump("kernels")
    return "sweep" in text and "large" in text and ("min(" in text or ", columns " in text)


def filled(n: int = T, dtype: str = "float32") -> list[Array]:
    return [rng.normal(size=(2, n, 8)).astype(dtype) for _ in range(4)]


def compare(f: gc.Function, oracle: gc.Function, given: list[Array]) -> None:
    for have, want in zip(f(*given), oracle(*given), strict=True):
        np.testing.assert_allclose(have, want, rtol=2e-4, atol=2e-5 * max(1.0, float(np.max(np.abs(want), initial=0, where=np.isfinite(want)))))


@pytest.mark.parametrize("size", [T, None], ids=["known", "unknown"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mask", MASKS)
def test_what_is_narrowed(mask: str, form: str, size: int | None) -> None:
    inputs, outputs = attention(MASKS[mask], form, size)
    f, oracle = gc.function(inputs, outputs, mode=INTERPRETER), gc.function(inputs, outputs, mode=REFERENCE)
    assert is_narrowed(f)
    for n in (T,) if size else (T, 1, 16, 17):
        compare(f, oracle, filled(n))


@pytest.mark.parametrize("form", ["where -inf", "added"])
@pytest.mark.parametrize("mask", OTHERS)
def test_what_is_not(mask: str, form: str) -> None:
    inputs, outputs = attention(OTHERS[mask], form)
    f, oracle = gc.function(inputs, outputs, mode=INTERPRETER), gc.function(inputs, outputs, mode=REFERENCE)
    assert not is_narrowed(f)
    compare(f, oracle, filled())


def test_constant_masks() -> None:
    lower = np.tril(np.ones((T, T)))
    for mask, form in ((lower > 0, "where -inf"), (np.where(lower, 0, -np.inf).astype("float32"), None)):
        inputs, _ = attention(MASKS["tril"])
        q, k, v, _ = inputs
        s = q @ k.mT
        y = gc.nn.softmax(FORMS[form](s, mask) if form else s + mask) @ v
        f = gc.function(inputs[:3], [y])
        assert is_narrowed(f)
        compare(f, gc.function(inputs[:3], [y], mode=REFERENCE), filled()[:3])
    far = np.arange(T)[:, None] - np.arange(T)
    for mask in ((far >= 0) & (far < 12), abs(far) < 12, far <= 12):
        f = gc.function(inputs[:3], [gc.nn.softmax(gc.where(mask, s, -np.inf)) @ v])
        assert is_narrowed(f)
        compare(f, gc.function(inputs[:3], [gc.nn.softmax(gc.where(mask, s, -np.inf)) @ v], mode=REFERENCE), filled()[:3])
    holed = lower > 0
    holed[30, 2] = False
    y = gc.nn.softmax(gc.where(holed, s, -np.inf)) @ v
    assert not is_narrowed(gc.function(inputs[:3], [y], mode=INTERPRETER))


@pytest.mark.parametrize("options", [{"causal": True}, {"causal": True, "mask": np.ones((T, T), bool)}], ids=["causal", "and a mask"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_attention_of_the_library(options: Any, dtype: str) -> None:
    q, k, v = (gc.tensor(name, dtype=dtype, shape=(2, T, 8)) for name in "qkv")
    y = gc.nn.attention(q, k, v, **options)
    f = gc.function([q, k, v], [y])
    assert is_narrowed(f)
    compare(f, gc.function([q, k, v], [y], mode=REFERENCE), filled(dtype=dtype)[:3])


@pytest.mark.parametrize("softmax", [gc.nn.softmax, by_hand], ids=["softmax", "by hand"])
@pytest.mark.parametrize(("which", "where", "value"), [
    ("v", -1, math.nan), ("v", -1, math.inf), ("v", 20, -math.inf), ("k", -1, math.nan), ("k", -1, math.inf), ("q", 3, math.nan), ("q", 3, math.inf),
    ("q", slice(None), 1e25), ("k", 3, 1e30), ("v", -1, 1e30), ("g", 7, math.nan), ("g", -1, math.inf), ("g", slice(None), 1e32)])
def test_what_is_not_finite_is_seen(which: str, where: Any, value: float, softmax: Any) -> None:
    """A weight of exactly 0 times infinity is NaN, in the rows that do not see it as well."""
    inputs, outputs = attention(MASKS["column <= row"], softmax=softmax)
    given = filled()
    given["qkvg".index(which)][0, where] = value
    f, oracle = gc.function(inputs, outputs), gc.function(inputs, outputs, mode=REFERENCE)
    assert is_narrowed(f)
    compare(f, oracle, given)
    compare(f, oracle, filled())


# ---- a second mask --------------------------------------------------------------------------------

#: keys that count: of a batch of two, (2, 1, T)
KEYS = {"all": [np.ones(T), np.ones(T)], "the first ones": [np.arange(T) < 30, np.arange(T) < 3], "the last ones": [np.arange(T) >= 5, np.arange(T) >= 40],
        "none": [np.zeros(T), np.ones(T)], "some": [np.arange(T) % 7 == 3, rng.random(T) > 0.6]}


def with_keys(form: str, first: str = "column <= row", size: Any = T, dtype: str = "float32") -> tuple[list[Var], list[Var]]:
    """A causal mask, or another one, and one that says which keys count."""
    keys = gc.tensor("keys", shape=(2, 1, size), dtype="bool")
    inputs, outputs = attention(lambda s: gc.logical_and(MASKS[first](s), keys), form, size, dtype=dtype)
    return [*inputs, keys], outputs


def begins_anew(f: gc.Function) -> bool:
    return is_narrowed(f) and " (all if few says so" in f.dump("kernels")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ["column <= row", "a window", "near", "column >= row"])
def test_rows_that_may_see_nothing(form: str, first: str) -> None:
    """Their weights are NaN, or the same for all columns, the hidden ones as well; the others see what they see."""
    inputs, outputs = with_keys(form, first)
    f, oracle = gc.function(inputs, outputs, mode=INTERPRETER), gc.function(inputs, outputs, mode=REFERENCE)
    assert begins_anew(f)
    for keys in KEYS.values():
        compare(f, oracle, [*filled(), np.array(keys, bool)[:, None]])


@pytest.mark.parametrize("size", [T, "T"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_blocks_that_begin_anew(size: Any, dtype: str) -> None:
    """As code; and that only these do so: what others hide is not read there."""
    for form in ("where -1e30", "added"):
        inputs, outputs = with_keys(form, size=size, dtype=dtype)
        f, oracle = gc.function(inputs, outputs), gc.function(inputs, outputs, mode=REFERENCE)
        assert begins_anew(f)
        for keys in KEYS.values():
            for n in (T,) if size == T else (T, 17, 1):
                compare(f, oracle, [*filled(n, dtype), np.array(keys, bool)[:, None, :n]])
    for keys, anew in ((KEYS["the first ones"], 0), (KEYS["the last ones"], 1 + 4), (KEYS["none"], 5)):
        with mock.patch.object(Sweep, "anew", autospec=True, side_effect=Sweep.anew) as counted:
            gc.function(*with_keys("where -1e30"), mode=INTERPRETER)(*filled(), np.array(keys, bool)[:, None])
        assert counted.call_count == anew, keys


def test_the_attention_of_the_library_with_two_masks() -> None:
    for dtype in ("float32", "float64"):
        q, k, v = (gc.tensor(name, dtype=dtype, shape=(2, T, 8)) for name in "qkv")
        keys = gc.tensor("keys", shape=(2, 1, T), dtype="bool")
        y = gc.nn.attention(q, k, v, keys, causal=True)
        outputs = [y, *gc.grad(gc.sum(gc.sqr(y)), [q, k, v])]
        f, oracle = gc.function([q, k, v, keys], outputs), gc.function([q, k, v, keys], outputs, mode=REFERENCE)
        assert begins_anew(f)
        for some in KEYS.values():
            compare(f, oracle, [*filled(dtype=dtype)[:3], np.array(some, bool)[:, None]])


@pytest.mark.parametrize("value", [0.0, -1e9, -np.inf, -3e38, 1e30, np.inf, np.nan])
def test_floats_that_are_added_for_each_key(value: float) -> None:
    bias = gc.tensor("bias", shape=(2, 1, T), dtype="float32")
    inputs, outputs = attention(lambda s: MASKS["column <= row"](s), "where -inf")
    q, k, v, g = inputs
    s = q @ k.mT + bias
    y = gc.nn.softmax(FORMS["where -inf"](s, MASKS["column <= row"](s))) @ v
    outputs = [y, *gc.grad(gc.sum(y * g), [q, k, v])]
    f, oracle = gc.function([*inputs, bias], outputs), gc.function([*inputs, bias], outputs, mode=REFERENCE)
    assert begins_anew(f)
    for at in (slice(40, None), slice(5, 9), slice(0, 20)):
        given = rng.normal(size=(2, 1, T)).astype("float32")
        given[1, 0, at] = value
        compare(f, oracle, [*filled(), given])


def test_what_is_added_is_not_seen_to_hide() -> None:
    """Scores are not known to be less than 1e9, which is taken from those that do not count."""
    inputs, _ = attention(MASKS["column <= row"])
    q, k, v, _ = inputs
    s = q @ k.mT
    y = gc.nn.softmax(s - 1e9 * (1 - gc.astype(MASKS["column <= row"](s), "float32"))) @ v
    f = gc.function(inputs[:3], [y])
    assert not is_narrowed(f)
    compare(f, gc.function(inputs[:3], [y], mode=REFERENCE), filled()[:3])


@pytest.mark.parametrize(("keys", "narrowed"), [(60, True), (50, True), (31, True), (30, False), (10, False)])
def test_windows_that_end_before_the_last_rows(keys: int, narrowed: bool) -> None:
    """The last row of 50 sees what is at most 19 before it."""
    q, k, v = (gc.tensor(name, dtype="float32", shape=(2, n, 8)) for name, n in (("q", 50), ("k", keys), ("v", keys)))
    s = q @ k.mT
    y = gc.nn.softmax(FORMS["where -1e30"](s, MASKS["a window"](s))) @ v
    f = gc.function([q, k, v], [y])
    assert is_narrowed(f) == narrowed
    compare(f, gc.function([q, k, v], [y], mode=REFERENCE), [rng.normal(size=v.type.shape).astype("float32") for v in (q, k, v)])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(("back", "reach"), [(-1, 0), (0, -1), (-2, 1)])
def test_bands_without_columns(form: str, back: int, reach: int) -> None:
    """No row sees any."""
    q, k, v = (gc.tensor(name, dtype="float32", shape=(2, "R", 4)) for name in "qkv")
    s = q @ k.mT
    i, j = rows_and_columns(s)
    y = gc.nn.softmax(FORMS[form](s, gc.logical_and(i - j <= back, j - i <= reach))) @ v
    outputs = [y, *gc.grad(gc.sum(gc.sqr(y)), [q, k, v])]
    for mode in (INTERPRETER, gc.Mode(backend="llvm")):
        compare(gc.function([q, k, v], outputs, mode=mode), gc.function([q, k, v], outputs, mode=REFERENCE), [rng.normal(size=(2, 40, 4)).astype("float32") for _ in "qkv"])


@pytest.mark.parametrize("heads", [6, 1])
def test_masks_of_one_matrix_are_no_array(heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many read them: alone, with keys that count, or as floats."""
    monkeypatch.setattr(recomputing, "MASKED_BYTES", 0)
    q, k, v = (gc.tensor(name, dtype="float32", shape=(2, heads, "T", 8)) for name in "qkv")
    keys = gc.tensor("keys", shape=(2, "T"), dtype="bool")
    s = q @ k.mT
    for mask in (MASKS["a window of distances"](s), gc.logical_and(MASKS["near"](s), keys[:, None, None, :]), gc.logical_and(keys[:, None, None, :], MASKS["a window"](s))):
        y = gc.nn.softmax(gc.where(mask, s, -1e30)) @ v
        outputs = [y, *gc.grad(gc.sum(gc.sqr(y)), [q, k, v])]
        f = gc.function([q, k, v, keys], outputs, mode=INTERPRETER, on_unused_input="ignore")
        assert is_narrowed(f)
        assert [s.name for s in f._compiled.program.slabs if s.place == "arena" and len(s.shape) > 1 and s.shape[-1] == s.shape[-2]] == []
        given = [rng.normal(size=(2, heads, T, 8)).astype("float32") for _ in range(3)] + [np.array(KEYS["the last ones"], bool)]
        compare(f, gc.function([q, k, v, keys], outputs, mode=REFERENCE, on_unused_input="ignore"), given)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_any_masks_give_the_same_values() -> None:
    """Ends of any kind, keys that count or floats for each of them, numbers that are not finite; with all columns, and with those that are seen."""
    found = []

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        draw = data.draw
        rows, columns, heads = draw(st.sampled_from([50, 33, 64])), draw(st.sampled_from([50, 33, 64, 17])), draw(st.sampled_from([(), (3,)]))
        known, far = draw(st.booleans()), st.integers(-2, 60)
        r, c = (rows, columns) if known else ("R", "R" if rows == columns else "C")
        q, k, v, g = (gc.tensor(name, dtype="float32", shape=(2, *heads, n, 4)) for name, n in (("q", r), ("k", c), ("v", c), ("g", r)))
        keys, bias = gc.tensor("keys", dtype="bool", shape=(2, *(1 for _ in heads), 1, c)), gc.tensor("bias", dtype="float32", shape=(c,))
        s = q @ k.mT
        i, j = rows_and_columns(s)
        reach, back = draw(far), draw(far)
        seen = draw(st.sampled_from([lambda: j <= i + reach, lambda: j >= i - back, lambda: gc.logical_and(i - j <= back, j - i <= reach), lambda: gc.abs(i - j) <= back,
                                     lambda: gc.logical_not(gc.logical_or(j > i + reach, i > j + back)), lambda: gc.logical_and(j - i < 3, j - i >= -back)]))()
        seen = draw(st.sampled_from([lambda: seen, lambda: gc.logical_and(seen, keys), lambda: gc.logical_and(keys, seen)]))()
        s = draw(st.sampled_from([lambda: s, lambda: s + bias, lambda: gc.where(keys, s, -1e9), lambda: 0.5 * s]))()
        s = FORMS[draw(st.sampled_from(list(FORMS)))](s, seen)
        y = draw(st.sampled_from([gc.nn.softmax, by_hand]))(s) @ v
        inputs, outputs = [q, k, v, g, keys, bias], [y, *(gc.grad(gc.sum(y * g), [q, k, v]) if draw(st.booleans()) else [gc.sum(y * y)])]
        f = gc.function(inputs, outputs, mode=INTERPRETER, on_unused_input="ignore")
        text = f.dump("kernels")
        found.append((is_narrowed(f), ", columns " in text, begins_anew(f)))
        oracle = gc.function(inputs, outputs, mode=REFERENCE, on_unused_input="ignore")
        numbers = np.random.default_rng(rows + columns)
        sizes = {"R": rows, "C": columns if rows != columns else rows}
        given = [numbers.normal(size=[sizes.get(n, n) if isinstance(n, int) else sizes[str(n)] for n in v.type.shape]).astype("float32") for v in inputs]
        given[4] = given[4] > draw(st.sampled_from([-9, 0, 0.9, 9]))
        for _ in range(draw(st.integers(0, 0 if known else 2))):  # of known sizes a mask may hide nothing, and then there is no ``where``, which would sift
            x = given[draw(st.sampled_from([0, 1, 2, 3, 5]))]
            x.reshape(-1)[draw(st.integers(0, x.size - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e20, -1e30, 3e9]))
        compare(f, oracle, given)

    test()
    assert [sum(kind) > len(found) // 5 for kind in zip(*found, strict=True)] == [True] * 3, [sum(kind) for kind in zip(*found, strict=True)]  # else it looks at nothing


@pytest.mark.parametrize("change", [
    lambda seen: seen._replace(step=seen.step + 3), lambda seen: seen._replace(step=0), lambda seen: seen._replace(slab=0)])
def test_blocks_that_cannot_begin_anew_are_refused(change: Any) -> None:
    p = gc.function(*with_keys("where -1e30"), mode=INTERPRETER)._compiled.program
    verify_program(p)
    with_sweep(p, seen=change(last_sweep(p)[1].seen))
    with pytest.raises(VerificationError, match="begins anew"):
        verify_program(p)


def test_blocks_that_have_added_cannot_begin_anew() -> None:
    p = gc.function(*with_keys("where -1e30"), mode=INTERPRETER)._compiled.program
    _, sweep = last_sweep(p)
    at = sweep.seen.step
    few = sweep.steps[at]
    steps = [step for step in sweep.steps if step is not few]
    with_sweep(p, steps=(*steps, few), seen=sweep.seen._replace(step=len(steps)))
    with pytest.raises(VerificationError, match="have added"):
        verify_program(p)


@pytest.mark.parametrize("first", ["column <= row", "a window"])
@pytest.mark.parametrize("size", [T, "T"])
def test_the_same_bits(size: Any, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On any number of threads; with all columns only the order of sums along a row differs."""
    inputs, outputs = with_keys("where -1e30", first, size)
    given, found = [*filled(), np.array(KEYS["the last ones"], bool)[:, None]], []
    monkeypatch.setattr(costs, "SERIAL_NS", 0)
    with gc.config(cache_size=0):
        for threads in (1, 2, 3):
            found.append(gc.function(inputs, outputs, threads=threads)(*given))
        monkeypatch.setattr(triangles.Narrowing, "narrowed", lambda self, steps, *_: triangles.Narrowed(list(steps)))
        plain = gc.function(inputs, outputs)
        assert not is_narrowed(plain)
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, two)
    for one, two in zip(found[0], plain(*given), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_weights_that_something_else_reads_are_whole() -> None:
    (q, k, v, _), _ = attention(MASKS["column <= row"])
    weights = gc.nn.softmax(FORMS["where -inf"](q @ k.mT, MASKS["column <= row"](q @ k.mT)))
    outputs = [weights @ v, weights]
    f = gc.function([q, k, v], outputs)
    compare(f, gc.function([q, k, v], outputs, mode=REFERENCE), filled()[:3])
    assert (f(*filled()[:3])[1][:, 0, 1:] == 0).all()


def test_too_few_columns_are_refused() -> None:
    inputs, outputs = attention(MASKS["column <= row"])
    p = gc.function(inputs, outputs, mode=INTERPRETER)._compiled.program
    verify_program(p)
    narrow = next(step for step in last_sweep(p)[1].steps if isinstance(step, Product))
    limit = narrow.out.shape[1]

    def less(step: Any) -> Any:
        def cut(v: Any) -> Any:
            return v._replace(shape=tuple(n - 1 if n == limit else n for n in v.shape))
        return step._replace(a=cut(step.a), b=cut(step.b), out=cut(step.out))

    with_inner(p, lambda step: step is narrow, less)
    with pytest.raises(VerificationError, match="is read before any step has written it"):
        verify_program(p)


def test_constants_that_count() -> None:
    ends = np.iinfo(np.int64)
    for values, first in (([3, 4, 5], 3), ([-1, 0], -1), ([7], 7), ([0, 2], None), ([0, 2, 1, 3], None), ([ends.max, ends.max], None), ([ends.max, ends.min], None),
                          ([ends.min, ends.min + 1], ends.min)):
        program = Program(Graph([], []), "p")
        slab = program.slab(np.dtype(np.int64), (len(values),), "constant", "c", None, np.array(values))
        with np.errstate(all="raise"):
            assert triangles.lines_of(program).get(slab) == first


# ---- intervals ------------------------------------------------------------------------------------

numbers = st.floats(width=32, allow_nan=False)
VALUES: dict[str, Any] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "pos": np.positive, "abs": np.abs,
                          "maximum": np.maximum, "minimum": np.minimum, "tanh": np.tanh, "sqr": np.square, "sigmoid": expit}


@st.composite
def inside(draw: Any, positive: bool = False) -> tuple[Span, float]:
    some = numbers.filter(lambda x: x > 0) if positive else numbers
    low, x, high = sorted(draw(st.tuples(some, some, some)))
    return Span(low, high), x


@pytest.mark.parametrize("word", list(spans._RULES))
@given(data=st.data())
def test_a_result_lies_in_its_span(word: str, data: Any) -> None:
    """Whatever float32 numbers of the operands' intervals meet; where there may be NaN, there is no interval."""
    value = VALUES[word]
    args = [data.draw(inside(positive=word == "div" and n == 1)) for n in range(value.nin)]
    span = spans._rounded(spans._RULES[word](*(span for span, _ in args)), np.dtype("float32"))
    assume(span is not None)
    assert span is not None
    with np.errstate(all="ignore"):
        y = float(value(*(np.float32(x) for _, x in args)))
    assert not math.isnan(y)
    assert span.low <= y <= span.high


def test_subnormal_results_lie_in_their_span() -> None:
    """They are rounded by more than a part of themselves."""
    a, b = Span(0.0, 3.7308522659211634e-28), Span(2665087605145600.0, 2665087605145600.0)
    span = spans._rounded(spans._RULES["div"](a, b), np.dtype("float32"))
    assert span is not None and span.low == 0 <= float(np.float32(a.high) / np.float32(b.high)) <= span.high
    below = spans._rounded(Span(-a.high / b.high, 0.0), np.dtype("float32"))
    assert below == Span(-span.high, 0.0)


def test_exponentials_of_what_is_hidden_are_exactly_0() -> None:
    for dtype, gone in ((np.float32, spans.VANISHED[4]), (np.float64, spans.VANISHED[8])):
        assert np.exp(dtype(gone)) == 0
        x = gc.vector("x", dtype=np.dtype(dtype).name)
        assert (gc.function([x], gc.exp(x))(np.array([gone, 2 * gone, -np.inf] * 9, dtype)) == 0).all()


@pytest.mark.parametrize("word", ["less", "less_equal", "greater", "greater_equal"])
@given(args=st.tuples(inside(), inside()))
def test_comparisons_of_spans(word: str, args: Any) -> None:
    (a, x), (b, y) = args
    assert spans._order(word, a, b).low <= getattr(np, word)(x, y) <= spans._order(word, a, b).high
    assert spans._order(word, None, b) == spans.EITHER


def test_a_kernel_is_the_same_after_narrowing_but_for_its_ranges() -> None:
    inputs, outputs = attention(MASKS["column <= row"])
    _, sweep = last_sweep(gc.function(inputs, outputs, mode=INTERPRETER)._compiled.program)
    launch = next(step for step in sweep.steps if isinstance(step, Launch))
    assert {r.extent for r in launch.kernel.ranges} == {sweep.block, next(step for step in sweep.steps if isinstance(step, Product)).out.shape[1]}
