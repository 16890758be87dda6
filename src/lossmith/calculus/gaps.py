"""Gaps: every log Σ exp, softmax and complement of a softmax as a sum of terms of one sign.

With m = max_k x_k, d_k = x_k − m and R = Σ_{k: d_k≠0} exp(d_k) + (#{k: d_k=0} − 1):

    log Σ exp(x) − x_i = log1p(R) − d_i      p_i = exp(d_i)/(1 + R)      1 − p_i = (R + (1 − exp(d_i)))/(1 + R)

R leaves one of the maxima out, so nothing of size one hides the small terms; no index of the maximum is needed.
"""

from __future__ import annotations

from lossmith.calculus.logforms import complement_of
from lossmith.calculus.patterns import indices_of
from lossmith.language.build import (
    add,
    arg_reduce,
    as_factors,
    as_terms,
    call,
    coefficient,
    compare,
    const,
    div,
    instantiate,
    mul,
    neg,
    not_,
    opened,
    rebuild,
    reduce_,
    sub,
    substitute,
)
from lossmith.language.expr import (
    ONE,
    ZERO,
    Add,
    ArgReduce,
    Binder,
    Call,
    Const,
    Entry,
    Expr,
    Held,
    Hyper,
    Index,
    Mul,
    Node,
    Pow,
    Reduce,
    Softmax,
    walk,
)


def with_gaps(expr: Expr, positive: frozenset[str] = frozenset()) -> Expr:
    """Replace log Σ exp, softmax and its complement by forms over gaps to the maximum."""
    result = _Gaps(positive).visit(expr)
    assert isinstance(result, Expr)
    return result


