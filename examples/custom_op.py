"""Ops of your own: a class with the type rule, the NumPy meaning and the derivative; or a decorated function.

    python examples/custom_op.py
"""

import numpy as np

import graphc as gc


class Softclip(gc.Op):
    """y = x / sqrt(1 + x²): a cheap squashing function, dy/dx = (1 - y²)^(3/2)."""

    def infer(self, x):
        return x  # the result has the type of the operand

    def forward(self, x):
        return x / np.sqrt(1.0 + x * x)

    def bprop(self, inputs, outputs, cotangents):
        (y,), (g,) = outputs, cotangents
        return [g * (1.0 - y * y) ** 1.5]


softclip = Softclip()


class DivMod(gc.Op):
    """Two results: the quotient and the rest of a division of integers."""

    def infer(self, a, b):
        return [a, b]

    def forward(self, a, b):
        return [a // b, a % b]


@gc.op(bprop=lambda inputs, outputs, cotangents: [cotangents[0] * gc.cos(inputs[0])])
def my_sin(x):
    """The same in short: the result has the type of the first operand."""
    return np.sin(x)


def main():
    x = gc.vector("x")
    y = softclip(x) + my_sin(x)
    f = gc.function([x], [y, gc.grad(gc.sum(y), x)], name="f")
    values, slopes = f([-1.0, 0.0, 2.0])
    print("softclip(x) + sin(x) =", values)
    print("derivative           =", slopes)

    # symbolic against numeric: raises if the derivative is wrong
    gc.verify_grad(lambda v: gc.sum(softclip(v) * my_sin(v)), [np.array([-1.0, 0.3, 2.0])])

    # a derivative that is used again: second derivatives come from bprop's own expression
    s = gc.scalar("s")
    second = gc.function([s], gc.grad(gc.grad(softclip(s), s), s), name="second")
    print("softclip''(0.5)      =", float(second(0.5)))

    a, b = gc.ivectors("a", "b")
    quotient, rest = gc.function([a, b], DivMod()(a, b), name="divmod")([7, 9], [2, 5])
    print("divmod               =", quotient, rest)
    return values, slopes


if __name__ == "__main__":
    main()
