"""Elementwise mathematics as users call it: powers, exponentials, trigonometry, special functions.

Operands are variables, arrays, lists or Python numbers; shapes broadcast as NumPy's.
Results are floating: float and complex operands keep their dtype, integers and bool
become float64.  Functions said to be *real* raise GraphcTypeError for complex operands.
Outside its domain a real function gives nan, at a pole inf or -inf; nothing warns.
"""

from __future__ import annotations

from typing import Any

from graphc.ir import Var
from graphc.ops import special
from graphc.ops import transcendental as ops

# ---- powers ----------------------------------------------------------------------------------------


def pow(x1: Any, x2: Any) -> Var:
    """x1 ** x2.  Integers give integers and wrap; with a float or complex operand the result is that.

    A negative base has real powers at whole numbers only (nan elsewhere).  Integers to negative
    powers: a constant exponent raises GraphcValueError; one computed at run time gives the
    reciprocal cut to a whole number (0, 1 or -1; 0 ** -1 is 0).
    Derivatives: x2 * x1 ** (x2 - 1), which is 0 where x2 is 0; and y * log(x1), taken as 0 where x1 is 0.

    >>> import graphc as gc
    >>> gc.pow([2.0, 3.0], 2).eval()
    array([4., 9.])
    """
    return ops.pow(x1, x2)


def power(x1: Any, x2: Any) -> Var:
    """NumPy's name of ``pow``."""
    return pow(x1, x2)


def sqrt(x: Any) -> Var:
    """The square root; nan for negative reals.  Derivative 1 / (2 sqrt(x)).

    >>> import graphc as gc
    >>> gc.sqrt([4.0, 2.0]).eval()
    array([2.        , 1.41421356])
    """
    return ops.sqrt(x)


def hypot(x1: Any, x2: Any) -> Var:
    """sqrt(x1**2 + x2**2) without overflow, real.  Derivatives x1 / y and x2 / y, 0 at the origin.

    >>> import graphc as gc
    >>> gc.hypot(3.0, 4.0).eval()
    array(5.)
    """
    return ops.hypot(x1, x2)


# ---- exponentials and logarithms -------------------------------------------------------------------


def exp(x: Any) -> Var:
    """e ** x.  Derivative exp(x).

    >>> import graphc as gc
    >>> gc.exp([0.0, 1.0]).eval()
    array([1.        , 2.71828183])
    """
    return ops.exp(x)


def exp2(x: Any) -> Var:
    """2 ** x.  Derivative 2**x log(2).

    >>> import graphc as gc
    >>> gc.exp2([0.0, 3.0]).eval()
    array([1., 8.])
    """
    return ops.exp2(x)


def expm1(x: Any) -> Var:
    """exp(x) - 1 without cancellation near 0.  Derivative exp(x).

    >>> import graphc as gc
    >>> gc.expm1([0.0, 1e-10]).eval()
    array([0.e+00, 1.e-10])
    """
    return ops.expm1(x)


def log(x: Any) -> Var:
    """The natural logarithm; -inf at 0, nan for negative reals.  Derivative 1 / x.

    >>> import graphc as gc
    >>> gc.log([1.0, 2.0]).eval()
    array([0.        , 0.69314718])
    """
    return ops.log(x)


def log2(x: Any) -> Var:
    """The logarithm to base 2.  Derivative 1 / (x log(2)).

    >>> import graphc as gc
    >>> gc.log2([1.0, 8.0]).eval()
    array([0., 3.])
    """
    return ops.log2(x)


def log10(x: Any) -> Var:
    """The logarithm to base 10.  Derivative 1 / (x log(10)).

    >>> import graphc as gc
    >>> gc.log10([1.0, 1000.0]).eval()
    array([0., 3.])
    """
    return ops.log10(x)


def log1p(x: Any) -> Var:
    """log(1 + x) without cancellation near 0.  Derivative 1 / (1 + x).

    >>> import graphc as gc
    >>> gc.log1p([0.0, 1e-10]).eval()
    array([0.e+00, 1.e-10])
    """
    return ops.log1p(x)


