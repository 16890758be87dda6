"""The progress bar of a fit."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from lossmith.linear.solvers import Progress


@contextmanager
def progress_bar(enabled: bool, title: str, total: int) -> Generator[Callable[[Progress], None] | None]:
    """Show a bar with the loss and the validation score on the standard error stream.

    Parameters
    ----------
    enabled : bool
        If False, nothing is shown.
    title : str
        What is running.
    total : int
        The most iterations or epochs.

    Yields
    ------
    callable or None
        What a solver calls with a `Progress`; None if not enabled.
    """
    if not enabled:
        yield None
        return
    # rich takes some 50 ms to import, which a fit without a bar need not pay.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, figures="")

        def advance(progress: Progress) -> None:
            figures = f"loss {progress.loss:.5g}"
            if progress.validation is not None:
                figures += f"  validation {progress.validation:.4f}"
            bar.update(task, completed=progress.step, figures=figures)

        yield advance
