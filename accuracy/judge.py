"""The error of results, in units in the last place, beside what is promised."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from accuracy.oracle import UNDECIDED, Parts
from lossmith.check.promise import base_limit, roundoff


@dataclass(frozen=True)
class Exact:
    """Exact numbers as high + low, times 2**shift: see accuracy.oracle.parts."""

    high: np.ndarray
    low: np.ndarray
    shift: np.ndarray

    @property
    def decided(self) -> np.ndarray:
        return ~(np.isnan(self.high) & (self.shift > 0))

    def overflows(self, dtype: Any) -> np.ndarray:
        """Whether the numbers are beyond the largest float, or were not decided."""
        with np.errstate(over="ignore"):
            return ~(np.abs(np.ldexp(self.high, -self.shift)) <= float(np.finfo(dtype).max))

    @property
    def undecided(self) -> np.ndarray:
        return np.isnan(self.high) & (self.shift == UNDECIDED[2])


def ulp_errors(got: np.ndarray, exact: Exact) -> np.ndarray:
    """Return |got − exact| in units in the last place of the exact number, as lossmith.check.ulp defines it.

    NaN for NaN is right, and so is infinity for what rounds to it; any other NaN or infinity is an infinite error.
    """
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        moved = np.ldexp(got.astype(np.float64), np.where(np.isfinite(exact.high), exact.shift, 0))
        # Exponents of the numbers as they are: where 2**shift has been multiplied in, it is taken out again.
        exponent = np.where(exact.high == 0, info.minexp, np.frexp(exact.high)[1] - 1)
        exponent = np.where(exact.low * exact.high < 0, _below_power(exact.high, exponent), exponent)
        exponent = np.clip(exponent - exact.shift, info.minexp, info.maxexp - 1)
        unit = np.ldexp(1.0, exponent - info.nmant + exact.shift)
        error = np.abs((moved - exact.high) - exact.low) / unit
        largest = np.ldexp(float(info.max), exact.shift)
        over = np.abs(exact.high) - largest + np.abs(exact.low) * np.sign(exact.low * exact.high)
        overflows = np.isinf(exact.high) | (over >= np.ldexp(0.5, info.maxexp - 1 - info.nmant + exact.shift))
    special = ~np.isfinite(got) | ~np.isfinite(exact.high)
    right = (np.isnan(got) & np.isnan(exact.high)) | (np.isinf(got) & overflows & (np.sign(got) == np.sign(exact.high)))
    return np.where(special, np.where(right, 0.0, np.inf), error)


def _below_power(high: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Return the exponent of a number just below a power of two that its high part was rounded to."""
    return np.where(np.abs(high) == np.ldexp(1.0, exponent), exponent - 1, exponent)


def relative_errors(got: np.ndarray, exact: Exact) -> np.ndarray:
    """Return |got − exact| / |exact| in units of roundoff u, infinite where the exact number is 0 or special."""
    with np.errstate(all="ignore"):
        moved = np.ldexp(got.astype(np.float64), np.where(np.isfinite(exact.high), exact.shift, 0))
        found = np.abs((moved - exact.high) - exact.low) / np.abs(exact.high) / roundoff(got.dtype)
    return np.where(np.isfinite(found), found, np.inf)


FARTHEST = 750.0
"""Exponentials of more than that are 0 in every float."""


def limits_by_distance(scores: np.ndarray, steepness: float = 1.0) -> np.ndarray:
    """Return the promise in units of roundoff, 8 + ⌈log₂ K⌉ + |s_k − m|, for every class of every row.

    At the largest score itself |s_k − m| is 0, but its p_k, and the loss, are sums over the others: there it is the
    distance of the runner-up.
    """
    base = base_limit(scores.shape[1])
    with np.errstate(all="ignore"):
        s = scores.astype(np.float64) * steepness
        distance = s.max(axis=1, keepdims=True) - s
        runner_up = np.where(distance > 0, distance, np.inf).min(axis=1, keepdims=True)
        distance = np.where(distance > 0, distance, runner_up)
    return base + np.where(distance < FARTHEST, distance, 0.0)


@dataclass
class Place:
    """The largest of many figures, and where it was."""

    figure: float = 0.0
    limit: float = math.nan
    at: str = ""

    def larger(self, other: Place) -> Place:
        return other if other.figure > self.figure else self


@dataclass
class Worst:
    """The worst of many errors of one output.

    Attributes
    ----------
    numbers : int
        How many were compared.
    ulp : Place
        The largest error in units in the last place, of the numbers that rounding the inputs does not spoil.
    share : Place
        The largest share of what is promised, of all numbers.
    spoilt, undecided, broken : int
        How many numbers rounding the inputs spoils: they cancel, or lie beside a kink. How many the oracle could not
        decide. How many broke the promise.
    """

    numbers: int = 0
    ulp: Place = field(default_factory=Place)
    share: Place = field(default_factory=Place)
    spoilt: int = 0
    undecided: int = 0
    broken: int = 0

    def merged(self, other: Worst) -> Worst:
        """Return the worst of both."""
        counts = (self.spoilt + other.spoilt, self.undecided + other.undecided, self.broken + other.broken)
        places = self.ulp.larger(other.ulp), self.share.larger(other.share)
        return Worst(self.numbers + other.numbers, *places, *counts)


def stacked(rows: list[list[Parts]], columns: Any) -> Exact:
    """Return some columns of the parts of exact rows as arrays."""
    array = np.array([[row[c] for c in columns] for row in rows], dtype=np.float64)
    return Exact(array[..., 0], array[..., 1], array[..., 2].astype(np.int64))
