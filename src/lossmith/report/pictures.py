"""Pictures of a training: the loss curve, the confusion matrix, predicted against true."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lossmith.report.drawing import COLOURS, FAINT, INK, label_axes, new_figure, svg_element
from lossmith.report.training import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRITTEN = 30
"""Up to so many classes, counts stand in the cells."""
_MAP = 400.0
"""The least width of a matrix."""
_LEVELS = 8
_MOST_POINTS = 3000


def training_figure(training: Training) -> Figure:
    """Draw the objective by iteration."""
    figure, (ax,) = new_figure(6.4, 3.1)
    curve = np.asarray(training.loss_curve, dtype=float)
    few = curve.size < 40
    ax.plot(
        np.arange(1, curve.size + 1), curve, color=COLOURS[0], linewidth=1.8,
        marker="o" if few else None, markersize=3,
    )  # fmt: skip
    positive = curve[np.isfinite(curve)]
    if positive.size and positive.min() > 0 and positive.max() > 20 * positive.min():
        ax.set_yscale("log")
    label_axes(ax, "objective: mean loss and penalty, on the training rows", "iteration")
    return figure


def scatter_figure(training: Training) -> Figure:
    """Draw predicted against true numbers of the test rows."""
    figure, (ax,) = new_figure(4.8, 4.3)
    true, predicted = training.true.astype(float), training.predicted.astype(float)
    if true.size > _MOST_POINTS:
        kept = np.linspace(0, true.size - 1, _MOST_POINTS).astype(int)
        true, predicted = true[kept], predicted[kept]
    low, high = (float(f([f(true), f(predicted)])) for f in (np.min, np.max))
    ax.plot([low, high], [low, high], color=FAINT, linewidth=1.2, linestyle="--")
    ax.plot(true, predicted, linestyle="none", marker="o", markersize=3.2, alpha=0.55,
            color=COLOURS[0], markeredgewidth=0)  # fmt: skip
    label_axes(ax, "test rows; on the dashed line both are equal", "true", "predicted")
    return figure


def confusion_counts(training: Training) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes, and how many test rows of each (row) were taken for each (column)."""
    names = np.unique(np.concatenate([training.model.classes_, training.true]))
    counts = np.zeros((names.size, names.size), dtype=np.intp)
    np.add.at(counts, (np.searchsorted(names, training.true), np.searchsorted(names, training.predicted)), 1)
    return names, counts


def confusion_svg(training: Training, prefix: str = "confusion") -> str:
    """Return the confusion matrix of the test rows as an <svg> element.

    Few classes have their counts written in the cells; many are a map of shades. A cell's shade is
    its part of its row.
    """
    names, counts = confusion_counts(training)
    labels = [_short(str(n)) for n in names]
    size = len(labels)
    cell = max(min(46.0, 660 / size), 2.0)
    small = size <= _WRITTEN
    font = min(13.0, max(cell * 0.62, 7.0))
    step = max(1, int(np.ceil((font + 1.5) / cell)))  # names that would overlap are left out
    longest = max(len(x) for x in labels)
    tilted = longest * font * 0.62 > cell * step
    gutter = 34 + longest * font * 0.62
    left, top = gutter, (24 + longest * font * 0.5 if tilted else 28 + font)
    board = cell * size
    right = longest * font * 0.45 if tilted else 8
    width, height = left + max(board, _MAP - left) + right, top + board + 8
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts = [_cells(counts, share, left, top, cell) if small else _shades(share, left, top, cell)]
    if small:
        parts.append(_numbers(counts, share, left, top, cell, font))
    place = f'x="{left:.1f}" y="{top:.1f}" width="{board:.1f}" height="{board:.1f}"'
    parts.append(f'<rect {place} fill="none" stroke="{FAINT}"/>')
    parts += _names(labels[::step], step, left, top, cell, font, tilted)
    parts.append(_text(left + board / 2, 13, "predicted", 12, "middle"))
    parts.append(_text(13, top + board / 2, "true", 12, "middle", f"rotate(-90 13 {top + board / 2:.1f})"))
    right_ones = int(np.trace(counts))
    description = (
        f"{size} classes; {right_ones} of {counts.sum()} test rows lie on the diagonal. {_worst(names, counts)}"
    )
    return svg_element(width * 0.75, height * 0.75, prefix, "Confusion matrix", description.strip(), _scaled(parts))


