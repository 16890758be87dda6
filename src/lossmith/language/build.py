"""The constructors of expressions, in one place: those of algebra.py, and functions, reductions, substitution.

They keep the normal form that lets `is` compare mathematics. To that of algebra.py they add: factors that a sum does
not run over stand in front of it, and the arguments of a maximum are sorted, constants last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lossmith.language.algebra import (
    add,
    as_factors,
    as_terms,
    coefficient,
    compare,
    const,
    delta,
    div,
    is_indicator,
    mul,
    neg,
    not_,
    power,
    reading_rank,
    sub,
    where,
)
from lossmith.language.expr import (
    ONE,
    TRUE,
    ZERO,
    Add,
    ArgReduce,
    Binder,
    Bound,
    Call,
    ClassNumber,
    Compare,
    Const,
    Delta,
    Derivative,
    Entry,
    Expr,
    Fixed,
    Free,
    Held,
    Hyper,
    Index,
    Label,
    Mul,
    Node,
    Not,
    Number,
    Pow,
    Reduce,
    Size,
    Softmax,
    Var,
    Where,
    fresh,
    level_of,
)

__all__ = [
    "add",
    "arg_reduce",
    "as_factors",
    "as_terms",
    "call",
    "close",
    "coefficient",
    "compare",
    "const",
    "delta",
    "div",
    "instantiate",
    "is_indicator",
    "mul",
    "neg",
    "not_",
    "opened",
    "power",
    "reading_rank",
    "rebuild",
    "reduce_",
    "softmax",
    "sub",
    "substitute",
    "where",
]

# ------------------------------------------------------------------ functions and reductions


_AT_CONSTANT: dict[tuple[str, Number], Number] = {
    ("exp", 0): 1, ("log", 1): 0, ("log1p", 0): 0, ("expm1", 0): 0, ("abs", 0): 0, ("sign", 0): 0,
    ("tanh", 0): 0, ("sin", 0): 0, ("cos", 0): 1, ("sinh", 0): 0, ("cosh", 0): 1,
}  # fmt: skip


def call(function: str, *args: Expr) -> Expr:
    """Return function(args)."""
    first = args[0]
    if len(args) == 1 and isinstance(first, Const) and (function, first.value) in _AT_CONSTANT:
        return const(_AT_CONSTANT[function, first.value])
    if function in ("abs", "sign") and isinstance(first, Const):
        value = first.value
        return const(abs(value) if function == "abs" else (value > 0) - (value < 0))
    if function in ("maximum", "minimum"):
        if first is args[-1]:
            return first
        # Commutative; constants come second, so that the convention at a tie is about the other argument.
        args = tuple(sorted(args, key=lambda a: (not a.free and _is_number(a), a.order)))
    return Call(function, args)


def _is_number(e: Expr) -> bool:
    return isinstance(e, Const | Hyper)


def reduce_(op: str, index: Index, body: Expr, cond: Expr = TRUE) -> Expr:
    """Return op over all classes `index` with cond of body; a sum gives up the factors it does not run over."""
    if cond is ZERO and op == "sum":
        return ZERO
    if op == "sum":
        if body is ZERO:
            return ZERO
        factors = as_factors(body)
        outside = [f for f in factors if index not in f.free]
        inside = [f for f in factors if index in f.free]
        if not inside:
            count = Size() if cond is TRUE else _bind(Reduce, "sum", index, cond, ONE)
            return mul(*outside, count)
        if outside:
            return mul(*outside, reduce_(op, index, mul(*inside), cond))
    elif op in ("max", "min") and index not in body.free and cond is TRUE:
        return body
    return _bind(Reduce, op, index, cond, body)


def arg_reduce(op: str, index: Index, body: Expr, cond: Expr = TRUE) -> Index:
    """Return the first class with the largest (op = max) or smallest (op = min) body."""
    return _bind(ArgReduce, op, index, cond, body)


def softmax(index: Index, body: Expr, at: Index, cond: Expr = TRUE) -> Expr:
    """Return exp(body_at) / Σ_{index: cond} exp(body_index)."""
    cond, body = close(index, cond, body)
    return Softmax(cond, body, at)


def _bind(cls: Any, op: str, index: Index, cond: Expr, body: Expr) -> Any:
    cond, body = close(index, cond, body)
    return cls(op, cond, body)


# ------------------------------------------------------------------ binders and substitution


def close(index: Index, cond: Expr, body: Expr) -> tuple[Expr, Expr]:
    """Replace `index` by the Bound index of the binder about to be made."""
    bound = Bound(1 + max(cond.height, body.height))
    new_cond, new_body = substitute(cond, {index: bound}), substitute(body, {index: bound})
    if 1 + max(new_cond.height, new_body.height) != bound.level:  # it simplified: the level sank
        lower = Bound(1 + max(new_cond.height, new_body.height))
        new_cond, new_body = substitute(new_cond, {bound: lower}), substitute(new_body, {bound: lower})
    return new_cond, new_body


def opened(binder: Binder, index: Index | None = None) -> tuple[Index, Expr, Expr]:
    """Return (index, cond, body) of a binder with its bound index replaced by `index`, or a fresh one."""
    index = fresh(f"m{level_of(binder)}") if index is None else index
    mapping: dict[Node, Node] = {Bound(level_of(binder)): index}
    return index, substitute(binder.cond, mapping), substitute(binder.body, mapping)


def instantiate(binder: Binder, at: Index) -> Expr:
    """Return the body of a binder at the class `at`."""
    return opened(binder, at)[2]


def substitute(node: Any, mapping: Mapping[Any, Any]) -> Any:
    """Replace nodes by others, everywhere, and bring the result into normal form again."""
    memo: dict[Node, Node] = {}
    indices_only = all(isinstance(k, Index) for k in mapping)

    def visit(n: Node) -> Node:
        if n in mapping:
            return mapping[n]
        if indices_only and mapping.keys().isdisjoint(n.free):
            return n
        if n not in memo:
            memo[n] = rebuild(n, visit)
        return memo[n]

    return visit(node)


def rebuild(node: Any, visit: Callable[[Any], Any]) -> Any:
    """Return `node` with `visit` applied to the nodes below it; binders are opened and closed on the way."""
    match node:
        case Const() | Size() | Free() | Bound() | Label() | Fixed():
            return node
        case Hyper(name, indices):
            return Hyper(name, tuple(visit(i) for i in indices))
        case Var(name, indices):
            return Var(name, tuple(visit(i) for i in indices))
        case Entry(name, index):
            return Entry(name, None if index is None else visit(index))
        case ClassNumber(index):
            at = visit(index)
            return const(at.number) if isinstance(at, Fixed) else ClassNumber(at)
        case Delta(i, j):
            return delta(visit(i), visit(j))
        case Compare(op, a, b):
            return compare(op, visit(a), visit(b))
        case Not(cond):
            return not_(visit(cond))
        case Add(terms):
            return add(*(visit(t) for t in terms))
        case Mul(factors):
            return mul(*(visit(f) for f in factors))
        case Pow(base, exponent):
            return power(visit(base), visit(exponent))
        case Call(function, args):
            return call(function, *(visit(a) for a in args))
        case Where(cond, then, other):
            return where(visit(cond), visit(then), visit(other))
        case Derivative(body, name, wrt):
            return Derivative(visit(body), name, None if wrt is None else visit(wrt))
        case Held(body):
            return Held(visit(body))
        case Reduce(op):
            index, cond, body = opened(node)
            return reduce_(op, index, visit(body), visit(cond))
        case ArgReduce(op):
            index, cond, body = opened(node)
            return arg_reduce(op, index, visit(body), visit(cond))
        case Softmax(at=at):
            index, cond, body = opened(node)
            return softmax(index, visit(body), visit(at), visit(cond))
        case _:
            raise TypeError(f"not an expression: {node!r}")