def logaddexp(x1: Any, x2: Any) -> Var:
    """log(exp(x1) + exp(x2)) without overflow, real.  Derivatives: the shares of the two in the sum.

    >>> import graphc as gc
    >>> gc.logaddexp(1000.0, [1000.0, 0.0]).eval()
    array([1000.69314718, 1000.        ])
    """
    return ops.logaddexp(x1, x2)


def log1mexp(x: Any) -> Var:
    """log(1 - exp(x)) for x < 0, accurate near 0 and far from it, real; -inf at 0, nan above.

    Derivative -1 / (exp(-x) - 1).

    >>> import graphc as gc
    >>> gc.log1mexp([-1e-10, -1.0]).eval()
    array([-23.02585093,  -0.45867515])
    """
    return ops.log1mexp(x)


def sigmoid(x: Any) -> Var:
    """1 / (1 + exp(-x)) without overflow.  Derivative y (1 - y).

    >>> import graphc as gc
    >>> gc.sigmoid([0.0, 2.0, -1000.0]).eval()
    array([0.5       , 0.88079708, 0.        ])
    """
    return ops.sigmoid(x)


def softplus(x: Any) -> Var:
    """log(1 + exp(x)) without overflow, real.  Derivative sigmoid(x).

    >>> import graphc as gc
    >>> gc.softplus([0.0, 1000.0]).eval()
    array([6.93147181e-01, 1.00000000e+03])
    """
    return ops.softplus(x)


# ---- trigonometric functions -----------------------------------------------------------------------


def sin(x: Any) -> Var:
    """The sine of x radians.  Derivative cos(x).

    >>> import graphc as gc
    >>> gc.sin([0.0, 1.0]).eval()
    array([0.        , 0.84147098])
    """
    return ops.sin(x)


def cos(x: Any) -> Var:
    """The cosine of x radians.  Derivative -sin(x).

    >>> import graphc as gc
    >>> gc.cos([0.0, 1.0]).eval()
    array([1.        , 0.54030231])
    """
    return ops.cos(x)


def tan(x: Any) -> Var:
    """The tangent of x radians.  Derivative 1 + y**2.

    >>> import graphc as gc
    >>> gc.tan([0.0, 1.0]).eval()
    array([0.        , 1.55740772])
    """
    return ops.tan(x)


def asin(x: Any) -> Var:
    """The inverse sine, in [-pi/2, pi/2]; nan for reals outside [-1, 1].  Derivative 1 / sqrt(1 - x**2).

    >>> import graphc as gc
    >>> gc.asin([0.0, 1.0]).eval()
    array([0.        , 1.57079633])
    """
    return ops.asin(x)


def acos(x: Any) -> Var:
    """The inverse cosine, in [0, pi]; nan for reals outside [-1, 1].  Derivative -1 / sqrt(1 - x**2).

    >>> import graphc as gc
    >>> gc.acos([0.0, 1.0]).eval()
    array([1.57079633, 0.        ])
    """
    return ops.acos(x)


def atan(x: Any) -> Var:
    """The inverse tangent, in [-pi/2, pi/2].  Derivative 1 / (1 + x**2).

    >>> import graphc as gc
    >>> gc.atan([0.0, 1.0]).eval()
    array([0.        , 0.78539816])
    """
    return ops.atan(x)


def atan2(x1: Any, x2: Any) -> Var:
    """The angle of the point (x2, x1), in [-pi, pi], real.  Derivatives x2 / r**2 and -x1 / r**2, 0 at the origin.

    >>> import graphc as gc
    >>> gc.atan2(1.0, [1.0, -1.0]).eval()
    array([0.78539816, 2.35619449])
    """
    return ops.atan2(x1, x2)


def sinh(x: Any) -> Var:
    """The hyperbolic sine.  Derivative cosh(x).

    >>> import graphc as gc
    >>> gc.sinh([0.0, 1.0]).eval()
    array([0.        , 1.17520119])
    """
    return ops.sinh(x)


def cosh(x: Any) -> Var:
    """The hyperbolic cosine.  Derivative sinh(x).

    >>> import graphc as gc
    >>> gc.cosh([0.0, 1.0]).eval()
    array([1.        , 1.54308063])
    """
    return ops.cosh(x)


