"""The classifier and the regressor: labels, probabilities, options, real data, scikit-learn."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from linear.handmade import (
    Absolute,
    CrossEntropy,
    Handmade,
    Hinge,
    Logistic,
    LogOfScore,
    Poisson,
    SoftCrossEntropy,
    Squared,
)
from lossmith.data import load_table
from lossmith.errors import DataError, DomainError, UnsupportedError
from lossmith.linear.estimators import LinearClassifier, LinearRegressor
from lossmith.linear.targets import class_probabilities

CLASSIFYING = [CrossEntropy(), SoftCrossEntropy(), Squared(), Logistic(), Hinge()]


def blobs(k: int, n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return well-separated classes 0 to k − 1 on a circle."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    centres = 4 * np.column_stack([np.cos(2 * np.pi * y / k), np.sin(2 * np.pi * y / k)])
    return centres + rng.normal(size=(n, 2)) * 0.8, y


# ------------------------------------------------------------------ scikit-learn's own checks

NOT_BATCHED = "shuffled batches of repeated rows are other batches than those of weighted rows"
NOT_TIGHT = "agrees to the solver's tolerance only, not to the 7 digits that the check asks for"
EQUIVALENCE = [f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")]


def expected_failures(model: Any) -> dict[str, str]:
    """Return the checks that a model cannot pass, with the reason."""
    failures: dict[str, str] = {}
    if model.solver != "lbfgs":
        failures |= dict.fromkeys(EQUIVALENCE, NOT_BATCHED)
    else:
        failures |= dict.fromkeys(EQUIVALENCE, NOT_TIGHT)
    if isinstance(model.loss, Logistic):
        failures["check_classifiers_train"] = (
            "compares predict_log_proba with log(predict_proba), which rounds to 0 close to p = 1"
        )
    return failures


quiet = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning", "ignore::sklearn.exceptions.SkipTestWarning"
)


@quiet
@parametrize_with_checks([LinearClassifier(CrossEntropy()), LinearRegressor(Squared())])
def test_scikit_learn_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@quiet
@pytest.mark.slow
@parametrize_with_checks(
    [
        LinearClassifier(Logistic()),
        LinearClassifier(Hinge()),
        LinearClassifier(Squared()),
        LinearClassifier(CrossEntropy(), solver="adam"),
        LinearClassifier(CrossEntropy(), solver="sgd"),
        LinearRegressor(Absolute()),
        LinearRegressor(Squared(), solver="adam"),
        LinearRegressor(Squared(), solver="sgd"),
    ],
    expected_failed_checks=expected_failures,
    xfail_strict=False,  # whether the looser ones pass depends on rounding
)
def test_scikit_learn_checks_of_other_losses_and_solvers(estimator: Any, check: Any) -> None:
    check(estimator)


# ------------------------------------------------------------------ labels


@pytest.mark.parametrize("loss", CLASSIFYING)
@pytest.mark.parametrize(
    "names",
    [
        np.array(["no", "yes"]),
        np.array([-1, 1]),
        np.array([7, 3]),
        np.array([True, False]),
        np.array(["b", "a", "c"], dtype=object),
        np.array([10.0, 20.0, 5.0, 0.0]),
    ],
    ids=str,
)
def test_labels_of_any_type(loss: Handmade, names: np.ndarray) -> None:
    X, codes = blobs(names.size)
    y = names[codes]
    model = LinearClassifier(loss).fit(X, y)
    np.testing.assert_array_equal(model.classes_, np.unique(names))
    assert model.predict(X).dtype == y.dtype
    assert model.score(X, y) > 0.97
    columns = 1 if loss.kind == "elementwise" and names.size == 2 else names.size
    assert model.coef_.shape == (columns, 2)
    assert model.intercept_.shape == (columns,)
    shape = (y.size,) if names.size == 2 else (y.size, names.size)
    assert model.decision_function(X).shape == shape


@pytest.mark.parametrize("loss", CLASSIFYING)
@pytest.mark.parametrize("k", [2, 4])
def test_predictions_follow_the_decision(loss: Handmade, k: int) -> None:
    X, y = blobs(k, seed=1)
    model = LinearClassifier(loss).fit(X + 3, y)
    decision, predicted = model.decision_function(X + 3), model.predict(X + 3)
    right = decision > 0 if k == 2 else decision.argmax(axis=1)
    np.testing.assert_array_equal(predicted, right)
    if loss.link is None:
        assert not hasattr(model, "predict_proba")
        assert not hasattr(LinearClassifier(loss), "predict_proba")
    else:
        p = model.predict_proba(X + 3)
        np.testing.assert_array_equal(p.argmax(axis=1), predicted)
        assert np.abs(p.sum(axis=1) - 1).max() <= 1e-14
        ratio = np.exp(model.predict_log_proba(X + 3)) / p
        assert np.abs(ratio - 1).max() <= 1e-13


def test_squared_error_on_labels_is_cut_at_a_half() -> None:
    """Least squares on 0 and 1 draws the scores to the labels, so ½ lies between the classes."""
    X, y = blobs(2)
    model = LinearClassifier(Squared(), alpha=0.0).fit(X, y)
    raw = X @ model.coef_[0] + model.intercept_[0]
    assert np.abs(model.decision_function(X) - (raw - 0.5)).max() <= 1e-14
    np.testing.assert_array_equal(model.predict(X), raw > 0.5)


def test_labels_unseen_in_training_count_as_missed() -> None:
    X, codes = blobs(3, n=30)
    y = np.array(["a", "b", "c"])[codes]
    model = LinearClassifier(CrossEntropy()).fit(X, y)
    assert model.score(X, y) == 1
    assert model.score(X, np.where(codes == 0, "never seen", y)) == pytest.approx(2 / 3)
    assert model.score(X, np.zeros(30, dtype=int)) == 0
    weight = np.where(codes == 0, 0.0, 1.0)
    assert model.score(X, np.where(codes == 0, "never seen", y), sample_weight=weight) == 1


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one class only, .*'a'.*, in all 5 rows") as caught:
        LinearClassifier(CrossEntropy()).fit(np.eye(5), ["a"] * 5)
    assert isinstance(caught.value, DataError)


def test_losses_that_do_not_fit_are_refused() -> None:
    X, y = blobs(3)
    with pytest.raises(UnsupportedError, match="a class label and no targets"):
        LinearRegressor(CrossEntropy()).fit(X, y)
    lone = Squared()
    lone.target_name = None
    with pytest.raises(UnsupportedError, match="neither a label nor targets"):
        LinearClassifier(lone).fit(X, y)
    with pytest.raises(DomainError, match="at the start, where all weights are 0"):
        LinearRegressor(LogOfScore(), fit_intercept=False).fit(X, y)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha", -1), ("alpha", np.nan), ("tol", -1e-3), ("solver", "newton"), ("momentum", 1.0),
        ("batch_size", 0), ("patience", 0), ("max_iter", 0), ("learning_rate", 0.0),
        ("validation_fraction", 1.0),
    ],
)  # fmt: skip
def test_bad_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(DomainError, match=rf"{name} must be .*not "):
        LinearClassifier(CrossEntropy()).set_params(**{name: value}).fit(*blobs(2))


# ------------------------------------------------------------------ probabilities


def test_one_against_the_rest_never_divides_by_zero() -> None:
    """However negative all scores are, the probabilities are a distribution."""
    scores = np.array([[-1000.0, -1001, -1002], [-5, -5, 800], [1e4, 1e4, -1e4], [0, 0, 0]])
    p = class_probabilities("sigmoid", scores)
    assert np.abs(p.sum(axis=1) - 1).max() <= 1e-15
    far = np.exp([0.0, -1, -2])
    assert np.abs(p[0] / (far / far.sum()) - 1).max() <= 1e-12
    assert np.abs(p[2, :2] - 0.5).max() == 0
    log = class_probabilities("sigmoid", scores, log=True)
    assert np.isfinite(log).all()


def test_probabilities_of_one_score() -> None:
    p = class_probabilities("sigmoid", np.array([[0.0], [-800.0], [40.0]]))
    np.testing.assert_array_equal(p[:2], [[0.5, 0.5], [1, 0]])
    assert 0 < p[2, 0] < 1e-17  # 1 − σ(40) has not rounded to 0
    log = class_probabilities("sigmoid", np.array([[-800.0]]), log=True)
    np.testing.assert_array_equal(log, [[0, -800]])


# ------------------------------------------------------------------ against scikit-learn


@pytest.mark.parametrize("weighted", [False, True])
def test_alpha_is_one_over_C_and_the_weights(weighted: bool) -> None:
    X, y = blobs(3, n=90)
    weight = np.random.default_rng(0).uniform(0.5, 2, 90) if weighted else None
    C, total = 0.7, 90 if weight is None else weight.sum()
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10000).fit(X, y, sample_weight=weight)
    ours = LinearClassifier(CrossEntropy(), alpha=1 / (C * total), tol=1e-9, max_iter=10000)
    ours.fit(X, y, sample_weight=weight)
    assert np.linalg.norm(ours.coef_ - theirs.coef_) <= 1e-5 * np.linalg.norm(theirs.coef_)


@pytest.mark.parametrize("columns", [None, 3])
def test_squared_error_is_ridge_regression(columns: int | None) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    y = rng.normal(size=60 if columns is None else (60, columns)) + 100
    # Ridge minimises Σ(s − y)² + a‖w‖²; here it is divided by N, with alpha/2 for a/N.
    theirs = Ridge(alpha=3.0).fit(X, y)
    ours = LinearRegressor(Squared(), alpha=2 * 3.0 / 60, tol=1e-10).fit(X, y)
    assert ours.coef_.shape == theirs.coef_.shape
    assert np.linalg.norm(ours.coef_ - theirs.coef_) <= 1e-6 * np.linalg.norm(theirs.coef_)
    assert np.abs(ours.predict(X) / theirs.predict(X) - 1).max() <= 1e-8
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y), rel=1e-6)


def test_sparse_and_dense_agree() -> None:
    X, y = blobs(3)
    X[np.abs(X) < 1] = 0
    dense = LinearClassifier(CrossEntropy(), tol=1e-8).fit(X, y)
    sparse = LinearClassifier(CrossEntropy(), tol=1e-8).fit(csr_matrix(X), y)
    assert np.linalg.norm(dense.coef_ - sparse.coef_) <= 1e-4 * np.linalg.norm(dense.coef_)
    np.testing.assert_array_equal(dense.predict(X), sparse.predict(csr_matrix(X)))
    LinearClassifier(CrossEntropy(), standardize=True).fit(csr_matrix(X), y)


# ------------------------------------------------------------------ regression


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_median_regression_in_any_unit(size: float) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    y = 5 + X @ [1.0, -2.0] + 0.01 * rng.normal(size=300)
    y[:20] += 1000  # outliers, which move the mean by 67
    model = LinearRegressor(Absolute(), alpha=0.0).fit(X, y * size)
    assert np.abs(model.coef_ / size - [1, -2]).max() < 0.01
    assert abs(model.intercept_ / size - 5) < 0.01


def test_adam_takes_the_unit_of_the_targets() -> None:
    X, _ = blobs(3)
    y = 1e6 * (X @ [1.0, 2.0] - 7)
    model = LinearRegressor(Squared(), solver="adam", max_iter=300, batch_size=20, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.99


def test_counts_and_probabilities_as_targets() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    counts = rng.poisson(np.exp(0.5 * X[:, 0] + 1))
    model = LinearRegressor(Poisson(), alpha=0.0).fit(X, counts)
    assert abs(model.coef_[0] - 0.5) < 0.05
    assert abs(model.intercept_ - 1) < 0.1
    shares = 1 / (1 + np.exp(-X[:, 0]))
    predicted = LinearRegressor(Logistic(), alpha=0.0).fit(X, shares).predict(X)
    assert np.abs(predicted / shares - 1).max() < 1e-2
    both = np.column_stack([shares, 1 - shares])
    predicted = LinearRegressor(SoftCrossEntropy(), alpha=0.0).fit(X, both).predict(X)
    assert np.abs(predicted / both - 1).max() < 1e-2


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_standardize_keeps_coefficients_for_raw_features(fit_intercept: bool) -> None:
    X, y = blobs(3)
    X = np.column_stack([X * [1e-3, 1e4] + [0, 1e5], np.full(len(X), 7.0)])
    model = LinearClassifier(CrossEntropy(), standardize=True, fit_intercept=fit_intercept)
    model.fit(X, y)
    raw = X @ model.coef_.T + model.intercept_
    np.testing.assert_array_equal(model.decision_function(X), raw)
    assert model.score(X, y) > (0.97 if fit_intercept else 0.5)
    np.testing.assert_array_equal(model.coef_[:, 2] * fit_intercept, 0)


def test_float32_features_give_float32_scores() -> None:
    X, y = blobs(3)
    model = LinearClassifier(CrossEntropy()).fit(X.astype(np.float32), y)
    assert model.decision_function(X.astype(np.float32)).dtype == np.float32
    assert model.predict_proba(X.astype(np.float32)).dtype == np.float32
    assert model.decision_function(X).dtype == np.float64
    assert model.coef_.dtype == np.float64


@pytest.mark.parametrize("solver", ["lbfgs", "sgd", "adam"])
@pytest.mark.parametrize("weighted", [False, True])
def test_early_stopping(solver: str, weighted: bool) -> None:
    X, y = blobs(4, seed=3)
    weight = np.linspace(0.1, 2, y.size) if weighted else None
    model = LinearClassifier(CrossEntropy(), solver=solver, early_stopping=True, patience=3, random_state=0).fit(
        X, y, sample_weight=weight
    )
    assert len(model.validation_curve_) == len(model.loss_curve_) == model.n_iter_
    assert max(model.validation_curve_) > 0.95
    regressor = LinearRegressor(Squared(), solver=solver, early_stopping=True, random_state=0)
    regressor.fit(X, X @ [1.0, 2] + 3)
    assert max(regressor.validation_curve_) > 0.99


def test_early_stopping_with_rare_classes_and_few_rows() -> None:
    X, y = blobs(2, n=20)
    y[0] = 9  # one row only: the held-out part cannot be stratified
    model = LinearClassifier(CrossEntropy(), early_stopping=True, random_state=0).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 9]
    with pytest.raises(DataError, match="needs 2 held-out rows"):
        LinearClassifier(CrossEntropy(), early_stopping=True).fit(X[1:9], y[1:9])


def test_seed_repeats_the_fit() -> None:
    X, y = blobs(3)
    options: dict[str, Any] = {"solver": "sgd", "early_stopping": True}
    models = [LinearClassifier(CrossEntropy(), random_state=s, **options) for s in (1, 1, 2)]
    first, again, other = (model.fit(X, y).coef_ for model in models)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_hyperparameters_reach_the_loss() -> None:
    X, _ = blobs(2)
    y = np.exp(X[:, 0] / 4)
    plain = LinearRegressor(Poisson(), alpha=0.0, tol=1e-8).fit(X, y)
    doubled = LinearRegressor(Poisson(), alpha=0.0, tol=1e-8, hyper={"power": 2.0}).fit(X, y)
    assert np.linalg.norm(2 * doubled.coef_ - plain.coef_) <= 1e-4 * np.linalg.norm(plain.coef_)


def test_divergence_and_too_few_iterations_warn_and_keep_a_model() -> None:
    X, y = blobs(3)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        LinearClassifier(CrossEntropy(), max_iter=2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="lower learning_rate") as caught:
        model = LinearRegressor(Squared(), solver="sgd", learning_rate=1e3).fit(X, X[:, 0])
    assert np.isfinite(model.coef_).all()
    assert model.solver_message_ == str(caught[0].message)
    assert Path(caught[0].filename).name == Path(__file__).name


def test_progress_bar_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    X, y = blobs(3)
    model = LinearClassifier(CrossEntropy(), progress=True, early_stopping=True).fit(X, y)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "lbfgs" in captured.err
    assert f"loss {model.loss_curve_[-1]:.5g}" in captured.err
    LinearClassifier(CrossEntropy()).fit(X, y)
    assert capsys.readouterr().err == ""


def test_models_are_cloned_pickled_and_cross_validated() -> None:
    X, y = blobs(3)
    model = LinearClassifier(CrossEntropy(), alpha=0.02).fit(X, y)
    assert clone(model).get_params()["alpha"] == 0.02
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert cross_val_score(model, X, y, cv=3).min() > 0.9


# ------------------------------------------------------------------ with the real losses


MNIST = {"file": "mnist-t10k-images-idx3-ubyte.gz", "target": None, "train": 8000}
LETTER = {"file": "letter-recognition.csv", "target": "Letter", "train": 16000}


@pytest.mark.slow
@pytest.mark.parametrize(("data", "standardize", "accuracy"), [(MNIST, False, 0.9235), (LETTER, True, 0.7728)])
def test_reference_accuracy_is_reached(
    data_dir: Path, data: dict[str, Any], standardize: bool, accuracy: float
) -> None:
    table = load_table(data_dir / data["file"], target=data["target"], task="classification")
    n, X = data["train"], table.X.astype(np.float32)
    model = LinearClassifier("cross_entropy", alpha=1 / n, standardize=standardize)
    model.fit(X[:n], table.target[:n])
    assert abs(model.score(X[n:], table.target[n:]) - accuracy) <= 0.003


@pytest.mark.parametrize("loss", ["cross_entropy", "logsumexp(s) - s[y]"])
def test_real_cross_entropy_is_the_handmade_one(loss: str) -> None:
    table = load_table("iris")
    real = LinearClassifier(loss, tol=1e-8, standardize=True).fit(table.X, table.target)
    handmade = LinearClassifier(CrossEntropy(), tol=1e-8, standardize=True)
    handmade.fit(table.X, table.target)
    norm = np.linalg.norm(handmade.coef_)
    assert np.linalg.norm(real.coef_ - handmade.coef_) <= 1e-4 * norm
    assert real.predict_proba(table.X).shape == (150, 3)
