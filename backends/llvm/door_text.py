"""The native door's code: one module for all functions of a process.

``call`` is what a compiled function's call enters; the functions after it are its steps, in their order.  What differs from
function to function is in its record (door_sizes.py has the structures), which door.py fills.  Everything runs with the interpreter's lock held but for
the work itself, where it is long.  ``docs/door.md`` says what is checked and why.

A step that meets something unexpected answers no; nothing was changed by then, and the call goes the careful way.
"""

from __future__ import annotations

from graphc.backends.llvm.capi import DENSE, FORTRAN, LAYOUTS, OWNER, WRITEABLE, Code, memory_functions
from graphc.backends.llvm.door_sizes import ACCEPTS, AXES, FORMS, MODES, row, size_functions, symbols_of
from graphc.backends.llvm.target import Target
from graphc.backends.llvm.values import Module, Value, select

__all__ = ["TABLE", "door_module"]

#: what the module's symbol points to
TABLE = ("call", "release", "new_pool", "new_array")
#: frames that a function keeps, for calls that run at once
MOST_FRAMES = 8


def door_module(target: Target) -> str:
    """The module's text."""
    m = Module(target)
    m.globals["gc_door"] = f"@gc_door = constant [{len(TABLE)} x ptr] [{', '.join(f'ptr @{name}' for name in TABLE)}]"
    for write in (_call, _take_frame, _leave, _drop, _arguments, _state, _fit, _scalar, _begin_update, _may_store, _lock, _unlock, size_functions, _results, _work, _threads,
                  _value, _commit, _retire, _release, _new_array, memory_functions):
        write(m)
    return m.text()


def _call(m: Module) -> None:
    """PyObject *call(self, args, nargs, kwnames): self is an array whose data is the record."""
    f = Code(m, "ptr call(ptr self, ptr args, i64 given, ptr names)")
    self, args, names = f.pointers
    given, = f.numbers
    rec = f.to(self, "array.data")
    f.need(given.eq(f.get(rec, "rec.parameters")) & f.same(names, "null"), "careful")
    frame = f.run("take_frame", rec)
    f.need(f.there(frame), "careful")
    f.need(f.ask("arguments", rec, frame, args), "leave")
    f.need(f.ask("begin_update", rec, frame), "failed")
    f.need(f.ask("state", rec, frame), "leave")
    f.need(f.ask("sizes", rec, frame), "leave")
    f.need(f.ask("results", rec, frame), "leave")
    f.need(f.ask("work", rec, frame, kind="i64").eq(0), "leave")
    value = f.run("value", rec, frame)
    f.need(f.there(value), "failed")
    f.need(f.ask("may_store", rec, frame), "late")
    f.put(frame, "frame.made", 0)
    f.do("commit", rec, frame)
    f.do("leave", rec, frame)
    f.ret(value)
    f.label("late")  # the value has the outputs
    f.api("Py_DecRef", "void", value)
    count = f.get(rec, "rec.output_count")
    f.do("drop", f.item(row(f, rec, frame, "made"), count), f.get(frame, "frame.made") - count)
    f.put(frame, "frame.made", 0)
    f.jump("leave")
    f.label("failed")  # an exception is set: KeyboardInterrupt while waiting for a lock, MemoryError
    f.do("leave", rec, frame)
    f.ret("null")
    f.label("leave")
    f.do("leave", rec, frame)
    f.jump("careful")
    f.label("careful")
    f.ret(f.api("PyObject_Vectorcall", "ptr", f.to(rec, "rec.careful"), args, given, names))
    f.end()


# ---- frames -------------------------------------------------------------------------------------


def _take_frame(m: Module) -> None:
    f = Code(m, "ptr take_frame(ptr rec)")
    rec, = f.pointers
    kept = f.to(rec, "rec.frames")
    f.need(f.there(kept), "fresh")
    f.put(rec, "rec.frames", f.to(kept, "frame.next"))
    f.put(rec, "rec.frame_count", f.get(rec, "rec.frame_count") - 1)
    f.ret(kept)
    f.label("fresh")
    bytes_ = f.get(rec, "rec.frame_bytes")
    frame = f.api("aligned_alloc", "ptr", 64, bytes_)
    f.need(f.there(frame))
    f.api("memset", "ptr", frame, f.const(0, "i32"), bytes_)
    f.api("memcpy", "ptr", row(f, rec, frame, "slabs"), f.to(rec, "rec.slabs"), f.get(rec, "rec.slabs_bytes"))
    f.ret(frame)
    f.label("bad")
    f.ret("null")
    f.end()


