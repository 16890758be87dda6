"""Label smoothing with class weights: where the label leads, what is left of the gradient is the smoothing's."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm

ROUNDOFF = {"f4": 2.0**-24, "f8": 2.0**-53}


def exact_gradient(scores: Any, label: int, smoothing: float, weights: Any) -> list[Any]:
    """Return p_j Σ_{m≠j} c_m − c_j Σ_{m≠j} p_m with c = w·((1 − ε)·onehot + ε/K), by mpmath at 50 digits."""
    with mpmath.workdps(50):
        shares = [mpmath.exp(mpmath.mpf(float(s))) for s in scores]
        p, K = [e / mpmath.fsum(shares) for e in shares], len(shares)
        eps = mpmath.mpf(smoothing)
        c = [mpmath.mpf(float(w)) * ((1 - eps) * (k == label) + eps / K) for k, w in enumerate(weights)]
        others = [[m for m in range(K) if m != j] for j in range(K)]
        return [p[j] * sum(c[m] for m in others[j]) - c[j] * sum(p[m] for m in others[j]) for j in range(K)]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize("weighted", [True, False])
def test_gradient_of_a_leading_label(dtype: str, backend: str, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", backend)
    rng = np.random.default_rng(3)
    for K in (2, 3, 7):
        weights = rng.exponential(size=K).astype(dtype) if weighted else np.ones(K, dtype)
        scores, labels = rng.normal(size=(20, K)).astype(dtype), rng.integers(0, K, 20)
        scores[np.arange(20), labels] += 40
        for smoothing in (0.125, 2.0**-20):
            options: dict[str, Any] = {"class_weight": weights} if weighted else {}
            grad = lm.cross_entropy.grad(scores, labels, label_smoothing=smoothing, reduction="none", **options)
            for row, label, got in zip(scores, labels, grad, strict=True):
                exact = exact_gradient(row, label, smoothing, weights)
                for k in range(K):
                    assert float(abs(float(got[k]) / exact[k] - 1)) <= 24 * ROUNDOFF[dtype]


def test_one_class_has_gradient_zero() -> None:
    grad = lm.cross_entropy.grad([[0.3], [-5.0]], [0, 0], label_smoothing=0.1, class_weight=[0.7])
    assert not grad.any()
