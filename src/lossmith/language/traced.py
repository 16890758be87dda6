"""Values that remember how they were made: what a loss function is run on to learn its formula.

A traced value is an expression and the axes that NumPy would see. Every axis has either one entry
for each class or length 1, and the index of an axis is known from its place, counted from the
right: so broadcasting, which lines axes up from the right, needs no renaming at all. Operations are
found by NumPy's name for them in OPERATIONS, which entrywise.py and operations.py fill; the text
reader uses the same table, so that both give the very same expression.
"""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NoReturn, TypeVar

import numpy as np

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.expr import (
    ClassNumber,
    Const,
    Expr,
    Fixed,
    Hyper,
    Index,
    Node,
    Size,
    named,
)
from lossmith.language.limits import MAX_AXES, check_axes, check_size

AXES = tuple(named(n) for n in ("k", "j", "l")[:MAX_AXES])
"""The index of each axis, counted from the right."""

OPERATIONS: dict[str, Callable[..., Traced]] = {}
"""What can be done to traced values, by NumPy's or lossmith's name; filled by entrywise.py
and operations.py."""

_Operation = TypeVar("_Operation", bound=Callable[..., Any])


class MissingAttributeError(FormulaError, AttributeError):
    """An attribute that traced values do not have; an AttributeError too, for hasattr's sake."""


def operation(*names: str) -> Callable[[_Operation], _Operation]:
    """Enter a function into OPERATIONS under each of the names."""

    def enter(function: _Operation) -> _Operation:
        for name in names:
            OPERATIONS[name] = function
        return function

    return enter


class Traced(np.lib.mixins.NDArrayOperatorsMixin):
    """A number or an array of one sample, known by its expression.

    Parameters
    ----------
    expr : Expr
        Its entry at the indices of its axes.
    full : tuple of bool
        For each axis, whether it has one entry for each class (else its length is 1).
    """

    __slots__ = ("expr", "full")
    __hash__ = None  # type: ignore[assignment]  # == gives an indicator

    def __init__(self, expr: Expr, full: tuple[bool, ...] = ()) -> None:
        check_size(expr)
        check_axes(len(full))
        self.expr, self.full = expr, full

    def __repr__(self) -> str:
        shape = ", ".join("K" if f else "1" for f in self.full)
        return f"<traced value of shape ({shape}{',' if len(self.full) == 1 else ''})>"

    # -------------------------------------------------------------- NumPy's protocols

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Traced:
        name = ufunc.__name__
        out = kwargs.pop("out", None)
        if out is not None and not (len(out) == 1 and out[0] is self and not self.full):
            raise FormulaError(
                f"np.{name} cannot write into an array here",
                hint="write a = a + b instead of a += b or out=: nothing changes in place",
            )
        if method == "reduce" and name in _REDUCTIONS:
            kwargs.setdefault("axis", 0)
            return apply(_REDUCTIONS[name], *inputs, **kwargs)
        if method != "__call__":
            raise FormulaError(f"np.{name}.{method} is not supported in a loss")
        if "where" in kwargs:
            raise FormulaError(
                f"np.{name} with where= leaves entries undefined",
                hint=f"use np.where(cond, np.{name}(...), other)",
            )
        return apply(name, *inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__
        if name in ("shape", "size", "ndim") and len(args) == 1 and not kwargs:
            return getattr(self, name)
        if name in ("max", "min", "amax", "amin") and "where" in kwargs and "initial" not in kwargs:
            bound = "-np.inf" if name.endswith("max") else "np.inf"
            raise FormulaError(f"np.{name} with where= needs initial= in NumPy", hint=f"add initial={bound}")
        return apply(name, *args, **kwargs)

    def __lossmith_apply__(self, name: str, *args: Any, **kwargs: Any) -> Traced:
        """Return the operation `name` of this value: how lossmith's own functions are traced."""
        return apply(name, self, *args, **kwargs)

    # -------------------------------------------------------------- what NumPy arrays also have

    @property
    def ndim(self) -> int:
        return len(self.full)

    @property
    def shape(self) -> tuple[Traced | int, ...]:
        return tuple(Traced(Size()) if f else 1 for f in self.full)

    @property
    def size(self) -> Traced:
        return Traced(build.mul(*(Size() for f in self.full if f)))

    @property
    def T(self) -> Traced:
        there = dict(zip(AXES[: self.ndim], reversed(AXES[: self.ndim]), strict=True))
        return Traced(build.substitute(self.expr, there), self.full[::-1])

    def __getitem__(self, key: Any) -> Traced:
        return index(self, key)

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return lambda *args, **kwargs: apply(name, self, *args, **kwargs)
        if name.startswith("__"):  # a protocol that somebody asks for: the plain answer is no
            raise AttributeError(name)
        hint = f"write np.{name}(x)" if name in OPERATIONS else None
        raise MissingAttributeError(f"a traced value has no attribute {name!r}", hint=hint)

    def astype(self, dtype: Any, **_: Any) -> Traced:
        """Return the value itself: an indicator is a number already."""
        del dtype
        return self

    # -------------------------------------------------------------- what the value of is not known

    def __bool__(self) -> NoReturn:
        raise FormulaError(
            "the values are not known while a loss is read, so nothing can branch on them",
            hint="use np.where(cond, a, b) instead of if, & and | instead of and and or, "
            "np.maximum(a, b) instead of max(a, b)",
        )

    def __iter__(self) -> NoReturn:
        raise FormulaError(
            "a row cannot be looped over: the number of classes is not known while a loss is read",
            hint="use np.sum(x), np.max(x) and whole rows instead of for, sum(x) and max(x)",
        )

    def __len__(self) -> NoReturn:
        raise FormulaError(
            "the number of classes is not known while a loss is read",
            hint="use x.size instead of len(x)",
        )

    def __float__(self) -> NoReturn:
        raise FormulaError(
            "a traced value cannot become a Python number",
            hint="use NumPy's functions: np.log(x) instead of math.log(x), x instead of float(x)",
        )

    def __index__(self) -> NoReturn:
        raise FormulaError(
            "a traced value cannot become a Python integer",
            hint="use lm.classes(s) instead of range(K) or np.arange(K)",
        )

    __int__ = __complex__ = __round__ = __float__

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise FormulaError(
            "a traced value cannot become an array",
            hint="leave np.asarray(x) out, join no values to a list, use lm.classes(s) instead of "
            "np.arange(K), and lm.softmax or lm.logsumexp instead of other packages'",
        )

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise FormulaError(
            "a row cannot be changed in place",
            hint="use np.where(lm.classes(s) == y, a, b) to give one class another value",
        )


_REDUCTIONS = {"add": "sum", "maximum": "max", "minimum": "min", "logaddexp": "logsumexp"}
_METHODS = frozenset({"sum", "mean", "max", "min", "argmax", "argmin", "dot", "clip"})


# ------------------------------------------------------------------ making values


def lift(value: Any) -> Traced:
    """Return a number as a traced value; traced values as they are."""
    if isinstance(value, Traced):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, np.bool_ | bool | numbers.Integral):
        return Traced(build.const(int(value)))
    if isinstance(value, Fraction):
        return Traced(build.const(value))
    if isinstance(value, numbers.Real):
        return Traced(build.const(float(value)))
    if isinstance(value, np.ndarray | list | tuple):
        raise FormulaError(
            "an array of numbers stands in the loss",
            hint="make it a hyperparameter with one number for each class: def loss(s, y, *, w)",
        )
    raise FormulaError(f"{_kind_of(value)} stands where a number should")