def _leave(m: Module) -> None:
    """What a call holds is let go: state, results that nobody gets, locks, the frame."""
    f = Code(m, "void leave(ptr rec, ptr frame)")
    rec, frame = f.pointers
    for name in ("held", "made"):
        f.do("drop", row(f, rec, frame, name), f.get(frame, f"frame.{name}"))
        f.put(frame, f"frame.{name}", 0)
    f.do("unlock", rec, f.get(frame, "frame.locked"))
    f.put(frame, "frame.locked", 0)
    mode, world = f.get(frame, "frame.mode"), f.to(rec, "rec.world")
    f.need(mode.ne(MODES["none"]), "ended")
    f.put(frame, "frame.mode", MODES["none"])
    f.need(mode.eq(MODES["flying"]), "held")
    f.put(world, "world.flying", f.get(world, "world.flying") - 1)
    f.jump("ended")
    f.label("held")
    f.put(world, "world.busy", f.get(world, "world.busy") - 1)
    f.jump("ended")
    f.label("ended")
    count = f.get(rec, "rec.frame_count")
    f.need(count.lt(MOST_FRAMES), "enough")
    f.put(rec, "rec.frame_count", count + 1)
    f.put(frame, "frame.next", f.to(rec, "rec.frames"))
    f.put(rec, "rec.frames", frame)
    f.ret()
    f.label("enough")
    f.do("free_frame", frame)
    f.ret()
    f.end()
    f = Code(m, "void free_frame(ptr frame)", rare=True)
    frame, = f.pointers
    f.api("free", "void", f.to(frame, "frame.arena"))
    f.api("free", "void", frame)
    f.ret()
    f.end()


def _drop(m: Module) -> None:
    """References to arrays.  (Arrays are never immortal: their counts may be written here.)"""
    f = Code(m, "void drop(ptr objects, i64 count)")
    objects, = f.pointers
    count, = f.numbers
    with f.each(count) as loop:
        array = f.pointer(f.item(objects, loop.index))
        n = f.get(array, "object.count")
        less, last = f.labels("array", "less", "last")
        f.branch(n.gt(1), less, last)
        f.label(less)
        f.put(array, "object.count", n - 1)
        f.jump(loop.latch)
        f.label(last)
        f.api("Py_DecRef", "void", array)
    f.ret()
    f.end()


# ---- arguments and state ------------------------------------------------------------------------


def _arguments(m: Module) -> None:
    f = Code(m, "i1 arguments(ptr rec, ptr frame, ptr args)")
    rec, frame, args = f.pointers
    leaves = f.to(rec, "rec.leaves")
    with f.each(f.get(rec, "rec.parameters")) as loop:
        f.need(f.ask("fit", rec, frame, f.item(leaves, loop.index, "leaf"), f.pointer(f.item(args, loop.index))))
    f.ret(True)
    f.refuse()
    f.end()


def _state(m: Module) -> None:
    """All values as of one moment, since no other thread runs meanwhile.  Each is held for the call: set_value may replace it."""
    f = Code(m, "i1 state(ptr rec, ptr frame)")
    rec, frame = f.pointers
    leaves = f.to(rec, "rec.leaves")
    first = f.get(rec, "rec.parameters")
    held = row(f, rec, frame, "held")
    array_type = f.to(f.to(rec, "rec.world"), "world.array_type")
    with f.each(f.get(rec, "rec.leaf_count"), first) as loop:
        leaf = f.item(leaves, loop.index, "leaf")
        array = f.pointer(f.to(leaf, "leaf.place"))
        f.need(f.there(array))
        expected = f.to(leaf, "leaf.expected")
        f.need(f.same(expected, "null") | f.same(expected, array))
        f.need(f.same(f.to(array, "object.type"), array_type))
        f.need(f.ask("fit", rec, frame, leaf, array))
        f.put(array, "object.count", f.get(array, "object.count") + 1)
        f.store(array, f.item(held, loop.index - first))
        f.put(frame, "frame.held", loop.index - first + 1)
    f.ret(True)
    f.refuse()
    f.end()


