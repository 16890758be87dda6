"""Results of a batch beside the exact ones: every output, from every back end, row by row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lossmith.check.arithmetic import Real
from lossmith.check.blame import Blame, blame
from lossmith.check.exact import Exact
from lossmith.check.interpreter import Reference, Sample, evaluate_adaptive
from lossmith.check.ledger import OURS, Ledger
from lossmith.check.mparray import definition_value
from lossmith.check.precision import Unsettled
from lossmith.check.promise import ORDER, Promise, base_limit, is_shift_invariant
from lossmith.check.report import CheckReport
from lossmith.check.samples import REGIONS, Batch
from lossmith.check.subject import TOGETHER, NotCompiled, Subject, other_value
from lossmith.check.tally import Tally
from lossmith.check.ulp import Target
from lossmith.compiler import DIRECTION, J
from lossmith.errors import UnsupportedError
from lossmith.language.expr import Index
from lossmith.language.formula import Input, Role

EXACT_DIGITS = 35
"""How many digits two exact formulas must agree to."""
OWN_DIGITS = 6.0
"""How many digits a gradient written by hand must have right on ordinary rows."""
OUTPUTS = ("grad", "hessian_diag", "hvp")
_PRODUCT_SLACK = 16
"""How much wider the limit of a Hessian-vector product is: it is a sum of several terms."""
_UNSTEADY = 1000
"""A number that may be off by so many times the usual limit hangs on how its inputs were rounded."""
_COMPONENTS = 4
"""How many entries are looked at in rows of many classes."""
_MANY = 12
_KINDS = 3
"""So many kinds of inputs are named where a promise is broken."""


@dataclass(frozen=True)
class Row:
    """One row of a batch."""

    batch: Batch
    number: int
    sample: Sample
    classes: tuple[int | None, ...]

    @property
    def finite(self) -> bool:
        """Whether the row has no infinities and no NaN."""
        return bool(self.batch.finite[self.number])

    @property
    def ordinary(self) -> bool:
        """Whether naive code does well too."""
        return bool(self.batch.ordinary[self.number])

    @property
    def region(self) -> str:
        """The kind of the row."""
        return self.batch.regions[self.number]


@dataclass(frozen=True)
class Place:
    """Where a number stands: in a row, of the input number i, at the class k. Called, it says so in words."""

    row: Row
    i: int = 0
    k: int | None = None

    def __call__(self) -> str:
        at = "" if self.k is None else f"class {self.k} of "
        return at + self.row.batch.describe(self.row.number)


class _Truth:
    """The exact results for a row, and at inputs that differ a little."""

    def __init__(self, subject: Subject, row: Row, directed: bool, undefined: bool) -> None:
        self._row, self._subject = row, subject
        self.undefined = undefined
        self._direction = row.sample.rows[DIRECTION] if directed else None
        self._known: dict[Any, Exact] = {}
        self.exact = self._at(row.sample, 40)

    def _at(self, sample: Sample, digits: int) -> Exact:
        rows = {n: r for n, r in sample.rows.items() if n != DIRECTION}
        direction = None if self._direction is None else sample.rows[DIRECTION]
        return Exact(self._subject.formula, replace(sample, rows=rows), self._row.classes, direction, digits)

    def changed(self, sample: Sample, output: str, place: Place) -> Real:
        """Return a number at a sample near the row's; the same samples serve all outputs."""
        rows = (tuple(np.atleast_1d(np.asarray(r, dtype=object))) for r in sample.rows.values())
        hypers = (v for v in sample.hypers.values() if np.ndim(v) == 0)
        key = (*rows, *hypers)
        if key not in self._known:
            self._known[key] = self._at(sample, 20)
        return self._known[key].near(self.exact, output, place.i, place.k)

    @cached_property
    def reference(self) -> Reference:
        """What evaluates the derived formulas."""
        return Reference(self._row.sample, 40, limits=True)


