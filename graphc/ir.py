"""The graph: what every pass reads and writes.  One page.

    Type(dtype, shape)                    shape entries: int | Dim (graphc/dims.py)
    Var(type, node, index, name)          a value; ``node is None`` for leaves
    Shared(Var)                           a leaf with state that outlives calls
    Node(op, inputs, attrs) -> outputs    one op applied; one result or several
    Graph(inputs, outputs, updates)       what a function computes; also an attribute:
                                          a loop's body, a branch, a fused kernel
    Op                                    what is known of an op; one record per op (graphc/ops/)

All of it is immutable by convention: a rewrite makes new nodes.  ``hash`` and
``==`` of Var and Node go by identity.  An inner graph is an attribute of a node
and closed: what it takes from outside stands among the node's inputs, in the
order of the inner graph's inputs.  Sizes (door symbols) alone are shared with the
outside.  State is read at entry (a Shared leaf) and written at exit (an update);
draws and prints carry what orders them as attributes and operands.

No function here recurses: graphs of 100 000 nodes in a chain are ordinary.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc import dims
from graphc.dims import Dim, Size, Symbol
from graphc.dtypes import SHORT, as_dtype
from graphc.errors import UNKNOWN, GraphcError, GraphcTypeError, GraphcValueError, Origin, here

__all__ = [
    "Graph", "Node", "Op", "Relation", "Shared", "Type", "Var", "ancestors", "apply", "attrs_key", "concrete",
    "leaves", "make_node", "normal", "rebuild", "toposort", "updating",
]

Array = np.ndarray[Any, np.dtype[Any]]


class Type:
    """dtype and shape of a value.  ``str`` gives the dump form ``f32[n, 784]``.

    An op's ``infer`` may write ``Type("float32", ("n", 3))``; None stands for a size that the op finds out.
    """

    __slots__ = ("_hash", "dtype", "shape")

    def __init__(self, dtype: Any, shape: Sequence[Any]) -> None:
        for s in shape:
            if s.__class__ is not int and s.__class__ is not Dim:
                shape = [dims.fresh("data") if entry is None else dims.as_size(entry) for entry in shape]
                break
        self.dtype: np.dtype[Any] = dtype if isinstance(dtype, np.dtype) else as_dtype(dtype)
        self.shape: tuple[Size, ...] = tuple(shape)
        self._hash: int | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Type) and self.dtype == other.dtype and self.shape == other.shape)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.dtype, self.shape))
        return self._hash

    def text(self, names: Mapping[Symbol, str] | None = None) -> str:
        return f"{SHORT[self.dtype.name]}[{', '.join(dims.size_text(s, names) for s in self.shape)}]"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Type({self.text()})"

    def with_shape(self, shape: tuple[Size, ...]) -> Type:
        return Type(self.dtype, shape)

    def with_dtype(self, dtype: np.dtype[Any]) -> Type:
        return self if dtype == self.dtype else Type(dtype, self.shape)


class Var:
    """A value in a graph.  Operators and methods are installed by ``graphc/methods.py``."""

    __slots__ = ("__weakref__", "_origin", "index", "name", "node", "scope", "type")

    def __init__(self, type: Type, node: Node | None = None, index: int = 0, name: str | None = None,
                 origin: Origin | None = None, scope: Origin | None = None) -> None:
        self.type, self.node, self.index, self.name = type, node, index, name
        self._origin = origin
        self.scope = scope  # for the leaves of an inner graph: where the loop or function that owns them stands

    @property
    def origin(self) -> Origin:
        if self._origin is not None:
            return self._origin
        return self.node.origin if self.node is not None else UNKNOWN

    def describe(self) -> str:
        """How an error message names the variable: name or op, type, line."""
        label = self.name or (f"the result of {self.node.op.name}" if self.node is not None else "an unnamed input")
        where = f" ({self.origin})" if self.origin.line else ""
        return f"{label}: {self.type}{where}"

    if TYPE_CHECKING:  # what graphc/methods.py installs, for type checkers and editors
        def __add__(self, other: Any) -> Var: ...
        def __radd__(self, other: Any) -> Var: ...
        def __sub__(self, other: Any) -> Var: ...
        def __rsub__(self, other: Any) -> Var: ...
        def __mul__(self, other: Any) -> Var: ...
        def __rmul__(self, other: Any) -> Var: ...
        def __truediv__(self, other: Any) -> Var: ...
        def __rtruediv__(self, other: Any) -> Var: ...
        def __floordiv__(self, other: Any) -> Var: ...
        def __rfloordiv__(self, other: Any) -> Var: ...
        def __mod__(self, other: Any) -> Var: ...
        def __rmod__(self, other: Any) -> Var: ...
        def __pow__(self, other: Any) -> Var: ...
        def __rpow__(self, other: Any) -> Var: ...
        def __matmul__(self, other: Any) -> Var: ...
        def __rmatmul__(self, other: Any) -> Var: ...
        def __and__(self, other: Any) -> Var: ...
        def __rand__(self, other: Any) -> Var: ...
        def __or__(self, other: Any) -> Var: ...
        def __ror__(self, other: Any) -> Var: ...
        def __xor__(self, other: Any) -> Var: ...
        def __rxor__(self, other: Any) -> Var: ...
        def __lshift__(self, other: Any) -> Var: ...
        def __rshift__(self, other: Any) -> Var: ...
        def __lt__(self, other: Any) -> Var: ...
        def __le__(self, other: Any) -> Var: ...
        def __gt__(self, other: Any) -> Var: ...
        def __ge__(self, other: Any) -> Var: ...
        def __neg__(self) -> Var: ...
        def __pos__(self) -> Var: ...
        def __abs__(self) -> Var: ...
        def __invert__(self) -> Var: ...
        def __getitem__(self, key: Any) -> Var: ...
        def __iter__(self) -> Iterator[Var]: ...
        def _method(self, *args: Any, **options: Any) -> Var: ...
        sum = prod = mean = var = std = max = min = argmax = argmin = all = any = cumsum = cumprod = _method
        flatten = ravel = squeeze = swapaxes = dimshuffle = repeat = reshape = transpose = astype = copy = _method
        dot = trace = clip = conj = diagonal = take = _method
        dtype: np.dtype[Any]
        shape: tuple[Any, ...]
        ndim: int
        size: Any
        T: Var
        mT: Var
        real: Var
        imag: Var
        owner: Node | None
        eval: Callable[..., Any]


#: one element for each call on its way that changes storage in Python: an updating one (graphc/binding.py), a look that lends (graphc/variables.py).
#: A native door looks at its length: native calls then take locks
updating: list[object] = []


class Container:
    """The storage behind a shared variable; several may look at one."""

    __slots__ = ("lent", "lock", "value")

    def __init__(self, value: Array, lent: bool = False) -> None:
        self.put(value, lent)
        self.lock = threading.RLock()  # held by calls that update it, so that they take turns

    def __getstate__(self) -> Array:
        return self.value

    def __setstate__(self, value: Array) -> None:
        self.put(value)
        self.lock = threading.RLock()

    def put(self, value: Array, lent: bool = False) -> None:
        """A new value; ``lent``: the user has the array too, and may write into it."""
        self.value, self.lent = value, weakref.ref(value) if lent else None

    def lends(self, value: Array) -> bool:
        """May the user write into this value?"""
        return self.lent is not None and self.lent() is value


class Shared(Var):
    """A leaf whose value outlives calls.  Made by ``gc.shared`` (graphc/variables.py)."""

    __slots__ = ("container",)

    def __init__(self, type: Type, container: Container, name: str | None = None, origin: Origin | None = None) -> None:
        super().__init__(type, None, 0, name, origin)
        self.container = container
        for size in type.shape:
            symbol = size.symbol if isinstance(size, Dim) else None
            if symbol is not None:
                symbol.state = weakref.ref(self)


class Relation(NamedTuple):
    """Something that sizes must satisfy, checked when a call enters.

    ``kind`` is "equal" (a == b) or "broadcast" (equal, or one of them is 1).
    """

    kind: str
    a: Size
    b: Size


class Op:
    """What is known of an op, declared once.  Built-in ops and the user's ``gc.Op`` share this protocol.

    ``infer``, ``forward`` and ``bprop`` may give one value or a list of them.
    Facts are class attributes with the weakest value as default; tests check
    them with nan, inf and -0.0.
    """

    name: str = "op"
    kind: str = "custom"  # elementwise reduction movement indexing contraction creation control custom
    nout: int = 1  # number of results; -1: what infer says
    commutative: bool = False
    associative: bool = False  # exactly for integers and bool; for floats up to rounding
    identity: float | None = None  # of real floats: op(x, identity) is x, in every bit
    identity_int: int | None = None  # of integers and bool: the same (-1 is "all ones", for unsigned and bool too)
    annihilator: float | None = None  # of real floats: op(x, annihilator) is annihilator, for every x, nan included
    annihilator_int: int | None = None  # of integers and bool: the same
    involution: bool = False  # op(op(x)) is x
    idempotent: bool = False  # op(op(x)) is op(x), or op(x, x) is x
    linear: bool = False  # linear in its operands taken together, whose values bprop does not read
    monotone: bool = False
    pure: bool = True  # may be removed, merged, folded
    placeholder: bool = False  # replaced by a pass before any backend sees it
    sized: bool = False  # attrs["shape"] has a None for each trailing operand that gives a size at run time
    view: bool = False  # NumPy's result may share memory with operand 0
    flops: float = 1.0  # per element of the result; the cost model's unit
    examples: tuple[Any, ...] = ()  # graphc.ops.example.Example records, from which tests are generated

    # (*args: Any, **kwargs: Any) lets every op write these three with the arguments that it has, for type checkers too
    def infer(self, *types: Any, **attrs: Any) -> Any:
        """The type(s) of the result(s).  Raises GraphcTypeError/ValueError with a message without operands' names."""
        raise NotImplementedError(f"op {self.name} does not say what types it gives: define infer(*types)")

    def forward(self, *arrays: Any, **attrs: Any) -> Any:
        """The value(s) in NumPy.  Sizes in ``attrs`` are ints by now.  Must not write into its operands."""
        raise NotImplementedError(f"op {self.name} has no forward(*arrays)")

    def bprop(self, *args: Any, **attrs: Any) -> Any:
        """``bprop(inputs, outputs, cotangents, **attrs)``: one gradient expression per input, or None where there is no dependence."""
        raise NotImplementedError

    def bprop_at(self, position: int, inputs: Sequence[Var], outputs: Sequence[Var], cotangents: Sequence[Var],
                 attrs: Mapping[str, Any]) -> Var | None:
        """The gradient for one input position; ops that have them position by position override this."""
        return normal(self.bprop(list(inputs), list(outputs), list(cotangents), **attrs))[position]  # type: ignore[no-any-return]

    def connected(self, position: int, node: Node) -> bool:
        """Do derivatives flow from the results to this input at all?  (Not through sizes, conditions, comparisons.)"""
        return True

    def differentiable(self) -> bool:
        """Is there a bprop?  An op without one may be computed, but ``gc.grad`` names it in an error."""
        return type(self).bprop is not Op.bprop or type(self).bprop_at is not Op.bprop_at

    def relations(self, types: Sequence[Type], attrs: Mapping[str, Any]) -> Iterable[Relation]:
        """What the sizes of the operands must satisfy beyond what ``infer`` could see."""
        return ()

    def __repr__(self) -> str:
        return f"<op {self.name}>"


