"""The arrays of one work, and the form in which contestants give their answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.works import Work

SEED = 20
OPTIONS: dict[str, Callable[[np.random.Generator, Work], dict[str, Any]]] = {
    "": lambda random, work: {},
    "class_weight": lambda random, work: {"class_weight": random.uniform(0.5, 2.0, work.classes).astype(work.dtype)},
    "ignore_index": lambda random, work: {"ignore_index": 0},
    "label_smoothing": lambda random, work: {"label_smoothing": 0.1},
    "sample_weight": lambda random, work: {"sample_weight": random.uniform(0.5, 2.0, work.shape[0]).astype(work.dtype)},
    "soft targets": lambda random, work: {},
    "precision=exact": lambda random, work: {"precision": "exact"},
}
"""What each option passes to lossmith; peers read it from there."""

TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
_BLOCK = 1 << 20

Answer = Mapping[str, Any]
"""Names of outputs ("value", "grad", "hessian_diag", "hvp") and what they are, with reduction="mean"."""


@dataclass(frozen=True)
class Ready:
    """A contestant set up for one problem.

    Attributes
    ----------
    run : callable
        What is timed.
    answer : callable
        Turns what `run` returned into an Answer.
    library : bool
        Whether the peer has this loss under a name; otherwise it is written out in the peer's functions.
    before, after : callable
        Run around each turn, untimed.
    pause : bool
        Whether it leaves threads behind that go on spinning for a while.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Answer] | None
    library: bool = True
    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    pause: bool = False


@dataclass(frozen=True)
class Problem:
    """The inputs of one work, as NumPy arrays.

    Attributes
    ----------
    work : Work
    threads : int
    scores : array
    target : array or None
        Labels (int64) or targets.
    options : mapping
        As lossmith takes them.
    """

    work: Work
    threads: int
    scores: np.ndarray
    target: np.ndarray | None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """Scores, and the target if the loss has one."""
        return (self.scores,) if self.target is None else (self.scores, self.target)

    @property
    def soft(self) -> bool:
        """Whether a distribution stands for the label."""
        return self.work.option == "soft targets"

    @cached_property
    def direction(self) -> np.ndarray:
        """The vector of a Hessian-vector product."""
        return np.random.default_rng(SEED + 1).standard_normal(self.work.shape).astype(self.work.dtype)

    @property
    def streams(self) -> int:
        """How many arrays of the scores' size are read or written, at the least."""
        read = 1 + (self.target is not None and self.target.shape == self.scores.shape) + (self.work.task == "hvp")
        written = {"value": 0, "grad_and_hessian_diag": 2}.get(self.work.task, 1)
        return read + written

    def plain(self) -> Problem:
        """Return the same problem with hard labels and without options."""
        target = self.target
        if self.soft and target is not None:
            target = target.argmax(axis=1)
        return replace(self, work=replace(self.work, option=""), target=target, options={})


def make_problem(work: Work, threads: int) -> Problem:
    """Return ordinary inputs for a work: normal scores, targets in their domain, the same at every run."""
    random = np.random.default_rng(SEED)
    first, *others = _definition(work).inputs
    scores = _array(first.role.domain, work, random)
    target: np.ndarray | None = None
    if others:
        label = others[0].role.kind == "label"
        if label and work.option != "soft targets":
            target = random.integers(0, work.classes, work.shape[0])
        else:
            target = _array("simplex" if label else others[0].role.domain, work, random)
    return Problem(work, threads, scores, target, OPTIONS[work.option](random, work))


def _definition(work: Work) -> Any:
    from lossmith.losses import CATALOGUE

    return CATALOGUE[work.loss].definition


def _array(domain: str, work: Work, random: np.random.Generator) -> np.ndarray:
    found = random.standard_normal(work.shape, dtype=np.dtype(work.dtype).type)
    if domain == "unit":
        found = 1 / (1 + np.exp(-found))
    elif domain == "simplex":
        found = np.exp(found)
        found /= found.sum(axis=-1, keepdims=True)
    elif domain == "sign":
        found = np.where(found > 0, 1.0, -1.0)
    elif domain in ("nonnegative", "positive"):
        found = np.exp(found)
    return found.astype(work.dtype, copy=False)


def difference(found: Answer, expected: Answer, dtype: str) -> str:
    """Return what is wrong with an answer, "" if nothing is.

    Arrays are compared relative to the largest entry of their row (of an elementwise loss: of all elements).
    """
    for name, wanted in expected.items():
        if name not in found:
            return f"has no {name}"
        error = _relative_error(np.asarray(found[name]), np.asarray(wanted))
        if not error <= TOLERANCE[dtype]:
            return f"{name} differs from lossmith's by {error:.1e}, relative"
    return ""


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if expected.ndim < 2:
        scale = np.max(np.abs(expected), initial=0.0)
        return float(np.max(np.abs(found - expected), initial=0.0) / scale) if scale else float("inf")
    worst, step = 0.0, max(1, _BLOCK // expected.shape[1])
    for start in range(0, len(expected), step):
        mine, theirs = expected[start : start + step], found[start : start + step]
        scale = np.max(np.abs(mine), axis=1)
        error = np.max(np.abs(theirs - mine), axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = np.where(error == 0, 0.0, error / scale)
        worst = float(np.max([worst, np.max(relative)]))  # a NaN stays
    return worst
