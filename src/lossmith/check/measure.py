"""The check: run everything on the same inputs, compare with exact values, keep the worst."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.check.arithmetic import Real
from lossmith.check.interpreter import Reference, Sample, evaluate_adaptive
from lossmith.check.mparray import definition_value
from lossmith.check.precision import Unsettled
from lossmith.check.promise import Promise, base_limit, is_shift_invariant
from lossmith.check.report import CheckReport
from lossmith.check.samples import SIZES, Batch, batches, some_rows
from lossmith.check.subject import TOGETHER, Subject, other_value, soft_subject_of, subject_of
from lossmith.check.tally import Tally
from lossmith.compiler import DIRECTION
from lossmith.language.build import mul, reduce_
from lossmith.language.expr import (
    Bound,
    Derivative,
    Entry,
    Expr,
    Index,
    Reduce,
    Softmax,
    fresh,
    level_of,
    named,
    walk,
)
from lossmith.language.formula import Input, Role

if TYPE_CHECKING:
    from lossmith.loss import Loss

J = named("j")
EXACT_DIGITS = 35
"""How many digits two exact formulas must agree to."""
OWN_DIGITS = 6.0
"""How many digits a gradient written by hand must have right on ordinary rows."""
_PRODUCT_SLACK = 16
"""How much wider the limit of a Hessian-vector product is: it is a sum of several terms."""
_COMPONENTS = 4
"""How many entries are looked at in rows of many classes."""
_MANY = 12

Progress = Callable[[int, int, str], None]


def check_loss(
    loss: Loss,
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    samples: str | Sequence[Batch] = "standard",
    seed: int = 0,
    against: Any = None,
    gradient: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Compare value, gradient and Hessian of a loss with exact arithmetic.

    Kernels of every back end are held to the promise of `lossmith.check.promise`: values against
    the definition, run on numbers of 50 digits and more; derivatives against dual numbers over the
    definition's formula, which know nothing of the rules that lossmith derives by. The derived
    formulas must agree with the same to 35 digits, kinks included. Hessian-vector products are
    held to 16 times the promise on ordinary rows; on others their error is stated. A loss with a
    label is checked once more with a distribution in its place.

    Parameters
    ----------
    loss : Loss
    dtypes : sequence of str
    samples : {"standard", "quick"} or sequence of Batch
        "quick" takes every second row of three classes only.
    seed : int
        Of the inputs.
    against : Loss, str or callable, optional
        A second definition of the same loss, which must have the same values to 35 digits. A
        function of one sample is run on numbers of many digits.
    gradient : callable, optional
        Somebody's own NumPy gradient of a batch, called as gradient(scores, target): its digits are
        counted, and on ordinary rows six must be right.
    progress : callable, optional
        Called with (done, total, text).

    Returns
    -------
    CheckReport
    """
    report = check_subject(
        subject_of(loss),
        dtypes=dtypes,
        samples=samples,
        seed=seed,
        against=against,
        gradient=gradient,
        progress=progress,
    )
    if loss.label_name is None or not isinstance(samples, str):
        return report
    soft = check_subject(soft_subject_of(loss), dtypes=dtypes, samples="quick", seed=seed, progress=progress)
    named = tuple(replace(row, output=f"{row.output}, soft label") for row in soft.rows)
    problems = (*report.problems, *(f"soft label: {p}" for p in soft.problems))
    seconds = report.seconds + soft.seconds
    return CheckReport(report.name, not problems, (*report.rows, *named), problems, seconds)


