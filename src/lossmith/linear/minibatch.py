"""Mini-batch solvers for linear objectives: SGD with momentum, and Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from sklearn.utils import check_random_state

from lossmith.linear.objective import LinearObjective
from lossmith.linear.solvers import (
    Monitor,
    NonFiniteError,
    Parameters,
    Progress,
    SolverResult,
    Validate,
    checked_gradient,
    diverged,
    finite_value,
)

__all__ = ["minimize_adam", "minimize_sgd", "safe_learning_rate"]


def minimize_sgd(
    objective: LinearObjective,
    W: Parameters,
    b: Parameters,
    *,
    learning_rate: float | None = None,
    momentum: float = 0.9,
    nesterov: bool = False,
    **options: Any,
) -> SolverResult:
    """Minimise a linear objective by stochastic gradient descent with momentum.

    Parameters
    ----------
    objective : LinearObjective
    W, b : ndarray of shape (D, K) and (K,), float64
        Where to start; not written to.
    learning_rate : float, optional
        The step size; `safe_learning_rate` of the features by default.
    momentum : float, default 0.9
        In [0, 1): v ← momentum·v − learning_rate·gradient; the parameters move by v.
    nesterov : bool, default False
        Move by momentum·v − learning_rate·gradient with the new v instead.
    **options
        max_iter (epochs), tol, batch_size, random_state, validate, patience and callback, as in
        `minimize_adam`.

    Returns
    -------
    SolverResult

    Notes
    -----
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning",
    ICML, eqs. 1 to 4, Nesterov's form rewritten for the gradient at the parameters themselves.
    """
    if learning_rate is None:
        learning_rate = safe_learning_rate(objective.X)
    rule = _Momentum(learning_rate, momentum, nesterov)
    return _minimize_in_batches(objective, W, b, rule, **options)


def minimize_adam(
    objective: LinearObjective,
    W: Parameters,
    b: Parameters,
    *,
    learning_rate: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    **options: Any,
) -> SolverResult:
    """Minimise a linear objective by Adam.

    Parameters
    ----------
    objective : LinearObjective
    W, b : ndarray of shape (D, K) and (K,), float64
        Where to start; not written to.
    learning_rate : float, default 0.01
        The step size, in units of the parameters.
    betas : tuple of float, default (0.9, 0.999)
        Decay of the running means of the gradient and of its square.
    epsilon : float, default 1e-8
        Keeps the division from overflowing.
    **options
        Keyword arguments of both mini-batch solvers:

        - max_iter : int, default 100.  The most epochs.
        - tol : float, default 1e-4.  An epoch counts as progress if it lowers the objective by this
          fraction of its value.  After `patience` epochs without progress the learning rate is
          divided by 5 and the best parameters are taken up again; the third time, the solver stops.
        - batch_size : int, default 200.
        - random_state : int, RandomState or None.  Orders the samples of each epoch.
        - validate : callable, optional.  ``validate(W, b)`` gives a score after each epoch, higher
          is better.  With it, the solver stops after `patience` epochs without a higher score.
        - patience : int, default 10.
        - callback : callable, optional.  Called with a `Progress` after each epoch.

    Returns
    -------
    SolverResult

    Notes
    -----
    D. P. Kingma and J. Ba (2015), "Adam: a method for stochastic optimization", ICLR, algorithm 1.
    """
    rule = _Adam(0.01 if learning_rate is None else learning_rate, betas, epsilon)
    return _minimize_in_batches(objective, W, b, rule, **options)


def safe_learning_rate(X: Any) -> float:
    """Return 1 / (1 + mean squared row norm), a step at which SGD is stable.

    The curvature of the mean loss along W is at most h·λ_max(XᵀX)/N ≤ h·mean‖x‖², with h the
    curvature of the loss of one sample (at most ½ for softmax cross-entropy, ¼ for the logistic
    loss); 1 stands for the intercept.
    """
    squares = X.multiply(X).sum() if hasattr(X, "multiply") else np.vdot(X, X)
    return 1.0 / (1.0 + float(squares) / X.shape[0])


class _Rule(Protocol):
    """How a gradient moves the parameters (W and b in one flat array)."""

    name: str
    learning_rate: float

    def move(self, parameters: Parameters, gradient: Parameters) -> None: ...

    def restart(self) -> None: ...


class _Momentum:
    name = "sgd"

    def __init__(self, learning_rate: float, momentum: float, nesterov: bool) -> None:
        self.learning_rate, self._momentum, self._nesterov = learning_rate, momentum, nesterov
        self.restart()

    def restart(self) -> None:
        self._velocity: Parameters | float = 0.0

    def move(self, parameters: Parameters, gradient: Parameters) -> None:
        velocity = self._momentum * self._velocity - self.learning_rate * gradient
        self._velocity = velocity
        if self._nesterov:
            velocity = self._momentum * velocity - self.learning_rate * gradient
        parameters += velocity


class _Adam:
    name = "adam"

    def __init__(self, learning_rate: float, betas: tuple[float, float], epsilon: float) -> None:
        self.learning_rate, self._betas, self._epsilon = learning_rate, betas, epsilon
        self.restart()

    def restart(self) -> None:
        self._mean: Parameters | float = 0.0
        self._square: Parameters | float = 0.0
        self._steps = 0

    def move(self, parameters: Parameters, gradient: Parameters) -> None:
        first, second = self._betas
        self._steps += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient * gradient
        mean = self._mean / (1 - first**self._steps)
        root = np.sqrt(self._square / (1 - second**self._steps))
        parameters -= self.learning_rate * mean / (root + self._epsilon)


def _minimize_in_batches(
    objective: LinearObjective,
    W: Parameters,
    b: Parameters,
    rule: _Rule,
    *,
    max_iter: int = 100,
    tol: float = 1e-4,
    batch_size: int = 200,
    random_state: Any = None,
    validate: Validate | None = None,
    patience: int = 10,
    callback: Callable[[Progress], None] | None = None,
) -> SolverResult:
    """Run epochs of `rule` over shuffled batches (parameters as in `minimize_adam`)."""
    random = check_random_state(random_state)
    flat = np.concatenate([W.ravel(), b])
    W, b = flat[: W.size].reshape(W.shape), flat[W.size :]  # views: moving `flat` moves them
    monitor = Monitor((W, b), finite_value(objective, W, b), validate, patience, callback)
    plateau = _Plateau(monitor.best_loss, tol, patience)
    step = 0
    for epoch in range(1, max_iter + 1):
        order = random.permutation(objective.n_samples)
        try:
            for start in range(0, order.size, batch_size):
                step += 1
                batch = objective.rows(order[start : start + batch_size])
                _, gradient = checked_gradient(batch, W, b)
                rule.move(flat, np.concatenate([gradient.W.ravel(), gradient.b]))
            loss = finite_value(objective, W, b)
        except NonFiniteError as error:
            where = f"step {step} (epoch {epoch}) of {rule.name}"
            remedy = f"lower learning_rate (now {rule.learning_rate:g})"
            message = diverged(error, where, monitor, remedy)
            return monitor.result(converged=False, message=message)
        if monitor.record(loss, W, b):
            return monitor.stopped_early()
        if validate is None and plateau.reached(loss):
            if plateau.count > _RATE_CUTS:
                return _ended(monitor, rule, tol)
            rule.learning_rate /= 5
            rule.restart()
            W[...], b[...] = monitor.best
    message = f"{rule.name} reached max_iter={max_iter} epochs while the objective was still falling."
    return monitor.result(converged=False, message=message)


def _ended(monitor: Monitor, rule: _Rule, tol: float) -> SolverResult:
    """Close a run whose objective has stopped falling, or never fell."""
    # Where the start is the minimum nothing can fall; where steps are too long, everything rises.
    if monitor.best_step or min(monitor.loss_curve) <= (1 + tol) * monitor.best_loss:
        message = f"{rule.name} stopped: the objective no longer falls by {tol:g} of itself."
        return monitor.result(converged=True, message=message)
    message = (
        f"the objective has not fallen below its start in {len(monitor.loss_curve)} epochs of "
        f"{rule.name}; the starting parameters are kept: lower learning_rate (now "
        f"{rule.learning_rate:g}), or standardise the features."
    )
    return monitor.result(converged=False, message=message)


_RATE_CUTS = 2  # a plateau divides the learning rate by 5 so many times; the next one is the end


class _Plateau:
    """Counts the times that the objective has not fallen by a fraction `tol` for some epochs."""

    def __init__(self, loss: float, tol: float, patience: int) -> None:
        self._tol, self._patience = tol, patience
        self._best, self._waited = loss, 0
        self.count = 0

    def reached(self, loss: float) -> bool:
        if loss < self._best - self._tol * abs(self._best):
            self._best, self._waited = loss, 0
            return False
        self._waited += 1
        if self._waited < self._patience:
            return False
        self.count, self._waited = self.count + 1, 0
        return True
