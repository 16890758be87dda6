"""Two losses side by side: their gradients in words, numbers and a picture, and what training makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.data import Table
from lossmith.errors import LossmithError
from lossmith.linear.tasks import split_of, task_of
from lossmith.loss import Loss
from lossmith.report.curves import (
    common_slices,
    common_span,
    common_target,
    display_names,
    draw_together,
)
from lossmith.report.drawing import COLOURS, STYLES, label_axes, new_figure, set_title, shared_legend
from lossmith.report.slices import Slice, is_binary, score_input
from lossmith.report.training import Training, train

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Progress = Callable[[int, int, str], None]

_FAR = 10.0
"""Where a prediction counts as confident."""
_VANISHED = 1e-2
"""Below this part of the largest gradient nothing is learnt any more."""


@dataclass(frozen=True)
class GradientRow:
    """Both losses at one score.

    Attributes
    ----------
    score : float
    values, gradients : tuple of two floats
    """

    score: float
    values: tuple[float, float]
    gradients: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two losses compared; prints as text.

    Attributes
    ----------
    names : tuple of str
    derivations : tuple of str
        Formula and gradient of each, line by line.
    setting : str
        What is varied and what is fixed in the table and the figure.
    rows : tuple of GradientRow
    remarks : tuple of str
        What the numbers say.
    figure : matplotlib.figure.Figure
    data : str
        The name of the data set; empty without training.
    training : tuple
        Of each loss what the fit gave, or a sentence that says why there is none; empty without data.
    """

    names: tuple[str, str]
    derivations: tuple[str, str]
    setting: str
    rows: tuple[GradientRow, ...]
    remarks: tuple[str, ...]
    figure: Figure
    data: str = ""
    training: tuple[Training | str, ...] = ()

    def __str__(self) -> str:
        parts: list[str] = []
        for name, derivation in zip(self.names, self.derivations, strict=True):
            parts += [name, "", *(f"  {line}".rstrip() for line in derivation.splitlines()), ""]
        parts += [f"Side by side, {self.setting}", "", *_indented(self._number_table()), ""]
        parts += [f"  {remark}" for remark in self.remarks]
        if self.training:
            parts += ["", f"Trained on {self.data}", "", *_indented(self._training_lines())]
        return "\n".join(parts).rstrip()

    def _number_table(self) -> list[str]:
        a, b = (name if len(name) <= 24 else letter for name, letter in zip(self.names, "AB", strict=True))
        head = ("score", f"loss of {a}", f"of {b}", f"gradient of {a}", f"of {b}")
        cells = [tuple(_number(x) for x in (row.score, *row.values, *row.gradients)) for row in self.rows]
        legend = [f"{x}: {name}" for x, name in zip((a, b), self.names, strict=True) if x != name]
        return [*_table(head, cells), *legend]

    def _training_lines(self) -> list[str]:
        done = [t for t in self.training if isinstance(t, Training)]
        lines: list[str] = []
        if done:
            first = done[0]
            head = ("loss", f"train {first.measure}", f"test {first.measure}", "iterations", "time")
            cells = [
                (name, t.shown(t.train_score), t.shown(t.test_score), str(t.n_iter), f"{t.seconds:.2f} s")
                for name, t in zip(self.names, self.training, strict=True)
                if isinstance(t, Training)
            ]
            lines += _table(head, cells, left=1)
            lines.append(
                f"{first.n_train} rows to train on, {first.n_test} to test on; the baseline "
                f"({'most frequent class' if first.task == 'classification' else 'mean'}) has "
                f"{first.shown(first.baseline)}"
            )
            for name, t in zip(self.names, self.training, strict=True):
                if isinstance(t, Training) and not t.converged:
                    lines.append(f"{name}: {t.model.solver_message_}")
        for name, t in zip(self.names, self.training, strict=True):
            if isinstance(t, str):
                lines.append(f"{name}: not trained. {t}")
        return lines


