"""L-BFGS, SGD and Adam: the minimum is reached, curves are kept, and trouble is reported."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from linear.handmade import (
    Absolute,
    CrossEntropy,
    Handmade,
    Hinge,
    LogOfScore,
    Poisson,
    Squared,
)
from lossmith.errors import DomainError
from lossmith.linear.minibatch import minimize_adam, minimize_sgd, safe_learning_rate
from lossmith.linear.objective import LinearObjective
from lossmith.linear.solvers import Progress, SolverResult, minimize_lbfgs

Solver = Callable[..., SolverResult]
BATCHED = [partial(minimize_sgd, batch_size=20), partial(minimize_adam, batch_size=20)]
SOLVERS: list[Any] = [
    pytest.param(minimize_lbfgs, id="lbfgs"),
    pytest.param(partial(BATCHED[0], random_state=0), id="sgd"),
    pytest.param(partial(BATCHED[1], random_state=0), id="adam"),
]
N, D, K = 200, 5, 3


def regression(loss: Handmade | None = None, alpha: float = 0.1, **options: Any) -> LinearObjective:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(N, D)) * [1, 2, 1, 0.5, 1]
    target = X @ rng.normal(size=D) + 3 + rng.normal(size=N)
    return LinearObjective(loss or Squared(), X, target, 1, alpha, **options)


def classification(dtype: type = np.float64, alpha: float = 0.01) -> LinearObjective:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(N, D)).astype(dtype)
    labels = np.argmax(X @ rng.normal(size=(D, K)) + rng.gumbel(size=(N, K)), axis=1)
    return LinearObjective(CrossEntropy(), X, labels, K, alpha)


def zeros(objective: LinearObjective) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((objective.n_features, objective.n_outputs)), np.zeros(objective.n_outputs)


def run(solver: Solver, objective: LinearObjective, **options: Any) -> SolverResult:
    return solver(objective, *zeros(objective), **options)


def ridge(objective: LinearObjective) -> np.ndarray:
    """Return the exact minimum for the squared error: W, then b."""
    w = objective.sample_weight
    w = np.full(N, 1 / N) if w is None else w / w.sum()
    A = np.hstack([objective.X, np.ones((N, 1))])
    penalty = np.diag([objective.alpha] * D + [0])
    return np.linalg.solve(2 * A.T @ (w[:, None] * A) + penalty, 2 * A.T @ (w * objective.target))


def relative(got: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(got - true) / np.linalg.norm(true))


# ------------------------------------------------------------------ the minimum


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("solve", "options", "limit"),
    [
        (minimize_lbfgs, {"tol": 1e-9}, 1e-7),
        (minimize_sgd, {"max_iter": 300, "random_state": 0}, 0.02),
        (minimize_adam, {"max_iter": 300, "random_state": 0, "learning_rate": 0.05}, 0.02),
    ],
)
def test_ridge_regression_is_solved(solve: Solver, options: dict[str, Any], limit: float, weighted: bool) -> None:
    weight = np.random.default_rng(3).uniform(0, 2, N) if weighted else None
    objective = regression(sample_weight=weight)
    result = run(solve, objective, **options)
    assert relative(np.append(result.W, result.b), ridge(objective)) <= limit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lbfgs_leaves_no_gradient(dtype: type) -> None:
    objective = classification(dtype)
    result = run(minimize_lbfgs, objective, tol=1e-4)
    _, start = objective.value_and_grad(*zeros(objective))
    _, end = objective.value_and_grad(result.W, result.b)
    assert result.converged
    assert np.abs(end.W).max() <= 1e-4 * np.abs(start.W).max()
    assert result.W.dtype == np.float64


@pytest.mark.parametrize("solver", SOLVERS[1:])
def test_batches_come_close_to_lbfgs(solver: Solver) -> None:
    objective = classification()
    best = objective.value(*_best(run(minimize_lbfgs, objective, tol=1e-8)))
    result = run(solver, objective)
    assert objective.value(*_best(result)) <= best * 1.001


def _best(result: SolverResult) -> tuple[np.ndarray, np.ndarray]:
    return result.W, result.b


@pytest.mark.parametrize("loss", [Hinge(), Absolute()])
def test_lbfgs_at_kinks_beats_adam(loss: Handmade) -> None:
    objective = regression(loss, alpha=0.01)
    if isinstance(loss, Hinge):
        sign = np.where(objective.target > 3, 1.0, -1.0)
        objective = LinearObjective(loss, objective.X, sign, 1, 0.01)
    by_lbfgs = run(minimize_lbfgs, objective)
    by_adam = run(minimize_adam, objective, learning_rate=0.05, max_iter=200, random_state=0)
    assert by_lbfgs.converged
    assert objective.value(*_best(by_lbfgs)) <= objective.value(*_best(by_adam)) * 1.02


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_lbfgs_does_not_depend_on_the_unit_of_the_target(size: float) -> None:
    objective = regression()
    scaled = LinearObjective(Squared(), objective.X, objective.target * size, 1, 0.1)
    result = run(minimize_lbfgs, scaled, tol=1e-6)
    assert relative(np.append(result.W, result.b) / size, ridge(objective)) <= 1e-5


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_intercept_stays_none(solver: Solver) -> None:
    result = run(solver, regression(fit_intercept=False))
    np.testing.assert_array_equal(result.b, [0])
    assert np.abs(result.W).max() > 0


# ------------------------------------------------------------------ what is reported


@pytest.mark.parametrize("solver", SOLVERS)
def test_curves_and_callback_agree(solver: Solver) -> None:
    objective, seen = classification(), list[Progress]()
    result = run(solver, objective, max_iter=8, callback=seen.append, validate=lambda W, b: -float(b[0]))
    assert [p.step for p in seen] == list(range(1, result.n_iter + 1))
    assert [p.loss for p in seen] == result.loss_curve
    assert [p.validation for p in seen] == result.validation_curve
    assert result.loss_curve[-1] < result.loss_curve[0]


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_is_not_written_to_and_the_loss_falls_to_what_is_said(solver: Solver) -> None:
    objective = classification()
    W, b = np.full((D, K), 0.5), np.full(K, -0.25)
    result = solver(objective, W, b, max_iter=5)
    np.testing.assert_array_equal(W, np.full((D, K), 0.5))
    np.testing.assert_array_equal(b, np.full(K, -0.25))
    assert abs(objective.value(*_best(result)) / min(result.loss_curve) - 1) <= 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_too_few_iterations_are_reported(solver: Solver) -> None:
    result = run(solver, classification(), max_iter=2)
    assert (result.n_iter, result.converged) == (2, False)
    assert "max_iter=2" in result.message


@pytest.mark.parametrize("solve", BATCHED)
def test_seed_repeats_the_run(solve: Solver) -> None:
    objective = classification()
    first, again, other = (run(solve, objective, max_iter=3, random_state=s) for s in (4, 4, 5))
    np.testing.assert_array_equal(first.W, again.W)
    assert first.loss_curve == again.loss_curve
    assert first.loss_curve != other.loss_curve


def test_plateau_cuts_the_step_and_ends() -> None:
    result = run(minimize_sgd, regression(), patience=3, max_iter=500, random_state=0)
    assert result.converged
    assert result.n_iter < 500
    assert "no longer falls" in result.message


def test_steps_too_long_to_fall_are_reported_without_overflow() -> None:
    objective = regression()
    result = run(minimize_sgd, objective, learning_rate=1e3, patience=2, random_state=0)
    assert not result.converged
    assert "not fallen below its start in 6 epochs of sgd" in result.message
    assert "lower learning_rate (now 40)" in result.message
    np.testing.assert_array_equal(result.W, 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_at_the_minimum_is_left_at_once(solver: Solver) -> None:
    objective = regression()
    flat = LinearObjective(Squared(), objective.X, np.zeros(N), 1, 0.1)
    result = run(solver, flat)
    assert result.converged
    np.testing.assert_array_equal(result.W, 0)


# ------------------------------------------------------------------ early stopping


@pytest.mark.parametrize("solver", SOLVERS)
def test_early_stopping_keeps_the_best(solver: Solver) -> None:
    objective, calls, kept = classification(), 0, list[np.ndarray]()

    def rises_four_times(W: np.ndarray, b: np.ndarray) -> float:
        nonlocal calls
        calls += 1  # the first call is for the start
        kept.append(W.copy())
        return float(min(calls, 5)) if calls <= 5 else 0.0

    result = run(solver, objective, tol=0, patience=3, validate=rises_four_times)
    assert result.n_iter == 7
    assert result.validation_curve == [2, 3, 4, 5, 0, 0, 0]
    np.testing.assert_array_equal(result.W, kept[4])
    assert result.converged
    assert "of round 4 are kept" in result.message


# ------------------------------------------------------------------ divergence


@pytest.mark.parametrize("solve", BATCHED)
def test_divergence_is_one_sentence_and_keeps_the_best(solve: Solver) -> None:
    objective = regression(Poisson())
    objective = LinearObjective(Poisson(), objective.X, np.abs(objective.target), 1, 0.1)
    result = run(solve, objective, learning_rate=400.0, random_state=0)
    assert not result.converged
    assert "\n" not in result.message
    assert "step " in result.message
    assert "lower learning_rate (now 400)" in result.message
    assert np.isfinite(objective.value(*_best(result)))
    assert objective.value(*_best(result)) <= objective.value(*zeros(objective))


def test_divergence_after_progress_keeps_the_progress() -> None:
    """Under SGD whose steps turn bad in the third epoch, the second epoch's parameters stay."""

    class Turning(Squared):
        calls = 0

        def each(self, scores: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.calls += 1
            loss, grad = super().each(scores, target)
            # A start, and per epoch 10 batches and the whole: the third one's are calls 24 to 33.
            return (loss * np.nan, grad) if self.calls == 25 else (loss, grad)

    result = run(minimize_sgd, regression(Turning()), batch_size=20, random_state=0)
    assert "the objective is nan at step 22 (epoch 3) of sgd" in result.message
    assert "those of round 2" in result.message
    assert result.n_iter == 2
    plain = run(minimize_sgd, regression(), batch_size=20, random_state=0, max_iter=2)
    np.testing.assert_array_equal(result.W, plain.W)


def test_lbfgs_backs_away_from_overflow() -> None:
    """The first steps of L-BFGS overflow exp(score) here; the minimum is found all the same."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, D)) * 300
    X[:, 0] = np.abs(X[:, 0])
    target = rng.poisson(np.exp(X @ np.full(D, 0.002))).astype(float)
    objective = LinearObjective(Poisson(), X, target, 1, 0.0)
    with np.errstate(over="ignore"):
        result = run(minimize_lbfgs, objective, tol=1e-7)
    _, start = objective.value_and_grad(*zeros(objective))
    _, end = objective.value_and_grad(*_best(result))
    assert result.converged
    assert np.abs(end.W).max() <= 1e-6 * np.abs(start.W).max()


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_that_is_not_finite_is_refused(solver: Solver) -> None:
    objective = regression(LogOfScore())
    with pytest.raises(DomainError, match=r"the objective is (nan|inf|-inf)"):
        run(solver, objective)


# ------------------------------------------------------------------ step sizes and rules


def test_safe_learning_rate() -> None:
    X = np.array([[3.0, 4], [0, 1]])
    assert safe_learning_rate(X) == 1 / (1 + 13)
    assert safe_learning_rate(csr_matrix(X)) == 1 / (1 + 13)


def test_rules_are_the_published_ones() -> None:
    """Two steps over the whole data, against the formulas."""
    objective = regression()
    W, b = zeros(objective)
    flat, steps = np.append(W, b), {"velocity": 0.0, "mean": 0.0, "square": 0.0}
    for step in (1, 2):
        _, g = objective.value_and_grad(flat[:D, None], flat[D:])
        g = np.append(g.W, g.b)
        steps["mean"] = 0.9 * steps["mean"] + 0.1 * g
        steps["square"] = 0.999 * steps["square"] + 0.001 * g * g
        mean, square = steps["mean"] / (1 - 0.9**step), steps["square"] / (1 - 0.999**step)
        flat = flat - 0.5 * mean / (np.sqrt(square) + 1e-8)
    options = {"batch_size": N, "max_iter": 2, "random_state": 0}
    adam = run(minimize_adam, objective, learning_rate=0.5, **options)
    assert relative(np.append(adam.W, adam.b), flat) <= 1e-12
    for nesterov in (False, True):
        flat, velocity = np.zeros(D + 1), 0.0
        for _ in (1, 2):
            _, g = objective.value_and_grad(flat[:D, None], flat[D:])
            g = np.append(g.W, g.b)
            velocity = 0.8 * velocity - 0.01 * g
            flat = flat + (0.8 * velocity - 0.01 * g if nesterov else velocity)
        sgd = run(minimize_sgd, objective, learning_rate=0.01, momentum=0.8, nesterov=nesterov, **options)
        assert relative(np.append(sgd.W, sgd.b), flat) <= 1e-12
