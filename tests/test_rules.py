"""Every rewrite rule, tested from its own row of the table.

The oracle of a rule is its left side in wider arithmetic: comparing both sides in float64
would reject the rules that stabilise, because they are better.  Rules that claim every bit
are compared with the left side as it is evaluated, nan equal to nan.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import helpers
import mpmath
import numpy as np
import pytest

from graphc import dims, dtypes
from graphc.errors import GraphcError
from graphc.ir import Graph, Type, Var, leaves
from graphc.ops.arithmetic import add, div, mul, neg, sub
from graphc.ops.core import cast_op, constant
from graphc.ops.evaluate import evaluate
from graphc.ops.transcendental import exp, log, log1p
from graphc.passes.context import Context
from graphc.passes.pattern import AXES, CONSTANTS, Axes, Rule, parameters
from graphc.passes.rewrite import rewrite
from graphc.passes.rules import RULES
from graphc.passes.rules.algebra import holds_all

PATTERNS = [r for r in RULES if r.fn is None]
PROCEDURES = [r for r in RULES if r.fn is not None]
OF_KIND = {"f": ("float64", "float32"), "i": ("int8",), "u": ("uint8",), "b": ("bool",), "c": ("complex128",)}
ULPS = 4
OF_NAME = {name: dtypes.as_dtype(name) for name in dtypes.SHORT}
WIDE = {"bfloat16": "float32"}  # NumPy's signbit does not know it


def named(rules: Sequence[Rule]) -> Any:
    return pytest.mark.parametrize("rule", rules, ids=lambda r: r.name)


# ---- building both sides ------------------------------------------------------------------------


class Case:
    """The left side of a rule on leaves of one dtype, and what the rule makes of it."""

    def __init__(self, rule: Rule, form: Callable[..., Var], dtype: str, numbers: Sequence[Any] = (), axes: Axes | None = None,
                 shape: Callable[[int], tuple[Any, ...]] = lambda i: (dims.dim("n"),)) -> None:
        given: dict[str, Any] = {}
        rest = iter(numbers)
        for i, name in enumerate(parameters(form)):
            if name in CONSTANTS:
                given[name] = constant(next(rest), dtype)
            elif name == AXES:
                given[name] = axes
            else:
                own = "bool" if name in ("c", "d") else "complex128" if name == "z" else dtype
                given[name] = Var(Type(dtypes.DTYPES[own], (dims.dim("n"), 3) if axes is not None else shape(i)), name=name)
        self.inputs = [v for v in given.values() if isinstance(v, Var) and v.node is None]
        self.graph = Graph(self.inputs, [form(**given)])
        self.context = Context(level="fast")
        self.rewritten = rewrite(self.graph, (rule,), self.context, fold=True)

    @property
    def fired(self) -> bool:
        return any(r.rule != "fold" for r in self.context.log)


def dtypes_of(rule: Rule) -> list[str]:
    return [name for kind in "fiubc" if kind in rule.kinds for name in OF_KIND[kind]]


def numbers_of(rule: Rule, form: Callable[..., Var], dtype: str) -> list[tuple[Any, ...]]:
    """Values for the parameters k and m."""
    count = sum(name in CONSTANTS for name in parameters(form))
    kind = dtypes.DTYPES[dtype].kind
    pool: tuple[Any, ...] = {
        "f": (2.0, -0.5, 3.0, -1.0, 0.1, -7.25, 1024.0), "i": (-3, 1, 2, 100, -128), "u": (1, 2, 255), "b": (True, False), "c": (1j, -2.0)}[kind]
    return list(itertools.product(pool, repeat=count))


def cases(rule: Rule, only: Sequence[str] | None = None, **options: Any) -> Iterator[tuple[str, Case]]:
    """All cases of a rule that can be built and in which it fires."""
    for form in rule.forms:
        every = [None]
        if AXES in parameters(form):
            every = [Axes((1,), True, 2), Axes((0, 1), False, 2), Axes((1,), False, 2)]  # type: ignore[list-item]
        for dtype in only or dtypes_of(rule):
            for numbers, axes in itertools.product(numbers_of(rule, form, dtype), every):
                try:
                    case = Case(rule, form, dtype, numbers, axes, **options)
                except GraphcError:
                    continue  # ops that do not take the dtype; shapes that do not meet
                if case.fired:
                    yield dtype, case


# ---- values -------------------------------------------------------------------------------------


def specials(dtype: str) -> np.ndarray:
    kind = dtypes.DTYPES[dtype].kind
    if kind == "b":
        return np.array([False, True])
    if kind in "iu":
        info = np.iinfo(dtype)
        if info.bits > 8:
            return np.array([0, 1, 2, 7, info.max, info.max - 1, info.min, info.min + 1], dtype)
        return np.arange(info.min, info.max + 1).astype(dtype)
    info = np.finfo(dtypes.real_of(dtypes.DTYPES[dtype]))
    real = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 30.0, -30.0, info.tiny, -info.tiny / 4, info.eps / 8, -info.eps / 8,
                     float(np.log(info.max)) * 1.02, -float(np.log(info.max)) * 1.02, 1000.0, -1000.0, info.max, -info.max / 2, np.inf, -np.inf, np.nan])
    if kind == "f":
        return real.astype(dtype)
    few = np.array([0.0, -0.0, 1.0, -2.5, info.max, np.inf, -np.inf, np.nan])
    grid = np.empty((len(few), len(few)), dtype)
    grid.real, grid.imag = few[:, None], few[None, :]
    return grid.ravel()


def values(inputs: Sequence[Var], rng: np.random.Generator, few: bool = False) -> list[np.ndarray]:
    """All combinations of special values, then random ones."""
    pools = [specials(v.type.dtype.name) for v in inputs]
    if few:
        pools = [p if len(p) < 30 else p[::9] for p in pools]
    while np.prod([len(p) for p in pools]) > 70_000:
        pools = [p[::2] if len(p) > 20 else p[: max(len(p) * 2 // 3, 2)] for p in pools]
    grids = np.meshgrid(*pools, indexing="ij") if pools else []
    return [np.concatenate([g.ravel(), random(v.type.dtype.name, (40,), rng)]) for g, v in zip(grids, inputs, strict=True)]


def random(dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    kind = dtypes.DTYPES[dtype].kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    real = rng.uniform(-3, 3, shape)
    return (real + 1j * rng.uniform(-3, 3, shape) if kind == "c" else real).astype(dtype)


def run(graph: Graph, arguments: Sequence[np.ndarray], **sizes: int) -> np.ndarray:
    env = {next(dims.symbols(dims.dim(name))): n for name, n in sizes.items()}
    return evaluate(graph, arguments, env)[0]


def same_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Elementwise: the same bits, or both nan."""
    if a.dtype.kind in "biu":
        return a == b
    if a.dtype.kind == "c":
        both = (np.isnan(a.real) | np.isnan(a.imag)) & (np.isnan(b.real) | np.isnan(b.imag))
        return both | (same_bits(a.real, b.real) & same_bits(a.imag, b.imag))
    return (np.isnan(a) & np.isnan(b)) | ((a == b) & (np.signbit(a) == np.signbit(b)))


