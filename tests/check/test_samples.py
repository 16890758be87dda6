"""The inputs: inside their domains, the same for the same seed, and hostile where they say so."""

from typing import Any

import numpy as np
import pytest

from lossmith.check.samples import Batch, batches
from lossmith.language.expr import ZERO
from lossmith.language.formula import Domain, Formula, Input, Role

LABEL, TARGETS = Input("y", Role("label")), Input("t", Role("targets"))
DOMAINS: list[Domain] = ["real", "unit", "simplex", "sign", "nonnegative", "positive"]


def formula(*inputs: Input, kind: Any = "row") -> Formula:
    return Formula("f", kind, ZERO, inputs)


def scores(domain: Domain = "real") -> Input:
    return Input("s", Role("scores", domain))


def everything(f: Formula, dtype: Any = np.float32) -> list[Batch]:
    found = batches(f, dtype)
    assert all(len(b.notes) == len(a) for b in found for a in b.inputs.values())
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["row", "elementwise"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_domains_are_respected(domain: Domain, kind: Any, dtype: Any) -> None:
    if domain == "simplex" and kind == "elementwise":
        pytest.skip("one number alone is no distribution")
    targets = Input("t", Role("targets", domain))
    for batch in everything(formula(scores(domain), targets, kind=kind), dtype):
        for name in ("s", "t"):
            a = batch.inputs[name]
            assert a.dtype == dtype
            assert a.ndim == (1 if kind == "elementwise" else 2)
            if domain == "real":
                continue
            assert np.isfinite(a).all()
            assert domain == "sign" or (a >= 0).all()
            if domain == "unit":
                assert (a <= 1).all()
            if domain == "sign":
                assert set(np.unique(a)) <= {-1, 1}
            if domain == "positive":
                assert (a > 0).all()
            if domain == "simplex":
                total = a.astype(np.float64).sum(axis=1)
                np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_the_same_seed_gives_the_same_rows() -> None:
    f = formula(scores(), LABEL)
    for a, b, c in zip(batches(f), batches(f), batches(f, seed=1), strict=True):
        assert a.inputs["s"].tobytes() == b.inputs["s"].tobytes()
        assert a.notes == b.notes
        assert a.inputs["s"].tobytes() != c.inputs["s"].tobytes()


def test_labels_are_everywhere() -> None:
    for batch in everything(formula(scores(), LABEL)):
        assert batch.label is not None
        assert ((batch.label >= 0) & (batch.label < batch.K)).all()
        if len(batch) > 10:
            at_top = batch.label == np.argmax(batch.inputs["s"], axis=1)
            assert 5 < at_top.sum() < len(batch) - 5


def test_notes_tell_the_truth() -> None:
    for batch in everything(formula(scores(), LABEL)):
        assert batch.label is not None
        for i, note in enumerate(batch.notes):
            row, own = batch.inputs["s"][i], batch.inputs["s"][i, batch.label[i]]
            if note.startswith("lead ") and "uneven" not in note and batch.K > 1:
                lead = float(note.split()[1])
                assert own - np.delete(row, batch.label[i]).max() == lead
            if note == "−∞ at the label":
                assert own == -np.inf
            if note == "subnormal":
                assert (np.abs(row) > 0).all()
                assert (np.abs(row) < np.finfo(np.float32).tiny).all()
            if note == "tie of two":
                assert (row == row.max()).sum() == 2
        assert (batch.finite == np.isfinite(batch.inputs["s"]).all(axis=1)).all()
        assert not (batch.ordinary & ~batch.finite).any()


def test_hostile_rows_are_there() -> None:
    f = formula(scores(), LABEL)
    notes = {n for b in batches(f) for n in b.notes}
    for wanted in ("lead 200", "behind by 60", "subnormal", "largest", "all −∞", "NaN"):
        assert wanted in notes
    assert {b.K for b in batches(f)} >= {1, 2, 1000}
    assert "lead 745" in {n for b in batches(f, np.float64) for n in b.notes}
    with_targets = [b for b in batches(formula(scores(), TARGETS)) if b.K == 3]
    assert any((b.inputs["t"] == 0).any() and (b.inputs["t"] == 1).any() for b in with_targets)
    single = batches(formula(scores(), TARGETS, kind="elementwise"))[0]
    assert (single.inputs["s"] == single.inputs["t"]).any()
    assert (single.inputs["s"] - single.inputs["t"] == 1).any()


def test_descriptions_are_short() -> None:
    for batch in everything(formula(scores(), LABEL)):
        assert all(len(batch.describe(i)) < 140 for i in range(len(batch)))


def test_several_differentiable_inputs() -> None:
    second = Input("q", Role("scores", "positive"))
    for batch in everything(formula(scores(), second, LABEL)):
        assert batch.inputs["q"].shape == batch.inputs["s"].shape
        assert (batch.inputs["q"] > 0).all()
        sample = batch.sample(0, {"a": 1})
        assert sample.K == batch.K
        assert set(sample.rows) == {"s", "q"}
