"""Functions that losses are made of: softmax, sigmoid and their kin, with derivatives and derivations.

Each is a VectorFunction: it can be called inside the definition of a loss and on arrays, and it knows its Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmith.errors import FormulaError
from lossmith.language.formula import Formula
from lossmith.language.reader import read
from lossmith.language.trace import trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lossmith.calculus.prose import Derivation


class VectorFunction:
    """A function of a row (softmax) or of every element (sigmoid), with its derivatives.

    Calling it, or `value`, evaluates it on an array of any float dtype, classes along the last axis.
    """

    def __init__(self, reader: Callable[[], tuple[Formula, Formula]], name: str, doc: str = "") -> None:
        self._reader = reader
        self._kernels: dict[Any, Any] = {}
        self.name = self.__name__ = name
        self.__doc__ = doc or type(self).__doc__

    @cached_property
    def _formulas(self) -> tuple[Formula, Formula]:
        return self._reader()

    @property
    def definition(self) -> Formula:
        """The expression that is computed, and the roles of its arguments."""
        return self._formulas[0]

    @property
    def spelled(self) -> Formula:
        """The definition in elementary functions, from which the derivation starts."""
        return self._formulas[1]

    def __repr__(self) -> str:
        return f"<VectorFunction {self.name}: {self.derivation.formula}>"

    def __call__(self, x: Any, /, *args: Any, **hyper: Any) -> Any:
        """Return the value, or its traced form inside the definition of a loss."""
        if hasattr(x, "__lossmith_apply__"):
            return x.__lossmith_apply__(self.name, *args, **hyper)
        names = [h.name for h in self.definition.hypers]
        return self.value(x, **dict(zip(names, args, strict=False)), **hyper)

    def value(self, x: Any, **hyper: Any) -> np.ndarray:
        """Return f(x)."""
        return self._run("value", x, None, hyper)

    def jvp(self, x: Any, v: Any, **hyper: Any) -> np.ndarray:
        """Return the Jacobian times a vector, Σ_j ∂f_i/∂x_j v_j, in O(K) a row."""
        return self._run("jvp", x, v, hyper)

    def vjp(self, x: Any, v: Any, **hyper: Any) -> np.ndarray:
        """Return a vector times the Jacobian, Σ_i v_i ∂f_i/∂x_j, in O(K) a row."""
        return self._run("vjp", x, v, hyper)

    def derivative(self, x: Any, **hyper: Any) -> np.ndarray:
        """Return f'(x) of an elementwise function."""
        if self.definition.kind != "elementwise":
            raise FormulaError(f"{self.name} couples the elements of a row: it has a jacobian, no derivative.")
        return self._run("jvp", x, np.ones_like(np.asarray(x, dtype=float)), hyper)

    def jacobian(self, x: Any, **hyper: Any) -> np.ndarray:
        """Return the full Jacobian of each row, shape (…, K, K): entry i, j is ∂f_i/∂x_j."""
        x = np.asarray(x, dtype=None if np.asarray(x).dtype.kind == "f" else float)
        basis = np.eye(x.shape[-1], dtype=x.dtype)
        columns = [self.jvp(x, np.broadcast_to(unit, x.shape), **hyper) for unit in basis]
        return np.stack(columns, axis=-1)

    @property
    def derivation(self) -> Derivation:
        """The derivative or Jacobian, line by line."""
        from lossmith.calculus.prose import derive_function

        return derive_function(self.definition, self.spelled.expr)

    def source(self, backend: str = "numpy", outputs: tuple[str, ...] = ("value",)) -> str:
        """Return the generated code for any of "value", "jvp" and "vjp"; the NumPy code runs on its own."""
        from lossmith.evaluation import function_source

        return function_source(self.definition, backend, outputs)

    def plot(self, **options: Any) -> Figure:
        """Draw the function and its derivative, or the row of its Jacobian."""
        from lossmith.report import plot_function

        return plot_function(self, **options)

    def _repr_html_(self) -> str:
        return self.derivation.html()

    def _run(self, what: str, x: Any, v: Any, hyper: dict[str, Any]) -> np.ndarray:
        from lossmith.evaluation import run_function

        return run_function(self.definition, self._kernels, what, x, v, hyper)


