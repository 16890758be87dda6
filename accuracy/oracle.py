"""The exact value, gradient, Hessian diagonal and Hessian-vector product of a loss, row by row.

The definition is written out for the row's number of classes and label (graph.py), differentiated twice by a page of
rules (derive.py), and run on balls (program.py). Of lossmith only the reading of the definition takes part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from flint import arb

from accuracy.derive import gradient, tangents
from accuracy.graph import Graph, Unroller
from accuracy.program import Program
from lossmith.language.formula import Formula

OUTPUTS = ("value", "grad", "hessian_diag", "hvp")
DIRECTION = "v"
FAR = 2**2600
"""±∞ stands for ±10**782: what no product of floats brings back among them."""

MANY = 12
"""In rows of more classes, a few components of the Hessian are looked at."""


@dataclass(frozen=True)
class Case:
    """What a program is made for: a loss, a number of classes, a label, the components wanted.

    Attributes
    ----------
    name : str
        What tells formulas apart.
    formula : Formula
    soft : bool
        Whether a distribution stands for the label: the loss is then its expectation.
    components : tuple of int
        The classes whose second derivatives are wanted.
    product : bool
        Whether the Hessian-vector product is.
    """

    name: str
    formula: Formula = field(compare=False)
    K: int
    label: int | None
    soft: bool
    components: tuple[int, ...]
    product: bool

    @property
    def single(self) -> bool:
        return self.formula.kind == "elementwise"


def program_of(case: Case) -> Program:
    """Return what computes value, gradient, and the wanted parts of the Hessian, in this order."""
    return (_kept if case.K <= 100 else _last)(case)


@lru_cache(maxsize=600)
def _kept(case: Case) -> Program:
    return _made(case)


@lru_cache(maxsize=1)
def _last(case: Case) -> Program:
    return _made(case)


def _made(case: Case) -> Program:
    g, formula = Graph(), case.formula
    rows = {i.name: not case.single for i in formula.inputs}
    value = _expectation(g, case, rows) if case.soft else Unroller(g, case.K, case.label, rows).write(formula.expr)
    (scores,) = formula.of_role("scores")
    places = [None] if case.single else list(range(case.K))
    leaves = [g.leaf(scores.name, k) for k in places]
    first = gradient(g, value, leaves)
    chosen = [0] if case.single else list(case.components)
    second = [tangents(g, [first[k]], {leaves[k]: g.one})[0] for k in chosen]
    product: list[int] = []
    if case.product:
        seeds = {leaf: g.leaf(DIRECTION, k) for leaf, k in zip(leaves, places, strict=True)}
        product = tangents(g, [first[k] for k in chosen], seeds)
    return Program(g, [value, *first, *second, *product])


def _expectation(g: Graph, case: Case, rows: Mapping[str, bool]) -> int:
    """Return Σ_i t_i·L(s, i): the loss of a distribution in the place of the label."""
    (label,) = case.formula.of_role("label")
    at = [Unroller(g, case.K, i, rows).write(case.formula.expr) for i in range(case.K)]
    return g.sum([g.mul(g.leaf(label.name, i), value) for i, value in enumerate(at)])


def components(K: int, label: int | None, seed: int) -> tuple[int, ...]:
    """Return the classes whose second derivatives are looked at: all of a few; of many, the label's and one or two."""
    if K <= MANY:
        return tuple(range(K))
    drawn = np.random.default_rng([seed, K]).integers(K, size=1 if K > 10_000 else 2).tolist()
    return (*([] if label is None else [label]), *drawn)


# ------------------------------------------------------------------ numbers of a sample


def exact_ball(x: Any) -> Any:
    """Return a float, or a number of mpmath, as a ball of radius zero; ±∞ as ±FAR."""
    if hasattr(x, "_mpf_"):
        sign, mantissa, exponent, _ = x._mpf_
        return arb((int(-mantissa if sign else mantissa), int(exponent)))
    number = float(x)
    if np.isinf(number):
        return arb(FAR if number > 0 else -FAR)
    return arb(number)


def numbers_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return numbers and lists of numbers as exact balls."""
    return {n: [exact_ball(x) for x in v] if np.ndim(v) else exact_ball(v) for n, v in given.items()}


def bits_for(scores: np.ndarray) -> int:
    """Return a precision that will do for most rows like this one: what log Σ exp(s) − s_y and s + 1 cancel."""
    finite = np.abs(scores[np.isfinite(scores)].astype(np.float64))
    if not finite.size or not finite.max():
        return 128
    largest = float(finite.max())
    span = float(np.ptp(scores[np.isfinite(scores)].astype(np.float64))) if finite.size > 1 else largest
    return 128 + int(1.45 * min(span, 800.0)) + max(0, int(np.log2(largest)))


# ------------------------------------------------------------------ exact numbers beside floats


SCALE = 700
"""Numbers too near to the ends of float64 are kept times 2**±SCALE."""
_SMALL, _LARGE = 2.0**-900, 2.0**900

Parts: TypeAlias = tuple[float, float, int]
"""(high, low, shift): a number times 2**shift as a sum of two floats, 106 bits of it."""

UNDECIDED: Parts = (np.nan, np.nan, 1)
NOT_JUDGED: Parts = (np.nan, np.nan, 2)


def parts(x: Any) -> Parts:
    """Return a ball's midpoint in two floats; UNDECIDED for None."""
    if x is None:
        return UNDECIDED
    high = float(x)
    if _SMALL < high < _LARGE or -_LARGE < high < -_SMALL:
        return high, float(x - high), 0
    if x.is_nan():
        return np.nan, np.nan, 0
    if x == 0:
        return 0.0, 0.0, 0
    if not abs(x) < arb(2) ** 1100:
        return (np.inf if x > 0 else -np.inf), 0.0, 0
    shift = SCALE if abs(high) < 1 else -SCALE
    moved = x * arb(2) ** shift
    high = float(moved)
    return high, float(moved - high), shift
