"""Pass ``cleanup``: simplification once more, over what ``gradient`` inserted."""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context
from graphc.passes.simplify import simplify


def cleanup(graph: Graph, context: Context) -> Graph:
    """Equal values, simpler and shared expressions.

    It stands after ``gradient`` because the sweep calls each ``bprop`` on its own: ones that
    multiply, casts back and forth, a forward value built again.  ``simplify`` folds and merges on its
    way.  Nothing is stabilised here: the ops' own derivatives are stable as they are.
    """
    return simplify(graph, context)
