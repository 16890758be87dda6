"""Sums, products, powers and indicators in normal form: the algebra below build.py.

The normal form: sums and products are flat and sorted, constants are folded, like terms and like powers are collected,
and the sign of a difference inside a product stands in front of the product.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    ArgReduce,
    Bound,
    ClassNumber,
    Compare,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
    Free,
    Hyper,
    Index,
    Label,
    Mul,
    Not,
    Number,
    Pow,
    Where,
)

# ------------------------------------------------------------------ numbers


def const(value: Number) -> Const:
    """Return a number: an int, a fraction with a small denominator, or a float that is neither."""
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, float) and math.isfinite(value):
        exact = Fraction(value)
        if exact.denominator <= 1024:
            value = exact
    if isinstance(value, Fraction) and value.denominator == 1:
        value = int(value)
    return Const(value)


def _same_kind(a: Number, b: Number) -> tuple[Any, Any]:
    """Fractions meet floats as floats."""
    if isinstance(a, float) or isinstance(b, float):
        return float(a), float(b)
    return a, b


# ------------------------------------------------------------------ sums and products


def coefficient(term: Expr) -> tuple[Number, Expr]:
    """Split c·e into the number c and the rest e."""
    if isinstance(term, Const):
        return term.value, ONE
    if isinstance(term, Mul) and isinstance(term.factors[0], Const):
        rest = term.factors[1:]
        return term.factors[0].value, rest[0] if len(rest) == 1 else Mul(rest)
    return 1, term


def _sorted(nodes: list[Expr]) -> tuple[Expr, ...]:
    """Constants first, then by digest: an order that does not change from run to run."""
    return tuple(sorted(nodes, key=lambda n: (not isinstance(n, Const), n.order)))


def add(*terms: Expr) -> Expr:
    """Return the sum of `terms`, flat, with like terms collected."""
    collected: dict[Expr, Number] = {}
    stack = list(reversed(terms))
    while stack:
        term = stack.pop()
        if isinstance(term, Add):
            stack.extend(reversed(term.terms))
            continue
        number, rest = coefficient(term)
        a, b = _same_kind(collected.get(rest, 0), number)
        collected[rest] = a + b
    collected = _cancel_complements(collected)
    kept = [_scaled(c, e) for e, c in collected.items() if c != 0]
    if not kept:
        return ZERO
    return kept[0] if len(kept) == 1 else Add(_sorted(kept))


def _cancel_complements(collected: dict[Expr, Number]) -> dict[Expr, Number]:
    """Replace c·1{A} + c·1{not A} by c."""
    for e in [e for e in collected if isinstance(e, Not)]:
        number = collected.get(e.cond)
        if number is not None and number == collected[e]:
            del collected[e], collected[e.cond]
            collected[ONE] = collected.get(ONE, 0) + number
    return collected


def _scaled(number: Number, e: Expr) -> Expr:
    """Return number·e for an e without a numeric factor."""
    if e is ONE:
        return const(number)
    if number == 1:
        return e
    if isinstance(e, Add):  # only for a number alone: 2·(a + b) has no other place for the 2
        return mul(const(number), e)
    return Mul((const(number), *as_factors(e)))


def as_factors(e: Expr) -> tuple[Expr, ...]:
    """Return the factors of a product; anything else is its only one."""
    return e.factors if isinstance(e, Mul) else (e,)


def as_terms(e: Expr) -> tuple[Expr, ...]:
    """Return the terms of a sum; anything else is its only one."""
    return e.terms if isinstance(e, Add) else (e,)


def mul(*factors: Expr) -> Expr:
    """Return the product of `factors`, flat, with powers of one base merged."""
    number: Number = 1
    powers: dict[Expr, Expr] = {}
    stack = list(reversed(factors))
    while stack:
        f = stack.pop()
        if isinstance(f, Mul):
            stack.extend(reversed(f.factors))
        elif isinstance(f, Const):
            a, b = _same_kind(number, f.value)
            number = a * b
        else:
            base, exponent = (f.base, f.exponent) if isinstance(f, Pow) else (f, ONE)
            powers[base] = add(powers[base], exponent) if base in powers else exponent
    if number == 0:
        return ZERO
    kept: list[Expr] = []
    for base, exponent in powers.items():
        f = base if is_indicator(base) else power(base, exponent)
        if isinstance(f, Const):
            a, b = _same_kind(number, f.value)
            number = a * b
            continue
        sign, f = _orient(f)
        number = number * sign
        kept.extend(as_factors(f))
    present = set(kept)
    if number == 0 or any(isinstance(f, Not) and f.cond in present for f in kept):
        return ZERO
    if not kept:
        return const(number)
    if len(kept) == 1 and isinstance(kept[0], Add) and number in (1, -1):
        return kept[0] if number == 1 else Add(_sorted([mul(const(-1), t) for t in kept[0].terms]))
    head = [] if number == 1 else [const(number)]
    body = [*head, *_sorted(kept)]
    return body[0] if len(body) == 1 else Mul(tuple(body))


def _orient(f: Expr) -> tuple[int, Expr]:
    """Return (sign, f') with f = sign·f', where an Add in f' leads with a plus."""
    if isinstance(f, Add) and _leads_with_minus(f):
        return -1, Add(_sorted([mul(const(-1), t) for t in f.terms]))
    if isinstance(f, Pow) and isinstance(f.base, Add) and isinstance(f.exponent, Const):
        n = f.exponent.value
        if isinstance(n, int) and _leads_with_minus(f.base):
            flipped = Add(_sorted([mul(const(-1), t) for t in f.base.terms]))
            return (-1 if n % 2 else 1), Pow(flipped, f.exponent)
    return 1, f


def _leads_with_minus(sum_: Add) -> bool:
    """Whether a reader would pull a minus out: by the constant, else the majority, else the first entry."""
    numbers = [coefficient(t) for t in sum_.terms]
    for number, rest in numbers:
        if rest is ONE:
            return number < 0
    balance = sum(1 if number > 0 else -1 for number, _ in numbers)
    if balance:
        return balance < 0
    return min(numbers, key=lambda n: reading_rank(n[1]))[0] < 0


def reading_rank(e: Expr) -> tuple[Any, ...]:
    """Return the place of a term in a printed sum: entries by name and index, then the rest, then constants."""
    if isinstance(e, Const):
        return (5,)
    if isinstance(e, Hyper):
        return (3, e.name, e.order)
    if is_indicator(e):
        return (4, e.order)
    if isinstance(e, Entry):
        order: dict[type, int] = {Bound: 0, Free: 0, Fixed: 1, Label: 2, ArgReduce: 3}
        return (0, e.name, order.get(type(e.index), 0), e.order)
    return (1, e.size, e.order)


def neg(e: Expr) -> Expr:
    """Return −e."""
    return mul(const(-1), e)


def sub(a: Expr, b: Expr) -> Expr:
    """Return a − b."""
    return add(a, neg(b))


def div(a: Expr, b: Expr) -> Expr:
    """Return a/b."""
    return mul(a, power(b, const(-1)))


def power(base: Expr, exponent: Expr) -> Expr:
    """Return base^exponent."""
    if exponent is ZERO:
        return ONE
    if exponent is ONE or base is ONE:
        return base
    whole = exponent.value if isinstance(exponent, Const) and isinstance(exponent.value, int) else None
    if isinstance(base, Const) and isinstance(exponent, Const) and _foldable(base, exponent):
        if isinstance(base.value, float):
            return const(base.value ** float(exponent.value))
        return const(Fraction(base.value) ** int(exponent.value))
    if is_indicator(base) and whole is not None and whole > 0:
        return base
    if isinstance(base, Pow) and whole is not None:
        return power(base.base, mul(base.exponent, exponent))
    if isinstance(base, Mul) and whole is not None:
        return mul(*(power(f, exponent) for f in base.factors))
    return _orient_power(base, exponent)


def _orient_power(base: Expr, exponent: Expr) -> Expr:
    sign, f = _orient(Pow(base, exponent))
    return f if sign == 1 else Mul((const(-1), f))


def _foldable(base: Const, exponent: Const) -> bool:
    n = exponent.value
    if isinstance(n, int):
        return abs(n) <= 64 and not (base.value == 0 and n < 0)
    return isinstance(base.value, float) and base.value > 0


# ------------------------------------------------------------------ indicators and cases


def is_indicator(e: Expr) -> bool:
    """Whether e takes the values 0 and 1 only."""
    if isinstance(e, Mul):
        return all(is_indicator(f) for f in e.factors)
    return isinstance(e, Delta | Compare | Not) or (isinstance(e, Const) and e.value in (0, 1))


def delta(i: Index, j: Index) -> Expr:
    """Return 1{i = j}."""
    if i is j:
        return ONE
    if isinstance(i, Fixed) and isinstance(j, Fixed):
        return ZERO
    order: dict[type, int] = {Free: 0, Bound: 1, Fixed: 2, ArgReduce: 3, Label: 4}
    first, second = sorted((i, j), key=lambda n: (order[type(n)], n.order))
    return Delta(first, second)


def compare(op: str, a: Expr, b: Expr) -> Expr:
    """Return the indicator 1{a op b}; `<`, `<=` and `!=` become their mirror or complement."""
    if op in ("<", "<="):
        return compare(">" if op == "<" else ">=", b, a)
    if op == "!=":
        return not_(compare("==", a, b))
    if a is b:
        return ZERO if op == ">" else ONE
    if isinstance(a, Const) and isinstance(b, Const):
        return ONE if {">": a.value > b.value, ">=": a.value >= b.value}.get(op, False) else ZERO
    if op == "==":
        if isinstance(a, ClassNumber) and isinstance(b, ClassNumber):
            return delta(a.index, b.index)
        for number, other in ((a, b), (b, a)):
            if isinstance(number, Const) and isinstance(other, ClassNumber):
                whole = isinstance(number.value, int) and number.value >= 0
                return delta(Fixed(number.value), other.index) if whole else ZERO  # type: ignore[arg-type]
        a, b = sorted((a, b), key=lambda n: n.order)
    return Compare(op, a, b)


def not_(cond: Expr) -> Expr:
    """Return 1 − cond for an indicator."""
    if isinstance(cond, Const):
        return ZERO if cond.value else ONE
    return cond.cond if isinstance(cond, Not) else Not(cond)


def where(cond: Expr, then: Expr, other: Expr) -> Expr:
    """Return `then` where cond is 1, else `other`."""
    if isinstance(cond, Const):
        return then if cond.value else other
    if isinstance(cond, Not):
        return where(cond.cond, other, then)
    if then is ONE and other is ZERO:
        return cond
    if then is ZERO and other is ONE:
        return not_(cond)
    return then if then is other else Where(cond, then, other)
