"""The objective of a linear model: mean loss of scores = X·W + b, plus an L2 penalty."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LinearGradient", "LinearObjective", "SupportsLoss"]


class SupportsLoss(Protocol):
    """What a linear model asks of a loss; :class:`lossmith.Loss` has all of it."""

    @property
    def kind(self) -> str: ...
    @property
    def label_name(self) -> str | None: ...
    @property
    def target_name(self) -> str | None: ...
    @property
    def target_domain(self) -> str | None: ...
    @property
    def link(self) -> str | None: ...

    def __call__(self, scores: Any, target: Any, **options: Any) -> Any: ...

    def value_and_grad(self, scores: Any, target: Any, **options: Any) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class LinearGradient:
    """The gradient of a linear objective, float64 but for `X`.

    Parameters
    ----------
    W : ndarray of shape (D, K)
    b : ndarray of shape (K,)
        Zeros if the objective has no intercept.
    X : ndarray of shape (N, D), optional
        In the dtype of the features; only if it was asked for.
    """

    W: NDArray[np.float64]
    b: NDArray[np.float64]
    X: NDArray[Any] | None = None


@dataclass(frozen=True, eq=False)
class LinearObjective:
    """Mean loss of the scores X·W + b, plus alpha/2·‖W‖².

    The objective and its gradients are, with s = X·W + b the scores, ℓ the loss of one sample, w
    the weights, and G the N×K matrix of ∂(mean loss)/∂s:

    - J(W, b) = Σ_i w_i ℓ(s_i, target_i) / Σ_i w_i + alpha/2 · Σ_dk W_dk²
    - ∂J/∂W = Xᵀ·G + alpha·W,  ∂J/∂b = Σ_i G_i,  ∂J/∂X = G·Wᵀ

    The intercept b is not penalised.  scikit-learn's ``LogisticRegression`` minimises the sum
    C · Σ_i w_i ℓ_i + ½‖W‖²; dividing by C · Σ_i w_i gives this objective with

        alpha = 1 / (C · Σ_i w_i),    alpha = 1 / (C · N) without weights.

    The loss of a sample with K score columns under an elementwise loss is the sum over its columns,
    so that K columns trained together (one against the rest) are K models trained apart.

    Parameters
    ----------
    loss : Loss
        A row loss or an elementwise loss.
    X : ndarray or scipy.sparse CSR matrix of shape (N, D), float32 or float64
        The features.  Scores and G are computed in this dtype.
    target : ndarray of shape (N,) or (N, K)
        Labels in [0, K) for a row loss with labels, otherwise targets of the shape of the scores.
    n_outputs : int
        K, the number of score columns.
    alpha : float, default 0.0
        The strength of the penalty.
    sample_weight : ndarray of shape (N,), optional
        The weights w, not negative.
    fit_intercept : bool, default True
        If False, b is left out and its gradient is zero.
    hyper : mapping, optional
        Hyperparameters that are passed to the loss.
    loss_scale : float, default 1.0
        What the mean loss is multiplied by; `rows` uses it for batches of weighted samples.

    Notes
    -----
    Targets that do not fit the loss raise what the loss raises: ShapeError, LabelError or
    DomainError.
    """

    loss: SupportsLoss
    X: Any  # ndarray or CSR, which share @, .T and indexing by rows, but no type
    target: NDArray[Any]
    n_outputs: int
    alpha: float = 0.0
    sample_weight: NDArray[Any] | None = None
    fit_intercept: bool = True
    hyper: Mapping[str, Any] = field(default_factory=dict[str, Any])
    loss_scale: float = 1.0

    @property
    def n_samples(self) -> int:
        """N, the number of samples."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """D, the number of features."""
        return int(self.X.shape[1])

    def scores(self, W: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        """Return X·W + b, of shape (N, K) and in the dtype of X."""
        dtype = self.X.dtype
        # The parameters are float64; rounding them here, not X, keeps X from being copied.
        scores = np.asarray(self.X @ W.astype(dtype, copy=False))
        if self.fit_intercept:
            scores += b.astype(dtype, copy=False)
        return scores

    def value(self, W: NDArray[Any], b: NDArray[Any]) -> float:
        """Return J(W, b)."""
        mean = float(self.loss(*self._arguments(W, b), **self._options()))
        return mean * self._factor() + self._penalty(W)

    def value_and_grad(self, W: NDArray[Any], b: NDArray[Any], *, with_X: bool = False) -> tuple[float, LinearGradient]:
        """Return J(W, b) and its gradients with respect to W, b and, on request, X.

        Parameters
        ----------
        W : ndarray of shape (D, K)
            The weights of the scores.
        b : ndarray of shape (K,)
            The intercept.
        with_X : bool, default False
            Also compute ∂J/∂X.

        Returns
        -------
        tuple of float and LinearGradient
        """
        mean, G = self.loss.value_and_grad(*self._arguments(W, b), **self._options())
        # An elementwise loss of one column saw the scores as (N,).
        G = np.asarray(G).reshape(self.n_samples, self.n_outputs)
        factor = self._factor()
        # The factor goes on the small products, not on G: one pass over N×K numbers less.
        grad_W = np.asarray(self.X.T @ G, dtype=np.float64) * factor + self.alpha * W
        grad_b = np.zeros(self.n_outputs)
        if self.fit_intercept:
            grad_b = G.sum(axis=0, dtype=np.float64) * factor
        grad_X = G @ (W.T * factor).astype(G.dtype) if with_X else None
        value = float(mean) * factor + self._penalty(W)
        return value, LinearGradient(grad_W, grad_b, grad_X)

    def rows(self, index: NDArray[np.intp]) -> LinearObjective:
        """Return the objective of the samples `index`, an unbiased estimate of this one.

        The mean loss of a batch B becomes Σ_{i∈B} w_i ℓ_i / (|B| w̄), where w̄ is the mean weight of
        all samples: over random batches its expectation is the mean over all samples.
        """
        weight, scale = self.sample_weight, self.loss_scale
        if weight is not None:
            mean_weight = float(weight.mean(dtype=np.float64))
            weight = weight[index]
            scale *= float(weight.mean(dtype=np.float64)) / mean_weight
        return replace(
            self,
            X=self.X[index],
            target=self.target[index],
            sample_weight=weight,
            loss_scale=scale,
        )

    def _arguments(self, W: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        scores = self.scores(W, b)
        if self.loss.kind == "elementwise" and self.n_outputs == 1:
            scores = scores[:, 0]
        return scores, self.target

    def _options(self) -> dict[str, Any]:
        # An elementwise loss spreads the weight of a sample over its row of scores by itself.
        return {"sample_weight": self.sample_weight, "reduction": "mean", **self.hyper}

    def _factor(self) -> float:
        """Return the mean over samples by the mean that the loss takes, times `loss_scale`."""
        # The mean of an elementwise loss is over N·K elements; the objective's is over N samples.
        columns = self.n_outputs if self.loss.kind == "elementwise" else 1
        return columns * self.loss_scale

    def _penalty(self, W: NDArray[Any]) -> float:
        return 0.5 * self.alpha * float(np.vdot(W, W))
