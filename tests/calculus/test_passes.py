"""Passes that rewrite a whole derivative leave its value as it is, to 50 digits; and they apply where they should."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import lossmith as lm
from formulas import EXTRA, UNSEEN
from lossmith import compiler
from lossmith.calculus import means
from lossmith.calculus.cases import split_cases
from lossmith.calculus.equals import among_equals
from lossmith.calculus.means import with_centred_means
from lossmith.calculus.onesign import one_signed
from lossmith.check.interpreter import Sample, evaluate
from lossmith.check.precision import agree
from lossmith.language.build import const, mul, substitute
from lossmith.language.expr import Expr, Fixed, Index, Label, Var, walk

ROWS = ((0.5, -1.0, 0.25), (2.0, 2.0, 2.0), (40.0, 0.5, 0.25), (1.5, 1.5, -4.0), (0.0, 1e-9, -1e-9))
TARGETS = ((0.25, 0.25, 0.5), (0.125, 0.75, 0.125))
ALL = {**EXTRA, **UNSEEN}
AVERAGED = ("tsallis", "reverse_kl", "hellinger", "kl_of_softmaxes", "jensen_shannon", "gini", "soft_brier")
CROSSING = ("mean_absolute", "one_minus_square", "gini_at_label", "spherical", "odds_ratio", "brier")


def derivatives(name: str) -> Iterator[tuple[Expr, dict[str, float]]]:
    """Yield value, gradient and Hessian of a loss, at class 0, as the passes get them."""
    text, names = ALL[name]
    formula = compiler.in_range(lm.loss(text, **names).definition)
    hypers = {h.name: h.default for h in formula.hypers}
    yield formula.expr, hypers
    for item in formula.of_role("scores"):
        for derive in (compiler.DERIVED["grad"], compiler.DERIVED["hessian_diag"]):
            base, patches = split_cases(derive(formula, item.name), compiler.J)
            for expr in (base, *(e for _, e in patches)):
                yield expr, hypers


def samples(hypers: dict[str, float]) -> Iterator[Sample]:
    for n, row in enumerate(ROWS):
        other = [0.5 * x + 0.125 for x in row[::-1]]
        inputs = {"s": list(row), "a": list(row), "b": other, "t": list(TARGETS[n % 2])}
        for label in range(3):
            yield Sample(inputs, label, hypers, 3)


def crossing(expr: Expr) -> Expr:
    """Return what among_equals makes of an expression, the same if that is nothing; one_signed comes before."""
    before = one_signed(expr)
    after = among_equals(before)
    return expr if after is before else after


def differs(before: Expr, after: Expr, hypers: dict[str, float]) -> bool:
    for j in range(3):
        here, there = (substitute(e, {compiler.J: Fixed(j)}) for e in (before, after))
        for sample in samples(hypers):
            # A class j that is the label has an expression of its own.
            if any(isinstance(n, Label) for n in walk(before)) and sample.label == j and compiler.J in before.free:
                continue
            one, other = evaluate(here, sample, 120), evaluate(there, sample, 120)
            if max(abs(one), abs(other)) > 1e-100 and not agree(one, other, 50):  # what is 0 is so after rounding, too
                return True
    return False


@pytest.mark.parametrize(
    ("rewrite", "name"),
    [*((with_centred_means, n) for n in AVERAGED), *((crossing, n) for n in CROSSING)],
)
def test_value_stays_and_something_is_rewritten(rewrite: Callable[[Expr], Expr], name: str) -> None:
    rewritten = [(e, rewrite(e), hypers) for e, hypers in derivatives(name)]
    changed = [(e, new, hypers) for e, new, hypers in rewritten if new is not e]
    assert changed
    assert not any(isinstance(n, Var) for _, new, _ in changed for n in walk(new))
    assert not any(differs(e, new, hypers) for e, new, hypers in changed)


@pytest.mark.parametrize("name", ["tsallis", "jensen_shannon"])
def test_planted_mistake_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = means._rest  # pyright: ignore[reportPrivateUsage]

    def wrong(mean: means._Mean, at: Index, share: Expr) -> Expr:  # pyright: ignore[reportPrivateUsage]
        return mul(const(2), right(mean, at, share))

    monkeypatch.setattr(means, "_rest", wrong)
    (gradient, hypers), *_ = (found for n, found in enumerate(derivatives(name)) if n == 1)
    assert differs(gradient, with_centred_means(gradient), hypers)
