"""The compile cache on disk: bytes under the sha256 of what they were made from.

    store = current()                     # at gc.config.cache_dir; None where gc.config.cache_size is 0
    data = store.get(key)                 # None: not there, or not as it was written
    store.put(key, data)                  # False: could not be kept; nothing is broken by that

An entry is the file ``<key[:2]>/<key>.gco``: a header (magic, version of the format, packed or not, length,
sha256 of all that follows and of the key) and the payload.  It is written beside its place and moved there in one
step, so that readers, other processes and a kill see the whole entry or none; there are no locks.  Whatever is
wrong with a file when it is read is a miss.  docs/cache.md says what happens with which folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from graphc.errors import InternalError, warn
from graphc.settings import config

__all__ = ["SUFFIX", "Info", "Store", "current"]

SUFFIX = ".gco"
_TEMPORARY = re.compile(r"[0-9a-f]{64}\.\d+\.[0-9a-f]{16}\.gco-tmp")
_KEY = re.compile(r"[0-9a-f]{64}")
_FOLDER = re.compile(r"[0-9a-f]{2}")

_HEADER = struct.Struct("<8sHHQ32s")  # magic, version, packed, length of the payload, digest
_MAGIC = b"GCOBJ\r\n\x1a"  # a transfer that changes line ends is noticed
_VERSION = 1
_BLOCK = 4096  # bytes that a file takes on disk at least, and steps in which it grows

_DAY = 86400.0
_HOUR = 3600.0
_SWEEPS = 64  # a sweep for every cap / 64 bytes written, in the mean

_warned: set[str] = set()  # cache: what this process has said already


class Info(NamedTuple):
    """What a store holds.

    Args:
        folder: where.
        entries: how many.
        size: that they take on disk, in bytes.
        cap: what they may take together.
        problem: why the folder is not used, or None.
    """

    folder: str
    entries: int
    size: int
    cap: int
    problem: str | None


class _File(NamedTuple):
    path: str
    size: int  # that it takes on disk
    used: float  # when it was written or last found, to a day
    temporary: bool


def current() -> Store | None:
    """The store that the settings name, as they are now."""
    return Store(config.cache_dir, config.cache_size) if config.cache_size else None


class Store:
    """Bytes by key in a folder of at most ``cap`` bytes; any number of processes may use it at once.

    It keeps no state: the folder may be emptied, removed or replaced at any time.
    """

    def __init__(self, folder: str | os.PathLike[str], cap: int) -> None:
        expanded = os.path.expanduser(folder)
        self.folder = expanded if expanded.startswith("~") else os.path.abspath(expanded)  # "~" that stays: there is no home
        self.cap = cap

    # ---- entries

    def get(self, key: str) -> bytes | None:
        """What was put under ``key``, or None."""
        path = self._path(key)
        try:
            if not self._usable():
                return None
            # not through a symlink, and not waiting for the other end of a pipe
            fd = os.open(path, os.O_RDONLY | _flags("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
            with os.fdopen(fd, "rb") as file:
                facts = os.fstat(fd)
                if not stat.S_ISREG(facts.st_mode) or _foreign(facts) is not None or facts.st_size > self.cap:
                    return None
                content = file.read()
        except (OSError, ValueError):  # ValueError: a zero byte in the folder's name
            return None
        payload = _unpacked(key, content)
        if payload is None:
            _remove(path)
        elif abs(time.time() - facts.st_mtime) > _DAY:
            with contextlib.suppress(OSError):  # the time says how old an entry is when room is needed
                os.utime(path)
        return payload

    def put(self, key: str, value: bytes) -> bool:
        """Keep ``value`` under ``key``; False if that was not possible."""
        path = self._path(key)
        content = _packed(key, value)
        size = _on_disk(len(content))
        if size > self.cap - self.cap // 8 or not self._usable():
            return False
        temporary = f"{path[:-len(SUFFIX)]}.{os.getpid()}.{os.urandom(8).hex()}.gco-tmp"
        try:
            self._make_folder(os.path.dirname(path))
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _flags("O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"), 0o600)
        except (OSError, ValueError):
            return False
        try:
            try:
                _write(fd, content)
            finally:
                os.close(fd)
            # not fsync: an entry that a power failure leaves half written fails its checksum
            os.replace(temporary, path)
        except OSError:  # the disk is full, or a directory is in the entry's place
            _remove(temporary)
            return False
        except BaseException:  # Ctrl-C
            _remove(temporary)
            raise
        # Keys are evenly spread numbers, so they also choose which entry is followed by a sweep: no counter is kept.
        if int(key[-8:], 16) * self.cap < (size * _SWEEPS) << 32:
            self.sweep()
        return True

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise InternalError(f"a key of the cache must be 64 hexadecimal digits, not {key!r}")
        return os.path.join(self.folder, key[:2], key + SUFFIX)

    # ---- the folder

    def problem(self) -> str | None:
        """Why the folder is not used, or None.  A folder that is not there yet is no problem."""
        if self.folder.startswith("~"):
            return "there is no home directory"
        try:
            facts = os.stat(self.folder)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"cannot be read ({_reason(error)})"
        if not stat.S_ISDIR(facts.st_mode):
            return "is not a folder"
        foreign = _foreign(facts)  # machine code from a file that others may write would be theirs to choose
        if foreign is not None and foreign.startswith("may be written"):
            return f"{foreign}; `chmod go-w {self.folder}` makes it yours alone"
        return foreign

    def _usable(self) -> bool:
        problem = self.problem()
        if problem is not None:
            self._warn(problem)
        return problem is None

    def _make_folder(self, inner: str) -> None:
        try:
            os.makedirs(self.folder, 0o700, exist_ok=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                self._warn(f"cannot be made ({_reason(error)})")
            raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(inner, 0o700)

    def _warn(self, problem: str) -> None:
        text = f"the compile cache is off: {self.folder} {problem}"
        if text not in _warned:
            _warned.add(text)
            warn(f"{text}; set gc.config.cache_dir or GRAPHC_CACHE_DIR to a folder of your own, or cache_size to 0 for no cache")

    # ---- all entries

    def info(self) -> Info:
        files = [file for file in self._files() if not file.temporary]
        return Info(self.folder, len(files), sum(file.size for file in files), self.cap, self.problem())

    def clear(self) -> tuple[int, int]:
        """Delete every file that graphc made here, and no other: (number, bytes) of the entries that went."""
        gone = [file for file in self._files() if _remove(file.path) and not file.temporary]
        return len(gone), sum(file.size for file in gone)

    def sweep(self) -> None:
        """Delete what processes that were killed left behind and, if the total is above the cap, the oldest entries."""
        files = self._files()
        now = time.time()
        for file in files:
            if file.temporary and now - file.used > _HOUR:
                _remove(file.path)
        entries = sorted((file for file in files if not file.temporary), key=lambda file: file.used)
        total = sum(file.size for file in entries)
        if total <= self.cap:
            return
        for file in entries:
            if total <= self.cap - self.cap // 8:  # some room, so that the total stays below the cap between sweeps
                break
            if _remove(file.path):
                total -= file.size

    def _files(self) -> list[_File]:
        found = []
        for folder in _listed(self.folder):
            if _FOLDER.fullmatch(folder.name) is None or not _is_folder(folder):
                continue
            for entry in _listed(folder.path):
                temporary = _TEMPORARY.fullmatch(entry.name) is not None
                if not temporary and not entry.name.endswith(SUFFIX):
                    continue
                with contextlib.suppress(OSError):  # another process was faster
                    facts = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(facts.st_mode):
                        found.append(_File(entry.path, _on_disk(facts.st_size), facts.st_mtime, temporary))
        return found


def _packed(key: str, value: bytes) -> bytes:
    """The content of an entry's file."""
    payload = value
    if len(value) > _BLOCK - _HEADER.size:  # else it fills one block either way
        smaller = zlib.compress(value, 1)
        if _on_disk(len(smaller)) < _on_disk(len(value)):
            payload = smaller
    packed = int(payload is not value)
    return _HEADER.pack(_MAGIC, _VERSION, packed, len(payload), _digest(key, packed, payload)) + payload


