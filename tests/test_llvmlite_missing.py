"""Without llvmlite the package imports and works, on the NumPy backend, and says so once; who insists on native code is told."""

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
s = gc.shared(1.0, "s")
g = gc.function([x], x * s, updates={s: s + x}, threads=2, profile=True)
g(2.0), gc.function([x], gc.exp(x), mode="DEBUG")(0.0), g.cost(), g.dump("source")
try:
    gc.function([x], x, mode=gc.Mode(backend="llvm"))
except ValueError as error:
    print(float(s.get_value()), g.backend, "pip" in str(error), "llvmlite.binding" in sys.modules)
"""


def test_numpy_backend_without_llvmlite() -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root, check=False)
    assert run.stdout.split() == ["12.0", "numpy", "1", "True", "3.0", "numpy", "True", "False"], run.stderr
