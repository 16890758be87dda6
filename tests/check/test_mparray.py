"""Loss functions run on numbers of many digits: the same as NumPy, only to more digits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lossmith.check.arithmetic import Arithmetic, context
from lossmith.check.interpreter import Sample, evaluate_adaptive
from lossmith.check.mparray import MpArray, definition_value
from lossmith.check.precision import agree
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.formula import Formula, Input, Role
from lossmith.language.operations import OPERATIONS
from lossmith.language.trace import trace

ROW = np.array([0.5, -1.25, 3.0, 3.0])
TARGETS = np.array([0.25, 0.5, 0.0, 0.25])


def own(name: str) -> Callable[..., Any]:
    """A function of lossmith, as losses call it."""

    def function(x: Any, *args: Any, **kwargs: Any) -> Any:
        return x.__lossmith_apply__(name, *args, **kwargs)

    return function


def many_digits(x: Any) -> MpArray:
    return MpArray(x, Arithmetic(60), 4)


def floats(x: Any) -> np.ndarray:
    assert isinstance(x, MpArray)
    return x.data.astype(float)


NUMPY_FUNCTIONS: list[Callable[[Any, Any], Any]] = [
    lambda s, t: -np.log(t + 1) * np.exp(s) / (1 + s**2) - +s,
    lambda s, t: 2.0**s + (3 - s) / 7,
    lambda s, t: np.sum(s) + np.mean(t) + np.max(s) + np.min(s) + s.sum() + s.mean() + s.max(),
    lambda s, t: np.sum(s, where=t > 0),
    lambda s, t: np.mean(s, where=t > 0),
    lambda s, t: np.max(s, where=t > 0, initial=-np.inf) + np.min(s, where=t > 0, initial=9),
    lambda s, t: np.sum(s[:, None] * t - t[:, None], axis=1),
    lambda s, t: np.sum(s[:, None] * t - t[:, None], axis=0, keepdims=True),
    lambda s, t: np.max(s[:, None] - t, axis=-1),
    lambda s, t: np.add.reduce(s) + np.maximum.reduce(s) + np.logaddexp.reduce(s),
    lambda s, t: np.where((s > 0) & (t > 0) | ~(s != 3), s, t),
    lambda s, t: np.where(np.logical_or(s < 0, np.logical_not(t >= 0.5)), 1, s <= t),
    lambda s, t: np.clip(s, -1, 2) + s.clip(0, None) + np.clip(s, None, t),
    lambda s, t: s[np.argmax(s)] - s[s.argmin()] + np.argmax(s),
    lambda s, t: s[2] + s[-1] + s[...][1] + s[None, :][0, 0],
    lambda s, t: np.sqrt(t) + np.square(s) + np.abs(s) + np.sign(s) + np.heaviside(s, t),
    lambda s, t: np.log1p(t) + np.expm1(s) + np.logaddexp(s, t) + np.logaddexp(t, 1),
    lambda s, t: np.log2(t + 1) + np.log10(t + 1) + np.exp2(s) + np.reciprocal(s),
    lambda s, t: np.sin(s) * np.cos(s) + np.tan(s) + np.tanh(s) + np.cosh(s) - np.sinh(s),
    lambda s, t: np.arcsin(t) + np.arccos(t) + np.arctan(s) + np.arcsinh(s) + np.arctanh(t),
    lambda s, t: np.arccosh(s * s + 1) + np.maximum(s, t) + np.minimum(s, 0) + np.fmax(s, 1),
    lambda s, t: np.dot(s, t) + s @ t + s.dot(t) + np.linalg.norm(s) + np.linalg.norm(s, 1),
    lambda s, t: s @ (s[:, None] * t) + (s[:, None] * t) @ t,
    lambda s, t: np.ones_like(s) + np.zeros_like(s) + np.full_like(s, 3),
    lambda s, t: s.T + len(s) + s.shape[0] + s.size + s.ndim + np.size(s) + (s > 0).astype(float),
]


@pytest.mark.parametrize("function", NUMPY_FUNCTIONS)
def test_numpy_language(function: Callable[[Any, Any], Any]) -> None:
    expected = function(ROW, TARGETS)
    found = function(many_digits(ROW), many_digits(TARGETS))
    assert np.shape(expected) == found.shape
    np.testing.assert_allclose(floats(found), expected, rtol=1e-14)


def test_lossmith_functions() -> None:
    s = many_digits(ROW)
    p = np.exp(ROW) / np.exp(ROW).sum()
    sigma = 1 / (1 + np.exp(-ROW))
    cases: dict[str, Any] = {
        "softmax": p, "log_softmax": np.log(p), "logsumexp": np.log(np.exp(ROW).sum()),
        "softmin": np.exp(-ROW) / np.exp(-ROW).sum(), "sigmoid": sigma,
        "softplus": np.log1p(np.exp(ROW)), "log_sigmoid": np.log(sigma),
        "relu": np.maximum(ROW, 0), "leaky_relu": np.where(ROW > 0, ROW, 0.01 * ROW),
        "silu": ROW * sigma, "classes": np.arange(4), "log_cosh": np.log(np.cosh(ROW)),
    }  # fmt: skip
    for name, expected in cases.items():
        np.testing.assert_allclose(floats(own(name)(s)), expected, rtol=1e-14, err_msg=name)
    np.testing.assert_array_equal(floats(own("onehot")(many_digits(2))), [0, 0, 1, 0])
    np.testing.assert_array_equal(floats(own("onehot")(many_digits(1), s)), [0, 1, 0, 0])
    some = own("softmax")(s, where=s > 0)
    np.testing.assert_allclose(floats(some), np.where(ROW > 0, p / p[ROW > 0].sum(), 0))
    np.testing.assert_allclose(floats(own("logsumexp")(s, where=s > 0)), np.log(np.exp(ROW[ROW > 0]).sum()))
    pairs = own("softmax")(s[:, None] * s, axis=0)
    np.testing.assert_allclose(floats(np.sum(pairs, axis=0)), np.ones(4))


def test_everything_that_can_be_traced_runs_here() -> None:
    from lossmith.check.mparray import _ENTRYWISE, _OPERATIONS

    missing = OPERATIONS.keys() - _ENTRYWISE.keys() - _OPERATIONS.keys()
    assert missing == set()
    assert _ENTRYWISE.keys() >= FUNCTIONS.keys() - {"scaled"}


def test_unknown_operations_and_options_are_refused() -> None:
    s = many_digits(ROW)
    with pytest.raises(TypeError, match="cumsum"):
        np.cumsum(s)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="floor"):
        np.floor(s)
    with pytest.raises(TypeError, match="dtype"):
        np.sum(s, dtype=float)  # type: ignore[call-overload]
    with pytest.raises(AttributeError):
        s.cumsum()


def test_floats_are_exact_and_digits_are_kept() -> None:
    third = many_digits(1) / 3
    assert agree(third.item(), context(60).mpf(1) / 3, 55)
    assert (many_digits(0.1) + 0).item() == context(60).mpf(0.1)
    assert (many_digits(np.float32(0.1)) * 1).item() == float(np.float32(0.1))


# ------------------------------------------------------------------ against the interpreter


def cross_entropy(s: Any, y: Any) -> Any:
    return np.log(np.sum(np.exp(s))) - s[y]


def focal(s: Any, y: Any, *, gamma: float = 2.5) -> Any:
    p = own("softmax")(s)
    return -((1 - p[y]) ** gamma) * np.log(p[y])


def hinge(s: Any, y: Any, *, margin: float = 1.0) -> Any:
    return np.sum(np.maximum(0, s - s[y] + margin), where=own("classes")(s) != y)


def kl(s: Any, t: Any) -> Any:
    return np.sum(t * (np.log(t) - own("log_softmax")(s)))


def pairs(s: Any, t: Any) -> Any:
    return np.sum(t[:, None] * (1 - t) * np.maximum(0, 1 - s[:, None] + s))


def huber(s: Any, t: Any, *, delta: float = 1.0) -> Any:
    r = np.abs(s - t)
    return np.where(r <= delta, r * r / 2, delta * (r - delta / 2))


@pytest.mark.parametrize("function", [cross_entropy, focal, hinge, kl, pairs, huber])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 300.0])
def test_definition_is_what_the_interpreter_gives(function: Callable[..., Any], scale: float) -> None:
    formula = trace(function)
    hypers = {h.name: h.default for h in formula.hypers}
    targets: Any = TARGETS
    scores: Any = ROW * scale
    if formula.kind == "elementwise":
        scores, targets = scores[2], 0.7
    sample = Sample({"s": scores, "t": targets}, label=2, hypers=hypers, K=4)
    assert agree(definition_value(function, formula, sample), evaluate_adaptive(formula.expr, sample))


def test_definition_with_many_digits_lost() -> None:
    formula = trace(cross_entropy)
    ctx = context(900)
    sample = Sample({"s": [300.0, 0.0]}, label=0)
    exact = ctx.log(1 + ctx.exp(-300))
    assert agree(definition_value(cross_entropy, formula, sample), exact)


def test_limits_are_taken_as_the_interpreter_takes_them() -> None:
    formula = trace(kl)
    sample = Sample({"s": [-math.inf, 0.0], "t": [0.0, 1.0]})
    assert definition_value(kl, formula, sample, limits=True) == 0
    alone = Sample({"s": [-math.inf, -math.inf], "t": [0.0, 1.0]})
    found = definition_value(kl, formula, alone, limits=True)
    assert found != found


def test_component_of_a_vector_function() -> None:
    formula = Formula("p", "vector", None, (Input("s", Role("scores")),))  # type: ignore[arg-type]
    found = definition_value(own("softmax"), formula, Sample({"s": [0.0, 0.0]}), component=1)
    assert found == 0.5
