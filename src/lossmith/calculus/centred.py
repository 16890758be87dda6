"""Hessian-vector products where a constant in the direction changes nothing: its entry at the largest score goes first.

Where a constant added to the scores leaves the loss as it is, H·1 = 0, and H v = H (v − v_top). The entry of the class
that leads is 0 then, and with it the large terms that would have to cancel.
"""

from __future__ import annotations

from collections.abc import Callable

from lossmith.calculus.rules import depends
from lossmith.calculus.simplify import bottom_up, everything, simplify
from lossmith.calculus.stabilize import by_rules
from lossmith.language.build import add, arg_reduce, const, instantiate, opened, reduce_, sub
from lossmith.language.expr import ZERO, ArgReduce, Call, Entry, Expr, Held, Hyper, Softmax, walk
from lossmith.language.formula import DIRECTION

_SHIFT = Hyper("a shift of all scores", ())


def centred(product: Expr, loss: Expr, name: str) -> Expr:
    """Return a Hessian-vector product with v − v_top for v, if it has a softmax of the scores `name` and that is sound.

    A covariance is left to the rule `mean_over_softmax`, which does the same.
    """
    softmaxes = [opened(n) for n in walk(product) if isinstance(n, Softmax) and depends(n, name)]
    shares = [(index, cond, body) for index, cond, body in softmaxes if cond.free | body.free <= {index}]
    if not shares or any(isinstance(n, ArgReduce) for n in walk(by_rules(product))):
        return product
    if not is_shift_invariant(loss, name):
        return product
    index, cond, body = shares[0]
    top = Entry(DIRECTION, arg_reduce("max", index, body, cond))

    def less_top(e: Expr) -> Expr:
        return Held(sub(e, top)) if isinstance(e, Entry) and e.name == DIRECTION else e

    return bottom_up(over_gaps(product), less_top)


def over_gaps(e: Expr) -> Expr:
    """Write the gap x_m − max x for log softmax(x)_m, where a constant added to all of them changes nothing.

    That leaves log Σ exp(x − max x) out, which would have to cancel.
    """

    def with_logs(value: Callable[[Softmax], Expr]) -> Expr:
        def step(e: Expr) -> Expr:
            logged = e.args[0] if isinstance(e, Call) and e.function == "log" else None
            return value(logged) if isinstance(logged, Softmax) else e

        return bottom_up(e, step)

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

    def moved(e: Expr) -> Expr:
        return add(e, _SHIFT) if isinstance(e, Entry) and e.name == name else e

    shifted = bottom_up(loss, moved)
    return by_rules(simplify(shifted)[0]) is by_rules(simplify(loss)[0])
