"""How a derivation is shown: in a terminal, as LaTeX, and as HTML with MathML."""

from __future__ import annotations

from dataclasses import dataclass, replace
from html import escape

from lossmith.calculus.batchform import RawLine, batch_lines, linear_lines
from lossmith.calculus.derivation import LOSS, Section, derive_sections, display_names, jacobian_section
from lossmith.language.abbreviate import abbreviate
from lossmith.language.budget import within_budget
from lossmith.language.expr import Expr, walk
from lossmith.language.expr import Var as VarNode
from lossmith.language.formula import Definition, Formula
from lossmith.language.latex import to_latex
from lossmith.language.mathml import mathml_document, operator, to_mathml
from lossmith.language.text import to_text

_WIDTH = 76
"""Where the reasons stand in a terminal."""


@dataclass(frozen=True)
class Derivation:
    """A derivation, from the loss of one sample to its gradient and Hessian, the batch and the linear model.

    `print` it in a terminal; in a notebook it renders by itself. `latex()` and `html()` give the other forms.
    """

    name: str
    left: Expr
    right: Expr
    names: tuple[Definition, ...]
    sections: tuple[Section, ...]
    raw: tuple[tuple[str, tuple[RawLine, ...]], ...] = ()

    @property
    def formula(self) -> str:
        """The definition in one line, such as L = log Σ_m exp(s_m) − s_y."""
        return f"{to_text(self.left)} = {to_text(self.right, self.names)}"

    def section(self, title: str) -> Section:
        """Return the section whose title begins with `title`."""
        return next(s for s in self.sections if s.title.startswith(title))

    def gradient(self) -> Derivation:
        """Return the part of the derivation that arrives at the gradient."""
        return replace(self, sections=tuple(s for s in self.sections if s.title.startswith("Gradient")), raw=())

    def where(self) -> list[tuple[Expr, Expr]]:
        """Return the names used, as (name, meaning)."""
        exprs = [self.right, *(e for s in self.sections for e in _expressions(s))]
        used = {n.name for e in exprs for n in walk(abbreviate(e, self.names)) if isinstance(n, VarNode)}
        return [
            (VarNode(d.name, () if d.index is None else (d.index,)), abbreviate(d.expr, self.names[:k]))
            for k, d in enumerate(self.names)
            if d.name in used
        ]

    # -------------------------------------------------------------- terminal

    @within_budget("printing its derivation")
    def __str__(self) -> str:
        parts = [self.formula]
        for left, right in self.where():
            parts.append(f"where {to_text(left)} = {to_text(right)}")
        for section in self.sections:
            parts += ["", section.title, *_text_lines(section, self.names)]
        for title, lines in self.raw:
            parts += ["", title, *(f"  {line.text}" for line in lines)]
        return "\n".join(parts)

    # -------------------------------------------------------------- LaTeX

    @within_budget("printing its derivation")
    def latex(self) -> str:
        """Return the derivation as LaTeX: one align* environment a section."""
        parts = [r"\begin{align*}", f"{to_latex(self.left)} &= {to_latex(self.right, self.names)}"]
        for left, right in self.where():
            parts[-1] += r" \\"
            parts.append(f"{to_latex(left)} &= {to_latex(right)}")
        parts.append(r"\end{align*}")
        for section in self.sections:
            parts += [rf"\paragraph{{{section.title}}}", *_latex_lines(section, self.names)]
        for title, lines in self.raw:
            parts += [rf"\paragraph{{{title}}}", r"\begin{align*}"]
            parts.append(" \\\\\n".join(line.latex for line in lines))
            parts.append(r"\end{align*}")
        return "\n".join(parts)

    def _repr_latex_(self) -> str:
        gradient = self.sections[0]
        left, last = to_latex(gradient.lhs), to_latex(gradient.lines[-1].expr, self.names)
        return rf"$\displaystyle {to_latex(self.left)} = {to_latex(self.right, self.names)}, \qquad {left} = {last}$"

    # -------------------------------------------------------------- HTML

    @within_budget("printing its derivation")
    def html(self) -> str:
        """Return the derivation as an HTML fragment with MathML; it needs no script."""
        rows = [_row(to_mathml(self.left, display=True), to_mathml(self.right, self.names, display=True))]
        rows += [_row(to_mathml(a, display=True), to_mathml(b, display=True), "where") for a, b in self.where()]
        parts = [_table(rows)]
        for section in self.sections:
            parts.append(f"<h4>{escape(section.title)}</h4>{_html_section(section, self.names)}")
        for title, lines in self.raw:
            body = "".join(f"<div>{mathml_document([line.mathml])}</div>" for line in lines)
            parts.append(f"<h4>{escape(title)}</h4>{body}")
        return f'<div class="lossmith-derivation">{"".join(parts)}</div>'

    def _repr_html_(self) -> str:
        return self.html()


