"""From a row program to loops over bands of rows, for a middling number of classes.

With a hundred classes the loops over the classes of one row fill the processor's lanes, but what is one number per
row, a logarithm, a division, costs as much as all of them. So a band is BAND rows: each loop over the classes runs
row by row, and the numbers between the loops, kept in the strips of emit_tiles.py, run over all rows of the band, the
lanes being rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.emit_tiles import TileEmitter
from lossmith.kernels.emit_vectors import GATHERED, PLACES, how, same_lanes
from lossmith.kernels.rowprogram import BAND, Fold, Let, Loop, Op, RowProgram, Stmt, Store, Value, operands


def emit_bands(program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_tiles takes."""
    return _BandEmitter(program, np.dtype(dtype), weighted, summed).module()


class _BandEmitter(TileEmitter):
    next_row = "(i + T)"
    rows = BAND
    # a row of the tile begins where a vector does and has room for whole ones; and what is read from a row of an
    # output would wait for the part of a vector that was written last before it
    share_rows = False
    chooses = False
    row_start = ("i = first + r",)

    def rows_kept(self) -> Iterable[str]:
        return self.schedule.kept

    def put_places(self, start: int, several: list[str]) -> None:
        loops = [s for s in self.schedule.body if isinstance(s, Loop) and self.fits_vectors(s)]
        folds = [(f, same_lanes(fs)) for fs in ([s for s in p.body if isinstance(s, Fold)] for p in loops) for f in fs]
        lanes = [f"{f.name}_lanes" for f, same in folds if f.name not in same]
        lanes += [f"{f.name}_places" for f, _ in folds if f.op in PLACES]
        width = self.width()
        for n, name in enumerate(lanes):
            self.put(f"of_{name} = U({start + n * self.rows * width})")
        start += len(lanes) * self.rows * width
        if several:
            self.put(f"S = (K + U({width - 1})) // U({width}) * U({width})")
        for n, name in enumerate(several):
            self.put(f"of_{name} = U({start})" + (f" + U({n}) * S * T" if n else ""))
        self.put(f"tile = np.empty(U({start})" + (f" + U({len(several)}) * S * T, F)" if several else ", F)"))

    def copy_in(self) -> None:
        pass  # the rows are read where they are

    def copy_out(self) -> None:
        pass

    def loop(self, loop: Loop) -> None:
        folds = [s for s in loop.body if isinstance(s, Fold)]
        own = {s.name for s in loop.body if isinstance(s, Let | Fold)}
        self.put("for r in range(R):")
        self.indent += 1
        self.put("i = first + r")
        for line in self.preamble([v for s in loop.body for v in operands(s)], own):
            self.put(line)
        if self.weighted and any(isinstance(s, Store) for s in loop.body):
            self.put("factor = tile[of_factor + r]")
        Emitter.loop(self, loop)
        if not self.fits_vectors(loop):
            for fold in folds:
                found = f"F({fold.name})" if fold.op in PLACES else fold.name
                self.write(fold.name, found)
        self.indent -= 1
        if folds and self.fits_vectors(loop):
            self.fold_rows(folds, loop)

    def end_lanes(self, fold: Fold, blocked: bool, loop: Loop) -> None:
        """Keep what the lanes have gathered: the lanes of many rows are folded at once."""
        if fold.name not in self.gathers:
            self.put(self.vec("store", f"tile, of_{fold.name}_lanes + r * {self.step}, {fold.name}_lanes"))
        if fold.op in PLACES:
            places = self.vec("as_floats", f"{fold.name}_places, F(0)")
            self.put(self.vec("store", f"tile, of_{fold.name}_places + r * {self.step}, {places}"))

    def fold_rows(self, folds: list[Fold], loop: Loop) -> None:
        self.enter_rows(lanes=True)
        for fold in folds:
            lanes = f"tile, of_{self.gathers.get(fold.name, fold.name)}_lanes + r * {self.step}, {self.lanes}"
            name = f"{fold.name}{GATHERED.get(fold.op, '')}"
            self.put(f"{name} = {self.vec(f'{how(fold)}_rows', lanes)}")
            if fold.op in PLACES:
                self.put(self.vec("store", f"tile, of_{name} + r, {name}"))
            else:
                self.write(fold.name, f"{name} != {name}" if fold.op == "nan" else name)
        self.leave_rows()
        self.settle_folds(folds, loop)

    def find_places(self, fold: Fold, loop: Loop) -> None:
        """Find the first class with the extreme value: in each lane it has been found already."""
        name, width = fold.name, self.width()
        lanes, places = (
            self.vec("load", f"tile, of_{what} + r * {self.step}, {width}")
            for what in (f"{self.gathers.get(name, name)}_lanes", f"{name}_places")
        )
        found = self.vec("select", f"{lanes} == tile[of_{name}_best + r], {places}, F(K)")
        self.over_rows([self.vec("store", f"tile, of_{name}_places + r * {self.step}, {found}")])
        self.enter_rows(lanes=True)
        self.write(name, self.vec("min_rows", f"tile, of_{name}_places + r * {self.step}, {self.lanes}"))
        self.leave_rows()
        self.put("for r in range(R):")
        self.put(f"    if tile[of_{name} + r] == F(K):  # rare: a NaN, or infinities alone")
        self.indent += 2
        self.put("i = first + r")
        lets, values = self.needed_for(fold, loop)
        for line in self.preamble(values, {name, *(let.name for let in lets)}):
            self.put(line)
        self.put(f"{name}_best = tile[of_{name}_best + r]")
        Emitter.find_place(self, fold, loop)
        self.write(name, f"F({name})")
        self.indent -= 2

    def gather(self, fold: Fold) -> None:
        Emitter.gather(self, fold)

    def track_place(self, fold: Fold, value: str) -> str:
        return Emitter.track_place(self, fold, value)

    def keep(self, name: str) -> None:
        Emitter.keep(self, name)

    def store(self, output: str, value: Value) -> None:
        Emitter.store(self, output, value)

    def body(self, body: Iterable[Stmt]) -> None:
        Emitter.body(self, body)

    def row(self, name: str, at: str) -> str:
        return f"tile[of_{name} + r * S + {at}]"

    def place(self, name: str) -> tuple[str, str]:
        return "tile", f"of_{name} + r * S"

    def read_vector(self, array: str, at: str) -> str:
        return self.vec("load", f"{array}, {at}, {self.lanes}") if array == "tile" else super().read_vector(array, at)

    def write_vector(self, array: str, start: str, text: str, value: Value | None) -> None:
        outer, self.in_part = self.in_part, self.in_part and array != "tile"
        super().write_vector(array, start, text, value)
        self.in_part = outer

    def leaf(self, value: Value) -> tuple[str, int]:
        return Emitter.leaf(self, value) if self.depth else super().leaf(value)

    def call(self, value: Op) -> tuple[str, int]:
        return Emitter.call(self, value) if self.depth else super().call(value)
