"""The naive code computes the same numbers, or its time would say nothing."""

from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith.errors import UnsupportedError
from lossmith.report.backends import Evaluator
from lossmith.report.naive import naive_function, naive_source
from lossmith.report.speed import LOOP, NAIVE, NUMBA, NUMPY, Speed, SpeedRow, measure_speed, random_arguments

OTHERS: dict[str, lm.Loss] = {
    "pairs": lm.loss("sum(t[:, None] * (1 - t) * maximum(0, 1 - s[:, None] + s))"),
    "crammer_singer": lm.loss("max(s - s[y] + 1 - onehot(y))"),
    "brier": lm.loss("sum((softmax(s) - onehot(y))**2) / 2"),
    "log_cosh": lm.loss("log(cosh(s - t))"),
    "hinge": lm.loss("maximum(0, 1 - t*s)", t=lm.SignTargets),
    "truncated": lm.loss("(1 - softmax(s)[y]**q) / q", q=0.7),
    "weighted": lm.loss("w[y]*(logsumexp(s) - s[y])", w=np.array([1.0, 2.0, 3.0, 4.0])),
    "pairwise": lm.loss("log(1 + sum(exp(s - s[y]), where=classes != y))"),
}


@pytest.mark.parametrize("name", [*lm.losses.CATALOGUE, *OTHERS])
def test_naive_code_agrees_with_the_kernel(name: str) -> None:
    loss = {**lm.losses.CATALOGUE, **OTHERS}[name]
    needs: dict[str, Any] = {h.name: 1.0 for h in loss.definition.hypers if h.default is None}
    loss = loss.bind(**needs)
    formula = loss.display_formula()
    shape = (7,) if loss.kind == "elementwise" else (7, 4)
    arguments = random_arguments(formula, shape, np.random.default_rng(1), np.float64)
    hypers = {h.name: needs.get(h.name, h.default) for h in formula.hypers}
    kernel = Evaluator(loss)(arguments, ("value", "grad"))
    value, grad, *_ = naive_function(formula)(*arguments, **hypers)
    np.testing.assert_allclose(np.broadcast_to(value, 7), kernel["value"], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(np.broadcast_to(grad, shape), kernel["grad"], rtol=1e-11, atol=1e-13)
    single = naive_function(formula, batch=False)
    for i in range(7):
        value, grad, *_ = single(*(a[i] for a in arguments), **hypers)
        np.testing.assert_allclose(value, kernel["value"][i], rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(np.broadcast_to(grad, shape[1:]), kernel["grad"][i], rtol=1e-11, atol=1e-13)


def test_naive_code_is_what_a_tutorial_has() -> None:
    assert naive_source(lm.losses.logistic.display_formula()) == (
        "import numpy as np\n\n\n"
        "def naive_logistic(s, t):\n"
        "    v1 = np.log(1 + np.exp(s))\n"
        "    value = v1 - (s * t)\n"
        "    v2 = 1 / (1 + np.exp(-s))\n"
        "    grad_s = v2 - t\n"
        "    return value, grad_s\n"
    )


def test_naive_code_overflows_where_the_kernel_does_not() -> None:
    loss = lm.losses.cross_entropy
    scores = np.array([[1000.0, 0.0]])
    with np.errstate(all="ignore"):
        value, _ = naive_function(loss.display_formula())(scores, np.array([0]))
    assert not np.isfinite(value[0])
    assert loss(scores, [0]) == 0.0


def test_a_name_that_the_code_needs_itself_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="a name that the loss uses"):
        naive_source(lm.loss("rows * (s - t)**2", rows=3.0).display_formula())


def test_times_are_measured_for_every_contender() -> None:
    speed = measure_speed(lm.losses.cross_entropy, ((64, 5), (16, 50)))
    assert speed.contenders == (NUMPY, NAIVE, LOOP)
    assert [row.shape for row in speed.rows] == [(64, 5), (16, 50)]
    for row in speed.rows:
        assert all(t > 0 for t in row.seconds.values())
        assert speed.ratio(row) == row.seconds[NAIVE] / row.seconds[NUMPY]
    assert "Numba is not installed" in speed.remark


def test_the_ratio_is_to_the_fastest_kernel() -> None:
    row = SpeedRow((8, 2), {NUMBA: 1.0, NUMPY: 2.0, NAIVE: 6.0, LOOP: 90.0})
    speed = Speed((NUMBA, NUMPY, NAIVE, LOOP), (row,), "", 1)
    assert speed.ratio(row) == 6.0
    assert speed.ratio(SpeedRow((8, 2), {NUMBA: 1.0})) is None
