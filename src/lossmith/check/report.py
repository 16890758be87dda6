"""What a check found: a table of worst errors, and a sentence for everything that is wrong."""

from __future__ import annotations

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class CheckRow:
    """One output in one dtype, over all inputs tried.

    Attributes
    ----------
    output : str
        What was computed: value, grad, hessian_diag, hvp; or which two formulas were compared.
    dtype : str
        float32 or float64; "exact" where both sides have 40 digits.
    backend : str
        Which kernel; empty where there is only one.
    ulp : float or None
        The error in units in the last place, at the input where it is largest beside its promise.
    promise : float or None
        What is promised for that input; None where nothing is.
    digits : float
        How many decimal digits are right at the least, counted against the promise's input.
    worst : str
        That input in words.
    cases : int
        How many numbers were compared.
    undecided : int
        How many could not be, because 1000 digits did not settle the exact value.
    ok : bool
    """

    output: str
    dtype: str
    backend: str
    ulp: float | None
    promise: float | None
    digits: float
    worst: str
    cases: int
    undecided: int = 0
    ok: bool = True


@dataclass(frozen=True)
class CheckReport:
    """The result of `check_loss`; prints as a table.

    Attributes
    ----------
    name : str
        The loss.
    ok : bool
        Whether every promise was kept.
    rows : tuple of CheckRow
    problems : tuple of str
        A sentence for each broken promise, with the input and both numbers.
    seconds : float
        How long it took.
    """

    name: str
    ok: bool
    rows: tuple[CheckRow, ...]
    problems: tuple[str, ...]
    seconds: float = 0.0

    def __str__(self) -> str:
        table = [_HEAD, *(_cells(r) for r in self.rows)]
        widths = [max(len(line[c]) for line in table) for c in range(len(_HEAD))]
        lines = [_line(table[0], widths), "  ".join("─" * w for w in widths).rstrip()]
        lines += [_line(cells, widths) for cells in table[1:]]
        return "\n".join([f"check of {self.name}", "", *lines, "", *self._conclusion()])

    def _conclusion(self) -> list[str]:
        cases = sum(r.cases for r in self.rows)
        if self.ok:
            said = [f"ok: {cases} numbers compared, every promise kept"]
        else:
            said = [f"FAILED: {len(self.problems)} of {len(self.rows)} comparisons", ""]
            said += [f"• {p}" for p in self.problems]
        undecided = sum(r.undecided for r in self.rows)
        if undecided:
            said.append(f"({undecided} more could not be decided with 1000 digits)")
        return said

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in _HEAD)
        body = "".join(_html_row(r) for r in self.rows)
        said = "<br>".join(html.escape(s) for s in self._conclusion() if s)
        caption = f"<caption>check of {html.escape(self.name)}</caption>"
        return (
            f'<table class="lossmith-check">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table><p>{said}</p>"
        )


_HEAD = ("", "output", "dtype", "error", "promised", "digits", "numbers", "worst input")
_RIGHT = (3, 4, 5, 6)
_LONGEST = 90


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "–"
    shown = f"{value:.2f}" if value < 100 else f"{value:.3g}"
    return ("∞" if value == float("inf") else shown) + unit


def _cells(row: CheckRow) -> tuple[str, ...]:
    output = f"{row.output} ({row.backend})" if row.backend else row.output
    worst = row.worst if len(row.worst) <= _LONGEST else row.worst[: _LONGEST - 1] + "…"
    return (
        "✓" if row.ok else "✗",
        output,
        row.dtype,
        _number(row.ulp, "" if row.ulp is None else " ulp"),
        _number(row.promise),
        f"{row.digits:.1f}",
        str(row.cases),
        worst,
    )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    padded = [
        cell.rjust(w) if c in _RIGHT else cell.ljust(w) for c, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _html_row(row: CheckRow) -> str:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
    return f'<tr class="{"kept" if row.ok else "broken"}">{cells}</tr>'
