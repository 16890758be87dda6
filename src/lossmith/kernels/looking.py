"""A look at many numbers that lie side by side: is one of them NaN, are all of them where they should be.

Seen as unsigned integers the bits of floats are in the order of the floats, but that negative numbers come last, and
NaN after infinity. So one maximum tells, at the speed of memory, and the order in which it is taken does not matter.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .lanes import Vector, call_lanes, literal, live_lanes, masked, place_of

BYTES, LINE = 256, 64
"""How much is looked at together, four registers of the widest processors; and what a processor fetches at once."""

AHEAD = 4096
"""So many bytes ahead memory is asked for: processors do that by themselves, but not beyond a page."""


def _greatest(context: Any, builder: Any, sig: Any, args: Any, signed: bool) -> tuple[Any, Any]:
    """Return the greatest of the numbers' bits, without their signs unless `signed`, and the type of such bits."""
    kind, (array, at, count) = sig.args[0], args[:3]
    bits = kind.dtype.bitwidth
    width = BYTES * 8 // bits
    floats = ir.VectorType(context.get_value_type(kind.dtype), width)
    integers = ir.VectorType(ir.IntType(bits), width)
    kept = ir.Constant(integers, [(1 << bits - (not signed)) - 1] * width)
    found = cgutils.alloca_once_value(builder, ir.Constant(integers, [0] * width))

    def take(vector: Any) -> None:
        seen = builder.and_(builder.bitcast(vector, integers), kept)
        builder.store(call_lanes(builder, "llvm.umax", integers, builder.load(found), seen), found)

    size, short, byte = ir.Constant(count.type, width), ir.IntType(32), ir.IntType(8)
    align = ir.Constant(short, bits // 8)
    prefetch = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [ir.PointerType(byte), short, short, short]),
        "llvm.prefetch.p0",
    )
    left = builder.urem(count, size)
    with cgutils.for_range(builder, builder.udiv(count, size)) as loop:
        there = builder.add(at, builder.mul(loop.index, size))
        for line in range(AHEAD, AHEAD + BYTES, LINE):  # beyond the array too: that is no access
            soon = builder.add(there, ir.Constant(there.type, line * 8 // bits))
            address = place_of(context, builder, kind, array, soon, byte)
            builder.call(prefetch, [address, *(ir.Constant(short, n) for n in (0, 3, 1))])
        take(builder.load(place_of(context, builder, kind, array, there, floats), align=bits // 8))
    with builder.if_then(builder.icmp_unsigned(">", left, ir.Constant(left.type, 0))):
        address = place_of(context, builder, kind, array, builder.add(at, builder.sub(count, left)), floats)
        some = [address, align, live_lanes(builder, left, width), ir.Constant(floats, [0.0] * width)]
        take(masked(builder, "load", floats, floats, some))
    return call_lanes(builder, "llvm.vector.reduce.umax", integers.element, builder.load(found)), integers.element


@intrinsic
def has_nan(typingctx: Any, array: Any, at: Any, count: Any) -> Any:
    """Whether one of `count` numbers of an array in C order, from place `at` on, is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        greatest, bits = _greatest(context, builder, sig, args, signed=False)
        infinity = builder.bitcast(ir.Constant(context.get_value_type(sig.args[0].dtype), float("inf")), bits)
        return builder.icmp_unsigned(">", greatest, infinity)

    return types.boolean(array, at, count), codegen


@intrinsic
def all_within(typingctx: Any, array: Any, at: Any, count: Any, limit: Any) -> Any:
    """Whether `count` numbers are surely from 0 to a limit above 0: False with −0 and NaN too."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        greatest, bits = _greatest(context, builder, sig, args, signed=True)
        return builder.icmp_unsigned("<=", greatest, builder.bitcast(args[3], bits))

    return types.boolean(array, at, count, limit), codegen


@intrinsic(prefer_literal=True)
def nothing_seen(typingctx: Any, x: Any, width: Any) -> Any:
    """Return what `seen` is given before the first vector, one of so many numbers like x."""
    kind = Vector(types.uint32 if x.bitwidth == 32 else types.uint64, literal(width))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), [0] * kind.width)

    return kind(x, width), codegen


@intrinsic
def seen(typingctx: Any, bits: Any, x: Any) -> Any:
    """Return the greatest bits, lane by lane, of a vector and those before it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = args[0].type
        return call_lanes(builder, "llvm.umax", kind, args[0], builder.bitcast(args[1], kind))

    return bits(bits, x), codegen


@intrinsic
def seen_within(typingctx: Any, bits: Any, limit: Any) -> Any:
    """Whether all that was seen is surely from 0 to a limit above 0: False with −0 and NaN too."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lane = args[0].type.element
        greatest = call_lanes(builder, "llvm.vector.reduce.umax", lane, args[0])
        return builder.icmp_unsigned("<=", greatest, builder.bitcast(args[1], lane))

    return types.boolean(bits, limit), codegen