# ---- the oracle: the left side with 2400 bits -----------------------------------------------------

mp = mpmath.mp.clone()
mp.prec = 2400  # 1 + exp(-745) keeps its digits


def _div(a: Any, b: Any) -> Any:
    return mp.nan if b == 0 else a / b  # which infinity it is, the sign of zero would tell


@functools.cache
def _log(a: Any) -> Any:
    return mp.nan if mp.isnan(a) or a < 0 else mp.ninf if a == 0 else mp.log(a)


@functools.cache
def _exp(a: Any) -> Any:
    if mp.isnan(a) or a == mp.inf:
        return a
    return mp.mpf(0) if a == mp.ninf else mp.exp(a)


def _erf(a: Any) -> Any:
    if mp.isnan(a):
        return a
    return mp.sign(a) if abs(a) > 50 else mp.erf(a)  # 1 - erf(50) has no digit left in 2400 bits


def _power(a: Any, b: Any) -> Any:
    return _div(mp.mpf(1), a ** -int(b)) if b < 0 else a ** int(b)


SCALAR: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "neg": lambda a: -a, "div": _div,
    "reciprocal": lambda a: _div(mp.mpf(1), a), "sqr": lambda a: a * a, "sqrt": lambda a: mp.nan if mp.isnan(a) or a < 0 else mp.sqrt(a),
    "abs": abs, "exp": _exp, "expm1": lambda a: _exp(max(a, mp.mpf(-1600)) if a != mp.ninf else a) - 1, "log": _log, "log1p": lambda a: _log(1 + a),
    "sigmoid": lambda a: _div(mp.mpf(1), 1 + _exp(-a)), "erf": _erf, "erfc": lambda a: 1 - _erf(a), "pow": _power,
    "cos": lambda a: mp.nan if mp.isnan(a) or mp.isinf(a) else mp.cos(a), "cosh": lambda a: (_exp(a) + _exp(-a)) / 2,
}


