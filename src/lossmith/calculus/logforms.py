"""Products and logarithms of exponentials, in forms that neither overflow nor underflow.

What is made of exponentials, probabilities and sums of such has a logarithm L that is a sum of scores, log Σ exp and
softplus. A logarithm becomes its L; a product or quotient of such factors becomes one exp(L), from which what is a
probability is read again: exp(x_i − log Σ exp(x)) is a softmax, exp(−softplus(a)) is σ(−a). So e^a/(e^a + e^b) is
σ(a − b), and p_y/(Σ p_m²)^½ is softmax(2s)_y^½.

Derivatives are taken of these forms: what is differentiated holds no exponential that could overflow.
"""

from __future__ import annotations

from lossmith.calculus.patterns import indices_of
from lossmith.calculus.rules import EXPM1_OF_SHARE, RECOGNITION
from lossmith.calculus.simplify import bottom_up
from lossmith.language.build import (
    add,
    as_factors,
    as_terms,
    call,
    coefficient,
    const,
    delta,
    instantiate,
    mul,
    neg,
    not_,
    opened,
    power,
    reduce_,
    softmax,
    sub,
    substitute,
)
from lossmith.language.expr import (
    ONE,
    TRUE,
    ZERO,
    Add,
    Call,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
    Held,
    Label,
    Mul,
    Node,
    Not,
    Number,
    Pow,
    Reduce,
    Size,
    Softmax,
    walk,
)


def in_logarithms(expr: Expr, nonnegative: frozenset[str] = frozenset()) -> Expr:
    """Return `expr` with logarithms and products of exponentials in forms that stay in the range of floats.

    `nonnegative` names the targets that are not below 0.
    """

    def step(e: Expr) -> Expr:
        for rule in (*RECOGNITION, EXPM1_OF_SHARE):
            e = rule.apply(e) or e
        if isinstance(e, Call) and e.function in ("log", "log1p"):
            return _logarithm(e, nonnegative)
        if isinstance(e, Mul | Pow):
            return _product(e, nonnegative)
        if isinstance(e, Reduce) and e.op == "sum":
            return _others_of_softmax(split_at_indicator(e))
        return e

    return bottom_up(_against_the_others(expr), step)


def _against_the_others(expr: Expr) -> Expr:
    """Write p_y as σ(x_y − log Σ_{m≠y} exp(x_m)) throughout where log(1 − p_y) or 1/(1 − p_y) stands."""
    found: dict[Node, Expr] = {}
    for node in walk(expr):
        logged = isinstance(node, Call) and node.function == "log"
        below = isinstance(node, Pow) and isinstance(node.exponent, Const) and node.exponent.value < 0
        inside = node.args[0] if isinstance(node, Call) and logged else node.base if isinstance(node, Pow) else ONE
        if not (logged or below):
            continue
        for f in as_factors(inside):
            p = complement_of(f) if isinstance(f, Add) else None
            if isinstance(p, Softmax) and isinstance(p.at, Label | Fixed):
                found[p] = call("sigmoid", lead_over_others(p))
    return substitute(expr, found) if found else expr


def lead_over_others(p: Softmax) -> Expr:
    """Return log(p/(1 − p)) = x_i − log Σ_{m≠i} exp(x_m)."""
    index, cond, body = opened(p)
    others = reduce_("logsumexp", index, body, mul(cond, not_(delta(index, p.at))))
    return sub(instantiate(p, p.at), others)


def split_at_indicator(e: Expr) -> Expr:
    """Write Σ_m f(m, 1{m=y}) as f(y, 1) + Σ_{m≠y} f(m, 0) where the indicator is inside a power or a function.

    A maximum of such becomes the larger of two numbers.
    """
    if not (isinstance(e, Reduce) and e.cond is TRUE):
        return e
    index, _, body = opened(e)
    hidden = [n for n in walk(body) if isinstance(n, Pow | Call) and index in n.free] if e.op == "sum" else [body]
    for d in (d for node in hidden for d in walk(node) if isinstance(d, Delta) and index in (d.i, d.j)):
        at = d.j if d.i is index else d.i
        if isinstance(at, Label | Fixed):
            own = substitute(substitute(body, {d: ONE, not_(d): ZERO}), {index: at})
            others = reduce_(e.op, index, substitute(body, {d: ZERO, not_(d): ONE}), not_(d))
            return add(own, others) if e.op == "sum" else call(f"{e.op}imum", own, others)
    return e


