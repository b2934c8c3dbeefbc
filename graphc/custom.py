"""The user's own ops: ``class MyOp(gc.Op)`` and ``@gc.op``.  They work in every backend, through ``forward``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc import ir
from graphc.errors import GradientError, GraphcTypeError
from graphc.ir import Type, Var, make_node, normal
from graphc.ops.core import as_var
from graphc.ops.placeholders import zeros_of


class Op(ir.Op):
    """An op declared by the user.

    Define ``infer(*types) -> types``, ``forward(*arrays) -> arrays`` (NumPy) and, to be
    differentiated, ``bprop(inputs, outputs, cotangents) -> gradients`` (symbolic).  Each gives a
    list, or a single value where there is one; ``bprop`` is handed lists, and again with
    single values where its inputs or outputs are only one if it cannot work with lists.

    >>> import numpy as np, graphc as gc
    >>> class Cube(gc.Op):
    ...     def infer(self, x): return x
    ...     def forward(self, x): return x ** 3
    ...     def bprop(self, inputs, outputs, cotangents):
    ...         (x,), (g,) = inputs, cotangents
    ...         return [3 * x ** 2 * g]
    >>> x = gc.scalar("x")
    >>> f = gc.function([x], gc.grad(Cube()(x), x))
    >>> float(f(2.0))
    12.0
    """

    nout = -1

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    def __call__(self, *inputs: Any) -> Any:
        """Apply the op: one variable, or a list of them where ``infer`` gives several types."""
        outputs = make_node(self, [as_var(x) for x in inputs]).outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def differentiable(self) -> bool:
        return type(self).bprop is not ir.Op.bprop

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        return _call_bprop(self, inputs, outputs, cotangents)[position]  # type: ignore[no-any-return]  # what is not asked for is dead code


def _call_bprop(op: Op, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var | None]) -> tuple[Any, ...]:
    given = [zeros_of(y) if g is None else g for y, g in zip(outputs, cotangents, strict=True)]
    attempts: list[tuple[Any, Any, Any]] = [(list(inputs), list(outputs), list(given))]
    if len(inputs) == 1 or len(outputs) == 1:
        one_in, one_out = len(inputs) == 1, len(outputs) == 1
        attempts += [(inputs[0] if one_in and i else list(inputs), outputs[0] if one_out else list(outputs), given[0] if one_out else list(given))
                     for i in ((1, 0) if one_in else (0,))]
    first: Exception | None = None
    for attempt in attempts:
        try:
            result = normal(op.bprop(*attempt))
        except (TypeError, AttributeError) as error:
            first = first or error
            continue
        if len(result) == len(inputs) and all(g is None or isinstance(g, Var) for g in result):
            return tuple(result)
        first = first or GradientError(f"bprop of op {op.name} gave {len(result)} gradient(s) for {len(inputs)} input(s): "
                                       "one expression or None for each input is expected")
    assert first is not None
    raise first


class _FunctionOp(Op):
    """What ``@gc.op`` makes."""

    def __init__(self, function: Callable[..., Any], infer: Callable[..., Any] | None, bprop: Callable[..., Any] | None, name: str | None) -> None:
        self.name = str(name or getattr(function, "__name__", "op"))
        self.__doc__ = function.__doc__
        self._forward, self._infer, self._bprop = function, infer, bprop

    def infer(self, *types: Type, **_: Any) -> Any:
        if self._infer is not None:
            return self._infer(*types)
        if not types:
            raise GraphcTypeError("an op without inputs must say its type: @gc.op(infer=lambda: gc.Type(...))")
        return types[0]

    def forward(self, *arrays: Any, **_: Any) -> Any:
        return self._forward(*arrays)

    def bprop(self, inputs: Any, outputs: Any, cotangents: Any, **_: Any) -> Any:
        assert self._bprop is not None
        return self._bprop(inputs, outputs, cotangents)

    def differentiable(self) -> bool:
        return self._bprop is not None


def op(function: Callable[..., Any] | None = None, *, infer: Callable[..., Any] | None = None,
       bprop: Callable[..., Any] | None = None, name: str | None = None) -> Any:
    """Make an op from a NumPy function.

    Args:
        function: ``(*arrays) -> array`` or a list of them.
        infer: ``(*types) -> type(s)``; by default the result has the type of the first input.
        bprop: ``(inputs, outputs, cotangents) -> gradients``; without it the op cannot be differentiated.
        name: shown in dumps; the function's name by default.

    >>> import numpy as np, graphc as gc
    >>> @gc.op(bprop=lambda inputs, outputs, cotangents: [cotangents[0] * gc.cos(inputs[0])])
    ... def my_sin(x):
    ...     return np.sin(x)
    >>> x = gc.scalar("x")
    >>> float(gc.function([x], gc.grad(my_sin(x), x))(0.0))
    1.0
    """
    if function is None:
        return lambda f: _FunctionOp(f, infer, bprop, name)
    return _FunctionOp(function, infer, bprop, name)
