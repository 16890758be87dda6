"""Row programs on disk: what was derived, made stable and lowered once is read back in the next process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lossmith.kernels import cache
from lossmith.kernels.rowprogram import RowProgram

if TYPE_CHECKING:
    from lossmith.language.formula import Formula


def program_for(formula: Formula, wanted: Sequence[str], derive: Callable[[], RowProgram]) -> RowProgram:
    """Return the program that computes `wanted`, from the disk or, through `derive`, from the formula.

    Parameters
    ----------
    formula : Formula
        What the program is of. Its digest, and what else decides about the program, name the file.
    wanted : sequence of str
        What to compute, such as "value" and "grad": whatever makes `derive` return something else.
    derive : callable
        Returns the program; called only if it is not on disk.
    """
    path = cache.place(formula.name or "loss", _identity(formula), repr(tuple(wanted)).encode(), suffix=".program")
    program = cache.read_object(path)
    if not isinstance(program, RowProgram):
        program = derive()
        cache.write_object(path, program)
    return program


def _identity(formula: Formula) -> bytes:
    """Return what tells formulas apart whose programs differ."""
    output: Any = formula.output
    hypers = [(h.name, h.ndim, h.positive, repr(h.default)) for h in formula.hypers]
    inputs = [(i.name, i.role.kind, i.role.domain) for i in formula.inputs]
    parts = (formula.kind, formula.name, inputs, hypers, getattr(output, "name", None))
    expected = formula.expectation_of
    return formula.expr.digest + (b"" if expected is None else expected.expr.digest) + repr(parts).encode()
