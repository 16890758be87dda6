"""Figures and the page: curves of a loss, two losses compared, and the report of a study."""

from lossmith.report.compare import Comparison, compare_losses
from lossmith.report.curves import plot_function, plot_loss, plot_together
from lossmith.report.page import study_page
from lossmith.report.study import Study, run_study

__all__ = [
    "Comparison",
    "Study",
    "compare_losses",
    "plot_function",
    "plot_loss",
    "plot_together",
    "run_study",
    "study_page",
]
