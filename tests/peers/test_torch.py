"""Values and gradients of PyTorch's losses, option by option; and where PyTorch is wrong, the mathematical value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm
from lossmith.check.ulp import ulp_error

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install lossmith[frameworks]")
F = torch.nn.functional

RTOL = 1e-12
"""Relative, component by component, in float64 and on ordinary scores: both round a dozen times."""
REDUCTIONS = ["mean", "sum", "none"]
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25, 3.0])


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def theirs(function: Callable[..., Any], scores: np.ndarray, *args: Any, **options: Any) -> tuple[Any, np.ndarray]:
    """Return PyTorch's value, and the gradient of its sum."""
    s = torch.tensor(scores, requires_grad=True)
    value = function(s, *(torch.tensor(a) if isinstance(a, np.ndarray) else a for a in args), **options)
    value.sum().backward()
    return value.detach().numpy(), s.grad.numpy()


def assert_agree(ours: tuple[Any, Any], expected: tuple[Any, Any], rtol: float = RTOL) -> None:
    for found, other in zip(ours, expected, strict=True):
        assert np.shape(found) == np.shape(other)
        np.testing.assert_allclose(found, other, rtol=rtol, atol=0)


# ------------------------------------------------------------------ cross-entropy


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignored", [None, 2])
def test_cross_entropy(rng: Any, reduction: str, smoothing: float, weighted: bool, ignored: int | None) -> None:
    s, y = rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    y[3] = 2
    weight = WEIGHTS if weighted else None
    ours = lm.cross_entropy.value_and_grad(
        s, y, class_weight=weight, label_smoothing=smoothing, ignore_index=ignored, reduction=reduction
    )
    options = {"weight": None if weight is None else torch.tensor(weight), "label_smoothing": smoothing}
    if ignored is not None:
        options["ignore_index"] = ignored
    assert_agree(ours, theirs(F.cross_entropy, s, y, reduction=reduction, **options))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_with_distributions(rng: Any, reduction: str, smoothing: float, weighted: bool) -> None:
    s, t = rng.normal(size=(7, 5)), rng.dirichlet(np.ones(5), 7)
    weight = WEIGHTS if weighted else None
    ours = lm.cross_entropy.value_and_grad(s, t, class_weight=weight, label_smoothing=smoothing, reduction=reduction)
    options = {"weight": None if weight is None else torch.tensor(weight), "label_smoothing": smoothing}
    assert_agree(ours, theirs(F.cross_entropy, s, t, reduction=reduction, **options), 1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_pictures(rng: Any, reduction: str, weighted: bool) -> None:
    s, y = rng.normal(size=(2, 5, 3, 4)), rng.integers(0, 5, (2, 3, 4))
    y[0, 1, 2] = -100
    weight = WEIGHTS if weighted else None
    ours = lm.cross_entropy.value_and_grad(s, y, class_weight=weight, ignore_index=-100, axis=1, reduction=reduction)
    tensor = None if weight is None else torch.tensor(weight)
    assert_agree(ours, theirs(F.cross_entropy, s, y, weight=tensor, reduction=reduction))


def test_cross_entropy_of_one_row(rng: Any) -> None:
    s = rng.normal(size=5)
    assert_agree(lm.cross_entropy.value_and_grad(s, 3), theirs(F.cross_entropy, s, torch.tensor(3)))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll(rng: Any, reduction: str) -> None:
    s, y = np.log(rng.dirichlet(np.ones(5), 7)), rng.integers(0, 5, 7)
    y[2] = 1
    ours = lm.nll.value_and_grad(s, y, class_weight=WEIGHTS, ignore_index=1, reduction=reduction)
    options = {"weight": torch.tensor(WEIGHTS), "ignore_index": 1}
    assert_agree(ours, theirs(F.nll_loss, s, y, reduction=reduction, **options))


# ------------------------------------------------------------------ binary, regression, distributions


def binary(rng: Any) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(6, 3)), rng.uniform(size=(6, 3))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy_with_logits(rng: Any, reduction: str) -> None:
    s, t = binary(rng)
    ours = lm.logistic.value_and_grad(s, t, reduction=reduction)
    assert_agree(ours, theirs(F.binary_cross_entropy_with_logits, s, t, reduction=reduction), 1e-11)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_weighted_binary_cross_entropy(rng: Any, reduction: str) -> None:
    """PyTorch's mean divides by the number of elements, ours by the sum of their weights."""
    s, t = binary(rng)
    p, w = 1 / (1 + np.exp(-s)), rng.uniform(0.5, 2, s.shape)
    tensor = torch.tensor(w)
    ours = lm.logistic.value_and_grad(s, t, sample_weight=w, reduction=reduction)
    assert_agree(ours, theirs(F.binary_cross_entropy_with_logits, s, t, weight=tensor, reduction=reduction), 1e-11)
    ours = lm.bce.value_and_grad(p, t, sample_weight=w, reduction=reduction)
    assert_agree(ours, theirs(F.binary_cross_entropy, p, t, weight=tensor, reduction=reduction), 1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_binary_cross_entropy(rng: Any, reduction: str) -> None:
    s, t = binary(rng)
    p = 1 / (1 + np.exp(-s))
    ours = lm.bce.value_and_grad(p, t, reduction=reduction)
    assert_agree(ours, theirs(F.binary_cross_entropy, p, t, reduction=reduction), 1e-11)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("ours", "function", "hyper"),
    [
        (lm.squared_error, F.mse_loss, {}),
        (lm.absolute_error, F.l1_loss, {}),
        (lm.huber, F.huber_loss, {"delta": 1.0}),
        (lm.huber, F.huber_loss, {"delta": 0.4}),
    ],
    ids=["mse", "l1", "huber 1", "huber 0.4"],
)
def test_regression(rng: Any, ours: lm.Loss, function: Any, hyper: dict[str, float], reduction: str) -> None:
    s, t = rng.normal(size=(2, 6, 3))
    s[0] = t[0]  # the kink of |r|, where both say 0
    found = ours.value_and_grad(s, t, reduction=reduction, **hyper)
    assert_agree(found, theirs(function, s, t, reduction=reduction, **hyper))


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", ["batchmean", "sum"])
def test_kl_divergence(rng: Any, reduction: str, log_target: bool) -> None:
    s, t = np.log(rng.dirichlet(np.ones(5), 7)), rng.dirichlet(np.ones(5), 7)
    name = "mean" if reduction == "batchmean" else reduction
    given = np.log(t) if log_target else t
    ours = lm.kl_divergence.value_and_grad(s, np.exp(given) if log_target else t, reduction=name)
    assert_agree(ours, theirs(F.kl_div, s, given, reduction=reduction, log_target=log_target))