def _scaled(parts: list[str]) -> str:
    # The element's size is in points, four thirds of a pixel each.
    return f'<g transform="scale(0.75)" font-family="system-ui, sans-serif" fill="{INK}">{"".join(parts)}</g>'


def worst_confusions(training: Training, most: int = 3) -> list[tuple[str, str, int]]:
    """Return the commonest mistakes: true class, predicted class, how often."""
    names, counts = confusion_counts(training)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    found = [(int(k // len(names)), int(k % len(names))) for k in order]
    return [(str(names[i]), str(names[j]), int(wrong[i, j])) for i, j in found if wrong[i, j]]


def _worst(names: NDArray[Any], counts: NDArray[np.intp]) -> str:
    wrong = counts - np.diag(np.diag(counts))
    if not wrong.any():
        return ""
    i, j = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return f"Most often confused: {names[i]} taken for {names[j]}, {wrong[i, j]} times."


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:7]}…{name[-6:]}"


def _colour(part: float, diagonal: bool) -> str:
    """Blend white with blue for what is right, with orange for what is wrong."""
    full = (15, 98, 168) if diagonal else (210, 89, 11)
    part = part**0.6  # single mistakes among hundreds stay visible
    return "#" + "".join(f"{round(255 + (c - 255) * part):02x}" for c in full)


def _cells(counts: NDArray[Any], share: NDArray[Any], left: float, top: float, cell: float) -> str:
    found: list[str] = []
    for i, j in np.argwhere(counts):
        fill = _colour(float(share[i, j]), i == j)
        x, y = left + j * cell, top + i * cell
        found.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{cell:.1f}" height="{cell:.1f}" fill="{fill}"/>')
    return "".join(found)


def _shades(share: NDArray[Any], left: float, top: float, cell: float) -> str:
    """Return one path for each shade: a hundred classes are ten thousand cells."""
    diagonal = np.eye(len(share), dtype=bool)
    found: list[str] = []
    for level in range(1, _LEVELS + 1):
        inside = (share > (level - 1) / _LEVELS) & (share <= level / _LEVELS)
        for on_diagonal in (False, True):
            at = np.argwhere(inside & (diagonal == on_diagonal))
            if len(at):
                square = f"h{cell:.2f}v{cell:.2f}h-{cell:.2f}z"
                path = "".join(f"M{left + j * cell:.1f} {top + i * cell:.1f}{square}" for i, j in at)
                found.append(f'<path d="{path}" fill="{_colour((level - 0.5) / _LEVELS, on_diagonal)}"/>')
    return "".join(found)


def _numbers(counts: NDArray[Any], share: NDArray[Any], left: float, top: float, cell: float, font: float) -> str:
    widest = len(str(counts.max()))
    size = min(font, cell / (0.62 * widest + 0.25))
    found: list[str] = []
    for i, j in np.argwhere(counts):
        x, y = left + (j + 0.5) * cell, top + (i + 0.5) * cell + 0.36 * size
        colour = "white" if share[i, j] > 0.45 else INK
        found.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{counts[i, j]}</text>')
    return f'<g font-size="{size:.1f}" text-anchor="middle">{"".join(found)}</g>'


def _names(labels: list[str], step: int, left: float, top: float, cell: float, font: float, tilted: bool) -> list[str]:
    found: list[str] = []
    for k, name in enumerate(labels):
        middle = (k * step + 0.5) * cell
        found.append(_text(left - 5, top + middle + 0.36 * font, name, font, "end"))
        x, y = left + middle, top - 5
        if tilted:
            found.append(_text(x, y, name, font, "start", f"rotate(-40 {x:.1f} {y:.1f})"))
        else:
            found.append(_text(x, y, name, font, "middle"))
    return found


def _text(x: float, y: float, text: str, size: float, anchor: str, transform: str = "") -> str:
    turned = f' transform="{transform}"' if transform else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'
