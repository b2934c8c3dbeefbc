"""DEBUG mode at run time: every rewrite compared with what it replaced, every root with the reference.

The stages keep, for each application of a rule, the variable before and after.  On
a call both are evaluated by the reference evaluator on the caller's data; the
first pair that differs is named with its rule, its op and the user's line.  What
counts as a difference, ``graphc/judging.py`` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc.dims import Symbol
from graphc.errors import Origin, VerificationError
from graphc.ir import Array, Graph, Var, leaves
from graphc.judging import Judge, close
from graphc.ops.evaluate import evaluate
from graphc.ops.placeholders import unexpanded
from graphc.passes.context import Rewrite
from graphc.passes.pipeline import Stage


class Checked:
    """Runs the compiled graph, then compares it stage by stage with the graph as written."""

    def __init__(self, stages: Sequence[Stage], runner: Any) -> None:
        self.stages, self.runner, self.source = list(stages), runner, getattr(runner, "source", "")

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]:
        results: list[Array] = self.runner(arguments, env)
        first = next(s for s in self.stages if not unexpanded(s.graph.roots))
        graph = first.graph
        expected = evaluate(graph, arguments, env)
        judge = Judge(graph, arguments, env, stabilised=True)
        for k, (want, have) in enumerate(zip(expected, results, strict=True)):
            reason = judge.difference(k, want, have)
            if reason is not None:
                self._blame(arguments, env)
                root = graph.roots[k]
                raise VerificationError(f"root {k} ({root.describe()}): the backend's value differs from the reference: {reason}", root.origin)
        self._blame(arguments, env)
        return results

    def _blame(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> None:
        """Find the first rewrite whose two sides differ on this data."""
        table = dict(zip((*self.stages[0].graph.inputs, *self.stages[0].graph.shared), arguments, strict=True))
        for stage in self.stages:
            pairs = [r for r in stage.log if not unexpanded((r.old, r.new)) and _closed((r.old, r.new), table)]
            if not pairs:
                continue
            for r, sides in zip(pairs, _both_sides(pairs, table, env), strict=True):
                if sides is None or close(*sides):
                    continue
                old, new = sides
                reason = Judge(Graph(list(table), [r.old]), list(table.values()), env, stabilised=stage.name == "stabilise").difference(0, old, new)
                if reason is not None:
                    raise VerificationError(
                        f"pass {stage.name}, rule {r.rule}: it replaced {r.old.describe()} by {r.new.describe()}, but {reason}",
                        r.old.origin if r.old.origin.line else Origin("<unknown>", 0))


def _both_sides(pairs: Sequence[Rewrite], table: Mapping[Var, Array], env: Mapping[Symbol, int]) -> list[Sequence[Array] | None]:
    """The values of old and new; None where they cannot be had: what no root needs may raise on this data."""
    arguments = list(table.values())
    try:
        values = evaluate(Graph(list(table), [v for r in pairs for v in (r.old, r.new)]), arguments, env)
        return list(zip(values[::2], values[1::2], strict=True))
    except Exception:
        if len(pairs) == 1:
            return [None]
        k = len(pairs) // 2
        return [*_both_sides(pairs[:k], table, env), *_both_sides(pairs[k:], table, env)]


def _closed(sides: Sequence[Var], table: Mapping[Var, Array]) -> bool:
    """Both sides speak of the function's own leaves (a rewrite inside an inner graph does not)."""
    return all(v in table for v in leaves(sides))


def checked_runner(stages: Sequence[Stage], runner: Any) -> Checked:
    return Checked(stages, runner)
