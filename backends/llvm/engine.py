"""LLVM text in, addresses of functions out: compiled once per process, and once per machine.

    addresses = engine().load({"k_1f3a": text, ...}, host(), {"expf": address_of_expf})

``load`` looks for a module in this process, then on disk (graphc/caching.py), and compiles what is missing, several
modules at once where several processors may be used.  What the modules call is found in ``externals``, then among the
functions of the process (the C library's).  Machine code stays until the process ends.

Settings, each measured (docs/cache.md): no pass pipeline, code generation at level 2, position-independent code of
the small model, ORC with JITLink, all new objects of one call linked at once.
"""

from __future__ import annotations

import contextvars
import ctypes
import hashlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import llvmlite
import llvmlite.binding as llvm

from graphc import caching
from graphc.backends.llvm.target import Target
from graphc.errors import InternalError, here, on_behalf_of
from graphc.processors import usable_cpus
from graphc.settings import config

__all__ = ["Engine", "Statistics", "engine"]

OPT = 2  # level 1 saves 0-10 % of the time, its code is up to 4 % slower; 3 compiles up to 10 % longer and gives the same
MODEL, RELOCATION = "small", "pic"  # JITLink puts all parts of an object together, so constants are always in reach
_FORMAT = f"graphc object 1, opt={OPT}, {MODEL}, {RELOCATION}"  # the number changes with what objects expect of the process
_MOST_WORKERS = 4

_DECLARED = re.compile(r'declare [^@]*@"?(?!llvm\.)([\w.$-]+)"?\(|@"?([\w.$-]+)"? = external ')


class Statistics(NamedTuple):
    """What an engine did since the process began; differences of two are what was done in between.

    Args:
        compiled: modules that were compiled.
        from_disk: modules whose object code was found on disk.
        from_memory: modules that this process had loaded before.
        seconds: spent in ``load``.
    """

    compiled: int = 0
    from_disk: int = 0
    from_memory: int = 0
    seconds: float = 0.0

    def __sub__(self, o: Statistics) -> Statistics:
        return Statistics(self.compiled - o.compiled, self.from_disk - o.from_disk, self.from_memory - o.from_memory, self.seconds - o.seconds)

    def plus(self, o: Statistics) -> Statistics:
        return Statistics(self.compiled + o.compiled, self.from_disk + o.from_disk, self.from_memory + o.from_memory, self.seconds + o.seconds)


@dataclass(frozen=True)
class _Job:
    """One module on its way to its address."""

    symbol: str
    text: str
    key: str  # of the object code
    needs: tuple[str, ...]  # symbols that it takes from outside

    def identity(self, known: Mapping[str, int]) -> tuple[object, ...]:
        """The module and what it is bound to: the address of this stays."""
        return self.symbol, self.key, *(known.get(name) for name in self.needs)


@dataclass
class _Machines:
    """LLVM's code generators, one per target and thread at a time; making one takes longer than parsing a small module."""

    free: dict[str, list[Any]] = field(default_factory=dict)

    @contextmanager
    def one(self, target: Target) -> Iterator[Any]:
        free = self.free.setdefault(target.key, [])
        try:
            machine = free.pop()
        except IndexError:
            machine = _machine(target)
        try:
            yield machine
        finally:
            free.append(machine)


# One lock for all that changes; held while a process forks, so that the child finds everything whole.
_lock = threading.RLock()
_counting = threading.Lock()


def _before_fork() -> None:
    _lock.acquire()
    _counting.acquire()


def _after_fork() -> None:
    _counting.release()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


_kept: list[Any] = []  # cache: LLVM takes code back when these go, and an address says nothing to Python's collector


