"""How labels become targets, and how scores become probabilities and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax

from lossmith.errors import UnsupportedError
from lossmith.linear.objective import SupportsLoss


def encoded_labels(loss: SupportsLoss, codes: NDArray[np.intp], n_classes: int, dtype: Any) -> tuple[NDArray[Any], int]:
    """Return class numbers in the form that the loss takes, and the number of score columns."""
    if loss.label_name is not None:
        return codes.astype(np.int64), n_classes
    if loss.target_name is None:
        raise UnsupportedError(
            "this loss takes neither a label nor targets, so nothing ties it to classes; a "
            "classifier needs a loss with a label y or targets t."
        )
    low = -1 if loss.target_domain == "sign" else 0
    if loss.kind == "elementwise" and n_classes == 2:
        return np.where(codes == 1, 1, low).astype(dtype), 1
    return np.where(codes[:, None] == np.arange(n_classes), 1, low).astype(dtype), n_classes


def threshold(loss: SupportsLoss) -> float:
    """Return the score between the two classes where there is one score column."""
    # A loss without a link, such as the squared error, draws scores to the targets 0 and 1.
    return 0.5 if loss.link is None and loss.target_domain != "sign" else 0.0


def class_probabilities(link: str | None, scores: NDArray[Any], *, log: bool = False) -> NDArray[Any]:
    """Return the probabilities of the classes, of shape (N, K), or their logarithms.

    Parameters
    ----------
    link : {"softmax", "sigmoid"}
        How the loss turns scores into probabilities.
    scores : ndarray of shape (N, K), or (N, 1) for two classes with one score
    log : bool, default False
        Return logarithms, accurate also where a probability is close to 0.
    """
    if scores.shape[1] == 1:
        both = np.hstack([-scores, scores])
        return log_expit(both) if log else expit(both)
    # σ(s_k)/Σσ(s_m) by logarithms: the sum cannot vanish, however negative all scores are.
    logits = scores if link == "softmax" else log_expit(scores)
    return log_softmax(logits, axis=1) if log else softmax(logits, axis=1)


def linked(link: str | None, scores: NDArray[Any]) -> NDArray[Any]:
    """Return the predictions of a regression: the scores through the link of the loss."""
    if link == "softmax":
        return softmax(scores, axis=1)
    return expit(scores) if link == "sigmoid" else scores


def centres(columns: NDArray[Any], sample_weight: NDArray[Any] | None) -> tuple[NDArray[np.float64], ...]:
    """Return the mean and the median of each column: where an intercept may well start."""
    values = np.asarray(columns, dtype=np.float64)
    mean = np.average(values, axis=0, weights=sample_weight)
    kept = values if sample_weight is None else values[sample_weight > 0]
    return mean, np.median(kept, axis=0)


def spread(columns: NDArray[Any], sample_weight: NDArray[Any] | None) -> float:
    """Return the standard deviation of targets around the means of their columns; 1 if it is 0."""
    values = np.asarray(columns, dtype=np.float64)
    squares = (values - np.average(values, axis=0, weights=sample_weight)) ** 2
    return float(np.sqrt(np.average(squares, axis=0, weights=sample_weight).mean())) or 1.0
