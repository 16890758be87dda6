"""From a row program to a tape of instructions on double words, which doubled_machine.py carries out.

A tile of R rows is done at once, the rows being the lanes. A register holds, for every row of the tile, one number, or
one for each class; it is a stretch of memory with the high words and one with the low words. The loops over the classes
go in blocks of B classes: what is needed in one loop only has room for a block.

Nothing is compiled for a loss: the machine is compiled once, and a tape is data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from lossmith.kernels.doubled_math import OPERATIONS, WIDTH, words
from lossmith.kernels.rowprogram import (
    AtClass,
    AtFound,
    AtLabel,
    Each,
    Fold,
    Index,
    Let,
    Load,
    Loop,
    Number,
    Op,
    Param,
    Patch,
    Position,
    Ref,
    Reject,
    RowProgram,
    Size,
    Stmt,
    Store,
    Value,
    operands,
    statements,
    subvalues,
)

OPERATION_NUMBERS = {name: number for number, name in enumerate(OPERATIONS)}
LOAD, SPREAD, COUNT, GATHER, PUT, PATCH, FIND, WIPE = range(100, 108)
"""Instructions that are no operation: read an input, a hyperparameter per class, the number of the class; read one
entry of a row; write to an output, to one entry of it; keep the place of the largest number; write NaN to the outputs
of rows that hold one."""

FIELDS = 32
AT_LABEL, AT_FOUND, AT_CLASS = 0, 1, 2

ENTRIES = 4096
"""How many numbers an instruction does at a time: enough to forget what it costs to read it."""

_FLAGS = {">", ">=", "==", "int>", "int>=", "int==", "is_nan", "not", "and", "or", "sign"}
_SAME = {"int>": ">", "int>=": ">=", "int==": "=="}
_FOLDS = {"sum": "add", "max": "maximum", "min": "minimum", "peak": "peak", "nan": "or"}
_START = {"sum": 0, "max": -np.inf, "min": np.inf, "peak": -np.inf, "nan": 0, "argmax": -np.inf, "argmin": -np.inf}


class Register(NamedTuple):
    """Where a value is: `high` and `low` are places in memory, `extent` says how they advance."""

    high: int
    low: int
    extent: str  # "number", "row", "block" (of classes) or "classes" (all of them)


@dataclass
class Tape:
    """Instructions in segments, each a loop over blocks of classes or done once; and the memory that they need."""

    rows: int
    block: int
    code: np.ndarray
    segments: np.ndarray
    size: int
    constants: list[tuple[int, float]]
    params: dict[str, int]
    scale: int


@dataclass
class _Memory:
    size: int = 0
    free: dict[int, list[int]] = field(default_factory=dict)

    def take(self, size: int) -> int:
        found = self.free.get(size)
        return found.pop() if found else self.new(size)

    def new(self, size: int) -> int:
        """Return memory that nothing has used: for what is there before the first instruction."""
        self.size += size
        return self.size - size

    def give(self, at: int, size: int) -> None:
        self.free.setdefault(size, []).append(at)


def rows_of_tile(classes: int, n: int = ENTRIES) -> int:
    """Return how many of n rows are done at once."""
    return max(WIDTH, min(ENTRIES // classes, 1 << (n - 1).bit_length()) // WIDTH * WIDTH)


def can_tape(program: RowProgram) -> bool:
    """Whether a tape can be made: of no loops in loops, and of operations that the machine has."""
    values = [v for s in statements(program.body) for o in operands(s) for v in subvalues(o)]
    known = OPERATIONS.keys() | _SAME.keys() | {"indicator", "to_float"}
    plain = all(v.indices in ((), (Each(0),)) for v in values if isinstance(v, Ref))
    return program.depth <= 1 and plain and all(v.op in known for v in values if isinstance(v, Op))


def tape_of(program: RowProgram, classes: int, rows: int, weighted: bool) -> Tape:
    """Return the instructions for tiles of so many rows and classes."""
    return _Taping(program, classes, rows, weighted).tape()


class _Taping:
    def __init__(self, program: RowProgram, classes: int, rows: int, weighted: bool) -> None:
        self.program = program
        self.weighted = weighted
        self.classes = 1 if program.kind == "elementwise" else classes
        self.rows = rows
        # No matter how many rows there are: classes are summed in an order that depends on the blocks.
        self.block = max(1, min(self.classes, ENTRIES // rows_of_tile(self.classes)))
        self.memory = _Memory()
        self.code: list[list[int]] = []
        self.segments: list[tuple[int, int, int]] = []
        self.constants: dict[str, Register] = {}
        self.places: dict[str, Register] = {}
        self.stored: list[tuple[int, int]] = []
        self.numbers: list[tuple[int, float]] = []
        self.zero = self.constant(0.0)
        self.params = {p.name: self.memory.new(WIDTH) for p in program.params if not p.ndim}
        self.scale = self.memory.new(WIDTH)
        self.known: dict[str, Register] = {}
        self.temporary: set[Register] = set()
        self.in_loop = False
        self.loads: dict[Value, Register] = {}
        self.bad: Register | None = None
        self.shared = self._needed_in_other_loops()
        self.reread = self._read_in_several_loops()
        self.arrays = [*program.inputs, *program.labels, *(p.name for p in program.params if p.ndim)]
        self.arrays += ["weight"] * weighted
        self.outputs = [name for name, _ in program.outputs]

    def tape(self) -> Tape:
        self.factor = Register(self.scale, self.zero.low, "number")
        if self.weighted:
            self.weight = self.register("row", double=False)
            self.emit(LOAD, self.arrays.index("weight"), self.weight)
            self.factor = self.operation("mul", [self.weight, self.factor])
            self.temporary.discard(self.factor)
        for stmt in self.program.body:
            self.statement(stmt)
        self.end_segment(False)
        code = np.array([row + [0] * (FIELDS - len(row)) for row in self.code], dtype=np.int64)
        segments = np.array(self.segments, dtype=np.int64)
        return Tape(self.rows, self.block, code, segments, self.memory.size, self.numbers, self.params, self.scale)

    def _needed_in_other_loops(self) -> set[str]:
        made: dict[str, Loop] = {}
        found: set[str] = set()
        for loop in (s for s in self.program.body if isinstance(s, Loop)):
            for stmt in loop.body:
                for value in operands(stmt):
                    found |= {
                        v.name for v in subvalues(value) if isinstance(v, Ref) and made.get(v.name, loop) is not loop
                    }
                if isinstance(stmt, Let):
                    made[stmt.name] = loop
        return found

    def _read_in_several_loops(self) -> set[str]:
        loops = [s for s in self.program.body if isinstance(s, Loop)]
        values = [{v for s in statements((loop,)) for o in operands(s) for v in subvalues(o)} for loop in loops]
        reads = [v.input for found in values for v in found if isinstance(v, Load) and isinstance(v.index, Each)]
        return {name for name in reads if reads.count(name) > 1}

    # -------------------------------------------------------------- memory

    def length(self, extent: str) -> int:
        each = {"number": WIDTH, "row": self.rows, "block": self.rows * self.block}
        return each[extent] if extent in each else self.rows * self.classes

    def register(self, extent: str, double: bool = True) -> Register:
        size = self.length(extent)
        return Register(self.memory.take(size), self.memory.take(size) if double else self.zero.low, extent)

    def constant(self, high: float, low: float = 0.0) -> Register:
        key = f"{high!r} {low!r}"  # NaN is not equal to itself, but its text is
        if key not in self.constants:
            at = self.memory.new(WIDTH)
            below = self.zero.low if self.constants and low == 0 else self.memory.new(WIDTH)
            self.numbers += [(at, high), (below, low)]
            self.constants[key] = Register(at, below, "number")
        return self.constants[key]

    def done_with(self, register: Register) -> None:
        """Let the memory of an intermediate result be used again."""
        if register in self.temporary:
            self.temporary.discard(register)
            size = self.length(register.extent)
            self.memory.give(register.high, size)
            if register.low != self.zero.low:
                self.memory.give(register.low, size)

    # -------------------------------------------------------------- instructions

    def emit(self, instruction: int, *what: int | Register) -> None:
        """Add an instruction; a register is told by place, low place, and what to add for a class and for a block."""
        row: list[int] = [instruction, int(self.in_loop)]
        for item in what:
            row += self.fields(item) if isinstance(item, Register) else [item]
        self.code.append(row)

    def fields(self, register: Register) -> list[int]:
        per_class = self.rows if register.extent in ("block", "classes") else 0
        per_block = self.rows if register.extent == "classes" else 0
        per_vector = 0 if register.extent == "number" else 1
        low = 0 if register.low == self.zero.low else 1
        return [register.high, register.low, per_class, per_block, per_vector, low]

    def operation(self, name: str, args: list[Register], into: Register | None = None) -> Register:
        wide = any(a.extent in ("block", "classes") for a in (*args, *([into] if into else [])))
        extent = "block" if wide else "row"
        out = into or self.register(extent, name not in _FLAGS)
        in_loop, self.in_loop = self.in_loop, extent == "block"
        self.emit(OPERATION_NUMBERS[_SAME.get(name, name)], out, *args)
        self.in_loop = in_loop
        for a in args:
            self.done_with(a)
        if into is None:
            self.temporary.add(out)
        return out

    def end_segment(self, loop: bool) -> None:
        start = self.segments[-1][1] if self.segments else 0
        if len(self.code) > start:
            self.segments.append((start, len(self.code), int(loop)))

    # -------------------------------------------------------------- statements

    def statement(self, stmt: Stmt) -> None:
        match stmt:
            case Let(name, _, value):
                self.name(name, self.value(value))
            case Loop():
                self.loop(stmt)
            case Fold():
                self.fold(stmt)
            case Store(output, value):
                self.put(output, value)
            case Patch(output, index, value):
                found = self.finished(self.value(value), "patch")
                self.emit(PATCH, self.outputs.index(output), *self.place(index), found)
                self.done_with(found)
            case Reject(name):
                self.bad = self.known[name]
                counted = self.operation("select", [self.weight, self.bad, self.zero]) if self.weighted else self.bad
                for output, per_class in self.stored:
                    self.emit(WIPE, output, per_class, counted)

    def name(self, name: str, found: Register) -> None:
        """Keep a value under a name; in a loop, for other loops where they need it."""
        if name in self.shared:
            found = self.kept(found)
        elif found.extent == "number":
            pass
        elif found not in self.temporary:  # another name for what has one
            found = self.operation("copy", [found])
        self.temporary.discard(found)
        self.known[name] = found

    def kept(self, found: Register) -> Register:
        """Return a register for all classes with a value of this block: what was computed last is written there."""
        register = self.register("classes", found.low != self.zero.low)
        last = self.code[-1]
        if found not in self.temporary or found.extent != "block" or last[0] >= LOAD or last[2] != found.high:
            return self.operation("copy", [found], register)
        last[2:8] = self.fields(register)
        self.done_with(found)
        return register

    def loop(self, loop: Loop) -> None:
        folds = [s for s in loop.body if isinstance(s, Fold)]
        for fold in folds:
            start = self.constant(float(_START[fold.op]))
            self.known[fold.name] = self.operation("copy", [start], self.register("row"))
            if fold.op in ("argmax", "argmin"):
                self.places[fold.name] = self.operation("copy", [self.constant(0.0)], self.register("row"))
        self.end_segment(False)
        outer = dict(self.known), dict(self.loads)
        self.in_loop = True
        for stmt in loop.body:
            self.statement(stmt)
        self.in_loop = False
        self.end_segment(True)
        local = [r for n, r in self.known.items() if n not in outer[0] and r.extent == "block"]
        local += [r for v, r in self.loads.items() if v not in outer[1] and r.extent == "block"]
        for register in set(local):
            self.temporary.add(register)
            self.done_with(register)
        self.known = {n: r for n, r in self.known.items() if r.extent != "block"}
        self.loads = {v: r for v, r in self.loads.items() if r.extent != "block"}
        for fold in folds:
            self.finish(fold)

    def fold(self, fold: Fold) -> None:
        if fold.op == "sum" and fold.value == Number(1) and fold.where is not None:
            self.count(self.known[fold.name], self.value(fold.where))
            return
        found = self.value(fold.value)
        if fold.op == "nan":
            found = self.operation("is_nan", [found])
        if fold.op == "argmin":
            found = self.operation("neg", [found])
        if fold.where is not None:
            empty = self.constant(float(_START[fold.op]))
            match fold.where:
                case Op("not", (condition,)):
                    found = self.operation("select", [self.value(condition), empty, found])
                case condition:
                    found = self.operation("select", [self.value(condition), found, empty])
        found = self.for_each_class(found)
        into = self.known[fold.name]
        if fold.op in ("argmax", "argmin"):
            self.emit(FIND, found, into, self.places[fold.name])
            self.done_with(found)
        else:
            self.operation(_FOLDS[fold.op], [into, found], into)

    def count(self, into: Register, condition: Register) -> None:
        self.operation("count", [into, self.for_each_class(condition)], into)

    def for_each_class(self, found: Register) -> Register:
        """Return a register of a block, also of what is the same for every class."""
        if found.extent in ("block", "classes"):
            return found
        found = self.operation("copy", [found], self.register("block"))
        self.temporary.add(found)
        return found

    def finish(self, fold: Fold) -> None:
        name = fold.name
        if fold.op == "peak" and fold.where is None:  # −∞ over all classes: no limit
            none = self.operation("==", [self.known[name], self.constant(-np.inf)])
            self.name(name, self.operation("select", [none, self.constant(np.nan), self.known[name]]))
        elif fold.op in ("argmax", "argmin"):
            self.known[name] = self.places[name]

    def put(self, output: str, value: Value) -> None:
        per_class = (output, True) in self.program.outputs
        found = self.finished(self.value(value), output)
        if per_class:
            found = self.for_each_class(found)
        self.stored.append((self.outputs.index(output), int(per_class)))
        self.emit(PUT, *self.stored[-1], found)
        self.done_with(found)

    def finished(self, found: Register, output: str) -> Register:
        """Return a result times weight and scale; NaN in the rows that hold one."""
        if self.bad is not None:
            found = self.operation("select", [self.bad, self.constant(np.nan), found])
        if output != "value":
            return self.operation("scaled", [self.factor, found])
        return self.operation("scaled", [self.weight, found]) if self.weighted else found

    # -------------------------------------------------------------- values

    def value(self, value: Value) -> Register:
        match value:
            case Number(number):
                pair = words(Fraction(number)) if isinstance(number, int | Fraction) else (float(number), 0.0)
                return self.constant(*pair)
            case Size():
                return self.constant(float(self.classes))
            case Ref(name, _):
                return self.known[name]
            case Param(name, None):
                return Register(self.params[name], self.zero.low, "number")
            case Op("indicator" | "to_float", (inner,)):
                return self.value(inner)
            case Op("over", (a, Ref(name, ()) as z)) if self.in_loop:
                return self.operation("mul", [self.value(a), self.inverse(name, z)])
            case Op(op, args):
                given = [self.value(a) for a in args]
                if op == "gap" and all(r.low == self.zero.low for r in given):
                    op = "gap_of_words"
                return self.operation(op, given)
            case _:
                return self.read(value)

    def inverse(self, name: str, z: Value) -> Register:
        """Return 1/z of a row, for a loop in which every class is divided by z ≥ 1."""
        key = f"1/{name}"
        if key not in self.known:
            self.known[key] = self.operation("div", [self.constant(1.0), self.value(z)])
            self.temporary.discard(self.known[key])
        return self.known[key]

    def read(self, value: Value) -> Register:
        """Return an entry of an array, or a place; it is read once in a loop, and once for the tile."""
        if value in self.loads:
            return self.loads[value]
        match value:
            case Position(AtFound(name)):
                return self.known[name]
            case Position(AtClass(number)):
                return self.constant(float(number))
            case Position(AtLabel(name)) | Load(name, None):
                found = self.register("row", double=False)
                self.emit(LOAD, self.arrays.index(name), found)
            case Load(name, Each()):
                found = self.register("classes" if name in self.reread else "block", double=False)
                self.emit(LOAD, self.arrays.index(name), found)
            case Param(name, Each()):
                found = self.register("block", double=False)
                self.emit(SPREAD, self.arrays.index(name), found)
            case Position(Each()):
                found = self.register("block", double=False)
                self.emit(COUNT, 0, found)
            case Load(name, index) | Param(name, index):
                found = self.register("row", double=False)
                in_rows = int(isinstance(value, Load))
                assert index is not None
                self.emit(GATHER, self.arrays.index(name), in_rows, *self.place(index), found)
            case _:
                raise NotImplementedError(value)
        self.loads[value] = found
        return found

    def place(self, index: Index) -> tuple[int, int]:
        match index:
            case AtLabel(name):
                return AT_LABEL, self.arrays.index(name)
            case AtFound(name):
                return AT_FOUND, self.known[name].high
            case AtClass(number):
                return AT_CLASS, number
            case Each():
                raise NotImplementedError(index)
