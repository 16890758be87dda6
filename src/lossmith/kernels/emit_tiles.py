"""From a row program to loops over tiles of rows, for few classes: the lanes of the processor are rows, not classes.

With ten classes a loop over the classes of one row fills no vector. So some TILE rows are laid out class by class in
scratch memory, `tile`, and every loop over the classes has a loop over the rows inside, which is vectorised: logarithms
of many rows at once, sums of many rows at once. A row's bits do not depend on its place in a tile.

Everything lives in one array, in strips of TILE numbers: `tile[of_m + r]` is the m of row r of the tile,
`tile[of_s + k * T + r]` its score of class k. With one array for each, LLVM would ask for every pair whether they
overlap, and give up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lossmith.kernels.emit_folds import START
from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.printing import ATOM, UNARY
from lossmith.kernels.rowprogram import (
    TILE,
    AtFound,
    AtLabel,
    Each,
    Fold,
    Let,
    Load,
    Loop,
    Param,
    Patch,
    Position,
    Ref,
    Reject,
    RowProgram,
    Stmt,
    Store,
    Value,
    letter,
    operands,
    statements,
    subvalues,
)
from lossmith.kernels.schedule import closure


def emit_tiles(program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_numba takes.

    With `summed` its value is one sum per TILE rows.
    """
    return TileEmitter(program, np.dtype(dtype), weighted, summed).module()


def found_in(values: Iterable[Value]) -> set[str]:
    """Return the names of the places, found by argmax or argmin, at which the values are read."""
    read = (v.index for v in values if isinstance(v, Load | Param | Position))
    return {index.name for index in read if isinstance(index, AtFound)}


