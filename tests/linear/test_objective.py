"""The linear objective against loops over samples, at 50 digits, and by complex steps."""

import mpmath
import numpy as np
import pytest
from scipy.sparse import csr_matrix

from linear.handmade import CrossEntropy, Handmade, Hinge, Logistic, Poisson, Squared
from lossmith.linear.objective import LinearGradient, LinearObjective

N, D, K = 7, 3, 4


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def case(
    loss: Handmade,
    rng: np.random.Generator,
    *,
    weighted: bool,
    dtype: type = np.float64,
    k: int = K,
) -> tuple[LinearObjective, np.ndarray, np.ndarray]:
    """Return an objective and parameters at which to look at it."""
    X = rng.normal(size=(N, D)).astype(dtype)
    shape = (N,) if k == 1 else (N, k)
    target = {
        None: rng.integers(0, k, N),
        "real": rng.normal(size=shape),
        "unit": rng.uniform(size=shape),
        "sign": rng.choice([-1.0, 1.0], size=shape),
        "nonnegative": rng.poisson(2, size=shape).astype(float),
    }[loss.target_domain]
    if loss.label_name is None:
        target = target.astype(dtype)
    weight = rng.uniform(0.1, 3, N).astype(dtype) if weighted else None
    objective = LinearObjective(loss, X, target, k, alpha=0.3, sample_weight=weight)
    return objective, rng.normal(size=(D, k)), rng.normal(size=k)


def loops(objective: LinearObjective, W: np.ndarray, b: np.ndarray) -> tuple[float, LinearGradient]:
    """Return the objective and its gradients by loops over samples, classes and features."""
    X, loss = np.asarray(objective.X, float), objective.loss
    n, d = X.shape
    k = b.size
    weight = np.ones(n) if objective.sample_weight is None else objective.sample_weight.astype(float)
    total = sum(weight)
    value, dW, db, dX = 0.0, np.zeros((d, k)), np.zeros(k), np.zeros((n, d))
    for i in range(n):
        scores = [sum(X[i, m] * W[m, j] for m in range(d)) + b[j] for j in range(k)]
        if loss.kind == "row":
            each, grad = loss.each(np.array([scores]), objective.target[i : i + 1])
            value += weight[i] / total * each[0]
            slopes = grad[0]
        else:
            target = np.atleast_1d(objective.target[i]).astype(float)
            parts = [loss.each(np.array([s]), np.array([t])) for s, t in zip(scores, target, strict=True)]
            value += weight[i] / total * sum(part[0][0] for part in parts)
            slopes = [part[1][0] for part in parts]
        for j in range(k):
            g = weight[i] / total * slopes[j]
            db[j] += g
            for m in range(d):
                dW[m, j] += g * X[i, m]
                dX[i, m] += g * W[m, j]
    for m in range(d):
        for j in range(k):
            value += objective.alpha / 2 * W[m, j] ** 2
            dW[m, j] += objective.alpha * W[m, j]
    return value, LinearGradient(dW, db, dX)


def far(got: np.ndarray, true: np.ndarray) -> float:
    """Return the distance relative to the norm of the truth."""
    true = np.asarray(true, dtype=np.float64)
    return float(np.linalg.norm(np.asarray(got, float) - true) / np.linalg.norm(true))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("loss", "k"),
    [(CrossEntropy(), K), (Squared(), 1), (Squared(), K), (Logistic(), 1), (Logistic(), K),
     (Hinge(), 1), (Hinge(), K), (Poisson(), 1)],
)  # fmt: skip
def test_objective_is_the_loop(rng: np.random.Generator, loss: Handmade, k: int, dtype: type, weighted: bool) -> None:
    objective, W, b = case(loss, rng, weighted=weighted, dtype=dtype, k=k)
    value, gradient = objective.value_and_grad(W, b, with_X=True)
    true_value, truth = loops(objective, W, b)
    limit = 100 * np.finfo(dtype).eps
    assert abs(value - true_value) <= limit * abs(true_value)
    assert abs(objective.value(W, b) - true_value) <= limit * abs(true_value)
    assert far(gradient.W, truth.W) <= limit
    assert far(gradient.b, truth.b) <= limit
    assert far(gradient.X, truth.X) <= limit
    assert (gradient.W.dtype, gradient.b.dtype) == (np.float64, np.float64)
    assert gradient.X.dtype == dtype


