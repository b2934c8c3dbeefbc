"""Who takes part, in which Python environment, with which settings; run as a script it makes the environments.

    python benchmarks/peers/environments.py [ENVIRONMENT ...] [-- OPTIONS OF PIP]

One environment per peer, in ``benchmarks/.venvs``: PyTensor's numba wants an older llvmlite than graphc has, and no
peer's choice of NumPy shall bind another's.  graphc runs in the interpreter that runs the suite, from this checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDER = HERE.parent / ".venvs"

#: environment -> what is installed; torch is pinned because its compiled code changes from release to release
REQUIREMENTS = {"numpy": ["numpy>=2.0", "scipy>=1.12"], "jax": ["jax>=0.10"], "torch": ["torch==2.13.0", "numpy>=2.0"], "pytensor": ["pytensor>=3.0"]}


@dataclass(frozen=True)
class Entry:
    """A contestant: its environment ("" = the interpreter that runs the suite), what it is called in tables, is it another way to run a contestant."""

    environment: str
    title: str
    variant: bool = False


CONTESTANTS = {
    "graphc": Entry("", "graphc"),
    "graphc_any": Entry("", "graphc, any size", True),
    "numpy": Entry("numpy", "NumPy"),
    "jax": Entry("jax", "JAX"),
    "jax_sync": Entry("jax", "JAX sync", True),
    "torch": Entry("torch", "torch"),
    "torch_compile": Entry("torch", "torch.compile"),
    "pytensor": Entry("pytensor", "PyTensor"),
    "pytensor_c": Entry("pytensor", "PyTensor C", True),
}
#: the variants of JAX and PyTensor are the best of peers where calls are short
DEFAULT = ("graphc", "numpy", "jax", "jax_sync", "torch", "torch_compile", "pytensor", "pytensor_c")


def python_of(name: str, chosen: dict[str, str]) -> str:
    """The interpreter of a contestant: as chosen on the command line, or that of its environment."""
    environment = CONTESTANTS[name].environment
    path = chosen.get(name) or chosen.get(environment) or (sys.executable if not environment else _python(FOLDER / environment))
    if not os.access(path, os.X_OK):
        raise SystemExit(f"{name}: no interpreter at {path}; make it: python benchmarks/peers/environments.py {environment}")
    return path


def settings(threads: int, cache: Path, *, first_call: bool = False) -> dict[str, str]:
    """The environment variables of a contestant's process: threads everywhere, caches in a folder of the suite.

    How long idle threads of OpenMP spin is left alone (OMP_WAIT_POLICY, KMP_BLOCKTIME): "passive" makes every parallel
    region of PyTorch pay for waking a thread, several times the cost of a small step.  The runner waits instead until a
    contestant's threads sleep before the next one's turn.
    """
    n = str(threads)
    foreign = ("GRAPHC_", "PYTENSOR_", "JAX_", "XLA_", "TORCH", "OMP_", "GOMP_", "KMP_", "NUMBA_")
    result = {k: v for k, v in os.environ.items() if k == "GRAPHC_BACKEND" or not k.startswith((*foreign, "PYTHONDONTWRITE"))}
    result |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "GRAPHC_THREADS", "NPROC"), n)
    result |= {
        "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if threads == 1 else "",
        "GRAPHC_CACHE_DIR": str(cache / "graphc"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
        "PYTENSOR_FLAGS": f"base_compiledir={cache / 'pytensor'}", "NUMBA_CACHE_DIR": str(cache / "numba"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if first_call:
        result |= {"JAX_COMPILATION_CACHE_DIR": str(cache / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                   "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    else:
        result["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of compiling processes beside the timing
    return result


def _python(folder: Path) -> str:
    return str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def make(name: str, options: list[str]) -> None:
    """Create an environment, or bring it up to date."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")  # the folder ignores itself
    folder = FOLDER / name
    if not os.access(_python(folder), os.X_OK):
        venv.create(folder, with_pip=True)
    subprocess.run([_python(folder), "-m", "pip", "install", "--quiet", *options, *REQUIREMENTS[name]], check=True)


def main() -> None:
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    names, options = arguments[:cut] or list(REQUIREMENTS), arguments[cut + 1:]
    for name in names:
        if name not in REQUIREMENTS:
            raise SystemExit(f"no environment {name!r}; there are {', '.join(REQUIREMENTS)}")
        print(f"{FOLDER / name}: {' '.join(REQUIREMENTS[name])}", flush=True)
        make(name, options)


if __name__ == "__main__":
    main()
