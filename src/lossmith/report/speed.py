"""How fast a generated kernel is, beside what a tutorial's NumPy code needs for the same numbers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossmith.errors import LossmithError
from lossmith.kernels.runtime import has_numba
from lossmith.language.formula import Formula, Input
from lossmith.loss import Loss
from lossmith.report.backends import Evaluator, fixed_classes
from lossmith.report.naive import naive_function, naive_source

ROW_SHAPES = ((4096, 10), (1024, 100), (256, 1000))
ELEMENT_SHAPES = ((10_000,), (100_000,), (1_000_000,))
_ROUNDS = 31
_BUDGET = 0.8
"""Seconds for one shape; slow contenders then run less often."""
_LOOP_ROWS = 256
"""The loop over samples is timed on so many of them; its time is proportional to their number."""


@dataclass(frozen=True)
class SpeedRow:
    """Median times for one shape.

    Attributes
    ----------
    shape : tuple of int
        Of the scores.
    seconds : mapping of str to float
        Of each contender that ran.
    """

    shape: tuple[int, ...]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Speed:
    """Times of value and gradient together.

    Attributes
    ----------
    contenders : tuple of str
        In the order of the table.
    rows : tuple of SpeedRow
    naive_source : str
        The code of the naive contenders; empty if there is none.
    threads : int
        How many threads the Numba kernels may use.
    remark : str
        What is missing, and why.
    """

    contenders: tuple[str, ...]
    rows: tuple[SpeedRow, ...]
    naive_source: str
    threads: int
    remark: str = ""

    def ratio(self, row: SpeedRow) -> float | None:
        """Return how many times as long the naive batch code takes as the fastest kernel."""
        if NAIVE not in row.seconds:
            return None
        return row.seconds[NAIVE] / min(v for k, v in row.seconds.items() if k in (NUMBA, NUMPY))


NUMBA, NUMPY = "kernel, Numba", "kernel, NumPy"
NAIVE, LOOP = "naive NumPy, whole batch", "naive NumPy, loop over samples"


def measure_speed(loss: Loss, shapes: Sequence[tuple[int, ...]] | None = None, *, seed: int = 0) -> Speed:
    """Time kernels and naive code in turns, on the same float32 arrays.

    Parameters
    ----------
    loss : Loss
    shapes : sequence of tuple, optional
        Of the scores.
    seed : int
        Of the numbers.

    Returns
    -------
    Speed
        Medians of interleaved runs, so that whatever else the machine does meets all alike. The
        arguments have been checked before; arrays for the results are made within the time.
    """
    from lossmith.kernels.threads import available_threads

    elementwise = loss.kind == "elementwise"
    classes = fixed_classes(loss)
    default = ROW_SHAPES if classes is None else tuple((n, classes) for n in (256, 4096, 65536))
    shapes = shapes or (ELEMENT_SHAPES if elementwise else default)
    formula = loss.display_formula()
    remark, source = "", ""
    try:
        source = naive_source(formula)
    except LossmithError as error:
        remark = f"There is no naive code to compare with: {error}"
    backends = [NUMBA, NUMPY] if has_numba() else [NUMPY]
    if not has_numba():
        remark = f"Numba is not installed: its kernels are not in the table. {remark}".strip()
    evaluators = {b: Evaluator(loss, "numba" if b == NUMBA else "numpy") for b in backends}
    random = np.random.default_rng(seed)
    rows: list[SpeedRow] = []
    for shape in shapes:
        arguments = random_arguments(formula, shape, random)
        calls: dict[str, Callable[[], Any]] = {}
        for name, evaluator in evaluators.items():
            calls[name] = evaluator.call(arguments, ("value", "grad"))
        if source:
            calls |= _naive_calls(loss, formula, arguments, loop=not elementwise)
        rows.append(SpeedRow(shape, _medians(calls, shape)))
    contenders = [c for c in (NUMBA, NUMPY, NAIVE, LOOP) if c in rows[0].seconds]
    return Speed(tuple(contenders), tuple(rows), source, available_threads(), remark)


def _naive_calls(loss: Loss, formula: Formula, arguments: tuple[Any, ...], loop: bool) -> dict[str, Callable[[], Any]]:
    defaults = loss._defaults  # pyright: ignore[reportPrivateUsage]
    hypers = {h.name: defaults.get(h.name, h.default) for h in formula.hypers}
    whole, single = naive_function(formula), naive_function(formula, batch=False)

    def batch() -> Any:
        with np.errstate(all="ignore"):
            return whole(*arguments, **hypers)

    def over_samples() -> None:
        n = min(len(arguments[0]), _LOOP_ROWS)
        values, gradient = np.empty(n), np.empty_like(arguments[0][:n])
        with np.errstate(all="ignore"):
            for i in range(n):
                values[i], gradient[i], *_ = single(*(a[i] for a in arguments), **hypers)

    return {NAIVE: batch, LOOP: over_samples} if loop else {NAIVE: batch}


def _medians(calls: Mapping[str, Callable[[], Any]], shape: tuple[int, ...]) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in calls.values():  # machine code is made, and memory mapped, before the clock runs
        run()
        run()
    end = time.perf_counter() + _BUDGET
    for turn in range(_ROUNDS):
        for name, run in calls.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
        if turn >= 2 and time.perf_counter() > end:
            break
    found = {name: statistics.median(taken) for name, taken in times.items()}
    if LOOP in found:
        found[LOOP] *= max(1.0, shape[0] / _LOOP_ROWS)
    return found


def random_arguments(
    formula: Formula, shape: tuple[int, ...], random: np.random.Generator, dtype: Any = np.float32
) -> tuple[Any, ...]:
    """Return arguments of ordinary size, each in its domain."""
    return tuple(_random_argument(item, shape, random, dtype) for item in formula.inputs)


def _random_argument(item: Input, shape: tuple[int, ...], random: np.random.Generator, dtype: Any) -> Any:
    if item.role.kind == "label":
        return random.integers(0, shape[-1], shape[0])
    normal = random.standard_normal(shape)
    match item.role.domain:
        case "unit":
            found = 1 / (1 + np.exp(-normal))
        case "simplex":
            found = np.exp(normal)
            found /= found.sum(axis=-1, keepdims=True) if normal.ndim > 1 else 1.0
        case "sign":
            found = np.where(normal > 0, 1.0, -1.0)
        case "nonnegative" | "positive":
            found = np.exp(normal)
        case "above -1":
            found = np.expm1(normal)
        case _:
            found = normal
    return found.astype(dtype)