def _fit(m: Module) -> None:
    """Is it an array of the leaf's dtype, rank and known sizes, dense and aligned?  Then its address is a slab's, its sizes are the symbols'."""
    f = Code(m, "i1 fit(ptr rec, ptr frame, ptr leaf, ptr object)")
    rec, frame, leaf, array = f.pointers
    slab = f.step(row(f, rec, frame, "slabs"), f.get(leaf, "leaf.slab"))
    f.need(f.same(f.to(array, "object.type"), f.to(f.to(rec, "rec.world"), "world.array_type")), "number")
    rank = f.get(array, "array.rank").to("i64")
    dense = (f.get(array, "array.flags") & DENSE).eq(DENSE)
    f.need(f.same(f.to(array, "array.descr"), f.to(leaf, "leaf.descr")) & rank.eq(f.get(leaf, "leaf.rank")) & dense)
    f.store(f.to(array, "array.data"), slab)
    dims, axes, symbols = f.to(array, "array.dims"), f.to(leaf, "leaf.axes"), symbols_of(f, frame)
    with f.each(rank) as loop:
        size = f.word(f.item(dims, loop.index))
        axis = f.item(axes, loop.index, "axis")
        value = f.get(axis, "axis.value")
        number, defines, symbol, other = f.labels("axis", "number", "defines", "symbol", "other")
        f.switch(f.get(axis, "axis.kind"), "bad", (AXES["number"], number), (AXES["defines"], defines), (AXES["symbol"], symbol))
        f.label(number)
        f.branch(size.eq(value), loop.latch, "bad")
        f.label(symbol)
        f.branch(size.eq(f.word(f.item(symbols, value))), loop.latch, "bad")
        f.label(defines)
        place = f.item(symbols, value)
        f.branch(size.eq(f.word(place)), loop.latch, other)
        f.label(other)
        f.store(size, place)
        f.put(frame, "frame.valid", 0)
    f.ret(True)
    f.label("number")
    f.line(f"%taken = call i1 @scalar(ptr {rec}, ptr {frame}, ptr {leaf}, ptr {array}, ptr {slab})")
    f.line("ret i1 %taken")
    f.refuse()
    f.end()


def _scalar(m: Module) -> None:
    """A Python number or a NumPy scalar for a parameter of rank 0: its value is put into the frame."""
    f = Code(m, "i1 scalar(ptr rec, ptr frame, ptr leaf, ptr object, ptr slab)")
    rec, frame, leaf, number, slab = f.pointers
    overflow = f.op("alloca i32")
    accepts, size = f.get(leaf, "leaf.accepts"), f.get(leaf, "leaf.itemsize")
    f.need(accepts.ne(0))
    cell = f.step(row(f, rec, frame, "scalars"), f.get(leaf, "leaf.scalar_at"))
    f.store(cell, slab)
    value = f.step(number, LAYOUTS["object"]["value"][1])
    world, kind = f.to(rec, "rec.world"), f.to(number, "object.type")

    def takes(word: str) -> Value:
        return (accepts & ACCEPTS[word]).ne(0)

    f.need(~f.same(kind, f.to(world, "world.float_type")), "floating")
    f.need(~f.same(kind, f.to(world, "world.int_type")), "integer")
    f.need(takes("scalar") & f.same(kind, f.to(leaf, "leaf.scalar")))
    f.api("memcpy", "ptr", cell, value, size)
    f.ret(True)

    f.label("floating")
    x = f.value(f.op(f"load double, ptr {value}"), "f64")
    f.need(takes("float as f64"), "single")
    f.store(x, cell)
    f.ret(True)
    f.label("single")
    f.need(takes("float as f32"))
    f.store(x.to("f32"), cell)
    f.ret(True)

    f.label("integer")
    f.need((accepts & sum(bit for word, bit in ACCEPTS.items() if word.startswith("int"))).ne(0))
    n = f.api_number("PyLong_AsLongLongAndOverflow", "i64", number, overflow)
    f.need(f.value(f.op(f"load i32, ptr {overflow}"), "i32").eq(0))
    f.need(takes("int as f64"), "int_single")
    f.store(n.to("f64"), cell)
    f.ret(True)
    f.label("int_single")
    f.need(takes("int as f32"), "int_signed")
    f.need((n + (1 << 24)).ule(1 << 25))  # exactly
    f.store(n.to("f32"), cell)
    f.ret(True)
    f.label("int_signed")
    spare = 64 - (size << 3)
    f.need(takes("int signed"), "int_unsigned")
    f.need(((n << spare) >> spare).eq(n))
    f.store(n, cell)  # the low bytes come first, and a cell has 16
    f.ret(True)
    f.label("int_unsigned")
    f.need((n << spare).lshr(spare).eq(n) & n.ge(0))
    f.store(n, cell)
    f.ret(True)
    f.refuse()
    f.end()


