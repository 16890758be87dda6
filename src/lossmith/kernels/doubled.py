"""The part of NumPy that generated code uses, on arrays of double words: such code runs on them as it is written.

The module that emit_doubled.py writes says `from lossmith.kernels import doubled as np`.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lossmith.kernels.doubled_array import Doubled, absolute, binary, number, power, unary, where
from lossmith.kernels.doubled_trig import (
    arccos,
    arccosh,
    arcsin,
    arcsinh,
    arctan,
    arctanh,
    cos,
    cosh,
    sin,
    sinh,
    tan,
)

__all__ = [
    "absolute", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "cos", "cosh", "number", "power", "sin",
    "sinh", "tan", "where",
]  # fmt: skip

arange, errstate, inf, nan = np.arange, np.errstate, np.inf, np.nan
abs = absolute


def exp(x: Any) -> Doubled:
    return unary("exp", x)


def expm1(x: Any) -> Doubled:
    return unary("expm1", x)


def log(x: Any) -> Doubled:
    return unary("log", x)


def log1p(x: Any) -> Doubled:
    return unary("log1p", x)


def sqrt(x: Any) -> Doubled:
    return unary("sqrt", x)


def tanh(x: Any) -> Doubled:
    return unary("tanh", x)


def sigmoid(x: Any) -> Doubled:
    return unary("sigmoid", x)


def softplus(x: Any) -> Doubled:
    return unary("softplus", x)


def log_cosh(x: Any) -> Doubled:
    return unary("log_cosh", x)


def gap(x: Any, m: Any) -> Doubled:
    return binary("gap", x, m)


def scaled(a: Any, x: Any) -> Doubled:
    return binary("scaled", a, x)


def sign(x: Any) -> Doubled:
    return Doubled(np.sign(number(x).high))


def isnan(x: Any) -> Any:
    return np.isnan(number(x).high)


def maximum(a: Any, b: Any) -> Doubled:
    a, b = number(a), number(b)
    return where((a > b) | isnan(a), a, b)


def minimum(a: Any, b: Any) -> Doubled:
    a, b = number(a), number(b)
    return where((b > a) | isnan(a), a, b)


# ------------------------------------------------------------------ arrays


def full_like(a: Doubled, value: Any) -> Doubled:
    return broadcast_to(number(value), a.shape).copy()


def broadcast_to(a: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(a, np.ndarray | np.bool_):
        return np.broadcast_to(a, shape)
    return number(a).each(lambda part: np.broadcast_to(part, shape))


def take_along_axis(a: Doubled, indices: Any, axis: int) -> Doubled:
    return a.each(lambda part: np.take_along_axis(part, indices, axis))


# ------------------------------------------------------------------ along the classes, the last axis


def any(x: Any, axis: int, keepdims: bool = False) -> Any:
    return np.any(x, axis=axis, keepdims=keepdims)


def _kept(a: Doubled, axis: int, keepdims: bool) -> Doubled:
    return a if keepdims else a.squeeze(axis)


def sum(x: Any, axis: int, keepdims: bool = False) -> Doubled:
    """Add halves to halves: for K classes the error grows with log2(K), and is the same bits however many rows."""
    if not isinstance(x, Doubled):
        return number(np.sum(x, axis=axis, keepdims=keepdims, dtype=np.float64))
    while x.shape[axis] > 1:
        half = x.shape[axis] // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        x = folded if x.shape[axis] % 2 == 0 else _with_last(folded, x)
    if not x.shape[axis]:
        x = Doubled(np.zeros((*x.shape[:axis], 1)))
    return _kept(x, axis, keepdims)


def _with_last(folded: Doubled, x: Doubled) -> Doubled:
    """Add the last class to the first one of the sums."""
    folded[..., :1] = folded[..., :1] + x[..., -1:]
    return folded


def _extreme(x: Doubled, axis: int, find: Any, least: float) -> tuple[Any, Any]:
    """Return the largest high word, and the largest low word beside it."""
    high = find(x.high, axis=axis, keepdims=True)
    if x.low is None:
        return high, None
    return high, find(np.where(x.high == high, x.low, least), axis=axis, keepdims=True)


def max(x: Doubled, axis: int, keepdims: bool = False) -> Doubled:
    high, low = _extreme(x, axis, np.max, -np.inf)
    return _kept(Doubled(high, None if low is None else np.where(np.isfinite(high), low, 0.0)), axis, keepdims)


def min(x: Doubled, axis: int, keepdims: bool = False) -> Doubled:
    return -max(-x, axis, keepdims)


def argmax(x: Doubled, axis: int, keepdims: bool = False) -> Any:
    """Return the first class with the largest number, or the first that is NaN."""
    high, low = _extreme(x, axis, np.max, -np.inf)
    best = np.isnan(x.high) | (x.high == high)
    if low is not None:
        best &= np.isnan(x.high) | (cast(np.ndarray, x.low) == low)
    return np.argmax(best, axis=axis, keepdims=keepdims)


def argmin(x: Doubled, axis: int, keepdims: bool = False) -> Any:
    return argmax(-x, axis, keepdims)


def peak(x: Doubled, axis: int = 1) -> Doubled:
    """Maximum over the classes; NaN where it is -inf, or +inf twice: no limit exists there."""
    m = max(x, axis, keepdims=True)
    if not np.isfinite(m.high).all():
        twice = (x.high == m.high).sum(axis=axis, keepdims=True) > 1
        m = where(np.isinf(m.high) & ((m.high < 0) | twice), nan, m)
    return m


def peak_where(hit: Any, x: Doubled, axis: int = 1) -> Doubled:
    """Maximum over some classes: -inf if there are none; NaN where it is +inf twice: no limit exists there."""
    x = where(hit, x, -inf)
    m = max(x, axis, keepdims=True)
    return where((m.high == inf) & ((x.high == inf).sum(axis=axis, keepdims=True) > 1), nan, m)
