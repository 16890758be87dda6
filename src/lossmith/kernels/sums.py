"""Sums over rows, in an order that depends on nothing but their number."""

from __future__ import annotations

import math

import numpy as np

EXACT, SUM_BLOCK = 32, 4096
"""How many numbers are added exactly, how many pairwise."""


def sum_rows(values: np.ndarray) -> float:
    """Return the sum of an array (N,) in float64, as accurate for 10⁸ numbers as for ten, in an order of its own.

    Blocks of fixed size are added pairwise, and their sums exactly; a few numbers are added exactly at once.
    """
    values = np.ascontiguousarray(values, dtype=np.float64).reshape(-1)
    sums: list[float] = values.tolist() if values.size <= EXACT else _sums_of_blocks(values)
    try:
        return math.fsum(sums)
    except (OverflowError, ValueError):  # infinities of both signs, or a sum beyond the largest float
        with np.errstate(all="ignore"):
            return float(np.add.reduce(sums))


def _sums_of_blocks(values: np.ndarray) -> list[float]:
    whole = values.size // SUM_BLOCK * SUM_BLOCK
    with np.errstate(all="ignore"):
        if not whole:
            return [float(np.add.reduce(values))]
        sums = np.add.reduce(values[:whole].reshape(-1, SUM_BLOCK), axis=1).tolist()
        return [*sums, float(np.add.reduce(values[whole:]))]
