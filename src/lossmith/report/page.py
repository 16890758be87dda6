"""The report of a study: one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from lossmith.calculus.prose import Derivation
from lossmith.language.mathml import to_mathml
from lossmith.report.drawing import inline_svg
from lossmith.report.pictures import (
    confusion_svg,
    scatter_figure,
    training_figure,
    worst_confusions,
)
from lossmith.report.speed import LOOP, NAIVE, Speed
from lossmith.report.study import Missing, Study
from lossmith.report.training import Training

if TYPE_CHECKING:
    from lossmith.check.report import CheckReport
    from lossmith.loss import Loss

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #222; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 3rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0.4rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 0.5rem; padding-top: 0.9rem; border-top: 1px solid #ddd; }
h4 { font-size: 1rem; margin: 1.3rem 0 0.3rem; }
p { margin: 0.4rem 0 0.8rem; max-width: 46rem; }
small, .quiet { color: #5c5c5c; }
math { font-size: 1.08em; font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math", "Libertinus Math",
  "DejaVu Math TeX Gyre", math; }
.formula { font-size: 1.25rem; padding: 0.4rem 0; }
.scroll { overflow-x: auto; overflow-y: hidden; padding-bottom: 0.3rem; }
.scroll > svg { display: block; height: auto; }
table { border-collapse: collapse; font-size: 0.93rem; }
.lossmith-derivation > div { padding: 0.3rem; white-space: nowrap; }
.lossmith-derivation > div > math { display: inline math; }
.lossmith-derivation td { white-space: nowrap; vertical-align: middle; }
table.numbers, table.lossmith-check { margin: 0.6rem 0; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td, .lossmith-check th, .lossmith-check td
  { padding: 0.22rem 0.7rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
.numbers thead th, .lossmith-check thead th { border-bottom: 1.5px solid #888; font-weight: 600; }
.numbers th:first-child, .numbers td:first-child, .numbers .left { text-align: left; }
.lossmith-check td:nth-child(-n+3), .lossmith-check th:nth-child(-n+3),
.lossmith-check td:last-child, .lossmith-check th:last-child { text-align: left; }
.numbers thead th { white-space: normal; vertical-align: bottom; }
.lossmith-check td:last-child { white-space: normal; min-width: 18rem; font-size: 0.86rem; }
.lossmith-check caption { display: none; }
.lossmith-check .kept td:first-child { color: #0b7a4b; }
.lossmith-check .broken td { color: #b02a12; }
.missing { border-left: 3px solid #c98a00; background: #fff8e6; padding: 0.5rem 0.8rem; }
pre { background: #f6f7f8; border: 1px solid #e1e3e6; border-radius: 4px; padding: 0.8rem 1rem;
  overflow-x: auto; font: 0.84rem/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
summary { cursor: pointer; }
footer { margin-top: 3rem; border-top: 1px solid #ddd; padding-top: 0.8rem; font-size: 0.86rem; color: #5c5c5c; }
@media (max-width: 40rem) {
  main { padding: 0.8rem; } h1 { font-size: 1.5rem; }
  .lossmith-check td:last-child { white-space: nowrap; }
}
@media print {
  main { max-width: none; padding: 0; } pre { white-space: pre-wrap; }
  .scroll { overflow: visible; } .scroll > svg { max-width: 100% !important; }
  h2 { break-after: avoid; } svg, tr { break-inside: avoid; }
}
"""


def study_page(study: Study) -> str:
    """Return the report as one HTML page.

    Parameters
    ----------
    study : Study

    Returns
    -------
    str
        Formulas are MathML and figures inline SVG: no network, no script. It can be printed, and
        read on a telephone, where what is wide scrolls by itself.
    """
    body = "".join(
        f'<section id="{name.lower()}"><h2>{name}</h2>{_written(write, study)}</section>'
        for name, write in _SECTIONS.items()
    )
    title = escape(study.title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}: a study</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header>{_header(study)}</header>\n{body}\n{_footer(study)}\n</main>\n</body>\n</html>\n"
    )


def _written(write: Callable[[Study], str], study: Study) -> str:
    try:
        return write(study)
    except Exception as error:  # one section that cannot be written must not cost the page
        return _missing("This section could not be written.", Missing(f"{type(error).__name__}: {error}."))


