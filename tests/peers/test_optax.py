"""Values and gradients of optax's losses; and where optax is wrong, the mathematical value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm
from lossmith.check.ulp import ulp_error

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install lossmith[frameworks]")
optax = pytest.importorskip("optax", reason="optax is not installed: pip install lossmith[frameworks]")

RTOL = 1e-11


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def theirs(function: Callable[..., Any], s: np.ndarray, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Return optax's values, and the gradient of their sum."""
    grad = jax.grad(lambda x: function(x, *args, **options).sum())(s)
    return np.asarray(function(s, *args, **options)), np.asarray(grad)


def assert_agree(ours: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    for found, other in zip(ours, expected, strict=True):
        assert np.shape(found) == np.shape(other)
        np.testing.assert_allclose(found, other, rtol=RTOL, atol=0)


def test_softmax_cross_entropy_with_integer_labels(rng: Any) -> None:
    s, y = rng.normal(size=(7, 5)), rng.integers(0, 5, 7)
    ours = lm.cross_entropy.value_and_grad(s, y, reduction="none")
    assert_agree(ours, theirs(optax.softmax_cross_entropy_with_integer_labels, s, y))


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_cross_entropy(rng: Any, axis: int) -> None:
    s, t = rng.normal(size=(4, 5, 6)), rng.uniform(size=(4, 5, 6))
    t /= t.sum(axis, keepdims=True)
    ours = lm.cross_entropy.value_and_grad(s, t, axis=axis, reduction="none")
    assert_agree(ours, theirs(optax.softmax_cross_entropy, s, t, axis=axis))


def test_sigmoid_binary_cross_entropy(rng: Any) -> None:
    s, t = rng.normal(size=(7, 5)), rng.uniform(size=(7, 5))
    ours = lm.logistic.value_and_grad(s, t, reduction="none")
    assert_agree(ours, theirs(optax.sigmoid_binary_cross_entropy, s, t))


@pytest.mark.parametrize("delta", [1.0, 0.4])
def test_huber(rng: Any, delta: float) -> None:
    s, t = rng.normal(size=(2, 7, 5))
    ours = lm.huber.value_and_grad(s, t, delta=delta, reduction="none")
    assert_agree(ours, theirs(optax.huber_loss, s, t, delta=delta))


def test_squared_error(rng: Any) -> None:
    s, t = rng.normal(size=(2, 7, 5))
    assert_agree(lm.half_squared_error.value_and_grad(s, t, reduction="none"), theirs(optax.l2_loss, s, t))
    assert_agree(lm.squared_error.value_and_grad(s, t, reduction="none"), theirs(optax.squared_error, s, t))


def test_kl_divergence(rng: Any) -> None:
    s, t = np.log(rng.dirichlet(np.ones(5), 7)), rng.dirichlet(np.ones(5), 7)
    assert_agree(lm.kl_divergence.value_and_grad(s, t, reduction="none"), theirs(optax.kl_divergence, s, t))


# ------------------------------------------------------------------ where optax is wrong


@pytest.mark.parametrize("lead", [20.0, 30.0])
def test_a_lead_that_optax_takes_for_certainty(lead: float) -> None:
    s, y = np.zeros((1, 10), np.float32), np.array([3])
    s[0, 3] = lead
    # optax 0.2.8 says 0 and 0; what later versions say is not for this test.
    ours, our_grad = lm.cross_entropy.value_and_grad(s, y, reduction="none")
    with mpmath.workdps(50):
        rest = 9 * mpmath.exp(-lead)
        assert ulp_error(ours, [mpmath.log1p(rest)]).max() <= 2
        assert ulp_error(our_grad[0, 3:4], [-rest / (1 + rest)]).max() <= 2


def test_a_masked_class() -> None:
    s, t = np.array([[-np.inf, 0.0]]), np.array([[0.0, 1.0]])
    _, grad = lm.cross_entropy.value_and_grad(s, t)
    assert grad.tolist() == [[0, 0]]
    assert lm.cross_entropy(s, t) == 0


def test_a_wrong_option_is_caught(rng: Any) -> None:
    s, t = rng.normal(size=(2, 7, 5))
    with pytest.raises(AssertionError):
        assert_agree(
            lm.huber.value_and_grad(s, t, delta=1.0, reduction="none"), theirs(optax.huber_loss, s, t, delta=1 + 1e-9)
        )
