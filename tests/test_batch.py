"""What is refused at the border, in which words, and that nothing has been computed or written by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.errors import DomainError, LabelError, LossmithError, ShapeError

S = np.array([[2.0, 0.0, 1.0], [0.5, -1.0, 3.0]])
Y = np.array([0, 2])
T = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
CUBE = np.zeros((2, 3, 4))
NAN, INF = np.nan, np.inf
hinge = lm.loss("maximum(0, 1 - t*s)", t=lm.SignTargets)
no_default = lm.loss(lambda s, t, *, beta: beta * (s - t) ** 2)


class Refused(NamedTuple):
    """A call that is refused: the loss, its arguments, and the arrays that it must not touch."""

    what: str
    loss: Any
    args: tuple[Any, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    method: str = "value_and_grad"


def changed(array: np.ndarray, at: tuple[int, ...] | int, value: float) -> np.ndarray:
    copy = array.copy()
    copy[at] = value
    return copy


REFUSED = [
    # scores
    Refused("scores of text", lm.cross_entropy, (S.astype(str), Y)),
    Refused("complex scores", lm.cross_entropy, (S + 0j, Y)),
    Refused("scores of objects", lm.huber, (np.array([1, None]), Y)),
    Refused("no scores", lm.huber, (None, Y)),
    Refused("ragged scores", lm.cross_entropy, ([[1.0, 2.0], [3.0]], Y)),
    Refused("one number for a row", lm.cross_entropy, (1.0, 0)),
    Refused("no classes", lm.cross_entropy, (np.zeros((2, 0)), Y)),
    Refused("no classes on axis 1", lm.cross_entropy, (np.zeros((2, 0, 3)), Y), {"axis": 1}),
    Refused("axis too large", lm.cross_entropy, (S, Y), {"axis": 2}),
    Refused("axis too small", lm.cross_entropy, (S, Y), {"axis": -3}),
    Refused("axis not a number", lm.cross_entropy, (S, Y), {"axis": None}),
    Refused("probability above 1", lm.entropy, (changed(T, (1, 2), 1.5),)),
    Refused("probability below 0", lm.bce, (changed(T, (1, 2), -0.5), T)),
    # labels
    Refused("label K", lm.cross_entropy, (S, [0, 3])),
    Refused("label -1", lm.cross_entropy, (S, [-1, 2])),
    Refused("label K with ignore_index", lm.cross_entropy, (S, [-1, 3]), {"ignore_index": -1}),
    Refused("label in many dimensions", lm.cross_entropy, (CUBE, [[0, 1, 0], [1, 0, 9]])),
    Refused("label among the columns", lm.cross_entropy, (CUBE, np.zeros((2, 3, 1), int))),
    Refused("label of a single row", lm.cross_entropy, (S[0], 7)),
    Refused("label too large for int64", lm.cross_entropy, (S, np.array([0, 2**63], np.uint64))),
    Refused("labels whole floats", lm.cross_entropy, (S, [0.0, 2.0])),
    Refused("labels floats", lm.cross_entropy, (S, [0.5, 2.0])),
    Refused("labels infinite", lm.cross_entropy, (S, [0.0, INF])),
    Refused("labels booleans", lm.cross_entropy, (S, [True, False])),
    Refused("labels text", lm.cross_entropy, (S, ["cat", "dog"])),
    Refused("too many labels", lm.cross_entropy, (S, [0, 1, 2])),
    Refused("labels as a column", lm.cross_entropy, (S, Y[:, None])),
    Refused("one-hot of too few classes", lm.cross_entropy, (S, T[:, :2])),
    Refused("ignore_index beside a distribution", lm.cross_entropy, (S, T), {"ignore_index": 0}),
    Refused("ignore_index without labels", lm.huber, (S, T), {"ignore_index": 0}),
    # targets
    Refused("targets of another shape", lm.huber, (S, T[:1])),
    Refused("targets of one row", lm.huber, (S, T[0])),
    Refused("targets of text", lm.huber, (S, T.astype(str))),
    Refused("target above 1", lm.logistic, (S, changed(T, (1, 1), 1.25))),
    Refused("target of an element", lm.logistic, (S[0], [0.0, 1.0, -0.5])),
    Refused("target infinite", lm.logistic, (S, changed(T, (0, 1), INF))),
    Refused("negative distribution", lm.kl_divergence, (S, changed(T, (1, 1), -0.25))),
    Refused("negative soft label", lm.cross_entropy, (S, changed(T, (0, 0), -0.25))),
    Refused("negative soft label, classes first", lm.cross_entropy, (S.T, changed(T, (0, 0), -1).T), {"axis": 0}),
    Refused("sum not 1", lm.kl_divergence, (S, changed(T, (1, 1), 0.25))),
    Refused("sum not 1 in one row", lm.kl_divergence, (S[0], [0.2, 0.2, 0.2])),
    Refused("sum infinite", lm.kl_divergence, (S, changed(T, (1, 1), INF))),
    Refused("sum not 1 in many dimensions", lm.softmax_kl, (CUBE, np.full(CUBE.shape, 0.3)), {"axis": 1}),
    Refused("sign neither -1 nor 1", hinge, (S, np.sign(S))),
    # weights
    Refused("negative weight", lm.cross_entropy, (S, Y), {"sample_weight": [1.0, -2.0]}),
    Refused("infinite weight", lm.cross_entropy, (S, Y), {"sample_weight": [INF, 1.0]}),
    Refused("weight NaN", lm.huber, (S, T), {"sample_weight": changed(np.ones((2, 3)), (1, 0), NAN)}),
    Refused("too many weights", lm.cross_entropy, (S, Y), {"sample_weight": [1.0, 1.0, 1.0]}),
    Refused("a weight for one row", lm.cross_entropy, (S, Y), {"sample_weight": [1.0]}),
    Refused("a weight for each class", lm.cross_entropy, (S, Y), {"sample_weight": np.ones(S.shape)}),
    Refused("a weight for each column", lm.huber, (S, T), {"sample_weight": np.ones(3)}),
    Refused("weights of text", lm.huber, (S, T), {"sample_weight": ["1", "2"]}),
    Refused("too few class weights", lm.nll, (S, Y), {"class_weight": [1.0, 2.0]}),
    Refused("one class weight", lm.cross_entropy, (S, Y), {"class_weight": 2.0}),
    Refused("negative class weight", lm.cross_entropy, (S, Y), {"class_weight": [1.0, 2.0, -1.0]}),
    Refused("class weight without labels", lm.huber, (S, T), {"class_weight": [1.0, 2.0, 1.0]}),
    # hyperparameters and options
    Refused("hyperparameter of text", lm.huber, (S, T), {"delta": "wide"}),
    Refused("hyperparameter a matrix", lm.huber, (S, T), {"delta": np.ones((2, 2))}),
    Refused("hyperparameter missing", no_default, (S, T)),
    Refused("number per class where one is meant", lm.focal, (S, Y), {"gamma": [1.0, 2.0, 3.0]}),
    Refused("too few numbers per class", lm.cross_entropy, (S, Y), {"label_smoothing": [0.1, 0.2]}),
    Refused("reduction unknown", lm.huber, (S, T), {"reduction": "average"}),
    Refused("no such argument", lm.huber, (S, T), {"gamma": 2.0}),
    Refused("too few arrays", lm.huber, (S,)),
    Refused("too many arrays", lm.entropy, (T, T)),
    Refused("no vector", lm.huber, (S, T), method="hvp"),
    Refused("vector of another shape", lm.huber, (S, T, S[0]), method="hvp"),
    # out
    Refused("out of another shape", lm.huber, (S, T), {"out": np.full((2, 2), 7.0)}),
    Refused("out of another dtype", lm.huber, (S, T), {"out": np.full((2, 3), 7, "f4")}),
    Refused("out no array", lm.huber, (S, T), {"out": [[0.0] * 3] * 2}),
    Refused("out of scores that are integers", lm.huber, (S.astype(int), T), {"out": np.full((2, 3), 7)}),
    Refused("two outs for one output", lm.huber, (S, T), {"out": (np.zeros((2, 3)), np.zeros((2, 3)))}),
    Refused("one out for two outputs", lm.huber, (S, T), {"out": np.zeros((2, 3))}, "grad_and_hessian_diag"),
    Refused("out read-only", lm.huber, (S, T), {"out": np.broadcast_to(7.0, (2, 3))}),
]


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was computed")


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.what)
def test_nothing_is_computed_or_written_when_refused(case: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "kernel_for", never)
    options = dict(case.options)
    if case.method != "hvp" and "out" not in options and isinstance(case.args[0], np.ndarray):
        options["out"] = np.full(case.args[0].shape, 7.0)
    arrays = [a for a in (*case.args, options.get("out")) if isinstance(a, np.ndarray)]
    before = [a.copy() for a in arrays]
    with pytest.raises((LossmithError, TypeError, ValueError)):
        getattr(case.loss, case.method)(*case.args, **options)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_what_is_refused_is_said_clearly(golden: Callable[[str, str], None]) -> None:
    lines: list[str] = []
    for case in REFUSED:
        with pytest.raises((LossmithError, TypeError, ValueError)) as caught:
            getattr(case.loss, case.method)(*case.args, **case.options)
        lines.append(f"{case.what}\n    {type(caught.value).__name__}: {caught.value}")
    golden("refused_batches.txt", "\n".join(lines))


def test_a_refusal_that_comes_late_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails for a border that checks labels after the kernel, or not at all."""
    monkeypatch.setattr(evaluation, "kernel_for", never)
    with pytest.raises(AssertionError, match="something was computed"):
        lm.cross_entropy.bind()(S, Y)  # another one, without a plan: test_plan.py


