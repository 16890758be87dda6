"""Losses over classes, one label per sample. A distribution over the classes may stand for the label."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.functions import classes, logsumexp, onehot, softmax
from lossmith.language.formula import Probabilities
from lossmith.loss import loss


@loss
def cross_entropy(s: Any, y: Any, *, label_smoothing: Any = 0.0, class_weight: Any = 1.0) -> Any:
    """Softmax cross-entropy on logits, Σ_k w_k q_k (log Σ exp(s) − s_k), q = (1−ε) onehot(y) + ε/K.

    Bishop (2006), Pattern Recognition and Machine Learning, eq. 4.108; label smoothing: Szegedy et al. (2016), sec. 7.
    """
    q = (1 - label_smoothing) * onehot(y, s) + label_smoothing / s.size
    return np.sum(class_weight * q * (logsumexp(s) - s))


@loss
def nll(s: Any, y: Any) -> Any:
    """Negative log-likelihood, −s_y, for scores that are log-probabilities."""
    return -s[y]


@loss
def cross_entropy_on_probabilities(p: Probabilities, y: Any) -> Any:
    """Cross-entropy on probabilities, −log p_y. At p_y = 0 it is +∞ (not clipped)."""
    return -np.log(p[y])


@loss
def focal(s: Any, y: Any, *, gamma: Any = 2.0) -> Any:
    """Focal loss, −(1 − p_y)^γ log p_y with p = softmax(s). Lin et al. (2017), eq. 5."""
    p = softmax(s)
    return -((1 - p[y]) ** gamma) * np.log(p[y])


@loss
def multiclass_hinge(s: Any, y: Any, *, margin: Any = 1.0) -> Any:
    """Multiclass SVM loss, Σ_{k≠y} max(0, s_k − s_y + Δ). Weston and Watkins (1999).

    At the kink s_k − s_y + Δ = 0 the term is 0 and so is its derivative.
    """
    return np.sum(np.maximum(0, s - s[y] + margin), where=classes(s) != y)
