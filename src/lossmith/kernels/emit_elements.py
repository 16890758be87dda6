"""From an elementwise program to loops over stretches of elements.

The lanes of a loop are as wide as the widest number in it. Values leave as float64, and weights come as float64, so
both have loops of their own over a stretch that the cache holds: the loop that computes is in the dtype of the kernel
throughout, with twice the lanes. Outputs of large batches are made in such a stretch too, and leave past the cache.
"""

from __future__ import annotations

import numpy as np

from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.printing import ATOM, UNARY
from lossmith.kernels.rowprogram import STRETCH, Let, Load, RowProgram, Value


def emit_elements(
    program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False, streamed: bool = False
) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_numba takes.

    With `summed` its value is one sum per STRETCH elements; with `streamed` other outputs are written past the cache.
    """
    return _ElementEmitter(program, np.dtype(dtype), weighted, summed, streamed).module()


class _ElementEmitter(Emitter):
    def __init__(self, program: RowProgram, dtype: np.dtype, weighted: bool, summed: bool, streamed: bool) -> None:
        super().__init__(program, dtype, weighted)
        self.summed = summed
        self.streamed = streamed
        self.entries = [name for name, _ in self.program.outputs if name != "value"]
        self.has_value = len(self.entries) < len(self.program.outputs)
        lets = (s.name for s in self.program.body if isinstance(s, Let))
        taken = {*self.arguments(), *lets}
        self.here = {name: _fresh(f"{name}_r", taken) for name in self.program.inputs}  # the element of each input
        self.made_at = {name: _fresh(f"{name}_made", taken) for name in self.entries}  # where outputs are streamed from

    def function(self) -> None:
        self.lines.append(f"def kernel({', '.join(self.arguments())}):")
        self.put(f"N = U({self.program.inputs[0]}.shape[0])")
        if self.entries:
            self.put(f"factors = np.empty({STRETCH}, F)" if self.weighted else "factor = F(scale)")
        if self.has_value:
            self.put(f"values = np.empty({STRETCH}, F)")
        if self.streamed:
            for name in self.entries:
                self.put(f"{self.made_at[name]} = np.empty({STRETCH}, F)")
        self.put(f"for first in range(U(0), N, U({STRETCH})):")
        self.indent += 1
        self.put(f"R = min(U({STRETCH}), N - first)")
        self.stretch()
        self.indent -= 1
        if self.streamed:
            self.put(self.vec("drain", ""))

    def stretch(self) -> None:
        """Write what is done with R elements from `first` on."""
        wiped = self.entries if self.weighted else []
        if wiped:
            self.put("for r in range(R):")
            self.put("    factors[r] = F(weight[first + r] * scale)")
        self.put("for r in range(R):")
        self.indent += 1
        if wiped:
            self.put("factor = factors[r]")
        for name in self.program.inputs:  # once: after a store they might have changed, for all that LLVM knows
            self.put(f"{self.here[name]} = {name}[first + r]")
        self.body(self.schedule.body)
        self.indent -= 1
        if self.has_value:
            self.finish_values()
        if wiped:
            self.put("for r in range(R):")
            self.put("    if weight[first + r] == 0.0:")
            for name in wiped:
                self.put(f"        {self.entry(name)} = F(0)")
        if self.streamed:
            for name in self.entries:
                self.put(self.vec("stream", f"{name}, first, {self.made_at[name]}, R"))

    def entry(self, output: str) -> str:
        """Return the place of an element of an output."""
        return f"{self.made_at[output]}[r]" if self.streamed else f"{output}[first + r]"

    def store(self, output: str, value: Value) -> None:
        scaled = output != "value"
        text = self.text(value, UNARY if scaled and not self.rejects else 0)
        for bad in self.rejects:
            text = self.vec("select", f"{bad}, F(np.nan), {text}")
        self.put(f"{self.entry(output)} = factor * {text}" if scaled else f"values[r] = {text}")

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
            return self.here[value.input], ATOM
        return super().leaf(value)


def _fresh(name: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
