"""Losses in the stable form that the kernels get, built by hand: what the calculus makes, without the calculus."""

from __future__ import annotations

from fractions import Fraction

from lossmith.kernels.rowprogram import Output
from lossmith.language.build import (
    add,
    arg_reduce,
    call,
    compare,
    const,
    delta,
    div,
    mul,
    neg,
    not_,
    power,
    reduce_,
    softmax,
    sub,
    where,
)
from lossmith.language.expr import ONE, TRUE, ZERO, Entry, Expr, Held, Hyper, Index, Label, fresh, named
from lossmith.language.formula import Formula, Hyperparameter, Input, Role

J = named("j")
Y = Label("y")
SCORES, TARGETS, LABEL = Input("s", Role("scores")), Input("t", Role("targets")), Input("y", Role("label"))


def s(index: Index | None) -> Expr:
    return Entry("s", index)


def t(index: Index | None) -> Expr:
    return Entry("t", index)


def total(body, cond=lambda m: TRUE) -> Expr:
    m = fresh()
    return reduce_("sum", m, body(m), cond(m))


def formula(name: str, expr: Expr, *inputs: Input, kind="row", hypers=()) -> Formula:
    return Formula(name, kind, expr, inputs, tuple(Hyperparameter(*h) for h in hypers))


def _softmax_parts():
    m = fresh()
    top = reduce_("max", m, s(m))

    def gap(k: Index) -> Expr:
        return Held(sub(s(k), top))

    def is_top(k: Index) -> Expr:
        return compare("==", gap(k), ZERO)

    others = total(lambda k: call("exp", gap(k)), lambda k: not_(is_top(k)))
    rest = Held(add(others, Held(sub(total(lambda k: ONE, is_top), ONE))))
    return top, gap, rest


def softmax_cross_entropy() -> tuple[list[Output], Formula]:
    top, gap, rest = _softmax_parts()
    value = add(Held(sub(top, s(Y))), call("log1p", rest))
    grad = div(call("exp", gap(J)), add(ONE, rest))
    at_y = div(neg(add(rest, Held(sub(ONE, call("exp", gap(Y)))))), add(ONE, rest))
    outputs = [Output("value", None, value), Output("grad", J, grad, ((Y, at_y),))]
    return outputs, formula("cross_entropy", value, SCORES, LABEL)


def soft_cross_entropy() -> tuple[list[Output], Formula]:
    _, gap, rest = _softmax_parts()
    value = add(total(lambda k: call("scaled", t(k), neg(gap(k)))), mul(total(t), call("log1p", rest)))
    grad = sub(mul(total(t), div(call("exp", gap(J)), add(ONE, rest))), t(J))
    outputs = [Output("value", None, value), Output("grad", J, grad)]
    return outputs, formula("soft_cross_entropy", value, SCORES, TARGETS)


def hinge(scores="s", label="y", margin="margin") -> tuple[list[Output], Formula]:
    entry, at = (lambda k: Entry(scores, k)), Label(label)
    slack = lambda k: Held(add(Held(sub(entry(k), entry(at))), Hyper(margin, ())))  # noqa: E731
    active = lambda k: compare(">", slack(k), ZERO)  # noqa: E731
    other = lambda k: not_(delta(k, at))  # noqa: E731
    value = total(lambda k: call("maximum", slack(k), ZERO), other)
    at_y = neg(total(active, other))
    outputs = [Output("value", None, value), Output("grad", J, active(J), ((at, at_y),))]
    inputs = Input(scores, SCORES.role), Input(label, LABEL.role)
    return outputs, formula("multiclass_hinge", value, *inputs, hypers=[(margin, 1.0)])


def huber() -> tuple[list[Output], Formula]:
    d = Hyper("delta", ())
    r = Held(sub(s(None), t(None)))
    size = call("abs", r)
    near = compare(">=", d, size)
    value = where(
        near, mul(const(Fraction(1, 2)), power(r, const(2))), mul(d, sub(size, mul(const(Fraction(1, 2)), d)))
    )
    grad = where(near, r, mul(d, call("sign", r)))
    outputs = [Output("value", None, value), Output("grad", None, grad)]
    return outputs, formula("huber", value, SCORES, TARGETS, kind="elementwise", hypers=[("delta", 1.0)])


