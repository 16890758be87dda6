"""Figures and the page: curves of a loss, two losses compared, and the report of a study."""


from lossmith.report.curves import plot_function, plot_loss, plot_together



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
