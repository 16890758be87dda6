"""How every figure looks, and how it becomes a piece of a page.

Figures are made by matplotlib's objects alone: no pyplot, hence no state that a user's own figures share.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart by eyes of all kinds, also in grey: Okabe and Ito (2008), darkened where thin lines need it.
COLOURS = ("#0f62a8", "#d2590b", "#0b8a63", "#a83b8c", "#7a6a00", "#4a4a4a")
STYLES = ("-", "--", "-.", (0, (1, 1.2)), (0, (5, 1, 1, 1, 1, 1)), "-")
INK, FAINT = "#222222", "#8a8a8a"

_SMALL, _NORMAL, _LARGE = 8.5, 9.5, 11.5


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of that size in inches with panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, [dressed(ax) for ax in axes]


def dressed(ax: Axes) -> Axes:
    """Give a panel the house look."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(labelsize=_SMALL, color=FAINT, labelcolor=INK, length=3)
    ax.grid(True, color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def label_axes(ax: Axes, title: str, x: str, y: str = "") -> None:
    ax.set_title(title, loc="left", fontsize=_NORMAL, color=INK)
    ax.set_xlabel(x, fontsize=_NORMAL, color=INK)
    if y:
        ax.set_ylabel(y, fontsize=_NORMAL, color=INK)


def draw_line(ax: Axes, x: np.ndarray, y: np.ndarray, number: int, label: str) -> None:
    """Draw a line that breaks at NaN; a point alone between two breaks is drawn as a dot."""
    colour = COLOURS[number % len(COLOURS)]
    style: Any = STYLES[number % len(STYLES)]
    ax.plot(x, y, color=colour, linestyle=style, linewidth=1.8, label=label, zorder=3 + 0.01 * number)
    shown = np.isfinite(y)
    before = np.concatenate([[False], shown[:-1]])
    after = np.concatenate([shown[1:], [False]])
    alone = shown & ~before & ~after
    if alone.any():
        ax.plot(x[alone], y[alone], color=colour, linestyle="none", marker="o", markersize=3.5, zorder=4)


def limit_y(ax: Axes, curves: Sequence[np.ndarray]) -> None:
    """Set the y-axis so that curves that go to infinity do not flatten the others."""
    values = np.concatenate([c[np.isfinite(c)] for c in curves])
    if values.size == 0:
        return
    low, high = float(values.min()), float(values.max())
    inner_low, inner_high = (float(q) for q in np.quantile(values, [0.04, 0.96]))
    spread = inner_high - inner_low
    if spread > 0 and high - low > 4 * spread:
        low, high = max(low, inner_low - 0.3 * spread), min(high, inner_high + 0.3 * spread)
    if high == low:  # a constant shows its size beside 0
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or 0.5
    ax.set_ylim(low - room, high + room)


def shared_legend(figure: Figure, ax: Axes, columns: int = 4) -> None:
    """Put one legend for all panels below them."""
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(columns, len(handles)),
            fontsize=_NORMAL, frameon=False, handlelength=2.6,
        )  # fmt: skip


def set_title(figure: Figure, latex: str, text: str) -> None:
    """Head a figure with a formula, typeset if matplotlib can and there is room for it."""
    room = 72 * (figure.get_size_inches()[0] - 0.3)
    typeset = _mathtext(latex)
    for shown in filter(None, [typeset, text]):
        width = _width(shown) if shown is typeset else 6.2 * len(shown)
        scale = min(1.0, room / max(width, 1.0))
        if scale * _LARGE >= 7.5:
            figure.suptitle(shown, fontsize=_LARGE * scale, color=INK, parse_math=shown is typeset)
            return
    figure.suptitle(text[:100] + "…", fontsize=_NORMAL, color=INK, parse_math=False)


# What matplotlib knows under another name, and fractions in full size.
_MATHTEXT = ((r"\lvert", "|"), (r"\rvert", "|"), (r"\frac", r"\dfrac"))


def _mathtext(latex: str) -> str | None:
    """Return the formula between dollar signs, or None if matplotlib cannot typeset it."""
    for command, known in _MATHTEXT:
        latex = latex.replace(command, known)
    shown = f"${latex}$"
    try:
        _width(shown)
    except (ValueError, RuntimeError):
        return None
    return shown


def _width(shown: str) -> float:
    from matplotlib.font_manager import FontProperties

    parsed = MathTextParser("path").parse(shown, dpi=72, prop=FontProperties(size=_LARGE))
    return float(parsed.width)


# ---------------------------------------------------------------- inline SVG


def inline_svg(figure: Figure, prefix: str, title: str, description: str = "") -> str:
    """Return the figure as an <svg> element that stands inside a page.

    Parameters
    ----------
    figure : Figure
    prefix : str
        What all ids begin with, so that those of several figures on a page stay apart.
    title, description : str
        What the figure is and shows, for readers who cannot see it.

    Returns
    -------
    str
        Text is drawn as paths: it looks the same whatever fonts there are.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": "lossmith"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for useless in (r"<metadata>.*?</metadata>\s*", r"<defs>\s*<style.*?</style>\s*</defs>\s*", r"<!--.*?-->\s*"):
        text = re.sub(useless, "", text, flags=re.DOTALL)
    text = _renamed(text.replace("xlink:href", "href"), prefix)
    head, body = text.split(">", 1)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    assert found is not None
    width, height = (float(g) for g in found.groups())
    return svg_element(width, height, prefix, title, description, body.rsplit("</svg>", 1)[0])


def svg_element(width: float, height: float, prefix: str, title: str, description: str, body: str) -> str:
    """Return an <svg> element with a name and a description."""
    said = f'<title id="{prefix}-title">{escape(title)}</title>'
    names = f"{prefix}-title"
    if description:
        said += f'<desc id="{prefix}-desc">{escape(description)}</desc>'
        names += f" {prefix}-desc"
    pixels = width * 4 / 3
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-labelledby="{names}" '
        # on a narrow page it shrinks as far as it stays legible, and is scrolled beyond
        f'style="width:{pixels:.0f}px;max-width:max(100%,{0.65 * pixels:.0f}px);stroke-linejoin:round">'
        f"{said}{body}</svg>"
    )


def _renamed(text: str, prefix: str) -> str:
    """Give every id the prefix and a number; references follow."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    names: dict[str, str] = {}

    def new_id(found: re.Match[str]) -> str:
        old = found.group(1)
        if old not in used:
            return ""
        names.setdefault(old, f"{prefix}-{len(names)}")
        return f' id="{names[old]}"'

    text = re.sub(r'\sid="([^"]+)"', new_id, text)
    text = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{names[m.group(1)]}"', text)
    return re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names[m.group(1)]})", text)
