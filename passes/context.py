"""What a pass is given beside the graph, and what it leaves behind for the report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from graphc.ir import Var


class Rewrite(NamedTuple):
    """One application of a rule: ``old`` was replaced by ``new`` (equal in value, by the rule's promise)."""

    rule: str
    old: Var
    new: Var


@dataclass
class Context:
    """``level``: "exact" or "fast"; ``exclude``: names of rules not to use; ``log``: what fired, in order.

    ``native``: is the graph for a backend that runs kernels?
    """

    level: str = "exact"
    exclude: frozenset[str] = frozenset()
    fold_limit: int = 1 << 16
    log: list[Rewrite] = field(default_factory=list)
    native: bool = False