def test_cross_entropy_at_50_digits(rng: np.random.Generator) -> None:
    objective, W, b = case(CrossEntropy(), rng, weighted=True)
    X, y, w = objective.X, objective.target, objective.sample_weight
    value, gradient = objective.value_and_grad(W, b, with_X=True)
    with mpmath.workdps(50):
        mp = lambda a: mpmath.matrix(np.asarray(a, float).tolist())  # noqa: E731
        WW, XX, total = mp(W), mp(X), mpmath.fsum(map(mpmath.mpf, w.tolist()))
        S = XX * WW
        G, true_value = mpmath.zeros(N, K), mpmath.mpf(0)
        for i in range(N):
            exps = [mpmath.exp(S[i, j] + mpmath.mpf(float(b[j]))) for j in range(K)]
            scale = mpmath.mpf(float(w[i])) / total
            true_value -= scale * mpmath.log(exps[y[i]] / mpmath.fsum(exps))
            for j in range(K):
                G[i, j] = scale * (exps[j] / mpmath.fsum(exps) - (j == y[i]))
        alpha = mpmath.mpf(objective.alpha)
        true_value += alpha / 2 * mpmath.fsum(x**2 for x in WW)
        dW, dX = XX.T * G + alpha * WW, G * WW.T
        truth = [np.array(m.tolist(), float) for m in (dW, dX)]
        true_b = [float(mpmath.fsum(G[i, j] for i in range(N))) for j in range(K)]
    assert abs(value - float(true_value)) <= 1e-14 * float(true_value)
    assert far(gradient.W, truth[0]) <= 1e-14
    assert far(gradient.X, truth[1]) <= 1e-14
    assert far(gradient.b, np.array(true_b)) <= 1e-14


@pytest.mark.parametrize("k", [1, K])
def test_poisson_by_complex_steps(rng: np.random.Generator, k: int) -> None:
    """J(W + ih·E) has the derivative along E as its imaginary part over h, without cancellation."""
    objective, W, b = case(Poisson(), rng, weighted=False, k=k)
    _, gradient = objective.value_and_grad(W, b, with_X=True)
    h = 1e-30

    def J(W: np.ndarray, b: np.ndarray, X: np.ndarray) -> complex:
        scores = X @ W + b
        target = objective.target.reshape(N, k)
        loss = np.exp(scores) - target * scores
        return loss.sum() / N + objective.alpha / 2 * (W * W).sum()

    start = [W, b, objective.X]
    for place, got in enumerate((gradient.W, gradient.b, gradient.X)):
        truth = np.zeros(got.shape)
        for index in np.ndindex(got.shape):
            moved = [part.astype(complex) for part in start]
            moved[place][index] += 1j * h
            truth[index] = J(*moved).imag / h
        assert far(got, truth) <= 1e-14


def test_a_wrong_gradient_would_be_seen(rng: np.random.Generator) -> None:
    objective, W, b = case(CrossEntropy(), rng, weighted=True)
    _, truth = loops(objective, W, b)
    _, without_penalty = LinearObjective(
        objective.loss, objective.X, objective.target, K, 0.0, objective.sample_weight
    ).value_and_grad(W, b)
    _, without_weights = LinearObjective(
        objective.loss, objective.X, objective.target, K, objective.alpha
    ).value_and_grad(W, b)
    assert far(without_penalty.W, truth.W) > 1e-3
    assert far(without_weights.W, truth.W) > 1e-3