# ---- updates ------------------------------------------------------------------------------------
# Two updating calls must not both read the old state and then both write.  A call that finds no other under way "flies": before it stores it
# looks whether the state is still what it read, and whether nobody holds locks, who will store without looking; if not so it goes the
# careful way.  A call that finds others under way is "busy": it takes the locks of the state that it updates and reads, in the order
# that all functions have.


def _alone(f: Code, world: str) -> Value:
    """Is no updating call with locks under way?"""
    return f.get(world, "world.busy").eq(0) & f.get(f.to(world, "world.updating"), "list.length").eq(0)


def _begin_update(m: Module) -> None:
    f = Code(m, "i1 begin_update(ptr rec, ptr frame)")
    rec, frame = f.pointers
    f.need(f.get(rec, "rec.lock_count").ne(0), "free")
    world = f.to(rec, "rec.world")
    flying = f.get(world, "world.flying")
    f.need(_alone(f, world) & flying.eq(0), "lock")
    f.put(world, "world.flying", flying + 1)
    f.put(frame, "frame.mode", MODES["flying"])
    f.jump("free")
    f.label("free")
    f.ret(True)
    f.label("lock")
    f.put(world, "world.busy", f.get(world, "world.busy") + 1)
    f.put(frame, "frame.mode", MODES["busy"])
    f.line(f"%locked = call i1 @lock(ptr {rec}, ptr {frame})")
    f.line("ret i1 %locked")
    f.end()


def _may_store(m: Module) -> None:
    f = Code(m, "i1 may_store(ptr rec, ptr frame)")
    rec, frame = f.pointers
    f.need(f.get(frame, "frame.mode").eq(MODES["flying"]), "free")
    f.need(_alone(f, f.to(rec, "rec.world")))
    leaves, first, held = f.to(rec, "rec.leaves"), f.get(rec, "rec.parameters"), row(f, rec, frame, "held")
    with f.each(f.get(rec, "rec.leaf_count"), first) as loop:
        now = f.pointer(f.to(f.item(leaves, loop.index, "leaf"), "leaf.place"))
        f.need(f.same(now, f.pointer(f.item(held, loop.index - first))))
    f.jump("free")
    f.label("free")
    f.ret(True)
    f.refuse()
    f.end()


def _lock(m: Module) -> None:
    f = Code(m, "i1 lock(ptr rec, ptr frame)", rare=True)
    rec, frame = f.pointers
    locks = f.to(rec, "rec.locks")
    with f.each(f.get(rec, "rec.lock_count")) as loop:
        answer = f.api("PyObject_CallNoArgs", "ptr", f.pointer(f.item(locks, loop.index * 2)))
        f.need(f.there(answer))
        f.api("Py_DecRef", "void", answer)
        f.put(frame, "frame.locked", loop.index + 1)
    f.ret(True)
    f.refuse()
    f.end()