def _others_of_softmax(e: Expr) -> Expr:
    """Write Σ_{m≠y} p_m as 1 − p_y."""
    if isinstance(e, Reduce) and e.op == "sum" and isinstance(e.cond, Not) and isinstance(e.cond.cond, Delta):
        index, cond, body = opened(e)
        if isinstance(body, Softmax) and body.at is index and body.cond is TRUE and index not in body.body.free:
            (at,) = (i for i in cond.free if i is not index)
            return sub(ONE, substitute(body, {index: at}))
    return e


def is_exponential(e: Expr) -> bool:
    """Whether e holds an exponential: its logarithm is worth writing out."""
    return any(isinstance(n, Softmax) or (isinstance(n, Call) and n.function in ("exp", "sigmoid")) for n in walk(e))


def _logarithm(e: Call, nonnegative: frozenset[str]) -> Expr:
    inside = e.args[0] if e.function == "log" else add(ONE, e.args[0])
    if isinstance(inside, Softmax) or not is_exponential(inside) or is_away_from_zero(inside):
        return e
    found = log_of(inside, nonnegative)
    return e if found is None else _of_share(found)


def _of_share(e: Expr) -> Expr:
    """Write a − softplus(a) as −softplus(−a): log(e^a/(1 + e^a))."""
    terms = as_terms(e)
    for term in terms:
        f = neg(term)
        if isinstance(f, Call) and f.function == "softplus" and set(as_terms(f.args[0])) <= {*terms}:
            return sub(sub(sub(e, term), f.args[0]), call("softplus", neg(f.args[0])))
    return e


def is_away_from_zero(e: Expr) -> bool:
    """Whether e is a sum of a positive number and of probabilities: its logarithm is good as it stands."""
    if not isinstance(e, Add):
        return False
    parts = [coefficient(t) for t in e.terms]
    settled = [
        isinstance(rest, Const | Size) or (isinstance(rest, Pow) and isinstance(rest.base, Size)) for _, rest in parts
    ]
    if not any(settled) or any(number < 0 for number, _ in parts):
        return False
    return all(s or _is_bounded(rest) for s, (_, rest) in zip(settled, parts, strict=True))


def _is_bounded(e: Expr) -> bool:
    match e:
        case Softmax() | Call("sigmoid"):
            return True
        case Mul(factors):
            return all(_is_bounded(f) or not f.free for f in factors)
        case Pow(base, Const(n)):
            return n > 0 and _is_bounded(base)
        case _:
            return False


def log_of(e: Expr, nonnegative: frozenset[str] = frozenset()) -> Expr | None:
    """Return the logarithm of what is made of exponentials and positive numbers, None for anything else."""

    def log(e: Expr) -> Expr | None:
        match e:
            case Const(value):
                return call("log", e) if value > 0 else None
            case Size():
                return call("log", e)
            case Entry(name) if name in nonnegative:
                return call("log", e)
            case Held(body):
                return log(body)
            case Call("exp", (a,)):
                return a
            case Call("sigmoid", (a,)):
                return neg(call("softplus", neg(a)))
            case Softmax(at=at):
                return sub(instantiate(e, at), _normalizer(e))
            case Pow(base, exponent):
                below = log(base)
                return None if below is None else mul(exponent, below)
            case Mul(factors):
                logs = [log(f) for f in factors]
                return None if None in logs else add(*logs)  # type: ignore[arg-type]
            case Reduce("sum"):
                index, cond, body = opened(e)
                below = log(body) if is_exponential(body) else None
                return None if below is None else reduce_("logsumexp", index, below, cond)
            case Add(terms):
                share = complement_of(e)
                if share is not None:
                    return _log_of_complement(share)
                if _is_rest_of_target(e, nonnegative):
                    return call("log", e)
                logs = [log(t) for t in terms]
                return None if None in logs else _log_sum(logs)  # type: ignore[arg-type]
            case _:
                return None

    return log(e)


