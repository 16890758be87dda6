"""softmax, sigmoid and their kin: value, Jacobian and its products, against mpmath; no overflow anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.check.ulp import ulp_error
from lossmith.functions import VECTOR_FUNCTIONS
from lossmith.kernels.runtime import has_numba

ELEMENTWISE = ["sigmoid", "softplus", "log_sigmoid", "tanh", "relu", "leaky_relu"]
ROWS = ["softmax", "log_softmax"]
DTYPES = ["f4", "f8"]
LIMIT = 8  # ulp, of one function alone
ORDINARY = [-3.5, -1.0, -0.25, 1e-3, 0.5, 2.0, 4.0]
FAR = [-1e30, -1000.0, -104.0, -89.0, -40.0, -1e-20, 1e-20, 40.0, 89.0, 104.0, 1000.0, 1e30]


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numba" and not has_numba():
        pytest.skip("Numba is not installed")
    monkeypatch.setenv(evaluation.BACKEND, request.param)
    return request.param


def exact(name: str, x: Any, order: int = 0) -> Any:
    """Return a function of one number, or its derivative, to 40 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(float(x))
        small = mpmath.exp(-abs(x)) if abs(x) < 2000 else mpmath.mpf(0)  # beyond, 1 ± small is 1 in every dtype
        sigmoid = 1 / (1 + small) if x > 0 else small / (1 + small)
        other = small / (1 + small) if x > 0 else 1 / (1 + small)  # σ(−x)
        values = {
            "sigmoid": (sigmoid, sigmoid * other),
            "softplus": (max(x, 0) + mpmath.log1p(small), sigmoid),
            "log_sigmoid": (min(x, 0) - mpmath.log1p(small), other),
            "tanh": (mpmath.tanh(x) if abs(x) < 2000 else mpmath.sign(x), 4 * small**2 / (1 + small**2) ** 2),
            "relu": (max(x, 0), mpmath.mpf(x > 0)),
            "leaky_relu": (x if x > 0 else x * 0.01, mpmath.mpf(1 if x > 0 else 0.01)),
        }
        return values[name][order]


def exact_softmax(row: Any) -> list[Any]:
    with mpmath.workdps(60):
        gaps = [mpmath.mpf(float(x)) - mpmath.mpf(float(max(row))) for x in row]
        powers = [mpmath.exp(g) if g > -2000 else mpmath.mpf(0) for g in gaps]
        return [p / mpmath.fsum(powers) for p in powers]


def exact_jacobian(name: str, row: Any) -> np.ndarray:
    """Return the matrix of ∂f_i/∂x_j, with 1 − p as the sum of the others."""
    p = exact_softmax(row)
    k = len(p)
    with mpmath.workdps(60):
        rest = [mpmath.fsum(p[m] for m in range(k) if m != i) for i in range(k)]
        full = np.empty((k, k), dtype=object)
        for i, j in np.ndindex(k, k):
            if name == "softmax":
                full[i, j] = p[i] * rest[i] if i == j else -p[i] * p[j]
            else:
                full[i, j] = rest[j] if i == j else -p[j]
        return full


def assert_ulp(found: Any, expected: Any, limit: float = LIMIT) -> None:
    off = ulp_error(found, np.asarray(expected, dtype=object).ravel().tolist())
    assert off.max(initial=0) <= limit, f"{found} is not {expected}: {off} ulp"


# ------------------------------------------------------------------ one number at a time


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_value_and_derivative(name: str, dtype: str) -> None:
    x = np.array(ORDINARY + FAR, dtype)
    function = VECTOR_FUNCTIONS[name]
    # leaky_relu multiplies by 0.01 rounded to float32, which is half a unit off already.
    assert_ulp(function(x), [exact(name, v) for v in x])
    assert_ulp(function.derivative(x), [exact(name, v, 1) for v in x], 2 * LIMIT)
    v = np.linspace(-2, 2, len(x)).astype(dtype)
    for product in (function.jvp, function.vjp):
        assert_ulp(product(x, v), [exact(name, a, 1) * float(b) for a, b in zip(x, v, strict=True)], 2 * LIMIT)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_infinities_and_nan(name: str, dtype: str) -> None:
    limits = {
        "sigmoid": ([0, 1], [0, 0]),
        "softplus": ([0, np.inf], [0, 1]),
        "log_sigmoid": ([-np.inf, 0], [1, 0]),
        "tanh": ([-1, 1], [0, 0]),
        "relu": ([0, np.inf], [0, 1]),
        "leaky_relu": ([-np.inf, np.inf], [0.01, 1]),
    }
    x = np.array([-np.inf, np.inf, np.nan], dtype)
    function = VECTOR_FUNCTIONS[name]
    for found, expected in zip((function(x), function.derivative(x)), limits[name], strict=True):
        np.testing.assert_array_equal(found[:2], np.array(expected, dtype))
        assert np.isnan(found[2])


