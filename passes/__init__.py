"""The passes, in running order (``pipeline.PIPELINE`` is this list as data; a test keeps the two alike).

    merge      equal expressions become one; what no root needs is dropped
    fold       expressions of constants become constants
    simplify   the algebra, towards the forms that the stabilising patterns are written in
    stabilise  log(1+x), log(sum(exp)): before the gradient, so that derivatives are stable too
    gradient   derivative placeholders become the subgraphs of build_grad
    loops      what does not change from step to step moves out of inner graphs
    cleanup    simplify (and fold, and merge) once more: the gradient's ones, zeros and repeats
    fuse       elementwise nodes and reductions become kernels

A pass ``p`` is the file ``passes/p.py``, the function ``p(graph, context) -> Graph``, the dump stage
"p" and the golden file ``tests/golden/p.gc``.  ``memory`` comes after them: Graph -> MemoryPlan.
Rules are data in ``rules/``; ``rewrite.py`` is the one engine that applies them.
"""
