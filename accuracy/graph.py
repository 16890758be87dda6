"""A loss written out for one number of classes and one label: a list of scalar operations, without loops or indices.

The operations are few, so that a program of them can be read, differentiated (derive.py) and run on ball arithmetic
(program.py) in a page each. Nothing here simplifies beyond the numbers 0 and 1: log Σ exp(s) − s_y stays that.

    leaf(name, k)   an input; k is None for a number       const(value)    an int or a Fraction
    sum(a, b, …)    mul(a, b)    inv(a)    pow(a, b)       exp(a)  log(a)  abs(a)  sign(a)
    greater(a, b)   at_least(a, b)   equal(a, b)           indicators, 0 or 1
    pick(c, a, b)   a where the indicator c is 1, else b   largest(a, b, …)   taken for a constant by derive.py
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from lossmith.language.expr import (
    TRUE,
    Add,
    Bound,
    Call,
    ClassNumber,
    Compare,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
    Free,
    Held,
    Hyper,
    Index,
    Label,
    Mul,
    Not,
    Pow,
    Reduce,
    Size,
    Softmax,
    Where,
    level_of,
)

INDICATORS = {">": "greater", ">=": "at_least", "==": "equal"}


class Graph:
    """The operations in the order in which they can be carried out; equal ones are there once."""

    def __init__(self) -> None:
        self.nodes: list[tuple[Any, ...]] = []
        self._known: dict[tuple[Any, ...], int] = {}
        self.zero, self.one = self.const(0), self.const(1)

    def node(self, *operation: Any) -> int:
        """Return the number of an operation on numbers of operations."""
        found = self._known.get(operation)
        if found is None:
            found = self._known[operation] = len(self.nodes)
            self.nodes.append(operation)
        return found

    def const(self, value: Any) -> int:
        return self.node("const", Fraction(value))

    def leaf(self, name: str, k: int | None) -> int:
        return self.node("leaf", name, k)

    def value(self, node: int) -> Fraction | None:
        """Return the number that a node is, if it is a constant."""
        operation = self.nodes[node]
        return operation[1] if operation[0] == "const" else None

    def sum(self, terms: Iterable[int]) -> int:
        constant, kept = Fraction(0), []
        for term in terms:
            value = self.value(term)
            if value is None:
                kept.append(term)
            else:
                constant += value
        if constant or not kept:
            kept.append(self.const(constant))
        return kept[0] if len(kept) == 1 else self.node("sum", *kept)

    def mul(self, a: int, b: int) -> int:
        x, y = self.value(a), self.value(b)
        if x is not None and y is not None:
            return self.const(x * y)
        if x == 0 or y == 0:
            return self.zero
        return b if x == 1 else a if y == 1 else self.node("mul", a, b)

    def neg(self, a: int) -> int:
        return self.mul(self.const(-1), a)

    def pow(self, a: int, b: int) -> int:
        x, y = self.value(a), self.value(b)
        if y == 0:
            return self.one
        if y == 1:
            return a
        if y == -1:
            return self.const(1 / x) if x else self.node("inv", a)
        return self.node("pow", a, b)

    def pick(self, condition: int, a: int, b: int) -> int:
        held = self.value(condition)
        if a == b or held is not None:
            return a if held or a == b else b
        return self.node("pick", condition, a, b)


class Unroller:
    """Writes out expressions of the definition.

    Parameters
    ----------
    graph : Graph
    K : int
        The number of classes.
    label : int or None
    rows : mapping
        Whether an input or a hyperparameter has one number per class, by its name.
    """

    def __init__(self, graph: Graph, K: int, label: int | None, rows: Mapping[str, bool]) -> None:
        self.graph, self.K, self.label, self.rows = graph, K, label, rows
        self._at: dict[Index, int] = {}
        self._known: dict[Any, Any] = {}

    def write(self, expr: Expr) -> int:
        """Return the node that an expression becomes."""
        key = expr, tuple(self._at.get(i) for i in expr.free)
        if key not in self._known:
            self._known[key] = self._write(expr)
        return self._known[key]

    def _write(self, expr: Expr) -> int:
        g = self.graph
        match expr:
            case Const(value):
                return g.const(value)
            case Hyper(name, indices):
                return g.leaf(name, self._index(indices[0]) if indices else None)
            case Entry(name, index):
                return g.leaf(name, self._index(index) if index is not None and self.rows[name] else None)
            case Size():
                return g.const(self.K)
            case ClassNumber(index):
                return g.const(self._index(index))
            case Delta(i, j):
                return g.const(int(self._index(i) == self._index(j)))
            case Compare(op, a, b):
                return g.node(INDICATORS[op], self.write(a), self.write(b))
            case Not(cond):
                return g.pick(self.write(cond), g.zero, g.one)
            case Add(terms):
                return g.sum([self.write(t) for t in terms])
            case Mul(factors):
                product = g.one
                for f in factors:
                    product = g.mul(product, self.write(f))
                return product
            case Pow(base, exponent):
                return g.pow(self.write(base), self.write(exponent))
            case Call(function, args):
                return self._call(function, [self.write(a) for a in args])
            case Where(cond, then, other):
                return g.pick(self.write(cond), self.write(then), self.write(other))
            case Held(body):
                return self.write(body)
            case Reduce():
                return self._reduce(expr)
            case Softmax():
                return self._softmax(expr)
            case _:
                raise NotImplementedError(f"no scalar operations for {type(expr).__name__}")

    def _index(self, index: Index) -> int:
        match index:
            case Fixed(number):
                return number
            case Label():
                assert self.label is not None, "the definition has a label, the sample has none"
                return self.label
            case Free() | Bound():
                return self._at[index]
            case _:
                raise NotImplementedError(f"no scalar operations for {type(index).__name__}")

    def _call(self, function: str, args: Sequence[int]) -> int:
        g, a = self.graph, args[0]
        match function:
            case "exp" | "log" | "abs" | "sign":
                return g.node(function, a)
            case "maximum":
                return g.pick(g.node("greater", *args), *args)
            case "minimum":
                return g.pick(g.node("greater", args[1], args[0]), *args)
            case "softplus":
                return g.node("log", g.sum([g.one, g.node("exp", a)]))
            case "sigmoid":
                return g.pow(g.sum([g.one, g.node("exp", g.neg(a))]), g.const(-1))
            case _:
                raise NotImplementedError(f"no scalar operations for {function}")

    # -------------------------------------------------------------- binders

    def _under(self, bound: Bound, k: int, body: Expr) -> int:
        outside = self._at.get(bound)
        self._at[bound] = k
        try:
            return self.write(body)
        finally:
            if outside is None:
                del self._at[bound]
            else:
                self._at[bound] = outside

    def _bodies(self, binder: Reduce | Softmax) -> dict[int, int]:
        """Return the body for every class that the condition, which must not depend on the inputs, lets in."""
        bound, found = Bound(level_of(binder)), dict[int, int]()
        for k in range(self.K):
            holds = self.graph.one if binder.cond is TRUE else self._under(bound, k, binder.cond)
            if self.graph.value(holds) is None:
                raise NotImplementedError("no scalar operations for a sum over classes that depend on the scores")
            if self.graph.value(holds):
                found[k] = self._under(bound, k, binder.body)
        return found

    def _reduce(self, node: Reduce) -> int:
        g, bodies = self.graph, list(self._bodies(node).values())
        if node.op == "sum":
            return g.sum(bodies)
        if node.op == "logsumexp" and bodies:
            shift, powers = self._shifted_exponentials(bodies)
            return g.sum([shift, g.node("log", g.sum(powers))])
        raise NotImplementedError(f"no scalar operations for {node.op}")

    def _softmax(self, node: Softmax) -> int:
        around = [i for i in node.cond.free | node.body.free if i is not Bound(level_of(node))]
        key = "softmax", node.cond, node.body, tuple(self._at.get(i) for i in around)
        if key not in self._known:
            g, bodies = self.graph, self._bodies(node)
            _, powers = self._shifted_exponentials(list(bodies.values()))
            inverse = g.pow(g.sum(powers), g.const(-1))
            self._known[key] = dict(zip(bodies, powers, strict=True)), inverse
        powers, inverse = self._known[key]
        return self.graph.mul(powers[self._index(node.at)], inverse)

    def _shifted_exponentials(self, terms: list[int]) -> tuple[int, list[int]]:
        # Any shift gives the same result. This one makes p of a single class exactly 1.
        g = self.graph
        shift = g.node("largest", *terms)
        return shift, [g.node("exp", g.sum([t, g.neg(shift)])) for t in terms]
