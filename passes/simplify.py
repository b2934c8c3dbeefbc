"""Pass ``simplify``: algebra towards one form for each value, folding constants on the way.

Promise: at level "exact" every value keeps its nan, inf and sign of zero, and is never
further from the true one; at "fast" values may be reassociated and are assumed finite.
No rule makes the graph dearer.  Canonical forms are those that the patterns of
``stabilise`` are written in: ``x - 1``, not ``x + -1 * 1``; ``-x``, not ``-1 * x``.
"""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context
from graphc.passes.rewrite import rewrite
from graphc.passes.rules import CANONICAL


def simplify(graph: Graph, context: Context) -> Graph:
    """The graph after the rules of phase "canonical", in one sweep.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> f = gc.function([x], -(-x) * 1, mode=gc.Mode(backend="reference", passes=["simplify"]))
    >>> len(f.graph)
    0
    """
    return rewrite(graph, CANONICAL, context, fold=True)
