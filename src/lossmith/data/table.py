"""The table every loader ends in, and what must hold for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lossmith.errors import DataError

Task = Literal["classification", "regression"]


@dataclass(frozen=True)
class Table:
    """Samples with their targets.

    Parameters
    ----------
    X : ndarray of shape (N, D), float32 or float64
        The features; every number is finite.
    target : ndarray of shape (N,)
        Labels of any type, or numbers to regress on; nothing is missing.
    feature_names : tuple of str
        One name for each column of ``X``.
    name : str
        The data set's name, or the file's name without folder.
    """

    X: NDArray[Any]
    target: NDArray[Any]
    feature_names: tuple[str, ...]
    name: str


def checked(table: Table, task: Task | None) -> Table:
    """Return the table if its numbers are finite and its target fits the task."""
    finite = np.isfinite(table.X)
    if not finite.all():
        row, column = (int(k) for k in np.argwhere(~finite)[0])
        count = int(finite.size - np.count_nonzero(finite))
        raise DataError(
            f"{table.name} has {count} values that are infinite or NaN: the first is "
            f"{table.X[row, column]} in row {row + 1}, column {table.feature_names[column]!r}; "
            "replace them or drop those rows."
        )
    target = table.target
    if target.dtype.kind == "f" and not np.isfinite(target).all():
        row = int(np.flatnonzero(~np.isfinite(target))[0])
        raise DataError(f"the target of {table.name} is {target[row]} in row {row + 1}; expected finite numbers.")
    if task == "classification":
        _check_classes(table)
    elif task == "regression" and target.dtype.kind not in "biuf":
        raise DataError(
            f"the target of {table.name} holds {str(target[0])!r} in row 1; regression needs "
            "numbers: choose another column, or a loss for classification."
        )
    return table


def _check_classes(table: Table) -> None:
    target = table.target
    if target.dtype.kind == "f":
        fractional = np.flatnonzero(target != np.rint(target))
        if fractional.size:
            row = int(fractional[0])
            raise DataError(
                f"the target of {table.name} is {target[row]} in row {row + 1}: numbers with a "
                "fractional part are no class labels; choose another column, or a loss for "
                "regression."
            )
    if bool((target == target[0]).all()):
        raise DataError(
            f"the target of {table.name} has one class only, {str(target[0])!r}, in all "
            f"{target.size} rows; classification needs two at least."
        )


def one_line(error: BaseException) -> str:
    """Return an exception's message as a part of a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def alternatives(names: Sequence[object]) -> str:
    """Return names as a choice: 'a', 'b' or 'c'."""
    quoted = [repr(str(name)) for name in names]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]
