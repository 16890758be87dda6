"""A study: everything there is to know of a loss, measured and trained, each step on its own.

A step that fails leaves a sentence; the others go on.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from lossmith.data import Table
from lossmith.data.table import Task
from lossmith.errors import LossmithError
from lossmith.linear.tasks import split_of, task_of
from lossmith.loss import Loss
from lossmith.report.curves import display_name, plot_loss
from lossmith.report.speed import Speed, measure_speed
from lossmith.report.training import Training, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossmith.check.report import CheckReport

Progress = Callable[[int, int, str], None]
T = TypeVar("T")

_PACKAGES = ("numpy", "scipy", "numba", "scikit-learn", "mpmath", "matplotlib")
_TOTAL = 100


@dataclass(frozen=True)
class Missing:
    """Why a step of a study has no result."""

    reason: str


@dataclass(frozen=True)
class Study:
    """What was found out about a loss.

    Attributes
    ----------
    loss : Loss
    title : str
        Its name, or its formula.
    data : str
        The name of the data set; empty if there is none.
    derivation_html, source : str or Missing
        The derivation as HTML with MathML, and the generated NumPy code.
    curves : Figure or Missing
    check : CheckReport or Missing
    speed : Speed or Missing
    training : Training or Missing
    settings : mapping
        How the training was set up.
    environment : mapping
        Versions and machine.
    """

    loss: Loss
    title: str
    data: str
    derivation_html: str | Missing
    curves: Figure | Missing
    check: CheckReport | Missing
    speed: Speed | Missing
    training: Training | Missing
    source: str | Missing
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def ok(self) -> bool:
        """Whether the check kept every promise."""
        return not isinstance(self.check, Missing) and self.check.ok

    @property
    def missing(self) -> dict[str, str]:
        """The steps without a result, and why."""
        steps = ("derivation_html", "curves", "check", "speed", "training", "source")
        found = {name: getattr(self, name) for name in steps}
        return {name: value.reason for name, value in found.items() if isinstance(value, Missing)}


def run_study(
    loss: Loss,
    table: Table | None = None,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    test_fraction: float = 0.25,
    alpha: float = 1e-4,
    solver: str = "lbfgs",
    max_iter: int | None = None,
    standardize: bool | None = None,
    training_bar: bool = False,
    check_options: Mapping[str, Any] | None = None,
) -> Study:
    """Derive, draw, check, time and train a loss.

    Parameters
    ----------
    loss : Loss
    table : Table, optional
        What to train on.
    task : {"classification", "regression"}, optional
        By default what the loss and the targets suggest.
    progress : callable, optional
        Called with (done, total, text).
    seed : int
        Of the check's inputs, the split and the training.
    test_fraction, alpha, solver, max_iter, standardize
        Of the split and of the linear model. By default features are standardised unless their
        numbers are about 1 at the largest, as those of images are.
    training_bar : bool
        Whether the solver shows a progress bar of its own on the standard error stream.
    check_options : mapping, optional
        For `Loss.check`, such as ``{"samples": "quick"}``.

    Returns
    -------
    Study
        What `study_page` makes a page of. A step that fails is a `Missing` in it.
    """
    said = progress or (lambda done, total, text: None)

    def checked() -> CheckReport:
        def part(done: int, total: int, text: str) -> None:
            said(5 + round(45 * done / max(total, 1)), _TOTAL, f"check: {text}")

        return loss.check(**{"seed": seed, "progress": part, **(check_options or {})})

    def trained() -> Training:
        assert table is not None
        chosen = task or task_of([loss], table)
        split = split_of(table, chosen, test_fraction, seed)
        options: dict[str, Any] = {"alpha": alpha, "solver": solver, "max_iter": max_iter, "standardize": standardize}
        return train(loss, table, task=chosen, split=split, seed=seed, progress=training_bar, **options)

    said(0, _TOTAL, "derivation")
    derivation = _attempt(lambda: loss.derivation.html())
    said(2, _TOTAL, "curves")
    curves = _attempt(lambda: plot_loss(loss, title=False))
    said(5, _TOTAL, "check")
    check = _attempt(checked)
    said(50, _TOTAL, "speed")
    speed = _attempt(lambda: measure_speed(loss, seed=seed))
    said(70, _TOTAL, "training")
    training = Missing("No data were given.") if table is None else _attempt(trained)
    source = _attempt(lambda: loss.source("numpy"))
    study = Study(
        loss, display_name(loss), "" if table is None else table.name,
        derivation, curves, check, speed, training, source,
        {"alpha": alpha, "solver": solver, "seed": seed}, environment(),
    )  # fmt: skip
    said(_TOTAL, _TOTAL, "done")
    return study


def _attempt(step: Callable[[], T]) -> T | Missing:
    try:
        return step()
    except LossmithError as error:
        return Missing(_sentence(str(error)))
    except Exception as error:  # whatever goes wrong in one step, the user gets the rest of the page
        said = str(error) or "no message"
        return Missing(_sentence(f"An unexpected {type(error).__name__}: {said}"))


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def environment() -> dict[str, str]:
    """Return versions and machine: what the times depend on, and nothing that names its owner."""
    from importlib import metadata

    version = getattr(sys.modules["lossmith"], "__version__", "")
    found: dict[str, str] = {"lossmith": version, "Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["system"] = f"{platform.system()}, {platform.machine()}"
    found["processor"] = f"{_processor()}, {_cores()}"
    return found


def _cores() -> str:
    usable = getattr(os, "sched_getaffinity", None)
    count = len(usable(0)) if usable is not None else os.cpu_count() or 1
    return "1 core" if count == 1 else f"{count} cores"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.lower().startswith(("model name", "cpu model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
