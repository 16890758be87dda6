"""The check: lets right losses pass, and catches what is planted in them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith import compiler
from lossmith.check.interpreter import Sample, evaluate_adaptive
from lossmith.check.measure import check_loss, check_subject
from lossmith.check.promise import base_limit, promise
from lossmith.check.report import CheckReport, CheckRow
from lossmith.check.samples import batches
from lossmith.check.subject import (
    NotCompiled,
    Subject,
    _kernels,  # pyright: ignore[reportPrivateUsage]
    subject_of,
)
from lossmith.check.tally import Tally
from lossmith.errors import UnsupportedError
from lossmith.language import build
from lossmith.language.expr import Derivative, Expr, named
from lossmith.language.formula import Formula
from lossmith.language.trace import trace

J = named("j")
Arrays = Mapping[str, tuple[np.ndarray, ...]]


def cross_entropy(s: Any, y: Any) -> Any:
    return np.log(np.sum(np.exp(s))) - s[y]


def forgot_its_log(s: Any, y: Any) -> Any:
    return np.sum(np.exp(s)) - s[y]


def exact_kernels(outputs: tuple[str, ...], arrays: list[np.ndarray], hypers: Any) -> Arrays:
    """Cross-entropy for float32 as it should be: computed in float64 and without cancellation."""
    with np.errstate(all="ignore"):
        return _exact_kernels(outputs, arrays)


def _exact_kernels(outputs: tuple[str, ...], arrays: list[np.ndarray]) -> Arrays:
    s, y = arrays[0].astype(np.float64), arrays[1]
    v = arrays[2].astype(np.float64) if len(arrays) > 2 else np.zeros(s.shape)
    rows, own = np.arange(len(s)), np.eye(s.shape[1], dtype=bool)[y]
    m = s.max(axis=1, keepdims=True)
    with_inf = np.isposinf(m) & (np.isposinf(s).sum(axis=1, keepdims=True) == 1)
    e = np.where(with_inf, np.isposinf(s), np.exp(s - m))
    total = e.sum(axis=1, keepdims=True)
    p = e / total
    others = [np.delete(e, k, axis=1).sum(axis=1, keepdims=True) / total for k in range(s.shape[1])]
    q = np.concatenate(others, axis=1)  # 1 − p
    at_top = (s == m).argmax(axis=1)
    rest = np.array([np.delete(e[i], at_top[i]).sum() for i in rows])
    value = np.where(s[rows, y] == m[:, 0], 0, m[:, 0] - s[rows, y]) + np.log1p(rest)
    bad = np.isnan(m[:, 0]) | (np.isinf(m[:, 0]) & ~with_inf[:, 0])
    cross = [np.delete(p * v, k, axis=1).sum(axis=1) for k in range(s.shape[1])]
    products = p * (v * q - np.stack(cross, axis=1))
    found = {"value": value, "grad": np.where(own, -q, p), "hessian_diag": p * q, "hvp": products}
    for array in found.values():
        array[bad] = np.nan
    return {o: (found[o].astype(arrays[0].dtype),) for o in outputs}


def subject(
    function: Callable[..., Any] = cross_entropy,
    kernels: Callable[..., Arrays] = exact_kernels,
    gradient: Callable[[Expr], Expr] = lambda g: g,
) -> Subject:
    formula = replace(trace(function), function=function)
    return Subject(
        formula,
        {},
        {"test": kernels},
        lambda name: gradient(compiler.gradient(formula, name).result),
        lambda name: compiler.hessian_diagonal(formula, name),
    )


def finite_rows(s: np.ndarray) -> np.ndarray:
    return np.isfinite(s).all(axis=1, keepdims=True)


def planted(output: str, wrong: Callable[..., np.ndarray]) -> Callable[..., Arrays]:
    """Return kernels of which one output is spoilt: wrong(right, s, y)."""

    def kernels(outputs: tuple[str, ...], arrays: list[np.ndarray], hypers: Any) -> Arrays:
        found = dict(exact_kernels(outputs, arrays, hypers))
        if output in found:
            with np.errstate(all="ignore"):
                found[output] = (wrong(found[output][0], *arrays[:2]).astype(arrays[0].dtype),)
        return found

    return kernels


def check(of: Subject, **options: Any) -> CheckReport:
    return check_subject(of, **{"dtypes": ("float32",), "samples": "quick", **options})


# ------------------------------------------------------------------ what is right passes


def test_a_right_loss_passes() -> None:
    seen: list[tuple[int, int]] = []
    report = check(subject(), samples="standard", progress=lambda d, t, _: seen.append((d, t)))
    assert report.ok, str(report)
    assert seen[-1][0] == seen[-1][1] == len(seen)
    outputs = {r.output for r in report.rows}
    assert outputs >= {"value", "grad", "hessian_diag", "hvp", "grad by rules"}
    assert "formula as the function" in outputs
    for row in report.rows:
        if row.output in ("value", "grad", "hessian_diag"):
            assert row.ulp is not None
            assert row.ulp < 1
            assert row.cases > 100
    assert "every promise kept" in str(report)


def test_a_second_definition_that_agrees() -> None:
    def same(s: Any, y: Any) -> Any:
        return np.log(np.sum(np.exp(s - s[y])))

    assert check(subject(), against=same).ok
    assert check(subject(), against="-log(softmax(s)[y])").ok


def own_gradient(s: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = np.exp(s - s.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(s)), y] -= 1
    return p


def test_a_gradient_written_by_hand() -> None:
    report = check(subject(), gradient=own_gradient)
    assert report.ok, str(report)
    (row,) = [r for r in report.rows if r.backend == "yours"]
    assert row.promise is None
    assert row.digits == 0  # a lead of 60: the naive formula has none right
    assert "lead" in row.worst


# ------------------------------------------------------------------ what is planted is caught


@pytest.mark.parametrize(
    ("output", "wrong", "said"),
    [
        ("grad", lambda g, s, y: -g, "The sign is wrong"),
        ("grad", lambda g, s, y: 2 * g, "A factor of 2 is too much"),
        ("grad", lambda g, s, y: g / len(g), "A factor of 0.0"),
        ("grad", lambda g, s, y: g * 0, "They are zero"),
        ("grad", lambda g, s, y: g + 1e-5, "grad, float32"),
        ("grad", lambda g, s, y: np.where(finite_rows(s), own_gradient(s, y), g), "lead"),
        ("grad", lambda g, s, y: np.where(np.isnan(g), 0, g), "got 0.0, exact nan"),
        ("value", lambda v, s, y: v * (1 + 1e-5), "value, float32"),
        ("value", lambda v, s, y: np.abs(v) + 1e-30, "value, float32"),
        ("hessian_diag", lambda h, s, y: h * 0.5, "A factor of 0.5"),
        ("hvp", lambda h, s, y: h * 3, "hvp, float32"),
    ],
)
def test_planted_kernels_are_caught(output: str, wrong: Any, said: str) -> None:
    report = check(subject(kernels=planted(output, wrong)))
    assert not report.ok
    assert all(output in p.split(",")[0] for p in report.problems), report.problems
    assert any(said in p for p in report.problems), report.problems
    assert "FAILED" in str(report)


def test_a_gradient_wrong_in_one_class_of_one_row_is_caught() -> None:
    def wrong(g: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
        g = g.copy()
        g[3, 1] *= 1 + 1e-5
        return g

    report = check(subject(kernels=planted("grad", wrong)))
    assert [p.split(",")[0] for p in report.problems] == ["grad"]
    assert "1 of" in report.problems[0]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda g: build.neg(g),
        lambda g: build.add(g, build.const(1)),
        lambda g: build.mul(build.const(2), g),
    ],
)
def test_planted_rules_are_caught(wrong: Callable[[Expr], Expr]) -> None:
    report = check(subject(gradient=wrong))
    assert not report.ok
    assert all("grad by rules" in p for p in report.problems)


def test_a_loss_that_forgot_its_log_is_caught_by_a_second_definition() -> None:
    report = check(subject(), against=forgot_its_log)
    assert not report.ok
    assert "value as the other definition" in report.problems[0]


def test_a_formula_that_is_not_the_function_is_caught() -> None:
    right = subject()
    other = replace(right.formula, function=forgot_its_log)
    report = check(replace(right, formula=other))
    assert any("formula as the function" in p for p in report.problems)
    assert any("value, float32" in p for p in report.problems)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (lambda s, y: -own_gradient(s, y), "The sign is wrong"),
        (lambda s, y: own_gradient(s, y) / len(s), "A factor of 0.0"),
        (lambda s, y: own_gradient(s, y)[:, 0], "your gradient has shape"),
        (lambda s, y: own_gradient(s, y) + np.eye(s.shape[1])[y], "digits agree"),
    ],
)
def test_wrong_gradients_written_by_hand_are_caught(own: Any, said: str) -> None:
    report = check(subject(), gradient=own)
    assert any(said in p for p in report.problems), report.problems


def test_kernels_that_refuse_their_input_are_a_problem() -> None:
    def refuse(*_: Any) -> Arrays:
        raise ValueError("no such rows")

    report = check(subject(kernels=refuse))
    assert not report.ok
    assert "raised ValueError: no such rows" in report.problems[0]


# ------------------------------------------------------------------ the promise


def formula_of(function: Callable[..., Any]) -> Formula:
    return trace(function)


def gradient_limit(function: Callable[..., Any], sample: Sample, j: int) -> float:
    formula = formula_of(function)
    expr = Derivative(formula.expr, "s", J)
    return promise(formula, sample.at(j=j), expr, np.float32)


def test_promise_grows_with_the_gap_only() -> None:
    small = gradient_limit(cross_entropy, Sample({"s": [0.0, 0.5]}, 0), 1)
    assert base_limit(2) < small < base_limit(2) + 2
    far = gradient_limit(cross_entropy, Sample({"s": [0.0, -50.0]}, 0), 1)
    assert 60 < far < 220
    # Large scores that are equal are no excuse: only distances count.
    equal = gradient_limit(cross_entropy, Sample({"s": [1e8, 1e8]}, 0), 1)
    assert equal == base_limit(2)


def test_promise_allows_for_cancellation_between_inputs() -> None:
    def soft(s: Any, t: Any) -> Any:
        return np.log(np.sum(np.exp(s))) - np.sum(t * s)

    near = float(np.float32(0.5) - np.float32(1e-6))
    sample = Sample({"s": [0.0, 0.0], "t": [near, 1 - near]})
    assert 1e6 < gradient_limit(soft, sample, 0) < 1e8
    plain = Sample({"s": [0.0, 0.0], "t": [1.0, 0.0]})
    assert gradient_limit(soft, plain, 0) < 100


def test_promise_allows_for_the_other_side_of_a_kink() -> None:
    def hinge(s: Any, y: Any) -> Any:
        return np.sum(np.maximum(0, s - s[y] + 1)) - 1

    close = float(np.nextafter(np.float32(0.1), np.float32(1)))
    sample = Sample({"s": [1.1, close]}, 0)
    assert gradient_limit(hinge, sample, 1) > 1e6
    assert gradient_limit(hinge, Sample({"s": [1.5, 0.1]}, 0), 1) == base_limit(2)


def test_reference_is_the_limit_at_infinite_scores() -> None:
    formula = trace(cross_entropy)
    infinite = [b for b in batches(formula) if not b.finite.all()]
    assert infinite
    for batch in infinite:
        for i in np.flatnonzero(~batch.finite):
            value = evaluate_adaptive(formula.expr, batch.sample(int(i), {}), limits=True)
            note = batch.notes[i]
            if note == "−∞ beside the label":
                assert 0 <= value < 100
            elif note in ("−∞ at the label", "+∞ beside the label"):
                assert value > 1e308
            elif note == "+∞ at the label":
                assert value == 0
            else:
                assert value != value


# ------------------------------------------------------------------ the table


def row(**changes: Any) -> CheckRow:
    plain = CheckRow("grad", "float32", "numba", 1.25, 10.0, 7.1, "lead 5: s = [5, 0] <b>", 42)
    return replace(plain, **changes)


def test_report_reads_well() -> None:
    report = CheckReport("focal", True, (row(), row(dtype="exact", ulp=None, promise=None)), ())
    lines = str(report).splitlines()
    assert lines[0] == "check of focal"
    assert lines[2].split() == [
        "output", "dtype", "error", "promised", "digits", "numbers", "worst", "input",
    ]  # fmt: skip
    assert "1.25 ulp" in lines[4]
    assert "ok: 84 numbers compared, every promise kept" in lines[-1]
    broken = CheckReport("focal", False, (row(ok=False, ulp=float("inf")),), ("grad: wrong.",))
    assert "✗" in str(broken)
    assert "∞ ulp" in str(broken)
    assert "• grad: wrong." in str(broken)
    assert "FAILED: 1" in str(broken)


def test_report_as_html_is_escaped() -> None:
    report = CheckReport("a < b", False, (row(ok=False),), ("x & y",))
    page = report._repr_html_()
    assert "<b>" not in page
    assert "a &lt; b" in page
    assert "x &amp; y" in page
    assert 'class="broken"' in page


def test_tally_keeps_the_worst_beside_its_promise() -> None:
    tally = Tally("grad", "float32")
    tally.measure(np.float32(1), 1, 10, lambda: 10, lambda: "exact")
    tally.measure(np.float32(1 + 2**-21), 1, 10, lambda: 10, lambda: "four off")
    tally.measure(np.float32(1 + 2**-18), 1, 10, lambda: 1000, lambda: "32 off of 1000")
    assert tally.ok
    found = tally.row()
    assert (found.worst, found.ulp, found.promise, found.cases) == ("four off", 4, 10, 3)
    tally.measure(np.float32(1 + 2**-18), 1, 10, lambda: 20, lambda: "32 off of 20")
    assert not tally.ok
    assert "32 ulp where 20 are promised" in tally.problem()


def test_a_class_by_its_number_is_there() -> None:
    report = check_loss(lm.loss("(s[4] - s[1])**2"), dtypes=("float32",))
    assert report.ok, str(report)
    assert not any("K = 1:" in r.worst for r in report.rows)


def test_samples_are_one_of_three() -> None:
    with pytest.raises(ValueError, match="expected 'quick', 'standard', 'thorough' or batches"):
        check(subject(), samples="all")


def test_unsupported_kernels_are_a_note_and_no_broken_promise() -> None:
    def refuse(outputs: tuple[str, ...], *rest: Any) -> Arrays:
        if "hvp" in outputs or everything:
            raise UnsupportedError("kernels have no such thing")
        return exact_kernels(outputs, *rest)

    everything = False
    report = check(subject(kernels=refuse))
    assert report.ok
    assert report.notes == ("hvp could not be checked: kernels have no such thing",)
    assert "(hvp could not be checked: kernels have no such thing)" in str(report)
    everything = True
    report = check(subject(kernels=refuse))
    assert not report.ok
    assert "no kernel could be run" in str(report)


def test_compiling_has_an_end() -> None:
    loss = lm.loss("sum((s - t)**4)")
    kernels = subject_of(loss, patience=-1.0).kernels["numpy"]
    rows = np.zeros((2, 3))
    assert kernels(("value",), [rows, rows], {})  # the NumPy kernels need none
    late = _kernels(loss, "numpy", -1.0, {})
    with pytest.raises(NotCompiled):
        late(("value",), [rows, rows], {})
    report = check(replace(subject_of(loss), kernels={"numba": late}))
    (note,) = report.notes
    assert note.startswith("not checked, because compiling takes long: the Numba kernels of value and grad in float32;")


def test_a_margin_allows_for_ties_by_rounding() -> None:
    """1 + 1e-44 is 1: which class is the largest is not to be had in floats."""
    report = check_loss(lm.loss("max(s - s[y] + (1 - onehot(y)))"), dtypes=("float32",))
    assert not any("subnormal" in p for p in report.problems), report.problems


def test_a_row_of_minus_infinity_alone_may_be_nan_where_targets_leave_a_limit() -> None:
    loss = lm.loss("sum(t[:, None] * (1 - t) * maximum(0, 1 - s[:, None] + s))", t=lm.UnitTargets)
    report = check_loss(loss)
    assert not any("all −∞" in p for p in report.problems), report.problems
