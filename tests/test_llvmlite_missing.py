"""Without llvmlite the package imports and works, on the NumPy backend, and says so once."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import sys, warnings
sys.modules["llvmlite"] = None
import graphc as gc
x = gc.scalar("x")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    f = gc.function([x], gc.grad(x ** 3, x))
    gc.function([x], x)
print(float(f(2.0)), f.backend, len(seen), "llvmlite" in str(seen[0].message))
"""


def test_numpy_backend_without_llvmlite() -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=False)
    assert run.stdout.split() == ["12.0", "numpy", "1", "True"], run.stderr
