"""Hessian-vector products where a constant in the direction changes nothing: its entry at the largest score goes first.

Where a constant added to the scores leaves the loss as it is, H·1 = 0, and H v = H (v − v_top). The entry of the class
that leads is 0 then, and with it the large terms that would have to cancel.
"""

from __future__ import annotations

from collections.abc import Callable

from lossmith.calculus.simplify import everything, simplify
from lossmith.calculus.stabilize import by_rules
from lossmith.language.build import add, arg_reduce, const, instantiate, neg, opened, rebuild, reduce_, sub
from lossmith.language.expr import ZERO, ArgReduce, Call, Entry, Expr, Held, Hyper, Node, Softmax, walk
from lossmith.language.formula import DIRECTION

_SHIFT = Hyper("a shift of all scores", ())


def centred(product: Expr, loss: Expr, name: str) -> Expr:
    """Return a Hessian-vector product with v − v_top for v, if it has a softmax of the scores `name` and that is sound.

    A covariance is left to the rule `mean_over_softmax`, which does the same.
    """
    softmaxes = [opened(n) for n in walk(product) if isinstance(n, Softmax) and _holds(n, name)]
    shares = [(index, cond, body) for index, cond, body in softmaxes if cond.free | body.free <= {index}]
    if not shares or any(isinstance(n, ArgReduce) for n in walk(by_rules(product))):
        return product
    if not is_shift_invariant(loss, name):
        return product
    index, cond, body = shares[0]
    top = Entry(DIRECTION, arg_reduce("max", index, body, cond))

    def visit(n: Node) -> Node:
        if isinstance(n, Entry) and n.name == DIRECTION:
            return Held(add(n, neg(top)))
        return rebuild(n, visit)

    result = visit(over_gaps(product))
    assert isinstance(result, Expr)
    return result


def over_gaps(e: Expr) -> Expr:
    """Write the gap x_m − max x for log softmax(x)_m, where a constant added to all of them changes nothing.

    That leaves log Σ exp(x − max x) out, which would have to cancel.
    """

    def with_logs(value: Callable[[Softmax], Expr]) -> Expr:
        def visit(n: Node) -> Node:
            if isinstance(n, Call) and n.function == "log" and isinstance(n.args[0], Softmax):
                return value(n.args[0])
            return rebuild(n, visit)

        result = visit(e)
        assert isinstance(result, Expr)
        return result

    none, one, two = (with_logs(lambda p, k=k: const(k)) for k in range(3))
    if not all(
        simplify(sub(more, less), multiply_out=everything)[0] is ZERO for more, less in ((one, none), (two, one))
    ):
        return e

    def gap(p: Softmax) -> Expr:
        index, cond, body = opened(p)
        return Held(sub(instantiate(p, p.at), reduce_("max", index, body, cond)))

    return with_logs(gap)


def is_shift_invariant(loss: Expr, name: str) -> bool:
    """Whether rules show that a constant added to all scores leaves the loss as it is; False where they do not."""

    def visit(n: Node) -> Node:
        return add(n, _SHIFT) if isinstance(n, Entry) and n.name == name else rebuild(n, visit)

    shifted = visit(loss)
    assert isinstance(shifted, Expr)
    return by_rules(simplify(shifted)[0]) is by_rules(simplify(loss)[0])


def _holds(e: Expr, name: str) -> bool:
    return any(isinstance(n, Entry) and n.name == name for n in walk(e))
