"""The order of what is printed: factors in a product, terms in a sum, and where a minus goes."""

from __future__ import annotations

from lossmith.language.build import coefficient, is_indicator, neg
from lossmith.language.expr import (
    Add,
    Bound,
    Call,
    ClassNumber,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
    Free,
    Hyper,
    Index,
    Label,
    Mul,
    Node,
    Number,
    Pow,
    Reduce,
    Size,
    Softmax,
    Var,
    children,
    walk,
)


def spelling(node: Node) -> str:
    """Return a text that orders nodes of equal rank the same way in every run."""
    if isinstance(node, Delta):  # stored in no order that a reader would see
        return " ".join(index_rank(i)[1] for i in sorted((node.i, node.j), key=index_rank))
    own = [str(v) for v in (getattr(node, f, None) for f in _PLAIN) if isinstance(v, str | Number)]
    if not own and not children(node):
        own = [type(node).__name__]
    return " ".join([*own, *(spelling(c) for c in children(node))])


_PLAIN = ("name", "op", "function", "value", "number", "level")


def index_rank(index: Index) -> tuple[int, str]:
    order: dict[type[Index], int] = {Free: 0, Bound: 0, Label: 1, Fixed: 2}
    return order.get(type(index), 3), spelling(index)


def factors_of(expr: Expr) -> list[Expr]:
    """Return the factors of a product, `scaled` being one."""
    if isinstance(expr, Mul):
        return [g for f in expr.factors for g in factors_of(f)]
    if isinstance(expr, Call) and expr.function == "scaled":
        return [g for a in expr.args for g in factors_of(a)]
    return [expr]


def is_fixed(expr: Expr) -> bool:
    """Whether an expression is made of numbers, hyperparameters and K."""
    return all(isinstance(n, Const | Hyper | Size | Mul | Pow | Index) for n in walk(expr))


def factor_rank(expr: Expr) -> tuple[int, int, str]:
    """Return the place of a factor: hyperparameters, entries, functions, indicators, sums, logs."""
    base = expr.base if isinstance(expr, Pow) else expr
    match base:
        case Hyper() | Size() | Const():
            rank = 0
        case Entry() | Var() | Softmax() | ClassNumber():
            rank = 1
        case Call(function) if function in ("log", "log_cosh"):
            rank = 5
        case Call(_, args):
            rank = 2 if all(isinstance(a, Entry | Var) for a in args) else 4
        case Reduce():
            rank = 4 if isinstance(expr, Pow) else 6
        case _:
            rank = 3 if is_indicator(base) else 4
    size = 0 if rank <= 1 or isinstance(expr, Pow) else expr.size
    return rank, size, spelling(expr)


PLAIN_TERMS = (Entry, Hyper, Size, ClassNumber)


def turn_one(factors: list[Expr]) -> bool:
    """Take a minus into the first difference among `factors`, −(b − a) = a − b, if there is one."""
    for n, f in enumerate(factors):
        turned = _turned(f)
        if turned is not None:
            factors[n] = turned
            return True
    return False


def _turned(f: Expr) -> Expr | None:
    """Return −f, printed no longer than f, or None."""
    match f:
        case Add(terms):
            signs = [coefficient(t)[0] > 0 for t in terms]
            numbers = any(isinstance(t, Const) for t in terms)
            if 2 * sum(signs) == len(signs) and (not numbers or _is_fixed_sum(f)):
                return Add(tuple(neg(t) for t in terms))
        case Pow(base, Const(n)) if isinstance(n, int) and n % 2:
            turned = _turned(base) if isinstance(base, Add) else None
            return None if turned is None else Pow(turned, f.exponent)
        case Reduce("sum", cond, body):
            if any(_turned(g) is not None for g in factors_of(body)):
                return Reduce("sum", cond, neg(body))
        case _:
            pass
    return None


def _is_fixed_sum(sum_: Add) -> bool:
    return all(is_fixed(t) for t in sum_.terms)


def term_rank(term: Expr) -> tuple[int, str, int, int, str]:
    """Return the place of a term: entries, then the rest, hyperparameters, 1{…}, numbers."""
    rest = coefficient(term)[1]
    spelled = spelling(rest)
    if isinstance(term, Const):
        return 5, "", 0, 0, ""
    if isinstance(rest, Entry):
        index = index_rank(rest.index)[0] if rest.index is not None else 0
        return 0, rest.name, index, 0, spelled
    if isinstance(rest, Hyper):
        return 3, rest.name, 0, 0, spelled
    if is_indicator(rest):
        return 4, "", 0, 0, spelled
    has_reduction = any(isinstance(n, Reduce) for n in walk(rest))
    return 1, "", int(has_reduction), rest.size, spelled
