"""Guards: what a zero leaves out, and what an infinity decides."""

from __future__ import annotations

import math

from lossmith.calculus.simplify import bottom_up
from lossmith.language.build import (
    add,
    call,
    coefficient,
    compare,
    const,
    div,
    is_indicator,
    mul,
    power,
    where,
)
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    Call,
    ClassNumber,
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

TWO = const(2)


def guarded(expr: Expr, targets: frozenset[str], scores: frozenset[str] = frozenset()) -> Expr:
    """Make zero targets, zero weights and false indicators leave out factors that may be infinite."""

    def step(e: Expr) -> Expr:
        if isinstance(e, Add):
            return _dominated(e, targets)
        if isinstance(e, Call) and e.function == "maximum":
            return _of_difference(e, scores)
        if not isinstance(e, Mul):
            return e
        for rewrite in PRODUCT_GUARDS:
            new = rewrite(e)
            if new is not None:
                return new
        for f in e.factors:
            rest = mul(*(g for g in e.factors if g is not f))
            if is_indicator(f) and not isinstance(f, Const) and may_be_infinite(rest, targets):
                return where(f, step(rest), ZERO)
        for f in e.factors:
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
                    return mul(const(number), call("scaled", f, step(mul(*others))))
        return e

    return bottom_up(expr, step)


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
    """Write r²/2 as (r/2)·r: r² leaves the range of floats first."""
    if len(e.factors) != 2 or not isinstance(e.factors[0], Const):
        return None
    number, square = e.factors
    if not (isinstance(square, Pow) and square.exponent is TWO and 0 < abs(number.value) < 1):
        return None
    return mul(Held(mul(number, square.base)), square.base)


def _vanishing_together(e: Mul) -> Expr | None:
    """Write q^(γ−1)·p·f as q^γ·(p/q)·f, and q^(γ−2)·p·f as q^γ·(p/q)·(f/q).

    p and f vanish with q = 1 − p_y: q^(γ−2) leaves the range of floats where the whole does not.
    """
    for f in e.factors:
        if not (isinstance(f, Pow) and isinstance(f.exponent, Add)):
            continue
        times = next((n for n in (1, 2) if const(-n) in f.exponent.terms), 0)
        others = [g for g in e.factors if g is not f]
        p = next((g for g in others if isinstance(g, Call) and g.function == "exp"), None)
        rest = mul(*(g for g in others if g is not p))
        if not times or p is None:
            continue
        if times == 2:
            rest = _over(rest, f.base)
            if rest is None:
                continue
        share = where(compare("==", p, ZERO), ZERO, Held(div(p, f.base)))
        return call("scaled", share, mul(power(Held(f.base), add(f.exponent, const(times))), rest))
    return None


def _over(e: Expr, q: Expr) -> Expr | None:
    """Return e/q, a factor of every term of e divided: the quotient of the whole would underflow before."""
    parts = q.factors if isinstance(q, Mul) else (q,)
    if isinstance(e, Add):
        terms = [_over(t, q) for t in e.terms]
        return Held(add(*(t for t in terms if t is not None))) if None not in terms else None
    if isinstance(e, Call) and e.function == "scaled":
        divided = _over(e.args[1], q)
        return None if divided is None else call("scaled", e.args[0], divided)
    if not isinstance(e, Mul):
        return Held(div(e, q)) if isinstance(e, Held) else None
    if any(isinstance(f, Held) and f in parts for f in e.factors):
        return div(e, q)
    for f in e.factors:
        inner = f.body if isinstance(f, Held) else f
        divided = _over(inner, q) if isinstance(inner, Add) else None
        if divided is not None:
            return mul(divided, *(g for g in e.factors if g is not f))
    vanishing = next((f for f in e.factors if isinstance(f, Held) and may_be_infinite(f, frozenset())), None)
    return (
        div(e, q) if vanishing is None else mul(Held(div(vanishing, q)), *(f for f in e.factors if f is not vanishing))
    )


def _twice_divided(e: Mul) -> Expr | None:
    """Write v·p⁻² as v/p/p: p² is subnormal, or 0, where p is not."""
    if len(e.factors) != 2 or not isinstance(e.factors[0], Entry):
        return None
    v, square = e.factors
    if isinstance(square, Pow) and isinstance(square.base, Entry) and square.exponent is const(-2):
        return Held(div(Held(div(v, square.base)), square.base)) if v.name == DIRECTION else None
    return None


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
    if _is_sigmoid(f) or (isinstance(f, Call) and f.function == "exp"):
        return True  # a probability that has underflown: p log p is 0 at p = 0
    parts = [coefficient(t)[1] for t in f.terms] if isinstance(f, Add) else [f]
    entries = [p for p in parts if p is not ONE]
    return bool(entries) and all(isinstance(p, Entry) and p.name in targets for p in entries)


def may_be_infinite(e: Expr, targets: frozenset[str]) -> bool:
    """Whether e can be infinite or NaN for finite hyperparameters and scores in [−∞, ∞]."""
    match e:
        case Const() | Hyper() | Size() | ClassNumber():
            return False
        case Entry(name):
            return name not in targets
        case Call("sigmoid" | "tanh" | "sign"):
            return False
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
        case Reduce("max" | "min"):
            return True
        case Add(parts) | Mul(parts):
            return any(may_be_infinite(part, targets) for part in parts)
        case Held(body) | Reduce(body=body):
            return may_be_infinite(body, targets)
        case _:
            return any(isinstance(n, Entry) for n in walk(e))
