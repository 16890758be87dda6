"""Derivations: the log of a differentiation as a proof that a person would write.

A derivation is a list of sections, a section a chain of equal expressions with the reason for each step. The lines are
expressions, so that each can be compared with the one before at 50 digits; printing them is prose.py's work.
"""

from __future__ import annotations

from dataclasses import dataclass

from lossmith.calculus.cases import split_cases
from lossmith.calculus.differentiate import Trail, differentiate
from lossmith.calculus.rules import GAP_TO_LOG_SOFTMAX, LEAF, LOG_SOFTMAX_TO_GAP
from lossmith.calculus.simplify import bottom_up, simplify
from lossmith.language.build import not_, substitute
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    ArgReduce,
    Call,
    Compare,
    Delta,
    Derivative,
    Entry,
    Expr,
    Free,
    Label,
    Mul,
    Node,
    Reduce,
    Softmax,
    Var,
    Where,
    named,
    walk,
)
from lossmith.language.formula import Definition, Formula

OUTPUT, J, K = named("i"), named("j"), named("k")
LOSS = Var("L", ())
FUNCTION = Var("f", ())


@dataclass(frozen=True)
class Line:
    """A step: the expression reached, and why it equals the one before."""

    expr: Expr
    reason: str = ""


@dataclass(frozen=True)
class Case:
    """What the result of a section is where `condition` holds."""

    condition: Expr
    expr: Expr


@dataclass(frozen=True)
class Section:
    """A chain lhs = line = line = …, its cases, and a remark."""

    title: str
    lhs: Expr
    lines: tuple[Line, ...]
    cases: tuple[Case, ...] = ()
    remark: str = ""
    names: tuple[Definition, ...] = ()
    """Abbreviations of this section alone."""


def derive_sections(formula: Formula) -> tuple[Section, ...]:
    """Return gradient and Hessian with respect to every differentiable input."""
    found: list[Section] = []
    scores = [i.name for i in formula.of_role("scores")]
    for name in scores:
        wrt = None if formula.kind == "elementwise" else J
        trail = differentiate(formula.expr, name, wrt)
        found.append(_gradient_section(formula, trail, name, wrt, scores))
        other = _other_route(formula, name, wrt, trail)
        if other is not None:
            found.append(other)
        found.append(_hessian_section(formula, trail, name, wrt, scores))
    return tuple(found)


def jacobian_section(formula: Formula, spelled: Expr) -> Section:
    """Return the Jacobian of a vector function, derived from its definition spelled out."""
    name = formula.of_role("scores")[0].name
    wrt = None if formula.kind == "elementwise" else J
    trail = differentiate(spelled, name, wrt)
    lhs_body = FUNCTION if wrt is None else Var("f", (formula.output or OUTPUT,))
    title = "Derivative" if wrt is None else "Jacobian"
    return Section(title, Derivative(lhs_body, name, wrt), _lines(trail), _cases(trail.result, wrt))


def _title(base: str, name: str, scores: list[str]) -> str:
    return base if len(scores) == 1 else f"{base} with respect to {name}"


def _gradient_section(formula: Formula, trail: Trail, name: str, wrt: Free | None, scores: list[str]) -> Section:
    lines = list(_lines(trail))
    sums = _targets_sum_to_one(formula, trail.result)
    if sums is not None:
        lines.append(Line(sums, f"Σ_m {formula.of_role('targets')[0].name}_m = 1"))
    return Section(
        _title("Gradient", name, scores),
        Derivative(LOSS, name, wrt),
        tuple(lines),
        _cases(lines[-1].expr, wrt),
        _kinks(formula.expr),
    )


def _hessian_section(formula: Formula, trail: Trail, name: str, wrt: Free | None, scores: list[str]) -> Section:
    second = None if wrt is None else K
    again = differentiate(trail.result, name, second)
    lhs = Derivative(Derivative(LOSS, name, wrt), name, second)
    lines = list(_lines(again))
    sums = _targets_sum_to_one(formula, again.result)
    if sums is not None:
        lines.append(Line(sums, f"Σ_m {formula.of_role('targets')[0].name}_m = 1"))
    cases: tuple[Case, ...] = ()
    if wrt is not None:
        diagonal = simplify(substitute(lines[-1].expr, {K: J}))[0]
        base, special = split_cases(diagonal, J)
        if not special and base is not ZERO:
            cases = (Case(Delta(J, K), base),)
    short = () if wrt is None else _abbreviations(formula, trail.result, wrt)
    return Section(_title("Hessian", name, scores), lhs, tuple(lines), cases, names=short)


LONG = 12
"""From how many nodes on a factor of the gradient gets a name in the Hessian."""


