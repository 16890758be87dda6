"""The command line: what every command prints, and the one sentence that every bad input gets."""

import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

import lossmith as lm
from lossmith.check.report import CheckReport, CheckRow
from lossmith.cli import arguments, cli, measuring, reading, terminal
from lossmith.losses import CATALOGUE

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ["list", "derive", "check", "code", "plot", "fit", "compare", "study"]
Golden = Callable[[str, str], None]


def run(*args: str | Path, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args], input=stdin, prog_name="lossmith")


def printed(*args: str | Path, stdin: str | None = None) -> str:
    """Return what a command prints that ends well."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*args: str | Path, stdin: str | None = None, code: int = 2) -> str:
    """Return the sentence that a command ends with, without the program's name."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    sentence = result.stderr.splitlines()[0]
    assert sentence.startswith("lossmith: ")
    return result.stderr.removeprefix("lossmith: ").rstrip("\n")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------ the program


def test_help_lists_commands_in_order() -> None:
    text = printed("--help")
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert printed("-h") == text
    assert printed() == text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str) -> None:
    text = printed(name, "--help")
    assert f"lossmith {name}" in text[text.index("Example") :]
    assert printed(name, "-h") == text


def test_version() -> None:
    assert printed("--version") == f"lossmith {lm.__version__}\n"


def test_a_fault_of_ours_is_told_apart_and_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(reading, "resolve", fails)
    said = refused("derive", "huber", code=70)
    assert said.startswith("ZeroDivisionError: one two (this is a fault of lossmith")
    monkeypatch.setenv("LOSSMITH_DEBUG", "1")
    assert isinstance(run("derive", "huber").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory"),
        (OSError(28, "No space left on device", "a.txt"), "no space left on device: a.txt"),
        (lm.DataError("a sentence."), "a sentence."),
    ],
)
def test_errors_of_the_machine(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(reading, "resolve", fails)
    assert said in refused("derive", "huber")


def test_interrupt_is_a_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(reading, "resolve", interrupted)
    result = run("derive", "huber")
    assert result.exit_code == 130
    assert result.stderr.strip() == "lossmith: interrupted"


# ------------------------------------------------------------------ list, derive, code


def test_list(golden: Golden) -> None:
    text = printed("list")
    assert all(f"\n  {name} " in text for name in [*CATALOGUE, *lm.functions.VECTOR_FUNCTIONS])
    golden("cli/list.txt", text)


def test_list_fits_a_narrow_terminal() -> None:
    families = {"A family": [("name", "L = s", "word " * 30), ("other", "L = t", "short")]}
    narrow = reading._table(families, 60).splitlines()
    assert max(map(len, narrow)) <= 60
    assert reading._table(families, None).splitlines()[1].count("word") == 30


def test_derive(golden: Golden) -> None:
    golden("cli/derive_cross_entropy.txt", printed("derive", "cross_entropy"))


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "softmax(s)**2"])
def test_derive_of_a_vector_function(name: str) -> None:
    text = printed("derive", name)
    assert text.startswith("f")
    assert "Jacobian" in text or "Derivative" in text


def last_of_gradient(text: str) -> str:
    section = text.split("\nGradient\n")[1].split("\n\n")[0]
    return (
        [line for line in section.splitlines() if " = " in line and line[2] != "j"][-1]
        .split("[")[0]
        .split(" = ")[1]
        .strip()
    )


@pytest.mark.parametrize("formula", ["logsumexp(s) - s[y]", "-log(softmax(s)[y])", "p = softmax(s); -log(p[y])"])
def test_two_ways_to_write_a_loss_end_in_one_gradient(formula: str) -> None:
    assert last_of_gradient(printed("derive", formula)) == "p_j − 1{j=y}"


def test_formula_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    text = "# the focal loss\np = softmax(s)\n-(1 - p[y])**gamma * log(p[y])\n"
    (tmp_path / "focal.txt").write_text(text, encoding="utf-8-sig")
    expected = printed("derive", text, "-H", "gamma=2")
    assert printed("derive", "@focal.txt", "-H", "gamma=2") == expected
    assert printed("derive", "-", "--hyper", "gamma=2", stdin=text) == expected
    assert printed("derive", "-", stdin="huber\n") == printed("derive", "huber")


