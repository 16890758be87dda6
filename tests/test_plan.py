"""The second call of a kind goes the short way: the same bits as the general way, and the same refusals."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.losses import CATALOGUE

METHODS = ("__call__", "grad", "value_and_grad", "hessian_diag", "grad_and_hessian_diag")


def arguments(loss: lm.Loss, rows: int, dtype: Any = "f8", hostile: bool = False) -> tuple[Any, ...]:
    """Return arrays that the loss takes, five classes; with scores of ±∞ and NaN, if they may be that."""
    rng, found = np.random.default_rng(0), []
    for item in loss.definition.inputs:
        values = {
            "unit": rng.uniform(0.1, 0.9, (rows, 5)),
            "simplex": rng.dirichlet(np.ones(5), rows),
            "positive": rng.uniform(0.1, 5, (rows, 5)),
            "nonnegative": rng.poisson(2, (rows, 5)),
            "real": rng.normal(size=(rows, 5)) * 3,
            "sign": rng.choice([-1.0, 1.0], (rows, 5)),
        }
        array = values[item.role.domain].astype(dtype)
        if item.role.kind == "scores" and item.role.domain == "real" and hostile:
            array[0, 1], array[1, 2], array[2, 3] = -np.inf, np.inf, np.nan
        found.append(rng.integers(0, 5, rows) if item.role.kind == "label" else array)
    return tuple(found)


def bits(result: Any) -> Any:
    """Return what tells two results apart: types, shapes, dtypes and bytes."""
    if isinstance(result, tuple):
        return tuple(map(bits, result))
    array = np.asarray(result)
    return type(result), array.dtype, array.shape, array.tobytes()


def both_ways(loss: lm.Loss, method: str, args: tuple[Any, ...], **options: Any) -> tuple[Any, Any]:
    """Return what the first call of a kind gives, and what the second gives, on the short way."""
    fresh = loss.bind()
    call = getattr(fresh, method)
    first = bits(call(*args, **options))
    assert len(fresh._plans) == 1, "there is no plan for this call"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_run", refuse)
        return first, bits(call(*args, **options))


def refuse(*_: Any) -> Any:
    raise AssertionError("the general way was taken")


@pytest.fixture(params=["numpy", "numba"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(evaluation.BACKEND, request.param)
    return request.param


# ------------------------------------------------------------------ the same bits


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_short_way_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    loss = CATALOGUE[name]
    for dtype in ("f4", "f8"):
        args, hostile = arguments(loss, 7, dtype), arguments(loss, 7, dtype, hostile=True)
        for method in METHODS:
            for rows, reduction in ((args, "mean"), (args, "sum"), (hostile, "mean"), (hostile, "none")):
                first, second = both_ways(loss, method, rows, reduction=reduction)
                assert first == second
        first, second = both_ways(loss, "hvp", (*args, np.ones_like(args[0])))
        assert first == second


@pytest.mark.parametrize("rows", [1, 2, 100, 40_000])
@pytest.mark.parametrize("name", ["cross_entropy", "logistic"])
def test_small_and_large_batches(backend: str, name: str, rows: int) -> None:
    for hostile in (False, rows > 2):
        args = arguments(CATALOGUE[name], rows, "f4", hostile)
        for reduction in ("mean", "sum", "none"):
            first, second = both_ways(CATALOGUE[name], "value_and_grad", args, reduction=reduction)
            assert first == second


def test_other_kinds_of_arguments(backend: str) -> None:
    scores, label = arguments(lm.cross_entropy, 6, "f4")
    soft = np.full((6, 5), 0.2, "f4")
    for args in (
        (scores, soft),
        (scores, label.astype("i1")),
        (scores, label.astype("u2")),
        (scores.reshape(2, 3, 5), label.reshape(2, 3)),
        (scores[0], soft[0]),
        (scores[0], np.array(3)),
    ):
        first, second = both_ways(lm.cross_entropy, "value_and_grad", args)
        assert first == second
    for options in ({"label_smoothing": 0.1}, {"ignore_index": -100}, {"axis": 1}, {"sample_weight": None}):
        first, second = both_ways(lm.cross_entropy, "grad", (scores, label), **options)
        assert first == second
    for args in ((np.array(0.5), np.array(0.25)), (np.ones((2, 3, 4)), np.zeros((2, 3, 4)))):
        first, second = both_ways(lm.huber, "value_and_grad", args, delta=0.3)
        assert first == second
    two = lm.loss("sum((a - b)**2)", a=lm.Scores, b=lm.Scores)
    first, second = both_ways(two, "grad_and_hessian_diag", (scores, soft))
    assert first == second


def test_a_plan_that_is_wrong_is_caught() -> None:
    loss, args = lm.cross_entropy.bind(), arguments(lm.cross_entropy, 4)
    first = bits(loss.value_and_grad(*args))
    ((key, plan),) = loss._plans.items()
    for wrong in ({"scale": plan.scale * (1 + 1e-6)}, {"divisor": 5.0}, {"reduction": "sum"}):
        loss._plans[key] = replace(plan, **wrong)
        assert bits(loss.value_and_grad(*args)) != first
    loss._plans[key] = plan
    assert bits(loss.value_and_grad(*args)) == first
    weights = np.arange(1.0, 5)
    first = bits(loss.value_and_grad(*args, sample_weight=weights))
    key, plan = list(loss._plans.items())[-1]
    for wrong in ({"weigh": None}, {"reduction": "sum"}, {"weigh": lambda *_: replace(plan.weigh(*_), total=9.0)}):
        loss._plans[key] = replace(plan, **wrong)
        assert bits(loss.value_and_grad(*args, sample_weight=weights)) != first


# ------------------------------------------------------------------ weights, and rows that are left out


def weighing(rows: int) -> list[dict[str, Any]]:
    """Return options about labels and weights; some leave rows out."""
    rng = np.random.default_rng(1)
    by_row, by_class = rng.uniform(0.1, 2, rows), rng.uniform(0.1, 2, 5)
    some = np.where(np.arange(rows) % 3 == 0, 0.0, by_row)
    return [
        {"sample_weight": by_row},
        {"sample_weight": some.astype("f4")},
        {"sample_weight": np.zeros(rows)},
        {"sample_weight": by_row * 1e-320},
        {"sample_weight": by_row * 1e305},
        {"class_weight": by_class},
        {"class_weight": np.where(by_class > 1, by_class, 0.0)},
        {"ignore_index": 2},
        {"ignore_index": 2, "class_weight": by_class, "sample_weight": some},
    ]


@pytest.mark.parametrize("rows", [7, 40_000])
@pytest.mark.parametrize("name", ["cross_entropy", "multiclass_hinge"])
def test_the_short_way_with_weights(backend: str, name: str, rows: int) -> None:
    loss = CATALOGUE[name]
    for options in weighing(rows):
        for hostile in (False, True) if rows < 100 else (False,):  # an infinite sum of many takes a closer look
            args = arguments(loss, rows, "f4", hostile)
            for reduction in ("mean", "sum", "none") if rows < 100 else ("mean",):
                first, second = both_ways(loss, "value_and_grad", args, reduction=reduction, **options)
                assert first == second
    scores, label = arguments(loss, rows, "f4")
    label[::3] = -100
    scores[0] = np.nan
    first, second = both_ways(loss, "value_and_grad", (scores, label), ignore_index=-100)
    assert first == second
    kept = np.arange(rows) % 3 != 0
    value, grad = loss.value_and_grad(scores, label, ignore_index=-100)
    alone = loss.value_and_grad(scores[kept], label[kept])
    assert value == pytest.approx(alone[0], rel=1e-14)
    np.testing.assert_allclose(grad[kept], alone[1], rtol=1e-6)
    assert not grad[~kept].any()


def test_weights_are_looked_at_anew(backend: str) -> None:
    scores, label = arguments(lm.cross_entropy, 6)
    first, other = np.arange(1.0, 7), np.arange(6.0)
    for option, values, wrong in (
        ("sample_weight", (first, other), 4),
        ("class_weight", (first[:5], other[:5]), 4),
    ):
        loss = lm.cross_entropy.bind()
        for given in values * 2:
            for smoothing in (0.0, 0.1):
                options = {option: given.copy(), "label_smoothing": smoothing}
                expected = bits(lm.cross_entropy.bind().value_and_grad(scores, label, **options))
                assert bits(loss.value_and_grad(scores, label, **options)) == expected
        assert len(loss._plans) == 2
        for bad in (-1.0, np.nan, np.inf):
            given = values[0].copy()
            given[wrong] = bad
            with pytest.raises(lm.DomainError, match=f"{option} is {bad} at index {wrong}"):
                loss.value_and_grad(scores, label, **{option: given})
    loss = lm.cross_entropy.bind()
    for bad in (9, -1):
        loss(scores, label, ignore_index=3)
        wrong_label = label.copy()
        wrong_label[2:5] = 3, 3, bad
        with pytest.raises(lm.LabelError, match=f"y is {bad} in row 4"):
            loss(scores, wrong_label, ignore_index=3)


def test_weights_may_lie_in_the_memory_of_the_results(backend: str) -> None:
    scores, label = arguments(lm.cross_entropy, 4)
    memory = np.zeros((4, 5))
    weight = memory.reshape(-1)[3:7]
    for loss in (lm.cross_entropy.bind(), lm.cross_entropy):
        for _ in range(2):
            weight[...] = [3.0, 1.0, 0.0, 2.0]
            expected = loss.grad(scores, label, sample_weight=weight.copy())
            np.testing.assert_array_equal(loss.grad(scores, label, sample_weight=weight, out=memory), expected)


def test_elementwise_weights(backend: str) -> None:
    scores = np.random.default_rng(0).normal(size=(6, 5))
    for weight in (np.arange(30.0).reshape(6, 5), np.arange(6.0), np.array(2.0)):
        first, second = both_ways(
            lm.huber, "value_and_grad", (scores, scores.T.copy().reshape(6, 5)), sample_weight=weight
        )
        assert first == second


# ------------------------------------------------------------------ where results go


def test_results_are_written_where_the_user_wants_them(backend: str) -> None:
    args = arguments(lm.cross_entropy, 4)
    loss, expected = lm.cross_entropy.bind(), lm.cross_entropy.grad(*args)
    for _ in range(3):
        out = np.full_like(args[0], 7.0)
        assert loss.grad(*args, out=out) is out
        np.testing.assert_array_equal(out, expected)
    assert loss.grad(*args) is not loss.grad(*args)  # nothing that is given away is used again
    column = np.full((5, 4), 7.0).T
    assert loss.grad(*args, out=column) is column
    np.testing.assert_array_equal(column, expected)
    scores = args[0].copy()
    assert loss.grad(scores, args[1], out=scores) is scores
    np.testing.assert_array_equal(scores, expected)
    for wrong in (np.empty((4, 4)), np.empty((4, 5), "f4"), np.broadcast_to(0.0, (4, 5)), [1.0], (out, out)):
        with pytest.raises(lm.ShapeError, match="out"):
            loss.grad(*args, out=wrong)


def test_several_results_are_written_where_the_user_wants_them(backend: str) -> None:
    args, loss = arguments(lm.cross_entropy, 4), lm.cross_entropy.bind()
    expected = loss.grad_and_hessian_diag(*args)
    out = np.full((4, 5), 7.0), np.full((4, 5), 7.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_run", refuse)
        found = loss.grad_and_hessian_diag(*args, out=out)
    for made, given, right in zip(found, out, expected, strict=True):
        assert made is given
        np.testing.assert_array_equal(made, right)
    for wrong in (out[0], out[:1], (out[0], None, out[1])):
        with pytest.raises(lm.ShapeError, match="out is for grad, hessian_diag"):
            loss.grad_and_hessian_diag(*args, out=wrong)


def test_a_label_may_lie_in_the_memory_of_the_results(backend: str) -> None:
    scores = arguments(lm.cross_entropy, 4)[0]
    for loss in (lm.cross_entropy.bind(), lm.cross_entropy):
        memory = np.zeros((4, 5))
        label = memory.view(np.int64).reshape(-1)[8:12]
        label[...] = [3, 1, 4, 0]
        expected = loss.grad(scores, label.copy())
        np.testing.assert_array_equal(loss.grad(scores, label, out=memory), expected)


# ------------------------------------------------------------------ what has no plan, and what a plan refuses


def test_calls_that_need_a_look_at_more_have_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    scores, label = arguments(lm.cross_entropy, 4)
    for args, options in (
        ((scores.tolist(), label), {}),
        ((scores, label.tolist()), {}),
        ((np.asfortranarray(scores), label), {}),
        ((np.repeat(scores, 2, axis=0)[::2], label), {}),
        ((scores.astype("f2"), label), {}),
        ((scores.astype(">f8"), label), {}),
        ((scores, np.full((4, 5), 0.2, "f4")), {}),
        ((scores, label), {"sample_weight": [1.0] * 4}),
        ((scores, np.full((4, 5), 0.2)), {"class_weight": np.ones(5)}),
        ((scores, label), {"label_smoothing": np.array(0.1)}),
        ((scores, label), {"label_smoothing": [0.1] * 5}),
        ((scores, label), {"precision": "exact"}),
        ((scores.T.copy(), label), {"axis": 0}),
        ((np.zeros((0, 5)), np.zeros(0, int)), {}),
    ):
        loss = lm.cross_entropy.bind()
        first = bits(loss.value_and_grad(*args, **options))
        assert bits(loss.value_and_grad(*args, **options)) == first
        assert loss._plans == {}
    bound = lm.cross_entropy.bind(sample_weight=[1.0, 2.0, 3.0, 4.0])
    bound(scores, label)
    assert bound._plans == {}


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i8", ">u4"])
def test_labels_outside_are_found(backend: str, dtype: str) -> None:
    info, loss = np.iinfo(dtype), lm.cross_entropy.bind()
    for classes in (3, 100, 200, 300):
        scores = np.zeros((2, classes), "f4")
        loss(scores, np.array([0, 1], dtype))
        for good in {classes - 1, min(classes - 1, info.max)}:
            if good <= info.max:
                assert loss(scores, np.array([0, good], dtype)) > 0
        for bad in {-1, -classes, classes, info.min, info.max}:
            if info.min <= bad <= info.max and not 0 <= bad < classes:
                with pytest.raises(lm.LabelError, match=f"y is {bad} in row 1"):
                    loss(scores, np.array([0, bad], dtype))


@pytest.mark.parametrize("role", [lm.UnitTargets, lm.Distribution, lm.SignTargets])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_targets_outside_are_found(backend: str, role: Any, dtype: str) -> None:
    loss = lm.loss("sum((s - t)**2)", t=role)
    scores = np.zeros((2, 4), dtype)
    first = np.eye(4, dtype=dtype)[:2] if role is not lm.SignTargets else np.ones((2, 4), dtype)
    loss(scores, first)
    for wrong in (-1e-30, -1.5, 1.5, 2.0, np.inf, -np.inf):
        target = first.copy()
        target[1, 2] = wrong
        with pytest.raises(lm.DomainError, match="t "):
            loss(scores, target)
    target = first.copy()
    target[target == 0] = -0.0
    assert loss(scores, target) == loss(scores, first)
    target[1, 2] = np.nan
    assert np.isnan(loss(scores, target))


def test_options_that_are_equal_but_not_the_same() -> None:
    args = arguments(lm.cross_entropy, 4)
    loss = lm.cross_entropy.bind()
    loss(*args, ignore_index=-100)
    with pytest.raises(TypeError):
        loss(*args, ignore_index=-100.0)
    with pytest.raises(TypeError, match=r"axis is 1\.0"):
        loss(*args, axis=1) + loss(*args, axis=1.0)


def test_the_backend_is_read_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    args, loss = arguments(lm.cross_entropy, 4), lm.cross_entropy.bind()
    loss(*args)
    monkeypatch.setenv(evaluation.BACKEND, "fortran")
    with pytest.raises(ValueError, match="LOSSMITH_BACKEND is 'fortran'"):
        loss(*args)
    monkeypatch.delenv(evaluation.BACKEND)
    loss(*args)


def test_plans_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    loss = lm.huber.bind()
    for rows in range(1, evaluation.KEPT + 10):
        loss(np.ones(rows), np.zeros(rows))
    assert len(loss._plans) == 9


# ------------------------------------------------------------------ memory, and sums of many values


def test_the_values_of_many_rows_are_not_kept() -> None:
    """Beside the scores there is the gradient, and at most 1 MiB."""
    scores = np.random.default_rng(0).normal(size=1_000_000).astype("f4")
    target = np.zeros_like(scores)
    out = np.empty_like(scores)
    for _ in range(2):  # the general way, then the short way
        lm.huber.value_and_grad(scores[:50_000], target[:50_000])
        tracemalloc.start()
        try:
            lm.huber.value_and_grad(scores, target, out=out)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("rows", [10, 40_000])
def test_a_mean_is_finite_where_the_sum_overflows(backend: str, rows: int) -> None:
    scores, loss = np.full(rows, 1e308), lm.loss("abs(s - t)")
    for _ in range(2):
        value, grad = loss.value_and_grad(scores, np.zeros(rows))
        assert value == pytest.approx(1e308, rel=1e-14)
        assert set(grad) == {1 / rows}
    assert loss(scores, np.zeros(rows), reduction="sum") == np.inf
