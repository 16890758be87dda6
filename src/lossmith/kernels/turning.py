"""Rows of few classes laid out class by class, and back: a tile's way in and out, as shuffles of whole vectors.

A block is as many rows as a vector has lanes, times as many classes as 128 bits hold, which is what processors shuffle
well. The last block of a row begins early enough to end with it: its classes are copied twice, nothing else is touched.
Of a tile with fewer rows than a vector has lanes the last one is copied to all the lanes that are left.

And vectors that are one row's each, folded all at once: lanes of classes become lanes of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .lanes import Vector, extreme, literal, live_lanes, masked, method, place_of, pointer

LANES = {types.float32: 16, types.float64: 8}
"""The rows of a block."""
SHORT = ir.IntType(32)


def _mixed(builder: Any, a: Any, b: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(SHORT, len(order)), order))


def _joined(builder: Any, parts: list[Any]) -> Any:
    """Return the vectors one after another in one."""
    while len(parts) > 1:
        both = list(range(2 * parts[0].type.count))
        parts = [_mixed(builder, a, b, both) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _turned(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose, in each 128 bits of two or four vectors, the square that these have there."""
    n, lanes = len(vectors), vectors[0].type.count

    def pairs(a: Any, b: Any, size: int, high: int) -> Any:
        """Take the low or the high halves of each 128 bits in turns, in pieces of `size` lanes."""
        order: list[int] = []
        for lane in range(0, lanes, n):
            for piece in range(0, n // 2, size):
                at = lane + high * n // 2 + piece
                order += [*range(at, at + size), *range(lanes + at, lanes + at + size)]
        return _mixed(builder, a, b, order)

    if n == 2:
        a, b = vectors
        return [pairs(a, b, 1, high) for high in (0, 1)]
    a, b, c, d = vectors
    ab, cd = ([pairs(x, y, 1, high) for high in (0, 1)] for x, y in ((a, b), (c, d)))
    return [pairs(ab[half], cd[half], 2, high) for half in (0, 1) for high in (0, 1)]


class _Block:
    """The addresses of a block's rows."""

    def __init__(self, context: Any, builder: Any, sig: Any, args: Any) -> None:
        array, first, rows, classes, k, tile, at, stride = args
        kind = sig.args[0].dtype
        self.builder = builder
        self.lanes = LANES[kind]
        self.classes = 16 // (kind.bitwidth // 8)
        element = context.get_value_type(kind)
        self.align = kind.bitwidth // 8
        self.short = ir.VectorType(element, self.classes)
        self.long = ir.VectorType(element, self.lanes)
        self.live = live_lanes(builder, classes, self.classes)
        data = pointer(context, builder, sig.args[0], array)
        strips = pointer(context, builder, sig.args[5], tile)
        place = builder.add(builder.mul(first, classes), k)
        self.rows: list[Any] = []
        for row in range(self.lanes):
            if row:
                there = builder.icmp_unsigned("<", ir.Constant(rows.type, row), rows)
                place = builder.add(place, builder.select(there, classes, ir.Constant(classes.type, 0)))
            self.rows.append(builder.gep(data, [place]))
        self.strips = [
            builder.gep(strips, [builder.add(at, builder.mul(ir.Constant(stride.type, c), stride))])
            for c in range(self.classes)
        ]

    def load(self, row: Any) -> Any:
        """Read the classes of a row; those that there are, if they are fewer than a block has."""
        align, rest = ir.Constant(SHORT, self.align), ir.Constant(self.short, [0.0] * self.classes)
        return masked(
            self.builder, "load", self.short, self.short, [self.cast(row, self.short), align, self.live, rest]
        )

    def store(self, value: Any, row: Any) -> None:
        align = ir.Constant(SHORT, self.align)
        masked(self.builder, "store", ir.VoidType(), self.short, [value, self.cast(row, self.short), align, self.live])

    def cast(self, address: Any, kind: Any) -> Any:
        return self.builder.bitcast(address, ir.PointerType(kind))


@intrinsic
def rows_in(
    typingctx: Any, array: Any, first: Any, rows: Any, classes: Any, k: Any, tile: Any, at: Any, stride: Any
) -> Any:
    """Copy a block of `array`, rows from `first` and classes from `k` on, to the tile: class k from place `at` on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = _Block(context, builder, sig, args)
        n, lanes = block.classes, block.lanes
        short = [block.load(row) for row in block.rows]
        vectors = [_joined(builder, short[start::n]) for start in range(n)]
        assert len(short[0::n]) == lanes // n
        for strip, vector in zip(block.strips, _turned(builder, vectors), strict=True):
            builder.store(vector, block.cast(strip, block.long), align=block.align)
        return context.get_dummy_value()

    return types.void(array, first, rows, classes, k, tile, at, stride), codegen


@intrinsic
def rows_out(
    typingctx: Any, array: Any, first: Any, rows: Any, classes: Any, k: Any, tile: Any, at: Any, stride: Any
) -> Any:
    """Copy a block of the tile to `array`: the other way of `rows_in`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        block = _Block(context, builder, sig, args)
        n, lanes = block.classes, block.lanes
        strips = [builder.load(block.cast(s, block.long), align=block.align) for s in block.strips]
        vectors = _turned(builder, strips)
        for row in reversed(range(lanes)):  # the last row comes last of those that share its place
            start = row // n * n
            part = _mixed(builder, vectors[row % n], vectors[row % n], list(range(start, start + n)))
            block.store(part, block.rows[row])
        return context.get_dummy_value()

    return types.void(array, first, rows, classes, k, tile, at, stride), codegen


def _folded_rows(builder: Any, vectors: list[Any], combine: Callable[[Any, Any], Any]) -> Any:
    """Fold as many vectors as each has lanes into one of their results, halves of two at once, in the same order."""
    lanes = len(vectors)
    part = lanes  # how many lanes of each vector belong to one of the first vectors
    while part > 1:
        half = part // 2
        starts = range(0, 2 * lanes, part)
        orders = [[at + lane for at in starts for lane in range(shift, shift + half)] for shift in (0, half)]
        low_high = [ir.Constant(ir.VectorType(ir.IntType(32), lanes), order) for order in orders]
        vectors = [
            combine(*(builder.shuffle_vector(a, b, order) for order in low_high))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        part = half
    return vectors[0]


def _folding_rows(name: str, doc: str, combine: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(typingctx: Any, array: Any, at: Any, width: Any) -> Any:
        result = Vector(array.dtype, literal(width))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = context.get_value_type(result)
            first = place_of(context, builder, sig.args[0], args[0], args[1], vector)
            places = [builder.gep(first, [ir.Constant(ir.IntType(64), row)]) for row in range(result.width)]
            vectors = [builder.load(place, align=array.dtype.bitwidth // 8) for place in places]
            return _folded_rows(builder, vectors, lambda a, b: combine(builder, a, b))

        return result(array, at, width), codegen

    typed.__name__ = typed.__qualname__ = name
    typed.__doc__ = doc
    return intrinsic(prefer_literal=True)(typed)


add_rows = _folding_rows("add_rows", "Return what add_lanes makes of each of `width` vectors.", method("fadd"))
max_rows = _folding_rows("max_rows", "Return what max_lanes makes of each.", extreme("llvm.maximum", ">"))
min_rows = _folding_rows("min_rows", "Return what min_lanes makes of each.", extreme("llvm.minimum", "<"))
