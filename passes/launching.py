"""``launched``: a body, the graph of one loop nest, as a launch of its kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphc.errors import Origin
from graphc.ir import Graph, Var
from graphc.kernel import Launch
from graphc.passes.stages import Source, build_kernel

__all__ = ["launched"]


def launched(body: Graph, sources: Mapping[Var, Source], outputs: Sequence[int], origin: Origin, constant: Callable[[Any], int] | None = None,
             places: Mapping[int, Source] | None = None) -> Launch:
    """``outputs``: the slabs of its results; ``constant``: the slab of an array, where the body has numbers; ``places``: see ``build_kernel``."""
    kernel, operands, data = build_kernel(body, sources, places)
    slabs = []
    for kind, what in operands:
        if kind == "data":
            assert constant is not None
            what = constant(data[what])
        slabs.append(outputs[what] if kind == "out" else -1 if kind == "temp" else what)
    return Launch(kernel, tuple(slabs), origin)