def _kind_of(value: Any) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def class_number(at: Index) -> Expr:
    """Return a class as a number."""
    match at:
        case Fixed(number):
            return build.const(number)
        case _:
            return ClassNumber(at)


def joint(*values: Traced) -> tuple[bool, ...]:
    """Return the axes that the values have together, by NumPy's broadcasting."""
    ndim = max(v.ndim for v in values)
    padded = [(False,) * (ndim - v.ndim) + v.full for v in values]
    return tuple(any(column) for column in zip(*padded, strict=True))


def entrywise(make: Callable[..., Expr], *values: Any) -> Traced:
    """Return the value with entries make(entries of the values)."""
    lifted = [lift(v) for v in values]
    return Traced(make(*(v.expr for v in lifted)), joint(*lifted))


def apply(name: str, *args: Any, **kwargs: Any) -> Traced:
    """Carry out the operation `name`; what goes wrong is a FormulaError.

    Raises
    ------
    FormulaError
        Where there is no such operation, or it does not fit these arguments, or its result is too
        large to be a loss.
    """
    function = OPERATIONS.get(name)
    if function is None:
        raise FormulaError(f"{name} is not supported in a loss", hint=_INSTEAD.get(name))
    _check_arguments(name, function, args, kwargs)
    try:
        return function(*args, **kwargs)
    except FormulaError:
        raise
    except ZeroDivisionError:
        raise FormulaError("division by zero") from None
    except (ArithmeticError, ValueError):  # numbers beyond every float
        raise FormulaError("a number in the loss is too large") from None
    except (RecursionError, MemoryError):
        raise FormulaError("the loss is nested too deeply") from None


