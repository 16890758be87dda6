"""From expressions to layouts: order, signs, parentheses, fractions and the names of indices.

Every decision about the printed form is made here, once, for all printers. The precedence table
stands in layout.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from lossmith.language import layout as lay
from lossmith.language.abbreviate import abbreviate
from lossmith.language.build import as_factors, coefficient, const, opened
from lossmith.language.build import power as power_of
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import (
    TRUE,
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
    Not,
    Number,
    Pow,
    Reduce,
    Size,
    Softmax,
    Var,
    Where,
    level_of,
    walk,
)
from lossmith.language.formula import Definition
from lossmith.language.layout import (
    Application,
    Bars,
    BigOperator,
    Cases,
    Differential,
    Fenced,
    Indicator,
    Layout,
    Listing,
    Numeral,
    Relation,
    Root,
    Subscripted,
    Sum,
    Symbol,
    fenced,
)
from lossmith.language.naming import (
    BOUND_NAMES,
    GLYPHS,
    name_fresh_indices,
    symbols_of,
    unused,
)
from lossmith.language.ordering import (
    PLAIN_TERMS,
    factor_rank,
    factors_of,
    index_rank,
    is_fixed,
    spelling,
    term_rank,
    turn_one,
)

__all__ = ["abbreviate", "layout_of"]


def layout_of(expr: Expr, names: Sequence[Definition] = ()) -> Layout:
    """Return the layout of an expression, with what `names` defines abbreviated."""
    expr = name_fresh_indices(abbreviate(expr, names))
    symbols = symbols_of(expr)
    scope = frozenset(s.text for s in symbols.values())
    return _Writer(scope, symbols).whole(expr)


def _numeral(value: Number) -> Numeral:
    """Return the layout of a nonnegative number that is not a fraction."""
    if isinstance(value, float):
        if math.isinf(value):
            return Numeral("∞")
        digits, _, exponent = repr(value).partition("e")
        return Numeral(digits.removesuffix(".0"), int(exponent) if exponent else None)
    return Numeral(str(value))


@dataclass(frozen=True)
class _Writer:
    """Turns expressions into layouts within a scope: the names in use around them."""

    scope: frozenset[str]
    symbols: dict[str, Symbol]
    stripped: Index | None = None
    """The index that is left out: s_m inside softmax(s)_j."""

    def whole(self, expr: Expr) -> Layout:
        """Return the layout of an expression that stands alone, or between fences."""
        if isinstance(expr, Add):
            return self.sum(expr)
        negative, body = self.term(expr)
        return Sum(((True, body),)) if negative else body

    # -------------------------------------------------------------- names and indices

    def symbol(self, name: str) -> Symbol:
        return self.symbols.get(name) or Symbol(GLYPHS.get(name, name))

    def index(self, index: Index) -> Layout:
        match index:
            case Label(name) if "_" in name:  # the label of sample i
                base, below = name.split("_", 1)
                return Subscripted(self.symbol(base), (Symbol(below),))
            case Free(name) | Label(name):
                return self.symbol(name)
            case Fixed(number):
                return Numeral(str(number))
            case ArgReduce(op):
                return self.big_operator(f"arg{op}", index)
            case _:
                raise TypeError(f"an index without a name: {index!r}")

    def indexed(self, name: str, indices: Sequence[Index]) -> Layout:
        kept = tuple(self.index(i) for i in indices if i is not self.stripped)
        return Subscripted(self.symbol(name), kept) if kept else self.symbol(name)

    def open(self, binder: Binder) -> tuple[_Writer, Free, Expr, Expr]:
        """Return a writer inside `binder`, and its index with a name, condition and body."""
        others = any(
            isinstance(n, Not) and isinstance(n.cond, Delta) and isinstance(n.cond.j, Label)
            for n in walk(binder.cond)
            if Bound(level_of(binder)) in n.free
        )
        candidates = ("k", *BOUND_NAMES) if others else BOUND_NAMES
        index = Free(unused(candidates, self.scope), 0)
        _, cond, body = opened(binder, index)
        return replace(self, scope=self.scope | {index.name}, stripped=None), index, cond, body

    # -------------------------------------------------------------- sums and products

    def sum(self, expr: Add) -> Layout:
        """Put a positive term first: a number, unless it is added to plain symbols."""
        terms = sorted(expr.terms, key=term_rank)
        plain = any(isinstance(coefficient(t)[1], PLAIN_TERMS) for t in terms)
        signed = [(*self.term(t), t) for t in terms]
        leaders = [n for n, (negative, _, _) in enumerate(signed) if not negative]
        if leaders:
            last = leaders[-1]
            first = last if isinstance(signed[last][2], Const) and not plain else leaders[0]
            signed.insert(0, signed.pop(first))
        placed: list[tuple[bool, Layout]] = []
        for n, (negative, body, _) in enumerate(signed):
            body = fenced(body, lay.MUL)
            if isinstance(body, Cases) and n < len(signed) - 1:
                body = Fenced(body, "stacked")
            placed.append((negative, body))
        return Sum(tuple(placed))

    def term(self, expr: Expr) -> tuple[bool, Layout]:
        """Return the sign (True for minus) and the layout of an expression without it."""
        number: Number = 1
        top: list[Expr] = []
        bottom: list[Expr] = []
        apart: list[Expr] = []
        for f in factors_of(expr):
            match f:
                case Const(value):
                    number = number * value  # type: ignore[operator]
                case Pow(base, Const(n)) if n < 0:
                    bottom.append(power_of(base, const(-n)))
                case Held() | Derivative():
                    apart.append(f)
                case _:
                    top.append(f)
        negative = number < 0
        number = abs(number)
        if negative:
            negative = not (turn_one(top) or turn_one(bottom))
        factors: list[Layout] = []
        if number != 1 or top or bottom or not apart:
            factors.append(self.quotient(number, top, bottom))
        for f in sorted(apart, key=lambda f: (isinstance(f, Derivative), f.size, spelling(f))):
            factors.append(self.part(f))
        if len(factors) == 1 and negative:
            factors = [fenced(factors[0], lay.MUL)]
        return negative, lay.product(factors, [n > 0 for n in range(len(factors))])

    def quotient(self, number: Number, top: list[Expr], bottom: list[Expr]) -> Layout:
        """Return number·top/bottom; fixed factors stand in front of sums and logarithms."""
        divisor: Number = 1
        if isinstance(number, Fraction):
            number, divisor = number.numerator, number.denominator
        if divisor == 1 and not bottom:
            return self.product(number, top)
        below = self.product(divisor, bottom)
        if all(is_fixed(b) for b in bottom) and any(factor_rank(f)[0] >= 5 for f in top):
            fixed = [f for f in top if is_fixed(f)]
            rest = sorted((f for f in top if not is_fixed(f)), key=factor_rank)
            first = lay.fraction(self.product(number, fixed), below)
            return lay.product([first, *map(self.part, rest)], [False] * (1 + len(rest)))
        return lay.fraction(self.product(number, top), below)

    def product(self, number: Number, factors: list[Expr]) -> Layout:
        parts = [self.part(f) for f in sorted(factors, key=factor_rank)]
        if number != 1 or not parts:
            parts = [_numeral(number), *parts]
        return lay.product(parts, [False] * len(parts))

    # -------------------------------------------------------------- one factor

    def part(self, expr: Expr) -> Layout:
        """Return the layout of an expression that is no product."""
        match expr:
            case Add():
                return self.sum(expr)
            case Const() | Mul():
                return self.whole(expr)
            case Held(body):
                return self.whole(body)
            case Hyper(name, indices) | Var(name, indices):
                return self.indexed(name, indices)
            case Entry(name, index):
                return self.indexed(name, () if index is None else (index,))
            case Size():
                return self.symbol("K")
            case ClassNumber(index):
                return self.index(index)
            case Pow(base, exponent):
                return self.power(base, exponent)
            case Call():
                return self.call(expr)
            case Where():
                return self.cases(expr)
            case Reduce():
                return self.reduction(expr)
            case Softmax():
                return self.softmax(expr)
            case Derivative():
                return self.derivative(expr)
            case Delta() | Compare() | Not():
                return Indicator(self.condition(expr))
            case _:
                raise TypeError(f"not an expression: {expr!r}")

    def power(self, base: Expr, exponent: Expr) -> Layout:
        if isinstance(exponent, Const):
            if exponent.value == Fraction(1, 2):
                return Root(self.whole(base))
            if exponent.value < 0:
                return self.whole(Pow(base, exponent))
        return lay.power(self.whole(base), self.whole(exponent))

    def call(self, call: Call) -> Layout:
        args = list(call.args)
        if call.function in ("maximum", "minimum"):
            args.sort(key=lambda a: (not isinstance(a, Const), not is_fixed(a), spelling(a)))
        parts = tuple(self.whole(a) for a in args)
        match call.function:
            case "scaled":
                return self.whole(call)
            case "abs":
                return Bars(parts[0])
            case "log":
                return Application(Symbol("log"), parts, bare=_may_stand_bare(parts[0]))
            case "log_cosh":
                return Application(Symbol("log"), (Application(Symbol("cosh"), parts),), bare=True)
            case name:
                return Application(Symbol(_function_name(name)), parts)

    def cases(self, where: Where) -> Layout:
        branches: list[tuple[Layout, Layout]] = []
        rest: Expr = where
        while isinstance(rest, Where):
            branches.append((self.whole(rest.then), self.condition(rest.cond, tight=False)))
            rest = rest.other
        return Cases(tuple(branches), self.whole(rest))

    def derivative(self, expr: Expr) -> Layout:
        by: list[tuple[Layout, int]] = []
        while isinstance(expr, Derivative):
            variable = self.indexed(expr.name, () if expr.wrt is None else (expr.wrt,))
            if by and by[0][0] == variable:
                by[0] = (variable, by[0][1] + 1)
            else:
                by.insert(0, (variable, 1))
            expr = expr.body
        return Differential(self.whole(expr), tuple(by))

    # -------------------------------------------------------------- conditions

    def condition(self, cond: Expr, lead: Index | None = None, tight: bool = True) -> Layout:
        """Return what stands inside 1{…}; `lead` is the index that comes first."""
        match cond:
            case Mul(factors):
                parts = [self.condition(f, lead, tight) for f in sorted(factors, key=factor_rank)]
                parts = [Fenced(p) if isinstance(p, Listing) else p for p in parts]
                return Listing(tuple(parts), "," if tight else "and")
            case Not(Mul(factors)):
                parts = [self.condition(Not(f), lead, tight) for f in factors]
                return Listing(tuple(parts), "or")
            case Not(Not(inner)):
                return self.condition(inner, lead, tight)
            case Delta(i, j):
                return self.equality("=", i, j, lead, tight)
            case Not(Delta(i, j)):
                return self.equality("≠", i, j, lead, tight)
            case Compare(op, a, b):
                return self.comparison(_SIGNS[op], a, b)
            case Not(Compare(op, a, b)):
                return self.comparison(_COMPLEMENT[_SIGNS[op]], a, b)
            case _:
                return Relation("≠", self.whole(cond), Numeral("0"))

    def equality(self, sign: str, i: Index, j: Index, lead: Index | None, tight: bool) -> Layout:
        first, second = sorted((i, j), key=lambda n: (n is not lead, index_rank(n)))
        left, right = self.index(first), self.index(second)
        simple = isinstance(left, Symbol | Numeral) and isinstance(right, Symbol | Numeral)
        return Relation(sign, left, right, tight=tight and simple)

    def comparison(self, sign: str, a: Expr, b: Expr) -> Layout:
        if is_fixed(a) and not is_fixed(b):
            sign, a, b = _MIRROR[sign], b, a
        return Relation(sign, self.whole(a), self.whole(b))

    # -------------------------------------------------------------- binders

    def big_operator(self, symbol: str, binder: Binder, exp: bool = False) -> BigOperator:
        inner, index, cond, expr = self.open(binder)
        body = inner.whole(expr)
        if exp:
            body = Application(Symbol("exp"), (body,))
        return BigOperator(symbol, inner.under(index, cond), fenced(body, lay.MUL))

    def under(self, index: Free, cond: Expr) -> Layout:
        """Return k, or k≠y, or k: condition, for what stands under a Σ."""
        if cond is TRUE:
            return self.index(index)
        parts = sorted(as_factors(cond), key=factor_rank)
        apart = [c for c in parts if isinstance(c, Not) and isinstance(c.cond, Delta)]
        apart = [c for c in apart if index in c.free]
        rest = [self.condition(c, index) for c in parts if c not in apart]
        head = [self.condition(c, index) for c in apart] or [self.index(index)]
        shown: Layout = head[0] if len(head) == 1 else Listing(tuple(head), ",")
        if not rest:
            return shown
        tail: Layout = rest[0] if len(rest) == 1 else Listing(tuple(rest), ",")
        return Listing((shown, tail), ":")

    def reduction(self, reduce: Reduce) -> Layout:
        if reduce.op == "logsumexp":
            return Application(Symbol("log"), (self.big_operator("Σ", reduce, exp=True),), bare=True)
        return self.big_operator("Σ" if reduce.op == "sum" else reduce.op, reduce)

    def softmax(self, node: Softmax) -> Layout:
        inner, index, cond, body = self.open(node)
        function: Layout = Symbol("softmax")
        if cond is TRUE and _only_plain_uses(body, index):
            inner = replace(inner, stripped=index)
        else:
            function = Subscripted(function, (inner.under(index, cond),))
        return Subscripted(Application(function, (inner.whole(body),)), (self.index(node.at),))


_SIGNS = {">": ">", ">=": "≥", "==": "="}
_COMPLEMENT = {">": "≤", "≥": "<", "=": "≠"}
_MIRROR = {">": "<", "<": ">", "≥": "≤", "≤": "≥", "=": "=", "≠": "≠"}


def _may_stand_bare(argument: Layout) -> bool:
    """Whether log x needs no parentheses around x."""
    simple = isinstance(argument, Symbol | Subscripted | Bars | BigOperator)
    return simple or (isinstance(argument, Numeral) and argument.exponent is None)


def _function_name(name: str) -> str:
    """Return the name that a reader knows: σ for sigmoid, arsinh for arcsinh."""
    if name == "sigmoid":
        return "σ"
    latex = FUNCTIONS[name].latex
    return re.sub(r"^\\(operatorname\{(\w+)\}|(\w+))$", lambda m: m[2] or m[3], latex)


def _only_plain_uses(body: Expr, index: Index) -> bool:
    """Whether every entry in a body has the bound index, so that it can be left out."""
    for node in walk(body):
        match node:
            case Entry(_, at):
                if at is not index:
                    return False
            case Hyper(_, indices) | Var(_, indices):
                if indices not in ((), (index,)):
                    return False
            case Delta() | ClassNumber() | Reduce() | Softmax() | ArgReduce() | Derivative():
                return False
            case _:
                pass
    return True
