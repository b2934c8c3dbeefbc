"""What is compiled for: a processor's name, its features, and the width of its vectors.

``Target`` is data; the emitter asks it for the vector width and for instructions that some
processors lack.  ``host()`` is this machine; tests make others by restricting the features.
"""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass

import llvmlite.binding as llvm

__all__ = ["Target", "host"]

#: features that change what the emitter writes, widest vectors first
WIDTHS = (("avx512f", 512), ("avx2", 256), ("neon", 128), ("sse2", 128))


@dataclass(frozen=True)
class Target:
    """A processor to compile for.

    Args:
        triple: LLVM's name of machine, vendor and system, such as "x86_64-unknown-linux-gnu".
        cpu: LLVM's name of the processor.
        features: the features that it has, in LLVM's spelling ("avx512f", "avx2", "neon").
        bits: width of the vectors that the emitter writes.
        tiles: kinds of numbers that large products use tiles for (amx.py).
        emulated: write what tiles do in plain code, for tests on processors that have none.
    """

    triple: str
    cpu: str
    features: frozenset[str]
    bits: int
    tiles: frozenset[str] = frozenset()
    emulated: bool = False

    def named(self, stem: str, text: str) -> tuple[str, str]:
        """A module's name, which says what it is and for whom, and its text, in which NAME stands for it."""
        name = f"{stem}_" + hashlib.sha256((self.key + "\n" + text).encode()).hexdigest()[:16]
        return name, text.replace("@NAME", "@" + name)

    def has(self, feature: str) -> bool:
        return feature in self.features

    @property
    def x86(self) -> bool:
        return self.triple.startswith(("x86_64", "i686"))

    @property
    def streaming_bits(self) -> int:
        """Width of the vectors of kernels that little more than load and store.

        Zen 4 takes 512 bits in two steps: half as many at a time cost nothing, cross fewer cache lines, and come to the memory
        more evenly (docs/llvm_backend.md has figures).
        """
        return min(self.bits, 256) if self.cpu == "znver4" else self.bits

    @property
    def feature_text(self) -> str:
        """LLVM's feature string; what the host has and this target lacks is switched off."""
        known = _host_features()
        names = sorted(set(known) | self.features)
        return ",".join(("+" if name in self.features else "-") + name for name in names)

    @property
    def key(self) -> str:
        """All of it as one line: part of the key of every cached object."""
        tiles = "".join(f" tiles:{kind}" for kind in sorted(self.tiles)) + (" emulated" if self.emulated else "")
        return f"{self.triple} {self.cpu} {self.bits} {' '.join(sorted(self.features))}{tiles}"

    def without(self, *features: str) -> Target:
        """The same processor without these features (and what they imply), for tests and for old machines."""
        gone = set(features)
        if "avx2" in gone:
            gone |= {"avx512f", "fma"}
        if "avx" in gone:
            gone |= {"avx2", "avx512f", "fma", "f16c"}
        if "avx512f" in gone:
            gone |= {f for f in self.features if f.startswith("avx512")}
        kept = frozenset(f for f in self.features if f not in gone)
        cpu = "x86-64" if self.x86 else "generic"
        return Target(self.triple, cpu, kept, _bits(kept))


def _bits(features: frozenset[str]) -> int:
    return next((bits for feature, bits in WIDTHS if feature in features), 128)


@functools.cache
def _host_features() -> dict[str, bool]:
    return dict(llvm.get_host_cpu_features())


@functools.cache
def host() -> Target:
    """This machine.  ``GRAPHC_CPU_FEATURES="-avx512f,-avx2"`` takes features away."""
    found = frozenset(name for name, there in _host_features().items() if there)
    triple = llvm.get_process_triple()
    if triple.startswith(("aarch64", "arm64")):
        found |= {"neon"}
    target = Target(triple, llvm.get_host_cpu_name(), found, _bits(found))
    removed = [f[1:] for f in os.environ.get("GRAPHC_CPU_FEATURES", "").split(",") if f.startswith("-")]
    return target.without(*removed) if removed else target
