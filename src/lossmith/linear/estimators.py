"""Linear models for scikit-learn: a classifier and a regressor under any loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
    check_consistent_length,
    column_or_1d,
    validate_data,
)

from lossmith.errors import DataError, LossmithError, UnsupportedError
from lossmith.linear.base import LinearModel
from lossmith.linear.targets import (
    centres,
    class_probabilities,
    encoded_labels,
    linked,
    spread,
    threshold,
)

__all__ = ["LinearClassifier", "LinearRegressor"]


def _has_link(model: LinearModel) -> bool:
    """Tell whether the model's loss turns scores into probabilities."""
    # After fit the link is known; before, a formula has to be read for it.
    if hasattr(model, "_link"):
        return model._link is not None  # pyright: ignore[reportPrivateUsage]
    try:
        return model._resolved_loss().link is not None  # pyright: ignore[reportPrivateUsage]
    except LossmithError:
        return False


class LinearClassifier(ClassifierMixin, LinearModel):
    """Classify by linear scores, X·W + b, fitted under any loss.

    Minimises Σ_i w_i ℓ(s_i, y_i) / Σ_i w_i + alpha/2·‖W‖².  How labels meet the loss:

    ======================= ============= =========================================
    the loss                score columns targets
    ======================= ============= =========================================
    row loss with labels    K             label numbers 0 to K − 1
    row loss with targets   K             one-hot rows
    elementwise, 2 classes  1             0 and 1
    elementwise, K > 2      K             one-hot rows: one class against the rest
    ======================= ============= =========================================

    For losses whose targets are signs, 0 is replaced by −1.

    Parameters
    ----------
    loss : Loss or str, default "cross_entropy"
        A loss, the name of one in the catalogue, or a formula.
    alpha : float, default 1e-4
        The strength of the L2 penalty alpha/2·‖W‖² beside the mean loss; the intercept is not
        penalised.  scikit-learn's ``C`` is 1 / (alpha · N), N the number of samples (the sum of
        the weights, if there are any).
    solver : {"lbfgs", "sgd", "adam"}, default "lbfgs"
        L-BFGS over all samples, or batches of samples with momentum SGD or Adam.
    max_iter : int, optional
        The most iterations (lbfgs, 1000 by default) or epochs (sgd and adam, 100).
    tol : float, default 1e-4
        lbfgs stops where the gradient is at most this fraction of that at the start; sgd and
        adam, where the objective no longer falls by this fraction of itself.
    learning_rate : float, optional
        The step size.  By default 1 / (1 + mean ‖x‖²) for sgd, and 0.01 for adam.
    batch_size : int, default 200
        Samples in a batch (sgd and adam).
    momentum : float, default 0.9
        In [0, 1) (sgd).
    early_stopping : bool, default False
        Hold out a part of the samples, stop when the score on them (as `score` measures it) no
        longer rises, and keep the parameters that scored best.
    validation_fraction : float, default 0.1
        The part that is held out, in (0, 1).
    patience : int, default 10
        Iterations or epochs to wait for a higher score; without `early_stopping`, epochs to wait
        for a lower objective before the step size is cut (sgd and adam).
    standardize : bool, default False
        Fit to features of mean 0 and variance 1 (sparse ones are only scaled, and without an
        intercept none are shifted); constant features are divided by 1.  The penalty then weighs
        all features alike; `coef_` and `intercept_` are for the features as they come.
    fit_intercept : bool, default True
        Whether there is an intercept.
    random_state : int, RandomState or None, default None
        Orders the batches and draws the held-out part.
    progress : bool, default False
        Show a progress bar on the standard error stream.
    hyper : mapping, optional
        The loss's hyperparameters, such as ``{"gamma": 3.0}``.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        The labels, sorted.
    coef_ : ndarray of shape (K, D), or (1, D) for two classes under an elementwise loss
        W transposed, float64.
    intercept_ : ndarray of shape (K,) or (1,)
        b, float64.
    n_features_in_ : int
        D.
    n_iter_ : int
        Iterations or epochs done.
    loss_curve_ : list of float
        The objective, penalty included, after each iteration or epoch.
    validation_curve_ : list of float
        The held-out score after each; empty without `early_stopping`.
    solver_message_ : str
        Why the solver stopped, in one sentence.

    Notes
    -----
    Scores are computed in float32 for float32 features, otherwise in float64; the parameters are
    float64.  A solver that ends without having converged gives a ``ConvergenceWarning`` that says
    what to do; the best parameters are kept.

    Examples
    --------
    >>> from lossmith.data import load_table
    >>> digits = load_table("digits")
    >>> model = LinearClassifier("cross_entropy", alpha=1e-3).fit(digits.X, digits.target)
    >>> bool(model.score(digits.X, digits.target) > 0.95)
    True
    """

    classes_: NDArray[Any]

    def __init__(
        self,
        loss: Any = "cross_entropy",
        *,
        alpha: float = 1e-4,
        solver: str = "lbfgs",
        max_iter: int | None = None,
        tol: float = 1e-4,
        learning_rate: float | None = None,
        batch_size: int = 200,
        momentum: float = 0.9,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = False,
        fit_intercept: bool = True,
        random_state: Any = None,
        progress: bool = False,
        hyper: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            loss,
            alpha=alpha,
            solver=solver,
            max_iter=max_iter,
            tol=tol,
            learning_rate=learning_rate,
            batch_size=batch_size,
            momentum=momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            standardize=standardize,
            fit_intercept=fit_intercept,
            random_state=random_state,
            progress=progress,
            hyper=hyper,
        )

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearClassifier:
        """Fit the weights and the intercept.

        Parameters
        ----------
        X : array or CSR matrix of shape (N, D)
            The features: finite numbers.
        y : array of shape (N,)
            Labels of any type that sorts; two different ones at least.
        sample_weight : array of shape (N,), optional
            Weights, not negative.

        Returns
        -------
        LinearClassifier
            The model itself.

        Raises
        ------
        DataError
            If there is one class only, or too few rows for early stopping.
        DomainError
            If a parameter is outside its range, or the loss is not finite where all scores are 0.
        """
        self._check_parameters()
        loss = self._resolved_loss()
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=[np.float64, np.float32])
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.classes_.size < 2:
            raise DataError(
                f"y has one class only, {self.classes_[0]!r}, in all {codes.size} rows; "
                "a classifier needs two classes at least."
            )
        target, n_outputs = encoded_labels(loss, codes, self.classes_.size, X.dtype)
        self._threshold = threshold(loss)

        def score(scores: NDArray[Any], rows: NDArray[np.intp]) -> float:
            right = self._chosen(self._decision(scores)) == codes[rows]
            weight = None if sample_weight is None else sample_weight[rows]
            return float(np.average(right, weights=weight))

        W, b = self._fit_linear(loss, X, target, n_outputs, sample_weight, stratify=codes, score=score)
        self.coef_, self.intercept_ = np.ascontiguousarray(W.T), b
        return self

    def decision_function(self, X: Any) -> NDArray[Any]:
        """Return the scores, in the dtype of X.

        Parameters
        ----------
        X : array or CSR matrix of shape (N, D)

        Returns
        -------
        ndarray of shape (N, K), or (N,) for two classes
            For two classes, what is positive for the second one: the difference of the scores, or
            the one score less its threshold (½ under a loss that compares scores with 0 and 1
            directly, else 0).
        """
        return self._decision(self._scores(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the label of the highest score (the first one in a tie) for each row of X."""
        decision = self.decision_function(X)
        return self.classes_[self._chosen(decision)]

    @available_if(_has_link)
    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return class probabilities, of shape (N, K); only for losses with a link.

        Softmax of the scores, or their sigmoid: 1 − σ(s) and σ(s) for a single score, and σ(s_k)
        divided by their sum for several.
        """
        scores = self._scores(X)
        return class_probabilities(self._link, scores)

    @available_if(_has_link)
    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Return the logarithms of `predict_proba`, accurate where those are close to 0."""
        scores = self._scores(X)
        return class_probabilities(self._link, scores, log=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the part of the rows whose label is predicted.

        A label that was not there in training counts as missed, of whatever type it is.
        """
        predicted = self.predict(X)
        y = column_or_1d(y)
        check_consistent_length(predicted, y, sample_weight)
        right = predicted.astype(object) == y.astype(object)
        return float(np.average(right.astype(bool), weights=sample_weight))

    def _decision(self, scores: NDArray[Any]) -> NDArray[Any]:
        if scores.shape[1] == 1:
            return scores[:, 0] - scores.dtype.type(self._threshold)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    @staticmethod
    def _chosen(decision: NDArray[Any]) -> NDArray[np.intp]:
        """Return the number of the chosen class for each row."""
        return (decision > 0).astype(np.intp) if decision.ndim == 1 else decision.argmax(axis=1)


class LinearRegressor(RegressorMixin, LinearModel):
    """Predict numbers by linear scores, X·W + b, fitted under any loss with targets.

    Minimises Σ_i w_i ℓ(s_i, y_i) / Σ_i w_i + alpha/2·‖W‖²; with M columns of targets under an
    elementwise loss, ℓ of a sample is the sum over its columns.

    Parameters
    ----------
    loss : Loss or str, default "squared_error"
        A loss with targets, elementwise or of rows.
    alpha, solver, max_iter, tol, learning_rate, batch_size, momentum, early_stopping, \
    validation_fraction, patience, standardize, fit_intercept, random_state, progress, hyper
        As in `LinearClassifier`, with two differences.  The learning rate of adam is by default
        0.01 times the standard deviation of the targets, where these are of the scores' own kind
        (no link, real targets).  The held-out score is R².

    Attributes
    ----------
    coef_ : ndarray of shape (D,), or (M, D) for targets of shape (N, M)
        W transposed, float64.
    intercept_ : float or ndarray of shape (M,)
        b, float64.
    n_features_in_, n_iter_, loss_curve_, validation_curve_, solver_message_
        As in `LinearClassifier`.

    Notes
    -----
    The intercept starts at 0, at the mean or at the median of the targets, wherever the loss is
    lowest.

    Examples
    --------
    >>> from lossmith.data import load_table
    >>> table = load_table("diabetes")
    >>> model = LinearRegressor("huber", standardize=True).fit(table.X, table.target)
    >>> bool(model.score(table.X, table.target) > 0.5)
    True
    """

    def __init__(
        self,
        loss: Any = "squared_error",
        *,
        alpha: float = 1e-4,
        solver: str = "lbfgs",
        max_iter: int | None = None,
        tol: float = 1e-4,
        learning_rate: float | None = None,
        batch_size: int = 200,
        momentum: float = 0.9,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        patience: int = 10,
        standardize: bool = False,
        fit_intercept: bool = True,
        random_state: Any = None,
        progress: bool = False,
        hyper: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            loss,
            alpha=alpha,
            solver=solver,
            max_iter=max_iter,
            tol=tol,
            learning_rate=learning_rate,
            batch_size=batch_size,
            momentum=momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            standardize=standardize,
            fit_intercept=fit_intercept,
            random_state=random_state,
            progress=progress,
            hyper=hyper,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> LinearRegressor:
        """Fit the weights and the intercept.

        Parameters
        ----------
        X : array or CSR matrix of shape (N, D)
            The features: finite numbers.
        y : array of shape (N,) or (N, M)
            The targets.
        sample_weight : array of shape (N,), optional
            Weights, not negative.

        Returns
        -------
        LinearRegressor
            The model itself.

        Raises
        ------
        UnsupportedError
            If the loss takes a class label.
        DomainError
            If a parameter is outside its range, targets are outside the loss's domain, or the
            loss is not finite where all scores are 0.
        """
        self._check_parameters()
        loss = self._resolved_loss()
        if loss.target_name is None:
            what = "no targets" if loss.label_name is None else "a class label and no targets"
            raise UnsupportedError(
                f"this loss takes {what}, so there is nothing to regress on; a regressor needs a loss with targets t."
            )
        dtype = [np.float64, np.float32]
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=dtype, multi_output=True, y_numeric=True)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
        target = np.asarray(y, dtype=X.dtype)
        columns = target.reshape(target.shape[0], -1)
        n_outputs = columns.shape[1]
        elementwise = loss.kind == "elementwise"
        target = columns[:, 0] if elementwise and n_outputs == 1 else columns
        own_kind = elementwise and loss.link is None and loss.target_domain in (None, "real")

        def score(scores: NDArray[Any], rows: NDArray[np.intp]) -> float:
            weight = None if sample_weight is None else sample_weight[rows]
            return float(r2_score(columns[rows], linked(loss.link, scores), sample_weight=weight))

        W, b = self._fit_linear(
            loss,
            X,
            target,
            n_outputs,
            sample_weight,
            intercepts=centres(columns, sample_weight) if elementwise else (),
            unit=spread(columns, sample_weight) if own_kind else 1.0,
            score=score,
        )
        self.coef_ = W[:, 0].copy() if np.ndim(y) == 1 else np.ascontiguousarray(W.T)
        self.intercept_ = float(b[0]) if np.ndim(y) == 1 else b
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return predictions, of shape (N,) or (N, M), in the dtype of X.

        The scores; under a loss with a link, their sigmoid or softmax.
        """
        scores = self._scores(X)
        predicted = linked(self._link, scores)
        return predicted[:, 0] if self.coef_.ndim == 1 else predicted
