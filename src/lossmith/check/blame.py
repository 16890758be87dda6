"""Where digits are lost: the first sub-expression of a stabilised program that is wrong though its inputs are right.

Every sub-expression is evaluated on one row twice: with many digits, and in the dtype, one correctly rounded operation
after the other. A suspect is much further off than what goes into it. Put right by hand, one suspect mends the result:
that one is to blame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lossmith.check.arithmetic import Real, context
from lossmith.check.floats import Floats
from lossmith.check.interpreter import Sample, has_nan, ways_to_limit
from lossmith.check.jets import Jets
from lossmith.check.sweep import Sweep
from lossmith.check.ulp import Target, digits_left
from lossmith.compiler import J, outputs_for
from lossmith.language import expr as e
from lossmith.language.build import substitute
from lossmith.language.expr import Expr
from lossmith.language.formula import Formula
from lossmith.language.naming import name_fresh_indices
from lossmith.language.text import to_text

_DIGITS, _LIMIT_DIGITS = 450, 1000
_SUSPECT = 8
"""A suspect is off by so many units of roundoff, and by so many times as much as what goes into it."""
_STANDS_FOR_INFINITY = 1e300
_TRIED = 16
_LONGEST = 100


@dataclass(frozen=True)
class Blame:
    """The sub-expression that loses the digits of one number.

    Attributes
    ----------
    text : str
        The sub-expression in the notation of derivations; empty where the stabilised formula is right, and the fault
        lies with the kernel.
    what : str
        How: cancels, overflows, underflows, or is wrong.
    inputs : mapping
        Of the parts of the sub-expression: their values.
    got, exact : str
        Its value in the dtype, and the right one.
    digits : float
        How many of its digits are right.
    mended : float
        How many digits of the result would be right if it were.
    """

    text: str
    what: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    got: str = ""
    exact: str = ""
    digits: float = 0.0
    mended: float = 0.0

    def __str__(self) -> str:
        if not self.text:
            return (
                f"the stabilised formula, run operation by operation, has {self.mended:.1f} digits right there: "
                "the kernel is to blame"
            )
        parts = ", ".join(f"{name} = {value}" for name, value in self.inputs.items())
        of = f", with {parts}" if parts else ""
        cured = f"; were it right, {self.mended:.1f} digits of the result would be" if self.mended else ""
        return f"{self.text} {self.what}{of}: it gives {self.got}, exact {self.exact}{cured}"


@dataclass(frozen=True)
class _Suspect:
    expr: Expr
    at: tuple[int, ...]
    got: float
    exact: Real


def blame(
    formula: Formula, sample: Sample, output: str, i: int, k: int | None, dtype: str, promise: float = 64.0
) -> Blame | None:
    """Say which sub-expression loses the digits of one number of one row; None where nothing can be said.

    Parameters
    ----------
    formula : Formula
        The loss, as the kernels compute it.
    sample : Sample
        The row; for a Hessian-vector product with its direction among the rows.
    output : str
        value, grad, hessian_diag or hvp.
    i, k : int
        Of which input, at which class.
    dtype : float32 or float64
    promise : float
        With an error of so many units in the last place, the number is right.
    """
    if has_nan(sample):
        return None
    return _Inquiry(formula, sample, output, i, k, dtype).verdict(promise)


class _Inquiry:
    def __init__(self, formula: Formula, sample: Sample, output: str, i: int, k: int | None, dtype: str) -> None:
        self.formula, self.sample, self.k, self.dtype = formula, sample, k, dtype
        made = outputs_for(formula, (output,))[i]
        self.index = None if made.index is None else J
        self._limit = ways_to_limit(sample)[0] is not sample
        self.exactly = self._sweep(Jets(_LIMIT_DIGITS if self._limit else _DIGITS, []), ways_to_limit(sample)[0])
        self.expr = made.expr
        for at, patch in made.patches:
            if int(self.exactly._place(at)[0].flat[0]) == k:  # pyright: ignore[reportPrivateUsage]
                self.expr, self.index = patch, None
        self.floats = self._sweep(Floats(dtype, careful=True), sample)

    def _sweep(self, algebra: Any, sample: Sample) -> Sweep:
        single = self.formula.kind == "elementwise"
        inputs: dict[str, Any] = {}
        for name, row in sample.rows.items():
            numbers = np.empty((1,) if single else (1, sample.K), dtype=object)
            numbers[0] = row if single else list(row)
            inputs[name] = algebra.number(numbers)
        label = None if sample.label is None else np.array([sample.label])
        return Sweep(algebra, inputs, label, sample.hypers, 1, sample.K)

    def _result(self, sweep: Sweep) -> Any:
        with np.errstate(all="ignore"):
            data = sweep.value(self.expr, self.index)
        numbers = data.v if sweep is self.exactly else data
        return numbers.reshape(-1)[0 if self.index is None else self.k]

    def _digits(self, got: Any, exact: Any) -> float:
        return Target(exact).digits(np.dtype(self.dtype).type(got), self.dtype)

    def verdict(self, promise: float) -> Blame | None:
        exact, got = self._result(self.exactly), self._result(self.floats)
        now = self._digits(got, exact)
        if now >= digits_left(max(promise, _SUSPECT), self.dtype):
            return Blame("", mended=now)
        suspects = self._suspects()
        tried = [(self._mended(s, exact), -n, s) for n, s in enumerate(suspects[:_TRIED])]
        if not tried:
            return None
        mended, _, worst = max(tried, key=lambda t: t[:2])
        return self._described(worst, mended if mended > now + 0.3 else 0.0)

    # -------------------------------------------------------------- suspects

    def _suspects(self) -> list[_Suspect]:
        """Return them in the order of evaluation, what goes into a sub-expression before it."""
        found: list[_Suspect] = []
        unit = float(np.finfo(self.dtype).eps) / 2
        errors: dict[Any, float] = {}
        for expr, swept in self.floats.known.items():
            if not isinstance(expr, Expr) or expr not in self.exactly.known:
                continue
            suspect, error = self._furthest_off(expr, swept.axes)
            errors[expr] = error
            parts = max((errors.get(c, 0.0) for c in self._parts(expr)), default=0.0)
            if error > _SUSPECT * max(unit, parts):
                found.append(suspect)
        return found

    @staticmethod
    def _parts(expr: Expr) -> list[Expr]:
        return [c for c in e.children(expr) if isinstance(c, Expr)]

    def _furthest_off(self, expr: Expr, axes: tuple[Any, ...]) -> tuple[_Suspect, float]:
        ours, theirs = self._entries(self.floats, expr), self._entries(self.exactly, expr)
        worst, place = -1.0, (0,) * ours.ndim
        for at in np.ndindex(ours.shape):
            error = self._relative(ours[at], theirs[at])
            if error > worst:
                worst, place = error, at
        return _Suspect(expr, place, float(ours[place]), theirs[place]), worst

    def _entries(self, sweep: Sweep, expr: Expr) -> np.ndarray:
        """Return the values of a sub-expression that matter for the class k."""
        swept = sweep.known[expr]
        data = swept.data.v if sweep is self.exactly else swept.data
        if self.k is None or J not in swept.axes:
            return data
        at = 1 + swept.axes.index(J)
        return np.take(data, [self.k], axis=at)

    def _relative(self, got: Any, exact: Any) -> float:
        ctx = context(60)
        if exact != exact or got != got:
            return 0.0 if exact != exact and got != got else np.inf
        if not np.isfinite(got):
            # What stands for infinity, or is larger, is right to be infinite.
            right = got * exact > 0 and (ctx.isinf(exact) or (self._limit and abs(exact) > _STANDS_FOR_INFINITY))
            return 0.0 if right else np.inf
        if exact == 0 or not ctx.isfinite(exact):
            return 0.0 if got == exact else np.inf
        return float(abs(ctx.mpf(float(got)) - exact) / abs(exact))

    # -------------------------------------------------------------- the culprit

    def _mended(self, suspect: _Suspect, exact: Real) -> float:
        """Return how many digits are right if one sub-expression is."""
        sweep = self._sweep(Floats(self.dtype, careful=True), self.sample)
        right = self.exactly.known[suspect.expr]
        with np.errstate(all="ignore"):
            data = np.vectorize(float, otypes=[np.float64])(right.data.v)
            # Exact values of classes that do not count may be anything; those of axes in another order would not fit.
            if self.floats.known[suspect.expr].axes == right.axes:
                sweep.known[suspect.expr] = right._replace(data=data.astype(self.dtype))
        return self._digits(self._result(sweep), exact)

    def _described(self, suspect: _Suspect, mended: float) -> Blame:
        digits = self._digits(suspect.got, suspect.exact) if np.isfinite(suspect.got) else 0.0
        inputs: dict[str, str] = {}
        for part in self._parts(suspect.expr):
            if not isinstance(part, e.Const) and part in self.floats.known and len(to_text(_opened(part))) <= 40:
                values = self._entries(self.floats, part).ravel()
                shown = ", ".join(f"{float(v):.9g}" for v in values[:4])
                inputs[to_text(_opened(part))] = shown if len(values) == 1 else f"[{shown}]"
        text = to_text(_opened(suspect.expr))
        if len(text) > _LONGEST:
            text = text[: _LONGEST - 1] + "…"
        exact = _shown(suspect.exact)
        return Blame(text, self._how(suspect), inputs, f"{suspect.got:.9g}", exact, digits, mended)

    def _how(self, suspect: _Suspect) -> str:
        if not np.isfinite(suspect.got):
            return "overflows" if np.isinf(suspect.got) else "is not defined"
        if suspect.got == 0 and suspect.exact and abs(suspect.exact) < float(np.finfo(self.dtype).tiny):
            return "underflows"
        if isinstance(suspect.expr, e.Add | e.Reduce):
            return "cancels"
        return "is off"


def _opened(expr: Expr) -> Expr:
    """Return an expression whose indices, bound further out, have names."""
    outer = [i for i in expr.free if isinstance(i, e.Bound)]
    return name_fresh_indices(substitute(expr, {i: e.fresh("m") for i in outer})) if outer else expr


def _shown(number: Real) -> str:
    ctx = context(20)
    if ctx.isfinite(number) and abs(number) > ctx.mpf(10) ** 390:
        return "∞" if number > 0 else "−∞"
    return str(ctx.nstr(ctx.make_mpf(number._mpf_), 9))
