"""The passes, in running order (``pipeline.PIPELINE`` is this list as data; a test keeps the two alike).

    merge      equal expressions become one; what no root needs is dropped
    fold       expressions of constants become constants
    simplify   the algebra, towards the forms that the stabilising patterns are written in
    stabilise  log(1+x), log(sum(exp)): before the gradient, so that derivatives are stable too
    gradient   derivative placeholders become the subgraphs of build_grad
    loops      what does not change from step to step moves out of inner graphs
    cleanup    simplify (and fold, and merge) once more: the gradient's ones, zeros and repeats
    contract   which products are made, in which order: before expand makes loops of the thin ones
    complexes  complex arithmetic as arithmetic of the parts: after whatever knows complex numbers as one thing
    keep       what depends on unchanged state only is computed once per change
    expand     softmaxes become the loops that they are, for fuse to join
    recompute  what only fills memory until the gradient reads it is computed twice
    fuse       elementwise nodes and reductions become kernels

A pass ``p`` is the file ``passes/p.py``, the function ``p(graph, context) -> Graph``, the dump stage
"p" and the golden file ``tests/golden/p.gc``.  For backends that run node by node ``memory`` comes after them: Graph -> MemoryPlan;
for those that run kernels ``lower`` and ``arena``: Graph -> Program.  These stand on ``bodies``, ``labels`` and ``native`` (which nodes a
kernel can hold, which loops run along which axes), ``stages`` and ``collapse`` (a body as a loop nest), ``views`` (movement as
strides).  ``sweeps`` (with ``restrict``, ``triangles``, ``spans``) does steps of a Program block by block, ``stacking`` takes products with one matrix together.  ``assume`` comes before all passes: sizes that meet are equal, until a call says otherwise.
Rules are data in ``rules/``; ``rewrite.py`` is the one engine that applies them.
"""
