"""Adversarial formulas: what is too complicated is refused in time, with a message, and nothing else ever comes out."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossmith as lm
from fuzz.trip import TooSlow, formula_from, whole_trip
from lossmith.language import budget
from lossmith.language.budget import remembered, spend, within_budget


def nest(shape: str, times: int, inner: str = "s") -> str:
    """Return a shape with itself in its place {0}, and so on."""
    for _ in range(times):
        inner = shape.format(inner)
    return inner


def chain(shape: str, times: int) -> str:
    """Return definitions a1 = shape of a0 = s, a2 = shape of a1 and so on, and the last of them."""
    lines = ["a0 = s", *(f"a{k + 1} = {shape.format(f'a{k}', k + 1)}" for k in range(times))]
    return "\n".join([*lines, f"a{times}"])


def joined(sign: str, term: str, times: int) -> str:
    return sign.join(term.format(k) for k in range(1, times + 1))


ADVERSARIAL = {
    "towers of powers": nest("s**({0})", 40),
    "a power of itself": chain("{0}**{0}", 8),
    "products of products": chain("{0}*({0} + {1})", 12),
    "squares of sums of squares": nest("(s/7 + {0}/13)**2", 6),
    "a product of sums": joined("*", "(s + {0}*t)", 90),
    "a product of squared sums": joined("*", "(exp(s) + {0}*t)**2", 60),
    "a sum of logarithms": joined("+", "log(s**2 + {0})", 90),
    "exponentials of exponentials": nest("exp({0})", 90),
    "exponentials of themselves": chain("exp({0})*{0}", 10),
    "softmaxes of softmaxes": nest("softmax({0})", 5) + "[y]",
    "softmaxes side by side": joined("+", "softmax({0}*s)[y]**{0}", 30),
    "log-softmaxes side by side": f"sum({joined('*', 'log_softmax({0}*s)', 11)})",
    "logsumexps of logsumexps": "logsumexp(s*logsumexp(s*logsumexp(s*logsumexp(s*logsumexp(s)))))",
    "sums of sums": "sum(s*sum(s*sum(s*sum(s*sum(s)))))",
    "sums over pairs": "sum(s[:, None]*s*softmax(s)*log_softmax(s)[:, None])",
    "cases in cases": "".join(f"where(s > {k}, s**{k + 2}," for k in range(30)) + "s" + ")" * 30,
    "maxima of maxima": "".join(f"maximum(s*{k + 1}," for k in range(30)) + "s" + ")" * 30,
    "maxima of powers": nest("maximum({0}**2, s*{0})", 6),
    "the largest of the largest": "s[argmax(s*s[argmax(s*s[argmax(s)])])]",
    "indicators of many classes": f"sum({joined('*', '(s - {0}*(classes == {0}))', 15)})",
    "fractions of fractions": nest("s/(1 + t*{0})", 20),
    "roots of roots": nest("sqrt(s**2 + {0})", 30),
    "hyperbolic tangents": nest("tanh({0}*s)", 40),
    "a number that no computer holds": "s*10**10**10",
    "an exponent that no computer holds": "s**(10**10**10)",
    "numbers beyond every float": "(10**300)**4*s",
    "an exponential of the largest float": "1e308**s*1e308",
    "a long chain of comparisons": " < ".join(["s"] * 2000),
    "parentheses": "(" * 4000 + "s" + ")" * 4000,
    "signs": "-" * 9000 + "s",
    "nulls": "s" + "\x00" * 500,
    "letters of every kind": "ß + ∂ + \u202e s \ufeff + 𝓈 + ﬁ",
    "half a surrogate": "s + \udcff",
    "targets at the largest score": "t[argmax(s)] + max(s[:, None] - t)",
}  # fmt: skip


LONGEST = {
    "a product of squared sums", "a sum of logarithms", "indicators of many classes", "logsumexps of logsumexps",
    "log-softmaxes side by side", "maxima of maxima", "maxima of powers", "softmaxes side by side", "sums over pairs",
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONGEST else n for n in ADVERSARIAL])
def test_adversarial_formulas_are_taken_or_refused_in_time(name: str) -> None:
    whole_trip(ADVERSARIAL[name], seconds=2)  # a second on a machine that does nothing else


@given(st.integers(0, 2**32 - 1).map(lambda seed: formula_of(seed)))
@settings(max_examples=10, deadline=None)
def test_random_formulas(text: str) -> None:
    whole_trip(text, seconds=2)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1).map(lambda seed: formula_of(seed)))
@settings(max_examples=500, deadline=None)
def test_very_many_random_formulas(text: str) -> None:
    whole_trip(text, seconds=2)


def formula_of(seed: int) -> str:
    """Return the formula of a seed."""
    import random

    return formula_from(random.Random(seed).randrange)


# ------------------------------------------------------------------ the budget


def test_what_is_too_complicated_says_so() -> None:
    loss = lm.loss(ADVERSARIAL["softmaxes of softmaxes"])
    with pytest.raises(lm.FormulaError, match=r"too complicated: deriving it takes more than \d+ steps.*\n.*fewer of"):
        str(loss.derivation)
    with pytest.raises(lm.FormulaError, match="too complicated"):
        loss.grad([[0.0, 1.0]], [0])


def test_refusals_do_not_depend_on_what_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that is remembered counts like work that is done: the second try is refused as the first was."""
    text = "sum((softmax(s) - onehot(y))**4)"
    monkeypatch.setattr(budget, "MAX_STEPS", 30_000)
    for _ in range(3):
        with pytest.raises(lm.FormulaError, match="too complicated"):
            str(lm.loss(text).derivation)


def test_a_task_inside_another_counts_as_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", 10)

    def twice(inner: Callable[[], object]) -> None:
        with within_budget("outer"):
            for _ in range(2):
                with within_budget("inner"):
                    inner()

    twice(lambda: spend(5))
    with pytest.raises(lm.FormulaError, match="outer takes more than 10 steps"):
        twice(lambda: spend(6))
    spend(1000)  # outside of tasks nothing is limited


def test_remembered_work_costs_what_it_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", 10)

    @remembered(4)
    def work(steps: int) -> int:
        spend(steps)
        return steps

    for _ in range(3):
        with within_budget("it"):
            work(8)
            with pytest.raises(lm.FormulaError):
                work(8)


def test_planted_endless_recursion_is_no_crash() -> None:
    def endless() -> None:
        endless()

    with pytest.raises(lm.FormulaError, match="nested too deeply"), within_budget("it"):
        endless()


def test_planted_slowness_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object) -> None:
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass

    monkeypatch.setattr("fuzz.trip.derive", slow)
    with pytest.raises(TooSlow, match="derive took"):
        whole_trip("s*t", seconds=0.04)
