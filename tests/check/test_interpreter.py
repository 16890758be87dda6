"""The interpreter against closed forms, difference quotients and limits."""

import math
import threading
import time
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

from lossmith.check.arithmetic import FUNCTIONS as VALUES
from lossmith.check.arithmetic import context
from lossmith.check.interpreter import (
    Reference,
    Sample,
    evaluate,
    evaluate_adaptive,
    numeric_derivative,
)
from lossmith.check.precision import Unsettled, agree
from lossmith.language import build
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import (
    TRUE,
    ClassNumber,
    Derivative,
    Entry,
    Expr,
    Fixed,
    Free,
    Held,
    Hyper,
    Index,
    Label,
    Pow,
    Size,
    Var,
    fresh,
    named,
)
from lossmith.language.formula import Definition

Y = Label("y")
J, K = named("j"), named("k")
X, C = Entry("x", None), Entry("c", None)
INF = math.inf


def s(index: Index) -> Expr:
    return Entry("s", index)


def sum_over(body: Any, cond: Any = None, op: str = "sum") -> Expr:
    m = fresh()
    return build.reduce_(op, m, body(m), TRUE if cond is None else cond(m))


def logsumexp() -> Expr:
    return sum_over(s, op="logsumexp")


def softmax(at: Index) -> Expr:
    m = fresh()
    return build.softmax(m, s(m), at)


def cross_entropy() -> Expr:
    return build.sub(build.call("log", sum_over(lambda m: build.call("exp", s(m)))), s(Y))


def multiclass_hinge() -> Expr:
    def term(m: Index) -> Expr:
        return build.call("maximum", build.add(s(m), build.neg(s(Y)), build.const(1)), build.ZERO)

    return sum_over(term, lambda m: build.not_(build.delta(m, Y)))


def row(*scores: float, y: int = 0, **hypers: Any) -> Sample:
    return Sample({"s": scores}, label=y, hypers=hypers)


def gradient(expr: Expr, sample: Sample, **options: Any) -> list[Any]:
    d = Derivative(expr, "s", J)
    return [evaluate_adaptive(d, sample.at(j=j), **options) for j in range(sample.K)]


def same(got: Any, expected: Any, digits: int = 38) -> None:
    got = list(got) if isinstance(got, list) else [got]
    expected = list(expected) if isinstance(expected, list) else [expected]
    assert len(got) == len(expected)
    for g, e in zip(got, expected, strict=True):
        assert agree(g, e, digits), f"{g} is not {e}"


# ------------------------------------------------------------------ nodes


def test_every_node_has_its_value() -> None:
    hypers = {"a": 3, "w": [5.0, 6.0, 7.0]}
    sample = Sample({"s": [1.0, 4.0, 2.0]}, 2, hypers, vars={"p": [8, 9, 10]}).at(j=1)
    m = fresh()
    cases: list[tuple[Expr, Any]] = [
        (build.const(Fraction(1, 4)), 0.25),
        (Hyper("a", ()), 3),
        (Hyper("w", (J,)), 6),
        (Var("p", (Y,)), 10),
        (s(J), 4),
        (s(Fixed(0)), 1),
        (s(build.arg_reduce("max", m, s(m))), 4),
        (s(build.arg_reduce("min", m, s(m))), 1),
        (s(build.arg_reduce("max", m, s(m), build.not_(build.delta(m, J)))), 2),
        (Size(), 3),
        (ClassNumber(J), 1),
        (build.delta(J, Y), 0),
        (build.not_(build.delta(J, Y)), 1),
        (build.compare(">", s(J), s(Y)), 1),
        (build.compare("<=", s(J), s(Y)), 0),
        (build.compare("==", s(J), build.const(4)), 1),
        (build.add(s(J), s(Y), build.const(1)), 7),
        (build.mul(s(J), s(Y), Hyper("a", ())), 24),
        (build.power(s(J), build.const(Fraction(1, 2))), 2),
        (build.where(build.compare(">", s(J), s(Y)), s(J), build.call("log", build.const(-1))), 4),
        (sum_over(s), 7),
        (sum_over(s, lambda i: build.not_(build.delta(i, J))), 3),
        (sum_over(s, op="max"), 4),
        (sum_over(s, op="min"), 1),
        (Held(s(J)), 4),
        (Derivative(build.power(s(J), build.const(3)), "s", J), 48),
        (Derivative(s(J), "s", Y), 0),
        (sum_over(lambda i: build.mul(s(i), sum_over(lambda n: build.mul(s(n), s(i))))), 7 * 21),
    ]
    for expr, expected in cases:
        same(evaluate(expr, sample), context(60).mpf(expected))


