"""What can be written in a loss: NumPy's functions and lossmith's, on traced values.

One function each, entered into OPERATIONS under its NumPy name. The elementary ones come from the table
of elementary.py; the others are spelled out in terms of those, of sums and of maxima.
"""

from __future__ import annotations

import inspect
import math
from fractions import Fraction
from typing import Any

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import ONE, TRUE, ZERO, Expr, fresh
from lossmith.language.traced import (
    AXES,
    OPERATIONS,
    Traced,
    as_index,
    class_number,
    entrywise,
    joint,
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


def condition(value: Any, where: str) -> Traced:
    """Return a value that is 0 or 1; refuse any other."""
    found = lift(value)
    if not build.is_indicator(found.expr):
        raise FormulaError(
            f"{where} a condition, such as s > 0 or classes != y",
            hint="comparisons need parentheses of their own beside & and |: (a > 0) & (b > 0)",
        )
    return found


@operation("logical_and", "bitwise_and")
def logical_and(a: Any, b: Any, /) -> Traced:
    return entrywise(build.mul, condition(a, "& needs"), condition(b, "& needs"))


@operation("logical_or", "bitwise_or")
def logical_or(a: Any, b: Any, /) -> Traced:
    return logical_not(
        logical_and(
            logical_not(condition(a, "| needs")),
            logical_not(condition(b, "| needs")),
        )
    )


@operation("logical_not", "invert", "bitwise_not")
def logical_not(x: Any, /) -> Traced:
    return entrywise(build.not_, condition(x, "~ needs"))


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


# ------------------------------------------------------------------ over the classes


def _places(x: Traced, axis: Any, name: str) -> list[int]:
    """Return the axes that `axis` names, counted from the right, the last first."""
    if not x.ndim:
        raise FormulaError(
            f"{name} of a single number: there is nothing to run over",
            hint="maximum(a, b) and minimum(a, b) are for two numbers" if name in _EXTREMA else None,
        )
    chosen = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    places: set[int] = set()
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, int):
            raise FormulaError(
                f"the axis of {name} must be an integer",
                hint="maximum(a, b) is the larger of two" if name in _EXTREMA else None,
            )
        if not -x.ndim <= number < x.ndim:
            raise FormulaError(f"{name} over axis {number}: the value has {x.ndim} of them")
        places.add(x.ndim - 1 - number % x.ndim)
    return sorted(places)


_EXTREMA = ("max", "min")


def _without_axes(expr: Expr, full: tuple[bool, ...], places: list[int], keep: bool) -> Traced:
    """Return `expr`, in which these axes are reduced, with the others moved up to the right."""
    last = len(full) - 1
    if keep:
        return Traced(expr, tuple(f and last - i not in places for i, f in enumerate(full)))
    kept = [place for place in range(len(full)) if place not in places]
    moved = {AXES[old]: AXES[new] for new, old in enumerate(kept)}
    return Traced(build.substitute(expr, moved), tuple(full[last - p] for p in reversed(kept)))


def _reduced(op: str, x: Traced, axis: Any, cond: Any, keepdims: bool, name: str) -> Traced:
    """Return op over the axes; a condition goes to the innermost binder whose index it names."""
    places = _places(x, axis, name)
    restriction = TRUE
    if cond is not None:
        cond = condition(cond, f"where= of {name} needs")
        if joint(x, cond) != x.full:
            raise FormulaError(f"where= of {name} does not have the shape of what it selects from")
        restriction = cond.expr
    indices = [AXES[place] for place in places if x.full[x.ndim - 1 - place]]
    named_by = [i for i in indices if i in restriction.free] or indices
    if restriction is not TRUE and not indices:
        raise FormulaError(f"where= of {name} over an axis of length 1 is not supported")
    expr = x.expr
    for index in indices:
        expr = build.reduce_(op, index, expr, restriction if index is named_by[0] else TRUE)
    return _without_axes(expr, x.full, places, keepdims)


@operation("sum")
def sum_(
    x: Any, /, axis: Any = None, *, where: Any = None, keepdims: bool = False, initial: Any = 0
) -> Traced:
    return add(_reduced("sum", lift(x), axis, where, keepdims, "sum"), initial)


@operation("mean")
def mean(x: Any, /, axis: Any = None, *, where: Any = None, keepdims: bool = False) -> Traced:
    x = lift(x)
    count = _reduced("sum", Traced(ONE, x.full), axis, where, keepdims, "mean")
    return divide(_reduced("sum", x, axis, where, keepdims, "mean"), count)


