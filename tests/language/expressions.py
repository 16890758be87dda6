"""Random expressions, for properties of printers and passes."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from lossmith.language import build
from lossmith.language import expr as x

Y, J, K = x.Label("y"), x.named("j"), x.named("k")
ENV = {
    "y": 1, "j": 0, "k": 2, "s": [0.7, 1.9, 1.3], "t": [0.3, 0.6, 0.1],
    "gamma": 1.7, "γ": 1.7, "tau": 0.6, "τ": 0.6, "w": [0.5, 2.0, 1.5], "K": 3,
}  # fmt: skip
NUMBERS = [1, 2, -1, 3, Fraction(1, 2), Fraction(-3, 4), 0.1, 1e-7]


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4, scope: tuple[x.Index, ...] = (J, K)) -> x.Expr:
    """Draw an expression of s, t, w, γ, τ and K with the free indices j and k and the label y."""

    def below(inner: tuple[x.Index, ...] = scope) -> x.Expr:
        return draw(expressions(depth - 1, inner))

    if depth == 0:
        return draw(leaves(scope))
    match draw(st.integers(0, 15)):
        case 0 | 1:
            return build.add(below(), below())
        case 2:
            return build.sub(below(), below())
        case 3 | 4 | 5:
            return build.mul(below(), below())
        case 6:
            return build.div(below(), below())
        case 7:
            exponent = draw(st.sampled_from([2, 3, -1, Fraction(1, 2), Fraction(1, 3)]))
            return build.power(below(), build.const(exponent))
        case 8:
            return build.power(below(), draw(leaves(scope)))
        case 9:
            name = draw(st.sampled_from(["exp", "log", "abs", "sigmoid", "tanh", "log_cosh"]))
            return build.call(name, below())
        case 10:
            name = draw(st.sampled_from(["maximum", "minimum", "scaled"]))
            return build.call(name, below(), below())
        case 11:
            return build.where(draw(conditions(depth - 1, scope)), below(), below())
        case 12:
            return draw(conditions(depth - 1, scope))
        case 13:
            return x.Held(below())
        case 14:
            m = x.fresh(f"m{len(scope)}")
            return build.softmax(m, below((*scope, m)), draw(st.sampled_from([*scope, Y])))
        case _:
            m = x.fresh(f"m{len(scope)}")
            op = draw(st.sampled_from(["sum", "sum", "max", "min", "logsumexp"]))
            cond = draw(st.sampled_from([x.TRUE, build.not_(build.delta(m, Y))]))
            if draw(st.integers(0, 4)) == 0:
                cond = build.mul(cond, draw(conditions(0, (*scope, m))))
            return build.reduce_(op, m, below((*scope, m)), cond)


def leaves(scope: tuple[x.Index, ...]) -> st.SearchStrategy[x.Expr]:
    indices = st.sampled_from([*scope, scope[-1], Y, x.Fixed(2)])
    return st.one_of(
        st.builds(x.Entry, st.sampled_from(["s", "t"]), indices),
        st.builds(lambda i: x.Hyper("w", (i,)), indices),
        st.sampled_from([x.Hyper("gamma", ()), x.Hyper("tau", ()), x.Size()]),
        st.sampled_from(NUMBERS).map(build.const),
        st.builds(build.delta, indices, indices),
    )


@st.composite
def conditions(draw: st.DrawFn, depth: int, scope: tuple[x.Index, ...]) -> x.Expr:
    indices = st.sampled_from([*scope, Y, x.Fixed(1)])
    match draw(st.integers(0, 5)):
        case 0:
            return build.delta(draw(indices), draw(indices))
        case 1:
            return build.not_(build.delta(draw(indices), draw(indices)))
        case 2 if depth > 0:
            return build.mul(draw(conditions(depth - 1, scope)), draw(conditions(0, scope)))
        case 3 if depth > 0:
            return build.not_(draw(conditions(depth - 1, scope)))
        case _:
            op = draw(st.sampled_from([">", ">=", "<", "<="]))
            side = expressions(min(depth, 1), scope)
            return build.compare(op, draw(side), draw(side))
