"""The command: `python -m accuracy --help`."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from accuracy import campaign, page
from lossmith.losses import CATALOGUE

KEPT = Path("build/accuracy.jsonl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return 0, or 1 if a promise was broken."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.only if name not in CATALOGUE]
    if unknown:
        parser.error(f"no loss is called {unknown[0]!r}; there are {', '.join(CATALOGUE)}")
    if options.rows < 1:
        parser.error(f"--rows is {options.rows}, expected 1 or more")
    names = options.only or list(CATALOGUE)
    print(f"{options.rows} rows for each of {len(names)} losses, seed {options.seed}", file=sys.stderr)
    began = time.monotonic()
    totals = _with_progress(names, options)
    print(f"{sum(totals.rows.values())} rows in {time.monotonic() - began:.0f} s", file=sys.stderr)
    if options.write:
        path = Path(options.write)
        shown = path.name if path.is_absolute() else path.as_posix()
        limited = "" if math.isinf(options.minutes) else f" --minutes {options.minutes:g}"
        command = f"python -m accuracy --rows {options.rows} --seed {options.seed}{limited} --write {shown}"
        path.write_text(page.page(totals, command, options.seed), encoding="utf-8")
    else:
        print(page.summary(totals))
    broken = page.broken(totals)
    print(broken, file=sys.stderr)
    return int(bool(totals.broken))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m accuracy", description="The catalogue's errors over random rows, beside what is promised."
    )
    add = parser.add_argument
    add("--rows", metavar="N", type=int, default=20_000, help="rows for each loss (20000)")
    add("--only", metavar="LOSS", action="append", default=[], help="of the catalogue; may be repeated")
    add("--seed", metavar="N", type=int, default=0)
    add("--minutes", metavar="M", type=float, default=math.inf, help="begin no batch later; the page has what is done")
    add("--write", metavar="PAGE", help="write the page; without it a summary is printed")
    add("--processes", metavar="N", type=int, default=min(2, os.cpu_count() or 1), help="0: only this one")
    add("--keep", metavar="FILE", type=Path, default=KEPT, help=f"what was measured, to go on from ({KEPT})")
    add("--backends", metavar="NAME", nargs="+", choices=campaign.BACKENDS, default=list(campaign.BACKENDS))
    add("--afresh", action="store_true", help="measure everything again")
    return parser


def _with_progress(names: Sequence[str], options: argparse.Namespace) -> campaign.Totals:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if options.afresh:
        options.keep.unlink(missing_ok=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("")

        def progress(done: int, total: int, text: str) -> None:
            shown.update(task, completed=done, total=total, description=text)

        about = {"processes": options.processes, "keep": options.keep, "backends": options.backends}
        about["minutes"] = options.minutes
        return campaign.run(names, options.rows, options.seed, progress=progress, **about)


if __name__ == "__main__":
    sys.exit(main())
