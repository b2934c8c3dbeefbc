"""The form of a kernel: what can be said of it without numbers.  Used by ``verify_kernel``, where the rules are listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from graphc import dtypes
from graphc.dims import Dim
from graphc.dtypes import SHORT
from graphc.errors import GraphcError, Origin, VerificationError
from graphc.ir import Type
from graphc.kernel import REDUCTIONS, Instr, Kernel, Stage
from graphc.ops import OPS

__all__ = ["Checker", "Form"]

MODES = ("in", "out", "temp")
COUNTS = {"load": 0, "store": 1, "reduce": 1, "range": 0, "size": 0, "literal": 0, "cast": 1}  # operands; apply: any number
INT64 = dtypes.DTYPES["int64"]


class Checker:
    def __init__(self, kernel: Kernel, where: Origin) -> None:
        self.kernel, self.where = kernel, where

    def fail(self, message: str, at: int = -1) -> NoReturn:
        place = ""
        if at >= 0:
            v = self.kernel.values[at]
            place = f", %{at} ({' '.join(w for w in (v.op, v.word) if w)})"
        raise VerificationError(f"kernel {self.kernel.name}{place}: {message}", self.where)


class Form(Checker):
    """What can be said without numbers.

    ``depends``: the ranges that each value depends on, once it is known.  ``runs``: the stages that run each instruction;
    stages are numbered through grid and finish.
    """

    def __init__(self, kernel: Kernel, where: Origin) -> None:
        super().__init__(kernel, where)
        self.stages: tuple[Stage, ...] = (*kernel.stages, *kernel.finish)
        self.grid = frozenset(kernel.grid)
        self.depends: dict[int, frozenset[int]] = {}
        self.runs: list[list[int]] = [[] for _ in kernel.values]

    def finishing(self, stage: int) -> bool:
        return stage >= len(self.kernel.stages)

    def around(self, stage: int) -> tuple[int, ...]:
        """The ranges of the loops around an instruction of the stage, outermost first."""
        loops = self.stages[stage].loops
        return loops if self.finishing(stage) else (*self.kernel.grid, *loops)

    def check(self) -> None:
        self.operands()
        self.nest()
        for s, stage in enumerate(self.stages):
            for i in stage.body:
                if not 0 <= i < len(self.kernel.values):
                    self.fail(f"stage {s} runs %{i}, which does not exist")
                self.instruction(i, s)
                self.runs[i].append(s)
        for i, v in enumerate(self.kernel.values):
            if not self.runs[i]:
                self.fail("no stage runs it", i)
            if len(self.runs[i]) > 1 and v.op in ("store", "reduce"):
                self.fail(f"stages {self.runs[i][0]} and {self.runs[i][1]} both run it", i)
        stored = {v.operand for v in self.kernel.values if v.op == "store"}
        for k, o in enumerate(self.kernel.operands):
            if o.mode == "out" and k not in stored:
                self.fail(f"nothing is stored to the out operand {o.name}")

    def operands(self) -> None:
        k = self.kernel
        shared: set[int] = set()
        for o in k.operands:
            if o.mode not in MODES:
                self.fail(f"operand {o.name} has the mode {o.mode!r}; there are {', '.join(MODES)}")
            if isinstance(o.size, int) and o.size < 0:
                self.fail(f"operand {o.name} has {o.size} elements")
            if o.alias == -1:
                continue
            if o.mode != "out" or not 0 <= o.alias < len(k.operands) or k.operands[o.alias].mode != "in" or o.alias in shared:
                self.fail(f"operand {o.name} says that it lies in the memory of operand {o.alias}: only an out operand may, in that of an "
                          "in operand that no other takes")
            shared.add(o.alias)
            if k.operands[o.alias].dtype != o.dtype:
                self.fail(f"operand {o.name} lies in the memory of {k.operands[o.alias].name}, which has another dtype")

    def nest(self) -> None:
        k = self.kernel
        for r in k.ranges:
            if isinstance(r.extent, int) and r.extent < 0:
                self.fail(f"range {r.name} has the extent {r.extent}")
        used = set(self.grid)
        for what, loops in (("the grid", k.grid), *((f"stage {s}", stage.loops) for s, stage in enumerate(self.stages))):
            if len(set(loops)) != len(loops) or not all(0 <= r < len(k.ranges) for r in loops):
                self.fail(f"{what} loops over the ranges {list(loops)}: each is there once, and there are {len(k.ranges)}")
            if what != "the grid" and self.grid & set(loops):
                self.fail(f"{what} loops over {self.names(self.grid & set(loops))}, which the grid does")
            used |= set(loops)
        if k.vector != -1 and k.vector not in used:
            self.fail(f"the vector range is {k.vector}, over which nothing loops")

    def names(self, ranges: Any) -> str:
        return ", ".join(self.kernel.ranges[r].name for r in sorted(ranges))

    # -- one instruction ----------------------------------------------------------------------

    def instruction(self, i: int, stage: int) -> None:
        v = self.kernel.values[i]
        if v.op not in COUNTS and v.op != "apply":
            self.fail(f"there is no instruction {v.op!r}", i)
        if v.op != "apply" and len(v.args) != COUNTS[v.op] and not (v.op == "load" and len(v.args) == 1):
            self.fail(f"it has {len(v.args)} operand(s); {COUNTS[v.op]} expected", i)
        if v.dtype.name not in SHORT:
            self.fail(f"it is of dtype {v.dtype}", i)
        own: set[int] = set()
        for a in v.args:
            own |= self.read(i, a, stage)
        if v.op in ("load", "store"):
            own |= self.access(i, v, stage)
        elif v.index is not None or v.operand != -1:
            self.fail("only load and store have an operand and an index", i)
        if v.op in ("reduce", "range"):
            if not v.over or len(set(v.over)) != len(v.over) or not all(0 <= r < len(self.kernel.ranges) for r in v.over):
                self.fail(f"it runs over the ranges {list(v.over)}: one or more that exist, each once", i)
        elif v.over:
            self.fail("only reduce and range run over ranges", i)
        if v.op == "range":
            if len(v.over) != 1:
                self.fail("it is one range", i)
            own.add(v.over[0])
        outside = own - set(self.around(stage))
        if outside:
            self.fail(f"it depends on {self.names(outside)}, over which nothing loops around stage {stage}", i)
        if v.op == "reduce":
            self.reduction(i, v, stage, own)
            own -= set(v.over)
        dtype = self.dtype(i, v)
        if dtype != v.dtype:
            self.fail(f"it is of dtype {v.dtype}; its operands make {dtype}", i)
        self.depends[i] = frozenset(own)

    def read(self, i: int, a: int, stage: int) -> frozenset[int]:
        """The ranges of a value that an instruction of the stage reads; it must be known there."""
        k = self.kernel
        if not 0 <= a < len(k.values):
            self.fail(f"it reads %{a}, which does not exist", i)
        source = k.values[a]
        if source.op == "store":
            self.fail(f"it reads %{a}, which is a store and has no value", i)
        before = [s for s in self.runs[a] if s < stage]
        if a >= i or not self.runs[a]:
            self.fail(f"it reads %{a}, which is not computed yet", i)
        depends = self.depends[a]
        if stage in self.runs[a] and source.op != "reduce":
            return depends
        crossing = source.op == "reduce" and bool(self.grid & set(source.over))
        if source.op == "reduce" and not before:
            self.fail(f"it reads the reduction %{a} in the stage that computes it: that is known after its loops", i)
        if crossing and not self.finishing(stage):
            self.fail(f"it reads %{a}, a reduction over the grid, which is known in finish only", i)
        loops = set(self.stages[stage].loops)
        if self.finishing(stage) and not all(self.finishing(s) for s in before):
            if (crossing and depends <= loops) or source.op in ("literal", "size"):
                return depends
            self.fail(f"it reads %{a} of a point of the grid after the grid", i)
        if not depends <= (self.grid if not self.finishing(stage) else frozenset()):
            self.fail(f"it reads %{a} of an earlier stage, which depends on {self.names(depends - self.grid)}: only what depends on the "
                      "grid alone is kept", i)
        return depends

    def access(self, i: int, v: Instr, stage: int) -> set[int]:
        k = self.kernel
        if not 0 <= v.operand < len(k.operands):
            self.fail(f"it names operand {v.operand}; there are {len(k.operands)}", i)
        if v.index is None:
            self.fail("it has no index", i)
        o = k.operands[v.operand]
        if o.mode == ("out" if v.op == "load" else "in"):
            self.fail(f"operand {o.name} is {o.mode}: it is not {'read' if v.op == 'load' else 'written'}", i)
        ranges = [r for r, _ in v.index.terms]
        if ranges != sorted(set(ranges)) or not all(0 <= r < len(k.ranges) for r in ranges):
            self.fail(f"its index names the ranges {ranges}: each is there once, in order", i)
        if any(isinstance(stride, int) and stride == 0 for _, stride in v.index.terms):
            self.fail("its index has a stride of 0: leave the term out", i)
        own = set(ranges)
        if o.mode == "temp":
            if self.finishing(stage):
                self.fail(f"operand {o.name} belongs to one point of the grid: finish does not have it", i)
            if own & self.grid:
                self.fail(f"operand {o.name} belongs to one point of the grid, its index depends on {self.names(own & self.grid)}", i)
            if v.op == "load" and not any(s < stage for w in self.stores(v.operand) for s in self.runs[w]):
                self.fail(f"nothing was stored to {o.name} in an earlier stage", i)
            own |= self.grid  # each point of the grid has its own
        if v.op == "store" and v.index.gathers:
            self.fail("it writes at a gathered position: two points might write one element", i)
        for a, _ in v.index.gathers:
            own |= self.read(i, a, stage)
            if not dtypes.is_integer(k.values[a].dtype):
                self.fail(f"its index is gathered from %{a}, which is {k.values[a].dtype}", i)
        return own

    def stores(self, operand: int) -> list[int]:
        return [i for i, v in enumerate(self.kernel.values) if v.op == "store" and v.operand == operand]

    def reduction(self, i: int, v: Instr, stage: int, own: set[int]) -> None:
        over, loops = set(v.over), set(self.stages[stage].loops)
        if not over <= set(self.around(stage)):
            self.fail(f"it runs over {self.names(over - set(self.around(stage)))}, over which nothing loops around stage {stage}", i)
        if over & self.grid:
            if not self.grid <= over:
                self.fail(f"it runs over a part of the grid: {self.names(over & self.grid)} without {self.names(self.grid - over)}", i)
        elif not own & loops <= over:
            self.fail(f"it depends on the loop {self.names((own & loops) - over)} of its stage, which it does not run over", i)

    # -- dtypes -------------------------------------------------------------------------------

    def dtype(self, i: int, v: Instr) -> np.dtype[Any]:
        """What the result of an instruction must be."""
        args = [self.kernel.values[a].dtype for a in v.args]
        if v.op == "load":
            if args and (not dtypes.is_bool(args[0]) or self.kernel.operands[v.operand].mode != "in"):
                self.fail(f"it reads where %{v.args[0]} is true: that is a bool, and the operand an in operand", i)
            return self.kernel.operands[v.operand].dtype
        if v.op == "store":
            if args[0] != self.kernel.operands[v.operand].dtype:
                self.fail(f"%{v.args[0]} is {args[0]}, operand {self.kernel.operands[v.operand].name} holds {self.kernel.operands[v.operand].dtype}", i)
            return args[0]
        if v.op == "range":
            return INT64
        if v.op == "size":
            if not isinstance(v.data, (int, Dim)) or isinstance(v.data, bool):
                self.fail(f"{v.data!r} is no size", i)
            return INT64
        if v.op == "literal" and not _is_value(v.data, v.dtype):
            self.fail(f"{v.data!r} is no value of {v.dtype}", i)
        if v.op == "reduce":
            return self.reduced(i, v, args[0])
        return self.applied(i, v, args) if v.op == "apply" else v.dtype

    def reduced(self, i: int, v: Instr, dtype: np.dtype[Any]) -> np.dtype[Any]:
        if v.word not in REDUCTIONS:
            self.fail(f"there is no such reduction; there are {', '.join(REDUCTIONS)}", i)
        if v.word in ("all", "any") and not dtypes.is_bool(dtype):
            self.fail(f"it takes bool; %{v.args[0]} is {dtype}", i)
        if v.word not in ("sum", "prod") and dtypes.is_complex(dtype):
            self.fail(f"it does not take {dtype}", i)
        return INT64 if v.word in ("argmax", "argmin") else dtype

    def applied(self, i: int, v: Instr, args: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
        op = OPS.get(v.word)
        if op is None or op.kind != "elementwise" or v.word == "cast":
            self.fail("there is no such elementwise op (a cast is an instruction)", i)
        try:
            result = op.infer(*(Type(d, ()) for d in args))
        except GraphcError as error:
            self.fail(error.message, i)
        except TypeError:
            self.fail(f"it has {len(args)} operand(s)", i)
        assert isinstance(result, Type)
        return result.dtype


def _is_value(data: Any, dtype: np.dtype[Any]) -> bool:
    """Does the dtype hold exactly this number?"""
    if not isinstance(data, (bool, int, float, complex, np.generic)) or (np.iscomplexobj(data) and dtype.kind != "c"):
        return False
    try:
        with np.errstate(all="ignore"):
            held = np.asarray(data).astype(dtype).item()
    except (TypeError, ValueError, OverflowError):
        return False
    return bool(held == data) or (held != held and bool(data != data))
