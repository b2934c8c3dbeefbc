"""Pass ``stabilise``: expressions that lose digits or overflow become named ops that do not.

``log(1 + x)``, ``log(sum(exp(x)))``, ``1 / (1 + exp(-x))`` and their like, as a user
writes them.  Promise: each value is at least as near to the true one as before, up to
4 units in the last place, and finite wherever the true one is.

It runs at every mode and before ``gradient``, so that derivatives are those of the stable
forms.  The canonical rules run in the same sweep, after the stable ones at each node: what
is recognised must not depend on whether a mode also runs ``simplify``.
"""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context
from graphc.passes.rewrite import rewrite
from graphc.passes.rules import CANONICAL, STABLE


def stabilise(graph: Graph, context: Context) -> Graph:
    """The graph after the rules of phase "stable", in one sweep.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> f = gc.function([x], gc.log(gc.sum(gc.exp(x))), mode=gc.Mode(backend="reference", passes=["stabilise"]))
    >>> [node.op.name for node in f.graph.nodes]
    ['logsumexp']
    """
    return rewrite(graph, (*STABLE, *CANONICAL), context, fold=True)