def test_softmax_with_a_condition_and_at_a_class_outside_it() -> None:
    m = fresh()
    others = build.not_(build.delta(m, Y))
    p = build.softmax(m, s(m), J, others)
    ctx = context(60)
    sample = row(1.0, 2.0, 3.0, y=0)
    over = ctx.exp(2) + ctx.exp(3)
    same([evaluate(p, sample.at(j=j)) for j in range(3)], [ctx.exp(k) / over for k in (1, 2, 3)])
    same(evaluate(Derivative(p, "s", K), sample.at(j=0, k=0)), ctx.exp(1) / over)


def test_named_values_may_be_definitions_and_are_differentiated() -> None:
    k = fresh()
    p = Definition("p", k, softmax(k))
    z = Definition("z", None, logsumexp())
    sample = Sample({"s": [0.5, 1.5]}, label=1, vars={"p": p, "z": z}).at(j=0)
    same(evaluate(Var("p", (J,)), sample), evaluate(softmax(J), sample))
    same(evaluate(Derivative(Var("z", ()), "s", J), sample), evaluate(softmax(J), sample))


def test_unknown_nodes_and_names_are_refused() -> None:
    with pytest.raises(TypeError, match="not an expression"):
        evaluate(Y, row(1.0))  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        evaluate(X, Sample())
    with pytest.raises(KeyError):
        evaluate(s(J), row(1.0))
    with pytest.raises(KeyError):
        evaluate(s(Y), Sample({"s": [1.0]}))


# ------------------------------------------------------------------ derivatives

POINTS = {"arccosh": ["1.25", "3", "1e5"], "log": ["0.3", "7"], "log1p": ["-0.5", "1e-20", "3"]}
SMALL = ["-0.75", "-1e-10", "0.25", "0.9"]
PLAIN = ["-3", "-0.2", "1e-12", "0.7", "11"]


def test_there_is_a_value_for_every_elementary_function() -> None:
    assert set(VALUES) | {"sign", "maximum", "minimum", "scaled"} == set(FUNCTIONS)


@pytest.mark.parametrize("name", [f.name for f in FUNCTIONS.values() if f.arity == 1])
def test_dual_numbers_agree_with_differences(name: str) -> None:
    points = POINTS.get(name, SMALL if name in ("arcsin", "arccos", "arctanh") else PLAIN)
    first = Derivative(build.call(name, X), "x", None)
    second = Derivative(first, "x", None)
    for point in points:
        sample = Sample({"x": context(60).mpf(point)})
        function = build.call(name, X)
        same(evaluate(first, sample), numeric_derivative(function, sample, "x", None), 25)
        same(evaluate(second, sample), numeric_derivative(first, sample, "x", None), 25)


MPMATH = {
    "log1p": "log1p", "expm1": "expm1", "abs": "fabs", "sign": "sign", "arcsin": "asin",
    "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh",
}  # fmt: skip


