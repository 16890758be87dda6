"""Digits by kind of input: ours beside the textbook formulas and PyTorch."""

import importlib.util
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from formulas import EXTRA
from lossmith.check import subject as subjects
from lossmith.check.floats import Floats, Naive
from lossmith.check.ledger import EVERYWHERE, OURS, PYTORCH, TEXTBOOK, Ledger
from lossmith.check.measure import check_loss, check_subject
from lossmith.check.report import CheckReport
from lossmith.check.samples import REGIONS, batches
from lossmith.check.sweep import Sweep
from lossmith.losses import CATALOGUE

WITH_TORCH = importlib.util.find_spec("torch") is not None


def loss_of(name: str) -> lm.Loss:
    return lm.loss(EXTRA[name][0], **EXTRA[name][1]) if name in EXTRA else CATALOGUE[name]


@pytest.fixture(scope="module")
def report() -> CheckReport:
    patch = pytest.MonkeyPatch()
    patch.setenv("LOSSMITH_BACKEND", "numpy")
    patch.setattr(subjects, "has_torch", lambda: False)
    try:
        return check_loss(lm.losses.cross_entropy, dtypes=("float32",))
    finally:
        patch.undo()


def worst(report: CheckReport, side: str, output: str, region: str) -> float:
    (found,) = [
        d.worst for d in report.digits if (d.side, d.output, d.region, d.dtype) == (side, output, region, "float32")
    ]
    return found


@pytest.mark.parametrize("output", ["value", "grad", "hessian_diag", "hvp"])
def test_ours_keep_their_digits_where_the_textbook_loses_them(report: CheckReport, output: str) -> None:
    for region in ("lead 15", "lead 20", "lead 30", "lead 60", "around 1e8"):
        assert worst(report, OURS, output, region) > 5
        assert worst(report, TEXTBOOK, output, region) < 2
    assert worst(report, TEXTBOOK, output, "ordinary") > 5


def test_all_inputs_together(report: CheckReport) -> None:
    for side in (OURS, TEXTBOOK):
        mine = [d for d in report.digits if d.side == side and d.output == "grad"]
        (total,) = [d for d in mine if d.region == EVERYWHERE]
        parts = [d for d in mine if d.region != EVERYWHERE]
        assert total.worst == min(d.worst for d in parts)
        assert total.numbers == sum(d.numbers for d in parts)
        assert {d.region for d in parts} <= set(REGIONS)


def test_the_table_fits_80_columns(report: CheckReport) -> None:
    lines = str(report).split("\n")
    table = lines[: next(k for k, line in enumerate(lines) if line.startswith("typical")) + 1]
    assert max(map(len, table)) <= 80
    assert any(line.split() == ["float32", *["ours", "naive"] * 4] for line in table)
    assert "(PyTorch is not installed)" in lines
    assert "Hessian diagonal" in report._repr_html_()


def test_a_number_that_hangs_on_its_inputs_is_left_out() -> None:
    loss = lm.loss("s[0] - s[1]")
    report = check_loss(loss, dtypes=("float32",), samples="quick")
    assert report.ok
    assert report.unsteady == 0  # a difference of two numbers that are given exactly is exact
    soft = check_loss(lm.loss("(softmax(s)[0] - t[0])**2"), dtypes=("float32",), samples="quick")
    assert soft.unsteady > 0


def test_ledger_counts() -> None:
    ledger = Ledger()
    for digits in (7.0, 1.0, 5.0):
        ledger.add(OURS, "grad", "float32", "ties", digits)
    ledger.add(OURS, "grad", "float32", "ordinary", 6.0)
    first, second, everything = ledger.digits()
    assert (first.region, second.region, everything.region) == ("ordinary", "ties", EVERYWHERE)
    assert (second.worst, second.typical, second.numbers) == (1.0, 5.0, 3)
    assert (everything.worst, everything.typical) == (1.0, 5.5)


# ------------------------------------------------------------------ the other sides


def ordinary_batch(loss: lm.Loss) -> Any:
    subject = subjects.subject_of(loss)
    (batch, *_) = batches(loss.definition, np.float64, sizes=(subject.fixed_size or 3,), large=False)
    rows = np.flatnonzero(batch.ordinary)
    inputs = {n: a[rows] for n, a in batch.inputs.items()}
    inputs["v"] = np.linspace(-1, 2, next(iter(inputs.values())).size).reshape(next(iter(inputs.values())).shape)
    label = None if batch.label is None else batch.label[rows]
    return inputs, label, subject.hypers_for(batch.K), batch.K


def assert_right(loss: lm.Loss, run: Any) -> None:
    """Compare with our kernels, on ordinary rows: relative to the largest, as textbook code cancels a little."""
    inputs, label, hypers, K = ordinary_batch(loss)
    found = run("float64", inputs, label, hypers, K)
    *given, v = inputs.values()
    names = [i.name for i in loss.definition.inputs]
    args = [label if i.role.kind == "label" else inputs[i.name] for i in loss.definition.inputs]
    assert len(names) == len(args)
    assert given
    with np.errstate(all="ignore"):
        value, grad = loss.value_and_grad(*args, reduction="none")
        expected = {"value": value, "grad": grad, "hessian_diag": loss.hessian_diag(*args, reduction="none")}
        expected["hvp"] = loss.hvp(*args, v, reduction="none")
    for output, arrays in expected.items():
        for a, b in zip(found[output], arrays if isinstance(arrays, tuple) else (arrays,), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * max(1.0, np.abs(b).max()), err_msg=output)


ONE_INPUT = [n for n in (*CATALOGUE, *EXTRA) if n != "two_inputs"]


@pytest.mark.parametrize("name", ONE_INPUT)
def test_the_textbook_formulas_are_right_on_ordinary_rows(name: str) -> None:
    loss = loss_of(name)
    assert_right(loss, Naive(loss.definition).run)


@pytest.mark.skipif(not WITH_TORCH, reason="PyTorch is not installed")
@pytest.mark.parametrize("name", ONE_INPUT)
def test_pytorch_is_right_on_ordinary_rows(name: str) -> None:
    from lossmith.check.pytorch import Autograd

    loss = loss_of(name)
    assert_right(loss, Autograd(loss.definition).run)


@pytest.mark.skipif(not WITH_TORCH, reason="PyTorch is not installed")
def test_pytorch_has_its_column() -> None:
    report = check_loss(lm.losses.cross_entropy, dtypes=("float32",), samples="quick")
    assert {d.side for d in report.digits} == {OURS, TEXTBOOK, PYTORCH}
    assert worst(report, PYTORCH, "grad", "lead 20") < 1
    assert "torch" in str(report)
    assert "not installed" not in str(report)


def test_a_side_that_cannot_run_is_a_note() -> None:
    subject = subjects.subject_of(lm.losses.huber)

    def fails(*_: Any) -> Any:
        raise RuntimeError("no such kernel")

    report = check_subject(replace(subject, sides={PYTORCH: fails}), dtypes=("float32",), samples="quick")
    assert report.ok
    assert report.notes == ("PyTorch could not run the definition: no such kernel",)


def test_careful_floats_are_right_to_rounding() -> None:
    formula = lm.loss("logsumexp(s)").definition
    row = np.array([[100.0, -3.0, 99.5]], "f4")
    found = Sweep(Floats("f4", careful=True), {"s": row}, None, {}, 1, 3).value(formula.expr)
    assert found[0] == np.float32(np.logaddexp(100.0, 99.5))
    with np.errstate(over="ignore"):
        assert np.isinf(Sweep(Floats("f4"), {"s": row}, None, {}, 1, 3).value(formula.expr)[0])
