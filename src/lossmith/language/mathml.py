"""Expressions as MathML Core, which browsers show without a library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

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

_APPLY = "\N{FUNCTION APPLICATION}"
_TIMES = "\N{INVISIBLE TIMES}"
_COMMA = "\N{INVISIBLE SEPARATOR}"
_ONE = "<mn>\N{MATHEMATICAL BOLD DIGIT ONE}</mn>"
_PARTIAL = "<mi>∂</mi>"
_OPERATORS = {"Σ": "∑", "argmax": "arg max", "argmin": "arg min"}


def to_mathml(expr: Expr, names: Sequence[Definition] = (), display: bool = False) -> str:
    """Return an expression as a MathML <mrow>, to stand inside <math>.

    Parameters
    ----------
    expr : Expr
        The expression.
    names : sequence of Definition
        Sub-expressions that print as their names.
    display : bool
        Whether sums and fractions take the room they have on a line of their own.

    Returns
    -------
    str
        Well-formed XML, all of it MathML Core.
    """
    attribute = ' displaystyle="true"' if display else ""
    return f"<mrow{attribute}>{spell(layout_of(expr, names))}</mrow>"


def mathml_document(rows: Sequence[str | Sequence[str]]) -> str:
    """Return a block <math> with one line a row.

    Parameters
    ----------
    rows : sequence of str or of sequences of str
        A row is one MathML string, or its cells: left side, relation, right side. Cells stand
        below each other, the first aligned to its right end, the last to its left.

    Returns
    -------
    str
        A <math display="block"> element.
    """
    cells = [(row,) if isinstance(row, str) else tuple(row) for row in rows]
    if len(cells) == 1:
        return _math("".join(cells[0]))
    table = "".join(f"<mtr>{_row(row)}</mtr>" for row in cells)
    return _math(f'<mtable displaystyle="true">{table}</mtable>')


def operator(sign: str) -> str:
    """Return a sign such as = as a MathML operator."""
    return f"<mo>{escape(sign)}</mo>"


def _math(inside: str) -> str:
    return f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">{inside}</math>'


def _row(row: tuple[str, ...]) -> str:
    shown = ""
    for n, cell in enumerate(row):
        side = "left" if n == len(row) - 1 else "right" if n == 0 else "center"
        shown += f'<mtd style="text-align: {side}; padding: 0.35em 0.15em">{cell}</mtd>'
    return shown


def spell(layout: Layout) -> str:
    """Return a layout as one or several MathML elements."""
    match layout:
        case Symbol(text):
            return _symbol(text)
        case Numeral(digits, exponent):
            shown = f"<mn>{digits}</mn>"
            if exponent is None:
                return shown
            sign = "<mo>−</mo>" if exponent < 0 else ""
            raised = f"<mrow>{sign}<mn>{abs(exponent)}</mn></mrow>"
            return f"{shown}<mo>×</mo><msup><mn>10</mn>{raised}</msup>"
        case Subscripted(base, indices):
            return f"<msub>{_one(base)}{_indices(indices)}</msub>"
        case Power(Subscripted(base, indices), exponent):
            return f"<msubsup>{_one(base)}{_indices(indices)}{_one(exponent)}</msubsup>"
        case Power(base, exponent):
            return f"<msup>{_one(base)}{_one(exponent)}</msup>"
        case Root(body):
            return f"<msqrt>{spell(body)}</msqrt>"
        case Fraction(top, bottom):
            return f"<mfrac>{_one(top)}{_one(bottom)}</mfrac>"
        case Product():
            return _product(layout)
        case Sum():
            return _sum(layout)
        case BigOperator():
            return _big_operator(layout)
        case Application():
            return _application(layout)
        case Bars(body):
            return _between("|", spell(body), "|")
        case Fenced(body, where):
            return spell(body) if where == "linear" else _between("(", spell(body), ")")
        case Relation(sign, left, right):
            return f"{spell(left)}{operator(sign)}{spell(right)}"
        case Listing(items, separator):
            return _listing(items, separator)
        case Indicator(condition):
            return f"<mrow>{_ONE}{_between('{', spell(condition), '}')}</mrow>"
        case Cases():
            return _cases(layout)
        case Differential():
            return _differential(layout)


def _one(layout: Layout) -> str:
    """Return a layout as exactly one element."""
    shown = spell(layout)
    alone = isinstance(layout, Symbol | Subscripted | Power | Fraction | Root | Fenced | Bars)
    alone = alone or (isinstance(layout, Numeral) and layout.exponent is None)
    if isinstance(layout, Fenced) and layout.where == "linear":
        return _one(layout.body)
    return shown if alone else f"<mrow>{shown}</mrow>"


def _symbol(text: str) -> str:
    upright = ' mathvariant="normal"' if text in _UPRIGHT else ""
    return f"<mi{upright}>{escape(text)}</mi>"


_UPRIGHT = frozenset("ΓΔΘΛΞΠΣΦΨΩ")  # as in LaTeX; names of several letters are upright anyway


def _indices(indices: tuple[Layout, ...]) -> str:
    if len(indices) == 1:
        return _one(indices[0])
    between = f"<mo>{_COMMA}</mo>"
    if not all(isinstance(i, Symbol) and not i.upright for i in indices):
        between = "<mo>,</mo>"
    return f"<mrow>{between.join(spell(i) for i in indices)}</mrow>"


def _between(left: str, inside: str, right: str) -> str:
    opening = f'<mo form="prefix" fence="true" stretchy="true">{left}</mo>'
    closing = f'<mo form="postfix" fence="true" stretchy="true">{right}</mo>'
    return f"<mrow>{opening}{inside}{closing}</mrow>"


def _product(product: Product) -> str:
    shown = spell(product.factors[0])
    for factor, dot in zip(product.factors[1:], product.dots, strict=True):
        shown += f"<mo>{'⋅' if dot else _TIMES}</mo>{spell(factor)}"
    return f"<mrow>{shown}</mrow>"


def _sum(sum_: Sum) -> str:
    (negative, first), *rest = sum_.terms
    shown = ('<mo form="prefix">−</mo>' if negative else "") + spell(first)
    for negative, term in rest:
        shown += f"<mo>{'−' if negative else '+'}</mo>{spell(term)}"
    return shown


def _big_operator(big: BigOperator) -> str:
    symbol = _OPERATORS.get(big.symbol, big.symbol)
    sign = f'<mo movablelimits="true">{symbol}</mo>'
    if symbol != "∑":
        sign = f'<mo movablelimits="true" lspace="0.17em" rspace="0.17em">{symbol}</mo>'
    return f"<mrow><munder>{sign}{_one(big.under)}</munder>{spell(big.body)}</mrow>"


def _application(application: Application) -> str:
    between = "<mo>,</mo>"
    inside = between.join(spell(a) for a in application.args)
    function = f"{_one(application.function)}<mo>{_APPLY}</mo>"
    if application.bare:
        return f'<mrow>{function}<mspace width="0.17em"/>{inside}</mrow>'
    return f"<mrow>{function}{_between('(', inside, ')')}</mrow>"


def _listing(items: tuple[Layout, ...], separator: str) -> str:
    if separator in (",", ":"):
        between = f"<mo>{separator}</mo>"
    else:
        between = f"<mtext>\N{NO-BREAK SPACE}{separator}\N{NO-BREAK SPACE}</mtext>"
    return between.join(spell(i) for i in items)


def _cases(cases: Cases) -> str:
    rows = [_case(spell(value), f"<mtext>if\N{NO-BREAK SPACE}</mtext>{spell(cond)}") for value, cond in cases.branches]
    rows.append(_case(spell(cases.otherwise), "<mtext>otherwise</mtext>"))
    brace = '<mo form="prefix" fence="true" stretchy="true">{</mo>'
    return f"<mrow>{brace}<mtable>{''.join(rows)}</mtable></mrow>"


def _case(value: str, condition: str) -> str:
    left = '<mtd style="text-align: left; padding-right: 1em">'
    return f'<mtr>{left}{value}</mtd><mtd style="text-align: left">{condition}</mtd></mtr>'


def _differential(d: Differential) -> str:
    order = _PARTIAL if d.order == 1 else f"<msup>{_PARTIAL}<mn>{d.order}</mn></msup>"
    below = "".join(f"{_PARTIAL}{_variable(x, n)}" for x, n in d.by)
    if d.on_top:
        return f"<mfrac><mrow>{order}{spell(d.body)}</mrow><mrow>{below}</mrow></mfrac>"
    fraction = f"<mfrac><mrow>{order}</mrow><mrow>{below}</mrow></mfrac>"
    return f"<mrow>{fraction}{_between('[', spell(d.body), ']')}</mrow>"


def _variable(variable: Layout, times: int) -> str:
    if times == 1:
        return spell(variable)
    return spell(Power(variable, Numeral(str(times))))