def _unlock(m: Module) -> None:
    f = Code(m, "void unlock(ptr rec, i64 count)")
    rec, = f.pointers
    count, = f.numbers
    locks = f.to(rec, "rec.locks")
    with f.each(count) as loop:
        answer = f.api("PyObject_CallNoArgs", "ptr", f.pointer(f.item(locks, (count - loop.index) * 2 - 1)))
        f.need(f.there(answer), loop.latch)
        f.api("Py_DecRef", "void", answer)
    f.ret()
    f.end()


# ---- results and work ---------------------------------------------------------------------------


def _results(m: Module) -> None:
    """The state's spare array where its shape fits, else an array in memory of the result's pool."""
    f = Code(m, "i1 results(ptr rec, ptr frame)")
    rec, frame = f.pointers
    roots, nbytes, all_dims = f.to(rec, "rec.roots"), row(f, rec, frame, "nbytes"), row(f, rec, frame, "dims")
    made, slabs, world = row(f, rec, frame, "made"), row(f, rec, frame, "slabs"), f.to(rec, "rec.world")
    new_array, array_type = f.to(world, "world.new_array"), f.to(world, "world.array_type")
    with f.each(f.get(rec, "rec.root_count")) as loop:
        root = f.item(roots, loop.index, "root")
        rank, dims = f.get(root, "root.rank"), f.step(all_dims, f.get(root, "root.dims_at"))
        place = f.item(made, loop.index)
        spare = f.to(root, "root.spare")
        kept, fresh, other, have = f.labels("result", "kept", "fresh", "other", "have")
        f.branch(f.there(spare), kept, fresh)
        f.label(kept)
        f.put(root, "root.spare", "null")
        spare_dims = f.to(spare, "array.dims")
        with f.each(rank) as axes:
            f.need(f.word(f.item(dims, axes.index)).eq(f.word(f.item(spare_dims, axes.index))), other)
        f.store(spare, place)
        f.jump(have)
        f.label(other)
        f.api("Py_DecRef", "void", spare)
        f.jump(fresh)
        f.label(fresh)
        array = f.run("make", new_array, array_type, f.to(root, "root.pool"), f.to(root, "root.descr"), rank, dims, f.word(f.item(nbytes, loop.index)))
        f.need(f.there(array))
        f.store(array, place)
        f.jump(have)
        f.label(have)
        f.put(frame, "frame.made", loop.index + 1)
        f.store(f.to(f.pointer(place), "array.data"), f.step(slabs, f.get(root, "root.slab")))
    f.ret(True)
    f.label("bad")  # the careful way runs out of memory too, and says with which sizes
    f.api("PyErr_Clear", "void")
    f.ret(False)
    f.end()


def _work(m: Module) -> None:
    """The program.  Long work lets other threads run; longer work may use several."""
    f = Code(m, "i64 work(ptr rec, ptr frame)")
    rec, frame = f.pointers
    stretch, world = f.to(rec, "rec.stretch"), f.to(rec, "rec.world")
    f.need(f.there(stretch), "nothing")
    table, slabs, arena = row(f, rec, frame, "table"), row(f, rec, frame, "slabs"), f.to(frame, "frame.arena")
    cost = f.word(f.item(table, f.get(rec, "rec.slot_work")))
    f.need(cost.ge(f.get(world, "world.let_go_ps")), "short")
    before = f.block
    f.branch(cost.ge(f.get(world, "world.parallel_ps")), "wide", "long")
    f.label("wide")
    asked = f.ask("threads", world, rec, kind="i64")
    f.jump("long")
    f.label("long")
    threads = f.phi(asked, (f.const(1, "i64"), before), (asked, "wide"))
    thread = f.api("PyEval_SaveThread", "ptr")
    bad = f.ask(stretch, slabs, table, arena, threads, kind="i64")
    f.api("PyEval_RestoreThread", "void", thread)
    f.ret(bad)
    f.label("short")
    f.ret(f.ask(stretch, slabs, table, arena, 1, kind="i64"))
    f.label("nothing")
    f.ret(f.const(0, "i64"))
    f.end()