class Node:
    """One op applied to values.  ``attrs`` is read-only; sizes in it are ints and door dims."""

    __slots__ = ("_key", "attrs", "inputs", "op", "origin", "outputs")

    def __init__(self, op: Op, inputs: tuple[Var, ...], attrs: Mapping[str, Any], types: Sequence[Type], origin: Origin) -> None:
        self.op, self.inputs, self.attrs, self.origin = op, inputs, attrs, origin
        self.outputs = tuple(Var(t, self, i) for i, t in enumerate(types))
        self._key: Any = None

    @property
    def key(self) -> Any:
        """op and attrs as a dictionary key: together with the operands, what value numbering compares."""
        if self._key is None:
            self._key = (self.op, attrs_key(self.attrs))
        return self._key

    def __repr__(self) -> str:
        return f"<{self.op.name} -> {', '.join(str(v.type) for v in self.outputs)}>"


class Graph:
    """What a function computes: leaves in, values out, state written.

    ``shared`` lists the state that is read (in order of first use); what a pass leaves unread
    stays in it, for its sizes.  ``relations``: what the sizes of the leaves must satisfy.
    """

    __slots__ = ("_nodes", "inputs", "name", "outputs", "relations", "shared", "updates")

    def __init__(self, inputs: Sequence[Var], outputs: Sequence[Var], updates: Sequence[tuple[Shared, Var]] = (), *,
                 name: str = "f", relations: Sequence[tuple[Relation, Origin]] = (), shared: Sequence[Shared] = ()) -> None:
        self.inputs, self.outputs, self.updates = tuple(inputs), tuple(outputs), tuple(updates)
        self.name, self.relations = name, tuple(relations)
        given = set(self.inputs)
        self._nodes = toposort(self.roots)
        found = [v for v in _leaves(self._nodes, self.roots) if isinstance(v, Shared) and v not in given]
        self.shared: tuple[Shared, ...] = tuple(dict.fromkeys([*shared, *found, *(s for s, _ in self.updates)]))

    @property
    def roots(self) -> tuple[Var, ...]:
        """Everything that must be computed: outputs, then new values of state."""
        return (*self.outputs, *(v for _, v in self.updates))

    @property
    def nodes(self) -> list[Node]:
        """All nodes, operands first, in a fixed order."""
        return self._nodes.copy()

    def with_roots(self, roots: Sequence[Var]) -> Graph:
        """The same function with other expressions for its roots."""
        k = len(self.outputs)
        updates = tuple((s, v) for (s, _), v in zip(self.updates, roots[k:], strict=True))
        return Graph(self.inputs, roots[:k], updates, name=self.name, relations=self.relations, shared=self.shared)

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {len(self.inputs)} inputs, {len(self)} nodes, {len(self.outputs)} outputs>"


