"""What the tests of the native door share: who goes the careful way, outcomes as data, calls in threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import graphc as gc

LLVM = gc.Mode(backend="llvm")


class Watch:
    """Counts the calls of a function that go the careful way."""

    def __init__(self, f: Any) -> None:
        self.f, self.calls = f, 0
        is_native(f)
        self.door = f._compiled.door
        self.call = self.door.call
        self.door.call = self._count

    def _count(self, args: Any, kwargs: Any) -> Any:
        self.calls += 1
        return self.call(args, kwargs)

    def careful(self, *args: Any, **kwargs: Any) -> bool:
        """Does this call go the careful way?"""
        before = self.calls
        self.f(*args, **kwargs)
        return self.calls > before


def is_native(f: Any) -> bool:
    """Has the function a native door?  It is made now, if no call has done so."""
    if isinstance(f.__call__, gc.compiled._Early):
        f.__call__.make()
    return not isinstance(f.__call__, functools.partial)


def outcome(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The results as data, or the error as text."""
    try:
        result = call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)
    values = result.values() if isinstance(result, dict) else result if isinstance(result, list) else [] if result is None else [result]
    return type(result).__name__, [(v.dtype.name, v.shape, v.tobytes()) for v in values]


def same_as_careful(f: Any, *args: Any, **kwargs: Any) -> Any:
    """The call's outcome, which is that of the careful path; for functions without updates."""
    compiled = f._compiled
    want = outcome(functools.partial(gc.compiled._careful, compiled.door, f._structure), *args, **kwargs)
    assert outcome(f, *args, **kwargs) == want
    return want


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    errors: list[BaseException] = []

    def guarded(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors


def square(**options: Any) -> Any:
    x = gc.tensor("x", shape=(None,), dtype="float32")
    return gc.function([x], x * x, mode=LLVM, **options)
