"""How large an expression may become while it is read.

A formula of this size fills pages. The limits keep reading fast and every later pass out of
trouble: passes recurse as deep as the expression, and opening nested binders costs a factor for
each of them.
"""

from __future__ import annotations

from fractions import Fraction
from weakref import WeakKeyDictionary

from lossmith.errors import FormulaError
from lossmith.language.expr import Const, Expr, Node, Pow, children

MAX_AXES = 3
MAX_SIZE = 20_000
MAX_DEPTH = 100
MAX_NESTING = 5
MAX_BITS = 1024  # what fits into a float64
MAX_EXPONENT = 1000

_DEPTHS: WeakKeyDictionary[Node, int] = WeakKeyDictionary()


def check_size(expr: Expr) -> None:
    """Refuse an expression that is too long, too deep, or holds numbers that are too large."""
    if expr.size > MAX_SIZE:
        raise FormulaError(f"the loss is too long: more than {MAX_SIZE} terms and factors")
    check_nesting(expr.height)
    if _depth(expr) > MAX_DEPTH:
        raise FormulaError(f"the loss is nested too deeply: more than {MAX_DEPTH} levels")
    for node in (expr, *children(expr)):  # what is below was checked before
        match node:
            case Const(value):
                _check_number(value)
            case Pow(exponent=Const(value)) if abs(value) > MAX_EXPONENT:
                raise FormulaError(f"an exponent beyond {MAX_EXPONENT}")
            case _:
                pass


def check_nesting(height: int) -> None:
    """Refuse binders nested to this height: best before building them, which is what takes time."""
    if height > MAX_NESTING:
        raise FormulaError(f"more than {MAX_NESTING} sums or maxima stand inside each other")


def check_axes(count: int) -> None:
    """Refuse a value with more axes than there are indices for."""
    if count > MAX_AXES:
        raise FormulaError(
            f"a value with {count} axes: {MAX_AXES} at most are supported",
            hint="pairs of classes need two, as in s[:, None] - s",
        )


def _check_number(value: int | Fraction | float) -> None:
    if value != value:
        raise FormulaError("the numbers in the loss give something undefined, such as inf − inf")
    if isinstance(value, int | Fraction):
        ratio = value.as_integer_ratio()
        if max(part.bit_length() for part in ratio) > MAX_BITS:
            raise FormulaError("a number in the loss is too large")


def _depth(node: Node) -> int:
    """Return the height of the tree; each node is measured once."""
    known = _DEPTHS.get(node)
    if known is None:
        known = _DEPTHS[node] = 1 + max((_depth(c) for c in children(node)), default=0)
    return known