def _header(study: Study) -> str:
    named = study.loss.name == study.title
    parts = [f"<h1>{escape(study.title) if named else 'Study of a loss'}</h1>"]
    parts += [f"<p>{escape(p)}</p>" for p in _description(study.loss)]
    try:
        parts.append(f'<div class="scroll formula">{_formula(study.loss.derivation)}</div>')
    except Exception:  # the derivation's own section says what is wrong
        parts.append(f"<p>{escape(study.title)}</p>")
    return "".join(parts)


def _description(loss: Loss) -> list[str]:
    return [" ".join(p.split()) for p in loss.references.split("\n\n") if p.strip()]


def _formula(derivation: Derivation) -> str:
    def row(left: Any, right: Any) -> str:
        return f"{to_mathml(left, display=True)}<mo>=</mo>{right}"

    lines = [row(derivation.left, to_mathml(derivation.right, derivation.names, display=True))]
    lines += [row(a, to_mathml(b, display=True)) for a, b in derivation.where()]
    math = '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">{}</math>'
    shown = [math.format(line) for line in lines]
    return shown[0] + (f'<span class="quiet"> &emsp;where </span>{", ".join(shown[1:])}' if shown[1:] else "")


def _missing(what: str, reason: Missing) -> str:
    return f'<p class="missing">{what} {escape(reason.reason)}</p>'


def _number(x: float) -> str:
    """Return three significant digits, the last ones too if they are zero."""
    shown = f"{x:,.0f}".replace(",", "\u202f") if 1000 <= abs(x) < 1e6 else f"{x:#.3g}".rstrip(".")
    return shown.replace("-", "−")


# ---------------------------------------------------------------- sections


def _derivation(study: Study) -> str:
    if isinstance(study.derivation_html, Missing):
        return _missing("There is no derivation.", study.derivation_html)
    return (
        "<p>Gradient and Hessian of one sample, line by line; the reason for a step stands to its right. "
        "Then the mean over a batch, and a linear model.</p>"
        f'<div class="scroll">{study.derivation_html}</div>'
    )


def _curves(study: Study) -> str:
    if isinstance(study.curves, Missing):
        return _missing("There are no curves.", study.curves)
    loss = study.loss
    if loss.kind == "elementwise":
        where = "over the score, for fixed targets"
    elif loss.label_name is not None:
        where = "along the label's score and along another one, for a few classes with all other scores 0"
    else:
        where = "along single scores, for a few classes with the others fixed"
    description = f"Three panels: the value of {study.title}, its first and its second derivative, {where}."
    said = (
        f"<p>Value, derivative and second derivative {escape(where)}. A line is interrupted where it jumps; "
        "a dot is the value at that point alone.</p>"
    )
    return said + _figure(study.curves, "curves", "Curves of the loss", description)


def _figure(figure: Any, prefix: str, title: str, description: str) -> str:
    return f'<div class="scroll">{inline_svg(figure, prefix, title, description)}</div>'


def _check(study: Study) -> str:
    if isinstance(study.check, Missing):
        return _missing("The check did not run.", study.check)
    report: CheckReport = study.check
    verdict = "every promise was kept" if report.ok else "not every promise was kept"
    return (
        "<p>Kernels and derived formulas compared with exact arithmetic, on ordinary inputs and on extreme ones: how "
        "many decimal digits are right at the least, in lossmith (ours), in the textbook formulas run in NumPy (naive) "
        "and, where PyTorch is installed, in its autograd (torch). An error of 1 ulp is one unit in the last place of "
        "the result; the row shows the input where the error is largest beside what is promised there. "
        f"Here {verdict}.</p>"
        f'<div class="scroll">{report._repr_html_()}</div>'  # pyright: ignore[reportPrivateUsage]
    )


def _speed(study: Study) -> str:
    if isinstance(study.speed, Missing):
        return _missing("Times were not measured.", study.speed)
    speed: Speed = study.speed
    threads = "1 thread" if speed.threads == 1 else f"up to {speed.threads} threads"
    said = (
        "<p>Value and gradient of a batch together, in milliseconds: medians of runs in turns, on float32 arrays; "
        f"the Numba kernel uses {threads}.</p>"
    )
    notes: list[str] = []
    if NAIVE in speed.contenders:
        notes.append(
            "The naive code is the formulas of the derivation written out in NumPy, as a tutorial does, "
            "without care for overflow; it stands below."
        )
    if LOOP in speed.contenders:
        notes.append("The loop takes one sample at a time; it is timed on some hundred samples and scaled up.")
    if speed.remark:
        notes.append(speed.remark)
    code = ""
    if speed.naive_source:
        code = f"<details><summary>The naive code</summary><pre>{escape(speed.naive_source)}</pre></details>"
    return said + _speed_table(speed) + f"<p>{escape(' '.join(notes))}</p>" + code


