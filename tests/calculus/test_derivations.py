"""Every printed line of every derivation equals the line before it at 50 digits, kinks included."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

import lossmith as lm
from calculus.samples import samples
from formulas import EXTRA
from lossmith.calculus.derivation import Line, Section, derive_sections, jacobian_section
from lossmith.check.interpreter import Sample, evaluate
from lossmith.check.precision import agree
from lossmith.functions import VECTOR_FUNCTIONS
from lossmith.language.build import neg
from lossmith.language.expr import Expr
from lossmith.language.formula import Formula

TINY = 10.0**-300
LOSSES = {**lm.losses.CATALOGUE, **{n: lm.loss(text, **names) for n, (text, names) in EXTRA.items()}}


def placed(formula: Formula, sample: Sample) -> Iterator[Sample]:
    """Yield the sample with the free indices i, j, k at every class."""
    if formula.kind == "elementwise":
        yield sample
        return
    for i, j, k in product(range(3) if formula.kind == "vector" else (0,), range(3), range(3)):
        yield sample.at(i=i, j=j, k=k)


def equal(a: Expr, b: Expr, at: Sample) -> bool:
    """Compare at 50 digits; what is left of terms that cancel altogether vanishes with more digits."""
    if agree(evaluate(a, at), evaluate(b, at), 35):
        return True
    left, right = evaluate(a, at, 400), evaluate(b, at, 400)
    return agree(left, right, 35) or (abs(left) < TINY and abs(right) < TINY)


def unequal_lines(formula: Formula, section: Section) -> list[str]:
    """Return a sentence for every line that differs from the line before it at some sample."""
    found: list[str] = []
    for before, after in zip(section.lines, section.lines[1:], strict=False):
        for sample in samples(formula):
            for at in placed(formula, sample):
                if not equal(before.expr, after.expr, at):
                    found.append(f"{section.title}: {after.reason}: line differs from the one before at {at}")
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_lines_are_equal(name: str) -> None:
    formula = LOSSES[name].display_formula()
    for section in derive_sections(formula):
        assert unequal_lines(formula, section) == []


@pytest.mark.parametrize("name", LOSSES)
def test_cases_equal_the_result(name: str) -> None:
    formula = LOSSES[name].display_formula()
    for section in derive_sections(formula):
        result = section.lines[-1].expr
        for sample in samples(formula, 1):
            for at in placed(formula, sample):
                for case in section.cases:
                    if evaluate(case.condition, at) == 1:
                        assert equal(case.expr, result, at)


@pytest.mark.parametrize("name", VECTOR_FUNCTIONS)
def test_lines_of_functions_are_equal(name: str) -> None:
    function = VECTOR_FUNCTIONS[name]
    formula = function.definition
    section = jacobian_section(formula, function.spelled.expr)
    assert unequal_lines(formula, section) == []


def test_a_wrong_line_is_found() -> None:
    formula = lm.cross_entropy.display_formula()
    (section, *_) = derive_sections(formula)

    def planted(e: Expr) -> Section:
        return Section("planted", section.lhs, (*section.lines, Line(e, "a slip")))

    assert unequal_lines(formula, planted(neg(section.lines[-1].expr)))
    assert unequal_lines(formula, planted(section.lines[-1].expr)) == []


def test_both_routes_end_in_the_same_gradient() -> None:
    first = lm.loss("logsumexp(s) - s[y]").derivation.section("Gradient")
    second = lm.loss("-log(softmax(s)[y])").derivation.section("Gradient")
    assert first.lines[-1].expr is second.lines[-1].expr
    assert len(first.lines) == 6


@pytest.mark.parametrize("name", [*LOSSES, *VECTOR_FUNCTIONS])
def test_derivation_reads_as_recorded(name: str, golden) -> None:  # type: ignore[no-untyped-def]
    subject = LOSSES[name] if name in LOSSES else VECTOR_FUNCTIONS[name]
    golden(f"derivations/{name}.txt", str(subject.derivation) + "\n")


@pytest.mark.parametrize("name", ["cross_entropy", "multiclass_hinge", "huber", "softmax"])
def test_latex_and_html_read_as_recorded(name: str, golden) -> None:  # type: ignore[no-untyped-def]
    subject = LOSSES[name] if name in LOSSES else VECTOR_FUNCTIONS[name]
    golden(f"derivations/{name}.tex", subject.derivation.latex() + "\n")
    golden(f"derivations/{name}.html", subject.derivation.html() + "\n")