def _threads(m: Module) -> None:
    """The function's own number, else gc.config.threads, which is read anew when its value is another object, and now and then."""
    f = Code(m, "i64 threads(ptr world, ptr rec)", rare=True)
    world, rec = f.pointers
    overlay_at = f.op("alloca ptr")
    setting_at = f.op("alloca ptr")
    f.store("null", overlay_at)
    key = f.to(world, "world.key")
    f.api("PyContextVar_Get", "i32", f.to(world, "world.overlay"), "null", overlay_at)
    overlay = f.pointer(overlay_at)
    f.need(f.there(overlay), "process")
    here = f.api("PyDict_GetItemWithError", "ptr", overlay, key)
    f.api("Py_DecRef", "void", overlay)  # the context still has it
    f.store(here, setting_at)
    f.branch(f.there(here), "found", "process")
    f.label("process")
    f.store(f.api("PyDict_GetItemWithError", "ptr", f.to(world, "world.settings"), key), setting_at)
    f.jump("found")
    f.label("found")
    countdown = f.get(world, "world.countdown")
    f.put(world, "world.countdown", countdown - 1)
    f.need(f.same(f.pointer(setting_at), f.to(world, "world.seen")) & countdown.gt(0), "ask")
    f.ret(f.ask("threads_of", rec, f.get(world, "world.threads"), f.get(world, "world.usable"), kind="i64"))
    f.label("ask")  # a Python function, which also writes into the world what it found
    answer = f.api("PyObject_CallNoArgs", "ptr", f.to(world, "world.refresh"))
    f.need(f.there(answer))
    configured = f.api_number("PyLong_AsLong", "i64", answer)
    f.api("Py_DecRef", "void", answer)
    f.ret(f.ask("threads_of", rec, configured, f.get(world, "world.usable"), kind="i64"))
    f.label("bad")
    f.api("PyErr_Clear", "void")
    f.ret(f.const(1, "i64"))
    f.end()
    f = Code(m, "i64 threads_of(ptr rec, i64 configured, i64 usable)", rare=True)
    rec, = f.pointers
    configured, usable = f.numbers
    own = f.get(rec, "rec.threads")  # below 0: none of its own; 0: all
    few = select(own.lt(usable) & own.ne(0), own, usable)
    f.ret(select(own.lt(0), configured, few))
    f.end()


# ---- what the call returns, and state -----------------------------------------------------------


def _value(m: Module) -> None:
    """The call's value, which takes over the outputs; null and MemoryError if it cannot be made."""
    f = Code(m, "ptr value(ptr rec, ptr frame)")
    rec, frame = f.pointers
    made, count = row(f, rec, frame, "made"), f.get(rec, "rec.output_count")
    f.switch(f.get(rec, "rec.form"), "none", *((FORMS[name], name) for name in ("one", "list", "dict")))
    f.label("one")
    f.ret(f.pointer(made))
    f.label("none")
    none = f.to(f.to(rec, "rec.world"), "world.none")
    f.api("Py_IncRef", "void", none)
    f.ret(none)
    f.label("list")
    items = f.api("PyList_New", "ptr", count)
    f.need(f.there(items))
    with f.each(count) as loop:
        f.api("PyList_SetItem", "i32", items, loop.index, f.pointer(f.item(made, loop.index)))
    f.ret(items)
    f.label("dict")
    table = f.api("PyDict_New", "ptr")
    f.need(f.there(table))
    keys = f.to(rec, "rec.keys")
    with f.each(count) as loop:
        key, array = f.pointer(f.item(keys, loop.index)), f.pointer(f.item(made, loop.index))
        f.need(f.api_number("PyDict_SetItem", "i32", table, key, array).eq(0), "unfinished")
    f.do("drop", made, count)  # the dict has references of its own
    f.ret(table)
    f.label("unfinished")
    f.api("Py_DecRef", "void", table)
    f.jump("bad")
    f.label("bad")
    f.ret("null")
    f.end()


