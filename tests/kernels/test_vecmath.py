"""vecmath, measured in ulp: every float32, and float64 against 50 digits."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from lossmith.kernels import lanes, vecmath, vecmath_llvm, vecmath_tables

NAMES = sorted(vecmath.MAX_ULP)  # functions of one number
PER_GAP = {"float32": 1 / 20, "float64": 0.0}
"""By how much, in ulp, exp_gap may be off for every unit of x - m, besides what it is off by anyway."""
DTYPES = (np.float32, np.float64)
DIGITS = 50
SLACK = 0.05
"""By how much, in ulp, a claim may be above the worst argument known."""


# ------------------------------------------------------------------ running and measuring


def loop_of(function: Any) -> Any:
    @njit(nogil=True, error_model="numpy")
    def loop(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    return loop


def loop_of_gaps() -> Any:
    exp_gap = vecmath.exp_gap

    @njit(nogil=True, error_model="numpy")
    def loop(x, m, out):
        for i in range(x.size):
            out[i] = exp_gap(x[i], m)

    return loop


def loop_of_gaps_in_vectors() -> Any:
    exp_gap, load, store, first = vecmath.exp_gap, lanes.load, lanes.store, np.uint64(0)

    @njit(nogil=True, error_model="numpy")
    def loop(x, m, out):
        for i in range(first, np.uint64(x.size), np.uint64(64)):
            store(out, i, exp_gap(load(x, i, 64), m))

    return loop


LOOPS = {name: loop_of(getattr(vecmath, name)) for name in NAMES}
GAPS = loop_of_gaps()
GAPS_IN_VECTORS = loop_of_gaps_in_vectors()


def run(loop: Any, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    loop(x, out)
    return out


def in_float64(name: str, x: np.ndarray) -> np.ndarray:
    """Return the reference for float32: good to about two ulp of float64, 1e-8 of float32's."""
    with np.errstate(all="ignore"):
        if name == "sigmoid":
            e = np.exp(-np.abs(x))
            return np.where(x < 0, e, 1) / (1 + e)
        if name == "softplus":
            return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
        if name == "log_cosh":
            small = np.log1p(np.expm1(np.abs(x)) ** 2 / (2 * np.exp(np.abs(x))))
            return np.where(np.abs(x) < 20, small, np.abs(x) - np.log(2))
        if name == "exp_nonpositive":
            return np.exp(x)
        return getattr(np, name)(x)


