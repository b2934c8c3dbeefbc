"""The compile cache on disk: entries survive nothing but themselves; the process survives every folder."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc import caching
from graphc.caching import Store
from graphc.cli import main
from graphc.errors import InternalError
from graphc.machine import describe

ROOT = Path(__file__).resolve().parent.parent
CAP = 1 << 20
SMALL = b"machine code"
LARGE = b"\x90\x90\xc3" * 5000 + bytes(range(256))
posix = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX's")


def key(word: str | int) -> str:
    return hashlib.sha256(str(word).encode()).hexdigest()


def path(store: Store, name: str) -> Path:
    return Path(store.folder, name[:2], name + caching.SUFFIX)


def files(store: Store) -> list[str]:
    return sorted(f.name for f in Path(store.folder).rglob("*") if not f.is_dir())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", CAP)


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "_warned", set())


def python(code: str, *args: str) -> subprocess.Popen[str]:
    """Another process that runs ``code`` with this checkout's graphc."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ---- entries


@pytest.mark.parametrize("value", [b"", SMALL, LARGE, os.urandom(9000)])
def test_round_trip(store: Store, value: bytes) -> None:
    assert store.get(key(1)) is None
    assert store.put(key(1), value)
    assert store.get(key(1)) == value
    assert store.get(key(2)) is None
    assert store.put(key(1), value)  # again is no mistake
    assert files(store) == [key(1) + ".gco"]


def test_what_packs_is_packed(store: Store) -> None:
    assert store.put(key(1), LARGE)
    assert path(store, key(1)).stat().st_size < len(LARGE) // 4
    assert store.info()[1:] == (1, 4096, CAP, None)


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_key_is_a_sha256(store: Store, bad: str) -> None:
    with pytest.raises(InternalError, match="64 hexadecimal digits"):
        store.get(bad)
    with pytest.raises(InternalError):
        store.put(bad, SMALL)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=st.sampled_from([b"", SMALL, LARGE]))
def test_any_change_of_an_entry_is_a_miss_and_removes_it(store: Store, data: st.DataObject, value: bytes) -> None:
    assert store.put(key(1), value)
    file = path(store, key(1))
    content = bytearray(file.read_bytes())
    what = data.draw(st.sampled_from(["flip", "cut", "longer", "zeros"]))
    if what == "flip":
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif what == "cut":
        del content[data.draw(st.integers(0, len(content) - 1)):]
    elif what == "longer":
        content += data.draw(st.binary(min_size=1, max_size=20))
    else:
        content[:] = bytes(len(content))
    file.write_bytes(content)
    assert store.get(key(1)) is None
    assert not file.exists()
    assert store.put(key(1), value) and store.get(key(1)) == value


def test_every_byte_of_the_header_counts(store: Store) -> None:
    assert store.put(key(1), SMALL)
    content = path(store, key(1)).read_bytes()
    for at in range(len(content)):
        path(store, key(1)).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1:])
        assert store.get(key(1)) is None, at


def test_an_entry_of_another_key_is_a_miss(store: Store) -> None:
    assert store.put(key(1), SMALL) and store.put(key(2), b"other")
    os.replace(path(store, key(2)), path(store, key(1)))
    assert store.get(key(1)) is None


