r"""Expressions as LaTeX, for mathematics mode."""

from __future__ import annotations

from collections.abc import Sequence

from lossmith.language.expr import Expr
from lossmith.language.formula import Definition
from lossmith.language.layout import (
    Application,
    Bars,
    BigOperator,
    Cases,
    Differential,
    Fenced,
    Fraction,
    Indicator,
    Layout,
    Listing,
    Numeral,
    Power,
    Product,
    Relation,
    Root,
    Subscripted,
    Sum,
    Symbol,
)
from lossmith.language.notation import layout_of

_LETTERS = {
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon",
    "ζ": r"\zeta", "η": r"\eta", "θ": r"\theta", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu",
    "ν": r"\nu", "ξ": r"\xi", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "τ": r"\tau",
    "φ": r"\varphi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega", "Γ": r"\Gamma", "Δ": r"\Delta",
    "Θ": r"\Theta", "Λ": r"\Lambda", "Π": r"\Pi", "Φ": r"\Phi", "Ψ": r"\Psi", "Ω": r"\Omega",
    "Σ": r"\Sigma",
}  # fmt: skip
_OPERATORS = {
    "Σ": r"\sum", "max": r"\max", "min": r"\min",
    "argmax": r"\operatorname*{arg\,max}", "argmin": r"\operatorname*{arg\,min}",
}  # fmt: skip
_OWN_COMMAND = frozenset({
    "log", "exp", "max", "min", "sin", "cos", "tan", "sinh", "cosh", "tanh",
    "arcsin", "arccos", "arctan",
})  # fmt: skip
_SIGNS = {"=": "=", "≠": r"\neq", ">": ">", "<": "<", "≥": r"\geq", "≤": r"\leq"}
_ESCAPES = str.maketrans({c: "\\" + c for c in "_#$%&{}"})


def to_latex(expr: Expr, names: Sequence[Definition] = ()) -> str:
    r"""Return an expression as LaTeX, such as p_j - \mathbf{1}\{j=y\}.

    Parameters
    ----------
    expr : Expr
        The expression.
    names : sequence of Definition
        Sub-expressions that print as their names.

    Returns
    -------
    str
        LaTeX without the dollar signs. It needs the amsmath package, as every notebook has it.
    """
    return spell(layout_of(expr, names))


def spell(layout: Layout) -> str:
    """Return a layout as LaTeX."""
    match layout:
        case Symbol(text):
            return _symbol(text)
        case Numeral(digits, exponent):
            shown = r"\infty" if digits == "∞" else digits
            return shown if exponent is None else rf"{shown} \times 10^{{{exponent}}}"
        case Subscripted(base, indices):
            return f"{spell(base)}_{_group(_indices(indices))}"
        case Power(base, exponent):
            return f"{spell(base)}^{_group(spell(exponent))}"
        case Root(body):
            return rf"\sqrt{{{spell(body)}}}"
        case Fraction(top, bottom):
            return rf"\frac{{{spell(top)}}}{{{spell(bottom)}}}"
        case Product():
            return _product(layout)
        case Sum():
            return _sum(layout)
        case BigOperator(symbol, under, body):
            return f"{_OPERATORS[symbol]}_{_group(spell(under))} {spell(body)}"
        case Application():
            return _application(layout)
        case Bars(body):
            return _between(r"\lvert ", body, r" \rvert")
        case Fenced(body, where):
            return spell(body) if where == "linear" else _between("(", body, ")")
        case Relation(sign, left, right, tight):
            space = "" if tight and not _SIGNS[sign].startswith("\\") else " "
            return f"{spell(left)}{space}{_SIGNS[sign]}{space}{spell(right)}"
        case Listing(items, separator):
            return _listing(items, separator)
        case Indicator(condition):
            return r"\mathbf{1}" + _between(r"\{", condition, r"\}")
        case Cases():
            return _cases(layout)
        case Differential():
            return _differential(layout)


