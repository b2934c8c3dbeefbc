"""What graphc says when something is wrong.

Every error is a built-in class by kind (``TypeError``, ``ValueError``, ...) and a
``GraphcError``, and carries the user's file and line in ``.where``.  A message
says what was wrong, which argument or op, what came, what was expected, and what
to do; the user's line is appended here so that no caller has to.
"""

from __future__ import annotations

import linecache
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

__all__ = [
    "AssertionFailed", "GradientError", "GraphcError", "GraphcIndexError", "GraphcTypeError",
    "GraphcValueError", "InternalError", "NaNError", "Origin", "UnusedInputError",
    "VerificationError", "here", "is_internal",
]


class Origin(NamedTuple):
    """Where a node comes from: the user's line and the rules that rewrote it since."""

    file: str
    line: int
    rules: tuple[str, ...] = ()

    def by(self, rule: str) -> Origin:
        """This origin, rewritten once more by ``rule`` (repeats are kept once)."""
        return self if rule in self.rules else self._replace(rules=(*self.rules, rule))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = Origin("<unknown>", 0)

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ROOT = os.path.dirname(os.path.dirname(_PACKAGE)) + os.sep
_INTERNAL_PREFIXES: tuple[str, ...] = (_PACKAGE,)
if os.path.exists(_ROOT + "pyproject.toml"):  # a checkout; beside an installed package such folders are the user's
    _INTERNAL_PREFIXES += (_ROOT + "passes" + os.sep, _ROOT + "backends" + os.sep)
_FROZEN = "<frozen importlib"  # between a script's `import graphc` and graphc
_EXAMPLES = _PACKAGE + "examples" + os.sep  # user scripts that the package brings with it
_is_internal: dict[str, bool] = {}  # cache: code file name -> part of graphc?
_origins: dict[tuple[str, int], Origin] = {}  # cache: one object per user line


def is_internal(file: str) -> bool:
    """Does a code file belong to graphc, so that the user does not want to see its lines?"""
    return file.startswith((*_INTERNAL_PREFIXES, _FROZEN)) and not file.startswith(_EXAMPLES)


_on_behalf: ContextVar[Origin | None] = ContextVar("graphc_on_behalf", default=None)


@contextmanager
def on_behalf_of(origin: Origin) -> Iterator[None]:
    """Nodes made in this block come from ``origin``: how a pass credits the user's line, not its own caller's."""
    token = _on_behalf.set(origin)
    try:
        yield
    finally:
        _on_behalf.reset(token)


def here() -> Origin:
    """The innermost line of the call stack that is not graphc's own, or whom a pass works on behalf of."""
    credited = _on_behalf.get()
    if credited is not None:
        return credited
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        internal = _is_internal.get(file)
        if internal is None:
            internal = _is_internal[file] = is_internal(file)
        if not internal:
            key = (file, frame.f_lineno)
            found = _origins.get(key)
            if found is None:
                found = _origins[key] = Origin(*key)
            return found
        frame = frame.f_back  # type: ignore[assignment]
    return UNKNOWN


def warn(message: str) -> None:
    """A UserWarning that points at the user's line, however deep in graphc it is raised."""
    where = here()
    warnings.warn_explicit(message, UserWarning, where.file, where.line)


class GraphcError(Exception):
    """Base of all errors of graphc.  ``.where`` is the user's (file, line) or None."""

    def __init__(self, message: str, where: Origin | None = None) -> None:
        self.message = message
        self.where = here() if where is None else where
        super().__init__(message + _shown(self.where))


def _shown(where: Origin) -> str:
    if where.line <= 0:
        return ""
    source = linecache.getline(where.file, where.line).strip()
    return f"\n  at {where.file}:{where.line}" + (f":  {source}" if source else "")


class GraphcTypeError(GraphcError, TypeError):
    """Wrong kind of thing: dtype, rank, class, number of arguments."""


class GraphcValueError(GraphcError, ValueError):
    """Right kind, wrong value: sizes, names, options."""


class GraphcIndexError(GraphcError, IndexError):
    """An index outside its axis, or too many of them."""


class UnusedInputError(GraphcValueError):
    """An input of ``gc.function`` that no output and no update needs."""


class GradientError(GraphcValueError):
    """A gradient that is undefined (an op without derivative) or disconnected."""


class NaNError(GraphcError, FloatingPointError):
    """``check_nan``: a node made NaN out of operands without NaN."""


class AssertionFailed(GraphcError, AssertionError):
    """A condition given to ``gc.assert_`` was false at run time."""


class VerificationError(GraphcError, AssertionError):
    """A pass broke an invariant of the representation, or changed a value (DEBUG mode)."""


class InternalError(GraphcError, RuntimeError):
    """graphc's own mistake, never the user's: please report it with the script."""