def _abbreviations(formula: Formula, gradient: Expr, wrt: Free) -> tuple[Definition, ...]:
    """Name the long factors that the gradient's components share."""
    factors = gradient.factors if isinstance(gradient, Mul) else ()
    long = [f for f in factors if isinstance(f, Add) and f.size >= LONG and wrt not in f.free]
    taken = {i.name for i in formula.inputs} | {h.name for h in formula.hypers}
    taken |= {d.name for d in formula.definitions}
    free_names = (n for n in "abcdefg" if n not in taken)
    return tuple(Definition(n, None, f) for n, f in zip(free_names, long, strict=False))


def _lines(trail: Trail) -> tuple[Line, ...]:
    first = trail.stages[0].expr
    assert isinstance(first, Derivative)
    name = first.name

    def reason(rule: str) -> str:  # the rules are named over s
        if rule == LEAF:
            return f"∂{name}/∂{name} = 1" if first.wrt is None else LEAF.replace("s", name)
        return rule

    return tuple(Line(s.expr, ", ".join(reason(r) for r in s.rules)) for s in trail.stages)


def _cases(result: Expr, wrt: Free | None) -> tuple[Case, ...]:
    """Return the result at j = y and elsewhere, if an indicator of the label is in it."""
    if wrt is None:
        return ()
    base, special = split_cases(result, wrt)
    if len(special) != 1 or not isinstance(special[0][0], Label):
        return ()
    (at, there), met = special[0], Delta(wrt, special[0][0])
    assert isinstance(at, Label)
    return (Case(met, there), Case(not_(met), base))


def _other_route(formula: Formula, name: str, wrt: Free | None, first: Trail) -> Section | None:
    """Derive a log softmax once more: directly from log Σ exp, or by the chain rule through the softmax."""
    if any(isinstance(n, Reduce) and n.op == "logsumexp" for n in walk(formula.expr)):
        rule, title = GAP_TO_LOG_SOFTMAX, "The same by the chain rule through the softmax"
    else:
        rule, title = LOG_SOFTMAX_TO_GAP, "The same directly from log Σ exp"
    other = bottom_up(formula.expr, lambda e: rule.apply(e) or e)
    if other is formula.expr or any(isinstance(n, Call) and n.function != "log" for n in walk(other)):
        return None
    trail = differentiate(other, name, wrt)
    if trail.result is not first.result or trail.stages[1:] == first.stages[1:]:
        return None
    return Section(title, Derivative(LOSS, name, wrt), _lines(trail))


def _targets_sum_to_one(formula: Formula, result: Expr) -> Expr | None:
    """Use Σ_m t_m = 1 where the targets are a distribution."""
    names = {i.name for i in formula.of_role("targets") if i.role.domain == "simplex"}

    def step(e: Expr) -> Expr:
        if isinstance(e, Reduce) and e.op == "sum" and e.cond is ONE and isinstance(e.body, Entry):
            return ONE if e.body.name in names else e
        return e

    new = bottom_up(result, step)
    return None if new is result else simplify(new)[0]


def _kinks(expr: Expr) -> str:
    """Return the conventions that the loss's derivative needs, in words."""
    kinds = set[str]()
    for n in walk(expr):
        if isinstance(n, Call) and n.function in ("maximum", "minimum"):
            kinds.add("max(a, b) has the indicator 1{a > b}, which is 0 at the tie")
        elif isinstance(n, Call) and n.function in ("abs", "sign"):
            kinds.add("sign(0) = 0")
        elif isinstance(n, ArgReduce) or (isinstance(n, Reduce) and n.op in ("max", "min")):
            kinds.add("at a tie the maximum over the classes follows the first of them")
        elif isinstance(n, Where | Compare):
            kinds.add("a case distinction is derived case by case")
    return "At kinks: " + "; ".join(sorted(kinds)) + "." if kinds else ""


def display_names(formula: Formula) -> tuple[Definition, ...]:
    """Return the names that the derivation uses: those of the definition, and p for a softmax without one."""
    names = [d for d in formula.definitions if not d.name.startswith("_") and not _is_renaming(d)]
    taken = {d.name for d in names} | {i.name for i in formula.inputs} | {h.name for h in formula.hypers}
    known = {d.expr for d in names}
    bodies: dict[Node, Softmax] = {}
    for n in walk(formula.expr):
        if isinstance(n, Softmax):
            bodies[Softmax(n.cond, n.body, K)] = n
        elif isinstance(n, Reduce) and n.op == "logsumexp":
            bodies[Softmax(n.cond, n.body, K)] = Softmax(n.cond, n.body, K)
    fresh_names = (n for n in ("p", "q", "r") if n not in taken)
    for pattern in bodies:
        assert isinstance(pattern, Softmax)
        if pattern.free - {K} and any(isinstance(i, Free) for i in pattern.free - {K}):
            continue
        if not any(_same_softmax(e, pattern) for e in known):
            name = next(fresh_names, None)
            if name is not None:
                names.append(Definition(name, K, pattern))
    return tuple(names)


def _is_renaming(d: Definition) -> bool:
    return d.expr.size <= 3


def _same_softmax(e: Expr, pattern: Softmax) -> bool:
    return isinstance(e, Softmax) and e.body is pattern.body and e.cond is pattern.cond
