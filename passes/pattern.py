"""Rules as data, and the matcher.

    Rule("log1p", lambda x: log(add(1, x)), lambda x: log1p(x), phase="stable", note="...")

Both sides are written with the op builders, as a user would write them.  The names of
their parameters say what they stand for:

    x, y, a, b ...   any value
    c, d             a bool value
    i, j             an integer value
    z                a complex value
    k, m             a constant all of whose elements are the same; the right side gets it as a scalar
    axes             the attributes (axis, keepdims) of a reduction: ``axes.sum(x)`` on either side; on the left
                     ``axes.restored(y)`` is ``y`` with these axes put back as axes of size 1

A parameter that stands twice must meet the same variable twice; equal expressions are
one variable, since the engine numbers values.  A number in a pattern meets a uniform
constant of any shape and dtype that holds that number.  Operands of commutative ops are
tried in either order.  ``lhs`` may be a tuple: several forms of one expression.

What no pattern can say is a procedure: ``Rule("reshape_reshape", root=("reshape",), fn=...)``,
a function of the node that gives the new value, None, or a sentence that says why not.

When a rule is compiled, its left side becomes a list of steps for each order of operands;
matching a node is walking such a list, without recursion.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from graphc import dtypes
from graphc.errors import UNKNOWN, InternalError, on_behalf_of
from graphc.ir import Array, Node, Op, Type, Var, apply
from graphc.ops import reduction, softmaxes
from graphc.ops.broadcasting import broadcast_to_op
from graphc.ops.core import constant_op
from graphc.ops.movement import expand_dims, expand_dims_op
from graphc.passes.constants import same_value, uniform

#: what a right side or a procedure gives: a value, a Python scalar, or why the rule does not apply
Result = Var | bool | int | float | complex | str | None

_BOOL, _INT, _REAL, _COMPLEX = (Type(dtypes.DTYPES[name], ()) for name in ("bool", "int64", "float64", "complex128"))
CONSTANTS = ("k", "m")
AXES = "axes"


def parameter_type(name: str) -> Type:
    """The type of a pattern's parameter, by its name."""
    return _BOOL if name in ("c", "d") else _INT if name in ("i", "j") else _COMPLEX if name == "z" else _REAL


@dataclass(frozen=True, eq=False)
class Rule:
    """One row of the table.

    Args:
        name: what reports, origins and ``exclude`` call it.
        lhs, rhs: pattern and replacement; ``lhs`` may be a tuple of forms.
        when: a condition on the parameters; True, or a sentence that says why not.
        note: the mathematics in one line, and why it holds for nan, inf and -0.0 where that is claimed.
        phase: "canonical" or "stable".
        level: "exact", or "fast" (may reassociate, assumes finite values, ignores the sign of zero).
        kinds: kinds of dtype ("biufc") of the matched root's operands for which it holds.
        bits: does an exact rule keep every bit (nan is nan)?  False: it rounds once less, or differently in the last bit.
        scale: of stable rules, what "units in the last place" are counted in: the true "result", or where operands nearly
            cancel by nature (logsumexp of values around 0) the largest of the "operands", 1 at least.
        holds: of stable rules, for which numbers the promise never to be worse is given, where that is not all.
        root: for a procedure: names of the ops it looks at, or a condition on the op.
        over: for a procedure: at least one operand must be made by one of these ops ("same": by the root's own op).
        fn: the procedure.
        same_sizes: the procedure's result has the sizes of the root, also where both are found out by nodes.
        examples: for a procedure: functions without arguments that build roots at which it fires.
    """

    name: str
    lhs: Callable[..., Var] | tuple[Callable[..., Var], ...] = ()
    rhs: Callable[..., Any] | None = None
    when: Callable[..., bool | str] | None = None
    note: str = ""
    phase: str = "canonical"
    level: str = "exact"
    kinds: str = "biufc"
    bits: bool = True
    scale: str = "result"
    holds: Callable[..., bool] | None = None
    root: tuple[str, ...] | Callable[[Op], bool] = ()
    over: tuple[str, ...] = ()
    fn: Callable[[Node], Result] | None = None
    same_sizes: bool = False
    examples: tuple[Callable[[], Var], ...] = ()

    @property
    def forms(self) -> tuple[Callable[..., Var], ...]:
        return self.lhs if isinstance(self.lhs, tuple) else (self.lhs,)


