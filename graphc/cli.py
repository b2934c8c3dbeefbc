"""The command ``graphc``: run scripts, print their dumps, look at the machine and the cache.

    graphc demo                        train a classifier on handwritten digits
    graphc run SCRIPT [options] [-- args]
    graphc dump SCRIPT [-- args]       the final dump of every function that the script compiles
    graphc doctor [--measure]          what graphc found on this machine, and how fast it is
    graphc cache info|clear

A script runs as ``python SCRIPT`` would run it; an error in it is shown with the
user's own lines only, unless the mistake is graphc's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from graphc import caching, compiled
from graphc.errors import GraphcError, InternalError, is_internal
from graphc.settings import config

__all__ = ["main"]

DUMPED = ("input", "final", "source")  # what --dump writes of every function


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code (0 done, 1 the script or the check failed, 2 wrong usage)."""
    words = list(sys.argv[1:] if argv is None else argv)
    words, script_args = _split(words)
    parser = _parser()
    options = parser.parse_args(words)
    if script_args is not None and options.command not in ("run", "dump", "demo"):
        parser.error(f"graphc {options.command} takes no arguments after --")
    command: Callable[[argparse.Namespace, list[str]], int] = options.do
    return command(options, script_args or [])


def _split(words: list[str]) -> tuple[list[str], list[str] | None]:
    """The words before and after ``--``: what follows belongs to the script, whatever it looks like."""
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="graphc", description="Define a graph, compile it once, run it a million times.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="train a classifier on the handwritten digits of scikit-learn")
    demo.set_defaults(do=_demo)

    run = commands.add_parser("run", help="run a script with other settings", usage="graphc run SCRIPT [options] [-- args of the script]")
    run.add_argument("script", metavar="SCRIPT")
    run.add_argument("--backend", choices=["auto", "llvm", "numpy", "reference", "interpreter"], help="backend of functions that name none")
    run.add_argument("--threads", type=int, metavar="N", help="threads of one call (0: as many as the process may use)")
    run.add_argument("--dump", metavar="DIR", help=f"write the dumps ({', '.join(DUMPED)}) of every compiled function into DIR")
    run.add_argument("--profile", action="store_true", help="time the kernels of every compiled function; print it at the end")
    run.add_argument("--check-nan", action="store_true", help="stop at the first node that makes a NaN")
    run.add_argument("--debug", action="store_true", help="mode DEBUG: verify every pass, compare every value; full tracebacks")
    run.set_defaults(do=_run)

    dump = commands.add_parser("dump", help="run a script; print the dump of every function that it compiles",
                               usage="graphc dump SCRIPT [--stage STAGE] [-- args of the script]")
    dump.add_argument("script", metavar="SCRIPT")
    dump.add_argument("--stage", default="final", help='"input", the name of a pass, "final" (default), "source", "memory"')
    dump.set_defaults(do=_dump)

    doctor = commands.add_parser("doctor", help="what graphc found on this machine")
    doctor.add_argument("--measure", action="store_true", help="measure memory bandwidth and arithmetic too")
    doctor.set_defaults(do=_doctor)

    cache = commands.add_parser("cache", help="the compile cache")
    cache.add_argument("action", choices=["info", "clear"])
    cache.set_defaults(do=_cache)
    return parser


# ---- scripts


def _demo(options: argparse.Namespace, args: list[str]) -> int:
    # a checkout has examples/ beside graphc/, an installed package inside; the search path knows both
    found = importlib.util.find_spec("graphc.examples.digits")
    if found is None or found.origin is None:
        return _fail("the example digits.py is not installed")
    return _run_script(found.origin, args)


def _run(options: argparse.Namespace, args: list[str]) -> int:
    settings: dict[str, Any] = {}
    if options.backend is not None:
        settings["backend"] = options.backend
    if options.threads is not None:
        settings["threads"] = options.threads
    if options.profile:
        settings["profile"] = True
    if options.check_nan:
        settings["check_nan"] = True
    if options.debug:
        settings["mode"] = "DEBUG"
    try:
        with _settings(settings), _watched() as functions:
            try:
                code = _run_script(options.script, args, trim=not options.debug)
            finally:
                if options.dump is not None:
                    _write_dumps(functions, Path(options.dump))
                if options.profile:
                    for function in functions:
                        print(f"profile of {function.name}\n{function.profile}")
    except (GraphcError, OSError) as error:  # a setting or a folder that does not do
        return _fail(str(error))
    return code


