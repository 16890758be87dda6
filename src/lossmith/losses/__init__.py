"""The catalogue: every loss a plain NumPy function of one sample, by family."""

from __future__ import annotations

from typing import Any

from lossmith.loss import Loss, loss
from lossmith.losses import binary, classes, distributions, regression

CATALOGUE: dict[str, Loss] = {
    name: found
    for family in (classes, distributions, binary, regression)
    for name, found in vars(family).items()
    if isinstance(found, Loss)
}
"""Every loss by its name, in the order of the families."""


def resolve_loss(definition: Any) -> Loss:
    """Return a loss from a Loss, a catalogue name, a formula, or a function."""
    if isinstance(definition, Loss):
        return definition
    if isinstance(definition, str) and definition in CATALOGUE:
        return CATALOGUE[definition]
    return loss(definition)


globals().update(CATALOGUE)
__all__ = [*CATALOGUE, "CATALOGUE", "resolve_loss"]  # pyright: ignore[reportUnsupportedDunderAll]
