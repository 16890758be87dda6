"""From an elementwise program to loops over stretches of elements.

The lanes of a loop are as wide as the widest number in it. Values leave as float64, and weights come as float64, so
both have loops of their own over a stretch that the cache holds: the loop that computes is in the dtype of the kernel
throughout, with twice the lanes.
"""

from __future__ import annotations

import numpy as np

from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.printing import UNARY
from lossmith.kernels.rowprogram import STRETCH, Load, RowProgram, Value


def emit_elements(program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_numba takes.

    With `summed` its value is one sum per STRETCH elements.
    """
    return _ElementEmitter(program, np.dtype(dtype), weighted, summed).module()


class _ElementEmitter(Emitter):
    def __init__(self, program: RowProgram, dtype: np.dtype, weighted: bool, summed: bool) -> None:
        super().__init__(program, dtype, weighted)
        self.summed = summed
        self.entries = [name for name, _ in self.program.outputs if name != "value"]
        self.has_value = len(self.entries) < len(self.program.outputs)

    def function(self) -> None:
        self.lines.append(f"def kernel({', '.join(self.arguments())}):")
        self.put(f"N = U({self.program.inputs[0]}.shape[0])")
        if self.entries:
            self.put(f"factors = np.empty({STRETCH}, F)" if self.weighted else "factor = F(scale)")
        if self.has_value:
            self.put(f"values = np.empty({STRETCH}, F)")
        self.put(f"for first in range(U(0), N, U({STRETCH})):")
        self.indent += 1
        self.put(f"R = min(U({STRETCH}), N - first)")
        if self.entries and self.weighted:
            self.put("for r in range(R):")
            self.put("    factors[r] = F(weight[first + r] * scale)")
        self.put("for r in range(R):")
        self.indent += 1
        if self.entries and self.weighted:
            self.put("factor = factors[r]")
        self.body(self.schedule.body)
        self.indent -= 1
        if self.has_value:
            self.finish_values()
        if self.entries and self.weighted:
            self.put("for r in range(R):")
            self.put("    if weight[first + r] == 0.0:")
            for name in self.entries:
                self.put(f"        {name}[first + r] = F(0)")

    def store(self, output: str, value: Value) -> None:
        scaled = output != "value"
        text = self.text(value, UNARY if scaled and not self.rejects else 0)
        for bad in self.rejects:
            text = self.vec("select", f"{bad}, F(np.nan), {text}")
        self.put(f"{output}[first + r] = factor * {text}" if scaled else f"values[r] = {text}")

    def finish_values(self) -> None:
        """Write what the stretch has for values: all of them, or their sum."""
        value = "np.float64(values[r])"
        if self.summed:
            self.put("tally = 0.0")
        self.put("for r in range(R):")
        if self.weighted:
            self.put("    w = weight[first + r]")
            value = self.vec("select", f"w != 0.0, w * {value}, 0.0")
        if not self.summed:
            self.put(f"    value[first + r] = {value}")
            return
        self.put(f"    tally = {self.vec('add_reassoc', f'tally, {value}')}")
        self.put(f"value[first // U({STRETCH})] = tally")

    def leaf(self, value: Value) -> tuple[str, int]:
        if isinstance(value, Load):
            return f"{value.input}[first + r]", super().leaf(value)[1]
        return super().leaf(value)
