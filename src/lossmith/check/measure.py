"""The check: run everything on the same inputs, compare with exact values, keep the worst."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.check.compared import Comparison
from lossmith.check.report import CheckReport
from lossmith.check.samples import Batch, batches, some_rows
from lossmith.check.subject import Subject, soft_subject_of, subject_of
from lossmith.language.expr import Bound, Expr, Fixed, Reduce, Softmax, level_of, walk

if TYPE_CHECKING:
    from lossmith.loss import Loss

PATIENCE = 4.0
"""So many seconds are spent on compiling, unless the check is to be thorough; kernels kept on disk need none."""

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
    samples : {"standard", "quick", "thorough"} or sequence of Batch
        "quick" takes every second row of three classes only; "thorough" takes twice the rows of two classes, and more
        of the soft labels, which it runs on every back end; "standard" runs those on the NumPy kernels.
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
        subject_of(loss, PATIENCE if samples in ("standard", "quick") else math.inf),
        dtypes=dtypes,
        samples=samples,
        seed=seed,
        against=against,
        gradient=gradient,
        progress=progress,
    )
    if loss.label_name is None or not isinstance(samples, str):
        return report
    soft = _soft(loss, samples, dtypes, seed, progress)
    named = tuple(replace(row, output=f"{row.output}, soft label") for row in soft.rows)
    problems = (*report.problems, *(f"soft label: {p}" for p in soft.problems))
    seconds = report.seconds + soft.seconds
    blames = (*report.blames, *soft.blames)
    rows = (*report.rows, *named)
    return replace(report, ok=not problems, rows=rows, problems=problems, blames=blames, seconds=seconds)


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
    check = Comparison(subject, [batch for batch, _ in work])
    for batch, batch_dtypes in work:
        check.run(batch, batch_dtypes, gradient)
        for row in range(len(batch)):
            check.compare_row(batch, row, against)
            done += 1
            if progress is not None:
                progress(done, total, f"{batch.K} classes, {batch.notes[row]}")
    return check.report(time.perf_counter() - start)


def _soft(loss: Loss, samples: str, dtypes: Sequence[str], seed: int, progress: Progress | None) -> CheckReport:
    """Check a loss with a distribution in the place of its label."""
    subject, chosen = soft_subject_of(loss), "quick"
    if samples == "thorough":
        chosen = "standard"
    else:  # compiling takes longer than all the rest
        subject = replace(subject, kernels={"numpy": subject.kernels["numpy"]})
    return check_subject(subject, dtypes=dtypes, samples=chosen, seed=seed, progress=progress)


_EVERY: Mapping[str, Mapping[int, int]] = {"quick": {3: 2}, "standard": {2: 2, 3: 1}, "thorough": {2: 1, 3: 1}}
"""Of the rows with so many classes, which: every, or every second one."""


def _work(
    subject: Subject, samples: str | Sequence[Batch], dtypes: Sequence[str], seed: int
) -> Iterator[tuple[Batch, tuple[str, ...]]]:
    """Yield batches, each with the dtypes that can express it."""
    if not isinstance(samples, str):
        yield from ((batch, tuple(dtypes)) for batch in samples)
        return
    if samples not in _EVERY:
        raise ValueError(f"samples is {samples!r}, expected {', '.join(map(repr, _EVERY))} or batches")
    size, every = subject.fixed_size, _EVERY[samples]
    least = 1 + max((node.number for node in walk(subject.formula.expr) if isinstance(node, Fixed)), default=0)
    sizes = (size,) if size else tuple(dict.fromkeys(max(K, least) for K in every))
    large = samples != "quick" and size is None and not _couples_pairs(subject.formula.expr)
    for batch in batches(subject.formula, np.float32, seed=seed, sizes=sizes, large=large):
        if least > batch.K:  # it has no class of the number that the formula names
            continue
        yield some_rows(batch, np.arange(0, len(batch), every.get(batch.K, 1))), tuple(dtypes)
    if "float64" in dtypes:
        found = batches(subject.formula, np.float64, seed=seed, sizes=sizes[-1:], large=False)
        for batch in found:
            yield some_rows(batch, np.arange(0, len(batch), every.get(batch.K, 1))), ("float64",)


def _couples_pairs(expr: Expr) -> bool:
    """Whether a sum over classes depends on the class of a sum around it: K² terms."""
    binders: list[Reduce | Softmax] = []
    binders += [node for node in walk(expr) if isinstance(node, Reduce | Softmax)]
    return any(
        isinstance(i, Bound) and i is not Bound(level_of(node))
        for node in binders
        for i in node.cond.free | node.body.free
    )
