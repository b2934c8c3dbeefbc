"""``pretty``: an expression as a formula on one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.dtypes import SHORT
from graphc.errors import GraphcTypeError
from graphc.ir import Node, Shared, Var
from graphc.ops.core import constant_op
from graphc.text import Printer, array_text

#: op -> (sign, binds how strongly); Python's own order
INFIX = {
    "logical_or": (" or ", 1), "logical_and": (" and ", 2),
    "equal": (" == ", 4), "not_equal": (" != ", 4), "less": (" < ", 4), "less_equal": (" <= ", 4), "greater": (" > ", 4),
    "greater_equal": (" >= ", 4),
    "bitwise_or": (" | ", 5), "bitwise_xor": (" ^ ", 6), "bitwise_and": (" & ", 7), "left_shift": (" << ", 8), "right_shift": (" >> ", 8),
    "add": (" + ", 9), "sub": (" - ", 9),
    "mul": ("*", 10), "div": ("/", 10), "floordiv": ("//", 10), "mod": (" % ", 10), "matmul": (" @ ", 10),
    "pow": ("**", 12), "ipow": ("**", 12),
}
PREFIX = {"neg": ("-", 11), "invert": ("~", 11), "logical_not": ("not ", 3)}
ATOM = 13
_CHAINING = {"==", "!=", "<", "<=", ">", ">="}

Piece = str | tuple[Var, int]


def pretty(expr: Any, limit: int = 10_000) -> str:
    """An expression as a formula with infix operators and as few brackets as Python's precedence allows.

    Attributes that say nothing beyond the obvious (``keepdims=False``, a sum over all axes) are left out.  A formula longer than ``limit`` characters is cut and ends in ``…``.

    Raises:
        TypeError: ``expr`` is no variable.

    >>> import graphc as gc
    >>> x, y, b = gc.matrices("x", "y", "b")
    >>> gc.pretty((x * y + b).sum(axis=0))
    'sum(x*y + b, axis=0)'
    >>> gc.pretty(-(x - (y - b)) ** 2)
    '-(x - (y - b))**2'
    """
    if not isinstance(expr, Var):
        raise GraphcTypeError(f"pretty takes one expression; got {type(expr).__name__}")
    printer = Printer()
    out: list[str] = []
    length = 0
    stack: list[Piece] = [(expr, 0)]  # a variable, and how strongly what stands around it binds
    while stack:
        piece = stack.pop()
        if isinstance(piece, str):
            out.append(piece)
            length += len(piece)
            if length > limit:
                return "".join(out)[:limit] + "…"
        else:
            stack.extend(reversed(_pieces(*piece, printer)))
    return "".join(out)


def _pieces(v: Var, around: int, printer: Printer) -> list[Piece]:
    node = v.node
    if node is None:
        return [v.name or (f"<shared {printer.type_text(v.type)}>" if isinstance(v, Shared) else f"<{printer.type_text(v.type)}>")]
    name, inputs = node.op.name, node.inputs
    if node.op is constant_op:
        text = array_text(node.attrs["value"])
        if text is None or text.startswith("full"):
            return [f"<{printer.type_text(v.type)}>" if text is None else f"full({printer.type_text(v.type)}, {text[5:]}"]
        text = text.removesuffix(".0")  # a formula need not say that 2 is a float
        return [f"({text})" if text.startswith("-") and around > PREFIX["neg"][1] else text]
    if name in INFIX and len(inputs) == 2:
        sign, strength = INFIX[name]
        right_first = strength == 12
        compares = sign.strip() in _CHAINING  # a < b < c means something else
        left = strength + 1 if right_first or compares else strength
        right = strength if right_first else strength + 1
        if right_first and inputs[1].node is not None and (inputs[1].node.op is constant_op or inputs[1].node.op.name in PREFIX):
            right = 0  # 2**-x needs no brackets
        return _bracketed([(inputs[0], left), sign, (inputs[1], right)], strength < around)
    if name in PREFIX and len(inputs) == 1:
        sign, strength = PREFIX[name]
        return _bracketed([sign, (inputs[0], strength)], strength < around)
    return _SPECIAL[name](node, around, printer) if name in _SPECIAL else _application(node, v, printer)


def _bracketed(pieces: list[Piece], needed: bool) -> list[Piece]:
    return ["(", *pieces, ")"] if needed else pieces


def _application(node: Node, v: Var, printer: Printer) -> list[Piece]:
    pieces: list[Piece] = [f"{node.op.name}("]
    for i, operand in enumerate(node.inputs):
        pieces += [", "] * (i > 0) + [(operand, 0)]
    texts = [f"{k}={_attribute(k, node, printer)}" for k in sorted(node.attrs) if not _obvious(k, node)]
    pieces.append((", " if node.inputs and texts else "") + ", ".join(texts) + ")")
    if len(node.outputs) > 1:
        pieces.append(f"[{v.index}]")
    return pieces


def _obvious(key: str, node: Node) -> bool:
    value = node.attrs[key]
    if value is None or value is False:
        return True
    return key == "axis" and node.op.kind == "reduction" and value == tuple(range(node.inputs[0].type.ndim))


def _attribute(key: str, node: Node, printer: Printer) -> str:
    value = node.attrs[key]
    if key == "axis" and isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return printer.attr_text(value)


def _cast(node: Node, around: int, printer: Printer) -> list[Piece]:
    return [f"{SHORT[node.attrs['dtype'].name]}(", (node.inputs[0], 0), ")"]


def _size(node: Node, around: int, printer: Printer) -> list[Piece]:
    return [(node.inputs[0], ATOM), f".shape[{node.attrs['axis']}]"]


def _dim(node: Node, around: int, printer: Printer) -> list[Piece]:
    text = printer.attr_text(node.attrs["size"])
    return [f"({text})" if " " in text and around else text]


def _sized(node: Node, around: int, printer: Printer) -> list[Piece]:
    """broadcast_to(x, (n, 3)) with operands where the node has them for sizes."""
    rest = iter(node.inputs[1:])
    pieces: list[Piece] = [f"{node.op.name}(", (node.inputs[0], 0), ", ("]
    shape = node.attrs["shape"]
    for i, size in enumerate(shape):
        pieces += [", "] * (i > 0) + [(next(rest), 0) if size is None else printer.attr_text(size)]
    return [*pieces, ",))" if len(shape) == 1 else "))"]


def _transpose(node: Node, around: int, printer: Printer) -> list[Piece]:
    values = list(node.attrs.values())
    if values == [(1, 0)]:
        return [(node.inputs[0], ATOM), ".T"]
    return _application(node, node.outputs[0], printer)


def _index(node: Node, around: int, printer: Printer) -> list[Piece]:
    """x[1:n, i]; the operands of the op fill in what is no number."""
    rest = iter(node.inputs[1:])

    def bound(value: Any, default: Any = None) -> list[Piece]:
        if value in ("?", "[]"):
            return [(next(rest), 0)]
        return [] if value == default else [printer.attr_text(value)]

    pieces: list[Piece] = [(node.inputs[0], ATOM), "["]
    for i, entry in enumerate(node.attrs["index"]):
        pieces += [", "] * (i > 0)
        if isinstance(entry, tuple):
            start, stop, step = entry
            pieces += [*bound(start), ":", *bound(stop)]
            last = bound(step, 1)
            pieces += [":", *last] if last else []
        else:
            pieces += ["None"] if entry == "new" else bound(entry)
    return [*pieces, "]"]


_SPECIAL: dict[str, Callable[[Node, int, Printer], list[Piece]]] = {
    "cast": _cast, "size_of": _size, "dim": _dim, "broadcast_to": _sized, "sum_to": _sized, "reshape": _sized,
    "transpose": _transpose, "subtensor": _index, "advanced_subtensor": _index,
}
