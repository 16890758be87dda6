"""Double words: every operation against 400 bits, on NumPy and on the machine; limits; tapes against NumPy's code."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import lossmith as lm
from laws import case_of
from lossmith.kernels import doubled, doubled_machine, doubled_math, doubled_numpy
from lossmith.kernels.doubled_array import Doubled
from lossmith.kernels.doubled_math import BOUNDS, OPERATIONS, WIDTH, Pair
from lossmith.kernels.doubled_tape import FIELDS, OPERATION_NUMBERS
from lossmith.losses import CATALOGUE

BITS = 400
N = 24 * WIDTH


def on_numpy(name: str, *pairs: Pair) -> Pair:
    with np.errstate(all="ignore"):
        high, low = doubled_numpy.operator(name)(*pairs)
    return np.broadcast_to(high, pairs[0][0].shape), np.broadcast_to(low, pairs[0][0].shape)


def on_machine(name: str, *pairs: Pair) -> Pair:
    """Carry out one instruction: all numbers are rows of one tile."""
    n = len(pairs[0][0])
    assert n % WIDTH == 0
    memory = np.concatenate([np.zeros(2 * n), *(word for pair in pairs for word in pair)])
    code = [OPERATION_NUMBERS[name], 0]
    for k in range(1 + len(pairs)):
        code += [2 * n * k, 2 * n * k + n, 0, 0, 1, 1]
    table = np.array([code + [0] * (FIELDS - len(code))], dtype=np.int64)
    none, segments = np.empty(0, np.int64), np.array([[0, 1, 0]], dtype=np.int64)
    run = doubled_machine.compiled()
    run(n, 1, n, 1, memory.ctypes.data, memory, table, segments, none, none, none)
    return memory[:n], memory[n : 2 * n]


WAYS: dict[str, Callable[..., Pair]] = {"numpy": on_numpy, "machine": on_machine}


# ------------------------------------------------------------------ as many digits as are claimed


def exact(high: float, low: float = 0.0) -> Any:
    return mpmath.mpf(float(high)) + mpmath.mpf(float(low))


def words_around(rng: np.random.Generator, high: np.ndarray) -> Pair:
    """Return pairs with these high words; some low words are 0."""
    low = high * 2.0**-54 * rng.uniform(-1, 1, high.shape)
    return high, np.where(rng.random(high.shape) < 0.3, 0.0, low)


def powers(low: float, high: float, *, positive: bool = False) -> Callable[[np.random.Generator], np.ndarray]:
    """Return what draws numbers of every magnitude between two powers of two."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        return 2.0 ** rng.uniform(low, high, N) * (1 if positive else rng.choice([-1, 1], N))

    return draw


def between(low: float, high: float) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.uniform(low, high, N)


def log_cosh(x: Any) -> Any:
    return mpmath.log1p(2 * mpmath.sinh(x / 2) ** 2)


CASES: list[tuple[str, Callable[..., Any], tuple[Callable[[np.random.Generator], np.ndarray], ...]]] = [
    ("add", lambda a, b: a + b, (powers(-60, 60), powers(-60, 60))),
    ("add", lambda a, b: a + b, (between(1, 2), between(-2, -1))),
    ("sub", lambda a, b: a - b, (powers(-4, 4), powers(-4, 4))),
    ("gap", lambda a, b: a - b, (powers(-900, 900), powers(-900, 900))),
    ("gap_of_words", lambda a, b: a - b, (powers(-900, 900), powers(-900, 900))),
    ("mul", lambda a, b: a * b, (powers(-400, 450), powers(-400, 450))),
    ("scaled", lambda a, b: a * b, (powers(-400, 450), powers(-400, 450))),
    ("div", lambda a, b: a / b, (powers(-400, 450), powers(-400, 450))),
    ("sqrt", mpmath.sqrt, (powers(-800, 1000, positive=True),)),
    ("exp", mpmath.exp, (between(-600, 709),)),
    ("exp", mpmath.exp, (powers(-300, 6),)),
    ("expm1", mpmath.expm1, (between(-120, 709),)),
    ("expm1", mpmath.expm1, (powers(-900, 1),)),
    ("log", mpmath.log, (powers(-1000, 1000, positive=True),)),
    ("log", mpmath.log, (lambda rng: 1 + powers(-52, -1)(rng),)),
    ("log1p", mpmath.log1p, (powers(-900, 1000, positive=True),)),
    ("log1p", mpmath.log1p, (lambda rng: -powers(-900, -0.01, positive=True)(rng),)),
    ("sigmoid", lambda x: 1 / (1 + mpmath.exp(-x)), (between(-600, 600),)),
    ("softplus", lambda x: mpmath.log1p(mpmath.exp(x)), (between(-600, 600),)),
    ("log_cosh", log_cosh, (powers(-400, 9),)),
    ("tanh", mpmath.tanh, (powers(-400, 6),)),
    ("pow", lambda a, b: a**b, (powers(-99, 99, positive=True), between(-5, 5))),
]


