"""The command line: `lossmith derive`, `check`, `code`, `plot`, `fit`, `compare`, `list`, `study`.

Every command imports what it needs when it runs, so that `lossmith --help` is quick.
"""

from __future__ import annotations

import click

from lossmith.cli.measuring import check, compare, plot
from lossmith.cli.reading import code, derive, list_catalogue
from lossmith.cli.studying import study
from lossmith.cli.terminal import CommandLine, arguments_in_utf8, prepare_streams, print_version
from lossmith.cli.training import fit

__all__ = ["cli", "main"]

_EPILOG = """\b
Begin with:
  lossmith list
  lossmith derive "logsumexp(s) - s[y]"
  lossmith study cross_entropy --data digits --report report.html

A formula speaks NumPy: s are the scores of one sample, y is its label, t its targets.

Exit status: 0; 1 if a check failed; 2 if the input cannot be used."""


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
    no_args_is_help=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Write the loss. Get the gradient: derived, exact, fast, everywhere."""


# In the order in which a newcomer needs them; help lists them so.
for _command in (list_catalogue, derive, check, code, plot, fit, compare, study):
    cli.add_command(_command)


def main() -> None:
    """Run the command line, as the installed command does."""
    prepare_streams()
    cli.main(arguments_in_utf8(), prog_name="lossmith")
