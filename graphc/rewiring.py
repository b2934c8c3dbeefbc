"""Graphs for users: ``clone_replace``, ``ancestors``, ``graph_inputs``, ``toposort``, ``load_dump``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphc import ir
from graphc.capture import ordered_givens
from graphc.errors import GraphcTypeError
from graphc.ir import Graph, Node, Op, Var
from graphc.substituting import replace
from graphc.text_parse import parse
from graphc.variables import SharedVariable


def _roots(outputs: Any) -> list[Var]:
    roots = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    for v in roots:
        if not isinstance(v, Var):
            raise GraphcTypeError(f"expected variables of a graph; got {v!r}")
    return roots


def clone_replace(outputs: Any, replacements: Any) -> Any:
    """The expressions with ``{old: new}`` replaced in them; alike one or a list.

    >>> import graphc as gc
    >>> x, y = gc.scalars("x", "y")
    >>> gc.pretty(gc.clone_replace(x * 2.0, {x: y}))
    'y*2'
    """
    new, _ = replace(_roots(outputs), ordered_givens(replacements))
    return new if isinstance(outputs, (list, tuple)) else new[0]


def ancestors(outputs: Any) -> list[Var]:
    """Every variable that the outputs depend on, themselves included, operands first."""
    return ir.ancestors(_roots(outputs))


def graph_inputs(outputs: Any) -> list[Var]:
    """The leaves: free variables, shared variables and constants, in order of first use."""
    found: Sequence[Var] = ir.ancestors(_roots(outputs))
    return [v for v in found if v.node is None or v.node.op.name == "constant"]


def toposort(outputs: Any) -> list[Node]:
    """The nodes, operands first, in an order that depends on the graph only."""
    return ir.toposort(_roots(outputs))


def load_dump(text: str, ops: Mapping[str, Op] | None = None) -> Graph:
    """The graph that a dump shows; it compiles and gives the same values.

    Args:
        text: what ``f.dump(stage)`` gave, for the stages that are graphs.
        ops: the user's own ops by name, where the graph has some.

    Raises:
        ValueError: text that is no dump; the message has the line and its number.

    >>> import graphc as gc
    >>> graph = gc.load_dump('''graphc dump 1
    ... function f
    ...   input x : f64[n]
    ...   y = mul(x, 2.0) : f64[n]
    ...   return y
    ... ''')
    >>> graph.outputs[0].type
    Type(f64[n])
    """
    return parse(text, ops, shared=SharedVariable)