def test_another_version_of_the_format_is_a_miss(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.put(key(1), SMALL)
    monkeypatch.setattr(caching, "_VERSION", caching._VERSION + 1)
    assert store.get(key(1)) is None


def test_what_is_packed_but_no_zlib_is_a_miss(store: Store) -> None:
    assert store.put(key(1), SMALL)
    digest = caching._digest(key(1), 1, SMALL)
    path(store, key(1)).write_bytes(caching._HEADER.pack(caching._MAGIC, caching._VERSION, 1, len(SMALL), digest) + SMALL)
    assert store.get(key(1)) is None


@posix
def test_a_symlink_is_a_miss(store: Store, tmp_path: Path) -> None:
    assert store.put(key(1), SMALL)
    elsewhere = tmp_path / "elsewhere"
    os.replace(path(store, key(1)), elsewhere)
    path(store, key(1)).symlink_to(elsewhere)
    assert store.get(key(1)) is None
    assert store.put(key(1), SMALL)  # the link is replaced, not followed
    assert not path(store, key(1)).is_symlink() and store.get(key(1)) == SMALL


def test_a_directory_in_its_place_is_a_miss(store: Store) -> None:
    path(store, key(1)).mkdir(parents=True)
    (path(store, key(1)) / "thesis.tex").write_text("mine")
    assert store.get(key(1)) is None
    assert not store.put(key(1), SMALL)
    assert store.info().entries == 0 and store.clear() == (0, 0)
    assert files(store) == ["thesis.tex"]


@posix
def test_a_pipe_in_its_place_is_a_miss_at_once(store: Store) -> None:
    path(store, key(1)).parent.mkdir(parents=True)
    os.mkfifo(path(store, key(1)))
    assert store.get(key(1)) is None


@posix
def test_an_entry_that_others_may_write_is_a_miss(store: Store) -> None:
    assert store.put(key(1), SMALL)
    path(store, key(1)).chmod(0o666)
    assert store.get(key(1)) is None
    assert store.put(key(1), SMALL) and store.get(key(1)) == SMALL


# ---- the folder


@posix
def test_only_the_user_may_look_in(store: Store) -> None:
    before = os.umask(0)
    try:
        assert store.put(key(1), SMALL)
    finally:
        os.umask(before)
    for made, mode in ((Path(store.folder), 0o700), (path(store, key(1)).parent, 0o700), (path(store, key(1)), 0o600)):
        assert made.stat().st_mode & 0o777 == mode


def test_reading_makes_no_folder(store: Store) -> None:
    assert store.get(key(1)) is None and store.info().entries == 0 and store.clear() == (0, 0)
    store.sweep()
    assert not Path(store.folder).exists()


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_that_others_may_write_is_not_used(store: Store, mode: int) -> None:
    assert store.put(key(1), SMALL)
    os.chmod(store.folder, mode)
    with pytest.warns(UserWarning, match=r"may be written by others.*chmod go-w .*cache_dir"):
        assert store.get(key(1)) is None
    assert store.get(key(1)) is None  # said once; warnings are errors here
    assert not store.put(key(2), SMALL)
    assert "may be written by others" in str(store.problem())
    os.chmod(store.folder, 0o700)
    assert store.get(key(1)) == SMALL


@posix
def test_a_folder_of_another_user_is_not_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.put(key(1), SMALL)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.warns(UserWarning, match="belongs to another user"):
        assert store.get(key(1)) is None
    assert not store.put(key(1), SMALL)


def test_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    store = Store(tmp_path / "file", CAP)
    with pytest.warns(UserWarning, match="is not a folder"):
        assert store.get(key(1)) is None
    assert not store.put(key(1), SMALL) and store.clear() == (0, 0) and store.info().entries == 0
    below = Store(tmp_path / "file" / "cache", CAP)
    with pytest.warns(UserWarning, match="the compile cache is off"):
        assert not below.put(key(1), SMALL)
    assert (tmp_path / "file").read_text() == "mine"


def test_no_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does when it knows of no home
    store = Store("~/.cache/graphc", CAP)
    with pytest.warns(UserWarning, match="there is no home directory"):
        assert not store.put(key(1), SMALL)
    assert store.get(key(1)) is None
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere; the next tests simulate it")
def test_a_read_only_folder_is_read(store: Store) -> None:
    assert store.put(key(1), SMALL)
    inner = path(store, key(1)).parent
    inner.chmod(0o500)
    os.chmod(store.folder, 0o500)
    try:
        assert store.get(key(1)) == SMALL
        assert not store.put(key(1), SMALL) and not store.put(key(2), SMALL)
    finally:
        os.chmod(store.folder, 0o700)
        inner.chmod(0o700)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_file_that_cannot_be_opened(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    assert store.put(key(1), SMALL)
    real = os.open

    def refuse(name: str, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) or number == errno.EMFILE:
            raise OSError(number, os.strerror(number))
        return real(name, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    assert not store.put(key(2), SMALL)
    assert store.get(key(1)) == (None if number == errno.EMFILE else SMALL)
    monkeypatch.undo()
    assert store.get(key(1)) == SMALL and files(store) == [key(1) + ".gco"]


def test_a_folder_that_cannot_be_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "makedirs", refuse)
    with pytest.warns(UserWarning, match=r"cannot be made \(Read-only file system\)"):
        assert not store.put(key(1), SMALL)
    assert not store.put(key(1), SMALL)


@pytest.mark.parametrize("step", ["_write", "replace", "makedirs", "mkdir"])
def test_a_full_disk_says_nothing_and_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*args: object, **options: object) -> None:
        if step == "_write":
            os.write(args[0], args[1][:10])  # type: ignore
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching if step == "_write" else os, step, full)
    assert not store.put(key(1), SMALL)
    monkeypatch.undo()
    assert files(store) == [] and store.get(key(1)) is None
    assert store.put(key(1), SMALL)


