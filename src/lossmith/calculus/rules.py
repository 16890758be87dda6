"""The rules of the calculus, as data: a name, what it states, where it holds, and where it comes from.

Most rules are two lines of text, the left-hand side and the right-hand side, over metavariables (see patterns.py):
numbers a, b, c, rows x, z, indices i, j, with x[i] for an entry. Rules that no pattern expresses are functions. Every
rule is proved by sampling its domain at 50 digits, corners included, in tests/calculus/test_rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from lossmith.calculus.patterns import ROW, rewrite_root
from lossmith.calculus.statements import ROWS, parse_statement
from lossmith.language.build import (
    add,
    call,
    compare,
    delta,
    instantiate,
    is_indicator,
    mul,
    not_,
    opened,
    power,
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
    ArgReduce,
    Call,
    ClassNumber,
    Derivative,
    Entry,
    Expr,
    Held,
    Hyper,
    Index,
    Mul,
    Node,
    Pow,
    Reduce,
    Size,
    Softmax,
    Var,
    Where,
    fresh,
    walk,
)

Domain = Literal["real", "finite", "positive", "nonnegative", "unit", "open unit", "negative", "negative whole"]


@dataclass(frozen=True)
class Rule:
    """A rule of the calculus.

    `apply` returns the rewritten expression, or None where the rule does not apply. `examples` are formulas on
    which it does, for the proofs of rules that are functions.
    """

    name: str
    title: str
    """How a derivation names it; empty for bookkeeping that no reader wants to see."""
    apply: Callable[[Expr], Expr | None] = field(repr=False)
    group: str = ""
    examples: tuple[str, ...] = ()
    statement: tuple[str, str] | None = None
    domain: dict[str, Domain] = field(default_factory=dict)
    reference: str = ""
    digits: int = 50
    """How many digits the two sides agree to: fewer than all only for a series cut off beyond those of floats."""
    plain: str = ""
    """The metavariables that stand for targets, weights and numbers only."""
    ulp: float = 2.0
    """How many ulp the right-hand side is off at most, computed in floats, for what rounding its arguments explains and
    one ulp: measured over the arguments of tests/calculus/test_ulp.py."""


# ------------------------------------------------------------------ derivatives of elementary functions

DERIVATIVES: dict[str, str] = {
    "exp": "exp(a)",
    "log": "1/a",
    "log1p": "1/(1 + a)",
    "expm1": "exp(a)",
    "abs": "sign(a)",
    "sign": "0*a",
    "sin": "cos(a)",
    "cos": "-sin(a)",
    "tan": "1 + tan(a)**2",
    "sinh": "cosh(a)",
    "cosh": "sinh(a)",
    "tanh": "1 - tanh(a)**2",
    "arcsin": "1/sqrt(1 - a**2)",
    "arccos": "-1/sqrt(1 - a**2)",
    "arctan": "1/(1 + a**2)",
    "arcsinh": "1/sqrt(1 + a**2)",
    "arccosh": "1/sqrt(a**2 - 1)",
    "arctanh": "1/(1 - a**2)",
    "sigmoid": "sigmoid(a)*(1 - sigmoid(a))",
    "softplus": "sigmoid(a)",
    "log_cosh": "tanh(a)",
}
"""d f(a)/d a. At kinks: sign(0) = 0, and maximum(a, b) follows a where a > b, else b."""


@cache
def outer_derivative(function: str) -> Expr:
    """Return f'(a) over the metavariable a."""
    return parse_statement(DERIVATIVES[function])


def depends(e: Expr, name: str) -> bool:
    """Whether e holds an entry of the input `name`."""
    return any(isinstance(n, Entry) and n.name == name for n in walk(e))


def _d(e: Expr, like: Derivative) -> Expr:
    return Derivative(e, like.name, like.wrt) if depends(e, like.name) else ZERO


