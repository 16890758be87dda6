"""Rules for numbers that are very large or infinite: roots, powers and logarithms of sums of squares.

b + r² leaves the range of floats where r is large; beyond |r| = 1 its powers are those of |r| times those of 1 + b/r²,
so that r/(1 + r²) is what it is near 1/r, and its limit at ∞.
"""

from __future__ import annotations

from fractions import Fraction
from math import factorial, isqrt
from typing import Any

from lossmith.calculus.logforms import split_at_indicator
from lossmith.calculus.rules import Rule, is_plain
from lossmith.language.build import (
    add,
    arg_reduce,
    as_factors,
    as_terms,
    call,
    coefficient,
    compare,
    const,
    delta,
    div,
    mul,
    neg,
    not_,
    opened,
    power,
    rebuild,
    reduce_,
    sub,
    where,
)
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    ArgReduce,
    Call,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
    Held,
    Index,
    Label,
    Mul,
    Node,
    Pow,
    Reduce,
    Softmax,
    Where,
    walk,
)

HALF = const(Fraction(1, 2))


def square_root(e: Expr) -> Expr | None:
    """Return r with r² = e where e is written as a square that depends on an input."""
    number, rest = coefficient(e)
    if isinstance(number, float) or number < 0:
        return None
    root = Fraction(isqrt(number.numerator), isqrt(number.denominator))
    if root**2 != number or (not rest.free and not any(isinstance(f, Pow) for f in as_factors(rest))):
        return None
    roots: list[Expr] = []
    for f in as_factors(rest):
        if not (isinstance(f, Pow) and isinstance(f.exponent, Const) and isinstance(f.exponent.value, int)):
            return None
        if f.exponent.value % 2:
            return None
        roots.append(power(f.base, const(f.exponent.value // 2)))
    return mul(const(root), *roots)


def sum_of_square(e: Expr) -> tuple[Expr, Expr] | None:
    """Return (r, b) for r² + b, the square above 0 and b made of positive terms."""
    if not isinstance(e, Add) or any(coefficient(t)[0] < 0 for t in e.terms):
        return None
    for term in sorted(e.terms, key=lambda t: -t.size):
        r = square_root(term)
        if r is not None:
            b = add(*(t for t in e.terms if t is not term))
            return r, b
    return None


def _beyond_one(r: Expr, large: Expr, small: Expr) -> Expr:
    return where(compare(">", call("abs", r), ONE), large, small)


def _scaled(r: Expr, b: Expr) -> Expr:
    """Return 1 + b/r²."""
    return Held(add(ONE, mul(b, power(r, const(-2)))))


def ratio_of_squares(e: Expr) -> Expr | None:
    """Write r^k·(b + r²)^n, beyond |r| = 1, as r^k |r|^2n·(1 + b/r²)^n."""
    factors = list(as_factors(e))
    for f in factors:
        if not (isinstance(f, Pow) and isinstance(f.exponent, Const)):
            continue
        found = sum_of_square(f.base)
        if found is None:
            continue
        r, b = found
        n = f.exponent.value
        others = [g for g in factors if g is not f]
        k = max((_whole(g, as_factors(r)) for g in others), default=0)
        # What stands beside r^k: r's own constant factors are divided out again.
        rest = mul(*others, power(r, const(-k))) if k else mul(*others)
        for g in others:
            d = _degree(g, as_factors(r))
            if d:  # a polynomial in r above the fraction line: r^d of it is taken out too
                lower = Held(add(*(mul(t, power(r, const(-d))) for t in g.terms)))  # type: ignore[union-attr]
                rest, k = mul(rest, power(g, const(-1)), lower), k + d
        size = mul(power(call("sign", r), const(k % 2)), power(call("abs", r), const(k + 2 * n)))
        large = mul(rest, size, power(_scaled(r, b), const(n)))
        return _beyond_one(r, large, mul(*others, power(Held(f.base), const(n))))
    return None


def _degree(g: Expr, parts: tuple[Expr, ...]) -> int:
    """Return the highest power of r in a sum; r is the product of `parts`, numbers and weights aside."""
    moving = [f for f in parts if any(isinstance(n, Entry) for n in walk(f))]
    if not isinstance(g, Add) or g in parts:
        return 0
    return max(min(max(_power_of(part, f) for f in as_factors(t)) for part in moving) for t in g.terms)


def _power_of(part: Expr, f: Expr) -> int:
    base, exponent = (f.base, f.exponent) if isinstance(f, Pow) else (f, ONE)
    whole = isinstance(exponent, Const) and isinstance(exponent.value, int) and exponent.value > 0
    return exponent.value if whole and base is part else 0  # type: ignore[return-value]


def _whole(g: Expr, parts: tuple[Expr, ...]) -> int:
    return max((_power_of(part, g) for part in parts if isinstance(part, Add)), default=0)


def log_of_square(e: Expr) -> Expr | None:
    """Write log(b + r²), beyond |r| = 1, as 2 log |r| + log1p(b/r²)."""
    if not (isinstance(e, Call) and e.function in ("log", "log1p")):
        return None
    inside = e.args[0] if e.function == "log" else add(ONE, e.args[0])
    found = sum_of_square(inside)
    if found is None:
        return None
    r, b = found
    large = add(mul(const(2), call("log", call("abs", r))), call("log1p", Held(mul(b, power(r, const(-2))))))
    return _beyond_one(r, large, call("log1p", Held(sub(inside, ONE))) if b is ONE else call("log", Held(inside)))


def root_less_one(e: Expr) -> Expr | None:
    """Write √(1 + r²) − 1 as r·(r/(1 + √(1 + r²)))."""
    if not isinstance(e, Add):
        return None
    for term in e.terms:
        number, root = coefficient(term)
        if not (isinstance(root, Pow) and root.exponent is HALF):
            continue
        found = sum_of_square(root.base)
        if found is None or found[1] is not ONE:
            continue
        one = const(-number)
        if one not in e.terms:
            continue
        r, near = found[0], power(Held(root.base), HALF)
        large = sub(mul(call("abs", r), power(_scaled(r, ONE), HALF)), ONE)
        small = mul(r, Held(div(r, add(ONE, near))))
        rest = [t for t in e.terms if t is not term and t is not one]
        return add(mul(const(number), _beyond_one(r, Held(large), Held(small))), *rest)
    return None


def softplus_with_its_argument(e: Expr) -> Expr | None:
    """Write c·softplus(a) − b·c·a, b a target or number, as c·(b·softplus(−a) + (1 − b)·softplus(a))."""
    found = _with_argument(e, "softplus")
    if found is None:
        return None
    c, a, b, others = found
    return add(mul(c, b, call("softplus", neg(a))), mul(c, sub(ONE, b), call("softplus", a)), others)


def expm1_less_its_argument(e: Expr) -> Expr | None:
    """Write c·(expm1(a) − a) near 0 as c·a²·(1/2 + a/6 + …)."""
    found = _with_argument(e, "expm1")
    if found is None or found[2] is not ONE:
        return None
    c, a, _, others = found
    series: Expr = ZERO
    for k in reversed(range(2, 18)):
        series = add(const(Fraction(1, factorial(k))), mul(a, Held(series)) if series is not ZERO else ZERO)
    near = mul(power(a, const(2)), Held(series))
    return add(mul(c, where(compare(">", HALF, call("abs", a)), near, sub(call("expm1", a), Held(a)))), others)


def _with_argument(e: Expr, function: str) -> tuple[Expr, Expr, Expr, Expr] | None:
    """Return (c, a, b, rest) for c·f(a) − b·c·a + rest, where b is a target, a weight or a number."""
    for term in e.terms if isinstance(e, Add) else ():
        inner = next((f for f in as_factors(term) if isinstance(f, Call) and f.function == function), None)
        if inner is None:
            continue
        c, a = mul(*(f for f in as_factors(term) if f is not inner)), inner.args[0]
        others = add(*(t for t in e.terms if t is not term))  # type: ignore[union-attr]
        parts = _times(c, a)
        for other in as_terms(others):
            b = neg(div(other, parts[0]))
            rest = add(others, *(mul(b, p) for p in parts))
            if is_plain(b) and not _holds_any(b, a) and _count(rest) == _count(others) - len(parts):
                return c, a, b, rest
    return None


def _holds_any(b: Expr, a: Expr) -> bool:
    return any(isinstance(n, Entry) and n in set(walk(a)) for n in walk(b))


def _times(c: Expr, a: Expr) -> tuple[Expr, ...]:
    return tuple(mul(c, t) for t in as_terms(a))


def _count(e: Expr) -> int:
    return len(e.terms) if isinstance(e, Add) else int(e is not ZERO)


def with_magnitudes(expr: Expr) -> Expr:
    """Apply the rules of MAGNITUDE_RULES, the outermost sub-expressions first: r/(1 + r²) before 1 + r²."""

    def visit(n: Node) -> Node:
        for rule in MAGNITUDE_RULES:
            new = rule.apply(n) if isinstance(n, Add | Mul | Pow | Call) else None
            if new is not None:
                n = new
        return rebuild(n, visit)

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def with_extrema(node: Any) -> Any:
    """Take the differences of scores inside of maxima, and the class that an indicator singles out apart."""

    def visit(n: Node) -> Node:
        new = rebuild(n, visit)
        if isinstance(new, ArgReduce):
            index, cond, body = opened(new)
            moving = add(*(t for t in body.terms if index in t.free)) if isinstance(body, Add) else body
            return arg_reduce(new.op, index, moving, cond)
        if isinstance(new, Reduce) and new.op in ("max", "min"):
            return split_at_indicator(new)
        return _into_extremum(new) if isinstance(new, Add) else new

    return visit(node)


def _into_extremum(e: Add) -> Expr:
    """Write max(a, b) − s_y as max(a − s_y, b − s_y): the differences are exact, and 0 where b is s_y."""
    for term in e.terms:
        if isinstance(term, Call) and term.function in ("maximum", "minimum"):
            rest = sub(e, term)
            if all(any(isinstance(n, Entry) for n in walk(t)) for t in (*term.args, rest)) and not _is_nested(rest):
                return call(term.function, *(add(a, rest) for a in term.args))
    return e


def _is_nested(e: Expr) -> bool:
    return any(isinstance(n, Call | Reduce | Softmax | Pow) for n in walk(e))


def on_the_diagonal(expr: Expr, scores: frozenset[str]) -> Expr:
    """Let s_m − s_i under a sum or maximum over m be 0 at m = i, infinite scores included; and s_y − s_0 at y = 0."""

    def visit(n: Node) -> Node:
        if isinstance(n, Reduce):
            index, cond, body = opened(n)
            return reduce_(n.op, index, _at_diagonal(visit(body), index, cond, scores), visit(cond))  # type: ignore[arg-type]
        new = rebuild(n, visit)
        for index in {i for i in new.free if isinstance(i, Label)} if isinstance(new, Add) else ():
            found = _same_class(new, index, scores)
            if found is not None and isinstance(_other(found[0], index), Fixed | Label):
                return where(found[0], found[1], new)
        return new

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def _other(same: Expr, index: Index) -> Index:
    """Return the i of 1{index = i}."""
    assert isinstance(same, Delta)
    return same.j if same.i is index else same.i


def _at_diagonal(body: Expr, index: Index, cond: Expr, scores: frozenset[str]) -> Expr:
    """Write every s_index − s_i in a body as a case distinction, unless the condition leaves index = i out."""

    def step(n: Node) -> Node:
        if isinstance(n, Where) and isinstance(n.cond, Delta):
            return n  # it is one already
        if isinstance(n, Reduce | Softmax):
            return n
        if isinstance(n, Add):
            found = _same_class(n, index, scores)
            if found is not None and not_(found[0]) not in as_factors(cond):
                return where(found[0], found[1], n)
        return rebuild(n, step)

    result = step(body)
    assert isinstance(result, Expr)
    return result


def _same_class(e: Add, index: Index, scores: frozenset[str]) -> tuple[Expr, Expr] | None:
    """Return 1{index = i} and the rest of the sum where s_index and −s_i are in it."""
    entries = [(t, *coefficient(t)) for t in e.terms]
    for mine, number, part in entries:
        if isinstance(part, Entry) and part.index is index and part.name in scores:
            for other, against, entry in entries:
                if isinstance(entry, Entry) and entry.name == part.name and against == -number and entry.index:
                    return delta(index, entry.index), add(*(t for t in e.terms if t not in (mine, other)))
    return None


MAGNITUDE_RULES = (
    Rule("log_of_square", "", log_of_square, "", ("log(1 + (s[y] - s[0])**2)", "log(2 + (s[y] - s[0])**2)")),
    Rule("root_less_one", "", root_less_one, "", ("sqrt(1 + (s[y] - s[0])**2) - 1",)),
    Rule(
        "ratio_of_squares", "", ratio_of_squares, "",
        ("(s[y] - s[0])/(1 + (s[y] - s[0])**2)", "(s[y] - s[0])**2/(2 + (s[y] - s[0])**2)**2",
         "1/sqrt(1 + (s[y] - s[0])**2)"),
    ),
)  # fmt: skip
ARGUMENT_RULES = (
    Rule(
        "softplus_with_its_argument", "", softplus_with_its_argument, "",
        ("softplus(s[y] - s[0]) - s[y] + s[0]", "2*softplus(s[y]/2) - s[y]/4"),
    ),
    Rule(
        "expm1_less_its_argument", "", expm1_less_its_argument, "", ("expm1(s[y]/100) - s[y]/100",), digits=17, ulp=4,
    ),
)  # fmt: skip
