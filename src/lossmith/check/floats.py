"""Floats of one dtype under a sweep: the code of a textbook, and single operations that are right to rounding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lossmith import compiler
from lossmith.check.sweep import Sweep
from lossmith.language.elementary import FUNCTIONS
from lossmith.language.expr import Expr
from lossmith.language.formula import Formula

_Function = Callable[..., Any]

_TEXTBOOK: Mapping[str, _Function] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "log_cosh": lambda x: np.log(np.cosh(x)),
    "scaled": np.multiply,
}
"""As the functions are written down; all others are NumPy's."""

_CAREFUL: Mapping[str, _Function] = {
    "sigmoid": lambda x: np.exp(-np.logaddexp(0, -x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "log_cosh": lambda x: np.where(
        np.abs(x) > 1, np.abs(x) - np.log(2) + np.log1p(np.exp(-2 * np.abs(x))), np.log1p(2 * np.sinh(x / 2) ** 2)
    ),
    "scaled": lambda a, b: np.where(a == 0, 0, a * b),
}
"""Without cancellation, and with 0 times anything being 0."""


def _function(own: Mapping[str, _Function], name: str) -> _Function:
    return own.get(name) or getattr(np, FUNCTIONS[name].numpy or name)


class Floats:
    """The algebra of floats of one dtype, for `Sweep`.

    Parameters
    ----------
    dtype : float32 or float64
    careful : bool
        Whether each operation by itself is right to rounding: functions are then computed in a wider dtype, and
        log Σ exp and softmax with a shift by the maximum. Otherwise everything is as a textbook writes it.
    """

    def __init__(self, dtype: Any, *, careful: bool = False) -> None:
        self.dtype = np.dtype(dtype)
        self.careful = careful
        self._wide = np.float64 if self.dtype.itemsize <= 4 else np.longdouble

    def number(self, value: Any) -> np.ndarray:
        return np.atleast_1d(np.asarray(value, dtype=self._wide).astype(self.dtype))

    def at(self, a: np.ndarray, key: tuple[Any, ...]) -> np.ndarray:
        return a[key]

    def transposed(self, a: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
        return a.transpose(order)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a + b

    def mul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where((a == 0) | (b == 0), self.dtype.type(0), a * b) if self.careful else a * b

    def power(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if not self.careful:
            return 1 / a if (b == -1).all() else a**b
        return (a.astype(self._wide) ** b).astype(self.dtype)

    def call(self, function: str, *args: np.ndarray) -> np.ndarray:
        if not self.careful:
            return _function(_TEXTBOOK, function)(*args)
        found = _function(_CAREFUL, function)
        return np.asarray(found(*(a.astype(self._wide) for a in args))).astype(self.dtype)

    def compare(self, op: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return {">": np.greater, ">=": np.greater_equal, "==": np.equal}[op](a, b)

    def where(self, mask: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(mask, a, b)

    def total(self, a: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
        return (a if mask is None else np.where(mask, a, self.dtype.type(0))).sum(axis=axis)

    def extremum(self, op: str, a: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
        least = -np.inf if op == "max" else np.inf
        kept = a if mask is None else np.where(mask, a, self.dtype.type(least))
        return kept.max(axis=axis) if op == "max" else kept.min(axis=axis)

    def place(self, op: str, a: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
        least = -np.inf if op == "max" else np.inf
        kept = a if mask is None else np.where(mask, a, self.dtype.type(least))
        return kept.argmax(axis=axis) if op == "max" else kept.argmin(axis=axis)

    def _shifted(self, a: np.ndarray, axis: int, mask: np.ndarray | None) -> tuple[Any, np.ndarray]:
        """Return what is taken off before exp: nothing, or the maximum; and the exponentials."""
        shift = np.expand_dims(self.extremum("max", a, axis, mask), axis) if self.careful else self.dtype.type(0)
        return shift, np.exp(a - shift)

    def logsumexp(self, a: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
        shift, powers = self._shifted(a, axis, mask)
        return np.log(self.total(powers, axis, mask)) + (np.squeeze(shift, axis) if self.careful else shift)

    def softmax(self, a: np.ndarray, axis: int, mask: np.ndarray | None) -> np.ndarray:
        _, powers = self._shifted(a, axis, mask)
        return powers / np.expand_dims(self.total(powers, axis, mask), axis)


class Naive:
    """The definition and the textbook formulas of its derivatives, run in plain NumPy.

    Parameters
    ----------
    formula : Formula
    """

    def __init__(self, formula: Formula) -> None:
        self.formula = formula
        names = [i.name for i in formula.of_role("scores")]
        self._exprs: dict[str, list[Expr]] = {"value": [formula.expr]}
        for output, derived in compiler.DERIVED.items():
            self._exprs[output] = [derived(formula, name) for name in names]

    def run(
        self, dtype: str, inputs: Mapping[str, np.ndarray], label: np.ndarray | None, hypers: Mapping[str, Any], K: int
    ) -> dict[str, tuple[np.ndarray, ...]]:
        """Return all outputs of a batch; the inputs include the direction of the product."""
        given = {n: a.astype(dtype) for n, a in inputs.items()}
        rows = len(next(iter(given.values())))
        single = self.formula.kind == "elementwise"
        sweep = Sweep(Floats(dtype), given, label, hypers, rows, K)
        found: dict[str, tuple[np.ndarray, ...]] = {}
        with np.errstate(all="ignore"):
            for output, exprs in self._exprs.items():
                index = None if single or output == "value" else compiler.J
                shape = (rows,) if index is None else (rows, K)
                found[output] = tuple(np.broadcast_to(sweep.value(x, index), shape) for x in exprs)
        return found
