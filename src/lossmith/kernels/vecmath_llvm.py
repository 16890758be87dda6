"""Values of a program being compiled: the floats and integers in which vecmath writes formulas.

Code for Numba is emitted here as LLVM instructions and not compiled from Python source, because
Numba widens int32 to int64, turns a float32 times a literal into float64, compiles every helper
function on its own, and leaves it to LLVM whether to inline it and whether ``a if c else b``
becomes a branch. The price is this pair of small classes, `Number` and `Bits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

# floor(log(2)·2**160), from mpmath.
LOG_2 = Fraction(0xB17217F7D1CF79ABC9E3B39803F2F6AF40F34326, 2**160)


@dataclass(frozen=True)
class Format:
    """One floating-point type: its layout and the thresholds that depend on it."""

    name: str
    float_type: Any
    int_type: Any
    mantissa_bits: int
    bias: int
    exponent_bits: int
    exp_low: float  # below this exp is 0
    exp_subnormal: float  # above this exp is a normal number with room to spare
    exp_high: float  # at and above this exp is infinite
    expm1_low: float  # below this expm1 is -1
    tiny: float  # below this x itself is the nearest number to log1p(x), expm1(x) and tanh(x)

    def round(self, value: Fraction | float) -> float:
        """Round to the nearest number of this format."""
        return float(np.float32(float(value))) if self.name == "float32" else float(value)

    def split_log_2(self, bits: int) -> tuple[float, float]:
        """Write log 2 as a number of that many bits plus the rounded rest."""
        high = Fraction(round(LOG_2 * 2**bits), 2**bits)
        return float(high), self.round(LOG_2 - high)

    def exponent_field(self, exponent: int) -> int:
        """Give the bits of 2**exponent."""
        return (self.bias + exponent) << self.mantissa_bits

    @property
    def rounding_shift(self) -> float:
        """Number that, added to a small one, leaves its nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa_bits


_FLOAT, _DOUBLE = ir.FloatType(), ir.DoubleType()
FORMATS = {
    types.float32: Format("float32", _FLOAT, ir.IntType(32), 23, 127, 8, -104.0, -85.0, 89.0, -30.0, 2.0**-26),
    types.float64: Format("float64", _DOUBLE, ir.IntType(64), 52, 1023, 11, -746.0, -700.0, 710.0, -50.0, 2.0**-56),
}


class _Value:
    """A value of the program being compiled; constants next to it take its type."""

    __slots__ = ("builder", "format", "node")

    def __init__(self, builder: Any, fmt: Format, node: Any) -> None:
        self.builder = builder
        self.format = fmt
        self.node = node

    def operand(self, other: _Value | float) -> Any:
        return other.node if isinstance(other, _Value) else ir.Constant(self.node.type, other)


class Bits(_Value):
    """An integer as wide as its float: addition, and shifts by the width of the mantissa."""

    __slots__ = ()

    def _make(self, node: Any) -> Bits:
        return Bits(self.builder, self.format, node)

    def __add__(self, other: Bits | int) -> Bits:
        return self._make(self.builder.add(self.node, self.operand(other)))

    def __rsub__(self, other: int) -> Bits:
        return self._make(self.builder.sub(self.operand(other), self.node))

    def __and__(self, other: int) -> Bits:
        return self._make(self.builder.and_(self.node, self.operand(other)))

    def __or__(self, other: int) -> Bits:
        return self._make(self.builder.or_(self.node, self.operand(other)))

    def to_exponent(self) -> Bits:
        """Shift left, dropping what lies above the exponent."""
        return self._make(self.builder.shl(self.node, self.operand(self.format.mantissa_bits)))

    def from_exponent(self) -> Bits:
        """Shift right, with the sign as the highest bit."""
        return self._make(self.builder.lshr(self.node, self.operand(self.format.mantissa_bits)))

    def select(self, condition: Any, yes: int, no: int) -> Bits:
        return self._make(self.builder.select(condition, self.operand(yes), self.operand(no)))

    def number(self) -> Number:
        node = self.builder.bitcast(self.node, self.format.float_type)
        return Number(self.builder, self.format, node)


class Number(_Value):
    """A float. Each operation is rounded once; comparisons are false for NaN."""

    __slots__ = ()

    def _make(self, node: Any) -> Number:
        return Number(self.builder, self.format, node)

    def __add__(self, other: Number | float) -> Number:
        return self._make(self.builder.fadd(self.node, self.operand(other)))

    def __sub__(self, other: Number | float) -> Number:
        return self._make(self.builder.fsub(self.node, self.operand(other)))

    def __rsub__(self, other: float) -> Number:
        return self._make(self.builder.fsub(self.operand(other), self.node))

    def __mul__(self, other: Number | float) -> Number:
        return self._make(self.builder.fmul(self.node, self.operand(other)))

    def __rtruediv__(self, other: float) -> Number:
        return self._make(self.builder.fdiv(self.operand(other), self.node))

    def __neg__(self) -> Number:
        return self._make(self.builder.fneg(self.node))

    def __abs__(self) -> Number:
        return self.call("llvm.fabs")

    __radd__ = __add__

    def __lt__(self, other: Number | float) -> Any:
        return self.builder.fcmp_ordered("<", self.node, self.operand(other))

    def __gt__(self, other: Number | float) -> Any:
        return self.builder.fcmp_ordered(">", self.node, self.operand(other))

    def constant(self, value: float) -> Number:
        return self._make(self.operand(value))

    def add(self, other: Number, flags: tuple[str, ...]) -> Number:
        return self._make(self.builder.fadd(self.node, other.node, flags=flags))

    def is_nan(self) -> Any:
        return self.builder.fcmp_unordered("uno", self.node, self.node)

    def is_zero(self) -> Any:
        return self.builder.fcmp_ordered("==", self.node, self.operand(0.0))

    def fma(self, factor: Number | float, addend: Number | float) -> Number:
        """Return self·factor + addend, rounded once."""
        return self.call("llvm.fma", factor, addend)

    def call(self, name: str, *others: Number | float, flags: tuple[str, ...] = ()) -> Number:
        kind = self.node.type
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        function = self.builder.module.declare_intrinsic(name, [kind], signature)
        operands = [self.node, *map(self.operand, others)]
        return self._make(self.builder.call(function, operands, fastmath=flags))

    def select(self, condition: Any, yes: Number | float, no: Number | float) -> Number:
        """Choose between two floats of this one's type."""
        return self._make(self.builder.select(condition, self.operand(yes), self.operand(no)))

    def bits(self) -> Bits:
        node = self.builder.bitcast(self.node, self.format.int_type)
        return Bits(self.builder, self.format, node)
