"""Proof by measurement: definitions to 50 digits and more, and kernels compared with them."""

from lossmith.check.interpreter import Reference, Sample, evaluate, evaluate_adaptive
from lossmith.check.precision import Unsettled, agree

__all__ = ["Reference", "Sample", "Unsettled", "agree", "evaluate", "evaluate_adaptive"]
