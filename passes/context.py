"""What a pass is given beside the graph, and what it leaves behind for the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from graphc.ir import Var


class Rewrite(NamedTuple):
    """One application of a rule: ``old`` was replaced by ``new`` (equal in value, by the rule's promise)."""

    rule: str
    old: Var
    new: Var


@dataclass
class Context:
    """``level``: "exact" or "fast"; ``exclude``: names of rules not to use; ``log``: what fired, in order.

    ``native``: is the graph for a backend that runs kernels?  ``panels(dtype)``: how its products read a right operand that is laid out for
    them, (k of a block at most, columns of a panel), or None.
    """

    level: str = "exact"
    exclude: frozenset[str] = frozenset()
    fold_limit: int = 1 << 16
    log: list[Rewrite] = field(default_factory=list)
    native: bool = False
    panels: Callable[[np.dtype[Any]], tuple[int, int] | None] = lambda dtype: None
