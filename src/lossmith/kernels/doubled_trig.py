"""Functions that losses seldom use, on arrays of double words: hyperbolic and trigonometric ones, and their inverses.

They are made of the operations of doubled_array.py: right before fast. Angles are reduced by whole multiples of π/2 in
integer arithmetic, however large they are; the arc tangent is a step of Newton's from that of float64.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from lossmith.kernels.doubled_array import Doubled, absolute, low_of, number, unary, where
from lossmith.kernels.doubled_math import LOG_2, words

# π in 1300 bits, by Machin's formula: as many as it takes to see how far the largest float is from a multiple of π/2.
_PLACES = 1300


def _inverse_tangent(n: int) -> int:
    """Return arctan(1/n)·2**_PLACES, all but the last bits."""
    term = total = (1 << (_PLACES + 20)) // n
    k, sign = 1, 1
    while term:
        term //= n * n
        k, sign = k + 2, -sign
        total += sign * (term // k)
    return total >> 20


_PI = 4 * (4 * _inverse_tangent(5) - _inverse_tangent(239))
_HALF_PI = words(Fraction(_PI, 2 << _PLACES))


def _constant(pair: tuple[float, float]) -> Doubled:
    return Doubled(pair[0], np.float64(pair[1]))


def _angle(high: float, low: float) -> tuple[int, float, float]:
    """Return q modulo 4 and the pair r, angle = q·π/2 + r with |r| ≤ π/4."""
    if not math.isfinite(high):
        return 0, math.nan, 0.0
    angle = Fraction(high) + Fraction(low)
    half_pi = Fraction(_PI, 2 << _PLACES)
    q = round(angle / half_pi)
    return q % 4, *words(angle - q * half_pi)


def _reduced(x: Doubled) -> tuple[np.ndarray, Doubled]:
    parts = np.frompyfunc(_angle, 2, 3)(x.high, low_of(x))
    q, high, low = (np.asarray(p) for p in parts)
    return q.astype(np.int64), Doubled(high.astype(float), low.astype(float))


_TERMS = 28
_SINE = [Fraction((-1) ** (n // 2), math.factorial(n)) for n in range(1, _TERMS, 2)]
_COSINE = [Fraction((-1) ** (n // 2), math.factorial(n)) for n in range(0, _TERMS, 2)]


def _series(square: Doubled, coefficients: list[Fraction]) -> Doubled:
    result = _constant(words(coefficients[-1]))
    for coefficient in coefficients[-2::-1]:
        result = result * square + _constant(words(coefficient))
    return result


def _sine_cosine(r: Doubled) -> tuple[Doubled, Doubled]:
    """Return sine and cosine for |r| ≤ π/4."""
    square = r * r
    return r * _series(square, _SINE), _series(square, _COSINE)


def _turned(x: Any, by: int) -> Doubled:
    """Return sin(x + by·π/2)."""
    q, r = _reduced(number(x))
    sine, cosine = _sine_cosine(r)
    quadrant = (q + by) % 4
    found = where(quadrant % 2 == 0, sine, cosine)
    return where(quadrant >= 2, -found, found)


def sin(x: Any) -> Doubled:
    return _turned(x, 0)


def cos(x: Any) -> Doubled:
    return _turned(x, 1)


def tan(x: Any) -> Doubled:
    return sin(x) / cos(x)


def arctan(x: Any) -> Doubled:
    x = number(x)
    a = absolute(x)
    t = where(a > 1, 1 / a, a)  # of the larger ones, the angle from the other side
    start = Doubled(np.arctan(t.high), None)
    sine, cosine = _sine_cosine(start)
    found = start + (t * cosine - sine) / (cosine + t * sine)
    found = where(a > 1, _constant(_HALF_PI) - found, found)
    found = where(t == 0, where(a > 1, _constant(_HALF_PI), a), found)
    return where(x < 0, -found, where(np.isnan(x.high), x, found))


def arcsin(x: Any) -> Doubled:
    x = number(x)
    return arctan(x / unary("sqrt", (1 - x) * (1 + x)))


def arccos(x: Any) -> Doubled:
    x = number(x)
    found = 2 * arctan(unary("sqrt", (1 - x) / (1 + x)))
    return where(x == -1, 2 * _constant(_HALF_PI), found)


def sinh(x: Any) -> Doubled:
    x = number(x)
    a = absolute(x)
    u = unary("expm1", a)
    half = unary("exp", a * 0.5)
    found = where(a > 60, half * (half * 0.5), (u + u / (1 + u)) * 0.5)  # exp(a) may be infinite where half is not
    return where(x < 0, -found, found)


def cosh(x: Any) -> Doubled:
    a = absolute(number(x))
    half = unary("exp", a * 0.5)
    e = unary("exp", a)
    return where(a > 60, half * (half * 0.5), (e + 1 / e) * 0.5)


_HUGE = 2.0**400


def arcsinh(x: Any) -> Doubled:
    x = number(x)
    a = absolute(x)
    near = unary("log1p", a + a * a / (1 + unary("sqrt", 1 + a * a)))
    found = where(a > _HUGE, unary("log", a) + _constant(words(LOG_2)), near)
    return where(x < 0, -found, found)


def arccosh(x: Any) -> Doubled:
    x = number(x)
    t = x - 1
    near = unary("log1p", t + unary("sqrt", t * (t + 2)))
    return where(x > _HUGE, unary("log", x) + _constant(words(LOG_2)), near)


def arctanh(x: Any) -> Doubled:
    x = number(x)
    a = absolute(x)
    found = unary("log1p", 2 * a / (1 - a)) * 0.5
    return where(x < 0, -found, found)
