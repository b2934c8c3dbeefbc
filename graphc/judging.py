"""Is a value that differs from the reference wrong, or is the reference itself not to be trusted there?

A rewrite may change rounding, and a stabilised one changes values that the expression as
written computes badly.  So a difference is judged by two more evaluations of the reference:
in wider floats, and several times with a little noise on every node that rounds.  What agrees
with the wide value, or lies within what the noise does, is no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc import dtypes
from graphc.dims import Symbol
from graphc.ir import Array, BoundGraph, Graph, Node, Var, concrete, normal

#: relative difference that rounding may make
TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-4, "complex64": 1e-4, "float64": 1e-9, "complex128": 1e-9}
_WIDER = {"float16": "float64", "bfloat16": "float64", "float32": "float64", "float64": "longdouble",
          "complex64": "complex128", "complex128": "clongdouble"}
_EPS = {"float16": 2.0 ** -10, "bfloat16": 2.0 ** -7, "float32": 2.0 ** -23, "float64": 2.0 ** -52,
        "complex64": 2.0 ** -23, "complex128": 2.0 ** -52}
_SMALLEST = {"float16": 2.0 ** -24, "bfloat16": 2.0 ** -133, "float32": 2.0 ** -149, "float64": 2.0 ** -1074,
             "complex64": 2.0 ** -149, "complex128": 2.0 ** -1074}
_SAMPLES = 6

#: ops that round nothing: noise on them would only break ties
_EXACT = frozenset({"abs", "ceil", "clip", "conj", "copysign", "floor", "imag", "maximum", "minimum", "neg", "positive", "real",
                    "relu", "round", "sign", "trunc", "where"})
_ROUNDING_KINDS = frozenset({"elementwise", "reduction", "contraction", "control", "custom"})


class Judge:
    """Knows, for one graph and one call, where the values of the reference can be relied on.

    The graph has no placeholders; ``arguments`` are one array per input, then one per shared variable.
    ``shake`` puts noise on these too: for derivatives, which at a kink are a matter of convention.
    ``stabilised``: rules made inner values better, so a NaN may have become any number, and a rounded
    zero may have either sign.
    """

    def __init__(self, graph: Graph, arguments: Sequence[Array], env: Mapping[Symbol, int], *, shake: bool = False,
                 stabilised: bool = False) -> None:
        self.graph, self.arguments, self.env, self.shake, self.stabilised = graph, list(arguments), env, shake, stabilised
        self._wide: list[Array] | None = None
        self._noisy: list[list[Array]] | None = None

    def difference(self, root: int, want: Array, have: Array) -> str | None:
        """Why ``have`` cannot stand for the reference's value of a root; None if it can."""
        if want.dtype != have.dtype or want.shape != have.shape:
            return f"{want.dtype}{list(want.shape)} became {have.dtype}{list(have.shape)}"
        bad = self._bad(root, want, have)
        if not bad.any():
            return None
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        return f"at index {index} {want[index]!r} became {have[index]!r}"

    def wide(self, root: int) -> Array | None:
        """The value of a root in wider floats, in its own dtype; None where it cannot be had."""
        self._evaluated()
        return None if self._wide is None else self._wide[root].astype(self.graph.roots[root].type.dtype)

    def _bad(self, root: int, want: Array, have: Array) -> Array:
        bad = differing(want, have)
        if not bad.any():
            return bad
        samples = [s[root] for s in self._evaluated()]
        if any(s.shape != want.shape for s in samples):  # sizes that hang on rounded values
            return np.zeros_like(bad)
        if not dtypes.is_inexact(want.dtype):
            for s in samples:
                bad &= s == want
            return bad
        wide = self._wide[root] if self._wide is not None else None
        with np.errstate(all="ignore"):
            if wide is not None and wide.shape == want.shape:
                bad &= differing(wide.astype(want.dtype), have)
            w, h = _double(want), _double(have)
            if self.stabilised:
                bad &= ~np.isnan(w)
            spread = np.zeros(want.shape)
            for s in samples:
                bad &= (np.isfinite(s) & np.isfinite(w)) | _same_special(s, w)
                spread = np.maximum(spread, np.where(np.isfinite(s) & np.isfinite(w), np.abs(_double(s) - w), 0))
            noise = 100 * spread + float(np.max(spread, initial=0.0))  # elements of one array are much alike
            bad &= ~(np.abs(w - h) <= TOLERANCE[want.dtype.name] * _scale(w) + noise)
        return bad

    def _evaluated(self) -> list[list[Array]]:
        if self._noisy is None:
            try:
                self._wide = _evaluate(self.graph, self.arguments, self.env, None)
            except Exception:  # an op that has no wide form
                self._wide = None
            self._noisy = []
            for k in range(_SAMPLES):
                noise = np.random.default_rng(k)
                arguments = [_moved(a, noise) for a in self.arguments] if self.shake else self.arguments
                self._noisy.append(_evaluate(self.graph, arguments, self.env, noise, self.stabilised))
        return self._noisy