def _commit(m: Module) -> None:
    """New state.  All is stored before anything is let go, so that no other code runs in between."""
    f = Code(m, "void commit(ptr rec, ptr frame)")
    rec, frame = f.pointers
    first, count = f.get(rec, "rec.output_count"), f.get(rec, "rec.root_count")
    f.need(first.lt(count), "done")
    roots, made = f.to(rec, "rec.roots"), row(f, rec, frame, "made")
    with f.each(count, first) as loop:
        place, new_at = f.to(f.item(roots, loop.index, "root"), "root.place"), f.item(made, loop.index)
        old = f.pointer(place)
        f.store(f.pointer(new_at), place)
        f.store(old, new_at)
    f.do("drop", row(f, rec, frame, "held"), f.get(frame, "frame.held"))
    f.put(frame, "frame.held", 0)
    array_type = f.to(f.to(rec, "rec.world"), "world.array_type")
    with f.each(count, first) as loop:
        f.do("retire", f.item(roots, loop.index, "root"), f.pointer(f.item(made, loop.index)), array_type)
    f.jump("done")
    f.label("done")
    f.ret()
    f.end()


def _retire(m: Module) -> None:
    """An old value of state.  If nobody else has it and it is as ``make`` made it, the next call writes into it."""
    f = Code(m, "void retire(ptr root, ptr old, ptr array_type)")
    root, old, array_type = f.pointers
    f.need(f.there(old), "done")
    f.need(f.same(f.to(old, "object.type"), array_type), "drop")
    f.need(f.get(old, "object.count").eq(1), "drop")
    f.need(f.same(f.to(old, "array.base"), "null") & f.same(f.to(old, "array.weak"), "null"), "drop")
    f.need(f.same(f.to(old, "array.handler"), f.to(root, "root.pool")) & f.same(f.to(old, "array.descr"), f.to(root, "root.descr")), "drop")
    rank = f.get(old, "array.rank").to("i64")
    flags = (f.get(old, "array.flags") & ~FORTRAN).eq(DENSE | WRITEABLE | OWNER)
    f.need(rank.eq(f.get(root, "root.rank")) & flags & f.same(f.to(root, "root.spare"), "null"), "drop")
    dims, strides, itemsize = f.to(old, "array.dims"), f.to(old, "array.strides"), f.get(root, "root.itemsize")
    with f.each(rank) as loop:
        step = loop.carry(itemsize)
        axis = rank - loop.index - 1
        f.need(f.word(f.item(strides, axis)).eq(step), "drop")
        loop.next(step, step * f.word(f.item(dims, axis)))
    f.put(root, "root.spare", old)
    f.ret()
    f.label("drop")
    f.api("Py_DecRef", "void", old)
    f.jump("done")
    f.label("done")
    f.ret()
    f.end()


# ---- for Python ---------------------------------------------------------------------------------


def _release(m: Module) -> None:
    """A function goes: its frames and spare arrays."""
    f = Code(m, "void release(ptr rec)", rare=True)
    rec, = f.pointers
    with f.each(f.get(rec, "rec.frame_count")):
        frame = f.to(rec, "rec.frames")
        f.put(rec, "rec.frames", f.to(frame, "frame.next"))
        f.do("free_frame", frame)
    f.put(rec, "rec.frame_count", 0)
    roots = f.to(rec, "rec.roots")
    with f.each(f.get(rec, "rec.root_count")) as loop:
        root = f.item(roots, loop.index, "root")
        spare = f.to(root, "root.spare")
        f.put(root, "root.spare", "null")
        f.need(f.there(spare), loop.latch)
        f.api("Py_DecRef", "void", spare)
    f.ret()
    f.end()


def _new_array(m: Module) -> None:
    """An array of a pool, or null and MemoryError."""
    f = Code(m, "ptr new_array(ptr world, ptr pool, ptr descr, i64 rank, ptr dims, i64 bytes)", rare=True)
    world, pool, descr, dims = f.pointers
    rank, bytes_ = f.numbers
    array = f.run("make", f.to(world, "world.new_array"), f.to(world, "world.array_type"), pool, descr, rank, dims, bytes_)
    f.need(f.there(array))
    f.ret(array)
    f.label("bad")
    f.ret(f.api("PyErr_NoMemory", "ptr"))
    f.end()