@pytest.mark.parametrize("name", [f.name for f in FUNCTIONS.values() if f.arity == 1])
def test_values_agree_with_mpmath_near_zero_and_far_out(name: str) -> None:
    fine = context(700)
    spelled = {
        "sigmoid": lambda x: 1 / (1 + fine.exp(-x)),
        "softplus": lambda x: fine.log(1 + fine.exp(x)),
        "log_cosh": lambda x: fine.log(fine.cosh(x)),
    }
    reference = spelled.get(name) or getattr(fine, MPMATH.get(name, name))
    inside = {"arccosh": ["1", "1e30"], "log": ["1e-300", "1e30"]}
    points = inside.get(name, ["-0.5", "1e-30", "-1e-200", "0.5"])
    if name not in ("arccosh", "log", "arcsin", "arccos", "arctanh", "log1p"):
        points = [*points, "-300", "500"]
    for point in points:
        x = fine.mpf(point)
        same(evaluate(build.call(name, X), Sample({"x": x})), reference(x), 45)


def test_powers_and_their_derivatives() -> None:
    x_to_c = build.power(X, C)
    sample = Sample({"x": 1.7, "c": -2.3})
    for name in ("x", "c"):
        d = Derivative(x_to_c, name, None)
        same(evaluate(d, sample), numeric_derivative(x_to_c, sample, name, None), 25)
    finite = [(0, 0, 1), (0, 2, 0), (0, -1, INF), (-2, 3, -8), (4, 0.5, 2), (0, 0.5, 0)]
    infinite = [(INF, -1, 0), (INF, 0.5, INF), (0.5, INF, 0), (3, -INF, 0)]
    for base, exponent, expected in finite + infinite:
        same(evaluate(x_to_c, Sample({"x": base, "c": exponent})), expected)
    for base, exponent in [(-2, 0.5), (math.nan, 2), (-2, INF)]:
        assert mpmath.isnan(evaluate(x_to_c, Sample({"x": base, "c": exponent})))
    for n, slope in [(1, 1), (2, 0), (3, 0)]:
        d = Derivative(Pow(X, build.const(n)), "x", None)
        same(evaluate(d, Sample({"x": 0})), slope)


@pytest.mark.parametrize(
    ("x", "c", "larger", "smaller"),
    [(2.0, 1.0, (1, 0), (0, 1)), (1.0, 2.0, (0, 1), (1, 0)), (1.0, 1.0, None, None)],
)
def test_maximum_and_minimum_at_and_off_the_kink(
    x: float, c: float, larger: tuple[int, int] | None, smaller: tuple[int, int] | None
) -> None:
    sample = Sample({"x": x, "c": c})
    for function, expected in (("maximum", larger), ("minimum", smaller)):
        call: Any = build.call(function, X, C)
        slopes = [evaluate(Derivative(call, n, None), sample) for n in ("x", "c")]
        if expected is None:  # the second argument, in the order of the expression
            expected = (1, 0) if call.args[1] is X else (0, 1)
        same(slopes, list(expected))


def test_kinks_follow_the_conventions() -> None:
    relu = build.call("maximum", X, build.ZERO)
    below = build.call("minimum", X, build.ZERO)
    size = build.call("abs", X)
    for expr in (relu, below, size, Derivative(size, "x", None), build.call("sign", X)):
        same(evaluate(Derivative(expr, "x", None), Sample({"x": 0.0})), 0)
    tied = row(3.0, 3.0, 1.0)
    same(gradient(sum_over(s, op="max"), tied), [1, 0, 0])
    same(gradient(sum_over(s, op="min"), row(3.0, 1.0, 1.0)), [0, 1, 0])
    # 1 + s_1 − s_0 = 0 exactly: outside the margin
    same(gradient(multiclass_hinge(), row(2.0, 1.0, 1.5)), [-1, 0, 1])
    chosen = build.where(build.compare(">", X, build.ZERO), build.power(X, build.const(2)), X)
    same(evaluate(Derivative(chosen, "x", None), Sample({"x": 0.0})), 1)


