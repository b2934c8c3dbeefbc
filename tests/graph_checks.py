"""What the fuzzer asserts of a random function, and how it finds the pass and the rule that broke it.

graph_subjects.py says what is compared with what; native_checks.py has what is asked of machine code besides.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest import mock

from graph_strategies import NONE, Array, Case, Derivatives, Replayed, Source, build
from graph_subjects import REFERENCE, Difference, Subject, bits, compare, judge_of
from native_checks import check_native

import graphc as gc
from graphc.ir import Graph
from graphc.judging import Judge
from graphc.passes import keep, recompute, sweeps
from graphc.passes.cleanup import cleanup
from graphc.passes.context import Context
from graphc.passes.fold import fold
from graphc.passes.merge import merge
from graphc.passes.pipeline import PIPELINE
from graphc.passes.simplify import simplify
from graphc.rewiring import load_dump
from graphc.text import print_graph

__all__ = ["REFERENCE", "Difference", "Subject", "bisect", "check", "check_determinism", "compare", "input_text", "judge_of", "reproducer"]

NAMES = tuple(p.name for p in PIPELINE)


# ---- the checks -----------------------------------------------------------------------------------


#: so that arrays of any size are swept, block by block, computed again for the gradient, and kept
SWEPT = {sweeps: {"LEAST_BYTES": 1, "MOST_ROWS": 4, "LEAST_ROWS": 4, "MUCH_WORK": 1, "PARTS": 1, "COLUMNS": 1, "LINE": 8, "SHARED_BYTES": 1, "LEAST_BLOCKS": 1, "FEW_ROWS": 4},
         recompute: {"KEPT_BYTES": 0, "KEPT_HALVES": 0, "MASKED_BYTES": 0}, keep: {"LEAST_BYTES": 1}}


def check(case: Case, source: Source, thorough: bool = False) -> None:
    """Everything that must hold of one random function; half of them with products swept."""
    with contextlib.ExitStack() as stack:
        for module, limits in SWEPT.items() if sum(a.size for a in case.arguments) % 2 else ():
            stack.enter_context(mock.patch.multiple(module, **limits))
        _check(case, source, thorough)


def _check(case: Case, source: Source, thorough: bool) -> None:
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
        modes.append(("level fast", gc.Mode(backend=("numpy", "llvm")[source.below(2)], level="fast")))
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
    check_native(subject, case, judge, want, other, full, source, thorough)
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
        subject = Subject(c.inputs, c.outputs, c.updates, c.state)
        f, g = subject.compile(gc.Mode(backend="numpy")), subject.compile(gc.Mode(backend="llvm"))
        for s, value in c.state:
            s.container.value = value
        texts.append(f.dump("final") + f.dump("source") + f.dump("memory"))
        if g.backend == "llvm":
            texts[-1] += g.dump("final") + g.dump("kernels") + g.dump("memory") + g.dump("llvm")
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
    for backend in ("numpy", "interpreter", "llvm"):
        for k in [*range(len(NAMES) + 1), None]:
            found = outcome(text, arguments, gc.Mode(backend=backend, passes=None if k is None else NAMES[:k]), derivatives)
            if found is not None:
                return f"backend {backend}, after {'the whole pipeline' if k is None else NAMES[k - 1] if k else 'no pass'!r}: {found}"
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