# expm1: what exp(-1600) adds to -1 is beyond the bits, so larger operands are taken as that; log(0) would be wrong by more


def wide(graph: Graph, row: Sequence[Any]) -> Any:
    """The value of the root for one element (or one row of a reduced operand), as a list of numbers."""
    known: dict[Var, list[Any]] = {v: [mp.mpf(float(x)) for x in np.atleast_1d(given)] for v, given in zip(graph.inputs, row, strict=True)}
    for node in graph.nodes:
        operands = [known[v] for v in node.inputs]
        name = node.op.name
        if name == "constant":
            result = [mp.mpf(float(node.attrs["value"]))]
        elif name in ("expand_dims", "cast"):
            result = operands[0]
        elif name in ("sum", "logsumexp", "softmax", "log_softmax"):
            x, = operands
            exps = x if name == "sum" else [_exp(v) for v in x]
            total = functools.reduce(lambda a, b: a + b, exps)
            result = {"sum": lambda: [total], "logsumexp": lambda: [_log(total)], "softmax": lambda: [_div(e, total) for e in exps],
                      "log_softmax": lambda: [v - _log(total) for v in x]}[name]()
        else:
            width = max(map(len, operands))
            result = [SCALAR[name](*(o[i % len(o)] for o in operands)) for i in range(width)]
        known[node.outputs[0]] = result
    return known[graph.outputs[0]]


def error(value: Any, true: Any, scale: float) -> float:
    """How far a float lies from the true number, in units of the last place of the number or of ``scale``, if larger."""
    info = np.finfo(value.dtype)
    if np.isnan(value):
        return np.inf
    if mp.isinf(true):
        return 0.0 if np.isinf(value) and (value > 0) == (true > 0) else np.inf
    largest = mp.mpf(float(info.max))
    if abs(true) > largest:
        return 0.0 if np.isinf(value) and (value > 0) == (true > 0) else float(min((abs(true) - abs(mp.mpf(float(value)))) / largest, mp.mpf(1e9)))
    if np.isinf(value):
        return np.inf
    size = max(abs(true), mp.mpf(scale))
    digits = mp.ldexp(1, mp.frexp(size)[1] - info.nmant - 1) if size else mp.mpf(0)
    ulp = max(digits, mp.mpf(float(info.smallest_subnormal)))
    return float(min(abs(mp.mpf(float(value)) - true) / ulp, mp.mpf(1e9)))


# ---- the checks ---------------------------------------------------------------------------------


def check_bits(rule: Rule) -> None:
    rng = np.random.default_rng(1)
    count = 0
    for _, case in cases(rule):
        arguments = values(case.inputs, rng)
        n = len(arguments[0]) if arguments else 1
        left, right = run(case.graph, arguments, n=n), run(case.rewritten, arguments, n=n)
        assert left.dtype == right.dtype and left.shape == right.shape
        wrong = np.flatnonzero(~same_bits(left, right))
        assert not wrong.size, f"at {[a[wrong[0]] for a in arguments]}: {left[wrong[0]]} became {right[wrong[0]]}"
        count += 1
    assert count, "the rule never fires on its own left side"


