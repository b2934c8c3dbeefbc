"""The error of every vector function in units in the last place (ULP), written into docs/vector_math.md.

    python benchmarks/accuracy.py [--function exp,log] [--kind f32,f64] [--quick] [--no-write]

One-argument float32 functions are run on all 2^32 bit patterns (``--quick``: every 4099th) and compared with NumPy's or
SciPy's float64.  The others are sampled: all exponents, dense near special points; the reference is 80-bit arithmetic
where NumPy has it (``np.longdouble``) and mpmath elsewhere.  Each function is measured as it is written for 512-bit
registers, for AVX2 and for SSE2 without an FMA instruction, as far as this machine has them.

The error of a result g for the true value t is |g - t| / u where u is the distance of floats at t (at subnormal t that of
subnormals).  It is infinite where one is NaN or infinite and the other is not, or where a zero has the wrong sign.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import math
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special as special
from scipy.optimize import brentq

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "vector_math.md"
DTYPES: dict[str, Any] = {"f32": np.float32, "f64": np.float64}
LONG = np.longdouble if np.finfo(np.longdouble).nmant >= 63 else None
BLOCK = 1 << 17  # what is worked on stays in the cache
STEP = 4099

Array = Any


# -- references -----------------------------------------------------------------------------------


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _log1mexp(x: Array) -> Array:
    return np.where(x > -0.7, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))


def _logaddexp(a: Array, b: Array) -> Array:
    """NumPy's, but where its two terms cancel log1p of a sum of small numbers."""
    usual = np.logaddexp(a, b)
    return np.where((np.abs(usual) < 0.5) & (np.maximum(a, b) > -1.5), np.log1p(np.expm1(np.maximum(a, b)) + np.exp(np.minimum(a, b))), usual)


def _xlogy(x: Array, y: Array) -> Array:
    return np.where((x == 0) & ~np.isnan(y), np.zeros_like(x), x * np.log(y))


def _erfinv(mp: Any, x: float) -> Any:
    return mp.mpf(math.copysign(math.inf, x)) if abs(x) == 1 else mp.nan if abs(x) > 1 else mp.erfinv(mp.mpf(x))


def _erfinv_of_many(x: Array) -> Array:
    """SciPy's, which takes a microsecond to say that a number is out of range."""
    inside = np.abs(x) <= 1
    return np.where(inside, np.copysign(special.erfinv(np.where(inside, x, 0.0)), x), np.nan)


def _gammaln_of_many(x: Array) -> Array:
    """SciPy's, which has an infinity of the other sign where C99 asks for this."""
    return np.where(np.isinf(x), np.inf, special.gammaln(x))


def _gammaln(mp: Any, x: float) -> Any:
    return mp.inf if math.isinf(x) or (x <= 0 and x == math.floor(x)) else mp.re(mp.loggamma(mp.mpf(x)))


def _digamma(mp: Any, x: float) -> Any:
    if x == 0:
        return mp.mpf(-math.copysign(math.inf, x))
    return mp.nan if x == -math.inf or (x < 0 and x == math.floor(x)) else mp.digamma(mp.mpf(x))


@dataclass(frozen=True)
class Reference:
    """What one function is compared with.

    Args:
        double: the function on float64 arrays, for float32.
        long: it on longdouble arrays, for float64; None if NumPy has none.
        exact: it on one number with mpmath, (mp, x), for float64 where ``long`` is missing.
        near: points near which float64 is sampled densely.
        span: half the range that is sampled evenly.
        cancels: where the truth is smaller, ``exact`` is asked instead of ``double`` and ``long``.
        limit: the ULP that are promised.
        arguments: how many.
        halves: negative arguments have a row of their own.
    """

    double: Callable[..., Array]
    long: Callable[..., Array] | None
    exact: Callable[..., Any] | None = None
    near: Sequence[float] = ()
    span: float = 20.0
    cancels: float = 0.0
    limit: float = 2.0
    arguments: int = 1
    halves: bool = False