def normal(result: Any) -> tuple[Any, ...]:
    """One value or a list of them, as a tuple."""
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def make_node(op: Op, inputs: Sequence[Var], attrs: Mapping[str, Any] | None = None, origin: Origin | None = None) -> Node:
    """Apply ``op``: infer the types of its results and make the node.

    A complaint of ``infer`` is completed with the op's name, its operands and their lines.
    """
    attrs = attrs or {}
    try:
        types = normal(op.infer(*[v.type for v in inputs], **attrs))
    except GraphcError as error:
        operands = "".join(f"\n  operand {i}: {v.describe()}" for i, v in enumerate(inputs))
        raise type(error)(f"{op.name}: {error.message}{operands}", origin or error.where) from None
    if op.nout not in (-1, len(types)) or not all(isinstance(t, Type) for t in types):
        raise GraphcTypeError(f"{op.name}: infer must give {op.nout} gc.Type(s); it gave {types!r}")
    return Node(op, tuple(inputs), attrs, types, origin or here())


def apply(op: Op, *inputs: Var, **attrs: Any) -> Var:
    """Apply an op with one result."""
    return make_node(op, inputs, attrs).outputs[0]


def apply_all(op: Op, *inputs: Var, **attrs: Any) -> tuple[Var, ...]:
    """Apply an op with several results."""
    return make_node(op, inputs, attrs).outputs


