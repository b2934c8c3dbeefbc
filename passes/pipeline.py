"""The pipeline: an ordered list of passes, and the loop that runs it.

``PIPELINE`` is a tuple of records; print it, slice it, add to it.  A pass is a
function ``(Graph, Context) -> Graph``.  ``gradient`` and ``loops`` are required:
without them no backend can run the graph; the rest is optimisation that a mode
may leave out.  Stabilisation belongs to every mode that runs passes at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from graphc.errors import GraphcTypeError, GraphcValueError
from graphc.ir import Graph
from graphc.passes.cleanup import cleanup
from graphc.passes.complexes import complexes
from graphc.passes.context import Context, Rewrite
from graphc.passes.contract import contract
from graphc.passes.expand import expand
from graphc.passes.fold import fold
from graphc.passes.fuse import fuse
from graphc.passes.gradient import gradient
from graphc.passes.keep import keep
from graphc.passes.loops import loops
from graphc.passes.merge import merge
from graphc.passes.recompute import recompute
from graphc.passes.simplify import simplify
from graphc.passes.stabilise import stabilise
from graphc.verify import verify


@dataclass(frozen=True)
class Pass:
    """One pass: its name (the file, the function, the dump stage), and why it stands where it stands."""

    name: str
    run: Callable[[Graph, Context], Graph]
    why: str
    required: bool = False

    def __repr__(self) -> str:
        return f"<pass {self.name}: {self.why}>"


PIPELINE: tuple[Pass, ...] = (
    Pass("merge", merge, "equal expressions become one; what no root needs is dropped"),
    Pass("fold", fold, "expressions of constants become constants"),
    Pass("simplify", simplify, "the algebra, towards the forms that the stabilising patterns are written in"),
    Pass("stabilise", stabilise, "log(1+x), log(sum(exp)): before the gradient, so that derivatives are stable too"),
    Pass("gradient", gradient, "derivative placeholders become the subgraphs of build_grad", required=True),
    Pass("loops", loops, "what does not change from step to step moves out of inner graphs", required=False),
    Pass("cleanup", cleanup, "simplify (and fold, and merge) once more: the gradient's ones, zeros and repeats"),
    Pass("contract", contract, "which products are made, in which order: before expand makes loops of the thin ones"),
    Pass("complexes", complexes, "complex arithmetic as arithmetic of the parts: after whatever knows complex numbers as one thing"),
    Pass("keep", keep, "what depends on unchanged state only is computed once per change"),
    Pass("expand", expand, "softmaxes become the loops that they are, for fuse to join"),
    Pass("recompute", recompute, "what only fills memory until the gradient reads it is computed twice"),
    Pass("fuse", fuse, "elementwise nodes and reductions become kernels"),
)

#: few passes, for graphs that run a few times
FAST_COMPILE = ("merge", "stabilise", "gradient", "loops")


@dataclass
class Stage:
    """The graph after one pass, and what the pass did: what ``f.report`` and ``f.dump`` are made of."""

    name: str
    graph: Graph
    seconds: float = 0.0
    nodes_before: int = 0
    nodes_after: int = 0
    log: list[Rewrite] = field(default_factory=list)

    @property
    def fired(self) -> dict[str, int]:
        """How often each rule fired."""
        counts: dict[str, int] = {}
        for rewrite in self.log:
            counts[rewrite.rule] = counts.get(rewrite.rule, 0) + 1
        return counts


def select(passes: Iterable[str | Pass] | str | None, exclude: Sequence[str] = ()) -> tuple[Pass, ...]:
    """The passes that a mode names, in the order given; required ones are always there.

    ``None`` is all of them, "none" only the required ones; a list may hold names and ``Pass``
    records of one's own.  ``exclude`` takes passes away by name (and rules, which is not decided here).
    """
    known = {p.name: p for p in PIPELINE}
    if passes is None:
        chosen = list(PIPELINE)
    elif isinstance(passes, str):
        if passes not in ("all", "none"):
            raise GraphcValueError(f"passes={passes!r}: expected 'all', 'none' or a list of names: {', '.join(known)}")
        chosen = [] if passes == "none" else list(PIPELINE)
    else:
        chosen = []
        for p in passes:
            if isinstance(p, str) and p not in known:
                raise GraphcValueError(f"there is no pass {p!r}; the pipeline is: {', '.join(known)}")
            if not isinstance(p, (str, Pass)):
                raise GraphcTypeError(f"passes: expected the name of a pass or a Pass; got {p!r}")
            chosen.append(known[p] if isinstance(p, str) else p)
    chosen = [p for p in chosen if p.required or p.name not in exclude]
    names = [p.name for p in chosen]
    for i, p in enumerate(PIPELINE):
        if p.required and p.name not in names:  # after the passes that the pipeline puts before it
            before = {q.name for q in PIPELINE[:i]}
            at = max((k + 1 for k, q in enumerate(chosen) if q.name in before), default=0)
            chosen.insert(at, p)
            names.insert(at, p.name)
    return tuple(chosen)


def run(graph: Graph, passes: Sequence[Pass], context: Context, check: bool) -> list[Stage]:
    """Run the passes in order; the first stage is the graph as it came.  ``check``: verify after each."""
    stages = [Stage("input", graph, nodes_after=len(graph))]
    if check:
        verify(graph, "input")
    for p in passes:
        started = time.perf_counter()
        context.log = []
        before = graph
        graph = p.run(graph, context)
        seconds = time.perf_counter() - started
        stages.append(Stage(p.name, graph, seconds, stages[-1].nodes_after, len(graph), context.log))
        if check:
            verify(graph, p.name, before=before)
    return stages
