"""Which emitter writes the loops of a kernel, and how many rows share one sum of values."""

from __future__ import annotations

import numpy as np

from lossmith.kernels.emit_elements import STRETCH, emit_elements
from lossmith.kernels.emit_numba import emit_numba
from lossmith.kernels.emit_tiles import TILE, emit_tiles
from lossmith.kernels.rowprogram import RowProgram


def emit(
    program: RowProgram, dtype: np.dtype, weighted: bool = False, tiles: bool = False, summed: bool = False
) -> str:
    """Return the text of a module with a compiled function `kernel`: see emit_numba."""
    if program.kind == "elementwise":
        return emit_elements(program, dtype, weighted, summed)
    return emit_tiles(program, dtype, weighted, summed) if tiles else emit_numba(program, dtype, weighted)


def rows_per_sum(program: RowProgram, tiles: bool) -> int:
    """Return how many rows a kernel that sums its values adds up; 1 if it writes every value."""
    return STRETCH if program.kind == "elementwise" else TILE if tiles else 1
