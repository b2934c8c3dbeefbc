"""``stacked``: a product of many matrices with one matrix is one product of all of their rows.

What it promises: the same values, the same bits; operands and results where they were.

``x @ w`` with x [8, 64, 128] and w [128, 512] has 512 rows, of which threads take parts, and lays w out once if at all.  That is so where the rows of x
and those of the result follow one another from matrix to matrix.
"""

from __future__ import annotations

from graphc.kernel import Product, Program, View

__all__ = ["stacked"]


def stacked(program: Program) -> Program:
    """Sweeps are left: their matrices may be what threads share."""
    program.steps[:] = [_stacked(step) if isinstance(step, Product) and step.axes == (1, 1, 1) else step for step in program.steps]
    return program


def _stacked(step: Product) -> Product:
    a, b, out = step.a, step.b, step.out
    while len(out.shape) > 2 and b.strides[-3] == 0 and _follows(a) and _follows(out):
        a, out = _joined(a), _joined(out)
        b = View(b.slab, (*b.shape[:-3], *b.shape[-2:]), (*b.strides[:-3], *b.strides[-2:]), b.offset)
    return step._replace(a=a, b=b, out=out)


def _follows(v: View) -> bool:
    """Do the rows of the next matrix follow those of this one?"""
    return v.strides[-3] == v.strides[-2] * v.shape[-2]


def _joined(v: View) -> View:
    return View(v.slab, (*v.shape[:-3], v.shape[-3] * v.shape[-2], v.shape[-1]), (*v.strides[:-3], *v.strides[-2:]), v.offset)
