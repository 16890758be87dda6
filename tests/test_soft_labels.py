"""A distribution in the place of the label: what is computed is the expectation over the labels."""

from __future__ import annotations

from collections.abc import Iterator

import mpmath
import numpy as np
import pytest

import lossmith as lm
from formulas import EXTRA, UNSEEN
from lossmith.errors import UnsupportedError

LABELLED = {
    name: made
    for name, made in {**EXTRA, **UNSEEN}.items()
    if ("[y]" in made[0] or "onehot(y)" in made[0]) and lm.Scores not in made[1].values()
}
K = 4


def results(loss: lm.Loss, scores: np.ndarray, target: np.ndarray, v: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    yield "value", loss(scores, target, reduction="none")[:, None]
    yield "grad", loss.grad(scores, target, reduction="none")
    yield "hessian_diag", loss.hessian_diag(scores, target, reduction="none")
    yield "hvp", loss.hvp(scores, target, v, reduction="none")


def expected(loss: lm.Loss, scores: np.ndarray, target: np.ndarray, v: np.ndarray) -> dict[str, np.ndarray]:
    """Return Σ_i t_i of what the loss gives for the label i."""
    found: dict[str, np.ndarray] = {}
    for label in range(K):
        for what, array in results(loss, scores, np.full(len(scores), label), v):
            found[what] = found.get(what, 0) + target[:, label, None] * array
    return found


@pytest.mark.parametrize("name", LABELLED)
def test_distributions_give_the_expectation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", "numpy")
    text, about = LABELLED[name]
    if any(np.ndim(value) for value in about.values() if not isinstance(value, type)):
        about = {n: np.linspace(0.5, 2, K) if np.ndim(value) else value for n, value in about.items()}
    rng = np.random.default_rng(3)
    scores, v = rng.normal(size=(5, K)), rng.normal(size=(5, K))
    target = rng.dirichlet(np.ones(K), size=5)
    loss = lm.loss(text, **about)
    try:
        right = expected(loss, scores, target, v)
        for what, array in results(loss, scores, target, v):
            assert np.max(np.abs(array - right[what])) < 1e-12 * (1 + np.max(np.abs(right[what]))), what
    except UnsupportedError as refused:
        pytest.skip(str(refused))


def test_another_distribution_is_told_apart() -> None:
    rng = np.random.default_rng(3)
    scores, target = rng.normal(size=(5, K)), rng.dirichlet(np.ones(K), size=5)
    right = expected(lm.cross_entropy, scores, target, scores)["grad"]
    assert np.max(np.abs(lm.cross_entropy.grad(scores, target[:, ::-1], reduction="none") - right)) > 1e-3


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("weights", [None, [2.75, 1.5, 0.25]])
def test_hessian_product_where_one_class_leads(
    weights: list[float] | None, dtype: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each component has its digits, by mpmath: Σ w t · p (v − Σ p v), which is tiny at the class that leads."""
    monkeypatch.setenv("LOSSMITH_BACKEND", backend)
    scores = np.array([[60.5, 0.125, -1.0], [-3.0, 1.0, 35.0]], dtype)
    target = np.array([[0.75, 0.25, 0.0], [0.125, 0.5, 0.375]], dtype)
    v = np.array([[1.0, 2.0, -0.5], [0.5, -1.5, 3.0]], dtype)
    found = lm.cross_entropy.hvp(scores, target, v, class_weight=weights, reduction="none")
    with mpmath.workdps(60):
        for s, t, d, got in zip(scores.tolist(), target.tolist(), v.tolist(), found, strict=True):
            shares = [mpmath.exp(x) for x in s]
            p = [e / mpmath.fsum(shares) for e in shares]
            total = mpmath.fsum(w * x for w, x in zip(weights or [1, 1, 1], t, strict=True))
            for j in range(3):
                exact = total * p[j] * mpmath.fsum(p[m] * (mpmath.mpf(d[j]) - d[m]) for m in range(3))
                assert abs(float(got[j] / exact) - 1) < 100 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_hessian_product_of_tiny_probabilities(dtype: str) -> None:
    """t v / p² has its digits wherever it is a float, though p², t/p and v/p may be none."""
    rng, tiny = np.random.default_rng(0), float(np.finfo(dtype).tiny)
    small = (10.0 ** rng.uniform(np.log10(tiny) - 5, 0, (2, 300))).astype(dtype)
    p, t = (np.stack([x, 1 - x], axis=1) for x in small)
    v = rng.normal(size=(300, 2)).astype(dtype)
    found = lm.cross_entropy_on_probabilities.hvp(p, t, v, reduction="none")[:, 0]
    judged = 0
    for got, *numbers in zip(found, p[:, 0].tolist(), t[:, 0].tolist(), v[:, 0].tolist(), strict=True):
        p_0, t_0, v_0 = map(mpmath.mpf, numbers)
        exact = t_0 * v_0 / p_0**2 if p_0 else mpmath.inf
        if tiny < abs(exact) < np.finfo(dtype).max:
            assert abs(float(mpmath.mpf(float(got)) / exact) - 1) < 4 * np.finfo(dtype).eps
            judged += 1
    assert judged > 50
