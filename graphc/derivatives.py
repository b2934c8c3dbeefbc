"""Derivatives as the user asks for them.  Each leaves a typed placeholder; the pass ``gradient`` fills it in.

Whatever can be known to be wrong (a cost that is no real scalar, a disconnected
variable, an op without gradient) is said here, where the user stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.capture import pairs
from graphc.compiled import function
from graphc.compiling import Mode
from graphc.dims import product
from graphc.errors import GradientError, GraphcTypeError, GraphcValueError, here, warn
from graphc.functions.shaping import reshape
from graphc.ir import Node, Type, Var, apply, leaves, make_node, normal, rebuild, toposort
from graphc.ops.core import as_var, cast, dim_op, shape_of, size_args
from graphc.ops.indexing import index
from graphc.ops.looping import close, each_op, loop_variable
from graphc.ops.placeholders import (
    disconnected_grad_op,
    grad_clip_op,
    grad_scale_op,
    gradient_op,
    mark_op,
    ones_of,
    tangent_op,
    zero_grad_op,
)


def grad(cost: Any, wrt: Any, *, consider_constant: Any = None, disconnected_inputs: str = "raise", known_grads: Any = None,
         return_disconnected: str = "zero") -> Any:
    """The gradient of a real scalar: one expression per variable, of the variable's type.

    Args:
        cost: a real scalar, or None where ``known_grads`` says where to start.
        wrt: a variable or a list; the result is alike.
        consider_constant: expressions that are not differentiated through.
        disconnected_inputs: "raise", "warn" or "ignore": what if the cost does not depend on a wrt.
        known_grads: ``{variable: its gradient}`` or pairs: where the sweep starts or is cut off.
        return_disconnected: "zero" or "none": what a disconnected wrt gives.

    Raises:
        TypeError: a cost that is no real scalar, a wrt that is no float or complex variable.
        GradientError: a disconnected wrt; an op without gradient on the way (named, with the path).

    Reverse mode, Algorithms 6.5 and 6.6 of the *Deep Learning* book.  At kinks relu'(0) =
    abs'(0) = sign'(0) = 0, and ties of max and min share equally.  For complex x, dC/dRe + i dC/dIm.

    >>> import graphc as gc
    >>> x = gc.scalar("x")
    >>> f = gc.function([x], gc.grad(x ** 2, x))
    >>> float(f(3.0))
    6.0
    """
    _choice("disconnected_inputs", disconnected_inputs, ("raise", "warn", "ignore"))
    _choice("return_disconnected", return_disconnected, ("zero", "none"))
    many = isinstance(wrt, (list, tuple))
    targets = _wrt(wrt)
    known = _known(known_grads)
    if cost is None and not known:
        raise GraphcTypeError("grad: cost is None and there are no known_grads to start from")
    seeds: list[tuple[Var, Var]] = list(known)
    if cost is not None:
        cost = as_var(cost)
        _check_cost(cost)
        if not any(v is cost for v, _ in known):
            seeds.insert(0, (cost, ones_of(cost)))
    results = _reverse("grad", seeds, targets, _list(consider_constant), disconnected_inputs, return_disconnected)
    return results if many else results[0]


def vjp(f: Any, wrt: Any, cotangents: Any, *, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """Vector-Jacobian products: ``cotangents`` (one per f, of its type) times df/dwrt.  Theano's ``Lop``.

    >>> import graphc as gc
    >>> x, c = gc.vectors("x", "c")
    >>> g = gc.function([x, c], gc.vjp(x * x, x, c))
    >>> g([1.0, 2.0], [10.0, 1.0])
    array([20.,  4.])
    """
    fs, cs = _list(f), _list(cotangents)
    if len(fs) != len(cs):
        raise GraphcValueError(f"vjp: {len(fs)} expression(s) and {len(cs)} cotangent(s)")
    many = isinstance(wrt, (list, tuple))
    fs = [as_var(y) for y in fs]
    seeds = [(y, _like(c, y, "vjp: the cotangent")) for y, c in zip(fs, cs, strict=True)]
    if len(fs) > 1:  # each starts from a mark of its own: one that lies behind another is not cut off there
        first = _next_mark([*fs, *_wrt(wrt)])
        seeds = [(apply(mark_op, y, which=first + k), c) for k, (y, c) in enumerate(seeds)]
    results = _reverse("vjp", seeds, _wrt(wrt), _list(consider_constant), disconnected_inputs, "zero")
    return results if many else results[0]


def jvp(f: Any, wrt: Any, tangents: Any) -> Any:
    """Jacobian-vector products: df/dwrt times ``tangents`` (one per wrt, of its type).  Forward mode; Theano's ``Rop``.

    >>> import graphc as gc
    >>> x, t = gc.vectors("x", "t")
    >>> g = gc.function([x, t], gc.jvp(x * x, x, t))
    >>> g([1.0, 2.0], [10.0, 1.0])
    array([20.,  4.])
    """
    fs = [as_var(y) for y in _list(f)]
    targets, ts = _wrt(wrt), _list(tangents)
    if len(targets) != len(ts):
        raise GraphcValueError(f"jvp: {len(targets)} variable(s) and {len(ts)} tangent(s)")
    ts = [_like(t, w, "jvp: the tangent") for t, w in zip(ts, targets, strict=True)]
    for y in fs:
        if not dtypes.is_inexact(y.type.dtype):
            raise GraphcTypeError(f"jvp: {y.describe()} is not differentiable: its dtype is {y.type.dtype}")
    fs, targets = _marked(fs, targets)
    _check_path("jvp", fs, targets, "ignore")
    node = make_node(tangent_op, [*fs, *targets, *ts], {"results": len(fs)})
    return list(node.outputs) if isinstance(f, (list, tuple)) else node.outputs[0]


def jacobian(expr: Any, wrt: Any, *, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """The derivatives of every element: shape ``expr.shape + wrt.shape``.

    One row at a time, in one loop over the elements of ``expr``; what does not change from row to
    row is computed once.

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> gc.function([x], gc.jacobian(x ** 2, x))([1.0, 2.0])
    array([[2., 0.],
           [0., 4.]])
    """
    y = as_var(expr)
    if not dtypes.is_float(y.type.dtype):
        raise GraphcTypeError(f"jacobian: the expression is real; got {y.describe()}")
    many = isinstance(wrt, (list, tuple))
    targets = _wrt(wrt)
    if y.type.ndim == 0:
        rows = _reverse("jacobian", [(y, ones_of(y))], targets, _list(consider_constant), disconnected_inputs, "zero")
        return rows if many else rows[0]
    expressions, cut = _constants_cut([y], targets, _list(consider_constant))
    expressions, marked = _marked(expressions, cut)
    _check_path("jacobian", expressions, marked, disconnected_inputs)
    i = loop_variable()
    flat = reshape(expressions[0], (-1,))
    row = index(flat, i)
    g = make_node(gradient_op, [row, ones_of(row), *marked], {"seeds": 1}).outputs
    marks = [m for m, w in zip(marked, cut, strict=True) if m is not w]
    outside = list(dict.fromkeys([*marks, *(v for v in leaves([*g]) if v is not i)]))
    body, kept = close(g, [i], outside, "jacobian")
    unmarked = dict(zip(marked, cut, strict=True))
    shape, operands = size_args([_elements(y)], "jacobian")
    node = make_node(each_op, [*(unmarked.get(v, v) for v in kept), *operands], {"body": body, "shape": shape})
    results = [reshape(r, (*shape_of(y), *shape_of(w))) for r, w in zip(node.outputs, targets, strict=True)]
    return results if many else results[0]


def _elements(y: Var) -> Any:
    sizes = shape_of(y)
    if not any(isinstance(s, Var) for s in sizes):
        return product(sizes)
    total: Any = 1
    for s in sizes:
        if isinstance(s, Var):
            total = s * total
        else:
            total = (s if isinstance(s, int) else apply(dim_op, size=s)) * total
    return total


def hessian(cost: Any, wrt: Any, *, consider_constant: Any = None, disconnected_inputs: str = "raise") -> Any:
    """Second derivatives of a real scalar: shape ``wrt.shape + wrt.shape``; a list for a list (no mixed blocks).

    >>> import graphc as gc
    >>> x = gc.vector("x")
    >>> gc.function([x], gc.hessian((x ** 3).sum(), x))([1.0, 2.0])
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    many = isinstance(wrt, (list, tuple))
    results = []
    for w in _wrt(wrt):
        g = grad(cost, w, consider_constant=consider_constant, disconnected_inputs=disconnected_inputs)
        results.append(jacobian(g, w, consider_constant=consider_constant, disconnected_inputs="ignore"))
    return results if many else results[0]