def _both(function: Callable[..., Array], **more: Any) -> Reference:
    return Reference(function, function, **more)


PI = math.pi


def _roots() -> tuple[list[float], list[float]]:
    """Of gammaln and digamma between negative whole numbers, nearly: those of gammaln that are floats of their own, the first 170 of digamma."""
    some = []
    for n in range(2, 17):
        some.append(brentq(special.gammaln, -(n + 0.5), math.nextafter(-n, -math.inf), xtol=1e-18))
        if n > 2:
            some.append(brentq(special.gammaln, math.nextafter(-n, 0.0), -(n - 0.5), xtol=1e-18))
    return some, [brentq(special.digamma, -n + 1e-6, 1 - n - 1e-6, xtol=1e-18) for n in range(1, 171)]


GAMMALN_ROOTS, DIGAMMA_ROOTS = _roots()
REFERENCES: dict[str, Reference] = {
    "exp": _both(np.exp, near=(0.0, 709.78, -708.4, -745.1, 88.72, -87.33, -103.97), span=750.0),
    "exp2": _both(np.exp2, near=(0.0, 1024.0, -1022.0, -1075.0, 128.0, -126.0, -150.0), span=1080.0),
    "expm1": _both(np.expm1, near=(0.0, 0.3466, -0.3466, 709.78, -37.4), span=50.0),
    "sigmoid": _both(_sigmoid, near=(0.0, 36.7, -745.1, -103.97), span=50.0),
    "softplus": _both(_softplus, near=(0.0, 36.7, -745.1, -103.97), span=50.0),
    "tanh": _both(np.tanh, near=(0.0, 9.01, 19.06)),
    "sinh": _both(np.sinh, near=(0.0, 89.41, 710.47), span=720.0),
    "cosh": _both(np.cosh, near=(0.0, 89.41, 710.47), span=720.0),
    "log1mexp": _both(_log1mexp, near=(0.0, -0.6931, -1.5, -745.1), span=50.0),
    "logaddexp": _both(_logaddexp, near=(0.0, -0.6931), cancels=0.03, arguments=2,
                       exact=lambda mp, a, b: mp.log1p(mp.expm1(mp.mpf(max(a, b))) + mp.exp(mp.mpf(min(a, b))))),
    "log": _both(np.log, near=(1.0, 0.75, 1.5)),
    "log2": _both(np.log2, near=(1.0, 0.75, 1.5)),
    "log10": _both(np.log10, near=(1.0, 0.75, 1.5)),
    "log1p": _both(np.log1p, near=(0.0, -1.0, 0.5, -0.25)),
    "asinh": _both(np.arcsinh, near=(0.0,)),
    "acosh": _both(np.arccosh, near=(1.0,)),
    "atanh": _both(np.arctanh, near=(0.0, 1.0), span=1.1),
    "xlogy": _both(_xlogy, near=(1.0,), arguments=2),
    "pow": _both(np.power, near=(1.0, -1.0), limit=4.0, arguments=2),
    "sin": _both(np.sin, near=(0.0, PI / 2, PI, 2 * PI, 100 * PI), span=1000.0),
    "cos": _both(np.cos, near=(0.0, PI / 2, PI, 2 * PI, 100 * PI), span=1000.0),
    "tan": _both(np.tan, near=(0.0, PI / 4, PI / 2, PI, 100 * PI), span=1000.0),
    "asin": _both(np.arcsin, near=(0.0, 0.5, 1.0), span=1.1),
    "acos": _both(np.arccos, near=(0.0, 0.5, 1.0), span=1.1),
    "atan": _both(np.arctan, near=(0.0, 1.0)),
    "atan2": _both(np.arctan2, near=(0.0, 1.0), arguments=2),
    "hypot": _both(np.hypot, near=(0.0, 1.0), arguments=2),
    "erf": Reference(special.erf, None, lambda mp, x: mp.erf(mp.mpf(max(min(x, 40.0), -40.0))), near=(0.0, 1.0), span=7.0),
    "erfc": Reference(special.erfc, None, lambda mp, x: mp.erfc(mp.mpf(max(min(x, 40.0), -40.0))), near=(0.0, 1.0, 26.5), span=28.0),
    "erfinv": Reference(_erfinv_of_many, None, _erfinv, near=(0.0, 0.5, 1.0), span=1.1),
    "gammaln": Reference(_gammaln_of_many, None, _gammaln, near=(0.0, 1.0, 2.0, 1.4616, *GAMMALN_ROOTS), cancels=1e-5, limit=4.0, halves=True),
    "digamma": Reference(special.digamma, None, _digamma, near=(0.0, 1.0, 1.4616, *DIGAMMA_ROOTS), cancels=1e-5, limit=4.0, halves=True),
}