class Engine:
    """Compiles and keeps machine code.  Use the process's one, ``engine()``; a second one is for tests.

    All methods may be called from any thread, and after a fork in the child too.
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}  # key -> object code; loaded again if the externals move
        self._addresses: dict[tuple[object, ...], int] = {}
        self._machines = _Machines()
        self._linker: Any = None
        self._named = 0
        self._statistics = Statistics()

    @property
    def statistics(self) -> Statistics:
        return self._statistics

    def load(self, texts: Mapping[str, str], target: Target, externals: Mapping[str, int] | None = None) -> dict[str, int]:
        """The addresses of functions, by symbol.

        Args:
            texts: symbol -> text of the LLVM module that defines it.  A module may declare and call the symbols of others
                (not in a circle).  Its helpers should be ``private`` or ``internal``.
            target: what to compile for; its features must be a part of this machine's.
            externals: symbol -> address of what the modules may call besides that and the C library.

        The same text under the same symbol has the same address for as long as what it declares has.
        """
        start = time.perf_counter()
        compiler = _compiler(target)
        levels = _levels([_Job(symbol, text, _key(text, compiler), _declared(text)) for symbol, text in texts.items()])
        given = {} if externals is None else dict(externals)
        known = self._known(levels, given)
        done = Statistics(from_memory=len(texts))
        if known is None:
            made: list[tuple[Statistics, dict[str, int]]] = []
            stop = threading.Event()

            def work() -> None:
                with _lock:
                    jobs = [job for level in levels for job in level]
                    made.append((self._compile(jobs, target, stop), self._link(levels, given, target, stop)))

            _aside(work, stop)
            done, known = made[0]
        done = done._replace(seconds=time.perf_counter() - start)
        with _counting:
            self._statistics = self._statistics.plus(done)
        return {symbol: known[symbol] for symbol in texts}

    def assembly(self, text: str, target: Target) -> str:
        """What a module becomes, in the target's assembly language; the target need not be this machine."""
        shown = []

        def work() -> None:
            with _lock:
                _initialise(target)
                with self._machines.one(target) as machine, llvm.create_context() as context, _parsed("the module", text, context) as module:
                    shown.append(str(machine.emit_assembly(module)))

        _aside(work, threading.Event())
        return shown[0]

    def _known(self, levels: list[list[_Job]], given: dict[str, int]) -> dict[str, int] | None:
        """All addresses, if all modules are loaded.  Takes no lock: it must not wait for another thread's compiler."""
        known = dict(given)
        for level in levels:
            for job in level:
                address = self._addresses.get(job.identity(known))
                if address is None:
                    return None
                known[job.symbol] = address
        return known

    # ---- object code

    def _compile(self, jobs: list[_Job], target: Target, stop: threading.Event) -> Statistics:
        """Object code of all modules: from this process, from disk, from LLVM."""
        missing = {job.key: job for job in jobs if job.key not in self._objects}
        from_memory = len(jobs) - len(missing)
        store = caching.current()
        if store is not None:
            for key in list(missing):
                found = store.get(key)
                if found is not None:
                    self._objects[key] = found
                    del missing[key]
        self._compile_now(list(missing.values()), target, store, stop)
        return Statistics(len(missing), len(jobs) - from_memory - len(missing), from_memory)

    def _compile_now(self, jobs: list[_Job], target: Target, store: caching.Store | None, stop: threading.Event) -> None:
        """Object code of modules, kept and stored one by one: after Ctrl-C none of them is compiled again."""
        if not jobs:
            return
        _initialise(target)
        waiting = deque(jobs)

        def work() -> None:
            with self._machines.one(target) as machine:
                while waiting and not stop.is_set():
                    try:
                        job = waiting.popleft()
                    except IndexError:  # another thread was faster
                        break
                    content = _compiled(job, machine)
                    self._objects[job.key] = content
                    if store is not None:
                        store.put(job.key, content)

        _aside(work, stop, _workers(len(jobs)))
        if stop.is_set():
            raise InterruptedError

    # ---- addresses

    def _link(self, levels: list[list[_Job]], given: dict[str, int], target: Target, stop: threading.Event) -> dict[str, int]:
        """Addresses of modules whose object code is there; those that nothing new calls first."""
        known = dict(given)
        for level in levels:
            fresh = [job for job in level if job.identity(known) not in self._addresses]
            try:
                self._add(fresh, known)
            except RuntimeError:  # which one it was, and whether the others are good, is seen one by one
                for job in fresh:
                    self._add_alone(job, known, target, stop)
            known.update({job.symbol: self._addresses[job.identity(known)] for job in level})
        return known

    def _add_alone(self, job: _Job, known: dict[str, int], target: Target, stop: threading.Event) -> None:
        try:
            try:
                self._add([job], known)
            except RuntimeError:  # a whole entry on disk may still not be what this LLVM makes of the text
                self._compile_now([job], target, caching.current(), stop)
                self._add([job], known)
        except RuntimeError as error:
            if isinstance(error, InternalError):
                raise
            needed = ", ".join(job.needs) or "nothing"
            raise InternalError(f"the machine code of {job.symbol} cannot be loaded: {_head(error)}\nit needs from outside: {needed}") from None

    def _add(self, jobs: list[_Job], known: dict[str, int]) -> None:
        """Objects into memory, as one library; a symbol may be defined by several libraries."""
        if not jobs:
            return
        if self._linker is None:
            _initialise_host()
            self._linker = llvm.create_lljit_compiler(use_jit_link=True, suppress_errors=True)
        builder = llvm.JITLibraryBuilder().add_current_process()
        for name in sorted({name for job in jobs for name in job.needs if name in known}):
            builder.import_symbol(name, known[name])
        for job in jobs:
            builder.add_object_img(self._objects[job.key]).export_symbol(job.symbol)
        self._named += 1
        library = builder.link(self._linker, f"graphc{self._named}")
        _kept.append((self._linker, library))
        self._addresses.update({job.identity(known): library[job.symbol] for job in jobs})


