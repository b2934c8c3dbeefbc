"""One function, two programs: one for calls whose sizes are as assumed, one for all others.

The second one is made when the first such call comes.  Which one runs depends on the sizes of the call alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc import dims
from graphc.dims import Size, Symbol
from graphc.ir import Array

__all__ = ["Variants"]


class Variants:
    """A runner (graphc/backends).  ``same``: what each symbol is assumed to be.  ``usual`` runs then, else what ``make`` gives."""

    def __init__(self, same: Mapping[Symbol, Size], usual: Any, make: Callable[[], Any]) -> None:
        self.same, self.usual, self.make = dict(same), usual, make
        self.general: Any = None
        self.lock = threading.Lock()

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> Any:
        if all(env[s] == dims.evaluate(size, env) for s, size in self.same.items()):
            return self.usual(arguments, env)
        return self.other()(arguments, env)

    def other(self) -> Any:
        """The runner of calls whose sizes are not as assumed."""
        if self.general is None:
            with self.lock:
                if self.general is None:
                    self.general = self.make()
        return self.general

    def __getattr__(self, name: str) -> Any:
        return getattr(self.usual, name)