def test_roles_and_hyperparameters() -> None:
    text = printed("derive", "w * (p - q)**2", "--input", "p=scores:unit", "--input", "q=targets", "-H", "w=3")
    assert "∂L/∂p" in text
    text = printed("code", "sum(w * (s - t)**2)", "-H", "w=1,2,3")
    assert "w" in text
    assert "tau" in printed("code", "softmax_kl", "-H", "tau=2")


@pytest.mark.parametrize(
    ("shape", "begin", "inside"),
    [
        ("latex", r"\begin{align*}", r"\frac{\partial"),
        ("mathml", "<div", "<math"),
        ("html", "<!DOCTYPE html>", '<meta charset="utf-8">'),
    ],
)
def test_formats(shape: str, begin: str, inside: str) -> None:
    text = printed("derive", "cross_entropy", "--format", shape)
    assert text.startswith(begin)
    assert inside in text


def test_derive_into_a_file(tmp_path: Path) -> None:
    assert printed("derive", "huber", "-o", "huber.txt") == ""
    assert (tmp_path / "huber.txt").read_text(encoding="utf-8") == printed("derive", "huber")
    assert os.listdir(tmp_path) == ["huber.txt"]


def test_reasons_go_below_in_a_narrow_terminal() -> None:
    text = str(lm.huber.derivation)
    narrow = reading.fitted(text, 70)
    assert narrow.split() == text.split()
    steps = [line for line in narrow.splitlines() if "[" in line]
    assert steps
    assert all(len(line) <= 70 for line in steps)
    assert reading.fitted(text, None) == reading.fitted(text, 500) == text


def test_code_runs_on_its_own() -> None:
    names: dict[str, Any] = {}
    exec(printed("code", "cross_entropy"), names)
    scores, labels = np.array([[2.0, 0.0, 1.0]]), np.array([0])
    value, grad = names["cross_entropy_value_and_grad"](scores, labels)
    expected = lm.cross_entropy.value_and_grad(scores, labels)
    assert value[0] == pytest.approx(expected[0], rel=1e-15)
    np.testing.assert_allclose(grad, expected[1], rtol=1e-15)


def test_code_options(tmp_path: Path) -> None:
    assert "njit" in printed("code", "huber", "--backend", "numba")
    assert "hessian_diag" in printed("code", "huber", "--outputs", "value, grad,hessian_diag")
    printed("code", "huber", "-o", "huber.py")
    assert (tmp_path / "huber.py").read_text(encoding="utf-8") == printed("code", "huber")


# ------------------------------------------------------------------ what cannot be read


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cros_entropy", "cross_entropy"),
        ("Cross-Entropy", "cross_entropy"),
        ("crossentropy", "cross_entropy"),
        ("focal loss", "focal"),
        ("huber_loss", "huber"),
        ("mse", "squared_error"),
        ("MAE", "absolute_error"),
        ("sofmax", "softmax"),
    ],
)
def test_nearly_a_name(given: str, meant: str) -> None:
    said = refused("derive", given)
    assert said == f"there is no loss {given!r}: did you mean {meant}? (`lossmith list` shows all names)"


def test_other_names_are_names_of_the_catalogue() -> None:
    assert set(arguments._OTHER_NAMES.values()) <= set(CATALOGUE)
    assert not set(arguments._OTHER_NAMES) & set(CATALOGUE)


FORMULAS = [
    ("foobar", "'foobar' is neither a name that `lossmith list` shows nor a formula"),
    ("cross_entropy(s, y)", "write cross_entropy alone"),
    ("s +", "this cannot be read as a formula (line 1, column 4)\n    s +\n       ^"),
    ("-log(sofmax(s)[y])", "did you mean softmax?"),
    ("sofmax(s)", "column 1)\n    sofmax(s)\n    ^\ndid you mean softmax?"),
    ("exp(s - t) * b", "-H b=1.0"),
    ("exp(s - t) * b", "--input b=targets"),
    ("t**2", "--input NAME=scores"),
    ("", "the formula is empty"),
    ("a = s\nb = a +\na - b", "line 2"),
    ("__import__('os').system('true')", "there is no text in formulas"),
    ("s" * 20_000, "20000 characters"),
]


