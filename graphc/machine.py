"""What graphc found on this machine: processor, versions, threads, cache.  ``graphc doctor`` prints it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from graphc import compiled, variables
from graphc.settings import config

__all__ = ["cgroup_cpus", "describe", "usable_cpus"]

FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bf16", "avx512fp16", "amx_bf16", "asimd", "sve")
PACKAGES = ("numpy", "llvmlite", "networkx", "rich", "ml_dtypes")


def describe() -> list[tuple[str, str]]:
    """(what, value) lines, in a fixed order; what cannot be found out says so."""
    versions = [(f"{name}", _version(name)) for name in PACKAGES]
    return [
        ("graphc", f"{_version('graphc')} in {os.path.dirname(os.path.abspath(__file__))}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        *versions,
        ("system", f"{platform.system()} {platform.release()} {platform.machine()}"),
        ("processor", _processor()),
        ("features", " ".join(f for f in FEATURES if f in _features()) or "unknown"),
        ("processors usable", _processors_text()),
        ("config.threads", f"{config.threads}" + (" (as many as usable)" if config.threads == 0 else "")),
        ("config.mode", str(config.mode)),
        ("config.backend", str(config.backend)),
        ("config.floatX", str(config.floatX)),
        ("cache folder", _folder_text(Path(config.cache_dir))),
        ("backend in use", _trial()),
    ]


def usable_cpus() -> int:
    """How many processors this process may use: its affinity, and its control group's quota where it has one."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    quota = cgroup_cpus()
    return count if quota is None else max(1, min(count, int(quota)))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The processors that the control group grants (version 2 or 1), or None where it sets no limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        granted = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return granted / period_us if granted > 0 and period_us > 0 else None


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip().lower(), value.strip())
    return found


def _processor() -> str:
    return _cpuinfo().get("model name") or platform.processor() or platform.machine() or "unknown"


def _features() -> set[str]:
    info = _cpuinfo()
    return set((info.get("flags") or info.get("features") or "").split())


def _processors_text() -> str:
    quota = cgroup_cpus()
    limits = f"of {os.cpu_count()}" + (f", control group grants {quota:g}" if quota is not None else "")
    return f"{usable_cpus()} ({limits})"


def _folder_text(folder: Path) -> str:
    parent = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    return f"{folder} ({'exists' if folder.exists() else 'not made yet'}, {'writable' if os.access(parent, os.W_OK) else 'NOT WRITABLE'})"


def _trial() -> str:
    """Compile and call a small function: the shortest answer to "does it work here?"."""
    x = variables.tensor("x", shape=("n",))
    f = compiled.function([x], (x * x).sum(), name="doctor")
    return f"{f.backend}, works" if float(f([1.0, 2.0, 3.0])) == 14.0 else f"{f.backend}, GIVES WRONG RESULTS"
