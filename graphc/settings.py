"""``gc.config``: defaults that a script, an environment variable or a ``with`` may set.

    gc.config.floatX = "float32"           # for the process
    GRAPHC_FLOATX=float32 python script.py # from outside
    with gc.config(floatX="float32"): ...  # for one block, in this thread only
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from graphc.errors import GraphcTypeError, GraphcValueError

__all__ = ["Config", "config"]


def _one_of(*allowed: str) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value not in allowed:
            raise GraphcValueError(f"config.{name} = {value!r}: expected one of {', '.join(map(repr, allowed))}")
        return value
    return check


def _boolean(name: str, value: Any) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False, "": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise GraphcValueError(f"config.{name} = {value!r}: expected True or False")


def _natural(name: str, value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise GraphcValueError(f"config.{name} = {value!r}: expected an integer >= 0") from None
    if number < 0:
        raise GraphcValueError(f"config.{name} = {value!r}: expected an integer >= 0")
    return number


def _text(name: str, value: Any) -> str:
    return str(os.fspath(value))


#: name -> (default, check, what it is for); the one place where settings are declared
FIELDS: dict[str, tuple[Any, Callable[[str, Any], Any], str]] = {
    "floatX": ("float64", _one_of("float16", "bfloat16", "float32", "float64"), "dtype of float inputs declared without one"),
    "backend": ("auto", _one_of("auto", "llvm", "numpy", "reference", "interpreter"), "backend of modes that name none"),
    "mode": ("FAST_RUN", _one_of("FAST_RUN", "FAST_COMPILE", "DEBUG"), "mode of functions compiled without one"),
    "matmul": ("auto", _one_of("auto", "bf16x6"), "how large products are made: \"bf16x6\" on tiles of bfloat16, where the processor has them (docs/amx.md)"),
    "threads": (0, _natural, "threads of one call; 0: as many as the process may use"),
    "cache_dir": (os.path.join(os.path.expanduser("~"), ".cache", "graphc"), _text, "folder of the compile cache"),
    "cache_size": (256 << 20, _natural, "largest total, in bytes, of the compile cache's files; 0: no cache on disk"),
    "check_nan": (False, _boolean, "raise NaNError at the first node that makes a NaN, in functions whose mode does not say"),
    "profile": (False, _boolean, "count and time the nodes of every compiled function"),
    "verify": (False, _boolean, "run the verifier after every pass (DEBUG mode and the tests always do)"),
    "fold_limit": (1 << 16, _natural, "largest constant, in bytes, that folding may make out of smaller ones"),
}

_overlay: ContextVar[dict[str, Any]] = ContextVar("graphc_config_overlay")


class Config:
    """The settings; see ``FIELDS`` for the names.  Unknown names are an error, not a new setting."""

    _values: dict[str, Any]

    def __init__(self) -> None:
        values = {}
        for name, (default, check, _) in FIELDS.items():
            given = os.environ.get("GRAPHC_" + name.upper())
            values[name] = default if given is None else check(name, given)
        object.__setattr__(self, "_values", values)

    def __getattr__(self, name: str) -> Any:
        overlay = _overlay.get(None)
        if overlay is not None and name in overlay:
            return overlay[name]
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"gc.config has no setting {name!r}; it has: {', '.join(FIELDS)}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._values[name] = _checked(name, value)

    @contextmanager
    def __call__(self, **settings: Any) -> Iterator[Config]:
        """Settings for one ``with`` block, seen by this thread only."""
        checked = {name: _checked(name, value) for name, value in settings.items()}
        token = _overlay.set({**_overlay.get({}), **checked})
        try:
            yield self
        finally:
            _overlay.reset(token)

    def __repr__(self) -> str:
        return "\n".join(f"{name} = {getattr(self, name)!r}  # {why}" for name, (_, _, why) in FIELDS.items())


def _checked(name: str, value: Any) -> Any:
    if name not in FIELDS:
        raise GraphcTypeError(f"gc.config has no setting {name!r}; it has: {', '.join(FIELDS)}")
    return FIELDS[name][1](name, value)


config = Config()
