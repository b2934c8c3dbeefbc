"""The native door's structures, and its code that has to do with sizes: is the call one that the program is for?"""

from __future__ import annotations

from graphc.backends.llvm.capi import LAYOUTS, Code, layout, product
from graphc.backends.llvm.values import Module, select

__all__ = ["ACCEPTS", "AXES", "FORMS", "MODES", "RELATIONS", "row", "size_functions", "symbols_of"]

#: of the process: objects, NumPy's function, what is known of gc.config.threads, from how many picoseconds on a call is long; updating calls:
#: a list with an element for each one on the careful way, how many hold locks, how many do not
layout("world", "*none *array_type *float_type *int_type *new_array *refresh *overlay *settings *key *seen threads countdown usable let_go_ps parallel_ps "
       "*updating busy flying")
#: of a compiled function: counts and rows, then where things are in a frame
layout("rec", "*world *careful parameters leaf_count *leaves lock_count *locks minimum_count *minima product_count *products limit "
       "relation_count *relations root_count output_count *roots *keys form *sizes *stretch slot_bytes slot_work threads *frames frame_count "
       "frame_bytes *slabs slabs_bytes table_at slabs_at scalars_at held_at made_at nbytes_at dims_at")
#: an argument or a shared variable; slab and scalar_at are offsets, place is that of a shared variable's value, expected the array that it must be
layout("leaf", "*descr rank slab *axes *scalar accepts itemsize scalar_at *place *expected")
layout("axis", "kind value")
layout("relation", "kind a b")
#: a result; place is that of the shared variable that it updates, slots say where in the table its sizes are
layout("root", "*descr rank slab *pool *place *spare *slots itemsize dims_at")
#: the memory of one call; the rest follows behind the symbols
layout("frame", "*next valid *arena arena_bytes held made locked mode symbols")

#: what an axis is: of that size, where a symbol is found out, of a symbol's size
AXES = {"number": 0, "defines": 1, "symbol": 2}
#: what sizes in the table must satisfy
RELATIONS = {"equal": 0, "broadcast": 1, "symbol": 2, "nonzero": 3, "zero": 4}
#: what a parameter of rank 0 takes besides arrays, as bits
ACCEPTS = {"scalar": 1, "float as f64": 2, "float as f32": 4, "int as f64": 8, "int as f32": 16, "int signed": 32, "int unsigned": 64}
#: how a call that updates state sees to it that no other comes between: not at all yet, it looks before it stores, it holds locks
MODES = {"none": 0, "flying": 1, "busy": 2}
#: what a call returns
FORMS = {"none": 0, "one": 1, "list": 2, "dict": 3}


def row(f: Code, rec: str, frame: str, name: str) -> str:
    """A row in the frame."""
    return f.step(frame, f.get(rec, f"rec.{name}_at"))


def symbols_of(f: Code, frame: str) -> str:
    return f.step(frame, LAYOUTS["frame"]["symbols"][1])


def size_functions(m: Module) -> None:
    for write in (_sizes, _minima, _products, _relations, _nbytes):
        write(m)


def _sizes(m: Module) -> None:
    """Minima, formulas, relations, the arena: nothing to do if the symbols are those of the frame's last call."""
    f = Code(m, "i1 sizes(ptr rec, ptr frame)", rare=True)
    rec, frame = f.pointers
    f.need(f.get(frame, "frame.valid").eq(0), "good")
    symbols, table = symbols_of(f, frame), row(f, rec, frame, "table")
    f.need(f.ask("minima", rec, symbols))
    f.need(f.ask("products", rec, symbols))
    f.do(f.to(rec, "rec.sizes"), symbols, table)
    f.need(f.ask("relations", rec, symbols, table))
    f.need(f.ask("nbytes", rec, frame, table))
    bytes_ = f.word(f.item(table, f.get(rec, "rec.slot_bytes")))
    f.need(bytes_.gt(f.get(frame, "frame.arena_bytes")), "sized")
    f.api("free", "void", f.to(frame, "frame.arena"))
    f.put(frame, "frame.arena", "null")
    f.put(frame, "frame.arena_bytes", 0)
    arena = f.run("allocate", bytes_)
    f.need(f.there(arena))
    f.put(frame, "frame.arena", arena)
    f.put(frame, "frame.arena_bytes", bytes_)
    f.jump("sized")
    f.label("sized")
    f.put(frame, "frame.valid", 1)
    f.jump("good")
    f.label("good")
    f.ret(True)
    f.refuse()
    f.end()


