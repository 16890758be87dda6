"""Losses for numbers: every element is a sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.loss import loss


@loss
def squared_error(s: Any, t: Any) -> Any:
    """Squared error (s − t)²; its mean is the MSE."""
    return (s - t) ** 2


@loss
def half_squared_error(s: Any, t: Any) -> Any:
    """Half the squared error, (s − t)²/2, with gradient s − t."""
    return (s - t) ** 2 / 2


@loss
def absolute_error(s: Any, t: Any) -> Any:
    """Absolute error |s − t|; its mean is the MAE. Its derivative at s = t is 0."""
    return np.abs(s - t)


@loss
def huber(s: Any, t: Any, *, delta: Any = 1.0) -> Any:
    """Huber loss, r²/2 for |r| ≤ δ, else δ(|r| − δ/2), r = s − t. Huber (1964)."""
    r = s - t
    return np.where(np.abs(r) <= delta, r**2 / 2, delta * (np.abs(r) - delta / 2))