@pytest.mark.parametrize("error", [ShapeError, LabelError, DomainError])
def test_refusals_are_value_errors(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)
    assert issubclass(error, LossmithError)


# ------------------------------------------------------------------ rows that do not count may hold anything


def test_rows_of_weight_zero_may_hold_anything() -> None:
    weight = [1.0, 0.0]
    assert lm.cross_entropy(S, [0, 99], sample_weight=weight) == lm.cross_entropy(S[:1], [0])
    assert lm.logistic(S, [[0, 1, 0], [7, -7, NAN]], sample_weight=weight) == lm.logistic(S[:1], [[0, 1, 0]])
    assert lm.kl_divergence(S, changed(T, (1, 1), 5), sample_weight=weight) == lm.kl_divergence(S[:1], T[:1])
    assert lm.entropy(changed(T, (1, 1), -5), sample_weight=weight) == lm.entropy(T[:1])


def test_nan_is_in_every_domain_and_stays_in_its_row() -> None:
    for loss, target in [(hinge, np.sign(T - 0.1)), (lm.logistic, T), (lm.kl_divergence, T), (lm.cross_entropy, T)]:
        expected = loss(S, target, reduction="none")
        found = loss(S, changed(target, (1, 2), NAN), reduction="none")
        assert np.isnan(found[1]).any()
        np.testing.assert_array_equal(found[0], expected[0])