def _is_rest_of_target(e: Add, nonnegative: frozenset[str]) -> bool:
    """Whether e is 1 − t for a target in [0, 1]."""
    numbers = {rest: number for number, rest in map(coefficient, e.terms)}
    entries = [r for r in numbers if isinstance(r, Entry) and r.name in nonnegative]
    return len(numbers) == 2 and numbers.get(ONE) == 1 and len(entries) == 1 and numbers[entries[0]] == -1


def complement_of(e: Expr) -> Expr | None:
    """Return p where e is 1 − p, p a probability, in parentheses or not."""
    e = e.body if isinstance(e, Held) else e
    if not isinstance(e, Add) or len(e.terms) != 2 or ONE not in e.terms:
        return None
    number, share = coefficient(next(t for t in e.terms if t is not ONE))
    return share if number == -1 and _is_share(share) and not isinstance(share, Pow) else None


def _log_of_complement(share: Expr) -> Expr | None:
    """Return log(1 − p): of a softmax at the label, by log Σ exp over the other classes."""
    if isinstance(share, Call):
        return neg(call("softplus", share.args[0]))
    assert isinstance(share, Softmax)
    if not isinstance(share.at, Label | Fixed):
        return None
    return neg(call("softplus", lead_over_others(share)))


def _normalizer(p: Softmax) -> Expr:
    index, cond, body = opened(p)
    return reduce_("logsumexp", index, body, cond)


def _log_sum(logs: list[Expr]) -> Expr:
    """Return log Σ exp of a few numbers; 0 comes first, so that log(1 + e^a) is softplus(a).

    The logarithm of a target, which may be −∞, comes last: softplus(−∞) is 0, where −∞ + softplus(∞) is nothing.
    """
    first, *others = sorted(logs, key=lambda e: (e is not ZERO, _is_log_of_entry(e), e.size, e.order))
    total = first
    for other in others:
        total = add(total, call("softplus", sub(other, total)))
    return total


def _is_log_of_entry(e: Expr) -> bool:
    return any(isinstance(t, Call) and t.function == "log" and isinstance(t.args[0], Entry) for t in as_terms(e))


# ------------------------------------------------------------------ products


def _product(e: Mul | Pow, nonnegative: frozenset[str]) -> Expr:
    """Merge what may leave the range of floats into one exponential, and read probabilities from it."""
    factors = as_factors(e)
    merged: list[Expr] = []
    kept: list[Expr] = []
    for f in factors:
        found = log_of(f, nonnegative) if _may_overflow(f) else None
        if found is None:
            kept.append(f)
        else:
            merged.append(found)
    if not merged or (len(factors) == 1 and not _is_quotient(e)):
        return e
    merged, kept = _into_sums(merged, kept)
    if not merged:
        return mul(*kept)
    shares = [f for f in kept if _is_share(f)]
    total = add(*merged, *(log_of(f) for f in shares))  # type: ignore[arg-type]
    result = exp_of(total)
    if len(merged) == 1 and not shares and _is_alone(merged[0], result):
        return e
    return mul(result, *(f for f in kept if f not in shares))


def _into_sums(merged: list[Expr], kept: list[Expr]) -> tuple[list[Expr], list[Expr]]:
    """Multiply an exponential into a power of a sum of exponentials where that uses it up: (e^a − b)²e^−2a."""
    total = add(*merged)
    for f in kept:
        base, exponent = (f.base, f.exponent) if isinstance(f, Pow) else (f, ONE)
        if not (isinstance(base, Add) and isinstance(exponent, Const) and exponent.value in (1, 2)):
            continue
        for a in (n.args[0] for n in walk(base) if isinstance(n, Call) and n.function == "exp"):
            if total is neg(mul(exponent, a)):
                inner = add(*(mul(t, call("exp", neg(a))) for t in base.terms))
                spread = bottom_up(inner, lambda e: _product(e, frozenset()) if isinstance(e, Mul) else e)
                return [], [*(g for g in kept if g is not f), power(spread, exponent)]
    return merged, kept


