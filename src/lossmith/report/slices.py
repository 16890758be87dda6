"""Curves: a loss and its derivatives along one score, the others held fixed.

Where a curve jumps it is cut: the jump is found by halving, and a NaN stands in it. So a line is never drawn across a
kink of the loss, and a value that holds at the kink alone (sign(0) = 0) is a point by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lossmith.errors import UnsupportedError
from lossmith.language.formula import Input
from lossmith.loss import Loss
from lossmith.report.backends import Evaluator

CLASSES = 3
POINTS = 1600
_HALVINGS = 34
_JUMP = 1e-4
"""What is left after the halvings of a smooth step is far below this part of the curve's size."""

Line: TypeAlias = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Curve:
    """Points of a line, NaN where it is interrupted."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Slice:
    """A straight line through the scores of one sample.

    Attributes
    ----------
    label : str
        What is varied, or what is fixed, in words; mathematics between dollar signs.
    entry : int or None
        The class whose score is varied; None for an elementwise loss.
    fixed : mapping
        Of each input: its label, number, or row.
    """

    label: str
    entry: int | None
    fixed: Mapping[str, Any]

    def arguments(self, loss: Loss, x: np.ndarray) -> tuple[Any, ...]:
        """Return the batch with a sample for each position in `x`."""
        name = loss.definition.of_role("scores")[0].name
        found: list[Any] = []
        for item in loss.definition.inputs:
            value = np.asarray(self.fixed[item.name])
            batch = np.repeat(value[None], len(x), axis=0)
            if item.name == name:
                batch = batch.astype(float)
                batch[... if self.entry is None else (slice(None), self.entry)] = x
            found.append(batch)
        return tuple(found)

    def lines(self, loss: Loss, hyper: Mapping[str, Any] | None = None) -> dict[str, Line]:
        """Return value, first and second derivative as functions of the position."""
        evaluator = Evaluator(loss, "numpy", hyper)

        def line(output: str) -> Line:
            def at(x: np.ndarray) -> np.ndarray:
                y = evaluator(self.arguments(loss, x), (output,))[output]
                return y if y.ndim == 1 else y[:, self.entry or 0]

            return at

        return {output: line(output) for output in ("value", "grad", "hessian_diag")}


def sampled(line: Line, low: float, high: float) -> Curve:
    """Return the line as a curve, cut where it jumps."""
    x = np.round(np.linspace(low, high, POINTS + 1), 9)  # 0 and 1 are met exactly
    y = _finite(line(x))
    left, right = x[:-1].copy(), x[1:].copy()
    at_left, at_right = y[:-1].copy(), y[1:].copy()
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        value = _finite(line(middle))
        first = ~(np.abs(at_right - value) > np.abs(value - at_left))
        right, at_right = np.where(first, middle, right), np.where(first, value, at_right)
        left, at_left = np.where(first, left, middle), np.where(first, at_left, value)
    finite = np.abs(y[np.isfinite(y)])
    size = float(np.quantile(finite, 0.9)) if finite.size else 0.0
    jumps = np.flatnonzero(np.abs(at_right - at_left) > max(_JUMP * size, 1e-12))
    at = np.repeat(jumps + 1, 3)
    cut_x = np.column_stack([left[jumps], (left[jumps] + right[jumps]) / 2, right[jumps]]).reshape(-1)
    cut_y = np.column_stack([at_left[jumps], np.full(len(jumps), np.nan), at_right[jumps]]).reshape(-1)
    # A value that only one point of the grid has stands between two cuts, next to copies of itself.
    x, y = np.insert(x, at, cut_x), np.insert(y, at, cut_y)
    same = np.concatenate([[False], (np.abs(np.diff(x)) < 1e-9) & (np.diff(y) == 0)])
    return Curve(x[~same], y[~same])


def _finite(y: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(y), y, np.nan)


# ---------------------------------------------------------------- which lines to look along


def score_input(loss: Loss) -> Input:
    """Return the input that curves are drawn over."""
    return loss.definition.of_role("scores")[0]


def span_of(loss: Loss, binary: bool = False) -> tuple[float, float]:
    """Return from where to where a curve is drawn by default."""
    if score_input(loss).role.domain == "unit":
        return 0.0, 1.0
    if score_input(loss).role.domain in ("nonnegative", "positive"):
        return 0.0, 6.0
    if score_input(loss).role.domain == "above -1":
        return -0.95, 6.0
    if loss.kind == "elementwise" and loss.link is None and not binary and loss.target_domain == "real":
        return -3.0, 3.0
    return -6.0, 6.0


def is_binary(losses: Sequence[Loss]) -> bool:
    """Whether one of the losses, all elementwise, is about yes or no."""
    return any(one.link == "sigmoid" or one.target_domain in ("unit", "sign") for one in losses)


def slices_of(loss: Loss, score: int | None = None, classes: int = CLASSES) -> list[Slice]:
    """Return the lines to look along: for an elementwise loss one for each target, else one for each kind of class.

    Parameters
    ----------
    loss : Loss
    score : int, optional
        The one class whose score is varied; the label is class 0.
    classes : int
        How many classes the sample has.
    """
    if loss.kind == "elementwise":
        if score is not None:
            raise UnsupportedError(f"{loss.name} is elementwise: it has one score, and no class {score}.")
        return _elementwise(loss)
    if score is not None and not 0 <= score < classes:
        raise UnsupportedError(f"there is no score {score} among {classes} classes; expected 0 to {classes - 1}.")
    fixed = {i.name: _fixed_row(i, classes) for i in loss.definition.inputs}
    name = score_input(loss).name
    wanted = [score] if score is not None else [0, 1] if len(fixed) > 1 else [0]
    return [Slice(_entry_label(loss, name, k, fixed), k, fixed) for k in wanted]


def _elementwise(loss: Loss) -> list[Slice]:
    name = score_input(loss).name
    others = {i.name: _fixed_number(i) for i in loss.definition.of_role("scores")}
    item = next(iter(loss.definition.of_role("targets")), None)
    if item is None:
        return [Slice(f"along ${symbol(name)}$", None, others)]
    targets = targets_of(loss)
    more = {i.name: _fixed_number(i) for i in loss.definition.of_role("targets")}
    return [Slice(f"${symbol(item.name)} = {t:g}$", None, {**others, **more, item.name: t}) for t in targets]


def targets_of(loss: Loss) -> list[float]:
    """Return the targets that an elementwise loss is drawn for."""
    if loss.target_domain == "sign":
        return [1.0, -1.0]
    if loss.target_domain == "unit" or loss.link == "sigmoid":
        return [1.0, 0.0]
    return [1.0] if loss.target_domain in ("positive", "nonnegative", "simplex") else [0.0]


def symbol(name: str) -> str:
    r"""Return a name for mathematics: s, or \mathrm{margin}."""
    return name if len(name) == 1 else r"\mathrm{" + name.replace("_", r"\_") + "}"


def _fixed_number(item: Input) -> float:
    return {"unit": 0.5, "positive": 1.0, "simplex": 1.0, "sign": 1.0}.get(item.role.domain, 0.0)


def _fixed_row(item: Input, classes: int) -> Any:
    if item.role.kind == "label":
        return 0
    domain = item.role.domain
    if item.role.kind == "scores":
        return np.full(classes, 1 / classes if domain == "unit" else 1.0 if domain == "positive" else 0.0)
    if domain == "simplex":
        # Most of it on class 0, and something on every other.
        weights = np.concatenate([[7.0], np.arange(classes - 1, 0, -1)])
        return np.round(weights / weights.sum(), 3) if classes == CLASSES else weights / weights.sum()
    first = (np.arange(classes) == 0).astype(float)
    return np.where(first > 0, 1.0, {"sign": -1.0, "positive": 0.5}.get(domain, 0.0))


def _entry_label(loss: Loss, name: str, k: int, fixed: Mapping[str, Any]) -> str:
    s, y, t = symbol(name), loss.label_name, loss.target_name
    if y is not None:
        of_label = rf"along ${s}_{{{symbol(y)}}}$"
        return of_label if k == 0 else rf"along ${s}_j,\ j \neq {symbol(y)}$"
    if t is not None:
        return rf"along ${s}_{k}$, where ${symbol(t)}_{k} = {float(fixed[t][k]):g}$"
    return f"along ${s}_{k}$"
