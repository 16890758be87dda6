"""Expressions evaluated as they stand, to as many digits as it takes: the reference of all others.

`evaluate` works at one precision. `evaluate_adaptive` raises it until two precisions agree: a
definition such as log Σ exp(s_m) − s_y loses 87 digits where the label leads by 200, and is right
again with 150.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lossmith.check.arithmetic import Arithmetic, Dual, Real, context, exactly, primal
from lossmith.check.precision import FAR, common_limit, settled
from lossmith.language.expr import (
    TRUE,
    Add,
    ArgReduce,
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
    Pow,
    Reduce,
    Size,
    Softmax,
    Var,
    Where,
    level_of,
)
from lossmith.language.formula import Definition


@dataclass(frozen=True)
class Sample:
    """The numbers that a loss of one sample is evaluated at. Floats are taken exactly.

    Attributes
    ----------
    rows : mapping
        Of each input by name: K numbers, or one number for an elementwise input.
    label : int, optional
        The class y.
    hypers : mapping
        Of each hyperparameter by name: a number, or K numbers.
    K : int
        The number of classes; 0 means the length of the first row that has one.
    indices : mapping
        The class that each free index stands for.
    vars : mapping
        Of each named intermediate value: a number, a list of numbers, or its Definition.
    """

    rows: Mapping[str, Any] = field(default_factory=dict[str, Any])
    label: int | None = None
    hypers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    K: int = 0
    indices: Mapping[Index, int] = field(default_factory=dict[Index, int])
    vars: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        if self.K == 0:
            lengths = [len(row) for row in self.rows.values() if _is_sequence(row)]
            object.__setattr__(self, "K", lengths[0] if lengths else 1)

    def at(self, **indices: int) -> Sample:
        """Return the sample with named free indices set: sample.at(j=2)."""
        named: dict[Index, int] = {Free(name, 0): k for name, k in indices.items()}
        return replace(self, indices={**self.indices, **named})

    def with_entry(self, name: str, index: int | None, value: Any) -> Sample:
        """Return the sample with one number of one input replaced."""
        row: Any = value
        if index is not None:
            row = list(self.rows[name])
            row[index] = value
        return replace(self, rows={**self.rows, name: row})


def _is_sequence(value: Any) -> bool:
    return hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0


def evaluate(expr: Expr, sample: Sample, digits: int = 50) -> Real:
    """Return the value of `expr` at `sample`, computed with so many digits.

    Derivative nodes are evaluated with dual numbers, not with the rules of calculus/. At −∞ and
    +∞ what lossmith.check.arithmetic says holds: 0·∞ is 0, a score of −∞ adds nothing to a
    log-sum-exp.

    Raises
    ------
    TypeError
        For a node that is no expression.
    KeyError
        For a name or a free index that the sample does not have.
    """
    return primal(Interpreter(sample, digits).value(expr))


def evaluate_adaptive(expr: Expr, sample: Sample, digits: int = 40, *, limits: bool = False) -> Real:
    """Return the value of `expr` at `sample` with `digits` correct digits.

    Values below 1e-400 that no precision settles are returned as 0. A sample with a NaN gives NaN.

    Parameters
    ----------
    limits : bool
        Take entries of ±∞ as the limit of large numbers: see `Reference`.

    Raises
    ------
    Unsettled
        If 1000 digits do not suffice.
    """
    return Reference(sample, digits, limits=limits).value(expr)


class Reference:
    """Evaluates expressions at one sample with so many correct digits, shared parts once.

    Parameters
    ----------
    limits : bool
        Take entries of ±∞ as the limit of large numbers, so that 0·(−∞) of an indicator and ∞ − ∞
        come out as they do in mathematics; an infinite result is then a finite number beyond
        every float. Rows of −∞ alone and rows with two +∞ are tried on three ways: where these
        differ, there is no limit, and the value is NaN.
    """

    def __init__(self, sample: Sample, digits: int = 40, *, limits: bool = False) -> None:
        self.sample, self.digits = sample, digits
        self.undefined = has_nan(sample)
        self.ways = ways_to_limit(sample) if limits else [sample]
        self._interpreters: dict[tuple[int, int], Interpreter] = {}

    def value(self, expr: Expr, indices: Mapping[Index, int] | None = None) -> Real:
        """Return the value, with free indices set to classes."""
        if self.undefined:
            return context(self.digits).nan
        return common_limit([self._on_way(w, expr, indices or {}) for w in range(len(self.ways))])

    def _on_way(self, way: int, expr: Expr, indices: Mapping[Index, int]) -> Real:
        def at_digits(level: int) -> tuple[Real, bool]:
            if (way, level) not in self._interpreters:
                self._interpreters[way, level] = Interpreter(self.ways[way], level)
            worked = self._interpreters[way, level]
            worked.set_indices(indices)
            found = primal(worked.value(expr))
            return found, worked.arithmetic.doubts(found)

        return settled(at_digits, self.digits, limit=self.ways[way] is not self.sample)


def numeric_derivative(expr: Expr, sample: Sample, name: str, wrt: int | None, digits: int = 30) -> Real:
    """Return ∂expr/∂name_wrt from differences of values: a third way, for smooth points only."""
    ctx = context(digits).clone()

    def along(x: Real) -> Real:
        return evaluate(expr, sample.with_entry(name, wrt, x), 2 * int(ctx.dps) + 20)

    row = sample.rows[name]
    return ctx.diff(along, exactly(row if wrt is None else row[wrt], ctx))


def _numbers(row: Any) -> list[Any]:
    return list(row) if _is_sequence(row) else [row]


def _sign_of_infinity(x: Any) -> int:
    return int(x == float("inf")) - int(x == -float("inf"))


def has_nan(sample: Sample) -> bool:
    """Whether a number of the sample is NaN."""
    return any(x != x for row in sample.rows.values() for x in _numbers(row))


def ways_to_limit(sample: Sample) -> list[Sample]:
    """Return the sample with about ±10**400 in the place of ±∞, more than once if ways may differ.

    The last one has ±10**420: see `common_limit`.
    """
    signs = [[_sign_of_infinity(x) for x in _numbers(row)] for row in sample.rows.values()]
    if not any(any(row) for row in signs):
        return [sample]
    contested = any(row.count(1) > 1 or row.count(-1) == len(row) > 1 for row in signs)
    return [*(_far_away(sample, step) for step in ((0, 1, -1) if contested else (0,))), _far_away(sample, 0, FAR + 20)]


def _far_away(sample: Sample, step: int, exponent: int = FAR) -> Sample:
    """Put large numbers in the place of infinities: equal ones, growing or falling along the row."""
    far = context(FAR).mpf(10) ** exponent

    def tamed(row: Any) -> Any:
        if not _is_sequence(row):
            return _sign_of_infinity(row) * far if _sign_of_infinity(row) else row
        signs = [_sign_of_infinity(x) for x in row]
        factors = [len(row) + 1 + step * k for k in range(len(row))]
        return [s * f * far if s else x for x, s, f in zip(row, signs, factors, strict=True)]

    return replace(sample, rows={name: tamed(row) for name, row in sample.rows.items()})


class Interpreter:
    """Evaluates expressions at one sample and one precision; remembers what it has evaluated."""

    def __init__(self, sample: Sample, digits: int = 50) -> None:
        self.sample = sample
        self.arithmetic = Arithmetic(digits)
        self._ctx = self.arithmetic.ctx
        self._at: dict[Index, int] = dict(sample.indices)
        # One derivative per ε: the input entry that carries it, innermost last.
        self._seeds: tuple[tuple[str, int | None], ...] = ()
        self._memo: dict[Any, Any] = {}

    def set_indices(self, indices: Mapping[Index, int]) -> None:
        """Let free indices stand for other classes; what does not depend on them is remembered."""
        self._at.update(indices)

    def value(self, expr: Expr) -> Any:
        """Return the value: a real number, or a dual number inside a derivative."""
        key = self._key(expr)
        if key not in self._memo:
            self._memo[key] = self._evaluate(expr)
        return self._memo[key]

    def index(self, index: Index) -> int:
        """Return the class that an index stands for."""
        match index:
            case Fixed(number):
                return number
            case Label():
                if self.sample.label is None:
                    raise KeyError("the expression has a label, the sample has none")
                return self.sample.label
            case Free() | Bound():
                return self._at[index]
            case ArgReduce(op, cond, body):
                bound, members = Bound(level_of(index)), self._members(index, cond)
                values = [self._under(bound, m, body) for m in members]
                if not values:
                    return 0
                first = self.arithmetic.first_of_largest(values, smallest=op == "min")
                return 0 if first is None else members[first]
            case _:
                raise TypeError(f"not an index: {index!r}")

    def _key(self, node: Node) -> Any:
        return node, self._seeds, tuple(self._at.get(i) for i in node.free)

    def _number(self, value: Any) -> Real:
        return exactly(value, self._ctx)

    def _evaluate(self, expr: Expr) -> Any:
        o = self.arithmetic
        match expr:
            case Const(value):
                return self._number(value)
            case Hyper(name, indices):
                return self._looked_up(self.sample.hypers[name], indices)
            case Var(name, indices):
                return self._var(name, indices)
            case Entry(name, index):
                return self._entry(name, None if index is None else self.index(index))
            case Size():
                return self._number(self.sample.K)
            case ClassNumber(index):
                return self._number(self.index(index))
            case Delta(i, j):
                return self._number(int(self.index(i) == self.index(j)))
            case Compare(op, a, b):
                holds = self._holds(op, primal(self.value(a)), primal(self.value(b)))
                return self._number(int(holds))
            case Not(cond):
                return self._number(1 - int(primal(self.value(cond))))
            case Add(terms):
                return o.sum(self.value(t) for t in terms)
            case Mul(factors):
                product: Any = o.one
                for f in factors:
                    product = o.mul(product, self.value(f))
                return product
            case Pow(base, exponent):
                return o.power(self.value(base), self.value(exponent))
            case Call(function, args):
                return o.call(function, *(self.value(a) for a in args))
            case Where(cond, then, other):  # what is not chosen is not even evaluated
                return self.value(then if primal(self.value(cond)) else other)
            case Held(body):
                return self.value(body)
            case Derivative(body, name, wrt):
                return self._derivative(body, name, None if wrt is None else self.index(wrt))
            case Reduce():
                return self._reduce(expr)
            case Softmax():
                return self._softmax(expr)
            case _:
                raise TypeError(f"not an expression: {expr!r}")

    # -------------------------------------------------------------- leaves

    def _looked_up(self, value: Any, indices: tuple[Index, ...]) -> Real:
        if _is_sequence(value):
            for i in indices:
                value = value[self.index(i)]
        return self._number(value)

    def _entry(self, name: str, k: int | None) -> Any:
        row = self.sample.rows[name]
        number: Any = self._number(row[k] if k is not None and _is_sequence(row) else row)
        for tag, seed in enumerate(self._seeds):
            if seed == (name, k):
                number = Dual(tag, number, self.arithmetic.one)
        return number

    def _var(self, name: str, indices: tuple[Index, ...]) -> Any:
        value = self.sample.vars[name]
        if not isinstance(value, Definition):
            return self._looked_up(value, indices)
        if value.index is None:
            return self.value(value.expr)
        return self._under(value.index, self.index(indices[0]), value.expr)

    @staticmethod
    def _holds(op: str, a: Real, b: Real) -> bool:
        match op:
            case ">":
                return bool(a > b)
            case ">=":
                return bool(a >= b)
            case "==":
                return bool(a == b)
            case _:
                raise TypeError(f"not a comparison: {op!r}")

    # -------------------------------------------------------------- derivatives and binders

    def _derivative(self, body: Expr, name: str, k: int | None) -> Any:
        outside = self._seeds
        self._seeds = (*outside, (name, k))
        try:
            found = self.value(body)
        finally:
            self._seeds = outside
        is_ours = isinstance(found, Dual) and found.tag == len(outside)
        return found.tangent if is_ours else self.arithmetic.zero

    def _under(self, index: Index, k: int, body: Expr) -> Any:
        """Return the value of `body` where `index` stands for the class k."""
        outside = self._at.get(index)
        self._at[index] = k
        try:
            return self.value(body)
        finally:
            if outside is None:
                del self._at[index]
            else:
                self._at[index] = outside

    def _members(self, binder: Reduce | Softmax | ArgReduce, cond: Expr) -> list[int]:
        classes = range(self.sample.K)
        if cond is TRUE:
            return list(classes)
        bound = Bound(level_of(binder))
        return [k for k in classes if primal(self._under(bound, k, cond))]

    def _values(self, binder: Reduce | Softmax | ArgReduce) -> Iterable[Any]:
        bound = Bound(level_of(binder))
        return (self._under(bound, k, binder.body) for k in self._members(binder, binder.cond))

    def _reduce(self, node: Reduce) -> Any:
        o = self.arithmetic
        if node.op == "sum":
            return o.sum(self._values(node))
        values = list(self._values(node))
        if node.op == "logsumexp":
            return o.logsumexp(values)
        if node.op not in ("max", "min"):
            raise TypeError(f"not a reduction: {node.op!r}")
        if not values:
            return -o.inf if node.op == "max" else o.inf
        first = o.first_of_largest(values, smallest=node.op == "min")
        return o.nan if first is None else values[first]

    def _softmax(self, node: Softmax) -> Any:
        bound = Bound(level_of(node))
        # The exponentials are the same for every `at`: one evaluation serves the whole row.
        around = [i for i in node.cond.free | node.body.free if i is not bound]
        key = ("softmax", node.cond, node.body, self._seeds, tuple(self._at.get(i) for i in around))
        if key not in self._memo:
            o, members = self.arithmetic, self._members(node, node.cond)
            values = list(self._values(node))
            shift, powers = o.shifted_exponentials(values) if members else (o.zero, [])
            # Inverting the total once keeps a row of K classes at K divisions.
            inverse = o.power(o.sum(powers), -o.one)
            self._memo[key] = shift, dict(zip(members, powers, strict=True)), inverse
        shift, powers, inverse = self._memo[key]
        k = self.index(node.at)
        if k in powers:
            return self.arithmetic.mul(powers[k], inverse)
        # A class that the sum leaves out still has its exponential on top.
        on_top = self.arithmetic.add(self._under(bound, k, node.body), -shift)
        return self.arithmetic.mul(self.arithmetic.call("exp", on_top), inverse)