def ulp_float32(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Measure float32 results against float64: the error in units in the last place of `exact`.

    Overflow counts as 2**128, the number after the largest. An infinity, NaN or number that should
    be another of the three is infinitely wrong.
    """
    with np.errstate(all="ignore"):
        limit = 2.0**128
        exponent = np.where(exact == 0, -126, np.clip(np.frexp(exact)[1] - 1, -126, 127))
        got = got.astype(np.float64)
        got = np.where(np.isinf(got) & np.isfinite(exact), np.copysign(limit, got), got)
        exact = np.where(np.isfinite(exact), np.clip(exact, -limit, limit), exact)
        error = np.abs(got - exact) / np.ldexp(1.0, exponent - 23)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    error[np.isnan(error)] = np.inf
    return np.where(same, 0.0, error)


def exact_value(name: str, x: float) -> mpmath.mpf:
    """Compute in DIGITS digits, beyond any cancellation."""
    v = mpmath.mpf(x)
    match name:
        case "sigmoid":
            return 1 / (1 + mpmath.exp(-v))
        case "softplus":
            return mpmath.log1p(mpmath.exp(v))
        case "log_cosh":  # cosh x - 1 = 2·sinh²(x/2)
            return mpmath.log1p(2 * mpmath.sinh(v / 2) ** 2)
        case "exp_nonpositive":
            return mpmath.exp(v)
        case _:
            return getattr(mpmath, name)(v)


def ulp_float64(name: str, x: np.ndarray, got: np.ndarray) -> np.ndarray:
    errors = np.empty(x.size)
    with mpmath.workdps(DIGITS):
        for i, (argument, result) in enumerate(zip(x.tolist(), got.tolist(), strict=True)):
            exact = exact_value(name, argument)
            overflow = mpmath.ldexp(1, 1024)
            if np.isinf(result):
                result = mpmath.sign(result) * overflow
            exact = max(min(exact, overflow), -overflow)
            exponent = max(mpmath.frexp(exact)[1] - 1, -1022)
            errors[i] = abs(result - exact) / mpmath.ldexp(1, min(exponent, 1023) - 52)
    errors[np.isnan(errors)] = np.inf
    return errors


def domain(name: str, x: np.ndarray) -> np.ndarray:
    """Keep finite arguments with a finite result (or one too large for the type)."""
    low, high = {"log": (0, np.inf), "log1p": (-1, np.inf), "exp_nonpositive": (-np.inf, 0)}.get(
        name, (-np.inf, np.inf)
    )
    return x[np.isfinite(x) & (x > low) & (x <= high)]


def all_float32(step: int, chunk: int = 1 << 16) -> Iterator[np.ndarray]:
    for start in range(0, 1 << 32, chunk):
        bits = np.arange(start, start + chunk, step, dtype=np.uint64).astype(np.uint32)
        x = bits.view(np.float32)
        yield x[np.isfinite(x)]


def worst_float32(name: str, loop: Any, step: int) -> float:
    below = name == "exp_nonpositive"  # undefined above 0; the others answer outside their domain too
    return max(
        float(ulp_float32(run(loop, x), in_float64(name, x.astype(np.float64))).max(initial=0.0))
        for x in (x[x <= 0] if below else x for x in all_float32(step))
    )


# The worst of 10**7 random arguments of each function, most of them where the errors are largest,
# found with 80-bit floats.
WORST: dict[str, tuple[str, ...]] = {
    "exp": ("0x1.74c82d7c0b148p-2", "0x1.729d260798566p-2", "-0x1.1832ca65b046cp+9"),
    "exp_nonpositive": ("-0x1.b4a12f7407f7fp+6", "-0x1.7329841e92500p+8", "-0x1.e8ff792126b5bp+8"),
    "expm1": ("0x1.700b144e2d7d4p-2", "0x1.6f202a9a042fep-2", "0x1.724703e8116dfp-2"),
    "log": ("0x1.7ea41da191102p-1", "0x1.7eb5c732fa6d4p-1", "0x1.7f6e1523936cep-1"),
    "log1p": ("-0x1.01d04b01357f8p-2", "-0x1.091e379eba0ebp-2", "-0x1.18b618ba93f55p-2"),
    "log_cosh": ("0x1.73323f77ab5c4p-1", "0x1.78c2626263d25p-1", "0x1.78a43882b6003p-1"),
    "sigmoid": ("-0x1.b87cb258ba80bp+1", "-0x1.5e477e91844ccp+1", "-0x1.5e748aba86fbep+1"),
    "softplus": ("0x1.9c806699b1bb8p-5", "0x1.460b738b41c34p-8", "0x1.13e63b3ae56b3p-8"),
    "tanh": ("0x1.0a296c1ae6043p-1", "0x1.94f6bb28c8ccep-3", "0x1.9205b1c4b08ebp-3"),
}


def hard_float64(name: str, count: int, seed: int = 0) -> np.ndarray:
    """Return known bad arguments, seams of the algorithms with their neighbours, random ones."""
    rng = np.random.default_rng(seed)
    seams = [
        *(n * np.log(2) / 2 for n in (*range(-9, 10), 1023, 2047, -2043, -2147, -2149)),
        *(709.78, 710.0, -700.0, -708.4, -745.13, -746.0, -30.0, -50.0, 40.0, 18.7, -37.4),
        *(m * 2.0**e for m in (0.75, 1.0, 1.5) for e in (-1074, -1022, -2, -1, 0, 1, 52, 53, 1023)),
        *(m * 2.0**e - 1 for m in (0.75, 1.5) for e in (-2, -1, 0, 1, 53)),
        *(s * 2.0**e for s in (-1, 1) for e in (-1074, -1060, -1022, -500, -57, -56, -55, -27, -3)),
        *(np.finfo(np.float64).max, 1e300, 1e-300, -0.25, 0.5),
    ]
    bits = np.array(seams).view(np.int64)
    near = [(bits + shift).view(np.float64) for shift in (-2, -1, 0, 1, 2)]
    random = [
        rng.integers(0, 1 << 64, count, dtype=np.uint64).view(np.float64),  # every exponent
        rng.normal(size=count) * 2.0 ** rng.uniform(-9, 2, count),
        rng.uniform(-746, 710, count),
        1 + rng.normal(size=count) * 2.0 ** rng.uniform(-50, -2, count),
        rng.uniform(0, 3, count),
    ]
    known = np.array([float.fromhex(text) for text in WORST[name]])
    return domain(name, np.concatenate([known, *near, *random]))


# ------------------------------------------------------------------ accuracy


@pytest.mark.parametrize("name", NAMES)
def test_float32_at_every_exponent(name: str) -> None:
    worst = worst_float32(name, LOOPS[name], step=9973)
    assert 0.5 < worst <= vecmath.MAX_ULP[name]["float32"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_float32_everywhere(name: str) -> None:
    worst = worst_float32(name, LOOPS[name], step=1)
    claimed = vecmath.MAX_ULP[name]["float32"]
    assert claimed - SLACK < worst <= claimed, f"measured {worst:.4f} ulp"


@pytest.mark.parametrize("name", NAMES)
def test_float64_against_50_digits(name: str) -> None:
    x = hard_float64(name, count=300)
    worst = ulp_float64(name, x, run(LOOPS[name], x)).max()
    claimed = vecmath.MAX_ULP[name]["float64"]
    assert claimed - SLACK < worst <= claimed, f"measured {worst:.4f} ulp"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_float64_against_50_digits_at_length(name: str) -> None:
    x = hard_float64(name, count=40_000, seed=1)
    assert ulp_float64(name, x, run(LOOPS[name], x)).max() <= vecmath.MAX_ULP[name]["float64"]


def gaps_float32(loop: Any, step: int) -> float:
    """Return how much of what is admitted the largest error takes, of the exponentials of all float32 below 0."""
    worst = 0.0
    for chunk in all_float32(step, 1 << 22):
        x = chunk[chunk <= 0]
        x = x[: x.size // 64 * 64]
        got = np.empty_like(x)
        loop(x, np.float32(0), got)
        error = ulp_float32(got, np.exp(x.astype(np.float64)))
        worst = max(worst, float((error / gap_limit(x)).max(initial=0.0)))
    return worst


def gap_limit(x: np.ndarray) -> np.ndarray:
    """Return the error that the docstring admits, in ulp."""
    return vecmath_tables.GAP_ULP[x.dtype.name] + PER_GAP[x.dtype.name] * np.abs(x.clip(-120))


@pytest.mark.parametrize("loop", [GAPS, GAPS_IN_VECTORS])
def test_gaps_float32_at_every_exponent(loop: Any) -> None:
    assert 0.5 < gaps_float32(loop, step=997) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("loop", [GAPS, GAPS_IN_VECTORS])
def test_gaps_float32_everywhere(loop: Any) -> None:
    assert 0.9 < gaps_float32(loop, step=1) <= 1


def gaps_float64(loop: Any, count: int) -> float:
    x = hard_float64("exp_nonpositive", count)
    x = x[: x.size // 64 * 64]
    got = np.empty_like(x)
    loop(x, 0.0, got)
    return float((ulp_float64("exp_nonpositive", x, got) / gap_limit(x)).max())


@pytest.mark.parametrize("loop", [GAPS, GAPS_IN_VECTORS])
def test_gaps_float64_against_50_digits(loop: Any) -> None:
    assert 0.8 < gaps_float64(loop, 300) <= 1


@pytest.mark.slow
def test_gaps_float64_against_50_digits_at_length() -> None:
    assert 0.9 < gaps_float64(GAPS_IN_VECTORS, 40_000) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaps_without_the_instructions_for_a_table(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other processors run: the same but for the last digits."""
    monkeypatch.setattr(vecmath, "has_avx512", lambda: False)
    monkeypatch.setattr(vecmath_llvm, "has_avx512", lambda: False)
    if dtype is np.float32:
        assert 0.5 < gaps_float32(loop_of_gaps_in_vectors(), step=9973) <= 1
    else:
        assert 0.5 < gaps_float64(loop_of_gaps_in_vectors(), 50) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaps_in_vectors_and_alone_have_the_same_bits(dtype: type) -> None:
    rng = np.random.default_rng(9)
    m = dtype(rng.normal() * 30)
    x = (m - rng.exponential(size=1 << 14) * 2.0 ** rng.uniform(-20, 10, 1 << 14)).astype(dtype)
    x[::7], x[1::64], x[2::64] = m, -np.inf, np.nan
    alone, together = np.empty_like(x), np.empty_like(x)
    GAPS(x, m, alone)
    GAPS_IN_VECTORS(x, m, together)
    assert alone.tobytes() == together.tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loop", [GAPS, GAPS_IN_VECTORS])
def test_special_gaps(loop: Any, dtype: type) -> None:
    x = np.array([INF, 3, -INF, NAN, -1e30] * 64, dtype)
    for m, expected in ((INF, [1, 0, 0, NAN, 0]), (3, [None, 1, 0, NAN, 0]), (NAN, [NAN] * 5)):
        got = np.empty_like(x)
        loop(x, dtype(m), got)
        for k, value in enumerate(expected):
            if value is not None:
                np.testing.assert_array_equal(got[k::5], value)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("table", "slip"), [("EXP_GAP_COEFFICIENTS", 0.1), ("POWERS_OF_TWO", 1e-6)])