@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_kinks(name: str) -> None:
    slope = 0.01 if name == "leaky_relu" else 0.0
    assert VECTOR_FUNCTIONS[name](0.0) == 0
    assert VECTOR_FUNCTIONS[name].derivative(0.0) == slope


def test_hyperparameters_by_name_and_by_position() -> None:
    x = np.array([-2.0, 3.0])
    assert lm.leaky_relu(x, 0.25).tolist() == lm.leaky_relu(x, slope=0.25).tolist() == [-0.5, 3.0]
    assert lm.leaky_relu.derivative(x, slope=0.25).tolist() == [0.25, 1.0]


# ------------------------------------------------------------------ rows


HARD = [[0.5, -1.0, 2.0], [20.0, 0.0, -3.0], [1e8, 1e8, 0.0], [-1e30, 1e30, 0.0], [-500.0, -501.0, -700.0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_its_logarithm(dtype: str) -> None:
    x = np.array(HARD, dtype)
    for row, p, log_p in zip(x, lm.softmax(x), lm.log_softmax(x), strict=True):
        exact_p = exact_softmax(row)
        gaps = float(row.max()) - row.astype(float)
        # exp(x − m) magnifies what rounding does to x − m: |x − m| units, as is promised.
        for k in range(3):
            assert_ulp(p[k : k + 1], [exact_p[k]], LIMIT + min(gaps[k], 1000))
        with mpmath.workdps(60):
            rest = mpmath.fsum(exact_p[k] for k in range(3) if k != int(np.argmax(row)))
            assert_ulp(log_p, [-mpmath.mpf(g) + mpmath.log1p(-rest) for g in gaps])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_jacobian_and_its_products(name: str, dtype: str) -> None:
    x = np.array([[0.5, -1.0, 2.0], [6.0, 0.0, -3.0]], dtype)
    function, rng = VECTOR_FUNCTIONS[name], np.random.default_rng(0)
    v = rng.normal(size=x.shape).astype(dtype)
    jacobian, jvp, vjp = function.jacobian(x), function.jvp(x, v), function.vjp(x, v)
    assert jacobian.shape == (2, 3, 3)
    unit = np.finfo(dtype).eps
    for i in range(2):
        full = exact_jacobian(name, x[i])
        sizes = np.abs(full).astype(float)
        # Columns come from products with unit vectors, p_i·v_i − p_i·(p·v): relative to the larger of the two.
        bound = (
            LIMIT
            * unit
            * np.maximum(sizes, np.diag(np.array(exact_softmax(x[i]) if name == "softmax" else [1] * 3, float)))
        )
        assert (np.abs(jacobian[i] - full.astype(float)) <= bound).all()
        for found, matrix in ((jvp[i], full), (vjp[i], full.T)):
            terms = matrix * v[i].astype(float)
            assert (np.abs(found - terms.sum(1).astype(float)) <= 4 * LIMIT * unit * np.abs(terms).sum(1)).all()


def test_two_classes_are_the_sigmoid_of_the_difference() -> None:
    z = np.array([-700.0, -30.0, -1.0, 0.0, 0.3, 20.0, 40.0])
    p = lm.softmax(np.stack([z, 0 * z], axis=-1))
    np.testing.assert_allclose(p[:, 0], lm.sigmoid(z), rtol=1e-15, atol=0)
    np.testing.assert_allclose(p[:, 1], lm.sigmoid(-z), rtol=1e-15, atol=0)
    assert_ulp(lm.log_softmax(np.stack([z, 0 * z], axis=-1))[:, 0], lm.log_sigmoid(z), 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_special_rows(dtype: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, 0, 0], [inf, 0, 1], [inf, inf, 0], [-inf] * 3, [nan, 0, 1], [0, 0, -inf]], dtype)
    expected = [[0, 0.5, 0.5], [1, 0, 0], [nan] * 3, [nan] * 3, [nan] * 3, [0.5, 0.5, 0]]
    np.testing.assert_array_equal(lm.softmax(x), np.array(expected, dtype))
    half = np.log(np.array(0.5, dtype))
    logs = [[-inf, half, half], [0, -inf, -inf], [nan] * 3, [nan] * 3, [nan] * 3, [half, half, -inf]]
    np.testing.assert_array_equal(lm.log_softmax(x), np.array(logs, dtype))


def test_rows_add_up_and_stay_apart() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4)) * 5
    p = lm.softmax(x)
    assert p.shape == x.shape
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-15)
    for place in [(0, 1, 2), (1, 2, 4)]:
        np.testing.assert_array_equal(p[place], lm.softmax(x[place]))
    np.testing.assert_allclose(lm.softmax.jacobian(x[0, 0]).sum(-1), 0, atol=1e-16)


