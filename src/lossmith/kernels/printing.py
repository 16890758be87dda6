"""How values are written as Python: the operators and their precedence, the same for NumPy and for loops."""

from __future__ import annotations

from fractions import Fraction
from math import inf, isinf, isnan

from lossmith.kernels.rowprogram import LETTERS, Number, Op, Value

ATOM, POWER, UNARY, TIMES, PLUS, AND, OR, COMPARE, NOT = 9, 8, 7, 6, 5, 4, 3, 2, 1

INFIX = {
    "add": (" + ", PLUS), "sub": (" - ", PLUS), "mul": (" * ", TIMES), "div": (" / ", TIMES), "over": (" / ", TIMES),
    "and": (" & ", AND), "or": (" | ", OR), ">": (" > ", COMPARE), ">=": (" >= ", COMPARE), "==": (" == ", COMPARE),
    "int>": (" > ", COMPARE), "int>=": (" >= ", COMPARE), "int==": (" == ", COMPARE),
}  # fmt: skip

NUMPY_CALLS = {
    "exp", "log", "log1p", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan",
    "arcsinh", "arccosh", "arctanh", "sqrt", "abs", "sign", "maximum", "minimum",
}  # fmt: skip


NUMPY_NAMES = frozenset(
    ["np", "K", "rows", "classes", "given", "dtype", "len",
     "peak", "peak_where", "gap", "scaled", "sigmoid", "softplus", "log_cosh"]
)  # fmt: skip
NUMBA_NAMES = frozenset(
    ["np", "njit", "kernel", "F", "U", "N", "K", "T", "R", "S", "i", "r", "w", "factor", "scale", "weight", "first",
     "block", "equal", "tile", "tally", "values", "factors", "range", "min", "max", "abs", *LETTERS, "add_reassoc",
     "select", "exp", "log", "log1p", "expm1", "tanh", "sigmoid", "softplus", "log_cosh", "power", "maximum", "minimum",
     "first_where", "exp_gap",
     "exp_nonpositive", "left", "stop", "live", "k_lanes", "add_lanes", "as_floats", "first_lanes", "load", "load_some",
     "max_lanes", "min_lanes", "places", "spread", "store", "store_some", "stream", "drain",
     "add_rows", "max_rows", "min_rows", "chosen", "begin", "rows_in", "rows_out", "will_read", "will_write",
     "square_root", "rejected", "sure", "has_nan", "all_within", "nothing_seen",
     "seen", "seen_within"]
)  # fmt: skip
"""Names that the code around the values uses. Arguments of a loss that are called so go by another name there."""


_EXACT = 2**53
"""Up to here a float64 holds every integer."""


def number_text(value: int | Fraction | float) -> str:
    """Return a number as Python reads it back."""
    if isinstance(value, Fraction) or (isinstance(value, int) and abs(value) > _EXACT):  # Numba has integers of 64 bits
        try:
            value = value.numerator / value.denominator
        except OverflowError:
            value = inf if value > 0 else -inf
    if isinstance(value, float) and isnan(value):
        return "np.nan"
    if isinstance(value, float) and isinf(value):
        return "np.inf" if value > 0 else "-np.inf"
    return repr(value)


class Printer:
    """Writes values. A subclass says what leaves look like, and operations that are no operators."""

    def text(self, value: Value, above: int = 0) -> str:
        """Return a value as text, in parentheses if its operator binds weaker than `above`."""
        text, precedence = self.parts(value)
        return f"({text})" if precedence < above else text

    def parts(self, value: Value) -> tuple[str, int]:
        """Return the text of a value and the precedence of its outermost operator."""
        if not isinstance(value, Op):
            return self.leaf(value)
        op, args = value.op, value.args
        if op in INFIX:
            sign, precedence = INFIX[op]
            # Floating-point sums and products are not associative: the right operand keeps its parentheses.
            left = precedence + (precedence == COMPARE)
            return f"{self.text(args[0], left)}{sign}{self.text(args[1], precedence + 1)}", precedence
        if op == "neg":
            return f"-{self.text(args[0], UNARY)}", UNARY
        if op == "not" and isinstance(args[0], Op) and args[0].op in ("==", "int=="):
            a, b = args[0].args
            return f"{self.text(a, COMPARE + 1)} != {self.text(b, COMPARE + 1)}", COMPARE
        if op == "pow":
            return f"{self.text(args[0], ATOM)} ** {self.text(args[1], UNARY)}", POWER
        return self.call(value)

    def call(self, value: Op) -> tuple[str, int]:
        """Write an operation that is no operator."""
        raise NotImplementedError(value.op)

    def leaf(self, value: Value) -> tuple[str, int]:
        """Write what is no operation."""
        if isinstance(value, Number):
            text = number_text(value.value)
            return text, UNARY if text.startswith("-") else ATOM
        raise NotImplementedError(value)