@operation("max", "amax")
def max_(
    x: Any,
    /,
    axis: Any = None,
    *,
    where: Any = None,
    keepdims: bool = False,
    initial: Any = -math.inf,
) -> Traced:
    value = _reduced("max", lift(x), axis, where, keepdims, "max")
    return value if _is(initial, -math.inf) else OPERATIONS["maximum"](value, initial)


@operation("min", "amin")
def min_(
    x: Any,
    /,
    axis: Any = None,
    *,
    where: Any = None,
    keepdims: bool = False,
    initial: Any = math.inf,
) -> Traced:
    value = _reduced("min", lift(x), axis, where, keepdims, "min")
    return value if _is(initial, math.inf) else OPERATIONS["minimum"](value, initial)


def _is(value: Any, number: float) -> bool:
    return lift(value).expr is build.const(number)


@operation("logsumexp")
def logsumexp(
    x: Any, /, axis: Any = None, *, where: Any = None, keepdims: bool = False
) -> Traced:
    return _reduced("logsumexp", lift(x), axis, where, keepdims, "logsumexp")


@operation("argmax")
def argmax(x: Any, /, axis: Any = None) -> Traced:
    return _arg_reduced("max", lift(x), axis)


@operation("argmin")
def argmin(x: Any, /, axis: Any = None) -> Traced:
    return _arg_reduced("min", lift(x), axis)


def _arg_reduced(op: str, x: Traced, axis: Any) -> Traced:
    places = _places(x, axis, f"arg{op}")
    if len(places) != 1 or not x.full[x.ndim - 1 - places[0]]:
        raise FormulaError(f"arg{op} runs over one axis of classes", hint="give axis=0 or axis=1")
    found = class_number(build.arg_reduce(op, AXES[places[0]], x.expr))
    return _without_axes(found, x.full, places, keep=False)


@operation("matmul", "dot")
def matmul(a: Any, b: Any, /) -> Traced:
    a, b = lift(a), lift(b)
    contracted = (AXES[0], AXES[0 if b.ndim == 1 else 1])
    if not a.ndim or not b.ndim or max(a.ndim, b.ndim) > 2 or not (a.full[-1] and b.full[0]):
        raise FormulaError("a @ b needs two rows, or tables, of classes", hint="use a * b")
    m = fresh()
    left = build.substitute(a.expr, {contracted[0]: m})
    right = build.substitute(b.expr, {contracted[1]: m})
    if b.ndim == 1 and a.ndim == 2:  # the rows of a are what is left
        left = build.substitute(left, {AXES[1]: AXES[0]})
    return Traced(build.reduce_("sum", m, build.mul(left, right)), a.full[:-1] + b.full[1:])


@operation("norm")
def norm(x: Any, /, ord: Any = None, axis: Any = None) -> Traced:
    x = lift(x)
    if x.ndim == 2 and axis is None:
        raise FormulaError("the norm of a table of classes needs axis=0 or axis=1")
    if ord is None or ord == 2:
        return sqrt(sum_(square(x), axis))
    if ord == 1:
        return sum_(OPERATIONS["abs"](x), axis)
    if ord == math.inf:
        return max_(OPERATIONS["abs"](x), axis)
    raise FormulaError("norm has the orders 1, 2 and inf")


# ------------------------------------------------------------------ lossmith's own


@operation("softmax")
def softmax(x: Any, /, axis: int = -1, *, where: Any = None) -> Traced:
    x = lift(x)
    places = _places(x, axis, "softmax")
    index = AXES[places[0]]
    if len(places) != 1 or not x.full[x.ndim - 1 - places[0]]:
        raise FormulaError("softmax runs over one axis of classes")
    if where is None:
        return Traced(build.softmax(index, x.expr, index), x.full)
    cond = condition(where, "where= of softmax needs")
    if joint(x, cond) != x.full:
        raise FormulaError("where= of softmax does not have the shape of what it selects from")
    share = build.softmax(index, x.expr, index, cond.expr)
    return Traced(build.mul(cond.expr, share), x.full)


@operation("log_softmax")
def log_softmax(x: Any, /, axis: int = -1) -> Traced:
    return subtract(x, logsumexp(x, axis, keepdims=True))


@operation("softmin")
def softmin(x: Any, /, axis: int = -1) -> Traced:
    return softmax(negative(x), axis)


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


REDUCTIONS = frozenset(
    name for name, f in OPERATIONS.items() if "axis" in inspect.signature(f).parameters
)
"""What runs over the classes; in formulas, their axis is named: max(a, b) is never the larger of two."""