def _dump(options: argparse.Namespace, args: list[str]) -> int:
    with _watched() as functions, contextlib.redirect_stdout(sys.stderr):
        code = _run_script(options.script, args)
    for function in functions:
        try:
            print(function.dump(options.stage))
        except GraphcError as error:
            return _fail(str(error))
    if not functions and code == 0:
        print(f"{options.script} compiled no function", file=sys.stderr)
    return code


@contextlib.contextmanager
def _watched() -> Iterator[list[Any]]:
    """The functions compiled inside the ``with`` block, in order."""
    functions: list[Any] = []
    compiled.observers.append(functions.append)
    try:
        yield functions
    finally:
        compiled.observers.remove(functions.append)


@contextlib.contextmanager
def _settings(settings: dict[str, Any]) -> Iterator[None]:
    """Settings for the whole process (``with config(...)`` would miss the script's own threads), put back at the end."""
    before = {name: getattr(config, name) for name in settings}
    try:
        for name, value in settings.items():
            setattr(config, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _run_script(script: str, args: Sequence[str], *, trim: bool = True) -> int:
    """Run a file as ``python SCRIPT args`` would; gives its exit code."""
    if not os.path.isfile(script):
        return _fail(f"there is no file {script}", code=2)
    argv, path = sys.argv, list(sys.path)
    sys.argv = [script, *args]
    sys.path.insert(0, os.path.dirname(os.path.abspath(script)))
    try:
        runpy.run_path(os.path.abspath(script), run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        return _fail(str(leaving.code), prefix="")
    except KeyboardInterrupt:
        return _fail("interrupted", code=130)
    except BaseException as error:
        print(trimmed(error) if trim else "".join(traceback.format_exception(error)), end="", file=sys.stderr)
        return 1
    finally:
        sys.argv, sys.path[:] = argv, path
        sys.stdout.flush()
    return 0


def trimmed(error: BaseException) -> str:
    """The traceback with the lines of graphc and of the runner left out, unless the error is graphc's own."""
    shown = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [shown]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        frames = list(part.stack)
        start = next((i for i, f in enumerate(frames) if not _is_runner(f.filename)), len(frames))
        frames = frames[start:]
        users = not frames or isinstance(error, GraphcError) or not is_internal(frames[-1].filename)
        if users and not isinstance(error, InternalError):
            frames = [f for f in frames if not is_internal(f.filename)]
        part.stack = traceback.StackSummary.from_list(frames)
        pending += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(shown.format())


def _is_runner(file: str) -> bool:
    return file == __file__ or file.startswith("<frozen ") or file == runpy.__file__


def _write_dumps(functions: Sequence[Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, function in enumerate(functions, 1):
        name = re.sub(r"[^\w.-]+", "_", function.name or "function")
        for stage in DUMPED:
            try:
                text = function.dump(stage)
            except GraphcError:  # a stage that this function's backend does not have
                continue
            ending = "source.py" if stage == "source" else f"{stage}.gc"
            (folder / f"{number:03d}_{name}.{ending}").write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(f"dumps of {len(functions)} function(s) are in {folder}", file=sys.stderr)


# ---- machine and cache


def _doctor(options: argparse.Namespace, args: list[str]) -> int:
    from graphc import machine

    facts = machine.describe(options.measure)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:<{width}}  {value}")
    return 0


def _cache(options: argparse.Namespace, args: list[str]) -> int:
    store = caching.Store(config.cache_dir, config.cache_size)
    if options.action == "clear":
        count, size = store.clear()
        print(f"deleted {count} compiled object(s), {size / 2**20:.1f} MiB, from {store.folder}")
        return 0
    found = store.info()
    limit = f"of at most {found.cap / 2**20:.1f} MiB" if found.cap else "(config.cache_size is 0: nothing is kept on disk)"
    print(f"folder   {found.folder}\nobjects  {found.entries}\nsize     {found.size / 2**20:.1f} MiB {limit}")
    if found.problem is not None:
        print(f"not used: the folder {found.problem}")
    return 0


def _fail(message: str, *, code: int = 1, prefix: str = "graphc: ") -> int:
    print(prefix + message, file=sys.stderr)
    return code