def toposort(roots: Iterable[Var]) -> list[Node]:
    """The nodes that the roots need, each after its operands; the order depends on the graph only."""
    order: list[Node] = []
    done: set[Node] = set()
    stack = [v.node for v in reversed(list(roots)) if v.node is not None]
    while stack:
        node = stack[-1]
        if node in done:
            stack.pop()
            continue
        pending = [v.node for v in node.inputs if v.node is not None and v.node not in done]
        if pending:
            pending.reverse()
            stack.extend(pending)
        else:
            stack.pop()
            done.add(node)
            order.append(node)
    return order


def leaves(roots: Iterable[Var]) -> list[Var]:
    """The leaves (inputs and state) that the roots need, in order of first use."""
    roots = list(roots)
    return _leaves(toposort(roots), roots)


def _leaves(nodes: Iterable[Node], roots: Iterable[Var]) -> list[Var]:
    found: dict[Var, None] = {}
    for node in nodes:
        for v in node.inputs:
            if v.node is None:
                found[v] = None
    for v in roots:
        if v.node is None:
            found[v] = None
    return list(found)


def ancestors(roots: Iterable[Var]) -> list[Var]:
    """Every variable that the roots depend on, themselves included, operands first."""
    roots = list(roots)
    found: dict[Var, None] = {}
    for node in toposort(roots):
        for v in (*node.inputs, *node.outputs):
            found[v] = None
    for v in roots:
        found[v] = None
    return list(found)