@posix
def test_a_file_that_the_system_cuts_short(store: Store) -> None:
    """A limit of the system in the middle of a real write."""
    code = """if True:
        import resource, sys
        from graphc.caching import Store
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        print(Store(sys.argv[1], 1 << 20).put("0" * 64, b"x" * 99))
    """
    out, err = python(code, store.folder).communicate()
    assert out.split() == ["False"], err
    assert files(store) == []


def test_ctrl_c_while_writing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fd: int, content: bytes) -> None:
        os.write(fd, content[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(key(1), SMALL)
    assert files(store) == []


@posix
def test_a_process_killed_half_way_through_writing(store: Store) -> None:
    code = """if True:
        import os, sys, time
        from graphc import caching
        def half(fd, content):
            os.write(fd, content[:len(content) // 2])
            print("half", flush=True)
            time.sleep(600)
        caching._write = half
        caching.Store(sys.argv[1], 1 << 20).put("0" * 64, b"x" * 99)
    """
    other = python(code, store.folder)
    assert other.stdout is not None and other.stdout.readline() == "half\n"
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert store.get("0" * 64) is None
    (left,) = files(store)
    assert caching._TEMPORARY.fullmatch(left)
    assert store.put("0" * 64, SMALL) and store.get("0" * 64) == SMALL
    store.sweep()
    assert left in files(store)  # it might still be written
    os.utime(path(store, "0" * 64).with_name(left), (time.time() - 7200,) * 2)
    store.sweep()
    assert files(store) == ["0" * 64 + ".gco"]


def test_processes_that_write_one_key_at_once(store: Store) -> None:
    code = """if True:
        import sys
        from graphc.caching import Store
        store, value = Store(sys.argv[1], 1 << 20), b"x" * 9999
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(200):
            assert store.put("0" * 64, value)
            assert store.get("0" * 64) == value
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    both = [subprocess.Popen([sys.executable, "-c", code, store.folder], env=env, text=True, **pipes) for _ in range(2)]  # type: ignore
    for one in both:
        assert one.stdout.readline() == "ready\n"
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in both:
        _, err = one.communicate()
        assert one.returncode == 0, err
    assert files(store) == ["0" * 64 + ".gco"] and store.get("0" * 64) == b"x" * 9999


# ---- room


def test_the_oldest_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path, 16 * 4096)
    now = time.time()
    for i in range(15):
        assert store.put(key(i), os.urandom(4000))
        os.utime(path(store, key(i)), (now - 86400 * 10 + i,) * 2)
    assert store.get(key(0)) is not None and store.get(key(1)) is not None  # used: young again
    for i in (15, 16, 17):
        assert store.put(key(i), os.urandom(4000))
    info = store.info()
    assert info.size <= info.cap
    there = [i for i in range(18) if store.get(key(i)) is not None]
    assert there == [0, 1, *range(18 - len(there) + 2, 18)]


def test_a_hit_touches_once_a_day(store: Store) -> None:
    assert store.put(key(1), SMALL)
    now = time.time()
    for age, touched in ((3600, False), (90000, True), (-90000, True)):
        os.utime(path(store, key(1)), (now - age,) * 2)
        store.get(key(1))
        assert (abs(path(store, key(1)).stat().st_mtime - now) < 600) == touched


def test_what_does_not_fit_is_not_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache", 5 * 4096)
    assert store.put(key(1), os.urandom(4 * 4000))
    assert not store.put(key(2), os.urandom(5 * 4000))
    assert store.get(key(1)) is not None
    assert not Store(tmp_path / "none", 0).put(key(1), SMALL) and not (tmp_path / "none").exists()


def test_sweeps_are_as_frequent_as_bytes_are_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []
    monkeypatch.setattr(Store, "sweep", lambda self: swept.append(1))
    for i in range(256):  # a block each: the cap is reached once, which is 64 sweeps in the mean
        assert store.put(key(i), SMALL)
    assert 32 < len(swept) < 128


# ---- settings and commands


def test_the_settings_name_the_store(tmp_path: Path) -> None:
    with gc.config(cache_dir=tmp_path / "a", cache_size=1000):
        a = caching.current()
        assert a is not None and (a.folder, a.cap) == (str(tmp_path / "a"), 1000)
        with gc.config(cache_dir=str(tmp_path / "b"), cache_size=0):
            assert caching.current() is None
    with gc.config(cache_dir="~/somewhere"):
        home = caching.current()
        assert home is not None and home.folder == os.path.join(os.path.expanduser("~"), "somewhere")
    with pytest.raises(ValueError, match="cache_size"), gc.config(cache_size=-1):
        pass


def test_clear_leaves_what_is_not_ours(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = [Path(store.folder, "thesis.gco"), Path(store.folder, "ab", "notes.txt"), Path(store.folder, "ab", "x.gco-tmp"),
               Path(store.folder, "work", "model.gco"), Path(store.folder, "ab", "deep", "model.gco"), tmp_path / "outside" / "model.gco"]
    for i in range(5):
        assert store.put(key(i), SMALL)
    for file in foreign:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    Path(store.folder, "cd").symlink_to(tmp_path / "outside")
    Path(store.folder, "ab", f"{key(1)}.123.0123456789abcdef.gco-tmp").write_text("ours, from a process that was killed")
    with gc.config(cache_dir=store.folder, cache_size=CAP):
        assert main(["cache", "info"]) == 0
        assert "objects  5\nsize     0.0 MiB of at most 1.0 MiB\n" in capsys.readouterr().out
        assert main(["cache", "clear"]) == 0
    assert "deleted 5 compiled object(s)" in capsys.readouterr().out
    assert all(file.read_text() == "mine" for file in foreign)
    assert files(store) == sorted(f.name for f in foreign[:-1])
    assert store.put(key(1), SMALL)


@posix
def test_info_and_doctor_say_why_a_folder_is_not_used(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.put(key(1), SMALL)

    def shown(**options: object) -> tuple[str, str]:
        with gc.config(cache_dir=store.folder, **options):
            assert main(["cache", "info"]) == 0
            return capsys.readouterr().out, dict(describe())["cache folder"]

    info, doctor = shown()
    assert "not used" not in info and "1 objects, 0.0 of 256 MiB, writable" in doctor
    info, doctor = shown(cache_size=0)
    assert "nothing is kept on disk" in info and "cache_size is 0" in doctor
    os.chmod(store.folder, 0o777)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the doctor compiles a function
        info, doctor = shown()
    assert "not used: the folder may be written by others" in info and "NOT USED" in doctor