def compare_losses(
    a: Loss,
    b: Loss,
    *,
    data: Table | None = None,
    target: float | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    test_fraction: float = 0.25,
    alpha: float = 1e-4,
    solver: str = "lbfgs",
    max_iter: int | None = None,
    standardize: bool | None = None,
) -> Comparison:
    """Compare two losses: gradients derived and drawn, and both trained on the same data.

    Parameters
    ----------
    a, b : Loss
        Of one kind: both elementwise, or both losses of rows.
    data : Table, optional
        What to train on.
    target : float, optional
        The target of elementwise losses in the table and the figure; by default 1 if one of them
        is about yes or no, else 0. Row losses are looked at along the label's score.
    progress : callable, optional
        Called with (done, total, text).
    seed, test_fraction, alpha, solver, max_iter, standardize
        Of the split and of the linear models, the same for both losses. By default features are
        standardised unless their numbers are about 1 at the largest, as those of images are.

    Returns
    -------
    Comparison

    Raises
    ------
    UnsupportedError
        If the losses are of different kinds.
    """
    said = progress or (lambda done, total, text: None)
    total = 1 if data is None else 3
    said(0, total, "gradients")
    pair, names = (a, b), (display_names([a])[0], display_names([b])[0])
    if names[0] == names[1]:
        names = (f"{names[0]} (A)", f"{names[1]} (B)")
    slices = common_slices(pair, target)
    rows = tuple(_rows(pair, slices))
    trained: list[Training | str] = []
    if data is not None:
        options = {"alpha": alpha, "solver": solver, "max_iter": max_iter, "standardize": standardize}
        for k, loss in enumerate(pair):
            said(1 + k, total, f"training with {names[k]}")
            trained.append(_trained(pair, loss, data, seed, test_fraction, options))
    comparison = Comparison(
        names,
        (gradient_text(a), gradient_text(b)),
        _setting(pair, target),
        rows,
        tuple(_remarks(pair, slices, names, rows)),
        _figure(pair, names, target, trained),
        "" if data is None else data.name,
        tuple(trained),
    )
    said(total, total, "done")
    return comparison


def gradient_text(loss: Loss) -> str:
    """Return the formula and the derivation of its gradient as text."""
    parts = str(loss.derivation).split("\n\n")
    return "\n\n".join([parts[0], *(p for p in parts[1:] if p.startswith("Gradient"))])


def _trained(
    pair: tuple[Loss, Loss], loss: Loss, table: Table, seed: int, fraction: float, options: dict[str, Any]
) -> Training | str:
    try:
        task = task_of(pair, table)
        split = split_of(table, task, fraction, seed)
        return train(loss, table, task=task, split=split, seed=seed, **options)
    except LossmithError as error:
        return str(error)


# ---------------------------------------------------------------- numbers