def test_nested_derivatives_are_kept_apart() -> None:
    # d/dx [x · d/dc (x + c)] at x = c = 1 is 1; confusing the two ε gives 2.
    inner = Derivative(build.add(X, C), "c", None)
    same(evaluate(Derivative(build.mul(X, inner), "x", None), Sample({"x": 1, "c": 1})), 1)
    # d/dx [x · d/dx x²] = 4x
    inner = Derivative(build.power(X, build.const(2)), "x", None)
    same(evaluate(Derivative(build.mul(X, inner), "x", None), Sample({"x": 3})), 12)
    third = X
    for expr in [build.call("exp", build.mul(build.const(2), X))]:
        third = Derivative(Derivative(Derivative(expr, "x", None), "x", None), "x", None)
    same(evaluate(third, Sample({"x": 0})), 8)


def test_gradient_and_hessian_of_cross_entropy() -> None:
    sample = row(0.3, -1.2, 2.0, 0.1, y=2)
    p = [evaluate(softmax(J), sample.at(j=j), 60) for j in range(4)]
    same(gradient(cross_entropy(), sample), [p[j] - (j == 2) for j in range(4)])
    for loss in (cross_entropy(), build.neg(build.call("log", softmax(Y)))):
        hessian = Derivative(Derivative(loss, "s", J), "s", K)
        for j in range(4):
            for k in range(4):
                same(evaluate_adaptive(hessian, sample.at(j=j, k=k)), p[j] * ((j == k) - p[k]))


def test_derivative_by_a_bound_index() -> None:
    divergence = sum_over(lambda m: Derivative(cross_entropy(), "s", m))
    same(evaluate_adaptive(divergence, row(0.3, 0.2, 5.0)), 0)


# ------------------------------------------------------------------ digits


@pytest.mark.parametrize("lead", [0, 20, 60, 200, 700])
def test_adaptive_precision_finds_what_cancellation_hides(lead: int) -> None:
    sample = row(float(lead), 0.0, 0.0)
    ctx = context(900)
    rest = 2 * ctx.exp(-lead)
    same(evaluate_adaptive(cross_entropy(), sample), ctx.log(1 + rest))
    same(gradient(cross_entropy(), sample)[0], -rest / (1 + rest))
    if lead > 100:
        assert evaluate(cross_entropy(), sample, 50) != ctx.log(1 + rest)


@pytest.mark.parametrize("scale", [1e-300, 1e-38, 1.0, 1e30, 3e38, 1e300])
def test_no_scale_hangs(scale: float) -> None:
    start = time.perf_counter()
    expressions = [build.call(f.name, X) for f in FUNCTIONS.values() if f.arity == 1]
    for expr in expressions:
        for sign in (1, -1):
            for e in (expr, Derivative(Derivative(expr, "x", None), "x", None)):
                evaluate(e, Sample({"x": sign * scale}))
    sample = row(scale, -scale, 0.0, y=1)
    for loss in (cross_entropy(), build.neg(build.call("log", softmax(Y))), multiclass_hinge()):
        evaluate_adaptive(loss, sample)
        gradient(loss, sample)
    evaluate(build.call("exp", build.call("exp", X)), Sample({"x": scale}))
    assert time.perf_counter() - start < 10


def test_global_precision_is_neither_read_nor_changed() -> None:
    before = mpmath.mp.dps
    with mpmath.workdps(3):
        value = evaluate(build.call("exp", X), Sample({"x": 1}), 50)
    assert mpmath.mp.dps == before
    same(value, context(60).e, 48)


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[Any] = []

    def work(seed: int) -> None:
        sample = row(*np.random.default_rng(seed).normal(size=3))
        first = gradient(cross_entropy(), sample)
        wrong.extend(1 for _ in range(10) if gradient(cross_entropy(), sample) != first)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


# ------------------------------------------------------------------ special values


def test_minus_infinity_contributes_nothing() -> None:
    masked, without = row(1.0, -INF, 2.0, y=2), row(1.0, 2.0, y=1)
    loss = build.sub(logsumexp(), s(Y))
    for limits in (False, True):
        same(evaluate_adaptive(loss, masked, limits=limits), evaluate_adaptive(loss, without))
        g, h = gradient(loss, masked, limits=limits), gradient(loss, without)
        same([g[0], g[2]], h)
        assert abs(g[1]) < 1e-300


