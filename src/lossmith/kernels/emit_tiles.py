"""From a row program to loops over tiles of rows, for few classes: the lanes of the processor are rows, not classes.

With ten classes a loop over the classes of one row fills no vector. So some TILE rows are laid out class by class in
scratch memory, `tile`, and a vector holds one number each of as many rows as it has lanes: logarithms of many rows at
once, sums of many rows at once. A row's bits do not depend on its place in a tile. Of a tile with fewer rows the rest
of the last vector holds copies of rows, or what lay in memory: nothing looks at what comes of it.

Everything lives in one array, in strips of TILE numbers: `tile[of_m + r]` is the m of row r of the tile,
`tile[of_s + k * T + r]` its score of class k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from lossmith.kernels.emit_folds import START
from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.emit_vectors import PLACES, VECTOR_BYTES, of_rows, same_lanes
from lossmith.kernels.printing import ATOM, UNARY
from lossmith.kernels.rowprogram import (
    SINGLE,
    TILE,
    AtClass,
    AtFound,
    AtLabel,
    Each,
    Fold,
    Let,
    Load,
    Loop,
    Op,
    Param,
    Patch,
    Position,
    Ref,
    RowProgram,
    Stmt,
    Store,
    Value,
    found_in,
    letter,
    operands,
    statements,
    subvalues,
)
from lossmith.kernels.schedule import closure, only_looks


def emit_tiles(program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_numba takes.

    With `summed` its value is one sum per TILE rows.
    """
    return TileEmitter(program, np.dtype(dtype), weighted, summed).module()


