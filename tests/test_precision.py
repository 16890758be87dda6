"""precision="exact": 1 ulp in float32, 4 ulp in float64, for every loss; "fast" does not keep that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from laws import Case, J, K, L, case_of, varied
from lossmith.check.interpreter import Reference
from lossmith.check.ulp import ulp_error
from lossmith.language.expr import Derivative, Expr, named
from lossmith.language.formula import Input
from lossmith.losses import CATALOGUE

LIMITS = {"f4": 1.0, "f8": 4.0}
WAYS = [("f4", "numba"), ("f8", "numba"), ("f8", "numpy")]
"""Dtypes with their back ends; in float32 both compute in float64 as they do elsewhere."""


def ulps(got: Any, exact: Any) -> float:
    return float(ulp_error(np.asarray([got]), [exact])[0])


def errors(case: Case, precision: str) -> Iterator[tuple[str, float]]:
    """Yield the errors of value, gradient and Hessian diagonal, in ulp."""
    loss, input_ = case.loss.bind(precision=precision, reduction="none", **case.hypers), case.formula.inputs[0].name
    value, grad = loss.value_and_grad(*case.args)
    hessian = loss.hessian_diag(*case.args)
    body, at = case.formula.expr, None if case.single else J
    first = Derivative(body, input_, at)
    outputs: list[tuple[str, Any, Expr]] = [
        ("grad", grad, first),
        ("hessian_diag", hessian, Derivative(first, input_, at)),
    ]
    for place in case.places():
        exact = Reference(case.sample(place), 30, limits=True)
        yield f"value {place}", ulps(value[place], exact.value(body))
        for output, found, expr in outputs:
            entries = [(found[place], {})] if case.single else [
                (found[(*place, k)], {named("j"): k}) for k in range(case.scores.shape[-1])
            ]  # fmt: skip
            for got, indices in entries:
                yield f"{output} {place} {indices}", ulps(got, exact.value(expr, indices))


def broken(case: Case, dtype: str, precision: str = "exact") -> dict[str, float]:
    return {where: off for where, off in errors(case, precision) if not off <= LIMITS[dtype]}


# ------------------------------------------------------------------ far from the ordinary


def far(item: Input, rng: np.random.Generator, shape: tuple[int, ...], least: float) -> np.ndarray:
    """Return values over the whole domain of an input, of every magnitude from 10**least on."""
    tiny = 10.0 ** rng.uniform(least, 0, shape)
    match item.role.kind, item.role.domain:
        case "label", _:
            return rng.integers(0, shape[-1], shape[:-1])
        case _, "simplex":
            t = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
            return np.where(rng.random(shape[:-1])[..., None] < 0.3, np.eye(shape[-1])[t.argmax(-1)], t)
        case _, "unit" | "nonnegative" | "positive":
            return np.where(rng.random(shape) < 0.5, tiny, rng.uniform(0.01, 0.99, shape))
        case _, "sign":
            return rng.choice([-1.0, 1.0], shape)
        case _:
            kinds = [rng.normal(size=shape), rng.uniform(-200, 200, shape), rng.integers(-2, 3, shape) * 1.5,
                     rng.uniform(-700, 0, shape), tiny * rng.choice([-1, 1], shape)]  # fmt: skip
            return np.choose(rng.integers(0, len(kinds), shape[:1] + (1,) * (len(shape) - 1)), kinds)


def far_case(name: str, dtype: str, rows: int, *, hypers: bool = True) -> Case:
    loss, rng = CATALOGUE[name], np.random.default_rng(11)
    arrays = [far(i, rng, (rows, K), -280 if dtype == "f8" else -30) for i in loss.definition.inputs]
    cast = [a if a.dtype.kind == "i" else a.astype(dtype) for a in arrays]
    return Case(loss, tuple(cast), varied(loss) if hypers else {})


@pytest.mark.parametrize(("dtype", "backend"), WAYS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_exact_is_exact(name: str, dtype: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", backend)
    assert broken(case_of(CATALOGUE[name], dtype), dtype) == {}
    if backend == "numba":
        # other hyperparameters are other kernels to compile, but in double words
        assert broken(far_case(name, dtype, 8, hypers=dtype == "f8"), dtype) == {}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_exact_is_exact_far_from_the_ordinary(name: str, dtype: str) -> None:
    assert broken(far_case(name, dtype, 400), dtype) == {}


def test_fast_is_told_from_exact() -> None:
    assert broken(case_of(CATALOGUE["cross_entropy"], "f4"), "f4", "fast")
    assert broken(far_case("cross_entropy", "f8", 8), "f8", "fast")


# ------------------------------------------------------------------ options and products


@pytest.mark.parametrize("dtype", LIMITS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_hessian_products_are_exact(name: str, dtype: str) -> None:
    case = case_of(CATALOGUE[name], dtype)
    v = np.random.default_rng(1).normal(size=case.scores.shape).astype(dtype)
    found = case.loss.hvp(*case.args, v, precision="exact", reduction="none")
    input_ = case.formula.inputs[0].name
    one, two = (None, None) if case.single else (J, L)
    second = Derivative(Derivative(case.formula.expr, input_, one), input_, two)
    for place in list(case.places())[1:3]:
        exact = Reference(case.sample(place), 40, limits=True)
        if case.single:
            assert ulps(found[place], exact.value(second) * float(v[place])) <= LIMITS[dtype]
            continue
        for j in range(K):
            right = sum(exact.value(second, {J: j, L: k}) * float(v[(*place, k)]) for k in range(K))
            assert ulps(found[(*place, j)], right) <= LIMITS[dtype], (place, j)


@pytest.mark.parametrize("dtype", LIMITS)
def test_weights_and_the_mean_are_exact(dtype: str) -> None:
    case = case_of(CATALOGUE["cross_entropy"], dtype)
    weight = np.array([0.3, 0.0, 2.7, 1.1])
    found = case.loss.grad(*case.args, sample_weight=weight, precision="exact")
    first = Derivative(case.formula.expr, "s", J)
    for place in case.places():
        exact = Reference(case.sample(place), 40)
        for k in range(K):
            right = exact.value(first, {J: k}) * float(weight[place]) / sum(map(float, weight))
            assert ulps(found[(*place, k)], right) <= LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS)
def test_distributions_and_class_weights_are_exact(dtype: str) -> None:
    """The expected loss over the label: a sum of what the label's own loss is."""
    case, rng = case_of(CATALOGUE["cross_entropy"], dtype), np.random.default_rng(3)
    t, weights = rng.dirichlet(np.ones(K), len(case.scores)).astype(dtype), np.array([0.3, 1.7, 0.9, 2.1])
    value, grad = case.loss.value_and_grad(
        case.scores, t, class_weight=weights, precision="exact", reduction="none"
    )  # fmt: skip
    first = Derivative(case.formula.expr, "s", J)
    for place in case.places():
        parts = [Reference(replace(case.sample(place), label=k), 40) for k in range(K)]
        share = [float(t[(*place, k)]) for k in range(K)]

        def total(expr: Expr, at: dict[Any, int]) -> Any:
            each = zip(parts, share, map(float, weights), strict=True)  # noqa: B023
            return sum(p.value(expr, at) * s * w for p, s, w in each)

        assert ulps(value[place], total(case.formula.expr, {})) <= LIMITS[dtype]
        for k in range(K):
            assert ulps(grad[(*place, k)], total(first, {J: k})) <= LIMITS[dtype]