def rows(case: Case, rng: np.random.Generator) -> list[np.ndarray]:
    """Few enough values for the oracle; rows of three for reductions."""
    pools = [specials(v.type.dtype.name) for v in case.inputs]
    if case.inputs[0].type.ndim == 2:
        some = list(itertools.product(pools[0][[0, 2, 5, 12, 15, 18, 19, 20]], repeat=3))[::3]
        return [np.array([*some, *random(case.inputs[0].type.dtype.name, (20, 3), rng)], case.inputs[0].type.dtype)]
    if len(pools) > 1:
        pools = [p[[0, 1, 2, 5, 7, 8, 9, 12, 13, 15, 16, 18, 19, 20]] for p in pools]
    return [np.concatenate([g.ravel(), random(v.type.dtype.name, (30,), rng)])
            for g, v in zip(np.meshgrid(*pools, indexing="ij"), case.inputs, strict=True)]


def check_error(rule: Rule) -> bool:
    """Is the right side never worse by more than some units in the last place?  Gives: is it anywhere much better?"""
    rng = np.random.default_rng(2)
    better = False
    count = 0
    for _, case in cases(rule):
        count += 1
        arguments = rows(case, rng)
        n = len(arguments[0])
        if case.graph.outputs[0].type.ndim == 0:  # reduced as a whole: row by row
            pairs = [(run(case.graph, [a[i:i + 1] for a in arguments], n=1), run(case.rewritten, [a[i:i + 1] for a in arguments], n=1)) for i in range(n)]
        elif any(n.attrs.get("axis") == (0, 1) for n in case.graph.nodes):
            pairs = [(run(case.graph, [a[i:i + 1] for a in arguments], n=1)[0], run(case.rewritten, [a[i:i + 1] for a in arguments], n=1)[0]) for i in range(n)]
        else:
            left, right = run(case.graph, arguments, n=n), run(case.rewritten, arguments, n=n)
            assert left.dtype == right.dtype and left.shape == right.shape
            pairs = list(zip(left, right, strict=True))
        for i, (was, now) in enumerate(pairs):
            point = [a[i] for a in arguments]
            if rule.holds is not None and not rule.holds(*[p for p, v in zip(point, case.inputs, strict=True) if v.name in parameters(rule.holds)]):
                continue
            finite = np.abs(np.concatenate([np.ravel(p)[np.isfinite(np.ravel(p))] for p in point]), dtype=np.float64)
            scale = max(1.0, *finite, 1.0) if rule.scale == "operands" else 0.0
            for a, b, t in zip(np.atleast_1d(was), np.atleast_1d(now), wide(case.graph, point), strict=True):
                if mp.isnan(t):
                    assert np.isnan(a) or same_bits(a, b) or (rule.phase == "stable" and np.isnan(b)), f"at {point}: {a} became {b}"
                    continue
                before, after = error(a, t, scale), error(b, t, scale)
                assert after <= before + ULPS, f"at {point}: {a} ({before:.3g} ulp) became {b} ({after:.3g} ulp); true {mp.nstr(t, 20)}"
                if rule.phase == "canonical" and np.isfinite(a):
                    assert np.isfinite(b) and (a == 0) == (b == 0) and np.signbit(a) == np.signbit(b), f"at {point}: {a} became {b}"
                better = better or (before > ULPS >= after)
    assert count, "the rule never fires on its own left side"
    return better


def check_close(rule: Rule) -> None:
    """Level "fast": right for finite values of moderate size."""
    rng = np.random.default_rng(3)
    count = 0
    for dtype, case in cases(rule):
        arguments = [np.abs(random(v.type.dtype.name, (60,), rng)) + 0.25 if v.type.dtype.kind != "b" else random("bool", (60,), rng)
                     for v in case.inputs]
        left, right = run(case.graph, arguments, n=60), run(case.rewritten, arguments, n=60)
        assert left.dtype == right.dtype and left.shape == right.shape
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(right, left, rtol=tolerance, atol=tolerance)
        count += 1
    assert count, "the rule never fires on its own left side"


def check_values(rule: Rule) -> None:
    if rule.level == "fast":
        check_close(rule)
    elif rule.bits:
        check_bits(rule)
    else:
        check_error(rule)


@named([r for r in PATTERNS if r.phase == "canonical"])
def test_canonical_rules_keep_values(rule: Rule) -> None:
    check_values(rule)


@named([r for r in PATTERNS if r.phase == "stable"])
def test_stable_rules_are_never_worse_and_somewhere_better(rule: Rule) -> None:
    better = check_error(rule)
    # the two that put several ops into one, whose derivatives are the better ones
    assert better or rule.name in ("exp_log_softmax", "log_softmax_sub"), "a stable rule that makes nothing better"