def hessian_vector_product(cost: Any, wrt: Any, v: Any) -> Any:
    """The Hessian times ``v`` (one per wrt, of its type), without the Hessian: forward mode over the gradient.

    >>> import graphc as gc
    >>> x, v = gc.vectors("x", "v")
    >>> gc.function([x, v], gc.hessian_vector_product((x ** 3).sum(), x, v))([1.0, 2.0], [1.0, 1.0])
    array([ 6., 12.])
    """
    return jvp(grad(cost, wrt), wrt, v)


# ---- identities with another gradient -----------------------------------------------------------


def disconnected_grad(x: Any) -> Var:
    """``x``, through which no derivative flows: the cost counts as disconnected from what is behind it."""
    return apply(disconnected_grad_op, as_var(x))


def zero_grad(x: Any) -> Var:
    """``x``, whose derivative is zero (but connected)."""
    return apply(zero_grad_op, as_var(x))


def grad_clip(x: Any, lo: float, hi: float) -> Var:
    """``x``; the cotangent that flows back through it is clipped to [lo, hi], element by element."""
    if not float(lo) <= float(hi):
        raise GraphcValueError(f"grad_clip: lo = {lo} is not <= hi = {hi}")
    v = as_var(x)
    if dtypes.is_complex(v.type.dtype):
        raise GraphcTypeError(f"grad_clip: complex numbers have no order; got {v.describe()}: clip the real and the imaginary part")
    return apply(grad_clip_op, v, lo=float(lo), hi=float(hi))


