"""Kernels written by hand, as text, and how the tests run them."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc import dims
from graphc.backends.interpreter import run_kernel
from graphc.ir import Array
from graphc.kernel_text import parse_kernel
from graphc.verify_kernel import verify_kernel

CHAIN = """\
kernel chain(x: in f32[n], y: in f32[n], z: out f32[n], w: out bool[n])
  grid i < n vector
    do
      %0 = f32 load x[i]
      %1 = f32 load y[i]
      %2 = f32 literal 0.1
      %3 = f32 mul %0, %2
      %4 = f32 maximum %3, %1
      %5 = f32 store z[i], %4
      %6 = bool less %0, %1
      %7 = bool store w[i], %6
"""
SOFTMAX = """\
kernel softmax(x: in f32[m*n], y: out f32[m*n], t: temp f32[m])
  dim m min=1
  grid i < n
    for j < m vector
      %0 = f32 load x[i*m + j]
      %1 = f32 reduce max %0 over j
    for j < m vector
      %2 = f32 load x[i*m + j]
      %3 = f32 sub %2, %1
      %4 = f32 exp %3
      %5 = f32 store t[j], %4
      %6 = f32 reduce sum %4 over j
    for j < m vector
      %7 = f32 load t[j]
      %8 = f32 div %7, %6
      %9 = f32 store y[i*m + j], %8
"""
COLUMNS = """\
kernel columns(x: in f64[m*n], y: out f64[m])
  grid i < n
    for j < m vector
      %0 = f64 load x[i*m + j]
      %1 = f64 reduce sum %0 over i
  finish
    for j < m vector
      %2 = f64 store y[j], %1
"""
NORM = """\
kernel norm(x: in f64[m*n], g: in f64[m], y: out f64[m*n], sums: out f64[m], total: out f64[1])
  grid i < n
    for j < m vector
      %0 = f64 load x[i*m + j]
      %1 = f64 reduce sum %0 over j
    do
      %2 = i64 size m
      %3 = f64 cast %2
      %4 = f64 div %1, %3
    for j < m vector
      %0 = f64 load x[i*m + j]
      %5 = f64 sub %0, %4
      %6 = f64 sqr %5
      %7 = f64 reduce sum %6 over j
    for j < m vector
      %0 = f64 load x[i*m + j]
      %5 = f64 sub %0, %4
      %8 = f64 div %7, %3
      %9 = f64 sqrt %8
      %10 = f64 div %5, %9
      %11 = f64 load g[j]
      %12 = f64 mul %10, %11
      %13 = f64 store y[i*m + j], %12
      %14 = f64 reduce sum %12 over i
      %15 = f64 reduce max %12 over i, j
  finish
    for j < m vector
      %16 = f64 literal -1.0
      %17 = f64 mul %14, %16
      %18 = f64 store sums[j], %17
    do
      %19 = f64 store total[0], %15
"""
TURNED = """\
kernel turned(x: in i32[m*n], y: out i32[m*n])
  grid j < m, i < n vector
    do
      %0 = i32 load x[-j + i*m + m - 1]
      %1 = i32 store y[j*n + i], %0
"""
GATHER = """\
kernel rows(table: in f32[m*p], at: in i64[n], y: out f32[n*p])
  grid i < n
    for j < p vector
      %0 = i64 load at[i]
      %1 = f32 load table[j + %0*p]
      %2 = f32 store y[i*p + j], %1
"""
ARGMAX = """\
kernel best(x: in f32[k*m*n], y: out i64[n], z: out i64[1])
  grid i < n
    for j < m, l < k
      %0 = f32 load x[i*k*m + j*k + l]
      %1 = i64 reduce argmax %0 over j, l
      %2 = i64 reduce argmin %0 over i, j, l
    do
      %3 = i64 store y[i], %1
  finish
    do
      %4 = i64 store z[0], %2
"""
IN_PLACE = """\
kernel scale(x: in f32[m*n], y: out f32[m*n] alias x)
  grid i < n
    for j < m vector
      %0 = f32 load x[i*m + j]
      %1 = f32 reduce sum %0 over j
    for j < m vector
      %0 = f32 load x[i*m + j]
      %2 = f32 div %0, %1
      %3 = f32 store y[i*m + j], %2
"""
WRITTEN = {"chain": CHAIN, "softmax": SOFTMAX, "columns": COLUMNS, "norm": NORM, "turned": TURNED, "rows": GATHER, "best": ARGMAX, "scale": IN_PLACE}
RNG = np.random.default_rng


def sizes(**values: int) -> dict[Any, int]:
    return {dims.dim(name).symbol: n for name, n in values.items()}


def run(text: str, env: dict[str, int], *inputs: Any, block: int = 1 << 22) -> list[Array]:
    """The out operands of a kernel, for the in operands."""
    kernel = parse_kernel(text)
    verify_kernel(kernel)
    given = iter(inputs)
    numbers = sizes(**env)
    arrays: list[Array | None] = []
    for o in kernel.operands:
        n = dims.evaluate(o.size, numbers)
        if o.mode == "in":
            arrays.append(np.array(next(given), o.dtype).reshape(-1))
        elif o.alias >= 0:
            arrays.append(arrays[o.alias])
        else:
            arrays.append(np.full(n, 77).astype(o.dtype) if o.mode == "out" else None)
    run_kernel(kernel, arrays, numbers, block=block)
    return [a for a, o in zip(arrays, kernel.operands, strict=True) if o.mode == "out" and a is not None]
