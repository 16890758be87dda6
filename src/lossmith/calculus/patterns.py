"""Matching expressions against patterns, so that a rule can be a line of text.

A pattern is an expression over metavariables: numbers a, b, c (any expression), rows x, z (an expression with a
place for an index) and indices i, j. In `log(softmax(x)[i])`, x stands for whatever the softmax runs over and i for
any class. Sums and products match in any order and may have more terms or factors than the pattern: what is left
over stays where it is. A sum also matches a multiple of the pattern, 3 − 3p for 1 − p. Binders in a pattern run over
all classes; the binders they match may run over some (the condition is carried to the right-hand side).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import TypeAlias

from lossmith.language.build import (
    add,
    arg_reduce,
    as_factors,
    as_terms,
    coefficient,
    const,
    instantiate,
    mul,
    opened,
    power,
    rebuild,
    reduce_,
    softmax,
    substitute,
)
from lossmith.language.expr import (
    TRUE,
    Add,
    ArgReduce,
    Call,
    Compare,
    Const,
    Delta,
    Expr,
    Free,
    Index,
    Label,
    Mul,
    Node,
    Not,
    Pow,
    Reduce,
    Softmax,
    Var,
    fresh,
    walk,
)

Bindings: TypeAlias = Mapping[str, Node]
META = -1
"""The uid that marks a Free index as a metavariable."""
CONDITION = "condition"
ROW = "row"
"""The operator of the binder that holds what a row metavariable stands for."""


def meta_index(name: str) -> Free:
    """Return the index metavariable `name`."""
    return Free(name, META)


def row(index: Index, body: Expr) -> Expr:
    """Close an expression over an index into a comparable value: the λ of a row metavariable."""
    probe = fresh()
    return reduce_(ROW, probe, substitute(body, {index: probe}))


def match(pattern: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    """Yield every way to fill the metavariables of `pattern` so that it equals `node`."""
    if isinstance(pattern, Var):
        yield from _match_meta(pattern, node, bound)
    elif isinstance(pattern, Index):
        yield from _match_index(pattern, node, bound)
    elif type(pattern) is type(node):
        yield from _match_same(pattern, node, bound)


def _match_meta(pattern: Var, node: Node, bound: Bindings) -> Iterator[Bindings]:
    if not isinstance(node, Expr):
        return
    known = bound.get(pattern.name)
    if not pattern.indices:
        if known is None:
            yield {**bound, pattern.name: node}
        elif known is node:
            yield bound
        return
    index = _resolve(pattern.indices[0], bound)
    if known is None:
        if index is not None:
            yield {**bound, pattern.name: row(index, node)}
        return
    assert isinstance(known, Reduce)
    if index is not None:
        if instantiate(known, index) is node:
            yield bound
        return
    assert isinstance(pattern.indices[0], Free)
    for candidate in indices_of(node):
        if instantiate(known, candidate) is node:
            yield {**bound, pattern.indices[0].name: candidate}


def _resolve(index: Index, bound: Bindings) -> Index | None:
    """Return the index that a pattern's index stands for, or None while it is unknown."""
    if isinstance(index, Free) and index.uid == META:
        found = bound.get(index.name)
        return found if isinstance(found, Index) else None
    return index


def _match_index(pattern: Index, node: Node, bound: Bindings) -> Iterator[Bindings]:
    resolved = _resolve(pattern, bound)
    if resolved is node:
        yield bound
    elif resolved is None and isinstance(pattern, Free) and isinstance(node, Index):
        yield {**bound, pattern.name: node}


def indices_of(node: Node) -> list[Index]:
    """Return the indices that occur in `node` and are not bound in it, in a fixed order."""
    inside = {n for n in walk(node) if isinstance(n, Free | Label | ArgReduce) or n in node.free}
    return sorted((n for n in inside if isinstance(n, Index)), key=lambda n: n.order)


