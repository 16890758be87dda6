"""Stable forms, found by rules: no cancellation, no overflow, no 0·∞.

Three passes over an expression that is already simplified:

1. rules that are lines of text (STABLE_RULES): log softmax, complements of sigmoid and softmax, log1p, expm1;
2. gaps: with m = max_k x_k, d_k = x_k − m and R = Σ_{k: d_k≠0} exp(d_k) + (#{k: d_k=0} − 1), every log Σ exp, softmax
   and complement of a softmax becomes a sum of terms of one sign:

       log Σ exp(x) − x_i = log1p(R) − d_i      p_i = exp(d_i)/(1 + R)      1 − p_i = (R + (1 − exp(d_i)))/(1 + R)

   R leaves one of the maxima out, so nothing of size one hides the small terms; no index of the maximum is needed;
3. guards: a target or weight of zero leaves its term out, whatever the other factor is.
"""

from __future__ import annotations

from functools import partial

from lossmith.calculus.patterns import fill, indices_of, row
from lossmith.calculus.rules import LOG_SOFTMAX_TO_GAP, RECOGNITION, Rule, rewriting
from lossmith.calculus.simplify import bottom_up
from lossmith.calculus.statements import parse_statement
from lossmith.language.build import (
    add,
    call,
    coefficient,
    compare,
    const,
    div,
    instantiate,
    is_indicator,
    mul,
    neg,
    not_,
    opened,
    rebuild,
    reduce_,
    softmax,
    sub,
    substitute,
    where,
)
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    Call,
    ClassNumber,
    Const,
    Delta,
    Entry,
    Expr,
    Free,
    Held,
    Hyper,
    Index,
    Mul,
    Node,
    Not,
    Pow,
    Reduce,
    Size,
    Softmax,
    Where,
    walk,
)

OTHERS = "group(sum(z*(max(z) > z)) + max(z)*group(sum((z == max(z))*1) - 1) + group(max(z) - z[i]))"
"""Σ_m z_m − z_i as all but one of the largest, plus what z_i falls short of it."""

STABLE_RULES = (
    *RECOGNITION,
    LOG_SOFTMAX_TO_GAP,
    rewriting("log_sigmoid_to_softplus", "log(sigmoid(a))", "-softplus(-a)", reference="Mächler 2012"),
    rewriting("sigmoid_complement", "1 - sigmoid(a)", "sigmoid(-a)"),
    rewriting("softplus_definition", "log(1 + exp(a))", "softplus(a)", reference="Mächler 2012, eq. 10"),
    rewriting("softplus_from_log1p", "log1p(exp(a))", "softplus(a)"),
    rewriting("log_one_plus_sum_exp", "log(1 + sum(exp(x)))", "softplus(logsumexp(x))"),
    rewriting("log1p_sum_exp", "log1p(sum(exp(x)))", "softplus(logsumexp(x))"),
    rewriting("one_plus_sum_exp", "(1 + sum(exp(x)))**b", "sigmoid(-logsumexp(x))**(-b)", plain="b"),
    rewriting("exp_of_share", "exp(x[i])*sigmoid(-logsumexp(x))", "softmax(x)[i]*sigmoid(logsumexp(x))"),
    rewriting("sum_exp_of_share", "sum(exp(x))*sigmoid(-logsumexp(x))", "sigmoid(logsumexp(x))"),
    rewriting(
        "exp_of_shifted_share",
        "exp(x[i] - a)*sigmoid(a - logsumexp(x))",
        "softmax(x)[i]*sigmoid(logsumexp(x) - a)",
    ),
    rewriting(
        "sum_exp_of_shifted_share", "sum(exp(x - a))*sigmoid(a - logsumexp(x))", "sigmoid(logsumexp(x) - a)"
    ),
    rewriting("log_one_minus_exp", "log(1 - exp(a))", "where(a > -log(2), log(-expm1(a)), log1p(-exp(a)))",
              a="negative", reference="Mächler 2012, eq. 7"),
    rewriting("one_plus_to_log1p", "log(1 + a)", "log1p(a)", a="nonnegative"),
    rewriting("exp_minus_one", "exp(a) - 1", "expm1(a)"),
    rewriting("log_cosh_definition", "log(cosh(a))", "log_cosh(a)"),
    rewriting("tanh_complement", "1 - tanh(a)**2", "4*sigmoid(2*a)*sigmoid(-2*a)"),
    rewriting("softplus_minus_argument", "softplus(a) - a", "softplus(-a)"),
    rewriting("logistic_by_targets", "softplus(a) - b*a", "b*softplus(-a) + (1 - b)*softplus(a)", plain="b"),
    rewriting("sigmoid_minus_target", "sigmoid(a) - b", "(1 - b)*sigmoid(a) - b*sigmoid(-a)", plain="b"),
    rewriting("softmax_minus_target", "softmax(x)[i] - c", "softmax(x)[i]*(1 - c) - c*(1 - softmax(x)[i])",
              plain="c"),
    rewriting("softmax_minus_weighted_target", "b*softmax(x)[i] - c",
              "softmax(x)[i]*(b - c) - c*(1 - softmax(x)[i])", plain="bc"),
    rewriting("one_minus_power_of_softmax", "1 - softmax(x)[i]**b", "-expm1(b*log(softmax(x)[i]))", plain="b",
              b="positive"),
    rewriting("one_minus_power_of_sigmoid", "1 - sigmoid(a)**b", "-expm1(b*log(sigmoid(a)))", plain="b",
              b="positive"),
    rewriting("sum_of_the_others", "sum(z) - z[i]",
              OTHERS, plain="z"),
    rewriting("log_share_less_entropy", "x[i] - logsumexp(x) - sum(softmax(x)*(x - logsumexp(x)))",
              "group(x[i] - max(x)) - sum(softmax(x)*group(x - max(x)))"),
    rewriting("mean_over_softmax", "z[i] - sum(softmax(x)*z)",
              "group(z[i] - z[argmax(x)]) - sum(softmax(x)*group(z - z[argmax(x)]))", plain="z"),
    rewriting("log_softmax_complement", "log(1 - softmax(x)[i])",
              "where(softmax(x)[i] > 0.5, log(group(1 - softmax(x)[i])), log1p(-softmax(x)[i]))"),
)  # fmt: skip


