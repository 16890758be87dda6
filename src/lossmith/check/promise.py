"""What accuracy is promised: units of roundoff, and how many more an input is worth.

A result has at most 8 units of roundoff u of error, log2 K more for the sums, and what rounding the
inputs explains: changing s_k − m, the distance to the largest score, by a relative 4u, scores that
are no distances too, targets and hyperparameters by 8u. For a softmax probability p_k that is
the 8 + |s_k − m| of the design, up to a factor of 4; for p_k − t_k, where no algorithm gets all
digits, it is what cancellation costs; beside a kink it is the other slope. A second derivative is
derived twice, and its scores change by twice as much; a Hessian-vector product adds such numbers up, and its scores
change by four times as much. A power γ makes 2|γ| units more of the roundoff of its base. The limit is stated in
units in the last place: n units of roundoff are at most n of those. Among subnormal numbers, where
exp itself has lost its digits, it is n times the smallest one for every unit of distance, and half of
one more for each class: what is lost there is added up and multiplied by logarithms afterwards.

With precision="exact" a result has 1 ulp of error (float32) or 4 (float64), more only where such a change
of the inputs in the wider arithmetic, where u is 2⁻⁵³ or 2⁻¹⁰⁴, explains it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lossmith.check.arithmetic import Real, context, exactly
from lossmith.check.interpreter import Sample, evaluate_adaptive
from lossmith.check.precision import Unsettled, agree
from lossmith.check.ulp import unit_in_last_place
from lossmith.language.expr import Add, ArgReduce, Entry, Expr, Hyper, Pow, Reduce, walk
from lossmith.language.formula import Formula, Input

UNITS = 8
EXACT = {"float32": (1.0, 2.0**-53), "float64": (4.0, 2.0**-104)}
"""By dtype, how many ulp precision="exact" promises, and the roundoff of the arithmetic that it uses."""
ORDER = {"hessian_diag": 2, "hvp": 4}
"""By output, how much more the scores change than for values and gradients."""
_DIGITS = 20
_MANY = 12
"""Rows of more classes are changed at the entries that matter most only."""


def base_limit(K: int) -> float:
    """Return the limit in ulp for inputs whose rounding does not matter."""
    return UNITS + math.ceil(math.log2(max(K, 1)))


def roundoff(dtype: Any) -> float:
    """Return u, half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def is_shift_invariant(formula: Formula, name: str, sample: Sample) -> bool:
    """Whether adding a constant to the scores `name` leaves the loss as it is, at this sample."""
    row = sample.rows[name]
    if np.ndim(row) == 0 or len(row) < 2:
        return False
    moved = replace(sample, rows={**sample.rows, name: [float(x) + 0.75 for x in row]})
    try:
        return agree(evaluate_adaptive(formula.expr, sample), evaluate_adaptive(formula.expr, moved), 30)
    except Unsettled:
        return False


def _offset_of_choices(formula: Formula) -> float:
    """Return 1 if a maximum or minimum over classes adds a number to their scores, as margins do, else 0.

    Which class is the largest is then decided among sums, where scores are known to a unit of roundoff of 1 at best.
    """
    for node in walk(formula.expr):
        if isinstance(node, ArgReduce | Reduce) and node.op in ("max", "min") and isinstance(node.body, Add):
            scores = {i.name for i in formula.of_role("scores")}
            if not all(any(isinstance(n, Entry) and n.name in scores for n in walk(t)) for t in node.body.terms):
                return 1.0
    return 0.0


