"""The page: well-formed, self-contained, true to what was measured, and there even if a step fails."""

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import lossmith as lm
from lossmith.check.report import CheckReport, CheckRow
from lossmith.data import load_table
from lossmith.report import run_study, study_page
from lossmith.report import study as study_module
from lossmith.report.drawing import inline_svg, new_figure
from lossmith.report.pictures import confusion_svg, worst_confusions
from lossmith.report.training import Training

VOID = {"meta", "br", "link", "img", "input", "hr"}
SECTIONS = ["derivation", "curves", "check", "speed", "training", "code"]


class Reader(HTMLParser):
    """Follows the elements; every one must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sections: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)

    def note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
                if tag == "section":
                    self.sections.append(value or "")
            if name in ("href", "src", "xlink:href"):
                self.links.append(value or "")
            self.links += [f"#{x}" for x in re.findall(r"url\(#([^)]+)\)", value or "")]
            assert not name.startswith("on"), name

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read_page(page: str) -> Reader:
    """Check what holds for every page, and return its elements."""
    reader = Reader(page)
    assert reader.sections == SECTIONS
    assert reader.tags["script"] == 0
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", page))
    assert addresses <= {"http://www.w3.org/1998/Math/MathML", "http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\((?!#)", page)
    assert [i for i, n in Counter(reader.ids).items() if n > 1] == []
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert all(link.startswith("#") for link in reader.links)
    for found in re.findall(r"<svg.*?</svg>|<math.*?</math>", page, flags=re.DOTALL):
        ET.fromstring(found)
    for found in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert 'role="img"' in found
        assert "<title" in found
    assert len(page) < 2_000_000
    return reader


@pytest.fixture
def quick_check(monkeypatch: pytest.MonkeyPatch) -> CheckReport:
    """A check that takes no time: the real one has tests of its own."""
    row = CheckRow("grad", "float32", "numpy", 1.5, 10.0, 7.0, "s = <b> & y = 1", 12, 0, True)
    report = CheckReport("a loss", True, (row,), ())

    def check(self: lm.Loss, **options: Any) -> CheckReport:
        options["progress"](1, 2, "grad")
        return report

    monkeypatch.setattr(lm.Loss, "check", check)
    monkeypatch.setattr("lossmith.report.speed.ROW_SHAPES", ((32, 4),))
    monkeypatch.setattr("lossmith.report.speed.ELEMENT_SHAPES", ((100,),))
    return report


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that are not drawn: it is what takes long, and other tests look at it."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" role="img">'
    monkeypatch.setattr("lossmith.report.page.inline_svg", lambda *_: f"{head}<title>t</title></svg>")


def test_a_classifier(quick_check: CheckReport) -> None:
    steps: list[tuple[int, int, str]] = []
    study = run_study(
        lm.losses.cross_entropy,
        load_table("iris"),
        progress=lambda done, total, text: steps.append((done, total, text)),
    )
    assert study.missing == {}
    assert study.ok
    page = study_page(study)
    reader = read_page(page)
    assert reader.tags["svg"] == 3
    assert reader.tags["math"] > 20
    assert isinstance(study.training, Training)
    assert study.training.shown(study.training.test_score) in page
    assert "virginica" in page
    assert "s = &lt;b&gt; &amp; y = 1" in page
    assert isinstance(study.source, str)
    assert "<" in study.source
    assert f"<pre>{escape(study.source)}</pre>" in page
    assert "def naive_cross_entropy" in page
    assert lm.__version__ in page
    assert [s[0] for s in steps] == sorted(s[0] for s in steps)
    assert steps[-1][:2] == (100, 100)


def test_a_regression(quick_check: CheckReport) -> None:
    study = run_study(lm.losses.huber, load_table("diabetes"))
    page = study_page(study)
    read_page(page)
    assert isinstance(study.training, Training)
    assert study.training.task == "regression"
    assert "Predicted against true" in page
    assert "Confusion" not in page


def test_without_data(quick_check: CheckReport, undrawn: None) -> None:
    study = run_study(lm.loss("log(cosh(s - t))"))
    assert study.missing == {"training": "No data were given."}
    page = study_page(study)
    read_page(page)
    assert "No model was trained. No data were given." in page


def test_what_cannot_be_trained_is_said(quick_check: CheckReport, undrawn: None) -> None:
    study = run_study(lm.losses.entropy, load_table("iris"))
    assert list(study.missing) == ["training"]
    page = study_page(study)
    read_page(page)
    assert "no label and no targets" in page


@pytest.mark.parametrize(
    ("step", "owner", "name"),
    [
        ("derivation_html", lm.Loss, "derivation"),
        ("curves", study_module, "plot_loss"),
        ("check", lm.Loss, "check"),
        ("speed", study_module, "measure_speed"),
        ("training", study_module, "train"),
        ("source", lm.Loss, "source"),
    ],
)
def test_a_step_that_breaks_costs_its_section_only(
    quick_check: CheckReport, undrawn: None, monkeypatch: pytest.MonkeyPatch, step: str, owner: Any, name: str
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise ZeroDivisionError("<planted>")

    # The derivation is needed for the title, too: it must survive its absence.
    monkeypatch.setattr(owner, name, property(broken) if step == "derivation_html" else broken)
    loss: lm.Loss = lm.losses.half_squared_error
    study = run_study(loss, load_table("iris"))
    assert "ZeroDivisionError: <planted>." in study.missing[step]
    page = study_page(study)
    read_page(page)
    assert "&lt;planted&gt;" in page
    assert "<planted>" not in page


def test_a_section_that_cannot_be_written_costs_itself_only(quick_check: CheckReport, undrawn: None) -> None:
    study = run_study(lm.losses.huber, load_table("iris"))
    broken: Any = SimpleNamespace(task="classification", model=SimpleNamespace(standardize=True))
    object.__setattr__(study, "training", broken)
    page = study_page(study)
    read_page(page)
    assert "This section could not be written." in page


def test_a_long_formula_with_markup_is_escaped(quick_check: CheckReport, undrawn: None) -> None:
    loss = lm.loss("where(abs(s - t) < 1, (s - t)**2, 2*abs(s - t) - 1)")
    page = study_page(run_study(loss))
    read_page(page)
    assert "Study of a loss" in page


def test_no_path_and_no_host_is_told(quick_check: CheckReport, undrawn: None) -> None:
    import platform

    page = study_page(run_study(lm.losses.huber, load_table("iris")))
    assert str(Path.home()) not in page
    assert str(Path(lm.__file__).parent) not in page
    assert platform.node() not in page


def test_the_same_study_gives_the_same_figures(quick_check: CheckReport) -> None:
    study = run_study(lm.losses.huber)
    figures = [re.findall(r"<svg.*?</svg>", study_page(study), flags=re.DOTALL) for _ in range(2)]
    assert figures[0] == figures[1]


def test_figures_keep_their_ids_apart() -> None:
    figures = []
    for prefix in ("a", "b"):
        figure, (ax,) = new_figure(3, 2)
        ax.plot([0, 1], [0, 1])
        figures.append(inline_svg(figure, prefix, "A <line>", "rises"))
    ids = [set(re.findall(r'id="([^"]+)"', f)) for f in figures]
    assert len(ids[0]) > 5
    assert ids[0].isdisjoint(ids[1])
    assert "A &lt;line&gt;" in figures[0]
    assert "<style" not in figures[0]


# ---------------------------------------------------------------- confusion matrix


def predictions(names: list[str], true: list[int], predicted: list[int]) -> Any:
    array = np.array(names)
    return SimpleNamespace(
        task="classification",
        model=SimpleNamespace(classes_=np.unique(array)),
        true=array[true],
        predicted=array[predicted],
    )


def test_counts_stand_in_the_cells() -> None:
    made = predictions(["cat", "dog", "owl"], [0, 0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 0, 2, 1])
    svg = confusion_svg(made)
    root = ET.fromstring(svg)
    texts = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:6] == ["2", "1", "1", "1", "1", "1"]
    assert texts.count("owl") == 2
    assert "4 of 7 test rows lie on the diagonal" in svg
    assert worst_confusions(made) == [("cat", "dog", 1), ("dog", "cat", 1), ("owl", "dog", 1)]


@pytest.mark.parametrize("size", [2, 26, 60, 100, 250])
def test_any_number_of_classes_fits(size: int) -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, size, 20 * size)
    predicted = np.where(random.random(true.size) < 0.3, random.integers(0, size, true.size), true)
    svg = confusion_svg(predictions([f"<class> {k}" for k in range(size)], true.tolist(), predicted.tolist()))
    root = ET.fromstring(svg)
    width, height = (float(x) for x in root.attrib["viewBox"].split()[2:])
    assert width < 650
    assert height < 650
    assert len(svg) < 600_000


# ---------------------------------------------------------------- without Numba

BLOCKED = """
import sys
sys.modules["numba"] = None
import lossmith as lm
from lossmith.report import run_study, study_page
study = run_study(lm.losses.huber, check_options={"samples": "quick", "dtypes": ("float32",)})
assert list(study.missing) == ["training"], study.missing
assert "Numba is not installed" in study_page(study)
"""


def test_a_study_works_where_numba_cannot_be_imported() -> None:
    # find_spec says what is installed; None in sys.modules is how an absent module looks to it.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCKED],
        env={"PYTHONPATH": str(Path(lm.__file__).parents[1])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
