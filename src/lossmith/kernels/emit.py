"""Which emitter writes the loops of a kernel."""

from __future__ import annotations

import numpy as np

from lossmith.kernels.emit_bands import emit_bands
from lossmith.kernels.emit_elements import emit_elements
from lossmith.kernels.emit_numba import emit_numba
from lossmith.kernels.emit_tiles import emit_tiles
from lossmith.kernels.rowprogram import Form, RowProgram


def emit(
    program: RowProgram, dtype: np.dtype, weighted: bool = False, form: Form = "rows", summed: bool = False
) -> str:
    """Return the text of a module with a compiled function `kernel`: see emit_numba."""
    match form:
        case "elements" | "streams":
            return emit_elements(program, dtype, weighted, summed, form == "streams")
        case "tiles":
            return emit_tiles(program, dtype, weighted, summed)
        case "bands":
            return emit_bands(program, dtype, weighted, summed)
        case "rows":
            return emit_numba(program, dtype, weighted)