SHAPES = {
    "broadcasting": lambda i: [(3, 1), (4,), (), (1, 4), (2, 1, 1)][i % 5],
    "empty": lambda i: [(0, 1), (1,), (), (0, 4)][i % 4],
    "unknown": lambda i: [(dims.dim("n"),), (dims.dim("m"),), (), (1,)][i % 4],
}


@pytest.mark.parametrize("shapes", SHAPES)
@named([r for r in PATTERNS if not any(AXES in parameters(f) for f in r.forms)])
def test_rules_keep_shapes_and_dtypes(rule: Rule, shapes: str) -> None:
    rng = np.random.default_rng(4)
    sizes = [{"n": 4, "m": 4}, {"n": 1, "m": 4}, {"n": 4, "m": 1}, {"n": 0, "m": 1}] if shapes == "unknown" else [{}]
    for _, case in cases(rule, shape=SHAPES[shapes]):
        before, after = case.graph.outputs[0].type, case.rewritten.outputs[0].type
        assert before == after
        for env in sizes:
            symbols = {next(dims.symbols(dims.dim(k))): v for k, v in env.items()}
            arguments = [random(v.type.dtype.name, tuple(dims.evaluate(s, symbols) for s in v.type.shape), rng) for v in case.inputs]
            left, right = run(case.graph, arguments, **env), run(case.rewritten, arguments, **env)
            assert left.shape == right.shape and left.dtype == right.dtype


@named(PROCEDURES)
def test_procedures_keep_values(rule: Rule) -> None:
    rng = np.random.default_rng(5)
    assert rule.examples, "a procedure needs examples"
    for build in rule.examples:
        root = build()
        inputs = leaves([root])
        graph = Graph(inputs, [root])
        context = Context(level="fast")
        rewritten = rewrite(graph, (rule,), context)
        assert [r.rule for r in context.log] and all(r.rule == rule.name for r in context.log), "it does not fire on its example"
        for n, m in ((4, 2), (1, 1), (0, 3), (1, 4), (4, 1)):
            symbols = {next(dims.symbols(dims.dim("n"))): n, next(dims.symbols(dims.dim("m"))): m}
            shapes = [tuple(4 if _is_data(s) else dims.evaluate(s, symbols) for s in v.type.shape) for v in inputs]
            for arguments in _arguments(inputs, shapes, rng):
                left, right = run(graph, arguments, n=n, m=m), run(rewritten, arguments, n=n, m=m)
                assert left.dtype == right.dtype and left.shape == right.shape
                if rule.bits:
                    assert np.all(same_bits(left, right)), f"{arguments}: {left} became {right}"
                else:
                    np.testing.assert_allclose(right, left, rtol=1e-13)


def _is_data(size: dims.Size) -> bool:
    return any(s.kind == "data" for s in dims.symbols(size))


def _arguments(inputs: Sequence[Var], shapes: Sequence[tuple[int, ...]], rng: np.random.Generator) -> Iterator[list[np.ndarray]]:
    yield [random(v.type.dtype.name, s, rng) for v, s in zip(inputs, shapes, strict=True)]
    if all(s == () for s in shapes):
        for combination in itertools.product(*(specials(v.type.dtype.name) for v in inputs)):
            yield [np.asarray(x) for x in combination]


# ---- termination, idempotence, cost ---------------------------------------------------------------


def sides(rule: Rule) -> list[Case]:
    """One case per form and dtype."""
    found: dict[tuple[str, Any], Case] = {}
    for form in rule.forms:
        single = Rule(rule.name, form, rule.rhs, rule.when, phase=rule.phase, level=rule.level, kinds=rule.kinds)
        for dtype, case in cases(single):
            found.setdefault((dtype, form), case)
    return list(found.values())


def cost(graph: Graph) -> float:
    return sum(n.op.flops + 0.01 for n in graph.nodes if n.op.name != "constant")


def check_cost(rule: Rule) -> None:
    for case in sides(rule):
        if rule.phase == "canonical":
            assert cost(case.rewritten) <= cost(case.graph), f"{cost(case.graph)} became {cost(case.rewritten)}"
        else:  # stability may cost a sign
            count = [sum(n.op.name != "constant" for n in g.nodes) for g in (case.graph, case.rewritten)]
            assert count[1] <= count[0] + 1