def function(definition: Callable[..., Any] | str, **names: Any) -> VectorFunction:
    """Make a VectorFunction from a function of one row, or from a text.

    Examples
    --------
    >>> import lossmith as lm
    >>> float(lm.function("s * sigmoid(s)")(2.0).round(6))
    1.761594
    """
    formula = read(definition, **names) if isinstance(definition, str) else trace(definition)
    if formula.kind == "row":
        raise FormulaError(f"{formula.name} returns one number: a loss, not a vector function; use lossmith.loss.")
    return VectorFunction(lambda: (formula, formula), formula.name, formula.doc)


def _make(name: str, text: str, spelled: str, doc: str, **hyper: float) -> VectorFunction:
    return VectorFunction(lambda: (replace(read(text, **hyper), doc=doc, name=name), read(spelled, **hyper)), name, doc)


_TABLE: tuple[tuple[str, str, str, str, dict[str, float]], ...] = (
    ("sigmoid", "sigmoid(s)", "1/(1 + exp(-s))", "σ(s) = 1/(1 + exp(−s)); no overflow at any input.", {}),
    ("softplus", "softplus(s)", "log(1 + exp(s))", "softplus(s) = log(1 + exp(s)).", {}),
    ("log_sigmoid", "log_sigmoid(s)", "-log(1 + exp(-s))", "log σ(s) = −log(1 + exp(−s)).", {}),
    ("tanh", "tanh(s)", "sinh(s)/cosh(s)", "tanh(s) = sinh(s)/cosh(s).", {}),
    ("relu", "maximum(s, 0)", "maximum(s, 0)", "max(0, s), with derivative 0 at 0.", {}),
    ("leaky_relu", "where(s > 0, s, slope*s)", "where(s > 0, s, slope*s)", "s where s > 0, else slope·s.",
     {"slope": 0.01}),
    ("softmax", "softmax(s)", "exp(s)/sum(exp(s))", "softmax(s)_i = exp(s_i)/Σ_m exp(s_m), along the last axis.", {}),
    ("log_softmax", "log_softmax(s)", "s - log(sum(exp(s)))", "log softmax(s)_i = s_i − log Σ_m exp(s_m).", {}),
)  # fmt: skip

VECTOR_FUNCTIONS = {row[0]: _make(row[0], row[1], row[2], row[3], **row[4]) for row in _TABLE}
"""The vector functions by name; each is an attribute of this module, too."""

sigmoid = VECTOR_FUNCTIONS["sigmoid"]
softplus = VECTOR_FUNCTIONS["softplus"]
log_sigmoid = VECTOR_FUNCTIONS["log_sigmoid"]
tanh = VECTOR_FUNCTIONS["tanh"]
relu = VECTOR_FUNCTIONS["relu"]
leaky_relu = VECTOR_FUNCTIONS["leaky_relu"]
softmax = VECTOR_FUNCTIONS["softmax"]
log_softmax = VECTOR_FUNCTIONS["log_softmax"]


def logsumexp(x: Any) -> Any:
    """Return log Σ exp(x) over the last axis, without overflow."""
    if hasattr(x, "__lossmith_apply__"):
        return x.__lossmith_apply__("logsumexp")
    x = np.asarray(x, dtype=float) if np.asarray(x).dtype.kind in "iub" else np.asarray(x)
    with np.errstate(all="ignore"):
        top = np.max(x, axis=-1, keepdims=True)
        below = np.where(x == top, 0, np.exp(x - top))
        rest = np.sum(below, axis=-1) + (np.sum(x == top, axis=-1) - 1)  # one maximum left out
        total = top[..., 0] + np.log1p(rest)
        return np.where(np.isinf(top[..., 0]), top[..., 0], total)[()].astype(x.dtype)


def onehot(y: Any, like: Any) -> Any:
    """Return the one-hot row 1{k = y}; `like` is a row of scores, or the number of classes."""
    if hasattr(y, "__lossmith_apply__"):
        return y.__lossmith_apply__("onehot", like)
    return (classes(like) == np.asarray(y)[..., None]).astype(float)


def classes(like: Any) -> Any:
    """Return the class numbers 0 … K−1; `like` is a row of scores, or the number of classes."""
    if hasattr(like, "__lossmith_apply__"):
        return like.__lossmith_apply__("classes")
    return np.arange(int(like) if np.ndim(like) == 0 else np.shape(like)[-1])
