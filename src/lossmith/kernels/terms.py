"""From expressions to terms: the same mathematics as operations of a machine, shared, and placed in scopes.

A term belongs to a scope: 0 if it is one number per row, 1 if there is one per class, 2 if one per pair of classes.
Where an expression says only what to compute, a term says how: which powers are products, what is a division, where
a difference is a gap below the maximum. Nothing is reordered that the expression keeps together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from typing import Any

from lossmith.errors import UnsupportedError
from lossmith.kernels.rowprogram import (
    OPERATIONS,
    AtClass,
    AtFound,
    AtLabel,
    Each,
    Index,
    Load,
    Number,
    Param,
    Position,
    Size,
    Type,
    letter,
)
from lossmith.language import build, expr
from lossmith.language.expr import Expr, Node

MAX_DEPTH = 6


@dataclass(eq=False)
class Term:
    """A leaf, an operation, a fold over a loop's entries, or (`shift`) an entry of a row that another loop made.

    `args` are the terms below: of a fold its value and, if there is one, its condition; of a leaf the fold that
    found its index, if one did.
    """

    kind: str  # "leaf", "op", "fold", "shift"
    op: str
    args: tuple[Term, ...] = ()
    leaf: Any = None  # Number | Load | Param | Size | Position
    depth: int = 0  # of a shift: the loop that gives the index
    scope: int = 0
    type: Type = "float"
    needs: dict[int, int] = field(default_factory=dict)

    def loops_before(self, depth: int) -> int:
        """Return how many loops at `depth`, in the scope around them, must have run before this is known."""
        if self.scope < depth:
            return 0
        if depth not in self.needs:
            below = max((a.loops_before(depth) for a in self.args), default=0)
            if (self.kind == "fold" and depth == self.scope) or (self.kind == "shift" and depth == 0):
                below += 1
            self.needs[depth] = below
        return self.needs[depth]


CLASS = tuple(expr.Free(letter(d), -1 - d) for d in range(MAX_DEPTH + 1))
"""The indices under which binders are opened, one per depth, so that equal bodies are one expression."""


def depths(node: Node) -> list[int]:
    """Return the loops whose index occurs in an expression, outermost first."""
    return [d for d, index in enumerate(CLASS) if index in node.free]


def is_dear(e: Expr) -> bool:
    """Whether computing e anew for every pair of classes would cost much more than looking it up."""
    dear = (expr.Call, expr.Pow, expr.Reduce, expr.Softmax)
    return any(isinstance(n, dear) and depths(n) for n in expr.walk(e))


class Terms:
    """Makes terms, each only once."""

    def __init__(self) -> None:
        self._made: dict[Any, Term] = {}
        self._numbers: dict[Expr, Term] = {}
        self._conditions: dict[Expr, Term] = {}

    # -------------------------------------------------------------- makers

    def _make(
        self, kind: str, op: str, args: tuple[Term, ...], leaf: Any, scope: int, type_: Type, depth: int = 0
    ) -> Term:
        key = (kind, op, args, leaf, type(getattr(leaf, "value", None)), depth)
        if key not in self._made:
            self._made[key] = Term(kind, op, args, leaf, depth, scope, type_)
        return self._made[key]

    def constant(self, value: int | Fraction | float) -> Term:
        return self._make("leaf", "number", (), Number(value), 0, "float")

    def op(self, op: str, *args: Term) -> Term:
        """Return an operation on terms."""
        if op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        scope = max(a.scope for a in args)
        return self._make("op", op, args, None, scope, OPERATIONS[op][1])

    def fold(self, op: str, scope: int, value: Term, where: Term | None = None) -> Term:
        """Return the fold of `value` over the loop of depth `scope`."""
        args = (value,) if where is None else (value, where)
        type_: Type = {"argmax": "int", "argmin": "int", "nan": "bool"}.get(op, "float")  # type: ignore[assignment]
        return self._make("fold", op, args, None, scope, type_)

    def leaf(self, kind: type, name: str | None, node: expr.Index | None) -> Term:
        """Return a Load, Param or Position at an index."""
        index, found, scope = self._index(node)
        leaf = kind(index) if name is None else kind(name, index)
        type_: Type = "int" if kind is Position else "float"
        return self._make("leaf", kind.__name__, () if found is None else (found,), leaf, scope, type_)

    def _index(self, node: expr.Index | None) -> tuple[Index | None, Term | None, int]:
        match node:
            case None:
                return None, None, 0
            case expr.Free() if node in CLASS:
                depth = CLASS.index(node)
                return Each(depth), None, depth + 1
            case expr.Label(name):
                return AtLabel(name), None, 0
            case expr.Fixed(number):
                return AtClass(number), None, 0
            case expr.ArgReduce(op):
                if depths(node):
                    raise UnsupportedError("kernels have no argmax that depends on another class yet")
                value, where = self._opened(node, 0)
                found = self.fold("arg" + op, 0, value, where)
                return AtFound(""), found, 0
            case _:
                raise TypeError(f"an index that is not bound: {node!r}")

    # -------------------------------------------------------------- numbers

    def number(self, e: Expr) -> Term:
        """Return the term of an expression that is a number."""
        if e not in self._numbers:
            at = depths(e)
            if len(at) == 1 and at[0] > 0 and is_dear(e):
                base = self.number(build.substitute(e, {CLASS[at[0]]: CLASS[0]}))
                term = self._make("shift", "shift", (base,), None, at[0] + 1, "float", at[0])
            else:
                term = self._number(e)
            self._numbers[e] = term
        return self._numbers[e]

    def _number(self, e: Expr) -> Term:
        match e:
            case expr.Const(value):
                return self.constant(value)
            case expr.Hyper(name, indices):
                if len(indices) > 1:
                    raise UnsupportedError(f"{name}: hyperparameters with two indices have no kernel")
                return self.leaf(Param, name, indices[0] if indices else None)
            case expr.Entry(name, index):
                return self.leaf(Load, name, index)
            case expr.Size():
                return self.op("to_float", self._make("leaf", "size", (), Size(), 0, "int"))
            case expr.ClassNumber(index):
                return self.op("to_float", self.leaf(Position, None, index))
            case expr.Held(body):
                return self.number(body)
            case expr.Add(terms):
                return self._gap(e) or self._sum(terms)
            case expr.Mul(factors):
                return self._product(factors)
            case expr.Pow():
                return self._product((e,))
            case expr.Where(cond, then, other):
                return self.op("select", self.condition(cond), self.number(then), self.number(other))
            case expr.Call(function, args):
                return self.op(function, *map(self.number, args))
            case expr.Delta() | expr.Compare() | expr.Not():
                return self.op("indicator", self.condition(e))
            case expr.Reduce() | expr.Softmax():
                return self._reduction(e)
            case _:
                raise TypeError(f"a kernel cannot compute {e!r}")

    def _sum(self, terms: tuple[Expr, ...]) -> Term:
        """Left to right, as the expression has them, but with a positive term in front if there is one."""
        signed = [self._signed(t) for t in terms]
        signed.sort(key=lambda s: s[0] < 0)
        (sign, total), *rest = signed
        if sign < 0:
            total = self.op("neg", total)
        for sign, term in rest:
            total = self.op("add" if sign > 0 else "sub", total, term)
        return total

    def _signed(self, e: Expr) -> tuple[int, Term]:
        """Write a term of a sum as ±term."""
        number, rest = build.coefficient(e)
        if number < 0:
            factors = build.as_factors(rest)
            sign, term = -1, self._product((expr.Const(-number), *factors))
        else:
            sign, term = 1, self.number(e)
        return (-sign, term.args[0]) if term.op == "neg" else (sign, term)

    def _gap(self, e: expr.Add) -> Term | None:
        """Recognise x_i − max_k x_k, and its negative, which are 0 at the maximum even if that is infinite."""
        for term in e.terms:
            number, top = build.coefficient(term)
            if not (isinstance(top, expr.Reduce) and top.op == "max" and number in (1, -1)):
                continue
            others = [t if number == -1 else build.neg(t) for t in e.terms if t is not term]
            entry = build.add(*others)
            at_index = (i for i in entry.free - top.free if build.instantiate(top, i) is entry)  # type: ignore[arg-type]
            if next(at_index, None) is not None:
                gap = self.op("gap", self.number(entry), self._peak(top))
                return gap if number == -1 else self.op("neg", gap)
        return None

    def _peak(self, top: expr.Reduce) -> Term:
        at = depths(top)
        if len(at) == 1 and at[0] > 0:  # one per class: looked up, not found anew for every pair
            base = self._peak(build.substitute(top, {CLASS[at[0]]: CLASS[0]}))  # type: ignore[arg-type]
            return self._make("shift", "shift", (base,), None, at[0] + 1, "float", at[0])
        scope = 1 + at[-1] if at else 0
        return self.fold("peak", scope, *self._opened(top, scope))

    # -------------------------------------------------------------- products and powers

    def _product(self, factors: tuple[Expr, ...]) -> Term:
        """Numerator over denominator; indicators choose, so that 0 times infinity is 0."""
        sign = 1
        chosen: list[Expr] = []
        above: list[Term] = []
        below: list[Term] = []
        for f in factors:
            if isinstance(f, expr.Const):
                sign = -1 if f.value < 0 else 1
                if abs(f.value) != 1:
                    above.append(self.constant(abs(f.value)))
            elif build.is_indicator(f):
                chosen.append(f)
            elif isinstance(f, expr.Pow) and isinstance(f.exponent, expr.Const) and f.exponent.value < 0:
                below.append(self._power(f.base, expr.Const(-f.exponent.value)))
            else:
                term = self._power(f.base, f.exponent) if isinstance(f, expr.Pow) else self.number(f)
                if term.op == "neg":
                    sign, term = -sign, term.args[0]
                above.append(term)
        if chosen and not above and not below:
            result = self.op("indicator", self._all(chosen))
        else:
            # what does not change in the innermost loop first, so that it leaves the loop as one factor
            above.sort(key=lambda t: t.scope)
            result = reduce(lambda a, b: self.op("mul", a, b), above) if above else self.constant(1)
            if below:
                result = self._divide(result, reduce(lambda a, b: self.op("mul", a, b), below))
            if chosen:
                result = self.op("select", self._all(chosen), result, self.constant(0))
        return self.op("neg", result) if sign < 0 else result

    def _divide(self, a: Term, b: Term) -> Term:
        return self.op("over" if b.scope < a.scope and at_least(b, 1) else "div", a, b)

    def _power(self, base: Expr, exponent: Expr) -> Term:
        x = self.number(base)
        if isinstance(exponent, expr.Const):
            n = exponent.value
            if n == 1:
                return x
            if n == Fraction(1, 2):
                return self.op("sqrt", x)
            if n in (2, 3, 4):  # each product rounds once; beyond four, pow is better
                square = self.op("square", x)
                return {2: square, 3: self.op("mul", square, x), 4: self.op("square", square)}[int(n)]
            if n < 0:
                return self.op("div", self.constant(1), self._power(base, expr.Const(-n)))
        return self.op("pow", x, self.number(exponent))

    # -------------------------------------------------------------- conditions

    def condition(self, e: Expr) -> Term:
        """Return the term of an expression that is an indicator."""
        if e not in self._conditions:
            self._conditions[e] = self._condition(e)
        return self._conditions[e]

    def _condition(self, e: Expr) -> Term:
        match e:
            case expr.Delta(i, j):
                return self.op("int==", self.leaf(Position, None, i), self.leaf(Position, None, j))
            case expr.Compare(op, expr.ClassNumber(i), expr.ClassNumber(j)):
                return self.op("int" + op, self.leaf(Position, None, i), self.leaf(Position, None, j))
            case expr.Compare(op, a, b):
                return self.op(op, self.number(a), self.number(b))
            case expr.Not(cond):
                return self.op("not", self.condition(cond))
            case expr.Mul(factors):
                return self._all(list(factors))
            case _:
                return self.op("not", self.op("==", self.number(e), self.constant(0)))

    def _all(self, conditions: list[Expr]) -> Term:
        return reduce(lambda a, b: self.op("and", a, b), map(self.condition, conditions))

    # -------------------------------------------------------------- reductions

    def _opened(self, binder: expr.Binder, depth: int) -> tuple[Term, Term | None]:
        """Return the body and the condition of a binder, opened as a loop of that depth."""
        if depth > MAX_DEPTH:
            raise UnsupportedError(f"sums nested more than {MAX_DEPTH} deep have no kernel")
        _, cond, body = build.opened(binder, CLASS[depth])
        where = None if cond is expr.TRUE else self.condition(cond)
        return self.number(body), where

    def _reduction(self, e: expr.Reduce | expr.Softmax) -> Term:
        at = depths(e)
        scope = 1 + at[-1] if at else 0
        if isinstance(e, expr.Reduce) and e.op in ("sum", "max", "min"):
            return self.fold(e.op, scope, *self._opened(e, scope))
        # log Σ exp and softmax by the gaps below the maximum: 1 + rest = Σ exp(gap), the 1 exact
        index, cond, body = build.opened(e, CLASS[scope])
        top = build.reduce_("max", index, body, cond)
        gap = expr.Held(build.sub(body, top))
        is_top = build.compare("==", gap, expr.ZERO)
        others = build.reduce_("sum", index, build.call("exp", gap), build.mul(cond, build.not_(is_top)))
        ties = build.reduce_("sum", index, expr.ONE, build.mul(cond, is_top))
        rest = expr.Held(build.add(others, expr.Held(build.sub(ties, expr.ONE))))
        if isinstance(e, expr.Reduce):
            return self.number(build.add(top, build.call("log1p", rest)))
        at_gap = expr.Held(build.sub(build.instantiate(e, e.at), top))
        return self.number(build.div(build.call("exp", at_gap), build.add(expr.ONE, rest)))


# ------------------------------------------------------------------ what is known of a term


def at_least(term: Term, bound: int) -> bool:
    """Whether a term is surely ≥ bound (0 or 1), or NaN."""
    below = term.args
    match term.op:
        case "number":
            return term.leaf.value >= bound
        case "add":
            return any(at_least(a, bound) and at_least(b, 0) for a, b in (below, below[::-1]))
        case "square" if bound == 1:
            return at_least(below[0], 1)
        case "exp" | "abs" | "sqrt" | "square" | "indicator" | "sigmoid" | "softplus" | "log_cosh":
            return bound == 0
        case "sub":  # the number of ties, less one
            return bound == 0 and below[0].kind == "fold" and at_least(below[0].args[0], 1) and is_number(below[1], 1)
        case "sum":
            return bound == 0 and at_least(below[0], 0)
        case "mul" | "div" | "over":
            return all(at_least(a, bound if term.op == "mul" else 0) for a in below) and (
                bound == 0 or term.op == "mul"
            )
        case "select":
            return all(at_least(a, bound) for a in below[1:])
        case "to_float":
            return bound == 0 or below[0].op == "size"
        case _:
            return False


def is_number(term: Term, value: int) -> bool:
    """Whether a term is this constant."""
    return term.op == "number" and term.leaf.value == value


def propagates(term: Term, poisoned: frozenset[Term], memo: dict[Term, Any]) -> Any:
    """Return what a term is when the poisoned ones are NaN: math.nan, True, False, or None if that is open."""
    if term not in memo:
        memo[term] = (
            math.nan if term in poisoned else _propagates(term, [propagates(a, poisoned, memo) for a in term.args])
        )
    return memo[term]


def _propagates(term: Term, below: list[Any]) -> Any:
    nan = [b is math.nan for b in below]
    match term.op:
        case "shift":
            return below[0]
        case ">" | ">=" | "==":
            return False if any(nan) else None
        case "not":
            return None if below[0] is None else not below[0]
        case "and":
            return False if False in below else (None if None in below else True)
        case "or":
            return True if True in below else (None if None in below else False)
        case "is_nan":
            return True if nan[0] else None
        case "select":
            chosen = below[1:] if below[0] is None else [below[1] if below[0] else below[2]]
            return math.nan if all(b is math.nan for b in chosen) else None
        case "scaled":
            return math.nan if nan[0] else None
        case "pow":
            exponent = term.args[1]
            return math.nan if nan[0] and exponent.op == "number" and exponent.leaf.value != 0 else None
        case "sum" | "max" | "min" | "peak":
            return math.nan if nan[0] and below[1:] in ([], [True]) else None
        case "argmax" | "argmin" | "nan" | "indicator":
            return None
        case _:
            return math.nan if any(nan) else None