class TileEmitter(Emitter):
    """Writes a kernel that takes TILE rows at a time, with the numbers of each row in strips."""

    blocks = False
    rows = TILE
    """How many rows are done together."""
    chooses = True
    """Whether rows of weight 0 are computed like others, and zeros chosen for what comes of it."""
    row_start: tuple[str, ...] = ()
    """What a loop over the classes of one row needs to be told."""

    def __init__(self, program: RowProgram, dtype: np.dtype, weighted: bool, summed: bool) -> None:
        super().__init__(program, dtype, weighted)
        self.summed = summed
        self.step = f"U({self.width()})"
        loops = (s for s in self.schedule.body if isinstance(s, Loop) and not only_looks(s))
        read = {v for s in statements(tuple(loops)) for o in operands(s) for v in subvalues(o) if isinstance(v, Load)}
        self.turned = [name for name in self.program.inputs if Load(name, Each(0)) in read]
        self.stored = [n for n, per_class in self.program.outputs if per_class and n not in self.schedule.blank]

    def function(self) -> None:
        self.group: list[Let | Store] = []
        self.patches = [s for s in self.schedule.body if isinstance(s, Patch)]
        body: list[Stmt] = [s for s in self.schedule.body if not isinstance(s, Patch)]
        # the value of a patch is a number per row like others
        body += [Let(f"patch_{n}", 0, p.value) for n, p in enumerate(self.patches)]
        self.strips = self._strips(body)
        self.put_head()
        self.put("for first in range(U(0), N, T):")
        self.indent += 1
        self.put("R = min(T, N - first)")
        self.watch("first * K, R * K")
        self.copy_in()
        if self.weighted:
            self.over_rows(["tile[of_factor + r] = F(weight[first + r] * scale)"])
            if self.chooses:
                self.over_rows([f"tile[of_counts + r] = {self.counted('F(1)', 'F(0)')}"])
        for name in self.places:
            self.over_rows([f"tile[of_{name} + r] = F({name}[first + r])"])
        for stmt in body:
            if isinstance(stmt, Loop) and only_looks(stmt):
                self.look_at_rows(stmt)
            elif isinstance(stmt, Loop):
                self.flush()
                self.loop(stmt)
                self.watch_sums_of_rows(stmt)
            elif isinstance(stmt, Let | Store):
                self.group.append(stmt)
        self.flush()
        self.write_out()

    def copy_in(self) -> None:
        """Lay the rows of all inputs out class by class."""
        for name in self.turned:
            self.turn("rows_in", name)

    def copy_out(self) -> None:
        for name in self.stored:
            self.turn("rows_out", name)

    def turn(self, function: str, name: str) -> None:
        classes = f"U({16 // self.dtype.itemsize})"
        self.put(f"for r in range(U(0), R, {self.step}):")
        self.put(f"    for begin in range(U(0), K, {classes}):")
        self.put(f"        k = min(begin, max(K, {classes}) - {classes})")
        self.put(f"        {self.vec(function, f'{name}, first + r, R - r, K, k, tile, of_{name} + k * T + r, T')}")

    def rows_kept(self) -> Iterable[str]:
        """Return what has a number per row and class in the tile."""
        yield from self.turned
        yield from self.stored
        yield from (name for name in self.schedule.kept if name not in self.schedule.homes)

    def _strips(self, body: list[Stmt]) -> dict[str, bool]:
        """Return what has strips in scratch memory: one (False), or one per class (True)."""
        strips: dict[str, bool] = {}
        for stmt in statements(tuple(body)):
            if isinstance(stmt, Fold) or (isinstance(stmt, Let) and stmt.depth == 0):
                strips[stmt.name] = False
            if isinstance(stmt, Fold) and stmt.op in PLACES:
                strips[f"{stmt.name}_best"] = False
        values = [v for s in statements(tuple(body)) for o in operands(s) for v in subvalues(o)]
        self.places = sorted({v.index.name for v in values if isinstance(v, Position) and isinstance(v.index, AtLabel)})
        strips |= dict.fromkeys(self.places, False)
        strips |= dict.fromkeys((name for name, per_class in self.program.outputs if not per_class), False)
        if self.weighted:
            strips |= dict.fromkeys(("factor", "counts") if self.chooses else ("factor",), False)
        return strips | dict.fromkeys(self.rows_kept(), True)

    def put_head(self) -> None:
        first = self.program.inputs[0]
        self.lines.append(f"def kernel({', '.join(self.arguments())}):")
        self.put(f"N, K, T = U({first}.shape[0]), U({first}.shape[1]), U({self.rows})")
        if not self.weighted and any(name != "value" for name, _ in self.program.outputs):
            self.put("factor = F(scale)")
        if self.watched:
            self.put("sure = True")
        single = [name for name, per_class in self.strips.items() if not per_class]
        several = [name for name, per_class in self.strips.items() if per_class]
        for n, name in enumerate(single):
            self.put(f"of_{name} = U({n * self.rows})")
        self.put_places(len(single) * self.rows, several)

    def put_places(self, start: int, several: list[str]) -> None:
        """Write where the strips begin that have a number per class, and make room for all."""
        for n, name in enumerate(several):
            self.put(f"of_{name} = U({start})" + (f" + U({n}) * K * T" if n else ""))
        # blocks have four classes: where there are fewer, what follows a strip is written before it is made
        self.put(f"tile = np.empty(U({start + 4 * self.rows}) + U({len(several)}) * K * T, F)")

    # -------------------------------------------------------------- loops over the rows of a tile

    def over_rows(self, lines: Iterable[str]) -> None:
        self.put("for r in range(R):")
        for line in lines:
            self.put("    " + line)

    def enter_rows(self, lanes: bool) -> None:
        """Begin a loop over vectors of rows, or over single rows."""
        self.put(f"for r in range(U(0), R, {self.step}):" if lanes else "for r in range(R):")
        self.indent += 1
        self.lanes = VECTOR_BYTES // self.dtype.itemsize if lanes else 0

    def leave_rows(self) -> None:
        self.indent -= 1
        self.lanes = 0

    def preamble(self, values: Iterable[Value], own: set[str]) -> Iterator[str]:
        """Read the numbers of a row, or of a vector of rows, that the values need and that are not made here."""
        used = [v for value in values for v in subvalues(value)]
        labels = {i.name for v in used if isinstance(v, Load | Param | Position) and isinstance(i := v.index, AtLabel)}
        if self.lanes:
            yield from (f"{name}_lanes = {self.strip(name)}" for name in sorted(labels | found_in(used)))
        else:
            yield from (f"{name}_i = U({name}[first + r])" for name in sorted(labels))
            yield from (f"{name} = U(tile[of_{name} + r])" for name in sorted(found_in(used)))
        for name in dict.fromkeys(v.name for v in used if isinstance(v, Ref) and not v.indices):
            if name not in own:
                yield f"{name} = {self.strip(name)}" + (" != F(0)" if self.is_condition(name) else "")

    def strip(self, name: str) -> str:
        """Return the number of a row in a strip, or those of a vector of rows."""
        if self.lanes:
            return self.vec("load", f"tile, of_{name} + r, {self.lanes}")
        return f"tile[of_{name} + r]"

    def write(self, name: str, text: str) -> None:
        """Put a number of a row, or those of a vector of rows, in a strip."""
        if self.is_condition(name):
            text = self.vec("select", f"{text}, F(1), F(0)")
        if self.lanes:
            self.put(self.vec("store", f"tile, of_{name} + r, {text}"))
        else:
            self.put(f"tile[of_{name} + r] = {text}")

    def spread(self, text: str) -> str:
        return self.vec("spread", f"{text}, {self.lanes}") if self.lanes else text

    def flush(self) -> None:
        """Write the loops over rows for the statements collected; those that vectors cannot do, row by row."""
        group, self.group = self.group, []
        while group:
            lanes = not self.is_single(group[0])
            run = group[: next((n for n, s in enumerate(group) if self.is_single(s) == lanes), len(group))]
            group = group[len(run) :]
            own = {s.name for s in run if isinstance(s, Let)}
            self.enter_rows(lanes)
            for line in self.preamble([v for s in run for v in operands(s)], own):
                self.put(line)
            for stmt in run:
                text = self.text(stmt.value)
                text = text if of_rows(stmt.value) else self.spread(text)
                if isinstance(stmt, Let):
                    self.put(f"{stmt.name} = {text}")
                    self.write(stmt.name, stmt.name)
                else:
                    self.write(stmt.output, text)
            self.leave_rows()

    def is_single(self, stmt: Stmt) -> bool:
        """Whether a statement reads from places that differ from row to row, or calls what has no vector form."""
        values = [v for o in operands(stmt) for v in subvalues(o)]
        return any(
            (isinstance(v, Load | Param) and isinstance(v.index, AtLabel | AtFound | AtClass))
            or (isinstance(v, Op) and v.op in SINGLE)
            for v in values
        )

    # -------------------------------------------------------------- loops over classes

    def loop(self, loop: Loop) -> None:
        folds = [s for s in loop.body if isinstance(s, Fold)]
        own = {s.name for s in loop.body if isinstance(s, Let)}
        self.enter_rows(lanes=True)
        for line in self.preamble([v for s in loop.body for v in operands(s)], own):
            self.put(line)
        if self.weighted and any(isinstance(s, Store) for s in loop.body):
            self.put(f"factor, counts = {self.strip('factor')}, {self.strip('counts')} != F(0)")
        self.gathers = same_lanes(folds)
        for fold in folds:
            if fold.name not in self.gathers:
                start = self.vec("spread", f"{START.get(fold.op, 'F(0)')}, {self.lanes}")
                self.put(f"{fold.name}_lanes = {start}")
        outer = self.enter_classes(loop.body)
        if loop is self.longest:
            self.look_ahead(f"(first + T + r) * K + k * {self.step}")
        for stmt in loop.body:
            if isinstance(stmt, Fold):
                self.gather_lanes(stmt)
            elif isinstance(stmt, Store):
                text = f"factor * {self.text(stmt.value, UNARY)}"
                text = self.vec("select", f"counts, {text}, F(0)") if self.weighted else text
                self.keep_entry(stmt.output, text if of_rows(stmt.value) else self.spread(text))
            else:
                self.body((stmt,))
        self.leave_classes(outer)
        for fold in folds:
            text = f"{self.gathers.get(fold.name, fold.name)}_lanes"
            if fold.op in PLACES:
                self.put(self.vec("store", f"tile, of_{fold.name}_best + r, {text}"))
            else:
                self.write(fold.name, f"{text} != {text}" if fold.op == "nan" else text)
        self.leave_rows()
        self.settle_folds(folds, loop)

    def settle_folds(self, folds: list[Fold], loop: Loop) -> None:
        """Finish what the folds of a loop say of whole rows, once all rows have been gathered."""
        for fold in folds:
            if fold.op == "peak":
                self.settle_rows(fold, loop)
            elif fold.op in PLACES:
                self.find_places(fold, loop)

    def track_place(self, fold: Fold, value: str) -> str:
        return value  # found in a loop of its own

    def enter_classes(self, body: Sequence[Stmt]) -> set[str]:
        """Begin a loop over the classes of these rows: read what its statements look at."""
        self.put("for k in range(K):")
        outer, self.known = self.known, set(self.known)
        self.depth, self.indent = 1, self.indent + 1
        values = [v for s in body for o in operands(s) for v in subvalues(o)]
        made = {s.name for s in body if isinstance(s, Let)}
        for name in dict.fromkeys(v.input for v in values if isinstance(v, Load) and v.index == Each(0)):
            self.put(f"{name}_lanes = {self.entry(name)}")
        kept = [v.name for v in values if isinstance(v, Ref) and v.indices == (Each(0),) and v.name not in made]
        for name in dict.fromkeys(kept):
            self.put(f"{name} = {self.entry(self.schedule.homes.get(name, name))}")
            self.known.add(name)
        return outer

    def leave_classes(self, outer: set[str]) -> None:
        self.depth, self.indent = 0, self.indent - 1
        self.known = outer

    def entry(self, name: str) -> str:
        """Return the entries of this class of a vector of rows."""
        return self.vec("load", f"tile, of_{name} + k * T + r, {self.lanes}")

    def keep_entry(self, name: str, text: str) -> None:
        """Put the entries of this class in the tile."""
        self.put(self.vec("store", f"tile, of_{name} + k * T + r, {text}"))

    def keep(self, name: str) -> None:
        self.known.add(name)
        if name in self.schedule.kept:
            self.keep_entry(self.schedule.homes.get(name, name), name)

    def row(self, name: str, at: str) -> str:
        return f"tile[of_{self.schedule.homes.get(name, name)} + {at} * T + r]"

    def is_condition(self, name: str) -> bool:
        nan = any(isinstance(s, Fold) and s.name == name and s.op == "nan" for s in statements(self.program.body))
        return nan or super().is_condition(name)

    def find_places(self, fold: Fold, loop: Loop) -> None:
        """Find the first class with the extreme value in each row; places are kept as floats, exact for few classes."""
        lets, values = self.needed_for(fold, loop)
        self.enter_rows(lanes=True)
        for line in self.preamble(values, {fold.name, *(let.name for let in lets)}):
            self.put(line)
        self.put(f"{fold.name}_best = {self.strip(f'{fold.name}_best')}")
        self.put(f"{fold.name}_lanes = {self.vec('spread', f'F(K), {self.lanes}')}")
        outer = self.enter_classes([*lets, fold])
        self.body(lets)
        here = self.vec("select", f"{self.is_extreme(fold, f'{fold.name}_best')}, F(k), F(K)")
        self.put(f"{fold.name}_lanes = {self.vec('minimum', f'{fold.name}_lanes, {here}')}")
        self.leave_classes(outer)
        found = f"{fold.name}_lanes"
        self.write(fold.name, self.vec("select", f"{found} == F(K), F(0), {found}"))
        self.leave_rows()

    def needed_for(self, fold: Fold, loop: Loop) -> tuple[list[Let], list[Value]]:
        """Return what is named on the way to an entry of the fold, and all values that are looked at."""
        values = [fold.value] if fold.where is None else [fold.value, fold.where]
        lets = list(closure(tuple(values), loop.body))
        return lets, [*values, *(let.value for let in lets)]

    def settle_rows(self, fold: Fold, loop: Loop) -> None:
        lets, values = self.needed_for(fold, loop)
        reads = list(self.row_start)
        reads += self.preamble(values, {fold.name, *(let.name for let in lets)})
        self.put("for r in range(R):")
        self.indent += 1
        self.put(f"{fold.name} = tile[of_{fold.name} + r]")
        self.settle(fold, loop, reads)
        self.put(f"    tile[of_{fold.name} + r] = {fold.name}")
        self.indent -= 1

    # -------------------------------------------------------------- the end of a tile

    def write_out(self) -> None:
        """Copy what the tile holds to the outputs, with what overrides it."""
        self.copy_out()
        factor = "tile[of_factor + r]" if self.weighted else "factor"
        for name in (name for name, per_class in self.program.outputs if not per_class):
            if name != "value":
                text = self.counted(f"{factor} * tile[of_{name} + r]", "F(0)")
                self.over_rows([f"{name}[first + r] = {text}"])
            elif not self.summed:
                weight = "weight[first + r] * " if self.weighted else ""
                self.over_rows([f"value[first + r] = {self.counted(f'{weight}tile[of_value + r]', '0.0')}"])
        if self.patches or (self.weighted and not self.chooses):
            self.finish_rows(factor)
        if self.rejects:
            self.reject_rows()
        if self.summed:
            self.sum_values()

    def counted(self, text: str, none: str) -> str:
        """Return what a row has, or `none` if its weight is 0: by a choice, not a branch, in a loop over rows."""
        return self.vec("select", f"weight[first + r] != 0.0, {text}, {none}") if self.weighted else text

    def finish_rows(self, factor: str) -> None:
        """Overwrite rows of no weight where that was not chosen, and the entries that have a value of their own."""
        self.put("for r in range(R):")
        self.indent += 1
        self.put("i = first + r")
        if self.weighted and not self.chooses:
            self.put("if weight[i] == 0.0:")
            self.fill("0.0", "F(0)")
        for n, patch in enumerate(self.patches):
            if isinstance(patch.index, AtLabel):
                self.put(f"{patch.index.name}_i = U({patch.index.name}[i])")
            if isinstance(patch.index, AtFound):
                self.put(f"{patch.index.name} = U(tile[of_{patch.index.name} + r])")
            text = self.counted(f"{factor} * tile[of_patch_{n} + r]", "F(0)")
            self.put(f"{patch.output}[i, {self.index(patch.index)}] = {text}")
        self.indent -= 1

    def value_place(self) -> str:
        return "tile[of_value + r]" if self.summed else "value[i]"

    def sum_values(self) -> None:
        self.put("tally = 0.0")
        value = "np.float64(tile[of_value + r])"
        if self.weighted:
            value = self.counted(f"weight[first + r] * {value}", "0.0")
        self.over_rows([f"tally = {self.vec('add_reassoc', f'tally, {value}')}"])
        self.put("value[first // T] = tally")

    # -------------------------------------------------------------- values

    def leaf(self, value: Value) -> tuple[str, int]:
        if self.lanes:
            return self.leaf_of_lanes(value)
        match value:
            case Load(name, Each()):
                return f"tile[of_{name} + {letter(0)} * T + r]", ATOM
            case Load(name, index):
                return f"{name}[first + r, {self.index(index)}]", ATOM
            case _:
                return super().leaf(value)

    def leaf_of_lanes(self, value: Value) -> tuple[str, int]:
        """Write a leaf where the lanes are rows: places are floats, as in the strips."""
        match value:
            case Load(name, Each()) | Position(AtLabel(name) | AtFound(name)):
                return f"{name}_lanes", ATOM
            case Position(index):
                return f"F({self.index(index)})", ATOM
            case Param(name, Each()):
                return f"{name}[k]", ATOM
            case _:
                return super().leaf(value)

    def call(self, value: Op) -> tuple[str, int]:
        if self.lanes and value.op == "to_float" and isinstance(value.args[0], Position):
            return self.text(value.args[0]), ATOM
        return super().call(value)
