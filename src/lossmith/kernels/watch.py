"""What a kernel can say of its inputs' domains while it reads them anyway: that all is well, or that it is not sure.

A second look at a large array costs as much as the first. Who is not told that all is well looks once more, in full,
and finds the row and the words; so a kernel may be unsure of what is right (a NaN, −0, the sum of a long row).
"""

from __future__ import annotations

import math

from lossmith.kernels.rowprogram import (
    Each,
    Fold,
    Load,
    Loop,
    RowProgram,
    Stmt,
    fresh_name,
    operands,
    replaced,
    statements,
    subvalues,
)

LIMITS = {"unit": 1.0, "nonnegative": math.inf, "simplex": math.inf}
"""Domains that are watched, numbers from 0 to a limit; a simplex's rows have a sum besides."""

TOLERANCE = {2: 1e-2, 4: 1e-4, 8: 1e-6}
"""By how much the sum of a distribution may differ from one, by the size of its dtype in bytes."""


def watched(program: RowProgram) -> dict[str, str]:
    """Return the inputs that a compiled kernel watches, and their domains."""
    return {name: domain for name, domain in program.domains if domain in LIMITS}


def with_sums(program: RowProgram) -> tuple[RowProgram, dict[str, str]]:
    """Return the program with a sum over the classes of each distribution, and the input that each such sum is of."""
    sums: dict[str, str] = {}
    for name, domain in watched(program).items():
        if domain == "simplex":
            program, fold = _with_sum(program, name)
            sums[fold] = name
    return program, sums


def _with_sum(program: RowProgram, name: str) -> tuple[RowProgram, str]:
    entry = Load(name, Each(0))
    at: int | None = None
    for n, stmt in enumerate(program.body):
        if not isinstance(stmt, Loop):
            continue
        for inner in stmt.body:
            if isinstance(inner, Fold) and (inner.op, inner.value, inner.where) == ("sum", entry, None):
                return program, inner.name
        if at is None and any(entry in subvalues(v) for s in statements((stmt,)) for v in operands(s)):
            at = n
    params = (p.name for p in program.params)
    made = (getattr(s, "name", "") for s in statements(program.body))
    taken = {*program.inputs, *program.labels, *params, *made, *(output for output, _ in program.outputs)}
    fold = Fold(fresh_name(f"{name}_total", taken), "sum", entry)
    body: list[Stmt] = list(program.body)
    if at is None:
        body.insert(0, Loop(0, (fold,)))
    else:
        loop = body[at]
        assert isinstance(loop, Loop)
        body[at] = Loop(0, (fold, *loop.body))
    return replaced(program, body=tuple(body)), fold.name