def out_of_binder(e: Expr) -> Expr | None:
    """Move what a maximum or log Σ exp does not run over in front of it, and drop it from a softmax."""
    if not (isinstance(e, Softmax) or (isinstance(e, Reduce) and e.op in ("max", "min", "logsumexp"))):
        return None
    index, cond, body = opened(e)
    if not isinstance(body, Add):
        return None
    fixed = add(*(t for t in body.terms if index not in t.free))
    if fixed is ZERO:
        return None
    moving = sub(body, fixed)
    if isinstance(e, Softmax):
        return softmax(index, moving, e.at, cond)
    return add(fixed, reduce_(e.op, index, moving, cond))


def power_of_share(e: Expr) -> Expr | None:
    """Write p^γ as exp(γ log p) where γ is no whole number: p may underflow where p^γ does not."""
    if not (isinstance(e, Pow) and isinstance(e.base, Softmax)):
        return None
    if isinstance(e.exponent, Const) and isinstance(e.exponent.value, int):
        return None
    p = e.base
    index, cond, body = opened(p)
    log_p = sub(instantiate(p, p.at), reduce_("logsumexp", index, body, cond))
    return call("exp", mul(e.exponent, Held(log_p)))


_others = partial(parse_statement, OTHERS)


def sum_of_others(e: Expr) -> Expr | None:
    """Compute Σ_{m≠j} f_m for every j at once: all but one of the largest, plus what f_j falls short of it.

    That has no cancellation where the f_m have one sign, as targets and their products with probabilities do.
    """
    if not (isinstance(e, Reduce) and e.op == "sum" and isinstance(e.cond, Not) and isinstance(e.cond.cond, Delta)):
        return None
    index, cond, body = opened(e)
    others = [i for i in cond.free if i is not index]
    if len(others) != 1 or not isinstance(others[0], Free) or others[0] in body.free:
        return None
    return fill(_others(), {"z": row(index, body), "i": others[0]})


STABLE_RULES = (
    *STABLE_RULES,
    Rule("sum_of_others", "", sum_of_others, "", ("sum(exp(s), where=classes != y)",)),
    Rule("out_of_binder", "", out_of_binder, "", ("max(s - s[y])", "logsumexp(s + s[0])", "softmax(s - s[y])[y]")),
    Rule("power_of_share", "", power_of_share, "", ("softmax(s)[y]**1.5",)),
)


def stabilize(expr: Expr, targets: frozenset[str] = frozenset(), positive: frozenset[str] = frozenset()) -> Expr:
    """Return `expr` in a form that computes to rounding.

    `targets` names the inputs whose zeros leave terms out, `positive` the hyperparameters known to be above 0.
    """
    return guarded(with_gaps(by_rules(expr), positive), targets)


def by_rules(expr: Expr) -> Expr:
    """Apply the rules of STABLE_RULES, the innermost sub-expressions first, until none applies."""

    def step(e: Expr) -> Expr:
        for rule in STABLE_RULES:
            new = rule.apply(e)
            if new is not None and new is not e:
                return by_rules(new)
        return e

    return bottom_up(expr, step)


# ------------------------------------------------------------------ gaps


def with_gaps(expr: Expr, positive: frozenset[str] = frozenset()) -> Expr:
    """Replace log Σ exp, softmax and its complement by forms over gaps to the maximum."""
    result = _Gaps(positive).visit(expr)
    assert isinstance(result, Expr)
    return result