def test_planted_slip_in_gaps_is_caught(table: str, slip: float, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = np.dtype(dtype).name, dict(getattr(vecmath, table))
    with_slip(wrong, name, 1, slip)
    monkeypatch.setattr(vecmath, table, wrong)
    if dtype is np.float32:
        assert gaps_float32(loop_of_gaps(), step=9973) > 1
    else:
        assert gaps_float64(loop_of_gaps(), 20) > 1


HALF = float(np.log(2) / 2)
POLYNOMIALS: dict[str, tuple[float, float, Any, Any]] = {
    "exp": (-HALF, HALF, lambda x, p: x + x**2 * p(x), mpmath.expm1),
    "exp_gap": (-HALF, HALF, lambda x, p: x + x**2 * p(x), mpmath.expm1),
    "log": (-0.25, 0.5, lambda x, p: x + x**2 * p(x), mpmath.log1p),
    "unit_log": (1e-6, 1.0, lambda x, p: x + x**2 * p(x), mpmath.log1p),
    "log_cosh": (1e-6, 1.0, lambda x, p: x**2 * p(x**2), lambda x: mpmath.log(mpmath.cosh(x))),
}
"""Where, how a polynomial p is used there, and what that is close to."""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", POLYNOMIALS)
def test_polynomials_are_as_close_as_claimed(function: str, dtype: str) -> None:
    """The relative error of the polynomial alone."""
    low, high, used, exact = POLYNOMIALS[function]
    if function == "exp_gap":
        steps = len(vecmath_tables.POWERS_OF_TWO[dtype])
        low, high = low / steps, high / steps
    table = getattr(vecmath_tables, f"{function.upper()}_COEFFICIENTS")[dtype]
    if dtype == "float32":
        assert table == tuple(float(np.float32(c)) for c in table)
    worst = mpmath.mpf(0)
    with mpmath.workdps(DIGITS):
        for x in map(mpmath.mpf, np.linspace(low, high, 998).tolist()):
            near = used(x, lambda at: sum(c * at**power for power, c in enumerate(table)))
            worst = max(worst, abs(near / exact(x) - 1))
    assert 0.9 * vecmath_tables.POLYNOMIAL_ERROR[function][dtype] < worst
    assert worst <= vecmath_tables.POLYNOMIAL_ERROR[function][dtype]


def test_log_2_has_160_bits() -> None:
    with mpmath.workprec(200):
        assert int(mpmath.floor(mpmath.log(2) * 2**160)) / Fraction(2**160) == vecmath.LOG_2


def test_docstrings_give_the_measured_errors() -> None:
    for name in NAMES:
        for figure in vecmath.MAX_ULP[name].values():
            assert f"{figure} ulp" in getattr(vecmath, name).__doc__


# ------------------------------------------------------------------ special values

INF, NAN = np.inf, np.nan
SPECIAL = {
    "exp": [(0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (1e5, INF), (-1e5, 0)],
    "exp_nonpositive": [(0, 1), (-0.0, 1), (-INF, 0), (-1e5, 0)],
    "expm1": [(0, 0), (-0.0, -0.0), (INF, INF), (-INF, -1), (1e5, INF), (-1e5, -1)],
    "log": [(0, -INF), (-0.0, -INF), (1, 0), (INF, INF), (-1, NAN), (-INF, NAN), (-1e-40, NAN)],
    "log1p": [(0, 0), (-0.0, -0.0), (-1, -INF), (INF, INF), (-1.5, NAN), (-INF, NAN)],
    "log_cosh": [(0, 0), (-0.0, 0), (INF, INF), (-INF, INF), (1e30, 1e30), (-1e30, 1e30)],
    "sigmoid": [(0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (1e5, 1), (-1e5, 0)],
    "softplus": [(INF, INF), (-INF, 0), (1e5, 1e5), (-1e5, 0)],
    "tanh": [(0, 0), (-0.0, -0.0), (INF, 1), (-INF, -1), (1e5, 1), (-1e5, -1)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, dtype: type) -> None:
    # Long enough for the vector loop, and once more one at a time for the scalar one.
    cases = [*SPECIAL[name], (NAN, NAN), (-NAN, NAN)] * 16
    x, expected = np.array(cases, dtype).T.copy()
    for got in (run(LOOPS[name], x), np.array([run(LOOPS[name], v[None])[0] for v in x])):
        np.testing.assert_array_equal(got, expected)
        number = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(expected[number]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh"])
def test_tiny_arguments_are_their_own_result(name: str, dtype: type) -> None:
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.tiny / 3, info.tiny, info.eps**2], dtype)
    x = np.concatenate([x, -x])
    np.testing.assert_array_equal(run(LOOPS[name], x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "exp_nonpositive", "sigmoid", "softplus"])
def test_underflow_is_gradual(name: str, dtype: type) -> None:
    info = np.finfo(dtype)
    x = np.linspace(np.log(float(info.tiny)) - 1e-3, np.log(float(info.smallest_subnormal)), 50)
    got = run(LOOPS[name], x.astype(dtype))
    assert (np.diff(got) <= 0).all()
    assert (got > 0).all()
    assert (got < info.tiny).all()
    assert np.unique(got).size > 20


# ------------------------------------------------------------------ powers


def loop_of_power() -> Any:
    power = vecmath.power

    @njit(nogil=True, error_model="numpy")
    def loop(x, y, out):
        for i in range(x.size):
            out[i] = power(x[i], y[i])

    return loop


POWER = loop_of_power()
EXPONENTS = (-4.0, -1.7, -1.0, -0.5, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.3, 40.0)


def power_limit(y: np.ndarray) -> np.ndarray:
    """Return the error that the docstring admits, in ulp."""
    return 1.2 + np.abs(y) / 3


def powers(loop: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    loop(x, y, out)
    return out


def worst_power(loop: Any, dtype: type, count: int) -> float:
    """Return the largest error in units of what is admitted, over bases of many sizes, many of them near 1."""
    rng = np.random.default_rng(7)
    info, worst = np.finfo(dtype), 0.0
    for exponent in EXPONENTS:
        reach = 0.98 * np.log(float(info.max)) / abs(exponent)  # beyond it the result is no normal number
        logs = np.concatenate(
            [rng.uniform(-reach, reach, count), rng.normal(size=count) * 2.0 ** rng.uniform(-9, 0, count)]
        )
        x = np.exp(logs[np.abs(logs) < reach].clip(np.log(float(info.tiny)), np.log(float(info.max)))).astype(dtype)
        y = np.full_like(x, exponent)
        got = powers(loop, x, y)
        with mpmath.workdps(DIGITS):
            for a, b, result in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
                exact = mpmath.power(a, b)
                unit = mpmath.ldexp(1, mpmath.frexp(exact)[1] - 1 - info.nmant)
                worst = max(worst, float(abs(result - exact) / unit / power_limit(np.array(b))))
    return worst


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_against_50_digits(dtype: type) -> None:
    assert 0.5 < worst_power(POWER, dtype, 200) <= 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_of_what_is_special(dtype: type) -> None:
    info = np.finfo(dtype)
    numbers = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e-30, 1e30, 2.0**info.nmant + 1, 2.0**60, info.tiny / 4, info.max, np.inf]
    numbers = np.array([*numbers, *(-n for n in numbers), np.nan], dtype)
    x, y = (a.ravel() for a in np.meshgrid(numbers, numbers))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    got = powers(POWER, x, y)
    ordinary = np.isfinite(expected) & (expected != 0) & np.isfinite(x) & np.isfinite(y)
    np.testing.assert_array_equal(got[~ordinary], expected[~ordinary])
    seen = ~ordinary & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got[seen]), np.signbit(expected[seen]))
    with np.errstate(over="ignore"):  # the largest number has no next one
        error = np.abs(got[ordinary] - expected[ordinary]) / np.spacing(np.abs(expected[ordinary]))
    assert (error <= power_limit(y[ordinary].clip(-1e3, 1e3)) + 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_powers_are_vectorised_with_the_same_bits(dtype: type) -> None:
    rng = np.random.default_rng(8)
    x, y = np.exp(rng.normal(size=301) * 3).astype(dtype), rng.normal(size=301).astype(dtype)
    whole = powers(POWER, x, y)
    np.testing.assert_array_equal(whole, [powers(POWER, x[i : i + 1], y[i : i + 1])[0] for i in range(x.size)])
    suffix = {np.float32: "f32", np.float64: "f64"}[dtype]
    assert any(f"@llvm.fma.v{n}{suffix}" in t for t in POWER.inspect_llvm().values() for n in (2, 4, 8, 16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("table", ["EXP_COEFFICIENTS", "LOG_COEFFICIENTS"])
def test_planted_slip_in_a_power_is_caught(table: str, dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dict(getattr(vecmath, table))
    with_slip(wrong, np.dtype(dtype).name, 2, {np.float32: 1e-3, np.float64: 1e-9}[dtype])
    monkeypatch.setattr(vecmath, table, wrong)
    assert worst_power(loop_of_power(), dtype, 20) > 1


# ------------------------------------------------------------------ types, vectors, bits, cache


@pytest.mark.parametrize("name", NAMES)
def test_type_is_kept(name: str) -> None:
    function = getattr(vecmath, name)
    one = njit(lambda x: function(x))
    for dtype in DTYPES:
        one(dtype(0.25))
    assert [str(s.return_type) for s in one.nopython_signatures] == ["float32", "float64"]
    with pytest.raises(TypingError, match=f"vecmath.{name} takes float32 or float64, not int64"):
        one(1)


@pytest.mark.parametrize("name", ["maximum", "minimum", "max_nnan", "min_nnan", "add_reassoc", "power"])
def test_types_are_not_mixed(name: str) -> None:
    function = getattr(vecmath, name)
    two = njit(lambda a, b: function(a, b))
    assert two(np.float32(1), np.float32(2)) in (1, 2, 3)
    with pytest.raises(TypingError, match=r"two floats of one type, not \(float32, float64\)"):
        two(np.float32(1), 2.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_loops_are_vectorised(name: str, dtype: type) -> None:
    run(LOOPS[name], np.zeros(1, dtype))
    suffix = {np.float32: "f32", np.float64: "f64"}[dtype]
    texts = [text for s, text in LOOPS[name].inspect_llvm().items() if f"{np.dtype(dtype)}" in str(s)]
    assert len(texts) == 1
    assert re.search(rf"call <\d+ x \w+> @llvm\.fma\.v\d+{suffix}", texts[0])


def reduction_of(function: Any) -> Any:
    @njit(nogil=True, error_model="numpy")
    def reduction(x):
        result = x[0]
        for i in range(1, x.size):
            result = function(result, x[i])
        return result

    return reduction


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("maximum", np.max), ("minimum", np.min), ("max_nnan", np.max), ("min_nnan", np.min),
        ("add_reassoc", np.sum),
    ],
)  # fmt: skip
def test_reductions_are_vectorised(name: str, reference: Callable[..., Any], dtype: type) -> None:
    if name in ("maximum", "minimum") and not vecmath.LLVM_HAS_MAXIMUM:
        pytest.skip("this version of LLVM has no vector reduction that keeps NaN")
    reduction = reduction_of(getattr(vecmath, name))
    x = np.random.default_rng(0).integers(-1000, 1000, 999).astype(dtype)
    assert reduction(x) == reference(x)
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    assert re.search(rf"<\d+ x {kind}>", next(iter(reduction.inspect_llvm().values())))
    if name in ("maximum", "minimum"):
        for position in (0, 1, 500, 998):
            y = x.copy()
            y[position] = np.nan
            assert np.isnan(reduction(y))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_maximum_and_minimum_of_two(dtype: type, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if native and not vecmath.LLVM_HAS_MAXIMUM:
        pytest.skip("this version of LLVM has no code for it")
    monkeypatch.setattr(vecmath, "LLVM_HAS_MAXIMUM", native)
    maximum, minimum = vecmath.maximum, vecmath.minimum
    both = njit(lambda a, b: (maximum(a, b), minimum(a, b)))
    for a in (1.0, -2.0, 0.0, np.inf, -np.inf, np.nan):
        for b in (1.5, -2.0, np.inf, -np.inf, np.nan):
            expected = (np.maximum(a, b), np.minimum(a, b))
            np.testing.assert_array_equal(both(dtype(a), dtype(b)), expected)


def test_fma_rounds_once_and_select_chooses() -> None:
    fma, select = vecmath.fma, vecmath.select
    both = njit(lambda a, b, c: (fma(a, b, c), select(a > b, a, b)))
    a = 1 + np.float32(2.0**-12)
    assert both(a, a, -a * a) == (np.float32(2.0**-24), a)
    assert both(1.0, 2.0, 3.0) == (5.0, 2.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_in_vector_and_scalar_code(name: str, dtype: type) -> None:
    x = domain(name, np.random.default_rng(3).normal(size=400) * 9).astype(dtype)
    whole = run(LOOPS[name], x)
    one_by_one = np.array([run(LOOPS[name], v[None])[0] for v in x])
    np.testing.assert_array_equal(whole, one_by_one)
    np.testing.assert_array_equal(whole[3:-2], run(LOOPS[name], x[3:-2]))
    strided = np.repeat(x, 3)[::3]
    np.testing.assert_array_equal(whole, run(LOOPS[name], strided))


CACHED = """
import numpy as np
from numba import njit
from lossmith.kernels.vecmath import add_reassoc, exp, log1p, maximum

@njit(nogil=True, error_model="numpy", cache=True)
def kernel(x):
    top = x[0]
    for i in range(1, x.size):
        top = maximum(top, x[i])
    total = x[0] - x[0]
    for i in range(x.size):
        total = add_reassoc(total, exp(x[i] - top))
    return top + log1p(total)

if __name__ == "__main__":
    print(kernel(np.arange(9, dtype=np.float32)), sum(kernel.stats.cache_hits.values()))
"""


def test_works_with_a_cached_kernel(tmp_path: Path) -> None:
    (tmp_path / "generated.py").write_text(CACHED)
    source = str(Path(vecmath.__file__).parents[2])
    code = f"import sys; sys.path[:0] = [{source!r}, {str(tmp_path)!r}]; import runpy; "
    code += "runpy.run_module('generated', run_name='__main__')"
    outputs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    ]
    assert [hits for _, hits in outputs] == ["0", "1"]
    assert outputs[0][0] == outputs[1][0]


# ------------------------------------------------------------------ tests of the tests


def with_slip(table: dict[str, tuple[float, ...]], dtype: str, power: int, slip: float) -> None:
    coefficients = list(table[dtype])
    coefficients[power] *= 1 + slip
    table[dtype] = tuple(coefficients)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "table", "power"),
    [
        ("exp", "EXP_COEFFICIENTS", 1),
        ("exp_nonpositive", "EXP_COEFFICIENTS", 1),
        ("expm1", "EXP_COEFFICIENTS", 2),
        ("sigmoid", "EXP_COEFFICIENTS", 2),
        ("tanh", "EXP_COEFFICIENTS", 1),
        ("log", "LOG_COEFFICIENTS", 1),
        ("log1p", "LOG_COEFFICIENTS", 3),
        ("softplus", "UNIT_LOG_COEFFICIENTS", 2),
        ("log_cosh", "LOG_COSH_COEFFICIENTS", 1),
    ],
)
def test_planted_slip_in_a_coefficient_is_caught(
    name: str, table: str, power: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = dict(getattr(vecmath, table))
    with_slip(wrong, dtype, power, {"float32": 1e-3, "float64": 1e-9}[dtype])
    monkeypatch.setattr(vecmath, table, wrong)
    loop = loop_of(getattr(vecmath, name))  # compiled now, from the wrong table
    if dtype == "float32":
        worst = worst_float32(name, loop, step=99_991)
    else:
        x = hard_float64(name, count=50)
        worst = ulp_float64(name, x, run(loop, x)).max()
    assert worst > vecmath.MAX_ULP[name][dtype]


def test_ulp_meters_measure() -> None:
    exact = np.array([1.0, 1.0, 0.999, 2.0**-149, 0.0, 2.0**127 * 1.9999999, np.inf, np.nan, 1.0])
    got = np.array([1, 1 + 2**-23, 0.999, 0, 2.0**-149, np.inf, 1, 1, np.nan], np.float32)
    error = ulp_float32(got, exact)
    assert error[:2].tolist() == [0, 1]
    assert 0 < error[2] < 0.5
    assert error[3:5].tolist() == [1, 1]
    assert 0 < error[5] < 1
    assert np.isinf(error[6:]).all()
    one = np.array([0.0])
    assert ulp_float64("exp", one, np.array([1 + 2.0**-52])) == [1]
    assert np.isinf(ulp_float64("exp", one, np.array([np.nan])))
