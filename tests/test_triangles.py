"""Causal sweeps without the columns that no row of a block sees: which graphs, which values, and the intervals that decide it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import expit
from test_sweep_programs import last_sweep, with_inner
from test_sweeps import small  # noqa: F401  # the fixture

import graphc as gc
from graphc.backends.llvm import costs
from graphc.errors import VerificationError
from graphc.ir import Graph, Var
from graphc.kernel import Launch, Product, Program
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
}
#: what leaves rows that see nothing, or is more than one comparison
OTHERS: dict[str, Callable[[Var], Any]] = {
    "column < row": lambda s: rows_and_columns(s)[1] < rows_and_columns(s)[0],
    "a window": lambda s: gc.logical_and(MASKS["column <= row"](s), rows_and_columns(s)[1] > rows_and_columns(s)[0] - 20),
    "column >= row": lambda s: rows_and_columns(s)[1] >= rows_and_columns(s)[0],
    "any": lambda s: s > 0,
}
#: scores and what is seen -> scores of which softmax makes weights
FORMS: dict[str, Callable[[Var, Any], Var]] = {
    "where -inf": lambda s, m: gc.where(m, s, np.float32(-np.inf)),
    "where -1e30": lambda s, m: gc.where(m, s, np.float32(-1e30)),
    "added": lambda s, m: s + gc.where(m, np.float32(0), np.float32(-1e30)),
    "added -inf": lambda s, m: s + gc.where(m, np.float32(0), np.float32(-np.inf)),
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
    return "sweep" in text and "large" in text and "min(" in text


def filled(n: int = T, dtype: str = "float32") -> list[Array]:
    return [rng.normal(size=(2, n, 8)).astype(dtype) for _ in range(4)]


def compare(f: gc.Function, oracle: gc.Function, given: list[Array]) -> None:
    for have, want in zip(f(*given), oracle(*given), strict=True):
        np.testing.assert_allclose(have, want, rtol=2e-4, atol=2e-5 * max(1.0, float(np.nanmax(np.abs(want), initial=0, where=np.isfinite(want)))))


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
    assert is_narrowed(f) or "mask" in options
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


def test_rows_that_see_minus_infinity_only() -> None:
    """Scores are bounded, so that no row is without a largest number; a second mask takes that away, and nothing is narrowed."""
    def mask(s: Var) -> Var:
        return gc.logical_and(MASKS["column <= row"](s), gc.expand_dims(s[..., 0] > 0, -1))

    inputs, outputs = attention(mask)
    f, oracle = gc.function(inputs, outputs, mode=INTERPRETER), gc.function(inputs, outputs, mode=REFERENCE)
    assert not is_narrowed(f)
    compare(f, oracle, filled())


@pytest.mark.parametrize("size", [T, None], ids=["known", "unknown"])
def test_the_same_bits(size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """On any number of threads; with all columns only the order of sums along a row differs."""
    inputs, outputs = attention(MASKS["column <= row"], size=size)
    given, found = filled(), []
    monkeypatch.setattr(costs, "SERIAL_NS", 0)
    with gc.config(cache_size=0):
        for threads in (1, 2, 3):
            found.append(gc.function(inputs, outputs, threads=threads)(*given))
        monkeypatch.setattr(triangles.Narrowing, "narrowed", lambda self, steps, *_: ([], list(steps)))
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
