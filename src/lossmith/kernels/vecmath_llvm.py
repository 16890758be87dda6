"""Values of a program being compiled: the floats and integers in which vecmath writes formulas.

Code for Numba is emitted here as LLVM instructions and not compiled from Python source, because
Numba widens int32 to int64, turns a float32 times a literal into float64, compiles every helper
function on its own, and leaves it to LLVM whether to inline it and whether ``a if c else b``
becomes a branch. The price is this pair of small classes, `Number` and `Bits`.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba.core import cgutils, types

from .lanes import widened

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

    @property
    def lanes(self) -> int:
        """How many numbers a register of 512 bits holds."""
        return 512 // self.int_type.width

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


@functools.cache
def has_avx512() -> bool:
    """Whether this processor has the vectors of 512 bits that x86 calls AVX-512."""
    return bool(get_host_cpu_features().get("avx512f", False))


@functools.cache
def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def _in_register(builder: Any, constant: Any, kind: str) -> Any:
    """Return a constant that stays in a register throughout a loop.

    Numba's machine code takes two instructions to get a constant from memory, its address being of 64 bits. LLVM
    thinks that as cheap as a register, and does it in every round; so it is not told that it is a constant.
    """
    signature = ir.FunctionType(constant.type, [constant.type])
    return builder.call(
        cgutils.get_or_insert_function(builder.module, signature, f"llvm.arithmetic.fence.{kind}"), [constant]
    )


def _by_registers(builder: Any, length: int, *vectors: Any) -> list[list[Any]]:
    """Return the parts of vectors that fill one register each, those of one place together."""
    count = vectors[0].type.count
    orders = [list(range(start, start + length)) for start in range(0, count, length)]
    places = [ir.Constant(ir.VectorType(ir.IntType(32), length), order) for order in orders]
    return [[builder.shuffle_vector(v, v, place) for v in vectors] for place in places]


def _one_after_another(builder: Any, parts: list[Any]) -> Any:
    """Return those parts in one vector again."""
    while len(parts) > 1:
        both = list(range(2 * parts[0].type.count))
        order = ir.Constant(ir.VectorType(ir.IntType(32), len(both)), both)
        parts = [builder.shuffle_vector(a, b, order) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


class _Value:
    """A value of the program being compiled; constants next to it take its type."""

    __slots__ = ("builder", "format", "node")

    def __init__(self, builder: Any, fmt: Format, node: Any) -> None:
        self.builder = builder
        self.format = fmt
        self.node = node

    def operand(self, other: _Value | float) -> Any:
        if isinstance(other, _Value):
            return other.node
        kind = self.node.type
        return ir.Constant(kind, [other] * kind.count if isinstance(kind, ir.VectorType) else other)

    def fills_registers(self) -> bool:
        """Whether this is a vector of whole registers of 512 bits, and the processor has the instructions for them."""
        kind = self.node.type
        return isinstance(kind, ir.VectorType) and not kind.count % self.format.lanes and has_avx512()

    def of_lanes(self, element: Any) -> Any:
        """Return the type with as many lanes as this value of another element type."""
        kind = self.node.type
        return ir.VectorType(element, kind.count) if isinstance(kind, ir.VectorType) else element


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

    def to_exponent(self, steps: int = 1) -> Bits:
        """Shift left, dropping what lies above the exponent and fractions: this integer counts 1/steps."""
        fraction = steps.bit_length() - 1
        shifted = self._make(self.builder.shl(self.node, self.operand(self.format.mantissa_bits - fraction)))
        return shifted & -(1 << self.format.mantissa_bits) if fraction else shifted

    def from_exponent(self) -> Bits:
        """Shift right, with the sign as the highest bit."""
        return self._make(self.builder.lshr(self.node, self.operand(self.format.mantissa_bits)))

    def select(self, condition: Any, yes: int, no: int) -> Bits:
        return self._make(self.builder.select(condition, self.operand(yes), self.operand(no)))

    def look_up(self, table: tuple[float, ...]) -> Number:
        """Return, of as many constants as a register holds, those whose places are in the low bits."""
        builder, fmt = self.builder, self.format
        if not isinstance(self.node.type, ir.VectorType):
            array = ir.Constant(ir.ArrayType(fmt.float_type, fmt.lanes), table)
            name = f"lossmith.table.{fmt.name}"
            start = builder.module.globals.get(name) or cgutils.global_constant(builder.module, name, array)
            place = (self & (fmt.lanes - 1)).node
            return Number(builder, fmt, builder.load(builder.gep(start, [ir.Constant(place.type, 0), place])))
        full, suffix = ir.VectorType(fmt.float_type, fmt.lanes), "sf" if fmt.name == "float32" else "df"
        permute = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(full, [full, ir.VectorType(fmt.int_type, fmt.lanes)]),
            f"llvm.x86.avx512.permvar.{suffix}.512",
        )
        row = _in_register(builder, ir.Constant(full, table), f"v{fmt.lanes}f{fmt.int_type.width}")
        parts = [builder.call(permute, [row, *part]) for part in _by_registers(builder, fmt.lanes, self.node)]
        return Number(builder, fmt, _one_after_another(builder, parts))

    def number(self) -> Number:
        node = self.builder.bitcast(self.node, self.of_lanes(self.format.float_type))
        return Number(self.builder, self.format, node)


class Number(_Value):
    """A float. Each operation is rounded once; comparisons are false for NaN."""

    __slots__ = ()

    def _make(self, node: Any) -> Number:
        return Number(self.builder, self.format, node)

    def operand(self, other: _Value | float) -> Any:
        """Return the node of a value; of a constant, one that stays in a register throughout a loop."""
        node = super().operand(other)
        if isinstance(other, _Value) or other == 0.0 or not _is_x86():
            return node
        hidden = _in_register(
            self.builder, ir.Constant(self.format.float_type, other), f"f{self.format.int_type.width}"
        )
        return widened(self.builder, hidden, self.node.type)

    def __add__(self, other: Number | float) -> Number:
        return self._make(self.builder.fadd(self.node, self.operand(other)))

    def __sub__(self, other: Number | float) -> Number:
        return self._make(self.builder.fsub(self.node, self.operand(other)))

    def __rsub__(self, other: float) -> Number:
        return self._make(self.builder.fsub(self.operand(other), self.node))

    def __mul__(self, other: Number | float) -> Number:
        return self._make(self.builder.fmul(self.node, self.operand(other)))

    def __truediv__(self, other: Number) -> Number:
        return self._make(self.builder.fdiv(self.node, other.node))

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

    def is_equal(self, other: Number) -> Any:
        return self.builder.fcmp_ordered("==", self.node, other.node)

    def fma(self, factor: Number | float, addend: Number | float) -> Number:
        """Return self·factor + addend, rounded once."""
        return self.call("llvm.fma", factor, addend)

    def call(self, name: str, *others: Number | float, flags: tuple[str, ...] = ()) -> Number:
        kind = self.node.type
        signature = ir.FunctionType(kind, [kind] * (1 + len(others)))
        if isinstance(kind, ir.VectorType):
            element = "f32" if self.format.name == "float32" else "f64"
            function = cgutils.get_or_insert_function(self.builder.module, signature, f"{name}.v{kind.count}{element}")
        else:
            function = self.builder.module.declare_intrinsic(name, [kind], signature)
        operands = [self.node, *map(self.operand, others)]
        return self._make(self.builder.call(function, operands, fastmath=flags))

    def select(self, condition: Any, yes: Number | float, no: Number | float) -> Number:
        """Choose between two floats of this one's type."""
        return self._make(self.builder.select(condition, self.operand(yes), self.operand(no)))

    def times_power_of_two(self, exponent: Number) -> Number | None:
        """Return self·2**⌊exponent⌋, rounded once, if the processor has an instruction for it."""
        length = self.format.lanes
        if not self.fills_registers():
            return None
        suffix, mask = ("ps", ir.IntType(16)) if self.format.name == "float32" else ("pd", ir.IntType(8))
        part = ir.VectorType(self.node.type.element, length)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(part, [part, part, part, mask, ir.IntType(32)]),
            f"llvm.x86.avx512.mask.scalef.{suffix}.512",
        )
        rest = [ir.Constant(part, ir.Undefined), ir.Constant(mask, -1), ir.Constant(ir.IntType(32), 4)]
        parts = _by_registers(self.builder, length, self.node, exponent.node)
        return self._make(_one_after_another(self.builder, [self.builder.call(function, [*p, *rest]) for p in parts]))

    def bits(self) -> Bits:
        node = self.builder.bitcast(self.node, self.of_lanes(self.format.int_type))
        return Bits(self.builder, self.format, node)
