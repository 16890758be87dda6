"""From the DATA of a command line to the rows to train on and the rows to test on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from lossmith.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from lossmith.data import Table
    from lossmith.loss import Loss


@dataclass(frozen=True)
class Parts:
    """A table with the rows to train on and the rows to test on."""

    table: Table
    train: np.ndarray
    test: np.ndarray
    said: str


def loaded(data: str, target: str | None) -> Table:
    """Return the table that DATA names.

    Raises
    ------
    DataError
        If it cannot be used, in the words of the command line.
    """
    from lossmith.data import load_table

    try:
        return load_table(data, target=target)
    except DataError as error:
        if target is None and "target" in str(error):
            raise DataError(f"{str(error).rstrip('.')} (--target names it).") from None
        raise


def task_of(loss: Loss, table: Table, asked: str | None) -> str:
    """Return what is to be fitted, "classification" or "regression".

    A loss with a label classifies. So does one whose scores become probabilities, unless the targets
    are numbers with a fractional part. Any other loss with targets predicts numbers, if numbers they are.
    """
    from lossmith.data.table import checked

    numeric = table.target.dtype.kind in "iuf"
    fractional = table.target.dtype.kind == "f" and bool(np.any(table.target % 1))
    if loss.label_name is not None:
        task = "classification"
    elif loss.link is not None or loss.target_domain in ("unit", "simplex", "sign"):
        task = "regression" if fractional else "classification"
    else:
        task = "regression" if numeric else "classification"
    if loss.label_name is None and loss.target_name is None:
        raise UnsupportedError(
            f"{loss.name} takes neither a label nor targets, so there is nothing to learn from the data."
        )
    chosen: Any = asked or task
    checked(table, chosen)
    return chosen


def in_dtype(table: Table, dtype: str | None) -> Table:
    """Return the table with its features in float32 or float64."""
    return table if dtype is None else replace(table, X=table.X.astype(dtype, copy=False))


def split(table: Table, task: str, fraction: float, first_rows: int | None, seed: int) -> Parts:
    """Divide the rows: the first ones to train on, or a fraction drawn at random to test on."""
    count = table.X.shape[0]
    rows = np.arange(count)
    if first_rows is not None:
        if not 0 < first_rows <= count:
            raise click.UsageError(
                f"--train-rows must be from 1 to {count}, the rows of {table.name}, not {first_rows}"
            )
        if first_rows == count:
            return Parts(table, rows, rows[:0], f"trained on all {count} rows, tested on none")
        said = f"trained on the first {first_rows} rows, tested on the other {count - first_rows}"
        return Parts(table, rows[:first_rows], rows[first_rows:], said)
    held_out = round(fraction * count)
    if held_out == 0:
        return Parts(table, rows, rows[:0], f"trained on all {count} rows, tested on none")
    if held_out == count:
        raise DataError(f"{table.name} has {count} rows, and a test fraction of {fraction:g} leaves none to train on.")
    train, test = _drawn(table, task, held_out, seed)
    return Parts(
        table, train, test, f"trained on {train.size} rows, tested on {test.size} drawn at random (seed {seed})"
    )


def _drawn(table: Table, task: str, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.model_selection import train_test_split

    stratify = None
    if task == "classification":
        _, counts = np.unique(table.target, return_counts=True)
        # Each class can have its share on both sides only if there are rows enough.
        if counts.min() >= 2 and min(held_out, table.target.size - held_out) >= counts.size:
            stratify = table.target
    rows = np.arange(table.target.size)
    parts: Any = train_test_split(rows, test_size=held_out, random_state=seed, stratify=stratify)
    return np.sort(parts[0]), np.sort(parts[1])
