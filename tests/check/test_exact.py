"""The exact results: the same as the interpreter's dual numbers and as differences of values, on every kind of row."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from formulas import EXTRA
from lossmith.check import arithmetic
from lossmith.check.exact import Exact
from lossmith.check.interpreter import Reference, Sample, numeric_derivative
from lossmith.check.precision import Unsettled, agree
from lossmith.check.samples import batches
from lossmith.check.subject import soft_subject_of, subject_of
from lossmith.language import build
from lossmith.language.expr import Derivative, Entry, Expr, fresh, named
from lossmith.language.formula import Formula
from lossmith.losses import CATALOGUE

J = named("j")
LOSSES = [*CATALOGUE, *EXTRA]


def loss_of(name: str) -> lm.Loss:
    return lm.loss(EXTRA[name][0], **EXTRA[name][1]) if name in EXTRA else CATALOGUE[name]


def some_samples(subject: Any, every: int) -> Iterator[tuple[Sample, str]]:
    for batch in batches(subject.formula, np.float32, sizes=(subject.fixed_size or 3,), large=False):
        for row in range(0, len(batch), every):
            yield batch.sample(row, subject.hypers_for(batch.K)), batch.describe(row)


def derivatives(formula: Formula, name: str, v: list[float]) -> dict[str, Expr]:
    single = formula.kind == "elementwise"
    at = None if single else J
    first = Derivative(formula.expr, name, at)
    k = fresh("k")
    along = (
        build.mul(Derivative(first, name, None), build.const(v[0]))
        if single
        else build.reduce_("sum", k, build.mul(Derivative(first, name, k), Entry("v", k)))
    )
    return {"grad": first, "hessian_diag": Derivative(first, name, at), "hvp": along}


def settled(found: Any) -> Any:
    try:
        return found()
    except Unsettled:
        return None


@pytest.mark.parametrize("name", LOSSES)
def test_exact_results_are_those_of_the_interpreter(name: str) -> None:
    loss = loss_of(name)
    compared = 0
    for subject in [subject_of(loss)] + ([soft_subject_of(loss)] if loss.label_name else []):
        for sample, text in some_samples(subject, 9):
            compared += assert_same(subject.formula, sample, text)
    assert compared > 5


def assert_same(formula: Formula, sample: Sample, text: str) -> int:
    """Compare all derivatives at the last class; return how many there were."""
    single = formula.kind == "elementwise"
    last = None if single else sample.K - 1
    v = [0.5, -1.25, 2.0][: sample.K]
    exact = Exact(formula, sample, [last] if single else [0, last], v)
    reference = Reference(Sample({**sample.rows, "v": v}, sample.label, sample.hypers, sample.K), 40, limits=True)
    assert agree(exact.value("value"), reference.value(formula.expr), 30), text
    finite = all(np.isfinite(row).all() for row in sample.rows.values())
    compared = 0
    for i, item in enumerate(formula.of_role("scores")):
        for output, expr in derivatives(formula, item.name, v).items():
            if output != "grad" and not finite:
                continue
            expected = settled(lambda: reference.value(expr, {} if last is None else {J: last}))  # noqa: B023
            found = settled(lambda: exact.value(output, i, last))  # noqa: B023
            assert (found is None) == (expected is None), f"{output} at {text}"
            assert found is None or agree(found, expected, 30), f"{output} at {text}: {found}, {expected}"
            compared += 1
    return compared


@pytest.mark.parametrize(
    "text",
    [
        "sum(s**4) / 4",
        "exp(sum(log(1 + s**2)))",
        "sum(tanh(s) * arctan(s)) + sinh(s[0]) * cosh(s[1])",
        "logsumexp(s**2) - max(s) * min(s)",
        "(1 + s[0]**2)**s[1] + (2 + cos(s[2]))**(s[1] * s[2])",
        "sum(maximum(s[:, None], s)**2)",
        "softmax(s**2)[1] * sqrt(1 + sum(abs(s)))",
    ],
)
def test_exact_gradient_is_what_differences_converge_to(text: str) -> None:
    formula = lm.loss(text).definition
    sample = Sample({"s": [0.5, -1.25, 2.0]})
    exact = Exact(formula, sample, (0, 1, 2))
    for k in range(3):
        assert agree(exact.value("grad", 0, k), numeric_derivative(formula.expr, sample, "s", k), 20)


def test_a_wrong_derivative_of_a_function_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    value, _ = arithmetic.FUNCTIONS["tanh"]
    monkeypatch.setitem(arithmetic.FUNCTIONS, "tanh", (value, lambda o, x: o.call("sigmoid", x)))
    formula = lm.loss("sum(tanh(s))").definition
    sample = Sample({"s": [0.5, -1.25]})
    found = Exact(formula, sample, (0,)).value("grad", 0, 0)
    assert not agree(found, numeric_derivative(formula.expr, sample, "s", 0), 3)


def test_what_does_not_vary_has_no_slope_where_the_function_has_none() -> None:
    formula = lm.loss("sum(sin(s))").definition
    exact = Exact(formula, Sample({"s": [np.inf, 1.0]}), (0, 1))
    assert exact.value("value") != exact.value("value")
    assert exact.value("grad", 0, 0) != exact.value("grad", 0, 0)
    assert agree(exact.value("grad", 0, 1), arithmetic.context(60).cos(1))


def test_a_label_at_minus_infinity_leaves_the_other_shares_as_they_are() -> None:
    """Two precisions below that of the stand-in for infinity agree on a wrong 1/2."""
    formula = lm.loss("log(1 + sum(exp(s - s[y]), where=classes != y))").definition
    exact = Exact(formula, Sample({"s": [-np.inf, 0.75, 1.5]}, 0), (0, 1, 2))
    ctx = arithmetic.context(60)
    share = 1 / (1 + ctx.exp(0.75))
    assert agree(exact.value("grad", 0, 1), share)
    assert agree(exact.value("grad", 0, 0), -1)


def test_one_class_has_no_largest_of_the_others() -> None:
    formula = lm.loss("maximum(0, 1 + max(s, where=classes != y) - s[y])").definition
    assert Exact(formula, Sample({"s": [3.0]}, 0), (0,)).value("value") == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_logarithm_grows_beyond_every_float(sign: int) -> None:
    formula = lm.loss("log(1 + (s - t)**2)").definition
    exact = Exact(formula, Sample({"s": sign * np.inf, "t": 0.5}), (None,))
    assert exact.value("value") > 1e308
    assert exact.value("grad") == 0


def test_what_needs_more_digits_than_there_are_is_not_called_zero() -> None:
    """1 − p is 10**(−10**307): neither its logarithm nor the gradient, 1, can be had."""
    formula = lm.loss("-log(1 - softmax(s)[y])").definition
    exact = Exact(formula, Sample({"s": [1e307, -1e307]}, 0), (0, 1))
    for found in (lambda: exact.value("value"), lambda: exact.value("grad", 0, 0)):
        with pytest.raises(Unsettled):
            found()


def test_a_share_of_two_at_infinity() -> None:
    formula = lm.loss("p = exp(s)\np[0] / (p[0] + p[1] + p[2])").definition
    exact = Exact(formula, Sample({"s": [0.25, 1.0, -np.inf]}), (0,))
    ctx = arithmetic.context(60)
    assert agree(exact.value("value"), 1 / (1 + ctx.exp(0.75)))
