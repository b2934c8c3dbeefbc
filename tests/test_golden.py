"""Golden tests: each case of tests/golden/<pass>.gc is a graph, a pass, and what the pass makes of it.

    # title: what the case shows
    # run: PASS [level=fast] [exclude=rule,rule]
    function f
      ...
    # expect:
    function f
      ...
    # ---                        between cases

The pass runs alone.  Its result is verified and compared as text, and where the graph can be evaluated, both sides
are, on random and on special values, with sizes 0, 1 and 5.  ``pytest --update-golden`` rewrites what is expected.
In verify.gc there is ``# error: TEXT`` instead of ``# expect:``: the verifier rejects the graph and says TEXT.
"""

import importlib
import itertools
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from graphc import dims
from graphc.dims import Dim
from graphc.errors import VerificationError
from graphc.ir import Graph
from graphc.ops.core import constant
from graphc.ops.evaluate import evaluate
from graphc.passes.context import Context
from graphc.text import FORMAT, inner_graphs, print_graph
from graphc.text_parse import parse
from graphc.verify import verify

GOLDEN = Path(__file__).parent / "golden"
#: passes that may change values by rounding: how much; the others keep every bit
TOLERANCE = {"stabilise": 1e-9, "cleanup": 1e-9, "fast": 1e-9}
SPECIAL = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 5e-324, -1e300, 0.5]


class Case(NamedTuple):
    file: Path
    text: str  # as it stands in the file
    title: str
    pass_name: str
    options: dict[str, str]
    given: str
    expected: str
    error: str

    def __str__(self) -> str:
        return f"{self.file.stem}: {self.title}"


def cases(file: Path) -> list[Case]:
    found = []
    for text in re.split(r"^# ---\n", file.read_text(), flags=re.M):
        title, run, error = (
            match[1].strip() if (match := re.search(rf"^# {key}:(.*)$", text, re.M)) else "" for key in ("title", "run", "error"))
        assert title and run, f"{file.name}: a case needs '# title:' and '# run:'\n{text}"
        words = run.split()
        given, _, expected = re.sub(r"^# (title|run|error):.*\n", "", text, flags=re.M).partition("# expect:\n")
        found.append(Case(file, text, title, words[0], dict(w.split("=") for w in words[1:]), given, expected, error))
    return found


CASES = [case for file in sorted(GOLDEN.glob("*.gc")) for case in cases(file)]


def read(text: str, check: bool = True) -> Graph:
    return parse(text if text.lstrip().startswith("graphc dump") else f"{FORMAT}\n{text}", check=check)


def printed(graph: Graph) -> str:
    return print_graph(graph).removeprefix(FORMAT + "\n")


def run(case: Case) -> tuple[Graph, Graph]:
    """The graph before and after."""
    before = read(case.given)
    verify(before, "input")
    chosen = getattr(importlib.import_module(f"graphc.passes.{case.pass_name}"), case.pass_name)
    exclude = frozenset(filter(None, case.options.get("exclude", "").split(",")))
    after = chosen(before, Context(level=case.options.get("level", "exact"), exclude=exclude))
    verify(after, case.pass_name, before=before)
    return before, after


# ---- values -----------------------------------------------------------------------------------


def executable(graph: Graph) -> bool:
    return not any(node.op.placeholder for g in inner_graphs(graph) for node in g.nodes)


def environments(graph: Graph):
    """Numbers for the sizes of the leaves that the graph's relations allow."""
    given = [s for v in (*graph.inputs, *graph.shared) for size in v.type.shape for s in dims.symbols(size)]
    symbols = list(dict.fromkeys(given))
    demands = [r for r, _ in graph.relations]
    for node in graph.nodes:
        demands += node.op.relations([v.type for v in node.inputs], node.attrs)
    demands = [r for r in demands if not any(s.kind == "data" for size in (r.a, r.b) for s in dims.symbols(size))]
    choices = itertools.product((5, 1, 0), repeat=len(symbols)) if len(symbols) < 4 else [(k,) * len(symbols) for k in (5, 1, 0)]
    for numbers in choices:
        env = dict(zip(symbols, numbers, strict=True))
        if any(n < s.min for s, n in env.items()):
            continue
        pairs = [(r.kind, dims.evaluate(r.a, env), dims.evaluate(r.b, env)) for r in demands]
        if all(a == b or (kind == "broadcast" and 1 in (a, b)) for kind, a, b in pairs):
            yield env


