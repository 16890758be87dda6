"""Every loss of the catalogue × every law × both back ends; and for each law a planted mistake that it catches.

A new loss needs no line here: it is in the catalogue, so it is held to the laws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from laws import LAWS, NEEDS, Case, assert_back_ends_agree, case_of, varied
from lossmith import Loss, evaluation
from lossmith.hessian import DiagonalPlusLowRank
from lossmith.kernels.runtime import has_numba
from lossmith.losses import CATALOGUE

NUMPY_ONLY = {
    # They are about what happens beside the kernels, and Numba would compile a dozen more for them.
    "hessians_are_weighted_and_reduced_like_gradients",
    "damped_hessians_are_solved",
    "class_weights_are_weights_of_the_labels_rows",
}
NUMERIC = ("value_is_the_definition", "gradient_is_the_derivative", "hessian_diagonal_is_the_second_derivative")
# Mistakes that are known. The day they are mended, the tests that name them say so.
BROKEN: dict[tuple[str, ...], str] = {}


def pairs(backend: str) -> list[Any]:
    found = []
    for law in LAWS:
        for name, loss in CATALOGUE.items():
            if NEEDS[law](case_of(loss)) and not (backend == "numba" and law in NUMPY_ONLY):
                found.append(marked((law, name), f"{name}-{law}"))
    return found


def marked(key: tuple[str, ...], name: str) -> Any:
    """Return a parameter, marked where a mistake is known."""
    why = BROKEN.get(key)
    marks = [pytest.mark.xfail(strict=True, reason=why)] if why else []
    return pytest.param(*key[:2], id=name, marks=marks)


@pytest.mark.parametrize(("law", "name"), pairs("numpy"))
def test_law_holds_with_numpy(law: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    LAWS[law](case_of(CATALOGUE[name]))


@pytest.mark.skipif(not has_numba(), reason="Numba is not installed")
@pytest.mark.parametrize(("law", "name"), pairs("numba"))
def test_law_holds_with_numba(law: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numba")
    LAWS[law](case_of(CATALOGUE[name]))


@pytest.mark.parametrize("law", NUMERIC)
@pytest.mark.parametrize("name", CATALOGUE)
def test_law_holds_in_float64(law: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    LAWS[law](case_of(CATALOGUE[name], "f8"))


def with_other_hyperparameters() -> list[Any]:
    found = []
    for law in (*NUMERIC, "permuting_classes_permutes_gradients", "distributions_stand_for_labels"):
        for name, loss in CATALOGUE.items():
            hypers = varied(loss)
            if hypers and NEEDS[law](case_of(loss)):
                known = (law, name) if (law, name) in BROKEN else (law, name, min(hypers))
                found.append(marked(known, f"{name}-{law}"))
    return found


@pytest.mark.parametrize(("law", "name"), with_other_hyperparameters())
def test_law_holds_with_other_hyperparameters(law: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    LAWS[law](case_of(CATALOGUE[name], hypers=True))


@pytest.mark.skipif(not has_numba(), reason="Numba is not installed")
@pytest.mark.parametrize(("law", "name"), [marked(("back_ends_agree", name), name) for name in CATALOGUE])
def test_back_ends_agree(law: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [outputs_of(name, backend, monkeypatch) for backend in ("numpy", "numba")]
    assert_back_ends_agree(case_of(CATALOGUE[name], shape=(32, 4)), *found)


def test_back_ends_that_disagree_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    found = outputs_of("cross_entropy", "numpy", monkeypatch)
    off = {**found, "grad": found["grad"] * np.float32(1 + 1e-5)}
    with pytest.raises(AssertionError):
        assert_back_ends_agree(case_of(CATALOGUE["cross_entropy"], shape=(32, 4)), found, off)


def outputs_of(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    monkeypatch.setenv(evaluation.BACKEND, backend)
    case = case_of(CATALOGUE[name], shape=(32, 4))
    value, grads = case.both()
    return {"value": value, "grad": grads[0], "hessian_diag": case.loss.hessian_diag(*case.args, reduction="none")}


# ------------------------------------------------------------------ planted mistakes

Change = Callable[[Any, tuple[str, ...], tuple[Any, ...], dict[str, Any], Any], Any]


def tampered(loss: Loss, change: Change) -> Loss:
    """Return the loss with a mistake: `change` stands between its methods and what runs a batch."""
    other = loss.bind()
    run = loss._run
    vars(other)["_run"] = lambda wanted, args, options, out=None: change(run, wanted, args, options, out)
    return other


def in_value(change: Callable[[Any], Any]) -> Change:
    def changed(run: Any, wanted: Any, args: Any, options: Any, out: Any) -> Any:
        results = run(wanted, args, options, out)
        return tuple(change(r) if w == "value" else r for w, r in zip(wanted, results, strict=True))

    return changed


def in_arrays(name: str, change: Callable[[Any], Any]) -> Change:
    def changed(run: Any, wanted: Any, args: Any, options: Any, out: Any) -> Any:
        found: list[Any] = []
        for output, result in zip(wanted, run(wanted, args, options, out), strict=True):
            if output == "low_rank":
                found.append({n: change(a) if n == name else a for n, a in result.items()})
            else:
                found.append(change(result) if output == name else result)
        return tuple(found)

    return changed


def in_options(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return lambda run, wanted, args, options, out: run(wanted, args, change(options), out)


def in_args(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Change:
    return lambda run, wanted, args, options, out: run(wanted, change(args), options, out)


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda options: {n: v for n, v in options.items() if n not in names}


def tiny_for_zero(options: dict[str, Any]) -> dict[str, Any]:
    weight = options.get("sample_weight")
    return options if weight is None else {**options, "sample_weight": np.where(weight == 0, 1e-30, weight)}


def squared_weight(options: dict[str, Any]) -> dict[str, Any]:
    """Return what comes of multiplying both factors of u·v by the weight."""
    weight = options.get("sample_weight")
    return options if weight is None else {**options, "sample_weight": weight**2}


def ignored_is_class_zero(run: Any, wanted: Any, args: Any, options: Any, out: Any) -> Any:
    ignored = options.get("ignore_index")
    s, y = args
    return run(wanted, (np.nan_to_num(s), np.where(np.equal(y, ignored), 0, y)), without("ignore_index")(options), out)


def writes_to_its_input(run: Any, wanted: Any, args: Any, options: Any, out: Any) -> Any:
    result = run(wanted, args, options, out)
    if args[0].flags.writeable:
        args[0][0] += 1
    return result


def spoils_the_next_row(array: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(array).any(), array + 1e-6, array)


PLANTS: dict[str, tuple[str, Change]] = {
    "value_is_the_definition": ("huber", in_value(lambda v: v * np.float32(1 + 2e-6))),
    "gradient_is_the_derivative": ("cross_entropy", in_arrays("grad", lambda g: g * np.float32(1 + 2e-6))),
    "hessian_diagonal_is_the_second_derivative": ("focal", in_arrays("hessian_diag", lambda h: h * np.float32(1.0001))),
    "dense_hessian_is_the_second_derivative": ("cross_entropy", in_arrays("u_0", lambda u: u * np.float32(1.00001))),
    "hessian_products_agree_with_the_matrix": ("logistic", in_arrays("hvp", lambda h: h * np.float32(1.0001))),
    "hessians_are_weighted_and_reduced_like_gradients": ("focal", in_options(squared_weight)),
    "weights_multiply": ("huber", in_options(without("sample_weight"))),
    "weight_zero_leaves_a_sample_out": ("squared_error", in_options(tiny_for_zero)),
    "reductions_agree": ("logistic", in_options(lambda o: {**o, "reduction": o.get("reduction", "sum")})),
    "outputs_do_not_depend_on_their_company": ("huber", in_value(lambda v: v * np.float32(1 + 1e-6 * np.size(v)))),
    "class_weights_are_weights_of_the_labels_rows": ("nll", in_options(without("class_weight"))),
    "ignored_labels_are_left_out": ("nll", ignored_is_class_zero),
    "distributions_stand_for_labels": ("cross_entropy", in_args(lambda a: (a[0], a[1] ** 2))),
    "permuting_classes_permutes_gradients": ("nll", in_arrays("grad", lambda g: g + np.arange(4, dtype="f4"))),
    "a_constant_added_to_the_scores_changes_nothing": (
        "cross_entropy",
        lambda run, wanted, args, options, out: in_value(lambda v: v + args[0].mean() * 1e-4)(
            run, wanted, args, options, out
        ),
    ),
    "classes_may_be_along_any_axis": ("cross_entropy", in_arrays("grad", lambda g: g[..., ::-1])),
    "memory_layout_changes_nothing_and_inputs_stay": ("huber", writes_to_its_input),
    "lists_are_float64": ("huber", in_args(lambda a: tuple(np.float32(x) if isinstance(x, list) else x for x in a))),
    "halves_are_computed_in_float32_and_rounded_once": ("huber", in_value(lambda v: np.float32(v) * 2)),
    "results_have_the_dtype_of_the_scores": ("huber", in_arrays("grad", lambda g: g.astype(float))),
    "out_may_be_the_scores": ("huber", lambda run, wanted, args, options, out: run(wanted, args, options)),
    "one_row_is_a_batch_without_its_axis": ("nll", in_arrays("grad", lambda g: np.reshape(g, (-1, 4)))),
    "no_rows_are_fine_and_so_is_one_class": (
        "nll",
        in_value(lambda v: v if np.size(v) else np.ones(1)),
    ),
    "nan_stays_in_its_row": ("squared_error", in_arrays("grad", spoils_the_next_row)),
}
# What a law does not catch if the loss is tampered with as above: the mistake is planted elsewhere, below.
ELSEWHERE = {"damped_hessians_are_solved"}


def test_every_law_has_a_planted_mistake() -> None:
    assert {*PLANTS, *ELSEWHERE} == set(LAWS)


@pytest.mark.parametrize("law", PLANTS)
def test_planted_mistake_is_caught(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    name, change = PLANTS[law]
    loss = CATALOGUE[name]

    def planted(_: Loss, *args: Any, **options: Any) -> Case:
        case = case_of(loss, *args, **options)
        return replace(case, loss=tampered(loss, change), args=tuple(a.copy() for a in case.args))

    monkeypatch.setattr("laws.case_of", planted)
    with pytest.raises(AssertionError):
        LAWS[law](planted(loss))


def test_planted_mistake_in_solve_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "numpy")
    monkeypatch.setattr(DiagonalPlusLowRank, "solve", lambda self, b, damping: b / (self.diagonal + damping))
    with pytest.raises(AssertionError):
        LAWS["damped_hessians_are_solved"](case_of(CATALOGUE["cross_entropy"]))


def test_a_back_end_is_refused_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(evaluation.BACKEND, "fortran")
    with pytest.raises(ValueError, match="LOSSMITH_BACKEND is 'fortran', expected 'auto', 'numba' or 'numpy'"):
        CATALOGUE["nll"]([0.0, 1.0], 0)
