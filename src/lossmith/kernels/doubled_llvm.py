"""Double words as LLVM instructions on vectors of WIDTH numbers: the formulas of doubled_math.py, compiled once each.

The instructions name the vectors, so that nothing depends on whether LLVM finds out that a loop can be vectorised; on a
processor with narrower ones it splits them. Every operation is rounded as written: no fast-math, no contraction.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from lossmith.kernels.doubled_math import ROUNDER, WIDTH, Pair

_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, WIDTH)
_INTEGER = ir.VectorType(ir.IntType(64), WIDTH)
_MANTISSA, _BIAS = 52, 1023
_THREE_QUARTERS = (0x3FE << _MANTISSA) + (1 << (_MANTISSA - 1))


class _Mask:
    """A condition in each lane."""

    def __init__(self, builder: Any, node: Any) -> None:
        self.builder, self.node = builder, node

    def __and__(self, other: _Mask) -> _Mask:
        return _Mask(self.builder, self.builder.and_(self.node, other.node))

    def __invert__(self) -> _Mask:
        return _Mask(self.builder, self.builder.not_(self.node))

    def __or__(self, other: _Mask) -> _Mask:
        return _Mask(self.builder, self.builder.or_(self.node, other.node))


class _Vector:
    """A float64 in each lane. Each operation is rounded once; comparisons are false for NaN."""

    def __init__(self, builder: Any, node: Any) -> None:
        self.builder, self.node = builder, node

    def _of(self, other: _Vector | float) -> Any:
        return other.node if isinstance(other, _Vector) else ir.Constant(_VECTOR, [float(other)] * WIDTH)

    def _do(self, operation: str, a: Any, b: Any) -> _Vector:
        return _Vector(self.builder, getattr(self.builder, operation)(a, b))

    def _compare(self, relation: str, other: _Vector | float) -> _Mask:
        return _Mask(self.builder, self.builder.fcmp_ordered(relation, self.node, self._of(other)))

    def __add__(self, other: _Vector | float) -> _Vector:
        return self._do("fadd", self.node, self._of(other))

    def __radd__(self, other: float) -> _Vector:
        return self._do("fadd", self._of(other), self.node)

    def __sub__(self, other: _Vector | float) -> _Vector:
        return self._do("fsub", self.node, self._of(other))

    def __rsub__(self, other: float) -> _Vector:
        return self._do("fsub", self._of(other), self.node)

    def __mul__(self, other: _Vector | float) -> _Vector:
        return self._do("fmul", self.node, self._of(other))

    def __rmul__(self, other: float) -> _Vector:
        return self._do("fmul", self._of(other), self.node)

    def __truediv__(self, other: _Vector | float) -> _Vector:
        return self._do("fdiv", self.node, self._of(other))

    def __rtruediv__(self, other: float) -> _Vector:
        return self._do("fdiv", self._of(other), self.node)

    def __neg__(self) -> _Vector:
        return _Vector(self.builder, self.builder.fneg(self.node))

    def __abs__(self) -> _Vector:
        return self.call("llvm.fabs")

    def __lt__(self, other: _Vector | float) -> _Mask:
        return self._compare("<", other)

    def __gt__(self, other: _Vector | float) -> _Mask:
        return self._compare(">", other)

    def __eq__(self, other: object) -> Any:
        return self._compare("==", other)  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def call(self, name: str, *others: _Vector) -> _Vector:
        """Call an LLVM intrinsic."""
        full, module = f"{name}.v{WIDTH}f64", self.builder.module
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * (1 + len(others)))
        function = module.globals.get(full) or ir.Function(module, kind, full)
        return _Vector(self.builder, self.builder.call(function, [self.node, *(o.node for o in others)]))


class LlvmLanes:
    """Vectors of float64, being computed by the code that a builder builds."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def load(self, pointer: Any) -> _Vector:
        """Read a vector from a pointer to its first number."""
        at = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        return _Vector(self.builder, self.builder.load(at, align=8))

    def store(self, value: Any, pointer: Any) -> None:
        """Write a vector, or one number to all of its places."""
        at = self.builder.bitcast(pointer, _VECTOR.as_pointer())
        self.builder.store(self._vector(value).node, at, align=8)

    def _vector(self, value: Any) -> _Vector:
        return value if isinstance(value, _Vector) else _Vector(self.builder, ir.Constant(_VECTOR, [value] * WIDTH))

    def two_prod(self, a: Any, b: Any) -> Pair:
        a, b = self._vector(a), self._vector(b)
        product = a * b
        return product, a.call("llvm.fma", b, -product)

    def fma(self, a: Any, b: Any, c: Any) -> _Vector:
        """Return a·b + c, rounded once."""
        return self._vector(a).call("llvm.fma", self._vector(b), self._vector(c))

    def select(self, condition: _Mask, yes: Any, no: Any) -> _Vector:
        found = self.builder.select(condition.node, self._vector(yes).node, self._vector(no).node)
        return _Vector(self.builder, found)

    def sqrt(self, a: _Vector) -> _Vector:
        return a.call("llvm.sqrt")

    def _integer(self, value: int) -> Any:
        return ir.Constant(_INTEGER, [value] * WIDTH)

    def power_of_two(self, exponent: _Vector) -> _Vector:
        bits = self.builder.bitcast((exponent + ROUNDER).node, _INTEGER)
        bits = self.builder.shl(bits, self._integer(_MANTISSA))
        bits = self.builder.add(bits, self._integer(_BIAS << _MANTISSA))
        return _Vector(self.builder, self.builder.bitcast(bits, _VECTOR))

    def split(self, a: _Vector) -> Pair:
        moved = self.builder.bitcast(a.node, _INTEGER)
        moved = self.builder.add(moved, self._integer((_BIAS << _MANTISSA) - _THREE_QUARTERS))
        exponent = self.builder.ashr(moved, self._integer(_MANTISSA))
        # An integer in the low bits of the float 1.5·2**52 is an integer added to it.
        bits = self.builder.add(exponent, ir.Constant(_INTEGER, [0x4338 << 48] * WIDTH))
        whole = _Vector(self.builder, self.builder.bitcast(bits, _VECTOR)) - (ROUNDER + _BIAS)
        significand = self.builder.and_(moved, self._integer((1 << _MANTISSA) - 1))
        significand = self.builder.add(significand, self._integer(_THREE_QUARTERS))
        return whole, _Vector(self.builder, self.builder.bitcast(significand, _VECTOR))