# ------------------------------------------------------------------ what is accepted


def test_one_target_for_all() -> None:
    assert lm.huber(S, 0.0) == lm.huber(S, np.zeros_like(S))
    assert lm.logistic(S, 1) == lm.logistic(S, np.ones_like(S))


def test_weights_of_rows_are_weights_of_their_elements() -> None:
    by_row = lm.huber(S, T, sample_weight=[1.0, 3.0])
    by_element = lm.huber(S, T, sample_weight=[[1.0] * 3, [3.0] * 3])
    assert by_row == by_element == lm.huber(S, T, sample_weight=[[1.0], [3.0]])
    square = np.arange(9.0).reshape(3, 3)
    value = lm.huber(square, 0.0, sample_weight=[1.0, 0.0, 0.0])
    assert value == lm.huber(square[0], 0.0)


def test_none_is_the_default_of_every_option() -> None:
    options = {"sample_weight": None, "class_weight": None, "ignore_index": None, "label_smoothing": None}
    assert lm.cross_entropy(S, Y, **options) == lm.cross_entropy(S, Y)
    bound = lm.cross_entropy.bind(class_weight=[1.0, 2.0, 3.0])
    assert bound(S, Y) == lm.cross_entropy(S, Y, class_weight=[1.0, 2.0, 3.0])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type(kind: Any) -> None:
    assert lm.cross_entropy(S, Y.astype(kind)) == lm.cross_entropy(S, Y)
    assert lm.cross_entropy(np.zeros((0, 3)), []) == 0.0


