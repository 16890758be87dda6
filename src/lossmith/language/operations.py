"""What can be written in a loss, second part: what runs over the classes.

Importing this fills OPERATIONS: it brings the functions of entrywise.py with it.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.entrywise import add, condition, divide, negative, sqrt, square, subtract
from lossmith.language.expr import ONE, TRUE, Expr, fresh
from lossmith.language.limits import check_nesting
from lossmith.language.traced import (
    AXES,
    OPERATIONS,
    Traced,
    class_number,
    count_of_axes,
    joint,
    lift,
    operation,
)


def _places(x: Traced, axis: Any, name: str) -> list[int]:
    """Return the axes that `axis` names, counted from the right, the last first."""
    if not x.ndim:
        raise FormulaError(
            f"{name} of a single number: there is nothing to run over",
            hint=_FOR_TWO if name in _EXTREMA else None,
        )
    chosen = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    places: set[int] = set()
    for number in chosen:
        if isinstance(number, bool) or not isinstance(number, int):
            raise FormulaError(
                f"the axis of {name} must be an integer",
                hint=_FOR_TWO if name in _EXTREMA else None,
            )
        if not -x.ndim <= number < x.ndim:
            raise FormulaError(f"{name} over axis {number}: the value has {count_of_axes(x.ndim)}")
        places.add(x.ndim - 1 - number % x.ndim)
    return sorted(places)


_EXTREMA = ("max", "min")
_FOR_TWO = "maximum(a, b) and minimum(a, b) are for two numbers"


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
    check_nesting(len(indices) + max(expr.height, restriction.height))
    for index in indices:
        expr = build.reduce_(op, index, expr, restriction if index is named_by[0] else TRUE)
    return _without_axes(expr, x.full, places, keepdims)


@operation("sum")
def sum_(x: Any, /, axis: Any = None, *, where: Any = None, keepdims: bool = False, initial: Any = 0) -> Traced:
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
def logsumexp(x: Any, /, axis: Any = -1, *, where: Any = None, keepdims: bool = False) -> Traced:
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
    check_nesting(1 + x.expr.height)
    found = class_number(build.arg_reduce(op, AXES[places[0]], x.expr))
    return _without_axes(found, x.full, places, keep=False)


@operation("matmul", "dot")
def matmul(a: Any, b: Any, /) -> Traced:
    a, b = lift(a), lift(b)
    contracted = (AXES[0], AXES[0 if b.ndim == 1 else 1])
    if not a.ndim or not b.ndim or max(a.ndim, b.ndim) > 2 or not (a.full[-1] and b.full[0]):
        raise FormulaError("a @ b needs two rows, or tables, of classes", hint="use a * b")
    check_nesting(1 + max(a.expr.height, b.expr.height))
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


# ------------------------------------------------------------------ softmax


@operation("softmax")
def softmax(x: Any, /, axis: int = -1, *, where: Any = None) -> Traced:
    x = lift(x)
    places = _places(x, axis, "softmax")
    index = AXES[places[0]]
    check_nesting(1 + x.expr.height)
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


REDUCTIONS = frozenset(name for name, f in OPERATIONS.items() if "axis" in inspect.signature(f).parameters)
"""What runs over the classes; in a text their axis is named: max(x, axis=0)."""
