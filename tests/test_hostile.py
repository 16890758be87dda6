"""Inputs on which losses have failed elsewhere, one test for each, on both back ends.

Rows 33 and 34, the fused linear cross-entropy and one-vs-rest scores, are in tests/linear.
"""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.check.ulp import ulp_error
from lossmith.kernels.runtime import has_numba

INF, NAN = math.inf, math.nan
DTYPES = ["f4", "f8"]
smooth_l1 = lm.loss("where(abs(s - t) < beta, (s - t)**2/(2*beta), abs(s - t) - beta/2)", beta=1.0)
masked = lm.loss("log(sum(exp(s), where=classes != y))")
one_formula = lm.loss("-t*log(sigmoid(s)) - (1 - t)*log(1 - sigmoid(s))", t=lm.UnitTargets)
poisson = lm.loss("exp(s) - t*s")
log_probability = lm.loss("-log_sigmoid(s)")
relative_entropy = lm.loss("x*log(x/y)", x=lm.Role("targets", "nonnegative"), y=lm.Role("scores", "nonnegative"))
scaled_softplus = lm.loss("softplus(beta*s)/beta", beta=1.0)
squared_log_error = lm.loss(
    "(log1p(s) - log1p(t))**2 / 2", s=lm.Role("scores", "above -1"), t=lm.Role("targets", "nonnegative")
)


