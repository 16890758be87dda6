"""What is accepted as scores, labels, targets and weights, and that it means the same in every form."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lossmith as lm

S = np.array([[2.0, 0.5, -1.0], [0.25, -1.5, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([0, 2, 1])
ONEHOT = np.eye(3)[Y]
T = np.array([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
HALVES = [np.float16, ml_dtypes.bfloat16]
FLOATS = [*HALVES, np.float32, np.float64]
ROW = [("cross_entropy", Y), ("cross_entropy", T), ("multiclass_hinge", Y), ("softmax_kl", T)]
ELEMENTWISE = ["huber", "logistic", "squared_error"]
CASES = [*ROW, *((name, T) for name in ELEMENTWISE)]
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.intp]


def outcome(loss: str, s: Any, target: Any, **options: Any) -> tuple[Any, Any]:
    return getattr(lm, loss).value_and_grad(s, target, **options)


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


# ------------------------------------------------------------------ dtypes


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("loss", "target"), CASES)
def test_results_have_the_dtype_of_the_scores(loss: str, target: np.ndarray, dtype: Any) -> None:
    """The scores here are numbers of every dtype: halves are float32's results, rounded once."""
    value, grad = outcome(loss, S.astype(dtype), target, reduction="none")
    assert value.dtype == grad.dtype == np.dtype(dtype)
    assert isinstance(outcome(loss, S.astype(dtype), target)[0], float)
    if dtype in HALVES:
        wide_value, wide = outcome(loss, S.astype(np.float32), target, reduction="none")
        np.testing.assert_array_equal(grad, wide.astype(dtype))
        np.testing.assert_allclose(value.astype(float), wide_value, rtol=float(ml_dtypes.finfo(dtype).eps) / 2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("loss", "target"), CASES)
def test_targets_of_another_dtype_than_the_scores(loss: str, target: np.ndarray, dtype: Any) -> None:
    """These targets are numbers of every dtype, so that theirs does not matter."""
    target = target if target.dtype.kind == "i" else target.astype(dtype)
    for scores in (S, S.astype("f4")):
        assert_same(
            outcome(loss, scores, target),
            outcome(loss, scores, target.astype(np.float64 if target.dtype.kind != "i" else int)),
        )
        assert outcome(loss, scores, target)[1].dtype == scores.dtype


@pytest.mark.parametrize("kind", [*INTEGERS, bool])
def test_integer_scores_and_targets_are_float64(kind: Any) -> None:
    whole = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0]])
    expected = outcome("huber", whole.astype(float), ONEHOT)
    assert_same(outcome("huber", whole.astype(kind), ONEHOT.astype(kind)), expected)
    assert outcome("huber", whole.astype(kind), ONEHOT)[1].dtype == np.float64


@pytest.mark.parametrize("kind", INTEGERS)
def test_labels_of_every_integer_dtype(kind: Any) -> None:
    for loss in ("cross_entropy", "multiclass_hinge", "nll"):
        assert_same(outcome(loss, S, Y.astype(kind)), outcome(loss, S, Y))


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_the_other_byte_order(dtype: str) -> None:
    found = outcome("cross_entropy", S.astype(dtype), Y.astype(">i4"))
    assert_same(found, outcome("cross_entropy", S.astype(dtype[1:]), Y))


# ------------------------------------------------------------------ containers


@pytest.mark.parametrize(("loss", "target"), CASES)
def test_lists_tuples_and_read_only_arrays(loss: str, target: np.ndarray) -> None:
    expected = outcome(loss, S, target)
    assert_same(outcome(loss, S.tolist(), target.tolist()), expected)
    assert_same(outcome(loss, tuple(map(tuple, S)), tuple(target.tolist())), expected)
    frozen, kept = S.copy(), target.copy()
    frozen.flags.writeable = kept.flags.writeable = False
    assert_same(outcome(loss, frozen, kept), expected)
    assert_same(outcome(loss, [np.array(row) for row in S], [np.array(row) for row in target]), expected)


@pytest.mark.parametrize("loss", ELEMENTWISE)
@pytest.mark.parametrize("kind", [float, np.float32, np.float64, int, np.int64, np.array])
def test_single_numbers(loss: str, kind: Any) -> None:
    value, grad = outcome(loss, kind(2), kind(1))
    expected, expected_grad = outcome(loss, np.array([2.0]), np.array([1.0]))
    assert value == pytest.approx(expected, rel=1e-6)
    assert np.shape(grad) == ()
    assert grad == pytest.approx(expected_grad[0], rel=1e-6)


