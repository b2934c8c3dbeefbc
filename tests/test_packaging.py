"""The wheel: all modules in it, nothing beside graphc in site-packages; the checkout works without installing."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"graphc": "graphc", "passes": "graphc/passes", "backends": "graphc/backends", "examples": "graphc/examples"}


def python(code: str, cwd: Path, path: Path | None = None) -> str:
    env = {**os.environ, "PYTHONPATH": str(path) if path else ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source / file)
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
                    "-w", str(target), str(source)], check=True, capture_output=True)
    found, = target.glob("graphc-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"graphc"}
    expected = {f"{inside}/{file.relative_to(ROOT / folder).as_posix()}"
                for folder, inside in FOLDERS.items() for file in (ROOT / folder).rglob("*.py")}
    assert expected <= names, "a package is missing in [tool.setuptools] packages"
    assert "graphc/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_package_leaves_the_users_folders_alone(installed: Path, tmp_path: Path) -> None:
    for folder in ("passes", "backends", "examples"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("mine = True\n")
    code = """
import passes, backends, examples, importlib.util
import graphc as gc, graphc.passes.pipeline, graphc.backends
assert passes.mine and backends.mine and examples.mine
x = gc.vector("x")
assert float(gc.function([x], gc.sum(gc.exp(x)))([0.0, 0.0])) == 2.0
print(gc.__file__, importlib.util.find_spec("graphc.examples.digits").origin, sep="\\n")
"""
    package, demo = python(code, tmp_path, installed).splitlines()
    assert Path(package).is_relative_to(installed) and Path(demo).is_relative_to(installed)


def test_lines_of_installed_examples_count_as_the_users(installed: Path, tmp_path: Path) -> None:
    code = """
import runpy, graphc as gc
from graphc.examples import xor
x, y = xor.network([[1.0, 1.0], [1.0, 1.0]], [0.0, -1.0], [1.0, -2.0], 0.0)
print(y.node.origin.file)
"""
    assert python(code, tmp_path, installed).endswith("xor.py")


def test_the_checkout_works_without_installing(tmp_path: Path) -> None:
    code = "import graphc, graphc.passes.pipeline, graphc.examples.xor as e; print(graphc.__file__, e.__file__)"
    assert python(code, tmp_path, ROOT).count(str(ROOT)) == 2


def test_a_plain_import_is_light(tmp_path: Path) -> None:
    heavy = ["networkx", "rich", "matplotlib", "sklearn", "scipy", "ml_dtypes"]
    code = f"import sys, graphc; print(*[m for m in {heavy} if m in sys.modules])"
    assert python(code, tmp_path, ROOT) == ""
