"""What can be written in a loss, first part: functions that work entry by entry.

One function each, entered into OPERATIONS under its NumPy name. The elementary ones come from the
table of elementary.py; the others are spelled out in terms of those.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import ONE, ZERO
from lossmith.language.traced import (
    AXES,
    OPERATIONS,
    Traced,
    as_index,
    class_number,
    entrywise,
    lift,
    operation,
)

HALF = build.const(Fraction(1, 2))

# ------------------------------------------------------------------ entry by entry


def _enter_elementary(name: str) -> None:
    if FUNCTIONS[name].arity == 1:

        def unary(x: Any, /) -> Traced:
            return entrywise(lambda a: build.call(name, a), x)

        OPERATIONS[name] = unary
    else:

        def binary(a: Any, b: Any, /) -> Traced:
            return entrywise(lambda a, b: build.call(name, a, b), a, b)

        OPERATIONS[name] = binary


for _name in FUNCTIONS:
    if _name != "scaled":  # what stabilisation writes, not people
        _enter_elementary(_name)
for _alias, _name in {
    "absolute": "abs", "fabs": "abs", "fmax": "maximum", "fmin": "minimum",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
}.items():  # fmt: skip
    OPERATIONS[_alias] = OPERATIONS[_name]


@operation("add")
def add(a: Any, b: Any, /) -> Traced:
    return entrywise(build.add, a, b)


@operation("subtract")
def subtract(a: Any, b: Any, /) -> Traced:
    return entrywise(build.sub, a, b)


@operation("multiply")
def multiply(a: Any, b: Any, /) -> Traced:
    return entrywise(build.mul, a, b)


@operation("divide", "true_divide")
def divide(a: Any, b: Any, /) -> Traced:
    if lift(b).expr is ZERO:
        raise ZeroDivisionError
    return entrywise(build.div, a, b)


@operation("power", "pow", "float_power")
def power(a: Any, b: Any, /) -> Traced:
    return entrywise(build.power, a, b)


@operation("negative")
def negative(x: Any, /) -> Traced:
    return entrywise(build.neg, x)


@operation("positive")
def positive(x: Any, /) -> Traced:
    return lift(x)


@operation("square")
def square(x: Any, /) -> Traced:
    return power(x, 2)


@operation("sqrt")
def sqrt(x: Any, /) -> Traced:
    return entrywise(lambda a: build.power(a, HALF), x)


@operation("reciprocal")
def reciprocal(x: Any, /) -> Traced:
    return divide(1, x)


@operation("exp2")
def exp2(x: Any, /) -> Traced:
    return power(2, x)


@operation("log2")
def log2(x: Any, /) -> Traced:
    return _log_to_base(2, x)


@operation("log10")
def log10(x: Any, /) -> Traced:
    return _log_to_base(10, x)


def _log_to_base(base: int, x: Any) -> Traced:
    log = build.call("log", build.const(base))
    return entrywise(lambda a: build.div(build.call("log", a), log), x)


@operation("logaddexp")
def logaddexp(a: Any, b: Any, /) -> Traced:
    return entrywise(lambda a, b: build.add(a, build.call("softplus", build.sub(b, a))), a, b)


@operation("clip")
def clip(x: Any, /, min: Any = None, max: Any = None) -> Traced:
    x = lift(x)
    if min is not None:
        x = OPERATIONS["maximum"](x, min)
    return x if max is None else OPERATIONS["minimum"](x, max)


# ------------------------------------------------------------------ conditions


def _enter_comparison(name: str, op: str) -> None:
    def comparison(a: Any, b: Any, /) -> Traced:
        return entrywise(lambda a, b: build.compare(op, a, b), a, b)

    OPERATIONS[name] = comparison


for _name, _op in {
    "greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<=",
    "equal": "==", "not_equal": "!=",
}.items():  # fmt: skip
    _enter_comparison(_name, _op)


_PARENTHESES = "comparisons need parentheses of their own beside & and |: (a > 0) & (b > 0)"


def condition(value: Any, where: str, hint: str | None = None) -> Traced:
    """Return a value that is 0 or 1; refuse any other."""
    found = lift(value)
    if not build.is_indicator(found.expr):
        raise FormulaError(
            f"{where} a condition, such as s > 0 or classes != y",
            hint=hint,
        )
    return found


@operation("logical_and", "bitwise_and")
def logical_and(a: Any, b: Any, /) -> Traced:
    return entrywise(build.mul, condition(a, "& needs", _PARENTHESES), condition(b, "& needs", _PARENTHESES))


@operation("logical_or", "bitwise_or")
def logical_or(a: Any, b: Any, /) -> Traced:
    return logical_not(
        logical_and(
            logical_not(condition(a, "| needs", _PARENTHESES)),
            logical_not(condition(b, "| needs", _PARENTHESES)),
        )
    )


@operation("logical_not", "invert", "bitwise_not")
def logical_not(x: Any, /) -> Traced:
    return entrywise(build.not_, condition(x, "~ needs", _PARENTHESES))


@operation("where")
def where(cond: Any, a: Any, b: Any, /) -> Traced:
    return entrywise(build.where, condition(cond, "where needs, as its first argument,"), a, b)


@operation("heaviside")
def heaviside(x: Any, at_zero: Any, /) -> Traced:
    return where(OPERATIONS["equal"](x, 0), at_zero, OPERATIONS["greater"](x, 0))


@operation("ones_like")
def ones_like(x: Any, /) -> Traced:
    return Traced(ONE, lift(x).full)


@operation("zeros_like")
def zeros_like(x: Any, /) -> Traced:
    return Traced(ZERO, lift(x).full)


@operation("full_like")
def full_like(x: Any, value: Any, /) -> Traced:
    return add(zeros_like(x), value)


# ------------------------------------------------------------------ lossmith's own


@operation("log_sigmoid")
def log_sigmoid(x: Any, /) -> Traced:
    return negative(OPERATIONS["softplus"](negative(x)))


@operation("relu")
def relu(x: Any, /) -> Traced:
    return OPERATIONS["maximum"](x, 0)


@operation("leaky_relu")
def leaky_relu(x: Any, /, slope: Any = 0.01) -> Traced:
    return where(OPERATIONS["greater"](x, 0), x, multiply(slope, x))


@operation("silu")
def silu(x: Any, /) -> Traced:
    return multiply(x, OPERATIONS["sigmoid"](x))


@operation("classes")
def classes(like: Any = None, /) -> Traced:
    """Return the row 0, 1, …, K−1; the argument only says where K comes from."""
    del like
    return Traced(class_number(AXES[0]), (True,))


@operation("onehot")
def onehot(y: Any, like: Any = None, /) -> Traced:
    """Return the row with 1 at the label and 0 elsewhere; `like` only says where K comes from."""
    del like
    label = lift(y)
    if label.full:
        raise FormulaError("onehot takes a single label")
    return Traced(build.delta(AXES[0], as_index(label)), (True,))
