"""The tracer: what NumPy computes is what the expression says, and mistakes are told."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from lossmith.errors import FormulaError
from lossmith.language import build
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import (
    Add,
    ArgReduce,
    Call,
    ClassNumber,
    Compare,
    Const,
    Delta,
    Entry,
    Expr,
    Fixed,
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
    named,
)
from lossmith.language.formula import Distribution, Role, Scores
from lossmith.language.formula import Label as LabelRole
from lossmith.language.operations import OPERATIONS
from lossmith.language.trace import trace
from lossmith.language.traced import Traced, apply

K = 4
RNG = np.random.default_rng(7)
DATA: dict[str, Any] = {
    "s": RNG.normal(size=K),
    "r": RNG.normal(size=K),
    "t": RNG.dirichlet(np.ones(K)),
    "y": 2,
    "gamma": 1.5,
    "w": RNG.uniform(0.5, 2, size=K),
}

# ------------------------------------------------------------------ an evaluator in plain floats

CALLS: dict[str, Callable[..., float]] = {
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "log_cosh": lambda x: math.log(math.cosh(x)),
}
REDUCE: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "max": lambda v: max(v, default=-math.inf),
    "min": lambda v: min(v, default=math.inf),
    "logsumexp": lambda v: math.log(math.fsum(map(math.exp, v))),
}


def class_at(at: Index, element: int | None) -> int:
    match at:
        case Fixed(number):
            return number
        case Label(name):
            return DATA[name]
        case ArgReduce(op):
            chosen = [(evaluate(b), k) for k, c, b in opened(at) if c]
            best = max(chosen, key=lambda v: (v[0] if op == "max" else -v[0], -v[1]))
            return best[1]
        case _:
            assert element is not None, f"free index {at}"
            return element


def opened(binder: Any) -> list[tuple[int, float, Expr]]:
    found = []
    for k in range(K):
        _, cond, body = build.opened(binder, Fixed(k))
        found.append((k, evaluate(cond), body))
    return found


def evaluate(e: Expr, element: int | None = None) -> float:
    def value(e: Expr) -> float:
        return evaluate(e, element)

    match e:
        case Const(number):
            return float(number)
        case Hyper(name, indices):
            return DATA[name][class_at(indices[0], element)] if indices else DATA[name]
        case Entry(name, index):
            at = element if index is None else class_at(index, element)
            return float(DATA[name] if np.ndim(DATA[name]) == 0 else DATA[name][at])
        case Size():
            return K
        case ClassNumber(index):
            return class_at(index, element)
        case Delta(i, j):
            return float(class_at(i, element) == class_at(j, element))
        case Compare(op, a, b):
            x, y = value(a), value(b)
            return float({">": x > y, ">=": x >= y, "==": x == y}[op])
        case Not(cond):
            return 1 - value(cond)
        case Add(terms):
            return math.fsum(map(value, terms))
        case Mul(factors):
            return math.prod(map(value, factors))
        case Pow(base, exponent):
            return value(base) ** value(exponent)
        case Call(function, args):
            numpy = FUNCTIONS[function].numpy
            return float((CALLS.get(function) or getattr(np, numpy or ""))(*map(value, args)))
        case Where(cond, then, other):
            return value(then) if value(cond) else value(other)
        case Reduce(op):
            return REDUCE[op]([evaluate(b, element) for _, c, b in opened(e) if c])
        case Softmax(at=at):
            total = math.fsum(math.exp(evaluate(b)) for _, c, b in opened(e) if c)
            return math.exp(evaluate(build.instantiate(e, Fixed(class_at(at, element))))) / total
        case _:
            raise AssertionError(e)


# ------------------------------------------------------------------ lossmith's functions


def softmax(x: Any) -> Any:
    if isinstance(x, Traced):
        return apply("softmax", x)
    return np.exp(x) / np.exp(x).sum()


def logsumexp(x: Any) -> Any:
    return apply("logsumexp", x) if isinstance(x, Traced) else np.log(np.sum(np.exp(x), axis=-1))


def log_softmax(x: Any) -> Any:
    if isinstance(x, Traced):
        return apply("log_softmax", x)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def classes(x: Any) -> Any:
    return x.__lossmith_apply__("classes") if isinstance(x, Traced) else np.arange(len(x))


def onehot(y: Any, like: Any) -> Any:
    if isinstance(like, Traced):
        return y.__lossmith_apply__("onehot", like)
    return (np.arange(len(like)) == y).astype(float)


# ------------------------------------------------------------------ functions of one sample


def focal(s, y, *, gamma=1.5):
    """Focal loss."""
    p = softmax(s)
    return -((1 - p[y]) ** gamma) * np.log(p[y])


def crammer_singer(s, y):
    best = np.max(s, where=classes(s) != y, initial=-np.inf)
    return np.maximum(0, 1 + best - s[y])


def pairs(s, t):
    return np.sum(t[:, None] * (1 - t) * np.maximum(0, 1 - s[:, None] + s))


def pairs_the_other_way(s, t):
    d = s[np.newaxis, :] - s[..., None]
    return np.sum(np.sum(np.exp(d) * t[:, None], axis=1) ** 2)


def columns(s, t):
    d = s - s[:, None]
    return np.dot(t, np.sum(np.tanh(d) * t, axis=0)) + np.max(np.min(d * t, axis=-1))


def kept_axes(s, t):
    d = s[:, None] * t
    return np.sum(d / np.sum(np.exp(d), axis=1, keepdims=True) - d.mean(axis=0))


def weighted(s, y, *, w=(1.0, 2.0), gamma=1.5):
    return -w[y] * np.log(softmax(s * w)[y]) + gamma * w.mean()


def moments(s, t):
    centred = s - np.mean(s)
    return np.linalg.norm(centred) * np.mean(centred**2, where=s > 0) / s.size + t.sum()


def matrices(s, t, r):
    a, b = s[:, None] * t, t[:, None] - r
    return np.sum(s @ (a @ b)) + a @ t @ r + (a.T @ s).max() + s.dot(t)


def triples(s, t, r):
    x = np.exp(s[:, None, None] * t[:, None] - r)
    first = np.sum(x**2, axis=0) / np.sum(x, axis=(0, 2))[:, None]
    return np.sum(first * np.max(x, axis=1) / np.sum(x, axis=-1))


def normalised_pairs(s, t):
    x = s[:, None] * t
    return np.sum(log_softmax(x) * t[:, None] + logsumexp(x) * s)


def picked(s, t):
    k = np.argmax(t)
    return s[k] * k - s[np.argmin(t * s)] + s[3] + np.sum(s[classes(s)])


def cases(s, y, t):
    inside = (s > -1) & ~((s >= 1) | (t == 0))
    return np.sum(np.where(inside, s**2 / 2, np.abs(s) - np.float64(0.5)), where=s != t[y])


def many_functions(s, t):
    x = np.logaddexp(s, t) + np.sqrt(t) + np.square(s) + np.log1p(t) - np.expm1(-t) + np.sign(s)
    x = x + np.log2(t) * np.log10(t) + np.exp2(s) / np.cosh(s) + np.reciprocal(t) + np.fabs(s)
    x = x + np.clip(s, -0.5, 0.5) + np.heaviside(s, 0.5) + np.arctan(s) + np.power(t, 3) - (-s) + +t
    return np.sum(x + np.fmin(s, t) * np.minimum(s, 0))


def margins(s, y):
    return np.max(s + 1 - onehot(y, s)) - s[y] + np.sum(np.ones_like(s) * 2) + s.shape[0]


def where_over_pairs(s, y):
    later = classes(s)[:, None] < classes(s)
    return np.sum(np.exp(s - s[:, None]), where=later) + np.sum(classes(s) * s, where=classes(s) != y)


def flag_of_number(s, y):
    return np.sum(np.exp(s), where=s[y] > 0) + np.sum(s[:, None] * s, where=(s > 0)[:, None])


def ordinal(s, y):
    return np.sum((s - y) ** 2) * (y != 1) + (y == 3) + s[0]


def in_place_numbers(s, t):
    total = 0
    for k in range(3):
        total += s[k] * t[k]
    return total


matrices.__annotations__ = triples.__annotations__ = {"r": Scores}

ROWS = [
    focal, crammer_singer, pairs, pairs_the_other_way, columns, kept_axes, weighted, moments,
    matrices, picked, cases, many_functions, margins, where_over_pairs, flag_of_number, ordinal,
    in_place_numbers, triples, normalised_pairs,
]  # fmt: skip


@pytest.mark.parametrize("function", ROWS, ids=lambda f: f.__name__)
def test_expression_of_a_row_loss_has_the_value_that_numpy_computes(function: Any) -> None:
    formula = trace(function)
    assert formula.kind == "row"
    arguments = [DATA[i.name] for i in formula.inputs]
    expected = function(*arguments, **{h.name: DATA[h.name] for h in formula.hypers})
    assert evaluate(formula.expr) == pytest.approx(float(expected), rel=1e-12)


def huber(s, t, *, gamma=1.0):
    d = s - t
    return np.where(np.abs(d) <= gamma, d**2 / 2, gamma * (np.abs(d) - gamma / 2))


def signed(s, y):
    return np.log1p(np.exp(-s * (2 * (y == 2) - 1))) + (s - y) ** 2


@pytest.mark.parametrize("function", [huber, signed])
def test_elementwise_losses_lose_their_index(function: Any) -> None:
    formula = trace(function)
    assert formula.kind == "elementwise"
    assert not any(isinstance(i, type(named("k"))) for i in formula.expr.free)
    arguments = [DATA[i.name] for i in formula.inputs]
    expected = function(*arguments, **{h.name: DATA[h.name] for h in formula.hypers})
    assert [evaluate(formula.expr, k) for k in range(K)] == pytest.approx(list(expected), rel=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        softmax,
        lambda s: s - logsumexp(s),
        lambda s: s * classes(s),
        lambda s, y: s - s[y],
        lambda s, y: s * onehot(y, s),
        lambda s: s / s.size,
        lambda s: np.ones_like(s) * s[0],
    ],
)
def test_rows_that_couple_their_elements_are_vector_functions(function: Any) -> None:
    if function is softmax:

        def function(s):
            return softmax(s)

    formula = trace(function)
    assert formula.kind == "vector"
    assert formula.output is named("i")
    expected = function(*[DATA[i.name] for i in formula.inputs])
    assert [evaluate(formula.expr, k) for k in range(K)] == pytest.approx(list(expected), rel=1e-12)


def test_every_elementary_function_traces_to_itself() -> None:
    for name, function in FUNCTIONS.items():
        if name == "scaled":
            assert name not in OPERATIONS
            continue
        s = Traced(Entry("s", named("k")), (True,))
        arguments = [s, Traced(Hyper("a", ()))][: function.arity]
        assert apply(name, *arguments).expr is build.call(name, *(a.expr for a in arguments))
        if hasattr(np, name):
            assert getattr(np, name)(*arguments).expr is apply(name, *arguments).expr


# ------------------------------------------------------------------ roles, hyperparameters, names


EPS, ROW = np.float32(0.5), np.array([1.0, 2.0])


def test_signature_gives_roles_and_hyperparameters() -> None:
    def loss(a, b, target, c, y, *, tau, gamma=2, w=(1, 2, 3), eps=EPS, v=ROW):
        """Say what it is."""
        return np.sum(a * b * target * w * v) * tau * gamma * eps + a[y] + a[c]

    loss.__annotations__ = {
        "a": Scores, "b": Role("scores", "unit"), "target": Distribution, "c": LabelRole,
    }  # fmt: skip
    formula = trace(loss, hyper_ndims={"eps": 1, "w": 0})
    assert [(i.name, i.role.kind, i.role.domain) for i in formula.inputs] == [
        ("a", "scores", "real"), ("b", "scores", "unit"), ("target", "targets", "simplex"),
        ("c", "label", "real"), ("y", "label", "real"),
    ]  # fmt: skip
    assert [(h.name, h.ndim) for h in formula.hypers] == [
        ("tau", 0), ("gamma", 0), ("w", 0), ("eps", 1), ("v", 1),
    ]  # fmt: skip
    assert formula.hypers[0].default is None
    assert formula.hypers[1].default == 2.0
    assert formula.doc == "Say what it is."
    assert formula.name == "loss"
    assert formula.function is loss


def test_definitions_are_the_local_names_of_values() -> None:
    def loss(s, y, *, gamma=2.0):
        p = softmax(s)
        q = p[y]
        plain = s[y]
        table = s[:, None] * s
        s = s * 2
        result = -np.log(q) * gamma + plain + np.sum(table) + s[0]
        return result

    found = trace(loss).definitions
    assert [(d.name, d.index) for d in found] == [("p", named("k")), ("q", None)]
    assert found[0].expr is build.softmax(named("m"), Entry("s", named("m")), named("k"))
    assert found[1].expr is build.substitute(found[0].expr, {named("k"): Label("y")})


def test_definitions_of_elementwise_losses_have_no_index() -> None:
    (found,) = trace(huber).definitions
    assert (found.name, found.index) == ("d", None)
    assert found.expr is build.sub(Entry("s", None), Entry("t", None))


def test_profile_hook_is_put_back_whatever_happens() -> None:
    def hook(*_: Any) -> None: ...

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        trace(focal)
        with pytest.raises(FormulaError):
            trace(lambda s: s if s else 0)
        found = sys.getprofile()
    finally:
        sys.setprofile(before)
    assert found is hook


def test_callables_without_code_can_be_traced() -> None:
    class Loss:
        def __call__(self, s, t):
            d = s - t
            return d**2

    formula = trace(Loss())
    assert (formula.kind, formula.name, formula.definitions) == ("elementwise", "loss", ())


# ------------------------------------------------------------------ mistakes


def _branch(s, y):
    if s[y] > 0:
        return s[y]
    return 0


MISTAKES: list[tuple[Callable[..., Any], str, str]] = [
    (_branch, "nothing can branch", "np.where(cond, a, b) instead of if"),
    (lambda s: max(s[0], s[1]), "nothing can branch", "np.maximum"),
    (lambda s: 0 < s[0] < 1, "nothing can branch", "& and |"),
    (lambda s: sum(s), "cannot be looped over", "np.sum"),
    (lambda s: [x for x in s], "cannot be looped over", "np.sum"),  # noqa: C416
    (lambda s: s[0] / len(s), "number of classes", "x.size"),
    (lambda s: math.log(s[0]), "Python number", "np.log"),
    (lambda s: float(s[0]), "Python number", "np.log"),
    (lambda s: int(s[0]), "Python number", "np.log"),
    (lambda s: np.sum(s[np.arange(s.size)]), "become an array", "lm.classes"),
    (lambda s: [1, 2][s[0]], "Python integer", "lm.classes"),
    (lambda s: np.asarray(s), "become an array", "np.asarray"),
    (lambda s: np.sum([s, s]), "become an array", "join no values"),
    (lambda s: np.sum(s * np.ones(3)), "array of numbers", "hyperparameter"),
    (lambda s: np.sum(s * [1, 2]), "array of numbers", "hyperparameter"),
    (lambda s: s + "1", "a str stands where", ""),
    (lambda s: s + None, "None stands where", ""),
    (lambda s: s.__setitem__(0, 1), "changed in place", "np.where"),
    (lambda s: s.__iadd__(1), "cannot write into", "a = a + b"),
    (lambda s: np.exp(s, out=np.empty(3)), "cannot write into", ""),
    (lambda s: np.log(s, where=s > 0), "leaves entries undefined", "np.where"),
    (lambda s: np.max(s, where=s > 0), "needs initial=", "initial=-np.inf"),
    (lambda s: np.floor(s), "floor is not supported", "rounding"),
    (lambda s: np.sort(s), "sort is not supported", ""),
    (lambda s: s % 2, "remainder is not supported", "rounding"),
    (lambda s: np.add.accumulate(s), "np.add.accumulate", ""),
    (lambda s: s.foo, "no attribute 'foo'", ""),
    (lambda s: s.sqrt(), "no attribute 'sqrt'", "np.sqrt"),
    (lambda s: s[1:], "a slice", "where="),
    (lambda s: s[s > 0], "cannot select", "where="),
    (lambda s: s[-1], "counted from 0", ""),
    (lambda s: s[1.5], "cannot be an index", ""),
    (lambda s: s[True], "cannot be an index", ""),
    (lambda s: s[s], "cannot be an index", ""),
    (lambda s, t: s[t[0]], "cannot be an index", ""),
    (lambda s: s[0, 1], "too many indices", ""),
    (lambda s: s[0][0], "indexed as if it were a row", ""),
    (lambda s, *, a=1.0: s[0] * a[0], "indexed as if it were a row", "list or an array"),
    (lambda s: (s[:, None] * s)[classes(s), 0], "single classes", ""),
    (lambda s: s[:, None][0, 1], "only the index 0", ""),
    (lambda s: s[:, None, None, None], "4 axes", ""),
    (lambda s: np.sum(s, axis=1), "over axis 1", ""),
    (lambda s: np.sum(s, axis="classes"), "must be an integer", ""),
    (lambda s: np.sum(s[0]), "nothing to run over", ""),
    (lambda s: np.max(s[0]), "nothing to run over", "maximum"),
    (lambda s: np.sum(s, where=s), "a condition", ""),
    (lambda s: np.sum(s, where=s[:, None] > 0), "does not have the shape", ""),
    (lambda s: np.where(s, 1, 2), "a condition", ""),
    (lambda s: ~s, "a condition", ""),
    (lambda s: s & s, "a condition", "parentheses"),
    (lambda s: np.sum(s, dtype=float), "no option dtype=", "its options are axis, where"),
    (lambda s: np.argmax(s[:, None] * s), "runs over one axis", "axis="),
    (lambda s: s @ s[0], "two rows", "a * b"),
    (lambda s: np.linalg.norm(s, 3), "orders 1, 2 and inf", ""),
    (lambda s: np.linalg.norm(s[:, None] * s), "needs axis", ""),
    (lambda s: s[0] / 0, "division by zero", ""),
    (lambda s: s * 2.0**1000 * 2.0**1000, "too large", ""),
    (lambda s: s**2000, "an exponent", ""),
    (lambda s: np.inf * s[0] * 0 + np.inf - np.inf, "undefined", ""),
    (lambda s: s[:, None] * s, "2 axes", "sum over one"),
    (lambda s: np.sum(s, keepdims=True), "length 1", "keepdims"),
    (lambda s, *, w=(1, 2): s * w, "one number for each class", "sum"),
    (lambda s: None, "returns nothing", "return"),
    (lambda s: 1.0, "returns a float", ""),
    (lambda s: (s, s), "returns a tuple", ""),
    (lambda s, y: y + 1, "does not depend on its scores", ""),
    (lambda t: t, "no scores", ""),
    (lambda x: x, "parameter x", "x: lm.Scores"),
    (lambda s, gamma=1.0: s, "not keyword-only", "*, gamma="),
    (lambda *s: s, r"the parameter \*s", ""),
    (lambda s, **options: s, r"the parameter \*\*options", ""),
    (lambda s, *, mode="mean": s, "hyperparameter mode", ""),
    (lambda s, *, flag=True: s, "hyperparameter flag", ""),
    (lambda s, *, w=None: s, "hyperparameter w", ""),
    (lambda s, *, w=((1, 2), (3, 4)): s, "hyperparameter w", ""),
    (lambda s: _deep(s, np.exp), "nested too deeply", ""),
    (lambda s: _deep(s, lambda x: x * np.sum(x)), "stand inside each other|too long", ""),
    (lambda s: _deep(s, lambda x: (x + 1) * (x + 2) * np.exp(x)), "too long", ""),
]  # fmt: skip


def _deep(x: Any, step: Callable[[Any], Any]) -> Any:
    for _ in range(200):
        x = step(x)
    return x


@pytest.mark.parametrize(("function", "message", "hint"), MISTAKES)
def test_mistakes_are_told(function: Callable[..., Any], message: str, hint: str) -> None:
    with pytest.raises(FormulaError, match=message) as caught:
        trace(function)
    assert hint in (caught.value.hint or "")


def test_error_shows_the_line_of_the_function() -> None:
    with pytest.raises(FormulaError) as caught:
        trace(_branch)
    lines = str(caught.value).splitlines()
    assert lines[1] == "        if s[y] > 0:"
    assert lines[2] == "           ^"
    assert caught.value.line == _branch.__code__.co_firstlineno + 1


def test_hasattr_answers_no() -> None:
    x = Traced(Entry("s", named("k")), (True,))
    assert not hasattr(x, "foo")
    assert not hasattr(x, "__array_interface__")
    assert hasattr(x, "__lossmith_apply__")
    assert repr(x) == "<traced value of shape (K,)>"


def test_annotation_that_cannot_be_resolved_is_named() -> None:
    def loss(a: NowhereDefined): ...  # noqa: F821

    with pytest.raises(FormulaError, match="'NowhereDefined' is not known"):
        trace(loss)


def test_half_is_exact() -> None:
    formula = trace(lambda s, t: np.sum(s * t) / 2 + 0.5)
    total = build.reduce_("sum", named("m"), build.mul(Entry("s", named("m")), Entry("t", named("m"))))
    half = build.const(Fraction(1, 2))
    assert formula.expr is build.add(build.mul(half, total), half)
