"""The compile report: what each pass did to a function, as a table.

A compiled function keeps one record per pass in ``f.report``: ``.name``,
``.nodes_before``, ``.nodes_after``, ``.seconds`` and ``.fired`` (rule -> how often).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["PassRecord", "compile_table", "print_report", "report_lines"]


class PassRecord(Protocol):
    """What the report needs to know of one pass over one graph."""

    @property
    def name(self) -> str: ...
    @property
    def nodes_before(self) -> int: ...
    @property
    def nodes_after(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def fired(self) -> Mapping[str, int]: ...


HEADINGS = ("pass", "nodes before", "nodes after", "time", "rules that fired")


def report_lines(report: Iterable[PassRecord], most: int = 4) -> list[tuple[str, str, str, str, str]]:
    """The cells of the table, with a last line for the whole; at most ``most`` rules are named per pass."""
    records = [r for r in report if r.name != "input"]
    lines = [(r.name, str(r.nodes_before), str(r.nodes_after), _time(r.seconds), _rules(r.fired, most)) for r in records]
    if records:
        fired = sum(sum(r.fired.values()) for r in records)
        lines.append(("total", str(records[0].nodes_before), str(records[-1].nodes_after),
                      _time(sum(r.seconds for r in records)), f"{fired} rewrites"))
    return lines


def compile_table(function: Any) -> Table:
    """The compile report of a compiled function as a ``rich.table.Table``."""
    from rich.table import Table  # here, because rich takes longer to import than graphc

    table = Table(title=f"compile report of {function.name}", title_justify="left")
    for heading, justify in zip(HEADINGS, ("left", "right", "right", "right", "left"), strict=True):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    *passes, total = report_lines(function.report) or [("no passes", "", "", "", "")]
    for i, line in enumerate(passes):
        table.add_row(*line, end_section=i == len(passes) - 1)
    table.add_row(*total, style="bold")
    for name, seconds in function.compile_seconds.items():
        if name != "passes":
            table.add_row(name, "", "", _time(seconds), "")
    return table


def print_report(*functions: Any, file: IO[str] | None = None) -> None:
    """Print the compile reports: nodes before and after each pass, the time it took, the rules that fired.

    >>> import graphc as gc
    >>> from graphc.reporting import print_report
    >>> x = gc.vector("x")
    >>> print_report(gc.function([x], gc.log(1 + x), name="f"))  # doctest: +ELLIPSIS
    compile report of f...
    """
    from rich.console import Console

    console = Console(file=file)
    if not console.is_terminal:
        console = Console(file=file, width=110)  # a file has no width: the table must not be broken at 80
    for function in functions:
        console.print(compile_table(function))


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _rules(fired: Mapping[str, int], most: int) -> str:
    ranked = sorted(fired.items(), key=lambda item: (-item[1], item[0]))
    shown = [name if count == 1 else f"{name} x{count}" for name, count in ranked[:most]]
    if len(ranked) > most:
        shown.append(f"and {len(ranked) - most} more")
    return ", ".join(shown)