@within_budget("deriving it")
def derive(formula: Formula) -> Derivation:
    """Derive a loss: gradient, Hessian, batch form and linear model."""
    names = display_names(formula)
    sections = derive_sections(formula)
    gradient = sections[0]
    raw = (
        ("Batch of N samples", batch_lines(formula, gradient, names)),
        ("Linear model, scores S = X W + b, with L2 penalty", linear_lines(formula)),
    )
    several = len(formula.of_role("scores")) > 1
    return Derivation(formula.name, LOSS, formula.expr, names, sections, () if several else raw)


@within_budget("deriving it")
def derive_function(formula: Formula, spelled: Expr) -> Derivation:
    """Derive the Jacobian of a vector function from its definition spelled out."""
    section = jacobian_section(formula, spelled)
    left = VarNode("f", () if formula.output is None else (formula.output,))
    return Derivation(formula.name, left, spelled, display_names(formula), (section,))


def _expressions(section: Section) -> list[Expr]:
    return [*(line.expr for line in section.lines), *(c.expr for c in section.cases)]


def _distinct(section: Section, names: tuple[Definition, ...]) -> list[tuple[Expr, str]]:
    """Leave out the lines that print like the one before; their reasons go to it."""
    found: list[tuple[Expr, str]] = []
    before = ""
    for line in section.lines:
        shown = to_text(line.expr, names)
        if shown != before:
            found.append((line.expr, line.reason))
        before = shown
    return found


def _text_lines(section: Section, names: tuple[Definition, ...]) -> list[str]:
    lhs = to_text(section.lhs)
    lines = [f"  with {d.name} = {to_text(d.expr, names)}" for d in section.names]
    names = (*names, *section.names)
    for k, (expr, reason) in enumerate(_distinct(section, names)):
        left = lhs if k == 0 else " " * len(lhs)
        shown = f"  {left} = {to_text(expr, names)}"
        if reason and len(shown) > _WIDTH:
            lines += [shown, f"{'':<{_WIDTH}}  [{reason}]"]
        else:
            lines.append(f"{shown:<{_WIDTH}}  [{reason}]" if reason else shown)
    for case in section.cases:
        lines.append(f"  {_condition_text(case.condition, names)}:  {to_text(case.expr, names)}")
    if section.remark:
        lines.append(f"  {section.remark}")
    return lines


def _condition_text(cond: Expr, names: tuple[Definition, ...]) -> str:
    """Return the condition of a case without the indicator around it: j = y."""
    inside = to_text(cond, names).removeprefix("1{").removesuffix("}")
    return inside.replace("=", " = ").replace("≠", " ≠ ").replace("  ", " ")


def _latex_lines(section: Section, names: tuple[Definition, ...]) -> list[str]:
    rows = [f"{d.name} &= {to_latex(d.expr, names)}" for d in section.names]
    names = (*names, *section.names)
    for k, (expr, reason) in enumerate(_distinct(section, names)):
        left = to_latex(section.lhs) if k == 0 else ""
        note = rf" && \text{{{_latex_text(reason)}}}" if reason else ""
        rows.append(f"{left} &= {to_latex(expr, names)}{note}")
    for case in section.cases:
        cond = _latex_text(_condition_text(case.condition, names))
        rows.append(rf"\text{{{cond}:}}\quad & {to_latex(case.expr, names)}")
    return [r"\begin{align*}", " \\\\\n".join(rows), r"\end{align*}"]


_IN_TEXT = {"∂": r"$\partial$", "Σ": r"$\sum$", "σ": r"$\sigma$", "−": "$-$", "≠": r"$\neq$", "_": r"\_", "≥": r"$\ge$"}


def _latex_text(reason: str) -> str:
    reason = reason.replace("{", r"\{").replace("}", r"\}")
    return "".join(_IN_TEXT.get(c, c) for c in reason)


def _html_section(section: Section, names: tuple[Definition, ...]) -> str:
    rows = [
        _row(to_mathml(VarNode(d.name, ()), display=True), to_mathml(d.expr, names, display=True), "for short")
        for d in section.names
    ]
    names = (*names, *section.names)
    for k, (expr, reason) in enumerate(_distinct(section, names)):
        left = to_mathml(section.lhs, display=True) if k == 0 else ""
        rows.append(_row(left, to_mathml(expr, names, display=True), reason))
    for case in section.cases:
        cond = f"<mtext>{escape(_condition_text(case.condition, names))}:</mtext>"
        rows.append(_row(cond, to_mathml(case.expr, names, display=True), "", sign=""))
    remark = f"<p><small>{escape(section.remark)}</small></p>" if section.remark else ""
    return _table(rows) + remark


def _row(left: str, right: str, reason: str = "", sign: str = "=") -> str:
    def math(inside: str) -> str:
        return f'<math xmlns="http://www.w3.org/1998/Math/MathML">{inside}</math>' if inside else ""

    style = 'style="text-align:{};padding:0.25em 0.35em;border:0"'
    return (
        f"<tr><td {style.format('right')}>{math(left)}</td>"
        f"<td {style.format('left')}>{math(operator(sign) if sign else '')}{math(right)}</td>"
        f"<td {style.format('left')}><small>{escape(reason)}</small></td></tr>"
    )


def _table(rows: list[str]) -> str:
    return f'<table style="border-collapse:collapse;border:0">{"".join(rows)}</table>'
