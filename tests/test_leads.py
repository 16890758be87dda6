"""Second derivatives where one class leads: tiny numbers, of which all digits are right."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm

LEADS = {"f4": (20.0, 54.0), "f8": (20.0, 120.0, 439.75)}


def focal(scores: list[Any], label: int, gamma: Any) -> Any:
    shares = [mpmath.exp(s - scores[label]) for s in scores]
    others, total = mpmath.fsum(e for k, e in enumerate(shares) if k != label), mpmath.fsum(shares)
    return (others / total) ** gamma * mpmath.log(total)


def exact_product(scores: list[float], target: list[float], v: list[float], gamma: float) -> list[Any]:
    """Return Hv of the loss expected under the target from differences of it at 1500 digits."""
    with mpmath.workdps(1500):
        h = mpmath.mpf(10) ** -400

        def at(k: int, a: int, b: int) -> Any:
            moved = [mpmath.mpf(s) + b * h * d for s, d in zip(scores, v, strict=True)]
            moved[k] += a * h
            return mpmath.fsum(t * focal(moved, label, mpmath.mpf(gamma)) for label, t in enumerate(target) if t)

        return [(at(k, 1, 1) - at(k, 1, -1) - at(k, -1, 1) + at(k, -1, -1)) / (4 * h * h) for k in range(len(scores))]


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("dtype", LEADS)
def test_focal_hessian_products(dtype: str, gamma: float) -> None:
    v = [1.0, -0.5, 0.25]
    for lead in LEADS[dtype]:
        for label in (0, 1):
            scores, target = [lead, 0.0, -1.5], [float(k == label) for k in range(3)]
            found = lm.focal.hvp(np.array([scores], dtype), [label], np.array([v], dtype), gamma=gamma)[0]
            for got, exact in zip(found, exact_product(scores, target, v, gamma), strict=True):
                if abs(exact) > float(np.finfo(dtype).tiny):
                    assert abs(float(mpmath.mpf(float(got)) / exact) - 1) < (64 + lead) * np.finfo(dtype).eps


@pytest.mark.parametrize("gamma", [0.75, 1.157, 2.5])
@pytest.mark.parametrize(("dtype", "leads"), [("f4", (20.0, 88.5, 91.2)), ("f8", (20.0, 439.75, 711.0))])
def test_focal_hessian_of_a_distribution(dtype: str, leads: tuple[float, ...], gamma: float) -> None:
    """At the last lead 1/(1 − p) of the leading class is infinite."""
    gamma = float(np.dtype(dtype).type(gamma))
    tiny, spacing = float(np.finfo(dtype).tiny), float(np.finfo(dtype).smallest_subnormal)
    for lead in leads:
        scores, target = [lead, 0.0, -1.5], [0.25, 0.625, 0.125]
        found = lm.focal.hessian_diag(np.array([scores], dtype), np.array([target], dtype), gamma=gamma)[0]
        for k, got in enumerate(found):
            exact = exact_product(scores, target, [float(j == k) for j in range(3)], gamma)[k]
            allowed = (64 + lead) * np.finfo(dtype).eps * max(abs(exact), tiny) + 4 * spacing
            assert abs(mpmath.mpf(float(got)) - exact) < allowed


@pytest.mark.parametrize(("dtype", "far", "step"), [("f4", 2869889.25, 0.25), ("f8", 1e15, 0.125)])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_hessian_product_of_scores_that_a_temperature_makes_alike(
    dtype: str, far: float, step: float, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """s/τ is rounded to the same number for two classes: the leader is found among the s."""
    monkeypatch.setenv("LOSSMITH_BACKEND", backend)
    tau, v = float(np.dtype(dtype).type(0.0102)), [-0.5, 0.25, 1.0]
    own = lm.loss("tau*logsumexp(s/tau) - s[y]", tau=1.0)
    for n in range(8):  # a few of which are rounded so
        scores = [far + n * step, far + (n + 1) * step, far - 9]
        for loss, target, power in ((lm.softmax_kl, np.array([[0.25, 0.25, 0.5]], dtype), 0), (own, [0], 1)):
            found = loss.hvp(np.array([scores], dtype), target, np.array([v], dtype), tau=tau)[0]
            with mpmath.workdps(60):
                shares = [mpmath.exp((mpmath.mpf(s) - scores[1]) / tau) for s in scores]
                p = [share / mpmath.fsum(shares) for share in shares]
                mean = mpmath.fsum(a * b for a, b in zip(p, v, strict=True))
                exact = [a * (b - mean) / mpmath.mpf(tau) ** power for a, b in zip(p, v, strict=True)]
            assert exact[1] > 0
            np.testing.assert_allclose(found, [float(e) for e in exact], rtol=40 * np.finfo(dtype).eps)
