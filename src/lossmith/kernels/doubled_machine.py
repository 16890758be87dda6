"""The machine that carries out tapes of instructions on double words: one compiled function for all losses."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.extending import intrinsic

from lossmith.kernels import cache, machine
from lossmith.kernels.doubled_llvm import LlvmLanes
from lossmith.kernels.doubled_math import OPERATIONS, WIDTH, add, maximum, minimum, peak
from lossmith.kernels.doubled_tape import (
    AT_FOUND,
    AT_LABEL,
    COUNT,
    FIELDS,
    FIND,
    GATHER,
    LOAD,
    OPERATION_NUMBERS,
    PATCH,
    PUT,
    SPREAD,
    WIPE,
)

_INT = ir.IntType(64)
_intrinsic: Any = intrinsic
SIDE = 8
_EACH = 6
"""Fields of a register: place, low place, steps per class, per block and per row, and whether it has low words."""


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


@_intrinsic
def _operate(typingctx: Any, memory: Any, code: Any, at: Any, rows: Any, classes: Any, block: Any) -> Any:
    """Carry out the operation at a place of the code, for some rows and classes: loops over vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> None:
        words = _data(context, builder, signature.args[0], args[0])
        start = builder.mul(args[2], _INT(FIELDS))
        code_data = _data(context, builder, signature.args[1], args[1])

        def entry(k: int) -> Any:
            return builder.load(builder.gep(code_data, [builder.add(start, _INT(k))]))

        in_loop = builder.icmp_signed("!=", entry(1), _INT(0))
        count = builder.select(in_loop, args[4], _INT(1))
        vectors = builder.udiv(args[3], _INT(WIDTH))
        done = builder.append_basic_block("done")
        switch = builder.switch(entry(0), done)
        for name, (arity, formula) in OPERATIONS.items():
            case = builder.append_basic_block(name)
            switch.add_case(_INT(OPERATION_NUMBERS[name]), case)
            builder.position_at_end(case)
            _loops(builder, words, entry, count, vectors, args[5], arity, formula)
            builder.branch(done)
        builder.position_at_end(done)

    return types.void(memory, code, at, rows, classes, block), codegen


class _Register:
    """A register while the code that runs over it is built: where its words are, and by how much they advance."""

    def __init__(self, builder: Any, entry: Callable[[int], Any], number: int, block: Any) -> None:
        high, low, self.per_class, per_block, self.per_row, moves = (
            entry(2 + _EACH * number + f) for f in range(_EACH)
        )
        start = builder.mul(block, per_block)
        self.starts = builder.add(high, start), builder.add(low, builder.mul(start, moves))
        self.class_steps = self.per_class, builder.mul(self.per_class, moves)
        self.row_steps = self.per_row, builder.mul(self.per_row, moves)
        self.has_low = builder.icmp_signed("!=", moves, _INT(0))
        self.at = [cgutils.alloca_once(builder, _INT) for _ in range(2)]

    def enter(self, builder: Any, row: Any) -> None:
        """Go to the first class of some rows."""
        for at, start, step in zip(self.at, self.starts, self.row_steps, strict=True):
            builder.store(builder.add(start, builder.mul(row, step)), at)

    def places(self, builder: Any, words: Any) -> list[Any]:
        """Return pointers to the words of a class, and go on to the next one."""
        found: list[Any] = []
        for at, step in zip(self.at, self.class_steps, strict=True):
            place = builder.load(at)
            found.append(builder.gep(words, [place]))
            builder.store(builder.add(place, step), at)
        return found


def _loops(
    builder: Any, words: Any, entry: Callable[[int], Any], count: Any, vectors: Any, block: Any,
    arity: int, formula: Callable[..., Any],
) -> None:  # fmt: skip
    """Write the loops over vectors of rows, and in each over classes, for one operation."""
    out, *given = [_Register(builder, entry, k, block) for k in range(1 + arity)]
    on = LlvmLanes(builder)

    def once(times: int) -> None:
        """Write what is done for one class, or for several that a sum takes in at a time."""
        if times == 1:
            pairs = [tuple(on.load(p) for p in r.places(builder, words)) for r in given]
            high, low = formula(on, *pairs)
        else:  # their own sum does not wait for the one before
            total = tuple(on.load(p) for p in given[0].places(builder, words))
            pairs = [tuple(on.load(p) for p in given[1].places(builder, words)) for _ in range(times)]
            while len(pairs) > 1:
                pairs = [formula(on, a, b) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
            high, low = formula(on, total, pairs[0])
        places = out.places(builder, words)
        on.store(high, places[0])
        with builder.if_then(out.has_low):
            on.store(low, places[1])

    with cgutils.for_range(builder, vectors) as lanes:
        for register in (out, *given):
            register.enter(builder, builder.mul(lanes.index, _INT(WIDTH)))
        if formula in (add, maximum, minimum, peak):
            is_fold = builder.icmp_signed("==", out.per_class, _INT(0))
            fours = builder.select(is_fold, builder.udiv(count, _INT(4)), _INT(0))
            with cgutils.for_range(builder, fours):
                once(4)
            with cgutils.for_range(builder, builder.sub(count, builder.mul(fours, _INT(4)))):
                once(1)
        else:
            with cgutils.for_range(builder, count):
                once(1)


# ------------------------------------------------------------------ arrays by their addresses


@_intrinsic
def _read(typingctx: Any, address: Any, index: Any) -> Any:
    """Return a float64 of an array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.DoubleType().as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]), align=8)

    return types.float64(types.int64, types.int64), codegen


@_intrinsic
def _read_label(typingctx: Any, address: Any, index: Any) -> Any:
    """Return an int64 of an array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _INT.as_pointer())
        return builder.load(builder.gep(pointer, [args[1]]), align=8)

    return types.int64(types.int64, types.int64), codegen


