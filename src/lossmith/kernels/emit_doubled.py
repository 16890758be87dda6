"""From a row program to code on arrays of double words: what emit_numpy.py writes, with `doubled` in NumPy's place."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from lossmith.kernels.emit_numpy import HELPERS, NumpyEmitter
from lossmith.kernels.printing import ATOM, NUMPY_NAMES
from lossmith.kernels.rowprogram import Number, Op, RowProgram, Value, renamed


def emit_doubled(program: RowProgram) -> str:
    """Return a module with one function that computes the program's outputs for a batch of double words."""
    return _Emitter(renamed(program, NUMPY_NAMES.union(name for name, _ in program.outputs))).module()


class _Emitter(NumpyEmitter):
    def imports(self) -> Iterable[str]:
        yield "from lossmith.kernels import doubled as np"
        names = sorted(self.used & HELPERS.keys())
        if names:
            yield f"from lossmith.kernels.doubled import {', '.join(names)}"

    def helpers(self) -> Iterable[str]:
        return ()  # they are imported

    def prologue(self) -> Iterable[str]:
        return self.sizes()

    def returned(self) -> str:
        return ", ".join(
            name if per_class or self.elementwise else f"{name}[:, 0]" for name, per_class in self.program.outputs
        )

    counting = ""

    def folded(self, function: str, text: str, options: str) -> str:
        return f"np.{function}({text}, {options})"

    def leaf(self, value: Value) -> tuple[str, int]:
        match value:
            case Number(Fraction() as fraction) if fraction != float(fraction):
                return f"np.number({fraction.numerator}, {fraction.denominator})", ATOM
            case _:
                return super().leaf(value)

    def call(self, value: Op) -> tuple[str, int]:
        op, args = value.op, value.args
        if op in ("indicator", "to_float"):
            return f"np.number({self.text(args[0])})", ATOM
        if op == "select":
            return f"np.where({', '.join(map(self.text, args))})", ATOM
        return super().call(value)
