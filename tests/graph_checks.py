"""What the fuzzer asserts of a random function, and how it finds the pass and the rule that broke it.

The oracle is the reference backend: the graph as written, node by node.  A value that
differs is not at once a failure: the graph may be ill-conditioned there.  So the reference
graph is evaluated again in wider floats, and with a little noise on every rounded node; what
agrees with the wide value, or lies within what noise does, is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import graphc as gc
from graphc.dims import Symbol
from graphc.ir import Graph, Node, Shared, Var, concrete, normal
from graphc.passes.cleanup import cleanup
from graphc.passes.context import Context
from graphc.passes.fold import fold
from graphc.passes.merge import merge
from graphc.passes.pipeline import PIPELINE
from graphc.passes.simplify import simplify
from graphc.passes.stabilise import stabilise
from graphc.text import print_graph
from graphc.text_parse import load_dump
from graph_strategies import Array, Case, Replayed, Source, build

TOLERANCE = {"float16": 2e-2, "float32": 1e-4, "complex64": 1e-4, "float64": 1e-9, "complex128": 1e-9}
WIDER = {"float16": "float64", "float32": "float64", "float64": "longdouble", "complex64": "complex128", "complex128": "clongdouble"}
NAMES = tuple(p.name for p in PIPELINE)
REFERENCE = gc.Mode(backend="reference")

#: ops that round nothing: noise on them would only break ties
SELECTING = frozenset({
    "where", "maximum", "minimum", "neg", "abs", "cast", "relu", "clip", "sign", "floor", "ceil", "trunc", "round", "positive", "real", "imag", "conj"})


class Difference(AssertionError):
    """Something the fuzzer found; the message says what, where, and how to see it again."""


# ---- is a difference an error? ------------------------------------------------------------------


@dataclass
class Judge:
    """Knows, for one call, where the reference itself is not to be trusted."""

    graph: Graph
    arguments: Sequence[Array]
    env: Mapping[Symbol, int]
    wide: list[Array] | None = None
    noisy: list[list[Array]] | None = None

    def prepare(self) -> None:
        if self.noisy is None:
            try:
                self.wide = evaluate(self.graph, self.arguments, self.env, wide=True)
            except (TypeError, ValueError, NotImplementedError):
                self.wide = None  # an op that has no wide form
            self.noisy = [evaluate(self.graph, self.arguments, self.env, np.random.default_rng(k)) for k in range(6)]

    def bad(self, root: int, want: Array, have: Array) -> Array:
        """Which elements differ beyond doubt."""
        bad = differing(want, have)
        if not bad.any():
            return bad
        self.prepare()
        assert self.noisy is not None
        samples = [s[root] for s in self.noisy]
        if any(s.shape != want.shape for s in samples):
            return np.zeros_like(bad)
        with np.errstate(all="ignore"):
            if want.dtype.kind not in "fc":
                for s in samples:
                    bad &= s == want
                return bad
            if self.wide is not None and self.wide[root].shape == want.shape:
                wide = self.wide[root]
                narrow = wide.astype(want.dtype)
                bad &= differing(narrow, have)
                if not bad.any():
                    return bad
            scale = _scale(want)
            spread = np.zeros(want.shape)
            for s in samples:
                unstable = np.isfinite(s) != np.isfinite(want)
                spread = np.maximum(spread, np.where(np.isfinite(s) & np.isfinite(want), np.abs(s.astype("c16") - want.astype("c16")), 0))
                bad &= ~unstable
            bad &= ~(np.abs(want.astype("c16") - have.astype("c16")) <= TOLERANCE[want.dtype.name] * scale + 100 * spread)
        return bad


def evaluate(graph: Graph, arguments: Sequence[Array], env: Mapping[Symbol, int], noise: np.random.Generator | None = None,
             wide: bool = False) -> list[Array]:
    """The roots of a graph without placeholders: with noise of some ulp on each rounded node, or in wider floats."""
    def widened(a: Array) -> Array:
        return a.astype(WIDER[a.dtype.name]) if wide and a.dtype.name in WIDER else a

    values: dict[Var, Array] = {v: widened(a) for v, a in zip((*graph.inputs, *graph.shared), arguments, strict=True)}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            results = normal(node.op.forward(*[values[v] for v in node.inputs], **_wide_attrs(concrete(node.attrs, env), wide)))
            for v, result in zip(node.outputs, results, strict=True):
                array = np.asarray(result)
                if noise is not None and _rounds(node) and array.dtype.kind in "fc":
                    eps = np.finfo(array.dtype).eps
                    array = np.asarray(array * (1 + 4 * eps * noise.uniform(-1, 1, array.shape))).astype(array.dtype)
                values[v] = widened(array)
    return [values[v] for v in graph.roots]


def _wide_attrs(attrs: Mapping[str, Any], wide: bool) -> Mapping[str, Any]:
    if not wide:
        return attrs
    return {k: np.dtype(WIDER[v.name]) if isinstance(v, np.dtype) and v.name in WIDER else v for k, v in attrs.items()}


def _rounds(node: Node) -> bool:
    return node.op.kind in ("elementwise", "reduction", "contraction", "control") and node.op.name not in SELECTING


def _scale(want: Array) -> float:
    with np.errstate(all="ignore"):
        return float(np.max(np.abs(np.where(np.isfinite(want), want, 0)), initial=0.0))


def differing(want: Array, have: Array) -> Array:
    """Which elements differ by more than rounding; finite where the reference is not counts as better."""
    if want.dtype.kind not in "fc":
        return np.asarray(want != have)
    if want.dtype.kind == "c":
        return np.asarray(differing(want.real, have.real) | differing(want.imag, have.imag)) & ~(~np.isfinite(want) & np.isfinite(have))
    with np.errstate(all="ignore"):
        scale = _scale(want)
        same = (want == have) | (np.isnan(want) & np.isnan(have)) | (~np.isfinite(want) & np.isfinite(have))
        close = np.abs(want - have) <= TOLERANCE.get(want.dtype.name, 1e-4) * max(scale, float(np.finfo(want.dtype).tiny))
    return np.asarray(~(same | (close & np.isfinite(want))))


# ---- calls --------------------------------------------------------------------------------------


@dataclass
class Subject:
    """A function to be compiled in several ways: a case, or a graph read from a dump."""

    inputs: Sequence[Var]
    outputs: Sequence[Var]
    updates: Sequence[tuple[Shared, Var]]
    state: Sequence[tuple[Shared, Array]]

    def compile(self, mode: gc.Mode | str) -> gc.Function:
        with gc.config(verify=True):
            return gc.function(list(self.inputs), list(self.outputs), updates=list(self.updates), mode=mode, on_unused_input="ignore")

    def call(self, f: gc.Function, arguments: Sequence[Array], state: Sequence[Array] | None = None) -> list[Array]:
        """Outputs and new state; the state is put back first, and arguments must not have changed."""
        for k, (s, value) in enumerate(self.state):
            s.container.value = value if state is None else state[k]
        copies = [a.copy() for a in arguments]
        results = list(f(*arguments)) + [s.container.value for s, _ in self.updates]
        for a, c in zip(arguments, copies, strict=True):
            if a.tobytes() != c.tobytes():
                raise Difference("the call changed an argument")
        return results


def judge_of(f: gc.Function, subject: Subject, arguments: Sequence[Array], state: Sequence[Array]) -> Judge:
    values = {**dict(zip(subject.inputs, arguments, strict=True)), **{s: a for (s, _), a in zip(subject.state, state, strict=True)}}
    arrays = [values[v] for v in (*f.graph.inputs, *f.graph.shared)]
    return Judge(f.graph, arrays, f._compiled.door.solve(arrays))


def compare(judge: Judge, want: Sequence[Array], have: Sequence[Array], label: str) -> None:
    """Raise Difference where results differ beyond doubt."""
    for k, (w, h) in enumerate(zip(want, have, strict=True)):
        if not isinstance(h, np.ndarray):
            raise Difference(f"{label}: result {k} is a {type(h).__name__}, not an array")
        if w.dtype != h.dtype or w.shape != h.shape:
            raise Difference(f"{label}: result {k} is {h.dtype}{list(h.shape)}; the reference gives {w.dtype}{list(w.shape)}")
        bad = judge.bad(k, w, h)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise Difference(f"{label}: result {k} at {at} is {h[at]!r}; the reference gives {w[at]!r}")


def bits(arrays: Sequence[Array]) -> list[bytes]:
    return [np.asarray(a).tobytes() for a in arrays]


# ---- the checks -----------------------------------------------------------------------------------


def check(case: Case, source: Source, thorough: bool = False) -> None:
    """Everything that must hold of one random function."""
    subject = Subject(case.inputs, case.outputs, case.updates, case.state)
    oracle = subject.compile(REFERENCE)
    want = subject.call(oracle, case.arguments)
    judge = judge_of(oracle, subject, case.arguments, [a for _, a in case.state])
    other = _other_call(oracle, subject, case)

    full = subject.compile(gc.Mode(backend="numpy"))
    modes: list[tuple[str, Any]] = [("all passes, numpy", full), ("FAST_COMPILE", "FAST_COMPILE")]
    prefixes = range(len(NAMES) + 1) if thorough else sorted({source.below(len(NAMES) + 1) for _ in range(2)})
    for k in prefixes:
        backend = "reference" if (k + source.below(2)) % 2 else "numpy"
        modes.append((f"passes {NAMES[:k]}, {backend}", gc.Mode(backend=backend, passes=NAMES[:k])))
    if source.below(100) < (30 if thorough else 15):
        modes.append(("DEBUG", "DEBUG"))
    for label, mode in modes:
        f = mode if isinstance(mode, gc.Function) else subject.compile(mode)
        if mode == "DEBUG" and case.special:
            continue  # DEBUG has no judge: stabilised values of special operands would be blamed
        have = subject.call(f, case.arguments)
        compare(judge, want, have, label)
        if other is not None and (thorough or f is full):
            other_want, other_judge = other
            compare(other_judge, other_want, subject.call(f, case.others[0], case.others[1]), f"{label}, other sizes")
        if f is full and bits(subject.call(f, case.arguments)) != bits(have):
            raise Difference(f"{label}: the second call gives other bits than the first")
    check_dump(full, subject, case, want)
    check_idempotence(full)


def _other_call(oracle: gc.Function, subject: Subject, case: Case) -> tuple[list[Array], Judge] | None:
    """The reference at other sizes; None where the graph rejects them (an index out of range, a broken relation)."""
    try:
        want = subject.call(oracle, *case.others)
    except (ValueError, IndexError):
        return None
    finally:
        for s, value in case.state:
            s.container.value = value
    return want, judge_of(oracle, subject, *case.others)


def check_dump(full: gc.Function, subject: Subject, case: Case, want: Sequence[Array]) -> None:
    """The dump parses back to a graph that prints alike and computes the same bits."""
    for s, value in case.state:
        s.container.value = value
    text = full.dump("final")
    graph = load_dump(text)
    again = print_graph(graph, "final")
    if again != text:
        raise Difference(f"dump: printing what was read gives another text\n{first_difference(text, again)}")
    have = subject.call(full, case.arguments)
    loaded = Subject(graph.inputs, graph.outputs, graph.updates, [])
    f = gc.function(list(graph.inputs), list(graph.outputs), updates=list(graph.updates), on_unused_input="ignore",
                    mode=gc.Mode(backend="numpy", passes="none"))
    if bits(loaded.call(f, case.arguments)) != bits(have):
        raise Difference("dump: the graph read back gives other bits")


def check_idempotence(full: gc.Function) -> None:
    """The rewriting passes have nothing left to do on what they made."""
    graph = next(s.graph for s in full.report if s.name == "cleanup")
    text = print_graph(graph)
    for p in (merge, fold, simplify, stabilise, cleanup):
        again = print_graph(p(graph, Context()))
        if again != text:
            raise Difference(f"{p.__name__} changes a graph that cleanup made\n{first_difference(text, again)}")


def check_determinism(case: Case, taken: Sequence[int] | Source) -> None:
    """The same script makes the same text."""
    twin = build(Replayed(taken) if isinstance(taken, Sequence) else taken)
    texts = []
    for c in (case, twin):
        f = Subject(c.inputs, c.outputs, c.updates, c.state).compile(gc.Mode(backend="numpy"))
        texts.append(f.dump("final") + f.dump("source") + f.dump("memory"))
    if texts[0] != texts[1]:
        raise Difference(f"the same script gives two dumps\n{first_difference(*texts)}")


def first_difference(a: str, b: str) -> str:
    for x, y in zip(a.splitlines(), b.splitlines(), strict=False):
        if x != y:
            return f"- {x}\n+ {y}"
    return f"{len(a.splitlines())} lines, then {len(b.splitlines())}"


# ---- reproducing and bisecting --------------------------------------------------------------------


def input_text(case: Case) -> str:
    """The graph as written, with its state, as a dump."""
    for s, value in case.state:
        s.container.value = value
    f = gc.function(case.inputs, case.outputs, updates=case.updates, mode=REFERENCE, on_unused_input="ignore")
    return f.dump("input")


def array_source(a: Array) -> str:
    """Python text that makes an array, special values included."""
    return f"np.array({a.tolist()!r}, np.{a.dtype.name if a.dtype.kind != 'b' else 'bool_'}).reshape({a.shape})"


def reproducer(case: Case) -> str:
    """A script to paste."""
    arguments = ", ".join(array_source(a) for a in case.arguments)
    return (f"import numpy as np\nfrom numpy import inf, nan\nfrom graph_checks import bisect\nTEXT = r'''{input_text(case)}'''\n"
            f"print(bisect(TEXT, [{arguments}]))\n")


def outcome(text: str, arguments: Sequence[Array], mode: gc.Mode) -> str | None:
    """What goes wrong with a graph compiled in this mode; None if nothing does."""
    graph = load_dump(text)
    subject = Subject(graph.inputs, graph.outputs, graph.updates, [(s, s.container.value) for s in graph.shared])
    oracle = subject.compile(REFERENCE)
    want = subject.call(oracle, arguments)
    try:
        f = subject.compile(mode)
        compare(judge_of(oracle, subject, arguments, [a for _, a in subject.state]), want, subject.call(f, arguments), "")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def bisect(text: str, arguments: Sequence[Array]) -> str:
    """Name the first prefix of the pipeline that goes wrong, and the rule without which it does not."""
    for k in range(len(NAMES) + 1):
        found = outcome(text, arguments, gc.Mode(backend="reference", passes=NAMES[:k]))
        if found is None:
            continue
        where = f"pass {NAMES[k - 1]!r}" if k else "no pass at all"
        graph = load_dump(text)
        guilty = []
        for rule in _fired(graph, NAMES[:k]):
            if outcome(text, arguments, gc.Mode(backend="reference", passes=NAMES[:k], exclude=[rule])) is None:
                guilty.append(rule)
        return f"{where}; rules without which it does not happen: {guilty or 'none alone'}; {found}"
    for k in range(len(NAMES) + 1):
        found = outcome(text, arguments, gc.Mode(backend="numpy", passes=NAMES[:k]))
        if found is not None:
            return f"backend numpy, after {NAMES[k - 1] if k else 'no pass'!r}: {found}"
    return "it does not happen again"


def _fired(graph: Graph, passes: Sequence[str]) -> list[str]:
    """The rules that fired in these passes, in order; all of them unless compiling itself fails."""
    try:
        f = gc.function(list(graph.inputs), list(graph.outputs), updates=list(graph.updates), on_unused_input="ignore",
                        mode=gc.Mode(backend="reference", passes=passes))
    except Exception:
        return rule_names()
    return list(dict.fromkeys(r.rule for s in f.report for r in s.log if r.rule != "build_grad"))


def rule_names() -> list[str]:
    """Every rule of the engine."""
    from graphc.passes import rules
    found = getattr(rules, "RULES", ())
    return [r.name for r in found]
