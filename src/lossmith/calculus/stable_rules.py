"""The rules that stabilise, as data: see rules.py for what a rule is."""

from __future__ import annotations

from functools import partial

from lossmith.calculus.magnitudes import ARGUMENT_RULES
from lossmith.calculus.patterns import CONDITION, fill, row
from lossmith.calculus.rules import (
    EXPM1_OF_SHARE,
    LOG_SOFTMAX_TO_GAP,
    RECOGNITION,
    Rule,
    is_even_share,
    is_known,
    rewriting,
)
from lossmith.calculus.simplify import distribute
from lossmith.calculus.statements import parse_statement
from lossmith.language.build import (
    add,
    as_factors,
    as_terms,
    call,
    div,
    instantiate,
    mul,
    neg,
    opened,
    reduce_,
    softmax,
    sub,
)
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    Const,
    Delta,
    Entry,
    Expr,
    Free,
    Held,
    Not,
    Pow,
    Reduce,
    Softmax,
    walk,
)
from lossmith.language.formula import DIRECTION

OTHERS = "group(sum(z*(max(z) > z)) + max(z)*group(sum((z == max(z))*1) - 1) + group(max(z) - z[i]))"
"""Σ_m z_m − z_i as all but one of the largest, plus what z_i falls short of it."""
FURTHEST = "where(-min(z) > max(z), min(z), max(z))"
OTHERS_OF_BOTH_SIGNS = (
    f"group(sum(z*(abs({FURTHEST}) > abs(z))) + "
    f"{FURTHEST}*group(sum((z == {FURTHEST})*1) - sum((z == -{FURTHEST})*1) - 1) + "
    f"where({FURTHEST} == z[i], 0, {FURTHEST} - z[i]))"
)
"""The same where what is largest may be below 0: nothing of it is left at its own class."""

GAPS = "group(x{0} - max(x))", "group(z{0} - max(z))"
APART = "where({0} == {1}, 0, where({0} > {1}, -exp({0})*expm1(group({1} - {0})), exp({1})*expm1(group({0} - {1}))))"
"""exp(a) − exp(b), also where both are 0."""
AT_INDEX, AT_ALL = (APART.format(*(gap.format(at) for gap in GAPS)) for at in ("[i]", ""))

EXCESS = "group(a - log(b))"
MIXED = "group(log(b) - group(x[i] - logsumexp(x)))"

