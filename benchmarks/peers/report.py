"""The tables: from what was measured to rich tables on the terminal and to Markdown.

    python benchmarks/peers/report.py FILE.json ... [--markdown]     # shows files that run.py --json wrote; several are joined
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bandwidth import HEADLINE, limit
from environments import CONTESTANTS
from rich.console import Console
from rich.table import Table
from workloads import APART

Record = dict[str, Any]
BAR_GEOMETRIC, BAR_BANDWIDTH, BAR_SCALING, BAR_ANY_SIZE, BAR_TINY = 1.8, 0.8, 1.8, 1.1, 1e-6
BAR_COLD, BAR_WARM = 0.25, 0.05  # seconds, of the small MLP's first call
SCALING_FROM = 50e-6  # kernels shorter than this need not gain from a second thread
MEMORY_FROM = 32 << 20  # bytes; a smaller working set stays in the caches, where allocation and arithmetic count too


@dataclass
class Sheet:
    """A table of text: headers, and rows whose cells may carry a style."""

    title: str
    headers: list[str]
    rows: list[list[str]] = field(default_factory=list)
    note: str = ""


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def _title(name: str) -> str:
    return CONTESTANTS[name].title if name in CONTESTANTS else name


def peers_of(row: Record) -> dict[str, float]:
    """Peer -> how many times graphc's time it takes."""
    return {name: r["ratio"] for name, r in row["contestants"].items() if "ratio" in r and not name.startswith("graphc") and name not in row["not_counted"]}


def _cell(result: Record | None, base: bool) -> str:
    if result is None:
        return ""
    if "seconds" not in result:
        return {"wrong": "wrong", "missing": "–"}.get(result["status"], "failed")
    noisy = "*" if result.get("idle_others", 0.0) > 0.05 else ""
    ratio = f" ({result['ratio']:.2f}x)" if "ratio" in result and not base else ""
    return f"{duration(result['seconds'])}{ratio}{noisy}"


def _label(row: Record) -> str:
    parts = row.get("parts", 1)
    return row["row"] + (f", one of {parts}" if parts > 1 else "")


def _threads(record: Record) -> list[int]:
    return sorted({r["threads"] for r in record["rows"]})


def main_sheets(record: Record) -> list[Sheet]:
    """Time of everyone and ratio to graphc, per number of threads."""
    sheets = []
    for threads in _threads(record):
        rows = [r for r in record["rows"] if r["threads"] == threads and r["group"] not in APART]
        if not rows:
            continue
        names = list(dict.fromkeys(n for r in rows for n in r["contestants"]))
        sheet = Sheet(f"{threads} thread{'s' * (threads > 1)}", ["row", *map(_title, names), "best peer", "its time / graphc's"],
                      note="time per call (ratio to graphc, median of the ratios within rounds); * = another contestant computed at the same time; "
                           "† = written out by hand, not counted as a peer")
        for r in rows:
            ratios = peers_of(r)
            best = min(ratios, key=lambda n: ratios[n]) if ratios else ""
            sheet.rows.append([_label(r), *(_cell(r["contestants"].get(n), n == "graphc") + "†" * (n in r["not_counted"]) for n in names), _title(best), f"{ratios[best]:.2f}x" if best else ""])
        sheets.append(sheet)
    return sheets


def memory_sheets(record: Record) -> list[Sheet]:
    """GB/s of the rows whose limit is the memory."""
    sheets = []
    for threads in _threads(record):
        rates = record["bandwidth"].get(str(threads))
        rows = [r for r in record["rows"] if r["threads"] == threads and r["group"] not in APART and r["memory_bound"]]
        if not rates or not rows:
            continue
        reading, mixing = next((read, mixed) for size, read, mixed in rates if size == HEADLINE)
        names = list(dict.fromkeys(n for r in rows for n in r["contestants"]))
        sheet = Sheet(f"Memory, {threads} thread{'s' * (threads > 1)}", ["row", "working set", "measured limit", *(f"{_title(n)}" for n in names)],
                      note=f"GB/s (part of what NumPy's plain loops reach with a working set of this size); at {HEADLINE >> 20} MB they read at "
                           f"{reading / 1e9:.1f} GB/s, read and write at {mixing / 1e9:.1f} GB/s")
        for r in rows:
            total, top = r["read"] + r["written"], limit(rates, r["read"], r["written"])
            cells = []
            for n in names:
                seconds = r["contestants"].get(n, {}).get("seconds")
                cells.append(f"{total / seconds / 1e9:.1f} ({total / seconds / top:.0%})" if seconds else "")
            sheet.rows.append([r["row"], f"{total / 2**20:.1f} MB", f"{top / 1e9:.1f}", *cells])
        sheets.append(sheet)
    return sheets


