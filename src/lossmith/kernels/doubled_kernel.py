"""Kernels that compute in double words, for results that are right to the last bits of float64."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from lossmith.kernels.doubled_array import Doubled, where
from lossmith.kernels.doubled_math import WIDTH
from lossmith.kernels.doubled_tape import Tape, can_tape, rows_of_tile, tape_of
from lossmith.kernels.numpy_kernel import NumpyKernel
from lossmith.kernels.rowprogram import RowProgram
from lossmith.kernels.runtime import SMALL
from lossmith.kernels.threads import available_threads, run_pieces

CHUNK = 1 << 14
"""How many numbers an array of words may hold; rows beyond go in the next chunk."""

KEPT = 1 << 22
"""Up to so many numbers of memory stay with a thread."""

_scratch = threading.local()


class DoubledKernel(NumpyKernel):
    """Runs a program on double words: as a tape on the compiled machine, or as generated code on NumPy's arrays.

    Arrays come in as float64, which they are exactly, and are rounded once, weight and scale included.
    """

    def __init__(self, program: RowProgram, dtype: np.dtype[Any], compiled: bool) -> None:
        super().__init__(program, dtype, np.dtype(np.float64))
        self._on_tape = compiled and can_tape(program)
        self._tapes: dict[tuple[bool, int, int], Tape] = {}

    @property
    def source(self) -> str:
        from lossmith.kernels.emit_doubled import emit_doubled

        return emit_doubled(self.program)

    def _prepare(self, weighted: bool, classes: int, summed: bool, many: bool) -> Callable[..., None]:
        if not self._on_tape:
            return functools.partial(self._chunks, weighted)
        return functools.partial(self._played, weighted)

    def _tape(self, weighted: bool, n: int, classes: int) -> Tape:
        key = weighted, classes, rows_of_tile(classes, n)
        if key not in self._tapes:
            self._tapes[key] = tape_of(self.program, classes, key[-1], weighted)
        return self._tapes[key]

    # -------------------------------------------------------------- on the machine

    def _played(self, weighted: bool, *args: Any) -> None:
        from lossmith.kernels.doubled_machine import compiled

        inputs, labels, params, weight, scale, outputs = self._sorted(args, weighted)
        n, width = len(inputs[0]), 1 if self._elementwise else inputs[0].shape[1]
        tape = self._tape(weighted, n, width)
        per_class = [v for v in params.values() if np.ndim(v)]
        numbers = dict(zip(tape.params, (v for v in params.values() if not np.ndim(v)), strict=True))
        memory = self._memory(tape.size)
        for at, number in tape.constants:
            memory[at : at + WIDTH] = number
        for name, number in numbers.items():
            memory[tape.params[name] : tape.params[name] + WIDTH] = number
        memory[tape.scale : tape.scale + WIDTH] = scale
        arrays = [*inputs, *labels, *per_class, *([weight] if weighted else [])]
        is_label = np.array([a.dtype.kind == "i" for a in arrays], dtype=np.int64)
        addresses = np.array([a.ctypes.data for a in arrays], dtype=np.int64)
        targets = np.array([a.ctypes.data for a in outputs], dtype=np.int64)
        compiled()(
            n,
            width,
            tape.rows,
            tape.block,
            memory.ctypes.data,
            memory,
            tape.code,
            tape.segments,
            addresses,
            is_label,
            targets,
        )

    def _memory(self, size: int) -> np.ndarray:
        """Return memory for a tape; the same again to the same thread, which spares it new pages."""
        kept: np.ndarray | None = getattr(_scratch, "memory", None)
        if kept is None or kept.size < size:
            kept = np.empty(size)
            if size <= KEPT:
                _scratch.memory = kept
        return kept

    def _spread(
        self, call: Callable[..., None], n: int, classes: int, each: int, threads: int | None
    ) -> Callable[..., None]:
        """Return what does n rows in pieces of whole tiles, on several threads if there is enough to do."""
        tile = rows_of_tile(classes)
        if not self._on_tape or n <= tile or n * classes < SMALL // 32 or threads == 1:
            return call if self._on_tape else super()._spread(call, n, classes, each, threads)

        def run(*args: Any) -> None:
            most = threads or available_threads()
            tiles, cut = -(-n // tile), len(args) - len(self.outputs)
            pieces = min(tiles, 8 * most) if most > 1 else 1

            def piece(k: int) -> None:
                start, stop = tiles * k // pieces * tile, min(n, tiles * (k + 1) // pieces * tile)
                call(*self._rows(args[:cut], start, stop), *self._part(args[cut:], start, stop, each))

            run_pieces(piece, pieces, most)

        return run

    # -------------------------------------------------------------- on NumPy

    def _chunks(self, weighted: bool, *args: Any) -> None:
        inputs, labels, params, weight, scale, outputs = self._sorted(args, weighted)
        hypers = {name: Doubled(value) for name, value in params.items()}
        n = len(inputs[0])
        width = 1 if self._elementwise else inputs[0].shape[1] ** self._depth
        step = max(1, CHUNK // width)
        for start in range(0, n, step):
            at = slice(start, min(n, start + step))
            words = [Doubled(np.asfortranarray(a[at])) for a in inputs]
            with np.errstate(all="ignore"):
                found = self._function(words[0], *(a[at] for a in labels), *words[1:], **hypers)
                made = found if isinstance(found, tuple) else (found,)
                for (name, per_class), array, target in zip(self.program.outputs, made, outputs, strict=True):
                    value = self._is_value(name, per_class)
                    target[at] = _scaled(array, None if weight is None else weight[at], 1.0 if value else scale)


def _scaled(array: Doubled, weight: np.ndarray | None, scale: float) -> np.ndarray:
    """Multiply by weight and scale, and round; a weight of 0 gives 0, also of infinity and NaN."""
    if weight is None:
        return array.high if scale == 1.0 else (array * scale).high
    shaped = np.asfortranarray(weight.reshape(-1, *[1] * (array.high.ndim - 1)))
    factor = Doubled(shaped) * scale
    return where(shaped == 0, 0.0, array * factor).high
