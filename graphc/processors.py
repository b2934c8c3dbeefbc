"""How many processors this process may use: its affinity mask, and the quota of its control groups.

A quota may be set at any level above the process, so the smallest one on the way from the process's own group
to the root counts.  Inside a container the root that is visible is often the container's own group, whatever
path ``/proc/self/cgroup`` names; a path that is not there is therefore walked up to the part that is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["affinity_cpus", "cgroup_cpus", "usable_cpus"]

#: folders below the root of the control groups: version 2 (alone, or beside version 1), and version 1's controller
UNIFIED = (".", "unified")
CONTROLLER = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def affinity_cpus() -> int:
    """How many processors the calling thread may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not Linux
        return os.cpu_count() or 1


def usable_cpus() -> int:
    """How many processors this process may use: its affinity, and its control group's quota where it has one."""
    count, quota = affinity_cpus(), cgroup_cpus()
    return count if quota is None else max(1, min(count, int(quota)))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """The processors that the control groups (version 2 or 1) grant, or None where they set no limit.

    Args:
        root: where the control groups are mounted.
        own: the file that says which groups the process is in.
    """
    found = []
    unified, controller = _own_groups(own)
    for name in UNIFIED:
        found += [_quota_2(folder) for folder in _levels(root / name, unified)]
    for name in CONTROLLER:
        found += [_quota_1(folder) for folder in _levels(root / name, controller)]
    return min((quota for quota in found if quota is not None), default=None)


def _own_groups(own: Path) -> tuple[str, str]:
    """The process's group in version 2, and in the controller "cpu" of version 1."""
    unified = controller = "/"
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return unified, controller
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            unified = path
        elif "cpu" in names.split(","):
            controller = path
    return unified, controller


def _levels(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and all above it, down to the mount itself."""
    parts = PurePosixPath(path).parts[1:]
    if ".." in parts:  # a group outside of what this process can see
        parts = ()
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _quota_2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_1(folder: Path) -> float | None:
    try:
        granted = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return granted / period if granted > 0 and period > 0 else None
