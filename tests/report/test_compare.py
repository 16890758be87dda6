"""Two losses compared: the numbers against mpmath, the words against the numbers."""

import re

import mpmath
import numpy as np
import pytest

import lossmith as lm
from lossmith.data import Table, load_table
from lossmith.errors import UnsupportedError
from lossmith.linear.tasks import split_of, task_of
from lossmith.report import Comparison, compare_losses
from lossmith.report.training import Training

SQUARED = "(sigmoid(s) - t)**2 / 2"


def sigmoid(s: float) -> mpmath.mpf:
    return 1 / (1 + mpmath.exp(-mpmath.mpf(s)))


@pytest.fixture(scope="module")
def story() -> Comparison:
    return compare_losses(lm.losses.logistic, lm.loss(SQUARED))


def test_gradients_side_by_side(story: Comparison) -> None:
    assert story.rows[0].score == -10
    for row in story.rows:
        p = sigmoid(row.score)
        exact = (p - 1, (p - 1) * p * (1 - p))
        assert row.gradients == tuple(pytest.approx(float(g), rel=1e-13) for g in exact)
        values = (mpmath.log(1 + mpmath.exp(-row.score)), (p - 1) ** 2 / 2)
        assert row.values == tuple(pytest.approx(float(v), rel=1e-13) for v in values)


def test_the_story_says_which_gradient_vanishes_and_by_how_much(story: Comparison) -> None:
    text = str(story)
    assert "∂L/∂s = ∂/∂s [softplus(s) − s t]" in text
    assert "= σ(s) − t" in text
    assert "= σ(s) (1 − σ(s)) (σ(s) − t)" in text
    assert "Hessian" not in text
    assert "There the gradient of (t − σ(s))²/2 has vanished:" in text
    p = sigmoid(-10)
    assert f"{int(mpmath.nint(1 / (p * (1 - p))))} times as large" in text


def test_how_long_descent_takes_from_the_wrong_side(story: Comparison) -> None:
    # ds/dτ = 1 − σ(s) has the solution s + exp(s) = τ + c; the other one is integrated by mpmath.
    first = 10 + 1 - mpmath.exp(-10)
    second = mpmath.quad(lambda s: 1 / (sigmoid(s) * (1 - sigmoid(s)) ** 2), np.linspace(-10, 0, 11).tolist())
    said = re.search(r"step size\): ([\d.]+) with logistic, ([\d.]+) with", str(story))
    assert said is not None
    assert float(said[1]) == pytest.approx(float(first), rel=1e-4)
    assert float(said[2]) == pytest.approx(float(second), rel=1e-4)


def test_the_picture_shows_both_gradients(story: Comparison) -> None:
    _, derivative = story.figure.axes
    for line, exact in zip(derivative.lines, (lambda p: p - 1, lambda p: (p - 1) * p * (1 - p)), strict=True):
        x, y = line.get_data()
        assert (x[0], x[-1]) == (-10, 10)
        for k in range(0, len(x), 97):
            assert y[k] == pytest.approx(float(exact(sigmoid(x[k]))), rel=1e-11)


def test_row_losses_are_compared_along_the_label() -> None:
    found = compare_losses(lm.losses.cross_entropy, lm.loss("sum((softmax(s) - onehot(y))**2)/2"))
    for row in found.rows:
        p = mpmath.exp(row.score) / (2 + mpmath.exp(row.score))
        rest = (1 - p) / 2
        exact = -p * (1 - 2 * p + p**2 + 2 * rest**2)
        assert row.gradients == (
            pytest.approx(float(p - 1), rel=1e-12),
            pytest.approx(float(exact), rel=1e-9),
        )
    assert "over the label's score s_y" in str(found)


def test_regression_losses_are_compared_at_target_zero() -> None:
    found = compare_losses(lm.losses.huber, lm.losses.absolute_error)
    assert "t = 0" in found.setting
    assert [row.gradients for row in found.rows if row.score == 0.5] == [(0.5, 1.0)]
    assert found.remarks == ()


def test_both_are_trained_on_the_same_rows() -> None:
    steps: list[tuple[int, int, str]] = []
    found = compare_losses(
        lm.losses.logistic,
        lm.loss(SQUARED),
        data=load_table("breast_cancer"),
        max_iter=15,
        progress=lambda done, total, text: steps.append((done, total, text)),
    )
    a, b = found.training
    assert isinstance(a, Training)
    assert isinstance(b, Training)
    assert np.array_equal(a.true, b.true)
    assert a.test_score > 0.93
    assert b.test_score > 0.93
    assert a.test_score == pytest.approx(np.mean(a.predicted == a.true))
    assert a.loss_curve[-1] < a.loss_curve[0]
    assert len(found.figure.axes) == 3
    text = str(found)
    assert "Trained on breast_cancer" in text
    assert a.shown(a.test_score) in text
    assert not a.converged
    assert f"logistic: {a.model.solver_message_}" in text
    assert [s[:2] for s in steps] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert all(a.train_score >= 0 for a in (a, b))


def test_a_loss_that_cannot_be_trained_gets_a_sentence() -> None:
    found = compare_losses(lm.losses.bce, lm.losses.logistic.bind(), data=load_table("breast_cancer"), max_iter=15)
    failed, fitted = found.training
    assert isinstance(failed, str)
    assert isinstance(fitted, Training)
    assert "bce: not trained. " in str(found)


def test_two_kinds_cannot_be_compared() -> None:
    with pytest.raises(UnsupportedError, match="one kind"):
        compare_losses(lm.losses.logistic, lm.losses.cross_entropy)


def test_the_same_loss_twice_gets_two_names() -> None:
    found = compare_losses(lm.losses.huber, lm.losses.huber.bind(delta=2.0))
    assert found.names == ("huber (A)", "huber (B)")


# ---------------------------------------------------------------- what is learnt from which table


def table(target: list[object]) -> Table:
    return Table(np.zeros((len(target), 1)), np.array(target), ("x",), "made")


@pytest.mark.parametrize(
    ("loss", "target", "task"),
    [
        ("cross_entropy", [0, 1, 2], "classification"),
        ("logistic", ["no", "yes"], "classification"),
        ("logistic", [0.25, 0.5, 1.0], "regression"),
        ("squared_error", [0.5, 1.25], "regression"),
        ("squared_error", [0, 1, 2, 1], "classification"),
        ("squared_error", list(range(200)), "regression"),
        ("squared_error", ["a", "b"], "classification"),
    ],
)
def test_the_task_follows_from_loss_and_target(loss: str, target: list[object], task: str) -> None:
    assert task_of([lm.losses.CATALOGUE[loss]], table(target)) == task


def test_the_split_keeps_every_row_and_the_proportions() -> None:
    data = table(["a"] * 80 + ["b"] * 20)
    split = split_of(data, "classification", 0.25, 0)
    assert sorted([*split.train, *split.test]) == list(range(100))
    assert np.sum(data.target[split.test] == "b") == 5