class TileEmitter(Emitter):
    """Writes a kernel that takes TILE rows at a time, with the numbers of each row in strips."""

    def __init__(self, program: RowProgram, dtype: np.dtype, weighted: bool, summed: bool) -> None:
        super().__init__(program, dtype, weighted)
        self.summed = summed

    def function(self) -> None:
        self.group: list[Stmt] = []
        self.patches = [s for s in self.schedule.body if isinstance(s, Patch)]
        body: list[Stmt] = [s for s in self.schedule.body if not isinstance(s, Patch)]
        # the value of a patch is a number per row like others
        body += [Let(f"patch_{n}", 0, p.value) for n, p in enumerate(self.patches)]
        self.strips = self._strips(body)
        self.put_head()
        self.put("for first in range(U(0), N, T):")
        self.indent += 1
        self.put("R = min(T, N - first)")
        self.copy_in()
        if self.weighted:
            with_rows = ["tile[of_factor + r] = F(weight[first + r] * scale)"]
            self.over_rows(with_rows)
        for stmt in body:
            if isinstance(stmt, Loop):
                self.flush([s for s in stmt.body if isinstance(s, Fold)])
                self.loop(stmt)
            elif not isinstance(stmt, Reject):
                self.group.append(stmt)
        self.flush([])
        self.write_out()

    def copy_in(self) -> None:
        """Lay the rows of all inputs out class by class."""
        for name in self.program.inputs:
            self.put("for k in range(K):")
            self.put("    for r in range(R):")
            self.put(f"        tile[of_{name} + k * T + r] = {name}[first + r, k]")

    def rows_kept(self) -> Iterable[str]:
        """Return what has a number per row and class in the tile."""
        yield from self.program.inputs
        yield from (name for name, per_class in self.program.outputs if per_class)
        yield from (name for name in self.schedule.kept if name not in self.schedule.homes)

    def _strips(self, body: list[Stmt]) -> dict[str, bool]:
        """Return what has strips in scratch memory: one (False), or one per class (True)."""
        strips: dict[str, bool] = {}
        for stmt in statements(tuple(body)):
            if isinstance(stmt, Fold) or (isinstance(stmt, Let) and stmt.depth == 0):
                strips[stmt.name] = False
            if isinstance(stmt, Fold) and stmt.op in ("argmax", "argmin"):
                strips[f"{stmt.name}_best"] = False
        if self.weighted:
            strips["factor"] = False
        if self.summed:
            strips["value"] = False
        return strips | dict.fromkeys(self.rows_kept(), True)

    def put_head(self) -> None:
        first = self.program.inputs[0]
        self.lines.append(f"def kernel({', '.join(self.arguments())}):")
        self.put(f"N, K, T = U({first}.shape[0]), U({first}.shape[1]), U({TILE})")
        if not self.weighted and any(name != "value" for name, _ in self.program.outputs):
            self.put("factor = F(scale)")
        single = [name for name, per_class in self.strips.items() if not per_class]
        several = [name for name, per_class in self.strips.items() if per_class]
        for n, name in enumerate(single):
            self.put(f"of_{name} = U({n * TILE})")
        for n, name in enumerate(several):
            self.put(f"of_{name} = U({len(single) * TILE})" + (f" + U({n}) * K * T" if n else ""))
        self.put(f"tile = np.empty(U({len(single) * TILE}) + U({len(several)}) * K * T, F)")

    # -------------------------------------------------------------- loops over the rows of a tile

    def over_rows(self, lines: Iterable[str]) -> None:
        self.put("for r in range(R):")
        for line in lines:
            self.put("    " + line)

    def preamble(self, values: Iterable[Value], own: set[str]) -> Iterator[str]:
        """Read the numbers of a row that the values need and that are not made here."""
        used = [v for value in values for v in subvalues(value)]
        labels = {i.name for v in used if isinstance(v, Load | Param | Position) and isinstance(i := v.index, AtLabel)}
        yield from (f"{name}_i = U({name}[first + r])" for name in sorted(labels))
        yield from map(self.read_place, sorted(found_in(used)))
        for name in dict.fromkeys(v.name for v in used if isinstance(v, Ref) and not v.indices):
            if name not in own:
                yield self.read(name)

    def read_place(self, name: str) -> str:
        return f"{name} = U(tile[of_{name} + r])"

    def read(self, name: str) -> str:
        if self.is_condition(name):
            return f"{name} = tile[of_{name} + r] != F(0)"
        return f"{name} = tile[of_{name} + r]"

    def write(self, name: str, text: str) -> str:
        return f"tile[of_{name} + r] = {self.vec('select', f'{text}, F(1), F(0)') if self.is_condition(name) else text}"

    def flush(self, folds: list[Fold]) -> None:
        """Write the loop over rows for the statements collected, and start what the next loop gathers."""
        group, self.group = self.group, []
        if not group and not folds:
            return
        own = {s.name for s in group if isinstance(s, Let)}
        self.put("for r in range(R):")
        self.indent += 1
        for line in self.preamble([v for s in group for v in operands(s)], own):
            self.put(line)
        if self.weighted and any(isinstance(s, Store) for s in group):
            self.put("w = weight[first + r]")
        for stmt in group:
            if isinstance(stmt, Let):
                self.put(f"{stmt.name} = {self.text(stmt.value)}")
                self.put(self.write(stmt.name, stmt.name))
            elif isinstance(stmt, Store):
                self.store_row(stmt)
        for fold in folds:
            self.put(f"tile[of_{self.gathered(fold)} + r] = {START.get(fold.op, 'F(0)')}")
        self.indent -= 1

    def store_row(self, stmt: Store) -> None:
        if stmt.output == "value" and self.summed:
            self.put(f"tile[of_value + r] = {self.text(stmt.value)}")
            return
        if stmt.output == "value":
            text = f"w * {self.text(stmt.value, UNARY)}" if self.weighted else self.text(stmt.value)
        else:
            factor = "tile[of_factor + r]" if self.weighted else "factor"
            text = f"{factor} * {self.text(stmt.value, UNARY)}"
        self.put(f"{stmt.output}[first + r] = {text}")

    # -------------------------------------------------------------- loops over classes

    def loop(self, loop: Loop) -> None:
        folds = [s for s in loop.body if isinstance(s, Fold)]
        own = {s.name for s in loop.body if isinstance(s, Let)}
        self.put("for k in range(K):")
        self.put("    for r in range(R):")
        self.depth, self.indent = 1, self.indent + 2
        outer, self.known = self.known, set(self.known)
        stores = any(isinstance(s, Store) for s in loop.body)
        for line in self.preamble([v for s in loop.body for v in operands(s)], own):
            self.put(line)
        if stores and self.weighted:
            self.put("factor = tile[of_factor + r]")
        self.fetch(loop)
        for stmt in loop.body:
            if isinstance(stmt, Fold):
                name = self.gathered(stmt)
                self.put(f"{name} = tile[of_{name} + r]")
                self.gather(stmt)
                self.put(f"tile[of_{name} + r] = {name}")
            elif isinstance(stmt, Store):
                self.put(f"tile[of_{stmt.output} + k * T + r] = factor * {self.text(stmt.value, UNARY)}")
            else:
                self.body((stmt,))
        self.known = outer
        self.depth, self.indent = 0, self.indent - 2
        for fold in folds:
            if fold.op == "peak":
                self.settle_rows(fold, loop)
            elif fold.op in ("argmax", "argmin"):
                self.find_places(fold, loop)
            elif fold.op == "nan":
                at = f"tile[of_{fold.name} + r]"
                self.over_rows([f"{at} = {self.vec('select', f'{at} != {at}, F(1), F(0)')}"])

    def row(self, name: str, at: str) -> str:
        return f"tile[of_{self.schedule.homes.get(name, name)} + {at} * T + r]"

    def gather(self, fold: Fold) -> None:
        if fold.op != "nan":
            super().gather(fold)
            return
        value = self.text(fold.value)
        if fold.where is not None:
            value = self.vec("select", f"{self.text(fold.where)}, {value}, {START['nan']}")
        self.put(f"{fold.name} = {self.vec('maximum', f'{fold.name}, {value}')}")

    def is_condition(self, name: str) -> bool:
        nan = any(isinstance(s, Fold) and s.name == name and s.op == "nan" for s in statements(self.program.body))
        return nan or super().is_condition(name)

    @staticmethod
    def gathered(fold: Fold) -> str:
        """Return the name of what the loop over the classes gathers."""
        return f"{fold.name}_best" if fold.op in ("argmax", "argmin") else fold.name

    def find_places(self, fold: Fold, loop: Loop) -> None:
        """Find the first class with the extreme value in each row; places are kept as floats, exact for few classes."""
        name = fold.name
        self.over_rows([f"tile[of_{name} + r] = F(K)"])
        self.put("for k in range(K):")
        self.put("    for r in range(R):")
        self.indent += 1
        outer = self.enter_again(fold, loop, self.needed_for(fold, loop))
        self.put(f"{name}_best = tile[of_{name}_best + r]")
        here = self.vec("select", f"{self.is_extreme(fold, f'{name}_best')}, F(k), F(K)")
        self.put(f"tile[of_{name} + r] = {self.vec('minimum', f'tile[of_{name} + r], {here}')}")
        self.leave(loop, outer)
        self.indent -= 1
        nothing = f"tile[of_{name} + r] == F(K), F(0), tile[of_{name} + r]"
        self.over_rows([f"tile[of_{name} + r] = {self.vec('select', nothing)}"])

    def needed_for(self, fold: Fold, loop: Loop) -> list[str]:
        """Return the lines that read what an entry of the fold is made of."""
        values = (fold.value,) if fold.where is None else (fold.value, fold.where)
        lets = list(closure(values, loop.body))
        own = {fold.name, *(let.name for let in lets)}
        return list(self.preamble([*values, *(let.value for let in lets)], own))

    def settle_rows(self, fold: Fold, loop: Loop) -> None:
        self.put("for r in range(R):")
        self.indent += 1
        self.put(f"{fold.name} = tile[of_{fold.name} + r]")
        self.settle(fold, loop, self.needed_for(fold, loop))
        self.put(f"    tile[of_{fold.name} + r] = {fold.name}")
        self.indent -= 1

    # -------------------------------------------------------------- the end of a tile

    def write_out(self) -> None:
        """Copy what the tile holds to the outputs, with what overrides it."""
        self.copy_out()
        if self.patches or self.rejects or self.weighted:
            self.finish_rows()
        if self.summed:
            self.sum_values()

    def copy_out(self) -> None:
        for name in (name for name, per_class in self.program.outputs if per_class):
            self.put("for k in range(K):")
            self.put("    for r in range(R):")
            self.put(f"        {name}[first + r, k] = tile[of_{name} + k * T + r]")

    def finish_rows(self) -> None:
        """Overwrite rows that have no weight or hold a NaN, and the entries that have a value of their own."""
        self.put("for r in range(R):")
        self.indent += 1
        self.put("i = first + r")
        if self.weighted:
            self.put("if weight[i] == 0.0:")
            self.fill("0.0", "F(0)")
        for name in self.rejects:
            self.put(f"if tile[of_{name} + r] != F(0):")
            self.fill("np.nan", "F(np.nan)")
        factor = "tile[of_factor + r]" if self.weighted else "factor"
        for n, patch in enumerate(self.patches):
            if isinstance(patch.index, AtLabel):
                self.put(f"{patch.index.name}_i = U({patch.index.name}[i])")
            if isinstance(patch.index, AtFound):
                self.put(self.read_place(patch.index.name))
            self.put(f"{patch.output}[i, {self.index(patch.index)}] = {factor} * tile[of_patch_{n} + r]")
        self.indent -= 1

    def fill(self, value: str, entry: str) -> None:
        if not self.summed:
            super().fill(value, entry)
            return
        self.indent += 1
        self.put(f"tile[of_value + r] = {entry}")
        for name in (name for name, per_class in self.program.outputs if per_class):
            self.put("for k in range(K):")
            self.put(f"    {name}[i, k] = {entry}")
        for name in (name for name, per_class in self.program.outputs if not per_class and name != "value"):
            self.put(f"{name}[i] = {entry}")
        self.put("continue")
        self.indent -= 1

    def sum_values(self) -> None:
        self.put("tally = 0.0")
        value = "np.float64(tile[of_value + r])"
        if self.weighted:
            value = f"weight[first + r] * {value}"
        self.over_rows([f"tally = {self.vec('add_reassoc', f'tally, {value}')}"])
        self.put("value[first // T] = tally")

    def leaf(self, value: Value) -> tuple[str, int]:
        match value:
            case Load(name, Each()):
                return f"tile[of_{name} + {letter(0)} * T + r]", ATOM
            case Load(name, index):
                return f"{name}[first + r, {self.index(index)}]", ATOM
            case _:
                return super().leaf(value)
