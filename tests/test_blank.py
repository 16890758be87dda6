"""Gradients that are 0 but for the label's entry, and inputs that are watched while they are read.

Memory that was somebody else's must not shine through where nothing is written; and what lies outside its domain is
refused with the row it is in, and with the user's array as it was, though the kernel has seen it only by the way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.kernels import emit_watch, runtime

pytestmark = pytest.mark.skipif(not runtime.has_numba(), reason="compiled kernels are looked at")

GARBAGE = 7.0
SHAPES = [(150, 10), (40, 100), (7, 5000)]
"""Tiles, bands and rows; none of them full."""

Slope = Callable[[np.ndarray], np.ndarray]
LOSSES: list[tuple[lm.Loss, Slope]] = [
    (lm.nll, lambda s: np.full_like(s, -1)),
    (lm.cross_entropy_on_probabilities, lambda p: -1 / p),
    (lm.loss("exp(-s[y])"), lambda s: -np.exp(-s)),
]
"""Losses of one entry, and their derivative by it."""


@pytest.fixture(autouse=True)
def many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small batches take the way of large ones."""
    monkeypatch.delenv(evaluation.BACKEND, raising=False)
    monkeypatch.setenv("LOSSMITH_NUM_THREADS", "3")
    for name in ("SMALL", "LIGHT", "PIECE"):
        monkeypatch.setattr(runtime, name, 1)


def batch(rows: int, classes: int, dtype: str = "f4") -> tuple[np.ndarray, np.ndarray]:
    """Return scores between 0 and 1, and labels, with garbage in memory that was just freed."""
    rng = np.random.default_rng(rows * classes)
    scores = (0.05 + 0.9 * rng.random((rows, classes))).astype(dtype)
    for _ in range(4):
        np.full((rows, classes), GARBAGE, dtype)
    return scores, rng.integers(0, classes, rows)


def expected_grad(scores: np.ndarray, label: np.ndarray, slope: Slope, weight: np.ndarray | None = None) -> np.ndarray:
    """Return the gradient of the sum, written out."""
    grad = np.zeros(scores.shape)
    rows = np.arange(len(scores))
    grad[rows, label] = slope(scores[rows, label].astype("f8")) * (1 if weight is None else weight)
    grad[np.isnan(scores).any(axis=1)] = np.nan
    if weight is not None:
        grad[weight == 0] = 0
    return grad


def assert_is(found: np.ndarray, expected: np.ndarray) -> None:
    """Hold entries that are 0 or NaN to be just that, and others to 4 units of roundoff."""
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(found.dtype).eps, atol=0)


def places(loss: lm.Loss, scores: np.ndarray, *args: Any, **options: Any) -> list[np.ndarray]:
    """Return the gradient in new arrays, in one full of garbage and over the scores; without a plan and by one."""
    found: list[np.ndarray] = []
    own = loss.bind()
    for _ in range(2):
        found.append(own.grad(scores, *args, reduction="sum", **options))
        out = np.full_like(scores, GARBAGE)
        assert own.value_and_grad(scores, *args, reduction="sum", out=out, **options)[1] is out
        over = scores.copy()
        own.grad(over, *args, reduction="sum", out=over, **options)
        found += [out, own.value_and_grad(scores, *args, reduction="sum", **options)[1], over]
    return found


@pytest.mark.parametrize(("loss", "slope"), LOSSES, ids=[loss.name for loss, _ in LOSSES])
@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_shines_through(loss: lm.Loss, slope: Slope, shape: tuple[int, int]) -> None:
    scores, label = batch(*shape)
    for found in places(loss, scores, label):
        assert_is(found, expected_grad(scores, label, slope))
    assert any(kernel.blank == {"grad"} for kernel in loss._kernels.values())