class Promise:
    """The limits of one loss.

    Parameters
    ----------
    formula : Formula
    invariant : frozenset of str
        The inputs of which only differences matter.
    """

    def __init__(self, formula: Formula, invariant: frozenset[str]) -> None:
        self.formula, self.invariant = formula, invariant
        self._offset = _offset_of_choices(formula)

    def limit(
        self,
        value_at: Callable[[Sample], Real],
        sample: Sample,
        exact: Real,
        dtype: Any,
        *,
        order: int = 1,
        precision: str = "fast",
    ) -> float:
        """Return the limit in ulp for one result, with what rounding the inputs explains.

        Parameters
        ----------
        value_at : callable
            The exact result at a sample.
        sample : Sample
            The inputs.
        exact : number
            The exact result there.
        dtype : float32 or float64
        order : {1, 2, 4}
            How much more the scores change: 2 for second derivatives, 4 for Hessian-vector products.
        precision : {"fast", "exact"}
        """
        ctx = context(60)
        base, u = base_limit(sample.K) + self._of_powers(sample), roundoff(dtype)
        if precision == "exact":
            base, u = EXACT[np.dtype(dtype).name]
        if not ctx.isfinite(exact):
            return base
        change = ctx.mpf(0)
        for pair in self._changed(sample, u, order):
            change += max(abs(v - exact) for v in self._finite_values(value_at, pair))
        ulps = change / unit_in_last_place(exact, dtype)
        limit = base + (float(ulps) if ulps < 1e300 else math.inf)
        distance = 1 + self._largest_distance(sample)
        if exact and abs(exact) < float(np.finfo(dtype).tiny) * distance:
            limit = (limit + (sample.K / 2 if precision == "fast" else 0)) * distance
        return limit

    def _of_powers(self, sample: Sample) -> float:
        """Return what powers make of the roundoff of their base: two units, times the exponent."""
        exponents = {
            n.exponent.name for n in walk(self.formula.expr) if isinstance(n, Pow) and isinstance(n.exponent, Hyper)
        }
        return sum(2 * abs(float(sample.hypers[name])) for name in exponents)

    def _largest_distance(self, sample: Sample) -> float:
        """Return the largest |s_k − m| that an exponential survives; |s_k| where that counts."""
        found = 0.0
        for item in self.formula.of_role("scores"):
            row = np.atleast_1d(np.array([float(x) for x in np.atleast_1d(sample.rows[item.name])]))
            finite = row[np.isfinite(row)]
            if len(finite):
                origin = finite.max() if item.name in self.invariant else 0.0
                found = max(found, float(np.abs(finite - origin).max()))
        return min(found, 750.0)

    @staticmethod
    def _finite_values(value_at: Callable[[Sample], Real], samples: list[Sample]) -> list[Real]:
        ctx, found = context(60), [context(60).mpf(0)]
        for changed in samples:
            try:
                value = value_at(changed)
            except Unsettled:
                continue
            found.append(value if ctx.isfinite(value) else ctx.mpf(0))
        return found[1:] or found

    def _changed(self, sample: Sample, u: float, order: int) -> Iterator[list[Sample]]:
        """Yield, for every number in it, the sample with a little more and a little less of it."""
        for item in self.formula.inputs:
            if item.role.kind != "label":
                for k, steps in self._steps(item, sample, u * order if item.role.kind == "scores" else u):
                    row = sample.rows[item.name]
                    number = exactly(row if k is None else row[k], context(60))
                    yield [sample.with_entry(item.name, k, number + step) for step in steps]
        for name, value in sample.hypers.items():
            if np.ndim(value) == 0 and value:
                number = exactly(value, context(60))
                changed = [number * (1 + UNITS * u), number * (1 - UNITS * u)]
                yield [replace(sample, hypers={**sample.hypers, name: v}) for v in changed]
            elif np.ndim(value) == 1 and len(value) <= _MANY:
                numbers = [exactly(x, context(60)) for x in value]
                for k, number in enumerate(numbers):
                    rows = [[*numbers[:k], number * factor, *numbers[k + 1 :]] for factor in (1 + 2 * u, 1 - 2 * u)]
                    yield [replace(sample, hypers={**sample.hypers, name: row}) for row in rows]

    def _steps(self, item: Input, sample: Sample, u: float) -> Iterator[tuple[int | None, list[Real]]]:
        ctx, row = context(60), sample.rows[item.name]
        entries: list[int | None] = [None] if np.ndim(row) == 0 else list(range(len(row)))
        numbers = [exactly(x, ctx) for x in np.atleast_1d(row)]
        finite = [x for x in numbers if ctx.isfinite(x)]
        if not finite:
            return
        origin = max(finite) if item.name in self.invariant else ctx.mpf(0)
        # The entries of a distribution were rounded, unless they are 0 and 1: none is known better
        # than its sum, however small it is.
        unsure = ctx.mpf(0)
        if item.role.domain == "simplex" and any(x not in (0, 1) for x in finite):
            unsure = max(abs(sum(finite) - 1), ctx.mpf(u))
        real_scores = item.role.kind == "scores" and item.role.domain == "real"
        least = 4 * u * self._offset if real_scores else 0.0
        size = (4 if real_scores else UNITS) * u
        if len(entries) > _MANY:
            by_size = sorted(range(len(numbers)), key=lambda k: -numbers[k])
            entries = [*by_size[: _MANY // 2]]
            if sample.label is not None and sample.label not in entries:
                entries.append(sample.label)
            # The class whose derivative it is.
            entries += [k for k in sample.indices.values() if k not in entries]
        for k in entries:
            number = numbers[k or 0]
            step = max(abs(number - origin) * size, unsure, least)
            if ctx.isfinite(number) and step:
                yield k, self._inside(item, number, step)

    @staticmethod
    def _inside(item: Input, number: Real, step: Real) -> list[Real]:
        """Drop the step that leaves the domain."""
        steps = [step, -step]
        if item.role.domain == "real":
            return steps
        most = 1 if item.role.domain in ("unit", "simplex") else math.inf
        return [s for s in steps if 0 <= number + s <= most]


def promise(formula: Formula, sample: Sample, expr: Expr, dtype: Any, *, limits: bool = False) -> float:
    """Return how many ulp of error `expr`, a part of the loss, has at most by our promise.

    Parameters
    ----------
    formula : Formula
        The loss.
    sample : Sample
        The inputs, with the free indices of `expr` set.
    expr : Expr
        The loss, or a component of its gradient or Hessian.
    dtype : float32 or float64
    limits : bool
        As for `Reference`.
    """
    scores = [i.name for i in formula.of_role("scores")]
    invariant = frozenset(n for n in scores if is_shift_invariant(formula, n, sample))

    def value_at(changed: Sample) -> Real:
        return evaluate_adaptive(expr, changed, _DIGITS, limits=limits)

    return Promise(formula, invariant).limit(value_at, sample, value_at(sample), dtype)
