"""Arrays of double words, and the operations on them.

They are what computes where there is no Numba, and for programs that doubled_tape.py does not know. Arrays lie in
memory with the rows innermost (Fortran's order): a sum over the classes adds halves that are contiguous.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from lossmith.kernels import doubled_numpy
from lossmith.kernels.doubled_math import words

_DOUBLE = np.dtype(np.float64)


class Doubled:
    """An array of numbers high + low, high being their sum rounded to float64; `low` None stands for zeros.

    Parameters
    ----------
    high, low : float64 array
    """

    __slots__ = ("high", "low")
    __array_ufunc__ = None  # arrays on the left of an operator leave it to this class

    def __init__(self, high: Any, low: Any = None) -> None:
        self.high: np.ndarray = np.asarray(high, _DOUBLE)
        self.low: np.ndarray | None = low

    # -------------------------------------------------------------- shape

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    def __len__(self) -> int:
        return len(self.high)

    def each(self, change: Callable[[np.ndarray], Any]) -> Doubled:
        low = None if self.low is None else change(self.low)
        return Doubled(change(self.high), low)

    def __getitem__(self, at: Any) -> Doubled:
        return self.each(lambda a: a[at])

    def __setitem__(self, at: Any, value: Any) -> None:
        value = number(value)
        if self.low is None and value.low is not None:
            self.low = np.zeros_like(self.high)
        self.high[at] = value.high
        if self.low is not None:
            self.low[at] = 0.0 if value.low is None else value.low

    def copy(self) -> Doubled:
        return self.each(lambda a: a.copy(order="K"))

    def squeeze(self, axis: int) -> Doubled:
        return self.each(lambda a: a.squeeze(axis))

    # -------------------------------------------------------------- operators

    def __add__(self, other: Any) -> Doubled:
        return binary("add", self, other)

    def __radd__(self, other: Any) -> Doubled:
        return binary("add", other, self)

    def __sub__(self, other: Any) -> Doubled:
        return binary("sub", self, other)

    def __rsub__(self, other: Any) -> Doubled:
        return binary("sub", other, self)

    def __mul__(self, other: Any) -> Doubled:
        return binary("mul", self, other)

    def __rmul__(self, other: Any) -> Doubled:
        return binary("mul", other, self)

    def __truediv__(self, other: Any) -> Doubled:
        return binary("div", self, other)

    def __rtruediv__(self, other: Any) -> Doubled:
        return binary("div", other, self)

    def __pow__(self, other: Any) -> Doubled:
        return binary("mul", self, self) if other == 2 else power(self, other)

    def __rpow__(self, other: Any) -> Doubled:
        return power(other, self)

    def __neg__(self) -> Doubled:
        return self.each(np.negative)

    # -------------------------------------------------------------- comparisons

    def __eq__(self, other: Any) -> Any:
        a, b = self, number(other)
        same = a.high == b.high
        return same if a.low is b.low is None else same & (low_of(a) == low_of(b))

    def __ne__(self, other: Any) -> Any:
        return ~(self == other)

    def __gt__(self, other: Any) -> Any:
        return _above(self, number(other))

    def __lt__(self, other: Any) -> Any:
        return _above(number(other), self)

    def __ge__(self, other: Any) -> Any:
        return _above(self, number(other)) | (self == other)

    def __le__(self, other: Any) -> Any:
        return _above(number(other), self) | (self == other)

    __hash__ = None  # type: ignore[assignment]


def number(value: Any, divisor: int = 1) -> Doubled:
    """Return an array, a number, a condition as 0 or 1, or a fraction as double words."""
    if isinstance(value, Doubled):
        return value
    if divisor != 1 or isinstance(value, int):
        high, low = words(Fraction(value, divisor))
        return Doubled(high, np.float64(low) if low else None)
    return Doubled(value)


def low_of(a: Doubled) -> Any:
    return 0.0 if a.low is None else a.low


def _above(a: Doubled, b: Doubled) -> Any:
    larger = a.high > b.high
    if a.low is b.low is None:
        return larger
    return larger | ((a.high == b.high) & (low_of(a) > low_of(b)))


# ------------------------------------------------------------------ operations


def unary(name: str, x: Any) -> Doubled:
    return _apply(name, number(x))


def binary(name: str, a: Any, b: Any) -> Doubled:
    return _apply(name, number(a), number(b))


def _apply(name: str, *args: Doubled) -> Doubled:
    pairs = [(a.high, 0.0 if a.low is None else a.low) for a in args]
    high, low = doubled_numpy.operator(name)(*pairs)
    return Doubled(high, np.asarray(low))


# ------------------------------------------------------------------ by choice of entries


def power(x: Any, a: Any) -> Doubled:
    return binary("pow", x, a)


def absolute(x: Any) -> Doubled:
    x = number(x)
    low = None if x.low is None else np.where(x.high < 0, -x.low, x.low)
    return Doubled(np.abs(x.high), low)


def where(condition: Any, yes: Any, no: Any) -> Doubled:
    yes, no = number(yes), number(no)
    low = None
    if not yes.low is no.low is None:
        low = np.where(condition, low_of(yes), low_of(no))
    return Doubled(np.where(condition, yes.high, no.high), low)
