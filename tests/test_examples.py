"""Every example runs and does what it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import graphc as gc

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_examples_are_tested() -> None:
    assert {f.stem for f in EXAMPLES.glob("*.py")} == {"digits", "xor", "book_graphs", "optimisers", "custom_op"}


def test_digits(tmp_path: Path) -> None:
    """The main job, through the command, in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "graphc", "demo", "--", str(tmp_path)], capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0, done.stderr
    accuracy = float(done.stdout.split("test accuracy ")[1].split("%")[0])
    assert accuracy >= 97.0
    assert "nodes before" in done.stdout and "gradient" in done.stdout
    graph = gc.load_dump((tmp_path / "step.final.gc").read_text())
    assert [v.name for v in graph.inputs] == ["x", "t"] and "digits.py" in (tmp_path / "step.final.gc").read_text()
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_xor(capsys: pytest.CaptureFixture[str]) -> None:
    xor = load("xor")
    np.testing.assert_array_equal(xor.closed_form(), [0.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(xor.learned(), [0.0, 1.0, 1.0, 0.0], atol=0.01)


def test_book_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    book = load("book_graphs")
    z, dx, dy = book.show(book.product)
    assert (z, dx, dy) == (6.0, 3.0, 2.0)
    p, dw, db = book.show(book.logistic_regression)
    s = 1 / (1 + np.exp(-0.1))
    np.testing.assert_allclose(p, s)
    np.testing.assert_allclose(dw, s * (1 - s) * np.array([1.0, 2.0]))
    np.testing.assert_allclose(db, s * (1 - s))
    H, dW, db = book.show(book.relu_layer)
    np.testing.assert_allclose(H, [[1.25, 0.0], [2.25, 0.75]])
    np.testing.assert_allclose(dW, [[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(db, [2.0, 1.0])
    y, decay, dw = book.show(book.regression_with_decay)
    np.testing.assert_allclose([y, decay], [0.0, 0.1 * (0.25 + 0.0625)])
    np.testing.assert_allclose(dw, [1.0 + 0.1, 2.0 - 0.05])  # x + 2 lambda w: both uses of w count
    assert "book_graphs.py" in capsys.readouterr().out


def test_optimisers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = load("optimisers").main(str(tmp_path / "paths.png"))
    assert len(paths) == 6
    for name, (points, heights) in paths.items():
        assert points.shape == (61, 2) and heights[0] == pytest.approx(49 / 20 + 4)
        assert heights[-1] < 0.1, name
    assert (tmp_path / "paths.png").read_bytes().startswith(b"\x89PNG")


def test_custom_op(capsys: pytest.CaptureFixture[str]) -> None:
    values, slopes = load("custom_op").main()
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(values, x / np.sqrt(1 + x * x) + np.sin(x))
    np.testing.assert_allclose(slopes, (1 + x * x) ** -1.5 + np.cos(x))
