"""Curves of losses and of vector functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.errors import UnsupportedError
from lossmith.functions import VectorFunction
from lossmith.language.latex import to_latex
from lossmith.loss import Loss
from lossmith.report.backends import fixed_classes
from lossmith.report.drawing import (
    draw_line,
    label_axes,
    limit_y,
    new_figure,
    set_title,
    shared_legend,
)
from lossmith.report.slices import (
    CLASSES,
    Curve,
    Line,
    Slice,
    is_binary,
    sampled,
    score_input,
    slices_of,
    span_of,
    symbol,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lossmith.calculus.prose import Derivation

_WIDTH, _HEIGHT = 10.2, 3.7


def plot_loss(
    loss: Loss | VectorFunction,
    *,
    score: int | None = None,
    span: tuple[float, float] | None = None,
    classes: int | None = None,
    title: bool = True,
    **hyper: Any,
) -> Figure:
    """Draw a loss, its derivative and its second derivative along a score.

    Parameters
    ----------
    loss : Loss or VectorFunction
        A vector function is drawn by `plot_function`.
    score : int, optional
        For a row loss, the class whose score is varied; the label is class 0, the other scores are
        0. By default there are two curves, along the label's score and along another one.
    span : tuple of float, optional
        From where to where.
    classes : int, optional
        For a row loss, how many classes there are: by default 3, or as many as a hyperparameter with
        one number per class has.
    title : bool, default True
        Whether the formula stands above.
    **hyper
        Hyperparameters of the loss.

    Returns
    -------
    matplotlib.figure.Figure
        An elementwise loss is drawn for targets 0 and 1 if these lie in [0, 1], for ±1 if they are
        signs, and for 0 if they are any real numbers. Lines are interrupted where they jump; a
        value that holds at a kink alone is a dot.

    Raises
    ------
    UnsupportedError
        If there is no such score.
    """
    if isinstance(loss, VectorFunction):
        return plot_function(loss, span=span, classes=classes or CLASSES, title=title, **hyper)
    low, high = _checked_span(span or span_of(loss))
    slices = slices_of(loss, score, classes or fixed_classes(loss, hyper) or CLASSES)
    figure, axes = new_figure(_WIDTH, _HEIGHT, 3)
    _draw_slices(axes, loss, slices, (low, high), hyper)
    name = symbol(score_input(loss).name)
    at = "" if loss.kind == "elementwise" else "_k"
    x = f"${name}{at}$" if len(slices) != 1 or not at else f"${name}_{slices[0].entry}$"
    below = rf"\partial {name}{at}"
    label_axes(axes[0], "value $L$", x)
    label_axes(axes[1], rf"derivative $\partial L / {below}$", x)
    label_axes(axes[2], rf"second derivative $\partial^2 L / {below}^2$", x)
    shared_legend(figure, axes[0])
    if title:
        _set_formula(figure, loss.derivation)
    return figure


def _draw_slices(
    axes: Sequence[Axes], loss: Loss, slices: Sequence[Slice], span: tuple[float, float], hyper: Any
) -> None:
    curves: dict[str, list[Curve]] = {"value": [], "grad": [], "hessian_diag": []}
    for k, one in enumerate(slices):
        for (output, line), ax in zip(one.lines(loss, hyper).items(), axes, strict=True):
            curve = sampled(line, *span)
            draw_line(ax, curve.x, curve.y, k, one.label)
            curves[output].append(curve)
    for found, ax in zip(curves.values(), axes, strict=True):
        limit_y(ax, [curve.y for curve in found])


def plot_together(
    losses: Sequence[Loss],
    *,
    labels: Sequence[str] | None = None,
    span: tuple[float, float] | None = None,
    target: float | None = None,
    title: str = "",
) -> Figure:
    """Draw several losses in one figure, with their derivatives.

    Parameters
    ----------
    losses : sequence of Loss
        All of one kind: elementwise, or row losses, which are drawn along the label's score.
    labels : sequence of str, optional
        What they are called; by default their names, or formulas.
    span : tuple of float, optional
        From where to where.
    target : float, optional
        The target of elementwise losses; by default 1 if one of them is about yes or no, else 0.
    title : str, optional
        What stands above.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    UnsupportedError
        If there is nothing to draw, or the losses are of different kinds.
    """
    losses = list(losses)
    low, high = _checked_span(span or common_span(losses))
    figure, axes = new_figure(0.75 * _WIDTH, _HEIGHT, 2)
    draw_together(axes, losses, labels or display_names(losses), (low, high), target)
    shared_legend(figure, axes[0], 3)
    if title:
        set_title(figure, "", title)
    return figure


def draw_together(
    axes: Sequence[Axes],
    losses: Sequence[Loss],
    labels: Sequence[str],
    span: tuple[float, float],
    target: float | None = None,
) -> None:
    """Draw values in the first panel and derivatives in the second."""
    curves: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for k, (loss, one, label) in enumerate(zip(losses, common_slices(losses, target), labels, strict=True)):
        lines = one.lines(loss)
        for output, ax, found in zip(("value", "grad"), axes, curves, strict=False):
            curve = sampled(lines[output], *span)
            draw_line(ax, curve.x, curve.y, k, label.replace("$", r"\$"))
            found.append(curve.y)
    for found, ax in zip(curves, axes, strict=False):
        limit_y(ax, found)
    x, along = _common_symbols(losses, target)
    label_axes(axes[0], f"value{along}", x)
    label_axes(axes[1], f"derivative{along}", x)


def _common_symbols(losses: Sequence[Loss], target: float | None) -> tuple[str, str]:
    first = losses[0]
    name = symbol(score_input(first).name)
    if first.kind == "elementwise":
        if first.target_name is None:
            return f"${name}$", ""
        return f"${name}$", f", ${symbol(first.target_name)} = {common_target(losses, target):g}$"
    if first.label_name is not None:
        return f"${name}_{symbol(first.label_name)}$", " along the label's score"
    return f"${name}_0$", f" along ${name}_0$"


def common_target(losses: Sequence[Loss], target: float | None = None) -> float:
    """Return the target that elementwise losses are compared at."""
    if target is not None:
        return target
    positive = any(one.target_domain in ("positive", "nonnegative") for one in losses)
    return 1.0 if is_binary(losses) or positive else 0.0


def common_slices(losses: Sequence[Loss], target: float | None = None) -> list[Slice]:
    """Return the same line through the scores of every loss."""
    if not losses:
        raise UnsupportedError("there is no loss to draw; give one at least.")
    kinds = {one.kind for one in losses}
    if len(kinds) > 1:
        said = ", ".join(f"{n} is {o.kind}" for n, o in zip(display_names(losses), losses, strict=True))
        raise UnsupportedError(f"only losses of one kind can be compared: {said}.")
    found: list[Slice] = []
    for loss in losses:
        first = slices_of(loss, classes=fixed_classes(loss) or CLASSES)[0]
        targets = loss.definition.of_role("targets")
        if loss.kind == "elementwise" and targets:
            at = common_target(losses, target)
            first = Slice(f"t = {at:g}", None, {**first.fixed, targets[0].name: at})
        found.append(first)
    return found


def common_span(losses: Sequence[Loss]) -> tuple[float, float]:
    """Return the range that every loss can be drawn over."""
    spans = [span_of(one, is_binary(losses)) for one in losses] or [(-6.0, 6.0)]
    low, high = max(a for a, _ in spans), min(b for _, b in spans)
    return (low, high) if low < high else spans[0]


def display_names(losses: Sequence[Loss]) -> list[str]:
    """Return what losses are called in a legend: the name, or what the formula says."""
    return [display_name(one) for one in losses]


def display_name(loss: Loss) -> str:
    """Return the name of a loss, or its formula where it has no name of its own."""
    if loss.name != "loss":
        return loss.name
    return loss.formula.split(" = ", 1)[1]


# ---------------------------------------------------------------- vector functions


def plot_function(
    function: VectorFunction,
    *,
    span: tuple[float, float] | None = None,
    classes: int = CLASSES,
    title: bool = True,
    **hyper: Any,
) -> Figure:
    """Draw a vector function and its derivative.

    Parameters
    ----------
    function : VectorFunction
        One that works element by element is drawn with its derivative. One of a row, such as the
        softmax, is drawn with all its components along the first score (the others go from 1 to −1),
        beside their derivatives, which are the first column of the Jacobian.
    span : tuple of float, optional
        From where to where, by default −6 to 6.
    classes : int, default 3
        The length of the row.
    title : bool, default True
        Whether the definition stands above.
    **hyper
        Hyperparameters of the function.

    Returns
    -------
    matplotlib.figure.Figure
    """
    low, high = _checked_span(span or (-6.0, 6.0))
    figure, axes = new_figure(0.75 * _WIDTH, _HEIGHT, 2)
    if function.definition.kind == "elementwise":
        _draw_elementwise(axes, function, (low, high), hyper)
    else:
        _draw_row_function(axes, function, (low, high), classes, hyper)
        shared_legend(figure, axes[0])
    if title:
        _set_formula(figure, function.derivation)
    return figure


def _draw_elementwise(axes: Sequence[Axes], function: VectorFunction, span: tuple[float, float], hyper: Any) -> None:
    lines: tuple[Line, Line] = (
        lambda x: function.value(x, **hyper),
        lambda x: function.derivative(x, **hyper),
    )
    for ax, line in zip(axes, lines, strict=True):
        curve = sampled(line, *span)
        draw_line(ax, curve.x, curve.y, 0, function.name)
        limit_y(ax, [curve.y])
    label_axes(axes[0], "$f(s)$", "$s$")
    label_axes(axes[1], "$f\\,'(s)$", "$s$")


def _draw_row_function(
    axes: Sequence[Axes], function: VectorFunction, span: tuple[float, float], classes: int, hyper: Any
) -> None:
    first = np.eye(classes)[0]
    others = np.concatenate([[0.0], np.linspace(1, -1, classes - 1)])  # so that no two curves coincide

    def component(i: int, derivative: bool) -> Line:
        def line(x: np.ndarray) -> np.ndarray:
            rows = x[:, None] * first + others
            if derivative:
                return function.jvp(rows, np.broadcast_to(first, rows.shape), **hyper)[:, i]
            return function.value(rows, **hyper)[:, i]

        return line

    for ax, derivative in zip(axes, (False, True), strict=True):
        curves = [sampled(component(i, derivative), *span) for i in range(classes)]
        for i, curve in enumerate(curves):
            draw_line(ax, curve.x, curve.y, i, f"$i = {i}$")
        limit_y(ax, [curve.y for curve in curves])
    fixed = ",\\ ".join(f"s_{i} = {value:g}" for i, value in enumerate(others) if i)
    label_axes(axes[0], f"{function.name}$(s)_i$, ${fixed}$" if classes <= 4 else f"{function.name}$(s)_i$", "$s_0$")
    label_axes(axes[1], "Jacobian $\\partial f_i / \\partial s_0$", "$s_0$")


# ---------------------------------------------------------------- titles


def _set_formula(figure: Figure, derivation: Derivation) -> None:
    left, right = to_latex(derivation.left), to_latex(derivation.right, derivation.names)
    set_title(figure, f"{left} = {right}", derivation.formula)


def _checked_span(span: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(x) for x in span)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UnsupportedError(f"no curve goes from {low:g} to {high:g}; give two numbers, the smaller first.")
    return low, high
