"""The house: imports point down, files stay small, no module hides a public function, each module imports alone."""

import ast
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import graphc as gc

ROOT = Path(__file__).resolve().parent.parent

#: layer of every module directly under graphc/ (a package: of all its modules); imports go to the same layer or below
LAYERS = {
    "errors": 0, "settings": 0, "processors": 0,
    "caching": 1, "dtypes": 1, "dims": 1,
    "ir": 2, "plan": 2, "kernel": 2,
    "ops": 3, "text": 3, "text_parse": 3, "text_values": 3, "verify": 3, "verify_plan": 3,
    "kernel_text": 3, "kernel_parse": 3, "verify_kernel": 3, "kernel_form": 3, "kernel_accesses": 3, "kernel_numbers": 3, "memory_text": 3,
    "functions": 4, "methods": 4, "variables": 4, "kept": 4,
    "passes": 5, "backends": 5,
    "compiling": 6, "binding": 6, "capture": 6, "substituting": 6, "checking": 6, "judging": 6, "variants": 6,
    "compiled": 7, "derivatives": 7, "rewiring": 7, "custom": 7,
    "nn": 8, "init": 8, "optim": 8,
    "costing": 9, "profiling": 9, "inspecting": 9, "prettifying": 9, "reporting": 9, "machine": 9, "cli": 9, "__main__": 9,
}
#: (module, what it imports upwards): why; only inside functions
UPWARDS = {
    ("compiled", "costing"): "f.cost() is looked up when it is asked for",
    ("compiled", "profiling"): "f.profile is made for functions that ask for it",
}
FOLDERS = ("graphc", "passes", "backends")
SIZE_EXCEPTIONS: dict[str, str] = {}  # file: why it is longer than 600 lines


def modules() -> dict[str, Path]:
    """Module name below ``graphc.`` -> file."""
    found = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = list(file.relative_to(ROOT).with_suffix("").parts)
            parts = parts[1:] if folder == "graphc" else parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name:  # graphc/__init__.py stands above all layers
                found[name] = file
    return found


MODULES = modules()


def imports(file: Path) -> list[tuple[str, bool]]:
    """(module below graphc, inside a function?) for every import that runs."""
    found = []

    def add(name: str, deep: bool) -> None:
        assert name != "graphc", f"{file} imports the whole of graphc"
        name = name.removeprefix("graphc.")
        found.append((name if name in MODULES else name.rpartition(".")[0], deep))

    pending = [(node, False) for node in ast.parse(file.read_text()).body]
    while pending:
        node, deep = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "graphc":
                    add(alias.name, deep)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "graphc":
            for alias in node.names:
                add(f"{node.module}.{alias.name}", deep)
        deep = deep or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        pending += [(child, deep) for child in ast.iter_child_nodes(node)]
    return found


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} <= set(LAYERS), "add the module to LAYERS"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    own = name.split(".")[0]
    for target, deep in imports(MODULES[name]):
        other = target.split(".")[0]
        if deep and (own, other) in UPWARDS:
            continue
        assert LAYERS[other] <= LAYERS[own], f"{name} (layer {LAYERS[own]}) imports {target} (layer {LAYERS[other]})"
        assert {own, other} != {"passes", "backends"}, f"{name} imports {target}: passes and backends do not know each other"


def test_no_cycles() -> None:
    above = {name: {t for t, deep in imports(file) if not deep and t != name} for name, file in MODULES.items()}
    while above:
        free = [name for name, needs in above.items() if not needs & above.keys()]
        assert free, f"these modules import each other in a circle: {sorted(above)}"
        for name in free:
            del above[name]


def test_files_are_small() -> None:
    for folder in (*FOLDERS, "tests", "examples", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = str(file.relative_to(ROOT))
            if "/.venvs/" in name:
                continue  # other people's, installed for the benchmarks
            lines = len(file.read_text().splitlines())
            assert lines <= 600 or name in SIZE_EXCEPTIONS, f"{name} has {lines} lines: split it by subject"


def test_no_module_bears_the_name_of_a_public_callable() -> None:
    public = {name for name in dir(gc) if not name.startswith("_") and callable(getattr(gc, name))}
    inside = {part for name in MODULES if not name.startswith(("passes", "backends")) for part in name.split(".")}
    assert not public & inside
    assert {"function", "grad", "shared"} <= public  # the test looks at the right thing


def test_each_module_imports_alone(tmp_path: Path) -> None:
    """In a process of its own each (forked), with a graphc package whose __init__ did not run."""
    code = textwrap.dedent("""
        import importlib, os, sys, types
        import numpy
        root, names = sys.argv[1], sys.argv[2:]
        package = types.ModuleType("graphc")
        package.__path__ = [os.path.join(root, "graphc"), root]
        sys.modules["graphc"] = package
        for name in names:
            child = os.fork()
            if child == 0:
                try:
                    importlib.import_module("graphc." + name)
                except BaseException as error:
                    print(f"graphc.{name}: {error!r}", flush=True)
                os._exit(0)
            os.waitpid(child, 0)
    """)
    names = [name for name in MODULES if name != "__main__"]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path)}  # bytecode once, not once per child
    done = subprocess.run([sys.executable, "-c", code, str(ROOT), *names], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "", done.stdout
