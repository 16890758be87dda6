"""Kernels of plain NumPy, where Numba is missing or not wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from lossmith.kernels.printing import NUMPY_NAMES
from lossmith.kernels.rowprogram import function_name, renamed
from lossmith.kernels.runtime import Kernel

NUMPY_CHUNK = 1 << 20
"""How many numbers an intermediate array of the NumPy back end may hold; rows beyond go in the next chunk."""


class NumpyKernel(Kernel):
    @property
    def source(self) -> str:
        from lossmith.kernels.emit_numpy import emit_numpy

        return emit_numpy(self.program)

    @functools.cached_property
    def _function(self) -> Callable[..., Any]:
        namespace: dict[str, Any] = {}
        exec(compile(self.source, f"<{self.program.name}: generated NumPy code>", "exec"), namespace)
        return namespace[function_name(self.program)]

    def _prepare(self, weighted: bool, classes: int, summed: bool, many: bool) -> Callable[..., None]:
        return functools.partial(self._chunks, weighted)

    def _chunks(self, weighted: bool, *args: Any) -> None:
        program = self.program
        inputs, labels, params, weight, scale, outputs = self._sorted(args, weighted)
        rows = [*inputs[:1], *labels, *inputs[1:]]
        n = len(inputs[0])
        width = 1 if self._elementwise else inputs[0].shape[1] ** self._depth
        step = max(1, NUMPY_CHUNK // width)
        for start in range(0, n, step):
            at = slice(start, min(n, start + step))
            found = self._function(*(r[at] for r in rows), **params)
            made = found if isinstance(found, tuple) else (found,)
            for (name, per_class), array, target in zip(program.outputs, made, outputs, strict=True):
                value = self._is_value(name, per_class)
                target[at] = self._scaled(array, None if weight is None else weight[at], scale, value)

    def _sorted(self, args: tuple[Any, ...], weighted: bool) -> tuple[Any, ...]:
        program, rest = self.program, list(args)

        def take(count: int) -> list[Any]:
            taken, rest[:] = rest[:count], rest[count:]
            return taken

        inputs, labels = take(len(program.inputs)), take(len(program.labels))
        names = [p.name for p in renamed(program, NUMPY_NAMES.union(self.outputs)).params]
        params = dict(zip(names, take(len(names)), strict=True))
        weight = take(1)[0] if weighted else None
        (scale,) = take(1)
        return inputs, labels, params, weight, scale, rest

    def _scaled(self, array: np.ndarray, weight: np.ndarray | None, scale: float, value: bool) -> np.ndarray:
        """Multiply by weight and scale; a weight of 0 gives 0, also of infinity and NaN."""
        if weight is None:
            return array if value or scale == 1.0 else array * self._float(scale)
        with np.errstate(all="ignore"):
            factor = weight if value else (weight * scale).astype(self.compute)
            factor = factor.reshape(-1, *[1] * (array.ndim - 1))
            return np.where(weight.reshape(factor.shape) == 0, 0, array * factor)
