"""Losses written by hand, with no more than what a linear model asks of a loss.

They let the linear models be tested apart from the compiler, and are its reference besides.
"""

from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, softmax


class Handmade:
    kind: str = "elementwise"
    label_name: str | None = None
    target_name: str | None = "t"
    target_domain: str | None = "real"
    link: str | None = None

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the loss of each sample and the gradient by its scores."""
        raise NotImplementedError

    def value_and_grad(
        self,
        scores: np.ndarray,
        target: np.ndarray,
        *,
        sample_weight: np.ndarray | None = None,
        reduction: str = "mean",
        **hyper: Any,
    ) -> tuple[float, np.ndarray]:
        assert reduction == "mean"
        loss, grad = self.each(scores, target, **hyper)
        weight = np.ones(loss.shape) if sample_weight is None else np.asarray(sample_weight, float)
        assert weight.shape == loss.shape[: weight.ndim]
        weight = np.broadcast_to(weight.reshape(weight.shape + (1,) * (loss.ndim - weight.ndim)), loss.shape)
        weight = weight / weight.sum()
        spread = weight[:, None] if grad.ndim > weight.ndim else weight
        return float((weight * loss).sum()), (grad * spread).astype(scores.dtype)

    def __call__(self, scores: np.ndarray, target: np.ndarray, **options: Any) -> float:
        return self.value_and_grad(scores, target, **options)[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class CrossEntropy(Handmade):
    kind, label_name, target_name, target_domain, link = "row", "y", None, None, "softmax"

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert target.dtype.kind == "i"
        rows = np.arange(target.size)
        grad = softmax(scores, axis=1)
        grad[rows, target] -= 1
        return -log_softmax(scores, axis=1)[rows, target], grad


class SoftCrossEntropy(Handmade):
    kind, target_domain, link = "row", "simplex", "softmax"

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss = -(target * log_softmax(scores, axis=1)).sum(axis=1)
        return loss, softmax(scores, axis=1) - target


class Squared(Handmade):
    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert scores.shape == target.shape
        return (scores - target) ** 2, 2 * (scores - target)


class Absolute(Handmade):
    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.abs(scores - target), np.sign(scores - target)


class Logistic(Handmade):
    target_domain, link = "unit", "sigmoid"

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.logaddexp(0, scores) - target * scores, expit(scores) - target


class Hinge(Handmade):
    target_domain = "sign"

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert set(np.unique(target)) <= {-1, 1}
        return np.maximum(0, 1 - target * scores), -target * (1 - target * scores > 0)


class Poisson(Handmade):
    """Negative log-likelihood of counts whose mean is exp(score): it overflows for large scores."""

    target_domain = "nonnegative"

    def each(self, scores: np.ndarray, target: np.ndarray, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        mean = np.exp(power * scores)
        return mean - power * target * scores, power * (mean - target)


class LogOfScore(Handmade):
    """Not finite where the scores are 0."""

    def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return -target * np.log(scores), -target / scores