@_intrinsic
def _write(typingctx: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a float64 of an array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> None:
        pointer = builder.inttoptr(args[0], ir.DoubleType().as_pointer())
        builder.store(args[2], builder.gep(pointer, [args[1]]), align=8)

    return types.void(types.int64, types.int64, types.float64), codegen


@_intrinsic
def _turn_square(typingctx: Any, source: Any, source_step: Any, target: Any, target_step: Any) -> Any:
    """Copy SIDE rows of SIDE numbers, rows becoming columns, in vectors."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> None:
        vector = ir.VectorType(ir.DoubleType(), SIDE)

        def place(address: Any, step: Any, k: int) -> Any:
            offset = builder.mul(builder.mul(step, _INT(8)), _INT(k))
            return builder.inttoptr(builder.add(address, offset), vector.as_pointer())

        lines = [builder.load(place(args[0], args[1], k), align=8) for k in range(SIDE)]
        half = SIDE // 2
        while half:  # swap the squares beside the diagonal, at every scale
            for k in (k for k in range(SIDE) if not k & half):
                a, b = lines[k], lines[k + half]
                lower = [i if not i & half else SIDE + i - half for i in range(SIDE)]
                upper = [i + half if not i & half else SIDE + i for i in range(SIDE)]
                lines[k], lines[k + half] = (
                    builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), SIDE), mask))
                    for mask in (lower, upper)
                )
            half //= 2
        for k, line in enumerate(lines):
            builder.store(line, place(args[2], args[3], k), align=8)

    return types.void(*[types.int64] * 4), codegen


# ------------------------------------------------------------------ the machine


@njit(nogil=True, error_model="numpy")
def _class_of(kind, where, r, row):  # type: ignore[no-untyped-def]
    """Return the class of an index: of a label, of a place that was found, or given."""
    if kind == AT_LABEL:
        return _read_label(where, row)
    if kind == AT_FOUND:
        return np.int64(_read(where, r))
    return where


@njit(nogil=True, error_model="numpy")
def _where(code, at, field, base, arrays):  # type: ignore[no-untyped-def]
    """Return the kind of an instruction's index, and the address of what tells the class, or the class."""
    kind, where = code[at, field], code[at, field + 1]
    return kind, arrays[where] if kind == AT_LABEL else base + 8 * where if kind == AT_FOUND else where


@njit(nogil=True, error_model="numpy")
def _turn(source, source_step, target, target_step, rows, columns):  # type: ignore[no-untyped-def]
    """Copy a matrix of float64, rows becoming columns; sources and targets by address, steps in numbers."""
    whole_rows, whole = rows // SIDE * SIDE, columns // SIDE * SIDE
    for r in range(0, whole_rows, SIDE):
        for k in range(0, whole, SIDE):
            start, place = r * source_step + k, k * target_step + r
            _turn_square(source + 8 * start, source_step, target + 8 * place, target_step)
    for r in range(rows):
        for k in range(whole if r < whole_rows else 0, columns):
            _write(target, k * target_step + r, _read(source, r * source_step + k))


@njit(nogil=True, error_model="numpy")
def _load(code, at, memory, base, arrays, labels, first, rows, width, tile, k0, classes):  # type: ignore[no-untyped-def]
    """Read an input of a tile. Rows beyond the last are that one again."""
    address, out, step = arrays[code[at, 2]], code[at, 3], code[at, 5]
    if step == 0:
        for r in range(tile):
            row = first + min(r, rows - 1)
            memory[out + r] = _read_label(address, row) if labels[code[at, 2]] else _read(address, row)
        return
    out += k0 * code[at, 6]
    _turn(address + 8 * (first * width + k0), width, base + 8 * out, tile, rows, classes)
    for k in range(classes):
        for r in range(rows, tile):
            memory[out + k * tile + r] = memory[out + k * tile + rows - 1]


@njit(nogil=True, error_model="numpy")
def _spread(code, at, memory, arrays, tile, k0, classes):  # type: ignore[no-untyped-def]
    """Give every row what belongs to a class, or its number."""
    for k in range(classes):
        x = _read(arrays[code[at, 2]], k0 + k) if code[at, 0] == SPREAD else np.float64(k0 + k)
        for r in range(tile):
            memory[code[at, 3] + k * tile + r] = x


@njit(nogil=True, error_model="numpy")
def _gather(code, at, base, arrays, first, rows, width, tile):  # type: ignore[no-untyped-def]
    """Read one entry for each row, of the row or of a hyperparameter."""
    kind, where = _where(code, at, 4, base, arrays)
    address, step, out = arrays[code[at, 2]], width if code[at, 3] else 0, base + 8 * code[at, 6]
    for r in range(tile):
        row = first + min(r, rows - 1)
        _write(out, r, _read(address, row * step + _class_of(kind, where, row - first, row)))


@njit(nogil=True, error_model="numpy")
def _put(code, at, memory, base, outputs, first, rows, width, k0, classes):  # type: ignore[no-untyped-def]
    """Write a number per row, or a block of classes."""
    address, source = outputs[code[at, 2]], code[at, 4] + k0 * code[at, 7]
    if code[at, 3]:
        _turn(base + 8 * source, code[at, 6], address + 8 * (first * width + k0), width, classes, rows)
        return
    for r in range(rows):
        _write(address, first + r, memory[source + r * code[at, 8]])


@njit(nogil=True, error_model="numpy")
def _patch(code, at, base, arrays, outputs, first, rows, width):  # type: ignore[no-untyped-def]
    """Write to one entry of each row."""
    kind, where = _where(code, at, 3, base, arrays)
    address, source, step = outputs[code[at, 2]], base + 8 * code[at, 5], code[at, 9]
    for r in range(rows):
        place = (first + r) * width + _class_of(kind, where, r, first + r)
        _write(address, place, _read(source, r * step))


@njit(nogil=True, error_model="numpy")
def _wipe(code, at, memory, outputs, first, rows, width):  # type: ignore[no-untyped-def]
    """Write NaN to the rows that a condition names."""
    each = width if code[at, 3] else 1
    for r in range(rows):
        if memory[code[at, 4] + r * code[at, 8]] > 0:
            for k in range(each):
                _write(outputs[code[at, 2]], (first + r) * each + k, np.nan)


@njit(nogil=True, error_model="numpy")
def _find(code, at, memory, tile, k0, classes):  # type: ignore[no-untyped-def]
    """Keep the largest number so far, or the first that is NaN, and its place."""
    high, low, per_class, per_block, moves = code[at, 2], code[at, 3], code[at, 4], code[at, 5], code[at, 7]
    best, best_low, place = code[at, 8], code[at, 9], code[at, 14]
    for k in range(classes):
        for r in range(tile):
            step = k * per_class + k0 * per_block + r
            x, x_low = memory[high + step], memory[low + step * moves]
            top, top_low = memory[best + r], memory[best_low + r]
            if x > top or (x == top and x_low > top_low) or (x != x and top == top):
                memory[best + r], memory[best_low + r], memory[place + r] = x, x_low, np.float64(k0 + k)


@njit(nogil=True, error_model="numpy")
def _run(n, width, tile, block, base, memory, code, segments, arrays, labels, outputs):  # type: ignore[no-untyped-def]
    """Carry out the code for n rows, a tile of them at a time. `base` is the address of the memory."""
    for first in range(0, n, tile):
        rows = min(tile, n - first)
        for s in range(len(segments)):
            whole = width if segments[s, 2] else 1
            for k0 in range(0, whole, block):
                classes = min(block, whole - k0)
                for at in range(segments[s, 0], segments[s, 1]):
                    what = code[at, 0]
                    if what < LOAD:
                        _operate(memory, code, at, tile, classes, k0)
                    elif what == LOAD:
                        _load(code, at, memory, base, arrays, labels, first, rows, width, tile, k0, classes)
                    elif what in (SPREAD, COUNT):
                        _spread(code, at, memory, arrays, tile, k0, classes)
                    elif what == GATHER:
                        _gather(code, at, base, arrays, first, rows, width, tile)
                    elif what == PUT:
                        _put(code, at, memory, base, outputs, first, rows, width, k0, classes)
                    elif what == PATCH:
                        _patch(code, at, base, arrays, outputs, first, rows, width)
                    elif what == WIPE:
                        _wipe(code, at, memory, outputs, first, rows, width)
                    elif what == FIND:
                        _find(code, at, memory, tile, k0, classes)


_lock = threading.Lock()


@functools.cache
def compiled() -> Callable[..., None]:
    """Return the machine's code, from the disk or compiled."""
    with _lock:
        path = cache.place("doubled_machine", suffix=".kernel")
        found = machine.find(path)
        if found is not None:
            return found
        whole, table = types.Array(types.int64, 1, "C"), types.Array(types.int64, 2, "C")
        memory = types.Array(types.float64, 1, "C")
        signature = (*[types.int64] * 5, memory, table, table, whole, whole, whole)
        return machine.compiled(_run, signature, path)
