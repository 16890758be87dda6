"""MathML: well-formed, of MathML Core's elements alone, with the right number of children."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings

from language import samples
from language.expressions import expressions
from lossmith.language import expr as x
from lossmith.language.mathml import mathml_document, operator, to_mathml

CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "msubsup": 3}
CONTAINERS = {"mrow", "msqrt", "mtable", "mtr", "mtd", "math"}
TOKENS = {"mi", "mn", "mo", "mtext", "mspace"}


def check(mathml: str) -> ElementTree.Element:
    root = ElementTree.fromstring(mathml)
    for element in root.iter():
        tag = element.tag.split("}")[-1]
        if tag in CHILDREN:
            assert len(element) == CHILDREN[tag], mathml
        else:
            assert tag in CONTAINERS | TOKENS, tag
        if tag in TOKENS:
            assert len(element) == 0
        else:
            assert not (element.text or "").strip()
        assert not (element.tail or "").strip()
    return root


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_samples_are_mathml_core(name: str) -> None:
    check(to_mathml(samples.SAMPLES[name][0], samples.P, display=True))


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(expressions())
def test_any_expression_is_mathml_core(expr: x.Expr) -> None:
    check(to_mathml(expr))


def test_the_text_is_that_of_the_formula() -> None:
    root = check(to_mathml(samples.SAMPLES["its gradient"][0], samples.P))
    assert "".join(root.itertext()) == "pj−\N{MATHEMATICAL BOLD DIGIT ONE}{j=y}"


def test_names_and_signs_are_escaped() -> None:
    assert check(to_mathml(x.Hyper("a<b&c", ()))).findtext("mi") == "a<b&c"
    assert "&lt;" in to_mathml(samples.SAMPLES["mirrored"][0])
    assert operator("<") == "<mo>&lt;</mo>"


def test_powers_of_entries_stack_their_scripts() -> None:
    squared = samples.b.power(samples.s(samples.J), samples.TWO)
    assert to_mathml(squared) == "<mrow><msubsup><mi>s</mi><mi>j</mi><mn>2</mn></msubsup></mrow>"


def test_documents_align_their_rows() -> None:
    expr, _ = samples.SAMPLES["its gradient"]
    line = (to_mathml(samples.SAMPLES["∂"][0]), operator("="), to_mathml(expr, samples.P))
    root = check(mathml_document([line, ("", operator("="), to_mathml(expr))]))
    assert root.tag.endswith("math")
    assert [len(row) for row in root.iter() if row.tag.endswith("mtr")] == [3, 3]
    assert "mtable" not in mathml_document(["<mi>x</mi>"])
