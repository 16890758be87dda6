"""The command that does the whole trip: `study`."""

from __future__ import annotations

import click

from lossmith.cli.arguments import only_losses, resolve, with_names
from lossmith.cli.tables import loaded
from lossmith.cli.terminal import examples, progress_display, writable, write_text


@click.command(
    short_help="All of this about one loss, as one HTML page.",
    epilog=examples(
        "lossmith study cross_entropy",
        'lossmith study "(1 - softmax(s)[y]**q) / q" -H q=0.7 --data letters.csv --target Letter',
    ),
)
@click.argument("definition", metavar="FORMULA|NAME")
@with_names
@click.option("--data", default="digits", show_default=True, metavar="DATA", help="As for `lossmith fit`.")
@click.option("--target", metavar="COLUMN", help="The column to predict, for CSV and Parquet files.")
@click.option("--report", "output", default="report.html", show_default=True, metavar="FILE.html", help="Where to.")
@click.option(
    "--seed",
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Of all that is drawn at random.",
)
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
    """
    path = writable(output, (".html", ".htm"))
    (given,) = resolve([definition], hypers, roles)
    (loss,) = only_losses([given], "a study")
    table = loaded(data, target)
    from lossmith.report import run_study, study_page

    with progress_display(f"study of {given.title}", progress) as report:
        found = run_study(loss, table, progress=report, seed=seed)
    write_text(path, study_page(found))
    click.echo(f"The report: {path.resolve()}")