# ---- attributes of reductions in patterns -------------------------------------------------------

_REDUCTIONS: dict[str, Op] = {op.name: op for op in (*reduction.OPS, *softmaxes.OPS)}


class _Captured(Op):
    """In a pattern: the op ``target`` with whatever attributes."""

    def __init__(self, target: Op) -> None:
        self.name, self.target = target.name, target

    def infer(self, *types: Type, **_: Any) -> Type:
        return _REAL


_RESTORED = _Captured(expand_dims_op)


class Axes:
    """The parameter ``axes``: ``axes.sum(x)`` is any sum in a pattern, and one along the same axes in a replacement."""

    def __init__(self, axis: tuple[int, ...] | None = None, keepdims: bool = False, rank: int = 0) -> None:
        self.axis, self.keepdims, self.rank = axis, keepdims, rank
        self.put_back: tuple[int, ...] | None = None  # by an expand_dims around the reduction

    def __getattr__(self, name: str) -> Callable[[Var], Var]:
        op = _REDUCTIONS.get(name)
        if op is None:
            raise AttributeError(name)
        if self.axis is None:
            return lambda x: apply(_Captured(op), x)
        attrs: dict[str, Any] = {"axis": self.axis} if name.endswith("softmax") else {"axis": self.axis, "keepdims": self.keepdims}
        return lambda x: apply(op, x, **attrs)

    def restored(self, y: Var) -> Var:
        """``y`` with the reduced axes put back, of size 1."""
        return apply(_RESTORED, y) if self.axis is None else expand_dims(y, self.axis)

    @property
    def broadcasts_back(self) -> bool:
        """Does the reduced value meet its operand axis by axis?"""
        if self.put_back is not None:
            return self.put_back == self.axis and not self.keepdims
        return self.keepdims or len(self.axis or ()) == self.rank


# ---- compilation of patterns --------------------------------------------------------------------


class Step(NamedTuple):
    """Look at a slot: is it this op (whose operands become new slots), this number, the same as before?"""

    kind: str  # op captured restored number any constant
    slot: int
    op: Op | None = None
    key: Any = None
    order: tuple[int, ...] = ()
    value: Array | None = None
    name: str = ""


class Alternative(NamedTuple):
    """One form of a rule with one order of the operands of its commutative ops."""

    rule: Rule
    steps: tuple[Step, ...]
    children: tuple[str | None, ...]  # op names of the root's operands in the node's order; None: any