def close(want: Array, have: Array) -> bool:
    """Equal up to rounding, so that no judge is needed?"""
    return want.dtype == have.dtype and want.shape == have.shape and not differing(want, have).any()


def differing(want: Array, have: Array) -> Array:
    """Which elements differ by more than rounding.  Finite where the reference is not counts as better."""
    if not dtypes.is_inexact(want.dtype):
        return np.asarray(want != have)
    w, h = _double(want), _double(have)
    with np.errstate(all="ignore"):
        if w.dtype.kind == "c":
            same = _same(w.real, h.real) & _same(w.imag, h.imag)
        else:
            same = _same(w, h)
        close = np.isfinite(w) & (np.abs(w - h) <= TOLERANCE[want.dtype.name] * _scale(w) + 8 * _SMALLEST[want.dtype.name])
        better = ~np.isfinite(w) & np.isfinite(h)
    return np.asarray(~(same | close | better))


def _same(w: Array, h: Array) -> Array:
    return np.asarray((w == h) | (np.isnan(w) & np.isnan(h)))


def _same_special(s: Array, w: Array) -> Array:
    """Both NaN, or the same infinity."""
    return np.asarray((np.isnan(s) & np.isnan(w)) | (np.isinf(s) & (s == w)))


def _double(a: Array) -> Array:
    return np.asarray(a, np.complex128 if a.dtype.kind == "c" else np.float64)


def _scale(w: Array) -> float:
    return float(np.max(np.abs(np.where(np.isfinite(w), w, 0)), initial=0.0))


def _evaluate(graph: Graph, arguments: Sequence[Array], env: Mapping[Symbol, int], noise: np.random.Generator | None,
              signs: bool = False) -> list[Array]:
    """The roots with noise of a few ulp on every node that rounds; without ``noise`` in wider floats.

    ``signs``: zeros that a node rounded to take either sign.
    """
    def shown(array: Array) -> Array:
        return array.astype(_WIDER[array.dtype.name]) if noise is None and array.dtype.name in _WIDER else array

    values: dict[Var, Array] = {v: shown(a) for v, a in zip((*graph.inputs, *graph.shared), arguments, strict=True)}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            results = normal(node.op.forward(*[values[v] for v in node.inputs], **_attrs(concrete(node.attrs, env), noise is None)))
            for v, result in zip(node.outputs, results, strict=True):
                array = np.asarray(result)
                if noise is not None and _rounds(node) and array.dtype.name in _EPS:
                    array = _shaken(array, noise)
                    if signs and array.dtype.kind == "f":
                        array = np.where((array == 0) & (noise.random(array.shape) < 0.5), -array, array)
                values[v] = shown(array)
    return [values[v] for v in graph.roots]


def _shaken(array: Array, noise: np.random.Generator) -> Array:
    factor = 1 + 4 * _EPS[array.dtype.name] * noise.uniform(-1, 1, array.shape)
    if array.dtype.kind == "c":  # part by part: inf stays where it is
        moved = array.copy()
        moved.real, moved.imag = array.real * factor, array.imag * factor
        return moved
    return np.asarray(_double(array) * factor).astype(array.dtype)


def _moved(array: Array, noise: np.random.Generator) -> Array:
    """An argument with noise that takes zeros and ties apart."""
    if array.dtype.name not in _EPS or array.dtype.kind == "V":
        return array
    moved = _shaken(array, noise)
    scale = _EPS[array.dtype.name] * (_scale(_double(array)) or 1.0)
    return np.asarray(moved + np.asarray(scale * noise.uniform(-1, 1, array.shape)).astype(array.dtype))


def _attrs(attrs: Mapping[str, Any], wide: bool) -> Mapping[str, Any]:
    if not wide:
        return attrs
    if any(isinstance(v, BoundGraph) for v in attrs.values()):
        raise TypeError("inner graphs check the dtypes of their values")
    return {k: np.dtype(_WIDER[v.name]) if isinstance(v, np.dtype) and v.name in _WIDER else v for k, v in attrs.items()}


def _rounds(node: Node) -> bool:
    if node.op.name == "cast":  # to fewer digits?
        have, made = node.inputs[0].type.dtype, node.outputs[0].type.dtype
        return dtypes.is_inexact(made) and have != made and not (dtypes.is_inexact(have) and dtypes.promote(have, made) == made)
    return node.op.kind in _ROUNDING_KINDS and node.op.name not in _EXACT


__all__ = ["TOLERANCE", "Judge", "close", "differing"]