def _match_same(pattern: Node, node: Node, bound: Bindings) -> Iterator[Bindings]:
    match pattern, node:
        case Add(), Add():
            for rest, found in match_some(pattern, node, bound):
                if not rest:
                    yield found
        case Mul(), Mul():
            yield from _match_product(pattern, node, bound)
        case (Call(f, args), Call(g, other)) if f == g and len(args) == len(other):
            orders = [other, other[::-1]] if f in ("maximum", "minimum") else [other]
            for order in orders:
                yield from _match_all(args, order, bound)
        case Pow(a, n), Pow(b, k):
            yield from _match_all((a, n), (b, k), bound)
        case Reduce(op), Reduce(other) if op == other:
            yield from _match_binder(pattern, node, bound)
        case Softmax(at=at), Softmax(at=other):
            for found in _match_binder(pattern, node, bound):
                yield from match(at, other, found)
        case Delta(i, j), Delta(k, m):
            yield from _match_all((i, j), (k, m), bound)
            yield from _match_all((i, j), (m, k), bound)
        case (Compare(op, a, b), Compare(other, c, d)) if op == other:
            yield from _match_all((a, b), (c, d), bound)
        case Not(a), Not(b):
            yield from match(a, b, bound)
        case _:
            if pattern is node:
                yield bound


def _match_product(pattern: Mul, node: Mul, bound: Bindings) -> Iterator[Bindings]:
    """Match a whole product: a single metavariable among the factors stands for all that is left over."""
    known = [bound.get(f.name, f) if isinstance(f, Var) and not f.indices else f for f in pattern.factors]
    factors = [g for f in known if isinstance(f, Expr) for g in as_factors(f)]
    free = [f.name for f in factors if isinstance(f, Var) and not f.indices]
    for rest, found in match_some(Mul(tuple(factors)), node, bound):
        if not rest:
            yield found
        elif len(free) == 1:
            yield {**found, free[0]: mul(found[free[0]], *rest)}  # type: ignore[arg-type]


def _match_binder(pattern: Reduce | Softmax, node: Reduce | Softmax, bound: Bindings) -> Iterator[Bindings]:
    index = fresh()
    _, _, body = opened(pattern, index)
    _, cond, other = opened(node, index)
    condition = row(index, cond)
    if bound.get(CONDITION, condition) is condition:
        yield from match(body, other, {**bound, CONDITION: condition})


def _match_all(patterns: Sequence[Node], nodes: Sequence[Node], bound: Bindings) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for found in match(patterns[0], nodes[0], bound):
        yield from _match_all(patterns[1:], nodes[1:], found)


def match_some(pattern: Node, node: Node, bound: Bindings) -> Iterator[tuple[tuple[Expr, ...], Bindings]]:
    """Match the parts of a sum or product in any order; yield what is left over with the bindings."""
    parts = pattern.terms if isinstance(pattern, Add) else pattern.factors if isinstance(pattern, Mul) else ()
    others = node.terms if isinstance(node, Add) else node.factors if isinstance(node, Mul) else ()
    if len(parts) > len(others):
        return
    # The parts with binders come first: they settle what a row stands for, which x[i] then looks up;
    # bare metavariables come last, as they match anything.
    ordered = sorted(parts, key=lambda p: (isinstance(p, Var), -p.height, -p.size))
    yield from _match_parts(ordered, list(others), bound)


def _match_parts(
    parts: Sequence[Expr], others: list[Expr], bound: Bindings
) -> Iterator[tuple[tuple[Expr, ...], Bindings]]:
    if not parts:
        yield tuple(others), bound
        return
    for k, other in enumerate(others):
        left = others[:k] + others[k + 1 :]
        for found in match(parts[0], other, bound):
            yield from _match_parts(parts[1:], left, found)
        if not isinstance(parts[0], Var):  # p² holds a factor p, and 1/p² a factor 1/p
            one, rest = _split_power(other)
            if rest is not None:
                for found in match(parts[0], one, bound):
                    yield from _match_parts(parts[1:], [*left, rest], found)


