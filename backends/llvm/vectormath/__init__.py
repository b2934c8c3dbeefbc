"""Vector mathematics: one function of Values for each elementwise op that has no instruction of its own."""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.llvm.values import Value
from graphc.backends.llvm.vectormath import exponential, logarithm, logsum, power, special, trigonometric

__all__ = ["FUNCTIONS"]

#: name of the op -> the function that writes it
FUNCTIONS: dict[str, Callable[..., Value]] = {
    **exponential.FUNCTIONS, **logarithm.FUNCTIONS, **logsum.FUNCTIONS, **power.FUNCTIONS, **special.FUNCTIONS, **trigonometric.FUNCTIONS}