def worst(found: Pair, pairs: list[Pair], function: Callable[..., Any]) -> float:
    """Return the largest relative error in units of 2**-106."""
    errors = [0.0]
    with mpmath.workprec(BITS):
        for i in range(len(found[0])):
            right = function(*(exact(p[0][i], p[1][i]) for p in pairs))
            off = abs(exact(found[0][i], found[1][i]) - right)
            errors.append(float(off / abs(right) * mpmath.mpf(2) ** 106) if right else float("inf" if off else 0))
    return max(errors)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "function", "draws"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)])
def test_operations_have_the_digits_they_claim(
    way: str, name: str, function: Callable[..., Any], draws: tuple[Callable[[np.random.Generator], np.ndarray], ...]
) -> None:
    rng = np.random.default_rng(7)
    pairs = [words_around(rng, draw(rng)) for draw in draws]
    if name.endswith("of_words"):
        pairs = [(high, np.zeros_like(high)) for high, _ in pairs]
    found = WAYS[way](name, *pairs)
    assert np.array_equal(found[0] + found[1], found[0])  # the high word is the rounded sum
    limit = BOUNDS[name]
    if name == "pow":  # the error of a·log x is relative, that of its exp is not
        limit += 4 * float(np.abs(pairs[1][0] * np.log(pairs[0][0])).max())
    assert worst(found, pairs, function) <= limit


def test_a_lost_rounding_error_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubled_math, "two_sum", lambda a, b: (a + b, 0.0 * a))
    rng = np.random.default_rng(7)
    pairs = [words_around(rng, powers(-20, 20)(rng)) for _ in range(2)]
    assert worst(on_numpy("add", *pairs), pairs, lambda a, b: a + b) > 2.0**40


def test_a_product_lacks_what_a_fused_one_lacks() -> None:
    """Where factors or products are huge, tiny or not finite, NumPy's error term is the machine's."""
    x = np.array([1 + 2.0**-50, 3.0**600, 1e308, 2.0**-540 * 1.1, 5e-324, 2.0**-1030 * 1.7, 0.0, np.inf, 1e-160, 7.0])
    a, b = (np.ravel(g) for g in np.meshgrid(x, x))
    a, b = (np.resize(v, -(-len(v) // WIDTH) * WIDTH) for v in (a, b))
    zero = np.zeros_like(a)
    found = [way("mul", (a, zero), (b, zero)) for way in WAYS.values()]
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, theirs)


# ------------------------------------------------------------------ beyond the finite numbers

EDGES = [0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 710.0, -746.0, 1e308, -1e308, 5e-324, 1e-310, np.inf, -np.inf, np.nan]
FLOAT64: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p,
    "tanh": np.tanh, "abs": np.abs, "sign": np.sign, "neg": np.negative, "square": np.square, "pow": np.power,
    ">": np.greater, ">=": np.greater_equal, "==": np.equal, "is_nan": np.isnan,
    "gap": lambda x, m: np.where(x == m, 0, x - m),
    "gap_of_words": lambda x, m: np.where(x == m, 0, x - m), "scaled": lambda a, x: np.where(a == 0, 0, a * x),
    "sigmoid": lambda x: np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x))),
    "softplus": lambda x: np.logaddexp(0, x), "log_cosh": lambda x: np.logaddexp(x, -x) - np.log(2),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FLOAT64)
