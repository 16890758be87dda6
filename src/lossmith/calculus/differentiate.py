"""Differentiation by scores: a derivative sinks through an expression by rules until only ∂s_m/∂s_j is left.

`differentiate` keeps every stage, since the stages are the derivation: linearity and products first, then the chain
rule, then ∂s_m/∂s_j = 1{m=j}, then sums over indicators, then simplification.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lossmith.calculus.rules import (
    DERIVATIVE_RULES,
    GAP_TO_LOG_SOFTMAX,
    LEAF_RULES,
    RECOGNITION,
    SHARE_OF_MIXTURE,
    SOFTMAX_FROM_LOG,
    Rule,
)
from lossmith.calculus.simplify import all_but_differences, bottom_up, contract, simplify
from lossmith.language.budget import remembered
from lossmith.language.build import call, opened, rebuild, reduce_
from lossmith.language.expr import Derivative, Expr, Held, Index, Node, Reduce, Softmax, walk


@dataclass(frozen=True)
class Stage:
    """A line of a derivation: the expression, and the names of the rules that led to it."""

    rules: tuple[str, ...]
    expr: Expr


@dataclass(frozen=True)
class Trail:
    """The stages of a differentiation; the last one holds the result."""

    stages: tuple[Stage, ...]

    @property
    def result(self) -> Expr:
        """The derivative, simplified."""
        return self.stages[-1].expr


@remembered(256)  # a gradient is asked for by its kernel, by the Hessian's and by the derivation
def differentiate(expr: Expr, name: str, wrt: Index | None, spell: bool = True) -> Trail:
    """Differentiate `expr` by the entry `wrt` of the input `name` (None for an elementwise input).

    For readers, log Σ exp is spelled out first; without `spell` its derivative is that of a function with a name.
    """
    stages = [Stage((), Derivative(spelled_out(expr) if spell else expr, name, wrt))]

    def stage(apply: Callable[[Expr], tuple[Expr, list[str]]]) -> None:
        result, used = apply(stages[-1].expr)
        if result is not stages[-1].expr:
            stages.append(Stage(tuple(dict.fromkeys(used)), result))

    outer = tuple(r for r in DERIVATIVE_RULES if r.group == "linearity")
    stage(lambda e: sink(e, outer))
    stage(lambda e: sink(e, DERIVATIVE_RULES))
    stage(lambda e: sink(e, LEAF_RULES))
    stage(lambda e: (contract(e), ["Σ_m 1{m=i} f_m = f_i"]))
    if spell:
        stage(lambda e: simplify(released(e)))
    else:
        names = (*RECOGNITION, SHARE_OF_MIXTURE)
        stage(lambda e: simplify(released(e), names, multiply_out=all_but_differences))
    return Trail(tuple(stages))


def derivative(expr: Expr, name: str, wrt: Index | None) -> Expr:
    """Return the derivative alone, simplified."""
    return differentiate(expr, name, wrt).result


def spelled_out(expr: Expr) -> Expr:
    """Write what is to be differentiated as a textbook would.

    Where probabilities stand in the expression, their logarithms are logarithms of them; elsewhere logsumexp is
    log Σ exp, so that the derivation shows the chain rule through it.
    """
    expr = bottom_up(expr, lambda e: SOFTMAX_FROM_LOG.apply(e) or e)
    if any(isinstance(n, Softmax) for n in walk(expr)):
        expr = bottom_up(expr, lambda e: GAP_TO_LOG_SOFTMAX.apply(e) or e)

    def visit(n: Node) -> Node:
        if isinstance(n, Reduce) and n.op == "logsumexp":
            index, cond, body = opened(n)
            inner = visit(body)
            assert isinstance(inner, Expr)
            return call("log", reduce_("sum", index, call("exp", inner), cond))
        return rebuild(n, visit)

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def sink(expr: Expr, rules: tuple[Rule, ...]) -> tuple[Expr, list[str]]:
    """Apply the rules to every derivative in `expr`, outermost first, until none applies."""
    used: list[str] = []

    def visit(n: Node) -> Node:
        if isinstance(n, Derivative):
            for rule in rules:
                result = rule.apply(n)
                if result is not None:
                    if rule.title:
                        used.append(rule.title)
                    return visit(result)
            return n
        if not any(isinstance(x, Derivative) for x in walk(n)):
            return n
        return rebuild(n, visit)

    result = visit(expr)
    assert isinstance(result, Expr)
    return result, used


def released(expr: Expr) -> Expr:
    """Take the parentheses off that kept a line as it was written."""

    def visit(n: Node) -> Node:
        if isinstance(n, Held):
            return visit(n.body)
        return rebuild(n, visit)

    result = visit(expr)
    assert isinstance(result, Expr)
    return result