def logistic() -> tuple[list[Output], Formula]:
    value = sub(call("softplus", s(None)), call("scaled", t(None), s(None)))
    grad = sub(call("sigmoid", s(None)), t(None))
    outputs = [Output("value", None, value), Output("grad", None, grad)]
    return outputs, formula("logistic", value, SCORES, TARGETS, kind="elementwise")


def relu_like() -> tuple[list[Output], Formula]:
    """A loss whose gradient hides a NaN score: an indicator."""
    value = call("maximum", s(None), ZERO)
    outputs = [Output("value", None, value), Output("grad", None, compare(">", s(None), ZERO))]
    return outputs, formula("ramp", value, SCORES, kind="elementwise")


def pairwise_hinge() -> tuple[list[Output], Formula]:
    """Σ_i Σ_k t_i (1 − t_k) max(0, 1 − s_i + s_k)."""
    gap = lambda i, k: Held(add(ONE, Held(sub(s(k), s(i)))))  # noqa: E731
    pair = lambda i, k: mul(t(i), sub(ONE, t(k)))  # noqa: E731
    active = lambda i, k: compare(">", gap(i, k), ZERO)  # noqa: E731
    value = total(lambda i: total(lambda k: mul(pair(i, k), call("maximum", gap(i, k), ZERO))))
    grad = sub(total(lambda i: mul(pair(i, J), active(i, J))), total(lambda k: mul(pair(J, k), active(J, k))))
    outputs = [Output("value", None, value), Output("grad", J, grad)]
    return outputs, formula("pairwise_hinge", value, SCORES, TARGETS)


def pairwise_exp() -> tuple[list[Output], Formula]:
    """Σ_i Σ_k α_i exp(s_k) sigmoid(s_i)·1{i ≠ k}: factors that depend on the inner class alone."""
    a = lambda i: Hyper("alpha", (i,))  # noqa: E731
    f = lambda i, k: mul(a(i), call("exp", s(k)), call("tanh", Held(sub(s(i), s(k)))), not_(delta(i, k)))  # noqa: E731
    value = total(lambda i: total(lambda k: f(i, k)))
    outputs = [Output("value", None, value)]
    return outputs, formula("pairwise_exp", value, SCORES, hypers=[("alpha", None, 1)])


def largest_margin() -> tuple[list[Output], Formula]:
    """max_{k≠y} s_k − s_y, with its gradient by argmax."""
    m = fresh()
    other = not_(delta(m, Y))
    value = sub(reduce_("max", m, s(m), other), s(Y))
    n = fresh()
    best = arg_reduce("max", n, s(n), not_(delta(n, Y)))
    outputs = [Output("value", None, value), Output("grad", J, ZERO, ((best, ONE), (Y, const(-1))))]
    return outputs, formula("largest_margin", value, SCORES, LABEL)


def score_at_label() -> tuple[list[Output], Formula]:
    """−s_y: looks at no other score, and is NaN all the same if one of them is."""
    outputs = [Output("value", None, neg(s(Y))), Output("grad", J, ZERO, ((Y, const(-1)),))]
    return outputs, formula("score_at_label", neg(s(Y)), SCORES, LABEL)


def log_sum_exp() -> tuple[list[Output], Formula]:
    m, n = fresh(), fresh()
    value = sub(reduce_("logsumexp", m, s(m)), s(Y))
    grad = sub(softmax(n, s(n), J), delta(J, Y))
    outputs = [Output("value", None, value), Output("grad", J, grad)]
    return outputs, formula("log_sum_exp", value, SCORES, LABEL)


def log_sum_exp_of_others() -> tuple[list[Output], Formula]:
    """log(1 + Σ_{k≠y} exp(s_k − s_y)): a maximum over some classes, of which there may be none."""
    m = fresh()
    others = reduce_("logsumexp", m, s(m), not_(delta(m, Y)))
    lead = Held(sub(others, s(Y)))
    value = call("softplus", lead)
    n = fresh()
    share = mul(softmax(n, s(n), J, not_(delta(n, Y))), not_(delta(J, Y)))
    grad = mul(share, call("sigmoid", lead))
    outputs = [Output("value", None, value), Output("grad", J, grad, ((Y, neg(call("sigmoid", lead))),))]
    return outputs, formula("log_sum_exp_of_others", value, SCORES, LABEL)


ALL = (softmax_cross_entropy, soft_cross_entropy, hinge, huber, logistic, relu_like, pairwise_hinge, pairwise_exp,
       largest_margin, score_at_label, log_sum_exp, log_sum_exp_of_others)  # fmt: skip
