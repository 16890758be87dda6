"""From a row program to loops over bands of rows, for a middling number of classes.

With a hundred classes the loops over the classes of one row fill the processor's lanes, but what is one number per
row, a logarithm, a division, costs as much as all of them. So a band is TILE rows: each loop over the classes runs
row by row, and the numbers between the loops, kept in the strips of emit_tiles.py, run over all rows of the band, the
lanes being rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lossmith.kernels.emit_numba import Emitter
from lossmith.kernels.emit_tiles import TileEmitter
from lossmith.kernels.rowprogram import Fold, Let, Loop, Op, RowProgram, Stmt, Store, Value, operands


def emit_bands(program: RowProgram, dtype: np.dtype, weighted: bool = False, summed: bool = False) -> str:
    """Return a module with one compiled function, `kernel`, that takes what that of emit_tiles takes."""
    return _BandEmitter(program, np.dtype(dtype), weighted, summed).module()


class _BandEmitter(TileEmitter):
    next_row = "(i + T)"

    def rows_kept(self) -> Iterable[str]:
        return (name for name in self.schedule.kept if name not in self.schedule.homes)

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
        for fold in folds:
            found = f"F({fold.name})" if fold.op in ("argmax", "argmin") else fold.name
            self.write(fold.name, found)
        self.indent -= 1

    def gather(self, fold: Fold) -> None:
        Emitter.gather(self, fold)

    def keep(self, name: str) -> None:
        Emitter.keep(self, name)

    def store(self, output: str, value: Value) -> None:
        Emitter.store(self, output, value)

    def body(self, body: Iterable[Stmt]) -> None:
        Emitter.body(self, body)

    def row(self, name: str, at: str) -> str:
        home = self.schedule.homes.get(name)
        return f"tile[of_{name} + r * K + {at}]" if home is None else f"{home}[i, {at}]"

    def place(self, name: str) -> tuple[str, str]:
        home = self.schedule.homes.get(name)
        return ("tile", f"of_{name} + r * K") if home is None else (home, "i * K")

    def leaf(self, value: Value) -> tuple[str, int]:
        return Emitter.leaf(self, value) if self.depth else super().leaf(value)

    def call(self, value: Op) -> tuple[str, int]:
        return Emitter.call(self, value) if self.depth else super().call(value)
