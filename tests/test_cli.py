"""The command line: scripts run as Python would run them, with settings, dumps and short tracebacks."""

import sys
from pathlib import Path

import pytest

import graphc as gc
from graphc import machine
from graphc.cli import main

SCRIPT = """\
import sys
import graphc as gc
x = gc.vector("x")
f = gc.function([x], gc.log(1 + x), name="log one")
print(sys.argv[1:], gc.config.threads, gc.config.backend, f([0.0]), __name__)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    return file


def run_text(text: str, tmp_path: Path, *options: str) -> int:
    file = tmp_path / "given.py"
    file.write_text(text)
    return main(["run", str(file), *options])


def test_run_passes_arguments_and_settings_and_puts_them_back(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, argv = (gc.config.threads, gc.config.backend), sys.argv
    assert main(["run", str(script), "--threads", "3", "--backend", "reference", "--", "--backend", "y"]) == 0
    assert capsys.readouterr().out == "['--backend', 'y'] 3 reference [0.] __main__\n"
    assert (gc.config.threads, gc.config.backend) == before and sys.argv is argv


def test_run_writes_dumps_that_parse_back(script: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "dumps"
    assert main(["run", str(script), "--backend", "numpy", "--dump", str(out)]) == 0
    assert sorted(f.name for f in out.iterdir()) == ["001_log_one.final.gc", "001_log_one.input.gc", "001_log_one.source.py"]
    assert "log1p" in (out / "001_log_one.final.gc").read_text()
    graph = gc.load_dump((out / "001_log_one.input.gc").read_text())
    assert [n.op.name for n in graph.nodes][-1] == "log"


def test_dump_prints_dumps_on_stdout_and_the_script_on_stderr(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dump", str(script), "--", "a"]) == 0
    shown = capsys.readouterr()
    assert "log1p" in shown.out and "__main__" not in shown.out and "['a']" in shown.err
    assert len(gc.load_dump(shown.out).outputs) == 1
    assert main(["dump", str(script), "--stage", "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_an_error_shows_the_users_lines_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import graphc as gc\ndef wrong(x):\n    return gc.function(x, x)\nwrong(gc.vector('x'))\n"
    assert run_text(text, tmp_path) == 1
    error = capsys.readouterr().err
    assert "inputs is a list" in error and "given.py" in error and error.count("  File ") == 2
    assert "compiled.py" not in error and "runpy" not in error
    assert run_text(text, tmp_path, "--debug") == 1
    assert "compiled.py" in capsys.readouterr().err


def test_an_error_inside_graphc_is_shown_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import graphc as gc\nimport graphc.compiled as c\ndel c.as_mode\ntry:\n    gc.function([], [])\nfinally:\n    from graphc.compiling import as_mode\n    c.as_mode = as_mode\n"
    assert run_text(text, tmp_path) == 1
    assert "compiled.py" in capsys.readouterr().err


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_text("import sys; sys.exit(7)", tmp_path) == 7
    assert run_text("import sys; sys.exit('no data')", tmp_path) == 1
    assert capsys.readouterr().err == "no data\n"
    assert run_text("1 +", tmp_path) == 1
    assert "SyntaxError" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "missing.py")]) == 2
    with pytest.raises(SystemExit) as leaving:
        main(["run", "x.py", "--backend", "abacus"])
    assert leaving.value.code == 2


def test_run_imports_beside_the_script(tmp_path: Path) -> None:
    (tmp_path / "beside_the_script.py").write_text("value = 1\n")
    path = list(sys.path)
    assert run_text("import beside_the_script; assert beside_the_script.value == 1", tmp_path) == 0
    assert sys.path == path


def test_check_nan_and_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "import graphc as gc\nx = gc.vector('x')\nf = gc.function([x], gc.log(x), name='ln')\nf([-1.0])\n"
    assert run_text(text, tmp_path) == 0
    assert run_text(text, tmp_path, "--profile") == 0
    assert "profile of ln" in capsys.readouterr().out
    assert run_text(text, tmp_path, "--check-nan") == 1
    assert "NaNError" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for word in ("graphc", "numpy", "llvmlite", "processor", "cache folder", "works"):
        assert word in shown


@pytest.mark.parametrize(("files", "cpus"), [
    ({"cpu.max": "150000 100000\n"}, 1.5), ({"cpu.max": "max 100000\n"}, None), ({}, None),
    ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
])
def test_quota_of_the_control_group(files: dict[str, str], cpus: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cgroup_cpus(tmp_path) == cpus


def test_cache_clear_deletes_only_what_graphc_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "object.gco").write_bytes(b"x" * 100)
    (tmp_path / "thesis.tex").write_text("mine")
    with gc.config(cache_dir=str(tmp_path)):
        assert main(["cache", "info"]) == 0
        assert "objects  1" in capsys.readouterr().out
        assert main(["cache", "clear"]) == 0
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["thesis.tex"]