def any_size_sheet(record: Record) -> list[Sheet]:
    sheet = Sheet("Unknown sizes", ["row", "threads", "fixed sizes", "any size", "any / fixed"])
    for r in record["rows"]:
        fixed, free = r["contestants"].get("graphc", {}), r["contestants"].get("graphc_any", {})
        if r["group"] == 13 and "ratio" in free:
            sheet.rows.append([r["row"].removeprefix("sizes/"), str(r["threads"]), duration(fixed["seconds"]), duration(free["seconds"]), f"{free['ratio']:.2f}x"])
    return [sheet] if sheet.rows else []


def scaling(record: Record) -> dict[str, float]:
    """Row -> graphc's time on one thread over its time on two."""
    times = {(r["row"], r["threads"]): r["contestants"].get("graphc", {}).get("seconds") for r in record["rows"] if r["group"] not in APART}
    return {row: one / two for (row, threads), one in times.items() if threads == 1 and one and (two := times.get((row, 2))) and one >= SCALING_FROM}


def first_call_sheets(record: Record) -> list[Sheet]:
    sheets = []
    for entry in record["first_call"]:
        sheet = Sheet(f"{entry['row']}, {entry['threads']} thread{'s' * (entry['threads'] > 1)}", ["contestant", "cold cache", "warm cache", "second call", "import"],
                      note="from the start of building to the first result, in fresh processes; the import (and bringing up the device) apart")
        for name, r in entry["contestants"].items():
            if "error" in r:
                sheet.rows.append([_title(name), "failed", "", "", ""])
            else:
                cold, warm = r["cold"], r["warm"]
                sheet.rows.append([_title(name), duration(cold["first_call"]), duration(warm["first_call"]), duration(warm["second_call"]), duration(warm["started"])])
        sheets.append(sheet)
    return sheets


def checks(record: Record) -> list[tuple[bool, str]]:
    """The bar, line by line: is it kept, and the figure."""
    found: list[tuple[bool, str]] = []
    for threads in _threads(record):
        rows = [r for r in record["rows"] if r["threads"] == threads and r["group"] not in APART]
        leads = {r["row"]: min(peers_of(r).values()) for r in rows if peers_of(r)}
        where = f"{threads} thread{'s' * (threads > 1)}"
        if leads:
            behind = {row: x for row, x in leads.items() if x < 1}
            found.append((not behind, f"{where}: faster than the best peer on {len(leads) - len(behind)} of {len(leads)} rows" +
                          ("; behind on " + ", ".join(f"{row} {x:.2f}x" for row, x in sorted(behind.items(), key=lambda p: p[1])) if behind else "")))
            mean = statistics.geometric_mean(leads.values())
            found.append((mean >= BAR_GEOMETRIC, f"{where}: geometric mean of best peer / graphc {mean:.2f}x, bar {BAR_GEOMETRIC}x"))
        tiny = next((r["contestants"]["graphc"].get("seconds") for r in rows if r["row"] == "scalar_grad" and "graphc" in r["contestants"]), None)
        if tiny:
            found.append((tiny < BAR_TINY, f"{where}: a call of a tiny function {duration(tiny)}, bar {duration(BAR_TINY)}"))
        rates = record["bandwidth"].get(str(threads))
        if rates:
            parts = {r["row"]: (r["read"] + r["written"]) / r["contestants"]["graphc"]["seconds"] / limit(rates, r["read"], r["written"])
                     for r in rows if r["memory_bound"] and r["read"] + r["written"] >= MEMORY_FROM and "seconds" in r["contestants"].get("graphc", {})}
            found += _all_reach(parts, BAR_BANDWIDTH, f"{where}: memory-bound rows of {MEMORY_FROM >> 20} MB and more at {BAR_BANDWIDTH:.0%} of the measured bandwidth", "{:.0%}")
    found += _all_reach(scaling(record), BAR_SCALING, f"two threads {BAR_SCALING}x one, rows of {duration(SCALING_FROM)} and more", "{:.2f}x")
    free = {f"{r['row'].removeprefix('sizes/')} ({r['threads']})": -r["contestants"]["graphc_any"]["ratio"]
            for r in record["rows"] if r["group"] == 13 and "ratio" in r["contestants"].get("graphc_any", {})}
    found += _all_reach(free, -BAR_ANY_SIZE, f"unknown sizes within {BAR_ANY_SIZE - 1:.0%} of fixed ones", "{:.2f}x")
    for entry in record["first_call"]:
        r = entry["contestants"].get("graphc", {})
        if entry["row"] == "first_call/mlp" and "cold" in r:
            cold, warm = r["cold"]["first_call"], r["warm"]["first_call"]
            found += [(cold < BAR_COLD, f"first call of the small MLP step, cold: {duration(cold)}, bar {duration(BAR_COLD)}"),
                      (warm < BAR_WARM, f"first call of the small MLP step, warm: {duration(warm)}, bar {duration(BAR_WARM)}")]
    return found


