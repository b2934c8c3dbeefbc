"""graphc's thread pool: ``gc_parallel`` and what Python has to say to it.

    void gc_parallel(ptr task, ptr context, i64 chunks, i64 threads)

calls ``task(context, chunk)`` once for every chunk on at most ``threads`` threads, the caller among them, and
returns when all are done.  It is written in pool_text.py; ``docs/threads.md`` says how it behaves and why.
"""

from __future__ import annotations

import ctypes
import functools
import os

from graphc.backends.llvm.engine import engine
from graphc.backends.llvm.pool_text import MOST_THREADS, has_threads, pool_module
from graphc.backends.llvm.target import Target, host
from graphc.processors import affinity_cpus, cgroup_cpus
from graphc.settings import config

__all__ = ["Pool", "pool", "pool_module"]

#: answers of threads_for from one reading of the affinity mask (0.5 us); gc_parallel itself looks after 1000 regions too
_REREAD = 1000


class Pool:
    """The threads of this process.

    There is one, ``pool()``; another ``Pool`` has the same threads if its target is the same, else its own.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        quota = cgroup_cpus()
        self.granted = 0 if quota is None else max(1, int(quota))  #: processors of the control group's quota; 0: no quota
        self.limit = self._known = self._left = 0

    @functools.cached_property
    def _table(self) -> tuple[int, ...]:
        """The addresses of the pool's functions.  Its code is loaded when a function that may use threads is made."""
        loader = engine()
        table = loader.load({"gc_pool": pool_module(self.target)}, self.target)["gc_pool"]
        # the workers run in this code until the process ends, so it is never freed
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(loader))
        found = tuple((ctypes.c_size_t * 4).from_address(table))
        if has_threads(self.target):
            _after_fork(found[2])
        ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_int32)(found[1])(self.granted, self.limit)
        return found

    @property
    def address(self) -> int:
        """Of ``gc_parallel``."""
        return self._table[0]

    def set_limit(self, limit: int) -> None:
        """No region has more threads than this; 0: than the process has processors (its mask's or its quota's)."""
        self.limit = limit
        self._left = 0
        ctypes.CFUNCTYPE(None, ctypes.c_int32, ctypes.c_int32)(self._table[1])(self.granted, limit)

    @property
    def workers(self) -> int:
        """How many worker threads exist."""
        return int(ctypes.CFUNCTYPE(ctypes.c_int32)(self._table[3])())

    @property
    def usable(self) -> int:
        """How many threads a region called from this thread may have."""
        if self.limit:
            return min(self.limit, MOST_THREADS)
        count = affinity_cpus()
        return min(count, self.granted or count, MOST_THREADS)

    def threads_for(self, function_threads: int | None, call_threads: int | None) -> int:
        """What the call says, else the function, else ``gc.config.threads``; 0, or more than there are: as many as usable."""
        asked = call_threads if call_threads is not None else function_threads
        if asked is None:
            asked = config.threads
        if self._left <= 0:
            self._known, self._left = self.usable, _REREAD
        self._left -= 1
        return min(asked, self._known) if asked > 0 else self._known


def _after_fork(child: int) -> None:
    """Have the function at address ``child`` called in every child of a fork, also of those that Python does not know of."""
    libc = ctypes.CDLL(None)
    nothing, function = ctypes.c_void_p(None), ctypes.c_void_p(child)
    if hasattr(libc, "pthread_atfork"):
        libc.pthread_atfork(nothing, nothing, function)
    elif hasattr(libc, "__register_atfork"):  # what pthread_atfork of glibc calls, where it is no symbol of its own
        getattr(libc, "__register_atfork")(nothing, nothing, function, nothing)
    else:
        os.register_at_fork(after_in_child=ctypes.CFUNCTYPE(None)(child))


@functools.cache
def pool() -> Pool:
    """The process's pool."""
    return Pool(host())
