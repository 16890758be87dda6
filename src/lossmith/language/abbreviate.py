"""Putting names back: sub-expressions that a definition names become that name again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lossmith.language.build import add, mul, neg, rebuild, substitute
from lossmith.language.expr import (
    Add,
    ArgReduce,
    Const,
    Entry,
    Expr,
    Free,
    Hyper,
    Index,
    Mul,
    Node,
    Var,
    walk,
)
from lossmith.language.formula import Definition


def abbreviate(expr: Expr, definitions: Sequence[Definition]) -> Expr:
    """Replace what equals a definition, at any index, by a Var with its name.

    The largest matches win. Definitions of mere entries and numbers are left out. A definition
    that is a sum or a product is also found as a part of a longer sum or product, and a sum with
    all its signs turned.
    """
    useful = [d for d in definitions if not isinstance(d.expr, Entry | Const | Hyper | Var)]
    useful.sort(key=lambda d: -d.expr.size)
    if not useful:
        return expr
    memo: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        if node not in memo:
            found = _match(node, useful) if isinstance(node, Expr) else None
            memo[node] = rebuild(node, visit) if found is None else rebuild(found, visit)
        return memo[node]

    result = visit(expr)
    assert isinstance(result, Expr)
    return result


def _match(node: Expr, definitions: list[Definition]) -> Expr | None:
    """Return `node` with one definition put in at the top, or None."""
    for definition in definitions:
        if definition.expr.size > node.size + _SLACK:
            continue
        for at in _candidates(node, definition):
            pattern, name = definition.expr, Var(definition.name, ())
            if at is not None:
                pattern = substitute(pattern, {definition.index: at})
                name = Var(definition.name, (at,))
            found = _replace(node, pattern, name)
            if found is not None:
                return found
    return None


_SLACK = 64  # a definition at another index may be smaller or larger: s[argmax] against s[k]


def _candidates(node: Expr, definition: Definition) -> Iterator[Index | None]:
    """Yield the indices in `node` that may stand in the place of the definition's."""
    if definition.index is None:
        yield None
        return
    found: set[Index] = set(node.free)
    found.update(n for n in walk(node) if isinstance(n, ArgReduce))
    yield from sorted(found, key=lambda i: (isinstance(i, Free) and i.uid > 0, i.digest))


def _replace(node: Expr, pattern: Expr, name: Expr) -> Expr | None:
    if node is pattern:
        return name
    if isinstance(node, Add) and isinstance(pattern, Add):
        for sign, terms in ((1, pattern.terms), (-1, _negated(pattern))):
            rest = _without(node.terms, terms)
            if rest is not None:
                return add(*rest, mul(Const(sign), name))
    if isinstance(node, Mul) and isinstance(pattern, Mul):
        rest = _without(node.factors, pattern.factors)
        if rest is not None:
            return mul(*rest, name)
    return None


def _negated(sum_: Add) -> tuple[Expr, ...]:
    return tuple(neg(t) for t in sum_.terms)


def _without(whole: tuple[Expr, ...], part: tuple[Expr, ...]) -> list[Expr] | None:
    """Return `whole` less `part`, or None where something of it is missing."""
    missing = set(part)
    rest = [e for e in whole if e not in missing]
    return rest if len(rest) + len(missing) == len(whole) else None
