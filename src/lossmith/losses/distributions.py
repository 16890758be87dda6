"""Losses between distributions over the classes. A target of exactly zero contributes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.functions import log_softmax, softmax
from lossmith.language.formula import Distribution, Probabilities
from lossmith.loss import loss


@loss
def entropy(p: Probabilities) -> Any:
    """Entropy of a distribution in nats, −Σ p_k log p_k. Cover and Thomas (2006), eq. 2.1."""
    return -np.sum(p * np.log(p))


@loss
def softmax_entropy(s: Any) -> Any:
    """Entropy of softmax(s) in nats, from the logits."""
    p = softmax(s)
    return -np.sum(p * np.log(p))


@loss
def kl_divergence(s: Any, t: Distribution) -> Any:
    """Kullback–Leibler divergence Σ t_k (log t_k − s_k), s log-probabilities. Cover and Thomas (2006), eq. 2.26."""
    return np.sum(t * (np.log(t) - s))


@loss
def softmax_kl(s: Any, t: Distribution, *, tau: Any = 1.0) -> Any:
    """Divergence of softmax(s/τ) from the targets, times τ². Hinton, Vinyals and Dean (2015), sec. 2."""
    return np.sum(t * (np.log(t) - log_softmax(s / tau))) * tau**2