def test_integer_and_long_double_scores_become_float64() -> None:
    scores = np.array([[2, 0, 1], [0, -1, 3]])
    assert lm.cross_entropy.grad(scores, Y).dtype == np.float64
    assert lm.cross_entropy.grad(scores.astype(np.longdouble), Y).dtype == np.float64
    assert lm.cross_entropy(scores, Y) == lm.cross_entropy(scores.astype(float), Y)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_distributions_in_few_bits_sum_to_one_nearly(dtype: Any) -> None:
    targets = np.full((2, 3), 1 / 3).astype(dtype)
    assert np.isfinite(lm.kl_divergence(S.astype(dtype), targets))


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300])
def test_weights_of_any_size(scale: float) -> None:
    value, grad = lm.cross_entropy.value_and_grad(S, Y)
    found, found_grad = lm.cross_entropy.value_and_grad(S, Y, sample_weight=np.full(2, scale))
    assert found == pytest.approx(value, rel=4e-16, abs=0)
    np.testing.assert_allclose(found_grad, grad, rtol=4e-16)  # w·(1/Σw) is rounded twice


def test_a_mean_may_be_finite_though_the_sum_is_not() -> None:
    scores = np.full(4, 1.5e308)
    assert lm.absolute_error(scores, 0.0) == 1.5e308
    assert lm.absolute_error(scores, 0.0, reduction="sum") == INF


def test_both_outputs_are_written_where_they_belong() -> None:
    g, h = np.empty_like(S), np.empty_like(S)
    found = lm.cross_entropy.grad_and_hessian_diag(S, Y, out=(g, h))
    assert found[0] is g
    assert found[1] is h
    np.testing.assert_array_equal(g, lm.cross_entropy.grad(S, Y))
    np.testing.assert_array_equal(h, lm.cross_entropy.hessian_diag(S, Y))
    only = lm.cross_entropy.grad_and_hessian_diag(S, Y, out=(None, h))
    assert only[1] is h
    np.testing.assert_array_equal(only[0], g)


def test_out_may_be_the_weights_and_the_targets() -> None:
    scores, weight, target = np.linspace(-2, 2, 5), np.arange(5.0), np.linspace(0, 1, 5)
    expected = lm.logistic.grad_and_hessian_diag(scores, target, sample_weight=weight)
    found = lm.logistic.grad_and_hessian_diag(scores, target, sample_weight=weight, out=(weight, target))
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[0] is weight


@pytest.mark.parametrize("shape", [(3, 700_000), (1_500_000, 1), (2_100_001,)])
def test_what_is_outside_is_found_anywhere_in_a_large_array(shape: tuple[int, ...]) -> None:
    target = np.full(shape, 0.5, "f4")
    flat = target.reshape(-1)
    check = evaluation.batch.domain_check("unit", target.dtype)
    assert check(target)
    for at in (0, flat.size // 2, flat.size - 1):
        for wrong in (1.5, -1e-30, NAN):
            flat[at] = wrong
            assert not check(target)
        flat[at] = 0.5
    assert check(target[::-1].T)
