"""One batch of random rows: run the kernels, ask the oracle, keep the worst."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, ctx

from accuracy.confirm import as_mpf, confirm
from accuracy.draw import Rows, draw
from accuracy.judge import Exact, Place, Worst, limits_by_distance, relative_errors, stacked, ulp_errors
from accuracy.oracle import (
    DIRECTION,
    FAR,
    MANY,
    NOT_JUDGED,
    Case,
    Parts,
    bits_for,
    components,
    numbers_of,
    parts,
    program_of,
)
from accuracy.program import MOST_BITS, largest, settled
from lossmith import Loss
from lossmith.check.arithmetic import context, exactly
from lossmith.check.interpreter import Sample, evaluate
from lossmith.check.promise import EXACT, ORDER, UNITS, Promise, base_limit, is_shift_invariant
from lossmith.check.samples import in_short
from lossmith.evaluation import BACKEND
from lossmith.language.expr import Bound, Reduce, Softmax, level_of, walk
from lossmith.language.formula import Formula, Input, Role

PRECISIONS = ("fast", "exact")
NEAR = 1800.0
CLOSE = {"fast": 0.75, "exact": 1.0}
"""Up to this share of the cheap limits, the full one is not worked out."""
LONG, MOST_EXPLAINED = 10_000, 8
"""Of rows of more than LONG classes so many numbers of each output get the full limit, which takes seconds there: those
farthest beyond the cheap one. The others beyond it count as undecided."""
SHOWN = 5
_REPORTED = 5
"""So many broken promises of one output are described in full."""


class _Promise(Promise):
    """The promise, where every entry of a Hessian has the error of an exponential before it is multiplied and added."""

    def _steps(self, item: Input, sample: Sample, u: float) -> Iterator[tuple[int | None, list[Any]]]:
        more = 1 + self._largest_distance(sample) / UNITS if item.name == DIRECTION else 1
        for k, steps in super()._steps(item, sample, u):
            yield k, [more * step for step in steps]

    def _changed(self, sample: Sample, u: float, order: int) -> Iterator[list[Sample]]:
        """Yield, for rows of which not every score is changed by itself, also all of them changed together."""
        yield from super()._changed(sample, u, order)
        if sample.K > MANY:
            (item,) = self.formula.of_role("scores")
            row = [exactly(x, context(60)) for x in sample.rows[item.name]]
            origin = max(row) if item.name in self.invariant else 0
            both = [[x + 4 * sign * u * order * (x - origin) if abs(x) < FAR else x for x in row] for sign in (1, -1)]
            yield [replace(sample, rows={**sample.rows, item.name: changed}) for changed in both]


@dataclass(frozen=True)
class Job:
    """What one batch is: everything follows from it."""

    loss: str
    number: int
    dtype: str
    K: int
    rows: int
    soft: bool = False
    product: bool = False
    backends: tuple[str, ...] = ("numba",)
    seed: int = 0
    confirmed: int = 0
    """So many rows are also worked out by lossmith.check, on mpmath."""

    @property
    def rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(self.loss.encode()), self.number])


@dataclass
class Found:
    """What a batch showed: the worst of each (dtype, precision, back end, output), and broken promises in words."""

    rows: int
    worst: dict[tuple[str, str, str, str], Worst]
    broken: list[str]
    confirmed: int = 0
    seconds: float = 0.0


def measure(loss: Loss, job: Job) -> Found:
    """Measure one batch."""
    rows = draw(loss.definition, job.rng, job.rows, job.K, job.dtype, soft=job.soft)
    chunk = Chunk(loss, job, rows)
    found = chunk.measured()
    found.confirmed = sum(confirm(chunk, row) for row in range(min(job.confirmed, job.rows)))
    return found


class Chunk:
    """A batch with its exact results.

    Parameters
    ----------
    loss : Loss
        Whose kernels run, and whose definition the oracle evaluates.
    job : Job
    rows : Rows
    """

    def __init__(self, loss: Loss, job: Job, rows: Rows) -> None:
        self.loss, self.job, self.rows = loss, job, rows
        arrays = {n: 1 for n, v in rows.hypers.items() if np.ndim(v)}
        self.formula: Formula = loss.variant(arrays, False, False, {}) if arrays else loss.definition
        self.single = self.formula.kind == "elementwise"
        self.name = f"{job.loss} {sorted(arrays)}"
        (self.scores,) = self.formula.of_role("scores")
        self.finite = np.isfinite(rows.inputs[self.scores.name]).reshape(len(rows), -1).all(axis=1)
        self._given = {n: a.astype(np.float64).tolist() for n, a in rows.inputs.items()}
        self._given[DIRECTION] = rows.direction.astype(np.float64).tolist()
        self._hypers = numbers_of(rows.hypers)
        self._sensitivity: dict[Any, list[Any]] = {}
        self._fixed_components = components(job.K, None, job.number)

    # -------------------------------------------------------------- exactly

    def case(self, row: int) -> Case:
        """Return what the program for a row depends on."""
        soft = self.rows.soft
        label = None if self.rows.label is None or soft else int(self.rows.label[row])
        chosen = self._fixed_components if label is None else components(self.job.K, label, self.job.number)
        return Case(self.name, self.formula, self.job.K, label, soft, chosen, self.job.product)

    def sample(self, row: int) -> Sample:
        """Return a row as lossmith.check takes it."""
        rows: dict[str, Any] = {name: array[row] for name, array in self.rows.inputs.items()}
        rows[DIRECTION] = self.rows.direction[row]
        if self.rows.soft:
            assert self.rows.label is not None
            rows[self.formula.of_role("label")[0].name] = self.rows.label[row]
        return Sample(rows, self.case(row).label, self.rows.hypers, self.job.K)

    def numbers(self, row: int) -> dict[str, Any]:
        """Return the inputs of a row as exact balls."""
        given = {name: values[row] for name, values in self._given.items()}
        if self.rows.soft:
            assert self.rows.label is not None
            given[self.formula.of_role("label")[0].name] = self.rows.label[row].astype(np.float64).tolist()
        return {**numbers_of(given), **self._hypers}

    def exact(self, row: int) -> list[Parts]:
        """Return the exact results of a row: value, gradient, the wanted parts of Hessian diagonal and product."""
        scores = self.rows.inputs[self.scores.name][row]
        masked = np.flatnonzero(np.atleast_1d(np.isneginf(scores))).tolist()
        if len(masked) < 2:
            found = self._defined(self._settled(row, self.numbers(row)), row)
            # A row of −∞ alone is NaN, and so is one of one class, though its limit may be a number.
            return [NOT_JUDGED] * len(found) if len(masked) == self.job.K else found
        ways: list[list[Parts]] = []
        for step in (0, 1, -1):  # a limit must not depend on which score falls fastest
            numbers = self.numbers(row)
            for k in masked:
                numbers[self.scores.name][k] = -arb(FAR) * (self.job.K + 1 + step * k)
            ways.append(self._settled(row, numbers))
        nothing = (np.nan, np.nan, 0) if len(masked) == self.job.K else NOT_JUDGED
        common = [one[0] if len({x[0] for x in one}) == 1 else nothing for one in zip(*ways, strict=True)]
        return self._defined(common, row)

    def _settled(self, row: int, numbers: dict[str, Any]) -> list[Parts]:
        """Return the results at these numbers, and 0 for what is too small to tell from it.

        That is what is tiny with scores at most NEAR below the largest already. Only (1 − p_y)^γ with a lead of 1e30
        needs this; it falls with the lead.
        """
        program = program_of(self.case(row))
        found = settled(program, numbers, bits_for(np.atleast_1d(self.rows.inputs[self.scores.name][row])))
        if None in found and self._steepness:
            ctx.prec = MOST_BITS
            scores = numbers[self.scores.name]
            nearest = largest(*scores) - NEAR / self._steepness
            near = settled(program, {**numbers, self.scores.name: [largest(x, nearest) for x in scores]}, MOST_BITS)
            tiny = [x is not None and bool(abs(x) < arb(2) ** -1100) for x in near]
            found = [arb(0) if x is None and small else x for x, small in zip(found, tiny, strict=True)]
        return [parts(x) for x in found]

    def _defined(self, found: list[Parts], row: int) -> list[Parts]:
        """Where the loss has no value, nothing else has."""
        undefined = np.isnan(found[0][0]) and found[0][2] == 0 and not self.finite[row]
        return [(np.nan, np.nan, 0)] * len(found) if undefined else found

    # -------------------------------------------------------------- comparing

    def measured(self) -> Found:
        """Run the kernels and compare everything."""
        count = len(self.rows)
        chosen = [np.zeros(1, int) if self.single else np.array(self.case(r).components) for r in range(count)]
        K = 1 if self.single else self.job.K
        exact_rows = [self.exact(r) for r in range(count)]
        width = len(exact_rows[0])
        second = len(chosen[0])
        blocks = {"value": [0], "grad": list(range(1, K + 1)), "hessian_diag": list(range(K + 1, K + 1 + second))}
        if self.job.product:
            blocks["hvp"] = list(range(width - second, width))
        exact = {output: stacked(exact_rows, columns) for output, columns in blocks.items()}
        at = {"grad": np.tile(np.arange(K), (count, 1)), "hessian_diag": np.array(chosen), "hvp": np.array(chosen)}
        found = Found(count, {}, [])
        for backend in self.job.backends:
            for precision in PRECISIONS:
                for output, got in self._results(backend, precision):
                    if output == "value":
                        picked = got.reshape(count, 1)
                    else:
                        picked = np.take_along_axis(got.reshape(count, K), at[output], axis=1)
                    key = self.job.dtype, precision, backend, output
                    found.worst[key] = self._compare(key, picked, exact, at.get(output), blocks, found.broken)
        return found

    def _results(self, backend: str, precision: str) -> Iterator[tuple[str, np.ndarray]]:
        arguments = [
            self.rows.label if i.role.kind == "label" else self.rows.inputs[i.name] for i in self.formula.inputs
        ]
        defaults = {h.name: h.default for h in self.loss.definition.hypers}
        given = {n: v for n, v in self.rows.hypers.items() if np.ndim(v) or v != defaults[n]}
        options = {**given, "reduction": "none", "precision": precision}
        before = os.environ.get(BACKEND)
        os.environ[BACKEND] = backend
        try:
            value, grad = self.loss.value_and_grad(*arguments, **options)
            yield "value", np.asarray(value)
            yield "grad", grad
            yield "hessian_diag", self.loss.hessian_diag(*arguments, **options)
            if self.job.product:
                yield "hvp", self.loss.hvp(*arguments, self.rows.direction, **options)
        finally:
            if before is None:
                del os.environ[BACKEND]
            else:
                os.environ[BACKEND] = before

    def _compare(
        self,
        key: Any,
        got: np.ndarray,
        all_exact: dict[str, Exact],
        at: np.ndarray | None,
        blocks: Any,
        broken: list[str],
    ) -> Worst:
        dtype, precision, _, output = key
        exact = all_exact[output]
        errors, decided = ulp_errors(got, exact), exact.decided.copy()
        if output == "hvp":  # an infinite score times a direction has no limit to speak of
            decided = decided & self.finite[:, None]
            beyond = all_exact["hessian_diag"].overflows(got.dtype)  # where an entry of the Hessian does, a product may
            decided = decided & ~(np.isinf(got) & beyond)
        errors = np.where(decided, errors, 0.0)
        spoilt = np.zeros(errors.shape, dtype=bool)
        limits, shares = self._cheap(got, exact, errors, at, dtype, precision)
        finite = np.isfinite(got) & np.isfinite(exact.high)
        spoilt = finite & (shares > 1)
        doubtful = sorted(zip(*np.nonzero(finite & (shares > CLOSE[precision])), strict=True), key=lambda p: -shares[p])
        most = MOST_EXPLAINED if self.job.K > LONG else len(doubtful)
        for row, column in doubtful[:most]:
            k = None if at is None or self.single else int(at[row, column])
            explained = self._explained(
                int(row), blocks[output][int(column)], k, dtype, precision, ORDER.get(output, 1)
            )
            limits[row, column] = explained
            # Beside a kink where the result is 0, the other slope is infinitely many units off.
            infinite = math.isinf(limits[row, column])
            shares[row, column] = 0.0 if infinite else errors[row, column] / limits[row, column]

        left_out = [p for p in doubtful[most:] if shares[p] > 1]
        for p in left_out:
            shares[p], decided[p] = 0.0, False

        def largest(figures: np.ndarray) -> Place:
            where = np.unravel_index(np.argmax(figures), figures.shape)
            return Place(float(figures[where]), float(limits[where]), place(where))

        def place(where: Any) -> str:
            row, column = where
            k = None if at is None or self.single else int(at[row, column])
            number = exact.high[row, column] * 2.0 ** -float(exact.shift[row, column])
            return self.describe(row, k, got[row, column], number)

        broken_at = list(zip(*np.nonzero(shares > 1), strict=True))
        for where in broken_at[:_REPORTED]:
            said = f"{errors[where]:.4g} ulp, promised {limits[where]:.4g}"
            broken.append(f"{' '.join(key)}: {said}, in batch {self.job.number}, row {where[0]}, {place(where)}")
        worst = largest(np.where(spoilt, 0.0, errors)), largest(shares)
        undecided = int(exact.undecided.sum()) + len(left_out)
        return Worst(int(decided.sum()), *worst, int(spoilt.sum()), undecided, len(broken_at))

    # -------------------------------------------------------------- what is promised

    def _cheap(
        self, got: np.ndarray, exact: Exact, errors: np.ndarray, at: np.ndarray | None, dtype: str, precision: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return limits that are easily had, and the shares of them.

        The limit of lossmith.check.promise takes many exact results; it is worked out where these do not do.
        """
        base = EXACT[dtype][0] if precision == "exact" else float(base_limit(self.job.K))
        limits = np.full(errors.shape, base)
        shares = errors / limits
        if precision == "fast" and self._steepness:
            scores = self.rows.inputs[self.scores.name]
            relative, promised = relative_errors(got, exact), limits_by_distance(scores, self._steepness)
            promised = promised.min(axis=1, keepdims=True) if at is None else np.take_along_axis(promised, at, axis=1)
            nearer = relative / promised < shares
            limits, shares = np.where(nearer, promised, limits), np.where(nearer, relative / promised, shares)
        return limits, shares

    @cached_property
    def _steepness(self) -> float:
        """Return what the scores are multiplied with in a softmax: 1, or 1/τ; 0 for a loss without one."""
        for node in walk(self.formula.expr):
            match node:
                case Softmax(body=body) | Reduce("logsumexp", body=body):
                    ones = Sample({self.scores.name: np.ones(1)}, None, self.rows.hypers)
                    at = {Bound(level_of(node)): 0}
                    return abs(float(evaluate(body, replace(ones, indices=at), 20)))
                case _:
                    pass
        return 0.0

    @cached_property
    def _invariant(self) -> frozenset[str]:
        if self.single or self.job.K < 2:
            return frozenset()
        some = np.array([0.5, 0.125, 0.375])  # to which a constant can be added without rounding
        rows = {i.name: some for i in self.formula.inputs if i.role.kind != "label"}
        hypers = {n: v[:1].repeat(3) if np.ndim(v) else v for n, v in self.rows.hypers.items()}
        sample = Sample(rows, 1 if self.formula.of_role("label") else None, hypers, 3)
        return frozenset([self.scores.name] if is_shift_invariant(self.formula, self.scores.name, sample) else [])

    def _explained(self, row: int, column: int, k: int | None, dtype: str, precision: str, order: int) -> float:
        """Return the limit of lossmith.check.promise, which counts what rounding the inputs changes."""
        inputs = tuple(self._as_targets(i) for i in self.formula.inputs)
        if self.job.product:
            inputs = (*inputs, Input(DIRECTION, Role("targets")))
        sample, case = self.sample(row), self.case(row)
        program, bits = program_of(case), bits_for(np.atleast_1d(sample.rows[self.scores.name]))

        def value_at(changed: Sample) -> Any:
            given = {**changed.rows, **changed.hypers}
            key = row, *(tuple(v) if np.ndim(v) else v for v in given.values())
            if key not in self._sensitivity:
                if len(self._sensitivity) > 1000:
                    self._sensitivity.clear()
                self._sensitivity[key] = settled(program, numbers_of(given), bits)
            return as_mpf(self._sensitivity[key][column])

        if k is not None:
            sample = sample.at(j=k)
        promise = _Promise(replace(self.formula, inputs=inputs), self._invariant)
        exact = value_at(sample)
        return float(promise.limit(value_at, sample, exact, dtype, order=order, precision=precision))

    def _as_targets(self, item: Input) -> Input:
        soft = item.role.kind == "label" and self.rows.soft
        return Input(item.name, Role("targets", "simplex")) if soft else item

    # -------------------------------------------------------------- words

    def describe(self, row: int, k: int | None, got: Any, exact: float) -> str:
        """Return a row in words and numbers."""
        said = [] if k is None else [f"class {k}"]
        said += [f"K = {self.job.K}"] if self.job.K > 5 else []
        if self.rows.label is not None:
            said.append(f"y = {in_short(self.rows.label[row], SHOWN)}")
        said += [f"{name} = {in_short(array[row], SHOWN)}" for name, array in self.rows.inputs.items()]
        said += [f"{name} = {in_short(value, SHOWN)}" for name, value in self.rows.hypers.items()]
        return f"{self.rows.kinds[row]}: {', '.join(said)}; got {got:.9g}, exact {exact:.9g}"
