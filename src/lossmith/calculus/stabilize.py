"""Stable forms, found by rules: no cancellation, no overflow, no 0·∞.

The passes over an expression that is already simplified:

1. maxima: differences of scores are taken inside of them (magnitudes.py);
2. means over classes: what is left of a class beside the mean, which is 0 for the one that leads (means.py);
3. polynomials of probabilities become homogeneous in p and 1 − p, so that their terms have one sign (onesign.py), and
   1 − n·p is counted where n classes share the lead (equals.py);
4. sums of squares are taken apart where they are large (magnitudes.py);
5. rules that are lines of text (stable_rules.py): log softmax, complements of sigmoid and softmax, log1p, expm1;
6. gaps to the maximum, for every log Σ exp and softmax (gaps.py);
7. guards: a target or weight of zero leaves its term out, whatever the other factor is (guards.py);
8. logarithms of quotients that no float can hold (quotients.py).
"""

from __future__ import annotations

from lossmith.calculus.equals import among_equals
from lossmith.calculus.gaps import with_gaps
from lossmith.calculus.guards import guarded
from lossmith.calculus.magnitudes import on_the_diagonal, with_extrema, with_magnitudes
from lossmith.calculus.means import with_centred_means
from lossmith.calculus.onesign import one_signed
from lossmith.calculus.quotients import with_safe_quotients
from lossmith.calculus.rules import SCORES
from lossmith.calculus.stable_rules import STABLE_RULES
from lossmith.language.build import rebuild
from lossmith.language.expr import Expr, Node


def stabilize(
    expr: Expr,
    targets: frozenset[str] = frozenset(),
    positive: frozenset[str] = frozenset(),
    scores: frozenset[str] = frozenset(),
) -> Expr:
    """Return `expr` in a form that computes to rounding.

    `targets` names the inputs whose zeros leave terms out, `positive` the hyperparameters known to be above 0,
    `scores` the inputs that may be any number.
    """
    token = SCORES.set(scores)
    try:
        expr = among_equals(one_signed(with_centred_means(with_extrema(expr))))
        expr = on_the_diagonal(by_rules(with_magnitudes(expr)), scores)
    finally:
        SCORES.reset(token)
    return with_safe_quotients(guarded(with_gaps(expr, positive), targets, scores))


def by_rules(expr: Expr) -> Expr:
    """Apply the rules of STABLE_RULES, the innermost sub-expressions first, until none applies."""
    done: dict[Node, Node] = {}

    def visit(n: Node) -> Node:
        if n not in done:
            new = rebuild(n, visit)
            done[n] = step(new) if isinstance(new, Expr) else new
            done[done[n]] = done[n]  # no rule applies to what they have made
        return done[n]

    def step(e: Expr) -> Node:
        for rule in STABLE_RULES:
            new = rule.apply(e)
            if new is not None and new is not e:
                return visit(new)
        return e

    result = visit(expr)
    assert isinstance(result, Expr)
    return result