# -- running --------------------------------------------------------------------------------------


class Compiled:
    """One vector function as a loop over arrays, compiled for a target and a number of lanes (0: a loop over scalars)."""

    def __init__(self, name: str, kind: str, target: Any, lanes: int) -> None:
        import llvmlite.binding as llvm

        from graphc.backends.llvm.values import BITS, Body, Module, type_text
        from graphc.backends.llvm.vectormath import FUNCTIONS

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        n, self.kind, self.step = REFERENCES[name].arguments, kind, max(lanes, 1)
        module = Module(target)
        body = Body(module, "run", [*[("ptr", f"in{i}") for i in range(n)], ("ptr", "out"), ("i64", "count")])
        vector, element, align = type_text(kind, lanes), type_text(kind, 0), BITS[kind] // 8
        with body.loop(body.const(0, "i64"), body.value("%count", "i64"), body.const(self.step, "i64")) as loop:
            inputs = []
            for i in range(n):
                address = body.op(f"getelementptr {element}, ptr %in{i}, i64 {loop.index.ref}")
                inputs.append(body.value(body.op(f"load {vector}, ptr {address}, align {align}"), kind, lanes))
            result = FUNCTIONS[name](*inputs)
            address = body.op(f"getelementptr {element}, ptr %out, i64 {loop.index.ref}")
            body.line(f"store {vector} {result.ref}, ptr {address}, align {align}")
        body.finish()
        parsed = llvm.parse_assembly(module.text())
        parsed.verify()
        machine = llvm.Target.from_triple(target.triple).create_target_machine(cpu=target.cpu, features=target.feature_text, opt=2, jit=True)
        self.engine = llvm.create_mcjit_compiler(parsed, machine)
        self.engine.finalize_object()
        signature = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (n + 1), ctypes.c_int64)
        self.run = signature(self.engine.get_function_address("run"))

    def __call__(self, *arrays: Array) -> Array:
        count = arrays[0].size
        pad = -count % self.step
        padded = [np.ascontiguousarray(np.concatenate([a, np.ones(pad, a.dtype)]) if pad else a) for a in arrays]
        out = np.empty(count + pad, DTYPES[self.kind])
        self.run(*[a.ctypes.data for a in padded], out.ctypes.data, out.size)
        return out[:count]


def targets() -> dict[str, Any]:
    """This machine and what is left of it without its wider registers, by name."""
    from graphc.backends.llvm.target import host
    found = {}
    if host().has("avx512f"):
        found["AVX-512"] = host()
    if host().has("avx2"):
        found["AVX2"] = host().without("avx512f")
    if host().x86:
        found["SSE2"] = host().without("avx2")
    return found or {"host": host()}