def _constant(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    return None if depends(e.body, e.name) else ZERO


def _step(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    return ZERO if is_indicator(e.body) else None


def _place(e: Expr) -> Expr | None:
    """∂t_i = 0 also where i = argmax_m s_m: the class with the maximum does not vary where it is but one."""
    assert isinstance(e, Derivative)
    body = e.body
    varies = isinstance(body, Entry) and body.name == e.name
    return ZERO if isinstance(body, Entry | ClassNumber | Hyper) and not varies else None


def _linear(e: Expr) -> Expr | None:
    """∂(c·f + g) = c ∂f + ∂g, and the derivative of a sum over classes is the sum of the derivatives."""
    assert isinstance(e, Derivative)
    body = e.body
    if isinstance(body, Add):
        return add(*(_d(t, e) for t in body.terms))
    if isinstance(body, Reduce) and body.op == "sum":
        index, cond, inner = opened(body)
        return reduce_("sum", index, _d(inner, e), cond)
    if isinstance(body, Mul):
        fixed = [f for f in body.factors if not depends(f, e.name)]
        moving = [f for f in body.factors if depends(f, e.name)]
        if fixed:
            return mul(*fixed, _d(mul(*moving), e))
    if isinstance(body, Held):
        return _d(body.body, e)
    return None


def _product(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not isinstance(body, Mul):
        return None
    terms: list[Expr] = []
    for k, factor in enumerate(body.factors):
        others = (*body.factors[:k], *body.factors[k + 1 :])
        terms.append(mul(*others, _d(factor, e)))
    return add(*terms)


def _power(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not isinstance(body, Pow):
        return None
    base, n = body.base, body.exponent
    terms = [mul(n, power(base, sub(n, ONE)), _d(base, e))]
    if depends(n, e.name):
        terms.append(mul(body, call("log", base), _d(n, e)))
    return add(*terms)


def _chain(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not isinstance(body, Call):
        return None
    if body.function in ("maximum", "minimum"):
        a, b = body.args
        first = compare(">", a, b) if body.function == "maximum" else compare(">", b, a)
        return add(mul(first, _d(a, e)), mul(not_(first), _d(b, e)))
    if body.function == "scaled":
        return _d(mul(*body.args), e)
    inner = body.args[0]
    outer = substitute(outer_derivative(body.function), {Var("a", ()): inner})
    return mul(outer, _d(inner, e))


def _cases(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not isinstance(body, Where):
        return None
    return where(body.cond, _d(body.then, e), _d(body.other, e))


def _extremum(e: Expr) -> Expr | None:
    """∂ max_m f_m = ∂f_i at i = argmax_m f_m."""
    assert isinstance(e, Derivative)
    body = e.body
    if not (isinstance(body, Reduce) and body.op in ("max", "min")):
        return None
    at = ArgReduce(body.op, body.cond, body.body)
    return _d(instantiate(body, at), e)


def _log_sum_exp(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not (isinstance(body, Reduce) and body.op == "logsumexp"):
        return None
    index, cond, inner = opened(body)
    probe = fresh()
    share = softmax(probe, instantiate(body, probe), index, instantiate_cond(body, probe))
    return reduce_("sum", index, mul(share, _d(inner, e)), cond)


def instantiate_cond(binder: Reduce | Softmax, at: Index) -> Expr:
    """Return the condition of a binder at the class `at`."""
    return opened(binder, at)[1]


DERIVATIVE_RULES: tuple[Rule, ...] = (
    Rule("constant", "", _constant, "linearity", ("t[y] + K",)),
    Rule("step", "an indicator has derivative 0", _step, "linearity", ("(s[y] > 0)*1",)),
    Rule("place", "which class is the largest does not vary", _place, "linearity", ("t[argmax(s)]",)),
    Rule("linearity", "linearity", _linear, "linearity", ("3*s[y] + exp(s[0])", "sum(t*exp(s))")),
    Rule("product", "product rule", _product, "product", ("s[y]*exp(s[0])",)),
    Rule("power", "power rule", _power, "chain", ("(1 + s[y]**2)**1.5", "1/(1 + exp(s[y]))")),
    Rule(
        "chain", "chain rule", _chain, "chain",
        ("log(1 + exp(s[y]))", "maximum(s[y], s[0])", "abs(s[y])", "tanh(s[0])*1"),
    ),
    Rule("cases", "case by case", _cases, "chain", ("where(s[y] > 0, s[y]**2, exp(s[0]))",)),
    Rule("extremum", "the maximum follows its argmax", _extremum, "chain", ("max(s*2)", "min(s)")),
    Rule("log_sum_exp", "∂ log Σ exp = softmax", _log_sum_exp, "chain", ("logsumexp(2*s)",)),
)  # fmt: skip


def _entry(e: Expr) -> Expr | None:
    assert isinstance(e, Derivative)
    body = e.body
    if not isinstance(body, Entry) or body.name != e.name:
        return None
    if e.wrt is None or body.index is None:
        return ONE
    return delta(body.index, e.wrt)


def _softmax(e: Expr) -> Expr | None:
    """∂p_i = p_i (∂x_i − Σ_m p_m ∂x_m); for scores alone that is p_i (1{i=j} − p_j)."""
    assert isinstance(e, Derivative)
    p = e.body
    if not isinstance(p, Softmax):
        return None
    index, cond, inner = opened(p)
    probe = fresh()
    weight = softmax(probe, instantiate(p, probe), index, instantiate_cond(p, probe))
    if isinstance(inner, Entry) and inner.index is index and inner.name == e.name and e.wrt is not None:
        p_j = substitute(weight, {index: e.wrt})
        if cond is not ONE:
            p_j = mul(instantiate_cond(p, e.wrt), p_j)
        return Held(mul(p, sub(delta(p.at, e.wrt), p_j)))
    mean = reduce_("sum", index, mul(weight, _d(inner, e)), cond)
    return Held(mul(p, sub(_d(instantiate(p, p.at), e), mean)))


LEAF = "∂s_m/∂s_j = 1{m=j}"
LEAF_RULES: tuple[Rule, ...] = (
    *DERIVATIVE_RULES,
    Rule("entry", LEAF, _entry, "leaf", ("s[y]",)),
    Rule("softmax", "∂p_i/∂s_j = p_i (1{i=j} − p_j)", _softmax, "leaf", ("softmax(s)[y]", "softmax(2*s)[0]")),
)


# ------------------------------------------------------------------ rewriting


def is_plain(e: Node) -> bool:
    """Whether e is made of entries, hyperparameters, numbers and 1/K by sums and products alone."""
    if isinstance(e, Reduce) and e.op == ROW:
        e = e.body
    busy = Call | Softmax | Where | Derivative | Var | Held | ArgReduce
    return not any(
        isinstance(n, busy)
        or (isinstance(n, Pow) and not isinstance(n.base, Size))
        or (isinstance(n, Reduce) and n.op != "sum")
        for n in walk(e)
    )


def is_even_share(e: Node) -> bool:
    """Whether e is one term like ε/K."""
    alone = not isinstance(e, Add) and any(isinstance(n, Size) for n in walk(e))
    return alone and not any(isinstance(n, Entry | Hyper) and getattr(n, "indices", True) for n in walk(e))


SCORES: ContextVar[frozenset[str]] = ContextVar("SCORES", default=frozenset())
"""The names of the inputs that are no targets or weights, while the forms of one loss are looked for."""


def _holds_scores(e: Node) -> bool:
    return any(isinstance(n, Entry) and n.name in SCORES.get() for n in walk(e))


def is_known(e: Expr) -> bool:
    """Whether e is made of targets, weights and numbers."""
    return is_plain(e) and not _holds_scores(e)


def rewriting(
    name: str,
    lhs: str,
    rhs: str,
    *,
    title: str = "",
    reference: str = "",
    plain: str = "",
    ulp: float = 2.0,
    **domain: Domain,
) -> Rule:
    """Return the rule that replaces the pattern `lhs` by `rhs`."""

    def allowed(bound: Mapping[str, Node]) -> bool:
        return all(is_plain(bound[name]) and (name in ROWS or not _holds_scores(bound[name])) for name in plain)

    def apply(e: Expr) -> Expr | None:
        pattern, replacement = _sides(lhs, rhs)
        return rewrite_root(pattern, replacement, e, allowed)

    return Rule(name, title, apply, "", (), (lhs, rhs), dict(domain), reference, plain=plain, ulp=ulp)


@cache
def _sides(lhs: str, rhs: str) -> tuple[Expr, Expr]:
    return parse_statement(lhs), parse_statement(rhs)


SOFTMAX_FROM_LOG = rewriting("softmax_from_log", "exp(x[i] - logsumexp(x))", "softmax(x)[i]", title="exp(log p) = p")
LOG_SOFTMAX_TO_GAP = rewriting(
    "log_softmax_to_gap", "log(softmax(x)[i])", "x[i] - logsumexp(x)", reference="design: stability"
)
GAP_TO_LOG_SOFTMAX = rewriting("gap_to_log_softmax", "x[i] - logsumexp(x)", "log(softmax(x)[i])")

RECOGNITION: tuple[Rule, ...] = (
    rewriting("softmax_definition", "exp(x[i])/sum(exp(x))", "softmax(x)[i]", title="exp(s_j)/Σ exp(s_m) = softmax"),
    SOFTMAX_FROM_LOG,
    rewriting("log_sum_exp_definition", "log(sum(exp(x)))", "logsumexp(x)"),
    rewriting("softmax_sums_to_one", "sum(softmax(x))", "1", title="Σ p_m = 1"),
    rewriting("sigmoid_definition", "1/(1 + exp(-a))", "sigmoid(a)", title="definition of σ"),
    rewriting("sigmoid_of_minus", "1/(1 + exp(a))", "sigmoid(-a)", title="definition of σ"),
    rewriting("sigmoid_from_exp", "exp(a)*sigmoid(-a)", "sigmoid(a)", title="definition of σ"),
    rewriting("sigmoid_from_minus_exp", "exp(-a)*sigmoid(a)", "sigmoid(-a)", title="definition of σ"),
    rewriting("sigmoid_slope", "exp(-a)/(1 + exp(-a))**2", "sigmoid(a)*(1 - sigmoid(a))", title="definition of σ"),
    rewriting("tanh_definition", "sinh(a)/cosh(a)", "tanh(a)", title="definition of tanh"),
    rewriting("exp_of_log", "exp(log(a))", "a", a="positive"),
    rewriting("sign_times_abs", "sign(a)*abs(a)", "a", title="sign(x)|x| = x"),
)
"""Names put back where a derivative spelled them out: part of every simplification."""

EXPM1_OF_SHARE = rewriting("expm1_of_share", "expm1(a)*sigmoid(-a)", "tanh(a/2)")

SHARE_OF_MIXTURE = rewriting(
    "share_of_mixture", "b*sigmoid(x[i] - logsumexp(x) - log(b))",
    "softmax(x)[i]*sigmoid(log(b) - x[i] + logsumexp(x))", b="positive",
)  # fmt: skip
"""t·p/(t + p) in one way, so that it cancels in derivatives of log(t + p)."""
