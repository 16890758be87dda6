"""Samples for the proofs of derivations: ordinary rows and rows that sit on kinks and ties."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from lossmith.check.interpreter import Sample
from lossmith.language.formula import Formula, Input

CORNERS = (
    (0.0, 1.0, -1.0),  # s_0 − s_1 + 1 = 0 and s_1 − s_2 − 2 = 0
    (1.0, 1.0, 1.0),  # everything ties
    (0.5, -0.5, 0.5),
    (3.0, 2.0, 2.0),
)


def samples(formula: Formula, count: int = 3) -> Iterator[Sample]:
    """Yield samples of three classes (or single elements) in the domain of the formula."""
    rng = np.random.default_rng(7)
    rows = [tuple(rng.normal(0, 2, 3)) for _ in range(count)] + list(CORNERS)
    for n, row in enumerate(rows):
        for label in range(3) if formula.of_role("label") else (None,):
            data = {i.name: _entries(i, row, k + n) for k, i in enumerate(formula.inputs) if i.role.kind != "label"}
            hypers = {h.name: _hyper(h.default, h.ndim) for h in formula.hypers}
            if formula.kind == "elementwise":
                for k in range(3):
                    yield Sample({name: values[k] for name, values in data.items()}, hypers=hypers, K=3)
            else:
                yield Sample(data, label, hypers, 3)


def _hyper(default: object, ndim: int) -> object:
    return [0.5, 1.0, 2.0] if ndim else (1.5 if default is None else default)


def _entries(item: Input, row: tuple[float, ...], turn: int) -> list[object]:
    values = [float(v) for v in np.roll(row, turn)]
    domain = item.role.domain
    if domain == "unit":
        return [1 / (1 + abs(v)) / 1.25 for v in values]
    if domain == "simplex":
        parts = [Fraction(1 + abs(v)) for v in values]
        return [p / sum(parts) for p in parts]
    if domain == "sign":
        return [1.0 if v >= 0 else -1.0 for v in values]
    if domain in ("positive", "nonnegative"):
        return [abs(v) + 0.25 for v in values]
    return values  # type: ignore[return-value]