@pytest.mark.parametrize(("formula", "said"), FORMULAS)
def test_bad_formulas(formula: str, said: str) -> None:
    assert said in refused("derive", formula)
    assert said in refused("derive", "-", stdin=formula)


BAD_ARGUMENTS: list[tuple[str, str]] = [
    ("--foo", "no such option '--foo' (see lossmith --help)"),
    ("deriv huber", "no such command 'deriv'"),
    ("derive", "missing argument 'FORMULA|NAME' (see lossmith derive --help)"),
    ("derive huber nll", "unexpected extra argument"),
    ("derive -x", "no such option '-x'"),
    ("derive huber --format foo", "'foo' is not one of 'text', 'latex', 'html', 'mathml'"),
    ("derive huber -H gama=2", "there is no hyperparameter gama: huber has delta"),
    ("derive nll -H gamma=2", "nll has none"),
    ("derive huber -H delta", "-H takes NAME=VALUE, such as -H gamma=2, not 'delta'"),
    ("derive huber -H delta=big", "must be a number, or numbers with commas between them, not 'big'"),
    ("derive huber -H delta=1 -H delta=2", "-H gives delta twice"),
    ("derive (s-q)**2 --input q=target", "must be one of scores, label, targets, not 'target'"),
    ("derive (s-q)**2 --input q=targets:x", "must be one of real, unit, simplex, sign, nonnegative, positive"),
    ("derive (s-t)**2 --input q=targets", "--input gives q a role, but no formula here uses that name"),
    ("derive huber --input q=targets", "no formula here uses that name"),
    ("derive @missing.txt", "no such file or directory: missing.txt"),
    ("derive @.", "is a directory"),
    ("derive huber -o missing/huber.txt", "there is no folder missing"),
    ("derive huber -o .", "it is a folder"),
    ("code softmax --outputs grad", "not 'grad'"),
    ("code huber --outputs value,foo", "not 'foo'"),
    ("code huber --outputs ,", "one at least"),
    ("check", "give the losses to check, or --all"),
    ("check huber --all", "not both"),
    ("check --all -H delta=1", "leave out -H and --input"),
    ("check softmax", "softmax is a vector function, and a check needs a loss"),
    ("check huber --seed -1", "not in the range"),
    ("check huber --quick --thorough", "--quick or --thorough, not both"),
    ("plot", "missing argument"),
    ("plot huber -o huber.gif", "must end in .svg, .png or .pdf, not .gif"),
    ("plot huber -o huber", "it has no ending"),
    ("plot huber softmax", "a picture of several needs a loss"),
    ("fit missing.csv", "there is no file missing.csv"),
    ("fit iriss", "did you mean 'iris'"),
    ("fit iris --target Species", "leave the column out"),
    ("fit iris --loss softmax", "training needs a loss"),
    ("fit iris --loss mse", "did you mean squared_error?"),
    ("fit iris --loss entropy", "has no label and no targets"),
    ("fit wine --task regression --loss huber", "regression needs numbers"),
    ("fit iris --alpha -1", "invalid value for '--alpha'"),
    ("fit iris --alpha nan", "alpha must be 0 or above"),
    ("fit iris --C 0", "invalid value for '--C'"),
    ("fit iris --C 1 --alpha 1", "give --alpha or --C, not both"),
    ("fit iris --test-fraction 1", "invalid value for '--test-fraction'"),
    ("fit iris --test-fraction 0.999", "too few to hold out"),
    ("fit iris --test-fraction 0.2 --train-rows 9", "give --test-fraction or --train-rows, not both"),
    ("fit iris --train-rows 151", "must be from 1 to 150"),
    ("fit iris --train-rows 50", "the first 50 rows of iris have one class only, 'setosa'"),
    ("fit iris --predictions missing/p.csv", "there is no folder missing"),
    ("fit iris -H class_weight=1,2", "expected (3,), one per class"),
    ("fit iris --solver newton", "'newton' is not one of 'lbfgs', 'sgd', 'adam'"),
    ("compare huber", "missing argument 'B'"),
    ("compare huber softmax", "a comparison needs a loss"),
    ("compare huber squared_error --target y", "there is no DATA"),
    ("compare huber squared_error missing.csv", "there is no file missing.csv"),
    ("compare huber squared_error -o a.txt", "must end in .svg, .png or .pdf"),
    ("study cross_entropy --report a.pdf", "must end in .html or .htm, not .pdf"),
    ("study cross_entropy --report missing/a.html", "there is no folder missing"),
    ("study cross_entropy --data missing.csv", "there is no file missing.csv"),
    ("study sigmoid", "a study needs a loss"),
]