def test_limits_are_those_of_float64(way: str, name: str) -> None:
    arity = OPERATIONS[name][0]
    grids = list(zip(*itertools.product(EDGES, repeat=arity), strict=True))
    arrays = [np.resize(np.array(g), -(-len(g) // WIDTH) * WIDTH) for g in grids]
    high, low = WAYS[way](name, *((a, np.zeros_like(a)) for a in arrays))
    with np.errstate(all="ignore"):
        right = np.asarray(FLOAT64[name](*arrays), dtype=float)
    assert np.isfinite(low).all()
    assert not low[~np.isfinite(high)].any()
    absolute = 1e-15 if name == "log_cosh" else 1e-323  # NumPy's own form cancels near 0
    np.testing.assert_allclose(high, right, rtol=4e-16, atol=absolute)


# ------------------------------------------------------------------ functions that losses seldom use

RARE: list[tuple[str, Callable[..., Any], Callable[[np.random.Generator], np.ndarray]]] = [
    ("sin", mpmath.sin, powers(-100, 1000)), ("cos", mpmath.cos, powers(-100, 1000)),
    ("tan", mpmath.tan, powers(-100, 100)), ("sinh", mpmath.sinh, powers(-100, 9)),
    ("cosh", mpmath.cosh, powers(-100, 9)), ("arcsin", mpmath.asin, between(-1, 1)),
    ("arccos", mpmath.acos, between(-1, 1)), ("arctan", mpmath.atan, powers(-200, 200)),
    ("arcsinh", mpmath.asinh, powers(-200, 1000)), ("arccosh", mpmath.acosh, powers(0.01, 1000, positive=True)),
    ("arctanh", mpmath.atanh, between(-1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "draw"), RARE, ids=[r[0] for r in RARE])
def test_rare_functions(name: str, function: Callable[..., Any], draw: Any) -> None:
    rng = np.random.default_rng(3)
    x = draw(rng)[:40]
    with np.errstate(all="ignore"):
        found = getattr(doubled, name)(Doubled(x))
    with mpmath.workprec(3 * BITS):  # angles up to 2**1000 need so many
        for got, low, at in zip(found.high, found.low, x, strict=True):
            right = function(mpmath.mpf(float(at)))
            assert abs(exact(got, low) - right) <= abs(right) * mpmath.mpf(2) ** -90, (name, at)


# ------------------------------------------------------------------ whole programs

FORMULAS = [
    "np.sum(np.exp(s)) / 3 - s[y]", "np.max(s) * s[y] ** 2", "np.min(s) / (1 + s[y] ** 2)",
    "np.log(K) * s[y]", "np.sum(np.where(s > s[y], s, 0.1 * s))", "np.sum(a * np.tanh(s)) * s[y]",
    "np.sum(np.maximum(0, s[:, None] - s) ** 2) - s[y]", "np.sum(np.abs(s)) ** 1.5 + s[y]", "s[y] * np.cos(s[0])",
]  # fmt: skip


@pytest.mark.parametrize("formula", FORMULAS)
def test_machine_and_numpy_agree(formula: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    s, y = rng.normal(size=(37, 5)), rng.integers(0, 5, 37)
    s[3], s[5, 2], s[7, 1], s[9, :2] = 1.0, np.nan, -np.inf, np.inf
    weight = rng.uniform(0, 2, 37) * (rng.random(37) > 0.2)
    hyper = {"a": np.linspace(-1, 1, 5)} if "a *" in formula else {}
    loss = lm.loss(formula, **({"a": 1.0} if hyper else {}))
    options = {"precision": "exact", "sample_weight": weight, **hyper}
    found: list[list[np.ndarray]] = []
    for backend in ("numba", "numpy"):
        monkeypatch.setenv("LOSSMITH_BACKEND", backend)
        value, grad = loss.value_and_grad(s, y, reduction="none", **options)
        found.append([value, grad, loss.hessian_diag(s, y, reduction="none", **options), loss.grad(s, y, **options)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_max_ulp(np.nan_to_num(mine, nan=3.0), np.nan_to_num(theirs, nan=3.0), 1)


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize(("rows", "classes"), [(1, 300), (20, 3), (50, 700), (3, 5000)])
def test_machine_and_numpy_agree_on_the_catalogue(
    name: str, rows: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = case_of(CATALOGUE[name], "f8", hypers=True, shape=(rows, classes))
    found: list[list[Any]] = []
    for backend in ("numba", "numpy"):
        monkeypatch.setenv("LOSSMITH_BACKEND", backend)
        options = {"precision": "exact", "reduction": "none", **case.hypers}
        found.append([*case.loss.value_and_grad(*case.args, **options), case.loss.hessian_diag(*case.args, **options)])
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_array_max_ulp(mine, theirs, 1)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    rng = np.random.default_rng(4)
    for classes in (3, 10, 100, 700):
        s, y = rng.normal(size=(67, classes)) * 20, rng.integers(0, classes, 67)
        options = {"precision": "exact", "reduction": "none"}
        whole = lm.cross_entropy.value_and_grad(s, y, **options)
        for rows in (slice(0, 1), slice(5, 40), slice(66, 67)):
            part = lm.cross_entropy.value_and_grad(s[rows], y[rows], **options)
            assert all(np.array_equal(p, w[rows]) for p, w in zip(part, whole, strict=True))