_INSTEAD = {
    "floor_divide": "rounding has no useful derivative",
    "remainder": "rounding has no useful derivative",
    "floor": "rounding has no useful derivative",
    "ceil": "rounding has no useful derivative",
    "rint": "rounding has no useful derivative",
    "any": "use np.max of the indicator",
    "all": "use np.min of the indicator",
    "bitwise_xor": "a power is written a**b",
    "prod": "use np.exp(np.sum(np.log(x))) for positive x",
    "arange": "use lm.classes(s) for the numbers 0 … K−1",
}


def _check_arguments(name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
        return
    except TypeError:
        pass
    parameters = signature.parameters.values()
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    options = [p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY]
    for option in kwargs:
        if option not in options:
            known = f"its options are {', '.join(options)}" if options else "it has no options"
            raise FormulaError(f"{name} has no option {option}=", hint=known)
    least = sum(p.default is p.empty for p in positional)
    most = len(positional)
    expected = str(least) if least == most else f"{least} to {most}"
    plural = "" if expected == "1" else "s"
    raise FormulaError(f"{name} takes {expected} argument{plural}, got {len(args)}")


# ------------------------------------------------------------------ indexing


def index(x: Traced, key: Any) -> Traced:
    """Return x[key] for classes, whole axes, None and ... in `key`."""
    items = _without_ellipsis(x, key if isinstance(key, tuple) else (key,))
    if len(items) == 1 and x.full == (True,) and isinstance(items[0], Traced) and items[0].ndim:
        chosen = items[0]
        return Traced(build.substitute(x.expr, {AXES[0]: as_index(chosen)}), chosen.full)
    moved: dict[Node, Node] = {}
    kept: list[tuple[bool, int | None]] = []  # of each new axis: full? and its old place
    left = list(enumerate(x.full))
    for item in items:
        if item is None:
            kept.append((False, None))
            continue
        if not left:
            raise _too_many_indices(x)
        place, full = left.pop(0)
        old = x.ndim - 1 - place
        if isinstance(item, slice):
            if item != slice(None):
                raise FormulaError(
                    "a slice of the classes is not supported",
                    hint="use where= with the class numbers, as in sum(x, where=classes > 0)",
                )
            kept.append((full, old))
        else:
            if isinstance(item, Traced) and item.ndim:
                raise FormulaError("a value with two axes can only be indexed by single classes")
            at = as_index(item)
            if full:
                moved[AXES[old]] = at
            elif at != Fixed(0):
                raise FormulaError("an axis of length 1 has only the index 0")
    kept += [(full, x.ndim - 1 - place) for place, full in left]
    return _rearranged(x, kept, moved)


def _rearranged(x: Traced, kept: list[tuple[bool, int | None]], moved: dict[Node, Node]) -> Traced:
    """Return x with the axes `kept`, and the indices of the others replaced as `moved` says."""
    check_axes(len(kept))
    for place, (full, old) in enumerate(reversed(kept)):
        if full and old is not None:
            moved[AXES[old]] = AXES[place]
    return Traced(build.substitute(x.expr, moved), tuple(full for full, _ in kept))


def _without_ellipsis(x: Traced, items: tuple[Any, ...]) -> list[Any]:
    """Put as many whole axes in the place of `...` as there are left."""
    consumed = sum(item is not None and item is not Ellipsis for item in items)
    found: list[Any] = []
    for item in items:
        found.extend([slice(None)] * (x.ndim - consumed) if item is Ellipsis else [item])
    return found


def _too_many_indices(x: Traced) -> FormulaError:
    if x.full:
        return FormulaError(f"too many indices: the value has {count_of_axes(x.ndim)}")
    row = "a hyperparameter with one number for each class is given as a list or an array"
    return FormulaError(
        "a single number is indexed as if it were a row",
        hint=row if isinstance(x.expr, Hyper) else None,
    )


def count_of_axes(number: int) -> str:
    """Return the number of axes in words."""
    return "1 axis" if number == 1 else f"{number} axes"


def as_index(item: Any) -> Index:
    """Return the class that `item` names."""
    if isinstance(item, Traced):
        match item.expr:
            case ClassNumber(at):
                return at
            case Const(int() as number) if not item.full:
                return as_index(number)
            case _ if build.is_indicator(item.expr) and item.full:
                raise FormulaError(
                    "a condition cannot select entries of a row",
                    hint="use where=, as in sum(x, where=classes != y)",
                )
            case _:
                pass
    elif not isinstance(item, bool) and isinstance(item, numbers.Integral):
        if int(item) < 0:
            raise FormulaError("classes are counted from 0, and not from the end")
        return Fixed(int(item))
    raise FormulaError(
        "this cannot be an index",
        hint="an index is a label, a class number such as 3, classes, argmax(x) or argmin(x)",
    )
