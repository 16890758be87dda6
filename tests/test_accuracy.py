"""The measurement of accuracy finds what is wrong, its oracle is right, and it says what it found."""

from __future__ import annotations

import dataclasses
import math
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import mpmath
import numpy as np
import pytest

from lossmith.check.ulp import ulp_error
from lossmith.losses import CATALOGUE

pytest.importorskip("flint", reason="python-flint is in the extra `test`")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def part(name: str) -> ModuleType:
    return import_module(f"accuracy.{name}")


def job(loss: str, dtype: str = "float32", K: int = 3, rows: int = 30, **changed: Any) -> Any:
    K = 1 if CATALOGUE[loss].kind == "elementwise" else K
    return part("chunk").Job(loss, 0, dtype, K, rows, **{"backends": ("numpy",), "product": True, **changed})


def chunk_of(wanted: Any, loss: Any = None) -> Any:
    definition = CATALOGUE[wanted.loss].definition
    rows = part("draw").draw(definition, wanted.rng, wanted.rows, wanted.K, wanted.dtype, soft=wanted.soft)
    return part("chunk").Chunk(loss or CATALOGUE[wanted.loss], wanted, rows)


# ------------------------------------------------------------------ the oracle


@pytest.mark.parametrize("name", CATALOGUE)
def test_oracle_agrees_with_mpmath(name: str) -> None:
    chunk = chunk_of(job(name, rows=6))
    assert sum(part("confirm").confirm(chunk, row) for row in range(6)) >= 2


def test_oracle_that_errs_in_the_tenth_digit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from flint import arb

    module, settled = part("confirm"), part("confirm").settled
    monkeypatch.setattr(module, "settled", lambda *given: [x * (1 + arb(10) ** -10) for x in settled(*given)])
    chunk = chunk_of(job("cross_entropy"))
    rows = [r for r in range(30) if chunk.rows.kinds[r] == "ordinary"]
    with pytest.raises(module.OracleError, match="the oracles disagree"):
        module.confirm(chunk, rows[0])


def test_oracle_needs_no_stable_form() -> None:
    # log Σ exp(s) − s_y as it stands loses 87 digits here.
    made = part("oracle")
    formula = CATALOGUE["cross_entropy"].definition
    case = made.Case("cross_entropy", formula, 2, 0, False, (0, 1), False)
    numbers = made.numbers_of({"s": [200.0, 0.0], "label_smoothing": 0.0, "class_weight": 1.0})
    value, first, *_ = part("program").settled(made.program_of(case), numbers, 64)
    with mpmath.workdps(40):
        expected = mpmath.log1p(mpmath.exp(-200)), -1 / (1 + mpmath.exp(200))
    for got, wanted in zip((value, first), expected, strict=True):
        assert abs(part("confirm").as_mpf(got) / wanted - 1) < 1e-20


# ------------------------------------------------------------------ errors in ulp


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_errors_are_those_of_lossmith_check(dtype: Any) -> None:
    judge, made = part("judge"), part("oracle")
    info, rng, number = np.finfo(dtype), np.random.default_rng(3), mpmath.mpf
    least, most, little = float(info.smallest_subnormal), float(info.max), number(2) ** -60
    exact = [number(float(x)) * (1 + little) for x in rng.normal(size=20) * 10.0 ** rng.uniform(-30, 30, 20)]
    exact += [number(f) * (1 - little) for f in (1.0, -2.0, float(info.tiny), most)]
    exact += [*(number(least) * f for f in (0.3, 0.5, 7.25)), number(most) * 2, number(10) ** 320, number(0)]
    exact += [mpmath.inf, -mpmath.inf, mpmath.nan]
    with np.errstate(all="ignore"):
        rounded = np.array([float(x) for x in exact]).astype(dtype)
        for got in (rounded, np.nextafter(rounded, dtype(0)), rounded * dtype(1.5), np.full(len(exact), np.nan, dtype)):
            found = judge.ulp_errors(got[:, None], judge.stacked([[_parts(made, x)] for x in exact], [0]))[:, 0]
            np.testing.assert_allclose(found, ulp_error(got, exact), rtol=1e-9, atol=0)


def _parts(made: ModuleType, x: Any) -> Any:
    from flint import arb, ctx

    ctx.prec = 400
    return made.parts(made.exact_ball(x) if mpmath.isfinite(x) else arb(str(x).replace("+", "")))


# ------------------------------------------------------------------ planted mistakes


class Planted:
    """A loss of which one method is somebody's own."""

    def __init__(self, name: str, **own: Any) -> None:
        self._loss, self._own = CATALOGUE[name], own

    def __getattr__(self, name: str) -> Any:
        return self._own[name] if name in self._own else getattr(self._loss, name)


def naive_cross_entropy(s: np.ndarray, y: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    shifted = s - s.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    onehot = np.eye(s.shape[1], dtype=s.dtype)[y]
    value = np.log(powers.sum(axis=1)) - (shifted * onehot).sum(axis=1)
    return value, powers / powers.sum(axis=1, keepdims=True) - onehot


def broken_outputs(found: Any) -> set[str]:
    return {key[3] for key, worst in found.worst.items() if worst.broken}


@pytest.mark.filterwarnings("ignore:invalid value")
def test_naive_kernel_breaks_its_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part("draw"), "_HYPERS", {"label_smoothing": lambda *_: 0.0, "class_weight": lambda *_: 1.0})
    loss = Planted("cross_entropy", value_and_grad=naive_cross_entropy)
    found = chunk_of(job("cross_entropy"), loss).measured()
    assert broken_outputs(found) >= {"value", "grad"}
    assert any("float32 fast numpy value" in text and "lead" in text for text in found.broken)