def test_columns_of_an_elementwise_loss_are_models_apart(rng: np.random.Generator) -> None:
    together, W, b = case(Squared(), rng, weighted=True)
    value, gradient = together.value_and_grad(W, b)
    parts = []
    for j in range(K):
        alone = LinearObjective(together.loss, together.X, together.target[:, j], 1, 0.3, together.sample_weight)
        parts.append(alone.value_and_grad(W[:, [j]], b[[j]]))
    assert abs(value - sum(part[0] for part in parts)) <= 1e-14 * value
    assert far(gradient.W, np.hstack([part[1].W for part in parts])) <= 1e-14
    assert far(gradient.b, np.hstack([part[1].b for part in parts])) <= 1e-14


def test_weights_are_repetitions(rng: np.random.Generator) -> None:
    plain, W, b = case(CrossEntropy(), rng, weighted=False)
    times = np.array([0, 1, 2, 3, 0, 1, 2])
    weighted = LinearObjective(plain.loss, plain.X, plain.target, K, 0.3, times.astype(float))
    repeated = plain.rows(np.repeat(np.arange(N), times))
    (v, g), (true_v, true_g) = weighted.value_and_grad(W, b), repeated.value_and_grad(W, b)
    assert abs(v - true_v) <= 1e-14 * true_v
    assert far(g.W, true_g.W) <= 1e-14


@pytest.mark.parametrize("loss", [CrossEntropy(), Squared()])
def test_batches_are_unbiased(rng: np.random.Generator, loss: Handmade) -> None:
    """The mean over all batches of one row each is the whole objective, weights or not."""
    objective, W, b = case(loss, rng, weighted=True)
    value, gradient = objective.value_and_grad(W, b)
    batches = [objective.rows(np.array([i])).value_and_grad(W, b) for i in range(N)]
    assert abs(np.mean([v for v, _ in batches]) - value) <= 1e-14 * value
    assert far(np.mean([g.W for _, g in batches], axis=0), gradient.W) <= 1e-14
    assert far(np.mean([g.b for _, g in batches], axis=0), gradient.b) <= 1e-14


def test_sparse_features_give_the_same(rng: np.random.Generator) -> None:
    dense, W, b = case(CrossEntropy(), rng, weighted=True)
    sparse = LinearObjective(dense.loss, csr_matrix(dense.X), dense.target, K, 0.3, dense.sample_weight)
    (v, g), (true_v, true_g) = sparse.value_and_grad(W, b), dense.value_and_grad(W, b)
    assert abs(v - true_v) <= 1e-14 * true_v
    assert far(g.W, true_g.W) <= 1e-14
    assert far(sparse.rows(np.arange(3)).scores(W, b), dense.rows(np.arange(3)).scores(W, b)) <= 1e-14


def test_intercept_left_out(rng: np.random.Generator) -> None:
    objective, W, b = case(Squared(), rng, weighted=False)
    without = LinearObjective(objective.loss, objective.X, objective.target, K, fit_intercept=False)
    _, gradient = without.value_and_grad(W, b)
    np.testing.assert_array_equal(gradient.b, np.zeros(K))
    np.testing.assert_array_equal(without.scores(W, b), objective.X @ W)


def test_hyperparameters_reach_the_loss_and_inputs_stay(rng: np.random.Generator) -> None:
    objective, W, b = case(Poisson(), rng, weighted=False, k=1)
    doubled = LinearObjective(objective.loss, objective.X, objective.target, 1, hyper={"power": 2.0})
    held = [a.copy() for a in (W, b, objective.X, objective.target)]
    value, _ = doubled.value_and_grad(W, b)
    scores = 2 * (objective.X @ W + b)[:, 0]
    true = float(np.mean(np.exp(scores) - objective.target * scores))
    assert abs(value - true) <= 1e-14 * abs(true)
    for before, after in zip(held, (W, b, objective.X, objective.target), strict=True):
        np.testing.assert_array_equal(before, after)