# ------------------------------------------------------------------ where PyTorch is wrong


@pytest.mark.parametrize("lead", [20.0, 30.0, 60.0])
def test_a_lead_that_pytorch_takes_for_certainty(lead: float) -> None:
    s = np.zeros((1, 10), np.float32)
    s[0, 3] = lead
    y = np.array([3])
    value, grad = theirs(F.cross_entropy, s, y)
    assert value == 0
    assert grad[0, 3] == 0
    ours, our_grad = lm.cross_entropy.value_and_grad(s, y, reduction="none")
    with mpmath.workdps(50):
        rest = 9 * mpmath.exp(-lead)
        assert ulp_error(ours, [mpmath.log1p(rest)]).max() <= 2
        assert ulp_error(our_grad[0, 3:4], [-rest / (1 + rest)]).max() <= 2


def test_a_target_of_zero_on_a_masked_class() -> None:
    s, t = np.array([[-np.inf, 0.0, 1.0]]), np.array([[0.0, 0.5, 0.5]])
    value, _ = theirs(F.cross_entropy, s, t)
    assert np.isnan(value)
    ours, grad = lm.cross_entropy.value_and_grad(s, t)
    assert ours == pytest.approx(np.log1p(np.e) - 0.5, rel=1e-15)
    assert np.isfinite(grad).all()


def test_no_row_left() -> None:
    s, y = np.zeros((2, 3)), np.array([-100, -100])
    assert np.isnan(theirs(F.cross_entropy, s, y)[0])
    assert lm.cross_entropy(s, y, ignore_index=-100) == 0.0


def test_probabilities_are_not_clipped() -> None:
    p, t = np.array([0.0]), np.array([1.0])
    assert theirs(F.binary_cross_entropy, p, t)[0] == 100
    assert lm.bce(p, t) == np.inf


def test_an_infinite_residual() -> None:
    """Infinity minus half of δ is infinite for both; the gradients are ±δ."""
    s, t = np.array([-np.inf, np.inf]), np.zeros(2)
    value, grad = lm.huber.value_and_grad(s, t, reduction="none")
    assert value.tolist() == [np.inf, np.inf]
    assert grad.tolist() == [-1, 1]


def test_a_wrong_option_is_caught(rng: Any) -> None:
    s, y = rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    with pytest.raises(AssertionError):
        assert_agree(
            lm.cross_entropy.value_and_grad(s, y, label_smoothing=0.1),
            theirs(F.cross_entropy, s, y, label_smoothing=0.1 + 1e-9),
        )
