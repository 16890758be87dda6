"""From an elementwise program to loops over stretches of elements.

Values leave as float64, and weights come as float64, so both have loops of their own over a stretch that the cache
holds: the loop that computes is in the dtype of the kernel throughout, and written in vectors of several registers.
One element waits for its last operation most of the time; of several, a processor does one while another waits.
Outputs of large batches are made in such a stretch too, and leave past the cache.
"""

from __future__ import annotations

import numpy as np

from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.emit_watch import limit_of
from lossmith.kernels.printing import ATOM, UNARY
from lossmith.kernels.rowprogram import STRETCH, Let, Load, RowProgram, Value, calls_library, fresh_name, subvalues


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
        self.here = {name: fresh_name(f"{name}_r", taken) for name in self.program.inputs}  # the element of each input
        self.made_at = {
            name: fresh_name(f"{name}_made", taken) for name in self.entries
        }  # where they are streamed from
        self.seen = {d: fresh_name(f"{d}_seen", taken) for d in dict.fromkeys(self.watched.values())}  # of each domain
        self.in_vectors = not calls_library(self.schedule.body)

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
        if self.watched:
            self.put("sure = True")
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
        if self.in_vectors:
            self.vectors()
        else:
            self.watch("first, R")
            self.put("for r in range(R):")
            self.elements()
        if self.has_value:
            self.finish_values()
        if wiped:
            self.put("for r in range(R):")
            self.put("    if weight[first + r] == 0.0:")
            for name in wiped:
                self.put("        {}[{}] = F(0)".format(*self.place_of(name)))
        if self.streamed:
            for name in self.entries:
                self.put(self.vec("stream", f"{name}, first, {self.made_at[name]}, R"))

    def vectors(self) -> None:
        """Write what is done with R elements in vectors, and watch inputs in passing: a look before would only wait."""
        width = self.width()
        for seen in self.seen.values():
            self.put(f"{seen} = {self.vec('nothing_seen', f'F(0), {width}')}")
        self.put(f"left = R % U({width})")
        self.put(f"for r in range(U(0), R - left, U({width})):")
        self.elements(width)
        self.put("if left:")
        self.put("    r = R - left")
        self.elements(width, part=True)
        for domain, seen in self.seen.items():
            self.put(f"sure = sure & {self.vec('seen_within', f'{seen}, {limit_of(domain)}')}")

    def elements(self, width: int = 0, part: bool = False) -> None:
        """Write what is done with one element, or a vector of so many, or part of one."""
        self.lanes, self.in_part = width, part
        self.indent += 1
        if self.weighted and self.entries:
            self.put(f"factor = {self.read('factors', 'r')}")
        for name in self.program.inputs:  # once: after a store they might have changed, for all that LLVM knows
            self.put(f"{self.here[name]} = {self.read(name, 'first + r')}")
            if self.lanes and name in self.watched:
                seen = self.seen[self.watched[name]]
                self.put(f"{seen} = {self.vec('seen', f'{seen}, {self.here[name]}')}")
        self.body(self.schedule.body)
        self.indent -= 1
        self.lanes, self.in_part = 0, False

    def read(self, array: str, at: str) -> str:
        return self.read_vector(array, at) if self.lanes else f"{array}[{at}]"

    def place_of(self, output: str) -> tuple[str, str]:
        """Return the array in which an element of an output is made, and its place there."""
        if output == "value":
            return "values", "r"
        return (self.made_at[output], "r") if self.streamed else (output, "first + r")

    def store(self, output: str, value: Value) -> None:
        scaled = output != "value"
        text = self.text(value, UNARY if scaled and not self.rejects else 0)
        for bad in self.rejects:
            text = self.vec("select", f"{bad}, F(np.nan), {text}")
        text = f"factor * {text}" if scaled else text
        array, at = self.place_of(output)
        if not self.lanes:
            self.put(f"{array}[{at}] = {text}")
            return
        if not any(isinstance(v, Load) for v in subvalues(value)):  # it may be the same number everywhere
            text = self.vec("spread", f"{text}, {self.lanes}")
        self.put_vector(array, at, text)

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
