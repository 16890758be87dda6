"""scikit-learn's `_loss`, the compiled losses behind its gradient boosting and linear models.

It returns a loss for each sample and gradients of their sum; the mean is taken within the time, the gradients are left
as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.problem import Answer, Problem, Ready

NAME = "scikit-learn"


def version() -> str:
    """Return the version of scikit-learn."""
    import sklearn

    return sklearn.__version__


def _losses() -> dict[str, Callable[[int], Any]]:
    from sklearn._loss import loss

    return {
        "cross_entropy": lambda k: loss.HalfMultinomialLoss(n_classes=k),
        "logistic": lambda k: loss.HalfBinomialLoss(),
        "half_squared_error": lambda k: loss.HalfSquaredError(),
        "absolute_error": lambda k: loss.AbsoluteError(),
        "huber": lambda k: loss.HuberLoss(delta=1.0),
    }


def prepare(problem: Problem) -> Ready | None:
    """Return `loss_gradient`, `gradient_hessian` or `loss`."""
    work = problem.work
    make = _losses().get(work.loss)
    if make is None or work.formula or work.task == "hvp" or work.option not in ("", "sample_weight"):
        return None
    made, weight = make(work.classes), problem.options.get("sample_weight")
    assert problem.target is not None
    shared = {
        "y_true": problem.target.astype(work.dtype),
        "raw_prediction": problem.scores,
        "sample_weight": weight,
        "n_threads": problem.threads,
    }
    total = float(work.shape[0] if weight is None else weight.sum())

    def value() -> Any:
        return {"value": made.loss(**shared).sum() / total}

    def value_and_grad() -> Any:
        losses, grad = made.loss_gradient(**shared)
        return {"value": losses.sum() / total, "grad": grad}

    def second() -> Any:
        grad, hessian = made.gradient_hessian(**shared)
        return {"grad": grad, "hessian_diag": hessian}

    def answer(raw: Any) -> Answer:
        return {name: found if name == "value" else np.asarray(found) / total for name, found in raw.items()}

    run = {"value": value, "value_and_grad": value_and_grad, "grad_and_hessian_diag": second}[work.task]
    return Ready(run, answer, pause=True)
