"""The fuzzer, a short run: random functions in every mode; and that it would notice.

``python tests/fuzz_long.py --minutes 10`` runs it for longer and names pass and rule of what it finds.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest
from children import in_child
from graph_checks import REFERENCE, Difference, Subject, bisect, check, check_determinism, compare, input_text, judge_of, reproducer
from graph_complexes import OPERATIONS
from graph_strategies import NONE, Case, Drawn, Seeded, build, sources
from hypothesis import HealthCheck, given, settings, target
from native_checks import cut_small, two_threads

import graphc as gc
from graphc.ir import Graph
from graphc.judging import Judge
from graphc.ops.sliding import overlap_add
from graphc.passes.context import Context
from graphc.passes.pipeline import PIPELINE, Pass
from graphc.rewiring import load_dump
from graphc.text import print_graph


@settings(max_examples=30, derandomize=True, deadline=None, database=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])
@given(sources())
def test_drawn_functions(source: Drawn) -> None:
    case = build(source)
    target(float(len(source.taken)))  # larger graphs where there is a choice
    try:
        check(case, source)
    except Exception as error:
        error.add_note(reproducer(case))
        raise


@pytest.mark.parametrize("block", range(6))
def test_seeded_functions(block: int) -> None:
    """In a child: machine code that reads beside an array ends it."""
    now = mmap.mmap(-1, 8)

    def run() -> None:
        for seed in range(100 * block, 100 * block + 8):
            now[:] = seed.to_bytes(8, "little")
            source = Seeded(seed)
            case = build(source)
            check(case, source, thorough=seed % 300 == 0)
            if seed % 5 == 0:
                check_determinism(case, Seeded(seed))

    if problem := in_child(run, 300):
        raise AssertionError(f"{problem}; python tests/fuzz_long.py --seed {int.from_bytes(now[:], 'little')}")


def test_every_operation_takes_part() -> None:
    """Over some hundred seeds each entry of the table adds to a pool."""
    used: dict[str, int] = {}
    for seed in range(300):
        for name in build(Seeded(seed)).operations:
            used[name] = used.get(name, 0) + 1
    assert set(used) == {o.name for o in OPERATIONS}


def test_every_kind_of_case_occurs() -> None:
    cases = [build(Seeded(seed)) for seed in range(200)]
    assert {c.derivatives.kind for c in cases} == {"none", "grad", "second", "jvp", "jacobian"}
    assert {c.special for c in cases} == {"none", "finite", "all"}
    assert any(c.updates for c in cases) and any(c.state for c in cases)
    arrays = [a for c in cases for a in c.arguments]
    assert {"bool", "int8", "int32", "int64", "float32", "float64", "complex128"} <= {a.dtype.name for a in arrays}
    sizes = {n for a in arrays for n in a.shape}
    assert {0, 1, 2, 3, 5} <= sizes


# ---- it would notice ------------------------------------------------------------------------------


def _case(build_: Any, *arrays: Any) -> Case:
    variables = [gc.tensor(f"x{k}", shape=(None,) * a.ndim, dtype=a.dtype) for k, a in enumerate(arrays)]
    return Case(variables, [build_(*variables)], [], list(arrays), [], (list(arrays), []), "none", NONE, [])


def _difference(outputs: Any, broken: Any, *arrays: Any) -> str | None:
    """What the judge says of ``broken`` where ``outputs`` is the reference."""
    case = _case(outputs, *arrays)
    subject = Subject(case.inputs, case.outputs, [], [])
    f = subject.compile(REFERENCE)
    want = subject.call(f, case.arguments)
    try:
        compare(judge_of(f, subject, case.arguments, []), want, [np.asarray(broken, want[0].dtype)], "")
    except Difference as error:
        return str(error)
    return None


def test_the_judge_refuses_wrong_values() -> None:
    v = np.array([0.5, 1.0, 2.0])
    assert _difference(lambda x: x * 2, v * 2, v) is None
    assert _difference(lambda x: x * 2, v * 2 + 1e-15, v) is None
    assert "index (1,)" in str(_difference(lambda x: x * 2, [1.0, 2.0001, 4.0], v))
    assert _difference(lambda x: gc.log(x), [np.nan] * 3, v)
    assert _difference(lambda x: gc.log(x - 1), np.full(3, 0.5), v)  # -inf and nan may become better, but not log(1) wrong
    assert _difference(lambda x: x > 1, [False, True, True], v)
    assert _difference(lambda x: x * 2, [1.0, 2.0], v) and _difference(lambda x: x * 2, np.ones((3, 1)), v)


def test_the_judge_accepts_better_values() -> None:
    tiny = np.array([1e-12, 1e-18, 3.0])
    assert _difference(lambda x: gc.log(1 + x), np.log1p(tiny), tiny) is None
    assert _difference(lambda x: gc.log(1 + x), np.log1p(tiny) + np.array([0, 0, 1e-3]), tiny)
    big = np.array([1000.0, 0.0])
    assert _difference(lambda x: gc.log(gc.exp(x)), big, big) is None
    cancelled = np.array([1.0, 2.0])
    assert _difference(lambda x: (x + 1e16) - 1e16, cancelled, cancelled) is None
    assert _difference(lambda x: gc.floor((x * 3) / 3), [0.0, 2.0], cancelled) is None  # one ulp below 1 is as good
    assert _difference(lambda x: gc.floor(x), [0.0, 2.0], cancelled)


def _broken(graph: Graph, context: Context) -> Graph:
    """A pass with a bug: every tanh(x) becomes x * 1.01."""
    from graphc.ir import rebuild

    def visit(node: Any, inputs: Any) -> Any:
        return (inputs[0] * 1.01,) if node.op.name == "tanh" else None
    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def test_a_broken_pass_is_found_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.passes import pipeline
    k = [p.name for p in PIPELINE].index("simplify")
    patched = (*PIPELINE[:k], Pass("simplify", _broken, "broken for this test"), *PIPELINE[k + 1:])
    case = _case(lambda x: gc.exp(gc.tanh(x)) + 1.0, np.array([0.1, 0.2]))
    text, arguments = input_text(case), case.arguments
    assert bisect(text, arguments) == "it does not happen again"
    monkeypatch.setattr(pipeline, "PIPELINE", patched)
    with pytest.raises((Difference, gc.errors.GraphcError)):
        check(case, Seeded(0))
    assert bisect(text, arguments).startswith("pass 'simplify'")


def test_a_broken_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.passes import rewrite
    from graphc.passes.pattern import Alternative
    honest = rewrite.replacement

    def wrong(alternative: Alternative, node: Any, *rest: Any) -> Any:
        result = honest(alternative, node, *rest)
        return node.inputs[0] if result is not None and alternative.rule.name == "log1p" else result
    monkeypatch.setattr(rewrite, "replacement", wrong)
    case = _case(lambda x: gc.log(1 + x) * 2.0, np.array([0.1, 0.2]))
    found = bisect(input_text(case), case.arguments)
    assert found.startswith("pass 'stabilise'") and "log1p" in found


def test_the_reproducer_runs(capsys: pytest.CaptureFixture[str]) -> None:
    case = _case(lambda x: gc.sum(gc.where(x > 0, x, 0.0)), np.array([np.nan, -0.0, np.inf, 1e-310]))
    exec(compile(reproducer(case), "reproducer", "exec"), {})
    assert "it does not happen again" in capsys.readouterr().out


def test_judging_in_wide_floats_needs_no_inner_graphs() -> None:
    """Where an op has no wide form the noise alone decides."""
    x = gc.vector("x")
    f = gc.function([x], gc.jacobian(gc.exp(x) - 1, x), mode=REFERENCE)
    v = np.array([1e-9, 1.0])
    (env,) = [f._compiled.door.solve([v])]
    judge = Judge(f.graph, [v], env)
    want = f(v)
    assert judge.difference(0, want, want * (1 + 1e-14)) is None
    assert judge.difference(0, want, want * 1.01) is not None


@pytest.mark.parametrize("seed", [3, 42])
def test_input_dumps_load(seed: int) -> None:
    case = build(Seeded(seed))
    graph = load_dump(input_text(case))
    assert len(graph.inputs) == len(case.inputs) and len(graph.outputs) == len(case.outputs)



# ---- what it has found ------------------------------------------------------------------------------


def test_second_derivative_of_logaddexp_at_a_tie() -> None:
    a, b = gc.scalars("a", "b")
    second = gc.grad(gc.grad(gc.logaddexp(a, b), a), a)
    f = gc.function([a, b], second)
    assert float(f(1.0, 1.0)) == 0.25
    assert [float(f(x, x)) for x in (np.inf, -np.inf)] == [0.0, 0.0]


def test_a_part_of_an_operand_joined_to_itself() -> None:
    x = gc.matrix("x")
    v = np.arange(6.0).reshape(3, 2)
    f = gc.function([x], gc.concatenate([x, x], axis=1)[:2])
    assert f(v).tolist() == np.concatenate([v, v], axis=1)[:2].tolist()


def test_each_clip_of_a_cotangent_counts() -> None:
    x = gc.scalar("x")
    y = gc.grad_clip(x, -0.5, 0.5) + gc.grad_clip(x, -0.5, 0.5)
    assert float(gc.function([x], gc.grad(y, x))(1.0)) == 1.0


def test_the_sum_of_a_negative_zero_is_zero() -> None:
    x = gc.scalar("x")
    for mode in (None, REFERENCE):
        assert not bool(gc.function([x], gc.signbit(gc.sum(x)), mode=mode)(-0.0))


def test_state_of_which_only_the_size_is_needed() -> None:
    s = gc.shared(np.ones(3), "s", shape=(None,))
    f = gc.function([], [gc.zeros_like(s), gc.grad(gc.sum(gc.zeros_like(s) * 2.0), s, disconnected_inputs="ignore")])
    assert [r.shape for r in f()] == [(3,), (3,)]
    s.set_value(np.ones(5))
    assert [r.shape for r in f()] == [(5,), (5,)]


def test_a_value_summed_over_nothing_is_not_overwritten() -> None:
    x, y = gc.matrices("x", "y")
    z = x * gc.exp(y)
    f = gc.function([x, y], gc.grad((z * z).sum(), [x, y]), mode=gc.Mode(backend="numpy", passes="none"))
    a, b = np.full((2, 2), 2.0), np.zeros((2, 2))
    assert [g.tolist() for g in f(a, b)] == [[[4.0] * 2] * 2, [[8.0] * 2] * 2]


def test_sizes_inside_a_jacobian_are_checked_at_the_door() -> None:
    x, y = gc.vector("x"), gc.vector("y")
    f = gc.function([x, y], gc.jacobian(x * y, x))
    with pytest.raises(ValueError, match="x"):
        f(np.ones(3), np.ones(2))


def test_data_that_stands_twice_is_dumped_once() -> None:
    data = gc.constant(np.arange(60.0))
    x = gc.vector("x")
    f = gc.function([x], [gc.jacobian(x * data, x), data + 1.0], mode=gc.Mode(backend="reference"))
    text = f.dump("final")
    assert print_graph(load_dump(text), "final") == text


# ---- what it has found in the LLVM backend -----------------------------------------------------------


def test_kernels_that_differ_after_the_grid_alone() -> None:
    x, y = gc.vector("x"), gc.vector("y")
    f = gc.function([x, y], [gc.sum(x) ** 2, gc.exp(gc.sum(y))], mode=gc.Mode(backend="llvm", exclude=["fuse"]))
    g = gc.function([x, y], [gc.sum(x) ** 2, gc.exp(gc.sum(y))], mode=gc.Mode(backend="llvm"))
    for h in (f, g):
        assert [float(r) for r in h([1.0, 2.0], [0.0])] == [9.0, 1.0]


@pytest.mark.parametrize("passes", [None, "none"])
def test_sizes_that_are_0_when_compiling(passes: str | None) -> None:
    x = gc.tensor("x", shape=(None, 4, 0))
    mode = gc.Mode(backend="llvm", passes=passes)
    f = gc.function([x], [gc.tanh(x), gc.sum(gc.exp(x), axis=2), gc.softmax(x, axis=1), gc.sum(x)], mode=mode)
    assert [r.shape for r in f(np.zeros((3, 4, 0)))] == [(3, 4, 0), (3, 4), (3, 4, 0), ()]


def test_sizes_that_cannot_be_as_assumed() -> None:
    x, y = gc.vector("x"), gc.vector("y")
    f = gc.function([x, y], [x + np.ones(4), x + np.ones(2), x[1:] + y], mode=gc.Mode(backend="llvm"))
    assert [r.tolist() for r in f([1.0], [5.0])] == [[2.0] * 4, [2.0] * 2, []]


def test_float64_is_rounded_to_float16_once() -> None:
    x = gc.vector("x")
    values = np.array([1 + 2.0 ** -11 + 2.0 ** -40, 1 + 2.0 ** -11 - 2.0 ** -40, 65519.999, 65520.0, 2.0 ** -25 * 1.0001, np.nan, -np.inf, 1e300])
    with np.errstate(over="ignore"):
        want = values.astype(np.float16)
    assert gc.function([x], gc.cast(x, "float16"), mode=gc.Mode(backend="llvm"))(values).tobytes() == want.tobytes()


def test_misaligned_operands_of_a_call_out() -> None:
    z = gc.matrix("z", dtype="complex128")
    v = np.random.default_rng(0).normal(size=(40, 40)) * (1 + 2j)
    moved = np.ndarray(v.shape, v.dtype, bytearray(v.nbytes + 1), 1)
    moved[...] = v
    f = gc.function([z], z @ z.T, mode=gc.Mode(backend="llvm"))
    assert f(v).tobytes() == f(moved).tobytes()


def test_sizes_that_cannot_be_assumed() -> None:
    """Equal sizes would make an index an error when compiling; the call has others."""
    x = gc.tensor("x", shape=(0, None, 0))
    squares = gc.cast(gc.square(x), "complex128")
    one = squares[0:0, 0, 0:0] / gc.cast(gc.abs(gc.square(squares)) + 0.5, "complex128")
    y, z, c = gc.matrix("y"), gc.tensor("z", shape=(0, 1), dtype="complex128"), gc.scalar("c")
    part = gc.sinh(y[:, -2:1])
    angles = gc.arctan2(gc.inc_subtensor(part[0], c * -2.0), c * -2.0)
    two = [gc.flip(gc.cast(angles, "complex128") + gc.where(z != 0, z, z), axis=1), angles]
    none = np.zeros((0, 1), complex)
    for inputs, outputs, arguments, others in (([x], [one], [np.zeros((0, 1, 0))], [np.zeros((0, 1, 0))]),
                                               ([y, z, c], two, [np.ones((1, 4)), none, np.array(0.5)], [np.ones((1, 1)), none, np.array(0.5)])):
        check(Case(inputs, outputs, [], arguments, [], (others, []), "none", NONE, []), Seeded(0))


def test_sizes_of_what_is_not_computed() -> None:
    x = gc.vector("x")
    for passes in (None, "none"):
        f = gc.function([x], gc.sqrt(gc.cast(gc.expand_dims(x + 0.5, 0).shape[1], "float64")), mode=gc.Mode(backend="llvm", passes=passes))
        assert float(f(np.ones(4))) == 2.0


def test_convolutions_without_places() -> None:
    x, w = gc.tensor("x", shape=(1, 1, 1, 1)), gc.tensor("w", shape=(None, 1, 2, 2))
    with gc.config(verify=True):
        f = gc.function([x, w], gc.nn.conv(x, w, stride=2) * 2.0, mode=gc.Mode(backend="llvm"))
    assert f(np.ones((1, 1, 1, 1)), np.ones((3, 1, 2, 2))).shape == (1, 3, 0, 0)


@pytest.mark.parametrize("backend", ["reference", "numpy", "llvm"])
def test_windows_that_are_added_have_their_size(backend: str) -> None:
    y = gc.matrix("y")
    f = gc.function([y], overlap_add(y, (5,), (3,), (1,), (2,), (0,)), mode=gc.Mode(backend=backend))
    assert f(np.ones((1, 3))).tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]
    with pytest.raises(ValueError, match="must be equal"):
        f(np.ones((1, 1)))


def test_a_sum_over_the_grid_that_is_read_in_an_inner_loop() -> None:
    c, s, a = gc.matrix("c", dtype="bool"), gc.matrix("s"), gc.scalar("a")
    sums = gc.sum(gc.where(gc.expand_dims(c, 0), a, gc.expand_dims(s, 1)), axis=(0, 2))
    outputs = [sums, *gc.grad(gc.sum(gc.tanh(sums)), [s, a])]
    arguments = [np.array([[1, 0, 1], [0, 0, 1]], bool), np.arange(12.0).reshape(4, 3) / 9, np.array(0.3)]
    want, have = (gc.function([c, s, a], outputs, mode=gc.Mode(backend=backend))(*arguments) for backend in ("reference", "llvm"))
    for w, h in zip(want, have, strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-12)


def test_one_column_found_out_at_the_call_is_the_same_on_two_threads() -> None:
    a, b = gc.tensor("a", shape=(8, None)), gc.matrix("b")
    rng = np.random.default_rng(0)
    arguments = (rng.normal(size=(8, 100)), rng.normal(size=(1, 100)))
    with cut_small(), two_threads():
        f = gc.function([a, b], a @ b.T, mode=gc.Mode(backend="llvm"))
        found = []
        for threads in (1, 2):
            with gc.config(threads=threads):
                found.append(np.asarray(f._compiled.door.call(arguments, {})).tobytes())
    assert found[0] == found[1]
