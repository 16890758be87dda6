"""Guards: what a zero leaves out, and what an infinity decides."""

from __future__ import annotations

import math
from fractions import Fraction

from lossmith.calculus.simplify import bottom_up
from lossmith.language.build import (
    add,
    as_factors,
    as_terms,
    call,
    coefficient,
    compare,
    const,
    div,
    is_indicator,
    mul,
    neg,
    power,
    where,
)
from lossmith.language.expr import (
    ONE,
    TRUE,
    ZERO,
    Add,
    Call,
    ClassNumber,
    Compare,
    Const,
    Entry,
    Expr,
    Held,
    Hyper,
    Mul,
    Node,
    Pow,
    Reduce,
    Size,
    Where,
    children,
    walk,
)
from lossmith.language.formula import DIRECTION

TWO, MINUS_HALF = const(2), const(Fraction(-1, 2))


def guarded(expr: Expr, targets: frozenset[str], scores: frozenset[str] = frozenset()) -> Expr:
    """Make zero targets, zero weights and false indicators leave out factors that may be infinite."""

    def step(e: Expr) -> Expr:
        if isinstance(e, Add):
            return _of_largest(e, targets) or _dominated(e, targets)
        if isinstance(e, Call) and e.function == "maximum":
            return _of_difference(e, scores)
        if not isinstance(e, Mul):
            return e
        for rewrite in PRODUCT_GUARDS:
            match rewrite(e):
                case Call("scaled", (factor, rest)):
                    return call("scaled", factor, step(rest))
                case Mul() as new:
                    return step(new)
                case Expr() as new:
                    return new
                case _:
                    pass
        root = next((f.base for f in e.factors if isinstance(f, Pow) and f.exponent is MINUS_HALF), None)
        if root is not None and not isinstance(root, Entry):  # f/√q is never beyond the floats, but for q = 0
            return where(compare("==", root, ZERO), ZERO, left_out(e))
        return left_out(e)

    def left_out(e: Expr) -> Expr:
        if not isinstance(e, Mul):
            return e
        factors = sorted(e.factors, key=_kind)
        for f in factors:
            rest = mul(*(g for g in e.factors if g is not f))
            if is_indicator(f) and not isinstance(f, Const) and may_be_infinite(rest, targets):
                return where(f, left_out(rest), ZERO)
        for f in factors:
            logged = any(isinstance(g, Call) and g.function == "log" and g.args[0] is f for g in e.factors)
            if logged or _leaves_out(f, targets):
                others = [g for g in e.factors if g is not f and not isinstance(g, Const)]
                if _is_sigmoid(f) and not _grows_with(mul(*others), scores):
                    continue
                if others and may_be_infinite(mul(*others), targets):
                    number, _ = coefficient(e)
                    quotient = _divided(f, others)
                    if quotient is not None:
                        return mul(const(number), where(compare("==", f, ZERO), ZERO, quotient))
                    # p²·f one p at a time: p² underflows before p·f does.
                    once = f.base if isinstance(f, Pow) else f
                    return mul(const(number), call("scaled", once, left_out(mul(div(f, once), *others))))
        return e

    return bottom_up(expr, step)


def _of_largest(e: Add, targets: frozenset[str]) -> Expr | None:
    """Let max z − z_i be 0 for the largest itself, where it may be infinite; entries have rules of their own."""
    for largest in e.terms:
        if not isinstance(largest, Reduce) or largest.op != "max" or isinstance(largest.body, Entry):
            continue
        if may_be_infinite(largest.body, targets):
            own = neg(add(*(t for t in e.terms if t is not largest)))
            return where(compare(">", largest, own), e, ZERO)
    return None


def _dominated(e: Add, targets: frozenset[str]) -> Expr:
    """Let exp(a) − b·a be ∞ where exp(a) is: what is no exponential grows less, even where both overflow."""
    for term in e.terms:
        number, part = coefficient(term)
        growing = part.args[-1] if isinstance(part, Call) and part.function == "scaled" else part
        if not _grows(growing) or not may_be_infinite(growing, targets):
            continue
        others = [t for t in e.terms if t is not term]
        if any(_grows(n) for t in others for n in walk(t)):
            continue
        if any(may_be_infinite(t, targets) for t in others):
            limit = math.inf if number > 0 else -math.inf
            return where(compare("==", part, const(math.inf)), const(limit), e)
    return e


def _kind(f: Expr) -> list[str]:
    """Return what orders factors whatever their indices are called: Σ_m z_m and z_j must guard alike, to the last bit.

    A sum over the others counts the entries that equal its largest.
    """
    return sorted(
        f"{type(n).__name__} {getattr(n, 'name', '')}{getattr(n, 'function', '')}{getattr(n, 'value', '')}"
        for n in walk(f)
        if isinstance(n, Expr)
    )


