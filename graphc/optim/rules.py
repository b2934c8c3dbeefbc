"""How each optimiser moves a parameter, in the letters of the *Deep Learning* book, chapter 8.

    g   the gradient           eps    the learning rate
    v   the velocity           alpha  the momentum
    r   a mean of g²           rho    a decay rate
    s   a mean of g            delta  a small constant against division by 0

The book puts delta outside the root for AdaGrad and Adam and inside for RMSProp;
so does this file.  For complex parameters g² is |g|² = g conj(g).
"""

from __future__ import annotations

from typing import Any

from graphc import dtypes
from graphc.functions.elementwise import abs as modulus
from graphc.functions.elementwise import power, sqrt
from graphc.ir import Shared, Var
from graphc.optim.base import Memory, Optimiser

__all__ = ["SGD", "AdaDelta", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSProp"]


def square(g: Var) -> Var:
    """|g|², real also where g is complex."""
    return g * g if not dtypes.is_complex(g.type.dtype) else modulus(g) ** 2


class SGD(Optimiser):
    """theta <- theta - eps g."""

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        return -eps * g


class Momentum(Optimiser):
    """v <- alpha v - eps g; theta <- theta + v (Algorithm 8.2)."""

    def __init__(self, lr: Any, momentum: float, **options: Any) -> None:
        super().__init__(lr, **options)
        self.alpha = self.fraction("momentum", momentum)

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        v = memory.state("v")
        return memory.set(v, memory.like(self.alpha) * v - eps * g)


class Nesterov(Momentum):
    """As momentum, with g taken where the velocity alone would lead: at theta + alpha v (Algorithm 8.3)."""

    def ahead(self, p: Shared, memory: Memory) -> Any:
        return p + memory.like(self.alpha) * memory.state("v")


class AdaGrad(Optimiser):
    """r <- r + g²; theta <- theta - eps / (delta + sqrt(r)) g (Algorithm 8.4)."""

    def __init__(self, lr: Any, delta: float, **options: Any) -> None:
        super().__init__(lr, **options)
        self.delta = self.positive("delta", delta)

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        r = memory.state("r", real=True)
        r_new = memory.set(r, r + square(g))
        return -eps * g / (self.delta + sqrt(r_new))


class AdaDelta(Optimiser):
    """r <- rho r + (1 - rho) g²; d = -sqrt(u + delta) / sqrt(r + delta) g; u <- rho u + (1 - rho) d²;
    theta <- theta + eps d (Zeiler, 2012)."""

    def __init__(self, lr: Any, rho: float, delta: float, **options: Any) -> None:
        super().__init__(lr, **options)
        self.rho, self.delta = self.fraction("rho", rho), self.positive("delta", delta)

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        r, u = memory.state("r", real=True), memory.state("u", real=True)
        r_new = memory.mean(r, self.rho, square(g))
        d = -(sqrt(u + self.delta) / sqrt(r_new + self.delta)) * g
        memory.mean(u, self.rho, square(d))
        return eps * d


class RMSProp(Optimiser):
    """r <- rho r + (1 - rho) g²; theta <- theta - eps / sqrt(delta + r) g (Algorithm 8.5)."""

    def __init__(self, lr: Any, rho: float, delta: float, **options: Any) -> None:
        super().__init__(lr, **options)
        self.rho, self.delta = self.fraction("rho", rho), self.positive("delta", delta)

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        r = memory.state("r", real=True)
        r_new = memory.mean(r, self.rho, square(g))
        return -eps * g / sqrt(self.delta + r_new)


class Adam(Optimiser):
    """s <- rho1 s + (1 - rho1) g; r <- rho2 r + (1 - rho2) g²; both divided by 1 - rho^t at update t = 1, 2, ...;
    theta <- theta - eps s / (sqrt(r) + delta) (Algorithm 8.7)."""

    counts = True

    def __init__(self, lr: Any, rho1: float, rho2: float, delta: float, **options: Any) -> None:
        super().__init__(lr, **options)
        self.rho1, self.rho2, self.delta = self.fraction("rho1", rho1), self.fraction("rho2", rho2), self.positive("delta", delta)

    def step(self, p: Shared, g: Var, eps: Any, memory: Memory) -> Any:
        s, r = memory.state("s"), memory.state("r", real=True)
        s_new = memory.mean(s, self.rho1, g)
        r_new = memory.mean(r, self.rho2, square(g))
        t = memory.count + 1.0  # float64: rho^t must not be rounded to the parameter's dtype before 1 - rho^t is taken
        s_hat = s_new / memory.like(1.0 - power(self.rho1, t))
        r_hat = r_new / memory.like(1.0 - power(self.rho2, t))
        return -eps * s_hat / (sqrt(r_hat) + self.delta)