def _symbol(text: str) -> str:
    if text in _LETTERS:
        return _LETTERS[text]
    if len(text) == 1:
        return text
    return rf"\mathrm{{{text.translate(_ESCAPES)}}}"


def _group(text: str) -> str:
    """Return `text` in braces, unless it is one character."""
    return text if len(text) == 1 else f"{{{text}}}"


def _indices(indices: tuple[Layout, ...]) -> str:
    shown = [spell(i) for i in indices]
    return "".join(shown) if all(len(s) == 1 for s in shown) else ", ".join(shown)


def _is_tall(layout: Layout) -> bool:
    """Whether parentheses around `layout` have to grow."""
    match layout:
        case Fraction() | BigOperator() | Cases() | Differential() | Root():
            return True
        case Product(parts) | Listing(parts):
            return any(_is_tall(p) for p in parts)
        case Sum(terms):
            return any(_is_tall(t) for _, t in terms)
        case Application(_, args):
            return any(_is_tall(a) for a in args)
        case Subscripted(body) | Power(body) | Fenced(body) | Bars(body) | Indicator(body):
            return _is_tall(body)
        case Relation(_, left, right):
            return _is_tall(left) or _is_tall(right)
        case _:
            return False


def _between(left: str, body: Layout, right: str) -> str:
    if _is_tall(body):
        return rf"\left{left.strip()} {spell(body)} \right{right.strip()}"
    return f"{left}{spell(body)}{right}"


def _function(function: Layout) -> str:
    if isinstance(function, Subscripted):
        return f"{_function(function.base)}_{_group(_indices(function.indices))}"
    assert isinstance(function, Symbol)
    name = function.text
    if name == "σ":
        return r"\sigma"
    return f"\\{name}" if name in _OWN_COMMAND else rf"\operatorname{{{name}}}"


def _application(application: Application) -> str:
    function, args = _function(application.function), application.args
    if application.bare:
        return f"{function} {spell(args[0])}"
    if any(_is_tall(a) for a in args):
        inside = ", ".join(spell(a) for a in args)
        return rf"{function}\left( {inside} \right)"
    return f"{function}({', '.join(spell(a) for a in args)})"


def _product(product: Product) -> str:
    shown = spell(product.factors[0])
    before = product.factors[0]
    for factor, dot in zip(product.factors[1:], product.dots, strict=True):
        if dot:
            between = r" \cdot "
        elif isinstance(before, Numeral) or isinstance(factor, Fenced | BigOperator | Application):
            between = " "
        else:
            between = r" \, "
        shown += between + spell(factor)
        before = factor
    return shown


def _sum(sum_: Sum) -> str:
    (negative, first), *rest = sum_.terms
    shown = ("-" if negative else "") + spell(first)
    for negative, term in rest:
        shown += (" - " if negative else " + ") + spell(term)
    return shown


def _listing(items: tuple[Layout, ...], separator: str) -> str:
    between = {
        ",": r",\, ", ":": r" \,:\, ",
        "and": r" \text{ and } ", "or": r" \text{ or } ",
    }[separator]  # fmt: skip
    return between.join(spell(i) for i in items)


def _cases(cases: Cases) -> str:
    rows = [rf"{spell(value)} & \text{{if }} {spell(cond)}" for value, cond in cases.branches]
    rows.append(rf"{spell(cases.otherwise)} & \text{{otherwise}}")
    return r"\begin{cases} " + r" \\ ".join(rows) + r" \end{cases}"


def _differential(d: Differential) -> str:
    order = r"\partial" if d.order == 1 else rf"\partial^{d.order}"
    below = r" \, ".join(_variable(x, n) for x, n in d.by)
    if d.on_top:
        return rf"\frac{{{order} {spell(d.body)}}}{{{below}}}"
    return rf"\frac{{{order}}}{{{below}}} {_between('[', d.body, ']')}"


def _variable(variable: Layout, times: int) -> str:
    return rf"\partial {spell(variable)}" + (f"^{_group(str(times))}" if times > 1 else "")
