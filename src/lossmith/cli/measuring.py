"""Commands that compare and draw: `check`, `plot`, `compare`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lossmith.cli.arguments import Given, only_losses, resolve, with_names
from lossmith.cli.tables import loaded
from lossmith.cli.terminal import FAILED, examples, progress_display, width_of, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = (".svg", ".png", ".pdf")


# ---------------------------------------------------------------- check


@click.command(
    short_help="How many digits are right, and where they are lost.",
    epilog=examples(
        "lossmith check cross_entropy",
        'lossmith check "log(cosh(s - t))" --detail',
        "lossmith check --all --thorough",
    ),
)
@click.argument("definitions", metavar="FORMULA|NAME...", nargs=-1)
@with_names
@click.option("--all", "everything", is_flag=True, help="Check the whole catalogue.")
@click.option("--quick", is_flag=True, help="A third of the inputs.")
@click.option("--thorough", is_flag=True, help="More inputs, and every kernel however long it takes to compile.")
@click.option("--detail", is_flag=True, help="Also the error of every output and kernel, in ulp.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), help="One of the two only.")
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the random inputs."
)
@click.option("--progress/--no-progress", default=None, help="A bar on stderr; by default on a terminal.")
@click.pass_context
def check(
    ctx: click.Context,
    definitions: tuple[str, ...],
    hypers: tuple[str, ...],
    roles: tuple[str, ...],
    everything: bool,
    quick: bool,
    thorough: bool,
    detail: bool,
    dtype: str | None,
    seed: int,
    progress: bool | None,
) -> None:
    """Count the correct digits of value, gradient and Hessian, beside those of the textbook formulas and of PyTorch.

    All are compared with 50-digit arithmetic, on ordinary inputs and on those where losses fail: scores far apart,
    huge, tiny, equal or −∞. What breaks its promise is said, with the input and the sub-expression to blame.

    FORMULA|NAME is as for `lossmith derive`. The exit status is 1 if a promise is broken.
    """
    if quick and thorough:
        raise click.UsageError("--quick or --thorough, not both")
    if bool(definitions) == everything:
        raise click.UsageError("give the losses to check, or --all" + (", not both" if everything else ""))
    if everything:
        from lossmith.losses import CATALOGUE

        found = [Given(name, loss, True) for name, loss in CATALOGUE.items()]
        if hypers or roles:
            raise click.UsageError("--all checks the catalogue as it is: leave out -H and --input")
    else:
        found = resolve(definitions, hypers, roles)
        only_losses(found, "a check")
    options: dict[str, Any] = {"samples": "quick" if quick else "thorough" if thorough else "standard", "seed": seed}
    if dtype is not None:
        options["dtypes"] = (dtype,)
    failed = [given.title for given in found if not _checked(given, options, progress, detail)]
    if len(found) > 1:
        kept = len(found) - len(failed)
        said = f"; FAILED: {', '.join(failed)}" if failed else ""
        click.echo(f"{kept} of {len(found)} losses keep every promise{said}")
    if failed:
        ctx.exit(FAILED)


def _checked(given: Given, options: dict[str, Any], progress: bool | None, detail: bool) -> bool:
    loss: Any = given.value
    with progress_display(f"check of {given.title}", progress) as report:
        result = loss.check(progress=report, **options)
    _print(str(result))
    if detail:
        click.echo(f"\n{_cut(result.details, width_of(sys.stdout))}")
    click.echo()
    return result.ok


_OF_DIGITS = re.compile(r".{12}(\s+(\d+\.\d|–))+")
_FEW = r"(?<=\s)[012]\.\d(?=\s|$)"
"""A line of the tables, and in it what has lost most of its digits."""


def _print(report: str) -> None:
    """Print a report; on a terminal, few digits are red."""
    if width_of(sys.stdout) is None:
        click.echo(report)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for line in report.split("\n"):
        text = Text(line)
        if _OF_DIGITS.fullmatch(line):
            text.highlight_regex(_FEW, "red")
        console.print(text)


def _cut(table: str, width: int | None) -> str:
    """Return a table that fits a terminal: its last column, the inputs, gives way."""
    if width is None:
        return table
    room = max(width, 60)
    return "\n".join(line if len(line) <= room else f"{line[: room - 1]}…" for line in table.split("\n"))


# ---------------------------------------------------------------- plot


@click.command(
    short_help="The curves of one loss or of several.",
    epilog=examples(
        "lossmith plot huber",
        "lossmith plot absolute_error squared_error huber -o errors.png",
    ),
)
@click.argument("definitions", metavar="FORMULA|NAME...", nargs=-1, required=True)
@with_names
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to; .svg, .png or .pdf.  [default: the name of the loss, with .svg]",
)
def plot(definitions: tuple[str, ...], hypers: tuple[str, ...], roles: tuple[str, ...], output: str | None) -> None:
    """Draw a loss with its first and second derivative along one score; several in one picture.

    FORMULA|NAME is as for `lossmith derive`.
    """
    chosen = None if output is None else writable(output, FIGURES)
    found = resolve(definitions, hypers, roles)
    path = writable(_figure_name(found)) if chosen is None else chosen
    _save(_figure(found), path)
    click.echo(f"wrote {path}")


def _figure(found: list[Given]) -> Figure:
    from lossmith.report import plot_loss, plot_together

    if len(found) == 1:
        return plot_loss(found[0].value)
    return plot_together(only_losses(found, "a picture of several"))


def _figure_name(found: list[Given]) -> str:
    stems = list(dict.fromkeys(given.stem for given in found))
    return "-".join(stems[:4]) + ".svg"


def _save(figure: Figure, path: Path) -> None:
    # Text stays text in SVG, and the file is the same every time.
    import matplotlib as mpl

    metadata = {"Date": None} if path.suffix == ".svg" else None
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "lossmith"}):
        figure.savefig(path, metadata=metadata)


# ---------------------------------------------------------------- compare


@click.command(
    short_help="Two losses: gradients, and training on the same data.",
    epilog=examples(
        "lossmith compare squared_error huber",
        'lossmith compare logistic "(sigmoid(s) - t)**2 / 2" breast_cancer -o why.svg',
    ),
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.argument("data", metavar="[DATA]", required=False)
@with_names
@click.option("--target", metavar="COLUMN", help="The column to predict, for CSV and Parquet files.")
@click.option("-o", "--output", metavar="FILE", help="Write the picture there: .svg, .png or .pdf.")
@click.option("--progress/--no-progress", default=None, help="A bar on stderr; by default on a terminal.")
def compare(
    first: str,
    second: str,
    data: str | None,
    hypers: tuple[str, ...],
    roles: tuple[str, ...],
    target: str | None,
    output: str | None,
    progress: bool | None,
) -> None:
    """Compare two losses: their gradients side by side, and on DATA what training makes of them.

    A and B are formulas or names, as for `lossmith derive`; DATA is as for `lossmith fit`.
    """
    path = None if output is None else writable(output, FIGURES)
    if target is not None and data is None:
        raise click.UsageError("--target names a column of DATA, and there is no DATA")
    a, b = only_losses(resolve([first, second], hypers, roles), "a comparison")
    table = None if data is None else loaded(data, target)
    from lossmith.report import compare_losses

    with progress_display("compare", progress) as report:
        comparison = compare_losses(a, b, data=table, progress=report)
    click.echo(str(comparison))
    if path is not None:
        _save(comparison.figure, path)
        click.echo(f"\nwrote {path}")