class _Gaps:
    """The pass `with_gaps`; `positive` names the hyperparameters that are above 0."""

    def __init__(self, positive: frozenset[str]) -> None:
        self.positive = positive
        self.memo: dict[Node, Node] = {}

    def visit(self, n: Node) -> Node:
        if n not in self.memo:
            self.memo[n] = self._step(n) if isinstance(n, Expr) else self._place(n) if isinstance(n, ArgReduce) else n
        return self.memo[n]

    def _place(self, at: ArgReduce) -> Index:
        """Return the class without the scale: scaled and rounded, scores that differ may be alike."""
        index, cond, _, moving = self._parts(at)
        return arg_reduce(at.op, index, moving, cond)

    def _step(self, e: Expr) -> Node:
        if isinstance(e, Add):
            return self._scaled_gap(e) or self._sum(e)
        if isinstance(e, Call) and e.function == "log" and isinstance(e.args[0], Held):
            p = complement_of(e.args[0])
            if isinstance(p, Softmax):
                return self.log_complement(p)
        if isinstance(e, Reduce) and e.op == "logsumexp":
            return add(self.top(e), call("log1p", self.rest(e)))
        if isinstance(e, Softmax):
            return div(call("exp", self.gap(e, e.at)), add(ONE, self.rest(e)))
        return rebuild(e, self.visit)

    def _parts(self, binder: Binder) -> tuple[Index, Expr, Expr, Expr]:
        """Return index, condition, and the body as scale·moving, the scale above 0 and free of the index."""
        index, cond, body = opened(binder)
        body = self.visit(body)
        assert isinstance(body, Expr)
        factors = as_factors(body)
        scale = mul(*(f for f in factors if index not in f.free and self._is_positive(f)))
        return index, cond, scale, div(body, scale)

    def _is_positive(self, e: Expr) -> bool:
        match e:
            case Const(value):
                return value > 0
            case Hyper(name, ()):
                return name in self.positive
            case Pow(base, Const()):
                return self._is_positive(base)
            case _:
                return False

    def top(self, binder: Reduce | Softmax) -> Expr:
        """Return the largest body."""
        index, cond, scale, moving = self._parts(binder)
        return mul(scale, reduce_("max", index, moving, cond))

    def _top_beside(self, lse: Reduce, number: object, terms: list[Expr]) -> Expr:
        """Return the largest body, less the scores that stand beside log Σ exp under the same scale."""
        index, cond, scale, moving = self._parts(lse)
        top = reduce_("max", index, moving, cond)
        for term in terms if scale is not ONE else ():
            beside = div(term, mul(const(number), scale))  # type: ignore[arg-type]
            if isinstance(beside, Add | Entry) and all(
                isinstance(n, Entry | Index | Const | Hyper | Mul | Add) for n in walk(beside)
            ):
                terms.remove(term)
                parts = as_terms(beside)
                scores = [t for t in parts if _is_score(coefficient(t)[1])]
                return mul(scale, Held(add(Held(add(top, *scores)), *(t for t in parts if t not in scores))))
        return mul(scale, top)

    def gap(self, binder: Reduce | Softmax, at: Index) -> Expr:
        """Return what the body at a class falls short of the largest: scaled after the difference is taken."""
        index, cond, body = opened(binder)
        if at is arg_reduce("max", index, body, cond):
            return ZERO
        index, cond, scale, moving = self._parts(binder)
        at = self._place(at) if isinstance(at, ArgReduce) else at
        difference = Held(sub(substitute(moving, {index: at}), reduce_("max", index, moving, cond)))
        return difference if scale is ONE else Held(mul(scale, difference))

    def _scaled_gap(self, e: Add) -> Expr | None:
        """Return c·(x_i − max x) for c·x_i − max(c·x): x/3 is rounded where x is a large whole number."""
        for term in e.terms:
            number, top = coefficient(term)
            if number != -1 or not (isinstance(top, Reduce) and top.op == "max") or self._parts(top)[2] is ONE:
                continue
            rest = sub(e, term)
            at = next((i for i in indices_of(rest) if instantiate(top, i) is rest), None)
            return None if at is None else self.gap(top, at)
        return None

    def rest(self, binder: Reduce | Softmax) -> Expr:
        """Return R = Σ exp(d_k) less the 1 of one maximum."""
        index, cond, _ = opened(binder)
        gap = self.gap(binder, index)
        at_top = compare("==", gap, ZERO)
        below = reduce_("sum", index, call("exp", gap), mul(cond, not_(at_top)))
        ties = reduce_("sum", index, ONE, mul(cond, at_top))
        return Held(add(below, Held(sub(ties, ONE))))

    def complement(self, p: Softmax) -> Expr:
        """Return 1 − p as a sum of what is not p."""
        rest = self.rest(p)
        missing = Held(sub(ONE, call("exp", self.gap(p, p.at))))
        return div(Held(add(rest, missing)), add(ONE, rest))

    def log_complement(self, p: Softmax) -> Expr:
        """Return log(1 − p) for the largest p: R may underflow where its logarithm does not."""
        index, cond, _ = opened(p)
        gap = self.gap(p, index)
        below = reduce_("logsumexp", index, gap, mul(cond, not_(compare("==", gap, ZERO))))
        return sub(below, call("log1p", self.rest(p)))

    def _sum(self, e: Add) -> Node:
        terms = list(e.terms)
        done: list[Expr] = []
        large: list[Expr] = []  # maxima of the scores: their differences are taken before anything small is added
        for term in e.terms:
            number, part = coefficient(term)
            if isinstance(part, Softmax) and const(-number) in terms:
                terms.remove(term)
                terms.remove(const(-number))
                done.append(mul(const(-number), self.complement(part)))
                continue
            outer, part = _with_factors(part)
            if part is not None:
                terms.remove(term)
                if outer is not ONE:
                    large.append(mul(const(number), outer, self.top(part)))
                    done.append(mul(const(number), outer, call("log1p", self.rest(part))))
                    continue
                paired = _pair(part, number, terms)
                log_rest = call("log1p", self.rest(part))
                if paired is None:
                    large.append(mul(const(number), self._top_beside(part, number, terms)))
                    done.append(mul(const(number), log_rest))
                    continue
                at, used = paired
                for t in used:
                    terms.remove(t)
                done.append(mul(const(number), Held(sub(log_rest, self.gap(part, at)))))
        scores = [t for t in terms if _is_score(coefficient(t)[1])]
        if large or (len(scores) > 1 and len(scores) < len(terms)):
            terms = [t for t in terms if t not in scores]
            done.append(Held(add(*large, *scores)))
        done += [self.visit(t) for t in terms]  # type: ignore[misc]
        return add(*done)


def _with_factors(e: Expr) -> tuple[Expr, Reduce | None]:
    """Return (c, lse) for c·lse."""
    factors = as_factors(e)
    found = [f for f in factors if isinstance(f, Reduce) and f.op == "logsumexp"]
    if len(found) != 1 or any(isinstance(n, Entry) for f in factors if f is not found[0] for n in walk(f)):
        return ONE, None
    return mul(*(f for f in factors if f is not found[0])), found[0]


def _is_score(e: Expr) -> bool:
    """Whether e is an entry of an input, or the largest or smallest."""
    return isinstance(e.body if isinstance(e, Reduce) and e.op in ("max", "min") else e, Entry)


def _pair(lse: Reduce, number: object, terms: list[Expr]) -> tuple[Index, list[Expr]] | None:
    """Find x_i among the terms, so that number·(log Σ exp(x) − x_i) stands in the sum."""
    for at in indices_of(add(*terms)):
        wanted = neg(mul(const(number), instantiate(lse, at)))  # type: ignore[arg-type]
        parts = list(wanted.terms) if isinstance(wanted, Add) else [wanted]
        if all(p in terms for p in parts):
            return at, parts
    return None
