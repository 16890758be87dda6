"""How loops over the classes of one row are written in vectors: whole ones, and at the end of the row a part of one.

A loop that holds another, or calls what has no vector form, stays a loop over single classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lossmith.kernels.emit_folds import START, FoldWriter
from lossmith.kernels.printing import UNARY
from lossmith.kernels.rowprogram import (
    AtFound,
    AtLabel,
    Each,
    Fold,
    Let,
    Load,
    Loop,
    Number,
    Op,
    Param,
    Position,
    Ref,
    RowProgram,
    Stmt,
    Value,
    in_vectors,
    operands,
    subvalues,
)
from lossmith.kernels.schedule import CHEAP

if TYPE_CHECKING:
    import numpy as np

    from lossmith.kernels.schedule import Schedule

BLOCK = 1024
"""How many classes are summed in the dtype of the kernel before the sum goes on in float64: the rounding error of a
sum does not grow with the number of classes then."""

VECTOR_BYTES = 64
IN_FLIGHT = 4
"""How many registers of a processor a vector fills: while one waits for its last result, another is worked on."""

LANES = {"add_lanes", "as_floats", "chosen", "first_lanes", "load", "load_some", "max_lanes", "min_lanes", "places",
         "spread", "square_root", "store", "store_some", "will_read", "will_write"}  # fmt: skip
TURNING = {"add_rows", "max_rows", "min_rows", "rows_in", "rows_out"}
"""The functions of lanes.py and turning.py that loops are written with."""

GATHERED = {"nan": "_max", "argmax": "_best", "argmin": "_best"}
"""What is added to the name of a fold to name what its loop gathers."""


class VectorWriter(FoldWriter):
    """Writes loops over classes, a vector at a time."""

    dtype: np.dtype
    schedule: Schedule
    program: RowProgram
    longest: Loop | None
    """The loop in which most is done."""
    next_row = "(i + U(1))"
    """What is worked on after the row i."""
    blocks = True
    """Whether rows may be longer than a block."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = 0  # the length of the vectors of the loop that is being written, 0 in a loop over single classes
        self.gathers: dict[str, str] = {}  # folds that need no lanes of their own, and whose they use
        self.in_part = False  # whether the last vector is being written, which has `left` lanes

    def is_condition(self, name: str) -> bool:
        """Whether a name stands for true or false."""
        raise NotImplementedError

    def body(self, body: Iterable[Stmt]) -> None:
        """Write statements."""
        raise NotImplementedError

    def place(self, name: str) -> tuple[str, str]:
        """Return the array in which a row of numbers is kept, and the place at which the row begins, "" for 0."""
        raise NotImplementedError

    def fits_vectors(self, loop: Loop) -> bool:
        """Whether a loop can be written in vectors."""
        if loop.depth or not in_vectors(loop):
            return False
        named = {s.name for s in loop.body if isinstance(s, Let)}
        named |= {v.name for s in loop.body for o in operands(s) for v in subvalues(o) if isinstance(v, Ref)}
        return not any(self.is_condition(name) for name in named.intersection(self.schedule.kept))

    def loop_in_vectors(self, loop: Loop) -> None:
        folds = [s for s in loop.body if isinstance(s, Fold)]
        sums = [f.name for f in folds if f.op == "sum"]
        blocked = bool(sums) and self.blocks
        self.gathers = same_lanes(folds)
        width = self.width()
        for fold in folds:
            if fold.op == "sum" and blocked:
                self.put(f"{fold.name}_sum = 0.0")
            else:
                self.start_lanes(fold, width)
        if blocked:
            self.put(f"for block in range(U(0), K, U({BLOCK})):")
            self.indent += 1
            for fold in folds:
                if fold.op == "sum":
                    self.start_lanes(fold, width)
            self.put(f"stop = min(block + U({BLOCK}), K)")
        start, stop = ("block", "stop") if blocked else ("U(0)", "K")
        self.put(f"left = {stop} % U({width})")
        self.put(f"for k in range({start}, {stop} - left, U({width})):")
        self.vector(loop, width, part=False)
        self.put("if left:")
        self.put(f"    k = {stop} - left")
        self.vector(loop, width, part=True)
        if blocked:
            for name in sums:
                self.put(f"{name}_sum += {self.vec('add_lanes', f'{name}_lanes')}")
            self.indent -= 1
        for fold in folds:
            self.end_lanes(fold, blocked, loop)

    def end_lanes(self, fold: Fold, blocked: bool, loop: Loop) -> None:
        """Make one number of what the lanes have gathered."""
        if fold.op != "sum" or not blocked:
            lanes = f"{self.gathers.get(fold.name, fold.name)}_lanes"
            self.put(f"{fold.name}{GATHERED.get(fold.op, '')} = {self.vec(f'{how(fold)}_lanes', lanes)}")
            if fold.op in PLACES:
                none = self.vec("spread", f"np.int32(K), {self.width()}")
                found = self.vec("chosen", f"{lanes} == {fold.name}_best, {fold.name}_places, {none}")
                self.put(f"{fold.name} = U({self.vec('min_lanes', found)})")
                self.put(f"if {fold.name} == K:  # rare: a NaN, or infinities alone")
                self.indent += 1
        self.finish(fold, blocked, loop)
        if fold.op in PLACES:
            self.indent -= 1

    def width(self) -> int:
        """Return the length of vectors: where rows are long, so that several parts of one are worked on at a time."""
        return VECTOR_BYTES // self.dtype.itemsize * (IN_FLIGHT if self.blocks else 1)

    def start_lanes(self, fold: Fold, width: int) -> None:
        if fold.op in PLACES:
            self.put(f"{fold.name}_places = {self.vec('spread', f'np.int32(K), {width}')}")
        if fold.name not in self.gathers:
            start = START.get(fold.op, "F(0)")
            self.put(f"{fold.name}_lanes = {self.vec('spread', f'{start}, {width}')}")

    def vector(self, loop: Loop, width: int, part: bool) -> None:
        """Write what is done with one vector; `part` of one if it is the last."""
        outer, self.known = self.known, set(self.known)
        self.lanes, self.in_part = width, part
        self.depth, self.indent = 1, self.indent + 1
        if loop is self.longest and not part:
            self.look_ahead(f"{self.next_row} * K + k")
        self.fetch_vectors(loop)
        self.body(loop.body)
        self.depth, self.indent = 0, self.indent - 1
        self.lanes, self.in_part = 0, False
        self.known = outer

    def look_ahead(self, at: str) -> None:
        """Fetch what comes after these rows, while the most is done with this one."""
        lines = max(1, self.lanes * self.dtype.itemsize // VECTOR_BYTES)
        for line in range(lines):
            there = f"{at} + U({line * VECTOR_BYTES // self.dtype.itemsize})" if line else at
            for name in self.program.inputs:
                self.put(self.vec("will_read", f"{name}, {there}"))
            written = (name for name, per_class in self.program.outputs if per_class)
            for name in (name for name in written if name not in self.schedule.blank):
                self.put(self.vec("will_write", f"{name}, {there}"))

    def fetch_vectors(self, loop: Loop) -> None:
        """Read what a loop looks at."""
        values = [v for s in loop.body for o in operands(s) for v in subvalues(o)]
        own = [v for v in values if isinstance(v, Load | Param | Position) and v.index == Each(0)]
        made = {s.name for s in loop.body if isinstance(s, Let)}
        kept = [v.name for v in values if isinstance(v, Ref) and v.indices == (Each(0),) and v.name not in made]
        if self.in_part and any(isinstance(s, Fold) for s in loop.body):
            self.put(f"live = {self.vec('first_lanes', f'left, {self.lanes}')}")
        for name in dict.fromkeys(v.input for v in own if isinstance(v, Load)):
            self.put(f"{name}_lanes = {self.read_vector(name, 'i * K + k')}")
        for name in dict.fromkeys(v.name for v in own if isinstance(v, Param)):
            self.put(f"{name}_lanes = {self.read_vector(name, 'k')}")
        if any(isinstance(v, Position) for v in own) or any(isinstance(s, Fold) and s.op in PLACES for s in loop.body):
            self.put(f"k_lanes = {self.vec('places', f'k, {self.lanes}')}")
        for name in dict.fromkeys(kept):
            array, start = self.place(name)
            self.put(f"{name} = {self.read_vector(array, f'{start} + k' if start else 'k')}")
            self.known.add(name)

    def read_vector(self, array: str, at: str) -> str:
        if self.in_part:
            return self.vec("load_some", f"{array}, {at}, {self.lanes}, left")
        return self.vec("load", f"{array}, {at}, {self.lanes}")

    def write_vector(self, array: str, start: str, text: str, value: Value | None) -> None:
        if value is not None and not varies(value):
            text = self.vec("spread", f"{text}, {self.lanes}")
        self.put_vector(array, f"{start} + k" if start else "k", text)

    def put_vector(self, array: str, at: str, text: str) -> None:
        if self.in_part:
            self.put(self.vec("store_some", f"{array}, {at}, {text}, left"))
        else:
            self.put(self.vec("store", f"{array}, {at}, {text}"))

    def gather_lanes(self, fold: Fold) -> None:
        if fold.name in self.gathers and fold.op not in PLACES:
            return
        name, value = f"{fold.name}_lanes", fold.value
        chosen = [] if fold.where is None else [fold.where]
        # A sum takes 0 where it takes nothing, -0 to be exact: x + -0 = x for every x, so it is one masked addition.
        none = "F(-0.0)" if fold.op == "sum" else START[fold.op]
        if fold.op == "sum" and isinstance(value, Op) and value.op == "indicator":
            chosen, value = [*chosen, *value.args], Number(1)
        above = UNARY if len(chosen) + self.in_part > 1 else 0
        where = " & ".join([self.text(c, above) for c in chosen] + ["live"] * self.in_part)
        value = self.text(value)
        if where:
            value = self.vec("select", f"{where}, {value}, {none}")
        if fold.op in PLACES:
            value = self.track_place(fold, value)
            if fold.name in self.gathers:
                return
        if fold.op == "sum":
            value = self.text_of_sum(name, value, fold)
        else:
            value = self.vec("minimum" if fold.op in ("min", "argmin") else "maximum", f"{name}, {value}")
        self.put(f"{name} = {value}")

    def track_place(self, fold: Fold, value: str) -> str:
        """Note where this vector is beyond all before; return the name of its numbers."""
        if not value.isidentifier():
            (x,) = self.temporaries("x")
            self.put(f"{x} = {value}")
            value = x
        sign, places = "<" if fold.op == "argmin" else ">", f"{fold.name}_places"
        better = f"{value} {sign} {self.gathers.get(fold.name, fold.name)}_lanes"
        self.put(f"{places} = {self.vec('chosen', f'{better}, k_lanes, {places}')}")
        return value

    def text_of_sum(self, name: str, value: str, fold: Fold) -> str:
        atom = self.in_part or fold.where is not None or value.isidentifier() or value.endswith(")")
        return f"{name} + {value}" if atom else f"{name} + ({value})"

    def vector_leaf(self, value: Value) -> str | None:
        """Return the name of a vector, None for a number."""
        match value:
            case Load(name, Each(0)) | Param(name, Each(0)):
                return f"{name}_lanes"
            case Position(Each(0)):
                return "k_lanes"
            case _:
                return None


PLACES = {"argmax", "argmin"}
"""Folds whose result is a class."""
HOW = {"sum": "add", "min": "min", "argmin": "min"}


def how(fold: Fold) -> str:
    """Return how a fold combines the numbers of two lanes: add, min or max."""
    return HOW.get(fold.op, "max")


def same_lanes(folds: list[Fold]) -> dict[str, str]:
    """Return which folds can use what a later one gathers: the extreme of the same numbers, for another purpose."""
    last = {(how(f), f.value, f.where): f.name for f in folds if f.op != "sum"}
    found = {f.name: last[how(f), f.value, f.where] for f in folds if f.op != "sum"}
    return {name: other for name, other in found.items() if name != other}


def varies(value: Value) -> bool:
    """Whether a value of a loop over classes differs from class to class."""
    return any(
        (isinstance(v, Ref) and bool(v.indices) and v.indices[0] == Each(0))
        or (isinstance(v, Load | Param | Position) and v.index == Each(0))
        for v in subvalues(value)
    )


def of_rows(value: Value) -> bool:
    """Whether a value differs from row to row."""
    return any(
        isinstance(v, Ref | Load) or (isinstance(v, Position) and isinstance(v.index, AtLabel | AtFound))
        for v in subvalues(value)
    )


def operations(loop: Loop) -> int:
    """Count the operations of a loop, dear ones many times."""
    values = [v for s in loop.body for o in operands(s) for v in subvalues(o)]
    return sum(1 if v.op in CHEAP else 10 for v in values if isinstance(v, Op))
