"""Terminal text: it reads like a textbook, and its parentheses are right."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, note, settings

from language import samples
from language.expressions import ENV, expressions
from language.text_reader import Unreadable, evaluate, read
from lossmith.language import build as b
from lossmith.language import expr as x
from lossmith.language.formula import Definition
from lossmith.language.notation import abbreviate
from lossmith.language.text import to_text

ENV_OF_SAMPLES = {**ENV, "p": [0.2, 0.5, 0.3], "j": 1, "*": 0, "Δ": 0.4, "δ": 0.9, "ε": 0.1}


def value_of(text: str, env=ENV_OF_SAMPLES) -> float | None:
    """Return what a text means, or None where it means nothing."""
    try:
        return read(text)(env)
    except (Unreadable, ValueError, TypeError, KeyError, ZeroDivisionError):
        return None


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_samples(name: str) -> None:
    expr, text = samples.SAMPLES[name]
    assert to_text(expr, samples.P) == text


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(expressions())
def test_text_means_the_expression(expr: x.Expr) -> None:
    text = to_text(expr)
    note(text)
    meaning = read(text)
    try:
        expected = evaluate(expr, ENV)
    except (ValueError, OverflowError, ZeroDivisionError):
        return
    if math.isfinite(expected) and abs(expected) < 1e12:
        assert math.isclose(meaning(ENV), expected, rel_tol=1e-6, abs_tol=1e-7)


def pairs_of_parentheses(text: str) -> list[tuple[int, int]]:
    """Return the places of the parentheses around sums and products, not around arguments."""
    stack: list[int] = []
    pairs: list[tuple[int, int]] = []
    for at, c in enumerate(text):
        if c == "(":
            stack.append(at)
        elif c == ")":
            pairs.append((stack.pop(), at))
    return [(a, z) for a, z in pairs if a == 0 or text[a - 1] in " ([−/{^"]


@pytest.mark.parametrize(
    "name", ["focal", "focal gradient", "squared error of a sigmoid", "pairs", "a sum beneath",
             "its slope", "chain rule, held", "binary cross-entropy", "logs"]
)  # fmt: skip
def test_the_reader_sees_a_missing_parenthesis(name: str) -> None:
    text = samples.SAMPLES[name][1]
    text = text.replace("s log", "s_j log").replace("(1 − s)", "(1 − t_j)").replace("t log", "t_j log")
    assert value_of(text) is not None
    found = pairs_of_parentheses(text)
    assert found
    for a, z in found:
        without = text[:a] + text[a + 1 : z] + text[z + 1 :]
        assert value_of(without) != value_of(text), without


@pytest.mark.parametrize("text", ["log s_j/2", "1/s_j s_k", "log s_j s_k", "s_j +", "(s_j"])
def test_the_reader_refuses_what_is_ambiguous(text: str) -> None:
    assert value_of(text) is None


def test_index_names_avoid_those_in_scope() -> None:
    n, m = x.named("n"), x.named("m")
    inner = samples.total(lambda a: b.mul(samples.s(a), samples.s(m), samples.t(n)))
    assert to_text(b.add(inner, x.ONE)) == "1 + s_m t_n Σ_k s_k"
    nested = samples.total(lambda a: b.call("exp", b.sub(samples.s(a), samples.over("max", samples.s))))
    assert to_text(nested) == "Σ_m exp(s_m − max_k s_k)"


def test_fresh_indices_get_names() -> None:
    one, two = x.fresh("m"), x.fresh("m")
    product = b.mul(samples.s(one), samples.s(two))
    assert to_text(product) == "s_k s_m"
    assert to_text(samples.total(lambda a: b.mul(samples.s(a), samples.s(one)))) == "s_m Σ_k s_k"


def test_names_with_one_glyph_are_told_apart() -> None:
    both = b.add(x.Hyper("eps", ()), x.Hyper("label_smoothing", ()))
    assert to_text(both) == "ε + label_smoothing"


def test_nested_cases_are_one_list() -> None:
    inner = b.where(b.delta(samples.J, samples.Y), b.const(3), x.ZERO)
    outer = b.where(b.delta(samples.J, samples.K), samples.TWO, inner)
    assert to_text(outer) == "{2 if j = k; 3 if j = y; 0 otherwise}"
    both = b.mul(b.delta(samples.J, samples.K), b.not_(b.delta(samples.J, samples.Y)))
    assert to_text(b.where(both, samples.TWO, x.ZERO)) == "{2 if j = k and j ≠ y; 0 otherwise}"


def test_abbreviations() -> None:
    j, k, y = samples.J, samples.K, samples.Y
    log_p = b.sub(samples.s(k), samples.over("logsumexp", samples.s))
    names = (Definition("lp", k, log_p), Definition("z", k, b.div(samples.s(k), samples.TAU)))
    at_label = b.sub(samples.over("logsumexp", samples.s), samples.s(y))
    assert to_text(at_label, names) == "−lp_y"
    entropy = samples.total(lambda m: b.sub(b.substitute(log_p, {k: m}), samples.t(m)))
    assert to_text(entropy, names) == "Σ_m (lp_m − t_m)"
    assert to_text(b.mul(samples.t(j), b.div(samples.s(j), samples.TAU)), names) == "t_j z_j"
    total = samples.total(samples.s)
    assert to_text(b.power(total, samples.TWO), (Definition("n", None, total),)) == "n²"
    assert abbreviate(samples.s(j), (Definition("a", k, samples.s(k)),)) is samples.s(j)


def test_abbreviation_keeps_the_value() -> None:
    def expanded(node: x.Node) -> x.Node:
        if isinstance(node, x.Var) and node.name == "p":
            return samples.p(node.indices[0])
        return b.rebuild(node, expanded)

    for expr, _ in samples.SAMPLES.values():
        assert expanded(abbreviate(expr, samples.P)) is expr