def grad_scale(x: Any, k: float) -> Var:
    """``x``; the cotangent that flows back through it is multiplied by ``k``."""
    return apply(grad_scale_op, as_var(x), factor=float(k))


# ---- the checks ---------------------------------------------------------------------------------


def _choice(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise GraphcValueError(f"grad: {name}={value!r}; expected one of {', '.join(map(repr, allowed))}")


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]


def _wrt(wrt: Any) -> list[Var]:
    targets = _list(wrt)
    for w in targets:
        if not isinstance(w, Var):
            raise GraphcTypeError(f"the gradient is taken with respect to variables of the graph; got {w!r}")
        if not dtypes.is_inexact(w.type.dtype):
            raise GraphcTypeError(f"the gradient with respect to {w.describe()} does not exist: its dtype {w.type.dtype} is not continuous")
    return targets


def _check_cost(cost: Var) -> None:
    if cost.type.ndim != 0:
        raise GraphcTypeError(f"grad: the cost is a scalar; got {cost.describe()}, of rank {cost.type.ndim}: "
                              "reduce it with .sum() or .mean(), or use gc.jacobian")
    if not dtypes.is_float(cost.type.dtype):
        raise GraphcTypeError(f"grad: the cost is a real float; got {cost.describe()}, of dtype {cost.type.dtype}")


def _known(known_grads: Any) -> list[tuple[Var, Var]]:
    result = []
    for v, g in pairs(known_grads, "known_grads"):
        if not isinstance(v, Var):
            raise GraphcTypeError(f"known_grads: a key is a variable of the graph; got {v!r}")
        result.append((v, _like(g, v, "known_grads: the gradient")))
    return result


def _like(value: Any, v: Var, what: str) -> Var:
    g = as_var(value)
    if g.type.ndim != v.type.ndim or any(
            isinstance(a, int) and isinstance(b, int) and a != b for a, b in zip(g.type.shape, v.type.shape, strict=True)):
        raise GraphcTypeError(f"{what} of {v.describe()} has its shape; got {g.describe()}")
    if g.type.dtype != v.type.dtype:
        if not dtypes.is_inexact(v.type.dtype):
            raise GraphcTypeError(f"{what}: {v.describe()} is not differentiable: its dtype is {v.type.dtype}")
        g = cast(g, v.type.dtype)
    return g