@pytest.fixture(params=["numpy", "numba"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numba" and not has_numba():
        pytest.skip("Numba is not installed")
    monkeypatch.setenv(evaluation.BACKEND, request.param)
    return request.param


def scores(rows: Any, dtype: str = "f4") -> np.ndarray:
    return np.array(rows, dtype)


def check(loss: Any, s: np.ndarray, target: Any, value: Any, grad: Any, ulps: float = 2, **options: Any) -> None:
    """Hold value and gradient, without reduction, to so many ulp of what is expected."""
    targets = () if isinstance(target, tuple) else (target,)
    found, found_grad = loss.value_and_grad(s, *targets, reduction="none", **options)
    assert_ulp(found, value, ulps)
    assert_ulp(found_grad, grad, ulps)


def assert_ulp(found: Any, expected: Any, ulps: float = 2) -> None:
    found = np.asarray(found)
    expected = np.broadcast_to(np.asarray(expected, dtype=object), found.shape)
    off = ulp_error(found, expected.ravel().tolist())
    assert off.max(initial=0) <= ulps, f"{found} is not {expected}: {off} ulp"


def test_01_a_masked_class_with_target_zero() -> None:
    check(lm.cross_entropy, scores([[-INF, 0]]), [[0.0, 1.0]], 0, 0)
    check(lm.cross_entropy, scores([[-INF, 0]]), [1], 0, 0)


def test_02_a_soft_target_of_zero_at_a_masked_class() -> None:
    value, grad = lm.cross_entropy.value_and_grad(scores([[-INF, 1, 2]]), [[0.0, 0.25, 0.75]])
    with mpmath.workdps(40):
        assert_ulp(np.float32(value), mpmath.log(1 + mpmath.e) - mpmath.mpf("0.75"))
    assert np.isfinite(grad).all()
    assert grad[0, 0] == 0


def test_03_label_smoothing_at_a_masked_class() -> None:
    value, grad = lm.cross_entropy.value_and_grad(scores([[-INF, 0, 0]]), [1], label_smoothing=0.3)
    assert value == INF
    assert_ulp(grad[0], [-0.1, 0.5 - 0.8, 0.5 - 0.1], 4)


@pytest.mark.parametrize("loss", [lm.cross_entropy, lm.focal, lm.softmax_entropy], ids=lambda loss: loss.name)
def test_04_a_row_of_minus_infinity(loss: lm.Loss) -> None:
    s = scores([[0, 1, 2], [-INF, -INF, -INF], [3, 1, 0]])
    target = ([0, 1, 2],) if loss.label_name else ()
    value, grad = loss.value_and_grad(s, *target, reduction="none")
    assert np.isnan(value[1])
    assert np.isnan(grad[1]).all()
    s[1] = 0
    kept, kept_grad = loss.value_and_grad(s, *target, reduction="none")
    np.testing.assert_array_equal(value[[0, 2]], kept[[0, 2]])
    np.testing.assert_array_equal(grad[[0, 2]], kept_grad[[0, 2]])


def test_05_log_sum_exp_without_its_largest_term() -> None:
    check(masked, scores([[0, 100]]), [1], 0, [[1, 0]])


def test_06_one_finite_score_among_very_many() -> None:
    s = np.full((1, 100_000), -INF, "f4")
    s[0, 777] = 10
    value, grad = lm.cross_entropy.value_and_grad(s, [777])
    assert value == 0
    assert not grad.any()


@pytest.mark.parametrize("rubbish", [[-INF] * 3, [NAN] * 3, [INF, INF, NAN]])
def test_07_an_ignored_row(rubbish: list[float]) -> None:
    s = scores([[1, 2, 3], rubbish])
    value, grad = lm.cross_entropy.value_and_grad(s, [0, -100], ignore_index=-100)
    assert value == lm.cross_entropy(s[:1], [0])
    assert not grad[1].any()
    np.testing.assert_array_equal(grad[:1], lm.cross_entropy.grad(s[:1], [0]))


def test_08_no_row_left() -> None:
    value, grad = lm.cross_entropy.value_and_grad(scores([[1, 2], [NAN, 0]]), [-1, -1], ignore_index=-1)
    assert value == 0.0
    assert not grad.any()
    value, grad = lm.cross_entropy.value_and_grad(np.empty((0, 5), "f4"), np.empty(0, int))
    assert value == 0.0
    assert grad.shape == (0, 5)


def test_09_log_sum_exp_of_a_small_rest() -> None:
    tiny = 4.248354255291589e-18
    check(lm.cross_entropy, scores([[0, -40]], "f8"), [0], tiny, [[-tiny, tiny]])


def test_09_log_sum_exp_by_itself() -> None:
    assert_ulp(lm.logsumexp(scores([0, -40], "f8")), 4.248354255291589e-18)


def test_10_large_scores_that_tie() -> None:
    check(lm.cross_entropy, scores([[1e8, 1e8]]), [0], mpmath.log(2), [[-0.5, 0.5]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_11_a_logit_far_on_the_wrong_side(dtype: str) -> None:
    check(lm.logistic, scores([-1000, 1000], dtype), [1.0, 0.0], 1000, [-1, 1])
    assert lm.logistic.hessian_diag(scores([-1000, 1000], dtype), [1.0, 0.0]).tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_12_the_sigmoid_inside_one_formula(dtype: str) -> None:
    s = scores([-50, -1000, 50], dtype)
    value, grad = one_formula.value_and_grad(s, [1.0, 1.0, 0.0], reduction="none")
    assert_ulp(value, [50, 1000, 50])
    assert_ulp(grad, [-1, -1, 1])


def test_13_probability_zero_of_what_happened() -> None:
    value, grad = lm.bce.value_and_grad(scores([0, 1]), [1.0, 0.0], reduction="none")
    assert value.tolist() == [INF, INF]
    assert grad.tolist() == [-INF, INF]


def test_14_probability_one() -> None:
    value, grad = lm.bce.value_and_grad(scores([1, 1, 0]), [1.0, 0.0, 0.0], reduction="none")
    assert value.tolist() == [0, INF, 0]
    assert grad.tolist() == [-1, INF, 1]


def test_15_focal_loss_of_a_small_power() -> None:
    s = scores([[100, -100], [-100, 100]])
    value, grad = lm.focal.value_and_grad(s, [0, 0], gamma=0.5, reduction="none")
    assert_ulp(value, [0, 200])  # exp(−200) to the power 1.5 is no float32
    assert np.isfinite(grad).all()
    assert_ulp(grad[1], [-1, 1])
    assert np.isfinite(lm.focal.hessian_diag(s, [0, 0], gamma=0.5)).all()


def test_16_focal_loss_of_power_zero() -> None:
    check(lm.focal, scores([[1000, 0], [0, 1000]]), [0, 0], [0, 1000], [[0, 0], [-1, 1]], gamma=0.0)


def test_17_a_target_of_zero() -> None:
    t = scores([[0, 0.5, 0.5]])
    value, grad = lm.kl_divergence.value_and_grad(np.log(scores([[0.25, 0.5, 0.25]])), t)
    assert_ulp(np.float32(value), mpmath.log(2) / 2, 4)
    assert grad.tolist() == [[0, -0.5, -0.5]]
    value, grad = lm.softmax_kl.value_and_grad(scores([[-INF, 1, 1]]), t)
    assert value == 0
    assert grad.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_18_relative_entropy_whose_quotient_no_float_holds(dtype: str) -> None:
    tiny = float(np.finfo(dtype).tiny)
    y, x = scores([tiny, 1 / tiny, 4, tiny], dtype), np.array([4, tiny, 4, 2 * tiny], dtype)
    value, grad = relative_entropy.value_and_grad(y, x, reduction="none")
    with mpmath.workdps(60):
        exact = [
            mpmath.mpf(float(a)) * mpmath.log(mpmath.mpf(float(a)) / mpmath.mpf(float(b)))
            for a, b in zip(x, y, strict=True)
        ]
        assert_ulp(value, exact)
    if dtype == "f8":
        assert value[0] == pytest.approx(2839.13085157, rel=1e-11)
    assert_ulp(grad[1:], [-0.0 if dtype == "f4" else -(tiny**2), -1, -2])
    assert grad[0] == -INF  # −4/tiny is beyond every float


def test_19_relative_entropy_at_the_ends() -> None:
    y, x = scores([0, 1, 0, INF]), scores([INF, 0, 0, 1])
    value, grad = relative_entropy.value_and_grad(y, x, reduction="none")
    assert value.tolist() == [INF, 0, 0, -INF]
    assert grad.tolist() == [-INF, 0, 0, 0]


def test_20_targets_outside_their_domain() -> None:
    with pytest.raises(lm.DomainError, match=r"t is -0\.5 at row 1, class 0"):
        lm.kl_divergence(np.zeros((2, 2)), [[0.5, 0.5], [-0.5, 1.5]])
    with pytest.raises(lm.DomainError, match="t sums to 2 over the classes in row 1"):
        lm.kl_divergence(np.zeros((2, 2)), [[0.5, 0.5], [1, 1]])


@pytest.mark.parametrize("beta", [0.0, 1e-50])
def test_21_smooth_l1_of_no_width(beta: float) -> None:
    check(smooth_l1, scores([-2, 0, 3], "f8"), np.zeros(3), [2, 0, 3], [-1, 0, 1], beta=beta)


@pytest.mark.parametrize("dtype", DTYPES)
def test_22_softplus_of_a_steep_slope(dtype: str) -> None:
    s = scores([0.5, -0.5, 0], dtype)
    with mpmath.workdps(40):
        check(scaled_softplus, s, (), [0.5, 0, mpmath.log(2) / mpmath.mpf(1e30)], [1, 0, 0.5], beta=1e30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_23_log_of_the_sigmoid_at_minus_infinity(dtype: str) -> None:
    value, grad = log_probability.value_and_grad(scores([-INF, INF], dtype), reduction="none")
    assert value.tolist() == [INF, 0]
    assert grad.tolist() == [-1, 0]
    assert lm.log_sigmoid(scores([-INF, INF], dtype)).tolist() == [-INF, 0]
    assert lm.log_sigmoid.derivative(scores([-INF, INF], dtype)).tolist() == [1, 0]


@pytest.mark.parametrize("label", [3, -1])
def test_24_a_label_that_is_no_class(label: int) -> None:
    with pytest.raises(lm.LabelError, match=f"y is {label} in row 1, expected 0 to 2"):
        lm.cross_entropy(np.zeros((2, 3)), [0, label])


def test_25_ignored_labels_with_smoothing_and_class_weights() -> None:
    s, weights = scores([[0, 1, 2], [3, 0, 1]]), [0.5, 1.0, 2.0]
    options = {"label_smoothing": 0.1, "class_weight": weights}
    value, grad = lm.cross_entropy.value_and_grad(s, [2, -1], ignore_index=-1, **options)
    assert value == lm.cross_entropy(s[:1], [2], **options)
    assert not grad[1].any()


@pytest.mark.slow
def test_26_a_mean_over_very_many_elements_of_float32() -> None:
    s = np.full(128 * 768 * 768, 0.1, "f4")
    assert lm.absolute_error(s, 0.0) == pytest.approx(float(np.float32(0.1)), rel=1e-7)


def test_26_a_mean_over_many_elements_of_float32() -> None:
    s = np.full(3_000_001, 0.1, "f4")
    assert lm.absolute_error(s, 0.0) == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_27_a_mean_over_many_elements_of_float16() -> None:
    s = np.full(100_000, 60, "f2")
    assert lm.half_squared_error(s, 0.0) == 1800
    assert lm.half_squared_error(s * 5, 0.0) == 45000
    assert lm.half_squared_error(s, 0.0, reduction="sum") == 1.8e8


def test_28_softmax_along_an_axis_of_length_three() -> None:
    s = np.array([0, 1, 2], "f4").reshape(3, 1, 1)
    assert_ulp(
        lm.softmax(np.moveaxis(s, 0, -1))[0, 0], [mpmath.exp(k) / sum(map(mpmath.exp, range(3))) for k in range(3)]
    )
    value = lm.cross_entropy(s, [[2]], axis=0)
    assert value == lm.cross_entropy([0.0, 1, 2], 2) or abs(value - lm.cross_entropy([0.0, 1, 2], 2)) < 1e-7 * value


def test_29_additive_masks() -> None:
    s = scores([[1, 2, 0.5, -1]])
    added, gone = s.copy(), s.copy()
    added[0, 2], gone[0, 2] = -1e9, -INF
    for a, b in zip(
        lm.cross_entropy.value_and_grad(added, [0]), lm.cross_entropy.value_and_grad(gone, [0]), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("where", [0, 2])
def test_30_a_score_that_is_nan(where: int) -> None:
    s = scores([[1, 2, 3], [0, 0, 0], [4, 5, 6]])
    s[1, where] = NAN
    value, grad = lm.cross_entropy.value_and_grad(s, [0, 1, 2], reduction="none")
    assert np.isnan(value).tolist() == [False, True, False]
    assert np.isnan(grad).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(lm.softmax(s)).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(lm.cross_entropy(s, [0, 1, 2]))


def test_32_weights_without_reduction() -> None:
    s, weight = scores([[1, 2], [3, 4]]), [2.0, 0.5]
    value, grad = lm.cross_entropy.value_and_grad(s, [0, 1], sample_weight=weight, reduction="none")
    plain, plain_grad = lm.cross_entropy.value_and_grad(s, [0, 1], reduction="none")
    np.testing.assert_array_equal(value, plain * np.float32([2, 0.5]))
    np.testing.assert_array_equal(grad, plain_grad * np.float32([[2], [0.5]]))


@pytest.mark.slow
def test_31_more_elements_than_an_int32_counts(backend: str) -> None:
    """2³¹ + 2¹⁶ elements, 8 GiB: every row is the same, and the gradient is written over the scores."""
    if backend == "numpy":
        pytest.skip("its temporary arrays take more memory than a test may")
    if available_memory() < 11 << 30:
        pytest.skip("less than 11 GiB of memory are free")
    row = np.linspace(-3, 3, 2**16, dtype=np.float32)
    s = np.empty((2**15 + 1, len(row)), np.float32)
    assert s.size > 2**31
    s[:] = row
    y = np.full(len(s), 7)
    expected, expected_grad = lm.cross_entropy.value_and_grad(row[None], [7], reduction="none")
    value, grad = lm.cross_entropy.value_and_grad(s, y, reduction="none", out=s)
    assert grad is s
    assert set(value.tolist()) == set(expected.tolist())
    for first in range(0, len(s), 4096):
        assert (s[first : first + 4096] == expected_grad).all()


def available_memory() -> int:
    """Return the bytes of memory that are free, 0 where that is not known."""
    try:
        with open("/proc/meminfo") as file:
            found = dict(line.split(":") for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_35_huber_of_an_infinite_residual(dtype: str) -> None:
    check(lm.huber, scores([-INF, INF], dtype), 0.0, INF, [-1.5, 1.5], delta=1.5)
    assert lm.huber.hessian_diag(scores([-INF, INF], dtype), 0.0, delta=1.5).tolist() == [0, 0]


def test_36_poisson_of_a_large_rate() -> None:
    value, grad = poisson.value_and_grad(scores([800], "f8"), [3.0], reduction="none")
    assert value.tolist() == grad.tolist() == [INF]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [-1.0, -2.0, -INF])
def test_37_squared_log_error_at_minus_one_and_below(dtype: str, bad: float) -> None:
    s, t = scores([-0.5, bad, 3], dtype), [0.0, 1.0, 3.0]
    with pytest.raises(lm.DomainError, match=rf"s is {bad} at element 1, expected values above -1\."):
        squared_log_error(s, t)
    s[1] = 1
    with mpmath.workdps(40):
        half = mpmath.log(mpmath.mpf("0.5"))
        check(squared_log_error, s, t, [half**2 / 2, 0, 0], [2 * half, 0, 0])
    s[1] = bad
    assert squared_log_error(s, t, sample_weight=[1, 0, 1]) == squared_log_error(s[::2], t[::2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [15, 20, 30, 60])
def test_38_a_lead_of_the_true_class(dtype: str, lead: int) -> None:
    s = np.zeros((1, 10), dtype)
    s[0, 3] = lead
    with mpmath.workdps(60):
        rest = 9 * mpmath.exp(-lead)
        p = mpmath.exp(-lead) / (1 + rest)
        # nine times the same exponential, and the same rounding error
        check(lm.cross_entropy, s, [3], mpmath.log1p(rest), [-9 * p if k == 3 else p for k in range(10)], ulps=5)
        assert_ulp(lm.cross_entropy.hessian_diag(s, [3])[0, 3], 9 * p * (1 - 9 * p), 4)


@pytest.mark.parametrize(
    "row",
    [[1e-38, 1e38, 0], [1e-40, -1e-42, 3e-45], [-1e38, 1e-38, 1e-45], [3e38, -3e38, 0]],
    ids=str,
)
@pytest.mark.parametrize("label", [0, 1])
def test_39_scores_of_all_sizes(row: list[float], label: int) -> None:
    s = scores([row])
    with mpmath.workdps(60):
        exact = [mpmath.mpf(float(x)) for x in s[0]]
        gaps = [x - max(exact) for x in exact]
        powers = [mpmath.exp(g) if g > -1000 else mpmath.mpf(0) for g in gaps]
        p = [e / sum(powers) for e in powers]
        grad = [p[k] - (k == label) if k != label else -sum(p[m] for m in range(3) if m != k) for k in range(3)]
        check(lm.cross_entropy, s, [label], mpmath.log(sum(powers)) - gaps[label], [grad])


def test_39_subnormal_residuals_are_not_flushed() -> None:
    s = scores([1e-40, -3e-45])
    assert lm.absolute_error(s, 0.0, reduction="none").tolist() == np.abs(s).tolist()
    assert lm.half_squared_error.grad(s, 0.0, reduction="none").tolist() == s.tolist()
    assert lm.relu(s).tolist() == [s[0], 0]


@pytest.mark.parametrize(("n", "k"), [(0, 1), (0, 3), (1, 1), (1, 2), (2, 1)])
def test_40_few_rows_and_few_classes(n: int, k: int) -> None:
    value, grad = lm.cross_entropy.value_and_grad(np.full((n, k), 3.0), np.zeros(n, int), reduction="none")
    assert_ulp(value, mpmath.log(k))
    assert_ulp(grad, np.tile([1 / k - 1] + [1 / k] * (k - 1), (n, 1)))


def test_40_no_class_is_refused() -> None:
    with pytest.raises(lm.ShapeError, match="no classes along axis 1"):
        lm.cross_entropy(np.empty((3, 0)), [0, 0, 0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_that_64_bits_do_not_hold(dtype: str) -> None:
    s = scores([2, -0.5], dtype)
    check(lm.loss("s*10**30 + s/10**30"), s, (), [2e30, -0.5e30], [1e30, 1e30])


def test_planted_naive_losses_are_caught() -> None:
    """The naive formulas fail here: these tests would see it if lossmith used them."""
    with np.errstate(all="ignore"):
        s = np.float32([20, 0])
        naive = np.log(np.exp(s - s.max()).sum()) - (s[0] - s.max())
        with pytest.raises(AssertionError):
            assert_ulp(naive, mpmath.log1p(mpmath.exp(-20)))
        target = np.float32([0, 1])
        with pytest.raises(AssertionError):
            assert_ulp(np.sum(target * (np.log(target) - 0)), 0)


@pytest.mark.parametrize("K", [10, 100, 1000])
def test_a_weight_that_vanishes_in_float32_is_not_0(K: int, backend: str) -> None:
    """A row of weight 0 may hold anything; one of a tiny weight is NaN if it holds a NaN, though its factor is 0."""
    s = np.zeros((20, K), "f4")
    s[:3, 1] = np.nan, np.inf, np.nan
    s[1, 2] = np.inf
    grad = lm.cross_entropy.grad(s, np.zeros(20, int), sample_weight=[1e-60, 1e-60, 0.0] + [1.0] * 17)
    assert np.isnan(grad[:2]).all()
    np.testing.assert_array_equal(grad[2], 0)
    assert not np.signbit(grad[2]).any()
    assert np.isfinite(grad[3:]).all()
