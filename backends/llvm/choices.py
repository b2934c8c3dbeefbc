"""What the code of a kernel is chosen by: its work for one element, how wide and how many its vectors are."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.dtypes import is_half
from graphc.kernel import Kernel
from graphc.ops import OPS

__all__ = ["STREAMING", "adds_to_arrays", "lanes", "streams", "unroll", "work"]

#: operations for one element, loads among them, up to which a kernel waits for memory; for a complex number twice as many
STREAMING = 8.0

Ranges = Sequence[frozenset[int]]  # what value_ranges gives: those that each value depends on


def work(kernel: Kernel, depends: Ranges) -> float:
    """Operations for one element, loads among them; what is the same along the lanes is done once for all of them."""
    return sum(OPS[v.word].flops if v.op == "apply" else 1.0 for v, ranges in zip(kernel.values, depends, strict=True)
               if v.op in ("apply", "load", "cast") and (kernel.vector in ranges or kernel.vector < 0))


def streams(kernel: Kernel, depends: Ranges) -> bool:
    """Does it wait for memory?  Not where points of the grid add to an array, which stays in the cache, nor where rows have ends."""
    kept = any(v.op == "reduce" and depends[i] and set(v.over) & set(kernel.grid) for i, v in enumerate(kernel.values))
    most = STREAMING * (2 if any(v.op == "store" and v.index is not None and (kernel.vector, 2) in v.index.terms for v in kernel.values) else 1)
    return kernel.vector in kernel.grid and not kept and work(kernel, depends) <= most \
        and not any(v.word == "sqrt" and kernel.vector in ranges for v, ranges in zip(kernel.values, depends, strict=True))  # roots.py works on whole registers


def adds_to_arrays(kernel: Kernel, depends: Ranges) -> bool:
    """Do points of the grid add to arrays, and nothing else that would have to wait for one of them?"""
    k = kernel
    kept = [i for i, v in enumerate(k.values)
            if v.op == "reduce" and set(k.grid) & set(v.over) and depends[i] and v.word not in ("argmax", "argmin")]
    return bool(kept) and len(kept) == sum(v.op == "reduce" for v in k.values) and not any(o.mode == "temp" for o in k.operands) \
        and len(k.stages) == 1 and len(k.values) <= 24


def unroll(kernel: Kernel, depends: Ranges, lanes: int, bits: int, most_bits: int) -> int:
    """Vectors side by side: enough to hide latency, few enough for the registers; ``bits`` of each, of ``most_bits`` that one may have."""
    reducing = any(v.op == "reduce" for v in kernel.values)
    wide = max((v.dtype.itemsize for v in kernel.values), default=4) * lanes * 8 // bits
    more = most_bits // bits
    amount = work(kernel, depends)
    if amount > 60 or wide > 2:
        return more
    return (4 if reducing and amount <= 12 else 2) * more


def lanes(kernel: Kernel, bits: int) -> int:
    """Lanes of a vector: a full register of the narrowest numbers that are computed with, of 4 bytes at least where some are wider."""
    sizes = {4 if is_half(v.dtype) else v.dtype.itemsize for v in kernel.values if v.dtype.kind != "b"}
    if not sizes:
        return bits // 8
    narrow = min(sizes) if max(sizes) < 4 else min(s for s in sizes if s >= 4)
    return bits // (8 * narrow)
