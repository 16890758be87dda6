"""What the linear classifier and the linear regressor share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from lossmith.errors import DataError, DomainError
from lossmith.linear.minibatch import minimize_adam, minimize_sgd, safe_learning_rate
from lossmith.linear.objective import LinearObjective, SupportsLoss
from lossmith.linear.progress import progress_bar
from lossmith.linear.solvers import NonFiniteError, SolverResult, Validate, minimize_lbfgs

SOLVERS = ("lbfgs", "sgd", "adam")

#: The most iterations (lbfgs) or epochs (sgd, adam) if `max_iter` is None.
DEFAULT_MAX_ITER = {"lbfgs": 1000, "sgd": 100, "adam": 100}

Score = Callable[[NDArray[Any], NDArray[np.intp]], float]


class LinearModel(BaseEstimator):
    """Parameters and fitting of a linear model under any loss.

    A subclass turns y into targets, and says how a score is measured.
    """

    n_features_in_: int
    coef_: NDArray[np.float64]
    intercept_: NDArray[np.float64] | float
    _link: str | None  # of the loss that was fitted

    def __init__(
        self,
        loss: Any,
        *,
        alpha: float,
        solver: str,
        max_iter: int | None,
        tol: float,
        learning_rate: float | None,
        batch_size: int,
        momentum: float,
        early_stopping: bool,
        validation_fraction: float,
        patience: int,
        standardize: bool,
        fit_intercept: bool,
        random_state: Any,
        progress: bool,
        hyper: Mapping[str, Any] | None,
    ) -> None:
        self.loss = loss
        self.alpha = alpha
        self.solver = solver
        self.max_iter = max_iter
        self.tol = tol
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.momentum = momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.progress = progress
        self.hyper = hyper

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _resolved_loss(self) -> SupportsLoss:
        if hasattr(self.loss, "value_and_grad"):
            return cast(SupportsLoss, self.loss)
        from lossmith.losses import resolve_loss

        return cast(SupportsLoss, resolve_loss(self.loss))

    def _check_parameters(self) -> None:
        """Refuse parameters that no fit can use."""
        positive = ["batch_size", "patience"]
        positive += [name for name in ("max_iter", "learning_rate") if getattr(self, name) is not None]
        for name in positive:
            if not getattr(self, name) > 0:
                raise DomainError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        for name in ("alpha", "tol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DomainError(f"{name} must be 0 or above, not {getattr(self, name)!r}.")
        if not 0 <= self.momentum < 1:
            raise DomainError(f"momentum must be in [0, 1), not {self.momentum!r}.")
        if not 0 < self.validation_fraction < 1:
            raise DomainError(f"validation_fraction must be in (0, 1), not {self.validation_fraction!r}.")
        if self.solver not in SOLVERS:
            raise DomainError(f"solver must be one of {', '.join(SOLVERS)}, not {self.solver!r}.")

    def _scores(self, X: Any) -> NDArray[Any]:
        """Return X·W + b for new data, of shape (N, K), in the dtype of X."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        W = np.atleast_2d(self.coef_).T.astype(X.dtype)
        return np.asarray(X @ W) + np.atleast_1d(self.intercept_).astype(X.dtype)

    def _fit_linear(
        self,
        loss: SupportsLoss,
        X: Any,
        target: NDArray[Any],
        n_outputs: int,
        sample_weight: NDArray[Any] | None,
        *,
        intercepts: tuple[NDArray[np.float64], ...] = (),
        unit: float = 1.0,
        stratify: NDArray[Any] | None = None,
        score: Score,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Solve, set the fitted attributes but coef_ and intercept_, and return W and b for raw X.

        Parameters
        ----------
        intercepts : tuple of ndarray
            Candidates for the starting intercept besides 0; the best one is taken.
        unit : float
            The size of a score, which the first steps of L-BFGS and Adam are proportional to.
        stratify : ndarray, optional
            Class numbers, which the held-out part should have in the same proportions.
        score : callable
            ``score(scores, index)`` measures the scores of the held-out rows `index`.
        """
        scaler = None
        if self.standardize:
            centred = self.fit_intercept and not hasattr(X, "tocsr")
            scaler = StandardScaler(with_mean=centred).fit(X, sample_weight=sample_weight)
            X = scaler.transform(X)
        random = check_random_state(self.random_state)
        whole = LinearObjective(
            loss,
            X,
            target,
            n_outputs,
            float(self.alpha),
            sample_weight,
            self.fit_intercept,
            dict(self.hyper or {}),
        )
        objective = whole
        validate: Validate | None = None
        if self.early_stopping:
            train, held_out = self._split(X.shape[0], stratify, random)
            part = whole.rows(held_out)
            objective = replace(whole.rows(train), loss_scale=1.0)

            def held_out_score(W: NDArray[np.float64], b: NDArray[np.float64]) -> float:
                return score(part.scores(W, b), held_out)

            validate = held_out_score

        b = _starting_intercept(objective, intercepts)
        try:
            result = self._solve(objective, b, validate, unit, random)
        except NonFiniteError as error:
            raise DomainError(
                f"{error} at the start, where all weights are 0: the loss must be finite for any "
                "scores; in place of a loss of probabilities take its form on scores (logits)."
            ) from error
        self._link = loss.link
        self._report(result)
        return _unscaled(result, scaler)

    def _split(
        self, n_samples: int, stratify: NDArray[Any] | None, random: Any
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows to train on and the rows held out."""
        held_out = math.ceil(self.validation_fraction * n_samples)
        if stratify is not None:
            counts = np.bincount(stratify)
            # Where some class cannot have a row on both sides, rows are drawn at random instead.
            if counts.min() < 2 or held_out < counts.size or n_samples - held_out < counts.size:
                stratify = None
        if held_out < 2 or n_samples - held_out < 1:
            raise DataError(
                "early stopping needs 2 held-out rows at least and others to train on, but "
                f"validation_fraction={self.validation_fraction} of {n_samples} rows gives "
                f"{held_out}; change validation_fraction or leave out early_stopping."
            )
        rows = np.arange(n_samples)
        parts: Any = train_test_split(rows, test_size=held_out, stratify=stratify, random_state=random)
        return parts[0], parts[1]

    def _solve(
        self,
        objective: LinearObjective,
        b: NDArray[np.float64],
        validate: Validate | None,
        unit: float,
        random: Any,
    ) -> SolverResult:
        W = np.zeros((objective.n_features, objective.n_outputs))
        max_iter = DEFAULT_MAX_ITER[self.solver] if self.max_iter is None else self.max_iter
        with progress_bar(self.progress, f"{self.solver}", max_iter) as callback:
            options: dict[str, Any] = {
                "max_iter": max_iter,
                "tol": self.tol,
                "validate": validate,
                "patience": self.patience,
                "callback": callback,
            }
            if self.solver == "lbfgs":
                return minimize_lbfgs(objective, W, b, unit=unit, **options)
            options |= {"batch_size": self.batch_size, "random_state": random}
            rate = self.learning_rate
            if self.solver == "sgd":
                rate = safe_learning_rate(objective.X) if rate is None else rate
                return minimize_sgd(objective, W, b, learning_rate=rate, momentum=self.momentum, **options)
            rate = 0.01 * unit if rate is None else rate
            return minimize_adam(objective, W, b, learning_rate=rate, **options)

    def _report(self, result: SolverResult) -> None:
        # At least 1, as scikit-learn asks, though a start that is the minimum takes none.
        self.n_iter_ = max(result.n_iter, 1)
        self.loss_curve_ = result.loss_curve
        self.validation_curve_ = result.validation_curve
        self.solver_message_ = result.message
        if not result.converged:
            warnings.warn(result.message, ConvergenceWarning, stacklevel=4)


def _starting_intercept(objective: LinearObjective, candidates: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
    """Return zeros or the candidate of lowest objective."""
    W = np.zeros((objective.n_features, objective.n_outputs))
    best = np.zeros(objective.n_outputs)
    if not (objective.fit_intercept and candidates):
        return best
    with np.errstate(over="ignore", invalid="ignore"):
        lowest = objective.value(W, best)
        for candidate in candidates:
            value = objective.value(W, candidate)
            if value < lowest:
                lowest, best = value, candidate
    return best


def _unscaled(result: SolverResult, scaler: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return W and b for features as they came, not standardised."""
    W, b = result.W, result.b
    if scaler is None:
        return W, b
    W = W / np.asarray(scaler.scale_, dtype=np.float64)[:, None]
    if scaler.with_mean:
        b = b - np.asarray(scaler.mean_, dtype=np.float64) @ W
    return W, b
