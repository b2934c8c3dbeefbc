"""The pipeline: its order, what modes take of it, passes of one's own, who is blamed when one is wrong."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import graphc as gc
import graphc.passes
from graphc.checking import Checked
from graphc.ir import Graph, Node, Var, rebuild
from graphc.ops.arithmetic import add, mul
from graphc.passes import pipeline
from graphc.passes.context import Context, Rewrite
from graphc.passes.pipeline import PIPELINE, Pass, select


def names(passes: Any) -> list[str]:
    return [p.name for p in passes]


def test_the_docstring_lists_the_passes_in_order_with_their_reasons() -> None:
    listed = re.findall(r"^    (\w+) +(.+)$", graphc.passes.__doc__ or "", re.M)
    assert listed == [(p.name, p.why) for p in PIPELINE]


def test_every_pass_is_the_function_of_the_file_of_its_name() -> None:
    for p in PIPELINE:
        assert p.run.__module__ == f"graphc.passes.{p.name}"
        assert p.run.__name__ == p.name
        assert p.run.__doc__


def test_select_shortens_and_keeps_what_is_required() -> None:
    assert names(select(None)) == names(PIPELINE)
    assert names(select("none")) == ["gradient"]
    assert names(select(["merge", "fuse"])) == ["merge", "gradient", "fuse"]
    assert names(select(["stabilise"])) == ["stabilise", "gradient"]
    assert names(select(None, exclude=["fuse", "gradient"])) == [n for n in names(PIPELINE) if n != "fuse"]


def test_stabilisation_belongs_to_every_mode_that_runs_passes() -> None:
    x = gc.vector("x")
    y = gc.log(1 + gc.exp(x))
    for mode in ("FAST_RUN", "FAST_COMPILE", "DEBUG"):
        assert gc.function([x], y, mode=mode)([1000.0]).tolist() == [1000.0]


def _twice(graph: Graph, context: Context) -> Graph:
    """A user's pass: x + x -> 2 x."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Any:
        if node.op is add and inputs[0] is inputs[1]:
            new = mul(inputs[0], 2)
            context.log.append(Rewrite("twice", node.outputs[0], new))
            return [new]
        return None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def _wrong(graph: Graph, context: Context) -> Graph:
    """A pass that is wrong: x + y -> x * y."""
    def visit(node: Node, inputs: tuple[Var, ...]) -> Any:
        if node.op is add:
            new = mul(*inputs)
            context.log.append(Rewrite("add_is_mul", node.outputs[0], new))
            return [new]
        return None

    return graph.with_roots(rebuild(graph.roots, {}, visit=visit))


def _broken(graph: Graph, context: Context) -> Graph:
    """A pass that breaks an invariant: the root gets another dtype."""
    return graph.with_roots([gc.cast(v, "float32") for v in graph.roots])


def test_a_user_can_extend_the_pipeline() -> None:
    x = gc.vector("x")
    mode = gc.Mode(passes=["merge", Pass("twice", _twice, "a pass of one's own"), "fuse"])
    f = gc.function([x], x + x, mode=mode)
    assert [s.name for s in f.report] == ["input", "merge", "gradient", "twice", "fuse"]
    assert next(s for s in f.report if s.name == "twice").fired == {"twice": 1}
    assert "mul" in f.dump("twice")
    assert f([1.0, 2.0]).tolist() == [2, 4]


def test_debug_names_the_rule_that_changed_a_value_and_the_line() -> None:
    x, y = gc.vectors("x", "y")
    mode = gc.Mode(passes=["merge", Pass("wrong", _wrong, "to be caught")], debug=True)
    f = gc.function([x, y], gc.exp(x + y), mode=mode)
    assert isinstance(f._compiled.door.runner, Checked)
    with pytest.raises(gc.errors.VerificationError, match="pass wrong, rule add_is_mul") as error:
        f([1.0, 2.0], [3.0, 4.0])
    assert "test_pipeline.py" in str(error.value)
    assert f([2.0], [2.0]).tolist() == [np.exp(4.0)]  # right by chance: 2 + 2 = 2 * 2


def test_the_runner_blames_the_pass_that_breaks_an_invariant() -> None:
    x = gc.vector("x")
    mode = gc.Mode(passes=["merge", Pass("broken", _broken, "to be caught")], debug=True)
    with pytest.raises(gc.errors.VerificationError, match="broken"):
        gc.function([x], x * 2, mode=mode)


def test_exclude_takes_rules_away_by_name() -> None:
    x = gc.vector("x")
    y = gc.log(1 + x)
    assert "log1p" in gc.function([x], y).dump()
    assert "log1p" not in gc.function([x], y, mode=gc.Mode(exclude=["log1p"])).dump()


def test_stages_count_nodes_and_rules() -> None:
    x = gc.vector("x")
    f = gc.function([x], gc.grad(gc.log(gc.sum(gc.exp(x))), x))
    by_name = {s.name: s for s in f.report}
    assert by_name["stabilise"].fired == {"logsumexp": 1}
    for before, after in zip(f.report, f.report[1:], strict=False):
        assert after.nodes_before == before.nodes_after == len(before.graph)
    assert names(pipeline.PIPELINE) == [s.name for s in f.report[1:]]
