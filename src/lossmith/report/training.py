"""Training a linear model for a report: what to fit, on which part of the data, and what came of it."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.data import Table
from lossmith.data.table import Task
from lossmith.linear.tasks import Split
from lossmith.loss import Loss


@dataclass(frozen=True)
class Training:
    """What a fit gave.

    Attributes
    ----------
    task : {"classification", "regression"}
    model : LinearClassifier or LinearRegressor
        Fitted.
    n_train, n_test, n_features : int
    true, predicted : ndarray
        Of the test rows.
    train_score, test_score, baseline : float
        Accuracy or R²; the baseline is that of always giving the most frequent class, or the mean.
    converged : bool
    seconds : float
    """

    task: Task
    model: Any
    n_train: int
    n_test: int
    n_features: int
    true: NDArray[Any]
    predicted: NDArray[Any]
    train_score: float
    test_score: float
    baseline: float
    converged: bool
    seconds: float

    @property
    def loss_curve(self) -> list[float]:
        """The objective, penalty included, after each iteration or epoch."""
        return list(self.model.loss_curve_)

    @property
    def n_iter(self) -> int:
        """Iterations or epochs."""
        return int(self.model.n_iter_)

    @property
    def measure(self) -> str:
        """What the scores are."""
        return "accuracy" if self.task == "classification" else "R²"

    def shown(self, score: float) -> str:
        """Return a score as text."""
        return f"{100 * score:.2f} %" if self.task == "classification" else f"{score:.4f}".replace("-", "−")


def train(
    loss: Loss,
    table: Table,
    *,
    task: Task,
    split: Split,
    seed: int = 0,
    progress: bool = False,
    standardize: bool | None = None,
    **options: Any,
) -> Training:
    """Fit a linear model on the training rows, and measure it on the others.

    Parameters
    ----------
    loss : Loss
    table : Table
    task : {"classification", "regression"}
    split : Split
    seed : int
    progress : bool
        Whether the estimator shows its own bar.
    standardize : bool, optional
        By default, unless the largest number among the features is about 1, as in images.
    **options
        Of the estimator: alpha, solver, max_iter, ….
    """
    from sklearn.exceptions import ConvergenceWarning

    from lossmith.linear.estimators import LinearClassifier, LinearRegressor

    estimator = LinearClassifier if task == "classification" else LinearRegressor
    X, y = table.X[split.train], table.target[split.train]
    if standardize is None:
        standardize = not 0.5 <= float(np.max(np.abs(X), initial=0.0)) <= 2.0
    model: Any = estimator(loss, random_state=seed, progress=progress, standardize=standardize, **options)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(X, y)
    seconds = time.perf_counter() - start
    for other in caught:
        if not issubclass(other.category, ConvergenceWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    test_X, true = table.X[split.test], table.target[split.test]
    return Training(
        task=task,
        model=model,
        n_train=len(y),
        n_test=len(true),
        n_features=X.shape[1],
        true=true,
        predicted=model.predict(test_X),
        train_score=float(model.score(X, y)),
        test_score=float(model.score(test_X, true)),
        baseline=_baseline(task, y, true),
        converged=not any(issubclass(w.category, ConvergenceWarning) for w in caught),
        seconds=seconds,
    )


def _baseline(task: Task, y: NDArray[Any], true: NDArray[Any]) -> float:
    if task == "classification":
        found, counts = np.unique(y, return_counts=True)
        return float(np.mean(true == found[np.argmax(counts)]))
    residual, spread = np.sum((true - y.mean()) ** 2), np.sum((true - true.mean()) ** 2)
    return float(1 - residual / spread) if spread > 0 else 0.0