def rebuild(roots: Sequence[Var], replace: Mapping[Var, Var], sizes: Mapping[Symbol, Size] | None = None,
            visit: Callable[[Node, tuple[Var, ...]], Sequence[Var] | None] | None = None) -> list[Var]:
    """The roots with variables replaced, operands first.

    ``sizes`` replaces symbols in attributes.  ``visit(node, new_inputs)`` may give the
    values that stand for a node's results; None means "the same op on the new inputs".
    A node none of whose operands changed is kept as it is.
    """
    new: dict[Var, Var] = dict(replace)
    for node in toposort(roots):
        if all(v in new for v in node.outputs):
            continue
        inputs = tuple([new.get(v, v) for v in node.inputs])
        results = visit(node, inputs) if visit is not None else None
        if results is None:
            attrs = substitute_attrs(node.attrs, sizes) if sizes else node.attrs
            if attrs is node.attrs and all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
                continue
            results = with_inputs(node, inputs, attrs).outputs
        for old, value in zip(node.outputs, results, strict=True):
            if old not in new:
                new[old] = value
    return [new.get(v, v) for v in roots]


def with_inputs(node: Node, inputs: tuple[Var, ...], attrs: Mapping[str, Any] | None = None) -> Node:
    """The node's op on other operands; types are inferred anew only if those of the operands changed."""
    same = attrs is None or attrs is node.attrs
    if same and all(a.type == b.type for a, b in zip(inputs, node.inputs, strict=True)):
        copy = Node(node.op, inputs, node.attrs, [v.type for v in node.outputs], node.origin)
        copy._key = node._key
    else:
        copy = make_node(node.op, inputs, node.attrs if attrs is None else attrs, node.origin)
    for old, v in zip(node.outputs, copy.outputs, strict=True):
        v.name = old.name
    return copy


def _map_sizes(value: Any, change: Callable[[Dim], Any]) -> Any:
    """``value`` with every Dim in it changed; the same object where there is none."""
    if isinstance(value, Dim):
        return change(value)
    if isinstance(value, tuple):
        changed = tuple(_map_sizes(v, change) for v in value)
        return value if all(a is b for a, b in zip(changed, value, strict=True)) else changed
    return value


def substitute_attrs(attrs: Mapping[str, Any], sizes: Mapping[Symbol, Size]) -> Mapping[str, Any]:
    def change(d: Dim) -> Size:
        return dims.substitute(d, sizes) if any(s in sizes for s in dims.symbols(d)) else d

    changed = {k: _map_sizes(v, change) for k, v in attrs.items()}
    return attrs if all(changed[k] is v for k, v in attrs.items()) else changed


class BoundGraph(NamedTuple):
    """An inner graph together with the sizes of the call: what ``forward`` gets for a Graph attribute."""

    graph: Graph
    env: Mapping[Symbol, int]


def concrete(attrs: Mapping[str, Any], env: Mapping[Symbol, int]) -> Mapping[str, Any]:
    """The attributes with sizes as ints and inner graphs bound to them: what ``forward`` takes."""
    def change(d: Dim) -> int:
        try:
            return dims.evaluate(d, env)
        except KeyError as missing:
            raise GraphcValueError(f"the size {d} is needed, but no input of the function has the dim {missing.args[0]}") from None

    changed = {k: BoundGraph(v, env) if isinstance(v, Graph) else _map_sizes(v, change) for k, v in attrs.items()}
    return attrs if all(changed[k] is v for k, v in attrs.items()) else changed


def attrs_key(attrs: Mapping[str, Any]) -> Any:
    """Attributes as a hashable key: equal keys mean equal behaviour."""
    if not attrs:
        return ()
    return tuple([(k, _value_key(attrs[k])) for k in sorted(attrs)])


def _value_key(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.nbytes > 4096:
            return ("array", id(value))
        return ("array", value.dtype.name, value.shape, value.tobytes())  # bits: -0.0 is not 0.0, nan is itself
    if isinstance(value, tuple):
        return tuple([_value_key(v) for v in value])
    if isinstance(value, (float, bool, complex)):
        return (type(value).__name__, repr(value))
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))
    return value
