"""Commands that print: `list`, `derive`, `code`."""

from __future__ import annotations

import html
import re
import sys
import textwrap
from typing import TYPE_CHECKING

import click

from lossmith.cli.arguments import Given, formula_of, resolve, with_names
from lossmith.cli.terminal import examples, note, width_of, writable, write_text

if TYPE_CHECKING:
    from lossmith.calculus.prose import Derivation
    from lossmith.language.formula import Formula

OUTPUTS = ("value", "grad", "hessian_diag", "hvp")
FUNCTION_OUTPUTS = ("value", "jvp", "vjp")


# ---------------------------------------------------------------- list


@click.command(
    "list",
    short_help="All losses and functions, with their formulas.",
    epilog=examples(
        "lossmith list",
    ),
)
def list_catalogue() -> None:
    """List every loss and function: its name, its formula, what it is, its hyperparameters."""
    from lossmith.functions import VECTOR_FUNCTIONS
    from lossmith.losses import CATALOGUE

    families: dict[str, list[tuple[str, str, str]]] = {}
    for name, loss in CATALOGUE.items():
        family = sys.modules[loss.definition.function.__module__].__doc__ or ""
        row = (name, loss.formula, _first_line(loss.references) + _defaults(loss.definition))
        families.setdefault(family.split(".")[0].split(":")[0], []).append(row)
    families["Functions of a row or of a number, for use in formulas"] = [
        (name, found.derivation.formula, _first_line(found.__doc__ or "") + _defaults(formula_of(found)))
        for name, found in VECTOR_FUNCTIONS.items()
    ]
    click.echo(_table(families, width_of(sys.stdout)))


def _first_line(doc: str) -> str:
    return doc.strip().split("\n")[0]


def _defaults(formula: Formula) -> str:
    """Return the hyperparameters with their defaults, in brackets: what -H can set."""
    shown = [h.name if h.default is None else f"{h.name}={h.default:g}" for h in formula.hypers]
    return f" [{', '.join(shown)}]" if shown else ""


def _table(families: dict[str, list[tuple[str, str, str]]], width: int | None) -> str:
    """Return rows of three columns; where they do not fit, what it is stands under the formula."""
    rows = [row for family in families.values() for row in family]
    name_width, formula_width = (max(len(row[k]) for row in rows) for k in (0, 1))
    full = 2 + name_width + 2 + formula_width + 2 + max(len(row[2]) for row in rows)
    lines: list[str] = []
    for title, family in families.items():
        lines += ["", title]
        for name, formula, what in family:
            start = f"  {name:<{name_width}}  "
            if width is None or full <= width:
                lines.append(f"{start}{formula:<{formula_width}}  {what}")
                continue
            # Nothing wraps well in a few columns: a terminal that narrow does it itself.
            below = textwrap.wrap(what, max(width - 6, 30))
            lines += [start + formula, *(f"      {line}" for line in below)]
    return "\n".join(lines[1:])


# ---------------------------------------------------------------- derive


@click.command(
    short_help="Gradient and Hessian, line by line.",
    epilog=examples(
        "lossmith derive cross_entropy",
        'lossmith derive "p = softmax(s); -(1 - p[y])**gamma * log(p[y])" -H gamma=2',
        'lossmith derive "(p - q)**2" --input p=scores --input q=targets',
        "lossmith derive softmax --format latex",
    ),
)
@click.argument("definition", metavar="FORMULA|NAME")
@with_names
@click.option(
    "--format",
    "shape",
    type=click.Choice(["text", "latex", "html", "mathml"]),
    default="text",
    show_default=True,
    help="html is a page of its own, mathml a piece for another page.",
)
@click.option("-o", "--output", metavar="FILE", help="Write it there instead of printing it.")
def derive(definition: str, hypers: tuple[str, ...], roles: tuple[str, ...], shape: str, output: str | None) -> None:
    """Derive gradient and Hessian line by line, or the Jacobian of a vector function.

    FORMULA|NAME is a name from `lossmith list`, a formula (lines separated by ; or newlines), @FILE
    with a formula in it, or - for the standard input.
    """
    path = None if output is None else writable(output)
    (given,) = resolve([definition], hypers, roles)
    text = _derivation(given, shape, width_of(sys.stdout) if path is None else None)
    if path is None:
        click.echo(text)
    else:
        write_text(path, f"{text}\n")
        note(f"the derivation of {given.title} is in {path}")


def _derivation(given: Given, shape: str, width: int | None) -> str:
    derivation: Derivation = given.value.derivation
    if shape == "latex":
        return derivation.latex()
    if shape == "mathml":
        return derivation.html()
    if shape == "html":
        return _page(f"Derivation of {given.title}", derivation.html())
    return fitted(str(derivation), width)


_REASON = re.compile(r"(?P<step>.*\S)?\s{2,}\[(?P<reason>.+)\]")


def fitted(text: str, width: int | None) -> str:
    """Return a derivation for a terminal of so many columns: reasons that do not fit go below."""
    lines = text.splitlines()
    if width is None or all(len(line) <= width for line in lines):
        return text
    found: list[str] = []
    for line in lines:
        match = _REASON.fullmatch(line)
        if match is None or len(line) <= width:
            found.append(line)
            continue
        step, reason = match["step"], f"[{match['reason']}]"
        if step:
            found.append(step)
        found.append(" " * max(width - len(reason) - 1, 4) + reason)
    return "\n".join(found)


def _page(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n"
        "<style>body{font-family:system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
        "overflow-x:auto;line-height:1.4;color-scheme:light dark}small{opacity:.7}</style>\n"
        f"</head>\n<body>\n<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>"
    )


# ---------------------------------------------------------------- code


@click.command(
    short_help="Stable code for batches.",
    epilog=examples(
        "lossmith code focal",
        "lossmith code huber --outputs value,grad,hessian_diag",
        'lossmith code "log(1 + sum(exp(s - s[y]), where=classes != y))" -o loss.py',
    ),
)
@click.argument("definition", metavar="FORMULA|NAME")
@with_names
@click.option(
    "--backend",
    type=click.Choice(["numpy", "numba"]),
    default="numpy",
    show_default=True,
    help="numpy is code that runs on its own; numba is what lossmith compiles.",
)
@click.option(
    "--outputs",
    default=None,
    metavar="NAMES",
    help=f"What to compute, with commas: of a loss {', '.join(OUTPUTS)} (value,grad if not given), "
    f"of a vector function {', '.join(FUNCTION_OUTPUTS)} (value).",
)
@click.option("-o", "--output", metavar="FILE", help="Write it there instead of printing it.")
def code(
    definition: str,
    hypers: tuple[str, ...],
    roles: tuple[str, ...],
    backend: str,
    outputs: str | None,
    output: str | None,
) -> None:
    """Print stable code for batches, to read or to paste into a project.

    FORMULA|NAME is as for `lossmith derive`.
    """
    path = None if output is None else writable(output)
    (given,) = resolve([definition], hypers, roles)
    from lossmith.loss import Loss

    usual, known = (("value", "grad"), OUTPUTS) if isinstance(given.value, Loss) else (("value",), FUNCTION_OUTPUTS)
    text = given.value.source(backend, usual if outputs is None else _outputs(outputs, known))
    if path is None:
        click.echo(text.rstrip("\n"))
    else:
        write_text(path, text)
        note(f"the code for {given.title} is in {path}")


def _outputs(given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        got = f"not {unknown[0]!r}" if unknown else "and one at least"
        raise click.UsageError(f"--outputs takes {', '.join(known)}, with commas between them, {got}")
    return wanted