def value(t, env, rng: np.random.Generator, special: bool) -> np.ndarray:
    shape = tuple(dims.evaluate(s, env) if isinstance(s, Dim) else s for s in t.shape)
    kind = t.dtype.kind
    if kind in "biu":
        return rng.integers(0, 2 if kind == "b" else 4, shape).astype(t.dtype)
    x = rng.choice(SPECIAL, shape) if special else rng.normal(size=shape)
    y = rng.choice(SPECIAL, shape) if special else rng.normal(size=shape)
    with np.errstate(all="ignore"):
        return (x + 1j * y if kind == "c" else np.asarray(x)).astype(t.dtype)


def check_values(before: Graph, after: Graph, tolerance: float) -> int:
    """Evaluate both on the same arguments; gives how often."""
    rng = np.random.default_rng(0)
    done = 0
    for env in environments(before):
        for special in (False, True, True):
            given = {v: value(v.type, env, rng, special) for v in (*before.inputs, *before.shared)}
            want = evaluate(before, [given[v] for v in (*before.inputs, *before.shared)], env)
            have = evaluate(after, [given[v] for v in (*after.inputs, *after.shared)], env)
            for i, (a, b) in enumerate(zip(want, have, strict=True)):
                assert a.dtype == b.dtype and a.shape == b.shape, f"root {i}: {a.dtype}{a.shape} became {b.dtype}{b.shape}"
                if tolerance == 0:
                    same = np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") and (
                        a.dtype.kind != "f" or np.array_equal(np.signbit(a)[a == 0], np.signbit(b)[a == 0]))
                else:
                    kept = np.isfinite(a) if special else np.full(a.shape, True)  # elsewhere it may be better
                    wide = tolerance if a.dtype.itemsize >= 8 else 1e-5
                    same = np.allclose(a[kept], b[kept], wide, 1e-12, equal_nan=True)
                assert same, f"root {i}, sizes {env}:\n  arguments {list(given.values())}\n  before {a}\n  after  {b}"
            done += 1
    return done


# ---- tests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CASES if not c.error], ids=str)
def test_golden(case: Case, request: pytest.FixtureRequest) -> None:
    before, after = run(case)
    text = printed(after)
    if request.config.getoption("--update-golden"):
        if text.strip() != case.expected.strip():
            new = case.text.partition("# expect:\n")[0].rstrip("\n") + f"\n# expect:\n{text}"
            whole = case.file.read_text()
            assert whole.count(case.text) == 1
            case.file.write_text(whole.replace(case.text, new))
    else:
        assert text.strip() == case.expected.strip()
    assert printed(read(text)) == text  # what is expected is itself a readable dump
    if executable(before):
        assert check_values(before, after, TOLERANCE.get(case.options.get("level", ""), TOLERANCE.get(case.pass_name, 0.0))) > 0


@pytest.mark.parametrize("case", [c for c in CASES if c.error], ids=str)
def test_rejected(case: Case) -> None:
    with pytest.raises(VerificationError) as caught:
        verify(read(case.given, check=False), case.options.get("stage"))
    assert case.error in str(caught.value)


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.gc")), ids=lambda f: f.stem)
def test_every_file_has_cases(file: Path) -> None:
    assert len(cases(file)) >= 5


def test_a_change_of_value_is_noticed() -> None:
    """The comparison of values can fail: x + 0.0 is not x for -0.0, x * 0.0 is not 0.0 for inf."""
    before = read("function f\n  input x : f64[9]\n  y = add(x, 0.0)\n  z = mul(x, 0.0)\n  return y, z\n")
    y, z = before.outputs
    x, = before.inputs
    zero = constant(np.zeros(9))
    assert check_values(before, before, 0.0) == 3
    for wrong, message in (([x, z], "root 0"), ([y, zero], "root 1")):
        with pytest.raises(AssertionError, match=message):
            check_values(before, Graph([x], wrong), 0.0)
