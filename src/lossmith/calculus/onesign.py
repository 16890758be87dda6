"""Sums of probabilities in which nothing cancels: polynomials in p and q = 1 − p, written with as few signs as can be.

A polynomial in a probability p is made homogeneous in p and q, since 1 = p + q: 1 − p² is q² + 2pq, p − 2p² is pq − p²,
p − t is p(1 − t) − tq. What cancelled between the terms has then cancelled between their numbers, which are exact.
A difference p − q that is left is tanh(a/2) where p = σ(a).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import comb
from typing import TypeAlias

from lossmith.calculus.equals import crossing_of
from lossmith.calculus.logforms import complement_of, lead_over_others
from lossmith.calculus.rules import is_plain
from lossmith.calculus.simplify import distribute
from lossmith.language.build import (
    add,
    as_factors,
    as_terms,
    call,
    coefficient,
    const,
    delta,
    div,
    instantiate,
    mul,
    neg,
    not_,
    opened,
    power,
    rebuild,
    reduce_,
    sub,
)
from lossmith.language.expr import (
    ONE,
    TRUE,
    ZERO,
    Add,
    Call,
    Const,
    Delta,
    Expr,
    Fixed,
    Free,
    Held,
    Index,
    Label,
    Node,
    Not,
    Pow,
    Reduce,
    Softmax,
    walk,
)

MAX_DEGREE, MAX_TERMS = 6, 12
_Monomials: TypeAlias = dict[tuple[int, int], Expr]
"""The coefficient of each p^a q^b."""


def one_signed(expr: Expr) -> Expr:
    """Return `expr` with the polynomials of probabilities in it homogeneous in p and 1 − p."""
    memo: dict[Node, Node] = {}

    def visit(n: Node) -> Node:
        if n not in memo:
            new = over_common(homogeneous(n)) if isinstance(n, Add) else n
            memo[n] = rebuild(n, visit) if new is n else new
        return memo[n]

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def homogeneous(e: Expr) -> Expr:
    """Make a sum homogeneous in its probabilities, one after the other, where terms of both signs hold them."""
    if not isinstance(e, Add) or not any(map(_is_share_power, _all_factors(e))):
        return e
    flat = _flat(e)
    split = _without_own_terms(flat)
    if not isinstance(split, Add):
        return split
    for p in _probabilities(split):
        found = _homogeneous_in(split, p)
        if found is not None:
            return found
    return _by_logarithms(e) if split is flat else split


def _by_logarithms(e: Add) -> Expr:
    """Make the polynomials homogeneous that stand before each logarithm: 4 − 10p + 6p² in a binary focal loss.

    Of sigmoids only: derivatives of a softmax come in factors, which multiplied out would cancel more.
    """
    if any(isinstance(n, Softmax) for n in walk(e)):
        return e
    flat = add(*(distribute(t, _is_loose) for t in e.terms))
    groups: dict[Expr, list[Expr]] = {}
    for term in flat.terms if isinstance(flat, Add) else ():
        known = [f for f in as_factors(term) if _is_share_power(f) or is_plain(f)]
        rest = mul(*(f for f in as_factors(term) if f not in known))
        groups.setdefault(rest, []).append(mul(*known))
    if not 1 < len(groups) <= MAX_TERMS or sum(map(len, groups.values())) > 2 * MAX_TERMS:
        return e
    before = {rest: add(*terms) for rest, terms in groups.items()}
    after = {rest: homogeneous(p) if isinstance(p, Add) else p for rest, p in before.items()}
    if all(after[rest] is before[rest] for rest in before):
        return e
    return add(*(_held(mul(rest, _held(p))) for rest, p in after.items()))


def over_common(e: Expr) -> Expr:
    """Bring fractions over one denominator where the terms of the numerator then have one sign."""
    if not isinstance(e, Add):
        return e
    depths: dict[Expr, int] = {}
    for term in e.terms:
        for f in as_factors(term):
            if isinstance(f, Pow) and isinstance(f.base, Add) and isinstance(f.exponent, Const):
                n = f.exponent.value
                if isinstance(n, int) and n < 0:
                    depths[f.base] = max(depths.get(f.base, 0), -n)
    for base, n in depths.items():
        raised = add(*(_raised(t, base, n) for t in e.terms))
        count = len(raised.terms) if isinstance(raised, Add) else 1
        if count < len(e.terms) or (count <= len(e.terms) and len(_signs([raised])) == 1 and len(_signs([e])) == 2):
            return mul(_held(raised), power(base, const(-n)))
    return e


def _raised(term: Expr, base: Expr, n: int) -> Expr:
    """Return term·base^n, multiplied out."""
    out = mul(term, power(base, const(n)))
    powers = [f for f in as_factors(out) if f is base or (isinstance(f, Pow) and f.base is base)]
    if not powers or not isinstance(base, Add):
        return out
    exponent = powers[0].exponent.value if isinstance(powers[0], Pow) else 1  # type: ignore[union-attr]
    rest = mul(*(f for f in as_factors(out) if f is not powers[0]))
    for _ in range(exponent):  # type: ignore[arg-type]
        rest = add(*(mul(t, u) for t in as_terms(rest) for u in base.terms))
    return rest


def _flat(e: Add) -> Expr:
    """Multiply out the products of sums of probabilities: they keep the terms of a polynomial apart."""
    terms = [distribute(t, _is_loose) if all(map(_is_polynomial, as_factors(t))) else t for t in e.terms]
    out = add(*terms)
    return out if not isinstance(out, Add) or len(out.terms) <= MAX_TERMS else e


def _is_loose(f: Expr) -> bool:
    """Whether a factor is a sum, but not a 1 − p or 1 − n·p."""
    inner = f.body if isinstance(f, Held) else f
    return isinstance(inner, Add) and complement_of(f) is None and crossing_of(inner) is None


def _is_polynomial(f: Expr) -> bool:
    inner = f.body if isinstance(f, Held) else f
    terms = as_terms(inner)
    return all(_is_modest(mul(*(g for g in as_factors(t) if not _is_sum_of_shares(g)))) for t in terms)


def _is_sum_of_shares(f: Expr) -> bool:
    return isinstance(f, Reduce) and f.op == "sum" and _is_share_power_product(opened(f)[2])


def _all_factors(e: Add) -> Iterable[Expr]:
    for term in e.terms:
        for f in as_factors(term):
            yield f
            if isinstance(f, Add):
                yield from _all_factors(f)


def _probabilities(e: Add) -> list[Expr]:
    """Return the probabilities that are factors of the terms: σ(a) stands for σ(−a) too."""
    found: dict[Expr, None] = {}
    for term in e.terms:
        for f in as_factors(term):
            base = f.base if isinstance(f, Pow) else f
            base = complement_of(base) or base
            if isinstance(base, Call) and base.function == "sigmoid":
                a, b = base, call("sigmoid", neg(base.args[0]))
                found.setdefault(b if b in found else a)
            elif isinstance(base, Softmax):
                found.setdefault(base)
    return list(found)


def _monomial(term: Expr, p: Expr) -> tuple[int, int, Expr]:
    """Return (a, b, c) with term = c·p^a·q^b."""
    other = call("sigmoid", neg(p.args[0])) if isinstance(p, Call) else None
    a = b = 0
    rest: list[Expr] = []
    for f in as_factors(term):
        base, exponent = (f.base, f.exponent) if isinstance(f, Pow) else (f, ONE)
        whole = exponent.value if isinstance(exponent, Const) and isinstance(exponent.value, int) else None
        if base is p and whole is not None and whole > 0:
            a += whole
        elif (base is other or complement_of(base) is p) and whole is not None and whole > 0:
            b += whole
        elif whole == 1 and complement_of(base) is other and other is not None:
            a += 1
        else:
            rest.append(f)
    return a, b, mul(*rest)


def _homogeneous_in(e: Add, p: Expr) -> Expr | None:
    found: _Monomials = {}
    beside: list[Expr] = []
    for term in e.terms:
        a, b, c = _monomial(term, p)
        if not (_is_modest(c) if a + b else is_plain(c)):
            beside.append(term)
        else:
            _put(found, a, b, c)
    found = {k: c for k, c in found.items() if c is not ZERO}
    if len(found) < 2 or _is_left_to_rules(found, p):
        return None
    low_a, low_b = min(a for a, _ in found), min(b for _, b in found)
    found = {(a - low_a, b - low_b): c for (a, b), c in found.items()}
    degree = max(a + b for a, b in found)
    if degree > MAX_DEGREE or len(_signs(found.values())) == 1:
        return None
    even = _of_one_degree(found, degree)
    result = _with_difference(even, degree, p, low_a, low_b) or _among_equals(even, p, low_a, low_b)
    if result is None:
        if not (_cancels(found, 0) or _cancels(found, 1) or len(_signs(even.values())) == 1):
            return None
        result = _assembled(even, p, low_a, low_b)
    return add(_held(one_signed(add(*beside))), _held(result)) if beside else result


def _put(found: _Monomials, a: int, b: int, c: Expr) -> None:
    found[a, b] = add(found[a, b], c) if (a, b) in found else c


def _of_one_degree(found: _Monomials, degree: int) -> _Monomials:
    """Multiply every term of a lower degree by a power of p + q."""
    even: _Monomials = {}
    for (a, b), c in found.items():
        missing = degree - a - b
        for k in range(missing + 1):
            _put(even, a + k, b + missing - k, mul(const(comb(missing, k)), c))
    return {k: c for k, c in even.items() if c is not ZERO}


def _cancels(found: _Monomials, corner: int) -> bool:
    """Whether terms of both signs are left where p (corner 0) or q (corner 1) is 0, and may cancel there."""
    left = [c for powers, c in found.items() if powers[corner] == 0]
    total = add(*left)
    return len(_signs(left)) == 2 and (total is ZERO or not isinstance(total, Const))


def _is_complement(found: _Monomials) -> bool:
    """Whether this is c − c·p."""
    return found.keys() == {(0, 0), (1, 0)} and found[0, 0] is neg(found[1, 0])


def _is_left_to_rules(found: _Monomials, p: Expr) -> bool:
    """Whether this is b·p − c with targets or numbers b and c: rules of stabilize.py write that."""
    constants = [c for c in found.values() if isinstance(c, Const)]
    if isinstance(p, Call) and len(constants) == len(found):
        return _is_complement(found)
    return found.keys() <= {(0, 0), (1, 0)} and all(is_plain(c) for c in found.values())


def _assembled(found: _Monomials, p: Expr, low_a: int, low_b: int) -> Expr:
    q = _complement(p)
    terms = [mul(one_signed(c), power(p, const(a)), power(q, const(b))) for (a, b), c in sorted(found.items())]
    return mul(power(p, const(low_a)), power(q, const(low_b)), _held(add(*terms)))


def _held(e: Expr) -> Expr:
    return Held(e) if isinstance(e, Add) else e


def _complement(p: Expr) -> Expr:
    return call("sigmoid", neg(p.args[0])) if isinstance(p, Call) else Held(sub(ONE, p))


def _with_difference(found: _Monomials, degree: int, p: Expr, low_a: int, low_b: int) -> Expr | None:
    """Take a factor p − q out of a polynomial with numbers for coefficients: it is tanh(a/2) for p = σ(a)."""
    odds = _log_odds(p)
    if odds is None or not all(isinstance(c, Const) for c in found.values()):
        return None
    numbers = [found[a, degree - a].value if (a, degree - a) in found else 0 for a in range(degree + 1)]  # type: ignore[union-attr]
    if sum(numbers) != 0 or degree < 1:
        return None
    # Divide Σ n_a p^a q^(d−a) by p − q: the quotient's numbers are m_(a−1) = n_a + m_a, from the highest down.
    quotient = [0] * degree
    carry = 0
    for a in range(degree, 0, -1):
        carry = numbers[a] + carry  # type: ignore[assignment]
        quotient[a - 1] = carry
    rest: _Monomials = {(a, degree - 1 - a): const(m) for a, m in enumerate(quotient) if m}
    half = call("tanh", div(odds, const(2)))
    return mul(half, _assembled(rest, p, low_a, low_b))


def _among_equals(found: _Monomials, p: Expr, low_a: int, low_b: int) -> Expr | None:
    """Take a factor 1 − n·p = q − (n − 1)·p out of what has no other sum in it."""
    more_a, more_b = min(a for a, _ in found), min(b for _, b in found)
    left = {(a - more_a, b - more_b): c for (a, b), c in found.items()}
    if left.keys() != {(1, 0), (0, 1)}:
        return None
    crossing = add(left[0, 1], mul(sub(left[1, 0], left[0, 1]), p))
    if crossing_of(crossing) is None:
        return None
    return mul(power(p, const(low_a + more_a)), power(_complement(p), const(low_b + more_b)), Held(crossing))


def _log_odds(p: Expr) -> Expr | None:
    """Return log(p/(1 − p)), for a softmax at a class that is the same for the whole row only."""
    if isinstance(p, Call):
        return p.args[0]
    if not (isinstance(p, Softmax) and isinstance(p.at, Label | Fixed)):
        return None
    return lead_over_others(p)


def _is_modest(c: Expr) -> bool:
    """Whether c is made of targets, weights, numbers and other probabilities: times p + q it does not grow."""
    return all(is_plain(f) or _is_share_power(f) for f in as_factors(c))


def _is_share_power(f: Expr) -> bool:
    base = f.base if isinstance(f, Pow) else f
    base = complement_of(base) or base
    return isinstance(base, Softmax) or (isinstance(base, Call) and base.function in ("sigmoid", "tanh"))


def _signs(coefficients: Iterable[Expr]) -> set[bool]:
    """Return the signs of the terms of coefficients, as they are written: whether above 0."""
    terms = [t for c in coefficients for t in as_terms(c)]
    return {coefficient(t)[0] > 0 for t in terms}


# ------------------------------------------------------------------ sums over classes


def _without_own_terms(e: Expr) -> Expr:
    """Split f_i off from Σ_m f_m where p_i stands beside the sum with the other sign: then p_i and f_i can cancel."""
    for term in e.terms if isinstance(e, Add) else ():
        number, part = coefficient(term)
        factors = as_factors(part)
        sums = [f for f in factors if isinstance(f, Reduce) and f.op == "sum"]
        if len(sums) != 1 or not _leaves_some_out(sums[0].cond):
            continue
        outside = mul(const(number), *(f for f in factors if f is not sums[0]))
        index, cond, body = opened(sums[0])
        if not _is_share_power_product(body):
            continue
        assert isinstance(e, Add)
        at = _beside(e, term, index, body, cond)
        if at is not None:
            own = substituted(body, index, at)
            rest = reduce_("sum", index, body, mul(cond, not_(delta(index, at))))
            others = [t for t in e.terms if t is not term]
            return _without_own_terms(add(*others, mul(outside, own), mul(outside, rest)))
    return e


def substituted(body: Expr, index: Index, at: Index) -> Expr:
    """Return a body at another class."""
    return instantiate(reduce_("max", index, body), at) if index in body.free else body  # type: ignore[arg-type]


def _leaves_some_out(cond: Expr) -> bool:
    return cond is TRUE or all(isinstance(f, Not) and isinstance(f.cond, Delta) for f in as_factors(cond))


def _is_share_power_product(body: Expr) -> bool:
    return all(_is_share_power(f) or is_plain(f) for f in as_factors(body)) and any(
        isinstance(n, Softmax) for n in walk(body)
    )


def _beside(e: Add, term: Expr, index: Index, body: Expr, cond: Expr) -> Index | None:
    """Return a class i at which a power of the sum's own p_i stands in the sum `e` with another sign than the sum."""
    sign = coefficient(term)[0] > 0
    shares = {f for f in _walk_shares(body) if index in f.free}
    excluded = cond.free
    for other in e.terms:
        if other is term or (coefficient(other)[0] > 0) == sign:
            continue
        for f in as_factors(other):
            base = f.base if isinstance(f, Pow) else f
            if not (isinstance(base, Softmax) and isinstance(base.at, Label | Free)) or base.at in excluded:
                continue
            if any(substituted(s, index, base.at) is base for s in shares):
                return base.at
    return None


def _walk_shares(body: Expr) -> Iterable[Softmax]:
    for f in as_factors(body):
        base = f.base if isinstance(f, Pow) else f
        if isinstance(base, Softmax):
            yield base
