"""sqrt, rounded as IEEE 754 asks, faster than the processor's own instruction where there is an estimate of 1/sqrt.

    y = estimate of 1/sqrt(x)        2^-14
    g, h = x y, y/2                  sqrt(x) and 1/(2 sqrt(x)); r = 1/2 - g h; g += g r; h += h r: twice the digits
    result = g + (x - g^2) h         one rounding

x - g^2 is exact in a fused multiplication, so the last step is a correctly rounded one if g is within an ULP of the root and h
good to about a whole precision (Markstein, "Computation of elementary functions on the IBM RISC System/6000 processor", 1990).
Zero, infinities, NaN, negative and very small or large numbers take the instruction.
"""

from __future__ import annotations

from graphc.backends.llvm.values import Value, fma
from graphc.backends.llvm.vectormath.common import INTEGER, by_registers, registers512

__all__ = ["sqrt"]

#: exponents (as they are stored) from which and below which nothing is lost in x - g^2 or in the estimate
NORMAL = {"f32": (64, 254), "f64": (128, 2046)}
#: steps that double the digits: 14 -> 28, 14 -> 28 -> 56
STEPS = {"f32": 1, "f64": 2}


def sqrt(x: Value) -> Value:
    return by_registers(_either, x) if registers512(x) else x.sqrt()


def _either(x: Value) -> Value:
    """Every other one by the instruction: the two ways take different units of the processor, and go side by side."""
    x.f.roots += 1
    return x.sqrt() if x.f.roots % 2 else _root(x)


def _root(x: Value) -> Value:
    f, mantissa = x.f, {"f32": 23, "f64": 52}[x.kind]
    name = f"llvm.x86.avx512.rsqrt14.{'ps' if x.kind == 'f32' else 'pd'}.512"
    f.module.declare(name, f"{x.type} ({x.type}, {x.type}, i{x.lanes})")
    y = Value(f, f.op(f"call {x.type} @{name}({x.type} {x.ref}, {x.type} {x.ref}, i{x.lanes} -1)"), x.kind, x.lanes)
    g, h = x * y, y * 0.5
    for _ in range(STEPS[x.kind]):
        r = fma(-g, h, 0.5)
        g, h = fma(g, r, g), fma(h, r, h)
    usual = fma(fma(-g, g, x), h, g)
    low, high = NORMAL[x.kind]
    bits = x.bitcast(INTEGER[x.kind]) - (low << mantissa)  # a negative number, a zero and what is too small are large without a sign
    return f.rare(bits.uge((high - low) << mantissa), usual, x.sqrt)
