"""Layouts: what notation.py decides about the printed form, and all that a printer needs to know.

A layout says which symbols stand where and which parentheses there are. The printers (text.py,
latex.py, mathml.py) only spell it; they decide nothing. A fence that a fraction bar makes
unnecessary is marked "linear": one-line text shows it, the printers that stack fractions do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Symbol:
    """A letter or a name."""

    text: str

    @property
    def upright(self) -> bool:
        """Names of several letters stand upright, single letters slant."""
        return len(self.text) > 1


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number without a sign; with an exponent it is digits·10^exponent."""

    digits: str
    exponent: int | None = None


@dataclass(frozen=True, slots=True)
class Subscripted:
    base: Layout
    indices: tuple[Layout, ...]


@dataclass(frozen=True, slots=True)
class Power:
    base: Layout
    exponent: Layout


@dataclass(frozen=True, slots=True)
class Root:
    body: Layout


@dataclass(frozen=True, slots=True)
class Fraction:
    top: Layout
    bottom: Layout


@dataclass(frozen=True, slots=True)
class Product:
    """Factors side by side; dots[n] says whether a dot stands between factors n and n + 1."""

    factors: tuple[Layout, ...]
    dots: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Sum:
    """Terms with their signs (True for minus); one term with a minus is a negative."""

    terms: tuple[tuple[bool, Layout], ...]


@dataclass(frozen=True, slots=True)
class BigOperator:
    """Σ, max, min, argmax or argmin over what stands under it."""

    symbol: str
    under: Layout
    body: Layout


@dataclass(frozen=True, slots=True)
class Application:
    """A function with its arguments in parentheses or, bare, with one argument without."""

    function: Layout
    args: tuple[Layout, ...]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Bars:
    """An absolute value."""

    body: Layout


@dataclass(frozen=True, slots=True)
class Fenced:
    """Parentheses: always, in one-line text only, or only where cases are stacked."""

    body: Layout
    where: Literal["always", "linear", "stacked"] = "always"


@dataclass(frozen=True, slots=True)
class Relation:
    """A comparison; a tight one has no space around its sign."""

    sign: str
    left: Layout
    right: Layout
    tight: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """Layouts in a row, separated by a comma, a colon or a word."""

    items: tuple[Layout, ...]
    separator: Literal[",", ":", "and", "or"]


@dataclass(frozen=True, slots=True)
class Indicator:
    condition: Layout


@dataclass(frozen=True, slots=True)
class Cases:
    """Values with their conditions, and the value otherwise."""

    branches: tuple[tuple[Layout, Layout], ...]
    otherwise: Layout


@dataclass(frozen=True, slots=True)
class Differential:
    """The derivative of body, ∂body/∂x, or ∂/∂x [body] for a body that is not a mere symbol.

    `by` holds the variables in the order of differentiation with the number of times for each.
    """

    body: Layout
    by: tuple[tuple[Layout, int], ...]

    @property
    def order(self) -> int:
        """How many times the body is differentiated."""
        return sum(times for _, times in self.by)

    @property
    def on_top(self) -> bool:
        """Whether the body stands beside the ∂ of the numerator."""
        return isinstance(self.body, Symbol | Subscripted)


Layout: TypeAlias = (
    Symbol
    | Numeral
    | Subscripted
    | Power
    | Root
    | Fraction
    | Product
    | Sum
    | BigOperator
    | Application
    | Bars
    | Fenced
    | Relation
    | Listing
    | Indicator
    | Cases
    | Differential
)

# The precedence table: how tightly a layout holds together, from loose to tight.
ADD, MUL, POW, ATOM = range(4)


def precedence(layout: Layout) -> int:
    """Return ADD, MUL, POW or ATOM: what may stand beside `layout` without parentheses."""
    match layout:
        case Sum() | Relation() | Listing():
            return ADD
        case Product() | Fraction() | BigOperator() | Differential():
            return MUL
        case Application(bare=True):
            return MUL
        case Numeral(exponent=int()):
            return MUL
        case Power():
            return POW
        case Fenced(body, where) if where != "always":
            return precedence(body)
        case _:
            return ATOM


def open_right(layout: Layout) -> bool:
    """Whether a factor to the right of `layout` would be read as part of it, as after log x."""
    match layout:
        case BigOperator() | Application(bare=True):
            return True
        case Product(factors):
            return open_right(factors[-1])
        case Fraction(_, bottom):
            return open_right(bottom)
        case _:
            return False


def fenced(layout: Layout, at_least: int) -> Layout:
    """Return `layout`, in parentheses where it holds together less tightly than `at_least`."""
    return Fenced(layout) if precedence(layout) < at_least else layout


def fraction(top: Layout, bottom: Layout) -> Fraction:
    """Return top/bottom with the parentheses that one-line text needs."""
    if precedence(top) == ADD or open_right(top) or isinstance(top, Fraction | Differential):
        top = Fenced(top, "linear")
    if precedence(bottom) < POW and not isinstance(bottom, BigOperator):
        bottom = Fenced(bottom, "linear")
    return Fraction(top, bottom)


def product(factors: list[Layout], dotted: list[bool]) -> Layout:
    """Return the product of layouts; dotted[n] asks for a dot before factor n."""
    if len(factors) == 1:
        return factors[0]
    placed: list[Layout] = []
    for n, f in enumerate(factors):
        if precedence(f) == ADD or (open_right(f) and n < len(factors) - 1):
            f = Fenced(f)
        elif isinstance(f, Fraction):
            f = Fenced(f, "linear")
        elif isinstance(f, Cases):
            f = Fenced(f, "stacked")
        placed.append(f)
    dots = tuple(dotted[n] or _digits_meet(placed[n - 1], placed[n]) for n in range(1, len(factors)))
    return Product(tuple(placed), dots)


def _digits_meet(left: Layout, right: Layout) -> bool:
    """Whether a number would run into the digits that begin `right`."""
    if not isinstance(left, Numeral):
        return False
    while isinstance(right, Power | Subscripted):
        right = right.base
    return left.exponent is not None or isinstance(right, Numeral | Indicator)


def power(base: Layout, exponent: Layout) -> Layout:
    """Return base^exponent; functions other than σ and softmax are put in parentheses."""
    function = base.function if isinstance(base, Application) else None
    named = isinstance(function, Symbol) and function.text != "σ"
    if precedence(base) < ATOM or isinstance(base, Cases) or named:
        base = Fenced(base)
    if not isinstance(exponent, Symbol | Numeral) or precedence(exponent) < ATOM:
        exponent = Fenced(exponent, "linear")
    return Power(base, exponent)