def _speed_table(speed: Speed) -> str:
    last = "naive batch over fastest kernel"
    head = "".join(f"<th>{escape(c)}</th>" for c in ("scores", *speed.contenders))
    head += f"<th>{last}</th>" if NAIVE in speed.contenders else ""
    lines: list[str] = []
    for row in speed.rows:
        cells = "".join(f"<td>{_number(1e3 * row.seconds[c])}</td>" for c in speed.contenders)
        ratio = speed.ratio(row)
        cells += "" if ratio is None else f"<td>{_number(ratio)}</td>"
        shape = " × ".join(f"{n:,}".replace(",", "\u202f") for n in row.shape)
        lines.append(f"<tr><td>{shape}</td>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _training(study: Study) -> str:
    if isinstance(study.training, Missing):
        return _missing("No model was trained.", study.training)
    t: Training = study.training
    standardized = "standardised" if t.model.standardize else "as they come"
    kind = "classifier" if t.task == "classification" else "regression"
    settings = study.settings
    said = (
        f"<p>A linear {kind} on {escape(study.data)}: {t.n_features} features ({standardized}), {t.n_train} rows to "
        f"train on and {t.n_test} held out to test on, L2 penalty with α = {settings.get('alpha', 0):g}, "
        f"solver {escape(str(settings.get('solver', '')))}, {t.n_iter} iterations in {t.seconds:.2f} s, "
        "compiling included.</p>"
    )
    if not t.converged:
        said += f'<p class="missing">{escape(str(t.model.solver_message_))}</p>'
    scores = (
        ("training rows", t.shown(t.train_score)),
        ("test rows", t.shown(t.test_score)),
        ("always the most frequent class" if t.task == "classification" else "always the mean", t.shown(t.baseline)),
    )
    rows = "".join(f"<tr><td>{a}</td><td>{b}</td></tr>" for a, b in scores)
    table = f'<table class="numbers"><thead><tr><th></th><th>{t.measure}</th></tr></thead><tbody>{rows}</tbody></table>'
    first, last = _number(t.loss_curve[0]), _number(t.loss_curve[-1])
    description = f"The objective goes from {first} to {last} in {t.n_iter} iterations."
    curve = _figure(training_figure(t), "training", "Loss during training", description)
    return said + table + "<h4>Loss curve</h4>" + f"<p>{description}</p>" + curve + _predictions(t)


def _predictions(t: Training) -> str:
    if t.task == "regression":
        description = f"{t.n_test} test rows; R² is {t.shown(t.test_score)}."
        return f"<h4>Predicted against true</h4><p>{description}</p>" + _figure(
            scatter_figure(t), "scatter", "Predicted against true", description
        )
    mistakes = worst_confusions(t)
    said = "Each row is a true class, each column a prediction; shades are parts of the row."
    if mistakes:
        said += " Most often confused: " + "; ".join(f"{a} taken for {b} ({n} ×)" for a, b, n in mistakes) + "."
    head = f"<h4>Confusion matrix of the test rows</h4><p>{escape(said)}</p>"
    return f'{head}<div class="scroll">{confusion_svg(t)}</div>'


def _code(study: Study) -> str:
    if isinstance(study.source, Missing):
        return _missing("There is no code.", study.source)
    return (
        "<p>Value and gradient for a batch, generated; it runs on its own with NumPy alone.</p>"
        f"<pre>{escape(study.source)}</pre>"
    )


_SECTIONS = {
    "Derivation": _derivation,
    "Curves": _curves,
    "Check": _check,
    "Speed": _speed,
    "Training": _training,
    "Code": _code,
}


def _footer(study: Study) -> str:
    shown = "; ".join(f"{escape(k)} {escape(v)}" for k, v in study.environment.items())
    seed = study.settings.get("seed")
    seeded = "" if seed is None else f" Random numbers from seed {seed}."
    return f"<footer>Made with: {shown}.{seeded}</footer>"
