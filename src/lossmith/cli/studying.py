"""The command that does the whole trip: `study`."""

from __future__ import annotations

from typing import Any

import click

from lossmith.cli.arguments import resolve_losses, with_names
from lossmith.cli.tables import loaded
from lossmith.cli.terminal import progress_display, writable, write_text


@click.command()
@click.argument("definition", metavar="FORMULA|NAME")
@with_names
@click.option("--data", default="digits", show_default=True, metavar="DATA", help="As for `lossmith fit`.")
@click.option("--target", metavar="COLUMN", help="The column to predict, for CSV and Parquet files.")
@click.option("--report", "output", default="report.html", show_default=True, metavar="FILE.html")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--progress/--no-progress", default=None, help="A bar on stderr; by default on a terminal.")
def study(
    definition: str,
    hypers: tuple[str, ...],
    roles: tuple[str, ...],
    data: str,
    target: str | None,
    output: str,
    seed: int,
    progress: bool | None,
) -> None:
    """Do the whole trip, and write it to one HTML page that needs no network.

    Derivation, check, speed of the kernels, training and curves. FORMULA|NAME is as for `lossmith
    derive`.

    \b
    Examples:
      lossmith study cross_entropy
      lossmith study "(1 - softmax(s)[y]**q) / q" -H q=0.7 --data letters.csv --target Letter
    """
    path = writable(output, (".html", ".htm"))
    (given,) = resolve_losses([definition], hypers, roles, "a study")
    table = loaded(data, target)
    from lossmith.report import run_study, study_page

    loss: Any = given.value
    with progress_display(f"study of {given.title}", progress) as report:
        found = run_study(loss, table, progress=report, seed=seed)
    write_text(path, study_page(found))
    click.echo(f"The report: {path.resolve()}")
