"""The error of floating-point results, in units in the last place and in correct digits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lossmith.check.arithmetic import Real, context, exactly

_DIGITS = 400
"""Enough to subtract any float from any other without rounding that matters."""
_LEAST, _MOST = 1e-280, 1e300
"""Between these the rest of a number, beyond its float64, is itself a float64."""


def ulp_error(got: Any, exact: Sequence[Any]) -> np.ndarray:
    """Return |got − exact| in units in the last place of the exact value.

    Parameters
    ----------
    got : ndarray of float16, bfloat16, float32 or float64
    exact : sequence of numbers, as many
        Numbers of mpmath, or floats.

    Returns
    -------
    ndarray of float64
        In the shape of `got`; the unit is that of its dtype. A correctly rounded result has at most
        0.5; below the smallest normal number the unit is the smallest subnormal. NaN for NaN, and
        infinity for what is beyond every float of the dtype, are right: 0. Any other infinity or
        NaN is wrong: inf.
    """
    array = np.asarray(got)
    errors = [_one(g, e, array.dtype) for g, e in zip(array.ravel(), exact, strict=True)]
    return np.array(errors, dtype=np.float64).reshape(array.shape)


def relative_error(got: Any, exact: Sequence[Any]) -> np.ndarray:
    """Return |got − exact| / |exact|; 0 where both are 0, NaN, or the same infinity."""
    array = np.asarray(got)
    pairs = zip(array.ravel(), exact, strict=True)
    return np.array([_relative(g, e) for g, e in pairs], dtype=np.float64).reshape(array.shape)


def correct_digits(got: Any, exact: Sequence[Any]) -> np.ndarray:
    """Return how many decimal digits are right, of those that the dtype of `got` can show.

    A correctly rounded result has all of them, among subnormal numbers too; a result whose error is
    as large as itself has none.
    """
    array = np.asarray(got)
    return np.vectorize(lambda ulp: digits_left(ulp, array.dtype), otypes=[float])(ulp_error(array, exact))


class Target:
    """An exact number that many floats are compared with."""

    def __init__(self, exact: Any) -> None:
        ctx = context(_DIGITS)
        self.exact = exactly(exact, ctx)
        # As the sum of two floats it can be compared without long numbers, unless it is among the last few of these.
        self._high = float(self.exact)
        self._near = _LEAST < abs(self._high) < _MOST
        self._low = float(self.exact - self._high) if self._near else 0.0
        fraction, exponent = math.frexp(self._high)
        self._exponent = exponent - 1 - (abs(fraction) == 0.5 and self._low * self._high < 0)

    def ulp(self, got: Any, dtype: Any) -> float:
        """Return the error of one float, as `ulp_error` does."""
        found, kind = float(got), _format(dtype)
        if not self._near or not math.isfinite(found) or abs(self._high) > kind.safe:
            return _one(got, self.exact, dtype)
        unit = math.ldexp(1.0, max(self._exponent, kind.least) - kind.mantissa)
        return abs((found - self._high) - self._low) / unit

    def digits(self, got: Any, dtype: Any) -> float:
        """Return how many decimal digits of one float are right, as `correct_digits` does."""
        return digits_left(self.ulp(got, dtype), dtype)

    @staticmethod
    def full(dtype: Any) -> float:
        """Return how many decimal digits the dtype can show."""
        return digits_left(0.0, dtype)


def digits_left(ulp: float, dtype: Any) -> float:
    """Return how many decimal digits are right with an error of so many units in the last place."""
    most = (_format(dtype).mantissa + 1) * math.log10(2)
    return max(most - math.log10(max(2 * ulp, 1.0)), 0.0)


class _Format(NamedTuple):
    mantissa: int
    least: int
    """The exponent of the smallest normal number; the largest has 1 − least."""

    @property
    def safe(self) -> float:
        """A number well below the largest."""
        return 2.0 ** -(self.least + 1)

    @property
    def largest(self) -> Real:
        ctx = context(_DIGITS)
        return (2 - ctx.mpf(2) ** -self.mantissa) * ctx.mpf(2) ** (1 - self.least)


# NumPy's finfo knows nothing of bfloat16.
_FORMATS = {
    "float16": _Format(10, -14),
    "bfloat16": _Format(7, -126),
    "float32": _Format(23, -126),
    "float64": _Format(52, -1022),
}


def _format(dtype: Any) -> _Format:
    return _FORMATS[np.dtype(dtype).name]


def unit_in_last_place(exact: Any, dtype: Any) -> Real:
    """Return the distance of the floats of `dtype` around a finite number."""
    ctx, found = context(_DIGITS), _format(dtype)
    value = min(abs(exactly(exact, ctx)), found.largest)
    exponent = int(ctx.mag(value)) - 1 if value else found.least
    return ctx.mpf(2) ** (max(exponent, found.least) - found.mantissa)


def overflows(exact: Any, dtype: Any) -> bool:
    """Whether rounding takes a number to infinity: it is half a unit or more above the largest."""
    largest = _format(dtype).largest
    limit = largest + unit_in_last_place(largest, dtype) / 2
    return bool(abs(exactly(exact, context(_DIGITS))) >= limit)


def _one(got: Any, exact: Any, dtype: Any) -> float:
    ctx = context(_DIGITS)
    g, e = exactly(got, ctx), exactly(exact, ctx)
    if ctx.isnan(g) or ctx.isnan(e):
        return 0.0 if ctx.isnan(g) and ctx.isnan(e) else np.inf
    if ctx.isinf(g):
        right = g * e > 0 and (ctx.isinf(e) or overflows(e, dtype))
        return 0.0 if right else np.inf
    if ctx.isinf(e):
        return np.inf
    return float(abs(g - e) / unit_in_last_place(e, dtype))


def _relative(got: Any, exact: Any) -> float:
    ctx = context(_DIGITS)
    g, e = exactly(got, ctx), exactly(exact, ctx)
    if g == e or (ctx.isnan(g) and ctx.isnan(e)):
        return 0.0
    if not ctx.isfinite(g) or not ctx.isfinite(e):
        dtype = np.asarray(got).dtype
        beyond = ctx.isinf(g) and not ctx.isnan(e) and g * e > 0 and overflows(e, dtype)
        return 0.0 if beyond else np.inf
    return float(abs(g - e) / abs(e)) if e else np.inf