def _of_difference(e: Call, scores: frozenset[str]) -> Expr:
    """Let max(0, s_k − s_y + Δ) be 0 where both are −∞: a class of −∞ contributes nothing.

    The difference is NaN there. What is NaN in the row itself is found apart from this.
    """
    a = next((part for part in e.args if isinstance(part, Add)), ZERO)
    if ZERO in e.args and a is not ZERO:
        entries = [n for n in walk(a) if isinstance(n, Entry) and n.name in scores]
        if len(entries) > 1:
            return where(compare(">", a, ZERO), a, ZERO)
    return e


def _scaled_square(e: Mul) -> Expr | None:
    """Write r²/2 as (r/2)·r, and r²/t as (r/t)·r: r² leaves the range of floats first."""
    if len(e.factors) != 2:
        return None
    for small, square in (e.factors, e.factors[::-1]):
        number = isinstance(small, Const) and 0 < abs(small.value) < 1
        over = isinstance(small, Pow) and isinstance(small.base, Entry) and small.exponent is const(-1)
        if isinstance(square, Pow) and square.exponent is TWO and (number or over):
            return mul(Held(mul(small, square.base)), square.base)
    return None


def _vanishing_together(e: Mul) -> Expr | None:
    """Write q^(γ−n)·f with f of the size of q^n as q^γ·(f/q^n), for q = 1 − p_y.

    q^(γ−2) leaves the range of floats where the whole does not.
    """
    for f in e.factors:
        if not isinstance(f, Pow) or isinstance(f.base, Entry):
            continue
        others = mul(*(g for g in e.factors if g is not f))
        for times in _negative_parts(f):
            rest: Expr | None = others
            for _ in range(times):
                rest = None if rest is None else _over(rest, f.base, strict=isinstance(f.exponent, Const))
            if rest is not None:
                exponent = add(f.exponent, const(times))
                larger = power(Held(f.base), exponent)
                return mul(larger, rest) if exponent is MINUS_HALF else call("scaled", larger, rest)
    return None


def _negative_parts(f: Pow) -> tuple[int, ...]:
    """Return the n to try for a power γ − n, n at most 2, or −3/2 or −1/2."""
    match f.exponent:
        case Add(terms):
            return next((tuple(range(n, 0, -1)) for n in (1, 2) if const(-n) in terms), ())
        case Const(number) if not isinstance(number, int) and -2 < number < 0:
            return tuple(range(math.ceil(-number), 0, -1))
        case _:
            return ()


def _over(e: Expr, q: Expr, strict: bool) -> Expr | None:
    """Return e/q, one factor of every term of e divided: the quotient of the whole would underflow before.

    None where no factor is seen to vanish with q: q itself, a direction less its mean, another probability, a
    logarithm of 1 − q; unless `strict`, also a sum with such a logarithm anywhere in it, but for 1 + such.
    """
    parts = as_factors(q)
    match e:
        case Add(terms):
            divided = [_over(t, q, strict) for t in terms]
            return Held(add(*(t for t in divided if t is not None))) if None not in divided else None
        case Call("scaled", (factor, rest)):
            rest = _over(rest, q, strict)
            return None if rest is None else call("scaled", factor, rest)
        case Mul():
            factors = e.factors
        case _:
            factors = (e,)
    if any(isinstance(f, Held) and f in parts for f in factors):
        return div(e, q)
    inside = set(walk(q))
    for f in sorted(factors, key=lambda f: not _is_centred_direction(f)):
        inner = f.body if isinstance(f, Held) else f
        share = isinstance(f, Call) and f.function == "exp" and f not in inside
        nodes = as_terms(inner) if strict else walk(f)
        logged = any(isinstance(n, Call) and n.function == "log1p" for n in nodes)
        log = isinstance(f, Held) and logged and ONE not in as_terms(inner)
        divided = _quotient(f, parts) if share or log or _is_centred_direction(f) else None
        if divided is None and (isinstance(inner, Add) or (isinstance(f, Call) and len(factors) > 1)):
            divided = _over(inner, q, strict)
        if divided is not None:
            return mul(divided, *(g for g in factors if g is not f))
    return None


def _is_centred_direction(f: Expr) -> bool:
    """Whether f is v_m less a mean of v over the classes, which nears v_m where p_m nears 1."""
    for part in (coefficient(t)[1] for t in f.terms) if isinstance(f, Add) else ():
        entries = [coefficient(e)[1] for e in (as_terms(part.body) if isinstance(part, Held) else (part,))]
        if all(isinstance(e, Entry) and e.name == DIRECTION for e in entries):
            return True
    return False


def _quotient(f: Expr, parts: tuple[Expr, ...]) -> Expr:
    """Return f/q, q the product of `parts`, as one quotient: 1/q is infinite where q is subnormal, f/q is not."""
    small = [part for part in parts if isinstance(part, Held)]
    rest = mul(*(part for part in parts if part not in small))
    return Held(div(Held(div(f, rest)), mul(*small)))