class _Gaps:
    """The pass `with_gaps`; `positive` names the hyperparameters that are above 0."""

    def __init__(self, positive: frozenset[str]) -> None:
        self.positive = positive
        self.memo: dict[Node, Node] = {}

    def visit(self, n: Node) -> Node:
        if n not in self.memo:
            self.memo[n] = self._step(n) if isinstance(n, Expr) else n
        return self.memo[n]

    def _step(self, e: Expr) -> Node:
        if isinstance(e, Add):
            return self._sum(e)
        if isinstance(e, Reduce) and e.op == "logsumexp":
            return add(self.top(e), call("log1p", self.rest(e)))
        if isinstance(e, Softmax):
            return div(call("exp", self.gap(e, e.at)), add(ONE, self.rest(e)))
        return rebuild(e, self.visit)

    def _parts(self, binder: Reduce | Softmax) -> tuple[Index, Expr, Expr, Expr]:
        """Return index, condition, and the body as scale·moving, the scale above 0 and free of the index."""
        index, cond, body = opened(binder)
        body = self.visit(body)
        assert isinstance(body, Expr)
        factors = body.factors if isinstance(body, Mul) else (body,)
        scale = mul(*(f for f in factors if index not in f.free and self._is_positive(f)))
        return index, cond, scale, div(body, scale)

    def _is_positive(self, e: Expr) -> bool:
        match e:
            case Const(value):
                return value > 0
            case Hyper(name, ()):
                return name in self.positive
            case Pow(base, Const()):
                return self._is_positive(base)
            case _:
                return False

    def top(self, binder: Reduce | Softmax) -> Expr:
        """Return the largest body."""
        index, cond, scale, moving = self._parts(binder)
        return mul(scale, reduce_("max", index, moving, cond))

    def gap(self, binder: Reduce | Softmax, at: Index) -> Expr:
        """Return what the body at a class falls short of the largest: scaled after the difference is taken."""
        index, cond, scale, moving = self._parts(binder)
        difference = Held(sub(substitute(moving, {index: at}), reduce_("max", index, moving, cond)))
        return difference if scale is ONE else Held(mul(scale, difference))

    def rest(self, binder: Reduce | Softmax) -> Expr:
        """Return R = Σ exp(d_k) less the 1 of one maximum."""
        index, cond, _ = opened(binder)
        gap = self.gap(binder, index)
        at_top = compare("==", gap, ZERO)
        below = reduce_("sum", index, call("exp", gap), mul(cond, not_(at_top)))
        ties = reduce_("sum", index, ONE, mul(cond, at_top))
        return Held(add(below, Held(sub(ties, ONE))))

    def complement(self, p: Softmax) -> Expr:
        """Return 1 − p as a sum of what is not p."""
        rest = self.rest(p)
        missing = Held(sub(ONE, call("exp", self.gap(p, p.at))))
        return div(Held(add(rest, missing)), add(ONE, rest))

    def _sum(self, e: Add) -> Node:
        terms = list(e.terms)
        done: list[Expr] = []
        large: list[Expr] = []  # maxima of the scores: their differences are taken before anything small is added
        for term in e.terms:
            number, part = coefficient(term)
            if isinstance(part, Softmax) and const(-number) in terms:
                terms.remove(term)
                terms.remove(const(-number))
                done.append(mul(const(-number), self.complement(part)))
            elif isinstance(part, Reduce) and part.op == "logsumexp":
                terms.remove(term)
                paired = _pair(part, number, terms)
                log_rest = call("log1p", self.rest(part))
                if paired is None:
                    large.append(mul(const(number), self.top(part)))
                    done.append(mul(const(number), log_rest))
                    continue
                at, used = paired
                for t in used:
                    terms.remove(t)
                done.append(mul(const(number), Held(sub(log_rest, self.gap(part, at)))))
        scores = [t for t in terms if isinstance(coefficient(t)[1], Entry)]
        if large or (len(scores) > 1 and len(scores) < len(terms)):
            terms = [t for t in terms if t not in scores]
            done.append(Held(add(*large, *scores)))
        done += [self.visit(t) for t in terms]  # type: ignore[misc]
        return add(*done)


def _pair(lse: Reduce, number: object, terms: list[Expr]) -> tuple[Index, list[Expr]] | None:
    """Find x_i among the terms, so that number·(log Σ exp(x) − x_i) stands in the sum."""
    for at in indices_of(add(*terms)):
        wanted = neg(mul(const(number), instantiate(lse, at)))  # type: ignore[arg-type]
        parts = list(wanted.terms) if isinstance(wanted, Add) else [wanted]
        if all(p in terms for p in parts):
            return at, parts
    return None


# ------------------------------------------------------------------ guards


def guarded(expr: Expr, targets: frozenset[str]) -> Expr:
    """Make zero targets, zero weights and false indicators leave out factors that may be infinite."""

    def step(e: Expr) -> Expr:
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
                if others and may_be_infinite(mul(*others), targets):
                    number, _ = coefficient(e)
                    quotient = _divided(f, others)
                    if quotient is not None:
                        return mul(const(number), where(compare("==", f, ZERO), ZERO, quotient))
                    return mul(const(number), call("scaled", f, step(mul(*others))))
        return e

    return bottom_up(expr, step)


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
    if isinstance(f, Call) and f.function == "exp" and isinstance(f.args[0], Held):
        return True  # a softmax that has underflown: p log p is 0 at p = 0
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
