"""Backends: what turns an optimised graph and its memory plan into something that runs.

A backend is a module with a function ``compile(graph, plan, options) -> Runner``, a word ``TAKES`` for what the plan
is, and a table ``MISSING`` of the ops that it cannot run, with the reason.  ``BACKENDS`` names them; nothing is imported before it
is asked for.  How to write one: docs/backends.md.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, cast

import numpy as np

from graphc.dims import Symbol
from graphc.errors import GraphcError, GraphcIndexError, GraphcTypeError, GraphcValueError
from graphc.ir import Array, Graph, Node, updating


@dataclass(frozen=True)
class Options:
    """What a mode asks of a backend.

    Args:
        check_nan: raise NaNError at the first node that makes NaN out of operands without NaN.
        level: "exact" or "fast"; see ``gc.Mode``.
        name: the function's name, for generated code and messages.
        profile: measure the time of each kernel, where the backend can.
        threads: of each call at most; None: ``gc.config.threads``; 0: as many as the process may use.
        matmul: ``gc.config.matmul`` when the function was compiled.
    """

    check_nan: bool = False
    level: str = "exact"
    name: str = "f"
    profile: bool = False
    threads: int | None = None
    matmul: str = "auto"


class Runner(Protocol):
    """A compiled graph.

    ``arguments`` has one array per input, then one per shared variable, of their dtypes and ranks, in
    native byte order, perhaps strided or read-only; ``env`` says what the door symbols are.  The result
    has one array per root, in memory that nobody else has.  Several threads may call at once.

    A runner may also have a method ``entry(door, structure, careful)``: a callable for the function's calls, or None.
    ``door`` is the graphc/binding.py Door, ``structure`` is "one", "list", None or the keys of a dict.  It gives what
    ``careful(*args, **kwargs)`` would give, and calls that itself, before anything was changed, for every call that
    is in any way unusual: it converts, checks, and raises with full messages.  See docs/door.md.
    """

    source: str  # what it runs, for people: f.dump("source")

    def __call__(self, arguments: Sequence[Array], env: Mapping[Symbol, int]) -> list[Array]: ...


class Backend(Protocol):
    """A module.  ``TAKES`` says what it is given beside the graph: its memory "plan", its "program", or "graph", nothing more."""

    MISSING: dict[str, str]
    TAKES: str

    def compile(self, graph: Graph, plan: Any, options: Options) -> Runner: ...


#: name -> module; the door to the backends
BACKENDS: dict[str, str] = {
    "interpreter": "graphc.backends.interpreter",
    "llvm": "graphc.backends.llvm",
    "numpy": "graphc.backends.numpy_source",
    "reference": "graphc.backends.reference",
}


def load(name: str) -> Backend:
    """The backend of that name, imported now."""
    if name not in BACKENDS:
        raise GraphcValueError(f"there is no backend {name!r}; there are: {', '.join(sorted(BACKENDS))}")
    return cast(Backend, importlib.import_module(BACKENDS[name]))


def located(error: Exception, node: Node, operands: Sequence[Any] | None = None) -> Exception:
    """``error``, raised while ``node`` was computed, as an error that says so and where the user made the node.

    Errors of the kinds that wrong data causes become graphc's of the same kind; others
    (out of memory, a user's own) stay what they are and get a note.
    """
    where = node.origin
    if isinstance(error, GraphcError):
        return type(error)(error.message, where)
    shown = "" if operands is None else f" of {', '.join(_shape(a) for a in operands)}"
    for builtin, kind in ((IndexError, GraphcIndexError), (TypeError, GraphcTypeError), (ValueError, GraphcValueError)):
        if isinstance(error, builtin):
            return kind(f"{node.op.name}{shown}: {error}", where)
    error.add_note(f"in {node.op.name}{shown}, made at {where}")
    return error


def reraise(error: Exception, node: Node, operands: Sequence[Any] | None = None) -> NoReturn:
    """Raise ``error`` as ``located`` says it."""
    told = located(error, node, operands)
    if told is error:
        raise error
    raise told from error


def _shape(a: Any) -> str:
    array = np.asarray(a)
    return f"{array.dtype}{list(array.shape)}"


__all__ = ["BACKENDS", "Backend", "Options", "Runner", "load", "located", "reraise", "updating"]