def _is_quotient(e: Expr) -> bool:
    return isinstance(e, Pow) and not (isinstance(e.base, Call) and e.base.function == "exp")


def _is_alone(merged: Expr, result: Expr) -> bool:
    """Whether nothing was gained: the exponential is what it was."""
    return isinstance(result, Call) and result.function == "exp" and result.args[0] is merged


def _may_overflow(f: Expr) -> bool:
    """Whether f is an exponential, or a power of one or of a sum of some, below a fraction line or above it."""
    match f:
        case Call("exp"):
            return True
        case Pow(Call("exp")):
            return True
        case Pow(Softmax() | Call("sigmoid"), exponent):
            return isinstance(exponent, Const) and exponent.value < 0
        case Pow(Add() as base, Const(n)) if n > 0 and complement_of(base) is not None:
            return False
        case Pow(base):
            return is_exponential(base) and not is_away_from_zero(base)
        case Reduce("sum"):
            return any(isinstance(n, Call) and n.function == "exp" for n in walk(f)) and log_of(f) is not None
        case _:
            return False


def _is_share(f: Expr) -> bool:
    base = f.base if isinstance(f, Pow) else f
    return isinstance(base, Softmax) or (isinstance(base, Call) and base.function == "sigmoid")


def exp_of(total: Expr) -> Expr:
    """Return exp(total) as a product of the probabilities in it and of what is left."""
    terms = list(total.terms) if isinstance(total, Add) else [total]
    found: list[Expr] = []
    for take in (_take_softmax, _take_sigmoid):
        while True:
            taken = take(terms)
            if taken is None:
                break
            share, terms = taken
            found.append(share)
    rest = add(*terms)
    return mul(*found) if rest is ZERO else mul(*found, call("exp", rest))


def _take_softmax(terms: list[Expr]) -> tuple[Expr, list[Expr]] | None:
    """Take c·(x_i − log Σ exp(x)) out of a sum, as softmax(x)_i^c."""
    for term in terms:
        number, part = coefficient(term)
        power_, lse = _scaled_lse(number, part)
        if lse is None:
            continue
        index, cond, body = opened(lse)
        for at in indices_of(add(*terms)):
            wanted = mul(power_, instantiate(lse, at))
            rest = add(*terms, term_negated(term), neg(wanted))
            fewer = rest.terms if isinstance(rest, Add) else () if rest is ZERO else (rest,)
            if len(fewer) < len(terms) - 1 + (instantiate(lse, at) is ZERO):
                return power(softmax(index, body, at, cond), power_), list(fewer)
    return None


def term_negated(term: Expr) -> Expr:
    """Return −term: what takes it out of a sum."""
    return neg(term)


def _scaled_lse(number: Number, part: Expr) -> tuple[Expr, Reduce | None]:
    """Return (c, lse) for −c·lse."""
    factors = as_factors(part)
    for f in factors:
        if isinstance(f, Reduce) and f.op == "logsumexp":
            return mul(const(-number), *(g for g in factors if g is not f)), f
    return ONE, None


def _take_sigmoid(terms: list[Expr]) -> tuple[Expr, list[Expr]] | None:
    """Take −softplus(a) or a − softplus(a) out of a sum, as σ(−a) or σ(a)."""
    for term in terms:
        number, part = coefficient(term)
        if not (isinstance(part, Call) and part.function == "softplus" and number < 0 and isinstance(number, int)):
            continue
        a = part.args[0]
        others = [t for t in terms if t is not term]
        best = min(range(-number + 1), key=lambda n: (_count(add(*others, neg(mul(const(n), a)))), n))
        rest = add(*others, neg(mul(const(best), a)))
        share = mul(power(call("sigmoid", a), const(best)), power(call("sigmoid", neg(a)), const(-number - best)))
        return share, list(rest.terms) if isinstance(rest, Add) else [] if rest is ZERO else [rest]
    return None


def _count(e: Expr) -> int:
    return len(e.terms) if isinstance(e, Add) else int(e is not ZERO)