def _split_power(e: Expr) -> tuple[Expr, Expr | None]:
    """Split b² into b and b, and 1/b³ into 1/b and 1/b²; whole powers only."""
    if isinstance(e, Pow) and isinstance(e.exponent, Const) and isinstance(e.exponent.value, int):
        sign = 1 if e.exponent.value > 0 else -1
        if e.exponent.value not in (1, -1):
            return power(e.base, const(sign)), power(e.base, const(e.exponent.value - sign))
    return e, None


def fill(pattern: Node, bound: Bindings) -> Expr:
    """Return the right-hand side of a rule with its metavariables replaced by what they stand for."""

    def visit(n: Node) -> Node:
        if isinstance(n, Var) and n.name in bound:
            value = bound[n.name]
            if not n.indices:
                return value
            assert isinstance(value, Reduce)
            at = visit(n.indices[0])
            assert isinstance(at, Index)
            return instantiate(value, at)
        if isinstance(n, Free):
            return _filled_index(n, bound)
        if isinstance(n, Reduce | Softmax | ArgReduce) and n.cond is TRUE and CONDITION in bound:
            index, _, body = opened(n)
            condition = bound[CONDITION]
            assert isinstance(condition, Reduce)
            cond = instantiate(condition, index)
            inner = visit(body)
            assert isinstance(inner, Expr)
            if isinstance(n, Reduce):
                return reduce_(n.op, index, inner, cond)
            if isinstance(n, ArgReduce):
                return arg_reduce(n.op, index, inner, cond)
            return softmax(index, inner, _filled_index(n.at, bound), cond)
        return rebuild(n, visit)

    result = visit(pattern)
    assert isinstance(result, Expr)
    return result


def _filled_index(index: Index, bound: Bindings) -> Index:
    return _resolve(index, bound) or index


def _heads(e: Expr) -> set[str]:
    """Return the functions, reductions and the softmax that are terms or factors of `e`, without looking further in."""
    found: set[str] = set()
    for term in as_terms(e):
        for f in as_factors(term):
            base = f.base if isinstance(f, Pow) else f
            if isinstance(base, Call):
                found.add(base.function)
            elif isinstance(base, Reduce):
                found.add(base.op)
            elif isinstance(base, Softmax):
                found.add("softmax")
    return found


_heads_of_pattern = cache(_heads)


def rewrite_root(pattern: Expr, replacement: Expr, node: Expr, allowed: Callable[[Bindings], bool]) -> Expr | None:
    """Return `node` with the pattern at its root replaced, or None where it does not match."""
    if not _heads_of_pattern(pattern) <= _heads(node):
        return None
    if isinstance(pattern, Add) and isinstance(node, Add):
        for scale in _scales(pattern, node):
            scaled = mul(const(scale), pattern) if scale != 1 else pattern
            scaled = scaled if isinstance(scaled, Add) else add(*(mul(const(scale), t) for t in pattern.terms))
            for rest, found in match_some(scaled, node, {}):
                if allowed(found):
                    return add(mul(const(scale), fill(replacement, found)), *rest)
        return None
    if isinstance(pattern, Mul) and isinstance(node, Mul):
        for rest, found in match_some(pattern, node, {}):
            if allowed(found):
                return mul(fill(replacement, found), *rest)
        return None
    for found in match(pattern, node, {}):
        if allowed(found):
            return fill(replacement, found)
    return None


def _scales(pattern: Add, node: Add) -> list[int | Fraction | float]:
    """Return the numbers c for which `node` may hold c·pattern, 1 and −1 first."""
    anchor, _ = coefficient(max(pattern.terms, key=lambda t: t.size))
    found: list[int | Fraction | float] = [1, -1]
    for term in node.terms:
        number, _ = coefficient(term)
        ratio = number / anchor if isinstance(number, float) else Fraction(number) / Fraction(anchor)
        if ratio not in found:
            found.append(ratio)
    return found
