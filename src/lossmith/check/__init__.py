"""Proof by measurement: definitions to 50 digits and more, and kernels compared with them."""

from lossmith.check.interpreter import Reference, Sample, evaluate, evaluate_adaptive
from lossmith.check.measure import check_loss
from lossmith.check.precision import Unsettled, agree
from lossmith.check.report import CheckReport, CheckRow

__all__ = [
    "CheckReport",
    "CheckRow",
    "Reference",
    "Sample",
    "Unsettled",
    "agree",
    "check_loss",
    "evaluate",
    "evaluate_adaptive",
]