def check_subject(
    subject: Subject,
    *,
    dtypes: Sequence[str] = ("float32", "float64"),
    samples: str | Sequence[Batch] = "standard",
    seed: int = 0,
    against: Any = None,
    gradient: Callable[..., Any] | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Do what `check_loss` does, with the parts of a loss given one by one."""
    start = time.perf_counter()
    work = list(_work(subject, samples, dtypes, seed))
    total, done = sum(len(batch) for batch, _ in work), 0
    check = _Check(subject, work)
    for batch, batch_dtypes in work:
        check.run_kernels(batch, batch_dtypes)
        if gradient is not None:
            check.run_own(batch, gradient)
        for row in range(len(batch)):
            check.compare_row(batch, row, against)
            done += 1
            if progress is not None:
                progress(done, total, f"{batch.K} classes, {batch.notes[row]}")
    return check.report(time.perf_counter() - start)


def _work(
    subject: Subject, samples: str | Sequence[Batch], dtypes: Sequence[str], seed: int
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """Yield batches, each with the dtypes that can express it."""
    if not isinstance(samples, str):
        yield from ((batch, tuple(dtypes)) for batch in samples)
        return
    if samples not in ("standard", "quick"):
        raise ValueError(f"samples is {samples!r}, expected 'standard', 'quick' or batches")
    size, quick = subject.fixed_size, samples == "quick"
    sizes = (size,) if size else (3,) if quick else SIZES
    large = not quick and size is None and not _couples_pairs(subject.formula.expr)
    every = 2 if quick else 1
    for batch in batches(subject.formula, np.float32, seed=seed, sizes=sizes, large=large):
        yield some_rows(batch, np.arange(0, len(batch), every)), tuple(dtypes)
    if "float64" in dtypes:
        found = batches(subject.formula, np.float64, seed=seed, sizes=sizes[-1:], large=False)
        for batch in found:
            yield some_rows(batch, np.arange(0, len(batch), every)), ("float64",)


def _couples_pairs(expr: Expr) -> bool:
    """Whether a sum over classes depends on the class of a sum around it: K² terms."""
    binders: list[Reduce | Softmax] = []
    binders += [node for node in walk(expr) if isinstance(node, Reduce | Softmax)]
    return any(
        isinstance(i, Bound) and i is not Bound(level_of(node))
        for node in binders
        for i in node.cond.free | node.body.free
    )


@dataclass
class _Row:
    """One row of a batch with what its exact results need."""

    batch: Batch
    number: int
    sample: Sample
    reference: Reference

    def describe(self, k: int | None = None) -> Callable[[], str]:
        at = "" if k is None else f"class {k} of "
        return lambda: at + self.batch.describe(self.number)


class _Check:
    """Everything counted so far."""

    def __init__(self, subject: Subject, work: list[tuple[Batch, tuple[str, ...]]]) -> None:
        self.subject, self.formula = subject, subject.formula
        self.scores = [i.name for i in self.formula.of_role("scores")]
        self.single = self.formula.kind == "elementwise"
        self.at: Index | None = None if self.single else J
        self.tallies: dict[tuple[str, str, str], Tally] = {}
        self.problems: list[str] = []
        self.results: dict[tuple[str, str, str], tuple[np.ndarray, ...]] = {}
        self.direction = np.zeros(0)
        v = Input(DIRECTION, Role("targets"))
        with_direction = replace(self.formula, inputs=(*self.formula.inputs, v))
        self.promise = Promise(with_direction, self._invariant(work))
        self.exprs = {("value", 0): self.formula.expr}
        for i, name in enumerate(self.scores):
            g = Derivative(self.formula.expr, name, self.at)
            self.exprs["grad", i] = g
            self.exprs["hessian_diag", i] = Derivative(g, name, self.at)
            self.exprs["hvp", i] = self._product(g, name)
        self.derived = {
            "grad": [subject.gradient(n) for n in self.scores],
            "hessian_diag": [subject.hessian_diag(n) for n in self.scores],
        }

    def _product(self, gradient: Expr, name: str) -> Expr:
        if self.single:
            return mul(Derivative(gradient, name, None), Entry(DIRECTION, None))
        k = fresh("k")
        return reduce_("sum", k, mul(Derivative(gradient, name, k), Entry(DIRECTION, k)))

    def _invariant(self, work: list[tuple[Batch, tuple[str, ...]]]) -> frozenset[str]:
        for batch, _ in work:
            rows = np.flatnonzero(batch.ordinary)
            if len(rows) and batch.K > 1:
                hypers = self.subject.hypers_for(batch.K)
                sample = batch.sample(int(rows[0]), hypers)
                found = (n for n in self.scores if is_shift_invariant(self.formula, n, sample))
                return frozenset(found)
        return frozenset()

    def tally(self, output: str, dtype: str, backend: str = "") -> Tally:
        key = (output, dtype, backend)
        if key not in self.tallies:
            self.tallies[key] = Tally(*key)
        return self.tallies[key]

    # -------------------------------------------------------------- kernels

    def run_kernels(self, batch: Batch, dtypes: tuple[str, ...]) -> None:
        """Run every kernel over a batch and keep the results."""
        hypers = self.subject.hypers_for(batch.K)
        first = batch.inputs[self.scores[0]]
        rng = np.random.default_rng(len(batch))
        self.direction = rng.normal(size=first.shape).astype(np.float32)
        self.results = {}
        for dtype in dtypes:
            arrays = batch.arguments(self.formula, dtype)
            for outputs in TOGETHER:
                given = [*arrays, self.direction.astype(dtype)] if "hvp" in outputs else arrays
                for backend, kernels in self.subject.kernels.items():
                    try:
                        for output, found in kernels(outputs, given, hypers).items():
                            self.results[output, dtype, backend] = found
                    except Exception as error:  # whatever it is, it is what was looked for
                        self._raised(f"{', '.join(outputs)}, {dtype}, {backend}", error, batch.K)

    def _raised(self, where: str, error: Exception, K: int) -> None:
        """Say it once, for the first batch."""
        if not any(p.startswith(where) for p in self.problems):
            text = " ".join(str(error).split())[:200]
            self.problems.append(f"{where}: raised {type(error).__name__}: {text} (K = {K})")

    def run_own(self, batch: Batch, gradient: Callable[..., Any]) -> None:
        """Run somebody's own gradient over a batch."""
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

    # -------------------------------------------------------------- rows

    def compare_row(self, batch: Batch, number: int, against: Any) -> None:
        """Compare all results for one row with the exact ones."""
        sample = batch.sample(number, self.subject.hypers_for(batch.K))
        sample = replace(sample, rows={**sample.rows, DIRECTION: self.direction[number]})
        row = _Row(batch, number, sample, Reference(sample, 40, limits=True))
        self._compare_value(row)
        for k in self._components(row):
            for i in range(len(self.scores)):
                self._compare_component(row, k, i)
        if batch.finite[number] and batch.K <= 5:
            self._compare_definitions(row, against)

    def _components(self, row: _Row) -> list[int | None]:
        if self.single:
            return [None]
        K = row.batch.K
        every: list[int | None] = [*range(K)]
        if K <= _MANY:
            return every
        by_size = np.argsort(-row.batch.inputs[self.scores[0]][row.number], kind="stable")
        label = [] if row.sample.label is None else [row.sample.label]
        chosen: list[int | None] = [*label, *(int(by_size[k]) for k in (0, 1, -1))]
        return [*dict.fromkeys(chosen)][:_COMPONENTS]

    def _compare_value(self, row: _Row) -> None:
        try:
            exact = self.subject.value(row.sample, row.reference)
        except Unsettled:
            self._undecided("value")
            return
        if exact != exact and not row.batch.finite[row.number]:
            row.reference.undefined = True  # without a limit, the whole row is NaN
        self._measure(row, "value", 0, None, exact)

    def _compare_component(self, row: _Row, k: int | None, i: int) -> None:
        at: dict[Index, int] = {} if k is None else {J: k}
        for output in ("grad", "hessian_diag", "hvp"):
            # Products take one derivative for each class, for each of them: few rows will do.
            many = row.batch.K > 3 or row.number % 3
            if output == "hvp" and (many or not row.batch.finite[row.number]):
                continue
            try:
                exact = row.reference.value(self.exprs[output, i], at)
            except Unsettled:
                self._undecided(output)
                continue
            self._measure(row, output, i, k, exact)
            if output in self.derived and row.batch.finite[row.number] and row.batch.K <= 3:
                self._compare_derived(row, output, i, k, exact)

    def _undecided(self, output: str) -> None:
        for (name, _, _), tally in self.tallies.items():
            tally.undecided += name == output

    def _measure(self, row: _Row, output: str, i: int, k: int | None, exact: Real) -> None:
        at = row.number if k is None else (row.number, k)
        expr, limits = self.exprs[output, i], dict[str, float]()

        def value_at(changed: Sample) -> Real:
            indices: dict[Index, int] = {} if k is None else {J: k}
            return Reference(changed, 20, limits=True).value(expr, indices)

        for (name, dtype, backend), arrays in self.results.items():
            if name != output or i >= len(arrays):
                continue
            got = arrays[i][at]
            tally = self.tally(self._named(output, i), dtype, backend)
            if backend == "yours":
                if row.batch.finite[row.number]:
                    needed = OWN_DIGITS if row.batch.ordinary[row.number] else 0.0
                    tally.judge(got, exact, needed, row.describe(k))
                continue

            if output == "hvp" and not row.batch.ordinary[row.number]:
                tally.judge(got, exact, 0.0, row.describe(k))
                continue
            slack = _PRODUCT_SLACK if output == "hvp" else 1

            def limit(dtype: str = dtype, slack: int = slack) -> float:
                if dtype not in limits:  # the same for every back end
                    limits[dtype] = self.promise.limit(value_at, row.sample, exact, dtype)
                return slack * limits[dtype]

            tally.measure(got, exact, slack * base_limit(row.batch.K), limit, row.describe(k))

    def _named(self, output: str, i: int) -> str:
        return output if output == "value" or len(self.scores) == 1 else f"{output} {self.scores[i]}"

    # -------------------------------------------------------------- exact against exact

    def _compare_derived(self, row: _Row, output: str, i: int, k: int | None, exact: Real) -> None:
        tally = self.tally(f"{self._named(output, i)} by rules", "exact")
        try:
            derived = row.reference.value(self.derived[output][i], {} if k is None else {J: k})
        except Unsettled:
            tally.undecided += 1
            return
        tally.compare(derived, exact, EXACT_DIGITS, row.describe(k))

    def _compare_definitions(self, row: _Row, against: Any) -> None:
        try:
            value = evaluate_adaptive(self.formula.expr, row.sample, 40)
            if self.formula.function is not None:
                own = definition_value(self.formula.function, self.formula, row.sample, 40)
                tally = self.tally("formula as the function", "exact")
                tally.compare(value, own, EXACT_DIGITS, row.describe())
            if against is not None:
                other = other_value(against, self.formula, row.sample)
                tally = self.tally("value as the other definition", "exact")
                tally.compare(value, other, EXACT_DIGITS, row.describe())
        except Unsettled:
            self._undecided("formula as the function")

    def report(self, seconds: float) -> CheckReport:
        """Return what was found."""
        tallies = list(self.tallies.values())
        problems = [*self.problems, *(t.problem() for t in tallies if not t.ok)]
        rows = tuple(t.row() for t in tallies)
        return CheckReport(self.formula.name, not problems, rows, tuple(problems), seconds)