@pytest.mark.parametrize(("loss", "slope"), LOSSES, ids=[loss.name for loss, _ in LOSSES])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_that_do_not_count_and_rows_of_nan(loss: lm.Loss, slope: Slope, shape: tuple[int, int]) -> None:
    scores, label = batch(*shape)
    rows = len(scores)
    scores[rows // 3, label[rows // 3]] = np.nan  # at the label, and elsewhere
    scores[-1, label[-1] - 1] = np.nan
    for found in places(loss, scores, label):
        assert_is(found, expected_grad(scores, label, slope))
    weight = np.linspace(0.5, 2, rows)
    weight[::4] = 0
    scores[0], scores[4] = np.nan, 1e30  # outside every domain, where it does not matter
    for found in places(loss, scores, label, sample_weight=weight):
        assert_is(found, expected_grad(scores, label, slope, weight))
    kept = (label != label[0]).astype("f8")
    scores[4] = scores[2]
    for found in places(loss, scores, label, ignore_index=int(label[0])):
        assert_is(found, expected_grad(scores, label, slope, kept))


def test_second_derivatives_of_one_entry() -> None:
    scores, label = batch(150, 10)
    for _ in range(2):
        assert not lm.nll.hessian_diag(scores, label).any()
        direction = np.ones_like(scores)
        expected = expected_grad(scores, label, lambda s: np.exp(-s))
        loss = LOSSES[2][0]
        assert_is(loss.hessian_diag(scores, label, reduction="sum"), expected)
        assert_is(loss.hvp(scores, label, direction, reduction="sum"), expected)
        assert_is(loss.hvp(scores, label, direction, reduction="sum", out=direction * GARBAGE), expected)


def test_arrays_in_another_order_and_of_another_dtype() -> None:
    scores, label = batch(150, 10)
    expected = expected_grad(scores, label, LOSSES[0][1])
    out = np.full_like(scores, GARBAGE)
    for given in (scores.astype("f2"), np.asfortranarray(scores)):
        assert_is(lm.nll.grad(given, label, reduction="sum"), expected)
    lm.nll.grad(scores.T.copy(), label, reduction="sum", axis=0, out=out.T)
    assert_is(out, expected)
    for given in (np.full((150, 20), GARBAGE, "f4")[:, ::2], np.full((10, 150), GARBAGE, "f4").T):
        assert_is(lm.nll.grad(scores, label, reduction="sum", out=given), expected)


def test_one_of_two_arrays_is_the_users() -> None:
    scores, label = batch(40, 100)
    loss = LOSSES[2][0].bind()
    expected = expected_grad(scores, label, lambda s: np.exp(-s))
    for _ in range(2):
        out = np.full_like(scores, GARBAGE)
        grad, hessian = loss.grad_and_hessian_diag(scores, label, reduction="sum", out=(None, out))
        assert hessian is out
        assert_is(hessian, expected)
        assert_is(grad, -expected)


def test_garbage_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above fail for a kernel that is given what it takes for zeros."""
    scores, label = batch(150, 10)
    expected = expected_grad(scores, label, LOSSES[0][1])
    monkeypatch.setattr(runtime.Kernel, "_zeroing", lambda self, call: call)
    with pytest.raises(AssertionError):
        assert_is(lm.nll.bind().grad(scores, label, reduction="sum", out=np.full_like(scores, GARBAGE)), expected)
    monkeypatch.setattr(evaluation, "_maker", lambda kernel, name: lambda shape, dtype: np.full(shape, GARBAGE, dtype))
    with pytest.raises(AssertionError):
        assert_is(lm.nll.bind().grad(scores, label, reduction="sum"), expected)


# ------------------------------------------------------------------ inputs that are watched


def watched_cases() -> list[Any]:
    """Return losses with one input that has a domain, which one that is, and numbers that are outside."""
    below, above = (-1e-30, -1.5, -math.inf), (1.0001, 1e30, math.inf)
    return [
        pytest.param(lm.cross_entropy_on_probabilities, 0, (*below, *above), id="probabilities"),
        pytest.param(lm.entropy, 0, below, id="entropy"),
        pytest.param(lm.kl_divergence, 1, (*below, *above), id="distribution"),
        pytest.param(lm.cross_entropy, 1, below, id="soft label"),
        pytest.param(lm.loss("sum((s - t)**2)", t=lm.UnitTargets), 1, (*below, *above), id="targets"),
    ]


def watched_batch(loss: lm.Loss, shape: tuple[int, int], dtype: str) -> list[np.ndarray]:
    scores, label = batch(*shape, dtype=dtype)
    scores /= scores.sum(axis=1, keepdims=True)
    if loss is lm.cross_entropy_on_probabilities:
        return [scores, np.maximum(label, 1)]
    return [scores] if loss is lm.entropy else [np.log(scores), scores.copy()]


@pytest.mark.parametrize(("loss", "which", "outside"), watched_cases())
@pytest.mark.parametrize("shape", [(70, 10), (40, 100), (9, 520)])
def test_what_lies_outside_is_refused(
    loss: lm.Loss, which: int, outside: tuple[float, ...], shape: tuple[int, int]
) -> None:
    args, own = watched_batch(loss, shape, "f4"), loss.bind()
    first = own.value_and_grad(*args)
    assert any(kernel.watched == {loss.definition.inputs[which].name} for kernel in own._kernels.values())
    np.testing.assert_array_equal(own.value_and_grad(*args)[1], first[1])
    rows, classes = shape
    for n, wrong in enumerate(outside):
        row, column = (0, rows // 2, rows - 1)[n % 3], (0, classes // 2, classes - 1)[(n + 1) % 3]
        given = [a.copy() for a in args]
        given[which][row, column] = wrong
        given[which][-1, -1] = wrong  # the first one is named
        where = f"at row {row}, class {column}, expected"
        if loss is lm.kl_divergence and wrong > 0:
            where = f"over the classes in row {row}, expected 1"
        out = np.full(shape, GARBAGE, "f4")
        for options in ({}, {"out": out}):
            for _ in range(2):
                with pytest.raises(lm.DomainError, match=where):
                    own.value_and_grad(*given, **options)
        assert (out == GARBAGE).all()


@pytest.mark.parametrize(("loss", "which", "outside"), watched_cases())
@pytest.mark.parametrize("shape", [(70, 10), (40, 100), (9, 520)])
def test_what_the_look_is_not_sure_of_is_right(
    loss: lm.Loss, which: int, outside: tuple[float, ...], shape: tuple[int, int]
) -> None:
    args, own = watched_batch(loss, shape, "f4"), loss.bind()
    own.value_and_grad(*args, reduction="none")  # what follows goes by the plan
    plain = own.value_and_grad(*args, reduction="none")
    odd = [a.copy() for a in args]
    odd[which][5] = np.nan
    value, grad = own.value_and_grad(*odd, reduction="none")
    others = np.arange(shape[0]) != 5
    assert np.isnan(value[5])
    np.testing.assert_array_equal(value[others], plain[0][others])
    np.testing.assert_array_equal(grad[others], plain[1][others])
    odd[which][5], odd[which][:, 0] = args[which][5], 0.0
    odd[which][:, 1] += args[which][:, 0]
    minus = [a.copy() for a in odd]
    minus[which][:, 0] = -0.0
    for a, b in zip(own.value_and_grad(*minus), own.value_and_grad(*odd), strict=True):
        np.testing.assert_array_equal(a, b)
    weight = np.ones(shape[0])
    own.value_and_grad(*args, sample_weight=weight, reduction="none")
    weight[5], odd = 0, [a.copy() for a in args]
    odd[which][5] = outside[0]
    value, grad = own.value_and_grad(*odd, sample_weight=weight, reduction="none")
    assert value[5] == 0
    assert not grad[5].any()
    np.testing.assert_array_equal(grad[others], plain[1][others])


@pytest.mark.parametrize(
    ("shape", "dtype", "off"), [((70, 10), "f4", 3e-4), ((40, 100), "f8", 3e-6), ((9, 2500), "f4", 3e-4)]
)
def test_sums_of_distributions(shape: tuple[int, int], dtype: str, off: float) -> None:
    args, own = watched_batch(lm.kl_divergence, shape, dtype), lm.kl_divergence.bind()
    own(*args)
    for factor, fits in ((1 + off / 5, True), (1 - off / 5, True), (1 + off, False), (1 - off, False)):
        given = [a.copy() for a in args]
        given[1][-2] *= factor
        for options in ({}, {"out": np.zeros_like(args[0])}):
            if fits:
                assert np.isfinite(own.value_and_grad(*given, **options)[0])
            else:
                with pytest.raises(lm.DomainError, match=f"over the classes in row {shape[0] - 2}, expected 1"):
                    own.value_and_grad(*given, **options)
    given[0][-2, 1] = np.nan  # a row that is NaN anyway
    with pytest.raises(lm.DomainError, match="over the classes"):
        own.value_and_grad(*given)


@pytest.mark.parametrize("shape", [(70, 10), (9, 520)])
def test_a_look_that_is_too_lenient_is_found(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """It is the kernel that sees what is outside: nothing else looks, once there is a plan."""
    monkeypatch.setenv("LOSSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(emit_watch, "LIMITS", dict.fromkeys(emit_watch.LIMITS, 9.0))
    scores, label = batch(*shape)
    own = lm.loss("-log(p[y])", p=lm.Probabilities)
    own(scores, label)
    scores[2, 1] = 8
    own(scores, label)
    scores[2, 1] = 10
    with pytest.raises(lm.DomainError, match="row 2, class 1"):
        own(scores, label)


@pytest.mark.parametrize("count", [1, 30, 5_000, 70_000])
@pytest.mark.parametrize(("loss", "which"), [(lm.logistic, 1), (lm.bce, 0), (lm.bce, 1)])
def test_single_numbers_outside_are_refused(loss: lm.Loss, which: int, count: int) -> None:
    rng, own = np.random.default_rng(count), loss.bind()
    args = [rng.random(count).astype("f4") for _ in range(2)]
    expected = own.value_and_grad(*args)
    assert any(kernel.watched for kernel in own._kernels.values())
    for place in {0, count // 2, count - 1}:
        for number in (-1e-30, 1.0001, math.inf):
            given = [a.copy() for a in args]
            given[which][place] = given[which][-1] = number
            out = np.full(count, GARBAGE, "f4")
            for options in ({}, {"out": out}):
                with pytest.raises(lm.DomainError, match=f"at element {place}, expected"):
                    own.value_and_grad(*given, **options)
            assert (out == GARBAGE).all()
            weight = np.ones(count)
            weight[[place, -1]] = 0
            assert np.isfinite(own(*given, sample_weight=weight))
    odd = [a.copy() for a in args]
    odd[which][0] = -0.0
    zero = [a.copy() for a in args]
    zero[which][0] = 0
    assert own(*odd) == own(*zero)
    assert np.array_equal(own.value_and_grad(*args)[1], expected[1])


def test_too_lenient_a_look_at_single_numbers_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("LOSSMITH_CACHE", str(tmp_path))
    monkeypatch.setattr(emit_watch, "LIMITS", dict.fromkeys(emit_watch.LIMITS, 9.0))
    own, (s, t) = lm.loss("t*s**2", t=lm.UnitTargets), np.full((2, 300), 0.5, "f4")
    own(s, t)
    t[7] = 8
    own(s, t)
    t[7] = 10
    with pytest.raises(lm.DomainError, match="element 7"):
        own(s, t)
