"""What the solvers of linear objectives share, and L-BFGS over all samples.

Each solver starts from W and b, reports every iteration (L-BFGS) or epoch (SGD and Adam, in
`lossmith.linear.minibatch`) to a callback, can stop early on a validation score, and returns the
best parameters that it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import OptimizeResult, minimize

from lossmith.errors import DomainError
from lossmith.linear.objective import LinearGradient, LinearObjective

__all__ = [
    "Progress",
    "SolverResult",
    "minimize_lbfgs",
]

Parameters = NDArray[np.float64]
Validate = Callable[[Parameters, Parameters], float]


@dataclass(frozen=True)
class Progress:
    """What a solver reports after each iteration or epoch.

    Parameters
    ----------
    step : int
        The iteration or epoch, counted from 1.
    loss : float
        The objective over all samples, penalty included.
    validation : float, optional
        The validation score, if there is one; higher is better.
    """

    step: int
    loss: float
    validation: float | None


@dataclass(frozen=True)
class SolverResult:
    """Where a solver ended.

    Parameters
    ----------
    W, b : ndarray of shape (D, K) and (K,), float64
        The best parameters: highest validation score if there is one, else lowest objective.
    n_iter : int
        Iterations or epochs done.
    loss_curve, validation_curve : list of float
        One entry for each iteration or epoch.
    converged : bool
        Whether the solver stopped of its own accord, before `max_iter` and without failing.
    message : str
        Why it stopped, in one sentence, with the remedy if it did not converge.
    """

    W: Parameters
    b: Parameters
    n_iter: int
    loss_curve: list[float]
    validation_curve: list[float]
    converged: bool
    message: str


class NonFiniteError(DomainError):
    """The objective or its gradient is not finite; at the start this reaches the caller."""


class Monitor:
    """Keeps the curves and the best parameters, and says when to stop early."""

    def __init__(
        self,
        start: tuple[Parameters, Parameters],
        loss: float,
        validate: Validate | None,
        patience: int,
        callback: Callable[[Progress], None] | None,
    ) -> None:
        self._validate, self._patience, self._callback = validate, patience, callback
        self._best_score = -math.inf if validate is None else validate(*start)
        self._waited = 0
        self.best_loss = loss
        self.best_step = 0
        self.best = (start[0].copy(), start[1].copy())
        self.loss_curve: list[float] = []
        self.validation_curve: list[float] = []

    def record(self, loss: float, W: Parameters, b: Parameters) -> bool:
        """Note one iteration; return whether patience with the validation score has run out."""
        score = None if self._validate is None else self._validate(W, b)
        self.loss_curve.append(loss)
        if score is None:
            better = loss < self.best_loss
        else:
            self.validation_curve.append(score)
            better = score > self._best_score
            self._best_score = max(score, self._best_score)
            self._waited = 0 if better else self._waited + 1
        step = len(self.loss_curve)
        if better:
            self.best_loss, self.best_step, self.best = loss, step, (W.copy(), b.copy())
        if self._callback is not None:
            self._callback(Progress(step, loss, score))
        return score is not None and self._waited >= self._patience

    def result(self, *, converged: bool, message: str) -> SolverResult:
        """Close the record."""
        n_iter = len(self.loss_curve)
        curves = (self.loss_curve, self.validation_curve)
        return SolverResult(*self.best, n_iter, *curves, converged, message)

    def stopped_early(self) -> SolverResult:
        message = (
            f"the validation score has not risen for {self._patience} rounds; the parameters of "
            f"round {self.best_step} are kept."
        )
        return self.result(converged=True, message=message)


def minimize_lbfgs(
    objective: LinearObjective,
    W: Parameters,
    b: Parameters,
    *,
    max_iter: int = 1000,
    tol: float = 1e-4,
    unit: float = 1.0,
    validate: Validate | None = None,
    patience: int = 10,
    callback: Callable[[Progress], None] | None = None,
) -> SolverResult:
    """Minimise a linear objective by L-BFGS over all samples.

    Parameters
    ----------
    objective : LinearObjective
    W, b : ndarray of shape (D, K) and (K,), float64
        Where to start; not written to.
    max_iter : int, default 1000
        The most iterations.
    tol : float, default 1e-4
        Stop where the largest component of the gradient is at most `tol` times that of the start.
        The solver also stops where rounding no longer lets the objective fall.
    unit : float, default 1.0
        The size of a score, by which the parameters are divided while they are sought: the first
        step has about this length.
    validate : callable, optional
        ``validate(W, b)`` gives a score, higher is better, after each iteration.
    patience : int, default 10
        Stop after so many iterations without a higher score.
    callback : callable, optional
        Called with a `Progress` after each iteration.

    Returns
    -------
    SolverResult

    Notes
    -----
    R. H. Byrd, P. Lu, J. Nocedal and C. Zhu (1995), "A limited memory algorithm for bound
    constrained optimization", SIAM J. Sci. Comput. 16, through SciPy's L-BFGS-B.  At the kinks of
    a hinge or an absolute value its line search may end early; the best point is kept.
    """
    flat = _FlatObjective(objective, W, b, unit)
    monitor = Monitor((W, b), flat.start, validate, patience, callback)

    def after(intermediate_result: OptimizeResult) -> None:
        x, value = intermediate_result.x, float(intermediate_result.fun)
        flat.accept(x, value)
        if monitor.record(value * flat.scale, *flat.unpack(x)):
            raise StopIteration

    gtol = tol * float(np.max(np.abs(flat.gradient), initial=0.0))
    while True:
        done = len(monitor.loss_curve)
        options = {
            "maxiter": max_iter - done,
            "maxfun": 20 * max_iter + 100,
            "maxls": 50,
            "gtol": gtol,
            "ftol": 64 * np.finfo(np.float64).eps,
        }
        found = minimize(flat, flat.x, jac=True, method="L-BFGS-B", callback=after, options=options)
        # A failed line search may be the fault of curvature remembered from across a kink, so the
        # search starts afresh from its end, as long as that gets any further.
        if found.status != _LINE_SEARCH_FAILED or len(monitor.loss_curve) in (done, max_iter):
            slope = float(np.max(np.abs(flat.gradient), initial=0.0)) / gtol * tol if gtol else 0.0
            return _lbfgs_result(monitor, found, flat.failure, max_iter, slope)


_LINE_SEARCH_FAILED = 2  # what SciPy's L-BFGS-B returns as status
_LARGE = 0.05
"""A gradient above this part of that at the start is worth a word when the search ends."""
_STOPPED_BY_CALLBACK = 99


def _lbfgs_result(
    monitor: Monitor, found: OptimizeResult, failure: NonFiniteError | None, max_iter: int, slope: float
) -> SolverResult:
    """Say in a sentence how L-BFGS ended; `slope` is what is left of the gradient, 0 if that is small."""
    done = len(monitor.loss_curve)
    if found.status == _STOPPED_BY_CALLBACK:
        return monitor.stopped_early()
    if done >= max_iter:
        message = (
            f"lbfgs reached max_iter={max_iter} before the gradient was small enough: raise "
            "max_iter or tol, or standardise the features."
        )
        return monitor.result(converged=False, message=message)
    if failure is not None:
        message = diverged(failure, f"iteration {done + 1} of lbfgs", monitor, "raise alpha")
        return monitor.result(converged=False, message=message)
    if slope > _LARGE:
        message = (
            f"lbfgs stopped at a kink of the loss, where the gradient is still {slope:.0%} of that at the "
            "start: solver='sgd' or solver='adam' gets further with such a loss."
        )
        return monitor.result(converged=False, message=message)
    if found.status == _LINE_SEARCH_FAILED:
        message = "lbfgs stopped where no lower point was found: a kink, or the limit of rounding."
    else:
        message = f"lbfgs stopped: {str(found.message).lower()}."
    return monitor.result(converged=True, message=message)


class _FlatObjective:
    """A linear objective as SciPy wants it: W and b over `unit` in one array, value with gradient.

    The value is divided by its size at the start, because L-BFGS-B compares falls of the objective
    with max(|J|, 1): a small objective would otherwise end at once.  Where the objective is not
    finite, the line search is told of a wall instead, from which it backs away.
    """

    def __init__(self, objective: LinearObjective, W: Parameters, b: Parameters, unit: float) -> None:
        self._objective, self._shape, self._b, self._unit = objective, W.shape, b, unit
        self.scale = 1.0
        self.x = np.concatenate([W.ravel(), b] if objective.fit_intercept else [W.ravel()]) / unit
        self.start, gradient = self._evaluate(self.x)
        self.scale = abs(self.start) or 1.0
        self.value, self.gradient = self.start / self.scale, gradient / self.scale
        self._latest = self.gradient
        self.failure: NonFiniteError | None = None  # of the line search under way

    def unpack(self, x: Parameters) -> tuple[Parameters, Parameters]:
        """Return W and b."""
        x, split = x * self._unit, self._shape[0] * self._shape[1]
        return x[:split].reshape(self._shape), x[split:] if x.size > split else self._b

    def accept(self, x: Parameters, value: float) -> None:
        """Note the end of a line search, which is where it evaluated last."""
        self.x, self.value, self.gradient, self.failure = x.copy(), value, self._latest, None

    def __call__(self, x: Parameters) -> tuple[float, Parameters]:
        """Return the scaled value and gradient, or a wall."""
        try:
            value, gradient = self._evaluate(x)
        except NonFiniteError as error:
            self.failure = error
            # Ten times the fall that the slope promises, as a rise: the cubic and quadratic
            # interpolations of the line search then shorten the step by some factor of ten.
            wall = 10 * abs(float(self.gradient @ (x - self.x)))
            return self.value + wall, np.zeros_like(x)
        self._latest = gradient
        return value, gradient

    def _evaluate(self, x: Parameters) -> tuple[float, Parameters]:
        value, gradient = checked_gradient(self._objective, *self.unpack(x))
        parts = [gradient.W.ravel(), gradient.b] if x.size > gradient.W.size else [gradient.W.ravel()]
        return value / self.scale, np.concatenate(parts) * (self._unit / self.scale)


def checked_gradient(objective: LinearObjective, W: Parameters, b: Parameters) -> tuple[float, LinearGradient]:
    """Return the objective and its gradients; NonFiniteError if they are not finite."""
    # What overflows is reported once, in a sentence, not by NumPy's warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        value, gradient = objective.value_and_grad(W, b)
    if not math.isfinite(value):
        raise NonFiniteError(f"the objective is {value}")
    if not (np.isfinite(gradient.W).all() and np.isfinite(gradient.b).all()):
        raise NonFiniteError("the gradient is infinite or NaN")
    return value, gradient


def finite_value(objective: LinearObjective, W: Parameters, b: Parameters) -> float:
    """Return the objective; NonFiniteError if it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = objective.value(W, b)
    if not math.isfinite(value):
        raise NonFiniteError(f"the objective is {value}")
    return value


def diverged(error: NonFiniteError, where: str, monitor: Monitor, remedy: str) -> str:
    """Say where the objective stopped being finite, what is kept, and what to do."""
    kept = f"those of round {monitor.best_step}" if monitor.best_step else "the starting ones"
    return (
        f"{error} at {where}; the best parameters until then ({kept}) are kept: {remedy}, or standardise the features."
    )
