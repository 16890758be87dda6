"""The oracle beside lossmith's interpreter: two ways to an exact result, on two libraries."""

from __future__ import annotations

from typing import Any

from accuracy.oracle import MANY, program_of
from accuracy.program import settled
from lossmith.check.arithmetic import context, exactly
from lossmith.check.interpreter import Reference
from lossmith.check.precision import Unsettled, agree
from lossmith.language.expr import Derivative, named


def as_mpf(ball: Any) -> Any:
    """Return the midpoint of a ball as a number of mpmath, NaN for what is undecided."""
    numbers = context(60)
    if ball is None or ball.is_nan():
        return numbers.nan
    if not ball.is_finite():
        return numbers.inf if ball > 0 else -numbers.inf
    return exactly(ball, numbers)


class OracleError(AssertionError):
    """The two oracles disagree: nothing else that was measured counts."""


def confirm(chunk: Any, row: int) -> bool:
    """Compare the oracle's results for a row with those of lossmith.check; False where those are not to be had.

    Raises
    ------
    OracleError
        If they differ in the 20th digit.
    """
    if chunk.rows.soft or chunk.job.K > MANY or not chunk.finite[row]:
        return False
    sample, case = chunk.sample(row), chunk.case(row)
    reference, at = Reference(sample, 30), None if chunk.single else named("j")
    first = Derivative(chunk.formula.expr, chunk.scores.name, at)
    second = Derivative(first, chunk.scores.name, at)
    places: list[dict[Any, int]] = [{}] if at is None else [{at: k} for k in range(case.K)]
    wanted = [(chunk.formula.expr, {}), *((first, p) for p in places), *((second, p) for p in places)]
    found = settled(program_of(case), chunk.numbers(row), 200)
    for (expr, indices), ours in zip(wanted, found, strict=False):
        try:
            theirs = reference.value(expr, indices)
        except Unsettled:
            return False
        if ours is None:  # not decided, and counted as that elsewhere
            return False
        if not agree(as_mpf(ours), theirs, 20):
            raise OracleError(f"the oracles disagree, {ours} and {theirs}, at {chunk.describe(row, None, 0.0, 0.0)}")
    return True
