"""What the fuzzer asserts of a random function, and how it finds the pass and the rule that broke it.

The oracle is the reference backend: the graph as written, node by node.  A value that
differs is not at once a failure: the graph may be ill-conditioned there, which
``graphc/judging.py`` finds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from graph_strategies import NONE, Array, Case, Derivatives, Replayed, Source, build

import graphc as gc
from graphc.checking import Checked
from graphc.ir import Graph, Shared, Var
from graphc.judging import Judge, close
from graphc.ops.evaluate import evaluate
from graphc.passes.cleanup import cleanup
from graphc.passes.context import Context
from graphc.passes.fold import fold
from graphc.passes.merge import merge
from graphc.passes.pipeline import PIPELINE
from graphc.passes.rules import BY_NAME
from graphc.passes.simplify import simplify
from graphc.rewiring import load_dump
from graphc.text import print_graph

NAMES = tuple(p.name for p in PIPELINE)
REFERENCE = gc.Mode(backend="reference")


class Difference(AssertionError):
    """Something the fuzzer found; the message says what, where, and how to see it again."""


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


def compare(judge: Judge, want: Sequence[Array], have: Sequence[Array], label: str, derivatives: Derivatives = NONE,
            f: gc.Function | None = None) -> None:
    """Raise Difference where results differ beyond doubt."""
    for k, (w, h) in enumerate(zip(want, have, strict=True)):
        if not isinstance(h, np.ndarray):
            raise Difference(f"{label}: result {k} is a {type(h).__name__}, not an array")
        reason = judge.difference(k, w, h)
        if reason is not None and f is not None and stabilised(f):
            reason = Judge(judge.graph, judge.arguments, judge.env, stabilised=True).difference(k, w, h)
        if reason is not None and k in derivatives.range and w.dtype == h.dtype and w.shape == h.shape:
            if derivatives.wild or not all_finite(judge) or (f is not None and same_mathematics(f, judge, k, h)) or (derivatives.kind == "jacobian" and roughly(judge, w, h)):
                continue
            with np.errstate(all="ignore"):
                other = np.where(np.isfinite(w) | np.isfinite(h), h, w)
            reason = Judge(judge.graph, judge.arguments, judge.env, shake=True, stabilised=True).difference(k, w, other)
        if reason is not None and not (f is not None and stabilised(f) and right_step_by_step(f, judge, k, h)):
            raise Difference(f"{label}: result {k}: {reason}")


def stabilised(f: gc.Function) -> bool:
    """Did a stabilising rule fire?"""
    return any(BY_NAME[rule].phase == "stable" for s in f.report for rule in s.fired if rule in BY_NAME)


def same_mathematics(f: gc.Function, judge: Judge, k: int, have: Array) -> bool:
    """Is the optimised graph right but for rounding: with the same derivative as the reference in wider floats?

    A stabilised value may have a derivative with fewer digits: that of sigmoid is y * (1 - y).
    """
    own = own_judge(f, judge)
    mine, theirs = own.wide(k), judge.wide(k)
    if mine is None or theirs is None or mine.shape != theirs.shape or not close(theirs, mine):
        return False
    return own.difference(k, evaluate(own.graph, own.arguments, judge.env)[k], have) is None


def own_judge(f: gc.Function, judge: Judge) -> Judge:
    """A judge of the optimised graph as it was before fusion."""
    graph = [s.graph for s in f.report if s.name != "fuse"][-1]
    values = dict(zip((*judge.graph.inputs, *judge.graph.shared), judge.arguments, strict=True))
    return Judge(graph, [values[v] for v in (*graph.inputs, *graph.shared)], judge.env)


def right_step_by_step(f: gc.Function, judge: Judge, k: int, have: Array) -> bool:
    """Is each rewrite right by itself, and does the backend compute what they make?

    Then a value differs because an inner one became better: 0.0 where there was NaN compares differently.
    """
    own = own_judge(f, judge)
    try:
        Checked(f.report, None)._blame(own.arguments, judge.env)
    except gc.errors.VerificationError:
        return False
    return own.difference(k, evaluate(own.graph, own.arguments, judge.env)[k], have) is None


def all_finite(judge: Judge) -> bool:
    """Is every value of the reference finite in this call?"""
    found: list[bool] = []
    evaluate(judge.graph, judge.arguments, judge.env, lambda node, operands, results: found.extend(
        bool(np.isfinite(r).all()) for r in results if r.dtype.kind in "fc"))
    return all(found) and all(bool(np.isfinite(a).all()) for a in judge.arguments if a.dtype.kind in "fc")


def roughly(judge: Judge, want: Array, have: Array) -> bool:
    """For derivatives in inner graphs, where the judge sees no rounding: equal up to that of numbers around 1."""
    single = any(v.type.dtype.name == "float32" for node in judge.graph.nodes for v in (*node.inputs, *node.outputs)) or any(
        v.type.dtype.name == "float32" for node in judge.graph.nodes for g in node.attrs.values() if isinstance(g, Graph)
        for inner in g.nodes for v in inner.outputs)
    with np.errstate(all="ignore"):
        scale = max(1.0, float(np.max(np.abs(want), initial=0.0, where=np.isfinite(want))))
        near = np.abs(want - have) <= (1e-4 if single else 1e-9) * scale
    return bool((near | (want == have) | (np.isnan(want) & np.isnan(have))).all())


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
    text = oracle.dump("input")
    if case.special == "none" and not any(f"= {name}(" in text for name in ("atan2", "copysign", "signbit")):  # "fast" ignores signs of zero
        modes.append(("level fast", gc.Mode(backend="numpy", level="fast")))
    if source.below(100) < (30 if thorough else 15):
        modes.append(("DEBUG", "DEBUG"))
    for label, mode in modes:
        f = mode if isinstance(mode, gc.Function) else subject.compile(mode)
        if mode == "DEBUG" and case.derivatives.wild:
            continue
        have = subject.call(f, case.arguments)
        compare(judge, want, have, label, case.derivatives, f)
        if other is not None and label != "level fast" and (thorough or f is full):
            other_want, other_judge = other
            try:
                have_other = subject.call(f, *case.others)
            except IndexError:
                if case.derivatives.kind == "jacobian":
                    continue  # the body of a loop over no rows: the reference never runs it, the pass loops hoists from it
                raise
            compare(other_judge, other_want, have_other, f"{label}, other sizes", case.derivatives, f)
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
    for p in (merge, fold, simplify, cleanup):
        again = print_graph(p(graph, Context()))
        if again != text:
            raise Difference(f"{p.__name__} changes a graph that cleanup made\n{first_difference(text, again)}")


def check_determinism(case: Case, taken: Sequence[int] | Source) -> None:
    """The same script makes the same text."""
    twin = build(Replayed(taken) if isinstance(taken, Sequence) else taken)
    texts = []
    for c in (case, twin):
        f = Subject(c.inputs, c.outputs, c.updates, c.state).compile(gc.Mode(backend="numpy"))
        for s, value in c.state:
            s.container.value = value
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
    return (f"import numpy as np\nfrom numpy import inf, nan\nfrom graph_checks import Derivatives, bisect\nTEXT = r'''{input_text(case)}'''\n"
            f"print(bisect(TEXT, [{arguments}], {case.derivatives!r}))\n")


def outcome(text: str, arguments: Sequence[Array], mode: gc.Mode, derivatives: Derivatives = NONE) -> str | None:
    """What goes wrong with a graph compiled in this mode; None if nothing does."""
    graph = load_dump(text)
    subject = Subject(graph.inputs, graph.outputs, graph.updates, [(s, s.container.value) for s in graph.shared])
    oracle = subject.compile(REFERENCE)
    want = subject.call(oracle, arguments)
    try:
        f = subject.compile(mode)
        compare(judge_of(oracle, subject, arguments, [a for _, a in subject.state]), want, subject.call(f, arguments), "", derivatives, f)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def bisect(text: str, arguments: Sequence[Array], derivatives: Derivatives = NONE) -> str:
    """Name the first prefix of the pipeline that goes wrong, and the rule without which it does not."""
    for k in range(len(NAMES) + 1):
        found = outcome(text, arguments, gc.Mode(backend="reference", passes=NAMES[:k]), derivatives)
        if found is None:
            continue
        where = f"pass {NAMES[k - 1]!r}" if k else "no pass at all"
        graph = load_dump(text)
        guilty = []
        for rule in _fired(graph, NAMES[:k]):
            if outcome(text, arguments, gc.Mode(backend="reference", passes=NAMES[:k], exclude=[rule]), derivatives) is None:
                guilty.append(rule)
        return f"{where}; rules without which it does not happen: {guilty or 'none alone'}; {found}"
    for k in range(len(NAMES) + 1):
        found = outcome(text, arguments, gc.Mode(backend="numpy", passes=NAMES[:k]), derivatives)
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