STABLE_RULES = (
    *RECOGNITION,
    EXPM1_OF_SHARE,
    *ARGUMENT_RULES,
    LOG_SOFTMAX_TO_GAP,
    rewriting("log_softmax_complement", "log(1 - softmax(x)[i])",
              "where(softmax(x)[i] > 0.5, log(group(1 - softmax(x)[i])), log1p(-softmax(x)[i]))"),
    # With exp(x_m − max x) = exp(z_m − max z) + δ_m, over X = Σ exp(x_m − max x): classes that lead in both cancel out.
    rewriting("softmax_difference", "softmax(x)[i] - softmax(z)[i]",
              f"group({AT_INDEX} - softmax(z)[i]*sum({AT_ALL}))/sum(exp({GAPS[0].format('')}))"),
    rewriting("log_sigmoid_to_softplus", "log(sigmoid(a))", "-softplus(-a)", reference="Mächler 2012"),
    rewriting("sigmoid_complement", "1 - sigmoid(a)", "sigmoid(-a)"),
    rewriting("softplus_definition", "log(1 + exp(a))", "softplus(a)", reference="Mächler 2012, eq. 10"),
    rewriting("softplus_from_log1p", "log1p(exp(a))", "softplus(a)"),
    rewriting("log_one_plus_sum_exp", "log(1 + sum(exp(x)))", "softplus(logsumexp(x))"),
    rewriting("log1p_sum_exp", "log1p(sum(exp(x)))", "softplus(logsumexp(x))"),
    rewriting("one_plus_sum_exp", "(1 + sum(exp(x)))**b", "sigmoid(-logsumexp(x))**(-b)", plain="b",
              b="negative whole", ulp=4),
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
    rewriting("poisson_deviance", "exp(a) - b*a - b + b*log(b)",
              f"where(1 > {EXCESS}, b*(expm1({EXCESS}) - {EXCESS}), exp(a) - group(b*group(1 + {EXCESS})))",
              b="positive"),
    rewriting("gamma_deviance", "b*exp(-a) + a - log(b) - 1",
              f"where({EXCESS} > -1, expm1(-{EXCESS}) + {EXCESS}, where(a > -80, "
              f"b*exp(-a) + group({EXCESS} - 1), exp(-{EXCESS}) + group({EXCESS} - 1)))", b="positive"),
    rewriting("log_cosh_definition", "log(cosh(a))", "log_cosh(a)"),
    rewriting("tanh_complement", "1 - tanh(a)**2", "4*sigmoid(2*a)*sigmoid(-2*a)"),
    rewriting("softplus_of_both_signs", "softplus(a) - softplus(-a)", "a"),
    rewriting("share_of_both_signs", "b*softplus(a) - b*softplus(-a)", "a*b", b="open unit"),
    rewriting("softplus_difference", "softplus(a) - softplus(b)",
              "where(abs(a - b) < 1, log1p(sigmoid(b)*expm1(a - b)), group(softplus(a)) - group(softplus(b)))"),
    rewriting("sigmoid_difference", "sigmoid(a) - sigmoid(-a)", "tanh(a/2)"),
    rewriting("target_in_mixture", "softmax(x)[i]*sigmoid(log(b) - x[i] + logsumexp(x))",
              f"where({MIXED} > 0, softmax(x)[i]*group(sigmoid({MIXED})), b*group(sigmoid(-{MIXED})))", b="positive"),
    rewriting("sigmoids_apart", "sigmoid(a) - sigmoid(b)",
              "where(1 > abs(a - b), sigmoid(b)*sigmoid(-a)*expm1(a - b), where(a + b > 0, "
              "group(sigmoid(-b)) - group(sigmoid(-a)), group(sigmoid(a)) - group(sigmoid(b))))"),
    rewriting("log_two_less_softplus", "log(2) - softplus(a)",
              "where(a < 1, -log1p(expm1(a)/2), log(2) - group(softplus(a)))"),
    rewriting("softplus_minus_argument", "softplus(a) - a", "softplus(-a)"),
    rewriting("logistic_by_targets", "softplus(a) - b*a", "b*softplus(-a) + (1 - b)*softplus(a)", plain="b"),
    rewriting("sigmoid_minus_target", "sigmoid(a) - b", "(1 - b)*sigmoid(a) - b*sigmoid(-a)", plain="b"),
    rewriting("one_minus_power_of_softmax", "1 - softmax(x)[i]**b", "-expm1(b*log(softmax(x)[i]))", plain="b",
              b="positive"),
    rewriting("one_minus_power_of_sigmoid", "1 - sigmoid(a)**b", "-expm1(b*log(sigmoid(a)))", plain="b",
              b="positive"),
    rewriting("sum_of_the_others", "sum(z) - z[i]",
              OTHERS, plain="z"),
    rewriting("multiple_of_the_others", "b*sum(z) - b*z[i]",
              f"b*{OTHERS}", plain="z"),
    rewriting("log_share_less_entropy", "x[i] - logsumexp(x) - sum(softmax(x)*(x - logsumexp(x)))",
              "group(x[i] - max(x)) - sum(softmax(x)*group(x - max(x)))"),
    rewriting("mean_over_softmax", "z[i] - sum(softmax(x)*z)",
              "group(z[i] - z[argmax(x)]) - sum(softmax(x)*group(z - z[argmax(x)]))", plain="z"),
)  # fmt: skip


