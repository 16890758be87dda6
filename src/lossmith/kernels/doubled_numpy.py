"""Double words on NumPy arrays: what doubled_math.py asks of lanes, bit for bit as doubled_llvm.py does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lossmith.kernels import doubled_math
from lossmith.kernels.doubled_math import OPERATIONS, ROUNDER, Pair

SPLITTER = 2.0**27 + 1
SAFE_FACTOR, SAFE_PRODUCT = 2.0**990, 2.0**-960
"""Below the one Veltkamp's splitting does not overflow, above the other no partial product underflows."""

_MANTISSA, _BIAS = 52, 1023
_THREE_QUARTERS = (0x3FE << _MANTISSA) + (1 << (_MANTISSA - 1))


class NumpyLanes:
    """Arrays of float64; a product without fused multiply-add, as many processors and NumPy have none."""

    def two_prod(self, a: Any, b: Any) -> Pair:
        """Return the rounded product, and what it lacks of the product, itself rounded where it underflows."""
        a, b = np.asarray(a), np.asarray(b)
        product = np.asarray(a * b)
        error = np.asarray(_product_error(a, b, product))
        size = np.abs(product)
        safe = (size > SAFE_PRODUCT) & (np.maximum(np.abs(a), np.abs(b)) < SAFE_FACTOR)
        if not safe.all():
            at = ~safe
            one, other = (np.broadcast_to(x, product.shape)[at] for x in (a, b))
            (m, e), (n, f) = np.frexp(one), np.frexp(other)
            error[at] = np.where(size[at] > 0, np.ldexp(_product_error(m, n, m * n), e + f), 0.0)
            lost = at & (size < 2.0**-1022)  # the product itself has lost digits: what it lacks is less than half of
            error[lost] = 0.0  # the smallest number, and is rounded to 0
            error[~np.isfinite(product)] = np.nan
        return product, error

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """Return a·b + c, rounded twice."""
        return a * b + c

    def select(self, condition: Any, yes: Any, no: Any) -> Any:
        return np.where(condition, yes, no)

    def sqrt(self, a: Any) -> Any:
        return np.sqrt(a)

    def power_of_two(self, exponent: Any) -> Any:
        """Return 2**exponent for whole exponents from -1022 to 1023."""
        bits = np.asarray(exponent + ROUNDER).view(np.int64)
        return ((bits << _MANTISSA) + (_BIAS << _MANTISSA)).view(np.float64)

    def split(self, a: Any) -> Pair:
        """Return an exponent e and a significand m, a = m·2**e with 3/4 ≤ m < 3/2, of a positive normal number."""
        moved = np.asarray(a).view(np.int64) + ((_BIAS << _MANTISSA) - _THREE_QUARTERS)
        exponent = (moved >> _MANTISSA) - _BIAS
        significand = ((moved & ((1 << _MANTISSA) - 1)) + _THREE_QUARTERS).view(np.float64)
        return exponent.astype(np.float64), significand


def _product_error(a: Any, b: Any, product: Any) -> Any:
    """Return a·b − product, exactly (Dekker; Veltkamp)."""
    first, second = SPLITTER * a, SPLITTER * b
    ah, bh = first - (first - a), second - (second - b)
    al, bl = a - ah, b - bh
    return ((ah * bh - product) + ah * bl + al * bh) + al * bl


_LANES: doubled_math.Lanes = NumpyLanes()


def operator(name: str) -> Callable[..., Pair]:
    """Return an operation on pairs of arrays, which NumPy broadcasts."""
    _, formula = OPERATIONS[name]
    return lambda *pairs: formula(_LANES, *pairs)
