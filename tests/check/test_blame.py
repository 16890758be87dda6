"""Who loses the digits: planted cancellations and overflows are found, and what is right is not accused."""

from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith.check.blame import blame
from lossmith.check.interpreter import Sample
from lossmith.check.measure import check_loss

PLANTED = {
    "exp(s[0]) - exp(s[1])": ([1.0, 1.0 + 1e-6], "exp(s_0) − exp(s_1)", "cancels"),
    "sum(1 - cos(s))": ([1e-4, 1e-3], "1 − cos(s_m)", "cancels"),
    "sum((tanh(s) - sin(s))**2)": ([1e-3, 1e-3], "sin(s_m) − tanh(s_m)", "cancels"),
    "log(sum(cosh(s))) / 2": ([100.0, 1.0], "cosh(s_m)", "overflows"),
}


def accused(text: str, row: list[float], output: str = "value", k: int | None = None, y: int | None = None) -> Any:
    return blame(lm.loss(text).definition, Sample({"s": np.array(row, "f4")}, y), output, 0, k, "float32")


@pytest.mark.parametrize("text", PLANTED)
def test_planted_losses_of_digits_are_found(text: str) -> None:
    row, found, what = PLANTED[text]
    verdict = accused(text, row)
    assert verdict is not None
    assert (verdict.text, verdict.what) == (found, what)
    assert verdict.digits < 5
    # No float is large enough to put an overflow right.
    assert verdict.mended > 5 or what == "overflows"
    assert f"{found} {what}" in str(verdict)


def test_values_are_told() -> None:
    said = str(accused("exp(s[0]) - exp(s[1])", [1.0, 1.0 + 1e-6]))
    assert "exp(s_0) = 2.71828175" in said
    assert "it gives -2.62260437e-06, exact -2.5923568e-6" in said
    assert "were it right, 7.2 digits of the result would be" in said


def test_derivatives_are_looked_into() -> None:
    verdict = accused("sum(1 - cos(s) * s)", [1.0, 0.8603336], "grad", 1)
    assert verdict is not None
    assert "sin(s_j)" in verdict.text
    assert verdict.what == "cancels"


def test_a_stable_formula_is_not_accused() -> None:
    verdict = accused("logsumexp(s) - s[y]", [20.0, 0.0, 0.0], y=0)
    assert verdict is not None
    assert verdict.text == ""
    assert "the kernel is to blame" in str(verdict)


def test_check_says_where_and_why() -> None:
    report = check_loss(lm.loss("exp(s[0]) - exp(s[1])"), dtypes=("float32",), samples="quick")
    assert not report.ok
    (problem,) = [p for p in report.problems if p.startswith("value, float32")]
    first, where, why, also = problem.split("\n  ")
    assert "promised" in first or "wrong" in first
    assert where.startswith("where: ")
    assert why.startswith("why: exp(s_1) overflows")
    assert also.startswith("why: exp(s_0) − exp(s_1) cancels, with")
    assert report.blames
    assert all(str(b) in str(report) for b in report.blames)