# ------------------------------------------------------------------ arrays of every kind


@pytest.mark.parametrize("name", ["sigmoid", "softmax"])
def test_dtypes_and_layouts(name: str) -> None:
    function, x = VECTOR_FUNCTIONS[name], np.linspace(-3, 4, 12).reshape(4, 3).astype("f4")
    expected, before = function(x), x.copy()
    frozen = x.copy()
    frozen.flags.writeable = False
    for other in (np.asfortranarray(x), x[::-1].copy()[::-1], frozen, np.repeat(x, 2, 1)[:, ::2], x.astype(">f4")):
        np.testing.assert_array_equal(function(other), expected)
    for half in (np.float16, ml_dtypes.bfloat16):
        found = function(x.astype(half))
        assert found.dtype == half
        np.testing.assert_array_equal(found, function(x.astype(half).astype("f4")).astype(half))
    assert function(x.tolist()).dtype == np.float64
    assert function([1, 2]).dtype == np.float64
    assert function(np.empty((0, 3), "f4")).shape == (0, 3)
    np.testing.assert_array_equal(function(np.broadcast_to(x[0], (4, 3)))[2], expected[0])
    np.testing.assert_array_equal(x, before)


def test_one_number() -> None:
    assert lm.sigmoid(0.0) == 0.5
    assert lm.sigmoid.derivative(0.0) == 0.25
    with pytest.raises(lm.ShapeError):
        lm.softmax(1.0)
    with pytest.raises(lm.FormulaError, match="it has a jacobian, no derivative"):
        lm.softmax.derivative([1.0, 2.0])
    with pytest.raises(lm.FormulaError, match="a loss, not a vector function"):
        lm.function("sum(s)")


def test_functions_of_ones_own(backend: str) -> None:
    silu = lm.function("s * sigmoid(s)")
    x = np.array([-2.0, 0.5])
    np.testing.assert_allclose(silu(x), x / (1 + np.exp(-x)), rtol=1e-15)
    step = 1e-6
    np.testing.assert_allclose(silu.derivative(x), (silu(x + step) - silu(x - step)) / (2 * step), rtol=1e-8)
    squared = lm.function("softmax(s)**2")
    found = squared.jacobian(np.array([0.1, 0.5, -1.0]))
    by_steps = [
        (squared(x + d) - squared(x - d)) / (2 * step) for x in [np.array([0.1, 0.5, -1.0])] for d in np.eye(3) * step
    ]
    np.testing.assert_allclose(found, np.array(by_steps).T, rtol=1e-6)


@pytest.mark.parametrize("function", [lm.onehot, lm.classes])
def test_helpers_on_arrays(function: Callable[..., Any]) -> None:
    if function is lm.onehot:
        assert lm.onehot([2, 0], 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    else:
        assert lm.classes([0.5, 1.5]).tolist() == lm.classes(2).tolist() == [0, 1]


def test_log_sum_exp_on_arrays() -> None:
    inf = np.inf
    x = np.array([[0.0, 0.0], [1000.0, 1000.0], [-inf, 3.0], [inf, 0.0], [-1000.0, -1000.0], [-inf, -inf]])
    log2 = np.log(2)
    np.testing.assert_allclose(lm.logsumexp(x), [log2, 1000 + log2, 3, inf, log2 - 1000, -inf], rtol=1e-15)


def test_naive_functions_are_caught() -> None:
    """The tables above tell the naive formulas from the right ones."""
    x = np.float32(FAR)
    with np.errstate(all="ignore"):
        for name, naive in {
            "sigmoid": 1 / (1 + np.exp(-x)),
            "softplus": np.log(1 + np.exp(x)),
            "tanh": np.sinh(x) / np.cosh(x),
        }.items():
            with pytest.raises(AssertionError):
                assert_ulp(naive, [exact(name, v) for v in x])
