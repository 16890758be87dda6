"""Case distinctions: the form of an expression at most classes, and at the classes that an indicator singles out."""

from __future__ import annotations

from lossmith.calculus.simplify import nothing, simplify
from lossmith.language.build import substitute
from lossmith.language.expr import ZERO, Bound, Delta, Expr, Free, Index, walk


def split_cases(expr: Expr, index: Free) -> tuple[Expr, tuple[tuple[Index, Expr], ...]]:
    """Return `expr` for an index that no indicator meets, and at each index that one does.

    For p_j − 1{j=y} that is p_j, and p_y − 1 at y.
    """
    deltas = [n for n in walk(expr) if isinstance(n, Delta) and index in (n.i, n.j)]
    deltas = [d for d in deltas if not isinstance(d.i, Bound) and not isinstance(d.j, Bound)]
    special = sorted({d.j if d.i is index else d.i for d in deltas}, key=lambda p: p.order)
    if not special:
        return expr, ()
    base = simplify(substitute(expr, dict.fromkeys(deltas, ZERO)), multiply_out=nothing)[0]
    return base, tuple((p, simplify(substitute(expr, {index: p}), multiply_out=nothing)[0]) for p in special)
