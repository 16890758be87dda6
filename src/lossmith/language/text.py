"""Expressions as one line of Unicode text for the terminal."""

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

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def to_text(expr: Expr, names: Sequence[Definition] = ()) -> str:
    """Return an expression as one line of text, such as p_j − 1{j=y}.

    Parameters
    ----------
    expr : Expr
        The expression.
    names : sequence of Definition
        Sub-expressions that print as their names.

    Returns
    -------
    str
        Text that reads the same as the LaTeX and MathML forms, fractions on the line.
    """
    return spell(layout_of(expr, names))


def spell(layout: Layout) -> str:
    """Return a layout as one line of text."""
    match layout:
        case Symbol(text):
            return text
        case Numeral(digits, exponent):
            return digits if exponent is None else f"{digits}×10{_raised(exponent)}"
        case Subscripted(base, indices):
            return spell(base) + _subscript(indices)
        case Power(base, exponent):
            return spell(base) + _superscript(exponent)
        case Root(body):
            return f"√({spell(body)})"
        case Fraction(top, bottom):
            return f"{spell(top)}/{spell(bottom)}"
        case Product():
            return _product(layout)
        case Sum():
            return _sum(layout)
        case BigOperator(symbol, under, body):
            return f"{symbol}{_subscript((under,))} {spell(body)}"
        case Application(function, args, bare):
            inside = ", ".join(spell(a) for a in args)
            return f"{spell(function)} {inside}" if bare else f"{spell(function)}({inside})"
        case Bars(body):
            inside = spell(body)
            return f"abs({inside})" if "|" in inside else f"|{inside}|"  # bars in bars could be read in two ways
        case Fenced(body, where):
            return spell(body) if where == "stacked" else f"({spell(body)})"
        case Relation(sign, left, right, tight):
            space = "" if tight else " "
            return f"{spell(left)}{space}{sign}{space}{spell(right)}"
        case Listing(items, separator):
            between = f"{separator} " if separator in (",", ":") else f" {separator} "
            return between.join(spell(i) for i in items)
        case Indicator(condition):
            return f"1{{{spell(condition)}}}"
        case Cases(branches, otherwise):
            shown = [f"{spell(value)} if {spell(cond)}" for value, cond in branches]
            return "{" + "; ".join([*shown, f"{spell(otherwise)} otherwise"]) + "}"
        case Differential():
            return _differential(layout)


def _raised(number: int) -> str:
    return str(number).translate(_SUPERSCRIPT)


def _subscript(indices: tuple[Layout, ...]) -> str:
    """Return _j, _jk, _12 or, for what is longer, _{…}."""
    if len(indices) == 1 and isinstance(indices[0], Symbol | Numeral):
        return "_" + spell(indices[0])
    shown = [spell(i) for i in indices]
    if len(shown) > 1 and all(len(s) == 1 for s in shown):
        return "_" + "".join(shown)
    return "_{" + ", ".join(shown) + "}"


def _superscript(exponent: Layout) -> str:
    if isinstance(exponent, Numeral) and exponent.digits.isdecimal():
        return exponent.digits.translate(_SUPERSCRIPT)
    return "^" + spell(exponent)


def _product(product: Product) -> str:
    shown = spell(product.factors[0])
    before = product.factors[0]
    for factor, dot in zip(product.factors[1:], product.dots, strict=True):
        text = spell(factor)
        if dot:
            shown += f" · {text}" if not isinstance(before, Numeral) else f"·{text}"
        elif isinstance(before, Numeral):
            shown += text
        else:
            shown += f" {text}"
        before = factor
    return shown


def _sum(sum_: Sum) -> str:
    (negative, first), *rest = sum_.terms
    shown = ("−" if negative else "") + spell(first)
    for negative, term in rest:
        shown += (" − " if negative else " + ") + spell(term)
    return shown


def _differential(d: Differential) -> str:
    order = "∂" if d.order == 1 else "∂" + _raised(d.order)
    below = "".join(f"∂{spell(x)}" + (_raised(n) if n > 1 else "") for x, n in d.by)
    if d.on_top:
        return f"{order}{spell(d.body)}/{below}"
    return f"{order}/{below} [{spell(d.body)}]"