@named(PATTERNS)
def test_rules_make_nothing_dearer(rule: Rule) -> None:
    check_cost(rule)


def graphs(rule: Rule) -> list[Graph]:
    if rule.fn is not None:
        return [Graph(leaves([root]), [root]) for root in (build() for build in rule.examples)]
    return [case.graph for case in sides(rule)]


@named(RULES)
def test_twice_is_once(rule: Rule) -> None:
    for graph in graphs(rule):
        once = rewrite(graph, (rule,), Context(level="fast"), fold=True)
        again = Context(level="fast")
        rewrite(once, (rule,), again, fold=True)
        assert not again.log, f"{again.log[0].rule} fires again"


@pytest.mark.parametrize("level", ["exact", "fast"])
@named(RULES)
def test_the_whole_table_comes_to_rest(rule: Rule, level: str) -> None:
    for graph in graphs(rule):
        for side in (graph, rewrite(graph, (rule,), Context(level="fast"))):
            rest = rewrite(side, RULES, Context(level=level), fold=True)
            again = Context(level=level)
            rewrite(rest, RULES, again, fold=True)
            assert not again.log, f"{again.log[0].rule} still fires"


@pytest.mark.parametrize("small", [*OF_NAME])
@pytest.mark.filterwarnings("ignore")
def test_a_dtype_holds_all_values_of_another_if_they_come_back(small: str) -> None:
    given = helpers.special(small)
    for large in OF_NAME:
        there = cast_op.forward(given, dtype=OF_NAME[large])
        back = cast_op.forward(there, dtype=OF_NAME[small])
        if given.dtype.kind in "biu":  # as Python's numbers, since a wrapped integer may come back
            kept = given.tolist() == there.astype(WIDE.get(large, large)).tolist()
        else:
            kept = bool(np.all(same_bits(given.astype(WIDE.get(small, small)), back.astype(WIDE.get(small, small)))))
        assert holds_all(OF_NAME[small], OF_NAME[large]) == kept, f"{small} in {large}"


def test_rules_are_told_apart_and_explained() -> None:
    assert len({r.name for r in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.note and rule.phase in ("canonical", "stable") and rule.level in ("exact", "fast")
        assert (rule.fn is None) == bool(rule.lhs)


# ---- does the harness reject what is wrong? --------------------------------------------------------


def test_harness_rejects_zero_times_x() -> None:
    with pytest.raises(AssertionError, match="became 0"):
        check_values(Rule("wrong", lambda x: mul(x, 0.0), lambda x: 0.0, kinds="f"))


def test_harness_rejects_a_lost_sign_of_zero() -> None:
    with pytest.raises(AssertionError, match="became"):
        check_values(Rule("wrong", lambda a, b: neg(sub(a, b)), lambda a, b: sub(b, a), kinds="f"))


def test_harness_rejects_x_over_x() -> None:
    with pytest.raises(AssertionError, match=r"became 1\.0"):
        check_values(Rule("wrong", lambda x: div(x, x), lambda x: 1.0, kinds="f"))


def test_harness_rejects_a_rule_that_loses_digits() -> None:
    with pytest.raises(AssertionError, match="ulp"):
        check_values(Rule("wrong", lambda x: log1p(x), lambda x: log(add(1.0, x)), kinds="f", phase="stable", bits=False))


def test_harness_rejects_wrapping_integers() -> None:
    with pytest.raises(AssertionError, match="became"):
        check_values(Rule("wrong", lambda x, k: div(mul(x, k), k), lambda x: x, kinds="f"))


def test_harness_rejects_a_rule_that_never_fires() -> None:
    with pytest.raises(AssertionError, match="never fires"):
        check_values(Rule("wrong", lambda x: exp(x), lambda x: exp(x), lambda x: "no", kinds="f"))


def test_harness_rejects_a_dearer_right_side() -> None:
    with pytest.raises(AssertionError, match="became"):
        check_cost(Rule("wrong", lambda x: neg(x), lambda x: mul(mul(x, 1.5), -1 / 1.5), kinds="f"))
