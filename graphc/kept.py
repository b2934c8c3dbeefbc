"""What is computed from state once per change, not once per call: a weight laid out as products read it, two weights multiplied.

``KeptState`` is a leaf that a function reads instead of an expression of its state (passes/keep.py).  ``KeptRunner`` stands before the runner
of such a function and computes the leaves' values when the state that they are made of has changed: that is, when it is another
array.  State changes by being replaced, and the arrays that the values were made of are held, so that none comes back with other numbers in it.
An array that the user holds too (``borrow=True``) may change in place: what is made of it is made for each call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Symbol
from graphc.errors import Origin
from graphc.ir import Array, Container, Graph, Shared, Var

__all__ = ["KeptRunner", "KeptState"]


class KeptState(Shared):
    """A leaf with the value of ``recipe``, an expression of other state."""

    __slots__ = ("recipe",)

    def __init__(self, recipe: Var, name: str | None, origin: Origin | None) -> None:
        shape = [size for size in recipe.type.shape if isinstance(size, int)]
        super().__init__(recipe.type, Container(np.zeros(shape, recipe.type.dtype)), name, origin)
        self.recipe = recipe


class KeptRunner:
    """A runner (graphc/backends) for a graph some of whose state is kept.

    Args:
        graph: as it is run; its ``KeptState`` comes after the state of the function as written.
        inner: its runner.
        build: what makes a runner of a graph, for that of the recipes.
    """

    def __init__(self, graph: Graph, inner: Any, build: Callable[[Graph], Any]) -> None:
        kept = [s for s in graph.shared if isinstance(s, KeptState)]
        recipes = Graph([], [s.recipe for s in kept], name=f"{graph.name} kept")
        place = {v: k for k, v in enumerate((*graph.inputs, *graph.shared))}
        self.inner, self.recipes, self.kept = inner, build(recipes), kept
        self.places = [place[s] for s in recipes.shared]
        self.sources = [s.container for s in recipes.shared]
        self.lock = threading.Lock()
        self.seen: list[Array] = []  # what the values were made of
        self.watches: list[Callable[[Sequence[Array]], None]] = []
        self.values([c.value for c in self.sources])

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> Any:
        return self.inner([*arguments, *self.values([arguments[k] for k in self.places])], env)

    def values(self, state: Sequence[Array]) -> list[Array]:
        """The values of the leaves for this state."""
        with self.lock:
            if not self.seen or any(a is not b for a, b in zip(state, self.seen, strict=True)):
                made = self.recipes(state, {})
                if any(c.lends(a) for c, a in zip(self.sources, state, strict=True)):
                    return list(made)
                self.tell(())  # nobody takes one state's values for another's meanwhile
                for s, value in zip(self.kept, made, strict=True):
                    s.container.value = value
                self.seen = list(state)
                self.tell(self.seen)
            return [s.container.value for s in self.kept]

    def tell(self, seen: Sequence[Array]) -> None:
        """Native doors hear for which state the values in the containers hold."""
        for watch in self.watches:
            watch(seen)

    def watch(self, watch: Callable[[Sequence[Array]], None]) -> None:
        """``watch(arrays)`` is called with the arrays that ``recipes.shared`` must have for the kept values to hold, now and after each change."""
        with self.lock:
            self.watches.append(watch)
            watch(self.seen)

    def entry(self, door: Any, structure: Any, careful: Callable[..., Any]) -> Any:
        """The backend's own way in, if it has one."""
        enter = getattr(self.inner, "entry", None)
        return None if enter is None else enter(door, structure, careful, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
