"""Plain NumPy as tutorials write it: for the common losses by hand, for the others the derived formulas as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problem import Problem, Ready

NAME = "NumPy"
Array = np.ndarray


def version() -> str:
    """Return the version of NumPy."""
    return np.__version__


def _softmax(s: Array) -> Array:
    e = np.exp(s - s.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def cross_entropy_value(s: Array, y: Array) -> Any:
    p = _softmax(s)
    return {"value": -np.log(p[np.arange(len(y)), y]).mean()}


def cross_entropy(s: Array, y: Array) -> Any:
    p = _softmax(s)
    n = len(y)
    value = -np.log(p[np.arange(n), y]).mean()
    p[np.arange(n), y] -= 1
    return {"value": value, "grad": p / n}


def cross_entropy_second(s: Array, y: Array) -> Any:
    p = _softmax(s)
    n = len(y)
    hessian = p * (1 - p) / n
    p[np.arange(n), y] -= 1
    return {"grad": p / n, "hessian_diag": hessian}


def cross_entropy_hvp(s: Array, y: Array, v: Array) -> Any:
    p = _softmax(s)
    return {"hvp": p * (v - (p * v).sum(axis=1, keepdims=True)) / len(y)}


def multiclass_hinge(s: Array, y: Array) -> Any:
    n = len(y)
    margins = np.maximum(0, s - s[np.arange(n), y][:, None] + 1)
    margins[np.arange(n), y] = 0
    grad = (margins > 0).astype(s.dtype)
    grad[np.arange(n), y] = -grad.sum(axis=1)
    return {"value": margins.sum() / n, "grad": grad / n}


def logistic(s: Array, t: Array) -> Any:
    p = 1 / (1 + np.exp(-s))
    return {"value": -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p)), "grad": (p - t) / s.size}


def squared_error(s: Array, t: Array) -> Any:
    return {"value": np.mean((s - t) ** 2), "grad": 2 * (s - t) / s.size}


def absolute_error(s: Array, t: Array) -> Any:
    return {"value": np.mean(np.abs(s - t)), "grad": np.sign(s - t) / s.size}


def huber(s: Array, t: Array) -> Any:
    r = s - t
    small = np.abs(r) <= 1
    value = np.where(small, r**2 / 2, np.abs(r) - 0.5).mean()
    return {"value": value, "grad": np.where(small, r, np.sign(r)) / s.size}


WRITTEN: dict[tuple[str, str], Callable[..., Any]] = {
    ("cross_entropy", "value"): cross_entropy_value,
    ("cross_entropy", "value_and_grad"): cross_entropy,
    ("cross_entropy", "grad_and_hessian_diag"): cross_entropy_second,
    ("cross_entropy", "hvp"): cross_entropy_hvp,
    ("multiclass_hinge", "value_and_grad"): multiclass_hinge,
    ("logistic", "value_and_grad"): logistic,
    ("squared_error", "value_and_grad"): squared_error,
    ("absolute_error", "value_and_grad"): absolute_error,
    ("huber", "value_and_grad"): huber,
}
"""Loss and task, and the code for it."""


def prepare(problem: Problem) -> Ready | None:
    """Return the written code, or that of the derived formulas."""
    work = problem.work
    if work.formula or work.option:
        return None
    function = WRITTEN.get((work.loss, work.task))
    arguments = problem.arguments if work.task != "hvp" else (*problem.arguments, problem.direction)
    if function is None:
        return _derived(problem) if work.task == "value_and_grad" else None
    return Ready(lambda: function(*arguments), dict)


def _derived(problem: Problem) -> Ready:
    from lossmith.losses import CATALOGUE
    from lossmith.report.naive import naive_function

    formula = CATALOGUE[problem.work.loss].display_formula()
    function = naive_function(formula)
    hypers = {h.name: h.default for h in formula.hypers}
    shape, n = problem.scores.shape, problem.scores.shape[0]

    def run() -> Any:
        with np.errstate(all="ignore"):
            value, grad = function(*problem.arguments, **hypers)
            return {"value": np.mean(value), "grad": np.broadcast_to(grad, shape) / n}

    return Ready(run, dict)
