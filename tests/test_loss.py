"""The Loss object: what it says of itself, how it is made, bound, copied, shared and printed."""

from __future__ import annotations

import concurrent.futures
import copy
import cProfile
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith import evaluation
from lossmith.losses import CATALOGUE, resolve_loss

S = np.array([[2.0, 0.0, 1.0], [0.5, -1.0, 3.0]])
Y = np.array([0, 2])
DISTANCE = lm.loss("sum((a - b)**2) / 2", a=lm.Scores, b=lm.Scores)


@lm.loss
def squared_gap(s: Any, y: Any, *, margin: Any = 1.0) -> Any:
    """Return the squared gap to the label. A loss of this test."""
    return np.sum((margin + s - s[y]) ** 2)


# ------------------------------------------------------------------ what it says of itself


def test_what_a_loss_says_of_itself() -> None:
    said = {n: (v.kind, v.label_name, v.target_name, v.target_domain, v.link) for n, v in CATALOGUE.items()}
    assert said["cross_entropy"] == ("row", "y", None, None, "softmax")
    assert said["focal"] == ("row", "y", None, None, "softmax")
    assert said["multiclass_hinge"] == ("row", "y", None, None, None)
    assert said["softmax_kl"][:4] == ("row", None, "t", "simplex")
    assert said["logistic"] == ("elementwise", None, "t", "unit", "sigmoid")
    assert said["bce"] == ("elementwise", None, "t", "unit", None)
    assert said["huber"] == ("elementwise", None, "t", "real", None)
    assert said["entropy"] == ("row", None, None, None, None)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_loss_has_a_name_a_formula_and_a_docstring(name: str) -> None:
    loss = CATALOGUE[name]
    assert getattr(lm, name) is loss is resolve_loss(name)
    assert loss.name == loss.__name__ == name
    assert loss.formula.startswith("L = ")
    assert repr(loss) == f"<Loss {name}: {loss.formula}>"
    assert loss.__doc__ == loss.references
    assert len(loss.references.splitlines()[0]) > 20
    assert "<math" in loss._repr_html_()


def test_a_function_becomes_a_loss_with_its_name_and_docstring() -> None:
    assert squared_gap.name == "squared_gap"
    assert "A loss of this test" in (squared_gap.__doc__ or "")
    value, grad = squared_gap.value_and_grad(S[0], 0)
    assert value == 1 + 1 + 0
    assert grad.tolist() == [2 * (2 - 1 + 0) * 0 - 2 * (-1 + 0), -2, 0]


def test_a_loss_can_be_made_under_a_profiler() -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    made = lm.loss(lambda s, t: (s - t) ** 2)
    sorted([2, 1])
    profiler.disable()
    assert made(3.0, 1.0) == 4
    assert any("sorted" in str(entry.code) for entry in profiler.getstats())  # it went on after the definition


