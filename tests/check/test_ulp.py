"""Units in the last place: right at every corner of the formats, and planted errors are seen."""

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lossmith.check.arithmetic import context
from lossmith.check.ulp import Target, correct_digits, relative_error, ulp_error, unit_in_last_place

CTX = context(80)
DTYPES = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
def test_unit_is_the_spacing_of_numpy(dtype: Any) -> None:
    info = np.finfo(dtype)
    values = [1.0, 1.5, 2.0, 3e-3, info.tiny, info.tiny * 2, info.smallest_subnormal, 0.0, info.max]
    for value in np.array(values, dtype):
        unit = unit_in_last_place(float(value), dtype)
        if value != info.max:
            assert float(unit) == float(np.spacing(value))
        else:
            assert float(unit) == float(value) - float(np.nextafter(value, dtype(0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_planted_errors_are_counted(dtype: Any) -> None:
    info = np.finfo(dtype)
    for start in (1.25, -3.5, 1000.0, float(info.tiny) * 1.25, float(info.smallest_subnormal) * 9):
        value = dtype(start)
        off = value
        for ulps in range(4):
            assert ulp_error(np.array([off]), [CTX.mpf(float(value))])[0] == ulps
            off = np.nextafter(off, dtype(np.inf))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_within_half_a_unit(dtype: Any) -> None:
    exact = [CTX.exp(CTX.mpf(x) / 7) for x in range(-60, 60)]
    rounded = np.array([float(e) for e in exact]).astype(dtype)
    assert ulp_error(rounded, exact).max() <= 0.5000001
    assert ulp_error(np.nextafter(rounded, dtype(np.inf)), exact).max() > 0.5
    assert (correct_digits(rounded, exact) > math.log10(1 / np.finfo(dtype).eps) - 0.01).all()


def test_special_values() -> None:
    inf, nan = math.inf, math.nan
    cases = [
        (nan, nan, 0), (nan, 1, inf), (1, nan, inf), (inf, inf, 0), (inf, -inf, inf),
        (inf, 1, inf), (1, inf, inf), (0, inf, inf), (inf, CTX.mpf(10) ** 400, 0),
        (-inf, -(CTX.mpf(10) ** 400), 0), (inf, -(CTX.mpf(10) ** 400), inf),
        (3.4028235e38, CTX.mpf(10) ** 400, None), (0, 0, 0), (-0.0, 0, 0),
        (0, CTX.mpf(10) ** -400, 0), (1e-45, CTX.mpf(10) ** -400, 1), (1e-45, 0, 1),
    ]  # fmt: skip
    for got, exact, expected in cases:
        error = ulp_error(np.array([got], np.float32), [exact])[0]
        if expected is None:
            assert error > 1e300 or error == inf
        else:
            assert error == pytest.approx(expected, rel=1e-9), (got, exact)


def test_largest_float_and_what_rounds_to_it() -> None:
    largest = float(np.finfo(np.float32).max)
    just = CTX.mpf(largest) * (1 + CTX.mpf(2) ** -26)
    beyond = CTX.mpf(2) ** 128
    assert ulp_error(np.array([largest], np.float32), [just])[0] < 0.5
    assert ulp_error(np.array([np.inf], np.float32), [just])[0] == np.inf
    assert ulp_error(np.array([np.inf], np.float32), [beyond])[0] == 0
    assert ulp_error(np.array([largest], np.float32), [beyond])[0] == 1


def test_relative_error_and_digits() -> None:
    got = np.array([1.0, 1.01, 0.0, 0.0, 1.0, np.inf, np.nan, np.inf], np.float64)
    exact = [1, 1, 0, 1, 0, CTX.mpf(10) ** 400, 1, 1]
    expected = [0, 0.01, 0, 1, np.inf, 0, np.inf, np.inf]
    np.testing.assert_allclose(relative_error(got, exact), expected, rtol=1e-12)
    digits = correct_digits(got, exact)
    np.testing.assert_allclose(digits, [15.95459, 2, 15.95459, 0, 0, 15.95459, 0, 0], rtol=1e-5)


def test_shape_is_kept_and_lengths_must_agree() -> None:
    got = np.ones((2, 3), np.float32)
    assert ulp_error(got, [1] * 6).shape == (2, 3)
    with pytest.raises(ValueError, match="zip"):
        ulp_error(got, [1] * 5)


def test_bfloat16() -> None:
    got = np.array([1.0, 1.0078125], ml_dtypes.bfloat16)
    np.testing.assert_array_equal(ulp_error(got, [1, 1]), [0, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_target_measures_as_ulp_error_does(dtype: str) -> None:
    """The short way over two floats, and the long way for the last few numbers of the range."""
    rng = np.random.default_rng(3)
    ctx = context(400)
    info = np.finfo(dtype)
    exact = [
        ctx.mpf(m) * ctx.mpf(10) ** int(e) / 3
        for m, e in zip(rng.normal(size=60), rng.integers(-50, 39, 60), strict=True)
    ]
    exact += [ctx.mpf(1) - ctx.mpf(10) ** -30, ctx.mpf(1), ctx.mpf(2) ** -126, ctx.mpf(0), ctx.mpf(10) ** -320]
    exact += [ctx.mpf(float(info.max)) * 2, ctx.mpf(float(info.smallest_subnormal)) * 2.5, ctx.inf, ctx.nan]
    for number in exact:
        with np.errstate(over="ignore", under="ignore"):
            near = np.dtype(dtype).type(float(number))
            steps = [near, np.nextafter(near, np.inf, dtype=dtype), near * np.dtype(dtype).type(1.001)]
        for got in [*steps, np.dtype(dtype).type(0), np.dtype(dtype).type(np.inf), np.dtype(dtype).type(np.nan)]:
            expected = ulp_error(np.asarray([got]), [number])[0]
            found = Target(number).ulp(got, dtype)
            assert found == expected or abs(found - expected) <= 1e-6 * expected, (got, number)