def _minima(m: Module) -> None:
    """Pairs: a symbol, and what it is at least."""
    f = Code(m, "i1 minima(ptr rec, ptr symbols)", rare=True)
    rec, symbols = f.pointers
    minima = f.to(rec, "rec.minima")
    with f.each(f.get(rec, "rec.minimum_count")) as loop:
        which, low = f.word(f.item(minima, loop.index * 2)), f.word(f.item(minima, loop.index * 2 + 1))
        f.need(f.word(f.item(symbols, which)).ge(low))
    f.ret(True)
    f.refuse()
    f.end()


def _products(m: Module) -> None:
    """Can no formula leave 62 bits?  Rows (count, symbols ...) whose product is below the limit."""
    f = Code(m, "i1 products(ptr rec, ptr symbols)", rare=True)
    rec, symbols = f.pointers
    products = f.to(rec, "rec.products")
    limit = f.get(rec, "rec.limit").bitcast("f64")
    with f.each(f.get(rec, "rec.product_count")) as rows:
        at = rows.carry(f.const(0, "i64"))
        count = f.word(f.item(products, at))
        with f.each(count) as factors:
            so_far = factors.carry(f.const(1.0, "f64"))
            which = f.word(f.item(products, at + factors.index + 1))
            n = f.word(f.item(symbols, which))
            factors.next(so_far, so_far * select(n.gt(1), n, 1).to("f64"))
        f.need(factors.result(so_far).lt(limit))
        rows.next(at, at + count + 1)
    f.ret(True)
    f.refuse()
    f.end()


def _relations(m: Module) -> None:
    f = Code(m, "i1 relations(ptr rec, ptr symbols, ptr table)", rare=True)
    rec, symbols, table = f.pointers
    relations = f.to(rec, "rec.relations")
    with f.each(f.get(rec, "rec.relation_count")) as loop:
        relation = f.item(relations, loop.index, "relation")
        a = f.word(f.item(table, f.get(relation, "relation.a")))
        where = f.get(relation, "relation.b")
        labels = dict(zip(RELATIONS, f.labels("relation", *RELATIONS), strict=True))
        f.switch(f.get(relation, "relation.kind"), "bad", *((RELATIONS[kind], label) for kind, label in labels.items()))
        for kind, label in labels.items():
            f.label(label)
            if kind == "zero":
                good = a.eq(0)
            elif kind == "nonzero":
                good = a.ne(0)
            else:
                b = f.word(f.item(symbols if kind == "symbol" else table, where))
                good = a.eq(b) | a.eq(1) | b.eq(1) if kind == "broadcast" else a.eq(b)
            f.branch(good, loop.latch, "bad")
        f.label("after")
    f.ret(True)
    f.refuse()
    f.end()


def _nbytes(m: Module) -> None:
    """The sizes of the results, and their bytes."""
    f = Code(m, "i1 nbytes(ptr rec, ptr frame, ptr table)", rare=True)
    rec, frame, table = f.pointers
    roots, all_bytes, all_dims = f.to(rec, "rec.roots"), row(f, rec, frame, "nbytes"), row(f, rec, frame, "dims")
    with f.each(f.get(rec, "rec.root_count")) as loop:
        root = f.item(roots, loop.index, "root")
        dims, slots, itemsize = f.step(all_dims, f.get(root, "root.dims_at")), f.to(root, "root.slots"), f.get(root, "root.itemsize")
        with f.each(f.get(root, "root.rank")) as axes:
            bytes_ = axes.carry(itemsize)
            n = f.word(f.item(table, f.word(f.item(slots, axes.index))))
            f.store(n, f.item(dims, axes.index))
            more, over = product(f, bytes_, n)
            f.need(~(over | n.lt(0)))
            axes.next(bytes_, more)
        f.store(axes.result(bytes_), f.item(all_bytes, loop.index))
    f.ret(True)
    f.refuse()
    f.end()