@pytest.mark.parametrize(("line", "said"), BAD_ARGUMENTS)
def test_bad_arguments(line: str, said: str) -> None:
    message = refused(*line.split())
    assert said in message
    assert "\n" not in message
    assert os.listdir() == []


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "formula.txt").write_bytes(b"\xff\xfe\x00")
    assert refused("derive", "@formula.txt") == "cannot read the formula from formula.txt: it is not UTF-8 text."
    (tmp_path / "table.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n")
    assert "(--target names it)" in refused("fit", "table.csv")
    assert "did you mean 'kind'?" in refused("fit", "table.csv", "--target", "kin")


@pytest.mark.parametrize(
    ("arg", "kept"),
    [
        ("-log(p[y])", False),
        ("-s", False),
        ("-onehot(y) * s", False),
        ("-(s - t)**2", False),
        ("- s[y]", False),
        ("-", True),
        ("--all", True),
        ("-o", True),
        ("-h", True),
        ("-ofigure.svg", True),
        ("-Hgamma=2", True),
        ("-1", True),
        ("s", True),
    ],
)
def test_what_is_an_option_and_what_a_formula(arg: str, kept: bool) -> None:
    assert (terminal._protected(arg) == arg) is kept


# ------------------------------------------------------------------ check


def report_of(name: str, ok: bool) -> CheckReport:
    row = CheckRow("grad", "float32", "numba", 0.5 if ok else 9e6, 8.0, 7.2 if ok else 0.0, "s = 1", 10, ok=ok)
    return CheckReport(name, ok, (row,), () if ok else ("grad: wrong by a factor of 2",), 0.1)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the options of the last check; the Huber loss breaks its promise."""
    seen: dict[str, Any] = {}

    def check(self: lm.Loss, **options: Any) -> CheckReport:
        options.pop("progress")(1, 2, "a row")
        seen.update(options)
        return report_of(self.name, self.name != "huber")

    monkeypatch.setattr(lm.Loss, "check", check)
    return seen


def test_check(planted: dict[str, Any]) -> None:
    text = printed("check", "logistic", "--quick", "--dtype", "float32", "--seed", "7")
    assert text == f"{report_of('logistic', True)}\n\n"
    assert planted == {"samples": "quick", "seed": 7, "dtypes": ("float32",)}
    printed("check", "logistic", "nll", "--progress")
    assert planted == {"samples": "standard", "seed": 0, "dtypes": ("float32",)}
    text = printed("check", "logistic", "--thorough", "--detail")
    assert text == f"{report_of('logistic', True)}\n\n{report_of('logistic', True).details}\n\n"
    assert planted["samples"] == "thorough"


def test_a_broken_promise_is_exit_status_1(planted: dict[str, Any]) -> None:
    result = run("check", "huber")
    assert result.exit_code == 1
    assert "wrong by a factor of 2" in result.stdout
    result = run("check", "--all")
    assert result.exit_code == 1
    assert result.stdout.endswith(
        f"{len(CATALOGUE) - 1} of {len(CATALOGUE)} losses keep every promise; FAILED: huber\n"
    )


def test_check_of_a_real_loss() -> None:
    text = printed("check", "(s - t)**2 / 2", "--quick", "--dtype", "float64")
    assert "every promise kept" in text
    assert "Hessian diagonal" in text
    assert "float64" in text
    assert "float32" not in text


def test_check_says_who_loses_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSMITH_BACKEND", "numpy")
    result = run("check", "exp(s[0]) - exp(s[1])", "--quick", "--dtype", "float32")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout
    assert "where: " in result.stdout
    assert "exp(s_0) − exp(s_1) cancels, with" in result.stdout


def test_few_digits_are_red_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(measuring, "width_of", lambda stream: 80)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    measuring._print("lead 20        6.3   0.0\nok: 0.0 numbers of 10 were compared\nordinary      12.1  15.9")
    shown = capsys.readouterr().out.split("\n")
    assert "\x1b[31m0.0\x1b[0m" in shown[0]
    assert "6.3" in shown[0]
    assert all("\x1b" not in line for line in shown[1:])


# ------------------------------------------------------------------ plot, compare, study


@pytest.mark.parametrize(
    ("line", "name", "begin"),
    [
        ("huber", "huber.svg", b"<?xml"),
        ("softmax -o a.png", "a.png", b"\x89PNG"),
        ("huber absolute_error", "huber-absolute_error.svg", b"<?xml"),
        ("(s-t)**4", "formula.svg", b"<?xml"),
    ],
)
def test_plot(line: str, name: str, begin: bytes) -> None:
    assert printed("plot", *line.split()) == f"wrote {name}\n"
    assert Path(name).read_bytes().startswith(begin)


def test_compare(tmp_path: Path) -> None:
    text = printed("compare", "logistic", "(sigmoid(s) - t)**2 / 2", "breast_cancer", "-o", "why.svg")
    assert "logistic" in text
    assert text.endswith("wrote why.svg\n")
    assert (tmp_path / "why.svg").stat().st_size > 1000


def test_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossmith import report

    def run_study(loss: lm.Loss, table: Any, *, progress: Any, seed: int) -> Any:
        progress(1, 2, "training")
        return SimpleNamespace(text=f"{loss.name} on {table.name}, seed {seed} ∂")

    monkeypatch.setattr(report, "run_study", run_study)
    monkeypatch.setattr(report, "study_page", lambda study: study.text)
    assert printed("study", "focal", "--data", "iris", "--seed", "3") == f"The report: {tmp_path / 'report.html'}\n"
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == "focal on iris, seed 3 ∂"


@pytest.mark.slow
def test_study_of_a_real_loss(tmp_path: Path) -> None:
    assert printed("study", "logistic", "--data", "iris", "--progress") == f"The report: {tmp_path / 'report.html'}\n"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<math" in page
    assert "<svg" in page
    assert "<script" not in page


# ------------------------------------------------------------------ fit


def figure(text: str, name: str, column: int = -1) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[column])


def test_fit_writes_predictions(tmp_path: Path) -> None:
    text = printed("fit", "iris", "--predictions", "p.csv", "--seed", "3", "--max-iter", "200", "--standardize")
    assert "linear classifier with cross_entropy: alpha = 0.0001, lbfgs, float64, features standardized" in text
    assert "trained on 120 rows, tested on 30 drawn at random (seed 3)" in text
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0])[:5] == ["row", "part", "target", "predicted", "p(setosa)"]
    assert [row["row"] for row in rows] == [str(k) for k in range(1, 151)]
    tested = [row for row in rows if row["part"] == "test"]
    right = np.mean([row["target"] == row["predicted"] for row in tested])
    assert len(tested) == 30
    assert figure(text, "accuracy") == pytest.approx(right, abs=1e-4)


def test_fit_regression() -> None:
    text = printed("fit", "diabetes", "--loss", "huber", "-H", "delta=50", "--standardize", "--dtype", "float32")
    assert "linear regression with huber: alpha = 0.0001, lbfgs, float32" in text
    assert figure(text, "R²") > 0.2
    assert figure(text, "mean absolute error") < 55


def test_fit_options() -> None:
    line = "iris --loss logistic --solver adam --early-stopping --C 10 --train-rows 140 --batch-size 10 --progress"
    text = printed("fit", *line.split(), "--max-iter", "15", "--learning-rate", "0.05")
    assert "alpha = 0.0007143 (C = 10), adam" in text
    assert "trained on the first 140 rows, tested on the other 10" in text
    assert "epoch" in text


def test_fit_without_test_rows_and_with_labels_unseen() -> None:
    assert "tested on none" in printed("fit", "iris", "--test-fraction", "0", "--max-iter", "3")
    text = printed("fit", "iris", "--train-rows", "100", "--max-iter", "3")
    assert "50 of the test rows have labels that the training rows do not have" in text


def test_fit_with_a_formula_that_begins_with_a_minus_sign() -> None:
    text = printed("fit", "iris", "--loss", "-log(softmax(s)[y])", "--max-iter", "50", "--standardize")
    assert "linear classifier with -log(softmax(s)[y]):" in text
    assert figure(text, "accuracy") > 0.9


def test_fit_says_when_numbers_are_taken_for_classes() -> None:
    result = run("fit", "diabetes", "--max-iter", "1")
    assert result.exit_code == 0
    assert result.stderr == (
        "note: 214 classes in 442 rows: to predict numbers, take a loss with targets, such as huber\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "reference"),
    [
        ("letter-recognition.csv --target Letter --train-rows 16000 --standardize", 0.7728),
        ("mnist-t10k-images-idx3-ubyte.gz --train-rows 8000 --dtype float32", 0.9235),
    ],
)
def test_fit_reaches_the_reference_accuracy(data_dir: Path, line: str, reference: float) -> None:
    name, *rest = line.split()
    text = printed("fit", data_dir / name, *rest, "--C", "1.0")
    assert figure(text, "accuracy") == pytest.approx(reference, abs=0.003)


# ------------------------------------------------------------------ in a process of its own


def start(*args: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lossmith", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip


def test_utf8_in_a_locale_without_it() -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    process = start("derive", "logsumexp(s) - s[y]", **plain)
    output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert "p_j − 1{j=y}" in output
    process = start("derive", "s + ∂", **plain)
    assert "∂" in process.communicate()[1]
    assert process.returncode == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    with start("list") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "formula.txt")
    # Tests run in the background of a shell ignore Ctrl-C, and a new process inherits that; not a handler.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start("derive", f"@{tmp_path / 'formula.txt'}")
    signal.signal(signal.SIGINT, before)
    with open(tmp_path / "formula.txt", "w"):  # opens when the command has come to reading it
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output) == (130, "")
    assert errors.strip() == "lossmith: interrupted"


def test_importing_the_command_line_is_light() -> None:
    code = "import sys, lossmith.cli; print([n for n in sys.argv[1:] if n in sys.modules])"
    heavy = ["numba", "scipy", "matplotlib", "mpmath", "sklearn", "pandas", "rich"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


# ------------------------------------------------------------------ files and bars


def test_files_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    terminal.write_text(path, "one")

    def fails(self: Path, *_: Any, **__: Any) -> None:
        with open(self, "w") as stream:
            stream.write("hal")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="No space"):
        terminal.write_text(path, "two")
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == ["a.txt"]


@contextlib.contextmanager
def columns(count: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(count))
        yield


@pytest.mark.parametrize("count", [40, 80])
def test_bar_stays_on_one_line(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    with columns(count), terminal.progress_display("work", True) as report:
        report(1, 3, "a long text [with brackets] " * 10)
        report(3, 3, "")
    assert all(len(line) <= count for line in capsys.readouterr().err.splitlines())
    with terminal.progress_display("work", False) as report:
        report(1, 3, "nothing is shown")
    assert capsys.readouterr() == ("", "")


def test_streams_that_are_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: False))
    terminal.prepare_streams()
    assert terminal.width_of(sys.stdout) is None


def test_commands_are_click_commands_of_our_group() -> None:
    assert list(cli.list_commands(click.Context(cli))) == COMMANDS