_engines: list[Engine] = []  # cache: the process's engine, once it is there


def engine() -> Engine:
    """The engine of this process."""
    if not _engines:
        with _lock:
            if not _engines:
                _engines.append(Engine())
    return _engines[0]


def _levels(jobs: list[_Job]) -> list[list[_Job]]:
    """The modules in an order in which each comes after those that it calls."""
    left, levels = {job.symbol: job for job in jobs}, []
    while left:
        ready = [job for job in left.values() if not any(name in left for name in job.needs)]
        if not ready:
            raise InternalError(f"modules call each other in a circle: {', '.join(sorted(left))}")
        levels.append(ready)
        for job in ready:
            del left[job.symbol]
    return levels


def _compiler(target: Target) -> str:
    """All that machine code depends on besides the text."""
    version = ".".join(map(str, llvm.llvm_version_info))
    return f"{_FORMAT}\0{llvmlite.__version__}\0{version}\0{target.key}\0"


def _key(text: str, compiler: str) -> str:
    return hashlib.sha256((compiler + text).encode()).hexdigest()


def _declared(text: str) -> tuple[str, ...]:
    """What a module takes from outside, but for LLVM's own functions."""
    found = [_DECLARED.match(line) for line in text.splitlines() if line.startswith(("declare ", "@"))]
    return tuple(sorted({match[1] or match[2] for match in found if match is not None}))


def _workers(jobs: int) -> int:
    return 1 if jobs == 1 else min(jobs, usable_cpus(), config.threads or _MOST_WORKERS, _MOST_WORKERS)


def _aside(work: Callable[[], None], stop: threading.Event, threads: int = 1) -> None:
    """Run ``work`` in other threads and wait; ``stop`` is set when they shall end early.

    All work with LLVM is done so.  Python raises Ctrl-C in the main thread between any two instructions, which there
    would also be between an LLVM object and its owner, and inside llvmlite's lock, which then stays closed for ever.
    """
    errors: list[BaseException] = []
    origin = here()  # the user's line, which the other threads do not see

    def guarded() -> None:
        try:
            with on_behalf_of(origin):
                work()
        except BaseException as error:
            stop.set()
            errors.append(error)

    started = []
    try:
        for _ in range(threads):
            thread = threading.Thread(target=contextvars.copy_context().run, args=(guarded,), name="graphc compiles", daemon=True)
            started.append(thread)
            thread.start()
        for thread in started:
            thread.join()
    except BaseException:  # Ctrl-C: at most one module is waited for
        stop.set()
        for thread in started:
            if thread.is_alive():
                thread.join()
        raise
    if errors:
        raise errors[0]


# ---- LLVM


def _initialise_host() -> None:
    llvm.initialize_native_target()  # again costs nothing
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()  # inline assembly without it ends the process


def _initialise(target: Target) -> None:
    _initialise_host()
    if target.triple.partition("-")[0] != llvm.get_process_triple().partition("-")[0]:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def _machine(target: Target) -> Any:
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(cpu=target.cpu, features=target.feature_text, opt=OPT, reloc=RELOCATION, codemodel=MODEL, jit=True)


def _parsed(name: str, text: str, context: Any) -> Any:
    try:
        module = llvm.parse_assembly(text, context)
    except RuntimeError as error:
        raise InternalError(f"LLVM does not accept the code of {name}: {_head(error)}") from None
    if config.verify:
        try:
            module.verify()
        except RuntimeError as error:
            module.close()  # before its context
            raise InternalError(f"LLVM does not accept the code of {name}: {_head(error)}") from None
    return module


def _compiled(job: _Job, machine: Any) -> bytes:
    # a context of its own: one that is shared keeps every constant for ever and lets no two threads work at once
    with llvm.create_context() as context, _parsed(job.symbol, job.text, context) as module:
        return _emitted(machine, module)


def _emitted(machine: Any, module: Any) -> bytes:
    """Object code of a module.

    llvmlite lets one thread at a time into LLVM, whatever it does there.  LLVM itself asks only that threads share no
    context and no machine, as is the case here, so the long call goes around that lock where llvmlite's wrapper is
    the known one.
    """
    emit: Callable[..., Any] | None = getattr(llvm.ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:
        return bytes(machine.emit_object(module))
    message = ctypes.c_char_p()
    buffer = emit(machine, module, 1, ctypes.byref(message))
    if not buffer:
        raise InternalError(f"LLVM makes no machine code: {(message.value or b'').decode(errors='replace')}")
    try:
        return ctypes.string_at(llvm.ffi.lib.LLVMPY_GetBufferStart(buffer), llvm.ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        llvm.ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _head(error: BaseException, lines: int = 6) -> str:
    return "\n".join(str(error).strip().splitlines()[:lines])