def _reverse(what: str, seeds: list[tuple[Var, Var]], targets: list[Var], constants: list[Any], disconnected: str, absent: str) -> list[Any]:
    """One gradient placeholder, after the checks."""
    starts, targets = _constants_cut([v for v, _ in seeds], targets, constants)
    # a start inside the graph of another one cuts it off there: mark it, like a wrt
    inner = [v for v in starts if v.node is not None] if len(starts) > 1 else []
    cut = list(dict.fromkeys([*targets, *inner]))
    starts, marked = _marked(starts, cut)
    table = dict(zip(cut, marked, strict=True))
    marked = [table[w] for w in targets]
    connected = _check_path(what, starts, marked, disconnected)
    node = make_node(gradient_op, [*starts, *(g for _, g in seeds), *marked], {"seeds": len(starts)})
    results: list[Any] = list(node.outputs)
    for w, r in zip(targets, results, strict=True):
        r.name = f"d_{w.name}" if w.name else None
    if absent == "none":
        results = [r if ok else None for r, ok in zip(results, connected, strict=True)]
    return results


def _marked(expressions: Sequence[Var], targets: Sequence[Var]) -> tuple[list[Var], list[Var]]:
    """Put a mark around each computed variable that is differentiated with respect to.

    Otherwise a rewrite that looks through it (log(softmax(x)) with respect to the softmax) would
    take it off the path of the derivative.  Leaves need none.
    """
    table: dict[Var, Var] = {}
    wanted = {w for w in targets if w.node is not None}
    if not wanted:
        return list(expressions), list(targets)
    which = _next_mark([*expressions, *targets])
    for node in toposort(targets):  # operands first: a mark may stand behind another mark
        for v in node.outputs:
            if v in wanted:
                inner, = rebuild([v], table) if table else [v]
                table[v] = apply(mark_op, inner, which=which)
                which += 1
    new = rebuild(list(expressions), table)
    return new, [table.get(w, w) for w in targets]


def _unmarked(v: Var) -> Var:
    while v.node is not None and v.node.op is mark_op:
        v = v.node.inputs[0]
    return v


def _next_mark(roots: Sequence[Var]) -> int:
    """A number that no mark among the ancestors has."""
    return max((node.attrs.get("which", 0) + 1 for node in toposort(roots) if node.op is mark_op), default=0)


def _constants_cut(expressions: Sequence[Var], targets: Sequence[Var], constants: Sequence[Any]) -> tuple[list[Var], list[Var]]:
    """``consider_constant``: cut the constants off, in the expressions and in computed targets."""
    table = {as_var(c): apply(disconnected_grad_op, as_var(c)) for c in constants}
    new = rebuild([*expressions, *targets], table) if table else [*expressions, *targets]
    return new[:len(expressions)], new[len(expressions):]


def _check_path(what: str, starts: Sequence[Var], targets: Sequence[Var], disconnected: str) -> list[bool]:
    """Which targets are connected; errors for disconnected ones and for ops without gradient on the way."""
    inside: dict[Var, Node | None] = dict.fromkeys(targets)  # -> a node on a path from a target
    order = toposort(starts)
    for node in order:
        via = next((i for i, v in enumerate(node.inputs) if v in inside and node.op.connected(i, node)), None)
        if via is not None:
            for y in node.outputs:
                inside.setdefault(y, node)
    # backwards: which of those does a start need?
    needed: set[Var] = set(starts)
    for node in reversed(order):
        if any(y in needed for y in node.outputs) and any(y in inside for y in node.outputs):
            used = [v for i, v in enumerate(node.inputs) if v in inside and node.op.connected(i, node)]
            if used and not node.op.differentiable():
                raise GradientError(
                    f"{what}: op {node.op.name} (made at {node.origin}) has no gradient, and lies on the path "
                    f"{_path(node, inside, targets, order, starts)}; define its bprop, or cut the path with gc.disconnected_grad", here())
            needed.update(used)
    connected = [w in needed for w in targets]
    for w, ok in zip(targets, connected, strict=True):
        if not ok and disconnected != "ignore":
            message = (f"{what}: {', '.join(_unmarked(v).describe() for v in starts[:2])} does not depend on {_unmarked(w).describe()} through differentiable ops; "
                       "pass disconnected_inputs='ignore' to take it as zero")
            if disconnected == "raise":
                raise GradientError(message, here())
            warn(message)
    return connected


