"""Means over classes that cancel where one class leads: p_j (z_j − Σ_m p_m z_m), in derivatives of all that averages.

With T_j = F_j/p_j^e and M = Σ_m F_m, where F_m = p_m z_m, what is left of T_j beside p_j^(1−e) M is

    D_j = T_j − p_j^(1−e) M = (T_j − p_j^(1−e) z_top) − p_j^(1−e) Σ_m (F_m − p_m z_top),

and both differences are 0 at the class that leads. M is replaced by (T_j − D_j)/p_j^(1−e) in a polynomial, which is
then sorted by powers of D_j: what cancelled between T_j and M has cancelled in the coefficients.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from lossmith.calculus.equals import polynomial_parts
from lossmith.calculus.onesign import one_signed
from lossmith.calculus.patterns import fill, row
from lossmith.calculus.rules import Rule, is_plain, rewriting
from lossmith.calculus.simplify import distribute, factored
from lossmith.calculus.statements import parse_statement
from lossmith.language.build import (
    add,
    arg_reduce,
    as_factors,
    as_terms,
    call,
    coefficient,
    compare,
    const,
    div,
    instantiate,
    mul,
    neg,
    opened,
    power,
    reduce_,
    sub,
    substitute,
    where,
)
from lossmith.language.expr import (
    ONE,
    TRUE,
    ZERO,
    Add,
    Call,
    Const,
    Entry,
    Expr,
    Free,
    Held,
    Index,
    Label,
    Mul,
    Pow,
    Reduce,
    Softmax,
    Var,
    walk,
)
from lossmith.language.formula import DIRECTION

MAX_SIZE, MAX_TERMS = 400, 24
"""What is larger is left as it is: D would make it too large to work on."""


@dataclass(frozen=True)
class _Mean:
    """M = Σ_m F_m with F_m = p_m z_m, over all classes, as `total`."""

    total: Reduce
    p: Softmax
    """Its p_m, at the index that `of` opened."""
    index: Index
    of: Expr
    """F_m."""


def with_centred_means(expr: Expr) -> Expr:
    """Return `expr` with D_j for T_j − p_j^(1−e) M wherever a mean is taken of functions of the scores."""
    expr = _of_one_sign(expr)
    if expr.size > MAX_SIZE:
        return expr
    ones = {node: found for node in polynomial_parts(expr) if (found := _without_one(node)) is not None}
    expr = substitute(expr, ones) if ones else expr
    parts = list(dict.fromkeys(polynomial_parts(expr)))
    if any(isinstance(n, Entry) and n.name == DIRECTION for n in parts):
        return expr  # centred.py does it for products
    rests: dict[Expr, Expr] = {}
    for mean in _means(parts):
        for at in _classes(parts, mean):
            mark = Var(f"rest {len(rests)}", ())
            found = _sorted_by(expr, mean, at, mark)
            if found is not None:
                expr, rests[mark] = found
                break
    return substitute(expr, rests) if rests else expr


LESS_POWERS = rewriting(
    "one_less_powers_of_shares", "1 - sum(softmax(x)**b)",
    "sum(where(1 > abs((b - 1)*log(softmax(x))), -softmax(x)*expm1((b - 1)*log(softmax(x))), "
    "group(softmax(x)) - softmax(x)**b))",
    plain="b", b="positive",
)  # fmt: skip
"""Σ p is 1, and p − p^b has one sign for all classes."""


RATIO = "group(group(x - logsumexp(x)) - group(z - logsumexp(z)))"
_divergence = partial(
    parse_statement,
    f"sum(where(1 > abs({RATIO}), softmax(x)*(expm1(-{RATIO}) + {RATIO}), "
    f"group(softmax(z) - softmax(x)) + softmax(x)*{RATIO}))",
)


def divergence_of_softmaxes(e: Expr) -> Expr | None:
    """Write Σ p log(p/q) as Σ p (q/p − 1 + log(p/q)), as Σ q = Σ p = 1: all terms are above 0."""
    if not (isinstance(e, Reduce) and e.op == "sum" and e.cond is TRUE):
        return None
    index, _, body = opened(e)
    p = next((f for f in as_factors(body) if isinstance(f, Softmax) and f.at is index and f.cond is TRUE), None)
    if p is None or index in p.body.free:
        return None
    log_ratio = mul(*(f for f in as_factors(body) if f is not p))
    x = instantiate(p, index)
    for sign in (1, -1):
        log_q = sub(sub(x, reduce_("logsumexp", index, x)), mul(const(sign), log_ratio))
        for term in as_terms(log_q):
            lse = neg(term)
            z = add(log_q, lse)
            if isinstance(lse, Reduce) and lse.op == "logsumexp" and lse is reduce_("logsumexp", index, z):
                return mul(const(sign), fill(_divergence(), {"x": row(index, x), "z": row(index, z)}))
    return None


MEAN_RULES = (
    LESS_POWERS,
    Rule(
        "divergence_of_softmaxes", "", divergence_of_softmaxes, "",
        ("sum(softmax(s)*(s + logsumexp(s) - logsumexp(2*s)))",
         "sum(softmax(2*s)*(s - logsumexp(2*s) + logsumexp(s)))"),
        ulp=3,
    ),
)  # fmt: skip
"""How sums over classes of one sign for all classes are written."""


def _of_one_sign(e: Expr) -> Expr:
    for rule in MEAN_RULES:
        e = rule.apply(e) or e
    return mul(*map(_of_one_sign, e.factors)) if isinstance(e, Mul) else e


def _without_one(e: Expr) -> Expr | None:
    """Write Σ_m p_m^a (f_m + c·p_m^(1−a)) as Σ_m p_m^a f_m + c."""
    if not (isinstance(e, Reduce) and e.op == "sum" and e.cond is TRUE):
        return None
    index, _, body = opened(e)
    if not any(isinstance(f, Add) for f in as_factors(body)):
        return None
    flat = distribute(body, lambda f: isinstance(f, Add))
    for term in as_terms(flat):
        number, p = coefficient(term)
        if isinstance(p, Softmax) and p.at is index and p.cond is TRUE and index not in p.body.free:
            return add(const(number), reduce_("sum", index, sub(flat, term)))
    return None


def _means(parts: list[Expr]) -> Iterator[_Mean]:
    for node in parts:
        if not (isinstance(node, Reduce) and node.op == "sum" and node.cond is TRUE):
            continue
        index, _, body = opened(node)
        for f in as_factors(body):
            p = f.base if isinstance(f, Pow) else f
            if not (isinstance(p, Softmax) and p.at is index and p.cond is TRUE and index not in p.body.free):
                continue
            z = div(body, p)
            # Sums that a soft label weights need not be about the leader; what is plain is left to rules.
            if not is_plain(z) and not any(isinstance(f, Entry) for f in as_factors(z)):
                yield _Mean(node, p, index, body)
                break


def _classes(parts: list[Expr], mean: _Mean) -> list[Index]:
    """Return the classes at which the probabilities of a mean stand outside of it."""
    found = [n.at for n in parts if isinstance(n, Softmax) and n.body is mean.p.body]
    return [at for at in dict.fromkeys(found) if isinstance(at, Label | Free)]


def _sorted_by(expr: Expr, mean: _Mean, at: Index, rest: Var) -> tuple[Expr, Expr] | None:
    """Return `expr` with M replaced, sorted by powers of D at a class, which is marked as `rest`, and D.

    None where that does not make it shorter: then T_j does not stand beside M.
    """
    exponent = next(e for f in as_factors(mean.of) if (e := _exponent(f, mean.p)) is not None)
    e = exponent if isinstance(exponent, Const) and exponent.value < 1 else ONE
    share = _at(power(mean.p, sub(ONE, e)), mean.index, at)
    whole = _at(div(mean.of, power(mean.p, e)), mean.index, at)
    replaced = _polynomial(expr, mean.total, div(sub(whole, rest), share))
    before, after = (as_terms(distribute(e, _is_loose)) for e in (expr, replaced))
    # Half of a Hessian, u_j of u_j v_k, may hold log p_j once more than M does: it is as good as it stands.
    entropy = whole is call("log", _at(mean.p, mean.index, at))
    if replaced is expr or len(after) > MAX_TERMS or _count(after) > _count(before) - entropy:
        return None
    groups: dict[Expr, list[Expr]] = {}
    for term in after:
        marks = [f for f in as_factors(term) if isinstance(f.base if isinstance(f, Pow) else f, Var)]
        groups.setdefault(mul(*marks), []).append(mul(*(f for f in as_factors(term) if f not in marks)))
    return add(*(mul(marks, _as_one(add(*terms))) for marks, terms in groups.items())), Held(_rest(mean, at, share))


def _count(terms: Iterable[Expr]) -> int:
    """Return how many terms differ by more than numbers and hyperparameters."""
    return len({mul(*(f for f in as_factors(t) if not _is_number(f))) for t in terms})


def _is_number(f: Expr) -> bool:
    return not any(isinstance(n, Entry | Softmax | Call | Reduce | Var) for n in walk(f))


def _is_loose(f: Expr) -> bool:
    """Whether a factor is a sum: 1 − p too, as p·(1 − p) may cancel with p²."""
    return isinstance(f.base if isinstance(f, Pow) else f, Add)


def _as_one(e: Expr) -> Expr:
    e = one_signed(factored(e))
    return Held(e) if isinstance(e, Add) else e


def _exponent(f: Expr, p: Expr) -> Expr | None:
    base, exponent = (f.base, f.exponent) if isinstance(f, Pow) else (f, ONE)
    return exponent if base is p else None


def _at(e: Expr, index: Index, at: Index) -> Expr:
    return substitute(e, {index: at})


def _polynomial(e: Expr, old: Expr, new: Expr) -> Expr:
    """Return a polynomial with one of its parts replaced."""

    def visit(e: Expr) -> Expr:
        match e:
            case _ if e is old:
                return new
            case Add(terms):
                return add(*map(visit, terms))
            case Mul(factors):
                return mul(*map(visit, factors))
            case Held(body):
                return visit(body)
            case Pow(base, Const(n)) if isinstance(n, int) and n > 0:
                return power(visit(base), e.exponent)
            case _:
                return e

    return visit(e)


# ------------------------------------------------------------------ differences to the class that leads


def _rest(mean: _Mean, at: Index, share: Expr) -> Expr:
    """Return D at a class."""
    index, p = mean.index, mean.p
    top = arg_reduce("max", *_swapped(p))
    largest = reduce_("max", *_swapped(p))
    z = div(mean.of, p)

    def short(e: Expr, at: Index) -> Expr:
        return substitute(_short(e, index, at, top), {instantiate(p, top): largest})

    if share is ONE:
        away = mul(p, short(z, index))
        return sub(short(z, at), reduce_("sum", index, away))
    kept = next(f.exponent for f in as_factors(share) if isinstance(f, Pow))  # 1 − e
    of_class = div(mean.of, power(p, sub(ONE, kept)))

    def less_top(at: Index) -> Expr:
        gap = mul(kept, Held(sub(_at(instantiate(p, index), index, at), largest)))
        own, leader = _at(of_class, index, at), _at(of_class, index, top)
        near = sub(Held(short(of_class, at)), mul(leader, call("expm1", gap)))
        return where(compare(">", gap, const(-1)), near, sub(own, mul(leader, call("exp", gap))))

    away = mul(power(p, sub(ONE, kept)), less_top(index))
    return sub(less_top(at), mul(share, reduce_("sum", index, away)))


def _swapped(p: Softmax) -> tuple[Index, Expr]:
    index, _, body = opened(p)
    return index, body


def _short(e: Expr, index: Index, at: Index, top: Index) -> Expr:
    """Return e at a class less e at the class that leads, in a form that is right where they are near each other."""
    if index not in e.free:
        return ZERO
    match e:
        case Add(terms):
            return add(*(_short(t, index, at, top) for t in terms))
        case Held(body):
            return _short(body, index, at, top)
        case Mul(factors) if sum(index in f.free for f in factors) == 1:
            (moving,) = (f for f in factors if index in f.free)
            return mul(*(f for f in factors if f is not moving), _short(moving, index, at, top))
        case Call("log", (Softmax() as p,)):
            return _short(instantiate(p, p.at), index, at, top)
        case Call("log", (Entry() as t,)):
            return call("log", div(_at(t, index, at), _at(t, index, top)))
        case Softmax() | Pow(Softmax()):
            p, exponent = (e.base, e.exponent) if isinstance(e, Pow) else (e, ONE)
            assert isinstance(p, Softmax)
            grown = mul(exponent, _short(instantiate(p, p.at), index, at, top))
            below = mul(_at(e, index, top), call("expm1", grown))
            if top is arg_reduce("max", *_swapped(p)):
                return below
            above = mul(_at(e, index, at), call("expm1", neg(grown)))
            return where(compare(">", grown, ZERO), neg(above), below)
        case Entry():
            return Held(sub(_at(e, index, at), _at(e, index, top)))
        case _:
            return sub(_at(e, index, at), _at(e, index, top))
