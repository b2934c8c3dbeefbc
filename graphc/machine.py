"""What graphc found on this machine: processor, versions, threads, cache.  ``graphc doctor`` prints it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from graphc import caching, compiled, variables
from graphc.processors import cgroup_cpus, usable_cpus
from graphc.profiling import machine_limits
from graphc.settings import config

__all__ = ["cgroup_cpus", "describe", "usable_cpus"]

FEATURES = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512vl", "avx512bf16", "avx512fp16", "amx_bf16", "asimd", "sve")
PACKAGES = ("numpy", "llvmlite", "networkx", "rich", "ml_dtypes")


def describe(measure: bool = False) -> list[tuple[str, str]]:
    """(what, value) lines, in a fixed order; what cannot be found out says so.  ``measure``: the speed of memory and arithmetic too."""
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
        ("cache folder", _cache_text(caching.Store(config.cache_dir, config.cache_size))),
        ("backend in use", _trial()),
        *(_measured() if measure else ()),
    ]


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


def _cache_text(store: caching.Store) -> str:
    found = store.info()
    if not found.cap:
        return f"{found.folder} (not used: config.cache_size is 0)"
    if found.problem is not None:
        return f"{found.folder} NOT USED: the folder {found.problem}"
    folder = Path(found.folder)
    parent = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    state = f"{found.entries} objects, {found.size / 2**20:.1f} of {found.cap / 2**20:.0f} MiB" if folder.exists() else "not made yet"
    return f"{found.folder} ({state}, {'writable' if os.access(parent, os.W_OK) else 'NOT WRITABLE'})"


def _measured() -> list[tuple[str, str]]:
    """What ``f.profile`` compares kernels with."""
    limits = machine_limits()
    if limits is None:
        return [("measured", "nothing: llvmlite is not installed")]
    counts = (1,) if limits.threads == 1 else (1, limits.threads)
    said = [f"on {n} thread{'s' * (n > 1)}" for n in counts]
    return [
        ("from memory", ", ".join(f"{limits.bandwidth(n) / 1e9:.1f} GB/s {where}" for n, where in zip(counts, said, strict=True))),
        *((f"arithmetic, {name}", ", ".join(f"{limits.flops(kind, n) / 1e9:.0f} GFLOP/s {where}" for n, where in zip(counts, said, strict=True)))
          for kind, name in (("f32", "float32"), ("f64", "float64"))),
    ]


def _trial() -> str:
    """Compile and call a small function: the shortest answer to "does it work here?"."""
    x = variables.tensor("x", shape=("n",))
    f = compiled.function([x], (x * x).sum(), name="doctor")
    return f"{f.backend}, works" if float(f([1.0, 2.0, 3.0])) == 14.0 else f"{f.backend}, GIVES WRONG RESULTS"
