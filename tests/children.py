"""Work done in child processes, which may die, and memory whose neighbours are unmapped."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["CrashError", "Pages", "expendable", "in_child"]

PAGE = mmap.PAGESIZE
FILL = 0xA5


class CrashError(AssertionError):
    """Machine code did what it must not do."""


class Pages:
    """Some bytes with unmapped pages on both sides, at the end of their last page or at the beginning of their first one; children share them."""

    def __init__(self, nbytes: int, at_end: bool) -> None:
        count = -(-nbytes // PAGE)
        self.length = (count + 2) * PAGE
        libc = _libc()
        self.base = libc.mmap(None, self.length, 0, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, 0)
        if self.base in (None, ctypes.c_void_p(-1).value):
            raise MemoryError
        if count and libc.mprotect(self.base + PAGE, count * PAGE, mmap.PROT_READ | mmap.PROT_WRITE):
            raise MemoryError
        self.address = self.base + PAGE + (count * PAGE - nbytes if at_end else 0)
        whole = np.frombuffer((ctypes.c_uint8 * (count * PAGE)).from_address(self.base + PAGE), np.uint8) if count else np.zeros(0, np.uint8)
        whole[:] = FILL
        unused = count * PAGE - nbytes
        self.bytes, self.rest = (whole[unused:], whole[:unused]) if at_end else (whole[:nbytes], whole[nbytes:])

    @classmethod
    @contextlib.contextmanager
    def of(cls, nbytes: int, at_end: bool) -> Iterator[Pages]:
        pages = cls(nbytes, at_end)
        try:
            yield pages
        finally:
            del pages.bytes, pages.rest
            _libc().munmap(pages.base, pages.length)


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


_children: list[bool] = []


def expendable() -> bool:
    """Is this a child of ``in_child``, which may die?"""
    return bool(_children)


def in_child(work: Callable[[], object], seconds: int, quiet: bool = False) -> str:
    """Do it in a child, which may die: what went wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork of a process with threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            _children.append(True)
            signal.alarm(seconds)
            if quiet:
                with open(os.devnull, "w") as nothing:
                    os.dup2(nothing.fileno(), 1)
                    os.dup2(nothing.fileno(), 2)
            work()
            code = 0
        except BaseException:
            if not quiet:
                traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"the process was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the process ended with {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else ""