class Comparison:
    """Everything counted so far.

    Parameters
    ----------
    subject : Subject
    work : list of Batch
        What will be compared; which inputs matter by their differences alone is found out on the first ordinary row.
    """

    def __init__(self, subject: Subject, work: list[Batch]) -> None:
        self.subject, self.formula = subject, subject.formula
        self.scores = [i.name for i in self.formula.of_role("scores")]
        self.single = self.formula.kind == "elementwise"
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        self.ledger = Ledger()
        self.wrong: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.skipped: dict[str, str] = {}
        self.results: dict[tuple[str, str, str], tuple[np.ndarray, ...]] = {}
        self.sides: dict[tuple[str, str, str], tuple[np.ndarray, ...]] = {}
        self.direction = np.zeros(0)
        v = Input(DIRECTION, Role("targets"))
        with_direction = replace(self.formula, inputs=(*self.formula.inputs, v))
        invariant = self._invariant(work)
        self.promise = Promise(self.formula, invariant)
        self.promise_of_product = Promise(with_direction, invariant)
        self.derived = {
            "grad": [subject.gradient(n) for n in self.scores],
            "hessian_diag": [subject.hessian_diag(n) for n in self.scores],
        }

    def _invariant(self, work: list[Batch]) -> frozenset[str]:
        for batch in work:
            rows = np.flatnonzero(batch.ordinary)
            if len(rows) and batch.K > 1:
                sample = batch.sample(int(rows[0]), self.subject.hypers_for(batch.K))
                found = (n for n in self.scores if is_shift_invariant(self.formula, n, sample))
                return frozenset(found)
        return frozenset()

    def tally(self, output: str, dtype: str, backend: str = "") -> Tally:
        """Return what counts one output in one dtype from one back end."""
        key = (output, dtype, backend)
        if key not in self.tallies:
            self.tallies[key] = Tally(*key)
        return self.tallies[key]

    # -------------------------------------------------------------- what is compared

    def run(self, batch: Batch, dtypes: tuple[str, ...], gradient: Callable[..., Any] | None) -> None:
        """Compute a batch with every kernel, with the other sides' code, and with somebody's own gradient."""
        hypers = self.subject.hypers_for(batch.K)
        first = batch.inputs[self.scores[0]]
        rng = np.random.default_rng(len(batch))
        self.direction = rng.normal(size=first.shape).astype(np.float32)
        self.results, self.sides = {}, {}
        for dtype in dtypes:
            arrays = batch.arguments(self.formula, dtype)
            for outputs in TOGETHER:
                given = [*arrays, self.direction.astype(dtype)] if "hvp" in outputs else arrays
                for backend, kernels in self.subject.kernels.items():
                    try:
                        with np.errstate(all="ignore"):  # what comes of it is compared
                            found = kernels(outputs, given, hypers)
                        self.results.update({(output, dtype, backend): f for output, f in found.items()})
                    except NotCompiled:
                        self.skipped[f"{' and '.join(outputs)} in {dtype}"] = backend
                    except UnsupportedError as error:
                        self._note(f"{', '.join(outputs)} could not be checked: {' '.join(str(error).split())}")
                    except Exception as error:  # whatever it is, it is what was looked for
                        self._raised(f"{', '.join(outputs)}, {dtype}, {backend}", error, batch.K)
            self._run_sides(batch, dtype, hypers)
        if gradient is not None:
            self._run_own(batch, gradient)

    def _raised(self, where: str, error: Exception, K: int) -> None:
        """Say it once, for the first batch."""
        if not any(p.startswith(where) for p in self.problems):
            text = " ".join(str(error).split())[:200]
            self.problems.append(f"{where}: raised {type(error).__name__}: {text} (K = {K})")

    def _run_sides(self, batch: Batch, dtype: str, hypers: Mapping[str, Any]) -> None:
        inputs = {**batch.inputs, DIRECTION: self.direction}
        for side, run in self.subject.sides.items():
            try:
                for output, found in run(dtype, inputs, batch.label, hypers, batch.K).items():
                    self.sides[output, dtype, side] = found
            except Exception as error:  # a side that cannot run costs its column alone
                self._note(f"{side} could not run the definition: {' '.join(str(error).split())[:120]}")

    def _note(self, said: str) -> None:
        if said not in self.notes:
            self.notes.append(said)

    def _run_own(self, batch: Batch, gradient: Callable[..., Any]) -> None:
        with np.errstate(all="ignore"):
            found = gradient(*batch.arguments(self.formula, "float64"))
        arrays = found if isinstance(found, tuple) else (found,)
        expected = batch.inputs[self.scores[0]].shape
        if any(np.shape(a) != expected for a in arrays):
            shapes = ", ".join(str(np.shape(a)) for a in arrays)
            problem = f"your gradient has shape {shapes}, expected {expected} like the scores"
            self.problems.append(f"{problem} (K = {batch.K})")
            return
        self.results["grad", "float64", "yours"] = tuple(np.asarray(a) for a in arrays)

    # -------------------------------------------------------------- row by row

    def compare_row(self, batch: Batch, number: int, against: Any) -> None:
        """Compare all results for one row with the exact ones."""
        sample = batch.sample(number, self.subject.hypers_for(batch.K))
        sample = replace(sample, rows={**sample.rows, DIRECTION: self.direction[number]})
        row = Row(batch, number, sample, self._classes(batch, number, sample.label))
        value = self._value(row)
        undefined = self._may_be_undefined(row) or (value is not None and value != value and not row.finite)
        truth = _Truth(self.subject, row, row.finite and batch.K <= _MANY, undefined)
        if value is not None:
            self._measure(truth, "value", Place(row), value)
        for k in row.classes:
            for i in range(len(self.scores)):
                self._compare_component(truth, Place(row, i, k))
        if row.finite and batch.K <= 5:
            self._compare_definitions(row, against)

    def _may_be_undefined(self, row: Row) -> bool:
        """Whether the row is NaN by the table of special values, even if targets of zero leave a limit."""
        rows = [np.atleast_1d(row.sample.rows[name]) for name in self.scores]
        return not self.single and any(np.isneginf(r).all() or np.isposinf(r).sum() > 1 for r in rows)

    def _classes(self, batch: Batch, number: int, label: int | None) -> tuple[int | None, ...]:
        if self.single:
            return (None,)
        if batch.K <= _MANY:
            return tuple(range(batch.K))
        by_size = np.argsort(-batch.inputs[self.scores[0]][number], kind="stable")
        chosen = [*([] if label is None else [label]), *(int(by_size[k]) for k in (0, 1, -1))]
        return tuple([*dict.fromkeys(chosen)][:_COMPONENTS])

    def _value(self, row: Row) -> Real | None:
        rows = {n: r for n, r in row.sample.rows.items() if n != DIRECTION}
        try:
            return self.subject.value(replace(row.sample, rows=rows))
        except Unsettled:
            self._undecided("value")
            return None

    def _compare_component(self, truth: _Truth, place: Place) -> None:
        row = place.row
        for output in OUTPUTS:
            # Products are sums over all classes.
            if output == "hvp" and (row.batch.K > _MANY or not row.finite):
                continue
            try:
                exact = truth.exact.value(output, place.i, place.k)
            except Unsettled:
                self._undecided(output)
                continue
            self._measure(truth, output, place, exact)
            if output in self.derived and row.finite and row.batch.K <= 3:
                self._compare_derived(truth, output, place, exact)

    def _undecided(self, output: str) -> None:
        for (name, _, _), tally in self.tallies.items():
            tally.undecided += name == output

    def _measure(self, truth: _Truth, output: str, place: Place, exact: Real) -> None:
        """Hold one number to the promise, in every dtype and from every back end; and count the digits of all."""
        row, limits = place.row, dict[str, float]()
        known, nowhere = Target(exact), Target(np.nan)
        at = row.number if place.k is None else (row.number, place.k)
        promise = self.promise_of_product if output == "hvp" else self.promise

        def value_at(changed: Sample) -> Real:
            return truth.changed(changed, output, place)

        def limit(dtype: str) -> float:
            if dtype not in limits:  # the same for every back end
                limits[dtype] = promise.limit(value_at, row.sample, exact, dtype, order=ORDER.get(output, 1))
            return limits[dtype]

        ours, wrong = dict[str, float](), set[str]()
        base = base_limit(row.batch.K)
        slack = _PRODUCT_SLACK if output == "hvp" else 1
        for (name, dtype, backend), arrays in self.results.items():
            if name != output or place.i >= len(arrays):
                continue
            got = arrays[place.i][at]
            # Where the value has no limit, the whole row may be NaN.
            target = nowhere if truth.undefined and got != got else known
            tally = self.tally(self._named(output, place.i), dtype, backend)
            if backend == "yours":
                if row.finite:
                    tally.judge(got, target, OWN_DIGITS if row.ordinary else 0.0, place)
                continue
            if output == "hvp" and not row.ordinary:
                tally.judge(got, target, 0.0, place)
            elif not tally.measure(got, target, slack * base, lambda dtype=dtype: slack * limit(dtype), place):
                wrong.add(dtype)
            ours[dtype] = min(ours.get(dtype, np.inf), target.digits(got, dtype))
        for dtype in wrong:
            self.wrong[self._named(output, place.i), dtype][row.region] += 1
        self._enter(output, place, at, known, ours, base, limit)

    def _enter(
        self,
        output: str,
        place: Place,
        at: Any,
        target: Target,
        ours: Mapping[str, float],
        base: float,
        limit: Callable[[str], float],
    ) -> None:
        """Enter the digits of all sides, unless the number hangs on the rounding of its inputs."""
        if not self.subject.sides:
            return
        for dtype, digits in ours.items():
            full = target.full(dtype)
            few = digits < full - np.log10(4 * base) and np.isfinite(float(target.exact))
            if few and limit(dtype) > _UNSTEADY * base:
                self.ledger.unsteady += 1
                continue
            self.ledger.add(OURS, output, dtype, place.row.region, digits)
            for (name, of, side), arrays in self.sides.items():
                if name == output and of == dtype and place.i < len(arrays):
                    found = target.digits(arrays[place.i][at], dtype)
                    self.ledger.add(side, output, dtype, place.row.region, found)

    def _named(self, output: str, i: int) -> str:
        return output if output == "value" or len(self.scores) == 1 else f"{output} {self.scores[i]}"

    # -------------------------------------------------------------- exact against exact

    def _compare_derived(self, truth: _Truth, output: str, place: Place, exact: Real) -> None:
        tally = self.tally(f"{self._named(output, place.i)} by rules", "exact")
        at: dict[Index, int] = {} if place.k is None else {J: place.k}
        try:
            derived = truth.reference.value(self.derived[output][place.i], at)
        except Unsettled:
            tally.undecided += 1
            return
        tally.compare(derived, exact, EXACT_DIGITS, place)

    def _compare_definitions(self, row: Row, against: Any) -> None:
        if self.formula.function is None and against is None:
            return
        try:
            value = evaluate_adaptive(self.formula.expr, row.sample, 40)
            if self.formula.function is not None:
                own = definition_value(self.formula.function, self.formula, row.sample, 40)
                tally = self.tally("formula as the function", "exact")
                tally.compare(value, own, EXACT_DIGITS, Place(row))
            if against is not None:
                other = other_value(against, self.formula, row.sample)
                tally = self.tally("value as the other definition", "exact")
                tally.compare(value, other, EXACT_DIGITS, Place(row))
        except Unsettled:
            self._undecided("formula as the function")

    # -------------------------------------------------------------- what was found

    def report(self, seconds: float) -> CheckReport:
        """Return what was found."""
        tallies = list(self.tallies.values())
        broken: dict[tuple[str, str], list[Tally]] = {}
        for tally in tallies:
            if not tally.ok:
                broken.setdefault((tally.output, tally.dtype), []).append(tally)
        if self.skipped:
            left = "; ".join(self.skipped)
            self._note(f"not checked, because compiling takes long: the Numba kernels of {left}; thorough checks wait")
        problems, blames = [*self.problems], list[Blame]()
        if not problems and not any(t.backend and t.cases for t in tallies):
            problems.append("no kernel could be run, and nothing was compared")
        for (output, dtype), same in broken.items():
            found = self._blames(output, dtype, same[0])
            blames += found
            problems.append(self._problem(same, self.wrong[output, dtype], found))
        return CheckReport(
            self.formula.name,
            not problems,
            tuple(t.row() for t in tallies),
            tuple(problems),
            seconds,
            digits=self.ledger.digits(),
            unsteady=self.ledger.unsteady,
            notes=tuple(self.notes),
            blames=tuple(blames),
        )

    @staticmethod
    def _problem(same: list[Tally], regions: Counter[str], found: list[Blame]) -> str:
        """Return what is said of one output in one dtype; back ends that are wrong together are named together."""
        said = [same[0].problem(" and ".join(t.backend for t in same))]
        if regions:
            kinds = [f"{r} ({REGIONS.get(r, r)}): {_times(n)}" for r, n in regions.most_common(_KINDS)]
            more = len(regions) - len(kinds)
            said.append("where: " + "; ".join(kinds) + (f"; and {more} more" if more > 0 else ""))
        said += [f"why: {reason}" for reason in found]
        return "\n  ".join(said)

    def _blames(self, output: str, dtype: str, tally: Tally) -> list[Blame]:
        """Return who is to blame for the worst result, and for the worst that is a number, where there is one."""
        cases = (tally.worst, tally.worst_finite) if dtype != "exact" and tally.backend != "yours" else ()
        found: dict[str, Blame] = {}
        for case in cases:
            if case is not None and isinstance(case.describe, Place):
                reason = self._blame(output.split()[0], dtype, case.describe, case.promise or 0.0)
                if reason is not None:
                    found.setdefault(reason.text, reason)
        return list(found.values())

    def _blame(self, output: str, dtype: str, place: Place, promise: float) -> Blame | None:
        sample = place.row.sample
        if output != "hvp":
            sample = replace(sample, rows={n: r for n, r in sample.rows.items() if n != DIRECTION})
        try:
            return blame(self.subject.compiled, sample, output, place.i, place.k, dtype, promise)
        except Exception:  # the verdict stands without its reason
            return None


def _times(n: int) -> str:
    return "1 number" if n == 1 else f"{n} numbers"