def test_minus_infinity_at_the_label() -> None:
    loss = build.sub(logsumexp(), s(Y))
    sample = row(-INF, 0.0, 0.0)
    assert evaluate_adaptive(loss, sample) == INF
    assert evaluate_adaptive(loss, sample, limits=True) > 1e308
    same(gradient(loss, sample, limits=True), [-1, 0.5, 0.5])


def test_plus_infinity_is_a_limit() -> None:
    loss = build.neg(build.call("log", softmax(Y)))
    won, lost = row(INF, 0.0), row(INF, 0.0, y=1)
    same(evaluate_adaptive(cross_entropy(), won, limits=True), 0)
    same(evaluate_adaptive(loss, won, limits=True), 0)
    assert evaluate_adaptive(cross_entropy(), lost, limits=True) > 1e308
    same(gradient(loss, won, limits=True), [0, 0])
    same(gradient(cross_entropy(), lost, limits=True), [1, -1])


@pytest.mark.parametrize("scores", [(-INF, -INF), (INF, INF, 0.0), (math.nan, 0.0)])
def test_rows_without_a_value_are_nan(scores: tuple[float, ...]) -> None:
    loss = build.sub(logsumexp(), s(Y))
    for limits in (False, True):
        assert mpmath.isnan(evaluate_adaptive(loss, row(*scores), limits=limits))


def test_zero_leaves_out_what_it_multiplies() -> None:
    log = build.call("log", X)
    for expr in (build.mul(X, log), build.call("scaled", X, log), build.call("scaled", C, log)):
        same(evaluate(expr, Sample({"x": 0.0, "c": 0.0})), 0)
    assert evaluate(log, Sample({"x": 0.0})) == -INF
    assert mpmath.isnan(evaluate(log, Sample({"x": -1.0})))


def test_free_indices_by_identity() -> None:
    a, b = Free("j", 7), Free("j", 8)
    sample = Sample({"s": [1.0, 2.0]}, indices={a: 0, b: 1})
    same(evaluate(build.sub(s(a), s(b)), sample), -1)


def test_agreement_is_relative() -> None:
    ctx = context(60)
    tiny = ctx.mpf("1e-300")
    assert agree(tiny, tiny * (1 + ctx.mpf(10) ** -36))
    assert not agree(tiny, tiny * (1 + ctx.mpf(10) ** -30))
    assert not agree(tiny, 0)
    assert not agree(INF, 1)
    assert agree(math.nan, math.nan)
    assert not agree(math.nan, 0)


def test_reference_evaluates_many_components_of_one_sample() -> None:
    reference = Reference(row(0.5, -1.0, 40.0, y=1))
    d = Derivative(cross_entropy(), "s", J)
    found = [reference.value(d, {J: j}) for j in range(3)]
    same(found, gradient(cross_entropy(), reference.sample))


def test_a_value_lost_for_want_of_digits_is_not_guessed() -> None:
    # log(1 − p_y) at a lead of 1e30 is −1e30; a thousand digits see log 0.
    loss = build.call("log", build.sub(build.ONE, softmax(Y)))
    with pytest.raises(Unsettled):
        evaluate_adaptive(loss, row(1e30, 0.0))
    same(evaluate_adaptive(loss, row(900.0, 0.0)), -900)


def test_a_small_term_lost_beside_a_large_one_is_not_missed() -> None:
    # p_0·x + (1 − p_1)·c: at 150 digits 1 − p_1 is 0, and p_0·x has all its digits.
    scores = row(-700.0, 0.0)
    p = build.softmax(m := fresh(), s(m), Fixed(1))
    first = build.softmax(m, s(m), Fixed(0))
    expr = build.add(build.mul(build.const(3), first), Held(build.sub(build.ONE, p)))
    same(evaluate_adaptive(expr, scores), 4 * evaluate_adaptive(first, scores))