@pytest.mark.parametrize("label", [2, np.int8(2), np.uint64(2), np.array(2)])
def test_a_single_row(label: Any) -> None:
    value, grad = outcome("cross_entropy", S[1], label)
    expected, expected_grad = outcome("cross_entropy", S[1:2], [2])
    assert value == expected
    np.testing.assert_array_equal(grad, expected_grad[0])


# ------------------------------------------------------------------ labels as distributions


@pytest.mark.parametrize("dtype", [*FLOATS, np.int64, np.uint8, bool])
@pytest.mark.parametrize("loss", ["cross_entropy", "multiclass_hinge"])
def test_one_hot_labels_are_known_by_their_shape(loss: str, dtype: Any) -> None:
    found, expected = outcome(loss, S, ONEHOT.astype(dtype)), outcome(loss, S, Y)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-15)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-14)


def test_square_batches_are_not_mistaken() -> None:
    """(K,) labels for (K, K) scores are labels, and (K, K) integers are distributions."""
    assert_same(outcome("cross_entropy", S, [0, 2, 1]), outcome("cross_entropy", S, Y))
    with pytest.raises(lm.LabelError, match="expected integers"):
        outcome("cross_entropy", S, [0.0, 1.0, 0.0])


# ------------------------------------------------------------------ weights


@pytest.mark.parametrize("kind", [list, np.float16, np.float32, np.float64, np.int64, bool, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("loss", "target"), CASES)
def test_weights_with_zeros(loss: str, target: np.ndarray, kind: Any) -> None:
    weight = np.array([1, 0, 1])
    given = weight.tolist() if kind is list else weight.astype(kind)
    for reduction in ("mean", "sum"):
        value, grad = outcome(loss, S, target, sample_weight=given, reduction=reduction)
        expected, expected_grad = outcome(loss, S[::2], target[::2], reduction=reduction)
        assert value == pytest.approx(expected, rel=1e-15)
        np.testing.assert_allclose(grad[::2], expected_grad, rtol=1e-15)
        assert not grad[1].any()


def test_weights_that_are_all_zero() -> None:
    for reduction in ("mean", "sum"):
        value, grad = outcome("cross_entropy", S, Y, sample_weight=np.zeros(3), reduction=reduction)
        assert value == 0.0
        assert not grad.any()


# ------------------------------------------------------------------ what is refused: which row, how to mend it

BAD: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    ("cross_entropy", S, [0, 5, 1], {}, r"y is 5 in row 1, expected 0 to 2 .*ignore_index=5"),
    ("cross_entropy", S, [0.0, 1.0, 2.0], {}, r"convert it with y\.astype\(int\)"),
    ("cross_entropy", S, [[0], [1], [2]], {}, r"y has shape \(3, 1\), expected \(3,\)"),
    (
        "cross_entropy",
        S,
        np.where(ONEHOT == 1, -1.0, 1),
        {},
        r"y is -1\.0 at row 0, class 0, expected values of 0 or more",
    ),
    ("cross_entropy", S.astype("U4"), Y, {}, r"np\.asarray\(s, dtype=float\)"),
    ("cross_entropy", S.astype(object), Y, {}, r"np\.asarray\(s, dtype=float\)"),
    ("cross_entropy", S.astype("M8[s]"), Y, {}, r"s has dtype datetime64"),
    ("softmax_kl", S, T * 2, {}, r"t sums to 2 over the classes in row 0, expected 1; divide each row by its sum"),
    ("logistic", S, T + 1, {}, r"t is 1\.25 at element \(0, 0\), expected values in \[0, 1\]"),
    ("huber", S, T, {"sample_weight": [1, 1, -1]}, r"sample_weight is -1\.0 at index 2"),
    ("huber", S, T, {"sample_weight": [1, np.nan, 1]}, r"sample_weight is nan at index 1"),
]


@pytest.mark.parametrize(("loss", "s", "target", "options", "message"), BAD, ids=lambda value: str(value)[:30])
def test_refusals_name_the_row_and_a_way_out(loss: str, s: Any, target: Any, options: Any, message: str) -> None:
    with pytest.raises((lm.LossmithError, TypeError), match=message):
        outcome(loss, s, target, **options)
