"""What is drawn is the loss: the points of every line against values computed in another way."""

from typing import Any

import mpmath
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import lossmith as lm
from lossmith.errors import UnsupportedError
from lossmith.report import plot_loss, plot_together
from lossmith.report.slices import sampled, slices_of


def lines(ax: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the lines of a panel that are no single dots."""
    found = [np.asarray(line.get_data(), dtype=float) for line in ax.lines if line.get_linestyle() != "None"]
    return [(x, y) for x, y in found]


def dots(ax: Axes) -> list[tuple[float, float]]:
    found = [line for line in ax.lines if line.get_linestyle() == "None"]
    return [(float(x), float(y)) for line in found for x, y in zip(*line.get_data(), strict=True)]


def assert_drawn(ax: Axes, number: int, expected: Any, away_from: tuple[float, ...] = ()) -> None:
    x, y = lines(ax)[number]
    shown = np.isfinite(y) & np.all([abs(x - a) > 1e-6 for a in away_from] or [np.ones_like(x)], axis=0)
    assert shown.sum() > 100
    points = np.flatnonzero(shown)[:: max(1, shown.sum() // 60)]
    for k in points:
        assert y[k] == pytest.approx(float(expected(x[k])), rel=1e-11, abs=1e-13)


def sigmoid(s: float) -> Any:
    return 1 / (1 + mpmath.exp(-s))


def test_logistic_loss_for_both_targets() -> None:
    value, first, second = plot_loss(lm.losses.logistic).axes
    for number, t in enumerate((1, 0)):
        assert_drawn(value, number, lambda s, t=t: mpmath.log(1 + mpmath.exp(s)) - t * mpmath.mpf(s))
        assert_drawn(first, number, lambda s, t=t: sigmoid(s) - t)
        assert_drawn(second, number, lambda s: sigmoid(s) * (1 - sigmoid(s)))


def test_cross_entropy_along_the_label_and_along_another_score() -> None:
    value, first, second = plot_loss(lm.losses.cross_entropy).axes
    total = lambda s: 2 + mpmath.exp(s)  # noqa: E731  the other two scores are 0
    p = lambda s: mpmath.exp(s) / total(s)  # noqa: E731
    assert_drawn(value, 0, lambda s: mpmath.log(total(s)) - mpmath.mpf(s))
    assert_drawn(value, 1, lambda s: mpmath.log(total(s)))
    assert_drawn(first, 0, lambda s: p(s) - 1)
    assert_drawn(first, 1, p)
    assert_drawn(second, 0, lambda s: p(s) * (1 - p(s)))
    labels = [str(line.get_label()) for line in value.lines]
    assert labels == ["along $s_{y}$", r"along $s_j,\ j \neq y$"]


def test_a_hyperparameter_reaches_the_curve() -> None:
    _, first, second = plot_loss(lm.losses.huber, delta=2.0).axes
    assert_drawn(first, 0, lambda r: max(-2.0, min(2.0, r)))
    assert_drawn(second, 0, lambda r: 1.0 if abs(r) <= 2 else 0.0, away_from=(-2.0, 2.0))


def test_a_line_is_cut_at_a_kink_and_the_value_there_is_a_dot() -> None:
    _, first, _ = plot_loss(lm.losses.absolute_error).axes
    ((x, y),) = lines(first)
    assert set(y[np.isfinite(y)]) == {-1.0, 0.0, 1.0}
    assert np.isnan(y).sum() == 2
    assert dots(first) == [(0.0, 0.0)]  # sign(0) = 0
    # Both pieces of the line reach the kink.
    assert x[y == -1].max() == pytest.approx(0, abs=1e-9)
    assert x[y == 1].min() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("at", [0.0, 1.0, 1 / 3, -2.7182818])
def test_a_jump_is_found_wherever_it_is(at: float) -> None:
    curve = sampled(lambda x: np.where(x > at, 2.0, -1.0), -6, 6)
    gap = np.flatnonzero(np.isnan(curve.y))
    assert len(gap) == 1
    assert curve.x[gap[0] - 1] == pytest.approx(at, abs=1e-9)
    assert curve.x[gap[0] + 1] == pytest.approx(at, abs=1e-9)


@pytest.mark.parametrize("smooth", [np.sin, np.tanh, lambda x: np.exp(3 * x), lambda x: np.abs(x)])
def test_a_continuous_curve_has_no_gap(smooth: Any) -> None:
    curve = sampled(smooth, -6, 6)
    assert np.isfinite(curve.y).all()
    assert np.array_equal(curve.y, smooth(curve.x))


def test_infinities_are_left_out_and_do_not_set_the_scale() -> None:
    value, first, _ = plot_loss(lm.losses.bce).axes
    _, y = lines(value)[0]
    assert np.isnan(y[0])  # −log 0
    low, high = first.get_ylim()
    assert -200 < low < high < 200


@pytest.mark.parametrize(
    ("text", "roles", "labels"),
    [
        ("maximum(0, 1 - t*s)", {"t": lm.SignTargets}, ["$t = 1$", "$t = -1$"]),
        ("(sigmoid(s) - t)**2 / 2", {}, ["$t = 1$", "$t = 0$"]),
        ("(s - t)**4", {}, ["$t = 0$"]),
    ],
)
def test_targets_follow_the_domain(text: str, roles: dict[str, Any], labels: list[str]) -> None:
    assert [one.label for one in slices_of(lm.loss(text, **roles))] == labels


def test_a_hyperparameter_per_class_sets_the_number_of_classes() -> None:
    loss = lm.loss("w[y]*(logsumexp(s) - s[y])", w=np.array([2.0, 1.0, 1.0, 1.0, 1.0]))
    value, *_ = plot_loss(loss).axes
    assert_drawn(value, 0, lambda s: 2 * (mpmath.log(4 + mpmath.exp(s)) - mpmath.mpf(s)))


def test_several_losses_together() -> None:
    figure = plot_together([lm.losses.absolute_error, lm.losses.squared_error, lm.losses.huber])
    value, derivative = figure.axes
    assert_drawn(value, 0, abs)
    assert_drawn(value, 1, lambda s: s**2)
    assert_drawn(derivative, 2, lambda s: max(-1.0, min(1.0, s)))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["absolute_error", "squared_error", "huber"]


def test_losses_of_two_kinds_are_not_drawn_together() -> None:
    with pytest.raises(UnsupportedError, match="cross_entropy is row, huber is elementwise"):
        plot_together([lm.losses.cross_entropy, lm.losses.huber])


def test_vector_functions() -> None:
    value, derivative = plot_loss(lm.sigmoid).axes
    assert_drawn(value, 0, sigmoid)
    assert_drawn(derivative, 0, lambda s: sigmoid(s) * (1 - sigmoid(s)))
    value, derivative = plot_loss(lm.softmax).axes
    e = [lambda s: mpmath.exp(s), lambda s: mpmath.e, lambda s: 1 / mpmath.e]  # scores s, 1, −1
    p = lambda i, s: e[i](s) / sum(f(s) for f in e)  # noqa: E731
    for i in range(3):
        assert_drawn(value, i, lambda s, i=i: p(i, s))
        assert_drawn(derivative, i, lambda s, i=i: p(i, s) * ((i == 0) - p(0, s)))


def test_wrong_scores_and_spans_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no score 3 among 3 classes"):
        plot_loss(lm.losses.cross_entropy, score=3)
    with pytest.raises(UnsupportedError, match="one score"):
        plot_loss(lm.losses.huber, score=0)
    with pytest.raises(UnsupportedError, match="no curve goes from 1 to 1"):
        plot_loss(lm.losses.huber, span=(1, 1))


def test_no_state_of_pyplot_is_touched() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figure = plot_loss(lm.losses.huber)
    assert isinstance(figure, Figure)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", list(lm.losses.CATALOGUE))
def test_every_loss_of_the_catalogue_is_drawn(name: str) -> None:
    loss = lm.losses.CATALOGUE[name]
    needs = {h.name: 1.0 for h in loss.definition.hypers if h.default is None}
    figure = loss.plot(**needs)
    assert len(figure.axes) == 3
    assert figure.get_suptitle()
    for ax in figure.axes:
        assert all(np.isfinite(y).any() for _, y in lines(ax))
