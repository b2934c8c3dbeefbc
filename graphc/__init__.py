"""graphc: define a graph, compile it once, run it a million times.  ``import graphc as gc``.

Everything public is here; docs/ and README.md say what it is for.
"""

import os as _os

_root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if _os.path.exists(_os.path.join(_root, "pyproject.toml")) and _os.path.isdir(_os.path.join(_root, "passes")):
    __path__.append(_root)  # a checkout: passes/ and backends/ stand beside graphc/ (installed, they are inside)

from typing import TYPE_CHECKING as _TYPE_CHECKING

from graphc import derivatives as _derivatives
from graphc import errors, init, nn, optim
from graphc import methods as _methods
from graphc.compiled import Function, In, Out, evaluate_var, function
from graphc.compiling import Mode
from graphc.compiling import preload as _preload
from graphc.custom import Op, op
from graphc.derivatives import *  # noqa: F403
from graphc.dims import Dim, dim
from graphc.functions import creation as _creation
from graphc.functions import elementwise as _elementwise
from graphc.functions import indexing as _indexing
from graphc.functions import linalg as _linalg
from graphc.functions import reducing as _reducing
from graphc.functions import shaping as _shaping
from graphc.functions.creation import *  # noqa: F403
from graphc.functions.elementwise import *  # noqa: F403
from graphc.functions.indexing import *  # noqa: F403
from graphc.functions.linalg import *  # noqa: F403
from graphc.functions.reducing import *  # noqa: F403
from graphc.functions.shaping import *  # noqa: F403
from graphc.inspecting import debugprint, pretty, to_dot, to_networkx
from graphc.ir import Graph, Type
from graphc.ir import Var as Variable
from graphc.rewiring import ancestors, clone_replace, graph_inputs, load_dump, toposort
from graphc.settings import config
from graphc.variables import SHORT_FORMS as _SHORT_FORMS
from graphc.variables import shared, tensor

_preload()
globals().update(_SHORT_FORMS)
_methods.install()
Variable.eval = evaluate_var  # type: ignore[attr-defined]

pi = 3.141592653589793
e = 2.718281828459045
inf = float("inf")
nan = float("nan")
newaxis = None

__version__ = "0.1.0"

__all__ = [
    "Dim", "Function", "Graph", "In", "Mode", "Op", "Out", "Type", "Variable", "ancestors", "clone_replace", "config", "debugprint", "dim",
    "e", "errors", "function", "graph_inputs", "inf", "init", "load_dump", "nan", "newaxis", "nn", "op", "optim", "pi", "pretty", "shared",
    "tensor", "to_dot", "to_networkx", "toposort",
]
__all__ += _derivatives.__all__
__all__ += _creation.__all__
__all__ += _elementwise.__all__
__all__ += _indexing.__all__
__all__ += _linalg.__all__
__all__ += _reducing.__all__
__all__ += _shaping.__all__

if _TYPE_CHECKING:
    from typing import Any

    def __getattr__(name: str) -> Any: ...  # the short forms: matrix, dvectors, ...
else:
    __all__ += list(_SHORT_FORMS)
