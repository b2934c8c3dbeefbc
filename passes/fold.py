"""Pass ``fold``: expressions of constants become constants.

Promise: values are those that ``forward`` gives, bit for bit, nan and inf included.
Nothing is made that is larger than both ``config.fold_limit`` bytes and the
constants that it replaces: ``broadcast_to(0., (1000, 1000))`` stays as it is.  A node
whose ``forward`` raises on its constants stays too: the error belongs to the call.
"""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context
from graphc.passes.rewrite import rewrite


def fold(graph: Graph, context: Context) -> Graph:
    """Nodes whose operands are all constants, evaluated.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> f = gc.function([x], x * gc.exp(gc.constant(0.0)), mode=gc.Mode(backend="reference", passes=["fold"]))
    >>> [node.op.name for node in f.graph.nodes]
    ['constant', 'mul']
    """
    return rewrite(graph, (), context, fold=True)