def _twice_divided(e: Mul) -> Expr | None:
    """Write v·p⁻² as v/p/p and t·v·p⁻² one division at a time: p² is subnormal where p is not."""
    entries = [f for f in e.factors if isinstance(f, Entry)]
    powers = [f for f in e.factors if isinstance(f, Pow) and f.exponent is const(-2) and isinstance(f.base, Entry)]
    v = next((f for f in entries if f.name == DIRECTION), None)
    others = [f for f in e.factors if not isinstance(f, Const) and f is not v and f not in powers]
    if v is None or len(powers) != 1 or len(others) > 1 or any(f not in entries for f in others):
        return None
    p, number = powers[0].base, const(coefficient(e)[0])
    if not others:
        return mul(number, Held(div(Held(div(v, p)), p)))
    (t,) = others
    # v/p may be infinite where p is tiny, and t/p subnormal where it is not.
    twice, shared = mul(Held(div(Held(div(v, p)), p)), t), div(Held(mul(Held(div(t, p)), v)), p)
    quotient = where(compare(">", p, const(2.0**-60)), twice, shared)
    return mul(number, where(compare("==", t, ZERO), ZERO, quotient))


PRODUCT_GUARDS = (_scaled_square, _vanishing_together, _twice_divided)


def _is_sigmoid(f: Expr) -> bool:
    """Whether f is a sigmoid or a power of one that is 0 where it is."""
    if isinstance(f, Pow) and isinstance(f.exponent, Const) and f.exponent.value > 0:
        f = f.base
    return isinstance(f, Call) and f.function == "sigmoid"


def _grows_with(e: Expr, scores: frozenset[str]) -> bool:
    """Whether e holds a score, outside of functions that are bounded."""
    match e:
        case Entry(name):
            return name in scores
        case Call("sigmoid" | "tanh" | "sign"):
            return False
        case _:
            return any(_grows_with(n, scores) for n in children(e) if isinstance(n, Expr))


def _grows(n: Node) -> bool:
    """Whether n is a function that grows like an exponential."""
    return isinstance(n, Call) and n.function in ("exp", "expm1", "sinh", "cosh")


def _divided(f: Expr, others: list[Expr]) -> Expr | None:
    """Return f/p/p for f·p⁻², one division at a time: p² and 1/p leave the range of floats before f/p does."""
    if len(others) != 1 or not isinstance(others[0], Pow) or not isinstance(others[0].base, Entry):
        return None
    power_ = others[0].exponent
    if not isinstance(power_, Const) or power_.value not in (-1, -2):
        return None
    once = Held(div(f, others[0].base))
    return once if power_.value == -1 else Held(div(once, others[0].base))


def _leaves_out(f: Expr, targets: frozenset[str]) -> bool:
    """Whether f is a target, one minus a target, a weight per class, or a share that may vanish."""
    if isinstance(f, Hyper):
        return bool(f.indices)
    share = f.base if isinstance(f, Pow) and isinstance(f.exponent, Const) and f.exponent.value > 0 else f
    if _is_sigmoid(f) or (isinstance(share, Call) and share.function == "exp"):
        return True  # a probability that has underflown: p log p is 0 at p = 0
    if _counts_the_rest(f):
        return True
    parts = [coefficient(t)[1] for t in f.terms] if isinstance(f, Add) else [f]
    entries = [p for p in parts if p is not ONE]
    return bool(entries) and all(isinstance(p, Entry) and p.name in targets for p in entries)


def _counts_the_rest(f: Expr) -> bool:
    """Whether f is one less than how many there are: 0 where the largest is the only one."""
    return isinstance(f, Held) and any(isinstance(t, Reduce) and isinstance(t.body, Compare) for t in as_terms(f.body))


def may_be_infinite(e: Expr, targets: frozenset[str]) -> bool:
    """Whether e can be infinite or NaN for finite hyperparameters and scores in [−∞, ∞]."""
    match e:
        case Const() | Hyper() | Size() | ClassNumber():
            return False
        case Entry(name):
            return name not in targets
        case Call("sigmoid" | "tanh" | "sign"):  # log t − log p is nothing where both are −∞
            return any(isinstance(n, Call) and n.function == "log" and isinstance(n.args[0], Entry) for n in walk(e))
        case Call("exp", (Held(),)):  # the gap to a maximum: never above zero
            return False
        case Call("log" | "log1p" | "log_cosh" | "softplus"):
            return True
        case Pow(Add() as base) if all(not may_be_infinite(t, targets) for t in base.terms):
            return ONE not in base.terms
        case Pow(base, exponent):
            negative = not (isinstance(exponent, Const) and exponent.value > 0)
            return negative or may_be_infinite(base, targets)
        case Where(_, then, other):
            return may_be_infinite(then, targets) or may_be_infinite(other, targets)
        case _ if is_indicator(e):
            return False
        case Reduce("max" | "min", cond, body):
            return cond is not TRUE or may_be_infinite(body, targets)
        case Add(parts) | Mul(parts):
            return any(may_be_infinite(part, targets) for part in parts)
        case Held(body) | Reduce(body=body):
            return may_be_infinite(body, targets)
        case _:
            return any(isinstance(n, Entry) for n in walk(e))
