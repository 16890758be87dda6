"""Simplification: sums over indicators contract, common factors come out, names are put back.

The result is the shortest form found by multiplying out and by factoring, so that the same derivative reached by two
routes is the same expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from lossmith.calculus.rules import RECOGNITION, Rule
from lossmith.language.build import (
    add,
    as_factors,
    as_terms,
    coefficient,
    const,
    is_indicator,
    mul,
    neg,
    not_,
    opened,
    power,
    rebuild,
    reduce_,
    sub,
    substitute,
)
from lossmith.language.expr import (
    ONE,
    Add,
    Call,
    Compare,
    Const,
    Delta,
    Entry,
    Expr,
    Free,
    Held,
    Index,
    Mul,
    Node,
    Not,
    Number,
    Pow,
    Reduce,
    Softmax,
    children,
    walk,
)

ROUNDS = 8


def everything(e: Expr) -> bool:
    """Allow every sum to be multiplied out."""
    del e
    return True


def nothing(e: Expr) -> bool:
    """Allow none to be multiplied out: the factors have less cancellation than the terms."""
    del e
    return False


def all_but_differences(e: Expr) -> bool:
    """Allow what is no difference of scores: those are exact where their squares are not."""
    inner = e.base if isinstance(e, Pow) else e
    terms = inner.terms if isinstance(inner, Add) else ()
    return sum(isinstance(coefficient(t)[1], Entry) for t in terms) < 2


def simplify(
    expr: Expr, rules: tuple[Rule, ...] = RECOGNITION, multiply_out: Callable[[Expr], bool] = everything
) -> tuple[Expr, list[str]]:
    """Return the simplest form found, and the titles of the rules that led there.

    `multiply_out` says which sums in products may be multiplied out.
    """
    used: list[str] = []
    for _ in range(ROUNDS):
        before = expr
        expr = contract(expr)
        expr = bottom_up(expr, lambda e: _by_rules(e, rules, used))
        expr = bottom_up(expr, lambda e: _tidy(e, multiply_out))
        if expr is before:
            break
    return expr, used or ["simplify"]


def bottom_up(expr: Expr, step: Callable[[Expr], Expr]) -> Expr:
    """Apply `step` to every sub-expression, the innermost first."""
    memo: dict[Node, Node] = {}

    def visit(n: Node) -> Node:
        if n not in memo:
            new = rebuild(n, visit)
            memo[n] = step(new) if isinstance(new, Expr) else new
        return memo[n]

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def _by_rules(e: Expr, rules: Iterable[Rule], used: list[str]) -> Expr:
    for rule in rules:
        new = rule.apply(e)
        if new is not None and new is not e:
            if rule.title:
                used.append(rule.title)
            e = new
    return e


# ------------------------------------------------------------------ sums over indicators


def contract(expr: Expr) -> Expr:
    """Apply Σ_m 1{m=i} f_m = f_i wherever an indicator is a factor under a sum."""
    return bottom_up(expr, contract_root)


def contract_root(e: Expr) -> Expr:
    """Contract the sum at the root of `e`, if it is one over indicators."""
    if not (isinstance(e, Reduce) and e.op == "sum"):
        return e
    index, cond, body = opened(e)
    picks = [n for n in walk(body) if isinstance(n, Delta) and index in (n.i, n.j)]
    excludes = isinstance(body, Mul) and any(isinstance(f, Not | Compare) for f in body.factors)
    if not picks and not excludes:
        return e
    terms = as_terms(distribute(body, lambda f: any(n in picks for n in walk(f))))
    done = [_contract_term(t, index, cond) for t in terms]
    return add(*done)


def _contract_term(term: Expr, index: Index, cond: Expr) -> Expr:
    factors = as_factors(term)
    for f in factors:
        if isinstance(f, Delta) and index in (f.i, f.j):
            other = f.j if f.i is index else f.i
            rest = mul(cond, *(g for g in factors if g is not f))
            return substitute(rest, {index: other})
    outside = [f for f in factors if isinstance(f, Not) and isinstance(f.cond, Delta) and index in f.cond.free]
    if outside:  # Σ_m 1{m≠y} f_m is the sum over the m ≠ y
        rest = mul(*(g for g in factors if g not in outside))
        return reduce_("sum", index, rest, mul(cond, *outside))
    return reduce_("sum", index, term, cond)


def distribute(e: Expr, wanted: Callable[[Expr], bool]) -> Expr:
    """Multiply out the sums in a product for which `wanted` holds."""
    if isinstance(e, Held):
        e = e.body
    if isinstance(e, Pow) and isinstance(e.base, Add) and e.exponent is const(2) and wanted(e.base):
        return distribute(add(*(mul(a, b) for a in e.base.terms for b in e.base.terms)), wanted)
    if isinstance(e, Add):
        return add(*(distribute(t, wanted) for t in e.terms))
    if not isinstance(e, Mul):
        return e
    for k, f in enumerate(e.factors):
        inner = f.body if isinstance(f, Held) else f
        others = (*e.factors[:k], *e.factors[k + 1 :])
        if isinstance(inner, Pow) and inner.exponent is const(2) and isinstance(inner.base, Add) and wanted(inner):
            inner = add(*(mul(a, b) for a in inner.base.terms for b in inner.base.terms))
        if isinstance(inner, Add) and wanted(inner):
            return add(*(distribute(mul(t, *others), wanted) for t in inner.terms))
        if isinstance(f, Held) and wanted(f):
            return distribute(mul(inner, *others), wanted)
    return e


# ------------------------------------------------------------------ sums and products


def _tidy(e: Expr, multiply_out: Callable[[Expr], bool]) -> Expr:
    if isinstance(e, Mul):
        e = select(e)
    if isinstance(e, Add):
        e = min(_forms(e, multiply_out), key=lambda f: (_cost(f), f.order))
    return e


@lru_cache(maxsize=4096)
def _cost(e: Node) -> int:
    """Return the size of an expression as a reader sees it: 1 − p counts no more than p."""
    if isinstance(e, Add) and len(e.terms) == 2 and ONE in e.terms:
        number, rest = coefficient(next(t for t in e.terms if t is not ONE))
        if number == -1 and _is_probability(rest):
            return _cost(rest)
    return 1 + sum(_cost(c) for c in children(e))


def _forms(e: Add, multiply_out: Callable[[Expr], bool]) -> list[Expr]:
    """Return the forms of a sum among which the shortest is chosen."""
    out = distribute(e, multiply_out) if e.size < 400 else e
    forms: list[Expr] = [e, factored(e), _indicators_joined(e)]
    if out is not e:
        forms += [out, factored(out)]
    return forms


def _indicators_joined(e: Add) -> Expr:
    """Write 1 − 1{A} as 1{not A}."""
    present = {t for t in e.terms if t is ONE}
    if present:
        for t in e.terms:
            number, rest = coefficient(t)
            if number == -1 and isinstance(rest, Delta | Compare):
                return add(*(u for u in e.terms if u is not t and u is not ONE), not_(rest))
    return e


def select(e: Mul) -> Expr:
    """Use 1{j=y} in a product: the other factors may have y for j; of two free indices the first in the alphabet."""
    for f in e.factors:
        if isinstance(f, Delta) and isinstance(f.i, Free):
            old, new = f.i, f.j
            if isinstance(new, Free) and old.name < new.name:
                old, new = new, old
            rest = mul(*(g for g in e.factors if g is not f))
            chosen = substitute(rest, {old: new})
            if chosen is not rest:
                return mul(f, chosen)
    return e


def factored(e: Expr) -> Expr:
    """Take the factor that most terms share out of a sum, and go on with what is left."""
    if not isinstance(e, Add):
        return e
    counts: dict[Expr, list[Expr]] = {}
    # 1 − p stays together: it is what stabilisation looks for.
    whole = any(isinstance(t, Const) for t in e.terms)
    free = [t for t in e.terms if not (whole and _is_probability(coefficient(t)[1]))]
    for t in free:
        for base, _ in _powers(t):
            counts.setdefault(base, []).append(t)
    shared = [(base, ts) for base, ts in counts.items() if len(ts) > 1]
    if not shared:
        return e
    base, terms = max(shared, key=lambda s: (len(s[1]), s[0].size, s[0].order))
    lowest = _lowest([dict(_powers(t))[base] for t in terms])
    if lowest is None:
        return e
    common = power(base, lowest)
    inner = add(*(_without(t, base, lowest) for t in terms))
    rest = [t for t in e.terms if t not in terms]
    other = add(*rest)
    for sign in (1, -1):  # c·x + x is (c + 1)·x
        if rest and other is mul(const(sign), inner):
            return mul(add(common, const(sign)), factored(inner))
    return add(mul(common, factored(inner)), *((factored(add(*rest)),) if rest else ()))


def _is_probability(e: Expr) -> bool:
    return isinstance(e, Softmax) or (isinstance(e, Call) and e.function == "sigmoid")


def _without(term: Expr, base: Expr, exponent: Expr) -> Expr:
    """Divide a term by base^exponent; an indicator is just left out."""
    if is_indicator(base):
        return mul(*(f for f in as_factors(term) if f is not base))
    return mul(term, power(base, neg(exponent)))


def _powers(term: Expr) -> list[tuple[Expr, Expr]]:
    """Return a term's factors as (base, exponent), the number in front left out."""
    _, rest = coefficient(term)
    factors = as_factors(rest)
    return [(f.base, f.exponent) if isinstance(f, Pow) else (f, ONE) for f in factors if not isinstance(f, Const)]


def _lowest(exponents: list[Expr]) -> Expr | None:
    """Return the smallest of exponents that differ by numbers, None if they differ by more."""
    lowest, offset = exponents[0], 0
    for e in exponents[1:]:
        gap = sub(e, exponents[0])
        if not isinstance(gap, Const):
            return None
        value: Number = gap.value
        if value < offset:
            lowest, offset = e, value
    return lowest
