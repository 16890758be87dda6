"""From the DATA of a command line to the rows to train on and the rows to test on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click
import numpy as np

from lossmith.errors import DataError

if TYPE_CHECKING:
    from lossmith.data import Table
    from lossmith.data.table import Task
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


def task_of(loss: Loss, table: Table, asked: Task | None) -> Task:
    """Return what is to be fitted, after checking that the target is fit for it."""
    from lossmith.data.table import checked
    from lossmith.linear.tasks import task_of as usual_task_of

    usual = usual_task_of([loss], table)  # also refuses a loss that nothing can be learnt from
    checked(table, asked or usual)
    return asked or usual


def in_dtype(table: Table, dtype: str | None) -> Table:
    """Return the table with its features in float32 or float64."""
    return table if dtype is None else replace(table, X=table.X.astype(dtype, copy=False))


def split(table: Table, task: Task, fraction: float, first_rows: int | None, seed: int) -> Parts:
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
        if task == "classification" and np.unique(table.target[:first_rows]).size < 2:
            raise DataError(
                f"the first {first_rows} rows of {table.name} have one class only, {str(table.target[0])!r}: "
                "raise --train-rows, or leave it out for rows drawn at random."
            )
        said = f"trained on the first {first_rows} rows, tested on the other {count - first_rows}"
        return Parts(table, rows[:first_rows], rows[first_rows:], said)
    if fraction == 0:
        return Parts(table, rows, rows[:0], f"trained on all {count} rows, tested on none")
    from lossmith.linear.tasks import split_of

    parts = split_of(table, task, fraction, seed)
    said = f"trained on {parts.train.size} rows, tested on {parts.test.size} drawn at random (seed {seed})"
    return Parts(table, parts.train, parts.test, said)