def _unpacked(key: str, content: bytes) -> bytes | None:
    """The value in an entry's file, or None if one bit of it is not as it was written."""
    if len(content) < _HEADER.size:
        return None
    magic, version, packed, length, digest = _HEADER.unpack_from(content)
    payload = content[_HEADER.size:]
    if (magic, version, length) != (_MAGIC, _VERSION, len(payload)) or digest != _digest(key, packed, payload):
        return None
    try:
        return zlib.decompress(payload) if packed else payload
    except zlib.error:
        return None


def _digest(key: str, packed: int, payload: bytes) -> bytes:
    return hashlib.sha256(b"%d %d %s %d\n" % (_VERSION, packed, key.encode(), len(payload)) + payload).digest()


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _write(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest):]


def _foreign(facts: os.stat_result) -> str | None:
    """Why a file or folder is not this user's alone, or None."""
    if not hasattr(os, "geteuid"):  # Windows: a home folder's access list sees to it
        return None
    if facts.st_uid != os.geteuid():
        return f"belongs to another user (number {facts.st_uid})"
    if facts.st_mode & 0o022:
        return f"may be written by others (mode {stat.S_IMODE(facts.st_mode):04o})"
    return None


def _flags(*names: str) -> int:
    """Flags of os.open that not every system has."""
    return sum(getattr(os, name, 0) for name in names)


def _listed(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from list(entries)
    except (OSError, ValueError):
        return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
