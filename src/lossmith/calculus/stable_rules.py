"""The rules that stabilise, as data: see rules.py for what a rule is."""

from __future__ import annotations

from functools import partial

from lossmith.calculus.magnitudes import ARGUMENT_RULES
from lossmith.calculus.patterns import CONDITION, fill, row
from lossmith.calculus.rules import EXPM1_OF_SHARE, LOG_SOFTMAX_TO_GAP, RECOGNITION, Rule, rewriting
from lossmith.calculus.statements import parse_statement
from lossmith.language.build import add, as_factors, call, instantiate, mul, opened, reduce_, softmax, sub
from lossmith.language.expr import (
    ZERO,
    Add,
    Const,
    Delta,
    Expr,
    Free,
    Held,
    Not,
    Pow,
    Reduce,
    Softmax,
)

OTHERS = "group(sum(z*(max(z) > z)) + max(z)*group(sum((z == max(z))*1) - 1) + group(max(z) - z[i]))"
"""Σ_m z_m − z_i as all but one of the largest, plus what z_i falls short of it."""

BETWEEN = "group(group(x - max(x)) - group(z - max(z)))"
"""How far two rows of scores are apart, their maxima taken off."""

STABLE_RULES = (
    *RECOGNITION,
    EXPM1_OF_SHARE,
    *ARGUMENT_RULES,
    LOG_SOFTMAX_TO_GAP,
    rewriting("log_softmax_complement", "log(1 - softmax(x)[i])",
              "where(softmax(x)[i] > 0.5, log(group(1 - softmax(x)[i])), log1p(-softmax(x)[i]))"),
    rewriting("softmax_difference", "softmax(x)[i] - softmax(z)[i]",
              f"where(1 > max(abs({BETWEEN})), softmax(z)[i]*expm1(group(x[i] - max(x)) - group(z[i] - max(z)) - "
              f"log1p(sum(softmax(z)*expm1({BETWEEN})))), "
              "where(softmax(x)[i] + softmax(z)[i] > 1, group(1 - softmax(z)[i]) - group(1 - softmax(x)[i]), "
              "group(softmax(x)[i]) - softmax(z)[i]))"),
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
    rewriting("log_cosh_definition", "log(cosh(a))", "log_cosh(a)"),
    rewriting("tanh_complement", "1 - tanh(a)**2", "4*sigmoid(2*a)*sigmoid(-2*a)"),
    rewriting("softplus_of_both_signs", "softplus(a) - softplus(-a)", "a"),
    rewriting("share_of_both_signs", "b*softplus(a) - b*softplus(-a)", "a*b", b="open unit"),
    rewriting("softplus_difference", "softplus(a) - softplus(b)",
              "where(abs(a - b) < 1, log1p(sigmoid(b)*expm1(a - b)), group(softplus(a)) - group(softplus(b)))"),
    rewriting("sigmoid_difference", "sigmoid(a) - sigmoid(-a)", "tanh(a/2)"),
    rewriting("log_two_less_softplus", "log(2) - softplus(a)",
              "where(a < 1, -log1p(expm1(a)/2), log(2) - group(softplus(a)))"),
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


_others = partial(parse_statement, OTHERS)


def sum_of_others(e: Expr) -> Expr | None:
    """Compute Σ_{m≠j} f_m for every j at once: all but one of the largest, plus what f_j falls short of it.

    That has no cancellation where the f_m have one sign, as targets and their products with probabilities do.
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
            return fill(_others(), {"z": row(index, body), "i": others[0], **kept})
    return None


STABLE_RULES = (
    *STABLE_RULES,
    Rule("sum_of_others", "", sum_of_others, "", ("sum(softmax(s), where=classes != y)",)),
    Rule("out_of_binder", "", out_of_binder, "", ("max(s - s[y])", "logsumexp(s + s[0])", "softmax(s - s[y])[y]")),
    Rule("power_of_share", "", power_of_share, "", ("softmax(s)[y]**1.5",)),
)