def _path(node: Node, inside: Mapping[Var, Node | None], targets: Sequence[Var], order: Sequence[Node], starts: Sequence[Var]) -> str:
    """``x -> exp -> myop -> sum``: from a target through ``node`` to a start."""
    back: list[str] = []
    v: Var | None = next(x for i, x in enumerate(node.inputs) if x in inside and node.op.connected(i, node))
    while v is not None:
        made = inside[v]
        back.append(v.name or (made.op.name if made is not None else "a variable"))
        v = None if made is None else next((x for i, x in enumerate(made.inputs) if x in inside and made.op.connected(i, made)), None)
    forward = [node.op.name]
    reached = set(node.outputs)
    for later in order:
        if any(x in reached for x in later.inputs) and not any(y in reached for y in later.outputs):
            reached.update(later.outputs)
            forward.append(later.op.name)
            if any(any(y is s for s in starts) for y in later.outputs):
                break
    names = [*reversed(back), *forward]
    return " -> ".join(names if len(names) <= 9 else [*names[:4], "...", *names[-4:]])


# ---- numeric check ------------------------------------------------------------------------------


def verify_grad(fn: Any, points: Sequence[Any], *, eps: float | None = None, abs_tol: float | None = None,
                rel_tol: float | None = None, rng: Any = None) -> None:
    """Compare the symbolic gradient of ``fn`` with central differences along random projections.

    Args:
        fn: ``(*variables) -> expression``.
        points: float arrays, one per argument, where the comparison is made.
        eps: step; a cube root of the dtype's precision by default.
        abs_tol, rel_tol: an element passes if either error is below its tolerance.
        rng: a NumPy Generator; a fixed seed by default.

    Raises:
        GradientError: names the argument, the index, both numbers.

    >>> import graphc as gc
    >>> gc.verify_grad(lambda x: gc.exp(x) * x, [[0.5, 1.0]])
    """
    rng = np.random.default_rng(0) if rng is None else rng
    for k, p in enumerate(points):
        if np.asarray(p).dtype.kind == "c":
            raise GraphcTypeError(f"verify_grad: argument {k} is complex; give its real and imaginary parts as two arguments, and join them in fn")
    arrays = [np.array(p, dtype=None if np.asarray(p).dtype.kind in "f" else "float64") for p in points]
    least = min((a.dtype for a in arrays), key=lambda d: d.itemsize, default=np.dtype("float64"))
    eps = float(np.finfo(least).eps ** (1 / 3)) if eps is None else eps
    tolerance = {2: 1e-1, 4: 1e-2, 8: 1e-5}[least.itemsize]
    abs_tol = tolerance if abs_tol is None else abs_tol
    rel_tol = tolerance if rel_tol is None else rel_tol
    variables = [Var(_array_type(a), name=f"x{i}", origin=here()) for i, a in enumerate(arrays)]
    results = normal(fn(*variables))
    if len(results) != 1:
        raise GraphcTypeError(f"verify_grad: fn gives one expression; got {len(results)}")
    y = as_var(results[0])
    mode = Mode(backend="numpy")
    value = function(variables, y, on_unused_input="ignore", mode=mode)
    projection = rng.uniform(0.5, 1.5, value(*arrays).shape).astype(y.type.dtype)
    cost = (y * projection).sum()
    gradients = function(variables, grad(cost, variables, disconnected_inputs="ignore"), on_unused_input="ignore", mode=mode)(*arrays)
    for k, (a, g) in enumerate(zip(arrays, gradients, strict=True)):
        for i in np.ndindex(a.shape):
            sides = []
            for sign in (1.0, -1.0):
                moved = [b.copy() for b in arrays]
                moved[k][i] += sign * eps
                sides.append((float((value(*moved).astype("float64") * projection).sum()), float(moved[k][i])))
            numeric = (sides[0][0] - sides[1][0]) / (sides[0][1] - sides[1][1])
            error = abs(numeric - float(g[i]))
            if not (error <= abs_tol or error <= rel_tol * max(abs(numeric), abs(float(g[i])))):
                raise GradientError(f"verify_grad: argument {k}, index {i}: symbolic {float(g[i])!r}, numeric {numeric!r} (eps {eps:g})")


def _array_type(a: Any) -> Any:
    return Type(dtypes.as_dtype(a.dtype), a.shape)


Lop = vjp
Rop = jvp

__all__ = [
    "Lop", "Rop", "disconnected_grad", "grad", "grad_clip", "grad_scale", "hessian", "hessian_vector_product", "jacobian",
    "jvp", "verify_grad", "vjp", "zero_grad",
]