# ------------------------------------------------------------------ beyond the finite numbers

inf, nan = np.inf, np.nan
SPECIAL: list[tuple[list[float], int, float, list[float]]] = [
    ([0.0, -inf, 0.0], 0, np.log(2), [-0.5, 0, 0.5]),
    ([-inf, 0.0, 0.0], 0, inf, [-1, 0.5, 0.5]),
    ([-inf, -inf, -inf], 0, nan, [nan, nan, nan]),
    ([inf, 0.0, 0.0], 0, 0.0, [0, 0, 0]),
    ([inf, 0.0, 0.0], 1, inf, [1, -1, 0]),
    ([inf, inf, 0.0], 0, nan, [nan, nan, nan]),
    ([nan, 0.0, 0.0], 1, nan, [nan, nan, nan]),
    ([1e300, -1e300, 0.0], 1, 2e300, [1, -1, 0]),
    ([1e308, -1e308, 0.0], 1, inf, [1, -1, 0]),
    ([5e-324, 0.0, -5e-324], 0, np.log(3), [-2 / 3, 1 / 3, 1 / 3]),
]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_special_values(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", backend)
    scores, labels = np.array([s for s, *_ in SPECIAL]), np.array([y for _, y, *_ in SPECIAL])
    value, grad = lm.cross_entropy.value_and_grad(scores, labels, precision="exact", reduction="none")
    np.testing.assert_array_max_ulp(value, np.array([v for *_, v, _ in SPECIAL]), 1)
    np.testing.assert_array_max_ulp(grad, np.array([g for *_, g in SPECIAL]), 1)


def test_rows_of_no_weight_may_hold_anything() -> None:
    scores = np.array([[nan, 1.0], [inf, inf], [0.0, 1.0]])
    value, grad = lm.cross_entropy.value_and_grad(
        scores, [0, 0, 1], sample_weight=[0, 0, 2.0], precision="exact", reduction="none"
    )
    assert value[:2].tolist() == [0, 0]
    assert not grad[:2].any()
    assert value[2] == pytest.approx(2 * np.log1p(np.exp(-1)), rel=1e-15)


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'high', expected 'fast' or 'exact'"):
        lm.cross_entropy([[0.0, 1.0]], [0], precision="high")