def _all_reach(figures: dict[str, float], bar: float, what: str, form: str) -> list[tuple[bool, str]]:
    if not figures:
        return []
    short = {name: x for name, x in sorted(figures.items(), key=lambda p: p[1]) if x < bar}
    return [(not short, f"{what}: {len(figures) - len(short)} of {len(figures)}" +
             ("; short " + ", ".join(f"{name} {form.format(abs(x))}" for name, x in short.items()) if short else ""))]


def problems(record: Record) -> list[str]:
    """What was not timed, and why."""
    lines = []
    for r in record["rows"]:
        for name, result in r["contestants"].items():
            if result["status"] != "ok":
                lines.append(f"{r['row']}, {r['threads']} thread{'s' * (r['threads'] > 1)}, {_title(name)}: {result['status']}, {result.get('detail', '')}")
    return lines


def sheets_of(record: Record) -> list[Sheet]:
    return [*main_sheets(record), *memory_sheets(record), *any_size_sheet(record), *first_call_sheets(record)]


def heading(record: Record) -> str:
    m = record["machine"]
    versions = dict.fromkeys(f"{k} {v}" for facts in record["facts"].values() for k, v in facts.items() if k not in ("threads", "config.backend"))
    backends = dict.fromkeys(f"graphc's backend {r['contestants']['graphc']['note']}" for r in record["rows"] if r["contestants"].get("graphc", {}).get("note"))
    versions |= backends
    return f"{m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}, {m['date']}; {record['rounds']} rounds; {', '.join(versions)}"


def show(record: Record, console: Console) -> None:
    """Print everything to a terminal."""
    console.print(heading(record))
    for sheet in sheets_of(record):
        table = Table(title=sheet.title, caption=sheet.note or None, header_style="bold")
        for i, header in enumerate(sheet.headers):
            table.add_column(header, justify="right" if i else "left", no_wrap=True)
        for row in sheet.rows:
            table.add_row(*row)
        console.print(table)
    for line in problems(record):
        console.print(f"[yellow]not timed:[/] {line}", highlight=False)
    for kept, line in checks(record):
        console.print(("[green]kept:[/] " if kept else "[red]short:[/] ") + line, highlight=False)


def markdown(record: Record) -> str:
    """The same for a README."""
    parts = [heading(record) + "."]
    for sheet in sheets_of(record):
        lines = ["| " + " | ".join(sheet.headers) + " |", "|---|" + "---:|" * (len(sheet.headers) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in sheet.rows]
        parts.append(f"### {sheet.title}\n\n" + (sheet.note + ".\n\n" if sheet.note else "") + "\n".join(lines))
    if problems(record):
        parts.append("### Not timed\n\n" + "\n".join(f"- {line}" for line in problems(record)))
    if checks(record):
        parts.append("### The bar\n\n" + "\n".join(f"- {'kept' if kept else '**short**'}: {line}" for kept, line in checks(record)))
    return "\n\n".join(parts) + "\n"


def joined(records: list[Record]) -> Record:
    """Several files as one: later rows replace earlier ones."""
    first = records[0]
    for other in records[1:]:
        for part in ("rows", "first_call"):
            new = {(r["row"], r["threads"]) for r in other[part]}
            first[part] = [r for r in first[part] if (r["row"], r["threads"]) not in new] + other[part]
        first["facts"] |= other["facts"]
        first["bandwidth"] |= other["bandwidth"]
    return first


def main() -> None:
    files = [a for a in sys.argv[1:] if not a.startswith("--")]
    if not files:
        raise SystemExit(__doc__)
    record = joined([json.loads(Path(f).read_text()) for f in files])
    if "--markdown" in sys.argv:
        print(markdown(record), end="")
    else:
        show(record, Console(width=None if sys.stdout.isatty() else 200))


if __name__ == "__main__":
    main()
