"""Losses for yes or no: every element is a sample, with a target in [0, 1]."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossmith.functions import softplus
from lossmith.language.formula import Probabilities, UnitTargets
from lossmith.loss import loss


@loss
def logistic(s: Any, t: UnitTargets) -> Any:
    """Logistic loss (binary cross-entropy) on logits, softplus(s) − t·s. Bishop (2006), eq. 4.90."""
    return softplus(s) - t * s


@loss
def bce(p: Probabilities, t: UnitTargets) -> Any:
    """Binary cross-entropy on probabilities, −t log p − (1−t) log(1−p); ∞ where p contradicts t, not clipped."""
    return -t * np.log(p) - (1 - t) * np.log(1 - p)