def out_of_binder(e: Expr) -> Expr | None:
    """Move what a maximum or log Σ exp does not run over in front of it, and drop it from a softmax."""
    if not (isinstance(e, Softmax) or (isinstance(e, Reduce) and e.op in ("max", "min", "logsumexp"))):
        return None
    index, cond, body = opened(e)
    factors = as_factors(body)
    terms = next((f for f in factors if isinstance(f, Add) and index in f.free), None)
    scale = mul(*(f for f in factors if f is not terms))
    if terms is None or index in scale.free:
        return None
    fixed = add(*(t for t in terms.terms if index not in t.free))
    if fixed is ZERO:
        return None
    moving, fixed = mul(scale, sub(terms, fixed)), mul(scale, fixed)
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


def multiplied_out(e: Expr) -> Expr | None:
    """Multiply out the products in a sum of targets, weights and numbers where terms then cancel."""
    if not isinstance(e, Add) or not is_known(e) or not any(isinstance(f, Add) for t in e.terms for f in as_factors(t)):
        return None
    flat = distribute(e, lambda f: isinstance(f, Add))
    return flat if len(as_terms(flat)) <= len(e.terms) else None


def share_less_targets(e: Expr) -> Expr | None:
    """Write b·p − c as (b − c)·p − c·(1 − p), for targets, weights and numbers b and c: it may cancel where p nears 1.

    p − ε/K does not, and stays as it is.
    """
    if not isinstance(e, Add):
        return None
    taken = [t for t in e.terms if is_known(t)]
    c = neg(add(*taken))
    if isinstance(c, Const) or is_even_share(c):
        return None
    for term in e.terms:
        for p in as_factors(term):
            if isinstance(p, Softmax) and is_known(div(term, p)):
                held = [t for t in e.terms if p in as_factors(t) and is_known(div(t, p))]
                b = add(*(div(t, p) for t in held))
                rest = [t for t in e.terms if t not in taken and t not in held]
                return add(mul(p, sub(b, c)), neg(mul(c, sub(ONE, p))), *rest)
    return None


_others = partial(parse_statement, OTHERS)
_others_of_both_signs = partial(parse_statement, OTHERS_OF_BOTH_SIGNS)


def sum_of_others(e: Expr) -> Expr | None:
    """Compute Σ_{m≠j} f_m for every j at once: all but one of the largest, plus what f_j falls short of it.

    That has no cancellation where the f_m have one sign, as targets and their products with probabilities do. In the
    direction of a Hessian-vector product they have both.
    """
    if not (isinstance(e, Reduce) and e.op == "sum"):
        return None
    index, cond, body = opened(e)
    conds = as_factors(cond)
    if not all(isinstance(c, Not) and isinstance(c.cond, Delta) for c in conds):
        return None
    for c in conds:
        others = [i for i in c.free if i is not index]
        if len(others) == 1 and isinstance(others[0], Free) and others[0] not in body.free:
            kept = {} if len(conds) == 1 else {CONDITION: row(index, mul(*(d for d in conds if d is not c)))}
            both = any(isinstance(n, Entry) and n.name == DIRECTION for n in walk(body))
            return fill((_others_of_both_signs if both else _others)(), {"z": row(index, body), "i": others[0], **kept})
    return None


STABLE_RULES = (
    *STABLE_RULES,
    Rule("sum_of_others", "", sum_of_others, "", ("sum(softmax(s), where=classes != y)",)),
    Rule("out_of_binder", "", out_of_binder, "", ("max(s - s[y])", "logsumexp(s + s[0])", "softmax(s - s[y])[y]")),
    Rule("share_less_targets", "", share_less_targets, "", ("softmax(s)[y] - 1 + 1/K",)),
    Rule("multiplied_out", "", multiplied_out, "", ("s[y]*(1 + K) - s[y]",)),
    Rule("power_of_share", "", power_of_share, "", ("softmax(s)[y]**1.5",)),
)