@functools.cache
def parameters(fn: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a side's parameters."""
    return fn.__code__.co_varnames[:fn.__code__.co_argcount]


def call(fn: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """``fn`` on those of the matched values that it names."""
    return fn(*[values[name] for name in parameters(fn)])


def pattern(form: Callable[..., Var]) -> tuple[Var, dict[str, Any]]:
    """The left side as a graph, and its parameters."""
    given: dict[str, Any] = {}
    for name in parameters(form):
        given[name] = Axes() if name == AXES else Var(parameter_type(name), name=name)
    with on_behalf_of(UNKNOWN):
        return form(**given), given


@functools.lru_cache(maxsize=512)
def compile_rule(rule: Rule) -> tuple[Alternative, ...]:
    """All forms of a rule in all orders of commutative operands; equal ones once."""
    found: dict[Any, Alternative] = {}
    for form in rule.forms:
        root, given = pattern(form)
        names = {v: name for name, v in given.items() if isinstance(v, Var)}
        if root.node is None:
            raise InternalError(f"rule {rule.name}: the left side is no expression")
        swaps = [n for n in _pattern_nodes(root) if n.op.commutative and len(n.inputs) == 2]
        for choice in itertools.product((False, True), repeat=len(swaps)):
            swapped = {n for n, flip in zip(swaps, choice, strict=True) if flip}
            alternative = _flatten(rule, root, names, swapped)
            found.setdefault(tuple((s.kind, s.slot, id(s.op), s.order, None if s.value is None else s.value.tobytes(), s.name)
                                   for s in alternative.steps), alternative)
    return tuple(found.values())


def _pattern_nodes(root: Var) -> list[Node]:
    nodes: dict[Node, None] = {}
    stack = [root]
    while stack:
        v = stack.pop()
        if v.node is not None:
            nodes[v.node] = None
            stack.extend(v.node.inputs)
    return list(nodes)


def _flatten(rule: Rule, root: Var, names: Mapping[Var, str], swapped: set[Node]) -> Alternative:
    ops: list[Step] = []
    numbers: list[Step] = []
    rest: list[Step] = []
    slots = [root]
    at = 0
    while at < len(slots):
        v, node = slots[at], slots[at].node
        if node is None:
            name = names[v]
            rest.append(Step("constant" if name in CONSTANTS else "any", at, name=name))
        elif node.op is constant_op:
            numbers.append(Step("number", at, value=node.attrs["value"]))
        else:
            order = (1, 0) if node in swapped else tuple(range(len(node.inputs)))
            op = node.op.target if isinstance(node.op, _Captured) else node.op
            kind = "restored" if node.op is _RESTORED else "captured" if isinstance(node.op, _Captured) else "op"
            ops.append(Step(kind, at, op, node.key[1], order))
            slots.extend(node.inputs)
        at += 1
    assert root.node is not None
    children: list[str | None] = [None] * len(root.node.inputs)
    for position, v in zip(ops[0].order, root.node.inputs, strict=True):
        if v.node is not None:
            children[position] = v.node.op.name
        elif names[v] in CONSTANTS:
            children[position] = constant_op.name
    return Alternative(rule, (*ops, *numbers, *rest), tuple(children))


# ---- matching -----------------------------------------------------------------------------------

#: reasons why rules do not fit, each with how many steps of the pattern did; None where nobody asks
Why = list[tuple[int, str]] | None


def match(alternative: Alternative, node: Node, why: Why = None) -> dict[str, Any] | None:
    """The parameters of one alternative at a node whose operands are already simplified and numbered.

    None where it does not fit; the reason is then appended to ``why``.
    """
    slots: list[Var] = [node.outputs[0]]
    bound: dict[str, Any] = {}
    put_back: tuple[int, ...] | None = None
    for done, (kind, slot, op, key, order, value, name) in enumerate(alternative.steps):
        v = slots[slot]
        if kind == "any":
            if bound.setdefault(name, v) is not v:
                _miss(why, done, lambda: f"{name} stands for two different values: {bound[name].describe()} and {v.describe()}")
                return None
        elif kind == "number" or kind == "constant":
            scalar = uniform(v)
            if scalar is None:
                _miss(why, done, lambda: f"a constant expected, all of whose elements are the same; got {v.describe()}")
                return None
            if kind == "constant":
                bound[name] = _scalar(v, scalar)
            elif value is None or not same_value(scalar, value):
                _miss(why, done, lambda: f"the constant {value} expected, got {scalar}")
                return None
        else:
            at = v.node
            if at is None or at.op is not op:
                _miss(why, done, lambda: f"{op.name if op else '?'} expected, got {v.describe()}")
                return None
            if kind == "restored":
                put_back = at.attrs["axes"]
            elif kind == "captured":
                axes = Axes(at.attrs["axis"], at.attrs.get("keepdims", True), at.inputs[0].type.ndim)
                axes.put_back = put_back
                known = bound.setdefault(AXES, axes)
                if known.axis != axes.axis:
                    _miss(why, done, lambda: f"reductions along different axes: {known.axis} and {axes.axis}")
                    return None
            elif at.attrs and at.key[1] != key:
                _miss(why, done, lambda: f"{at.op.name} has attributes {dict(at.attrs)}")
                return None
            slots.extend([at.inputs[p] for p in order])
    rule = alternative.rule
    if not _kind_fits(rule, node):
        _miss(why, len(slots), lambda: f"not for {node.inputs[-1].type.dtype}")
        return None
    if rule.when is not None:
        verdict = call(rule.when, bound)
        if verdict is not True:
            _miss(why, len(slots), lambda: verdict if isinstance(verdict, str) else "its condition does not hold")
            return None
    return bound


def _miss(why: Why, done: int, reason: Callable[[], str]) -> None:
    if why is not None:
        why.append((done, reason()))


def _scalar(v: Var, value: Array) -> Var:
    """The constant itself where it is a scalar; else a scalar constant of its value."""
    if v.type.ndim == 0 and v.node is not None and v.node.op is constant_op:
        return v
    origin = v.node.origin if v.node is not None else None
    assert origin is not None
    return Node(constant_op, (), {"value": value}, (Type(value.dtype, ()),), origin).outputs[0]


def _kind_fits(rule: Rule, node: Node) -> bool:
    dtype = node.inputs[-1].type.dtype  # the last: the condition of ``where`` comes first
    return ("f" if dtypes.is_float(dtype) else dtype.kind) in rule.kinds


# ---- finding the rules for a node ---------------------------------------------------------------


class Index:
    """Rules by root op and by the ops of its operands, so that a node meets only those that may fit."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self.by_root: dict[str, list[Alternative]] = {}
        self.procedures: list[Alternative] = []
        self.position = {rule: i for i, rule in enumerate(self.rules)}
        for rule in self.rules:
            if rule.fn is not None:
                self.procedures.append(Alternative(rule, (), ()))
                continue
            for alternative in compile_rule(rule):
                op = alternative.steps[0].op
                assert op is not None
                self.by_root.setdefault(op.name, []).append(alternative)
        self.cache: dict[Any, tuple[Alternative, ...]] = {}

    def candidates(self, node: Node) -> tuple[Alternative, ...]:
        """What may match at ``node``, in the order of the table."""
        key = (node.op, *[None if v.node is None else v.node.op for v in node.inputs])
        found = self.cache.get(key)
        if found is None:
            found = self.cache[key] = self._select(node.op, key[1:])
        return found

    def _select(self, op: Op, made_by: Sequence[Op | None]) -> tuple[Alternative, ...]:
        chosen = [a for a in self.by_root.get(op.name, ()) if a.steps[0].op is op and _children_fit(a.children, made_by)]
        chosen += [a for a in self.procedures if _root_fits(a.rule, op) and _over_fits(a.rule, op, made_by)]
        chosen.sort(key=lambda a: self.position[a.rule])
        return tuple(chosen)


def _children_fit(wanted: Sequence[str | None], made_by: Sequence[Op | None]) -> bool:
    if len(wanted) != len(made_by):
        return False
    for name, op in zip(wanted, made_by, strict=True):
        if name is None:
            continue
        if op is None or (op.name != name and not (name == constant_op.name and op is broadcast_to_op)):
            return False
    return True


def _root_fits(rule: Rule, op: Op) -> bool:
    return rule.root(op) if callable(rule.root) else op.name in rule.root


def _over_fits(rule: Rule, op: Op, made_by: Sequence[Op | None]) -> bool:
    if not rule.over:
        return True
    return any(o is not None and (o.name in rule.over or (o is op and "same" in rule.over)) for o in made_by)


def root_fits(rule: Rule, op: Op) -> bool:
    """Is ``op`` one at which the rule could fire at all?  (For explanations.)"""
    if rule.fn is not None:
        return _root_fits(rule, op)
    return any(a.steps[0].op is op for a in compile_rule(rule))


def replacement(alternative: Alternative, node: Node, why: Why = None) -> Result:
    """What the rule gives at ``node``: a value or a Python scalar; None where it does not apply, the reason in ``why``."""
    rule = alternative.rule
    if rule.fn is None:
        found = match(alternative, node, why)
        if found is None:
            return None
        assert rule.rhs is not None
        result: Result = call(rule.rhs, found)
        return result
    if node.inputs and not _kind_fits(rule, node):
        _miss(why, 0, lambda: f"not for {node.inputs[-1].type.dtype}")
        return None
    result = rule.fn(node)
    if isinstance(result, str):
        _miss(why, 0, lambda: str(result))
        return None
    return result


def scalar_array(v: Var) -> Array:
    """The value of a parameter ``k`` or ``m`` in a condition or a right side."""
    value = uniform(v)
    if value is None:
        raise InternalError(f"no uniform constant: {v.describe()}")
    return np.asarray(value)


__all__ = [
    "AXES", "CONSTANTS", "Alternative", "Axes", "Index", "Result", "Rule", "compile_rule", "match", "parameter_type",
    "pattern", "replacement", "root_fits", "scalar_array",
]