@pytest.mark.parametrize("output", ["hessian_diag", "hvp"])
def test_one_wrong_component_breaks_the_promise(output: str) -> None:
    own = getattr(CATALOGUE["softmax_kl"], output)

    def wrong(*args: Any, **options: Any) -> np.ndarray:
        found = own(*args, **options).copy()
        found[..., -1] *= 1 + 1e-3
        return found

    assert output in broken_outputs(chunk_of(job("softmax_kl"), Planted("softmax_kl", **{output: wrong})).measured())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("soft", [False, True])
def test_honest_kernel_keeps_it(dtype: str, soft: bool) -> None:
    found = chunk_of(job("cross_entropy", dtype, K=4, rows=60, soft=soft, product=not soft)).measured()
    assert found.broken == []
    assert all(worst.numbers and not worst.undecided for worst in found.worst.values())


# ------------------------------------------------------------------ rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_what_the_requirement_names(dtype: Any) -> None:
    draw = part("draw")
    rows = draw.draw(CATALOGUE["cross_entropy"].definition, np.random.default_rng(0), 3000, 4, dtype)
    s = rows.inputs["s"]
    assert s.dtype == dtype
    size = np.abs(s[np.isfinite(s) & (s != 0)]).astype(float)
    assert size.min() < float(np.finfo(dtype).tiny)
    assert size.max() > 1e29
    assert np.mean((size > 1e-30) & (size < 1e-20)) > 0.01
    assert np.isneginf(s).any()
    assert not np.isnan(s).any()
    assert not np.isposinf(s).any()
    lead = np.array(rows.kinds) == "lead"
    top = np.sort(s[lead].astype(float), axis=1)
    gaps = top[:, -1] - top[:, -2]
    assert gaps.min() >= 0
    assert np.histogram(gaps, 10, (0, 210))[0].min() > 0
    assert np.mean(s[lead].argmax(axis=1) == rows.label[lead]) == pytest.approx(0.625, abs=0.05)
    ties = s[np.array(rows.kinds) == "ties"]
    assert np.mean((ties == ties.max(axis=1, keepdims=True)).sum(axis=1) > 1) > 0.2


def test_same_seed_same_rows() -> None:
    a, b, other = (chunk_of(job("softmax_kl", seed=seed)).rows.inputs["s"] for seed in (4, 4, 5))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, other)


# ------------------------------------------------------------------ the command


def run(tmp_path: Path, *arguments: str) -> int:
    given = ["--rows", "64", "--processes", "0", "--backends", "numpy", "--keep", str(tmp_path / "kept.jsonl")]
    return part("__main__").main([*given, *arguments])


def test_smoke_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "--only", "cross_entropy", "--only", "squared_error") == 0
    said = capsys.readouterr()
    assert "64 rows for each of 2 losses, seed 0" in said.err
    assert "| cross_entropy | 64 |" in said.out
    # What was measured is taken from the file the second time.
    monkeypatch.setattr(part("campaign"), "measure_named", None)
    assert run(tmp_path, "--only", "cross_entropy", "--only", "squared_error") == 0
    assert capsys.readouterr().out == said.out


def test_broken_promise_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = CATALOGUE["squared_error"]
    wrong = Planted("squared_error", hessian_diag=lambda *a, **o: own.hessian_diag(*a, **o) * 1.01)
    monkeypatch.setitem(CATALOGUE, "squared_error", wrong)
    assert run(tmp_path, "--only", "squared_error") == 1
    assert "squared_error, float32 exact numpy hessian_diag: " in capsys.readouterr().err


def test_page_says_what_was_measured() -> None:
    campaign, judge = part("campaign"), part("judge")
    totals, place = campaign.Totals(), judge.Place
    wanted = dataclasses.replace(job("cross_entropy"), rows=7)
    key = "float32", "fast", "numba", "grad"
    worst = {key: judge.Worst(21, place(5.25, 10, "lead: here"), place(0.75, 12, "lead: |there|"), 2, 0, 0)}
    totals.add(wanted, part("chunk").Found(7, worst, []))
    text = part("page").page(totals, "python -m accuracy", 0)
    assert "| grad | fast | float32 | 21 | 2 | 5.25 | 75% | lead: \\|there\\| |" in text
    assert "over 7 random rows.\nNo promise was broken." in text
    assert "## Broken promises\n\nNone." in text
    worst = {key: dataclasses.replace(worst[key], broken=1, share=place(math.inf, 12, "lead"))}
    totals.add(wanted, part("chunk").Found(7, worst, ["float32 fast numba grad: inf ulp, at |x|"]))
    text = part("page").page(totals, "python -m accuracy", 0)
    assert "- cross_entropy, float32, fast, numba, grad: 1 of 42 numbers" in text
    assert str(ROOT) not in text


@pytest.mark.parametrize("arguments", [["--only", "no_such_loss"], ["--rows", "0"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        part("__main__").main(arguments)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOGUE)
def test_no_promise_is_broken(name: str, tmp_path: Path) -> None:
    totals = part("campaign").run([name], 4000, 1, processes=0, progress=lambda *_: None)
    assert totals.broken == []
    assert sum(worst.undecided for worst in totals.worst.values()) == 0
