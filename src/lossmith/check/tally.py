"""Keeping count: the worst of many comparisons, and what the wrong ones have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lossmith.check.arithmetic import context, exactly
from lossmith.check.precision import agree
from lossmith.check.report import CheckRow
from lossmith.check.ulp import Target, digits_left

_EXAMINED = 12
"""So many wrong results are looked at closely; more would only take time."""

_KEPT = 200


class Case(NamedTuple):
    """One comparison: how its error compares with its limit, both in ulp, and where it was."""

    ratio: float
    ulp: float | None
    promise: float | None
    digits: float
    describe: Callable[[], str]
    got: Any
    exact: Any


class Tally:
    """The comparisons of one output in one dtype."""

    def __init__(self, output: str, dtype: str, backend: str = "") -> None:
        self.output, self.dtype, self.backend = output, dtype, backend
        self.cases, self.undecided, self.wrong = 0, 0, 0
        self.worst: Case | None = None
        self.worst_finite: Case | None = None
        """The worst of the wrong results that are numbers, where the worst of all is infinite or NaN."""
        self._wrong_pairs: list[tuple[float, float]] = []

    def measure(
        self,
        got: Any,
        exact: Any,
        base: float,
        limit: Callable[[], float],
        describe: Callable[[], str],
    ) -> bool:
        """Compare a float with the exact value: `limit` is asked only where `base` does not do.

        Returns
        -------
        bool
            Whether it is within the limit.
        """
        target = exact if isinstance(exact, Target) else Target(exact)
        ulp = target.ulp(got, np.asarray(got).dtype)
        promise = base
        if ulp > base and self.wrong < _EXAMINED and np.isfinite(got):
            promise = max(base, limit())
        # Without a limit, anything finite will do: the input lies at a kink where the result is 0.
        ratio = 0.0 if math.isinf(promise) else ulp / promise
        digits = digits_left(ulp, np.asarray(got).dtype)
        return self._add(Case(ratio, ulp, promise, digits, describe, got, target.exact))

    def compare(self, a: Any, b: Any, digits: int, describe: Callable[[], str]) -> None:
        """Compare two numbers that should agree to so many digits."""
        right = agree(a, b, digits)
        found = float(digits) if right else _common_digits(a, b)
        ratio = 0.0 if right else math.inf
        self._add(Case(ratio, None, None, found, describe, a, b))

    def judge(self, got: Any, exact: Any, digits: float, describe: Callable[[], str]) -> None:
        """Compare a float of which no more is expected than that many digits are right."""
        target = exact if isinstance(exact, Target) else Target(exact)
        ulp = target.ulp(got, np.asarray(got).dtype)
        found = digits_left(ulp, np.asarray(got).dtype)
        ratio = math.inf if found < digits else 1 / (1 + found)
        self._add(Case(ratio, ulp, None, found, describe, got, target.exact))

    def _add(self, case: Case) -> bool:
        self.cases += 1
        right = case.ratio <= 1
        if not right:
            self.wrong += 1
            finite = math.isfinite(case.got) and math.isfinite(case.exact)
            if finite and (self.worst_finite is None or _rank(case) > _rank(self.worst_finite)):
                self.worst_finite = case
            if len(self._wrong_pairs) < _KEPT:
                self._wrong_pairs.append((float(case.got), float(case.exact)))
        if self.worst is None or _rank(case) > _rank(self.worst):
            self.worst = case
        return right

    @property
    def ok(self) -> bool:
        return self.wrong == 0

    def row(self) -> CheckRow:
        """Return the line of the table."""
        w = self.worst or Case(0, None, None, 0, lambda: "nothing compared", 0, 0)
        counts = (self.cases, self.undecided, self.ok)
        return CheckRow(self.output, self.dtype, self.backend, w.ulp, w.promise, w.digits, w.describe(), *counts)

    def problem(self, backends: str = "") -> str:
        """Return the sentence that says what is wrong, naming all back ends that are."""
        assert self.worst is not None
        w = self.worst
        where = ", ".join(filter(None, [self.output, self.dtype, backends or self.backend]))
        if w.ulp is not None and math.isinf(w.ulp):
            what = "wrong"
        elif w.promise is not None:
            what = f"off by {w.ulp:.3g} ulp where {w.promise:.3g} are promised"
        else:
            what = f"{w.digits:.1f} digits agree"
        got, exact = _shown(w.got), _shown(w.exact)
        said = f"{where}: {what}, got {got}, exact {exact}, at {w.describe()}; "
        said += f"{self.wrong} of {self.cases} numbers are wrong"
        cause = self._cause()
        return f"{said}. {cause}" if cause else f"{said}."

    def _cause(self) -> str:
        """Return what all wrong results have in common, if it is a sign or a factor."""
        ratios = [g / e for g, e in self._wrong_pairs if e and math.isfinite(g / e)]
        if len(ratios) < max(3, len(self._wrong_pairs) // 2):
            return ""
        middle = float(np.median(ratios))
        same = [r for r in ratios if abs(r - middle) <= 1e-4 * abs(middle)]
        if len(same) < 0.9 * len(ratios) or abs(middle - 1) < 1e-3:
            return ""
        if abs(middle + 1) < 1e-4:
            return "The sign is wrong."
        return "They are zero." if middle == 0 else f"A factor of {middle:.6g} is too much."


def _rank(case: Case) -> tuple[float, float]:
    return (math.inf if math.isnan(case.ratio) else case.ratio), -case.digits


def _common_digits(a: Any, b: Any) -> float:
    ctx = context(60)
    a, b = exactly(a, ctx), exactly(b, ctx)
    if not (ctx.isfinite(a) and ctx.isfinite(b)) or a == -b:
        return 0.0
    return max(0.0, float(-ctx.log10(abs(a - b) / max(abs(a), abs(b)))))


def _shown(x: Any) -> str:
    ctx = context(20)
    number = exactly(x, ctx)
    # What stands for a limit has hundreds of digits in its exponent.
    if ctx.isfinite(number) and abs(number) > ctx.mpf(10) ** 390:
        return "∞" if number > 0 else "−∞"
    if abs(number) < ctx.mpf(10) ** -390:
        return "0.0"
    return str(ctx.nstr(number, 10))
