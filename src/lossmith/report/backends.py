"""Running a loss with a chosen back end, on arguments as users give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lossmith import evaluation
from lossmith.compiler import outputs_for
from lossmith.kernels.lower import lower
from lossmith.kernels.runtime import Backend, Kernel, compile_kernel
from lossmith.loss import Loss

Arrays = dict[str, np.ndarray]


class Evaluator:
    """Per-sample outputs of a loss from the kernels of one back end.

    Parameters
    ----------
    loss : Loss
    backend : {"auto", "numba", "numpy"}
        Pictures use "numpy", which has nothing to compile.
    hyper : mapping, optional
        Hyperparameters other than the loss's own.
    """

    def __init__(self, loss: Loss, backend: Backend = "numpy", hyper: Mapping[str, Any] | None = None) -> None:
        bound = loss.bind(**hyper) if hyper else loss
        self.loss = bound
        self.backend: Backend = backend
        self._hyper = dict(bound._defaults)  # pyright: ignore[reportPrivateUsage]
        self._settings = {**bound._options, "axis": -1}  # pyright: ignore[reportPrivateUsage]
        self._kernels: dict[Any, Kernel] = {}

    def call(self, arguments: tuple[Any, ...], wanted: tuple[str, ...]) -> Callable[[], Arrays]:
        """Check the arguments, compile, and return what computes the outputs, again at each call."""
        ready = evaluation.prepare(self.loss, arguments, self._hyper, self._settings)
        key = (wanted, ready.key, ready.layout.compute.char)
        if key not in self._kernels:
            program = lower(outputs_for(ready.formula, wanted), ready.formula)
            self._kernels[key] = compile_kernel(program, ready.layout.compute, self.backend)
        kernel = self._kernels[key]
        shape = next(iter(ready.inputs.values())).shape

        def run() -> Arrays:
            made = {n: _empty(n, shape, kernel.compute) for n in kernel.outputs}
            kernel.run(ready.inputs, ready.label, ready.hypers, ready.weight, 1.0, made)
            return made

        return run

    def __call__(self, arguments: tuple[Any, ...], wanted: tuple[str, ...]) -> Arrays:
        """Return the outputs: value of shape (N,), others shaped like the scores."""
        return self.call(arguments, wanted)()


def fixed_classes(loss: Loss, hyper: Mapping[str, Any] | None = None) -> int | None:
    """Return the number of classes, where an array with one number per class decides it."""
    given = {**loss._options, **loss._defaults}  # pyright: ignore[reportPrivateUsage]
    defaults: dict[str, Any] = {h.name: h.default for h in loss.definition.hypers}
    for value in {**defaults, **given, **(hyper or {})}.values():
        if np.ndim(value) == 1:
            return len(value)
    return None


def _empty(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.empty(shape[0]) if name == "value" else np.empty(shape, dtype)
