"""Derivatives of a program of scalar operations: backwards for gradients, forwards for products with a Hessian.

These few lines are all the calculus that the oracle has; they share nothing with lossmith.calculus. Conventions at
kinks are those of lossmith.check.arithmetic: |x|' = sign(x), sign' = 0, indicators are constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from accuracy.graph import Graph


def slopes(g: Graph, node: int) -> list[tuple[int, int | None]]:
    """Return the arguments that a node depends on smoothly, each with ∂node/∂argument; None stands for 1."""
    match g.nodes[node]:
        case ("sum", *terms):
            return [(t, None) for t in terms]
        case ("mul", a, b):
            return [(a, b), (b, a)]
        case ("inv", a):
            return [(a, g.neg(g.mul(node, node)))]
        case ("pow", a, b):
            by_base = g.mul(b, g.pow(a, g.sum([b, g.const(-1)])))
            found: list[tuple[int, int | None]] = [(a, by_base)]
            if g.value(b) is None:
                found.append((b, g.mul(node, g.node("log", a))))
            return found
        case ("exp", a):
            return [(a, node)]
        case ("log", a):
            return [(a, g.pow(a, g.const(-1)))]
        case ("abs", a):
            return [(a, g.node("sign", a))]
        case ("pick", _, a, b):
            return [(a, None), (b, None)]
        case _:
            return []


def _through(g: Graph, node: int, argument: int, slope: int | None, change: int) -> int:
    """Return slope·change; a choice passes nothing on to what it did not choose."""
    match g.nodes[node]:
        case ("pick", condition, a, b):
            return g.pick(condition, change if argument == a else g.zero, change if argument == b else g.zero)
        case _:
            return change if slope is None else g.mul(change, slope)


def gradient(g: Graph, result: int, leaves: Iterable[int]) -> list[int]:
    """Return ∂result/∂leaf for every leaf."""
    received: dict[int, list[int]] = {result: [g.one]}
    below = dict[int, int]()
    for node in range(result, -1, -1):
        if node not in received:
            continue
        change = below[node] = g.sum(received.pop(node))
        for argument, slope in slopes(g, node):
            received.setdefault(argument, []).append(_through(g, node, argument, slope, change))
    return [below.get(leaf, g.zero) for leaf in leaves]


def tangents(g: Graph, results: Sequence[int], seeds: Mapping[int, int]) -> list[int]:
    """Return the derivative of every result along the direction whose entry at a leaf is `seeds[leaf]`."""
    along: dict[int, int] = dict(seeds)
    for node in needed(g, results):
        if node in along:
            continue
        terms = [
            _through(g, node, argument, slope, along[argument])
            for argument, slope in slopes(g, node)
            if along.get(argument, g.zero) != g.zero
        ]
        along[node] = g.sum(terms)
    return [along[r] for r in results]


def needed(g: Graph, results: Iterable[int]) -> list[int]:
    """Return the nodes that results depend on, arguments first."""
    seen, stack = set[int](), list(results)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            operation = g.nodes[node]
            if operation[0] not in ("const", "leaf"):
                stack.extend(operation[1:])
    return sorted(seen)
