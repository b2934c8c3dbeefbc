"""Functions to be compiled in several ways, their calls, and when a value that differs is wrong.

The oracle is the reference backend: the graph as written, node by node.  A value that
differs is not at once a failure: the graph may be ill-conditioned there, which
``graphc/judging.py`` finds out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from graph_strategies import NONE, Array, Derivatives

import graphc as gc
from graphc.checking import Checked
from graphc.ir import Graph, Shared, Var
from graphc.judging import Judge, close
from graphc.ops.evaluate import evaluate
from graphc.passes.rules import BY_NAME

__all__ = ["REFERENCE", "Difference", "Subject", "bits", "compare", "judge_of"]

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

    def compile(self, mode: gc.Mode | str, profile: bool = False) -> gc.Function:
        with gc.config(verify=True):
            return gc.function(list(self.inputs), list(self.outputs), updates=list(self.updates), mode=mode, on_unused_input="ignore", profile=profile)

    def call(self, f: gc.Function, arguments: Sequence[Array], state: Sequence[Array] | None = None, careful: bool = False) -> list[Array]:
        """Outputs and new state; the state is put back first, and arguments must not have changed.

        ``careful``: through Python, not through the native door.
        """
        for k, (s, value) in enumerate(self.state):
            s.container.value = value if state is None else state[k]
        copies = [a.copy() for a in arguments]
        outputs = f._compiled.door.call(tuple(arguments), {}) if careful else f(*arguments)
        results = list(outputs) + [s.container.value for s, _ in self.updates]
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