def _scores(pair: Sequence[Loss]) -> list[float]:
    low, high = common_span(pair)
    if (low, high) == (-6.0, 6.0):
        return [-_FAR, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, _FAR]
    if (low, high) == (0.0, 1.0):
        return [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    return [-_FAR, -3.0, -1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0, 3.0, _FAR]


def _rows(pair: tuple[Loss, Loss], slices: Sequence[Slice]) -> list[GradientRow]:
    x = np.array(_scores(pair))
    values: list[np.ndarray] = []
    gradients: list[np.ndarray] = []
    for loss, one in zip(pair, slices, strict=True):
        lines = one.lines(loss)
        values.append(lines["value"](x))
        gradients.append(lines["grad"](x))
    return [
        GradientRow(
            float(x[k]),
            (float(values[0][k]), float(values[1][k])),
            (float(gradients[0][k]), float(gradients[1][k])),
        )
        for k in range(len(x))
    ]


def _setting(pair: tuple[Loss, Loss], target: float | None) -> str:
    first = pair[0]
    name = score_input(first).name
    if first.kind == "elementwise":
        if first.target_name is None:
            return f"over {name}"
        return f"over {name}, for the target {first.target_name} = {common_target(pair, target):g}"
    if first.label_name is not None:
        return f"over the label's score {name}_{first.label_name}, for three classes, the other scores 0"
    return f"over {name}_0, for three classes"


def _remarks(
    pair: tuple[Loss, Loss], slices: Sequence[Slice], names: tuple[str, str], rows: Sequence[GradientRow]
) -> list[str]:
    """Say where one of the two learns nothing although it is wrong, and how long it takes to get out."""
    first = rows[0]
    if first.score != -_FAR or not (is_binary(pair) or pair[0].label_name is not None):
        return []
    where = f"At {_number(first.score)} the prediction is confidently wrong."
    largest = [max(abs(r.gradients[k]) for r in rows) for k in (0, 1)]
    sizes = [abs(g) for g in first.gradients]
    gone = [k for k in (0, 1) if largest[k] > 0 and sizes[k] < _VANISHED * largest[k]]
    if not gone:
        said = [f"{where} Neither gradient vanishes there: both losses move such a sample."]
    elif len(gone) == 2:
        said = [f"{where} Both gradients have vanished there: neither loss moves such a sample."]
    else:
        lost, kept = gone[0], 1 - gone[0]
        times = _times(sizes[kept] / sizes[lost] if sizes[lost] > 0 else float("inf"))
        said = [
            f"{where} There the gradient of {names[lost]} has vanished:",
            f"{_number(first.gradients[lost])}, against {_number(first.gradients[kept])} for {names[kept]}, "
            f"which is {times} as large.",
        ]
    durations = [_descent_time(loss, one) for loss, one in zip(pair, slices, strict=True)]
    if all(np.isfinite(d) for d in durations):
        steps = ", ".join(f"{_number(d)} with {n}" for d, n in zip(durations, names, strict=True))
        way = f"from {_number(-_FAR)} to 0"
        said.append(f"Gradient descent on the score itself, {way}, takes (steps × step size): {steps}.")
    return said


def _times(factor: float) -> str:
    return f"{factor:.0f} times" if factor < 1e6 else "∞ times" if np.isinf(factor) else f"{factor:.2g} times"


def _descent_time(loss: Loss, one: Slice) -> float:
    """Return how long ds/dτ = −∂L/∂s takes from the far wrong side to 0; ∞ if it never gets there."""
    x = np.linspace(-_FAR, 0.0, 20001)
    speed = -one.lines(loss)["grad"](x)
    if not np.all(speed > 0):
        return float("inf")
    return float(np.trapezoid(1 / speed, x))


# ---------------------------------------------------------------- picture


def _figure(
    pair: tuple[Loss, Loss], names: tuple[str, str], target: float | None, trained: Sequence[Training | str]
) -> Figure:
    curves = [t if isinstance(t, Training) else None for t in trained]
    panels = 3 if any(curves) else 2
    figure, axes = new_figure(3.9 * panels, 3.7, panels)
    low, high = common_span(pair)
    span = (-_FAR, _FAR) if (low, high) == (-6.0, 6.0) else (low, high)
    draw_together(axes[:2], pair, names, span, target)
    if panels == 3:
        draw_training(axes[2], [t.loss_curve if t else [] for t in curves])
    shared_legend(figure, axes[0], 2)
    set_title(figure, "", f"{names[0]} and {names[1]}")
    return figure


def draw_training(ax: Axes, curves: Sequence[Sequence[float]]) -> None:
    """Draw objectives by iteration, each as a part of its first value: losses have different units."""
    for k, curve in enumerate(curves):
        y = np.asarray(curve, dtype=float)
        if y.size and np.isfinite(y[0]) and y[0] != 0:
            style: Any = STYLES[k % len(STYLES)]
            ax.plot(np.arange(1, y.size + 1), y / y[0], color=COLOURS[k], linestyle=style, linewidth=1.8)
    if max((len(c) for c in curves), default=0) > 10:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    label_axes(ax, "objective in training, over its first value", "iteration")


# ---------------------------------------------------------------- text


def _number(x: float) -> str:
    if x == 0:
        return "0"
    text = f"{x:.5g}" if 1e-4 <= abs(x) < 1e6 else f"{x:.3e}"
    return text.replace("-", "−").replace("inf", "∞")


def _table(head: Sequence[str], cells: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    widths = [max(len(row[c]) for row in (head, *cells)) for c in range(len(head))]

    def line(row: Sequence[str]) -> str:
        shown = [x.ljust(w) if c < left else x.rjust(w) for c, (x, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(shown).rstrip()

    return [line(head), "  ".join("─" * w for w in widths), *(line(row) for row in cells)]


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
