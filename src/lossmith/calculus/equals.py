"""What is 0 where n classes share the lead: 1 − n·p_i.

With d_m = x_m − max x, those near the largest counted apart from the others,

    1 − n·p_i = (Σ_far exp(d_m) + (#near − n) + (Σ_near expm1(d_m) − n·expm1(d_i))) / Σ exp(d_m).

The large numbers are whole there, and cancel without a rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache

from lossmith.calculus.patterns import CONDITION, fill, row
from lossmith.calculus.rules import SCORES, Rule
from lossmith.calculus.stable_rules import out_of_binder
from lossmith.calculus.statements import parse_statement
from lossmith.language.build import add, as_factors, call, coefficient, mul, opened, power
from lossmith.language.expr import Add, Call, Const, Entry, Expr, Held, Mul, Pow, Reduce, Size, Softmax
from lossmith.language.formula import DIRECTION

GAP, OWN = "group(x - max(x))", "group(x[i] - max(x))"
NEAR = f"sum(where({GAP} > -1, expm1({GAP}), 0))"
COUNT = f"sum(({GAP} > -1)*1)"
FAR = f"sum(where({GAP} > -1, 0, exp({GAP})))"
CROSSING = (
    f"group({FAR} + group(group({COUNT} - b) + group({NEAR} - b*expm1({OWN}))))/group({FAR} + group({COUNT} + {NEAR}))"
)


@cache
def _crossing() -> Expr:
    return parse_statement(CROSSING)


def among_equals(expr: Expr) -> Expr:
    """Write c·(1 − n·p_i) in that form where the result hangs on it.

    That is: where it is a factor of the result, or of terms of which all are polynomials of probabilities.
    """

    def visit(e: Expr) -> Expr:
        match e:
            case Add():
                found = share_among_equals(e)
                if found is not None:
                    return Held(found)
                if len(e.terms) > 1 and any(map(_is_busy, polynomial_parts(e))):
                    return e
                return add(*(visit(t) for t in e.terms))
            case Mul(factors):
                zeros = [f for f in factors if crossing_of(f.body if isinstance(f, Held) else f) is not None]
                rest = mul(*(visit(f) for f in factors if f not in zeros))
                zero = mul(*map(visit, zeros))
                return call("scaled", zero, rest) if zeros and _grows(rest) else mul(zero, rest)
            case Held(body):
                return Held(visit(body))
            case Pow(base, Const(n)) if isinstance(n, int) and n > 0:
                return power(visit(base), e.exponent)
            case _:
                return e

    return visit(expr)


def share_among_equals(e: Expr) -> Expr | None:
    """Write c·(1 − n·p_i), n a whole number above 1 or K, over what classes fall short of the largest."""
    found = crossing_of(e)
    if found is None:
        return None
    c, n, p = found
    p = out_of_binder(p) or p
    assert isinstance(p, Softmax)
    index, cond, body = opened(p)
    bound = {CONDITION: row(index, cond), "x": row(index, body), "b": n, "i": p.at}
    return mul(c, fill(_crossing(), bound))


def crossing_of(e: Expr) -> tuple[Const, Const | Size, Softmax] | None:
    """Return (c, n, p) for e = c·(1 − n·p)."""
    if not isinstance(e, Add) or len(e.terms) != 2:
        return None
    one, term = e.terms
    if not isinstance(one, Const):
        return None
    number, rest = coefficient(term)
    p = mul(*(f for f in as_factors(rest) if not isinstance(f, Size)))
    if not isinstance(p, Softmax) or isinstance(number, float) or isinstance(one.value, float):
        return None
    n = -Fraction(number) / one.value
    if rest is not p:
        return (one, Size(), p) if n == 1 and len(as_factors(rest)) == 2 else None
    return (one, Const(int(n)), p) if n > 1 and n.denominator == 1 else None


def polynomial_parts(e: Expr) -> Iterator[Expr]:
    """Yield the nodes of a polynomial: what stands in a function, an index or a sum over classes is none of them."""
    yield e
    match e:
        case Add(below) | Mul(below):
            for part in below:
                yield from polynomial_parts(part)
        case Held(body) | Pow(body):
            yield from polynomial_parts(body)
        case _:
            pass


def _grows(e: Expr) -> bool:
    return any(isinstance(n, Call) and n.function == "exp" for n in polynomial_parts(e))


def _is_busy(e: Expr) -> bool:
    """Whether e is no probability, weight or number: where it is large, 1 − n·p need not be right to the last digit."""
    if isinstance(e, Reduce):
        return any(map(_is_busy, polynomial_parts(opened(e)[2])))
    return isinstance(e, Call) or (isinstance(e, Entry) and e.name in {DIRECTION, *SCORES.get()})


EQUALS_RULES = (
    Rule("share_among_equals", "", share_among_equals, "", ("1 - 2*softmax(s)[y]", "3*K*softmax(s)[y] - 3"), ulp=4),
)
