"""Every rule is proved by sampling its domain at 50 digits, corners included; planted wrong rules are caught."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import lossmith as lm
from lossmith.calculus.differentiate import sink
from lossmith.calculus.equals import EQUALS_RULES
from lossmith.calculus.magnitudes import MAGNITUDE_RULES
from lossmith.calculus.means import MEAN_RULES
from lossmith.calculus.patterns import META, ROW, fill
from lossmith.calculus.rules import (
    DERIVATIVE_RULES,
    DERIVATIVES,
    GAP_TO_LOG_SOFTMAX,
    LEAF_RULES,
    SHARE_OF_MIXTURE,
    Rule,
    rewriting,
)
from lossmith.calculus.stable_rules import STABLE_RULES
from lossmith.calculus.statements import parse_statement
from lossmith.check.interpreter import Sample, evaluate, numeric_derivative
from lossmith.check.precision import agree
from lossmith.language.build import call, reduce_, sub, substitute
from lossmith.language.expr import Derivative, Entry, Expr, Fixed, Free, Index, Label, Var, fresh, named, walk
from lossmith.language.reader import read

MAGNITUDES = (0.0, 5e-324, 1e-30, 1e-8, 0.5, 1.0, 37.0, 88.0, 710.0, 1e3)
CORNERS: dict[str, tuple[float, ...]] = {
    "real": tuple(s * m for m in MAGNITUDES for s in (1.0, -1.0)),
    "finite": tuple(s * m for m in MAGNITUDES for s in (1.0, -1.0)),
    "positive": MAGNITUDES[1:],
    "nonnegative": MAGNITUDES,
    "negative": tuple(-m for m in MAGNITUDES[1:]),
    "negative whole": (-1.0, -2.0, -3.0),
    "unit": (0.0, 1e-30, 1e-8, 0.5, 1 - 2**-53, 1.0),
    "open unit": (1e-30, 1e-8, 0.5, 1 - 2**-53),
}
ROWS = (
    (0.0, 0.0, 0.0), (1.0, -2.0, 1.0), (88.0, -88.0, 87.0),
    (710.0, 0.0, 709.0), (-1e3, 0.0, 1e-8), (30.0, 0.0, 1.0),
)  # fmt: skip

PATTERN_RULES = {
    r.name: r for r in (*STABLE_RULES, GAP_TO_LOG_SOFTMAX, SHARE_OF_MIXTURE, *MEAN_RULES) if r.statement is not None
}


def sides(rule: Rule) -> tuple[Expr, Expr]:
    assert rule.statement is not None
    return parse_statement(rule.statement[0]), parse_statement(rule.statement[1])


def metavariables(*exprs: Expr) -> tuple[list[str], list[str], list[Index]]:
    nodes = {n for e in exprs for n in walk(e)}
    numbers = sorted({n.name for n in nodes if isinstance(n, Var) and not n.indices})
    rows = sorted({n.name for n in nodes if isinstance(n, Var) and n.indices})
    indices = sorted((n for n in nodes if isinstance(n, Free) and n.uid == META), key=lambda n: n.name)
    return numbers, rows, indices


def assignments(rule: Rule) -> Iterator[Sample]:
    numbers, rows, indices = metavariables(*sides(rule))
    spaces = [CORNERS[rule.domain.get(n, "real")] for n in numbers]
    for values in itertools.product(*spaces):
        for row in ROWS if rows else ((0.0,),):
            for at in itertools.product(range(len(row)), repeat=len(indices)):
                filled: dict[str, object] = dict(zip(numbers, values, strict=True))
                filled |= {r: list(row) for r in rows}
                yield Sample(K=len(row), vars=filled, indices=dict(zip(indices, at, strict=True)))


def counterexample(rule: Rule) -> Sample | None:
    """Return a sample at which the two sides of a rule differ."""
    left, right = sides(rule)
    for sample in assignments(rule):
        # 1000 digits: what a naive left-hand side loses to cancellation at 710 are 617 of them.
        a, b = evaluate(left, sample, 1000), evaluate(right, sample, 1000)
        if not agree(a, b, 50):
            return sample
    return None


@pytest.mark.parametrize("name", PATTERN_RULES)
def test_rule_holds(name: str) -> None:
    assert counterexample(PATTERN_RULES[name]) is None


@pytest.mark.parametrize("name", PATTERN_RULES)
def test_rule_applies_to_itself(name: str) -> None:
    rule = PATTERN_RULES[name]
    left, _ = sides(rule)
    # b, c and z may have to be targets; a metavariable itself is none.
    m = fresh()
    targets = {"b": Entry("t", None), "c": Entry("u", None), "z": reduce_(ROW, m, Entry("v", m))}
    assert rule.apply(fill(left, targets)) is not None


PLANTED = {
    "sign": rewriting("sign", "log(softmax(x)[i])", "logsumexp(x) - x[i]"),
    "factor": rewriting("factor", "1 - tanh(a)**2", "2*sigmoid(2*a)*sigmoid(-2*a)"),
    "corner": rewriting("corner", "sign(a)*a", "a"),
    "argument": rewriting("argument", "1 - sigmoid(a)", "sigmoid(a)"),
    "forgotten log": rewriting("forgotten log", "log(softmax(x)[i])", "softmax(x)[i]"),
    "domain": rewriting("domain", "exp(log(a))", "abs(a)"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_wrong_rule_is_caught(name: str) -> None:
    assert counterexample(PLANTED[name]) is not None


def test_domain_matters() -> None:
    right = replace(PLANTED["corner"], domain={"a": "nonnegative"})
    assert counterexample(right) is None


@pytest.mark.parametrize("function", DERIVATIVES)
def test_derivative_of_elementary_function(function: str) -> None:
    body = call(function, Entry("s", None))
    carried_out, _ = sink(Derivative(body, "s", None), LEAF_RULES)
    inside = function in ("arcsin", "arccos", "arctanh")
    points = (1e-8, 0.3, 0.9, -0.5) if inside else (1.5, 30.0) if function == "arccosh" else (1e-8, 0.7, 3.0, 30.0)
    for x in points:
        if x > 0 or function != "log":
            sample = Sample({"s": x})
            # Differences lose the digits by which tanh(30) falls short of 1.
            assert agree(evaluate(carried_out, sample), numeric_derivative(body, sample, "s", None, 60), 20)


@pytest.mark.parametrize(
    ("rule", "text"), [(r, text) for r in (*DERIVATIVE_RULES, *LEAF_RULES[-2:]) for text in r.examples]
)
def test_derivative_rule_holds(rule: Rule, text: str) -> None:
    names = {"t": lm.Targets} if "t" in text else {}
    body = read_example(text, names)
    before = Derivative(body, "s", named("j"))
    applied = rule.apply(before)
    assert applied is not None, "the example does not exercise the rule"
    rng = np.random.default_rng(3)
    for _ in range(4):
        row = rng.normal(0, 2, 3).tolist()
        for j, y in itertools.product(range(3), range(3)):
            sample = Sample({"s": row, "t": [0.5, 0.25, 0.25]}, y, K=3).at(j=j)
            assert agree(evaluate(before, sample), evaluate(applied, sample), 35)


FUNCTION_RULES = [
    (r, text)
    for r in (*STABLE_RULES, *MAGNITUDE_RULES, *EQUALS_RULES, *MEAN_RULES)
    if r.statement is None
    for text in r.examples
]


@pytest.mark.parametrize(("rule", "text"), FUNCTION_RULES)
def test_rule_without_a_pattern_holds(rule: Rule, text: str) -> None:
    # In the calculus the class left out is a free index, which the text language cannot write.
    before = substitute(read_example(text, {}), {Label("y"): named("j")})
    applied = rule.apply(before)
    assert applied is not None, "the example does not exercise the rule"
    for row, y in itertools.product(ROWS, range(3)):
        sample = Sample({"s": list(row)}, K=3).at(j=y)
        assert agree(evaluate(before, sample, 1000), evaluate(applied, sample, 1000), rule.digits)


def read_example(text: str, names: dict[str, object] | None = None) -> Expr:
    """Read an example; s_0 comes and goes, since the reader refuses what does not depend on the scores."""
    return sub(read(f"s[0] + ({text})", **(names or {})).expr, Entry("s", Fixed(0)))
