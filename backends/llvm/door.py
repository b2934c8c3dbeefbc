"""The native door: calls of compiled functions enter through a C-API function (docs/door.md).

    machine()                            the code, and what it needs to know of this process; None where it cannot serve
    entry(runner, door, structure, careful)    the callable that a compiled function's call enters; None if it has to go the careful way
    Results(dtypes)                      arrays for results, in memory that is kept warm
    door_sizes(program, formulas)        sizes whose values the door needs in the table of the driver's formulas
    work_formula(program)                estimated picoseconds of one run
    Bound(formulas, symbols)             can the formulas be computed in 64 bits?

The code is door_text.py, the same for all functions.  What differs is in the function's record, written here.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
import struct
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc import backends, dims, settings
from graphc.backends.llvm import engine as engines
from graphc.backends.llvm.capi import LAYOUTS, SIZES
from graphc.backends.llvm.costs import LET_GO_PS, SERIAL_NS, work
from graphc.backends.llvm.door_sizes import ACCEPTS, AXES, FORMS, RELATIONS
from graphc.backends.llvm.door_text import TABLE, door_module
from graphc.backends.llvm.pool import pool
from graphc.backends.llvm.target import host
from graphc.dims import Call, Dim, Size, Symbol
from graphc.ir import Array, Container
from graphc.kernel import Program

__all__ = ["Bound", "Machine", "Results", "door_sizes", "entry", "machine", "work_formula"]

#: from how much estimated work on it may use several threads
PARALLEL_PS = 1000 * SERIAL_NS
#: calls between two looks at how many processors the process may use
REREAD = 1000

METH_FASTCALL_KEYWORDS = 0x82
_API = ("Py_IncRef", "Py_DecRef", "PyList_New", "PyList_SetItem", "PyDict_New", "PyDict_SetItem", "PyDict_GetItemWithError", "PyObject_CallNoArgs",
        "PyObject_Vectorcall", "PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_AsLong", "PyLong_AsLongLongAndOverflow", "PyContextVar_Get",
        "PyErr_Clear", "PyErr_NoMemory", "PyCapsule_New", "PyCapsule_GetPointer", "PyTraceMalloc_Track")
#: NumPy's table of functions (multiarray_api.h): the places of its version, PyArray_Type and PyArray_NewFromDescr do not change
_NDARRAY_TYPE, _NEW_FROM_DESCR = 2, 94


# ---- this process -------------------------------------------------------------------------------


class _MethodDef(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p))


class Machine:
    """The door's code in this process, and its "world": addresses, and what was found out about threads."""

    def __init__(self, new_array: int, place: int) -> None:
        api = ctypes.pythonapi
        externals = {name: _address(getattr(api, name)) for name in _API}
        loaded = engines.engine().load({"gc_door": door_module(host())}, host(), externals)
        for keeper in (engines.engine(), engines._kept):  # arrays give memory back through this code until the process ends
            api.Py_IncRef(ctypes.py_object(keeper))
        table = (ctypes.c_size_t * len(TABLE)).from_address(loaded["gc_door"])
        functions = dict(zip(TABLE, table, strict=True))
        pointer = ctypes.c_void_p
        self.place = place  #: of the value in a Container
        self.definition = _MethodDef(b"call", functions["call"], METH_FASTCALL_KEYWORDS, None)
        self.release = ctypes.PYFUNCTYPE(None, pointer)(functions["release"])
        self.new_pool = ctypes.PYFUNCTYPE(ctypes.py_object)(functions["new_pool"])
        self._new_array = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, pointer, pointer, ctypes.c_int64, pointer, ctypes.c_int64)(functions["new_array"])
        self._make_callable = ctypes.PYFUNCTYPE(ctypes.py_object, pointer, ctypes.py_object, pointer)(_address(api.PyCFunction_NewEx))
        self.world = np.zeros(SIZES["world"] // 8, np.int64)
        self.address = self.world.ctypes.data
        self.kept: list[Any] = [settings._overlay, settings.config._values, "threads", self.refresh, None]
        overlay, values, key, refresh, _ = self.kept
        self._write(none=id(None), array_type=id(np.ndarray), float_type=id(float), int_type=id(int), new_array=new_array, refresh=id(refresh),
                    overlay=id(overlay), settings=id(values), key=id(key), let_go_ps=LET_GO_PS, parallel_ps=PARALLEL_PS, updating=id(backends.updating))

    def _write(self, **fields: int) -> None:
        for name, value in fields.items():
            self.world[LAYOUTS["world"][name][1] // 8] = value

    def refresh(self) -> int:
        """The threads of a call in this thread now; the answer holds while gc.config.threads is this very object."""
        threads = pool()
        setting = settings.config.threads
        number = threads.threads_for(None, None)
        self.kept[-1] = setting
        self._write(seen=id(setting), threads=number, usable=threads.threads_for(0, None), countdown=REREAD)
        return number

    def new_array(self, memory: object, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
        """An array in memory of a pool; MemoryError if there is none."""
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes >= 1 << 62:
            raise MemoryError(f"an array of shape {tuple(shape)} and dtype {dtype} does not fit into memory")
        sizes = (ctypes.c_int64 * len(shape))(*shape)
        return self._new_array(self.address, id(memory), id(dtype), len(shape), ctypes.addressof(sizes), nbytes)  # type: ignore[no-any-return]

    def callable(self, record: Array) -> Callable[..., Any]:
        """The C function bound to a record."""
        return self._make_callable(ctypes.addressof(self.definition), record, None)  # type: ignore[no-any-return]


@functools.cache
def machine() -> Machine | None:
    """The process's; None where Python's or NumPy's objects do not look as the code expects."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8 or sys.byteorder != "little":
        return None
    if sysconfig.get_config_var("Py_GIL_DISABLED") or not sys.platform.startswith(("linux", "darwin")) or hasattr(sys, "getobjects"):
        return None
    new_array, place = _numpy_function(), _container_place()
    if new_array is None or place is None or not _arrays_as_expected() or not _numbers_as_expected():
        return None
    found = Machine(new_array, place)
    return found if _made_as_expected(found) else None


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value


def _field(thing: object, struct: str, field: str) -> int:
    kind, offset = LAYOUTS[struct][field]
    return int((ctypes.c_int32 if kind == "i32" else ctypes.c_int64).from_address(id(thing) + offset).value)


def _numpy_capsule() -> Any:
    return importlib.import_module("numpy._core._multiarray_umath")._ARRAY_API


def _numpy_function() -> int | None:
    try:
        get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(_address(ctypes.pythonapi.PyCapsule_GetPointer))
        table = get(_numpy_capsule(), None)
    except (ImportError, AttributeError, ValueError):
        return None
    if not table or _word(table + 8 * _NDARRAY_TYPE) != id(np.ndarray):
        return None
    return _word(table + 8 * _NEW_FROM_DESCR)


def _container_place() -> int | None:
    """Where in a Container its value is."""
    probe = object()
    container = Container(probe)  # type: ignore[arg-type]
    found = [offset for offset in range(16, Container.__basicsize__, 8) if _word(id(container) + offset) == id(probe)]
    return found[0] if len(found) == 1 else None


def _arrays_as_expected() -> bool:
    a = np.zeros((2, 3), np.float32)
    view = a[1:, :2]
    for array, base in ((a, None), (view, a)):
        found = [_field(array, "array", name) for name in ("data", "rank", "descr", "flags", "base", "weak")]
        if found != [array.ctypes.data, 2, id(array.dtype), array.flags.num, 0 if base is None else id(base), 0]:
            return False
        for name, want in (("dims", array.shape), ("strides", array.strides)):
            if [_word(_field(array, "array", name) + 8 * i) for i in range(2)] != list(want):
                return False
    count = _field(a, "object", "count")
    watch, more = weakref.ref(a), a
    return (_field(a, "object", "type") == id(np.ndarray) and _field(a, "object", "count") == count + 1 and more is a
            and _field(a, "array", "weak") == id(watch) and _field(view, "array", "handler") == 0 and _is_capsule(_field(a, "array", "handler")))


def _is_capsule(address: int) -> bool:
    return address != 0 and _word(address + LAYOUTS["object"]["type"][1]) == id(type(_numpy_capsule()))


def _numbers_as_expected() -> bool:
    """The value of a Python float and of NumPy's scalars stands behind the object's head."""
    at = LAYOUTS["object"]["value"][1]
    x = 0.1
    scalars = [np.dtype(name).type(3) for name in _SCALARS]
    return ctypes.c_double.from_address(id(x) + at).value == x and all(ctypes.string_at(id(s) + at, s.dtype.itemsize) == s.tobytes() for s in scalars)


_SCALARS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "complex64", "complex128")


def _made_as_expected(m: Machine) -> bool:
    """An array of a pool is an array like others, and gives its memory back."""
    from numpy._core import multiarray
    memory = m.new_pool()
    for shape in ((), (3,), (2, 3), (0, 4)):
        dtype = np.dtype("float64")
        array, like = m.new_array(memory, dtype, shape), np.empty(shape, dtype)
        if array.flags.num != like.flags.num or array.shape != shape or (array.size and array.strides != like.strides) or array.dtype is not dtype:
            return False
        if multiarray.get_handler_name(array) != "graphc" or _field(memory, "object", "value") == 0 or array.ctypes.data % 64:
            return False
        address = array.ctypes.data
        del array
        if m.new_array(memory, dtype, shape).ctypes.data != address:
            return False
    return True


# ---- results ------------------------------------------------------------------------------------


class Results:
    """Makes the arrays of one function's results: each in memory that the pool of its result keeps warm.

    The first array of each is NumPy's own: a function that is called once needs no pools.
    """

    def __init__(self, dtypes: Sequence[np.dtype[Any]]) -> None:
        self.dtypes = tuple(dtypes)
        self.made: set[int] = set()

    @functools.cached_property
    def pools(self) -> list[Any]:
        """One for each result; no pools at all where there is no native code for them."""
        found = machine()
        return [] if found is None else [found.new_pool() for _ in self.dtypes]

    def __call__(self, n: int, shape: Sequence[int]) -> Array:
        """The n-th result."""
        if n not in self.made:
            self.made.add(n)
            return np.empty(shape, self.dtypes[n])
        found = machine()
        return np.empty(shape, self.dtypes[n]) if found is None else found.new_array(self.pools[n], self.dtypes[n], shape)


# ---- formulas -----------------------------------------------------------------------------------


def work_formula(program: Program) -> Size:
    """Estimated picoseconds of one run on one core."""
    return work(program.steps)


def door_sizes(program: Program, formulas: Iterable[Size]) -> list[Size]:
    """What must be in the table beside the driver's formulas for the door to serve."""
    known = {s for k in program.arguments for size in program.slabs[k].shape for s in dims.symbols(size)}
    wanted: list[Size] = []
    for relation, _ in program.graph.relations:
        wanted += [relation.a, relation.b]
    for (shared, value) in program.graph.updates:
        wanted += [*shared.type.shape, *value.type.shape]
    wanted += [size for k in program.arguments for size in program.slabs[k].shape if isinstance(size, Dim) and size.symbol is None]
    for call in _calls([*wanted, *formulas]):
        wanted += call.args
    return [size for size in dict.fromkeys(wanted) if all(s in known for s in dims.symbols(size))]


def _calls(sizes: Iterable[Size]) -> Iterator[Call]:
    """The floordivs, bcasts, ... in formulas."""
    pending, seen = list(sizes), set()
    while pending:
        size = pending.pop()
        if isinstance(size, int) or size in seen:
            continue
        seen.add(size)
        for monomial, _ in size.terms:
            for atom in monomial:
                if isinstance(atom, Call):
                    yield atom
                    pending += atom.args


class Bound:
    """``limit`` and ``products``: while each product of symbols (1 for those below) is less than the limit, no formula leaves 62 bits."""

    def __init__(self, formulas: Iterable[Size], symbols: Sequence[Symbol]) -> None:
        self.formulas, self.symbols = formulas, symbols
        index = {s: n for n, s in enumerate(symbols)}
        monomials: set[tuple[int, ...]] = set()
        largest = 1
        for size in formulas:
            polynomial = _magnitude(size, index)
            monomials |= polynomial.keys()
            largest = max(largest, sum(polynomial.values()))
        self.limit = float(1 << 62) / largest
        self.products = [m for m in sorted(monomials) if m and not any(m != other and _divides(m, other) for other in monomials)]

    def check(self, values: Sequence[int]) -> None:
        """MemoryError if for these values of the symbols a formula comes to more than 62 bits."""
        if all(math.prod([max(1, values[n]) for n in product]) < self.limit for product in self.products):
            return
        env = dict(zip(self.symbols, values, strict=True))
        for size in self.formulas:
            if abs(dims.evaluate(size, env)) >= 1 << 62:
                raise MemoryError(f"the sizes {', '.join(f'{s} = {n}' for s, n in env.items())} need more memory than there can be")


def _divides(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) <= len(b) and all(a.count(n) <= b.count(n) for n in set(a))


def _magnitude(size: Size, index: Mapping[Symbol, int]) -> dict[tuple[int, ...], int]:
    """A polynomial of the symbols with positive coefficients that is nowhere smaller than the size, or any step to it."""
    if isinstance(size, int):
        return {(): abs(size)}
    total: dict[tuple[int, ...], int] = {(): abs(size.const)}
    for monomial, coefficient in size.terms:
        part: dict[tuple[int, ...], int] = {(): abs(coefficient)}
        for atom in monomial:
            factor: dict[tuple[int, ...], int] = {}
            if isinstance(atom, Symbol):
                factor[(index[atom],)] = 1
            else:
                for arg in atom.args:
                    for m, c in _magnitude(arg, index).items():
                        factor[m] = factor.get(m, 0) + c
            product: dict[tuple[int, ...], int] = {}
            for m, c in part.items():
                for n, d in factor.items():
                    key = tuple(sorted((*m, *n)))
                    product[key] = product.get(key, 0) + c * d
            part = product
        for m, c in part.items():
            total[m] = total.get(m, 0) + c
    return total


# ---- records ------------------------------------------------------------------------------------


class _Record(Array):  # type: ignore[misc]
    """A function's record; ``kept`` are the objects and rows that it points to.  Its end is that of frames and spare arrays."""

    kept: list[Any]
    leaves: int  # the address of the leaves
    end: tuple[Callable[[int], None], int]

    def __del__(self) -> None:
        end = self.__dict__.get("end")
        if end is not None:  # a view has none
            release, address = end
            release(address)


class _Rows:
    """Rows of words at addresses that stay, and the objects that they point to."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def row(self, words: Sequence[int]) -> int:
        found = np.array([*words, 0], np.int64)
        self.kept.append(found)
        return int(found.ctypes.data)

    def structs(self, name: str, fields: Sequence[Mapping[str, int]]) -> int:
        return self.row([word for each in fields for word in _words(name, each)])

    def object(self, thing: object) -> int:
        self.kept.append(thing)
        return id(thing)


def _words(name: str, fields: Mapping[str, int]) -> list[int]:
    words = [0] * (SIZES[name] // 8)
    for field, value in fields.items():
        words[LAYOUTS[name][field][1] // 8] = value
    return words


class _Unfit(Exception):
    """The function has to go the careful way."""


def entry(runner: Any, door: Any, structure: Any, careful: Callable[..., Any], kept: Any = None) -> Callable[..., Any] | None:
    """The callable for a function's calls, or None.

    Args:
        runner: an LlvmRunner; of it ``native``, ``make`` (Results) and ``threads``.
        door: the graphc/binding.py Door whose careful path this one stands before.
        structure: "one", None, "list", or the keys of a dict.
        careful: what is called, with the same arguments, for whatever is not exactly as expected.
        kept: the graphc/kept.py KeptRunner that stands before the runner, if one does.
    """
    found = machine()
    if found is None or not runner.make.pools:
        return None
    try:
        record = _record(found, runner, door, structure, careful)
    except _Unfit:
        return None
    if kept is not None:
        kept.watch(functools.partial(_expect, weakref.ref(record), [record.leaves + k * SIZES["leaf"] for k in kept.places]))
    return found.callable(record)


def _record(m: Machine, runner: Any, door: Any, structure: Any, careful: Callable[..., Any]) -> _Record:
    native = runner.native
    program: Program = native.program
    graph, slot, symbols = program.graph, native.slot, native.symbols
    if len(native.stretches) != len(native.parts) or len(native.stretches) > 1:
        raise _Unfit("steps that run in Python")
    if [s.container for s in graph.shared[:len(door.shared)]] != [s.container for s in door.shared] or [s.container for s, _ in graph.updates] != [
            s.container for s in door.updated]:
        raise _Unfit("state in another order")
    rows = _Rows()
    leaves, pseudo, relations = _leaves(rows, m, door, program, slot, symbols)
    relations += _relations(program, slot)
    bound: Bound = native.bound
    outputs = len(graph.outputs)
    roots, made_dims = _roots(rows, m, runner, door, program, slot)
    names = structure if isinstance(structure, tuple) else ()
    form = "dict" if isinstance(structure, tuple) else "none" if structure is None else structure
    template = [0] * (len(program.slabs) + 1)  # the last is the clock of a profiled driver
    for s in program.slabs:
        if s.place == "constant":
            template[s.id] = rows.object(s.data) and s.data.ctypes.data
    locks = [rows.object(method) for s in door.locked for method in (functools.partial(_acquire, s.container.lock), s.container.lock.release)]
    minima = [word for pair in _minima(door, program, symbols) for word in pair]
    products = [word for product in bound.products for word in (len(product), *product)]

    at = LAYOUTS["frame"]["symbols"][1]
    offsets = {}
    for name, words in (("", len(symbols) + pseudo + 1), ("table", len(slot)), ("slabs", len(template)), ("scalars", 2 * len(leaves)), ("held", len(leaves)),
                        ("made", len(roots)), ("nbytes", len(roots)), ("dims", made_dims)):
        if name:
            offsets[name + "_at"] = at
        at += 8 * words
    fields = {
        "world": m.address, "careful": rows.object(careful), "parameters": len(door.parameters), "leaf_count": len(leaves), "leaves": rows.structs("leaf", leaves),
        "lock_count": len(locks) // 2, "locks": rows.row(locks), "minimum_count": len(minima) // 2, "minima": rows.row(minima),
        "product_count": len(bound.products), "products": rows.row(products), "limit": struct.unpack("q", struct.pack("d", bound.limit))[0],
        "relation_count": len(relations), "relations": rows.row([word for r in relations for word in r]), "root_count": len(roots),
        "output_count": outputs, "roots": rows.structs("root", roots), "keys": rows.row([rows.object(name) for name in names]), "form": FORMS[form],
        "sizes": native.addresses[0], "stretch": native.addresses[1] if native.stretches else 0, "slot_bytes": slot[native.nbytes],
        "slot_work": slot[native.work], "threads": -1 if runner.threads is None else runner.threads, "frame_bytes": (at + 63) // 64 * 64,
        "slabs": rows.row(template), "slabs_bytes": 8 * len(template), **offsets}
    record = _Record(SIZES["rec"] // 8, np.int64)
    record[:] = _words("rec", fields)
    record.kept, record.end = [*rows.kept, native, m], (m.release, record.ctypes.data)
    record.leaves = fields["leaves"]
    return record


def _expect(watched: weakref.ref[_Record], leaves: Sequence[int], arrays: Sequence[Array]) -> None:
    """Calls with other state than these arrays go the careful way: all calls, if there are none."""
    record = watched()
    if record is None:  # the function is gone
        return
    for n, leaf in enumerate(leaves):
        ctypes.c_int64.from_address(leaf + LAYOUTS["leaf"]["expected"][1]).value = id(arrays[n]) if arrays else id(record)


def _acquire(lock: Any) -> None:
    """Wait for a lock, and look for Ctrl-C: one that came just before the wait does not end it."""
    while not lock.acquire(timeout=0.05):
        pass


def _leaves(rows: _Rows, m: Machine, door: Any, program: Program, slot: Mapping[Size, int],
            symbols: Sequence[Symbol]) -> tuple[list[dict[str, int]], int, list[tuple[int, int, int]]]:
    """Arguments and state; how many sizes are formulas that have a place behind the symbols; what relates these to their formulas."""
    index = {s: n for n, s in enumerate(symbols)}
    defined: set[Symbol] = set()
    leaves: list[dict[str, int]] = []
    relations = []
    pseudo = 0
    for k, id_ in enumerate(program.arguments):
        array = program.slabs[id_].array
        axes = []
        for size in array.shape:
            symbol = size.symbol if isinstance(size, Dim) else None
            if isinstance(size, int):
                axes.append({"kind": AXES["number"], "value": size})
            elif symbol is None:
                axes.append({"kind": AXES["defines"], "value": len(symbols) + pseudo})
                relations.append((RELATIONS["symbol"], _slot(slot, size), len(symbols) + pseudo))
                pseudo += 1
            else:
                axes.append({"kind": AXES["symbol" if symbol in defined else "defines"], "value": index[symbol]})
                defined.add(symbol)
        leaf = {"descr": rows.object(array.dtype), "rank": array.ndim, "slab": 8 * id_, "axes": rows.structs("axis", axes), "itemsize": array.dtype.itemsize,
                "scalar_at": 16 * k}
        if k >= len(door.parameters):
            leaf["place"] = rows.object(program.graph.shared[k - len(door.parameters)].container) + m.place
        elif not array.shape:
            leaf["accepts"], leaf["scalar"] = _accepts(array.dtype, door.downcast), rows.object(array.dtype.type)
        leaves.append(leaf)
    if len(defined) != len(symbols):
        raise _Unfit("a size that has to be solved for")
    return leaves, pseudo, relations


def _accepts(dtype: np.dtype[Any], downcast: bool | None) -> int:
    """Which numbers convert as the careful path would do it; see binding.convert."""
    if dtype.name not in _SCALARS:
        return 0
    bits = ACCEPTS["scalar"]
    if dtype.name == "float64":
        bits |= ACCEPTS["float as f64"] | ACCEPTS["int as f64"]
    elif dtype.name == "float32":
        bits |= ACCEPTS["int as f32"] | (ACCEPTS["float as f32"] if downcast is not False else 0)
    elif dtype.kind in "iu":
        bits |= ACCEPTS["int signed" if dtype.kind == "i" else "int unsigned"]
    return bits


def _slot(slot: Mapping[Size, int], size: Size) -> int:
    if size not in slot:
        raise _Unfit(f"no formula for {size}")
    return slot[size]


def _relations(program: Program, slot: Mapping[Size, int]) -> list[tuple[int, int, int]]:
    found = [(RELATIONS["zero"], _slot(slot, guard), 0) for guard in program.guards]
    for relation, _ in program.graph.relations:
        found.append((RELATIONS[relation.kind], _slot(slot, relation.a), _slot(slot, relation.b)))
    for shared, value in program.graph.updates:
        for declared, have in zip(shared.type.shape, value.type.shape, strict=True):
            if isinstance(declared, int) and declared != have:
                found.append((RELATIONS["equal"], _slot(slot, declared), _slot(slot, have)))
    for call in _calls(slot):
        if call.fn in ("floordiv", "mod"):
            found.append((RELATIONS["nonzero"], _slot(slot, call.args[1]), 0))
        elif call.fn == "bcast":
            found += [(RELATIONS["broadcast"], _slot(slot, a), _slot(slot, b)) for n, a in enumerate(call.args) for b in call.args[n + 1:]]
    return list(dict.fromkeys(found))


def _minima(door: Any, program: Program, symbols: Sequence[Symbol]) -> list[tuple[int, int]]:
    """What symbols are at least.  The program may know a size of the door by another symbol, or as a number."""
    index = {s: n for n, s in enumerate(symbols)}
    found = []
    for symbol, low in door.minima:
        if low <= 0:
            continue
        if symbol in index:
            found.append((index[symbol], low))
            continue
        sizes = [have for v, k in zip(door.leaves, program.arguments, strict=True) for size, have in zip(v.type.shape, program.slabs[k].array.shape, strict=True)
                 if isinstance(size, Dim) and size.symbol == symbol]
        if not sizes:
            raise _Unfit(f"a minimum of {symbol}")
        for size in sizes:
            known = size.symbol if isinstance(size, Dim) else None
            if known is not None:
                found.append((index[known], low))
            elif not isinstance(size, int) or size < low:
                raise _Unfit(f"a minimum of {symbol}")
    return found


def _roots(rows: _Rows, m: Machine, runner: Any, door: Any, program: Program, slot: Mapping[Size, int]) -> tuple[list[dict[str, int]], int]:
    """Results, and how many sizes they have together."""
    roots = []
    at = 0
    outputs = len(program.graph.outputs)
    for n, k in enumerate(program.roots):
        array = program.slabs[k].array
        root = {"descr": rows.object(array.dtype), "rank": array.ndim, "slab": 8 * k, "pool": rows.object(runner.make.pools[n]),
                "slots": rows.row([_slot(slot, size) for size in array.shape]), "itemsize": array.dtype.itemsize, "dims_at": 8 * at}
        if n >= outputs:
            root["place"] = rows.object(door.updated[n - outputs].container) + m.place
        at += array.ndim
        roots.append(root)
    return roots, at