def tanh(x: Any) -> Var:
    """The hyperbolic tangent.  Derivative 1 - y**2.

    >>> import graphc as gc
    >>> gc.tanh([0.0, 1.0]).eval()
    array([0.        , 0.76159416])
    """
    return ops.tanh(x)


def asinh(x: Any) -> Var:
    """The inverse hyperbolic sine.  Derivative 1 / sqrt(1 + x**2).

    >>> import graphc as gc
    >>> gc.asinh([0.0, 1.0]).eval()
    array([0.        , 0.88137359])
    """
    return ops.asinh(x)


def acosh(x: Any) -> Var:
    """The inverse hyperbolic cosine; nan for reals below 1.  Derivative 1 / sqrt(x**2 - 1).

    >>> import graphc as gc
    >>> gc.acosh([1.0, 2.0]).eval()
    array([0.       , 1.3169579])
    """
    return ops.acosh(x)


def atanh(x: Any) -> Var:
    """The inverse hyperbolic tangent; infinite at -1 and 1, nan for reals beyond.  Derivative 1 / (1 - x**2).

    >>> import graphc as gc
    >>> gc.atanh([0.0, 0.5]).eval()
    array([0.        , 0.54930614])
    """
    return ops.atanh(x)


# ---- special functions -----------------------------------------------------------------------------


def erf(x: Any) -> Var:
    """The error function 2/sqrt(pi) * integral of exp(-t**2) from 0 to x, real.

    >>> import graphc as gc
    >>> gc.erf([0.0, 1.0]).eval()
    array([0.        , 0.84270079])
    """
    return special.erf(x)


def erfc(x: Any) -> Var:
    """1 - erf(x), accurate where it is tiny, real.

    >>> import graphc as gc
    >>> gc.erfc([0.0, 10.0]).eval()
    array([1.00000000e+00, 2.08848758e-45])
    """
    return special.erfc(x)


def erfinv(x: Any) -> Var:
    """The inverse of erf, real; infinite at -1 and 1, nan beyond.  Derivative sqrt(pi)/2 * exp(y**2).

    >>> import graphc as gc
    >>> gc.erfinv([0.0, 0.5]).eval()
    array([0.        , 0.47693628])
    """
    return special.erfinv(x)


def gammaln(x: Any) -> Var:
    """log |gamma(x)|, real; inf at 0 and the negative integers.  Derivative digamma(x).

    >>> import graphc as gc
    >>> gc.gammaln([1.0, 5.0]).eval()
    array([0.        , 3.17805383])
    """
    return special.gammaln(x)


def digamma(x: Any) -> Var:
    """The derivative of gammaln, real; nan at the negative integers.  Derivative polygamma(1, x).

    >>> import graphc as gc
    >>> gc.digamma([1.0, 2.0]).eval()
    array([-0.57721566,  0.42278434])
    """
    return special.digamma(x)


def polygamma(order: int, x: Any) -> Var:
    """The ``order``-th derivative of digamma, real; ``order`` is a Python int, 0 or more.

    >>> import graphc as gc
    >>> gc.polygamma(1, [1.0, 2.0]).eval()
    array([1.64493407, 0.64493407])
    """
    return special.digamma(x) if order == 0 else special.polygamma(x, order=order)


def xlogy(x1: Any, x2: Any) -> Var:
    """x1 * log(x2), and 0 where x1 is 0 (unless x2 is nan), real.  Derivatives log(x2) and x1 / x2 (0 where x1 is 0).

    >>> import graphc as gc
    >>> gc.xlogy([0.0, 2.0], [0.0, 3.0]).eval()
    array([0.        , 2.19722458])
    """
    return special.xlogy(x1, x2)


arcsin = asin
arccos = acos
arctan = atan
arctan2 = atan2
arcsinh = asinh
arccosh = acosh
arctanh = atanh
psi = digamma


__all__ = [
    "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan", "atan2",
    "atanh", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "gammaln", "hypot", "log", "log1mexp",
    "log1p", "log2", "log10", "logaddexp", "polygamma", "pow", "power", "psi", "sigmoid", "sin", "sinh", "softplus", "sqrt", "tan",
    "tanh", "xlogy",
]
