"""The special functions: those of ``errorfunction`` and ``gamma`` in one table."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value
from graphc.backends.llvm.vectormath.errorfunction import FUNCTIONS as ERROR
from graphc.backends.llvm.vectormath.gamma import FUNCTIONS as GAMMA

__all__ = ["FUNCTIONS"]

FUNCTIONS: dict[str, Callable[..., Value]] = {**ERROR, **GAMMA}
