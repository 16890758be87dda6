"""Expressions that losses and their derivatives are made of, for the tests of the printers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from lossmith.language import build as b
from lossmith.language import expr as x
from lossmith.language.formula import Definition

Y, J, K = x.Label("y"), x.named("j"), x.named("k")
GAMMA, TAU, MARGIN, DELTA = (x.Hyper(n, ()) for n in ("gamma", "tau", "margin", "delta"))
TWO = b.const(2)
HALF = b.const(0.5)
L = x.Var("L", ())
_COUNTER = count()
Body = Callable[[x.Index], x.Expr]


def s(i: x.Index | None = None) -> x.Expr:
    return x.Entry("s", i)


def t(i: x.Index | None = None) -> x.Expr:
    return x.Entry("t", i)


def p(at: x.Index, body: Body = s) -> x.Expr:
    m = x.fresh()
    return b.softmax(m, body(m), at)


def over(op: str, body: Body, cond: Body = lambda m: x.TRUE) -> x.Expr:
    m = x.fresh(f"m{next(_COUNTER)}")
    return b.reduce_(op, m, body(m), cond(m))


def total(body: Body, cond: Body = lambda m: x.TRUE) -> x.Expr:
    return over("sum", body, cond)


def log(e: x.Expr) -> x.Expr:
    return b.call("log", e)


def others(m: x.Index) -> x.Expr:
    return b.not_(b.delta(m, Y))


def gap(m: x.Index) -> x.Expr:
    return b.add(b.sub(s(m), s(Y)), MARGIN)


def sigmoid() -> x.Expr:
    return b.call("sigmoid", s())


def argmax() -> x.Index:
    m = x.fresh()
    return b.arg_reduce("max", m, s(m))


P = (Definition("p", K, p(K)),)
RESIDUAL = b.sub(s(), t())
HINGE_GRADIENT = total(
    lambda m: b.mul(
        b.compare(">", gap(m), x.ZERO), b.sub(b.delta(m, J), b.delta(J, Y))
    ),
    others,
)  # fmt: skip
FOCAL_GRADIENT = b.mul(
    b.power(b.sub(x.ONE, p(Y)), b.sub(GAMMA, x.ONE)),
    b.sub(b.delta(J, Y), p(J)),
    b.sub(b.mul(GAMMA, p(Y), log(p(Y))), b.sub(x.ONE, p(Y))),
)
HUBER = b.where(
    b.compare("<=", b.call("abs", RESIDUAL), DELTA),
    b.div(b.power(RESIDUAL, TWO), TWO),
    b.mul(DELTA, b.sub(b.call("abs", RESIDUAL), b.div(DELTA, TWO))),
)

SAMPLES: dict[str, tuple[x.Expr, str]] = {
    "cross-entropy": (
        b.sub(over("logsumexp", s), s(Y)),
        "log Σ_m exp(s_m) − s_y",
    ),
    "its gradient": (b.sub(p(J), b.delta(J, Y)), "p_j − 1{j=y}"),
    "its Hessian": (
        b.sub(b.mul(p(J), b.delta(J, K)), b.mul(p(J), p(K))),
        "p_j 1{j=k} − p_j p_k",
    ),
    "hinge": (
        total(lambda m: b.call("maximum", x.ZERO, gap(m)), others),
        "Σ_{k≠y} max(0, s_k − s_y + Δ)",
    ),
    "its slope": (HINGE_GRADIENT, "Σ_{k≠y} 1{s_k − s_y + Δ > 0} (1{j=k} − 1{j=y})"),
    "focal": (
        b.neg(b.mul(b.power(b.sub(x.ONE, p(Y)), GAMMA), log(p(Y)))),
        "−(1 − p_y)^γ log p_y",
    ),
    "focal gradient": (
        FOCAL_GRADIENT,
        "(1 − p_y)^(γ − 1) (p_j − 1{j=y}) (1 − p_y − γ p_y log p_y)",
    ),
    "huber": (HUBER, "{(s − t)²/2 if |s − t| ≤ δ; δ (|s − t| − δ/2) otherwise}"),
    "chain rule, held": (
        b.neg(b.mul(b.power(p(Y), b.const(-1)), x.Held(b.mul(p(Y), b.sub(b.delta(J, Y), p(J)))))),
        "−(1/p_y) · p_y (1{j=y} − p_j)",
    ),
    "kl": (
        total(lambda m: b.call("scaled", t(m), b.sub(log(t(m)), log(p(m))))),
        "Σ_m t_m (log t_m − log p_m)",
    ),
    "binary cross-entropy": (
        b.neg(b.add(b.mul(t(), log(s())), b.mul(b.sub(x.ONE, t()), log(b.sub(x.ONE, s()))))),
        "−t log s − (1 − t) log(1 − s)",
    ),
    "squared error of a sigmoid": (
        b.mul(b.sub(sigmoid(), t()), sigmoid(), b.sub(x.ONE, sigmoid())),
        "σ(s) (1 − σ(s)) (σ(s) − t)",
    ),
    "half the squares": (
        b.mul(HALF, total(lambda m: b.power(b.sub(s(m), t(m)), TWO))),
        "(1/2) Σ_m (s_m − t_m)²",
    ),
    "tau inside": (p(J, lambda m: b.div(s(m), TAU)), "softmax(s/τ)_j"),
    "label inside": (
        p(J, lambda m: b.add(s(m), b.mul(MARGIN, others(m)))),
        "softmax_m(s_m + Δ 1{m≠y})_j",
    ),
    "softmax written out": (
        b.div(b.call("exp", s(J)), total(lambda m: b.call("exp", s(m)))),
        "exp(s_j)/Σ_m exp(s_m)",
    ),
    "pairs": (
        total(lambda m: total(lambda n: b.mul(t(m), b.sub(x.ONE, t(n)), b.sub(s(n), s(m))))),
        "Σ_m t_m Σ_k (1 − t_k) (s_k − s_m)",
    ),
    "a sum beneath": (b.div(x.ONE, b.mul(TAU, b.add(s(J), x.ONE))), "1/(τ (s_j + 1))"),
    "logs": (b.mul(log(s(J)), log(s(K)), s(J)), "s_j (log s_j) log s_k"),
    "indicators": (b.mul(TWO, b.delta(J, K), b.delta(J, Y)), "2·1{j=k} 1{j=y}"),
    "argmax": (b.delta(J, argmax()), "1{j = argmax_m s_m}"),
    "at the argmax": (b.sub(s(argmax()), s(Y)), "s_{argmax_m s_m} − s_y"),
    "with a condition": (
        over("max", s, lambda m: b.mul(others(m), b.compare(">", s(m), x.ZERO))),
        "max_{k≠y: s_k > 0} s_k",
    ),
    "smoothing": (
        b.div(b.mul(x.Hyper("label_smoothing", ()), others(J)), b.sub(x.Size(), x.ONE)),
        "ε 1{j≠y}/(K − 1)",
    ),
    "mirrored": (b.compare(">", x.ZERO, s(J)), "1{s_j < 0}"),
    "weights": (b.mul(x.Hyper("class_weight", (Y,)), s(x.Fixed(3))), "w_y s_3"),
    "root": (b.power(b.add(x.ONE, b.power(s(J), TWO)), b.const(-0.5)), "1/√(1 + s_j²)"),
    "numbers": (b.add(b.mul(b.const(1e-7), s(J)), b.const(float("inf"))), "1×10⁻⁷·s_j + ∞"),
    "power of a function": (b.power(b.call("sinh", s()), TWO), "(sinh(s))²"),
    "log cosh": (b.call("log_cosh", RESIDUAL), "log cosh(s − t)"),
    "upright": (b.mul(x.Hyper("log_scale", ()), s(J)), "log_scale s_j"),
    "∂": (x.Derivative(L, "s", J), "∂L/∂s_j"),
    "∂²": (x.Derivative(x.Derivative(L, "s", J), "s", K), "∂²L/∂s_j∂s_k"),
    "∂² twice": (x.Derivative(x.Derivative(L, "s", J), "s", J), "∂²L/∂s_j²"),
    "∂² of one": (x.Derivative(x.Derivative(L, "s", None), "s", None), "∂²L/∂s²"),
    "∂ of p": (x.Derivative(p(Y), "s", J), "∂p_y/∂s_j"),
    "∂ of more": (x.Derivative(b.sub(s(J), s(Y)), "s", J), "∂/∂s_j [s_j − s_y]"),
    "chain rule": (
        total(lambda m: b.mul(x.Derivative(L, "p", m), x.Derivative(p(m), "s", J))),
        "Σ_m ∂L/∂p_m · ∂p_m/∂s_j",
    ),
}
"""Name: the expression and its text with p_k = softmax(s)_k abbreviated."""
