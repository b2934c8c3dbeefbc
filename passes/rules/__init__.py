"""The table of rewrite rules, by topic.  How to write one: README.md in this folder.

Order matters where several rules fit one node: the first one fires.
"""

from __future__ import annotations

from graphc.passes.pattern import Rule
from graphc.passes.rules import algebra, index, shape, stable

RULES: tuple[Rule, ...] = (*stable.RULES, *algebra.RULES, *shape.RULES, *index.RULES)
CANONICAL: tuple[Rule, ...] = tuple(r for r in RULES if r.phase == "canonical")
STABLE: tuple[Rule, ...] = tuple(r for r in RULES if r.phase == "stable")
BY_NAME: dict[str, Rule] = {r.name: r for r in RULES}
__all__ = ["BY_NAME", "CANONICAL", "RULES", "STABLE"]