def test_a_function_and_a_text_are_the_same_loss() -> None:
    text = lm.loss("sum((margin + s - s[y])**2)", margin=1.0)
    assert text.definition.expr is squared_gap.definition.expr
    for a, b in zip(text.value_and_grad(S, Y), squared_gap.value_and_grad(S, Y), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resolving() -> None:
    assert resolve_loss(lm.huber) is lm.huber
    assert resolve_loss("abs(s - t)")(3.0, 1.0) == 2
    assert resolve_loss(lambda s, t: (s - t) ** 2)(3.0, 1.0) == 4
    with pytest.raises(lm.FormulaError):
        resolve_loss("softmax(s)")
    with pytest.raises(TypeError, match=r"use \.bind"):
        lm.loss(lambda s: s, delta=1.0)  # pyright: ignore[reportCallIssue]


# ------------------------------------------------------------------ hyperparameters and options


def test_bound_values_are_defaults() -> None:
    bound = lm.huber.bind(delta=0.5, reduction="sum")
    assert bound(S, 0.0) == lm.huber(S, 0.0, delta=0.5, reduction="sum")
    assert bound(S, 0.0, delta=2.0, reduction="mean") == lm.huber(S, 0.0, delta=2.0)
    twice = bound.bind(delta=2.0)
    assert twice(S, 0.0) == lm.huber(S, 0.0, delta=2.0, reduction="sum")
    assert lm.huber(S, 0.0) == lm.huber(S, 0.0, delta=1.0)  # the first is as it was
    with pytest.raises(TypeError, match="huber has no argument 'gamma'; it has delta, sample_weight"):
        lm.huber.bind(gamma=1.0)


def test_folded_values_are_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that get a kernel of their own give what the general kernel gives, nearly."""
    monkeypatch.setenv(evaluation.BACKEND, "numpy")  # Numba would compile two dozen kernels
    scores = np.random.default_rng(2).normal(size=(2, 3))
    for loss, name in [
        (lm.focal, "gamma"),
        (lm.huber, "delta"),
        (lm.softmax_kl, "tau"),
        (lm.multiclass_hinge, "margin"),
    ]:
        target = 0.0 if loss is lm.huber else np.full((2, 3), 1 / 3) if loss is lm.softmax_kl else Y
        for value in (0.5, 1.0, 2.0):
            folded = loss.value_and_grad(scores, target, **{name: value})
            general = loss.value_and_grad(scores, target, **{name: value * (1 + 1e-15)})
            np.testing.assert_allclose(folded[0], general[0], rtol=1e-13)
            np.testing.assert_allclose(folded[1], general[1], rtol=1e-11, atol=1e-15)


def test_numbers_per_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    alpha = lm.loss("-alpha[y] * log(softmax(s)[y])", alpha=[1.0, 2.0, 0.5])
    expected = lm.cross_entropy(S, Y, reduction="none") * [1.0, 0.5]
    np.testing.assert_allclose(alpha(S, Y, reduction="none"), expected, rtol=1e-15)
    np.testing.assert_allclose(alpha(S, Y, alpha=[3.0, 1.0, 1.0], reduction="none")[0], 6 * expected[0] / 2, rtol=1e-15)
    smoothing = lm.cross_entropy(S, Y, label_smoothing=[0.1, 0.1, 0.1])
    assert smoothing == pytest.approx(lm.cross_entropy(S, Y, label_smoothing=0.1), rel=1e-14)


def test_the_same_kernel_serves_all_values() -> None:
    loss = lm.loss("where(abs(s - t) <= delta, (s - t)**2/2, delta*(abs(s - t) - delta/2))", delta=1.0)
    for delta in np.linspace(0.6, 0.9, 7):
        loss.value_and_grad(S, 0.0, delta=delta)
        loss.bind(delta=delta).value_and_grad(S, 1.0)
    assert len(loss._kernels) == 1


# ------------------------------------------------------------------ several inputs


def test_gradients_by_several_inputs_are_a_tuple() -> None:
    a, b = S, S[::-1] * 2
    value, (by_a, by_b) = DISTANCE.value_and_grad(a, b, reduction="sum")
    assert value == np.sum((a - b) ** 2) / 2
    np.testing.assert_array_equal(by_a, a - b)
    np.testing.assert_array_equal(by_b, b - a)
    out = np.empty_like(a), np.empty_like(b)
    found = DISTANCE.grad(a, b, reduction="sum", out=out)
    assert found[0] is out[0]
    assert found[1] is out[1]
    np.testing.assert_array_equal(out[1], b - a)
    assert [h.tolist() for h in DISTANCE.hessian_diag(a, b, reduction="none")] == [[[1] * 3] * 2] * 2


def test_out_for_one_of_several_inputs_is_refused() -> None:
    with pytest.raises(lm.ShapeError, match="out is for grad, grad_2: it holds 1 of 2 arrays"):
        DISTANCE.grad(S, S, out=S.copy())


# ------------------------------------------------------------------ Hessians


def test_the_hessian_of_class_pairs_is_refused() -> None:
    pairs = lm.loss("sum(exp(s[:, None] - s)**2)")
    with pytest.raises(lm.UnsupportedError, match=r"full matrix.*use hvp\(…\) or hessian_diag\(…\)"):
        pairs.hessian(S)
    v = np.array([[1.0, -1.0, 0.5]] * 2)
    step = 1e-6
    by_steps = (pairs.grad(S + step * v, reduction="none") - pairs.grad(S - step * v, reduction="none")) / (2 * step)
    np.testing.assert_allclose(pairs.hvp(S, v, reduction="none"), by_steps, rtol=1e-7)


def test_hessians_of_one_row_and_of_elements() -> None:
    one = lm.cross_entropy.hessian(S[0], 0)
    assert one.dense().shape == (3, 3)
    np.testing.assert_array_equal(one.diag(), lm.cross_entropy.hessian_diag(S[0], 0))
    np.testing.assert_array_equal(lm.logistic.hessian(S, 0.0, reduction="none").dense()[0].diagonal(),
                                  lm.logistic.hessian_diag(S[0], 0.0, reduction="none"))  # fmt: skip
    assert lm.huber.hessian(0.5, 0.0).dense().tolist() == [[1.0]]


def test_the_dense_hessian_has_a_diagonal_without_cancellation() -> None:
    low = lm.cross_entropy.hessian(np.float32([[30.0, 0.0, 0.0]]), [0])
    p = np.exp(-30.0)
    assert low.dense()[0, 0, 0] == pytest.approx(2 * p, rel=1e-6)
    assert (low.diagonal + low.left[0] * low.right[0])[0, 0] == 0  # what d + u·v makes of it


def test_singular_hessians() -> None:
    low = lm.cross_entropy.hessian(S, Y, reduction="none")
    x = low.solve(S, damping=0.1)
    full = low.dense() + 0.1 * np.eye(3)
    np.testing.assert_allclose(np.einsum("nij,nj->ni", full, x), S, rtol=1e-12)
    flat = lm.multiclass_hinge.hessian(S, Y, reduction="none")
    assert np.isnan(flat.solve(S)).all()
    np.testing.assert_array_equal(flat.solve(S, damping=2.0), S / 2)
    one_gone = lm.cross_entropy.hessian(S, Y, sample_weight=[0.0, 1.0], reduction="sum")
    assert np.isfinite(one_gone.solve(S, damping=0.5)).all()
    with pytest.raises(lm.ShapeError, match=r"the vector has shape \(3,\), expected \(2, 3\)"):
        low @ S[0]
    with pytest.raises(lm.ShapeError, match=r"the right-hand side has shape \(3,\), expected \(2, 3\)"):
        low.solve(S[0])


# ------------------------------------------------------------------ copies, threads, sources


def test_copies_and_pickles() -> None:
    for loss in (lm.cross_entropy, lm.huber.bind(delta=0.3), lm.loss("abs(s - t)**q", q=1.5)):
        target = Y if loss is lm.cross_entropy else 0.25
        for other in (copy.copy(loss), copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert other(S, target) == loss(S, target)


def test_calls_from_many_threads() -> None:
    rng = np.random.default_rng(0)
    batches = [(rng.normal(size=(50, 4)).astype("f4"), rng.integers(0, 4, 50)) for _ in range(40)]
    fresh = lm.loss("logsumexp(s) - s[y] + 0.125*sum(s**2)")  # its kernel is compiled by whoever comes first
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda batch: fresh.value_and_grad(*batch), batches))
    for (value, grad), batch in zip(found, batches, strict=True):
        expected = fresh.value_and_grad(*batch)
        assert value == expected[0]
        np.testing.assert_array_equal(grad, expected[1])


def arguments_of(loss: lm.Loss) -> list[Any]:
    rng, found = np.random.default_rng(1), []
    for item in loss.definition.inputs:
        values = {"unit": rng.uniform(0.1, 0.9, (4, 3)), "simplex": rng.dirichlet(np.ones(3), 4)}
        found.append(values.get(item.role.domain, rng.normal(size=(4, 3))))
        if item.role.kind == "label":
            found[-1] = rng.integers(0, 3, 4)
    return found


@pytest.mark.parametrize("name", CATALOGUE)
def test_the_numpy_source_runs_on_its_own(name: str) -> None:
    """A user pastes it into a file that imports nothing of ours."""
    loss, space = CATALOGUE[name], {}
    source = loss.source("numpy")
    assert "lossmith" not in source.split('"""')[-1]
    exec(compile(source, name, "exec"), space)
    args = arguments_of(loss)
    hypers = {h.name: h.default for h in loss.display_formula().hypers}
    function = next(v for k, v in space.items() if callable(v) and k.startswith(name))
    # It takes the scores, then the label, then the targets.
    value, grad = function(*args, **hypers)
    expected, expected_grad = loss.value_and_grad(*args, reduction="none")
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("name", ["cross_entropy", "huber"])
def test_the_numba_source_is_python(name: str) -> None:
    compile(CATALOGUE[name].source("numba", ("value", "grad", "hessian_diag")), name, "exec")


def test_the_derivation_is_there() -> None:
    assert "= p_j − 1{j=y}" in str(lm.cross_entropy.derivation)


def test_nothing_is_printed_or_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hostile = np.array([[np.inf, -np.inf, 0], [1e308, -1e308, np.nan]])
        lm.cross_entropy.value_and_grad(hostile, [0, 1])
        lm.cross_entropy.value_and_grad(hostile, [0, 1], reduction="none")
        lm.half_squared_error.value_and_grad(np.float16([60000, -60000]), 0.0, reduction="none")
        lm.squared_error(np.float32([1.0]), 1e300)
