"""lossmith itself, and other ways to call it that a work is compared with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.problem import Answer, Problem, Ready

NAME, REUSED = "lossmith", "lossmith, out="
THREADS = "LOSSMITH_NUM_THREADS"


def version() -> str:
    """Return the version of lossmith."""
    import lossmith

    return lossmith.__version__


def prepare(problem: Problem, reuse: bool = False) -> Ready | None:
    """Return the call of the work, with fresh output arrays or with `out=`."""
    import lossmith
    from lossmith.losses import CATALOGUE

    work = problem.work
    loss = lossmith.loss(work.formula) if work.formula else CATALOGUE[work.loss]
    arguments: tuple[Any, ...] = problem.arguments
    options = dict(problem.options)
    method: Callable[..., Any] = loss if work.task == "value" else getattr(loss, work.task)
    if work.task == "hvp":
        arguments = (*arguments, problem.direction)
    if reuse:
        if work.task == "value":
            return None
        made = [np.zeros_like(problem.scores) for _ in range(2 if work.task == "grad_and_hessian_diag" else 1)]
        options["out"] = made[0] if len(made) == 1 else tuple(made)
    return Ready(lambda: method(*arguments, **options), lambda raw: _answer(work.task, raw))


def prepare_reused(problem: Problem) -> Ready | None:
    """Return the call with `out=`."""
    return prepare(problem, reuse=True)


def prepare_baseline(problem: Problem) -> Ready | None:
    """Return the other call that the work names as its baseline."""
    work = problem.work
    match work.baseline:
        case "plain":
            return _unchecked(prepare(problem.plain()))
        case "catalogue":
            return _unchecked(prepare(replace(problem, work=replace(work, formula=""))))
        case "value_and_grad":
            return _unchecked(prepare(replace(problem, work=replace(work, task="value_and_grad"))))
        case "one thread":
            if problem.threads < 2:
                return None
            ready = _unchecked(prepare(problem))
            return replace(
                ready,
                before=lambda: os.environ.__setitem__(THREADS, "1"),
                after=lambda: os.environ.__setitem__(THREADS, str(problem.threads)),
            )
        case _:
            return None


def _unchecked(ready: Ready | None) -> Ready:
    assert ready is not None
    return replace(ready, answer=None)


def _answer(task: str, raw: Any) -> Answer:
    if task == "value":
        return {"value": raw}
    if task == "value_and_grad":
        return {"value": raw[0], "grad": raw[1]}
    if task == "grad_and_hessian_diag":
        return {"grad": raw[0], "hessian_diag": raw[1]}
    return {task: raw}
