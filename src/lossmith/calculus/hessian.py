"""The Hessian of a row loss: a diagonal plus a few rank-one terms, d_j 1{j=k} + Σ_r u_j v_k."""

from __future__ import annotations

from dataclasses import dataclass

from lossmith.calculus.simplify import distribute, simplify
from lossmith.language.build import add, as_factors, as_terms, delta, mul, substitute
from lossmith.language.expr import Expr, Free


@dataclass(frozen=True)
class LowRank:
    """d_j 1{j=k} + Σ_r u_r(j) v_r(k); all three are expressions over the index j."""

    diagonal: Expr
    terms: tuple[tuple[Expr, Expr], ...]


def separate(hessian: Expr, j: Free, k: Free) -> LowRank | None:
    """Split ∂²L/∂s_j∂s_k into a diagonal and rank-one terms; None where a factor holds both j and k."""
    expanded = distribute(hessian, lambda f: {j, k} <= f.free)
    diagonal: list[Expr] = []
    products: dict[Expr, list[Expr]] = {}
    for term in as_terms(expanded):
        factors = as_factors(term)
        link = delta(j, k)
        if link in factors:
            diagonal.append(substitute(mul(*(f for f in factors if f is not link)), {k: j}))
            continue
        if any({j, k} <= f.free for f in factors):
            return None
        u = mul(*(f for f in factors if k not in f.free))
        v = mul(*(f for f in factors if k in f.free))
        products.setdefault(substitute(v, {k: j}), []).append(u)
    terms = [(simplify(add(*us))[0], v) for v, us in products.items()]
    kept = tuple((u, v) for u, v in terms if u is not add())
    return LowRank(simplify(add(*diagonal))[0], kept)
