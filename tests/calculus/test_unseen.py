"""Losses that no rule was written for keep the promise of `check`, on ordinary and on hostile inputs.

What falls short is listed with the reason; the day it is mended, its test says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import lossmith as lm
from formulas import EXTRA, UNSEEN
from lossmith.check.measure import check_subject
from lossmith.check.subject import subject_of

QUICK = (
    "focal_binary", "log_odds", "info_nce", "margin_of_others", "plackett", "cauchy", "welsch", "squared_log",
    "mean_absolute", "odds_ratio", "gini", "renyi", "gamma_deviance",
)  # fmt: skip
"""Those that the default run looks at, in float32; the slow run takes all, and float64 as well."""

SHORT: dict[str, str] = {
    "normalized": "two logarithms that are both infinite, one over the other; its Hessian crosses 0 beside a tie",
    "unlikelihood": "1/(1 − p_j) for every j where one class leads by more than the range of floats",
    "two_of_softmax": "p_y + p_0 near 1: what is missing is a sum over the other classes, which is not found",
    "multilabel": "weights near the smallest float lose digits in their logarithms; −∞ everywhere",
    "reverse_kl": "∞ where a target of 0 meets a probability that underflows, and derivatives that are ∞ − ∞ there",
    "hellinger": "where one target is 1, its Hessian crosses 0 at p_j = 1/3, a tie of three",
}


def problems(name: str, dtypes: tuple[str, ...]) -> tuple[str, ...]:
    text, names = {**EXTRA, **UNSEEN}[name]
    subject = subject_of(lm.loss(text, **names))
    numpy_only = replace(subject, kernels={"numpy": subject.kernels["numpy"]})
    return check_subject(numpy_only, dtypes=dtypes, samples="quick").problems


@pytest.mark.parametrize("name", QUICK)
def test_promise_is_kept_in_float32(name: str) -> None:
    assert problems(name, ("float32",)) == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.xfail(strict=True, reason=SHORT[n])] if n in SHORT else [])
        for n in (*EXTRA, *UNSEEN)
    ],
)
def test_promise_is_kept(name: str) -> None:
    assert problems(name, ("float32", "float64")) == ()


@pytest.mark.parametrize("rubbish", [[np.nan, 0, 1], [np.inf, -np.inf, np.inf], [-np.inf] * 3])
def test_row_whose_class_has_weight_zero_contributes_nothing(rubbish: list[float]) -> None:
    own = lm.loss("-alpha[y]*log(softmax(s)[y])", alpha=[1.0, 0.0, 2.0])
    scores, labels = np.array([[1, 2, 3], rubbish], "f4"), [0, 1]
    for loss, options in ((own, {}), (lm.cross_entropy, {"class_weight": [1.0, 0.0, 2.0]})):
        value, grad = loss.value_and_grad(scores, labels, reduction="none", **options)
        assert value[0] > 2
        assert value[1] == 0
        assert not grad[1].any()
        assert not loss.hessian_diag(scores, labels, reduction="none", **options)[1].any()
