"""What a check found: how many digits are right where, the worst errors, and what is said of everything wrong."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lossmith.check.blame import Blame
from lossmith.check.ledger import EVERYWHERE, OURS, PYTORCH, TEXTBOOK, Digits


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
        How many decimal digits are right there.
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
    """The result of `check_loss`; prints as tables of digits and a verdict.

    Attributes
    ----------
    name : str
        The loss.
    ok : bool
        Whether every promise was kept.
    rows : tuple of CheckRow
    problems : tuple of str
        What is said of each broken promise: the input, both numbers, where else, and what is to blame.
    seconds : float
        How long it took.
    digits : tuple of Digits
        Correct decimal digits by kind of input, of lossmith, the textbook formulas and PyTorch.
    unsteady : int
        How many numbers are left out of `digits`, for all three: rounding the inputs alone changes most of theirs.
    notes : tuple of str
        Of what could not be run.
    blames : tuple of Blame
        The sub-expressions that lose digits, one for each output and dtype that breaks its promise.
    """

    name: str
    ok: bool
    rows: tuple[CheckRow, ...]
    problems: tuple[str, ...]
    seconds: float = 0.0
    digits: tuple[Digits, ...] = ()
    unsteady: int = 0
    notes: tuple[str, ...] = ()
    blames: tuple[Blame, ...] = ()

    def __str__(self) -> str:
        shown = [*self._digit_lines()] or [self.details, ""]
        remarks = [f"({text})" for text in self._remarks()]
        return "\n".join([f"check of {self.name}", "", *shown, *remarks, *[""][: len(remarks)], *self._conclusion()])

    @property
    def details(self) -> str:
        """The table of errors in units in the last place: every output, dtype and back end with its worst input."""
        return "\n".join(_aligned([_HEAD, *(_cells(r) for r in self.rows)], right=_RIGHT))

    # -------------------------------------------------------------- digits

    def _tables(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Yield for each dtype its name, the outputs, and lines of cells."""
        for dtype in dict.fromkeys(d.dtype for d in self.digits):
            here = {(d.region, d.output, d.side): d for d in self.digits if d.dtype == dtype}
            outputs = [o for o in _OUTPUTS if any(key[1] == o for key in here)]
            sides = self._sides()
            lines: list[list[str]] = []
            for region in dict.fromkeys(key[0] for key in here):
                found = [here.get((region, o, s)) for o in outputs for s in sides]
                shown = "worst of all" if region == EVERYWHERE else region
                lines.append([shown, *("–" if d is None else f"{d.worst:.1f}" for d in found)])
                if region == EVERYWHERE:
                    lines.append(["typical", *("–" if d is None else f"{d.typical:.1f}" for d in found)])
            yield dtype, outputs, lines

    def _sides(self) -> list[str]:
        there = {d.side for d in self.digits}
        return [s for s in _SIDES if s in there]

    def _digit_lines(self) -> Iterator[str]:
        sides = self._sides()
        for number, (dtype, outputs, lines) in enumerate(self._tables()):
            table = [[f"{dtype}", *(_SIDES[s] for _ in outputs for s in sides)], *lines]
            widths = [_REGION, *(max(len(_SIDES[s]), 4) for _ in outputs for s in sides)]
            if number == 0:
                yield from (_CAPTION, "")
            group = sum(widths[1 : 1 + len(sides)]) + len(sides) - 1
            yield (" " * _REGION + "".join(f"  {_OUTPUTS[o]:^{group}}" for o in outputs)).rstrip()
            for cells in table:
                parts = [cells[0].ljust(_REGION)]
                for c, cell in enumerate(cells[1:]):
                    parts.append(("  " if c % len(sides) == 0 else " ") + cell.rjust(widths[c + 1]))
                yield "".join(parts).rstrip()
            yield ""

    def _remarks(self) -> Iterator[str]:
        yield from self.notes
        if self.digits and PYTORCH not in self._sides() and not any(n.startswith(PYTORCH) for n in self.notes):
            yield "PyTorch is not installed"
        if self.unsteady:
            yield f"left out: {_numbers(self.unsteady)} that rounding of the inputs alone changes too much"

    # -------------------------------------------------------------- verdict

    def _conclusion(self) -> list[str]:
        cases = sum(r.cases for r in self.rows)
        if self.ok:
            said = [f"ok: {cases} numbers compared, every promise kept"]
            closest = max(
                (r for r in self.rows if r.promise), key=lambda r: (r.ulp or 0) / (r.promise or 1), default=None
            )
            if closest is not None and self.digits:
                where = ", ".join(filter(None, (closest.output, closest.dtype, closest.backend)))
                off = f"{_number(closest.ulp)} ulp of {_number(closest.promise)} promised"
                said.append(f"closest to its limit: {where}, {off}, at {closest.worst}")
        else:
            broken = len(self.problems)
            said = [f"FAILED: {broken} {'promise' if broken == 1 else 'promises'} broken", ""]
            said += [f"• {p}" for p in self.problems]
        undecided = sum(r.undecided for r in self.rows)
        if undecided:
            said.append(f"({undecided} more could not be decided with 1000 digits)")
        return said

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in _HEAD)
        body = "".join(_html_row(r) for r in self.rows)
        said = "<br>".join(html.escape(s).replace("\n", "<br>") for s in (*self._remarks(), *self._conclusion()) if s)
        caption = f"<caption>check of {html.escape(self.name)}</caption>"
        return (
            f"{''.join(self._html_tables())}"
            f'<table class="lossmith-check">{caption}<thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table><p>{said}</p>"
        )

    def _html_tables(self) -> Iterator[str]:
        sides = self._sides()
        for dtype, outputs, lines in self._tables():
            groups = "".join(f'<th colspan="{len(sides)}">{html.escape(_OUTPUTS[o])}</th>' for o in outputs)
            names = "".join(f"<th>{html.escape(s)}</th>" for _ in outputs for s in sides)
            body = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in line)}</tr>" for line in lines)
            yield (
                f'<table class="numbers lossmith-digits"><thead><tr><th>{dtype}</th>{groups}</tr>'
                f"<tr><th></th>{names}</tr></thead><tbody>{body}</tbody></table>"
            )


_OUTPUTS = {"value": "value", "grad": "gradient", "hessian_diag": "Hessian diagonal", "hvp": "Hessian product"}
_SIDES = {OURS: "ours", TEXTBOOK: "naive", PYTORCH: "torch"}
"""Who computed, and the head of the column."""
_REGION = 12
_CAPTION = (
    "Correct decimal digits, the fewest for each kind of input: ours (lossmith),\n"
    "naive (the textbook formulas in NumPy), torch (PyTorch's autograd)."
)

_HEAD = ("", "output", "dtype", "error", "promised", "digits", "numbers", "worst input")
_RIGHT = (3, 4, 5, 6)
_LONGEST = 90


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"


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


def _aligned(table: Sequence[Sequence[str]], right: Sequence[int]) -> list[str]:
    """Return the lines of a table with a rule below its head."""
    widths = [max(len(line[c]) for line in table) for c in range(len(table[0]))]

    def line(cells: Sequence[str]) -> str:
        padded = [x.rjust(w) if c in right else x.ljust(w) for c, (x, w) in enumerate(zip(cells, widths, strict=True))]
        return "  ".join(padded).rstrip()

    return [line(table[0]), "  ".join("─" * w for w in widths).rstrip(), *(line(cells) for cells in table[1:])]


def _html_row(row: CheckRow) -> str:
    cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(row))
    return f'<tr class="{"kept" if row.ok else "broken"}">{cells}</tr>'