@functools.cache
def compiled(name: str, kind: str) -> dict[str, Compiled]:
    return {label: Compiled(name, kind, t, t.bits // (32 if kind == "f32" else 64)) for label, t in targets().items()}


def ulps(got: Array, true: Array) -> Array:
    """The error of ``got`` (float32 or float64) against ``true`` (of a wider type), element by element."""
    mantissa, least, bits = (23, -149, 128) if got.dtype == np.float32 else (52, -1074, 1024)
    with np.errstate(all="ignore"):
        unit = np.ldexp(true.dtype.type(1), np.clip(np.frexp(true)[1] - 1 - mantissa, least, bits - 1 - mantissa))
        top = true.dtype.type(2) ** bits  # what an infinity that comes of rounding stands for
        error = np.abs(np.clip(got, -top, top) - np.clip(true, -top, top)) / unit
        alike = (got == true) | (np.isnan(got) & np.isnan(true))
        error = np.where(np.isfinite(true) & ~np.isnan(got), error, np.where(alike, 0.0, np.inf))
    return np.where((got == 0) & (np.signbit(got) != np.signbit(true)), np.inf, error)


@dataclass
class Worst:
    """The largest error so far, where it was, and how many points were looked at."""

    error: float = -1.0
    where: tuple[float, ...] = ()
    points: int = 0

    def see(self, errors: Array, arguments: Sequence[Array]) -> None:
        i = int(np.argmax(errors))
        self.points += errors.size
        if errors[i] > self.error:
            self.error, self.where = float(errors[i]), tuple(float(a[i]) for a in arguments)

    def join(self, other: Worst) -> None:
        points = self.points + other.points
        if other.error > self.error:
            self.error, self.where = other.error, other.where
        self.points = points


@dataclass
class Record:
    """One row of the table."""

    name: str
    part: str
    kind: str
    method: str
    worst: dict[str, Worst] = field(default_factory=dict)


def _block(job: tuple[str, int, int, int]) -> dict[str, Worst]:
    """All float32 bit patterns from start on and below stop, every step-th."""
    name, start, stop, step = job
    x = np.arange(start, min(start + BLOCK * step, stop), step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        true, _ = truth(name, "f32", [x])
        nearest = true.astype(np.float32).view(np.int32)
    found = {}
    for label, run in compiled(name, "f32").items():
        got = run(x)
        other = np.flatnonzero(got.view(np.int32) != nearest)  # the rest is within half an ULP
        found[label] = Worst(0.5, (float(x[0]),), x.size - other.size)
        if other.size:
            found[label].see(ulps(got[other], true[other]), [x[other]])
    return found


def exhaustive(name: str, part: str, step: int, pool: Any) -> Record:
    record = Record(name, part, "f32", "all floats" if step == 1 else f"every {step}th float")
    first, last = {"": (0, 1 << 32), "x >= 0": (0, 1 << 31), "x < 0": (1 << 31, 1 << 32)}[part]
    for found in pool.imap_unordered(_block, [(name, start, last, step) for start in range(first, last, BLOCK * step)], 32):
        for label, worst in found.items():
            record.worst.setdefault(label, Worst()).join(worst)
    return record


def samples(name: str, kind: str, n: int, rng: np.random.Generator) -> Array:
    """About ``n`` arguments: random bits, all magnitudes, an even range, dense near special points; and those themselves."""
    reference, dtype = REFERENCES[name], DTYPES[kind]
    info = np.finfo(dtype)
    integer = np.int32 if kind == "f32" else np.int64
    part = n // 4
    near = np.repeat(np.array(reference.near or (0.0,)), max(part // max(len(reference.near), 1), 1))
    away = rng.standard_normal(near.size) * 10.0 ** rng.uniform(-9 if kind == "f32" else -17, 0, near.size)
    special_points = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, *reference.near,
                      info.max, -info.max, info.tiny, -info.tiny, info.smallest_subnormal, -info.smallest_subnormal]
    with np.errstate(all="ignore"):
        return np.concatenate([
            rng.integers(np.iinfo(integer).min, np.iinfo(integer).max, part, dtype=integer, endpoint=True).view(dtype),
            (rng.standard_normal(part) * 10.0 ** rng.uniform(-8, 4, part)).astype(dtype),
            rng.uniform(-reference.span, reference.span, part).astype(dtype), (near + away).astype(dtype), np.array(special_points, dtype)])


def arguments(name: str, kind: str, n: int, rng: np.random.Generator) -> list[Array]:
    x = samples(name, kind, n, rng)
    if REFERENCES[name].arguments == 1:
        return [x]
    y = rng.permutation(samples(name, kind, n, rng))
    corner = x[-24:]  # special points with each other
    x, y = np.concatenate([x, np.repeat(corner, corner.size)]), np.concatenate([y, np.tile(corner, corner.size)])
    if name == "pow":  # most of them with a result in range
        half = x.size // 2
        with np.errstate(all="ignore"):
            x[:half] = np.abs(x[:half])
            scale = rng.uniform(-1, 1, half) * (150 if kind == "f32" else 1080) / np.log2(x[:half].astype(np.float64))
            y[:half] = np.where(np.isfinite(scale), scale, y[:half])
            y[:half // 8] = np.rint(y[:half // 8])
    if name == "logaddexp":  # some that cancel, all but 10^-14 of them
        part = x.size // 8
        with np.errstate(all="ignore"):
            x[:part] = np.minimum(-np.abs(x[:part]), -1e-30 if kind == "f32" else -1e-250)
            off = rng.choice([-1.0, 1.0], part) * 10.0 ** rng.uniform(-6 if kind == "f32" else -14, 0, part)
            y[:part] = np.log(-np.expm1(x[:part].astype(np.float64))) * (1.0 + off)
    return [x, y]


def truth(name: str, kind: str, args: Sequence[Array]) -> tuple[Array, str]:
    """The true values of sampled arguments, and how they were got."""
    reference = REFERENCES[name]
    with np.errstate(all="ignore"):
        single = kind == "f32"
        if not single and (reference.long is None or LONG is None):
            return _by_mpmath(reference, args), "samples, mpmath"
        function = reference.double if single or reference.long is None else reference.long
        true = function(*[a.astype(np.float64 if single else LONG) for a in args])
        few = np.flatnonzero((np.abs(true) < reference.cancels) & np.isfinite(np.array(args)).all(axis=0))
        if few.size:
            true[few] = _by_mpmath(reference, [a[few] for a in args])
    return true, "samples, float64" if single else "samples, 80 bits"


def _by_mpmath(reference: Reference, args: Sequence[Array]) -> Array:
    """float64 is too narrow for the truth; a longdouble holds mpmath's result as a sum of two."""
    import mpmath
    assert reference.exact is not None, "this machine has no longdouble: measure on another"
    mpmath.mp.prec = 200
    wide = LONG or np.float64
    out = np.empty(args[0].size, wide)
    for i, values in enumerate(zip(*args, strict=True)):
        if any(math.isnan(v) for v in values):
            out[i] = math.nan
            continue
        value = reference.exact(mpmath, *[float(v) for v in values])
        high = float(value)
        out[i] = wide(high) + wide(float(value - high)) if math.isfinite(high) else wide(high)
        if high == 0:
            out[i] = math.copysign(0.0, values[0]) if values[0] == 0 and len(values) == 1 else wide(high)
    return out


def sampled(name: str, part: str, kind: str, quick: bool) -> Record:
    rng = np.random.default_rng(1)
    slow = kind == "f64" and REFERENCES[name].long is None
    args = arguments(name, kind, 4000 if slow and quick else 20_000 if slow else 400_000 if quick else 8_000_000, rng)
    if part:
        args = [args[0][np.signbit(args[0]) == (part == "x < 0")]]
    true, method = truth(name, kind, args)
    record = Record(name, part, kind, method)
    for label, run in compiled(name, kind).items():
        record.worst[label] = Worst()
        record.worst[label].see(ulps(run(*args), true), args)
    return record


# -- the table ------------------------------------------------------------------------------------

TEXT = """# Vector mathematics: what the functions promise

Elementwise functions without an instruction of their own are written in LLVM IR (`backends/llvm/vectormath/`), once for float32 and
once for float64, for any number of lanes. For all of them:

- the error is at most 2 ULP over the whole range; 4 for `pow`, `gammaln` and `digamma`;
- subnormal arguments and results are right: underflow is gradual, nothing is flushed to zero;
- infinities, NaN and -0.0 give what C99 and NumPy give: `tanh(-0.0)` is -0.0, `log(-1)` is nan, `pow(nan, 0)` is 1;
- the floating-point control register is neither read for this nor changed;
- a result depends on the argument and on the processor's features only, not on the neighbours in a vector or on the number of threads.

Two processors may give results that differ in the last place: there is one form for 512-bit registers, one for processors with an FMA
instruction and one for those without. On a processor with 512-bit registers, code with fewer lanes (scalars) is in the second form.

`sqrt` is the nearest float, as IEEE 754 asks (`roots.py`; every float32 and the hardest float64 were compared). Every other register takes the
processor's instruction, the others an estimate of 1/sqrt with Newton's rule and Markstein's last step: the two keep different units of the processor busy, so a
million float32 take 105 us instead of 185 on Zen 4, float64 370 instead of 600.

The promise holds also where a result is a small difference of large numbers: next to the roots of `gammaln` and `digamma` between the
negative whole numbers, and where the terms of `logaddexp` cancel. For the latter there is a limit in float64: if more than the first 56 bits
of them cancel, some of the result's last bits are lost. For that, one argument must be the float nearest to where the result is 0.

## Measured

`benchmarks/accuracy.py` makes this table. The columns are the largest errors in ULP of the three forms; "at" is where the first has it.

"""
HEAD = ("function", "dtype", "AVX-512", "AVX2", "SSE2", "at", "points", "method")


def row(record: Record) -> list[str]:
    first = next(iter(record.worst.values()))
    errors = [f"{record.worst[label].error:.3g}" if label in record.worst else "" for label in HEAD[2:5]]
    name = f"`{record.name}`" + (f", {record.part}" if record.part else "")
    return [name, record.kind, *errors, ", ".join(f"{v:.9g}" for v in first.where), f"{first.points:,}", record.method]


def write(records: Sequence[Record]) -> None:
    """The document with these rows in the place of older ones."""
    rows: dict[tuple[str, str], list[str]] = {}
    if DOCUMENT.exists():
        for line in DOCUMENT.read_text().splitlines():
            cells = [c.strip() for c in line.strip("|").split("|")]
            if line.startswith("| `") and len(cells) == len(HEAD):
                rows[cells[0], cells[1]] = cells
    for record in records:
        cells = row(record)
        rows[cells[0], cells[1]] = cells
    first_columns = [f"`{name}`{part}" for name in REFERENCES for part in ("", ", x >= 0", ", x < 0")]
    order = [(first, kind) for first in first_columns for kind in DTYPES if (first, kind) in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * 2 + ["---:"] * 3 + ["---", "---:", "---"], *[rows[key] for key in order])]
    DOCUMENT.write_text(TEXT + "\n".join(lines) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--function", help="names, with commas between; otherwise all")
    parser.add_argument("--kind", default="f32,f64")
    parser.add_argument("--quick", action="store_true", help=f"every {STEP}th float32 instead of all, and fewer samples")
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args()
    names = options.function.split(",") if options.function else list(REFERENCES)
    records, broken = [], 0
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for name, kind in [(name, kind) for name in names for kind in options.kind.split(",")]:
            reference = REFERENCES[name]
            for part in ("x >= 0", "x < 0") if reference.halves else ("",):
                if kind == "f32" and reference.arguments == 1:
                    record = exhaustive(name, part, STEP if options.quick else 1, pool)
                else:
                    record = sampled(name, part, kind, options.quick)
                records.append(record)
                print(" | ".join(row(record)), flush=True)
                broken += any(w.error > reference.limit for w in record.worst.values())
    if not options.no_write:
        write(records)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
