"""What a loss is for on a table, and which rows to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lossmith.data import Table
from lossmith.data.table import Task
from lossmith.errors import DataError, UnsupportedError
from lossmith.loss import Loss

_MOST_CLASSES = 30
"""A column of more different whole numbers than this is taken for a quantity, if the loss leaves the choice."""


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to test on."""

    train: NDArray[np.intp]
    test: NDArray[np.intp]


def task_of(losses: Sequence[Loss], table: Table) -> Task:
    """Return what the losses are for on these data.

    Raises
    ------
    UnsupportedError
        If a loss has neither label nor targets.
    """
    for loss in losses:
        if loss.label_name is None and loss.target_name is None:
            raise UnsupportedError("The loss has no label and no targets, so there is nothing to learn.")
    numbers = table.target.dtype.kind in "iuf"
    different = np.unique(table.target)
    fractional = numbers and bool(np.any(different != np.rint(different.astype(float))))
    for loss in losses:
        if loss.label_name is not None or loss.kind == "row" or loss.target_domain == "sign":
            return "classification"
    if any(one.link is not None or one.target_domain == "unit" for one in losses):
        return "regression" if fractional else "classification"
    return "regression" if fractional or (numbers and different.size > _MOST_CLASSES) else "classification"


def split_of(table: Table, task: Task, test_fraction: float, seed: int) -> Split:
    """Divide the rows at random, classes in proportion where that is possible."""
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(table.target))
    held_out = int(np.ceil(test_fraction * len(rows)))
    if not 0 < held_out < len(rows):
        raise DataError(f"{table.name} has {len(rows)} rows, too few to hold out {100 * test_fraction:g} % of them.")
    stratify = None
    if task == "classification":
        counts = np.unique(table.target, return_counts=True)[1]
        if counts.min() >= 2 and min(held_out, len(rows) - held_out) >= len(counts):
            stratify = table.target
    parts: Any = train_test_split(rows, test_size=held_out, stratify=stratify, random_state=seed)
    return Split(np.sort(parts[0]), np.sort(parts[1]))
