"""Pass ``merge``: equal expressions become one (value numbering), and what no root needs is gone.

Promise: two pure nodes with the same op, attributes and operands are one node
afterwards; operands of commutative ops count in either order; constants are equal
if their bits are.  Values do not change.  One visit per node, so linear.
"""

from __future__ import annotations

from graphc.ir import Graph
from graphc.passes.context import Context, Rewrite
from graphc.passes.rewrite import Sweep


def merge(graph: Graph, context: Context) -> Graph:
    """Common subexpressions as one node.  Inner graphs are merged too, each for itself.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> f = gc.function([x], gc.exp(x) * gc.exp(x), mode=gc.Mode(backend="reference", passes=["merge"]))
    >>> sorted(node.op.name for node in f.graph.nodes)
    ['exp', 'mul']
    """
    sweep = Sweep((), context)
    sweep.on_merge = lambda old, kept: context.log.append(Rewrite("merge", old, kept))
    return sweep.graph(graph)
