"""Pass ``cleanup``: the rewriting passes once more over what ``gradient`` inserted."""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context
from graphc.passes.merge import merge
from graphc.passes.simplify import simplify
from graphc.passes.stabilise import stabilise


def cleanup(graph: Graph, context: Context) -> Graph:
    """Equal values, simpler and shared expressions.

    It stands after ``gradient`` because the sweep calls each ``bprop`` on its own: ones that
    multiply, casts back and forth, a forward value built again.  ``simplify`` folds on its way.
    """
    return merge(stabilise(simplify(graph, context), context), context)
