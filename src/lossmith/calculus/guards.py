"""Guards: what a zero leaves out, and what an infinity decides."""

from __future__ import annotations

import math

from lossmith.calculus.simplify import bottom_up
from lossmith.language.build import (
    call,
    coefficient,
    compare,
    const,
    div,
    is_indicator,
    mul,
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


def guarded(expr: Expr, targets: frozenset[str], scores: frozenset[str] = frozenset()) -> Expr:
    """Make zero targets, zero weights and false indicators leave out factors that may be infinite."""

    def step(e: Expr) -> Expr:
        if isinstance(e, Add):
            return _dominated(e, targets)
        if not isinstance(e, Mul):
            return e
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
